"""Web-scale collections as a source: what img2dataset wrote, read where it lies.

A collection is a folder of tar files (webdataset) or TFRecord files, each with a parquet file of
the same stem beside it or without, here or in a bucket. A parquet file tells how many examples
there are and which of them pass the filters, so a file of pictures is opened when its turn comes.

Layouts: img2dataset 1.47 (writer.py); webdataset groups members by their name up to the first dot
of the last part.
"""

import collections
import dataclasses
import io
import itertools
import json
import posixpath
import sys
import tarfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from jaxt2i.data import images, order
from jaxt2i.data.decoding import NOT_UTF8, decoded
from jaxt2i.data.images import CORRUPT, Unreadable
from jaxt2i.data.pictures import Framing
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources import counts, files, mixture, tables, tfrecords
from jaxt2i.data.sources.base import (
    LISTED,
    NO_IMAGE,
    NOT_TEXT,
    OUTSIDE,
    SPLITS,
    caption_in,
    nearest,
)
from jaxt2i.data.sources.files import Kept, Shelf

PICTURES = tuple(suffix.removeprefix(".") for suffix in images.SUFFIXES)
# What the kind of a picture with a name of its own begins with, in a tar file.
FIELD = "image:"
LANGUAGE_COLUMNS = ("LANGUAGE", "language")
# Metadata columns that filters may ask for besides those of scores.
COLUMNS = ("key", "status", "caption", "width", "height", *LANGUAGE_COLUMNS)
LAYOUT = (
    "expected the output folder of img2dataset: 00000.tar (or 00000.tfrecord), best with "
    "00000.parquet beside it. Set --config.data.path=DIR"
)
# Files whose lists of examples are kept in memory.
OPEN_LISTS = 256

# Why an example is not used.
FAILED = "not downloaded"
SMALL = "smaller than config.data.web.min_side"
LONG = "longer than config.data.web.max_aspect"
CHARS = "caption outside config.data.web.min_chars and max_chars"
SCORE = "score outside config.data.web.scores"
LANGUAGE = "language not in config.data.web.languages"
TWICE = "key for the second time"
CUT_OFF = "file cut off or damaged"
ABSENT = "listed and not there"
NO_KEY = "key that is no text"
SEVERAL = "several pictures in one example"
# Of these the examples are listed, as a person can mend them one by one.
MENDED = (NOT_UTF8, NOT_TEXT, NO_KEY)
_NONE: collections.Counter = collections.Counter()


@dataclasses.dataclass(frozen=True)
class Filters:
    """What an example must be like.

    Attributes:
      min_side: least width and height, pixels; 0: any.
      max_aspect: longest side by shortest; 0: any.
      min_chars: least length of a caption.
      max_chars: greatest length; 0: any.
      scores: (column, least, most), such as similarity or aesthetic scores.
      languages: values of a column LANGUAGE or language; none: any.
    """

    min_side: int = 0
    max_aspect: float = 0.0
    min_chars: int = 0
    max_chars: int = 0
    scores: tuple[tuple[str, float, float], ...] = ()
    languages: tuple[str, ...] = ()

    def columns(self) -> tuple[str, ...]:
        """The metadata that is looked at."""
        return (*COLUMNS, *(name for name, _, _ in self.scores))

    def apply(
        self,
        rows: Mapping[str, np.ndarray],
        where: str,
        known: Iterable[str] = (),
        note: Callable[[str, str], None] = lambda name, reason: None,
    ) -> tuple[np.ndarray, dict[str, int]]:
        """Which rows pass, and how many fail for each reason, counted at the first that applies.

        Args:
          rows: columns of equal length, "key" among them; without "status" all were downloaded.
            Texts may be bytes that are not UTF-8.
          where: the file, for errors.
          known: all columns that it has, where these are not all.
          note: takes the name of each row that fails for a reason of `MENDED`, and the reason.

        Raises:
          DataError: when a filter asks for a column that is not there.
        """
        count = len(rows["key"])
        passed, counts = np.ones(count, bool), {}

        def drop(reason: str, bad: np.ndarray) -> None:
            if found := int((passed & bad).sum()):
                counts[reason] = counts.get(reason, 0) + found
                if reason in MENDED:
                    for i in np.flatnonzero(passed & bad).tolist():
                        note(f"{where}:{rows['key'][i]}", reason)
            np.logical_and(passed, ~bad, out=passed)

        def missing(name: str) -> DataError:
            return DataError(
                f"{where} has no column {name!r}, which a filter of --config.data.web asks for; it "
                f"has {', '.join(known or rows)}"
            )

        if "status" in rows:
            drop(FAILED, rows["status"] != "success")
        drop(NO_KEY, ~np.array([isinstance(key, str) for key in rows["key"]], bool))
        captions = [caption_in(value) for value in rows["caption"]]
        lengths = np.array([len(text) for text, _ in captions], np.int64)
        faults = np.array([reason for _, reason in captions], object)
        for reason in dict.fromkeys(reason for _, reason in captions if reason):
            drop(reason, faults == reason)
        if self.min_side or self.max_aspect:
            width, height = (_numbers(rows, name, missing) for name in ("width", "height"))
            short, long = np.minimum(width, height), np.maximum(width, height)
            drop(SMALL, ~(short >= self.min_side))
            if self.max_aspect:
                drop(LONG, long > self.max_aspect * short)
        drop(CHARS, (lengths < self.min_chars) | (lengths > (self.max_chars or np.inf)))
        for name, least, most in self.scores:
            score = _numbers(rows, name, missing)
            drop(SCORE, ~((score >= least) & (score <= most)))
        if self.languages:
            spoken = next((rows[name] for name in LANGUAGE_COLUMNS if name in rows), None)
            if spoken is None:
                raise missing("LANGUAGE")
            drop(LANGUAGE, ~np.isin(spoken.astype(str), self.languages))
        return passed, counts


