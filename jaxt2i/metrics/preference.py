"""What people prefer: strengths from choices between two, agreement, and rank correlations."""

import itertools
from typing import NamedTuple

import numpy as np

from jaxt2i.metrics.score import CountError, Interval, MetricError

LEVEL = 0.95
# Half an answer in each direction of every pair that was compared (Firth 1993, "Bias reduction of
# maximum likelihood estimates"; for two systems exactly his): who never loses keeps a finite
# strength.
PRIOR = 0.5
# Systems up to which all orders are gone through for the chance of a rank correlation.
ORDERS = 8


class Choices(NamedTuple):
    """Answers, a row each.

    Attributes:
      rater: int [N], who answered.
      item: int [N], what was shown: answers to one item are of one caption and one pair.
      first: int [N], a system, the smaller of the two numbers.
      second: int [N], the other.
      won: float [N], 1: the first was preferred, 0: the second, 0.5: neither.
    """

    rater: np.ndarray
    item: np.ndarray
    first: np.ndarray
    second: np.ndarray
    won: np.ndarray

    def of(self, rows: np.ndarray) -> "Choices":
        """Some of the answers."""
        return Choices(*(x[rows] for x in self))


def wins(choices: Choices, systems: int, weights: np.ndarray | float = 1.0) -> np.ndarray:
    """[systems, systems]: how often (a row) was preferred to (a column)."""
    table = np.zeros((systems, systems))
    np.add.at(table, (choices.first, choices.second), weights * choices.won)
    np.add.at(table, (choices.second, choices.first), weights * (1 - choices.won))
    return table


def bradley_terry(table: np.ndarray, compared: np.ndarray | None = None) -> np.ndarray:
    """Strengths on the scale of log odds, of mean zero.

    A system of strength a is preferred to one of strength b with probability 1 / (1 + exp(b - a)).

    Args:
      table: [..., S, S], of `wins`; several tables at once.
      compared: bool [S, S], which pairs were compared, where that is more than `table` shows.

    Returns:
      [..., S].

    Raises:
      CountError: where systems are not linked by comparisons, so that nothing ranks them.

    Source: Bradley and Terry 1952, "Rank analysis of incomplete block designs"; Newton's method.
    """
    table = np.asarray(table, np.float64)
    count = table.shape[-1]
    if compared is None:
        compared = (table + np.swapaxes(table, -1, -2) > 0).reshape(-1, count, count).any(0)
    check_linked(compared)
    table = table + PRIOR * compared
    met = table + np.swapaxes(table, -1, -2)
    strength = np.zeros(table.shape[:-1])
    for _ in range(200):
        odds = 1 / (1 + np.exp(strength[..., None, :] - strength[..., :, None]))
        slope = (table - met * odds).sum(-1)
        bend = met * odds * (1 - odds)
        curve = np.eye(count) * bend.sum(-1)[..., None] - bend + 1 / count**2
        step = np.clip(np.linalg.solve(curve, slope[..., None])[..., 0], -2, 2)
        strength = strength + step
        if np.abs(step).max() < 1e-10:
            break
    return strength - strength.mean(-1, keepdims=True)


def check_linked(compared: np.ndarray) -> None:
    """Refuses systems that fall into groups which were never compared.

    Raises:
      CountError: says which systems no answer links to the first.
    """
    seen = {0}
    for _ in compared:
        seen |= {int(j) for i in seen for j in np.flatnonzero(compared[i] | compared[:, i])}
    apart = [i for i in range(len(compared)) if i not in seen]
    if apart:
        raise CountError(
            f"no answers link the systems number {', '.join(str(i + 1) for i in apart)} to the "
            "first one, so nothing ranks them; give more answers"
        )


