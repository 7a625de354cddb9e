"""DINO under timm's names, DINOv2 under its own (those of torch.hub) and Hugging Face's."""

from collections.abc import Mapping

import numpy as np

from jaxt2i.convert.rules import Rule, Table, pick
from jaxt2i.encoders.clip_names import BLOCKS, linear, norm


def timm_blocks() -> list[Rule]:
    """Blocks with fused query, key and value; only DINOv2's have factors."""
    block = "blocks.{i}."
    return [
        *norm(f"{block}norm1", f"{BLOCKS}/norm1", "i"),
        *linear(f"{block}attn.qkv.", f"{BLOCKS}/qkv", "i"),
        *linear(f"{block}attn.proj.", f"{BLOCKS}/proj", "i"),
        Rule(f"{block}ls1.gamma", f"params/{BLOCKS}/scale1", stack="i"),
        *norm(f"{block}norm2", f"{BLOCKS}/norm2", "i"),
        *linear(f"{block}mlp.fc1.", f"{BLOCKS}/fc1", "i"),
        *linear(f"{block}mlp.fc2.", f"{BLOCKS}/fc2", "i"),
        Rule(f"{block}ls2.gamma", f"params/{BLOCKS}/scale2", stack="i"),
    ]


def hf_blocks(query: str, key: str, value: str, out: str) -> list[Rule]:
    """DINOv2's blocks; transformers 5 renamed the attention's layers."""
    block = "encoder.layer.{i}."
    return [
        *norm(f"{block}norm1", f"{BLOCKS}/norm1", "i"),
        *(
            rule
            for k, name in enumerate((query, key, value))
            for rule in linear(f"{block}attention.{name}.", f"{BLOCKS}/qkv", "i", (k, 3))
        ),
        *linear(f"{block}attention.{out}.", f"{BLOCKS}/proj", "i"),
        Rule(f"{block}layer_scale1.lambda1", f"params/{BLOCKS}/scale1", stack="i"),
        *norm(f"{block}norm2", f"{BLOCKS}/norm2", "i"),
        *linear(f"{block}mlp.fc1.", f"{BLOCKS}/fc1", "i"),
        *linear(f"{block}mlp.fc2.", f"{BLOCKS}/fc2", "i"),
        Rule(f"{block}layer_scale2.lambda1", f"params/{BLOCKS}/scale2", stack="i"),
    ]


def ends(token: str, positions: str, patch: str, last: str) -> list[Rule]:
    """What stands before and after the blocks."""
    return [
        Rule(token, "params/embed/class_token", "token"),
        Rule(positions, "params/embed/positions", "unbatch"),
        Rule(f"{patch}.weight", "params/embed/patch/kernel", "conv2d"),
        Rule(f"{patch}.bias", "params/embed/patch/bias"),
        *norm(last, "norm"),
    ]


# The second prefix is that of StyleGAN-T's own snapshots; head.* and fc_norm.* classify.
TIMM = Table(
    (*ends("cls_token", "pos_embed", "patch_embed.proj", "norm"), *timm_blocks()),
    ("head.*", "fc_norm.*", "mask_token"),
    ("module.", "dino.model.model.", "dino.model.", "dino.", "backbone."),
    foreign="register_tokens",
)


def _hf(*attention: str) -> Table:
    start = "embeddings."
    names = ("cls_token", "position_embeddings", "patch_embeddings.projection")
    rules = (*ends(*(start + name for name in names), "layernorm"), *hf_blocks(*attention))
    ignored, prefixes = ("embeddings.mask_token",), ("module.", "dinov2.")
    return Table(rules, ignored, prefixes, foreign="embeddings.register_tokens")


HF = _hf("q_proj", "k_proj", "v_proj", "o_proj")
HF_PUBLISHED = _hf("attention.query", "attention.key", "attention.value", "output.dense")

TABLES: dict[str, tuple[Table, ...]] = {"features": (TIMM, HF, HF_PUBLISHED)}
NETWORKS = {"features": "jaxt2i.encoders.dino:DinoFeatures"}


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict:
    """The fields of the network that a state dict was made by.

    Args:
      net: "features".
      state_dict: of any of the namings.

    Returns:
      Keyword arguments of `DinoFeatures`: heads of 64 channels, taps at every quarter of the
      depth, positions resized as the code does it whose names the file has.
    """
    table = pick(TABLES[net], state_dict)
    names = table.names(state_dict)
    source = {rule.target: rule.source for rule in table.rules}

    def shape(path: str) -> tuple[int, ...]:
        return state_dict[names[source[f"params/{path}"].replace("{i}", "0")]].shape

    layer = source[f"params/{BLOCKS}/norm1/scale"]
    width, patch = shape("norm/scale")[0], shape("embed/patch/kernel")[-1]
    layers = sum(layer.replace("{i}", str(i)) in names for i in range(len(names)))
    scaled = source[f"params/{BLOCKS}/scale1"].replace("{i}", "0") in names
    bicubic = "bicubic_hub" if table is TIMM else "bicubic"
    return {
        "resolution": round((shape("embed/positions")[1] - 1) ** 0.5) * patch,
        "patch": patch,
        "width": width,
        "layers": layers,
        "heads": max(1, width // 64),
        "mlp_ratio": shape(f"{BLOCKS}/fc1/kernel")[0] / width,
        "taps": tuple(layers * k // 4 - 1 for k in (1, 2, 3, 4) if layers * k >= 4),
        "layer_scale": scaled,
        "resize": bicubic if scaled else "bilinear",
    }


def from_config(net: str, config: Mapping) -> dict[str, int]:
    """What Hugging Face's config.json says beyond the shapes; timm's says nothing."""
    heads = config.get("num_attention_heads")
    return {"heads": heads} if heads else {}
