import argparse
import collections
import copyreg
import gzip
import io
import os
import pickle
import sys
import types
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxt2i.convert import files, torch_files, unpickle
from jaxt2i.convert.torch_files import UnreadableFileError, UnsafeFileError, read


class Tensor:
    """What torch pickles for a tensor: a storage outside the pickle, offset, size, stride."""

    def __init__(self, key, storage, array, offset=0, size=None, stride=None):
        self.key, self.storage, self.array, self.offset = key, storage, array, offset
        self.size = array.shape if size is None else size
        self.stride = (
            tuple(s // array.itemsize for s in array.strides) if stride is None else stride
        )


def torch_pickle(content, monkeypatch, protocol=2):
    """`content` as torch.save pickles it, with torch's names but without torch."""

    def rebuild(*_):
        pass

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    root, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    utils._rebuild_tensor_v2 = rebuild
    for name in torch_files.STORAGES:
        kind = type(name, (), {"__module__": "torch", "__qualname__": name})
        setattr(root, name, kind)
    monkeypatch.setitem(sys.modules, "torch", root)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            if isinstance(obj, Storage):
                t = obj.of
                return ("storage", getattr(root, t.storage), t.key, "cpu", t.array.size)
            return None

        def reducer_override(self, obj):
            if not isinstance(obj, Tensor):
                return NotImplemented
            storage = Storage()
            storage.of = obj
            hooks = collections.OrderedDict()
            return rebuild, (storage, obj.offset, obj.size, obj.stride, False, hooks)

    stream = io.BytesIO()
    Pickler(stream, protocol).dump(content)
    monkeypatch.undo()
    return stream.getvalue()


def torch_zip(path, program, storages=(), extra=()):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for key, array in storages:
            archive.writestr(f"archive/data/{key}", array.tobytes())
        for name in extra:
            archive.writestr(name, b"")
    return path


class Payload:
    """Unpickling this creates a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, protocol, zipped):
    target = tmp_path / "ran"
    program = pickle.dumps({"w": Payload(target)}, protocol)
    path = tmp_path / "net.pth"
    if zipped:
        torch_zip(path, program)
    else:
        # The legacy format starts with a magic number in a pickle of its own.
        path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + program)
    with pytest.raises(UnsafeFileError, match=r"(?s)net\.pth.*system.*save_file"):
        read(path)
    assert not target.exists()


def test_a_name_hidden_from_the_first_check_is_stopped_by_the_second(tmp_path):
    target = tmp_path / "ran"
    command = f"touch {target}".encode()

    def text(x):
        return pickle.BINUNICODE + len(x).to_bytes(4, "little") + x

    strings = text(b"os") + text(b"system")
    decoy = text(b"torch") + pickle.POP + text(b"Size") + pickle.POP
    call = text(command)
    program = (
        pickle.PROTO + b"\x04" + strings + decoy + pickle.STACK_GLOBAL + call + pickle.TUPLE1
        + pickle.REDUCE + pickle.STOP
    )  # fmt: skip
    assert unpickle.names_in(program) == {"torch Size"}
    with pytest.raises(UnsafeFileError, match=r"os\.system"):
        read(torch_zip(tmp_path / "net.pth", program))
    assert not target.exists()


def test_a_pickled_network_is_refused_with_the_way_out(tmp_path):
    program = b"cdill._dill\n_create_type\n(ctorch_utils.persistence\n_reconstruct\nt."
    with pytest.raises(UnsafeFileError, match=r"dill\._dill\._create_type, torch_utils\.pers"):
        read(torch_zip(tmp_path / "network-snapshot.pkl", program))


def test_the_zip_format_is_read_without_torch(tmp_path, monkeypatch):
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    h = np.array([0.5, -2], np.float16)
    b = np.array([1.5, 3], ml_dtypes.bfloat16)
    n = np.array(7, np.int64)
    content = {
        "epoch": 3,
        "state_dict": collections.OrderedDict(
            {
                "w": Tensor("0", "FloatStorage", w),
                "transposed": Tensor("0", "FloatStorage", w, size=(3, 2), stride=(1, 3)),
                "row": Tensor("0", "FloatStorage", w, offset=3, size=(3,), stride=(1,)),
                "half": Tensor("1", "HalfStorage", h),
                "brain": Tensor("2", "BFloat16Storage", b),
                "count": Tensor("3", "LongStorage", n),
            }
        ),
    }
    program = torch_pickle(content, monkeypatch)
    storages = [("0", w), ("1", h), ("2", b), ("3", n)]
    state = read(torch_zip(tmp_path / "net.pth", program, storages))
    np.testing.assert_array_equal(state["w"], w)
    np.testing.assert_array_equal(state["transposed"], w.T)
    np.testing.assert_array_equal(state["row"], w[1])
    np.testing.assert_array_equal(state["half"], [0.5, -2])
    np.testing.assert_array_equal(state["brain"], [1.5, 3])
    assert {x.dtype for k, x in state.items() if k != "count"} == {np.dtype("float32")}
    assert state["count"] == 7
    assert state["count"].dtype == np.int64


def test_a_tensor_beyond_its_storage_is_refused(tmp_path, monkeypatch):
    w = np.ones(4, np.float32)
    program = torch_pickle({"w": Tensor("0", "FloatStorage", w, offset=2)}, monkeypatch)
    with pytest.raises(UnreadableFileError, match=r"net\.pth: .*beyond its storage"):
        read(torch_zip(tmp_path / "net.pth", program, [("0", w)]))


def test_several_networks_in_one_file_keep_their_names(tmp_path, monkeypatch):
    w = np.ones(2, np.float32)
    content = {"model": {k: {"w": Tensor("0", "FloatStorage", w)} for k in ("netG", "netD")}}
    program = torch_pickle(content, monkeypatch)
    assert set(read(torch_zip(tmp_path / "n.pth", program, [("0", w)]))) == {"netG.w", "netD.w"}


def test_torchscript_is_refused_with_a_hint(tmp_path):
    path = torch_zip(tmp_path / "ViT-B-32.pt", b".", extra=["archive/constants.pkl"])
    with pytest.raises(UnsafeFileError, match=r"TorchScript.*huggingface\.co/openai"):
        read(path)


def legacy(path, program, storages):
    """A file as torch.save wrote it before 1.6: five pickles, then the storages."""
    head = [torch_files.MAGIC, 1001, {"little_endian": True}]
    data = b"".join(pickle.dumps(part, 2) for part in head) + program
    data += pickle.dumps([key for key, _ in storages], 2)
    for _, array in storages:
        data += array.size.to_bytes(8, "little") + array.tobytes()
    path.write_bytes(data)
    return path


def test_the_legacy_format(tmp_path, monkeypatch):
    kernel, count = np.arange(6, dtype=np.float32).reshape(2, 3), np.int64([7])
    half = np.float16([1.5, 2.5])
    content = {
        "state_dict": collections.OrderedDict(
            kernel=Tensor("1", "FloatStorage", kernel),
            turned=Tensor("1", "FloatStorage", kernel, size=(3, 2), stride=(1, 3)),
            count=Tensor("2", "LongStorage", count),
            half=Tensor("10", "HalfStorage", half),
        )
    }
    program = torch_pickle(content, monkeypatch)
    storages = [("10", half), ("1", kernel), ("2", count)]
    found = read(legacy(tmp_path / "old.pth", program, storages))
    np.testing.assert_array_equal(found["kernel"], kernel)
    np.testing.assert_array_equal(found["turned"], kernel.T)
    np.testing.assert_array_equal(found["count"], count)
    np.testing.assert_array_equal(found["half"], half.astype(np.float32))
    cut = tmp_path / "cut.pth"
    cut.write_bytes((tmp_path / "old.pth").read_bytes()[:-4])
    with pytest.raises(UnreadableFileError, match=r"cut\.pth: damaged"):
        read(cut)


@pytest.mark.parametrize("inside", [True, False], ids=["in the state", "as an argument"])
def test_parameters_of_early_versions(tmp_path, monkeypatch, inside):
    array = np.float32([1, 2])
    module, kind = types.ModuleType("torch.nn.parameter"), type("Parameter", (), {})
    kind.__module__, module.Parameter = "torch.nn.parameter", kind
    monkeypatch.setitem(sys.modules, "torch.nn", types.ModuleType("torch.nn"))
    monkeypatch.setitem(sys.modules, "torch.nn.parameter", module)
    tensor, tail = Tensor("1", "FloatStorage", array), (collections.OrderedDict(), True, False)

    def reduce(self, protocol):
        given = ((), (tensor, None, *tail)) if inside else ((tensor,), tail)
        return copyreg.__newobj__, (kind, *given[0]), given[1]

    kind.__reduce_ex__ = reduce
    program = torch_pickle({"w": kind()}, monkeypatch)
    np.testing.assert_array_equal(
        read(legacy(tmp_path / "o.pth", program, [("1", array)]))["w"], array
    )


def test_safetensors_and_npz(tmp_path):
    save_file({"a": np.ones(2, np.float16)}, tmp_path / "x.safetensors")
    np.savez(tmp_path / "x.npz", a=np.ones(2, np.float64))
    assert read(tmp_path / "x.safetensors")["a"].dtype == np.float32
    assert read(tmp_path / "x.npz")["a"].dtype == np.float64


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.pth", b"<html>", "web page"),
        ("x.safetensors", b"junk", "not safetensors"),
        ("x.npz", b"junk", "not a readable .npz, which is a zip archive; download"),
    ],
)
def test_other_files_are_named(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableFileError, match=rf"{name}: .*{said}"):
        read(tmp_path / name)
    with pytest.raises(UnreadableFileError, match="no such file"):
        read(tmp_path / "absent.pth")


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_numbers_of_numpy_and_settings_do_no_harm(tmp_path, monkeypatch, protocol):
    w = np.arange(4, dtype=np.float32)
    content = {
        "model": {"w": Tensor("0", "FloatStorage", w), "mean": np.float32([[1, 2], [3, 4]])},
        "best_fid": np.float64(12.25),
        "kind": np.dtype("float32"),
        "big": np.array([1, 2], ">i4"),
        "names": np.array(["a"], object),
        "random": np.random.RandomState(0).get_state(),
        "args": argparse.Namespace(lr=0.1, out=Path("x")),
        "seen": {1, 2},
        "counts": collections.defaultdict(int, a=1),
        "iteration": Tensor("1", "LongStorage", np.int64(7)),
    }
    program = torch_pickle(content, monkeypatch, protocol)
    storages = [("0", w), ("1", np.int64(7))]
    found = torch_files.read_all(torch_zip(tmp_path / "net.pth", program, storages))
    assert found.wrapper == "model."
    np.testing.assert_array_equal(found.tensors["w"], w)
    np.testing.assert_array_equal(found.tensors["mean"], [[1, 2], [3, 4]])
    assert set(found.aside) == {"big", "random.1", "iteration"}
    np.testing.assert_array_equal(found.aside["big"], [1, 2])
    np.testing.assert_array_equal(found.aside["random.1"], content["random"][1])


def test_nothing_of_a_file_is_lost(tmp_path, monkeypatch):
    w = np.ones(2, np.float32)
    tensor = Tensor("0", "FloatStorage", w)
    content = {
        "model": {"netG": {"w": tensor}},
        "ema": {"shadow": [tensor, tensor]},
        "optimizers": [{"state": {0: {"exp_avg": tensor}}, "param_groups": []}],
    }
    program = torch_pickle(content, monkeypatch)
    found = torch_files.read_all(torch_zip(tmp_path / "net.pth", program, [("0", w)]))
    assert set(found.tensors) == {"netG.w"}
    assert set(found.aside) == {"ema.shadow.0", "ema.shadow.1"}
    assert len(found.optimiser) == 1


def test_the_content_decides_where_a_name_is_wrong(tmp_path):
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "x.pth")
    assert set(read(tmp_path / "x.pth")) == {"a"}
    np.savez(tmp_path / "x.npz", b=np.ones(2))
    assert set(read((tmp_path / "x.npz").rename(tmp_path / "y.pt"))) == {"b"}


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n"


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors", "x.npz", "x.h5"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LFS, "a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b'{"error": "not found"}', "JSON"),
        (gzip.compress(b"weights", mtime=0), "compressed by gzip"),
        (b"", "empty"),
        (bytes(1000), "zeros"),
    ],
)
def test_what_a_file_is_instead_is_said(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableFileError, match=rf"{name}: .*{said}"):
        files.read(tmp_path / name)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors", "x.npz"])
def test_half_a_download_is_called_that(tmp_path, monkeypatch, name, share):
    w, path = np.arange(4096, dtype=np.float32), tmp_path / name
    if path.suffix == ".pth":
        program = torch_pickle({"w": Tensor("0", "FloatStorage", w)}, monkeypatch)
        torch_zip(path, program, [("0", w)])
    elif path.suffix == ".npz":
        np.savez(path, w=w)
    else:
        save_file({"w": w}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UnreadableFileError, match=rf"{name}: half a download"):
        read(path)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UnreadableFileError, match="a folder; give the file"):
        read(tmp_path)
