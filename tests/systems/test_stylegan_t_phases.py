"""StyleGAN-T's phases hand on what they trained: generator, discriminator, and the tuned tower."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxt2i
from jaxt2i import api
from jaxt2i.config import ConfigError
from jaxt2i.configs import stylegan_t
from jaxt2i.engine import state as states
from jaxt2i.engine import step as step_of
from jaxt2i.run import borrow, own, train
from jaxt2i.run import open as runs
from jaxt2i.systems.stylegan_t import method, networks
from tests.nudge import nudge


def phase(folder, name, start="", resolution=16, steps=1, **model):
    """A phase of a lineage: (its run, its state before the first step, frozen weights)."""
    config = stylegan_t.get_config("tiny")
    config.total_images, config.batch_size, config.score_images = 8 * steps, 8, 0
    config.sample_every_steps, config.data.resolution = 0, resolution
    config.init_from = str(folder / start) if start else ""
    config.model.update(ema_images=1.0, **model)
    if steps:
        train.train(config, folder / name, name)
        return None
    run = runs.open_run(config)
    own.inherit(run, folder / name)
    layout, spec = api.here(), run.batch_spec()
    shapes = states.shapes(run.method, spec)
    where = tuple(map(layout.shardings, shapes))
    # Of nothing but zeros: what is not zero then came from the earlier phase.
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes[0])
    state = borrow.fresh_start(config, run.method)(jax.device_put(zeros, where[0]))
    return run, state, states.create_frozen(run.method, spec, 0, where[1])


def pictures(run, state, frozen):
    system = api.System(run=run, state=state, frozen=frozen, layout=api.here())
    return system.sample(["a red daisy", "a blue owl"], seed=3).arrays


def test_a_tuned_tower_travels_with_the_generator(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(step_of, "make", nudge)  # what a step trains matters, not how far
    phase(tmp_path, "text", train_mode="text_encoder")
    tuned = jaxt2i.load(tmp_path / "text")
    before = pictures(tuned.run, *tuned.weights)
    plain = tuned.weights[1]["text_reference"]["params"]
    tower = tuned.weights[0].ema["text"]

    def equal(a, b):
        return all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))

    assert not equal(tower, plain), "the phase trains it"

    # Left behind it would be another generator's: refused, with both ways out.
    with pytest.raises(
        ConfigError, match=r"networks text were trained there.*tuned_text=True.*init_without=text"
    ):
        phase(tmp_path, "lost", "text", steps=0)

    run, state, frozen = phase(tmp_path, "same", "text", steps=0, tuned_text=True)
    assert equal(frozen["text"]["params"], tower)
    assert equal(frozen["text_reference"]["params"], plain)
    np.testing.assert_array_equal(pictures(run, state, frozen), before)
    said = capsys.readouterr().out
    assert "0 of the source taken by nobody" in said
    assert f"text: from {tmp_path / 'text'}, kept in {tmp_path / 'same' / 'inherited'}" in said

    phase(tmp_path, "grown", "text", resolution=32, tuned_text=True)
    said = capsys.readouterr().out
    assert "0 of another shape" in said
    assert "new: params/g/synthesis/b32/" in said
    shutil.rmtree(tmp_path / "text")
    # What came from the phase before the last is still there, for the next one.
    grown = jaxt2i.load(tmp_path / "grown")
    assert equal(grown.weights[1]["text"]["params"], tower)
    assert equal(grown.weights[1]["text_reference"]["params"], plain)
    settings_of = {"tuned_text": True, "train_mode": "freeze64"}
    _, state, frozen = phase(tmp_path, "frozen", "grown", 32, 0, **settings_of)
    assert equal(frozen["text"]["params"], tower)
    assert equal(state.params["g"], grown.weights[0].ema["g"])


def test_later_phases_average_without_ramp_up():
    config = stylegan_t.get_config("tiny")
    assert method.build(config).ema["g"].rampup == 0.05
    config.init_from = "runs/an_earlier_phase"
    assert method.build(config).ema["g"].rampup is None


def test_the_blur_goes_on_where_earlier_phases_left_it():
    config = stylegan_t.get_config("full128")
    earlier = sum(stylegan_t.get_config(f"full{n}").total_images for n in ("16", "32", "64"))
    earlier += stylegan_t.get_config("full64_text").total_images
    assert config.model.blur_start_images == earlier
    seen = networks.blur_sigma(
        jnp.float32(config.model.blur_start_images),
        config.model.blur_init_sigma,
        config.model.blur_fade_images,
    )
    assert seen == 0
