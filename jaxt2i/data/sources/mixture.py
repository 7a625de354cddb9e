"""Which collections a web source mixes, and which it mixed before.

A run may be continued with another mixture. `config.data.web.past`, which the run keeps in its work
directory, says what was mixed until which position of the stream: before it the order is what it
was, from it on the new mixture's. A collection that stays goes on behind what was seen of it.
"""

import collections
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from jaxt2i.data.schema import DataError
from jaxt2i.data.sources import files

# ((path, weight), ...)
Mixture = tuple[tuple[str, float], ...]


class Stage(NamedTuple):
    """What is mixed from a position of the stream on."""

    begin: int
    mixture: Mixture


def of(data: Any) -> Mixture:
    """What `config.data` mixes; relative paths of a mixture lie below `config.data.path`.

    Raises:
      DataError: for an entry that is none.
    """
    mixed = tuple(data.web.mix) or ((data.path, 1.0),)
    bad = [entry for entry in mixed if len(entry) != 2 or not float(entry[1]) > 0]
    if bad:
        raise DataError(f"config.data.web.mix holds {bad[0]!r}; expected (path, weight above 0)")
    below = data.path if data.web.mix else ""
    return _plain((p if files.remote(p) else posixpath.join(below, p), w) for p, w in mixed)


def stages(data: Any, split: str) -> list[Stage]:
    """What a split mixes, the earliest first; only training has a past."""
    begin, found = 0, []
    for until, mixed in data.web.get("past", ()) if split == data.split else ():
        found.append(Stage(begin, _plain(mixed)))
        begin = int(until)
    return [*found, Stage(begin, of(data))]


def changed(past: Sequence, was: Mixture, now: Mixture, position: int) -> tuple:
    """The past of a run that goes on.

    Args:
      past: ((position, mixture), ...), what was mixed until where, before `was`.
      was: what was mixed last.
      now: what is to be mixed.
      position: where it goes on.

    Returns:
      As `past`, before `now`.
    """
    past = tuple((int(until), _plain(mixed)) for until, mixed in past)
    if now == was:
        return past
    before = [entry for entry in past if entry[0] < position]
    last = past[len(before)][1] if len(before) < len(past) else was
    if last != now and position > 0:
        before.append((position, last))
    return tuple(before)


def members(mixture: Mixture) -> Iterator[tuple[str, int]]:
    """A name for each collection of a mixture: its path, and how often that came before."""
    before: collections.Counter = collections.Counter()
    for path, _ in mixture:
        yield path, before[path]
        before[path] += 1


def said(mixture: Mixture) -> str:
    """A mixture in words."""
    total = sum(weight for _, weight in mixture)
    return ", ".join(f"{weight / total:.1%} {path}" for path, weight in mixture)


def _plain(mixed: Iterable) -> Mixture:
    return tuple((str(path), float(weight)) for path, weight in mixed)
