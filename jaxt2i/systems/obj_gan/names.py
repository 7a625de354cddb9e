"""Obj-GAN: names of netG_epoch_N.pth and of the discriminators' files.

The three discriminators of patches differ in the size of their pictures alone, as do those of
shapes: only a file's name says which of them it holds.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from etils import epath

from jaxt2i.convert import files, torch_files
from jaxt2i.convert.rules import Rule, Table
from jaxt2i.systems.attngan.names import UNREAD, images, norm, pair

SIZES = (64, 128, 256)


def kernel(source: str, target: str) -> Rule:
    """A convolution's kernel."""
    return Rule(f"{source}.weight", f"params/{target}/kernel", "conv2d")


def biased(source: str, target: str) -> Iterator[Rule]:
    """A convolution with a bias."""
    yield kernel(source, target)
    yield Rule(f"{source}.bias", f"params/{target}/bias")


def sentence() -> Iterator[Rule]:
    """Conditioning augmentation and what the sentence gives the first stage."""
    yield Rule("ca_net.fc.weight", "params/augment/fc/kernel", "dense")
    yield Rule("ca_net.fc.bias", "params/augment/fc/bias")
    yield Rule("h_net1_sent.fc.0.weight", "params/sentence/fc/kernel", "dense")
    yield from norm("h_net1_sent.fc.1", "sentence/fc_norm")
    for i in (1, 2):
        yield from pair(f"h_net1_sent.upsample{i}", f"sentence/up{i}", 1)


def stage(number: int) -> Iterator[Rule]:
    """One stage and what encodes its map, however many residual blocks there are."""
    seen, at, to = f"h_net{number}_hmap", f"h_net{number}_main", f"stage{number}"
    yield from biased(f"{seen}.conv3x3.1", f"map{number}/conv1")
    yield kernel(f"{seen}.downsample1.0", f"map{number}/conv2")
    yield kernel(f"{at}.bt_att.conv_context", f"{to}/objects/context")
    if number > 1:
        yield kernel(f"{at}.att.conv_context", f"{to}/context")
    for source, target in ((1, "conv1"), (5, "conv2")):
        yield kernel(f"{at}.residual.{{i}}.block.{source}", f"{to}/residual{{i}}/{target}")
    yield from pair(f"{at}.upsample", f"{to}/up", 1)


G = Table(
    (*sentence(), *stage(1), *stage(2), *stage(3), *images()),
    UNREAD,
    part="netG.",
    marker="h_net1_hmap.conv3x3.1.weight",
)


def critic(halvings: int, kind: str) -> Iterator[Rule]:
    """A discriminator of patches, shapes or objects."""
    yield kernel("img_code.0", "down_0/conv")
    for i in range(1, halvings):
        yield from pair("img_code", f"down_{i}", 3 * i - 1)
    yield from biased("UNCOND_DNET.outlogits.0", "real")
    if kind != "shp":
        yield from pair("COND_DNET.jointConv", "joint")
        yield from biased("COND_DNET.outlogits.0", "matched")
    if kind != "pat":
        yield from biased("shp_code.1", "shape")
    if kind == "obj":
        yield from biased("roi_code.0", "region")


# Keys that tell the kinds apart.
JOINT, SHAPE = "COND_DNET.jointConv.0.weight", "shp_code.1.weight"
ROI, LAST = "roi_code.0.weight", "img_code.8.weight"


def table(
    kind: str, part: str, marker: str | tuple[str, ...], foreign: str = "", halvings: int = 4
) -> Table:
    """The table of a discriminator."""
    rules = tuple(critic(halvings, kind))
    return Table(rules, UNREAD, part=part, marker=marker, foreign=foreign)


CRITICS = {
    **{f"pat{n}": table("pat", f"netPatD.{i}.", JOINT, SHAPE) for i, n in enumerate(SIZES)},
    **{f"shp{n}": table("shp", f"netShpD.{i}.", SHAPE, JOINT) for i, n in enumerate(SIZES)},
    "obj_small": table("obj", "netObjSSD.", ROI, LAST, halvings=3),
    "obj_large": table("obj", "netObjLSD.", (ROI, LAST)),
}
TABLES: dict[str, tuple[Table, ...]] = {
    "g": (G,),
    **{net: (table,) for net, table in CRITICS.items()},
}
NETWORKS = {
    "g": "jaxt2i.systems.obj_gan.networks:Generator",
    **dict.fromkeys(CRITICS, "jaxt2i.systems.obj_gan.networks:Critic"),
}
# The published files: netPatD0.pth is that of the smallest pictures.
NUMBERED = re.compile(r"(netPatD|netShpD)_?(\d)\b")
_ALIKE = (
    "discriminators of patches, and of shapes, fit pictures of every size: of a file that is not "
    "named as published ({}0.pth), --net says which one it is, or all three are written"
)
NOTES = {"pat64": _ALIKE.format("netPatD"), "shp64": _ALIKE.format("netShpD")}


def read_all(path: epath.PathLike) -> torch_files.Found:
    """`files.read_all`; where a file's name alone says which network it holds, its keys then do."""
    found = files.read_all(path)
    if named := NUMBERED.match(epath.Path(path).name):
        prefix = f"{named[1]}.{named[2]}."
        tensors = {f"{prefix}{key}": x for key, x in found.tensors.items()}
        return dataclasses.replace(found, tensors=tensors)
    return found


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict:
    """Fields of the network that a state dict was made with.

    Raises:
      KeyError: when the keys are not that network's.
    """
    names = TABLES[net][0].names(state_dict)
    shape = {name: state_dict[key].shape for name, key in names.items()}
    return g_sizes(shape) if net == "g" else critic_sizes(net, shape)


def blocks(names: Iterable[str], stage: int) -> int:
    """How many residual blocks a stage has."""
    start = f"h_net{stage}_main.residual."
    return 1 + max((int(n.split(".")[2]) for n in names if n.startswith(start)), default=-1)


def g_sizes(shape: Mapping[str, tuple[int, ...]]) -> dict:
    """Fields of the generator."""
    base, words_dim = shape["h_net2_main.att.conv_context.weight"][:2]
    c_dim = shape["ca_net.fc.weight"][0] // 4
    return {
        "base": base,
        "first_residuals": blocks(shape, 1),
        "residuals": blocks(shape, 2),
        "classes": shape["h_net1_hmap.conv3x3.1.weight"][1],
        "z_dim": shape["h_net1_sent.fc.0.weight"][1] - c_dim,
        "c_dim": c_dim,
        "words_dim": words_dim,
        "names_dim": shape["h_net1_main.upsample.1.weight"][1] - 3 * base,
    }


def critic_sizes(net: str, shape: Mapping[str, tuple[int, ...]]) -> dict:
    """Fields of a discriminator."""
    kind, base = net[:3], shape["img_code.0.weight"][0]
    out = {"base": base, "resolution": 256 if kind == "obj" else int(net[3:])}
    if kind != "shp":
        joint = shape["COND_DNET.jointConv.0.weight"]
        out["cond_dim"] = joint[1] - joint[0]
    if kind != "pat":
        map_features, classes = shape["shp_code.1.weight"][:2]
        out |= {"classes": classes, "map_features": map_features}
    if kind == "obj":
        out |= {"objects": True, "halvings": 3 if net == "obj_small" else 4}
    return out
