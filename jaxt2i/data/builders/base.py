"""What the builders share: finding a data set's official files, and writing records of them.

A builder says which files it needs, lists its items without opening a picture, and makes a
record of an item; that an archive is still packed, that a picture is broken, and whether one
process or Apache Beam does the work is settled here.
"""

import dataclasses
import functools
import json
import os
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from jaxt2i.data.builders import record as records
from jaxt2i.data.decoding import NOT_UTF8, is_text
from jaxt2i.data.images import Unreadable
from jaxt2i.data.progress import Progress
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources.base import NOT_TEXT, Skips

# Records that are made at once.
CHUNK = 256
# How deep a misplaced file is looked for.
DEPTH = 3
NO_METADATA = "metadata that is not UTF-8, which is left out"
# Where Beam counts what is left out, by reason.
SKIPPED = "skipped"


@dataclasses.dataclass(frozen=True)
class Need:
    """A file or folder of a data set's official release.

    Attributes:
      path: where it is expected, relative to --from.
      where: where to get it, for a person.
      instead: other places or forms of it that serve as well.
      archives: official archives that hold it; each unpacks to a tree in which `path` lies.
      inside: the folder that an archive of bare files must be unpacked into.
      optional: the data set can be built without it.
    """

    path: str
    where: str
    instead: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()
    inside: str = ""
    optional: bool = False


class Files:
    """The official files below --from, packed or not.

    Args:
      root: the folder of --from.
      unpacked: where archives are unpacked to; None: archives are not opened.
    """

    def __init__(self, root: str | Path, unpacked: str | Path | None = None):
        self.root = Path(root)
        self.unpacked = None if unpacked is None else Path(unpacked)

    def __truediv__(self, path: str) -> Path:
        """The place of a file or folder; where it is expected if it is nowhere."""
        places = [self.root / path]
        if self.unpacked is not None:
            places.append(self.unpacked / path)
        return next((p for p in places if p.exists()), places[0])

    def has(self, *paths: str) -> bool:
        """Whether there is one of these files or folders."""
        return any((self / path).exists() for path in paths)

    def first(self, need: Need) -> Path:
        """The place of a needed thing, in whichever of its forms it is there."""
        return next(p for p in map(self.__truediv__, (need.path, *need.instead)) if p.exists())

    def missing(self, needs: Iterable[Need]) -> list[str]:
        """A sentence on each needed thing that is neither there nor in an archive that is."""
        problems = []
        for need in needs:
            if need.optional or self.has(need.path, *need.instead) or self._archive(need):
                continue
            said = " or ".join(map(str, (self.root / need.path, *need.instead))) + " is missing"
            if found := self._elsewhere(need):
                said += f"; {found} looks like it: move it, or give another --from"
            if need.archives:
                said += f"; it is in {' or '.join(need.archives)}"
            problems.append(f"{said}; from {need.where}")
        return problems

    def unpack(self, needs: Iterable[Need]) -> None:
        """Unpacks the archives of what is not there as a folder, each once.

        Raises:
          DataError: for an archive that is cut off or corrupt, or reaches outside its folder.
        """
        for need in needs:
            archive = None if self.has(need.path, *need.instead) else self._archive(need)
            if archive is None or self.unpacked is None:
                continue
            mark = self.unpacked / f".{archive.name}.done"
            if not mark.exists():
                print(f"unpacking {archive} to {self.unpacked / need.inside}", file=sys.stderr)
                _unpack(archive, self.unpacked / need.inside)
                mark.touch()
            if not self.has(need.path, *need.instead):
                raise DataError(
                    f"{archive} was unpacked and {need.path} was not in it; get it again from "
                    f"{need.where}"
                )

    def _archive(self, need: Need) -> Path | None:
        return next((self.root / a for a in need.archives if (self.root / a).is_file()), None)

    def _elsewhere(self, need: Need) -> Path | None:
        name = Path(need.path).name
        for folder, folders, files in os.walk(self.root):
            if name in folders or name in files:
                return Path(folder) / name
            if len(Path(folder).relative_to(self.root).parts) >= DEPTH:
                folders.clear()
        return None


