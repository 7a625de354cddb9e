"""Obj-GAN's image generator: a caption, and where which objects of which shapes are, to a picture.

Li et al. 2019 (arXiv 1902.10740), and jamesli1618/Obj-GAN. The frozen encoders of a DAMSM condition
the generator and guide its last picture; `config.init_from` names the run, or the folder of
converted weights, that they come from. Names of classes and words meet in GloVe's space, or in a
stand-in for it (`Model.glove`).

Boxes and shapes may be a person's, a data set's or another model's. One thing differs from the
original where an object discriminator has no object to look at in a whole batch: there it makes no
step, here one without a gradient.
"""

import dataclasses
import functools
import math

import flax.linen as nn
import flax.struct
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
from jaxt2i.nn.optim import Adam, half_life
from jaxt2i.nn.precision import compute_dtype, perception_dtype
from jaxt2i.systems.obj_gan import glove, layout, losses
from jaxt2i.systems.obj_gan.layout import Layout
from jaxt2i.systems.obj_gan.losses import Judged
from jaxt2i.systems.obj_gan.networks import PLACES, SCORES, Critic, Drawn, Generator

WEIGHTS = ("pretrained", "random")
LAYOUT = ("boxes", "box_label", "box_mask", "shape_masks")
# Which sizes of objects the discriminators of objects look at, as shares of the picture, and how
# often each halves it.
SMALL, LARGE = "obj_small", "obj_large"
HALVINGS = {SMALL: 3, LARGE: 4}


