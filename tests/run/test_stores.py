"""Runs, pictures, weights and scores in a store of objects, and places where none can be."""

import importlib.util
import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from PIL import Image

import jaxt2i
from jaxt2i import evaluate, places, sample
from jaxt2i.config import ConfigError
from jaxt2i.data import conditions
from jaxt2i.run import borrow, checkpoint, export, files, log, own, settings, train, trouble
from jaxt2i.run.folder import Folder
from jaxt2i.run.open import open_run
from tests import stores
from tests.engine import toy_config
from tests.evaluation import small

RUN = "gs://shed/runs/toy"


@pytest.fixture(scope="module")
def store():
    with stores.serving("shed", "shut") as store:
        store.refused.add("shut")
        yield store


def config(steps):
    c = toy_config.get_config()
    c.total_steps, c.checkpoint_every_steps, c.sample_every_steps = steps, 2, 3
    c.data.tokenizer, c.model.vocab = "own_words", 300
    c.profile.start_step, c.profile.steps = 2, 1
    c.score_images = 8
    return c


@pytest.fixture(scope="module")
def runs(store, tmp_path_factory):
    """A run in the store that was stopped and continued, and its twin on disk that was not.

    In its first step the store takes no metrics; then it takes no third checkpoint.
    """
    save, write = checkpoint.Checkpoints.save, log.Records.write

    def refused(function, self, *args, step):
        store.refused |= {"shed"} if step in (1, 3) else set()
        try:
            return function(self, *args)
        finally:
            if function is write:
                store.refused.discard("shed")

    here = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setattr(own, "READ", 50)
        patch.setattr(log.Records, "write", lambda s, n, x: refused(write, s, n, x, step=n))
        train.train(config(2), RUN, "a test")
        patch.setattr(log.Records, "write", write)
        before = [line["step"] for line in checkpoint.history(epath.Path(RUN))]
        patch.setattr(
            checkpoint.Checkpoints, "save", lambda s, x, m, n: refused(save, s, x, m, n, step=n)
        )
        with pytest.raises(trouble.Unwritable) as failed:
            train.train(config(3), RUN, "a test")
        patch.setattr(checkpoint.Checkpoints, "save", save)
        store.refused.discard("shed")
        train.train(config(3), RUN, "a test")
        train.train(config(3), here / "twin", "a test")
        assert [p.name for p in here.iterdir()] == ["twin"], "nothing was written beside"
    assert max(before) == 2
    said = str(failed.value)
    assert said.startswith(f"{RUN}: the store does not do what it is asked (")
    assert said.endswith("the checkpoint of step 2 is whole, and the same command resumes")
    assert "\n" not in said
    return here / "twin"


def told(place):
    """{(step, quantity): value} of everything but speed."""
    lines = checkpoint.history(place)
    kinds = ("loss", "score/", "pixels/", "real")
    return {(x["step"], k): v for x in lines for k, v in x.items() if any(n in k for n in kinds)}


