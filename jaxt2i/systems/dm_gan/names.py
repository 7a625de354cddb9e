"""DM-GAN: names of netG_epoch_N.pth (also bird_DMGAN.pth and coco_DMGAN.pth) and netD0..2.pth."""

from collections.abc import Iterator, Mapping

import numpy as np

from jaxt2i.convert.rules import Rule, Table
from jaxt2i.systems.attngan.names import NETWORKS as ATTNGAN_NETWORKS
from jaxt2i.systems.attngan.names import (
    PARTS,
    UNREAD,
    d_sizes,
    first_stage,
    g_sizes,
    heads,
    images,
    refinement,
)


def memory_stage(stage: int) -> Iterator[Rule]:
    """Gates, memory, and what follows them."""
    at, to = f"h_net{stage}", f"params/stage{stage}"
    yield Rule(f"{at}.A.weight", f"{to}/gate_words/kernel", "dense")
    yield Rule(f"{at}.B.weight", f"{to}/gate_image/kernel", "dense")
    for source, target, op in (
        ("M_w", "write_words", "dense1"),
        ("M_r", "write_image", "dense1"),
        ("key", "key", "dense1"),
        ("value", "value", "dense1"),
        ("response_gate", "respond", "dense1x1"),
    ):
        yield Rule(f"{at}.{source}.0.weight", f"{to}/{target}/kernel", op)
        yield Rule(f"{at}.{source}.0.bias", f"{to}/{target}/bias")
    yield from refinement(stage)


G = Table(
    (*first_stage(), *memory_stage(2), *memory_stage(3), *images()),
    UNREAD,
    marker="h_net2.A.weight",
)


def spectral(source: str, target: str) -> Iterator[Rule]:
    """A spectrally normalised convolution with its vectors."""
    yield Rule(f"{source}.module.weight_bar", f"params/{target}/conv/kernel", "conv2d")
    yield Rule(f"{source}.module.bias", f"params/{target}/conv/bias")
    yield Rule(f"{source}.module.weight_u", f"spectral/{target}/conv/u")
    yield Rule(f"{source}.module.weight_v", f"spectral/{target}/conv/v")


def critic(halvings: int) -> Iterator[Rule]:
    """D_NET64, D_NET128 or D_NET256."""
    for i in range(4):
        yield from spectral(f"img_code_s16.{2 * i}", f"down_{i}")
    for source, target in PARTS[halvings]:
        yield from spectral(f"{source}.0", target)
    yield from spectral("COND_DNET.jointConv.0", "joint")
    yield from heads()


MARKERS = {
    4: "img_code_s16.6.module.weight_bar",
    5: "img_code_s32_1.0.module.weight_bar",
    6: "img_code_s64.0.module.weight_bar",
}
FOREIGN = {4: "img_code_s32.0.module.weight_bar", 5: "", 6: ""}
CRITICS = {n: Table(tuple(critic(n)), UNREAD, marker=MARKERS[n], foreign=FOREIGN[n]) for n in PARTS}

TABLES: dict[str, tuple[Table, ...]] = {
    "g": (G,),
    "d64": (CRITICS[4],),
    "d128": (CRITICS[5],),
    "d256": (CRITICS[6],),
}
NETWORKS = {**ATTNGAN_NETWORKS, "g": "jaxt2i.systems.dm_gan.method:Generator"}


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict:
    """Fields of the network that a state dict was made with.

    Raises:
      KeyError: when the keys are not that network's.
    """
    if net != "g":
        table = TABLES[net][0]
        return {**d_sizes(net, state_dict, table, "module.weight_bar"), "kind": "spectral"}
    return g_sizes(state_dict, G.names(state_dict))
