"""Folders of images: what is used is right, what is not is counted."""

import json
import os
import random
import re
import struct
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
from jaxt2i.configs.common import base
from PIL import Image

from jaxt2i.data import images, schema
from jaxt2i.data.pictures import RESIZE, Framing
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources import base as sources
from jaxt2i.data.sources import files, make_source
from jaxt2i.data.sources.base import clean_caption
from jaxt2i.data.sources.folders import Folder
from tests.data.photos import PHOTOS, make_folder, photo

GOLDEN = Path(__file__).parents[2] / "goldens" / "stylegan_t" / "data_crop.npz"
NAMES = ("cat", "coins", "flower", "horse")  # RGB, greyscale, JPEG, transparent


def put(folder: Path, name: str, image: Image.Image | bytes, caption: str | None = "a thing", **kw):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        file.write_bytes(image)
    else:
        image.save(file, **kw)
    if caption is not None:
        file.with_suffix(".txt").write_text(caption)


def corners(image: Image.Image | None = None) -> Image.Image:
    """Four quadrants: red, green / blue, white."""
    image = Image.new("RGB", (32, 32))
    for at, colour in (((0, 0), "red"), ((16, 0), "lime"), ((0, 16), "blue"), ((16, 16), "white")):
        image.paste(colour, (*at, at[0] + 16, at[1] + 16))
    return image


def only(folder: Path, resolution=32, **kw) -> np.ndarray:
    source = Folder(folder, Framing(resolution, **kw))
    assert source.size == 1, source.report
    return source.example(0)["image"]


