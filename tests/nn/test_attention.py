"""Self-attention: the formula, and that a fresh block is the identity."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.nn.attention import NonLocal


def draw(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_a_fresh_block_is_the_identity():
    x = draw(2, 4, 4, 16)
    out, _ = NonLocal().init_with_output(jax.random.key(0), x)
    np.testing.assert_array_equal(out, x)


def test_every_position_reads_pooled_keys_and_values():
    x = draw(1, 4, 6, 16)
    variables = NonLocal().init(jax.random.key(0), x)
    variables["params"]["gamma"] = jnp.float32(0.7)

    def conv(name, h):
        kernel = np.asarray(variables["params"][name]["kernel"])[0, 0]
        u, v = (np.asarray(variables["spectral"][name][k]) for k in "uv")
        return h @ (kernel / (u @ kernel.T @ v))

    def pooled(h):
        return h.reshape(2, 2, 3, 2, -1).max((1, 3)).reshape(6, -1)

    query = conv("theta", x[0]).reshape(24, -1)
    key, value = pooled(conv("phi", x[0])), pooled(conv("g", x[0]))
    logits = query @ key.T
    share = np.exp(logits - logits.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    want = 0.7 * conv("o", share @ value).reshape(4, 6, 16) + x[0]
    np.testing.assert_allclose(NonLocal().apply(variables, x)[0], want, atol=1e-4)
