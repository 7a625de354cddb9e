"""What all kinds of sources share: captions, splits, what was skipped, how pictures are framed."""

import collections
import json
import os
import sys
import tempfile
import threading
import unicodedata
from collections.abc import Iterable
from typing import Any

from etils import epath

from jaxt2i import places
from jaxt2i.data.decoding import NOT_UTF8, decoded
from jaxt2i.data.pictures import BACKGROUND, Framing

# Folder names that stand for a split, and the splits that may stand in for it, nearest first.
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid", "dev"),
    "test": ("test", "testing"),
}
STAND_INS = {"train": ("train",), "val": ("val", "test", "train"), "test": ("test", "val", "train")}
LISTED = 1000
# Longest name or caption in a message, letters.
SHOWN = 100
# Unicode categories that no caption needs: control characters and halves of pairs.
ODD = ("Cc", "Cs")

# Why a pair was not used; the reasons of images are in `jaxt2i.data.images`.
NO_CAPTION = "image without caption"
NO_IMAGE = "caption without image"
NO_TEXT = "empty caption"
BAD_LINE = "malformed metadata line"
OUTSIDE = "file name outside the folder"
NOT_TEXT = "caption that is no text"


def clean_caption(text: str) -> str:
    """A caption on one line: single spaces, no control characters, no byte order mark."""
    text = "".join(
        c for c in text.replace("\ufeff", "") if c.isspace() or unicodedata.category(c) not in ODD
    )
    return " ".join(text.split())


def clean_captions(texts: Iterable[str]) -> list[str]:
    """The captions that are not blank, cleaned, in order."""
    return [clean for clean in map(clean_caption, texts) if clean]


def caption_in(value: Any) -> tuple[str, str]:
    """What a table, a JSON object or a file says as the caption.

    Args:
      value: text or its bytes; nothing, as None or NaN; or anything else, which is no caption.

    Returns:
      (the caption, cleaned, and ""); or ("", why there is none).
    """
    if isinstance(value, bytes):
        text = decoded(value)
        if text is None:
            return "", NOT_UTF8
        value = text
    if value is None or (isinstance(value, float) and value != value):
        return "", NO_CAPTION
    if not isinstance(value, str):
        return "", NOT_TEXT
    text = clean_caption(value)
    return text, "" if text else NO_CAPTION


def shortened(text: str) -> str:
    """What a person is shown of a text that may be long."""
    return text if len(text) <= SHOWN else text[: SHOWN - 4] + " ..."


class Skips:
    """What was not used and why: all of it counted, the first `LISTED` listed."""

    def __init__(self):
        self.counts: collections.Counter[str] = collections.Counter()
        self.listed: list[dict[str, str]] = []
        self._lock = threading.Lock()

    def __getstate__(self):
        """Workers on other machines count for themselves."""
        return {"counts": self.counts, "listed": self.listed}

    def __setstate__(self, state):
        self.__init__()
        self.__dict__ |= state

    def add(self, name: str, reason: str) -> None:
        """Counts one file, or one line of a metadata file."""
        with self._lock:
            self.counts[reason] += 1
            if len(self.listed) < LISTED:
                self.listed.append({"file": name, "reason": reason})

    def __str__(self) -> str:
        return ", ".join(f"{n} {reason}" for reason, n in self.counts.most_common()) or "none"


def nearest(split: str, known: Iterable[str], where: str) -> str | None:
    """The name among `known` that serves as a split; a stand-in is told; None: there is none."""
    for stand_in in STAND_INS.get(split, (split,)):
        for name in SPLITS.get(stand_in, (stand_in,)):
            if name in known:
                if stand_in != split:
                    print(f"data: {where} has no {split}; {name} is used", file=sys.stderr)
                return name
    return None


def framing(data_config, resolution: int, split: str, cache_mb: float = 0) -> Framing:
    """What part of a picture `config.data` shows; held-out pictures are always exact."""
    c = data_config
    decode = c.decode if split == "train" else "exact"
    # Runs from before this setting have none.
    behind = c.get("background", BACKGROUND)
    return Framing(resolution, c.crop, c.resize, c.margin, cache_mb, decode, behind)


def write_report(file: epath.Path, report: dict[str, Any]) -> None:
    """Writes the report in one step: other processes may be writing the same one."""
    places.make_folder(file.parent)
    if places.scheme_of(file):
        file.write_bytes(json.dumps(report, indent=1).encode())
        return
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as temporary:
        json.dump(report, temporary, indent=1)
    os.replace(temporary.name, file)