def _numbers(rows: Mapping[str, np.ndarray], name: str, missing: Callable) -> np.ndarray:
    """A column as float64; what is no number is NaN, which passes no filter."""
    if name not in rows:
        raise missing(name)
    values = [x if isinstance(x, int | float | np.number) else np.nan for x in rows[name].tolist()]
    return np.array(values, np.float64)


@dataclasses.dataclass(frozen=True)
class Listed:
    """The examples of a file that are used.

    Attributes:
      keys: sorted, because img2dataset writes them as they arrive.
      places: {key: {kind: (first byte, bytes)}}; kinds are "image", "txt", "json" or "record".
      skipped: how many others there are, by reason.
      mended: {name: reason} of those that a person can mend.
    """

    keys: list[str]
    places: dict[str, dict[str, tuple[int, int]]]
    skipped: collections.Counter
    mended: dict[str, str]


class _Raw(io.RawIOBase):
    """One file of a shelf, for those who want to seek in it."""

    def __init__(self, shelf: Shelf, file: int):
        self._shelf, self._file, self._at = shelf, file, 0
        self._size = shelf.size(file)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {0: 0, 1: self._at, 2: self._size}[whence]
        return self._at

    def readinto(self, buffer) -> int:
        content = self._shelf.read(self._file, self._at, len(buffer))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def list_tar(shelf: Shelf, file: int) -> tuple[dict[str, dict], collections.Counter]:
    """{key: places} of a tar file, by its headers alone, and what of it cannot be used."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    skipped: collections.Counter = collections.Counter()
    try:
        with tarfile.open(fileobj=_Raw(shelf, file), mode="r:") as archive:
            for member in archive:
                folder, name = posixpath.split(member.name)
                if posixpath.isabs(member.name) or ".." in member.name.split("/"):
                    skipped[OUTSIDE] += 1
                    continue
                if not member.isfile() or name.startswith("."):
                    continue
                stem, _, suffix = name.partition(".")
                kind = suffix.lower()
                # A field of its own name, "input.jpg", which may be the only picture.
                field, _, ending = kind.rpartition(".")
                if ending in PICTURES:
                    kind = f"{FIELD}{field}" if field else "image"
                places = found.setdefault(posixpath.join(folder, stem), {})
                if kind in places:
                    skipped[TWICE] += kind == "image"
                    continue
                places[kind] = (member.offset_data, member.size)
            # tarfile takes a damaged header for the end; a whole file ends with blocks of zeros.
            if shelf.read(file, archive.offset, tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("no end")
    except (tarfile.TarError, EOFError, ValueError, OverflowError):
        skipped[CUT_OFF] += 1
        size = shelf.size(file)
        for places in found.values():
            for kind in [k for k, (first, length) in places.items() if first + length > size]:
                del places[kind]
    for key, places in list(found.items()):
        fields = [kind for kind in places if kind.startswith(FIELD)]
        if "image" not in places and len(fields) == 1:
            places["image"] = places[fields[0]]
        if "image" not in places:
            skipped[SEVERAL if fields else NO_IMAGE] += 1
            del found[key]
    return found, +skipped


def list_tfrecord(shelf: Shelf, file: int) -> tuple[dict[str, dict], collections.Counter]:
    """The same of a TFRecord file, which must be read for it."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    skipped: collections.Counter = collections.Counter()
    places, is_whole = tfrecords.scan(shelf, file)
    skipped[CUT_OFF] += not is_whole
    for start, length in places.tolist():
        try:
            example = tfrecords.Example(tfrecords.read(shelf, file, start, length))
        except ValueError:  # a checksum that does not match is one too
            skipped[CORRUPT] += 1
            continue
        key = decoded(b"".join(example.byte_strings("key")[:1]))
        if key is None:
            skipped[NO_KEY] += 1
            continue
        if not any(example.byte_strings(name) for name in PICTURES):
            skipped[NO_IMAGE] += 1
        elif key in found:
            skipped[TWICE] += 1
        else:
            found[key] = {"record": (start, length)}
    return found, +skipped


