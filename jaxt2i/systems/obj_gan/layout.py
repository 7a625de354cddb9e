"""Where which objects are, as Obj-GAN's networks see it: shapes, maps of classes, and misplacings.

Shapes are the objects' own pictures of where they are, [B, N, S, S], 0 to 1 on the whole picture;
a map of classes has a channel for each class, [B, S, S, K]. Sizes go from half the first picture
to the last one.
"""

import flax.struct
import jax
import jax.numpy as jnp

from jaxt2i.nn.resample import apply_matrices, bilinear_matrix, corner_matrix

# Below this a predicted shape that is the same everywhere is none.
FLAT = 0.6


@flax.struct.dataclass
class Layout:
    """The objects of a batch of pictures.

    Attributes:
      shapes: of every size but the last, smallest first, [B, N, S, S]; zeros where no object is.
      maps: of every picture's size, smallest first, [B, S, S, K].
      embedded: of each object's class, [B, N, G]; zeros where no object is.
      there: bool [B, N], True where there is an object.
    """

    shapes: tuple[jax.Array, ...]
    maps: tuple[jax.Array, ...]
    embedded: jax.Array
    there: jax.Array


def resized(shapes: jax.Array, size: int, *, corners: bool = False) -> jax.Array:
    """Shapes [B, N, S, S] at another size, bilinear; `corners`: corner on corner."""
    if size == shapes.shape[-1]:
        return shapes
    matrix = (corner_matrix if corners else bilinear_matrix)(size, shapes.shape[-1])
    x = apply_matrices(jnp.moveaxis(shapes, 1, -1), matrix, matrix)
    return jnp.moveaxis(x, -1, 1)


def class_maps(shapes: jax.Array, one_hot: jax.Array) -> jax.Array:
    """Of each class the sum of its objects' shapes: [B, N, S, S] and [B, N, K] to [B, S, S, K]."""
    return jnp.einsum("bnij,bnk->bijk", shapes, one_hot.astype(shapes.dtype))


def stretched(x: jax.Array) -> jax.Array:
    """[..., S, S] so that each reaches from 0 to 1; flat ones become 0 below `FLAT`, else stay."""
    low, high = (f(x, axis=(-2, -1), keepdims=True) for f in (jnp.min, jnp.max))
    flat = low == high
    found = (x - low) / jnp.where(flat, 1, high - low)
    return jnp.where(flat, jnp.where(high < FLAT, 0, x), found)


def predicted(
    shapes: jax.Array, one_hot: jax.Array, there: jax.Array, sizes: tuple[int, ...]
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """(shapes of all `sizes` but the last, maps of all but the first) of a model's shapes.

    Every shape is stretched to 0 .. 1; of a class the largest counts, and is stretched again.
    Places without an object keep what is in them.

    Args:
      shapes: [B, N, S, S] of any size.
      one_hot: [B, N, K]; zeros where no object is.
      there: bool [B, N].
      sizes: of what is wanted, smallest first.

    Source: jamesli1618/Obj-GAN image_generation/miscc/utils.py (form_hmaps).
    """
    large = resized(shapes, sizes[-1], corners=True)
    large = jnp.where(there[..., None, None], stretched(large), large)
    of_class = jnp.moveaxis(one_hot, -1, 0)[..., None, None]  # [K, B, N, 1, 1]
    # One class at a time: all at once would be a map for each object and each class.
    maps = jax.lax.map(lambda mine: stretched((mine * large).max(1)), of_class)  # [K, B, S, S]
    maps = jnp.moveaxis(maps, 0, 1)
    return (
        tuple(resized(large, size, corners=True) for size in sizes[:-1]),
        tuple(jnp.moveaxis(resized(maps, size, corners=True), 1, -1) for size in sizes[1:]),
    )


def exchange(key: jax.Array, one_hot: jax.Array) -> jax.Array:
    """For each picture, which class takes the place of which: int [B, K].

    The classes that a picture has are shuffled among themselves, perhaps onto themselves; the
    others stay.

    Args:
      key: of the chance.
      one_hot: [B, N, K]; zeros where no object is.
    """
    present = one_hot.any(1)
    classes = jnp.argsort(~present, axis=-1, stable=True)  # those of the picture first, in order
    chance = jax.random.uniform(key, present.shape)
    shuffled = jnp.argsort(jnp.where(present, chance, jnp.inf), axis=-1, stable=True)
    return jax.vmap(lambda at, new: jnp.zeros_like(at).at[at].set(new))(shuffled, classes)


def exchanged(one_hot: jax.Array, to: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(labels [B, N, K] after an `exchange`, bool [B], True where it moves anything)."""
    matrix = jax.nn.one_hot(to, to.shape[-1], dtype=one_hot.dtype)
    moved = (to != jnp.arange(to.shape[-1])).any(-1)
    return jnp.einsum("bnk,bkl->bnl", one_hot, matrix), moved


def selected(
    boxes: jax.Array, there: jax.Array, *, size: int, least: float, low: float, high: float
) -> jax.Array:
    """Which objects an object discriminator looks at: bool [B, N].

    Args:
      boxes: [B, N, 4], fractions.
      there: bool [B, N].
      size: of the features that are read, pixels.
      least: objects that are narrower and lower than this are none, pixels of the features.
      low: shortest longer side of an object, as a share of the picture.
      high: longer sides stay below this share.
    """
    extent = boxes[..., 2:]
    longer = extent.max(-1)
    return there & (size * longer >= least) & (longer >= low) & (longer < high)
