"""StyleGAN-T: a GAN for large-scale text-to-image synthesis.

Sauer, Karras, Laine, Geiger, Aila, ICML 2023 (arXiv 2301.09515). A generator of second-order
modulated residual blocks draws from a Gaussian latent and a CLIP sentence; five small heads on
frozen DINO features discriminate; CLIP guides. The networks are in `networks`.
"""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.config import ConfigError, fields, micro_batches
from jaxt2i.data.schema import unit_range
from jaxt2i.encoders import perception
from jaxt2i.encoders.text import Text
from jaxt2i.engine.method import Batch, Control, Ctx, Ema, Method, Player, Sampler
from jaxt2i.losses import adversarial
from jaxt2i.losses.text import l2_normalize, spherical_distance
from jaxt2i.metrics.drawn import BETTER, scores
from jaxt2i.nn import resample
from jaxt2i.nn.initial import initialise
from jaxt2i.nn.optim import Adam, only
from jaxt2i.nn.precision import compute_dtype, perception_dtype
from jaxt2i.systems.stylegan_t import networks, pixels

BOUNDS = ("", "tanh")
TRAIN_MODES = ("all", "text_encoder", "freeze64")


@dataclasses.dataclass(frozen=True)
class Model:
    """Settings of the system; the defaults are the official code's for its `lite` generator.

    Attributes:
      perception: "clip_l14_dino_s16" (published), "mclip_l14_dino_s16" (captions in many
        languages) or "mini" (ships with jaxt2i); see jaxt2i.encoders.perception.
      weights: "pretrained", or "random" to measure speed without downloads.
      clip_weights, feature_weights: files to read instead of the cache; "" looks there.
      z_dim: width of the latent.
      channel_base, channel_max: C(r) = min(channel_base / r, channel_max) at r pixels.
      res_blocks: pairs of a plain and a residual layer a block (the official `full` has 3; a
        reading of the paper says 4, which would be 1.31 B parameters).
      low_precision_blocks: the highest resolutions that compute in the policy's dtype.
      train_mode: "all" (synthesis and mapping), "text_encoder" (the sentence encoder alone; D and
        the guidance keep the frozen one), "freeze64" (blocks above 64 px and every ToRGB layer).
      tuned_text: G reads with a tower that an earlier phase tuned, which config.init_from brings; D
        and the guidance keep the untuned one.
      micro_batch: consecutive examples that share a crop and, in groups of at most 8, batch
        statistics: the official per-device micro-batch, made explicit.
      hinge_over_micro_batch: divide the adversarial terms by `micro_batch`, as the official code
        does; the guidance weighs micro_batch times more for it. False: the plain means.
      clip_weight: weight of the CLIP guidance (0.2 published, 50 in the text-encoder phase).
      guidance_crop: pictures larger than this are cropped to it before CLIP sees them.
      spherical_clamp: bound on the cosine in the guidance, whose gradient is infinite at +-1; 0 =
        none, as the official code.
      augment: DiffAugment policy of everything D sees; "" = none.
      crop_probability: share of micro-batches that D sees cropped, not shrunk, when pictures are
        larger than its feature network's input.
      blur_init_sigma, blur_fade_images: Gaussian blur of D's input, fading out linearly.
      blur_start_images: images that earlier phases saw, from which the blur fades on.
      ema_images: half-life of the average of G in images; 0 = batch_size * 10000 / 32.
      shared_z: one latent batch for both players, which saves a generator pass; the official code
        draws two.
      bound: "" as published, or "tanh" behind G: pictures stay within their range where nothing
        that sees them keeps them there.
      pixel_head: channels of a discriminator's head that sees pixels, beside those that see
        features; 0 = none, as published. See `pixels.PixelHead`.
    """

    perception: str = "clip_l14_dino_s16"
    weights: str = "pretrained"
    clip_weights: str = ""
    feature_weights: str = ""
    z_dim: int = 64
    channel_base: int = 32768
    channel_max: int = 512
    res_blocks: int = 2
    low_precision_blocks: int = 4
    train_mode: str = "all"
    tuned_text: bool = False
    micro_batch: int = 8
    hinge_over_micro_batch: bool = True
    clip_weight: float = 0.2
    guidance_crop: int = 64
    spherical_clamp: float = 0.0
    augment: str = "color,translation,cutout"
    crop_probability: float = 0.5
    blur_init_sigma: float = 32.0
    blur_fade_images: float = 1e6
    blur_start_images: float = 0.0
    ema_images: float = 0.0
    shared_z: bool = False
    bound: str = ""
    pixel_head: int = 0


