"""Oxford-102 with the ten captions a picture of Reed et al. (2016)."""

import re
from pathlib import Path
from typing import ClassVar

import numpy as np

from jaxt2i.data.builders.base import Builder, Files, Item, Need
from jaxt2i.data.builders.record import VOID, Caption, Record
from jaxt2i.data.images import Unreadable, read_rgb
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources.base import NO_CAPTION
from jaxt2i.data.sources.folders import read_sidecar
from jaxt2i.data.words import read_plain_pickle

SITE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
PICTURES = Need("jpg", SITE, archives=("102flowers.tgz",))
LABELS = Need("imagelabels.mat", SITE)
# The data set's own division, which text-to-image work does not follow.
DIVISION = Need("setid.mat", SITE, optional=True)
CAPTIONS = Need(
    "cvpr2016_flowers",
    "https://github.com/reedscot/cvpr2016 (text_c10 and the lists of classes), or a flowers.zip "
    "of AttnGAN's form",
    instead=("text_c10", "flowers/text"),
    archives=("cvpr2016_flowers.tar.gz", "cvpr2016_flowers.tar", "flowers.zip"),
)
MASKS = Need("segmim", SITE, archives=("102segmentations.tgz",), optional=True)

CLASSES = 102
# The colour around a cut-out flower, and how far JPEG moves it.
BACKGROUND, STRAY = (0, 0, 254), 40


class Jaxt2iOxford102(Builder):
    """Flowers of 102 kinds, 82 of them for training: no kind is in both splits.

    The published split of 7,034 and 1,155 pictures is Reed et al.'s. The data set's own, of 1,020,
    1,020 and 6,149 pictures with every kind in each, is kept in the metadata as "official_split".
    No official file says what the kinds are called: a class has the name of Reed et al.'s folder.
    """

    TITLE = "Oxford-102 flowers"
    TERMS = "For research; no licence is stated, and the pictures belong to their owners."
    EXPECTED: ClassVar = {"train": 7034, "test": 1155}

    def needs(self) -> tuple[Need, ...]:
        return PICTURES, LABELS, CAPTIONS, DIVISION, MASKS

    def names(self, files: Files) -> dict[str, list[str]]:
        return {"label": [_folder(number) for number in range(1, CLASSES + 1)]}

    def items(self, files: Files) -> dict[str, list[Item]]:
        labels = _labels(files)
        division = _division(files)
        root = _texts(files)
        texts = {file.stem: str(file.relative_to(root)) for file in root.rglob("image_*.txt")}
        splits = {}
        for split, numbers in _splits(files, labels).items():
            splits[split] = []
            for number in sorted(numbers):
                key = f"image_{number:05d}"
                content = (labels[number - 1], texts.get(key, ""), division.get(number, ""))
                splits[split].append(Item(key, f"jpg/{key}.jpg", content))
        return splits

    def record(self, files: Files, item: Item) -> Record:
        number, text, division = item.content
        if not text:
            raise Unreadable(item.key, NO_CAPTION)
        mask = files / f"segmim/{item.key.replace('image', 'segmim')}.jpg"
        return Record(
            key=item.key,
            image=files / item.image,
            filename=f"{item.key}.jpg",
            captions=[Caption(caption) for caption in read_sidecar(_texts(files) / text)],
            label=number - 1,
            label_name=_folder(number),
            segmentation=_flower(mask) if mask.is_file() else None,
            metadata={"official_split": division} if division else {},
        )


def _folder(number: int) -> str:
    """Reed et al.'s folder of a class, counted from 1."""
    return f"class_{number:05d}"


def _texts(files: Files) -> Path:
    """The folder of caption files: Reed et al.'s, or one of AttnGAN's form."""
    place = files.first(CAPTIONS)
    return place / "text_c10" if place.name == "cvpr2016_flowers" else place


def _mat(file: Path, *keys: str) -> list[list[int]]:
    """Rows of whole numbers of a Matlab file."""
    from scipy.io import loadmat

    try:
        content = loadmat(file)
    except Exception as error:  # malformed bytes raise nearly anything in scipy
        raise DataError(f"{file} is no Matlab file ({error}); get it again from {SITE}") from error
    seen = sorted(key for key in content if not key.startswith("__"))
    if absent := [key for key in keys if key not in content]:
        raise DataError(f"{file}: expected {', '.join(absent)}, found {', '.join(seen)}")
    return [np.asarray(content[key], int).ravel().tolist() for key in keys]


