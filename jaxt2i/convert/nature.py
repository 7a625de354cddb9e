"""What a file is by its first bytes, where it is not what its name says."""

import json
from collections.abc import Callable

from etils import epath

# Bytes that are looked at.
HEAD = 512
AGAIN = "download the file itself again"
PACKED = "unpack it and give what is inside"
# How files begin that are no weights: (first bytes, what it is, what to do).
BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer", "git lfs pull, or " + AGAIN),
    (b"\x1f\x8b", "compressed by gzip", "gunzip it and give what comes out"),
    (b"BZh", "compressed by bzip2", PACKED),
    (b"\xfd7zXZ\0", "compressed by xz", PACKED),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", PACKED),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", PACKED),
    (b"Rar!", "a RAR archive", PACKED),
    (b"\x89PNG", "a picture (PNG)", AGAIN),
    (b"\xff\xd8\xff", "a picture (JPEG)", AGAIN),
    (b"%PDF", "a PDF", AGAIN),
)
HDF5 = b"\x89HDF\r\n\x1a\n"


def head_of(path: epath.Path) -> bytes:
    """The first bytes of a file, fewer where it is shorter."""
    with path.open("rb") as stream:
        return stream.read(HEAD)


def strange(path: epath.Path) -> str:
    """What a file is instead of weights, and what to do, in words; "" where nothing is known.

    Args:
      path: a file that is there.
    """
    head, size = head_of(path), path.stat().length
    if not size:
        return f"empty (0 bytes); {AGAIN}"
    for start, what, remedy in BEGINNINGS:
        if head.startswith(start):
            return f"{what}; {remedy}"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--", b"<body")):
        return f"a web page (HTML or XML) that was saved in place of the file; {AGAIN}"
    if text.startswith((b"{", b"[")):
        return f"text (JSON), perhaps an index or a server's answer; {AGAIN}"
    if head[257:262] == b"ustar":
        return f"a tar archive; {PACKED}"
    if not head.strip(b"\0"):
        return f"nothing but zeros at its beginning, as a download that was cut off; {AGAIN}"
    return ""


def safetensors_size(path: epath.Path) -> int:
    """Bytes that a .safetensors file ought to have by its own header; 0 where it is none."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if stream.read(1) != b"{" or not 2 <= length <= 100_000_000:
            return 0
        header = b"{" + stream.read(length - 1)
    if len(header) < length:
        return 8 + length + 1  # more than there is: the header itself is cut
    try:
        entries = json.loads(header)
        ends = [x["data_offsets"][1] for k, x in entries.items() if k != "__metadata__"]
    except (ValueError, LookupError, TypeError, AttributeError):
        return 0
    return 8 + length + max(ends, default=0)


def cut_off(path: epath.Path, is_zip: Callable[[epath.Path], bool]) -> str:
    """How much of a file is there where it is half a download, in words; "" where it is not.

    Args:
      path: a file that is there.
      is_zip: whether a zip has its end.
    """
    head, size = head_of(path), path.stat().length
    if head.startswith(b"PK\x03\x04") and not is_zip(path):
        return f"half a download: a zip without its end, {size:,} bytes; {AGAIN}"
    ought = safetensors_size(path)
    if ought > size:
        return f"half a download: {size:,} bytes of {ought:,} or more; {AGAIN}"
    return ""
