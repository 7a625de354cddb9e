import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.verify.compute import compiled, float64, replay, traced


def test_casts_to_float32_and_inner_programs_are_float64():
    def function(x, w):
        def body(carry, i):
            return jnp.tanh(carry @ w).astype(jnp.float32) + i, carry.sum()

        x = jnp.float32(0.1) + x.astype(jnp.float32)
        last, sums = jax.lax.scan(body, x, jnp.arange(3, dtype=jnp.float32))
        last = jax.lax.cond(last.sum() > 0, jnp.sin, jnp.cos, last)
        last, _ = jax.lax.while_loop(
            lambda c: c[1] < 3, lambda c: (c[0] * jnp.float32(1.1), c[1] + 1), (last, 0)
        )
        return jax.checkpoint(nn.gelu)(last), sums, jax.nn.relu(last)[jnp.array([0, 0])]

    draw = np.random.RandomState(0)
    given = [draw.standard_normal((4, 4)).astype(np.float32) for _ in range(2)]
    narrow, wide = compiled(function)(*given), replay(function, *given)
    for a, b in zip(narrow, wide, strict=True):
        assert b.dtype == np.float64
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        assert not np.array_equal(a, b)  # digits that float32 has not


def test_what_float32_loses_is_there():
    function = compiled(lambda x, large: (x + large).astype(jnp.float32))
    one, large = np.float32(1), np.float32(1e8)
    assert function(one, large) == large
    with float64():
        assert function(one, large) == 100_000_001
    assert function(one, large) == large


def test_gradients_of_kinks_and_of_custom_rules():
    pool = lambda x: nn.max_pool(x, (2, 2), (2, 2))  # noqa: E731

    @jax.custom_vjp
    def doubled(x):
        return x

    doubled.defvjp(lambda x: (x, None), lambda _, g: (2 * g,))

    def function(x):
        return jax.grad(lambda x: (doubled(pool(jax.nn.relu(x))) ** 2).sum())(x)

    x = np.random.RandomState(0).standard_normal((1, 4, 4, 2)).astype(np.float32)
    wide = replay(function, x)
    np.testing.assert_allclose(wide, function(x), rtol=1e-6)
    # Squared, then doubled by the rule: 4 x at the largest of each four.
    largest = x.reshape(2, 2, 2, 2, 2).max((1, 3)).astype(np.float64)
    np.testing.assert_array_equal(np.sort(wide[wide != 0]), np.sort(4 * largest[largest > 0]))


def test_draws_are_those_of_float32():
    function = lambda key: jax.random.normal(key, (5,))  # noqa: E731
    key = jax.random.key(3)
    np.testing.assert_allclose(replay(function, key), function(key), rtol=1e-5)


def test_integers_and_halves_stay_what_they_are():
    function = lambda x, n: (x * 2, n + 1, x.astype(jnp.float32))  # noqa: E731
    half, number, wide = replay(function, np.ones(2, np.float16), np.arange(2))
    assert (half.dtype, number.dtype, wide.dtype) == (np.float16, np.int32, np.float64)


@pytest.mark.parametrize("wide", [False, True])
def test_a_case_that_is_traced_whole_comes_back_channels_first(wide):
    class Case:
        inputs = {"in_x": np.ones((1, 2, 3, 4), np.float32)}  # noqa: RUF012

    run = traced(lambda case, inputs: {"out_x": inputs["in_x"], "out_sum": inputs["in_x"].sum()})
    if wide:
        with float64():
            found = run(None, Case)
    else:
        found = run(None, Case)
    assert found["out_x"].shape == (1, 4, 2, 3)
    assert found["out_sum"].dtype == (np.float64 if wide else np.float32)
