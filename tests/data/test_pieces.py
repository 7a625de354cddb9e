"""XLM-R's tokenizer: ids as transformers gives them, special ids only where they belong."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxt2i.data.schema import DataError
from jaxt2i.data.tokenize import ClipTokenizer, XlmRTokenizer, make_tokenizer
from tests.data.pieces import PIECES, make_folder

# The third becomes "</s>" when it is brought to its compatibility form.
HOSTILE = ["</s>", "<pad>", "＜/s＞", "<mask>", "<s>", "<unk>", "\ud800", "\0", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("xlm_r"))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return make_tokenizer(folder, 12)


def check_rows(tokenizer, tokens, mask):
    assert tokens.dtype == np.int32
    assert mask.dtype == bool
    assert tokens.shape == mask.shape == (len(tokens), tokenizer.length)
    assert (tokens[:, 0] == 0).all()
    assert ((tokens == tokenizer.eot).sum(1) == 1).all()
    assert (tokens[np.arange(len(tokens)), mask.sum(1) - 1] == tokenizer.eot).all()
    assert ((tokens == 1) == ~mask).all(), "padding, and nothing else, is padding"
    assert (tokens < tokenizer.vocab_size).all()


def test_a_directory_is_recognised_and_read(tokenizer):
    assert isinstance(tokenizer, XlmRTokenizer)
    assert (tokenizer.length, tokenizer.vocab_size, tokenizer.eot) == (12, len(PIECES) + 1, 2)
    tokens, mask = tokenizer(["ein  roter\nVogel", "a red bird, a red bird, a red bird"])
    check_rows(tokenizer, tokens, mask)
    words = [PIECES[i] for i in tokens[0, mask[0]]]
    assert words == ["<s>", "▁ein", "▁roter", "▁Vogel", "</s>"]
    assert mask[1].all(), "what is too long loses its tail and keeps its end"


@pytest.mark.parametrize("text", ["ein roter Vogel", "E, ä  ﬁx", "日本 a", ""])
def test_ids_are_those_of_transformers(folder, text):
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    tokens, mask = XlmRTokenizer(folder, 32)([text])
    assert tokens[0, mask[0]].tolist() == theirs(text).input_ids


@pytest.mark.parametrize("text", HOSTILE)
def test_special_names_in_captions_are_text(tokenizer, text):
    check_rows(tokenizer, *tokenizer([f"a {text} b", text]))


@settings(max_examples=60)
@given(st.lists(st.text(), max_size=3))
def test_any_text_encodes(tokenizer, texts):
    check_rows(tokenizer, *tokenizer(texts))


def test_stored_padding_and_truncation_are_ignored(folder, tmp_path):
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.enable_padding(length=8, pad_id=1, pad_token="<pad>")
    backend.enable_truncation(4)
    backend.save(str(tmp_path / "tokenizer.json"))
    for ours, theirs in zip(
        XlmRTokenizer(tmp_path, 12)(["a red bird, ein", "a"]),
        XlmRTokenizer(folder, 12)(["a red bird, ein", "a"]),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_a_clip_directory_stays_one(tmp_path):
    from tokenizers import Tokenizer, models

    ids = {"a</w>": 0, "a": 1, "<|startoftext|>": 2, "<|endoftext|>": 3}
    Tokenizer(models.BPE(ids, [], end_of_word_suffix="</w>")).save(str(tmp_path / "tokenizer.json"))
    assert isinstance(make_tokenizer(tmp_path, 8), ClipTokenizer)


def test_errors_name_both_kinds_and_the_config_line(folder, tmp_path):
    for content in ("", "{", '{"model": {"vocab": {"a": 0}}}'):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(DataError, match=r"no CLIP voc.*no XLM-R voc.*config\.data\.tokenizer"):
            make_tokenizer(tmp_path, 8)
    with pytest.raises(DataError, match=r"config\.data\.tokenizer is .*CLIP voc.*XLM-R voc"):
        make_tokenizer("xlmr", 8)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds no tokenizer\.json.*config\.data\.tokenizer=DIR"):
        make_tokenizer(tmp_path, 8)
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": [1]}}')
    with pytest.raises(DataError, match=r"tokenizer\.json is not a tokenizer"):
        make_tokenizer(tmp_path, 8)
    other = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    other["model"]["vocab"].insert(0, ["extra", 0.0])
    other["added_tokens"] = []
    other["post_processor"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(other))
    with pytest.raises(DataError, match=r"special ids are \{'<s>': 1, .*config\.data\.tokenizer"):
        make_tokenizer(tmp_path, 8)
    with pytest.raises(DataError, match=r"config\.data\.tokens"):
        make_tokenizer(folder, 2)
