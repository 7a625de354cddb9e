"""Obj-GAN's shape generator: names of netG_epoch_N.pth, netINSD.pth and netGLBD.pth."""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
from etils import epath

from jaxt2i.convert import files, torch_files
from jaxt2i.convert.rules import ConversionError, Rule, Table


def kernel(source: str, target: str) -> Rule:
    """A convolution without bias."""
    return Rule(f"{source}.weight", f"params/{target}/kernel", "conv2d")


def biased(source: str, target: str) -> Iterator[Rule]:
    """A convolution."""
    yield kernel(source, target)
    yield Rule(f"{source}.bias", f"params/{target}/bias")


G = Table(
    (
        *(kernel(f"downsample{i}.0", f"down{i}") for i in (1, 2)),
        *biased("fwd_convlstm.Gates", "ahead"),
        *biased("bwd_convlstm.Gates", "back"),
        kernel("jointConv.0", "joint"),
        *(kernel(f"residual.0.block.{3 * i}", f"block{i}") for i in range(3)),
        *(kernel(f"upsample{i}.1", f"up{i}") for i in (1, 2)),
        kernel("img_net.img.0", "shape"),
    ),
    part="netG.",
    marker="fwd_convlstm.Gates.weight",
)
CRITIC = (
    *(kernel(f"downsample{i}.0", f"down{i}") for i in range(1, 5)),
    *biased("get_logits.outlogits.0", "logits"),
)
# Network -> what a file of it has in its name, and its keys before them in a file of several.
CRITICS = {"ins": "netINSD", "glb": "netGLBD"}
TABLES: dict[str, tuple[Table, ...]] = {
    "g": (G,),
    **{
        net: (Table(CRITIC, part=f"{file}.", marker="get_logits.outlogits.0.weight"),)
        for net, file in CRITICS.items()
    },
}
NETWORKS = {
    "g": "jaxt2i.systems.obj_gan_shapes.networks:Generator",
    **dict.fromkeys(CRITICS, "jaxt2i.systems.obj_gan_shapes.networks:Critic"),
}


def read_all(path: epath.PathLike) -> torch_files.Found:
    """As `files.read_all`; both discriminators have the same keys, and files tell them by name.

    Raises:
      ConversionError: for a discriminator whose file does not say which one it is.
    """
    found = files.read_all(path)
    if not TABLES["ins"][0].names(found.tensors):
        return found
    name = epath.Path(path).name
    said = [file for file in CRITICS.values() if file in name]
    if any(key.startswith(f"{file}.") for key in found.tensors for file in CRITICS.values()):
        return found
    if len(said) != 1:
        raise ConversionError(
            f"{path}: a discriminator, of objects or of whole pictures? Both have the same keys; "
            f"name the file {' or '.join(f'{file}.pth' for file in CRITICS.values())}"
        )
    tensors = {f"{said[0]}.{key}": x for key, x in found.tensors.items()}
    return dataclasses.replace(found, tensors=tensors)


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict:
    """Fields of the network that a state dict was made with.

    Raises:
      KeyError: when the keys are not that network's.
    """
    names = TABLES[net][0].names(state_dict)
    shape = {name: state_dict[key].shape for name, key in names.items()}
    first = shape["downsample1.0.weight"]
    if net == "g":
        return {"classes": first[1], "width": shape["img_net.img.0.weight"][1]}
    halvings = sum(name.startswith("downsample") for name in names)
    # Of an odd n, half of what is left over is not to be had back.
    width = first[1] - 1 if first[0] == (first[1] - 1) // 2 else 2 * first[0]
    return {"classes": first[1] - 1, "width": width, "size": 4 * 2**halvings}
