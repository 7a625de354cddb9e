"""CLIP: the names of Hugging Face's files and those of OpenAI's and open_clip's."""

from collections.abc import Mapping

import numpy as np

from jaxt2i.convert.rules import Rule, Table, pick


def norm(source: str, target: str, stack: str | None = None) -> list[Rule]:
    """A layer norm."""
    return [
        Rule(f"{source}.weight", f"params/{target}/scale", stack=stack),
        Rule(f"{source}.bias", f"params/{target}/bias", stack=stack),
    ]


def linear(source: str, target: str, stack: str | None = None, part=None) -> list[Rule]:
    """A linear layer with a bias; `source` ends in the separator before "weight"."""
    return [
        Rule(f"{source}weight", f"params/{target}/kernel", "dense", stack, part),
        Rule(f"{source}bias", f"params/{target}/bias", "copy", stack, part),
    ]


BLOCKS = "transformer/blocks"


def openai_blocks(prefix: str) -> list[Rule]:
    """Blocks with fused query, key and value."""
    block = prefix + "transformer.resblocks.{i}."
    return [
        *norm(f"{block}ln_1", f"{BLOCKS}/norm1", "i"),
        *linear(f"{block}attn.in_proj_", f"{BLOCKS}/qkv", "i"),
        *linear(f"{block}attn.out_proj.", f"{BLOCKS}/proj", "i"),
        *norm(f"{block}ln_2", f"{BLOCKS}/norm2", "i"),
        *linear(f"{block}mlp.c_fc.", f"{BLOCKS}/fc1", "i"),
        *linear(f"{block}mlp.c_proj.", f"{BLOCKS}/fc2", "i"),
    ]


def hf_blocks(prefix: str) -> list[Rule]:
    """Blocks with separate query, key and value."""
    block = prefix + ".encoder.layers.{i}."
    return [
        *norm(f"{block}layer_norm1", f"{BLOCKS}/norm1", "i"),
        *(
            rule
            for k, name in enumerate("qkv")
            for rule in linear(f"{block}self_attn.{name}_proj.", f"{BLOCKS}/qkv", "i", (k, 3))
        ),
        *linear(f"{block}self_attn.out_proj.", f"{BLOCKS}/proj", "i"),
        *norm(f"{block}layer_norm2", f"{BLOCKS}/norm2", "i"),
        *linear(f"{block}mlp.fc1.", f"{BLOCKS}/fc1", "i"),
        *linear(f"{block}mlp.fc2.", f"{BLOCKS}/fc2", "i"),
    ]


HF_BUFFERS = ("*.position_ids",)
# Scalars inside OpenAI's archives, and open_clip's stored causal mask.
OPENAI_BUFFERS = ("input_resolution", "context_length", "vocab_size", "attn_mask")

HF_TEXT = Table(
    (
        Rule("text_model.embeddings.token_embedding.weight", "params/tokens/embedding"),
        Rule("text_model.embeddings.position_embedding.weight", "params/positions"),
        *hf_blocks("text_model"),
        *norm("text_model.final_layer_norm", "norm"),
        Rule("text_projection.weight", "params/proj/kernel", "dense"),
    ),
    HF_BUFFERS,
    ("module.",),
)
HF_IMAGE = Table(
    (
        Rule("vision_model.embeddings.class_embedding", "params/embed/class_token"),
        Rule("vision_model.embeddings.position_embedding.weight", "params/embed/positions"),
        Rule(
            "vision_model.embeddings.patch_embedding.weight", "params/embed/patch/kernel", "conv2d"
        ),
        *norm("vision_model.pre_layrnorm", "pre_norm"),  # the misspelling is Hugging Face's
        *hf_blocks("vision_model"),
        *norm("vision_model.post_layernorm", "post_norm"),
        Rule("visual_projection.weight", "params/proj/kernel", "dense"),
    ),
    HF_BUFFERS,
    ("module.",),
)
OPENAI_TEXT = Table(
    (
        Rule("token_embedding.weight", "params/tokens/embedding"),
        Rule("positional_embedding", "params/positions"),
        *openai_blocks(""),
        *norm("ln_final", "norm"),
        Rule("text_projection", "params/proj/kernel"),
    ),
    OPENAI_BUFFERS,
)
OPENAI_IMAGE = Table(
    (
        Rule("visual.class_embedding", "params/embed/class_token"),
        Rule("visual.positional_embedding", "params/embed/positions"),
        Rule("visual.conv1.weight", "params/embed/patch/kernel", "conv2d"),
        *norm("visual.ln_pre", "pre_norm"),
        *openai_blocks("visual."),
        *norm("visual.ln_post", "post_norm"),
        Rule("visual.proj", "params/proj/kernel"),
    ),
    OPENAI_BUFFERS,
)
TEMPERATURE = Table((Rule("logit_scale", "params/logit_scale"),))