def _unpack(archive: Path, to: Path) -> None:
    part = to.with_name(to.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                file.extractall(part)  # leaves ".." and roots out of every name
        else:
            with tarfile.open(archive) as file:
                file.extractall(part, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise DataError(f"{archive} cannot be unpacked ({error}); get it again") from error
    shutil.copytree(part, to, dirs_exist_ok=True, copy_function=os.replace)
    shutil.rmtree(part)


@dataclasses.dataclass(frozen=True)
class Item:
    """What a record is made of: cheap to list, and small enough to send to another machine.

    Attributes:
      key: unique and stable within its split.
      image: the picture's place below --from; "" where it lies inside another file.
      content: whatever the builder needs besides.
    """

    key: str
    image: str
    content: Any


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set from its official files.

    Attributes:
      skips: what was left out of the splits that this process wrote, and why.
      beam: whether records are made by Apache Beam.
      unpacked: where archives are unpacked to; None: beside the records.
      source: the folder or file of --from; None: tfds's manual_dir.
    """

    VERSION = tfds.core.Version("1.0.0")
    # What a person reads when files are missing.
    TITLE: ClassVar[str] = ""
    TERMS: ClassVar[str] = ""
    # How many pictures the published splits have; a property where the configuration matters.
    EXPECTED: ClassVar[dict[str, int]] = {}

    beam = False
    unpacked: Path | None = None
    source: Path | None = None

    def __init__(self, **kw):
        super().__init__(**kw)
        self.skips = Skips()

    # --- What a data set says ---

    def needs(self) -> tuple[Need, ...]:
        """Its official files."""
        raise NotImplementedError

    def find(self) -> Path | None:
        """Where its official files are when nobody says; None: --from must say.

        Raises:
          DataError: where they could be found, and are not.
        """
        return None

    def items(self, files: Files) -> dict[str, list[Item]]:
        """{split: items}, in a stable order, without opening a picture.

        Args:
          files: every needed file is there.

        Raises:
          DataError: for a file that is not what it should be.
        """
        raise NotImplementedError

    def record(self, files: Files, item: Item) -> records.Record:
        """The record of an item.

        Raises:
          Unreadable: when it must be left out.
        """
        raise NotImplementedError

    def names(self, files: Files) -> dict[str, list[str]]:
        """Names of the classes behind "label", "objects" and "segmentation", where there are."""
        return {}

    # --- What tfds asks ---

    @property
    def MANUAL_DOWNLOAD_INSTRUCTIONS(self) -> str:
        """What to download by hand; read by tfds before `manual_dir` may be used."""
        lines = []
        for need in self.needs():
            archives = f" (in {' or '.join(need.archives)})" if need.archives else ""
            optional = " if you like," if need.optional else ""
            lines.append(f"  {need.path}{archives},{optional} from {need.where}")
        return "\n".join([f"{self.TITLE}. {self.TERMS}", "expected below --from:", *lines])

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=records.features(),
            description=f"{self.TITLE}. {self.TERMS}",
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=False,
        )

    def files(self, manual_dir: str | Path) -> Files:
        """The official files below a folder, or beside a file, unpacked where need be.

        Raises:
          DataError: names everything that is missing, where it is expected and where to get it.
        """
        root = Path(manual_dir)
        root = root.parent if root.is_file() else root
        files = Files(root, self.unpacked or Path(self.data_dir).parent / "unpacked")
        if problems := files.missing(self.needs()):
            raise DataError(
                f"{self.TITLE} is not whole:\n  " + "\n  ".join(problems) + f"\n{self.TERMS}"
            )
        files.unpack(self.needs())
        return files

    def _split_generators(self, dl_manager) -> dict[str, Any]:
        files = self.files(self.source or os.fspath(dl_manager.manual_dir))
        self.info.metadata.update(self.names(files))
        return {
            split: self._generate_examples(files, split, items)
            for split, items in self.whole(files).items()
        }

    def whole(self, files: Files) -> dict[str, list[Item]]:
        """The items, once it is known that none of their pictures is missing.

        Raises:
          DataError: counts the missing ones and names the first few; for a split without a picture.
        """
        splits = self.items(files)
        empty = [split for split, items in splits.items() if not items]
        if empty or not splits:
            which = f"the split {empty[0]!r}" if empty else "any split"
            reasons = ", ".join(f"{n} {reason}" for reason, n in self.skips.counts.most_common())
            raise DataError(
                f"{self.TITLE}: no picture is left for {which} (left out: {reasons or 'nothing'}); "
                "are these the official files, and those of all splits?"
            )
        listed: dict[Path, set[str]] = {}
        missing = []
        for item in (i for items in splits.values() for i in items if i.image):
            place = files / item.image
            if place.parent not in listed:
                there = place.parent.is_dir()
                listed[place.parent] = set(os.listdir(place.parent)) if there else set()
            if place.name not in listed[place.parent]:
                missing.append(place)
        if missing:
            raise DataError(
                f"{self.TITLE} lists {len(missing)} pictures that are not there, such as "
                f"{', '.join(map(str, missing[:3]))}. Was an archive unpacked only in part, or to "
                "another place?"
            )
        return splits

    def _generate_examples(self, files: Files, split: str, items: list[Item]):
        if self.beam:
            import apache_beam as beam

            return beam.Create(items) | beam.FlatMap(_Counted(self._maker(files, split)))
        return self.generated(files, split, items)

    def _maker(self, files: Files, split: str) -> Callable:
        return functools.partial(examples, self.name, self.record, files, split)

    def _process_pipeline_result(self, pipeline_result) -> None:
        """Called by tfds after Beam: counts what its workers skipped; only they know the names."""
        for counter in pipeline_result.metrics().query()["counters"]:
            if counter.key.metric.namespace == SKIPPED:
                self.skips.counts[counter.key.metric.name] += counter.result

    def generated(self, files: Files, split: str, items: list[Item]):
        """Yields (key, example) of the items, in order, with a progress line."""
        make = self._maker(files, split)
        progress, threads = Progress(f"{self.name}: {split}", len(items)), os.cpu_count() or 1
        with ThreadPoolExecutor(threads, "records") as pool:
            # Pictures are decoded to their end, which threads do side by side; a few at a time,
            # as their bytes wait here.
            for first in range(0, len(items), CHUNK):
                chunk = items[first : first + CHUNK]
                for made in pool.map(lambda item: list(make(item, self.skips.add)), chunk):
                    progress.step(not made)
                    yield from made
        progress.close()


def examples(name: str, record: Callable, files: Files, split: str, item: Item, skip: Callable):
    """Yields the (key, example) of an item, or tells `skip` (name, reason) and yields nothing.

    Captions that are no text, or not UTF-8, are left out and told.
    """
    try:
        found = record(files, item)
        captions = []
        for caption in found.captions:
            if not isinstance(caption.text, str):
                skip(found.filename, NOT_TEXT)
            elif not is_text(caption.text):
                skip(found.filename, NOT_UTF8)
            else:
                captions.append(caption)
        if not is_text(json.dumps(found.metadata, ensure_ascii=False)):
            skip(found.filename, NO_METADATA)
            found = dataclasses.replace(found, metadata={})
        found = dataclasses.replace(found, captions=captions)
        yield item.key, records.encode(found, name, split)
    except Unreadable as error:
        skip(error.name, error.reason)


class _Counted:
    """`examples` for Beam, which adds up what every worker skipped."""

    def __init__(self, make: Callable):
        self.make = make

    def __call__(self, item: Item):
        from apache_beam.metrics import Metrics

        return list(self.make(item, lambda name, reason: Metrics.counter(SKIPPED, reason).inc()))
