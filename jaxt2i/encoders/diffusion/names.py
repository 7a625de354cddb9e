"""The networks of Stable Diffusion 1.x: the names of diffusers' folders and of single files.

diffusers keeps each network in a file of its own; a single file has all of them, under the names
of the original code, each behind a prefix.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from flax.traverse_util import flatten_dict

from jaxt2i.convert.rules import ConversionError, Rule, Table, pick, to_flax
from jaxt2i.encoders import clip_names
from jaxt2i.encoders.clip_names import linear, norm

# What latents are multiplied by for the U-Net: their own deviation is about 1 / SCALE.
SCALE = 0.18215
# Of single files: residual blocks a level, and levels. Their numbers count on across levels.
LAYERS, LEVELS = 2, 4


def conv(source: str, target: str) -> list[Rule]:
    """A convolution with a bias."""
    return [
        Rule(f"{source}.weight", f"params/{target}/kernel", "conv2d"),
        Rule(f"{source}.bias", f"params/{target}/bias"),
    ]


def renamed(make, parts: Iterable[tuple[str, str]], source: str, target: str) -> list[Rule]:
    """Rules of `make` for every (source, target) of `parts`, below two paths."""
    return [r for a, b in parts for r in make(f"{source}.{a}", f"{target}/{b}")]


def dense(source: str, target: str) -> list[Rule]:
    """A linear layer with a bias."""
    return linear(f"{source}.", target)


# (norms, convolutions, time) of a residual block, as (published name, ours).
DIFFUSERS = (
    (("norm1", "norm1"), ("norm2", "norm2")),
    (("conv1", "conv1"), ("conv2", "conv2"), ("conv_shortcut", "shortcut")),
    (("time_emb_proj", "time"),),
)
ORIGINAL = (
    (("in_layers.0", "norm1"), ("out_layers.0", "norm2")),
    (("in_layers.2", "conv1"), ("out_layers.3", "conv2"), ("skip_connection", "shortcut")),
    (("emb_layers.1", "time"),),
)


def res(naming: tuple, source: str, target: str) -> list[Rule]:
    """A residual block."""
    norms, convs, time = naming
    return [
        *renamed(norm, norms, source, target),
        *renamed(conv, convs, source, target),
        *renamed(dense, time, source, target),
    ]


def attention(source: str, target: str) -> list[Rule]:
    """A spatial transformer, which has the same names in both."""
    block, ours = f"{source}.transformer_blocks.0", f"{target}/block"
    parts = (("to_q", "query"), ("to_k", "key"), ("to_v", "value"))
    return [
        *norm(f"{source}.norm", f"{target}/norm"),
        *renamed(conv, (("proj_in", "proj_in"), ("proj_out", "proj_out")), source, target),
        *renamed(norm, ((f"norm{k}", f"norm{k}") for k in (1, 2, 3)), block, ours),
        *(
            Rule(f"{block}.{a}.{p}.weight", f"params/{ours}/{b}/{q}/kernel", "dense")
            for a, b in (("attn1", "own"), ("attn2", "text"))
            for p, q in parts
        ),
        *renamed(
            dense,
            (
                ("attn1.to_out.0", "own/out"),
                ("attn2.to_out.0", "text/out"),
                ("ff.net.0.proj", "gated"),
                ("ff.net.2", "mlp"),
            ),
            block,
            ours,
        ),
    ]


def diffusers_half() -> list[Rule]:
    """Time, the way down and the middle, which a U-Net and a ControlNet share."""
    level = "down_blocks.{i}."
    return [
        *conv("conv_in", "down/conv_in"),
        *(r for k in (1, 2) for r in dense(f"time_embedding.linear_{k}", f"down/time/linear{k}")),
        *res(DIFFUSERS, level + "resnets.{j}", "down/level{i}_res{j}"),
        *attention(level + "attentions.{j}", "down/level{i}_attention{j}"),
        *conv(level + "downsamplers.0.conv", "down/level{i}_half"),
        *res(DIFFUSERS, "mid_block.resnets.{j}", "down/mid_res{j}"),
        *attention("mid_block.attentions.0", "down/mid_attention"),
    ]


def original_half() -> list[Rule]:
    """The same in a single file."""
    rules = [
        *conv("input_blocks.0.0", "down/conv_in"),
        *(r for k in (1, 2) for r in dense(f"time_embed.{2 * k - 2}", f"down/time/linear{k}")),
        *res(ORIGINAL, "middle_block.0", "down/mid_res0"),
        *attention("middle_block.1", "down/mid_attention"),
        *res(ORIGINAL, "middle_block.2", "down/mid_res1"),
    ]
    for i in range(LEVELS):
        for j in range(LAYERS):
            block = f"input_blocks.{1 + i * (LAYERS + 1) + j}"
            rules += res(ORIGINAL, f"{block}.0", f"down/level{i}_res{j}")
            rules += attention(f"{block}.1", f"down/level{i}_attention{j}")
        rules += conv(f"input_blocks.{(i + 1) * (LAYERS + 1)}.0.op", f"down/level{i}_half")
    return rules


def original_up() -> list[Rule]:
    """The way up in a single file."""
    rules = [*norm("out.0", "norm_out"), *conv("out.2", "conv_out")]
    for k in range(LEVELS):
        for j in range(LAYERS + 1):
            block = f"output_blocks.{k * (LAYERS + 1) + j}"
            rules += res(ORIGINAL, f"{block}.0", f"up{k}_res{j}")
            rules += attention(f"{block}.1", f"up{k}_attention{j}")
        # Behind the level's last block, and its attention, which the coarsest level lacks.
        rules += conv(f"{block}.{min(k, 1) + 1}.conv", f"up{k}_double/conv")
    return rules


UNET = Table(
    (
        *diffusers_half(),
        *res(DIFFUSERS, "up_blocks.{k}.resnets.{j}", "up{k}_res{j}"),
        *attention("up_blocks.{k}.attentions.{j}", "up{k}_attention{j}"),
        *conv("up_blocks.{k}.upsamplers.0.conv", "up{k}_double/conv"),
        *norm("conv_norm_out", "norm_out"),
        *conv("conv_out", "conv_out"),
    ),
    part="unet.",
    marker="conv_norm_out.weight",
)
UNET_ORIGINAL = Table(
    (*original_half(), *original_up()), part="model.diffusion_model.", marker="out.2.weight"
)
CONTROL = Table(
    (
        *diffusers_half(),
        *conv("controlnet_cond_embedding.conv_in", "condition/conv_in"),
        *conv("controlnet_cond_embedding.blocks.{k}", "condition/conv{k}"),
        *conv("controlnet_cond_embedding.conv_out", "condition/conv_out"),
        *conv("controlnet_down_blocks.{k}", "zero{k}"),
        *conv("controlnet_mid_block", "zero_mid"),
    ),
    part="controlnet.",
    marker="controlnet_mid_block.weight",
)
# The picture's convolutions: every second part of a sequence, the last one in it being zero.
HINTS = 6
CONTROL_ORIGINAL = Table(
    (
        *original_half(),
        *conv("input_hint_block.0", "condition/conv_in"),
        *(
            rule
            for k in range(HINTS)
            for rule in conv(f"input_hint_block.{2 * k + 2}", f"condition/conv{k}")
        ),
        *conv(f"input_hint_block.{2 * HINTS + 2}", "condition/conv_out"),
        *conv("zero_convs.{k}.0", "zero{k}"),
        *conv("middle_block_out.0", "zero_mid"),
    ),
    part="control_model.",
    marker="middle_block_out.0.weight",
)


def vae(*attention: str) -> Table:
    """The autoencoder, whose attention's four layers diffusers has renamed."""
    rules = []
    for half, ours in (("encoder", "encoder/"), ("decoder", "decoder/")):
        mid = f"{half}.mid_block."
        rules += [
            *conv(f"{half}.conv_in", f"{ours}conv_in"),
            *res(DIFFUSERS, mid + "resnets.{j}", ours + "mid/res{j}"),
            *vae_attention(f"{mid}attentions.0", "group_norm", attention, f"{ours}mid/attention"),
            *norm(f"{half}.conv_norm_out", f"{ours}norm_out"),
            *conv(f"{half}.conv_out", f"{ours}conv_out"),
        ]
    return Table(
        (
            *rules,
            *res(DIFFUSERS, "encoder.down_blocks.{i}.resnets.{j}", "encoder/level{i}_res{j}"),
            *conv("encoder.down_blocks.{i}.downsamplers.0.conv", "encoder/level{i}_half"),
            *res(DIFFUSERS, "decoder.up_blocks.{k}.resnets.{j}", "decoder/up{k}_res{j}"),
            *conv("decoder.up_blocks.{k}.upsamplers.0.conv", "decoder/up{k}_double/conv"),
            *conv("quant_conv", "quant"),
            *conv("post_quant_conv", "post_quant"),
        ),
        part="vae.",
        marker="post_quant_conv.weight",
    )


