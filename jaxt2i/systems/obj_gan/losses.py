"""Obj-GAN's losses of shapes and of objects; those of patches are `losses.staged`'s.

A discriminator is `functools.partial(ctx, net)` of `networks.Critic`. Objects lie in the places of
their pictures, one picture after the other: [B N, ...]; which of them count says a mask.
Source: jamesli1618/Obj-GAN image_generation/miscc/losses.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import softplus

CONDITIONS = ("first", "own")

Discriminator = Callable[..., jax.Array]
Terms = dict[str, jax.Array]


def mean_of(values: jax.Array, there: jax.Array) -> jax.Array:
    """Mean of [B, h, w] over the examples that count; 0 where none does."""
    share = jnp.where(there, values.mean((1, 2)), 0)
    return share.sum() / jnp.maximum(there.sum(), 1)


def shape_d_loss(
    discriminator: Discriminator,
    real: jax.Array,
    fake: jax.Array,
    maps: jax.Array,
    wrong: jax.Array,
    moved: jax.Array,
) -> tuple[jax.Array, Terms]:
    """The discriminator of pictures with their shapes.

    It should accept real pictures, and refuse drawn ones and real ones in which classes have
    changed places: the mean of both refusals, where there are both.

    Args:
      discriminator: of this picture size.
      real: pictures [B, R, R, 3] in [-1, 1].
      fake: drawn ones, without gradient.
      maps: of both, [B, R, R, K].
      wrong: maps in which classes have changed places.
      moved: bool [B], True where they have.
    """

    def logits(image, maps, there=None):
        h = discriminator(image, maps, None, there, train=True, method="features")
        return discriminator(h, method="alone")

    terms = {
        "real": softplus(-logits(real, maps)).mean(),
        "fake": softplus(logits(fake, maps)).mean(),
        "wrong": mean_of(softplus(logits(real, wrong, moved)), moved),
    }
    refused = jnp.where(moved.any(), (terms["fake"] + terms["wrong"]) / 2, terms["fake"])
    return terms["real"] + refused, terms


class Judged(NamedTuple):
    """The objects that a discriminator judges, and what it is told of them.

    Attributes:
      boxes: [B, N, 4].
      chosen: bool [B N]: those that it looks at.
      names: of their classes, [B N, G].
      codes: what they read of the words, [B, N, g]; without gradient.
    """

    boxes: jax.Array
    chosen: jax.Array
    names: jax.Array
    codes: jax.Array

    @property
    def cond(self) -> jax.Array:
        """Conditions [B N, G + g]."""
        flat = self.codes.reshape(-1, self.codes.shape[-1])
        return jnp.concatenate([self.names, flat], -1).astype(jnp.float32)


def following(chosen: jax.Array, rule: str) -> tuple[jax.Array, jax.Array]:
    """(place of the next object that counts [M], bool [M]: objects that have a next one).

    Args:
      chosen: bool [M].
      rule: see `staged.wrong_pairs`: "shift": the last has none; "roll": the first follows it.
    """
    count = len(chosen)
    at = jnp.where(chosen, jnp.arange(count), count)
    behind = jnp.append(jax.lax.cummin(at[::-1])[::-1][1:], count)
    if rule == "roll":
        behind = jnp.where((behind == count) & (chosen.sum() > 1), at.min(), behind)
    return jnp.minimum(behind, count - 1), chosen & (behind < count)


def moved_condition(judged: Judged, moved: jax.Array, rule: str) -> jax.Array:
    """Conditions [B N, G + g] of objects in pictures whose classes have changed places.

    Args:
      judged: all objects.
      moved: bool [B]: those pictures.
      rule: "own": each object's own. "first", as published: names are those of the first objects
        of the whole batch, and codes those of its first pictures, in order, although pictures
        whose classes stay are left out.
    """
    if rule == "own":
        return judged.cond
    batch, count, _ = judged.codes.shape
    chosen = judged.chosen & jnp.repeat(moved, count)
    order = jnp.argsort(~judged.chosen, stable=True)
    names = judged.names[order[jnp.maximum(jnp.cumsum(chosen) - 1, 0)]]
    codes = judged.codes[jnp.maximum(jnp.cumsum(moved) - 1, 0)]
    return judged._replace(names=names, codes=codes.reshape(batch, count, -1)).cond


def object_d_loss(
    discriminator: Discriminator,
    real: jax.Array,
    fake: jax.Array,
    maps: jax.Array,
    wrong: jax.Array,
    moved: jax.Array,
    judged: Judged,
    *,
    pairs: str = "shift",
    wrong_condition: str = "first",
) -> tuple[jax.Array, Terms]:
    """The discriminator of objects: 0 where it looks at none.

    Args:
      discriminator: of small or of large objects.
      real: pictures [B, R, R, 3] in [-1, 1].
      fake: drawn ones, without gradient.
      maps: of both, [B, R, R, K].
      wrong: maps in which classes have changed places.
      moved: bool [B], True where they have.
      judged: the objects.
      pairs: how objects get the condition of another one; see `following`.
      wrong_condition: see `moved_condition`.
    """
    chosen, cond, boxes = judged.chosen, judged.cond, judged.boxes

    def features(image, maps, there=None):
        return discriminator(image, maps, boxes, there, train=True, method="features")

    def pair(h, cond, there):
        return discriminator(h, cond, there, train=True, method="together")

    def alone(h):
        return discriminator(h, method="alone")

    h, drawn, other = features(real, maps), features(fake, maps), features(real, wrong, moved)
    behind, followed = following(chosen, pairs)
    misplaced = chosen & jnp.repeat(moved, boxes.shape[1])
    elsewhere = moved_condition(judged, moved, wrong_condition)
    terms = {
        "real_pair": mean_of(softplus(-pair(h, cond, chosen)), chosen),
        "fake_pair": mean_of(softplus(pair(drawn, cond, chosen)), chosen),
        "wrong_pair": mean_of(softplus(pair(h, cond[behind], followed)), followed),
        "wrong": mean_of(softplus(pair(other, elsewhere, misplaced)), misplaced),
        "real": mean_of(softplus(-alone(h)), chosen),
        "fake": mean_of(softplus(alone(drawn)), chosen),
    }
    refused = terms["fake"] + terms["fake_pair"] + terms["wrong_pair"] + terms["wrong"]
    value = (terms["real"] + terms["real_pair"]) / 2 + refused / (3 + misplaced.any())
    return jnp.where(chosen.any(), value, 0), terms


def object_g_terms(
    discriminator: Discriminator, image: jax.Array, maps: jax.Array, judged: Judged
) -> tuple[jax.Array, jax.Array]:
    """What it says of drawn objects: (with their conditions, alone)."""
    h = discriminator(image, maps, judged.boxes, train=True, method="features")
    pair = discriminator(h, judged.cond, judged.chosen, train=True, method="together")
    alone = discriminator(h, method="alone")
    return tuple(mean_of(softplus(-x), judged.chosen) for x in (pair, alone))
