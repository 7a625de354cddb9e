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
from jaxt2i.engine.method import Control, Ema
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


@pytest.mark.parametrize(
    ("score", "sentence"),
    [
        (lambda ctx, batch: {"gap": batch["img"]}, r"score looks up 'img'.*`needs` must name it"),
        (lambda ctx, batch: 0.0, r"score gives float; expected a dictionary"),
        (lambda ctx, batch: {"fid": 0.0}, r"score gives fid, and better says of gap .*: 'fid' is"),
        (lambda ctx, batch: {"gap": batch["tokens"]}, r"score: 'gap' has shape \(16, 8\)"),
    ],
)
def test_a_score(score, sentence):
    with pytest.raises(ConfigError, match=sentence):
        jax.eval_shape(toy(score=score).score, None, schema.spec(SIZES, toy().needs))


def test_names():
    with pytest.raises(ConfigError, match="two players are called 'd'"):
        toy(players=toy().players[:1] * 2)
    with pytest.raises(ConfigError, match=r"ema averages 'gen', which .* known: g, d"):
        toy(ema={"gen": Ema(100)})
    with pytest.raises(ConfigError, match=r"frozen names 'guide', no network of the method"):
        toy(frozen=("text", "guide"))
    with pytest.raises(ConfigError, match=r"better says 'down' of 'gap'; expected one of"):
        toy(better={"gap": "down"})


def test_init_gives_every_network():
    own = toy().init
    method = toy(init=lambda *args: {"g": own(*args)["g"]})
    with pytest.raises(ConfigError, match=r"init gives no weights of 'd'; it gives g"):
        states.shapes(method, schema.spec(SIZES, method.needs))
    method = toy(init=lambda *args: {net: made["params"] for net, made in own(*args).items()})
    with pytest.raises(ConfigError, match=r"init gives of 'g' .*; expected .*\{\"params\": "):
        states.shapes(method, schema.spec(SIZES, method.needs))


def test_init_is_traced_once_for_shapes_and_weights():
    own, traced = toy().init, []

    def init(key, batch):
        traced.append(set(batch))
        return own(key, batch)

    method = toy(init=init)
    spec = schema.spec(SIZES, method.needs)
    shapes = states.shapes(method, spec)
    everywhere = jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), shapes)
    state, frozen = states.create(method, spec, 3, everywhere)
    assert traced == [set(spec)]
    plain = toy()
    expected = states.create(plain, spec, 3, everywhere)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), (state, frozen), expected))
    states.shapes(method, schema.spec(dataclasses.replace(SIZES, batch=8), method.needs))
    assert len(traced) == 2, "a batch of other shapes is another matter"


def test_what_is_drawn_has_a_name_of_the_schema():
    method = toy()
    shapes = states.shapes(method, schema.spec(SIZES, method.needs))
    assert runs.outputs(method, shapes, SIZES) == {"image": (16, 16, 3)}
    draw = lambda *args, **kw: {"img": method.sampler.draw(*args, **kw)["image"]}  # noqa: E731
    grey = lambda *args, **kw: {"image": method.sampler.draw(*args, **kw)["image"][..., :1]}  # noqa: E731
    bare = lambda *args, **kw: method.sampler.draw(*args, **kw)["image"]  # noqa: E731
    for wrong, sentence in (
        (draw, r"gives 'img', neither a row.*did you mean image\?"),
        (grey, r"an 'image' of shape \[16, 16, 1\] a row; expected RGB"),
        (bare, r"Sampler\.draw of toy gives .*; expected a dictionary, such as"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            runs.outputs(
                toy(sampler=dataclasses.replace(method.sampler, draw=wrong)), shapes, SIZES
            )


def test_a_sampler_takes_its_controls():
    def draw(ctx, rows, keys, *, z, text):
        raise NotImplementedError

    psi = (Control("psi", 1.0),)
    with pytest.raises(ConfigError, match=r"draw of toy .* z, text, psi.* argument 'psi'$"):
        toy(sampler=dataclasses.replace(toy().sampler, draw=draw, controls=psi))


def test_build(monkeypatch):
    def built(**module):
        made = types.ModuleType("my_gan")
        vars(made).update(module)
        monkeypatch.setitem(sys.modules, "my_gan", made)
        settings = {"optim": {}, "data": {"resolution": 16}}
        runs.load_method(ConfigDict({"method": "my_gan", **settings}))

    with pytest.raises(ConfigError, match=r"'my_gan': the module has no function build"):
        built()
    with pytest.raises(ConfigError, match=r"a setting .* has not: 'lr' .*test_written\.py, line "):
        built(build=lambda config: config.optim.lr)
    with pytest.raises(ConfigError, match="build of my_gan gives NoneType; expected a Method"):
        built(build=lambda config: None)
    with pytest.raises(ConfigError, match=r"Method.needs of my_gan names 'images'.*mean image\?"):
        built(build=lambda config: dataclasses.replace(toy(), needs=("images",)))
    conditions = dataclasses.replace(toy().sampler, needs=("boxs",))
    with pytest.raises(ConfigError, match=r"Sampler.needs of my_gan names 'boxs'.*mean boxes\?"):
        built(build=lambda config: dataclasses.replace(toy(), sampler=conditions))
