"""CLIP-FlanT5: how likely a T5 says "Yes" when it is asked whether a picture shows a caption.

Lin et al. 2024, "Evaluating text-to-visual generation with image-to-text generation" (VQAScore,
arXiv 2404.01291; code linzhiqiu/t2v_metrics before 3.1, Apache-2.0): patches of CLIP's ViT-L/14 at
336 pixels, two linear maps, and Flan-T5 (Chung et al. 2022, arXiv 2210.11416, on Raffel et al.
2020, "T5", arXiv 1910.10683), which reads them between the words of its question.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.encoders.clip import ClipImage

# What T5's norms add to the mean square.
EPS = 1e-6
# Distances of tokens fall into so many groups, those beyond `FAR` into the last.
BUCKETS, FAR = 32, 128
PAD, END = 0, 1
# Words of the published tokenizer; tables of files have more rows, which nobody reads.
VOCAB = 32_100
SIZES: dict[str, dict[str, Any]] = {
    "xl": {"width": 2048, "heads": 32, "mlp": 5120, "layers": 24},
    "xxl": {"width": 4096, "heads": 64, "mlp": 10_240, "layers": 24},
}


def buckets(rows: int, columns: int, both: bool) -> np.ndarray:
    """Int [rows, columns]: the group of the distance from a token to another one.

    Args:
      rows: tokens that look.
      columns: tokens that are looked at.
      both: what comes later has groups of its own; else all of it is in group 0.
    """
    away = np.arange(columns)[None] - np.arange(rows)[:, None]
    count = BUCKETS // 2 if both else BUCKETS
    later = count * (away > 0) if both else 0
    away = np.abs(away) if both else np.maximum(-away, 0)
    near = count // 2
    # As the original does it, in float32.
    ratio = np.log(np.maximum(away, 1).astype(np.float32) / np.float32(near))
    far = near + (ratio / np.float32(np.log(FAR / near)) * (count - near)).astype(np.int64)
    return later + np.where(away < near, away, np.minimum(far, count - 1))


def dense(features: int, name: str | None = None) -> nn.Dense:
    """A linear map without a bias."""
    init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
    return nn.Dense(features, use_bias=False, kernel_init=init, name=name)


class Attention(nn.Module):
    """x + attention(norm(x)) to y, or to norm(x) itself; products are not scaled.

    Attributes:
      heads: attention heads.
      head: channels of each.
    """

    heads: int
    head: int

    @nn.compact
    def __call__(
        self, x: jax.Array, y: jax.Array | None, bias: jax.Array | None, mask: jax.Array | None
    ) -> jax.Array:
        """[B, T, E] to [B, T, E].

        Args:
          x: [B, T, E], who looks.
          y: [B, N, E], what is looked at; None: what looks.
          bias: [1, heads, T, N], added to the products; None: nothing.
          mask: bool, broadcast to [B, heads, T, N], False hides; None: nothing is hidden.
        """
        h = nn.RMSNorm(epsilon=EPS, name="norm")(x)
        y = h if y is None else y
        inner = self.heads * self.head

        def split(name: str, of: jax.Array) -> jax.Array:
            return dense(inner, name)(of).reshape(*of.shape[:2], self.heads, self.head)

        parts = split("query", h), split("key", y), split("value", y)
        h = jax.nn.dot_product_attention(*parts, bias=bias, mask=mask, scale=1.0)
        return x + dense(x.shape[-1], "proj")(h.reshape(*x.shape[:2], inner))


class Block(nn.Module):
    """Attention among tokens, to the encoder's in the decoder, and a gated MLP.

    Attributes:
      heads, head: see `Attention`.
      mlp: hidden width.
    """

    heads: int
    head: int
    mlp: int

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        bias: jax.Array,
        mask: jax.Array | None,
        memory: jax.Array | None,
        seen: jax.Array | None,
    ) -> tuple[jax.Array, None]:
        """[B, T, E] to [B, T, E]; `memory` [B, N, E] and `seen`, its mask, are the decoder's."""
        fields = {"heads": self.heads, "head": self.head}
        x = Attention(**fields, name="words")(x, None, bias, mask)
        if memory is not None:
            x = Attention(**fields, name="memory")(x, memory, None, seen)
        h = nn.RMSNorm(epsilon=EPS, name="norm")(x)
        gate = jax.nn.gelu(dense(self.mlp, "gate")(h), approximate=True)
        return x + dense(x.shape[-1], "out")(gate * dense(self.mlp, "fc")(h)), None