@dataclasses.dataclass(frozen=True)
class Model:
    """Settings of the system; the defaults made the published checkpoint (COCO).

    Attributes:
      weights: "pretrained": the DAMSM of config.init_from; "random" to measure speed.
      text_vocab, embed, width, trunk, align_corners, base: of that DAMSM, as it was trained.
      glove: a text file of GloVe's vectors, glove.6B.50d.txt; "": a stand-in that knows equal words
        alone.
      names_dim: width of those vectors.
      unknown_words: "dropped", as the code does with words that GloVe lacks: behind one, each word
        has the vector of a later word; "zero": none; see `glove.without_unknown`.
      z_dim: width of the latent.
      c_dim: width of the augmented condition.
      g_base, d_base: channels of G's features, and of D after its first halving.
      first_residuals, residuals: residual blocks of the first stage, and of the others.
      stages: pictures, each twice the size of the one before.
      start: height and width that the latent is first spread over, pixels.
      classes: of objects.
      least_side: objects that are narrower and lower are left out, pixels of 256.
      scores: how names of classes and words are compared: "cosine", as the published weights do;
        "dot", the paper.
      attention_mask: "tiled" as published, "own" corrected; see `read_words`.
      empty_places: "batch" as published, or "own"; see `networks.places`.
      wrong_pairs: "shift" as published, or "roll"; see `staged.wrong_pairs`.
      wrong_condition: "first" as published, or "own"; see `losses.moved_condition`.
      roi_scale: of the boxes that objects are read from, which count the features' pixels already.
        1/16, as published, reads a corner of the features alone; 1 is what was meant.
      small_below: objects whose longer side is below this share of the picture are judged as small
        ones; 0: there is no discriminator of small objects.
      large_from: those from this share on as large ones, those between not at all; above 1: there
        is no discriminator of large objects.
      least_cells: objects that are narrower and lower than so many pixels of the features are not
        judged.
      alone_weight: of the terms of pictures alone (UNCOND_LAMBDA).
      text_weight: of the terms of pictures with their sentence (TXT_LAMBDA).
      shape_weight: of the terms of pictures with their shapes, for G (SHP_LAMBDA).
      object_weight: of the terms of objects, for G (OBJ_LAMBDA).
      damsm_weight: of the DAMSM loss on the last picture (DAMSM_LAMBDA).
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
    align_corners: bool = True
    base: int = 32
    glove: str = ""
    names_dim: int = 50
    unknown_words: str = "dropped"
    z_dim: int = 100
    c_dim: int = 100
    g_base: int = 48
    d_base: int = 96
    first_residuals: int = 7
    residuals: int = 3
    stages: int = 3
    start: int = 8
    classes: int = 80
    least_side: float = 10.0
    scores: str = "cosine"
    attention_mask: str = "tiled"
    empty_places: str = "batch"
    wrong_pairs: str = "shift"
    wrong_condition: str = "first"
    roi_scale: float = 1 / 16
    small_below: float = 0.25
    large_from: float = 0.5
    least_cells: float = 1.25
    alone_weight: float = 1.0
    text_weight: float = 0.1
    shape_weight: float = 1.0
    object_weight: float = 0.1
    damsm_weight: float = 100.0
    kl_weight: float = 1.0
    class_mask: bool = False
    gamma1: float = 4.0
    gamma2: float = 5.0
    gamma3: float = 10.0
    divide_by_gamma2: bool = False
    norm_group: int = 0
    ema_beta: float = 0.999


@flax.struct.dataclass
class Read:
    """Captions, read by both encoders.

    Attributes:
      text: by the DAMSM.
      keys: the words in the space of the names of classes, [B, T, G].
    """

    text: Text
    keys: jax.Array


@dataclasses.dataclass(frozen=True)
class Losses:
    """The losses, the sampler and the scores, over networks named g, pat64, shp64, ..., obj_small,
    obj_large, text, image, glove.

    Attributes:
      model: the settings.
      resolution: of the last picture, pixels.
      places: of objects in a picture.
    """

    model: Model
    resolution: int
    places: int = 10

    @property
    def sizes(self) -> tuple[int, ...]:
        """Resolutions of the pictures, smallest first."""
        return stages.sizes_of(self.resolution, self.model.stages)

    def names(self, kind: str) -> tuple[str, ...]:
        """Names of the discriminators of patches ("pat") or of shapes ("shp"), smallest first."""
        return tuple(f"{kind}{size}" for size in self.sizes)

    @property
    def object_critics(self) -> tuple[str, ...]:
        """Names of the discriminators of objects."""
        m = self.model
        return (SMALL,) * (m.small_below > 0) + (LARGE,) * (m.large_from <= 1)

    # --- what is given ---------------------------------------------------------------------------

    def read(self, ctx: Ctx, batch: Batch) -> Read:
        """The captions, by the frozen encoders."""
        tokens, mask = batch["tokens"], batch["token_mask"]
        keys = ctx("glove", tokens, method="keys")
        keys, mask = glove.without_unknown(keys, mask, self.model.unknown_words)
        return Read(ctx("text", tokens, mask), keys)

    def there(self, batch: Batch) -> jax.Array:
        """Which places hold an object: bool [B, N]."""
        large = batch["boxes"][..., 2:].max(-1) * 256 >= self.model.least_side
        return batch["box_mask"] & large

    def labels(self, batch: Batch) -> jax.Array:
        """Classes [B, N, K]; zeros where no object is."""
        one_hot = jax.nn.one_hot(batch["box_label"], self.model.classes)
        return one_hot * self.there(batch)[..., None]

    def names_of(self, ctx: Ctx, batch: Batch) -> jax.Array:
        """Embedded classes of the objects [B, N, G]; zeros where none is."""
        names = ctx("glove", batch["box_label"], method="names")
        return names * self.there(batch)[..., None]

    def shapes(self, batch: Batch) -> tuple[jax.Array, ...]:
        """The objects' shapes from half the first picture's size on, [B, N, S, S], 0 to 1."""
        shapes = batch["shape_masks"].astype(jnp.float32) / 255
        shapes = shapes * self.there(batch)[..., None, None]
        return tuple(layout.resized(shapes, n) for n in (self.sizes[0] // 2, *self.sizes))

    def layout(self, ctx: Ctx, batch: Batch) -> Layout:
        """The objects of pictures."""
        shapes, labels = self.shapes(batch), self.labels(batch)
        maps = tuple(layout.class_maps(x, labels) for x in shapes[1:])
        embedded, there = self.names_of(ctx, batch), self.there(batch)
        return Layout(shapes=shapes[:-1], maps=maps, embedded=embedded, there=there)

    def predicted(self, ctx: Ctx, batch: Batch) -> Layout:
        """The same of shapes that a model has drawn; see `layout.predicted`."""
        there, labels = self.there(batch), self.labels(batch)
        given = batch["shape_masks"].astype(jnp.float32) / 255 * there[..., None, None]
        sizes = (self.sizes[0] // 2, *self.sizes)
        shapes, maps = layout.predicted(given, labels, there, sizes)
        embedded = self.names_of(ctx, batch)
        return Layout(shapes=shapes, maps=maps, embedded=embedded, there=there)

    def misplaced(self, net: str, index: int, ctx: Ctx, batch: Batch) -> tuple:
        """(maps of a size in which classes have changed places, bool [B] of where they have)."""
        labels = self.labels(batch)
        draw = functools.partial(layout.exchange, one_hot=labels)
        labels, moved = layout.exchanged(labels, ctx.draw(f"exchange_{net}", draw))
        return layout.class_maps(self.shapes(batch)[index + 1], labels), moved

    def reals(self, batch: Batch) -> tuple[jax.Array, ...]:
        """Real pictures in [-1, 1] at every size."""
        return tuple(map(unit_range, stages.pyramid(batch["image"], self.sizes)))

    @property
    def latent_width(self) -> int:
        """Of the latent and the augmentation's noise together."""
        return self.model.z_dim + self.model.c_dim

    # --- what is drawn ---------------------------------------------------------------------------

    def generate(self, ctx: Ctx, given: Layout, read: Read, z: jax.Array, **kw) -> Drawn:
        """Pictures of captions and objects from latents [B, latent_width]."""
        z, eps = jnp.split(z, (self.model.z_dim,), -1)
        text = read.text
        captions = text.sentence, text.words, text.mask, read.keys
        return ctx("g", z, eps, *captions, given, **kw)

    def fake(self, ctx: Ctx, batch: Batch) -> Drawn:
        """This step's drawings, made once for all players."""
        shape = len(batch["tokens"]), self.latent_width
        z = ctx.draw("z", lambda key: jax.random.normal(key, shape))

        def draw(ctx: Ctx) -> Drawn:
            given, read = self.layout(ctx, batch), self.read(ctx, batch)
            return self.generate(ctx, given, read, z, train=True)

        return ctx.shared("fake", "g", draw)

    # --- discriminators --------------------------------------------------------------------------

    def patch_loss(self, index: int, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict]:
        """The turn of a discriminator of patches."""
        m = self.model
        return staged.d_loss(
            functools.partial(ctx, self.names("pat")[index]),
            real=self.reals(batch)[index],
            fake=jax.lax.stop_gradient(self.fake(ctx, batch).images[index]),
            sentence=self.read(ctx, batch).text.sentence.astype(jnp.float32),
            pairs=m.wrong_pairs,
            pair_weight=m.text_weight,
            alone_weight=m.alone_weight,
        )

    def seen(self, net: str, index: int, ctx: Ctx, batch: Batch) -> tuple:
        """(real, fake, maps, wrong maps, where they are wrong) of a size."""
        fake = jax.lax.stop_gradient(self.fake(ctx, batch).images[index])
        maps = layout.class_maps(self.shapes(batch)[index + 1], self.labels(batch))
        wrong = self.misplaced(net, index, ctx, batch)
        return self.reals(batch)[index], fake, maps, *wrong

    def shape_loss(self, index: int, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict]:
        """The turn of a discriminator of shapes."""
        net = self.names("shp")[index]
        return losses.shape_d_loss(functools.partial(ctx, net), *self.seen(net, index, ctx, batch))

    def judged(self, net: str, ctx: Ctx, batch: Batch, codes: jax.Array) -> Judged:
        """The objects that a discriminator of objects looks at."""
        m = self.model
        bounds = (0.0, m.small_below) if net == SMALL else (m.large_from, math.inf)
        chosen = layout.selected(
            batch["boxes"],
            self.there(batch),
            size=2 * self.resolution // 2 ** HALVINGS[net],
            least=m.least_cells,
            low=bounds[0],
            high=bounds[1],
        )
        names = self.names_of(ctx, batch)
        return Judged(
            boxes=batch["boxes"],
            chosen=chosen.reshape(-1),
            names=names.reshape(-1, names.shape[-1]),
            codes=jax.lax.stop_gradient(codes),
        )

    def object_loss(self, net: str, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict]:
        """The turn of a discriminator of objects."""
        codes = self.fake(ctx, batch).codes[-1]
        return losses.object_d_loss(
            functools.partial(ctx, net),
            *self.seen(net, self.model.stages - 1, ctx, batch),
            self.judged(net, ctx, batch, codes),
            pairs=self.model.wrong_pairs,
            wrong_condition=self.model.wrong_condition,
        )

    # --- generator -------------------------------------------------------------------------------

    def adversarial(self, ctx: Ctx, batch: Batch, drawn: Drawn, read: Read) -> dict:
        """What every discriminator says of G's pictures, unweighted."""
        maps = self.layout(ctx, batch).maps
        sentence = read.text.sentence.astype(jnp.float32)
        patches = {net: functools.partial(ctx, net) for net in self.names("pat")}
        logs = staged.g_terms(patches, drawn.images, sentence)
        for net, image, of in zip(self.names("shp"), drawn.images, maps, strict=True):
            h = ctx(net, image, of, train=True, method="features")
            logs[net] = jax.nn.softplus(-ctx(net, h, method="alone")).mean()
        for net in self.object_critics:
            judged = self.judged(net, ctx, batch, drawn.codes[-1])
            told = losses.object_g_terms(
                functools.partial(ctx, net), drawn.images[-1], maps[-1], judged
            )
            logs |= dict(zip((f"{net}_pair", f"{net}_alone"), told, strict=True))
        return logs

    def weight(self, name: str) -> float:
        """Of a term of `adversarial`."""
        m = self.model
        if name.startswith(("shp", "obj")):
            return m.shape_weight if name.startswith("shp") else m.object_weight
        return m.text_weight if name.endswith("_pair") else m.alone_weight

    def match(self, ctx: Ctx, batch: Batch, image: jax.Array, text: Text) -> tuple:
        """The DAMSM loss of pictures and their captions, and its four terms."""
        return guide.matched(ctx, self.model, batch, image, text)

    def g_loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The generator's turn: every D, the DAMSM on the last picture, and the divergence."""
        m, read, drawn = self.model, self.read(ctx, batch), self.fake(ctx, batch)
        logs = self.adversarial(ctx, batch, drawn, read)
        total = sum(self.weight(name) * value for name, value in logs.items())
        if m.damsm_weight:
            matched, terms = self.match(ctx, batch, drawn.images[-1], read.text)
            total, logs = total + m.damsm_weight * matched, {**logs, **terms}
        logs["kl"] = staged.divergence(drawn.mean, drawn.log_variance)
        return total + m.kl_weight * logs["kl"], logs

    # --- drawing and scores ----------------------------------------------------------------------

    def latent(self, key: jax.Array) -> jax.Array:
        """Latent and the augmentation's noise in one vector."""
        return jax.random.normal(key, (self.latent_width,))

    @property
    def sampler(self) -> Sampler:
        """How pictures are drawn."""
        stretch = Control(
            "stretch_shapes",
            False,
            help="stretch every shape to 0 .. 1, and take the largest of a class instead of their "
            "sum, as the official sampler does with shapes that its shape generator has drawn",
        )
        return Sampler(
            draw=self.draw,
            needs=("tokens", "token_mask", *LAYOUT),
            text=self.read,
            latent=self.latent,
            controls=(stretch,),
            pixels="floor",
        )

    def draw(self, ctx, rows, keys, *, z, text, stretch_shapes=False) -> dict:
        """One picture a key and row; its earlier stages and attention with it."""
        given = (self.predicted if stretch_shapes else self.layout)(ctx, rows)
        drawn = self.generate(ctx, given, text, z)
        looked = (*drawn.attention, *drawn.object_attention)
        return {"image": drawn.images[-1], "stages": drawn.images, "attention": looked}

    def score(self, ctx: Ctx, batch: Batch) -> dict[str, jax.Array]:
        """Held-out pictures against pictures drawn for their rows, in the DAMSM's space."""
        read = self.read(ctx, batch)
        draw = functools.partial(self.sampler, ctx, batch, text=read)
        return held_out(ctx, unit_range(batch["image"]), draw, read.text.sentence)

    # --- networks --------------------------------------------------------------------------------

    def critics(self, dtype: jnp.dtype) -> dict[str, nn.Module]:
        """The discriminators."""
        m = self.model
        common = {"base": m.d_base, "group": m.norm_group, "dtype": dtype}
        seen = {"classes": m.classes, "map_features": max(m.g_base // 4, 1)}
        out = {}
        for kind, told in (("pat", {"cond_dim": m.width}), ("shp", seen)):
            for net, size in zip(self.names(kind), self.sizes, strict=True):
                # Published: 4; smaller pictures keep the 4 x 4 pixels that a head looks at.
                halvings = min(4, (size // 4).bit_length() - 1)
                out[net] = Critic(resolution=size, halvings=halvings, **told, **common)
        for net in self.object_critics:
            out[net] = Critic(
                resolution=self.resolution,
                halvings=HALVINGS[net],
                cond_dim=m.names_dim + m.g_base,
                objects=True,
                places=self.places,
                roi_scale=m.roi_scale,
                **seen,
                **common,
            )
        return out

    def nets(
        self, tokens: int, dtype: jnp.dtype, sees: jnp.dtype = jnp.float32
    ) -> dict[str, nn.Module]:
        """The networks; captions have `tokens` positions, the encoders compute in `sees`."""
        m = self.model
        generator = Generator(
            base=m.g_base,
            resolution=self.resolution,
            stages=m.stages,
            start=m.start,
            first_residuals=m.first_residuals,
            residuals=m.residuals,
            classes=m.classes,
            scores=m.scores,
            attention_mask=m.attention_mask,
            empty_places=m.empty_places,
            z_dim=m.z_dim,
            c_dim=m.c_dim,
            words_dim=m.width,
            names_dim=m.names_dim,
            group=m.norm_group,
            dtype=dtype,
        )
        return {
            "g": generator,
            **self.critics(dtype),
            **guide.networks(m, tokens=tokens, resolution=self.resolution, dtype=sees),
            "glove": glove.Glove(words=m.text_vocab, classes=m.classes, width=m.names_dim),
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
        ("unknown_words", glove.MISSING),
        ("scores", SCORES),
        ("attention_mask", stages.MASKS),
        ("empty_places", PLACES),
        ("wrong_pairs", staged.PAIRS),
        ("wrong_condition", losses.CONDITIONS),
    ):
        if (value := getattr(model, name)) not in known:
            raise ConfigError(f"config.model.{name}={value!r}; expected one of {known}")
    if model.stages < 2:
        raise ConfigError(
            f"config.model.stages={model.stages}; expected 2 or more: the objects' discriminators "
            "are told what the second stage's objects read"
        )
    half = stages.sizes_of(resolution, model.stages)[0] // 2
    if model.start & (model.start - 1) or not 1 <= model.start <= half:
        raise ConfigError(
            f"config.model.start={model.start}; expected a power of two up to {half}, half the "
            "first picture's size"
        )
    if len(names) > model.classes:
        raise ConfigError(
            f"config.model.classes={model.classes}, and the data has {len(names)} classes of "
            f"objects; set config.model.classes={len(names)}"
        )


def build(cfg, facts) -> Method:
    """The method of a config: `cfg.model` holds `Model`, `cfg.optim.d` and `.g` one `Adam` each."""
    model = fields(Model, cfg.model, "config.model")
    names = facts.names.get("box_label", ())
    check(model, cfg.data.resolution, names)
    game = Losses(model, cfg.data.resolution, cfg.data.objects)
    dtype = compute_dtype(cfg.precision, jax.default_backend())
    nets = game.nets(cfg.data.tokens, dtype, perception_dtype(cfg))
    tx = {n: fields(Adam, cfg.optim[n], f"config.optim.{n}").tx() for n in ("d", "g")}
    turns = {
        **{net: functools.partial(game.patch_loss, i) for i, net in enumerate(game.names("pat"))},
        **{net: functools.partial(game.shape_loss, i) for i, net in enumerate(game.names("shp"))},
        **{net: functools.partial(game.object_loss, net) for net in game.object_critics},
    }
    players = [Player(net, (net,), loss, tx["d"]) for net, loss in turns.items()]
    # One weight at every step, whatever the batch.
    average = Ema(half_life(model.ema_beta, cfg.batch_size), rampup=None)
    perception, pretrained = ("text", "image"), model.weights == "pretrained"
    return Method(
        nets=nets,
        players=(*players, Player("g", ("g",), game.g_loss, tx["g"])),
        init=lambda key, batch: initialise(nets, key),
        needs=(
            *("image", "tokens", "token_mask", *LAYOUT),
            *(("label",) if model.class_mask else ()),
        ),
        sampler=game.sampler,
        frozen=(*perception, "glove"),
        pretrained={"glove": glove.loader(model.glove, facts.words, names, nets["glove"])},
        borrowed=perception if pretrained else (),
        ema={"g": average},
        vocab=model.text_vocab,
        score=game.score,
        better=BETTER,
        guided_by=("image",),
        notes=(
            "reads and scores with the DAMSM of "
            + (cfg.init_from if pretrained else "random weights: speed alone"),
            f"names of classes and words meet in {model.glove or 'a stand-in for GloVe'}",
        ),
    )
