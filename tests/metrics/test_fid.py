"""The published Frechet distance, against scipy's matrix root and in closed form."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxt2i.metrics import frechet
from jaxt2i.metrics.score import CountError, FeatureError
from jaxt2i.metrics.statistics import Gaussian, gaussian, of_rows


def cloud(count, width, seed=0, spread=None, shift=0.0):
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(width, width)) if spread is None else np.diag(spread)
    return rng.normal(size=(count, width)) @ mix + shift


def of(x):
    return gaussian(of_rows(x))


def fid(real, fake, **kw):
    return frechet.fid(of(real), of(fake), **kw).value


def by_scipy(a, b):
    s1, s2 = a.covariance, b.covariance
    root = scipy.linalg.sqrtm(s1 @ s2)
    gap = a.mean - b.mean
    return float(gap @ gap + np.trace(s1 + s2 - 2 * root.real))


def by_factors(real, fake):
    """Exact for few rows too: the trace of the root is a sum of singular values of data."""
    a, b = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (real, fake))
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    gap = real.mean(0) - fake.mean(0)
    return float(gap @ gap + np.square(a).sum() + np.square(b).sum() - 2 * shared)


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.integers(2, 24), st.floats(0, 10))
def test_agrees_with_scipy(seed, width, shift):
    real, fake = of(cloud(80, width, seed)), of(cloud(70, width, seed + 1, shift=shift))
    assert frechet.fid(real, fake).value == pytest.approx(by_scipy(real, fake), rel=1e-9)


def test_ill_conditioned_covariances():
    # Standard deviations over eight decades, turned into general position.
    turn = np.linalg.qr(cloud(24, 24, 5))[0]
    real = cloud(400, 24, 1, np.logspace(0, -8, 24)) @ turn
    fake = cloud(400, 24, 2, np.logspace(-8, 0, 24)) @ turn + 1
    exact = by_factors(real, fake)
    assert fid(real, fake) == pytest.approx(exact, rel=1e-8)
    assert by_scipy(of(real), of(fake)) == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize(("reals", "fakes"), [(20, 24), (20, 500), (500, 20), (2, 2)])
def test_singular_covariances(reals, fakes):
    real, fake = cloud(reals, 48, 1), cloud(fakes, 48, 2)
    assert fid(real, fake) == pytest.approx(by_factors(real, fake), rel=1e-6)
    # The same 48 features, 30 of them without any variance.
    still = np.arange(48) < 30
    real, fake = (np.where(still, 2.0, x) for x in (cloud(300, 48, 3), cloud(200, 48, 4)))
    assert fid(real, fake) == pytest.approx(by_factors(real, fake), rel=1e-6)


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.integers(1, 20), st.integers(3, 60))
def test_symmetric_not_negative_and_zero_for_the_same_set(seed, width, count):
    a, b = cloud(count, width, seed), cloud(count + 5, width, seed + 1)
    assert fid(a, b) == pytest.approx(fid(b, a), rel=1e-6, abs=1e-6)
    assert fid(a, b) >= 0
    size = np.trace(of(a).covariance)
    assert fid(a, a) <= 1e-6 * size
    assert fid(a, a[::-1]) <= 1e-6 * size


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.floats(-100, 100), st.floats(0.1, 10))
def test_invariances(seed, shift, scale):
    a, b = cloud(60, 8, seed), cloud(50, 8, seed + 1)
    value = fid(a, b)
    turn = np.linalg.qr(cloud(8, 8, seed + 2))[0]
    assert fid(a @ turn, b @ turn) == pytest.approx(value, rel=1e-8)
    assert fid(a + shift, b + shift) == pytest.approx(value, rel=1e-8)
    assert fid(a * scale, b * scale) == pytest.approx(value * scale**2, rel=1e-8)


def test_closed_forms():
    a = cloud(500, 5)
    assert fid(a, a + 2) == pytest.approx(5 * 4, rel=1e-12)
    # Of one set and its multiple: (c - 1)^2 times the trace, means apart.
    assert fid(a, 3 * a) == pytest.approx(
        4 * np.trace(of(a).covariance) + 4 * np.square(a.mean(0)).sum(), rel=1e-9
    )


def test_division_by_n_and_what_the_score_tells():
    real, fake = cloud(300, 4, 1), cloud(250, 4, 2)
    score = frechet.fid(of(real), of(fake), ddof=0)
    biased = [
        Gaussian(g.mean, np.cov(x.T, ddof=0)) for g, x in ((of(real), real), (of(fake), fake))
    ]
    assert score.value == pytest.approx(frechet.fid(*biased).value, rel=1e-12)
    assert score.facts == {"width": 4, "real": 300, "generated": 250, "covariance": "N"}
    assert score.warnings == ()
    told = score.with_facts(protocol="stylegan").as_dict()
    assert told["facts"]["protocol"] == "stylegan"
    assert (told["metric"], told["interval"]) == ("fid", None)


def test_too_few_images_are_told():
    real, few = of(cloud(300, 30, 1)), of(cloud(29, 30, 2))
    (said,) = frechet.fid(real, few).warnings
    assert "29 generated images for 30 features: the covariance is singular" in said
    (said,) = frechet.fid(of(cloud(299, 30)), real).warnings
    assert "299 reference images for 30 features: the distance is biased upwards" in said
    unknown = dataclasses.replace(few, count=None)
    score = frechet.fid(real, unknown)
    assert (score.warnings, score.facts["generated"]) == ((), "unknown")


def test_sets_of_different_networks_are_refused():
    with pytest.raises(FeatureError, match="reference has 4 features and the generated images 5"):
        frechet.fid(of(cloud(50, 4)), of(cloud(50, 5)))


def test_fid_infinity_takes_the_bias_away():
    real = of(cloud(60_000, 16, 1, np.ones(16)))
    fake = cloud(3000, 16, 2, np.ones(16)).astype(np.float32)
    score = frechet.fid_infinity(real, fake, smallest=200)
    # Both are the same distribution: the distance is 0, and what is measured is bias.
    assert score.facts["fid"] > 0.02
    assert abs(score.value) < score.facts["fid"] / 4
    assert score.facts["slope"] > 0
    assert score.facts["sizes"] == "15 from 300 to 3000, seed 0"
    assert score.facts["fid"] == pytest.approx(frechet.fid(real, of(fake)).value, rel=1e-9)
    assert frechet.fid_infinity(real, fake, smallest=200) == score
    with pytest.raises(CountError, match="3000 examples, at least 5001 are needed"):
        frechet.fid_infinity(real, fake)
