"""Damage to valid files, and what must hold of whoever reads them afterwards.

Everything follows from a seed: a failure is named by its case and seed, and comes back with them.
"""

import codecs
import contextlib
import dataclasses
import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxt2i.convert.rules import ConversionError
from jaxt2i.convert.unpickle import UnreadableFileError, UnsafeFileError
from jaxt2i.data.sources.base import clean_caption
from jaxt2i.metrics.score import MetricError, StatisticsError
from jaxt2i.run import open as runs
from jaxt2i.run import trouble

# How a reader may refuse: with what command lines turn into one sentence.
REFUSALS = (
    *(ConversionError, UnreadableFileError, UnsafeFileError, MetricError, StatisticsError),
    *(*runs.USER_ERRORS, *trouble.ERRORS),
)
# A reader that takes longer hangs, seconds.
PATIENCE = 30
# Longest refusal, lines and characters.
LINES, LETTERS = 6, 2000
# What may stand where a text or a number is expected.
VALUES = (
    *(b"NaN", b"null", b"-1", b"1e400", b"1" * 40, b"[]", b"{}", b'["a", 1]', b"true", b'""'),
    *(b"Infinity", b'"\\ud800"', b'" "', b"[" * 3000, b'"../../a"', b"\xc3\x28", b"0.5"),
)
PIECES = (
    b"\0",
    b"\0" * 64,
    codecs.BOM_UTF8,
    codecs.BOM_UTF16_LE,
    b"\r",
    b"\r\n",
    b'"',
    b",",
    b"\xff",
)
ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp932", "utf-8-sig")
SIZES = (b"\xff" * 4, b"\xff\xff\xff\x7f", b"\xff" * 8, b"\0" * 4, b"\0\0\1\0" * 2, b"777777777777")


@dataclasses.dataclass
class Outcome:
    """What a reader made of a folder.

    Attributes:
      used: {name of an example: what was read of it}; captions are texts, pictures digests.
      counted: examples that were left out with a reason.
    """

    used: dict[str, Any]
    counted: int = 0


@dataclasses.dataclass(frozen=True)
class Case:
    """A reader and what it reads.

    Attributes:
      name: of the case.
      count: how many damaged folders CI tries.
      write: writes a valid folder.
      read: folder -> `Outcome`; raises one of `REFUSALS`.
      own: whether a value may follow the damage of a file (its name, the name of the example).
      strict: what is lost must be counted, and what is used must stand in a file.
      hidden: endings of files that are never damaged.
      packed: many examples lie in one file, of which nobody knows how many a damaged one held.
    """

    name: str
    count: int
    write: Callable[[Path], None]
    read: Callable[[Path], Outcome]
    own: Callable[[str, str], bool] = lambda file, example: True
    strict: bool = True
    hidden: tuple[str, ...] = ()
    packed: bool = False


# --- Damage ------------------------------------------------------------------------------------


