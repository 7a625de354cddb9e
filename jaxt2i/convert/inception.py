"""Inception-v3 under torchvision's names, which the PyTorch ports of the 2015 network share."""

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


MARKER = "Mixed_7c.branch_pool.conv.weight"
# Files of before PyTorch 0.4 have no counters; torchvision's has an auxiliary head.
UNREAD = ("*.num_batches_tracked", "AuxLogits.*")
FEATURES = Table(
    (
        *trunk("trunk"),
        Rule("fc.weight", "params/fc/kernel", "dense"),
        Rule("fc.bias", "params/fc_bias"),
    ),
    UNREAD,
    marker=MARKER,
)

TABLES: dict[str, tuple[Table, ...]] = {"features": (FEATURES,)}
NETWORKS = {"features": "jaxt2i.encoders.inception:InceptionFeatures"}


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict[str, int | str]:
    """Fields of `InceptionFeatures` that a state dict was made with.

    The pools leave no trace in a file, so they follow the classes: 1008 is the network of 2015,
    everything else torchvision's.

    Args:
      net: "features".
      state_dict: under torchvision's names.
    """
    names = FEATURES.names(state_dict)
    classes = len(state_dict[names["fc.bias"]]) if "fc.bias" in names else 1000
    if classes == 1008:
        return {"classes": classes, "pool": "average", "last_pool": "max"}
    return {"classes": classes, "pool": "padded", "last_pool": "padded"}
