"""config.accumulate="auto": the fewest micro-batches that fit, said, and kept by a run."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from jaxt2i import plan as command
from jaxt2i import train
from jaxt2i.config import ConfigError, micro_batches
from jaxt2i.planning import alive, compiled, dry_run, fit, report
from jaxt2i.planning.fit import GIB, Need
from jaxt2i.run import chips, files, settings, training
from jaxt2i.run import open as runs
from jaxt2i.run.parts import Programs

ROOT = Path(__file__).parents[2]
TOY = str(ROOT / "tests" / "engine" / "toy_config.py")


def toy(accumulate="auto", batch_size=1024):
    config = settings.preset(TOY, "")
    config.accumulate, config.batch_size = accumulate, batch_size
    return config


def test_what_lives_at_once_is_counted():
    """Arrays of 4,000 bytes: at the product both sines live, and the sum that follows them not."""

    def program(x):
        a, b = jnp.sin(x), jnp.cos(x)
        c = jax.jit(jnp.multiply)(a, b)
        return (c + 1).sum()

    x = jnp.zeros(1000)
    assert alive.peak(jax.make_jaxpr(program)(x).jaxpr) == 3 * 4000

    def looped(x):
        return jax.lax.scan(lambda c, _: (jnp.sin(c) * jnp.cos(c), c.sum()), x, None, 5)[0]

    # The carry that comes out, the sums of the turns, and a turn's two factors with their product.
    assert alive.peak(jax.make_jaxpr(looped)(x).jaxpr) == 4000 + 5 * 4 + 3 * 4000
    # A result that takes the place of what came in costs nothing.
    update = jax.make_jaxpr(lambda x: x - jnp.sin(x))(x).jaxpr
    assert alive.peak(update) - alive.peak(update, donated=True) == 4000


def test_gradients_are_summed_in_parts_alone():
    needs = Need(held=100.0, fixed=10.0, rows=80.0, gradients=5.0)
    assert [needs.of(n) for n in (1, 2, 8)] == [190.0, 155.0, 125.0]


def test_the_fewest_parts_that_fit_are_chosen_said_and_kept(tmp_path):
    config = toy()
    needs = fit.need(compiled.laid_out(fit.with_parts(config, 1), None, jax.devices()))
    assert needs.rows > needs.gradients > 0
    # Twice the pictures, twice their activations; a run of 16 pictures a device.
    wide = fit.need(compiled.laid_out(toy(1, 2048), None, jax.devices()))
    assert wide.rows == pytest.approx(2 * needs.rows, rel=0.05)
    for parts in (1, 2, 4, 16):
        found, lines = fit.settled(config, tmp_path, needs.of(parts) * 1.001)
        assert found.accumulate == micro_batches(found) == parts
        assert found.batch_size == 1024
        assert f"{parts} micro-batches of {1024 // parts}" in lines[0] or parts == 1
        assert bool(lines[1:]) == (parts > 1)
    assert "GiB a device" in lines[0]
    settings.write_config(tmp_path, found, "")
    # Continued on larger devices: the recipe is the run's; another run begins anew.
    again, lines = fit.settled(config, tmp_path, 100 * GIB)
    assert again.accumulate == 16
    assert "with which this run began" in lines[0]
    assert settings.differences(settings.plain(found), settings.plain(again)) == []
    assert fit.settled(config, tmp_path / "other", 100 * GIB)[0].accumulate == 1
    with pytest.raises(ConfigError, match=r"no number of micro-batches fits.*mesh\.fsdp"):
        fit.settled(config, None, needs.held)
    assert fit.settled(toy(4), tmp_path)[0].accumulate == 4
    # Where nothing is said of the devices, the host's memory counts.
    assert "fits in one piece" in dry_run.dry_run(config, config, tmp_path / "other")


def test_a_plan_counts_parts_by_what_the_compiler_said(monkeypatch, capsys):
    target = chips.target("v5e:2x2")
    method = SimpleNamespace(mixes=("negatives",))

    def opened(config, _):
        held = dict.fromkeys(("parameters", "optimiser", "averages", "frozen", "batch"), 0)
        axes = {"data": 4, "fsdp": 1}
        return SimpleNamespace(config=config, held=lambda: held, axes=axes, method=method)

    def compiled_(plan, _):
        size = int(60 * GIB / plan.config.accumulate)
        return [compiled.Program("train", 1, 1.0, temporary=size, peak=size)]

    monkeypatch.setattr(command, "UNTIL", SimpleNamespace(value="buffers"))
    monkeypatch.setattr(compiled, "open_plan", opened)
    monkeypatch.setattr(compiled, "training", compiled_)
    monkeypatch.setattr(report, "opening", lambda plan: "")
    plan, programs = command.fitting(toy(), fit.with_parts(toy(), 1), target)
    assert (plan.config.accumulate, programs[0].peak) == (4, 15 * GIB)
    said = capsys.readouterr().out
    assert "does not fit: 60.00 of 15.75 GiB" in said
    assert "now 4 micro-batches\nwhat micro-batches change: negatives" in said
    # A number is taken as it is given.
    assert command.fitting(toy(2), toy(2), target)[1][0].peak == 30 * GIB


def test_the_command_line_takes_a_number_or_auto(monkeypatch):
    def given(value):
        found = settings.configuration(TOY, [f"--config.accumulate={value}"])
        assert found.batch_size == settings.preset(TOY, "").batch_size
        return found.accumulate

    # Whoever calls this has been started with words of its own, which are not for us.
    words = ["a program", "--config.batch_size=3", "--config=x", "--config.accumulate=7"]
    monkeypatch.setattr("sys.argv", words)

    assert given("auto") == "auto"
    assert given("4") == 4
    assert settings.plain(settings.preset(TOY, ""))["accumulate"] == 1
    for wrong in ("many", "0", "2.5"):
        with pytest.raises(ConfigError, match=r"config\.accumulate=.*'auto'"):
            micro_batches({"accumulate": given(wrong)})


@pytest.mark.parametrize(
    ("system", "words"),
    [
        ("stylegan_t", ["nothing: no loss of this system looks across examples"]),
        ("clip", ["negatives"]),
        ("damsm", ["negatives"]),
        ("souza", ["statistics"]),
        ("galip", ["wrong captions"]),
        ("df_gan", ["wrong captions"]),
        ("dm_gan", ["statistics", "negatives", "wrong pairs"]),
        ("attngan", ["statistics", "negatives", "wrong pairs"]),
    ],
)
def test_each_system_says_what_micro_batches_change(system, words):
    method = runs.load_method(settings.preset(f"configs/{system}.py", "tiny"))
    (line,) = fit.changes(method, 2)
    assert all(word in line for word in words), line
    assert fit.changes(method, 1) == []


def test_published_presets_of_large_batches_choose_for_themselves():
    for file, preset in (("stylegan_t", "lite64"), ("galip", "coco"), ("clip", "vit_b32")):
        config = settings.preset(f"configs/{file}.py", preset)
        assert config.accumulate == "auto"
        assert config.batch_size >= 512
        assert settings.preset(f"configs/{file}.py", "tiny").accumulate == 1


EXHAUSTED = "RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nHere is its history"


def test_where_the_estimate_was_wrong_more_parts_are_tried_said_and_kept(
    tmp_path, monkeypatch, capsys
):
    """The whole step does not compile, its halves find no memory, its quarters do."""
    compiling, tried = training.compiled, itertools.count(1)

    def short(*_):
        raise jax.errors.JaxRuntimeError(EXHAUSTED)

    def scarce(*args):
        attempt = next(tried)
        if attempt == 1:
            short()
        return Programs({1: short}, 0.0, 0.1) if attempt == 2 else compiling(*args)

    monkeypatch.setattr(training, "compiled", scarce)
    monkeypatch.setattr(fit, "room", lambda device: 100 * GIB)
    config = toy(batch_size=4 * len(jax.devices()))
    config.total_steps, config.checkpoint_every_steps = 1, 0
    train.begin(config, tmp_path, "a test")
    said = [line for line in capsys.readouterr().out.splitlines() if "accumulate='auto'" in line]
    assert len(said) == 3
    assert "fits in one piece" in said[0]
    what = "RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."
    assert said[1].endswith(f"in 1 parts ran out of memory ({what}); now 2 micro-batches of 16")
    assert said[2].endswith(f"in 2 parts ran out of memory ({what}); now 4 micro-batches of 8")
    (line,) = files.json_lines(tmp_path / "metrics.jsonl")
    assert (line["step"], line["micro_batches"]) == (1, 4)
    again, lines = fit.settled(config, tmp_path)
    assert again.accumulate == 4
    assert "with which this run began" in lines[0]
    with pytest.raises(ConfigError, match=r"no larger number divides the 4 pictures of a device"):
        fit.more(again, what, tmp_path)
    # Several processes cannot begin again by themselves, but what starts them anew can.
    halves = fit.with_parts(config, 2)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"start all processes again: .* takes 4 micro-batches"):
        fit.more(halves, what, tmp_path)
    assert fit.kept(tmp_path) == 4


def test_only_the_first_step_is_taken_for_too_large():
    for fits, raised in ((False, training.TooLarge), (True, jax.errors.JaxRuntimeError)):
        with pytest.raises(raised, match="RESOURCE_EXHAUSTED"), training.too_large(lambda: fits):  # noqa: B023
            raise jax.errors.JaxRuntimeError(EXHAUSTED)
    with pytest.raises(RuntimeError, match="another"), training.too_large():
        raise RuntimeError("another")


def test_memory_that_runs_out_is_told_in_a_sentence():
    error = RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes\nmore")
    said = fit.exhausted(error, toy(4))
    assert "--config.accumulate=8" in said
    assert "more\n" not in said
    assert fit.exhausted(RuntimeError("another"), toy(4)) == ""
    assert fit.exhausted(RuntimeError("RESOURCE_EXHAUSTED: No space left on device"), toy()) == ""
