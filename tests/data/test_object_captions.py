"""Captions that name objects, and the lists of them."""

import json
import pickle

import pytest

from jaxt2i.data import object_captions
from jaxt2i.data.schema import DataError
from tests.verify.test_goldens import GOLDENS


def test_rules_are_those_that_reproduce_the_published_lists():
    table = json.loads((GOLDENS / "soa" / "caption_rules.json").read_text())
    ours = [
        {"file": r.name, "include": [*r.include], "exclude": [*r.exclude], "n_captions": r.captions}
        for r in object_captions.RULES
    ]
    assert ours == [table[str(n)] for n in range(80)]


SAID = ["A dog and a hot dog on it", "a pancake on two plates", "the hydrant.", "Two buses  go by"]


def test_lists_go_into_files_and_back(tmp_path):
    entries = [
        {"image_id": 7 + i, "id": i, "idx": [i, 0], "caption": s} for i, s in enumerate(SAID)
    ]
    found = object_captions.lists(entries)
    assert {n: [e["id"] for e in es] for n, es in found.items() if es} == {5: [3], 55: [1]}
    object_captions.write(tmp_path, found)
    assert len(list(tmp_path.iterdir())) == 80
    assert object_captions.read(tmp_path) == found
    counts = {n: rule.captions for n, rule in enumerate(object_captions.RULES)}
    assert object_captions.difference(counts) == ""
    said = object_captions.difference(counts | {9: 644, 79: 0})
    assert "2 of 80" in said
    assert "label_09_trafficlight 644 for 645" in said


class Trap:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"holds no label_\*.pkl; they are in SOA/captions of https"),
        ([[0, 1], [5, 2]], "list of indices, as it was until February 2020"),
        ([{"text": "x"}], "expected a list of dictionaries with a 'caption'"),
        (Trap(), "builtins.print, which is refused without running it"),
        (b"\x80", "not a readable pickle"),
    ],
)
def test_other_files_are_refused(tmp_path, content, said, capsys):
    if content is not None:
        data = content if isinstance(content, bytes) else pickle.dumps(content)
        (tmp_path / "label_01_bicycle.pkl").write_bytes(data)
    with pytest.raises(DataError, match=said):
        object_captions.read(tmp_path)
    assert "run" not in capsys.readouterr().out
