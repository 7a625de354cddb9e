"""Adversarial losses on logits; every function returns a float32 scalar, a mean over all logits.

A conditional discriminator's matching and mismatching pairs are just further real and fake
terms: call the halves. Weights belong to the caller.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


def hinge_real(logits: jax.Array) -> jax.Array:
    """mean(relu(1 - logits)): the discriminator's term for what it should accept."""
    return jax.nn.relu(1 - logits.astype(jnp.float32)).mean()


def hinge_fake(logits: jax.Array) -> jax.Array:
    """mean(relu(1 + logits)): the discriminator's term for what it should refuse."""
    return jax.nn.relu(1 + logits.astype(jnp.float32)).mean()


def hinge_d(real: jax.Array, fake: jax.Array) -> jax.Array:
    """The discriminator's hinge loss (Lim & Ye, arXiv 1705.02894)."""
    return hinge_real(real) + hinge_fake(fake)


def linear_g(fake: jax.Array) -> jax.Array:
    """-mean(logits): the generator's loss beside a hinge discriminator."""
    return -fake.astype(jnp.float32).mean()


def logistic_real(logits: jax.Array) -> jax.Array:
    """mean(softplus(-logits)), -log sigmoid: accept; also the non-saturating generator loss."""
    return jax.nn.softplus(-logits.astype(jnp.float32)).mean()


def logistic_fake(logits: jax.Array) -> jax.Array:
    """mean(softplus(logits)), -log(1 - sigmoid): refuse."""
    return jax.nn.softplus(logits.astype(jnp.float32)).mean()


def logistic_d(real: jax.Array, fake: jax.Array) -> jax.Array:
    """The discriminator's cross-entropy loss (Goodfellow et al., arXiv 1406.2661)."""
    return logistic_real(real) + logistic_fake(fake)


def logistic_g(fake: jax.Array) -> jax.Array:
    """The non-saturating generator loss."""
    return logistic_real(fake)


def square_real(logits: jax.Array) -> jax.Array:
    """mean((logits - 1)^2) / 2: accept; also the least-squares generator loss."""
    return jnp.square(logits.astype(jnp.float32) - 1).mean() / 2


def square_fake(logits: jax.Array, target: float = 0.0) -> jax.Array:
    """mean((logits - target)^2) / 2: refuse (Mao et al., arXiv 1611.04076)."""
    return jnp.square(logits.astype(jnp.float32) - target).mean() / 2


class Family(NamedTuple):
    """The losses of both sides, by name.

    Attributes:
      real: (real logits, fake logits) -> the discriminator's term for real pictures.
      fake: (real logits, fake logits) -> its term for generated ones.
      g: (real logits, fake logits) -> the generator's loss.
      relative: whether every term reads both kinds of logits.
    """

    real: Callable
    fake: Callable
    g: Callable
    relative: bool = False


def absolute(real: Callable, fake: Callable, g: Callable) -> Family:
    """A family whose terms each look at one kind of logits."""
    return Family(lambda r, f: real(r), lambda r, f: fake(f), lambda r, f: g(f))


def relativistic(real: Callable, fake: Callable) -> Family:
    """Logits against the mean of the other kind (Jolicoeur-Martineau, arXiv 1807.00734).

    Each term is the mean of its two halves; the generator exchanges the roles.

    Args:
      real: the term of logits that should be accepted.
      fake: the term of logits that should be refused.
    """

    def over(a: jax.Array, b: jax.Array) -> jax.Array:
        return a.astype(jnp.float32) - b.astype(jnp.float32).mean()

    return Family(
        lambda r, f: real(over(r, f)) / 2,
        lambda r, f: fake(over(f, r)) / 2,
        lambda r, f: (fake(over(r, f)) + real(over(f, r))) / 2,
        relative=True,
    )


FAMILIES: dict[str, Family] = {
    "hinge": absolute(hinge_real, hinge_fake, linear_g),
    "logistic": absolute(logistic_real, logistic_fake, logistic_g),
    "least_squares": absolute(square_real, square_fake, square_real),
    "relativistic_hinge": relativistic(hinge_real, hinge_fake),
    "relativistic_logistic": relativistic(logistic_real, logistic_fake),
    "relativistic_least_squares": relativistic(
        lambda x: 2 * square_real(x), lambda x: 2 * square_fake(x, -1.0)
    ),
}
