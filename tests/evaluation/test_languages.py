"""Captions in other languages: what is chosen, drawn with one seed, and held against what."""

import types

import numpy as np
import pytest

from jaxt2i import evaluate
from jaxt2i.evaluation import languages
from jaxt2i.metrics.score import MetricError

SPOKEN = [
    {"en": ["red apple", "fruit"], "de": ["roter Apfel"], "ja": ["赤いりんご"]},
    {"en": ["radio"], "de": ["Radio"], "ja": ["ラジオ"]},
    {"en": ["whale"], "de": ["Wal"]},
    {"de": ["Fuchs"], "ja": ["キツネ"]},
    {"en": ["owl"]},
]


class Source:
    size, index = len(SPOKEN), types.SimpleNamespace(language_names=np.array(["de", "en", "ja"]))

    def by_language(self, number):
        return SPOKEN[number]


def test_pictures_with_a_caption_in_two_languages_are_chosen():
    pictures, said, same = languages.chosen(Source(), ["en", "de", "ja"], 10, 0)
    found = dict(zip(pictures, said, strict=True))
    assert set(found) == {0, 1, 2}
    assert found[0] == {"en": "red apple", "de": "roter Apfel", "ja": "赤いりんご"}
    # What says the same draws the same.
    assert (found[1], same) == ({"en": "radio", "ja": "ラジオ"}, 1)
    assert len(languages.chosen(Source(), ["en", "de", "ja"], 2, 0)[0]) == 2
    assert languages.chosen(Source(), ["en", "de"], 10, 0)[0] != pictures


@pytest.mark.parametrize(
    ("asked", "trained", "found"),
    [
        ("", (), ["en", "de", "ja"]),
        ("", ("de",), ["de", "en", "ja"]),
        ("", ("ja", "en", "fr"), ["ja", "en"]),
        ("ja,de", ("en",), ["ja", "de"]),
    ],
)
def test_the_first_language_is_held_against(asked, trained, found):
    assert languages.languages_of(asked, trained, ["de", "en", "ja"]) == found


def test_what_cannot_be_held_against_is_said():
    with pytest.raises(MetricError, match="--languages fr: the data has de, en"):
        languages.languages_of("en,fr", (), ["de", "en"])
    with pytest.raises(MetricError, match="the data has en, and en is asked for"):
        languages.languages_of("", (), ["en"])
    for said in ([], [{"en": "owl", "de": "Eule"}], [{"en": "owl", "de": "Eule"}] * 2):
        with pytest.raises(
            MetricError, match=rf"found {len(said)} pictures .* in en .* two or more"
        ):
            languages.drawings(said, "en")
    with pytest.raises(SystemExit):
        evaluate.arguments(["--workdir", "x", "--languages", "en,de"])


def test_similarities_are_those_of_one_seed_and_their_floor_that_of_another_caption():
    said = [{"en": "red apple", "de": "roter Apfel"}, {"en": "whale", "de": "Wal", "ja": "鯨"}]
    asked = languages.drawings(said, "en")
    assert [(d.of, d.language, d.text) for d in asked if d.language == languages.OTHER] == [
        (0, "", "whale"),
        (1, "", "red apple"),
    ]
    # An encoder that reads German as English, and no Japanese.
    sees = {"red apple": 0, "roter Apfel": 0, "whale": 1, "Wal": 1, "鯨": 2}
    seen = np.eye(3)[[sees[d.text] for d in asked]]
    alike, floor = languages.compared(asked, seen, "en")
    assert alike == {"de": {0: 1.0, 1: 1.0}, "ja": {1: 0.0}}
    assert floor == {0: 0.0, 1: 0.0}
    row = languages.table(alike, floor)["ja"]
    assert row["similarity"] == row["another caption"] == row["nearer than another caption"] == 0
    assert languages.table(alike, floor)["de"]["nearer than another caption"] == 1
