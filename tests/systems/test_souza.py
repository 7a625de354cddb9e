"""Souza et al.: published sizes, mixtures of captions, the average, settling, bad settings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxt2i.config import ConfigError
from jaxt2i.data import pipeline
from jaxt2i.encoders.pretrained import template
from jaxt2i.engine import state as states
from jaxt2i.run import open as runs
from jaxt2i.run import settings
from jaxt2i.systems.souza import method as souza


@functools.cache
def run():
    return runs.open_run(settings.preset("configs/souza.py", "tiny"))


def test_published_sizes():
    assert states.count(template(souza.Generator())["params"]) == 36_721_636
    assert states.count(template(souza.Discriminator())["params"]) == 20_762_882


@pytest.mark.parametrize("resolution", [32, 128, 512])
def test_other_resolutions(resolution):
    sizes = {"base": 8, "resolution": resolution, "attention": 32}
    g, d = souza.Generator(**sizes), souza.Discriminator(**sizes)
    image = jax.eval_shape(g.init_with_output, jax.random.key(0), *g.example())[0]
    assert image.shape == (1, resolution, resolution, 3)
    logits = jax.eval_shape(d.init_with_output, jax.random.key(0), *d.example())[0]
    assert logits.shape == (1,)
    assert "non_local" in template(g)["params"]


def test_widths_of_the_published_table():
    assert souza.widths(1, 256) == [16, 16, 8, 8, 4, 2, 1]
    assert souza.widths(1, 512) == [16, 16, 16, 8, 8, 4, 2, 1]
    assert souza.widths(1, 32) == [8, 4, 2, 1]


@given(st.integers(0, 2**16), st.integers(1, 5))
def test_mixtures_are_convex_and_of_present_captions(seed, count):
    rng = np.random.default_rng(seed)
    u, sentences = rng.uniform(0, 10, (1, 5)), rng.standard_normal((1, 5, 3))
    present = np.arange(5)[None] < count
    got = souza.mixture(jnp.float32(u), jnp.asarray(present), jnp.float32(sentences))[0]
    weights = np.exp(u[0, :count])
    want = weights @ sentences[0, :count] / weights.sum()
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_training_mixes_and_sampling_does_not():
    losses = souza.Losses(souza.Model(mix_range=10.0), None, 16)

    def ctx(net, tokens, mask):
        sentence = tokens.astype(jnp.float32)
        return souza.Text(sentence, sentence[:, None], mask)

    ctx.draw = lambda name, make: make(jax.random.key(0))
    tokens = jnp.stack([jnp.arange(3.0)[:, None] * jnp.ones((3, 2))] * 2)
    batch = {
        "all_tokens": tokens,
        "all_token_mask": jnp.ones(tokens.shape, bool),
        "captions_mask": jnp.array([[True, True, True], [True, False, False]]),
        "tokens": tokens[:, 2],
        "token_mask": jnp.ones((2, 2), bool),
    }
    mixed = losses.sentences(ctx, batch)
    assert 0 < mixed[0, 0] < 2
    assert mixed[1, 0] == 0
    np.testing.assert_array_equal(losses.text(ctx, batch).sentence, tokens[:, 2])


def test_the_average_moves_by_a_thousandth_at_any_batch():
    for batch in (8, 24):
        config = settings.preset("configs/souza.py", "tiny")
        config.batch_size, config.model.ema_beta = batch, 0.999
        rule = souza.build(config).ema["g"]
        for images in (0.0, 1e6):
            assert rule.beta(jnp.float32(images), batch) == pytest.approx(0.999, abs=1e-6)


def test_settling_brings_statistics_to_those_of_the_weights():
    """After many batches the running mean is that of the first normalised features."""
    method = run().method
    spec = run().batch_spec()
    shapes = states.shapes(method, spec)
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    state, frozen = states.create(method, spec, 0, jax.tree.map(lambda _: one, shapes))
    rows = pipeline.prompts_batch(run().tokenizer, ["a red rose"] * 8)

    @jax.jit
    def turn(state, frozen, key):
        ctx = states.context(method, state, frozen, key=key)
        method.sampler.settle(ctx, rows)
        return ctx.extra

    before = state.extra["g"]["batch_stats"]["block2"]["bn1"]["norm"]
    assert jnp.all(before["mean"] == 0)
    for number in range(60):
        extra = turn(state, frozen, jax.random.key(number))
        state = state.replace(extra={**state.extra, **extra})
    # `start` is affine in z, so over z ~ N(0, I) its mean is its bias, at all 16 positions.
    mean = state.extra["g"]["batch_stats"]["block2"]["bn1"]["norm"]["mean"]
    bias = state.params["g"]["start"]["bias"].reshape(-1, 16).mean(1)
    np.testing.assert_allclose(mean, bias, atol=0.15)
    assert jnp.abs(bias).max() > 0.05
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(jnp.zeros_like(bias), bias, atol=0.01)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"loss": "hinges"}, r"config\.model\.loss='hinges'; known: hinge"),
        ({"attention": 48}, r"config\.model\.attention=48"),
        ({"g_base": 6}, r"config\.model\.g_base=6"),
        ({"ema_beta": 1.0}, r"config\.model\.ema_beta=1\.0"),
    ],
)
def test_bad_settings_are_refused(changes, line):
    config = settings.preset("configs/souza.py", "tiny")
    config.model.update(changes)
    with pytest.raises(ConfigError, match=line):
        souza.build(config)
