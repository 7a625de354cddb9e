"""AttnGAN and DM-GAN: published sizes, borrowed encoders, the shared pass, bad settings."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxt2i.config import ConfigError
from jaxt2i.encoders import pretrained
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.run import borrow, settings, train
from jaxt2i.run import open as runs
from jaxt2i.systems.attngan import method as attngan
from jaxt2i.systems.dm_gan import method as dm_gan
from tests.nudge import nudge


def opened(name="attngan", preset="tiny", init_from="", **changes):
    config = settings.preset(f"configs/{name}.py", preset)
    config.init_from = init_from
    config.model.update(changes)
    return runs.open_run(config)


@functools.cache
def tiny():
    return opened()


@pytest.mark.parametrize(
    ("generator", "count"),
    [
        (attngan.Generator(), 7_084_592),
        (attngan.Generator(base=48, residuals=3), 13_811_456),
        (attngan.Generator(residuals=0, last_only=True), 6_638_960),
        (dm_gan.Generator(), 21_449_042),
        (dm_gan.Generator(residuals=3), 22_335_314),
    ],
)
def test_published_sizes(generator, count):
    assert states.count(pretrained.template(generator)["params"]) == count


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("attngan", "cub_dcgan"),
        ("dm_gan", "coco"),
        # Of the same networks and losses: pytest -m full.
        *(
            pytest.param(*pair, marks=pytest.mark.full)
            for pair in (("attngan", "cub"), ("attngan", "coco"), ("dm_gan", "cub"))
        ),
    ],
)
def test_a_step_of_every_published_configuration_traces(name, preset):
    config = settings.preset(f"configs/{name}.py", preset)
    config.batch_size = 4
    config.data.tokenizer = "words"
    config.model.weights = "random"
    run = runs.open_run(config)
    state, frozen = states.shapes(run.method, run.batch_spec())
    program = steps.make(run.method, steps.Rules(0, 4, 10))[1]
    after, metrics = jax.eval_shape(program, state, frozen, run.batch_spec())
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert {"g/kl", "g/w0", "d256/wrong_pair"} <= set(metrics)
    assert ("d64/loss" in metrics) == (preset != "cub_dcgan")


def test_one_drawing_serves_all_players_and_its_statistics_move_once():
    run = tiny()
    players = (dataclasses.replace(p, tx=optax.sgd(0.0)) for p in run.method.players)
    method = dataclasses.replace(run.method, players=tuple(players))
    spec, size = run.batch_spec(), run.config.batch_size
    shapes = states.shapes(method, spec)
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    state, frozen = states.create(method, spec, 0, jax.tree.map(lambda _: one, shapes))
    batch = run.pipeline(run.source("train"), size, method.needs).batch_at(0)
    program = steps.make(method, steps.Rules(0, size, 10))[1]
    losses = method.players[-1].loss.__wrapped__.__self__

    @jax.jit  # statistics alone: no gradient is computed
    def both(state, frozen, batch):
        key = steps.step_key(0, state.step)
        ctx = states.context(method, state, frozen, key=key, use_ema=False)
        losses.fake(ctx, batch, losses.text(ctx, batch))
        return program(state, frozen, batch)[0].extra["g"], ctx.extra["g"]

    after, once = both(state, frozen, batch)
    for a, b in zip(jax.tree.leaves(once), jax.tree.leaves(after), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    moved = jax.tree.map(jnp.array_equal, after, state.extra["g"])
    assert not any(jax.tree.leaves(moved))


def test_encoders_come_from_an_earlier_run(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "make", nudge)
    teacher = settings.preset("configs/damsm.py", "tiny")
    teacher.total_steps = 1
    teacher.score_images = 0
    train.train(teacher, tmp_path / "damsm", "a test")
    run = opened(init_from=str(tmp_path / "damsm"), weights="pretrained")
    got = run.method.pretrained["text"]()
    tree, _ = borrow.earlier(str(tmp_path / "damsm"))
    for a, b in zip(
        jax.tree.leaves(got["params"]), jax.tree.leaves(tree["params"]["text"]), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert set(run.method.pretrained["image"]()) == {"params", "batch_stats"}
    # Nothing there to start the generator from.
    assert borrow.fresh_start(run.config, run.method) is None
    wide = opened(init_from=str(tmp_path / "damsm"), weights="pretrained", width=24)
    with pytest.raises(ConfigError, match=r"config\.init_from=.*text/params/.* there, .* here"):
        wide.method.pretrained["text"]()
    for folder in ("", str(tmp_path / "nowhere")):
        with pytest.raises(ConfigError, match=r"config\.init_from.*configs/damsm\.py"):
            opened(init_from=folder, weights="pretrained").method.pretrained["image"]()


def test_the_paper_and_the_code_of_dm_gan_differ_where_fields_say():
    code = dm_gan.Generator(base=4, resolution=16, stages=2, residuals=1, c_dim=3)
    given = [jnp.ones(x.shape, x.dtype) for x in code.example()]
    given[0] = jax.random.normal(jax.random.key(3), given[0].shape)
    paper, passing = code.clone(twice=False), code.clone(summary_gradient=True)

    @jax.jit
    def seen(key):
        variables = code.init(key, *given)

        def drawn(module, params):
            return module.apply({**variables, "params": params}, *given).images[-1]

        params = variables["params"]
        slopes = [
            jax.grad(lambda p, m=m: jnp.square(drawn(m, p)).sum())(params)["stage1"]["fc"]["kernel"]
            for m in (code, passing)
        ]
        return [drawn(m, params) for m in (code, paper)], slopes

    images, slopes = seen(jax.random.key(0))
    assert not np.allclose(*images)
    assert not np.allclose(*slopes, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"attention_mask": "mine"}, r"config\.model\.attention_mask='mine'"),
        ({"wrong_pairs": "all"}, r"config\.model\.wrong_pairs='all'"),
        ({"weights": "none"}, r"config\.model\.weights='none'"),
        ({"stages": 3}, r"config\.data\.resolution=16"),
        ({"tunnel": 1}, r"config\.model\.tunnel"),
    ],
)
def test_bad_settings_are_refused(changes, line):
    config = settings.preset("configs/attngan.py", "tiny").unlock()
    config.model.update(changes)
    with pytest.raises(ConfigError, match=line):
        attngan.build(config)


def test_dm_gan_refuses_one_picture():
    with pytest.raises(ConfigError, match=r"config\.model\.last_only=True.*cub_dcgan"):
        opened("dm_gan", last_only=True)
