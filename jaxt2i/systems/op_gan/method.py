"""OP-GAN: AttnGAN with a pathway for every object, in the generator and in the discriminators.

Hinz et al. 2022 (arXiv 1910.13321), and tohinz/semantic-object-accuracy-for-generative-text-to-
image-synthesis. The frozen encoders of a DAMSM condition the generator and guide its last picture;
`config.init_from` names the run, or the folder of converted weights, that they come from.

The original makes batches of pictures with equally many objects (config.data.batches="objects")
and calls its pathways that often. Here shapes are static: every picture has config.data.objects
places, what stands in no place neither counts in a norm nor shows, and a place that no picture of
the batch fills is skipped. One thing differs: the original's batches are smaller where there are
more objects (32 to 12), ours are all of config.batch_size.
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
from jaxt2i.losses import staged
from jaxt2i.metrics.drawn import BETTER, held_out
from jaxt2i.nn import stages
from jaxt2i.nn.initial import initialise
from jaxt2i.nn.objects import LOOPS, MERGES, Objects
from jaxt2i.nn.optim import Adam, half_life
from jaxt2i.nn.precision import compute_dtype, perception_dtype
from jaxt2i.systems.op_gan.networks import Drawn, Generator, ObjectCritic

WEIGHTS = ("pretrained", "random")
LAYOUT = ("boxes", "box_label", "box_mask")
WRONG_LAYOUTS = ("reversed", "none")
WRONG_PICTURES = ("fake", "real")
# Published sampling: pictures of 268 pixels, of which 256 are shown.
JITTER = 268 / 256


@dataclasses.dataclass(frozen=True)
class Model:
    """Settings of the system; the defaults made the published checkpoint (COCO).

    Attributes:
      weights: "pretrained": the DAMSM of config.init_from; "random" to measure speed.
      text_vocab, embed, width, trunk, align_corners, base: of that DAMSM, as it was trained.
      z_dim: width of the latent.
      c_dim: width of the augmented condition.
      local_dim: width of the chance that all objects of a picture share.
      g_base, d_base: channels of G's features, and of D after its first halving.
      residuals: residual blocks a stage.
      stages: pictures, each twice the size of the one before.
      classes: of objects, and one more for none.
      op: whether each stage of G has an object pathway.
      d_op: whether each D has one.
      layout_size: of stage 1's object maps and of its layout, pixels.
      grid_corners: how boxes are sampled: True is what affine_grid and grid_sample meant when the
        published weights were made (torch 1.1), False what the code says since.
      merge: "over": later objects, the smaller ones, cover earlier ones; "sum": the code before
        September 2020.
      object_loop: see `objects.EachObject`; the numbers are the same.
      attention_mask: "tiled" as published, "own" corrected; see `read_words`.
      wrong_pairs: "shift" as published, or "roll"; see `staged.wrong_pairs`.
      wrong_layout: "reversed": D refuses pictures with the boxes of the batch in reverse order;
        "none".
      wrong_layout_picture: with which pictures: "fake" as the code has it, though its name for
        them says "real".
      damsm_weight: lambda of the DAMSM loss on the last picture.
      kl_weight: of the conditioning augmentation's divergence.
      class_mask: pictures of a class are no negatives in the DAMSM loss; needs `label`.
      gamma1, gamma2, gamma3, divide_by_gamma2: of the DAMSM loss; see `losses.damsm.Gammas`.
      norm_group: examples that a batch norm takes together, as on one of the original's GPUs;
        0 = the global batch.
      ema_beta: weight of the old average of G at every step.
    """

    weights: str = "pretrained"
    text_vocab: int = 27297
    embed: int = 300
    width: int = 256
    trunk: str = "inception"
    align_corners: bool = False
    base: int = 32
    z_dim: int = 100
    c_dim: int = 100
    local_dim: int = 32
    g_base: int = 48
    d_base: int = 96
    residuals: int = 3
    stages: int = 3
    classes: int = 81
    op: tuple[bool, ...] = (True, True, True)
    d_op: tuple[bool, ...] = (True, True, True)
    layout_size: int = 16
    grid_corners: bool = True
    merge: str = "over"
    object_loop: str = "scan"
    attention_mask: str = "tiled"
    wrong_pairs: str = "shift"
    wrong_layout: str = "reversed"
    wrong_layout_picture: str = "fake"
    damsm_weight: float = 50.0
    kl_weight: float = 1.0
    class_mask: bool = False
    gamma1: float = 4.0
    gamma2: float = 5.0
    gamma3: float = 10.0
    divide_by_gamma2: bool = False
    norm_group: int = 0
    ema_beta: float = 0.999

    @property
    def sees_objects(self) -> bool:
        """Whether any network has an object pathway."""
        return any((*self.op, *self.d_op))


def jittered(boxes: jax.Array, key: jax.Array) -> jax.Array:
    """Boxes [N, 4] as the official sampler moves them: a random crop, perhaps mirrored."""
    chance = jax.random.uniform(key, (3,))
    offset = jnp.floor(12 * chance[:2]) / 256
    at = jnp.maximum(boxes[:, :2] * JITTER - offset, 0)
    extent = jnp.minimum(boxes[:, 2:] * JITTER, 1)
    extent = jnp.where(at + extent > 0.999, 1 - at - 0.001, extent)
    across = jnp.where(chance[2] < 0.5, 1 - at[:, 0] - extent[:, 0], at[:, 0])
    return jnp.concatenate([across[:, None], at[:, 1:], extent], -1)


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

    def objects(self, batch: Batch) -> Objects | None:
        """The objects of pictures; None where nothing sees them."""
        if not self.model.sees_objects:
            return None
        none = self.model.classes - 1
        label = jnp.where(batch["box_mask"], batch["box_label"], none)
        one_hot = jax.nn.one_hot(label, self.model.classes)
        return Objects(boxes=batch["boxes"], label=one_hot, mask=batch["box_mask"])

    def misplaced(self, objects: Objects) -> Objects:
        """Objects in the boxes of other pictures: of the batch in reverse order."""
        boxes, mask = (jnp.flip(x, 0) for x in (objects.boxes, objects.mask))
        return objects.replace(boxes=boxes, mask=mask)

    def reals(self, batch: Batch) -> tuple[jax.Array, ...]:
        """Real pictures in [-1, 1] at every size."""
        return tuple(map(unit_range, stages.pyramid(batch["image"], self.sizes)))

    def latents(self, z: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(z [B, Z], the augmentation's noise [B, C], the objects' chance [B, L]) of their row."""
        m = self.model
        return tuple(jnp.split(z, (m.z_dim, m.z_dim + m.c_dim), -1))

    @property
    def latent_width(self) -> int:
        """Of all three together."""
        return self.model.z_dim + self.model.c_dim + self.model.local_dim

    def generate(self, ctx: Ctx, batch: Batch, text: Text, z: jax.Array, **kw) -> Drawn:
        """Pictures of captions and objects from latents [B, latent_width]."""
        z, eps, chance = self.latents(z)
        objects = self.objects(batch) if any(self.model.op) else None
        return ctx("g", z, eps, text.sentence, text.words, text.mask, chance, objects, **kw)

    def fake(self, ctx: Ctx, batch: Batch, text: Text) -> Drawn:
        """This step's drawings, made once for all players."""
        shape = len(batch["tokens"]), self.latent_width
        z = ctx.draw("z", lambda key: jax.random.normal(key, shape))
        draw = functools.partial(self.generate, batch=batch, text=text, z=z, train=True)
        return ctx.shared("fake", "g", lambda ctx: draw(ctx))

    def shown(self, index: int, image: jax.Array, objects: Objects | None) -> staged.Seen:
        """What a discriminator gets to see."""
        return (image, objects) if self.model.d_op[index] else image

    def d_loss(self, index: int, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict]:
        """One discriminator's turn."""
        m, text, objects = self.model, self.text(ctx, batch), self.objects(batch)
        real = self.reals(batch)[index]
        fake = jax.lax.stop_gradient(self.fake(ctx, batch, text).images[index])
        refused = {}
        if m.wrong_layout != "none" and m.d_op[index]:
            image = fake if m.wrong_layout_picture == "fake" else real
            refused = {"wrong_layout": (image, self.misplaced(objects))}
        return staged.d_loss(
            functools.partial(ctx, self.critics[index]),
            real=self.shown(index, real, objects),
            fake=self.shown(index, fake, objects),
            sentence=text.sentence.astype(jnp.float32),
            pairs=m.wrong_pairs,
            refused=refused,
        )

    def adversarial(
        self, ctx: Ctx, images: tuple[jax.Array, ...], batch: Batch, sentence: jax.Array
    ) -> dict[str, jax.Array]:
        """What every discriminator says of G's pictures."""
        objects = self.objects(batch)
        return staged.g_terms(
            {net: functools.partial(ctx, net) for net in self.critics},
            [self.shown(i, image, objects) for i, image in enumerate(images)],
            sentence,
        )

    def match(self, ctx: Ctx, batch: Batch, image: jax.Array, text: Text) -> tuple:
        """The DAMSM loss of pictures and their captions, and its four terms."""
        return guide.matched(ctx, self.model, batch, image, text)

    def judged(
        self, ctx: Ctx, batch: Batch, images: tuple[jax.Array, ...], text: Text
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """What pictures cost G: every D, and the DAMSM on the last one."""
        logs = self.adversarial(ctx, images, batch, text.sentence.astype(jnp.float32))
        total = sum(logs.values())
        if self.model.damsm_weight:
            matched, terms = self.match(ctx, batch, images[-1], text)
            total, logs = total + self.model.damsm_weight * matched, {**logs, **terms}
        return total, logs

    def g_loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The generator's turn: what its pictures cost, and the augmentation's divergence."""
        text = self.text(ctx, batch)
        drawn = self.fake(ctx, batch, text)
        total, logs = self.judged(ctx, batch, drawn.images, text)
        logs["kl"] = staged.divergence(drawn.mean, drawn.log_variance)
        return total + self.model.kl_weight * logs["kl"], logs

    def latent(self, key: jax.Array) -> jax.Array:
        """Latent, the augmentation's noise and the objects' chance in one vector."""
        return jax.random.normal(key, (self.latent_width,))

    @property
    def sampler(self) -> Sampler:
        """How pictures are drawn."""
        jitter = Control(
            "jitter",
            False,
            help="move the boxes by a random crop and mirror, as the official sampler does; those "
            "before are written down and shown",
        )
        return Sampler(
            draw=self.draw,
            needs=("tokens", "token_mask", *(LAYOUT if any(self.model.op) else ())),
            text=self.text,
            latent=self.latent,
            controls=(jitter,) if any(self.model.op) else (),
            pixels="floor",
        )

    def draw(self, ctx, rows, keys, *, z, text, jitter=False) -> dict:
        """One picture a key and row; its earlier stages and attention with it."""
        if jitter:
            rows = {**rows, "boxes": jax.vmap(jittered)(rows["boxes"], keys)}
        return stages.shown(self.generate(ctx, rows, text, z))

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
        common = {
            "classes": m.classes,
            "corners": m.grid_corners,
            "loop": m.object_loop,
            "merge": m.merge,
            "group": m.norm_group,
            "dtype": dtype,
        }
        generator = Generator(
            base=m.g_base,
            resolution=self.resolution,
            stages=m.stages,
            residuals=m.residuals,
            op=tuple(m.op),
            layout_size=m.layout_size,
            attention_mask=m.attention_mask,
            z_dim=m.z_dim,
            c_dim=m.c_dim,
            local_dim=m.local_dim,
            words_dim=m.width,
            **common,
        )
        discriminators = {
            net: ObjectCritic(
                base=m.d_base,
                resolution=size,
                objects=m.d_op[i],
                depth=2 if i else 1,
                sentence_dim=m.width,
                **common,
            )
            for i, (net, size) in enumerate(zip(self.critics, self.sizes, strict=True))
        }
        return {
            "g": generator,
            **discriminators,
            **guide.networks(m, tokens=tokens, resolution=self.resolution, dtype=sees),
        }


def check(model: Model, resolution: int, names: tuple[str, ...] = ()) -> None:
    """Refuses settings that do not fit together.

    Args:
      model: the settings.
      resolution: of the last picture, pixels.
      names: of the classes of objects, where they are known.

    Raises:
      ConfigError: names the config line and the fix.
    """
    for name, known in (
        ("weights", WEIGHTS),
        ("attention_mask", stages.MASKS),
        ("wrong_pairs", staged.PAIRS),
        ("wrong_layout", WRONG_LAYOUTS),
        ("wrong_layout_picture", WRONG_PICTURES),
        ("merge", MERGES),
        ("object_loop", LOOPS),
    ):
        if (value := getattr(model, name)) not in known:
            raise ConfigError(f"config.model.{name}={value!r}; expected one of {known}")
    first = stages.sizes_of(resolution, model.stages)[0]
    for name in ("op", "d_op"):
        if len(value := getattr(model, name)) != model.stages:
            raise ConfigError(
                f"config.model.{name}={tuple(value)}; expected True or False for each of the "
                f"{model.stages} stages (config.model.stages)"
            )
    if first < 16:
        raise ConfigError(
            f"config.data.resolution={resolution}: the first of {model.stages} stages draws "
            f"{first} pixels, and objects need 16; set config.data.resolution="
            f"{16 * 2 ** (model.stages - 1)} or fewer config.model.stages"
        )
    size = model.layout_size
    if size & (size - 1) or not 4 <= size < first:
        raise ConfigError(
            f"config.model.layout_size={size}; expected a power of two from 4 to {first // 2}, "
            f"below the {first} pixels of the first stage"
        )
    if model.sees_objects and len(names) >= model.classes:
        raise ConfigError(
            f"config.model.classes={model.classes}, and the data has {len(names)} classes of "
            f"objects; set config.model.classes={len(names) + 1}, one more for none"
        )


def build(cfg, facts) -> Method:
    """The method of a config: `cfg.model` holds `Model`, `cfg.optim.d` and `.g` one `Adam` each."""
    model = fields(Model, cfg.model, "config.model")
    check(model, cfg.data.resolution, facts.names.get("box_label", ()))
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
    layout = LAYOUT if model.sees_objects else ()
    return Method(
        nets=nets,
        players=(*players, Player("g", ("g",), losses.g_loss, tx["g"])),
        init=lambda key, batch: initialise(nets, key),
        needs=(
            *("image", "tokens", "token_mask"),
            *layout,
            *(("label",) if model.class_mask else ()),
        ),
        sampler=losses.sampler,
        frozen=frozen,
        borrowed=frozen if pretrained else (),
        ema={"g": average},
        vocab=model.text_vocab,
        score=losses.score,
        better=BETTER,
        guided_by=("image",),
        notes=(
            "reads and scores with the DAMSM of "
            + (cfg.init_from if pretrained else "random weights: speed alone"),
        ),
    )
