"""CUB-200-2011 with the ten captions a picture of Reed et al. (2016)."""

import collections
from pathlib import Path
from typing import ClassVar

import numpy as np

from jaxt2i.data.builders.base import Builder, Files, Item, Need
from jaxt2i.data.builders.record import VOID, Caption, Record
from jaxt2i.data.images import Unreadable
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources.base import NO_CAPTION
from jaxt2i.data.sources.folders import read_sidecar
from jaxt2i.data.words import read_plain_pickle

IMAGES = Need(
    "CUB_200_2011",
    "https://data.caltech.edu/records/65de6-vp158",
    archives=("CUB_200_2011.tgz",),
)
CAPTIONS = Need(
    "cvpr2016_cub",
    "https://github.com/reedscot/cvpr2016 (text_c10 and the lists of classes), or the metadata "
    "birds.zip of https://github.com/taoxugit/AttnGAN",
    instead=("text_c10", "birds/text"),
    archives=("cvpr2016_cub.tar.gz", "cvpr2016_cub.tar", "birds.zip"),
)
MASKS = Need(
    "segmentations",
    "https://data.caltech.edu/records/w9d68-gec53",
    archives=("segmentations.tgz",),
    optional=True,
)
# Which of so many attributes pictures have; the names lie beside the folder of an unpacked archive.
MARKED, NAMED = "CUB_200_2011/attributes/image_attribute_labels.txt", "attributes.txt"
ATTRIBUTES = 312


class Jaxt2iCub(Builder):
    """Birds of 200 kinds, 150 of them for training: no kind is in both splits.

    The published split of 8,855 and 2,933 pictures is Reed et al.'s; that of the data set itself,
    5,994 and 5,794 with every kind in both, is not used in text-to-image work.
    """

    TITLE = "CUB-200-2011"
    TERMS = "Non-commercial research and education only; the pictures belong to their owners."
    EXPECTED: ClassVar = {"train": 8855, "test": 2933}

    def needs(self) -> tuple[Need, ...]:
        return IMAGES, CAPTIONS, MASKS

    def names(self, files: Files) -> dict[str, list[str]]:
        names = {"label": [_spoken(name) for _, name in _table(files, "classes.txt")]}
        if (files / MARKED).is_file():
            names["attributes"] = [f"attribute {n + 1}" for n in range(ATTRIBUTES)]
            if (files / NAMED).is_file():
                rows = (line.split() for line in (files / NAMED).read_text().splitlines())
                names["attributes"] = [row[1] for row in rows if len(row) == 2]
        return names

    def items(self, files: Files) -> dict[str, list[Item]]:
        classes = dict(_table(files, "image_class_labels.txt"))
        boxes = dict(_table(files, "bounding_boxes.txt"))
        kinds = dict(_table(files, "classes.txt"))
        attributes = _attributes(files)
        test = _test_classes(files)
        unknown = test - set(kinds.values())
        if unknown or not test:
            raise DataError(
                f"{files.first(CAPTIONS)}: the held-out classes should be some of "
                f"CUB_200_2011/classes.txt; unknown there: {sorted(unknown)[:3]}"
            )
        splits: dict[str, list[Item]] = {"train": [], "test": []}
        for number, image in _table(files, "images.txt"):
            kind = classes[number]
            box = tuple(float(v) for v in boxes[number].split())
            split = "test" if kinds[kind] in test else "train"
            content = (int(kind) - 1, _spoken(kinds[kind]), box, attributes.get(number, []))
            item = Item(image.removesuffix(".jpg"), f"CUB_200_2011/images/{image}", content)
            splits[split].append(item)
        return splits

    def record(self, files: Files, item: Item) -> Record:
        label, name, box, attributes = item.content
        text = _texts(files) / f"{item.key}.txt"
        if not text.is_file():
            raise Unreadable(item.key, NO_CAPTION)
        mask = files / f"segmentations/{item.key}.png"
        return Record(
            key=item.key,
            image=files / item.image,
            filename=f"{item.key}.jpg",
            captions=[Caption(caption) for caption in read_sidecar(text)],
            label=label,
            label_name=name,
            bbox=box,
            segmentation=_bird(mask) if mask.is_file() else None,
            metadata={"attributes": attributes} if attributes else {},
        )


def _table(files: Files, name: str) -> list[tuple[str, str]]:
    """Rows "number value..." of one of the data set's lists."""
    file = files / f"CUB_200_2011/{name}"
    if not file.is_file():
        raise DataError(f"{file} is missing; get CUB_200_2011.tgz again from {IMAGES.where}")
    rows = [line.split(maxsplit=1) for line in file.read_text().splitlines() if line.strip()]
    bad = [row for row in rows if len(row) != 2]
    if bad:
        raise DataError(f"{file}: expected lines 'number value', found {' '.join(bad[0])!r}")
    return [(number, value.strip()) for number, value in rows]


def _attributes(files: Files) -> dict[str, list[int]]:
    """{number of a picture: its attributes, from 0}, as annotators marked them, sure or not.

    Raises:
      DataError: for a line that says something else.
    """
    file, found = files / MARKED, collections.defaultdict(list)
    if not file.is_file():
        return {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        # Picture, attribute, whether it is there, how sure, seconds; some lines hold more.
        row = line.split()
        if len(row) < 3 or not row[1].isdigit() or row[2] not in ("0", "1"):
            raise DataError(
                f"{file}:{number}: expected 'picture attribute 0-or-1 ...', found {line[:60]!r}; "
                f"get CUB_200_2011.tgz again from {IMAGES.where}"
            )
        if row[2] == "1":
            found[row[0]].append(int(row[1]) - 1)
    return found


def _spoken(name: str) -> str:
    """The words of a folder such as 001.Black_footed_Albatross."""
    return name.partition(".")[2].replace("_", " ")


def _texts(files: Files) -> Path:
    """The folder of caption files: Reed et al.'s, or AttnGAN's copy of it."""
    place = files.first(CAPTIONS)
    return place / "text_c10" if place.name == "cvpr2016_cub" else place


def _test_classes(files: Files) -> set[str]:
    """Folders of the classes that are held out; only the captions' releases list them."""
    place = files.first(CAPTIONS)
    if place.name == "text":
        keys = read_plain_pickle(place.parent / "test" / "filenames.pickle")
        return {key.split("/")[0] for key in keys}
    file = (place if place.name == "cvpr2016_cub" else place.parent) / "testclasses.txt"
    if not file.is_file():
        raise DataError(
            f"{file} is missing: the 50 held-out classes are listed nowhere else. It lies beside "
            f"text_c10; from {CAPTIONS.where}"
        )
    return set(file.read_text().split())


def _bird(mask: Path) -> np.ndarray:
    """0 where at least half of the annotators saw bird, `VOID` elsewhere."""
    from PIL import Image

    with Image.open(mask) as image:
        return np.where(np.asarray(image.convert("L")) >= 128, 0, VOID).astype(np.uint8)
