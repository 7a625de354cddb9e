"""Mixtures of Gaussians draw what their likelihood says; boxes stay inside the picture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.nn import layouts, mixture

# Two components of weights 1/4 and 3/4: logits, means, deviations, correlations.
RAW = jnp.log(jnp.array([1.0, 3.0])), jnp.array([0.0, 4.0]), jnp.array([0.0, -4.0])
RAW = jnp.concatenate([*RAW, jnp.log(jnp.array([0.5, 0.1, 0.2, 0.3])), jnp.array([1.5, -9.0])])


def test_draws_have_the_mixtures_moments_and_likelihood():
    made = mixture.read(RAW)
    assert made.rho[1] == pytest.approx(-0.99)
    keys = jax.random.split(jax.random.key(0), 4000)

    @jax.jit
    def run(keys):
        heats = jnp.array([1.0, 0.0])
        at = jax.vmap(lambda heat: jax.vmap(lambda k: mixture.sample(k, made, heat))(keys))(heats)
        return at, mixture.nll(made, at[0])

    (drawn, cold), nll = jax.device_get(run(keys))
    first = drawn[:, 0] < 2
    assert first.mean() == pytest.approx(0.25, abs=0.03)
    for part, sigma, rho in ((first, (0.5, 0.2), np.tanh(1.5)), (~first, (0.1, 0.3), -0.99)):
        np.testing.assert_allclose(drawn[part].std(0), sigma, rtol=0.1)
        assert np.corrcoef(drawn[part].T)[0, 1] == pytest.approx(rho, abs=0.03)
    # The entropy of such far components: that of which one, and the mean of theirs.
    own = [1 + np.log(2 * np.pi * s * t) + np.log(1 - r * r) / 2
           for s, t, r in ((0.5, 0.2, np.tanh(1.5)), (0.1, 0.3, -0.99))]  # fmt: skip
    entropy = -0.25 * np.log(0.25) - 0.75 * np.log(0.75) + 0.25 * own[0] + 0.75 * own[1]
    assert nll.mean() == pytest.approx(entropy, abs=0.06)
    np.testing.assert_array_equal(cold, np.tile([4.0, -4.0], (len(keys), 1)).astype(np.float32))


def test_boxes_stay_inside_and_keep_a_side():
    random = np.random.default_rng(0)
    boxes = random.normal(0.5, 1.0, (500, 4)).astype(np.float32)
    found = np.asarray(layouts.inside(boxes, 1 / 64))
    assert found[:, :2].min() >= 0
    assert found[:, 2:].min() >= 1 / 64 - 1e-6
    assert (found[:, :2] + found[:, 2:]).max() <= 1 + 1e-6
    own = np.array([[0.5, 0.4, 0.2, 0.3]], np.float32)
    np.testing.assert_allclose(layouts.centred(layouts.inside(own, 1 / 64)), own, atol=1e-7)
