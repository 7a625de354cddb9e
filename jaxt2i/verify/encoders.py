"""Encoders that folders of several systems hold, with the folder's weights."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.convert import rules
from jaxt2i.encoders import clip, clip_names
from jaxt2i.encoders import damsm_names as damsm_names
from jaxt2i.encoders.damsm import DamsmImage, DamsmText
from jaxt2i.verify.golden import Case, Golden
from jaxt2i.verify.networks import convert_net

# Where a network's keys are, under either naming; large folders fill only these.
CLIP_KEYS = {
    "text": (
        "text",
        "token_embedding",
        "positional_embedding",
        "transformer",
        "ln_final",
        "model.text",
    ),
    "image": ("vis",),
}


def clip_fields(config: Mapping, net: str) -> dict:
    """What a manifest says about a tower that its weights' shapes do not: heads, activation, end.

    Args:
      config: in the form of transformers, open_clip or OpenAI; empty: as published.
      net: "text" or "image".
    """
    if "text_config" in config or "text_cfg" in config:
        return clip_names.from_config(net, config)
    if not config:
        return {}
    if net == "text":
        return {"heads": config["transformer_heads"]}
    return {"heads": config["vision_width"] // 64}


def clip_tower(
    golden: Golden, name: str, net: str, **fields
) -> tuple[clip.ClipText | clip.ClipImage, dict]:
    """One tower of a folder's network, and its variables.

    Args:
      golden: the folder.
      name: of the network.
      net: "text" or "image".
      **fields: what the manifest leaves out.
    """
    weights = golden.weights(name, CLIP_KEYS[net])
    kind = clip.ClipText if net == "text" else clip.ClipImage
    sizes = clip_names.infer(net, weights) | clip_fields(golden.config(name), net) | fields
    module = kind(**sizes)
    table = clip_names.TABLES[net]
    return module, convert_net(golden, name, table, module, keep=CLIP_KEYS[net])


def damsm_text(golden: Golden, net: str = "text_encoder") -> tuple[DamsmText, dict, rules.Table]:
    """(DAMSM's text encoder as a network of the folder describes it, variables, table)."""
    module = DamsmText(**damsm_names.infer("text", golden.weights(net)))
    table = damsm_names.TEXT
    return module, convert_net(golden, net, table, module), table


def damsm_image(
    golden: Golden, net: str = "image_encoder", **fields
) -> tuple[DamsmImage, dict, rules.Table]:
    """(DAMSM's image encoder, variables, table)."""
    module, table = DamsmImage(**fields), damsm_names.IMAGE
    return module, convert_net(golden, net, table, module), table


def captions(case: Case, prefix: str = "in_") -> tuple[jax.Array, jax.Array]:
    """(tokens [B, T], mask [B, T]) of a case, T its longest caption."""
    lengths = case.inputs[f"{prefix}cap_lens"]
    tokens = case.inputs[f"{prefix}captions"][:, : lengths.max()]
    return jnp.asarray(tokens, jnp.int32), jnp.arange(tokens.shape[1]) < lengths[:, None]


def given_dropout(keep: jax.Array):
    """A context in which `nn.Dropout` keeps what a stored mask keeps.

    Args:
      keep: 1 where an entry stays, of the shape of what is dropped.
    """

    def intercept(call, args, kw, context):
        layer = context.module
        if not isinstance(layer, nn.Dropout) or kw.get("deterministic"):
            return call(*args, **kw)
        return args[0] * keep / (1 - layer.rate)

    return nn.intercept_methods(intercept)
