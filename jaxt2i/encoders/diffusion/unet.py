"""The U-Net of Stable Diffusion 1.x, which says what noise is in a latent (arXiv 2112.10752).

Sizes are fields: with three channels in and out it works on small pictures themselves.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.encoders.diffusion.blocks import (
    EPS_BLOCK,
    ResBlock,
    SpatialTransformer,
    Upsample,
    group_norm,
    waves,
    zeros,
)
from jaxt2i.nn.linear import Conv, Linear
from jaxt2i.nn.remat import Policy, recomputed


class TimeEmbedding(nn.Module):
    """Waves of the time through two layers.

    Attributes:
      width: of the waves; the embedding has four times as much.
      dtype: of activations.
    """

    width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, t: jax.Array) -> jax.Array:
        """[B] to [B, 4 width]."""
        h = waves(t, self.width)
        h = Linear(4 * self.width, dtype=self.dtype, name="linear1")(h)
        return Linear(4 * self.width, dtype=self.dtype, name="linear2")(nn.silu(h))


class Contracting(nn.Module):
    """The half that a U-Net and a ControlNet share: time, the way down, the middle.

    Attributes:
      channels: of each level; each has half the size of the one before.
      layers: residual blocks a level.
      heads: of every attention.
      groups: of the norms.
      attention: of each level, whether it reads the text; the middle always does.
      dtype: of activations.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    channels: Sequence[int]
    layers: int
    heads: int
    groups: int
    attention: Sequence[bool]
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    @nn.compact
    def __call__(
        self, x: jax.Array, t: jax.Array, context: jax.Array, added: jax.Array | None = None
    ) -> tuple[tuple[jax.Array, ...], jax.Array, jax.Array]:
        """A latent to everything that the way up reads.

        Args:
          x: [B, h, w, in].
          t: [B].
          context: [B, T, E].
          added: [B, h, w, channels[0]], added behind the first convolution.

        Returns:
          (skips, from the first convolution on; the middle's output; the embedded time [B, E]).
        """
        check(self)
        time = TimeEmbedding(self.channels[0], self.dtype, name="time")(t)

        def res(name: str, features: int, h: jax.Array) -> jax.Array:
            block = ResBlock(features, self.groups, dtype=self.dtype, name=name)
            return recomputed(self.remat, block, h, time)

        def attend(name: str, h: jax.Array) -> jax.Array:
            block = SpatialTransformer(self.heads, self.groups, self.dtype, name=name)
            return recomputed(self.remat, block, h, context)

        h = Conv(self.channels[0], dtype=self.dtype, name="conv_in")(x)
        h = h if added is None else h + added
        skips = [h]
        for i, features in enumerate(self.channels):
            for j in range(self.layers):
                h = res(f"level{i}_res{j}", features, h)
                h = attend(f"level{i}_attention{j}", h) if self.attention[i] else h
                skips.append(h)
            if i + 1 < len(self.channels):
                h = Conv(features, stride=2, dtype=self.dtype, name=f"level{i}_half")(h)
                skips.append(h)
        h = res("mid_res0", self.channels[-1], h)
        h = attend("mid_attention", h)
        return tuple(skips), res("mid_res1", self.channels[-1], h), time


def check(net) -> None:
    """Raises `ValueError` where the sizes of a U-Net or a ControlNet contradict each other."""
    if len(net.attention) != len(net.channels):
        raise ValueError(
            f"attention={tuple(net.attention)} is of {len(net.attention)} levels and "
            f"channels={tuple(net.channels)} of {len(net.channels)}; give one answer a level"
        )
    for what, number in (("groups", net.groups), ("heads", net.heads)):
        if bad := [c for c in net.channels if c % number]:
            raise ValueError(
                f"{bad[0]} channels cannot be split into {what}={number}; make channels "
                f"multiples of it, or it smaller"
            )


class UNet(nn.Module):
    """Noise in a latent, given its time and a text.

    Attributes:
      channels: of each level, the finest first.
      layers: residual blocks a level on the way down; one more on the way up.
      heads: attention heads at every level, of channels / heads each. (The published
        configuration calls this number attention_head_dim.)
      context: width of the text's tokens.
      out_channels: of the answer; those of the input are the input's own.
      groups: of the norms.
      attention: of each level, whether it reads the text; the middle always does.
      dtype: of activations.
      remat: what each block keeps for the backward pass; see `recomputed`.

    The last convolution, and that of every block, start at zero, as in the original training code.
    """

    channels: Sequence[int] = (320, 640, 1280, 1280)
    layers: int = 2
    heads: int = 8
    context: int = 768
    out_channels: int = 4
    groups: int = 32
    attention: Sequence[bool] = (True, True, True, False)
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Inputs that `init` can be traced with, of as many channels as come out."""
        return inputs(self, self.out_channels)

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        t: jax.Array,
        context: jax.Array,
        *,
        skips: Sequence[jax.Array] | None = None,
        mid: jax.Array | None = None,
    ) -> jax.Array:
        """The noise.

        Args:
          x: [B, h, w, in]; any size, whose odd halves are rounded up.
          t: [B], 0 to 999.
          context: the text's tokens [B, T, `context`].
          skips: what a ControlNet adds to the skip connections, in their order.
          mid: what it adds behind the middle.

        Returns:
          [B, h, w, out_channels] float32.
        """
        expect(context, self.context)
        down = Contracting(
            channels=self.channels,
            layers=self.layers,
            heads=self.heads,
            groups=self.groups,
            attention=self.attention,
            dtype=self.dtype,
            remat=self.remat,
            name="down",
        )
        kept, h, time = down(x, t, context)
        if skips is not None:
            pairs = zip(kept, skips, strict=True)
            kept = [a + b.astype(self.dtype) for a, b in pairs]
        h = h if mid is None else h + mid.astype(self.dtype)
        kept = list(kept)
        levels = zip(reversed(self.channels), reversed(self.attention), strict=True)
        for k, (features, attends) in enumerate(levels):
            for j in range(self.layers + 1):
                block = ResBlock(features, self.groups, dtype=self.dtype, name=f"up{k}_res{j}")
                h = recomputed(self.remat, block, jnp.concatenate([h, kept.pop()], -1), time)
                if attends:
                    name = f"up{k}_attention{j}"
                    block = SpatialTransformer(self.heads, self.groups, self.dtype, name=name)
                    h = recomputed(self.remat, block, h, context)
            if kept:
                h = Upsample(self.dtype, name=f"up{k}_double")(h, kept[-1])
        h = nn.silu(group_norm(self.groups, EPS_BLOCK, self.dtype, "norm_out")(h))
        last = Conv(self.out_channels, kernel_init=zeros, dtype=self.dtype, name="conv_out")
        return last(h).astype(jnp.float32)


def expect(context: jax.Array, width: int) -> None:
    """Raises `ValueError` where the text's tokens are not of that width."""
    if context.shape[-1] != width:
        raise ValueError(
            f"text tokens have {context.shape[-1]} numbers each, this network was made for "
            f"context={width}; take the text encoder that it was trained with"
        )


def inputs(net, channels: int) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Shapes of a small latent, its time and a text."""
    side = 2 ** (len(net.channels) - 1)
    shapes = (1, side, side, channels), (1,), (1, 2, net.context)
    return tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