def flipped(content: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice([1, 1, 3, 30])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def swapped(content: bytearray, rng: random.Random) -> bytes:
    a, b, n = rng.randrange(len(content)), rng.randrange(len(content)), rng.choice([1, 4, 32])
    first, second = content[a : a + n], content[b : b + n]
    content[a : a + n], content[b : b + n] = second[: len(first)], first[: len(second)]
    return bytes(content)


def cut_off(content: bytearray, rng: random.Random) -> bytes:
    return bytes(content[: rng.randrange(len(content))])


def cut_out(content: bytearray, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return bytes(content[:at] + content[at + rng.choice([1, 7, 100]) :])


def inserted(content: bytearray, rng: random.Random) -> bytes:
    at = rng.choice([0, rng.randrange(len(content) + 1)])
    return bytes(content[:at] + rng.choice(PIECES) + content[at:])


def resized(content: bytearray, rng: random.Random) -> bytes:
    """A number that may be a size becomes another one."""
    piece = rng.choice(SIZES)
    at = rng.choice([rng.randrange(len(content)), rng.randrange(min(len(content), 200))])
    content[at : at + len(piece)] = piece
    return bytes(content)


def encoded(content: bytearray, rng: random.Random) -> bytes:
    text = bytes(content).decode("utf-8", "ignore")
    return text.encode(rng.choice(ENCODINGS), "ignore")


def lines_changed(content: bytearray, rng: random.Random) -> bytes:
    lines = bytes(content).splitlines(keepends=True)
    at = rng.randrange(len(lines))
    kind = rng.randrange(3)
    lines[at : at + 1] = ([lines[at]] * 2, [], [b"\n", lines[at][: len(lines[at]) // 2]])[kind]
    return b"".join(lines)


def retyped(content: bytearray, rng: random.Random) -> bytes:
    """A quoted text, a word or a number becomes something else."""
    found = list(re.finditer(rb'"[^"\n]{0,60}"|[\w.+-]+', bytes(content)))
    if not found:
        return inserted(content, rng)
    one = rng.choice(found)
    return bytes(content[: one.start()] + rng.choice(VALUES) + content[one.end() :])


DAMAGE = (
    *(flipped, swapped, cut_off, cut_out, inserted, resized, encoded, lines_changed, retyped),
    *(flipped, retyped, lambda content, rng: b""),
)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """One or two kinds of damage."""
    for _ in range(rng.choice([1, 1, 1, 2])):
        if content:
            content = rng.choice(DAMAGE)(bytearray(content), rng)
    return content


def damage(folder: Path, files: list[str], rng: random.Random) -> list[str]:
    """Damages a folder; returns the names of the files that changed."""
    name = rng.choice(files)
    place, kind = folder / name, rng.random()
    if kind < 0.03:
        place.unlink()
    elif kind < 0.06 and len(files) > 1:
        other = rng.choice([file for file in files if file != name])
        place.rename(folder / "aside")
        (folder / other).rename(place)
        (folder / "aside").rename(folder / other)
        return [name, other]
    elif kind < 0.09:
        other = place.with_name(rng.choice(["Ä " + place.name, place.name.upper(), "x"]))
        place.rename(other)
        return [name, str(other.relative_to(folder))]
    elif kind < 0.11:
        place.unlink()
        place.mkdir()
    elif kind < 0.13:
        place.unlink()
        place.symlink_to(place.name)
    else:
        place.write_bytes(damaged(place.read_bytes(), rng))
    return [name]


# --- What must hold ----------------------------------------------------------------------------


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Interrupts what takes longer."""

    def stop(*_):
        raise AssertionError(f"hangs for {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def stands(caption: str, contents: list[bytes]) -> bool:
    """Whether a caption stands in one of some files, in any encoding that a reader knows."""
    for content in contents:
        for encoding in ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32"):
            text = content.decode(encoding, "ignore")
            unquoted = text.replace('""', '"')
            escaped = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), text)
            unescaped = re.sub(r'\\([\\"/])', r"\1", re.sub(r"\\[nrtbf]", " ", escaped))
            if any(caption in clean_caption(t) for t in (text, unquoted, unescaped)):
                return True
    return False


def captions_of(value: Any) -> list[str]:
    """The texts in what was read of an example."""
    if isinstance(value, (tuple, list)):
        return [text for part in value for text in captions_of(part)]
    return [value] if isinstance(value, str) else []


def check(case: Case, whole: Outcome, folder: Path, changed: list[str]) -> str:
    """Reads a damaged folder; returns "refused", "all", "fewer" or "other".

    Raises:
      AssertionError: for anything but a refusal in a sentence, or an outcome by the rules.
    """
    try:
        with limited(PATIENCE):
            outcome = case.read(folder)
    except REFUSALS as error:
        refusal = str(trouble.line(error))
    else:
        refusal = None
    if refusal is not None:
        assert refusal.strip(), "a refusal says nothing"
        assert "Traceback" not in refusal
        assert len(refusal.splitlines()) <= LINES, refusal
        assert len(refusal) <= LETTERS, refusal
        return "refused"
    lost = [name for name in whole.used if name not in outcome.used]
    if not case.strict:
        return "fewer" if lost else "all"
    missing = len(whole.used) - len(outcome.used)
    assert outcome.counted >= min(missing, 1 if case.packed else missing), f"{lost} are not counted"
    contents = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    for name, value in outcome.used.items():
        if name in whole.used and value == whole.used[name]:
            continue
        assert any(case.own(file, name) for file in changed), f"{name} changed with {changed}"
        for caption in captions_of(value):
            assert stands(caption, contents), f"{caption!r} of {name} stands in no file"
    same = all(outcome.used.get(name) == value for name, value in whole.used.items())
    return "all" if same else "fewer" if lost else "other"


def prepared(case: Case, folder: Path) -> tuple[list[str], Outcome]:
    """Writes the valid folder of a case: (its files, what is read of them)."""
    folder.mkdir(parents=True)
    case.write(folder)
    whole = case.read(folder)
    assert whole.used, "nothing valid to begin with"
    assert not whole.counted, "all of it is usable to begin with"
    found = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())
    return [name for name in found if not name.endswith(case.hidden or ("\0",))], whole


def tried(case: Case, whole: Outcome, valid: Path, files: list[str], seed: int, place: Path) -> str:
    """One damaged copy of a valid folder, checked; its place is free afterwards."""
    rng = random.Random(f"{case.name} {seed}")
    shutil.copytree(valid, place)
    try:
        changed = damage(place, files, rng)
        return check(case, whole, place, changed)
    except Exception as error:
        error.add_note(f"case {case.name!r}, seed {seed}: --fuzz-only {case.name}:{seed}")
        raise
    finally:
        shutil.rmtree(place)