class Collection:
    """One folder of img2dataset's output.

    Attributes:
      counts: usable examples of each file, by what is known before it is opened.
      skipped: what is not used, by reason.
      mended: {name: reason} of the first of those that a person can mend.
      names: relative names of its files.
    """

    def __init__(
        self,
        path: str,
        filters: Filters,
        split: str,
        held_out: float,
        most: float = 0,
        shared: counts.Shared = counts.ALONE,
    ):
        """Lists the files and counts their examples, unless they are known.

        Args:
          path: a folder, may be gs://.
          filters: what to use.
          split: "train", or one that is held out.
          held_out: share of the files that is.
          most: examples of a split that is held out, to whole files; 0: all.
          shared: who counts.

        Raises:
          DataError: when there is nothing to use: names the path, what was seen and expected.
        """
        self.path, self.filters = path, filters
        if not path or not files.is_folder(path):
            raise DataError(f"{path!r} is no folder; {LAYOUT}")
        names = files.walk(path)
        self._suffix = next(
            (s for s in (".tar", ".tfrecord") if any(n.endswith(s) for n in names)), ""
        )
        shards = [n for n in names if self._suffix and n.endswith(self._suffix)]
        if not shards:
            raise DataError(
                f"{path} holds {len(names)} files, none of them .tar or .tfrecord; {LAYOUT}"
            )
        self.known = set(names)
        self._use(part_of(shards, path, split, held_out))
        self.left_out = 0
        found = counts.counted(
            path,
            self.names,
            [self._table(name) or name for name in self.names],
            self._count_of,
            [dataclasses.asdict(filters), self._suffix],
            shared,
        )
        if most and split != "train":
            found = self._capped(found, most)
        self.counts = [one.count for one in found]
        self.skipped = sum((collections.Counter(one.skipped) for one in found), _NONE)
        mended = (item for one in found for item in one.mended.items())
        self.mended = dict(itertools.islice(mended, LISTED))
        self._say()
        if not sum(self.counts):
            reasons = ", ".join(f"{n} {why}" for why, n in self.skipped.most_common()) or "none"
            raise DataError(
                f"{path} holds {len(self.names)} files and no usable example (skipped: {reasons}); "
                "see --config.data.web"
            )

    def _table(self, name: str) -> str:
        """The parquet file beside a file; "" where there is none."""
        table = f"{name[: -len(self._suffix)]}.parquet"
        return table if table in self.known else ""

    def _use(self, names: list[str]) -> None:
        self.names = names
        self._tables = [
            posixpath.join(self.path, table) if (table := self._table(n)) else None for n in names
        ]
        self.shelf = Shelf([posixpath.join(self.path, n) for n in names])
        self.listed = Kept(self._list, OPEN_LISTS)

    def _capped(self, found: list[counts.Counted], most: float) -> list[counts.Counted]:
        """The first files, as chance has it, that have so many examples together."""
        ranked = sorted(range(len(found)), key=lambda i: order.mix(*self.names[i].encode()))
        before = np.cumsum([0, *(found[i].count for i in ranked)])[:-1]
        used = sorted(i for i, n in zip(ranked, before.tolist(), strict=True) if n < most)
        self.left_out = len(found) - len(used)
        if self.left_out:
            self._use([self.names[i] for i in used])
        return [found[i] for i in used]

    def _say(self) -> None:
        """What is used, where that is not everything."""
        reasons = ", ".join(f"{n} {why}" for why, n in self.skipped.most_common())
        said = (
            f"data: {self.path}: {sum(self.counts)} examples of {len(self.counts)} files are used"
        )
        if self.left_out:
            beyond = f"{self.left_out} held-out files beyond config.data.web.held_out_most"
            reasons = f"{beyond}, {reasons}" if reasons else beyond
        if reasons:
            print(f"{said}; left out: {reasons}", file=sys.stderr)

    def _count_of(self, file: int) -> counts.Counted:
        try:
            if self._tables[file] is not None:
                keys, skipped, mended = self._wanted(file)
            else:
                listed = self.listed(file)
                keys, skipped, mended = listed.keys, listed.skipped, listed.mended
        except Unreadable as error:
            return counts.Counted(0, {error.reason: 1}, {})
        return counts.Counted(len(keys), skipped, dict(itertools.islice(mended.items(), LISTED)))

    def _wanted(self, file: int) -> tuple[list[str], dict[str, int], dict[str, str]]:
        """Keys that the parquet file lists and the filters pass; of the others as in `Listed`."""
        import pyarrow
        import pyarrow.parquet

        where = self._tables[file]
        try:
            table = pyarrow.parquet.ParquetFile(io.BytesIO(files.read_bytes(where)))
            names = [n for n in self.filters.columns() if n in table.schema_arrow.names]
            read = table.read(columns=names)
            rows = {n: _objects(tables.values(read[n])) for n in names}
        except (pyarrow.ArrowException, OSError) as error:
            raise Unreadable(where, CORRUPT) from error
        for needed in ("key", "caption"):
            if needed not in rows:
                raise DataError(
                    f"{where} has no column {needed!r}; it has "
                    f"{', '.join(table.schema_arrow.names)}. {LAYOUT}"
                )
        mended: dict[str, str] = {}
        names = table.schema_arrow.names
        passed, skipped = self.filters.apply(rows, where, names, mended.__setitem__)
        return sorted(rows["key"][passed].tolist()), skipped, mended

    def _list(self, file: int) -> Listed:
        """The examples of a file; it is opened for it."""
        lister = list_tar if self._suffix == ".tar" else list_tfrecord
        places, skipped = lister(self.shelf, file)
        if self._tables[file] is not None:
            return Listed(self._wanted(file)[0], places, skipped, {})
        keys, described, mended = [], [], {}
        for key in sorted(places):
            try:
                described.append(self._metadata(file, key, places[key]))
                keys.append(key)
            except Unreadable as error:
                skipped[error.reason] += 1
                mended[error.name] = error.reason
        names = self.filters.columns()
        rows = {n: [row.get(n) for row in described] for n in names}
        rows = {
            n: _objects(column)
            for n, column in rows.items()
            if n in ("key", "caption") or any(value is not None for value in column)
        }
        rows["key"] = _objects(keys)
        rows.pop("status", None)
        if not keys:
            return Listed([], places, skipped, mended)
        where = self.shelf.paths[file]
        passed, more = self.filters.apply(rows, where, note=mended.__setitem__)
        kept = [key for key, good in zip(keys, passed, strict=True) if good]
        return Listed(kept, places, skipped + collections.Counter(more), mended)

    def _metadata(self, file: int, key: str, places: dict[str, tuple[int, int]]) -> dict[str, Any]:
        """Everything that a file itself says of an example; its caption as it stands there.

        Raises:
          Unreadable: when it is damaged, or not UTF-8.
        """
        where = f"{self.shelf.paths[file]}:{key}"
        if "record" in places:
            content = tfrecords.read(self.shelf, file, *places["record"])
            example = tfrecords.Example(content, where)
            out = {name: _single(example, name) for name in self.filters.columns()}
            return {**out, "caption": b"".join(example.byte_strings("txt")[:1])}
        out: dict[str, Any] = {}
        if "json" in places:
            text = decoded(self.shelf.read(file, *places["json"]))
            if text is None and "txt" not in places:
                raise Unreadable(where, NOT_UTF8)
            try:
                out = json.loads(text or "")
            except (ValueError, RecursionError):
                out = {}
            out = out if isinstance(out, dict) else {}
        if "txt" in places:
            out["caption"] = self.shelf.read(file, *places["txt"])
        return out

    def at(self, file: int, row: int) -> tuple[str, dict[str, tuple[int, int]]]:
        """The key and the places of an example.

        Raises:
          Unreadable: when the file does not hold what its parquet file lists.
        """
        listed = self.listed(file)
        key = listed.keys[row]
        if key not in listed.places:
            raise Unreadable(f"{self.shelf.paths[file]}:{key}", ABSENT)
        return key, listed.places[key]

    def caption(self, file: int, key: str, places: dict[str, tuple[int, int]]) -> str:
        """The caption of an example.

        Raises:
          Unreadable: when there is none.
        """
        text, fault = caption_in(self._metadata(file, key, places).get("caption"))
        if fault:
            raise Unreadable(f"{self.shelf.paths[file]}:{key}", fault)
        return text

    def picture(self, file: int, places: dict[str, tuple[int, int]]) -> bytes:
        """The image file of an example."""
        if "image" in places:
            return self.shelf.read(file, *places["image"])
        example = tfrecords.Example(tfrecords.read(self.shelf, file, *places["record"]))
        return next(x for name in PICTURES for x in example.byte_strings(name))


