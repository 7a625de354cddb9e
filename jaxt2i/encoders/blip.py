"""ImageReward: BLIP's image and text towers, and a head that says how much people like a picture.

Xu et al. 2023, "ImageReward" (arXiv 2304.05977; code THUDM/ImageReward, Apache-2.0) on Li et al.
2022, "BLIP" (arXiv 2201.12086): a ViT-L/16 reads the picture, BERT reads the caption and, in every
layer, the picture; a stack of linear maps without activations reads BERT's first token.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.encoders.vit import Embedding, Transformer, activation, layer_norm

# Of the rewards that the published network gave to its training pictures.
MEAN, STD = 0.16717362830052426, 1.0333394966054072
# Tokens of a caption: longer ones are cut.
LENGTH = 35
normal = nn.initializers.normal(0.02)


class Attention(nn.Module):
    """norm(x + attention(x to y)), BERT's.

    Attributes:
      heads: attention heads.
      eps: of the layer norm.
      dtype: of activations.
    """

    heads: int
    eps: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array, mask: jax.Array | None) -> jax.Array:
        """[B, T, E] to [B, T, E].

        Args:
          x: [B, T, E], who looks.
          y: [B, N, C], what is looked at.
          mask: bool [B, N], False hides a token; None: none is hidden.
        """
        width = x.shape[-1]

        def split(name: str, of: jax.Array) -> jax.Array:
            out = nn.Dense(width, dtype=self.dtype, kernel_init=normal, name=name)(of)
            return out.reshape(*of.shape[:2], self.heads, width // self.heads)

        seen = None if mask is None else mask[:, None, None]
        parts = split("query", x), split("key", y), split("value", y)
        h = jax.nn.dot_product_attention(*parts, mask=seen).reshape(x.shape)
        h = nn.Dense(width, dtype=self.dtype, kernel_init=normal, name="proj")(h)
        return layer_norm(self.eps, self.dtype, "norm")(x + h)


class Block(nn.Module):
    """A layer of BERT that also looks at a picture.

    Attributes:
      heads: attention heads.
      mlp: hidden width of the MLP.
      eps: of the layer norms.
      dtype: of activations.
    """

    heads: int
    mlp: int
    eps: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array, image: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """[B, T, E] to [B, T, E], twice: what the next block reads, and what a scan collects.

        Args:
          x: [B, T, E].
          mask: bool [B, T], False hides a token from all others.
          image: [B, N, C], the picture's tokens.
        """
        fields = {"heads": self.heads, "eps": self.eps, "dtype": self.dtype}
        x = Attention(**fields, name="words")(x, x, mask)
        x = Attention(**fields, name="picture")(x, image, None)
        h = nn.Dense(self.mlp, dtype=self.dtype, kernel_init=normal, name="fc1")(x)
        h = activation("gelu")(h)
        h = nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=normal, name="fc2")(h)
        x = layer_norm(self.eps, self.dtype, "norm")(x + h)
        return x, x


class ImageReward(nn.Module):
    """How much people like a picture for a caption; the defaults are the published sizes.

    Attributes:
      resolution: of pictures, pixels.
      patch: size of a patch, pixels.
      width, layers, heads: of the image tower.
      mlp_ratio: hidden width of its MLPs over `width`.
      vocab: token ids.
      positions: rows of the text tower's position table.
      text_width, text_layers, text_heads, text_mlp: of the text tower.
      head: widths of the head's layers but for the last one, which is 1.
      eps: of the image tower's layer norms.
      text_eps: of the text tower's.
      dtype: of activations.
    """

    resolution: int = 224
    patch: int = 16
    width: int = 1024
    layers: int = 24
    heads: int = 16
    mlp_ratio: float = 4.0
    vocab: int = 30524
    positions: int = 512
    text_width: int = 768
    text_layers: int = 12
    text_heads: int = 12
    text_mlp: int = 3072
    head: tuple[int, ...] = (1024, 128, 64, 16)
    eps: float = 1e-6
    text_eps: float = 1e-12
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.embed = Embedding(
            *(self.resolution, self.patch, self.width),
            bias=True,
            resize="bicubic",
            dtype=self.dtype,
        )
        self.transformer = Transformer(
            layers=self.layers,
            heads=self.heads,
            mlp=int(self.width * self.mlp_ratio),
            eps=self.eps,
            dtype=self.dtype,
        )
        self.norm = layer_norm(self.eps, self.dtype)
        self.tokens = nn.Embed(self.vocab, self.text_width, embedding_init=normal)
        self.places = self.param("places", normal, (self.positions, self.text_width))
        self.text_norm = layer_norm(self.text_eps, self.dtype)
        scan = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast),
            length=self.text_layers,
        )
        self.blocks = scan(
            heads=self.text_heads, mlp=self.text_mlp, eps=self.text_eps, dtype=self.dtype
        )
        self.judge = [nn.Dense(n, kernel_init=normal) for n in (*self.head, 1)]

    def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Inputs that `init` can be traced with."""
        size = self.resolution
        return (
            jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32),
            jax.ShapeDtypeStruct((1, LENGTH), jnp.int32),
            jax.ShapeDtypeStruct((1, LENGTH), jnp.bool_),
        )

    def stages(self, pixels: jax.Array, tokens: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
        """Everything on the way.

        Args:
          pixels: [B, H, W, 3], normalised as CLIP's.
          tokens: int [B, T].
          mask: bool [B, T], False where there is padding.

        Returns:
          image [B, 1 + N, C], embedded [B, T, E], blocks [L, B, T, E] and reward [B], raw.
        """
        image = self.norm(self.transformer(self.embed(pixels)[0])[0])
        x = self.tokens(tokens) + self.places[: tokens.shape[1]]
        embedded = self.text_norm(x.astype(self.dtype))
        words, blocks = self.blocks(embedded, mask.astype(bool), image)
        h = words[:, 0].astype(jnp.float32)
        for layer in self.judge:
            h = layer(h)
        return {"image": image, "embedded": embedded, "blocks": blocks, "reward": h[:, 0]}

    def __call__(self, pixels: jax.Array, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        """The reward [B], in deviations from the mean of the network's training pictures."""
        raw = self.stages(pixels, tokens, mask)["reward"]
        return (raw - np.float32(MEAN)) / np.float32(STD)
