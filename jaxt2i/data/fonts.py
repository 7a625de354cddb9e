"""Fonts that have the letters of captions, for pictures that show them to a person.

DejaVu Sans, which comes with matplotlib, has those of Latin, Greek, Cyrillic, Arabic, Hebrew and
more; for others the fonts of this machine are looked through. A box stands for what none has.
"""

import functools
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

BOX = "\u25a1"
# Characters that only change their neighbours: nothing stands for them.
SILENT = ("Cf", "Mn", "Me", "Cc")
# Tables of fonts that can be drawn at any size.
OUTLINES = ("glyf", "CFF ", "CFF2")
# First word of a letter's name -> Debian's package of a font with it; else `OTHERS`.
PACKAGES = dict.fromkeys(
    ("CJK", "HANGUL", "HIRAGANA", "KATAKANA", "BOPOMOFO", "IDEOGRAPHIC"), "fonts-noto-cjk"
)
OTHERS, SYMBOLS = "fonts-noto-core", "fonts-symbola"
_told: set[str] = set()


@functools.cache
def default() -> Path:
    """The font that is always there."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@functools.cache
def letters(font: Path) -> frozenset[int]:
    """Code points that a font draws at any size; none of a font that cannot be read."""
    from fontTools.ttLib import TTFont

    try:
        with TTFont(font, fontNumber=0, lazy=True) as found:
            drawn = any(table in found for table in OUTLINES)
            return frozenset(found.getBestCmap() or ()) if drawn else frozenset()
    except Exception:  # malformed fonts raise nearly anything
        return frozenset()


@functools.cache
def with_letter(letter: str) -> Path | None:
    """A font of this machine that has a letter; the plainest of several."""
    found = (font for font in _candidates(letter) if ord(letter) in letters(font))
    return next(found, None)


def _candidates(letter: str) -> list[Path]:
    """Fonts that may have a letter, plain ones first."""
    tool = shutil.which("fc-list")
    if tool:
        asked = [tool, f":charset={ord(letter):x}", "file"]
        said = subprocess.run(asked, capture_output=True, text=True, errors="replace", check=False)
        names = [line.rstrip().removesuffix(":") for line in said.stdout.splitlines()]
    else:
        names = _installed()
    regular = [("Regular" not in name, "Noto" not in name, name) for name in names]
    return [Path(name) for *_, name in sorted(regular)]


@functools.cache
def _installed() -> tuple[str, ...]:
    from matplotlib import font_manager

    return tuple(font_manager.findSystemFonts())


def fitted(texts: Iterable[str]) -> tuple[list[str], list[Path]]:
    """What can be drawn of texts, and with what.

    Letters that no font has are told once for each script, with the package that brings them.

    Returns:
      (the texts, a box in place of each letter that no font has; the fonts that are needed, in the
      order in which a letter is looked for in them, `default` first).
    """
    texts, fonts, missing = list(texts), [default()], set()
    for letter in sorted(set("".join(texts))):
        if letter.isspace() or any(ord(letter) in letters(font) for font in fonts):
            continue
        found = None if unicodedata.category(letter) in SILENT else with_letter(letter)
        if found is None:
            missing.add(letter)
        else:
            fonts.append(found)
    shown = {
        ord(letter): None if unicodedata.category(letter) in SILENT else BOX for letter in missing
    }
    _tell(letter for letter in missing if shown[ord(letter)])
    return [text.translate(shown) for text in texts], fonts


def _tell(missing: Iterable[str]) -> None:
    """Says which scripts have no font here, each once."""
    scripts: dict[str, str] = {}
    for letter in sorted(missing):
        script, package = _script(letter)
        if script not in _told:
            scripts.setdefault(script, package)
    if scripts:
        _told.update(scripts)
        wanted = " ".join(dict.fromkeys(scripts.values()))
        print(
            f"pictures with captions: no font here has letters of {', '.join(scripts)}, and boxes "
            f"stand for them; install one (Debian: apt install {wanted})",
            file=sys.stderr,
            flush=True,
        )


def _script(letter: str) -> tuple[str, str]:
    """(script of a letter, Debian's package of a font with it)."""
    if unicodedata.category(letter).startswith(("S", "C")):
        return "emoji and symbols", SYMBOLS
    word = unicodedata.name(letter, "UNKNOWN").split()[0]
    return word.capitalize() if word != "CJK" else word, PACKAGES.get(word, OTHERS)


def is_wide(text: str) -> bool:
    """Whether letters of a text are as wide as they are high."""
    return any(unicodedata.east_asian_width(letter) in "WF" for letter in text)


def runs(text: str, fonts: Sequence[frozenset[int]]) -> list[tuple[int, str]]:
    """A text in pieces of one font each: the first that has a letter, or the one before a space.

    Args:
      text: what `fitted` returned.
      fonts: the letters of each font.

    Returns:
      [(number of the font, piece)].
    """
    pieces: list[tuple[int, str]] = []
    for letter in text:
        able = [i for i, known in enumerate(fonts) if ord(letter) in known]
        last = pieces[-1][0] if pieces else 0
        font = last if not able or (last in able and not letter.isalpha()) else able[0]
        if pieces and font == last:
            pieces[-1] = font, pieces[-1][1] + letter
        else:
            pieces.append((font, letter))
    return pieces
