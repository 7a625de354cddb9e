"""Inception-v3 (Szegedy et al. 2016, arXiv 1512.00567) as torchvision builds it, without its head.

The network is data: `BLOCKS` lists every block's branches, an interpreter below plays them, and
the names are those of the published state dicts.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.nn.norms import BatchNorm


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
      dtype: compute dtype.
    """

    unit: Unit
    padded: bool = True
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
        return jax.nn.relu(BatchNorm(eps=1e-3, name="bn")(conv(x), train=train))


class Mixed(nn.Module):
    """Branches side by side, their outputs joined along the channels.

    Attributes:
      branches: an entry of `BLOCKS`.
      dtype: compute dtype.
    """

    branches: tuple[Branch, ...]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, C] to [B, H', W', C']."""

        def conv(step: Unit, h: jax.Array) -> jax.Array:
            return ConvNorm(step, dtype=self.dtype, name=step.name)(h, train=train)

        def play(step, h: jax.Array) -> jax.Array:
            if step == MAX:
                return nn.max_pool(h, (3, 3), (2, 2))
            if step == AVERAGE:  # zeros at the border count
                return nn.avg_pool(h, (3, 3), padding="SAME")
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
    """

    dtype: jnp.dtype = jnp.float32
    resolution = 299

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """[B, 299, 299, 3] to ([B, 17, 17, 768], [B, 8, 8, 2048]); other sizes give other grids.

        Args:
          x: pictures in the range that the weights were trained with.
          train: normalise by the batch's statistics and move the running ones.
        """
        x = x.astype(self.dtype)
        for step in STEM:
            if step == MAX:
                x = nn.max_pool(x, (3, 3), (2, 2))
            else:
                padded = step.name not in UNPADDED
                x = ConvNorm(step, padded, self.dtype, name=step.name)(x, train=train)
        middle = x
        for name, branches in BLOCKS.items():
            x = Mixed(branches, self.dtype, name=name)(x, train=train)
            middle = x if name == "Mixed_6e" else middle
        return middle, x
