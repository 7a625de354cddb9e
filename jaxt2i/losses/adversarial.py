"""Adversarial losses on logits; every function returns a float32 scalar, a mean over all logits.

A conditional discriminator's matching and mismatching pairs are just further real and fake
terms: call the halves. Weights belong to the caller.
"""

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
