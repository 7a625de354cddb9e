"""Files that hold captions of a folder: a text file beside a picture, and metadata files.

What is not UTF-8, or what a byte order mark says instead, is no caption (`jaxt2i.data.decoding`);
every line that cannot be used is told apart, with its number, and the others are used.
"""

import collections
import csv
import dataclasses
import io
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from jaxt2i.data import decoding
from jaxt2i.data.decoding import NOT_UTF8
from jaxt2i.data.images import CORRUPT, Unreadable
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources import tables
from jaxt2i.data.sources.base import BAD_LINE, NO_TEXT, clean_caption, shortened

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
COLUMNS = ("file_name", "text")
# A line in a language of its own, "de.utf8=Ein Vogel", as Tux Paint marks them; its other lines
# are English.
MARK = re.compile(r"\s*([a-z]{2,3}(?:[_-]\w{2,4})?(?:@\w+)?)\.utf-?8\s*=(.*)", re.I | re.S)
UNMARKED = "en"
NO_LANGUAGE = "no caption in config.data.languages"


@dataclasses.dataclass(frozen=True)
class Captions:
    """What a text file says.

    Attributes:
      texts: its captions, at least one.
      bad: numbers of the lines that are not UTF-8.
      spoken: {language: captions in it}, "" where the file does not say; used or not.
    """

    texts: list[str]
    bad: list[int]
    spoken: collections.Counter[str]


def sidecar(content: bytes, name: str, languages: Sequence[str] = ()) -> Captions:
    """Captions of a text file, one a line.

    Args:
      content: of the file.
      name: what errors call it.
      languages: of which lines are used where the file marks languages, see `MARK`; "pt" is
        "pt_BR" too. None: all.

    Raises:
      Unreadable: when it holds no caption; its name then ends in the number of the line that is to
        blame, if there is one.
    """
    found, bad, marks = [], [], False
    for number, line in enumerate(decoding.lines(content), 1):
        if not decoding.is_text(line):
            bad.append(number)
            continue
        mark = MARK.match(line)
        language, text = mark.groups() if mark else ("", line)
        marks = marks or mark is not None
        if text := clean_caption(text):
            found.append((language, text))
    if not found:
        raise Unreadable(f"{name}:{bad[0]}", NOT_UTF8) if bad else Unreadable(name, NO_TEXT)
    if marks:
        found = [(language or UNMARKED, text) for language, text in found]
    spoken = collections.Counter(language for language, _ in found)
    if marks and languages:
        found = [(spoken, text) for spoken, text in found if _is_wanted(spoken, languages)]
    if not found:
        raise Unreadable(name, NO_LANGUAGE)
    return Captions([text for _, text in found], bad, spoken)


def _is_wanted(language: str, languages: Sequence[str]) -> bool:
    """Whether a language, or the one that it is a kind of, is among others."""
    kinds = {language.casefold(), re.split(r"[_\-@]", language.casefold())[0]}
    return not kinds.isdisjoint(map(str.casefold, languages))


def read_metadata(content: bytes, name: str) -> Iterator[tuple[int, str, str, list[str]]]:
    """Rows of a metadata file: (line, why it cannot be used or "", file name, raw captions).

    Comma-separated values are read strictly: a row with more fields than the header has names, as
    an unquoted comma in a caption makes them, and a quote that is not closed are malformed. The
    rows after them are read on from the next line.

    Args:
      content: of the file.
      name: what errors call it; its ending says how it is read. Rows of parquet count as lines.

    Raises:
      DataError: when the columns are missing; names those that are there.
      Unreadable: for a damaged parquet file.
    """
    read = {".csv": _csv_rows, ".parquet": _parquet_rows}
    seen: set[str] = set()
    for number, row in read.get(posixpath.splitext(name)[1], _jsonl_rows)(name, content):
        if isinstance(row, str):
            yield number, row, "", []
            continue
        seen |= set(row)
        image, text = row.get("file_name"), row.get("text")
        texts = [text] if isinstance(text, str | bytes) else text
        right = isinstance(image, str | bytes) and image and isinstance(texts, list)
        if not right or not all(isinstance(t, str | bytes) for t in texts):
            yield number, BAD_LINE, "", []
        elif not all(isinstance(t, str) and decoding.is_text(t) for t in (image, *texts)):
            yield number, NOT_UTF8, "", []
        else:
            yield number, "", image, texts
    if seen and not set(COLUMNS) <= seen:
        raise DataError(_columns(name, seen))


def _columns(name: str, seen: Iterable[str]) -> str:
    there = ", ".join(map(shortened, sorted(map(str, seen))[:9])) or "none"
    return (
        f"{name}: no row with both file_name and text; its columns are {there}. Rename them, or "
        "set --config.data.path=DIR"
    )


def _csv_rows(name: str, content: bytes) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line, {column: value}, or why the row cannot be used)."""
    header: list[str] = []
    for number, fields in _records([x.replace("\0", "") for x in decoding.lines(content)]):
        if fields == []:  # a blank line
            continue
        if not header:
            header = fields or []
            if not set(COLUMNS) <= set(header):
                raise DataError(_columns(name, header))
        elif fields is None or len(fields) > len(header):
            yield number, BAD_LINE
        else:
            yield number, dict.fromkeys(header) | dict(zip(header, fields, strict=False))
    if not header:
        raise DataError(_columns(name, ()))


def _records(lines: list[str]) -> Iterator[tuple[int, list[str] | None]]:
    """(line where it begins, fields; None where they are malformed)."""
    start = 0
    while start < len(lines):
        reader = csv.reader((lines[i] for i in range(start, len(lines))), strict=True)
        first = start
        try:
            for fields in reader:
                yield first + 1, fields
                first = start + reader.line_num
            return
        except csv.Error:
            # A quote that is not closed may have taken many lines with it.
            yield first + 1, None
            start = first + 1


def _parquet_rows(name: str, content: bytes) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(row, {column: value}) of a table; texts that are not UTF-8 stay bytes."""
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(content))
        there = file.schema_arrow.names
        if not set(COLUMNS) <= set(there):
            raise DataError(_columns(name, there))
        read = file.read(columns=list(COLUMNS))
        found = {column: tables.values(read[column]) for column in COLUMNS}
    except (pyarrow.ArrowException, OSError, OverflowError) as error:
        raise Unreadable(name, CORRUPT) from error
    for number, cells in enumerate(zip(*found.values(), strict=True), 1):
        yield number, dict(zip(found, cells, strict=True))


def _jsonl_rows(name: str, content: bytes) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line, {key: value}, or why the row cannot be used)."""
    for number, line in enumerate(decoding.lines(content), 1):
        if not decoding.is_text(line):
            yield number, NOT_UTF8
        elif line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield number, row if isinstance(row, dict) else BAD_LINE
