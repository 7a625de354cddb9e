"""Pickles of plain values, numpy's numbers among them, read without running any code."""

from typing import Any

import numpy as np
from etils import epath

from jaxt2i.convert import stand_ins, unpickle
from jaxt2i.convert.unpickle import UnreadableFileError, UnsafeFileError


def _scalar(dtype: stand_ins.DType, raw: bytes | str) -> stand_ins.Array:
    """A number as numpy pickles it."""
    return stand_ins.from_buffer(
        raw.encode("latin1") if isinstance(raw, str) else raw, dtype, (), "C"
    )


KNOWN: dict[str, Any] = {
    **{
        name: value
        for name, value in stand_ins.KNOWN.items()
        if name == "_codecs encode" or name.split(" ")[1] in ("dtype", "ndarray", "_frombuffer")
    },
    **{f"{core}.multiarray _reconstruct": stand_ins.Array for core in stand_ins.NUMPY_CORES},
    **{f"{core}.multiarray scalar": _scalar for core in stand_ins.NUMPY_CORES},
}


def read(path: epath.PathLike) -> Any:
    """What a pickle holds: containers, strings and numbers; numpy's arrays as lists or numbers.

    Raises:
      UnsafeFileError: for one that asks for anything else; nothing of it was run.
      UnreadableFileError: for a damaged file, or one that is no pickle.
    """
    path = epath.Path(path)
    try:
        return _plain(unpickle.load(path.read_bytes(), KNOWN))
    except (UnsafeFileError, UnreadableFileError) as error:
        raise type(error)(f"{path}: {error}") from error
    except OSError as error:
        raise UnreadableFileError(f"{path}: {error.strerror or error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, stand_ins.Array):
        if not isinstance(value.data, np.ndarray):
            raise UnreadableFileError("it holds an array of something else than numbers")
        return value.data.tolist()
    if isinstance(value, dict):
        return {_plain(k): _plain(x) for k, x in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return value
