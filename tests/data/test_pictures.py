"""Views: what happens to a picture happens to its boxes, masks and classes."""

import dataclasses
import functools
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxt2i.data import images, pictures
from jaxt2i.data.pictures import Framing, View
from jaxt2i.data.schema import DataError

SIDES = st.integers(20, 90)
OUT = st.integers(16, 64)
CHANCE = st.tuples(*[st.floats(0, 1, exclude_max=True)] * 3)


@st.composite
def views(draw):
    """(size, view) of any kind."""
    size = draw(SIDES), draw(SIDES)
    cut = pictures.whole(size)
    if draw(st.booleans()):
        box = draw(st.tuples(*[st.floats(0, 15)] * 2, *[st.floats(12, 60)] * 2))
        cut = pictures.around(size, box)
    crop = draw(st.sampled_from(pictures.CROPS))
    chance = draw(st.none() | CHANCE)
    out = draw(OUT), draw(OUT)
    return size, pictures.choose(crop, cut, out, chance, background=(0, 0, 0))


def painted(size, box):
    """White where the box is."""
    x, y, w, h = box
    image = np.zeros((size[1], size[0], 3), np.uint8)
    image[y : y + h, x : x + w] = 255
    return image


@given(views(), st.data())
@settings(deadline=None, max_examples=200)
def test_boxes_masks_and_classes_follow_the_picture(given_view, data):
    size, view = given_view
    x, y = (data.draw(st.integers(0, n - 10)) for n in size)
    w, h = (data.draw(st.integers(8, n - at)) for n, at in zip(size, (x, y), strict=True))
    image = painted(size, (x, y, w, h))
    shown = view.show(Image.fromarray(image), "bilinear")[..., 0] >= 128
    box = view.clipped(view.boxes(np.array([[x, y, w, h]], float)))[0] * [*view.size, *view.size]
    left, top = box[:2]
    right, bottom = box[:2] + box[2:]
    across, down = (np.arange(n) + 0.5 for n in view.size)
    expected = (((down > top) & (down < bottom))[:, None]) & ((across > left) & (across < right))
    # Only pixels that the border of the box crosses, or blurs, may differ.
    wide = max(view.scaled[0] / (view.cut[2] - view.cut[0]), 1) + 1
    tall = max(view.scaled[1] / (view.cut[3] - view.cut[1]), 1) + 1
    near = (np.abs(across - left) < wide) | (np.abs(across - right) < wide)
    rows = (np.abs(down - top) < tall) | (np.abs(down - bottom) < tall)
    inner = ~(rows[:, None] | near[None, :])
    np.testing.assert_array_equal(shown[inner], expected[inner])
    if view.size[0] == view.size[1]:
        mask = view.mask(image[..., 0] > 0, view.size[0]) >= 128
        np.testing.assert_array_equal(mask[inner], expected[inner])
    classes = view.classes((image[..., 0] > 0).astype(np.uint8))
    np.testing.assert_array_equal(classes[inner] == 1, expected[inner])


@given(views(), st.lists(st.tuples(*[st.floats(-50, 120)] * 4), max_size=5))
@settings(deadline=None)
def test_mirrored_boxes_are_mirror_images(given_view, boxes):
    _, view = given_view
    boxes = np.abs(np.array(boxes, float).reshape(-1, 4))
    other = dataclasses.replace(view, mirrored=not view.mirrored)
    for of in (View.boxes, lambda v, b: v.clipped(v.boxes(b))):
        mirrored(of(view, boxes), of(other, boxes))


def mirrored(here, there):
    np.testing.assert_allclose(there[:, 0], 1 - here[:, 0] - here[:, 2], atol=1e-9)
    np.testing.assert_allclose(there[:, 1:], here[:, 1:], atol=1e-9)


@given(views())
def test_a_view_stays_inside_the_picture(given_view):
    size, view = given_view
    left, top, right, bottom = view.cut if view.is_padded else view.shown()
    assert -1e-9 <= left < right <= size[0] + 1e-9
    assert -1e-9 <= top < bottom <= size[1] + 1e-9
    if view.is_padded:  # and all of the picture inside the view
        assert -view.size[0] < view.left <= 0 <= view.size[0] - view.scaled[0]
        assert -view.size[1] < view.top <= 0 <= view.size[1] - view.scaled[1]
        return
    assert 0 <= view.left <= view.scaled[0] - view.size[0]
    assert 0 <= view.top <= view.scaled[1] - view.size[1]


