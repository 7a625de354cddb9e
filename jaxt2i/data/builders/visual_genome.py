"""Visual Genome (Krishna et al., 2017): phrases on regions, objects, relationships, attributes."""

import collections
import dataclasses
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from jaxt2i.data.builders.annotations import read_json
from jaxt2i.data.builders.base import Builder, Files, Item, Need
from jaxt2i.data.builders.record import Caption, Object, Record
from jaxt2i.data.decoding import NOT_UTF8, is_text, lines
from jaxt2i.data.schema import DataError

HOME = "https://homes.cs.washington.edu/~ranjay/visualgenome/api.html"
SG2IM = "https://github.com/google/sg2im"
# Names that occur this often in the training split are classes (Johnson et al., 2018: 178).
MIN_COUNT = 2000
# Predicates that occur this often there are numbered, as sg2im's 45 are.
MIN_PREDICATES = 500
# Attributes that occur with this many objects there are numbered, as sg2im's are.
MIN_ATTRIBUTES = 2000
SPLITS = ("train", "val", "test")

# What is left out of the records, and counted.
RARE = "object of no class"
SHAPELESS = "object without area"
LOOSE = "relationship of an object left out"
UNSPLIT = "picture in no split"
SMALL = "object below the least side"
FEW_OBJECTS, MANY_OBJECTS = "picture with too few objects", "picture with too many objects"
FEW_RELATIONS = "picture with too few relationships"
MANY_RELATIONS = "picture with too many relationships"
LITTLE = "picture below the least side"
UNKNOWN = "split's id of no picture"

PICTURES = (
    Need("VG_100K", f"{HOME} (part 1)", archives=("images.zip",)),
    # Some keep all pictures in one folder; what is then missing is counted by name.
    Need("VG_100K_2", f"{HOME} (part 2)", archives=("images2.zip",), optional=True),
)
ANNOTATIONS = tuple(
    Need(f"{name}.json", HOME, archives=(f"{name}.json.zip",))
    for name in ("image_data", "region_descriptions", "objects", "relationships", "attributes")
)
SPLIT_FILE = Need(
    "vg_splits.json",
    f"{SG2IM} (sg2im/data/vg_splits.json); without it everything is one split",
    optional=True,
)
ALIASES = tuple(
    Need(f"{name}_alias.txt", HOME, optional=True) for name in ("object", "relationship")
)


@dataclasses.dataclass(eq=False)
class VisualGenomeConfig(tfds.core.BuilderConfig):
    """Which names are classes, and which pictures and objects are kept.

    Attributes:
      min_count: how often a name occurs in the training split at least; scale it down with the
        number of pictures.
      min_predicates: the same of what relationships say; all are stored, in words.
      min_attributes: the same of objects' attributes.
      min_image: shortest side of a picture, pixels.
      min_side: shortest side of an object, pixels.
      objects: (least, most) of a picture; a most of 0: any number.
      relations: the same of relationships that say one of the numbered predicates.
    """

    min_count: int = MIN_COUNT
    min_predicates: int = MIN_PREDICATES
    min_attributes: int = MIN_ATTRIBUTES
    min_image: int = 0
    min_side: int = 0
    objects: tuple[int, int] = (0, 0)
    relations: tuple[int, int] = (0, 0)


