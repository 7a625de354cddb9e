"""launch/colab.ipynb, run from the first cell to the last with a tiny preset."""

import http.server
import importlib.util
import io
import json
import re
import subprocess
import threading
import tomllib
import urllib.parse

import nbclient
import nbformat
import pytest

from tests.launch.stubs import ROOT
from tests.quick import QUICK

NOTEBOOK = ROOT / "launch" / "colab.ipynb"


def changed(**values):
    """The notebook with other settings, set behind its own as papermill does."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", ()))
    for name, value in values.items():
        assert f"\n{name} = " in cell.source
        cell.source += f"\n{name} = {value!r}"
    return notebook


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", QUICK)
    notebook = changed(
        CONFIG="df_gan:tiny",
        STEPS=1,
        PROMPTS="a red rose; a blue owl",
        MORE={"score_images": 8, "checkpoint_every_steps": 0},
        METRICS="mini_clip",
        JUDGED=8,
        WORKDIR=str(tmp_path / "runs"),
    )
    how = {"timeout": 1800, "resources": {"metadata": {"path": ROOT / "launch"}}}
    nbclient.NotebookClient(notebook, kernel_name="python3", **how).execute()
    shown = [
        output["data"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "data" in output
    ]
    # Samples, curves, what was drawn, samples of one's own; controls, conditions and scores.
    assert sum("image/png" in data for data in shown) == 4
    tables = [data["text/html"] for data in shown if "text/html" in data]
    assert len(tables) == 3
    assert "mini_clip" in tables[-1]
    report = (tmp_path / "runs" / "own" / "data_report.json").read_text()
    assert json.loads(report)["usable"] == 8
    said = {file.read_text() for file in (tmp_path / "runs" / "pictures").glob("*.txt")}
    assert said == {"a red rose\n", "a blue owl\n"}


def installed(monkeypatch, folder, there, **values):
    """The commands with which the notebook installs jaxt2i in a folder that is no clone."""
    calls = []

    class Called:
        stdout, returncode = io.StringIO(), 0

        def __init__(self, command, **_):
            calls.append(command[1:] if command[0] == "git" else command[3:])

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.chdir(folder)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: there or None)
    monkeypatch.setattr(subprocess, "Popen", Called)
    names = {}
    code = [cell.source for cell in changed(**values).cells if cell.cell_type == "code"]
    for source in code[:2]:
        exec(source, names)
    return calls, names["work"]


def test_outside_a_clone_it_is_fetched_or_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [])
    calls, work = installed(monkeypatch, tmp_path, there=True)
    assert (calls, work) == ([], tmp_path / "runs" / "colab")
    copy = tmp_path / "jaxt2i-code"
    calls, work = installed(monkeypatch, tmp_path, there=False, REPOSITORY="https://a/b.git")
    assert calls[0] == ["clone", "--depth=1", "https://a/b.git", str(copy)]
    assert calls[1] == ["install", "-q", "-e", str(copy)]
    assert work == copy / "runs" / "colab"
    with pytest.raises(RuntimeError, match=r"not installed here.*set REPOSITORY in the settings"):
        installed(monkeypatch, tmp_path, there=False, REPOSITORY="")


@pytest.fixture
def colab(monkeypatch):
    """A server like the one that tells Colab's notebooks apart, and what it answers."""
    said = {}

    class Sessions(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/api/sessions" else 404)
            self.end_headers()
            self.wfile.write(json.dumps([{"path": said["path"], "name": "colab.ipynb"}]).encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sessions) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("COLAB_JUPYTER_IP", "127.0.0.1")
        monkeypatch.setenv("KMP_TARGET_PORT", str(server.server_port))
        yield said
        server.shutdown()


@pytest.mark.parametrize("quoted", [str, lambda at: urllib.parse.quote(at, safe="")])
def test_colab_tells_which_repository_it_opened(tmp_path, monkeypatch, colab, quoted):
    monkeypatch.setattr("sys.path", [])
    at = "https://github.com/some-one/jax.t2i/blob/main/launch/colab.ipynb"
    colab["path"] = "fileId=" + quoted(at)
    calls, _ = installed(monkeypatch, tmp_path, there=False)
    clone = ["clone", "--depth=1", "https://github.com/some-one/jax.t2i"]
    assert calls[0] == [*clone, str(tmp_path / "jaxt2i-code")]


def test_an_uploaded_notebook_asks_for_the_address(tmp_path, monkeypatch, colab):
    colab["path"] = "fileId=1AbC"
    with pytest.raises(RuntimeError, match="set REPOSITORY"):
        installed(monkeypatch, tmp_path, there=False)
    monkeypatch.setenv("KMP_TARGET_PORT", "1")  # nobody answers
    with pytest.raises(RuntimeError, match="set REPOSITORY"):
        installed(monkeypatch, tmp_path, there=False)


def test_it_opens_from_where_the_project_lies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    address = project.get("urls", {}).get("Repository", "")
    default = re.search(r'\\nREPOSITORY = \\"(.*?)\\"', json.dumps(changed().cells[2].source))
    assert default[1] == address
    at = f"github/{address.partition('github.com/')[2]}/blob/main/launch/colab.ipynb"
    badge = f"https://colab.research.google.com/{at if address else ''}"
    assert f"colab-badge.svg)]({badge})" in (ROOT / "README.md").read_text()
