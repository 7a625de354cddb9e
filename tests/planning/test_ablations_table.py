"""The table of benchmarks/ablations.py: what a run cost, what intervals say, what is noted."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
spec = importlib.util.spec_from_file_location("ablations", BENCHMARKS / "ablations.py")
ablations = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ablations)


def run(folder, images=160, value=50.0, interval=(45.0, 55.0)):
    """A work directory of ten steps, with an evaluation."""
    (folder / "evaluation").mkdir(parents=True)
    logged = {"images_per_second": 8.0, "compile_seconds": 3.0}
    lines = [
        {"step": 1, "images": images // 10, **logged},
        {"step": 1, "images": images // 10, "score/frechet": 2.0},
        {"step": 10, "images": images, "images_per_second": 16.0},
        {"step": 10, "images": images, "score/frechet": 0.5, "score/r_precision": 0.2},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    (folder / "scores.json").write_text('{"frechet": "lower", "r_precision": "higher"}')
    between = dict(zip(("low", "high"), interval, strict=True))
    score = {"metric": "soa_c", "value": value, "interval": between, "facts": {"generated": 9}}
    rows = {"fish": {"found": value, "real pictures": 90.0}, "cat": {"found": 20.0}}
    found = {"step": 10, "scores": [score], "breakdowns": {"by class": rows, "other": {"x": {}}}}
    (folder / "evaluation" / "step_00000010.json").write_text(json.dumps(found))
    return folder


def test_runs_stand_beside_the_first(tmp_path, monkeypatch, capsys):
    run(tmp_path / "a")
    run(tmp_path / "b", images=320, value=70.0, interval=(60.0, 80.0))
    monkeypatch.setattr(ablations, "RESULTS", tmp_path)
    monkeypatch.setattr(ablations, "report", lambda lines, file: kept.extend(lines))
    argv = ["ablations", "--system", "toy", "--runs", f"all={tmp_path}/a", f"none={tmp_path}/b"]
    monkeypatch.setattr(sys, "argv", argv)
    kept = []
    ablations.main()
    first, other = (line for line in kept if line["what"] == "run")
    assert (first["step"], first["images"], first["compile_seconds"]) == (10, 160, 3.0)
    assert first["seconds"] == 16 / 8 + 144 / 16
    assert first["scores"]["own/frechet"]["value"] == 0.5
    assert first["scores"]["own/frechet"]["better"] == "lower"
    assert other["against_first"] == {
        "own/frechet": "no interval",
        "own/r_precision": "no interval",
        "soa_c": "better",
    }
    notes = [line["text"] for line in kept if line["what"] == "note"]
    assert "none saw 320 pictures, all 160: not the same budget" in notes
    assert (tmp_path / "ablations_toy.png").stat().st_size > 1000
    assert (tmp_path / "ablations_toy_classes.png").stat().st_size > 1000
    assert "60.00 .. 80.00" in capsys.readouterr().out


def test_verdicts_know_which_way_is_better():
    def score(low, high, better):
        return {"interval": [low, high], "better": better}

    assert ablations.verdict(score(1, 2, "lower"), score(3, 4, "lower")) == "better"
    assert ablations.verdict(score(1, 2, "higher"), score(3, 4, "higher")) == "worse"
    assert ablations.verdict(score(1, 3, "lower"), score(3, 4, "lower")) == "not apart"


def test_what_is_no_run_is_told_of(tmp_path):
    with pytest.raises(SystemExit, match="expected PRESET=WORKDIR"):
        ablations.read("toy", "runs/a")
    with pytest.raises(SystemExit, match=r"no metrics\.jsonl"):
        ablations.read("toy", f"all={tmp_path}")
    run(tmp_path / "a")
    with pytest.raises(SystemExit, match=r"no step_\*\.json"):
        ablations.read("toy", f"all={tmp_path}/a,{tmp_path}")
