"""The one record that every data set becomes, whatever its official files look like.

Boxes, sizes and areas are in pixels here and fractions of the image in the file; captions are
raw but for stripped whitespace, so that a method cleans and cuts them as its paper says.
"""

import dataclasses
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxt2i.data import images
from jaxt2i.data.sources.base import NO_CAPTION, clean_captions

# Pixels of no class in a stored segmentation; everything below is a class, counted from 0.
VOID = 255
# What tfds.features.Image keeps as it is; other kinds are stored as PNG.
KEPT = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
# Why a picture is skipped whose boxes and masks would lie elsewhere than its objects.
MISFIT = "not of the size that was annotated"


@dataclasses.dataclass(frozen=True)
class Caption:
    """A caption, the number that its data set gives it (-1: none), and its language."""

    text: str
    id: int = -1
    language: str = "en"


@dataclasses.dataclass(frozen=True)
class Object:
    """One object of a picture.

    Attributes:
      label: class, 0 to C - 1 without gaps.
      name: its name.
      bbox: x, y, width, height in pixels, as annotated: it may leave the picture.
      id: the annotation's own number, -1: none.
      category_id: the class's original number, -1: none.
      area: pixels; None: that of the box.
      is_crowd: whether it stands for many.
      rle: its mask: lengths of runs down the columns, first of zeros; empty: no mask.
    """

    label: int
    name: str
    bbox: tuple[float, float, float, float]
    id: int = -1
    category_id: int = -1
    area: float | None = None
    is_crowd: bool = False
    rle: Sequence[int] = ()


@dataclasses.dataclass(frozen=True)
class Record:
    """One picture with everything that is known of it.

    Attributes:
      key: unique and stable within its data set and split.
      image: a file, the bytes of one, or uint8 [H, W, 3].
      filename: its name in the data set.
      captions: at least one that is not blank, or the record is skipped.
      label: class of the picture, -1: none.
      label_name: its name.
      bbox: x, y, width, height in pixels of what the picture shows; None: all of it.
      objects: in the order of their annotations.
      relationships: (index of the subject in `objects`, index of the object, predicate).
      segmentation: uint8 [H, W], the class of each pixel from 0, `VOID` where none; None: none.
      metadata: whatever else, as JSON.
      size: width and height that its annotations were made for, pixels; a picture or a
        segmentation of another size is skipped; None: not known.
    """

    key: str
    image: str | os.PathLike | bytes | np.ndarray
    filename: str
    captions: Sequence[Caption] = ()
    label: int = -1
    label_name: str = ""
    bbox: tuple[float, float, float, float] | None = None
    objects: Sequence[Object] = ()
    relationships: Sequence[tuple[int, int, str]] = ()
    segmentation: np.ndarray | None = None
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    size: tuple[int, int] | None = None


def features() -> tfds.features.FeaturesDict:
    """The stored features."""
    f = tfds.features
    objects = {
        "id": np.int64,
        "label": np.int64,
        "category_id": np.int64,
        "name": f.Text(),
        "bbox": f.BBoxFeature(),
        "area": np.float32,
        "is_crowd": np.bool_,
        "rle": f.Sequence(np.int32),
    }
    return f.FeaturesDict(
        {
            "id": f.Text(),
            "image": f.Image(shape=(None, None, 3)),
            "image/height": np.int32,
            "image/width": np.int32,
            "image/filename": f.Text(),
            "captions": f.Sequence({"text": f.Text(), "id": np.int64, "language": f.Text()}),
            "label": np.int64,
            "label_name": f.Text(),
            "bbox": f.BBoxFeature(),
            "has_bbox": np.bool_,
            "objects": f.Sequence(objects),
            "relationships": f.Sequence(
                {"subject": np.int32, "object": np.int32, "predicate": f.Text()}
            ),
            "segmentation": f.Image(shape=(None, None, 1), encoding_format="png"),
            "metadata": f.Text(),
        }
    )


def image_bytes(image: str | os.PathLike | bytes | np.ndarray, name: str):
    """The file to store, and the picture's size.

    JPEG and PNG are kept byte for byte; everything else, pictures in CMYK among it, becomes PNG.

    Args:
      image: see `Record`.
      name: what errors call it.

    Returns:
      (bytes, width, height).

    Raises:
      Unreadable: when the picture cannot be decoded to its end.
    """
    from PIL import Image

    if isinstance(image, np.ndarray):
        rgb, kept = Image.fromarray(image), None
    else:
        try:
            kept = image if isinstance(image, bytes) else Path(image).read_bytes()
        except OSError as error:
            raise images.Unreadable(name, images.SYSTEM) from error
        rgb = images.read_rgb(kept, name=name, upright=False)
        if not kept.startswith(KEPT) or Image.open(io.BytesIO(kept)).mode not in ("RGB", "L"):
            kept = None
    if kept is None:
        out = io.BytesIO()
        rgb.save(out, "PNG")
        kept = out.getvalue()
    return kept, *rgb.size


def fractions(bbox: tuple[float, float, float, float], width: int, height: int):
    """A box in pixels as the fractions that are stored, cut at the picture's border."""
    x, y, w, h = bbox
    left, right = np.clip([x / width, (x + w) / width], 0, 1)
    top, bottom = np.clip([y / height, (y + h) / height], 0, 1)
    return tfds.features.BBox(ymin=top, xmin=left, ymax=bottom, xmax=right)


def encode(record: Record, dataset: str, split: str) -> dict[str, Any]:
    """A record as tfds stores it.

    Raises:
      Unreadable: when its picture cannot be decoded, is not of the annotated size, or has no
        caption.
    """
    image, width, height = image_bytes(record.image, record.filename)
    segmentation = record.segmentation
    shape = (height, width) if segmentation is None else segmentation.shape
    if record.size and not record.size == (width, height) == shape[::-1]:
        raise images.Unreadable(record.filename, MISFIT)
    captions = [
        {"text": text, "id": c.id, "language": c.language}
        for c in record.captions
        for text in clean_captions([c.text])
    ]
    if not captions:
        raise images.Unreadable(record.filename, NO_CAPTION)
    absent = np.full((1, 1, 1), VOID, np.uint8)
    return {
        "id": f"{dataset}/{split}/{record.key}",
        "image": image,
        "image/height": height,
        "image/width": width,
        "image/filename": record.filename,
        "captions": captions,
        "label": record.label,
        "label_name": record.label_name,
        "bbox": fractions(record.bbox or (0, 0, width, height), width, height),
        "has_bbox": record.bbox is not None,
        "objects": [_object(o, width, height) for o in record.objects],
        "relationships": [
            {"subject": s, "object": o, "predicate": p} for s, o, p in record.relationships
        ],
        "segmentation": absent if segmentation is None else segmentation[..., None],
        "metadata": json.dumps(record.metadata),
    }


def _object(o: Object, width: int, height: int) -> dict[str, Any]:
    return {
        "id": o.id,
        "label": o.label,
        "category_id": o.category_id,
        "name": o.name,
        "bbox": fractions(o.bbox, width, height),
        "area": o.bbox[2] * o.bbox[3] if o.area is None else o.area,
        "is_crowd": o.is_crowd,
        "rle": np.asarray(o.rle, np.int32),
    }


def runs_of(mask: np.ndarray) -> list[int]:
    """Run lengths of a mask [H, W] down its columns, first of zeros, as COCO counts them."""
    flat = np.concatenate([[0], np.asarray(mask, bool).ravel(order="F"), [2]])
    edges = np.flatnonzero(np.diff(flat.astype(np.int8)))
    return np.diff(edges, prepend=0).tolist()
