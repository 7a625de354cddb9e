"""The Frechet distance between two clouds of features: in training, and as it is published."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.metrics.score import FeatureError, Score, check_features
from jaxt2i.metrics.statistics import Gaussian, covariance, gaussian, of_rows

# --- In a training run, float32 on the device --------------------------------------------------


def frechet_distance(real: jax.Array, fake: jax.Array) -> jax.Array:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of two Gaussians fitted to features.

    The trace of the root is taken from the eigenvalues of the symmetric S1^(1/2) S2 S1^(1/2),
    which stay real and non-negative where a general matrix root breaks down.

    Args:
      real: [N, D].
      fake: [M, D].

    Returns:
      Scalar, float32, for small D inside a training run. Published FIDs: `fid`.

    Source: Heusel et al. 2017, equation 6.
    """
    (m1, s1), (m2, s2) = (moments(x.astype(jnp.float32)) for x in (real, fake))
    with jax.default_matmul_precision("highest"):
        values, vectors = jnp.linalg.eigh(s1)
        root = (vectors * jnp.sqrt(jnp.maximum(values, 0))) @ vectors.T
        cross = jnp.linalg.eigvalsh(root @ s2 @ root)
    shared = jnp.sqrt(jnp.maximum(cross, 0)).sum()
    return jnp.square(m1 - m2).sum() + jnp.trace(s1) + jnp.trace(s2) - 2 * shared


def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean [D] and covariance [D, D] (N - 1) of [N, D]."""
    mean = x.mean(0)
    centred = x - mean
    return mean, jnp.matmul(centred.T, centred, precision="highest") / (x.shape[0] - 1)


# --- Published FIDs, in float64 on the host ----------------------------------------------------

# Below this many examples for each feature the bias, which falls as 1 / N, is what one measures.
EXAMPLES_PER_FEATURE = 10


def square_root(matrix: np.ndarray) -> np.ndarray:
    """The symmetric root of a covariance; eigenvalues below zero are rounding, and count as 0."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def distance(
    root: np.ndarray, real: tuple[np.ndarray, np.ndarray], fake: tuple[np.ndarray, np.ndarray]
) -> float:
    """The squared Frechet distance of two Gaussians.

    Args:
      root: `square_root` of the first covariance, which is often used many times.
      real: mean [D] and covariance [D, D].
      fake: the same.

    Returns:
      |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2), not below 0.
    """
    (m1, s1), (m2, s2) = real, fake
    cross = root @ s2 @ root
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh((cross + cross.T) / 2), 0)).sum()
    gap = m1 - m2
    return max(float(gap @ gap + np.trace(s1) + np.trace(s2) - 2 * shared), 0.0)


def fid(real: Gaussian, fake: Gaussian, *, ddof: int = 1) -> Score:
    """The Frechet distance between two sets of images, from the moments of their features.

    Args:
      real: the reference.
      fake: the generated images.
      ddof: covariances are divided by N - ddof: 1 in pytorch-fid, torch-fidelity, clean-fid and
        TTUR, 0 in the StyleGAN family.

    Returns:
      Score "fid"; `warnings` says so where there are too few images for this many features.

    Raises:
      FeatureError: for statistics of different widths.

    Source: Heusel et al. 2017 (arXiv 1706.08500), equation 6.
    """
    tables = [covariance(g, ddof) for g in (real, fake)]
    if tables[0].shape != tables[1].shape:
        raise FeatureError(
            f"the reference has {len(tables[0])} features and the generated images "
            f"{len(tables[1])}; both must come from one network and one layer"
        )
    value = distance(square_root(tables[0]), (real.mean, tables[0]), (fake.mean, tables[1]))
    width = len(real.mean)
    warnings = (too_few("reference", real, width), too_few("generated", fake, width))
    return Score(
        "fid",
        value,
        facts={
            "width": width,
            "real": real.count or "unknown",
            "generated": fake.count or "unknown",
            "covariance": f"N - {ddof}" if ddof else "N",
        },
        warnings=tuple(w for w in warnings if w),
    )


def too_few(which: str, of: Gaussian, width: int) -> str:
    """What to know about a distance from few examples; "" where they are enough or unknown."""
    if of.count is None or of.count >= EXAMPLES_PER_FEATURE * width:
        return ""
    effect = "the covariance is singular" if of.count <= width else "the distance is biased upwards"
    return (
        f"{of.count} {which} images for {width} features: {effect}, so a comparison holds only at "
        f"the same number of images; {EXAMPLES_PER_FEATURE * width} would do, or extrapolate "
        "(fid_inf)"
    )


def subsets(count: int, smallest: int = 5000, points: int = 15, seed: int = 0) -> list[np.ndarray]:
    """Rows of the images behind every point of `fid_infinity`, the last time all; as there."""
    rng = np.random.default_rng(seed)
    sizes = np.linspace(max(smallest, count // 10), count, points).astype(int)
    return [rng.permutation(count)[:size] for size in sizes]


def fid_infinity(
    real: Gaussian,
    fake: np.ndarray,
    *,
    smallest: int = 5000,
    points: int = 15,
    seed: int = 0,
    ddof: int = 1,
) -> Score:
    """The FID that infinitely many generated images would have.

    FIDs of random subsets are a straight line in 1 / N; its value at 0 is the score. The
    reference's own bias stays.

    Args:
      real: the reference.
      fake: [N, D], features of the generated images.
      smallest: the smallest subset is max(smallest, N / 10).
      points: subsets, evenly spaced up to N.
      seed: of the subsets.
      ddof: see `fid`.

    Returns:
      Score "fid_inf"; `facts` holds the slope and the FID of all images.

    Raises:
      CountError: where N is not above the smallest subset.

    Source: Chong and Forsyth 2020 (arXiv 1911.07023); sizes as in Stein et al. 2023 (dgm-eval).
    """
    fake = np.asarray(fake)
    check_features(fake, "features of the generated images", smallest + 1, len(real.mean))
    chosen = subsets(len(fake), smallest, points, seed)
    sizes = np.array([len(rows) for rows in chosen])
    table = covariance(real, ddof)
    root, values = square_root(table), []
    for rows in chosen:
        some = gaussian(of_rows(fake[rows]))
        values.append(distance(root, (real.mean, table), (some.mean, covariance(some, ddof))))
    slope, intercept = np.polyfit(1 / sizes, values, 1)
    return Score(
        "fid_inf",
        float(intercept),
        facts={
            "width": len(real.mean),
            "real": real.count or "unknown",
            "generated": len(fake),
            "sizes": f"{points} from {sizes[0]} to {sizes[-1]}, seed {seed}",
            "slope": float(slope),
            "fid": values[-1],
        },
    )
