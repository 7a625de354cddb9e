"""Obj-GAN's box generator: names of the decoder's state dict, and of its text encoder's.

The published checkpoint is a pickled network, model.pt, whose weights are to be exported where its
code is trusted; `python -m jaxt2i.convert` says how. Its encoder is DAMSM's of COCO, a file of its
own: `python -m jaxt2i.convert damsm`.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from jaxt2i.convert.rules import Rule, Table
from jaxt2i.encoders.damsm_names import direction


def linear(source: str, target: str) -> Iterator[Rule]:
    """A dense layer."""
    yield Rule(f"{source}.weight", f"params/{target}/kernel", "dense")
    yield Rule(f"{source}.bias", f"params/{target}/bias")


LAYERS = ("xy_embedding", "wh_embedding", "next_xy_embedding", "l_out", "xy_out", "wh_out")
DECODER = Table(
    (
        Rule("l_embedding.weight", "params/l_embedding/embedding"),
        *(rule for name in LAYERS for rule in linear(name, name)),
        *direction("", "rnn"),
        *linear("attention.attn", "attend"),
        Rule("attention.v", "params/attend/v"),
    ),
    part="decoder.",
    marker="next_xy_embedding.weight",
)
TABLES: dict[str, tuple[Table, ...]] = {"decoder": (DECODER,)}
NETWORKS = {"decoder": "jaxt2i.systems.obj_gan_boxes.networks:Decoder"}


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict:
    """Fields of `Decoder` that a state dict was made with.

    Raises:
      KeyError: when the keys are not that network's.
    """
    names = DECODER.names(state_dict)
    labels, width = state_dict[names["l_embedding.weight"]].shape
    return {
        "labels": labels,
        "width": width,
        "mixtures": len(state_dict[names["xy_out.bias"]]) // 6,
        "attention": "attention.v" in names,
    }
