"""AttnGAN: three stages of drawing, each later one reading the caption's words pixel by pixel.

Xu et al. 2018 (arXiv 1711.10485), and taoxugit/AttnGAN. The frozen encoders of a DAMSM condition
the generator and judge its last picture; `config.init_from` names the run, or the folder of
converted weights, that they come from. `Game` is also that of DM-GAN.
"""

import dataclasses
import functools
import math

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.nn import softplus

from jaxt2i.data.schema import to_uint8_floor, unit_range
from jaxt2i.encoders.damsm import DamsmImage, DamsmText
from jaxt2i.encoders.text import Text
from jaxt2i.engine.method import Batch, ConfigError, Ctx, Ema, Method, Player, fields
from jaxt2i.losses.damsm import Gammas, damsm
from jaxt2i.metrics.drawn import BETTER, scores
from jaxt2i.nn.critics import Critic
from jaxt2i.nn.linear import Conv
from jaxt2i.nn.norms import orthogonal
from jaxt2i.nn.optim import Adam
from jaxt2i.nn.precision import compute_dtype
from jaxt2i.nn.remat import Policy
from jaxt2i.nn.resample import reduce_bytes
from jaxt2i.nn.stages import (
    MASKS,
    ConditioningAugmentation,
    FirstStage,
    Refinement,
    ToImage,
    divergence,
    read_words,
)

WEIGHTS = ("pretrained", "random")
PAIRS = ("shift", "roll")


@flax.struct.dataclass
class Drawn:
    """What a generator draws.

    Attributes:
      images: one a stage, smallest first, [B, R, R, 3] in [-1, 1].
      attention: of every stage behind the first, [B, T, H, W] over the words.
      mean: of the conditioning augmentation, [B, C].
      log_variance: [B, C].
    """

    images: tuple[jax.Array, ...]
    attention: tuple[jax.Array, ...]
    mean: jax.Array
    log_variance: jax.Array


