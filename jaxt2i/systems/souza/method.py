"""Souza et al.: one deep generator and discriminator, and interpolated sentences.

Souza, Wehrmann, Ruiz, IJCNN 2020 (arXiv 2004.11437), "Efficient Neural Architecture for
Text-to-Image Synthesis". Residual bottleneck networks in the manner of BigGAN-deep, spectrally
normalised throughout; the sentence and z reach every layer by conditional batch norm; each image is
trained with a random mixture of all its captions.
"""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.config import ConfigError, at_least, fields
from jaxt2i.data.schema import unit_range
from jaxt2i.encoders import perception
from jaxt2i.encoders.text import Text
from jaxt2i.engine.method import Batch, Ctx, Ema, Method, Player, Sampler
from jaxt2i.losses.adversarial import FAMILIES, Family
from jaxt2i.losses.text import l2_normalize
from jaxt2i.metrics.drawn import better, scores
from jaxt2i.nn.attention import NonLocal
from jaxt2i.nn.initial import initialise
from jaxt2i.nn.norms import BatchNorm, SpectralConv, SpectralDense, orthogonal
from jaxt2i.nn.optim import Adam, half_life
from jaxt2i.nn.precision import compute_dtype, perception_dtype
from jaxt2i.nn.remat import Policy, recomputed

# Channels over the base width at 4, 8, 16, ... pixels, for pictures of 256.
WIDTHS = (16, 16, 8, 8, 4, 2, 1)
EPS = 1e-5

# --- Networks ----------------------------------------------------------------------------------


def leaky(x: jax.Array) -> jax.Array:
    """Leaky ReLU, slope 0.01: the official code calls it ReLU."""
    return jnp.where(x >= 0, x, x * jnp.asarray(0.01, x.dtype))


def widths(base: int, resolution: int) -> list[int]:
    """Channels at 4, 8, ..., `resolution` pixels."""
    count = resolution.bit_length() - 2
    table = (WIDTHS[0],) * (count - len(WIDTHS)) + WIDTHS
    return [base * w for w in table[len(table) - count :]]


def upsample(x: jax.Array) -> jax.Array:
    """Every pixel of [B, H, W, C] twice along both axes."""
    return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)


def halve(x: jax.Array) -> jax.Array:
    """Means of 2x2 pixels."""
    return nn.avg_pool(x, (2, 2), (2, 2))


def conv(features: int, size: int, dtype, name: str, up: bool = False) -> SpectralConv:
    """A convolution as this system has them; `up`: of the doubled input."""
    return SpectralConv(
        features,
        kernel_size=(size, size),
        up=up,
        dtype=dtype,
        eps=EPS,
        kernel_init=orthogonal(),
        name=name,
    )


def dense(features: int, dtype, name: str) -> SpectralDense:
    """A dense layer as this system has them."""
    return SpectralDense(features, dtype=dtype, eps=EPS, kernel_init=orthogonal(), name=name)


def non_local(dtype) -> NonLocal:
    """Self-attention as this system has it."""
    return NonLocal(eps=EPS, kernel_init=orthogonal(), dtype=dtype, name="non_local")


