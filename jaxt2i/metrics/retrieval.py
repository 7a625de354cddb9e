"""How well images and captions find each other."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.losses.text import l2_normalize


def mean_cosine(image: jax.Array, text: jax.Array) -> jax.Array:
    """Mean cosine of matching rows, the CLIP score of whichever network made the features.

    Args:
      image: [N, D].
      text: [N, D].
    """
    return (l2_normalize(image) * l2_normalize(text)).sum(-1).mean()


def r_precision(image: jax.Array, text: jax.Array, candidates: int = 100) -> jax.Array:
    """Share of images whose own caption is the nearest among `candidates` captions.

    Args:
      image: [N, D]; N must be divisible by min(candidates, N) or the rest is left out.
      text: [N, D].
      candidates: captions an image chooses from, its own included. A caption that is exactly as
        near as the own one (the same sentence twice) does not count against it.

    Source: Xu et al. 2018 (AttnGAN), with 1 true and 99 other captions.
    """
    size = min(candidates, image.shape[0])
    groups = image.shape[0] // size
    a = l2_normalize(image[: groups * size]).reshape(groups, size, -1)
    b = l2_normalize(text[: groups * size]).reshape(groups, size, -1)
    cosine = jnp.einsum("gid,gjd->gij", a, b, precision="highest")
    own = jnp.diagonal(cosine, axis1=1, axis2=2)[..., None]
    return (cosine <= own + 1e-6).all(-1).mean()


def own_among(image: jax.Array, text: jax.Array, others: jax.Array) -> jax.Array:
    """Cosines of each image with its own caption, first, and with captions of other images.

    Args:
      image: [N, D].
      text: [N, D].
      others: [N, K, D].

    Returns:
      [N, 1 + K]; the image is a hit where the first is the largest.
    """
    candidates = l2_normalize(jnp.concatenate([text[:, None], others], 1))
    return jnp.einsum("nd,nkd->nk", l2_normalize(image), candidates, precision="highest")


def folds(hits: np.ndarray, count: int = 10, dropped: int = 0) -> np.ndarray:
    """Mean and standard deviation over equal folds.

    Args:
      hits: [N], 0 or 1, shuffled.
      count: of folds.
      dropped: entries left out at the end of every fold; DM-GAN's code drops 1.

    Returns:
      [mean, std].
    """
    size = len(hits) // count
    kept = np.reshape(hits[: count * size], (count, size))[:, : size - dropped]
    means = kept.mean(1, dtype=np.float64)
    return np.array([means.mean(), means.std()])
