"""ADE20K (Zhou et al., 2017): scenes with a class for every pixel; its captions are composed."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from jaxt2i.data.builders.annotations import read_array_pickle, read_json, read_labels
from jaxt2i.data.builders.base import Builder, Files, Item, Need
from jaxt2i.data.builders.record import MISFIT, VOID, Caption, Object, Record
from jaxt2i.data.builders.regions import Region, connected, regions, sentence
from jaxt2i.data.images import Unreadable
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources.base import NO_IMAGE
from jaxt2i.data.sources.folders import read_sidecar

HOME = "https://groups.csail.mit.edu/vision/datasets/ADE20K/"
SPLITS = {"train": "training", "val": "validation"}
# Of a class without instances, connected regions are objects; smaller ones, as part of the
# picture, are specks at the border of others.
LEAST_AREA = 0.001
# What the lists of scenes call a picture that fits none.
NO_SCENE = ("", "misc", "outliers", "unknown")
BAD_CLASS = "class that the index does not name"
BAD_ANNOTATION = "malformed annotation"

SCENE150 = Need(
    "ADEChallengeData2016",
    "http://sceneparsing.csail.mit.edu/",
    archives=("ADEChallengeData2016.zip",),
)
INSTANCES = Need(
    "annotations_instance",
    "http://sceneparsing.csail.mit.edu/ (2017)",
    instead=("ADEChallengeData2016/annotations_instance",),
    archives=("annotations_instance.tar",),
    optional=True,
)
FULL = Need(
    "ADE20K_2021_17_01",
    f"{HOME} (after registration)",
    instead=("ADE20K_2016_07_26",),
    archives=("ADE20K_2021_17_01.zip", "ADE20K_2016_07_26.zip"),
)
OWN_CAPTIONS = (
    Need("captions.json", "you: {file stem: [captions]}", optional=True),
    Need("captions", "you: <file stem>.txt, one caption a line", optional=True),
)


class Jaxt2iAde20k(Builder):
    """SceneParse150, or the full release with every instance; neither has captions of its own.

    Captions are taken from captions.json or captions/<file stem>.txt where they are given. Others
    are composed of the scene's name and the objects, and metadata says so: {"captions":
    "composed"}. The full release has thousands of classes, more than a segmentation holds: there
    they are in the objects alone.
    """

    TITLE = "ADE20K"
    TERMS = "Pictures: non-commercial research and education only. Annotations: BSD 3-Clause."
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="scene150", description="The 150 most frequent classes."),
        tfds.core.BuilderConfig(name="full", description="The release of 2021, or of 2017."),
    ]

    @property
    def EXPECTED(self) -> dict[str, int]:
        """How many pictures the published splits have; "full": of the release of 2021."""
        return {"train": 25574 if self._full else 20210, "val": 2000}

    @property
    def _full(self) -> bool:
        return self.builder_config.name == "full"

    def needs(self) -> tuple[Need, ...]:
        return *((FULL,) if self._full else (SCENE150, INSTANCES)), *OWN_CAPTIONS

    def names(self, files: Files) -> dict[str, list[str]]:
        names = list(self._classes(files))
        return {"objects": names} if self._full else {"objects": names, "segmentation": names}

    # Read once a process: the full release's index is large.
    _named: tuple[str, ...] = ()

    def _classes(self, files: Files) -> tuple[str, ...]:
        self._named = self._named or (
            _index(files.first(FULL)) if self._full else _info(files / SCENE150.path)
        )
        return self._named

    def items(self, files: Files) -> dict[str, list[Item]]:
        captions = _own(files / "captions.json")
        listed = _release if self._full else _challenge
        splits: dict[str, list[Item]] = {}
        for split, folder in SPLITS.items():
            splits[split] = [
                Item(stem, image, {**content, "captions": captions.get(stem, [])})
                for stem, image, content in listed(files, folder)
            ]
        keys = {item.key for items in splits.values() for item in items}
        for stray in (key for key in captions if key not in keys):
            self.skips.add(f"captions.json: {stray}", NO_IMAGE)
        return splits

    def record(self, files: Files, item: Item) -> Record:
        content = item.content
        segmentation, metadata = None, {"scene": content["scene"]}
        names = self._classes(files)
        if self._full:
            objects, size = _instances(files / content["seg"], names)
            if content["json"]:
                metadata["source"] = _source(files / content["json"])
        else:
            segmentation = read_labels(files / content["seg"]) - np.uint8(1)  # 0 becomes VOID
            size = segmentation.shape[::-1]
            if content["instances"]:
                objects = _things(segmentation, names, files / content["instances"])
            else:
                objects = _parts(segmentation, names)
        captions, own = content["captions"], files / f"captions/{item.key}.txt"
        if not captions and own.is_file():
            captions = read_sidecar(own)
        if not captions:
            metadata["captions"] = "composed"
            counted = self._full or bool(content["instances"])
            captions = [sentence(content["scene"], objects, counted)]
        return Record(
            key=item.key,
            image=files / item.image,
            filename=Path(item.image).name,
            captions=[Caption(text) for text in captions],
            objects=objects,
            segmentation=segmentation,
            metadata=metadata,
            size=size,
        )


def _own(file: Path) -> dict[str, list[str]]:
    """The captions of a person's file; none without it."""
    captions = read_json(file) if file.is_file() else {}
    if bad := [stem for stem, texts in captions.items() if not isinstance(texts, list)]:
        raise DataError(f"{file}: expected {{file stem: [captions]}}, {bad[0]!r} has no list")
    return captions


