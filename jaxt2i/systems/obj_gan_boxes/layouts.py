"""Boxes as sequences of numbers and back, and what is known of a data set's layouts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.config import ConfigError

# The labels that are no classes; classes follow.
PAD, START, END, UNKNOWN = range(4)
SPECIAL = 4
# Boxes are counted in pixels of a picture of this size.
SIZE = 256.0
# A class may be shown this often whatever the data says.
LEAST = 2.0


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Of the training data's layouts.

    Attributes:
      mean, deviation: of a box's centre x, y, its width and its height over width, in pixels of
        256.
      counts: how often each class is shown.
      captions: how many captions there are.
      often, spread: mean and deviation of a class's number in the pictures that show it.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    counts: tuple[float, ...]
    captions: float
    often: tuple[float, ...]
    spread: tuple[float, ...]

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.counts)

    @classmethod
    def unknown(cls, classes: int) -> "Statistics":
        """Stand-ins, where there is no data at hand."""
        same = (1.0,) * classes
        return cls((128.0, 128.0, 64.0, 1.0), (64.0, 64.0, 64.0, 1.0), same, 1.0, same, same)

    @classmethod
    def read(cls, content: Any, where: str) -> "Statistics":
        """Of plain data, as `plain` gives it.

        Raises:
          ConfigError: names the place, and what is missing or is no list of numbers.
        """
        fields = [field.name for field in dataclasses.fields(cls)]
        try:
            made = cls(
                **{k: tuple(map(float, v)) for k, v in content.items() if k != "captions"},
                captions=float(content["captions"]),
            )
            sizes = {len(made.counts), len(made.often), len(made.spread)}
            if (len(made.mean), len(made.deviation)) != (4, 4) or len(sizes) != 1:
                raise ValueError("lists of other lengths")
            if not all(np.isfinite(x).all() for x in dataclasses.astuple(made)):
                raise ValueError("numbers that are not finite")
            if min(made.deviation) <= 0:
                raise ValueError("deviations that are not above 0")
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError(
                f"{where}: no statistics of layouts ({error}); expected {', '.join(fields)}, as "
                "facts.json of a run has them below statistics.layouts"
            ) from None
        return made

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return dataclasses.asdict(self)


def measured(source: Any, classes: int, count: int = 0) -> Statistics:
    """Statistics of a source's layouts.

    Args:
      source: of `jaxt2i.data`; gives boxes.
      classes: how many there are.
      count: examples that are looked at, spaced over the source; 0: all.

    Raises:
      ConfigError: where the source has no end and `count` is 0, or nothing has a box.
    """
    if not count and source.size is None:
        raise ConfigError(
            "config.model.measured=0: the data has no end, so that not all of it can be measured; "
            "set a number of examples, such as 2000"
        )
    seen = min(count or source.size, source.size or count)
    numbers = [i * source.size // seen for i in range(seen)] if source.size else range(seen)
    rows, counts, captions = [], [], 0
    for number in numbers:
        found = source.example(number, ("boxes", "box_label", "box_mask"))
        there = found["box_mask"]
        weight = len(source.captions(number))
        rows.append(found["boxes"][there])
        labels = found["box_label"][there]
        if labels.max(initial=0) >= classes:
            raise ConfigError(
                f"config.model.classes={classes}, and the data has an object of class "
                f"{labels.max()}; set config.model.classes to the number of its classes"
            )
        shown = np.bincount(labels, minlength=classes)
        counts.append(shown * weight)
        captions += weight * bool(there.any())
    if not any(map(len, rows)):
        raise ConfigError("none of the examples has a box; choose another config.data.source")
    rows = np.asarray(places(jnp.asarray(np.concatenate(rows))), np.float64)
    counts = np.stack(counts)
    share = (source.size or seen) / seen
    return Statistics(
        mean=tuple(map(float, rows.mean(0))),
        deviation=tuple(map(float, np.maximum(rows.std(0), 1e-6))),
        counts=tuple(map(float, counts.sum(0) * share)),
        captions=captions * share,
        **_often(counts > 0, counts, captions / max(len(counts), 1)),
    )


def _often(shown: np.ndarray, counts: np.ndarray, weight: float) -> dict[str, tuple[float, ...]]:
    """Mean and deviation of a class's number where it is shown; 1 and 0 where it never is."""
    number = counts / max(weight, 1e-9)
    total = np.maximum(shown.sum(0), 1)
    mean = np.where(shown.any(0), number.sum(0) / total, 1)
    square = (np.square(number - mean) * shown).sum(0) / total
    return {"often": tuple(map(float, mean)), "spread": tuple(map(float, np.sqrt(square)))}


# --- Boxes and sequences -------------------------------------------------------------------------


