"""LPIPS: a trunk under torchvision's or LPIPS's names, and the weights of its layers."""

from collections.abc import Mapping

import numpy as np

from jaxt2i.convert.rules import Rule, Table, pick

# Places in torchvision's `features`, in LPIPS's slices.
SLICES: dict[str, tuple[tuple[int, ...], ...]] = {
    "vgg": ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)),
    "alex": ((0,), (3,), (6,), (8,), (10,)),
    "squeeze": ((0,), (3, 4), (6, 7), (9,), (10,), (11,), (12,)),
}


def conv(source: str, target: str) -> list[Rule]:
    """A convolution with a bias."""
    return [
        Rule(f"{source}.weight", f"params/{target}/kernel", "conv2d"),
        Rule(f"{source}.bias", f"params/{target}/bias"),
    ]


def trunk(net: str, source: str = "features.", target: str = "") -> list[Rule]:
    """The convolutions of a trunk.

    Args:
      net: key of `SLICES`.
      source: what stands before an index; "{slice}" is the number of its slice.
      target: path of the trunk, ending in "/".
    """
    out = []
    for k, indices in enumerate(SLICES[net]):
        for i in indices:
            key = f"{source.replace('{slice}', str(k + 1))}{i}"
            if net != "squeeze" or i == 0:
                out += conv(key, f"{target}conv{i}")
                continue
            for part in ("squeeze", "expand1x1", "expand3x3"):
                out += conv(f"{key}.{part}", f"{target}fire{i}_{part}")
    return out


TRUNKS: dict[Table, str] = {
    **{Table(tuple(trunk(net)), ("classifier.*",)): net for net in SLICES},
    **{
        Table(tuple(trunk(net, "net.slice{slice}.")), ("lin*", "scaling_layer.*")): net
        for net in SLICES
    },
}
LIN = Table(
    (Rule("lin{k}.model.1.weight", "params/lin{k}", "squeeze"),),
    ("net.*", "lins.*", "scaling_layer.*"),
)
TABLES: dict[str, tuple[Table, ...]] = {"trunk": tuple(TRUNKS), "lin": (LIN,)}
NETWORKS = {"trunk": "jaxt2i.encoders.trunks:Trunk", "lin": "jaxt2i.encoders.lpips:Lin"}


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The field of `Trunk` or `Lin` that a state dict was made with.

    Args:
      net: "trunk" or "lin".
      state_dict: of any of the three networks.
    """
    if net == "trunk":
        return {"net": TRUNKS[pick(TABLES["trunk"], state_dict)]}
    layers = [state_dict[key].size for key in sorted(LIN.names(state_dict)) if "model" in key]
    return {"net": "squeeze" if len(layers) > 5 else "alex" if layers[1] == 192 else "vgg"}
