"""Attention between the positions of a feature map."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.nn.norms import SpectralConv


class NonLocal(nn.Module):
    """x + gamma * attention(x), gamma 0 at the start; keys and values are max-pooled.

    Attributes:
      eps, kernel_init, dtype: of the spectrally normalised 1x1 convolutions.

    Source: Zhang et al. 2019 (SAGAN, arXiv 1805.08318) section 3, in BigGAN's form.
    """

    eps: float = 1e-12
    kernel_init: nn.initializers.Initializer | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, C] to the same shape."""
        batch, height, width, channels = x.shape

        def conv(name: str, features: int, h: jax.Array) -> jax.Array:
            layer = SpectralConv(
                features,
                use_bias=False,
                dtype=self.dtype,
                eps=self.eps,
                kernel_init=self.kernel_init,
                kernel_size=(1, 1),
                name=name,
            )
            return layer(h, train=train)

        def pooled(h: jax.Array) -> jax.Array:
            return nn.max_pool(h, (2, 2), (2, 2)).reshape(batch, -1, h.shape[-1])

        query = conv("theta", channels // 8, x).reshape(batch, height * width, -1)
        key, value = pooled(conv("phi", channels // 8, x)), pooled(conv("g", channels // 2, x))
        logits = jnp.einsum("bqc,bkc->bqk", query, key, preferred_element_type=jnp.float32)
        share = jax.nn.softmax(logits).astype(self.dtype)
        h = jnp.einsum("bqk,bkc->bqc", share, value).reshape(batch, height, width, -1)
        gamma = self.param("gamma", nn.initializers.zeros, ())
        return gamma.astype(self.dtype) * conv("o", channels, h) + x
