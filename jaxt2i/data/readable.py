"""One rule for examples that a source lists and that cannot be read: left out, counted and told.

Batches have a rule of their own, as their number of rows is fixed (`jaxt2i.data.pipeline`).
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from jaxt2i.data.images import Unreadable
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources.base import Skips

Example = TypeVar("Example")


def readable(
    examples: Iterable[Example], read: Callable[[Example], Any], what: str
) -> Iterator[tuple[Example, Any]]:
    """Yields (example, what was read of it) of those that can be read.

    How many could not, and why, is told when the last one has been asked for.

    Args:
      examples: numbers of a source, or what else `read` takes.
      read: example -> anything; raises `Unreadable` for one that cannot be read.
      what: what they are left out of, for the message.

    Raises:
      DataError: when there are some and none can be read.
    """
    skips, found = Skips(), 0
    try:
        for example in examples:
            try:
                value = read(example)
            except Unreadable as error:
                skips.add(error.name, error.reason)
                continue
            found += 1
            yield example, value
    finally:
        if found and skips.counts:
            print(
                f"data: {skips.counts.total()} examples cannot be read and are left out of {what} "
                f"({skips}), the first {skips.listed[0]['file']}",
                file=sys.stderr,
                flush=True,
            )
    if skips.counts and not found:
        raise DataError(
            f"none of {skips.counts.total()} examples for {what} can be read ({skips}), the first "
            f"{skips.listed[0]['file']}; is config.data.path still mounted, and unchanged?"
        )
