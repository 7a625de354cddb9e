"""What stands for the plain values that training scripts store beside their weights.

NumPy's arrays, numbers and dtypes, paths, settings of argparse: a pickle names functions to make
them. Here each name is something of our own that runs nothing of the file's.
"""

from typing import Any

import numpy as np


class Setting:
    """Takes the place of a value that no weight depends on, however a pickle builds it."""

    def __init__(self, *given: Any, **named: Any):
        self.given = given

    def __new__(cls, *given: Any, **named: Any):
        return super().__new__(cls)

    def __setstate__(self, state: Any):
        """Settings of a value, which nobody asks for."""

    def __setitem__(self, key: Any, value: Any):
        """Entries of a value that is a dictionary."""

    def append(self, value: Any) -> None:
        """Entries of a value that is a list."""

    def __hash__(self) -> int:
        return id(self)


class Dictionary(dict):
    """A dictionary of whatever class: the class goes, the entries stay."""

    def __init__(self, *_: Any):
        super().__init__()

    def __setstate__(self, state: Any):
        """Attributes beside the entries, which nobody asks for."""


class DType:
    """NumPy's dtype, of numbers; others have no `kind`."""

    def __init__(self, name: Any = "", *_: Any):
        text = name.decode("latin1") if isinstance(name, bytes) else str(name)
        try:
            found = np.dtype(text)
        except TypeError:
            found = np.dtype("V1")
        self.kind = found if found.kind in "biufc" else None

    def __setstate__(self, state: tuple):
        if self.kind is not None and len(state) > 1 and state[1] in (">", b">"):
            self.kind = self.kind.newbyteorder(">")


class Array(Setting):
    """NumPy's array while a pickle builds it."""

    data: np.ndarray | None = None

    def __setstate__(self, state: tuple):
        _, shape, dtype, by_columns, raw = state
        if isinstance(dtype, DType) and dtype.kind is not None:
            raw = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2's bytes
            flat = np.frombuffer(raw, dtype.kind)
            self.data = flat.reshape(shape, order="F" if by_columns else "C")


def from_buffer(raw: Any, dtype: Any, shape: tuple, order: str) -> Any:
    """NumPy's array, as pickles of protocol 5 have it."""
    made = Array()
    made.__setstate__((1, shape, dtype, order == "F", bytes(raw)))
    return made


def encoded(text: str, encoding: str = "latin1") -> bytes:
    """Bytes as pickles of protocol 2 have them.

    Raises:
      ValueError: for another encoding than they use.
    """
    if encoding not in ("latin1", "utf-8"):
        raise ValueError(f"bytes in the encoding {encoding!r}")
    return text.encode(encoding)


NUMPY_CORES = ("numpy.core", "numpy._core")
NUMBERS = (
    *("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16"),
    *("uint32", "uint64", "bool", "bool_", "complex64", "complex128"),
)
# Types of Python's own values, by the names of its versions 2 and 3.
PLAIN = (
    *("set", "frozenset", "slice", "range", "xrange", "complex", "int", "long", "float", "bool"),
    *("list", "tuple", "dict", "str", "unicode", "bytes", "bytearray", "object"),
)
KNOWN: dict[str, Any] = {
    "numpy dtype": DType,
    "numpy ndarray": Setting,
    **{f"{core}.multiarray scalar": Setting for core in NUMPY_CORES},
    **{f"{core}.multiarray _reconstruct": Array for core in NUMPY_CORES},
    **{f"{core}.numeric _frombuffer": from_buffer for core in NUMPY_CORES},
    "_codecs encode": encoded,
    **{f"numpy {name}": Setting for name in NUMBERS},
    **{f"torch {name}": Setting for name in (*NUMBERS, "bfloat16")},
    "argparse Namespace": Setting,
    **{f"pathlib {kind}": Setting for kind in ("PosixPath", "WindowsPath", "PurePosixPath")},
    "collections defaultdict": Dictionary,
    "collections deque": Setting,
    "datetime datetime": Setting,
    **{f"{module} {name}": Setting for module in ("builtins", "__builtin__") for name in PLAIN},
}