def vae_attention(source: str, normed: str, layers: Sequence[str], target: str) -> list[Rule]:
    """The autoencoder's attention; its layers are 1 x 1 convolutions in some files."""
    ours = [f"{target}/attention/{name}" for name in ("query", "key", "value", "out")]
    pairs = list(zip(layers, ours, strict=True))
    return [
        *norm(f"{source}.{normed}", f"{target}/norm"),
        *(Rule(f"{source}.{a}.weight", f"params/{b}/kernel", "dense1x1") for a, b in pairs),
        *(Rule(f"{source}.{a}.bias", f"params/{b}/bias") for a, b in pairs),
    ]


VAE = vae("to_q", "to_k", "to_v", "to_out.0")
VAE_OLD = vae("query", "key", "value", "proj_attn")


def vae_original() -> Table:
    """The autoencoder in a single file, or in one of its own; its levels count from the finest."""
    plain = (DIFFUSERS[0], (*DIFFUSERS[1][:2], ("nin_shortcut", "shortcut")), ())
    rules = [*conv("quant_conv", "quant"), *conv("post_quant_conv", "post_quant")]
    for half in ("encoder", "decoder"):
        parts = ((f"mid.block_{k}", f"mid/res{k - 1}") for k in (1, 2))
        rules += [
            *conv(f"{half}.conv_in", f"{half}/conv_in"),
            *(r for a, b in parts for r in res(plain, f"{half}.{a}", f"{half}/{b}")),
            *vae_attention(
                f"{half}.mid.attn_1", "norm", ("q", "k", "v", "proj_out"), f"{half}/mid/attention"
            ),
            *norm(f"{half}.norm_out", f"{half}/norm_out"),
            *conv(f"{half}.conv_out", f"{half}/conv_out"),
        ]
    for i in range(LEVELS):
        rules += res(plain, f"encoder.down.{i}.block.{{j}}", f"encoder/level{i}_res{{j}}")
        rules += conv(f"encoder.down.{i}.downsample.conv", f"encoder/level{i}_half")
        k = LEVELS - 1 - i
        rules += res(plain, f"decoder.up.{i}.block.{{j}}", f"decoder/up{k}_res{{j}}")
        rules += conv(f"decoder.up.{i}.upsample.conv", f"decoder/up{k}_double/conv")
    return Table(tuple(rules), part="first_stage_model.", marker="post_quant_conv.weight")


