"""TextControlGAN: names, halves of a batch, the penalty's vectors, companions, bad settings."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.config import ConfigError
from jaxt2i.convert import rules
from jaxt2i.encoders.pretrained import template
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.engine.method import Ctx
from jaxt2i.run import open as runs
from jaxt2i.run import settings
from jaxt2i.systems.textcontrol_gan import method as textcontrol
from jaxt2i.systems.textcontrol_gan import names as tables

FULL = Path(__file__).parents[1] / "goldens" / "textcontrol_gan" / "full_tensors.json"
MODULES = {
    "g": textcontrol.Generator,
    "d": textcontrol.Discriminator,
    "c": textcontrol.Regressor,
}


def opened(preset="tiny", **changes):
    config = settings.preset("configs/textcontrol_gan.py", preset)
    config.model.update(changes)
    return runs.open_run(config)


@pytest.mark.parametrize("net", MODULES)
def test_published_names_and_shapes(net):
    """A file is its own network's alone, and comes back as it was."""
    full = json.loads(FULL.read_text())
    files = {
        n: {k: np.broadcast_to(np.float32(0), s) for k, s in full[f"net{n.upper()}"]}
        for n in MODULES
    }
    sizes = tables.infer(net, files[net])
    defaults = {k: getattr(MODULES[net](), k) for k in sizes}
    assert sizes == defaults
    table = rules.pick(tables.TABLES[net], files[net])
    shapes = jax.tree.map(
        lambda x: np.broadcast_to(np.float32(0), x.shape), template(MODULES[net](**sizes))
    )
    back = {k: x.shape for k, x in rules.to_torch(table, shapes).items()}
    assert back == {k: x.shape for k, x in files[net].items()}
    for other in set(MODULES) - {net}:
        assert not any(t.names(files[other]) for t in tables.TABLES[net])


@pytest.mark.parametrize("resolution", [32, 128])
def test_other_resolutions(resolution):
    sizes = {"base": 8, "most": 32, "resolution": resolution, "sentence_dim": 6}
    g = textcontrol.Generator(part=5, **sizes)
    image = jax.eval_shape(g.init_with_output, jax.random.key(0), *g.example())[0]
    assert image.shape == (1, resolution, resolution, 3)
    assert g.z_dim == 5 * (resolution.bit_length() - 3)
    d, c = textcontrol.Discriminator(**sizes), textcontrol.Regressor(**sizes)
    scores = jax.eval_shape(d.init_with_output, jax.random.key(0), *d.example())[0]
    said = jax.eval_shape(c.init_with_output, jax.random.key(0), *c.example())[0]
    assert scores.shape == (1,)
    assert said.shape == (1, 6)


def test_critic_and_regressor_see_different_examples():
    losses = opened().method.players[0].loss.__wrapped__.__self__
    batch = {"x": jnp.arange(8)}
    game, regressor = (losses.part_of(batch, who)["x"].tolist() for who in ("game", "regressor"))
    assert game == [0, 2, 4, 6]
    assert regressor == [1, 3, 5, 7]
    shared = opened(regressor_batch="shared").method.players[0].loss.__wrapped__.__self__
    assert shared.part_of(batch, "regressor")["x"].tolist() == list(range(8))


def test_without_the_regressor_nobody_reads_the_text_off_pictures():
    method = opened("no_regressor").method
    assert [p.name for p in method.players] == ["d", "g"]
    assert "c" not in method.nets


def test_interpolated_sentences():
    sentence = jnp.arange(6.0).reshape(3, 2)
    beta, order = jnp.array([[1.0], [0.0], [0.5]]), jnp.array([1, 2, 0])
    want = [[0, 1], [4, 5], [2, 3]]
    np.testing.assert_allclose(textcontrol.mixed(sentence, beta, order), want)


def made_up(net):
    """Variables without compiling what draws them."""
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: np.abs(random.standard_normal(x.shape)).astype(np.float32), template(net)
    )


@functools.cache
def small():
    """A context over small networks, and what they are given."""
    sizes = {"base": 2, "most": 4, "resolution": 8, "sentence_dim": 5}
    nets = {
        "g": textcontrol.Generator(part=3, **sizes),
        "d": textcontrol.Discriminator(**sizes),
    }
    variables = {n: made_up(net) for n, net in nets.items()}
    method = textcontrol.Method(nets=nets, players=(), init=None, needs=())
    params = {n: v["params"] for n, v in variables.items()}
    extra = {n: {k: x for k, x in v.items() if k != "params"} for n, v in variables.items()}
    return method, params, extra


