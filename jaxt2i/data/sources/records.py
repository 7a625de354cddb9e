"""A prepared data set as a source: records by number, with boxes, masks and classes of pixels.

`python -m jaxt2i.prepare` writes the records, as tfds stores them in ArrayRecord or TFRecord files;
they are read here without tfds or TensorFlow. What must be known of every record, such as where it
lies and which classes its objects have, is an index: a file beside the records, made anew where it
is missing.
"""

import contextlib
import dataclasses
import functools
import io
import json
import posixpath
import re
import sys
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxt2i.data import images, order, rare
from jaxt2i.data.images import CORRUPT, Unreadable
from jaxt2i.data.pictures import Framing, View
from jaxt2i.data.progress import Progress
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources import arrayrecords, files, tfrecords
from jaxt2i.data.sources.base import nearest
from jaxt2i.data.sources.files import Shelf

INFO = "dataset_info.json"
# Formats of the files that hold the records, by tfds' names.
FORMATS = {"array_record": arrayrecords.Files, "tfrecord": tfrecords.Files}
# Pixels of no class in a stored segmentation.
VOID = 255
OBJECT_ORDERS = ("annotation", "area")
RELATIONS = ("relation_objects", "relation_label", "relation_mask")
# What is told of objects.
OBJECTS = ("boxes", "box_label", "box_mask", "shape_masks", "object_attributes", *RELATIONS)
GET = "python -m jaxt2i.prepare NAME --from DIR --to DIR makes one; set --config.data.path=DIR"


@dataclasses.dataclass(frozen=True)
class Index:
    """What is known of every record of a split.

    Attributes:
      shard: [N], the file that it lies in.
      place: [N, 2], where in it: first byte and number of bytes, or its number and 0.
      captions: [N], how many captions it has.
      languages: [N, L], how many of them in each language.
      language_names: L names, sorted.
      label: [N], class of the picture.
      object_ends: [N], where each record's objects end in `object_label`.
      object_label: classes of all objects that stand for one thing.
      masks: whether any object has a mask.
      segmented: whether any picture has a segmentation.
    """

    shard: np.ndarray
    place: np.ndarray
    captions: np.ndarray
    languages: np.ndarray
    language_names: np.ndarray
    label: np.ndarray
    object_ends: np.ndarray
    object_label: np.ndarray
    masks: np.ndarray
    segmented: np.ndarray

    def objects_of(self, i: int) -> np.ndarray:
        """Classes of the objects of a record."""
        first = self.object_ends[i - 1] if i else 0
        return self.object_label[first : self.object_ends[i]]

    def records_of_objects(self) -> np.ndarray:
        """The record of each entry of `object_label`."""
        return np.repeat(np.arange(len(self.shard)), np.diff(self.object_ends, prepend=0))


def find_dataset(path: str) -> str:
    """The folder that holds the records: path, or the only one below it.

    Raises:
      DataError: when there is none, or more than one to choose from.
    """
    if not path or not files.is_folder(path):
        raise DataError(f"config.data.path is {path!r}, which is no folder; {GET}")
    found = [
        n for n in files.walk(path) if posixpath.basename(n) == INFO and "incomplete." not in n
    ]
    if len(found) == 1:
        return posixpath.join(path, posixpath.dirname(found[0])).rstrip("/")
    if not found:
        raise DataError(f"{path} holds no prepared data set: no {INFO} in it or below; {GET}")
    choices = ", ".join(posixpath.dirname(name) for name in found)
    raise DataError(f"{path} holds several data sets: {choices}. Set --config.data.path to one")


def describe(folder: str) -> dict[str, Any]:
    """{"name", "format", "splits": {split: records per file}, "names": class names}.

    Raises:
      DataError: for records of a format that is not read here, and damaged descriptions.
    """
    info = _json(posixpath.join(folder, INFO))
    if not isinstance(info.get("name"), str) or not isinstance(info.get("splits"), list):
        raise DataError(
            f"{posixpath.join(folder, INFO)} is none of a prepared data set: it has no name and "
            "splits. If the folder is of Hugging Face's datasets, set --config.data.source=folder; "
            f"{GET}"
        )
    kind = info.get("fileFormat", "tfrecord")
    if kind not in FORMATS:
        raise DataError(
            f"{folder} holds {kind} files; {' and '.join(FORMATS)} are read here: build it again, "
            "or use tfds convert_format --out_file_format=array_record"
        )
    names = posixpath.join(folder, "metadata.json")
    return {
        "name": info["name"],
        "format": kind,
        "splits": _splits(info["splits"], folder),
        "names": _json(names) if files.exists(names) else {},
    }


