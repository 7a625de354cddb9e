"""Rows of words: files of them, layers of them, and one sentence for every mistake."""

import codecs
import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxt2i.data import rows
from jaxt2i.data.rows import Row, laid_over, read_file
from jaxt2i.data.schema import DataError

WRONG = {
    "a text is no row": ("a cat", r'a condition row is "a cat"; expected an object such as'),
    "unknown word": ({"promt": "a"}, r"no word 'promt'; did you mean 'prompt'\?"),
    "unlike any word": ({"xyzzy": 1}, r"no word 'xyzzy'; known: prompt, negative, label, objects"),
    "prompt null": ({"prompt": None}, r"'prompt' is null; expected a text .* left out"),
    "prompt NaN": ({"prompt": float("nan")}, r"'prompt' is NaN; expected a text .* left out"),
    "prompt number": ({"prompt": 3}, r"'prompt' is 3; expected a text"),
    "prompt list": ({"prompt": ["a", "b"]}, r"'prompt' is \[\"a\", \"b\"\]; expected a text"),
    "prompt empty": ({"prompt": " \t"}, r"'prompt' is \" \\t\"; expected a text that is not empty"),
    "half a character": ({"prompt": "a \ud83d"}, r"'prompt' is .* expected a text"),
    "negative number": ({"negative": 0}, r"'negative' is 0; expected a text"),
    "label null": ({"label": None}, r"'label' is null; expected .* left out"),
    "seed a half": ({"seed": 1.5}, r"'seed' is 1\.5; expected a whole number from 0 to 4294967295"),
    "seed a float": ({"seed": 3.0}, r"'seed' is 3\.0; expected a whole number"),
    "seed a text": ({"seed": "3"}, r"'seed' is \"3\"; expected a whole number"),
    "seed a truth": ({"seed": True}, r"'seed' is true; expected a whole number"),
    "seed below": ({"seed": -1}, r"'seed' is -1; expected a whole number from 0"),
    "seed above": ({"seed": 2**32}, r"'seed' is 4294967296; expected .* to 4294967295"),
    "controls a list": ({"controls": [1]}, r"'controls' is \[1\]; expected an object of numbers"),
    "controls NaN": ({"controls": {"psi": float("nan")}}, r"'controls' is \{\"psi\": NaN\}; expec"),
    "controls nested": ({"controls": {"psi": [1]}}, r"'controls' is .* expected an object of num"),
    "units": ({"units": "cm"}, r"'units' is \"cm\"; expected \"fractions\" or \"pixels\""),
    "units list": ({"units": []}, r"'units' is \[\]; expected \"fractions\" or \"pixels\""),
    "size": ({"size": [640]}, r"'size' is \[640\]; expected \[width, height\]"),
    "size zero": ({"size": [640, 0]}, r"'size' is \[640, 0\]; expected \[width, height\]"),
    "size endless": (
        {"size": [10**400, 9]},
        r"'size' is \[1000.* \.\.\.; expected \[width, height",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said(case):
    row, sentence = WRONG[case]
    with pytest.raises(DataError, match=sentence):
        rows.check(row)


def test_what_is_right_passes():
    rows.check({})
    rows.check({"prompt": "ein Vogel 🐦", "negative": "", "seed": 2**32 - 1, "size": (640, 480)})
    rows.check({"controls": {"guidance": 5, "greedy": True, "how": "ddim"}, "note": None})
    rows.check({"number": 3, "file_name": "000003.png", "text": "a cat", "prompt": "a cat"})


@given(st.dictionaries(st.sampled_from(rows.WORDS), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=3),
    max_leaves=6,
)))  # fmt: skip
def test_anything_in_a_row_passes_or_is_one_sentence(row):
    said = ""
    try:
        rows.check(row)
    except DataError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 400


# --- files ----------------------------------------------------------------------------------------


