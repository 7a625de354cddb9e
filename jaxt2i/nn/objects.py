"""Objects in pictures: cut out of their boxes, worked on one by one, pasted back and merged.

Boxes are x, y, width, height, top-left first, fractions of the picture. An axis-aligned box makes
of PyTorch's affine_grid and grid_sample two small matrices, one an axis, so that cutting and
pasting are products, which gather nothing. Where objects lie along an axis of their own, it comes
first: [N, B, ...].
"""

from collections.abc import Mapping

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.nn.norms import groups_of
from jaxt2i.nn.remat import Policy
from jaxt2i.nn.stages import around_one, conv3, glu

LOOPS = ("scan", "all")
MERGES = ("over", "sum")
# Where a box that is none lies: outside of everything, in both directions.
NOWHERE = -1.0


@flax.struct.dataclass
class Objects:
    """The objects of a batch of pictures.

    Attributes:
      boxes: [B, N, 4]; anything where there is no object.
      label: one-hot [B, N, K].
      mask: bool [B, N], True where there is an object.
    """

    boxes: jax.Array
    label: jax.Array
    mask: jax.Array

    def slots(self) -> dict[str, jax.Array]:
        """{"boxes", "label", "mask"}, objects first: [N, B, ...]; boxes of none lie nowhere."""
        boxes = jnp.where(self.mask[..., None], self.boxes, NOWHERE)
        own = {"boxes": boxes, "label": self.label, "mask": self.mask}
        return {name: jnp.swapaxes(x, 0, 1) for name, x in own.items()}


# --- Boxes as resampling matrices ----------------------------------------------------------------


def affine(boxes: jax.Array, *, paste: bool) -> tuple[jax.Array, jax.Array]:
    """(scale, shift) [..., 2] (across, down) of the affine map of a box, in -1 .. 1 coordinates.

    Args:
      boxes: [..., 4].
      paste: from the picture to a map that fills the box; else from a map to the picture.
    """
    at, extent = boxes[..., :2], boxes[..., 2:]
    if paste:
        return 1 / extent, (2 / extent) * (0.5 - at - extent / 2)
    return extent, 2 * (at + extent / 2 - 0.5)


def sample_matrix(
    scale: jax.Array, shift: jax.Array, out: int, size: int, corners: bool
) -> jax.Array:
    """Bilinear sampling with zeros around, along one axis, as matrices [..., out, size].

    Args:
      scale: [...], of the map from target to source, both in -1 .. 1.
      shift: [...].
      out: pixels of the target.
      size: pixels of the source.
      corners: -1 and 1 are the centres of the first and last pixels (align_corners=True), else
        their outer borders.
    """
    target = np.linspace(-1, 1, out) if out > 1 else np.zeros(1)
    if not corners:
        target = target * (out - 1) / out
    at = scale[..., None] * target.astype(np.float32) + shift[..., None]  # [..., out]
    at = (at + 1) * (0.5 * (size - 1)) if corners else ((at + 1) * size - 1) / 2
    low = jnp.floor(at)
    source = jnp.arange(size, dtype=at.dtype)
    at, low = at[..., None], low[..., None]
    before = jnp.where(source == low, low + 1 - at, 0)
    return before + jnp.where(source == low + 1, at - low, 0)


def resample(x: jax.Array, boxes: jax.Array, out: int, *, paste: bool, corners: bool) -> jax.Array:
    """Cuts what lies in a box out of features, or pastes features into it; 0 outside.

    Args:
      x: [..., H, H, C].
      boxes: [..., 4].
      out: height and width of the result, pixels.
      paste: see `affine`.
      corners: see `sample_matrix`.

    Returns:
      [..., out, out, C], of x's dtype.

    Source: Jaderberg et al. 2015 (arXiv 1506.02025), PyTorch's affine_grid and grid_sample.
    """
    size = x.shape[-2]
    scale, shift = affine(boxes, paste=paste)
    both = sample_matrix(scale, shift, out, size, corners).astype(x.dtype)  # [..., 2, out, size]
    x = jnp.einsum("...ih,...hwc->...iwc", both[..., 1, :, :], x)
    return jnp.einsum("...jw,...iwc->...ijc", both[..., 0, :, :], x)


def coverage(boxes: jax.Array, out: int, size: int, corners: bool) -> tuple[jax.Array, jax.Array]:
    """What pasting a map of ones [size, size] gives, as (down, across) [..., out] to multiply."""
    scale, shift = affine(boxes, paste=True)
    both = sample_matrix(scale, shift, out, size, corners).sum(-1)
    return both[..., 1, :], both[..., 0, :]


def merged(before: jax.Array, new: jax.Array, rule: str) -> jax.Array:
    """A map with one more object on it.

    Args:
      before: [..., C], of the objects before.
      new: of the same shape.
      rule: "over": what is not exactly 0 covers what was there, number by number; "sum".
    """
    return before + new if rule == "sum" else jnp.where(new != 0, new, before)


