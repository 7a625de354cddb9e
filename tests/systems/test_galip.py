"""GALIP: published sizes, other trunks and sizes, CLIP's blocks with prompts, bad settings."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxt2i.config import ConfigError
from jaxt2i.encoders.clip import ClipImage, normalize_image
from jaxt2i.encoders.pretrained import template
from jaxt2i.encoders.vit import Block
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.run import open as runs
from jaxt2i.run import settings
from jaxt2i.systems.galip import method as galip

TOWER = ClipImage(resolution=32, patch=8, width=32, layers=5, heads=2, joint=16)


def opened(preset, **changes):
    config = settings.preset("configs/galip.py", preset)
    config.model.update(changes)
    return runs.open_run(config)


def test_published_sizes():
    """The file's counts less `conv_s` of the two blocks whose widths are equal."""
    unused = 2 * (768 * 768 + 768)
    assert states.count(template(galip.Generator())) == 51_830_211
    assert states.count(template(galip.Features())) == 28_706_821 - unused
    assert states.count(template(galip.Quality())) == 2_099_200


@pytest.mark.parametrize(
    ("grid", "resolution", "want"),
    [
        (7, 224, [8, 16, 32, 64, 128, 224]),
        (7, 512, [8, 16, 32, 64, 128, 256, 512]),
        (16, 224, [32, 64, 128, 224]),
        (14, 256, [16, 32, 64, 128, 256]),
        (8, 32, [16, 32]),
    ],
)
def test_resolutions_of_the_blocks(grid, resolution, want):
    assert galip.sizes(grid, resolution) == want


@pytest.mark.parametrize(
    "preset",
    [
        "coco_b16",
        "coco_512",
        # Of the same networks, at other sizes: pytest -m full.
        *(pytest.param(n, marks=pytest.mark.full) for n in ("coco", "coco_l14", "coco_256")),
    ],
)
def test_a_step_of_every_trunk_and_size_traces(preset):
    config = settings.preset("configs/galip.py", preset)
    config.batch_size = 4
    run = runs.open_run(config)
    state, frozen = states.shapes(run.method, run.batch_spec())
    program = steps.make(run.method, steps.Rules(0, 4, 10))[1]
    after, metrics = jax.eval_shape(program, state, frozen, run.batch_spec())
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert {"d/penalty", "g/similarity"} <= set(metrics)

    def draw(state, frozen, batch, keys):
        ctx = states.context(run.method, state, frozen, key=jax.random.key(0))
        return run.method.sampler(ctx, batch, keys)["image"]

    keys = jax.vmap(jax.random.key)(jnp.arange(4))
    image = jax.eval_shape(draw, state, frozen, run.batch_spec(), keys)
    size = config.model.image_size
    assert image.shape == (4, size, size, 3)


