"""Networks of layout to image: what objects read, the generator, the discriminator.

The paper (Liang et al. 2022, arXiv 2208.06162) has no public code, and of this stage its abstract
tells the per-object alignment of words and regions alone. The rest follows LostGAN (Sun and Wu
2019, arXiv 1908.07500), its nearest relative: a residual GAN whose norms are painted from object
codes into soft masks. Kernels are orthogonal and spectrally normalised, as there.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from jaxt2i.nn.linear import Linear
from jaxt2i.nn.nearest import resize_nearest
from jaxt2i.nn.norms import BatchNorm, SpectralConv, SpectralDense, orthogonal
from jaxt2i.nn.objects import read_text, resample
from jaxt2i.nn.remat import Policy, recomputed
from jaxt2i.nn.roi_align import cell_align

# Channels behind each of the last six doublings, in units of the full resolution's.
WIDTHS = (16, 8, 8, 4, 2, 1)
MASKS = ("soft", "boxes")
BACKGROUNDS = ("sentence", "none")
OVERLAPS = ("one", "sum")
# LostGAN's: what keeps a division by the sum of masks finite where no object is.
NO_OBJECT = 1e-6


def conv(features: int, size: int, dtype: jnp.dtype, name: str, up: bool = False) -> SpectralConv:
    """A convolution as these networks have them; `up`: of the doubled input."""
    given = {"kernel_size": (size, size), "kernel_init": orthogonal(), "up": up}
    return SpectralConv(features, dtype=dtype, name=name, **given)


def dense(features: int, name: str, use_bias: bool = True, **given) -> SpectralDense:
    """A dense layer as these networks have them."""
    init = orthogonal()
    return SpectralDense(features, use_bias=use_bias, kernel_init=init, name=name, **given)


def halved(x: jax.Array) -> jax.Array:
    """[B, H, W, C] at half the size, means of four."""
    return nn.avg_pool(x, (2, 2), (2, 2))


@flax.struct.dataclass
class Layout:
    """The objects of a batch of pictures, largest first.

    Attributes:
      boxes: [B, N, 4], x, y, width, height, fractions of the picture.
      label: int [B, N].
      mask: bool [B, N], True where there is an object.
    """

    boxes: jax.Array
    label: jax.Array
    mask: jax.Array

    @classmethod
    def example(cls) -> "Layout":
        """Shapes of one picture's two objects."""
        shape = jax.ShapeDtypeStruct
        return cls(
            boxes=shape((1, 2, 4), jnp.float32),
            label=shape((1, 2), jnp.int32),
            mask=shape((1, 2), bool),
        )


# --- What objects read ---------------------------------------------------------------------------


@flax.struct.dataclass
class Told:
    """What is known of each object.

    Attributes:
      label: [B, N, E], its class, embedded.
      text: [B, N, S], what it found in the words.
      share: [B, N, T], how much of it came from which word.
    """

    label: jax.Array
    text: jax.Array
    share: jax.Array


class Reader(nn.Module):
    """Objects ask the words of their caption, and regions are brought to where those lie.

    Attributes:
      classes: of objects.
      label_dim: E, of an embedded class.
      box_dim: of an embedded box.
      words_dim: S, of the words.
      seen_dim: of what a discriminator makes of a region.
    """

    classes: int = 80
    label_dim: int = 128
    box_dim: int = 64
    words_dim: int = 256
    seen_dim: int = 512

    def setup(self):
        self.label = nn.Embed(
            self.classes, self.label_dim, embedding_init=nn.initializers.normal(1.0)
        )
        self.box = nn.Sequential([Linear(self.box_dim), nn.relu, Linear(self.box_dim)])
        self.query = Linear(self.words_dim)
        self.region = Linear(self.words_dim)

    def example(self) -> tuple:
        """Inputs that `init` can be traced with."""
        shape = jax.ShapeDtypeStruct
        words, mask = shape((1, 3, self.words_dim), jnp.float32), shape((1, 3), bool)
        return Layout.example(), words, mask

    def regions(self, seen: jax.Array) -> jax.Array:
        """Regions as a discriminator sees them [B, N, O] in the words' space [B, N, S]."""
        return self.region(seen)

    def __call__(self, layout: Layout, words: jax.Array, mask: jax.Array) -> Told:
        """Reads.

        Args:
          layout: the objects.
          words: [B, T, S].
          mask: bool [B, T], True at words.
        """
        if self.is_initializing():
            self.regions(jnp.zeros((1, 1, self.seen_dim)))
        label = self.label(layout.label)
        at, extent = layout.boxes[..., :2], layout.boxes[..., 2:]
        box = self.box(jnp.concatenate([at + extent / 2, extent], -1))
        query = self.query(jnp.concatenate([label, box], -1))
        share, text = read_text(query, words, mask)
        return Told(label=label, text=text, share=share)


