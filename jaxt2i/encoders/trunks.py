"""The feature parts of three ImageNet classifiers under torchvision's numbering.

VGG16 (Simonyan & Zisserman 2015, arXiv 1409.1556), AlexNet as torchvision has it (Krizhevsky 2014,
arXiv 1404.5997) and SqueezeNet 1.1 (Iandola et al. 2016, arXiv 1602.07360). LPIPS reads all of
them in the middle; improved precision and recall reads VGG16 behind its second linear layer.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.nn.precision import exact
from jaxt2i.nn.resample import resize


class Conv(NamedTuple):
    """A convolution with a bias, and ReLU.

    Attributes:
      index: its place in torchvision's `features`, which names it.
      features: output channels.
      size: of the window.
      stride: of the window.
      padding: zeros on every side.
      tap: whether LPIPS reads the result.
    """

    index: int
    features: int
    size: int = 3
    stride: int = 1
    padding: int = 1
    tap: bool = False


class Fire(NamedTuple):
    """SqueezeNet's block: 1 x 1 to few channels, then 1 x 1 and 3 x 3 side by side; ReLU each.

    Attributes:
      index: its place in torchvision's `features`.
      squeeze: channels between.
      expand: channels of each side.
      tap: whether LPIPS reads the result.
    """

    index: int
    squeeze: int
    expand: int
    tap: bool = False


class Pool(NamedTuple):
    """The maximum of windows of `size` pixels, every two pixels.

    Attributes:
      size: of the window.
      ceil: let the last window hang over the border where pixels would be left over.
    """

    size: int = 3
    ceil: bool = False


Step = Conv | Fire | Pool
CEIL = Pool(ceil=True)
NETS: dict[str, tuple[Step, ...]] = {
    "vgg": (
        *(Conv(0, 64), Conv(2, 64, tap=True), Pool(2)),
        *(Conv(5, 128), Conv(7, 128, tap=True), Pool(2)),
        *(Conv(10, 256), Conv(12, 256), Conv(14, 256, tap=True), Pool(2)),
        *(Conv(17, 512), Conv(19, 512), Conv(21, 512, tap=True), Pool(2)),
        *(Conv(24, 512), Conv(26, 512), Conv(28, 512, tap=True), Pool(2)),
    ),
    "alex": (
        *(Conv(0, 64, 11, 4, 2, tap=True), Pool()),
        *(Conv(3, 192, 5, 1, 2, tap=True), Pool()),
        *(Conv(6, 384, tap=True), Conv(8, 256, tap=True), Conv(10, 256, tap=True), Pool()),
    ),
    "squeeze": (
        *(Conv(0, 64, 3, 2, 0, tap=True), CEIL, Fire(3, 16, 64), Fire(4, 16, 64, tap=True)),
        *(CEIL, Fire(6, 32, 128), Fire(7, 32, 128, tap=True)),
        *(CEIL, Fire(9, 48, 192, tap=True), Fire(10, 48, 192, tap=True)),
        *(Fire(11, 64, 256, tap=True), Fire(12, 64, 256, tap=True)),
    ),
}


def steps(net: str) -> tuple[Step, ...]:
    """The entry of `NETS`; `ValueError` names the known ones."""
    if net not in NETS:
        raise ValueError(f"net={net!r} is unknown; choose from {', '.join(NETS)}")
    return NETS[net]


def tap_channels(net: str) -> tuple[int, ...]:
    """Channels of the maps that LPIPS reads."""
    taps = (step for step in steps(net) if not isinstance(step, Pool) and step.tap)
    return tuple(s.features if isinstance(s, Conv) else 2 * s.expand for s in taps)


def _pool(x: jax.Array, step: Pool) -> jax.Array:
    over = [(0, -(n - step.size) % 2 if step.ceil else 0) for n in x.shape[1:3]]
    return nn.max_pool(x, (step.size, step.size), (2, 2), padding=over)


class Trunk(nn.Module):
    """The convolutions of a classifier.

    Attributes:
      net: key of `NETS`.
    """

    net: str = "vgg"

    def example(self) -> tuple[jax.ShapeDtypeStruct]:
        """Inputs that `init` can be traced with."""
        return (jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32),)

    @exact
    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """Normalised pictures [B, H, W, 3] to (the maps that LPIPS reads, the last map).

        The maps are [B, h, w, C] with the channels of `tap_channels`, behind ReLU; the last map
        is behind the last pool, where the net ends in one.
        """

        def conv(name: str, x: jax.Array, features: int, size: int, stride=1, padding=0):
            sides = ((padding, padding),) * 2
            return jax.nn.relu(nn.Conv(features, (size, size), stride, sides, name=name)(x))

        taps = []
        for step in steps(self.net):
            if isinstance(step, Pool):
                x = _pool(x, step)
                continue
            if isinstance(step, Conv):
                x = conv(
                    f"conv{step.index}", x, step.features, step.size, step.stride, step.padding
                )
            else:
                at = f"fire{step.index}"
                x = conv(f"{at}_squeeze", x, step.squeeze, 1)
                sides = [
                    conv(f"{at}_expand{k}x{k}", x, step.expand, k, padding=k // 2) for k in (1, 3)
                ]
                x = jnp.concatenate(sides, -1)
            if step.tap:
                taps.append(x)
        return tuple(taps), x


# ImageNet's.
MEAN = np.float32((0.485, 0.456, 0.406))
STD = np.float32((0.229, 0.224, 0.225))


class Vgg16(nn.Module):
    """VGG16 up to its second linear layer; float32, exact products."""

    resolution = 224

    def setup(self):
        self.trunk = Trunk("vgg")
        self.fc1, self.fc2 = nn.Dense(4096), nn.Dense(4096)

    def example(self) -> tuple[jax.ShapeDtypeStruct]:
        """Inputs that `init` can be traced with."""
        return (jax.ShapeDtypeStruct((1, self.resolution, self.resolution, 3), jnp.float32),)

    @exact
    def __call__(self, x: jax.Array) -> jax.Array:
        """What `vgg_input` made, [B, 224, 224, 3], to features [B, 4096] behind ReLU (fc2)."""
        _, last = self.trunk(x)
        # The published layer reads channel by channel.
        flat = jnp.moveaxis(last, -1, 1).reshape(len(last), -1)
        return jax.nn.relu(self.fc2(jax.nn.relu(self.fc1(flat))))


# How evaluation codes resize for VGG16; the range is ImageNet's in all of them.
VGG_INPUTS: dict[str, str] = {
    "tf1_224_imagenet": "tf1_bilinear",  # torch-fidelity
    # StyleGAN's metrics, as a port of NVIDIA's program reads it (genforce's, not NVIDIA's own text)
    "stylegan_224": "nvidia_bilinear",
}


def vgg_input(image: jax.Array, name: str = "tf1_224_imagenet") -> jax.Array:
    """Pictures as evaluation codes feed them to VGG16.

    Args:
      image: levels 0..255, [B, H, W, 3].
      name: key of `VGG_INPUTS`.

    Returns:
      [B, 224, 224, 3] float32: resized, ImageNet's mean and deviation.
    """
    return (resize(image, (Vgg16.resolution,) * 2, VGG_INPUTS[name]) / 255 - MEAN) / STD
