"""DM-GAN: three stages of drawing, each later one with a dynamic memory of the caption's words.

Zhu et al. 2019 (arXiv 1904.01310), and MinfengZhu/DM-GAN. The frozen encoders of a DAMSM condition
the generator and guide its last picture; `config.init_from` names the run, or the folder of
converted weights, that they come from.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.config import ConfigError, fields
from jaxt2i.data.schema import unit_range
from jaxt2i.encoders import guide
from jaxt2i.encoders.text import Text
from jaxt2i.engine.method import Batch, Ctx, Ema, Method, Player, Sampler
from jaxt2i.losses import staged
from jaxt2i.metrics.drawn import BETTER, held_out
from jaxt2i.nn import stages
from jaxt2i.nn.critics import Critic
from jaxt2i.nn.initial import initialise
from jaxt2i.nn.linear import Linear
from jaxt2i.nn.norms import orthogonal
from jaxt2i.nn.optim import Adam, half_life
from jaxt2i.nn.precision import compute_dtype, perception_dtype
from jaxt2i.nn.remat import Policy
from jaxt2i.nn.stages import Drawn, read_words

WEIGHTS = ("pretrained", "random")


class MemoryStage(nn.Module):
    """Writes words into a memory, reads it at every pixel, and refines (paper, section 3.1).

    Attributes:
      residuals: residual blocks.
      attention_mask: see `read_words`.
      summary_gradient: let gradients pass the picture's summary in the writing gate; the code
        stops them.
      twice: feed the updated features to the residual blocks twice, as the code does; False:
        beside the features before the update.
      group: of the batch norms.
      dtype: compute dtype.
      remat: of `Refinement`.
    """

    residuals: int = 2
    attention_mask: str = "tiled"
    summary_gradient: bool = False
    twice: bool = True
    group: int = 0
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    @nn.compact
    def __call__(self, h, words, mask, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """Features [B, R, R, g], words [B, T, S] to ([B, 2R, 2R, g], attention [B, T, R, R])."""
        channels = h.shape[-1]

        def dense(features: int, name: str, bias: bool = True) -> Linear:
            return Linear(
                features, use_bias=bias, kernel_init=orthogonal(), dtype=self.dtype, name=name
            )

        summary = h.astype(jnp.float32).mean((1, 2))[:, None]  # [B, 1, g]
        if not self.summary_gradient:
            summary = jax.lax.stop_gradient(summary)
        gate = dense(1, "gate_words", False)(words) + dense(1, "gate_image", False)(summary)
        gate = jax.nn.sigmoid(gate)  # equation 5, [B, T, 1]
        written = nn.relu(dense(2 * channels, "write_words")(words))
        kept = nn.relu(dense(2 * channels, "write_image")(summary))
        memory = gate * written + (1 - gate) * kept  # equation 6, [B, T, 2g]
        keys = nn.relu(dense(channels, "key")(memory))
        values = nn.relu(dense(channels, "value")(memory))
        read, attention = read_words(h, keys, values, mask, self.attention_mask)
        respond = dense(1, "respond")(jnp.concatenate([h, read], -1))
        share = jax.nn.sigmoid(respond)  # equation 10, [B, R, R, 1]
        new = (1 - share) * h + share * read
        kept = jnp.broadcast_to(kept, written.shape)
        for name, value in (("kept", kept), ("memory", memory), ("read", read)):
            self.sow("intermediates", name, value)
        refine = stages.Refinement(
            channels,
            blocks=self.residuals,
            group=self.group,
            dtype=self.dtype,
            remat=self.remat,
            name="refine",
        )
        both = jnp.concatenate([new if self.twice else h, new], -1)
        return refine(both, train=train), attention


class Generator(nn.Module):
    """Latent and caption to a picture a stage.

    Attributes:
      base: channels of every stage's features, g.
      resolution: of the last stage, pixels.
      stages: how many; every stage doubles the size.
      residuals: residual blocks a stage.
      attention_mask: see `read_words`.
      summary_gradient, twice: see `MemoryStage`.
      z_dim: width of the latent.
      c_dim: width of the augmented condition.
      words_dim: S, for `example` alone.
      group: of the batch norms.
      dtype: compute dtype; pictures are float32.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    base: int = 64
    resolution: int = 256
    stages: int = 3
    residuals: int = 2
    attention_mask: str = "tiled"
    summary_gradient: bool = False
    twice: bool = True
    z_dim: int = 100
    c_dim: int = 100
    words_dim: int = 256
    group: int = 0
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Inputs that `init` can be traced with."""
        return stages.generator_inputs(self.z_dim, self.c_dim, self.words_dim)

    @nn.compact
    def __call__(self, z, eps, sentence, words, mask, *, train: bool = False) -> Drawn:
        """Draws.

        Args:
          z: [B, Z] ~ N(0, I).
          eps: [B, C] ~ N(0, I), the augmentation's noise, in evaluation too.
          sentence: [B, S].
          words: [B, T, S].
          mask: bool [B, T], True at words.
          train: normalise by the batch's statistics and move the running ones.
        """
        augment = stages.ConditioningAugmentation(self.c_dim, name="augment")
        cond, mean, log_variance = augment(sentence, eps)
        common = {"group": self.group, "dtype": self.dtype, "remat": self.remat}
        size = self.resolution // 2 ** (self.stages - 1)
        first = stages.FirstStage(base=self.base, resolution=size, name="stage1", **common)
        h = first(cond, z, train=train)
        images, attention = [stages.ToImage(dtype=self.dtype, name="image1")(h)], []
        for i in range(2, self.stages + 1):
            stage = MemoryStage(
                residuals=self.residuals,
                attention_mask=self.attention_mask,
                summary_gradient=self.summary_gradient,
                twice=self.twice,
                name=f"stage{i}",
                **common,
            )
            h, share = stage(h, words, mask, train=train)
            attention.append(share)
            images.append(stages.ToImage(dtype=self.dtype, name=f"image{i}")(h))
        return Drawn(tuple(images), tuple(attention), mean, log_variance)


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
      last_only: False; AttnGAN alone can draw one picture, with one discriminator.
      attention_mask: "tiled" as published, "own" corrected; see `read_words`.
      summary_gradient, twice: see `MemoryStage`; the defaults are the code's.
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
    g_base: int = 64
    d_base: int = 32
    residuals: int = 2
    stages: int = 3
    last_only: bool = False
    attention_mask: str = "tiled"
    summary_gradient: bool = False
    twice: bool = True
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
        return stages.sizes_of(self.resolution, self.model.stages)

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
        )

    def adversarial(self, ctx: Ctx, drawn: Drawn, sentence: jax.Array) -> dict[str, jax.Array]:
        """What every discriminator says of G's pictures."""
        return staged.g_terms(
            {net: functools.partial(ctx, net) for net in self.critics},
            drawn.images,
            sentence,
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
            attention_mask=m.attention_mask,
            summary_gradient=m.summary_gradient,
            twice=m.twice,
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
                kind="spectral",
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
    if model.last_only:
        raise ConfigError(
            "config.model.last_only=True: DM-GAN draws every stage, each with a discriminator; the "
            "variant with one picture is AttnGAN's, configs/attngan.py:cub_dcgan"
        )
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