def test_the_penalty_is_that_of_the_slope_and_advances_the_critic():
    method, params, extra = small()
    losses = textcontrol.Losses(textcontrol.Model(), None, 8)
    image = jax.random.normal(jax.random.key(5), (2, 8, 8, 3))

    @jax.jit
    def run(params, extra):
        ctx = Ctx(method, params, extra, {}, key=jax.random.key(0))
        penalty = losses.penalty(ctx, image, jnp.ones((2, 5)))
        # With the vectors where the penalty left them.
        slope = jax.grad(lambda x: ctx("d", x, jnp.ones((2, 5))).sum())(image)
        return penalty, slope, ctx.extra["d"]

    penalty, slope, after = run(params, extra)
    norm = jnp.sqrt(jnp.square(slope).sum((1, 2, 3)))
    np.testing.assert_allclose(penalty, jnp.square(norm - 1).mean(), rtol=1e-4)
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), after, extra["d"])
    assert moved["spectral"]["trunk"]["block1"]["conv1"]["u"]


def test_a_picture_is_normalised_beside_companions_of_its_own_sentence():
    """The first of a batch of one sentence, whose other latents come from its own key."""
    method, params, extra = small()
    losses = textcontrol.Losses(textcontrol.Model(companions=4, part=3), None, 8)

    @jax.jit
    def run(params, extra):
        ctx = Ctx(method, params, extra, {}, key=None)
        keys = jax.random.split(jax.random.key(2), 2)
        z = jax.vmap(losses.latent)(keys)
        sentence = jax.random.normal(jax.random.key(3), (2, 5))
        text = textcontrol.Text(sentence, sentence, sentence)
        images = losses.draw(ctx, {}, keys, z=z, text=text, psi=0.5)["image"]
        others = jax.random.normal(jax.random.fold_in(keys[1], 1), (3, 3))
        batch = 0.5 * jnp.concatenate([z[1:], others])
        want = ctx("g", batch, jnp.broadcast_to(sentence[1], (4, 5)))[0]
        return images[1], want, ctx("g", 0.5 * z[1:], sentence[1:])[0]

    image, want, alone = run(params, extra)
    np.testing.assert_allclose(image, want, atol=1e-5)
    assert jnp.abs(alone - want).max() > 1e-3


def test_augmentation_is_behind_its_field():
    image = jnp.zeros((1, 8, 8, 3))
    ctx = Ctx(small()[0], {}, {}, {}, key=jax.random.key(0), draws={"augment": jnp.ones((2, 1))})
    losses = textcontrol.Losses(textcontrol.Model(), None, 16)
    turned = losses.turned(ctx, image)
    assert (turned[0, 0, 0] == -1).all()  # a corner comes from outside
    assert (turned[0, 4, 4] == 0).all()
    assert not textcontrol.Model().regressor_augment
    assert settings.preset("configs/textcontrol_gan.py", "cub128").model.regressor_augment


@pytest.mark.full
@pytest.mark.parametrize("preset", ["cub", "cub128", "coco"])
def test_a_step_of_every_published_configuration_traces(preset):
    config = settings.preset("configs/textcontrol_gan.py", preset)
    config.batch_size = 4
    config.data.tokenizer = "words"
    config.model.weights = "random"
    run = runs.open_run(config)
    state, frozen = states.shapes(run.method, run.batch_spec())
    program = steps.make(run.method, steps.Rules(0, 4, 10))[1]
    after, metrics = jax.eval_shape(program, state, frozen, run.batch_spec())
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert {"d/penalty", "g/text", "c/loss"} <= set(metrics)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"cbn_eval": "both"}, r"config\.model\.cbn_eval='both'"),
        ({"regressor_batch": "mine"}, r"config\.model\.regressor_batch='mine'"),
        ({"companions": 0}, r"config\.model\.companions=0"),
        ({"perception": "vectors"}, r"config\.data\.text_width .*1024"),
    ],
)
def test_bad_settings_are_refused(changes, line):
    with pytest.raises(ConfigError, match=line):
        opened(**changes)


def test_an_odd_batch_has_no_halves():
    config = settings.preset("configs/textcontrol_gan.py", "tiny")
    config.batch_size = 15
    with pytest.raises(ConfigError, match=r"config\.batch_size=15.*regressor_batch=shared"):
        textcontrol.build(config)
