"""Maps of numbered regions as objects, and sentences that list what a scene holds."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxt2i.data.builders.record import Object

# How many kinds of objects a sentence lists; with more it would be cut off by every tokenizer.
MENTIONED = 8
NUMBERS = ("no", "a", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
IRREGULAR = {"person": "people", "man": "men", "woman": "women", "child": "children"}
IRREGULAR |= {"shelf": "shelves", "bookshelf": "bookshelves", "knife": "knives", "leaf": "leaves"}


@dataclasses.dataclass(frozen=True)
class Region:
    """All pixels of one number in a map.

    Attributes:
      number: which.
      bbox: x, y, width, height, pixels.
      area: pixels.
      rle: its mask, see `runs_of`.
    """

    number: int
    bbox: tuple[int, int, int, int]
    area: int
    rle: list[int]


def regions(numbers: np.ndarray) -> list[Region]:
    """The regions of a map, by number; 0 is no region.

    One pass over the runs of all regions together: pictures of ten million pixels with hundreds of
    objects are common in ADE20K.

    Args:
      numbers: int [H, W].
    """
    height = len(numbers)
    flat = numbers.ravel(order="F")
    starts = np.flatnonzero(np.diff(flat, prepend=flat[0] - 1))
    ends = np.append(starts[1:], flat.size)
    order = np.argsort(flat[starts], kind="stable")
    found, first = np.unique(flat[starts][order], return_index=True)
    out = []
    for number, runs in zip(found, np.split(order, first[1:]), strict=True):
        if number == 0:
            continue
        start, end = starts[runs], ends[runs]
        rle = np.diff(np.stack([start, end], 1).ravel(), prepend=0).tolist()
        if end[-1] < flat.size:
            rle.append(int(flat.size - end[-1]))
        left, right = int(start[0] // height), int((end[-1] - 1) // height)
        if (start // height < (end - 1) // height).any():  # a run that goes on in the next column
            top, bottom = 0, height - 1
        else:
            top, bottom = int((start % height).min()), int(((end - 1) % height).max())
        bbox = (left, top, right - left + 1, bottom - top + 1)
        out.append(Region(int(number), bbox, int((end - start).sum()), rle))
    return out


def connected(labels: np.ndarray, void: int) -> list[tuple[int, Region]]:
    """(label, region) of everything that hangs together by its sides, in the order of the labels.

    Args:
      labels: int [H, W].
      void: the label of no region.
    """
    from scipy import ndimage

    numbers, label_of = np.zeros(labels.shape, np.int32), [void]
    for label in np.unique(labels[labels != void]):
        parts, count = ndimage.label(labels == label)
        numbers[parts > 0] = parts[parts > 0] + len(label_of) - 1
        label_of += [int(label)] * count
    return [(label_of[region.number], region) for region in regions(numbers)]


def sentence(scene: str, objects: Sequence[Object], counted: bool) -> str:
    """What a picture shows: "a bedroom with a bed, two windows and a lamp".

    Args:
      scene: its name, in words.
      objects: each with a name, of which the part before the first comma is used.
      counted: whether every object is one thing; else kinds are listed without their number,
        since one thing may be in several parts.

    Returns:
      Kinds by the area that they cover, largest first, `MENTIONED` at most.
    """
    count: dict[str, int] = {}
    area: dict[str, float] = {}
    for o in objects:
        name = o.name.split(",")[0].strip()
        count[name] = count.get(name, 0) + 1
        area[name] = area.get(name, 0) + (o.area or 0)
    largest = sorted(count, key=lambda name: (-area[name], name))[:MENTIONED]
    parts = [_numbered(name, count[name]) if counted else name for name in largest]
    listed = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    return f"{_numbered(scene, 1)} with {listed}" if parts else _numbered(scene, 1)


def _numbered(name: str, count: int) -> str:
    if count == 1:
        return f"{'an' if name[:1] in 'aeiou' else 'a'} {name}"
    return f"{NUMBERS[count] if count < len(NUMBERS) else count} {_plural(name)}"


def _plural(name: str) -> str:
    head, of, rest = name.partition(" of ")
    words = head.split(" ")
    last = words[-1]
    if last in IRREGULAR:
        last = IRREGULAR[last]
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2:-1] not in tuple("aeiou"):
        last = last[:-1] + "ies"
    else:
        last += "s"
    return " ".join([*words[:-1], last]) + of + rest
