"""KT-GAN: word and region weights that update each other, and a text encoder that is taught.

Tan, Liu, Liu, Yin, Li 2021 (IEEE TIP 30:1275-1290, doi 10.1109/TIP.2020.3026728). There is no
public code, and of the paper little more than the abstract could be read: what is marked (inferred)
is this module's choice, on the ground that stands beside it. The base is AttnGAN. Three trainings
follow each other: a DAMSM; the teacher, which redraws pictures from what an image encoder sees; the
student, which draws from text, and whose text encoder learns from the teacher's image encoder.
"""

import dataclasses
import functools
import math

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxt2i.config import ConfigError, at_least, fields
from jaxt2i.data.schema import unit_range
from jaxt2i.encoders import guide
from jaxt2i.encoders.text import Text
from jaxt2i.engine.method import Batch, Ctx, Ema, Method, Player, Sampler
from jaxt2i.losses import staged
from jaxt2i.losses.damsm import attention as attend
from jaxt2i.metrics.drawn import better, held_out
from jaxt2i.nn import stages
from jaxt2i.nn.critics import Critic
from jaxt2i.nn.initial import initialise
from jaxt2i.nn.linear import Conv
from jaxt2i.nn.nearest import resize_nearest
from jaxt2i.nn.norms import orthogonal
from jaxt2i.nn.optim import Adam, half_life, only
from jaxt2i.nn.precision import compute_dtype, perception_dtype
from jaxt2i.nn.remat import Policy
from jaxt2i.nn.stages import Drawn, read_words

WEIGHTS = ("pretrained", "random")
TASKS = ("student", "teacher")
NORMS = ("batch", "spectral")

# --- Alternate attention transfer ----------------------------------------------------------------


@flax.struct.dataclass
class Turns:
    """What the alternation found, round by round.

    Attributes:
      words: weights of the words, [B, T] each, 0 at padding.
      regions: weights of the sub-regions, [B, N] each.
    """

    words: tuple[jax.Array, ...]
    regions: tuple[jax.Array, ...]


def alternate(
    regions: jax.Array,
    words: jax.Array,
    mask: jax.Array,
    rounds: int,
    start: jax.Array | None = None,
) -> Turns:
    """Weights of words by regions, of regions by words, and so on, float32.

    a = softmax_t of sum_n b_n S_nt, then b = softmax_n of sum_t a_t S_nt, with S = h . e / sqrt(D).
    (inferred): the abstract says no more than that the two kinds of weights are updated
    alternately. S itself, N x T, is never made: each half of a round is two products with vectors.

    Args:
      regions: h [B, N, D].
      words: e [B, T, D].
      mask: bool [B, T], True at words.
      rounds: K.
      start: weights of the regions to begin with, [B, N]; None: all 1 / N.
    """
    h, e = regions.astype(jnp.float32), words.astype(jnp.float32)
    product = functools.partial(jnp.einsum, precision="highest")
    scale = h.shape[-1] ** -0.5
    b = jnp.full(h.shape[:2], 1 / h.shape[1]) if start is None else start
    found: tuple[list, list] = [], []
    for _ in range(rounds):
        said = scale * product("btd,bd->bt", e, product("bn,bnd->bd", b, h))
        a = jax.nn.softmax(jnp.where(mask, said, -jnp.inf), -1)
        b = jax.nn.softmax(scale * product("bnd,bd->bn", h, product("bt,btd->bd", a, e)), -1)
        found[0].append(a)
        found[1].append(b)
    return Turns(tuple(found[0]), tuple(found[1]))


def weighted(x: jax.Array, weights: jax.Array, count: jax.Array | int, gamma: jax.Array):
    """x_i (1 + gamma (count w_i - 1)): even weights, or gamma 0, change nothing.

    Args:
      x: [B, N, D].
      weights: [B, N], of sum 1.
      count: of what the weights are shared among, N or [B, 1].
      gamma: scalar.
    """
    return x * (1 + gamma * (count * weights - 1))[..., None].astype(x.dtype)


def upsampled(weights: jax.Array) -> jax.Array:
    """Weights [B, N] of a square of regions on one of twice the side, [B, 4 N]; the sum stays."""
    side = math.isqrt(weights.shape[1])
    square = weights.reshape(-1, side, side, 1)
    return resize_nearest(square, 2 * side).reshape(len(weights), -1) / 4