@pytest.mark.slow
@pytest.mark.xdist_group("stores")
def test_a_run_in_a_store_is_the_run_on_disk(store, runs, monkeypatch, capsys):
    assert len(told(runs)) > 12
    assert told(runs).items() <= told(RUN).items(), "the one that was stopped drew once more"
    names = [name.removeprefix("runs/toy/") for name in store.names("shed", "runs/toy/")]
    for file in runs.rglob("*"):  # what is on disk is in the store
        name = file.relative_to(runs).as_posix()
        if file.is_file() and name.split("/")[0] not in ("checkpoints", "profile", "tensorboard"):
            assert name in names
    assert any(name.startswith("tensorboard/events.out") for name in names)
    assert any(name.endswith(".xplane.pb") for name in names)
    assert "profile/summary.txt" in names
    assert not [name for name in names if ".parts/" in name]
    assert checkpoint.steps_in(RUN) == checkpoint.steps_in(runs) == [2, 3]

    asked = ("--prompts", "a red rose", "--num")
    sample.main(["--workdir", str(runs), *asked, "2"])
    sample.main(["--workdir", RUN, *asked, "2", "--out", "gs://shed/drawn"])
    sample.main(["--workdir", RUN, *asked, "2", "--out", "gs://shed/drawn"])
    assert "gs://shed/drawn has 2 of these pictures already" in capsys.readouterr().out
    for name in ("000000.png", "000001.png", "grid.png", "metadata.jsonl"):
        assert store.objects["shed", f"drawn/{name}"][0] == (runs / "drawn" / name).read_bytes()

    # What is drawn may lie there, too: captions, rows with the pictures they name, latents.
    latents = io.BytesIO()
    np.save(latents, np.zeros((1, 4), np.float32))
    for name, content in (
        ("captions.txt", b"a red rose\n"),
        ("rows.jsonl", b'{"prompt": "a red rose", "image": "p.png"}\n'),
        ("p.png", store.objects["shed", "drawn/000000.png"][0]),
        ("z.npy", latents.getvalue()),
    ):
        epath.Path(f"gs://shed/asked/{name}").write_bytes(content)
    found = []
    asked = (("--prompts-file", "captions.txt"), ("--conditions", "rows.jsonl"))
    for i, (option, file) in enumerate(asked):
        out, latent = runs / f"asked{i}", ("--z", "gs://shed/asked/z.npy") if i else ()
        given = (option, f"gs://shed/asked/{file}", *latent, "--out", str(out))
        sample.main(["--workdir", str(runs), *given])
        found.append((out / "000000.png").read_bytes())
    assert found[0] == store.objects["shed", "drawn/000000.png"][0]
    assert found[1] != found[0], "another latent"
    (row,) = conditions.read_file("gs://shed/asked/rows.jsonl")
    words = open_run(settings.read_config(epath.Path(runs))).words()
    with Image.open(runs / "drawn" / "000000.png") as picture:
        np.testing.assert_array_equal(words.arrays(row, ("image",))["image"], picture)
    with pytest.raises(ConfigError, match=r"gs://shed/asked/row.jsonl: no such file; did you mean"):
        sample.main(["--workdir", str(runs), "--conditions", "gs://shed/asked/row.jsonl"])

    small.use(monkeypatch)
    how = ("--protocol", "small", *small.WEIGHTS, "--metrics", "fid", "--num", "8")
    for place in (RUN, str(runs)):
        evaluate.main(["--workdir", place, *how, "--no-intervals"])
    scores = [
        json.loads((place / "evaluation" / "step_00000003.json").read_text())["scores"]
        for place in (epath.Path(RUN), runs)
    ]
    assert scores[0][0]["value"] == scores[1][0]["value"]
    assert [n for n in store.names("shed", "runs/toy/references/") if n.endswith(".npz")]


@pytest.mark.slow
@pytest.mark.xdist_group("stores")
def test_weights_go_from_store_to_store(store, runs):
    export.export(epath.Path(RUN), epath.Path("gs://shed/weights"))
    export.export(epath.Path(runs), epath.Path(runs.parent / "weights"))
    there, here = (borrow.earlier(f"{place}/weights")[0] for place in ("gs://shed", runs.parent))
    for name, value in checkpoint.named(here).items():
        np.testing.assert_array_equal(checkpoint.named(there)[name], value)
    arrays, where = borrow.earlier(f"{RUN}@2")
    assert where == f"{RUN}/checkpoints/2"
    assert set(arrays["params"]) == {"g", "d"}
    with pytest.raises(ConfigError, match=r"no checkpoint '7'; there are 2, 3"):
        borrow.earlier(f"{RUN}@7")
    drawn = [
        jaxt2i.load_weights(jaxt2i.load(place).run.config, f"{weights}/weights").sample("a rose")
        for place, weights in ((RUN, "gs://shed"), (runs, runs.parent))
    ]
    np.testing.assert_array_equal(drawn[0].arrays, drawn[1].arrays)


@pytest.mark.xdist_group("stores")
def test_a_checkpoint_that_was_not_finished_does_not_count(store):
    place = epath.Path("gs://shed/half/checkpoints")
    for step in (1, 2):
        (place / str(step) / "_METADATA").write_text("{}")
    (place / "1" / "commit_success.txt").write_text("1")
    assert checkpoint.steps_in("gs://shed/half") == [1]


