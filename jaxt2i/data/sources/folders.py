"""A folder of captioned images as a source."""

import collections
import hashlib
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from jaxt2i.data.decoding import NOT_UTF8
from jaxt2i.data.images import MAX_PIXELS, SUFFIXES, SYSTEM, UNREAD, Unreadable, open_rgb
from jaxt2i.data.pictures import Framing, cut_away
from jaxt2i.data.progress import Progress
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources import tables
from jaxt2i.data.sources.base import NO_CAPTION, SPLITS, STAND_INS, Skips, nearest, write_report
from jaxt2i.data.sources.captions import METADATA, sidecar
from jaxt2i.data.sources.meeting import ARCHIVES
from jaxt2i.data.sources.pairing import Pairs, ends_in, pair, table_part
from jaxt2i.data.sources.stored import ZIP, Store

# Of pairing and checking, so that a report of earlier ones is not taken for one of these.
RULES = 4
# Files that a scan depends on.
COUNTED = (*SUFFIXES, *UNREAD, *ARCHIVES, ZIP, *tables.SUFFIXES, ".txt", *METADATA)
# Shares of the pictures whose shorter side is no longer than what the report says.
QUANTILES = (0, 10, 50, 90, 100)
# Names that found no partner in an error; languages on the screen.
IN_ERROR, IN_LINE = 2, 5
LAYOUTS = (
    "expected images with captions in one of these layouts: a.jpg beside a.txt, one caption a "
    "line; metadata.jsonl, .csv or .parquet with file_name and text; or tables of pictures and "
    "texts, as Hugging Face's datasets keep them. Set --config.data.path=DIR"
)


def quantile(counts: Mapping[int, int], percent: int) -> int:
    """The least number that so many percent of what was counted reach not beyond; 0 of none."""
    passed, total = 0, sum(counts.values())
    for number in sorted(counts):
        passed += counts[number]
        if passed * 100 >= percent * total:
            return number
    return 0


