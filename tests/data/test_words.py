"""Word vocabularies: the published rules, the published file, and files that must be refused."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxt2i.data import words
from jaxt2i.data.schema import DataError
from jaxt2i.data.tokenize import make_tokenizer

TOKENIZER = words.WordTokenizer(["<end>", "a", "bird", "red", "s", "wing"], 4)


def test_words_are_ascii_runs_in_lower_case():
    assert words.words_of("A bird's RED-wing\ufffd\ufffd, caf\u00e9 \u4e2d 2") == [
        *("a", "bird", "s", "red", "wing", "caf", "2")
    ]


def test_unknown_words_are_left_out_and_nothing_is_left_as_an_end():
    tokens, mask = TOKENIZER(["a blue bird", "blue", ""])
    np.testing.assert_array_equal(tokens, [[1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(mask.sum(1), [2, 1, 1])


def test_long_captions_keep_a_subset_in_order_always_the_same_one():
    caption = "a red bird s wing"
    tokens, mask = TOKENIZER([caption, caption, caption + " a"])
    assert mask.all()
    np.testing.assert_array_equal(tokens[0], tokens[1])
    order = [1, 3, 2, 4, 5]
    at = [order.index(i) for i in tokens[0]]
    assert at == sorted(at)
    # Different captions lose different words.
    lost = {tuple(TOKENIZER([f"{caption} {'x' * k}"])[0][0]) for k in range(30)}
    assert len(lost) == 5


def test_what_is_left_out_of_a_caption_is_told():
    told = TOKENIZER.left_out
    assert told("a red bird") == ""
    assert told("a red dragon, blue") == "the vocabulary does not know 'dragon', 'blue'"
    assert told("dragon!") == told("\u4e2d") != ""
    assert (
        told("a red bird s wing a") == "6 words are known and 4 of them are read, as many as can be"
    )


@given(st.text())
def test_any_text_gives_a_legal_row(text):
    tokens, mask = TOKENIZER([text])
    assert tokens.shape == mask.shape == (1, 4)
    assert mask[0, 0]
    assert ((tokens >= 0) & (tokens < TOKENIZER.vocab_size)).all()
    assert (tokens[~mask] == 0).all()


def test_the_published_pickle_is_read_and_written(tmp_path):
    path = tmp_path / "captions.pickle"
    words.write_captions_pickle(path, TOKENIZER, ["a red bird"], ["a wing", "blue"])
    found = words.read_captions_pickle(path)
    assert found["words"] == list(TOKENIZER.words)
    assert (found["train"], found["test"]) == ([[1, 3, 2]], [[1, 5], []])
    tokenizer = make_tokenizer(path, 4)
    np.testing.assert_array_equal(tokenizer(["a red bird"])[0], TOKENIZER(["a red bird"])[0])


def test_our_own_file_is_read_and_written(tmp_path):
    made = words.WordTokenizer.build(["a red bird", "a bird", "red"], 4, least=2)
    assert made.words == ("<end>", "a", "bird", "red")
    made.save(tmp_path / "words.json")
    assert make_tokenizer(tmp_path / "words.json", 4).words == made.words


class Payload:
    def __reduce__(self):
        return print, ("ran",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([[], [], {0: Payload()}, {}], "print"),
        ([np.zeros(2), [], {}, {}], "numpy"),
        ({"a": 1}, "found dict"),
        ([[], [], {1: "a"}, {"a": 1}], "gap"),
        ([[], [], {0: "a"}, {"a": 0}], "starts with"),
    ],
)
def test_other_pickles_are_refused(tmp_path, content, said, capsys):
    path = tmp_path / "captions.pickle"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=said):
        make_tokenizer(path, 4)
    assert "ran" not in capsys.readouterr().out


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"config\.data\.tokenizer.*captions\.pickle"):
        make_tokenizer("nowhere/captions.pickle", 4)
    for name in ("captions.pickle", "words.json"):
        (tmp_path / name).write_bytes(b"not this")
        with pytest.raises(DataError, match=name):
            make_tokenizer(tmp_path / name, 4)
