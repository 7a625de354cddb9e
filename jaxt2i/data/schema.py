"""The batch: names, dtypes, shapes, ranges and units of everything a method may be given.

Shapes are static: text and objects are padded, and masks say what is real. Images stay uint8
until they are on the device, where `unit_range` is one fused multiply-add.
"""

import dataclasses
import difflib
import numbers
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np


class DataError(ValueError):
    """The data cannot be used as asked; the message names the file or config line and the fix."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes that a batch's shapes are made of.

    Attributes:
      batch: examples in the global batch, B.
      height: of `image`, pixels.
      width: of `image`, pixels.
      tokens: padded length of a caption, T.
      objects: padded number of objects, N.
      mask_resolution: height and width of one object's mask, pixels.
      captions: padded number of an image's captions, K.
      text_width: width of `text_vector`; 0 where there is none.
      relations: padded number of relations between objects, R.
      attributes: how many attributes a picture may have; 0 where none are read.
      object_attributes: how many attributes an object may have; 0 where none are read.
      latent_factor: pixels of a picture along one of its latent.
      latent_channels: of a latent.
    """

    batch: int
    height: int
    width: int
    tokens: int = 77
    objects: int = 8
    mask_resolution: int = 16
    captions: int = 1
    text_width: int = 0
    relations: int = 8
    attributes: int = 0
    object_attributes: int = 0
    latent_factor: int = 8
    latent_channels: int = 4

    @property
    def latent_height(self) -> int:
        """Of a latent, pixels."""
        return self.height // self.latent_factor

    @property
    def latent_width(self) -> int:
        """Of a latent, pixels."""
        return self.width // self.latent_factor

    @property
    def resolution(self) -> int | tuple[int, int]:
        """As config.data.resolution says it: the side of a square, or (height, width)."""
        return self.height if self.height == self.width else (self.height, self.width)