def _labels(files: Files) -> list[int]:
    """The class of each picture, 1 to 102."""
    file = files / LABELS.path
    (labels,) = _mat(file, "labels")
    if not labels or min(labels) < 1 or max(labels) > CLASSES:
        seen = f"{min(labels)} to {max(labels)}" if labels else "none"
        raise DataError(f"{file}: expected labels from 1 to {CLASSES}, found {seen}")
    return labels


def _division(files: Files) -> dict[int, str]:
    """{picture: "train", "val" or "test"} as the data set itself divides them."""
    file = files / DIVISION.path
    if not file.is_file():
        return {}
    parts = zip(("train", "val", "test"), _mat(file, "trnid", "valid", "tstid"), strict=True)
    return {number: split for split, numbers in parts for number in numbers}


def _splits(files: Files, labels: list[int]) -> dict[str, set[int]]:
    """The pictures of each split, counted from 1."""
    place = files.first(CAPTIONS)
    if place.name == "text":
        splits = {split: _listed(place.parent, split) for split in ("train", "test")}
        everything = splits["train"] | splits["test"]
        twice, unknown = splits["train"] & splits["test"], everything - set(_numbers(labels))
        if twice or unknown:
            raise DataError(
                f"{place.parent}: the filenames.pickle of train and test should list pictures 1 to "
                f"{len(labels)}, each once; in both: {sorted(twice)[:3]}, unknown: "
                f"{sorted(unknown)[:3]}"
            )
        return splits
    base = place if place.name == "cvpr2016_flowers" else place.parent
    train, test = _classes(base)
    kinds = [_folder(label) for label in labels]
    twice, never = train & test, set(kinds) - train - test
    if twice or never:
        raise DataError(
            f"{base}: each class of {LABELS.path} should be in one of trainvalclasses.txt and "
            f"testclasses.txt; in both: {sorted(twice)[:3]}, in neither: {sorted(never)[:3]}"
        )
    numbered = list(zip(_numbers(labels), kinds, strict=True))
    return {
        "train": {number for number, kind in numbered if kind in train},
        "test": {number for number, kind in numbered if kind in test},
    }


def _numbers(labels: list[int]) -> range:
    return range(1, len(labels) + 1)


def _classes(base: Path) -> tuple[set[str], set[str]]:
    """Folders of the classes for training and of those held out, from Reed et al.'s lists."""
    whole = base / "trainvalclasses.txt"
    parts = [whole] if whole.is_file() else [base / "trainclasses.txt", base / "valclasses.txt"]
    held = base / "testclasses.txt"
    if missing := [file for file in (*parts, held) if not file.is_file()]:
        raise DataError(
            f"{', '.join(map(str, missing))} missing: the 20 held-out classes are listed nowhere "
            f"else. The lists lie beside text_c10; from {CAPTIONS.where}"
        )
    return set(" ".join(file.read_text() for file in parts).split()), set(held.read_text().split())


def _listed(base: Path, split: str) -> set[int]:
    """The pictures that a filenames.pickle lists; its keys may lead through folders."""
    file = base / split / "filenames.pickle"
    if not file.is_file():
        raise DataError(f"{file} is missing: it says which pictures are for {split}")
    keys = read_plain_pickle(file)
    found = [re.search(r"image_(\d{5})$", str(key)) for key in keys]
    if None in found:
        raise DataError(
            f"{file}: expected keys such as image_00001, found {keys[found.index(None)]!r}"
        )
    return {int(match[1]) for match in found}


def _flower(mask: Path) -> np.ndarray:
    """0 where the picture was cut out, `VOID` where blue was put instead."""
    rgb = np.asarray(read_rgb(mask, upright=False), np.int16)
    blue = (np.abs(rgb - np.array(BACKGROUND, np.int16)) <= STRAY).all(-1)
    return np.where(blue, VOID, 0).astype(np.uint8)
