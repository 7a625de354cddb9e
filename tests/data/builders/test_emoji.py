import io
import sys

import numpy as np
import pytest
from PIL import Image

from jaxt2i import prepare
from jaxt2i.data.builders import emoji
from jaxt2i.data.schema import DataError
from tests.data.builders import fonts
from tests.data.builders.built import build

APPLE, GREEN, HAND, DARK, FLAG, HEART = "🍎", "🍏", "👋", "👋🏿", "🇩🇪", "❤️"
COLOURS = {APPLE: (200, 0, 0), GREEN: (0, 200, 0), HAND: (250, 200, 0), DARK: (90, 60, 40)}
COLOURS |= {FLAG: (0, 0, 0), HEART.replace("\ufe0f", ""): (255, 0, 0)}


@pytest.fixture(scope="module")
def font(tmp_path_factory):
    pictures = {text: fonts.png(colour) for text, colour in COLOURS.items()}
    return fonts.write(tmp_path_factory.mktemp("fonts") / "NotoColorEmoji.ttf", pictures)


def test_every_emoji_of_the_font_becomes_a_record(font, tmp_path):
    skips = {}
    made = build(emoji.Jaxt2iEmoji, font.parent, tmp_path, skips, config="grey")
    rows = {row["captions"]["text"][0]: row for split in made.values() for row in split}
    assert set(rows) == {
        "red apple", "green apple", "waving hand", "waving hand dark skin tone", "Germany",
        "red heart",
    }  # fmt: skip
    row = rows["red apple"]
    assert row["label_name"] == "Food & Drink"
    assert rows["Germany"]["label_name"] == "Flags"
    assert rows["red heart"]["label_name"] == "Smileys & Emotion"
    said = dict(zip(row["captions"]["language"], row["captions"]["text"], strict=True))
    assert said["de"] == "roter apfel"
    assert len(said) >= 12
    assert "SIL Open Font License" in row["metadata"]
    # What has no glyph is counted, not lost.
    assert skips[emoji.NOT_IN_FONT] > 3000
    # Padded to a square, transparent where the ground shows.
    picture = np.asarray(Image.open(io.BytesIO(row["image"])))
    assert picture.shape == (fonts.SIDE, fonts.SIDE, 3)
    assert (picture[0] == 128).all()
    assert (picture[10, 3] == COLOURS[APPLE]).all()
    assert (picture[10, 15] == 128).all()


def test_variants_share_a_split_and_a_tenth_is_held_out():
    import emoji as names

    full = names.STATUS["fully_qualified"]
    whole = [t for t, about in names.EMOJI_DATA.items() if about["status"] == full]
    whole = [t for t in whole if len(t) > 1 or ord(t) not in emoji.TONES]
    for text in whole:
        for c in (chr(0x1F3FB), chr(0x1F3FF)):
            if text.replace(c, "") in names.EMOJI_DATA:
                assert emoji._held_out(text) == emoji._held_out(text.replace(c, ""))
    assert emoji._family("👩🏽\u200d🚒") == emoji._family("👨\u200d🚒") == "🧑\u200d🚒"
    assert emoji._family("🏃🏻\u200d♀\ufe0f\u200d➡\ufe0f") == emoji._family("🏃")
    families = {emoji._family(t) for t in whole}
    share = np.mean([emoji._held_out(family) for family in families])
    assert 0.08 < share < 0.12
    # The list of groups knows every one of its version of Unicode; later ones have no group.
    known = [text for text in whole if names.EMOJI_DATA[text]["E"] <= 17]
    assert len(known) > 3900
    assert min(map(emoji._group, known)) >= 0


def test_annotations_of_cldr_are_further_captions(font, tmp_path):
    root = tmp_path / "in"
    (root / "annotations").mkdir(parents=True)
    (root / emoji.FONT).write_bytes(font.read_bytes())
    (root / "annotations" / "sr_Latn.xml").write_text(
        '<ldml><annotations><annotation cp="❤">ljubav | srce</annotation>'
        '<annotation cp="❤" type="tts">crveno srce</annotation>'
        '<annotation cp="🍎">↑↑↑</annotation></annotations></ldml>'
    )
    made = build(emoji.Jaxt2iEmoji, root, tmp_path / "out", config="white")
    rows = {row["captions"]["text"][0]: row for split in made.values() for row in split}
    said = rows["red heart"]["captions"]
    found = [t for t, tag in zip(said["text"], said["language"], strict=True) if tag == "sr-Latn"]
    assert found == ["ljubav, srce", "crveno srce"]
    assert "sr-Latn" not in rows["red apple"]["captions"]["language"]
    (root / "annotations" / "sr_Latn.xml").write_text("<ldml>")
    with pytest.raises(DataError, match=r"sr_Latn\.xml cannot be read as annotations"):
        build(emoji.Jaxt2iEmoji, root, tmp_path / "again", config="white")


def test_a_font_that_draws_no_emoji_is_refused(tmp_path):
    vectors = fonts.write(tmp_path / "vectors.ttf", {APPLE: b""}, bitmaps=False)
    with pytest.raises(DataError, match=r"vectors\.ttf has no bitmaps in colour \(table CBDT\)"):
        emoji.Font(vectors)
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"not a font at all")
    with pytest.raises(DataError, match=r"broken\.ttf cannot be read as a font"):
        emoji.Font(broken)
    letters = fonts.write(tmp_path / "letters.ttf", {"A": fonts.png((0, 0, 0))})
    with pytest.raises(SystemExit, match="draws none of"):
        prepare.main(["emoji", "--from", str(letters), "--to", str(tmp_path / "out")])


def test_prepare_finds_the_font_by_itself(font, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(emoji, "PLACES", (str(font.parent),))
    prepare.main(["emoji", "--to", str(tmp_path)])
    said = capsys.readouterr().out
    assert f"emoji from {font}" in said
    assert f"--config.data.path={tmp_path}/jaxt2i_emoji/white/1.0.0" in said
    prepare.main(["emoji", "--to", str(tmp_path)])
    assert "train on it" in capsys.readouterr().out


def test_without_its_packages_prepare_says_what_to_install(font, monkeypatch):
    monkeypatch.setitem(sys.modules, "fontTools.ttLib", None)
    with pytest.raises(DataError, match=r"pip install fonttools$"):
        emoji.Font(font)
