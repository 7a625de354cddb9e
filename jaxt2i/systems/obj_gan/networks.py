"""Obj-GAN's networks: stages that look at words object by object, and discriminators of patches,
shapes and objects.

Li et al. 2019 (arXiv 1902.10740); jamesli1618/Obj-GAN, image_generation/model.py.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from jaxt2i.losses.damsm import EPS
from jaxt2i.nn import stages
from jaxt2i.nn.affine import leaky
from jaxt2i.nn.linear import Conv
from jaxt2i.nn.norms import CountedNorm, instance_norm, orthogonal
from jaxt2i.nn.remat import Policy, recomputed
from jaxt2i.nn.resample import apply_matrices, corner_matrix
from jaxt2i.nn.roi_align import roi_align
from jaxt2i.nn.stages import glu, read_words
from jaxt2i.systems.obj_gan.layout import Layout

SCORES = ("cosine", "dot")
PLACES = ("batch", "own")
# How much larger than drawn the object discriminators see a picture.
ENLARGED = 2
# Height and width of what is read of an object.
ROI = 5


@flax.struct.dataclass
class Drawn(stages.Drawn):
    """What the generator draws.

    Attributes:
      codes: of every stage behind the first, what each object read of the words, [B, N, g].
      object_attention: of every stage, [B, T, H, W]: what the objects at each pixel read.
    """

    codes: tuple[jax.Array, ...] = ()
    object_attention: tuple[jax.Array, ...] = ()


def mirrored(x: jax.Array) -> jax.Array:
    """[B, H, W, C] with one pixel more on each side, mirrored."""
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")


def conv3(features: int, dtype: jnp.dtype, name: str, *, bias: bool = False) -> Conv:
    """A 3x3 convolution of pictures that are padded already."""
    return Conv(features, pad=0, use_bias=bias, kernel_init=orthogonal(), dtype=dtype, name=name)


# --- Attention -----------------------------------------------------------------------------------


def read_by_label(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    used: jax.Array,
    *,
    scores: str,
    rule: str,
) -> tuple[jax.Array, jax.Array]:
    """Every object reads the words that its class's name resembles.

    Args:
      queries: names of classes, [B, N, G].
      keys: words in the same space, [B, T, G].
      values: [B, T, C].
      mask: bool [B, T], True at words.
      used: bool [B, N]: the places that the batch has. Where they are fewer than N, masks that
        are "tiled" are laid out by their number.
      scores: "cosine" or "dot": how names and words are compared.
      rule: see `stages.read_words`, of which the pixels are the objects here.

    Returns:
      (what was read [B, N, C], attention [B, N, T] float32).

    Source: paper, equations 4 and 5; jamesli1618/Obj-GAN image_generation/GlobalAttention.py.
    """
    batch, count, _ = queries.shape
    queries, keys = queries.astype(jnp.float32), keys.astype(jnp.float32)
    found = jnp.einsum("bng,btg->bnt", queries, keys, precision="highest")
    if scores == "cosine":
        norms = (jnp.linalg.norm(x, axis=-1) for x in (queries, keys))
        found = found / jnp.maximum(jnp.einsum("bn,bt->bnt", *norms), EPS)
    allowed = mask[:, None]
    if rule == "tiled":
        rows = used.sum(1).max()
        allowed = mask[(jnp.arange(batch)[:, None] * rows + jnp.arange(count)) % batch]
    share = jax.nn.softmax(jnp.where(allowed, found, -jnp.inf), -1)
    return jnp.einsum("bnt,btc->bnc", share.astype(values.dtype), values), share


def painted(shapes: jax.Array, vectors: jax.Array, used: jax.Array) -> jax.Array:
    """Each object's vector in its shape, and of what overlaps the largest, number by number.

    Args:
      shapes: [B, N, H, W].
      vectors: [B, N, C].
      used: bool [B, N]: the places that count. One that counts and has no object gives zeros.

    Returns:
      [B, H, W, C]; zeros in pictures of which no place counts.
    """
    each = shapes[..., None].astype(vectors.dtype) * vectors[:, :, None, None]
    none = jnp.asarray(-jnp.inf, vectors.dtype)
    most = jnp.where(used[:, :, None, None, None], each, none).max(1)
    return jnp.where(used.any(1)[:, None, None, None], most, 0)


def places(there: jax.Array, rule: str) -> jax.Array:
    """Which places of objects count: bool [B, N].

    Args:
      there: bool [B, N], True where there is an object.
      rule: "batch": as many as the picture with the most objects in the batch has, as published,
        so that a picture may depend on the batch that it is drawn in; "own": its own objects.
    """
    if rule == "own":
        return there
    return there | (jnp.arange(there.shape[1]) < there.sum(1).max())


class ObjectContext(nn.Module):
    """What the objects of a picture read of its words, where they are.

    Attributes:
      features: channels of what is read.
      scores: see `read_by_label`.
      attention_mask: see `read_words`.
      empty_places: see `places`.
      dtype: compute dtype.
    """

    features: int
    scores: str = "cosine"
    attention_mask: str = "tiled"
    empty_places: str = "batch"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, words, keys, mask, layout: Layout, shapes) -> tuple[jax.Array, ...]:
        """Words [B, T, S], keys [B, T, G] and shapes [B, N, H, W] to what they give.

        Returns:
          (context [B, H, W, features], names [B, H, W, G], attention [B, T, H, W], what each
          object read [B, N, features]).
        """
        project = Conv(
            self.features,
            1,
            use_bias=False,
            kernel_init=orthogonal(),
            dtype=self.dtype,
            name="context",
        )
        used = places(layout.there, self.empty_places)
        codes, share = read_by_label(
            layout.embedded,
            keys,
            project(words[:, None])[:, 0],
            mask,
            used,
            scores=self.scores,
            rule=self.attention_mask,
        )
        names = painted(shapes, layout.embedded.astype(self.dtype), used)
        looked = jnp.moveaxis(painted(shapes, share, used), -1, 1)
        return painted(shapes, codes, used), names, looked, jnp.where(used[..., None], codes, 0)


# --- Generator -----------------------------------------------------------------------------------


class MapEncoder(nn.Module):
    """A map of classes at half its size.

    Attributes:
      features: output channels; half as many on the way.
      dtype: compute dtype.
    """

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: jax.Array) -> jax.Array:
        """[B, S, S, K] to [B, S / 2, S / 2, features]."""
        first = conv3(self.features // 2, self.dtype, "conv1", bias=True)
        x = leaky(instance_norm(first(mirrored(maps.astype(self.dtype)))))
        return leaky(
            Conv(
                self.features,
                stride=2,
                use_bias=False,
                kernel_init=orthogonal(),
                dtype=self.dtype,
                name="conv2",
            )(x)
        )


class Residual(nn.Module):
    """`stages.Residual` with mirrored borders, each picture normalised by itself.

    Attributes:
      dtype: compute dtype.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to the same shape."""
        channels = x.shape[-1]
        h = glu(instance_norm(conv3(2 * channels, self.dtype, "conv1")(mirrored(x))))
        return x + instance_norm(conv3(channels, self.dtype, "conv2")(mirrored(h)))


class Stage(nn.Module):
    """Words read by pixels and by objects, residual blocks, twice the size.

    Attributes:
      residuals: residual blocks.
      reads: whether the pixels read words: in all stages but the first.
      context: fields of `ObjectContext`.
      group: of the batch norm.
      dtype: compute dtype.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    residuals: int
    reads: bool
    context: dict
    group: int = 0
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    @nn.compact
    def __call__(
        self, h, seen, words, keys, mask, layout: Layout, shapes, *, train: bool = False
    ) -> tuple[jax.Array, ...]:
        """Features and a map's code, both [B, H, H, g], to ([B, 2H, 2H, g], attention, codes, .).

        In the first stage, where no pixel reads, the attention is None. What comes last is the
        objects' attention.
        """
        channels = h.shape[-1]
        objects = ObjectContext(channels, dtype=self.dtype, name="objects", **self.context)
        given = words, keys, mask, layout, shapes
        read, names, looked, codes = recomputed(self.remat, objects, *given)
        share = None
        if self.reads:
            project = Conv(
                channels,
                1,
                use_bias=False,
                kernel_init=orthogonal(),
                dtype=self.dtype,
                name="context",
            )
            values = project(words[:, None])[:, 0]
            grid, share = read_words(h, values, values, mask, self.context["attention_mask"])
            parts = [h + seen, grid]
        else:
            parts = [seen, h]
        x = jnp.concatenate([*parts, read, names], -1)
        for i in range(self.residuals):
            x = recomputed(self.remat, Residual(dtype=self.dtype, name=f"residual{i}"), x)
        up = stages.Up(channels, group=self.group, dtype=self.dtype, name="up")
        return recomputed(self.remat, up, x, train=train), share, codes, looked


