"""Souza et al.: names of the official state dicts, one network a file.

Published files hold {"it", "optimizer", "net"}; every block is there twice, as `blockN.*` and as
`main.I.*`, of which the second is ignored.
"""

import fnmatch
from collections.abc import Mapping

import numpy as np

from jaxt2i.convert.rules import Rule, Table


def spectral(source: str, target: str, op: str = "conv2d") -> list[Rule]:
    """A spectrally normalised layer."""
    return [
        Rule(f"{source}.weight_orig", f"params/{target}/kernel", op),
        Rule(f"{source}.bias", f"params/{target}/bias"),
        Rule(f"{source}.weight_u", f"spectral/{target}/u"),
        Rule(f"{source}.weight_v", f"spectral/{target}/v"),
    ]


def statistics(source: str, target: str) -> list[Rule]:
    """A batch norm's running statistics."""
    return [
        Rule(f"{source}.running_mean", f"batch_stats/{target}/mean"),
        Rule(f"{source}.running_var", f"batch_stats/{target}/var"),
    ]


def blocks() -> list[Rule]:
    """What the blocks of both networks have; the generator's also have conditional norms."""
    block, target = "block{i}.", "block{i}/"
    norm = "block{i}.bn{j}."
    return [
        *spectral(f"{block}conv{{j}}", f"{target}conv{{j}}"),
        *spectral(f"{block}conv_sc", f"{target}conv_sc"),
        *statistics(f"{norm}bn", f"{target}bn{{j}}/norm"),
        *spectral(f"{norm}gammas_projection", f"{target}bn{{j}}/gamma", "dense"),
        *spectral(f"{norm}betas_projection", f"{target}bn{{j}}/beta", "dense"),
        *(
            rule
            for name in ("theta", "phi", "g", "o")
            for rule in spectral(f"non_local.{name}", f"non_local/{name}")
        ),
        Rule("non_local.gamma", "params/non_local/gamma"),
    ]


DOUBLES = ("main.*", "*.num_batches_tracked")
GENERATOR = Table(
    (
        *spectral("block1", "start", "dense"),
        *blocks(),
        Rule("bn.weight", "params/bn/scale"),
        Rule("bn.bias", "params/bn/bias"),
        *statistics("bn", "bn"),
        *spectral("block{i}", "block{i}"),
    ),
    DOUBLES,
    ("module.",),
    marker="bn.weight",
)
DISCRIMINATOR = Table(
    (
        *spectral("block1", "block1"),
        *blocks(),
        *spectral("linear_out", "linear_out", "dense"),
        *spectral("emb_proj", "emb_proj", "dense"),
    ),
    DOUBLES,
    ("module.",),
    marker="linear_out.weight_orig",
)

TABLES: dict[str, tuple[Table, ...]] = {"g": (GENERATOR,), "d": (DISCRIMINATOR,)}
NETWORKS = {
    "g": "jaxt2i.systems.souza.method:Generator",
    "d": "jaxt2i.systems.souza.method:Discriminator",
}


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Fields of `Generator` ("g") or `Discriminator` ("d") that a state dict was made with.

    Raises:
      KeyError: when the keys are not that network's.
    """
    names = TABLES[net][0].names(state_dict)
    shape = {name: state_dict[key].shape for name, key in names.items()}
    # Every doubling has two blocks of four convolutions.
    doublings = len(fnmatch.filter(shape, "block*.conv1.weight_orig")) // 2
    resolution = 4 * 2**doublings
    if net == "d":
        base, text = shape["block1.weight_orig"][0], shape["emb_proj.weight_orig"][1]
        own = {"sentence_dim": text}
    else:
        base, z_dim = shape["bn.weight"][0], shape["block1.weight_orig"][1]
        cond = shape["block2.bn1.gammas_projection.weight_orig"][1]
        own = {"z_dim": z_dim, "sentence_dim": cond - z_dim}
    attention = 0
    if "non_local.theta.weight_orig" in shape:
        # The published networks attend at 64 pixels, whatever the pictures' size.
        attention = 64
    return {"base": base, "resolution": resolution, "attention": attention, **own}
