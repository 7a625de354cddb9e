import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.encoders.dino import PRESETS, DinoFeatures, normalize_image
from jaxt2i.encoders.pretrained import template

TINY = DinoFeatures(resolution=8, patch=4, width=16, layers=4, heads=2, taps=(0, 1, 3))


def test_maps_are_taps_then_the_embedding():
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    variables = jax.jit(TINY.init)(jax.random.key(0), x)
    maps = TINY.apply(variables, x)
    stages = TINY.apply(variables, x, method="stages")
    want = [stages["blocks"][i] for i in (0, 1, 3)] + [stages["embedded"]]
    assert [m.shape for m in maps] == [(2, 4, 16)] * 4
    for seen, tokens in zip(maps, want, strict=True):
        np.testing.assert_allclose(seen, tokens[:, 1:] + tokens[:, :1], atol=1e-5)
    token = TINY.apply(variables, x, method="class_token")
    np.testing.assert_allclose(token.mean(-1), 0, atol=1e-5)  # behind a layer norm
    assert token.shape == (2, 16)
    assert len(TINY.apply(variables, jnp.zeros((1, 12, 8, 3)))) == 4


def test_published_sizes():
    def count(name):
        return sum(x.size for x in jax.tree.leaves(template(DinoFeatures(**PRESETS[name]))))

    assert count("vit_s16") == 21_665_664
    assert count("vit_b16") == 85_798_656
    # facebook/dinov2-large: 304,368,640 with its mask token, which is not used here.
    assert count("dinov2_l14") == 304_368_640 - 1024


def test_pixels_are_normalised():
    grey = normalize_image(jnp.full((1, 3), 2 * 0.485 - 1))
    np.testing.assert_allclose(grey[0, 0], 0, atol=1e-6)
    assert grey[0, 2] > 0
