"""AttnGAN: names of netG_epoch_N.pth (also bird_AttnGAN2.pth and the like) and netD0..2.pth."""

from collections.abc import Iterator, Mapping

import numpy as np

from jaxt2i.convert.rules import Rule, Table

UNREAD = ("*.num_batches_tracked",)


def norm(source: str, target: str) -> Iterator[Rule]:
    """A batch norm with its running statistics."""
    yield Rule(f"{source}.weight", f"params/{target}/scale")
    yield Rule(f"{source}.bias", f"params/{target}/bias")
    yield Rule(f"{source}.running_mean", f"batch_stats/{target}/mean")
    yield Rule(f"{source}.running_var", f"batch_stats/{target}/var")


def pair(source: str, target: str, first: int = 0) -> Iterator[Rule]:
    """A convolution without bias and its norm, neighbours in a Sequential."""
    yield Rule(f"{source}.{first}.weight", f"params/{target}/conv/kernel", "conv2d")
    yield from norm(f"{source}.{first + 1}", f"{target}/norm")


def first_stage(ups: int = 4) -> Iterator[Rule]:
    """Conditioning augmentation and h_net1."""
    yield Rule("ca_net.fc.weight", "params/augment/fc/kernel", "dense")
    yield Rule("ca_net.fc.bias", "params/augment/fc/bias")
    yield Rule("h_net1.fc.0.weight", "params/stage1/fc/kernel", "dense")
    yield from norm("h_net1.fc.1", "stage1/fc_norm")
    for i in range(1, ups + 1):
        yield from pair(f"h_net1.upsample{i}", f"stage1/up{i}", 1)


def refinement(stage: int) -> Iterator[Rule]:
    """Residual blocks and the doubling of h_net2 or h_net3, however many blocks there are."""
    at, to = f"h_net{stage}", f"stage{stage}/refine"
    for source, target in ((0, 1), (3, 2)):
        block, here = f"{at}.residual.{{i}}.block", f"{to}/residual{{i}}"
        yield Rule(f"{block}.{source}.weight", f"params/{here}/conv{target}/kernel", "conv2d")
        yield from norm(f"{block}.{source + 1}", f"{here}/norm{target}")
    yield from pair(f"{at}.upsample", f"{to}/up", 1)


def images(stages: int = 3) -> Iterator[Rule]:
    """The heads that draw."""
    for i in range(1, stages + 1):
        yield Rule(f"img_net{i}.img.0.weight", f"params/image{i}/conv/kernel", "conv2d")


def later_stages() -> Iterator[Rule]:
    """Word attention and refinement of both later stages."""
    for stage in (2, 3):
        context = f"h_net{stage}.att.conv_context.weight"
        yield Rule(context, f"params/stage{stage}/context/kernel", "conv2d")
        yield from refinement(stage)


G = Table((*first_stage(), *later_stages(), *images()), UNREAD, marker="h_net2.upsample.1.weight")
# AttnDCGAN has one head, without a number.
G_LAST = Table(
    (
        *first_stage(),
        *later_stages(),
        Rule("img_net.img.0.weight", "params/image3/conv/kernel", "conv2d"),
    ),
    UNREAD,
    marker="img_net.img.0.weight",
)


def heads() -> Iterator[Rule]:
    """Both logits; they are never normalised."""
    for source, target in (("UNCOND_DNET", "real"), ("COND_DNET", "matched")):
        yield Rule(f"{source}.outlogits.0.weight", f"params/{target}/kernel", "conv2d")
        yield Rule(f"{source}.outlogits.0.bias", f"params/{target}/bias")


# The unit behind each part, by the number of halvings.
PARTS = {
    4: (),
    5: (("img_code_s32", "down_4"), ("img_code_s32_1", "thin_0")),
    6: (
        ("img_code_s32", "down_4"),
        ("img_code_s64", "down_5"),
        ("img_code_s64_1", "thin_0"),
        ("img_code_s64_2", "thin_1"),
    ),
}


def critic(halvings: int) -> Iterator[Rule]:
    """D_NET64, D_NET128 or D_NET256."""
    yield Rule("img_code_s16.0.weight", "params/down_0/conv/kernel", "conv2d")
    for i in (1, 2, 3):
        yield from pair("img_code_s16", f"down_{i}", 3 * i - 1)
    for source, target in PARTS[halvings]:
        yield from pair(source, target)
    yield from pair("COND_DNET.jointConv", "joint")
    yield from heads()


# Keys that tell the three apart.
MARKERS = {4: "img_code_s16.8.weight", 5: "img_code_s32_1.0.weight", 6: "img_code_s64.0.weight"}
# D_NET64's keys are among those of the larger two.
FOREIGN = {4: "img_code_s32.0.weight", 5: "", 6: ""}
CRITICS = {n: Table(tuple(critic(n)), UNREAD, marker=MARKERS[n], foreign=FOREIGN[n]) for n in PARTS}

TABLES: dict[str, tuple[Table, ...]] = {
    "g": (G, G_LAST),
    "d64": (CRITICS[4],),
    "d128": (CRITICS[5],),
    "d256": (CRITICS[6],),
}
NETWORKS = {
    "g": "jaxt2i.nn.attentive:Generator",
    "d64": "jaxt2i.nn.critics:Critic",
    "d128": "jaxt2i.nn.critics:Critic",
    "d256": "jaxt2i.nn.critics:Critic",
}
HALVINGS = {"d64": 4, "d128": 5, "d256": 6}


def g_sizes(state_dict: Mapping[str, np.ndarray], names: Mapping[str, str]) -> dict:
    """Fields that every generator of the family has."""
    shape = {name: state_dict[key].shape for name, key in names.items()}
    c_dim = shape["ca_net.fc.weight"][0] // 4
    blocks = [int(n.split(".")[2]) for n in shape if n.startswith("h_net2.residual.")]
    return {
        "base": shape["h_net2.upsample.1.weight"][0] // 2,
        "residuals": 1 + max(blocks, default=-1),
        "c_dim": c_dim,
        "z_dim": shape["h_net1.fc.0.weight"][1] - c_dim,
        "words_dim": shape["ca_net.fc.weight"][1],
    }


def d_sizes(net: str, state_dict: Mapping[str, np.ndarray], table: Table, kernel: str) -> dict:
    """Fields of a discriminator; `kernel` is what its normalised layers call their weights."""
    names = table.names(state_dict)
    shape = {name: state_dict[key].shape for name, key in names.items()}
    base = shape[f"img_code_s16.0.{kernel}"][0]
    joint = shape[f"COND_DNET.jointConv.0.{kernel}"]
    return {
        "base": base,
        "resolution": 4 * 2 ** HALVINGS[net],
        "unconditional": "UNCOND_DNET.outlogits.0.weight" in shape,
        "sentence_dim": joint[1] - joint[0],
    }


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict:
    """Fields of the network that a state dict was made with.

    Raises:
      KeyError: when the keys are not that network's.
    """
    if net != "g":
        return d_sizes(net, state_dict, TABLES[net][0], "weight")
    last = G_LAST.names(state_dict)
    names = last or G.names(state_dict)
    return {**g_sizes(state_dict, names), "last_only": bool(last)}
