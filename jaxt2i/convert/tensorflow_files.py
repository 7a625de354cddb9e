"""Reads the arrays of TensorFlow checkpoints and of Keras' .h5, without running anything of them.

A checkpoint is one file up to TensorFlow 0.11 (model.ckpt), and an index with its data since then
(model.ckpt.index, model.ckpt.data-00000-of-00001). The first kind is compressed, and TensorFlow
itself reads both; it is imported when a checkpoint is.
"""

import re
from pathlib import Path

import numpy as np

from jaxt2i.convert.torch_files import UnreadableFileError

# What both a checkpoint of one file and an index end with: they are tables of LevelDB.
MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
PART = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")


def table_of(path: str | Path) -> Path | None:
    """The file at the head of a checkpoint; None where there is none.

    Args:
      path: what TensorFlow calls the checkpoint (model.ckpt), or any file of it.
    """
    prefix = PART.sub("", str(path))
    for file in (Path(f"{prefix}.index"), Path(prefix)):
        if file.is_file() and _end(file) == MAGIC:
            return file
    return None


def _end(file: Path) -> bytes:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - len(MAGIC)))
        return stream.read()


def read_checkpoint(table: Path) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint.

    Args:
      table: what `table_of` found.

    Raises:
      UnreadableFileError: where its data are absent or damaged, and where TensorFlow is absent.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise UnreadableFileError(
            f"{table}: TensorFlow reads its checkpoints and is not installed here ({error}); "
            "pip install tensorflow-cpu, or run python -m jaxt2i.convert where it is and bring the "
            "folder that it writes"
        ) from error
    try:
        reader = tf.train.load_checkpoint(str(table).removesuffix(".index"))
        kinds = reader.get_variable_to_dtype_map()
        return {name: reader.get_tensor(name) for name in kinds if kinds[name] != tf.string}
    except tf.errors.OpError as error:
        raise UnreadableFileError(
            f"{table}: its arrays cannot be read ({error.message.splitlines()[0]}); all files of "
            "the checkpoint must lie side by side, whole"
        ) from error


def read_keras(path: Path) -> dict[str, np.ndarray]:
    """All arrays of weights that Keras stored as .h5, {"layer/weight": array}.

    Raises:
      UnreadableFileError: for a damaged file.
    """
    import h5py

    found: dict[str, np.ndarray] = {}

    def visit(name: str, item) -> None:
        if isinstance(item, h5py.Dataset):
            # A layer's group holds the weights' own names: conv2d_1/conv2d_1/kernel:0.
            parts = name.removesuffix(":0").split("/")
            found["/".join((parts[0], parts[-1])) if len(parts) == 3 else name] = item[()]

    try:
        with h5py.File(path) as file:
            file.visititems(visit)
    except OSError as error:
        raise UnreadableFileError(f"{path}: not a readable .h5 ({error})") from error
    return found
