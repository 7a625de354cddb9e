"""launch/colab.ipynb, run from the first cell to the last with a tiny preset."""

import json

import nbclient
import nbformat
import pytest
from PIL import Image

from tests.launch.stubs import ROOT
from tests.quick import QUICK


def run(tmp_path, **values):
    """Runs the notebook with other settings, set behind its own as papermill does."""
    notebook = nbformat.read(ROOT / "launch" / "colab.ipynb", as_version=4)
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", ()))
    for name, value in values.items():
        assert f"\n{name} = " in cell.source
        cell.source += f"\n{name} = {value!r}"
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    return notebook


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", QUICK)
    notebook = run(
        ROOT / "launch",
        CONFIG="configs/stylegan_t.py:tiny",
        STEPS=1,
        PROMPTS="a red rose; a blue owl",
        MORE="--config.score_images=8 --config.checkpoint_every_steps=0",
        WORKDIR=str(tmp_path / "runs"),
    )
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 4
    drawn = tmp_path / "runs" / "embedded" / "drawn"
    said = [json.loads(line)["text"] for line in (drawn / "metadata.jsonl").open()]
    assert said == ["a red rose"] * 4 + ["a blue owl"] * 4
    grid = Image.open(drawn / "grid.png")
    assert grid.width > grid.height
    report = (tmp_path / "runs" / "own" / "data_report.json").read_text()
    assert json.loads(report)["usable"] == 8
    assert Image.open(tmp_path / "runs" / "own" / "samples" / "00000001.png").width > 100


def test_outside_a_clone_the_notebook_asks_for_its_url(tmp_path):
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="set REPOSITORY to its git"):
        run(tmp_path)
