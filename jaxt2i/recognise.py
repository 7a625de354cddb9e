"""Scores that need no downloaded network: pictures judged by a recogniser trained on the spot.

The recogniser of a procedural corpus is trained once, in about two minutes on two CPU cores, kept
in a cache, and restored afterwards. `judge` reads pictures with it and holds them against their
captions. It errs itself: its scores are to be read beside those of `ceiling`. This is a module of
its own beside `runs`, as it opens and trains runs and reads captions: nothing below the command
lines may do both.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from jaxt2i.config import fields
from jaxt2i.configs import recogniser as presets
from jaxt2i.data.drawn import meaning, rarity
from jaxt2i.data.drawn.synthetic import Synthetic
from jaxt2i.data.schema import unit_range
from jaxt2i.encoders import pretrained
from jaxt2i.evaluation.detection import Detection, Detector
from jaxt2i.metrics import confidence, recognised
from jaxt2i.metrics import statistics as stats
from jaxt2i.metrics.frechet import fid
from jaxt2i.metrics.score import MetricError
from jaxt2i.nn.precision import exact
from jaxt2i.run import checkpoint, export, log, settings
from jaxt2i.run import open as runs
from jaxt2i.run import train as training
from jaxt2i.systems.recogniser import method as recogniser

# Pictures read at once.
CHUNK = 256
# Held-out pictures behind the Frechet distance and the ceiling.
REAL = 2048
# Pictures from which on the Frechet distance has an interval.
GROUPED = 40
# Examples whose captions and pixels stand for a corpus in the name of what was trained on it.
SAMPLED = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Eye:
    """A trained recogniser.

    Attributes:
      corpus: whose pictures it reads.
      resolution: at which it sees them, pixels.
      read: uint8 [N, R, R, 3] to its readings, see `jaxt2i.systems.recogniser.method.readings`.
      card: how it was trained, and its scores on held-out pictures.
    """

    corpus: str
    resolution: int
    read: Callable[[jax.Array], dict[str, jax.Array]]
    card: dict[str, Any]


def default_cache() -> Path:
    """Where recognisers are kept: jaxt2i/recognisers in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxt2i/recognisers"


def name_of(config: ConfigDict) -> str:
    """The name of what a configuration trains: its corpus, and a digest of all that it depends on.

    That is the configuration, the package's version, and what the corpus draws and says.
    """
    source = Synthetic(config.data.corpus, config.data.resolution, config.data.split)
    digest = hashlib.sha256(json.dumps(settings.plain(config), sort_keys=True).encode())
    digest.update(importlib.metadata.version("jaxt2i").encode())
    for index in range(SAMPLED):
        digest.update(source.example(index)["image"].tobytes())
        digest.update("\n".join(source.captions(index)).encode())
    return f"{config.data.corpus}-{config.data.resolution}-{digest.hexdigest()[:12]}"


