"""Left and right: examples are mirrored whole, and never where a caption says a side."""

import numpy as np
import pytest

from jaxt2i.data import mirror, native, pictures
from jaxt2i.data.pipeline import Pipeline
from jaxt2i.data.schema import DataError, Sizes

NEEDS = ("image", "tokens", "token_mask", "boxes", "box_mask", "shape_masks", "segmentation")
SIZES = Sizes(batch=32, height=6, width=8, tokens=4, objects=3, mask_resolution=5)
SAID = ("a cat", "a dog to the left", "the rightmost hat", "a bright copyright sign")


class Drawn:
    """Pictures that chance draws, each with one of the captions."""

    gives = ("image", "boxes", "box_mask", "shape_masks", "segmentation")
    size = None

    def captions(self, index):
        return [SAID[index % len(SAID)]]

    def example(self, index, keys):
        random = np.random.default_rng(index)
        there = np.arange(3) < 1 + index % 3
        boxes = random.uniform(0, 0.5, (3, 4)).astype(np.float32) * there[:, None]
        return {
            "image": random.integers(0, 256, (6, 8, 3), np.uint8),
            "boxes": boxes,
            "box_mask": there,
            "shape_masks": random.integers(0, 256, (3, 5, 5), np.uint8),
            "segmentation": random.integers(0, 9, (6, 8), np.int32),
        }


def tokenizer(texts):
    return np.zeros((len(texts), 4), np.int32), np.ones((len(texts), 4), bool)


def pipeline(**options):
    return Pipeline(Drawn(), tokenizer, SIZES, NEEDS, seed=0, **options)


def test_words_that_say_a_side():
    assert [mirror.says_a_side([text]) for text in SAID] == [False, True, True, False]
    assert mirror.says_a_side(["a cat", "a car to the Right of a tree"])


def test_half_are_mirrored_but_none_whose_caption_says_a_side():
    plain, by_caption = pipeline(), pipeline(mirror="unless_sided")
    turned = []
    for position in range(200):
        (a, text), (b, same) = plain.shown_at(position), by_caption.shown_at(position)
        assert text == same
        equal, flipped = np.array_equal(a["image"], b["image"]), mirror.mirrored(a)
        want = a if equal else flipped
        for key in NEEDS:
            np.testing.assert_array_equal(want[key], b[key], err_msg=key)
        if mirror.says_a_side([text]):
            assert equal
        else:
            turned.append(not equal)
        for key in ("image", "segmentation"):
            np.testing.assert_array_equal(flipped[key][:, 0], a[key][:, -1])
        np.testing.assert_array_equal(flipped["shape_masks"][..., 0], a["shape_masks"][..., -1])
        there, boxes = a["box_mask"], flipped["boxes"]
        ends = boxes[there, 0] + boxes[there, 2]
        np.testing.assert_allclose(ends, 1 - a["boxes"][there, 0], atol=1e-6)
        assert not boxes[~there].any()
    assert 0.35 < np.mean(turned) < 0.65
    held_out = (pipeline(caption="first", **how) for how in ({"mirror": "unless_sided"}, {}))
    a, b = (x.batch_at(0)["image"] for x in held_out)
    np.testing.assert_array_equal(a, b)
    with pytest.raises(DataError, match=r"config\.data\.mirror is 'always'; known: 'crop'"):
        pipeline(mirror="always")


def test_a_picture_that_is_not_decoded_yet_is_mirrored_later():
    encoded = native.Encoded(b"", pictures.centre((0, 0, 40, 30), (16, 16)), (40, 30))
    out = mirror.mirrored({"image": encoded})["image"]
    assert (encoded.plan[native.MIRRORED], out.plan[native.MIRRORED]) == (0, 1)
    assert (np.delete(out.plan, native.MIRRORED) == np.delete(encoded.plan, native.MIRRORED)).all()
