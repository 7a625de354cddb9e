"""Vocabularies of a person's own captions, from every source there is."""

import json
import shutil

import pytest
from PIL import Image

from jaxt2i import prepare
from jaxt2i.data import vocabulary, words
from jaxt2i.data.builders.cub import Jaxt2iCub
from jaxt2i.data.tokenize import make_tokenizer
from jaxt2i.encoders.perception import MINI
from tests.data.builders import test_cub
from tests.data.builders.built import build

SAID = ["a red apple", "a red pear", "the green apple, on a table"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    for i, text in enumerate(SAID):
        Image.new("RGB", (20, 20)).save(root / f"{i}.png")
        (root / f"{i}.txt").write_text(text + "\n")
    return root


def made(capsys, *args):
    prepare.main(["vocabulary", *map(str, args)])
    return capsys.readouterr().out


def test_words_of_a_folder(folder, tmp_path, capsys):
    out = made(capsys, "--from", folder, "--to", tmp_path / "own-words.json")
    assert "9 ids from 3 captions" in out
    assert f"--config.data.tokenizer={tmp_path}/own-words.json" in out
    found = make_tokenizer(tmp_path / "own-words.json", 4)
    assert found.words == ("<end>", "a", "apple", "green", "on", "pear", "red", "table", "the")


@pytest.mark.parametrize(
    ("more", "known"),
    [(("--least", 2), {"a", "red", "apple"}), (("--size", 3), {"a", "apple"})],
)
def test_rare_words_are_left_out(folder, tmp_path, capsys, more, known):
    made(capsys, "--from", folder, "--to", tmp_path / "words.json", *more)
    assert set(make_tokenizer(tmp_path / "words.json", 4).words) == {"<end>", *known}


def test_a_pickle_as_the_official_repositories_read_it(folder, tmp_path, capsys):
    for split in ("train", "test"):
        shutil.copytree(folder, tmp_path / "in" / split)
    made(capsys, "--from", tmp_path / "in", "--to", tmp_path / "captions.pickle")
    content = words.read_captions_pickle(tmp_path / "captions.pickle")
    assert len(content["train"]) == len(content["test"]) == 3
    first = [content["words"][i] for i in content["train"][0]]
    assert first in [words.words_of(text) for text in SAID]


def test_records_are_read_as_they_are_prepared(tmp_path, capsys):
    build(Jaxt2iCub, test_cub.tree(tmp_path / "in"), tmp_path / "out")
    made(capsys, "--from", tmp_path / "out", "--to", tmp_path / "words.json")
    assert make_tokenizer(tmp_path / "words.json", 4).vocab_size > 3


def test_the_shipped_pieces_are_made_by_one_command(tmp_path, capsys):
    how = ("--pieces", "--size", 640, "--pictures", 4000, "--to", tmp_path / "pieces.json")
    made(capsys, *how)
    shipped = json.loads((MINI / "tokenizer.json").read_text())
    assert json.loads((tmp_path / "pieces.json").read_text()) == shipped


@pytest.mark.parametrize(
    ("name", "kind"),
    [("x/dataset_info.json", "records"), ("00000.tar", "webdataset"), ("a.png", "folder")],
)
def test_a_folder_says_what_reads_it(tmp_path, name, kind):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert vocabulary.kind_of(str(tmp_path)) == kind


@pytest.mark.parametrize(
    ("args", "words_of_it"),
    [
        (("--from", "nowhere", "--to", "words.json"), "--from nowhere: no such folder"),
        (("--to", "own.json"), "vocabularies of words are called NAME.pickle"),
        (("--pieces", "--to", "own.pickle"), "those of --pieces NAME.json"),
    ],
)
def test_what_cannot_be_made_is_said(tmp_path, monkeypatch, args, words_of_it):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=words_of_it):
        prepare.main(["vocabulary", *args])
