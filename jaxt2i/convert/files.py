"""Reads the arrays of a file of any format that weights are published in."""

from pathlib import Path

import numpy as np

from jaxt2i.convert import tensorflow_files, torch_files


def find(path: str | Path) -> Path | None:
    """The file that a path names, or the head of the TensorFlow checkpoint; None: neither."""
    return tensorflow_files.table_of(path) or (Path(path) if Path(path).is_file() else None)


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file.

    Args:
      path: what `torch_files.read` takes, a TensorFlow checkpoint (model.ckpt, or any of its
        files), or Keras' .h5.

    Returns:
      {name: array}, names as in the file.

    Raises:
      UnsafeFileError: for a pickle that refers to anything but tensors; nothing of it was run.
      UnreadableFileError: for other formats and damaged files.
    """
    table = tensorflow_files.table_of(path)
    if table:
        return tensorflow_files.read_checkpoint(table)
    if Path(path).suffix == ".h5" and Path(path).is_file():
        return tensorflow_files.read_keras(Path(path))
    return torch_files.read(path)
