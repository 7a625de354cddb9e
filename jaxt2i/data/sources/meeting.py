"""Names that mean the same file, and why two that should have met did not."""

import difflib
import posixpath
import re
import unicodedata
from collections.abc import Iterable

# Names among which a similar one is looked for.
LOOKED_AT = 10_000
# Those that are not looked into.
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".7z", ".rar")
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

    def nearest(self, name: str, endings: bool = True) -> str:
        """What comes closest to a name that was not found, and how it differs, for a person.

        Args:
          name: the name.
          endings: whether another ending is a difference.
        """
        if self._folded is None:
            # The first of several stays.
            self._folded = [{key(n): n for n in reversed(self._names)} for key in _KEYS]
        some = {_whole(n): n for n in reversed(self._names[:LOOKED_AT])}
        found = [known.get(key(name)) for key, known in zip(_KEYS, self._folded, strict=True)]
        found += [some[near] for near in difflib.get_close_matches(_whole(name), some, n=1)]
        near = next(filter(None, found), None)
        if near is None:
            return "nothing is called alike"
        return ", ".join([f"the nearest is {near!r}", *_differences(name, near, endings)])


def _whole(name: str) -> str:
    return alike(name).casefold()


def _path(name: str) -> str:
    return posixpath.splitext(_whole(name))[0]


def _base(name: str) -> str:
    return posixpath.basename(_whole(name))


def _stem(name: str) -> str:
    return posixpath.splitext(_base(name))[0]


# What near names have in common, the nearest first.
_KEYS = (_whole, _path, _base, _stem)


def _differences(name: str, near: str, endings: bool) -> list[str]:
    """How two names differ that have a stem in common; nothing where they have none."""
    if _stem(name) != _stem(near):
        return []
    differ = []
    if posixpath.dirname(_whole(name)) != posixpath.dirname(_whole(near)):
        differ.append("in another folder")
    pairs = [posixpath.splitext(posixpath.basename(alike(x))) for x in (name, near)]
    if endings and pairs[0][1].casefold() != pairs[1][1].casefold():
        differ.append("with another ending")
    if any(a != b and a.casefold() == b.casefold() for a, b in zip(*pairs, strict=True)):
        differ.append("upper and lower case differ")
    return differ


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