# --- Generator -----------------------------------------------------------------------------------


class MaskNet(nn.Module):
    """Object codes to soft masks, each in the frame of its box.

    Attributes:
      size: of the masks, pixels, 4 times a power of two.
      features: channels of its maps.
      dtype: compute dtype; masks are float32.
    """

    size: int = 16
    features: int = 128
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, code: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, N, W] to [B, N, size, size] in (0, 1)."""
        batch, count, _ = code.shape
        x = dense(16 * self.features, "start", dtype=self.dtype)(code, train=train)
        x = x.reshape(batch * count, 4, 4, self.features)
        for i in range((self.size // 4).bit_length() - 1):
            layer = conv(self.features, 3, self.dtype, f"conv{i}", up=True)
            x = layer(nn.relu(x), train=train)
        x = conv(1, 3, self.dtype, "mask")(nn.relu(x), train=train)
        x = nn.sigmoid(x.astype(jnp.float32))
        return x.reshape(batch, count, self.size, self.size)


def covers(masks: jax.Array, layout: Layout, size: int) -> dict[int, jax.Array]:
    """Masks [B, N, m, m] pasted into their boxes: {pixels: [B, N, pixels, pixels]} down to 4.

    Where no object is there are zeros. Smaller ones are means, so that a box between two pixels of
    a coarse map still shows there.
    """
    full = resample(masks[..., None], layout.boxes, size, paste=True, corners=False)[..., 0]
    found = {size: jnp.where(layout.mask[..., None, None], full, 0)}
    while size > 4:
        x = found[size]
        size //= 2
        found[size] = x.reshape(*x.shape[:2], size, 2, size, 2).mean((3, 5))
    return found


def shares(cover: jax.Array, overlap: str) -> jax.Array:
    """What each object has of a place's scale and bias; the background has the rest.

    Args:
      cover: [B, N, H, H], in [0, 1].
      overlap: see `LayoutNorm`.

    Returns:
      [B, N, H, H], which sum to at most 1 over objects.
    """
    total = cover.sum(1, keepdims=True)
    return cover / (jnp.maximum(total, 1) if overlap == "one" else total + NO_OBJECT)


class LayoutNorm(nn.Module):
    """Batch norm whose scales and biases are painted: an object's into its mask.

    Where masks overlap, scales and biases are averaged by mask; what they leave free is the
    background's.

    Attributes:
      background: "sentence": scale and bias of the background come from the caption; "none": there
        they are 1 and 0.
      overlap: what masks are divided by: "one": their sum where that is above 1, so that a faint
        mask leaves the rest to the background; "sum": always their sum, so that objects have all
        of a place, however faint their masks are, and masks decide only between objects.
      group: of the batch norm.
      dtype: compute dtype.
    """

    background: str = "sentence"
    overlap: str = "one"
    group: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, code, sentence, cover, *, train: bool = False) -> jax.Array:
        """Normalises and paints.

        Args:
          x: [B, H, H, C].
          code: [B, N, W], of the objects.
          sentence: [B, S].
          cover: [B, N, H, H], in [0, 1], zeros where no object is.
          train: see `BatchNorm`.
        """
        width = 2 * x.shape[-1]
        h = BatchNorm(affine=False, group=self.group, name="norm")(x, train=train)
        own = Linear(width, dtype=self.dtype, name="objects")(code)
        share = shares(cover, self.overlap)
        both = jnp.einsum("bnhw,bnc->bhwc", share.astype(self.dtype), own)
        if self.background == "sentence":
            behind = Linear(width, dtype=self.dtype, name="background")(sentence)[:, None, None]
            free = jnp.maximum(1 - share.sum(1), 0)[..., None]
            both = both + free.astype(self.dtype) * behind
        scale, bias = jnp.split(both, 2, -1)
        return (1 + scale) * h + bias


class UpBlock(nn.Module):
    """Twice the size: a residual of two painted norms and convolutions.

    A convolution of one pixel and the doubling commute; this order needs a quarter of the products.

    Attributes:
      features: output channels.
      background, overlap, group, dtype: see `LayoutNorm`.
    """

    features: int
    background: str = "sentence"
    overlap: str = "one"
    group: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, code, sentence, small, large, *, train: bool = False) -> jax.Array:
        """X [B, H, H, C] with the covers of H and 2H pixels to [B, 2H, 2H, features]."""

        def painted(h, cover, name: str) -> jax.Array:
            norm = LayoutNorm(
                background=self.background,
                overlap=self.overlap,
                group=self.group,
                dtype=self.dtype,
                name=name,
            )
            return nn.relu(norm(h, code, sentence, cover, train=train))

        h = painted(x, small, "norm1")
        h = conv(self.features, 3, self.dtype, "conv1", up=True)(h, train=train)
        h = conv(self.features, 3, self.dtype, "conv2")(painted(h, large, "norm2"), train=train)
        x = conv(self.features, 1, self.dtype, "shortcut")(x, train=train)
        return h + resize_nearest(x, 2 * x.shape[1])


@flax.struct.dataclass
class Drawn:
    """What a generator draws.

    Attributes:
      image: [B, R, R, 3] in (-1, 1), float32.
      masks: [B, N, R, R] in [0, 1], of the objects; zeros where there is none.
    """

    image: jax.Array
    masks: jax.Array


class Generator(nn.Module):
    """Latents, a sentence and objects to a picture.

    Attributes:
      base: channels at the full resolution, ngf.
      resolution: of the pictures, pixels, a power of two from 8 to 256.
      text_dim: to which what an object has read is brought.
      masks: "soft": drawn by a network; "boxes": the whole of each box.
      mask_size, mask_features: see `MaskNet`.
      background, overlap: see `LayoutNorm`.
      z_dim, local_dim, sentence_dim, label_dim: widths of the inputs, for `example` alone.
      group: of the batch norms.
      dtype: compute dtype; pictures are float32.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    base: int = 64
    resolution: int = 256
    text_dim: int = 128
    masks: str = "soft"
    mask_size: int = 16
    mask_features: int = 128
    background: str = "sentence"
    overlap: str = "one"
    z_dim: int = 128
    local_dim: int = 128
    sentence_dim: int = 256
    label_dim: int = 128
    group: int = 0
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    def example(self) -> tuple:
        """Inputs that `init` can be traced with."""
        shape = jax.ShapeDtypeStruct
        wide = self.z_dim, 2 * self.local_dim, self.sentence_dim
        z, local, sentence = (shape((1, n), jnp.float32) for n in wide)
        local = shape((1, 2, self.local_dim), jnp.float32)
        told = Told(
            label=shape((1, 2, self.label_dim), jnp.float32),
            text=shape((1, 2, self.sentence_dim), jnp.float32),
            share=shape((1, 2, 3), jnp.float32),
        )
        return z, local, sentence, told, Layout.example()

    @nn.compact
    def __call__(
        self, z, local, sentence, told: Told, layout: Layout, *, train: bool = False
    ) -> Drawn:
        """Draws.

        Args:
          z: [B, Z] ~ N(0, I).
          local: [B, N, L] ~ N(0, I), the objects' own.
          sentence: [B, S].
          told: of the objects.
          layout: where they are.
          train: normalise by the batch's statistics and move the running ones.
        """
        read = Linear(self.text_dim, dtype=self.dtype, name="text")(told.text)
        code = jnp.concatenate([told.label.astype(read.dtype), read, local.astype(read.dtype)], -1)
        cover = covers(self._masks(code, train), layout, self.resolution)
        widths = WIDTHS[-((self.resolution // 4).bit_length() - 1) :]
        start = dense(16 * widths[0] * self.base, "start", dtype=self.dtype)
        x = start(jnp.concatenate([z, sentence], -1), train=train)
        x = x.reshape(len(z), 4, 4, widths[0] * self.base)
        for i, width in enumerate(widths):
            size = x.shape[1]
            block = UpBlock(
                width * self.base,
                background=self.background,
                overlap=self.overlap,
                group=self.group,
                dtype=self.dtype,
                name=f"block{i}",
            )
            both = cover[size], cover[2 * size]
            x = recomputed(self.remat, block, x, code, sentence, *both, train=train)
        x = nn.relu(BatchNorm(group=self.group, name="norm")(x, train=train))
        x = conv(3, 3, self.dtype, "to_rgb")(x, train=train)
        return Drawn(image=jnp.tanh(x.astype(jnp.float32)), masks=cover[self.resolution])

    def _masks(self, code: jax.Array, train: bool) -> jax.Array:
        """Each object's mask in the frame of its box, [B, N, m, m]."""
        if self.masks == "boxes":
            return jnp.ones((*code.shape[:2], self.mask_size, self.mask_size))
        net = MaskNet(
            size=self.mask_size, features=self.mask_features, dtype=self.dtype, name="masks"
        )
        return net(code, train=train)


# --- Discriminator -------------------------------------------------------------------------------


class DownBlock(nn.Module):
    """A residual of two convolutions, perhaps at half the size.

    Pooling and a convolution of one pixel commute; this order needs a quarter of the products.

    Attributes:
      features: output channels.
      down: halve the size.
      first: no ReLU before it: it sees a picture.
      dtype: compute dtype.
    """

    features: int
    down: bool = True
    first: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, H, C] to [B, H', H', features]."""
        h = x if self.first else nn.relu(x)
        h = nn.relu(conv(self.features, 3, self.dtype, "conv1")(h, train=train))
        h = conv(self.features, 3, self.dtype, "conv2")(h, train=train)
        if self.down:
            h, x = halved(h), halved(x)
        if self.down or x.shape[-1] != self.features:
            x = conv(self.features, 1, self.dtype, "shortcut")(x, train=train)
        return h + x


@flax.struct.dataclass
class Judged:
    """What a discriminator says.

    Attributes:
      image: logits [B], of pictures with their sentences.
      objects: logits [B, N], of objects with their classes.
      seen: [B, N, O], what it makes of each object.
    """

    image: jax.Array
    objects: jax.Array
    seen: jax.Array


class Critic(nn.Module):
    """Judges a picture beside its sentence, and each object beside its class.

    Attributes:
      base: channels after the first halving, ndf; at most 16 times as many.
      resolution: of the pictures, pixels.
      grid: size at which it ends, pixels.
      small_stride, large_stride: halvings, as factors, behind which small and large objects are
        read.
      small_side: objects both of whose sides are shorter are small, fractions of the picture.
      roi_size, roi_points: see `cell_align`.
      classes: of objects.
      sentence_dim: S, for `example` alone.
      dtype: compute dtype; logits are float32.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    base: int = 64
    resolution: int = 256
    grid: int = 8
    small_stride: int = 4
    large_stride: int = 8
    small_side: float = 0.25
    roi_size: int = 8
    roi_points: int = 2
    classes: int = 80
    sentence_dim: int = 256
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    @property
    def seen_dim(self) -> int:
        """O, of what it makes of an object."""
        return 8 * self.base

    def example(self) -> tuple:
        """Inputs that `init` can be traced with."""
        shapes = (1, self.resolution, self.resolution, 3), (1, self.sentence_dim)
        image, sentence = (jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)
        return image, sentence, Layout.example()

    @nn.compact
    def __call__(self, image, sentence, layout: Layout, *, train: bool = False) -> Judged:
        """Judges.

        Args:
          image: [B, R, R, 3] in [-1, 1].
          sentence: [B, S].
          layout: its objects.
          train: run the power iterations.
        """
        maps, x = {}, image.astype(self.dtype)
        for i in range((self.resolution // self.grid).bit_length() - 1):
            width = self.base * min(2**i, 16)
            block = DownBlock(width, first=not i, dtype=self.dtype, name=f"block{i}")
            x = recomputed(self.remat, block, x, train=train)
            maps[2 ** (i + 1)] = x
        top = nn.relu(x).astype(jnp.float32).sum((1, 2))
        match = dense(top.shape[-1], "sentence", use_bias=False)(sentence, train=train)
        logit = dense(1, "image")(top, train=train)[:, 0] + (match * top).sum(-1)
        objects, seen = self._objects(maps, layout, train)
        return Judged(image=logit, objects=objects, seen=seen)

    def _objects(self, maps, layout: Layout, train: bool) -> tuple[jax.Array, jax.Array]:
        """(logits [B, N], what it makes of objects [B, N, O])."""
        batch, count, _ = layout.boxes.shape
        reads = {"size": self.roi_size, "points": self.roi_points}
        small, large = (
            cell_align(maps[stride], layout.boxes, **reads).reshape(
                batch * count, self.roi_size, self.roi_size, -1
            )
            for stride in (self.small_stride, self.large_stride)
        )
        small = conv(large.shape[-1], 1, self.dtype, "widen")(small, train=train)
        is_small = (layout.boxes[..., 2:] < self.small_side).all(-1).reshape(-1, 1, 1, 1)
        x = jnp.where(is_small, small, large)
        for i, width in enumerate((x.shape[-1], self.seen_dim)):
            block = DownBlock(width, down=i > 0, dtype=self.dtype, name=f"object{i}")
            x = recomputed(self.remat, block, x, train=train)
        seen = nn.relu(x).astype(jnp.float32).sum((1, 2))
        one_hot = jax.nn.one_hot(layout.label, self.classes).reshape(batch * count, -1)
        match = dense(self.seen_dim, "label", use_bias=False)(one_hot, train=train)
        logit = dense(1, "object")(seen, train=train)[:, 0] + (match * seen).sum(-1)
        return logit.reshape(batch, count), seen.reshape(batch, count, -1)
