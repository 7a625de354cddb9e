"""Parameters in bfloat16: what stochastic rounding promises, and runs that rely on it."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from jaxt2i.config import ConfigError
from jaxt2i.data import schema
from jaxt2i.engine import mesh
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.nn import optim
from jaxt2i.run import checkpoint, parts, placement, training
from jaxt2i.run.open import load_method as load

DRAWS = 4096
round_ = jax.jit(optim.stochastic_round)


@given(st.floats(2.0**-100, 2.0**100, width=32), st.booleans(), st.integers(0, 2**31 - 1))
def test_rounding_is_unbiased_and_goes_to_a_neighbour(size, negative, seed):
    x = np.float32(-size if negative else size)
    out = np.asarray(round_(jax.random.key(seed), np.full(DRAWS, x)), np.float64)
    bits = np.float32(size).view(np.uint32)
    low = np.uint32(bits & 0xFFFF0000).view(np.float32).astype(np.float64)
    gap = np.uint32((bits & 0xFFFF0000) + 0x10000).view(np.float32) - low
    share = (abs(out) - low) / gap
    assert set(share) <= {0.0, 1.0}
    want = (bits & 0xFFFF) / 2**16
    assert abs(share.mean() - want) <= 6 * np.sqrt(want * (1 - want) / DRAWS)


def test_representable_numbers_stay_and_nothing_finite_hides():
    every = np.arange(2**16, dtype=np.uint32) << 16
    x = every.view(np.float32)
    out = np.asarray(round_(jax.random.key(0), x).astype(jnp.float32))
    real = ~np.isnan(x)
    np.testing.assert_array_equal(out[real].view(np.uint32), every[real])
    worst = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], np.uint32).view(np.float32)
    assert np.isnan(np.asarray(round_(jax.random.key(0), worst), np.float32)).all()


def test_draws_depend_on_path_and_key_but_not_on_the_sharding():
    params = {"a": jnp.ones((64, 32), jnp.bfloat16), "b": jnp.ones((64, 32), jnp.bfloat16)}
    updates = jax.tree.map(lambda x: jnp.full(x.shape, 2.0**-9), params)
    apply = jax.jit(functools.partial(optim.apply_updates, name="d"))
    one = apply(params, updates, jax.random.key(0))
    on = mesh.make(2, 4, 1)
    split = jax.NamedSharding(on, jax.sharding.PartitionSpec("fsdp"))
    many = apply(*jax.device_put((params, updates), split), jax.random.key(0))
    for name in params:
        np.testing.assert_array_equal(one[name], many[name])
    other = apply(params, updates, jax.random.key(1))
    assert jnp.any(one["a"] != one["b"])
    assert jnp.any(one["a"] != other["a"])


def descend(dtype, apply):
    """Distance from a quadratic's optimum after steps that are small beside the weights."""
    goal = jnp.linspace(1.0, 2.0, 64)
    tx = optax.sgd(1e-3)

    def turn(params, key):
        updates, _ = tx.update(params.astype(jnp.float32) - goal, tx.init(params))
        return apply(params, updates, key, "d"), None

    start = jnp.full(64, 1.5, dtype)
    keys = jax.random.split(jax.random.key(0), 4000)
    return float(jnp.abs(jax.lax.scan(turn, start, keys)[0].astype(jnp.float32) - goal).mean())


def test_small_updates_are_lost_to_the_nearest_and_kept_by_chance():
    exact = descend(jnp.float32, optim.apply_updates)
    chance = descend(jnp.bfloat16, optim.apply_updates)
    nearest = descend(jnp.bfloat16, lambda p, u, *_: optax.apply_updates(p, u))
    # From 0.25 away: everything, nearly everything, nothing.
    assert exact < 0.005
    assert chance < 0.02
    assert nearest > 0.24


SIZES = schema.Sizes(batch=16, height=16, width=16, tokens=6)


