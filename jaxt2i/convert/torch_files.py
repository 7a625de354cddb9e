"""Reads state dicts from .safetensors, .npz and PyTorch's own files, without running their code.

A PyTorch file is a pickle, and a pickle is a program. Two defences: every name a pickle refers to
is compared with a short list before anything is executed, and the file is then read by an
unpickler of our own that knows only tensors, so it does not even need torch.
"""

import collections
import dataclasses
import io
import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath
from safetensors.numpy import load_file

from jaxt2i import places
from jaxt2i.convert import nature, stand_ins, unpickle
from jaxt2i.convert.unpickle import UnreadableFileError, UnsafeFileError

# Errors of files that are not read.
UNREADABLE = (UnreadableFileError, UnsafeFileError)
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
    "ComplexFloatStorage": np.complex64,
    "ComplexDoubleStorage": np.complex128,
}
# Keys under which training scripts keep optimisers, whatever is in them.
OPTIMISERS = re.compile(r"(?i)optim")
# Where a training script's file keeps its weights.
NESTED = ("state_dict", "model", "model_state_dict", "net")
EXPORT = (
    "Export the weights in the environment that wrote the file, where its code is trusted:\n"
    "    from safetensors.torch import save_file\n"
    "    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, 'net.safetensors')"
)


@dataclasses.dataclass(frozen=True)
class Found:
    """The tensors of a file.

    Attributes:
      tensors: {key: array} of the weights; half precision comes as float32.
      wrapper: what was taken off the front of their keys: "model." where the file keeps them in a
        dictionary of that name; "" where nothing was.
      aside: {key: array} of what lies beside that dictionary, such as "ema.netG.weight".
      optimiser: keys of the optimisers' state, which serves no network.
    """

    tensors: dict[str, np.ndarray]
    wrapper: str = ""
    aside: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    optimiser: tuple[str, ...] = ()


def read(path: epath.PathLike) -> dict[str, np.ndarray]:
    """The weights of a file: `read_all` without what lies beside them."""
    return read_all(path).tensors


def read_all(path: epath.PathLike) -> Found:
    """Every tensor of a file.

    Args:
      path: .safetensors, .npz, or PyTorch's .pth, .pt, .bin, .ckpt.

    Returns:
      The tensors. Keys of nested dictionaries and lists are joined by "."; what wraps the weights
      ("state_dict", "model", "net") is taken off.

    Raises:
      UnsafeFileError: for a pickle that refers to anything but tensors; nothing of it was run.
      UnreadableFileError: for other formats and damaged files; says what the file is.
    """
    path = epath.Path(path)
    if path.is_dir():
        raise UnreadableFileError(f"{path}: a folder; give the file with the weights")
    if not path.is_file():
        raise UnreadableFileError(f"{path}: no such file")
    if what := nature.cut_off(path, _is_zip):
        raise UnreadableFileError(f"{path}: {what}")
    if what := nature.strange(path):
        raise UnreadableFileError(
            f"{path}: neither .safetensors, .npz nor a PyTorch file, but {what}"
        )
    found = _sorted_out(_content(path))
    if not found.tensors:
        raise UnreadableFileError(f"{path}: holds no tensors. {EXPORT}")
    return found


def _content(path: epath.Path) -> Any:
    """What a file holds; of files whose name is wrong the content decides."""
    if path.suffix == ".safetensors" or nature.safetensors_size(path):
        try:
            return load_file(places.here(path))
        except Exception as error:  # safetensors has an exception type outside any family
            raise UnreadableFileError(
                f"{path}: not safetensors ({error}); {nature.AGAIN}"
            ) from error
    if path.suffix == ".npz" or _is_npz(path):
        if not _is_zip(path):
            raise UnreadableFileError(
                f"{path}: not a readable .npz, which is a zip archive; {nature.AGAIN}"
            )
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                return dict(arrays)
        except (ValueError, OSError, EOFError, AttributeError, *BROKEN_ZIP) as error:
            # NumPy's own text would advise to execute what the file holds.
            said = "it holds pickled objects" if "allow_pickle" in str(error) else str(error)
            raise UnreadableFileError(f"{path}: not a readable .npz ({said})") from error
    if not _is_zip(path):
        return _read_legacy(path)
    try:
        return _read_zip(path)
    except BROKEN_ZIP as error:
        raise UnreadableFileError(f"{path}: damaged, {error}; download it again") from error


# What reading a damaged or encrypted zip may raise.
BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, RuntimeError)


def _is_npz(path: epath.Path) -> bool:
    if not _is_zip(path):
        return False
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            names = archive.namelist()
    except BROKEN_ZIP:
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def _is_zip(path: epath.Path) -> bool:
    with path.open("rb") as stream:
        return zipfile.is_zipfile(stream)


