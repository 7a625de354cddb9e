"""Nearest neighbours among features, block by block, and whether a model has memorised.

Blocks of distances are computed on the default device and never kept: 50,000 by 50,000 takes no
more memory than one block.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.metrics.score import CountError, FeatureError, Score, check_features, unit_rows

# Rows of one block: 4096 x 4096 float32 are 64 MiB.
BLOCK = 4096
# Squared distances below this share of |a|^2 + |b|^2 are the rounding of the products, not
# distances: copies of one picture are to be at distance 0 of each other.
ROUNDING = 1e-6
METRICS = ("euclidean", "cosine")


class Neighbours(NamedTuple):
    """The nearest rows of a bank.

    Attributes:
      distance: [Q, k], rising.
      index: [Q, k], rows of the bank.
    """

    distance: np.ndarray
    index: np.ndarray


def distances(a: jax.Array, b: jax.Array) -> jax.Array:
    """Euclidean distances [A, B] of rows, float32."""
    gram = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    size = jnp.square(a).sum(1)[:, None] + jnp.square(b).sum(1)
    squared = size - 2 * gram
    return jnp.sqrt(jnp.where(squared > ROUNDING * size, squared, 0))


def cut(x: np.ndarray, block: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """(first row, rows, block) of equal blocks; the last one is filled up with zeros."""
    size = min(block, len(x))
    for at in range(0, len(x), size):
        part = x[at : at + size]
        number = len(part)
        if number < size:
            part = np.concatenate([part, np.zeros((size - number, *x.shape[1:]), x.dtype)])
        yield at, number, part


def centred(*sets: np.ndarray) -> list[np.ndarray]:
    """Sets moved together so that the first has its mean at 0, float32; distances stay.

    A mean that is large beside the spread would otherwise eat the digits of |a|^2 + |b|^2 - 2 ab.
    """
    mean = sets[0].mean(0, dtype=np.float64)
    return [(x - mean).astype(np.float32) for x in sets]


@partial(jax.jit, static_argnames=("apart",))
def _closer(best: Neighbours, query, at, bank, to, number, *, apart: bool) -> Neighbours:
    """The k nearest so far, after one more block of the bank."""
    far = distances(query, bank)
    column = jnp.arange(bank.shape[0])
    wrong = column >= number
    if apart:
        wrong = wrong | (at + jnp.arange(query.shape[0])[:, None] == to + column)
    k = best.distance.shape[1]
    # The few nearest of the block first: the indices of all of it are then never written down.
    least, where = jax.lax.top_k(-jnp.where(wrong, jnp.inf, far), min(k, bank.shape[0]))
    far = jnp.concatenate([best.distance, -least], 1)
    index = jnp.concatenate([best.index, to + where], 1)
    least, where = jax.lax.top_k(-far, k)
    return Neighbours(-least, jnp.take_along_axis(index, where, 1))


def neighbours(
    query: np.ndarray,
    bank: np.ndarray,
    k: int = 1,
    *,
    metric: str = "euclidean",
    apart: bool = False,
    block: int = BLOCK,
) -> Neighbours:
    """The k nearest rows of a bank for every row of a query.

    Args:
      query: [Q, D].
      bank: [N, D].
      k: how many.
      metric: "euclidean", or "cosine": 1 - cosine.
      apart: query and bank are the same set, and no row is its own neighbour.
      block: rows of one block.

    Raises:
      CountError: for a bank of fewer than k rows (k + 1 with `apart`).
      FeatureError: for other shapes or widths, an unknown metric, or values that are not finite.
    """
    query, bank = np.asarray(query), np.asarray(bank)
    if metric not in METRICS:
        raise FeatureError(f"metric={metric!r}; known: {', '.join(METRICS)}")
    check_features(bank, "features that are searched", k + apart)
    check_features(query, "features that are looked for", width=bank.shape[1])
    if metric == "cosine":
        # Of vectors of length 1: |a - b|^2 = 2 (1 - cosine).
        query, bank = (
            unit_rows(x, "features").astype(np.float32, copy=False) for x in (query, bank)
        )
    else:
        bank, query = centred(bank, query)
    blocks = [(to, number, jnp.asarray(part)) for to, number, part in cut(bank, block)]
    found = []
    for at, number, rows in cut(query, block):
        rows = jnp.asarray(rows)
        shape = (len(rows), k)
        best = Neighbours(jnp.full(shape, jnp.inf), jnp.zeros(shape, jnp.int32))
        for to, valid, part in blocks:
            best = _closer(best, rows, at, part, to, valid, apart=apart)
        found.append(Neighbours(*(np.asarray(x)[:number] for x in best)))
    distance, index = (np.concatenate(x) for x in zip(*found, strict=True))
    return Neighbours(distance**2 / 2 if metric == "cosine" else distance, index)


class Memorised(NamedTuple):
    """What `memorised` finds.

    Attributes:
      score: "memorised".
      near: the nearest training image of every generated one.
      held_out: [M], distances of held-out images from theirs.
    """

    score: Score
    near: Neighbours
    held_out: np.ndarray


def memorised(
    fake: np.ndarray, held_out: np.ndarray, train: np.ndarray, *, share: float = 0.01, **kw
) -> Memorised:
    """The share of generated images that lie suspiciously near to a training image.

    Held-out images were never trained on: the distance that only `share` of them undercut is the
    threshold. A model that has not memorised scores about `share`; look at the neighbours of one
    that scores more.

    Args:
      fake: [N, D], features of generated images.
      held_out: [M, D], of real images outside the training set.
      train: [T, D].
      share: of held-out images below the threshold.
      **kw: `metric` and `block` of `neighbours`.

    Raises:
      CountError: where there are fewer than 1 / share held-out images.
    """
    if len(held_out) * share < 1:
        raise CountError(
            f"{len(held_out)} held-out images cannot say what {share:.2%} of them undercut; give "
            f"{int(np.ceil(1 / share))} or more, or a larger share"
        )
    apart = neighbours(held_out, train, **kw).distance[:, 0]
    limit = float(np.quantile(apart, share))
    near = neighbours(fake, train, **kw)
    score = Score(
        "memorised",
        float((near.distance[:, 0] < limit).mean()),
        facts={
            "generated": len(fake),
            "held_out": len(held_out),
            "train": len(train),
            "threshold": limit,
            "expected": share,
        },
    )
    return Memorised(score, near, apart)
