"""What the author of a method gets wrong is a sentence, before anything is compiled."""

import dataclasses
import sys
import types

import jax
import pytest
from ml_collections import ConfigDict

from jaxt2i.config import ConfigError
from jaxt2i.data import schema
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.engine.method import Ema
from jaxt2i.run import open as runs
from jaxt2i.run import written

SIZES = schema.Sizes(batch=16, height=16, width=16, tokens=8)


def toy(**changes):
    sections = {"optim": {"lr": 0.05}, "model": {}, "data": {"resolution": 16}}
    method = runs.load_method(ConfigDict({"method": "tests.engine.toy", **sections}))
    return written.checked(dataclasses.replace(method, **changes), "toy")


def traced(method):
    spec = schema.spec(SIZES, method.needs)
    programs = steps.make(method, steps.Rules(0, 16, 10))
    return jax.eval_shape(programs[1], *states.shapes(method, spec), spec)


def with_loss(loss):
    first, *others = toy().players
    return toy(players=(dataclasses.replace(first, loss=loss), *others))


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (
            lambda ctx, batch: ctx("critic"),
            r"looks up 'critic'; .* a network, `nets` must",
        ),
        (lambda ctx, batch: batch["image"].mean(), r"player 'd' gives no pair \(loss, "),
        (lambda ctx, batch: (batch["image"][:, 0, 0, 0], {}), r"'loss' has shape \(16,\)"),
        (lambda ctx, batch: (0.0, {"real": batch["token_mask"]}), r"'real' has shape \(16, 8\)"),
    ],
)
def test_a_loss(loss, sentence):
    with pytest.raises(ConfigError, match=sentence):
        traced(with_loss(loss))


def test_the_toy_itself_is_no_mistake():
    traced(toy())


def test_names():
    with pytest.raises(ConfigError, match="two players are called 'd'"):
        toy(players=toy().players[:1] * 2)
    with pytest.raises(ConfigError, match=r"ema averages 'gen', which .* known: g, d"):
        toy(ema={"gen": Ema(100)})


def test_init_gives_every_network():
    own = toy().init
    method = toy(init=lambda *args: {"g": own(*args)["g"]})
    with pytest.raises(ConfigError, match=r"init gives no weights of 'd'; it gives g"):
        states.shapes(method, schema.spec(SIZES, method.needs))


def test_what_is_drawn_has_a_name_of_the_schema():
    method = toy()
    shapes = states.shapes(method, schema.spec(SIZES, method.needs))
    assert runs.outputs(method, shapes, SIZES) == {"image": (16, 16, 3)}
    draw = lambda *args, **kw: {"img": method.sampler.draw(*args, **kw)["image"]}  # noqa: E731
    wrong = toy(sampler=dataclasses.replace(method.sampler, draw=draw))
    with pytest.raises(ConfigError, match=r"gives 'img', neither a row.*did you mean image\?"):
        runs.outputs(wrong, shapes, SIZES)


def test_build(monkeypatch):
    def built(**module):
        made = types.ModuleType("my_gan")
        vars(made).update(module)
        monkeypatch.setitem(sys.modules, "my_gan", made)
        runs.load_method(ConfigDict({"method": "my_gan", "data": {"resolution": 16}}))

    with pytest.raises(ConfigError, match=r"'my_gan': the module has no function build"):
        built()
    with pytest.raises(ConfigError, match="build of my_gan gives NoneType; expected a Method"):
        built(build=lambda config: None)
    with pytest.raises(ConfigError, match=r"Method.needs of my_gan names 'images'.*mean image\?"):
        built(build=lambda config: dataclasses.replace(toy(), needs=("images",)))
    conditions = dataclasses.replace(toy().sampler, needs=("boxs",))
    with pytest.raises(ConfigError, match=r"Sampler.needs of my_gan names 'boxs'.*mean boxes\?"):
        built(build=lambda config: dataclasses.replace(toy(), sampler=conditions))
