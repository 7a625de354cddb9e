"""Inception-v3 under the names of torchvision, TF-slim and Keras.

The PyTorch ports of the 2015 network have torchvision's.
"""

import collections
import re
from collections.abc import Mapping

import numpy as np

from jaxt2i.convert.rules import Rule, Table, pick

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

# TF-slim's scopes of 2016, by torchvision's blocks.
SLIM = {
    **{name: f"conv{i}" for i, name in enumerate(UNITS[:5])},
    **{
        f"Mixed_5{block}": f"mixed_35x35x{scope}"
        for block, scope in zip("bcd", ("256a", "288a", "288b"), strict=True)
    },
    **{f"Mixed_6{block}": f"mixed_17x17x768{block}" for block in "abcde"},
    "Mixed_7a": "mixed_17x17x1280a",
    "Mixed_7b": "mixed_8x8x2048a",
    "Mixed_7c": "mixed_8x8x2048b",
}
AVERAGED = "/ExponentialMovingAverage"


def slim_scopes() -> dict[str, str]:
    """{torchvision's unit: TF-slim's scope}; a branch's convolutions are numbered as they come."""
    out, count = {}, collections.Counter()
    for unit in UNITS:
        block, _, name = unit.partition(".")
        if not name:
            out[unit] = SLIM[block]
            continue
        branch = f"{SLIM[block]}/{re.sub(r'_[0-9][ab]?$', '', name)}"
        out[unit] = f"{branch}/Conv_{count[branch]}"
        count[branch] += 1
    return out


def unscaled(unit: str, kernel: str, norm: str, suffix: str = "") -> list[Rule]:
    """A unit whose norm has no scale, by the names of its kernel and of its norm's scope."""
    at = f"trunk/{unit.replace('.', '/')}"
    return [
        Rule(f"{kernel}{suffix}", f"params/{at}/conv/kernel"),
        Rule(f"{norm}/beta{suffix}", f"params/{at}/bias"),
        Rule(f"{norm}/moving_mean{suffix}", f"batch_stats/{at}/bn/mean"),
        Rule(f"{norm}/moving_variance{suffix}", f"batch_stats/{at}/bn/var"),
    ]


def slim(suffix: str) -> Table:
    """TF-slim's checkpoint.

    Source: inception/slim/inception_model.py and ops.py of hanzhanggit/StackGAN-inception-model.
    Convolutions of a branch have no names there; TensorFlow's scopes number them as they are made.

    Args:
      suffix: of the values that are read: `AVERAGED`, or "" for those of the last step.
    """
    rules = [
        rule
        for unit, scope in slim_scopes().items()
        for rule in unscaled(unit, f"{scope}/weights", f"{scope}/BatchNorm", suffix)
    ]
    rules += [
        Rule(f"logits/logits/weights{suffix}", "params/fc/kernel"),
        Rule(f"logits/logits/biases{suffix}", "params/fc_bias"),
    ]
    # Beside the averages lie the last step's values; the optimiser's, and a head that only trained.
    last = (rule.source.removesuffix(suffix) for rule in rules if suffix)
    unread = (*last, "*/RMSProp*", "aux_logits/*", "global_step")
    marker = f"mixed_8x8x2048b/branch_pool/Conv_0/weights{suffix}"
    return Table(tuple(rules), unread, marker=marker, counted=("Conv",))


def keras() -> Table:
    """Keras' .h5: layers numbered as they are made, which is the order of `UNITS`."""
    rules = [
        rule
        for i, unit in enumerate(UNITS)
        for rule in unscaled(unit, f"conv2d_{i}/kernel", f"batch_normalization_{i}")
    ]
    head = [
        Rule("predictions/kernel", "params/fc/kernel"),
        Rule("predictions/bias", "params/fc_bias"),
    ]
    counted = ("conv2d", "batch_normalization")
    return Table((*rules, *head), marker="conv2d_93/kernel", counted=counted)


# Evaluation restores the averages; a checkpoint without them holds what was restored from some.
TABLES: dict[str, tuple[Table, ...]] = {"features": (FEATURES, slim(AVERAGED), slim(""), keras())}
NETWORKS = {"features": "jaxt2i.encoders.inception:InceptionFeatures"}


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict[str, int | str | bool]:
    """Fields of `InceptionFeatures` that a state dict was made with.

    The pools leave no trace in a file. TF-slim's and Keras' names tell theirs; under torchvision's
    names they follow the classes: 1008 is the network of 2015, everything else torchvision's.

    Args:
      net: "features".
      state_dict: under one of the namings.
    """
    table = pick(TABLES[net], state_dict)
    names = table.names(state_dict)
    bias = next(rule.source for rule in table.rules if rule.target == "params/fc_bias")
    classes = len(state_dict[names[bias]]) if bias in names else 1000
    if table is not FEATURES:
        return {"classes": classes, "pool": "average", "last_pool": "average", "scaled": False}
    if classes == 1008:
        return {"classes": classes, "pool": "average", "last_pool": "max", "scaled": True}
    return {"classes": classes, "pool": "padded", "last_pool": "padded", "scaled": True}
