import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxt2i.convert import __main__ as convert
from jaxt2i.convert import rules
from jaxt2i.convert.rules import ConversionError
from jaxt2i.encoders import features, pretrained
from jaxt2i.encoders import lpips_names as names
from jaxt2i.encoders import vgg16_names as vgg16
from jaxt2i.encoders.lpips import Lin, Lpips
from jaxt2i.encoders.trunks import NETS, Pool, Trunk, Vgg16, _pool, tap_channels, vgg_input

MODULE = Lpips("alex")


@pytest.fixture(scope="module")
def variables():
    a = jnp.zeros((1, 64, 64, 3))
    return jax.jit(MODULE.init)(jax.random.key(0), a, a)


@pytest.fixture(scope="module")
def pictures():
    return jax.random.uniform(jax.random.key(1), (2, 2, 64, 48, 3), minval=-1)


def test_it_grows_with_the_change_and_is_symmetric(variables, pictures):
    apply = jax.jit(MODULE.apply)
    a, b = pictures
    near, far = (apply(variables, a, a + t * (b - a)) for t in (0.1, 1.0))
    assert (near > 0).all()
    assert (near < far).all()
    np.testing.assert_allclose(far, apply(variables, b, a), rtol=1e-5)


def test_the_parts_add_up(variables, pictures):
    @jax.jit
    def run(variables, a, b):
        ways = (None, "layers", "spatial")
        return [MODULE.apply(variables, a, b, method=way) for way in ways]

    whole, layers, pixels = run(variables, *pictures)
    assert layers.shape == (2, 5)
    np.testing.assert_allclose(layers.sum(-1), whole, rtol=1e-6)
    assert pixels.shape == (2, 64, 48)
    # Enlarging repeats every value about as often, so the mean is near the distance.
    np.testing.assert_allclose(pixels.mean((1, 2)), whole, rtol=0.05)


def test_black_features_have_a_gradient(variables):
    """Where ReLU leaves nothing of a picture, its unit vector is 0, and so is the gradient."""
    dead = jax.tree.map(lambda x: x, variables)
    dead["params"]["trunk"]["conv0"]["bias"] = jnp.full(64, -1e3)
    a, b = jax.random.normal(jax.random.key(2), (2, 1, 64, 64, 3))
    gradient = jax.jit(jax.grad(lambda a: MODULE.apply(dead, a, b).sum()))(a)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("size", [7, 8, 9])
def test_windows_that_hang_over(size):
    x = jnp.arange(float(size))[None, :, None, None] * jnp.ones((1, 1, size, 1))
    rows = _pool(x, Pool(ceil=True))[0, :, 0, 0]
    want = [min(i + 2, size - 1) for i in range(0, size - 1, 2) if i + 2 < size + 1]
    np.testing.assert_array_equal(rows, want)
    assert len(_pool(x, Pool())[0]) == (size - 3) // 2 + 1


def test_tables_and_networks_agree_on_every_layer():
    for net, steps in NETS.items():
        indices = [step.index for step in steps if not isinstance(step, Pool)]
        assert sorted(indices) == sorted(i for part in names.SLICES[net] for i in part)
        taps = [s.index for s in steps if not isinstance(s, Pool) and s.tap]
        assert taps == [part[-1] for part in names.SLICES[net]]
        shapes = pretrained.template(Trunk(net))
        zeros = jax.tree.map(lambda x: np.broadcast_to(np.int8(0), x.shape), shapes)
        table = next(t for t, n in names.TRUNKS.items() if n == net)
        assert len(rules.to_torch(table, zeros)) == len(jax.tree.leaves(shapes))
    assert tap_channels("squeeze") == (64, 128, 256, 384, 384, 512, 512)
    with pytest.raises(ValueError, match="net='vgg19' is unknown; choose from vgg, alex, squeeze"):
        Trunk("vgg19").init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))


def write(path, table, variables):
    state = {k: np.array(v, order="C") for k, v in rules.to_torch(table, variables).items()}
    save_file(state, path)
    return path


@pytest.fixture(scope="module")
def files(variables, tmp_path_factory):
    """The two published files of AlexNet's LPIPS."""
    folder = tmp_path_factory.mktemp("lpips")
    params = variables["params"]
    table = next(t for t, net in names.TRUNKS.items() if net == "alex")
    return (
        write(folder / "alexnet.safetensors", table, {"params": params["trunk"]}),
        write(folder / "alex.safetensors", names.LIN, {"params": params["lin"]}),
    )


def test_both_files_make_the_network(files, variables, tmp_path, capsys):
    loaded = features.load("lpips_alex", ",".join(map(str, files)))
    jax.tree.map(np.testing.assert_array_equal, loaded.variables["distance"], variables)
    for file in files:
        assert convert.main(["lpips", "--from", str(file), "--to", str(tmp_path)]) == 0
    assert "missing: 0" in capsys.readouterr().out
    assert {f.name for f in tmp_path.iterdir()} >= {"trunk.safetensors", "lin.safetensors"}
    loaded = features.load("lpips_alex", str(tmp_path))
    jax.tree.map(np.testing.assert_array_equal, loaded.variables["distance"], variables)
    with pytest.raises(ConversionError, match=r"(?s)conv0/.*--weights lpips_vgg=FILE"):
        features.load("lpips_vgg", str(tmp_path))


def test_files_say_which_network_they_are_of(files):
    states = [pretrained.torch_files.read(file) for file in files]
    assert names.infer("trunk", states[0]) == names.infer("lin", states[1]) == {"net": "alex"}
    for net in NETS:
        template = pretrained.template(Lin(net))
        state = rules.to_torch(names.LIN, jax.tree.map(lambda x: np.zeros(x.shape), template))
        assert {x.shape[0] for x in state.values()} == {1}
        assert names.infer("lin", state) == {"net": net}


def test_vgg16s_second_layer():
    """138 million numbers: shapes alone."""
    shapes = pretrained.template(Vgg16())
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 138_357_544 - 4_097_000
    out = jax.eval_shape(Vgg16().apply, shapes, jax.ShapeDtypeStruct((2, 224, 224, 3), float))
    assert out.shape == (2, 4096)
    zeros = jax.tree.map(lambda x: np.broadcast_to(np.int8(0), x.shape), shapes)
    keys = rules.to_torch(vgg16.FEATURES, zeros)
    assert len(keys) == 30
    assert keys["classifier.0.weight"].shape == (4096, 25088)
    grey = vgg_input(np.full((1, 30, 40, 3), 255 * 0.485, np.float32))
    np.testing.assert_allclose(grey[0, 0, 0, 0], 0, atol=1e-6)
    assert grey.shape == (1, 224, 224, 3)
