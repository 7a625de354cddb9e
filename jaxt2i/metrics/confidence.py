"""Intervals of scores: how far they would move if other examples had been drawn.

All are bootstraps. A resample holds about a third of its examples twice or more, and scores with
a bias in the number of examples (FID, Inception Score) move further that way: the interval is
therefore the spread of the repetitions about their own mean, laid around the score.
"""

from collections.abc import Callable

import numpy as np

from jaxt2i.metrics.frechet import distance, square_root
from jaxt2i.metrics.kernel import Kernel, polynomial
from jaxt2i.metrics.score import CountError, Interval, check_features
from jaxt2i.metrics.statistics import Gaussian, Moments, covariance, gaussian, merge, of_rows

LEVEL = 0.95


def around(
    value: float, repeated: np.ndarray, level: float, method: str, scale: float = 1.0
) -> Interval:
    """The interval of a score, from its repetitions.

    Args:
      value: the score.
      repeated: [R], the score of R resamples.
      level: share of repetitions inside.
      method: in words.
      scale: factor of the spread.
    """
    gap = (np.asarray(repeated) - np.mean(repeated)) * scale
    low, high = np.quantile(gap, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value + low), float(value + high), level, method)


def of_statistic(
    statistic: Callable[[np.ndarray], float],
    count: int,
    *,
    repeats: int = 200,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """The interval of any score.

    Args:
      statistic: rows [count], repetitions among them, -> the score of those examples.
      count: examples.
      repeats: resamples.
      level: share of them inside.
      seed: of the draws.

    Raises:
      CountError: for fewer than two examples.
    """
    if count < 2:
        raise CountError(f"an interval needs two examples, there are {count}")
    rng = np.random.default_rng(seed)
    found = np.array([statistic(rng.integers(0, count, count)) for _ in range(repeats)])
    value = statistic(np.arange(count))
    return around(value, found, level, f"{repeats} resamples of {count} examples, seed {seed}")


def of_mean(
    values: np.ndarray, *, repeats: int = 1000, level: float = LEVEL, seed: int = 0
) -> Interval:
    """The interval of a mean of per-example values: CLIP score, R-precision, precision, LPIPS.

    Args:
      values: [N]; for precision and its kin the balls are held fixed.
      repeats: resamples.
      level: share of them inside.
      seed: of the draws.
    """
    values = np.asarray(values, np.float64)
    return of_statistic(
        lambda rows: float(values[rows].mean()),
        len(values),
        repeats=repeats,
        level=level,
        seed=seed,
    )


def _groups(count: int, groups: int, rng: np.random.Generator) -> list[np.ndarray]:
    if count < 2 * groups:
        raise CountError(
            f"{count} examples cannot be dealt to {groups} groups of two or more; draw more, or "
            "ask for fewer groups"
        )
    return np.array_split(rng.permutation(count), groups)


def _weights(groups: int, repeats: int, rng: np.random.Generator) -> np.ndarray:
    """How often each group is in each resample, [repeats, groups]."""
    return rng.multinomial(groups, np.full(groups, 1 / groups), repeats)


# Resampled groups spread less than resampled examples would: by this factor in variance.
def _spread(groups: int) -> float:
    return float(np.sqrt(groups / (groups - 1)))


def of_fid(
    real: Gaussian,
    fake: np.ndarray,
    *,
    ddof: int = 1,
    groups: int = 20,
    repeats: int = 50,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """The interval of `fid`, the reference held fixed.

    The generated images are dealt to groups, whose moments are taken once; a resample of groups
    then costs a sum of moments and one eigenvalue problem, and never the features again.

    Args:
      real: the reference.
      fake: [N, D], features of the generated images.
      ddof: see `fid`.
      groups: memory is groups * D^2 float64: 0.7 GB for 20 groups of 2048 features.
      repeats: resamples, of one eigenvalue problem each.
      level: share of them inside.
      seed: of the draws.

    Raises:
      CountError: for fewer than two images a group.
    """
    fake = np.asarray(fake)
    check_features(fake, "features of the generated images", 2, len(real.mean))
    rng = np.random.default_rng(seed)
    dealt = _groups(len(fake), groups, rng)
    by_rows = len(fake) <= len(real.mean)
    value = (_fid_by_rows if by_rows else _fid_by_moments)(real, fake, dealt, ddof)
    found = np.array([value(w) for w in _weights(groups, repeats, rng)])
    method = f"{repeats} resamples of {groups} groups of generated images, seed {seed}"
    return around(value(np.ones(groups, int)), found, level, method, _spread(groups))


def _fid_by_moments(
    real: Gaussian, fake: np.ndarray, dealt: list[np.ndarray], ddof: int
) -> Callable[[np.ndarray], float]:
    """Weights of the groups -> FID, an eigenvalue problem of the features' width."""
    parts = [of_rows(fake[rows]) for rows in dealt]
    table = covariance(real, ddof)
    root = square_root(table)

    def value(weights: np.ndarray) -> float:
        total = Moments(0, np.zeros_like(real.mean), np.zeros_like(table))
        for weight, part in zip(weights.tolist(), parts, strict=True):
            if weight:
                times = Moments(weight * part.count, part.mean, weight * part.scatter)
                total = merge(total, times)
        all_of_it = gaussian(total)
        return distance(root, (real.mean, table), (all_of_it.mean, covariance(all_of_it, ddof)))

    return value


def _fid_by_rows(
    real: Gaussian, fake: np.ndarray, dealt: list[np.ndarray], ddof: int
) -> Callable[[np.ndarray], float]:
    """The same where there are fewer rows than features: an eigenvalue problem of the rows.

    With S2 = X'X / (n - ddof) of centred rows, S1^(1/2) S2 S1^(1/2) and X S1 X' / (n - ddof) have
    the same eigenvalues but for zeros.
    """
    table = covariance(real, ddof)
    x = fake.astype(np.float64)
    joint, dots = x @ table @ x.T, x @ x.T
    towards, trace = x @ real.mean, float(np.trace(table))
    group = np.empty(len(x), int)
    for number, rows in enumerate(dealt):
        group[rows] = number

    def value(weights: np.ndarray) -> float:
        w = weights[group].astype(np.float64)
        n = w.sum()
        at = joint @ w / n
        centred = joint - at[:, None] - at + w @ at / n
        root = np.sqrt(w)
        values = np.linalg.eigvalsh(root[:, None] * centred * root / (n - ddof))
        mean2 = w @ (dots @ w) / n**2  # |m2|^2
        gap = mean2 - 2 * (w @ towards) / n + real.mean @ real.mean
        own = (w @ dots.diagonal() - n * mean2) / (n - ddof)
        return float(gap + trace + own - 2 * np.sqrt(np.maximum(values, 0)).sum())

    return value


def of_kid(
    fake: np.ndarray,
    real: np.ndarray,
    value: float,
    *,
    kernel: Kernel = polynomial,
    groups: int = 20,
    repeats: int = 1000,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """The interval of `kid`, both sets resampled.

    Its published "+-" is the spread over subsets that share images, and says how large the subsets
    were. Here the sums of the kernel over all pairs of groups are taken once (all N^2 values, block
    by block), and groups are resampled; no image is ever paired with itself.

    Args:
      fake: [N, D].
      real: [M, D].
      value: the score that the interval is for.
      kernel: of all pairs; `gaussian_rbf(10)` for CMMD, whose interval is then 1000 times this.
      groups: of each set.
      repeats: resamples.
      level: share of them inside.
      seed: of the draws.

    Raises:
      CountError: for fewer than two images a group.
    """
    fake, real = np.asarray(fake), np.asarray(real)
    check_features(real, "features of the real images", 2)
    check_features(fake, "features of the generated images", 2, real.shape[1])
    rng = np.random.default_rng(seed)
    x, y = (
        [s[rows].astype(np.float64) for rows in _groups(len(s), groups, rng)] for s in (fake, real)
    )

    def sums(a: list[np.ndarray], b: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Sums and numbers of pairs between groups; no row with itself."""
        same = a is b
        total, number = np.zeros((2, groups, groups))
        for i, one in enumerate(a):
            for j, other in enumerate(b):
                table = kernel(one, other)
                own = same and i == j
                total[i, j] = table.sum() - (np.trace(table) if own else 0)
                number[i, j] = table.size - (len(one) if own else 0)
        return total, number

    tables = [sums(x, x), sums(y, y), sums(x, y)]

    def mmd2(wx: np.ndarray, wy: np.ndarray) -> float:
        # A group that was drawn w times meets itself in w^2 ways, w of them copy by copy.
        means = [
            (a @ total @ b) / (a @ number @ b)
            for (total, number), a, b in zip(tables, (wx, wy, wx), (wx, wy, wy), strict=True)
        ]
        return means[0] + means[1] - 2 * means[2]

    draws = zip(_weights(groups, repeats, rng), _weights(groups, repeats, rng), strict=True)
    found = np.array([mmd2(a, b) for a, b in draws])
    method = f"{repeats} resamples of {groups} groups of both sets, seed {seed}"
    return around(value, found, level, method, _spread(groups))
