"""The frozen networks through which a GAN reads and sees: text tower, guide, feature network.

A perception is chosen by name: "mini" is the small CLIP that ships with jaxt2i; "clip_b32",
"clip_b16", "clip_l14" and "clip_l14_336" are OpenAI's; "clip_l14_dino_s16" is what StyleGAN-T was
published with; "damsm" is the text encoder of AttnGAN, DF-GAN and others.
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
from jaxt2i.encoders.damsm import DamsmText
from jaxt2i.nn.resample import apply_matrices, area_matrix, bilinear_matrix

MINI = Path(__file__).parent / "mini_clip"
WEIGHTS = ("pretrained", "random")


@dataclasses.dataclass(frozen=True)
class Perception:
    """Networks, not yet with weights.

    Attributes:
      text: (tokens, mask) -> Text.
      guide: normalised image [B, R, R, 3] -> (embedding [B, S], hidden states); None: there is no
        image tower.
      features: normalised image [B, R, R, 3] -> five feature maps, each [B, N, C]; None: the
        perception has no feature network beside its guide.
      guide_norm: pictures in [-1, 1] to the guide's input.
      feature_norm: pictures in [-1, 1] to the feature network's input.
      guide_resolution: R of the guide, pixels.
      feature_resolution: R of the feature network, pixels.
      sentence: S, the width of the joint space.
      load: {"text" | "guide" | "features": () -> variables}; empty for random weights.
      about: what to tell the person who starts a run.
    """

    text: nn.Module
    guide: nn.Module | None
    features: nn.Module | None
    guide_norm: Callable[[jax.Array], jax.Array]
    feature_norm: Callable[[jax.Array], jax.Array]
    guide_resolution: int
    feature_resolution: int
    sentence: int
    load: dict[str, Callable[[], Any]]
    about: str

    def look(self, image: jax.Array) -> jax.Array:
        """Pictures [B, H, H, 3] in [-1, 1], resized to the guide's input and normalised."""
        size, out = image.shape[1], self.guide_resolution
        matrix = area_matrix(out, size) if size % out == 0 else bilinear_matrix(out, size)
        return self.guide_norm(apply_matrices(image, matrix, matrix))


@dataclasses.dataclass(frozen=True)
class Wish:
    """What `make` hands to the maker of a kind; see there."""

    dtype: jnp.dtype
    weights: str
    clip_weights: str
    feature_weights: str
    vocab: int
    real: str


def mini(wish: Wish) -> Perception:
    """The small CLIP made by configs/clip.py:embedded; its card says how, and how good it is."""
    folder, dtype = Path(wish.clip_weights or MINI), wish.dtype
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
            f"run, {wish.real}"
        ),
    )


def without_projection(params: dict) -> dict:
    """An image tower's parameters as its hidden states need them."""
    return {name: leaf for name, leaf in params.items() if name != "proj"}


# Where OpenAI's towers are found on the Hugging Face hub.
HUB = {
    "vit_b32": "openai/clip-vit-base-patch32",
    "vit_b16": "openai/clip-vit-base-patch16",
    "vit_l14": "openai/clip-vit-large-patch14",
    "vit_l14_336": "openai/clip-vit-large-patch14-336",
}


def load_net(file: str, kind: str, net: str, module: nn.Module) -> Any:
    """Variables of one network of a published file."""
    return pretrained.load(file, kind, net, pretrained.template(module))


def openai_clip(preset: str, wish: Wish) -> Perception:
    """Both towers of one of OpenAI's CLIPs, without a feature network."""
    size, file = clip.PRESETS[preset], wish.clip_weights or HUB[preset]
    common = {"joint": size.joint, "act": size.act, "dtype": wish.dtype}
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
    return Perception(
        text=text,
        guide=guide,
        features=None,
        guide_norm=clip.normalize_image,
        feature_norm=clip.normalize_image,
        guide_resolution=size.resolution,
        feature_resolution=size.resolution,
        sentence=size.joint,
        load={
            "text": lambda: load_net(file, "clip", "text", text),
            "guide": lambda: load_net(file, "clip", "image", guide),
        },
        about=f"perception: CLIP from {file}{warning(wish)}",
    )


