"""The batch: names, dtypes, shapes, ranges and units of everything a method may be given.

Shapes are static: text and objects are padded, and masks say what is real. Images stay uint8
until they are on the device, where `unit_range` is one fused multiply-add.
"""

import dataclasses
import difflib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np


class DataError(ValueError):
    """The data cannot be used as asked; the message names the file or config line and the fix."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes that a batch's shapes are made of.

    Attributes:
      batch: examples in the global batch, B.
      resolution: height and width of `image`, pixels.
      tokens: padded length of a caption, T.
      objects: padded number of objects, N.
      mask_resolution: height and width of one object's mask, pixels.
      captions: padded number of an image's captions, K.
    """

    batch: int
    resolution: int
    tokens: int = 77
    objects: int = 8
    mask_resolution: int = 16
    captions: int = 1


@dataclasses.dataclass(frozen=True)
class Field:
    """One key of a batch: its dtype, its shape after the batch axis, and what it means."""

    dtype: str
    shape: tuple[str | int, ...]
    meaning: str


# Columns of `box_attributes`: numbers of `jaxt2i.data.drawn.meaning.ATTRIBUTES`, -1 where a thing
# has no such part; `order` is the painter's, higher is nearer.
BOX_ATTRIBUTES = (
    *("colour", "size", "texture", "accent", "center", "wing", "belly", "leaves"),
    "order",
)

FIELDS: dict[str, Field] = {
    "image": Field("uint8", ("resolution", "resolution", 3), "RGB, 0..255"),
    "tokens": Field("int32", ("tokens",), "token ids of one caption, padded"),
    "token_mask": Field("bool", ("tokens",), "True where `tokens` is text, start and end included"),
    "all_tokens": Field("int32", ("captions", "tokens"), "token ids of all captions, padded"),
    "all_token_mask": Field(
        "bool", ("captions", "tokens"), "True where `all_tokens` is text, start and end included"
    ),
    "captions_mask": Field("bool", ("captions",), "True where the image has a caption"),
    "label": Field("int32", (), "class of the image"),
    "boxes": Field("float32", ("objects", 4), "x, y, w, h: top-left, fractions of the image"),
    "box_label": Field("int32", ("objects",), "class of each object"),
    "box_mask": Field("bool", ("objects",), "True where a box is an object"),
    "box_attributes": Field(
        "int32",
        ("objects", len(BOX_ATTRIBUTES)),
        "BOX_ATTRIBUTES of each object of a procedural corpus, -1 = has none",
    ),
    "setting": Field(
        "int32",
        (2,),
        "place and colour of a procedural corpus' background: numbers of "
        "data.meaning.PLACES and .ATTRIBUTES['colour'], -1 = no single colour",
    ),
    "shape_masks": Field(
        "uint8",
        ("objects", "mask_resolution", "mask_resolution"),
        "each object's shape on the whole image, 0..255",
    ),
    "segmentation": Field("int32", ("resolution", "resolution"), "class of each pixel, 0 = none"),
    "edit_region": Field("uint8", ("resolution", "resolution"), "255 where an edit may act"),
    "mask": Field("bool", (), "False = padding of a last evaluation batch"),
    "id": Field("int64", (), "the source's own number of the example"),
}


def spec(sizes: Sizes, needs: tuple[str, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a batch that holds `needs`, without making one.

    Args:
      sizes: the numbers behind the shapes.
      needs: keys of `FIELDS`.

    Returns:
      {key: ShapeDtypeStruct}, the batch axis first.

    Raises:
      KeyError: for a key that the schema does not know; names the nearest one.
    """
    out = {}
    for key in needs:
        if key not in FIELDS:
            near = difflib.get_close_matches(key, FIELDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(FIELDS)}"
            raise KeyError(f"a batch has no key {key!r}{hint}")
        shape = tuple(getattr(sizes, n) if isinstance(n, str) else n for n in FIELDS[key].shape)
        # Device integers are 32 bits wide unless x64 is enabled; ids are only ever carried along.
        dtype = "int32" if FIELDS[key].dtype == "int64" else FIELDS[key].dtype
        out[key] = jax.ShapeDtypeStruct((sizes.batch, *shape), np.dtype(dtype))
    return out


# Where the number behind each size is set, for error messages.
CONFIG_LINES = {
    "batch": "config.batch_size",
    "resolution": "config.data.resolution",
    "tokens": "config.data.tokens",
    "objects": "config.data.objects",
    "mask_resolution": "config.data.mask_resolution",
    "captions": "config.data.captions",
}


def validate(batch: Mapping[str, np.ndarray], sizes: Sizes, needs: tuple[str, ...]) -> None:
    """Checks a host batch against the schema.

    Args:
      batch: numpy arrays.
      sizes: the expected sizes; `sizes.batch` is this process's share.
      needs: the keys that must be there.

    Raises:
      DataError: names the key, what was seen, what was expected and the config line to change.
    """
    for key, want in spec(sizes, needs).items():
        if key not in batch:
            raise DataError(
                f"the data source gives no {key!r} ({FIELDS[key].meaning}), which this method "
                f"needs; it gives {', '.join(sorted(batch))}. Choose another config.data.source."
            )
        seen = batch[key]
        if tuple(seen.shape) != want.shape or seen.dtype != want.dtype:
            names = ("batch", *(n for n in FIELDS[key].shape if isinstance(n, str)))
            lines = ", ".join(dict.fromkeys(CONFIG_LINES[n] for n in names))
            raise DataError(
                f"batch[{key!r}] is {seen.dtype}{list(seen.shape)}, expected "
                f"{want.dtype}{list(want.shape)}; the sizes come from {lines}"
            )


def unit_range(image: jax.Array, dtype=jnp.float32) -> jax.Array:
    """uint8 pixels to floats in [-1, 1] (x / 127.5 - 1), on the device."""
    return image.astype(dtype) * dtype(1 / 127.5) - dtype(1)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Floats in [-1, 1] to uint8 as the StyleGAN family does: trunc(clip(127.5 x + 128, 0, 255)).

    Args:
      image: float array of any shape, on the host.
    """
    return np.clip(np.asarray(image, np.float32) * 127.5 + 128, 0, 255).astype(np.uint8)


def to_uint8_floor(image: np.ndarray) -> np.ndarray:
    """Floats to uint8 as PyTorch samplers commonly do: floor(127.5 (clip(x, -1, 1) + 1)).

    Args:
      image: float array of any shape, on the host.
    """
    x = np.clip(np.asarray(image, np.float32), -1, 1)
    return ((x + np.float32(1)) * np.float32(127.5)).astype(np.uint8)
