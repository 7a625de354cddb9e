"""Condition rows in a person's words: what they may say, the files that hold them, layers of them.

`jaxt2i.data.conditions` makes arrays of them.
"""

import bisect
import difflib
import itertools
import json
import math
import numbers
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from jaxt2i import places
from jaxt2i.data.decoding import encoding_of
from jaxt2i.data.schema import DataError

# What a row may hold: what feeds the schema, what boxes are measured in, how to draw, and what is
# only carried along.
CONDITIONS = (
    *("prompt", "negative", "label", "objects", "image", "edit_region", "segmentation"),
    "text_vector",
)
FRAME, DRAWING = ("units", "size"), ("seed", "controls", "z", "towards")
CARRIED = ("note", "number", "file_name", "text", "drawn_by", "scores", "source_prompt")
WORDS = (*CONDITIONS, *FRAME, *DRAWING, *CARRIED)
# Words that may be names of files, and those that lie in the frame that FRAME describes.
FILES = ("image", "edit_region", "segmentation", "text_vector", "z")
PLACED = ("objects", "edit_region")
UNITS = ("fractions", "pixels")
MAX_SEED = 2**32 - 1
EXAMPLE = '{"prompt": "a red bird"}'
# Longest piece of a person's data in an error.
QUOTED = 80
# Largest number, beyond any use of one; JSON knows no bound.
LARGEST = 1e15


class Row(dict):
    """A row that knows where its words were read; otherwise a plain dictionary.

    The places are no part of it: they are not compared, not iterated over and not written.

    Attributes:
      origin: {word: "FILE line N"}; under "" the place of the row itself.
    """

    def __init__(self, words: Mapping[str, Any] = (), origin: Mapping[str, str] | None = None):
        super().__init__(words)
        self.origin = dict(origin or {})

    def __or__(self, other: Any) -> "Row":
        if not isinstance(other, Mapping):
            return NotImplemented
        kept = {word: place for word, place in self.origin.items() if word not in other}
        return Row({**self, **other}, kept | getattr(other, "origin", {}))

    def __ror__(self, other: Any) -> "Row":
        return Row(other) | self if isinstance(other, Mapping) else NotImplemented


def without(row: Mapping[str, Any], words: Sequence[str]) -> "Row":
    """A row without some words; errors still name its file and line."""
    kept = {word: value for word, value in row.items() if word not in words}
    return Row(kept, getattr(row, "origin", None))


def said(value: Any) -> str:
    """A value as its file shows it, shortened, for an error."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= QUOTED else text[: QUOTED - 4] + " ..."


def fault(row: Mapping, word: str, sentence: str) -> DataError:
    """The error of a word, with the place where it was read.

    Args:
      row: the row.
      word: of the row, or a part of one: "objects[2].box".
      sentence: what is wrong.
    """
    top, origin = re.split(r"[.\[]", word)[0], getattr(row, "origin", {})
    place = origin.get(top if top in row else "")
    return DataError(f"{place}: {sentence}" if place else sentence)


def misfit(row: Mapping, word: str, value: Any, expected: str) -> DataError:
    """The error of a word whose value is not what it should be."""
    return fault(row, word, f"{word!r} is {said(value)}; expected {expected}")


def nearest(name: Any, known: Sequence[str], count: int = 1) -> str:
    """The end of an error: the nearest right names, or what is known."""
    folded = {str(k).casefold(): str(k) for k in reversed(known)}
    near = difflib.get_close_matches(str(name).casefold(), folded, n=count, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(repr(folded[n]) for n in near)}?"
    listed = ", ".join(map(str, known[:20]))
    return f"known: {listed}{f' and {len(known) - 20} more' if len(known) > 20 else ''}"


def whole(value: Any) -> bool:
    """Whether a value is a whole number; True and False are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def number(value: Any) -> bool:
    """Whether a value is a finite number; True and False are none."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and -LARGEST <= value <= LARGEST


def check(row: Mapping[str, Any]) -> None:
    """Refuses a row that can be seen to be wrong without its files and without a run.

    Raises:
      DataError: names the place, the word, what was seen and what was expected.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"a condition row is {said(row)}; expected an object such as {EXAMPLE}")
    for word, value in row.items():
        if word not in WORDS:
            known = WORDS if difflib.get_close_matches(str(word), WORDS, cutoff=0.5) else CONDITIONS
            raise fault(row, word, f"a row has no word {word!r}; {nearest(word, known)}")
        if word in CARRIED:
            continue
        missing = value is None or (isinstance(value, float) and math.isnan(value))
        right, expected = RULES.get(word, (lambda _: True, "a value"))
        if missing or not right(value):
            raise misfit(row, word, value, expected + (", or to be left out" if missing else ""))


