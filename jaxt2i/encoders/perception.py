"""The frozen networks through which a GAN reads and sees: text tower, guide, feature network.

A perception is chosen by name: "mini" is the small CLIP that ships with jaxt2i; "clip_b32",
"clip_b16", "clip_l14" and "clip_l14_336" are OpenAI's; "clip_l14_dino_s16" is what StyleGAN-T was
published with; "damsm" is the text encoder of AttnGAN, DF-GAN and others.

For captions in German, or in several languages at once: "mclip_b32", "mclip_l14" and
"mclip_l14_dino_s16" are the same image towers with M-CLIP's text tower, an XLM-RoBERTa whose
sentences live in CLIP's joint space. They stand wherever "clip_b32", "clip_l14" and
"clip_l14_dino_s16" do, with config.data.tokenizer naming a directory with M-CLIP's tokenizer.json:

    hf download M-CLIP/XLM-Roberta-Large-Vit-B-32 tokenizer.json --local-dir DIR
    --config.model.perception=mclip_b32 --config.data.tokenizer=DIR --config.data.tokens=77

Weights come from the cache or the hub, or from one folder with the subfolders `text` and `image`,
each as published or as `python -m jaxt2i.convert` wrote it. "mclip_tiny" has the same structure in
miniature and no published weights: for tests, with config.model.weights=random.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from etils import epath

from jaxt2i.config import ConfigError, nearest
from jaxt2i.encoders import clip, dino, pretrained, xlm_r
from jaxt2i.encoders.damsm import DamsmText
from jaxt2i.encoders.pretrained import Weights, published
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
      joint: whether the guide and the text tower share a space. Where they do not, the guide is the
        shipped mini CLIP's image tower, lent to compare pictures with pictures and nothing else.
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
    joint: bool = True

    def look(self, image: jax.Array) -> jax.Array:
        """Pictures [B, H, H, 3] in [-1, 1], resized to the guide's input and normalised."""
        size, out = image.shape[1], self.guide_resolution
        matrix = area_matrix(out, size) if size % out == 0 else bilinear_matrix(out, size)
        return self.guide_norm(apply_matrices(image, matrix, matrix))


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `make` hands to the maker of a kind; see there."""

    dtype: jnp.dtype
    weights: str
    clip_weights: str
    feature_weights: str
    vocab: int
    real: str


# What the card of a small CLIP says of its towers, and values of the right kind.
MINI_SIZES = dict.fromkeys(
    ("vocab", "text_width", "text_layers", "text_heads", "patch", "width", "layers", "heads"), 1
) | {"joint": 1, "act": ""}
DAMSM_SIZES = dict.fromkeys(("text_vocab", "embed", "width"), 1)


def mini(settings: Settings) -> Perception:
    """The small CLIP made by configs/clip.py:embedded; its card says how, and how good it is."""
    folder, dtype = epath.Path(settings.clip_weights or MINI), settings.dtype
    card = pretrained.read_card(folder / "card.json", ("tokens", "resolution"), MINI_SIZES)
    size = card["model"]
    found = card.get("scores", {}) if isinstance(card.get("scores"), dict) else {}
    score = found.get("score/r_precision")
    known = f"{score:.0%}" if isinstance(score, float) else "an unknown share"
    real = f". For a real run, {settings.real}" if settings.real else ""
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

    def load(net: str):
        return pretrained.load_variables(folder / f"{net}.safetensors")

    def given(read: Callable[[], dict]) -> Weights:
        return Weights(read, lambda: f"{folder}, which is there")

    return Perception(
        text=text,
        guide=guide,
        features=five_maps(guide),
        guide_norm=clip.normalize_image,
        feature_norm=clip.normalize_image,
        guide_resolution=card["resolution"],
        feature_resolution=card["resolution"],
        sentence=size["joint"],
        load={
            "text": given(lambda: load("text")),
            "guide": given(lambda: load("image")),
            "features": given(
                lambda: {"params": {"image": without_projection(load("image")["params"])}}
            ),
        },
        about=(
            f"perception: mini CLIP ({folder.name}), which finds the caption of {known} of unseen "
            f"pictures among 100{real}"
        ),
    )


def five_maps(tower: clip.ClipImage) -> clip.ClipFeatures:
    """An image tower read as DINO is in the published system: at its input and four depths."""
    return clip.ClipFeatures(tower, (*(round(i * tower.layers / 4) for i in (1, 2, 3, 4)), 0))


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


def openai_clip(preset: str, settings: Settings) -> Perception:
    """Both towers of one of OpenAI's CLIPs, without a feature network."""
    size, file = clip.PRESETS[preset], settings.clip_weights or HUB[preset]
    common = {"joint": size.joint, "act": size.act, "dtype": settings.dtype}
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
            "text": published(file, "clip", "text", text),
            "guide": published(file, "clip", "image", guide),
        },
        about=f"perception: CLIP from {file}{warning(settings)}",
    )


