"""COCO-Stuff (Caesar et al., 2018): COCO 2017 with a class for nearly every pixel."""

import dataclasses
from typing import ClassVar

from jaxt2i.data.builders.base import Builder, Files, Item, Need
from jaxt2i.data.builders.coco import (
    COCO_STUFF,
    SPLITS,
    STUFF_MAPS,
    STUFF_NAMES,
    TERMS,
    Kinds,
    categories,
    items_of,
    needs_of,
    record_of,
    stuff_maps,
    stuff_names,
    things,
)
from jaxt2i.data.builders.record import Record
from jaxt2i.data.schema import DataError

YEAR = "2017"
# The one category of the stuff annotations that stands for all things.
OTHER = 183


REQUIRED = tuple(dataclasses.replace(need, optional=False) for need in (STUFF_MAPS, STUFF_NAMES))
REGIONS = tuple(
    Need(
        f"annotations/stuff_{split}{YEAR}.json",
        f"{COCO_STUFF} or https://cocodataset.org/#download",
        archives=("stuff_annotations_trainval2017.zip",),
        optional=True,
    )
    for split in SPLITS
)


class Jaxt2iCocoStuff(Builder):
    """COCO 2017 with pixel maps of 182 classes, in the maps' own numbering from 0.

    Objects are the 80 kinds of things, labels 0 to 79, and, where the stuff annotations are
    there, regions of 91 kinds of stuff, labels 80 to 170.
    """

    TITLE = "COCO-Stuff"
    TERMS = f"Maps: CC BY 4.0, and COCO's terms. {TERMS}"
    EXPECTED: ClassVar = {"train": 118287, "val": 5000}

    def needs(self) -> tuple[Need, ...]:
        return *needs_of(YEAR), *REQUIRED, *REGIONS

    def names(self, files: Files) -> dict[str, list[str]]:
        kinds = [kind for source in _sources(files).values() for kind in source.values() if kind]
        return {"objects": [name for _, name in kinds], "segmentation": stuff_names(files)}

    def items(self, files: Files) -> dict[str, list[Item]]:
        sources, maps = _sources(files), stuff_maps(files)
        splits = {
            split: items_of(files, split + YEAR, sources, maps, self.skips) for split in SPLITS
        }
        bare = [i for items in splits.values() for i in items if not i.content["map"]]
        if bare:
            raise DataError(
                f"{files / STUFF_MAPS.path} lacks the maps of {len(bare)} pictures, such as "
                f"{', '.join(item.key for item in bare[:3])}. Was {STUFF_MAPS.archives[0]} "
                f"unpacked only in part? It is from {STUFF_MAPS.where}"
            )
        return splits

    def record(self, files: Files, item: Item) -> Record:
        return record_of(files, item)


def _sources(files: Files) -> dict[str, Kinds]:
    """The annotation files that give objects, and the labels of their categories."""
    sources: dict[str, Kinds] = {"instances": things(files, YEAR)}
    if files.has(REGIONS[-1].path):
        first = len(sources["instances"])
        stuff = categories(files, f"stuff_val{YEAR}", first, without=(OTHER,))
        sources["stuff"] = {**stuff, OTHER: None}
    return sources
