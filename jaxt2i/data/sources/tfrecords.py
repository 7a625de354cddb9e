"""TFRecord files and the tf.train.Example inside, read at any place and without TensorFlow.

A record is its length (uint64), a checksum of that, the bytes, a checksum of them; checksums are
masked CRC-32C (tensorflow/core/lib/io/record_writer.h). An Example is a protocol buffer message
(tensorflow/core/example/example.proto).
"""

import functools
import struct
from collections.abc import Iterator, Sequence

import google_crc32c
import numpy as np

from jaxt2i.data.decoding import NOT_UTF8, decoded
from jaxt2i.data.images import CORRUPT, Unreadable
from jaxt2i.data.sources.files import Shelf

HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")


def masked(content: bytes) -> int:
    """The checksum that the format stores."""
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def scan(shelf: Shelf, file: int) -> tuple[np.ndarray, bool]:
    """Where the records of a file are, by their headers alone.

    Args:
      shelf: of TFRecord files.
      file: its place there.

    Returns:
      (int64 [n, 2], start and length of each record's bytes; whether the file is whole).
    """
    places, at, size = [], 0, shelf.size(file)
    while at + HEADER.size <= size:
        header = shelf.read(file, at, HEADER.size)
        length, check = HEADER.unpack(header)
        if masked(header[:8]) != check or at + HEADER.size + length + FOOTER.size > size:
            break
        places.append((at + HEADER.size, length))
        at += HEADER.size + length + FOOTER.size
    return np.array(places, np.int64).reshape(-1, 2), at == size


def read(shelf: Shelf, file: int, start: int, length: int) -> bytes:
    """The bytes of a record that `scan` found.

    Raises:
      Unreadable: when they do not match their checksum.
    """
    content = shelf.read(file, start, length + FOOTER.size)
    check = content[length:]
    if len(check) != FOOTER.size or masked(content[:length]) != FOOTER.unpack(check)[0]:
        raise Unreadable(f"{shelf.paths[file]} at byte {start}", CORRUPT)
    return content[:length]


class Files:
    """`scan` and `read` of one shelf."""

    def __init__(self, shelf: Shelf):
        self.paths = shelf.paths
        self.scan = functools.partial(scan, shelf)
        self.read = functools.partial(read, shelf)


@functools.cache
def example_class():
    """The class of tf.train.Example, made from its published definition."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="jaxt2i/example.proto", package="tensorflow", syntax="proto3"
    )

    def message(parent, name: str, *parts: tuple) -> None:
        new = parent.add(name=name)
        for number, (field, repeated, kind) in enumerate(parts, 1):
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            line = new.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                line.type, line.type_name = kinds.TYPE_MESSAGE, f".tensorflow.{kind}"
            else:
                line.type = kind

    message(file.message_type, "BytesList", ("value", True, kinds.TYPE_BYTES))
    message(file.message_type, "FloatList", ("value", True, kinds.TYPE_FLOAT))
    message(file.message_type, "Int64List", ("value", True, kinds.TYPE_INT64))
    lists = [(name.lower(), False, name) for name in ("BytesList", "FloatList", "Int64List")]
    message(file.message_type, "Feature", *lists)
    message(file.message_type, "Features", ("feature", True, "Features.FeatureEntry"))
    features = file.message_type[-1]
    pair = (("key", False, kinds.TYPE_STRING), ("value", False, "Feature"))
    message(features.nested_type, "FeatureEntry", *pair)
    features.nested_type[0].options.map_entry = True
    message(file.message_type, "Example", ("features", False, "Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


class Example:
    """The features of a tf.train.Example; absent ones are empty."""

    def __init__(self, content: bytes, name: str = "a record"):
        """Parses the bytes of a record.

        Args:
          content: the bytes.
          name: what errors call it.

        Raises:
          ValueError: when they are no Example.
        """
        from google.protobuf.message import DecodeError

        try:
            # Kept whole: the features live in it.
            self._message = example_class().FromString(content)
        except DecodeError as error:
            raise ValueError(f"not a tf.train.Example ({error})") from error
        self._features = self._message.features.feature
        self._name = name

    def __contains__(self, name: str) -> bool:
        return name in self._features

    def __iter__(self) -> Iterator[str]:
        return iter(self._features)

    def byte_strings(self, name: str) -> Sequence[bytes]:
        """The values of a feature of bytes."""
        return self._features[name].byteslist.value if name in self._features else ()

    def texts(self, name: str) -> list[str]:
        """The values of a feature of bytes, as text.

        Raises:
          Unreadable: when one is not UTF-8.
        """
        texts = [decoded(value) for value in self.byte_strings(name)]
        if None in texts:
            raise Unreadable(f"{self._name}, {name}", NOT_UTF8)
        return texts

    def floats(self, name: str) -> np.ndarray:
        """The values of a feature of floats: float32 [n]."""
        values = self._features[name].floatlist.value if name in self._features else ()
        return np.array(values, np.float32)

    def integers(self, name: str) -> np.ndarray:
        """The values of a feature of integers: int64 [n]."""
        values = self._features[name].int64list.value if name in self._features else ()
        return np.array(values, np.int64)
