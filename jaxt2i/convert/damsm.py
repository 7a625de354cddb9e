"""DAMSM: names of AttnGAN's text_encoderN.pth, which DF-GAN and others share."""

from collections.abc import Mapping

import numpy as np

from jaxt2i.convert.rules import Rule, Table


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
    )
)

TABLES: dict[str, tuple[Table, ...]] = {"text": (TEXT,)}
NETWORKS = {"text": "jaxt2i.encoders.damsm:DamsmText"}


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Fields of `DamsmText` that a state dict was made with.

    Raises:
      KeyError: when the keys are not that network's.
    """
    names = TEXT.names(state_dict)
    vocab, embed = state_dict[names["encoder.weight"]].shape
    hidden = state_dict[names["rnn.weight_hh_l0"]].shape[1]
    return {"vocab": vocab, "embed": embed, "width": 2 * hidden}
