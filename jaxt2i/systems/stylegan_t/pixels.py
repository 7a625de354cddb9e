"""For data without a strong feature network: a head on pixels, and bounded pictures.

Not part of the published system, and not yet seen to help. The idea: where the feature network is
small and trained on little data, D should also see the pixels, and they should stay in range.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.nn.dense import bias_act
from jaxt2i.nn.norms import BatchNormLocal, SpectralConv
from jaxt2i.systems.stylegan_t.networks import DiscriminatorHead

# Pixels of the map whose positions become tokens.
LAST = 4
# Channels at most, of the first layer's.
MOST = 8


class PixelHead(nn.Module):
    """Pictures to logits: strided convolutions, then a head as the feature maps have.

    Attributes:
      base: channels of the first layer; they double as the picture halves, eightfold at most.
      virtual_size: see `DiscriminatorHead`.
      dtype: compute dtype; logits are float32.
    """

    base: int = 32
    virtual_size: int = 8
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, sentence: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, R, R, 3] in [-1, 1] and text vectors [B, S] to logits [B, 16].

        Args:
          image: pictures, R a power of two of 8 or more.
          sentence: text vectors.
          train: advance the spectral vectors.
        """
        x, width = image.astype(self.dtype), self.base
        x = SpectralConv(width, kernel_size=(3, 3), dtype=self.dtype, name="enter")(x, train=train)
        x = bias_act(x, act="lrelu", gain=1.0)
        while x.shape[1] > LAST:
            width = min(2 * width, MOST * self.base)
            size = x.shape[1]
            x = SpectralConv(
                width, kernel_size=(4, 4), strides=(2, 2), dtype=self.dtype, name=f"down{size}"
            )(x, train=train)
            x = BatchNormLocal(virtual_size=self.virtual_size, name=f"norm{size}")(
                x.reshape(len(x), -1, width)
            ).reshape(x.shape)
            x = bias_act(x, act="lrelu", gain=1.0)
        head = DiscriminatorHead(virtual_size=self.virtual_size, dtype=self.dtype, name="head")
        return head(x.reshape(len(x), LAST * LAST, width), sentence, train=train)


def bounded(image: jax.Array, bound: str) -> jax.Array:
    """G's pictures as everything after G sees them: "" as they are, "tanh" within [-1, 1]."""
    return jnp.tanh(image) if bound == "tanh" else image
