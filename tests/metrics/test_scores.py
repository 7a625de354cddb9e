import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxt2i.metrics.frechet import frechet_distance
from jaxt2i.metrics.retrieval import mean_cosine, r_precision


def by_scipy(a, b):
    a, b = (x.astype(np.float64) for x in (a, b))
    s1, s2 = np.cov(a.T), np.cov(b.T)
    gap = np.square(a.mean(0) - b.mean(0)).sum()
    return gap + np.trace(s1 + s2 - 2 * scipy.linalg.sqrtm(s1 @ s2).real)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 9), st.floats(0, 3))
def test_frechet_distance_agrees_with_scipy(seed, width, shift):
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(width, width))
    a = rng.normal(size=(60, width)).astype(np.float32)
    b = (rng.normal(size=(50, width)) @ mix + shift).astype(np.float32)
    want = by_scipy(a, b)
    assert float(frechet_distance(a, b)) == pytest.approx(want, rel=1e-3, abs=1e-3)


def test_frechet_distance_of_fewer_examples_than_features_is_finite():
    a = jax.random.normal(jax.random.key(0), (2, 5, 16))
    assert jnp.isfinite(frechet_distance(*a))
    # Roots of eigenvalues that are zero but for rounding: sqrt(1e-7) each.
    assert frechet_distance(a[0], a[0]) == pytest.approx(0, abs=2e-2)


def test_r_precision_counts_the_nearest_caption_and_forgives_twins():
    text = np.eye(4, dtype=np.float32)
    assert r_precision(3 * text, text) == 1
    assert r_precision(text[[1, 0, 2, 3]], text) == 0.5
    twins = np.concatenate([text, text])
    assert r_precision(twins, twins) == 1
    assert r_precision(text[[1, 0, 2, 3]], text, candidates=2) == 0.5


def test_mean_cosine():
    a = np.array([[2.0, 0], [0, 1]], np.float32)
    b = np.array([[1.0, 0], [1, 1]], np.float32)
    assert mean_cosine(a, b) == pytest.approx((1 + np.sqrt(0.5)) / 2)