def widen(x: np.ndarray) -> np.ndarray:
    """Half precision as float32; everything else as it is."""
    return x.astype(np.float32) if x.dtype in (np.float16, ml_dtypes.bfloat16) else x


def _sorted_out(found: Any) -> Found:
    """Weights, what lies beside them, and the state of optimisers."""
    wrapper, aside, optimiser = "", {}, []

    def named(value: Any, prefix: str) -> dict[str, np.ndarray]:
        return {key: widen(x) for key, x in _tensors(value, prefix, optimiser)}

    while isinstance(found, Mapping):
        inner = [k for k in NESTED if isinstance(found.get(k), Mapping) and not _optimises(found)]
        beside = {k: x for k, x in found.items() if k not in inner}
        if len(inner) != 1 or any(map(_weighs, beside.values())):
            break
        for key, value in beside.items():
            aside |= named(value, f"{wrapper}{key}")
        wrapper, found = f"{wrapper}{inner[0]}.", found[inner[0]]
    return Found(named(found, ""), wrapper, aside, tuple(optimiser))


def _bare(value: Any) -> Any:
    return value.data if isinstance(value, (_Parameter, stand_ins.Array)) else value


def _weighs(value: Any) -> bool:
    """Whether it may be weights: a count of steps or the state of a random generator is not."""
    value = _bare(value)
    return isinstance(value, np.ndarray) and value.size > 1 and value.dtype.kind not in "iub"


def _optimises(found: Mapping) -> bool:
    """Whether this is what torch.optim's optimisers store."""
    return {"state", "param_groups"} <= found.keys()


def _tensors(found: Any, prefix: str, optimiser: list[str]) -> Iterable[tuple[str, np.ndarray]]:
    """Named arrays of nested dictionaries and lists; keys of optimisers' state go to a list."""
    found = _bare(found)
    if isinstance(found, np.ndarray):
        yield prefix, found
    elif isinstance(found, Mapping) and _optimises(found):
        optimiser += [key for key, _ in _tensors(dict(found).values(), prefix, [])]
    elif isinstance(found, (Mapping, list, tuple, type({}.values()))):
        pairs = found.items() if isinstance(found, Mapping) else enumerate(found)
        for name, value in pairs:
            place = f"{prefix}.{name}" if prefix else str(name)
            if OPTIMISERS.match(str(name)) and not isinstance(_bare(value), np.ndarray):
                optimiser += [key for key, _ in _tensors(value, place, [])]
            else:
                yield from _tensors(value, place, optimiser)


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


# What a pickle of tensors and plain settings refers to, and what is made of it here.
KNOWN: dict[str, Any] = {
    "collections OrderedDict": collections.OrderedDict,
    "torch._utils _rebuild_tensor": _rebuild_tensor,  # before 0.4, as torchvision's VGG16 of 2017
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils _rebuild_parameter": lambda data, *_: data,
    "torch.nn.parameter Parameter": _Parameter,
    "torch Size": tuple,
    "torch device": stand_ins.Setting,
    "torch.serialization _get_layout": stand_ins.Setting,
    **{f"torch {name}": kind for name, kind in STORAGES.items()},
    **stand_ins.KNOWN,
}
# The same, making no tensor: to meet every storage that a pickle refers to.
SCOUTS = {
    name: stand_ins.Setting if made is _rebuild_tensor else made for name, made in KNOWN.items()
}


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
            return unpickle.load(data, KNOWN, persistent=storage)
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
            f"{path}: neither .safetensors, .npz nor a PyTorch file (it begins with "
            f"{data[:8]!r}); download the file itself again"
        )
    _refuse_code(path, data)
    try:
        return _legacy(data)
    except UnsafeFileError as error:
        raise UnsafeFileError(f"{path}: {error}. {EXPORT}") from None
    except unpickle.DAMAGED as error:
        raise UnreadableFileError(
            f"{path}: damaged (half a download?), or of a PyTorch from before 0.4 ({error}). "
            f"{EXPORT}"
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
        persistent=lambda pid: kinds.setdefault(*_stored(pid)),
    )
    storages, at = {}, stream.tell()
    for key in unpickle.load(names, {}):
        # A storage is its number of entries, then the entries.
        count, kind = int.from_bytes(data[at : at + 8], "little"), np.dtype(kinds[key])
        storages[key] = np.frombuffer(data, kind, count, at + 8)
        at += 8 + count * kind.itemsize
    return unpickle.load(program, KNOWN, persistent=lambda pid: storages[_stored(pid)[0]])
