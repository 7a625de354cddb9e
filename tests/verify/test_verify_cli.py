import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxt2i.encoders import clip_goldens as clip
from jaxt2i.verify import __main__ as verify

GOLDENS = Path(__file__).parents[1] / "goldens"


@pytest.fixture
def copy(tmp_path):
    """One small folder, on its own."""
    target = tmp_path / "goldens" / "clip_hf" / "openclip_gelu"
    shutil.copytree(GOLDENS / "clip_hf" / "openclip_gelu", target)
    return target


def run(copy, *arguments):
    return verify.main([*arguments, "--goldens", str(copy.parents[1])])


def test_a_pass_is_0_and_everything_is_in_the_json(copy, tmp_path, capsys):
    assert run(copy, "clip_hf", "--json", str(tmp_path / "r.json")) == 0
    printed, told = capsys.readouterr()
    assert f"jax {jax.__version__} on cpu: 8 x cpu" in told
    assert "1 cases, 11 arrays passed, 0 kinks, 0 failed, 0 cases without a runner" in printed
    written = json.loads((tmp_path / "r.json").read_text())
    assert written["counts"] == {"pass": 11, "kink": 0, "FAIL": 0, "no runner": 0}
    assert written["environment"]["matmul_precision"] == "default"
    assert written["environment"]["dtype"] == "float32"
    assert "computed in float32, products at 'default' precision" in printed
    assert all(0 <= r["error"] <= r["limit"] for r in written["results"])


def test_float64_has_its_own_limits(copy, tmp_path, capsys):
    file = tmp_path / "r.json"
    assert run(copy, "--float64", "--precision", "highest", "--json", str(file)) == 0
    assert "computed in float64" in capsys.readouterr().out
    written = json.loads(file.read_text())
    assert written["environment"]["dtype"] == "float64"
    assert written["environment"]["matmul_precision"] == "highest"
    assert all(r["relative"] < 1e-5 for r in written["results"])


@pytest.mark.parametrize(
    ("arguments", "products", "seen"),
    [
        ((), "tensorfloat32", "tensorfloat32"),
        (("--precision", "highest"), "highest", "highest"),
        (("--precision", "default"), "default", None),
    ],
)
def test_a_case_runs_as_its_system_trains(copy, tmp_path, monkeypatch, arguments, products, seen):
    found = []

    def case(*_):
        found.append(jax.config.jax_default_matmul_precision)
        return {}

    monkeypatch.setattr(verify, "runner", lambda *_: case)
    monkeypatch.setattr(verify, "training_products", lambda *_: "tensorfloat32")
    file = tmp_path / "r.json"
    assert run(copy, "--json", str(file), *arguments) == 1  # it made no array
    assert found == [seen]
    written = json.loads(file.read_text())
    assert written["environment"]["matmul_precision"] == products
    assert {row["products"] for row in written["results"]} == {products}


def test_a_changed_number_is_1(copy, capsys):
    with np.load(copy / "text_image.npz") as z:
        arrays = {k: z[k] for k in z.files}
    arrays["out_text"][0, 0] += 1e-2
    np.savez(copy / "text_image.npz", **arrays)
    assert run(copy) == 1
    printed = capsys.readouterr().out
    assert "10 arrays passed, 0 kinks, 1 failed" in printed
    assert "float64 by" in printed  # it was asked, and did not agree either
    assert "FAIL" in printed
    assert "out_text" in printed


def test_a_runner_that_stops_or_forgets_is_1(copy, monkeypatch, capsys):
    def stops(golden, case):
        raise RuntimeError("no such layer")

    monkeypatch.setitem(clip.CASES, "text_image", stops)
    assert run(copy) == 1
    assert "RuntimeError: no such layer" in capsys.readouterr().out
    monkeypatch.setitem(clip.CASES, "text_image", lambda golden, case: {})
    assert run(copy) == 1
    assert "0 arrays passed, 0 kinks, 11 failed" in capsys.readouterr().out


def test_nothing_to_run_is_2_and_says_what_there_is(copy, capsys):
    assert run(copy, "clip_hf", "stylegan_x") == 2
    assert "11 arrays passed" in capsys.readouterr().out
    assert run(copy, "stylegan_x") == 2
    assert f"Folders of {copy.parents[1]}: clip_hf/openclip_gelu" in capsys.readouterr().out


def test_cases_without_a_runner_are_counted_but_fail_nothing(copy, monkeypatch, capsys):
    shutil.copytree(copy, copy.parents[1] / "nobodys_gan")
    monkeypatch.setitem(clip.CASES, "text_image", lambda g, c: c.outputs)
    assert run(copy) == 0
    assert "1 cases without a runner" in capsys.readouterr().out
    assert run(copy, "nobodys_gan") == 2


def test_a_damaged_folder_names_its_file(copy, capsys):
    (copy / "text_image.npz").unlink()
    (copy.parents[1] / "broken").mkdir()
    (copy.parents[1] / "broken" / "manifest.json").write_text("{")
    assert run(copy) == 1
    printed = "".join(capsys.readouterr().out.split())
    assert "text_image.npz:nosuchfile" in printed
    assert "broken/manifest.json:notJSON" in printed
    assert verify.main(["--goldens", str(copy / "absent")]) == 1


def test_names_are_leading_parts_or_patterns():
    name = "clip_hf/laion_gelu/text_image"
    for yes in ("clip_hf", "clip_hf/", "clip_hf/laion_gelu", name, "*/text_*"):
        assert verify.wanted(name, [yes])
    for no in ("clip", "laion_gelu", "clip_hf/laion"):
        assert not verify.wanted(name, [no])
