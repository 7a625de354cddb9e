"""DAMSM's encoders (Xu et al. 2018, AttnGAN, arXiv 1711.10485, section 3.2).

A bidirectional LSTM reads captions, a convolutional trunk sees pictures; words meet regions, and
sentences meet whole pictures, in one space.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.encoders.inception import InceptionV3
from jaxt2i.encoders.text import Text
from jaxt2i.nn.norms import BatchNorm
from jaxt2i.nn.resample import apply_matrices, bilinear_matrix, corner_matrix


def uniform(bound: float) -> Callable:
    """U(-bound, bound)."""
    return lambda key, shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)


class Direction(nn.Module):
    """One direction of an LSTM with PyTorch's gates (input, forget, cell, output) and two biases.

    Attributes:
      width: of the state, H.
      reverse: read from each caption's last word to its first.
    """

    width: int
    reverse: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Reads captions; a padded position leaves the state as it is.

        Args:
          x: [B, T, E].
          mask: bool [B, T].

        Returns:
          (outputs [B, T, H], zero at padding; last output [B, H]; last cell [B, H]).
        """
        init = uniform(self.width**-0.5)
        inputs = self.param("input", init, (x.shape[-1], 4 * self.width))
        recurrent = self.param("recurrent", init, (self.width, 4 * self.width))
        bias = self.param("input_bias", init, (4 * self.width,))
        bias = bias + self.param("recurrent_bias", init, (4 * self.width,))
        drive = x @ inputs + bias  # [B, T, 4H], all positions in one product

        def turn(carry, at):
            h, c = carry
            drive, keep = at
            i, f, g, o = jnp.split(drive + h @ recurrent, 4, -1)
            new_c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            new_h = jax.nn.sigmoid(o) * jnp.tanh(new_c)
            h, c = jnp.where(keep, new_h, h), jnp.where(keep, new_c, c)
            return (h, c), jnp.where(keep, h, 0)

        start = jnp.zeros((len(x), self.width), x.dtype)
        along = jnp.moveaxis(drive, 1, 0), jnp.moveaxis(mask, 1, 0)[..., None]
        (h, c), outputs = jax.lax.scan(turn, (start, start), along, reverse=self.reverse)
        return jnp.moveaxis(outputs, 0, 1), h, c


