"""Semantic Object Accuracy (Hinz et al. 2020, arXiv 1910.13321): is what a caption names there?

Pictures are drawn from captions that name a class, and a detector says in how many of them it sees
that class at all, wherever. `overall` is the mean over the classes (SOA-C), over the pictures
(SOA-I), and over the classes with the most and the fewest pictures (Top-40 and Bottom-40). Where
pictures were drawn from layouts, `box_overlap` says how well a found object lies in its box.

Source: SOA/calculate_soa.py and util.py of
tohinz/semantic-object-accuracy-for-generative-text-to-image-synthesis.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxt2i.metrics.score import MetricError

Box = Sequence[float]
# Boxes are compared on a grid of so many pixels a side, whatever the pictures' size.
GRID = 256
# Classes of the published halves.
HALF = 40


class Overall(NamedTuple):
    """One number from those of all classes.

    Attributes:
      classes: the mean over classes.
      images: the mean over pictures.
      top: the mean over the classes with the most pictures; None: there is none.
      bottom: the mean over those with the fewest.
    """

    classes: float
    images: float
    top: float | None
    bottom: float | None


def overall(
    values: Mapping[int, float],
    images: Mapping[int, int],
    *,
    rarest: Sequence[int] | None = None,
    first: int | None = None,
) -> Overall:
    """SOA-C, SOA-I and both halves; of overlaps in place of accuracies their variants with IoU.

    Args:
      values: {class: accuracy, or mean overlap}.
      images: {class: pictures}.
      rarest: the classes, rarest first; None: by their number of pictures.
      first: so many classes are the bottom, and both sums are divided by half the number of
        classes, as published: means of 80 classes alone. None: each half's mean.

    Raises:
      MetricError: where there is no class or no picture.
    """
    total = sum(images[label] for label in values)
    if not total:
        raise MetricError("there is no picture whose caption names an object: nothing to judge")
    order = rarest or sorted(values, key=lambda label: images[label])
    order = [label for label in order if label in values]
    cut = len(order) // 2 if first is None else first

    def mean(half: Sequence[int]) -> float | None:
        if first is None and not half:
            return None
        return sum(values[label] for label in half) / (
            len(half) if first is None else len(order) / 2
        )

    weighted = sum(images[label] * value for label, value in values.items())
    middle = sum(values.values()) / len(values)
    return Overall(middle, weighted / total, mean(order[cut:]), mean(order[:cut]))


def box_overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes x, y, width, height in fractions, on whole pixels.

    Numbers are cut off, not rounded; a box is at least one pixel wide and high, and may reach out
    of the picture to the right and below.
    """
    (ax, ay, az, aw), (bx, by, bz, bw) = _corners(a), _corners(b)
    width, height = min(az, bz) - max(ax, bx), min(aw, bw) - max(ay, by)
    if width < 0 or height < 0:
        return 0.0
    shared = width * height
    return shared / ((az - ax) * (aw - ay) + (bz - bx) * (bw - by) - shared)


def _corners(box: Box) -> tuple[int, int, int, int]:
    """Left, top, right, bottom."""
    x, y, width, height = (int(value * GRID) for value in box)
    low = max(x, 0), max(y, 0)
    right, bottom = max(x + width, 0), max(y + height, 0)
    return *low, max(right, low[0] + 1), max(bottom, low[1] + 1)


def best_overlap(found: Sequence[Box], given: Sequence[Box]) -> float | None:
    """The largest overlap of any found with any given box of a class; None: one is lacking.

    Raises:
      MetricError: for a given box that reaches out of the picture.
    """
    for box in given:
        if not all(0 <= value <= 1 for value in box):
            raise MetricError(
                f"a given box is {list(map(float, box))}; expected x, y, width, height in "
                "fractions of the picture, 0 to 1"
            )
    return max((box_overlap(a, b) for a in found for b in given), default=None)


def mean_overlap(overlaps: Sequence[float | None]) -> float:
    """The mean of a class' pictures, of those that have one; 0 where none has."""
    known = [value for value in overlaps if value is not None]
    return sum(known) / len(known) if known else 0.0
