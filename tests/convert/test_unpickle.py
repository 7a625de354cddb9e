"""The one reader of pickles: plain values, what a table knows, and nothing else."""

import collections
import io
import os
import pickle

import numpy as np
import pytest

from jaxt2i.convert import unpickle
from jaxt2i.convert.unpickle import UnreadableFileError, UnsafeFileError
from jaxt2i.data.builders.annotations import read_array_pickle

PLAIN = {"a": [1, 2.5, None, True], "b": ("x", b"y", {3})}


class Command:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_need_no_table(protocol):
    data = pickle.dumps({k: v for k, v in PLAIN.items() if protocol > 3 or k == "a"}, protocol)
    assert unpickle.load(data, {}) == pickle.loads(data)
    assert unpickle.load(io.BytesIO(data), {}) == pickle.loads(data)
    assert unpickle.names_in(data) == set()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_is_refused_and_not_run(tmp_path, protocol):
    target = tmp_path / "ran"
    data = pickle.dumps([PLAIN["a"], Command(f"touch {target}")], protocol)
    with pytest.raises(UnsafeFileError, match=r"asks for (posix|nt|os)\.system"):
        unpickle.load(data, {"collections OrderedDict": dict})
    assert not target.exists()
    assert unpickle.names_in(data) == {f"{os.system.__module__} system"}


def test_the_table_says_what_stands_for_a_name():
    data = pickle.dumps(collections.OrderedDict(a=1))
    assert unpickle.load(data, {"collections OrderedDict": dict}) == {"a": 1}
    with pytest.raises(UnsafeFileError, match=r"collections\.OrderedDict"):
        unpickle.load(data, {})


def test_what_lies_outside_needs_a_reader_of_its_own():
    stream = io.BytesIO()
    writer = pickle.Pickler(stream, 2)
    writer.persistent_id = lambda x: "seven" if x == 7 else None
    writer.dump([7, 8])
    assert unpickle.load(stream.getvalue(), {}, persistent=lambda pid: f"<{pid}>") == ["<seven>", 8]
    with pytest.raises(UnsafeFileError, match="outside of itself"):
        unpickle.load(stream.getvalue(), {})


@pytest.mark.parametrize("data", [b"", b"not this", pickle.dumps(PLAIN)[:-3], b"\x80\x04]a."])
def test_what_is_no_pickle_is_called_that(data):
    with pytest.raises(UnreadableFileError, match="not a readable pickle"):
        unpickle.load(data, {})


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_of_annotations_come_back_and_their_functions_alone(tmp_path, protocol):
    file = tmp_path / "index.pkl"
    content = {"names": np.array(["a", "b"], object), "n": np.arange(6).reshape(2, 3), "x": np.pi}
    content["scalar"] = np.float32(2.5)
    file.write_bytes(pickle.dumps(content, protocol))
    found = read_array_pickle(file)
    np.testing.assert_array_equal(found["n"], content["n"])
    assert list(found["names"]) == ["a", "b"]
    assert found["scalar"] == 2.5
    file.write_bytes(pickle.dumps(np.load, protocol))
    with pytest.raises(ValueError, match="asks for numpy"):
        read_array_pickle(file)
