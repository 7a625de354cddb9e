"""DF-GAN: published sizes, the latents, the pairs, and what one program for both players saves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.config import ConfigError
from jaxt2i.encoders.pretrained import template
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.run import open as runs
from jaxt2i.run import settings
from jaxt2i.systems.df_gan import method as df_gan


@functools.cache
def run():
    return runs.open_run(settings.preset("configs/df_gan.py", "tiny"))


def test_published_sizes():
    """The file's count less `conv_s` of the three blocks whose widths are equal."""
    unused = 3 * (256 * 256 + 256)
    assert states.count(template(df_gan.Generator())) == 9_744_131
    assert states.count(template(df_gan.Features())) == 6_619_206 - unused
    assert states.count(template(df_gan.OneWayOutput())) == 295_936


@pytest.mark.parametrize("resolution", [16, 64, 512])
def test_other_resolutions(resolution):
    sizes = {"base": 8, "resolution": resolution}
    g, d = df_gan.Generator(**sizes), df_gan.Features(**sizes)
    picture = jax.eval_shape(g.init_with_output, jax.random.key(0), *g.example())[0]
    assert picture.shape == (1, resolution, resolution, 3)
    features = jax.eval_shape(d.init_with_output, jax.random.key(0), picture)[0]
    assert features.shape[1:3] == (4, 4)


def test_latents_are_truncated_by_resampling():
    losses = df_gan.Losses(df_gan.Model(truncation=0.5), None, 16)
    z = jax.vmap(losses.latent)(jax.random.split(jax.random.key(0), 200))
    assert jnp.abs(z).max() <= 1
    # Clipping would pile 2.3% up at each border.
    assert (jnp.abs(z) > 0.999).mean() < 1e-3
    assert jnp.std(z) == pytest.approx(0.5 * 0.8796, rel=0.02)
    full = df_gan.Losses(df_gan.Model(truncation=0.0), None, 16)
    assert jnp.abs(jax.vmap(full.latent)(jax.random.split(jax.random.key(0), 200))).max() > 3


def test_mismatched_pairs_are_pictures_beside_their_neighbours_captions():
    """Every picture once, with the caption before it: the original's pairs in another order."""
    seen = {}

    def ctx(net, *args, **kw):
        if net == "d":
            return args[0]
        seen[len(seen)] = args
        return args[0].mean((1, 2, 3)) * args[1].mean(1)

    image = jnp.arange(4.0)[:, None, None, None] * jnp.ones((4, 2, 2, 3))
    sentence = 10.0 * jnp.arange(4.0)[:, None] * jnp.ones((4, 5))
    df_gan.Losses(df_gan.Model(), None, 16).real_terms(ctx, image, sentence)
    pictures, captions = (np.asarray(x).reshape(4, -1)[:, 0] for x in seen[len(seen) - 1])
    pairs = {(int(p), int(c) // 10) for p, c in zip(pictures, captions, strict=True)}
    assert pairs == {((i + 1) % 4, i) for i in range(4)}


def flops(function, *args):
    return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]


@pytest.mark.slow
def test_one_program_saves_a_generator_pass():
    method = run().method
    spec = run().batch_spec()
    state, frozen = states.shapes(method, spec)
    rules = steps.Rules(0, run().config.batch_size, 10)

    def alone(index):
        return lambda s, f, b: steps.play(method, method.players[index], rules, s, f, b)

    def forward(state, frozen, batch):
        ctx = states.context(method, state, frozen, key=jax.random.key(0), use_ema=False)
        z = jnp.zeros((run().config.batch_size, run().config.model.z_dim))
        return ctx("g", z, method.sampler.text(ctx, batch).sentence)

    fused = flops(steps.make(method, rules)[1], state, frozen, spec)
    apart = flops(alone(0), state, frozen, spec) + flops(alone(1), state, frozen, spec)
    assert apart - fused > 0.9 * flops(forward, state, frozen, spec)


def test_bad_settings_are_refused():
    config = settings.preset("configs/df_gan.py", "tiny")
    config.data.resolution = 24
    with pytest.raises(ConfigError, match=r"config\.data\.resolution=24"):
        df_gan.build(config)
