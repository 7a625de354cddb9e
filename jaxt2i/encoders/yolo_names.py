"""YOLOv3 in darknet's .weights files, and under the names of the code that SOA came with."""

from collections.abc import Mapping

import numpy as np
from etils import epath

from jaxt2i.convert import darknet_files, files, torch_files
from jaxt2i.convert.darknet_files import Layer
from jaxt2i.convert.rules import Rule, Table
from jaxt2i.encoders.yolo import ANCHORS, BLOCKS, CLASSES, HEAD, SHORTCUT, Conv, Route

# Anchors a head.
EACH = len(ANCHORS) // 3
# Divisors of the published widths that a file without names is tried for.
THIN = (1, 2, 4, 8, 16)

DETECTOR = Table(
    (
        Rule("module_list.{i}.conv_{i}.weight", "params/block{i}/conv/kernel", "conv2d"),
        Rule("module_list.{i}.conv_{i}.bias", "params/block{i}/conv/bias"),
        Rule("module_list.{i}.batch_norm_{i}.weight", "params/block{i}/bn/scale"),
        Rule("module_list.{i}.batch_norm_{i}.bias", "params/block{i}/bn/bias"),
        Rule("module_list.{i}.batch_norm_{i}.running_mean", "batch_stats/block{i}/bn/mean"),
        Rule("module_list.{i}.batch_norm_{i}.running_var", "batch_stats/block{i}/bn/var"),
    ),
    ("*.num_batches_tracked",),
    marker="module_list.105.conv_105.bias",
)
TABLES: dict[str, tuple[Table, ...]] = {"detector": (DETECTOR,)}
NETWORKS = {"detector": "jaxt2i.encoders.yolo:YoloV3"}


def layers(thin: int = 1, classes: int = len(CLASSES)) -> list[Layer]:
    """The convolutions in a file's order.

    Args:
      thin: see `YoloV3`.
      classes: that an object may have.
    """
    out, widths, width = [], [], 3
    for i, block in enumerate(BLOCKS):
        if isinstance(block, Conv):
            head = block == HEAD
            features = EACH * (5 + classes) if head else block.features // thin
            name, shape = f"module_list.{i}", (features, width, block.size, block.size)
            kernel = f"{name}.conv_{i}.weight"
            if head:
                out.append(Layer(kernel, shape, bias=f"{name}.conv_{i}.bias"))
            else:
                out.append(Layer(kernel, shape, norm=f"{name}.batch_norm_{i}."))
            width = features
        elif isinstance(block, Route):
            width = sum(widths[n] for n in block.blocks)
        elif block == SHORTCUT:
            width = widths[-1]
        widths.append(width)
    return out


def read_all(path: epath.PathLike) -> torch_files.Found:
    """Every tensor of a file: darknet's .weights, or what `convert.files.read_all` takes.

    Raises:
      UnreadableFileError: for other formats, other networks and damaged files.
      UnsafeFileError: for a pickle that refers to anything but tensors.
    """
    path = epath.Path(path)
    if path.suffix != ".weights":
        return files.read_all(path)
    networks = {f"YOLOv3 of {len(CLASSES)} classes": layers()}
    networks |= {f"YOLOv3 with widths / {thin}": layers(thin) for thin in THIN[1:]}
    return torch_files.Found(darknet_files.read(path, networks))


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Fields of `YoloV3` that a state dict was made with.

    Args:
      net: "detector".
      state_dict: under the names of `DETECTOR`, with any prefix.
    """
    names = DETECTOR.names(state_dict)
    first = len(state_dict[names["module_list.0.conv_0.weight"]])
    head = len(state_dict[names[DETECTOR.marker]])
    return {"classes": head // EACH - 5, "thin": BLOCKS[0].features // first}
