"""DF-GAN: names of the official state dicts (netG, netD, netC) of June 2022 on.

Published files hold {"model": {"netG", "netD", "netC"}}; keys carry "module." where several
processes trained.
"""

import fnmatch
from collections.abc import Mapping

import numpy as np

from jaxt2i.convert.rules import Rule, Table


def linear(source: str, target: str, op: str = "dense") -> list[Rule]:
    """A dense layer, or a convolution with op="conv2d", with its bias."""
    return [
        Rule(f"{source}.weight", f"params/{target}/kernel", op),
        Rule(f"{source}.bias", f"params/{target}/bias"),
    ]


def affine(source: str, target: str) -> list[Rule]:
    """`nn.affine.Affine`; prefixes end in their separator or are ""."""
    return [
        rule
        for name in ("gamma", "beta")
        for k in (1, 2)
        for rule in linear(f"{source}fc_{name}.linear{k}", f"{target}{name}{k}")
    ]


def fusion(source: str, target: str) -> list[Rule]:
    """`nn.affine.Fusion`."""
    return [rule for k in (0, 1) for rule in affine(f"{source}affine{k}.", f"{target}affine{k}/")]


def up_block(source: str, target: str) -> list[Rule]:
    """`nn.affine.UpBlock`."""
    return [
        *fusion(f"{source}fuse1.", f"{target}fuse1/"),
        *linear(f"{source}c1", f"{target}c1", "conv2d"),
        *fusion(f"{source}fuse2.", f"{target}fuse2/"),
        *linear(f"{source}c2", f"{target}c2", "conv2d"),
        *linear(f"{source}c_sc", f"{target}c_sc", "conv2d"),
    ]


def down_block(source: str, target: str) -> list[Rule]:
    """A discriminator block; where the widths are equal the file's `conv_s` serves nothing."""
    return [
        Rule(f"{source}gamma", f"params/{target}gamma"),
        Rule(f"{source}conv_r.0.weight", f"params/{target}conv0/kernel", "conv2d"),
        Rule(f"{source}conv_r.2.weight", f"params/{target}conv1/kernel", "conv2d"),
        *linear(f"{source}conv_s", f"{target}conv_s", "conv2d"),
    ]


GENERATOR = Table(
    (
        *linear("fc", "fc"),
        *up_block("GBlocks.{i}.", "block{i}/"),
        *linear("to_rgb.1", "to_rgb", "conv2d"),
    ),
    prefixes=("module.",),
    part="netG.",
)
FEATURES = Table(
    (
        *linear("conv_img", "conv_img", "conv2d"),
        *down_block("DBlocks.{i}.", "block{i}/"),
    ),
    ("DBlocks.*.conv_s.*",),
    prefixes=("module.",),
    part="netD.",
)
OUTPUT = Table(
    (
        Rule("joint_conv.0.weight", "params/conv0/kernel", "conv2d"),
        Rule("joint_conv.2.weight", "params/conv1/kernel", "conv2d"),
    ),
    prefixes=("module.",),
    part="netC.",
)

TABLES: dict[str, tuple[Table, ...]] = {"g": (GENERATOR,), "d": (FEATURES,), "c": (OUTPUT,)}
NETWORKS = {
    "g": "jaxt2i.systems.df_gan.method:Generator",
    "d": "jaxt2i.systems.df_gan.method:Features",
    "c": "jaxt2i.systems.df_gan.method:OneWayOutput",
}


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Fields of `Generator` ("g"), `Features` ("d") or `OneWayOutput` ("c") of a state dict.

    Raises:
      KeyError: when the keys are not that network's.
    """
    names = TABLES[net][0].names(state_dict)
    shape = {name: state_dict[key].shape for name, key in names.items()}
    if net == "c":
        hidden, channels = shape["joint_conv.0.weight"][:2]
        # Features are 8 n_f wide from 64 pixels on, the hidden layer 2 n_f.
        return {"base": hidden // 2, "channels": 4 * hidden, "sentence_dim": channels - 4 * hidden}
    if net == "d":
        blocks = len(fnmatch.filter(shape, "DBlocks.*.gamma"))
        return {"base": shape["conv_img.weight"][0], "resolution": 4 * 2**blocks}
    blocks = len(fnmatch.filter(shape, "GBlocks.*.c1.weight"))
    z_dim = shape["fc.weight"][1]
    cond = shape["GBlocks.0.fuse1.affine0.fc_gamma.linear1.weight"][1]
    return {
        "base": shape["to_rgb.1.weight"][1],
        "resolution": 4 * 2**blocks,
        "z_dim": z_dim,
        "sentence_dim": cond - z_dim,
    }
