"""Reads pickles without running them: a pickle is a program, and here it finds no functions.

Whatever a pickle refers to by name is looked up in a table that the caller gives, and nowhere else.
"""

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

# What a pickle that was cut off or made up ends in.
DAMAGED = (
    *(pickle.UnpicklingError, EOFError, LookupError, TypeError, AttributeError, ValueError),
    *(OverflowError, MemoryError),
)


class UnsafeFileError(ValueError):
    """A file holds code, or objects that only code could make."""


class UnreadableFileError(ValueError):
    """A file is of no format that is known here, or is damaged."""


def load(
    stream: BinaryIO | bytes,
    known: Mapping[str, Any],
    *,
    encoding: str = "latin1",
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """What a pickle holds: containers, numbers, strings, and what the table knows.

    Args:
      stream: a file at the pickle's beginning, or its bytes.
      known: {"module name": what stands for it}; it is called as the pickle says. Empty: plain
        values alone.
      encoding: of Python 2's strings.
      persistent: what the pickle refers to outside of itself; None: nothing.

    Raises:
      UnsafeFileError: names what it asks for beyond the table; nothing of that was run.
      UnreadableFileError: where it is cut off or no pickle at all.
    """
    stream = io.BytesIO(stream) if isinstance(stream, bytes) else stream
    try:
        return _Unpickler(stream, known, encoding, persistent).load()
    except (UnsafeFileError, UnreadableFileError):
        raise
    except DAMAGED as error:
        raise UnreadableFileError(f"not a readable pickle ({error})") from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream, known, encoding, persistent):
        super().__init__(stream, encoding=encoding)
        self._known, self._persistent = known, persistent

    def find_class(self, module: str, name: str) -> Any:
        if f"{module} {name}" not in self._known:
            raise UnsafeFileError(
                f"the pickle asks for {module}.{name}, which is refused without running it"
            )
        return self._known[f"{module} {name}"]

    def persistent_load(self, pid: Any) -> Any:
        if self._persistent is None:
            raise UnsafeFileError("the pickle refers to something outside of itself")
        return self._persistent(pid)


def names_in(data: bytes) -> set[str]:
    """Everything a pickle would look up, as "module name", without running it.

    `load` refuses by itself; this says all of it at once, before the first byte is read.

    Args:
      data: one or several pickles, one after the other, and perhaps other bytes behind them.
    """
    stream, out = io.BytesIO(data), set()
    while stream.tell() < len(data):
        try:
            out |= _names(stream)
        except ValueError:  # what follows is no pickle
            break
    return out


def _names(stream: io.BytesIO) -> set[str]:
    out: set[str] = set()
    strings: list[str] = []
    memo: dict[int, str] = {}
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name in ("GLOBAL", "INST"):
            out.add(argument)
        elif name == "STACK_GLOBAL":
            # Both parts are the last two strings; one that was built otherwise fails the list.
            out.add(" ".join(strings[-2:]) if len(strings) > 1 else "a name built at run time")
        elif name.startswith("EXT"):
            out.add(f"extension {argument}")
        elif isinstance(argument, str) and "UNICODE" in name:
            strings.append(argument)
        elif name == "MEMOIZE":
            memo[len(memo)] = strings[-1] if strings else ""
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[argument] = strings[-1] if strings else ""
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            strings.append(memo.get(argument, ""))
    return out
