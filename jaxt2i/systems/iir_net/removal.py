"""Information removal: what an editor may still see of the picture that it edits.

Source: Zhang et al., WACV 2024 (arXiv 2305.17489) section 3.2.
"""

import jax
import jax.numpy as jnp

# ITU-R BT.601, as PIL and OpenCV turn colour into grey.
LUMA = (0.299, 0.587, 0.114)
# Where noise is added.
NOISED = ("image", "roi")


def grey(image: jax.Array) -> jax.Array:
    """[B, H, W, 3] to its lightness [B, H, W, 1], in the same range."""
    return (image * jnp.asarray(LUMA, image.dtype)).sum(-1, keepdims=True)


def without_colour(image: jax.Array, region: jax.Array) -> jax.Array:
    """A picture [B, H, W, 3] whose region [B, H, W], 0 to 1, is grey."""
    inside = region[..., None]
    return inside * grey(image) + (1 - inside) * image


def removed(
    image: jax.Array, region: jax.Array, abar: jax.Array, noise: jax.Array, where: str = "image"
) -> jax.Array:
    """What is left of a picture: grey inside the region, then noise.

    Args:
      image: [B, H, W, 3] in [-1, 1].
      region: [B, H, W], 1 where the text decides, 0 where the picture stays.
      abar: [B], share of the picture's variance that noise leaves; 1: no noise.
      noise: standard normal, like the picture.
      where: "image": noise over the whole picture; "roi": inside the region alone.

    Returns:
      [B, H, W, 3], around [-1, 1], not clipped.
    """
    plain = without_colour(image, region)
    share = abar[:, None, None, None]
    noisy = jnp.sqrt(share) * plain + jnp.sqrt(1 - share) * noise
    if where == "image":
        return noisy
    inside = region[..., None]
    return inside * noisy + (1 - inside) * plain


def condition(left: jax.Array, edges: jax.Array) -> jax.Array:
    """The control [B, H, W, 4]: what is left of the picture, from [-1, 1] to [0, 1], and edges.

    Args:
      left: [B, H, W, 3], as `removed` gives it.
      edges: [B, H, W], 0 or 1.
    """
    return jnp.concatenate([(left + 1) / 2, edges[..., None].astype(left.dtype)], -1)


def first_kernel(kernel: jax.Array) -> jax.Array:
    """The first convolution of an editor that starts as a ControlNet for edges.

    Args:
      kernel: [3, 3, 3, C] of a network that saw the edges three times.

    Returns:
      [3, 3, 4, C]: it sees them once, and nothing of the picture.
    """
    return jnp.concatenate([jnp.zeros_like(kernel), kernel.sum(2, keepdims=True)], 2)


def feathered(inside: jax.Array, width: jax.Array | float) -> jax.Array:
    """The edit's share of what a picture shows, where its source is pasted back outside a region.

    The paper does not say how edges are joined: a width of 0 joins them as they are.

    Args:
      inside: bool [B, H, W], the region.
      width: pixels, [] or traced.

    Returns:
      [B, H, W]: 0 outside, rising with the distance from there to 1 beyond `width`. What lies
      beyond the picture's borders is not outside.
    """

    def nearer(square: jax.Array, axis: int) -> jax.Array:
        """Squared distances to the nearest along an axis, of squares that the others gave."""
        size = square.shape[axis]
        at = jnp.arange(size).reshape([-1 if a == axis else 1 for a in range(square.ndim)])

        def step(k: jax.Array, found: jax.Array) -> jax.Array:
            for to in (k, -k):
                there = (at - to >= 0) & (at - to < size)
                moved = jnp.where(there, jnp.roll(square, to, axis), jnp.inf)
                found = jnp.minimum(found, moved + k.astype(jnp.float32) ** 2)
            return found

        return jax.lax.fori_loop(1, jnp.ceil(width).astype(jnp.int32) + 1, step, square)

    square = nearer(nearer(jnp.where(inside, jnp.inf, 0.0), 1), 2)
    return jnp.minimum(jnp.sqrt(square) / (width + 1), 1.0)
