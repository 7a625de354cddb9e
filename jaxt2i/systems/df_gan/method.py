"""DF-GAN: a one-stage generator, a matching-aware gradient penalty, a one-way output.

Tao, Tang, Wu, Jing, Bao, Xu, CVPR 2022 (arXiv 2008.05865). No normalisation, no extra networks:
the caption enters through affine transformations, and one logit says realism and match
together. Follows the official code of June 2022 on, which the published checkpoints belong to.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.config import ConfigError, fields
from jaxt2i.data.schema import unit_range
from jaxt2i.encoders import perception
from jaxt2i.encoders.text import Text
from jaxt2i.engine.method import Batch, Ctx, Ema, Method, Player, Sampler
from jaxt2i.losses import adversarial
from jaxt2i.losses.penalties import Penalised, penalised
from jaxt2i.metrics.drawn import better, scores
from jaxt2i.nn.affine import UpBlock, leaky, widths
from jaxt2i.nn.initial import initialise
from jaxt2i.nn.linear import Conv, Linear
from jaxt2i.nn.optim import Adam
from jaxt2i.nn.precision import compute_dtype, perception_dtype
from jaxt2i.nn.remat import Policy, recomputed

# --- Networks ----------------------------------------------------------------------------------


def blocks_of(resolution: int) -> int:
    """How many doublings lead from 4 pixels to `resolution`."""
    return resolution.bit_length() - 3


class Generator(nn.Module):
    """z and a sentence to a picture, through blocks that each double the resolution.

    Attributes:
      base: channels at the full resolution, n_f; 8 n_f at most.
      resolution: of the pictures, pixels, a power of two from 8 on.
      z_dim, sentence_dim: widths of the inputs, for `example` alone.
      bound: see `Model`.
      dtype: compute dtype.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    base: int = 32
    resolution: int = 256
    z_dim: int = 100
    sentence_dim: int = 256
    bound: str = "tanh"
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Inputs that `init` can be traced with."""
        return tuple(
            jax.ShapeDtypeStruct((1, n), jnp.float32) for n in (self.z_dim, self.sentence_dim)
        )

    @nn.compact
    def __call__(self, z: jax.Array, sentence: jax.Array) -> jax.Array:
        """Z [B, Z] and sentence [B, S] to pictures [B, R, R, 3], in (-1, 1) where bounded."""
        channels = widths(self.base, blocks_of(self.resolution))
        cond = jnp.concatenate([z, sentence], -1)
        x = Linear(channels[0] * 16, dtype=self.dtype, name="fc")(z)
        x = jnp.moveaxis(x.reshape(len(z), channels[0], 4, 4), 1, -1)  # [B, 4, 4, 8 n_f]
        for i, width in enumerate(channels[1:]):
            block = UpBlock(width, size=8 * 2**i, dtype=self.dtype, name=f"block{i}")
            x = recomputed(self.remat, block, x, cond)
        x = Conv(3, dtype=self.dtype, name="to_rgb")(leaky(x))
        x = x.astype(jnp.float32)
        return jnp.tanh(x) if self.bound == "tanh" else x


class DownBlock(nn.Module):
    """Halves the resolution: pooled shortcut + gamma * residual, gamma 0 at the start.

    Attributes:
      features: output channels.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, H, C] to [B, H / 2, H / 2, features]."""
        plain = {"use_bias": False, "dtype": x.dtype}
        h = leaky(Conv(self.features, 4, stride=2, pad=1, name="conv0", **plain)(x))
        h = leaky(Conv(self.features, name="conv1", **plain)(h))
        # Pooling and the 1x1 convolution commute; this order needs a quarter of the products.
        x = nn.avg_pool(x, (2, 2), (2, 2))
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, dtype=x.dtype, name="conv_s")(x)
        return x + self.param("gamma", nn.initializers.zeros, (1,)).astype(x.dtype) * h


class Features(nn.Module):
    """The discriminator's image part (NetD): a picture to features on a 4x4 grid.

    Attributes:
      base: channels at the full resolution, n_f.
      resolution: of the pictures, pixels.
      dtype: compute dtype.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    base: int = 32
    resolution: int = 256
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    def example(self) -> tuple[jax.ShapeDtypeStruct]:
        """Inputs that `init` can be traced with."""
        return (jax.ShapeDtypeStruct((1, self.resolution, self.resolution, 3), jnp.float32),)

    @nn.compact
    def __call__(self, image: jax.Array, precise: bool = False) -> jax.Array:
        """[B, R, R, 3] to [B, 4, 4, 8 n_f]; `precise` computes in float32 whatever `dtype` says."""
        dtype = jnp.float32 if precise else self.dtype
        x = Conv(self.base, dtype=dtype, name="conv_img")(image)
        for i, width in enumerate(widths(self.base, blocks_of(self.resolution))[-2::-1]):
            x = recomputed(self.remat, DownBlock(width, name=f"block{i}"), x)
        return x