@pytest.mark.xdist_group("stores")
def test_lines_are_written_in_parts_and_joined(store, monkeypatch):
    monkeypatch.setattr(files, "PART", 4)
    file = epath.Path("gs://shed/lines.jsonl")
    lines = files.Lines(file)
    for i in range(10):
        lines.add(json.dumps({"i": i}))
    lines.flush()
    assert store.names("shed", "lines") == [f"lines.jsonl.parts/{i:08d}" for i in (0, 4, 8)]
    assert files.json_lines(file) == [{"i": i} for i in range(10)]
    # Whoever goes on, without the parts having been joined, loses none and repeats none.
    more = files.Lines(file)
    more.add(json.dumps({"i": 10}))
    more.close()
    assert store.names("shed", "lines") == ["lines.jsonl"]
    assert files.json_lines(file) == [{"i": i} for i in range(11)]
    files.write_lines(file, ['{"i": 0}'])
    assert files.json_lines(file) == [{"i": 0}]


@pytest.mark.xdist_group("stores")
def test_a_folder_is_there_as_a_whole_or_made_again(store):
    place = epath.Path("gs://shed/perception")

    def make(part):
        part.mkdir()
        (part / "card.json").write_text("{}")
        raise OSError("the machine went away") if len(tries) == 1 else None

    tries = [1]
    with pytest.raises(OSError, match="went away"):
        places.made_whole(place, make)
    assert not store.names("shed", "perception")
    (place / "left.txt").write_text("of a copy that broke off")
    tries.append(2)
    places.made_whole(place, lambda part: (part.mkdir(), (part / "card.json").write_text("{}")))
    assert places.is_whole(place)
    places.made_whole(place, lambda part: pytest.fail("it is there"))
    assert (places.here(place) / "card.json").read_text() == "{}"


@pytest.mark.xdist_group("stores")
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("ftp://shed/run", r"no store of the kind ftp:// is known here; known: gs://, s3://, az:/"),
        ("gs://nowhere/run", r"cannot be written to .*is there such a bucket"),
        ("gs://shut/run", r"cannot be written to .*Forbidden"),
    ],
)
def test_places_where_no_run_can_be_are_refused_before_anything_is_made(store, place, said):
    started = time.monotonic()
    with pytest.raises(ConfigError, match=rf"--workdir {place}: {said}"):
        train.train(config(4), place, "a test")
    assert time.monotonic() - started < 5
    with pytest.raises(ConfigError, match=rf"--out {place}: {said}"):
        Folder(place, {}).open()


def test_what_is_missing_is_named(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n in ("gcsfs", "s3fs") else found(n)
    )
    with pytest.raises(ConfigError, match=r"config.init_from s3://.*pip install s3fs"):
        borrow.earlier("s3://bucket/run")
    with pytest.raises(ConfigError, match=r"--out gs://.*pip install gcsfs"):
        Folder("gs://bucket/x", {})
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: object())
    monkeypatch.setattr(places, "_check_answer", lambda *_: None)  # it is not truly there
    with pytest.raises(ConfigError, match=r"s3://bucket/run: checkpoints .*mount this bucket"):
        places.check_run(places.of("s3://bucket/run"), "--workdir")


@pytest.mark.parametrize("place", ["runs/x", "/tmp/a:b/c", "C:/runs/x", "~/runs"])
def test_other_places_stay_what_they_are(place):
    assert places.of(place) == epath.Path(place)
    assert str(places.of(place)) == str(Path(place))


def test_a_name_that_pathlib_shortened_is_still_the_bucket(store):
    assert str(places.of(Path("gs://bucket/run"))) == "gs://bucket/run"


def test_a_store_that_does_not_answer_is_told_of_at_the_door(monkeypatch):
    def silent(self):
        raise RuntimeError("could not resolve host\nmore of it")

    monkeypatch.setattr(type(epath.Path("gs://silent/run")), "exists", silent)
    said = r"gs://silent/run: the store does not answer \(RuntimeError: could not resolve host\)"
    for read in (places.of, jaxt2i.load):
        with pytest.raises(ConfigError, match=said):
            read("gs://silent/run")
