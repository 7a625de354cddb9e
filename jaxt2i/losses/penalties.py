"""Penalties on the gradient of a discriminator at its inputs; float32 throughout."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def matching_aware(
    gradients: Sequence[jax.Array], weight: float = 2.0, power: float = 6.0
) -> jax.Array:
    """MA-GP: weight * mean over the batch of ||joint gradient||^power.

    Written on the squared norm, whose derivative is finite where the gradient vanishes; that of
    the norm itself is not.

    Args:
      gradients: of the summed logits of real images with their own captions, with respect to
        each input, [B, ...] each; an example's norm runs over all of them together.
      weight: factor k.
      power: exponent p, at least 2.

    Returns:
      Scalar.

    Source: Tao et al. 2022 (DF-GAN, arXiv 2008.05865) equation 3; joint norm: lib/modules.py.
    """
    squares = [jnp.square(g.astype(jnp.float32)).reshape(len(g), -1).sum(1) for g in gradients]
    return weight * jnp.mean(sum(squares) ** (power / 2))
