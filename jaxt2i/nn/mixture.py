"""Mixtures of two-dimensional Gaussians, as mixture density networks give them."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

# What a component is made of: its logit, two means, two logarithms of deviations, and the inverse
# hyperbolic tangent of the correlation.
PARTS = 6


class Mixture(NamedTuple):
    """K components of each of [...].

    Attributes:
      log_pi: [..., K], logarithms of the weights, which sum to 1.
      mu: [..., K, 2].
      log_sigma: [..., K, 2].
      rho: [..., K], correlation.
    """

    log_pi: jax.Array
    mu: jax.Array
    log_sigma: jax.Array
    rho: jax.Array


def read(
    raw: jax.Array, log_sigma: tuple[float, float] = (-7.0, 3.0), rho: float = 0.99
) -> Mixture:
    """The mixture behind the numbers of a network.

    Args:
      raw: [..., 6 K] in the order of `PARTS`, K of each.
      log_sigma: bounds of the logarithms of deviations.
      rho: the largest absolute correlation.

    Returns:
      float32.
    """
    pi, x, y, s, t, r = jnp.split(raw.astype(jnp.float32), PARTS, -1)
    return Mixture(
        jax.nn.log_softmax(pi),
        jnp.stack([x, y], -1),
        jnp.clip(jnp.stack([s, t], -1), *log_sigma),
        jnp.clip(jnp.tanh(r), -rho, rho),
    )


def nll(mixture: Mixture, target: jax.Array) -> jax.Array:
    """Negative log likelihood [...] of points [..., 2], in nats."""
    z = (target[..., None, :] - mixture.mu) * jnp.exp(-mixture.log_sigma)
    rest = 1 - jnp.square(mixture.rho)
    squares = jnp.square(z).sum(-1) - 2 * mixture.rho * z.prod(-1)
    log_density = (
        -squares / (2 * rest)
        - jnp.log(rest) / 2
        - mixture.log_sigma.sum(-1)
        - math.log(2 * math.pi)
    )
    return -jax.nn.logsumexp(mixture.log_pi + log_density, -1)


def sample(key: jax.Array, mixture: Mixture, temperature: jax.Array | float = 1.0) -> jax.Array:
    """One point [2] of one mixture, whose deviations are multiplied by `temperature`.

    The component is drawn by its weight; at 0 it is the likeliest one, and the point its mean.
    """
    which, where = jax.random.split(key)
    drawn = jax.random.categorical(which, mixture.log_pi)
    k = jnp.where(jnp.asarray(temperature) > 0, drawn, mixture.log_pi.argmax(-1))
    mu, sigma, rho = mixture.mu[k], jnp.exp(mixture.log_sigma[k]), mixture.rho[k]
    e = jax.random.normal(where, (2,))
    e = jnp.stack([e[0], rho * e[0] + jnp.sqrt(1 - jnp.square(rho)) * e[1]])
    return mu + temperature * sigma * e