class DamsmText(nn.Module):
    """Words to a sentence vector and word vectors. Compiled once for captions of every length.

    Attributes:
      reads: kinds of tokenizers whose ids it may be trained on.
      vocab: word ids; 0 is the end and the padding.
      length: positions of a caption, for `example` alone.
      embed: width of the word embedding.
      width: of the sentence, S: both directions together.
      dropout: of the embeddings, in training.
      dtype: of the results; the recurrence is float32.
    """

    reads = ("words",)
    vocab: int = 5450
    length: int = 18
    embed: int = 300
    width: int = 256
    dropout: float = 0.5
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.words = nn.Embed(
            self.vocab, self.embed, embedding_init=lambda key, shape, _: uniform(0.1)(key, shape)
        )
        self.drop = nn.Dropout(self.dropout)
        self.forward = Direction(self.width // 2)
        self.backward = Direction(self.width // 2, reverse=True)

    def example(self) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        """Inputs that `init` can be traced with."""
        shape = (1, self.length)
        return jax.ShapeDtypeStruct(shape, jnp.int32), jax.ShapeDtypeStruct(shape, bool)

    def stages(self, tokens: jax.Array, mask: jax.Array, train: bool = False) -> dict:
        """Everything on the way: embedded [B, T, E], words [B, T, S], sentence [B, S], cell.

        Args:
          tokens: int [B, T].
          mask: bool [B, T], True where a token is a word; at least one a caption.
          train: drop embeddings out, with the rng "dropout".

        Returns:
          A dict; "cell" holds both directions' last cells, [2, B, S / 2].
        """
        embedded = self.drop(self.words(tokens), deterministic=not train)
        ahead, last, cell = self.forward(embedded, mask)
        back, first, back_cell = self.backward(embedded, mask)
        return {
            "embedded": embedded,
            "words": jnp.concatenate([ahead, back], -1),
            "sentence": jnp.concatenate([last, first], -1),
            "cell": jnp.stack([cell, back_cell]),
        }

    def __call__(self, tokens: jax.Array, mask: jax.Array, train: bool = False) -> Text:
        """Encodes captions; see `stages` for the arguments.

        Returns:
          `Text`: sentence = the last states of both directions [B, S]; words [B, T, S], zero at
          padding.
        """
        found = self.stages(tokens, mask, train)
        sentence, words = found["sentence"].astype(self.dtype), found["words"].astype(self.dtype)
        return Text(sentence, words, mask)


class SmallTrunk(nn.Module):
    """A convolutional trunk for small pictures, where Inception is too large or not at hand.

    Attributes:
      width: channels at the full resolution.
      resolution: of the pictures, pixels.
      grid: rows and columns of the regions.
      dtype: compute dtype.
    """

    width: int = 32
    resolution: int = 32
    grid: int = 8
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """[B, R, R, 3] to ([B, grid, grid, C], [B, grid / 2, grid / 2, 2 C])."""

        def unit(h: jax.Array, features: int, stride: int, name: str) -> jax.Array:
            strides = (stride, stride)
            conv = nn.Conv(features, (3, 3), strides, use_bias=False, dtype=self.dtype, name=name)
            return jax.nn.relu(BatchNorm(name=f"{name}_norm")(conv(h), train=train))

        width, i = self.width, 0
        x = unit(x.astype(self.dtype), width, 1, "conv0")
        while x.shape[1] > self.grid:
            width, i = 2 * width, i + 1
            x = unit(x, width, 2, f"conv{i}")
        regions = unit(x, width, 1, "local")
        return regions, unit(regions, 2 * width, 2, "whole")


TRUNKS = ("inception", "small")


class DamsmImage(nn.Module):
    """Pictures to region vectors and one code.

    Attributes:
      trunk: "inception" (published) or "small".
      width: S, of the joint space.
      align_corners: how pictures are resized to Inception's 299 pixels: True is what bilinear
        meant when the published weights were made, False is today's meaning.
      train_trunk: let gradients reach the trunk's weights in training.
      base: channels of the small trunk at the full resolution.
      resolution: of the small trunk's pictures, pixels.
      dtype: compute dtype; the results are float32.
    """

    trunk: str = "inception"
    width: int = 256
    align_corners: bool = True
    train_trunk: bool = False
    base: int = 32
    resolution: int = 32
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        if self.trunk == "inception":
            self.eye = InceptionV3(self.dtype, name="trunk")
        else:
            self.eye = SmallTrunk(self.base, self.resolution, dtype=self.dtype, name="trunk")
        init = lambda key, shape, dtype: uniform(0.1)(key, shape)  # noqa: E731
        kinds = {"kernel_init": init, "dtype": jnp.float32}
        self.regions = nn.Dense(self.width, use_bias=False, **kinds)
        self.code = nn.Dense(self.width, bias_init=init, **kinds)

    def example(self) -> tuple[jax.ShapeDtypeStruct]:
        """Inputs that `init` can be traced with."""
        size = self.size
        return (jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32),)

    @property
    def size(self) -> int:
        """Height and width that the trunk sees, pixels."""
        return InceptionV3.resolution if self.trunk == "inception" else self.resolution

    def resized(self, image: jax.Array) -> jax.Array:
        """Pictures [B, R, R, 3] at the trunk's size."""
        if image.shape[1] == self.size:
            return image
        matrix = (corner_matrix if self.align_corners else bilinear_matrix)(
            self.size, image.shape[1]
        )
        return apply_matrices(image, matrix, matrix)

    def __call__(
        self, image: jax.Array, *, train: bool = False, hold_trunk: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """[B, R, R, 3] in [-1, 1] to (regions [B, h, w, S], code [B, S]), float32.

        Args:
          image: any R; resized to the trunk's size.
          train: batch statistics in the trunk, whose weights learn only with `train_trunk`.
          hold_trunk: no gradient passes the projections, to the trunk or to the picture.
        """
        middle, top = self.eye(self.resized(image), train=train)
        pooled = top.astype(jnp.float32).mean((1, 2))
        middle = middle.astype(jnp.float32)
        if hold_trunk or (train and not self.train_trunk):
            middle, pooled = jax.lax.stop_gradient((middle, pooled))
        return self.regions(middle), self.code(pooled)
