"""Objects: cut out and pasted back, normalised by index, one after the other or all at once."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxt2i.nn import objects
from jaxt2i.nn.norms import BatchNorm, CountedNorm
from jaxt2i.nn.objects import EachObject, ObjectNorm, Objects, ObjectUp


class Patch(nn.Module):
    """The smallest pathway: a doubling, pasted."""

    size: int = 8
    features: int = 3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, slots, shared, *, train=False):
        every = jnp.broadcast_to(shared["h"], (len(slots["mask"]), *shared["h"].shape))
        x = objects.resample(every, slots["boxes"], 4, paste=False, corners=False)
        x = ObjectUp(self.features, name="up")(x, slots["mask"], train=train)
        return objects.resample(x, slots["boxes"], self.size, paste=True, corners=False)


@pytest.fixture(scope="module")
def played():
    """Both loops on the same rows, where no picture has a fourth object."""
    rng = np.random.default_rng(0)
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]], bool)
    size = rng.uniform(0.2, 0.6, (3, 4, 2))
    boxes = np.concatenate([rng.uniform(0, 1 - size), size], -1).astype(np.float32)
    label = np.zeros((3, 4, 2), np.float32)
    given = Objects(jnp.asarray(boxes), jnp.asarray(label), jnp.asarray(mask))
    shared = {"h": jnp.asarray(rng.normal(size=(3, 8, 8, 2)), jnp.float32)}
    net = EachObject(network=Patch())
    start = jax.jit(net.init)(jax.random.key(0), given.slots(), shared)

    def run(loop, given):
        def value(params):
            variables = {**start, "params": params}
            own = net.clone(loop=loop)
            out = own.apply(variables, given.slots(), shared, train=True, mutable=["batch_stats"])
            return jnp.square(out[0]).sum(), out

        return jax.grad(value, has_aux=True)(start["params"])

    out = jax.jit(lambda given: {loop: run(loop, given) for loop in objects.LOOPS})(given)
    # What stands where no object is must not matter.
    other = given.replace(boxes=jnp.where(given.mask[..., None], given.boxes, 0.3))
    return out, jax.jit(lambda given: run("scan", given))(other), given, start


def test_one_by_one_is_all_at_once(played):
    out, *_ = played
    one, every = out["scan"], out["all"]
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(every), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
    assert np.abs(one[1][0]).max() > 0.1


def test_places_without_objects_change_nothing(played):
    out, other, *_ = played
    for a, b in zip(jax.tree.leaves(out["scan"]), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_by_one_on_eight_devices_is_on_one():
    """Outputs, running statistics and gradients; the fourth index is skipped on all of them."""
    rng = np.random.default_rng(1)
    mask = jnp.asarray(np.arange(4) < rng.integers(0, 4, (16, 1)))
    size = rng.uniform(0.2, 0.6, (16, 4, 2))
    boxes = jnp.asarray(np.concatenate([rng.uniform(0, 1 - size), size], -1), jnp.float32)
    given = Objects(boxes=boxes, label=jnp.zeros((16, 4, 2)), mask=mask)
    h = jnp.asarray(rng.normal(size=(16, 8, 8, 2)), jnp.float32)
    net = EachObject(network=Patch())
    start = jax.jit(net.init)(jax.random.key(0), given.slots(), {"h": h})

    def value(params, given, h):
        variables = {**start, "params": params}
        out = net.apply(variables, given.slots(), {"h": h}, train=True, mutable=["batch_stats"])
        return jnp.square(out[0]).sum(), out

    step = jax.jit(jax.grad(value, has_aux=True))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    one = step(start["params"], given, h)
    eight = step(start["params"], *jax.device_put((given, h), rows))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_norms_are_batch_norms_of_the_rows_that_have_the_object():
    """Object after object: the running statistics too, and an index that is nowhere moves none."""
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(3, 4, 5, 6)) * 2 + 1, jnp.float32)
    mask = jnp.asarray([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]], bool)
    start = {"batch_stats": {"mean": jnp.full(6, 0.5), "var": jnp.full(6, 2.0)}}
    params = {"params": {"scale": jnp.ones(6) * 1.5, "bias": jnp.ones(6) * 0.1}}
    norm = ObjectNorm()
    got, after = norm.apply({**params, **start}, x, mask, train=True, mutable=["batch_stats"])
    plain = BatchNorm()
    for i in range(2):
        rows = np.flatnonzero(mask[i])
        want, start = plain.apply(
            {**params, **start}, x[i, rows], train=True, mutable=["batch_stats"]
        )
        np.testing.assert_allclose(got[i, rows], want, rtol=1e-5, atol=1e-5)
    for name in ("mean", "var"):
        np.testing.assert_allclose(
            after["batch_stats"][name], start["batch_stats"][name], rtol=1e-5
        )


def test_cutting_and_pasting():
    """A box of whole pixels is cut out as it is, and pasted where it was."""
    x = jnp.arange(64.0).reshape(1, 8, 8, 1) + 1
    box = jnp.asarray([[0.25, 0.5, 0.5, 0.25]])
    cut = objects.resample(x, box, 4, paste=False, corners=False)
    np.testing.assert_allclose(cut[0, ::2, :, 0].mean(), x[0, 4:6, 2:6].mean() - 2, atol=1e-4)
    pasted = objects.resample(jnp.ones((1, 4, 4, 1)), box, 8, paste=True, corners=False)
    want = np.zeros((8, 8))
    want[4:6, 2:6] = 1
    np.testing.assert_allclose(pasted[0, ..., 0], want, atol=1e-6)
    nowhere = jnp.full((1, 4), objects.NOWHERE)
    for paste in (False, True):
        assert not objects.resample(x, nowhere, 8, paste=paste, corners=True).any()


def test_merging():
    before, new = jnp.asarray([1.0, 2.0, 0.0]), jnp.asarray([0.0, 5.0, 3.0])
    np.testing.assert_array_equal(objects.merged(before, new, "over"), [1, 5, 3])
    np.testing.assert_array_equal(objects.merged(before, new, "sum"), [1, 7, 3])


def test_objects_read_words_alone_and_none_count_nowhere():
    rng = np.random.default_rng(0)
    queries, words = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 5, 4))
    mask = np.array([[1, 1, 1, 0, 0], [1] * 5], bool)
    share, text = objects.read_text(jnp.asarray(queries), jnp.asarray(words), jnp.asarray(mask))
    score = np.exp(queries[0] @ words[0, :3].T / 2)
    want = score / score.sum(1, keepdims=True)
    np.testing.assert_allclose(share[0], np.pad(want, ((0, 0), (0, 2))), atol=1e-6)
    np.testing.assert_allclose(text[0], want @ words[0, :3], atol=1e-6)
    values = jnp.asarray([[1.0, np.inf], [3.0, np.nan]])
    assert objects.mean_over(values, jnp.isfinite(values)) == 2
    assert objects.mean_over(values, jnp.zeros((2, 2), bool)) == 0


@pytest.mark.parametrize("group", [0, 3])
def test_examples_that_count_are_objects_of_one_index(group):
    """`CountedNorm` is `ObjectNorm` with one index; the last group has no example that counts."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(1, 2, (6, 2, 2, 3)), jnp.float32)
    there = jnp.asarray([1, 0, 1, 0, 0, 0], bool)
    one, other = CountedNorm(group=group), ObjectNorm(group=group)
    start = {"params": {"scale": jnp.arange(1.0, 4), "bias": jnp.arange(3.0)}}
    start["batch_stats"] = {"mean": jnp.ones(3), "var": 2 * jnp.ones(3)}

    def run(norm, x, *given):
        out, changed = norm.apply(start, x, *given, train=True, mutable=["batch_stats"])
        return out, changed["batch_stats"]

    def both(x):
        (a, mine), pull_a = jax.vjp(lambda x: run(one, x, there), x)
        (b, theirs), pull_b = jax.vjp(lambda x: run(other, x[None], there[None]), x)
        zeros = jax.tree.map(jnp.zeros_like, mine)
        gradients = pull_a((jnp.cos(x), zeros)), pull_b((jnp.cos(x)[None], zeros))
        return (a, mine, gradients[0]), (b[0], theirs, gradients[1])

    mine, theirs = jax.jit(both)(x)
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
