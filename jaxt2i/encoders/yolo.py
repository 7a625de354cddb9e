"""YOLOv3 (Redmon and Farhadi 2018, arXiv 1804.02767): what objects are where in a picture.

The detector that Semantic Object Accuracy counts with. The network is data: `BLOCKS` are the 107
blocks of darknet's yolov3.cfg under their numbers, which routes and published names use. `decode`
turns the three heads into boxes, `candidates` and `suppress` boxes into detections, as
SOA/util.py of tohinz/semantic-object-accuracy-for-generative-text-to-image-synthesis does. Its
pictures are squares of 256 pixels, resized by Pillow's bilinear filter without keeping the aspect.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.nn.norms import BatchNorm
from jaxt2i.nn.precision import exact
from jaxt2i.nn.resample import resize_bytes

# Pixels of a picture's side; the network takes any multiple of 32.
RESOLUTION = 256
# An object is seen from this objectness on; boxes of one class that share more than this of their
# union are of the same object.
LEAST, SAME = 0.5, 0.4
# Widths and heights in pixels of the network's input.
ANCHORS = (
    *((10, 13), (16, 30), (33, 23), (30, 61), (62, 45)),
    *((59, 119), (116, 90), (156, 198), (373, 326)),
)
# COCO's classes in darknet's words and order.
CLASSES = (
    *("person", "bicycle", "car", "motorbike", "aeroplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat"),
    *("dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack"),
    *("umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball"),
    *("kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket"),
    *("bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair"),
    *("sofa", "pottedplant", "bed", "diningtable", "toilet", "tvmonitor", "laptop", "mouse"),
    *("remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink"),
    *("refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier"),
    "toothbrush",
)


class Conv(NamedTuple):
    """A convolution that keeps the size, or halves it.

    Attributes:
      features: output channels; 0 for a head, which has (5 + classes) for each of its anchors.
      size: of the window, pixels.
      stride: 1 or 2.
    """

    features: int
    size: int
    stride: int = 1


class Route(NamedTuple):
    """The outputs of earlier blocks, joined along the channels.

    Attributes:
      blocks: their numbers.
    """

    blocks: tuple[int, ...]


class Yolo(NamedTuple):
    """Reads the head before it.

    Attributes:
      anchors: numbers of its anchors.
      stride: pixels of the input a cell.
    """

    anchors: tuple[int, ...]
    stride: int


# A block that adds the outputs of the block before and of the third before; one that doubles the
# size by repeating pixels.
SHORTCUT, UPSAMPLE = "shortcut", "upsample"
HEAD = Conv(0, 1)


def _blocks() -> tuple[Conv | Route | Yolo | str, ...]:
    """The blocks of yolov3.cfg, without the options that only training reads."""
    out: list = [Conv(32, 3)]
    for width, residuals in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        out += [Conv(width, 3, 2), *(Conv(width // 2, 1), Conv(width, 3), SHORTCUT) * residuals]

    def pyramid(width: int, anchors: tuple[int, ...], stride: int) -> None:
        """Three pairs of convolutions, the head and its reader."""
        out.extend((*(Conv(width, 1), Conv(2 * width, 3)) * 3, HEAD, Yolo(anchors, stride)))

    def finer(width: int, skip: int) -> None:
        """Back before the last head, and to the size of an earlier block."""
        last = len(out)
        out.extend((Route((last - 4,)), Conv(width, 1), UPSAMPLE, Route((last + 2, skip))))

    pyramid(512, (6, 7, 8), 32)
    finer(256, 61)
    pyramid(256, (3, 4, 5), 16)
    finer(128, 36)
    pyramid(128, (0, 1, 2), 8)
    return tuple(out)


BLOCKS = _blocks()


class ConvBlock(nn.Module):
    """A convolution without bias, batch norm, leaky ReLU; a head has a bias and nothing else.

    Attributes:
      conv: what it is, its features as they are.
      head: whether it is one.
    """

    conv: Conv
    head: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, H / stride, W / stride, features]."""
        size, stride, border = self.conv.size, self.conv.stride, (self.conv.size - 1) // 2
        x = nn.Conv(
            self.conv.features,
            (size, size),
            (stride, stride),
            padding=((border, border), (border, border)),
            use_bias=self.head,
            name="conv",
        )(x)
        if self.head:
            return x
        return nn.leaky_relu(BatchNorm(name="bn")(x), 0.1)


