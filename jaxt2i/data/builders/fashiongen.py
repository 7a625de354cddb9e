"""FashionGen (Rostamzadeh et al., 2018): studio pictures of clothes, a paragraph each."""

import functools
import os
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jaxt2i.data.builders.base import Builder, Files, Item, Need
from jaxt2i.data.builders.record import Caption, Record
from jaxt2i.data.images import CORRUPT, Unreadable
from jaxt2i.data.schema import DataError

SITE = "https://fashion-gen.com (after registration)"
FILES = {
    "train": Need("fashiongen_256_256_train.h5", SITE),
    "val": Need("fashiongen_256_256_validation.h5", SITE),
}
IMAGE, TEXT, CATEGORY = "input_image", "input_description", "input_category"
# A compressed chunk may hold a small part of a thousand pictures: it is kept for the next ones.
CACHE = {"rdcc_nbytes": 2**29, "rdcc_nslots": 100_003}


class Jaxt2iFashionGen(Builder):
    """Clothes on white, several pictures of each product under one description.

    The class of a picture is its category; of the 48 for training, 45 are known to be in "val".
    Metadata has every other column but "input_": brand, pose, season, msrpUSD (the price), ... ;
    "productID" is the same in all pictures of a product, whoever divides a split must mind it.
    """

    name = "jaxt2i_fashiongen"
    TITLE = "FashionGen"
    TERMS = "Research only, by the licence that the site asks to be accepted."
    EXPECTED: ClassVar = {"train": 260490, "val": 32528}

    def needs(self) -> tuple[Need, ...]:
        return tuple(FILES.values())

    def names(self, files: Files) -> dict[str, list[str]]:
        return {"label": sorted({c for split in FILES for c in _categories(files, split)})}

    def items(self, files: Files) -> dict[str, list[Item]]:
        label = {name: i for i, name in enumerate(self.names(files)["label"])}
        return {
            split: [
                Item(f"{row:06d}", "", (split, row, label[name], name))
                for row, name in enumerate(_categories(files, split))
            ]
            for split in FILES
        }

    def record(self, files: Files, item: Item) -> Record:
        split, row, label, category = item.content
        need = FILES[split]
        columns = _open(files / need.path, os.getpid())
        try:
            values = {key: column[row] for key, column in columns.items()}
        except OSError as error:  # a chunk that cannot be unpacked
            raise Unreadable(f"{need.path}: {item.key}", CORRUPT) from error
        return Record(
            key=item.key,
            image=values.pop(IMAGE),
            filename=f"{need.path}/{item.key}",
            captions=[Caption(_paragraph(_plain(values.pop(TEXT))))],
            label=label,
            label_name=category,
            metadata={
                key.removeprefix("input_"): _plain(value)
                for key, value in values.items()
                if key != CATEGORY
            },
        )


@functools.lru_cache(maxsize=2)
def _open(file: Path, process: int) -> dict[str, Any]:
    """The columns of a file, open; HDF5 must not be shared with a forked process."""
    import h5py

    try:
        columns = dict(h5py.File(file, "r", **CACHE).items())
    except OSError as error:
        raise DataError(f"{file} is no HDF5 file or cut off ({error}); get it again") from error
    if absent := [key for key in (IMAGE, TEXT, CATEGORY) if key not in columns]:
        raise DataError(f"{file}: expected {', '.join(absent)}, found {', '.join(sorted(columns))}")
    image = columns[IMAGE]
    if image.ndim != 4 or image.shape[3] != 3 or image.dtype != np.uint8:
        raise DataError(
            f"{file}: {IMAGE} should be uint8 [N, H, W, 3], it is {image.dtype} {image.shape}"
        )
    if odd := [key for key, c in columns.items() if len(c) != len(image)]:
        raise DataError(
            f"{file}: {IMAGE} has {len(image)} rows and {odd[0]} {len(columns[odd[0]])}; "
            "get it again"
        )
    return columns


def _categories(files: Files, split: str) -> list[str]:
    column = _open(files / FILES[split].path, os.getpid())[CATEGORY]
    return [_plain(value) for value in column[:]]


def _plain(value: np.ndarray | bytes | np.generic) -> str | int | float:
    """The one value of a row.

    Text is read as UTF-8 by some users of the data set and as Latin-1 by others: bytes beyond
    ASCII that happen to be valid UTF-8 are hardly ever meant as Latin-1.
    """
    value = np.asarray(value).ravel()[0]
    if not isinstance(value, bytes):
        return value.item()
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _paragraph(text: str) -> str:
    """A description without its line breaks, which are HTML."""
    return re.sub(r"</?br\s*/?>", " ", text, flags=re.IGNORECASE)
