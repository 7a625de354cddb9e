"""DAMSM: a text encoder and an image encoder that learn to find each other, word by region.

Xu et al. 2018 (AttnGAN, arXiv 1711.10485), section 3.2. Trained once on captioned pictures; then
the frozen encoders condition, guide and score the attentional GANs. Every caption of the global
batch is a negative for every picture of it, on whichever device either lies.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxt2i.config import ConfigError, fields
from jaxt2i.data.schema import unit_range
from jaxt2i.encoders.damsm import TRUNKS, DamsmImage, DamsmText
from jaxt2i.encoders.damsm_trunk import with_trunk
from jaxt2i.encoders.text import Text
from jaxt2i.engine.method import Batch, Ctx, Method, Player
from jaxt2i.losses.damsm import Gammas, damsm
from jaxt2i.metrics.retrieval import r_precision
from jaxt2i.nn.optim import restarted
from jaxt2i.nn.precision import compute_dtype


@dataclasses.dataclass(frozen=True)
class Model:
    """Settings of the system; the defaults are the published ones.

    Attributes:
      text_vocab: word ids, 0 included.
      embed: width of the word embedding.
      width: S, of the joint space.
      dropout: of the word embeddings, in training.
      trunk: "inception", or "small" for small pictures.
      trunk_weights: torchvision's inception_v3 file for the Inception trunk; "" = random.
      train_trunk: train the trunk's weights; its statistics move in either case.
      align_corners: see `DamsmImage`.
      base: channels of the small trunk.
      class_mask: pictures of the same class are no negatives for each other (CUB; COCO has no
        classes). The data must then give `label`.
      gamma1: sharpness of a word's attention over regions: the code's 4, or the paper's 5.
      gamma2: sharpness of the sum over words.
      gamma3: sharpness of the match.
      divide_by_gamma2: scores as in the paper's equation 10; the code leaves the division out.
    """

    text_vocab: int = 5450
    embed: int = 300
    width: int = 256
    dropout: float = 0.5
    trunk: str = "inception"
    trunk_weights: str = ""
    train_trunk: bool = False
    align_corners: bool = True
    base: int = 32
    class_mask: bool = True
    gamma1: float = 4.0
    gamma2: float = 5.0
    gamma3: float = 10.0
    divide_by_gamma2: bool = False


@dataclasses.dataclass(frozen=True)
class Optim:
    """The published optimiser.

    Attributes:
      lr: the first learning rate.
      b1, b2, eps: Adam's.
      decay: factor on the learning rate, every so often.
      decay_every_steps: how often in steps; 0: as decay_every_epochs says.
      decay_every_epochs: how often in passes through the training data; 0: never.
      floor: no decay from here on.
      restart: forget the moments as often, as the original makes a new Adam every epoch.
      clip: largest norm of the text encoder's gradient.
    """

    lr: float = 2e-3
    b1: float = 0.5
    b2: float = 0.999
    eps: float = 1e-8
    decay: float = 0.98
    decay_every_steps: int = 0
    decay_every_epochs: float = 0.0
    floor: float = 2e-4
    restart: bool = True
    clip: float = 0.25

    def schedule(self) -> Callable[[jax.Array], jax.Array] | float:
        """Learning rate of a step."""
        if not self.decay_every_steps:
            return self.lr
        most = math.ceil(math.log(self.floor / self.lr) / math.log(self.decay))
        return lambda step: (
            self.lr * self.decay ** jnp.minimum(step // self.decay_every_steps, most)
        )

    def clip_text(self) -> optax.GradientTransformation:
        """The clip of the text encoder's gradient."""
        return optax.clip_by_global_norm(self.clip)

    def tx(self, train_trunk: bool) -> optax.GradientTransformation:
        """The transformation over {"text": params, "image": params}."""
        adam = optax.scale_by_adam(self.b1, self.b2, self.eps)
        if self.restart and self.decay_every_steps:
            adam = restarted(adam, self.decay_every_steps)
        adam = optax.chain(adam, optax.scale_by_learning_rate(self.schedule()))

        def labels(params):
            image = {
                part: "keep" if part == "trunk" and not train_trunk else "image"
                for part in params["image"]
            }
            return {"text": "text", "image": image}

        parts = {
            "text": optax.chain(self.clip_text(), adam),
            "image": adam,
            "keep": optax.set_to_zero(),
        }
        return optax.partition(parts, labels)


