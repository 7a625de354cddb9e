"""Adversarial losses: values, and where their gradients stop."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.losses import adversarial


def test_hinge_stops_caring_beyond_the_margin():
    real, fake = jnp.array([2.0, 0.5, -1.0]), jnp.array([-2.0, 0.5, 1.0])
    loss = adversarial.hinge_d(real, fake)
    np.testing.assert_allclose(loss, (0 + 0.5 + 2) / 3 + (0 + 1.5 + 2) / 3, rtol=1e-6)
    grads = jax.grad(adversarial.hinge_d, (0, 1))(real, fake)
    np.testing.assert_allclose(grads[0], [0, -1 / 3, -1 / 3], rtol=1e-6)
    np.testing.assert_allclose(grads[1], [0, 1 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(adversarial.linear_g(fake), 0.5 / 3, rtol=1e-6)


def test_logistic_losses_are_cross_entropies():
    real, fake = jnp.array([0.3, -2.0]), jnp.array([1.0, -0.5])
    p, q = jax.nn.sigmoid(real), jax.nn.sigmoid(fake)
    want = -jnp.log(p).mean() - jnp.log(1 - q).mean()
    np.testing.assert_allclose(adversarial.logistic_d(real, fake), want, rtol=1e-5)
    np.testing.assert_allclose(adversarial.logistic_g(fake), -jnp.log(q).mean(), rtol=1e-5)
    assert np.isfinite(adversarial.logistic_g(jnp.array([-1e4])))


def test_half_precision_logits_are_summed_in_float32():
    logits = jnp.full((4096,), 1 + 1 / 128, jnp.bfloat16)
    loss = adversarial.linear_g(logits)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, -(1 + 1 / 128), rtol=1e-6)


def test_relativistic_terms_look_at_the_other_kind():
    """Shifting both kinds of logits alike changes nothing; the generator exchanges the roles."""
    real, fake = jnp.array([2.0, 0.5, -1.0]), jnp.array([-2.0, 0.5, 1.0])
    for name, family in adversarial.FAMILIES.items():
        values = [f(real, fake) for f in (family.real, family.fake, family.g)]
        shifted = [f(real + 3, fake + 3) for f in (family.real, family.fake, family.g)]
        same = np.allclose(values, shifted, atol=1e-5)
        assert same == family.relative == name.startswith("relativistic"), name
    hinge = adversarial.FAMILIES["relativistic_hinge"]
    over = real - fake.mean()
    np.testing.assert_allclose(hinge.real(real, fake), jax.nn.relu(1 - over).mean() / 2, rtol=1e-6)


def test_least_squares_terms():
    family = adversarial.FAMILIES["least_squares"]
    real, fake = jnp.array([1.0, 3.0]), jnp.array([0.0, 2.0])
    assert [float(f(real, fake)) for f in (family.real, family.fake, family.g)] == [1.0, 1.0, 0.5]