def _objects(values: list) -> np.ndarray:
    """A column of anything: object [n], lists in it left whole."""
    column = np.empty(len(values), object)
    column[:] = values
    return column


def _single(example: tfrecords.Example, name: str) -> Any:
    """The one value of a feature, whatever its kind; None where there is none."""
    texts = [decoded(value) for value in example.byte_strings(name)[:1]]
    for values in (texts, example.floats(name), example.integers(name)):
        if len(values) and values[0] not in ("", None):
            return values[0]
    return None


def part_of(shards: list[str], path: str, split: str, held_out: float) -> list[str]:
    """The files of a split: those of a folder train/, val/ ..., else a fixed share of all.

    Raises:
      DataError: when there is but one file, and one is to be held out.
    """
    of = {name: key for key, names in SPLITS.items() for name in names}
    tops = {posixpath.dirname(name).split("/")[0] for name in shards}
    if tops <= set(of):
        chosen = nearest(split, tops, path)
        if chosen is None:
            raise DataError(f"{path} holds {', '.join(sorted(tops))} and nothing for {split!r}")
        return [name for name in shards if name.split("/")[0] == chosen]
    if len(shards) == 1 or not held_out:
        return shards
    count = min(max(1, round(held_out * len(shards))), len(shards) - 1)
    # By name, so that files that are added later move none of the others for most of the time.
    ranked = sorted(shards, key=lambda name: order.mix(*name.encode()))
    held = set(ranked[:count])
    return [name for name in shards if (name in held) != (split == "train")]


