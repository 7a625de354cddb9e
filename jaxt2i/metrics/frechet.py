"""The Frechet distance between two clouds of features."""

import jax
import jax.numpy as jnp


def frechet_distance(real: jax.Array, fake: jax.Array) -> jax.Array:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of two Gaussians fitted to features.

    The trace of the root is taken from the eigenvalues of the symmetric S1^(1/2) S2 S1^(1/2),
    which stay real and non-negative where a general matrix root breaks down.

    Args:
      real: [N, D].
      fake: [M, D].

    Returns:
      Scalar, float32. For published FIDs use float64 statistics on the host; this one is for
      small D inside a training run.

    Source: Heusel et al. 2017, equation 6.
    """
    (m1, s1), (m2, s2) = (moments(x.astype(jnp.float32)) for x in (real, fake))
    with jax.default_matmul_precision("highest"):
        values, vectors = jnp.linalg.eigh(s1)
        root = (vectors * jnp.sqrt(jnp.maximum(values, 0))) @ vectors.T
        cross = jnp.linalg.eigvalsh(root @ s2 @ root)
    shared = jnp.sqrt(jnp.maximum(cross, 0)).sum()
    return jnp.square(m1 - m2).sum() + jnp.trace(s1) + jnp.trace(s2) - 2 * shared


def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean [D] and covariance [D, D] (N - 1) of [N, D]."""
    mean = x.mean(0)
    centred = x - mean
    return mean, jnp.matmul(centred.T, centred, precision="highest") / (x.shape[0] - 1)
