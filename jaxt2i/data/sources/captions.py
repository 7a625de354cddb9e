"""Files that hold captions of a folder: a text file beside a picture, metadata.jsonl and .csv.

What is not UTF-8, or what a byte order mark says instead, is no caption (`jaxt2i.data.decoding`);
every line that cannot be used is told apart, with its number, and the others are used.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jaxt2i.data import decoding
from jaxt2i.data.decoding import NOT_UTF8
from jaxt2i.data.images import SYSTEM, Unreadable
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources.base import BAD_LINE, NO_TEXT, clean_caption

METADATA = ("metadata.jsonl", "metadata.csv")
COLUMNS = ("file_name", "text")


def _lines(file: Path) -> list[str]:
    try:
        return decoding.lines(file.read_bytes())
    except OSError as error:
        raise Unreadable(file, SYSTEM) from error


def sidecar(file: Path) -> tuple[list[str], list[int]]:
    """Captions of a text file, one a line, and the numbers of the lines that are not UTF-8.

    Raises:
      Unreadable: when the file cannot be opened or holds no caption; its name then ends in the
        number of the line that is to blame, if there is one.
    """
    texts, bad = [], []
    for number, line in enumerate(_lines(file), 1):
        if not decoding.is_text(line):
            bad.append(number)
        elif text := clean_caption(line):
            texts.append(text)
    if not texts:
        raise Unreadable(f"{file}:{bad[0]}", NOT_UTF8) if bad else Unreadable(file, NO_TEXT)
    return texts, bad


def read_metadata(file: Path) -> Iterator[tuple[int, str, str, list[str]]]:
    """Rows of a metadata file: (line, why it cannot be used or "", file name, raw captions).

    Comma-separated values are read strictly: a row with more fields than the header has names, as
    an unquoted comma in a caption makes them, and a quote that is not closed are malformed. The
    rows after them are read on from the next line.

    Raises:
      DataError: when the columns are missing; names those that are there.
      Unreadable: when the file cannot be opened.
    """
    lines = _lines(file)
    seen: set[str] = set()
    for number, row in (_csv_rows if file.suffix == ".csv" else _jsonl_rows)(file, lines):
        if isinstance(row, str):
            yield number, row, "", []
            continue
        seen |= set(row)
        name, text = row.get("file_name"), row.get("text")
        texts = [text] if isinstance(text, str) else text
        right = isinstance(name, str) and name and isinstance(texts, list)
        if not right or not all(isinstance(t, str) for t in texts):
            yield number, BAD_LINE, "", []
        elif not all(map(decoding.is_text, (name, *texts))):
            yield number, NOT_UTF8, "", []
        else:
            yield number, "", name, texts
    if seen and not set(COLUMNS) <= seen:
        raise DataError(_columns(file, seen))


def _columns(file: Path, seen: Iterable[str]) -> str:
    return (
        f"{file}: no row with both file_name and text; its columns are "
        f"{', '.join(sorted(map(str, seen))) or 'none'}. Rename them, or set --config.data.path=DIR"
    )


def _csv_rows(file: Path, lines: list[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line, {column: value}, or why the row cannot be used)."""
    header: list[str] = []
    for number, fields in _records([line.replace("\0", "") for line in lines]):
        if fields == []:  # a blank line
            continue
        if not header:
            header = fields or []
            if not set(COLUMNS) <= set(header):
                raise DataError(_columns(file, header))
        elif fields is None or len(fields) > len(header):
            yield number, BAD_LINE
        else:
            yield number, dict.fromkeys(header) | dict(zip(header, fields, strict=False))
    if not header:
        raise DataError(_columns(file, ()))


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


def _jsonl_rows(file: Path, lines: list[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line, {key: value}, or why the row cannot be used)."""
    for number, line in enumerate(lines, 1):
        if not decoding.is_text(line):
            yield number, NOT_UTF8
        elif line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield number, row if isinstance(row, dict) else BAD_LINE
