import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxt2i.convert.rules import Rule, Table
from jaxt2i.engine.method import Ctx, Player
from jaxt2i.verify.step import Networks

TABLE = Table((Rule("weight", "params/kernel", "dense"),))


def made():
    module = nn.Dense(2, use_bias=False)
    return module, {"params": {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]])}}


def networks(**more):
    return Networks({"a": made(), "b": made()}, {"a": TABLE}, {"x": jnp.ones((1, 2))}, **more)


def test_a_draw_is_given_or_drawn():
    ctx = Ctx(networks().method(), {}, {}, {}, key=jax.random.key(0))
    draw = lambda key: jax.random.normal(key, (3,))  # noqa: E731
    np.testing.assert_array_equal(ctx.draw("z", draw), draw(ctx.rng("z")))
    ctx = Ctx(networks().method(), {}, {}, {}, key=jax.random.key(0), draws={"z": "const"})
    assert ctx.draw("z", draw) == "const"
    assert ctx.draw("other", draw).shape == (3,)


def test_several_losses_pull_back_through_one_pass():
    def turn(ctx, batch):
        y = ctx("a", batch["x"] * ctx.draw("z", lambda key: jnp.ones(())))
        return {"sum": y.sum(), "squares": (y**2).sum()}, y

    at = networks(draws={"z": np.float32(2)}, watch=("a",))
    turn = at.play(one=(turn, ("a",)))["one"]
    np.testing.assert_allclose(turn.logs, [[8, 12]])
    np.testing.assert_allclose(turn.outputs["a"][0], [[8, 12]])
    np.testing.assert_allclose(turn.gradients["sum"]["a"]["kernel"], [[2, 2], [2, 2]])
    squares = turn.gradients["squares"]["a"]["kernel"]
    np.testing.assert_allclose(squares, [[32, 48], [32, 48]])
    norms = at.norms(turn.gradients["squares"], ["weight", "bias"])
    np.testing.assert_allclose(norms, [np.linalg.norm(squares), np.nan])


def test_stand_ins_are_what_a_network_returns():
    at = Networks({"a": made()}, {"a": TABLE}, {"x": jnp.ones((1, 2))}, stand_in={"g": jnp.ones(3)})
    found = at.run(lambda ctx, batch: (ctx("g", "anything"), ctx("a", batch["x"])))
    np.testing.assert_array_equal(found[0], np.ones(3))
    np.testing.assert_allclose(found[1], [[4, 6]])


def test_a_step_of_the_engine_takes_other_draws_each_time():
    def loss(ctx, batch):
        z = ctx.draw("z", lambda key: jnp.zeros(()))
        return (z * ctx("a", batch["x"])).sum(), {"z": z}

    at = networks(draws={"z": np.float32(1)})
    run = at.start([Player("a", ("a",), loss, optax.sgd(0.5))])
    assert run.step()["a/z"] == 1
    assert run.step(z=np.float32(3))["a/z"] == 3
    np.testing.assert_allclose(at.named(run.state.params)["weight"], [[-1, 1], [0, 2]])
    assert run.see(lambda ctx, batch: ctx("a", batch["x"]).sum()) == pytest.approx(2)
