"""Inception-v3 (Szegedy et al. 2016, arXiv 1512.00567): DAMSM's trunk, and the eye of IS and FID.

The network is data: `BLOCKS` lists every block's branches, an interpreter below plays them, and
the names are those of the published state dicts. What is called Inception-v3 differs in its pools,
its norms and its head (`PRESETS`), and evaluation codes differ in what they feed it (`INPUTS`).
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.nn.norms import BatchNorm
from jaxt2i.nn.pooling import average_pool, max_pool
from jaxt2i.nn.precision import exact
from jaxt2i.nn.resample import resize, resize_bytes


class Unit(NamedTuple):
    """A convolution without bias, batch norm, ReLU.

    Attributes:
      name: the official one.
      features: output channels.
      size: of the window, height and width.
      stride: 1 pads with zeros so that the size stays, 2 does not pad.
    """

    name: str
    features: int
    size: tuple[int, int]
    stride: int = 1


def unit(name: str, features: int, size: int, stride: int = 1) -> Unit:
    """A unit with a square window."""
    return Unit(name, features, (size, size), stride)


# What else a branch is made of: pools, and a fork into units whose outputs are joined.
AVERAGE, MAX = "average", "max"
Fork = tuple
Branch = tuple[Unit | str | Fork, ...]


def grid35(pool: int) -> tuple[Branch, ...]:
    """Mixed_5b to 5d."""
    return (
        (unit("branch1x1", 64, 1),),
        (unit("branch5x5_1", 48, 1), unit("branch5x5_2", 64, 5)),
        (
            unit("branch3x3dbl_1", 64, 1),
            unit("branch3x3dbl_2", 96, 3),
            unit("branch3x3dbl_3", 96, 3),
        ),
        (AVERAGE, unit("branch_pool", pool, 1)),
    )


def grid17(hidden: int) -> tuple[Branch, ...]:
    """Mixed_6b to 6e."""
    row, column = (1, 7), (7, 1)
    return (
        (unit("branch1x1", 192, 1),),
        (
            unit("branch7x7_1", hidden, 1),
            Unit("branch7x7_2", hidden, row),
            Unit("branch7x7_3", 192, column),
        ),
        (
            unit("branch7x7dbl_1", hidden, 1),
            Unit("branch7x7dbl_2", hidden, column),
            Unit("branch7x7dbl_3", hidden, row),
            Unit("branch7x7dbl_4", hidden, column),
            Unit("branch7x7dbl_5", 192, row),
        ),
        (AVERAGE, unit("branch_pool", 192, 1)),
    )


def grid8() -> tuple[Branch, ...]:
    """Mixed_7b and 7c."""
    row, column = (1, 3), (3, 1)
    return (
        (unit("branch1x1", 320, 1),),
        (
            unit("branch3x3_1", 384, 1),
            (Unit("branch3x3_2a", 384, row), Unit("branch3x3_2b", 384, column)),
        ),
        (
            unit("branch3x3dbl_1", 448, 1),
            unit("branch3x3dbl_2", 384, 3),
            (Unit("branch3x3dbl_3a", 384, row), Unit("branch3x3dbl_3b", 384, column)),
        ),
        (AVERAGE, unit("branch_pool", 192, 1)),
    )


BLOCKS: dict[str, tuple[Branch, ...]] = {
    "Mixed_5b": grid35(32),
    "Mixed_5c": grid35(64),
    "Mixed_5d": grid35(64),
    "Mixed_6a": (
        (unit("branch3x3", 384, 3, 2),),
        (
            unit("branch3x3dbl_1", 64, 1),
            unit("branch3x3dbl_2", 96, 3),
            unit("branch3x3dbl_3", 96, 3, 2),
        ),
        (MAX,),
    ),
    "Mixed_6b": grid17(128),
    "Mixed_6c": grid17(160),
    "Mixed_6d": grid17(160),
    "Mixed_6e": grid17(192),
    "Mixed_7a": (
        (unit("branch3x3_1", 192, 1), unit("branch3x3_2", 320, 3, 2)),
        (
            unit("branch7x7x3_1", 192, 1),
            Unit("branch7x7x3_2", 192, (1, 7)),
            Unit("branch7x7x3_3", 192, (7, 1)),
            unit("branch7x7x3_4", 192, 3, 2),
        ),
        (MAX,),
    ),
    "Mixed_7b": grid8(),
    "Mixed_7c": grid8(),
}
STEM = (
    unit("Conv2d_1a_3x3", 32, 3, 2),
    unit("Conv2d_2a_3x3", 32, 3),
    unit("Conv2d_2b_3x3", 64, 3),
    MAX,
    unit("Conv2d_3b_1x1", 80, 1),
    unit("Conv2d_4a_3x3", 192, 3),
    MAX,
)
UNPADDED = ("Conv2d_2a_3x3", "Conv2d_4a_3x3")


def unit_names() -> list[str]:
    """Paths of all units, such as "Mixed_5b/branch1x1"."""
    out = [step.name for step in STEM if isinstance(step, Unit)]
    for block, branches in BLOCKS.items():
        for branch in branches:
            for step in branch:
                parts = (step,) if isinstance(step, Unit) else step
                out += [f"{block}/{part.name}" for part in parts if isinstance(part, Unit)]
    return out


class ConvNorm(nn.Module):
    """One `Unit`.

    Attributes:
      unit: what it is.
      padded: keep the size; a stride of 2 never does.
      scaled: the norm learns a scale besides its bias; before a ReLU and another convolution it
        needs none, and TF-slim's and Keras' have none.
      dtype: compute dtype.
    """

    unit: Unit
    padded: bool = True
    scaled: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, C] to [B, H', W', features]; `train` takes the batch's statistics."""
        padding = "SAME" if self.padded and self.unit.stride == 1 else "VALID"
        conv = nn.Conv(
            self.unit.features,
            self.unit.size,
            self.unit.stride,
            padding=padding,
            use_bias=False,
            dtype=self.dtype,
            name="conv",
        )
        x = BatchNorm(eps=1e-3, affine=self.scaled, name="bn")(conv(x), train=train)
        if not self.scaled:
            bias = self.param("bias", nn.initializers.zeros, (self.unit.features,))
            x = x + bias.astype(x.dtype)
        return jax.nn.relu(x)


