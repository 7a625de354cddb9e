"""Token ids against OpenAI's own, and the vocabularies that we train."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxt2i.data.schema import DataError
from jaxt2i.data.tokenize import BpeTokenizer, ClipTokenizer, left_out, make_tokenizer

GOLDEN = Path(__file__).parent.parent / "goldens" / "galip" / "clip_tokens.json"
CASES = json.loads(GOLDEN.read_text())["cases"]
CAPTIONS = [
    "a red bird with a white belly sits on a branch",
    "a small bird with a red head and a white belly",
    "two boats on the sea below a yellow sun",
    "a yellow daisy with a dark centre in a meadow",
]
HOSTILE = ["<|endoftext|>", "<|startoftext|>", "<start_of_text>", "<end_of_text>"]
HOSTILE += ["<pad>", "<start>", "<end>", "\ud800", "&#xd800;", "\0", "", "é" * 500]


@pytest.fixture(scope="module")
def clip():
    return ClipTokenizer()


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    BpeTokenizer.train(CAPTIONS, 320, path)
    return BpeTokenizer(path, 16)


@pytest.fixture(scope="module")
def clip_files(tmp_path_factory):
    """A vocabulary in CLIP's published layout: bytes, bytes that end a word, three merges."""
    from tokenizers.pre_tokenizers import ByteLevel

    folder = tmp_path_factory.mktemp("clip")
    letters = sorted(ByteLevel.alphabet())
    pieces = letters + [c + "</w>" for c in letters] + ["re", "red</w>", "<|"]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({p: i for i, p in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n< |\n")
    return folder, pieces


def check_rows(tokenizer, tokens, mask):
    assert tokens.dtype == np.int32
    assert mask.dtype == bool
    assert tokens.shape == mask.shape == (len(tokens), tokenizer.length)
    assert (tokens >= 0).all()
    assert (tokens < tokenizer.vocab_size).all()
    ends = tokens.argmax(1)
    assert (ends == mask.sum(1) - 1).all(), "argmax pooling finds the one end token"
    assert ((tokens == tokenizer.eot).sum(1) == 1).all()
    assert (tokens[~mask] == 0).all()


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["text"][:20])
def test_clip_ids_are_those_of_openai(clip, case):
    tokens, mask = clip([case["text"]])
    check_rows(clip, tokens, mask)
    if "<|startoftext|>" in case["text"]:  # the one documented difference
        assert tokens[0, mask[0]].tolist() != case["ids"]
        return
    assert tokens[0, mask[0]].tolist() == case["ids"]


def test_clip_truncates_with_the_end_token_last(clip):
    tokens, mask = ClipTokenizer(8)(["word " * 100, "a red bird"])
    assert tokens[0, -1] == clip.eot == 49407
    assert mask[0].all()
    assert (tokens[1, :5] == clip(["a red bird"])[0][0, :5]).all()


@pytest.mark.parametrize("text", HOSTILE)
def test_special_names_in_captions_are_text(clip, bpe, text):
    for tokenizer in (clip, bpe):
        tokens, mask = tokenizer([f"a {text} b"])
        check_rows(tokenizer, tokens, mask)
        assert (tokens[0, 1:] != tokenizer.start).all()


def test_clip_from_files(clip_files):
    folder, pieces = clip_files
    tokenizer = make_tokenizer(folder, 24)
    assert tokenizer.vocab_size == len(pieces)
    assert tokenizer.eot == len(pieces) - 1
    texts = ["A  red&amp;x “re”", "<|endoftext|> red", ""]
    tokens, mask = tokenizer(texts)
    check_rows(tokenizer, tokens, mask)
    words = [[pieces[i] for i in row[keep][1:-1]] for row, keep in zip(tokens, mask, strict=True)]
    assert words[0] == ["a</w>", "red</w>", "&</w>", "x</w>", '"</w>', "r", "e</w>", '"</w>']
    assert words[1][0] == "<"
    assert words[1][-1] == "red</w>"
    assert words[2] == []


def test_trained_vocabulary(bpe):
    assert bpe.vocab_size <= 320
    tokens, mask = bpe([*CAPTIONS, "A  RED\nbird ", "a red bird", "ﬁsh", "fish"])
    check_rows(bpe, tokens, mask)
    assert (tokens[4] == tokens[5]).all(), "case and spaces do not matter"
    assert (tokens[6] == tokens[7]).all(), "compatibility forms do not matter"
    assert mask[5].sum() == 5, "words of the corpus are single tokens"


def test_a_caption_whose_end_is_not_read_is_told(bpe):
    for count in (1, 13, 14):
        assert left_out(bpe, "a " * count) == ""
    assert bpe(["a " * 14])[1].all()
    for long in ("a " * 15, "a" * 500, "é" * 500):
        assert left_out(bpe, long) == "the end is not read: captions are cut at 16 tokens"


def test_training_is_deterministic(tmp_path):
    for name in ("a.json", "b.json"):
        BpeTokenizer.train(iter(CAPTIONS), 300, tmp_path / name)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(), max_size=3))
def test_any_text_encodes(clip, bpe, texts):
    for tokenizer in (clip, bpe):
        check_rows(tokenizer, *tokenizer(texts))


def test_errors_name_the_fix(tmp_path):
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    for name in ("clipp", tmp_path / "none.json", tmp_path / "other.json", tmp_path / "empty"):
        with pytest.raises(DataError, match=r"config\.data\.tokenizer|BpeTokenizer\.train"):
            make_tokenizer(name, 16)
    with pytest.raises(DataError, match=r"config\.data\.tokens"):
        make_tokenizer("clip", 2)
    with pytest.raises(DataError, match="259"):
        BpeTokenizer.train(CAPTIONS, 100, tmp_path / "small.json")


def test_foreign_vocabularies_are_refused(tmp_path):
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE()).save(str(tmp_path / "bare.json"))
    with pytest.raises(DataError, match="<pad> has id None"):
        BpeTokenizer(tmp_path / "bare.json", 16)


def test_importing_is_cheap():
    code = "import sys, jaxt2i.data.tokenize; print({'transformers', 'tokenizers', 'ftfy', "
    code += "'instant_clip_tokenizer', 'flax', 'tensorflow'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