# One table per naming; the one that knows most of a file's keys is taken.
TABLES: dict[str, tuple[Table, ...]] = {
    "text": (HF_TEXT, OPENAI_TEXT),
    "image": (HF_IMAGE, OPENAI_IMAGE),
    "temperature": (TEMPERATURE,),
}
# The module whose shapes are checked; the temperature is a bare number.
NETWORKS = {"text": "jaxt2i.encoders.clip:ClipText", "image": "jaxt2i.encoders.clip:ClipImage"}


# Image width of open_clip's ViT-H, g and bigG: channels a head. All of them have GELU.
HEADS = {1280: 80, 1408: 88, 1664: 104}


def image_width(state_dict: Mapping[str, np.ndarray]) -> int:
    """Channels of the image tower that a state dict holds, 0 where it holds none."""
    for table in TABLES["image"]:
        source = next(r.source for r in table.rules if r.target == "params/embed/class_token")
        key = table.names(state_dict).get(source)
        if key:
            return len(state_dict[key])
    return 0


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict[str, int | float | str | None]:
    """The fields of a tower that a state dict was made by.

    Shapes do not show heads, activation and end token: these are OpenAI's here (quick-GELU, 64
    channels per head, the largest id), save for open_clip's large networks, which are known by
    their width. `from_config` knows better.

    Args:
      net: "text", "image" or "temperature".
      state_dict: of either naming.

    Returns:
      Keyword arguments of `ClipText` or `ClipImage`.
    """
    if net == "temperature":
        return {}
    table = pick(TABLES[net], state_dict)
    names = table.names(state_dict)
    shape = {
        rule.target: state_dict[names[key]].shape
        for rule in table.rules
        if (key := rule.source.replace("{i}", "0")) in names
    }
    layer = next(r.source for r in table.rules if r.target == f"params/{BLOCKS}/norm1/scale")
    width = shape[f"params/{BLOCKS}/norm1/scale"][0]
    # The text tower of Stable Diffusion has none.
    lacks = net == "text" and "params/proj/kernel" not in shape
    projection = (0, 0) if lacks else shape["params/proj/kernel"]
    large = image_width(state_dict) in HEADS
    out = {
        "width": width,
        "layers": sum(layer.replace("{i}", str(i)) in names for i in range(len(names))),
        "heads": max(1, width // (HEADS.get(width, 64) if net == "image" else 64)),
        "joint": projection[0] if table in (HF_TEXT, HF_IMAGE) else projection[1],
        "mlp_ratio": shape[f"params/{BLOCKS}/fc1/kernel"][0] / width,
        "act": "gelu" if large else "quick_gelu",
    }
    if net == "text":
        vocab, length = shape["params/tokens/embedding"][0], shape["params/positions"][0]
        return out | {"vocab": vocab, "length": length, "eot": None}
    patch = shape["params/embed/patch/kernel"][-1]
    side = round((shape["params/embed/positions"][0] - 1) ** 0.5)
    return out | {"patch": patch, "resolution": side * patch}


def from_config(net: str, config: Mapping) -> dict[str, int | str | None]:
    """What Hugging Face's config.json or open_clip's says beyond the shapes.

    Args:
      net: "text", "image" or "temperature".
      config: content of the file; open_clip's is called open_clip_config.json.
    """
    if net == "temperature":
        return {}
    config = config.get("model_cfg", config)
    if "text_cfg" in config:
        act = {"act": "quick_gelu" if config.get("quick_gelu") else "gelu"}
        if net == "text":
            return act | {"heads": config["text_cfg"]["heads"]}
        part = config["vision_cfg"]
        return act | {"heads": part["width"] // part.get("head_width", 64)}
    # A file of one tower alone has its settings at the top.
    part = config.get("text_config" if net == "text" else "vision_config", config)
    # The library leaves out of the file what equals its own defaults.
    defaults = {"text": 8, "image": 12}
    out = {
        "heads": part.get("num_attention_heads", defaults[net]),
        "act": part.get("hidden_act", "quick_gelu"),
    }
    if net == "text":
        # Files with end token 2 predate the field's meaning: they read at the largest id.
        end = part.get("eos_token_id", 2)
        out["eot"] = None if end == 2 else end
    return out
