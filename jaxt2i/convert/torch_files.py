"""Reads state dicts from .safetensors, .npz and PyTorch's own files, without running their code.

A PyTorch file is a pickle, and a pickle is a program. Two defences: every name a pickle refers to
is compared with a short list before anything is executed, and the file is then read by an
unpickler of our own that knows only tensors, so it does not even need torch.
"""

import collections
import io
import pickletools
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath
from safetensors.numpy import load_file

from jaxt2i.convert import unpickle
from jaxt2i.convert.unpickle import UnreadableFileError, UnsafeFileError

STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# Where a training script's file keeps its weights.
NESTED = ("state_dict", "model", "model_state_dict", "net")
EXPORT = (
    "Export the weights in the environment that wrote the file, where its code is trusted:\n"
    "    from safetensors.torch import save_file\n"
    "    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, 'net.safetensors')"
)


def read(path: epath.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a file.

    Args:
      path: .safetensors, .npz, or PyTorch's .pth, .pt, .bin, .ckpt.

    Returns:
      {key: array}; half precision comes as float32. Keys of nested dictionaries are joined by
      "."; what wraps the tensors ("state_dict", "model", "net") is taken off.

    Raises:
      UnsafeFileError: for a pickle that refers to anything but tensors; nothing of it was run.
      UnreadableFileError: for other formats and damaged files.
    """
    path = epath.Path(path)
    if not path.is_file():
        raise UnreadableFileError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        try:
            found: Any = load_file(path)
        except Exception as error:  # safetensors has an exception type outside any family
            raise UnreadableFileError(f"{path}: not safetensors ({error})") from error
    elif path.suffix == ".npz":
        try:
            with path.open("rb") as stream, np.load(stream) as arrays:
                found = dict(arrays)
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise UnreadableFileError(f"{path}: not a readable .npz ({error})") from error
    elif _is_zip(path):
        found = _read_zip(path)
    else:
        found = _read_legacy(path)
    out = {key: widen(x) for key, x in _tensors(found)}
    if not out:
        raise UnreadableFileError(f"{path}: holds no tensors. {EXPORT}")
    return out


def _is_zip(path: epath.Path) -> bool:
    with path.open("rb") as stream:
        return zipfile.is_zipfile(stream)


def widen(x: np.ndarray) -> np.ndarray:
    """Half precision as float32; everything else as it is."""
    return x.astype(np.float32) if x.dtype in (np.float16, ml_dtypes.bfloat16) else x


def _tensors(found: Any) -> Iterable[tuple[str, np.ndarray]]:
    """Named arrays of a nested dictionary."""
    while isinstance(found, Mapping):
        inner = [found[k] for k in NESTED if isinstance(found.get(k), Mapping)]
        if len(inner) != 1 or any(isinstance(x, np.ndarray | _Parameter) for x in found.values()):
            break
        found = inner[0]
    if isinstance(found, Mapping):
        for name, value in found.items():
            value = value.data if isinstance(value, _Parameter) else value
            if isinstance(value, np.ndarray):
                yield str(name), value
            else:
                yield from ((f"{name}.{key}", x) for key, x in _tensors(value))


# --- Pickles -----------------------------------------------------------------------------------


def _refuse_code(path: epath.Path, data: bytes) -> None:
    strange = sorted(n.replace(" ", ".") for n in unpickle.names_in(data) - KNOWN.keys())
    if strange:
        raise UnsafeFileError(
            f"{path}: this pickle asks for {', '.join(strange[:6])}. Loading it would run code of "
            "the file's author (whole networks that were pickled, as StyleGAN-T's snapshots are, "
            f"and malicious files look alike), so nothing of it was loaded. {EXPORT}"
        )


def _rebuild_tensor(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_) -> np.ndarray:
    need = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) + 1
    if 0 not in size and (need > len(storage) or min((offset, *stride)) < 0):
        raise UnreadableFileError(f"a tensor of shape {list(size)} reaches beyond its storage")
    steps = tuple(s * storage.itemsize for s in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps).copy()


class _Parameter:
    """A tensor that is trained, as PyTorch pickled it before 0.4."""

    def __init__(self, data: Any = None, *_):
        self.data = data

    def __new__(cls, *args):
        made = super().__new__(cls)
        made.__init__(*args)  # the pickle's NEWOBJ does not
        return made

    def __setstate__(self, state: tuple):
        # (data, gradient, hooks, requires_grad, volatile), or the last three where data is given.
        self.data = state[0] if len(state) == 5 else self.data


def _plain(*parts: Any) -> str:
    """Stands in for settings (devices, dtypes, numpy scalars) that no weight depends on."""
    return repr(parts)


# What a pickle of tensors and plain settings refers to, and what is made of it here.
KNOWN: dict[str, Any] = {
    "collections OrderedDict": collections.OrderedDict,
    "torch._utils _rebuild_tensor": _rebuild_tensor,  # before 0.4, as torchvision's VGG16 of 2017
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils _rebuild_parameter": lambda data, *_: data,
    "torch.nn.parameter Parameter": _Parameter,
    "torch Size": tuple,
    "torch device": _plain,
    "torch.serialization _get_layout": _plain,
    "numpy dtype": _plain,
    "numpy.core.multiarray scalar": _plain,
    "numpy._core.multiarray scalar": _plain,
    "_codecs encode": _plain,
    **{f"torch {name}": kind for name, kind in STORAGES.items()},
    **{f"torch {name}": _plain for name in ("float32", "float16", "bfloat16", "int64")},
}
# The same, making no tensor: to meet every storage that a pickle refers to.
SCOUTS = {name: _plain if made is _rebuild_tensor else made for name, made in KNOWN.items()}


def _stored(pid: tuple) -> tuple[str, type]:
    """(key, kind) of the storage that a pickle refers to."""
    kind, dtype, key, _, _, *part = pid
    if kind != "storage":
        raise UnreadableFileError(f"the pickle refers to a {kind!r}, only storages are known")
    if part and part[0] is not None:
        raise UnreadableFileError(f"storage {key!r} is part of another one. {EXPORT}")
    return key, dtype


def _read_zip(path: epath.Path) -> Any:
    """torch.save's format since 1.6: a zip with data.pkl and one file per storage."""
    with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
        members = archive.namelist()
        program = next((m for m in members if m.endswith("/data.pkl") or m == "data.pkl"), None)
        root = program.removesuffix("data.pkl") if program else ""
        if program is None or f"{root}constants.pkl" in members:
            what = "a TorchScript archive (a program)" if program else "a zip without data.pkl"
            raise UnsafeFileError(
                f"{path}: is {what}, not a state dict. OpenAI's CLIP downloads are of this kind: "
                f"take the same weights from {HUB_HINT}, or: {EXPORT}"
            )
        if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
            raise UnreadableFileError(f"{path}: was written on a big-endian machine")
        data = archive.read(program)
        _refuse_code(path, data)

        def storage(pid: tuple) -> np.ndarray:
            key, dtype = _stored(pid)
            return np.frombuffer(archive.read(f"{root}data/{key}"), np.dtype(dtype))

        try:
            return unpickle.load(data, KNOWN, encoding="utf-8", persistent=storage)
        except (UnreadableFileError, zipfile.BadZipFile) as error:
            raise UnreadableFileError(f"{path}: damaged, {error}") from error
        except UnsafeFileError as error:
            raise UnsafeFileError(f"{path}: {error}. {EXPORT}") from None


HUB_HINT = "https://huggingface.co/openai (model.safetensors)"


MAGIC = 0x1950A86A20F9469CFC6C


def _read_legacy(path: epath.Path) -> Any:
    """torch.save's format before 1.6: five pickles, then the storages as raw bytes."""
    data = path.read_bytes()
    if not data.startswith(b"\x80"):
        raise UnreadableFileError(
            f"{path}: neither .safetensors, .npz nor a PyTorch file; is it a web page or a Git "
            "LFS pointer that was saved in place of the file?"
        )
    _refuse_code(path, data)
    try:
        return _legacy(data)
    except UnsafeFileError as error:
        raise UnsafeFileError(f"{path}: {error}. {EXPORT}") from None
    except unpickle.DAMAGED as error:
        raise UnreadableFileError(
            f"{path}: damaged, or of a PyTorch from before 0.4 ({error}). {EXPORT}"
        ) from error


def _legacy(data: bytes) -> Any:
    stream = io.BytesIO(data)

    def one() -> bytes:
        start = stream.tell()
        collections.deque(pickletools.genops(stream), maxlen=0)
        return data[start : stream.tell()]

    magic, _, _, program, names = (one() for _ in range(5))
    if unpickle.load(magic, {}) != MAGIC:
        raise ValueError("it does not begin as torch.save's files do")
    kinds: dict[str, type] = {}
    unpickle.load(
        program,
        SCOUTS,
        encoding="utf-8",
        persistent=lambda pid: kinds.setdefault(*_stored(pid)),
    )
    storages, at = {}, stream.tell()
    for key in unpickle.load(names, {}, encoding="utf-8"):
        # A storage is its number of entries, then the entries.
        count, kind = int.from_bytes(data[at : at + 8], "little"), np.dtype(kinds[key])
        storages[key] = np.frombuffer(data, kind, count, at + 8)
        at += 8 + count * kind.itemsize
    return unpickle.load(
        program, KNOWN, encoding="utf-8", persistent=lambda pid: storages[_stored(pid)[0]]
    )
