"""Layouts over drawn pictures: boxes lie where the system was told that they are."""

import numpy as np
from PIL import Image

from jaxt2i.data import show
from jaxt2i.run import folder

ROW = {
    "prompt": "a cat",
    "units": "pixels",
    "size": [200, 100],
    "objects": [{"label": "cat", "box": [60, 40, 80, 55]}],
}
IMAGE = np.zeros((8, 8, 3), np.uint8)


def test_boxes_in_pixels_are_fractions_of_their_picture():
    tile = folder.layout_tile(ROW, {"image": IMAGE}, ("dog", "cat"))
    np.testing.assert_allclose(tile.example["boxes"], [[0.3, 0.4, 0.4, 0.55]], atol=1e-6)
    assert tile.names[tile.example["box_label"][0]] == "cat"


def test_what_the_system_was_told_wins(tmp_path):
    """A picture of another shape was cropped, and its boxes with it."""
    told = {
        "boxes": np.array([[0.1, 0.4, 0.8, 0.55], [0, 0, 0, 0]], np.float32),
        "box_label": np.array([1, 0]),
        "box_mask": np.array([True, False]),
    }
    tile = folder.layout_tile(ROW, {"image": IMAGE, **told}, ("dog", "cat"))
    np.testing.assert_array_equal(tile.example["boxes"], told["boxes"])
    masks = np.zeros((2, 4, 4), np.float32)
    masks[0, 1, 1:3] = 0.1, 0.2
    shown = folder.layout_tile(ROW, {"image": IMAGE, "masks": masks, **told}, ("dog", "cat"))
    np.testing.assert_allclose(shown.example["shape_masks"][0, 1], [0, 127.5, 255, 0], rtol=1e-5)
    assert not shown.example["shape_masks"][1].any()
    sizes = []
    for beside in (False, True):
        show.draw([tile], tmp_path / "layout.png", beside=beside)
        with Image.open(tmp_path / "layout.png") as image:
            sizes.append(image.size)
    assert sizes[1][0] > 1.5 * sizes[0][0], "the layout stands beside the picture"
