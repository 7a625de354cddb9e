"""Samplers against the exact solution: of normally distributed pictures the best eps is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.config import ConfigError
from jaxt2i.nn import diffusion

SPREAD = 0.5  # standard deviation of the pictures
SHARP = diffusion.Schedule(final_one=True)


def best(plan, x, t):
    """What a perfect network predicts of x_t."""
    abar = diffusion.like(plan.at(t), x)
    eps = jnp.sqrt(1 - abar) * x / (abar * SPREAD**2 + 1 - abar)
    clean = (x - jnp.sqrt(1 - abar) * eps) / jnp.sqrt(abar)
    return diffusion.target(plan, clean, eps, t)


@functools.partial(jax.jit, static_argnames=("plan", "solver", "noisy"))
def drawn(x, steps, eta, keys, *, plan, solver, noisy):
    noise = diffusion.fresh_noise(keys, x.shape[1:]) if noisy else None
    how = {"schedule": plan, "solver": solver, "eta": eta, "noise": noise}
    return diffusion.sample(functools.partial(best, plan), x, steps, **how)


X = jax.random.normal(jax.random.key(0), (3000, 2))
KEYS = jax.random.split(jax.random.key(1), len(X))


def error(solver, steps, plan=SHARP):
    """Largest distance to where the ordinary equation leads from X, as a share of it."""
    start = plan.at(plan.timestep(0, steps))
    exact = X * SPREAD / jnp.sqrt(start * SPREAD**2 + 1 - start)
    found = drawn(X, steps, 0.0, KEYS, plan=plan, solver=solver, noisy=False)
    return float(jnp.abs(found - exact).max() / jnp.abs(exact).max())


def test_steps_and_eta_are_data_of_one_program_and_solvers_converge():
    ddim, second = ([error(s, n) for n in (25, 50, 100)] for s in ("ddim", "dpmpp_2m"))
    assert ddim[0] > 1.7 * ddim[1] > 1.7**2 * ddim[2], ddim
    assert second[0] > 2 * second[1] > 4 * second[2], second
    assert second[2] < 0.6 * ddim[2], (ddim, second)
    # Euler in noise levels is DDIM where that ends at no noise.
    assert error("euler", 25) == pytest.approx(ddim[0], rel=1e-3)
    counted = drawn._cache_size()
    error("ddim", 10)
    assert drawn._cache_size() == counted


def test_the_second_order_is_one():
    """In equal steps of log noise, twice as many steps err a quarter."""

    def err(steps):
        level = np.geomspace(3, 0.3, steps + 1)
        abar = 1 / (1 + level**2)
        spread = np.sqrt(abar * SPREAD**2 + 1 - abar)
        x, last = spread[0], 0.0  # what keeps its quantile
        for i in range(steps):
            clean = np.sqrt(abar[i]) * SPREAD**2 / spread[i] ** 2 * x
            before = abar[max(i - 1, 0)]
            x = diffusion.dpmpp_2m(abar[i], abar[i + 1], before, x, clean, last, 0.0, 0.0)
            last = clean
        return abs(float(x) / spread[-1] - 1)

    errors = [err(n) for n in (10, 20, 40)]
    assert errors[0] > 3.3 * errors[1] > 3.3**2 * errors[2], errors


@pytest.mark.parametrize("solver", diffusion.SOLVERS)
def test_fresh_noise_keeps_the_distribution_and_a_picture_its_own(solver):
    draw = functools.partial(drawn, plan=SHARP, solver=solver, noisy=True)
    out = draw(X, 100, 1.0, KEYS)
    assert float(out.std()) == pytest.approx(SPREAD, rel=0.06)
    still = drawn(X, 100, 0.0, KEYS, plan=SHARP, solver=solver, noisy=False)
    assert np.abs(np.corrcoef(out.ravel(), still.ravel())[0, 1]) < 0.7
    # Two programs, whose sums the compiler may round otherwise.
    np.testing.assert_allclose(draw(X, 100, 0.0, KEYS), still, atol=1e-5)
    # Noise belongs to a picture's key, not to its place.
    np.testing.assert_allclose(draw(X[::-1], 100, 1.0, KEYS[::-1])[::-1], out, atol=1e-6)


def test_a_network_of_velocities_draws_the_same():
    plans = [diffusion.Schedule(prediction=p) for p in diffusion.PREDICTIONS]
    first, second = (drawn(X, 20, 0.0, KEYS, plan=p, solver="ddim", noisy=False) for p in plans)
    np.testing.assert_allclose(first, second, atol=2e-4)


def test_guidance_asks_once_for_both_halves():
    seen = []

    def network(x, t, text, extra):
        seen.append((x.shape, t.shape, text.shape, extra.shape))
        return text + extra

    one = jnp.ones((3, 2))
    predict = diffusion.guided(network, 0 * one, one, jnp.array([1.0, 2.0, 3.0]), 10 * one)
    np.testing.assert_allclose(predict(one, jnp.zeros(3))[:, 0], [11, 12, 13])
    assert seen == [((6, 2), (6,), (6, 2), (6, 2))]


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="known: scaled_linear, linear"):
        diffusion.Schedule(curve="cosine")
    with pytest.raises(ConfigError, match="0 < beta_start <= beta_end < 1"):
        diffusion.Schedule(beta_end=1.5)
    with pytest.raises(ConfigError, match="0 steps of sampling; expected 1 to 1000"):
        diffusion.Schedule().timesteps(0)
    with pytest.raises(ConfigError, match="did you mean euler"):
        diffusion.stepping(lambda x, t: x, 5, solver="euller")


@pytest.mark.parametrize("solver", diffusion.SOLVERS)
def test_clipped_pictures_stay_in_range_and_others_are_left_alone(solver):
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    plan = diffusion.Schedule(**diffusion.ending("pixels"))

    def ends(size, plan):
        def predict(x, t):  # of a picture of `size` everywhere
            abar = plan.at(t[0])
            return (x - jnp.sqrt(abar) * size) / jnp.sqrt(1 - abar)

        return np.asarray(diffusion.sample(predict, x, 8, schedule=plan, solver=solver))

    np.testing.assert_allclose(ends(3.0, plan), 1.0, atol=1e-4)
    np.testing.assert_allclose(ends(0.5, plan), 0.5, atol=1e-4)
    free = diffusion.Schedule(final_one=True)
    np.testing.assert_allclose(ends(3.0, free), 3.0, atol=1e-3)
