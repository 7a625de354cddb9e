"""What Obj-GAN's box generator does with a mixture of Gaussians otherwise than others do."""

import math

import jax
import jax.numpy as jnp

from jaxt2i.nn.mixture import Mixture

# The least that a component's volume is divided by, and the least that a density is.
FLOOR = 1e-5
# Below this temperature it is all but the mean of the likeliest component that is drawn.
COLDEST = 1e-6


def log_density(of: Mixture, x: jax.Array) -> jax.Array:
    """Logarithm of the density at points, as the official code has it.

    The volume of a component has a floor, `FLOOR`, and so has the sum over components, beside the
    exponent of the nearest one: very sharp components gain nothing any more.

    Args:
      of: a mixture [..., K].
      x: [..., 2].

    Returns:
      [...].
    """
    deviation = jnp.exp(of.log_sigma)
    z = (x[..., None, :] - of.mu) / deviation
    spare = 1 - jnp.square(of.rho)
    exponent = -(jnp.square(z).sum(-1) - 2 * of.rho * z.prod(-1)) / (2 * spare)
    best = exponent.max(-1, keepdims=True)
    volume = 2 * math.pi * deviation.prod(-1) * jnp.sqrt(spare)
    each = jnp.exp(of.log_pi + exponent - best) / jnp.maximum(volume, FLOOR)
    return best[..., 0] + jnp.log(each.sum(-1) + FLOOR)


def tempered(of: Mixture, temperature: jax.Array | float) -> Mixture:
    """A sharper mixture: weights to the power 1 / temperature, variances times temperature."""
    heat = jnp.maximum(temperature, COLDEST)
    log_sigma = of.log_sigma + jnp.log(heat) / 2
    return of._replace(log_pi=jax.nn.log_softmax(of.log_pi / heat), log_sigma=log_sigma)


def point(of: Mixture, component: jax.Array, normal: jax.Array) -> jax.Array:
    """What a component makes of plain normal numbers.

    Args:
      of: a mixture [..., K].
      component: int [...].
      normal: [..., 2].

    Returns:
      [..., 2]: the mean plus the lower triangular root of the covariance times `normal`.
    """
    pick = jax.nn.one_hot(component, of.log_pi.shape[-1], dtype=jnp.float32)
    mu, log_sigma = (jnp.einsum("...k,...kd->...d", pick, x) for x in (of.mu, of.log_sigma))
    rho = (pick * of.rho).sum(-1)
    first, second = normal[..., 0], normal[..., 1]
    turned = jnp.stack([first, rho * first + jnp.sqrt(1 - jnp.square(rho)) * second], -1)
    return mu + jnp.exp(log_sigma) * turned
