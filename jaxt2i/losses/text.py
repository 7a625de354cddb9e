"""Losses that tie images to their text, on feature vectors; float32 throughout."""

import jax
import jax.numpy as jnp


def l2_normalize(x: jax.Array, eps: float = 1e-12) -> jax.Array:
    """X / max(||x||, eps) along the last axis, in float32."""
    x = x.astype(jnp.float32)
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), eps)


def spherical_distance(a: jax.Array, b: jax.Array, clamp: float | None = None) -> jax.Array:
    """Squared angle between feature vectors, arccos(cosine)^2: StyleGAN-T's CLIP guidance.

    Args:
      a: [..., S], any length.
      b: [..., S].
      clamp: keep the cosine within +-clamp. None as published: the gradient is infinite where
        the vectors are parallel.

    Returns:
      [...], radians squared.
    """
    cosine = (l2_normalize(a) * l2_normalize(b)).sum(-1)
    if clamp is not None:
        cosine = jnp.clip(cosine, -clamp, clamp)
    return jnp.square(jnp.arccos(cosine))


def contrastive(
    image: jax.Array, text: jax.Array, scale: jax.Array | float, mask: jax.Array | None = None
) -> jax.Array:
    """CLIP's symmetric cross-entropy: each image among all texts, each text among all images.

    Under a sharded `jit` the batch is the global one: the product gathers the shorter side once.

    Args:
      image: [B, S], any length.
      text: [B, S], row i belongs to image i.
      scale: factor on the cosines, 1 / temperature.
      mask: bool [B]; False rows are neither queries nor negatives.

    Returns:
      Scalar, nats.
    """
    logits = scale * jnp.einsum("is,js->ij", l2_normalize(image), l2_normalize(text))
    keep = jnp.ones(len(image), bool) if mask is None else mask
    # A padded row keeps its own pair, so that its logarithm stays finite.
    own = jnp.eye(len(image), dtype=bool)
    by_text = jnp.where(keep[None, :] | own, logits, -jnp.inf)
    by_image = jnp.where(keep[:, None] | own, logits, -jnp.inf)
    right = jnp.diagonal(logits)
    loss = jax.nn.logsumexp(by_text, 1) + jax.nn.logsumexp(by_image, 0) - 2 * right
    return jnp.where(keep, loss, 0).sum() / (2 * jnp.maximum(keep.sum(), 1))


def alignment(
    regions: jax.Array, text: jax.Array, mask: jax.Array | None = None, sharpness: float = 10.0
) -> jax.Array:
    """Both cross-entropies of objects in pictures and what their captions say of each.

    Args:
      regions: [M, S], features of all objects of a batch, any length.
      text: [M, S], row i belongs to object i.
      mask: bool [M]; False rows are no objects.
      sharpness: factor on the cosines.

    Returns:
      Scalar, nats: of an object among all texts plus of a text among all objects.
    """
    if mask is not None:
        # What is no object may be zero, where a norm has no gradient.
        regions, text = (jnp.where(mask[:, None], x, 1.0) for x in (regions, text))
    return 2 * contrastive(regions, text, sharpness, mask)
