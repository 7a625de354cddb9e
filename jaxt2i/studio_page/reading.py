"""What a person typed, chose, uploaded and painted, as rows of conditions; and rows as that again.

Everything here is plain data: the page's components give it and take it.
"""

import base64
import dataclasses
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxt2i import api
from jaxt2i.data import images
from jaxt2i.data.rows import JSON, Row, without
from jaxt2i.data.schema import DataError

# Most pictures that are drawn at one press, in all.
MOST = 64
# Words of a row that the page takes as files.
FILES = ("image", "segmentation", "text_vector")
# Words that describe a layout.
LAYOUT = ("objects", "units", "size")
# Words that a system can do without.
OPTIONAL = ("negative", "edit_region")
# What to do where a word is missing.
ASKED = {
    "prompt": "there is no caption: write one, or several, one a line",
    "objects": 'there are no boxes: draw one with the mouse or a finger, press "Example", or write '
    "the layout as JSON",
    "image": "there is no photograph: choose one to be edited",
    "label": "no class is chosen",
    "segmentation": "there is no map of classes: choose a picture whose pixels are their numbers",
    "text_vector": "there is no vector of a text: choose an .npy file of one",
}
# Where a PNG keeps the row that draws it again.
KEPT = "jaxt2i"
# Longest side of a photograph on the page, which regions are painted on.
SHOWN = 768


@dataclasses.dataclass(frozen=True)
class Form:
    """What the page's form holds.

    Attributes:
      prompts: captions, one a line.
      words: {word of a row: what was given for it}; "objects" is a layout as text, "edit_region" a
        painted picture as a data URL, and `FILES` are names of files.
    """

    prompts: str = ""
    words: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def rows_of(form: Form, about: Mapping[str, Any], uploads: Path) -> list[Row]:
    """The rows that a form asks for: one for each caption.

    Args:
      form: what is given.
      about: `System.describe` of who draws.
      uploads: the folder in which every file of the page lies.

    Raises:
      DataError: says in a sentence what is missing or cannot be read.
    """
    needed = [word for word in about["conditions"] if word not in OPTIONAL]
    captions = [line.strip() for line in form.prompts.splitlines() if line.strip()]
    base = Row(words_of(form.words, uploads))
    if "prompt" in needed and not captions:
        raise DataError(ASKED["prompt"])
    for word in needed:
        if word != "prompt" and word not in base:
            raise DataError(ASKED.get(word, f"{word!r} is missing"))
    return [base | {"prompt": text} for text in captions] or [base]


def words_of(given: Mapping[str, Any], uploads: Path) -> dict[str, Any]:
    """The words of a row that were given beside its caption; what was left empty is left out."""
    out: dict[str, Any] = {}
    for word, value in given.items():
        if word == "objects":
            out |= layout_of(value or "", uploads)
        elif value is None or value == "":
            continue
        elif word == "edit_region":
            region = region_of(value)
            out |= {word: region} if region.any() else {}
        elif word in FILES:
            out[word] = str(ours(value, uploads, word))
        else:
            out[word] = value
    return out


def ours(file: str, uploads: Path, word: str) -> Path:
    """A file that the page holds: a browser that is not its own might name any other.

    Raises:
      DataError: for one that lies elsewhere.
    """
    path = Path(file)
    if not path.resolve().is_relative_to(uploads.resolve()) or not path.is_file():
        raise DataError(
            f"{word!r} is {str(path)!r}, which is no file of this page; choose it again"
        )
    return path


def layout_of(text: str, uploads: Path) -> dict[str, Any]:
    """The words of a layout that is written as JSON; none where it has no objects.

    Args:
      text: a list of objects, or an object with "objects", "units" and "size".
      uploads: see `rows_of`.

    Raises:
      DataError: for what is none.
    """
    if not text.strip():
        return {}
    example = '[{"label": "cat", "box": [0.1, 0.2, 0.4, 0.5]}]'
    try:
        found = JSON.decode(text)
    except (ValueError, RecursionError) as error:
        where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(
            f"the layout is not JSON{where}; expected a list such as {example}"
        ) from None
    found = {"objects": found} if isinstance(found, list) else found
    if not isinstance(found, dict) or not isinstance(found.get("objects"), list):
        raise DataError(f"the layout holds no list of objects; expected one such as {example}")
    if strange := sorted(set(found) - set(LAYOUT)):
        known = ", ".join(map(repr, LAYOUT))
        raise DataError(f"the layout has {strange[0]!r}; expected {known} alone")
    for number, thing in enumerate(found["objects"]):
        if isinstance(thing, dict) and isinstance(mask := thing.get("mask"), str):
            ours(mask, uploads, f"objects[{number}].mask")
    return found if found["objects"] else {}


def layout_text(row: Mapping[str, Any], folder: Path) -> str:
    """The layout of a row as JSON, an object a line; masks become files in a folder."""
    things = []
    for thing in row.get("objects", ()):
        if isinstance(thing.get("mask"), np.ndarray):
            file = folder / f"mask{len(list(folder.glob('mask*'))):04d}.png"
            file.write_bytes(png(thing["mask"]))
            thing = {**thing, "mask": str(file)}
        things.append(json.dumps(thing, ensure_ascii=False))
    if not things:
        return ""
    listed = "[\n " + ",\n ".join(things) + "\n]"
    frame = {word: list(row[word]) for word in ("size",) if word in row} | {
        word: row[word] for word in ("units",) if word in row
    }
    if not frame:
        return listed
    rest = ", ".join(f'"{word}": {json.dumps(value)}' for word, value in frame.items())
    return f'{{"objects": {listed}, {rest}}}'


