"""A folder of captioned images as a source."""

import collections
import dataclasses
import hashlib
import itertools
import json
import os
import posixpath
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from jaxt2i.data.decoding import NOT_UTF8
from jaxt2i.data.images import MAX_PIXELS, SUFFIXES, SYSTEM, UNREAD, Unreadable, open_rgb
from jaxt2i.data.pictures import Framing
from jaxt2i.data.progress import Progress
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources.base import (
    NO_CAPTION,
    NO_IMAGE,
    NO_TEXT,
    OUTSIDE,
    SPLITS,
    STAND_INS,
    Skips,
    clean_captions,
    nearest,
    write_report,
)
from jaxt2i.data.sources.captions import METADATA, read_metadata, sidecar
from jaxt2i.data.sources.files import tree
from jaxt2i.data.sources.meeting import ARCHIVES, Names, places

# Of pairing and checking, so that a report of earlier ones is not taken for one of these.
RULES = 2
# Names that found no partner and are told, of each kind; and those of them in an error.
TOLD, IN_ERROR = 5, 2
LAYOUTS = (
    "expected images with captions in one of these layouts: a.jpg beside a.txt, one caption a "
    "line; or metadata.jsonl or metadata.csv with file_name and text. "
    "Set --config.data.path=DIR"
)


# --- The folder --------------------------------------------------------------------------------


def read_sidecar(file: Path) -> list[str]:
    """Captions of a text file; says which lines are left out, and raises as `sidecar` does."""
    texts, bad = sidecar(file)
    for number in bad:
        print(f"data: {file}:{number}: {NOT_UTF8}; left out", file=sys.stderr)
    return texts


def list_files(root: Path, skips: Skips) -> dict[str, tuple[int, int]]:
    """{name relative to root, "/" between parts: (bytes, mtime in ns)}, as `files.tree` orders it.

    What cannot be opened is counted.
    """
    found, refused = tree(root)
    for name in refused:
        skips.add(name, SYSTEM)
    return {name: (state.st_size, state.st_mtime_ns) for name, state in found.items()}


@dataclasses.dataclass
class Pairs:
    """Images and where their captions are: a text file's name, or the captions themselves.

    Attributes:
      images: those with a caption.
      texts: of each.
      count: all images, those among them that are not read here.
      unused: images without a pair, by reason.
      unmet: sentences on the first names that found no partner.
    """

    images: list[str] = dataclasses.field(default_factory=list)
    texts: list[str | list[str]] = dataclasses.field(default_factory=list)
    count: int = 0
    unused: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    unmet: list[str] = dataclasses.field(default_factory=list)


def metadata_captions(
    root: Path, names: Iterable[str], skips: Skips, astray: dict[str, str] | None = None
) -> dict[str, list[str]]:
    """The captions of every metadata file below root.

    Names in it count from its folder or from root, and may be spelled as Windows or macOS do.

    Args:
      root: the folder.
      names: relative names of its files, sorted.
      skips: takes the lines that cannot be used.
      astray: takes {place where an image should be and is not: "FILE:LINE"}.

    Returns:
      {image's relative name: captions}.
    """
    names = list(names)
    known, captions = Names(n for n in names if _ends_in(n, (*SUFFIXES, *UNREAD))), {}
    for name in names:
        if posixpath.basename(name) not in METADATA:
            continue
        for line, reason, file_name, texts in read_metadata(root / name):
            where = f"{name}:{line}"
            if reason:
                skips.add(where, reason)
                continue
            candidates = places(file_name, posixpath.dirname(name))
            found = next(filter(None, map(known.find, candidates)), None)
            if not candidates:
                skips.add(f"{where}: {file_name}", OUTSIDE)
            elif not (clean := clean_captions(texts)):
                skips.add(f"{where}: {file_name}", NO_TEXT)
            elif found is not None:
                captions.setdefault(found, []).extend(clean)
            elif astray is not None:
                astray.setdefault(candidates[0], where)
    return captions


