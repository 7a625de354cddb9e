"""The Layout Quality Score (LQS) of layout bridging (Liang et al. 2022, arXiv 2208.06162).

How well a predicted layout agrees with the true one: recall and precision of objects, where
matched objects lie, and how large they are, both absolute and against each other. 0 to 4, higher is
better. The authors published no code; the components and their constants are those of a public
reimplementation, which exists in two readings (see `quality`), and are arguments here.

Layouts are padded arrays, so that whole data sets are scored at once and also on the device.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxt2i.metrics import confidence
from jaxt2i.metrics.score import CountError, MetricError, Score

READINGS = ("instance", "label_set")
# Constants of `quality`, as the reimplementation has them but for its image_area, which is 80.
CONSTANTS = {"image_area": 1.0, "sigma": 1.0, "gamma_lc": 0.25, "gamma_ac": 0.25}


class Layout(NamedTuple):
    """Objects of a picture, or of each of several.

    Attributes:
      boxes: [..., N, 4], x, y, w, h in fractions of the picture.
      label: int [..., N], classes.
      there: bool [..., N], False where there is no object.
    """

    boxes: jax.Array
    label: jax.Array
    there: jax.Array


class Quality(NamedTuple):
    """The score and what it is made of.

    Attributes:
      lr, lp: recall and precision of objects.
      alc, rlc: mean distance of centres, and of vectors between centres.
      lc: location consistency, made of both.
      aac, rac: consistency of areas, and of which of two is the larger.
      ac: area consistency, made of both.
      lqs: lr + lp + lc + ac.
    """

    lr: jax.Array
    lp: jax.Array
    alc: jax.Array
    rlc: jax.Array
    lc: jax.Array
    aac: jax.Array
    rac: jax.Array
    ac: jax.Array
    lqs: jax.Array


def matched(true: Layout, predicted: Layout) -> tuple[jax.Array, jax.Array]:
    """Which predicted object stands for each true one.

    Within every class as many pairs as there can be, such that the distances of their centres have
    the least sum.

    Args:
      true: one layout of N objects.
      predicted: one of M.

    Returns:
      (int [N], the partner of each true object; bool [N], whether it has one).
    """
    count = max(len(true.label), len(predicted.label))
    distance = jnp.linalg.norm(_centre(true)[:, None] - _centre(predicted)[None], axis=-1)
    same = (true.label[:, None] == predicted.label[None]) & true.there[:, None] & predicted.there
    # One more pair is worth more than any distances, whose sum is smaller than this.
    apart = 2.0 * count + 2
    cost = (
        jnp.full((count, count), apart)
        .at[: same.shape[0], : same.shape[1]]
        .set(jnp.where(same, distance, apart))
    )
    row, column = optax.assignment.hungarian_algorithm(cost)
    partner = jnp.zeros(count, jnp.int32).at[row].set(column.astype(jnp.int32))
    partner = partner[: len(true.label)]
    valid = partner < len(predicted.label)
    partner = jnp.where(valid, partner, 0)
    return partner, valid & jnp.take_along_axis(same, partner[:, None], 1)[:, 0]


def quality(
    true: Layout,
    predicted: Layout,
    *,
    reading: str = "instance",
    image_area: float = CONSTANTS["image_area"],
    sigma: float = CONSTANTS["sigma"],
    gamma_lc: float = CONSTANTS["gamma_lc"],
    gamma_ac: float = CONSTANTS["gamma_ac"],
) -> Quality:
    """The score of one predicted layout.

    Args:
      true: the picture's own layout.
      predicted: what is judged; it may hold another number of objects.
      reading: of recall and precision: "instance" counts matched objects among all objects;
        "label_set" counts classes that both have among the classes of each.
      image_area: what areas of boxes are divided by. 1 fits boxes in fractions; the 80 of the
        reimplementation makes the absolute part 1 for every layout.
      sigma: of the exponentials of distances, which enter unsquared.
      gamma_lc: share of absolute places in the location consistency; the rest is relative.
      gamma_ac: the same of areas.

    Returns:
      float32 scalars. Without a pair both consistencies are 0; of a single pair the relative parts
      are perfect. A share of no objects is 0.

    Raises:
      MetricError: for an unknown reading.
    """
    if reading not in READINGS:
        raise MetricError(f"reading={reading!r}; expected one of {', '.join(READINGS)}")
    partner, paired = matched(true, predicted)
    count, pair = paired.sum(), paired[:, None] & paired[None]
    pair &= jnp.arange(len(paired))[:, None] < jnp.arange(len(paired))
    pairs = pair.sum()

    def mean(values: jax.Array, of: jax.Array, none: float) -> jax.Array:
        total = of.sum()
        return jnp.where(total, jnp.where(of, values, 0).sum() / jnp.maximum(total, 1), none)

    a, b = _centre(true), _centre(predicted)[partner]
    alc = mean(jnp.linalg.norm(a - b, axis=-1), paired, 0.0)
    between = (a[:, None] - a[None]) - (b[:, None] - b[None])
    rlc = mean(jnp.linalg.norm(between, axis=-1), pair, 0.0)
    fall = lambda x: jnp.exp(-x / (2 * sigma**2))  # noqa: E731
    lc = gamma_lc * fall(alc) + (1 - gamma_lc) * fall(rlc)
    size, other = _area(true), _area(predicted)[partner]
    aac = 1 - mean(jnp.abs(other - size), paired, 0.0) / image_area
    larger = (size[:, None] > size[None]) == (other[:, None] > other[None])
    rac = jnp.where(pairs, mean(larger, pair, 0.0), 1.0)
    ac = gamma_ac * aac + (1 - gamma_ac) * rac
    lc, aac, rac, ac = (jnp.where(count, x, 0.0) for x in (lc, aac, rac, ac))
    lr, lp = _shares(true, predicted, count, reading)
    return Quality(lr, lp, alc, rlc, lc, aac, rac, ac, lr + lp + lc + ac)


def _centre(layout: Layout) -> jax.Array:
    return layout.boxes[..., :2] + layout.boxes[..., 2:] / 2


def _area(layout: Layout) -> jax.Array:
    return layout.boxes[..., 2] * layout.boxes[..., 3]


def _shares(true: Layout, predicted: Layout, pairs: jax.Array, reading: str):
    """Recall and precision."""
    if reading == "instance":
        both, sizes = pairs, (true.there.sum(), predicted.there.sum())
    else:
        # Every class is counted where it stands first.
        first = [_first(x) for x in (true, predicted)]
        shared = true.label[:, None] == predicted.label[None]
        both = (shared & predicted.there).any(-1) & first[0]
        both, sizes = both.sum(), tuple(x.sum() for x in first)
    return tuple(both / jnp.maximum(size, 1) for size in sizes)


def _first(layout: Layout) -> jax.Array:
    """Bool [N], whether an object is the first of its class."""
    same = layout.label[:, None] == layout.label[None]
    earlier = jnp.tril(jnp.ones(same.shape, bool), -1)
    return layout.there & ~(same & earlier & layout.there).any(-1)


def qualities(true: Layout, predicted: Layout, **constants: float | str) -> Quality:
    """`quality` of each of [B, ...] layouts: arrays [B]."""
    return jax.vmap(functools.partial(quality, **constants))(true, predicted)


def dataset(
    true: Layout,
    predicted: Layout,
    *,
    intervals: bool = True,
    seed: int = 0,
    **constants: float | str,
) -> tuple[Score, Quality]:
    """The mean over captions, each against its own picture's layout, with a bootstrap interval.

    Args:
      true: [B, N, ...]; pictures without objects are left out, and counted.
      predicted: [B, M, ...].
      intervals: whether to resample.
      seed: of the resamples.
      constants: of `quality`.

    Returns:
      (the score, with all components among its facts; the parts of every caption that counts).

    Raises:
      CountError: where no picture has an object.
    """
    kept = np.asarray(true.there).any(1)
    if not kept.any():
        raise CountError("lqs compares with the objects of pictures, and none of these has any")
    rows = jax.tree.map(lambda x: np.asarray(x)[kept], (true, predicted))
    each = jax.device_get(jax.jit(functools.partial(qualities, **constants))(*rows))
    parts = {name: float(values.mean()) for name, values in each._asdict().items()}
    value = parts.pop("lqs")
    facts = {"captions": int(kept.sum()), **constants, **parts}
    if empty := int((~kept).sum()):
        facts["pictures_without_objects"] = empty
    score = Score("lqs", value, facts=facts)
    if intervals and kept.sum() > 1:
        score = score.with_interval(confidence.of_mean(each.lqs, seed=seed))
    return score, each
