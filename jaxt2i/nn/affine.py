"""Text-conditioned affine blocks: how DF-GAN and its successors write a condition into features."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.nn.linear import Conv, Linear
from jaxt2i.nn.nearest import resize_nearest


def leaky(x: jax.Array) -> jax.Array:
    """Leaky ReLU, slope 0.2."""
    return jnp.where(x >= 0, x, x * jnp.asarray(0.2, x.dtype))


def widths(base: int, blocks: int) -> Sequence[int]:
    """Channels at both ends of each of `blocks` blocks, widest first: base * min(2^k, 8)."""
    return [base * min(2**k, 8) for k in range(blocks, -1, -1)]


class Affine(nn.Module):
    """gamma(condition) x + beta(condition), two MLPs as wide as x; the identity at the start.

    Attributes:
      dtype: compute dtype.

    Source: Tao et al. 2022 (DF-GAN, arXiv 2008.05865) section 3.3.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, cond: jax.Array) -> jax.Array:
        """X [B, H, W, C] and cond [B, K] to [B, H, W, C]."""
        channels, zeros = x.shape[-1], nn.initializers.zeros

        def mlp(name: str, start) -> jax.Array:
            h = nn.relu(Linear(channels, dtype=self.dtype, name=f"{name}1")(cond))
            inits = {"kernel_init": zeros, "bias_init": start}
            out = Linear(channels, dtype=self.dtype, name=f"{name}2", **inits)(h)
            return out[:, None, None]

        return mlp("gamma", nn.initializers.ones) * x + mlp("beta", zeros)


class Fusion(nn.Module):
    """Affine, leaky ReLU, affine, leaky ReLU: DF-GAN's deep text-image fusion block (DFBLK).

    Attributes:
      dtype: compute dtype.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, cond: jax.Array) -> jax.Array:
        """X [B, H, W, C] and cond [B, K] to [B, H, W, C]."""
        x = leaky(Affine(dtype=self.dtype, name="affine0")(x, cond))
        return leaky(Affine(dtype=self.dtype, name="affine1")(x, cond))


class UpBlock(nn.Module):
    """A generator block: nearest resize, then a residual of two fused 3x3 convolutions.

    What works pixel by pixel (the first fusion, the 1x1 shortcut) is done before the resize: the
    same numbers from a quarter of the pixels.

    Attributes:
      features: output channels.
      size: height and width of the output, pixels.
      dtype: compute dtype.
    """

    features: int
    size: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, cond: jax.Array) -> jax.Array:
        """X [B, h, h, C] and cond [B, K] to [B, size, size, features]."""
        h = Fusion(dtype=self.dtype, name="fuse1")(x, cond)
        double = self.size == 2 * h.shape[1]
        h = h if double else resize_nearest(h, self.size)
        h = Conv(self.features, up=double, dtype=self.dtype, name="c1")(h)
        h = Fusion(dtype=self.dtype, name="fuse2")(h, cond)
        h = Conv(self.features, dtype=self.dtype, name="c2")(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, dtype=self.dtype, name="c_sc")(x)
        return resize_nearest(x.astype(self.dtype), self.size) + h
