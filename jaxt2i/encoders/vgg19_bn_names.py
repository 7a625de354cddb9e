"""VGG19 with batch norms, as torchvision publishes it: vgg19_bn-c79401a0.pth."""

from collections.abc import Iterator, Mapping

import numpy as np

from jaxt2i.convert.rules import Rule, Table
from jaxt2i.encoders.vgg19_bn import POOLED, WIDTHS


def layers() -> Iterator[Rule]:
    """Every convolution and its norm, numbered as in the Sequential that holds them all."""
    at = 0
    for i in range(len(WIDTHS)):
        yield Rule(f"features.{at}.weight", f"params/conv{i}/kernel", "conv2d")
        yield Rule(f"features.{at}.bias", f"params/conv{i}/bias")
        yield Rule(f"features.{at + 1}.weight", f"params/norm{i}/scale")
        yield Rule(f"features.{at + 1}.bias", f"params/norm{i}/bias")
        for kind in ("mean", "var"):
            yield Rule(f"features.{at + 1}.running_{kind}", f"batch_stats/norm{i}/{kind}")
        at += 3 + (i in POOLED)
    for i, number in enumerate((0, 3, 6)):
        yield Rule(f"classifier.{number}.weight", f"params/fc{i}/kernel", "dense")
        yield Rule(f"classifier.{number}.bias", f"params/fc{i}/bias")


FEATURES = Table(tuple(layers()), ("*.num_batches_tracked",), marker="features.50.running_mean")
TABLES: dict[str, tuple[Table, ...]] = {"features": (FEATURES,)}
NETWORKS = {"features": "jaxt2i.encoders.vgg19_bn:Vgg19Bn"}


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict:
    """Fields of `Vgg19Bn` that a state dict was made with.

    Raises:
      KeyError: when the keys are not that network's.
    """
    names = FEATURES.names(state_dict)
    kernels = [rule.source for rule in FEATURES.rules if rule.op == "conv2d"]
    return {
        "widths": tuple(len(state_dict[names[key]]) for key in kernels),
        "hidden": len(state_dict[names["classifier.0.bias"]]),
        "classes": len(state_dict[names["classifier.6.bias"]]),
    }
