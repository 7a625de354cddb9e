"""Pictures judged by a CLIP that had no part in their training: another seed, another shape.

Scores in the space of the network that guided a generator can praise noise. Any run of
configs/clip.py on the same kind of data judges instead: what caption a picture shows, to which
group it belongs, how far pictures lie from real ones. Colours are named from the pixels alone: that
which a caption names, and that of its real picture.
Beside every score stand those of real held-out pictures with their own captions, the most that can
be hoped for, and with shuffled ones, which is chance.
"""

import colorsys
import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.data.schema import unit_range
from jaxt2i.encoders import clip
from jaxt2i.engine import state as states
from jaxt2i.metrics import confidence, frechet
from jaxt2i.metrics import statistics as stats
from jaxt2i.metrics.score import MetricError, Score, unit_rows
from jaxt2i.nn.precision import exact
from jaxt2i.nn.resample import apply_matrices, area_matrix, bilinear_matrix
from jaxt2i.run.open import Run

# Captions among which a picture's own is looked for.
CANDIDATES = 100
# Pictures read at once.
CHUNK = 64
# Hues in degrees, up to which a colour has its name; greys, black and white have none.
HUES = (
    *((14, "red"), (42, "orange"), (68, "yellow"), (165, "green"), (258, "blue")),
    *((300, "purple"), (342, "pink"), (361, "red")),
)
# Less saturated or darker pixels have no hue that a person would name.
COLOURFUL, BRIGHT = 0.35, 0.2
# Orange this dark is brown.
BROWN = 0.65
NAMED = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
    """A trained CLIP that judges.

    Attributes:
      name: for reports.
      see: uint8 [N, H, W, 3] -> unit rows [N, S].
      read: captions -> unit rows [N, S].
    """

    name: str
    see: Callable[[np.ndarray], np.ndarray]
    read: Callable[[Sequence[str]], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Looked:
    """What is known of pictures, each looked at once.

    Attributes:
      seen: unit rows [N, S].
      colours: names [N], as `colour_of` has them.
    """

    seen: np.ndarray
    colours: np.ndarray


def of_run(run: Run, state: states.State, frozen: dict, name: str) -> Clip:
    """The CLIP that a run trained.

    Raises:
      MetricError: for a run of something else.
    """
    image = run.method.nets.get("image")
    if not isinstance(image, clip.ClipImage) or "image" not in run.method.trained:
        raise MetricError(
            f"--weights clip={name}: a run of {run.config.method} trains no CLIP; give one of "
            "configs/clip.py on this kind of data, of another seed and shape than the one that "
            "guides the judged run"
        )

    def called(net: str, *given: jax.Array) -> Any:
        ctx = states.context(run.method, state, frozen, key=jax.random.key(0))
        return ctx(net, *given)

    @jax.jit
    @exact
    def seen(pixels: jax.Array) -> jax.Array:
        size, out = pixels.shape[1], image.resolution
        matrix = area_matrix(out, size) if size % out == 0 else bilinear_matrix(out, size)
        pixels = apply_matrices(unit_range(pixels), matrix, matrix)
        return called("image", clip.normalize_image(pixels))[0]

    @jax.jit
    @exact
    def said(tokens: jax.Array, mask: jax.Array) -> jax.Array:
        return called("text", tokens, mask).sentence

    def see(pixels: np.ndarray) -> np.ndarray:
        return unit_rows(in_chunks(seen, pixels), "pictures")

    def read(captions: Sequence[str]) -> np.ndarray:
        return unit_rows(in_chunks(said, *run.tokenizer(captions)), "captions")

    return Clip(name, see, read)


def in_chunks(function: Callable, *arrays: np.ndarray) -> np.ndarray:
    """function(*arrays) in parts of one size, the last one filled up."""
    out, count = [], len(arrays[0])
    for first in range(0, count, CHUNK):
        rows = np.arange(first, first + CHUNK) % count
        out.append(np.asarray(function(*(jnp.asarray(x[rows]) for x in arrays))))
    return np.concatenate(out)[:count]


def check_apart(params: Any, others: dict[str, Any], name: str, judged: str) -> None:
    """Refuses a CLIP that is part of what it is to judge.

    Args:
      params: of the CLIP's image tower.
      others: {network: variables} of the judged run.
      name: of the CLIP.
      judged: the run.

    Raises:
      MetricError: names the network that has the same weights.
    """
    mine = jax.tree.leaves(params)
    for net, tree in others.items():
        its = jax.tree.leaves(tree.get("params", tree) if hasattr(tree, "get") else tree)
        if [x.shape for x in its] != [x.shape for x in mine]:
            continue
        if all(bool(jnp.array_equal(a, b)) for a, b in zip(mine, its, strict=True)):
            raise MetricError(
                f"--weights clip={name} is the very network {net!r} of {judged}, which trained it: "
                "train another with --config.seed=1 and another --config.model.width"
            )


def colour_of(picture: np.ndarray) -> str:
    """The name of the colour that most colourful pixels have; "": hardly any has one.

    Args:
      picture: uint8 [H, W, 3].
    """
    votes = dict.fromkeys(NAMED, 0)
    flat, counts = np.unique(picture.reshape(-1, 3) // 8 * 8 + 4, axis=0, return_counts=True)
    for (red, green, blue), count in zip(flat / 255, counts, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        if saturation < COLOURFUL or value < BRIGHT:
            continue
        name = next(name for most, name in HUES if hue * 360 < most)
        votes["brown" if name == "orange" and value < BROWN else name] += count
    best = max(votes, key=votes.get)
    return best if votes[best] >= 0.02 * picture[..., 0].size else ""


def asked_colour(caption: str) -> str:
    """The one colour that a caption names; "": none, or several."""
    found = {word for word in re.findall(r"[a-z]+", caption.lower()) if word in NAMED}
    return found.pop() if len(found) == 1 else ""


def look(by: Clip, pictures: np.ndarray) -> Looked:
    """uint8 [N, H, W, 3], looked at."""
    return Looked(by.see(pictures), np.array([*map(colour_of, pictures)]))


def found_of(
    pictures: Looked,
    said: np.ndarray,
    captions: Sequence[str],
    groups: np.ndarray | None,
    centres: np.ndarray | None,
    colours: np.ndarray,
) -> dict[str, np.ndarray]:
    """What is right, picture by picture.

    Args:
      pictures: N of them.
      said: unit rows [N, S] of the captions.
      captions: what they should show.
      groups: int [N], their classes.
      centres: unit rows [G, S] of the classes.
      colours: names [N] of the colours of the captions' real pictures.

    Returns:
      {score: bool [M]}; for "colour" M counts the captions that name one, for "colour_as_real"
      those whose real picture has one.
    """
    cosine = pictures.seen @ said.T
    count, own = len(captions), np.diag(cosine)
    text = np.array(captions)
    found = np.zeros(count, bool)
    for i in range(count):
        # A hundred in a circle, without those that say the same.
        others = (i + 1 + np.arange(count - 1)) % count
        others = others[text[others] != text[i]][: CANDIDATES - 1]
        found[i] = bool(np.all(own[i] > cosine[i, others]))
    out = {"r_precision": found}
    if centres is not None and groups is not None:
        out["group"] = (pictures.seen @ centres.T).argmax(1) == groups
    asked = np.array([*map(asked_colour, captions)])
    for name, wanted in (("colour", asked), ("colour_as_real", colours)):
        if (known := wanted != "").any():
            out[name] = (pictures.colours == wanted)[known]
    return out


def centres_of(by: Clip, pictures: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """Unit rows [count, S]: where real pictures of each class lie; zeros for one without any."""
    seen = by.see(pictures)
    out = np.stack([seen[groups == g].sum(0) for g in range(count)])
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def judge(
    by: Clip,
    drawn: np.ndarray,
    real: np.ndarray,
    captions: Sequence[str],
    groups: np.ndarray | None = None,
    centres: np.ndarray | None = None,
) -> list[Score]:
    """The scores of drawn pictures, with those of real ones and of shuffled captions beside.

    Args:
      by: who judges.
      drawn: uint8 [N, H, W, 3].
      real: uint8 [N, H, W, 3], the held-out pictures that the captions belong to.
      captions: N of them.
      groups: int [N], classes of the captions.
      centres: of `centres_of`.
    """
    shift = np.roll(np.arange(len(captions)), len(captions) // 2)
    shuffled = [captions[i] for i in shift]
    mixed = None if groups is None else groups[shift]
    ours, theirs = look(by, drawn), look(by, real)
    said, colours = by.read(captions), theirs.colours
    mine = found_of(ours, said, captions, groups, centres, colours)
    best = found_of(theirs, said, captions, groups, centres, colours)
    chance = found_of(ours, by.read(shuffled), shuffled, mixed, centres, colours[shift])
    facts = {"network": by.name, "generated": len(drawn), "candidates": CANDIDATES}
    out = []
    for name, right in mine.items():
        known = facts | {
            "judged": len(right),
            "real_pictures": round(float(best[name].mean()), 4),
            "shuffled_captions": round(float(chance[name].mean()), 4),
        }
        score = Score(f"independent_{name}", float(right.mean()), facts=known)
        interval = confidence.of_share(right.astype(int), np.ones(len(right), int))
        out.append(score.with_interval(interval))
    known = dict(facts)
    if len(real) >= 4:
        halves = gaussian(theirs.seen[::2]), gaussian(theirs.seen[1::2])
        known["one_half_of_real_pictures_against_the_other"] = round(frechet.fid(*halves).value, 4)
    value = frechet.fid(gaussian(theirs.seen), gaussian(ours.seen)).value
    return [*out, Score("independent_frechet", value, facts=known)]


def gaussian(rows: np.ndarray) -> stats.Gaussian:
    """Moments of rows."""
    return stats.gaussian(stats.of_rows(rows), "pictures")