class YoloV3(nn.Module):
    """Pictures in [0, 1] to what every cell says; float32, exact products.

    Attributes:
      classes: that an object may have.
      thin: every width but the heads' is divided by it; 1 is the published network.
    """

    classes: int = len(CLASSES)
    thin: int = 1
    resolution = RESOLUTION

    def example(self) -> tuple[jax.ShapeDtypeStruct]:
        """Inputs that `init` can be traced with; any multiple of 32 gives the same shapes."""
        return (jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32),)

    @exact
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, 3], H and W multiples of 32, to the predictions [B, N, 5 + classes].

        Rows are the cells of stride 32, then 16, then 8, row by row, three anchors each; columns
        as `decode` has them.
        """
        seen: list[jax.Array] = []
        found = []
        for number, block in enumerate(BLOCKS):
            if isinstance(block, Conv):
                head = block == HEAD
                features = 3 * (5 + self.classes) if head else block.features // self.thin
                conv = block._replace(features=features)
                x = ConvBlock(conv, head, name=f"block{number}")(x)
            elif isinstance(block, Route):
                x = jnp.concatenate([seen[n] for n in block.blocks], -1)
            elif isinstance(block, Yolo):
                found.append(decode(x, [ANCHORS[n] for n in block.anchors], block.stride))
            elif block == SHORTCUT:
                x = seen[-1] + seen[-3]
            else:
                x = x.repeat(2, 1).repeat(2, 2)
            seen.append(x)
        return jnp.concatenate(found, 1)


def decode(x: jax.Array, anchors: list[tuple[int, int]], stride: int) -> jax.Array:
    """A head's map to boxes.

    Args:
      x: [B, H, W, A * (5 + classes)].
      anchors: A widths and heights, pixels.
      stride: pixels a cell.

    Returns:
      [B, H * W * A, 5 + classes]: centre x, y, width, height in pixels, objectness, and the
      probability of every class.
    """
    batch, height, width, _ = x.shape
    x = x.reshape(batch, height, width, len(anchors), -1)
    row, column = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    corner = jnp.stack([column, row], -1)[:, :, None].astype(x.dtype)
    centre = (jax.nn.sigmoid(x[..., :2]) + corner) * stride
    size = jnp.exp(x[..., 2:4]) * jnp.asarray(anchors, x.dtype)
    out = jnp.concatenate([centre, size, jax.nn.sigmoid(x[..., 4:])], -1)
    return out.reshape(batch, -1, out.shape[-1])


def pixels(levels: jax.Array, size: int = RESOLUTION) -> jax.Array:
    """Levels [B, H, W, 3] 0..255 to the input [B, size, size, 3]: Pillow's bilinear, no crop."""
    return resize_bytes(levels, (size, size), "bilinear") / np.float32(255)


INPUTS = {"pillow_bilinear_256": pixels}


def candidates(predictions: jax.Array) -> jax.Array:
    """Predictions [B, N, 5 + classes] to [B, N, 7], of which `suppress` takes one picture's.

    Columns are x1, y1, x2, y2, objectness, and the likeliest class' probability and number.
    """
    centre, half, rest = predictions[..., :2], predictions[..., 2:4] / 2, predictions[..., 5:]
    best = rest.argmax(-1, keepdims=True).astype(predictions.dtype)
    parts = (centre - half, centre + half, predictions[..., 4:5], rest.max(-1, keepdims=True), best)
    return jnp.concatenate(parts, -1)


def overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a box [4] with others [N, 4]: x1, y1, x2, y2, both ends inside."""
    # Exponentials of untrained heads may be infinite.
    with np.errstate(invalid="ignore", over="ignore"):
        low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
        shared = np.maximum(high - low + 1, 0).prod(1)
        area = (box[2:] - box[:2] + 1).prod()
        areas = (others[:, 2:] - others[:, :2] + 1).prod(1)
        return shared / (area + areas - shared + np.float32(1e-16))


def suppress(rows: np.ndarray, least: float = LEAST, same: float = SAME) -> np.ndarray:
    """Merges boxes of one object, the surest first.

    A box takes in all of its class that overlap it: its corners become their mean, weighted by
    objectness, and its objectness and probability stay. The threshold is on objectness alone, so
    what is sure to be something may be of a class that hardly likely is.

    Args:
      rows: float32 [N, 7] of one picture, see `candidates`.
      least: objectness of what is looked at.
      same: boxes that share more than this of their union are merged.

    Returns:
      float32 [M, 7], in the order of objectness times probability.
    """
    rows = rows[rows[:, 4] >= np.float32(least)]
    rows = rows[np.argsort(-(rows[:, 4] * rows[:, 5]), kind="stable")]
    kept = []
    while len(rows):
        first = rows[0]
        inside = (overlaps(first[:4], rows[:, :4]) > same) & (rows[:, 6] == first[6])
        # A box of infinite size overlaps, by these numbers, not even itself.
        inside[0] = True
        weight = rows[inside, 4:5]
        corners = (weight * rows[inside, :4]).sum(0) / weight.sum()
        kept.append(np.concatenate([corners, first[4:]]))
        rows = rows[~inside]
    return np.stack(kept) if kept else np.zeros((0, 7), np.float32)
