"""COCO-Stuff (Caesar et al., 2018): COCO 2017 with a class for nearly every pixel."""

import dataclasses
import math
from typing import ClassVar

import tensorflow_datasets as tfds

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
# Fields of an object's tuple, see `coco.items_of`.
BOX, CROWD = 2, 6

# What is left out of the records, and counted.
CROWDED, SMALL = "object that is a crowd", "object below the least share of its picture"
FEW, MANY = "picture with too few objects", "picture with too many objects"
UNTOLD = "picture that the stuff annotations do not have"

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


@dataclasses.dataclass(eq=False)
class CocoStuffConfig(tfds.core.BuilderConfig):
    """Which pictures and objects are kept.

    Attributes:
      maps: whether every picture must have its map of pixels.
      regions: whether the stuff annotations must be there, and have the picture.
      crowds: whether groups that are annotated as one object are kept.
      least_share: of the picture that an object's box must cover more than; 0: any box is kept.
      objects: (least, most) of a picture; a most of 0: any number.
    """

    maps: bool = True
    regions: bool = False
    crowds: bool = True
    least_share: float = 0.0
    objects: tuple[int, int] = (0, 0)


class Jaxt2iCocoStuff(Builder):
    """COCO 2017 with pixel maps of 182 classes, in the maps' own numbering from 0.

    Objects are the 80 kinds of things, labels 0 to 79, and, where the stuff annotations are
    there, regions of 91 kinds of stuff, labels 80 to 170.
    """

    TITLE = "COCO-Stuff"
    TERMS = f"Maps: CC BY 4.0, and COCO's terms. {TERMS}"
    BUILDER_CONFIGS: ClassVar = [
        CocoStuffConfig(name="all", description="Every picture of COCO 2017, with its map."),
        CocoStuffConfig(
            name="lostgan",
            description="The layouts that LostGAN trains on, by sg2im's rule: 3 to 8 things and "
            "regions of stuff a picture, no crowds, boxes above 2 % of the picture.",
            maps=False,
            regions=True,
            crowds=False,
            least_share=0.02,
            objects=(3, 8),
        ),
    ]

    @property
    def EXPECTED(self) -> dict[str, int]:
        """How many pictures the published splits have; what LostGAN keeps is not stated here."""
        limited = any(self.builder_config.objects)
        return {} if limited else {"train": 118287, "val": 5000}

    def needs(self) -> tuple[Need, ...]:
        config = self.builder_config
        maps = REQUIRED if config.maps else (STUFF_MAPS, STUFF_NAMES)
        regions = (dataclasses.replace(n, optional=not config.regions) for n in REGIONS)
        return *needs_of(YEAR), *maps, *regions

    def names(self, files: Files) -> dict[str, list[str]]:
        kinds = [kind for source in _sources(files).values() for kind in source.values() if kind]
        names = {"objects": [name for _, name in kinds]}
        if files.has(STUFF_MAPS.path) and files.has(STUFF_NAMES.path, *STUFF_NAMES.instead):
            names["segmentation"] = stuff_names(files)
        return names

    def items(self, files: Files) -> dict[str, list[Item]]:
        sources, maps = _sources(files), stuff_maps(files)
        splits = {
            split: items_of(files, split + YEAR, sources, maps, self.skips) for split in SPLITS
        }
        splits = {
            split: [kept for item in items if (kept := self._kept(item))]
            for split, items in splits.items()
        }
        bare = [i for items in splits.values() for i in items if not i.content["map"]]
        if bare and self.builder_config.maps:
            raise DataError(
                f"{files / STUFF_MAPS.path} lacks the maps of {len(bare)} pictures, such as "
                f"{', '.join(item.key for item in bare[:3])}. Was {STUFF_MAPS.archives[0]} "
                f"unpacked only in part? It is from {STUFF_MAPS.where}"
            )
        return splits

    def _kept(self, item: Item) -> Item | None:
        """An item with the objects that the configuration keeps; None: the picture is left out."""
        config, (width, height) = self.builder_config, item.content["size"]
        if config.regions and "stuff" not in item.content["sources"]:
            self.skips.counts[UNTOLD] += 1
            return None
        least, kept = config.least_share * width * height, []
        for thing in item.content["objects"]:
            if thing[CROWD] and not config.crowds:
                self.skips.counts[CROWDED] += 1
            elif math.prod(thing[BOX][2:]) <= least and config.least_share:
                self.skips.counts[SMALL] += 1
            else:
                kept.append(thing)
        fewest, most = config.objects
        if len(kept) < fewest or (most and len(kept) > most):
            self.skips.counts[FEW if len(kept) < fewest else MANY] += 1
            return None
        return dataclasses.replace(item, content={**item.content, "objects": kept})

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
