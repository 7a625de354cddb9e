"""Distances between sets of features by kernels: KID and CMMD, in float64."""

from collections.abc import Callable

import numpy as np

from jaxt2i.metrics.score import CountError, FeatureError, Score, check_features

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
# Rows of one block of a kernel matrix: 2048 x 2048 float64 are 32 MiB.
BLOCK = 2048


def polynomial(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x.y / D + 1)^3 of all pairs, [N, M]."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """|x - y|^2 of all pairs, [N, M]."""
    far = (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * (x @ y.T)
    return np.maximum(far, 0)


def gaussian_rbf(sigma: float) -> Kernel:
    """exp(-|x - y|^2 / (2 sigma^2)) of all pairs."""
    return lambda x, y: np.exp(-squared_distances(x, y) / (2 * sigma**2))


def mmd2_unbiased(x: np.ndarray, y: np.ndarray, kernel: Kernel = polynomial) -> float:
    """Unbiased squared maximum mean discrepancy of two sets of m rows; may be negative.

    Args:
      x: [m, D], float64.
      y: [m, D], float64.
      kernel: of all pairs.

    Source: Gretton et al. 2012 (JMLR 13), equation 3.
    """
    m = len(x)
    within = sum(k.sum() - np.trace(k) for k in (kernel(x, x), kernel(y, y)))
    return float(within / (m * (m - 1)) - 2 * kernel(x, y).mean())


def draw_subsets(
    fake: int, real: int, subsets: int, size: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows of every subset, drawn as torch-fidelity does: generated first, then real, in turn."""
    rng = np.random.RandomState(seed)
    return [
        (rng.choice(fake, size, replace=False), rng.choice(real, size, replace=False))
        for _ in range(subsets)
    ]


def kid(
    fake: np.ndarray,
    real: np.ndarray,
    *,
    subsets: int = 100,
    size: int = 1000,
    seed: int = 2020,
    kernel: Kernel = polynomial,
) -> Score:
    """The Kernel Inception Distance: the mean of unbiased MMD^2 over random subsets.

    Args:
      fake: [N, D], features of the generated images.
      real: [M, D].
      subsets: how many.
      size: of each; clean-fid takes min(1000, N, M), here that must be asked for.
      seed: of the draws, for numpy's RandomState.
      kernel: of all pairs.

    Returns:
      Score "kid", unscaled (papers often print it times 1000 or 100); `spread` is the population
      standard deviation over subsets.

    Raises:
      CountError: where a set is smaller than a subset.
      FeatureError: for other shapes or widths, or values that are not finite.

    Source: Binkowski et al. 2018 (arXiv 1801.01401), section 4.
    """
    fake, real = np.asarray(fake), np.asarray(real)
    if size < 2 or subsets < 1:
        raise CountError(f"subsets={subsets} of size={size}; one or more, of at least 2 images")
    check_features(real, "features of the real images", size)
    check_features(fake, "features of the generated images", size, real.shape[1])
    parts = np.array(
        [
            mmd2_unbiased(fake[a].astype(np.float64), real[b].astype(np.float64), kernel)
            for a, b in draw_subsets(len(fake), len(real), subsets, size, seed)
        ]
    )
    return Score(
        "kid",
        float(parts.mean()),
        float(parts.std()),
        facts={
            "width": real.shape[1],
            "real": len(real),
            "generated": len(fake),
            "subsets": f"{subsets} of {size}, seed {seed}",
        },
    )


def cmmd(
    fake: np.ndarray, real: np.ndarray, *, sigma: float = 10.0, scale: float = 1000.0
) -> Score:
    """CMMD: the biased MMD^2 of CLIP embeddings with a Gaussian kernel, times 1000.

    The kernel's values lie within 2 % of 1, so that float32 keeps about three digits of the
    result. Here 1 is taken away from each of them first (expm1), in float64.

    Args:
      fake: [N, D], embeddings of the generated images, of length 1.
      real: [M, D], of length 1.
      sigma: of the kernel.
      scale: factor of the result.

    Returns:
      Score "cmmd".

    Raises:
      FeatureError: where embeddings are not of length 1, for which sigma was chosen.

    Source: Jayasumana et al. 2024 (arXiv 2401.09603).
    """
    sets = [np.asarray(x) for x in (fake, real)]
    check_features(sets[1], "embeddings of the real images")
    check_features(sets[0], "embeddings of the generated images", width=sets[1].shape[1])
    x, y = (s.astype(np.float64) for s in sets)
    for which, rows in (("generated", x), ("real", y)):
        length = np.linalg.norm(rows, axis=1)
        if np.abs(length - 1).max() > 1e-3:
            raise FeatureError(
                f"embeddings of the {which} images have lengths from {length.min():.3g} to "
                f"{length.max():.3g}, expected 1: divide each by its length"
            )

    def mean_less_one(a: np.ndarray, b: np.ndarray) -> float:
        total = 0.0
        for at in range(0, len(a), BLOCK):
            for to in range(0, len(b), BLOCK):
                far = squared_distances(a[at : at + BLOCK], b[to : to + BLOCK])
                total += np.expm1(-far / (2 * sigma**2)).sum()
        return total / (len(a) * len(b))

    value = scale * (mean_less_one(x, x) + mean_less_one(y, y) - 2 * mean_less_one(x, y))
    return Score(
        "cmmd",
        value,
        facts={"width": x.shape[1], "real": len(y), "generated": len(x), "sigma": sigma},
    )
