"""The autoencoder of Stable Diffusion 1.x: pictures to latents an eighth as large, and back.

Rombach et al. 2022 (arXiv 2112.10752), the variational one (KL-f8). Large pictures can go through
it in tiles.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.encoders.diffusion.blocks import EPS, ResBlock, SelfAttention, Upsample, group_norm
from jaxt2i.encoders.diffusion.names import SCALE
from jaxt2i.nn.linear import Conv
from jaxt2i.nn.remat import Policy, recomputed

# Bounds of a latent's log variance.
LOG_VARIANCE = (-30.0, 20.0)


class Middle(nn.Module):
    """Two residual blocks with attention between them.

    Attributes:
      groups, dtype, remat: see `VAE`.
    """

    groups: int
    dtype: jnp.dtype
    remat: Policy

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, C] to the same shape."""
        for block in (
            ResBlock(x.shape[-1], self.groups, EPS, self.dtype, name="res0"),
            SelfAttention(self.groups, self.dtype, name="attention"),
            ResBlock(x.shape[-1], self.groups, EPS, self.dtype, name="res1"),
        ):
            x = recomputed(self.remat, block, x)
        return x


class Encoder(nn.Module):
    """Pictures to what means and log variances are made of.

    Attributes:
      channels, layers, latent, groups, dtype, remat: see `VAE`.
    """

    channels: Sequence[int]
    layers: int
    latent: int
    groups: int
    dtype: jnp.dtype
    remat: Policy

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, 3] to [B, h, w, 2 latent]."""
        h = Conv(self.channels[0], dtype=self.dtype, name="conv_in")(x)
        for i, features in enumerate(self.channels):
            for j in range(self.layers):
                block = ResBlock(features, self.groups, EPS, self.dtype, name=f"level{i}_res{j}")
                h = recomputed(self.remat, block, h)
            if i + 1 < len(self.channels):
                # Padded on the right and below alone.
                h = jnp.pad(h, ((0, 0), (0, 1), (0, 1), (0, 0)))
                half = Conv(features, stride=2, pad=0, dtype=self.dtype, name=f"level{i}_half")
                h = half(h)
        h = Middle(self.groups, self.dtype, self.remat, name="mid")(h)
        h = nn.silu(group_norm(self.groups, EPS, self.dtype, "norm_out")(h))
        return Conv(2 * self.latent, dtype=self.dtype, name="conv_out")(h)


class Decoder(nn.Module):
    """Latents to pictures.

    Attributes:
      channels, layers, out_channels, groups, dtype, remat: see `VAE`; one block more a level.
    """

    channels: Sequence[int]
    layers: int
    out_channels: int
    groups: int
    dtype: jnp.dtype
    remat: Policy

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, latent] to [B, H, W, out_channels]."""
        h = Conv(self.channels[-1], dtype=self.dtype, name="conv_in")(x)
        h = Middle(self.groups, self.dtype, self.remat, name="mid")(h)
        for k, features in enumerate(reversed(self.channels)):
            for j in range(self.layers + 1):
                block = ResBlock(features, self.groups, EPS, self.dtype, name=f"up{k}_res{j}")
                h = recomputed(self.remat, block, h)
            if k + 1 < len(self.channels):
                h = recomputed(self.remat, Upsample(self.dtype, name=f"up{k}_double"), h)
        h = nn.silu(group_norm(self.groups, EPS, self.dtype, "norm_out")(h))
        return Conv(self.out_channels, dtype=self.dtype, name="conv_out")(h)


