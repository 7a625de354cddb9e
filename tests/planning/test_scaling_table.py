"""The table of benchmarks/scaling.py: efficiencies, predictions, what weak scaling keeps."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
spec = importlib.util.spec_from_file_location("scaling_table", BENCHMARKS / "scaling.py")
scaling = importlib.util.module_from_spec(spec)
spec.loader.exec_module(scaling)


def test_efficiency_is_taken_curve_by_curve():
    rows = [
        ("weak", 2, 1, 90.0),
        ("weak", 1, 1, 50.0),
        ("strong", 2, 1, 70.0),
        ("weak", 2, 2, 30.0),
    ]
    keys = ("mode", "devices", "processes", "images_per_s")
    lines = [dict(zip(keys, row, strict=True)) for row in rows]
    for line in lines[:3]:
        line["ms"] = 1.0
    scaling.efficiency(lines)
    assert [x["efficiency"] for x in lines] == [0.9, 1, 1, 1]


def test_predictions_continue_a_kept_plan():
    kept = json.loads((BENCHMARKS / "results" / "plan_galip_coco_v5e_4x4.json").read_text())
    (plan,) = kept["lines"]
    lines = scaling.predicted(plan, "galip")
    assert [x["chips"] for x in lines] == [2**n for n in range(3, 11)]
    here = next(x for x in lines if x["chips"] == plan["chips"])
    assert here["batch"] == plan["batch_size"]
    assert here["images_per_s"] == pytest.approx(plan["step"]["images_per_s_apart"], rel=1e-4)


def test_the_kept_table_shows_weak_scaling_on_simulated_devices():
    kept = json.loads((BENCHMARKS / "results" / "scaling_tiny_cpu.json").read_text())
    lines = kept["lines"]
    assert all(x["simulated"] for x in lines if x["what"] == "measured")
    ratios = scaling.constant(lines)
    assert ratios["devices"] == [1, 2, 4, 8]
    assert ratios["flops"] == pytest.approx([1] * 4, rel=0.01)
    assert ratios["arguments"] == pytest.approx([1] * 4)
    # Partitioned programs are the same program, whatever their number of devices.
    assert len(set(ratios["temporary"][1:])) == len(set(ratios["sent over parameters"][1:])) == 1


def test_runs_are_named_with_their_devices(tmp_path):
    assert scaling.pairs(["16=runs/a"]) == [(16, Path("runs/a"))]
    with pytest.raises(SystemExit, match="expected DEVICES=WORKDIR"):
        scaling.pairs(["runs/a"])
