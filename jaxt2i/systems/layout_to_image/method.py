"""Layout to image: a residual GAN that is told where which objects are and what words say of each.

After Liang, Pei and Lu, "Layout-Bridging Text-to-Image Synthesis" (arXiv 2208.06162), second stage.
There is no public code, and of this stage only the alignment of words and regions by object is
known (abstract). Whatever is a choice of ours is a field of `Model`, which says what it is taken
from; nobody has published numbers to compare with.

Boxes come from people, from a picture's annotations or from any run that draws layouts (`--after`).
The frozen encoders of a DAMSM read captions and guide the generator; `config.init_from` names the
run, or the folder of converted weights, that they come from.
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
from jaxt2i.engine.method import Batch, Control, Ctx, Ema, Method, Player, Sampler
from jaxt2i.losses.adversarial import hinge_d, linear_g
from jaxt2i.losses.damsm import damsm
from jaxt2i.losses.text import alignment
from jaxt2i.metrics.drawn import BETTER, held_out
from jaxt2i.nn.initial import initialise
from jaxt2i.nn.objects import mean_over
from jaxt2i.nn.optim import Adam, half_life
from jaxt2i.nn.precision import compute_dtype, perception_dtype
from jaxt2i.systems.layout_to_image.networks import (
    BACKGROUNDS,
    MASKS,
    OVERLAPS,
    WIDTHS,
    Critic,
    Drawn,
    Generator,
    Judged,
    Layout,
    Reader,
    Told,
)

WEIGHTS = ("pretrained", "random")
LAYOUT = ("boxes", "box_label", "box_mask")
PLAYERS = ("d", "g")
ALIGNED = ("real", "both")


@dataclasses.dataclass(frozen=True)
class Model:
    """Settings of the system.

    None is published. "LostGAN" marks what is taken from that system's paper and code (Sun and Wu
    2019, arXiv 1908.07500), "AttnGAN" likewise (arXiv 1711.10485), "ours" what neither has.

    Attributes:
      weights: "pretrained": the DAMSM of config.init_from; "random" to measure speed.
      text_vocab, embed, width, trunk, align_corners, base: of that DAMSM, as it was trained; the
        defaults are AttnGAN's of COCO.
      trunk_resolution: of the pictures that a small trunk was trained on, pixels, to which others
        are resized; 0: that of this run's.
      classes: of objects.
      z_dim: width of the picture's latent (LostGAN).
      local_dim: width of each object's own latent (LostGAN).
      label_dim: width of an embedded class (LostGAN has 180).
      box_dim: width of an embedded box, which helps an object to ask the words (ours).
      text_dim: width of what an object has read, in its code (ours: as wide as the other parts).
      g_base, d_base: channels of G at the full resolution and of D after its first halving
        (LostGAN).
      masks: "soft": each object's shape is drawn from its code (LostGAN); "boxes": it is its box.
      mask_size: of these masks before they are resized into their boxes, pixels (LostGAN).
      mask_features: channels of the network that draws them (LostGAN).
      background: what stands behind the objects: "sentence": the caption scales and shifts it
        (ours); "none": nothing does (LostGAN).
      overlap: what masks of a place are divided by: "one": their sum where it is above 1, the rest
        being the background's (ours); "sum": their sum always, so that objects share all of it,
        however faint their masks are (LostGAN).
      d_grid: size of the features that D's verdict on the picture is summed over, pixels (ours:
        LostGAN has 4).
      small_stride, large_stride: how many pixels of the picture one of the features is from which
        D reads small and large objects (LostGAN).
      small_side: objects are small where both sides are shorter, fractions of the picture (LostGAN:
        64 of 256 pixels).
      roi_size: cells a side that D reads of an object (LostGAN).
      roi_points: bilinear readings along a side of a cell (torchvision's usual choice; LostGAN's
        depend on the box).
      image_weight, object_weight: of the adversarial losses of pictures and of objects, for both
        players (LostGAN).
      align_weight: of the alignment of regions with what objects have read, D's and G's (the paper
        has such a term; its weight is ours).
      d_aligns: of which pictures D's turn aligns regions: "real", or "both", the mean with that of
        drawn ones (ours: "real", as a DAMSM learns; G's turn aligns its own).
      align_sharpness: factor on the cosines of the alignment (AttnGAN's gamma3).
      reader_trained_by: whose losses move the network by which objects read and regions are
        compared: ("d", "g"), or one of them (ours: both).
      damsm_weight: of the DAMSM loss on the picture (AttnGAN's is 5 on CUB).
      gamma1, gamma2, gamma3, divide_by_gamma2: of that loss; see `losses.damsm.Gammas`.
      norm_group: examples that a batch norm takes together; 0 = the global batch.
      ema_beta: weight of the old average of G and the reader at every step (AttnGAN).
    """

    weights: str = "pretrained"
    text_vocab: int = 27297
    embed: int = 300
    width: int = 256
    trunk: str = "inception"
    align_corners: bool = True
    base: int = 32
    trunk_resolution: int = 0
    classes: int = 80
    z_dim: int = 128
    local_dim: int = 128
    label_dim: int = 128
    box_dim: int = 64
    text_dim: int = 128
    g_base: int = 64
    d_base: int = 64
    masks: str = "soft"
    mask_size: int = 16
    mask_features: int = 128
    background: str = "sentence"
    overlap: str = "one"
    d_grid: int = 8
    small_stride: int = 4
    large_stride: int = 8
    small_side: float = 0.25
    roi_size: int = 8
    roi_points: int = 2
    image_weight: float = 0.1
    object_weight: float = 1.0
    align_weight: float = 1.0
    align_sharpness: float = 10.0
    d_aligns: str = "real"
    reader_trained_by: tuple[str, ...] = PLAYERS
    damsm_weight: float = 5.0
    gamma1: float = 4.0
    gamma2: float = 5.0
    gamma3: float = 10.0
    divide_by_gamma2: bool = False
    norm_group: int = 0
    ema_beta: float = 0.999


@dataclasses.dataclass(frozen=True)
class Losses:
    """The losses, the sampler and the scores, over networks named g, d, reader, text and image.

    Attributes:
      model: the settings.
      resolution: of the pictures, pixels.
      objects: places for objects in a picture, N.
    """

    model: Model
    resolution: int
    objects: int

    def text(self, ctx: Ctx, batch: Batch) -> Text:
        """The captions, by the frozen encoder."""
        return ctx("text", batch["tokens"], batch["token_mask"])

    def layout(self, batch: Batch) -> Layout:
        """The objects of pictures."""
        return Layout(boxes=batch["boxes"], label=batch["box_label"], mask=batch["box_mask"])

    def told(self, ctx: Ctx, batch: Batch, text: Text) -> Told:
        """What each object finds in its caption."""
        return ctx("reader", self.layout(batch), text.words, text.mask)

    @property
    def latent_width(self) -> int:
        """Of the picture's latent and its objects' together."""
        return self.model.z_dim + self.objects * self.model.local_dim

    def latent(self, key: jax.Array) -> jax.Array:
        """The picture's latent and its objects' in one vector."""
        return jax.random.normal(key, (self.latent_width,))

    def generate(self, ctx: Ctx, batch: Batch, text: Text, told: Told, z: jax.Array, **kw) -> Drawn:
        """Pictures of captions and objects from latents [B, latent_width]."""
        z, local = jnp.split(z, [self.model.z_dim], -1)
        local = local.reshape(len(z), self.objects, self.model.local_dim)
        sentence = text.sentence.astype(jnp.float32)
        return ctx("g", z, local, sentence, told, self.layout(batch), **kw)

    def fake(self, ctx: Ctx, batch: Batch, text: Text, told: Told) -> jax.Array:
        """This step's pictures; both players' have the same latents."""
        shape = len(batch["tokens"]), self.latent_width
        z = ctx.draw("z", lambda key: jax.random.normal(key, shape))
        return self.generate(ctx, batch, text, told, z, train=True).image

    def judged(self, ctx: Ctx, batch: Batch, image: jax.Array, text: Text) -> Judged:
        """What D says of pictures."""
        sentence = text.sentence.astype(jnp.float32)
        return ctx("d", image, sentence, self.layout(batch), train=True)

    def aligned(self, ctx: Ctx, batch: Batch, seen: jax.Array, told: Told) -> jax.Array:
        """How far regions are from what their objects have read, over all objects of the batch."""
        regions = ctx("reader", seen, method="regions")
        flat = (x.reshape(-1, x.shape[-1]) for x in (regions, told.text))
        return alignment(*flat, batch["box_mask"].reshape(-1), self.model.align_sharpness)

    def d_loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The discriminator's turn."""
        m, text, there = self.model, self.text(ctx, batch), batch["box_mask"]
        told = self.told(ctx, batch, text)
        fake = jax.lax.stop_gradient(self.fake(ctx, batch, text, told))
        real = self.judged(ctx, batch, unit_range(batch["image"]), text)
        fake = self.judged(ctx, batch, fake, text)
        align = self.aligned(ctx, batch, real.seen, told)
        if m.d_aligns == "both":
            align = (align + self.aligned(ctx, batch, fake.seen, told)) / 2
        logs = {
            "image": hinge_d(real.image, fake.image),
            "objects": mean_over(nn.relu(1 - real.objects), there)
            + mean_over(nn.relu(1 + fake.objects), there),
            "align": align,
        }
        weights = (m.image_weight, m.object_weight, m.align_weight)
        total = sum(w * x for w, x in zip(weights, logs.values(), strict=True))
        return total, logs | {
            "real": real.image.mean(),
            "fake": fake.image.mean(),
            "real_object": mean_over(real.objects, there),
            "fake_object": mean_over(fake.objects, there),
        }

    def g_loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The generator's turn."""
        m, text = self.model, self.text(ctx, batch)
        told = self.told(ctx, batch, text)
        image = self.fake(ctx, batch, text, told)
        seen = self.judged(ctx, batch, image, text)
        logs = {
            "image": linear_g(seen.image),
            "objects": -mean_over(seen.objects, batch["box_mask"]),
            "align": self.aligned(ctx, batch, seen.seen, told),
        }
        weights = (m.image_weight, m.object_weight, m.align_weight)
        total = sum(w * x for w, x in zip(weights, logs.values(), strict=True))
        if m.damsm_weight:
            matched, terms = self.match(ctx, image, text)
            total, logs = total + m.damsm_weight * matched, logs | terms
        return total, logs

    def match(self, ctx: Ctx, image: jax.Array, text: Text) -> tuple[jax.Array, dict]:
        """The DAMSM loss of pictures and their captions, and its four terms."""
        seen = ctx("image", image)
        return damsm(*seen, text.words, text.sentence, text.mask, gammas=guide.gammas(self.model))

    @property
    def sampler(self) -> Sampler:
        """How pictures are drawn."""
        controls = (
            Control("psi", 1.0, 0.0, 2.0, help="shrinks the picture's latent: below 1 less varied"),
            Control("object_psi", 1.0, 0.0, 2.0, help="shrinks the latents of its objects"),
        )
        return Sampler(
            draw=self.draw,
            needs=("tokens", "token_mask", *LAYOUT),
            text=self.text,
            latent=self.latent,
            controls=controls,
            pixels="floor",
        )

    def draw(self, ctx, rows, keys, *, z, text, psi=1.0, object_psi=1.0) -> dict:
        """One picture a key and row; its objects' masks, and which words they read, with it."""
        told = self.told(ctx, rows, text)
        shrink = jnp.where(jnp.arange(self.latent_width) < self.model.z_dim, psi, object_psi)
        drawn = self.generate(ctx, rows, text, told, shrink * z)
        words = jnp.einsum("bnt,bnhw->bthw", told.share, drawn.masks)
        return {"image": drawn.image, "masks": drawn.masks, "attention": (words,)}

    def score(self, ctx: Ctx, batch: Batch) -> dict[str, jax.Array]:
        """Held-out pictures against pictures drawn for their rows, in the DAMSM's space."""
        text = self.text(ctx, batch)
        draw = functools.partial(self.sampler, ctx, batch, text=text)
        return held_out(ctx, unit_range(batch["image"]), draw, text.sentence)

    def nets(
        self, tokens: int, dtype: jnp.dtype, sees: jnp.dtype = jnp.float32
    ) -> dict[str, nn.Module]:
        """The networks; captions have `tokens` positions, the encoders compute in `sees`."""
        m = self.model
        critic = Critic(
            base=m.d_base,
            resolution=self.resolution,
            grid=m.d_grid,
            small_stride=m.small_stride,
            large_stride=m.large_stride,
            small_side=m.small_side,
            roi_size=m.roi_size,
            roi_points=m.roi_points,
            classes=m.classes,
            sentence_dim=m.width,
            dtype=dtype,
        )
        generator = Generator(
            base=m.g_base,
            resolution=self.resolution,
            text_dim=m.text_dim,
            masks=m.masks,
            mask_size=m.mask_size,
            mask_features=m.mask_features,
            background=m.background,
            overlap=m.overlap,
            z_dim=m.z_dim,
            local_dim=m.local_dim,
            sentence_dim=m.width,
            label_dim=m.label_dim,
            group=m.norm_group,
            dtype=dtype,
        )
        at = m.trunk_resolution or self.resolution
        return {
            "g": generator,
            "d": critic,
            "reader": Reader(
                classes=m.classes,
                label_dim=m.label_dim,
                box_dim=m.box_dim,
                words_dim=m.width,
                seen_dim=critic.seen_dim,
            ),
            **guide.networks(m, tokens=tokens, resolution=at, dtype=sees),
        }


def power_of_two(n: int) -> bool:
    """Whether it is one."""
    return n > 0 and not n & (n - 1)


def check(model: Model, resolution: int, names: tuple[str, ...] = ()) -> None:
    """Refuses settings that do not fit together.

    Args:
      model: the settings.
      resolution: of the pictures, pixels.
      names: of the classes of objects, where they are known.

    Raises:
      ConfigError: names the config line and the fix.
    """
    known_as = {"weights": WEIGHTS, "masks": MASKS, "background": BACKGROUNDS, "overlap": OVERLAPS}
    known_as["d_aligns"] = ALIGNED
    for name, known in known_as.items():
        if (value := getattr(model, name)) not in known:
            raise ConfigError(f"config.model.{name}={value!r}; expected one of {known}")
    who = tuple(model.reader_trained_by)
    if not who or set(who) - set(PLAYERS):
        raise ConfigError(
            f"config.model.reader_trained_by={who}; expected ('d', 'g'), ('d',) or ('g',)"
        )
    most = 4 * 2 ** len(WIDTHS)
    if not power_of_two(resolution) or not 8 <= resolution <= most:
        raise ConfigError(
            f"config.data.resolution={resolution}; expected a power of two from 8 to {most}"
        )
    if not power_of_two(model.mask_size) or model.mask_size < 4:
        raise ConfigError(
            f"config.model.mask_size={model.mask_size}; expected a power of two from 4 on"
        )
    if not power_of_two(model.d_grid) or not 2 <= model.d_grid < resolution:
        raise ConfigError(
            f"config.model.d_grid={model.d_grid}; expected a power of two from 2 to "
            f"{resolution // 2}, below config.data.resolution"
        )
    last = resolution // model.d_grid
    for name in ("small_stride", "large_stride"):
        value = getattr(model, name)
        if not power_of_two(value) or not 2 <= value <= last:
            raise ConfigError(
                f"config.model.{name}={value}; expected a power of two from 2 to {last}, what D "
                f"makes of {resolution} pixels before it ends at {model.d_grid} "
                "(config.model.d_grid)"
            )
    if model.classes < 1 or len(names) > model.classes:
        raise ConfigError(
            f"config.model.classes={model.classes}, and the data has {len(names)} classes of "
            f"objects; set config.model.classes={max(len(names), 1)}"
        )


def build(cfg, facts) -> Method:
    """The method of a config: `cfg.model` holds `Model`, `cfg.optim.d` and `.g` one `Adam` each."""
    model = fields(Model, cfg.model, "config.model")
    check(model, cfg.data.resolution, facts.names.get("box_label", ()))
    losses = Losses(model, cfg.data.resolution, cfg.data.objects)
    dtype = compute_dtype(cfg.precision, jax.default_backend())
    nets = losses.nets(cfg.data.tokens, dtype, perception_dtype(cfg))

    def player(name: str, loss) -> Player:
        moved = (name, "reader") if name in model.reader_trained_by else (name,)
        return Player(name, moved, loss, fields(Adam, cfg.optim[name], f"config.optim.{name}").tx())

    # One weight at every step, whatever the batch.
    average = Ema(half_life(model.ema_beta, cfg.batch_size), rampup=None)
    frozen, pretrained = ("text", "image"), model.weights == "pretrained"
    return Method(
        nets=nets,
        players=(player("d", losses.d_loss), player("g", losses.g_loss)),
        init=lambda key, batch: initialise(nets, key),
        needs=("image", "tokens", "token_mask", *LAYOUT),
        sampler=losses.sampler,
        frozen=frozen,
        borrowed=frozen if pretrained else (),
        ema={"g": average, "reader": average},
        vocab=model.text_vocab,
        score=losses.score,
        better=BETTER,
        guided_by=("image",),
        mixes=(
            "batch norm takes its statistics from a micro-batch",
            "negatives of the DAMSM loss and of the alignment are those of a micro-batch",
        ),
        notes=(
            "reads and scores with the DAMSM of "
            + (cfg.init_from if pretrained else "random weights: speed alone"),
        ),
    )