class ConditionalBatchNorm(nn.Module):
    """(1 + gamma(condition)) BN(x) + beta(condition).

    Attributes:
      dtype: compute dtype of the projections.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, cond: jax.Array, *, train: bool = False) -> jax.Array:
        """X [B, H, W, C] and cond [B, K] to [B, H, W, C]."""
        channels = x.shape[-1]
        gamma = dense(channels, self.dtype, "gamma")(cond, train=train)[:, None, None]
        beta = dense(channels, self.dtype, "beta")(cond, train=train)[:, None, None]
        return (1 + gamma) * BatchNorm(eps=EPS, affine=False, name="norm")(x, train=train) + beta


class GeneratorBlock(nn.Module):
    """A bottleneck of four convolutions; the shortcut drops the channels it has too many.

    Attributes:
      features: output channels, at most those of the input.
      up: double the resolution.
      dtype: compute dtype.
    """

    features: int
    up: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, cond: jax.Array, *, train: bool = False) -> jax.Array:
        """X [B, H, W, C] and cond [B, K] to [B, H', W', features]."""
        hidden, h = x.shape[-1] // 4, x
        for i, (features, size) in enumerate(
            ((hidden, 1), (hidden, 3), (hidden, 3), (self.features, 1)), 1
        ):
            h = leaky(ConditionalBatchNorm(dtype=self.dtype, name=f"bn{i}")(h, cond, train=train))
            up = self.up and i == 2
            h = conv(features, size, self.dtype, f"conv{i}", up=up)(h, train=train)
        x = x[..., : self.features]
        return h + (upsample(x) if self.up else x)


class Generator(nn.Module):
    """z and a sentence to a picture.

    Attributes:
      base: channels at the full resolution; 16 times as many at 4 pixels.
      resolution: of the pictures, pixels, a power of two from 8 on.
      attention: resolution at which positions attend to each other, pixels; 0 = nowhere.
      z_dim, sentence_dim: widths of the inputs, for `example` alone.
      dtype: compute dtype.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    base: int = 96
    resolution: int = 256
    attention: int = 64
    z_dim: int = 128
    sentence_dim: int = 256
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Inputs that `init` can be traced with."""
        sizes = (self.z_dim, self.sentence_dim)
        return tuple(jax.ShapeDtypeStruct((1, n), jnp.float32) for n in sizes)

    @nn.compact
    def __call__(self, z: jax.Array, sentence: jax.Array, *, train: bool = False) -> jax.Array:
        """Z [B, Z] and sentence [B, S] to pictures [B, R, R, 3] in (-1, 1), float32."""
        start, *after = widths(self.base, self.resolution)
        cond = jnp.concatenate([sentence, z], -1)
        x = dense(16 * start, self.dtype, "start")(z, train=train)
        x = jnp.moveaxis(x.reshape(len(z), start, 4, 4), 1, -1)  # [B, 4, 4, 16 base]
        for i, width in enumerate(after):
            blocks = (
                GeneratorBlock(x.shape[-1], up=False, dtype=self.dtype, name=f"block{2 * i + 2}"),
                GeneratorBlock(width, up=True, dtype=self.dtype, name=f"block{2 * i + 3}"),
            )
            for block in blocks:
                x = recomputed(self.remat, block, x, cond, train=train)
            if x.shape[1] == self.attention:
                look = non_local(self.dtype)
                x = recomputed(self.remat, look, x, train=train)
        x = leaky(BatchNorm(eps=EPS, name="bn")(x, train=train))
        x = conv(3, 3, self.dtype, f"block{2 * len(after) + 2}")(x, train=train)
        return jnp.tanh(x.astype(jnp.float32))


class DiscriminatorBlock(nn.Module):
    """A bottleneck of four convolutions; the shortcut gains channels by a convolution beside it.

    Attributes:
      features: output channels, at least those of the input.
      down: halve the resolution.
      dtype: compute dtype.
    """

    features: int
    down: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, C] to [B, H', W', features]."""
        hidden = self.features // 4
        h = conv(hidden, 1, self.dtype, "conv1")(leaky(x), train=train)
        h = conv(hidden, 3, self.dtype, "conv2")(leaky(h), train=train)
        h = leaky(conv(hidden, 3, self.dtype, "conv3")(leaky(h), train=train))
        if self.down:
            h, x = halve(h), halve(x)
        h = conv(self.features, 1, self.dtype, "conv4")(h, train=train)
        more = self.features - x.shape[-1]
        if more:
            x = jnp.concatenate([x, conv(more, 1, self.dtype, "conv_sc")(x, train=train)], -1)
        return h + x