def train(config: ConfigDict, folder: Path) -> None:
    """Trains a recogniser and puts it into `folder`, whole or not at all.

    Raises:
      MetricError: where the training was stopped before its end.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    log.say(f"training a recogniser of {config.data.corpus}, once: it is kept in {folder}")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".training-") as scratch:
        workdir, made = Path(scratch) / "run", Path(scratch) / "made"
        training.train(config, workdir, "jaxt2i.recognise")
        seen = max(checkpoint.steps_in(workdir), default=0)
        if seen < config.total_steps:
            raise MetricError(
                f"the training of the recogniser of {config.data.corpus} was stopped at step "
                f"{seen} of {config.total_steps}: it is not kept; the same command trains it again"
            )
        made.mkdir()
        export.export(workdir, made)
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            # Another process was faster, and made the same.


@functools.cache
def eye(
    corpus: str = "scenes", resolution: int = 32, cache: Path | None = None, preset: str = ""
) -> Eye:
    """The recogniser of a corpus: restored from the cache, or trained now.

    Args:
      corpus: "scenes" or "blooms".
      resolution: at which it sees pictures, pixels; larger ones are reduced to it.
      cache: folder of trained recognisers; None: `default_cache()`.
      preset: of configs/recogniser.py; "": the one of the corpus.

    Raises:
      ValueError: for another corpus.
      MetricError: where several processes would have to train one.
    """
    if corpus not in ("scenes", "blooms"):
        raise ValueError(
            f"corpus={corpus!r} has no recogniser: there is one of scenes and one of blooms. Judge "
            "pictures of a mixed corpus apart"
        )
    config = presets.get_config(preset or {"scenes": "embedded"}.get(corpus, corpus))
    config.data.resolution = resolution
    folder = (cache or default_cache()) / name_of(config)
    if not (folder / "eye.safetensors").is_file():
        if jax.process_count() > 1:
            raise MetricError(
                f"there is no recogniser of {corpus} in {folder.parent} yet, and it is trained by "
                "one process: judge the run once without the others, which keeps it there"
            )
        train(config, folder)
    config.precision = "float32"  # it judges, whatever it was trained in
    network = runs.open_run(config).method.nets["eye"]
    model = fields(recogniser.Model, config.model, "config.model")
    variables = pretrained.load_variables(folder / "eye.safetensors")
    # The weights enter as arguments; constants would be baked into the program.

    @jax.jit
    @exact
    def read(v, image):
        return recogniser.readings(network.apply(v, unit_range(image)), model)

    card = json.loads((folder / "card.json").read_text())
    return Eye(corpus, resolution, functools.partial(read, variables), card)


def seen_at(images: np.ndarray, resolution: int) -> np.ndarray:
    """Pictures uint8 [N, H, W, 3] at the recogniser's resolution, by averaging."""
    if images.shape[1:3] == (resolution, resolution):
        return images
    size = (resolution, resolution)
    filter = Image.Resampling.BOX if images.shape[1] > resolution else Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(x).resize(size, filter)) for x in images])


def readings(eye: Eye, images: np.ndarray) -> dict[str, np.ndarray]:
    """What a recogniser sees in pictures.

    Args:
      eye: the recogniser.
      images: uint8 [N, H, W, 3], squares of any size.

    Returns:
      As `jaxt2i.systems.recogniser.method.readings`, on the host.

    Raises:
      ValueError: for other arrays.
    """
    square = images.ndim == 4 and images.shape[-1] == 3 and images.shape[1] == images.shape[2]
    if images.dtype != np.uint8 or not square or not len(images):
        raise ValueError(
            f"images are {images.dtype}{list(images.shape)}; expected uint8 [N, H, H, 3], N > 0"
        )
    parts = []
    for start in range(0, len(images), CHUNK):
        rows = seen_at(images[start : start + CHUNK], eye.resolution)
        # One shape for every call, hence one program.
        padded = np.zeros((CHUNK, *rows.shape[1:]), np.uint8)
        padded[: len(rows)] = rows
        out = jax.device_get(eye.read(padded))
        parts.append({key: x[: len(rows)] for key, x in out.items()})
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


