"""On what is judged: any data set by one word, its captions, and its pictures as a paper has them.

A word of `--data` is a folder of any kind (records, a web collection, pictures with captions), a
preset whose data it is (`configs/galip.py:coco`), a list of pictures and captions (.jsonl, .csv),
or the name of a procedural corpus. Nothing said is the data that the judged run knows.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxt2i.config import ConfigError
from jaxt2i.configs import common
from jaxt2i.data import conditions, images, schema, sources
from jaxt2i.data.conditions import Row
from jaxt2i.data.decoding import decoded
from jaxt2i.data.drawn import synthetic
from jaxt2i.data.pictures import Framing
from jaxt2i.data.readable import readable
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources import files, records
from jaxt2i.data.sources.captions import read_metadata
from jaxt2i.evaluation import reference, sets
from jaxt2i.metrics import protocols
from jaxt2i.metrics.protocols import ANY
from jaxt2i.metrics.statistics import fingerprint
from jaxt2i.run import moved, settings
from jaxt2i.run import open as runs

SYNTHETIC_COUNT = 2048
CORPORA = (*synthetic.CORPORA, "mixed")
LISTS = (".jsonl", ".csv")
# What a preset's data takes over; sizes, tokenizer and the like stay the judged system's.
TAKEN = (
    *("source", "corpus", "path", "split", "eval_split", "web", "list", "languages"),
    *("crop", "margin", "resize", "around_box"),
)
PUBLISHED_NAMES = {
    "jaxt2i_coco/2014": "coco2014",
    "jaxt2i_coco/2017": "coco2017",
    "jaxt2i_cub": "cub",
    "jaxt2i_oxford102": "oxford102",
}


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set.

    Attributes:
      name: as protocols call it; else its kind and place.
      config: `config.data` that reads it.
      split: of it, by its own name.
      size: height and width at which it is shown.
      source: of `jaxt2i.data`.
      trained: whether the judged system trained on it: "yes", "no" or "unknown".
    """

    name: str
    config: ConfigDict
    split: str
    size: tuple[int, int]
    source: Any
    trained: str

    @property
    def listed(self) -> str:
        """The name of a fixed list of pictures; "": the whole split."""
        return os.path.basename(self.config.list) if self.config.get("list") else ""

    def other(self, split: str) -> Any:
        """The source of another split."""
        return source_of(self.config, self.size, split)


def open_data(
    word: str,
    changes: Mapping[str, Any],
    split: str,
    protocol: protocols.Protocol,
    run: runs.Run | None,
    resolution: int = 0,
) -> Data:
    """The data set that a word of --data names.

    Args:
      word: see the head of this module; "": the data of the run.
      changes: {"path": "DIR"}: fields of config.data on top.
      split: of it; "": the protocol's own, where this is its data set, else the configured one.
      protocol: how is measured.
      run: what is judged; None: a folder of pictures.
      resolution: where there is no run; 0: as configured.

    Raises:
      DataError: where there is no such data; says what was seen.
    """
    own = run.config.data if run else None
    config = ConfigDict((own or common.base().data).to_dict())
    point(config, word, own is not None)
    config.update(changes)
    if config.source != "synthetic" and not config.path:
        raise DataError(
            f"--data {word}: this preset names no folder; add --config.data.path=DIR, where the "
            "data lies"
        )
    if run and not word and not changes:
        moved.check(run.config, "the judged run")
    name = dataset_of(config)
    chosen = split or (protocol.samples.split if name == protocol.samples.dataset else "")
    chosen = chosen or config.eval_split
    if config.source == "records":
        chosen = records.nearest_split(config.path, chosen)
    size = (run.sizes.height, run.sizes.width) if run else None
    size = size or schema.height_and_width(resolution or config.resolution)
    source = source_of(config, size, chosen)
    return Data(name, config, chosen, size, source, trained_on(run, name, config, source, chosen))


def point(config: ConfigDict, word: str, known: bool) -> None:
    """Writes into `config.data` which data a word names.

    Raises:
      DataError: where there is nothing of that name.
    """
    suffix = Path(word.partition(":")[0]).suffix
    if word in CORPORA:
        config.update(source="synthetic", corpus=word, path="", list="")
    elif suffix == ".py":
        given = settings.configuration(word, []).data
        config.update({key: given[key] for key in TAKEN} if known else given.to_dict())
    elif word and files.is_folder(word):
        listed, before = config.get("list", ""), config.path
        inside = listed and before and moved.is_below(listed, before) and not files.exists(listed)
        at = os.path.join(word, os.path.relpath(listed, before)) if inside else ""
        kind = kind_of(word)
        # A list of pictures belongs to the records that it was made of.
        keep = listed if kind == config.source == "records" and not inside else at
        config.update(source=kind, path=word, list=keep)
    elif suffix in LISTS and files.exists(word):
        config.update(source="list", path=word, list="")
    elif word:
        what = "a file" if files.exists(word) else "no such folder"
        raise DataError(
            f"--data {word}: {what}; give a folder of records, of a web collection or of pictures "
            f"with captions, a list ({', '.join(LISTS)}) with file_name and text, a preset as "
            f"configs/galip.py:coco, or a corpus: {', '.join(CORPORA)}"
        )


