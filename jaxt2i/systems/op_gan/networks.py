"""OP-GAN's networks: AttnGAN's, with a pathway for every object in each stage and discriminator.

Hinz et al. 2022 (arXiv 1910.13321), and tohinz/semantic-object-accuracy-for-generative-text-to-
image-synthesis.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from jaxt2i.nn import stages
from jaxt2i.nn.affine import leaky
from jaxt2i.nn.critics import Critic
from jaxt2i.nn.linear import Conv, Linear
from jaxt2i.nn.norms import orthogonal
from jaxt2i.nn.objects import (
    EachObject,
    ObjectNorm,
    Objects,
    ObjectUp,
    by_picture,
    coverage,
    resample,
)
from jaxt2i.nn.remat import Policy
from jaxt2i.nn.stages import read_words

# Widths that the published configuration fixes, whatever the others are.
FIRST_LABEL, NEXT_LABEL = 100, 128
# Channels of the layout encoder's three halvings.
LAYOUT_WIDTHS = (50, 25, 12)


@flax.struct.dataclass
class Drawn(stages.Drawn):
    """What the generator draws.

    Attributes:
      objects: the merged maps of every stage's objects, [B, H, H, C]; None where its pathway is
        off.
    """

    objects: tuple[jax.Array | None, ...] = ()


def spread(labels: jax.Array, size: int) -> jax.Array:
    """Vectors [N, B, L] at every pixel: [N, B, size, size, L]."""
    return jnp.broadcast_to(
        labels[:, :, None, None], (*labels.shape[:2], size, size, labels.shape[-1])
    )


class Label(nn.Module):
    """What is to be drawn of each object: its class, the caption and, in stage 1, some chance.

    Attributes:
      features: width of the result.
      group: of the norm.
      dtype: compute dtype.
    """

    features: int
    group: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, slots, before, after=None, *, train: bool = False) -> jax.Array:
        """Slots and vectors [B, .] beside each one-hot label to [N, B, features]."""
        label = slots["label"]

        def every(x):
            return jnp.broadcast_to(x, (len(label), *x.shape))

        parts = [every(before), label.astype(before.dtype)]
        parts += [] if after is None else [every(after)]
        wide = Linear(
            self.features, use_bias=False, kernel_init=orthogonal(), dtype=self.dtype, name="fc"
        )
        x = wide(jnp.concatenate(parts, -1))
        return nn.relu(ObjectNorm(group=self.group, name="norm")(x, slots["mask"], train=train))


class Painted(nn.Module):
    """One object's features, pasted into its box: two doublings of a map a quarter of that size.

    Attributes:
      size: of the result, pixels.
      features: its channels; twice as many halfway.
      corners: see `objects.sample_matrix`.
      group: of the norms.
      dtype: compute dtype.
    """

    size: int
    features: int
    corners: bool = True
    group: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, slots, shared, *, train: bool = False) -> jax.Array:
        """Labels, and `shared["h"]` [B, H, H, C], of which the box is cut out, to [N, B, H, H, C].

        Without "h" the map is made of the label alone.
        """
        boxes, mask = slots["boxes"], slots["mask"]
        x = spread(slots["embedded"], self.size // 4).astype(self.dtype)
        if "h" in shared:
            every = jnp.broadcast_to(shared["h"], (len(mask), *shared["h"].shape))
            cut = resample(every, boxes, self.size // 4, paste=False, corners=self.corners)
            x = jnp.concatenate([cut.astype(self.dtype), x], -1)
        for name, width in (("up1", 2 * self.features), ("up2", self.features)):
            up = ObjectUp(width, group=self.group, dtype=self.dtype, name=name)
            x = up(x, mask, train=train)
        return resample(x, boxes, self.size, paste=True, corners=self.corners)


class Layout(nn.Module):
    """Where which objects are, as one vector: their embedded labels in their boxes, encoded.

    Attributes:
      size: height and width of the layout, pixels.
      corners: see `objects.sample_matrix`.
      group: of the norms.
      dtype: compute dtype.
    """

    size: int = 16
    corners: bool = True
    group: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, slots, *, train: bool = False) -> jax.Array:
        """Slots with "embedded" to [B, 12 (size / 8)^2], as PyTorch flattens; overlaps add up."""
        down, across = coverage(slots["boxes"], self.size, self.size, self.corners)
        labels = slots["embedded"].astype(jnp.float32)
        x = jnp.einsum("nbi,nbj,nbl->bijl", down, across, labels)
        for i, width in enumerate(LAYOUT_WIDTHS):
            conv = Conv(
                width,
                stride=2,
                use_bias=False,
                kernel_init=orthogonal(),
                dtype=self.dtype,
                name=f"conv{i}",
            )
            x = conv(x)
            if i:
                x = stages.norm(self.group, f"norm{i}")(x, train=train)
            x = leaky(x)
        return jnp.moveaxis(x, -1, 1).reshape(len(x), -1)


class FirstObjects(nn.Module):
    """Stage 1's object pathway and layout encoder.

    Attributes:
      size: of the maps, pixels.
      features: their channels.
      corners: see `objects.sample_matrix`.
      loop, merge, remat: see `objects.EachObject`.
      group: of the norms.
      dtype: compute dtype.
    """

    size: int
    features: int
    corners: bool = True
    loop: str = "scan"
    merge: str = "over"
    group: int = 0
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    @nn.compact
    def __call__(self, objects: Objects, cond, chance, *, train: bool = False) -> tuple:
        """Objects, the condition [B, C] and chance [B, L] to (map [B, H, H, F], layout [B, .])."""
        slots, common = objects.slots(), {"group": self.group, "dtype": self.dtype}
        label = Label(FIRST_LABEL, name="label", **common)
        slots["embedded"] = label(slots, cond, chance, train=train)
        where = {"size": self.size, "corners": self.corners, **common}
        painted = Painted(features=self.features, name="paint", **where)
        each = EachObject(
            network=painted, loop=self.loop, merge=self.merge, remat=self.remat, name="each"
        )
        layout = Layout(name="layout", **where)(slots, train=train)
        return each(slots, {}, train=train), layout


class NextStage(nn.Module):
    """AttnGAN's later stage, with objects that are redrawn and pasted before the doubling.

    Attributes:
      residuals: residual blocks.
      objects: whether there is an object pathway; else its channels are zeros.
      attention_mask: see `read_words`.
      corners: see `objects.sample_matrix`.
      loop, merge: see `objects.EachObject`.
      group: of the batch norms.
      dtype: compute dtype.
      remat: of `Refinement` and the objects.
    """

    residuals: int = 3
    objects: bool = True
    attention_mask: str = "tiled"
    corners: bool = True
    loop: str = "scan"
    merge: str = "over"
    group: int = 0
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    @nn.compact
    def __call__(
        self, h, words, mask, cond, objects: Objects | None, *, train: bool = False
    ) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """Features [B, R, R, g] to ([B, 2R, 2R, g], attention [B, T, R, R], object map)."""
        channels, common = h.shape[-1], {"group": self.group, "dtype": self.dtype}
        project = Conv(
            channels, 1, use_bias=False, kernel_init=orthogonal(), dtype=self.dtype, name="context"
        )
        words = project(words[:, None])[:, 0]  # [B, T, g]
        context, attention = read_words(h, words, words, mask, self.attention_mask)
        seen = None
        if self.objects:
            slots = objects.slots()
            slots["embedded"] = Label(NEXT_LABEL, name="label", **common)(slots, cond, train=train)
            painted = Painted(
                size=h.shape[1],
                features=channels,
                corners=self.corners,
                name="paint",
                **common,
            )
            each = EachObject(
                network=painted, loop=self.loop, merge=self.merge, remat=self.remat, name="each"
            )
            seen = each(slots, {"h": h}, train=train)
        refine = stages.Refinement(
            channels, blocks=self.residuals, remat=self.remat, name="refine", **common
        )
        beside = jnp.zeros_like(h) if seen is None else seen
        out = refine(jnp.concatenate([h, context], -1), beside, train=train)
        return out, attention, seen


class Generator(nn.Module):
    """Latent, caption and objects to a picture a stage.

    Attributes:
      base: channels of every stage's features, g.
      resolution: of the last stage, pixels.
      stages: how many; every stage doubles the size.
      residuals: residual blocks a stage.
      op: whether each stage has an object pathway; without stage 1's the layout is zero, too.
      layout_size: of stage 1's object maps and of its layout, pixels.
      classes: K of the one-hot labels, one more than there are.
      attention_mask: see `read_words`.
      corners: see `objects.sample_matrix`.
      loop, merge: see `objects.EachObject`.
      z_dim: width of the latent.
      c_dim: width of the augmented condition.
      local_dim: width of the chance that all objects of a picture share.
      words_dim: S, for `example` alone.
      group: of the batch norms.
      dtype: compute dtype; pictures are float32.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    base: int = 48
    resolution: int = 256
    stages: int = 3
    residuals: int = 3
    op: tuple[bool, ...] = (True, True, True)
    layout_size: int = 16
    classes: int = 81
    attention_mask: str = "tiled"
    corners: bool = True
    loop: str = "scan"
    merge: str = "over"
    z_dim: int = 100
    c_dim: int = 100
    local_dim: int = 32
    words_dim: int = 256
    group: int = 0
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    def example(self) -> tuple:
        """Inputs that `init` can be traced with."""
        z, *rest = stages.generator_inputs(self.z_dim, self.c_dim, self.words_dim)
        chance = jax.ShapeDtypeStruct((1, self.local_dim), jnp.float32)
        return z, *rest, chance, objects_example(self.classes) if any(self.op) else None

    @nn.compact
    def __call__(
        self, z, eps, sentence, words, mask, chance, objects: Objects | None, *, train: bool = False
    ) -> Drawn:
        """Draws.

        Args:
          z: [B, Z] ~ N(0, I).
          eps: [B, C] ~ N(0, I), the augmentation's noise, in evaluation too.
          sentence: [B, S].
          words: [B, T, S].
          mask: bool [B, T], True at words.
          chance: [B, L] ~ N(0, I), the objects' own noise.
          objects: of the pictures; None where no stage has a pathway.
          train: normalise by the batch's statistics and move the running ones.
        """
        augment = stages.ConditioningAugmentation(self.c_dim, name="augment")
        cond, mean, log_variance = augment(sentence, eps)
        common = {"group": self.group, "dtype": self.dtype, "remat": self.remat}
        pathway = {"corners": self.corners, "loop": self.loop, "merge": self.merge}
        size = self.resolution // 2 ** (self.stages - 1)
        features = self.base * (size // self.layout_size)
        if self.op[0]:
            first = FirstObjects(
                size=self.layout_size, features=features, name="objects1", **common, **pathway
            )
            seen, layout = first(objects, cond, chance, train=train)
            beside = seen
        else:
            seen, batch = None, len(z)
            beside = jnp.zeros((batch, self.layout_size, self.layout_size, features), self.dtype)
            side = max(1, self.layout_size // 8)  # after three halvings
            layout = jnp.zeros((batch, LAYOUT_WIDTHS[-1] * side**2))
        noise = jnp.concatenate([z, layout.astype(z.dtype)], -1)
        stage1 = stages.FirstStage(base=self.base, resolution=size, name="stage1", **common)
        h = stage1(cond, noise, beside, train=train)
        images, attention = [stages.ToImage(dtype=self.dtype, name="image1")(h)], []
        maps = [seen]
        for i in range(1, self.stages):
            stage = NextStage(
                residuals=self.residuals,
                objects=self.op[i],
                attention_mask=self.attention_mask,
                name=f"stage{i + 1}",
                **common,
                **pathway,
            )
            h, share, seen = stage(h, words, mask, cond, objects, train=train)
            attention.append(share)
            maps.append(seen)
            images.append(stages.ToImage(dtype=self.dtype, name=f"image{i + 1}")(h))
        return Drawn(
            images=tuple(images),
            attention=tuple(attention),
            mean=mean,
            log_variance=log_variance,
            objects=tuple(maps),
        )


def objects_example(classes: int) -> Objects:
    """Shapes of one picture's two objects."""
    shape = jax.ShapeDtypeStruct
    return Objects(
        boxes=shape((1, 2, 4), jnp.float32),
        label=shape((1, 2, classes), jnp.float32),
        mask=shape((1, 2), bool),
    )


# --- Discriminators ------------------------------------------------------------------------------


class Looked(nn.Module):
    """What a discriminator sees of one object: its box's pixels and its class, pasted back.

    Attributes:
      size: of the patch and of the result, pixels.
      widths: channels of each convolution, which takes one pixel off height and width.
      corners: see `objects.sample_matrix`.
      group: of the norms.
      dtype: compute dtype.
    """

    size: int
    widths: tuple[int, ...]
    corners: bool = True
    group: int = 0
    dtype: jnp.dtype = jnp.float32

    @property
    def features(self) -> int:
        """Channels of the result."""
        return self.widths[-1]

    @nn.compact
    def __call__(self, slots, shared, *, train: bool = False) -> jax.Array:
        """Slots and `shared["image"]` [B, R, R, 3] to [N, B, size, size, features]."""
        boxes, mask = slots["boxes"], slots["mask"]
        image = jnp.broadcast_to(shared["image"], (len(mask), *shared["image"].shape))
        cut = resample(image, boxes, self.size, paste=False, corners=self.corners)
        x = jnp.concatenate([cut, spread(slots["label"], self.size).astype(cut.dtype)], -1)
        for i, width in enumerate(self.widths):
            conv = Conv(
                width,
                4,
                pad=1,
                use_bias=False,
                kernel_init=orthogonal(),
                dtype=self.dtype,
                name=f"conv{i}",
            )
            norm = ObjectNorm(group=self.group, name=f"norm{i}")
            x = leaky(norm(by_picture(conv, x), mask, train=train))
        self.sow("intermediates", "seen", x)
        return resample(x, boxes, self.size, paste=True, corners=self.corners)


class ObjectCritic(nn.Module):
    """AttnGAN's discriminator, which also looks into the boxes of the objects.

    Attributes:
      base: channels after the first halving, d.
      resolution: of the pictures, pixels.
      objects: whether there is an object pathway.
      depth: convolutions of the pathway.
      classes: K of the one-hot labels.
      corners: see `objects.sample_matrix`.
      loop, merge: see `objects.EachObject`.
      sentence_dim: S, for `example` alone.
      group: of the batch norms.
      dtype: compute dtype; logits are float32.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    base: int = 96
    resolution: int = 256
    objects: bool = True
    depth: int = 2
    classes: int = 81
    corners: bool = True
    loop: str = "scan"
    merge: str = "over"
    sentence_dim: int = 256
    group: int = 0
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    def setup(self):
        common = {"group": self.group, "dtype": self.dtype}
        self.critic = Critic(
            base=self.base,
            resolution=self.resolution,
            kind="batch",
            sentence_dim=self.sentence_dim,
            remat=self.remat,
            **common,
        )
        if self.objects:
            looked = Looked(
                size=self.resolution // 4,
                widths=(self.base, 2 * self.base)[-self.depth :],
                corners=self.corners,
                **common,
            )
            self.each = EachObject(
                network=looked, loop=self.loop, merge=self.merge, remat=self.remat
            )

    def features(
        self, x: jax.Array, objects: Objects | None = None, *, train: bool = False
    ) -> jax.Array:
        """Pictures [B, R, R, 3] in [-1, 1] and their objects to [B, 4, 4, top]."""
        beside = None
        if self.objects:
            beside = self.each(objects.slots(), {"image": x}, train=train)
        return self.critic.features(x, beside, train=train)

    def alone(self, h: jax.Array) -> jax.Array:
        """Features to logits [B]: is it a picture with these objects?"""
        return self.critic.alone(h)

    def together(self, h: jax.Array, sentence: jax.Array, *, train: bool = False) -> jax.Array:
        """Features and sentence [B, S] to logits [B]: is it a picture of this?"""
        return self.critic.together(h, sentence, train=train)

    def example(self) -> tuple:
        """Inputs that `init` can be traced with."""
        shapes = (1, self.resolution, self.resolution, 3), (1, self.sentence_dim)
        image, sentence = (jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)
        return image, sentence, objects_example(self.classes) if self.objects else None

    def __call__(
        self, x: jax.Array, sentence: jax.Array, objects: Objects | None, *, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """Pictures, sentences and objects to (logits of the picture, logits of the pair)."""
        h = self.features(x, objects, train=train)
        return self.alone(h), self.together(h, sentence, train=train)