# --- Networks ------------------------------------------------------------------------------------


class NextStage(nn.Module):
    """Alternate attention transfer, word attention, residual blocks, twice the size.

    Attributes:
      residuals: residual blocks.
      attention_mask: see `read_words`.
      rounds: K of `alternate`; 0: both gammas are fixed at 0, which is AttnGAN's stage.
      group: of the batch norms.
      dtype: compute dtype.
      remat: of `Refinement`.
    """

    residuals: int = 2
    attention_mask: str = "tiled"
    rounds: int = 2
    group: int = 0
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    @nn.compact
    def __call__(self, h, words, mask, start=None, *, train: bool = False) -> tuple:
        """One stage.

        Args:
          h: features [B, R, R, g].
          words: [B, T, S].
          mask: bool [B, T].
          start: weights of the regions [B, R R] that the stage before handed on, or None.
          train: see `Generator`.

        Returns:
          ([B, 2R, 2R, g], attention [B, T, R, R], weights of the regions [B, R R] or None).
        """
        channels = h.shape[-1]
        project = Conv(
            channels, 1, use_bias=False, kernel_init=orthogonal(), dtype=self.dtype, name="context"
        )
        words = project(words[:, None])[:, 0]  # [B, T, g]
        regions = None
        if self.rounds:
            h, words, regions = self.transferred(h, words, mask, start)
        context, attention = read_words(h, words, words, mask, self.attention_mask)
        refine = stages.Refinement(
            channels,
            blocks=self.residuals,
            group=self.group,
            dtype=self.dtype,
            remat=self.remat,
            name="refine",
        )
        h = refine(jnp.concatenate([h, context], -1), train=train)
        return h, attention, regions

    def transferred(self, h, words, mask, start) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Features and words by their weights, and the regions' last weights."""
        flat = h.reshape(len(h), -1, h.shape[-1])
        found = alternate(flat, words, mask, self.rounds, start)
        gammas = [
            self.param(f"gamma_{name}", nn.initializers.zeros, ()) for name in ("regions", "words")
        ]
        flat = weighted(flat, found.regions[-1], flat.shape[1], gammas[0])
        words = weighted(words, found.words[-1], mask.sum(-1, keepdims=True), gammas[1])
        words = jnp.where(mask[..., None], words, 0)
        return flat.reshape(h.shape), words, found.regions[-1]


