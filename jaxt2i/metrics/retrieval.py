"""How well images and captions find each other."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.losses.text import l2_normalize
from jaxt2i.metrics.score import CountError, MetricError, Score, check_pairs, unit_rows

# --- In a training run, float32 on the device --------------------------------------------------


def mean_cosine(image: jax.Array, text: jax.Array) -> jax.Array:
    """Mean cosine of matching rows, the CLIP score of whichever network made the features.

    Args:
      image: [N, D].
      text: [N, D].
    """
    return (l2_normalize(image) * l2_normalize(text)).sum(-1).mean()


def r_precision(image: jax.Array, text: jax.Array, candidates: int = 100) -> jax.Array:
    """Share of images whose own caption is the nearest among `candidates` captions.

    Args:
      image: [N, D]; N must be divisible by min(candidates, N) or the rest is left out.
      text: [N, D].
      candidates: captions an image chooses from, its own included. A caption that is exactly as
        near as the own one (the same sentence twice) does not count against it.

    Source: Xu et al. 2018 (AttnGAN), with 1 true and 99 other captions.
    """
    size = min(candidates, image.shape[0])
    groups = image.shape[0] // size
    a = l2_normalize(image[: groups * size]).reshape(groups, size, -1)
    b = l2_normalize(text[: groups * size]).reshape(groups, size, -1)
    cosine = jnp.einsum("gid,gjd->gij", a, b, precision="highest")
    own = jnp.diagonal(cosine, axis1=1, axis2=2)[..., None]
    return (cosine <= own + 1e-6).all(-1).mean()


def own_among(image: jax.Array, text: jax.Array, others: jax.Array) -> jax.Array:
    """Cosines of each image with its own caption, first, and with captions of other images.

    Args:
      image: [N, D].
      text: [N, D].
      others: [N, K, D].

    Returns:
      [N, 1 + K]; the image is a hit where the first is the largest.
    """
    candidates = l2_normalize(jnp.concatenate([text[:, None], others], 1))
    return jnp.einsum("nd,nkd->nk", l2_normalize(image), candidates, precision="highest")


def folds(hits: np.ndarray, count: int = 10, dropped: int = 0) -> np.ndarray:
    """Mean and standard deviation over equal folds.

    Args:
      hits: [N], 0 or 1, shuffled.
      count: of folds.
      dropped: entries left out at the end of every fold; DM-GAN's code drops 1.

    Returns:
      [mean, std].
    """
    size = len(hits) // count
    kept = np.reshape(hits[: count * size], (count, size))[:, : size - dropped]
    means = kept.mean(1, dtype=np.float64)
    return np.array([means.mean(), means.std()])


# --- Published scores, in float64 on the host --------------------------------------------------

# What papers print for a mean cosine c: c, 100 max(c, 0) (torchmetrics), and the mean of
# 2.5 max(c, 0) over pairs (Hessel et al. 2021, arXiv 2104.08718).
SCALES = ("cosine", "percent", "clipscore")
# Cosines nearer than this are a tie: twice the same sentence.
TIE = 1e-9


def cosines(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Cosines [N] of matching rows, float64.

    Raises:
      CountError: for different numbers of rows.
      FeatureError: for rows of zeros, or that are not finite.
    """
    check_pairs(image, text, "image and text features")
    return (unit_rows(image, "image features") * unit_rows(text, "text features")).sum(1)


def clip_score(image: np.ndarray, text: np.ndarray, *, scale: str = "cosine") -> Score:
    """How well images fit their captions, in the space of one CLIP.

    Args:
      image: [N, D], features of the generated images, any length.
      text: [N, D], of the captions they were drawn for.
      scale: "cosine" (StyleGAN-T, GALIP: about 0.3), "percent" (about 30) or "clipscore" (2.5 times
        the positive cosines).

    Returns:
      Score "clip_score"; only comparable for the same CLIP and the same preprocessing.

    Raises:
      MetricError: for an unknown scale, or features that do not fit.
    """
    if scale not in SCALES:
        raise MetricError(f"scale={scale!r}; known: {', '.join(SCALES)}")
    found = cosines(image, text)
    value = float(scaled(found, scale).mean())
    value = max(value, 0.0) if scale == "percent" else value
    return Score("clip_score", value, facts={"generated": len(found), "scale": scale})


def scaled(found: np.ndarray, scale: str) -> np.ndarray:
    """What every pair [N] of cosines adds to `clip_score`."""
    return {
        "cosine": found,
        "percent": 100 * found,
        "clipscore": 2.5 * np.maximum(found, 0),
    }[scale]