@dataclasses.dataclass(frozen=True)
class Losses:
    """The loss and the score, over networks named text and image."""

    model: Model

    def pictures(self, batch: Batch) -> jax.Array:
        """Pictures [B, R, R, 3] in [-1, 1]."""
        return unit_range(batch["image"])

    def encode(self, ctx: Ctx, batch: Batch, train: bool) -> tuple[jax.Array, jax.Array, Text]:
        """(regions [B, h, w, S], code [B, S], Text)."""
        rngs = {"dropout": ctx.rng("dropout")} if train else None
        text = ctx("text", batch["tokens"], batch["token_mask"], train=train, rngs=rngs)
        return *ctx("image", self.pictures(batch), train=train), text

    def loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The sum of both matches, in both directions."""
        m = self.model
        regions, code, text = self.encode(ctx, batch, train=True)
        return damsm(
            regions,
            code,
            text.words,
            text.sentence,
            text.mask,
            label=batch["label"] if m.class_mask else None,
            gammas=Gammas(
                attend=m.gamma1, words=m.gamma2, match=m.gamma3, divide=m.divide_by_gamma2
            ),
        )

    def score(self, ctx: Ctx, batch: Batch) -> dict[str, jax.Array]:
        """R-precision of held-out pictures among a hundred captions."""
        _, code, text = self.encode(ctx, batch, train=False)
        return {"r_precision": r_precision(code, text.sentence)}

    def player(self, optim: Optim) -> Player:
        """The one player."""
        return Player("damsm", ("text", "image"), self.loss, optim.tx(self.model.train_trunk))


def in_steps(optim: Optim, cfg, counts: Mapping[str, int | None]) -> Optim:
    """The optimiser with its decay counted in steps.

    Raises:
      ConfigError: for epochs of a source without end.
    """
    if optim.decay_every_steps or not optim.decay_every_epochs:
        return optim
    # Where only drawing or scoring is asked for, nothing is known of the data, and nothing decays.
    size = counts.get(cfg.data.split, cfg.batch_size)
    if size is None:
        raise ConfigError(
            f"config.optim.decay_every_epochs={optim.decay_every_epochs}: this data source has no "
            "end, so it has no epochs; set config.optim.decay_every_steps"
        )
    steps = max(1, round(optim.decay_every_epochs * size / cfg.batch_size))
    return dataclasses.replace(optim, decay_every_steps=steps)


def build(cfg, facts: Any = None) -> Method:
    """The method of a config: `cfg.model` holds `Model`, `cfg.optim` holds `Optim`.

    Args:
      cfg: the configuration.
      facts: `jaxt2i.run.facts.Facts` of the training data, whose epochs the decay counts.
    """
    model = fields(Model, cfg.model, "config.model")
    optim = in_steps(fields(Optim, cfg.optim, "config.optim"), cfg, facts.counts if facts else {})
    if model.trunk not in TRUNKS:
        raise ConfigError(f"config.model.trunk={model.trunk!r}; expected one of {TRUNKS}")
    dtype = compute_dtype(cfg.precision, jax.default_backend())
    losses = Losses(model)
    nets = {
        "text": DamsmText(
            vocab=model.text_vocab,
            length=cfg.data.tokens,
            embed=model.embed,
            width=model.width,
            dropout=model.dropout,
        ),
        "image": DamsmImage(
            trunk=model.trunk,
            width=model.width,
            align_corners=model.align_corners,
            train_trunk=model.train_trunk,
            base=model.base,
            resolution=cfg.data.resolution,
            dtype=dtype,
        ),
    }

    def init(key: jax.Array, batch: Batch) -> dict:
        keys = jax.random.split(key)
        return {
            "text": nets["text"].init(keys[0], batch["tokens"][:1], batch["token_mask"][:1]),
            "image": nets["image"].init(keys[1], losses.pictures(batch)[:1]),
        }

    pretrained, notes = {}, ()
    if model.trunk == "inception":
        if model.trunk_weights:
            pretrained["image"] = with_trunk(model.trunk_weights, nets["image"], cfg.seed)
        else:
            notes = (
                "the Inception trunk has random weights and does not learn; for a real run give "
                "--config.model.trunk_weights=inception_v3_google-1a9a5a14.pth (torchvision's)",
            )
    return Method(
        nets=nets,
        players=(losses.player(optim),),
        init=init,
        needs=("image", "tokens", "token_mask", *(("label",) if model.class_mask else ())),
        pretrained=pretrained,
        vocab=model.text_vocab,
        score=losses.score,
        better={"r_precision": "higher"},
        mixes=("negatives of the contrastive losses are those of a micro-batch",),
        notes=notes,
    )
