"""Losses of staged generators, on discriminators that are plain sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.losses import staged

RNG = np.random.default_rng(0)
REAL, FAKE = (jnp.asarray(RNG.standard_normal((4, 2, 2, 3)), jnp.float32) for _ in range(2))
SENTENCE = jnp.asarray(RNG.standard_normal((4, 5)), jnp.float32)


def plain(x, sentence=None, *, method, train=False):
    """The pair's logit depends on both; norms would need `train` in all but the last head."""
    assert train == (method != "alone")
    if method == "features":
        return x.mean((1, 2, 3))
    return 2 * x if method == "alone" else 3 * x + sentence.sum(-1)


def softplus(x):
    return np.logaddexp(0, np.asarray(x, np.float64)).mean()


@pytest.mark.parametrize("pairs", staged.PAIRS)
def test_wrong_pairs_are_pictures_beside_other_captions(pairs):
    h, sentence = staged.wrong_pairs(jnp.arange(4), jnp.arange(4), pairs)
    found = list(zip(h.tolist(), sentence.tolist(), strict=True))
    assert found == [(0, 1), (1, 2), (2, 3)] + ([(3, 0)] if pairs == "roll" else [])


@pytest.mark.parametrize("unconditional", [True, False])
def test_a_discriminators_loss_has_the_codes_weights(unconditional):
    given = {"pairs": "roll", "unconditional": unconditional}
    loss, terms = staged.d_loss(plain, REAL, FAKE, SENTENCE, **given)
    real, fake = (np.asarray(x).mean((1, 2, 3)) for x in (REAL, FAKE))
    own, next_one = (np.asarray(s).sum(1) for s in (SENTENCE, jnp.roll(SENTENCE, -1, 0)))
    want = {
        "real_pair": softplus(-(3 * real + own)),
        "fake_pair": softplus(3 * fake + own),
        "wrong_pair": softplus(3 * real + next_one),
        "real": softplus(-2 * real),
        "fake": softplus(2 * fake),
    }
    wrong = want["fake_pair"] + want["wrong_pair"]
    total = (want["real"] + want["real_pair"]) / 2 + (want["fake"] + wrong) / 3
    if not unconditional:
        del want["real"], want["fake"]
        total = want["real_pair"] + wrong / 2
    assert terms.keys() == want.keys()
    for name, value in want.items():
        assert terms[name] == pytest.approx(value, rel=1e-5), name
    assert loss == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("unconditional", [True, False])
def test_the_generator_hears_every_discriminator(unconditional):
    by_name = {"d8": plain, "d16": plain}
    terms = staged.g_terms(by_name, (FAKE, -FAKE), SENTENCE, unconditional=unconditional)
    fake, own = np.asarray(FAKE).mean((1, 2, 3)), np.asarray(SENTENCE).sum(1)
    want = {"d8_pair": softplus(-(3 * fake + own)), "d16_pair": softplus(3 * fake - own)}
    if unconditional:
        want |= {"d8_alone": softplus(-2 * fake), "d16_alone": softplus(2 * fake)}
    assert terms.keys() == want.keys()
    for name, value in want.items():
        assert terms[name] == pytest.approx(value, rel=1e-5), name
    with pytest.raises(ValueError, match="zip"):
        staged.g_terms(by_name, (FAKE,), SENTENCE)


def test_divergence_is_that_of_gaussians():
    mean, log_variance = jnp.array([[0.5, -1.0]]), jnp.array([[0.2, -0.4]])
    variance = np.exp([0.2, -0.4])
    want = 0.5 * (variance + np.array([0.25, 1.0]) - 1 - np.array([0.2, -0.4])).mean()
    assert staged.divergence(mean, log_variance) == pytest.approx(want, rel=1e-5)
    assert staged.divergence(jnp.zeros((2, 3)), jnp.zeros((2, 3))) == 0
    assert jax.grad(lambda m: staged.divergence(m, jnp.zeros((2, 3))))(jnp.zeros((2, 3))).sum() == 0
