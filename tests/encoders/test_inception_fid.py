import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxt2i.convert import __main__ as convert
from jaxt2i.convert import rules
from jaxt2i.convert.rules import ConversionError
from jaxt2i.encoders import features, pretrained
from jaxt2i.encoders import inception_names as names
from jaxt2i.encoders.inception import INPUTS, POOLS, PRESETS, InceptionFeatures, misread
from jaxt2i.nn.pixels import to_pixels

pytestmark = pytest.mark.xdist_group("inception_fid")


def test_published_sizes():
    counts = {}
    for name in ("2015", "torchvision", "keras"):
        shapes = pretrained.template(InceptionFeatures(**PRESETS[name]))
        counts[name] = sum(x.size for x in jax.tree.leaves(shapes))
    # 566 tensors, of which 94 are counters.
    assert counts["2015"] == 23_885_486 - 94
    assert counts["torchvision"] == counts["2015"] - 8 * 2049
    # As Keras' documentation counts, and a scale for every channel of a norm less than torchvision.
    assert counts["keras"] == 23_851_784 == counts["torchvision"] - 34_432 // 2


def test_pools_differ_at_the_border_alone():
    x = jnp.ones((1, 4, 4, 1)).at[0, 1, 1, 0].set(2)
    padded, average, largest = (POOLS[k](x)[0, :, :, 0] for k in ("padded", "average", "max"))
    np.testing.assert_allclose(padded[1:3, 1:3], average[1:3, 1:3], rtol=1e-6)
    np.testing.assert_allclose([padded[3, 3], average[3, 3]], [4 / 9, 1], rtol=1e-6)
    np.testing.assert_allclose(padded[0, 0] * 9, average[0, 0] * 4, rtol=1e-6)
    np.testing.assert_array_equal(largest[:3, :3], 2)
    assert largest[3, 3] == 1


def test_inputs_of_the_networks_own_size():
    """At 299 pixels nothing is resized, and what remains is the range.

    A generator's levels that nothing rounded are floats, and the same levels.
    """
    x = np.random.RandomState(0).randint(0, 256, (1, 299, 299, 3)).astype(np.uint8)
    f = x / np.float32(255)
    for name in ("tf1", "stylegan", "clean", "pillow_bilinear"):
        np.testing.assert_allclose(INPUTS[name](x), (x - np.float32(128)) / 128, atol=1e-4)
    for same in (x, to_pixels(2 * f - 1, "none")):
        for name in ("pytorch_fid", "jax_bilinear_antialias", "pillow_bilinear_127.5"):
            np.testing.assert_allclose(INPUTS[name](same), 2 * f - 1, atol=1e-6)
        for name in ("dmgan", "galip"):
            np.testing.assert_allclose(INPUTS[name](same), misread(f), atol=1e-6)


def test_the_wrong_range_of_dmgan_is_kept():
    """ImageNet's mean and deviation are taken back from pictures that never had them."""
    black, white = misread(jnp.zeros(3)), misread(jnp.ones(3))
    np.testing.assert_allclose(black, [-0.03, -0.088, -0.188], atol=1e-6)
    np.testing.assert_allclose(white - black, [0.458, 0.448, 0.450], atol=1e-6)


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.RandomState(0)
    module = InceptionFeatures(**PRESETS["torchvision"])
    # Equal numbers compress and cost nothing to draw; the classes tell a fit from a misfit.
    return jax.tree.map(
        lambda x: np.full(x.shape, rng.rand(), np.float32), pretrained.template(module)
    )


def test_files_with_counters_without_and_with_an_auxiliary_head(drawn, tmp_path, capsys):
    state = {k: np.array(v, order="C") for k, v in rules.to_torch(names.FEATURES, drawn).items()}
    counter = {"Conv2d_1a_3x3.bn.num_batches_tracked": np.int64([3])}
    head = {"AuxLogits.fc.weight": np.zeros((1000, 768), np.float32)}
    for more in ({}, counter | head):
        save_file(state | more, tmp_path / "inception.safetensors")
        arguments = ["inception", "--from", str(tmp_path / "inception.safetensors")]
        assert convert.main([*arguments, "--to", str(tmp_path / "made")]) == 0
        assert "unused: 0\nmissing: 0" in capsys.readouterr().out
    loaded = features.load("inception_torchvision", str(tmp_path / "made"))
    jax.tree.map(np.testing.assert_array_equal, loaded.variables["features"], drawn)
    with pytest.raises(
        ConversionError, match=r"fc/kernel has shape \(2048, 1000\).*has \(2048, 1008\)"
    ):
        features.load("inception_2015", str(tmp_path / "made"))
    del state["Mixed_6b.branch_pool.bn.running_var"]
    save_file(state, tmp_path / "inception.safetensors")
    with pytest.raises(ConversionError, match=r"lacks 1 .*Mixed_6b/branch_pool/bn/var"):
        features.load("inception_torchvision", str(tmp_path / "inception.safetensors"))


def test_pools_follow_the_classes():
    for name in ("2015", "torchvision"):
        fields = PRESETS[name]
        state = {names.MARKER: np.zeros(()), "fc.bias": np.zeros(fields["classes"])}
        assert names.infer("features", state) == fields, name


def test_xmc_gans_resize_is_that_of_jax():
    x = np.random.RandomState(0).uniform(0, 255, (1, 400, 128, 3)).astype(np.float32)
    want = 2 * jax.image.resize(x / 255, (1, 299, 299, 3), "bilinear") - 1
    np.testing.assert_allclose(INPUTS["jax_bilinear_antialias"](x), want, atol=2e-5)