def framed(image, resolution, resize="lanczos", crop="centre"):
    """The square of an array."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    return Framing(resolution, crop, resize).show(0, lambda need: (picture, picture.size))[0]


# --- Pixels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "b"])
def test_crop_is_that_of_stylegan_t(name):
    with np.load(GOLDEN) as golden:
        mine = framed(golden[f"in_{name}"], 32)
        error = np.abs(mine.astype(int) - golden[f"out_{name}"].transpose(1, 2, 0).astype(int))
    assert error.max() <= 1


def test_crop_and_resize_choices():
    image = np.zeros((8, 17, 3), np.uint8)
    image[:, 4:12] = 200  # the centre square, its offset rounded down
    assert (framed(image, 8) == 200).all()
    assert (framed(image, 8, crop="none")[:, 0] == 0).all()
    checks = np.indices((8, 8)).sum(0)[..., None].repeat(3, 2) % 2 * 200
    assert (framed(checks.astype(np.uint8), 4, "area") == 100).all()
    results = [framed(corners(), 20, resize).tobytes() for resize in RESIZE]
    assert len(set(results)) == len(RESIZE)


@pytest.mark.parametrize("value", range(1, 9))
def test_orientation_is_undone(tmp_path, value):
    undo = images.UPRIGHT.get(value)
    inverse = {"ROTATE_90": "ROTATE_270", "ROTATE_270": "ROTATE_90"}.get(undo, undo)
    stored = corners().transpose(Image.Transpose[inverse]) if undo else corners()
    exif = Image.Exif()
    exif[0x0112] = value
    put(tmp_path, "a.png", stored, exif=exif)
    assert (only(tmp_path) == np.asarray(corners())).all()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_orientation_spoils_no_pixel(tmp_path):
    put(tmp_path, "a.png", corners(), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert (only(tmp_path) == np.asarray(corners())).all()


def test_modes(tmp_path):
    ramp = np.tile(np.arange(32, dtype=np.uint16) * 2080, (32, 1))
    grey8 = np.round(ramp / 257).astype(np.uint8)[..., None].repeat(3, 2)
    clear = corners().convert("RGBA")
    clear.paste((10, 20, 30, 0), (0, 0, 16, 16))
    on_white = np.asarray(corners()).copy()
    on_white[:16, :16] = 255
    plain = np.asarray(corners())
    palette = corners().quantize(4)
    see_through = corners().convert("P", palette=Image.Palette.ADAPTIVE)
    first = see_through.getpixel((0, 0))
    grey = np.asarray(corners().convert("L").convert("RGB"))
    bits = np.asarray(corners().convert("1").convert("RGB"))
    cases = {
        "16bit.png": (Image.fromarray(ramp), grey8, {}),
        "16bit.tif": (Image.fromarray(ramp), grey8, {}),
        "16bit-in-32.tif": (Image.fromarray(ramp.astype(np.int32)), grey8, {}),
        "alpha.png": (clear, on_white, {}),
        "alpha.webp": (clear, on_white, {"lossless": True}),
        "palette.png": (palette, plain, {}),
        "palette-clear.png": (see_through, on_white, {"transparency": first}),
        "grey.png": (corners().convert("L"), grey, {}),
        "bits.png": (corners().convert("1"), bits, {}),
        "cmyk.tif": (corners().convert("CMYK"), plain, {}),
        "photo.bmp": (corners(), plain, {}),
        "UPPER.PNG": (corners(), plain, {}),
    }
    for name, (image, _, kw) in cases.items():
        put(tmp_path, name, image, **kw)
    put(tmp_path, "float.tif", Image.fromarray(np.ones((32, 32), np.float32)))
    put(tmp_path, "wide.tif", Image.fromarray(np.full((32, 32), 1 << 20, np.int32)))
    source = Folder(tmp_path, Framing(32))
    assert source.report["skipped"] == {images.FORMAT: 2}
    assert [source.name(i) for i in range(source.size)] == sorted(cases)
    for i in range(source.size):
        seen, want = source.example(i)["image"], cases[source.name(i)][1]
        assert np.abs(seen.astype(int) - want).max() <= 1, source.name(i)


def test_cmyk_jpeg_phone_pictures_and_animations(tmp_path):
    put(tmp_path, "phone.jpg", corners(), format="MPO", save_all=True, append_images=[corners()])
    put(tmp_path, "cmyk.jpg", corners().convert("CMYK"), quality=100, subsampling=0)
    frames = [Image.new("RGB", (32, 32), c) for c in ("blue", "yellow")]
    for name in ("moving.gif", "moving.webp", "moving.png"):
        put(tmp_path, name, frames[0], save_all=True, append_images=frames[1:], lossless=True)
    source = Folder(tmp_path, Framing(32))
    seen = {source.name(i): source.example(i)["image"].astype(int) for i in range(source.size)}
    for name in ("cmyk.jpg", "phone.jpg"):
        assert np.abs(seen.pop(name) - np.asarray(corners())).mean() < 8, name
    assert len(seen) == 3
    for image in seen.values():
        assert np.abs(image - (0, 0, 255)).max() <= 3


# --- What is skipped ---------------------------------------------------------------------------


def bomb(width: int, height: int) -> bytes:
    """A PNG of 60 bytes whose header promises width x height pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_every_skip_is_counted_with_its_reason(tmp_path):
    work = tmp_path / "work"
    data = tmp_path / "data"
    flower = photo("flower").read_bytes()
    put(data, "good.jpg", flower)
    put(data, "empty.jpg", b"")
    put(data, "page.jpg", b"<html>404</html>" * 20)
    put(data, "program.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n")
    put(data, "cut.jpg", flower[: len(flower) // 2])
    put(data, "cut.png", photo("cat").read_bytes()[:5000])
    put(data, "bomb.png", bomb(60_000, 60_000))
    put(data, "large.png", bomb(11_000, 11_000))  # allowed by Pillow, with a warning
    put(data, "tiny.png", Image.new("RGB", (40, 15)))
    put(data, "mute.png", corners(), caption=None)
    put(data, "blank.png", corners(), caption=" \n\n\t\0\n")
    (data / "readme.txt").write_text("about this data")
    (data / "gone.png").symlink_to(data / "nowhere.png")
    (data / ".hidden.png").write_bytes(b"")
    (data / "loop").symlink_to(data, target_is_directory=True)
    source = Folder(data, Framing(16), report=work / "data_report.json", max_pixels=100_000_000)
    report = json.loads((work / "data_report.json").read_text())
    assert source.size == report["usable"] == 1
    assert report["skipped"] == {
        images.CORRUPT: 2,
        images.NOT_IMAGE: 2,
        images.BOMB: 2,
        images.EMPTY: 1,
        images.TINY: 1,
        sources.NO_CAPTION: 1,
        sources.NO_TEXT: 1,
        sources.NO_IMAGE: 1,
        images.SYSTEM: 1,
    }
    listed = {entry["file"]: entry["reason"] for entry in report["skipped_files"]}
    assert listed["cut.png"] == images.CORRUPT
    assert listed["blank.txt"] == sources.NO_TEXT
    assert listed["readme.txt"] == sources.NO_IMAGE
    assert len(listed) == sum(report["skipped"].values())
    assert report["captions_per_image"] == {"1": 1}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mutated_files_never_crash_the_scan(tmp_path):
    chance = random.Random(0)
    small = Image.open(photo("flower")).resize((48, 32))
    originals = []
    for name in ("a.jpg", "a.png", "a.gif", "a.webp", "a.tif"):
        put(tmp_path, name, small, caption=None)
        originals.append((tmp_path / name).read_bytes())
        (tmp_path / name).unlink()
    count = 120
    for i in range(count):
        data = bytearray(originals[i % len(originals)])
        for _ in range(chance.choice((1, 4, 30))):
            data[chance.randrange(len(data) if i % 2 else 64)] = chance.randrange(256)
        if i % 5 == i % 4:
            del data[chance.randrange(len(data)) :]
        put(tmp_path, f"{i:03}{('.jpg', '.png', '.gif', '.webp', '.tif')[i % 5]}", bytes(data))
    source = Folder(tmp_path, Framing(16))
    skipped = sum(source.report["skipped"].values())
    assert source.size + skipped == count
    assert 0 < skipped < count
    for i in range(source.size):
        assert source.example(i)["image"].shape == (16, 16, 3)


# --- Captions ----------------------------------------------------------------------------------


def test_captions_are_cleaned(tmp_path):
    text = "\ufeff  a red\tbird\u2028on\x00 a\x1b twig \r\n\r\n \u00a0 \nein Vogel \u2014 caf\u00e9"
    (tmp_path / "a.txt").write_bytes(text.encode() + b" \xff")
    put(tmp_path, "a.png", corners(), caption=None)
    assert Folder(tmp_path, Framing(16)).captions(0) == [
        "a red bird on a twig",
    ], "the line that ends in a byte of no letter is left out"
    assert clean_caption("a\ud800b") == "ab"


@pytest.mark.parametrize("layout", ["text", "jsonl", "csv"])
def test_layouts_agree(tmp_path, layout):
    files = make_folder(tmp_path / "sub", layout, NAMES)
    source = Folder(tmp_path, Framing(24))
    assert source.size == len(NAMES)
    assert [source.name(i) for i in range(source.size)] == [f"sub/{file}" for file in files]
    for i, file in enumerate(files):
        assert source.captions(i) == PHOTOS[Path(file).stem][1]
    assert source.report["skipped"] == {}
    batch = {k: v[None] for k, v in source.example(2, ("image", "id")).items()}
    assert batch["id"] == 2
    schema.validate(
        {"image": batch["image"]}, schema.Sizes(batch=1, height=24, width=24), ("image",)
    )


def test_metadata_rows_that_cannot_be_used(tmp_path):
    data = tmp_path / "data"
    put(tmp_path, "secret.png", corners(), caption=None)
    put(data, "sub/a.png", corners(), caption="of the text file")
    put(data, "b.png", corners(), caption=None)
    rows = [
        {"file_name": "a.png", "text": ["one", " ", "two"]},
        {"file_name": "../b.png", "text": "inside after all"},
        {"file_name": "../../secret.png", "text": "no"},
        {"file_name": str(tmp_path / "secret.png"), "text": "no"},
        {"file_name": "nowhere.png", "text": "no"},
        {"file_name": "b.png", "text": 3},
        {"file_name": "a.png", "text": ""},
        ["a list"],
    ]
    lines = [json.dumps(row) for row in rows] + ["{half a line", ""]
    (data / "sub" / "metadata.jsonl").write_text("\n".join(lines))
    source = Folder(data, Framing(16))
    assert [source.captions(i) for i in range(source.size)] == [
        ["inside after all"],
        ["one", "two"],
    ]
    assert source.report["skipped"] == {
        sources.BAD_LINE: 3,
        sources.OUTSIDE: 2,
        sources.NO_IMAGE: 1,
        sources.NO_TEXT: 1,
    }


# --- The report as a cache ---------------------------------------------------------------------


def test_unchanged_folders_are_not_decoded_again(tmp_path, monkeypatch):
    data, report = tmp_path / "data", tmp_path / "work" / "data_report.json"
    make_folder(data, "text", NAMES)
    put(data, "bad.png", b"nothing")
    first = Folder(data, Framing(16), report=report)
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "_open", lambda *_: pytest.fail("decoded again"))
        second = Folder(data, Framing(16), report=report)
        with pytest.raises(pytest.fail.Exception):
            Folder(data, Framing(16), report=report, min_side=17)
    assert [second.name(i) for i in range(second.size)] == [
        first.name(i) for i in range(first.size)
    ]
    assert second.report == first.report
    put(data, "new.png", corners())
    assert Folder(data, Framing(16), report=report).size == first.size + 1
    os.utime(data / "bad.png", (1, 1))
    corners().save(data / "bad.png")
    assert Folder(data, Framing(16), report=report).size == first.size + 2
    report.write_text("{cut off")
    assert Folder(data, Framing(16), report=report).size == first.size + 2


def test_the_list_is_capped_and_the_verdicts_are_not(tmp_path, monkeypatch):
    """And a report inside the folder does not count as a change of the folder."""
    monkeypatch.setattr(sources, "LISTED", 2)
    for i in range(4):
        put(tmp_path, f"{i}.png", b"")
    put(tmp_path, "good.png", corners())
    for cached in (False, True):
        if cached:
            monkeypatch.setattr(Folder, "_check", lambda *_: pytest.fail("scanned again"))
        source = Folder(tmp_path, Framing(16), report=tmp_path / "r.json")
        assert source.size == 1
        assert source.name(0) == "good.png"
        assert len(source.report["skipped_files"]) == 2
        assert source.report["skipped"] == {images.EMPTY: 4}


def test_progress_is_shown(tmp_path, capfd):
    make_folder(tmp_path, "text", NAMES)
    Folder(tmp_path, Framing(16))
    assert "4/4, 0 skipped" in capfd.readouterr().err


def test_the_screen_says_how_many_images_are_used(tmp_path, capfd):
    """In the same words when nothing is looked at again."""
    data, report = tmp_path / "data", tmp_path / "run" / "data_report.json"
    for i in range(8):
        put(data, f"{i}.png", corners(), caption="c" if i < 2 else None)
    put(data, "bad.png", b"")
    (data / "stray.txt").write_text("no picture")
    right = (
        f"data: {data}: 2 of 9 images are used; 6 without caption; 1 empty file; besides, left "
        "out: 1 caption without image; stray.txt has no image of that name beside it: nothing is "
        f"called alike: {report}"
    )
    for _ in range(2):
        source = Folder(data, Framing(16), report=report)
        assert capfd.readouterr().err.strip() == right
    assert source.report["images"] == 9
    assert source.report["unused_images"] == {sources.NO_CAPTION: 6, images.EMPTY: 1}


@pytest.mark.parametrize("empty", [True, False])
def test_the_report_is_written_when_nothing_can_be_used(tmp_path, empty):
    data, report = tmp_path / "data", tmp_path / "run" / "data_report.json"
    put(data, "a.txt", b"a picture", caption=None)
    if not empty:
        put(data, "b.png", corners(), caption=None)
    for _ in range(2):
        with pytest.raises(DataError, match=r"a\.txt has no image of that name"):
            Folder(data, Framing(16), report=report)
    found = json.loads(report.read_text())
    assert (found["images"], found["usable"]) == (0 if empty else 1, 0)
    assert found["skipped"][sources.NO_IMAGE] == 1


# --- Errors ------------------------------------------------------------------------------------


def fail_missing(path):
    return "does not exist"


def fail_file(path):
    path.write_text("")
    return "not a directory"


def fail_no_images(path):
    put(path, "a.zip", b"PK", caption=None)
    return "1 files and no image .skipped: 1 truncated or corrupt"


def fail_no_captions(path):
    put(path, "a.png", corners(), caption=None)
    return r"1 images and no caption.*1 image without caption"


def fail_csv_columns(path):
    put(path, "a.png", corners())
    (path / "metadata.csv").write_text("image,caption\na.png,a thing\n")
    return r"metadata\.csv.*file_name and text.*caption, image"


def fail_jsonl_columns(path):
    put(path, "a.png", corners())
    (path / "metadata.jsonl").write_text('{"file": "a.png", "text": "a thing"}\n')
    return r"metadata\.jsonl.*file_name and text.*file, text"


def fail_unusable(path):
    put(path, "a.png", b"")
    put(path, "b.png", b"nothing")
    return "2 images, none usable: 1 empty file, 1 not an image"


FAILURES = [v for k, v in list(globals().items()) if k.startswith("fail_")]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda f: f.__name__)
def test_errors_name_the_path_and_the_fix(tmp_path, failure):
    path = tmp_path / "data"
    message = failure(path)
    with pytest.raises(DataError, match=re.compile(message, re.S)) as error:
        Folder(path, Framing(16))
    assert str(path) in str(error.value)
    assert "--config.data.path=DIR" in str(error.value)