class Web:
    """One collection or several mixed ones.

    An example's number counts the usable examples of all collections, file after file.

    Attributes:
      gives: the batch keys.
      size: usable examples, by what is known before the files are opened.
      class_names: empty.
      holds: (path, its files) of each collection.
      report: what was found.
    """

    gives = ("image", "id")
    class_names = ()

    def __init__(
        self, data_config, framing: Framing, split: str, shared: counts.Shared = counts.ALONE
    ):
        """Opens the collections that `config.data` names.

        Args:
          data_config: `config.data`.
          framing: what part of a picture is shown, and how large.
          split: "train", "val" or "test".
          shared: who counts their examples.

        Raises:
          DataError: names the path or config line, what was seen and what was expected.
        """
        self.framing = framing
        self._web = data_config.web
        filters = Filters(
            *(self._web[f] for f in ("min_side", "max_aspect", "min_chars", "max_chars")),
            scores=tuple(map(tuple, self._web.scores)),
            languages=tuple(self._web.languages),
        )
        self.stages = mixture.stages(data_config, split)
        told = [list(mixture.members(stage.mixture)) for stage in self.stages]
        names = list(dict.fromkeys(name for stage in told for name in stage))
        self._members = [[names.index(name) for name in stage] for stage in told]
        now = [weight for _, weight in self.stages[-1].mixture]
        self.weights = [0.0] * len(names)
        for member, weight in zip(self._members[-1], now, strict=True):
            self.weights[member] = weight
        most = self._web.get("held_out_most", 0)
        self.parts = [
            Collection(path, filters, split, self._web.held_out, most * w / sum(now), shared)
            for (path, _), w in zip(names, self.weights, strict=True)
        ]
        self.holds = [(part.path, part.names) for part in self.parts]
        of_files = np.concatenate([part.counts for part in self.parts])
        self._starts = np.concatenate([[0], np.cumsum(of_files)])
        self._files = [(p, f) for p, part in enumerate(self.parts) for f in range(len(part.counts))]
        self.size = int(self._starts[-1])
        self.notes = [
            f"of the held-out examples of {part.path} {sum(part.counts):,} are used, of "
            f"{len(part.names)} of {len(part.names) + part.left_out} files; "
            "config.data.web.held_out_most says how many at most"
            for part in self.parts
            if part.left_out
        ]
        self.report = self._reported()

    def _reported(self) -> dict[str, Any]:
        """What was found of each collection."""
        return {
            "collections": [
                {
                    "path": part.path,
                    "weight": weight,
                    "files": len(part.names),
                    "usable": int(sum(part.counts)),
                    "skipped": dict(part.skipped.most_common()),
                    "skipped_files": [
                        {"file": name, "reason": reason}
                        for name, reason in sorted(part.mended.items())
                    ],
                }
                for part, weight in zip(self.parts, self.weights, strict=True)
            ]
        }

    def order(self, seed: int, batch: int) -> order.Lanes | order.Staged:
        """Files in random order, examples of a few at a time mixed; see `jaxt2i.data.order`."""
        bases = np.concatenate([[0], np.cumsum([sum(part.counts) for part in self.parts])])
        orders: list[order.Lanes] = []
        seen: dict[int, np.ndarray] = {}
        for stage, of in zip(self.stages, self._members, strict=True):
            begin = stage.begin // batch * batch
            if orders:
                before = self._members[len(orders) - 1]
                seen |= dict(zip(before, orders[-1].seen(begin).T, strict=True))
            fewest = min(sum(n > 0 for n in self.parts[p].counts) for p in of)
            lanes = order.lanes_for(fewest, batch, self._web.lanes)
            shards = [
                order.Shards(self.parts[p].counts, order.mix(seed, p), lanes, self._web.window)
                for p in of
            ]
            before = [seen.get(p, np.zeros(lanes, np.int64)) for p in of]
            # With another number of lanes there are other streams, about as far.
            before = [x if len(x) == lanes else np.full(lanes, x.sum() // lanes) for x in before]
            weights = [weight for _, weight in stage.mixture]
            started = order.Started(begin, bases[of], np.stack(before, 1))
            orders.append(order.Lanes(shards, weights, batch, seed, started))
        return orders[0] if len(orders) == 1 else order.Staged(orders)

    def _at(self, index: int) -> tuple[Collection, int, int]:
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        part, number = self._files[file]
        return self.parts[part], number, index - int(self._starts[file])

    def name(self, index: int) -> str:
        """File and key of an example."""
        part, file, row = self._at(index)
        return f"{part.shelf.paths[file]}:{part.at(file, row)[0]}"

    def captions(self, index: int) -> list[str]:
        """The caption of an example.

        Raises:
          Unreadable: when there is none.
        """
        part, file, row = self._at(index)
        return [part.caption(file, *part.at(file, row))]

    def example(
        self,
        index: int,
        keys: tuple[str, ...] = ("image",),
        chance: tuple[float, float, float] | None = None,
    ) -> dict[str, np.ndarray]:
        """One example.

        Args:
          index: in range(size).
          keys: of `gives`.
          chance: see `Framing.show`; None shows the centre.

        Returns:
          {"image": uint8 [height, width, 3], "id": int64 []}, as asked.

        Raises:
          Unreadable: when it is not there or its picture is damaged.
        """
        out = {}
        if "image" in keys:
            part, file, row = self._at(index)
            key, places = part.at(file, row)
            name = f"{part.shelf.paths[file]}:{key}"
            content = part.picture(file, places)
            how = {"name": name, "background": self.framing.background}
            out["image"], _ = self.framing.show(
                index, lambda need: images.open_rgb(content, need, **how), chance
            )
        if "id" in keys:
            out["id"] = np.int64(index)
        return out