class NextStage(nn.Module):
    """Word attention, residual blocks, twice the size.

    Attributes:
      residuals: residual blocks.
      attention_mask: see `read_words`.
      group: of the batch norms.
      dtype: compute dtype.
      remat: of `Refinement`.
    """

    residuals: int = 2
    attention_mask: str = "tiled"
    group: int = 0
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    @nn.compact
    def __call__(self, h, words, mask, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """Features [B, R, R, g], words [B, T, S] to ([B, 2R, 2R, g], attention [B, T, R, R])."""
        channels = h.shape[-1]
        project = Conv(
            channels, 1, use_bias=False, dtype=self.dtype, kernel_init=orthogonal(), name="context"
        )
        words = project(words[:, None])[:, 0]  # [B, T, g]
        context, attention = read_words(h, words, words, mask, self.attention_mask)
        self.sow("intermediates", "read", context)
        own = (self.residuals, self.group, self.dtype, self.remat)
        refine = Refinement(channels, *own, name="refine")
        return refine(jnp.concatenate([h, context], -1), train=train), attention


class Generator(nn.Module):
    """Latent and caption to a picture a stage (paper, figure 2).

    Attributes:
      base: channels of every stage's features, g.
      resolution: of the last stage, pixels.
      stages: how many; every stage doubles the size.
      residuals: residual blocks a stage; 0 is AttnDCGAN's.
      last_only: one picture, of the last stage (AttnDCGAN).
      attention_mask: see `read_words`.
      z_dim: width of the latent.
      c_dim: width of the augmented condition.
      words_dim: S, for `example` alone.
      group: of the batch norms.
      dtype: compute dtype; pictures are float32.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    base: int = 32
    resolution: int = 256
    stages: int = 3
    residuals: int = 2
    last_only: bool = False
    attention_mask: str = "tiled"
    z_dim: int = 100
    c_dim: int = 100
    words_dim: int = 256
    group: int = 0
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Inputs that `init` can be traced with."""
        return example(self.z_dim, self.c_dim, self.words_dim)

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
        augment = ConditioningAugmentation(self.c_dim, name="augment")
        cond, mean, log_variance = augment(sentence, eps)
        size = self.resolution // 2 ** (self.stages - 1)
        first = FirstStage(self.base, size, self.group, self.dtype, self.remat, name="stage1")
        h = first(cond, z, train=train)
        images, attention = [], []
        for i in range(self.stages):
            if i:
                own = (self.residuals, self.attention_mask, self.group, self.dtype, self.remat)
                stage = NextStage(*own, name=f"stage{i + 1}")
                h, share = stage(h, words, mask, train=train)
                attention.append(share)
            if not self.last_only or i == self.stages - 1:
                images.append(ToImage(self.dtype, name=f"image{i + 1}")(h))
        return Drawn(tuple(images), tuple(attention), mean, log_variance)


def example(z_dim: int, c_dim: int, words_dim: int) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Shapes of a generator's inputs, for one caption of three words."""
    shapes = (1, z_dim), (1, c_dim), (1, words_dim), (1, 3, words_dim)
    floats = (jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)
    return *floats, jax.ShapeDtypeStruct((1, 3), bool)


# --- The game ----------------------------------------------------------------------------------


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
      wrong_pairs: "shift": B - 1 pairs of a picture and the next caption, as published; "roll": B
        pairs, the last picture with the first caption, which splits evenly over devices.
      damsm_weight: lambda of the DAMSM loss on the last picture.
      kl_weight: of the conditioning augmentation's divergence.
      class_mask: pictures of a class are no negatives in the DAMSM loss; needs `label`.
      gamma1, gamma2, gamma3, divide_by_gamma2: see jaxt2i.systems.damsm.method.
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
    residuals: int = 2
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

    def sizes(self, resolution: int) -> tuple[int, ...]:
        """Resolutions of the pictures, smallest first."""
        every = tuple(resolution // 2**i for i in range(self.stages))[::-1]
        return every[-1:] if self.last_only else every


@dataclasses.dataclass(frozen=True)
class Game:
    """The losses, the sampler and the scores, over networks named g, d64, d128, ..., text, image.

    Attributes:
      model: the settings.
      resolution: of the last picture.
    """

    model: Model
    resolution: int

    @property
    def critics(self) -> tuple[str, ...]:
        """Names of the discriminators, smallest picture first."""
        return tuple(f"d{size}" for size in self.model.sizes(self.resolution))

    def text(self, ctx: Ctx, batch: Batch) -> Text:
        """The captions, by the frozen encoder."""
        return ctx("text", batch["tokens"], batch["token_mask"])

    def reals(self, batch: Batch) -> tuple[jax.Array, ...]:
        """Real pictures in [-1, 1] at every size; the smaller ones as Pillow resizes (bilinear)."""
        image, out = batch["image"], []
        for size in self.model.sizes(self.resolution):
            out.append(image if size == self.resolution else reduce_bytes(image, size))
        return tuple(map(unit_range, out))

    def latents(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """This step's (z [B, Z], eps [B, C]), the same for every player."""
        shape = len(batch["tokens"]), self.model.z_dim + self.model.c_dim
        drawn = ctx.draw("z", lambda key: jax.random.normal(key, shape))
        return drawn[:, : self.model.z_dim], drawn[:, self.model.z_dim :]

    def fake(self, ctx: Ctx, batch: Batch, text: Text) -> Drawn:
        """This step's drawings, made once for all players."""
        z, eps = self.latents(ctx, batch)

        def draw(ctx: Ctx) -> Drawn:
            return ctx("g", z, eps, text.sentence, text.words, text.mask, train=True)

        return ctx.shared("fake", "g", draw)

    def wrong(self, h: jax.Array, sentence: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Real features beside captions of other pictures."""
        if self.model.wrong_pairs == "shift":
            return h[:-1], sentence[1:]
        return h, jnp.roll(sentence, -1, 0)

    def d_loss(self, index: int, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict]:
        """One discriminator's turn (paper, equation 5, with the code's weights)."""
        net, text = self.critics[index], self.text(ctx, batch)
        sentence = text.sentence.astype(jnp.float32)
        fake = jax.lax.stop_gradient(self.fake(ctx, batch, text).images[index])
        judge = functools.partial(ctx, net, train=True)
        real = judge(self.reals(batch)[index], method="features")
        drawn = judge(fake, method="features")
        logs = {
            "real_pair": softplus(-judge(real, sentence, method="together")).mean(),
            "fake_pair": softplus(judge(drawn, sentence, method="together")).mean(),
            "wrong_pair": softplus(judge(*self.wrong(real, sentence), method="together")).mean(),
        }
        wrong = logs["fake_pair"] + logs["wrong_pair"]
        if self.model.last_only:
            return logs["real_pair"] + wrong / 2, logs
        logs["real"] = softplus(-ctx(net, real, method="alone")).mean()
        logs["fake"] = softplus(ctx(net, drawn, method="alone")).mean()
        return (logs["real"] + logs["real_pair"]) / 2 + (logs["fake"] + wrong) / 3, logs

    def adversarial(self, ctx: Ctx, drawn: Drawn, sentence: jax.Array) -> dict[str, jax.Array]:
        """What every discriminator says of G's pictures."""
        logs = {}
        for net, image in zip(self.critics, drawn.images, strict=True):
            h = ctx(net, image, train=True, method="features")
            pair = ctx(net, h, sentence, train=True, method="together")
            logs[f"{net}_pair"] = softplus(-pair).mean()
            if not self.model.last_only:
                logs[f"{net}_alone"] = softplus(-ctx(net, h, method="alone")).mean()
        return logs

    def match(self, ctx: Ctx, batch: Batch, image: jax.Array, text: Text) -> tuple:
        """The DAMSM loss of pictures and their captions, and its four terms."""
        m = self.model
        gammas = Gammas(m.gamma1, m.gamma2, m.gamma3, m.divide_by_gamma2)
        regions, code = ctx("image", image)
        label = batch["label"] if m.class_mask else None
        return damsm(regions, code, text.words, text.sentence, text.mask, label, gammas)

    def g_loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The generator's turn (paper, equations 4 and 11): every D, the DAMSM, the divergence."""
        text = self.text(ctx, batch)
        drawn = self.fake(ctx, batch, text)
        logs = self.adversarial(ctx, drawn, text.sentence.astype(jnp.float32))
        total = sum(logs.values())
        if self.model.damsm_weight:
            matched, terms = self.match(ctx, batch, drawn.images[-1], text)
            total, logs = total + self.model.damsm_weight * matched, {**logs, **terms}
        logs["kl"] = divergence(drawn.mean, drawn.log_variance)
        return total + self.model.kl_weight * logs["kl"], logs

    def latent(self, key: jax.Array) -> jax.Array:
        """Z and the augmentation's noise in one vector [Z + C]."""
        return jax.random.normal(key, (self.model.z_dim + self.model.c_dim,))

    def sample(self, ctx, batch, keys, *, z=None, text=None) -> dict:
        """One picture a key and caption; its earlier stages and attention with it."""
        z = jax.vmap(self.latent)(keys) if z is None else z
        text = self.text(ctx, batch) if text is None else text
        z, eps = z[:, : self.model.z_dim], z[:, self.model.z_dim :]
        drawn = ctx("g", z, eps, text.sentence, text.words, text.mask)
        return {"image": drawn.images[-1], "stages": drawn.images, "attention": drawn.attention}

    def score(self, ctx: Ctx, batch: Batch) -> dict[str, jax.Array]:
        """Held-out pictures against pictures drawn for their captions, in the DAMSM's space."""
        keys = jax.random.split(ctx.rng("score"), len(batch["image"]))
        text = self.text(ctx, batch)
        fake = self.sample(ctx, batch, keys, text=text)["image"]
        seen = [ctx("image", x)[1] for x in (unit_range(batch["image"]), fake)]
        return scores(*seen, text.sentence)

    def encoders(self, tokens: int, dtype: jnp.dtype) -> dict[str, nn.Module]:
        """The frozen DAMSM."""
        m = self.model
        return {
            "text": DamsmText(m.text_vocab, tokens, m.embed, m.width),
            "image": DamsmImage(
                m.trunk,
                m.width,
                m.align_corners,
                base=m.base,
                resolution=self.resolution,
                dtype=dtype,
            ),
        }

    def judges(self, kind: str, dtype: jnp.dtype) -> dict[str, nn.Module]:
        """The discriminators."""
        m = self.model
        return {
            name: Critic(m.d_base, size, kind, not m.last_only, m.width, m.norm_group, dtype)
            for name, size in zip(self.critics, m.sizes(self.resolution), strict=True)
        }

    def method(self, cfg, nets: dict[str, nn.Module]) -> Method:
        """The whole, on networks that carry the names above."""
        m = self.model
        tx = {n: fields(Adam, cfg.optim[n], f"config.optim.{n}").tx() for n in ("d", "g")}
        players = [
            Player(net, (net,), functools.partial(self.d_loss, i), tx["d"])
            for i, net in enumerate(self.critics)
        ]
        # One weight at every step, whatever the batch: the half-life in images follows from it.
        half_life = -cfg.batch_size / math.log2(m.ema_beta)
        frozen = ("text", "image")

        def init(key: jax.Array, batch: Batch) -> dict:
            keys = dict(zip(sorted(nets), jax.random.split(key, len(nets)), strict=True))
            zeros = {n: (jnp.zeros(x.shape, x.dtype) for x in nets[n].example()) for n in nets}
            return {n: nets[n].init(keys[n], *zeros[n]) for n in nets}

        return Method(
            nets=nets,
            players=(*players, Player("g", ("g",), self.g_loss, tx["g"])),
            init=init,
            needs=("image", "tokens", "token_mask", *(("label",) if m.class_mask else ())),
            sample=self.sample,
            frozen=frozen,
            borrowed=frozen if m.weights == "pretrained" else (),
            ema={"g": Ema(half_life, rampup=None)},
            text=self.text,
            latent=self.latent,
            quantize=to_uint8_floor,
            vocab=m.text_vocab,
            score=self.score,
            better=BETTER,
            notes=(
                "reads and judges with the DAMSM of "
                + (cfg.init_from if m.weights == "pretrained" else "random weights: speed alone"),
            ),
        )


def check(model: Model, resolution: int) -> None:
    """Refuses settings that do not fit together.

    Raises:
      ConfigError: names the config line and the fix.
    """
    for name, value, known in (
        ("weights", model.weights, WEIGHTS),
        ("attention_mask", model.attention_mask, MASKS),
        ("wrong_pairs", model.wrong_pairs, PAIRS),
    ):
        if value not in known:
            raise ConfigError(f"config.model.{name}={value!r}; expected one of {known}")
    if resolution & (resolution - 1) or resolution // 2 ** (model.stages - 1) < 8:
        raise ConfigError(
            f"config.data.resolution={resolution}: {model.stages} stages (config.model.stages) "
            f"need a power of two from {8 * 2 ** (model.stages - 1)} on"
        )


def build(cfg) -> Method:
    """The method of a config: `cfg.model` holds `Model`, `cfg.optim.d` and `.g` one `Adam` each."""
    model = fields(Model, cfg.model, "config.model")
    check(model, cfg.data.resolution)
    dtype = compute_dtype(cfg.precision, jax.default_backend())
    game = Game(model, cfg.data.resolution)
    generator = Generator(
        model.g_base,
        cfg.data.resolution,
        model.stages,
        model.residuals,
        model.last_only,
        model.attention_mask,
        model.z_dim,
        model.c_dim,
        model.width,
        model.norm_group,
        dtype,
    )
    nets = {"g": generator, **game.judges("batch", dtype), **game.encoders(cfg.data.tokens, dtype)}
    return game.method(cfg, nets)
