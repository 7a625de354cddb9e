"""Collections of img2dataset: what is listed, filtered, mixed, and survived."""

import codecs
import collections
import io
import json
import random
import tarfile

import numpy as np
import pyarrow
import pytest
from jaxt2i.configs.common import base
from PIL import Image

from jaxt2i.data import images, schema
from jaxt2i.data.decoding import NOT_UTF8
from jaxt2i.data.pipeline import Pipeline
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources import base as sources
from jaxt2i.data.sources import files, make_source, web
from tests.data import shards
from tests.data.sources.test_tfrecords import example
from tests.data.test_pipeline import Lengths, equal

SIZES = schema.Sizes(batch=4, height=16, width=16, tokens=6)


def config(path, resolution=16, **filters):
    data = base().data
    data.update(source="webdataset", path=str(path), resize="area", tokens=6)
    data.web.update(held_out=0.0, **filters)
    return data


def opened(path, split="train", workdir=None, **filters):
    return make_source(config(path, **filters), 16, split, workdir)


def texts(source):
    return [source.captions(i)[0] for i in range(source.size)]


ALL = [f"picture {i} of file {s}" for s in range(4) for i in range(6)]


@pytest.mark.parametrize("parquet", [True, False])
@pytest.mark.parametrize("kind", ["tar", "tfrecord"])
def test_examples_come_in_the_order_of_their_keys(tmp_path, kind, parquet):
    shards.collection(tmp_path, kind=kind, parquet=parquet)
    source = opened(tmp_path)
    assert texts(source) == ALL
    assert source.name(8) == f"{tmp_path}/00001.{kind}:000010002"
    whole = make_source(config(tmp_path), 32, "train")
    shown = whole.example(8)["image"]
    picture = Image.open(io.BytesIO(shards.picture(shards.row(1, 2)))).crop((4, 0, 36, 32))
    np.testing.assert_array_equal(shown, np.asarray(picture))
    part = source.report["collections"][0]
    assert part["usable"] == 24
    assert part["skipped"] == ({web.FAILED: 4} if parquet else {})


@pytest.mark.parametrize("kind", ["tar", "tfrecord"])
@pytest.mark.parametrize("parquet", [True, False])
def test_filters(tmp_path, kind, parquet):
    rows = [shards.row(0, i) for i in range(8)]
    rows[0]["caption"] = "a"
    rows[1]["width"] = rows[1]["height"] = 12
    rows[2]["width"] = 100
    rows[3]["caption"] = "many words " * 9
    rows[4]["similarity"] = 0.9
    rows[5]["caption"] = "  "
    getattr(shards, f"write_{kind}")(tmp_path / f"00000.{kind}", rows, parquet=parquet)
    source = opened(
        tmp_path,
        min_side=20,
        max_aspect=2.0,
        min_chars=3,
        max_chars=60,
        scores=(("similarity", 0.0, 0.5),),
        languages=("en",),
    )
    assert texts(source) == ["picture 6 of file 0"]
    assert source.report["collections"][0]["skipped"] == {
        web.CHARS: 2,
        web.SMALL: 1,
        web.LONG: 1,
        web.SCORE: 1,
        sources.NO_CAPTION: 1,
        web.LANGUAGE: 1,
    }


def test_a_missing_column_is_named(tmp_path):
    shards.collection(tmp_path, 1)
    with pytest.raises(
        DataError, match=r"no column 'aesthetic'.*config\.data\.web asks for.*similarity"
    ):
        opened(tmp_path, scores=(("aesthetic", 5.0, 10.0),))


