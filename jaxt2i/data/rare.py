"""Seeing rare classes more often: how many times an epoch shows each picture.

The survey's open problem "rare and complex objects": where a class is in one picture of ten
thousand, a uniform epoch hardly trains it.
"""

import numpy as np

KINDS = ("repeat", "balanced")
# The first examples of a source without an end, whose classes tell how rare each is.
COUNTED = 2000


def presence(records: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(record, class) pairs, each once: int64 [n, 2].

    Args:
      records: [m], the record of each object.
      classes: [m], its class.
    """
    return np.unique(np.stack([records, classes], 1).astype(np.int64), axis=0)


def factors(kind: str, share: np.ndarray, count: int, threshold: float) -> np.ndarray:
    """What a class counts for in the weight of a record that shows it.

    "repeat" is repeat-factor sampling: with f the share of records that show a class, it is
    repeated max(1, sqrt(threshold / f)) times, and a record as often as its rarest class (Gupta et
    al. 2019, LVIS, section 4.2; threshold 0.001 there). "balanced" draws every class equally often
    and then one of its records; an epoch keeps its length.

    Args:
      kind: one of `KINDS`.
      share: [C], of the records that show each class.
      count: records that were counted; a class in none of them counts as if it were in one.
      threshold: for "repeat".

    Returns:
      float64 [C].
    """
    seen = np.maximum(share, 1 / count)
    if kind == "repeat":
        return np.maximum(1, np.sqrt(threshold / seen))
    return 1 / seen / np.count_nonzero(share)


def weight(kind: str, counts: np.ndarray, classes: np.ndarray) -> float:
    """How often an epoch shows one record.

    Args:
      kind: one of `KINDS`.
      counts: [C], of `factors`.
      classes: those that it shows, each once.
    """
    if kind == "repeat":
        return float(max(1.0, counts[classes].max(initial=0)))
    return float(counts[classes].sum())


def weights(kind: str, pairs: np.ndarray, count: int, threshold: float) -> np.ndarray:
    """How often an epoch shows each record; see `factors`.

    Args:
      kind: one of `KINDS`.
      pairs: of `presence`.
      count: records, N.
      threshold: for "repeat".

    Returns:
      float64 [N]; records without a class count once with "repeat" and never with "balanced".
    """
    counts = factors(kind, np.bincount(pairs[:, 1]) / count, count, threshold)
    if kind == "repeat":
        out = np.ones(count)
        np.maximum.at(out, pairs[:, 0], counts[pairs[:, 1]])
        return out
    return np.bincount(pairs[:, 0], counts[pairs[:, 1]], minlength=count)


def histogram(pairs: np.ndarray, seen: np.ndarray, names: list[str]) -> dict[str, list[float]]:
    """{class: [records that show it, how often an epoch shows it]}, the rarest class first.

    Args:
      pairs: of `presence`.
      seen: [N], how often an epoch shows each record.
      names: by class; a class without a name is its number.
    """
    records = np.bincount(pairs[:, 1])
    shown = np.bincount(pairs[:, 1], seen[pairs[:, 0]])
    order = np.argsort(records, kind="stable")
    return {
        (names[c] if c < len(names) else str(c)): [int(records[c]), round(float(shown[c]), 1)]
        for c in order.tolist()
        if records[c]
    }
