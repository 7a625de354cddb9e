"""Recomputed blocks: equal losses, gradients, collections and draws from less memory."""

import functools
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.config import ConfigError
from jaxt2i.encoders.clip import ClipImage
from jaxt2i.nn.critics import Critic
from jaxt2i.nn.remat import Policy, recomputed
from jaxt2i.run.open import recomputing
from jaxt2i.systems.attngan import method as attngan
from jaxt2i.systems.df_gan import method as df_gan
from jaxt2i.systems.dm_gan import method as dm_gan
from jaxt2i.systems.galip import method as galip
from jaxt2i.systems.obj_gan import networks as obj_gan
from jaxt2i.systems.op_gan import networks as op_gan
from jaxt2i.systems.souza import method as souza
from jaxt2i.systems.stylegan_t import networks as stylegan_t

BATCH = 8
SMALL = {"resolution": 16, "sentence_dim": 8}
STAGES = {"base": 4, "resolution": 16, "stages": 2, "z_dim": 4, "c_dim": 4, "words_dim": 8}
NETS = {
    "stylegan_t g": stylegan_t.Generator(
        resolution=16,
        z_dim=8,
        channel_base=512,
        channel_max=32,
        num_res_blocks=1,
        sentence_dim=8,
    ),
    "stylegan_t d": stylegan_t.DiscriminatorHeads(cmap_dim=8, maps=2, inputs=8, sentence_dim=8),
    "galip g": galip.Generator(
        base=4,
        resolution=32,
        grid=4,
        width=8,
        prompts=1,
        bridge_blocks=1,
        z_dim=4,
        sentence_dim=8,
    ),
    "galip d": galip.Features(base=2, taps=3, grid=8, width=16),
    "df_gan g": df_gan.Generator(base=4, resolution=32, z_dim=4, sentence_dim=8),
    "df_gan d": df_gan.Features(base=4, resolution=32),
    "souza g": souza.Generator(base=4, attention=8, z_dim=4, **SMALL),
    "souza d": souza.Discriminator(base=4, attention=8, **SMALL),
    "attngan g": attngan.Generator(residuals=1, **STAGES),
    "attngan d": Critic(base=4, resolution=16, kind="batch", sentence_dim=8),
    "dm_gan g": dm_gan.Generator(residuals=1, **STAGES),
    "dm_gan d": Critic(base=4, resolution=16, kind="spectral", sentence_dim=8),
    "obj_gan g": obj_gan.Generator(
        **STAGES | {"resolution": 32},
        start=4,
        first_residuals=1,
        residuals=1,
        classes=5,
        names_dim=4,
    ),
    "obj_gan d": obj_gan.Critic(
        base=4, resolution=32, halvings=3, classes=5, map_features=4, objects=True, roi_scale=1.0
    ),
    "op_gan g": op_gan.Generator(**STAGES | {"resolution": 32}, residuals=1, op=(True, True)),
    "clip image": ClipImage(resolution=32, patch=4, width=16, layers=4, heads=2, joint=8),
}
# XLA takes barriers out before it merges what is computed twice, on CPUs alone.
EXACT = {"xla_disable_hlo_passes": "cse_barrier_expander", "xla_backend_optimization_level": 0}


@functools.cache
def inputs(name):
    """(variables with everything switched on, a batch of arguments)."""
    rng = np.random.default_rng(0)

    def drawn(shape, dtype):
        numbers = jnp.asarray(rng.normal(size=shape), jnp.float32)
        return numbers > -jnp.inf if dtype == np.bool_ else numbers

    args = jax.tree.map(lambda x: drawn((BATCH, *x.shape[1:]), x.dtype), NETS[name].example())
    if name == "stylegan_t d":  # with more than one token
        args = ([x.repeat(64, 1) for x in args[0]], args[1])
    keys = dict.fromkeys(("params", "noise"), jax.random.key(1))
    shapes = jax.eval_shape(NETS[name].init, keys, *args)
    return jax.tree.map(lambda x: 0.1 + 0.3 * abs(drawn(x.shape, x.dtype)), shapes), args