def test_what_is_wrong_inside_is_counted(tmp_path):
    """Names that reach outside, keys for the second time, members that are not there."""
    rows = [shards.row(0, i) for i in range(5)]
    absent = [(rows[1]["key"], "txt"), (rows[1]["key"], "json"), (rows[2]["key"], "jpg")]
    file = tmp_path / "00000.tar"
    shards.write_tar(file, rows, parquet=False, without=absent)
    with tarfile.open(file, "a") as archive:
        shards.add(archive, "../../etc/passwd.jpg", b"x")
        shards.add(archive, "/root/a.jpg", b"x")
        shards.add(archive, f"{rows[0]['key']}.jpg", b"other bytes")
        link = tarfile.TarInfo("000000009.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    source = opened(tmp_path)
    assert texts(source) == [f"picture {i} of file 0" for i in (0, 3, 4)]
    assert source.report["collections"][0]["skipped"] == {
        sources.OUTSIDE: 2,
        web.TWICE: 1,
        sources.NO_IMAGE: 1,
        sources.NO_CAPTION: 1,
    }
    assert source.example(0)["image"].shape == (16, 16, 3), "the first of two is used"


def test_keys_may_repeat_in_other_files(tmp_path):
    for folder in "ab":
        shards.write_tar(tmp_path / folder / "00000.tar", [shards.row(0, i) for i in range(3)])
    assert opened(tmp_path).size == 6


@pytest.mark.parametrize("kind", ["tar", "tfrecord"])
@pytest.mark.parametrize("parquet", [True, False])
def test_a_file_cut_off_gives_what_it_has(tmp_path, kind, parquet, capfd):
    shards.collection(tmp_path, 2, kind=kind, parquet=parquet)
    file = tmp_path / f"00000.{kind}"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * (0.4 if kind == "tar" else 0.6))])
    source = opened(tmp_path)
    if not parquet:
        assert 7 < source.size < 12
        assert source.report["collections"][0]["skipped"][web.CUT_OFF] == 1
    pipe = Pipeline(source, Lengths(), SIZES, ("image", "tokens"), seed=0)
    for step in range(6):
        assert pipe.batch_at(step)["image"].shape == (4, 16, 16, 3)
    if parquet:  # the list promised more than the file holds
        assert pipe.skipped[web.ABSENT] > 0
        assert f"00000.{kind}:" in capfd.readouterr().err


BAD = {
    "latin": ("un café".encode("latin-1"), NOT_UTF8),
    "sjis": ("星の写真".encode("cp932"), NOT_UTF8),
    "blank": (b" \n", sources.NO_CAPTION),
}


@pytest.mark.parametrize("kind", ["tar", "tfrecord"])
def test_captions_that_are_not_utf8_are_counted_and_listed(tmp_path, kind):
    texts = {"wide": codecs.BOM_UTF16_LE + "thé".encode("utf-16-le"), "good": "thé".encode()}
    texts |= {key: content for key, (content, _) in BAD.items()}
    file = tmp_path / f"00000.{kind}"
    picture = shards.picture(shards.row(0, 0))
    if kind == "tar":
        with tarfile.open(file, "w") as archive:
            for key, content in texts.items():
                shards.add(archive, f"{key}.jpg", picture)
                shards.add(archive, f"{key}.txt", content)
            shards.add(archive, "json.jpg", picture)
            shards.add(archive, "json.json", '{"caption": "thé"}'.encode("latin-1"))
    else:
        import tensorflow as tf

        with tf.io.TFRecordWriter(str(file)) as writer:
            for key, content in texts.items():
                writer.write(example(key=[key.encode()], jpg=[picture], txt=[content]))
    source = opened(tmp_path)
    assert {source.name(i): source.captions(i) for i in range(source.size)} == {
        f"{file}:good": ["thé"],
        f"{file}:wide": ["thé"],
    }
    part = source.report["collections"][0]
    bad = ["json", "latin", "sjis"] if kind == "tar" else ["latin", "sjis"]
    assert part["skipped"] == {NOT_UTF8: len(bad), sources.NO_CAPTION: 1}
    listed = [{"file": f"{file}:{key}", "reason": NOT_UTF8} for key in bad]
    assert part["skipped_files"] == listed


def test_captions_of_parquet_that_are_no_text_are_counted(tmp_path):
    """Their bytes are not UTF-8, or there are none: null, NaN, numbers, lists."""
    rows = [shards.row(0, i) for i in range(3)]
    shards.write_tar(tmp_path / "00000.tar", rows, parquet=False)
    table = {"key": [row["key"] for row in rows]}
    numbers = pyarrow.array([1.5, float("nan"), None])
    lists = pyarrow.array([["a"], None, []])
    kinds = {"numbers": numbers, "lists": lists}
    texts = pyarrow.array([b"fine", "été".encode("latin-1"), None])
    kinds["texts"] = texts.view(pyarrow.string())
    kinds["bytes"] = texts
    kinds["dictionary"] = texts.view(pyarrow.string()).dictionary_encode()
    for kind, captions in kinds.items():
        columns = pyarrow.table({**table, "caption": captions})
        pyarrow.parquet.write_table(columns, tmp_path / "00000.parquet")
        if kind in ("numbers", "lists"):
            none, other = (2, 1) if kind == "numbers" else (1, 2)
            with pytest.raises(DataError) as error:
                opened(tmp_path)
            assert f"{none} {sources.NO_CAPTION}" in str(error.value)
            assert f"{other} {sources.NOT_TEXT}" in str(error.value)
            continue
        source = opened(tmp_path)
        assert source.size == 1
        part = source.report["collections"][0]
        assert part["skipped"] == {NOT_UTF8: 1, sources.NO_CAPTION: 1}
        key = f"{tmp_path}/00000.parquet:{rows[1]['key']}"
        assert part["skipped_files"] == [{"file": key, "reason": NOT_UTF8}]


