"""Text-conditioned blocks: what they are at the start, and that the cheaper order is the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.nn.affine import Affine, Fusion, UpBlock, leaky, widths
from jaxt2i.nn.linear import Conv
from jaxt2i.nn.nearest import resize_nearest


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def stirred(variables):
    """Parameters away from their special initial values."""
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    moved = [x + 0.3 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, moved)


def test_a_fresh_affine_is_the_identity():
    x, cond = draw(2, 4, 4, 6), draw(2, 5, seed=1)
    out, _ = Affine().init_with_output(jax.random.key(0), x, cond)
    np.testing.assert_array_equal(out, x)


def test_gamma_and_beta_come_from_the_condition_alone():
    x, cond = draw(2, 4, 4, 6), draw(2, 5, seed=1)
    variables = stirred(Affine().init(jax.random.key(0), x, cond))
    base = Affine().apply(variables, jnp.zeros_like(x), cond)
    assert jnp.ptp(base, axis=(1, 2)).max() == 0
    gain = Affine().apply(variables, jnp.ones_like(x), cond) - base
    np.testing.assert_allclose(Affine().apply(variables, x, cond), gain * x + base, atol=1e-5)
    assert jnp.abs(gain[0] - gain[1]).max() > 0.01


@pytest.mark.parametrize(("inside", "size", "features"), [(4, 8, 6), (7, 8, 6), (5, 14, 3)])
def test_up_block_equals_the_published_order(inside, size, features):
    """The original resizes first and works on the larger grid."""
    x, cond = draw(2, inside, inside, 6), draw(2, 5, seed=1)
    block = UpBlock(features, size)
    variables = stirred(block.init(jax.random.key(0), x, cond))
    part = lambda name: {"params": variables["params"][name]}  # noqa: E731
    large = resize_nearest(jnp.asarray(x), size)
    h = Fusion().apply(part("fuse1"), large, cond)
    h = Conv(features).apply(part("c1"), h)
    h = Conv(features).apply(part("c2"), Fusion().apply(part("fuse2"), h, cond))
    short = Conv(features, 1).apply(part("c_sc"), large) if features != 6 else large
    np.testing.assert_allclose(block.apply(variables, x, cond), short + h, atol=1e-4)


def test_widths_and_slope():
    assert widths(32, 6) == [256, 256, 256, 256, 128, 64, 32]
    assert leaky(jnp.array([-1.0, 2.0])).tolist() == pytest.approx([-0.2, 2.0])
