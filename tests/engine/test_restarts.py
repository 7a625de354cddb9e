"""A run goes on where other devices are: one or many, divided otherwise, other processes."""

import functools
import json
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from jaxt2i.data import schema
from jaxt2i.engine import mesh
from jaxt2i.engine import state as states
from jaxt2i.run import checkpoint, placement, train
from jaxt2i.run.open import load_method as load
from tests.data import flat
from tests.engine import toy_config
from tests.quick import one_device
from tests.run.test_processes import arrays, assert_same, group

PLACES = {"one device": (1, 1, 1), "data": (8, 1, 1), "fsdp": (1, 8, 1), "both": (2, 4, 1)}


@functools.cache
def shapes():
    method = load(toy_config.get_config())
    spec = schema.spec(schema.Sizes(batch=16, height=16, width=16, tokens=6), method.needs)
    return method, spec, states.shapes(method, spec)


def layout(place):
    sizes = PLACES[place]
    on = mesh.make(*sizes, devices=jax.devices()[: np.prod(sizes)])
    return placement.layout(on, ((".", "fsdp"),), 0.0)


def divided(state):
    return any(not x.sharding.is_fully_replicated for x in jax.tree.leaves(state.params))


@pytest.mark.parametrize("saved_on", PLACES)
def test_what_one_mesh_saved_every_other_restores_bit_for_bit(tmp_path, saved_on):
    method, spec, (like, frozen) = shapes()
    here = layout(saved_on)
    state, _ = states.create(method, spec, 3, (here.shardings(like), here.shardings(frozen)))
    keeper = checkpoint.Checkpoints(tmp_path)
    keeper.save(state, {"config": {}}, 7)
    keeper.wait()
    for place in PLACES:
        restored, meta = keeper.restore(layout(place).abstract(like))
        assert meta["step"] == 7
        assert divided(restored) == (place in ("fsdp", "both"))
        for before, now in zip(jax.tree.leaves(state), jax.tree.leaves(restored), strict=True):
            np.testing.assert_array_equal(np.asarray(before), np.asarray(now))
    keeper.close()


def config(steps, every, pictures):
    c = toy_config.get_config()
    c.data.source, c.data.path = "folder", str(pictures)
    c.total_steps, c.checkpoint_every_steps = steps, every
    return c


def losses(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {x["step"]: (x["d/loss"], x["g/loss"]) for x in map(json.loads, lines)}


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_a_run_moves_from_one_device_to_two_processes_loses_one_and_ends_in_one(tmp_path, capsys):
    moved, pictures = tmp_path / "moved", tmp_path / "pictures"
    data = flat.make_folder(pictures)
    with one_device():
        train.train(config(4, 4, pictures), moved, "in one process")

    more = ("--config.total_steps=100000", "--config.checkpoint_every_steps=8")
    both = group(moved, 2, *data, *more, "--config.mesh.fsdp=8", "--config.keep_period_steps=8")
    deadline = time.monotonic() + 600
    while not (moved / "checkpoints" / "8").exists():
        assert all(p.poll() is None for p in both), both[0].communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    both[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    said, _ = both[0].communicate(timeout=120)
    assert time.monotonic() - killed < 60
    # On a busy machine JAX's own abort may be faster than ours; it ends the run just as well.
    assert both[0].returncode in (1, -signal.SIGABRT)
    if both[0].returncode == 1:
        assert f"pid {both[1].pid}): killed, or its machine" in said
        assert "process 1 (" in said
        assert "the same command resumes from the newest checkpoint" in said
    both[1].communicate()
    assert "config.mesh.fsdp: 1 -> 8" in said
    assert f"resuming from {moved}/checkpoints/4" in said

    # What was saved after step 8 is taken away, so that the steps behind it are played again.
    for folder in (moved / "checkpoints").iterdir():
        if folder.name != "8":
            shutil.rmtree(folder)
    capsys.readouterr()
    train.train(config(12, 4, pictures), moved, "in one process again")
    said = capsys.readouterr().out
    assert "config.mesh.fsdp: 8 -> 1" in said
    assert f"resuming from {moved}/checkpoints/8" in said

    straight = tmp_path / "straight"
    train.train(config(12, 0, pictures), straight, "in one process")
    # The same program as before.
    assert "(from the cache)" in capsys.readouterr().out
    assert_same(arrays(straight, 12), arrays(moved, 12), rtol=1e-5, atol=1e-6)
    # The same batches in the same order, whoever played them.
    assert list(losses(moved)) == list(range(1, 13))
    for step, values in losses(straight).items():
        np.testing.assert_allclose(losses(moved)[step], values, rtol=1e-4, atol=1e-5)


@pytest.fixture(autouse=True)
def keep_every_program():
    """In the cache, however quickly it was compiled."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = jax.config.values[name]
    jax.config.update(name, 0.0)
    yield
    jax.config.update(name, before)
