"""What tells that a training is dying, watched as it goes: gradients, losses, updates, pictures.

Numbers are written as `health/*` and `pixels/*`; a sentence is said once when one turns bad, and
once when it is well again.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxt2i.engine import draw
from jaxt2i.engine.loop import Moment, Part
from jaxt2i.engine.method import Tree
from jaxt2i.metrics import pixels
from jaxt2i.run import checkpoint

# Rows that are drawn to look at them, and real pictures beside.
ROWS, REAL = 24, 256
# Of the second drawing of a caption: far from those of the first.
OTHER_SEED = 1_000_000
# A gradient this much smaller than it used to be is none.
VANISHED = 1e-4
# A critic's terms below this have nothing left to teach.
SOLVED = 1e-6
# Shares of saturated values: more than this, and more than this beyond real pictures'.
SATURATED, BEYOND = 0.97, 0.02
# Pictures that differ by less than this share of what real ones do are one picture.
SAME = 0.02
# Updates larger than this share of a network tear it, smaller ones leave it.
TORN, STILL = 0.1, 1e-9
# Pictures that a run must have seen before its signs count.
YOUNG = 2000
# Lines of metrics, or grids, in a row that make a bad sign certain.
LINES, GRIDS = 3, 2
NOTHING = np.zeros((0, 1, 1, 3), np.uint8)


class Dead(RuntimeError):
    """A run that learns nothing any more."""


@dataclasses.dataclass(frozen=True)
class Probe:
    """What is drawn to be looked at.

    Attributes:
      requests: held-out rows with a seed each, then the first half of them with other seeds.
      real: held-out pictures, uint8 [N, H, W, 3].
      captions: of `requests`' first part.
    """

    requests: tuple[draw.Request, ...]
    real: np.ndarray
    captions: tuple[str, ...]


def probe(rows: Sequence[Mapping[str, np.ndarray]], captions: Sequence[str], real: np.ndarray):
    """The `Probe` of rows of conditions; `real` may be empty."""
    first = [draw.Request(row, seed) for seed, row in enumerate(rows)]
    other = [draw.Request(r.row, r.seed + OTHER_SEED) for r in first[: max(1, len(first) // 2)]]
    return Probe((*first, *other), real, tuple(captions))


def looks(images: np.ndarray, rows: int, real: np.ndarray) -> dict[str, float]:
    """Numbers of drawn pictures.

    Args:
      images: uint8 [N, H, W, 3]: those of `rows` captions, then the first of them once more.
      rows: how many captions.
      real: uint8 [M, H, W, 3].
    """
    first, other = images[:rows], images[rows:]
    out = {"health/saturated": pixels.saturated(first)}
    out["health/between_seeds"] = pixels.difference(first[: len(other)], other)
    out["health/between_captions"] = pixels.spread(first)
    if len(real):
        out["pixels/saturated"] = out["health/saturated"] - pixels.saturated(real)
        out["pixels/colours"] = pixels.colour_distance(pixels.colours(first), pixels.colours(real))
        out["pixels/spectrum"] = pixels.spectrum_distance(
            pixels.spectrum(first), pixels.spectrum(real)
        )
        out["pixels/spread"] = out["health/between_captions"] / max(pixels.spread(real), 1e-9)
    return out


class Watch:
    """Turns numbers into sentences; knows what has been said.

    Args:
      say: takes a sentence.

    Attributes:
      dead: {sign that the run learns nothing: since which step}.
    """

    def __init__(self, say: Callable[[str], None]):
        self._say, self._real = say, NOTHING
        self._bad: dict[str, int] = collections.defaultdict(int)
        self._said: dict[str, int] = {}
        self._norms: dict[str, float] = {}
        self._scores: dict[str, float] = {}
        self._deadly: set[str] = set()
        self._images = 0
        self.dead: dict[str, int] = {}

    def knows(self, real: np.ndarray, captions: Sequence[str]) -> None:
        """Takes what drawn pictures are held against, and says where nothing can be learned of it.

        Args:
          real: uint8 [M, H, W, 3], held-out pictures; empty: there are none.
          captions: held-out captions.
        """
        self._real = real
        if len(captions) > 1 and len(set(captions)) == 1:
            self._say(
                f"all of {len(captions)} held-out captions are {captions[0]!r}: nothing can be "
                "learned of what captions mean"
            )
        if len(real) > 1 and pixels.spread(real) < 1:
            self._say(
                f"{len(real)} held-out pictures are one and the same; is config.data.path what "
                "you meant?"
            )

    def line(self, step: int, images: int, values: Mapping[str, float]) -> dict[str, float]:
        """Looks at a line of metrics; returns what is to be written beside it."""
        out: dict[str, float] = {}
        self._images = images
        for key, norm in values.items():
            if "/grad_norm/" not in key:
                continue
            player, _, net = key.partition("/grad_norm/")
            most = self._norms[key] = max(self._norms.get(key, 0.0), norm)
            share = norm / most if most else 0.0
            out[f"health/gradient/{player}/{net}"] = share
            self._sign(
                f"gradient of {key}", step, share < VANISHED, LINES, deadly=True,
                text=f"the gradient of {net!r} in player {player!r} is {share:.0e} of what it was: "
                f"{won(values, player)}. Try a smaller learning rate of its opponent "
                "(config.optim), noise or augmentation on what the discriminator sees, or "
                "another seed",
            )  # fmt: skip
        for player in sorted({key.partition("/")[0] for key in values if key.endswith("/fake")}):
            terms = [values.get(f"{player}/{name}", 0.0) for name in ("real", "fake")]
            self._sign(
                f"{player} solved", step, max(terms) < SOLVED, 3 * LINES,
                text=f"player {player!r} tells every real picture from every drawn one: its terms "
                "are 0, and it has nothing left to learn",
            )  # fmt: skip
        return out

    def updates(self, step: int, images: int, ratios: Mapping[str, float]) -> dict[str, float]:
        """Looks at {network: size of an update over that of the network}."""
        self._images = images
        for net, ratio in ratios.items():
            self._sign(
                f"torn {net}", step, ratio > TORN, 1, early=True,
                text=f"one step moved {net!r} by {ratio:.0%} of its size: the learning rate "
                "(config.optim) is far too high",
            )  # fmt: skip
            self._sign(
                f"still {net}", step, ratio < STILL, GRIDS, deadly=True,
                text=f"steps no longer move {net!r}: it has stopped learning",
            )  # fmt: skip
        return {f"health/update/{net}": ratio for net, ratio in ratios.items()}

    def pictures(self, step: int, images: int, drawn: np.ndarray, rows: int) -> dict[str, float]:
        """Looks at drawn pictures; see `looks`."""
        self._images = images
        out = looks(drawn, rows, self._real)
        share = out["health/saturated"]
        usual = pixels.saturated(self._real) if len(self._real) else 0.0
        self._sign(
            "saturated", step, share > max(SATURATED, usual + BEYOND), GRIDS, deadly=True,
            text=f"{share:.1%} of all values of drawn pictures are black or full "
            f"({usual:.1%} of real ones): what bounds them has no gradient there. Try a smaller "
            "learning rate of the discriminator, or a slower start (config.optim)",
        )  # fmt: skip
        real = max(pixels.spread(self._real), 1.0) if len(self._real) else 255.0
        between = out["health/between_captions"]
        self._sign(
            "one picture", step, between < SAME * real, GRIDS, deadly=True,
            text=f"{rows} captions give one picture: they differ by {between:.2g} of 255, real "
            f"ones by {real:.2g}",
        )  # fmt: skip
        seeds = out["health/between_seeds"]
        self._sign(
            "one seed", step, seeds < SAME * real and between >= SAME * real, GRIDS,
            text=f"the latent changes nothing: two pictures of a caption differ by {seeds:.2g} of "
            f"255, those of other captions by {between:.2g}",
        )  # fmt: skip
        return out

    def scores(self, step: int, images: int, values: Mapping[str, float]) -> None:
        """Looks at scores: equal to the last digit means that the networks are."""
        self._images = images
        same = bool(values) and dict(values) == self._scores
        self._scores = dict(values)
        self._sign(
            "scores", step, same, GRIDS, deadly=True,
            text="the scores are equal to the last digit: the generator no longer changes",
        )  # fmt: skip

    @property
    def doubtful(self) -> bool:
        """Whether a sign of death has been seen that has not gone away."""
        return any(self._bad[name] for name in self._deadly)

    def check(self, kept: Sequence[int]) -> None:
        """Ends a run that is dead.

        Args:
          kept: steps of its checkpoints.

        Raises:
          Dead: says since when, and which checkpoint is from before.
        """
        if self.dead:
            raise Dead(
                f"nothing is learned any more since about step {min(self.dead.values())} "
                f"({', '.join(sorted(self.dead))}). "
                f"{checkpoint.last_of(kept)}. To go on all the same: --config.stop_when_dead=False"
            )

    def _sign(
        self,
        name: str,
        step: int,
        bad: bool,
        needed: int,
        text: str,
        *,
        deadly: bool = False,
        early: bool = False,
    ) -> None:
        """Counts a sign; says it when it has been bad `needed` times in a row.

        Most signs mean nothing in a young run; those that are `early` do.
        """
        if not bad:
            if name in self._said:
                self._say(f"step {step}: well again since: {name} (bad at step {self._said[name]})")
            self._bad[name] = 0
            self._said.pop(name, None)
            self.dead.pop(name, None)
            return
        if self._images < YOUNG and not early:
            return
        self._bad[name] += 1
        if deadly:
            self._deadly.add(name)
        if self._bad[name] >= needed and name not in self._said:
            self._said[name] = step
            self._say(f"step {step}: {text}")
            if deadly:
                self.dead[name] = step


def won(values: Mapping[str, float], player: str) -> str:
    """Who has won, as far as a line of metrics tells."""
    winners = sorted(
        key.partition("/")[0]
        for key, value in values.items()
        if key.endswith("/fake") and not key.startswith(f"{player}/") and value < SOLVED
    )
    return f"{' and '.join(map(repr, winners))} has won" if winners else "it learns nothing"


class Updates(Part):
    """Measures how far one step moves each network, at the steps of the grids.

    Args:
      due: step number -> whether it is measured.
      tell: (step, {network: ratio}).
      state: before the first step of all.
    """

    def __init__(self, due: Callable[[int], bool], tell: Callable[[int, dict], None], state: Any):
        self._due, self._tell = due, tell
        self._before: dict[str, Tree] | None = None
        self.state = state if due(int(state.step) + 1) else None
        self._copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
        self._ratios = jax.jit(
            lambda old, new: {
                net: optax.tree.norm(jax.tree.map(jnp.subtract, new[net], old[net]))
                / (optax.tree.norm(old[net]) + 1e-12)
                for net in new
            }
        )

    def before(self, number: int, land: Callable[[int], None]) -> None:
        """Keeps the parameters: the step takes them over."""
        if self._due(number) and self.state is not None:
            self._before = self._copy(self.state.params)

    def after(self, now: Moment) -> None:
        """Compares."""
        if self._before is not None:
            self._tell(now.number, self._ratios(self._before, now.state.params))
            self._before = None
        # Held for one step only where the next one is measured: the state is donated.
        self.state = now.state if self._due(now.number + 1) else None


def pictures_of(drawn: Iterable[tuple[draw.Request, dict]]) -> np.ndarray | None:
    """uint8 [N, H, W, 3] of what was drawn; None where it is no pictures."""
    images = [out["image"] for _, out in drawn if "image" in out]
    return np.stack(images) if images else None
