"""Left and right of an example exchanged, with everything that has them."""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxt2i.data import native, schema

# config.data.mirror: the random crops alone, whatever a caption says; or half of the examples, but
# none whose caption says a side.
KINDS = ("crop", "unless_sided")
# English words that begin so: left, leftmost, right, right-hand, ...
SIDED = re.compile(r"\b(?:left|right)", re.IGNORECASE)
# Rows of the schema whose last axis, or the one before channels, goes from left to right.
PIXELS = {"image": -2, "segmentation": -1, "edit_region": -1, "shape_masks": -1}


def says_a_side(texts: Iterable[str]) -> bool:
    """Whether any of these captions, or of the names of `told`, says left or right."""
    return any(map(SIDED.search, texts))


def told(example: dict[str, Any], source: Any) -> list[str]:
    """What the rows of an example say in words, which a mirror would make wrong or leave right.

    These are the predicates of its relations ("to the left of"), and the attributes and classes of
    its objects ("right hand").

    Args:
      example: rows of the schema without a batch axis.
      source: of `jaxt2i.data`, which knows their names.
    """
    out = []
    for key, there in (("relation_label", "relation_mask"), ("box_label", "box_mask")):
        if {key, there} <= set(example):
            names = schema.names_of(source)[key]
            out += [names[n] for n in example[key][example[there]].tolist() if n < len(names)]
    if "object_attributes" in example:
        given = np.flatnonzero(example["object_attributes"].any(0)).tolist()
        out += [source.object_attribute_names[n] for n in given]
    return out


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