def kept(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_line_is_a_row_and_knows_its_place(tmp_path):
    text = '{"prompt": "a\u2028b\u0085c"}\r\n\n  \n{"prompt": "d", "seed": 3}'
    found = read_file(kept(tmp_path, "c.jsonl", text))
    assert found == [{"prompt": "a\u2028b\u0085c"}, {"prompt": "d", "seed": 3}]
    assert "origin" not in json.dumps(found)
    with pytest.raises(DataError, match=r"^/.*c\.jsonl line 4: 'seed' is 9"):
        raise rows.misfit(found[1], "seed", 9, "7")


@pytest.mark.parametrize(
    "text", ['[{"prompt": "a"},\n\n {"prompt": "b"}]\n', " [\n] ", '{"seed":\n3}']
)
def test_a_document_is_a_list_or_a_row(tmp_path, text):
    path, value = kept(tmp_path, "c.json", text), json.loads(text)
    if not value:
        with pytest.raises(DataError, match="holds no rows"):
            read_file(path)
        return
    found = read_file(path)
    assert found == (value if isinstance(value, list) else [value])
    assert found[-1].origin[""] == f"{path} line {3 if len(found) > 1 else 1}"


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [("utf-8", b""), ("utf-8", codecs.BOM_UTF8), ("utf-16-le", codecs.BOM_UTF16_LE),
     ("utf-16-be", codecs.BOM_UTF16_BE), ("utf-32-le", codecs.BOM_UTF32_LE)],
)  # fmt: skip
@pytest.mark.parametrize("name", ["c.json", "c.jsonl"])
def test_marked_encodings_are_read(tmp_path, encoding, mark, name):
    path = kept(tmp_path, name, mark + '{"prompt": "鸟 é"}\n'.encode(encoding))
    assert read_file(path) == [{"prompt": "鸟 é"}]


