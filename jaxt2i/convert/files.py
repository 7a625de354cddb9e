"""Reads the arrays of a file of any format that weights are published in."""

from collections.abc import Mapping

import numpy as np
from etils import epath

from jaxt2i.convert import nature, tensorflow_files, torch_files


def find(path: epath.PathLike) -> epath.Path | None:
    """The file that a path names, or the head of the TensorFlow checkpoint; None: neither."""
    path = epath.Path(path)
    return tensorflow_files.table_of(path) or (path if path.is_file() else None)


def read(path: epath.PathLike) -> dict[str, np.ndarray]:
    """The weights of a file: `read_all` without what lies beside them."""
    return read_all(path).tensors


def read_all(path: epath.PathLike) -> torch_files.Found:
    """Every array of a file.

    Args:
      path: what `torch_files.read_all` takes, a TensorFlow checkpoint (model.ckpt, or any of its
        files), or Keras' .h5.

    Returns:
      The arrays, names as in the file.

    Raises:
      UnsafeFileError: for a pickle that refers to anything but tensors; nothing of it was run.
      UnreadableFileError: for other formats and damaged files.
    """
    table = tensorflow_files.table_of(path)
    if table:
        return torch_files.Found(tensorflow_files.read_checkpoint(table))
    path = epath.Path(path)
    if path.is_file() and (path.suffix == ".h5" or nature.head_of(path).startswith(nature.HDF5)):
        if what := nature.strange(path):
            raise torch_files.UnreadableFileError(f"{path}: not a readable .h5, but {what}")
        return torch_files.Found(tensorflow_files.read_keras(path))
    return torch_files.read_all(path)


# Files of one network in a folder, the first that is there is read.
WEIGHTS = tuple(
    f"{stem}{end}"
    for end in (".safetensors", ".bin", ".fp16.safetensors", ".fp16.bin")
    for stem in ("diffusion_pytorch_model", "model", "pytorch_model")
)


def parts(path: epath.PathLike, folders: Mapping[str, str]) -> dict[str, epath.Path]:
    """{network: its file} of a folder with a folder for each network, as diffusers writes them.

    Args:
      path: the folder; anything else has no parts.
      folders: {network: name of its folder}.
    """
    path = epath.Path(path)
    found = {
        net: next((path / sub / name for name in WEIGHTS if (path / sub / name).is_file()), None)
        for net, sub in folders.items()
    }
    return {net: file for net, file in found.items() if file}


def read_parts(found: Mapping[str, epath.Path]) -> torch_files.Found:
    """The arrays of several files, each behind the name of its folder and a dot."""
    tensors = {
        f"{file.parent.name}.{key}": x for file in found.values() for key, x in read(file).items()
    }
    return torch_files.Found(tensors)
