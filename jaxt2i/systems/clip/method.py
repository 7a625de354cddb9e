"""CLIP: contrastive pretraining of a text tower and an image tower on captioned images.

Radford et al. 2021 (arXiv 2103.00020), figure 3. The loss is over the global batch: every caption
is a negative for every other image, on whichever device it lies.
"""

import dataclasses

import flax.linen as nn
import jax

from jaxt2i.config import fields
from jaxt2i.data.schema import unit_range
from jaxt2i.encoders import clip as encoders
from jaxt2i.engine.method import Method, Player
from jaxt2i.losses.text import contrastive
from jaxt2i.metrics.retrieval import mean_cosine, r_precision
from jaxt2i.nn.optim import Adam
from jaxt2i.nn.precision import compute_dtype


@dataclasses.dataclass(frozen=True)
class Model:
    """Sizes of both towers.

    Attributes:
      joint: width of the shared space.
      vocab: token ids.
      text_width, text_layers, text_heads: the text tower.
      width, layers, heads, patch: the image tower.
      mlp_ratio: hidden width of the MLPs over the tower's width.
      act: "quick_gelu" (OpenAI) or "gelu".
      init_temperature: initial softmax temperature.
      max_scale: clip of the inverse temperature.
    """

    joint: int = 512
    vocab: int = 49408
    text_width: int = 512
    text_layers: int = 12
    text_heads: int = 8
    width: int = 768
    layers: int = 12
    heads: int = 12
    patch: int = 32
    mlp_ratio: float = 4.0
    act: str = "quick_gelu"
    init_temperature: float = 0.07
    max_scale: float = 100.0


def networks(model: Model, cfg) -> dict[str, nn.Module]:
    """Both towers, and the temperature between them."""
    dtype = compute_dtype(cfg.precision, jax.default_backend())
    text = encoders.ClipText(
        vocab=model.vocab,
        length=cfg.data.tokens,
        width=model.text_width,
        layers=model.text_layers,
        heads=model.text_heads,
        joint=model.joint,
        mlp_ratio=model.mlp_ratio,
        act=model.act,
        dtype=dtype,
    )
    image = encoders.ClipImage(
        resolution=cfg.data.resolution,
        patch=model.patch,
        width=model.width,
        layers=model.layers,
        heads=model.heads,
        joint=model.joint,
        mlp_ratio=model.mlp_ratio,
        act=model.act,
        dtype=dtype,
    )
    return {
        "text": text,
        "image": image,
        "temperature": encoders.Temperature(start=model.init_temperature, most=model.max_scale),
    }


def build(cfg) -> Method:
    """The method of a config: `cfg.model` holds `Model`, `cfg.optim` one `Adam`."""
    model = fields(Model, cfg.model, "config.model")
    adam = fields(Adam, cfg.optim, "config.optim")
    nets = networks(model, cfg)
    text, image = nets["text"], nets["image"]

    def pixels(batch):
        return encoders.normalize_image(unit_range(batch["image"]))

    def embed(ctx, batch):
        vision, _ = ctx("image", pixels(batch))
        return vision, ctx("text", batch["tokens"], batch["token_mask"]).sentence

    def loss(ctx, batch):
        scale = ctx("temperature")
        vision, sentence = embed(ctx, batch)
        value = contrastive(vision, sentence, scale)
        return value, {"scale": scale, "cosine": mean_cosine(vision, sentence)}

    def init(key, batch):
        keys = jax.random.split(key)
        return {
            "text": text.init(keys[0], batch["tokens"][:1], batch["token_mask"][:1]),
            "image": image.init(keys[1], pixels(batch)[:1]),
            "temperature": nets["temperature"].init(key),
        }

    def score(ctx, batch):
        vision, sentence = embed(ctx, batch)
        return {"r_precision": r_precision(vision, sentence)}

    return Method(
        nets=nets,
        players=(Player("clip", tuple(nets), loss, adam.tx()),),
        init=init,
        needs=("image", "tokens", "token_mask"),
        vocab=model.vocab,
        score=score,
        better={"r_precision": "higher"},
        mixes=("negatives of the contrastive loss are those of a micro-batch",),
    )
