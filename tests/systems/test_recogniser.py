"""The recogniser: what it is taught, how its grid is read, and that each picture stands alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.config import ConfigError
from jaxt2i.data import schema
from jaxt2i.data.drawn import meaning
from jaxt2i.data.drawn.synthetic import Synthetic
from jaxt2i.metrics.recognised import found
from jaxt2i.run import open as runs
from jaxt2i.run import settings
from jaxt2i.systems.recogniser import method as recogniser

KEYS = ("image", "boxes", "box_label", "box_mask", "box_attributes", "setting")


def batch_of(corpus, count):
    source = Synthetic(corpus, 32)
    examples = [source.example(n, KEYS) for n in range(count)]
    return {key: np.stack([e[key] for e in examples]) for key in KEYS}


def perfect(batch, model):
    """What a network says that has learned everything."""
    want = recogniser.targets(batch, model.grid)

    def sure(label, count):
        return 20.0 * jax.nn.one_hot(label, count)

    attributes = [sure(want["attributes"][..., n], v) for n, v in enumerate(model.values)]
    order = want["attributes"][..., len(model.values)].astype(jnp.float32)
    return {
        "heat": jnp.log(want["heat"] + 1e-6) - jnp.log(1 - want["heat"] + 1e-6),
        "class": sure(want["class"], model.classes),
        "box": want["box"],
        "order": order,
        "attributes": jnp.concatenate(attributes, -1),
        "place": sure(batch["setting"][:, 0], model.places),
        "backdrop": sure(batch["setting"][:, 1], model.values[0]),
        "features": jnp.zeros((len(order), 4)),
    }


@pytest.mark.parametrize("corpus", ["scenes", "blooms"])
def test_what_is_taught_reads_back_as_what_was_drawn(corpus):
    batch = batch_of(corpus, 96)
    config = settings.preset("configs/recogniser.py", {"scenes": "embedded"}.get(corpus, corpus))
    model = recogniser.Model(**config.model)
    seen = jax.jit(lambda out: recogniser.readings(out, model))(perfect(batch, model))
    for key, share in found(seen, batch).items():
        # Two centres may share a cell of the grid, in one picture of five hundred.
        assert share >= 0.98, key
    seen = jax.device_get(seen)
    source, broken = Synthetic(corpus, 32), 0
    for n in range(96):
        facts = meaning.decode(corpus, {k: v[n] for k, v in seen.items()})
        for caption in source.captions(n):
            broken += not all(
                v.right for v in meaning.verdicts(meaning.read(caption, corpus), facts)
            )
    assert broken <= 5, broken


def test_targets_of_one_object_by_hand():
    batch = {
        "boxes": np.float32([[[0.25, 0.5, 0.3, 0.3], [0, 0, 0, 0]]]),
        "box_label": np.int32([[5, 0]]),
        "box_mask": np.array([[True, False]]),
        "box_attributes": np.int32([[[1, 2, 3, -1, -1, -1, -1, -1, 0], [0] * 9]]),
    }
    want = recogniser.targets(batch, 4)
    # The centre is at (0.4, 0.65): column 1.6, row 2.6.
    assert np.argwhere(want["heat"][0] == 1).tolist() == [[2, 1]]
    assert (want["weight"][0] > 0).sum() == 1  # sigma 0.4: the neighbours are at 0.04
    np.testing.assert_allclose(want["heat"][0, 2, 0], np.exp(-0.5 / 0.4**2), rtol=1e-5)
    np.testing.assert_allclose(
        want["box"][0, 2, 1], [0.6, 0.6, np.log(0.3), np.log(0.3)], rtol=1e-4
    )
    assert want["class"][0, 2, 1] == 5
    assert want["attributes"][0, 2, 1].tolist() == batch["box_attributes"][0, 0].tolist()


def test_focal_loss_is_the_papers():
    logits, heat = jnp.float32([0.3, -1.0, 2.0]), jnp.float32([1.0, 0.5, 0.0])
    p = 1 / (1 + np.exp(-np.float64([0.3, -1.0, 2.0])))
    terms = [
        (1 - p[0]) ** 2 * np.log(p[0]),
        0.5**4 * p[1] ** 2 * np.log(1 - p[1]),
        p[2] ** 2 * np.log(1 - p[2]),
    ]
    np.testing.assert_allclose(recogniser.focal(logits, heat), -sum(terms), rtol=1e-5)


def test_who_is_in_front_is_asked_where_boxes_meet():
    batch = {
        "boxes": np.float32([[[0.0, 0, 0.5, 0.5], [0.3, 0.3, 0.5, 0.5], [0.85, 0, 0.1, 0.1]]]),
        "box_mask": np.ones((1, 3), bool),
        "box_attributes": np.zeros((1, 3, 9), np.int32),
    }
    batch["box_attributes"][0, :, -1] = [0, 1, 2]
    order = np.zeros((1, 8, 8), np.float32)
    order[0, 4, 4] = 3.0  # the second object's centre
    np.testing.assert_allclose(
        recogniser.in_front(jnp.asarray(order), batch), np.log1p(np.exp(-3)), rtol=1e-5
    )
    batch["box_attributes"][0, :, -1] = [1, 0, 2]
    np.testing.assert_allclose(
        recogniser.in_front(jnp.asarray(order), batch), np.log1p(np.exp(3)), rtol=1e-5
    )


def test_labels_that_are_not_there_teach_nothing():
    logits = jnp.float32([[2.0, 0.0], [0.0, 5.0]])
    both = recogniser.cross_entropy(logits, jnp.int32([0, -1]))
    np.testing.assert_allclose(both, np.log1p(np.exp(-2)), rtol=1e-5)
    assert recogniser.cross_entropy(logits, jnp.int32([-1, -1])) == 0


def test_weaker_boxes_on_the_same_object_go():
    boxes = jnp.float32([[[0, 0, 1, 1], [0, 0, 1, 0.9], [0.5, 0.5, 1, 1], [0, 0, 0.9, 0.8]]])
    sure = jnp.array([[True, True, True, True]])
    assert recogniser.kept(boxes, sure).tolist() == [[True, False, True, False]]
    # What goes does not take others along: the last overlaps the first object only.
    sure = jnp.array([[False, True, True, True]])
    assert recogniser.kept(boxes, sure).tolist() == [[False, True, True, False]]


def test_no_more_objects_are_seen_than_there_may_be():
    batch = batch_of("scenes", 8)
    model = recogniser.Model(objects=1, least=0.0)
    seen = recogniser.readings(perfect(batch, model), model)
    assert seen["box_mask"].sum(1).tolist() == [1] * 8


def test_edges_do_not_know_colours_and_turn_with_the_picture():
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    base = recogniser.edges(jnp.asarray(image), 2)
    assert base.shape == (2, 8, 8, 9)
    np.testing.assert_allclose(recogniser.edges(-image, 2), base, atol=1e-4)
    np.testing.assert_allclose(recogniser.edges(image[..., [2, 0, 1]], 2), base, atol=1e-4)
    # Mirrored, direction k becomes direction 8 - k.
    mirrored = recogniser.edges(image[:, :, ::-1], 2)[:, :, ::-1]
    turned = np.r_[0, 7:0:-1, 8]
    np.testing.assert_allclose(mirrored, base[..., turned], atol=1e-4)
    # A vertical edge is seen in the first direction alone, beside it only.
    step = np.ones((1, 16, 16, 3), np.float32)
    step[:, :, :8] = -1
    cells = recogniser.edges(step, 2)[0, 4]
    assert cells[3:5, 0].min() > 0.1
    assert np.abs(cells[:, 4]).max() < 1e-3
    assert np.abs(cells[[0, 1, 6, 7], 0]).max() < 1e-3


def test_a_reading_depends_on_the_picture_alone():
    run = runs.open_run(settings.preset("configs/recogniser.py", "tiny"))
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    eye = run.method.nets["eye"]
    variables = eye.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    apply = jax.jit(lambda x: eye.apply(variables, schema.unit_range(x)))
    many, one = apply(images), apply(images[3:4])
    for key in many:
        np.testing.assert_allclose(many[key][3], one[key][0], atol=1e-5)


def test_presets_count_what_the_corpora_have():
    for preset, corpus in (("embedded", "scenes"), ("blooms", "blooms"), ("tiny", "scenes")):
        config = settings.preset("configs/recogniser.py", preset)
        assert config.data.corpus == corpus
        assert config.model.classes == len(meaning.CLASSES[corpus])
        assert config.model["values"] == tuple(map(len, meaning.ATTRIBUTES.values()))
        assert config.model.places == len(meaning.PLACES)
    assert (*meaning.ATTRIBUTES, "order") == schema.BOX_ATTRIBUTES


def test_resolutions_that_do_not_fit_the_grid_are_refused():
    config = settings.preset("configs/recogniser.py", "tiny")
    config.data.resolution = 20
    with pytest.raises(ConfigError, match=r"config\.data\.resolution=20"):
        recogniser.build(config)
