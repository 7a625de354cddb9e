"""DAMSM as a method: its optimiser, and what it asks of the data."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxt2i.config import ConfigError
from jaxt2i.run import settings
from jaxt2i.systems.damsm import method as damsm


def test_learning_rate_falls_every_epoch_down_to_the_floor():
    lr = damsm.Optim(decay_every_steps=10).schedule()
    epochs = [2e-3]
    while epochs[-1] > 2e-4:
        epochs.append(epochs[-1] * 0.98)
    for epoch in (0, 1, 57, len(epochs) - 1, len(epochs) + 50):
        want = epochs[min(epoch, len(epochs) - 1)]
        assert float(lr(jnp.int32(10 * epoch + 9))) == pytest.approx(want, rel=1e-4)


def test_moments_are_forgotten_every_epoch_and_the_text_is_clipped():
    tx = damsm.Optim(decay_every_steps=2, floor=2e-3).tx(train_trunk=False)
    params = {"text": {"w": jnp.zeros(2)}, "image": {"trunk": jnp.ones(2), "code": jnp.zeros(2)}}
    state, moved = tx.init(params), []
    for size in (1e-3, 10.0, 1e-3):
        gradients = {
            "text": {"w": jnp.full(2, size)},
            "image": {"trunk": jnp.ones(2), "code": jnp.full(2, size)},
        }
        updates, state = tx.update(gradients, state, params)
        moved.append(updates)
    # A fresh Adam takes a full step whatever the gradient's size; an old one remembers the 10.
    for part in (moved[0]["image"]["code"], moved[2]["image"]["code"], moved[2]["text"]["w"]):
        np.testing.assert_allclose(part, -2e-3, rtol=1e-3)
    assert not np.any(moved[1]["image"]["trunk"])
    # Unclipped, the text would move as the code does.
    assert not np.allclose(moved[1]["text"]["w"], moved[1]["image"]["code"], rtol=1e-3)
    clipped, _ = damsm.Optim().clip_text().update({"w": jnp.full(2, 10.0)}, optax.EmptyState())
    assert jnp.linalg.norm(clipped["w"]) == pytest.approx(0.25)


def test_epochs_are_counted_in_the_data_whatever_the_batch():
    config = settings.preset("configs/damsm.py", "cub")
    optim = damsm.Optim(**config.optim)
    for batch, steps in ((48, 184), (96, 92), (8855, 1), (100_000, 1)):
        config.batch_size = batch
        found = damsm.in_steps(optim, config, {"train": 8855})
        assert found.decay_every_steps == steps
    own = dataclasses.replace(optim, decay_every_steps=7)
    assert damsm.in_steps(own, config, {"train": 8855}) is own
    with pytest.raises(ConfigError, match=r"decay_every_epochs=1.0: this data source has no end"):
        damsm.in_steps(optim, config, {"train": None})


def test_classes_are_needed_only_where_they_mask():
    for preset, asks in (("cub", True), ("coco", False)):
        config = settings.preset("configs/damsm.py", preset)
        assert ("label" in damsm.build(config).needs) == asks
        assert "trunk_weights" in damsm.build(config).notes[0]


def test_bad_settings_are_refused():
    config = settings.preset("configs/damsm.py", "tiny")
    config.model.trunk = "vgg"
    with pytest.raises(ConfigError, match=r"config\.model\.trunk='vgg'"):
        damsm.build(config)
