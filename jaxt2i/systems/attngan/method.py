"""AttnGAN: three stages of drawing, each later one reading the caption's words pixel by pixel.

Xu et al. 2018 (arXiv 1711.10485), and taoxugit/AttnGAN. The frozen encoders of a DAMSM condition
the generator and guide its last picture; `config.init_from` names the run, or the folder of
converted weights, that they come from.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.config import ConfigError, at_least, fields
from jaxt2i.data.schema import unit_range
from jaxt2i.encoders import guide
from jaxt2i.encoders.text import Text
from jaxt2i.engine.method import Batch, Ctx, Ema, Method, Player, Sampler
from jaxt2i.losses import staged
from jaxt2i.metrics.drawn import BETTER, held_out
from jaxt2i.nn import stages
from jaxt2i.nn.attentive import Generator
from jaxt2i.nn.critics import Critic
from jaxt2i.nn.initial import initialise
from jaxt2i.nn.optim import Adam, half_life
from jaxt2i.nn.precision import compute_dtype, perception_dtype
from jaxt2i.nn.stages import Drawn

WEIGHTS = ("pretrained", "random")


# --- Losses and sampling -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Model:
    """Settings of the system; the defaults are those published for CUB.

    Attributes:
      weights: "pretrained": the DAMSM of config.init_from; "random" to measure speed.
      text_vocab, embed, width, trunk, align_corners, base: of that DAMSM, as it was trained.
      z_dim: width of the latent.
      c_dim: width of the augmented condition.
      g_base, d_base: channels of G's features, and of D after its first halving.
      residuals: residual blocks a stage.
      stages: pictures, each twice the size of the one before.
      last_only: AttnDCGAN: one picture, one D without its unconditional head.
      attention_mask: "tiled" as published, "own" corrected; see `read_words`.
      wrong_pairs: "shift" as published, or "roll"; see `staged.wrong_pairs`.
      damsm_weight: lambda of the DAMSM loss on the last picture.
      kl_weight: of the conditioning augmentation's divergence.
      class_mask: pictures of a class are no negatives in the DAMSM loss; needs `label`.
      gamma1, gamma2, gamma3, divide_by_gamma2: of the DAMSM loss; see `losses.damsm.Gammas`.
      norm_group: examples that a batch norm takes together, as on one of the original's GPUs;
        0 = the global batch.
      ema_beta: weight of the old average of G at every step.
    """

    weights: str = "pretrained"
    text_vocab: int = 5450
    embed: int = 300
    width: int = 256
    trunk: str = "inception"
    align_corners: bool = True
    base: int = 32
    z_dim: int = 100
    c_dim: int = 100
    g_base: int = 32
    d_base: int = 64
    residuals: int = at_least(0, 2)
    stages: int = 3
    last_only: bool = False
    attention_mask: str = "tiled"
    wrong_pairs: str = "shift"
    damsm_weight: float = 5.0
    kl_weight: float = 1.0
    class_mask: bool = True
    gamma1: float = 4.0
    gamma2: float = 5.0
    gamma3: float = 10.0
    divide_by_gamma2: bool = False
    norm_group: int = 0
    ema_beta: float = 0.999


@dataclasses.dataclass(frozen=True)
class Losses:
    """The losses, the sampler and the scores, over networks named g, d64, d128, ..., text, image.

    Attributes:
      model: the settings.
      resolution: of the last picture, pixels.
    """

    model: Model
    resolution: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Resolutions of the pictures, smallest first."""
        every = stages.sizes_of(self.resolution, self.model.stages)
        return every[-1:] if self.model.last_only else every

    @property
    def critics(self) -> tuple[str, ...]:
        """Names of the discriminators, smallest picture first."""
        return tuple(f"d{size}" for size in self.sizes)

    def text(self, ctx: Ctx, batch: Batch) -> Text:
        """The captions, by the frozen encoder."""
        return ctx("text", batch["tokens"], batch["token_mask"])

    def reals(self, batch: Batch) -> tuple[jax.Array, ...]:
        """Real pictures in [-1, 1] at every size."""
        return tuple(map(unit_range, stages.pyramid(batch["image"], self.sizes)))

    def latents(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """This step's (z [B, Z], eps [B, C]), the same for every player."""
        return stages.latents(ctx.draw, len(batch["tokens"]), self.model.z_dim, self.model.c_dim)

    def fake(self, ctx: Ctx, batch: Batch, text: Text) -> Drawn:
        """This step's drawings, made once for all players."""
        z, eps = self.latents(ctx, batch)

        def draw(ctx: Ctx) -> Drawn:
            return ctx("g", z, eps, text.sentence, text.words, text.mask, train=True)

        return ctx.shared("fake", "g", draw)

    def d_loss(self, index: int, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict]:
        """One discriminator's turn."""
        text = self.text(ctx, batch)
        sentence = text.sentence.astype(jnp.float32)
        fake = jax.lax.stop_gradient(self.fake(ctx, batch, text).images[index])
        return staged.d_loss(
            functools.partial(ctx, self.critics[index]),
            real=self.reals(batch)[index],
            fake=fake,
            sentence=sentence,
            pairs=self.model.wrong_pairs,
            unconditional=not self.model.last_only,
        )

    def adversarial(self, ctx: Ctx, drawn: Drawn, sentence: jax.Array) -> dict[str, jax.Array]:
        """What every discriminator says of G's pictures."""
        return staged.g_terms(
            {net: functools.partial(ctx, net) for net in self.critics},
            drawn.images,
            sentence,
            unconditional=not self.model.last_only,
        )

    def match(self, ctx: Ctx, batch: Batch, image: jax.Array, text: Text) -> tuple:
        """The DAMSM loss of pictures and their captions, and its four terms."""
        return guide.matched(ctx, self.model, batch, image, text)

    def g_loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The generator's turn (paper, equations 4 and 11): every D, the DAMSM, the divergence."""
        text = self.text(ctx, batch)
        drawn = self.fake(ctx, batch, text)
        logs = self.adversarial(ctx, drawn, text.sentence.astype(jnp.float32))
        total = sum(logs.values())
        if self.model.damsm_weight:
            matched, terms = self.match(ctx, batch, drawn.images[-1], text)
            total, logs = total + self.model.damsm_weight * matched, {**logs, **terms}
        logs["kl"] = staged.divergence(drawn.mean, drawn.log_variance)
        return total + self.model.kl_weight * logs["kl"], logs

    def latent(self, key: jax.Array) -> jax.Array:
        """Z and the augmentation's noise in one vector [Z + C]."""
        return stages.latent(key, self.model.z_dim, self.model.c_dim)

    @property
    def sampler(self) -> Sampler:
        """How pictures are drawn."""
        return Sampler(draw=self.draw, text=self.text, latent=self.latent, pixels="floor")

    def draw(self, ctx, rows, keys, *, z, text) -> dict:
        """One picture a key and caption; its earlier stages and attention with it."""
        return stages.drawn_from(functools.partial(ctx, "g"), z, text, self.model.z_dim)

    def score(self, ctx: Ctx, batch: Batch) -> dict[str, jax.Array]:
        """Held-out pictures against pictures drawn for their captions, in the DAMSM's space."""
        text = self.text(ctx, batch)
        draw = functools.partial(self.sampler, ctx, batch, text=text)
        return held_out(ctx, unit_range(batch["image"]), draw, text.sentence)

    def nets(
        self, tokens: int, dtype: jnp.dtype, sees: jnp.dtype = jnp.float32
    ) -> dict[str, nn.Module]:
        """The networks; captions have `tokens` positions, the encoders compute in `sees`."""
        m = self.model
        generator = Generator(
            base=m.g_base,
            resolution=self.resolution,
            stages=m.stages,
            residuals=m.residuals,
            last_only=m.last_only,
            attention_mask=m.attention_mask,
            z_dim=m.z_dim,
            c_dim=m.c_dim,
            words_dim=m.width,
            group=m.norm_group,
            dtype=dtype,
        )
        discriminators = {
            net: Critic(
                base=m.d_base,
                resolution=size,
                kind="batch",
                unconditional=not m.last_only,
                sentence_dim=m.width,
                group=m.norm_group,
                dtype=dtype,
            )
            for net, size in zip(self.critics, self.sizes, strict=True)
        }
        return {
            "g": generator,
            **discriminators,
            **guide.networks(m, tokens=tokens, resolution=self.resolution, dtype=sees),
        }


def check(model: Model, resolution: int) -> None:
    """Refuses settings that do not fit together.

    Raises:
      ConfigError: names the config line and the fix.
    """
    for name, value, known in (
        ("weights", model.weights, WEIGHTS),
        ("attention_mask", model.attention_mask, stages.MASKS),
        ("wrong_pairs", model.wrong_pairs, staged.PAIRS),
    ):
        if value not in known:
            raise ConfigError(f"config.model.{name}={value!r}; expected one of {known}")
    stages.sizes_of(resolution, model.stages)


def build(cfg) -> Method:
    """The method of a config: `cfg.model` holds `Model`, `cfg.optim.d` and `.g` one `Adam` each."""
    model = fields(Model, cfg.model, "config.model")
    check(model, cfg.data.resolution)
    losses = Losses(model, cfg.data.resolution)
    dtype = compute_dtype(cfg.precision, jax.default_backend())
    nets = losses.nets(cfg.data.tokens, dtype, perception_dtype(cfg))
    tx = {n: fields(Adam, cfg.optim[n], f"config.optim.{n}").tx() for n in ("d", "g")}
    players = [
        Player(net, (net,), functools.partial(losses.d_loss, i), tx["d"])
        for i, net in enumerate(losses.critics)
    ]
    # One weight at every step, whatever the batch.
    average = Ema(half_life(model.ema_beta, cfg.batch_size), rampup=None)
    frozen, pretrained = ("text", "image"), model.weights == "pretrained"
    return Method(
        nets=nets,
        players=(*players, Player("g", ("g",), losses.g_loss, tx["g"])),
        init=lambda key, batch: initialise(nets, key),
        needs=("image", "tokens", "token_mask", *(("label",) if model.class_mask else ())),
        sampler=losses.sampler,
        frozen=frozen,
        borrowed=frozen if pretrained else (),
        ema={"g": average},
        vocab=model.text_vocab,
        score=losses.score,
        better=BETTER,
        guided_by=("image",),
        mixes=(
            "batch norm takes its statistics from a micro-batch",
            "negatives of the DAMSM loss are those of a micro-batch",
            "wrong pairs are of the pictures of a micro-batch",
        ),
        notes=(
            "reads and scores with the DAMSM of "
            + (cfg.init_from if pretrained else "random weights: speed alone"),
        ),
    )