def region_of(url: str) -> np.ndarray:
    """A painted region, a black and white PNG as a data URL: uint8 [h, w], 255 where painted.

    Raises:
      DataError: for what is none.
    """
    head, _, content = url.partition(",")
    try:
        if head != "data:image/png;base64":
            raise ValueError
        picture = images.read_rgb(base64.b64decode(content, validate=True), name="the region")
    except (ValueError, images.Unreadable):
        raise DataError("the painted region did not arrive as a picture; paint it again") from None
    return np.where(np.asarray(picture.convert("L")) > 127, 255, 0).astype(np.uint8)


def at_hand(given: Any) -> bool:
    """Whether what a row has for a word of `FILES` is here: rows may come without their files."""
    return isinstance(given, np.ndarray | list) or (
        isinstance(given, str) and Path(given).is_file()
    )


def file_of(given: Any, folder: Path, word: str) -> str | None:
    """What a row has for a word of `FILES`, as a file; None where it is not here."""
    if not isinstance(given, np.ndarray | list):
        return given if at_hand(given) else None
    given = np.asarray(given)
    if given.dtype == np.uint8:
        file = folder / f"{word}.png"
        file.write_bytes(png(given))
    else:
        file = folder / f"{word}.npy"
        np.save(file, given)
    return str(file)


def shown_photo(given: str | np.ndarray) -> str:
    """A photograph as the page shows it, and as regions are painted on: a data URL.

    Raises:
      DataError: for a file that is no picture.
    """
    from PIL import Image

    try:
        array = isinstance(given, np.ndarray)
        picture = Image.fromarray(given) if array else images.read_rgb(given)
    except images.Unreadable as error:
        known, name = ", ".join(images.FORMATS), Path(given).name
        raise DataError(f"{name}: {error.reason}; expected a picture ({known})") from None
    share = min(1.0, SHOWN / max(picture.size))
    picture = picture.resize([max(1, round(n * share)) for n in picture.size])
    return data_url(png(np.asarray(picture)))


def data_url(content: bytes) -> str:
    """A PNG as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def png(pixels: np.ndarray, row: Mapping[str, Any] | None = None) -> bytes:
    """A PNG that carries the row that draws it again.

    Args:
      pixels: uint8 [H, W, 3] or [H, W].
      row: without arrays.
    """
    from PIL import Image, PngImagePlugin

    out, info = io.BytesIO(), PngImagePlugin.PngInfo()
    if row is not None:
        info.add_itxt(KEPT, json.dumps(row, ensure_ascii=False))
    Image.fromarray(pixels).save(out, "png", pnginfo=info)
    return out.getvalue()


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row that a PNG can carry and the page can show: arrays and files of the page are left out.

    What is left out is named, so that nobody takes the row for the whole.
    """
    out, dropped = {}, []
    for word, value in without(row, ("number", "text", "file_name")).items():
        if isinstance(value, np.ndarray) or word in FILES:
            dropped.append(word)
        elif word == "objects":
            out[word] = [{k: v for k, v in thing.items() if k != "mask"} for thing in value]
        else:
            out[word] = value
    return out | ({"note": f"without {', '.join(dropped)}"} if dropped else {})


def shown_row(row: Mapping[str, Any]) -> str:
    """A row as JSON for a person, a word a line."""
    words = [f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in plain(row).items()]
    return "{\n " + ",\n ".join(words) + "\n}"


def row_in(file: str) -> Row:
    """The first row of a file that pictures were saved with: a PNG of this page, or a
    metadata.jsonl.

    Raises:
      DataError: where there is none.
    """
    from PIL import Image

    path = Path(file)
    if path.suffix.lower() in (".jsonl", ".json"):
        return next(iter(api.conditions.read_file(path)))
    try:
        with Image.open(path) as picture:
            text = picture.info.get(KEPT) or getattr(picture, "text", {}).get(KEPT, "")
    except (OSError, ValueError, Image.DecompressionBombError):
        text = ""
    try:
        row = JSON.decode(text)
        api.conditions.rows.check(row)
    except (ValueError, RecursionError):
        raise DataError(
            f"{path.name} holds no settings; expected a PNG saved from this page, or the "
            "metadata.jsonl beside drawn pictures"
        ) from None
    return Row(row)


def seed_of(value: Any) -> int:
    """The seed that was typed.

    Raises:
      DataError: for what is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or int(value) != value:
        raise DataError(f"the seed is {value!r}; expected a whole number from 0 to {api.SEEDS - 1}")
    return int(value)


def expanded(rows: Sequence[Row], num: Any, seed: Any, systems: int = 1) -> list[Row]:
    """Each row `num` times, at seeds that follow each other.

    Raises:
      DataError: for more pictures than are drawn at once, or for no such seed.
    """
    if not isinstance(num, int | float) or num != int(num) or num < 1:
        raise DataError(f"pictures of a caption: {num!r}; expected a whole number from 1 on")
    count = len(rows) * int(num) * systems
    if count > MOST:
        raise DataError(
            f"{count} pictures are too many for one press; {MOST} are drawn at most, and "
            "`python -m jaxt2i.sample` draws any number"
        )
    return list(api.expand(rows, int(num), seed_of(seed)))


def ends_of(row: Row) -> Iterator[Row]:
    """The two ends of a walk that a row belongs to; none where it belongs to no walk."""
    if "towards" in row:
        first, to = without(row, ("towards",)), row["towards"]
        yield first
        yield first | {word: to[word] for word in ("prompt", "seed") if word in to}
