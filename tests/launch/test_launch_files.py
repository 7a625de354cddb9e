"""What can be said of the launchers' text: scripts, images, the flags and settings they name."""

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from jaxt2i.run import settings
from tests.launch.stubs import ROOT

LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch"])
IMAGES = sorted((LAUNCH / "docker").glob("*.Dockerfile"))
FILES = [*SCRIPTS, *IMAGES, LAUNCH / "gke_jobset.yaml", LAUNCH / "colab.ipynb"]


def name_of(path):
    return path.name


def test_shellcheck_finds_nothing():
    shellcheck = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run(
        [shellcheck, "--external-sources", *SCRIPTS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_scripts_can_be_started_and_stop_at_errors(script):
    text = script.read_text()
    assert script.stat().st_mode & 0o111 == 0o111
    assert text.startswith("#!/usr/bin/env bash\n# ")
    assert re.search(r"^set -(euo pipefail|u)$", text, re.M)


def test_command_lines_of_the_slices_are_read_in_one_place():
    """And that place does nothing where it is started by itself."""
    readers = [f.name for f in SCRIPTS if "unknown option" in f.read_text()]
    assert [name for name in readers if name != "local_processes.sh"] == ["options.sh"]
    alone = subprocess.run([LAUNCH / "options.sh"], capture_output=True, text=True, check=False)
    assert alone.returncode == 2
    assert "is part of the launchers, and does nothing by itself" in alone.stderr


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_every_setting_and_preset_exists(file):
    text = file.read_text()
    for config, preset in re.findall(r"(configs/\w+\.py)(?::(\w+))?", text):
        assert settings.preset(str(ROOT / config), preset)
    known = settings.flat(settings.plain(settings.preset(str(ROOT / "configs/stylegan_t.py"), "")))
    named = set(re.findall(r"--config\.([\w.]+)=", text))
    assert named <= set(known), named - set(known)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_flags_of_the_command_lines_exist(file):
    """Of the flags behind -- or the module's name, only the settings are not fixed."""
    text = re.sub(r"\\\n[# ]*", " ", file.read_text())
    behind = re.findall(r"(?:jaxt2i\.train| --) +(--.*)", text)
    for words in behind:
        flags = {w.partition("=")[0] for w in re.findall(r"(?<!\S)--[\w.=]+", words)}
        flags = {flag for flag in flags if not flag.startswith("--config.")}
        assert flags <= {"--config", "--workdir", "--help"}, words


def test_the_job_set_parses_unfilled():
    job_set = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    assert job_set["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    pod = job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["args"] == "${ARGS}"


KNOWN = {"FROM", "RUN", "WORKDIR", "ENV", "COPY", "USER", "ENTRYPOINT"}


def instructions(image):
    """[(instruction, its text)] of a Dockerfile, continued lines joined."""
    lines = [x for x in image.read_text().splitlines() if x and not x.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [tuple(line.split(" ", 1)) for line in joined]


@pytest.mark.parametrize("image", IMAGES, ids=name_of)
def test_images_are_sound(image):
    steps = instructions(image)
    assert {word for word, _ in steps} <= KNOWN
    assert steps[0][0] == "FROM"
    python, tag = steps[0][1].split(":")
    # A whole version, of a Python that the package accepts.
    major, minor, patch = map(int, re.match(r"(\d+)\.(\d+)\.(\d+)-", tag).groups())
    assert python == "python"
    assert (major, minor) >= (3, 11)
    assert patch >= 0
    for word, text in steps:
        if word == "COPY":
            *sources, _ = text.split()
            assert all((ROOT / source).exists() for source in sources), text
        if word == "RUN" and "pip install" in text:
            assert text.startswith("--mount=type=cache,target=/root/.cache/pip "), text
    users = [text for word, text in steps if word == "USER"]
    assert users == ["jaxt2i"]
    assert [word for word, _ in steps].index("USER") > max(
        i for i, (word, _) in enumerate(steps) if word == "RUN"
    )
    entry = json.loads(steps[-1][1])
    assert (ROOT / entry[0]).stat().st_mode & 0o111
    extra = {"tpu": "tpu", "gpu": "cuda"}[image.stem]
    assert any(f"'.[{extra}]'" in text for _, text in steps)
    assert re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(), re.M)


def test_the_notebook_is_clean():
    notebook = nbformat.read(LAUNCH / "colab.ipynb", as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None
    headings = [c.source.splitlines()[0] for c in notebook.cells if c.cell_type == "markdown"]
    assert headings[1:] == [
        *("## Settings", "## Install", "## Train", "## Look", "## Sample", "## Your own pictures"),
        "## Judge",
    ]