class Generator(nn.Module):
    """Latent and condition to a picture a stage: AttnGAN's, with alternate attention transfer.

    Attributes:
      base: channels of every stage's features, g.
      resolution: of the last stage, pixels.
      stages: how many; every stage doubles the size.
      residuals: residual blocks a stage.
      attention_mask: see `read_words`.
      rounds: see `NextStage`.
      carry: a stage begins with the regions' weights of the one before.
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
    attention_mask: str = "tiled"
    rounds: int = 2
    carry: bool = True
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
        regions = None
        for i in range(1, self.stages):
            stage = NextStage(
                residuals=self.residuals,
                attention_mask=self.attention_mask,
                rounds=self.rounds,
                name=f"stage{i + 1}",
                **common,
            )
            start = upsampled(regions) if self.carry and regions is not None else None
            h, share, regions = stage(h, words, mask, start, train=train)
            attention.append(share)
            images.append(stages.ToImage(dtype=self.dtype, name=f"image{i + 1}")(h))
        return Drawn(tuple(images), tuple(attention), mean, log_variance)


# --- Losses and sampling -------------------------------------------------------------------------


def distillation(
    text: Text, regions: jax.Array, code: jax.Array, sharpness: float = 4.0
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """How far sentences and words are from what an image encoder says of the picture, float32.

    (inferred): the abstract says that the image encoder guides the training of the text encoder; a
    squared distance is the plainest way, and regions are matched with words as the DAMSM matches
    them. Neither the targets nor the attention that makes them move with the student.

    Args:
      text: the student's: sentence [B, S], words [B, T, S], mask [B, T].
      regions: the teacher's [B, N, S].
      code: the teacher's [B, S].
      sharpness: gamma1 of the attention.

    Returns:
      (mean squared distance of sentences, of words: a mean over captions of means over their words,
      the words' targets [B, T, S]).
    """
    regions, code = jax.lax.stop_gradient((regions, code))
    words = text.words.astype(jnp.float32)

    def own(regions, words, mask):
        return attend(regions[None], words[None], mask[None], sharpness)[0, 0]  # [T, N]

    share = jax.lax.stop_gradient(jax.vmap(own)(regions, words, text.mask))
    target = jnp.einsum("btn,bns->bts", share, regions, precision="highest")
    sentence = jnp.square(text.sentence.astype(jnp.float32) - code).sum(-1).mean()
    distance = jnp.where(text.mask, jnp.square(words - target).sum(-1), 0)
    by_caption = distance.sum(-1) / text.mask.sum(-1)
    return sentence, by_caption.mean(), target


@dataclasses.dataclass(frozen=True)
class Model:
    """Settings of the system; the defaults are for CUB, as AttnGAN published them.

    Attributes:
      task: "student": text to picture; "teacher": picture to picture, trained before it.
      weights: "pretrained": networks of config.init_from; "random" to measure speed.
      text_vocab, embed, width, trunk, align_corners, base: of the DAMSM, as it was trained.
      z_dim: width of the latent.
      c_dim: width of the augmented condition.
      g_base, d_base: channels of G's features, and of D after its first halving.
      residuals: residual blocks a stage.
      stages: pictures, each twice the size of the one before.
      attention_mask: "tiled" as AttnGAN published, "own" corrected; see `read_words`.
      wrong_pairs: "shift" as AttnGAN published, or "roll"; see `staged.wrong_pairs`.
      rounds: K of the alternate attention transfer; 0 fixes its gammas at 0, which is AttnGAN.
        (inferred) 2: the least that alternates.
      carry: stage 3 begins with the regions' weights of stage 2 (inferred from "transfer").
      d_norm: "batch" as AttnGAN, or "spectral", which the same authors' later public code has.
      damsm_weight: lambda of the DAMSM loss on the student's last picture.
      kl_weight: of the conditioning augmentation's divergence.
      class_mask: pictures of a class are no negatives in the DAMSM loss; needs `label`.
      gamma1, gamma2, gamma3, divide_by_gamma2: of the DAMSM loss; see `losses.damsm.Gammas`.
      sdm_weight: of the semantic distillation; 0 leaves it, its teacher and the student's own text
        encoder out. The text encoder learns from nothing else (inferred: AttnGAN's GAN losses do
        not reach it either).
      sdm_gamma: sharpness of the distillation's attention (inferred: the DAMSM's gamma1).
      text_clip: largest norm of the text encoder's gradient.
      l1_weight: of the teacher's distance to the picture that it is shown (inferred).
      norm_group: examples that a batch norm takes together; 0 = the global batch.
      ema_beta: weight of the old average of G at every step.
    """

    task: str = "student"
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
    attention_mask: str = "tiled"
    wrong_pairs: str = "shift"
    rounds: int = at_least(0, 2)
    carry: bool = True
    d_norm: str = "batch"
    damsm_weight: float = 5.0
    kl_weight: float = 1.0
    class_mask: bool = True
    gamma1: float = 4.0
    gamma2: float = 5.0
    gamma3: float = 10.0
    divide_by_gamma2: bool = False
    sdm_weight: float = 1.0
    sdm_gamma: float = 4.0
    text_clip: float = 0.25
    l1_weight: float = 1.0
    norm_group: int = 0
    ema_beta: float = 0.999


@dataclasses.dataclass(frozen=True)
class Losses:
    """The losses, the sampler and the scores.

    Networks: g, d64, d128, ..., image (the DAMSM's); a student has text (the DAMSM's), student (the
    text encoder that learns) and teacher; a teacher has teacher, the image encoder that learns.

    Attributes:
      model: the settings.
      resolution: of the last picture, pixels.
    """

    model: Model
    resolution: int

    @property
    def taught(self) -> bool:
        """Whether a text encoder learns here."""
        return self.model.task == "student" and bool(self.model.sdm_weight)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Resolutions of the pictures, smallest first."""
        return stages.sizes_of(self.resolution, self.model.stages)

    @property
    def critics(self) -> tuple[str, ...]:
        """Names of the discriminators, smallest picture first."""
        return tuple(f"d{size}" for size in self.sizes)

    def reals(self, batch: Batch) -> tuple[jax.Array, ...]:
        """Real pictures in [-1, 1] at every size."""
        return tuple(map(unit_range, stages.pyramid(batch["image"], self.sizes)))

    def seen(self, ctx: Ctx, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What the teacher's image encoder makes of pictures: (regions [B, N, S], code [B, S])."""
        regions, code = ctx("teacher", image, hold_trunk=True)
        return regions.reshape(len(regions), -1, regions.shape[-1]), code

    def condition(self, ctx: Ctx, batch: Batch) -> Text:
        """What G draws from: captions, or the teacher's regions for words."""
        if self.model.task == "teacher":
            regions, code = self.seen(ctx, unit_range(batch["image"]))
            return Text(code, regions, jnp.ones(regions.shape[:2], bool))
        return ctx("student" if self.taught else "text", batch["tokens"], batch["token_mask"])

    def latents(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """This step's (z [B, Z], eps [B, C]), the same for every player."""
        return stages.latents(ctx.draw, len(batch["image"]), self.model.z_dim, self.model.c_dim)

    def fake(self, ctx: Ctx, batch: Batch, text: Text) -> Drawn:
        """This step's drawings, made once for all players of a student.

        A teacher's go back to two networks, which a shared pass cannot.
        """
        z, eps = self.latents(ctx, batch)

        def draw(ctx: Ctx) -> Drawn:
            return ctx("g", z, eps, text.sentence, text.words, text.mask, train=True)

        return draw(ctx) if self.model.task == "teacher" else ctx.shared("fake", "g", draw)

    def d_loss(self, index: int, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict]:
        """One discriminator's turn."""
        text = jax.lax.stop_gradient(self.condition(ctx, batch))
        fake = jax.lax.stop_gradient(self.fake(ctx, batch, text).images[index])
        return staged.d_loss(
            functools.partial(ctx, self.critics[index]),
            real=self.reals(batch)[index],
            fake=fake,
            sentence=text.sentence.astype(jnp.float32),
            pairs=self.model.wrong_pairs,
        )

    def match(self, ctx: Ctx, batch: Batch, image: jax.Array) -> tuple:
        """The DAMSM loss of pictures and their captions, by the DAMSM's own encoders."""
        text = ctx("text", batch["tokens"], batch["token_mask"])
        return guide.matched(ctx, self.model, batch, image, text)

    def g_loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The generator's turn, and the teacher's projections with it."""
        m, text = self.model, self.condition(ctx, batch)
        if m.task == "student":
            text = jax.lax.stop_gradient(text)
        drawn = self.fake(ctx, batch, text)
        # A code must not please the critics by itself.
        sentence = jax.lax.stop_gradient(text.sentence.astype(jnp.float32))
        judges = {net: functools.partial(ctx, net) for net in self.critics}
        logs = staged.g_terms(judges, drawn.images, sentence)
        total = sum(logs.values())
        if m.task == "teacher":
            logs["l1"] = jnp.abs(self.reals(batch)[-1] - drawn.images[-1]).mean()
            total += m.l1_weight * logs["l1"]
        elif m.damsm_weight:
            matched, terms = self.match(ctx, batch, drawn.images[-1])
            total, logs = total + m.damsm_weight * matched, {**logs, **terms}
        logs["kl"] = staged.divergence(drawn.mean, drawn.log_variance)
        return total + m.kl_weight * logs["kl"], logs

    def text_loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The text encoder's turn: semantic distillation alone."""
        text = self.condition(ctx, batch)
        regions, code = self.seen(ctx, unit_range(batch["image"]))
        sentence, words, _ = distillation(text, regions, code, self.model.sdm_gamma)
        loss = self.model.sdm_weight * (sentence + words)
        return loss, {"sentence": sentence, "words": words}

    def latent(self, key: jax.Array) -> jax.Array:
        """Z and the augmentation's noise in one vector [Z + C]."""
        return stages.latent(key, self.model.z_dim, self.model.c_dim)

    @property
    def sampler(self) -> Sampler:
        """How pictures are drawn."""
        reads = ("image",) if self.model.task == "teacher" else ("tokens", "token_mask")
        return Sampler(
            draw=self.draw, needs=reads, text=self.condition, latent=self.latent, pixels="floor"
        )

    def draw(self, ctx, rows, keys, *, z, text) -> dict:
        """One picture a key and condition; its earlier stages with it, and attention to words."""
        out = stages.drawn_from(functools.partial(ctx, "g"), z, text, self.model.z_dim)
        if self.model.task == "teacher":
            del out["attention"]
        return out

    def score(self, ctx: Ctx, batch: Batch) -> dict[str, jax.Array]:
        """Held-out pictures against drawn ones, in the DAMSM's space."""
        sentence = None
        if self.model.task == "student":
            sentence = ctx("text", batch["tokens"], batch["token_mask"]).sentence
        draw = functools.partial(self.sampler, ctx, batch)
        return held_out(ctx, unit_range(batch["image"]), draw, sentence)

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
            rounds=m.rounds,
            carry=m.carry,
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
                kind=m.d_norm,
                sentence_dim=m.width,
                group=m.norm_group,
                dtype=dtype,
            )
            for net, size in zip(self.critics, self.sizes, strict=True)
        }
        read = guide.networks(m, tokens=tokens, resolution=self.resolution, dtype=sees)
        out = {"g": generator, **discriminators, "image": read["image"]}
        if m.task == "teacher":
            return out | {"teacher": read["image"]}
        learns = {"student": read["text"], "teacher": read["image"]} if self.taught else {}
        return out | {"text": read["text"]} | learns