class Discriminator(nn.Module):
    """A picture and a sentence to one logit (a projection discriminator).

    Attributes:
      base: channels at the full resolution.
      resolution: of the pictures, pixels.
      attention: resolution at which positions attend to each other, pixels; 0 = nowhere.
      sentence_dim: width of the sentence, for `example` alone.
      dtype: compute dtype.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    base: int = 96
    resolution: int = 256
    attention: int = 64
    sentence_dim: int = 256
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Inputs that `init` can be traced with."""
        shapes = (1, self.resolution, self.resolution, 3), (1, self.sentence_dim)
        return tuple(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)

    @nn.compact
    def __call__(self, x: jax.Array, sentence: jax.Array, *, train: bool = False) -> jax.Array:
        """X [B, R, R, 3] and sentence [B, S] to logits [B], float32."""
        first, *after = widths(self.base, self.resolution)[::-1]
        x = conv(first, 3, self.dtype, "block1")(x, train=train)
        for i, width in enumerate(after):
            blocks = (
                DiscriminatorBlock(width, down=True, dtype=self.dtype, name=f"block{2 * i + 2}"),
                DiscriminatorBlock(width, down=False, dtype=self.dtype, name=f"block{2 * i + 3}"),
            )
            for block in blocks:
                x = recomputed(self.remat, block, x, train=train)
            if x.shape[1] == self.attention:
                look = non_local(self.dtype)
                x = recomputed(self.remat, look, x, train=train)
        x = leaky(x).astype(jnp.float32).sum((1, 2))  # [B, 16 base]
        logits = dense(1, jnp.float32, "linear_out")(x, train=train)[:, 0]
        match = dense(x.shape[-1], jnp.float32, "emb_proj")(sentence, train=train)
        return logits + (match * x).sum(-1)


# --- Losses and sampling -------------------------------------------------------------------------


def mixture(u: jax.Array, present: jax.Array, sentences: jax.Array) -> jax.Array:
    """Sentence interpolation: a random convex combination of an image's captions.

    Args:
      u: [B, K], drawn from U(0, 10) in training.
      present: bool [B, K]; other captions get no share.
      sentences: [B, K, S].

    Returns:
      [B, S] = softmax(u) . sentences.

    Source: Souza et al. 2020 section III; data_loaders/CUB_200_2011.py.
    """
    share = jax.nn.softmax(jnp.where(present, u, -jnp.inf), -1)
    return jnp.einsum("bk,bks->bs", share, sentences.astype(jnp.float32), precision="highest")


@dataclasses.dataclass(frozen=True)
class Model:
    """Settings of the system; the defaults are the published ones.

    Attributes:
      perception: where sentences come from: "damsm" (published), "mini" (ships with jaxt2i),
        one of OpenAI's CLIPs such as "clip_b32", or the multilingual "mclip_b32"; see
        jaxt2i.encoders.perception.
      weights: "pretrained", or "random" to measure speed without downloads.
      text_weights: file or folder to read the perception from; "" = its usual place.
      text_vocab: word ids of a DAMSM text encoder.
      normalize_sentence: scale sentences to length sqrt(S); CLIP's are longer or shorter than
        the unit-variance numbers the conditional norms expect.
      z_dim: width of the latent.
      g_base, d_base: channels of G and D at the full resolution.
      attention: resolution of the self-attention in both, pixels.
      interpolate: train on mixtures of all captions of an image (config.data.captions of them at
        most), as the paper does; False takes one caption at random. The official scripts forget
        the flag that turns it on.
      mix_range: the mixtures' weights are softmax(U(0, mix_range)).
      loss: a key of jaxt2i.losses.adversarial.FAMILIES.
      ema_beta: weight of the old average of G at every step.
    """

    perception: str = "damsm"
    weights: str = "pretrained"
    text_weights: str = ""
    text_vocab: int = 5450
    normalize_sentence: bool = False
    z_dim: int = 128
    g_base: int = 96
    d_base: int = 96
    attention: int = at_least(0, 64)
    interpolate: bool = True
    mix_range: float = 10.0
    loss: str = "hinge"
    ema_beta: float = 0.999