def _ends_in(name: str, suffixes: Iterable[str]) -> bool:
    return name.lower().endswith(tuple(suffixes))


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


def pair(root: Path, names: Iterable[str], part: str, skips: Skips) -> Pairs:
    """Pairs images with captions by name, without opening either.

    Args:
      root: the folder.
      names: relative names of its files, sorted.
      part: only what lies below this folder of root; "" for everything.
      skips: takes what finds no partner.
    """
    names = list(names)
    inside = [n for n in names if n.startswith(part + "/")] if part else names
    images = [name for name in inside if _ends_in(name, SUFFIXES)]
    strange = [name for name in inside if _ends_in(name, UNREAD)]
    sidecars = {_stem(name): name for name in inside if _ends_in(name, (".txt",))}
    astray: dict[str, str] = {}
    captions = metadata_captions(root, names, skips, astray)
    if part:
        astray = {n: where for n, where in astray.items() if n.startswith(part + "/")}
    pairs, beside = Pairs(count=len(images) + len(strange)), Names(sidecars)
    mute = []
    for image in images:
        stem = beside.find(_stem(image))
        text = captions.get(image) or sidecars.get(stem)
        if text is None:
            mute.append(image)
            continue
        pairs.images.append(image)
        pairs.texts.append(text)
    for image in strange:
        reason = UNREAD[posixpath.splitext(image)[1].lower()]
        skips.add(image, reason)
        pairs.unused[reason] += 1
    for image in mute:
        skips.add(image, NO_CAPTION)
        pairs.unused[NO_CAPTION] += 1
    stems = Names(map(_stem, images + strange))
    strays = [name for stem, name in sidecars.items() if stems.find(stem) is None]
    for name in strays + list(astray):
        skips.add(name, NO_IMAGE)
    if astray or strays or not images:
        pairs.unmet += [
            f"{name} is not unpacked: unpack it here" for name in inside if _ends_in(name, ARCHIVES)
        ][:TOLD]
    pairs.unmet += _unmet(images + strange, mute, strays, astray, list(sidecars.values()))
    return pairs


def _unmet(images, mute, strays, astray, texts) -> list[str]:
    """Sentences on the first captions without an image and images without a caption."""
    known, beside = Names(images), Names(texts)
    lines = [
        f"{where} names an image {name!r}, which is not there: {known.nearest(name)}"
        for name, where in itertools.islice(astray.items(), TOLD)
    ]
    lines += [
        f"{name} has no image of that name beside it: {known.nearest(name, False)}"
        for name in strays[:TOLD]
    ]
    if texts:
        lines += [
            f"{name} has no text file of that name: {beside.nearest(name, False)}"
            for name in mute[:TOLD]
        ]
    return lines


