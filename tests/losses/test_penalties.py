"""MA-GP: its formula, and its gradient where the penalised gradient vanishes."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxt2i.losses.penalties import matching_aware, penalised, squared_biases, unit_slope


@given(st.integers(0, 2**16), st.floats(0.1, 4), st.sampled_from([2.0, 4.0, 6.0]))
def test_formula(seed, weight, power):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((3, 4, 4, 2)), rng.standard_normal((3, 5))
    joint = np.concatenate([a.reshape(3, -1), b], 1)
    want = weight * np.mean(np.linalg.norm(joint, axis=1) ** power)
    np.testing.assert_allclose(matching_aware((a, b), weight, power), want, rtol=1e-4)


def test_gradient_is_finite_at_zero():
    """The published form takes a root first, which gives NaN here."""
    gradient = jax.grad(lambda g: matching_aware((g,)))(jnp.zeros((2, 3)))
    np.testing.assert_array_equal(gradient, 0)
    root = jax.grad(lambda g: jnp.mean(jnp.sqrt(jnp.square(g).sum(1)) ** 6))(jnp.zeros((2, 3)))
    assert jnp.isnan(root).all()


def test_half_precision_is_widened():
    g = jnp.full((1, 100), 0.1, jnp.bfloat16)
    assert matching_aware((g,)).dtype == jnp.float32


def test_judging_takes_logits_and_penalty_from_one_pass():
    """Score = sum(x)^2 + 3 y, whose gradient is 2 sum(x) by each of x, and 3 by y."""
    x, y = jnp.array([[1.0, 2.0], [0.0, 1.0]]), jnp.array([[1.0], [2.0]])

    def score(x, y):
        return x.sum(1) ** 2 + 3 * y[:, 0], "seen"

    found = penalised(score, (x, y), weight=2.0, power=6.0)
    np.testing.assert_allclose(found.logits, [12, 7])
    assert found.rest == "seen"
    squares = np.array([2 * 6.0**2 + 9, 2 * 2.0**2 + 9])
    np.testing.assert_allclose(found.penalty, 2 * np.mean(squares**3), rtol=1e-6)
    free = penalised(score, (x, y), weight=0.0)
    np.testing.assert_array_equal(free.logits, found.logits)
    assert free.gradients == ()
    assert free.penalty == 0


def test_the_slope_of_wgan_gp():
    gradients = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(unit_slope(gradients), ((5 - 1) ** 2 + 1) / 2, rtol=1e-5)
    assert jnp.isfinite(jax.grad(unit_slope)(gradients)).all()


def test_biases_are_told_by_their_name():
    layer = {"kernel": jnp.ones((2, 2)), "bias": jnp.array([1.0, 2.0])}
    assert squared_biases({"a": layer, "b": {"c": {"bias": jnp.array([3.0])}}}) == 14
