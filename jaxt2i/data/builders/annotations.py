"""Reading annotations: JSON and pickles that are what they should be, masks, pictures of labels."""

import codecs
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jaxt2i.convert import unpickle
from jaxt2i.data import images
from jaxt2i.data.builders.record import runs_of
from jaxt2i.data.decoding import held
from jaxt2i.data.schema import DataError

# Why single entries, or the pictures they belong to, are left out.
NO_PICTURE = "annotation of no picture"
NO_CLASS = "annotation of no class"
BAD_MASK = "malformed mask"


def read_json(file: Path, kind: type = dict) -> Any:
    """What a JSON file holds.

    Args:
      file: UTF-8; texts in it that are not are told apart by `decoding.is_text`, for the caller to
        leave out.
      kind: dict or list.

    Raises:
      DataError: when it is missing, is no JSON, or holds another kind of thing.
    """
    try:
        content = json.loads(held(file.read_bytes()))
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{file} is not JSON ({error}): cut off in the download? Get it again"
        ) from error
    if not isinstance(content, kind):
        raise DataError(
            f"{file}: expected a JSON {kind.__name__}, found {type(content).__name__}; is it "
            "another file under this name?"
        )
    return content


def rows(file: Path, content: dict, name: str, keys: Iterable[str]) -> list[dict]:
    """One of a file's lists of entries.

    Args:
      file: what errors call it.
      content: the file's.
      name: of the list.
      keys: that every entry must have.

    Raises:
      DataError: names the list or the entry, what it has, and what was expected.
    """
    listed, keys = content.get(name), tuple(keys)
    if not isinstance(listed, list):
        raise DataError(
            f'{file}: expected a list "{name}", found {", ".join(map(str, content)) or "nothing"}; '
            "is it another file under this name?"
        )
    for number, row in enumerate(listed):
        if not isinstance(row, dict) or not all(key in row for key in keys):
            raise DataError(
                f'{file}: entry {number} of "{name}" should have {", ".join(keys)}, it is '
                f"{str(row)[:80]}; get the file again"
            )
    return listed


# What NumPy's arrays are pickled with; bytes need `encode` in the older protocols.
ARRAYS = {
    "_codecs encode": codecs.encode,
    "numpy dtype": np.dtype,
    "numpy ndarray": np.ndarray,
    **{
        f"numpy.{core}.{module} {name}": made
        for core in ("core", "_core")
        for module, name, made in (
            ("multiarray", "_reconstruct", np._core.multiarray._reconstruct),
            ("multiarray", "scalar", np._core.multiarray.scalar),
            ("numeric", "_frombuffer", np._core.numeric._frombuffer),
        )
    },
}


def read_array_pickle(file: Path) -> Any:
    """A pickle of containers, numbers, strings and NumPy arrays, executing nothing else.

    Raises:
      ValueError: when it is another thing, or cut off.
    """
    with file.open("rb") as stream:
        return unpickle.load(stream, ARRAYS)


def runs(segmentation: Any, size: tuple[int, int], name: str) -> list[int]:
    """Run lengths of a mask in any of COCO's forms, see `runs_of`.

    Args:
      segmentation: polygons [x1, y1, x2, ...] in pixels, or {"size": [height, width], "counts"}
        with run lengths as numbers or packed in a string.
      size: width and height of the picture, pixels.
      name: what errors call the picture.

    Returns:
      Run lengths; empty where there is no polygon of three points or more.

    Raises:
      Unreadable: for a mask that is of another size, or not one.
    """
    from pycocotools import mask

    width, height = size
    try:
        if isinstance(segmentation, list):
            # Fewer points enclose nothing, and two would be taken for a box.
            polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
            if not polygons:
                return []
            packed = mask.merge(mask.frPyObjects(polygons, height, width))
        elif isinstance(segmentation["counts"], list):
            packed = mask.frPyObjects(segmentation, height, width)
        else:
            packed = segmentation
        decoded = mask.decode(packed)
    except Exception as error:  # malformed runs raise nearly anything
        raise images.Unreadable(name, BAD_MASK) from error
    if decoded.shape != (height, width):
        raise images.Unreadable(name, BAD_MASK)
    return runs_of(decoded)


def read_labels(file: Path, channels: int = 1) -> np.ndarray:
    """A PNG whose values are labels: as they are stored, without palette or colour conversion.

    Args:
      file: 8 bits a channel.
      channels: 1 or 3.

    Returns:
      uint8 [H, W], or [H, W, 3].

    Raises:
      Unreadable: when it cannot be decoded, or has other channels.
    """
    from PIL import Image

    try:
        with Image.open(file, formats=("PNG",)) as image:
            if image.mode not in (("L", "P") if channels == 1 else ("RGB",)):
                raise images.Unreadable(file, images.FORMAT)
            return np.asarray(image)
    except (OSError, SyntaxError) as error:
        reason = images.SYSTEM if getattr(error, "errno", None) else images.CORRUPT
        raise images.Unreadable(file, reason) from error