def check(model: Model, resolution: int) -> None:
    """Refuses settings that do not fit together.

    Raises:
      ConfigError: names the config line and the fix.
    """
    for name, value, known in (
        ("task", model.task, TASKS),
        ("weights", model.weights, WEIGHTS),
        ("attention_mask", model.attention_mask, stages.MASKS),
        ("wrong_pairs", model.wrong_pairs, staged.PAIRS),
        ("d_norm", model.d_norm, NORMS),
    ):
        if value not in known:
            raise ConfigError(f"config.model.{name}={value!r}; expected one of {known}")
    stages.sizes_of(resolution, model.stages)


def players(losses: Losses, cfg) -> tuple[Player, ...]:
    """The discriminators, the generator, and whoever learns beside them."""
    tx = {n: fields(Adam, cfg.optim[n], f"config.optim.{n}").tx() for n in ("d", "g", "text")}
    turns = [
        Player(net, (net,), functools.partial(losses.d_loss, i), tx["d"])
        for i, net in enumerate(losses.critics)
    ]
    if losses.model.task == "teacher":
        # Of the image encoder its two projections alone.
        tx["g"] = only(tx["g"], lambda path: not path.startswith("teacher/trunk/"))
        return (*turns, Player("g", ("g", "teacher"), losses.g_loss, tx["g"]))
    turns.append(Player("g", ("g",), losses.g_loss, tx["g"]))
    if losses.taught:
        clipped = optax.chain(optax.clip_by_global_norm(losses.model.text_clip), tx["text"])
        turns.append(Player("text", ("student",), losses.text_loss, clipped))
    return tuple(turns)