def _json(file: str) -> dict[str, Any]:
    """What a file that describes records holds; raises DataError for a damaged one."""
    try:
        found = json.loads(files.read_bytes(file))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{file} is damaged, not readable as JSON ({error}); copy it again"
        ) from None
    if not isinstance(found, dict):
        raise DataError(f"{file} is damaged: it holds no object; copy it again")
    return found


def _splits(listed: list, folder: str) -> dict[str, list[int]]:
    """{split: records of each file}; raises DataError for what says something else."""
    try:
        return {s["name"]: [int(n) for n in s.get("shardLengths", ())] for s in listed}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DataError(
            f"{posixpath.join(folder, INFO)} is damaged: its splits have no names and lengths; "
            "copy it again"
        ) from None


def nearest_split(path: str, split: str) -> str:
    """The split of a data set that serves as "train", "val" or "test"."""
    folder = find_dataset(path)
    return nearest(split, describe(folder)["splits"], folder) or split


def read_pairs(file: str) -> tuple[tuple[str, int], ...]:
    """A fixed list of records and captions, as `python -m jaxt2i.prepare NAME --list` writes it.

    Args:
      file: JSON, [[id, number of the caption], ...]; "": no list.

    Raises:
      DataError: for a file that is none.
    """
    if not file:
        return ()
    try:
        return tuple((str(name), int(caption)) for name, caption in json.loads(_text(file)))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"config.data.list={file}: expected [[id, number of the caption], ...] as JSON "
            f"({error})"
        ) from error


def _text(file: str) -> str:
    return files.read_bytes(file).decode()


def split_files(folder: str, split: str, counts: list[int]) -> tuple[str, Shelf]:
    """The format and the files of a split.

    Raises:
      DataError: when some of them are missing.
    """
    kind = describe(folder)["format"]
    pattern = re.compile(rf".*-{re.escape(split)}\.{kind}-\d+-of-(\d+)")
    names = [name for name in files.walk(folder) if pattern.fullmatch(name)]
    if len(names) != len(counts):
        raise DataError(
            f"{folder} should hold {len(counts)} files of the split {split!r} and holds "
            f"{len(names)}; copy it again, or prepare it again"
        )
    return kind, Shelf([posixpath.join(folder, name) for name in names])


def index_of(folder: str, split: str, counts: list[int]) -> tuple[Any, Index]:
    """The files and the index of a split; an index that is missing is made and kept.

    Raises:
      DataError: when a file is cut off, or holds other records than it should.
    """
    kind, shelf = split_files(folder, split, counts)
    stored = FORMATS[kind](shelf)
    kept = posixpath.join(folder, f"index-{split}.npz")
    index = _kept_index(kept, counts) if files.exists(kept) else None
    if index is not None:
        return stored, index
    index = make_index(stored, counts)
    out = io.BytesIO()
    np.savez_compressed(out, **{f.name: getattr(index, f.name) for f in dataclasses.fields(index)})
    # A data set may be for reading only: then the next start makes the index again.
    with contextlib.suppress(OSError):
        files.write_bytes(kept, out.getvalue())
    return stored, index


def _kept_index(file: str, counts: list[int]) -> Index | None:
    """An index that was made earlier; None where it is of other records, or damaged."""
    try:
        with np.load(io.BytesIO(files.read_bytes(file))) as arrays:
            index = Index(**arrays)
        same = np.bincount(index.shard, minlength=len(counts)).tolist() == counts
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error):
        print(f"data: {file} is damaged and made anew", file=sys.stderr)
        return None
    return index if same else None


