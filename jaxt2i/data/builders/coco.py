"""MS COCO (Lin et al., 2014): five captions a picture, boxes and masks of 80 kinds of things."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from jaxt2i.data.builders.annotations import (
    NO_CLASS,
    NO_PICTURE,
    read_json,
    read_labels,
    rows,
    runs,
)
from jaxt2i.data.builders.base import Builder, Files, Item, Need
from jaxt2i.data.builders.record import Caption, Object, Record
from jaxt2i.data.decoding import is_text
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources.base import Skips

HOME = "https://cocodataset.org/#download"
COCO_STUFF = "https://github.com/nightrome/cocostuff"
TERMS = (
    "Annotations: CC BY 4.0. Pictures: Flickr's terms and the licence that each one's metadata "
    "names."
)
SPLITS = ("train", "val")
# Pictures of both years have the same numbers; the maps are released by the split of 2017.
MAPS = "stuffthingmaps_trainval2017"
STUFF_MAPS = Need(
    MAPS,
    COCO_STUFF,
    archives=(f"{MAPS}.zip",),
    inside=MAPS,
    optional=True,
)
STUFF_NAMES = Need(
    "labels.txt",
    f"{COCO_STUFF} (labels.txt)",
    instead=(f"{MAPS}/labels.txt",),
    optional=True,
)
# Labels 1 to 182 of labels.txt, stored from 0; 0 is "unlabeled".
STUFF_CLASSES = 182

# {category id: (label, name)}; None: left out on purpose.
Kinds = Mapping[int, tuple[int, str] | None]


class Jaxt2iCoco(Builder):
    """The splits of 2014, which text-to-image work uses ("val" is its test set), or of 2017.

    Where COCO-Stuff's maps are there, they become the segmentation.
    """

    TITLE = "MS COCO"
    TERMS = TERMS
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="2014", description="82,783 and 40,504 pictures."),
        tfds.core.BuilderConfig(name="2017", description="118,287 and 5,000 pictures."),
    ]

    @property
    def EXPECTED(self) -> dict[str, int]:
        """How many pictures the published splits have."""
        counts = {"2014": (82783, 40504), "2017": (118287, 5000)}
        return dict(zip(SPLITS, counts[self.builder_config.name], strict=True))

    def needs(self) -> tuple[Need, ...]:
        return *needs_of(self.builder_config.name), STUFF_MAPS, STUFF_NAMES

    def names(self, files: Files) -> dict[str, list[str]]:
        names = {"objects": [name for _, name in things(files, self.builder_config.name).values()]}
        if files.has(MAPS) and files.has(STUFF_NAMES.path, *STUFF_NAMES.instead):
            names["segmentation"] = stuff_names(files)
        return names

    def items(self, files: Files) -> dict[str, list[Item]]:
        year = self.builder_config.name
        kinds, maps = things(files, year), stuff_maps(files)
        return {
            split: items_of(files, split + year, {"instances": kinds}, maps, self.skips)
            for split in SPLITS
        }

    def record(self, files: Files, item: Item) -> Record:
        return record_of(files, item)


def needs_of(year: str) -> tuple[Need, ...]:
    """Pictures, captions and instances of a year's two splits."""
    folders = [Need(f"{split}{year}", HOME, archives=(f"{split}{year}.zip",)) for split in SPLITS]
    annotations = [
        Need(
            f"annotations/{kind}_{split}{year}.json",
            HOME,
            archives=(f"annotations_trainval{year}.zip",),
        )
        for kind in ("captions", "instances")
        for split in SPLITS
    ]
    return *folders, *annotations


def things(files: Files, year: str) -> dict[int, tuple[int, str]]:
    """{category id: (label, name)}: 80 of the ids 1 to 90, as labels 0 to 79 in their order."""
    return categories(files, f"instances_val{year}")


def categories(files: Files, name: str, first: int = 0, without: Sequence[int] = ()):
    """{category id: (label, name)} of an annotation file.

    Args:
      files: where it is.
      name: of the file, without ".json".
      first: the first category's label.
      without: category ids that get none.
    """
    file = files / f"annotations/{name}.json"
    listed = rows(file, read_json(file), "categories", ("id", "name"))
    kept = [row for row in listed if row["id"] not in without]
    if odd := [row["id"] for row in kept if not is_text(str(row["name"]))]:
        raise DataError(f"{file}: the name of category {odd[0]} is not UTF-8; get the file again")
    return {row["id"]: (label, row["name"]) for label, row in enumerate(kept, first)}


