"""Names meet however they are spelled; those that do not are named, with what comes closest."""

import json
import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jaxt2i.data import images
from jaxt2i.data.pictures import Framing
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources import files
from jaxt2i.data.sources.base import NO_IMAGE, OUTSIDE
from jaxt2i.data.sources.folders import Folder
from jaxt2i.data.sources.meeting import Names, alike, places


def put(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 24), "red").save(root / name, "PNG")


def metadata(root, **texts):
    root.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"file_name": name, "text": text}) for name, text in texts.items()]
    (root / "metadata.jsonl").write_text("\n".join(lines))


def said(root, **kw):
    source = Folder(root, Framing(16), **kw)
    return {source.name(i): source.captions(i) for i in range(source.size)}


# --- Names that meet ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_meet_however_they_are_stored(tmp_path, form):
    other = "NFD" if form == "NFC" else "NFC"
    name = unicodedata.normalize(form, "café/Zürich")
    put(tmp_path, f"{name}.png", f"{name} 2.png")
    metadata(tmp_path, **{unicodedata.normalize(other, f"{name}.png"): "by its line"})
    beside = unicodedata.normalize(other, f"{name} 2.txt")
    (tmp_path / beside).parent.mkdir(exist_ok=True)
    os.rename(tmp_path / f"{name} 2.png", (tmp_path / beside).with_suffix(".gif"))
    put(tmp_path, f"{name} 2.png")
    (tmp_path / name).parent.joinpath(os.path.basename(beside)).write_text("beside it")
    found = said(tmp_path)
    assert found[f"{name}.png"] == ["by its line"]
    assert found[f"{name} 2.png"] == ["beside it"]


def test_windows_names_meet(tmp_path):
    put(tmp_path, "img/a.png", "img/b.png", "flat\\c.png")
    metadata(tmp_path, **{"img\\a.png": "a", ".\\img\\..\\img\\b.png": "b", "flat/c.png": "c"})
    assert said(tmp_path) == {"img/a.png": ["a"], "img/b.png": ["b"], "flat\\c.png": ["c"]}


def test_names_count_from_the_metadata_or_from_the_root(tmp_path):
    put(tmp_path, "train/a.png", "train/b.png", "train/train/b.png", "val/c.png")
    texts = {"train/a.png": "root", "b.png": "own", "train/b.png": "own first", "../val/c.png": "c"}
    metadata(tmp_path / "train", **texts)
    assert said(tmp_path) == {
        "train/a.png": ["root"],
        "train/b.png": ["own"],
        "train/train/b.png": ["own first"],
        "val/c.png": ["c"],
    }


def test_a_name_to_the_letter_comes_first(tmp_path):
    composed, apart = "é.png", unicodedata.normalize("NFD", "é.png")
    put(tmp_path, composed, apart)
    metadata(tmp_path, **{composed: "composed", apart: "apart"})
    assert said(tmp_path) == {composed: ["composed"], apart: ["apart"]}


PART = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\\\0"), min_size=1)


@given(st.lists(PART, min_size=1, max_size=3), st.sampled_from(["NFC", "NFD"]))
def test_every_spelling_is_found(parts, form):
    name = "/".join(parts)
    known = Names(["other", unicodedata.normalize(form, name)])
    for spelled in ("NFC", "NFD"):
        asked = unicodedata.normalize(spelled, "\\".join(parts))
        assert known.find(asked) == unicodedata.normalize(form, name) or alike(asked) == "other"


@pytest.mark.parametrize(
    "name", ["/a.png", "\\a.png", "C:\\a.png", "c:/a.png", "\\\\server\\a.png", "..\\..\\a.png"]
)
def test_names_that_lead_outside_are_refused(tmp_path, name):
    assert places(name, "sub") == []
    put(tmp_path, "sub/b.png")
    metadata(tmp_path / "sub", **{name: "no", "b.png": "yes"})
    source = Folder(tmp_path, Framing(16))
    assert source.report["skipped"] == {OUTSIDE: 1}


