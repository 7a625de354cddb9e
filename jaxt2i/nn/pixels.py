"""From a generator's output to pixels, inside `jit`.

Published code bases differ in how they round, and some do not round at all; a sampler names its
rule, and so does a protocol of evaluation.
"""

import jax
import jax.numpy as jnp

from jaxt2i.config import ConfigError, nearest

# AttnGAN, DM-GAN, DF-GAN and GALIP write files by "floor"; the in-loop FID of DF-GAN and GALIP
# uses "none"; the StyleGAN family "stylegan"; torchvision's save_image "save_image".
RULES = ("none", "floor", "stylegan", "save_image")


def to_pixels(image: jax.Array, rule: str) -> jax.Array:
    """Pixels of images in [-1, 1].

    Args:
      image: float array of any shape; values outside are cut off first.
      rule: one of `RULES`.

    Returns:
      uint8; for "none" float32 in [0, 255].

    Raises:
      ConfigError: for an unknown rule.
    """
    x = image.astype(jnp.float32)
    # The originals clip after they add. Clipped between, the product and the sum cannot become one
    # instruction with one rounding, which would be another grey level here and there.
    if rule == "none":
        return (jnp.clip(x, -1, 1) + 1) * 127.5
    if rule == "floor":
        return ((jnp.clip(x, -1, 1) + 1) * 127.5).astype(jnp.uint8)
    if rule == "stylegan":
        return (jnp.clip(x * 127.5, -128, 127) + 128).astype(jnp.uint8)
    if rule == "save_image":
        return (jnp.clip((x + 1) / 2 * 255, -0.5, 254.5) + 0.5).astype(jnp.uint8)
    raise ConfigError(f"pixels={rule!r}: {nearest(rule, RULES)}")
