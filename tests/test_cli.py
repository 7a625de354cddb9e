"""The command lines as a person uses them: a tiny run, pictures from it, and a folder of photos."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data import photos
from tests.quick import QUICK

pytestmark = pytest.mark.xdist_group("cli")

ROOT = Path(__file__).parent.parent


def command(module, *args, code=0):
    out = subprocess.run(
        [sys.executable, "-m", f"jaxt2i.{module}", *map(str, args)],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": QUICK},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert out.returncode == code, out.stdout + out.stderr
    return out.stdout + out.stderr


TINY = ("--config", "configs/stylegan_t.py:tiny", "--config.total_steps=4")
# Compiles in less than half of the time.
SMALL = ("--config", "configs/df_gan.py:tiny", "--config.total_steps=2")
TOY = ("--config", "tests/engine/toy_config.py", "--config.total_steps=2")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    said = command("train", *SMALL, "--config.score_images=8", "--workdir", folder)
    assert "perception: mini CLIP" in said
    return folder


@pytest.mark.slow
def test_a_run_leaves_what_it_promises(workdir):
    assert json.loads((workdir / "config.json").read_text())["batch_size"] == 8
    lines = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert {"step", "d/loss", "g/loss", "images_per_second"} <= set(lines[0])
    assert any("score/frechet" in line for line in lines)
    assert Image.open(workdir / "samples" / "00000002.png").width > 100


@pytest.mark.slow
def test_an_image_depends_on_its_prompt_and_seed_alone(workdir, tmp_path):
    many = ["--prompts", "a red rose", "a blue owl", "--num", 5]
    command("sample", "--workdir", workdir, *many, "--out", tmp_path / "many")
    alone = ["--prompts", "a blue owl", "--seed", 3]
    command("sample", "--workdir", workdir, *alone, "--out", tmp_path / "one")
    lines = (tmp_path / "many" / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(x)["seed"] for x in lines] == [0, 1, 2, 3, 4] * 2
    a = np.asarray(Image.open(tmp_path / "many" / "000008.png"))
    b = np.asarray(Image.open(tmp_path / "one" / "000000.png"))
    np.testing.assert_array_equal(a, b)
    walk = ["--interpolate", "a red rose", "a blue owl", "--num", 3, "--grid", "--raw"]
    command("sample", "--workdir", workdir, *walk, "--out", tmp_path / "walk")
    names = {"drawn.json", "grid.png", "metadata.jsonl", "timing.json"}
    assert {p.name for p in (tmp_path / "walk").iterdir()} == names


@pytest.mark.slow
def test_trains_on_photographs_with_captions(tmp_path):
    folder = tmp_path / "photos"
    photos.make_folder(folder)
    (folder / "broken.jpg").write_bytes(b"not a picture")
    (folder / "broken.txt").write_text("a broken picture\n")
    place = ("--config.data.source=folder", f"--config.data.path={folder}")
    command("train", *TOY, *place, "--workdir", tmp_path / "run")
    report = json.loads((tmp_path / "run" / "data_report.json").read_text())
    assert "broken.jpg" in json.dumps(report)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--config.data.source=folder", "--config.data.path=/no/such/folder"), "config.data.path"),
        (("--config.model.micro_batch=3",), "config.model.micro_batch=3"),
        (("--config.data.tokenizer=clip",), "tokenizer"),
        (("--config.data.crpus=scenes",), "did you mean config.data.corpus"),
        (("--config.batch_size=many",), "--config.batch_size=many"),
        (("--config=configs/stylegan_t.py:lite65",), "no preset 'lite65' here; known: embedded"),
    ],
)
def test_bad_settings_end_in_one_clear_message(tmp_path, args, words):
    out = command("train", *TINY, *args, "--workdir", tmp_path, code=1)
    assert words in out
    assert "Traceback" not in out


def test_a_config_file_whose_own_program_stops_is_told_of(tmp_path):
    file = tmp_path / "stops.py"
    file.write_text("import os\n\n\ndef get_config(preset=None):\n    return os.nothing\n")
    out = command("train", "--config", file, "--workdir", tmp_path / "run", code=1)
    assert "stops.py: module 'os' has no attribute 'nothing'" in out
    assert "Traceback" not in out


def test_sampling_from_nothing_says_what_is_missing(tmp_path):
    out = command("sample", "--workdir", tmp_path, "--prompts", "a rose", code=1)
    assert "holds no run" in out
    assert "Traceback" not in out
