"""Canny's edges on the device, in whole numbers: bit for bit what OpenCV's `Canny` finds.

Source: Canny 1986; what OpenCV 4 and 5 compute with a Sobel window of 3 and L2 gradients off.
"""

import jax
import jax.numpy as jnp

from jaxt2i.config import ConfigError, nearest

# What is differentiated: every colour, of which the steepest counts, or lightness alone.
SEES = ("colour", "grey")
# tan(22.5 degrees) in 1 / 2^15.
SHIFT = 15
TAN = round((2**0.5 - 1) * 2**SHIFT)


def lightness(image: jax.Array) -> jax.Array:
    """[B, H, W, 3] of whole numbers 0..255 to [B, H, W, 1], rounded as OpenCV's RGB to grey."""
    weights = jnp.asarray([9798, 19235, 3735], jnp.int32)
    return ((image * weights).sum(-1, keepdims=True) + (1 << 14)) >> SHIFT


def sobel(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Derivatives to the right and down of [B, H, W, C], borders replicated."""
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    down = x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]
    across = x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]
    return down[:, :, 2:] - down[:, :, :-2], across[:, 2:] - across[:, :-2]


def steepest(dx: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of each pixel's colours [B, H, W, C] the derivatives [B, H, W] of the first steepest."""
    channel = jnp.argmax(jnp.abs(dx) + jnp.abs(dy), -1)[..., None]
    return tuple(jnp.take_along_axis(d, channel, -1)[..., 0] for d in (dx, dy))


def shifted(x: jax.Array, down: int, right: int) -> jax.Array:
    """The neighbour of every pixel of [B, H, W], 0 outside."""
    height, width = x.shape[1:]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1)))
    return x[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]


def ridges(dx: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Steepness [B, H, W] and where it is the largest across its edge."""
    size = jnp.abs(dx) + jnp.abs(dy)
    x, y = jnp.abs(dx) * TAN, jnp.abs(dy) << SHIFT
    # Of two equal neighbours the one to the right or below gives way; on a slope neither stays.
    flat = (size > shifted(size, 0, -1)) & (size >= shifted(size, 0, 1))
    steep = (size > shifted(size, -1, 0)) & (size >= shifted(size, 1, 0))
    falling = (size > shifted(size, -1, -1)) & (size > shifted(size, 1, 1))
    rising = (size > shifted(size, -1, 1)) & (size > shifted(size, 1, -1))
    slope = jnp.where((dx ^ dy) < 0, rising, falling)
    upright = y > x + (jnp.abs(dx) << (SHIFT + 1))
    return size, jnp.where(y < x, flat, jnp.where(upright, steep, slope))


def joined(strong: jax.Array, weak: jax.Array) -> jax.Array:
    """Pixels [B, H, W] of `weak` that a chain of its neighbours joins to `strong`."""

    def grow(found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        now, _ = found
        rows = now | shifted(now, -1, 0) | shifted(now, 1, 0)
        around = rows | shifted(rows, 0, -1) | shifted(rows, 0, 1)
        after = around & weak
        return after, (after != now).any()

    return jax.lax.while_loop(lambda found: found[1], grow, (strong, jnp.asarray(True)))[0]


def canny(image: jax.Array, low: int = 100, high: int = 200, sees: str = "colour") -> jax.Array:
    """Edges of pictures.

    Args:
      image: uint8 [B, H, W, 3].
      low: steepness (|dx| + |dy| of Sobel's windows) above which an edge is followed.
      high: steepness above which one begins.
      sees: one of `SEES`.

    Returns:
      bool [B, H, W].

    Raises:
      ConfigError: there is no such `sees`.
    """
    if sees not in SEES:
        raise ConfigError(f"edges of {sees!r}: {nearest(sees, SEES)}")
    x = image.astype(jnp.int32)
    dx, dy = steepest(*sobel(lightness(x) if sees == "grey" else x))
    size, ridge = ridges(dx, dy)
    weak = ridge & (size > low)
    return joined(weak & (size > high), weak)
