"""From a generator's output to the pixels that a feature network is shown, inside `jit`.

Published code bases differ in how they round, and some do not round at all; a protocol names its
rule.
"""

import jax
import jax.numpy as jnp

from jaxt2i.metrics.score import MetricError

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
      MetricError: for an unknown rule.
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
    raise MetricError(f"quantise={rule!r}; known: {', '.join(RULES)}")