class Stack(nn.Module):
    """Blocks over stacked weights, and a norm; all blocks share their biases of distances.

    Attributes:
      layers: blocks.
      causal: a token sees only itself and earlier ones.
      heads, head, mlp: see `Block`.
    """

    layers: int
    heads: int
    head: int
    mlp: int
    causal: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        memory: jax.Array | None = None,
        seen: jax.Array | None = None,
    ) -> jax.Array:
        """[B, T, E] to [B, T, E]; masks bool, see `Attention`."""
        length = x.shape[1]
        table = self.param("distances", nn.initializers.normal(0.1), (BUCKETS, self.heads))
        bias = table[buckets(length, length, not self.causal)].transpose(2, 0, 1)[None]
        if self.causal:
            earlier = np.tril(np.ones((length, length), bool))[None, None]
            mask = earlier if mask is None else mask & earlier
        scan = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=self.layers,
        )
        blocks = scan(heads=self.heads, head=self.head, mlp=self.mlp, name="blocks")
        x, _ = blocks(x, bias, mask, memory, seen)
        return nn.RMSNorm(epsilon=EPS, name="norm")(x)


class FlanT5(nn.Module):
    """A T5 that reads pictures between words.

    Attributes:
      width: of the residual stream.
      heads, mlp, layers: of the encoder and of the decoder, see `Stack`.
      head: channels of an attention head.
      vocab: token ids.
      eye: channels of a picture's patches.
      patches: of a picture.
    """

    width: int = 4096
    heads: int = 64
    head: int = 64
    mlp: int = 10_240
    layers: int = 24
    vocab: int = VOCAB
    eye: int = 1024
    patches: int = 576

    def setup(self):
        fields = {"layers": self.layers, "heads": self.heads, "head": self.head, "mlp": self.mlp}
        self.tokens = nn.Embed(self.vocab, self.width)
        self.look = [nn.Dense(self.width) for _ in range(2)]
        self.encoder = Stack(**fields)
        self.decoder = Stack(**fields, causal=True)
        self.says = dense(self.vocab)

    def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Inputs that `init` can be traced with."""
        whole = jax.ShapeDtypeStruct((1, 4), jnp.int32)
        image = jax.ShapeDtypeStruct((1, self.patches, self.eye), jnp.float32)
        return image, whole, whole, jax.ShapeDtypeStruct((1, 4), jnp.bool_), whole

    def stages(
        self,
        image: jax.Array,
        before: jax.Array,
        after: jax.Array,
        mask: jax.Array,
        answer: jax.Array,
    ) -> dict[str, jax.Array]:
        """Everything on the way.

        Args:
          image: [B, N, C], patches.
          before: int [B, P], tokens in front of the picture.
          after: int [B, T], tokens behind it.
          mask: bool [B, T], False where `after` is padding.
          answer: int [B, K], whose likelihood is wanted.

        Returns:
          encoded [B, P + N + T, E] and logits [B, K, vocab].
        """
        seen = self.look[1](jax.nn.gelu(self.look[0](image), approximate=False))
        x = jnp.concatenate([self.tokens(before), seen, self.tokens(after)], 1)
        front = jnp.ones((len(x), x.shape[1] - mask.shape[1]), bool)
        there = jnp.concatenate([front, mask.astype(bool)], 1)[:, None, None]
        encoded = self.encoder(x, there)
        # The decoder is given what came before each word of the answer; it starts with padding.
        given = jnp.pad(answer[:, :-1], ((0, 0), (1, 0)), constant_values=PAD)
        said = self.decoder(self.tokens(given), memory=encoded, seen=there)
        return {"encoded": encoded, "logits": self.says(said)}

    def __call__(self, *given: jax.Array) -> jax.Array:
        """[B]: the geometric mean of the probabilities of the answer's tokens, its end included."""
        logits = self.stages(*given)["logits"]
        found = jax.nn.log_softmax(logits.astype(jnp.float32))
        found = jnp.take_along_axis(found, given[-1][..., None], -1)[..., 0]
        return jnp.exp(found.mean(1))


class ClipT5(nn.Module):
    """Picture and question to the likelihood of an answer.

    Attributes:
      eye: CLIP's image tower, of which the last block but one is read.
      t5: what reads its patches.
    """

    eye: ClipImage
    t5: FlanT5

    @property
    def resolution(self) -> int:
        """Of pictures, pixels."""
        return self.eye.resolution

    def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Inputs that `init` can be traced with."""
        return (*self.eye.example(), *self.t5.example()[1:])

    @nn.compact
    def __call__(self, pixels: jax.Array, *given: jax.Array) -> jax.Array:
        """[B] in 0..1.

        Args:
          pixels: [B, H, W, 3], normalised as CLIP's.
          *given: see `FlanT5.stages`.
        """
        if self.is_initializing():  # its last block and projection belong to its files
            self.eye(pixels)
        patches = self.eye.stages(pixels)["blocks"][-2][:, 1:]
        return self.t5(patches, *given)
