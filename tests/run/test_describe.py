"""Every setting of every configuration is explained, from the place where its default stands."""

import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from jaxt2i.configs import common
from jaxt2i.run import describe

ROOT = Path(__file__).parents[2]
FILES = sorted(p.stem for p in (ROOT / "configs").glob("[a-z]*.py") if p.stem != "common")


def explained(config):
    """{key: (value, meaning)} of what is said."""
    out = {}
    for line in describe.describe(config).splitlines():
        if line.startswith("config."):
            key, value = line.removeprefix("config.").split(" = ", 1)
            out[key] = value, ""
        else:
            out[key] = out[key][0], f"{out[key][1]} {line.strip()}".strip()
    return out


@pytest.mark.parametrize("file", FILES)
def test_no_setting_is_without_a_meaning(file):
    config = importlib.import_module(f"jaxt2i.configs.{file}").get_config()
    found = explained(config)
    # The scores of a promise are names of the system's own.
    silent = {k for k, (_, text) in found.items() if not text and "promise.margin" not in k}
    assert silent == set()
    assert {"batch_size", "data.web.lanes"} <= set(found)
    assert any(k.startswith("model.") for k in found)
    assert any(k.startswith("optim.") for k in found)


def test_values_and_texts_are_those_of_the_sources():
    config = importlib.import_module("jaxt2i.configs.souza").get_config("tiny")
    found = explained(config)
    assert found["model.z_dim"] == ("16", "width of the latent.")
    assert found["optim.d.lr"] == ("0.001", "learning rate.")
    assert found["model.g_base"][1] == found["model.d_base"][1] != ""
    assert found["model.normalize_sentence"][1].endswith("the conditional norms expect.")
    assert found["precision"] == (
        "'auto'",
        'Activations: "float32", "bfloat16", or "auto" (bfloat16 on TPU and GPU).',
    )


def test_comments_belong_to_the_setting_below_them():
    source = """
def base():
    # Of two
    # lines.
    c.a = 1
    c.b = 2
    c.part = ConfigDict({
        # Inner.
        "x": 1,
        "deep": ConfigDict({"y": 2,
            # Deeper.
            "z": 3}),
    })
"""
    want = {"a": "Of two lines.", "part.x": "Inner.", "part.deep.z": "Deeper."}
    assert describe.comments(source) == want


def test_a_section_has_every_field_of_its_class():
    @dataclasses.dataclass(frozen=True)
    class Small:
        """Small.

        Attributes:
          width: of it.
          low, high: the range,
            in pixels.
        """

        width: int = 3
        low: float = 0.0
        high: float = 1.0

    made = common.section(Small, high=2.0)
    assert made == ConfigDict({"width": 3, "low": 0.0, "high": 2.0})
    with pytest.raises(TypeError, match="wide"):
        common.section(Small, wide=4)
    texts = describe.of_classes(made, [Small], "model")
    assert texts == {
        "model.width": "of it.",
        "model.low": "the range, in pixels.",
        "model.high": "the range, in pixels.",
    }
    assert describe.of_classes({"other": 1}, [Small], "model") == {}


def test_the_command_line_prints_it_and_stops():
    command = [sys.executable, "-m", "jaxt2i.train", "--config", "configs/clip.py:tiny"]
    command += ["--help", "--config.batch_size=48"]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = out.stdout.splitlines()
    assert any("--workdir" in line for line in lines)
    assert "config.batch_size = 48" in lines
    at = lines.index("config.model.joint = 16")
    assert lines[at + 1] == "    width of the shared space."