def mean_over(values: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean of the objects' values [B, N] over those that are there, float32; 0 if none is."""
    values = jnp.where(mask, values.astype(jnp.float32), 0)
    return values.sum() / jnp.maximum(mask.sum(), 1)


def read_text(queries: jax.Array, words: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What each object finds in the words of its caption: attention by scaled products.

    Args:
      queries: [B, N, S].
      words: [B, T, S].
      mask: bool [B, T], True at words.

    Returns:
      (shares [B, N, T], a distribution over the words; text [B, N, S]), float32.
    """
    queries, words = queries.astype(jnp.float32), words.astype(jnp.float32)
    scores = jnp.einsum("bns,bts->bnt", queries, words) / words.shape[-1] ** 0.5
    share = jax.nn.softmax(jnp.where(mask[:, None], scores, -jnp.inf), -1)
    return share, jnp.einsum("bnt,bts->bns", share, words)


# --- Layers --------------------------------------------------------------------------------------


class ObjectNorm(nn.Module):
    """Batch norm whose statistics are those of one object index; rows without one do not count.

    The running statistics move once for each index that any picture has, in order, as if the layer
    were called for one object after the other. Arrays have `BatchNorm`'s names.

    Attributes:
      momentum: share of the new statistics in the running ones.
      eps: added to the variance.
      group: pictures that are normalised together in training; 0 = the whole batch.
    """

    momentum: float = 0.1
    eps: float = 1e-5
    group: int = 0

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool = False) -> jax.Array:
        """[N, B, ..., C] and bool [N, B] to the same shape and dtype; statistics are float32.

        Raises:
          ValueError: in training, where `group` does not divide B.
        """
        count, batch, *_, channels = x.shape
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        h = x.astype(jnp.float32)
        m, v = mean.value, var.value
        if train:
            parts = groups_of(batch, self.group, self.is_initializing())
            h = h.reshape(count, parts, batch // parts, -1, channels)
            there = mask.reshape(count, parts, batch // parts, 1, 1).astype(jnp.float32)
            rows = there.sum((2, 3, 4)) * h.shape[3]  # [N, parts]
            at_least_one = jnp.maximum(rows, 1)[..., None, None, None]
            m = (h * there).sum((2, 3), keepdims=True) / at_least_one
            v = (jnp.square(h - m) * there).sum((2, 3), keepdims=True) / at_least_one
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                unbiased = v * (at_least_one / jnp.maximum(at_least_one - 1, 1))
                mean.value = self._moved(mean.value, m, rows)
                var.value = self._moved(var.value, unbiased, rows)
        h = ((h - m) * jax.lax.rsqrt(v + self.eps)).reshape(x.shape)
        h = h * self.param("scale", around_one, (channels,))
        h = h + self.param("bias", nn.initializers.zeros, (channels,))
        return h.astype(x.dtype)

    def _moved(self, running: jax.Array, new: jax.Array, rows: jax.Array) -> jax.Array:
        """Running statistics [C] after those of every index [N, parts, 1, 1, C], one by one."""
        there = (rows > 0).astype(jnp.float32)  # [N, parts]
        new = new.reshape(*rows.shape, -1)
        new = (new * there[..., None]).sum(1) / jnp.maximum(there.sum(1), 1)[:, None]
        used = there.max(1)
        later = jnp.cumsum(used[::-1])[::-1] - used  # indices that come after each
        share = used * self.momentum * (1 - self.momentum) ** later
        return (1 - self.momentum) ** used.sum() * running + share @ new


def by_picture(layer: nn.Module, x: jax.Array) -> jax.Array:
    """A layer of [B, ...] on [N, B, ...]."""
    y = layer(x.reshape(-1, *x.shape[2:]))
    return y.reshape(*x.shape[:2], *y.shape[1:])


class ObjectUp(nn.Module):
    """`stages.Up` of objects: twice the size, convolution, norm by object index, gate.

    Attributes:
      features: output channels.
      group: of the norm.
      dtype: compute dtype.
    """

    features: int
    group: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool = False) -> jax.Array:
        """[N, B, H, H, C] to [N, B, 2H, 2H, features]."""
        x = by_picture(conv3(2 * self.features, self.dtype, "conv", up=True), x)
        return glu(ObjectNorm(group=self.group, name="norm")(x, mask, train=train))


class EachObject(nn.Module):
    """One network for all objects; what it makes of each is merged in their order.

    Attributes:
      network: (slots, shared, train=) -> maps [N, B, H, H, C]; says its `size` H, `features` C and
        `dtype`.
      loop: "scan": one object after the other; an index that no picture has costs nothing; "all":
        at once.
      merge: see `merged`.
      remat: what each object's pass keeps for the backward pass; see `remat.POLICIES`.
    """

    network: nn.Module
    loop: str = "scan"
    merge: str = "over"
    remat: Policy = None

    @nn.compact
    def __call__(self, slots: Mapping, shared: Mapping, *, train: bool = False) -> jax.Array:
        """The merged map [B, H, H, C], zeros where no object is.

        Args:
          slots: {name: [N, B, ...]}, "mask" among them, what each object has of its own.
          shared: {name: [B, ...]}, what all objects of a picture share.
          train: see `ObjectNorm`.
        """
        net = self.network
        _, batch = slots["mask"].shape
        blank = jnp.zeros((batch, net.size, net.size, net.features), net.dtype)

        def play(net, slots):
            return net(slots, shared, train=train)

        if self.remat is not None:
            play = nn.remat(play, policy=self.remat)

        def onto(before, new):
            return merged(before, new, self.merge), None

        if self.loop == "all" or self.is_initializing():
            return jax.lax.scan(onto, blank, play(net, slots))[0]

        def draw(net, before, one):
            return merged(before, play(net, one)[0], self.merge)

        def turn(net, before, one):
            used = one.pop("used")
            one = {name: x[None] for name, x in one.items()}
            # Who looks inside has to see every object.
            if net.is_mutable_collection("intermediates"):
                return draw(net, before, one), None
            return nn.cond(used, draw, lambda net, before, one: before, net, before, one), None

        moving = train and self.is_mutable_collection("batch_stats")
        moves = {"variable_carry": "batch_stats"} if moving else {}
        fixed = "params" if moving else ("params", "batch_stats")
        loop = nn.scan(
            turn,
            variable_broadcast=fixed,
            variable_axes={"intermediates": 0},
            split_rngs={"params": False},
            **moves,
        )
        return loop(net, blank, {**slots, "used": slots["mask"].any(1)})[0]