# --- Names that do not -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "there", "how"),
    [
        ("img/a.png", "b/a.png", "nearest is 'b/a.png', in another folder"),
        ("Photo.PNG", "photo.png", "nearest is 'photo.png', upper and lower case differ"),
        ("a.jpg", "a.png", "nearest is 'a.png', with another ending"),
        ("bird_01.png", "bird_1.png", "nearest is 'bird_1.png'"),
        ("a.png", "xyz_long.png", "nothing is called alike"),
    ],
)
def test_the_first_that_did_not_meet_is_named(tmp_path, name, there, how):
    put(tmp_path / "data", there)
    metadata(tmp_path / "data", **{name: "x"})
    report = tmp_path / "report.json"
    with pytest.raises(DataError) as error:
        Folder(tmp_path / "data", Framing(16), report=report)
    sentence = f"metadata.jsonl:1 names an image '{name}', which is not there: "
    assert sentence in str(error.value)
    assert how in str(error.value)
    assert json.loads(report.read_text())["unmet"][0].startswith(sentence)


def test_text_files_that_did_not_meet_are_named(tmp_path):
    put(tmp_path, "a.png", "B.png")
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    assert Folder(tmp_path, Framing(16)).report["unmet"] == [
        "b.txt has no image of that name beside it: the nearest is 'B.png', upper and lower case "
        "differ",
        "B.png has no text file of that name: the nearest is 'b.txt', upper and lower case differ",
    ]


def test_pictures_that_are_not_read_are_named(tmp_path, monkeypatch):
    put(tmp_path, "a.png")
    monkeypatch.setattr(images, "formats", lambda: ("PNG",))
    for name in ("b.heic", "c.HEIF", "d.jxl"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic")
    for name in "abcd":
        (tmp_path / f"{name}.txt").write_text("caption")
    (tmp_path / "e.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (tmp_path / "e.txt").write_text("a telephone's, with another ending")
    source = Folder(tmp_path, Framing(16))
    assert source.size == 1
    assert source.report["images"] == 5
    jxl = "JPEG XL, which is not read; convert it to JPEG"
    assert source.report["unused_images"] == {images.NO_HEIC: 3, jxl: 1}
    assert source.report["skipped"] == source.report["unused_images"]


@pytest.mark.parametrize("name", ["captions.txt", "metadata.json", "data.tsv", "captions.csv"])
def test_captions_in_a_form_of_their_own_are_named(tmp_path, name):
    put(tmp_path, "a.png", "b.png")
    (tmp_path / name).write_text("image,caption\na.png,a bird\n")
    with pytest.raises(DataError, match=rf"no caption for any.*{name} may hold the captions, and"):
        Folder(tmp_path, Framing(16))


def test_archives_are_named(tmp_path):
    metadata(tmp_path, **{"a.png": "x"})
    (tmp_path / "images.7z").write_bytes(b"7z")
    with pytest.raises(DataError, match=r"no image .*images\.7z is not unpacked") as error:
        Folder(tmp_path, Framing(16))
    assert NO_IMAGE in str(error.value)


# --- Listings ----------------------------------------------------------------------------------


def test_listings_do_not_depend_on_the_machine(tmp_path, monkeypatch):
    """Nor on the order in which a folder gives its names, where links offer several."""
    put(tmp_path, "data/z/real/a.png", "data/b.png", "elsewhere/c.png")
    links = {
        "data/a": "z/real",
        "data/m": "../elsewhere",
        "data/n": "../elsewhere",
        "data/z/up": "..",
    }
    for name, target in links.items():
        (tmp_path / name).symlink_to(target, target_is_directory=True)
    (tmp_path / "data/self").symlink_to("self")
    (tmp_path / "data/gone.png").symlink_to("nowhere.png")
    os.mkfifo(tmp_path / "data/pipe.png")
    scan = os.scandir
    seen = []
    for turn in (1, -1):
        monkeypatch.setattr(os, "scandir", lambda p, t=turn: sorted(scan(p), key=str)[::t])
        found, refused = files.tree(tmp_path / "data")
        seen.append((list(found), refused))
    right = ["b.png", "m/c.png", "z/real/a.png"]
    assert seen == [(right, ["gone.png", "pipe.png", "self"])] * 2


def test_what_is_behind_a_link_is_listed(tmp_path, capfd):
    put(tmp_path, "elsewhere/c.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/link").symlink_to("../elsewhere")
    (tmp_path / "data/self").symlink_to("self")
    assert files.walk(str(tmp_path / "data")) == ["link/c.png"]
    assert f"{tmp_path}/data/self: cannot be read; left out" in capfd.readouterr().err