def test_the_surroundings_of_a_box():
    """Centre (25, 15), reach int(0.75 x 30) = 22, cut at the border; then one outside it."""
    assert pictures.around((64, 48), (10.0, 5.0, 30.5, 20.0)) == (3, 0, 47, 37)
    assert pictures.around((64, 48), (50.0, 40.0, 30.0, 20.0)) == (43, 28, 64, 48)


def test_published_margins():
    """Shorter side 304 for crops of 256; OP-GAN stretches to 268."""
    view = pictures.random((0, 0, 640, 480), (256, 256), (0.5, 0.5, 0.9))
    assert (view.scaled, view.size) == ((640 * 304 // 480, 304), (256, 256))
    view = pictures.random((0, 0, 640, 480), (256, 256), (0, 0, 0.9), 268 / 256, "random_stretched")
    assert (view.scaled, view.left, view.top, view.mirrored) == ((268, 268), 0, 0, False)


def test_the_centre_of_another_shape():
    """The wanted shape is cut out as large as it goes, and nothing is stretched."""
    view = pictures.centre((0, 0, 640, 480), (64, 32))
    assert (view.cut, view.scaled) == ((0, 80, 640, 400), (64, 32))
    view = pictures.centre((0, 0, 640, 480), (32, 64))
    assert (view.cut, view.scaled) == ((200, 0, 440, 480), (32, 64))
    seen, _ = Framing((32, 64)).show(0, lambda need: (Image.new("RGB", (50, 40)), (50, 40)))
    assert seen.shape == (32, 64, 3)


@given(SIDES, SIDES, OUT, CHANCE)
def test_squares_are_those_of_the_published_preparation(width, height, side, chance):
    """The same offsets and scales as its two lines of arithmetic for squares give."""
    least = min(width, height)
    left, top = (width - least) // 2, (height - least) // 2
    found = pictures.centre((0, 0, width, height), (side, side))
    assert found.cut == (left, top, left + least, top + least)
    reach = int(side * pictures.MARGIN)
    found = pictures.random((0, 0, width, height), (side, side), chance)
    assert found.scaled == (width * reach // least, height * reach // least)


def test_every_corner_of_the_margin_is_seen():
    at = [
        pictures.random((0, 0, 20, 20), (16, 16), (u, 0, 0)).left for u in np.linspace(0, 0.999, 50)
    ]
    assert sorted(set(at)) == [0, 1, 2, 3]


@pytest.mark.parametrize("crop", pictures.CROPS)
def test_remembered_pictures_are_the_same(crop):
    rng = np.random.RandomState(0)
    image = Image.fromarray(rng.randint(0, 256, (40, 52, 3), np.uint8))

    def read(need):
        return image, image.size

    plain, keeping = Framing(16, crop), Framing(16, crop, cache_mb=1)
    for chance in (None, (0.1, 0.7, 0.2), (0.9, 0.0, 0.8), None):
        expected, view = plain.show(3, read, chance)
        for _ in range(2):
            shown, same = keeping.show(3, read, chance)
            np.testing.assert_array_equal(shown, expected)
            assert same == view
    seen = keeping.show(3, lambda need: pytest.fail("decoded again"), (0.5, 0.5, 0.5))
    assert seen[0].shape == (16, 16, 3)


def test_memory_is_bounded():
    framing = Framing(16, cache_mb=3 * 16 * 16 * 3 / 2**20)
    image = Image.new("RGB", (20, 20))
    decoded = []
    for _ in range(2):
        for key in range(9):
            framing.show(key, lambda need: decoded.append(1) or (image, image.size))
    assert len(decoded) == 9 + 6


def test_margins_below_one_are_refused():
    with pytest.raises(DataError, match=r"config\.data\.margin is 0\.9"):
        Framing(16, "random", margin=0.9)


# --- Padding -----------------------------------------------------------------------------------


def striped(width, height):
    """Red at the left end, blue at the right, as the ends of a wide picture."""
    rows = np.zeros((height, width, 3), np.uint8)
    rows[:, : width // 4] = 255, 0, 0
    rows[:, -(width // 4) :] = 0, 0, 255
    return rows


@pytest.mark.parametrize("size", [(160, 80), (80, 160)])
@pytest.mark.parametrize("decode", ["exact", "draft", "native"])
def test_padded_pictures_are_whole_however_they_are_decoded(size, decode):
    rows = striped(max(size), min(size))
    image = Image.fromarray(rows if size[0] > size[1] else rows.transpose(1, 0, 2))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95, subsampling=0)
    framing = Framing(32, "pad", decode=decode, background="#00ff00")
    read = functools.partial(images.open_rgb, out.getvalue(), name="a")
    shown, view = framing.show(0, read)
    shown = np.asarray(shown)
    shown = shown if size[0] > size[1] else shown.transpose(1, 0, 2)
    assert (shown[:8] == [0, 255, 0]).all()
    assert (shown[24:] == [0, 255, 0]).all()
    near = {4: (255, 0, 0), 16: (0, 0, 0), 28: (0, 0, 255)}
    for column, colour in near.items():
        assert np.abs(shown[8:24, column].astype(int) - colour).max() < 12
    assert view.boxes(np.array([[0, 0, *size]], float))[0].tolist() == (
        [0, 0.25, 1, 0.5] if size[0] > size[1] else [0.25, 0, 0.5, 1]
    )


def test_transparent_parts_show_the_background():
    out = io.BytesIO()
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(out, "PNG")
    for name, colour in {"white": (255, 255, 255), "#102030": (16, 32, 48)}.items():
        framing = Framing(16, background=name)
        how = {"name": "a", "background": framing.background}
        shown, _ = framing.show(0, lambda need, how=how: images.open_rgb(out.getvalue(), **how))
        assert (shown == colour).all()
    for odd in ("whitee", "#12", "rgba(1,2,3,4)", ""):
        with pytest.raises(DataError, match=r"config\.data\.background is .*expected a colour"):
            Framing(16, background=odd)


def test_what_is_beside_a_padded_picture_is_no_class_and_in_no_box():
    """The surroundings of a box at the border: what lies outside them is not shown."""
    cut = pictures.around((60, 60), (0, 20, 20, 20))
    view = pictures.padded(cut, (16, 16))
    assert view.place == (2, 0, 15, 16)
    whole = np.array([[0.0, 0.0, 60.0, 60.0]])
    shown = view.clipped(view.boxes(whole))[0]
    np.testing.assert_allclose(shown, [2 / 16, 0, 13 / 16, 1])
    classes = view.classes(np.full((60, 60), 7, np.uint8), outside=255)
    assert (classes[:, 2:15] == 7).all()
    assert (classes[:, :2] == 255).all()
    assert (classes[:, 15:] == 255).all()
    mask = view.mask(np.ones((60, 60), bool), 16)
    assert (mask[:, 3:14] == 255).all()
    assert (mask[:, :2] == 0).all()


def test_what_the_centre_crop_cuts_away_is_told():
    aspects = {"1.00": 50, "1.33": 20, "2.00": 7, "0.50": 3}
    said = pictures.cut_away(aspects, (64, 64))
    assert said.startswith("data: 10 of 80 pictures lose more than 25 % of a side")
    assert "up to 50%; --config.data.crop=pad" in said
    assert pictures.cut_away({"1.00": 50, "1.33": 20}, (64, 64)) == ""
    assert "50 of 50" in pictures.cut_away({"1.00": 50}, (128, 64))


def test_parts_of_an_array_are_those_of_an_image():
    """Taken where they lie, at every border."""
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    for cut in ((0, 0, 9, 7), (2, 1, 5, 6), (0, 3, 9, 5), (4, 0, 9, 7), (8, 6, 9, 7)):
        view = pictures.stretched(cut, (4, 3))
        image = view.scale(Image.fromarray(pixels), "lanczos")
        np.testing.assert_array_equal(np.asarray(view.scale(pixels, "lanczos")), np.asarray(image))
