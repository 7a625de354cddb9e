"""Initial variables: a key for each network, whatever the order in which they are named."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.nn.initial import initialise


class Net(nn.Module):
    width: int = 3

    def example(self):
        return (jax.ShapeDtypeStruct((1, 2), jnp.float32),)

    @nn.compact
    def __call__(self, x, *, loud: bool = False):
        if loud:
            raise ZeroDivisionError
        return nn.Dense(self.width)(x)


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_keys_are_split_over_the_sorted_names():
    key = jax.random.key(3)
    out = initialise({"z": Net(), "a": Net()}, key)
    keys = jax.random.split(key, 2)
    x = jnp.zeros((1, 2))
    same(out, {"z": Net().init(keys[1], x), "a": Net().init(keys[0], x)})
    same(out, initialise({"a": Net(), "z": Net()}, key))


def test_inputs_and_options_can_be_given():
    given = {"net": (jax.ShapeDtypeStruct((1, 5), jnp.float32),)}
    out = initialise({"net": Net()}, jax.random.key(0), inputs=given)
    assert out["net"]["params"]["Dense_0"]["kernel"].shape == (5, 3)
    with pytest.raises(ZeroDivisionError):
        initialise({"net": Net()}, jax.random.key(0), options={"net": {"loud": True}})
