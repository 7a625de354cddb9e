"""TensorBoard's files: readable, never waited for, and dispensable."""

import sys
import threading

import clu
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util.tensor_util import make_ndarray

from jaxt2i.run import tensorboard
from jaxt2i.run.tensorboard import TensorBoard


def shown(path):
    events = list(EventFileLoader(str(path)).Load())
    return [(v.tag, e.step, make_ndarray(v.tensor)) for e in events for v in e.summary.value]


def test_numbers_and_pictures_are_read_back_in_order(tmp_path):
    said = []
    for attempt in (0, 10):
        board = TensorBoard(tmp_path, said.append)
        board.scalars(attempt + 1, {"loss": 0.5, "count": 3})
        board.images(attempt + 2, "samples", np.zeros((2, 4, 6, 3), np.uint8))
        board.scalars(attempt + 3, {"loss": 0.25})
        board.close()
    assert said == []
    first, second = map(shown, sorted(tmp_path.iterdir(), key=lambda p: p.stat().st_mtime_ns))
    assert [(tag, step) for tag, step, _ in first] == [
        *(("loss", 1), ("count", 1), ("samples", 2), ("loss", 3))
    ]
    assert [float(x) for tag, _, x in first if tag == "loss"] == [0.5, 0.25]
    assert list(first[2][2][:2]) == [b"6", b"4"]  # width, height, then the pictures
    assert len(first[2][2]) == 4
    assert [step for _, step, _ in second] == [11, 11, 12, 13]


@pytest.mark.parametrize("absent", ["clu.metric_writers", "tensorflow"])
def test_without_its_libraries_a_sentence_is_said_and_nothing_else(tmp_path, monkeypatch, absent):
    monkeypatch.delattr(clu, "metric_writers", raising=False)
    for name in [n for n in sys.modules if n.startswith("clu.metric_writers")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, absent, None)
    said = []
    board = TensorBoard(tmp_path, said.append)
    board.scalars(1, {"loss": 0.5})
    board.close()
    (sentence,) = said
    assert "TensorBoard files are not written (ModuleNotFoundError" in sentence
    assert absent.partition(".")[0] in sentence
    assert not list(tmp_path.iterdir())


class Broken:
    def write_scalars(self, step, values):
        raise OSError("no space left")

    def flush(self):
        pass

    close = flush


def test_a_failure_is_raised_by_what_follows(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "make_writer", lambda folder: Broken())
    board = TensorBoard(tmp_path, pytest.fail)
    board.scalars(1, {"loss": 0.5})
    with pytest.raises(OSError, match="no space left"):
        board.close()


def test_a_run_that_writes_nothing_imports_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "make_writer", pytest.fail)
    TensorBoard(tmp_path, pytest.fail).close()
    assert not list(tmp_path.iterdir())


def test_nobody_waits_for_the_import(tmp_path, monkeypatch):
    imported, written = threading.Event(), []

    class Writer(Broken):
        def write_scalars(self, step, values):
            written.append(step)

    def slow(folder):
        imported.wait(10)
        return Writer()

    monkeypatch.setattr(tensorboard, "make_writer", slow)
    board = TensorBoard(tmp_path, pytest.fail)
    for step in (1, 2):
        board.scalars(step, {"loss": 0.5})
    assert written == []
    imported.set()
    board.close()
    assert written == [1, 2]