@dataclasses.dataclass(frozen=True)
class Losses:
    """The losses, the sampler and the scores, over networks named g, d, text, guide.

    Attributes:
      model: the settings.
      sees: the frozen perception.
      resolution: of the pictures, pixels.
    """

    model: Model
    sees: perception.Perception
    resolution: int

    @property
    def family(self) -> Family:
        """The adversarial losses."""
        return FAMILIES[self.model.loss]

    def scaled(self, sentence: jax.Array) -> jax.Array:
        """Sentences [..., S] at the length that G and D are given."""
        if not self.model.normalize_sentence:
            return sentence.astype(jnp.float32)
        return l2_normalize(sentence) * math.sqrt(sentence.shape[-1])

    def text(self, ctx: Ctx, batch: Batch) -> Text:
        """One caption an image, as G and D take it."""
        found = ctx("text", batch["tokens"], batch["token_mask"])
        return found.replace(sentence=self.scaled(found.sentence))

    def captions(self, ctx: Ctx, batch: Batch) -> jax.Array:
        """Sentences [B, K, S] of all captions of every image."""
        tokens, mask = batch["all_tokens"], batch["all_token_mask"]
        flat = (x.reshape(-1, x.shape[-1]) for x in (tokens, mask))
        sentence = self.scaled(ctx("text", *flat).sentence)
        return sentence.reshape(*tokens.shape[:2], -1)

    def sentences(self, ctx: Ctx, batch: Batch) -> jax.Array:
        """This step's sentences [B, S], the same for both players."""
        if not self.model.interpolate:
            return self.text(ctx, batch).sentence
        present = batch["captions_mask"]
        u = ctx.draw("mixture", lambda key: jax.random.uniform(key, present.shape))
        return mixture(self.model.mix_range * u, present, self.captions(ctx, batch))

    def pictures(self, batch: Batch) -> jax.Array:
        """Real pictures [B, R, R, 3] in [-1, 1]."""
        return unit_range(batch["image"])

    def latents(self, ctx: Ctx, sentence: jax.Array, name: str) -> jax.Array:
        """Z [B, Z] of a player."""
        shape = len(sentence), self.model.z_dim
        return ctx.draw(f"z_{name}", lambda key: jax.random.normal(key, shape))

    def d_loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The discriminator's turn; generated pictures come first, as spectral vectors notice."""
        sentence = self.sentences(ctx, batch)
        image = jax.lax.stop_gradient(
            ctx("g", self.latents(ctx, sentence, "d"), sentence, train=True)
        )
        fake = ctx("d", image, sentence, train=True)
        real = ctx("d", self.pictures(batch), sentence, train=True)
        logs = {"real": self.family.real(real, fake), "fake": self.family.fake(real, fake)}
        return logs["real"] + logs["fake"], logs

    def g_loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The generator's turn, on latents of its own."""
        sentence = self.sentences(ctx, batch)
        image = ctx("g", self.latents(ctx, sentence, "g"), sentence, train=True)
        fake = ctx("d", image, sentence, train=True)
        real = fake
        if self.family.relative:
            real = ctx("d", self.pictures(batch), sentence, train=True)
        return self.family.g(real, fake), {}

    def settle(self, ctx: Ctx, batch: Batch) -> None:
        """Moves G's running statistics towards those of the weights that `ctx` holds.

        The average's weights never saw a batch of their own; the original draws 100 batches of
        training captions in training mode before it evaluates. Advances `ctx.extra`.
        """
        sentence = self.text(ctx, batch).sentence
        ctx("g", self.latents(ctx, sentence, "settle"), sentence, train=True)

    def latent(self, key: jax.Array) -> jax.Array:
        """One z [Z]."""
        return jax.random.normal(key, (self.model.z_dim,))

    @property
    def sampler(self) -> Sampler:
        """How pictures are drawn."""
        return Sampler(
            draw=self.draw,
            text=self.text,
            latent=self.latent,
            pixels="floor",
            settle=self.settle,
        )

    def draw(self, ctx, rows, keys, *, z, text) -> dict[str, jax.Array]:
        """One picture a key and caption, without truncation."""
        return {"image": ctx("g", z, text.sentence)}

    def score(self, ctx: Ctx, batch: Batch) -> dict[str, jax.Array]:
        """Held-out pictures against pictures drawn for their first captions."""
        keys = jax.random.split(ctx.rng("score"), len(batch["image"]))
        if self.model.interpolate:
            first = {
                "tokens": batch["all_tokens"][:, 0],
                "token_mask": batch["all_token_mask"][:, 0],
            }
            batch = {**batch, **first}
        text = self.text(ctx, batch)
        fake = self.sampler(ctx, batch, keys, text=text)["image"]
        seen = [ctx("guide", self.sees.look(x))[0] for x in (self.pictures(batch), fake)]
        return scores(*seen, text.sentence if self.sees.joint else None)

    def nets(self, dtype: jnp.dtype) -> dict[str, nn.Module]:
        """The networks."""
        m, sentence = self.model, self.sees.sentence
        common = {
            "resolution": self.resolution,
            "attention": m.attention,
            "sentence_dim": sentence,
            "dtype": dtype,
        }
        out = {
            "g": Generator(base=m.g_base, z_dim=m.z_dim, **common),
            "d": Discriminator(base=m.d_base, **common),
            "text": self.sees.text,
        }
        return out | {"guide": self.sees.guide}


