"""TFRecord files: TensorFlow writes them and we read them, here, in a bucket and damaged."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxt2i.data.images import Unreadable
from jaxt2i.data.sources import tfrecords
from jaxt2i.data.sources.files import Shelf


def feature(values):
    """A feature of whatever kind the values are."""
    if values and isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if values and isinstance(values[0], float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def example(**features):
    inside = tf.train.Features(feature={k: feature(v) for k, v in features.items()})
    return tf.train.Example(features=inside).SerializeToString()


def written(file, contents):
    with tf.io.TFRecordWriter(str(file)) as writer:
        for content in contents:
            writer.write(content)
    return Shelf([str(file)])


VALUES = (
    st.lists(st.binary(max_size=20), max_size=4)
    | st.lists(st.floats(width=32, allow_nan=False), max_size=4)
    | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4)
)


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=5))
@settings(deadline=None)
def test_features_come_back(features):
    read = tfrecords.Example(example(**features))
    assert set(read) == set(features)
    for name, values in features.items():
        kinds = [read.byte_strings(name), read.floats(name), read.integers(name)]
        assert next((list(k) for k in kinds if len(k)), []) == values
    assert "absent!" not in read
    assert read.texts("absent!") == []


def test_records_are_found_and_read(tmp_path):
    contents = [b"", b"a" * 100_000, b"xyz"]
    shelf = written(tmp_path / "a.tfrecord", contents)
    places, is_whole = tfrecords.scan(shelf, 0)
    assert is_whole
    assert [tfrecords.read(shelf, 0, *place) for place in places.tolist()] == contents


def test_a_changed_bit_is_noticed(tmp_path):
    file = tmp_path / "a.tfrecord"
    shelf = written(file, [b"a" * 50, b"b" * 50])
    places, _ = tfrecords.scan(shelf, 0)
    content = bytearray(file.read_bytes())
    content[places[0, 0] + 7] ^= 4
    file.write_bytes(content)
    shelf = Shelf([str(file)])
    with pytest.raises(Unreadable, match=r"a\.tfrecord at byte 12: truncated or corrupt"):
        tfrecords.read(shelf, 0, *places[0])
    assert tfrecords.read(shelf, 0, *places[1]) == b"b" * 50


@pytest.mark.parametrize("keep", [0, 5, 12, 40, 66, 70, 131])
def test_a_file_cut_off_is_noticed(tmp_path, keep):
    file = tmp_path / "a.tfrecord"
    written(file, [b"a" * 50, b"b" * 50])
    file.write_bytes(file.read_bytes()[:keep])
    places, is_whole = tfrecords.scan(Shelf([str(file)]), 0)
    assert len(places) == keep // 66
    assert is_whole == (keep in (0, 66))


def test_what_is_no_example_is_refused():
    with pytest.raises(ValueError, match=r"not a tf\.train\.Example"):
        tfrecords.Example(b"\x0a\xff\xff")
    assert not list(tfrecords.Example(b""))


def test_buckets_are_read_through_copies():
    """TensorFlow's file system in memory stands for one."""
    path = "ram://bucket/a.tfrecord"
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(b"far away")
    shelf = Shelf([path, "ram://bucket/none.tfrecord"])
    places, is_whole = tfrecords.scan(shelf, 0)
    assert is_whole
    assert tfrecords.read(shelf, 0, *places[0].tolist()) == b"far away"
    with pytest.raises(Unreadable, match=r"none\.tfrecord: cannot be read"):
        shelf.size(1)


def test_checksums_are_the_formats(tmp_path):
    shelf = written(tmp_path / "a.tfrecord", [b"123456789"])
    footer = np.frombuffer(shelf.read(0, 21, 4), "<u4")[0]
    assert tfrecords.masked(b"123456789") == footer
