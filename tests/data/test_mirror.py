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


class Related(Drawn):
    """One relation, one attribute or one class each, and captions that say no side."""

    gives = ("boxes", "box_label", "box_mask", "relation_label", "relation_mask")
    gives = (*gives, "object_attributes")
    class_names = ("cat", "left shoe")
    predicate_names = ("on", "to the left of")
    object_attribute_names = ("red", "right-handed")

    def captions(self, index):
        return ["a cat"]

    def example(self, index, keys):
        kind = index % 4
        return {
            "boxes": np.full((1, 4), 0.25, np.float32),
            "box_label": np.array([kind == 1], np.int32),
            "box_mask": np.ones(1, bool),
            # What the mask hides is no relation.
            "relation_label": np.array([kind == 2, 1], np.int32),
            "relation_mask": np.array([True, False]),
            "object_attributes": np.array([[True, kind == 3]]),
        }


def test_relations_classes_and_attributes_may_say_a_side_too():
    sizes = Sizes(batch=8, height=6, width=8, tokens=4, objects=1, relations=2, object_attributes=2)
    needs = (*Related.gives, "tokens", "token_mask")
    made = Pipeline(Related(), tokenizer, sizes, needs, seed=0, mirror="unless_sided")
    turned = {kind: set() for kind in range(4)}
    for position in range(64):
        example = made.example_at(position)
        sided = example["box_label"][0], example["relation_label"][0]
        kind = next((n for n, x in ((1, sided[0]), (2, sided[1])) if x), 0)
        kind = 3 if example["object_attributes"][0, 1] else kind
        turned[kind].add(float(example["boxes"][0, 0]))
    # A quarter of the picture from the left, or from the right.
    assert turned == {0: {0.25, 0.5}, 1: {0.25}, 2: {0.25}, 3: {0.25}}


def test_a_picture_that_is_not_decoded_yet_is_mirrored_later():
    encoded = native.Encoded(b"", pictures.centre((0, 0, 40, 30), (16, 16)), (40, 30))
    out = mirror.mirrored({"image": encoded})["image"]
    assert (encoded.plan[native.MIRRORED], out.plan[native.MIRRORED]) == (0, 1)
    assert (np.delete(out.plan, native.MIRRORED) == np.delete(encoded.plan, native.MIRRORED)).all()