def kind_of(folder: str) -> str:
    """Which kind of source reads a folder, by the names in it."""
    names = files.walk(folder)
    if any(name.rsplit("/", 1)[-1] == records.INFO for name in names):
        return "records"
    if any(name.endswith((".tar", ".tfrecord")) for name in names):
        return "webdataset"
    return "folder"


def source_of(config: ConfigDict, size: tuple[int, int], split: str) -> Any:
    """The source of a split; see `jaxt2i.data.sources.make_source`."""
    if config.source == "list":
        framing = Framing(size, config.crop, config.resize, config.margin)
        return Listed(Path(config.path), framing)
    return sources.make_source(config, size, split)


def dataset_of(data: Any) -> str:
    """The name that protocols give to what `config.data` reads; else its kind and place."""
    if data.source == "synthetic":
        return data.corpus
    place = str(data.path)
    if data.source == "records":
        if files.is_folder(place):
            place = records.find_dataset(place)
        name = place.replace(os.sep, "/")
        for ours, theirs in PUBLISHED_NAMES.items():
            if ours in name:
                return theirs
    return f"{data.source}:{place}"


def trained_on(run: runs.Run | None, name: str, data: Any, source: Any, split: str) -> str:
    """Whether a run trained on a data set, as far as names tell: "yes", "no" or "unknown".

    A data set of the same kind, whose split is as large as the run remembers it, is the run's own
    that moved.
    """
    if run is None:
        return "unknown"
    own = run.config.data
    theirs = dataset_of(own)
    if theirs == name:
        return "yes"
    here = own.source == "synthetic" or not own.path or files.exists(own.path)
    if not here and own.source == data.source and run.facts.counts.get(split) == source.size:
        return "yes"
    named = {*PUBLISHED_NAMES.values(), *CORPORA}
    # Two folders may hold the same pictures, whatever they are called.
    known = [x in named or x.startswith("webdataset:") for x in (theirs, name)]
    return "no" if all(known) else "unknown"


class Listed:
    """Pictures and captions of a list: rows of file_name and text, as metadata.jsonl has them.

    Attributes:
      gives: the batch keys.
      size: rows.
      class_names: none.
    """

    gives = ("image", "id")
    class_names = ()

    def __init__(self, file: Path, framing: Framing):
        """Reads the list; pictures lie below its folder, or where an absolute name says.

        Raises:
          DataError: where a row cannot be used.
        """
        self.file, self.framing = file, framing
        self._rows = []
        for line, reason, name, texts in read_metadata(file.read_bytes(), str(file)):
            if reason or not texts:
                raise DataError(f"{file}:{line}: {reason or 'no caption'}; mend or remove that row")
            self._rows.append((name, texts))
        self.size = len(self._rows)
        if not self._rows:
            raise DataError(f"{file}: holds no row with file_name and text")

    def name(self, index: int) -> str:
        """A picture's name in the list."""
        return self._rows[index][0]

    def captions(self, index: int) -> list[str]:
        """The captions of a picture."""
        return self._rows[index][1]

    def example(self, index: int, keys: Sequence[str] = ("image",), chance=None) -> dict[str, Any]:
        """One example, see `jaxt2i.data.sources.folders.Folder.example`."""
        out: dict[str, Any] = {"id": np.int64(index)} if "id" in keys else {}
        if "image" in keys:
            place = self.file.parent / self.name(index)
            out["image"], _ = self.framing.show(
                index, lambda need: images.open_rgb(place, need), chance
            )
        return out


