"""StyleGAN-T's networks: sizes, precision, noise, truncation, and the discriminator's views."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.nn import resample
from jaxt2i.systems.stylegan_t import networks as nets

LITE = {"channel_base": 32768, "channel_max": 512, "num_res_blocks": 2}
FULL = {"channel_base": 65536, "channel_max": 2048, "num_res_blocks": 3}
TINY = {"resolution": 16, "channel_base": 512, "channel_max": 32, "num_res_blocks": 1}


@functools.cache
def initialised():
    module = nets.Generator(**TINY)
    z = jax.random.normal(jax.random.key(2), (2, 64))
    c = jax.random.normal(jax.random.key(3), (2, 8))
    keys = {"params": jax.random.key(0), "noise": jax.random.key(1)}
    variables = jax.jit(module.init)(keys, z, c)
    # Noise and residual branches start switched off; switch them on.
    strong = lambda path, x: x + 0.3 if path[-1].key in ("noise_strength", "gamma") else x  # noqa: E731
    params = jax.tree_util.tree_map_with_path(strong, variables["params"])
    return {**variables, "params": params}, z, c


def tiny(**kw):
    """A small generator that differs from the others by `kw`; all have the same weights."""
    variables, z, c = initialised()
    return nets.Generator(**(TINY | kw)), jax.tree.map(lambda x: x, variables), z, c


@pytest.mark.parametrize(
    ("sizes", "resolution", "parameters", "num_ws"),
    [
        (LITE, 64, 74_548_515, 21),
        (LITE, 256, 85_694_899, 31),
        (LITE, 512, 87_036_539, 36),
        (FULL, 64, 975_547_691, 29),
        (FULL, 256, 1_016_428_351, 43),
        (FULL, 512, 1_020_489_289, 50),
    ],
)
def test_published_sizes(sizes, resolution, parameters, num_ws):
    module = nets.Synthesis(resolution, **sizes)
    keys = {"params": jax.random.key(0), "noise": jax.random.key(1)}
    shapes = jax.eval_shape(lambda: module.init(keys, jnp.zeros((1, 64 + 768))))
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == parameters
    assert module.num_ws == num_ws
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(shapes))


def test_published_heads():
    module = nets.DiscriminatorHeads()
    taps = [jnp.zeros((1, 196, 384))] * 5
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), taps, jnp.zeros((1, 768))))
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == 7_753_600


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match=r"resolution=48 .*power of two"):
        nets.resolutions(48)
    with pytest.raises(ValueError, match=r"16 px block would have 16 channels.*multiple of 32"):
        nets.Synthesis(16, channel_base=256).channels(16)
    module, variables, z, c = tiny()
    wrong = lambda m: m.synthesis(jnp.zeros((1, 4, 72)), noise="none")  # noqa: E731
    with pytest.raises(ValueError, match=r"got 4 ws, not 7; give one w"):
        module.apply(variables, method=wrong)
    with pytest.raises(ValueError, match=r"noise='constant' is not a mode"):
        module.apply(variables, z, c, noise="constant")


def test_the_text_keeps_its_part_of_w_and_only_z_is_truncated():
    module, variables, z, c = tiny()
    average = jnp.linspace(-1, 1, 64)
    variables["stats"]["mapping"]["x_avg"] = average

    def w(psi):
        return module.apply(variables, method=lambda m: m.mapping(z, c, psi=psi))

    np.testing.assert_array_equal(w(0.3)[:, 64:], c)
    np.testing.assert_allclose(w(0.0)[:, :64], jnp.stack([average] * 2), atol=1e-6)
    want = average + 0.3 * (w(1.0)[:, :64] - average)
    np.testing.assert_allclose(w(0.3)[:, :64], want, rtol=1e-5, atol=1e-6)


def test_the_running_mean_moves_in_training_only():
    module, variables, z, c = tiny()
    map_ = lambda m, train: m.mapping(z, c, train=train)  # noqa: E731
    w, still = module.apply(variables, False, method=map_, mutable=["stats"])
    np.testing.assert_array_equal(still["stats"]["mapping"]["x_avg"], 0)
    _, moved = module.apply(variables, True, method=map_, mutable=["stats"])
    want = 0.005 * w[:, :64].mean(0)
    np.testing.assert_allclose(moved["stats"]["mapping"]["x_avg"], want, rtol=1e-3, atol=1e-9)


def test_noise_of_an_image_does_not_depend_on_its_batch():
    keys = jax.random.split(jax.random.key(0), 3)
    draw = jax.jit(nets.draw_noise, static_argnums=(1, 2, 3))
    many, one = draw(keys, 3, 16, 1), draw(keys[1:2], 1, 16, 1)
    assert set(many) == set(nets.layer_sizes(16, 1))
    for name, maps in many.items():
        np.testing.assert_array_equal(maps[1:2], one[name])
        assert abs(float(maps[0, 0, 0, 0] - maps[2, 0, 0, 0])) > 0
    drawn = draw(jax.random.key(0), 2, 16, 1)
    assert drawn["b16/conv0"].shape == (2, 16, 16, 1)


def test_noise_modes():
    module, variables, z, c = tiny()
    apply = jax.jit(lambda noise: module.apply(variables, z, c, noise=noise))
    sizes = nets.layer_sizes(16, 1)
    zeros = apply({name: jnp.zeros((1, r, r, 1)) for name, r in sizes.items()})
    silent = jax.jit(lambda: module.apply(variables, z, c, noise="none"))()
    np.testing.assert_allclose(zeros, silent, rtol=1e-5, atol=1e-6)
    buffers = variables["buffers"]["synthesis"]
    maps = {name: buffers["noise_" + name.replace("/", "_")] for name in sizes}
    given = apply({name: x[None, :, :, None] for name, x in maps.items()})
    constant = jax.jit(lambda: module.apply(variables, z, c, noise="const"))()
    np.testing.assert_allclose(given, constant, rtol=1e-5, atol=1e-6)
    assert float(jnp.abs(constant - silent).max()) > 1e-3


def test_variants_change_nothing():
    results = []
    for kw in ({}, {"variant": "dilated"}):
        module, variables, z, c = tiny(**kw)

        def loss(params, module=module, variables=variables, z=z, c=c):
            image = module.apply({**variables, "params": params}, z, c, noise="const")
            return jnp.square(image).mean()

        results.append(jax.jit(jax.value_and_grad(loss))(variables["params"]))
    for value, grads in results[1:]:
        np.testing.assert_allclose(value, results[0][0], rtol=1e-5)
        peak = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(results[0][1]))
        for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(results[0][1]), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4 * peak)


def test_only_the_highest_resolutions_compute_in_low_precision():
    module, variables, z, c = tiny(dtype=jnp.bfloat16, low_precision_blocks=1)
    run = lambda v: module.apply(  # noqa: E731
        v, z, c, noise="const", capture_intermediates=True, mutable=["intermediates"]
    )
    image, state = jax.eval_shape(run, variables)
    blocks = state["intermediates"]["synthesis"]
    assert blocks["b8"]["__call__"][0][0].dtype == jnp.float32
    assert blocks["b16"]["__call__"][0][0].dtype == jnp.bfloat16
    assert blocks["b16"]["torgb"]["__call__"][0].dtype == image.dtype == jnp.float32


def test_each_group_of_images_shares_a_view():
    x = np.random.RandomState(0).uniform(-1, 1, (4, 12, 12, 3)).astype(np.float32)
    view = {"crop": jnp.array([True, False]), "row": jnp.array([3, 0]), "col": jnp.array([1, 0])}
    y = nets.encoder_input(x, view=view, out=8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    plain = lambda x: ((x + 1) / 2 - mean) / std  # noqa: E731
    np.testing.assert_allclose(y[:2], plain(x[:2, 3:11, 1:9]), rtol=1e-5, atol=1e-5)
    area = resample.area_matrix(8, 12)
    np.testing.assert_allclose(
        y[2:], plain(resample.apply_matrices(x[2:], area, area)), rtol=1e-5, atol=1e-5
    )
    # Images that are not larger than the encoder's input are only ever resized.
    small = nets.encoder_input(x, view=view, out=24)
    np.testing.assert_allclose(small[0], small[0].at[::2, ::2].get().repeat(2, 0).repeat(2, 1))


def test_views_are_drawn_by_micro_batch():
    view = nets.draw_view(jax.random.key(0), 2000, 12, 8)
    assert 0.45 < float(view["crop"].mean()) < 0.55
    assert set(np.asarray(view["row"])) == set(range(5))
    key, x = jax.random.key(1), jnp.tile(jnp.linspace(-1, 1, 12)[:, None, None], (6, 1, 12, 3))
    kw = {"policy": "", "out": 8}
    y = nets.discriminator_input(key, x, micro_batch=3, **kw)
    for group in (y[:3], y[3:]):
        np.testing.assert_array_equal(group, np.stack([group[0]] * 3))
    with pytest.raises(ValueError, match=r"batch of 6 .*micro-batches of 4"):
        nets.discriminator_input(key, x, micro_batch=4, **kw)
    augmented = nets.discriminator_input(key, x, micro_batch=3, out=8)
    assert not np.array_equal(augmented[0], augmented[1])


def test_guidance_crops_only_large_images():
    x = np.random.RandomState(0).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)
    at = {"row": jnp.array([2]), "col": jnp.array([3])}
    y = nets.guidance_input(x, **at, crop=4, out=4)
    np.testing.assert_allclose(y, x[:, 2:6, 3:7], atol=1e-6)
    whole = nets.guidance_input(x, **at, crop=8, out=8)
    np.testing.assert_allclose(whole, x, atol=1e-6)


def test_training_modes():
    torgb = ("synthesis", "b64", "torgb", "bias")
    assert nets.trainable(torgb, "all")
    assert not nets.trainable(torgb, "text_encoder")
    assert nets.trainable(torgb, "freeze64")
    assert not nets.trainable(("synthesis", "b64", "conv0", "bias"), "freeze64")
    assert not nets.trainable(("mapping", "fc0", "bias"), "freeze64")
    assert nets.trainable(("synthesis", "b128", "conv0", "bias"), "freeze64")
