"""Full configurations on TPUs: they fit and send what they must; see benchmarks/plan.py."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from jaxt2i.run import chips, settings

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
spec = importlib.util.spec_from_file_location("acceptance_cases", BENCHMARKS / "plan.py")
cases = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cases)
KEPT = {name: BENCHMARKS / "results" / f"plan_{name}.json" for name in cases.CASES}
KEPT = {name: path for name, path in KEPT.items() if path.exists()}


@pytest.mark.parametrize("name", KEPT)
def test_kept_plans_show_what_they_should(name):
    (line,) = json.loads(KEPT[name].read_text())["lines"]
    assert line["case"] == name
    case = cases.CASES[name]
    assert (line["topology"], line["mesh"]["fsdp"]) == (case.topology, case.fsdp)
    checks = cases.checks(line, case)
    assert checks["as expected"], checks


@pytest.mark.parametrize("name", cases.DEAREST)
def test_the_dearest_operations_of_whole_batches_are_parts_of_their_step(name):
    case = cases.DEAREST[name]
    batch = settings.preset(*cases.SYSTEMS[case.system][:2]).batch_size
    assert (case.batch or batch) % chips.target(case.topology).count == 0
    kept = BENCHMARKS / "results" / f"dearest_{name}.json"
    for line in json.loads(kept.read_text())["lines"] if kept.exists() else ():
        assert line["case"] == name
        for program in line["programs"]:
            shares = [x["cycles"] / program["cycles"] for x in program["dearest"]]
            assert shares == [pytest.approx(x["share"]) for x in program["dearest"]]
            assert shares == sorted(shares, reverse=True)
            assert len(shares) == 10
            assert sum(shares) < 1


def test_messages_that_nothing_asks_for_are_named():
    def message(kind, where):
        return {"kind": kind, "where": where, "bytes": 400, "count": 1, "dtype": "f32"}

    found = {"memory": {"fits": True}, "parameters": {"g": 100}}
    found["programs"] = [{"collectives": [message("all-reduce", "gradient")]}]
    case = cases.Case("galip_coco", "v5e:4x4")
    assert cases.checks(found, case)["as expected"]
    found["programs"].append({"collectives": [message("all-to-all", "jvp(D)/concatenate")]})
    checks = cases.checks(found, case)
    assert checks["not asked for"] == ["all-to-all jvp(D)/concatenate"]
    assert not checks["as expected"]
    assert checks["gradient bytes over parameters'"] == 1
    assert checks["gradients travel as"] == ["f32"]


@pytest.mark.aot
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
@pytest.mark.parametrize("name", cases.CASES)
def test_the_compiler_agrees(name):
    checks = cases.measure(cases.CASES[name], sample=False)["checks"]
    assert checks["as expected"], checks
