"""Decoding: the quick way gives Pillow's pixels, and less than all of them where asked."""

import functools
import io

import numpy as np
import pytest
from PIL import Image

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