def test_unknown_choices_are_named(tmp_path):
    for field in ("crop", "resize"):
        with pytest.raises(DataError, match=rf"config\.data\.{field} is 'odd'; known: "):
            Folder(tmp_path, Framing(16, **{field: "odd"}))


# --- The choice --------------------------------------------------------------------------------


def config(path="", **kw):
    data = base().data
    data.update({"source": "folder", "path": str(path), "resize": "area", "objects": 4} | kw)
    return data


def test_a_whole_folder_serves_every_split(tmp_path):
    make_folder(tmp_path / "data", "text", NAMES)
    for split in ("train", "val"):
        source = make_source(config(tmp_path / "data"), 16, split, tmp_path)
        assert source.size == len(NAMES)
        assert source.framing.resize == "area"
    assert (tmp_path / "data_report.json").is_file()


@pytest.mark.parametrize("layout", ["text", "jsonl"])
def test_split_folders(tmp_path, layout, capfd):
    data = tmp_path / "data"
    make_folder(data / "train", layout, NAMES[:3])
    make_folder(data / "validation", layout, NAMES[3:])
    sizes = {s: make_source(config(data), 16, s, tmp_path).size for s in ("train", "val", "test")}
    assert sizes == {"train": 3, "val": 1, "test": 1}
    assert "has no test; validation is used" in capfd.readouterr().err
    assert (tmp_path / "data_report_validation.json").is_file()
    with pytest.raises(DataError, match=r"train, validation and nothing.*'tset'"):
        make_source(config(data), 16, "tset")