class VAE(nn.Module):
    """Both halves.

    Attributes:
      channels: of each level, the finest first; each has half the size of the one before.
      layers: residual blocks a level of the encoder; the decoder has one more.
      latent: channels of a latent.
      out_channels: of a picture.
      groups: of the norms.
      tile: pixels of a latent that go through at once, in both directions; 0: all. Tiles overlap
        by a quarter and fade into each other. Memory then does not grow with the picture, but
        norms and attention see one tile at a time: colours may differ a little between tiles.
      scale: what latents are multiplied by for the U-Net, in `sample`, `drawn` and `picture`.
      dtype: of activations.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    channels: Sequence[int] = (128, 256, 512, 512)
    layers: int = 2
    latent: int = 4
    out_channels: int = 3
    groups: int = 32
    tile: int = 0
    scale: float = SCALE
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    def setup(self):
        shared = {
            "channels": self.channels,
            "layers": self.layers,
            "groups": self.groups,
            "dtype": self.dtype,
            "remat": self.remat,
        }
        self.encoder = Encoder(latent=self.latent, **shared)
        self.decoder = Decoder(out_channels=self.out_channels, **shared)
        self.quant = Conv(2 * self.latent, 1, dtype=self.dtype)
        self.post_quant = Conv(self.latent, 1, dtype=self.dtype)

    @property
    def factor(self) -> int:
        """Pixels of a picture along one pixel of its latent."""
        return 2 ** (len(self.channels) - 1)

    def example(self) -> tuple[jax.ShapeDtypeStruct]:
        """Inputs that `init` can be traced with."""
        shape = (1, self.factor, self.factor, self.out_channels)
        return (jax.ShapeDtypeStruct(shape, jnp.float32),)

    def __call__(self, image: jax.Array) -> jax.Array:
        """Pictures [B, H, W, 3] in [-1, 1], encoded and decoded."""
        return self.decode(self.encode(image)[0])

    def encode(self, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What a picture's latent may be.

        Args:
          image: [B, H, W, 3] in [-1, 1], H and W multiples of `factor`.

        Returns:
          (mean, log variance), each [B, h, w, latent] float32, not yet scaled; see `sample`.
        """
        height, width = image.shape[1:3]
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"a picture of {height} x {width} pixels has no whole latent; crop or resize it to "
                f"multiples of {self.factor}"
            )

        def whole(vae: VAE, x: jax.Array) -> jax.Array:
            return vae.quant(vae.encoder(x)).astype(jnp.float32)

        mean, log_variance = jnp.split(self._tiled(whole, image, self.factor, 1), 2, -1)
        return mean, jnp.clip(log_variance, *LOG_VARIANCE)

    def decode(self, latent: jax.Array) -> jax.Array:
        """The picture [B, H, W, 3] float32, about [-1, 1], of an unscaled latent [B, h, w, C]."""

        def whole(vae: VAE, x: jax.Array) -> jax.Array:
            return vae.decoder(vae.post_quant(x)).astype(jnp.float32)

        return self._tiled(whole, latent, 1, self.factor)

    def sample(self, image: jax.Array, noise: jax.Array) -> jax.Array:
        """A picture's latent as the U-Net takes it: scale * (mean + deviation * noise)."""
        mean, log_variance = self.encode(image)
        return self.drawn(mean, jnp.exp(log_variance / 2), noise)

    def drawn(self, mean: jax.Array, deviation: jax.Array, noise: jax.Array) -> jax.Array:
        """The same of what `encode` gave earlier: scale * (mean + deviation * noise)."""
        return self.scale * (mean + deviation * noise)

    def picture(self, z: jax.Array) -> jax.Array:
        """The picture of a latent of the U-Net's: `decode` of z / scale."""
        return self.decode(z / self.scale)

    def _tiled(self, whole: Callable, x: jax.Array, size_in: int, size_out: int) -> jax.Array:
        """whole(self, x), in tiles where x is larger than one.

        Args:
          whole: (VAE, x) -> y.
          x: [B, size_in h, size_in w, ...], (h, w) the latent's size.
          size_in: pixels of x along one pixel of a latent.
          size_out: pixels of y along it.
        """
        sides = [n // size_in for n in x.shape[1:3]]
        tile = [min(self.tile or n, n) for n in sides]
        if tile == sides or self.is_initializing():
            return whole(self, x)
        starts = [_starts(n, t) for n, t in zip(sides, tile, strict=True)]
        grid = np.array([(r, c) for r in starts[0] for c in starts[1]])
        # Bound modules cannot be called in a loop of JAX's; a module of its own can.
        module, variables = self.clone(parent=None, tile=0), self.variables

        def one(at: jax.Array) -> jax.Array:
            start = (0, at[0] * size_in, at[1] * size_in, 0)
            part = (len(x), tile[0] * size_in, tile[1] * size_in, x.shape[-1])
            piece = jax.lax.dynamic_slice(x, start, part)
            return module.apply(variables, piece, method=whole)

        made = jax.lax.map(one, jnp.asarray(grid))
        rows, cols = (_fade(t * size_out) for t in tile)
        window = (rows[:, None] * cols)[..., None]
        shape = (len(x), *(n * size_out for n in sides), made.shape[-1])
        total, weight = jnp.zeros(shape, made.dtype), np.zeros((*shape[1:3], 1), np.float32)
        for piece, (row, col) in zip(made, grid * size_out, strict=True):
            at = np.s_[row : row + piece.shape[1], col : col + piece.shape[2]]
            total = total.at[:, at[0], at[1]].add(window * piece)
            weight[at] += window
        return total / weight


def _starts(size: int, tile: int) -> list[int]:
    """Where tiles begin that cover `size` pixels, overlapping by a quarter of a tile or more."""
    count = 1 if size <= tile else 1 + -(-(size - tile) // max(tile - tile // 4, 1))
    return [round(k * (size - tile) / max(count - 1, 1)) for k in range(count)]


def _fade(size: int) -> np.ndarray:
    """Weights [size] of a tile's pixels: 1 inside, falling towards both ends over a quarter."""
    ramp = (np.arange(size) + 0.5) / max(size // 4, 1)
    return np.minimum(1, np.minimum(ramp, ramp[::-1])).astype(np.float32)
