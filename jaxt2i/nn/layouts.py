"""Boxes as the numbers of a sequence: centres, order, whole bins."""

import jax
import jax.numpy as jnp


def centred(boxes: jax.Array) -> jax.Array:
    """Boxes x, y, w, h, top-left first, as cx, cy, w, h: [..., 4] to [..., 4]."""
    return jnp.concatenate([boxes[..., :2] + boxes[..., 2:] / 2, boxes[..., 2:]], -1)


def inside(boxes: jax.Array, least: float) -> jax.Array:
    """Boxes cx, cy, w, h as x, y, w, h, cut at the border of the picture.

    Args:
      boxes: [..., 4], fractions of the picture, of any size and anywhere.
      least: no side becomes shorter; a box that lies outside moves to the border.
    """
    size = jnp.clip(boxes[..., 2:], least, 1)
    first = jnp.clip(boxes[..., :2] - size / 2, 0, 1 - least)
    last = jnp.clip(boxes[..., :2] + size / 2, least, 1)
    return jnp.concatenate([first, jnp.maximum(last - first, least)], -1)


def by_area(boxes: jax.Array, there: jax.Array) -> jax.Array:
    """The order that puts the largest boxes first: int [..., N].

    Args:
      boxes: [..., N, 4], w and h last.
      there: bool [..., N]; the others come last. Ties keep their order.
    """
    area = jnp.where(there, boxes[..., 2] * boxes[..., 3], -1)
    return jnp.argsort(-area, axis=-1, stable=True)


def to_bins(values: jax.Array, bins: int) -> jax.Array:
    """Fractions as numbers of equal bins: int32 of the same shape."""
    return jnp.clip(jnp.floor(values * bins), 0, bins - 1).astype(jnp.int32)


def from_bins(numbers: jax.Array, bins: int) -> jax.Array:
    """The middles of bins, fractions."""
    return (numbers.astype(jnp.float32) + 0.5) / bins
