"""DAMSM: names of AttnGAN's text_encoderN.pth and image_encoderN.pth, which many others share."""

from collections.abc import Mapping

import numpy as np

from jaxt2i.convert.rules import Rule, Table

# Paths of Inception-v3's units, as torchvision names them.
UNITS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"),
    *(
        f"Mixed_5{block}.{unit}"
        for block in "bcd"
        for unit in (
            *("branch1x1", "branch5x5_1", "branch5x5_2"),
            *("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3", "branch_pool"),
        )
    ),
    *(f"Mixed_6a.branch3x3{unit}" for unit in ("", "dbl_1", "dbl_2", "dbl_3")),
    *(
        f"Mixed_6{block}.{unit}"
        for block in "bcde"
        for unit in (
            *("branch1x1", "branch7x7_1", "branch7x7_2", "branch7x7_3"),
            *(f"branch7x7dbl_{i}" for i in range(1, 6)),
            "branch_pool",
        )
    ),
    *(f"Mixed_7a.branch{unit}" for unit in ("3x3_1", "3x3_2")),
    *(f"Mixed_7a.branch7x7x3_{i}" for i in range(1, 5)),
    *(
        f"Mixed_7{block}.{unit}"
        for block in "bc"
        for unit in (
            *("branch1x1", "branch3x3_1", "branch3x3_2a", "branch3x3_2b", "branch3x3dbl_1"),
            *("branch3x3dbl_2", "branch3x3dbl_3a", "branch3x3dbl_3b", "branch_pool"),
        )
    ),
)


def direction(suffix: str, target: str) -> list[Rule]:
    """One direction of the LSTM."""
    return [
        Rule(f"rnn.weight_ih_l0{suffix}", f"params/{target}/input", "dense"),
        Rule(f"rnn.weight_hh_l0{suffix}", f"params/{target}/recurrent", "dense"),
        Rule(f"rnn.bias_ih_l0{suffix}", f"params/{target}/input_bias"),
        Rule(f"rnn.bias_hh_l0{suffix}", f"params/{target}/recurrent_bias"),
    ]


TEXT = Table(
    (
        Rule("encoder.weight", "params/words/embedding"),
        *direction("", "forward"),
        *direction("_reverse", "backward"),
    ),
    marker="rnn.weight_hh_l0",
)


def trunk(target: str) -> list[Rule]:
    """Inception-v3 with its running statistics."""
    out = []
    for unit in UNITS:
        at = f"{target}/{unit.replace('.', '/')}"
        out += [
            Rule(f"{unit}.conv.weight", f"params/{at}/conv/kernel", "conv2d"),
            Rule(f"{unit}.bn.weight", f"params/{at}/bn/scale"),
            Rule(f"{unit}.bn.bias", f"params/{at}/bn/bias"),
            Rule(f"{unit}.bn.running_mean", f"batch_stats/{at}/bn/mean"),
            Rule(f"{unit}.bn.running_var", f"batch_stats/{at}/bn/var"),
        ]
    return out


# torchvision's ImageNet file has the same trunk, an auxiliary head and a classifier.
UNREAD = ("*.num_batches_tracked", "AuxLogits.*", "fc.*")
TRUNK = Table(tuple(trunk("trunk")), UNREAD, marker="Mixed_7c.branch_pool.conv.weight")
IMAGE = Table(
    (
        *trunk("trunk"),
        Rule("emb_features.weight", "params/regions/kernel", "dense1x1"),
        Rule("emb_cnn_code.weight", "params/code/kernel", "dense"),
        Rule("emb_cnn_code.bias", "params/code/bias"),
    ),
    UNREAD,
    marker="emb_features.weight",
)

TABLES: dict[str, tuple[Table, ...]] = {"text": (TEXT,), "image": (IMAGE,)}
NETWORKS = {
    "text": "jaxt2i.encoders.damsm:DamsmText",
    "image": "jaxt2i.encoders.damsm:DamsmImage",
}


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Fields of `DamsmText` or `DamsmImage` that a state dict was made with.

    Raises:
      KeyError: when the keys are not that network's.
    """
    if net == "image":
        names = IMAGE.names(state_dict)
        return {"width": len(state_dict[names["emb_cnn_code.bias"]])}
    names = TEXT.names(state_dict)
    vocab, embed = state_dict[names["encoder.weight"]].shape
    hidden = state_dict[names["rnn.weight_hh_l0"]].shape[1]
    return {"vocab": vocab, "embed": embed, "width": 2 * hidden}
