"""Bytes to text: exact where there is a right reading, refused where there is none."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxt2i.data import decoding

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"))
MARKED = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@given(TEXT, st.sampled_from(sorted(MARKED)))
def test_a_mark_decides(text, encoding):
    content = MARKED[encoding] + text.encode(encoding)
    assert decoding.decoded(content) == text
    assert "".join(decoding.lines(content)) == text


@given(TEXT)
def test_without_a_mark_it_is_utf8(text):
    assert decoding.decoded(text.encode()) == text


@given(st.binary())
def test_any_bytes_are_read_as_utf8_or_refused(content):
    if content.startswith(tuple(MARKED.values())) or content.count(0) > 1:
        return
    try:
        right = content.decode()
    except UnicodeDecodeError:
        right = None
    assert decoding.decoded(content) == right
    assert all(map(decoding.is_text, decoding.lines(content))) == (right is not None)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("un café à côté", "latin-1"),
        ("“quoted” – 5 €", "cp1252"),
        ("星の写真", "cp932"),
        ("红色的鸟", "gb18030"),
        ("красная птица", "cp1251"),
        ("a red bird", "utf-16-le"),  # without a mark
        ("красная птица на ветке", "utf-16-be"),
    ],
)
def test_other_encodings_are_not_guessed(text, encoding):
    assert decoding.decoded(text.encode(encoding)) is None
    assert not all(map(decoding.is_text, decoding.lines(text.encode(encoding))))


def test_one_bad_line_spoils_no_other():
    for ends in (b"\n", b"\r\n", b"\r"):
        found = decoding.lines(ends.join([b"a", b"caf\xe9", "café".encode(), b"\xe3"]))
        assert [decoding.is_text(line) for line in found] == [True, False, True, False]
        assert found[2].strip() == "café"
    wide = codecs.BOM_UTF16_LE + "a\n".encode("utf-16-le") + b"\x00\xd8" + "\nb".encode("utf-16-le")
    assert [decoding.is_text(line) for line in decoding.lines(wide)] == [True, False, True]


def test_marks_of_doubt_that_a_file_holds_are_its_own():
    assert decoding.decoded("a \ufffd bird".encode()) == "a \ufffd bird"