def test_the_screen_says_what_is_left_out(tmp_path, capfd):
    opened(shards.collection(tmp_path / "a", 2))
    said = "a: 12 examples of 2 files are used; left out: 2 not downloaded"
    assert said in capfd.readouterr().err
    shards.write_tar(tmp_path / "b" / "00000.tar", [shards.row(0, 0)])
    opened(tmp_path / "b")
    assert "1/1, 0 skipped" in capfd.readouterr().err


def test_most_of_a_file_may_be_missing(tmp_path):
    """More neighbours in a row than a few bad ones: others take their place."""
    rows = [shards.row(0, i) for i in range(400)]
    shards.write_parquet(tmp_path / "00000.parquet", rows)
    shards.write_tar(tmp_path / "00000.tar", rows[:100], parquet=False)
    pipe = Pipeline(opened(tmp_path), Lengths(), SIZES, ("image", "id"), seed=0, shuffle=False)
    batch = pipe.batch_at(50)
    assert (batch["id"] < 100).all()
    equal(pipe.batch_at(50), batch)


def test_keys_of_parquet_that_are_no_text_are_counted(tmp_path):
    rows = [shards.row(0, i) for i in range(2)]
    shards.write_tar(tmp_path / "00000.tar", rows, parquet=False)
    shards.write_parquet(tmp_path / "00000.parquet", [rows[0], {**rows[1], "key": None}])
    assert texts(opened(tmp_path)) == [rows[0]["caption"]]


def test_odd_pictures_are_shown_on_white(tmp_path):
    rows = [shards.row(0, i) for i in range(2)]
    out = io.BytesIO()
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(out, "PNG")
    cmyk = io.BytesIO()
    Image.new("CMYK", (20, 20), (0, 255, 255, 0)).save(cmyk, "JPEG")
    with tarfile.open(tmp_path / "00000.tar", "w") as archive:
        for entry, suffix, content in zip(rows, ("png", "jpg"), (out, cmyk), strict=True):
            shards.add(archive, f"{entry['key']}.{suffix}", content.getvalue())
            shards.add(archive, f"{entry['key']}.txt", b"a colour")
    source = opened(tmp_path)
    assert (source.example(0)["image"] == 255).all()
    red = source.example(1)["image"][8, 8]
    assert red[0] > 200
    assert max(red[1:]) < 60


# --- Batches -----------------------------------------------------------------------------------


def pipeline(source, index=0, count=1, seed=3):
    needs = ("image", "tokens", "token_mask", "id")
    return Pipeline(
        source, Lengths(), SIZES, needs, seed=seed, process_index=index, process_count=count
    )


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_one_stream(tmp_path, count):
    source = opened(shards.collection(tmp_path, 8), lanes=4, window=2)
    for step in (0, 7, 40):
        parts = [pipeline(source, i, count).batch_at(step) for i in range(count)]
        joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        equal(joined, pipeline(source).batch_at(step))


def test_a_resumed_run_sees_what_it_would_have_seen(tmp_path):
    shards.collection(tmp_path, 8)
    steps = pipeline(opened(tmp_path)).iterate(0)
    before = [next(steps) for _ in range(9)]
    steps.close()
    again = pipeline(opened(tmp_path)).iterate(6)
    for batch in before[6:]:
        equal(next(again), batch)
    again.close()


def test_an_epoch_sees_everything_in_random_order(tmp_path):
    source = opened(shards.collection(tmp_path, 8, 5), lanes=4)
    pipe = pipeline(source)
    seen = np.concatenate([pipe.batch_at(step)["id"] for step in range(20)])
    first, second = seen[:40], seen[40:]
    assert sorted(first) == sorted(second) == list(range(40))
    assert list(first) != list(second)


