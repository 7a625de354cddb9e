"""GALIP: names of the official state dicts (netG, netD, netC).

Published files hold {"model": {"netG", "netD", "netC"}}, with "module." before the keys where
several processes trained. netG also holds CLIP's image tower (`mapping.CLIP_ViT.*`, in half
precision): frozen weights, which come from CLIP itself here.
"""

import fnmatch
from collections.abc import Mapping

import numpy as np

from jaxt2i.convert.rules import Rule, Table
from jaxt2i.systems.df_gan.names import OUTPUT, down_block, fusion, linear, up_block


def bridge_block(source: str, target: str) -> list[Rule]:
    """`methods.galip.BridgeBlock`; prefixes end in their separator or are ""."""
    return [
        *linear(f"{source}conv1", f"{target}conv1", "conv2d"),
        *fusion(f"{source}fuse1.", f"{target}fuse1/"),
        *linear(f"{source}conv2", f"{target}conv2", "conv2d"),
        *fusion(f"{source}fuse2.", f"{target}fuse2/"),
        *linear(f"{source}c_sc", f"{target}c_sc", "conv2d"),
    ]


def feature_block(source: str, target: str) -> list[Rule]:
    """`methods.galip.FeatureBlock`."""
    return [*down_block(source, target), Rule(f"{source}beta", f"params/{target}beta")]


GENERATOR = Table(
    (
        *linear("fc_code", "fc_code"),
        *bridge_block("mapping.FBlocks.{i}.", "bridge_block_{i}/"),
        *linear("mapping.conv_fuse", "conv_fuse", "conv2d"),
        *linear("mapping.fc_prompt", "fc_prompt"),
        *linear("mapping.conv", "conv", "conv2d"),
        *up_block("GBlocks.{i}.", "block_{i}/"),
        *linear("to_rgb.1", "to_rgb", "conv2d"),
    ),
    ("mapping.CLIP_ViT.*",),
    ("module.",),
    "netG.",
)
FEATURES = Table(
    (*feature_block("DBlocks.{i}.", "block{i}/"), *feature_block("main.", "main/")),
    ("DBlocks.*.conv_s.*",),
    ("module.",),
    "netD.",
)

TABLES: dict[str, tuple[Table, ...]] = {"g": (GENERATOR,), "d": (FEATURES,), "c": (OUTPUT,)}
NETWORKS = {
    "g": "jaxt2i.systems.galip.method:Generator",
    "d": "jaxt2i.systems.galip.method:Features",
    "c": "jaxt2i.systems.galip.method:Quality",
}


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Fields of `Generator` ("g"), `Features` ("d") or `Quality` ("c") of a state dict.

    The pictures' size is not in the shapes: with six blocks it is taken to be 224, the published
    one, otherwise a power of two.

    Raises:
      KeyError: when the keys are not that network's.
    """
    names = TABLES[net][0].names(state_dict)
    shape = {name: state_dict[key].shape for name, key in names.items()}
    if net == "c":
        hidden, channels = shape["joint_conv.0.weight"][:2]
        grid = shape["joint_conv.2.weight"][-1] + 3
        return {"base": hidden // 2, "grid": grid, "sentence_dim": channels - 4 * hidden}
    if net == "d":
        channels, width = shape["main.conv_r.0.weight"][:2]
        taps = len(fnmatch.filter(shape, "DBlocks.*.gamma")) + 1
        return {"base": channels // 8, "taps": taps, "width": width}
    base, blocks = shape["to_rgb.1.weight"][1], len(fnmatch.filter(shape, "GBlocks.*.c1.weight"))
    (width, inner), z_dim = shape["mapping.conv_fuse.weight"][:2], shape["fc_code.weight"][1]
    grid = round((shape["fc_code.weight"][0] / inner) ** 0.5)
    cond = shape["GBlocks.0.fuse1.affine0.fc_gamma.linear1.weight"][1]
    resolution = 2 ** (grid.bit_length() + blocks - 1)
    return {
        "base": base,
        "resolution": 224 if (grid, resolution) == (7, 256) else resolution,
        "grid": grid,
        "width": width,
        "prompts": shape["mapping.fc_prompt.weight"][0] // width,
        "bridge_blocks": len(fnmatch.filter(shape, "mapping.FBlocks.*.conv1.weight")),
        "bridge_base": 0 if inner == base else inner,
        "z_dim": z_dim,
        "sentence_dim": cond - z_dim,
    }