def make_index(stored, counts: list[int]) -> Index:
    """Reads every record once."""
    file, places, captions, spoken, label, objects = [], [], [], [], [], []
    masks = segmented = False
    progress = Progress(f"indexing {posixpath.dirname(stored.paths[0])}", sum(counts))
    for number, count in enumerate(counts):
        found, is_whole = stored.scan(number)
        if not is_whole or len(found) != count:
            raise DataError(
                f"{stored.paths[number]} should hold {count} records; {len(found)} can be read"
                f"{'' if is_whole else ', then it is cut off or damaged'}. Copy it again, or "
                "prepare the data set again"
            )
        for start, length in found.tolist():
            row = _parsed(stored, number, start, length)
            file.append(number)
            places.append((start, length))
            languages = row.texts("captions/language")
            captions.append(len(languages))
            spoken.append(languages)
            label.append(int(row.integers("label")[0]))
            objects.append(row.integers("objects/label")[row.integers("objects/is_crowd") == 0])
            masks |= bool(row.integers("objects/rle/ragged_row_lengths_0").any())
            segmented |= len(row.byte_strings("segmentation")[0]) > 100
            progress.step(False)
    progress.close()
    names = sorted({language for languages in spoken for language in languages})
    return Index(
        shard=np.array(file, np.int32),
        place=np.array(places, np.int64).reshape(-1, 2),
        captions=np.array(captions, np.int32),
        languages=np.array([[row.count(name) for name in names] for row in spoken], np.int32),
        language_names=np.array(names, "U16"),
        label=np.array(label, np.int32),
        object_ends=np.cumsum([len(row) for row in objects], dtype=np.int64),
        object_label=np.concatenate([*objects, np.zeros(0, np.int64)]).astype(np.int32),
        masks=np.array(masks),
        segmented=np.array(segmented),
    )


