"""Reads darknet's .weights files, which hold numbers alone: names and shapes come from the network.

A header of the format's version and of how many pictures were seen, then float32 without padding,
everything little endian: of every convolution in the order of the .cfg file its biases, the scales,
means and variances of its batch norm if it has one, and its kernel [out, in, height, width].
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from jaxt2i.convert import nature
from jaxt2i.convert.unpickle import UnreadableFileError

# From version 0.2 on the number of pictures has 64 bits. Larger versions than this nobody wrote.
WIDE, LARGEST = 2, 1000
VECTORS = ("bias", "weight", "running_mean", "running_var")


class Layer(NamedTuple):
    """A convolution.

    Attributes:
      kernel: name of its kernel.
      shape: of its kernel, [out, in, height, width].
      norm: what stands before the names of its batch norm's vectors; "" for a layer without one.
      bias: name of its bias, where it has no batch norm.
    """

    kernel: str
    shape: tuple[int, int, int, int]
    norm: str = ""
    bias: str = ""

    def tensors(self) -> list[tuple[str, tuple[int, ...]]]:
        """(name, shape) of everything that a file holds of it, in its order."""
        vectors = [f"{self.norm}{name}" for name in VECTORS] if self.norm else [self.bias]
        return [*((name, self.shape[:1]) for name in vectors), (self.kernel, self.shape)]


def tensors(layers: Sequence[Layer]) -> list[tuple[str, tuple[int, ...]]]:
    """(name, shape) of everything that a file of these layers holds, in its order."""
    return [tensor for layer in layers for tensor in layer.tensors()]


def numbers(layers: Sequence[Layer]) -> int:
    """How many numbers a file of these layers holds."""
    return sum(int(np.prod(shape)) for _, shape in tensors(layers))


def read(path: epath.PathLike, networks: Mapping[str, Sequence[Layer]]) -> dict[str, np.ndarray]:
    """The tensors of a file, float32.

    Args:
      path: the file.
      networks: {what it is, in words: its layers}; whichever has the file's size is read, the
        first one is what errors speak of.

    Raises:
      UnreadableFileError: for a file of another kind, another network, or one that was cut off.
    """
    path = epath.Path(path)
    if not path.is_file():
        raise UnreadableFileError(f"{path}: no such file")
    if what := nature.strange(path):
        raise UnreadableFileError(f"{path}: no darknet .weights, but {what}")
    data = path.read_bytes()
    begin = header_bytes(path, data)
    size = len(data) - begin
    layers = next((x for x in networks.values() if 4 * numbers(x) == size), None)
    if layers is None:
        raise UnreadableFileError(f"{path}: {misfit(size, networks)}")
    flat, out, at = np.frombuffer(data, "<f4", offset=begin), {}, 0
    for name, shape in tensors(layers):
        count = int(np.prod(shape))
        out[name] = flat[at : at + count].reshape(shape).astype(np.float32, copy=False)
        at += count
    return out


def header_bytes(path: epath.Path, data: bytes) -> int:
    """Bytes before the first number.

    Raises:
      UnreadableFileError: where the versions are none.
    """
    major, minor = np.frombuffer(data[:8].ljust(8, b"\0"), "<i4").tolist()
    if len(data) < 20 or not (0 <= major < LARGEST and 0 <= minor < LARGEST):
        raise UnreadableFileError(
            f"{path}: no darknet .weights: it begins with the version {major}.{minor} and has "
            f"{len(data):,} bytes; expected a version such as 0.2 and weights behind it"
        )
    return 20 if 10 * major + minor >= WIDE else 16


def misfit(size: int, networks: Mapping[str, Sequence[Layer]]) -> str:
    """What is wrong with a file of so many bytes behind its header, in words."""
    name, layers = next(iter(networks.items()))
    whole, behind = 4 * numbers(layers), 0
    said = f"{size:,} bytes of weights, where {name} has {whole:,}"
    for count, layer in enumerate(layers, 1):
        behind += 4 * numbers([layer])
        if behind == size:
            return (
                f"{said}: it ends after {count} of {len(layers)} convolutions, as a pretrained "
                "trunk does; give the whole network's file"
            )
    if size < whole:
        return f"{said}: it was cut off, or is another network's; {nature.AGAIN}"
    return f"{said}: it is another network's"
