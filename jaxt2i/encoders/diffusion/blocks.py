"""What the networks of latent diffusion are made of: residual blocks, attention, a change of size.

Rombach et al. 2022 (arXiv 2112.10752). Features are [B, H, W, C]; norms and softmax compute in
float32 whatever the dtype of activations.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.encoders.vit import layer_norm
from jaxt2i.nn.flash import attention
from jaxt2i.nn.linear import Conv, Linear

zeros = nn.initializers.zeros
# Of the time's slowest wave, in steps over 2 pi.
LONGEST = 10_000
# Of the group norms in a U-Net's residual blocks, and everywhere else.
EPS_BLOCK, EPS = 1e-5, 1e-6


def group_norm(groups: int, eps: float, dtype: jnp.dtype, name: str | None = None) -> nn.GroupNorm:
    """Group normalisation with two-pass statistics in float32, whatever the dtype of x."""
    return nn.GroupNorm(groups, epsilon=eps, use_fast_variance=False, dtype=dtype, name=name)


def waves(t: jax.Array, width: int) -> jax.Array:
    """Times [B] as [B, width]: cosines of width / 2 frequencies from 1 down to 1e-4, then sines."""
    half = width // 2
    # Rounded as the published networks' code rounds them: at t = 999 the digit shows.
    exponent = np.float32(-np.log(LONGEST)) * np.arange(half, dtype=np.float32) / np.float32(half)
    frequencies = np.exp(exponent.astype(np.float64)).astype(np.float32)
    angle = t.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], -1)


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))) + time))); a 1 x 1 convolution of x where C changes.

    The second convolution starts at zero, as in the original training code.

    Attributes:
      features: output channels.
      groups, eps: of the norms.
      dtype: of activations.
    """

    features: int
    groups: int = 32
    eps: float = EPS_BLOCK
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C] and an embedded time [B, E], or none, to [B, H, W, features]."""

        def normed(name: str, h: jax.Array) -> jax.Array:
            return nn.silu(group_norm(self.groups, self.eps, self.dtype, name)(h))

        h = Conv(self.features, dtype=self.dtype, name="conv1")(normed("norm1", x))
        if time is not None:
            shift = Linear(self.features, dtype=self.dtype, name="time")(nn.silu(time))
            h = h + shift[:, None, None]
        last = Conv(self.features, kernel_init=zeros, dtype=self.dtype, name="conv2")
        h = last(normed("norm2", h))
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, dtype=self.dtype, name="shortcut")(x)
        return x + h


class Attention(nn.Module):
    """Tokens read from tokens.

    Attributes:
      heads: of C / heads channels each.
      bias: whether query, key and value have one; the output always has.
      dtype: of activations.
    """

    heads: int
    bias: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """[B, N, C], reading [B, T, E] or itself, to [B, N, C]."""
        context, width = x if context is None else context, x.shape[-1]

        def split(name: str, tokens: jax.Array) -> jax.Array:
            made = Linear(width, use_bias=self.bias, dtype=self.dtype, name=name)(tokens)
            return made.reshape(*tokens.shape[:2], self.heads, width // self.heads)

        h = attention(split("query", x), split("key", context), split("value", context))
        return Linear(width, dtype=self.dtype, name="out")(h.reshape(x.shape))


class TextBlock(nn.Module):
    """Self-attention, attention to the text and a gated MLP, each behind a norm and added.

    Attributes:
      heads: of both attentions.
      dtype: of activations.
    """

    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, context: jax.Array) -> jax.Array:
        """[B, N, C] and a text [B, T, E] to [B, N, C]."""

        def normed(name: str, h: jax.Array) -> jax.Array:
            return layer_norm(1e-5, self.dtype, name)(h)

        own = Attention(self.heads, dtype=self.dtype, name="own")
        text = Attention(self.heads, dtype=self.dtype, name="text")
        x = x + own(normed("norm1", x))
        x = x + text(normed("norm2", x), context)
        width = x.shape[-1]
        h = Linear(8 * width, dtype=self.dtype, name="gated")(normed("norm3", x))
        value, gate = jnp.split(h, 2, -1)
        h = value * jax.nn.gelu(gate, approximate=False)
        return x + Linear(width, dtype=self.dtype, name="mlp")(h)


class SpatialTransformer(nn.Module):
    """A `TextBlock` over the pixels of a feature map, which is added to what comes out.

    Attributes:
      heads: of the attentions.
      groups: of the norm before it.
      dtype: of activations.
    """

    heads: int
    groups: int = 32
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, context: jax.Array) -> jax.Array:
        """[B, H, W, C] and a text [B, T, E] to [B, H, W, C]."""
        width = x.shape[-1]
        h = group_norm(self.groups, EPS, self.dtype, "norm")(x)
        h = Conv(width, 1, dtype=self.dtype, name="proj_in")(h).reshape(len(x), -1, width)
        h = TextBlock(self.heads, self.dtype, name="block")(h, context.astype(self.dtype))
        last = Conv(width, 1, kernel_init=zeros, dtype=self.dtype, name="proj_out")
        return x + last(h.reshape(x.shape))


class SelfAttention(nn.Module):
    """One head over the pixels of a feature map, added to it: the autoencoder's.

    Attributes:
      groups: of the norm before it.
      dtype: of activations.
    """

    groups: int = 32
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to the same shape."""
        h = group_norm(self.groups, EPS, self.dtype, "norm")(x)
        h = h.reshape(len(x), -1, x.shape[-1])
        h = Attention(1, bias=True, dtype=self.dtype, name="attention")(h)
        return x + h.reshape(x.shape)


class Upsample(nn.Module):
    """Every pixel twice in both directions, then a 3 x 3 convolution.

    Attributes:
      dtype: of activations.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, like: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C] to [B, 2 H, 2 W, C], or to the size of `like`: a row or column less."""
        double = like is None or like.shape[1:3] == (2 * x.shape[1], 2 * x.shape[2])
        if not double:
            x = x.repeat(2, 1).repeat(2, 2)[:, : like.shape[1], : like.shape[2]]
        return Conv(x.shape[-1], up=double, dtype=self.dtype, name="conv")(x)
