"""The engine, on a toy game with lazy players, statistics, averages and a frozen encoder."""

import ast
import dataclasses
import functools
import gc
import io
import itertools
import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util.tensor_util import make_ndarray

from jaxt2i.config import ConfigError, fields
from jaxt2i.data import schema
from jaxt2i.engine import draw, loop, mesh
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.engine.method import Ema, Player
from jaxt2i.nn import optim
from jaxt2i.run import checkpoint, parts, placement, settings, training
from jaxt2i.run.open import load_method as load

SIZES = schema.Sizes(batch=16, height=16, width=16, tokens=6)


def config(lr=0.05, fails_at=-1, width=8):
    return ConfigDict(
        {
            "method": "tests.engine.toy",
            "optim": {"lr": lr},
            "model": {"fails_at": fails_at, "width": width},
            "data": {"resolution": 16},
        }
    )


def host_batch(number, batch=16):
    rng = np.random.default_rng(number)
    mask = np.arange(6)[None] < rng.integers(2, 7, (batch, 1))
    return {
        "image": rng.integers(0, 256, (batch, 16, 16, 3), np.uint8),
        "tokens": rng.integers(1, 600, (batch, 6), np.int32) * mask.astype(np.int32),
        "token_mask": mask,
    }


def play(method, shape, numbers, *, accumulate=1, min_mb=0.0, skip=False):
    layout = placement.layout(mesh.make(*shape), ((".", "fsdp"),), min_mb)
    rules = steps.Rules(3, 16, 100, accumulate, skip)
    spec = schema.spec(SIZES, method.needs)
    programs = training.compile_step(method, rules, layout, spec)
    shapes = states.shapes(method, spec)
    state, frozen = states.create(method, spec, 3, tuple(map(layout.shardings, shapes)))
    logs = []
    for number in numbers:
        batch = layout.put_batch(host_batch(number))
        state, metrics = programs.play[1](state, frozen, batch)
        if number % 4 == 0:
            state, lazy = programs.play[4](state, frozen, batch)
            metrics |= lazy
        logs.append(jax.device_get(metrics))
    return jax.device_get(state), jax.device_get(frozen), logs, programs


def one_device(*args, **kw):
    devices = jax.devices
    jax.devices = lambda *a: devices(*a)[:1]
    try:
        return play(*args, **kw)
    finally:
        jax.devices = devices


def close(a, b, tolerance):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=tolerance, rtol=tolerance), a, b
    )


def test_same_result_on_one_device_dp_and_fsdp():
    method = load(config())
    one, *_ = one_device(method, (1, 1, 1), range(6))
    dp, *_ = play(method, (8, 1, 1), range(6))
    fsdp, *_, programs = play(method, (2, 4, 1), range(6))
    close(one, dp, 2e-5)
    close(one, fsdp, 2e-5)
    assert "all-gather" in programs.play[1].as_text()


def test_data_parallel_needs_only_all_reduce():
    *_, programs = play(load(config()), (8, 1, 1), [])
    text = programs.play[1].as_text()
    found = set(re.findall(r"(all-reduce|all-gather|all-to-all|collective-permute)\(", text))
    assert found == {"all-reduce"}


def test_players_touch_only_their_networks_and_frozen_weights_stay():
    method = load(config())
    before, frozen, *_ = play(method, (8, 1, 1), [])
    for player in method.players[:2]:
        alone = dataclasses.replace(method, players=(player,))
        after, still, *_ = one_device(alone, (1, 1, 1), [1])
        close(frozen, still, 0)
        for net in method.trained:
            old, new = (jax.tree.leaves(x.params[net]) for x in (before, after))
            moved = any(np.any(a != b) for a, b in zip(old, new, strict=True))
            assert moved == (net in player.nets), (player.name, net)