VAE_ORIGINAL = vae_original()
TEXT = dataclasses.replace(clip_names.HF_TEXT, part="text_encoder.")
TEXT_ORIGINAL = dataclasses.replace(clip_names.HF_TEXT, part="cond_stage_model.transformer.")

# One table a naming; the one that knows most of a file's keys is taken.
TABLES: dict[str, tuple[Table, ...]] = {
    "unet": (UNET, UNET_ORIGINAL),
    "vae": (VAE, VAE_OLD, VAE_ORIGINAL),
    "text": (TEXT, TEXT_ORIGINAL),
    "control": (CONTROL, CONTROL_ORIGINAL),
}
NETWORKS = {
    "unet": "jaxt2i.encoders.diffusion.unet:UNet",
    "vae": "jaxt2i.encoders.diffusion.vae:VAE",
    "text": "jaxt2i.encoders.clip:ClipText",
    "control": "jaxt2i.encoders.diffusion.control:ControlNet",
}
# Where a folder of diffusers has them, and what their configurations call themselves there.
FOLDERS = {"unet": "unet", "vae": "vae", "text": "text_encoder", "control": "controlnet"}
CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "control": "ControlNetModel"}
# Attention heads and norm groups of the published networks, which no shape shows.
HEADS, GROUPS = 8, 32


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict:
    """The fields of the network that a state dict was made by.

    Args:
      net: key of `TABLES`.
      state_dict: of any of the namings.

    Returns:
      Keyword arguments; heads and groups are the published ones, or what divides fewer channels.

    Raises:
      KeyError: where the keys are not that network's.
    """
    table = pick(TABLES[net], state_dict)
    if net == "text":
        own = {name: state_dict[key] for name, key in table.names(state_dict).items()}
        return clip_names.infer("text", own)
    tree, _ = to_flax(table, state_dict, None)
    shape = {path: x.shape for path, x in flatten_dict(tree["params"], sep="/").items()}
    half = "encoder/" if net == "vae" else "down/"

    def counted(form: str) -> int:
        return next(i for i in itertools.count() if half + form.format(i) not in shape)

    levels = range(counted("level{}_res0/conv2/kernel"))
    channels = tuple(shape[f"{half}level{i}_res0/conv2/kernel"][-1] for i in levels)
    out = {
        "channels": channels,
        "layers": counted("level0_res{}/conv2/kernel"),
        "groups": math.gcd(GROUPS, *channels),
    }
    if net == "vae":
        ends = shape["post_quant/kernel"], shape["decoder/conv_out/kernel"]
        return out | {"latent": ends[0][-1], "out_channels": ends[1][-1]}
    out |= {
        "heads": math.gcd(HEADS, *channels),
        "context": shape["down/mid_attention/block/text/key/kernel"][0],
        "attention": tuple(f"down/level{i}_attention0/norm/scale" in shape for i in levels),
    }
    if net == "unet":
        return out | {"out_channels": shape["conv_out/kernel"][-1]}
    wider = (f"condition/conv{k}/kernel" for k in itertools.count(1, 2))
    first, *rest = "condition/conv_in/kernel", *itertools.takewhile(shape.__contains__, wider)
    return out | {
        "condition_channels": shape[first][2],
        "embedding": tuple(shape[path][-1] for path in (first, *rest)),
    }


def from_config(net: str, config: Mapping) -> dict:
    """What diffusers' config.json says beyond the shapes; one of another network says nothing.

    Raises:
      ConversionError: for attention heads whose number changes from level to level.
    """
    if net == "text":
        named = config.get("architectures", ["CLIPTextModel"])
        return clip_names.from_config("text", config) if "CLIPTextModel" in named else {}
    if config.get("_class_name") != CLASSES[net]:
        return {}
    out = {"groups": config["norm_num_groups"]}
    if net == "vae":
        return out | {"scale": config.get("scaling_factor", SCALE)}
    heads = config["attention_head_dim"]  # their number, whatever it is called
    if not isinstance(heads, int):
        raise ConversionError(
            f"attention_head_dim={heads}: heads of another number at each level, as Stable "
            "Diffusion 2 has them; expected one number, as in 1.x"
        )
    return out | {"heads": heads}