# --- SceneParse150 ---


def _challenge(files: Files, folder: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """(file stem, picture, content) of a split."""
    root = SCENE150.path
    numbered = next((p for p in (INSTANCES.path, *INSTANCES.instead) if files.has(p)), None)
    stems = _stems(files / f"{root}/images/{folder}", ".jpg")
    places = [f"{root}/annotations/{folder}", *([f"{numbered}/{folder}"] if numbered else [])]
    for place in places:
        maps = set(_stems(files / place, ".png"))
        _require_none([f"{files / place}/{stem}.png" for stem in stems if stem not in maps])
    scenes = _scenes(files / f"{root}/sceneCategories.txt")
    for stem in stems:
        content = {
            "scene": _spoken(scenes.get(stem, "")),
            "seg": f"{root}/annotations/{folder}/{stem}.png",
            "instances": f"{numbered}/{folder}/{stem}.png" if numbered else "",
        }
        yield stem, f"{root}/images/{folder}/{stem}.jpg", content


def _stems(folder: Path, suffix: str) -> list[str]:
    """Sorted stems of a folder's files.

    Raises:
      DataError: when there is none.
    """
    names = os.listdir(folder) if folder.is_dir() else []
    stems = sorted(n.removesuffix(suffix) for n in names if n.endswith(suffix))
    if not stems:
        raise DataError(f"{folder} holds no {suffix} file; get the archive again, from {HOME}")
    return stems


def _require_none(missing: list[str]) -> None:
    if missing:
        raise DataError(
            f"{len(missing)} pictures have no annotation; there should be "
            f"{', '.join(missing[:3])}. Was an archive unpacked only in part?"
        )


def _scenes(file: Path) -> dict[str, str]:
    """{file stem: scene}, of lines "stem scene"."""
    if not file.is_file():
        raise DataError(f"{file} is missing; get {SCENE150.archives[0]} again, {SCENE150.where}")
    lines = [line.split(maxsplit=1) for line in file.read_text().splitlines() if line.strip()]
    if bad := [line for line in lines if len(line) != 2]:
        raise DataError(f"{file}: expected lines 'file scene', found {bad[0][0]!r}")
    return dict(lines)


def _spoken(scene: str) -> str:
    words = " ".join(scene.replace("_", " ").split())
    return "scene" if words in NO_SCENE else words


def _info(root: Path) -> tuple[str, ...]:
    """The 150 classes, of a table with a heading: Idx, Ratio, Train, Val, Stuff, Name."""
    file = root / "objectInfo150.txt"
    if not file.is_file():
        raise DataError(f"{file} is missing; get {SCENE150.archives[0]} again, {SCENE150.where}")
    heading, *lines = (line.split("\t") for line in file.read_text().splitlines() if line.strip())
    named = {}
    if {"Idx", "Name"} <= {cell.strip() for cell in heading}:
        number, name = ([cell.strip() for cell in heading].index(key) for key in ("Idx", "Name"))
        named = {line[number].strip(): line[name].strip() for line in lines if len(line) > name}
    ids = [str(i) for i in range(1, 151)]
    if any(i not in named for i in ids):
        raise DataError(
            f"{file}: expected a table of tabs with Idx 1 to 150 and Name; get it again"
        )
    return tuple(named[i] for i in ids)


def _object(region: Region, label: int, names: Sequence[str], number: int = -1) -> Object:
    return Object(label, names[label], region.bbox, number, label + 1, region.area, rle=region.rle)


def _parts(segmentation: np.ndarray, names: Sequence[str]) -> list[Object]:
    """Connected regions of every class but for specks, in the order of the classes."""
    least = LEAST_AREA * segmentation.size
    found = connected(segmentation, VOID)
    return [_object(region, label, names) for label, region in found if region.area >= least]


def _things(segmentation: np.ndarray, names: Sequence[str], file: Path) -> list[Object]:
    """The instances, each of the class that most of its pixels have in the segmentation.

    The instance map has a class of its own (its red channel), but counts the 100 classes that have
    instances, in another order.
    """
    numbers = read_labels(file, channels=3)[..., 1].astype(np.int32)
    if numbers.shape != segmentation.shape:
        raise Unreadable(file, MISFIT)
    known = segmentation != VOID
    pairs, votes = np.unique(numbers[known] * 256 + segmentation[known], return_counts=True)
    label = {int(p) // 256: int(p) % 256 for _, p in sorted(zip(votes, pairs, strict=True))}
    found = (r for r in regions(numbers) if r.number in label)
    return [_object(r, label[r.number], names, r.number) for r in found]


# --- The full releases ---


def _release(files: Files, folder: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """(file stem, picture, content) of a split, sorted by their folders."""
    root = files.first(FULL)
    found, missing = [], []
    for here, folders, names in os.walk(root / "images"):
        folders.sort()
        parts = Path(here).relative_to(root).parts
        if folder not in parts:
            continue
        # training/urban/street; in 2017 training/a/apartment_building/outdoor.
        scene = _spoken(" ".join(reversed(parts[parts.index(folder) + 2 :])))
        there, place = set(names), "/".join((root.name, *parts))
        for name in sorted(n for n in names if n.endswith(".jpg")):
            stem = name.removesuffix(".jpg")
            seg, about = f"{stem}_seg.png", f"{stem}.json"
            content = {
                "scene": scene,
                "seg": f"{place}/{seg}",
                "json": f"{place}/{about}" if about in there else "",
            }
            found.append((stem, f"{place}/{name}", content))
            missing += [] if seg in there else [f"{here}/{seg}"]
    if not found:
        raise DataError(f"{root}/images has no picture in {folder}; get it again, {FULL.where}")
    _require_none(missing)
    return iter(found)


def _instances(seg: Path, names: Sequence[str]) -> tuple[list[Object], tuple[int, int]]:
    """Every instance, and the width and height of the map.

    Source: class and instance as the release's own utils/utils_ade20k.py reads them.
    """
    red, green, blue = np.moveaxis(read_labels(seg, channels=3).astype(np.int32), -1, 0)
    kind = red // 10 * 256 + green
    if kind.max() > len(names):
        raise Unreadable(seg, BAD_CLASS)
    # An instance is a class and a number; ordered by the number, as they were annotated.
    found = regions(np.where(kind > 0, blue * 2**16 + kind, 0))
    objects = [_object(r, r.number % 2**16 - 1, names, r.number // 2**16) for r in found]
    return objects, kind.shape[::-1]


def _source(file: Path) -> dict[str, Any]:
    """Where a picture comes from, which its terms depend on."""
    try:
        return read_json(file)["annotation"]["source"]
    except (DataError, KeyError, TypeError) as error:
        raise Unreadable(file, BAD_ANNOTATION) from error


def _index(root: Path) -> tuple[str, ...]:
    """Names of all classes, from index_ade20k.pkl (2021) or index_ade20k.mat (2017).

    Raises:
      DataError: when neither can be read.
    """
    from scipy.io import loadmat

    packed, table = root / "index_ade20k.pkl", root / "index_ade20k.mat"
    try:
        if packed.is_file():
            names = read_array_pickle(packed)["objectnames"]
        else:
            names = loadmat(table, simplify_cells=True)["index"]["objectnames"]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(
            f"{packed} (2021) or {table.name} (2017) should hold objectnames ({error!r}); get it "
            f"again, {FULL.where}"
        ) from error
    return tuple(str(name) for name in names)