def resampled(choices: Choices, systems: int, *, repeats: int = 1000, seed: int = 0) -> np.ndarray:
    """Strengths [repeats, systems] of resampled raters and items, both at once.

    Answers of one person, and answers to one pair of pictures, belong together: an answer is in a
    resample as often as its rater and its item were both drawn. A single rater is kept fixed.

    Args:
      choices: all answers.
      systems: how many.
      repeats: resamples.
      seed: of the draws.

    Source: Owen 2007, "The pigeonhole bootstrap".
    """
    rng = np.random.default_rng(seed)

    def drawn(groups: np.ndarray) -> np.ndarray:
        names, of = np.unique(groups, return_inverse=True)
        n = len(names)
        times = rng.multinomial(n, np.full(n, 1 / n), repeats) if n > 1 else np.ones((repeats, 1))
        return times[:, of]

    weights = drawn(choices.rater) * drawn(choices.item)
    tables = np.stack([wins(choices, systems, w) for w in weights])
    whole = wins(choices, systems)
    return bradley_terry(tables, whole + whole.T > 0)


def between(values: np.ndarray, method: str, level: float = LEVEL) -> Interval:
    """The middle of resampled values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, method)


class Agreement(NamedTuple):
    """How far raters agree.

    Attributes:
      share: of pairs of answers to one item that are equal; NaN where no item has two.
      alpha: Krippendorff's, nominal: 0 is chance, 1 is full agreement; NaN where there is nothing
        to agree on, or all answers are one.
      items: that two or more raters answered.
    """

    share: float
    alpha: float
    items: int


def agreement(choices: Choices) -> Agreement:
    """How far raters agree.

    Source: Krippendorff 2004, "Content analysis", chapter 11.
    """
    _, item = np.unique(choices.item, return_inverse=True)
    kinds, kind = np.unique(choices.won, return_inverse=True)
    counts = np.zeros((item.max(initial=-1) + 1, len(kinds)))
    np.add.at(counts, (item, kind), 1)
    counts = counts[counts.sum(1) > 1]
    if not len(counts):
        return Agreement(float("nan"), float("nan"), 0)
    said = counts.sum(1)
    equal, pairs = (counts * (counts - 1)).sum(1), said * (said - 1)
    apart = ((pairs - equal) / (said - 1)).sum() / said.sum()
    totals, n = counts.sum(0), said.sum()
    by_chance = (n * n - np.square(totals).sum()) / (n * (n - 1))
    alpha = 1 - apart / by_chance if by_chance else float("nan")
    return Agreement(float(equal.sum() / pairs.sum()), float(alpha), len(counts))


# --- Rank correlations -------------------------------------------------------------------------


def ranks(x: np.ndarray) -> np.ndarray:
    """Ranks from 1 on; equal values share the mean of theirs."""
    x = np.asarray(x, np.float64)
    return 1 + (x[:, None] > x).sum(1) + ((x[:, None] == x).sum(1) - 1) / 2


def check_ranked(a: np.ndarray, b: np.ndarray) -> None:
    """Refuses what has no rank correlation.

    Raises:
      MetricError: for other numbers of values, or fewer than two.
    """
    if len(a) != len(b) or len(a) < 2:
        raise MetricError(
            f"a rank correlation of {len(a)} and {len(b)} values: give two lists of the same two "
            "or more systems"
        )


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-b; NaN where all values of one are equal.

    Source: Kendall 1945, "The treatment of ties in ranking problems".
    """
    check_ranked(a, b)
    x, y = (np.sign(np.subtract.outer(v, v)) for v in map(np.asarray, (a, b)))
    length = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / length) if length else float("nan")


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rho, the correlation of ranks; NaN where all values of one are equal."""
    check_ranked(a, b)
    x, y = (ranks(v) - (len(v) + 1) / 2 for v in (a, b))
    length = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / length) if length else float("nan")


def chance(a: np.ndarray, b: np.ndarray) -> float | None:
    """How likely a random order is to have a Kendall's tau at least as far from zero.

    None for more systems than `ORDERS`, whose orders are too many to go through.
    """
    found = kendall(a, b)
    if len(a) > ORDERS or np.isnan(found):
        return None
    others = [abs(kendall(np.array(p), b)) for p in itertools.permutations(a)]
    return float(np.mean(np.array(others) >= abs(found) - 1e-12))
