"""Files of a work directory, which may be a folder here or a bucket (gs://)."""

from etils import epath


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