FILES = {
    "empty": ("c.jsonl", "", r"c\.jsonl: holds no rows; expected a line such as"),
    "blank": ("c.jsonl", " \n\n", r"c\.jsonl: holds no rows"),
    "empty document": ("c.json", "\n", r"c\.json: holds no rows"),
    "captions": ("c.txt", "a cat\n", r"c\.txt line 1: not JSON .*\"a cat\".*--prompts-file"),
    "broken line": ("c.jsonl", '{"seed": 1}\n{"seed": }', r"line 2: not JSON \(Expecting value"),
    "cut off": ("c.jsonl", '{"seed": 1}\n{"se', r"c\.jsonl line 2: not JSON \(Unterminated string"),
    "spread": ("c.jsonl", '[{"seed": 1},\n{"seed": 2}]', r"line 1: not JSON .*belong in a \.json"),
    "twice": ("c.jsonl", '{"seed": 1, "seed": 2}', r"line 1: not JSON \('seed' stands twice\)"),
    "deep": ("c.jsonl", "[" * 99_999, r"line 1: not JSON \(nested too deeply\)"),
    "number": ("c.json", "3", r"c\.json line 1: holds 3; expected an object"),
    "text": ("c.jsonl", '"a cat"', r"c\.jsonl line 1: holds \"a cat\"; expected an object"),
    "list of texts": ("c.json", '[{},\n"a"]', r"c\.json line 2: holds \"a\"; expected an object"),
    "lines": ("c.json", '{"seed": 1}\n{"seed": 2}', r"line 2: not JSON \(Extra data.*\.jsonl file"),
    "comma": ("c.json", '[{"seed": 1},\n]', r"c\.json line 2: not JSON \(Expecting value"),
    "no comma": ("c.json", '[{}\n{}]', r"c\.json line 2: not JSON \(Expecting ',' delimiter"),
    "open": ("c.json", '[{}', r"c\.json line 1: not JSON \(Expecting ',' delimiter"),
    "after": ("c.json", '[{}]\n[]', r"c\.json line 2: not JSON \(Extra data"),
    "Latin": ("c.jsonl", b'{}\n{"prompt": "\xe9"}', r"line 2: not UTF-8 text \(byte 0xe9\)"),
    "UTF-16 cut": ("c.json", codecs.BOM_UTF16_LE + b"{", r"c\.json line 1: not UTF-16 text"),
    "unknown word": ("c.jsonl", '{}\n{"lable": 1}', r"line 2: .*no word 'lable'; .* 'label'\?"),
    "wrong word": ("c.json", '[{},\n\n{"seed": -1}]', r"c\.json line 3: 'seed' is -1"),
    "NaN": ("c.jsonl", '{"prompt": NaN}', r"c\.jsonl line 1: 'prompt' is NaN; expected a text"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_files_that_cannot_be_read_are_named(tmp_path, case):
    name, content, sentence = FILES[case]
    with pytest.raises(DataError, match=sentence):
        read_file(kept(tmp_path, name, content))


def test_files_that_are_not_there(tmp_path):
    kept(tmp_path, "conditions.jsonl", "{}")
    with pytest.raises(DataError, match=r"no such file; did you mean 'conditions\.jsonl'\?"):
        read_file(tmp_path / "condition.jsonl")
    with pytest.raises(DataError, match=r"no such file; there is no folder .*nowhere either"):
        read_file(tmp_path / "nowhere" / "c.jsonl")
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        read_file(tmp_path)


def test_files_of_a_row_lie_beside_it(tmp_path):
    row = {"image": "a/b.png", "objects": [{"mask": "/m.png"}, {"mask": "n.png"}, 3], "label": "c"}
    (found,) = read_file(kept(tmp_path, "c.jsonl", json.dumps(row)))
    assert found["image"] == str(tmp_path / "a/b.png")
    assert found["objects"] == [{"mask": "/m.png"}, {"mask": str(tmp_path / "n.png")}, 3]
    assert found["label"] == "c"
    assert set(found.origin) == {"", *row}


# --- layers and places ----------------------------------------------------------------------------


def test_places_follow_the_words():
    a = Row({"prompt": "a", "seed": 1}, {"": "f line 1", "prompt": "f line 1", "seed": "f line 1"})
    b = a | {"seed": 2} | Row({"label": 3}, {"": "g line 9", "label": "g line 9"})
    assert b == {"prompt": "a", "seed": 2, "label": 3}
    assert b.origin == {"": "g line 9", "prompt": "f line 1", "label": "g line 9"}
    assert ({"prompt": "z", "note": 1} | a).origin == a.origin
    assert str(rows.fault(b, "seed", "no")) == "no", "given by hand"
    assert str(rows.fault(b, "label[3].x", "no")) == "g line 9: no"
    for same in (copy.copy(a), copy.deepcopy(a), pickle.loads(pickle.dumps(a))):
        assert (same, same.origin) == (a, a.origin)


def test_later_layers_win_and_one_row_serves_all():
    found = laid_over(
        [{"prompt": "a", "seed": 1}, {"prompt": "b", "seed": 1}],
        [{"seed": 7}],
        [{}, {"prompt": "c"}],
    )
    assert found == [{"prompt": "a", "seed": 7}, {"prompt": "c", "seed": 7}]


@pytest.mark.parametrize("layers", [([{}] * 2, [{}] * 3), ([{}], []), ()])
def test_layers_that_do_not_go_together(layers):
    with pytest.raises(DataError, match=r"layers of .* rows do not go together; expected as many"):
        laid_over(*layers)


def test_boxes_of_two_layers_are_measured_alike():
    region = {"edit_region": [[0, 0, 9, 9]], "units": "pixels", "size": [64, 48]}
    with pytest.raises(DataError, match=r"'objects' and 'edit_region' come from two layers, measu"):
        laid_over([{"objects": []}], [region])
    other = {"objects": [], "units": "pixels", "size": [32, 32]}
    with pytest.raises(DataError, match=r"in pixels of \[32, 32\] and in pixels of \[64, 48\]"):
        laid_over([other], [region])
    assert laid_over([{"objects": []}], [{"units": "pixels"}])[0]["units"] == "pixels"