@functools.lru_cache(8)
def real(eye: Eye, split: str, count: int) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Readings of pictures of a split, and one caption of each."""
    source = Synthetic(eye.corpus, eye.resolution, split)
    images = np.stack([source.example(n)["image"] for n in range(count)])
    said = [source.captions(n) for n in range(count)]
    # Captions of an example are of different kinds: each gets its turn.
    return readings(eye, images), tuple(s[n % len(s)] for n, s in enumerate(said))


def held_against(eye: Eye, seen: dict[str, np.ndarray], captions: Sequence[str]) -> dict[str, Any]:
    """Scores of readings against captions, see `judge`."""
    meanings = [meaning.read(caption, eye.corpus) for caption in captions]
    verdicts = []
    for n, promised in enumerate(meanings):
        facts = meaning.decode(eye.corpus, {key: x[n] for key, x in seen.items()})
        verdicts.append(meaning.verdicts(promised, facts))
    numbers = [promised.number for promised in meanings]
    out = recognised.summary(verdicts, numbers, rarity.classes_by_rarity(eye.corpus))
    return out | {"unread": sum(bool(promised.unread) for promised in meanings)}


def judge(
    images: np.ndarray,
    captions: Sequence[str],
    corpus: str = "scenes",
    *,
    split: str = "val",
    resolution: int = 32,
    cache: Path | None = None,
    preset: str = "",
) -> dict[str, Any]:
    """Judges pictures that were drawn for captions of a procedural corpus.

    Args:
      images: uint8 [N, H, H, 3].
      captions: N sentences; what the grammar of the corpus does not know is not judged.
      corpus: "scenes" or "blooms".
      split: whose real pictures the Frechet distance compares with; the one of the captions.
      resolution: at which the recogniser sees pictures, see `eye`.
      cache: of recognisers, see `eye`.
      preset: of the recogniser, see `eye`.

    Returns:
      `jaxt2i.metrics.recognised.summary`, and "unread": captions with words that the grammar does
      not know; "frechet": distance of the recogniser's features from those of `REAL` real pictures;
      "frechet_interval": its interval, None for too few pictures.

    Raises:
      MetricError: for a single picture.
      ValueError: for arrays of another kind, or not one caption a picture.
    """
    if len(images) != len(captions):
        raise ValueError(f"{len(images)} images and {len(captions)} captions; expected one each")
    reader = eye(corpus, resolution, cache, preset)
    seen = readings(reader, images)
    truth, _ = real(reader, split, REAL)
    wanted = gaussian(truth["features"])
    distance = fid(wanted, gaussian(seen["features"])).value
    enough = len(images) >= GROUPED
    interval = confidence.of_fid(wanted, seen["features"]) if enough else None
    found = {"frechet": distance, "frechet_interval": interval}
    return held_against(reader, seen, captions) | found


def gaussian(features: np.ndarray) -> stats.Gaussian:
    """Moments of features [N, D]."""
    return stats.gaussian(stats.of_rows(features))


def ceiling(
    corpus: str = "scenes",
    *,
    split: str = "val",
    resolution: int = 32,
    cache: Path | None = None,
    preset: str = "",
) -> dict[str, Any]:
    """The scores of `REAL` real pictures against their own captions: what a perfect method gets.

    Args:
      corpus: as in `judge`.
      split: as in `judge`.
      resolution: as in `judge`.
      cache: as in `judge`.
      preset: as in `judge`.

    Returns:
      As `judge`; "frechet" is the distance of one half of the pictures from the other.
    """
    reader = eye(corpus, resolution, cache, preset)
    seen, captions = real(reader, split, REAL)
    halves = (gaussian(seen["features"][first::2]) for first in (0, 1))
    return held_against(reader, seen, captions) | {"frechet": fid(*halves).value}


def detector(
    corpus: str = "scenes",
    *,
    resolution: int = 32,
    cache: Path | None = None,
    preset: str = "",
    scarce: float = 1.0,
) -> Detector:
    """The recogniser of a corpus where a detector is asked for; classes are the corpus' own.

    Args:
      corpus: as in `judge`.
      resolution: as in `judge`.
      cache: as in `judge`.
      preset: as in `judge`.
      scarce: config.data.scarce of the training, whose rare classes are told apart.
    """
    reader, classes = eye(corpus, resolution, cache, preset), meaning.CLASSES[corpus]
    rarest = rarity.classes_by_rarity(corpus, scarce=scarce)

    def detect(images: np.ndarray) -> list[list[Detection]]:
        seen = readings(reader, images)
        keys = ("box_label", "boxes", "sure")
        return [
            [
                Detection(int(label), tuple(map(float, box)), float(sure))
                for label, box, sure in zip(*(seen[key][n][there] for key in keys), strict=True)
            ]
            for n, there in enumerate(seen["box_mask"].astype(bool))
        ]

    def named(caption: str) -> list[int]:
        things = meaning.read(caption, corpus).things
        return list(dict.fromkeys(classes.index(t.name) for t in things if t.name))

    return Detector(
        name=f"recogniser of {corpus}",
        classes=tuple(classes),
        detect=detect,
        named=named,
        batch=CHUNK,
        rarest=tuple(classes.index(name) for name in rarest),
    )
