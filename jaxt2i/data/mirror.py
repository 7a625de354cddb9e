"""Left and right of an example exchanged, with everything that has them."""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxt2i.data import native

# config.data.mirror: the random crops alone, whatever a caption says; or half of the examples, but
# none whose caption says a side.
KINDS = ("crop", "unless_sided")
# English words that begin so: left, leftmost, right, right-hand, ...
SIDED = re.compile(r"\b(?:left|right)", re.IGNORECASE)
# Rows of the schema whose last axis, or the one before channels, goes from left to right.
PIXELS = {"image": -2, "segmentation": -1, "edit_region": -1, "shape_masks": -1}


def says_a_side(captions: Iterable[str]) -> bool:
    """Whether any of these captions says left or right."""
    return any(map(SIDED.search, captions))


def mirrored(example: dict[str, Any]) -> dict[str, Any]:
    """The example seen in a mirror: pictures, masks and boxes.

    Args:
      example: rows of the schema without a batch axis; a picture may be `native.Encoded`.
    """
    out = dict(example)
    for key, axis in PIXELS.items():
        if isinstance(out.get(key), native.Encoded):
            out[key] = out[key].mirrored()
        elif key in out:
            out[key] = np.flip(out[key], axis)
    if "boxes" in out:
        boxes = out["boxes"].copy()
        there = example.get("box_mask", boxes[:, 2:].prod(1) > 0)
        boxes[there, 0] = np.maximum(1 - boxes[there, 0] - boxes[there, 2], 0)
        out["boxes"] = boxes
    return out
