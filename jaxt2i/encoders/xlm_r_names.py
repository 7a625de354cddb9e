"""XLM-RoBERTa: Hugging Face's names of the encoder, alone, in a language model and in M-CLIP.

sentence-transformers' clip-ViT-B-32-multilingual-v1 has the same head on another encoder, a
DistilBERT, and is not read.
"""

from collections.abc import Mapping

import numpy as np

from jaxt2i.convert.rules import Rule, Table, pick
from jaxt2i.encoders.clip_names import linear, norm


def encoder(prefix: str) -> list[Rule]:
    """The encoder, without a head."""
    start, block = f"{prefix}embeddings.", prefix + "encoder.layer.{i}."
    return [
        Rule(f"{start}word_embeddings.weight", "params/tokens/embedding"),
        Rule(f"{start}position_embeddings.weight", "params/positions"),
        Rule(f"{start}token_type_embeddings.weight", "params/kind", "unbatch"),
        *norm(f"{start}LayerNorm", "norm"),
        *(
            rule
            for k, name in enumerate(("query", "key", "value"))
            for rule in linear(f"{block}attention.self.{name}.", "blocks/qkv", "i", (k, 3))
        ),
        *linear(f"{block}attention.output.dense.", "blocks/proj", "i"),
        *norm(f"{block}attention.output.LayerNorm", "blocks/norm1", "i"),
        *linear(f"{block}intermediate.dense.", "blocks/fc1", "i"),
        *linear(f"{block}output.dense.", "blocks/fc2", "i"),
        *norm(f"{block}output.LayerNorm", "blocks/norm2", "i"),
    ]


# The pooler reads the first token alone and serves classifiers, lm_head guesses hidden words.
UNREAD = ("*embeddings.position_ids", "*pooler.dense.*", "lm_head.*")
M_CLIP = Table((*encoder("transformer."), *linear("LinearTransformation.", "proj")), UNREAD)
BARE = Table(tuple(encoder("")), UNREAD)
LANGUAGE_MODEL = Table(tuple(encoder("roberta.")), UNREAD)

TABLES: dict[str, tuple[Table, ...]] = {"text": (M_CLIP, BARE, LANGUAGE_MODEL)}
NETWORKS = {"text": "jaxt2i.encoders.xlm_r:XlmRText"}


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The fields of the encoder that a state dict was made by.

    Args:
      net: "text".
      state_dict: of any of the namings.

    Returns:
      Keyword arguments of `XlmRText`: heads of 64 channels, two rows of the position table for
      padding; `joint` is 0 where the file has no map into a joint space.

    Raises:
      KeyError: when the keys are not that network's.
    """
    table = pick(TABLES[net], state_dict)
    names = table.names(state_dict)
    source = {rule.target: rule.source for rule in table.rules}

    def shape(path: str) -> tuple[int, ...]:
        return state_dict[names[source[f"params/{path}"].replace("{i}", "0")]].shape

    vocab, width = shape("tokens/embedding")
    layer = source["params/blocks/norm1/scale"]
    return {
        "vocab": vocab,
        "length": shape("positions")[0] - 2,
        "width": width,
        "layers": sum(layer.replace("{i}", str(i)) in names for i in range(len(names))),
        "heads": max(1, width // 64),
        "mlp": shape("blocks/fc1/kernel")[0],
        "joint": shape("proj/kernel")[0] if "LinearTransformation.weight" in names else 0,
    }


def from_config(net: str, config: Mapping) -> dict[str, int | float]:
    """What Hugging Face's config.json says beyond the shapes; M-CLIP's says nothing."""
    known = {"num_attention_heads": "heads", "layer_norm_eps": "eps"}
    return {field: config[name] for name, field in known.items() if name in config}
