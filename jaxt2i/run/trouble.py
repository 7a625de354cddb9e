"""What the system refuses, such as a full disk or a file in another encoding, in one sentence."""

import contextlib
import errno
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from jaxt2i import places
from jaxt2i.places import STORES

# What a person can mend beyond the errors that name a setting.
ERRORS = (OSError, UnicodeError, OverflowError)
FULL = (errno.ENOSPC, errno.EDQUOT)
# What TensorStore says instead of an error number.
FULL_WORDS = ("No space left on device", "Disk quota exceeded")
READ_ONLY_WORDS = ("Read-only file system",)
# The libraries that reach stores, each with errors of its own.
REACH = {*STORES.values(), "aiohttp", "azure", "botocore", "fsspec", "google"}
# Letters that are told of what one of them says.
STORE_SAYS = 200


class Unwritable(OSError):
    """A run could not be written any further; the message is whole, and says what stays good."""


def chain(error: BaseException) -> list[BaseException]:
    """An error and what caused it, the outermost first."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        now = waiting.pop(0)
        if now is not None and now not in found:
            found.append(now)
            waiting += [now.__cause__, now.__context__, *getattr(now, "exceptions", ())]
    return found


def free(path: str | os.PathLike) -> str:
    """The free space where a path of this machine lies, or would lie, in words."""
    here = Path(path).absolute()
    there = next(p for p in (here, *here.parents) if p.exists())
    return f"{shutil.disk_usage(there).free / 2**20:,.1f} MiB free"


def said(error: BaseException, path: str | os.PathLike = "") -> str:
    """One sentence about an error of the system.

    Args:
      error: what was raised.
      path: where it was about to write, if the error itself does not say.
    """
    if isinstance(error, Unwritable):
        return str(error)
    for cause in chain(error):
        number, text = getattr(cause, "errno", None), str(cause)
        where = getattr(cause, "filename", None) or path
        if number in FULL or any(words in text for words in FULL_WORDS):
            room = f" ({free(where)})" if where and not places.scheme_of(where) else ""
            return f"{where or 'the disk'}: no space left on the device{room}; make room there"
        if number == errno.EROFS or any(words in text for words in READ_ONLY_WORDS):
            return f"{where or 'the place'}: a read-only file system; name a place to write to"
    if of_store(error):
        told = " ".join(str(error).split())[:STORE_SAYS]
        place = f"{path}: " if path else ""
        return f"{place}the store does not do what it is asked ({type(error).__name__}: {told})"
    if isinstance(error, UnicodeError):
        place = f"{path}: " if path else ""
        return f"{place}not readable as UTF-8 ({error}); save it as UTF-8"
    if isinstance(error, OSError) and error.strerror:
        where = error.filename or path
        return f"{where}: {error.strerror}" if where else str(error)
    return f"{path}: {error}" if path else str(error)


def line(error: BaseException) -> Any:
    """What to tell of an error: `said` of the system's, others as they are."""
    return said(error) if isinstance(error, ERRORS) else error


def full_or_closed(error: BaseException) -> bool:
    """Whether the cause of an error is a disk that is full or may not be written to."""
    return any(
        getattr(cause, "errno", None) in (*FULL, errno.EROFS)
        or any(words in str(cause) for words in (*FULL_WORDS, *READ_ONLY_WORDS))
        for cause in chain(error)
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether a device had no room for what it was to compute."""
    return "RESOURCE_EXHAUSTED" in str(error) and not full_or_closed(error)


def of_store(error: BaseException) -> bool:
    """Whether an error is what came, or did not come, from a store of objects."""
    return any(map(_through, chain(error)))


def _through(cause: BaseException) -> bool:
    """Whether an error was raised by what reaches stores, of whatever kind it is."""
    frames = traceback.walk_tb(cause.__traceback__)
    modules = {frame.f_globals.get("__name__", "") for frame, _ in frames}
    if {module.partition(".")[0] for module in modules | {type(cause).__module__}} & REACH:
        return True
    # TensorStore is no Python, and names the object.
    return type(cause) is ValueError and any(f"{scheme}://" in str(cause) for scheme in STORES)


def unwritable(error: BaseException, place: str | os.PathLike) -> bool:
    """Whether the cause of an error is that a place can be written to no longer."""
    return full_or_closed(error) or (bool(places.scheme_of(place)) and of_store(error))


@contextlib.contextmanager
def told_once() -> Iterator[None]:
    """Around a training: a full disk, or a store that fails, is told of by its error, not by every
    thread that meets it.

    Orbax logs a traceback from each of its threads, and Python one from each write that was begun.
    """

    def others(record: logging.LogRecord) -> bool:
        raised = record.exc_info[1] if record.exc_info else None
        return raised is None or not (full_or_closed(raised) or of_store(raised))

    def unraisable(found: Any) -> None:
        if not (isinstance(found.exc_value, RuntimeError) and "Event loop" in str(found.exc_value)):
            before(found)

    log, before = logging.getLogger("absl"), sys.unraisablehook
    log.addFilter(others)
    sys.unraisablehook = unraisable
    try:
        yield
    finally:
        log.removeFilter(others)
        sys.unraisablehook = before


def leave(error: BaseException) -> NoReturn:
    """Ends the program with one line, at once.

    What was half written leaves threads and coroutines behind, and Python would tell of each of
    them as it shuts down.
    """
    sys.stdout.flush()
    print(f"error: {line(error)}", file=sys.stderr, flush=True)
    os._exit(1)
