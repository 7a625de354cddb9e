"""The best of several pictures, by a judge: what may be used instead of truncation."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxt2i.config import ConfigError, nearest
from jaxt2i.data.conditions import Row
from jaxt2i.data.rows import MAX_SEED
from jaxt2i.data.schema import DataError
from jaxt2i.evaluation import judges
from jaxt2i.evaluation.reading import Reader

# (pictures uint8 [n, H, W, 3], their captions) -> scores [n], more is better.
Score = Callable[[np.ndarray, list[str]], np.ndarray]


def scorer(judge: str, weights: Mapping[str, str] | None = None) -> Score:
    """A judge of pictures with their captions.

    Args:
      judge: of `judges.JUDGES`, those that see picture and caption apart.
      weights: {network: file}; others come from the cache or a checked download.

    Raises:
      ConfigError: for another name.
    """
    known = [name for name, one in judges.JUDGES.items() if one.scale]
    if judge not in known:
        raise ConfigError(f"judge {judge!r}; {nearest(judge, known)}")
    reader = Reader(dict(weights or {}), batch=8)
    return lambda pixels, captions: judges.values_of(judge, pixels, captions, reader)


def candidates(rows: Iterable[Row], count: int) -> Iterator[Row]:
    """Every row `count` times, in turn; that of seed s has the seeds from s * count on.

    Raises:
      DataError: for rows whose latents are given, and seeds that would be too large.
    """
    for number, row in enumerate(rows):
        if "z" in row or "towards" in row:
            raise DataError("the best of several is chosen among seeds: leave z and walks out")
        first = row.get("seed", 0) * count
        if first + count - 1 > MAX_SEED:
            raise DataError(f"seed {row['seed']} with {count} each: seeds end at {MAX_SEED}")
        at = {"group": number, "number": row.get("number", number), "own": row.get("note")}
        yield from (row | {"seed": first + k, "note": at} for k in range(count))


def chosen(
    drawn: Iterable[tuple[Row, dict[str, Any]]], count: int, judge: str, score: Score
) -> Iterator[tuple[Row, dict[str, Any]]]:
    """The best of each `count` that `candidates` made, with all of their scores in its row.

    Args:
      drawn: (row, what was drawn), in any order.
      count: pictures that one is chosen of.
      judge: its name.
      score: what it thinks.

    Raises:
      ConfigError: where no pictures are drawn, or for rows without a caption.
    """
    waiting: dict[int, list] = {}
    for row, out in drawn:
        if "image" not in out or not row.get("prompt"):
            raise ConfigError(f"{judge} looks at pictures and their captions: rows need a prompt")
        group = waiting.setdefault(row["note"]["group"], [])
        group.append((row, out))
        if len(group) < count:
            continue
        group = sorted(waiting.pop(row["note"]["group"]), key=lambda pair: pair[0]["seed"])
        pixels = np.stack([out["image"] for _, out in group])
        values = score(pixels, [row["prompt"] for row, _ in group])
        best, out = group[int(np.argmax(values))]
        at, best = best["note"], {k: v for k, v in best.items() if k != "note"}
        own = {"note": at["own"]} if at["own"] is not None else {}
        scores = {"judge": judge, "best": float(values.max()), "all": [*map(float, values)]}
        yield best | own | {"number": at["number"], "scores": scores}, out