def warning(wish: Wish) -> str:
    """What to say of weights that are no weights."""
    return ", RANDOM weights: for measuring speed only" if wish.weights == "random" else ""


def clip_l14_dino_s16(wish: Wish) -> Perception:
    """CLIP ViT-L/14 (OpenAI) and DINO ViT-S/16: what StyleGAN-T was published with."""
    base = openai_clip("vit_l14", dataclasses.replace(wish, weights="pretrained"))
    features = dino.DinoFeatures(dtype=wish.dtype)
    file = wish.feature_weights or "timm/vit_small_patch16_224.dino"
    return dataclasses.replace(
        base,
        features=features,
        feature_norm=dino.normalize_image,
        feature_resolution=224,
        load=base.load | {"features": lambda: load_net(file, "dino", "features", features)},
        about=f"{base.about}, DINO from {file}{warning(wish)}",
    )


def damsm(wish: Wish) -> Perception:
    """AttnGAN's text encoder alone: sentences of 256 numbers, no image tower, so no scores."""
    text = DamsmText(vocab=wish.vocab or DamsmText.vocab, dtype=wish.dtype)

    def load():
        if not wish.clip_weights:
            raise pretrained.WeightsError(
                "config.model.text_weights is empty: it must name a DAMSM text encoder, such as "
                "text_encoder200.pth (CUB) or text_encoder100.pth (COCO) from the archives that "
                "AttnGAN's README (https://github.com/taoxugit/AttnGAN) links to, with "
                "config.data.tokenizer naming their captions.pickle. Without it: "
                "--config.model.perception=clip_b32 --config.data.tokenizer=clip "
                "--config.data.tokens=77, or to measure speed --config.model.weights=random"
            )
        return load_net(wish.clip_weights, "damsm", "text", text)

    return Perception(
        text=text,
        guide=None,
        features=None,
        guide_norm=clip.normalize_image,
        feature_norm=clip.normalize_image,
        guide_resolution=0,
        feature_resolution=0,
        sentence=text.width,
        load={"text": load},
        about=f"perception: DAMSM from {wish.clip_weights or 'no file'}{warning(wish)}",
    )


def clip_only(preset: str) -> Callable[..., Perception]:
    """The maker of a perception that is one of OpenAI's CLIPs."""

    def make(wish: Wish) -> Perception:
        if wish.feature_weights:
            raise ValueError(
                f"config.model.feature_weights={wish.feature_weights!r}: this perception is CLIP "
                "alone; leave it empty"
            )
        return openai_clip(preset, wish)

    return make


KINDS: dict[str, Callable[[Wish], Perception]] = {
    "mini": mini,
    "damsm": damsm,
    "clip_l14_dino_s16": clip_l14_dino_s16,
    **{preset.replace("vit_", "clip_"): clip_only(preset) for preset in HUB},
}


def make(
    name: str,
    *,
    dtype: jnp.dtype = jnp.float32,
    weights: str = "pretrained",
    clip_weights: str = "",
    feature_weights: str = "",
    vocab: int = 0,
    real: str = "",
) -> Perception:
    """A perception by name.

    Args:
      name: a key of `KINDS`.
      dtype: compute dtype.
      weights: "pretrained", or "random" (to measure speed without a download).
      clip_weights: file or folder to read CLIP from; "" = the shipped or published one.
      feature_weights: the same for the feature network.
      vocab: word ids of a DAMSM text encoder; 0 = those of CUB's.
      real: how to start a run with published weights, told to who trains with the small ones.

    Raises:
      ValueError: for an unknown name, naming the config line.
    """
    if name not in KINDS:
        raise ValueError(f"config.model.perception={name!r}; known: {', '.join(KINDS)}")
    if weights not in WEIGHTS:
        raise ValueError(f"config.model.weights={weights!r}; known: {', '.join(WEIGHTS)}")
    made = KINDS[name](Wish(dtype, weights, clip_weights, feature_weights, vocab, real))
    return dataclasses.replace(made, load={}) if weights == "random" else made
