"""Latents of pictures, as a frozen autoencoder gave them once: what training reads instead.

`python -m jaxt2i.prepare latents` writes a folder. Each part of a split is an ArrayRecord file and
a JSON file that names its pictures, written last: a part without one is made again. about.json says
what all of it depends on.

A latent belongs to one crop of one picture: what chance changes before the autoencoder, which are
random crops and mirrors, cannot be cached and is refused. Its mean and its deviation are kept, so
that training still draws from the autoencoder's distribution anew in every step.
"""

import json
import math
import os
import posixpath
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxt2i.data import schema
from jaxt2i.data.images import CORRUPT, Unreadable
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources import arrayrecords, files
from jaxt2i.data.sources.base import nearest

KEYS = ("latent_mean", "latent_std")
ABOUT = "about.json"
DTYPES = ("float32", "float16")
# Settings of `config.data` that change pixels; where the data lies does not.
PIXELS = ("source", "corpus", "crop", "resize", "background", "around_box", "decode")
ABSENT = "picture without latents"
GET = "python -m jaxt2i.prepare latents --config FILE[:preset] --to DIR writes them"


def read(data: Any, net: str, factor: int) -> tuple[str, ...]:
    """The latents that losses are to read: `KEYS`, or none.

    Args:
      data: `config.data`.
      net: the system's autoencoder; "": it has none.
      factor: pixels of a picture along one of its latent.

    Raises:
      DataError: names the config line and the fix.
    """
    folder = data.get("latents", "")
    if folder and not net:
        raise DataError(
            f"config.data.latents={folder!r}, and this system works on pictures themselves; set "
            "it to ''"
        )
    if folder and factor != data.latent_factor:
        raise DataError(
            f"config.data.latent_factor={data.latent_factor}, and the autoencoder's latents are a "
            f"{factor}th as high: set --config.data.latent_factor={factor}"
        )
    return KEYS if folder else ()


def check(data: Any) -> None:
    """Refuses settings under which a picture is another one every time.

    Args:
      data: `config.data`.

    Raises:
      DataError: names the config line and the fix.
    """
    if data.crop.startswith("random"):
        raise DataError(
            f"config.data.crop={data.crop!r} shows another part of a picture every time, and "
            "latents are of one: set --config.data.crop=centre"
        )
    if data.get("mirror", "crop") != "crop":
        raise DataError(
            f"config.data.mirror={data.mirror!r} mirrors pictures, and a mirrored latent is not "
            "the latent of a mirrored picture: set --config.data.mirror=crop"
        )


def pixels(data: Any) -> dict[str, Any]:
    """What of `config.data` decides on the pixels that an autoencoder sees, as JSON data."""
    return {
        "resolution": list(schema.height_and_width(data.resolution)),
        **{name: data.get(name, "") for name in PIXELS},
    }


def about_of(folder: str) -> dict[str, Any]:
    """What a folder of latents depends on.

    Raises:
      DataError: where it is none.
    """
    file = posixpath.join(folder, ABOUT)
    if not files.exists(file):
        raise DataError(f"config.data.latents={folder!r} holds no {ABOUT}; {GET}")
    return read_json(file, "shape", "dtype", "pixels", "weights")


def read_json(file: str, *keys: str) -> dict[str, Any]:
    """One of these files, with all of these keys.

    Raises:
      DataError: for a damaged one.
    """
    try:
        found = json.loads(files.read_bytes(file))
        if lacking := [key for key in keys if key not in found]:
            raise ValueError(f"no {lacking[0]!r}")
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{file} is damaged ({error}); remove it: {GET}") from None
    return found


def write_json(file: str, content: Any) -> None:
    """Writes JSON in one step."""
    files.write_bytes(file, (json.dumps(content, indent=1) + "\n").encode())


def part_name(split: str, number: int) -> str:
    """Of the files of a part, without their endings."""
    return f"latents-{split}-{number:05d}"


