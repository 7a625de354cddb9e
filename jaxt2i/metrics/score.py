"""What a metric returns, and how it refuses input that it cannot score."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

Fact = str | int | float | bool


class MetricError(ValueError):
    """A metric cannot be computed; the message says what was seen, expected, and what to do."""


class FeatureError(MetricError):
    """Features of the wrong shape, or not finite."""


class CountError(MetricError):
    """Too few examples, or two sets that do not belong together."""


class StatisticsError(MetricError):
    """A file of statistics cannot be read, or belongs to something else."""


class Interval(NamedTuple):
    """Where a score lies if other examples had been drawn.

    Attributes:
      low: lower end, in the score's unit.
      high: upper end.
      level: share of repetitions that should fall inside.
      method: how it was found, in words.
    """

    low: float
    high: float
    level: float
    method: str


@dataclasses.dataclass(frozen=True)
class Score:
    """One number and what has to be known to compare it.

    Attributes:
      metric: "fid", "inception_score", ...
      value: the score.
      spread: the "+-" that papers print: population standard deviation over splits, subsets or
        folds of one set of examples. None where a metric has none.
      interval: from resampled examples, where one was asked for.
      facts: counts, features, preprocessing, protocol: plain values.
      warnings: sentences about what makes this number hard to compare.
    """

    metric: str
    value: float
    spread: float | None = None
    interval: Interval | None = None
    facts: dict[str, Fact] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def with_facts(self, **facts: Fact) -> "Score":
        """The same score with more facts, such as `features`, `preprocessing` and `protocol`."""
        return dataclasses.replace(self, facts={**self.facts, **facts})

    def with_interval(self, interval: Interval) -> "Score":
        """The same score with its interval."""
        return dataclasses.replace(self, interval=interval)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        out = dataclasses.asdict(self)
        out["interval"] = self.interval and self.interval._asdict()
        return out


def check_features(x: np.ndarray, what: str, least: int = 1, width: int | None = None) -> None:
    """Refuses features that no metric can use.

    Args:
      x: [N, D].
      what: their name in messages, "features of the generated images".
      least: rows that the metric needs.
      width: D of the set that they are compared with.

    Raises:
      FeatureError: for another shape, another width, NaN or infinity.
      CountError: for fewer rows.
    """
    if x.ndim != 2:
        raise FeatureError(
            f"{what} have the shape {list(x.shape)}, expected [examples, features]; average or "
            "flatten whatever lies between"
        )
    if width is not None and x.shape[1] != width:
        raise FeatureError(
            f"{what} are {x.shape[1]} wide and those they are compared with {width}; both sets "
            "must come from one network and one layer"
        )
    if len(x) < least:
        raise CountError(
            f"{what}: {len(x)} examples, at least {least} are needed; draw more, or ask for "
            "smaller subsets or fewer splits"
        )
    finite = np.isfinite(x).all(1)
    if not finite.all():
        raise FeatureError(
            f"{what} are not finite in {np.count_nonzero(~finite)} of {len(x)} rows, first in row "
            f"{finite.argmin()}; look at that image: its pixels are NaN, or the network overflowed "
            "in half precision (evaluate in float32)"
        )


def check_pairs(a: np.ndarray, b: np.ndarray, what: str) -> None:
    """Refuses two sets whose rows should belong together and cannot.

    Raises:
      CountError: for different numbers of rows.
    """
    if len(a) != len(b):
        raise CountError(
            f"{what}: {len(a)} and {len(b)} rows; row i of one must belong to row i of the other "
            "(was the padding of a last batch kept on one side?)"
        )


def unit_rows(x: np.ndarray, what: str) -> np.ndarray:
    """Rows divided by their length, float64.

    Raises:
      FeatureError: for a row of zeros, another shape, or values that are not finite.
    """
    x = np.asarray(x)
    check_features(x, what)
    x = x.astype(np.float64)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    if not length.all():
        raise FeatureError(
            f"{what}: row {int(length.argmin())} is all zeros and has no direction; was the "
            "padding of a last batch kept?"
        )
    return x / length
