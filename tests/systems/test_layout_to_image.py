"""Layout to image: its settings, and what objects do to pictures and verdicts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.config import ConfigError
from jaxt2i.systems.layout_to_image import method as system
from jaxt2i.systems.layout_to_image import networks
from jaxt2i.systems.layout_to_image.networks import Layout

SIZES = {"classes": 4, "words_dim": 8}


@pytest.mark.parametrize(
    ("change", "resolution", "said"),
    [
        ({"masks": "hard"}, 256, r"config\.model\.masks='hard'"),
        ({"overlap": "mean"}, 256, r"config\.model\.overlap='mean'.*'one', 'sum'"),
        ({"d_aligns": "fake"}, 256, r"config\.model\.d_aligns='fake'.*'real', 'both'"),
        ({"reader_trained_by": ("g", "text")}, 256, r"config\.model\.reader_trained_by"),
        ({}, 512, r"config\.data\.resolution=512.*from 8 to 256"),
        ({"mask_size": 12}, 256, r"config\.model\.mask_size=12"),
        ({"d_grid": 32}, 32, r"config\.model\.d_grid=32.*2 to 16"),
        ({}, 32, r"config\.model\.large_stride=8.*2 to 4"),
        ({"classes": 3}, 256, r"config\.model\.classes=3.*set config\.model\.classes=5"),
    ],
)
def test_impossible_settings_name_their_line(change, resolution, said):
    with pytest.raises(ConfigError, match=said):
        system.check(system.Model(**change), resolution, tuple("abcde"))


def filled(net, *inputs):
    """Variables drawn in NumPy, positive so that no singular value is 0: `init` takes seconds."""
    shapes, rng = jax.eval_shape(net.init, jax.random.key(0), *inputs), np.random.default_rng(0)
    positive = lambda x: jnp.asarray(abs(rng.normal(size=x.shape)), jnp.float32)  # noqa: E731
    return jax.tree.map(positive, shapes)


def layouts():
    """Two pictures: a large and a small object, and one object beside an empty place."""
    first, small = [0, 0, 0.5, 1], [0.75, 0.25, 0.125, 0.125]
    second, empty = [0.5, 0, 0.5, 0.5], [0.1, 0.1, 0.3, 0.4]
    return Layout(
        boxes=jnp.asarray([[first, small], [second, empty]], jnp.float32),
        label=jnp.asarray([[0, 3], [1, 2]]),
        mask=jnp.asarray([[True, True], [True, False]]),
    )


def test_covers_are_boxes_at_every_size():
    given = layouts()
    found = networks.covers(jnp.ones((2, 2, 16, 16)), given, 16)
    assert sorted(found) == [4, 8, 16]
    left = np.zeros((16, 16))
    left[:, :8] = 1
    np.testing.assert_allclose(found[16][0, 0], left, atol=1e-6)
    for cover in found.values():
        assert not cover[1, 1].any()
        # A box smaller than a pixel of the coarsest map is there by its area.
        np.testing.assert_allclose(cover[0, 1].mean(), 1 / 64, rtol=1e-5)


@pytest.mark.parametrize("overlap", ["one", "sum"])
def test_what_overlaps_is_averaged_and_the_rest_is_the_background(overlap):
    net = networks.LayoutNorm(overlap=overlap)
    rng = np.random.default_rng(0)
    x, code, sentence = (
        rng.normal(size=s).astype(np.float32) for s in ((1, 2, 2, 3), (1, 2, 4), (1, 5))
    )
    cover = np.zeros((1, 2, 2, 2), np.float32)
    cover[0, 0] = [[1, 0.5], [1, 0]]
    cover[0, 1] = [[0, 0], [1, 0]]
    variables = filled(net, x, code, sentence, cover)
    variables["batch_stats"] = {"norm": {"mean": jnp.zeros(3), "var": jnp.ones(3)}}
    out = net.apply(variables, x, code, sentence, cover)[0]
    of = lambda name, v: v @ variables["params"][name]["kernel"] + variables["params"][name]["bias"]  # noqa: E731
    first, second = of("objects", code[0])
    behind = of("background", sentence[0])
    # Half a mask: the background has the other half, or the object has all of the place.
    half = (first + behind) / 2 if overlap == "one" else first
    want = [[first, half], [(first + second) / 2, behind]]
    for i, j in np.ndindex(2, 2):
        scale, bias = want[i][j][:3], want[i][j][3:]
        np.testing.assert_allclose(out[i, j], (1 + scale) * x[0, i, j] + bias, atol=2e-4)


@pytest.fixture(scope="module")
def judge():
    """D of 32 pixels, compiled once: (picture, layout) -> what it says."""
    net = networks.Critic(
        base=4, resolution=32, grid=8, small_stride=2, large_stride=4, roi_size=4, classes=4
    )
    image, sentence = jnp.zeros((2, 32, 32, 3)), jnp.ones((2, 256))
    start = filled(net, image, sentence, layouts())
    return jax.jit(lambda image, layout: net.apply(start, image, sentence, layout))


def test_objects_are_judged_by_what_lies_around_them(judge):
    given, image = layouts(), jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    plain = judge(image, given)
    # Far from the first picture's small object, and inside of its large one.
    other = judge(image.at[0, 24:, :8].set(1), given)
    assert not np.allclose(plain.seen[0, 0], other.seen[0, 0])
    np.testing.assert_allclose(plain.seen[0, 1], other.seen[0, 1], rtol=1e-5)
    # The class counts in the verdict and not in what is seen.
    renamed = judge(image, given.replace(label=given.label.at[0, 1].set(2)))
    np.testing.assert_allclose(plain.seen, renamed.seen, rtol=1e-5)
    assert abs(plain.objects - renamed.objects)[0, 1] > 1e-4
    np.testing.assert_allclose(plain.image, renamed.image, rtol=1e-5)


def test_empty_places_do_not_show_and_masks_stay_in_their_boxes():
    net = networks.Generator(
        base=2,
        resolution=16,
        text_dim=4,
        mask_size=4,
        mask_features=4,
        z_dim=4,
        local_dim=4,
        sentence_dim=6,
        label_dim=4,
    )
    given, rng = layouts(), np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    z, local, sentence = normal(2, 4), normal(2, 2, 4), normal(2, 6)
    told = networks.Told(label=normal(2, 2, 4), text=normal(2, 2, 6), share=normal(2, 2, 3))
    start = jax.jit(net.init)(jax.random.key(0), z, local, sentence, told, given)
    draw = jax.jit(lambda *given: net.apply(start, z, *given))
    plain = draw(local, sentence, told, given)
    assert plain.masks[0, 0, :, :7].min() > 0
    assert not plain.masks[0, 0, :, 9:].any()
    assert not plain.masks[1, 1].any()
    empty = (1, 1)
    same = draw(
        local.at[empty].add(1),
        sentence,
        told.replace(label=told.label.at[empty].add(1)),
        given.replace(boxes=given.boxes.at[empty].set(0.5)),
    )
    np.testing.assert_array_equal(plain.image, same.image)
    moved = draw(local.at[1, 0].add(1), sentence, told, given)
    assert not np.allclose(plain.image[1], moved.image[1])
    np.testing.assert_array_equal(plain.image[0], moved.image[0])


@pytest.mark.parametrize(("asked", "expected"), [("real", 1.0), ("both", 2.0)])
def test_d_aligns_drawn_regions_only_where_it_is_asked_to(monkeypatch, asked, expected):
    """Real regions are 1 from their texts, drawn ones 3."""
    ones, drawn = jnp.ones((2, 1)), jnp.zeros((2, 8, 8, 3))
    told = networks.Judged(image=ones[:, 0], objects=ones, seen=jnp.asarray(1.0))
    fake = networks.Judged(image=ones[:, 0], objects=ones, seen=jnp.asarray(3.0))
    of = {
        "text": lambda *_: None,
        "told": lambda *_: None,
        "fake": lambda *_: drawn,
        "judged": lambda self, ctx, batch, image, text: fake if image is drawn else told,
        "aligned": lambda self, ctx, batch, seen, told: seen,
    }
    for name, function in of.items():
        monkeypatch.setattr(system.Losses, name, function)
    monkeypatch.setattr(system.jax.lax, "stop_gradient", lambda x: x)
    model = system.Model(classes=4, d_aligns=asked)
    batch = {"image": jnp.zeros((2, 8, 8, 3), jnp.uint8), "box_mask": ones > 0}
    losses = system.Losses(model=model, resolution=8, objects=1)
    assert losses.d_loss(None, batch)[1]["align"] == expected
