"""KT-GAN: AttnGAN at the start, carried weights, who learns from what, the chain of trainings."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.config import ConfigError
from jaxt2i.encoders import pretrained
from jaxt2i.encoders.text import Text
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.run import borrow, settings
from jaxt2i.run import open as runs
from jaxt2i.run import train as run_train
from jaxt2i.systems.attngan import method as attngan
from jaxt2i.systems.kt_gan import method as kt_gan

SIZES = {"base": 4, "resolution": 32, "stages": 3, "residuals": 1, "c_dim": 3, "z_dim": 4}
SIZES |= {"words_dim": 6, "attention_mask": "own"}


@functools.cache
def drawn_from():
    """What generators of `SIZES` draw from: two captions, one of them short."""
    random = np.random.default_rng(1)
    mask = np.array([[True, True, True], [True, True, False]])
    shapes = (2, 4), (2, 3), (2, 6), (2, 3, 6)
    z, eps, sentence, words = (random.standard_normal(x).astype(np.float32) for x in shapes)
    return z, eps, sentence, np.where(mask[..., None], words, 0), mask


def made_up(net, seed=0):
    """Variables without compiling what draws them; gammas are 0."""
    random = np.random.default_rng(seed)

    def one(path, x):
        if "gamma" in str(path[-1]):
            return np.zeros(x.shape, np.float32)
        drawn = 0.3 * random.standard_normal(x.shape)
        # Scales and variances lie around 1.
        return np.float32(1 + np.abs(drawn) if path[-1].key in ("scale", "var") else drawn)

    return jax.tree_util.tree_map_with_path(one, pretrained.template(net))


@functools.cache
def variables():
    return made_up(kt_gan.Generator(**SIZES))


@functools.partial(jax.jit, static_argnums=0)
def drawn(module, given):
    return module.apply(given, *drawn_from())


def with_gammas(value):
    return jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.full_like(x, value) if "gamma" in str(path[-1]) else x, variables()
    )


def without_gammas():
    flat = {k: dict(v) for k, v in variables()["params"].items()}
    params = {k: {n: x for n, x in v.items() if not n.startswith("gamma")} for k, v in flat.items()}
    return {**variables(), "params": params}


def test_with_gammas_at_zero_it_is_attngan_bit_for_bit():
    """At the start of a training, and in the ablation that never lets them go."""
    want = drawn(attngan.Generator(**SIZES), without_gammas()).replace(read=())
    for module, given in (
        (kt_gan.Generator(**SIZES), variables()),
        (kt_gan.Generator(rounds=0, **SIZES), without_gammas()),
    ):
        found = drawn(module, given)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
            np.testing.assert_array_equal(a, b)


def test_gammas_and_carried_weights_change_the_picture():
    given = with_gammas(0.5)
    pictures = [
        drawn(kt_gan.Generator(**{**SIZES, **changes}), given).images
        for changes in ({}, {"carry": False}, {"rounds": 1})
    ]
    plain = drawn(kt_gan.Generator(**SIZES), variables()).images
    assert jnp.abs(pictures[0][1] - plain[1]).max() > 1e-5
    # Stage 2 has nothing to begin with but even weights; stage 3 has.
    np.testing.assert_array_equal(pictures[0][1], pictures[1][1])
    assert jnp.abs(pictures[0][2] - pictures[1][2]).max() > 1e-7
    assert jnp.abs(pictures[0][1] - pictures[2][1]).max() > 1e-7


def test_carried_weights_are_those_of_the_regions_below():
    weights = jnp.array([[0.4, 0.3, 0.2, 0.1]])
    found = kt_gan.upsampled(weights)
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(found.reshape(4, 4)[:2, 2:], 0.3 / 4, rtol=1e-6)


def test_distillation_moves_the_student_alone():
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = (2, 6), (2, 3, 6), (2, 5, 6), (2, 6)
    sentence, words, regions, code = map(jax.random.normal, keys, shapes)
    mask = jnp.array([[True, True, True], [True, False, False]])

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1, 2, 3), has_aux=True)
    def slopes(sentence, words, regions, code):
        *losses, target = kt_gan.distillation(Text(sentence, words, mask), regions, code)
        return sum(losses), target

    (s, w, r, c), target = slopes(sentence, words, regions, code)
    np.testing.assert_allclose(s, sentence - code, rtol=1e-5)
    assert not w[1, 1:].any()
    assert not jnp.any(r)
    assert not jnp.any(c)
    # The attention is no path either: each word is drawn to its target alone.
    np.testing.assert_allclose(w[1, 0], words[1, 0] - target[1, 0], rtol=1e-4)


def opened(preset="tiny", **changes):
    config = settings.preset("configs/kt_gan.py", preset)
    config.model.update(changes)
    return runs.open_run(config)


def test_who_learns():
    student, teacher = opened().method, opened("tiny_teacher").method
    assert [p.nets for p in student.players] == [("d8",), ("d16",), ("g",), ("student",)]
    assert set(student.frozen) == {"text", "image", "teacher"}
    assert [p.nets for p in teacher.players] == [("d8",), ("d16",), ("g", "teacher")]
    assert teacher.sampler.needs == ("image",)
    plain = opened(sdm_weight=0.0).method
    assert set(plain.frozen) == {"text", "image"}
    assert {net for p in plain.players for net in p.nets} == {"d8", "d16", "g"}


def test_a_teacher_learns_its_projections_and_keeps_its_trunk():
    run = opened("tiny_teacher")
    params = states.shapes(run.method, run.batch_spec())[0].params
    ones = {
        n: jax.tree.map(lambda x: np.ones(x.shape, np.float32), params[n]) for n in ("g", "teacher")
    }
    tx = run.method.players[-1].tx
    updates = jax.jit(lambda x: tx.update(x, tx.init(x), x)[0])(ones)
    moved = jax.tree.map(lambda x: bool(np.any(x)), updates["teacher"])
    assert all(jax.tree.leaves([moved["code"], moved["regions"]]))
    assert not any(jax.tree.leaves(moved["trunk"]))


def test_a_teachers_grid_shows_what_it_was_shown():
    run = opened("tiny_teacher")
    requests = run_train.grid_of(run, run.source("val")).requests
    assert requests[0].row["image"].shape == (16, 16, 3)
    shown = []
    records = SimpleNamespace(grid=lambda step, images, captions: shown.append(images))
    drawn = [(r, {"image": np.full((16, 16, 3), i)}) for i, r in enumerate(requests)]
    run_train.Showing(())(0, drawn, records)
    np.testing.assert_array_equal(shown[0][0], requests[0].row["image"])
    assert (shown[0][3] == 1).all()


def test_the_chain_of_trainings(tmp_path):
    """Networks of a DAMSM and of a teacher find their places, under the names they have here."""
    run = opened("tiny")
    for net, folder in (("text", "damsm"), ("image", "damsm"), ("teacher", "teacher")):
        (tmp_path / folder).mkdir(exist_ok=True)
        made = made_up(run.method.nets[net], seed=len(net))
        pretrained.save_variables(tmp_path / folder / f"{net}.safetensors", made)
    damsm, teacher = str(tmp_path / "damsm"), str(tmp_path / "teacher")
    held = borrow.earlier(damsm)[0]["params"]
    config = settings.preset("configs/kt_gan.py", "tiny")
    config.model.weights = "pretrained"
    config.init_from = f"student={damsm},text={damsm},image={damsm},teacher={teacher}"
    method = runs.open_run(config).method
    lent = method.pretrained["teacher"]()["params"]["code"]["kernel"]
    want = borrow.earlier(teacher)[0]["params"]["teacher"]["code"]["kernel"]
    np.testing.assert_array_equal(lent, want)
    assert jnp.abs(lent - held["image"]["code"]["kernel"]).max() > 0
    state, _ = states.shapes(run.method, run.batch_spec())
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)
    filled = borrow.fresh_start(config, method)(blank)
    np.testing.assert_array_equal(
        filled.params["student"]["words"]["embedding"], held["text"]["words"]["embedding"]
    )
    config.init_from = config.init_from.replace(teacher, damsm)
    # Before there is a teacher, the DAMSM's encoder would pass for one.
    with pytest.raises(ConfigError, match=r"holds no network 'teacher'"):
        runs.open_run(config).method.pretrained["teacher"]()


@pytest.mark.full
def test_a_step_of_a_teacher():
    run = opened("tiny_teacher")
    shapes = states.shapes(run.method, run.batch_spec())
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    state, frozen = states.create(
        run.method, run.batch_spec(), 0, jax.tree.map(lambda _: one, shapes)
    )
    size = run.config.batch_size
    batch = run.pipeline(run.source("train"), size, run.method.needs).batch_at(0)
    after, logs = jax.jit(steps.make(run.method, steps.Rules(0, size, 10))[1])(state, frozen, batch)
    assert logs["finite"].all()
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), after.params, state.params)["teacher"]
    assert all(jax.tree.leaves([moved["code"], moved["regions"]]))
    assert not any(jax.tree.leaves(moved["trunk"]))


@pytest.mark.full
@pytest.mark.parametrize("preset", ["cub", "coco_teacher"])
def test_a_step_of_every_published_configuration_traces(preset):
    config = settings.preset("configs/kt_gan.py", preset)
    config.batch_size = 4
    config.data.tokenizer = "words"
    config.model.weights = "random"
    run = runs.open_run(config)
    state, frozen = states.shapes(run.method, run.batch_spec())
    program = steps.make(run.method, steps.Rules(0, 4, 10))[1]
    after, metrics = jax.eval_shape(program, state, frozen, run.batch_spec())
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert ("text/words" in metrics) == (preset == "cub")
    assert ("g/l1" in metrics) == (preset == "coco_teacher")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"task": "pupil"}, r"config\.model\.task='pupil'"),
        ({"d_norm": "layer"}, r"config\.model\.d_norm='layer'"),
        ({"rounds": -1}, r"config\.model\.rounds is -1"),
    ],
)
def test_bad_settings_are_refused(changes, line):
    with pytest.raises(ConfigError, match=line):
        opened(**changes)
