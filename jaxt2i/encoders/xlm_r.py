"""XLM-RoBERTa, which reads a hundred languages, and M-CLIP's head into CLIP's joint space.

Conneau et al. 2020 (arXiv 1911.02116; published by FacebookAI as xlm-roberta-base and -large).
Carlsson et al. 2022, "Cross-lingual and Multilingual CLIP" (LREC; FreddeFrallan/Multilingual-CLIP,
MIT): the mean of the last hidden states through one linear map, trained so that translations of a
caption land where CLIP's own text tower puts the English one. The image tower stays CLIP's.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.encoders.text import Text
from jaxt2i.encoders.vit import activation, layer_norm


class Preset(NamedTuple):
    """Sizes of an encoder; the names are those of `XlmRText`."""

    vocab: int
    length: int
    width: int
    layers: int
    heads: int
    mlp: int


PRESETS: dict[str, Preset] = {
    "base": Preset(250002, 512, 768, 12, 12, 3072),
    "large": Preset(250002, 512, 1024, 24, 16, 4096),
    # Nobody published weights of this size; it is for tests.
    "tiny": Preset(1024, 64, 32, 2, 2, 64),
}

normal = nn.initializers.normal(0.02)


class Block(nn.Module):
    """norm1(x + attention(x)), then norm2(x + mlp(x)): the norms stand behind the sums.

    Attributes:
      heads: attention heads.
      mlp: hidden width of the MLP.
      act: key of `jaxt2i.encoders.vit.ACTIVATIONS`.
      eps: of the layer norms.
      dtype: of activations; softmax and norm statistics are float32.
    """

    heads: int
    mlp: int
    act: str = "gelu"
    eps: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, T, E] to [B, T, E], twice: what the next block reads, and what a scan collects.

        Args:
          x: [B, T, E].
          mask: bool [B, T], False hides a token from all others.
        """
        width = x.shape[-1]
        if width % self.heads:
            raise ValueError(f"width={width} cannot be split into heads={self.heads}")

        def dense(name: str, features: int) -> nn.Dense:
            return nn.Dense(features, dtype=self.dtype, kernel_init=normal, name=name)

        qkv = dense("qkv", 3 * width)(x)
        qkv = qkv.reshape(*x.shape[:2], 3, self.heads, width // self.heads)
        h = jax.nn.dot_product_attention(
            qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], mask=mask[:, None, None]
        )
        h = dense("proj", width)(h.reshape(x.shape))
        x = layer_norm(self.eps, self.dtype, "norm1")(x + h)
        h = dense("fc2", width)(activation(self.act)(dense("fc1", self.mlp)(x)))
        x = layer_norm(self.eps, self.dtype, "norm2")(x + h)
        return x, x


class XlmRText(nn.Module):
    """Tokens of any of a hundred languages to a sentence vector and word vectors.

    Attributes:
      reads: kinds of tokenizers whose ids it may be trained on.
      vocab: token ids.
      length: the most tokens a caption may have.
      width, layers, heads: of the transformer.
      mlp: hidden width of the MLPs.
      joint: width of the space shared with images, S; 0 = no map into one, the sentence is the
        mean itself (S = `width`).
      padding: id of the padding token. Positions count from padding + 1 on, so the table has
        length + padding + 1 rows.
      act: key of `jaxt2i.encoders.vit.ACTIVATIONS`.
      eps: of the layer norms.
      dtype: of activations.
      unroll: see `jaxt2i.encoders.vit.Transformer`.

    Initial weights are N(0, 0.02^2), as the paper's; there is no dropout.
    """

    reads = ("xlm_r",)
    vocab: int = 250002
    length: int = 512
    width: int = 1024
    layers: int = 24
    heads: int = 16
    mlp: int = 4096
    joint: int = 512
    padding: int = 1
    act: str = "gelu"
    eps: float = 1e-5
    dtype: jnp.dtype = jnp.float32
    unroll: int = 1

    def setup(self):
        self.tokens = nn.Embed(self.vocab, self.width, embedding_init=normal)
        rows = self.length + self.padding + 1
        self.positions = self.param("positions", normal, (rows, self.width))
        # BERT tells two kinds of text apart, XLM-R has one: the same vector for every token.
        self.kind = self.param("kind", normal, (self.width,))
        self.norm = layer_norm(self.eps, self.dtype)
        scan = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=self.layers,
            unroll=self.unroll,
        )
        self.blocks = scan(
            heads=self.heads, mlp=self.mlp, act=self.act, eps=self.eps, dtype=self.dtype
        )
        if self.joint:
            self.proj = nn.Dense(self.joint, dtype=self.dtype, kernel_init=normal)

    def example(self) -> tuple[jax.ShapeDtypeStruct]:
        """Inputs that `init` can be traced with."""
        return (jax.ShapeDtypeStruct((1, self.length), jnp.int32),)

    def stages(self, tokens: jax.Array, mask: jax.Array | None = None) -> dict[str, jax.Array]:
        """Everything on the way.

        Args:
          tokens: int [B, T], T <= `length`.
          mask: bool [B, T], see `__call__`.

        Returns:
          embedded [B, T, E], blocks [L, B, T, E], words [B, T, E] (the last block's) and pooled
          [B, E], float32.

        Raises:
          ValueError: for captions longer than the position table.
        """
        if tokens.shape[1] > self.length:
            raise ValueError(
                f"captions of {tokens.shape[1]} tokens, but this encoder has {self.length} "
                "positions; shorten config.data.tokens"
            )
        real = tokens != self.padding
        mask = real if mask is None else mask.astype(bool)
        # Padding shares one row of the table, the one before the first token's.
        places = self.padding + jnp.cumsum(real, -1) * real
        x = self.tokens(tokens) + self.positions[places] + self.kind
        x = self.norm(x.astype(self.dtype))
        words, blocks = self.blocks(x, mask)
        weights = mask[..., None].astype(jnp.float32)
        pooled = (words * weights).sum(1) / jnp.maximum(weights.sum(1), 1)
        return {"embedded": x, "blocks": blocks, "words": words, "pooled": pooled}

    def __call__(self, tokens: jax.Array, mask: jax.Array | None = None) -> Text:
        """Encodes captions.

        Args:
          tokens: int [B, T].
          mask: bool [B, T], True where a token belongs to the caption; None: wherever it is not
            padding.

        Returns:
          `Text`: sentence = the mean of the caption's last hidden states, mapped into the joint
          space [B, S], not normalised; words = all last hidden states [B, T, E], which mean
          nothing at padding.
        """
        stages = self.stages(tokens, mask)
        sentence = stages["pooled"].astype(self.dtype)
        sentence = self.proj(sentence) if self.joint else sentence
        mask = tokens != self.padding if mask is None else mask.astype(bool)
        return Text(sentence, stages["words"], mask)
