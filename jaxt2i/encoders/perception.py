"""The frozen networks through which a GAN reads and sees: text tower, guide, feature network.

A perception is chosen by name: "mini" is the small CLIP that ships with jaxt2i;
"clip_l14_dino_s16" is what StyleGAN-T was published with.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.encoders import clip, dino, pretrained

MINI = Path(__file__).parent / "mini_clip"
WEIGHTS = ("pretrained", "random")


@dataclasses.dataclass(frozen=True)
class Perception:
    """Networks, not yet with weights.

    Attributes:
      text: (tokens, mask) -> Text.
      guide: normalised image [B, R, R, 3] -> (embedding [B, S], hidden states).
      features: normalised image [B, R, R, 3] -> five feature maps, each [B, N, C].
      guide_norm: pictures in [-1, 1] to the guide's input.
      feature_norm: pictures in [-1, 1] to the feature network's input.
      guide_resolution: R of the guide, pixels.
      feature_resolution: R of the feature network, pixels.
      sentence: S, the width of the joint space.
      load: {"text" | "guide" | "features": () -> variables}; empty for random weights.
      about: what to tell the person who starts a run.
    """

    text: nn.Module
    guide: nn.Module
    features: nn.Module
    guide_norm: Callable[[jax.Array], jax.Array]
    feature_norm: Callable[[jax.Array], jax.Array]
    guide_resolution: int
    feature_resolution: int
    sentence: int
    load: dict[str, Callable[[], Any]]
    about: str


def mini(dtype: jnp.dtype, weights: str, clip_weights: str, feature_weights: str) -> Perception:
    """The small CLIP made by configs/clip.py:embedded; its card says how, and how good it is."""
    folder = Path(clip_weights or MINI)
    card = json.loads((folder / "card.json").read_text())
    size = card["model"]
    text = clip.ClipText(
        vocab=size["vocab"],
        length=card["tokens"],
        width=size["text_width"],
        layers=size["text_layers"],
        heads=size["text_heads"],
        joint=size["joint"],
        act=size["act"],
        dtype=dtype,
    )
    guide = clip.ClipImage(
        resolution=card["resolution"],
        patch=size["patch"],
        width=size["width"],
        layers=size["layers"],
        heads=size["heads"],
        joint=size["joint"],
        act=size["act"],
        dtype=dtype,
    )
    # Five maps as DINO gives the published system: the input and four depths.
    taps = (*(round(i * size["layers"] / 4) for i in (1, 2, 3, 4)), 0)

    def load(net: str):
        return pretrained.load_variables(folder / f"{net}.safetensors")

    return Perception(
        text=text,
        guide=guide,
        features=clip.ClipFeatures(guide, taps),
        guide_norm=clip.normalize_image,
        feature_norm=clip.normalize_image,
        guide_resolution=card["resolution"],
        feature_resolution=card["resolution"],
        sentence=size["joint"],
        load={
            "text": lambda: load("text"),
            "guide": lambda: load("image"),
            "features": lambda: {"params": {"image": without_projection(load("image")["params"])}},
        },
        about=(
            f"perception: mini CLIP ({folder.name}), which finds the caption of "
            f"{card['scores']['score/r_precision']:.0%} of unseen pictures among 100. For a real "
            "run, with CLIP ViT-L/14 and DINO ViT-S/16 and your own pictures:\n"
            "  python -m jaxt2i.train --config configs/stylegan_t.py:lite64 --config.data.path=DIR"
        ),
    )


def without_projection(params: dict) -> dict:
    """An image tower's parameters as its hidden states need them."""
    return {name: leaf for name, leaf in params.items() if name != "proj"}


def clip_l14_dino_s16(
    dtype: jnp.dtype, weights: str, clip_weights: str, feature_weights: str
) -> Perception:
    """CLIP ViT-L/14 (OpenAI) and DINO ViT-S/16: what StyleGAN-T was published with."""
    size = clip.PRESETS["vit_l14"]
    common = {"joint": size.joint, "act": size.act, "dtype": dtype}
    text = clip.ClipText(
        width=size.text_width, layers=size.text_layers, heads=size.text_heads, **common
    )
    guide = clip.ClipImage(
        resolution=size.resolution,
        patch=size.patch,
        width=size.width,
        layers=size.layers,
        heads=size.heads,
        **common,
    )
    features = dino.DinoFeatures(dtype=dtype)

    def load(file, kind, net, module):
        return pretrained.load(file, kind, net, pretrained.template(module))

    clip_file = clip_weights or "openai/clip-vit-large-patch14"
    dino_file = feature_weights or "timm/vit_small_patch16_224.dino"
    return Perception(
        text=text,
        guide=guide,
        features=features,
        guide_norm=clip.normalize_image,
        feature_norm=dino.normalize_image,
        guide_resolution=size.resolution,
        feature_resolution=224,
        sentence=size.joint,
        load={
            "text": lambda: load(clip_file, "clip", "text", text),
            "guide": lambda: load(clip_file, "clip", "image", guide),
            "features": lambda: load(dino_file, "dino", "features", features),
        },
        about=f"perception: CLIP from {clip_file}, DINO from {dino_file}"
        + (", RANDOM weights: for measuring speed only" if weights == "random" else ""),
    )


KINDS = {f.__name__: f for f in (mini, clip_l14_dino_s16)}


def make(
    name: str,
    *,
    dtype: jnp.dtype = jnp.float32,
    weights: str = "pretrained",
    clip_weights: str = "",
    feature_weights: str = "",
) -> Perception:
    """A perception by name.

    Args:
      name: "mini" or "clip_l14_dino_s16".
      dtype: compute dtype.
      weights: "pretrained", or "random" (to measure speed without a download).
      clip_weights: file or folder to read CLIP from; "" = the shipped or published one.
      feature_weights: the same for the feature network.

    Raises:
      ValueError: for an unknown name, naming the config line.
    """
    if name not in KINDS:
        raise ValueError(f"config.model.perception={name!r}; known: {', '.join(KINDS)}")
    if weights not in WEIGHTS:
        raise ValueError(f"config.model.weights={weights!r}; known: {', '.join(WEIGHTS)}")
    made = KINDS[name](dtype, weights, clip_weights, feature_weights)
    return dataclasses.replace(made, load={}) if weights == "random" else made
