"""Bytes of captions to text: a byte order mark decides, else it is UTF-8; the rest is refused.

Letters are never guessed: where bytes stand for none, the line that holds them is told apart, so
that whoever reads it can count it.
"""

import codecs
import io

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins like the next one
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Why a caption cannot be used.
NOT_UTF8 = "not UTF-8"
# Stands for undecodable bytes. No decoder yields it: half of a surrogate pair is no character.
_HOLE = "\udcff"
# Share of zero bytes, all of them at even or all at odd places, that only UTF-16 has: its spaces,
# digits and line ends alone hold as many.
_ZEROS = 1 / 20

codecs.register_error("jaxt2i_hole", lambda error: (_HOLE, error.end))


def encoding_of(content: bytes) -> tuple[str, bytes]:
    """(name of the encoding that the mark tells, else "utf-8"; the bytes behind the mark)."""
    for mark, name in MARKS:
        if content.startswith(mark):
            return name, content[len(mark) :]
    return "utf-8", content


def decoded(content: bytes) -> str | None:
    """The text; None where it is not UTF-8, or not what its byte order mark says."""
    name, rest = encoding_of(content)
    if name == "utf-8" and _is_wide(rest):
        return None
    try:
        return rest.decode(name)
    except UnicodeDecodeError:
        return None


def lines(content: bytes) -> list[str]:
    """The lines with their ends (CR LF, CR or LF alone); ask `is_text` of each, or of its parts."""
    name, rest = encoding_of(content)
    if name == "utf-8" and _is_wide(rest):
        return [_HOLE]
    return list(io.StringIO(rest.decode(name, "jaxt2i_hole"), newline=""))


def held(content: bytes) -> str:
    """The text; what cannot be decoded stays as something that `is_text` finds."""
    name, rest = encoding_of(content)
    return rest.decode(name, "jaxt2i_hole")


def is_text(line: str) -> bool:
    """Whether all of a text of `lines` or `held`, or of a part of it, could be decoded."""
    return _HOLE not in line


def _is_wide(content: bytes) -> bool:
    """Whether bytes without a mark are UTF-16 all the same, which may pass for UTF-8."""
    count = content.count(0)
    if count < 2 or count < _ZEROS * len(content):
        return False
    return content[::2].count(0) in (0, count)
