"""A folder of captioned images as a source."""

import collections
import csv
import dataclasses
import hashlib
import json
import os
import posixpath
import time
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from jaxt2i.data.images import MAX_PIXELS, SUFFIXES, SYSTEM, Unreadable, open_rgb
from jaxt2i.data.pictures import Framing
from jaxt2i.data.progress import Progress
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources.base import (
    BAD_LINE,
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

METADATA = ("metadata.jsonl", "metadata.csv")
LAYOUTS = (
    "expected images with captions in one of these layouts: a.jpg beside a.txt, one caption a "
    "line; or metadata.jsonl or metadata.csv with file_name and text. "
    "Set --config.data.path=DIR"
)


# --- Captions ----------------------------------------------------------------------------------


def read_sidecar(file: Path) -> list[str]:
    """Captions of a text file, one a line.

    Raises:
      Unreadable: when the file cannot be opened or holds no caption.
    """
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise Unreadable(file, SYSTEM) from error
    captions = clean_captions(text.split("\n"))
    if not captions:
        raise Unreadable(file, NO_TEXT)
    return captions


def read_metadata(file: Path) -> Iterator[tuple[int, str | None, list[str]]]:
    """Rows of a metadata file: (line, file name or None for a malformed row, raw captions).

    Raises:
      DataError: when the columns are missing; names those that are there.
    """
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        seen: set[str] = set()
        good = 0
        rows = _csv_rows(file, lines) if file.suffix == ".csv" else _jsonl_rows(lines)
        for number, row in rows:
            seen |= set(row)
            name, text = row.get("file_name"), row.get("text")
            texts = [text] if isinstance(text, str) else text
            ok = isinstance(name, str) and isinstance(texts, list)
            if ok and name and all(isinstance(t, str) for t in texts):
                good += 1
                yield number, name, texts
            else:
                yield number, None, []
    if seen and not good:
        raise DataError(_columns(file, seen))


def _columns(file: Path, seen: Iterable[str]) -> str:
    return (
        f"{file}: no row with both file_name and text; its columns are "
        f"{', '.join(sorted(map(str, seen))) or 'none'}. Rename them, or set --config.data.path=DIR"
    )


def _csv_rows(file: Path, lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader((line.replace("\0", "") for line in lines), restkey="(more)")
    try:
        if not {"file_name", "text"} <= set(reader.fieldnames or ()):
            raise DataError(_columns(file, reader.fieldnames or ()))
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(
            f"{file}, line {reader.line_num}: not comma-separated values ({error}); mend the "
            "file, or set --config.data.path=DIR"
        ) from error


def _jsonl_rows(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = {}
            yield number, row if isinstance(row, dict) else {}


# --- The folder --------------------------------------------------------------------------------


def list_files(root: Path, skips: Skips) -> dict[str, tuple[int, int]]:
    """{name relative to root, "/" between parts: (bytes, mtime in ns)}, sorted by name.

    Hidden files and folders, by their leading dot, are no data. Links are followed, loops are not.
    """
    found: dict[str, tuple[int, int]] = {}
    folders, visited = [""], set()
    while folders:
        folder = folders.pop()
        here = os.stat(root / folder)
        if (here.st_dev, here.st_ino) in visited:
            continue
        visited.add((here.st_dev, here.st_ino))
        try:
            entries = [e for e in os.scandir(root / folder) if not e.name.startswith(".")]
        except OSError:
            skips.add(folder or ".", SYSTEM)
            continue
        for entry in entries:
            name = posixpath.join(folder, entry.name)
            if entry.is_dir():
                folders.append(name)
                continue
            try:
                stat = entry.stat()
            except OSError:  # a dangling link
                skips.add(name, SYSTEM)
                continue
            found[name] = (stat.st_size, stat.st_mtime_ns)
    return dict(sorted(found.items()))


@dataclasses.dataclass
class Pairs:
    """Images and where their captions are: a text file's name, or the captions themselves."""

    images: list[str] = dataclasses.field(default_factory=list)
    texts: list[str | list[str]] = dataclasses.field(default_factory=list)


def metadata_captions(root: Path, names: Iterable[str], skips: Skips) -> dict[str, list[str]]:
    """{image's relative name: captions} of every metadata file below root."""
    captions: dict[str, list[str]] = {}
    for name in names:
        if posixpath.basename(name) not in METADATA:
            continue
        for line, file_name, texts in read_metadata(root / name):
            where = f"{name}:{line}"
            if file_name is None:
                skips.add(where, BAD_LINE)
                continue
            image = posixpath.normpath(posixpath.join(posixpath.dirname(name), file_name))
            if posixpath.isabs(file_name) or image.split("/")[0] == "..":
                skips.add(f"{where}: {file_name}", OUTSIDE)
            elif clean := clean_captions(texts):
                captions.setdefault(image, []).extend(clean)
            else:
                skips.add(f"{where}: {file_name}", NO_TEXT)
    return captions


def pair(root: Path, names: Iterable[str], part: str, skips: Skips) -> tuple[Pairs, int]:
    """Pairs images with captions by name, without opening either.

    Args:
      root: the folder.
      names: relative names of its files, sorted.
      part: only what lies below this folder of root; "" for everything.
      skips: takes what finds no partner.

    Returns:
      (pairs, number of images).
    """
    names = list(names)
    inside = [n for n in names if n.startswith(part + "/")] if part else names
    stem_suffix = [(*posixpath.splitext(name), name) for name in inside]
    images = [name for _, suffix, name in stem_suffix if suffix.lower() in SUFFIXES]
    sidecars = {stem: name for stem, suffix, name in stem_suffix if suffix.lower() == ".txt"}
    captions = metadata_captions(root, names, skips)
    pairs = Pairs()
    for image in images:
        text = captions.get(image) or sidecars.get(posixpath.splitext(image)[0])
        if text is None:
            skips.add(image, NO_CAPTION)
            continue
        pairs.images.append(image)
        pairs.texts.append(text)
    stems, known = {posixpath.splitext(image)[0] for image in images}, set(images)
    described = [name for name in captions if not part or name.startswith(part + "/")]
    strays = [name for stem, name in sidecars.items() if stem not in stems]
    for name in strays + [name for name in described if name not in known]:
        skips.add(name, NO_IMAGE)
    return pairs, len(images)


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
        pairs, images = pair(self.root, files, part, skips)
        if not images:
            raise DataError(
                f"{path} holds {len(files)} files and no image (skipped: {skips}); {LAYOUTS}"
            )
        if not pairs.images:
            raise DataError(
                f"{path} holds {images} images and no caption for any of them (skipped: {skips}); "
                + LAYOUTS
            )
        digest = self._digest(files, part)
        self.report = _cached(report, digest) or self._scan(pairs, images, digest, skips, report)
        rejected = set(self.report["rejected"])
        usable = [i for i in range(len(pairs.images)) if i not in rejected]
        self._images = [pairs.images[i] for i in usable]
        self._texts = [pairs.texts[i] for i in usable]
        self.size = len(usable)
        if not usable:
            counts = ", ".join(f"{n} {reason}" for reason, n in self.report["skipped"].items())
            raise DataError(f"{path} holds {images} images, none usable: {counts}; {LAYOUTS}")

    def _digest(self, files: dict[str, tuple[int, int]], part: str) -> str:
        digest = hashlib.sha256(json.dumps([part, self.min_side, self.max_pixels]).encode())
        for name, (size, mtime) in files.items():
            # Others, our own report among them, may change without a new scan.
            if name.lower().endswith((*SUFFIXES, ".txt", *METADATA)):
                digest.update(os.fsencode(f"{name}\0{size}\0{mtime}\n"))
        return digest.hexdigest()

    def _check(self, image: str, text: str | list[str]) -> tuple[str, str] | int:
        """(file, reason) for a pair that cannot be used, else the number of its captions."""
        name = image
        try:
            self._open(image)
            name = text if isinstance(text, str) else image
            return len(self._captions(text))
        except Unreadable as error:
            return name, error.reason

    def _scan(self, pairs: Pairs, images: int, digest: str, skips: Skips, file) -> dict[str, Any]:
        start = time.monotonic()
        rejected, per_image = [], collections.Counter()
        for i, verdict in enumerate(self._verdicts(pairs)):
            if isinstance(verdict, int):
                per_image[verdict] += 1
            else:
                rejected.append(i)
                skips.add(*verdict)
        report = {
            "path": str(self.root),
            "images": images,
            "usable": len(pairs.images) - len(rejected),
            "captions_per_image": {str(n): per_image[n] for n in sorted(per_image)},
            "skipped": dict(skips.counts.most_common()),
            "skipped_files": skips.listed,
            "seconds": round(time.monotonic() - start, 2),
            "digest": digest,
            "rejected": rejected,
        }
        if file is not None:
            write_report(Path(file), report)
        return report

    def _verdicts(self, pairs: Pairs) -> Iterator[tuple[str, str] | int]:
        """The verdict on each pair, in order, with a progress line."""
        total, chunk = len(pairs.images), 4096  # so that a million pairs are no million futures
        threads = min(32, (os.cpu_count() or 1) + 1)
        progress = Progress(f"checking the images of {self.root}", total)
        with warnings.catch_warnings(), ThreadPoolExecutor(threads, "scan") as pool:
            warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters becomes a verdict
            for first in range(0, total, chunk):
                now = slice(first, first + chunk)
                for verdict in pool.map(self._check, pairs.images[now], pairs.texts[now]):
                    progress.step(not isinstance(verdict, int))
                    yield verdict
        progress.close()

    def _open(self, image: str, need=None):
        limits = {"min_side": self.min_side, "max_pixels": self.max_pixels}
        return open_rgb(self.root / image, need, **limits)

    def _captions(self, text: str | list[str]) -> list[str]:
        return text if isinstance(text, list) else read_sidecar(self.root / text)

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
