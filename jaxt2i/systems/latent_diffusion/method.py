"""Latent diffusion: a U-Net that removes noise from the latent of a picture, given a text.

Rombach, Blattmann, Lorenz, Esser, Ommer, CVPR 2022 (arXiv 2112.10752), as Stable Diffusion 1.x:
text tower and autoencoder are frozen, the U-Net is the one player. Small pictures need no
autoencoder: with `space="pixels"` the same U-Net works on them.
"""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.config import ConfigError, fields, nearest
from jaxt2i.data.schema import height_and_width, unit_range
from jaxt2i.data.sources import latents
from jaxt2i.encoders import perception
from jaxt2i.encoders.clip import ClipText
from jaxt2i.encoders.diffusion.unet import UNet
from jaxt2i.encoders.diffusion.vae import VAE
from jaxt2i.encoders.pretrained import kept_in, published
from jaxt2i.encoders.text import PADDINGS, padded
from jaxt2i.engine.method import DTYPES, Batch, Control, Ctx, Ema, Method, Player, Sampler, cast
from jaxt2i.losses.text import l2_normalize
from jaxt2i.metrics.drawn import better, scores
from jaxt2i.nn import diffusion
from jaxt2i.nn.initial import initialise
from jaxt2i.nn.optim import Adam
from jaxt2i.nn.precision import compute_dtype, perception_dtype

SPACES = ("latent", "pixels")
WEIGHTINGS = ("plain", "min_snr")
# The perception whose text tower lies beside Stable Diffusion's other networks.
STABLE = "stable_diffusion"
# What Stable Diffusion 1.x was trained from and with; `sd_weights` empty asks for it.
PUBLISHED = "stable-diffusion-v1-5/stable-diffusion-v1-5"


@dataclasses.dataclass(frozen=True)
class Model:
    """Settings of the system; the defaults are Stable Diffusion 1.5's.

    Attributes:
      perception: who reads the captions. "stable_diffusion": the text tower in `sd_weights`, and
        the shipped mini CLIP's image tower to compare pictures with pictures; else a name of
        jaxt2i.encoders.perception, "mini" for one.
      weights: "pretrained", or "random" to measure speed without downloads.
      clip_weights: of a perception with files of its own; "" = their usual place.
      sd_weights: folder of diffusers, single file, or what `python -m jaxt2i.convert diffusion`
        wrote.
      text_width, text_layers, text_heads: of that text tower.
      padding: what the U-Net reads behind a caption's end: "end" (ends all the way, as Stable
        Diffusion) or "tokenizer" (what the tokenizer puts there).
      from_scratch: the U-Net starts from random weights; False: from those of `sd_weights`.
      space: "latent", or "pixels": no autoencoder.
      channels: of the U-Net's levels, the finest first; each has half the size of the one before.
      layers: its residual blocks a level.
      heads: its attention heads at every level.
      groups: of its norms.
      attention: of each level, whether it reads the text; the middle always does.
      vae_channels, vae_groups: of the autoencoder.
      tile: pixels of a latent that go through the autoencoder at once; 0: all. See `VAE`.
      sample_latents: train on latents drawn from the autoencoder's distribution; False: its mean.
      frozen_dtype: in which frozen networks are kept: "float32", or "bfloat16" for half the memory.
      caption_dropout: share of captions that training replaces by the empty one, for guidance.
      weighting: of the loss over noise levels, "plain" (published) or "min_snr": errors of the
        clean picture count at most `snr_gamma` (Hang et al. 2023, arXiv 2303.09556, section 3.4).
      snr_gamma: see `weighting`.
      beta_start, beta_end, curve, prediction: of `jaxt2i.nn.diffusion.Schedule`.
      ema_images: half-life of the average of the U-Net in images; published: decay 0.9999 a step
        of 2,048 pictures. 0 = none.
      guidance, steps: defaults of the sampler.
      score_steps: of the sampler where training is scored.
    """

    perception: str = STABLE
    weights: str = "pretrained"
    clip_weights: str = ""
    sd_weights: str = ""
    text_width: int = 768
    text_layers: int = 12
    text_heads: int = 12
    padding: str = "end"
    from_scratch: bool = False
    space: str = "latent"
    channels: tuple[int, ...] = UNet.channels
    layers: int = UNet.layers
    heads: int = UNet.heads
    groups: int = UNet.groups
    attention: tuple[bool, ...] = UNet.attention
    vae_channels: tuple[int, ...] = VAE.channels
    vae_groups: int = VAE.groups
    tile: int = 0
    sample_latents: bool = True
    frozen_dtype: str = "float32"
    caption_dropout: float = 0.1
    weighting: str = "plain"
    snr_gamma: float = 5.0
    beta_start: float = diffusion.Schedule.beta_start
    beta_end: float = diffusion.Schedule.beta_end
    curve: str = diffusion.Schedule.curve
    prediction: str = diffusion.Schedule.prediction
    ema_images: float = 14_000_000.0
    guidance: float = 7.5
    steps: int = 50
    score_steps: int = 20


