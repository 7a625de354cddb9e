"""Damaged files give a picture or `Unreadable`, damaged captions counts or `DataError`."""

import collections
import io
import json
import random
import unicodedata

import numpy as np
import pytest
from PIL import Image

from jaxt2i.data.images import Unreadable, read_rgb
from jaxt2i.data.pictures import Framing
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources.folders import Folder

PICTURES, TEXTS = 700, 100
# What a file may start with while the rest is of another kind.
HEADERS = (
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a\x40\x00\x40\x00\xf7\x00",
    b"BM\x46\x00\x00\x00",
    b"II*\x00\x08\x00\x00\x00",
    b"RIFF\x40\x00\x00\x00WEBPVP8 ",
    b"P6 64 48 255\n",
    b"\x00\x00\x00\x20ftypavif",
    b"%!PS-Adobe-3.0 EPSF-3.0\n",
    b"",
)


def whole_files():
    """JPEG and PNG in their several forms: modes, progressive, rotated, with a palette."""
    noise = np.random.RandomState(0).randint(0, 256, (48, 64, 3), np.uint8)
    rgb = Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = [
        (rgb, "JPEG", {"quality": 80}),
        (rgb, "JPEG", {"progressive": True, "exif": exif}),
        (rgb.convert("L"), "JPEG", {}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgb, "PNG", {}),
        (rgb.convert("RGBA"), "PNG", {}),
        (rgb.convert("P"), "PNG", {"transparency": 3}),
        (rgb.convert("1"), "PNG", {}),
        (Image.fromarray(noise[..., 0].astype(np.uint16) * 257), "PNG", {}),
    ]
    files = []
    for image, form, options in kinds:
        out = io.BytesIO()
        image.save(out, form, **options)
        files.append(out.getvalue())
    return files


def flipped(content, rng):
    content = bytearray(content)
    for _ in range(rng.choice([1, 3, 30])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def cut_off(content, rng):
    return content[: rng.randrange(len(content))]


def spliced(content, rng, others):
    other = rng.choice(others)
    start, at = rng.randrange(len(other)), rng.randrange(len(content))
    piece = other[start : start + rng.randrange(1, 400)]
    kept = at if rng.random() < 0.5 else min(at + len(piece), len(content))
    return content[:at] + piece + content[kept:]


def headed(content, rng):
    header = rng.choice(HEADERS)
    return header + content[rng.choice([0, len(header), rng.randrange(len(content))]) :]


def mutated(content, rng, others):
    """One to three kinds of damage."""
    for _ in range(rng.choice([1, 1, 2, 3])):
        damage = rng.randrange(4)
        if damage == 2:
            content = spliced(content, rng, others)
        else:
            content = (flipped, cut_off, None, headed)[damage](content, rng)
        content = content or b"\0"
    return content


def tried(make, *args, **kw):
    """What is made, or the one kind of error that it may end in; any other fails the test."""
    try:
        return make(*args, **kw)
    except DataError as error:
        return error


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_damaged_picture_is_a_picture_or_unreadable():
    files = whole_files()
    seen = collections.Counter()
    for seed in range(PICTURES):
        rng = random.Random(seed)
        content = mutated(rng.choice(files), rng, files)
        image = tried(read_rgb, content, name=f"seed {seed}")
        if isinstance(image, Unreadable):
            assert image.name == f"seed {seed}"
            seen[image.reason] += 1
            continue
        assert image.mode == "RGB"
        assert min(image.size) >= 1
        assert np.asarray(image).shape == (*image.size[::-1], 3)
        seen["picture"] += 1
    # The damage is neither so slight nor so great that nothing is tested.
    assert seen["picture"] > PICTURES / 20
    assert seen["truncated or corrupt"] > PICTURES / 20
    assert seen["not an image"] > PICTURES / 20


@pytest.mark.parametrize("upright", [True, False])
def test_a_whole_picture_survives_the_same_reader(upright):
    for content in whole_files():
        assert sorted(read_rgb(content, name="whole", upright=upright).size) == [48, 64]


# What may stand where a name or a caption should.
VALUES = (
    *(None, True, -1, 1e400, 10**40, "", " ", "\ud800", "\0", "\u2028", "../../a.png"),
    *("/etc/passwd", "a.png/b", [], ["", "a bird"], [["a"]], {}, {"text": "x"}, "a" * 200_000),
)
PLAIN = [
    {"file_name": "a.png", "text": "a red bird"},
    {"file_name": "b.png", "text": ["a blue bird", "un oiseau bleu \u00e9"]},
    {"file_name": "c.png", "text": "a bird \ud83d\ude00"},
]


def metadata(rng):
    """The rows of a metadata file, some with values of other kinds."""
    rows = [dict(row) for row in PLAIN]
    for _ in range(rng.randrange(4)):
        row = rng.choice(rows)
        row[rng.choice(["file_name", "text", "other"])] = rng.choice(VALUES)
        if rng.random() < 0.2:
            row.pop(rng.choice(sorted(row)))
    lines = [json.dumps(row) for row in rows]
    lines.insert(rng.randrange(3), rng.choice(["", "[" * 100_000, "9" * 5000, "{", "null"]))
    return "\n".join(lines).encode()


def table(rng):
    """A metadata file with commas."""
    rows = [f'{row["file_name"]},"{rng.choice(VALUES)}"' for row in PLAIN]
    return "\n".join(["file_name,text", *rows]).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("form", ["metadata.jsonl", "metadata.csv", "sidecars"])
def test_damaged_captions_are_counted_or_refused(tmp_path, form):
    root = tmp_path / "in"
    root.mkdir()
    for name, shade in {"a": 10, "b": 120, "c": 250}.items():
        Image.new("RGB", (20, 18), (shade, 40, 90)).save(root / f"{name}.png")
    seen = collections.Counter()
    for seed in range(TEXTS if form == "metadata.jsonl" else TEXTS // 4):
        rng = random.Random(seed)
        make = {"metadata.jsonl": metadata, "metadata.csv": table}.get(form)
        for name in ["a.txt", "b.txt", "c.txt"] if make is None else [form]:
            content = make(rng) if make else f"a bird\n{seed} wings\n".encode()
            content = mutated(content, rng, [content, b"\xef\xbb\xbf", b"\r\0\n\x85\xff\xfe"])
            (root / name).write_bytes(content if rng.random() < 0.7 else b"")
        source = tried(Folder, root, Framing(16), report=tmp_path / f"{seed}.json")
        if isinstance(source, DataError):
            assert str(root) in str(source)
            seen["refused"] += 1
            continue
        # A report that can be read again, and nothing left out without a reason.
        report = json.loads((tmp_path / f"{seed}.json").read_text())
        assert report["usable"] == source.size <= 3
        assert source.size == 3 or report["skipped"]
        seen["all" if source.size == 3 else "some"] += 1
        for index in range(source.size):
            captions = source.captions(index)
            assert captions
            assert all(
                text.strip() and set(map(unicodedata.category, text)).isdisjoint({"Cc", "Cs"})
                for text in captions
            )
            assert source.example(index)["image"].shape == (16, 16, 3)
    assert seen["refused"] > 0
    assert seen["some"] > 0