# --- What is drawn for -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What pictures are drawn for.

    Attributes:
      rule: key of `protocols.CAPTIONS`, or the name of a file.
      said: the captions.
      pairs: (number of the picture, number of its caption) of each; () where a file says.
      conditions: number of a caption -> its other conditions in words.
      labels: class of each; None where there are none, or nobody asks.
    """

    rule: str
    said: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    conditions: Callable[[int], Row]
    labels: np.ndarray | None = None

    @property
    def digest(self) -> str:
        """A fingerprint of the list."""
        return fingerprint([*map(str, self.pairs), *self.said])

    def lines(self, source: Any) -> list[dict[str, Any]]:
        """The list, to be published: one row for each picture."""
        if not self.pairs:
            return [{"number": n, "text": text} for n, text in enumerate(self.said)]
        return [
            {"number": n, "picture": source.name(i) if hasattr(source, "name") else i}
            | {"caption": j, "text": text}
            for n, ((i, j), text) in enumerate(zip(self.pairs, self.said, strict=True))
        ]


def choose(args: Any, system: Any, data: Data, how: protocols.Samples, labels: bool) -> Chosen:
    """What is drawn for, by --captions, else by the protocol.

    Args:
      args: the command line.
      system: what draws, `api.System`.
      data: on which data.
      how: the protocol's samples.
      labels: whether classes are asked for.
    """
    run = system.run
    if args.captions and args.captions not in protocols.CAPTIONS:
        rows = read_captions(Path(args.captions), run)
        rows = rows[: args.num] if args.num else rows
        said = tuple(row["prompt"] for row in rows)
        rest = [{k: v for k, v in row.items() if k != "prompt"} for row in rows]
        return Chosen(Path(args.captions).name, said, (), lambda n: rest[n])
    if data.source.size is None and data.config.source != "synthetic":
        raise DataError(f"{data.name} has no end: name its held-out part by --split")
    rule = args.captions or how.captions
    pairs = captions_of(args, run, data, dataclasses.replace(how, captions=rule))
    said = tuple(data.source.captions(i)[j] for i, j in pairs)
    found = None
    if labels and "label" in data.source.gives and data.config.source != "synthetic":
        found = np.array([int(data.source.example(i, ("label",))["label"]) for i, _ in pairs])
    if data.config.source == "synthetic":
        rule = "one_pass" if rule not in ("first", "all") else rule

    def conditions_of(number: int) -> Row:
        return next(run.rows_of(data.source, [pairs[number][0]], system.asked))

    return Chosen(rule, said, tuple(pairs), conditions_of, found)


def read_captions(file: Path, run: runs.Run) -> list[Row]:
    """Rows of --captions: a text file with one caption a line, or .jsonl and .json of conditions.

    Raises:
      ConfigError: for what is no such file.
    """
    if file.suffix in (".jsonl", ".json"):
        rows = conditions.read_file(file)
        rows = [row | ({"prompt": row["text"]} if "prompt" not in row else {}) for row in rows]
    elif file.is_file():
        text = decoded(file.read_bytes())
        lines = [line.strip() for line in (text or "").splitlines()]
        rows = [{"prompt": line} for line in lines if line]
    else:
        rules = ", ".join(protocols.CAPTIONS)
        raise ConfigError(f"--captions {file}: no such file, and no rule; rules: {rules}")
    if not rows:
        raise ConfigError(f"--captions {file}: no captions in it, one a line in UTF-8")
    return rows


def captions_of(args, run: runs.Run, data: Data, how: protocols.Samples) -> list[tuple[int, int]]:
    """(picture, number of its caption) of everything that is drawn; what is unreadable is told."""
    source = data.source
    if data.config.source == "synthetic":
        return [(i, i % len(source.captions(i))) for i in range(args.num or SYNTHETIC_COUNT)]
    found = list(readable(range(source.size), source.captions, "the captions"))
    numbers, counts = [i for i, _ in found], [len(texts) for _, texts in found]
    pairs = sets.choose_captions(counts, how.captions, args.num or how.count, args.seed)
    pairs = [(numbers[i], j) for i, j in pairs]
    keys = tuple({*run.method.sampler.needs, "label"} & set(source.gives))
    if not keys:
        return pairs
    # Only what is drawn for is looked at further: there may be many more examples.
    known = readable(pairs, lambda pair: source.example(pair[0], keys), "what is drawn")
    return [pair for pair, _ in known]


# --- Its pictures ------------------------------------------------------------------------------


def pictures_of(
    data: Data, how: protocols.Reference, run: runs.Run | None, endless: int = 0
) -> sets.Set:
    """The pictures of a data set as a protocol compares with them.

    Args:
      data: the data set.
      how: which split of it, how cut and resized; what it leaves open is as configured.
      run: whose classes rows are told in; None: nobody's.
      endless: pictures of a corpus without end; 0: `SYNTHETIC_COUNT`.
    """
    config, size = ConfigDict(data.config.to_dict()), data.size
    config.crop = config.crop if how.crop == ANY else how.crop
    config.resize = config.resize if how.resize == ANY else how.resize
    if how.resolution:
        size = (how.resolution, how.resolution)
    split = how.split if how.dataset == data.name else data.split
    if config.source == "records":
        split = records.nearest_split(config.path, split)
    config.decode = "exact"  # those of the training split, too
    own = split == data.split != "train" and size == data.size
    own = own and (config.crop, config.resize) == (data.config.crop, data.config.resize)
    source = data.source if own else source_of(config, size, split)
    count = source.size or endless or SYNTHETIC_COUNT
    numbers = range(min(count, how.count) if how.count else count)
    crop = "centre" if config.crop == "random" else config.crop
    crop = "none" if crop == "random_stretched" else crop
    made = {
        "dataset": data.name,
        "split": split,
        "crop": crop,
        "resize": config.resize,
        "resolution": size[0],
    }
    told = ("label", *runs.LAYOUT)
    plain = settings.plain(ConfigDict({"data": config}))["data"]
    return dataclasses.replace(
        sets.of_source(
            source,
            f"{data.name}-{split}-{size[0]}x{size[1]}",
            numbers,
            row=(lambda n: next(run.rows_of(source, [n], told))) if run else None,
            content=reference.content_of(source, plain, numbers),
        ),
        made=made,
    )
