"""DiffAugment: differentiable augmentation of what a discriminator sees.

Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", arXiv 2006.10738.
Drawing and applying are apart, so that an application is a pure function that can be checked
number for number, and the same draws can be reused. Images are [B, S, S, C] in [-1, 1]; what is
shifted in or cut out becomes 0, mid-grey.
"""

import jax
import jax.numpy as jnp

from jaxt2i.nn import resample
from jaxt2i.nn.fastest import by_platform

POLICIES = ("color", "translation", "cutout")
Draws = dict[str, jax.Array]


def _steps(policy: str) -> list[str]:
    steps = [s for s in policy.split(",") if s]
    for step in steps:
        if step not in POLICIES:
            raise ValueError(
                f"augmentation {step!r} in the policy {policy!r} does not exist; "
                f"give a comma-separated selection of {','.join(POLICIES)}"
            )
    return steps


def max_shift(size: int) -> int:
    """Largest translation of an image of `size` pixels: an eighth, rounded."""
    return int(size * 0.125 + 0.5)


def cutout_size(size: int) -> int:
    """Side of the square that is cut out of an image of `size` pixels: a fifth, rounded."""
    return int(size * 0.2 + 0.5)


def draw(key: jax.Array, batch: int, size: int, policy: str = "color,translation,cutout") -> Draws:
    """Random numbers of one application, one of each kind an example.

    Args:
      key: a random key.
      batch: number of images, B.
      size: their height and width, pixels.
      policy: comma-separated selection of `POLICIES`; "" draws nothing.

    Returns:
      brightness, saturation, contrast: float32 [B] in [0, 1); shift_row, shift_col: int32 [B],
      pixels; cut_row, cut_col: int32 [B], the centre of the square in pixels.

    Raises:
      ValueError: for an unknown step in the policy.
    """
    keys = dict(zip(POLICIES, jax.random.split(key, len(POLICIES)), strict=True))
    out = {}
    for step in _steps(policy):
        if step == "color":
            names = ("brightness", "saturation", "contrast")
            out.update(zip(names, jax.random.uniform(keys[step], (3, batch)), strict=True))
        elif step == "translation":
            most = max_shift(size)
            shifts = jax.random.randint(keys[step], (2, batch), -most, most + 1)
            out.update(zip(("shift_row", "shift_col"), shifts, strict=True))
        else:
            last = size - cutout_size(size) % 2
            centres = jax.random.randint(keys[step], (2, batch), 0, last + 1)
            out.update(zip(("cut_row", "cut_col"), centres, strict=True))
    return out


def _per_image(values: jax.Array, x: jax.Array) -> jax.Array:
    return values.astype(x.dtype)[:, None, None, None]


def brightness(x: jax.Array, u: jax.Array) -> jax.Array:
    """Adds u - 0.5 to every value; u [B] in [0, 1)."""
    return x + (_per_image(u, x) - 0.5)


def saturation(x: jax.Array, u: jax.Array) -> jax.Array:
    """Scales each pixel's distance from its grey value by 2u; u [B] in [0, 1)."""
    grey = x.mean(-1, keepdims=True)
    return (x - grey) * (_per_image(u, x) * 2) + grey


def contrast(x: jax.Array, u: jax.Array) -> jax.Array:
    """Scales each image's distance from its mean by u + 0.5; u [B] in [0, 1)."""
    mean = x.mean((1, 2, 3), keepdims=True)
    return (x - mean) * (_per_image(u, x) + 0.5) + mean


def translate(
    x: jax.Array, rows: jax.Array, cols: jax.Array, *, variant: str = "auto"
) -> jax.Array:
    """y[i, j] = x[i + rows, j + cols], zeros from outside.

    Args:
      x: [B, S, S, C].
      rows: shifts, int [B], at most `max_shift(S)` pixels.
      cols: the same for columns.
      variant: "matmul" (a product with a 0/1 matrix an axis: neither a gather nor, in the
        backward pass, a scatter), "slice" (of padded images) or "auto".
    """
    reach, height, width = max_shift(x.shape[1]), *x.shape[1:3]

    def matmul(x: jax.Array, rows: jax.Array, cols: jax.Array) -> jax.Array:
        def shift(offset: jax.Array, size: int) -> jax.Array:
            return resample.crop_matrix(offset, size, size)

        return resample.apply_matrices(x, shift(rows, height), shift(cols, width))

    def cut(x: jax.Array, rows: jax.Array, cols: jax.Array) -> jax.Array:
        def one(image: jax.Array, row: jax.Array, col: jax.Array) -> jax.Array:
            corner = (row + reach, col + reach, jnp.zeros_like(row))
            return jax.lax.dynamic_slice(image, corner, (height, width, image.shape[-1]))

        border = (reach, reach)
        return jax.vmap(one)(jnp.pad(x, ((0, 0), border, border, (0, 0))), rows, cols)

    variants = {"matmul": matmul, "slice": cut}
    return by_platform("translate", variant, variants, x, rows, cols)


def cutout(x: jax.Array, rows: jax.Array, cols: jax.Array) -> jax.Array:
    """Zeros a square around (rows, cols), int [B] pixels, clipped at the border."""

    def inside(centre: jax.Array, size: int) -> jax.Array:
        side, at = cutout_size(size), jnp.arange(size)
        first = centre[:, None] - side // 2
        return (at >= first) & (at < first + side)

    hole = inside(rows, x.shape[1])[:, :, None] & inside(cols, x.shape[2])[:, None, :]
    return jnp.where(hole[..., None], 0, x)


def mirror(x: jax.Array, chosen: jax.Array) -> jax.Array:
    """Exchanges left and right of the chosen images; chosen: bool [B]."""
    return jnp.where(chosen[:, None, None, None], x[:, :, ::-1], x)


def rotate(x: jax.Array, degrees: jax.Array, fill: float = -1.0) -> jax.Array:
    """Turns images counter-clockwise around their centres, by the nearest pixels.

    Args:
      x: [B, S, S, C].
      degrees: [B].
      fill: value of what comes from outside; -1 is black.
    """
    middle = (x.shape[1] - 1) / 2
    row, col = jnp.meshgrid(*[jnp.arange(n) - middle for n in x.shape[1:3]], indexing="ij")

    def one(image: jax.Array, angle: jax.Array) -> jax.Array:
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        i = jnp.round(cos * row + sin * col + middle).astype(jnp.int32)
        j = jnp.round(cos * col - sin * row + middle).astype(jnp.int32)
        inside = (i >= 0) & (i < image.shape[0]) & (j >= 0) & (j < image.shape[1])
        return jnp.where(inside[..., None], image[i, j], jnp.asarray(fill, image.dtype))

    return jax.vmap(one)(x, jnp.deg2rad(degrees))


def apply(x: jax.Array, draws: Draws) -> jax.Array:
    """Augments images with given draws, in the published order: colour, translation, cutout.

    Args:
      x: [B, S, S, C] in [-1, 1].
      draws: what `draw` returned; steps that it lacks are skipped.
    """
    if "brightness" in draws:
        x = brightness(x, draws["brightness"])
        x = saturation(x, draws["saturation"])
        x = contrast(x, draws["contrast"])
    if "shift_row" in draws:
        x = translate(x, draws["shift_row"], draws["shift_col"])
    if "cut_row" in draws:
        x = cutout(x, draws["cut_row"], draws["cut_col"])
    return x