class OneWayOutput(nn.Module):
    """The discriminator's joint part (NetC): features and a sentence to one logit.

    Attributes:
      base: n_f; the hidden layer has 2 n_f channels.
      channels, sentence_dim: widths of the inputs, for `example` alone.
      dtype: compute dtype.
    """

    base: int = 32
    channels: int = 256
    sentence_dim: int = 256
    dtype: jnp.dtype = jnp.float32

    def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Inputs that `init` can be traced with."""
        shapes = (1, 4, 4, self.channels), (1, self.sentence_dim)
        return tuple(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)

    @nn.compact
    def __call__(self, x: jax.Array, sentence: jax.Array, precise: bool = False) -> jax.Array:
        """X [B, 4, 4, C] and sentence [B, S] to logits [B], float32."""
        dtype = jnp.float32 if precise else self.dtype
        tiled = jnp.broadcast_to(sentence[:, None, None], (*x.shape[:3], sentence.shape[-1]))
        x = jnp.concatenate([x.astype(dtype), tiled.astype(dtype)], -1)
        plain = {"use_bias": False, "dtype": dtype}
        x = leaky(Conv(2 * self.base, name="conv0", **plain)(x))
        x = Conv(1, 4, pad=0, name="conv1", **plain)(x)
        return x[:, 0, 0, 0].astype(jnp.float32)


# --- Losses and sampling -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Model:
    """Settings of the system; the defaults are the published ones.

    Attributes:
      perception: where the sentence comes from: "damsm" (published), "mini" (ships with jaxt2i),
        one of OpenAI's CLIPs such as "clip_b32", or the multilingual "mclip_b32"; see
        jaxt2i.encoders.perception.
      weights: "pretrained", or "random" to measure speed without downloads.
      text_weights: file or folder to read the perception from; "" = its usual place.
      text_vocab: word ids of a DAMSM text encoder: 5,450 (CUB), 27,297 (COCO).
      z_dim: width of the latent.
      g_base, d_base: n_f of the generator and the discriminator.
      mismatch: pictures beside the captions of their neighbours count as fake, at half weight.
      penalty_weight, penalty_power: k and p of MA-GP; weight 0 leaves it out.
      penalty_float32: compute the discriminator in float32 where the penalty differentiates it.
      truncation: standard deviation of the latents that pictures are drawn with, which are cut at
        two of it; 0 draws from the full normal.
      ema_images: half-life of an average of G in images; 0 = none, as published.
      bound: "tanh" as published, or "" to leave G's last layer linear, for grounds at the end of
        the range, such as white, on which tanh may saturate; not yet seen to help.
    """

    perception: str = "damsm"
    weights: str = "pretrained"
    text_weights: str = ""
    text_vocab: int = 5450
    z_dim: int = 100
    g_base: int = 32
    d_base: int = 32
    mismatch: bool = True
    penalty_weight: float = 2.0
    penalty_power: float = 6.0
    penalty_float32: bool = True
    truncation: float = 0.88
    ema_images: float = 0.0
    bound: str = "tanh"


@dataclasses.dataclass(frozen=True)
class Losses:
    """The losses, the sampler and the scores, over networks named g, d, c, text, guide.

    Attributes:
      model: the settings.
      sees: the frozen perception.
      resolution: of the pictures, pixels.
    """

    model: Model
    sees: perception.Perception
    resolution: int

    def text(self, ctx: Ctx, batch: Batch) -> Text:
        """The captions as G and D take them."""
        return ctx("text", batch["tokens"], batch["token_mask"])

    def pictures(self, batch: Batch) -> jax.Array:
        """Real pictures [B, R, R, 3] in [-1, 1]."""
        return unit_range(batch["image"])

    def latents(self, ctx: Ctx, batch: Batch) -> jax.Array:
        """This step's z [B, Z], the same for both players, which saves a generator pass."""
        return ctx.draw(
            "z", lambda key: jax.random.normal(key, (len(batch["image"]), self.model.z_dim))
        )

    def real_terms(
        self, ctx: Ctx, image: jax.Array, sentence: jax.Array
    ) -> tuple[Penalised, jax.Array | None]:
        """Real pictures with their own captions (with MA-GP) and with wrong ones.

        Returns:
          (logits and penalty of the right pairs, logits [B] of the wrong ones or None).
        """
        m = self.model

        def score(image, sentence):
            features = ctx("d", image, precise=m.penalty_float32)
            return ctx("c", features, sentence, precise=m.penalty_float32), features

        own = penalised(score, (image, sentence), m.penalty_weight, m.penalty_power)
        if not m.mismatch:
            return own, None
        # Picture i + 1 beside sentence i; moving sentences is cheaper than moving features.
        return own, ctx("c", own.rest, jnp.roll(sentence, 1, 0))

    def d_loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Hinge terms and MA-GP (paper equations 1 and 3)."""
        sentence = self.text(ctx, batch).sentence
        image = jax.lax.stop_gradient(ctx("g", self.latents(ctx, batch), sentence))
        own, other = self.real_terms(ctx, self.pictures(batch), sentence)
        fake = ctx("c", ctx("d", image), sentence)
        logs = {"real": adversarial.hinge_real(own.logits), "fake": adversarial.hinge_fake(fake)}
        wrong = logs["fake"]
        if other is not None:
            logs["mismatched"] = adversarial.hinge_fake(other)
            wrong = (wrong + logs["mismatched"]) / 2
        logs["penalty"] = own.penalty
        return logs["real"] + wrong + logs["penalty"], logs

    def g_loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """-mean D(G(z, s), s)."""
        sentence = self.text(ctx, batch).sentence
        image = ctx("g", self.latents(ctx, batch), sentence)
        return adversarial.linear_g(ctx("c", ctx("d", image), sentence)), {}

    def latent(self, key: jax.Array) -> jax.Array:
        """One z [Z]: normal, truncated by resampling at two standard deviations, and scaled."""
        shape, scale = (self.model.z_dim,), self.model.truncation
        if not scale:
            return jax.random.normal(key, shape)
        return scale * jax.random.truncated_normal(key, -2.0, 2.0, shape)

    @property
    def sampler(self) -> Sampler:
        """How pictures are drawn."""
        scale = self.model.truncation
        return Sampler(
            draw=self.draw,
            text=self.text,
            latent=self.latent,
            pixels="floor",
            latents=f"normal within 2, times {scale:g}" if scale else "",
        )

    def draw(self, ctx, rows, keys, *, z, text) -> dict[str, jax.Array]:
        """One picture a key and caption."""
        return {"image": ctx("g", z, text.sentence)}

    def score(self, ctx: Ctx, batch: Batch) -> dict[str, jax.Array]:
        """Held-out pictures against pictures drawn for their captions, as the guide sees them."""
        keys = jax.random.split(ctx.rng("score"), len(batch["image"]))
        text = self.text(ctx, batch)
        fake = jnp.clip(self.sampler(ctx, batch, keys, text=text)["image"], -1, 1)
        seen = [ctx("guide", self.sees.look(x))[0] for x in (self.pictures(batch), fake)]
        return scores(*seen, text.sentence if self.sees.joint else None)

    def nets(self, dtype: jnp.dtype) -> dict[str, nn.Module]:
        """The networks."""
        m, sentence = self.model, self.sees.sentence
        out = {
            "g": Generator(
                base=m.g_base,
                resolution=self.resolution,
                z_dim=m.z_dim,
                sentence_dim=sentence,
                bound=m.bound,
                dtype=dtype,
            ),
            "d": Features(base=m.d_base, resolution=self.resolution, dtype=dtype),
            "c": OneWayOutput(
                base=m.d_base,
                channels=widths(m.d_base, blocks_of(self.resolution))[0],
                sentence_dim=sentence,
                dtype=dtype,
            ),
            "text": self.sees.text,
        }
        return out | {"guide": self.sees.guide}


def build(cfg) -> Method:
    """The method of a config: `cfg.model` holds `Model`, `cfg.optim.g` and `.d` one `Adam` each."""
    model = fields(Model, cfg.model, "config.model")
    size = cfg.data.resolution
    if size < 8 or size & (size - 1):
        raise ConfigError(f"config.data.resolution={size}: a power of two from 8 on")
    if model.bound not in ("", "tanh"):
        raise ConfigError(f"config.model.bound={model.bound!r}; known: 'tanh' and ''")
    dtype = compute_dtype(cfg.precision, jax.default_backend())
    sees = perception.make(
        model.perception,
        dtype=perception_dtype(cfg),
        weights=model.weights,
        clip_weights=model.text_weights,
        vocab=model.text_vocab,
        real=(
            "at the published size, on CUB's birds:\n"
            "  python -m jaxt2i.train --config configs/df_gan.py:cub --config.data.path=DIR"
        ),
    )
    losses = Losses(model, sees, size)
    nets = losses.nets(dtype)
    tx = {n: fields(Adam, cfg.optim[n], f"config.optim.{n}").tx() for n in ("d", "g")}
    return Method(
        nets=nets,
        players=(
            Player("d", ("d", "c"), losses.d_loss, tx["d"]),
            Player("g", ("g",), losses.g_loss, tx["g"]),
        ),
        init=lambda key, batch: initialise(nets, key),
        needs=("image", "tokens", "token_mask"),
        sampler=losses.sampler,
        frozen=tuple(n for n in nets if n not in ("g", "d", "c")),
        pretrained={n: load for n, load in sees.load.items() if n in nets},
        ema={"g": Ema(model.ema_images)} if model.ema_images else {},
        vocab=sees.text.vocab,
        score=losses.score,
        better=better(sees.joint),
        mixes=(
            ("wrong captions go round among the pictures of a micro-batch",)
            if model.mismatch
            else ()
        ),
        notes=(sees.about,),
    )