class Generator(nn.Module):
    """Latent, caption and layout to a picture a stage.

    Attributes:
      base: channels of every stage's features, g.
      resolution: of the last stage, pixels.
      stages: how many; every stage doubles the size.
      start: height and width that the latent is first spread over, pixels.
      first_residuals: residual blocks of the first stage.
      residuals: of the others.
      classes: K of the maps.
      scores, attention_mask, empty_places: see `ObjectContext`.
      z_dim: width of the latent.
      c_dim: width of the augmented condition.
      words_dim: S, for `example` alone.
      names_dim: G, for `example` alone.
      group: of the batch norms.
      dtype: compute dtype; pictures are float32.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    base: int = 48
    resolution: int = 256
    stages: int = 3
    start: int = 8
    first_residuals: int = 7
    residuals: int = 3
    classes: int = 80
    scores: str = "cosine"
    attention_mask: str = "tiled"
    empty_places: str = "batch"
    z_dim: int = 100
    c_dim: int = 100
    words_dim: int = 256
    names_dim: int = 50
    group: int = 0
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    def example(self) -> tuple:
        """Inputs that `init` can be traced with."""
        z, eps, sentence, words, mask = stages.generator_inputs(
            self.z_dim, self.c_dim, self.words_dim
        )
        shape = jax.ShapeDtypeStruct
        sizes = stages.sizes_of(self.resolution, self.stages)
        layout = Layout(
            shapes=tuple(shape((1, 2, n // 2, n // 2), jnp.float32) for n in sizes),
            maps=tuple(shape((1, n, n, self.classes), jnp.float32) for n in sizes),
            embedded=shape((1, 2, self.names_dim), jnp.float32),
            there=shape((1, 2), bool),
        )
        keys = shape((1, words.shape[1], self.names_dim), jnp.float32)
        return z, eps, sentence, words, mask, keys, layout

    @nn.compact
    def __call__(
        self, z, eps, sentence, words, mask, keys, layout: Layout, *, train: bool = False
    ) -> Drawn:
        """Draws.

        Args:
          z: [B, Z] ~ N(0, I).
          eps: [B, C] ~ N(0, I), the augmentation's noise, in evaluation too.
          sentence: [B, S].
          words: [B, T, S].
          mask: bool [B, T], True at words.
          keys: the words as the names of classes are embedded, [B, T, G].
          layout: what is to be where.
          train: normalise by the batch's statistics and move the running ones.
        """
        augment = stages.ConditioningAugmentation(self.c_dim, name="augment")
        cond, mean, log_variance = augment(sentence, eps)
        common = {"group": self.group, "dtype": self.dtype, "remat": self.remat}
        context = {
            "scores": self.scores,
            "attention_mask": self.attention_mask,
            "empty_places": self.empty_places,
        }
        half = layout.shapes[0].shape[-1]
        first = stages.FirstStage(
            base=self.base, resolution=half, start=self.start, name="sentence", **common
        )
        h = first(cond, z, train=train)
        images, attention, codes, looked = [], [], [], []
        for i, (shapes, maps) in enumerate(zip(layout.shapes, layout.maps, strict=True)):
            encode = MapEncoder(self.base, dtype=self.dtype, name=f"map{i + 1}")
            seen = recomputed(self.remat, encode, maps)
            stage = Stage(
                residuals=self.residuals if i else self.first_residuals,
                reads=i > 0,
                context=context,
                name=f"stage{i + 1}",
                **common,
            )
            given = words, keys, mask, layout, shapes
            h, share, code, look = stage(h, seen, *given, train=train)
            looked.append(look)
            if i:
                attention.append(share)
                codes.append(code)
            images.append(stages.ToImage(dtype=self.dtype, name=f"image{i + 1}")(h))
        return Drawn(
            images=tuple(images),
            attention=tuple(attention),
            mean=mean,
            log_variance=log_variance,
            codes=tuple(codes),
            object_attention=tuple(looked),
        )


# --- Discriminators ------------------------------------------------------------------------------


class Unit(nn.Module):
    """A convolution, batch norm, leaky ReLU.

    Attributes:
      features: output channels.
      size: of the window: 4 halves the picture, 3 keeps its size.
      normed: whether there is a norm.
      group: of the norm.
      dtype: compute dtype.
    """

    features: int
    size: int
    normed: bool = True
    group: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, there: jax.Array | None = None, *, train: bool = False
    ) -> jax.Array:
        """[B, H, W, C] to [B, H', W', features].

        `there`, bool [B], says which examples count in the norm; None: all.
        """
        conv = Conv(
            self.features,
            self.size,
            stride=2 if self.size == 4 else 1,
            pad=1,
            use_bias=False,
            kernel_init=orthogonal(),
            dtype=self.dtype,
            name="conv",
        )
        x = conv(x)
        if not self.normed:
            return leaky(x)
        if there is None:
            return leaky(stages.norm(self.group, "norm")(x, train=train))
        counted = CountedNorm(group=self.group, scale_init=stages.around_one, name="norm")
        return leaky(counted(x, there, train=train))


class Critic(nn.Module):
    """Patches of a picture, its shapes or its objects: shared features and one or two heads.

    Attributes:
      base: channels after the first halving, d.
      resolution: of the pictures, pixels.
      halvings: of the pictures.
      classes: K of the maps that it sees beside the pictures; 0: none.
      map_features: channels of what it sees of them.
      cond_dim: width of the condition of the second head; 0: there is only the first.
      objects: judge the objects in their boxes, in pictures `ENLARGED` times as large.
      places: of objects in a picture.
      roi_scale: see `roi_align`; boxes count the features' own pixels before.
      group: of the batch norms, examples.
      dtype: compute dtype; logits are float32.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    base: int = 96
    resolution: int = 256
    halvings: int = 4
    classes: int = 0
    map_features: int = 12
    cond_dim: int = 0
    objects: bool = False
    places: int = 1
    roi_scale: float = 1 / 16
    group: int = 0
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    def setup(self):
        common = {"group": self.group, "dtype": self.dtype}
        init = {"kernel_init": orthogonal(), "dtype": self.dtype}
        widths = [self.base * min(2**i, 8) for i in range(self.halvings)]
        self.down = [Unit(w, 4, normed=i > 0, **common) for i, w in enumerate(widths)]
        if self.classes:
            self.shape = Conv(self.map_features, pad=0, **init)
        top = widths[-1]
        if self.objects:
            top = 4 * self.base
            self.region = Conv(top, 4, pad=1, **init)
        head = {"size": 4, "stride": 2, "pad": 0, "kernel_init": orthogonal()}
        self.real = Conv(1, **head)
        if self.cond_dim:
            rows = self.group * (self.places if self.objects else 1)
            self.joint = Unit(top, 3, group=rows, dtype=self.dtype)
            self.matched = Conv(1, **head)

    @property
    def grid(self) -> int:
        """Height and width of the features that objects are read from."""
        return ENLARGED * self.resolution // 2**self.halvings

    def enlarged(self, x: jax.Array) -> jax.Array:
        """[B, R, R, .], `ENLARGED` times as large, corner on corner."""
        matrix = corner_matrix(ENLARGED * self.resolution, self.resolution)
        return apply_matrices(x, matrix, matrix)

    def seen(self, maps: jax.Array) -> jax.Array:
        """What is seen of maps of classes [B, R, R, K]: [B, ., ., map_features]."""
        maps = maps.astype(self.dtype)
        maps = self.enlarged(maps) if self.objects else maps
        return leaky(instance_norm(self.shape(mirrored(maps))))

    def features(
        self,
        x: jax.Array,
        maps: jax.Array | None = None,
        boxes: jax.Array | None = None,
        there: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> jax.Array:
        """Features of pictures, or of objects.

        Args:
          x: pictures [B, R, R, 3] in [-1, 1].
          maps: of their classes, [B, R, R, K].
          boxes: [B, N, 4], fractions.
          there: bool [B]: pictures that count in the norms; None: all.
          train: see `BatchNorm`.

        Returns:
          [B, H, W, C]; of objects [B N, 4, 4, C].
        """
        if self.objects:
            x = self.enlarged(x)
        if self.classes:
            see = Critic.seen
            if self.remat is not None:  # a map has many channels, and enlarged it is the largest
                see = nn.remat(see, policy=self.remat)
            seen = see(self, maps)
            x = jnp.concatenate([x.astype(seen.dtype), seen], -1)
        for unit in self.down:
            x = recomputed(self.remat, unit, x, there, train=train)
        if not self.objects:
            return x
        corners = jnp.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], -1)
        found = roi_align(x, corners * self.grid, size=ROI, scale=self.roi_scale)
        return leaky(self.region(found.reshape(-1, *found.shape[2:])))

    def alone(self, h: jax.Array) -> jax.Array:
        """Features to logits [B, h, w] of patches: are they real?"""
        return self.real(h.astype(jnp.float32))[..., 0]

    def together(
        self, h: jax.Array, cond: jax.Array, there: jax.Array | None = None, *, train: bool = False
    ) -> jax.Array:
        """Features and conditions [B, D] to logits [B, h, w]: do they belong together?

        `there`, bool [B], says which of them count in the norm; None: all.
        """
        wide = jnp.broadcast_to(cond[:, None, None], (*h.shape[:3], cond.shape[-1]))
        h = self.joint(jnp.concatenate([h, wide.astype(h.dtype)], -1), there, train=train)
        return self.matched(h.astype(jnp.float32))[..., 0]

    def example(self) -> tuple:
        """Inputs that `init` can be traced with."""
        shape, size = jax.ShapeDtypeStruct, self.resolution
        image = shape((1, size, size, 3), jnp.float32)
        maps = shape((1, size, size, self.classes), jnp.float32) if self.classes else None
        boxes = shape((1, 2, 4), jnp.float32) if self.objects else None
        count = 2 if self.objects else 1
        return image, maps, boxes, shape((count, self.cond_dim), jnp.float32)

    def __call__(
        self,
        x: jax.Array,
        maps: jax.Array | None,
        boxes: jax.Array | None,
        cond: jax.Array,
        *,
        train: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        """All heads: (logits alone, logits with the conditions or None)."""
        h = self.features(x, maps, boxes, train=train)
        return self.alone(h), self.together(h, cond, train=train) if self.cond_dim else None