def _parsed(stored, file: int, start: int, length: int) -> tfrecords.Example:
    try:
        name = f"{stored.paths[file]} at {start}"
        return tfrecords.Example(stored.read(file, start, length), name)
    except ValueError as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"{stored.paths[file]} at {start}", CORRUPT) from error


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is made of a record besides the picture.

    Attributes:
      languages: captions in these alone; none: in any.
      around_box: confine the view to the surroundings of the picture's box, where it has one.
      objects: padded number of objects, N.
      object_order: "annotation", or "area": the largest first.
      mask_resolution: side of an object's mask, pixels.
      pairs: ((id, number of the caption), ...) to use and nothing else; none: everything.
      rare: "repeat" or "balanced" sampling by class, see `jaxt2i.data.rare`; "": none.
      rare_threshold: for "repeat".
      relations: padded number of relations, R.
      attributes: that a picture may have; 0: none are read.
      object_attributes: the same of an object.
    """

    languages: tuple[str, ...] = ()
    around_box: bool = True
    objects: int = 8
    object_order: str = "area"
    mask_resolution: int = 16
    pairs: tuple[tuple[str, int], ...] = ()
    rare: str = ""
    rare_threshold: float = 0.001
    relations: int = 8
    attributes: int = 0
    object_attributes: int = 0


def _check(wanted: Wanted) -> None:
    """Refuses choices that there are not."""
    if wanted.object_order not in OBJECT_ORDERS:
        raise DataError(
            f"config.data.object_order is {wanted.object_order!r}; known: "
            f"{', '.join(OBJECT_ORDERS)}"
        )
    if wanted.rare not in ("", *rare.KINDS):
        raise DataError(
            f"config.data.rare is {wanted.rare!r}; known: {', '.join(rare.KINDS)}, or '' for "
            "every record once an epoch"
        )


class Records:
    """The records of a split of a prepared data set.

    `label` counts the picture's classes, and is the example's number where the data set has none,
    so that every picture is a class of its own, as DAMSM takes COCO. Objects that the view cuts
    below one pixel, and crowds, are left out. `segmentation` is the class + 1.

    Attributes:
      gives: the batch keys; boxes, masks and segmentation where the data set has them.
      size: number of usable records.
      class_names: names that `label` counts.
      object_names: names that `box_label` counts.
      pixel_names: names that `segmentation` counts from 1.
      predicate_names: names that `relation_label` counts.
      attribute_names: of `attributes`.
      object_attribute_names: of `object_attributes`.
      index: what is known of every usable record.
      holds: which split of which data set.
      report: what was found.
    """

    def __init__(self, path: str, split: str, framing: Framing, wanted: Wanted = Wanted()):
        """Opens a split.

        Args:
          path: a folder that `python -m jaxt2i.prepare` wrote, or one above it; may be gs://.
          split: of the data set.
          framing: what part of a picture is shown, and how large.
          wanted: the rest.

        Raises:
          DataError: names the path, what was seen and what was expected.
        """
        _check(wanted)
        folder = find_dataset(path)
        about = describe(folder)
        if split not in about["splits"]:
            raise DataError(
                f"{folder} has the splits {', '.join(about['splits'])}, and none named {split!r}; "
                "set --config.data.split or .eval_split"
            )
        self.framing, self.wanted, self.holds = framing, wanted, (folder, split)
        self._stored, index = index_of(folder, split, about["splits"][split])
        self.class_names = about["names"].get("label", [])
        self.object_names = about["names"].get("objects", [])
        self.pixel_names = about["names"].get("segmentation", [])
        self.predicate_names = about["names"].get("predicates", [])
        self.attribute_names = about["names"].get("attributes", [])
        self.object_attribute_names = about["names"].get("object_attributes", [])
        for name, there in (
            ("attributes", len(self.attribute_names)),
            ("object_attributes", len(self.object_attribute_names)),
        ):
            if (asked := getattr(wanted, name)) and there not in (0, asked):
                raise DataError(
                    f"config.data.{name}={asked}, and {folder} has {there}; set "
                    f"--config.data.{name}={there}"
                )
        self.index = index
        usable = self._usable(folder, index)
        self._rows = usable
        self.size = len(usable)
        self._captions_of = self._listed(folder, usable) if wanted.pairs else None
        self.gives = self._given()
        self.report = {
            "path": folder,
            "split": split,
            "records": len(index.shard),
            "usable": self.size,
        }
        if len(index.object_label):
            self.report["objects"] = self._crowds()
        self._seen = self._sampled(folder)
        # The same record is asked for its picture and for its captions.
        self._row = functools.lru_cache(maxsize=64)(self._read)

    def _given(self) -> tuple[str, ...]:
        """The batch keys that it can make."""
        gives = ["image", "id", "label"]
        if len(self.index.object_label):
            gives += ["boxes", "box_label", "box_mask"]
        if self.predicate_names:
            gives += RELATIONS
        if self.attribute_names and self.wanted.attributes:
            gives.append("attributes")
        if self.object_attribute_names and self.wanted.object_attributes:
            gives.append("object_attributes")
        if self.index.masks:
            gives.append("shape_masks")
        if self.index.segmented:
            gives.append("segmentation")
        return tuple(gives)

    def _usable(self, folder: str, index: Index) -> np.ndarray:
        wanted = self.wanted.languages
        if not wanted:
            return np.arange(len(index.shard))
        columns = [i for i, name in enumerate(index.language_names) if name in wanted]
        usable = np.flatnonzero(index.languages[:, columns].sum(1))
        if not len(usable):
            raise DataError(
                f"{folder} has captions in {', '.join(index.language_names)}, none in "
                f"{', '.join(wanted)}; set --config.data.languages"
            )
        return usable

    def _listed(self, folder: str, usable: np.ndarray) -> list[int]:
        """Narrows the source to `wanted.pairs`; returns the number of each one's caption."""
        numbers = {}
        for row in usable.tolist():
            numbers[self._read_at(row).texts("id")[0]] = row
        absent = [name for name, _ in self.wanted.pairs if name not in numbers]
        if absent:
            raise DataError(
                f"config.data.list names {len(absent)} records that {folder} does not have, such "
                f"as {absent[0]}; it belongs to another data set or split"
            )
        self._rows = np.array([numbers[name] for name, _ in self.wanted.pairs])
        self.size = len(self._rows)
        return [caption for _, caption in self.wanted.pairs]

    def _sampled(self, folder: str) -> np.ndarray | None:
        """How often an epoch shows each usable record, noted in the report; None: once."""
        if not self.wanted.rare:
            return None
        index, names = self.index, self.object_names
        record, label = index.records_of_objects(), index.object_label
        if not len(label):
            known = index.label >= 0
            record, label, names = np.flatnonzero(known), index.label[known], self.class_names
        if not len(label):
            raise DataError(
                f"config.data.rare={self.wanted.rare}: {folder} has neither objects nor classes"
            )
        pairs = rare.presence(record, label)
        count = len(index.shard)
        seen = rare.weights(self.wanted.rare, pairs, count, self.wanted.rare_threshold)
        self.report["classes"] = rare.histogram(pairs, seen, names)
        return seen[self._rows]

    def _crowds(self) -> dict[str, int]:
        """How many pictures have more objects than there are places, and how many those leave."""
        counts = np.diff(self.index.object_ends, prepend=0)[self._rows]
        more = np.maximum(counts - self.wanted.objects, 0)
        places = self.wanted.objects
        return {"places": places, "crowded": int((more > 0).sum()), "left_out": int(more.sum())}

    def crowded(self) -> str:
        """A sentence on pictures with more objects than there are places; "" where none has."""
        found = self.report.get("objects", {"crowded": 0})
        if not found["crowded"]:
            return ""
        kept = "largest" if self.wanted.object_order == "area" else "first"
        return (
            f"data: {found['crowded']} of {self.size} pictures have more than {found['places']} "
            f"objects (config.data.objects): the {kept} are used, {found['left_out']} left out"
        )

    def object_count(self, index: int) -> int:
        """How many objects an example shows at most: those that its picture has."""
        return min(len(self.index.objects_of(int(self._rows[index]))), self.wanted.objects)

    def object_counts(self) -> np.ndarray:
        """How many objects of each class all records together have."""
        return np.bincount(self.index.object_label, minlength=len(self.object_names))

    def order(self, seed: int, batch: int):
        """The order in which training sees the records; see `jaxt2i.data.order`."""
        if self._seen is not None:
            return order.Weighted(self._seen, seed)
        if any(map(files.remote, self._stored.paths)):
            counts = np.bincount(self.index.shard[self._rows], minlength=len(self._stored.paths))
            lanes = order.lanes_for(int((counts > 0).sum()), batch, 8)
            return order.Lanes([order.Shards(counts, seed, lanes, 4)], [1], batch, seed)
        return order.Shuffled(self.size, seed)

    def _read_at(self, row: int) -> tfrecords.Example:
        start, length = self.index.place[row].tolist()
        return _parsed(self._stored, int(self.index.shard[row]), start, length)

    def _read(self, index: int) -> tfrecords.Example:
        return self._read_at(int(self._rows[index]))

    def shape(self, index: int) -> tuple[int, int]:
        """Width and height of a record's picture, pixels."""
        row = self._row(index)
        return int(row.integers("image/width")[0]), int(row.integers("image/height")[0])

    def subject(self, index: int) -> tuple[float, ...] | None:
        """x, y, w, h of what a record's picture shows, fractions; None: all of it."""
        row = self._row(index)
        if not row.integers("has_bbox")[0]:
            return None
        top, left, bottom, right = row.floats("bbox").tolist()
        return left, top, right - left, bottom - top

    def name(self, index: int) -> str:
        """The record's id, the same in every build of its data set."""
        return self._row(index).texts("id")[0]

    def captions(self, index: int) -> list[str]:
        """The captions of a record in the wanted languages, at least one."""
        row = self._row(index)
        texts = row.texts("captions/text")
        if self._captions_of is not None:
            return [texts[self._captions_of[index]]]
        wanted = self.wanted.languages
        if wanted:
            spoken = row.texts("captions/language")
            texts = [text for text, name in zip(texts, spoken, strict=True) if name in wanted]
        return texts

    def by_language(self, index: int) -> dict[str, list[str]]:
        """{language: captions} of a record, also in languages that are not wanted."""
        row, out = self._row(index), {}
        spoken = zip(row.texts("captions/language"), row.texts("captions/text"), strict=True)
        for language, text in spoken:
            out.setdefault(language, []).append(text)
        return out

    def example(
        self,
        index: int,
        keys: tuple[str, ...] = ("image",),
        chance: tuple[float, float, float] | None = None,
    ) -> dict[str, np.ndarray]:
        """One example; what belongs to the picture follows its view.

        Args:
          index: in range(size).
          keys: of `gives`.
          chance: see `Framing.show`; None shows the centre.

        Returns:
          {key: array} as the schema has them, without a batch axis.

        Raises:
          Unreadable: when the record, or its picture, is damaged.
        """
        row = self._row(index)
        size = self.shape(index)
        box = None
        if self.wanted.around_box and row.integers("has_bbox")[0]:
            box = tuple(_pixels(row.floats("bbox"), size)[0])
        out: dict[str, np.ndarray] = {}
        if "image" in keys:
            out["image"], view = self.framing.show(index, self._opener(row), chance, box)
        else:
            view = self.framing.view(size, chance, box)
        if "id" in keys:
            out["id"] = np.int64(index)
        if "label" in keys:
            label = int(row.integers("label")[0])
            out["label"] = np.int32(index if label < 0 else label)
        if not set(OBJECTS).isdisjoint(keys):
            out |= self._objects(row, size, view, keys)
        if "attributes" in keys:
            had = json.loads(row.texts("metadata")[0]).get("attributes", [])
            out["attributes"] = np.isin(np.arange(self.wanted.attributes), had)
        if "segmentation" in keys:
            out["segmentation"] = _segmentation(row, size, view)
        return out

    def _opener(self, row: tfrecords.Example) -> Callable:
        how = {"upright": False, "background": self.framing.background}
        content, name = row.byte_strings("image")[0], row.texts("id")[0]
        return lambda need: images.open_rgb(content, need, name=name, **how)

    def _objects(self, row: tfrecords.Example, size, view: View, keys) -> dict[str, np.ndarray]:
        boxes = _pixels(row.floats("objects/bbox"), size)
        shown, seen = view.objects(boxes)
        chosen = np.flatnonzero(seen & (row.integers("objects/is_crowd") == 0))
        if self.wanted.object_order == "area":
            area = (boxes if view.op_gan else shown)[chosen, 2:].prod(1)
            chosen = chosen[np.argsort(-area, kind="stable")]
        count, side = self.wanted.objects, self.wanted.mask_resolution
        chosen = chosen[:count]
        out = {
            "boxes": np.zeros((count, 4), np.float32),
            "box_label": np.zeros(count, np.int32),
            "box_mask": np.arange(count) < len(chosen),
        }
        out["boxes"][: len(chosen)] = shown[chosen]
        out["box_label"][: len(chosen)] = row.integers("objects/label")[chosen]
        if "shape_masks" in keys:
            out["shape_masks"] = np.zeros((count, side, side), np.uint8)
            ends = np.cumsum(row.integers("objects/rle/ragged_row_lengths_0"))
            runs = row.integers("objects/rle/ragged_flat_values")
            for slot, i in enumerate(chosen.tolist()):
                mask = mask_of(runs[ends[i - 1] if i else 0 : ends[i]], size)
                if mask is not None:
                    out["shape_masks"][slot] = view.mask(mask, side)
        if not set(RELATIONS).isdisjoint(keys):
            out |= self._relations(row, chosen.tolist())
        if "object_attributes" in keys:
            had = json.loads(row.texts("metadata")[0]).get("attributes", [])
            out["object_attributes"] = np.zeros((count, self.wanted.object_attributes), bool)
            for slot, i in enumerate(chosen.tolist()):
                names = had[i] if i < len(had) else ()
                out["object_attributes"][slot] = np.isin(self.object_attribute_names, names)
        return {key: value for key, value in out.items() if key in keys}

    def _relations(self, row: tfrecords.Example, chosen: list[int]) -> dict[str, np.ndarray]:
        """Relations between objects that are told, of predicates that have a number."""
        slot = {i: place for place, i in enumerate(chosen)}
        number = {name: n for n, name in enumerate(self.predicate_names)}
        ends = (row.integers(f"relationships/{end}").tolist() for end in ("subject", "object"))
        said = zip(*ends, row.texts("relationships/predicate"), strict=True)
        known = [
            (slot[a], slot[b], number[name])
            for a, b, name in said
            if a in slot and b in slot and name in number
        ]
        known = known[: self.wanted.relations]
        table = np.zeros((self.wanted.relations, 3), np.int32)
        table[: len(known)] = np.array(known, np.int32).reshape(-1, 3)
        there = np.arange(len(table)) < len(known)
        found = table[:, :2], table[:, 2], there
        return dict(zip(RELATIONS, found, strict=True))


