"""Counts of a web collection: made once, kept, shared; its held-out share is capped."""

import collections
import os
import threading

import pytest

from jaxt2i.data.sources import counts, files, make_source
from tests.data import shards
from tests.data.sources.test_web import config


@pytest.fixture
def opened(monkeypatch):
    """How often each parquet file is read."""
    seen = collections.Counter()
    read = files.read_bytes

    def counting(path):
        seen[os.path.basename(path)] += path.endswith(".parquet")
        return read(path)

    monkeypatch.setattr(files, "read_bytes", counting)
    return seen


def source(path, shared=counts.ALONE, split="train", **web):
    data = config(path)
    data.web.update(**web)
    return make_source(data, 16, split, None, shared)


def test_a_file_is_counted_once_until_it_or_the_filters_change(tmp_path, opened, capfd):
    shards.collection(tmp_path, files=3)
    first = source(tmp_path)
    assert sum(opened.values()) == 3
    said = capfd.readouterr().err
    assert "listing" in said
    assert "3/3" in said
    assert f"3 counts are kept in {tmp_path}/.jaxt2i/counts-" in said
    opened.clear()
    again = source(tmp_path)
    assert sum(opened.values()) == 0
    assert again.report == first.report
    shards.write_tar(tmp_path / "00001.tar", [shards.row(1, i) for i in range(2)])
    assert source(tmp_path).parts[0].counts == [6, 2, 6]
    assert +opened == {"00001.parquet": 1}
    opened.clear()
    assert source(tmp_path, min_chars=1000 - 999).size == 14
    assert sum(opened.values()) == 3, "other filters, other counts"


def test_where_data_is_for_reading_only_the_work_directory_keeps_them(tmp_path, opened, capfd):
    data, shared = tmp_path / "data", counts.Shared(tmp_path / "run" / "counts")
    shards.collection(data, files=2)
    (data / ".jaxt2i").write_text("no folder can be made here")
    source(data)
    assert "kept nowhere" in capfd.readouterr().err
    source(data, shared)
    assert f"kept in {tmp_path}/run/counts/" in capfd.readouterr().err
    opened.clear()
    source(data, shared)
    assert sum(opened.values()) == 0


def test_processes_open_their_share_alone_and_all_know_all(tmp_path, opened):
    shards.collection(tmp_path / "data", files=5)
    room, found = threading.Barrier(2), {}

    def process(index):
        shared = counts.Shared(tmp_path / "counts", index, 2, room.wait)
        found[index] = source(tmp_path / "data", shared)

    threads = [threading.Thread(target=process, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == {f"0000{i}.parquet": 1 for i in range(5)}
    assert found[0].parts[0].counts == found[1].parts[0].counts == [6] * 5
    assert found[0].report == found[1].report
    assert not list((tmp_path / "counts").iterdir()), "what was exchanged is gone"


def test_what_is_held_out_is_capped_and_says_so(tmp_path, capfd):
    shards.collection(tmp_path, files=10)
    share = {"held_out": 0.5}
    whole = source(tmp_path, split="val", **share)
    train = source(tmp_path, held_out_most=0, **share).parts[0].names
    capfd.readouterr()
    part = source(tmp_path, split="val", held_out_most=7, **share)
    assert (whole.size, part.size) == (30, 12), "to whole files"
    assert set(part.parts[0].names) < set(whole.parts[0].names)
    assert "3 held-out files beyond config.data.web.held_out_most" in capfd.readouterr().err
    assert "12 are used, of 2 of 5 files" in part.notes[0]
    assert {part.captions(i)[0] for i in range(12)} < {whole.captions(i)[0] for i in range(30)}
    assert source(tmp_path, held_out_most=7, **share).parts[0].names == train
    assert not whole.notes
