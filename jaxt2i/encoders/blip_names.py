"""ImageReward's published names: BLIP's own, not those of transformers."""

from collections.abc import Mapping

import numpy as np

from jaxt2i.convert.rules import Rule, Table
from jaxt2i.encoders.clip_names import linear, norm

EYE, TEXT = "blip.visual_encoder.", "blip.text_encoder."
# The head's linear maps among its layers; the others drop out in training.
HEAD = (0, 2, 4, 6, 7)


def eye() -> list[Rule]:
    """The image tower, under timm's names."""
    block, to = EYE + "blocks.{i}.", "transformer/blocks"
    return [
        Rule(f"{EYE}cls_token", "params/embed/class_token", "token"),
        Rule(f"{EYE}pos_embed", "params/embed/positions", "unbatch"),
        Rule(f"{EYE}patch_embed.proj.weight", "params/embed/patch/kernel", "conv2d"),
        Rule(f"{EYE}patch_embed.proj.bias", "params/embed/patch/bias"),
        *norm(f"{block}norm1", f"{to}/norm1", "i"),
        *linear(f"{block}attn.qkv.", f"{to}/qkv", "i"),
        *linear(f"{block}attn.proj.", f"{to}/proj", "i"),
        *norm(f"{block}norm2", f"{to}/norm2", "i"),
        *linear(f"{block}mlp.fc1.", f"{to}/fc1", "i"),
        *linear(f"{block}mlp.fc2.", f"{to}/fc2", "i"),
        *norm(f"{EYE}norm", "norm"),
    ]


def text() -> list[Rule]:
    """The text tower, under BERT's names."""
    start, block = TEXT + "embeddings.", TEXT + "encoder.layer.{i}."
    attentions = (("attention", "words"), ("crossattention", "picture"))
    return [
        Rule(f"{start}word_embeddings.weight", "params/tokens/embedding"),
        Rule(f"{start}position_embeddings.weight", "params/places"),
        *norm(f"{start}LayerNorm", "text_norm"),
        *(
            rule
            for source, to in attentions
            for rule in (
                *(
                    one
                    for part in ("query", "key", "value")
                    for one in linear(f"{block}{source}.self.{part}.", f"blocks/{to}/{part}", "i")
                ),
                *linear(f"{block}{source}.output.dense.", f"blocks/{to}/proj", "i"),
                *norm(f"{block}{source}.output.LayerNorm", f"blocks/{to}/norm", "i"),
            )
        ),
        *linear(f"{block}intermediate.dense.", "blocks/fc1", "i"),
        *linear(f"{block}output.dense.", "blocks/fc2", "i"),
        *norm(f"{block}output.LayerNorm", "blocks/norm", "i"),
    ]


def head() -> list[Rule]:
    """The head."""
    return [rule for i, at in enumerate(HEAD) for rule in linear(f"mlp.layers.{at}.", f"judge_{i}")]


# What BLIP was pretrained by, and nothing here reads.
UNREAD = ("blip.vision_proj.*", "blip.text_proj.*", "*.position_ids")
IMAGE_REWARD = Table((*eye(), *text(), *head()), UNREAD, ("module.",))

TABLES: dict[str, tuple[Table, ...]] = {"reward": (IMAGE_REWARD,)}
NETWORKS = {"reward": "jaxt2i.encoders.blip:ImageReward"}


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict:
    """The fields of the network that a state dict was made by.

    Args:
      net: "reward".
      state_dict: of the published names.

    Returns:
      Keyword arguments of `ImageReward`: heads of 64 channels.
    """
    names = IMAGE_REWARD.names(state_dict)

    def shape(name: str) -> tuple[int, ...]:
        return state_dict[names[name]].shape

    def count(prefix: str, rest: str) -> int:
        return sum(f"{prefix}{i}.{rest}" in names for i in range(len(names)))

    width, _, _, patch = shape(f"{EYE}patch_embed.proj.weight")
    vocab, text_width = shape(f"{TEXT}embeddings.word_embeddings.weight")
    return {
        "resolution": round((shape(f"{EYE}pos_embed")[1] - 1) ** 0.5) * patch,
        "patch": patch,
        "width": width,
        "layers": count(f"{EYE}blocks.", "norm1.weight"),
        "heads": max(1, width // 64),
        "mlp_ratio": shape(f"{EYE}blocks.0.mlp.fc1.weight")[0] / width,
        "vocab": vocab,
        "positions": shape(f"{TEXT}embeddings.position_embeddings.weight")[0],
        "text_width": text_width,
        "text_layers": count(f"{TEXT}encoder.layer.", "output.dense.weight"),
        "text_heads": max(1, text_width // 64),
        "text_mlp": shape(f"{TEXT}encoder.layer.0.intermediate.dense.weight")[0],
        "head": tuple(shape(f"mlp.layers.{at}.weight")[0] for at in HEAD[:-1]),
    }


def from_config(net: str, config: Mapping) -> dict[str, int]:
    """What a config.json says beyond the shapes: nothing of this network."""
    return {}
