"""Moments of features: accurate, exact in their padding, the same however they are cut."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxt2i.metrics import statistics as stats
from jaxt2i.metrics.score import CountError, FeatureError, StatisticsError

ROOT = Path(__file__).parents[2]


def features(count=300, width=6, offset=0.0, seed=0):
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(width, width))
    return (rng.normal(size=(count, width)) @ mix + offset).astype(np.float32)


def two_pass(x):
    x = x.astype(np.float64)
    mean = x.mean(0)
    return mean, (x - mean).T @ (x - mean) / (len(x) - 1)


def in_batches(x, size):
    total = stats.nothing(x.shape[1])
    for at in range(0, len(x), size):
        total = stats.merge(total, stats.of_rows(x[at : at + size]))
    return total


def in_device_batches(x, size, junk=np.nan):
    """The last batch is filled up with rows that hold anything."""
    step, state = jax.jit(stats.accumulate, donate_argnums=0), stats.on_device(x.shape[1])
    for at in range(0, len(x), size):
        part = x[at : at + size]
        filled = np.full((size, x.shape[1]), junk, x.dtype)
        filled[: len(part)] = part
        state = step(state, filled, np.arange(size) < len(part))
    return stats.from_device(state)


def error(found, x):
    """Largest error of the covariance, as a share of the standard deviations it belongs to."""
    _, want = two_pass(x)
    size = np.sqrt(np.diag(want))
    return float((np.abs(stats.gaussian(found).covariance - want) / np.outer(size, size)).max())


# --- Accuracy ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ugly():
    """50,000 rows whose means are up to a million times their deviations, which differ too."""
    rng = np.random.default_rng(1)
    spread = rng.normal(size=(50_000, 64)) * np.logspace(0, -1, 64)
    return (spread @ rng.normal(size=(64, 64)) / 8 + 1e4 * rng.normal(size=64)).astype(np.float32)


def test_host_moments_of_many_rows_with_large_means(ugly):
    found = in_batches(ugly, 100)
    mean, _ = two_pass(ugly)
    assert found.count == 50_000
    np.testing.assert_allclose(found.mean, mean, rtol=1e-14)
    assert error(found, ugly) < 1e-10


def test_device_moments_of_many_rows_with_large_means(ugly):
    found = in_device_batches(ugly, 128)
    mean, covariance = two_pass(ugly)
    assert found.count == 50_000
    assert (np.abs(found.mean - mean) / np.sqrt(np.diag(covariance))).max() < 1e-7
    assert error(found, ugly) < 5e-6
    # Plain sums in float32 are what this is for: nothing is left of them.
    x = jnp.asarray(ugly)
    second = np.asarray(x.T @ x / len(x)) - np.outer(x.mean(0), x.mean(0))
    assert np.abs(second - covariance).max() > 100 * covariance.max()


def test_device_moments_when_the_first_batch_is_unlike_the_rest(ugly):
    some = ugly[np.argsort(ugly[:, 0])][:20_000]
    assert error(in_device_batches(some, 128), some) < 2e-5


# --- Padding and cutting -----------------------------------------------------------------------


@pytest.mark.parametrize("junk", [np.nan, np.inf, -1e30, 0.0])
def test_padding_leaves_no_trace(junk):
    x = features(37, offset=50)
    for found, plain in (
        (in_device_batches(x, 16, junk), in_device_batches(x, 16, 0.0)),
        (
            stats.of_rows(np.concatenate([x, np.full((5, 6), junk)]), np.arange(42) < 37),
            stats.of_rows(x),
        ),
    ):
        assert found.count == 37
        np.testing.assert_array_equal(found.mean, plain.mean)
        np.testing.assert_array_equal(found.scatter, plain.scatter)


def test_a_batch_of_padding_alone_changes_nothing():
    x, empty = features(20, offset=1e4), np.zeros((4, 6), np.float32)
    state = stats.accumulate(stats.on_device(6), empty, jnp.zeros(4, bool))
    state = stats.accumulate(state, x)
    state = stats.accumulate(state, empty, jnp.zeros(4, bool))
    assert stats.from_device(state).count == 20
    assert error(stats.from_device(state), x) < 1e-5
    assert stats.from_device(stats.on_device(6)).count == 0


def test_no_mask_means_that_all_rows_count():
    x = features(32)
    alone = stats.from_device(stats.accumulate(stats.on_device(6), x))
    masked = stats.from_device(stats.accumulate(stats.on_device(6), x, jnp.ones(32, bool)))
    np.testing.assert_array_equal(alone.scatter, masked.scatter)


@settings(max_examples=30)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
    st.floats(-1e3, 1e3),
)
def test_merging_does_not_depend_on_cuts_or_order(sizes, random, offset):
    x = features(sum(sizes) + 2, offset=offset)
    parts = [stats.of_rows(p) for p in np.split(x, np.cumsum(sizes))]
    random.shuffle(parts)
    while len(parts) > 1:
        at = random.randrange(len(parts) - 1)
        parts[at : at + 2] = [stats.merge(parts[at], parts[at + 1])]
    found = stats.gaussian(parts[0])
    mean, covariance = two_pass(x)
    assert found.count == len(x)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-9, atol=1e-9)


def test_sharded_batches_give_one_state_everywhere():
    x = features(64, offset=300)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    mask = np.arange(64) < 61
    whole = NamedSharding(mesh, PartitionSpec())
    step = jax.jit(stats.accumulate, out_shardings=whole)
    state = jax.device_put(stats.on_device(6), whole)
    for _ in range(2):
        state = step(state, jax.device_put(x, rows), jax.device_put(mask, rows))
    assert state.square.is_fully_replicated
    assert error(stats.from_device(state), np.concatenate([x[:61]] * 2)) < 1e-6


def test_bfloat16_features_are_counted_in_float32():
    x = jnp.asarray(features(64), jnp.bfloat16)
    found = stats.from_device(stats.accumulate(stats.on_device(6), x))
    assert error(found, np.asarray(x, np.float32)) < 1e-6


# --- N or N - 1 --------------------------------------------------------------------------------


def test_covariances_by_n_and_by_n_less_one():
    x = features(11)
    found = stats.gaussian(stats.of_rows(x))
    np.testing.assert_allclose(stats.covariance(found, 1), np.cov(x.T, ddof=1), rtol=1e-6)
    np.testing.assert_allclose(stats.covariance(found, 0), np.cov(x.T, ddof=0), rtol=1e-6)
    unknown = stats.Gaussian(found.mean, found.covariance)
    with pytest.raises(CountError, match="do not say from how many images"):
        stats.covariance(unknown, 0)
    with pytest.raises(CountError, match="needs two examples, there are 1"):
        stats.gaussian(stats.of_rows(x[:1]))


# --- Bad input ---------------------------------------------------------------------------------


def test_bad_features_are_named():
    x = features(10)
    x[7, 2] = np.nan
    with pytest.raises(FeatureError, match="not finite in 1 of 10 rows, first in row 7"):
        stats.of_rows(x)
    with pytest.raises(FeatureError, match=r"mask has the shape \[3\], the batch \[10, 6\]"):
        stats.of_rows(x, np.ones(3, bool))
    with pytest.raises(FeatureError, match=r"shape \[10, 2, 3\]"):
        stats.of_rows(x.reshape(10, 2, 3))
    state = stats.accumulate(stats.on_device(6), x)
    with pytest.raises(FeatureError, match=r"on the device \(10 rows\) are not all finite"):
        stats.from_device(state)


# --- Files -------------------------------------------------------------------------------------


def test_a_file_comes_back_as_it_went(tmp_path):
    found = stats.gaussian(stats.of_rows(features()))
    digest = stats.fingerprint(["a", b"b"])
    name = stats.file_name("COCO 2014", "val", "256/lanczos", "inception_2015", digest)
    assert name == f"COCO_2014-val-256_lanczos-inception_2015-{digest[:12]}.npz"
    file = tmp_path / "deep" / name
    stats.save(file, found, protocol={"name": "tf2015"}, digest=digest)
    back = stats.load(file, digest=digest)
    np.testing.assert_array_equal(back.gaussian.mean, found.mean)
    np.testing.assert_array_equal(back.gaussian.covariance, found.covariance)
    assert (back.gaussian.count, back.protocol, back.digest) == (300, {"name": "tf2015"}, digest)
    assert [f.name for f in file.parent.iterdir()] == [name]
    with np.load(file) as arrays:  # as pytorch-fid reads it
        np.testing.assert_array_equal(arrays["sigma"], found.covariance)
    with pytest.raises(StatisticsError, match="made from images with the hash"):
        stats.load(file, digest=stats.fingerprint(["ab"]))


def test_fingerprints_keep_parts_apart():
    assert stats.fingerprint(["ab", "c"]) != stats.fingerprint(["a", "bc"])
    assert stats.fingerprint(["ab"]) == stats.fingerprint([b"ab"])


def test_files_of_other_programs(tmp_path):
    mean, covariance = two_pass(features())
    np.savez(tmp_path / "fid.npz", mu=mean, sigma=covariance)
    np.savez(
        tmp_path / "adm.npz", mu=mean, sigma=covariance, mu_s=mean[:2], sigma_s=covariance[:2, :2]
    )
    plain = stats.load(tmp_path / "fid.npz")
    assert (plain.gaussian.count, plain.protocol, plain.digest) == (None, {}, "")
    assert stats.load(tmp_path / "adm.npz").gaussian.mean.shape == (6,)
    assert stats.load(tmp_path / "adm.npz", spatial=True).gaussian.covariance.shape == (2, 2)
    with pytest.raises(StatisticsError, match=r"has the arrays mu, sigma, expected 'mu_s'"):
        stats.load(tmp_path / "fid.npz", spatial=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"junk", "not a readable .npz"),
        ({"mu": np.zeros(3), "sigma": np.eye(2)}, r"mu is \[3\] and sigma \[2, 2\]"),
        ({"mu": np.full(2, np.nan), "sigma": np.eye(2)}, "not finite"),
        ({"mu": np.array([{}], object), "sigma": np.eye(1)}, "not a readable .npz"),
        ({"x": np.zeros(3)}, "has the arrays x, expected 'mu' and 'sigma'"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, said):
    file = tmp_path / "s.npz"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        np.savez(file, **content)
    with pytest.raises(StatisticsError, match=rf"s\.npz: .*{said}"):
        stats.load(file)


# --- Processes ---------------------------------------------------------------------------------

PROCESS = """
import sys, jax, numpy as np
jax.config.update("jax_cpu_collectives_implementation", "gloo")
address, number, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.distributed.initialize(address, 2, number)
from jaxt2i.metrics import statistics as stats
x = np.load(out + "/x.npy")
mine = x[:130] if number == 0 else x[130:]
m = stats.merge_processes(stats.of_rows(mine), rows=4)
rows = stats.gather_rows(mine)
np.savez(f"{out}/{number}.npz", count=m.count, mean=m.mean, scatter=m.scatter, rows=rows)
"""


def test_two_processes_hold_the_moments_of_all_rows(tmp_path):
    x = features(300, offset=1e4)
    np.save(tmp_path / "x.npy", x)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    flags = "--xla_force_host_platform_device_count=2"
    run = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, address, str(i), str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, "XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    for process in run:
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
    with np.load(tmp_path / "0.npz") as a, np.load(tmp_path / "1.npz") as b:
        found = stats.Moments(int(a["count"]), a["mean"], a["scatter"])
        assert found.count == 300
        for key in a.files:
            np.testing.assert_array_equal(a[key], b[key])
        np.testing.assert_array_equal(a["rows"], x)
    # Float64 went over the wire as it was: float32 would leave 1e-2 of the mean's digits.
    np.testing.assert_allclose(found.mean, x.astype(np.float64).mean(0), rtol=1e-14)
    assert error(found, x) < 1e-10


def test_one_process_reduces_to_itself():
    mine = stats.of_rows(features(offset=7))
    found = stats.merge_processes(mine, rows=4)
    assert found.count == mine.count
    np.testing.assert_allclose(found.scatter, mine.scatter, rtol=1e-12)
    rows = features(5)
    np.testing.assert_array_equal(stats.gather_rows(rows), rows)
    assert stats.merge_processes(stats.nothing(3)).count == 0
