"""Parts of generators that draw in stages: 64, 128, 256 pixels (StackGAN, AttnGAN, DM-GAN, ...).

Initial values are the family's: orthogonal kernels, N(1, 0.02) scales of norms, zero dense biases.
"""

import itertools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from jaxt2i.config import ConfigError
from jaxt2i.nn.linear import Conv, Linear
from jaxt2i.nn.norms import BatchNorm, orthogonal
from jaxt2i.nn.remat import Policy, recomputed
from jaxt2i.nn.resample import reduce_bytes

MASKS = ("own", "tiled")


@flax.struct.dataclass
class Drawn:
    """What a generator draws.

    Attributes:
      images: one a stage, smallest first, [B, R, R, 3] in [-1, 1].
      attention: of every stage behind the first, [B, T, H, W] over the words.
      mean: of the conditioning augmentation, [B, C].
      log_variance: [B, C].
      read: of every stage behind the first, what its pixels read of the words, [B, H, W, C], where
        the generator hands it on.
    """

    images: tuple[jax.Array, ...]
    attention: tuple[jax.Array, ...]
    mean: jax.Array
    log_variance: jax.Array
    read: tuple[jax.Array, ...] = ()


def sizes_of(resolution: int, stages: int) -> tuple[int, ...]:
    """Resolution of every stage's picture, smallest first, pixels.

    Raises:
      ConfigError: where the last resolution does not allow so many stages.
    """
    if resolution & (resolution - 1) or resolution // 2 ** (stages - 1) < 8:
        raise ConfigError(
            f"config.data.resolution={resolution}: {stages} stages (config.model.stages) "
            f"need a power of two from {8 * 2 ** (stages - 1)} on"
        )
    return tuple(resolution // 2**i for i in range(stages))[::-1]


def pyramid(image: jax.Array, sizes: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """Pictures [B, R, R, 3], 0..255, at every size; smaller ones as Pillow resizes (bilinear)."""
    return tuple(image if n == image.shape[1] else reduce_bytes(image, n) for n in sizes)


def latents(draw: Callable[..., jax.Array], count: int, *widths: int) -> tuple[jax.Array, ...]:
    """This step's latents, the same for every player: [count, width] of each width, ~ N(0, I).

    Args:
      draw: `Ctx.draw`.
      count: how many rows.
      widths: of the latents, in the order in which a sampler's one vector holds them.
    """
    drawn = draw("z", lambda key: jax.random.normal(key, (count, sum(widths))))
    ends = list(itertools.accumulate(widths))
    return tuple(drawn[:, end - width : end] for width, end in zip(widths, ends, strict=True))


def latent(key: jax.Array, *widths: int) -> jax.Array:
    """A sampler's one vector [sum of widths], which holds what `latents` gives a step."""
    return jax.random.normal(key, (sum(widths),))


def shown(drawn: Drawn) -> dict[str, Any]:
    """What a sampler gives: the last picture, the stages before it, and attention to words."""
    return {"image": drawn.images[-1], "stages": drawn.images, "attention": drawn.attention}


def drawn_from(generator: Callable[..., Drawn], z: jax.Array, text: Any, z_dim: int) -> dict:
    """`shown` of what a generator of captions draws from a sampler's vectors [B, Z + C].

    Args:
      generator: (z, eps, sentence, words, mask) -> `Drawn`.
      z: of `latent`.
      text: has `sentence`, `words` and `mask`.
      z_dim: Z.
    """
    z, eps = z[:, :z_dim], z[:, z_dim:]
    return shown(generator(z, eps, text.sentence, text.words, text.mask))


def generator_inputs(z_dim: int, c_dim: int, words_dim: int) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Shapes of (z, eps, sentence, words, mask), for one caption of three words."""
    shapes = (1, z_dim), (1, c_dim), (1, words_dim), (1, 3, words_dim)
    floats = (jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)
    return *floats, jax.ShapeDtypeStruct((1, 3), bool)


def around_one(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Initial scales of norms, N(1, 0.02)."""
    return 1 + 0.02 * jax.random.normal(key, shape)


def norm(group: int, name: str) -> BatchNorm:
    """The family's batch norm; `group` as there."""
    return BatchNorm(group=group, scale_init=around_one, name=name)


def conv3(features: int, dtype: jnp.dtype, name: str, up: bool = False) -> Conv:
    """A 3x3 convolution without bias; `up`: of the doubled input."""
    return Conv(features, up=up, use_bias=False, dtype=dtype, kernel_init=orthogonal(), name=name)


def glu(x: jax.Array) -> jax.Array:
    """Gated linear unit: the first half of the channels times sigmoid of the second."""
    value, gate = jnp.split(x, 2, -1)
    return value * jax.nn.sigmoid(gate)


class ConditioningAugmentation(nn.Module):
    """Draws a condition from a Gaussian around the sentence (Zhang et al. 2017, StackGAN).

    Attributes:
      features: width of the condition, C.
    """

    features: int = 100

    @nn.compact
    def __call__(self, sentence: jax.Array, eps: jax.Array) -> tuple[jax.Array, ...]:
        """Sentence [B, S], eps [B, C] ~ N(0, I) to (condition, mean, log variance), [B, C] each."""
        wide = Linear(
            4 * self.features,
            kernel_init=orthogonal(),
            bias_init=nn.initializers.zeros,
            name="fc",
        )
        mean, log_variance = jnp.split(glu(wide(sentence)), 2, -1)
        return mean + eps * jnp.exp(0.5 * log_variance), mean, log_variance


class Up(nn.Module):
    """Twice the size: nearest neighbour, convolution, batch norm, gate.

    Attributes:
      features: output channels.
      group: of the batch norm.
      dtype: compute dtype.
    """

    features: int
    group: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, C] to [B, 2H, 2W, features]."""
        x = conv3(2 * self.features, self.dtype, "conv", up=True)(x)
        return glu(norm(self.group, "norm")(x, train=train))


class Residual(nn.Module):
    """Two convolutions around a gate, added to the input, no activation after the sum.

    Attributes:
      group: of the batch norms.
      dtype: compute dtype.
    """

    group: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, C] to the same shape."""
        channels = x.shape[-1]
        h = conv3(2 * channels, self.dtype, "conv1")(x)
        h = glu(norm(self.group, "norm1")(h, train=train))
        h = conv3(channels, self.dtype, "conv2")(h)
        return norm(self.group, "norm2")(h, train=train) + x


class FirstStage(nn.Module):
    """Condition and latent to the features of the first picture.

    Attributes:
      base: channels at the end, g.
      resolution: at the end, pixels.
      start: height and width that the dense layer makes, pixels.
      group: of the batch norms.
      dtype: compute dtype.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    base: int = 32
    resolution: int = 64
    start: int = 4
    group: int = 0
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    @nn.compact
    def __call__(
        self, cond: jax.Array, z: jax.Array, beside: jax.Array | None = None, *, train: bool = False
    ) -> jax.Array:
        """Cond [B, C] and z [B, Z] to [B, resolution, resolution, base].

        Args:
          cond: [B, C].
          z: [B, Z].
          beside: further channels [B, H, H, C], which join where the features have that size.
          train: see `BatchNorm`.
        """
        side = self.start
        doublings = (self.resolution // side).bit_length() - 1
        width = self.base * 2**doublings
        x = jnp.concatenate([cond, z], -1)
        wide = Linear(
            2 * width * side**2,
            use_bias=False,
            kernel_init=orthogonal(),
            dtype=self.dtype,
            name="fc",
        )
        x = wide(x)
        x = glu(norm(self.group, "fc_norm")(x, train=train))
        x = jnp.moveaxis(x.reshape(len(x), width, side, side), 1, -1)
        for i in range(doublings):
            width //= 2
            x = _joined(x, beside)
            up = Up(width, group=self.group, dtype=self.dtype, name=f"up{i + 1}")
            x = recomputed(self.remat, up, x, train=train)
        return x


def _joined(x: jax.Array, beside: jax.Array | None) -> jax.Array:
    """Features with the channels of others of their size."""
    if beside is None or beside.shape[1] != x.shape[1]:
        return x
    return jnp.concatenate([x, beside.astype(x.dtype)], -1)


class Refinement(nn.Module):
    """Residual blocks and a doubling: what follows the look at the words.

    Attributes:
      features: output channels, g.
      blocks: residual blocks.
      group: of the batch norms.
      dtype: compute dtype.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    features: int
    blocks: int = 2
    group: int = 0
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    @nn.compact
    def __call__(
        self, x: jax.Array, beside: jax.Array | None = None, *, train: bool = False
    ) -> jax.Array:
        """[B, H, W, C] to [B, 2H, 2W, features]; `beside`, [B, H, W, D], joins before the end."""
        for i in range(self.blocks):
            block = Residual(group=self.group, dtype=self.dtype, name=f"residual{i}")
            x = recomputed(self.remat, block, x, train=train)
        x = _joined(x, beside)
        up = Up(self.features, group=self.group, dtype=self.dtype, name="up")
        return recomputed(self.remat, up, x, train=train)


class ToImage(nn.Module):
    """Features to a picture: convolution, tanh; float32.

    Attributes:
      dtype: compute dtype of the convolution.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, H, W, 3] in [-1, 1]."""
        return jnp.tanh(conv3(3, self.dtype, "conv")(x).astype(jnp.float32))


def read_words(
    queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, rule: str
) -> tuple[jax.Array, jax.Array]:
    """Every pixel reads the words that it resembles: softmax over words of query . key.

    Args:
      queries: [B, H, W, C].
      keys: [B, T, C].
      values: [B, T, C].
      mask: bool [B, T], True at words.
      rule: "own": a pixel may read the words of its own caption. "tiled": as AttnGAN's code lays
        its mask out and its published weights were trained, pixel q of example b is masked by
        caption (b H W + q) mod B, so that a picture depends on the batch that it is drawn in.

    Returns:
      (what was read [B, H, W, C], attention [B, T, H, W] float32).

    Source: Xu et al. 2018, equation 2; taoxugit/AttnGAN code/GlobalAttention.py.
    """
    batch, h, w, channels = queries.shape
    flat = queries.reshape(batch, h * w, channels)
    scores = jnp.einsum("bqc,btc->bqt", flat, keys, preferred_element_type=jnp.float32)
    allowed = mask[:, None]
    if rule == "tiled":
        pixel = jnp.arange(batch)[:, None] * (h * w) + jnp.arange(h * w)
        allowed = mask[pixel % batch]
    share = jax.nn.softmax(jnp.where(allowed, scores, -jnp.inf), -1)
    read = jnp.einsum("bqt,btc->bqc", share.astype(values.dtype), values)
    return read.reshape(queries.shape), jnp.moveaxis(share, 1, 2).reshape(batch, -1, h, w)