# Pools over 3 x 3 pixels that keep the size.
POOLS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "padded": lambda x: average_pool(x, padded=True),
    "average": lambda x: average_pool(x, padded=False),
    "max": lambda x: nn.max_pool(x, (3, 3), padding="SAME"),
}


class Mixed(nn.Module):
    """Branches side by side, their outputs joined along the channels.

    Attributes:
      branches: an entry of `BLOCKS`.
      pool: what `AVERAGE` stands for: "padded" counts the zeros at the border, "average" does not,
        "max" takes the maximum.
      scaled: see `ConvNorm`.
      dtype: compute dtype.
    """

    branches: tuple[Branch, ...]
    pool: str = "padded"
    scaled: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, C] to [B, H', W', C']."""

        def conv(step: Unit, h: jax.Array) -> jax.Array:
            module = ConvNorm(step, scaled=self.scaled, dtype=self.dtype, name=step.name)
            return module(h, train=train)

        def play(step, h: jax.Array) -> jax.Array:
            if step == MAX:
                return max_pool(h)
            if step == AVERAGE:
                return POOLS[self.pool](h)
            if isinstance(step, Unit):
                return conv(step, h)
            return jnp.concatenate([conv(part, h) for part in step], -1)

        out = []
        for branch in self.branches:
            h = x
            for step in branch:
                h = play(step, h)
            out.append(h)
        return jnp.concatenate(out, -1)


class InceptionV3(nn.Module):
    """Pictures of 299 pixels to the maps of Mixed_6e and Mixed_7c.

    Attributes:
      dtype: compute dtype.
      pool: of the blocks with branches, see `Mixed`; "padded" is torchvision's.
      last_pool: the same in the last block.
      scaled: see `ConvNorm`.
    """

    dtype: jnp.dtype = jnp.float32
    pool: str = "padded"
    last_pool: str = "padded"
    scaled: bool = True
    resolution = 299

    @nn.compact
    def stages(self, x: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        """The maps at four depths, by their channels; sizes are those of 299 pixels.

        Args:
          x: [B, 299, 299, 3] in the range that the weights were trained with.
          train: normalise by the batch's statistics and move the running ones.

        Returns:
          "64" [B, 73, 73, 64], "192" [B, 35, 35, 192], "768" [B, 17, 17, 768] (Mixed_6e),
          "2048" [B, 8, 8, 2048] (Mixed_7c).
        """
        x, out = x.astype(self.dtype), {}
        for step in STEM:
            if step == MAX:
                x = max_pool(x)
                out[str(x.shape[-1])] = x
            else:
                padded = step.name not in UNPADDED
                conv = ConvNorm(step, padded, self.scaled, self.dtype, name=step.name)
                x = conv(x, train=train)
        for name, branches in BLOCKS.items():
            pool = self.last_pool if name == "Mixed_7c" else self.pool
            x = Mixed(branches, pool, self.scaled, self.dtype, name=name)(x, train=train)
            if name in ("Mixed_6e", "Mixed_7c"):
                out[str(x.shape[-1])] = x
        return out

    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """[B, 299, 299, 3] to ([B, 17, 17, 768], [B, 8, 8, 2048]); see `stages`."""
        out = self.stages(x, train=train)
        return out["768"], out["2048"]


# --- The eye of evaluation -----------------------------------------------------------------------

# The pools of Google's own code, in TF-slim and in Keras.
TENSORFLOW = {"pool": "average", "last_pool": "average", "scaled": False}
PRESETS: dict[str, dict] = {
    # TensorFlow's of 2015-12-05, which IS, FID and KID are defined by; class 0 and those from 1001
    # on are unused.
    "2015": {"classes": 1008, "pool": "average", "last_pool": "max", "scaled": True},
    # ImageNet's as torchvision has it, with which DM-GAN, DF-GAN and GALIP measure.
    "torchvision": {"classes": 1000, "pool": "padded", "last_pool": "padded", "scaled": True},
    # StackGAN's fine-tuned ones: TF-slim's of 2016, a background that is never used, then the
    # classes of the test split. The Inception Scores of CUB and Oxford-102 are theirs.
    "slim_cub": {"classes": 1 + 50, **TENSORFLOW},
    "slim_oxford102": {"classes": 1 + 20, **TENSORFLOW},
    # ImageNet's as Keras has it, with which XMC-GAN measures.
    "keras": {"classes": 1000, **TENSORFLOW},
}


class InceptionFeatures(nn.Module):
    """Prepared pictures to the features that scores compare; float32, exact products.

    Attributes:
      classes: of the head.
      pool, last_pool, scaled: see `InceptionV3`.
    """

    classes: int = 1008
    pool: str = "average"
    last_pool: str = "max"
    scaled: bool = True
    resolution = InceptionV3.resolution

    def setup(self):
        self.trunk = InceptionV3(pool=self.pool, last_pool=self.last_pool, scaled=self.scaled)
        self.fc = nn.Dense(self.classes, use_bias=False)
        self.fc_bias = self.param("fc_bias", nn.initializers.zeros, (self.classes,))

    def example(self) -> tuple[jax.ShapeDtypeStruct]:
        """Inputs that `init` can be traced with."""
        return (jax.ShapeDtypeStruct((1, self.resolution, self.resolution, 3), jnp.float32),)

    @exact
    def stages(self, x: jax.Array) -> dict[str, jax.Array]:
        """The maps at four depths, see `InceptionV3.stages`."""
        return self.trunk.stages(x)

    @exact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        """All features of pictures.

        Args:
          x: [B, 299, 299, 3], what a member of `INPUTS` made.

        Returns:
          "64" [B, 64], "192", "768" and "2048" (pool3): means of the maps; "logits_unbiased"
          [B, classes], which the Inception score of the 2015 graph reads; "logits".
        """
        out = {name: maps.mean((1, 2)) for name, maps in self.trunk.stages(x).items()}
        out["logits_unbiased"] = self.fc(out["2048"])
        return out | {"logits": out["logits_unbiased"] + self.fc_bias}


@dataclasses.dataclass(frozen=True)
class Input:
    """How an evaluation code feeds pictures to the network.

    Attributes:
      resize: [B, H, W, 3] to [B, 299, 299, 3].
      scale: the result of that to the network's range.
    """

    resize: Callable[[jax.Array], jax.Array]
    scale: Callable[[jax.Array], jax.Array]

    def __call__(self, image: jax.Array) -> jax.Array:
        """[B, H, W, 3] to the network's input [B, 299, 299, 3], float32."""
        return self.scale(self.resize(image))


SIZE = (InceptionV3.resolution,) * 2
# ImageNet's.
MEAN = np.float32((0.485, 0.456, 0.406))
STD = np.float32((0.229, 0.224, 0.225))


def levels(x: jax.Array) -> jax.Array:
    """Levels 0..255 to [-1, 0.992], as the 2015 graph does it."""
    return (x.astype(jnp.float32) - 128) / 128


def misread(x: jax.Array) -> jax.Array:
    """[0, 1] to what DM-GAN's wrapper feeds: ImageNet's normalisation undone where none was done.

    Source: eval/FID/inception.py of MinfengZhu/DM-GAN, which DF-GAN and GALIP took over.
    """
    return x * (STD / 0.5) + (MEAN - 0.5) / 0.5


def fractions(levels: jax.Array) -> jax.Array:
    """Levels 0..255 to [0, 1]."""
    return levels / np.float32(255)


# All take levels 0..255: bytes, or floats where nothing was rounded.
INPUTS: dict[str, Input] = {
    # torch-fidelity, and the original TensorFlow code
    "tf1": Input(lambda x: resize(x, SIZE, "tf1_bilinear"), levels),
    # StyleGAN2 and its successors
    "stylegan": Input(lambda x: resize(x, SIZE, "nvidia_bilinear"), levels),
    "pytorch_fid": Input(lambda x: resize(fractions(x), SIZE, "bilinear"), lambda x: 2 * x - 1),
    # Clean-FID: Pillow's float pictures, so nothing is rounded
    "clean": Input(lambda x: jnp.clip(resize(x, SIZE, "bicubic_pillow"), 0, 255), levels),
    # Inception scores: DM-GAN's script for COCO, and for networks tuned to birds and flowers
    "pillow_bilinear": Input(lambda x: resize_bytes(x, SIZE, "bilinear"), levels),
    "pillow_bilinear_127.5": Input(
        lambda x: resize_bytes(x, SIZE, "bilinear"), lambda x: x / np.float32(127.5) - 1
    ),
    # Files, as DM-GAN's eval/FID/fid_score.py reads them
    "dmgan": Input(lambda x: fractions(resize_bytes(x, SIZE, "bilinear")), misread),
    # What a generator draws, as GALIP and DF-GAN measure it during training: never rounded
    "galip": Input(lambda x: resize(fractions(x), SIZE, "bilinear"), misread),
    # XMC-GAN's, never rounded either: jax.image.resize, then the range
    "jax_bilinear_antialias": Input(
        lambda x: resize(fractions(x), SIZE, "bilinear_antialias"),
        lambda x: jnp.clip(2 * x - 1, -1, 1),
    ),
}