def write_part(
    folder: str,
    name: str,
    dtype: str,
    found: Mapping[str, tuple[np.ndarray, np.ndarray]],
    skipped: Mapping[str, str],
) -> None:
    """Writes one part.

    Args:
      folder: of the latents.
      name: `part_name`.
      dtype: of `DTYPES`.
      found: {name of a picture: (mean, deviation)}, each [h, w, C], not scaled.
      skipped: {name of a picture that cannot be read: why}.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    with tempfile.TemporaryDirectory(prefix="jaxt2i-") as here:
        file = os.path.join(here, "part")
        writer = ArrayRecordWriter(file, "group_size:1")
        for pair in found.values():
            writer.write(np.stack(pair).astype(dtype).tobytes())
        writer.close()
        with open(file, "rb") as stream:
            files.write_bytes(posixpath.join(folder, f"{name}.array_record"), stream.read())
    about = {"names": list(found), "skipped": dict(skipped)}
    write_json(posixpath.join(folder, f"{name}.json"), about)


class Latents:
    """The latents of a split, by the names of their pictures; many threads may read.

    Attributes:
      shape: [h, w, C] of a latent.
      skipped: {name of a picture that could not be read: why}.
    """

    def __init__(self, folder: str, split: str, data: Any):
        """Opens a split.

        Args:
          folder: that `python -m jaxt2i.prepare latents` wrote.
          split: of the source.
          data: `config.data` of who reads them.

        Raises:
          DataError: where there are none of that split, or they are of other pixels.
        """
        about = about_of(folder)
        if other := [k for k, v in pixels(data).items() if about["pixels"].get(k) != v]:
            name = other[0]
            raise DataError(
                f"{folder} holds latents of pictures with config.data.{name}="
                f"{about['pixels'].get(name)!r}, and it is {pixels(data)[name]!r} here; set it "
                f"as it was, or make them again: {GET}"
            )
        self.shape, self._dtype = tuple(about["shape"]), about["dtype"]
        splits = {n.split("-")[1] for n in files.walk(folder) if n.startswith("latents-")}
        split = nearest(split, splits, folder) or split
        start = part_name(split, 0)[:-5]
        lists = [n for n in files.walk(folder) if n.startswith(start) and n.endswith(".json")]
        if not lists:
            raise DataError(f"{folder} holds no latents of the split {split!r}; {GET}")
        self.skipped: dict[str, str] = {}
        self._place: dict[str, tuple[int, int]] = {}
        for part, name in enumerate(lists):
            told = read_json(posixpath.join(folder, name), "names", "skipped")
            self._place |= {picture: (part, i) for i, picture in enumerate(told["names"])}
            self.skipped |= told["skipped"]
        paths = [posixpath.join(folder, f"{n.removesuffix('.json')}.array_record") for n in lists]
        self._files = arrayrecords.Files(files.Shelf(paths))
        self.name = f"{folder} ({split})"

    def __len__(self) -> int:
        """How many pictures it knows of."""
        return len(self._place) + len(self.skipped)

    def read(self, picture: str) -> dict[str, np.ndarray]:
        """{key: float32 [h, w, C]} of `KEYS` of a picture.

        Raises:
          Unreadable: when there was none, as the picture could not be read.
          DataError: when the latents are of another data set.
        """
        if picture in self.skipped:
            raise Unreadable(picture, ABSENT)
        if picture not in self._place:
            raise DataError(
                f"{self.name} has no latents of {picture}: they are of another data set, or it has "
                f"grown; {GET}"
            )
        content = self._files.read(*self._place[picture])
        if len(content) != 2 * math.prod(self.shape) * np.dtype(self._dtype).itemsize:
            raise Unreadable(f"{self.name}, {picture}", CORRUPT)
        both = np.frombuffer(content, self._dtype).reshape(2, *self.shape).astype(np.float32)
        return dict(zip(KEYS, both, strict=True))


class WithLatents:
    """A source that gives its pictures' latents, too; all else is the source's own.

    The folder is opened when latents are first asked for: who only evaluates needs none.

    Attributes:
      gives: the source's keys and `KEYS`.
    """

    def __init__(self, source: Any, data: Any, split: str):
        """Opens nothing yet.

        Args:
          source: of `jaxt2i.data.sources`.
          data: `config.data`, whose `latents` names the folder.
          split: of the source.

        Raises:
          DataError: where pictures are others every time.
        """
        check(data)
        self._source, self._data, self._split = source, data, split
        self._lock, self._opened = threading.Lock(), None
        self.gives = (*source.gives, *KEYS)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # a copy that is being made has no source yet
            raise AttributeError(name)
        return getattr(self._source, name)

    def __getstate__(self) -> dict[str, Any]:
        """Workers elsewhere open the folder themselves."""
        return {**self.__dict__, "_lock": None, "_opened": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock()}

    def example(self, index: int, keys: Sequence[str] = ("image",), **how: Any) -> dict:
        """As the source's, with latents where they are asked for."""
        others = tuple(k for k in keys if k not in KEYS)
        out = dict(self._source.example(index, others, **how)) if others else {}
        if len(others) < len(keys):
            found = self._latents().read(name_of(self._source, index))
            out |= {k: found[k] for k in keys if k in KEYS}
        return out

    def _latents(self) -> Latents:
        with self._lock:
            if self._opened is None:
                found = Latents(self._data.latents, self._split, self._data)
                if len(found) < (self._source.size or 0):
                    raise DataError(
                        f"{found.name} knows of {len(found)} pictures, and the data has "
                        f"{self._source.size}; finish it: {GET}"
                    )
                self._opened = found
        return self._opened


def name_of(source: Any, index: int) -> str:
    """A picture's name, the same in every start."""
    return source.name(index) if hasattr(source, "name") else str(index)