def test_ema_follows_its_formula_with_ramp_up():
    method = load(config())
    averaged, beta = None, None
    for n in range(1, 4):
        now, *_ = one_device(method, (1, 1, 1), range(1, n + 1))
        if averaged is None:
            averaged = one_device(method, (1, 1, 1), [])[0].params["g"]
        beta = 0.5 ** (16 / max(min(64.0, 0.05 * (n - 1) * 16), 1e-8))
        averaged = jax.tree.map(
            lambda e, p, beta=beta: p + np.float32(beta) * (e - p), averaged, now.params["g"]
        )
        close(averaged, now.ema["g"], 1e-6)
    assert 0 < beta < 1e-2


@pytest.mark.parametrize("rampup", [None, 0.05])
def test_ema_half_life(rampup):
    rule = Ema(2048 * 10 / 32 * 1000, rampup)
    beta = float(rule.beta(jnp.float32(1e9), 2048))
    assert beta == pytest.approx(0.99778, abs=1e-5)


def test_accumulated_gradients_equal_the_whole_batch_and_do_not_depend_on_the_mesh():
    method = load(config())
    quiet = dataclasses.replace(method, players=(method.players[2],))  # r1 draws nothing at random
    whole, *_ = one_device(quiet, (1, 1, 1), [0])
    parts, *_ = one_device(quiet, (1, 1, 1), [0], accumulate=2)
    close(whole.params, parts.params, 1e-6)
    many, *_ = play(load(config()), (8, 1, 1), range(2), accumulate=2)
    one, *_ = one_device(load(config()), (1, 1, 1), range(2), accumulate=2)
    close(one, many, 2e-5)


def test_lazy_player_sees_the_step_that_was_just_played():
    _, _, logs, programs = one_device(load(config()), (1, 1, 1), range(5))
    assert set(programs.play) == {1, 4}
    assert ["r1/loss" in line for line in logs] == [True, False, False, False, True]


def test_nonfinite_steps_can_be_skipped_and_are_counted():
    before, *_ = one_device(load(config(fails_at=2)), (1, 1, 1), range(1, 3), skip=True)
    after, _, logs, _ = one_device(load(config(fails_at=2)), (1, 1, 1), range(1, 4), skip=True)
    assert logs[-1]["skipped"] == 1
    assert logs[0]["skipped"] == 0
    close(before.params, after.params, 0)
    close(before.ema, after.ema, 0)
    assert after.step == 3


def train(workdir, cfg=None, total=12, every=4, **kw):
    method = load(cfg or config())
    schedule = parts.Schedule(total, 1, every, 6, 3)
    rows = {k: v[:2] for k, v in host_batch(99).items() if k != "image"}
    requests = tuple(
        draw.Request({k: v[i] for k, v in rows.items()}, seed=i, about="ab"[i]) for i in range(2)
    )
    workdir.mkdir(parents=True, exist_ok=True)
    layout = placement.layout(mesh.make(*kw.get("shape", (8, 1, 1))), ((".", "fsdp"),), 0.0)
    return training.train(
        method,
        rules=steps.Rules(3, 16, total),
        schedule=schedule,
        layout=layout,
        inputs=parts.Inputs(
            batch=schema.spec(SIZES, method.needs),
            batches=lambda first: (layout.put_batch(host_batch(n)) for n in itertools.count(first)),
            grid=parts.Grid(requests, show),
            score_batch=lambda: layout.put_batch(host_batch(98)),
            settle_batches=lambda: (layout.put_batch(host_batch(n)) for n in range(200, 203)),
        ),
        workdir=workdir,
        config={"lr": 0.05},
    )


def show(step, drawn, records):
    pictures, captions = zip(*((out["image"], r.about) for r, out in drawn), strict=True)
    records.grid(step, np.stack(pictures), captions)


def equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def shown_by_tensorboard(folder: Path):
    """{(tag, step): value} of each event file, as TensorBoard reads it."""
    for path in folder.iterdir():
        events = list(EventFileLoader(str(path)).Load())
        assert events[0].file_version == "brain.Event:2"
        yield {(v.tag, e.step): make_ndarray(v.tensor) for e in events for v in e.summary.value}


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The work directory and the state of a run of so many steps; trained once, to be copied."""
    folder = tmp_path_factory.mktemp("ended")

    @functools.cache
    def run(steps):
        return folder / str(steps), jax.device_get(train(folder / str(steps), total=steps))

    return run


def copied(ended, steps, folder):
    return Path(shutil.copytree(ended(steps)[0], folder, dirs_exist_ok=True))


CHECKPOINTS = pytest.mark.xdist_group("checkpoints")


@CHECKPOINTS
def test_loop_leaves_its_records_and_resumes_bit_for_bit(ended, tmp_path):
    where, straight = ended(12)
    lines = [json.loads(x) for x in (where / "metrics.jsonl").read_text().splitlines()]
    losses = [x for x in lines if "d/loss" in x]
    assert {"step", "images", "images_per_second", "d/loss", "g/loss"} <= set(losses[0])
    assert [x["step"] for x in losses] == list(range(1, 13))
    assert [x["step"] for x in lines if "score/gap" in x] == [1, 6, 12]
    assert sorted(p.name for p in (where / "samples").iterdir()) == [
        "00000001.png",
        "00000006.png",
        "00000012.png",
    ]
    assert (where / "curves.png").stat().st_size > 1000
    (shown,) = shown_by_tensorboard(where / "tensorboard")
    assert shown["g/loss", 12] == pytest.approx(losses[-1]["g/loss"])
    width, height, *pictures = shown["samples", 12]
    assert (width, height, len(pictures)) == (b"16", b"16", 2)
    assert Image.open(io.BytesIO(pictures[1])).size == (16, 16)

    copied(ended, 8, tmp_path / "b")
    continued = jax.device_get(train(tmp_path / "b"))
    equal(straight, continued)
    again = [json.loads(x) for x in (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in again if "d/loss" in x] == list(range(1, 13))


@CHECKPOINTS
def test_resumes_on_another_mesh_with_equal_arrays(ended):
    where, saved = ended(4)
    layout = placement.layout(mesh.make(2, 4, 1), ((".", "fsdp"),), 0.0)
    shapes = states.shapes(load(config()), schema.spec(SIZES, ("image", "tokens", "token_mask")))[0]
    keeper = checkpoint.Checkpoints(where)
    restored, meta = keeper.restore(layout.abstract(shapes))
    keeper.close()
    equal(saved, jax.device_get(restored))
    assert meta["position"] == 4 * 16
    leaves = jax.tree.leaves(restored.params)
    assert any(x.sharding.spec != jax.sharding.PartitionSpec() for x in leaves)


@CHECKPOINTS
def test_what_settles_belongs_to_the_average_and_is_kept(ended):
    where, state = ended(4)
    method = load(config())
    layout = mesh.Layout(mesh.make(1, 1, 1, jax.devices()[:1]))
    spec = schema.spec(SIZES, method.needs)
    frozen = states.create_frozen(method, spec, 3, layout.shardings(states.shapes(method, spec)[1]))
    assert np.any(state.settled["g"]["stats"]["mean"] != state.extra["g"]["stats"]["mean"])
    again = draw.settler(method, 3)(state, frozen, (host_batch(n) for n in range(200, 203)))
    for a, b in zip(jax.tree.leaves(again.settled), jax.tree.leaves(state.settled), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    restored, _ = checkpoint.latest(where)
    equal(restored["settled"], state.settled)


def biggest_file(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path):
    data = bytearray(path.read_bytes())
    for k in range(len(data) // 2, len(data) // 2 + 8):
        data[k] ^= 255
    path.write_bytes(bytes(data))


DAMAGE = {
    "bits flipped": lambda step: flip(biggest_file(step / "state")),
    "truncated": lambda step: biggest_file(step / "state").write_bytes(b"OOPS"),
    "arrays lost": lambda step: shutil.rmtree(step / "state"),
    "meta emptied": lambda step: biggest_file(step / "meta").write_bytes(b""),
}


# The abandoned read of a damaged file is reported when it is collected; it is what we caused.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@CHECKPOINTS
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_newest_checkpoint_falls_back_to_the_one_before(ended, tmp_path, damage, capsys):
    copied(ended, 8, tmp_path)
    DAMAGE[damage](tmp_path / "checkpoints" / "8")
    again = jax.device_get(train(tmp_path, total=12))
    said = [x for x in capsys.readouterr().err.splitlines() if "checkpoint" in x]
    assert len(said) == 1, "a sentence, and no line of code"
    assert re.match(rf"checkpoint {tmp_path}/checkpoints/8 cannot be used .*one before it", said[0])
    assert again.step == 12
    equal(again, ended(12)[1])
    gc.collect()


@CHECKPOINTS
def test_half_written_checkpoint_is_ignored(ended, tmp_path):
    copied(ended, 8, tmp_path)
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "8", folder / "9.orbax-checkpoint-tmp-123")
    assert jax.device_get(train(tmp_path, total=12)).step == 12


def test_nonfinite_loss_names_the_player_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(loop.NonFinite, match=r"step 7, player 'd'.*first network.*'?d'?.*step 4"):
        train(tmp_path, config(fails_at=6))
    keeper = checkpoint.Checkpoints(tmp_path)
    assert keeper.steps() == [4]
    keeper.close()


@CHECKPOINTS
def test_checkpoint_of_other_networks_is_refused(ended, tmp_path):
    copied(ended, 4, tmp_path)
    with pytest.raises(checkpoint.Mismatch, match=r"params/d/.*is \[4, 4, 3, 8\] there"):
        train(tmp_path, config(width=9), total=8)


@CHECKPOINTS
def test_init_from_copies_what_fits_and_says_what_does_not(ended, tmp_path):
    earlier = ended(4)[1]
    source, where = checkpoint.latest(copied(ended, 4, tmp_path))
    method = load(config())
    spec = schema.spec(SIZES, method.needs)
    layout = placement.layout(mesh.make(8, 1, 1))
    shapes = states.shapes(method, spec)
    fresh, _ = states.create(method, spec, 9, tuple(map(layout.shardings, shapes)))
    source["params"]["d"]["Conv_0"]["kernel"] = np.zeros((1, 1, 3, 8), np.float32)
    del source["params"]["d"]["Dense_0"]
    state, report = checkpoint.transfer(method, fresh, source, where)
    equal(earlier.ema["g"], state.params["g"])
    equal(earlier.ema["g"], state.ema["g"])
    equal(earlier.extra["g"], state.extra["g"])
    equal(fresh.params["d"]["Dense_0"], state.params["d"]["Dense_0"])
    assert state.step == 0
    assert len(report.reshaped) == 1
    assert "params/d/Dense_0/kernel" in report.kept
    assert "other shape: params/d/Conv_0/kernel [1, 1, 3, 8] -> [4, 4, 3, 8]" in str(report)
    with pytest.raises(ConfigError, match="no checkpoint there"):
        checkpoint.latest(tmp_path / "nowhere")


def test_fingerprints_do_not_depend_on_the_mesh_and_notice_one_bit():
    x = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    here = mesh.make(2, 4, 1)
    split = jax.device_put(x, jax.sharding.NamedSharding(here, jax.sharding.PartitionSpec("fsdp")))
    same = [int(checkpoint.fingerprints(a)) for a in (x, split)]
    assert same[0] == same[1]
    x.view(np.uint32)[5, 7] ^= 1
    assert int(checkpoint.fingerprints(x)) != same[0]


@pytest.mark.parametrize("kind", [np.float32, jnp.bfloat16, np.int32, np.uint8, np.bool_])
def test_fingerprints_are_the_same_by_a_program_and_without(monkeypatch, kind):
    monkeypatch.setattr(checkpoint, "PIECE", 100)
    x = (100 * np.random.default_rng(1).normal(size=(17, 33))).astype(kind)
    for array in (x, x[0, 0], x[:0], x.T):
        there = int(checkpoint._sums(array))
        assert int(checkpoint.fingerprints(jnp.asarray(array))) == there
        assert int(checkpoint.fingerprints(array)) == there


def test_mesh_and_batch_errors_name_the_config_lines():
    with pytest.raises(ConfigError, match=r"config\.mesh.*8 devices"):
        mesh.make(3, 1, 1)
    with pytest.raises(ConfigError, match=r"config\.batch_size=12.*multiple of 8"):
        placement.check_batch(12, 1, mesh.make())
    with pytest.raises(ConfigError, match=r"config\.accumulate=3"):
        steps.Rules(0, 16, 1, 3)
    with pytest.raises(ConfigError, match="known: replicate, fsdp, tensor"):
        placement.layout(mesh.make(), ((".", "zero3"),)).shardings({"x": jnp.zeros(4)})


def test_rules_apply_in_order_and_small_arrays_stay_whole():
    on = mesh.make(1, 4, 2)
    tree = {
        "g": {"kernel": jnp.zeros((3, 3, 64, 512)), "bias": jnp.zeros(512)},
        "d": jnp.zeros((8, 4)),
    }
    rules = (("g/kernel", "fsdp"), ("^g", "tensor"))
    split = placement.layout(on, rules, 1).shardings(tree)
    spec = jax.sharding.PartitionSpec
    assert split["g"]["kernel"].spec == spec(None, None, None, "fsdp")
    assert split["g"]["bias"].spec == spec("tensor")
    assert split["d"].spec == spec()
    assert placement.layout(on, rules, 9).shardings(tree)["g"]["kernel"].spec == spec()


def test_durations():
    section = {"total_steps": 0, "total_images": 1000, "total_epochs": 3, "fade_percent": 10}
    assert settings.steps(section, "total", batch_size=16) == 62
    assert settings.steps({"total_epochs": 3}, "total", batch_size=10, epoch_images=100) == 30
    assert settings.steps(section, "fade", batch_size=16, total_steps=200) == 20
    with pytest.raises(ConfigError, match=r"config\.total_epochs=3"):
        settings.steps({"total_epochs": 3}, "total", batch_size=16)
    with pytest.raises(ConfigError, match="no length"):
        parts.Schedule(0)


def test_only_trains_what_it_is_told_to():
    tx = optim.only(optim.Adam(lr=0.1).tx(), lambda path: path.startswith("g/b"))
    params = {"g": {"a": jnp.ones(2), "b": jnp.ones(2)}}
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    assert jnp.all(updates["g"]["a"] == 0)
    assert jnp.all(updates["g"]["b"] != 0)


def test_nonfinite_gradients_can_be_zeroed():
    tx = optim.replace_nonfinite()
    out, _ = tx.update({"x": jnp.array([jnp.nan, jnp.inf, -jnp.inf, 1.0])}, tx.init({}), {})
    np.testing.assert_array_equal(out["x"], [0, 1e5, -1e5, 1])


def test_unknown_settings_are_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"config\.optim\.lrr.*did you mean config\.optim\.lr\?"):
        fields(optim.Adam, {"lrr": 1}, "config.optim")
    with pytest.raises(ConfigError, match="no module"):
        load(ConfigDict({"method": "jaxt2i.systems.style_gan"}))
    method = load(config())
    wrong = (Player("p", ("text",), None, optim.Adam().tx()),)
    with pytest.raises(ConfigError, match="updates 'text', which is frozen"):
        dataclasses.replace(method, players=wrong)


def test_the_engine_is_read_in_one_sitting():
    """800 lines of code at most, docstrings and blank lines not counted."""
    count = 0
    for path in Path(draw.__file__).parent.glob("*.py"):
        text = path.read_text()
        told = set()
        for node in ast.walk(ast.parse(text)):
            kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
            if isinstance(node, kinds) and ast.get_docstring(node):
                told |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
        lines = enumerate(text.splitlines(), 1)
        count += sum(bool(line.strip()) and number not in told for number, line in lines)
    assert count <= 800