def negatives(label: np.ndarray, count: int = 99, seed: int = 0) -> np.ndarray:
    """Other images' captions for every image, the same in every run.

    Args:
      label: [N], classes; captions come from images of another class. Where every image is its own
        class (COCO) give np.arange(N), or the ids of the images.
      count: for each image, drawn with replacement as DM-GAN's code does.
      seed: of the draws.

    Returns:
      int64 [N, count], rows.

    Raises:
      CountError: where all images are of one class.
    """
    label = np.asarray(label)
    order = np.argsort(label, kind="stable")
    start = np.searchsorted(label[order], label, "left")
    size = np.searchsorted(label[order], label, "right") - start
    others = len(label) - size
    if not len(label) or not others.all():
        raise CountError(
            f"{len(label)} images of one class have no captions of another class; give the ids of "
            "the images as their classes"
        )
    # A draw among the others: in sorted order they are all rows but one's own class.
    drawn = np.random.default_rng(seed).integers(0, others[:, None], (len(label), count))
    return order[drawn + np.where(drawn >= start[:, None], size[:, None], 0)]


def hits(
    image: np.ndarray, text: np.ndarray, others: np.ndarray, pool: np.ndarray | None = None
) -> np.ndarray:
    """Whether each image finds its own caption among others.

    Args:
      image: [N, D], any length.
      text: [N, D], their own captions.
      others: [N, K], rows of `pool`.
      pool: [M, D], captions to choose from; `text` itself by default.

    Returns:
      bool [N]. Another caption that is exactly as near (the same sentence) does not count against
      it.

    Raises:
      CountError: for different numbers of rows.
      FeatureError: for rows of zeros, or that are not finite.
    """
    check_pairs(image, others, "image features and their other captions")
    own = cosines(image, text)
    image = unit_rows(image, "image features")
    pool = unit_rows(text if pool is None else pool, "text features")
    best = [np.max(pool[rows] @ x) for x, rows in zip(image, others, strict=True)]
    return own >= np.array(best) - TIE


def retrieval_precision(
    found: np.ndarray, *, count: int = 10, dropped: int = 0, seed: int | None = 0
) -> Score:
    """R-precision (R = 1), in percent, as papers print it: mean and deviation over folds.

    Args:
      found: [N], of `hits`.
      count: of folds.
      dropped: entries left out at the end of every fold; DM-GAN's code drops 1.
      seed: of the shuffling; None for a set that is shuffled already.

    Returns:
      Score "r_precision"; `spread` is the population standard deviation over folds.

    Raises:
      CountError: for fewer images than the folds need.

    Source: Xu et al. 2018 (AttnGAN), section 4.1.
    """
    found = np.asarray(found, np.float64)
    if len(found) // count <= dropped:
        raise CountError(
            f"{len(found)} images are too few for {count} folds of which each leaves out "
            f"{dropped}; draw {count * (dropped + 1)} or more, or ask for fewer folds"
        )
    if seed is not None:
        found = np.random.default_rng(seed).permutation(found)
    mean, std = 100 * folds(found, count, dropped)
    return Score(
        "r_precision", float(mean), float(std), facts={"generated": len(found), "folds": count}
    )


def pool_precision(image: np.ndarray, text: np.ndarray, *, pool: int = 100) -> Score:
    """Obj-GAN's variant, in percent: nearest of a pool of consecutive samples, both directions.

    Args:
      image: [N, D], any length.
      text: [N, D].
      pool: samples that are compared with each other; a rest of N is left out.

    Returns:
      Score "pool_precision": images that find their caption and captions that find their image,
      averaged; `spread` is the population standard deviation over pools.

    Raises:
      CountError: for fewer than one pool.
    """
    parts = pool_hits(image, text, pool).reshape(-1, pool).mean(1)
    return Score(
        "pool_precision",
        float(100 * np.mean(parts)),
        float(100 * np.std(parts)),
        facts={"generated": len(image), "pool": pool},
    )


def pool_hits(image: np.ndarray, text: np.ndarray, pool: int = 100) -> np.ndarray:
    """What every sample of whole pools adds to `pool_precision`: 0, 1/2 or 1; arguments of it."""
    check_pairs(image, text, "image and text features")
    if len(image) < pool or pool < 2:
        raise CountError(
            f"{len(image)} images make no pool of {pool}; draw more, or set a smaller pool (2 or "
            "more)"
        )
    a, b = unit_rows(image, "image features"), unit_rows(text, "text features")
    parts = []
    for at in range(0, len(a) - pool + 1, pool):
        table = a[at : at + pool] @ b[at : at + pool].T
        own = table.diagonal() + TIE
        parts.append(((own >= table.max(1)).astype(float) + (own >= table.max(0))) / 2)
    return np.concatenate(parts)
