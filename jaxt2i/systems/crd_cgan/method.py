"""CRD-CGAN: K pictures of a caption at once, and four constraints on what they have in common.

Hu, Long, Xiao, Frontiers of Computer Science 18(1):181304, 2024 (arXiv 2107.13516). There is no
public code, and of the paper the abstract alone could be read: what is marked (inferred) is this
module's choice, on the ground that stands beside it. Generator and discriminators are AttnGAN's.
"""

import dataclasses
import functools
import itertools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import softplus

from jaxt2i.config import ConfigError, fields
from jaxt2i.data.schema import unit_range
from jaxt2i.encoders import guide, inception
from jaxt2i.encoders.pretrained import WeightsError, published
from jaxt2i.encoders.text import Text
from jaxt2i.engine.method import Batch, Ctx, Ema, Method, Player, Sampler
from jaxt2i.losses import staged
from jaxt2i.losses.damsm import damsm
from jaxt2i.metrics.drawn import BETTER, held_out
from jaxt2i.nn import stages
from jaxt2i.nn.attentive import Generator
from jaxt2i.nn.critics import Critic
from jaxt2i.nn.initial import initialise
from jaxt2i.nn.linear import Linear
from jaxt2i.nn.optim import Adam, half_life
from jaxt2i.nn.precision import compute_dtype, perception_dtype
from jaxt2i.nn.stages import Drawn

WEIGHTS = ("pretrained", "random")
ATTENTION = ("ratio", "off")
HEADS = ("d", "inception")
LABELS = ("single", "multi")
# Added to a ratio before it is inverted.
EPS = 1e-5

# --- The four constraints ------------------------------------------------------------------------


def pairs(count: int) -> list[tuple[int, int]]:
    """All pairs i < j of so many samples."""
    return list(itertools.combinations(range(count), 2))


def apart(x: jax.Array) -> jax.Array:
    """Mean absolute difference of every pair of samples [B, K, ...]: [B, pairs]."""
    x = x.astype(jnp.float32).reshape(*x.shape[:2], -1)
    return jnp.stack([jnp.abs(x[:, i] - x[:, j]).mean(-1) for i, j in pairs(x.shape[1])], 1)


def sensitivity(images: jax.Array, codes: jax.Array, most: float = math.inf) -> jax.Array:
    """1 / (|I_i - I_j| / |c_i - c_j| + 1e-5) of every pair: small where pictures follow codes.

    The mode-seeking ratio of Mao et al. 2019 (MSGAN, arXiv 1903.05628). (inferred): the abstract
    names a diversity loss and an attention loss, "sensitivity to noises and word attention".
    Codes are constants: else a generator lowers the loss by making them equal.

    Args:
      images: [B, K, ...].
      codes: [B, K, ...].
      most: of a pair; where pictures coincide the ratio alone would be 1e5.

    Returns:
      [B, pairs]; the loss is its mean.
    """
    between = apart(jax.lax.stop_gradient(codes))
    # Both sides times |c_i - c_j|: nothing is divided by what may be 0.
    return jnp.minimum(between / jnp.maximum(apart(images) + EPS * between, 1e-12), most)


def conditional_d(real: jax.Array, fake: jax.Array, wrong: jax.Array, relative: bool) -> jax.Array:
    """The discriminators' conditional loss, for each of the K samples.

    Args:
      real: logits [B] of pictures with their sentences.
      fake: logits [B, K] of drawn pictures.
      wrong: logits of pictures with other sentences, [B] or [B - 1].
      relative: against the mean of the other kind over the whole batch (Jolicoeur-Martineau 2019,
        arXiv 1807.00734), (inferred) as the plainest relativistic form; False: the basic loss.

    Returns:
      [K].
    """
    over_fake, over_real = (fake.mean(0), real.mean()) if relative else (0.0, 0.0)
    right = softplus(-(real[:, None] - over_fake))
    if not relative:
        right = jnp.broadcast_to(right, (len(real), fake.shape[1]))
    other = softplus(fake - over_real).mean(0) + softplus(wrong - over_real).mean()
    return right.mean(0) + other / 2


def conditional_g(real: jax.Array, fake: jax.Array, relative: bool) -> jax.Array:
    """The generator's side of `conditional_d`: [K]."""
    if not relative:
        return softplus(-fake).mean(0)
    return softplus(-(fake - real.mean())).mean(0) + softplus(real[:, None] - fake.mean(0)).mean(0)


