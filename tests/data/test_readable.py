"""Examples that are listed and cannot be read are left out, and told."""

import argparse
import itertools

import pytest

from jaxt2i.data.images import SYSTEM, Unreadable
from jaxt2i.data.readable import readable
from jaxt2i.data.schema import DataError
from jaxt2i.evaluation import corpora
from jaxt2i.metrics import protocols
from jaxt2i.run import open as runs
from jaxt2i.run import settings
from jaxt2i.run.train import grid_of, probe_of
from tests.data import shards


def odd(number):
    if number % 2 == 0:
        raise Unreadable(f"{number}.png", SYSTEM)
    return number * 10


def test_what_can_be_read_is_given_and_the_rest_told(capfd):
    assert list(readable(range(5), odd, "the grid")) == [(1, 10), (3, 30)]
    assert capfd.readouterr().err == (
        "data: 3 examples cannot be read and are left out of the grid (3 cannot be read), the "
        "first 0.png\n"
    )
    assert list(readable([1, 3], odd, "the grid")) == [(1, 10), (3, 30)]
    assert list(readable([], odd, "the grid")) == []
    assert capfd.readouterr().err == ""


def test_it_is_told_too_when_no_more_are_asked_for(capfd):
    found = readable(range(100), odd, "the grid")
    assert next(found) == (1, 10)
    found.close()
    assert "data: 1 examples" in capfd.readouterr().err


def test_nothing_at_all_is_an_error():
    with pytest.raises(DataError, match=r"none of 2 examples for the grid .*the first 0\.png"):
        list(readable([0, 2], odd, "the grid"))


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError):
        list(readable([0], lambda n: 1 // n, "the grid"))


# --- In a run ----------------------------------------------------------------------------------


def collection(root, absent, count=12):
    """Listed examples, some of which the tar file does not hold."""
    rows = [shards.row(0, i) for i in range(count)]
    gone = [(rows[i]["key"], part) for i in absent for part in ("jpg", "txt", "json")]
    shards.write_tar(root / "00000.tar", rows, without=gone)
    return root


def opened(root):
    config = settings.preset("configs/df_gan.py", "tiny")
    config.data.update(source="webdataset", path=str(root))
    run = runs.open_run(config)
    return run, run.source("val")


@pytest.mark.parametrize("absent", [(1,), (0, 5, 11), range(11)])
def test_grids_and_probes_leave_out_what_is_not_there(tmp_path, absent, capfd):
    run, source = opened(collection(tmp_path, absent))
    run.config.grid.count = 8
    there = [f"picture {i} of file 0" for i in range(12) if i not in absent]
    shown = [request.about for request in grid_of(run, source).requests]
    assert shown == there[:8]
    assert "are left out of the sample grid" in capfd.readouterr().err
    probe = probe_of(run, source)
    assert set(probe.captions) <= set(there)
    assert len(probe.captions) == len(set(probe.captions)) > 0
    assert len(probe.real) > 0


def test_prompts_are_shown_however_few_rows_there_are(tmp_path):
    run, source = opened(collection(tmp_path, range(2, 12)))
    run.config.grid.prompts = ("one", "two", "three")
    assert [r.about for r in grid_of(run, source).requests] == ["one", "two", "three"]


@pytest.mark.parametrize("name", ["tf2015", "dmgan_cub", "galip_coco"])
def test_evaluation_draws_for_what_is_there(tmp_path, name, capfd):
    run, source = opened(collection(tmp_path, (0, 3, 4)))
    args = argparse.Namespace(num=20, seed=0)
    data = corpora.Data("", run.config.data, "val", (16, 16), source, "yes")
    pairs = corpora.captions_of(args, run, data, protocols.get(name).samples)
    assert {i for i, _ in pairs} <= set(range(12)) - {0, 3, 4}
    assert len(pairs) >= 9
    err = capfd.readouterr().err
    assert "data: 3 examples cannot be read and are left out of the captions (3 listed" in err
    assert "00000.tar:000000000" in err


def test_rows_are_those_that_can_be_read(tmp_path):
    run, source = opened(collection(tmp_path, (0, 2)))
    rows = list(itertools.islice(run.rows_of(source, range(12)), 2))
    assert [row["prompt"] for row in rows] == ["picture 1 of file 0", "picture 3 of file 0"]
