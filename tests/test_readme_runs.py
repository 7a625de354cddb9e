"""README's commands are executed: which, and how, stands in tests/readme_walk.py."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from jaxt2i.run import exports
from tests.evaluation import small
from tests.quick import QUICK
from tests.readme_walk import FULL, PARSED, PLAIN, README, TRIED, tried
from tests.test_readme import ROOT, commands


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """An empty folder with the files of one's own that README speaks of."""
    monkeypatch.chdir(tmp_path)
    small.pictures(Path("pictures"), 24)
    row = {"prompt": "a red rose", "seed": 3, "controls": {"psi": 0.8}}
    Path("rows.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path


def walk(*kinds):
    """In a process of its own, with one device as a reader has, which compiles quickly."""
    env = os.environ | {"XLA_FLAGS": QUICK, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "tests.readme_walk", *kinds], check=True, env=env)


def test_every_command_of_the_readme_is_in_the_table():
    said = [shlex.join(words) for words in commands(README)]
    assert [c for c in said if tried(shlex.split(c))[0] is None] == []
    unused = [start for start, _, _ in TRIED if not any(c.startswith(start) for c in said)]
    assert unused == [], "the table speaks of commands that README no longer has"
    assert all(why for _, how, why in TRIED if how is PARSED)


@pytest.mark.slow
def test_a_reader_gets_what_the_readme_promises(fresh):
    walk(PLAIN)
    run = fresh / "runs" / "stylegan_t-default"
    for name in ("metrics.jsonl", "config.json", "checkpoints"):
        assert (run / name).exists(), name
    assert list((run / "samples").glob("*.png"))
    assert Image.open(run / "drawn" / "grid.png").width
    assert len((fresh / "drawn" / "metadata.jsonl").read_text().splitlines()) == 8
    assert (fresh / "captions.pickle").is_file()
    assert set(exports.read(fresh / "flowers")["nets"]) == {"g", "text"}
    assert (fresh / "flowers-go-on" / "checkpoints" / "1").is_dir()


@pytest.mark.full
def test_all_of_the_readme(fresh):
    walk(PLAIN, FULL)
    for name in ("attngan", "obj_gan", "layout_to_image", "latent_diffusion"):
        assert (fresh / "runs" / f"{name}-default" / "drawn" / "metadata.jsonl").is_file(), name
    assert (fresh / "flowers-more" / "stablehlo" / "example.py").is_file()
    assert list((fresh / "runs" / "text_to_layout-default" / "evaluation").glob("*.json"))