def classified(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Cross-entropy of logits [..., C] with a class int [...], or with a set of them, [..., C]."""
    logits = logits.astype(jnp.float32)
    if target.ndim < logits.ndim:
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), target[..., None], -1).mean()
    return (softplus(logits) - target * logits).mean()


def consistency(logits: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether K samples are of their caption's category, and alike in it (inferred).

    Args:
      logits: [B, K, C].
      target: classes int [B], or sets of them, 0 or 1 [B, C].

    Returns:
      (cross-entropy, mean over pairs of the squared distance of what is predicted; of sets the mean
      over classes of the squared difference).
    """
    logits, sets = logits.astype(jnp.float32), target.ndim > 1
    every = jnp.broadcast_to(target[:, None], logits.shape[: 3 if sets else 2])
    said = jax.nn.sigmoid(logits) if sets else jax.nn.softmax(logits)
    apart = [jnp.square(said[:, i] - said[:, j]) for i, j in pairs(logits.shape[1])]
    if not apart:
        return classified(logits, every), jnp.zeros(())
    squares = jnp.stack(apart)
    return classified(logits, every), (squares.mean(-1) if sets else squares.sum(-1)).mean()


class CategoryHead(nn.Module):
    """A discriminator's features to logits of categories: a mean over positions, one layer.

    (inferred), as in AC-GAN (Odena et al. 2017, arXiv 1610.09585).

    Attributes:
      classes: C.
      channels: of the features, for `example` alone.
    """

    classes: int
    channels: int = 512

    def example(self) -> tuple[jax.ShapeDtypeStruct]:
        """Inputs that `init` can be traced with."""
        return (jax.ShapeDtypeStruct((1, 4, 4, self.channels), jnp.float32),)

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        """[B, H, W, C'] to [B, C], float32."""
        return Linear(self.classes, name="fc")(h.astype(jnp.float32).mean((1, 2)))


# --- Losses and sampling -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Model:
    """Settings of the system; the defaults are for CUB, as AttnGAN published them.

    Attributes:
      weights: "pretrained": the DAMSM of config.init_from; "random" to measure speed.
      text_vocab, embed, width, trunk, align_corners, base: of that DAMSM, as it was trained.
      z_dim: width of the latent.
      c_dim: width of the augmented condition.
      g_base, d_base: channels of G's features, and of D after its first halving.
      residuals: residual blocks a stage.
      stages: pictures, each twice the size of the one before.
      attention_mask: "tiled" as AttnGAN published, "own" corrected; see `read_words`.
      wrong_pairs: "shift" as AttnGAN published, or "roll"; see `staged.wrong_pairs`.
      num_samples: K, pictures of a caption at once. (inferred) 2, the least that has pairs.
      relativistic: the conditional loss is relativistic; False: the basic one.
      attention_loss: "ratio": pictures follow what their pixels read of the words; "off".
      attention_weight, diversity_weight, category_weight: of the other constraints; 0 leaves one
        out. (inferred) 1, as MSGAN and AC-GAN weigh theirs.
      pair_weight: eta, of the likeness of categories in the category-consistent loss (inferred).
      most_ratio: of one pair's ratio in both ratio losses (inferred: 10).
      category_head: "d": a layer on the largest discriminator's features, which real pictures
        train; "inception": a frozen Inception-v3 that was tuned to the data's classes.
      category_weights: file or folder of that Inception. StackGAN's public ones know the classes of
        the test split, which are none of the training's.
      labels: "single": `label`, of CUB and Oxford-102; "multi": the classes of a picture's objects,
        of COCO.
      classes: how many; 0: those of the training data.
      damsm_weight: lambda of the DAMSM loss on the last pictures.
      kl_weight: of the conditioning augmentation's divergence.
      class_mask: pictures of a class are no negatives in the DAMSM loss; needs `label`.
      gamma1, gamma2, gamma3, divide_by_gamma2: of the DAMSM loss; see `losses.damsm.Gammas`.
      norm_group: examples that a batch norm takes together; 0 = the global batch.
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
    attention_mask: str = "tiled"
    wrong_pairs: str = "shift"
    num_samples: int = 2
    relativistic: bool = True
    attention_loss: str = "ratio"
    attention_weight: float = 1.0
    diversity_weight: float = 1.0
    category_weight: float = 1.0
    pair_weight: float = 1.0
    most_ratio: float = 10.0
    category_head: str = "d"
    category_weights: str = ""
    labels: str = "single"
    classes: int = 0
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
    """The losses, the sampler and the scores, over networks g, d64, d128, ..., q, text, image.

    Attributes:
      model: the settings.
      resolution: of the last picture, pixels.
      classes: of the category head.
    """

    model: Model
    resolution: int
    classes: int = 0

    @property
    def sizes(self) -> tuple[int, ...]:
        """Resolutions of the pictures, smallest first."""
        return stages.sizes_of(self.resolution, self.model.stages)

    @property
    def critics(self) -> tuple[str, ...]:
        """Names of the discriminators, smallest picture first."""
        return tuple(f"d{size}" for size in self.sizes)

    @property
    def judged(self) -> bool:
        """Whether the largest discriminator has a category head."""
        return bool(self.model.category_weight) and self.model.category_head == "d"

    def text(self, ctx: Ctx, batch: Batch) -> Text:
        """The captions, by the frozen encoder."""
        return ctx("text", batch["tokens"], batch["token_mask"])

    def reals(self, batch: Batch) -> tuple[jax.Array, ...]:
        """Real pictures in [-1, 1] at every size."""
        return tuple(map(unit_range, stages.pyramid(batch["image"], self.sizes)))

    def target(self, batch: Batch) -> jax.Array:
        """Categories of the captions' pictures: int [B], or 0 and 1 [B, C]."""
        if self.model.labels == "single":
            return batch["label"]
        there = jax.nn.one_hot(batch["box_label"], self.classes) * batch["box_mask"][..., None]
        return there.max(1)

    def folded(self, x: jax.Array) -> jax.Array:
        """[B, ...] to [B K, ...]: every caption K times, beside itself."""
        return jnp.repeat(x, self.model.num_samples, 0)

    def samples(self, x: jax.Array) -> jax.Array:
        """[B K, ...] to [B, K, ...]."""
        return x.reshape(-1, self.model.num_samples, *x.shape[1:])

    def latents(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """This step's (z [B K, Z], eps [B K, C]), the same for every player."""
        m = self.model
        return stages.latents(ctx.draw, len(batch["tokens"]) * m.num_samples, m.z_dim, m.c_dim)

    def fake(self, ctx: Ctx, batch: Batch, text: Text) -> Drawn:
        """This step's drawings, K of a caption, made once for all players."""
        z, eps = self.latents(ctx, batch)
        given = [self.folded(x) for x in (text.sentence, text.words, text.mask)]
        return ctx.shared("fake", "g", lambda ctx: ctx("g", z, eps, *given, train=True))

    def d_loss(self, index: int, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict]:
        """One discriminator's turn; the largest one's category head learns from real pictures.

        The unconditional terms weigh a half each, as in AttnGAN's equation 5.
        """
        m, text = self.model, self.text(ctx, batch)
        sentence = text.sentence.astype(jnp.float32)
        fake = jax.lax.stop_gradient(self.fake(ctx, batch, text).images[index])
        judge = functools.partial(ctx, self.critics[index])
        together = functools.partial(judge, train=True, method="together")
        h_real, h_fake = (
            judge(x, train=True, method="features") for x in (self.reals(batch)[index], fake)
        )
        conditional = conditional_d(
            together(h_real, sentence),
            self.samples(together(h_fake, self.folded(sentence))),
            together(*staged.wrong_pairs(h_real, sentence, m.wrong_pairs)),
            m.relativistic,
        ).mean()
        logs = {
            "conditional": conditional,
            "real": softplus(-judge(h_real, method="alone")).mean(),
            "fake": softplus(judge(h_fake, method="alone")).mean(),
        }
        total = conditional + (logs["real"] + logs["fake"]) / 2
        if self.judged and index == len(self.critics) - 1:
            logs["category"] = classified(ctx("q", h_real), self.target(batch))
            total += m.category_weight * logs["category"]
        return total, logs

    def adversarial(self, ctx: Ctx, batch: Batch, drawn: Drawn, sentence: jax.Array) -> tuple:
        """What the discriminators say: ({term: scalar}, the largest one's features [B K, ...])."""
        logs, many = {}, self.folded(sentence)
        for net, real, image in zip(self.critics, self.reals(batch), drawn.images, strict=True):
            judge = functools.partial(ctx, net)
            together = functools.partial(judge, train=True, method="together")
            h = judge(image, train=True, method="features")
            own = self.samples(together(h, many))
            other = jnp.zeros(len(sentence))
            if self.model.relativistic:
                h_real = judge(real, train=True, method="features")
                other = jax.lax.stop_gradient(together(h_real, sentence))
            logs[f"{net}_pair"] = conditional_g(other, own, self.model.relativistic).mean()
            logs[f"{net}_alone"] = softplus(-judge(h, method="alone")).mean()
        return logs, h

    def match(self, ctx: Ctx, batch: Batch, image: jax.Array, text: Text) -> jax.Array:
        """The DAMSM loss, a mean over the K samples: each caption has one picture at a time."""
        m = self.model
        regions, code = ctx("image", image)
        regions, code = self.samples(regions), self.samples(code)
        label = batch["label"] if m.class_mask else None
        each = [
            damsm(
                regions[:, k],
                code[:, k],
                text.words,
                text.sentence,
                text.mask,
                label=label,
                gammas=guide.gammas(m),
            )[0]
            for k in range(m.num_samples)
        ]
        return sum(each) / m.num_samples

    def constraints(self, ctx: Ctx, batch: Batch, drawn: Drawn, h: jax.Array) -> tuple:
        """Attention, diversity and category: (their weighted sum, {term: scalar})."""
        m, last = self.model, drawn.images[-1]
        total, logs = jnp.zeros(()), {}
        if m.num_samples > 1:
            images = self.samples(last)
            codes = {}
            if m.attention_loss == "ratio" and m.attention_weight:
                codes["attention"] = m.attention_weight, self.samples(drawn.read[-1])
            if m.diversity_weight:
                codes["diversity"] = m.diversity_weight, self.samples(self.latents(ctx, batch)[0])
            for name, (weight, code) in codes.items():
                logs[name] = sensitivity(images, code, m.most_ratio).mean()
                total += weight * logs[name]
        if m.category_weight:
            logits = ctx("q", h) if self.judged else self.inception(ctx, last)
            logs["category"], logs["alike"] = consistency(self.samples(logits), self.target(batch))
            total += m.category_weight * (logs["category"] + m.pair_weight * logs["alike"])
        return total, logs

    def inception(self, ctx: Ctx, image: jax.Array) -> jax.Array:
        """Logits [B, C] of the frozen Inception, of pictures in [-1, 1]."""
        resized = inception.INPUTS["pytorch_fid"].resize(127.5 * (image + 1))
        return ctx("q", 2 * resized - 1)["logits"]

    def g_loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The generator's turn."""
        m, text = self.model, self.text(ctx, batch)
        drawn = self.fake(ctx, batch, text)
        logs, h = self.adversarial(ctx, batch, drawn, text.sentence.astype(jnp.float32))
        total = sum(logs.values())
        constrained, terms = self.constraints(ctx, batch, drawn, h)
        total, logs = total + constrained, {**logs, **terms}
        if m.damsm_weight:
            logs["damsm"] = self.match(ctx, batch, drawn.images[-1], text)
            total += m.damsm_weight * logs["damsm"]
        logs["kl"] = staged.divergence(drawn.mean, drawn.log_variance)
        return total + m.kl_weight * logs["kl"], logs

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
                sentence_dim=m.width,
                group=m.norm_group,
                dtype=dtype,
            )
            for net, size in zip(self.critics, self.sizes, strict=True)
        }
        out = {"g": generator, **discriminators}
        if self.judged:
            halvings = (self.resolution // 4).bit_length() - 1
            top = m.d_base * 2 ** (min(halvings, 4) - 1)
            out["q"] = CategoryHead(self.classes, channels=top)
        elif m.category_weight:
            out["q"] = inception.InceptionFeatures(
                **{**inception.PRESETS["torchvision"], "classes": self.classes}
            )
        return out | guide.networks(m, tokens=tokens, resolution=self.resolution, dtype=sees)

    @property
    def needs(self) -> tuple[str, ...]:
        """Rows of a batch that the losses read."""
        m = self.model
        several = m.category_weight and m.labels == "multi"
        one = (m.category_weight and m.labels == "single") or (m.class_mask and m.damsm_weight)
        return (
            *("image", "tokens", "token_mask"),
            *(("label",) if one else ()),
            *(("box_label", "box_mask") if several else ()),
        )


def check(model: Model, resolution: int) -> None:
    """Refuses settings that do not fit together.

    Raises:
      ConfigError: names the config line and the fix.
    """
    for name, value, known in (
        ("weights", model.weights, WEIGHTS),
        ("attention_mask", model.attention_mask, stages.MASKS),
        ("wrong_pairs", model.wrong_pairs, staged.PAIRS),
        ("attention_loss", model.attention_loss, ATTENTION),
        ("category_head", model.category_head, HEADS),
        ("labels", model.labels, LABELS),
    ):
        if value not in known:
            raise ConfigError(f"config.model.{name}={value!r}; expected one of {known}")
    if model.num_samples < 1:
        raise ConfigError(f"config.model.num_samples={model.num_samples}: 1 or more")
    outside = model.category_weight and model.category_head == "inception"
    if outside and model.weights == "pretrained" and not model.category_weights:
        raise WeightsError(
            "config.model.category_weights is empty: category_head='inception' needs a file of an "
            "Inception-v3 that was tuned to the training data's classes; or "
            "--config.model.category_head=d"
        )
    stages.sizes_of(resolution, model.stages)


def class_count(model: Model, facts: Any) -> int:
    """How many categories there are: config.model.classes, or as many as the data have names.

    Raises:
      ConfigError: where neither says it.
    """
    key = "label" if model.labels == "single" else "box_label"
    names = facts.names.get(key, ()) if facts else ()
    if model.category_weight and not (model.classes or names):
        raise ConfigError(
            f"config.model.classes=0, and the data do not say how many classes {key!r} counts; set "
            "--config.model.classes, or --config.model.category_weight=0"
        )
    return model.classes or len(names)


def build(cfg, facts: Any = None) -> Method:
    """The method of a config: `cfg.model` holds `Model`, `cfg.optim.d` and `.g` one `Adam` each.

    Args:
      cfg: the configuration.
      facts: `jaxt2i.run.facts.Facts` of the training data, whose classes the category head counts.
    """
    model = fields(Model, cfg.model, "config.model")
    check(model, cfg.data.resolution)
    losses = Losses(model, cfg.data.resolution, class_count(model, facts))
    dtype = compute_dtype(cfg.precision, jax.default_backend())
    nets = losses.nets(cfg.data.tokens, dtype, perception_dtype(cfg))
    tx = {n: fields(Adam, cfg.optim[n], f"config.optim.{n}").tx() for n in ("d", "g")}
    last = losses.critics[-1]
    players = [
        Player(
            net,
            (net, "q") if net == last and losses.judged else (net,),
            functools.partial(losses.d_loss, i),
            tx["d"],
        )
        for i, net in enumerate(losses.critics)
    ]
    # One weight at every step, whatever the batch.
    average = Ema(half_life(model.ema_beta, cfg.batch_size), rampup=None)
    lent, pretrained = ("text", "image"), model.weights == "pretrained"
    outside = ("q",) if "q" in nets and not losses.judged else ()
    files = (
        {"q": published(model.category_weights, "inception", "features", nets["q"])}
        if (outside and pretrained)
        else {}
    )
    return Method(
        nets=nets,
        players=(*players, Player("g", ("g",), losses.g_loss, tx["g"])),
        init=lambda key, batch: initialise(nets, key),
        needs=losses.needs,
        sampler=losses.sampler,
        frozen=(*lent, *outside),
        pretrained=files,
        borrowed=lent if pretrained else (),
        ema={"g": average},
        vocab=model.text_vocab,
        score=losses.score,
        better=BETTER,
        guided_by=("image",),
        mixes=(
            "batch norm takes its statistics from a micro-batch",
            "negatives of the DAMSM loss are those of a micro-batch",
            "wrong pairs are of the pictures of a micro-batch",
            "means of the relativistic loss are those of a micro-batch",
        ),
        notes=(
            "reads and scores with the DAMSM of "
            + (cfg.init_from if pretrained else "random weights: speed alone"),
        ),
    )
