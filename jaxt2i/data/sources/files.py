"""Files of records, here or in a bucket, read at any place by many threads.

A path with "://" in it (gs://, s3://) goes through TensorFlow's file systems; such files are read
whole, into temporary copies, because a bucket answers many small questions slowly. Orders that
finish with a file before they go on (`jaxt2i.data.order.Lanes`) make that cheap.
"""

import collections
import heapq
import io
import os
import posixpath
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxt2i.data.images import SYSTEM, Unreadable
from jaxt2i.data.schema import DataError
from jaxt2i.data.tf import tensorflow

# Local files that stay open.
OPEN = 256


def remote(path: str | os.PathLike) -> bool:
    """Whether a path lies in a bucket."""
    return "://" in os.fspath(path)


def gfile():
    """TensorFlow's file systems."""
    try:
        return tensorflow().io.gfile
    except ImportError as error:
        raise DataError(
            "paths with '://' are read through TensorFlow, which is not installed here: pip "
            "install tensorflow-cpu, or copy the data and set --config.data.path=DIR"
        ) from error


def exists(path: str) -> bool:
    """Whether there is such a file or folder."""
    return gfile().exists(path) if remote(path) else os.path.exists(path)


def is_folder(path: str) -> bool:
    """Whether there is such a folder."""
    return gfile().isdir(path) if remote(path) else os.path.isdir(path)


def walk(path: str) -> list[str]:
    """Relative names of all files below a folder, sorted, without hidden ones.

    Here links are followed, see `tree`; what cannot be opened is told.
    """
    if not remote(path):
        found, refused = tree(path)
        for name in refused:
            print(f"data: {posixpath.join(path, name)}: {SYSTEM}; left out", file=sys.stderr)
        return list(found)
    found = []
    for folder, folders, names in gfile().walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = folder[len(path) :].strip("/")
        found += [posixpath.join(inside, name) for name in names if not name.startswith(".")]
    return sorted(found)


def tree(root: str | os.PathLike) -> tuple[dict[str, os.stat_result], list[str]]:
    """The files below a folder on this machine: the same ones in the same order on any other.

    Hidden files and folders, by their leading dot, are no data. Links are followed; a folder that
    is reached in several ways has the name that takes the fewest links, of these the first.

    Returns:
      ({name relative to root, "/" between parts: its state}, sorted; names that cannot be opened or
      are no files: dangling links, links to themselves, pipes).
    """
    found: dict[str, os.stat_result] = {}
    refused, visited, waiting = [], set(), [(0, "")]
    while waiting:
        links, folder = heapq.heappop(waiting)
        place = os.path.join(root, folder)
        try:
            here = os.stat(place)
            if (here.st_dev, here.st_ino) in visited:
                continue
            visited.add((here.st_dev, here.st_ino))
            entries = [entry for entry in os.scandir(place) if not entry.name.startswith(".")]
        except OSError:
            refused.append(folder or ".")
            continue
        for entry in entries:
            name = posixpath.join(folder, entry.name)
            try:
                state = entry.stat()
            except OSError:
                refused.append(name)
                continue
            if stat.S_ISDIR(state.st_mode):
                heapq.heappush(waiting, (links + entry.is_symlink(), name))
            elif stat.S_ISREG(state.st_mode):
                found[name] = state
            else:  # opening a pipe would wait for ever
                refused.append(name)
    return dict(sorted(found.items())), sorted(refused)


def state(root: str, name: str) -> str:
    """What tells that a file is another than before: its size and time; "" where it is gone."""
    path = posixpath.join(root, name)
    try:
        if remote(path):
            found = gfile().stat(path)
            return f"{found.length} {found.mtime_nsec}"
        found = os.stat(path)
        return f"{found.st_size} {found.st_mtime_ns}"
    except Exception as error:  # file systems of buckets have errors of their own
        if isinstance(error, DataError):
            raise
        return ""


def read_bytes(path: str) -> bytes:
    """All of a small file."""
    if remote(path):
        with gfile().GFile(path, "rb") as stream:
            return stream.read()
    return Path(path).read_bytes()


def picture_bytes(path: str) -> bytes:
    """All of a local file, by few calls of the system.

    Each of them lets go of Python's lock, for which the threads that read pictures then queue:
    `Path.read_bytes` has twice as many, and took 5 % of the time of small JPEGs.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(handle).st_size
        pieces = [os.read(handle, size + 1)]
        if len(pieces[0]) == size:  # fewer than asked for: it ends here
            return pieces[0]
        while piece := os.read(handle, 2**20):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(handle)


def write_bytes(path: str, content: bytes) -> None:
    """Writes a file in one step."""
    if remote(path):
        with gfile().GFile(path, "wb") as stream:
            stream.write(content)
        return
    with tempfile.NamedTemporaryFile(dir=os.path.dirname(path), delete=False) as temporary:
        temporary.write(content)
    os.chmod(temporary.name, 0o644)
    os.replace(temporary.name, path)


class Kept:
    """The last few results of a slow function of a number, each made once however many ask."""

    def __init__(self, make: Callable[[int], Any], most: int):
        """Args:
        make: number -> anything; what it raises reaches everyone who asks.
        most: how many results are kept.
        """
        self._make, self._most = make, most
        self._done: collections.OrderedDict[int, Any] = collections.OrderedDict()
        self._locks: dict[int, threading.Lock] = {}
        self._lock = threading.Lock()

    def __call__(self, number: int) -> Any:
        with self._lock:
            mine = self._locks.setdefault(number, threading.Lock())
        with mine:
            with self._lock:
                if number in self._done:
                    self._done.move_to_end(number)
                    return self._done[number]
            made = self._make(number)
            with self._lock:
                self._done[number] = made
                while len(self._done) > self._most:
                    self._done.popitem(last=False)
            return made


class Shelf:
    """Many files, of which the last few stay open; those of a bucket as temporary copies."""

    def __init__(self, paths: Sequence[str], copies: int = 64):
        """Opens nothing yet.

        Args:
          paths: the files, addressed by their place here.
          copies: how many copies of remote files are kept.
        """
        self.paths = list(paths)
        self.most = copies if any(map(remote, self.paths)) else OPEN
        # Whoever holds a file may read on when it has been put away.
        self._stream = Kept(self._opened, self.most)

    def _opened(self, file: int) -> io.FileIO:
        path = self.paths[file]
        try:
            if not remote(path):
                return io.FileIO(path)
            # The open file outlives its name.
            with tempfile.NamedTemporaryFile(prefix="jaxt2i-") as copy:
                gfile().copy(path, copy.name, overwrite=True)
                return io.FileIO(copy.name)
        except Exception as error:  # file systems of buckets have errors of their own
            raise Unreadable(path, SYSTEM) from error

    def local(self, file: int) -> tuple[str, io.FileIO]:
        """A name by which a library can open a file, as long as the stream beside it is held.

        Raises:
          Unreadable: when it cannot be opened.
        """
        stream = self._stream(file)
        # A copy has no name of its own any more.
        path = self.paths[file]
        return (f"/dev/fd/{stream.fileno()}" if remote(path) else path), stream

    def size(self, file: int) -> int:
        """Bytes in a file.

        Raises:
          Unreadable: when it cannot be opened.
        """
        return os.fstat(self._stream(file).fileno()).st_size

    def read(self, file: int, start: int, length: int) -> bytes:
        """Bytes of a file; fewer at its end.

        Raises:
          Unreadable: when it cannot be opened.
        """
        return os.pread(self._stream(file).fileno(), length, start)
