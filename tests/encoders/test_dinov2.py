import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxt2i.convert import rules
from jaxt2i.encoders import dino_names as dino
from jaxt2i.encoders import features, pretrained
from jaxt2i.encoders.dino import PRESETS, DinoFeatures, fdd_input
from jaxt2i.encoders.vit import resize_positions

TINY = DinoFeatures(
    resolution=12, patch=4, width=64, layers=4, heads=1, taps=(0, 1, 2, 3), layer_scale=True,
    resize="bicubic",
)  # fmt: skip


def drawn():
    rng = np.random.RandomState(0)
    draw = lambda x: rng.standard_normal(x.shape).astype(np.float32)  # noqa: E731
    return jax.tree.map(draw, pretrained.template(TINY))


def write(path, table, variables, **more):
    state = rules.to_torch(table, variables) | more
    save_file({k: np.array(v, order="C") for k, v in state.items()}, path)
    return str(path)


@pytest.mark.parametrize(
    ("table", "resize"),
    [(dino.TIMM, "bicubic_hub"), (dino.HF, "bicubic"), (dino.HF_PUBLISHED, "bicubic")],
    ids=["hub", "transformers 5", "published"],
)
def test_all_namings_give_the_same_network(table, resize, tmp_path):
    variables = drawn()
    mask = {("mask_token" if table is dino.TIMM else "embeddings.mask_token"): np.zeros((1, 64))}
    file = write(tmp_path / "model.safetensors", table, variables, **mask)
    loaded = pretrained.load(file, "dino", "features", pretrained.template(TINY))
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    sizes = dino.infer("features", pretrained.torch_files.read(file))
    assert sizes["layer_scale"]
    # The code whose names a file has is the code that resizes its positions.
    assert sizes["resize"] == resize


@pytest.mark.parametrize(
    ("table", "key"), [(dino.TIMM, "register_tokens"), (dino.HF, "embeddings.register_tokens")]
)
def test_networks_with_registers_are_refused(table, key, tmp_path):
    file = write(tmp_path / "r.safetensors", table, drawn(), **{key: np.zeros((1, 4, 64))})
    with pytest.raises(rules.ConversionError, match="not those of dino's features network"):
        pretrained.load(file, "dino", "features")


def test_positions_follow_either_code():
    """Nine positions to four, as torch.nn.functional.interpolate computes it, one axis of it."""
    size = np.float32([[0.7734, 0.2617, -0.0352], [-0.0352, 0.2617, 0.7734]])
    factor = np.float32([[0.8098, 0.2173, -0.0271], [-0.0615, 0.4022, 0.6593]])  # 2.1 / 3
    table = np.random.RandomState(0).standard_normal((10, 5)).astype(np.float32)
    for method, axis in (("bicubic", size), ("bicubic_hub", factor)):
        got = resize_positions(table, (2, 2), method)
        want = np.einsum("ih,jw,hwc->ijc", axis, axis, table[1:].reshape(3, 3, 5))
        np.testing.assert_array_equal(got[0], table[0])
        np.testing.assert_allclose(got[1:].reshape(2, 2, 5), want, atol=1e-3)
    # Neither touches the grid that the table was made for.
    assert resize_positions(table, (3, 3), "bicubic_hub") is table


def test_published_sizes():
    counts = {"dinov2_s14": 22_056_576, "dinov2_b14": 86_580_480, "dinov2_l14": 304_368_640}
    for name, count in counts.items():
        module = features.make(name)["features"].module
        assert module == DinoFeatures(**PRESETS[name])
        seen = sum(x.size for x in jax.tree.leaves(pretrained.template(module)))
        assert seen + module.width == count  # the mask token
        hub = features.make(f"{name}_hub")["features"].module
        assert hub == module.clone(resize="bicubic_hub")


def test_pictures_are_squeezed_not_cropped():
    wide = np.tile(np.uint8([0, 255]).repeat(32), (16, 1))[None, ..., None].repeat(3, -1)
    x = fdd_input(wide)
    assert x.shape == (1, 224, 224, 3)
    black, white = (np.float32([0, 1])[:, None] - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(x[0, 0, 0], black, atol=1e-5)
    np.testing.assert_allclose(x[0, -1, -1], white, atol=1e-5)