@dataclasses.dataclass(frozen=True)
class Losses:
    """The loss, the sampler and the scores, over networks named unet, vae, text, guide.

    Attributes:
      model: the settings.
      sees: the perception; its guide sees nothing but scores.
      vae: the autoencoder; None: pictures are their own latents.
      resolution: (height, width) of the pictures, pixels.
      cached: training reads pictures' latents, which the autoencoder gave once, and no pictures.
    """

    model: Model
    sees: perception.Perception
    vae: VAE | None
    resolution: tuple[int, int]
    cached: bool = False

    @property
    def schedule(self) -> diffusion.Schedule:
        """How noise grows."""
        m = self.model
        return diffusion.Schedule(
            beta_start=m.beta_start,
            beta_end=m.beta_end,
            curve=m.curve,
            prediction=m.prediction,
            **diffusion.ending(m.space),
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one latent."""
        if self.vae is None:
            return (*self.resolution, 3)
        return (*(n // self.vae.factor for n in self.resolution), self.vae.latent)

    def latents(self, ctx: Ctx, batch: Batch) -> jax.Array:
        """Training's latents [B, h, w, C]; no gradient passes the frozen autoencoder."""
        if self.vae is None:
            return unit_range(batch["image"])
        shape = (len(batch["tokens"]), *self.shape)
        noise = ctx.draw("latent", lambda key: jax.random.normal(key, shape))
        noise *= self.model.sample_latents
        if self.cached:
            return ctx("vae", batch["latent_mean"], batch["latent_std"], noise, method="drawn")
        return ctx("vae", unit_range(batch["image"]), noise, method="sample")

    def errors(self, ctx: Ctx, batch: Batch, words: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(step t [B] of each picture, mean squared error [B] of what is predicted there)."""
        x, plan = self.latents(ctx, batch), self.schedule
        t = ctx.draw("t", lambda key: jax.random.randint(key, (len(x),), 0, plan.length))
        noise = ctx.draw("noise", lambda key: jax.random.normal(key, x.shape))
        guess = ctx("unet", diffusion.add_noise(plan, x, noise, t), t, words)
        return t, jnp.square(guess - diffusion.target(plan, x, noise, t)).mean((1, 2, 3))

    def words(self, ctx: Ctx, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        """Captions as the U-Net reads them [B, T, E]."""
        tokens = padded(tokens, mask, self.sees.text.vocab - 1, self.model.padding)
        return ctx("text", tokens, mask).words

    def loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Mean squared error of the predicted noise (arXiv 2112.10752, equation 3)."""
        share, count = self.model.caption_dropout, len(batch["image"])
        dropped = ctx.draw("drop", lambda key: jax.random.bernoulli(key, share, (count, 1)))
        read = [
            jnp.where(dropped, batch[f"negative_{name}"], batch[name])
            for name in ("tokens", "token_mask")
        ]
        t, errors = self.errors(ctx, batch, self.words(ctx, *read))
        late = t >= self.schedule.length // 2
        logs = {
            "error_late": (errors * late).sum() / jnp.maximum(late.sum(), 1),
            "error_early": (errors * ~late).sum() / jnp.maximum((~late).sum(), 1),
        }
        return (self.weights(t) * errors).mean(), logs

    def weights(self, t: jax.Array) -> jax.Array:
        """Of the errors at steps t [B]."""
        if self.model.weighting == "plain":
            return jnp.ones(t.shape)
        abar = self.schedule.at(t)
        ratio = abar / (1 - abar)
        least = jnp.minimum(ratio, self.model.snr_gamma)
        return least / (ratio if self.model.prediction == "epsilon" else ratio + 1)

    def text(self, ctx: Ctx, rows: Batch) -> dict[str, jax.Array]:
        """Words of the captions, and of the negative ones: the empty text where there is none."""
        asked = self.words(ctx, rows["tokens"], rows["token_mask"])
        without = self.words(ctx, rows["negative_tokens"], rows["negative_token_mask"])
        return {"asked": asked.astype(jnp.float32), "without": without.astype(jnp.float32)}

    @property
    def sampler(self) -> Sampler:
        """How pictures are drawn."""
        m, most = self.model, self.schedule.length
        return Sampler(
            draw=self.draw,
            needs=("tokens", "token_mask", "negative_tokens", "negative_token_mask"),
            text=self.text,
            latent=lambda key: jax.random.normal(key, self.shape),
            controls=(
                Control("guidance", m.guidance, 0.0, 30.0, help="how closely: 1 = the text alone"),
                Control("steps", m.steps, 1, most, help="how often the network is asked"),
                Control("eta", 0.0, 0.0, 1.0, help="noise on the way: 0 none, 1 as in training"),
                Control("solver", "ddim", choices=diffusion.SOLVERS, help="how steps go"),
            ),
        )

    def draw(self, ctx, rows, keys, *, z, text, guidance, steps, eta, solver):
        """Pictures from noise z, the network asked with and without the text in every step."""
        predict = diffusion.guided(
            functools.partial(ctx, "unet"), text["without"], text["asked"], guidance
        )
        x = diffusion.sample(
            predict,
            z,
            steps,
            schedule=self.schedule,
            solver=solver,
            eta=eta,
            noise=diffusion.fresh_noise(keys, self.shape),
        )
        return {"image": x if self.vae is None else ctx("vae", x, method="picture")}

    def score(self, ctx: Ctx, batch: Batch) -> dict[str, jax.Array]:
        """Held-out pictures: their errors, and against pictures drawn for their captions."""
        keys = jax.random.split(ctx.rng("score"), len(batch["image"]))
        code = self.text(ctx, batch)
        drawn = self.sampler(ctx, batch, keys, text=code, steps=self.model.score_steps)
        real, fake = unit_range(batch["image"]), jnp.clip(drawn["image"], -1, 1)
        seen = [ctx("guide", self.sees.look(x))[0] for x in (real, fake)]
        sentence = None
        if self.sees.joint:
            found = ctx("text", batch["tokens"], batch["token_mask"])
            sentence = l2_normalize(found.sentence)
        error = self.errors(ctx, batch, code["asked"])[1].mean()
        return {"denoising": error, **scores(*seen, sentence)}

    def nets(self, dtype: jnp.dtype) -> dict[str, nn.Module]:
        """The networks."""
        m = self.model
        unet = UNet(
            channels=tuple(m.channels),
            layers=m.layers,
            heads=m.heads,
            context=self.sees.text.width,
            out_channels=self.shape[-1],
            groups=m.groups,
            attention=tuple(m.attention),
            dtype=dtype,
        )
        own = {"vae": self.vae} if self.vae else {}
        return {"unet": unet, "text": self.sees.text, "guide": self.sees.guide, **own}


def stable_diffusion(model: Model, dtype: jnp.dtype) -> perception.Perception:
    """The text tower of Stable Diffusion, and an image tower that is lent to compare pictures."""
    lent = perception.make("mini", dtype=dtype, weights=model.weights)
    sizes = {"width": model.text_width, "layers": model.text_layers, "heads": model.text_heads}
    text = ClipText(**sizes, joint=0, dtype=dtype)
    file = model.sd_weights or PUBLISHED
    load = lent.load and {
        "text": published(file, "diffusion", "text", text),
        "guide": lent.load["guide"],
    }
    return dataclasses.replace(
        lent,
        text=text,
        load=load,
        about=(
            f"captions are read by the text tower of {file}; the Frechet distance while training "
            "is the shipped mini CLIP's, to choose checkpoints by, not to report"
        ),
        joint=False,
    )


def loaders(model: Model, losses: Losses, nets: dict[str, nn.Module]) -> dict[str, Callable]:
    """{net: loader} of the networks that start from a file."""
    load = {n: x for n, x in losses.sees.load.items() if n in nets}
    if model.weights == "random":
        return load
    file = model.sd_weights or PUBLISHED
    wanted = [] if losses.vae is None else ["vae"]
    wanted += [] if model.from_scratch else ["unet"]
    load |= {net: published(file, "diffusion", net, nets[net]) for net in wanted}
    return {n: x if n == "unet" else kept_in(x, model.frozen_dtype) for n, x in load.items()}


def build(cfg) -> Method:
    """The method of a config: `cfg.model` holds `Model`, `cfg.optim.unet` one `Adam`."""
    model = fields(Model, cfg.model, "config.model")
    size = height_and_width(cfg.data.resolution)
    dtype = compute_dtype(cfg.precision, jax.default_backend())
    frozen = perception_dtype(cfg)
    if model.perception == STABLE:
        sees = stable_diffusion(model, frozen)
    else:
        sees = perception.make(
            model.perception,
            dtype=frozen,
            weights=model.weights,
            clip_weights=model.clip_weights,
            real=(
                "with Stable Diffusion's networks, at the published size:\n  python -m "
                "jaxt2i.train --config configs/latent_diffusion.py:sd15 --config.data.path=DIR"
            ),
        )
    vae = None
    if model.space == "latent":
        channels = tuple(model.vae_channels)
        vae = VAE(channels=channels, groups=model.vae_groups, tile=model.tile, dtype=frozen)
    check(model, vae, size)
    cached = latents.read(cfg.data, "vae" if vae else "", vae.factor if vae else 1)
    losses = Losses(model, sees, vae, size, bool(cached))
    nets = losses.nets(dtype)
    kept = tuple(n for n in nets if n != "unet")

    def init(key: jax.Array, batch: Batch) -> dict:
        side = sees.guide_resolution
        seen = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        drawn = initialise(nets, key, inputs={"guide": (seen,)})
        return {n: cast(x, model.frozen_dtype) if n in kept else x for n, x in drawn.items()}

    return Method(
        nets=nets,
        players=(
            Player("unet", ("unet",), losses.loss, fields(Adam, cfg.optim.unet, "optim.unet").tx()),
        ),
        init=init,
        needs=(
            *(cached or ("image",)),
            *("tokens", "token_mask", "negative_tokens", "negative_token_mask"),
        ),
        score_needs=("image",) if cached else (),
        sampler=losses.sampler,
        frozen=kept,
        latents="vae" if vae else "",
        pretrained=loaders(model, losses, nets),
        ema={"unet": Ema(model.ema_images)} if model.ema_images else {},
        vocab=sees.text.vocab,
        score=losses.score,
        better={"denoising": "lower", **better(sees.joint)},
        notes=(sees.about,),
    )


def check(model: Model, vae: VAE | None, size: tuple[int, int]) -> None:
    """Refuses settings that do not fit together.

    Raises:
      ConfigError: names the config line and the fix.
    """
    for name, known in (
        ("space", SPACES),
        ("weighting", WEIGHTINGS),
        ("padding", PADDINGS),
        ("prediction", diffusion.PREDICTIONS),
        ("curve", diffusion.CURVES),
        ("frozen_dtype", DTYPES),
    ):
        if (value := getattr(model, name)) not in known:
            raise ConfigError(f"config.model.{name}={value!r}: {nearest(value, known)}")
    if vae and any(n % vae.factor for n in size):
        raise ConfigError(
            f"config.data.resolution={size[0]} x {size[1]}: the autoencoder needs multiples of "
            f"{vae.factor} pixels"
        )
    if len(model.attention) != len(model.channels):
        raise ConfigError(
            f"config.model.attention has {len(model.attention)} levels and config.model.channels "
            f"{len(model.channels)}; give one answer a level"
        )
    for name, number in (("heads", model.heads), ("groups", model.groups)):
        if bad := [c for c in model.channels if c % number]:
            raise ConfigError(
                f"config.model.channels: {bad[0]} is not a multiple of config.model.{name}={number}"
            )