def _pixels(stored: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Stored boxes (ymin, xmin, ymax, xmax, fractions) as x, y, w, h in pixels, float64 [n, 4]."""
    top, left, bottom, right = np.asarray(stored, np.float64).reshape(-1, 4).T
    boxes = np.stack([left, top, right - left, bottom - top], 1) * [*size, *size]
    # Fractions are float32: what was a whole number of pixels becomes one again.
    return np.where(np.abs(boxes - np.round(boxes)) < 1e-3, np.round(boxes), boxes)


def mask_of(runs: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    """The mask behind run lengths down the columns: uint8 0/1 [H, W]; None where there are none."""
    width, height = size
    if not len(runs) or runs.sum() != width * height:
        return None
    return np.repeat(np.arange(len(runs)) % 2, runs).reshape(width, height).T.astype(np.uint8)


def _segmentation(row: tfrecords.Example, size: tuple[int, int], view: View) -> np.ndarray:
    """The class + 1 of each pixel of the crop, 0 where there is none: int32 [H, W]."""
    from PIL import Image

    with Image.open(io.BytesIO(row.byte_strings("segmentation")[0])) as image:
        if image.size != size:
            return np.zeros(view.size[::-1], np.int32)
        classes = view.classes(np.asarray(image), outside=VOID).astype(np.int32)
    return np.where(classes == VOID, 0, classes + 1)
