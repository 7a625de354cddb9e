"""TextControlGAN: names of gen_N.pth and disc_N.pth, and of the regressor, which was never saved.

The critic's last block does not halve, and its layers are named otherwise than those of the others,
so the number of blocks is part of a table: four at 64 pixels, five at 128.
"""

import re
from collections.abc import Iterator, Mapping

import numpy as np

from jaxt2i.convert.rules import Rule, Table

BLOCKS = (4, 5)


def spectral(source: str, target: str, op: str = "conv2d") -> Iterator[Rule]:
    """A spectrally normalised layer."""
    yield Rule(f"{source}.weight_orig", f"params/{target}/kernel", op)
    yield Rule(f"{source}.bias", f"params/{target}/bias")
    yield Rule(f"{source}.weight_u", f"spectral/{target}/u")
    yield Rule(f"{source}.weight_v", f"spectral/{target}/v")


def conditional(source: str, target: str) -> Iterator[Rule]:
    """A conditional norm."""
    yield from spectral(f"{source}weight", f"{target}scale", "dense")
    yield from spectral(f"{source}b", f"{target}shift", "dense")


def up_block(source: str, target: str) -> Iterator[Rule]:
    """A block of the generator."""
    for theirs, ours in (("conv1.1", "conv1"), ("conv2", "conv2"), ("shortcut.1", "shortcut")):
        yield from spectral(f"{source}.{theirs}", f"{target}/{ours}")
    for i in (1, 2):
        yield from conditional(f"{source}.cbn{i}.", f"{target}/norm{i}/")


def residual(source: str, target: str, down: bool) -> Iterator[Rule]:
    """A block of the critic or the regressor; `source` ends in its dot, or is "", as `target`."""
    half = ".0" if down else ""
    for theirs, ours in (
        ("conv1", "conv1"),
        (f"conv2{half}", "conv2"),
        (f"shortcut{half}", "shortcut"),
    ):
        yield from spectral(f"{source}{theirs}", f"{target}{ours}")


def projections() -> Iterator[Rule]:
    """The two layers behind a sentence."""
    for name in ("projection", "projection2"):
        yield from spectral(name, name, "dense")


def trunk(blocks: int) -> Iterator[Rule]:
    """What critic and regressor have in common."""
    first = "conv_first."
    for theirs, ours in (
        ("features.0", "conv1"),
        ("features.2.0", "conv2"),
        ("shortcut.1", "shortcut"),
    ):
        yield from spectral(f"{first}{theirs}", f"trunk/block0/{ours}")
    for i in range(1, blocks + 1):
        yield from residual(f"residual_0{i}.", f"trunk/block{i}/", down=i < blocks)
    yield from spectral("fc", "fc", "dense")


GENERATOR = Table(
    (
        *projections(),
        *spectral("conv_first", "start", "dense"),
        *up_block("residual_0{i}", "block{i}"),
        Rule("output_hr.0.running_mean", "batch_stats/norm/mean"),
        Rule("output_hr.0.running_var", "batch_stats/norm/var"),
        Rule("output_hr.0.num_batches_tracked", "batch_stats/norm/batches"),
        *spectral("output_hr.2", "to_rgb"),
    ),
    marker="output_hr.2.weight_orig",
)
CRITICS = tuple(
    Table(
        (*projections(), *trunk(n)),
        marker="projection.weight_orig",
        foreign="output_hr.2.weight_orig",
    )
    for n in BLOCKS
)
REGRESSORS = tuple(Table(tuple(trunk(n)), marker="fc.bias") for n in BLOCKS)

TABLES: dict[str, tuple[Table, ...]] = {"g": (GENERATOR,), "d": CRITICS, "c": REGRESSORS}
NETWORKS = {
    "g": "jaxt2i.systems.textcontrol_gan.method:Generator",
    "d": "jaxt2i.systems.textcontrol_gan.method:Discriminator",
    "c": "jaxt2i.systems.textcontrol_gan.method:Regressor",
}


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Fields of `Generator` ("g"), `Discriminator` ("d") or `Regressor` ("c") of a state dict.

    Raises:
      KeyError: when the keys are not that network's.
    """
    names: Mapping[str, str] = {}
    for table in TABLES[net]:
        names = names or table.names(state_dict)
    shape = {name: state_dict[key].shape for name, key in names.items()}
    numbers = (re.match(r"residual_0(\d+)\.", name) for name in shape)
    blocks = max((int(m[1]) for m in numbers if m), default=0)
    if net == "g":
        base, (start, part) = shape["output_hr.2.weight_orig"][1], shape["conv_first.weight_orig"]
        top, own = start // 16, {"part": part, "sentence_dim": shape["projection.weight_orig"][1]}
    else:
        base, top = shape["conv_first.features.0.weight_orig"][0], shape["fc.weight_orig"][1]
        projected = net == "d" and shape["projection.weight_orig"][1]
        own = {"sentence_dim": projected or shape["fc.weight_orig"][0]}
    # Widths grow to the widest layer, so that is the bound wherever there is one.
    return {"base": base, "most": top, "resolution": 4 * 2**blocks, **own}