class Jaxt2iVisualGenome(Builder):
    """Every region's phrase is a caption, in the order of the regions' ids.

    There is no official split: where sg2im's vg_splits.json is given, it is taken, else all
    pictures are "train". Objects of rarer names are left out, and relationships with them; all of
    it is counted.
    """

    TITLE = "Visual Genome"
    TERMS = "CC BY 4.0; the pictures are Flickr's, half of them COCO's."
    BUILDER_CONFIGS: ClassVar = [
        VisualGenomeConfig(name="sg2im", description="Names that occur 2,000 times are classes."),
        VisualGenomeConfig(
            name="all",
            description="Every name is a class.",
            min_count=1,
            min_predicates=1,
            min_attributes=1,
        ),
        VisualGenomeConfig(
            name="lostgan",
            description="The same classes, and the pictures of sg2im's preprocess_vg.py, which "
            "LostGAN trains on: of 3 to 30 objects, none of them below 32 pixels.",
            min_image=200,
            min_side=32,
            objects=(3, 30),
            relations=(1, 30),
        ),
    ]

    @property
    def EXPECTED(self) -> dict[str, int]:
        """How many pictures the published splits have; LostGAN's as its paper counts them."""
        if self.builder_config.name == "lostgan":
            return {"train": 62565, "val": 5506, "test": 5088}
        return {"train": 108077}

    def needs(self) -> tuple[Need, ...]:
        return *PICTURES, *ANNOTATIONS, SPLIT_FILE, *ALIASES

    def names(self, files: Files) -> dict[str, list[str]]:
        splits = _splits(files, _by_image(files / "image_data.json", _picture))
        return {
            "objects": self._vocabulary(_objects(files), splits["train"]),
            "predicates": self._predicates(files, splits["train"]),
            "object_attributes": self._attributes(files, splits["train"]),
        }

    def items(self, files: Files) -> dict[str, list[Item]]:
        pictures = _by_image(files / "image_data.json", _picture)
        splits, objects = _splits(files, pictures), _objects(files)
        labels = {n: label for label, n in enumerate(self._vocabulary(objects, splits["train"]))}
        phrases = _by_image(files / "region_descriptions.json", _phrases)
        relationships = _by_image(files / "relationships.json", _relationships)
        attributes = _by_image(files / "attributes.json", _attributes)
        predicates = _aliases(files / "relationship_alias.txt")
        limited = any(self.builder_config.relations)
        numbered = set(self._predicates(files, splits["train"])) if limited else set()
        folders = _folders(files)
        split_of = {number: split for split, numbers in splits.items() for number in numbers}
        self.skips.counts.update(UNKNOWN for number in split_of if number not in pictures)
        items: dict[str, list[Item]] = collections.defaultdict(list)
        for number, (url, side, metadata) in pictures.items():
            if number not in split_of:
                self.skips.counts[UNSPLIT] += 1
                continue
            kept, index = self._kept(objects.get(number, []), labels)
            joined = self._joined(relationships.get(number, []), index, predicates)
            if reason := self._unwanted(side, kept, [name for *_, name in joined], numbered):
                self.skips.counts[reason] += 1
                continue
            described = attributes.get(number, {})
            file = f"{number}.jpg"
            folder = folders.get(file, "VG_100K_2" if "/VG_100K_2/" in url else "VG_100K")
            content = {
                "phrases": phrases.get(number, []),
                "objects": kept,
                "relationships": joined,
                "metadata": {
                    **metadata,
                    "attributes": [self._told(described.get(o[3], [])) for o in kept],
                },
            }
            items[split_of[number]].append(Item(str(number), f"{folder}/{file}", content))
        return {split: items[split] for split in splits if split in items}

    def record(self, files: Files, item: Item) -> Record:
        content = item.content
        return Record(
            key=item.key,
            image=files / item.image,
            filename=f"{item.key}.jpg",
            captions=[Caption(phrase, number) for number, phrase in content["phrases"]],
            objects=[Object(*fields) for fields in content["objects"]],
            relationships=content["relationships"],
            metadata=content["metadata"],
        )

    def _vocabulary(self, objects: dict[int, list[tuple]], images: Iterable[int]) -> list[str]:
        """Names of the classes, the most frequent in the images first, then by letters."""
        counts = collections.Counter(o[1] for image in images for o in objects.get(image, []))
        least = self.builder_config.min_count
        frequent = [name for name, n in counts.items() if name and n >= least and is_text(name)]
        return sorted(frequent, key=lambda name: (-counts[name], name))

    def _predicates(self, files: Files, images: Iterable[int]) -> list[str]:
        """What relationships say, the most frequent in the images first, then by letters."""
        said = _by_image(files / "relationships.json", _relationships)
        aliases = _aliases(files / "relationship_alias.txt")
        names = (_clean(name, aliases) for image in images for *_, name in said.get(image, []))
        counts = collections.Counter(name for name in names if name and is_text(name))
        least = self.builder_config.min_predicates
        frequent = [name for name, n in counts.items() if n >= least]
        return sorted(frequent, key=lambda name: (-counts[name], name))

    def _attributes(self, files: Files, images: Iterable[int]) -> list[str]:
        """Attributes of objects, the most frequent in the images first, then by letters."""
        told = _by_image(files / "attributes.json", _attributes)
        counts = collections.Counter(
            name
            for image in images
            for names in told.get(image, {}).values()
            for name in set(names)
            if is_text(name)
        )
        least = self.builder_config.min_attributes
        frequent = [name for name, n in counts.items() if n >= least]
        return sorted(frequent, key=lambda name: (-counts[name], name))

    def _unwanted(self, side: int, kept: list, said: list[str], numbered: set[str]) -> str | None:
        """Why a picture is left out, by the limits of the configuration; None: it is not.

        Args:
          side: the shorter one of the picture, pixels.
          kept: its objects.
          said: what its relationships say.
          numbered: predicates that count.
        """
        limits = self.builder_config
        if side < limits.min_image:
            return LITTLE
        counted = sum(name in numbered for name in said)
        for count, (least, most), few, many in (
            (len(kept), limits.objects, FEW_OBJECTS, MANY_OBJECTS),
            (counted, limits.relations, FEW_RELATIONS, MANY_RELATIONS),
        ):
            if count < least:
                return few
            if most and count > most:
                return many
        return None

    def _kept(self, objects: list[tuple], labels: dict[str, int]):
        """The objects of known classes as fields of `Object`, and {object id: index of it}."""
        kept, index = [], {}
        for number, name, box, merged in objects:
            reason = RARE if name not in labels else SHAPELESS if min(box[2:]) <= 0 else None
            if not reason and min(box[2:]) < self.builder_config.min_side:
                reason = SMALL
            if reason and not is_text(name):
                reason = NOT_UTF8
            if reason:
                self.skips.counts[reason] += 1
                continue
            index.update(dict.fromkeys((number, *merged), len(kept)))
            kept.append((labels[name], name, box, number))
        return kept, index

    def _told(self, attributes: list[str]) -> list[str]:
        """Attributes that are UTF-8; the others are counted."""
        told = [attribute for attribute in attributes if is_text(attribute)]
        if len(told) < len(attributes):
            self.skips.counts[NOT_UTF8] += len(attributes) - len(told)
        return told

    def _joined(self, relationships: list[tuple], index: dict[int, int], aliases: dict[str, str]):
        """Relationships whose two objects were kept, as (index, index, predicate)."""
        joined = []
        for subject, object_, predicate in relationships:
            name = _clean(predicate, aliases)
            if not is_text(name):
                self.skips.counts[NOT_UTF8] += 1
            elif subject in index and object_ in index:
                joined.append((index[subject], index[object_], name))
            else:
                self.skips.counts[LOOSE] += 1
        return joined


