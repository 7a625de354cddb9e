"""Captions in any script: drawn with fonts that have it, else told once."""

import warnings

import numpy as np
import pytest

from jaxt2i.data import fonts, show
from jaxt2i.run import log

KOREAN, AMHARIC, CHINESE, GREEK = "참새 한 마리", "ድንቢጥ", "一只红色的鸟", "κόκκινο πουλί"


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """A machine without fonts, which has told nothing yet."""
    monkeypatch.setattr(fonts, "_candidates", lambda letter: [])
    monkeypatch.setattr(fonts, "_told", set())
    fonts.with_letter.cache_clear()
    yield
    fonts.with_letter.cache_clear()


def test_missing_letters_become_boxes_and_are_told_once(capfd):
    texts = [KOREAN, AMHARIC, CHINESE, GREEK, "plain \u200d\ufe0f🐦"]
    shown, needed = fonts.fitted(texts)
    assert needed == [fonts.default()]
    assert shown == ["□□ □ □□", "□" * 4, "□" * 6, GREEK, "plain \u200d\ufe0f□"]
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    for word in ("Hangul", "Ethiopic", "CJK", "emoji", "fonts-noto-cjk", "fonts-noto-core"):
        assert word in err
    fonts.fitted(texts)
    assert capfd.readouterr().err == ""


def test_fonts_of_the_machine_are_used(monkeypatch):
    """A font stands in that has the letter, as it would be found."""
    found = fonts.default().with_name("DejaVuSerif.ttf")
    asked = []
    monkeypatch.setattr(fonts, "default", lambda: fonts.Path("none.ttf"))
    monkeypatch.setattr(fonts, "_candidates", lambda letter: asked.append(letter) or [found])
    shown, needed = fonts.fitted(["ab πα"])
    assert (shown, needed[1:]) == (["ab πα"], [found])
    assert asked == ["a"], "one font has all of them"


def test_pieces_have_one_font_each():
    known = [frozenset(map(ord, "ab ")), frozenset(map(ord, "xy .")), frozenset()]
    assert fonts.runs("ab xy. a", known) == [(0, "ab "), (1, "xy. "), (0, "a")]
    assert fonts.runs("", known) == []


def test_pictures_with_captions_warn_of_no_letter(tmp_path):
    captions = [KOREAN, AMHARIC, CHINESE, GREEK]
    images = np.full((4, 16, 16, 3), 200, np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sheet = np.asarray(log.grid(images, captions, columns=4))
        tiles = [show.Tile({"image": images[0]}, text, text, names=(text,)) for text in captions]
        show.draw(tiles, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    # Something is written below each picture.
    below = sheet[6 + 128 :]
    for column in range(4):
        assert below[:, 6 + 134 * column : 134 * (column + 1)].min() < 120