def stuff_maps(files: Files) -> dict[str, str]:
    """{picture's 12-digit number: place of its map}, from both of COCO-Stuff's folders."""
    maps = {}
    for split in SPLITS:
        folder = f"{MAPS}/{split}2017"
        if files.has(folder):
            for name in os.listdir(files / folder):
                maps[name.removesuffix(".png")] = f"{folder}/{name}"
    return maps


def stuff_names(files: Files) -> list[str]:
    """The classes of COCO-Stuff's maps: 91 ids of things, of which 11 never occur, and 91 of stuff.

    Raises:
      DataError: when labels.txt does not name 1 to 182.
    """
    file = files.first(STUFF_NAMES)
    named = {}
    for line in file.read_text().splitlines():
        number, colon, name = line.partition(":")
        if colon and number.strip().isdigit():
            named[int(number)] = name.strip()
    ids = range(1, STUFF_CLASSES + 1)
    if missing := [i for i in ids if i not in named]:
        raise DataError(
            f"{file}: expected lines 'id: name' for 1 to {STUFF_CLASSES}, {len(missing)} are not "
            f"there, such as {missing[0]}; get it again from {STUFF_NAMES.where}"
        )
    return [named[i] for i in ids]


def items_of(
    files: Files, folder: str, sources: Mapping[str, Kinds], maps: Mapping[str, str], skips: Skips
) -> list[Item]:
    """A split's items, in the order of its captions file.

    Args:
      files: where everything is.
      folder: split and year, as the folder of pictures is called.
      sources: {annotation file's first word: which categories its objects have}; an item's content
        names those that tell something of its picture.
      maps: see `stuff_maps`.
      skips: takes annotations that belong to nothing.
    """
    file = files / f"annotations/captions_{folder}.json"
    content = read_json(file)
    keys = ("id", "file_name", "width", "height")
    pictures = {row["id"]: row for row in rows(file, content, "images", keys)}
    captions, objects, told = defaultdict(list), defaultdict(list), defaultdict(list)
    for row in rows(file, content, "annotations", ("id", "image_id", "caption")):
        if row["image_id"] in pictures:
            captions[row["image_id"]].append((row["id"], row["caption"]))
        else:
            skips.add(f"{file.name}: {row['id']}", NO_PICTURE)
    for source, kinds in sources.items():
        file = files / f"annotations/{source}_{folder}.json"
        content = read_json(file)
        # Pictures without a caption are listed here alone; they are skipped, and counted.
        pictures = {row["id"]: row for row in rows(file, content, "images", keys)} | pictures
        keys_of_object = ("id", "image_id", "category_id", "bbox", "segmentation")
        for row in rows(file, content, "annotations", keys_of_object):
            if source not in told[row["image_id"]]:
                told[row["image_id"]].append(source)
            if row["image_id"] not in pictures:
                skips.add(f"{file.name}: {row['id']}", NO_PICTURE)
            elif row["category_id"] not in kinds:
                skips.add(f"{file.name}: {row['id']}", NO_CLASS)
            elif kind := kinds[row["category_id"]]:
                objects[row["image_id"]].append(_fields(row, kind))
    return [
        Item(
            key=PurePosixPath(row["file_name"]).stem,
            image=f"{folder}/{row['file_name']}",
            content={
                "size": (row["width"], row["height"]),
                "captions": captions[number],
                "objects": objects[number],
                "sources": tuple(told[number]),
                "map": maps.get(f"{number:012d}", ""),
                "metadata": {
                    "image_id": number,
                    **{k: row[k] for k in ("license", "coco_url", "flickr_url") if k in row},
                },
            },
        )
        for number, row in pictures.items()
    ]


def _fields(row: dict[str, Any], kind: tuple[int, str]) -> tuple:
    """The fields of `Object` in their order, the mask as it is annotated."""
    crowd = bool(row.get("iscrowd", 0))
    ids = row["id"], row["category_id"]
    return *kind, tuple(row["bbox"]), *ids, row.get("area"), crowd, row["segmentation"]


def record_of(files: Files, item: Item) -> Record:
    """The record of one of `items_of`."""
    content = item.content
    return Record(
        key=item.key,
        image=files / item.image,
        filename=PurePosixPath(item.image).name,
        captions=[Caption(text, number) for number, text in content["captions"]],
        objects=[
            Object(*fields, rle=runs(mask, content["size"], item.key))
            for *fields, mask in content["objects"]
        ],
        segmentation=read_labels(files / content["map"]) if content["map"] else None,
        metadata=content["metadata"],
        size=content["size"],
    )
