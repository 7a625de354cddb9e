"""What the head of a file says of its arrays, which are not read: cheap for any size."""

import zipfile

import numpy as np
from etils import epath
from safetensors import safe_open

from jaxt2i import places
from jaxt2i.convert import files

# Arrays of this type have a shape and no bytes.
NOTHING = np.dtype("V0")
NPY = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def of(path: epath.PathLike) -> dict[str, np.ndarray] | None:
    """{key: array of `NOTHING`} of a .safetensors or an .npz.

    Args:
      path: a file.

    Returns:
      None for files of other kinds, on stores, and those whose head is another than is known here.

    Raises:
      UnreadableFileError: for a damaged file.
    """
    path = epath.Path(path)
    kinds = {".safetensors": _safetensors, ".npz": _npz}
    if places.scheme_of(path) or not path.is_file() or path.suffix not in kinds:
        return None
    try:
        shapes = kinds[path.suffix](path)
    except Exception:
        files.read_all(path)  # says what is wrong
        return None
    return {key: np.empty(shape, NOTHING) for key, shape in shapes.items()}


def _safetensors(path: epath.Path) -> dict[str, tuple[int, ...]]:
    with safe_open(path, "np") as file:
        return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118


def _npz(path: epath.Path) -> dict[str, tuple[int, ...]]:
    out = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as stream:
                out[name.removesuffix(".npy")] = NPY[np.lib.format.read_magic(stream)](stream)[0]
    return out