def test_synthetic_source():
    source = make_source(config(source="synthetic", corpus="scenes", objects=3), 16, "val")
    example = source.example(5, ("image", "boxes", "shape_masks"))
    assert source.size is None
    assert example["image"].shape == (16, 16, 3)
    assert example["boxes"].shape == (3, 4)
    assert example["shape_masks"].shape == (3, 16, 16)
    other = make_source(config(source="synthetic", corpus="scenes", seed=1), 16, "val")
    assert other.captions(5) != source.captions(5)


def test_unknown_sources_are_named():
    with pytest.raises(DataError, match=r"data\.source is 'coco'; known: synthetic, folder"):
        make_source(config(source="coco"), 16, "train")
    with pytest.raises(DataError, match=r"config\.data\.path is ''"):
        make_source(config(), 16, "train")


@pytest.mark.parametrize("off", [-3, 0, 3])
def test_a_file_that_changes_while_it_is_read_is_read_to_its_end(tmp_path, monkeypatch, off):
    """What its size was said to be decides nothing."""
    for count in (0, 5, 2**21):
        content = np.random.default_rng(0).bytes(count)
        (tmp_path / "file").write_bytes(content)
        said = types.SimpleNamespace(st_size=max(count + off, 0))
        monkeypatch.setattr(files.os, "fstat", lambda _, said=said: said)
        assert files.picture_bytes(str(tmp_path / "file")) == content
        monkeypatch.undo()