class Folder:
    """A directory of captioned images, searched recursively; pairs in the order of their names.

    Every file is decoded once, in the constructor, so that a bad one is known before training;
    the verdicts are kept in a report and reused while the files' names, sizes and times stay.

    Attributes:
      gives: the batch keys.
      size: number of usable pairs.
      class_names: empty; a folder has no classes.
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
    ):
        """Finds, pairs and checks the files.

        Args:
          path: the directory.
          framing: what part of a picture is shown, and how large.
          min_side: smaller images are skipped, pixels.
          max_pixels: larger images are skipped, by their header; Pillow's own limit holds too.
          report: JSON file of what was skipped and why; also the cache of the scan.
          part: use only the images below this folder of `path`.

        Raises:
          DataError: when nothing can be used: names the path, what was seen, what was expected.
        """
        self.root, self.framing = Path(path), framing
        self.min_side, self.max_pixels = min_side, max_pixels
        if not str(path) or not self.root.exists():
            raise DataError(f"config.data.path is {str(path)!r}, which does not exist; {LAYOUTS}")
        if not self.root.is_dir():
            raise DataError(f"{path} is a file, not a directory; {LAYOUTS}")
        skips = Skips()
        files = list_files(self.root, skips)
        pairs = pair(self.root, files, part, skips)
        digest = self._digest(files, part)
        kept = _cached(report, digest)
        self.report = kept or self._scan(pairs, digest, skips, report)
        if kept and (said := self._summary(report)):
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
        how = [RULES, part, self.min_side, self.max_pixels]
        digest = hashlib.sha256(json.dumps(how).encode())
        for name, (size, mtime) in files.items():
            # Others, our own report among them, may change without a new scan.
            if _ends_in(name, (*SUFFIXES, *UNREAD, *ARCHIVES, ".txt", *METADATA)):
                digest.update(os.fsencode(f"{name}\0{size}\0{mtime}\n"))
        return digest.hexdigest()

    def _check(self, image: str, text: str | list[str]) -> tuple[str, str] | tuple[int, list[int]]:
        """(file, reason) for a pair that cannot be used.

        Else (number of its captions, lines of its text file that are none).
        """
        try:
            self._open(image)
        except Unreadable as error:
            return image, error.reason
        if isinstance(text, list):
            return len(text), []
        try:
            texts, bad = sidecar(self.root / text)
            return len(texts), bad
        except Unreadable as error:
            return os.path.relpath(error.name, self.root), error.reason

    def _scan(self, pairs: Pairs, digest: str, skips: Skips, file) -> dict[str, Any]:
        start = time.monotonic()
        rejected, per_image, unused = [], collections.Counter(), pairs.unused.copy()
        progress = Progress(f"checking the images of {self.root}", len(pairs.images))
        for i, (first, second) in enumerate(self._verdicts(pairs, progress)):
            if isinstance(first, int):
                per_image[first] += 1
                for line in second:
                    skips.add(f"{pairs.texts[i]}:{line}", NOT_UTF8)
            else:
                rejected.append(i)
                unused[second] += 1
                skips.add(first, second)
        self.report = {
            "path": str(self.root),
            "images": pairs.count,
            "usable": len(pairs.images) - len(rejected),
            "unused_images": dict(unused.most_common()),
            "captions_per_image": {str(n): per_image[n] for n in sorted(per_image)},
            "skipped": dict(skips.counts.most_common()),
            "skipped_files": skips.listed,
            "unmet": pairs.unmet,
            "seconds": round(time.monotonic() - start, 2),
            "digest": digest,
            "rejected": rejected,
        }
        if file is not None:
            write_report(Path(file), self.report)
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
                    progress.step(not isinstance(verdict[0], int))
                    yield verdict

    def _open(self, image: str, need=None):
        limits = {"min_side": self.min_side, "max_pixels": self.max_pixels}
        return open_rgb(self.root / image, need, **limits)

    def _captions(self, text: str | list[str]) -> list[str]:
        return text if isinstance(text, list) else sidecar(self.root / text)[0]

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


def _cached(file: str | Path | None, digest: str) -> dict[str, Any] | None:
    """The earlier report, when it speaks of the same files."""
    if file is None or not Path(file).is_file():
        return None
    try:
        report = json.loads(Path(file).read_text())
    except ValueError:  # cut off while it was written by hand or copied
        return None
    return report if report.get("digest") == digest else None


def split_folder(root: Path, split: str) -> str:
    """The folder of root that holds a split; "" where root is not divided into splits.

    Root is divided when each of its folders is named after a split, such as train/ and val/.

    Raises:
      DataError: when root is divided and holds nothing for the split.
    """
    split_of = {name: key for key, names in SPLITS.items() for name in names}
    folders = {e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith(".")}
    if not folders or not folders <= set(split_of):
        return ""
    if split in STAND_INS and (name := nearest(split, folders, str(root))):
        return name
    raise DataError(
        f"{root} holds {', '.join(sorted(f + '/' for f in folders))} and nothing for the split "
        f"{split!r}; known splits: {', '.join(SPLITS)}. Set --config.data.split or .eval_split"
    )
