"""Decoding: the quick way gives Pillow's pixels, and less than all of them where asked."""

import functools
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from jaxt2i.data import images
from jaxt2i.data.pictures import Framing, centre
from jaxt2i.data.schema import DataError
from tests.data.builders.pictures import picture
from tests.data.photos import photo


def encoded(width, height, mode="RGB", kind="JPEG", **kw):
    out = io.BytesIO()
    noise = np.random.RandomState(0).randint(0, 60, (height, width, 3))
    smooth = np.asarray(picture(width, height, 1)).astype(int)
    mixed = Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))
    mixed.convert(mode).save(out, kind, **kw)
    return out.getvalue()


@pytest.mark.parametrize(
    "kw",
    [
        {"quality": 95},
        {"quality": 60, "subsampling": 2},
        {"quality": 90, "subsampling": 0},
        {"quality": 80, "progressive": True},
        {"quality": 80, "mode": "L"},
        {"quality": 80, "mode": "CMYK"},
        {"kind": "PNG"},
        {"kind": "WEBP"},
    ],
    ids=str,
)
def test_pixels_are_pillows(kw):
    content = encoded(45, 38, **kw)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image.convert("RGB"))
    rgb, size = images.open_rgb(content, name="a")
    assert size == (45, 38)
    np.testing.assert_array_equal(np.asarray(rgb), expected)
    np.testing.assert_array_equal(np.asarray(images.read_rgb(content, name="a")), expected)


def test_less_is_decoded_where_less_is_enough():
    content = encoded(200, 120, quality=95)
    for need, got in {
        (200, 120): (200, 120),
        (101, 60): (200, 120),
        (100, 60): (100, 60),
        (41, 30): (50, 30),
        (10, 10): (25, 15),
    }.items():
        rgb, size = images.open_rgb(content, lambda _, need=need: need, name="a")
        assert size == (200, 120)
        assert rgb.shape[1::-1] == got


@pytest.mark.parametrize("crop", ["centre", "random", "none", "random_stretched"])
def test_drafts_are_nearly_exact(crop):
    content = encoded(300, 260, quality=95)
    calls = []

    def read(need):
        rgb, size = images.open_rgb(content, need, name="a")
        calls.append(rgb.shape[1::-1])
        return rgb, size

    for chance in (None, (0.3, 0.8, 0.1)):
        exact, view = Framing(32, crop).show(0, read, chance)
        draft, same = Framing(32, crop, decode="draft").show(0, read, chance)
        assert view == same
        assert calls[-2] == (300, 260)
        assert calls[-1] < (200, 200), "less was decoded"
        error = np.abs(exact.astype(int) - draft.astype(int))
        assert error.mean() < 1.5
        assert error.max() < 16


@pytest.mark.parametrize(("name", "side"), [("pagoda", 64), ("pagoda", 256), ("rocket", 64)])
def test_native_decoding_is_a_few_levels_off(name, side):
    """Of 255, on photographs; a draft is as near as half a level, at a multiple of the cost."""
    content = photo(name).read_bytes()

    def shown(decode):
        read = functools.partial(images.open_rgb, content, name=name)
        return np.asarray(Framing(side, decode=decode).show(0, read)[0]).astype(int)

    exact = shown("exact")
    native, draft = (np.abs(shown(decode) - exact) for decode in ("native", "draft"))
    assert draft.mean() < 0.5
    assert 0.5 < native.mean() < 3
    assert np.percentile(native, 99) < 32
    # Neither brighter nor darker, and where it was: moved by a pixel it would fit worse.
    assert abs((shown("native") - exact).mean()) < 0.5
    for axis in (0, 1):
        assert np.abs(np.roll(shown("native"), 1, axis) - exact).mean() > 2 * native.mean()


def test_unknown_ways_to_decode_are_named():
    with pytest.raises(DataError, match=r"config\.data\.decode is 'fast'; known: exact, draft"):
        Framing(32, decode="fast")


def test_small_pictures_are_never_drafts():
    view = centre((0, 0, 60, 48), (32, 32))
    assert view.enough((60, 48)) == (60, 48)


