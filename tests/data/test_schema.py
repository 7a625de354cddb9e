"""The batch schema: sizes, names, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxt2i.data import schema
from jaxt2i.data.drawn.synthetic import Synthetic
from jaxt2i.data.pictures import Framing
from jaxt2i.data.pipeline import Pipeline
from jaxt2i.data.schema import FIELDS, DataError, Sizes


def config(resolution, **kw):
    sizes = {"objects": 3, "mask_resolution": 8, "captions": 2}
    return ConfigDict({"resolution": resolution, **sizes, **kw})


def test_pictures_have_a_height_and_a_width():
    sizes = Sizes(batch=2, height=16, width=32, tokens=6, objects=3)
    found = schema.spec(sizes, ("image", "edit_region", "segmentation", "shape_masks"))
    wanted = [(2, 16, 32, 3), (2, 16, 32), (2, 16, 32), (2, 3, 16, 16)]
    assert [s.shape for s in found.values()] == wanted
    with pytest.raises(TypeError):
        Sizes(2, 16, 32)


def test_every_size_of_a_field_is_one_and_has_a_config_line():
    sizes = Sizes(batch=2, height=16, width=16, text_width=5, attributes=4, object_attributes=3)
    for field in FIELDS.values():
        for name in (n for n in field.shape if isinstance(n, str)):
            assert getattr(sizes, name) > 0
            assert schema.CONFIG_LINES[name].startswith("config.data.")
    assert schema.spec(sizes, tuple(FIELDS))["text_vector"].shape == (2, 5)


@pytest.mark.parametrize(
    ("given", "want"), [(24, (24, 24)), ((16, 32), (16, 32)), ([8, 4], (8, 4))]
)
def test_resolution_is_a_side_or_height_and_width(given, want):
    assert schema.height_and_width(given) == want
    sizes = schema.sizes_of(config(given), batch=4, tokens=7)
    assert (sizes.height, sizes.width, sizes.tokens, sizes.captions) == (*want, 7, 2)
    assert schema.height_and_width(sizes.resolution) == want
    assert Framing(sizes.resolution).size == want[::-1]


@pytest.mark.parametrize("given", [0, -1, 1.5, "256", True, None, (16,), (16, 0), (1, 2, 3), ()])
def test_other_resolutions_are_refused(given):
    with pytest.raises(DataError, match=r"config\.data\.resolution is .*; expected the side of"):
        schema.height_and_width(given)


def test_who_draws_squares_says_so():
    said = r"resolution is \(16, 32\).* the synthetic corpora can do squares only; set"
    with pytest.raises(DataError, match=said):
        Synthetic("scenes", (16, 32))
    assert schema.square((8, 8), "it") == 8
    image = Synthetic("scenes", (32, 32)).example(3)["image"]
    np.testing.assert_array_equal(image, Synthetic("scenes", 32).example(3)["image"])


def test_vectors_need_a_width():
    data = config(16, text_width=9)
    sizes = schema.sizes_of(data, batch=1, tokens=3)
    assert schema.spec(sizes, ("text_vector",))["text_vector"].shape == (1, 9)
    without = schema.sizes_of(config(16), batch=1, tokens=3)
    with pytest.raises(DataError, match=r"'text_vector'.*config\.data\.text_width does not say"):
        schema.spec(without, ("text_vector",))


def test_names_of_each_key():
    keys = ("label", "box_label", "relation_label", "segmentation")
    assert schema.names_of(SimpleNamespace(class_names=())) == dict.fromkeys(keys, ())
    source = SimpleNamespace(class_names=["a"], object_names=["b", "c"], pixel_names=[])
    found = schema.names_of(source)
    assert found["relation_label"] == ("a",)
    del found["relation_label"]
    assert found == {"label": ("a",), "box_label": ("b", "c"), "segmentation": ()}
    corpus = Synthetic("scenes", 32)
    found = schema.names_of(corpus)
    assert found["box_label"] == found["segmentation"] == corpus.class_names
    assert not set(schema.VIEWS) & set(FIELDS)


class Tokens:
    """Lengths of captions."""

    length = 6

    def __call__(self, captions):
        lengths = np.array([len(text) for text in captions])[:, None]
        tokens = np.broadcast_to(lengths, (len(captions), 6)).astype(np.int32)
        return tokens, np.arange(6) < lengths + 1


def test_negative_prompts_are_empty_in_training():
    needs = ("negative_token_mask", "negative_tokens", "token_mask")
    sizes = Sizes(batch=2, height=16, width=16, tokens=6)
    pipe = Pipeline(Synthetic("blooms", 16), Tokens(), sizes, needs, seed=0)
    batch = pipe.batch_at(0)
    np.testing.assert_array_equal(batch["negative_tokens"], np.zeros((2, 6)))
    assert batch["negative_token_mask"].sum(1).tolist() == [1, 1]
    assert batch["token_mask"].sum(1).tolist() == [6, 6]