def build(cfg) -> Method:
    """The method of a config: `cfg.model` holds `Model`, `cfg.optim.g` and `.d` one `Adam` each."""
    model = fields(Model, cfg.model, "config.model")
    check(model, cfg.data.resolution)
    dtype = compute_dtype(cfg.precision, jax.default_backend())
    sees = perception.make(
        model.perception,
        dtype=perception_dtype(cfg),
        weights=model.weights,
        clip_weights=model.text_weights,
        vocab=model.text_vocab,
        real=(
            "at the published size, on CUB's birds:\n"
            "  python -m jaxt2i.train --config configs/souza.py:cub --config.data.path=DIR"
        ),
    )
    losses = Losses(model, sees, cfg.data.resolution)
    nets = losses.nets(dtype)
    tx = {n: fields(Adam, cfg.optim[n], f"config.optim.{n}").tx() for n in ("d", "g")}
    # One weight at every step, whatever the batch.
    average = Ema(half_life(model.ema_beta, cfg.batch_size), rampup=None)
    text = ("all_tokens", "all_token_mask", "captions_mask")
    return Method(
        nets=nets,
        players=(
            Player("d", ("d",), losses.d_loss, tx["d"]),
            Player("g", ("g",), losses.g_loss, tx["g"]),
        ),
        init=lambda key, batch: initialise(nets, key),
        needs=("image", *(text if model.interpolate else ("tokens", "token_mask"))),
        sampler=losses.sampler,
        frozen=tuple(n for n in nets if n not in ("g", "d")),
        pretrained={n: load for n, load in sees.load.items() if n in nets},
        ema={"g": average},
        vocab=sees.text.vocab,
        score=losses.score,
        better=better(sees.joint),
        mixes=("batch norm takes its statistics from a micro-batch",),
        notes=(sees.about,),
    )


def check(model: Model, size: int) -> None:
    """Refuses settings that do not fit together.

    Raises:
      ConfigError: names the config line and the fix.
    """
    if size < 8 or size & (size - 1):
        raise ConfigError(f"config.data.resolution={size}: a power of two from 8 on")
    if model.loss not in FAMILIES:
        raise ConfigError(f"config.model.loss={model.loss!r}; known: {', '.join(FAMILIES)}")
    if model.attention and model.attention not in [2**k for k in range(3, size.bit_length())]:
        raise ConfigError(
            f"config.model.attention={model.attention}: no layer has that resolution at "
            f"{size} pixels; choose a power of two from 8 to {size}, or 0 for none"
        )
    if not 0 < model.ema_beta < 1:
        raise ConfigError(f"config.model.ema_beta={model.ema_beta}: between 0 and 1")
    for name, base in (("g_base", model.g_base), ("d_base", model.d_base)):
        if base % 4:
            raise ConfigError(f"config.model.{name}={base}: bottlenecks need a multiple of 4")
