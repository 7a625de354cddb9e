"""Counts of the examples of many files: made once, kept, and divided among processes.

They are kept in the collection's own folder, in .jaxt2i/, which no source reads; where that cannot
be written to, in the work directory. A file counts anew when its name, size or time has changed,
and when other filters are asked for.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import posixpath
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

from jaxt2i import places
from jaxt2i.data.images import SYSTEM
from jaxt2i.data.progress import Progress
from jaxt2i.data.sources import files

FOLDER = ".jaxt2i"
# Of the rules of counting: what was counted by others is counted again.
RULES = 1
# Files that are looked at, and files that are opened, at a time.
LOOKERS, READERS = 32, 8


@dataclasses.dataclass(frozen=True)
class Shared:
    """With whom counting is shared, and where.

    Attributes:
      folder: that all processes see, of the work directory; None: there is none.
      index: of this process.
      processes: how many count.
      wait: returns when all of them have called it.
    """

    folder: epath.Path | None = None
    index: int = 0
    processes: int = 1
    wait: Callable[[], None] = lambda: None


ALONE = Shared()


@dataclasses.dataclass(frozen=True)
class Counted:
    """What is known of a file.

    Attributes:
      count: its usable examples.
      skipped: how many others, by reason.
      mended: {name: reason} of those that a person can mend.
    """

    count: int
    skipped: Mapping[str, int]
    mended: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Kept:
    """Where the counts of a collection are kept.

    Attributes:
      path: the collection.
      shared: who counts.
      name: of the file; it stands for all that counts depend on but the files themselves.
    """

    path: str
    shared: Shared
    name: str

    @property
    def beside(self) -> str:
        """The file in the collection's folder."""
        return posixpath.join(self.path, FOLDER, self.name)

    def read(self) -> dict[str, list]:
        """{name of a file: [what it was like, count, skipped, mended]}."""
        found: dict[str, list] = {}
        with contextlib.suppress(Exception):  # whatever it is, counting anew mends it
            if self.shared.folder is not None:
                found |= whole((self.shared.folder / self.name).read_text())
        with contextlib.suppress(Exception):
            if files.exists(self.beside):
                found |= whole(files.read_bytes(self.beside))
        return found

    def write(self, entries: Mapping[str, list]) -> str:
        """Keeps them; returns where, "" where that is nowhere."""
        content = json.dumps({"files": entries, "digest": digest(entries)})
        try:
            if not files.remote(self.path):
                os.makedirs(posixpath.dirname(self.beside), exist_ok=True)
            files.write_bytes(self.beside, content.encode())
            return self.beside
        except Exception:  # data may be for reading only, and buckets have errors of their own
            if self.shared.folder is None:
                return ""
        places.make_folder(self.shared.folder)
        places.write_whole(self.shared.folder / self.name, content)
        return str(self.shared.folder / self.name)


def whole(content: str | bytes) -> dict[str, list]:
    """The entries of a file of counts; none where it is not as it was written."""
    kept = json.loads(content)
    return kept["files"] if kept["digest"] == digest(kept["files"]) else {}


def digest(*parts: Any) -> str:
    """A name for plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def counted(
    path: str,
    names: Sequence[str],
    looked_at: Sequence[str],
    count: Callable[[int], Counted],
    key: Any,
    shared: Shared = ALONE,
) -> list[Counted]:
    """What is known of each file; only those are opened of which nothing is.

    Args:
      path: the collection.
      names: its files, relative.
      looked_at: the file, relative, that the count of each comes from.
      count: number of a file -> what is in it.
      key: plain values that counts depend on beside the files, such as filters.
      shared: who counts; every process counts every so many-th file and gets all.
    """
    kept = Kept(path, shared, f"counts-{digest(RULES, key)}.json")
    known, mine = kept.read(), range(shared.index, len(names), shared.processes)
    with ThreadPoolExecutor(LOOKERS, "look") as pool:
        states = {i: pool.submit(files.state, path, looked_at[i]) for i in mine}
    states = {i: future.result() for i, future in states.items()}
    entries = {i: known[names[i]] for i in mine if known.get(names[i], [""])[0] == states[i]}
    new = _count([i for i in mine if i not in entries], count, states, path, shared)
    entries |= new
    together = shared.processes > 1 and shared.folder is not None
    if together:
        entries = _exchanged(entries, f"{kept.name}-{digest(path, list(names))}", shared)
        new = {i: e for i, e in entries.items() if known.get(names[i]) != e}
    # What could not be opened may be there the next time.
    lasting = {names[i]: e for i, e in new.items() if SYSTEM not in e[2]}
    if lasting and shared.index == 0:
        place = kept.write(known | lasting)
        where = f"kept in {place}" if place else "kept nowhere: the next start counts again"
        print(f"data: {path}: {len(lasting)} counts are {where}", file=sys.stderr)
    if together:
        shared.wait()  # what is kept is there for all, before one of them looks again
    return [Counted(*entries[i][1:]) for i in range(len(names))]


def _count(left: list[int], count: Callable, states: Mapping, path: str, shared: Shared) -> dict:
    """The entries of files that have to be opened, shown as it goes."""
    found: dict[int, list] = {}
    if not left:
        return found
    part = f", part {shared.index + 1} of {shared.processes}" if shared.processes > 1 else ""
    progress = Progress(f"listing {path}{part}", len(left))
    with ThreadPoolExecutor(READERS, "list") as pool:
        for i, made in zip(left, pool.map(count, left), strict=True):
            found[i] = [states[i], made.count, dict(made.skipped), dict(made.mended)]
            progress.step(not made.count)
    progress.close()
    return found


def _exchanged(entries: dict[int, list], name: str, shared: Shared) -> dict[int, list]:
    """The entries of all processes, through files that are gone afterwards."""
    places.make_folder(shared.folder)
    parts = [shared.folder / f"{name}-{i}.part" for i in range(shared.processes)]
    places.write_whole(parts[shared.index], json.dumps(list(entries.items())))
    shared.wait()
    everything = {i: e for part in parts for i, e in json.loads(part.read_text())}
    shared.wait()
    parts[shared.index].unlink()
    return everything