# --- Files of one entry an image; keys differ between the releases of 2016 and 2017 ---


def _by_image(file: Path, parse: Callable[[dict], Any]) -> dict[int, Any]:
    """{image id: what `parse` makes of its entry}.

    Raises:
      DataError: names the entry and the key that it lacks.
    """
    found = {}
    for number, entry in enumerate(read_json(file, list)):
        try:
            found[_id(entry, "image_id")] = parse(entry)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{file}: entry {number} is not what it should be ({error!r}): {str(entry)[:80]}; "
                f"is it another file under this name? Get it again from {HOME}"
            ) from error
    return found


def _id(row: dict, key: str) -> int:
    return row[key] if key in row else row["id"]


def _picture(entry: dict):
    ids = {key: entry[key] for key in ("coco_id", "flickr_id") if entry.get(key) is not None}
    metadata = {"image_id": _id(entry, "image_id"), **ids, "url": entry["url"]}
    return entry["url"], min(entry.get("width", 0), entry.get("height", 0)), metadata


def _phrases(entry: dict) -> list[tuple[int, str]]:
    return sorted((_id(region, "region_id"), region["phrase"]) for region in entry["regions"])


def _relationships(entry: dict) -> list[tuple[int, int, str]]:
    return [
        (_id(row["subject"], "object_id"), _id(row["object"], "object_id"), row["predicate"])
        for row in entry["relationships"]
    ]


def _attributes(entry: dict) -> dict[int, list[str]]:
    """{object id: its attributes}; objects without any lack the key."""
    return {_id(row, "object_id"): row.get("attributes", []) for row in entry["attributes"]}


def _objects(files: Files) -> dict[int, list[tuple]]:
    """{image id: [(object id, name, (x, y, width, height) in pixels, ids merged into it)]}."""
    aliases = _aliases(files / "object_alias.txt")

    def parse(entry: dict) -> list[tuple]:
        return [
            (
                _id(row, "object_id"),
                _clean(row["names"][0] if row.get("names") else row.get("name", ""), aliases),
                (row["x"], row["y"], *_sides(row)),
                tuple(row.get("merged_object_ids", ())),
            )
            for row in entry["objects"]
        ]

    return _by_image(files / "objects.json", parse)


def _sides(row: dict) -> tuple[float, float]:
    return (row["w"], row["h"]) if "w" in row else (row["width"], row["height"])


def _aliases(file: Path) -> dict[str, str]:
    """{name: the name to use}, of lines "name to use,name,name..."; empty without the file."""
    if not file.is_file():
        return {}
    aliases = {}
    for number, line in enumerate(lines(file.read_bytes()), 1):
        if not is_text(line):
            print(f"prepare: {file}:{number}: {NOT_UTF8}; no alias is taken of it", file=sys.stderr)
            continue
        first, *others = (_clean(name, {}) for name in line.split(","))
        aliases.update(dict.fromkeys(others, first))
    return aliases


def _clean(name: str, aliases: dict[str, str]) -> str:
    """A name in lower case with single spaces, in the spelling that its aliases share."""
    plain = " ".join(name.lower().split())
    return aliases.get(plain, plain)


def _folders(files: Files) -> dict[str, str]:
    """{picture's file: the folder it lies in}."""
    there = [need.path for need in PICTURES if files.has(need.path)]
    return {name: folder for folder in there for name in os.listdir(files / folder)}


def _splits(files: Files, pictures: Iterable[int]) -> dict[str, list[int]]:
    """{split: image ids} of sg2im's file; without it all of the pictures are "train".

    Raises:
      DataError: when it does not hold a training split of ids, or an id is in two.
    """
    if not files.has(SPLIT_FILE.path):
        return {"train": list(pictures)}
    file = files / SPLIT_FILE.path
    content = read_json(file)
    splits = {split: content[split] for split in SPLITS if split in content}
    ids = [number for numbers in splits.values() for number in numbers]
    if "train" not in splits or not all(isinstance(i, int) for i in ids):
        raise DataError(
            f'{file}: expected {{"train": [image ids], "val": ..., "test": ...}}, found '
            f"{', '.join(content) or 'nothing'}; get it again from {SPLIT_FILE.where}, or remove it"
        )
    if len(set(ids)) < len(ids):
        raise DataError(f"{file}: {len(ids) - len(set(ids))} ids are in it twice")
    return splits
