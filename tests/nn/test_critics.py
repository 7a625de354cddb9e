"""Discriminators of every picture size."""

import jax
import jax.numpy as jnp
import pytest

from jaxt2i.encoders.pretrained import template
from jaxt2i.engine import state as states
from jaxt2i.nn.critics import Critic


@pytest.mark.parametrize(
    ("kind", "base", "counts"),
    [
        ("batch", 64, (6_313_730, 19_424_002, 71_858_946)),
        ("batch", 96, (13_304_450, 42_800_258, 160_774_274)),
        ("spectral", 32, (1_878_242, 5_155_810, 18_264_546)),
    ],
)
def test_published_sizes(kind, base, counts):
    for resolution, count in zip((64, 128, 256), counts, strict=True):
        critic = Critic(base=base, resolution=resolution, kind=kind)
        assert states.count(template(critic)["params"]) == count


@pytest.mark.parametrize("resolution", [8, 16, 32, 512])
def test_other_resolutions_end_at_the_same_grid(resolution):
    module = Critic(base=4, resolution=resolution, kind="spectral", sentence_dim=6)
    image = jnp.zeros((2, resolution, resolution, 3))

    def run():
        variables = module.init(jax.random.key(0), image, jnp.zeros((2, 6)))
        h = module.apply(variables, image, method="features")
        return h, module.apply(variables, h, method="alone")

    h, logits = jax.eval_shape(run)
    assert h.shape == (2, 4, 4, 4 * min(resolution // 8, 8))
    assert logits.shape == (2,)


def test_without_the_unconditional_head():
    module = Critic(base=4, resolution=16, unconditional=False, sentence_dim=6)
    assert "real" not in template(module)["params"]
    x = jnp.zeros((2, 16, 16, 3)), jnp.zeros((2, 6))
    out = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), *x)[0])
    assert out[0] is None
    assert out[1].shape == (2,)
