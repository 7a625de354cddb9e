"""CLIP's two towers (Radford et al. 2021, arXiv 2103.00020; code openai/CLIP, MIT)."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.encoders.text import Text
from jaxt2i.encoders.vit import Embedding, Transformer, layer_norm, read_out
from jaxt2i.nn.remat import Policy
from jaxt2i.nn.resample import resize, resize_bytes

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class Preset(NamedTuple):
    """Sizes of a published pair of towers; the names are those of `ClipImage`, `text_*` aside."""

    joint: int
    text_width: int
    text_layers: int
    text_heads: int
    resolution: int
    patch: int
    width: int
    layers: int
    heads: int
    mlp_ratio: float = 4.0
    act: str = "quick_gelu"


PRESETS: dict[str, Preset] = {
    "vit_b32": Preset(512, 512, 12, 8, 224, 32, 768, 12, 12),
    "vit_b16": Preset(512, 512, 12, 8, 224, 16, 768, 12, 12),
    "vit_l14": Preset(768, 768, 12, 12, 224, 14, 1024, 24, 16),
    "vit_l14_336": Preset(768, 768, 12, 12, 336, 14, 1024, 24, 16),
    # open_clip's; mlp_ratio is the image tower's, the text tower's is 4.
    "vit_h14": Preset(1024, 1024, 24, 16, 224, 14, 1280, 32, 16, 4.0, "gelu"),
    "vit_g14": Preset(1024, 1024, 24, 16, 224, 14, 1408, 40, 16, 4.3637, "gelu"),
}


def normalize_image(x: jax.Array) -> jax.Array:
    """Pixels in [-1, 1], [..., 3], to what the image tower was trained on."""
    mean, std = np.float32(MEAN), np.float32(STD)
    # ((x + 1) / 2 - mean) / std as one fused multiply-add.
    return x * (0.5 / std).astype(x.dtype) + ((0.5 - mean) / std).astype(x.dtype)


def square(height: int, width: int, size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """How torchvision makes a square: Resize(size) of the shorter side, CenterCrop(size).

    Args:
      height: of the picture, pixels.
      width: of the picture, pixels.
      size: of the square.

    Returns:
      ((height, width) resized, (top, left) of the crop). The longer side is cut to whole pixels,
      offsets are rounded.
    """
    short = min(height, width)
    tall, wide = int(size * height / short), int(size * width / short)
    return (tall, wide), (round((tall - size) / 2), round((wide - size) / 2))


def _resize_crop(levels: jax.Array, size: int, floor: bool = False) -> jax.Array:
    shape, (top, left) = square(*levels.shape[1:3], size)
    if floor:
        top, left = ((n - size) // 2 for n in shape)
    pixels = resize_bytes(levels, shape, "bicubic")
    return pixels[:, top : top + size, left : left + size] / np.float32(255)


def _crop_resize(levels: jax.Array, size: int) -> jax.Array:
    short = min(levels.shape[1:3])
    top, left = ((n - short) // 2 for n in levels.shape[1:3])
    pixels = levels[:, top : top + short, left : left + short]
    return resize_bytes(pixels, (size, size), "bicubic") / np.float32(255)


def _pad_resize(levels: jax.Array, size: int) -> jax.Array:
    # On a square of the mean colour, as LLaVA's code cuts its levels to whole ones.
    height, width = levels.shape[1:3]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    ground = np.array([int(255 * x) for x in MEAN])
    square = jnp.broadcast_to(ground.astype(levels.dtype), (len(levels), side, side, 3))
    square = square.at[:, top : top + height, left : left + width].set(levels)
    return resize_bytes(square, (size, size), "bicubic") / np.float32(255)


def _longest(levels: jax.Array, size: int, antialias: bool) -> jax.Array:
    # Not rounded, and black where a picture is not square.
    height, width = levels.shape[1:3]
    scale = size / max(height, width)
    tall, wide = round(height * scale), round(width * scale)
    kernel = "bicubic_antialias" if antialias else "bicubic"
    x = resize(levels / np.float32(255), (tall, wide), kernel)
    top, left = (size - tall) // 2, (size - wide) // 2
    return jnp.pad(x, ((0, 0), (top, size - tall - top), (left, size - wide - left), (0, 0)))


def _galip(levels: jax.Array, size: int) -> jax.Array:
    # The picture in [0, 1] is taken for one in [-1, 1].
    return (resize(levels / np.float32(255), (size, size), "nearest") + 1) / 2


# How evaluation codes make pictures in [0, 1] of the image tower's size from levels
# [B, H, W, 3] 0..255; mean and deviation come behind.
INPUTS: dict[str, Callable[[jax.Array, int], jax.Array]] = {
    # OpenAI's: Pillow's bicubic on the shorter side, then a centre crop
    "pillow_bicubic_crop": _resize_crop,
    # transformers': the same, with the crop's offsets rounded down
    "hf_bicubic_crop": functools.partial(_resize_crop, floor=True),
    # CMMD's: a centre crop to a square, then Pillow's bicubic
    "pillow_crop_bicubic": _crop_resize,
    # VQAScore's: padded to a square with the mean colour, then Pillow's bicubic
    "pillow_bicubic_pad": _pad_resize,
    # StyleGAN-T's: PyTorch's bicubic without antialiasing, overshoot and all
    "torch_bicubic": lambda levels, size: resize(levels / np.float32(255), (size, size), "bicubic"),
    # HPSv2's: PyTorch's bicubic on the longer side, without antialiasing as in the torchvision of
    # its time, or with it, as in 0.17 and later
    "hpsv2": functools.partial(_longest, antialias=False),
    "hpsv2_antialias": functools.partial(_longest, antialias=True),
    # GALIP's
    "galip": _galip,
}


class Temperature(nn.Module):
    """The learned inverse temperature, kept as its logarithm.

    Attributes:
      start: initial temperature.
      most: the inverse is not larger.
    """

    start: float = 0.07
    most: float = math.inf

    def example(self) -> tuple[()]:
        """Inputs that `init` can be traced with: there are none."""
        return ()

    @nn.compact
    def __call__(self) -> jax.Array:
        """The inverse temperature, a number: what cosines are multiplied by."""
        scale = self.param("logit_scale", nn.initializers.constant(-math.log(self.start)), ())
        return jnp.exp(jnp.minimum(scale, math.log(self.most)))


class ClipText(nn.Module):
    """The text tower: tokens to a sentence vector and word vectors.

    Attributes:
      reads: kinds of tokenizers whose ids it may be trained on.
      vocab: token ids.
      length: positions, the most tokens a caption may have.
      width, layers, heads: of the transformer.
      joint: width of the space shared with images, S; 0: the tower has no projection into it, as
        that of Stable Diffusion.
      mlp_ratio: hidden width of the MLPs over `width`.
      act: "quick_gelu" (OpenAI) or "gelu".
      eot: id of the token the sentence is read at (its first occurrence); None reads at the
        largest id, which is OpenAI's rule.
      eps: of the layer norms.
      dtype: of activations.
      unroll, remat: see `Transformer`.
    """

    reads = ("clip", "pieces")
    vocab: int = 49408
    length: int = 77
    width: int = 512
    layers: int = 12
    heads: int = 8
    joint: int = 512
    mlp_ratio: float = 4.0
    act: str = "quick_gelu"
    eot: int | None = None
    eps: float = 1e-5
    dtype: jnp.dtype = jnp.float32
    unroll: int = 1
    remat: Policy = None

    def setup(self):
        normal = nn.initializers.normal
        self.tokens = nn.Embed(self.vocab, self.width, embedding_init=normal(0.02))
        self.positions = self.param("positions", normal(0.01), (self.length, self.width))
        self.transformer = Transformer(
            layers=self.layers,
            heads=self.heads,
            mlp=int(self.width * self.mlp_ratio),
            act=self.act,
            eps=self.eps,
            causal=True,
            dtype=self.dtype,
            unroll=self.unroll,
            remat=self.remat,
        )
        self.norm = layer_norm(self.eps, self.dtype)
        self.proj = self.joint and nn.Dense(
            self.joint,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=normal(self.width**-0.5),
        )

    def example(self) -> tuple[jax.ShapeDtypeStruct]:
        """Inputs that `init` can be traced with."""
        return (jax.ShapeDtypeStruct((1, self.length), jnp.int32),)

    def stages(self, tokens: jax.Array) -> dict[str, jax.Array]:
        """Everything on the way: embedded [B, T, E], blocks [L, B, T, E], words, pooled [B, E].

        Args:
          tokens: int [B, T], T <= `length`.
        """
        if tokens.shape[1] > self.length:
            raise ValueError(
                f"captions of {tokens.shape[1]} tokens, but this tower has {self.length} "
                "positions; shorten config.data.tokens"
            )
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        x = x.astype(self.dtype)
        last, blocks = self.transformer(x)
        words = self.norm(last)
        pooled = jnp.take_along_axis(words, self.end(tokens)[:, None, None], 1)[:, 0]
        return {"embedded": x, "blocks": blocks, "words": words, "pooled": pooled}

    def end(self, tokens: jax.Array) -> jax.Array:
        """Position [B] of the end-of-text token."""
        return jnp.argmax(tokens if self.eot is None else tokens == self.eot, -1)

    def __call__(self, tokens: jax.Array, mask: jax.Array | None = None) -> Text:
        """Encodes captions.

        Padding needs no attention mask: it stands behind the end-of-text token, where the causal
        mask hides it from every token that counts.

        Args:
          tokens: int [B, T].
          mask: bool [B, T], True where a token belongs to the caption; None makes it from the
            end-of-text token.

        Returns:
          `Text`: sentence = projected state at the end of the text [B, S], not normalised (that
          state itself [B, E] where there is no projection); words = all states after the last norm
          [B, T, E].
        """
        stages = self.stages(tokens)
        if mask is None:
            mask = jnp.arange(tokens.shape[1]) <= self.end(tokens)[:, None]
        pooled = stages["pooled"]
        sentence = self.proj(pooled) if self.proj else pooled
        return Text(sentence, stages["words"], mask.astype(bool))


class ClipImage(nn.Module):
    """The image tower, a vision transformer.

    Attributes:
      resolution: image size of the position table, pixels; others are interpolated.
      patch: size of a patch, pixels.
      width, layers, heads: of the transformer.
      joint: width of the space shared with text, S.
      mlp_ratio, act, eps, dtype, unroll, remat: as in `ClipText`.
    """

    resolution: int = 224
    patch: int = 32
    width: int = 768
    layers: int = 12
    heads: int = 12
    joint: int = 512
    mlp_ratio: float = 4.0
    act: str = "quick_gelu"
    eps: float = 1e-5
    dtype: jnp.dtype = jnp.float32
    unroll: int = 1
    remat: Policy = None

    def setup(self):
        self.embed = Embedding(
            self.resolution, self.patch, self.width, bias=False, resize="bicubic", dtype=self.dtype
        )
        self.pre_norm = layer_norm(self.eps, self.dtype)
        self.transformer = Transformer(
            layers=self.layers,
            heads=self.heads,
            mlp=int(self.width * self.mlp_ratio),
            act=self.act,
            eps=self.eps,
            dtype=self.dtype,
            unroll=self.unroll,
            remat=self.remat,
        )
        self.post_norm = layer_norm(self.eps, self.dtype)
        self.proj = nn.Dense(
            self.joint,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=nn.initializers.normal(self.width**-0.5),
        )

    def example(self) -> tuple[jax.ShapeDtypeStruct]:
        """Inputs that `init` can be traced with."""
        return (jax.ShapeDtypeStruct((1, self.resolution, self.resolution, 3), jnp.float32),)

    def stages(self, x: jax.Array) -> dict[str, jax.Array]:
        """Everything on the way.

        Args:
          x: normalised image [B, H, W, 3], see `normalize_image`.

        Returns:
          patches [B, h, w, C] before positions, embedded [B, 1 + N, C] after the first norm,
          blocks [L, B, 1 + N, C], pooled [B, C].
        """
        tokens, patches = self.embed(x)
        tokens = self.pre_norm(tokens)
        last, blocks = self.transformer(tokens)
        pooled = self.post_norm(last[:, 0])
        return {"patches": patches, "embedded": tokens, "blocks": blocks, "pooled": pooled}

    def prompted(self, grid: jax.Array, prompts: jax.Array, first: int) -> jax.Array:
        """The tower's blocks on a grid of patches that did not come from an image.

        Args:
          grid: [B, h, w, C], in place of the projected patches.
          prompts: [B, P, C]: block first + k (0-based) reads prompt k as one more token, which
            has no position and is dropped behind the block.
          first: the first block that reads one.

        Returns:
          [B, h, w, C], the patches behind the last block, before any norm.

        Source: Tao et al. 2023 (GALIP, arXiv 2301.12959) section 3.3; official CLIP_Mapper.
        """
        tokens = self.pre_norm(self.embed.place(grid))
        count = prompts.shape[1]
        around = (first, self.layers - first - count)
        rows = jnp.pad(jnp.moveaxis(prompts, 1, 0), (around, (0, 0), (0, 0)))
        reads = (jnp.arange(self.layers) >= first) & (jnp.arange(self.layers) < first + count)
        last, _ = self.transformer(tokens, rows, reads)
        return last[:, 1:].reshape(grid.shape)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Encodes images.

        Args:
          x: normalised image [B, H, W, 3], see `normalize_image`.

        Returns:
          (embedding [B, S], not normalised; block outputs [L, B, 1 + N, C], class token first).
          Under jit, block outputs that nobody reads are not kept.
        """
        stages = self.stages(x)
        return self.proj(stages["pooled"]), stages["blocks"]


class ClipFeatures(nn.Module):
    """The image tower as a feature network for a discriminator, read as `DinoFeatures` is.

    Attributes:
      image: the tower.
      taps: states that are read: 0 is what the first block is given, k what block k returns.
    """

    image: ClipImage
    taps: tuple[int, ...]

    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """One map [B, N, C] per tap of a normalised image [B, H, W, 3]: patches + class token."""
        stages = self.image.stages(x)
        states = (stages["blocks"][k - 1] if k else stages["embedded"] for k in self.taps)
        return tuple(read_out(tokens) for tokens in states)


def towers(size: Preset, dtype: jnp.dtype = jnp.float32) -> tuple[ClipText, ClipImage]:
    """Both towers of a preset."""
    common = {"joint": size.joint, "act": size.act, "dtype": dtype}
    text = ClipText(width=size.text_width, layers=size.text_layers, heads=size.text_heads, **common)
    image = ClipImage(
        resolution=size.resolution,
        patch=size.patch,
        width=size.width,
        layers=size.layers,
        heads=size.heads,
        mlp_ratio=size.mlp_ratio,
        **common,
    )
    return text, image
