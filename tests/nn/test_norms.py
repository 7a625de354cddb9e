"""Virtual batch norm and spectral normalisation."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxt2i.engine import mesh
from jaxt2i.nn.norms import (
    BatchNorm,
    BatchNormLocal,
    SpectralConv,
    SpectralDense,
    orthogonal,
    over_sigma,
    spectral_norm,
)
from jaxt2i.planning import compiled
from jaxt2i.run import chips, hlo


def normal(*shape, seed=0):
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(16, 5, 3), (16, 2, 3, 3)])
def test_groups_are_consecutive_and_independent(shape):
    norm = BatchNormLocal(8, affine=False)
    x = 3 * normal(*shape) + 1
    y = np.asarray(norm.apply({}, x))
    axes = tuple(range(len(shape) - 1))
    for half in (y[:8], y[8:]):
        np.testing.assert_allclose(half.mean(axes), 0, atol=1e-5)
        np.testing.assert_allclose(half.var(axes), 1, rtol=1e-4)
    other = x.copy()
    other[8:] *= 7
    np.testing.assert_array_equal(norm.apply({}, other)[:8], y[:8])


def test_the_batch_is_split_evenly_or_refused():
    norm = BatchNormLocal(8, affine=False)
    y = np.asarray(norm.apply({}, normal(12, 4, 2)))  # two groups of six
    np.testing.assert_allclose(y[:6].mean((0, 1)), 0, atol=1e-5)
    with pytest.raises(ValueError, match=r"13 examples into 2 groups.*multiple of 2"):
        norm.apply({}, normal(13, 4, 2))


def test_statistics_stay_on_their_device():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    norm = BatchNormLocal(2, affine=False)
    step = jax.jit(jax.grad(lambda x: jnp.square(norm.apply({}, x) - x).sum()))
    x = jax.device_put(normal(16, 4, 3), sharding)
    text = step.lower(x).compile().as_text()
    assert not any(op in text for op in ("all-reduce", "all-gather", "all-to-all", "permute"))


def sigma_of(variables, kernel_size):
    kernel = np.asarray(variables["params"]["kernel"])
    matrix = np.moveaxis(kernel, -1, 0).reshape(kernel.shape[-1], -1)
    return np.linalg.svd(matrix, compute_uv=False)[0]


@pytest.mark.parametrize(("kernel_size", "shape"), [((3,), (2, 7, 4)), ((3, 3), (2, 6, 6, 4))])
def test_training_drives_the_kernel_to_unit_norm(kernel_size, shape):
    conv, x = SpectralConv(5, kernel_size=kernel_size, padding="circular"), normal(*shape)
    variables = conv.init(jax.random.key(0), x)
    for _ in range(40):
        y, changed = conv.apply(variables, x, train=True, mutable=["spectral"])
        variables = {**variables, **changed}
    true = sigma_of(variables, kernel_size)
    bias = variables["params"]["bias"]
    plain = {**variables, "params": {**variables["params"], "bias": 0 * bias}}
    scaled = jax.tree.map(lambda k: k * 5, variables["params"]) | {"bias": 0 * bias}
    # The result does not depend on the kernel's scale, and is the convolution by kernel / sigma.
    five = conv.apply({**variables, "params": scaled}, x)
    np.testing.assert_allclose(five, conv.apply(plain, x), rtol=1e-4, atol=1e-5)
    wrapped = np.pad(x, [(0, 0), *[(1, 1)] * len(kernel_size), (0, 0)], mode="wrap")
    at = (0, *[slice(0, 3)] * len(kernel_size))
    kernel = np.asarray(variables["params"]["kernel"])
    want = (wrapped[at][..., None] * kernel).sum(tuple(range(len(kernel_size) + 1))) / true
    np.testing.assert_allclose((y - bias)[(0,) * (1 + len(kernel_size))], want, rtol=1e-3)


def test_evaluation_leaves_the_vectors_alone_and_training_moves_them_once():
    conv, x = SpectralConv(5, kernel_size=(1,)), normal(2, 7, 4)
    variables = conv.init(jax.random.key(0), x)
    _, same = conv.apply(variables, x, mutable=["spectral"])
    np.testing.assert_array_equal(same["spectral"]["u"], variables["spectral"]["u"])
    _, moved = conv.apply(variables, x, train=True, mutable=["spectral"])
    kernel = np.asarray(variables["params"]["kernel"])[0]
    v = kernel @ np.asarray(variables["spectral"]["u"])
    v /= np.linalg.norm(v)
    np.testing.assert_allclose(moved["spectral"]["v"], v, rtol=1e-5)
    u = v @ kernel
    np.testing.assert_allclose(moved["spectral"]["u"], u / np.linalg.norm(u), rtol=1e-5)


def test_batch_norm_keeps_running_statistics_as_pytorch_does():
    """Momentum is the share of the new; the running variance is the unbiased one."""
    x = 2 * normal(4, 3, 3, 5) + 1
    norm = BatchNorm(momentum=0.1, eps=1e-5)
    variables = norm.init(jax.random.key(0), x)
    y, changed = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    flat = np.asarray(x).reshape(-1, 5)
    np.testing.assert_allclose(np.asarray(y).reshape(-1, 5).mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.asarray(y).reshape(-1, 5).std(0), 1, atol=1e-4)
    stats = changed["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.1 * flat.mean(0), atol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-5)
    still = norm.apply({**variables, **changed}, x)
    want = (flat - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    np.testing.assert_allclose(np.asarray(still).reshape(-1, 5), want, atol=1e-4)


@pytest.mark.parametrize("shape", [(3, 3, 4, 6), (1, 1, 16, 4), (5, 7)])
def test_orthogonal_kernels_are_so_as_matrices(shape):
    kernel = np.asarray(orthogonal()(jax.random.key(0), shape))
    matrix = np.moveaxis(kernel, (-1, -2), (0, 1)).reshape(shape[-1], -1)
    small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(small, np.eye(len(small)), atol=1e-5)


def test_spectral_dense_has_a_largest_singular_value_of_one():
    layer, x = SpectralDense(6), normal(2, 9)
    variables = layer.init(jax.random.key(0), x)
    for _ in range(50):
        _, changed = layer.apply(variables, x, train=True, mutable=["spectral"])
        variables = {**variables, **changed}
    out = layer.apply(variables, jnp.eye(9)) - layer.apply(variables, jnp.zeros((1, 9)))
    assert np.linalg.svd(out, compute_uv=False)[0] == pytest.approx(1, rel=1e-3)


def test_a_fresh_spectral_layer_is_well_scaled():
    """Sigma of two unrelated random vectors would be next to nothing."""
    layer, x = SpectralDense(64), normal(8, 256)
    out, _ = layer.init_with_output(jax.random.key(0), x)
    assert jnp.abs(out).max() < 100


# --- Groups of examples ------------------------------------------------------------------------


def test_batch_norm_over_groups_is_that_of_separate_replicas_whatever_the_mesh():
    x = jax.random.normal(jax.random.key(0), (16, 3, 3, 5)) * 2 + 1
    grouped, whole = BatchNorm(group=4), BatchNorm()
    variables = whole.init(jax.random.key(1), x)
    parts = [
        whole.apply(variables, part, train=True, mutable=["batch_stats"])
        for part in jnp.split(x, 4)
    ]
    run = jax.jit(lambda x: grouped.apply(variables, x, train=True, mutable=["batch_stats"]))
    for devices in (1, 8):
        on = NamedSharding(mesh.make(devices, 1, 1, jax.devices()[:devices]), PartitionSpec("data"))
        y, changed = run(jax.device_put(x, on))
        np.testing.assert_allclose(y, jnp.concatenate([p[0] for p in parts]), atol=1e-5)
        for name in ("mean", "var"):
            want = np.mean([p[1]["batch_stats"][name] for p in parts], 0)
            np.testing.assert_allclose(changed["batch_stats"][name], want, rtol=1e-5)
    together = whole.apply(variables, x, train=True, mutable=["batch_stats"])[0]
    assert np.abs(np.asarray(together - y)).max() > 0.05


def test_batch_norm_refuses_groups_that_do_not_divide_the_batch():
    x = jnp.ones((6, 2))
    module = BatchNorm(group=4)
    variables = module.init(jax.random.key(0), x)
    with pytest.raises(ValueError, match=r"norm_group"):
        module.apply(variables, x, train=True, mutable=["batch_stats"])


def test_without_a_momentum_statistics_are_the_mean_of_all_batches():
    norm = BatchNorm(momentum=None, affine=False)
    batches = [normal(8, 2, seed=i) + i for i in range(3)]
    variables = norm.init({}, batches[0])
    for x in batches:
        _, variables = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    kept = variables["batch_stats"]
    np.testing.assert_allclose(kept["mean"], np.mean([x.mean(0) for x in batches], 0), rtol=1e-5)
    np.testing.assert_allclose(
        kept["var"], np.mean([x.var(0, ddof=1) for x in batches], 0), rtol=1e-5
    )


@pytest.mark.parametrize("dims", [(), (3,), (3, 2)])
def test_dividing_the_result_is_dividing_the_kernel(dims):
    """Values, gradients and gradients of gradients, as penalties take them."""
    x, kernel = normal(3, *dims, 4), normal(*dims, 4, 5, seed=1)
    left, right = normal(5, seed=2), normal(kernel[..., 0].size, seed=3)
    spatial = "HW"[: len(dims)]
    names = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")

    def made(x, kernel):
        if not dims:
            return x @ kernel
        product = jax.lax.conv_general_dilated
        return product(x, kernel, (1,) * len(dims), "SAME", dimension_numbers=names)

    def result(x, kernel):
        return over_sigma(made(x, kernel), kernel, left, right)

    def usual(x, kernel):
        return made(x, kernel / spectral_norm(kernel, left, right))

    def penalty(layer):
        def steep(x, kernel):
            return jnp.square(jax.grad(lambda x: jnp.tanh(layer(x, kernel)).sum())(x)).sum()

        return steep

    np.testing.assert_allclose(result(x, kernel), usual(x, kernel), rtol=1e-4, atol=1e-5)
    for wrap in (lambda f: lambda *a: jnp.tanh(f(*a)).sum(), penalty):
        found = jax.jit(jax.grad(wrap(result), (0, 1)))(x, kernel)
        want = jax.jit(jax.grad(wrap(usual), (0, 1)))(x, kernel)
        for ours, theirs in zip(found, want, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_passes_that_share_a_kernel_send_one_sum_of_its_gradients():
    """Each pass divides by a sigma of its own; several devices must not pay for each pass."""
    conv, width = SpectralConv(16, use_bias=False), (8, 8, 8, 16)
    place = mesh.Layout(mesh.make(4, 1, 1, compiled.devices(chips.target("v5e:2x2"))))
    shapes = jax.eval_shape(conv.init, jax.random.key(0), normal(*width))

    def loss(params, spectral, x):
        total = 0.0
        for _ in range(2):
            state = {"params": params, "spectral": spectral}
            y, changed = conv.apply(state, x, train=True, mutable=["spectral"])
            spectral, total = changed["spectral"], total + jnp.square(y).mean()
        return total

    rows = jax.ShapeDtypeStruct(width, jnp.float32, sharding=place.rows)
    given = (place.abstract(shapes["params"]), place.abstract(shapes["spectral"]), rows)
    program = jax.jit(jax.grad(loss)).lower(*given).compile()
    found = hlo.Program(program.as_text()).collectives({"data": 4})
    assert sum(c.bytes * c.times for c in found) == 4 * 3 * 3 * 16 * 16
