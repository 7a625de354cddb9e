"""Obj-GAN's shape generator: labelled boxes to a mask of each object.

Li et al. 2019 (arXiv 1902.10740), section 3.2, and jamesli1618/Obj-GAN, shape_generation. Two LSTMs
over maps read the boxes one after the other, forwards and backwards; each object's features, with
noise of its own, become its mask. One discriminator looks at each mask in its box, one at all masks
of a picture together, and a perceptual loss compares those with the real ones. It is the second of
three systems, after `obj_gan_boxes` and before `obj_gan`.

The original's batches have as many places for objects as their fullest picture. Here they have
config.data.objects, and what is behind those of the original takes no part.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from jaxt2i.config import ConfigError, fields
from jaxt2i.encoders import pretrained
from jaxt2i.encoders.vgg19_bn import Vgg19Bn, seen_by_vgg19
from jaxt2i.engine.method import Batch, Ctx, Ema, Method, Player, Sampler
from jaxt2i.nn.initial import initialise
from jaxt2i.nn.optim import half_life, restarted
from jaxt2i.nn.precision import compute_dtype
from jaxt2i.systems.obj_gan_shapes.networks import SHRINK, Critic, Generator

LAYOUT = ("boxes", "box_label", "box_mask")
# Values of the settings that are words.
CHOICES = {
    "second_order": ("reversed_places", "reversed"),
    "empty_places": ("batch", "own"),
    "perceptual": ("vgg19", "masks"),
}
# Whole halvings of the discriminators end at 4 pixels.
SIZES = (16, 32, 64, 128)


@dataclasses.dataclass(frozen=True)
class Model:
    """Settings of the system; the defaults made the published checkpoint (COCO).

    Attributes:
      classes: of objects.
      width: channels of the generator behind its last doubling; 0: as many as classes.
      d_width: twice the channels of a discriminator behind its first halving; 0: as many as
        classes.
      second_order: what the second LSTM reads: "reversed_places": all places in reverse order, cut
        to as many as there are objects, as published, so that with few objects it sees empty maps
        alone; "reversed": the objects in reverse order, which was meant.
      empty_places: what counts of places without an object: "batch": those up to the batch's
        fullest picture, as published, although their masks are grey; "own": none.
      last_pixel: whether boxes may cover the last row and column of a map; the published ones never
        do.
      least_side: objects that are narrower and lower are left out of training, pixels of 64.
      perceptual: "vgg19": all layers of a VGG19 of ImageNet see the masks of a picture together, as
        published; "masks": each mask is compared pixel by pixel, where no VGG is at hand.
      vgg_weights: of that VGG19 (with batch norms); "": random, to measure speed.
      ins_weight, glb_weight: of both discriminators' terms for G.
      perceptual_weight: of the perceptual loss.
      ema_beta: weight of the old average of G at every step.
    """

    classes: int = 80
    width: int = 0
    d_width: int = 0
    second_order: str = "reversed_places"
    empty_places: str = "batch"
    last_pixel: bool = False
    least_side: float = 2.0
    perceptual: str = "vgg19"
    vgg_weights: str = "torchvision/vgg19_bn"
    ins_weight: float = 1.0
    glb_weight: float = 1.0
    perceptual_weight: float = 10.0
    ema_beta: float = 0.999


@dataclasses.dataclass(frozen=True)
class Optim:
    """Adam as the original uses it: a new one every epoch, slower from some epoch on.

    Attributes:
      lr: learning rate of all networks.
      b1, b2, eps: Adam's.
      clip: largest norm of the generator's gradient; 0: any.
      decay: factor on the learning rate, every epoch behind `decay_after`.
      decay_after: epochs at the full learning rate, and one more.
      restart: forget the moments every epoch.
      epoch_steps: steps of an epoch; 0: as many as the data has.
    """

    lr: float = 2e-4
    b1: float = 0.5
    b2: float = 0.999
    eps: float = 1e-8
    clip: float = 0.25
    decay: float = 0.98
    decay_after: int = 50
    restart: bool = True
    epoch_steps: int = 0

    def tx(self, clip: float = 0.0) -> optax.GradientTransformation:
        """The optax transformation."""
        adam, lr = optax.scale_by_adam(self.b1, self.b2, self.eps), self.lr
        if self.epoch_steps:
            adam = restarted(adam, self.epoch_steps) if self.restart else adam
            late = lambda step: jnp.maximum(step // self.epoch_steps - self.decay_after, 0)  # noqa: E731
            lr = lambda step: self.lr * self.decay ** late(step)  # noqa: E731
        parts = [optax.clip_by_global_norm(clip)] if clip else []
        return optax.chain(*parts, adam, optax.scale_by_learning_rate(lr))


def in_steps(optim: Optim, cfg, counts: Mapping[str, int | None]) -> Optim:
    """The optimiser with its epochs counted in steps.

    Raises:
      ConfigError: for epochs of a source without end.
    """
    if optim.epoch_steps or not (optim.restart or optim.decay != 1):
        return optim
    # Where only drawing or scoring is asked for, nothing is known of the data, and nothing decays.
    size = counts.get(cfg.data.split, 0)
    if size is None:
        raise ConfigError(
            "config.optim counts epochs (restart, decay), and this data source has no end; set "
            "config.optim.epoch_steps, or restart=False and decay=1.0"
        )
    return dataclasses.replace(optim, epoch_steps=round(size / cfg.batch_size))


# --- Boxes as maps -------------------------------------------------------------------------------


def rectangles(boxes: jax.Array, size: int, last: bool = False) -> jax.Array:
    """Boxes [..., 4] in fractions as filled maps [..., size, size], from rounded to rounded border.

    Args:
      boxes: x, y, w, h.
      size: of the maps, pixels.
      last: whether they may cover the last row and column; then each covers a pixel, too.
    """
    at, top = jnp.arange(size), size if last else size - 1

    def along(start: jax.Array, length: jax.Array) -> jax.Array:
        low, high = (jnp.minimum(jnp.round(x * size), top) for x in (start, start + length))
        if last:
            low = jnp.minimum(low, size - 1)
            high = jnp.maximum(high, low + 1)
        return (at >= low[..., None]) & (at < high[..., None])

    x, y, w, h = jnp.moveaxis(boxes, -1, 0)
    inside = along(y, h)[..., :, None] & along(x, w)[..., None, :]
    return inside.astype(jnp.float32)


def packed(batch: Batch, there: jax.Array) -> dict[str, jax.Array]:
    """The objects of rows that are `there` [B, N], first, in their order."""
    order = jnp.argsort(~there, axis=1, stable=True)

    def take(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, order.reshape(*order.shape, *(1,) * (x.ndim - 2)), 1)

    return {key: take(x) for key, x in {**batch, "box_mask": there}.items()}


def weighted(each: jax.Array, weight: jax.Array) -> jax.Array:
    """Mean of values, each counted by its weight."""
    return (each * weight).sum() / jnp.maximum(weight.sum(), 1e-9)


@dataclasses.dataclass(frozen=True)
class Losses:
    """The losses, the sampler and the score, over networks named g, ins, glb and vgg.

    Attributes:
      model: the settings.
      size: of the shapes, pixels.
      slots: places for objects.
      z_dim: width of an object's noise.
    """

    model: Model
    size: int
    slots: int
    z_dim: int

    def maps(self, batch: Batch, count: jax.Array | None = None) -> dict[str, jax.Array]:
        """What the generator reads of objects, beside noise.

        Args:
          batch: boxes, box_label and box_mask; objects come first.
          count: int [B], how many places of each picture take part; None: its objects'.

        Returns:
          "forward", "backward", "crops" and "count".
        """
        m, mask = self.model, batch["box_mask"]
        count = mask.sum(1) if count is None else count
        there = mask[..., None, None].astype(jnp.float32)
        boxes = rectangles(batch["boxes"], self.size, m.last_pixel) * there
        crops = rectangles(batch["boxes"], self.size // SHRINK, m.last_pixel) * there
        label = jax.nn.one_hot(batch["box_label"], m.classes)
        forward = boxes[..., None] * label[:, :, None, None]
        slots = mask.shape[1]
        last = jnp.full_like(count, slots) if m.second_order == "reversed_places" else count
        place = last[:, None] - 1 - jnp.arange(slots)
        index = jnp.clip(place, 0)[..., None, None, None]
        backward = jnp.take_along_axis(forward, index, 1) * (place >= 0)[..., None, None, None]
        return {"forward": forward, "backward": backward, "crops": crops, "count": count}

    def layout(self, batch: Batch) -> dict[str, jax.Array]:
        """A training batch: objects that are large enough, their maps, and what counts.

        Returns:
          `maps`, "shapes" [B, N, S, S] and "weight" [B, N].
        """
        sides = batch["boxes"][..., 2:] * 64
        there = batch["box_mask"] & (sides >= self.model.least_side).any(-1)
        batch = packed(batch, there)
        own = batch["box_mask"].sum(1)
        count = own if self.model.empty_places == "own" else jnp.full_like(own, own.max())
        weight = (jnp.arange(self.slots) < count[:, None]).astype(jnp.float32)
        shapes = batch["shape_masks"].astype(jnp.float32) / 255
        shapes = shapes * batch["box_mask"][..., None, None]
        return self.maps(batch, count) | {"shapes": shapes, "weight": weight}

    def generate(self, ctx: Ctx, seen: Mapping, z: jax.Array) -> jax.Array:
        """Shapes [B, N, S, S] of what `maps` gives."""
        given = (seen[k] for k in ("forward", "backward", "crops", "count"))
        return ctx("g", z, *given)

    def fake(self, ctx: Ctx, seen: Mapping) -> jax.Array:
        """This step's shapes, made once for all players."""
        shape = (*seen["weight"].shape, self.z_dim)
        z = ctx.draw("z", lambda key: jax.random.normal(key, shape))
        return ctx.shared("fake", "g", lambda ctx: self.generate(ctx, seen, z))

    def together(self, shapes: jax.Array, weight: jax.Array) -> jax.Array:
        """All shapes of a picture as one: the largest value counts; or their maps."""
        return (shapes * weight.reshape(*weight.shape, *(1,) * (shapes.ndim - 2))).max(1)

    def say_ins(self, ctx: Ctx, shapes: jax.Array, seen: Mapping) -> jax.Array:
        """Logits [B, N] of every object's shape."""
        flat = (x.reshape(-1, *x.shape[2:]) for x in (shapes, seen["forward"]))
        return ctx("ins", *flat).reshape(shapes.shape[:2])

    def say_glb(self, ctx: Ctx, shapes: jax.Array, seen: Mapping) -> jax.Array:
        """Logits [B] of every picture's shapes."""
        both = (self.together(x, seen["weight"]) for x in (shapes, seen["forward"]))
        return ctx("glb", *both)

    def d_loss(self, net: str, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """One discriminator's turn."""
        seen = self.layout(batch)
        fake = jax.lax.stop_gradient(self.fake(ctx, seen))
        say = self.say_ins if net == "ins" else self.say_glb
        weight = seen["weight"] if net == "ins" else jnp.ones(len(fake))
        logs = {
            "real": weighted(jax.nn.softplus(-say(ctx, seen["shapes"], seen)), weight),
            "fake": weighted(jax.nn.softplus(say(ctx, fake, seen)), weight),
        }
        return logs["real"] + logs["fake"], logs

    def perceptual(self, ctx: Ctx, fake: jax.Array, seen: Mapping) -> jax.Array:
        """How far the shapes of pictures are from the real ones."""
        if self.model.perceptual == "masks":
            return weighted(jnp.abs(fake - seen["shapes"]).mean((2, 3)), seen["weight"])

        def see(shapes: jax.Array) -> tuple[jax.Array, ...]:
            spread = jnp.broadcast_to(shapes[..., None], (*shapes.shape, 3))
            return ctx("vgg", seen_by_vgg19(spread))

        both = (self.together(x, seen["weight"]) for x in (fake, seen["shapes"]))
        pairs = zip(*map(see, both), strict=True)
        return sum(jnp.abs(a - jax.lax.stop_gradient(b)).mean() for a, b in pairs)

    def g_loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The generator's turn."""
        m, seen = self.model, self.layout(batch)
        fake = self.fake(ctx, seen)
        logs = {
            "ins": weighted(jax.nn.softplus(-self.say_ins(ctx, fake, seen)), seen["weight"]),
            "glb": jax.nn.softplus(-self.say_glb(ctx, fake, seen)).mean(),
            "perceptual": self.perceptual(ctx, fake, seen),
        }
        weights = (m.ins_weight, m.glb_weight, m.perceptual_weight)
        return sum(w * x for w, x in zip(weights, logs.values(), strict=True)), logs

    def latent(self, key: jax.Array) -> jax.Array:
        """The noise of all objects."""
        return jax.random.normal(key, (self.slots, self.z_dim))

    @property
    def sampler(self) -> Sampler:
        """How shapes are drawn."""
        return Sampler(draw=self.draw, needs=LAYOUT, latent=self.latent)

    def draw(self, ctx, rows, keys, *, z, text) -> dict:
        """The objects of rows, each with a mask."""
        there = rows["box_mask"][..., None, None]
        shapes = self.generate(ctx, self.maps(rows), z)
        masks = jnp.where(there, jnp.round(255 * shapes), 0).astype(jnp.uint8)
        return {**{key: rows[key] for key in LAYOUT}, "shape_masks": masks}

    def score(self, ctx: Ctx, batch: Batch) -> dict[str, jax.Array]:
        """Intersection over union of drawn and real masks of held-out objects."""
        keys = jax.random.split(ctx.rng("score"), len(batch["boxes"]))
        drawn = self.sampler(ctx, batch, keys)["shape_masks"] > 127
        return {"iou": overlap(drawn, batch["shape_masks"] > 127, batch["box_mask"])}


def overlap(a: jax.Array, b: jax.Array, there: jax.Array) -> jax.Array:
    """Mean intersection over union of masks bool [B, N, S, S], of those of `b` that are not empty.

    Args:
      a: the masks.
      b: those that they should be.
      there: bool [B, N].
    """
    both, either = ((f(a, b)).sum((2, 3)) for f in (jnp.logical_and, jnp.logical_or))
    counts = (there & b.any((2, 3))).astype(jnp.float32)
    return weighted(both / jnp.maximum(either, 1), counts)


def check(model: Model, size: int, names: tuple[str, ...] = ()) -> None:
    """Refuses impossible settings.

    Args:
      model: the settings.
      size: config.data.mask_resolution.
      names: of the classes of objects, where they are known.

    Raises:
      ConfigError: names the config line and the fix.
    """
    for name, known in CHOICES.items():
        if (value := getattr(model, name)) not in known:
            raise ConfigError(f"config.model.{name}={value!r}; expected one of {known}")
    if size not in SIZES:
        raise ConfigError(
            f"config.data.mask_resolution={size}; shapes are drawn at {', '.join(map(str, SIZES))}"
        )
    if len(names) > model.classes:
        raise ConfigError(
            f"config.model.classes={model.classes}, and the data has {len(names)} classes of "
            f"objects; set config.model.classes={len(names)}"
        )


def build(cfg, facts) -> Method:
    """The method of a config: `cfg.model` holds `Model`, `cfg.optim` holds `Optim`."""
    model, size = fields(Model, cfg.model, "config.model"), cfg.data.mask_resolution
    check(model, size, facts.names.get("box_label", ()))
    optim = in_steps(fields(Optim, cfg.optim, "config.optim"), cfg, facts.counts)
    dtype = compute_dtype(cfg.precision, jax.default_backend())
    common = {"classes": model.classes, "size": size, "dtype": dtype}
    critics = {net: Critic(width=model.d_width, **common) for net in ("ins", "glb")}
    g = Generator(width=model.width, slots=cfg.data.objects, **common)
    nets, weights, notes = {"g": g, **critics}, {}, ()
    if model.perceptual == "vgg19":
        nets["vgg"] = Vgg19Bn()
        if model.vgg_weights:
            name = model.vgg_weights
            weights["vgg"] = pretrained.published(name, "vgg19_bn", "features", nets["vgg"])
        else:
            notes = ("the perceptual loss sees with random weights: speed alone",)
    losses = Losses(model, size, cfg.data.objects, g.z_dim)
    players = [
        Player(net, (net,), lambda ctx, batch, net=net: losses.d_loss(net, ctx, batch), optim.tx())
        for net in critics
    ]
    # One weight at every step, whatever the batch.
    average = Ema(half_life(model.ema_beta, cfg.batch_size), rampup=None)
    return Method(
        nets=nets,
        players=(*players, Player("g", ("g",), losses.g_loss, optim.tx(optim.clip))),
        init=lambda key, batch: initialise(nets, key),
        needs=(*LAYOUT, "shape_masks"),
        sampler=losses.sampler,
        frozen=("vgg",) if "vgg" in nets else (),
        pretrained=weights,
        ema={"g": average},
        score=losses.score,
        better={"iou": "higher"},
        mixes=("objects are counted up to a micro-batch's fullest picture",)
        if model.empty_places == "batch"
        else (),
        notes=notes,
    )
