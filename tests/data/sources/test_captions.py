"""Files of captions: each row is read whole or counted, with its number."""

import codecs
import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jaxt2i.data.decoding import NOT_UTF8
from jaxt2i.data.pictures import Framing
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources.base import BAD_LINE, NO_CAPTION, NO_TEXT
from jaxt2i.data.sources.captions import read_metadata
from jaxt2i.data.sources.folders import Folder


def rows(tmp_path, content, kind="csv"):
    file = tmp_path / f"metadata.{kind}"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_metadata(file.read_bytes(), str(file)))


def opened(path, captions=(), **names):
    """A folder of pictures named by letters, with files of captions."""
    path.mkdir(exist_ok=True)
    for name in captions:
        Image.new("RGB", (24, 24), "red").save(path / f"{name}.png")
    return Folder(path, Framing(16), report=path.parent / "report.json")


def listed(source):
    return {entry["file"]: entry["reason"] for entry in source.report["skipped_files"]}


def said(source):
    return {source.name(i): source.captions(i) for i in range(source.size)}


# --- Comma-separated values --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("a.png,a small bird, red and blue\nb.png,fine\n", {3: "fine"}),
        ("a.png,fine,\nb.png,fine\n", {3: "fine"}),
        ('a.png,"a \\"quoted\\" bird"\nb.png,fine\n', {3: "fine"}),
        ('a.png,"open\nb.png,fine\nc.png,"fine, too"\n', {3: "fine", 4: "fine, too"}),
        ('b.png,fine\nc.png,"open at the end\n', {2: "fine"}),
        ('b.png,"fine, ""quoted""\nover two lines"\n', {2: 'fine, "quoted"\nover two lines'}),
        ('b.png,fine\r\nc.png,a 5" nail\r\n', {2: "fine", 3: 'a 5" nail'}),
        ("b.png,fine\rc.png,old ends\r", {2: "fine", 3: "old ends"}),
        ("a.png\nb.png,fine\n\nc.png,\n", {3: "fine", 5: ""}),
    ],
)
def test_rows_of_csv_are_whole_or_malformed(tmp_path, text, right):
    head = "file_name,text" + ("\r" if "\n" not in text else "\n")
    found = rows(tmp_path, head + text)
    assert {line: texts[0] for line, reason, _, texts in found if not reason} == right
    others = {line: reason for line, reason, _, _ in found if reason}
    assert set(others.values()) <= {BAD_LINE}
    lines = [n for n, line in enumerate(text.splitlines(), 2) if line.startswith("a.png")]
    assert others.keys() >= set(lines)


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), min_size=1)


@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6), st.sampled_from(["\n", "\r\n"]))
def test_what_a_writer_of_csv_wrote_comes_back(tmp_path_factory, pairs, ends):
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=ends, quoting=csv.QUOTE_ALL)
    writer.writerows([("file_name", "text"), *pairs])
    found = rows(tmp_path_factory.mktemp("csv"), out.getvalue())
    assert [(name, *texts) for _, reason, name, texts in found if not reason] == pairs
    assert len(found) == len(pairs)


@given(st.text('a,"\n\\ ', max_size=60))
def test_any_csv_is_read_or_counted(tmp_path_factory, text):
    """No quote that is left open takes the rows behind it along."""
    found = rows(tmp_path_factory.mktemp("csv"), f"file_name,text\n{text}\nz.png,last\n")
    assert found[-1][1:] == ("", "z.png", ["last"])
    assert {reason for _, reason, _, _ in found} <= {"", BAD_LINE}


def test_columns_are_named_when_they_are_missing(tmp_path):
    with pytest.raises(DataError, match="its columns are file_name;text"):
        rows(tmp_path, "file_name;text\na.png;red\n")
    with pytest.raises(DataError, match="its columns are none"):
        rows(tmp_path, "")


# --- Bytes that are no text --------------------------------------------------------------------


def test_text_files_that_are_not_utf8_are_counted(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    contents = {
        "latin": "un café".encode("latin-1"),
        "sjis": "星".encode("cp932"),
        "wide": codecs.BOM_UTF16_LE + "une étoile".encode("utf-16-le"),
        "big": codecs.BOM_UTF16_BE + "une étoile".encode("utf-16-be"),
        "mixed": "a\nun café\nété".encode("latin-1") + "\nun thé\n".encode(),
        "plain": "a \ufffd bird".encode(),
    }
    for name, content in contents.items():
        (data / f"{name}.txt").write_bytes(content)
    source = opened(data, contents)
    assert said(source) == {
        "big.png": ["une étoile"],
        "mixed.png": ["a", "un thé"],
        "plain.png": ["a \ufffd bird"],
        "wide.png": ["une étoile"],
    }
    bad = ("latin.txt:1", "sjis.txt:1", "mixed.txt:2", "mixed.txt:3")
    assert listed(source) == dict.fromkeys(bad, NOT_UTF8)
    assert source.report["unused_images"] == {NOT_UTF8: 2}


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_metadata_lines_that_are_not_utf8_are_counted(tmp_path, kind):
    data = tmp_path / "data"
    data.mkdir()
    texts = {"a": b"un caf\xe9", "b": "un café".encode(), "c": b"\x90\xaf"}
    form = b'{"file_name": "%b.png", "text": "%b"}' if kind == "jsonl" else b"%b.png,%b"
    lines = [form % (name.encode(), text) for name, text in texts.items()]
    head = [b"file_name,text"] if kind == "csv" else []
    (data / f"metadata.{kind}").write_bytes(b"\n".join(head + lines))
    source = opened(data, texts)
    assert said(source) == {"b.png": ["un café"]}
    found = listed(source)
    first = 1 + len(head)
    assert found[f"metadata.{kind}:{first}"] == found[f"metadata.{kind}:{first + 2}"] == NOT_UTF8
    assert source.report["skipped"] == {NOT_UTF8: 2, NO_CAPTION: 2}


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marked_metadata_is_read(tmp_path, kind, encoding):
    row = (
        '{"file_name": "é.png", "text": "thé"}' if kind == "jsonl" else "file_name,text\né.png,thé"
    )
    assert [x[1:] for x in rows(tmp_path, row.encode(encoding), kind)] == [("", "é.png", ["thé"])]


def test_captions_that_are_no_text_are_counted(tmp_path):
    values = ["NaN", "null", "3", "[]", '["a", 1]', "[null]", "{}", "true", "Infinity"]
    lines = [f'{{"file_name": "a.png", "text": {value}}}' for value in values]
    lines += [json.dumps({"file_name": name, "text": "x"}) for name in (None, 3, "", ["a.png"])]
    lines.append('{"file_name": "a.png", "text": "good"}')
    data = tmp_path / "data"
    data.mkdir()
    (data / "metadata.jsonl").write_text("\n".join(lines))
    source = opened(data, "a")
    assert said(source) == {"a.png": ["good"]}
    assert source.report["skipped"] == {BAD_LINE: len(lines) - 2, NO_TEXT: 1}
