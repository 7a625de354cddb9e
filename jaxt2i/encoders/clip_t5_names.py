"""CLIP-FlanT5's published names: those of transformers' T5, and a projection of LLaVA's."""

import re
from collections.abc import Mapping

import numpy as np
from etils import epath

from jaxt2i.convert import files, torch_files
from jaxt2i.convert.rules import Rule, Table
from jaxt2i.encoders.clip_names import linear
from jaxt2i.encoders.clip_t5 import VOCAB

PARTS = {"q": "query", "k": "key", "v": "value", "o": "proj"}


def attention(source: str, target: str) -> list[Rule]:
    """The four maps of an attention, and the norm before it."""
    layer, _, _ = source.rpartition(".")
    maps = [
        Rule(f"{source}.{theirs}.weight", f"{target}/{ours}/kernel", "dense", "i")
        for theirs, ours in PARTS.items()
    ]
    return [*maps, Rule(f"{layer}.layer_norm.weight", f"{target}/norm/scale", stack="i")]


def stack(name: str, memory: bool) -> list[Rule]:
    """An encoder, or a decoder, which also looks at its memory."""
    layer, to = f"{name}.block.{{i}}.layer.", f"params/{name}/blocks"
    mlp = f"{layer}{2 if memory else 1}"
    return [
        Rule(
            f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            f"params/{name}/distances",
        ),
        *attention(f"{layer}0.SelfAttention", f"{to}/words"),
        *(attention(f"{layer}1.EncDecAttention", f"{to}/memory") if memory else ()),
        Rule(f"{mlp}.layer_norm.weight", f"{to}/norm/scale", stack="i"),
        Rule(f"{mlp}.DenseReluDense.wi_0.weight", f"{to}/gate/kernel", "dense", "i"),
        Rule(f"{mlp}.DenseReluDense.wi_1.weight", f"{to}/fc/kernel", "dense", "i"),
        Rule(f"{mlp}.DenseReluDense.wo.weight", f"{to}/out/kernel", "dense", "i"),
        Rule(f"{name}.final_layer_norm.weight", f"params/{name}/norm/scale"),
    ]


T5 = Table(
    (
        Rule("shared.weight", "params/tokens/embedding"),
        Rule("lm_head.weight", "params/says/kernel", "dense"),
        *linear("mm_projector.0.", "look_0"),
        *linear("mm_projector.2.", "look_1"),
        *stack("encoder", False),
        *stack("decoder", True),
    ),
    # Copies of the one table of words, and the eye, which is OpenAI's own.
    ("*embed_tokens.weight", "vision_tower.*"),
    ("module.",),
)
TABLES: dict[str, tuple[Table, ...]] = {"t5": (T5,)}
NETWORKS = {"t5": "jaxt2i.encoders.clip_t5:FlanT5"}
SHARD = re.compile(r"(.+-)\d{5}(-of-\d{5}\..+)")


def read_all(path: epath.Path) -> torch_files.Found:
    """All tensors of a file, or of all the files that large weights are split into.

    Tables of words are cut to the tokenizer's, as the published code does it.
    """
    split = SHARD.fullmatch(path.name)
    places = [path]
    if split:
        places = sorted(path.parent.glob(f"{split[1]}*{split[2]}"))
    parts = [files.read_all(place) for place in places]
    tensors = {name: x for part in parts for name, x in part.tensors.items()}
    for name in ("shared.weight", "lm_head.weight"):
        if name in tensors and len(tensors[name]) > VOCAB:
            tensors[name] = tensors[name][:VOCAB]
    return torch_files.Found(tensors)


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The fields of the network that a state dict was made by.

    Args:
      net: "t5".
      state_dict: of the published names.
    """
    names = T5.names(state_dict)

    def shape(name: str) -> tuple[int, ...]:
        return state_dict[names[name]].shape

    heads = shape("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight")[1]
    layer = "encoder.block.{i}.layer.0.SelfAttention.q.weight"
    return {
        "width": shape("shared.weight")[1],
        "vocab": shape("shared.weight")[0],
        "heads": heads,
        "head": shape(layer.format(i=0))[0] // heads,
        "mlp": shape("encoder.block.0.layer.1.DenseReluDense.wi_0.weight")[0],
        "layers": sum(layer.format(i=i) in names for i in range(len(names))),
        "eye": shape("mm_projector.0.weight")[1],
    }


def from_config(net: str, config: Mapping) -> dict[str, int]:
    """What a config.json says beyond the shapes: nothing that is needed."""
    return {}
