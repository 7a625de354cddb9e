"""Intervals of scores: how far they would move if other examples had been drawn.

Means, FID and kernel distances are resampled (bootstrap). A resample holds about a third of its
examples twice or more, and scores with a bias in the number of examples move further that way: the
interval is therefore the spread of the repetitions about their own mean, laid around the score.

Other scores have their own ways. Shares near 0 or 1 have lopsided intervals, and one of 0 from few
examples is no certainty: Wilson's, with promises of one picture counted as the clusters that they
are. The Inception Score leaves one image out at a time (jackknife): the entropy of a thousand
classes, from images of which some are there twice, moves by a quarter too little. The FID of
infinitely many images takes the interval of FID, widened by what the extrapolation costs.
"""

from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

from jaxt2i.metrics.frechet import distance, square_root
from jaxt2i.metrics.inception_score import bounds, log_softmax
from jaxt2i.metrics.kernel import Kernel, polynomial
from jaxt2i.metrics.score import CountError, Interval, check_features, check_pairs
from jaxt2i.metrics.statistics import Gaussian, Moments, covariance, gaussian, merge, of_rows

LEVEL = 0.95


def around(
    value: float,
    repeated: np.ndarray,
    level: float,
    method: str,
    scale: float = 1.0,
    least: float = -np.inf,
) -> Interval:
    """The interval of a score, from its repetitions.

    Args:
      value: the score.
      repeated: [R], the score of R resamples.
      level: share of repetitions inside.
      method: in words.
      scale: factor of the spread.
      least: what the score cannot be below.
    """
    gap = (np.asarray(repeated) - np.mean(repeated)) * scale
    low, high = np.quantile(gap, [(1 - level) / 2, (1 + level) / 2])
    return Interval(max(float(value + low), least), float(value + high), level, method)


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
    """The interval of a mean of per-example values: CLIP score, density, LPIPS.

    Args:
      values: [N]; for density the balls are held fixed.
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


def of_share(
    right: np.ndarray, said: np.ndarray | int = 1, *, scale: float = 1.0, level: float = LEVEL
) -> Interval:
    """The interval of a share: R-precision, precision, recall, coverage, kept promises.

    Args:
      right: [N], how much of every picture is right; for precision and its kin the balls are held
        fixed, for R-precision the other captions.
      said: [N], out of how much; pictures are drawn whole, with everything that is said of them.
      scale: 100 for percent.
      level: confidence.

    Raises:
      CountError: where nothing is said.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference"; the
      number of examples is the effective one of a ratio of sums (Cochran 1977, section 3.12).
    """
    right = np.asarray(right, np.float64)
    said = np.broadcast_to(np.asarray(said, np.float64), right.shape)
    total, pictures = said.sum(), np.count_nonzero(said)
    if not total:
        raise CountError("the interval of a share needs something that could be right or wrong")
    p = right.sum() / total
    moved = np.square(right - p * said).sum() * pictures / max(pictures - 1, 1) / total**2
    # Where all is right, or nothing, a picture counts once, however much is said of it.
    n = p * (1 - p) / moved if moved > 0 else pictures
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    # The share itself is inside but for rounding, and so is nothing below 0 or above 1.
    low, high = ((middle + side * half) / (1 + z * z / n) for side in (-1, 1))
    low, high = min(max(low, 0), p), max(min(high, 1), p)
    method = f"Wilson's, of {pictures} pictures"
    return Interval(float(scale * low), float(scale * high), level, method)


def _plausible(right: np.ndarray | float, count: int, rng: np.random.Generator, repeats: int):
    """Shares that may lie behind `right` of `count` examples, [repeats]; Jeffreys' prior."""
    return rng.beta(right + 0.5, count - right + 0.5, repeats)