def _text(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _settings(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    plain = (isinstance(x, bool | str) or number(x) for x in value.values())
    return all(isinstance(name, str) for name in value) and all(plain)


def _size(value: Any) -> bool:
    pair = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2
    return pair and all(whole(n) and 0 < n <= LARGEST for n in value)


def _seed(value: Any) -> bool:
    return whole(value) and 0 <= value <= MAX_SEED


def _towards(value: Any) -> bool:
    """Another end, and how far there: {"prompt", "seed", "mix": 0 to 1, "mix_z": 0 to 1}."""
    if not isinstance(value, Mapping) or set(value) - {"prompt", "seed", "mix", "mix_z"}:
        return False
    shares = [value.get("mix"), value.get("mix_z")]
    between = all(number(x) and 0 <= x <= 1 for x in shares)
    return between and _text(value.get("prompt", "")) and _seed(value.get("seed", 0))


# Word -> (whether a value is right, what was expected).
RULES = {
    "prompt": (lambda x: _text(x) and bool(x.strip()), "a text that is not empty"),
    "negative": (_text, "a text"),
    "units": (lambda x: isinstance(x, str) and x in UNITS, '"fractions" or "pixels"'),
    "size": (_size, "[width, height] of the picture in pixels, two whole numbers from 1 on"),
    "seed": (_seed, f"a whole number from 0 to {MAX_SEED}"),
    "towards": (_towards, 'an end of a walk such as {"prompt": "b", "mix": 0.5, "mix_z": 0.0}'),
    "controls": (_settings, 'an object of numbers, texts and truths, such as {"guidance": 5.0}'),
}


# --- files ----------------------------------------------------------------------------------------


def read_file(path: epath.PathLike) -> list[Row]:
    """The rows of a file: one JSON object a line, or, in a .json file, one object or a list.

    Files that a row names lie beside it, here or in a store: their names become absolute.

    Raises:
      DataError: names the file and the line.
    """
    path = places.of(path, "the file of rows")
    parse = _document if path.suffix.lower() == ".json" else _lines
    rows, folder = [], (path if places.scheme_of(path) else path.absolute()).parent
    for line, value in parse(path, _decoded(path)):
        place = f"{path} line {line}"
        if not isinstance(value, dict):
            raise DataError(f"{place}: holds {said(value)}; expected an object such as {EXAMPLE}")
        row = Row(value, {"": place, **dict.fromkeys(value, place)})
        check(row)
        rows.append(row | _anchored(row, folder))
        rows[-1].origin = row.origin
    if not rows:
        raise DataError(f"{path}: holds no rows; expected a line such as {EXAMPLE}")
    return rows


def close_files(path: epath.Path) -> str:
    """What is beside a file that is missing, for the end of an error."""
    try:
        names = sorted(x.name for x in itertools.islice(path.parent.iterdir(), 10_000))
    except Exception:  # stores have errors of their own
        return f"; there is no folder {path.parent} either"
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; {path.parent} holds none of that name"


def _decoded(path: epath.Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file{close_files(path)}") from None
    except Exception as error:  # stores have errors of their own
        why = getattr(error, "strerror", "") or f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(f"{path}: cannot be read ({why})") from None
    encoding, content = encoding_of(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path} line {line}: not {encoding.upper()[:6].rstrip('-')} text (byte "
            f"{content[error.start]:#04x}); save the file as UTF-8"
        ) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} stands twice")
    return out


JSON = json.JSONDecoder(object_pairs_hook=_once)


def _lines(path: epath.Path, text: str) -> Iterator[tuple[int, Any]]:
    """(number of the line, what it holds); a text's other kinds of line ends are content."""
    for line, part in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        if not part.strip():
            continue
        try:
            yield line, JSON.decode(part)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path} line {line}: not JSON ({_reason(error)}): {said(part.strip())}; expected "
                f"an object such as {EXAMPLE} on each line; objects over several lines belong in a "
                ".json file, captions alone in --prompts-file"
            ) from None