def warning(settings: Settings) -> str:
    """What to say of weights that are no weights."""
    return ", RANDOM weights: for measuring speed only" if settings.weights == "random" else ""


# Text towers whose sentences live in the joint space of one of OpenAI's CLIPs.
MULTILINGUAL = {
    "vit_b32": "M-CLIP/XLM-Roberta-Large-Vit-B-32",
    "vit_l14": "M-CLIP/XLM-Roberta-Large-Vit-L-14",
}


def half(settings: Settings, net: str, usual: str) -> str:
    """Where one tower of a CLIP whose towers were published apart is read from.

    Args:
      settings: its `clip_weights` names a folder with a subfolder for each tower, or nothing.
      net: "text" or "image".
      usual: the tower's repository.

    Raises:
      WeightsError: where the folder has no such subfolder.
    """
    if not settings.clip_weights:
        return usual
    folder = epath.Path(settings.clip_weights).expanduser() / net
    if not folder.is_dir():
        raise pretrained.WeightsError(
            f"config.model.clip_weights (or text_weights)={settings.clip_weights!r}: there is no "
            f"folder {folder}. A multilingual CLIP is two downloads, so this must be a folder with "
            f"the subfolders text and image; `hf download {usual} --local-dir {folder}` fills "
            "this one"
        )
    return str(folder)


def m_clip(preset: str, settings: Settings) -> Perception:
    """One of OpenAI's image towers and M-CLIP's multilingual text tower for it."""
    image = half(settings, "image", HUB[preset])
    text_file = half(settings, "text", MULTILINGUAL[preset])
    base = openai_clip(preset, dataclasses.replace(settings, clip_weights=image))
    size = xlm_r.PRESETS["large"]._asdict()
    text = xlm_r.XlmRText(**size, joint=base.sentence, dtype=settings.dtype)
    return dataclasses.replace(
        base,
        text=text,
        load=base.load | {"text": published(text_file, "xlm_r", "text", text)},
        about=(
            f"perception: CLIP from {image}, captions in any language by M-CLIP from {text_file}, "
            f"whose tokenizer.json config.data.tokenizer must name{warning(settings)}"
        ),
    )


def m_clip_tiny(settings: Settings) -> Perception:
    """The structure of `m_clip` in miniature, for tests."""
    if settings.weights != "random":
        raise pretrained.WeightsError(
            "config.model.perception='mclip_tiny' has no published weights; set "
            "--config.model.weights=random, or choose 'mclip_b32'"
        )
    text = xlm_r.XlmRText(**xlm_r.PRESETS["tiny"]._asdict(), joint=32, dtype=settings.dtype)
    guide = clip.ClipImage(
        resolution=32, patch=8, width=32, layers=4, heads=2, joint=32, dtype=settings.dtype
    )
    return Perception(
        text=text,
        guide=guide,
        features=five_maps(guide),
        guide_norm=clip.normalize_image,
        feature_norm=clip.normalize_image,
        guide_resolution=guide.resolution,
        feature_resolution=guide.resolution,
        sentence=guide.joint,
        load={},
        about=f"perception: a tiny multilingual CLIP{warning(settings)}",
    )


def clip_l14_dino_s16(settings: Settings) -> Perception:
    """CLIP ViT-L/14 (OpenAI) and DINO ViT-S/16: what StyleGAN-T was published with."""
    loaded = dataclasses.replace(settings, weights="pretrained")
    return with_dino(openai_clip("vit_l14", loaded), settings)


def m_clip_l14_dino_s16(settings: Settings) -> Perception:
    """The same with M-CLIP's multilingual text tower."""
    loaded = dataclasses.replace(settings, weights="pretrained")
    return with_dino(m_clip("vit_l14", loaded), settings)


