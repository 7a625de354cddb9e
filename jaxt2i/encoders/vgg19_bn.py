"""VGG19 with batch norms, as torchvision has it, for perceptual losses: what all its layers see."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.encoders.trunks import MEAN, STD
from jaxt2i.nn.linear import Conv, Linear
from jaxt2i.nn.norms import BatchNorm
from jaxt2i.nn.resample import apply_matrices, corner_matrix

# Convolutions behind which the features are halved.
POOLED = (1, 3, 7, 11, 15)
WIDTHS = (64, 64, 128, 128, *(256,) * 4, *(512,) * 8)


class Vgg19Bn(nn.Module):
    """Its 16 convolutions, two hidden layers and logits; in evaluation mode always.

    Attributes:
      widths: channels of every convolution.
      hidden: width of both hidden layers.
      classes: logits.
    """

    widths: tuple[int, ...] = WIDTHS
    hidden: int = 4096
    classes: int = 1000
    resolution = 224

    def example(self) -> tuple[jax.ShapeDtypeStruct]:
        """Inputs that `init` can be traced with."""
        return (jax.ShapeDtypeStruct((1, self.resolution, self.resolution, 3), jnp.float32),)

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """What `seen_by_vgg19` made to 19 arrays: 16 maps and two vectors behind ReLU, logits."""
        out = []
        for i, width in enumerate(self.widths):
            x = Conv(width, name=f"conv{i}")(x)
            x = jax.nn.relu(BatchNorm(name=f"norm{i}")(x))
            out.append(x)
            if i in POOLED:
                x = nn.max_pool(x, (2, 2), (2, 2))
        # The published layer reads channel by channel.
        x = jnp.moveaxis(x, -1, 1).reshape(len(x), -1)
        for i in range(2):
            x = jax.nn.relu(Linear(self.hidden, name=f"fc{i}")(x))
            out.append(x)
        return (*out, Linear(self.classes, name="fc2")(x))


def seen_by_vgg19(image: jax.Array) -> jax.Array:
    """Pictures [B, H, W, 1 or 3] in [0, 1], enlarged corner on corner, with ImageNet's statistics.

    Returns:
      [B, 224, 224, 3].
    """
    rows, cols = (corner_matrix(Vgg19Bn.resolution, n) for n in image.shape[1:3])
    return (apply_matrices(image.astype(jnp.float32), rows, cols) - MEAN) / STD
