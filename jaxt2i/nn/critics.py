"""Discriminators of a picture alone and together with its sentence (StackGAN-v2 family)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.nn.affine import leaky
from jaxt2i.nn.linear import Conv
from jaxt2i.nn.norms import SpectralConv, orthogonal
from jaxt2i.nn.remat import Policy, recomputed
from jaxt2i.nn.stages import norm


class Unit(nn.Module):
    """A convolution, its norm, leaky ReLU.

    Attributes:
      features: output channels.
      size: of the window: 4 halves the picture, 3 keeps its size.
      kind: "batch": batch norm behind a kernel without bias; "spectral": a spectrally normalised
        kernel and a bias; "plain": the kernel alone.
      group: of the batch norm.
      dtype: compute dtype.
    """

    features: int
    size: int
    kind: str
    group: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, C] to [B, H', W', features]."""
        stride = 2 if self.size == 4 else 1
        common = {"kernel_init": orthogonal(), "dtype": self.dtype, "name": "conv"}
        if self.kind == "spectral":
            window, strides = (self.size, self.size), (stride, stride)
            conv = SpectralConv(self.features, kernel_size=window, strides=strides, **common)
            return leaky(conv(x, train=train))
        conv = Conv(self.features, self.size, stride=stride, pad=1, use_bias=False, **common)
        x = conv(x)
        return leaky(norm(self.group, "norm")(x, train=train) if self.kind == "batch" else x)


class Critic(nn.Module):
    """One picture size's discriminator: shared features, an unconditional and a conditional head.

    Attributes:
      base: channels after the first halving, d.
      resolution: of the pictures, pixels.
      kind: see `Unit`.
      unconditional: keep the head that sees the picture alone.
      sentence_dim: S, for `example` alone.
      group: of the batch norms.
      dtype: compute dtype; logits are float32.
      remat: what each block keeps for the backward pass; see `recomputed`.

    Source: taoxugit/AttnGAN code/model.py (D_NET64 to D_NET256), of which 64 pixels are the
    smallest case; MinfengZhu/DM-GAN for "spectral".
    """

    base: int = 64
    resolution: int = 256
    kind: str = "batch"
    unconditional: bool = True
    sentence_dim: int = 256
    group: int = 0
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    def setup(self):
        halvings = (self.resolution // 4).bit_length() - 1
        first = "spectral" if self.kind == "spectral" else "plain"
        common = {"group": self.group, "dtype": self.dtype}
        self.down = [
            Unit(self.base * 2**i, 4, kind=self.kind if i else first, **common)
            for i in range(halvings)
        ]
        # Pictures above 64 pixels: back to the width that all sizes share.
        top = self.base * 2 ** (min(halvings, 4) - 1)
        self.thin = [
            Unit(top * 2 ** (i - 1), 3, kind=self.kind, **common)
            for i in range(halvings - 4, 0, -1)
        ]
        self.joint = Unit(top, 3, kind=self.kind, **common)
        head = {"size": 4, "stride": 4, "pad": 0, "kernel_init": orthogonal()}
        self.matched = Conv(1, **head)
        if self.unconditional:
            self.real = Conv(1, **head)

    def features(
        self, x: jax.Array, beside: jax.Array | None = None, *, train: bool = False
    ) -> jax.Array:
        """Pictures [B, R, R, 3] in [-1, 1] to [B, 4, 4, top].

        Args:
          x: the pictures.
          beside: further channels [B, R / 4, R / 4, C], which join after the second halving.
          train: see `BatchNorm`.
        """
        for i, unit in enumerate((*self.down, *self.thin)):
            if beside is not None and i == 2:
                x = jnp.concatenate([x, beside.astype(x.dtype)], -1)
            x = recomputed(self.remat, unit, x, train=train)
        return x

    def alone(self, h: jax.Array) -> jax.Array:
        """Features to logits [B]: is it a picture?"""
        return self.real(h.astype(jnp.float32))[:, 0, 0, 0]

    def together(self, h: jax.Array, sentence: jax.Array, *, train: bool = False) -> jax.Array:
        """Features and sentence [B, S] to logits [B]: is it a picture of this?"""
        wide = jnp.broadcast_to(sentence[:, None, None], (*h.shape[:3], sentence.shape[-1]))
        h = self.joint(jnp.concatenate([h, wide.astype(h.dtype)], -1), train=train)
        return self.matched(h.astype(jnp.float32))[:, 0, 0, 0]

    def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Inputs that `init` can be traced with."""
        shapes = (1, self.resolution, self.resolution, 3), (1, self.sentence_dim)
        return tuple(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)

    def __call__(self, x: jax.Array, sentence: jax.Array, *, train: bool = False) -> tuple:
        """Pictures and sentences to (logits of the picture or None, logits of the pair)."""
        h = self.features(x, train=train)
        pair = self.together(h, sentence, train=train)
        return self.alone(h) if self.unconditional else None, pair
