"""Rows as a person gives them: in words, looked at, and what of them nothing reads."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jaxt2i.data import rows as in_rows
from jaxt2i.data.rows import Row
from jaxt2i.data.schema import DataError
from jaxt2i.data.tokenize import Tokenizer, left_out


def in_words(rows: Sequence[Row | str] | Row | str) -> list[Row]:
    """Captions, or rows, or one of them, as rows.

    Raises:
      DataError: for anything else, or nothing, and for a row that cannot be.
    """
    if isinstance(rows, (str, Mapping)) or not isinstance(rows, Iterable):
        rows = [rows]
    rows = [{"prompt": row} if isinstance(row, str) else row for row in rows]
    if not rows:
        raise DataError(f"no rows: expected captions, or rows such as {in_rows.EXAMPLE}")
    for row in rows:
        in_rows.check(row)
    return rows


def told(
    rows: Iterable[Row],
    method: str,
    read: set[str],
    tokenizers: Sequence[Tokenizer],
    note: Callable[[str, str], None],
) -> Iterator[Row]:
    """Rows as they are; what of them nothing reads is noted.

    Args:
      rows: that a person gave.
      method: what draws; what it drew itself holds what it was asked.
      read: words of a row that it reads, or what draws before it.
      tokenizers: what captions are read with.
      note: takes a kind of thing, and a sentence.
    """
    # Boxes and regions are measured in the picture that a row names.
    read = read | {"image"} if read & set(in_rows.PLACED) else read
    for row in rows:
        words: tuple[Any, ...] = () if row.get("drawn_by") == method else in_rows.CONDITIONS
        for word in (word for word in words if word in row and word not in read):
            note(f"{word} unread", f"{word!r} changes nothing: {method} does not read it")
        for word in ("prompt", "negative"):
            for tokenizer in tokenizers if row.get(word) and word in read else ():
                if left := left_out(tokenizer, row[word]):
                    note("captions not read whole", f"of {in_rows.said(row[word])} {left}")
        yield row