def toy(**kw):
    base = {"method": "tests.engine.toy", "optim": {"lr": 0.05}, "model": {}}
    return load(ConfigDict(base | {"data": {"resolution": 16}} | kw))


def host_batch(number):
    rng = np.random.default_rng(number)
    return {
        "image": rng.integers(0, 256, (16, 16, 16, 3), np.uint8),
        "tokens": rng.integers(1, 600, (16, 6), np.int32),
        "token_mask": np.ones((16, 6), bool),
    }


def train(method, workdir, total):
    workdir.mkdir(exist_ok=True)
    layout = placement.layout(mesh.make(devices=jax.devices()[:1]))
    state = training.train(
        method,
        rules=steps.Rules(3, 16, 9),
        schedule=parts.Schedule(total, 3, 3, 0),
        layout=layout,
        inputs=parts.Inputs(
            batch=schema.spec(SIZES, method.needs),
            batches=lambda first: (layout.put_batch(host_batch(n)) for n in itertools.count(first)),
        ),
        workdir=workdir,
        config={},
    )
    return jax.device_get(state)


def test_a_run_without_masters_restarts_exactly_and_keeps_the_rest_in_float32(tmp_path):
    method = toy(param_dtype="bfloat16", masters=False)
    method = dataclasses.replace(method, players=method.players[:2])
    straight = train(method, tmp_path / "a", 6)
    train(method, tmp_path / "b", 3)
    again = train(method, tmp_path / "b", 6)
    for a, b in zip(jax.tree.leaves(straight), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert {x.dtype for x in jax.tree.leaves(straight.params)} == {jnp.dtype(jnp.bfloat16)}
    for tree in (straight.extra, straight.ema):
        assert {x.dtype for x in jax.tree.leaves(tree)} == {np.dtype(np.float32)}
    like = states.shapes(toy(), schema.spec(SIZES, method.needs))[0]
    keeper = checkpoint.Checkpoints(tmp_path / "b")
    with pytest.raises(checkpoint.Mismatch, match=r"params/d/.* is bfloat16 there, float32 here"):
        keeper.restore(like)
    keeper.close()
    earlier, _ = checkpoint.latest(tmp_path / "b")
    assert {x.dtype for x in jax.tree.leaves(earlier["params"])} == {np.dtype(np.float32)}
    filled, _ = checkpoint.transfer(method, jax.device_put(straight), earlier, "b")
    assert jax.tree.map(lambda x: x.dtype, filled) == jax.tree.map(lambda x: x.dtype, straight)


def test_masters_stay_in_float32_while_losses_see_rounded_parameters():
    method = toy(param_dtype="bfloat16")
    assert method.stored_dtype == "float32"
    seen = []
    player = method.players[0]

    def loss(ctx, batch):
        seen.append({x.dtype for x in jax.tree.leaves(ctx._params)})
        return player.loss(ctx, batch)

    method = dataclasses.replace(method, players=(dataclasses.replace(player, loss=loss),))
    spec = schema.spec(SIZES, method.needs)
    state, frozen = states.shapes(method, spec)
    after, _ = jax.eval_shape(steps.make(method, steps.Rules(3, 16, 9, 2))[1], state, frozen, spec)
    assert seen[0] == {jnp.dtype(jnp.bfloat16)}
    assert after.params == state.params


def test_unknown_storage_is_refused():
    with pytest.raises(
        ConfigError, match=r"config\.param_dtype='float16'; expected one of float32"
    ):
        toy(param_dtype="float16")


@pytest.mark.parametrize("decay_all", [True, False])
def test_biases_norms_and_scalars_decay_only_where_asked(decay_all):
    tx = optim.Adam(lr=0.1, weight_decay=0.5, decay_all=decay_all).tx()
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3), "scale": jnp.ones(())}
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    moved = {name: bool(jnp.any(x != 0)) for name, x in updates.items()}
    assert moved == {"kernel": True, "bias": decay_all, "scale": decay_all}