def of_f_score(
    precision: np.ndarray,
    recall: np.ndarray,
    *,
    repeats: int = 2000,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """The interval of the harmonic mean of precision and recall, the balls held fixed.

    Args:
      precision: bool [N].
      recall: bool [M].
      repeats: draws of both.
      level: share of them inside.
      seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    p, r = (_plausible(x.sum(), len(x), rng, repeats) for x in (precision, recall))
    value = 2 * precision.mean() * recall.mean() / max(1e-5, precision.mean() + recall.mean())
    low, high = np.quantile(2 * p * r / (p + r), [(1 - level) / 2, (1 + level) / 2])
    method = f"{repeats} draws of precision and recall, seed {seed}"
    return Interval(min(float(low), value), max(float(high), value), level, method)


def of_memorised(
    fake: np.ndarray,
    held_out: np.ndarray,
    share: float,
    *,
    repeats: int = 1000,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """The interval of `memorised`, generated and held-out images both drawn anew.

    Of a few held-out images the threshold is as uncertain as the count below it.

    Args:
      fake: [N], distances of generated images from their nearest training image.
      held_out: [M], of held-out images.
      share: of them below the threshold.
      repeats: resamples of the held-out images.
      level: share of them inside.
      seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    again = rng.choice(held_out, (repeats, len(held_out)))
    below = np.searchsorted(np.sort(fake), np.quantile(again, share, axis=1))
    low, high = np.quantile(
        _plausible(below, len(fake), rng, repeats), [(1 - level) / 2, (1 + level) / 2]
    )
    value = float(np.mean(fake < np.quantile(held_out, share)))
    method = f"{repeats} resamples of {len(held_out)} held-out images, seed {seed}"
    return Interval(min(float(low), value), max(float(high), value), level, method)


def of_inception_score(
    logits: np.ndarray,
    *,
    splits: int = 10,
    split_size: int = 0,
    order: str = "file",
    seed: int = 2020,
    first: int = 0,
    whole_batches: int = 1,
    level: float = LEVEL,
) -> Interval:
    """The interval of `inception_score`, each image left out once.

    Args:
      logits: [N, C].
      splits: as there, like all that follow.
      split_size: as there.
      order: as there.
      seed: as there.
      first: as there.
      whole_batches: as there.
      level: confidence.

    Raises:
      CountError: for splits of fewer than two images.

    Source: Efron and Stein 1981, "The jackknife estimate of variance".
    """
    count = len(logits)
    rows = np.random.RandomState(seed).permutation(count) if order == "shuffled" else slice(None)
    used = count // whole_batches * whole_batches or count
    log_p = log_softmax(np.asarray(logits)[rows][:used], first)
    cut, scores, variance = bounds(used, splits, split_size), [], 0.0
    for start, stop in cut:
        n = stop - start
        if n < 2:
            raise CountError(
                f"{used} images in {len(cut)} splits leave {n} in one of them; an interval of the "
                "Inception Score needs two in each"
            )
        part = log_p[start:stop]
        p = np.exp(part)
        own = (p * part).sum(1)

        def score(own: np.ndarray, marginal: np.ndarray) -> np.ndarray:
            return np.exp(own - (marginal * np.log(np.maximum(marginal, 1e-300))).sum(-1))

        scores.append(score(own.mean(), p.mean(0)))
        without = score((own.sum() - own) / (n - 1), np.maximum(p.sum(0) - p, 0) / (n - 1))
        variance += (n - 1) / n * np.square(without - without.mean()).sum()
    value = float(np.mean(scores))
    half = NormalDist().inv_cdf((1 + level) / 2) * float(np.sqrt(variance)) / len(cut)
    method = f"jackknife over {used} images in {len(cut)} splits"
    return Interval(max(value - half, 1.0), value + half, level, method)


def of_fid_infinity(
    value: float, fid: float, of_all: Interval, subsets: Sequence[np.ndarray]
) -> Interval:
    """The interval of `fid_infinity`: that of the FID, widened by what extrapolating costs.

    To first order a FID moves with the mean of one number for each of its images. The value of the
    fitted line at 1 / N = 0 then moves with a weighted mean of the same numbers, in which an image
    weighs what the subsets that hold it weigh in the fit.

    Args:
      value: FID of infinitely many images.
      fid: of all there are.
      of_all: its interval.
      subsets: rows behind every point of the line.
    """
    at = np.array([1 / len(rows) for rows in subsets])
    gap = at - at.mean()
    share = 1 / len(at) - gap * at.mean() / np.square(gap).sum()
    weight = np.zeros(max(map(len, subsets)))
    for part, rows in zip(share, subsets, strict=True):
        weight[rows] += part / len(rows)
    wider = float(np.sqrt(len(weight) * np.square(weight).sum()))
    ends = (value + wider * (end - fid) for end in (of_all.low, of_all.high))
    return Interval(*ends, of_all.level, f"{of_all.method}, {wider:.2f} times as wide as of FID")


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
    value = _fid_of(real, fake, _groups(len(fake), groups, rng), ddof)
    found = np.array([value(w) for w in _weights(groups, repeats, rng)])
    method = f"{repeats} resamples of {groups} groups of generated images, seed {seed}"
    return around(value(np.ones(groups, int)), found, level, method, _spread(groups), least=0)


def of_fid_difference(
    real: Gaussian,
    first: np.ndarray,
    second: np.ndarray,
    *,
    ddof: int = 1,
    groups: int = 20,
    repeats: int = 50,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """The interval of the FID of one set less that of another, of the same captions row by row.

    Both are dealt and resampled alike: what a caption does to both cancels.

    Args:
      real: the reference.
      first: [N, D].
      second: [N, D].
      ddof: see `fid`.
      groups: see `of_fid`.
      repeats: resamples, of two eigenvalue problems each.
      level: share of them inside.
      seed: of the draws.

    Raises:
      CountError: for fewer than two images a group.
    """
    check_pairs(first, second, "two sets of pictures of the same captions")
    rng = np.random.default_rng(seed)
    dealt = _groups(len(first), groups, rng)
    one, other = (_fid_of(real, np.asarray(x), dealt, ddof) for x in (first, second))
    found = np.array([one(w) - other(w) for w in _weights(groups, repeats, rng)])
    whole = np.ones(groups, int)
    method = f"{repeats} resamples of {groups} groups of captions, in pairs, seed {seed}"
    return around(one(whole) - other(whole), found, level, method, _spread(groups))


def _fid_of(
    real: Gaussian, fake: np.ndarray, dealt: list[np.ndarray], ddof: int
) -> Callable[[np.ndarray], float]:
    """Weights of the groups -> FID, by whichever way costs less."""
    by_rows = len(fake) <= len(real.mean)
    return (_fid_by_rows if by_rows else _fid_by_moments)(real, fake, dealt, ddof)


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
    scale: float = 1.0,
    groups: int = 20,
    repeats: int = 1000,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """The interval of `kid` and `cmmd`, both sets resampled.

    Its published "+-" is the spread over subsets that share images, and says how large the subsets
    were. Here the sums of the kernel over all pairs of groups are taken once (all N^2 values, block
    by block), and groups are resampled; no image is ever paired with itself.

    Args:
      fake: [N, D].
      real: [M, D].
      value: the score that the interval is for.
      kernel: of all pairs; `gaussian_rbf(10)` for CMMD. That CMMD counts pairs of an image with
        itself adds the same to every resample.
      scale: of the score; 1000 for CMMD.
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
    mmd2 = _mmd2_of(x, y, kernel)
    draws = zip(_weights(groups, repeats, rng), _weights(groups, repeats, rng), strict=True)
    found = np.array([mmd2(a, b) for a, b in draws])
    method = f"{repeats} resamples of {groups} groups of both sets, seed {seed}"
    return around(value, found, level, method, scale * _spread(groups))


def of_kid_difference(
    first: np.ndarray,
    second: np.ndarray,
    real: np.ndarray,
    value: float,
    *,
    kernel: Kernel = polynomial,
    scale: float = 1.0,
    groups: int = 20,
    repeats: int = 1000,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """The interval of the KID (CMMD) of one set less that of another, of the same captions.

    Both are dealt and resampled alike, and see the same resample of the real images.

    Args:
      first: [N, D].
      second: [N, D].
      real: [M, D].
      value: the difference that the interval is for.
      kernel: see `of_kid`.
      scale: see `of_kid`.
      groups: see `of_kid`.
      repeats: resamples.
      level: share of them inside.
      seed: of the draws.

    Raises:
      CountError: for fewer than two images a group.
    """
    check_pairs(first, second, "two sets of pictures of the same captions")
    rng = np.random.default_rng(seed)
    dealt, dealt_real = (_groups(len(s), groups, rng) for s in (first, real))
    y = [np.asarray(real)[rows].astype(np.float64) for rows in dealt_real]
    one, other = (
        _mmd2_of([np.asarray(s)[rows].astype(np.float64) for rows in dealt], y, kernel)
        for s in (first, second)
    )
    draws = zip(_weights(groups, repeats, rng), _weights(groups, repeats, rng), strict=True)
    found = np.array([one(a, b) - other(a, b) for a, b in draws])
    method = (
        f"{repeats} resamples of {groups} groups of captions, in pairs, and of real images, seed "
        f"{seed}"
    )
    return around(value, found, level, method, scale * _spread(groups))


def _mmd2_of(
    x: list[np.ndarray], y: list[np.ndarray], kernel: Kernel
) -> Callable[[np.ndarray, np.ndarray], float]:
    """(weights of the groups x, of the groups y) -> MMD^2, no row paired with itself."""

    def sums(a: list[np.ndarray], b: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Sums and numbers of pairs between groups; no row with itself."""
        same = a is b
        total, number = np.zeros((2, len(a), len(b)))
        for i, one in enumerate(a):
            for j, other in enumerate(b):
                if same and j < i:
                    total[i, j], number[i, j] = total[j, i], number[j, i]
                    continue
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

    return mmd2
