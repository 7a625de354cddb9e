"""CRD-CGAN: folded samples, switches of the four constraints, labels, bad settings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.config import ConfigError
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.run import open as runs
from jaxt2i.run import settings
from jaxt2i.systems.crd_cgan import method as crd_cgan


def opened(preset="tiny", **changes):
    config = settings.preset("configs/crd_cgan.py", preset)
    config.model.update(changes)
    return runs.open_run(config)


def losses_of(**changes):
    return crd_cgan.Losses(crd_cgan.Model(**changes), 256, 5)


def test_samples_of_a_caption_lie_beside_each_other():
    losses = losses_of(num_samples=3)
    captions = jnp.arange(4)
    np.testing.assert_array_equal(losses.folded(captions)[:4], [0, 0, 0, 1])
    np.testing.assert_array_equal(losses.samples(losses.folded(captions))[2], [2, 2, 2])


def test_codes_are_constants_and_a_pair_is_bounded():
    """Pictures that coincide cost 10, and no gradient is lost to infinity."""
    codes = np.random.default_rng(0).standard_normal((2, 2, 5))
    images = np.stack([np.zeros((2, 3)), np.array([[0.0, 0, 0], [1.0, 2, 3]])], 1)

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def slopes(images, codes):
        found = crd_cgan.sensitivity(images, codes, 10.0)
        return found.mean(), found

    (by_image, by_code), found = slopes(images, codes)
    assert found[0, 0] == 10
    between = np.abs(codes[1, 0] - codes[1, 1]).mean()
    np.testing.assert_allclose(found[1, 0], between / 2, rtol=1e-3)
    assert np.isfinite(by_image).all()
    assert np.any(by_image[1])
    assert not np.any(by_code)


def test_relativistic_terms_read_the_mean_of_the_whole_batch():
    """A logit of one picture moves the terms of all others."""
    real, fake, wrong = np.array([1.0, 2]), np.array([[0.0], [1.0]]), np.array([0.5, 0.5])

    @jax.jit
    def slopes(real, fake):
        g = jax.grad(lambda f: crd_cgan.conditional_g(real, f, True)[0])(fake)
        d = [
            jax.grad(lambda r, x=x: crd_cgan.conditional_d(r, fake, wrong, x).sum())(real)
            for x in (True, False)
        ]
        return g, *d

    g, relative, basic = slopes(real, fake)
    assert np.all(g != 0)
    np.testing.assert_allclose(basic, -1 / (1 + np.exp(real)) / 2, rtol=1e-5)
    assert np.abs(relative - basic).max() > 1e-2


def test_objects_become_a_set_of_classes():
    batch = {
        "box_label": jnp.array([[1, 3, 1], [0, 0, 0]]),
        "box_mask": jnp.array([[True, True, False], [False, False, False]]),
    }
    found = losses_of(labels="multi").target(batch)
    np.testing.assert_array_equal(found, [[0, 1, 0, 1, 0], [0, 0, 0, 0, 0]])


@functools.cache
def metrics_of(**changes):
    """Names of the metrics of all players, and the networks, by tracing the losses alone."""
    run = opened(**changes)
    players = run.method.players

    def lost(state, frozen, batch):
        ctx = states.context(run.method, state, frozen, key=jax.random.key(0), use_ema=False)
        return {f"{p.name}/{k}": x for p in players for k, x in p.loss(ctx, batch)[1].items()}

    found = jax.eval_shape(lost, *states.shapes(run.method, run.batch_spec()), run.batch_spec())
    return set(found), run.method


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"attention_loss": "off"}, {"g/attention"}),
        ({"diversity_weight": 0.0}, {"g/diversity"}),
        ({"num_samples": 1}, {"g/attention", "g/diversity"}),
        ({"category_weight": 0.0}, {"g/category", "g/alike", "d16/category"}),
        ({"labels": "multi"}, set()),
        ({"category_head": "inception"}, {"d16/category"}),
    ],
)
def test_every_constraint_has_its_switch(changes, gone):
    whole = {"g/attention", "g/diversity", "g/category", "g/alike", "d16/category"}
    metrics, method = metrics_of(**changes)
    assert whole - metrics == gone
    assert ("q" in method.nets) == bool(changes.get("category_weight", 1.0))
    assert ("q" in method.frozen) == (changes.get("category_head") == "inception")
    assert ("box_label" in method.needs) == (changes.get("labels") == "multi")


def test_classes_are_those_of_the_data():
    config = settings.preset("configs/crd_cgan.py", "tiny")
    config.model.classes = 0
    known, _ = runs.known(config)
    run = runs.open_run(config, known)
    assert run.method.nets["q"].classes == len(known.names["label"]) == 24
    with pytest.raises(ConfigError, match=r"config\.model\.classes=0.*category_weight=0"):
        runs.open_run(config)


@pytest.mark.full
@pytest.mark.parametrize("preset", ["cub", "coco"])
def test_a_step_of_every_published_configuration_traces(preset):
    config = settings.preset("configs/crd_cgan.py", preset)
    config.batch_size = 4
    config.data.tokenizer = "words"
    config.model.weights = "random"
    run = runs.open_run(config)
    state, frozen = states.shapes(run.method, run.batch_spec())
    program = steps.make(run.method, steps.Rules(0, 4, 10))[1]
    after, metrics = jax.eval_shape(program, state, frozen, run.batch_spec())
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert {"g/alike", "d256/category", "d64/conditional"} <= set(metrics)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"attention_loss": "on"}, r"config\.model\.attention_loss='on'"),
        ({"category_head": "g"}, r"config\.model\.category_head='g'"),
        ({"labels": "some"}, r"config\.model\.labels='some'"),
        ({"num_samples": 0}, r"config\.model\.num_samples=0"),
    ],
)
def test_bad_settings_are_refused(changes, line):
    with pytest.raises(ConfigError, match=line):
        opened(**changes)
