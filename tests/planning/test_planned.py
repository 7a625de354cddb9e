"""Plans of a toy game, compiled for real: for TPUs where libtpu is installed, for GPUs anywhere."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from jaxt2i import plan as command
from jaxt2i.config import ConfigError
from jaxt2i.planning import compiled, report, search
from jaxt2i.run import chips, hlo, settings

ROOT = Path(__file__).parents[2]
TOY = str(ROOT / "tests" / "engine" / "toy_config.py")
pytestmark = pytest.mark.xdist_group("planned")
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
)


@pytest.fixture(scope="module", autouse=True)
def _release():
    yield
    jax.clear_caches()


def toy(batch=16, **mesh):
    return compiled.prepared(settings.preset(TOY, ""), batch, mesh)


def planned(topology, config, until="code"):
    plan = compiled.open_plan(config, chips.target(topology))
    return plan, compiled.training(plan, until)


@needs_libtpu
def test_data_parallel_on_a_tpu_sends_sums_alone_and_knows_its_bytes():
    plan, programs = planned("v5e:2x2", toy())
    assert [(p.name, p.every) for p in programs] == [("train", 1), ("train/4", 4)]
    assert {c.kind for p in programs for c in p.collectives} == {"all-reduce"}
    assert {(c.axes, c.group, c.whole) for c in programs[0].collectives} == {("data", 4, True)}
    # Gradients of G and D are summed once each; a few losses and means come on top.
    trained = sum(x.size for x in jax.tree.leaves(plan.state.params)) * 4
    sent = sum(c.bytes for c in programs[0].collectives if c.dtype == "f32")
    assert trained <= sent <= 1.01 * trained
    held = plan.held()
    assert held["parameters"] == trained
    assert held["batch"] == 4 * (16 * 16 * 3 + 32 * 4 + 32)
    assert programs[0].flops > 0 < programs[0].traffic
    assert programs[0].cycles > 0
    shares = [x.share for x in programs[0].dearest]
    assert len(shares) == 10
    assert shares == sorted(shares, reverse=True)
    assert 0.1 < sum(shares) < 1
    assert any(x.where.startswith("jit(train)/jvp(D)/Conv_0") for x in programs[0].dearest)
    assert programs[0].arguments >= held["parameters"] + held["frozen"]
    # Stopped before its code is generated, the program is the same.
    early = compiled.sketch("train", 1, plan)
    for field in ("arguments", "traffic", "collectives"):
        assert getattr(early, field) == getattr(programs[0], field)
    assert early.peak == pytest.approx(programs[0].peak - programs[0].code, abs=64 * 2**10)
    assert early.flops == pytest.approx(programs[0].flops, rel=0.3)  # products alone
    assert (early.code, early.cycles, early.dearest, early.shortfall) == (None, 0, (), "")
    said = report.report(plan, [early], None)
    assert said["memory"]["verdict"].endswith("to spare for the program's code")
    assert said["programs"][0]["code"] is None
    assert "\n  program  " not in report.text(said)


@pytest.mark.aot
@needs_libtpu
def test_fsdp_on_a_tpu_gathers_and_saves_memory():
    whole = compiled.open_plan(toy(), chips.target("v6e:2x2"))
    plan, programs = planned("v6e:2x2", toy(data=1, fsdp=4), "buffers")
    assert "all-gather" in {c.kind for c in programs[0].collectives}
    assert {c.axes for c in programs[0].collectives} == {"fsdp"}
    assert plan.held()["parameters"] < 0.3 * whole.held()["parameters"]


@needs_libtpu
def test_what_does_not_fit_is_said_in_the_compilers_words():
    plan = compiled.open_plan(toy(), chips.target("v5e:2x2"))
    device = SingleDeviceSharding(plan.layout.mesh.devices.flat[0])
    big = jax.ShapeDtypeStruct((2**33, 16), jnp.float32, sharding=device)
    found = compiled.count("train", 1, jax.jit(lambda x: jnp.sort(x) * 2).lower(big), plan)
    assert "Ran out of memory" in found.shortfall
    assert found.peak > plan.target.chip.hbm
    said = report.report(plan, [found], None)
    assert not said["memory"]["fits"]
    assert said["memory"]["advice"]
    assert "step" not in said
    assert "does not fit" in report.text(said)


def test_a_state_that_cannot_fit_is_not_compiled():
    small = dataclasses.replace(chips.CHIPS["h100"], hbm=10_000.0)
    plan = dataclasses.replace(
        compiled.open_plan(toy(), chips.target("h100:8")), target=chips.Target(small, (8,))
    )
    (program,) = compiled.training(plan)
    assert program.shortfall.startswith("not compiled: 0.00 GiB stay on a chip between steps")
    found = report.report(plan, [program], None)["memory"]
    assert not found["fits"]
    assert found["peak"] == sum(plan.held().values()) == sum(found["held"].values())
    assert "h100:8: 0.00 GiB of 0.00 stay on a chip" in report.opening(plan)


@needs_libtpu
def test_a_topology_that_the_compiler_does_not_know():
    with pytest.raises(ConfigError, match="--topology v5e:3x5: the TPU compiler says"):
        compiled.devices(chips.target("v5e:3x5"))


def test_without_libtpu_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install libtpu"):
        compiled.devices(chips.target("v5e:2x2"))


def test_text_that_jaxlib_cannot_read_back_comes_from_the_compilers_file(tmp_path):
    class Unreadable:
        def as_text(self):
            raise jax.errors.JaxRuntimeError("RET_CHECK failure")

    with pytest.raises(jax.errors.JaxRuntimeError):
        compiled.text(Unreadable(), tmp_path)
    (tmp_path / "module_0000.jit_program.cl_1.after_optimizations.txt").write_text("HloModule a")
    (tmp_path / "module_0000.jit_program.cl_1.before_optimizations.txt").write_text("HloModule b")
    assert compiled.text(Unreadable(), tmp_path) == "HloModule a"


def test_gpus_are_planned_for_without_one():
    plan, programs = planned("h100:8", toy(data=2, fsdp=4))
    axes = {c.axes for c in programs[0].collectives}
    assert {"data", "fsdp"} <= axes <= {"data", "fsdp", "data+fsdp"}
    drawn = compiled.sampling(plan)
    assert drawn.flops > 0
    found = report.report(plan, programs, drawn)
    assert found["cost"]["what"] == "the configured run"
    assert found["cost"]["steps"] == 20
    assert [p["count"] for p in found["scaling"]] == [8, 16, 32, 64, 128, 256, 512, 1024]
    assert found["scaling"][0]["apart"] == pytest.approx(1)
    with pytest.raises(ConfigError, match="on as many simulated devices"):
        compiled.devices(chips.target("h100:16"))


def test_the_dearest_operations_are_shown_where_the_compiler_estimates_any():
    plan, (first, *rest) = planned("h100:8", toy())
    without = report.report(plan, [first, *rest], None)
    assert not without["programs"][0]["dearest"]
    assert "dearest" not in report.text(without)
    where = "jit(train)/jvp(G)/while/body/block/conv/jit(take)/add"
    dear = hlo.Operation(where, "loop fusion", "f32[8,4], f32[8]", 3, 1.2e6, 0.125)
    known = [dataclasses.replace(first, cycles=9.6e6, dearest=(dear,)), *rest]
    found = report.report(plan, known, None)
    assert found["programs"][0]["dearest"] == (dataclasses.asdict(dear),)
    line = next(x for x in report.text(found).splitlines() if "loop fusion" in x)
    assert line.split(maxsplit=4)[:4] == ["train", "1,200,000", "12.5%", "3"]
    assert line.endswith("  loop fusion, f32[8,4] and 1 more, jvp(G)/block/conv/add")


def test_a_prepared_configuration_needs_no_weights_and_no_accelerator():
    config = settings.preset(str(ROOT / "configs" / "stylegan_t.py"), "full64")
    config.sharding = ()
    ready = compiled.prepared(config, 128, {"fsdp": 4})
    assert (ready.precision, ready.model.weights, ready.batch_size) == ("bfloat16", "random", 128)
    assert (ready.mesh.data, ready.mesh.fsdp, ready.sharding) == (-1, 4, ((".", "fsdp"),))
    assert config.batch_size == 2048
    with pytest.raises(ConfigError, match=r"config\.batch_size=20 cannot be split over 8"):
        compiled.open_plan(toy(batch=20), chips.target("h100:8"))


def test_search_ranks_what_it_compiled():
    trials = list(search.search(toy(), chips.target("h100:4"), most=2))
    assert [(t.setting.fsdp, t.setting.accumulate) for t in trials] == [(1, 1), (1, 2)]
    best = search.ranked(trials)
    assert best[0].rate >= best[1].rate > 0
    table = report.search_text(best).splitlines()
    assert len(table) == 3
    assert "--config.mesh.fsdp=1 --config.accumulate=" in table[1]
    assert report.search_data(best)[0]["fits"]


def test_mesh_on_the_command_line():
    assert command.mesh_sizes("data=-1,fsdp=4") == {"data": -1, "fsdp": 4}
    assert command.mesh_sizes("") == {}
    with pytest.raises(ValueError, match="'model=4' is not AXIS=SIZE"):
        command.mesh_sizes("data=2,model=4")


def test_the_command_writes_what_it_found(tmp_path):
    data, picture = tmp_path / "plan.json", tmp_path / "plan.png"
    run = subprocess.run(
        [
            *(sys.executable, "-m", "jaxt2i.plan", f"--config={TOY}", "--topology=h100:16"),
            *("--batch=32", f"--json={data}", f"--plot={picture}", "--nosample"),
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    found = json.loads(data.read_text())
    assert (found["chips"], found["hosts"], found["batch_size"]) == (16, 2, 32)
    assert found["memory"]["verdict"] in run.stdout
    assert picture.stat().st_size > 5000
