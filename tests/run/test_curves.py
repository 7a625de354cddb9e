"""The one plotter of curves."""

import numpy as np
import pytest
from PIL import Image

from jaxt2i.run.curves import Curve, draw_curves

RISE = Curve("up (higher is better)", [(0, 0.0), (10, 1.0)], [(0, -0.5, 0.5), (10, 0.5, 1.5)])


def size(path):
    with Image.open(path) as image:
        return image.size


def test_panels_stand_in_rows_of_three(tmp_path):
    sizes = {}
    for count in (1, 3, 4):
        draw_curves(tmp_path / "curves.png", [RISE] * count, "step")
        sizes[count] = size(tmp_path / "curves.png")
    assert sizes[3][0] == 3 * sizes[1][0]
    assert sizes[3][1] == sizes[1][1]
    assert sizes[4] == (sizes[3][0], 2 * sizes[3][1])
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]


def test_a_band_and_a_line_are_seen(tmp_path):
    def inked(curve):
        draw_curves(tmp_path / "curves.png", [curve], "step")
        with Image.open(tmp_path / "curves.png") as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        return (np.ptp(pixels, -1) > 20).sum()  # what is coloured

    empty = inked(Curve(RISE.title, []))
    line = inked(Curve(RISE.title, RISE.points))
    assert empty == 0 < line < inked(RISE)


@pytest.mark.parametrize("ending", ["svg", "pdf"])
def test_the_ending_says_the_format(tmp_path, ending):
    path = tmp_path / f"curves.{ending}"
    draw_curves(path, [RISE], "step")
    assert path.read_bytes().startswith({"svg": b"<?xml", "pdf": b"%PDF"}[ending])


def test_no_curves_no_file(tmp_path):
    draw_curves(tmp_path / "curves.png", [], "step")
    assert not list(tmp_path.iterdir())
