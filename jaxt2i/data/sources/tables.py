"""Tables with a picture in each row: what Hugging Face's `datasets` keep, and others like them.

Parquet files and Arrow files (`Dataset.save_to_disk`), whose pictures are bytes, or a structure of
bytes and a path. Captions stay in memory; pictures are read when they are asked for, of parquet a
row group at a time.
"""

import bisect
import json
import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxt2i.data.decoding import decoded
from jaxt2i.data.images import CORRUPT, Unreadable
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources.base import NO_CAPTION, caption_in

SUFFIXES = (".parquet", ".arrow")
# What `datasets` leaves beside its tables.
CACHE = "cache-"
# Names of the columns, the likeliest first.
PICTURES = ("image", "jpg", "jpeg", "png", "webp", "img", "picture", "photo")
TEXTS = ("text", "caption", "captions", "texts", "prompt", "sentences", "description")


def is_table(name: str) -> bool:
    """Whether a file may be a table of pictures, by its name."""
    base = posixpath.basename(name)
    return base.endswith(SUFFIXES) and not base.startswith((CACHE, "metadata."))


class Table:
    """One file.

    Attributes:
      texts: of each row (captions, and why there are none or "").
      groups: parts that pictures are read in.
    """

    def __init__(self, texts: list[tuple[list[str], str]], ends: Sequence[int], pictures):
        self.texts, self.groups = texts, len(ends)
        self._ends, self.pictures = list(ends), pictures

    def place(self, number: int) -> tuple[int, int]:
        """(group, row in it) of a row."""
        group = bisect.bisect_right(self._ends, number)
        return group, number - (self._ends[group - 1] if group else 0)


def opened(file: Path) -> Table | None:
    """The table in a file; None where no column holds pictures.

    Raises:
      Unreadable: for a damaged file.
      DataError: where no column, or one of several, could be the captions.
    """
    import pyarrow

    try:
        return (_arrow if file.suffix == ".arrow" else _parquet)(file)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise Unreadable(file, CORRUPT) from error


def _parquet(file: Path) -> Table | None:
    import pyarrow.parquet

    found = pyarrow.parquet.ParquetFile(file)
    chosen = columns(found.schema_arrow, file)
    if chosen is None:
        return None
    picture, text = chosen
    ends = np.cumsum([found.metadata.row_group(i).num_rows for i in range(found.num_row_groups)])
    texts = values(found.read(columns=[text])[text])

    def pictures(group: int):
        try:
            # Opened anew: one reader serves one thread.
            read = pyarrow.parquet.ParquetFile(file).read_row_group(group, columns=[picture])
        except (pyarrow.ArrowException, OSError) as error:
            raise Unreadable(file, CORRUPT) from error
        return read[picture].combine_chunks()

    return Table(list(map(captions_in, texts)), ends.tolist(), pictures)


def _arrow(file: Path) -> Table | None:
    import pyarrow

    source = pyarrow.memory_map(str(file))  # stays open behind the batches
    try:
        reader = pyarrow.ipc.open_stream(source)
        batches = list(reader)
    except pyarrow.ArrowInvalid:
        source.seek(0)
        reader = pyarrow.ipc.open_file(source)
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
    chosen = columns(reader.schema, file)
    if chosen is None:
        return None
    for batch in batches:
        batch.validate(full=True)  # else damage would be met where nothing can be said
    picture, text = chosen
    texts = [value for batch in batches for value in values(batch[text])]
    ends = np.cumsum([len(batch) for batch in batches])
    return Table(
        list(map(captions_in, texts)), ends.tolist(), lambda group: batches[group][picture]
    )


def columns(schema, file: Path) -> tuple[str, str] | None:
    """Names of the columns of pictures and of captions; None where no column holds pictures.

    Raises:
      DataError: names the columns, where none or several could be the captions.
    """
    import pyarrow

    said = _features(schema)
    holds = {field.name: field.type for field in schema}
    pictures = [name for name in holds if said.get(name) == "Image"]
    pictures += [name for name in PICTURES if name in holds and _of_bytes(holds[name])]
    pictures += [n for n in holds if pyarrow.types.is_struct(holds[n]) and _of_bytes(holds[n])]
    if not pictures:
        return None
    texts = [name for name in holds if _of_texts(holds[name]) and name != pictures[0]]
    known = [name for name in TEXTS if name in texts]
    if not known and len(texts) != 1:
        raise DataError(
            f"{file}: which of its columns holds the captions? It has {', '.join(holds)}; expected "
            f"texts in one called {' or '.join(TEXTS[:2])}: rename it (datasets' rename_column)"
        )
    return pictures[0], (known or texts)[0]


def _features(schema) -> dict[str, Any]:
    """{column: kind} as `datasets` writes it into a table's schema."""
    try:
        said = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = said["info"]["features"]
        return {name: feature.get("_type") for name, feature in features.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _of_bytes(kind) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return any(field.name == "bytes" and _of_bytes(field.type) for field in kind)
    return types.is_binary(kind) or types.is_large_binary(kind)


def _of_texts(kind) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind) or types.is_list(kind) or types.is_large_list(kind):
        return _of_texts(kind.value_type)
    return types.is_string(kind) or types.is_large_string(kind)


def values(column) -> list[Any]:
    """A column's values; texts that are not UTF-8 stay bytes."""
    import pyarrow

    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        kind = column.type
        if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
            return [_cell(cell) for cell in column]
        kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
        cells = column.cast(kind).cast(pyarrow.large_binary()).to_pylist()
        texts = [None if cell is None else decoded(cell) for cell in cells]
        return [c if t is None else t for t, c in zip(texts, cells, strict=True)]


def _cell(cell) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError:
        return b"\xff"


def captions_in(value: Any) -> tuple[list[str], str]:
    """(captions of a cell: a text, or a list of them; "", or why there are none)."""
    if not isinstance(value, list):
        text, fault = caption_in(value)
        return ([text] if text else []), fault
    found = [caption_in(part) for part in value]
    texts = [text for text, _ in found if text]
    fault = next((why for _, why in found if why), NO_CAPTION)
    return texts, "" if texts else fault


def cell(pictures, row: int, where: str) -> bytes | str | None:
    """A cell of a column of pictures: its bytes, else where the picture lies, if it says so.

    Raises:
      Unreadable: for a cell that cannot be read.
    """
    try:
        value = pictures[row].as_py()
    except (ValueError, IndexError, OSError) as error:
        raise Unreadable(where, CORRUPT) from error
    if isinstance(value, dict):
        path = value.get("path")
        return value.get("bytes") or (path if isinstance(path, str) else None)
    return value