def height_and_width(resolution: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of config.data.resolution, which is the side of squares or both.

    Raises:
      DataError: when it is neither.
    """
    both = list(resolution) if isinstance(resolution, Sequence) else [resolution] * 2
    whole = all(isinstance(n, numbers.Integral) and not isinstance(n, bool) for n in both)
    if isinstance(resolution, str) or len(both) != 2 or not whole or min(both) < 1:
        raise DataError(
            f"config.data.resolution is {resolution!r}; expected the side of the pictures in "
            "pixels, such as 256, or (height, width), such as (256, 512)"
        )
    return int(both[0]), int(both[1])


def square(resolution: int | Sequence[int], who: str) -> int:
    """The side of squares, for those who know no other pictures.

    Args:
      resolution: config.data.resolution.
      who: what to name in the error, such as "the synthetic corpora".

    Raises:
      DataError: when height and width differ.
    """
    height, width = height_and_width(resolution)
    if height != width:
        raise DataError(
            f"config.data.resolution is ({height}, {width}), (height, width), and {who} can do "
            f"squares only; set --config.data.resolution={min(height, width)}"
        )
    return height


def sizes_of(data, *, batch: int, tokens: int) -> Sizes:
    """The sizes that a configuration asks for.

    Args:
      data: `config.data`.
      batch: examples in the global batch.
      tokens: padded length of a caption.
    """
    height, width = height_and_width(data.resolution)
    return Sizes(
        batch=batch,
        height=height,
        width=width,
        tokens=tokens,
        objects=data.objects,
        mask_resolution=data.mask_resolution,
        captions=data.captions,
        # Runs from before these settings have none of them.
        text_width=getattr(data, "text_width", 0),
        relations=getattr(data, "relations", 8),
        attributes=getattr(data, "attributes", 0),
        object_attributes=getattr(data, "object_attributes", 0),
        latent_factor=getattr(data, "latent_factor", 8),
    )


@dataclasses.dataclass(frozen=True)
class Field:
    """One key of a batch: its dtype, its shape after the batch axis, and what it means.

    Attributes:
      dtype: numpy's name of it.
      shape: after the batch axis; words are attributes of `Sizes`.
      meaning: for people.
      first_class: where it holds numbers of classes, that of the first one; else None.
    """

    dtype: str
    shape: tuple[str | int, ...]
    meaning: str
    first_class: int | None = None


# Columns of `box_attributes`: numbers of `jaxt2i.data.drawn.meaning.ATTRIBUTES`, -1 where a thing
# has no such part; `order` is the painter's, higher is nearer.
BOX_ATTRIBUTES = (
    *("colour", "size", "texture", "accent", "center", "wing", "belly", "leaves"),
    "order",
)

FIELDS: dict[str, Field] = {
    "image": Field("uint8", ("height", "width", 3), "RGB, 0..255"),
    "tokens": Field("int32", ("tokens",), "token ids of one caption, padded"),
    "token_mask": Field("bool", ("tokens",), "True where `tokens` is text, start and end included"),
    "negative_tokens": Field(
        "int32", ("tokens",), "token ids of what is not wanted, mostly of '', padded"
    ),
    "negative_token_mask": Field(
        "bool", ("tokens",), "True where `negative_tokens` is text, start and end included"
    ),
    "text_vector": Field(
        "float32", ("text_width",), "a caption's embedding, computed elsewhere (char-CNN-RNN)"
    ),
    "all_tokens": Field("int32", ("captions", "tokens"), "token ids of all captions, padded"),
    "all_token_mask": Field(
        "bool", ("captions", "tokens"), "True where `all_tokens` is text, start and end included"
    ),
    "captions_mask": Field("bool", ("captions",), "True where the image has a caption"),
    "label": Field("int32", (), "class of the image", first_class=0),
    "boxes": Field("float32", ("objects", 4), "x, y, w, h: top-left, fractions of the image"),
    "box_label": Field("int32", ("objects",), "class of each object", first_class=0),
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
    "relation_objects": Field(
        "int32", ("relations", 2), "subject and object of each relation: places among the objects"
    ),
    "relation_label": Field(
        "int32", ("relations",), "what each relation says (Visual Genome's predicates)", 0
    ),
    "relation_mask": Field("bool", ("relations",), "True where there is a relation"),
    "attributes": Field(
        "bool", ("attributes",), "True where what is shown has an attribute (CUB has 312)"
    ),
    "object_attributes": Field(
        "bool",
        ("objects", "object_attributes"),
        "True where an object has an attribute (Visual Genome's)",
    ),
    "shape_masks": Field(
        "uint8",
        ("objects", "mask_resolution", "mask_resolution"),
        "each object's shape on the whole image, 0..255",
    ),
    "segmentation": Field(
        "int32", ("height", "width"), "class of each pixel, 0 = none", first_class=1
    ),
    "latent_mean": Field(
        "float32",
        ("latent_height", "latent_width", "latent_channels"),
        "mean of the picture's latent, as an autoencoder gave it once, not scaled",
    ),
    "latent_std": Field(
        "float32",
        ("latent_height", "latent_width", "latent_channels"),
        "standard deviation of the picture's latent",
    ),
    "edit_region": Field("uint8", ("height", "width"), "255 where an edit may act"),
    "mask": Field("bool", (), "False = padding of a last evaluation batch"),
    "id": Field("int64", (), "the source's own number of the example"),
}


# Sizes that are 0 unless a configuration sets them.
UNSET = {"text_width", "attributes", "object_attributes"}
# What a sampler may give beside rows of the schema.
VIEWS: dict[str, str] = {
    "stages": "floats or uint8 [h, w, 3] each: the pictures of the earlier stages, in order",
    "attention": "float32 [T, h, w] each: where each text position is looked for",
    "masks": "float32 [objects, h, w]: where each object is drawn, 0 to 1; 0 where there is none",
    "source": "floats or uint8 [h, w, 3]: the picture that is edited, as it was read",
    "seen": "floats or uint8 [h, w, 3]: what an editor sees of it, without edges",
    "edges": "floats or uint8 [h, w, 3]: its edges, white",
}


def names_of(source) -> dict[str, tuple[str, ...]]:
    """Names of the classes that a source's keys count: {"label": (...), "box_label": (...), ...}.

    Args:
      source: its `class_names` hold for every key that has no names of its own, `object_names`,
        `pixel_names` or `predicate_names`.
    """
    named = source.class_names
    own = {
        "box_label": "object_names",
        "segmentation": "pixel_names",
        "relation_label": "predicate_names",
    }
    keys = [key for key, field in FIELDS.items() if field.first_class is not None]
    return {key: tuple(getattr(source, own.get(key, ""), named)) for key in keys}


def spec(sizes: Sizes, needs: tuple[str, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a batch that holds `needs`, without making one.

    Args:
      sizes: the numbers behind the shapes.
      needs: keys of `FIELDS`.

    Returns:
      {key: ShapeDtypeStruct}, the batch axis first.

    Raises:
      KeyError: for a key that the schema does not know; names the nearest one.
      DataError: for a key whose size is not set, or is below 1.
    """
    out = {}
    for key in needs:
        if key not in FIELDS:
            near = difflib.get_close_matches(key, FIELDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(FIELDS)}"
            raise KeyError(f"a batch has no key {key!r}{hint}")
        shape = tuple(getattr(sizes, n) if isinstance(n, str) else n for n in FIELDS[key].shape)
        for size, count in zip(FIELDS[key].shape, shape, strict=True):
            needed = f"batch[{key!r}] ({FIELDS[key].meaning}) is needed"
            if size in UNSET and not count:
                raise DataError(f"{needed}, and config.data.{size} does not say how wide it is")
            if count < 1:
                line = CONFIG_LINES[size]
                raise DataError(f"{needed}, and {line} is {count}; expected 1 or more")
        # Device integers are 32 bits wide unless x64 is enabled; ids are only ever carried along.
        dtype = "int32" if FIELDS[key].dtype == "int64" else FIELDS[key].dtype
        out[key] = jax.ShapeDtypeStruct((sizes.batch, *shape), np.dtype(dtype))
    return out


# Where the number behind each size is set, for error messages.
CONFIG_LINES = {
    "batch": "config.batch_size",
    "height": "config.data.resolution",
    "width": "config.data.resolution",
    "tokens": "config.data.tokens",
    "objects": "config.data.objects",
    "mask_resolution": "config.data.mask_resolution",
    "captions": "config.data.captions",
    "text_width": "config.data.text_width",
    "relations": "config.data.relations",
    "attributes": "config.data.attributes",
    "object_attributes": "config.data.object_attributes",
    "latent_height": "config.data.resolution, config.data.latent_factor",
    "latent_width": "config.data.resolution, config.data.latent_factor",
    "latent_channels": "config.data.latents",
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
