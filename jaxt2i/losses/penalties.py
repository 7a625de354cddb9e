"""Penalties on the gradient of a discriminator at its inputs; float32 throughout."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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


def unit_slope(gradients: jax.Array) -> jax.Array:
    """WGAN-GP: mean over the batch of (||gradient|| - 1)^2.

    Args:
      gradients: of the summed logits at each picture, [B, ...].

    Returns:
      Scalar. The root is taken of the squares' sum + 1e-12, whose derivative is finite.

    Source: Gulrajani et al. 2017 (arXiv 1704.00028), equation 3.
    """
    squares = jnp.square(gradients.astype(jnp.float32)).reshape(len(gradients), -1).sum(1)
    return jnp.square(jnp.sqrt(squares + 1e-12) - 1).mean()


def squared_biases(params: Mapping[str, Any]) -> jax.Array:
    """The sum of squares of every array called "bias" in a tree of parameters."""
    flat = jax.tree_util.tree_leaves_with_path(params)
    return sum(
        (jnp.square(x.astype(jnp.float32)).sum() for path, x in flat if path[-1].key == "bias"),
        jnp.zeros(()),
    )


class Penalised(NamedTuple):
    """What a discriminator says of real pictures with their own captions.

    Attributes:
      logits: [B].
      rest: whatever else the discriminator returned.
      penalty: MA-GP, a scalar; 0 where it is left out.
      gradients: of the summed logits, one array an input; () where the penalty is left out.
    """

    logits: jax.Array
    rest: Any
    penalty: jax.Array
    gradients: tuple[jax.Array, ...]


def penalised(
    score: Callable[..., tuple[jax.Array, Any]],
    inputs: tuple[jax.Array, ...],
    weight: float = 2.0,
    power: float = 6.0,
) -> Penalised:
    """Logits and their MA-GP from one forward pass.

    Args:
      score: inputs -> (logits [B], anything).
      inputs: what the penalty differentiates by, [B, ...] each.
      weight: factor k; 0 leaves the penalty and its cost out.
      power: exponent p.
    """
    if not weight:
        logits, rest = score(*inputs)
        return Penalised(logits, rest, jnp.zeros(()), ())

    def total(*inputs):
        logits, rest = score(*inputs)
        return logits.sum(), (logits, rest)

    slopes = jax.value_and_grad(total, tuple(range(len(inputs))), has_aux=True)
    (_, (logits, rest)), gradients = slopes(*inputs)
    return Penalised(logits, rest, matching_aware(gradients, weight, power), gradients)