def with_dino(base: Perception, settings: Settings) -> Perception:
    """A perception with DINO ViT-S/16 as its feature network."""
    features = dino.DinoFeatures(dtype=settings.dtype)
    file = settings.feature_weights or "timm/vit_small_patch16_224.dino"
    return dataclasses.replace(
        base,
        features=features,
        feature_norm=dino.normalize_image,
        feature_resolution=224,
        load=base.load | {"features": published(file, "dino", "features", features)},
        about=f"{base.about}, DINO from {file}{warning(settings)}",
    )


def damsm(settings: Settings) -> Perception:
    """AttnGAN's text encoder alone: sentences of 256 numbers, and no image tower of its own."""
    card = epath.Path(settings.clip_weights or ".") / "card.json"
    sizes = {"vocab": settings.vocab or DamsmText.vocab}
    if settings.clip_weights and card.is_file():  # a run of configs/damsm.py, of sizes of its own
        model = pretrained.read_card(card, (), DAMSM_SIZES)["model"]
        sizes = {"vocab": model["text_vocab"], "embed": model["embed"], "width": model["width"]}
    text = DamsmText(**sizes, dtype=settings.dtype)

    def load():
        if not settings.clip_weights:
            raise pretrained.WeightsError(
                "config.model.text_weights is empty: it must name a DAMSM text encoder, such as "
                "text_encoder200.pth (CUB) or text_encoder100.pth (COCO) from the archives that "
                "AttnGAN's README (https://github.com/taoxugit/AttnGAN) links to, with "
                "config.data.tokenizer naming their captions.pickle. Without it: "
                "--config.model.perception=clip_b32 --config.data.tokenizer=clip "
                "--config.data.tokens=77, or to measure speed --config.model.weights=random"
            )
        return published(settings.clip_weights, "damsm", "text", text)()

    def where() -> str:
        file = settings.clip_weights
        return pretrained.whereabouts(file, "damsm") if file else "nowhere: text_weights is empty"

    def look() -> None:
        if settings.clip_weights:
            pretrained.look(settings.clip_weights, "damsm", "text", text)

    shipped = mini(dataclasses.replace(settings, clip_weights=""))
    return Perception(
        text=text,
        guide=shipped.guide,
        features=None,
        guide_norm=shipped.guide_norm,
        feature_norm=shipped.feature_norm,
        guide_resolution=shipped.guide_resolution,
        feature_resolution=0,
        sentence=text.width,
        load={"text": Weights(load, where, look), "guide": shipped.load["guide"]},
        about=(
            f"perception: DAMSM from {settings.clip_weights or 'no file'}{warning(settings)}; the "
            "Frechet distance while training is the shipped mini CLIP's, to choose checkpoints by, "
            "not to report"
        ),
        joint=False,
    )


def clip_only(maker: Callable, preset: str) -> Callable[[Settings], Perception]:
    """The maker (`openai_clip` or `m_clip`) of a perception without a feature network."""

    def make(settings: Settings) -> Perception:
        if settings.feature_weights:
            raise ConfigError(
                f"config.model.feature_weights={settings.feature_weights!r}: this perception is "
                "CLIP alone; leave it empty"
            )
        return maker(preset, settings)

    return make


KINDS: dict[str, Callable[[Settings], Perception]] = {
    "mini": mini,
    "damsm": damsm,
    "clip_l14_dino_s16": clip_l14_dino_s16,
    "mclip_tiny": m_clip_tiny,
    "mclip_l14_dino_s16": m_clip_l14_dino_s16,
    **{preset.replace("vit_", "clip_"): clip_only(openai_clip, preset) for preset in HUB},
    **{preset.replace("vit_", "mclip_"): clip_only(m_clip, preset) for preset in MULTILINGUAL},
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
      clip_weights: file or folder to read CLIP from; "" = the shipped or published one. Of a
        multilingual CLIP, a folder with the subfolders `text` and `image`.
      feature_weights: the same for the feature network.
      vocab: word ids of a DAMSM text encoder; 0 = those of CUB's.
      real: how to start a run with published weights, told to who trains with the small ones.

    Raises:
      ConfigError: for an unknown name, naming the config line.
      WeightsError: where a kind has no weights to start from, or not in the folder that is named.
    """
    if name not in KINDS:
        raise ConfigError(f"config.model.perception={name!r}; {nearest(name, KINDS)}")
    if weights not in WEIGHTS:
        raise ConfigError(f"config.model.weights={weights!r}; {nearest(weights, WEIGHTS)}")
    made = KINDS[name](Settings(dtype, weights, clip_weights, feature_weights, vocab, real))
    return dataclasses.replace(made, load={}) if weights == "random" else made
