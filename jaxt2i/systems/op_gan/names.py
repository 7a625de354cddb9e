"""OP-GAN: names of op-gan.pth and of the checkpoints of its training, networks netG and netD."""

from collections.abc import Iterator, Mapping

import numpy as np

from jaxt2i.convert.rules import Rule, Table
from jaxt2i.systems.attngan.names import (
    UNREAD,
    first_stage,
    g_sizes,
    images,
    norm,
    pair,
    refinement,
)


def label(source: str, target: str) -> Iterator[Rule]:
    """A label's embedding and its norm."""
    yield Rule(f"{source}.label.0.weight", f"params/{target}/label/fc/kernel", "dense")
    yield from norm(f"{source}.label.1", f"{target}/label/norm")


def objects(stage: int) -> Iterator[Rule]:
    """The object pathway of a stage, stage 1's layout encoder with it."""
    at, to = f"h_net{stage}", "objects1" if stage == 1 else f"stage{stage}"
    yield from label(at, to)
    for i in (1, 2):
        yield from pair(f"{at}.local{i}", f"{to}/paint/up{i}", 1)
    if stage == 1:
        encode = f"{at}.bbox_net.encode"
        for i, number in enumerate((0, 2, 5)):
            target = f"params/{to}/layout/conv{i}/kernel"
            yield Rule(f"{encode}.{number}.weight", target, "conv2d")
            if i:
                yield from norm(f"{encode}.{number + 1}", f"{to}/layout/norm{i}")


def later_stage(stage: int) -> Iterator[Rule]:
    """Word attention, objects and refinement."""
    context = f"h_net{stage}.att.conv_context.weight"
    yield Rule(context, f"params/stage{stage}/context/kernel", "conv2d")
    yield from objects(stage)
    yield from refinement(stage)


G = Table(
    (*first_stage(), *objects(1), *later_stage(2), *later_stage(3), *images()),
    UNREAD,
    part="netG.",
    marker="h_net1.bbox_net.encode.0.weight",
)

# --- Discriminators ------------------------------------------------------------------------------


def unit(conv: str, bn: str, target: str) -> Iterator[Rule]:
    """A convolution without bias, and its norm."""
    yield Rule(f"{conv}.weight", f"params/{target}/conv/kernel", "conv2d")
    yield from norm(bn, f"{target}/norm")


def follow(source: str, number: int, target: str) -> Iterator[Rule]:
    """The same, at a place of a Sequential."""
    yield from unit(f"{source}.{number}", f"{source}.{number + 1}", target)


# What follows the two convolutions behind the objects: {size: [(official name, unit)]}.
PARTS = {
    64: (),
    128: (("img_code_s32", "down_4"), ("img_code_s32_1", "thin_0")),
    256: (
        ("img_code_s32", "down_4"),
        ("img_code_s64", "down_5"),
        ("img_code_s64_1", "thin_0"),
        ("img_code_s64_2", "thin_1"),
    ),
}
# A key of the network alone.
MARKERS = {64: "conv1.weight", 128: "img_code_s32_1.0.weight", 256: "img_code_s64.0.weight"}
# D_NET256 has four convolutions that it never calls.
UNCALLED = ("img_code_s16.*",)


def critic(size: int) -> Iterator[Rule]:
    """D_NET64, D_NET128 or D_NET256."""
    if size == 64:
        yield Rule("conv1.weight", "params/critic/down_0/conv/kernel", "conv2d")
        for i in (1, 2, 3):
            yield from unit(f"conv{i + 1}", f"bn{i + 1}", f"critic/down_{i}")
    else:
        yield Rule("encode_img.0.weight", "params/critic/down_0/conv/kernel", "conv2d")
        yield from follow("encode_img", 2, "critic/down_1")
        yield from follow("encode_final", 0, "critic/down_2")
        yield from follow("encode_final", 3, "critic/down_3")
    for source, target in PARTS[size]:
        yield from follow(source, 0, f"critic/{target}")
    for i, number in enumerate((0,) if size == 64 else (0, 3)):
        to = "each/network"
        yield Rule(f"local.{number}.weight", f"params/{to}/conv{i}/kernel", "conv2d")
        yield from norm(f"local.{number + 1}", f"{to}/norm{i}")
    yield from follow("COND_DNET.jointConv", 0, "critic/joint")
    for source, target in (("UNCOND_DNET", "real"), ("COND_DNET", "matched")):
        yield Rule(f"{source}.outlogits.0.weight", f"params/critic/{target}/kernel", "conv2d")
        yield Rule(f"{source}.outlogits.0.bias", f"params/critic/{target}/bias")


CRITICS = {
    size: Table(
        tuple(critic(size)),
        (*UNREAD, *(UNCALLED if size == 256 else ())),
        part=f"netD.{i}.",
        marker=MARKERS[size],
    )
    for i, size in enumerate(PARTS)
}

TABLES: dict[str, tuple[Table, ...]] = {
    "g": (G,),
    **{f"d{size}": (table,) for size, table in CRITICS.items()},
}
NETWORKS = {
    "g": "jaxt2i.systems.op_gan.networks:Generator",
    **{f"d{size}": "jaxt2i.systems.op_gan.networks:ObjectCritic" for size in CRITICS},
}


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict:
    """Fields of the network that a state dict was made with.

    Raises:
      KeyError: when the keys are not that network's.
    """
    table = TABLES[net][0]
    names = table.names(state_dict)
    shape = {name: state_dict[key].shape for name, key in names.items()}
    if net != "g":
        return critic_sizes(int(net[1:]), shape)
    sizes = g_sizes(state_dict, names)
    label2, c_dim = shape["h_net2.label.0.weight"][1], sizes["c_dim"]
    layout = shape["h_net1.bbox_net.encode.5.weight"][0]
    classes = label2 - c_dim
    # The layout is a picture of 2 x 2 positions in the published sizes.
    return sizes | {
        "classes": classes,
        "z_dim": sizes["z_dim"] - 4 * layout,
        "local_dim": shape["h_net1.label.0.weight"][1] - label2,
    }


def critic_sizes(size: int, shape: Mapping[str, tuple[int, ...]]) -> dict:
    """Fields of a discriminator."""
    first = "conv1.weight" if size == 64 else "encode_img.0.weight"
    joint = shape["COND_DNET.jointConv.0.weight"]
    return {
        "base": shape[first][0],
        "resolution": size,
        "depth": 1 if size == 64 else 2,
        "classes": shape["local.0.weight"][1] - 3,
        "sentence_dim": joint[1] - joint[0],
    }
