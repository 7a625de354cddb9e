"""DINO (Caron et al. 2021) and DINOv2 (Oquab et al. 2023) as feature networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.encoders.vit import Embedding, Transformer, layer_norm, read_out
from jaxt2i.nn.remat import Policy
from jaxt2i.nn.resample import resize_bytes

# ImageNet's.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Tuned at 518 pixels; the Frechet DINOv2 distance reads the large one's class token at 224.
DINOV2 = {"resolution": 518, "patch": 14, "layer_scale": True, "resize": "bicubic"}
PRESETS: dict[str, dict] = {
    "vit_s16": {},
    "vit_b16": {"width": 768, "heads": 12},
    "dinov2_s14": DINOV2,
    "dinov2_b14": DINOV2 | {"width": 768, "heads": 12},
    "dinov2_l14": DINOV2 | {"width": 1024, "layers": 24, "heads": 16, "taps": (5, 11, 17, 23)},
}


def fdd_input(levels: jax.Array, size: int = 224) -> jax.Array:
    """Levels [B, H, W, 3] 0..255 to the input [B, size, size, 3] of the Frechet DINOv2 distance.

    Pillow's bicubic without a crop, so that the aspect is not kept, then ImageNet's mean and
    deviation (Stein et al. 2023, arXiv 2306.04675; layer6ai-labs/dgm-eval).
    """
    pixels = resize_bytes(levels, (size, size), "bicubic") / np.float32(255)
    return (pixels - np.float32(MEAN)) / np.float32(STD)


def normalize_image(x: jax.Array) -> jax.Array:
    """Pixels in [-1, 1], [..., 3], to ImageNet's mean 0 and deviation 1."""
    mean, std = np.float32(MEAN), np.float32(STD)
    return x * (0.5 / std).astype(x.dtype) + ((0.5 - mean) / std).astype(x.dtype)


class DinoFeatures(nn.Module):
    """A DINO vision transformer, read in the middle; the defaults are ViT-S/16.

    Attributes:
      resolution: image size of the position table, pixels; others are interpolated.
      patch: size of a patch, pixels.
      width, layers, heads: of the transformer.
      mlp_ratio: hidden width of the MLPs over `width`.
      taps: blocks that are read, counted from 0.
      layer_scale: DINOv2's learned factors on both branches of a block.
      resize: how positions follow another image size: "bilinear" (StyleGAN-T's discriminator),
        "bicubic" (DINOv2 in transformers) or "bicubic_hub" (DINOv2 in its own code). The last two
        differ a little from each other, and so do the distances that are measured with them.
      eps: of the layer norms.
      dtype: of activations.
      unroll, remat: see `Transformer`.
    """

    resolution: int = 224
    patch: int = 16
    width: int = 384
    layers: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    taps: tuple[int, ...] = (2, 5, 8, 11)
    layer_scale: bool = False
    resize: str = "bilinear"
    eps: float = 1e-6
    dtype: jnp.dtype = jnp.float32
    unroll: int = 1
    remat: Policy = None

    def setup(self):
        self.embed = Embedding(
            self.resolution,
            self.patch,
            self.width,
            bias=True,
            resize=self.resize,
            dtype=self.dtype,
        )
        self.transformer = Transformer(
            layers=self.layers,
            heads=self.heads,
            mlp=int(self.width * self.mlp_ratio),
            act="gelu",
            eps=self.eps,
            layer_scale=self.layer_scale,
            dtype=self.dtype,
            unroll=self.unroll,
            remat=self.remat,
        )
        self.norm = layer_norm(self.eps, self.dtype)

    def example(self) -> tuple[jax.ShapeDtypeStruct]:
        """Inputs that `init` can be traced with."""
        return (jax.ShapeDtypeStruct((1, self.resolution, self.resolution, 3), jnp.float32),)

    def stages(self, x: jax.Array) -> dict[str, jax.Array]:
        """Everything on the way.

        Args:
          x: normalised image [B, H, W, 3], see `normalize_image`.

        Returns:
          embedded [B, 1 + N, C] with positions, blocks [L, B, 1 + N, C], normed [B, 1 + N, C]
          after the last layer norm.
        """
        tokens, _ = self.embed(x)
        last, blocks = self.transformer(tokens)
        return {"embedded": tokens, "blocks": blocks, "normed": self.norm(last)}

    def class_token(self, x: jax.Array) -> jax.Array:
        """The normed class token [B, C] of normalised images, the feature that FDD compares."""
        return self.stages(x)["normed"][:, 0]

    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """Feature maps for a discriminator (StyleGAN-T, section 4.2 and its official code).

        Args:
          x: normalised image [B, H, W, 3], see `normalize_image`.

        Returns:
          One map [B, N, C] per tap, then that of the embedding: raw tokens, the class token added
          to every patch; no final norm.
        """
        stages = self.stages(x)
        read = [stages["blocks"][i] for i in self.taps] + [stages["embedded"]]
        return tuple(read_out(tokens) for tokens in read)
