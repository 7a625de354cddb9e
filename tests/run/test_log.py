"""What a run writes: lines that are written once, tables, grids."""

import json
import math
import sys
import threading

import clu
import numpy as np
import pytest
from PIL import Image

from jaxt2i.data import schema
from jaxt2i.engine import state as states
from jaxt2i.run import log, tensorboard
from jaxt2i.run.open import load_method as load
from tests.engine.test_engine import SIZES, config


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_run_leaves_one_history(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "make_writer", lambda folder: None)
    for first, last in ((0, 4), (2, 6)):
        records = log.Records(tmp_path, first, {})
        for step in range(first + 1, last + 1):
            records.submit(lambda step=step, r=records: r.write(step, {"loss": step / 3}))
        records.drain()
        records.close()
        assert records.failure is None
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 99, "los')  # killed in the middle of a line
    records = log.Records(tmp_path, 6, {})
    records.close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert records.history == lines(tmp_path)
    assert lines(tmp_path)[0] == {"step": 1, "loss": 0.333333}


def test_metrics_do_not_wait_for_tensorboard(tmp_path, monkeypatch):
    imported = threading.Event()
    monkeypatch.setattr(tensorboard, "make_writer", lambda folder: imported.wait(30) and None)
    records = log.Records(tmp_path, 0, {"gap": "lower"})
    records.submit(lambda: records.write(1, {"images": 16, "score/gap": math.nan, "bad": math.inf}))
    records.drain()
    assert not imported.is_set()
    assert lines(tmp_path) == [{"step": 1, "images": 16, "score/gap": None, "bad": None}]
    imported.set()
    records.close()


def test_a_run_goes_on_without_clu(tmp_path, monkeypatch, capsys):
    monkeypatch.delattr(clu, "metric_writers", raising=False)
    for name in [n for n in sys.modules if n.startswith("clu.metric_writers")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "clu.metric_writers", None)
    records = log.Records(tmp_path, 0, {"gap": "lower"})
    values = {"score/gap": 0.5, "health/saturated": 0.1}
    records.submit(lambda: records.write(1, {"images": 16, **values}))
    records.submit(lambda: records.grid(1, np.zeros((2, 8, 8, 3), np.uint8), ["a", "b"]))
    records.submit(records.curves)
    records.drain()
    records.close()
    assert records.failure is None
    assert capsys.readouterr().out.count("TensorBoard files are not written") == 1
    names = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert names == {"metrics.jsonl", "curves.png", "health.png", "samples/00000001.png"}


def test_a_records_error_is_kept_for_the_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "make_writer", lambda folder: None)
    records = log.Records(tmp_path, 0, {})

    def fails():
        raise FloatingPointError("step 3")

    records.submit(fails)
    records.drain()
    records.close()
    assert str(records.failure) == "step 3"


def test_a_grid_has_a_cell_and_a_caption_for_each(tmp_path):
    images = np.random.RandomState(0).randint(0, 256, (5, 16, 16, 3), np.uint8)
    log.save_grid(tmp_path / "grid.png", images, ["a caption of several words"] * 5, columns=5)
    with Image.open(tmp_path / "grid.png") as image:
        found = np.asarray(image)
    assert found.shape[1] == 5 * (128 + 6) + 6
    np.testing.assert_array_equal(found[6 : 6 + 128 : 8, 6 : 6 + 128 : 8], images[0])
    assert [p.name for p in tmp_path.iterdir()] == ["grid.png"]


@pytest.fixture(scope="module")
def toy():
    method = load(config())
    return method, *states.shapes(method, schema.spec(SIZES, method.needs))


def test_tables_name_every_network_and_every_array(toy):
    method, state, frozen = toy
    table = log.parameter_table(method, state, frozen)
    for net in method.nets:
        tree = state.params.get(net, frozen.get(net))
        assert f"| {net} " in table
        assert f"{states.count(tree):,}" in table
    assert "frozen" in table
    assert "trained by g, averaged" in table
    whole = log.parameter_list(state)
    assert f"Total: {states.count(state.params):,} --" in whole
    assert all(f"| {net}/" in whole for net in state.params)


def test_tables_without_clu_are_sentences(toy, monkeypatch):
    monkeypatch.setattr(log, "parameter_overview", None)
    method, state, frozen = toy
    table = log.parameter_table(method, state, frozen).splitlines()
    assert [line.split(":")[0].strip() for line in table] == list(method.nets)
    assert "pip install clu" in log.parameter_list(state)