@dataclasses.dataclass(frozen=True)
class Losses:
    """The losses, the sampler and the scores, over networks named g, d, text, features, guide.

    Attributes:
      model: the settings.
      sees: the frozen perception.
      resolution: of the pictures, pixels.
    """

    model: Model
    sees: perception.Perception
    resolution: int

    @property
    def trains_text(self) -> bool:
        """Whether this is the text-encoder phase."""
        return self.model.train_mode == "text_encoder"

    @property
    def tuned(self) -> bool:
        """Whether G's tower is another than that of D and the guidance."""
        return self.trains_text or self.model.tuned_text

    @property
    def reference(self) -> str:
        """The untuned text tower, for D and the guidance."""
        return "text_reference" if self.tuned else "text"

    @property
    def hinge_scale(self) -> float:
        """Factor on the adversarial terms (quirk 1 of the official code)."""
        return 1 / self.model.micro_batch if self.model.hinge_over_micro_batch else 1.0

    def sentences(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Unit sentence vectors [B, S]: what G is given, and what D and the guidance hold true."""
        tokens = batch["tokens"], batch["token_mask"]
        truth = l2_normalize(ctx(self.reference, *tokens).sentence)
        own = l2_normalize(ctx("text", *tokens).sentence) if self.tuned else truth
        return own, truth

    def generate(self, ctx: Ctx, sentence: jax.Array, name: str) -> jax.Array:
        """Pictures [B, R, R, 3] from fresh latents; equal names share the draw."""
        shape = len(sentence), self.model.z_dim
        z = ctx.draw(f"z_{name}", lambda key: jax.random.normal(key, shape))
        noise = ctx.draw(f"noise_{name}", lambda key: {"rngs": {"noise": key}})
        return pixels.bounded(ctx("g", z, sentence, train=True, **noise), self.model.bound)

    def discriminate(
        self, ctx: Ctx, image: jax.Array, sentence: jax.Array, name: str
    ) -> tuple[jax.Array, ...]:
        """Logits [B, 5 N] of pictures in [-1, 1], and [B, 16] of the head on pixels, if any."""
        m = self.model
        if m.blur_init_sigma:
            seen = ctx.images + m.blur_start_images
            sigma = networks.blur_sigma(seen, m.blur_init_sigma, m.blur_fade_images)
            blur = resample.blur_matrix(sigma, self.resolution, m.blur_init_sigma)
            image = resample.apply_matrices(image, blur, blur)
        seen = networks.discriminator_input(
            ctx.rng(f"view_{name}"),
            image,
            micro_batch=m.micro_batch,
            policy=m.augment,
            crop_probability=m.crop_probability,
            out=self.sees.feature_resolution,
            normalize=self.sees.feature_norm,
        )
        logits = ctx("d", ctx("features", seen), sentence, train=True)
        if not m.pixel_head:
            return (logits,)
        seen = networks.discriminator_input(
            ctx.rng(f"pixels_{name}"),
            image,
            micro_batch=m.micro_batch,
            policy=m.augment,
            out=self.resolution,
            normalize=lambda x: x,
        )
        return logits, ctx("pixels", seen, sentence, train=True)

    def guidance(self, ctx: Ctx, image: jax.Array, sentence: jax.Array) -> jax.Array:
        """Mean squared angle between pictures and their captions in CLIP's space."""
        m, groups = self.model, len(image) // self.model.micro_batch
        most = max(self.resolution - m.guidance_crop, 0)
        row, col = ctx.draw(
            "guidance_crop", lambda key: jax.random.randint(key, (2, groups), 0, most + 1)
        )
        seen = networks.guidance_input(
            image, row, col, crop=m.guidance_crop, out=self.sees.guide_resolution
        )
        embedding, _ = ctx("guide", self.sees.guide_norm(seen))
        return spherical_distance(embedding, sentence, m.spherical_clamp or None).mean()

    def d_loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Hinge loss of D on one generated and one real batch (paper section 3.2)."""
        own, truth = self.sentences(ctx, batch)
        image = jax.lax.stop_gradient(self.generate(ctx, own, "d"))
        fake = self.discriminate(ctx, image, truth, "fake")
        real = self.discriminate(ctx, unit_range(batch["image"]), truth, "real")
        signs = {"real_sign": jnp.sign(real[0]).mean(), "fake_sign": jnp.sign(fake[0]).mean()}
        terms = list(map(adversarial.hinge_d, real, fake))
        if len(terms) > 1:
            signs["pixels"] = terms[1]
        return sum(terms[1:], terms[0]) * self.hinge_scale, signs

    def g_loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Adversarial loss and CLIP guidance of G, or of its text tower (sections 3.2, 3.3)."""
        own, truth = self.sentences(ctx, batch)
        image = self.generate(ctx, own, "d" if self.model.shared_z else "g")
        terms = list(map(adversarial.linear_g, self.discriminate(ctx, image, truth, "fake_g")))
        adversary = sum(terms[1:], terms[0])
        loss, logs = adversary * self.hinge_scale, {"adversarial": adversary}
        if self.model.clip_weight:
            logs["guidance"] = self.guidance(ctx, image, truth)
            loss = loss + self.model.clip_weight * logs["guidance"]
        return loss, logs

    def latent(self, key: jax.Array) -> jax.Array:
        """One z [Z]."""
        return jax.random.normal(key, (self.model.z_dim,))

    def text(self, ctx: Ctx, batch: Batch) -> Text:
        """The captions as G takes them: `sentence` has unit length."""
        found = ctx("text", batch["tokens"], batch["token_mask"])
        return found.replace(sentence=l2_normalize(found.sentence))

    @property
    def sampler(self) -> Sampler:
        """How pictures are drawn."""
        psi = Control("psi", 1.0, 0.0, 2.0, help="truncation: 1 varied .. 0 typical")
        return Sampler(draw=self.draw, text=self.text, latent=self.latent, controls=(psi,))

    def draw(self, ctx, rows, keys, *, z, text, psi) -> dict[str, jax.Array]:
        """One picture a key and caption, with constant noise; psi truncates the latent's part."""
        image = ctx("g", z, text.sentence, psi=psi, noise="const")
        return {"image": pixels.bounded(image, self.model.bound)}

    def score(self, ctx: Ctx, batch: Batch) -> dict[str, jax.Array]:
        """Held-out pictures against pictures drawn for their captions, as the guide sees them."""
        keys = jax.random.split(ctx.rng("score"), len(batch["image"]))
        _, truth = self.sentences(ctx, batch)
        fake = self.sampler(ctx, batch, keys)["image"]
        real = unit_range(batch["image"])
        seen = [ctx("guide", self.sees.look(x))[0] for x in (real, jnp.clip(fake, -1, 1))]
        return scores(*seen, truth)

    def nets(self, dtype: jnp.dtype) -> dict[str, nn.Module]:
        """The networks."""
        m = self.model
        out = {
            "g": networks.Generator(
                resolution=self.resolution,
                z_dim=m.z_dim,
                channel_base=m.channel_base,
                channel_max=m.channel_max,
                num_res_blocks=m.res_blocks,
                low_precision_blocks=m.low_precision_blocks,
                dtype=dtype,
            ),
            "d": networks.DiscriminatorHeads(
                virtual_size=m.micro_batch // math.ceil(m.micro_batch / 8), dtype=dtype
            ),
            "text": self.sees.text,
            "features": self.sees.features,
            "guide": self.sees.guide,
        }
        if m.pixel_head:
            size = m.micro_batch // math.ceil(m.micro_batch / 8)
            out["pixels"] = pixels.PixelHead(base=m.pixel_head, virtual_size=size, dtype=dtype)
        # The tower that learns, or learned, is a network of its own beside the untuned one.
        return out | ({"text_reference": self.sees.text} if self.tuned else {})

    def init(self, nets: dict[str, nn.Module], key: jax.Array, batch: Batch) -> dict:
        """Random variables of every network."""
        sides = self.sees.feature_resolution, self.sees.guide_resolution
        seen, guided = (jax.ShapeDtypeStruct((1, n, n, 3), jnp.float32) for n in sides)
        widths = self.model.z_dim, self.sees.sentence
        z, sentence = (jax.ShapeDtypeStruct((1, n), jnp.float32) for n in widths)
        taps, _ = jax.eval_shape(nets["features"].init_with_output, key, seen)
        image = jax.ShapeDtypeStruct((1, self.resolution, self.resolution, 3), jnp.float32)
        out = initialise(
            nets,
            key,
            inputs={
                "pixels": (image, sentence),
                "g": (z, sentence),
                "d": (taps, sentence),
                "features": (seen,),
                "guide": (guided,),
            },
            options={"g": {"noise": "const"}},
        )
        return out | ({"text_reference": out["text"]} if self.tuned else {})


def build(cfg) -> Method:
    """The method of a config: `cfg.model` holds `Model`, `cfg.optim.g` and `.d` one `Adam` each."""
    model = fields(Model, cfg.model, "config.model")
    check(model, cfg)
    sees = perception.make(
        model.perception,
        dtype=perception_dtype(cfg),
        weights=model.weights,
        clip_weights=model.clip_weights,
        feature_weights=model.feature_weights,
        real=(
            "with CLIP ViT-L/14 and DINO ViT-S/16 and your own pictures:\n"
            "  python -m jaxt2i.train --config configs/stylegan_t.py:lite64 --config.data.path=DIR"
        ),
    )
    if sees.features is None:
        raise ConfigError(
            f"config.model.perception={model.perception!r} has no feature network for the "
            "discriminator; choose 'mini', 'clip_l14_dino_s16' or 'mclip_l14_dino_s16'"
        )
    losses = Losses(model, sees, cfg.data.resolution)
    nets = losses.nets(compute_dtype(cfg.precision, jax.default_backend()))
    load = dict(sees.load)
    if losses.tuned and "text" in load:
        load["text_reference"] = load["text"]
    inherited = model.tuned_text and not losses.trains_text and model.weights == "pretrained"
    if inherited:
        load.pop("text", None)
    critics = ("d", "pixels") if model.pixel_head else ("d",)
    learner = "text" if losses.trains_text else "g"
    tx = {n: fields(Adam, cfg.optim[n], f"config.optim.{n}").tx() for n in ("d", "g")}
    if model.train_mode == "freeze64":
        tx["g"] = only(tx["g"], lambda path: networks.trainable(path.split("/")[1:], "freeze64"))
    half_life = model.ema_images or cfg.batch_size * 10_000 / 32
    # The ramp-up is for averages that start from a random network.
    ema = Ema(half_life, rampup=None if cfg.init_from else 0.05)
    return Method(
        nets=nets,
        players=(
            Player("d", critics, losses.d_loss, tx["d"]),
            Player("g", (learner,), losses.g_loss, tx["g"]),
        ),
        init=functools.partial(losses.init, nets),
        needs=("image", "tokens", "token_mask"),
        sampler=losses.sampler,
        frozen=(losses.reference, "features", "guide", *(("text",) if inherited else ())),
        pretrained=load,
        borrowed=("text",) if inherited else (),
        lineage={} if losses.tuned else {"text": "model.tuned_text=True"},
        ema={"g": ema, **({"text": ema} if losses.trains_text else {})},
        vocab=sees.text.vocab,
        score=losses.score,
        better=BETTER,
        # The features that the mini CLIP lends to D are the guide's own.
        guided_by=("guide",) if model.clip_weight or model.perception == "mini" else (),
        notes=(sees.about,),
    )


def check(model: Model, cfg) -> None:
    """Refuses settings that do not fit together.

    Raises:
      ConfigError: names the config line and the fix.
    """
    if model.train_mode not in TRAIN_MODES:
        raise ConfigError(
            f"config.model.train_mode={model.train_mode!r}; known: {', '.join(TRAIN_MODES)}"
        )
    if model.bound not in BOUNDS:
        raise ConfigError(f"config.model.bound={model.bound!r}; known: '' and 'tanh'")
    size = cfg.data.resolution
    if size < 8 or size & (size - 1):
        raise ConfigError(f"config.data.resolution={size}: a power of two from 8 on")
    part = cfg.batch_size // micro_batches(cfg)
    if part % model.micro_batch:
        raise ConfigError(
            f"config.model.micro_batch={model.micro_batch} does not divide the {part} examples of "
            "config.batch_size / config.accumulate"
        )
    if model.micro_batch % math.ceil(model.micro_batch / 8):
        raise ConfigError(
            f"config.model.micro_batch={model.micro_batch} cannot be split into equal groups of at "
            "most 8 for batch statistics"
        )
    for r in (2**k for k in range(3, size.bit_length())):
        channels = min(model.channel_base // r, model.channel_max)
        if channels % 32:
            raise ConfigError(
                f"config.model.channel_base / {r} gives {channels} channels at {r} px; GroupNorm "
                "needs a multiple of 32"
            )