def test_orientation_and_limits_are_kept():
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(40, 24, 3).save(out, "JPEG", exif=exif)
    content = out.getvalue()
    assert images.open_rgb(content, name="a")[1] == (24, 40)
    assert images.open_rgb(content, name="a", upright=False)[1] == (40, 24)
    for limits, reason in (({"min_side": 30}, images.TINY), ({"max_pixels": 900}, images.BOMB)):
        with pytest.raises(images.Unreadable, match=reason):
            images.read_rgb(content, name="a", **limits)
    with pytest.raises(images.Unreadable, match=images.CORRUPT):
        images.read_rgb(content[: len(content) // 2], name="a")


# --- Orientation -------------------------------------------------------------------------------


def part(marker: int, content: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def exif(orientation: int) -> bytes:
    """An APP1 segment that tells it."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    return part(0xE1, tags.tobytes())


def xmp(orientation: int) -> bytes:
    """The same in another language."""
    told = f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'
    return part(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + told.encode())


FILLERS = st.one_of(
    st.builds(
        part,
        st.sampled_from([0xE0, 0xE1, 0xE2, 0xEC, 0xED, 0xFE]),
        st.binary(max_size=40).flatmap(lambda b: st.sampled_from([b, b * 300])),
    ),
    st.just(b"\xff" * 3),  # padding
)
TOLD = st.one_of(st.builds(exif, st.integers(0, 9)), st.builds(xmp, st.integers(0, 9)))


@settings(max_examples=150, deadline=None)
@given(st.lists(FILLERS, max_size=5), TOLD | st.just(b""), st.lists(FILLERS, max_size=2))
def test_orientation_is_read_as_pillow_reads_it(before, told, after):
    """Wherever the tag lies."""
    plain = encoded(40, 24)
    content = plain[:2] + b"".join([*before, told, *after]) + plain[2:]
    right = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    seen = images.read_rgb(content, name="a")
    assert seen.size == right.size
    np.testing.assert_array_equal(np.asarray(seen), np.asarray(right))


@pytest.mark.parametrize("told", [exif, xmp])
@pytest.mark.parametrize("decode", ["exact", "draft", "native"])
def test_a_tag_behind_much_else_is_found(told, decode):
    plain = encoded(40, 24)
    content = plain[:2] + part(0xED, bytes(60_000)) * 3 + told(6) + plain[2:]
    right = framed(Image.open(io.BytesIO(plain)).transpose(Image.Transpose.ROTATE_270))
    shown, _ = Framing(16, decode=decode).show(
        0, lambda need: images.open_rgb(content, need, name="a")
    )
    np.testing.assert_array_equal(np.asarray(shown), right)


def framed(picture):
    return Framing(16).show(0, lambda need: (picture, picture.size))[0]


def test_the_quick_way_stays_quick(monkeypatch):
    """Much else before the pixels is no reason for the slow one."""
    monkeypatch.setattr(images, "_any_format", lambda *a, **kw: pytest.fail("the slow way"))
    plain = encoded(40, 24)
    others = part(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>") + part(0xFE, b"Exif\0\0, a comment")
    assert images.open_rgb(plain[:2] + others + plain[2:], name="a")[1] == (40, 24)


def test_heic_is_read_or_named(monkeypatch):
    whole = io.BytesIO()
    images.formats()
    Image.new("RGB", (20, 18), "red").save(whole, "HEIF", quality=90)
    assert images.read_rgb(whole.getvalue(), name="a.jpg").size == (20, 18)
    damaged = [b"\0\0\0\x18ftyp" + brand + bytes(50) for brand in (b"heic", b"mif1")]
    for content in damaged:
        with pytest.raises(images.Unreadable, match=images.CORRUPT):
            images.read_rgb(content, name="a.jpg")
    monkeypatch.setattr(images, "formats", lambda: ("JPEG",))
    for content in [*damaged, whole.getvalue()]:
        with pytest.raises(images.Unreadable, match="HEIC, which needs pillow-heif"):
            images.read_rgb(content, name="a.jpg")
