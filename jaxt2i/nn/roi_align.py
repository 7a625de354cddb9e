"""RoIAlign: features of boxes, read at a lattice of points (He et al. 2017, arXiv 1703.06870).

A box is axis-aligned, so that bilinear reading is a small matrix along each axis, and a box's
features are two products, which gather nothing. `roi_align` is Obj-GAN's, whose points lie on the
borders of a box, `cell_align` the paper's, whose points lie inside of its cells.
"""

import jax
import jax.numpy as jnp

# Points of a lattice that a value is the mean of, along one axis.
POINTS = 2


def lattice(start: jax.Array, end: jax.Array, points: int, size: int) -> jax.Array:
    """Bilinear reading along one axis, as matrices [..., points, size].

    Args:
      start: [...], pixels of the features.
      end: [...]; the box is one pixel longer than from start to end.
      points: of the lattice; the first lies at start, the last at the box's end.
      size: pixels of the features along this axis.

    A point outside of 0 <= at < size reads zeros. Behind the centre of the last pixel the line
    through the last two goes on.
    """
    length = jnp.maximum(end - start + 1, 0)
    at = start[..., None] + jnp.arange(points) * (length / (points - 1))[..., None]
    low = jnp.minimum(jnp.floor(at), size - 2)
    inside = (at >= 0) & (at < size)
    at, low, inside = at[..., None], low[..., None], inside[..., None]
    pixel = jnp.arange(size, dtype=at.dtype)
    weight = jnp.where(pixel == low, 1 - (at - low), 0) + jnp.where(pixel == low + 1, at - low, 0)
    return jnp.where(inside, weight, 0)


def roi_align(
    features: jax.Array, boxes: jax.Array, *, size: int, scale: float = 1.0, mean: bool = True
) -> jax.Array:
    """The features of boxes.

    Args:
      features: [B, H, W, C], at least two pixels high and wide.
      boxes: [B, N, 4], left, top, right, bottom; without gradient.
      size: height and width of what is read.
      scale: of features over boxes: boxes times this count the features' pixels. Only then does a
        box become a pixel longer.
      mean: read one point more along each axis, and take the mean of each two by two neighbours
        (RoIAlignAvg); else the points themselves.

    Returns:
      [B, N, size, size, C], of the features' dtype.

    Source: the RoIAlign of the PyTorch Faster R-CNN that Obj-GAN contains
    (jamesli1618/Obj-GAN, roi_align). Not torchvision's, whose points lie inside of the box.
    """
    x1, y1, x2, y2 = jnp.moveaxis(jax.lax.stop_gradient(boxes.astype(jnp.float32)) * scale, -1, 0)
    points = size + POINTS - 1 if mean else size
    down = lattice(y1, y2, points, features.shape[1])
    across = lattice(x1, x2, points, features.shape[2])
    if mean:
        down, across = ((m[..., 1:, :] + m[..., :-1, :]) / POINTS for m in (down, across))
    down, across = (m.astype(features.dtype) for m in (down, across))
    rows = jnp.einsum("bnih,bhwc->bniwc", down, features)
    return jnp.einsum("bnjw,bniwc->bnijc", across, rows)


def cells(start: jax.Array, extent: jax.Array, count: int, points: int, size: int) -> jax.Array:
    """The means of points inside of cells along one axis, as matrices [..., count, size].

    Args:
      start: [...], fractions of the features' length.
      extent: [...], of the box, fractions.
      count: cells of equal length.
      points: bilinear readings a cell, evenly spaced; those beyond the centre of the first or last
        pixel read that pixel.
      size: pixels of the features along this axis.
    """
    inside = (jnp.arange(count * points) + 0.5) / (count * points)
    at = (start[..., None] + inside * extent[..., None]) * size - 0.5
    at = jnp.clip(at, 0, size - 1)[..., None]
    weight = jnp.maximum(1 - jnp.abs(at - jnp.arange(size, dtype=at.dtype)), 0)
    return weight.reshape(*start.shape, count, points, size).mean(-2)


def cell_align(features: jax.Array, boxes: jax.Array, *, size: int, points: int = 2) -> jax.Array:
    """The features of boxes, the mean of `points` squared readings in each of size by size cells.

    Args:
      features: [B, H, W, C].
      boxes: [B, N, 4], x, y, width, height, fractions of the picture; without gradient.
      size: height and width of what is read.
      points: readings a cell along each axis.

    Returns:
      [B, N, size, size, C], of the features' dtype.

    Source: He et al. 2017, arXiv 1703.06870, section 3, with the centre of the first pixel half a
    pixel inside, as torchvision's roi_align(aligned=True, sampling_ratio=points) counts.
    """
    boxes = jax.lax.stop_gradient(boxes.astype(jnp.float32))
    x, y, w, h = jnp.moveaxis(boxes, -1, 0)
    down = cells(y, h, size, points, features.shape[1]).astype(features.dtype)
    across = cells(x, w, size, points, features.shape[2]).astype(features.dtype)
    rows = jnp.einsum("bnih,bhwc->bniwc", down, features)
    return jnp.einsum("bnjw,bniwc->bnijc", across, rows)