def build(cfg) -> Method:
    """The method of a config: `cfg.model` holds `Model`, `cfg.optim.d`, `.g`, `.text` an `Adam`."""
    model = fields(Model, cfg.model, "config.model")
    check(model, cfg.data.resolution)
    losses = Losses(model, cfg.data.resolution)
    dtype = compute_dtype(cfg.precision, jax.default_backend())
    nets = losses.nets(cfg.data.tokens, dtype, perception_dtype(cfg))
    turns = players(losses, cfg)
    trained = {net for player in turns for net in player.nets}
    frozen, pretrained = tuple(n for n in nets if n not in trained), model.weights == "pretrained"
    student = model.task == "student"
    label = ("label",) if student and model.class_mask and model.damsm_weight else ()
    # One weight at every step, whatever the batch.
    average = Ema(half_life(model.ema_beta, cfg.batch_size), rampup=None)
    return Method(
        nets=nets,
        players=turns,
        init=lambda key, batch: initialise(nets, key),
        needs=("image", *(("tokens", "token_mask") if student else ()), *label),
        sampler=losses.sampler,
        frozen=frozen,
        borrowed=frozen if pretrained else (),
        called={"student": "text"} if student else {"teacher": "image"},
        ema={"g": average},
        vocab=model.text_vocab if student else 0,
        score=losses.score,
        better=better(student),
        guided_by=("image", "text") if student and model.damsm_weight else (),
        mixes=(
            "batch norm takes its statistics from a micro-batch",
            "negatives of the DAMSM loss are those of a micro-batch",
            "wrong pairs are of the pictures of a micro-batch",
        ),
        notes=(
            "reads and scores with networks of "
            + (cfg.init_from if pretrained else "random weights: speed alone"),
        ),
    )
