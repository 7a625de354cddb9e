"""Initial variables: a key for each network, whatever the order in which they are named."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.nn.initial import apart, initialise


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


class Kinds(nn.Module):
    """Initial values of every kind that a draw is found by, and some that it is not."""

    @nn.compact
    def __call__(self, x):
        normal = self.param("normal", nn.initializers.normal(0.02), (5, 7))
        self.param("scaled", lambda k, s: jax.random.normal(k, s) / 3.0 * 0.1 + 1.0, (4100,))
        self.param("uniform", nn.initializers.uniform(0.3), (9,))
        self.param("lecun", nn.initializers.lecun_normal(), (3, 3, 8, 16))
        self.param("orthogonal", nn.initializers.orthogonal(), (6, 6))
        self.param("half", lambda k, s: jax.random.normal(k, s, jnp.bfloat16), (11,))
        self.param(
            "summed", lambda k, s: (v := jax.random.normal(k, s)) / jnp.linalg.norm(v), (65,)
        )
        self.param("integers", lambda k, s: jax.random.randint(k, s, 0, 9), (3,))
        # Read by what follows: its sum may be fused with the draw.
        self.variable("stats", "size", lambda: (normal**2).sum())
        self.param("ones", nn.initializers.ones, (2,))
        return x


def test_draws_apart_are_those_of_one_program_to_the_bit():
    def build(key, given):
        variables = Kinds().init(key, jnp.zeros((1, 2)))
        return {"state": variables, "average": variables["params"], "given": given, "count": 3}

    args = jax.random.key(5), {"w": jnp.arange(3.0)}
    mesh = jax.make_mesh((8,), ("data",))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    whole = jax.jit(build, out_shardings=everywhere)(*args)
    split = apart(build, *args, out_shardings=everywhere)
    same(whole, split)
    assert all(x.sharding == everywhere for x in jax.tree.leaves(split))