def loss_of(name, policy):
    """(params, arguments) to (loss, new collections) of a network in training."""
    net = recomputing({"net": NETS[name]}, [("net", policy)] if policy else [])["net"]
    extra = {k: v for k, v in inputs(name)[0].items() if k != "params"}
    options = {"train": True} if "train" in inspect.signature(net.__call__).parameters else {}
    options |= {"rngs": {"noise": jax.random.key(1)}, "mutable": list(extra)}

    def loss(params, args):
        out, new = net.apply({"params": params, **extra}, *args, **options)
        weigh = lambda x: (x.reshape(-1) * jnp.cos(jnp.arange(x.size))).mean()  # noqa: E731
        return sum(map(weigh, jax.tree.leaves(out))), new

    def penalty(params, args):
        slope = jax.grad(lambda args: loss(params, args)[0])(args)
        return sum(jnp.square(BATCH * x).sum() for x in jax.tree.leaves(slope)), {}

    # Differentiated twice by the matching-aware gradient penalty.
    return penalty if name == "galip d" else loss


def kept(name, policy):
    """Bytes that the forward pass leaves to the backward pass."""
    variables, args = inputs(name)
    loss = loss_of(name, policy)
    pull = jax.eval_shape(
        lambda params: jax.vjp(lambda p: loss(p, args), params, has_aux=True)[1],
        variables["params"],
    )
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(pull))


@pytest.mark.parametrize("name", NETS)
def test_every_network_keeps_less(name):
    assert kept(name, "full") < kept(name, "")


def compiled(name, policy):
    """What the loss and its gradients are, and the compiler's bytes for them."""
    variables, args = inputs(name)
    gradient = jax.jit(jax.value_and_grad(loss_of(name, policy), has_aux=True))
    program = gradient.lower(variables["params"], args).compile(compiler_options=EXACT)
    out = jax.device_get(program(variables["params"], args))
    return out, program.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("name", ["df_gan g", "galip d", "attngan d", "souza d", "obj_gan d"])
def test_losses_gradients_and_collections_stay(name):
    (plain, before), (again, after) = (compiled(name, policy) for policy in ("", "full"))
    assert jax.tree.structure(plain) == jax.tree.structure(again)
    for part, other in zip(plain, again, strict=True):
        largest = max((np.abs(x).max() for x in jax.tree.leaves(part)), default=0.0)
        for a, b in zip(jax.tree.leaves(part), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * largest)
    # Of the others the largest block is most of the whole.
    assert after < 0.8 * before or name not in ("df_gan g", "galip d")


def test_random_draws_inside_stay():
    class Noisy(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x * jax.random.normal(self.make_rng("noise"), x.shape)

    class Two(nn.Module):
        remat: Policy = None

        @nn.compact
        def __call__(self, x):
            for i in range(2):
                x = recomputed(self.remat, Noisy(name=f"noisy{i}"), x)
            return x

    full = jax.checkpoint_policies.nothing_saveable
    rngs = {"noise": jax.random.key(0)}
    out = [
        jax.vjp(lambda x, p=p: Two(p).apply({}, x, rngs=rngs), jnp.ones(9)) for p in (None, full)
    ]
    (a, pull_a), (b, pull_b) = out
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(pull_a(a)[0], pull_b(a)[0])


def test_policies_keep_what_they_are_named_for():
    sizes = [kept("df_gan g", p) for p in ("full", "dots_no_batch", "products", "")]
    assert sizes == sorted(set(sizes))


def test_rules_are_checked_and_the_first_match_decides():
    nets = {"g": NETS["df_gan g"], "c": df_gan.OneWayOutput(), "d": NETS["df_gan d"]}
    out = recomputing(nets, (("g", "products"), (".*", "full")))
    assert out["g"].remat is jax.checkpoint_policies.dots_saveable
    assert out["d"].remat is jax.checkpoint_policies.nothing_saveable
    assert out["c"] is nets["c"]
    with pytest.raises(ConfigError, match=r"config\.remat: 'c' is no network.*: g, d"):
        recomputing(nets, (("c", "full"),))
    with pytest.raises(ConfigError, match=r"config\.remat.*policy 'all'; known: full, products"):
        recomputing(nets, (("g", "all"),))
