"""Precision, recall, density and coverage: two sets, each as balls around its rows.

A ball reaches to the k-th nearest neighbour in its own set, the row itself not counted. Distances
are computed block by block on the default device.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.metrics.nearest import BLOCK, centred, cut, distances, neighbours
from jaxt2i.metrics.score import Score, check_features


class Manifold(NamedTuple):
    """What each image contributes; the scores are means.

    Attributes:
      precision: [N], whether a generated image lies in the ball of a real one.
      recall: [M], whether a real image lies in the ball of a generated one.
      density: [N], in how many balls of real images a generated one lies, over k.
      coverage: [M], whether the nearest generated image lies in a real one's ball.
    """

    precision: np.ndarray
    recall: np.ndarray
    density: np.ndarray
    coverage: np.ndarray


@partial(jax.jit, static_argnames=("closed",))
def _compare(fake, fake_radius, fakes, real, real_radius, reals, *, closed: bool):
    """One block: balls of real images around each fake, and what the fakes are for each real."""
    far = distances(fake, real)
    valid = (jnp.arange(len(fake)) < fakes)[:, None] & (jnp.arange(len(real)) < reals)

    def inside(radius: jax.Array) -> jax.Array:
        return valid & (far <= radius if closed else far < radius)

    nearest = jnp.where(valid, far, jnp.inf).min(0)
    return inside(real_radius).sum(1), inside(fake_radius[:, None]).any(0), nearest


def manifold(
    fake: np.ndarray,
    real: np.ndarray,
    *,
    k: int = 3,
    closed: bool = True,
    half: bool = False,
    block: int = BLOCK,
) -> Manifold:
    """Compares two sets of features by their k-nearest-neighbour balls.

    Args:
      fake: [N, D], features of the generated images.
      real: [M, D].
      k: neighbours; 3 for precision and recall, 5 for density and coverage in their papers.
      closed: a ball contains its surface (torch-fidelity, StyleGAN, ADM); not in prdc.
      half: round features and radii to float16, as the StyleGAN family does.
      block: rows of one block.

    Raises:
      CountError: for a set of k rows or fewer.
      FeatureError: for other shapes or widths, or values that are not finite.

    Source: Kynkaanniemi et al. 2019 (arXiv 1904.06991), Naeem et al. 2020 (arXiv 2002.09797).
    """
    fake, real = np.asarray(fake), np.asarray(real)
    check_features(real, "features of the real images", k + 1)
    check_features(fake, "features of the generated images", k + 1, real.shape[1])
    if half:
        fake, real = (x.astype(np.float16).astype(np.float32) for x in (fake, real))
    radii = [neighbours(x, x, k, apart=True, block=block).distance[:, -1] for x in (fake, real)]
    if half:
        radii = [r.astype(np.float16).astype(np.float32) for r in radii]
    real, fake = centred(real, fake)
    reals = [
        (at, number, jnp.asarray(rows), jnp.asarray(radius))
        for (at, number, rows), (_, _, radius) in zip(
            cut(real, block), cut(radii[1], block), strict=True
        )
    ]
    count = np.zeros(len(fake), np.int64)
    recall, nearest = np.zeros(len(real), bool), np.full(len(real), np.inf, np.float32)
    for (at, number, rows), (_, _, radius) in zip(
        cut(fake, block), cut(radii[0], block), strict=True
    ):
        for to, valid, columns, other in reals:
            part = _compare(rows, radius, number, columns, other, valid, closed=closed)
            balls, reached, least = (np.asarray(x) for x in part)
            here = slice(to, to + valid)
            count[at : at + number] += balls[:number]
            recall[here] |= reached[:valid]
            nearest[here] = np.minimum(nearest[here], least[:valid])
    coverage = nearest <= radii[1] if closed else nearest < radii[1]
    return Manifold(count > 0, recall, count / k, coverage)


def scores(found: Manifold, k: int) -> dict[str, Score]:
    """Means of what each image contributes.

    Args:
      found: of `manifold`.
      k: that it was called with.

    Returns:
      {"precision", "recall", "density", "coverage", "f_score": Score}.
    """
    facts = {"generated": len(found.precision), "real": len(found.recall), "k": k}
    means = {name: float(x.mean()) for name, x in found._asdict().items()}
    p, r = means["precision"], means["recall"]
    means["f_score"] = 2 * p * r / max(1e-5, p + r)
    return {name: Score(name, value, facts=dict(facts)) for name, value in means.items()}