def read_sidecar(file: Path) -> list[str]:
    """Captions of a text file; says which lines are left out, and raises as `sidecar` does."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise Unreadable(file, SYSTEM) from error
    found = sidecar(content, str(file))
    for number in found.bad:
        print(f"data: {file}:{number}: {NOT_UTF8}; left out", file=sys.stderr)
    return found.texts


class Verdict(NamedTuple):
    """What a usable pair holds.

    Attributes:
      size: width and height of its picture, pixels.
      captions: how many there are.
      bad: lines of its text file that are none.
      spoken: see `captions.Captions`.
    """

    size: tuple[int, int]
    captions: int
    bad: tuple[int, ...]
    spoken: Mapping[str, int]


class Folder:
    """A directory of captioned images, searched recursively; pairs in the order of their names.

    Every file is decoded once, in the constructor, so that a bad one is known before training;
    the verdicts are kept in a report and reused while the files' names, sizes and times stay.

    Attributes:
      gives: the batch keys.
      size: number of usable pairs.
      class_names: empty; a folder has no classes.
      holds: which of which directory.
      report: what was found, as `data_report.json` holds it.
    """

    gives = ("image", "id")
    class_names = ()

    def __init__(
        self,
        path: str | Path,
        framing: Framing,
        *,
        min_side: int = 16,
        max_pixels: int = MAX_PIXELS,
        report: str | Path | None = None,
        part: str = "",
        languages: Sequence[str] = (),
    ):
        """Finds, pairs and checks the files.

        Args:
          path: the directory.
          framing: what part of a picture is shown, and how large.
          min_side: smaller images are skipped, pixels.
          max_pixels: larger images are skipped, by their header; Pillow's own limit holds too.
          report: JSON file of what was skipped and why; also the cache of the scan.
          part: use only the images below this folder of `path`, or of tables of this name.
          languages: see `captions.sidecar`.

        Raises:
          DataError: when nothing can be used: names the path, what was seen, what was expected.
        """
        self.root, self.framing = Path(path), framing
        self.holds = str(path), part
        self.min_side, self.max_pixels = min_side, max_pixels
        if not str(path) or not self.root.exists():
            raise DataError(f"config.data.path is {str(path)!r}, which does not exist; {LAYOUTS}")
        if not self.root.is_dir():
            raise DataError(f"{path} is a file, not a directory; {LAYOUTS}")
        self.languages = tuple(languages)
        skips = Skips()
        self._store = Store(self.root, skips)
        files = self._store.files
        pairs = pair(self._store, part, skips)
        digest = self._digest(files, part)
        kept = _cached(report, digest)
        self.report = kept or self._scan(pairs, digest, skips, report)
        if kept and (said := self._summary(report)):
            print(said, file=sys.stderr)
        if said := self._languages():
            print(said, file=sys.stderr)
        rejected = set(self.report["rejected"])
        usable = [i for i in range(len(pairs.images)) if i not in rejected]
        self._images = [pairs.images[i] for i in usable]
        self._texts = [pairs.texts[i] for i in usable]
        self.size = len(usable)
        if not usable:
            raise DataError(self._nothing(len(files), pairs))

    def _nothing(self, count: int, pairs: Pairs) -> str:
        """Why nothing can be used."""
        counts = ", ".join(f"{n} {reason}" for reason, n in self.report["skipped"].items())
        seen = f"{self.root} holds {pairs.count} images, none usable: {counts}"
        if not pairs.count:
            seen = f"{self.root} holds {count} files and no image (skipped: {counts or 'none'})"
        elif pairs.unused[NO_CAPTION] == pairs.count:
            seen = (
                f"{self.root} holds {pairs.count} images and no caption for any of them (skipped: "
                f"{counts})"
            )
        return "; ".join([seen, *pairs.unmet[:IN_ERROR], LAYOUTS])

    def _summary(self, file: str | Path | None) -> str:
        """How many images are used and why the others are not; "" where all of all is used."""
        report = self.report
        images, usable, unused = report["images"], report["usable"], report["unused_images"]
        others = collections.Counter(report["skipped"]) - collections.Counter(unused)
        if not report["skipped"] or not images:
            return ""
        said = [f"data: {self.root}: {usable} of {images} images are used"]
        # "30 without caption", after "images".
        said += [f"{n} {reason.removeprefix('image ')}" for reason, n in unused.items()]
        if others:
            counts = ", ".join(f"{n} {reason}" for reason, n in others.most_common())
            said.append(f"besides, left out: {counts}")
        if usable and report["unmet"]:
            said.append(report["unmet"][0])
        return "; ".join(said) + (f": {file}" if file is not None else "")

    def _digest(self, files: dict[str, tuple[int, int]], part: str) -> str:
        how = [RULES, part, self.min_side, self.max_pixels, self.languages]
        digest = hashlib.sha256(json.dumps(how).encode())
        for name, (size, mtime) in files.items():
            # Others, our own report among them, may change without a new scan.
            if ends_in(name, COUNTED):
                digest.update(os.fsencode(f"{name}\0{size}\0{mtime}\n"))
        return digest.hexdigest()

    def _check(self, image: str, text: str | list[str]) -> Verdict | tuple[str, str]:
        """What a pair holds, or (file, reason) where it cannot be used."""
        try:
            _, size = self._open(image)
        except Unreadable as error:
            return self._relative(error.name), error.reason
        if isinstance(text, list):
            return Verdict(size, len(text), (), {"": len(text)})
        try:
            found = self._sidecar(text)
        except Unreadable as error:
            return self._relative(error.name), error.reason
        return Verdict(size, len(found.texts), tuple(found.bad), found.spoken)

    def _relative(self, name: str) -> str:
        return os.path.relpath(name, self.root)

    def _scan(self, pairs: Pairs, digest: str, skips: Skips, file) -> dict[str, Any]:
        start = time.monotonic()
        rejected, unused = [], pairs.unused.copy()
        per_image, aspects, sides, spoken = (collections.Counter() for _ in range(4))
        progress = Progress(f"checking the images of {self.root}", len(pairs.images))
        for i, verdict in enumerate(self._verdicts(pairs, progress)):
            if isinstance(verdict, Verdict):
                per_image[verdict.captions] += 1
                aspects[f"{verdict.size[0] / verdict.size[1]:.2f}"] += 1
                sides[min(verdict.size)] += 1
                spoken.update(verdict.spoken)
                for line in verdict.bad:
                    skips.add(f"{pairs.texts[i]}:{line}", NOT_UTF8)
            else:
                rejected.append(i)
                unused[verdict[1]] += 1
                skips.add(*verdict)
        self.report = {
            "path": str(self.root),
            "images": pairs.count,
            "usable": len(pairs.images) - len(rejected),
            "unused_images": dict(unused.most_common()),
            "captions_per_image": {str(n): per_image[n] for n in sorted(per_image)},
            "languages": dict(spoken.most_common()),
            "aspects": dict(sorted(aspects.items())),
            "short_sides": {f"{share} %": quantile(sides, share) for share in QUANTILES},
            "archives": self._store.archives,
            "skipped": dict(skips.counts.most_common()),
            "skipped_files": skips.listed,
            "unmet": pairs.unmet,
            "seconds": round(time.monotonic() - start, 2),
            "digest": digest,
            "rejected": rejected,
        }
        if file is not None:
            write_report(epath.Path(file), self.report)
        if pairs.count:
            progress.close(self._summary(file))
        return self.report

    def _verdicts(self, pairs: Pairs, progress: Progress) -> Iterator[tuple]:
        """The verdict of `_check` on each pair, in order."""
        total, chunk = len(pairs.images), 4096  # so that a million pairs are no million futures
        threads = min(32, (os.cpu_count() or 1) + 1)
        with warnings.catch_warnings(), ThreadPoolExecutor(threads, "scan") as pool:
            warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters becomes a verdict
            for first in range(0, total, chunk):
                now = slice(first, first + chunk)
                for verdict in pool.map(self._check, pairs.images[now], pairs.texts[now]):
                    progress.step(not isinstance(verdict, Verdict))
                    yield verdict

    def _open(self, image: str, need=None):
        limits = {"min_side": self.min_side, "max_pixels": self.max_pixels}
        how = {"name": str(self.root / image), "background": self.framing.background}
        return open_rgb(self._store.read(image), need, **how, **limits)

    def _sidecar(self, text: str):
        return sidecar(self._store.read(text), str(self.root / text), self.languages)

    def _captions(self, text: str | list[str]) -> list[str]:
        return text if isinstance(text, list) else self._sidecar(text).texts

    def _languages(self) -> str:
        """What languages the captions are in, where their files say so; else ""."""
        spoken = collections.Counter(self.report["languages"])
        mute = spoken.pop("", 0)
        if self.languages:
            if not mute:
                return ""
            return (
                f"data: {self.root}: {mute} captions do not say their language and are used, "
                f"whatever config.data.languages asks for"
            )
        if len(spoken) < 2:
            return ""
        most = ", ".join(f"{n} {name}" for name, n in spoken.most_common(IN_LINE))
        return (
            f"data: {self.root}: captions in {len(spoken)} languages are used ({most}"
            f"{', ...' if len(spoken) > IN_LINE else ''}); --config.data.languages='(\"en\",)' "
            "takes those of one"
        )

    def cut_away(self) -> str:
        """A sentence on pictures of which the crop shows much less than all; "" where none are."""
        if self.framing.crop != "centre":
            return ""
        return cut_away(self.report["aspects"], self.framing.size)

    def name(self, index: int) -> str:
        """The image's name, relative to the folder."""
        return self._images[index]

    def captions(self, index: int) -> list[str]:
        """The captions of a pair, at least one.

        Raises:
          Unreadable: when the text file has gone since the scan.
        """
        return self._captions(self._texts[index])

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
          Unreadable: when the file has changed since the scan.
        """
        out = {}
        if "image" in keys:
            image = self._images[index]
            out["image"], _ = self.framing.show(index, lambda need: self._open(image, need), chance)
        if "id" in keys:
            out["id"] = np.int64(index)
        return out


def _cached(file: epath.PathLike | None, digest: str) -> dict[str, Any] | None:
    """The earlier report, when it speaks of the same files."""
    if file is None or not epath.Path(file).is_file():
        return None
    try:
        report = json.loads(epath.Path(file).read_text())
    except ValueError:  # cut off while it was written by hand or copied
        return None
    return report if report.get("digest") == digest else None


def split_folder(root: Path, split: str) -> str:
    """The part of root that holds a split; "" where root is not divided into splits.

    Root is divided when each of its folders is named after a split, such as train/ and val/, or
    each table in it or in its folder data/, such as data/train-00000-of-00002.parquet.

    Raises:
      DataError: when root is divided and holds nothing for the split.
    """
    split_of = {name: key for key, names in SPLITS.items() for name in names}
    there = [e for e in os.scandir(root) if not e.name.startswith(".")]
    parts = {e.name for e in there if e.is_dir()}
    if not parts or not parts <= set(split_of):
        there += os.scandir(root / "data") if (root / "data").is_dir() else []
        parts = {table_part(e.name) for e in there if tables.is_table(e.name)}
    if not parts or not parts <= set(split_of):
        return ""
    if split in STAND_INS and (name := nearest(split, parts, str(root))):
        return name
    raise DataError(
        f"{root} holds {', '.join(sorted(parts))} and nothing for the split "
        f"{split!r}; known splits: {', '.join(SPLITS)}. Set --config.data.split or .eval_split"
    )