@functools.cache
def tower():
    return jax.jit(TOWER.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


def test_prompts_are_read_in_their_block_and_dropped_behind_it():
    """Against blocks called one by one, the prompt appended where there is one."""
    rng = np.random.default_rng(0)
    grid = jnp.float32(rng.standard_normal((2, 4, 4, 32)))
    prompts = jnp.float32(rng.standard_normal((2, 3, 32)))
    block = Block(length=17, heads=2, mlp=128, depth=5, act="quick_gelu")
    longer = block.clone(length=18)

    @jax.jit
    def both(variables):
        got = TOWER.apply(variables, grid, prompts, 1, method="prompted")
        x = TOWER.apply(variables, method=lambda m: m.pre_norm(m.embed.place(grid)))
        layers = variables["params"]["transformer"]["blocks"]
        for i in range(5):
            layer = {"params": jax.tree.map(lambda p, i=i: p[i], layers)}
            given, net = x, block
            if 1 <= i < 4:
                given, net = jnp.concatenate([x, prompts[:, i - 1, None]], 1), longer
            out = net.apply(layer, given.reshape(-1, 32))[0]
            x = out.reshape(given.shape)[:, : x.shape[1]]
        return got, x[:, 1:].reshape(grid.shape)

    np.testing.assert_allclose(*both(tower()), atol=1e-5)


def test_clip_sees_a_washed_out_picture_or_a_right_one():
    image = jnp.stack([jnp.full((4, 4, 3), v) for v in (-1.0, 1.0)])
    right = galip.clip_input(image, 8, "clip")
    np.testing.assert_allclose(right, jnp.repeat(jnp.repeat(normalize_image(image), 2, 1), 2, 2))
    washed = galip.clip_input(image, 8, "galip")
    np.testing.assert_allclose(washed[0], normalize_image(jnp.zeros((8, 8, 3))), atol=1e-6)
    np.testing.assert_allclose(washed[1], right[1], atol=1e-6)


@pytest.mark.full  # DF-GAN's test says it of the same game (tests/systems/test_df_gan.py)
def test_one_program_saves_a_generator_pass_and_changes_nothing():
    run = opened("tiny")
    spec, size = run.batch_spec(), run.config.batch_size
    players = (dataclasses.replace(p, tx=optax.sgd(1e-2)) for p in run.method.players)
    method = dataclasses.replace(run.method, players=tuple(players))
    shapes = states.shapes(method, spec)
    rules = steps.Rules(0, size, 10)

    def together(state, frozen, batch):
        return steps.make(method, rules)[1](state, frozen, batch)[0].params

    def one_by_one(state, frozen, batch):
        for player in method.players:
            state = steps.play(method, player, rules, state, frozen, batch)[0]
            state = jax.lax.optimization_barrier(state)
        return state.params

    def forward(state, frozen, batch):
        ctx = states.context(method, state, frozen, key=jax.random.key(0), use_ema=False)
        keys = jax.vmap(jax.random.key)(jnp.arange(size))
        return method.sampler(ctx, batch, keys)["image"]

    compiled = [jax.jit(f).lower(*shapes, spec).compile() for f in (together, one_by_one, forward)]
    fused, apart, draw = (c.cost_analysis()["flops"] for c in compiled)
    assert apart - fused > 0.7 * draw

    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    state, frozen = states.create(method, spec, 0, jax.tree.map(lambda _: one, shapes))
    data = run.pipeline(run.source("train"), size, method.needs)
    results = [c(state, frozen, data.batch_at(0)) for c in compiled[:2]]
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"taps": (0, 9)}, r"config\.model\.taps=\(0, 9\)"),
        ({"first_prompt": 3, "prompts": 2}, r"config\.model\.first_prompt=3"),
        ({"clip_input": "wash"}, r"config\.model\.clip_input='wash'"),
        ({"image_size": 8}, r"config\.model\.image_size"),
        ({"perception": "clip_b23"}, r"config\.model\.perception"),
    ],
)
def test_bad_settings_are_refused(changes, line):
    with pytest.raises((ConfigError, ValueError), match=line):
        opened("tiny", **changes)


@pytest.mark.parametrize(
    ("group", "order"),
    [(0, [1, 2, 3, 4, 5, 6, 7, 0]), (64, [1, 2, 3, 4, 5, 6, 7, 0]), (4, [1, 2, 3, 0, 5, 6, 7, 4])],
)
def test_captions_go_round_within_their_group(group, order):
    heard = []

    def ctx(net, *args, precise=False):
        if net == "d":
            return args[0].reshape(len(args[0]), -1)
        heard.append(args[1])
        return args[0].sum(1) + args[1].sum(1)

    losses = opened("tiny", mismatch_group=group).method.players[0].loss.__wrapped__.__self__
    sentence = jnp.arange(8.0)[:, None] + jnp.zeros((8, 4))
    losses.real_terms(ctx, jnp.ones((8, 1, 2, 2, 3)), sentence)
    np.testing.assert_array_equal(heard[-1][:, 0], order)


def test_a_group_divides_the_batch():
    with pytest.raises(ConfigError, match=r"mismatch_group=3 does not divide the 8 examples"):
        opened("tiny", mismatch_group=3)
