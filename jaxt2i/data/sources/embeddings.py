"""Pictures beside embeddings of their captions, in the hdf5 files of GAN-INT-CLS.

Such a file (birds.hdf5, flowers.hdf5) has the groups train, valid and test; in them one group a
caption, with the picture's bytes, the caption, and what Reed et al.'s char-CNN-RNN made of it.
Source of the layout: the scripts convert_*_to_hd5_script.py of aelnouby/Text-to-Image-Synthesis.
"""

import threading
from pathlib import Path
from typing import Any

import numpy as np

from jaxt2i.data import images
from jaxt2i.data.images import CORRUPT, Unreadable
from jaxt2i.data.pictures import Framing
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources.base import clean_caption, nearest

# What a caption's group holds, and what of it is read.
PARTS = ("img", "embeddings", "txt")
WHERE = "the scripts convert_cub_to_hd5_script.py and convert_flowers_to_hd5_script.py of "
WHERE += "https://github.com/aelnouby/Text-to-Image-Synthesis make one of Reed et al.'s release"


class Embeddings:
    """One example a caption.

    Attributes:
      gives: the batch keys.
      size: number of captions.
      class_names: empty: a system that needs classes has records to read.
      framing: what part of a picture is shown.
      holds: which split of which file.
      report: what was found.
    """

    gives = ("image", "id", "text_vector")
    class_names = ()

    def __init__(self, path: str, split: str, framing: Framing, width: int):
        """Opens a split.

        Args:
          path: the file.
          split: "train", "val" or "test".
          framing: what part of a picture is shown, and how large.
          width: of an embedding, config.data.text_width.

        Raises:
          DataError: names the path, what was seen and what was expected.
        """
        refuse_torch(path)
        self.path, self.framing = path, framing
        self._lock, self._file = threading.Lock(), None
        name = nearest(split, self._open(), path)
        if name is None:
            known = ", ".join(self._open()) or "nothing"
            raise DataError(f"{path} holds {known}; expected the groups train, valid and test")
        self.split, self.holds = name, (path, name)
        self._names = list(self._open()[name])
        self.size = len(self._names)
        if not self.size:
            raise DataError(f"{path}: the group {name!r} is empty; make the file again")
        self._check(width)
        self.report = {"path": path, "split": name, "usable": self.size}

    def __getstate__(self) -> dict[str, Any]:
        """Workers elsewhere open the file themselves."""
        return {**self.__dict__, "_file": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock()}

    def _open(self):
        try:
            import h5py
        except ImportError as error:
            raise DataError(
                "config.data.source='hdf5' is read by h5py, which is not installed here: pip "
                "install h5py"
            ) from error
        if self._file is None:
            try:
                self._file = h5py.File(self.path, "r")
            except OSError as error:
                seen = "not a readable hdf5 file" if Path(self.path).is_file() else "no such file"
                raise DataError(
                    f"config.data.path is {self.path!r}: {seen}; expected one of GAN-INT-CLS, such "
                    f"as birds.hdf5: {WHERE}"
                ) from error
        return self._file

    def _check(self, width: int) -> None:
        first = self._open()[self.split][self._names[0]]
        held = list(first) if hasattr(first, "keys") else []
        if lacking := [part for part in PARTS if part not in held]:
            raise DataError(
                f"{self.path}: {self.split}/{self._names[0]} holds {', '.join(held) or 'no group'} "
                f"and not {', '.join(lacking)}; expected a file of GAN-INT-CLS: {WHERE}"
            )
        have = first["embeddings"].shape
        if have != (width,):
            raise DataError(
                f"{self.path} holds embeddings of shape {list(have)}, and config.data.text_width "
                f"is {width}; set --config.data.text_width={have[-1] if len(have) == 1 else 1024}"
            )

    def _part(self, index: int, part: str):
        """What a caption's group holds under a name."""
        with self._lock:
            try:
                return self._open()[self.split][self._names[index]][part][()]
            except (OSError, KeyError) as error:
                raise Unreadable(self.name(index), CORRUPT) from error

    def name(self, index: int) -> str:
        """The caption's group."""
        return f"{self.split}/{self._names[index]}"

    def captions(self, index: int) -> list[str]:
        """The one caption of an example."""
        text = self._part(index, "txt")
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
        return [clean_caption(text)]

    def example(
        self,
        index: int,
        keys: tuple[str, ...] = ("image",),
        chance: tuple[float, float, float] | None = None,
    ) -> dict[str, np.ndarray]:
        """One example.

        Args:
          index: in range(size).
          keys: of `gives`.
          chance: see `Framing.show`; None shows the centre.

        Returns:
          {key: array} as the schema has them, without a batch axis.

        Raises:
          Unreadable: when the picture, or the file, is damaged.
        """
        out: dict[str, np.ndarray] = {}
        if "image" in keys:
            out["image"], _ = self.framing.show(
                index, lambda need: self._picture(index, need), chance
            )
        if "text_vector" in keys:
            out["text_vector"] = np.asarray(self._part(index, "embeddings"), np.float32)
            if not np.isfinite(out["text_vector"]).all():
                raise Unreadable(self.name(index), "embedding that is not finite")
        if "id" in keys:
            out["id"] = np.int64(index)
        return out

    def _picture(self, index: int, need):
        content = bytes(self._part(index, "img"))
        return images.open_rgb(content, need, name=self.name(index), upright=False)


def refuse_torch(path: str) -> None:
    """Refuses Reed et al.'s own files, which Torch 7 wrote.

    Raises:
      DataError: says what makes an hdf5 file of them.
    """
    place = Path(path)
    if place.suffix == ".t7" or (place.is_dir() and next(place.rglob("*.t7"), None)):
        raise DataError(
            f"config.data.path is {path!r}: Torch 7's files (.t7), which are not read here; {WHERE}"
        )
    if not path or place.is_dir():
        raise DataError(
            f"config.data.path is {path!r}, which is no file; expected one of GAN-INT-CLS, such as "
            f"birds.hdf5: {WHERE}"
        )
