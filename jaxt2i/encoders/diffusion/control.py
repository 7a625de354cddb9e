"""ControlNet: a copy of a U-Net's first half that reads a picture (arXiv 2302.05543)."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.encoders.diffusion.blocks import zeros
from jaxt2i.encoders.diffusion.unet import Contracting, expect, inputs
from jaxt2i.nn.linear import Conv
from jaxt2i.nn.remat import Policy


def zero_conv(features: int, size: int, dtype: jnp.dtype, name: str) -> nn.Conv:
    """A convolution that starts as nothing, its bias included."""
    return nn.Conv(features, (size, size), kernel_init=zeros, dtype=dtype, name=name)


class Condition(nn.Module):
    """A picture as features of a latent's size; nothing at the start.

    Attributes:
      features: output channels.
      embedding: channels on the way, each level half the size of the one before.
      strided: False keeps the picture's size.
      dtype: of activations.
    """

    features: int
    embedding: Sequence[int]
    strided: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, c] to [B, H / 2^(levels - 1), ..., features]."""
        h = nn.silu(Conv(self.embedding[0], dtype=self.dtype, name="conv_in")(x))
        # In pairs: one of the same width and size, one to the next level's.
        steps = [
            step
            for i, (same, wider) in enumerate(zip(self.embedding, self.embedding[1:], strict=False))
            for step in ((2 * i, same, 1), (2 * i + 1, wider, 2 if self.strided else 1))
        ]
        for k, features, stride in steps:
            h = nn.silu(Conv(features, stride=stride, dtype=self.dtype, name=f"conv{k}")(h))
        return zero_conv(self.features, 3, self.dtype, "conv_out")(h)


class ControlNet(nn.Module):
    """What to add to a U-Net's skip connections and middle so that it follows a picture.

    Attributes:
      channels, layers, heads, context, groups, attention, dtype, remat: those of the `UNet`.
      condition_channels: of the picture; nothing but `init` reads it.
      embedding: channels of the convolutions that read the picture.
      strided: whether they halve the size, once a level: the picture is 8 times as large as the
        latent. False, for a U-Net of pixels: as large as it.
    """

    channels: Sequence[int] = (320, 640, 1280, 1280)
    layers: int = 2
    heads: int = 8
    context: int = 768
    groups: int = 32
    attention: Sequence[bool] = (True, True, True, False)
    condition_channels: int = 3
    embedding: Sequence[int] = (16, 32, 96, 256)
    strided: bool = True
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    @property
    def factor(self) -> int:
        """How many times as large as the latent the picture is."""
        return 2 ** (len(self.embedding) - 1) if self.strided else 1

    def example(self, channels: int = 4) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Inputs that `init` can be traced with, the latent of that many channels."""
        x, t, context = inputs(self, channels)
        side = x.shape[1] * self.factor
        picture = jax.ShapeDtypeStruct((1, side, side, self.condition_channels), jnp.float32)
        return x, t, context, picture

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        t: jax.Array,
        context: jax.Array,
        condition: jax.Array,
        *,
        scale: jax.Array | float = 1.0,
    ) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """The residuals.

        Args:
          x: latent [B, h, w, in].
          t: [B], 0 to 999.
          context: the text's tokens [B, T, `context`].
          condition: picture [B, H, W, `condition_channels`], H = `factor` h; about [0, 1].
          scale: of everything that comes out; a number, or [B].

        Returns:
          (what is added to each skip connection, in order; what is added behind the middle).
        """
        expect(context, self.context)
        wanted = (*(self.factor * n for n in x.shape[1:3]), self.condition_channels)
        if condition.shape[1:] != wanted:
            raise ValueError(
                f"the condition is {list(condition.shape[1:])} (height, width, channels), a latent "
                f"of {x.shape[1]} x {x.shape[2]} needs {list(wanted)}; resize it"
            )
        read = Condition(
            self.channels[0], self.embedding, self.strided, self.dtype, name="condition"
        )
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
        skips, mid, _ = down(x, t, context, read(condition))
        scale = jnp.reshape(jnp.asarray(scale, self.dtype), (-1, 1, 1, 1))

        def out(name: str, h: jax.Array) -> jax.Array:
            return scale * zero_conv(h.shape[-1], 1, self.dtype, name)(h)

        return tuple(out(f"zero{k}", h) for k, h in enumerate(skips)), out("zero_mid", mid)


def from_unet(control: dict, unet: dict) -> dict:
    """A ControlNet's parameters with a U-Net's first half in place of its own.

    Args:
      control: parameters of a `ControlNet`, freshly drawn.
      unet: parameters of a `UNet` of the same sizes.
    """
    return {**control, "down": unet["down"]}