def places(boxes: jax.Array) -> jax.Array:
    """Boxes [..., 4] in fractions to (centre x, centre y, width, height / width) in pixels of 256.

    The corner and the sides are first brought to 1 to 256 pixels, each for itself, as the official
    preparation does.
    """
    x, y, w, h = jnp.moveaxis(jnp.clip(boxes * SIZE, 1, SIZE), -1, 0)
    return jnp.stack([x + w / 2, y + h / 2, w, h / w], -1)


def sequence(
    boxes: jax.Array, label: jax.Array, mask: jax.Array, statistics: Statistics
) -> tuple[jax.Array, jax.Array]:
    """Layouts as the decoder reads them: the start, the objects, the end, padding.

    Args:
      boxes: [B, N, 4], fractions; those that count come first.
      label: int [B, N].
      mask: bool [B, N].
      statistics: of the data.

    Returns:
      (labels int [B, N + 2], places [B, N + 2, 4], standardised, 0 at what is no object).
    """
    count = mask.sum(-1, keepdims=True)
    at = jnp.arange(label.shape[1] + 2)
    labels = jnp.pad(label + SPECIAL, ((0, 0), (1, 1)))
    labels = jnp.where((at >= 1) & (at <= count), labels, PAD)
    labels = jnp.where(at == 0, START, jnp.where(at == count + 1, END, labels))
    mean, deviation = (jnp.asarray(x) for x in (statistics.mean, statistics.deviation))
    there = jnp.where(mask[..., None], (places(boxes) - mean) / deviation, 0)
    return labels, jnp.pad(there, ((0, 0), (1, 1), (0, 0)))


def layout(
    drawn: jax.Array,
    labels: jax.Array,
    most: jax.Array,
    statistics: Statistics,
    *,
    drop_last: str = "row",
    whole_pixels: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """The boxes that a decoded sequence stands for.

    What lies behind the end, has a centre or side that is not positive, or is of a class that is
    shown often enough already, is no object.

    Args:
      drawn: [T, 4], standardised places.
      labels: int [T].
      most: [classes], how often each class may be shown; at least twice.
      statistics: of the data.
      drop_last: "row": the last row that is left is taken for the end, as the official code does,
        also where the sequence ended for its length; "end": the end alone.
      whole_pixels: round down to whole pixels of 256, as the official code's later parts do.

    Returns:
      (boxes [T, 4] in fractions, bool [T] where there is one).
    """
    at = jnp.arange(len(labels))
    end = jnp.where(labels == END, at, len(labels)).min()
    x, y, w, r = jnp.moveaxis(
        drawn * jnp.asarray(statistics.deviation) + jnp.asarray(statistics.mean), -1, 0
    )
    h = w * r
    there = (at <= end) & (x > 0) & (y > 0) & (w > 0) & (h > 0)
    if drop_last == "row":
        there &= at != jnp.where(there, at, -1).max()
    there &= labels >= SPECIAL
    same = (labels[:, None] == labels[None]) & there[None] & (at[None] < at[:, None])
    number = jnp.clip(labels - SPECIAL, 0, statistics.classes - 1)
    there &= same.sum(1) < jnp.maximum(jnp.trunc(most), LEAST)[number]
    left, top = (jnp.clip(c - e / 2, 1, SIZE - 1) for c, e in ((x, w), (y, h)))
    boxes = jnp.stack([left, top, jnp.minimum(w, SIZE - left), jnp.minimum(h, SIZE - top)], -1)
    if whole_pixels:
        boxes = jnp.floor(boxes)
        there &= (boxes[:, 2:] > 0).all(-1)
    return jnp.where(there[:, None], boxes / SIZE, 0), there


def class_numbers(words: Mapping[str, int] | None, classes: int) -> Sequence[int] | None:
    """Class of every label from `SPECIAL` on, of a vocabulary as the official training pickles it.

    Its words are COCO's ids, numbered as the training met them; classes are ids in order.

    Args:
      words: {word: label}; None: labels are classes in order.
      classes: how many there are.

    Raises:
      ConfigError: where it is no such vocabulary.
    """
    if words is None:
        return None
    try:
        ids = {int(word): label for word, label in words.items() if not word.startswith("<")}
    except (AttributeError, TypeError, ValueError):
        ids = {}
    whole = all(type(label) is int for label in ids.values())
    if not whole or sorted(ids.values()) != list(range(SPECIAL, SPECIAL + classes)):
        raise ConfigError(
            f"config.model.labels: expected a vocabulary of {classes} class ids, numbered from "
            f"{SPECIAL} on, as label_word2index of the published checkpoint is; it has {len(ids)}"
        )
    rank = {label: number for number, (_, label) in enumerate(sorted(ids.items()))}
    return [rank[SPECIAL + i] for i in range(classes)]
