"""What lies below a folder, by name: files, members of zip archives, rows of tables.

Whoever pairs pictures with captions asks for bytes by a name and need not know which it is.
"""

import functools
import os
import posixpath
import threading
import zipfile
from collections.abc import Iterable
from pathlib import Path

from jaxt2i.data.images import BOMB, CORRUPT, SYSTEM, Unreadable
from jaxt2i.data.sources import tables
from jaxt2i.data.sources.base import NO_IMAGE, OUTSIDE, Skips
from jaxt2i.data.sources.files import Kept, picture_bytes, tree
from jaxt2i.data.sources.meeting import Names, is_absolute, places

ZIP = ".zip"
# What macOS adds to its archives.
ADDED = "__MACOSX"
# A member that says it is larger is not unpacked, bytes.
LARGEST = 2**30
# Parts of tables that are kept in memory.
OPEN_GROUPS = 8
ENCRYPTED = "encrypted in its archive"
NO_PICTURES = "table without a column of pictures"


class Store:
    """The files below a folder, and what they hold that can be had by a name of its own.

    Attributes:
      root: the folder.
      files: {name relative to root, "/" between parts: (bytes, mtime in ns)}, as `files.tree`
        orders them.
      tables: {name of a file: its table}, see `open_tables`. The picture of a row is called
        "NAME:NUMBER", counted from 0.
    """

    def __init__(self, root: str | Path, skips: Skips):
        """Lists the files; what cannot be opened is told to `skips`."""
        self.root, self._root = Path(root), os.fspath(root)
        found, refused = tree(self.root)
        for name in refused:
            skips.add(name, SYSTEM)
        self.files = {name: (state.st_size, state.st_mtime_ns) for name, state in found.items()}
        self.tables: dict[str, tables.Table] = {}
        self._members: dict[str, tuple[str, zipfile.ZipInfo]] = {}
        self._archives: dict[str, zipfile.ZipFile] = {}
        self._lock = threading.Lock()
        self._order: list[tuple[str, int]] = []
        self._starts: dict[str, int] = {}
        self._groups = Kept(self._group, OPEN_GROUPS)

    @property
    def names(self) -> list[str]:
        """Of all files, and of the members of archives that are open; sorted."""
        return sorted([*self.files, *self._members])

    @property
    def archives(self) -> list[str]:
        """The archives that are open."""
        return list(self._archives)

    @functools.cached_property
    def _known(self) -> Names:
        return Names(self.files)

    def read(self, name: str) -> bytes:
        """What a file, a member or a row's picture holds.

        Raises:
          Unreadable: when it cannot be read.
        """
        if name in self._members:
            return self._unpacked(name)
        file, _, number = name.rpartition(":")
        if file in self.tables and name not in self.files:
            return self._picture(file, int(number))
        try:
            return picture_bytes(os.path.join(self._root, name))
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
            raise Unreadable(self.root / name, SYSTEM) from error

    # --- archives -------------------------------------------------------------------------------

    def open_archives(self, names: Iterable[str], skips: Skips) -> None:
        """Adds the members of zip archives, as if they were unpacked beside the archive.

        A file that is there already stands for the member of its name.
        """
        for name in names:
            if not name.lower().endswith(ZIP) or name in self._archives:
                continue
            try:
                archive = zipfile.ZipFile(self.root / name)
            except Exception:  # malformed bytes raise nearly anything
                skips.add(name, CORRUPT)
                continue
            self._archives[name] = archive
            for member in archive.infolist():
                self._add(name, member, skips)

    def _add(self, name: str, member: zipfile.ZipInfo, skips: Skips) -> None:
        inside = _decoded(member)
        parts = inside.replace("\\", "/").split("/")
        hidden = any(part.startswith(".") and part not in (".", "..") for part in parts)
        if member.is_dir() or parts[0] == ADDED or hidden:
            return
        if is_absolute(inside) or ".." in parts:
            skips.add(f"{name}:{inside}", OUTSIDE)
            return
        place = posixpath.normpath(posixpath.join(posixpath.dirname(name), *parts))
        if place not in self.files:
            self._members.setdefault(place, (name, member))

    def _unpacked(self, name: str) -> bytes:
        archive, member = self._members[name]
        where = f"{self.root / archive}:{member.filename}"
        if member.flag_bits & 1:
            raise Unreadable(where, ENCRYPTED)
        if member.file_size > LARGEST:
            raise Unreadable(where, BOMB)
        try:
            with self._archives[archive].open(member) as stream:
                return stream.read(member.file_size + 1)
        except Exception as error:  # malformed bytes raise nearly anything
            system = isinstance(error, OSError) and error.errno
            raise Unreadable(where, SYSTEM if system else CORRUPT) from error

    # --- tables ---------------------------------------------------------------------------------

    def open_tables(self, names: Iterable[str], skips: Skips) -> None:
        """Opens the tables among files.

        Raises:
          DataError: for a table of pictures without captions, and where it cannot be told which
            column holds them.
        """
        for name in names:
            if not tables.is_table(name) or name in self.tables:
                continue
            try:
                table = tables.opened(self.root / name)
            except Unreadable as error:
                skips.add(name, error.reason)
                continue
            if table is None:
                skips.add(name, NO_PICTURES)
                continue
            self.tables[name] = table
            self._starts[name] = len(self._order)
            self._order += [(name, group) for group in range(table.groups)]

    def _group(self, number: int):
        name, group = self._order[number]
        return self.tables[name].pictures(group)

    def _picture(self, file: str, number: int) -> bytes:
        where = f"{self.root / file}:{number}"
        group, row = self.tables[file].place(number)
        cell = tables.cell(self._groups(self._starts[file] + group), row, where)
        if isinstance(cell, bytes):
            return cell
        # A table may only say where its pictures lie.
        beside = places(cell, posixpath.dirname(file)) if cell else []
        found = next(filter(None, map(self._known.find, beside)), None)
        if found is None:
            raise Unreadable(where, NO_IMAGE)
        return self.read(found)


def _decoded(member: zipfile.ZipInfo) -> str:
    """The name of a member; many programs write UTF-8 without saying so."""
    if member.flag_bits & 0x800:
        return member.filename
    try:
        return member.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return member.filename
