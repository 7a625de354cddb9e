"""How well images and captions find each other."""

import jax
import jax.numpy as jnp

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
