"""Names that mean the same file, and why two that should have met did not."""

import difflib
import posixpath
import re
import unicodedata
from collections.abc import Iterable

# Names among which a similar one is looked for.
LOOKED_AT = 10_000
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
_DRIVE = re.compile(r"[A-Za-z]:/")


def alike(name: str) -> str:
    r"""The spelling that is compared: "/" for Windows' "\", accents composed (NFC), no "./"."""
    return posixpath.normpath(unicodedata.normalize("NFC", name.replace("\\", "/")))


def is_absolute(name: str) -> bool:
    """Whether a name begins at a root or a drive, whichever system wrote it."""
    name = name.replace("\\", "/")
    return name.startswith("/") or _DRIVE.match(name) is not None


class Names:
    """Names of files, found again however they are spelled."""

    def __init__(self, names: Iterable[str]):
        self._names = list(names)
        self._known = set(self._names)
        self._alike: dict[str, str] = {}
        for name in self._names:
            self._alike.setdefault(alike(name), name)
        self._folded: list[dict[str, str]] | None = None

    def find(self, name: str) -> str | None:
        """The file of that name: to the letter, else as `alike` spells it."""
        return name if name in self._known else self._alike.get(alike(name))

    def nearest(self, name: str) -> str:
        """What comes closest to a name that was not found, and how it differs, for a person."""
        keys = (
            (_whole, "upper and lower case differ"),
            (_base, "in another folder"),
            (_stem, "with another ending"),
        )
        if self._folded is None:
            # The first of several stays.
            self._folded = [{key(n): n for n in reversed(self._names)} for key, _ in keys]
        for (key, how), known in zip(keys, self._folded, strict=True):
            if (found := known.get(key(name))) is not None:
                return f"the nearest is {found!r}, {how}"
        some = {_whole(n): n for n in reversed(self._names[:LOOKED_AT])}
        near = difflib.get_close_matches(_whole(name), some, n=1)
        return f"the nearest is {some[near[0]]!r}" if near else "nothing is called alike"


def _whole(name: str) -> str:
    return alike(name).casefold()


def _base(name: str) -> str:
    return posixpath.basename(_whole(name))


def _stem(name: str) -> str:
    return posixpath.splitext(_base(name))[0]


def places(name: str, folder: str) -> list[str]:
    """Where the image of a metadata line may lie, relative to the root, likeliest first.

    Args:
      name: as the line says it.
      folder: of the metadata file, relative to the root; names count from there, or from the root.

    Returns:
      no place where the name leads outside the root.
    """
    if is_absolute(name):
        return []
    name = name.replace("\\", "/")
    below = (posixpath.normpath(posixpath.join(base, name)) for base in (folder, ""))
    return [place for place in dict.fromkeys(below) if place.split("/")[0] != ".."]