def _document(path: epath.Path, text: str) -> Iterator[tuple[int, Any]]:
    """(line where it begins, element of the list), or the one object."""
    ends = [found.start() for found in re.finditer("\n", text)]
    blank = re.compile(r"[ \t\r\n]*")
    at = blank.match(text).end()
    if at == len(text):
        return
    several = text[at] == "["
    at = blank.match(text, at + several).end()
    try:
        while not (several and text[at : at + 1] == "]"):
            value, end = JSON.raw_decode(text, at)
            yield bisect.bisect_left(ends, at) + 1, value
            at = blank.match(text, end).end()
            if not several or text[at : at + 1] == "]":
                break
            if text[at : at + 1] != ",":
                raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
            at = blank.match(text, at + 1).end()
            if text[at : at + 1] == "]":
                raise json.JSONDecodeError("Expecting value", text, at)
        if (rest := blank.match(text, at + several).end()) < len(text):
            raise json.JSONDecodeError("Extra data", text, rest)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", bisect.bisect_left(ends, at) + 1)
        raise DataError(
            f"{path} line {line}: not JSON ({_reason(error)}); expected one object or a list of "
            "objects; one object a line belongs in a .jsonl file"
        ) from None


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _anchored(row: Row, folder: epath.Path) -> dict[str, Any]:
    """Those words of a row that name files, with their folder."""

    def at(name: Any) -> Any:
        return str(folder / name) if isinstance(name, str) and name and "://" not in name else name

    out = {word: at(row[word]) for word in FILES if word in row}
    if isinstance(row.get("objects"), list):
        out["objects"] = [
            {**x, "mask": at(x["mask"])} if isinstance(x, dict) and "mask" in x else x
            for x in row["objects"]
        ]
    return out


# --- layers ---------------------------------------------------------------------------------------


def laid_over(*layers: Sequence[Mapping]) -> list[Row]:
    """Rows of several origins as one: later layers win; a layer of one row is every row's.

    Raises:
      DataError: when the layers have different lengths, or measure boxes differently.
    """
    counts = [len(layer) for layer in layers]
    if not counts or 0 in counts or any(n not in (1, max(counts)) for n in counts):
        raise DataError(
            f"layers of {' and '.join(map(str, counts)) or 'no'} rows do not go together; expected "
            "as many in each, or one that is laid over or under all"
        )
    out = []
    for i in range(max(counts)):
        parts = [Row() | layer[i if len(layer) > 1 else 0] for layer in layers]
        row = Row()
        for part in parts:
            row = row | part
        _one_frame(row, parts)
        out.append(row)
    return out


def _one_frame(row: Row, parts: Sequence[Row]) -> None:
    """Refuses boxes of two layers that are not measured alike: units are one for the whole row."""
    givers = {word: part for part in parts for word in PLACED if word in part}
    for a, b in itertools.combinations(givers, 2):
        sizes = [givers[word].get("size") for word in (a, b)]
        units = [givers[word].get("units", UNITS[0]) for word in (a, b)]
        if units[0] != units[1] or (None not in sizes and list(sizes[0]) != list(sizes[1])):
            raise fault(
                row,
                a,
                f"{a!r} and {b!r} come from two layers, measured in {units[0]} of "
                f"{sizes[0] or 'the picture'} and in {units[1]} of {sizes[1] or 'the picture'}; "
                "expected the same 'units' and 'size' in both",
            )