def test_sources_are_mixed_by_weight(tmp_path):
    shards.collection(tmp_path / "a", 4)
    shards.collection(tmp_path / "b", 4, kind="tfrecord")
    mixture = (("a", 3.0), ("b", 1.0))
    source = opened(tmp_path, mix=mixture)
    assert source.size == 48
    pipe = pipeline(source)
    ids = np.concatenate([pipe.batch_at(step)["id"] for step in range(300)])
    assert abs(np.mean(ids < 24) - 0.75) < 0.04
    assert len(set(ids.tolist())) == 48
    report = [part["weight"] for part in source.report["collections"]]
    assert report == [3.0, 1.0]


def test_some_files_are_held_out(tmp_path):
    shards.collection(tmp_path, 10, 3)
    data = config(tmp_path)
    data.web.held_out = 0.2
    parts = {split: texts(make_source(data, 16, split)) for split in ("train", "val", "test")}
    assert len(parts["train"]) == 24
    assert parts["val"] == parts["test"]
    assert not set(parts["train"]) & set(parts["val"])


def test_folders_named_after_splits_are_splits(tmp_path):
    shards.collection(tmp_path / "train", 2)
    shards.collection(tmp_path / "val", 1, 2)
    assert opened(tmp_path).size == 12
    assert opened(tmp_path, "val").size == 2


def test_the_report_lies_in_the_work_directory(tmp_path):
    shards.collection(tmp_path / "data", 2)
    opened(tmp_path / "data", workdir=tmp_path / "run")
    report = json.loads((tmp_path / "run" / "data_report_train.json").read_text())
    assert report["collections"][0]["skipped"] == {web.FAILED: 2}


def test_a_bucket_is_read_like_a_folder(tmp_path):
    """TensorFlow's file system in memory stands for one."""
    shards.collection(tmp_path, 2)
    for name in files.walk(str(tmp_path)):
        files.write_bytes(f"ram://web/{name}", (tmp_path / name).read_bytes())
    here, there = opened(tmp_path), opened("ram://web")
    assert texts(there) == texts(here)
    np.testing.assert_array_equal(there.example(5)["image"], here.example(5)["image"])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda root: None, "holds 0 files, none of them .tar or .tfrecord.*img2dataset"),
        (lambda root: root.rmdir(), "is no folder"),
        (lambda root: (root / "a.txt").write_text("x"), "holds 1 files"),
        (lambda root: (root / "0.tar").write_bytes(b"no tar" * 99), "no usable example.*cut off"),
    ],
)
def test_nothing_to_use_is_an_error(tmp_path, make, match):
    root = tmp_path / "data"
    root.mkdir()
    make(root)
    with pytest.raises(DataError, match=match):
        opened(root)


def test_mutated_files_never_crash(tmp_path):
    """Bits flipped in tar, TFRecord, parquet and JSON: everything is read or counted."""
    chance = random.Random(0)
    pristine = shards.collection(tmp_path / "good", 2, 4)
    shards.collection(tmp_path / "goodr", 2, 4, kind="tfrecord")
    reasons = collections.Counter()
    for trial in range(200):
        kind = ("tar", "tfrecord")[trial % 2]
        parquet = trial % 4 >= 2
        root = tmp_path / "bad" / str(trial)
        root.mkdir(parents=True)
        origin = pristine if kind == "tar" else tmp_path / "goodr"
        for file in origin.iterdir():
            content = bytearray(file.read_bytes())
            if file.suffix == ".parquet" and not parquet:
                continue
            if file.stem == "00000":
                for _ in range(chance.choice([1, 3, 30])):
                    content[chance.randrange(len(content))] = chance.randrange(256)
                if chance.random() < 0.3:
                    del content[chance.randrange(len(content)) :]
            (root / file.name).write_bytes(content)
        source = opened(root)
        reasons.update(source.report["collections"][0]["skipped"])
        for i in range(source.size):
            try:
                assert source.example(i)["image"].shape == (16, 16, 3)
                assert source.captions(i)[0]
            except images.Unreadable as error:
                reasons[error.reason] += 1
    assert {web.CUT_OFF, images.CORRUPT, web.ABSENT} <= set(reasons)
