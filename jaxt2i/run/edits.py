"""Edits of pictures: their rows, the sizes they are drawn at, and the sheet that shows them."""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxt2i.config import ConfigError
from jaxt2i.data.conditions import Row
from jaxt2i.data.schema import Sizes
from jaxt2i.run import log

# What an editor shows beside its picture; see `schema.VIEWS`.
VIEWS = ("source", "seen", "edges")
# Regions by name, as a row says them: (words of the row).
REGIONS = {"all": {}, "none": {"edit_region": []}}


def region_words(given: Any) -> dict[str, Any]:
    """The words of a row that say where an edit may act.

    Args:
      given: "all", "none" (nothing loses its colour), a mask's file, "x,y,w,h" as text or four
        numbers, in fractions of the picture or, where one is above 1, in pixels, or boxes or an
        array as a row has them.

    Raises:
      ConfigError: for text that is none of these.
    """
    if isinstance(given, str) and given in REGIONS:
        return dict(REGIONS[given])
    if isinstance(given, str) and re.fullmatch(r"[-+\d.eE ]+(,[-+\d.eE ]+)+", given):
        parts = given.split(",")
        try:
            given = [float(part) for part in parts]
        except ValueError:
            given = []
        if len(given) != 4:
            raise ConfigError(
                f"the region {','.join(parts)}: expected x,y,width,height, such as 0.2,0.3,0.5,0.5"
            )
    plain = isinstance(given, Sequence) and not isinstance(given, str) and len(given) == 4
    if plain and all(isinstance(x, (int, float)) for x in given):
        units = "pixels" if max(given) > 1 else "fractions"
        return {"edit_region": [list(given)], "units": units}
    if isinstance(given, str | Path):
        given = str(given)
        if "://" not in given and not Path(given).exists():
            raise ConfigError(
                f"the region {given}: no such file; expected a mask's file, x,y,width,height, "
                f"{' or '.join(REGIONS)}"
            )
    return {"edit_region": given}


def rows_of(pictures: Sequence[Any], regions: Sequence[Any]) -> list[Row]:
    """A row for each picture that is edited.

    Args:
      pictures: files, or arrays uint8 [H, W, 3].
      regions: of each, or one for all; see `region_words`. None: everywhere.

    Raises:
      ConfigError: where the numbers of both do not fit.
    """
    regions = list(regions) or ["all"]
    if len(regions) not in (1, len(pictures)):
        raise ConfigError(
            f"{len(regions)} regions for {len(pictures)} pictures; expected one for all, or as many"
        )
    regions = regions * (len(pictures) if len(regions) == 1 else 1)
    return [
        Row({"image": x if isinstance(x, np.ndarray) else str(x), **region_words(region)})
        for x, region in zip(pictures, regions, strict=True)
    ]


def swept(rows: Iterable[Row], control: str, values: Sequence[Any]) -> Iterator[Row]:
    """Every row once for each value of a control."""
    for row in rows:
        for value in values:
            yield row | {"controls": {**row.get("controls", {}), control: value}}


def size_of(text: str) -> tuple[int, int] | int:
    """A --size: N pixels on the shorter side, or (height, width) of WIDTHxHEIGHT.

    Raises:
      ConfigError: for anything else.
    """
    found = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text)
    if not found:
        raise ConfigError(
            f"size {text!r}: expected the shorter side in pixels, such as 512, or WIDTHxHEIGHT, "
            "such as 768x512"
        )
    width, height = found.groups()
    return (int(height), int(width)) if height else int(width)


def drawn_size(
    size: tuple[int, int] | int, picture: tuple[int, int] | None, multiple: int, sizes: Sizes
) -> tuple[int, int]:
    """(height, width) that a picture is drawn at.

    Args:
      size: (height, width), or the shorter side: the longer one is then as the edited picture's.
      picture: width and height of that picture, where there is one.
      multiple: what sides must be multiples of; sides are rounded down to it. 0: the method draws
        its training's size alone.
      sizes: training's.

    Raises:
      ConfigError: where the method cannot.
    """
    if isinstance(size, int):
        wide, high = picture or (1, 1)
        short = min(wide, high)
        # To the pixel before rounding down: 512 of 512 must stay 512.
        size = tuple(math.floor(size * side / short + 1e-6) for side in (high, wide))
        size = tuple(side - side % (multiple or 1) for side in size)
    elif multiple and (size[0] % multiple or size[1] % multiple):
        near = [max(multiple, round(side / multiple) * multiple) for side in size]
        raise ConfigError(
            f"size {size[1]}x{size[0]}: both sides must be multiples of {multiple} here; the "
            f"nearest is {near[1]}x{near[0]}"
        )
    if not multiple and size != (sizes.height, sizes.width):
        raise ConfigError(
            f"size {size[1]}x{size[0]}: this method draws {sizes.width}x{sizes.height} alone, the "
            "size it was trained at"
        )
    if min(size) < max(multiple, 1):
        raise ConfigError(f"size {size[1]}x{size[0]}: the least side here is {multiple}")
    return size


# --- Sheets --------------------------------------------------------------------------------------


def tiles(
    edits: Sequence[tuple[Mapping, Mapping]], sweep: str = ""
) -> Iterator[tuple[np.ndarray, str]]:
    """The cells of one line of a sheet, and of two where a control is swept.

    Args:
      edits: (row, outputs) of one source picture.
      sweep: the control whose values they differ in.
    """
    row, out = edits[0]
    if not sweep:
        yield out["source"], "source"
        yield out["seen"], "what the model sees"
        yield out["image"], f"{row.get('prompt', '')} (seed {row.get('seed', 0)})"
        return
    yield out["source"], row.get("prompt", "")
    yield from ((x["image"], f"{sweep} {r['controls'][sweep]:g}") for r, x in edits)
    yield out["edges"] if "edges" in out else out["source"], "edges"
    yield from ((x["seen"], "what the model sees") for _, x in edits)


def sheet(pairs: Sequence[tuple[Mapping, Mapping]], sweep: str = "", columns: int = 1):
    """Source, what the model sees, and edit side by side, as one PIL image.

    Args:
      pairs: (row, outputs with `VIEWS`), in order.
      sweep: a control: its `columns` values stand side by side.
      columns: edits of one source in a line.
    """
    per = columns if sweep else 1
    groups = [pairs[i : i + per] for i in range(0, len(pairs), per)]
    cells = list(itertools.chain.from_iterable(tiles(group, sweep) for group in groups))
    height, width = (max(x.shape[axis] for x, _ in cells) for axis in (0, 1))
    images = np.full((len(cells), height, width, 3), 255, np.uint8)
    for place, (x, _) in zip(images, cells, strict=True):
        place[: x.shape[0], : x.shape[1]] = x
    return log.grid(images, [text for _, text in cells], per + 1 if sweep else 3)
