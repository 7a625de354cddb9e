"""Names of the official StyleGAN-T state dicts and where their tensors live here.

No checkpoint was ever published; these are the names that official training writes. The text tower
lies inside the generator (`mapping.clip.*`): the text-encoder phase trained it, and from then on it
is another than OpenAI's. The image encoder (`dino.*`) is never trained and has a table of its own.
"""

import fnmatch
from collections.abc import Mapping

import numpy as np

from jaxt2i.convert.rules import Rule, Table
from jaxt2i.encoders import clip_names


def dense(source: str, target: str) -> list[Rule]:
    """An equalised dense layer."""
    return [
        Rule(f"{source}.weight", f"params/{target}/kernel", "dense"),
        Rule(f"{source}.bias", f"params/{target}/bias"),
    ]


def synthesis_layer(source: str, target: str) -> list[Rule]:
    """A modulated 3x3 layer without its noise map; prefixes end in their separator or are ""."""
    return [
        Rule(f"{source}weight", f"params/{target}kernel", "conv2d"),
        Rule(f"{source}bias", f"params/{target}bias"),
        Rule(f"{source}noise_strength", f"params/{target}noise_strength"),
        *dense(f"{source}affine.proj", f"{target}affine/proj"),
    ]


def residual_layer(source: str, target: str) -> list[Rule]:
    """What a residual layer has besides `synthesis_layer`."""
    return [
        Rule(f"{source}gamma", f"params/{target}gamma", "squeeze"),
        Rule(f"{source}norm.weight", f"params/{target}norm/scale"),
        Rule(f"{source}norm.bias", f"params/{target}norm/bias"),
    ]


def to_rgb(source: str, target: str) -> list[Rule]:
    """A ToRGB layer."""
    return [
        Rule(f"{source}weight", f"params/{target}kernel", "conv2d"),
        Rule(f"{source}bias", f"params/{target}bias"),
        *dense(f"{source}affine.proj", f"{target}affine/proj"),
    ]


def generator() -> list[Rule]:
    """`Generator`: mapping and synthesis of any size."""
    start, first = "synthesis.b8.input.", "synthesis/b8/input/"
    source, target = "synthesis.b{i}.", "synthesis/b{i}/"
    noise = "buffers/synthesis/noise_b{i}_"
    return [
        Rule("mapping.x_avg", "stats/mapping/x_avg"),
        *dense("mapping.mlp.fc{i}", "mapping/fc{i}"),
        Rule(f"{start}weight", f"params/{first}kernel", "dense"),
        *dense(f"{start}affine", f"{first}affine"),
        *(Rule(start + x, f"buffers/{first}{x}") for x in ("freqs", "phases", "transform")),
        *synthesis_layer(f"{source}conv0.", f"{target}conv0/"),
        Rule(f"{source}conv0.noise_const", f"{noise}conv0"),
        *synthesis_layer(source + "convs1.{j}.", target + "convs1_{j}/"),
        *residual_layer(source + "convs1.{j}.", target + "convs1_{j}/"),
        Rule(source + "convs1.{j}.noise_const", noise + "convs1_{j}"),
        *to_rgb(f"{source}torgb.", f"{target}torgb/"),
    ]


def spectral_conv(source: str, target: str) -> list[Rule]:
    """A spectrally normalised 1-D convolution with its two singular vectors."""
    return [
        Rule(f"{source}.weight_orig", f"params/{target}/kernel", "conv1d"),
        Rule(f"{source}.bias", f"params/{target}/bias"),
        Rule(f"{source}.weight_u", f"spectral/{target}/u"),
        Rule(f"{source}.weight_v", f"spectral/{target}/v"),
    ]


def head(source: str = "", target: str = "") -> list[Rule]:
    """One `DiscriminatorHead`; prefixes end in their separator or are ""."""
    return [
        *spectral_conv(f"{source}main.0.0", f"{target}block0/conv"),
        Rule(f"{source}main.0.1.weight", f"params/{target}block0/norm/scale"),
        Rule(f"{source}main.0.1.bias", f"params/{target}block0/norm/bias"),
        *spectral_conv(f"{source}main.1.fn.0", f"{target}block1/conv"),
        Rule(f"{source}main.1.fn.1.weight", f"params/{target}block1/norm/scale"),
        Rule(f"{source}main.1.fn.1.bias", f"params/{target}block1/norm/bias"),
        *spectral_conv(f"{source}cls", f"{target}cls"),
        *dense(f"{source}cmapper", f"{target}cmapper"),
    ]


def discriminator() -> list[Rule]:
    """`DiscriminatorHeads`: the trained part of the discriminator."""
    return head("heads.{i}.", "head_{i}/")


GENERATOR = Table(tuple(generator()), ("*.resample_filter", "mapping.clip.*"), ("module.",))
DISCRIMINATOR = Table(tuple(discriminator()), ("dino.*",), ("module.",))

TOWER = "mapping.clip.model."
TEXT = Table(
    tuple(r._replace(source=TOWER + r.source) for r in clip_names.OPENAI_TEXT.rules),
    tuple(TOWER + name for name in clip_names.OPENAI_BUFFERS),
    ("module.",),
)

TABLES: dict[str, tuple[Table, ...]] = {
    "g": (GENERATOR,),
    "d": (DISCRIMINATOR,),
    "text": (TEXT,),
}
# What is said of a network that a file held.
NOTES = {
    "text": "text is the tower inside the generator. config.model.tuned_text=True reads with it; "
    "before the text-encoder phase it is OpenAI's own: leave it out with --net g --net d"
}
NETWORKS = {
    "text": "jaxt2i.encoders.clip:ClipText",
    "g": "jaxt2i.systems.stylegan_t.networks:Generator",
    "d": "jaxt2i.systems.stylegan_t.networks:DiscriminatorHeads",
}


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict:
    """Fields of `Generator` ("g"), `DiscriminatorHeads` ("d") or `ClipText` ("text").

    Raises:
      KeyError: when the keys are not that network's.
    """
    if net == "text":
        inside = {k.partition(TOWER)[2]: x for k, x in state_dict.items() if TOWER in k}
        return clip_names.infer(net, inside)
    if net == "d":
        heads = fnmatch.filter(state_dict, "heads.*.cls.weight_orig")
        text = state_dict.get("heads.0.cmapper.weight", np.zeros((1, 0)))
        cmap, inputs, _ = state_dict["heads.0.cls.weight_orig"].shape
        sizes = {"cmap_dim": cmap, "maps": len(heads), "inputs": inputs}
        return sizes | {"sentence_dim": text.shape[1]}
    rgb = fnmatch.filter(state_dict, "synthesis.b*.torgb.weight")
    channels = {int(k.split(".")[1][1:]): state_dict[k].shape[1] for k in rgb}
    last = max(channels)
    residual = fnmatch.filter(state_dict, "synthesis.b8.convs1.*.gamma")
    z_dim = state_dict["mapping.x_avg"].shape[0]
    return {
        "resolution": last,
        "z_dim": z_dim,
        "sentence_dim": state_dict["synthesis.b8.input.affine.weight"].shape[1] - z_dim,
        # Where the last block is not as wide as allowed, its width gives the base.
        "channel_base": channels[last] * last,
        "channel_max": max(channels.values()),
        "num_res_blocks": len(residual),
    }
