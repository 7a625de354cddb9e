"""Files of lines in a work directory, or in a folder of pictures."""

import contextlib
import json
import time
from collections.abc import Sequence
from typing import Any

from etils import epath

from jaxt2i import places

# Of a file in a store: lines of a part, and the seconds at least between two writings of one.
PART, SECONDS = 256, 5.0


class Lines:
    """A file of lines that grows, such as metrics.jsonl.

    On a file system each line is appended at once. In a store nothing can be appended: the lines
    are written in parts, into the folder NAME.parts, each named after the number of lines before
    it. The newest part is written anew as a whole, every `SECONDS` at most and when `flush` asks
    for it; who reads joins file and parts (`text_lines`), and `close` writes one file of all.

    Args:
      path: the file; lines that it has already stay.
    """

    def __init__(self, path: epath.PathLike):
        self.path = epath.Path(path)
        self._parted = bool(places.scheme_of(path))
        self._before = len(text_lines(path)) if self._parted else 0
        self._part: list[str] = []
        self._tried, self._unwritten = 0.0, False

    def add(self, line: str) -> None:
        """Adds a line, without its end."""
        if not self._parted:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            return
        if len(self._part) >= PART and not self._unwritten:
            self._before, self._part = self._before + len(self._part), []
        self._part.append(line)
        self._unwritten = True
        if time.monotonic() - self._tried > SECONDS or len(self._part) == PART:
            self.flush()

    def flush(self) -> None:
        """Writes what only memory holds, which stays there where the store fails."""
        if self._unwritten:
            self._tried = time.monotonic()
            part = _parts(self.path) / f"{self._before:08d}"
            places.write_whole(part, _joined(self._part))
            self._unwritten = False

    def close(self) -> None:
        """Makes one file of all parts."""
        self.flush()
        if self._part:
            write_lines(self.path, text_lines(self.path))


def write_lines(path: epath.PathLike, lines: Sequence[str]) -> None:
    """Writes a file of lines as a whole, in place of what was there and of its parts."""
    path = epath.Path(path)
    places.write_whole(path, _joined(lines).encode(errors="surrogateescape"))
    if places.scheme_of(path):
        for part in places.matching(_parts(path), "[0-9]*"):
            part.unlink()


def text_lines(path: epath.PathLike) -> list[str]:
    """The lines of a file and of its parts, see `Lines`; none without either."""
    path = epath.Path(path)
    lines = _split(path)
    if places.scheme_of(path):
        for part in places.matching(_parts(path), "[0-9]*"):
            lines[int(part.name) :] = _split(part)
    return lines


def json_lines(path: epath.PathLike) -> list[dict[str, Any]]:
    """What the lines of a file of JSON lines say; none without the file.

    Half a line, as a run that was killed leaves it, is left out, as is one that is damaged.
    """
    lines = []
    for text in text_lines(path):
        with contextlib.suppress(ValueError):
            lines.append(json.loads(text.encode(errors="surrogateescape")))
    return [line for line in lines if isinstance(line, dict)]


def _parts(path: epath.Path) -> epath.Path:
    return path.with_name(f"{path.name}.parts")


def _joined(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _split(path: epath.Path) -> list[str]:
    """Lines, damaged ones as they are; texts may hold separators that only Unicode knows."""
    content = path.read_bytes() if path.exists() else b""
    lines = content.decode(errors="surrogateescape").split("\n")
    return lines[:-1] if not lines[-1] else lines
