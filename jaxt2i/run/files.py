"""Files of a work directory."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any

from etils import epath

from jaxt2i.config import ConfigError


def write_whole(path: epath.PathLike, content: bytes | str) -> None:
    """Writes a file under another name first, so that it is never half there.

    Args:
      path: the file; its folder exists.
      content: text is written as UTF-8.
    """
    path = epath.Path(path)
    partial = path.with_name(f"{path.stem}.part{path.suffix}")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    partial.replace(path)


def json_lines(path: epath.PathLike) -> list[dict[str, Any]]:
    """The lines of a file of JSON lines; none without the file.

    Half a line, as a run that was killed leaves it, is left out, as is one that is damaged.
    """
    path, lines = epath.Path(path), []
    for text in path.read_bytes().split(b"\n") if path.exists() else ():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(text))
    return [line for line in lines if isinstance(line, dict)]


def local(path: str | Path, what: str) -> Path:
    """A place on a file system of this machine.

    Args:
      path: as a person gave it.
      what: the argument, for the message.

    Raises:
      ConfigError: for a bucket: runs are written to file systems alone.
    """
    if bucket := re.match(r"(\w\w+):/", str(path)):
        raise ConfigError(
            f"{what} {path}: runs, pictures and checkpoints are written to file systems, not to "
            f"{bucket[1]}:// buckets; mount the bucket (gcsfuse, s3fs) and name the mounted "
            "folder. Data is read from buckets"
        )
    return Path(path)
