"""DAMSM: names of AttnGAN's text_encoderN.pth and image_encoderN.pth, which many others share."""

from collections.abc import Mapping

import numpy as np

from jaxt2i.convert.rules import Rule, Table
from jaxt2i.encoders import inception_names as inception


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


# torchvision's ImageNet file has the same trunk, and a classifier.
UNREAD = (*inception.UNREAD, "fc.*")
TRUNK = Table(tuple(inception.trunk("trunk")), UNREAD, marker=inception.MARKER)
IMAGE = Table(
    (
        *inception.trunk("trunk"),
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
