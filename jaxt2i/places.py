"""Places: files and folders of this machine or of an object store, through one type of path.

`epath.Path` reads and writes both alike. Where stores differ, it is said and done here:

- an object is written whole or not at all, so nothing is renamed into its place; nothing can be
  appended (`jaxt2i.run.files.Lines`), and no folder appears in one step (`made_whole`);
- a folder is there when something lies in it, so none is made;
- what only opens files of this machine gets a copy (`here`).

gs:// holds everything. s3:// and az:// hold all but work directories: TensorStore, which writes
checkpoints, is led to gs:// alone by orbax. hf://USER/NAME[@REVISION] is a model of the Hugging
Face hub, to be read: its files are fetched into the hub's cache, and that folder is the place.
"""

import fnmatch
import functools
import importlib.util
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import fsspec.config
from etils import epath

from jaxt2i.config import ConfigError

# What reaches a store, by how its paths begin.
STORES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}
SCHEME = re.compile(r"(\w\w+):/+")
HUB = re.compile(r"hf:/+([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
# Written last into a folder of a store that must not be taken for whole before.
COMPLETE = "complete"


def scheme_of(path: epath.PathLike) -> str:
    """How a path of a store begins, such as "gs"; "" of a place on this machine."""
    found = SCHEME.match(os.fspath(path))
    return found[1] if found else ""


def of(path: epath.PathLike, what: str = "the path") -> epath.Path:
    """A place that a person named.

    Args:
      path: of this machine, or gs://BUCKET/..., s3://..., az://...; also as pathlib writes it, with
        one slash.
      what: the argument, for messages.

    Raises:
      ConfigError: for another store, where what reaches it is not installed, and where it does not
        answer.
    """
    scheme = scheme_of(path)
    if not scheme:
        return epath.Path(path)
    if scheme == "hf":
        return epath.Path(_of_hub(os.fspath(path), what))
    if scheme not in STORES:
        known = ", ".join(f"{name}://" for name in (*STORES, "hf"))
        raise ConfigError(
            f"{what} {path}: no store of the kind {scheme}:// is known here; known: {known} and "
            "folders of this machine"
        )
    package = STORES[scheme]
    if not importlib.util.find_spec(package):
        tensorflow = importlib.util.find_spec("tensorflow")
        if scheme != "gs" or os.environ.get("EPATH_USE_TF") == "0" or not tensorflow:
            raise ConfigError(
                f"{what} {path}: {scheme}:// is reached through {package}, which is not installed "
                f"here: pip install {package}"
            )
    _without_memory()
    found = epath.Path(SCHEME.sub(rf"{scheme}://", os.fspath(path), count=1))
    _check_answer(found, what)
    return found


@functools.cache
def _check_answer(place: epath.Path, what: str) -> None:
    """Refuses a place whose store does not say whether something is there.

    Raises:
      ConfigError: with what the store said.
    """
    try:
        place.exists()
    except Exception as error:  # every store has errors of its own
        raise ConfigError(
            f"{what} {place}: the store does not answer ({told(error)}); is there a network and "
            "such a bucket, and do the credentials of this machine permit it?"
        ) from None


def told(error: Exception) -> str:
    """What a library said, with the kind of its error, in a line."""
    said = (str(error).strip().splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {said}"


@functools.cache
def _of_hub(name: str, what: str) -> str:
    """The folder of a model of the Hugging Face hub, all of whose files are fetched.

    Raises:
      ConfigError: for another form of name, and where it cannot be fetched.
    """
    found = HUB.fullmatch(name)
    if not found:
        raise ConfigError(f"{what} {name}: expected hf://USER/NAME, or hf://USER/NAME@REVISION")
    import huggingface_hub as hub

    try:
        return hub.snapshot_download(found[1], revision=found[2])
    except Exception as error:  # of many kinds: no network, no such model, no permission
        raise ConfigError(
            f"{what} {name}: could not be fetched from the Hugging Face hub "
            f"({told(error)}); is that its name, and may you read it (hf auth "
            f"login)? Where there is a network: hf download {found[1]} --local-dir DIR, then name "
            "DIR"
        ) from None


@functools.cache
def _without_memory() -> None:
    """Lists are asked for each time: TensorStore and other processes write there, too."""
    for protocol in ("gcs", "gs", "s3", "az", "abfs"):
        fsspec.config.conf.setdefault(protocol, {}).setdefault("use_listings_cache", False)


def check_run(workdir: epath.Path, what: str) -> None:
    """Refuses a place of a store where no run can be written, before anything is computed.

    Raises:
      ConfigError: says what to do.
    """
    scheme = scheme_of(workdir)
    if not scheme:
        return
    if scheme != "gs":
        raise ConfigError(
            f"{what} {workdir}: checkpoints are written to folders of this machine and to gs:// "
            f"buckets; mount this bucket and name the mounted folder. Pictures, exports and "
            f"weights may lie in {scheme}://"
        )
    if not importlib.util.find_spec("gcsfs"):
        raise ConfigError(
            f"{what} {workdir}: a run in gs:// needs gcsfs, by which old checkpoints are removed: "
            "pip install gcsfs"
        )
    check_writable(workdir, what)


def check_writable(folder: epath.Path, what: str) -> None:
    """Refuses a place of a store that cannot be written to.

    Raises:
      ConfigError: with what the store said.
    """
    if not scheme_of(folder):
        return
    probe = folder / f".writable-{os.getpid()}"
    try:
        probe.write_bytes(b"yes\n")
        probe.unlink(missing_ok=True)
    except Exception as error:  # every store has errors of its own
        raise ConfigError(
            f"{what} {folder}: cannot be written to ({told(error)}); is there "
            "such a bucket, and do the credentials of this machine permit it?"
        ) from None


def absolute(path: epath.PathLike) -> epath.Path:
    """The whole name of a place, links followed."""
    return epath.Path(path if scheme_of(path) else Path(path).resolve())


def make_folder(folder: epath.Path) -> None:
    """Makes a folder and those above it, where folders are made."""
    if not scheme_of(folder):
        folder.mkdir(parents=True, exist_ok=True)


def matching(folder: epath.PathLike, pattern: str) -> list[epath.Path]:
    """What lies in a folder under such names, sorted; nothing where there is no folder."""
    folder = epath.Path(folder)
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if fnmatch.fnmatchcase(p.name, pattern))


def write_whole(path: epath.PathLike, content: bytes | str) -> None:
    """Writes a file so that it is never half there: under another name first, or as one object.

    Args:
      path: the file; its folder exists.
      content: text is written as UTF-8.
    """
    path = epath.Path(path)
    content = content.encode() if isinstance(content, str) else content
    if scheme_of(path):
        path.write_bytes(content)
        return
    partial = path.with_name(f"{path.stem}.part{path.suffix}")
    partial.write_bytes(content)
    partial.replace(path)


def copy(source: epath.PathLike, target: epath.PathLike) -> None:
    """Copies a file, or a folder with all that is in it, from one place to another."""
    source, target = epath.Path(source), epath.Path(target)
    if source.is_dir():
        for part in sorted(source.iterdir()):
            copy(part, target / part.name)
        return
    make_folder(target.parent)
    source.copy(target, overwrite=True)


def made_whole(path: epath.PathLike, make: Callable[[epath.Path], None]) -> None:
    """Makes a file or folder that is there as a whole or not at all; one that is there stays.

    Args:
      path: what is made.
      make: makes it at the place that it is given, on a file system.
    """
    path = epath.Path(path)
    if is_whole(path):
        return
    if scheme_of(path):
        with tempfile.TemporaryDirectory(prefix="jaxt2i-") as scratch:
            part = epath.Path(scratch) / path.name
            make(part)
            copy(part, path)
            if part.is_dir():
                (path / COMPLETE).write_bytes(b"yes\n")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    if part.exists():
        part.rmtree()
    make(part)
    part.replace(path)


def is_whole(path: epath.Path) -> bool:
    """Whether something that `made_whole` makes is there."""
    if scheme_of(path) and path.is_dir():
        return (path / COMPLETE).exists()
    return path.exists()


_COPIES: dict[str, tempfile.TemporaryDirectory] = {}


def here(path: epath.PathLike) -> Path:
    """A file or folder for what opens files of this machine alone; a copy, if it lies in a store.

    Copies are made once and last as long as the process.

    Raises:
      FileNotFoundError: where a store holds nothing of that name.
    """
    if not scheme_of(path):
        return Path(path)
    source = of(path)
    name = os.fspath(source)
    if name not in _COPIES:
        if not source.exists():
            raise FileNotFoundError(f"{name}: nothing of that name is there")
        copies = tempfile.TemporaryDirectory(prefix="jaxt2i-")
        copy(source, epath.Path(copies.name) / source.name)
        _COPIES[name] = copies
    return Path(_COPIES[name].name) / source.name
