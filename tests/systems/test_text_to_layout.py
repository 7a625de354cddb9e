"""Text to layout: one object after the other equals all at once; what is drawn; what weighs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.config import ConfigError
from jaxt2i.data import statistics
from jaxt2i.data.drawn.synthetic import Synthetic
from jaxt2i.engine import state as states
from jaxt2i.run import open as runs
from jaxt2i.run import settings
from jaxt2i.run.facts import Facts
from jaxt2i.systems.text_to_layout import method as t2l
from jaxt2i.systems.text_to_layout.networks import END, PAD, SPECIAL, START

CLASSES, ROWS = 5, 6


def opened(**model):
    c = settings.preset("configs/text_to_layout.py", "tiny")
    c.model.update({"classes": CLASSES, **model})
    known = {"classes": [8, 1, 0, 4, 2], "mean_box": [0.5, 0.4, 0.3, 0.2]}
    return runs.open_run(c, Facts(statistics={"layouts": known}))


def batch_of(run):
    """Captions and layouts of 0 to all objects."""
    random, n = np.random.default_rng(1), run.config.data.objects
    there = np.arange(n) < np.arange(ROWS)[:, None] % (n + 1)
    mask = np.arange(24) < random.integers(1, 24, ROWS)[:, None]
    boxes = random.uniform(0.1, 0.5, (ROWS, n, 4)).astype(np.float32)
    return {
        "tokens": random.integers(1, 100, (ROWS, 24)).astype(np.int32) * mask,
        "token_mask": mask,
        "boxes": boxes * there[..., None],
        "box_label": random.integers(0, CLASSES, (ROWS, n)).astype(np.int32) * there,
        "box_mask": there,
    }


@pytest.mark.parametrize("bins", [0, 16])
def test_objects_one_by_one_are_what_they_are_together(bins):
    """Keys and values that are kept change nothing, and drawn boxes lie in the picture."""
    run = opened(box_tokens=bins, least_objects=2)
    shapes, _ = states.shapes(run.method, run.batch_spec())
    random, batch = np.random.default_rng(0), batch_of(run)
    draw = lambda x: jnp.asarray(random.normal(0, 0.4, x.shape), jnp.float32)  # noqa: E731
    state = shapes.replace(params=jax.tree.map(draw, shapes.params))
    slots = run.config.data.objects * (5 if bins else 1)
    kind = random.integers(0, CLASSES + SPECIAL + bins, (ROWS, slots))
    boxes = random.uniform(0, 1, (ROWS, slots, 4)).astype(np.float32)

    @jax.jit
    def both(params, batch):
        ctx = states.context(run.method, state.replace(params=params), {}, key=None)
        text = run.method.sampler.text(ctx, batch)
        given = None if bins else boxes
        together = ctx("decoder", kind, given, text)
        memory, past = (ctx("decoder", text, method=name) for name in ("memory", "begin"))

        def turn(past, n):
            box = None if bins else jnp.asarray(boxes)[:, n]
            what = jnp.asarray(kind)[:, n], box, n, past, memory, text.mask
            h, past = ctx("decoder", *what, method="step")
            return past, h

        _, alone = jax.lax.scan(turn, past, jnp.arange(slots))
        keys = jax.random.split(jax.random.key(2), ROWS)
        hot = {"argmax": False, "temperature": 5.0, "box_temperature": 3.0}
        drawn = [run.method.sampler(ctx, batch, keys, **how) for how in ({}, hot)]
        return together, jnp.swapaxes(alone, 0, 1), drawn

    together, alone, drawn = jax.device_get(both(state.params, batch))
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)
    for out in drawn:
        there, boxes = out["box_mask"], out["boxes"]
        # Nothing comes behind the end, and nothing is where nothing is.
        assert (there[:, 1:] <= there[:, :-1]).all()
        assert there[:, :2].all()
        assert not boxes[~there].any()
        assert boxes.min() >= 0
        assert (boxes[..., :2] + boxes[..., 2:]).max() <= 1 + 1e-6
        assert boxes[there][:, 2:].min() >= 1 / 64 - 1e-6
        assert 0 <= out["box_label"].min() <= out["box_label"].max() < CLASSES
    assert not np.array_equal(drawn[0]["boxes"], drawn[1]["boxes"])


def test_sequences_begin_with_the_largest_and_end_with_the_end():
    run = opened()
    own = t2l.Layouts(t2l.Model(classes=CLASSES), 3)
    batch = batch_of(run)
    kind, boxes, there = own.sequence(batch)
    area = np.where(there, boxes[..., 2] * boxes[..., 3], 0)
    assert (area[:, 1:] <= area[:, :-1]).all()
    assert (np.asarray(kind)[~np.asarray(there)] == PAD).all()
    np.testing.assert_allclose(area.sum(), batch["boxes"][..., 2:].prod(-1).sum(), rtol=1e-5)
    given = t2l.Layouts(t2l.Model(classes=CLASSES, order="data"), 3).sequence(batch)
    np.testing.assert_array_equal(given[0], (batch["box_label"] + SPECIAL) * batch["box_mask"])
    first = t2l.Layouts(t2l.Model(), 3, mean_box=(0.5, 0.4, 0.3, 0.2)).first(2)
    assert (np.asarray(first[0]) == START).all()
    np.testing.assert_allclose(first[1][1], [0.5, 0.4, 0.3, 0.2])


def test_rare_classes_weigh_more_and_their_mean_is_one():
    weight = np.asarray(t2l.weights_of((8, 1, 0, 4, 2), t2l.Model(classes=CLASSES, end_weight=0.5)))
    own = weight[SPECIAL:][[0, 1, 3, 4]]
    np.testing.assert_allclose(own / own[1], np.array([8, 1, 4, 2.0]) ** -0.8, rtol=1e-5)
    assert own.mean() == pytest.approx(1)
    assert weight[END] == 0.5
    assert (np.asarray(t2l.weights_of((), t2l.Model(classes=CLASSES))) == 1).all()


def test_a_nucleus_keeps_the_likeliest_that_make_up_its_share():
    logits = jnp.log(jnp.array([[0.1, 0.5, 0.15, 0.25], [0.97, 0.01, 0.01, 0.01]]))
    kept = lambda share: np.isfinite(t2l.nucleus(logits, share)).tolist()  # noqa: E731
    assert kept(0.7) == [[False, True, False, True], [True, False, False, False]]
    assert kept(0.0) == [[False, True, False, False], [True, False, False, False]]
    assert kept(1.0) == [[True] * 4] * 2


def test_the_schedule_warms_up_and_falls_with_the_root():
    optim = t2l.Optim()
    rate = [float(optim.rate(n)) for n in (0, 1999, 3999, 15_999)]
    np.testing.assert_allclose(rate, [2.5e-8, 5e-5, 1e-4, 5e-5], rtol=1e-5)


def test_statistics_of_layouts():
    source = Synthetic("scenes", 16, objects=2)
    known = statistics.layouts(source)
    assert len(known["classes"]) == len(source.class_names)
    assert known["pictures"] == statistics.PICTURES
    assert sum(known["classes"]) > statistics.PICTURES
    assert 0.4 < known["mean_box"][0] < 0.6


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"order": "size"}, r"config\.model\.order='size'; expected one of"),
        ({"heads": 3}, r"config\.model\.width=16 cannot be divided among"),
        ({"box_tokens": 1}, r"config\.model\.box_tokens=1; expected 2 bins or more"),
        ({"mean_box": (0.5,)}, r"config\.model\.mean_box=\(0\.5,\); expected cx, cy, w, h"),
    ],
)
def test_settings_that_cannot_be(model, said):
    with pytest.raises(ConfigError, match=said):
        opened(**model)


def test_data_with_more_classes_is_refused():
    c = settings.preset("configs/text_to_layout.py", "tiny")
    facts = Facts(names={"box_label": tuple(map(str, range(18)))})
    with pytest.raises(ConfigError, match=r"set config\.model\.classes=18"):
        runs.open_run(c, facts)
