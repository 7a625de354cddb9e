"""Shapes of a file's arrays from its head alone."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxt2i.convert import heads
from jaxt2i.convert.torch_files import UnreadableFileError

ARRAYS = {"a.b": np.zeros((2, 3), np.float16), "c": np.arange(4), "d": np.float32(1)}


@pytest.fixture(params=["x.safetensors", "x.npz"])
def file(request, tmp_path):
    path = tmp_path / request.param
    if path.suffix == ".npz":
        np.savez_compressed(path, **ARRAYS)
    else:
        save_file({k: np.asarray(x) for k, x in ARRAYS.items()}, path)
    return path


def test_shapes_are_those_of_the_arrays_and_take_no_memory(file):
    found = heads.of(file)
    assert {k: x.shape for k, x in found.items()} == {"a.b": (2, 3), "c": (4,), "d": ()}
    assert not any(x.nbytes for x in found.values())
    assert np.stack([found["a.b"].T] * 2).shape == (2, 3, 2)


def test_a_damaged_file_is_refused(file):
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(UnreadableFileError, match=file.name):
        heads.of(file)


def test_what_has_no_such_head_is_not_looked_at(tmp_path):
    assert heads.of(tmp_path / "absent.npz") is None
    (tmp_path / "x.pth").write_bytes(b"x")
    assert heads.of(tmp_path / "x.pth") is None
