"""python -m jaxt2i.evaluate: folders, runs, references, reports, and what goes wrong."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from jaxt2i import evaluate, runs
from jaxt2i.metrics import published, statistics
from tests.data.builders.pictures import cut
from tests.evaluation import small

pytestmark = pytest.mark.xdist_group("evaluate")


def run(monkeypatch, *args):
    small.use(monkeypatch)
    evaluate.main([str(a) for a in args])


def folders(monkeypatch, tmp_path, *args):
    """The written JSON of judging a/ against b/."""
    place = ("--images", tmp_path / "a", "--reference", tmp_path / "b", "--protocol", "small")
    run(monkeypatch, *place, *small.WEIGHTS, *args)
    return json.loads((tmp_path / "a-evaluation" / "scores.json").read_text())


def values(found):
    return {score["metric"]: score["value"] for score in found["scores"]}


def failure(monkeypatch, capsys, *args):
    with pytest.raises(SystemExit) as exit_:
        run(monkeypatch, *args)
    return f"{exit_.value} {capsys.readouterr().err}"


# --- Folders -----------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path):
    small.pictures(tmp_path / "a")
    small.pictures(tmp_path / "b", start=200)
    return tmp_path


ALL = ("--metrics", "fid,inception_score,kid,precision_recall")


def test_folders_are_judged_and_everything_is_said(monkeypatch, two, capsys):
    found = folders(monkeypatch, two, *ALL)
    scores = values(found)
    assert scores["fid"] > 0
    assert 1 <= scores["inception_score"] <= 5
    assert {"kid", "precision", "recall", "density", "coverage"} <= set(scores)
    first = found["scores"][0]
    assert first["facts"]["network"] == "inception_small"
    assert first["facts"]["preprocessing"] == "plain"
    assert first["facts"]["protocol"] == "small"
    assert first["interval"]["low"] < first["value"] < first["interval"]["high"]
    assert found["protocol"]["samples.count"] == 48
    assert "48 generated images for 12 features" in " ".join(first["warnings"])
    out = capsys.readouterr().out
    assert "fid" in out
    assert "scores.html" in out


def test_equal_folders_are_at_no_distance(monkeypatch, tmp_path):
    small.pictures(tmp_path / "a")
    small.pictures(tmp_path / "b")
    scores = values(folders(monkeypatch, tmp_path, *ALL, "--no-intervals"))
    assert scores["fid"] < 1e-6
    assert scores["kid"] < 1e-3
    assert scores["precision"] == scores["recall"] == scores["coverage"] == 1


def test_batches_and_padding_change_nothing(monkeypatch, two):
    results = [
        values(folders(monkeypatch, two, *ALL, "--no-intervals", "--batch", n)) for n in (7, 48)
    ]
    for name, value in results[0].items():
        assert results[1][name] == pytest.approx(value, rel=1e-4), name


def test_published_statistics_serve_as_a_reference(monkeypatch, two):
    whole = folders(monkeypatch, two, "--metrics", "fid", "--no-intervals")
    from jaxt2i.evaluation import scores, sets
    from jaxt2i.evaluation.reading import Reader

    protocol = small.use(monkeypatch)
    look = scores.looks_of(protocol, ["fid"])["fid"]
    reader = Reader({"inception_small": "random"})
    seen = reader.read(sets.of_folder(two / "b"), [look]).features[look]["2048"]
    moments = statistics.gaussian(statistics.of_rows(seen))
    np.savez(two / "b.npz", mu=moments.mean, sigma=moments.covariance)
    place = ("--images", two / "a", "--reference", two / "b.npz", "--protocol", "small")
    run(monkeypatch, *place, *small.WEIGHTS, "--metrics", "fid", "--no-intervals")
    again = json.loads((two / "a-evaluation" / "scores.json").read_text())
    assert values(again)["fid"] == pytest.approx(values(whole)["fid"], rel=1e-6)
    assert again["scores"][0]["facts"]["reference"] == "statistics of a file"


def test_broken_pictures_are_counted_and_left_out(monkeypatch, two):
    cut(two / "a" / "003.png")
    found = folders(monkeypatch, two, "--metrics", "fid", "--no-intervals")
    assert found["facts"]["skipped"] == {"truncated or corrupt": 1}
    assert found["scores"][0]["facts"]["generated"] == 47


def test_the_page_stands_alone(monkeypatch, two):
    folders(monkeypatch, two, *ALL)
    page = (two / "a-evaluation" / "scores.html").read_text()
    assert page.count("data:image/png;base64,") == evaluate.GRID
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "95 % interval" in page
    caption = (two / "a" / "000.txt").read_text().strip()
    assert caption in page


@pytest.mark.parametrize(
    ("args", "match"),
    [
        (("--images", "A"), "compare with real pictures: give --reference"),
        (("--images", "A", "--workdir", "B"), "give --workdir RUN, or --images DIR"),
        (("--images", "A", "--metrics", "fidd"), "no metric 'fidd'; known: fid"),
        (("--images", "A", "--metrics", "recognised"), "need a run: give --workdir"),
        (("--images", "A", "--protocol", "smal"), "did you mean 'small'"),
        (("--images", "A", "--metrics", "clip_score"), "does not say how clip_score is measured"),
        (("--images", "NONE"), "is no folder of images"),
        (("--workdir", "NONE"), "holds no run"),
        (("--images", "A", "--weights", "x"), "expected NETWORK=FILE"),
        (
            ("--images", "A", "--reference", "FEW", "--metrics", "precision_recall"),
            "3 examples, at least 4 are needed",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(monkeypatch, two, capsys, args, match):
    few = small.pictures(two / "few", 3)
    places = {"A": two / "a", "B": two / "b", "NONE": two / "none", "FEW": few}
    given = [places.get(a, a) for a in args]
    protocol = () if "--protocol" in args else ("--protocol", "small")
    weights = () if "--weights" in args else small.WEIGHTS
    assert match in failure(monkeypatch, capsys, *given, *protocol, *weights)


def test_missing_weights_say_where_they_come_from(monkeypatch, two, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(two / "cache"))
    place = ("--images", two / "a", "--reference", two / "b", "--metrics", "fid")
    said = failure(monkeypatch, capsys, *place, "--weights", f"inception_2015={two / 'no.pth'}")
    assert "--weights inception_2015=FILE" in said


# --- Runs --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run with checkpoints after two and four steps."""
    folder = tmp_path_factory.mktemp("run")
    config = runs.preset("configs/df_gan.py", "tiny")
    config.total_steps = 4
    config.checkpoint_every_steps = 2
    config.score_images = 0
    runs.train(config, folder, "a test")
    return folder


def test_a_run_is_judged_by_networks(monkeypatch, workdir, tmp_path):
    place = ("--workdir", workdir, "--protocol", "small", "--num", 48, "--out", tmp_path)
    run(monkeypatch, *place, *small.WEIGHTS, "--metrics", "fid,kid,memorised", "--no-intervals")
    found = json.loads((tmp_path / "step_00000004.json").read_text())
    assert found["step"] == 4
    assert {"fid", "kid", "memorised"} == set(values(found))
    assert found["protocol"]["samples.dataset"] == "blooms"
    page = (tmp_path / "step_00000004.html").read_text()
    assert "Nearest training pictures" in page
    again = ("--metrics", "fid", "--no-intervals", "--cache", tmp_path / "kept")
    for _ in range(2):
        run(monkeypatch, *place, *small.WEIGHTS, *again)
        found = json.loads((tmp_path / "step_00000004.json").read_text())
    assert len(list((tmp_path / "kept").glob("*.npz"))) == 1


def test_curves_follow_the_checkpoints(tmp_path):
    from jaxt2i.evaluation import report

    for step in (10, 20, 30):
        line = {"step": step, "scores": [{"metric": "fid", "value": 100 / step}]}
        (tmp_path / f"step_{step:08d}.json").write_text(json.dumps(line))
    lines = report.history(tmp_path)
    assert [line["step"] for line in lines] == [10, 20, 30]
    report.write_curves(tmp_path / "curves.png", lines)
    with Image.open(tmp_path / "curves.png") as image:
        assert min(image.size) > 200
    (tmp_path / "step_00000040.json").write_text("{}")
    with pytest.raises(report.MetricError, match="is no evaluation"):
        report.history(tmp_path)


def test_watching_ends_with_the_run(monkeypatch, workdir, tmp_path):
    judged = []
    monkeypatch.setattr(evaluate, "finish", lambda args, result: judged.append(result.step))
    args = ("--workdir", workdir, "--protocol", "small", "--num", 40, "--metrics", "fid")
    run(monkeypatch, *args, *small.WEIGHTS, "--watch", "--out", tmp_path, "--no-intervals")
    assert judged == [4]


def test_published_numbers_stand_beside_equal_protocols_alone(monkeypatch):
    import dataclasses

    from jaxt2i.evaluation import report
    from jaxt2i.metrics import protocols
    from jaxt2i.metrics.score import Score

    theirs = protocols.get("galip_coco")
    score = Score("fid", 6.0)
    same = report.Result("x", None, [score], theirs)
    assert any("GALIP" in known.model for known in report.beside(same, score))
    fewer = dataclasses.replace(theirs.samples, count=100)
    other = report.Result("x", None, [score], dataclasses.replace(theirs, samples=fewer))
    assert report.beside(other, score) == ()
    assert isinstance(report.beside(same, score)[0], published.Published)


def test_a_recogniser_judges_runs_on_drawn_corpora(monkeypatch, workdir, tmp_path):
    """The real one has tests of its own; here it says what a good one might."""
    from jaxt2i import recognise

    tally = {"right": 0.5, "of_found": 0.6, "said": 40}
    summary = {
        "kinds": {"class": tally, "colour": {**tally, "right": 0.25}},
        "promises": 0.375,
        "all": 0.1,
        "rare": {"right": None, "of_found": None, "said": 0},
        "classes": {"owl": {"class": tally}},
        "relations": {},
        "numbers": {1: {"all": 0.1, "pictures": 40}},
        "frechet": 2.0,
    }
    seen = []

    def judge(pixels, captions, corpus, **kw):
        seen.append((pixels.shape, len(captions), corpus))
        return summary

    monkeypatch.setattr(recognise, "judge", judge)
    monkeypatch.setattr(recognise, "ceiling", lambda corpus, **kw: {**summary, "promises": 0.9})
    run(monkeypatch, "--workdir", workdir, "--num", 40, "--out", tmp_path)
    assert seen == [((40, 16, 16, 3), 40, "blooms")]
    found = json.loads((tmp_path / "step_00000004.json").read_text())
    scores = values(found)
    assert scores["recognised_promises"] == 0.375
    assert scores["recognised_colour"] == 0.25
    assert "recognised_rare" not in scores, "nothing was promised"
    share = next(s for s in found["scores"] if s["metric"] == "recognised_promises")
    assert share["facts"]["real_pictures"] == 0.9
    assert share["interval"]["low"] < 0.375 < share["interval"]["high"]
    page = (tmp_path / "step_00000004.html").read_text()
    assert "By class, the rarest first" in page
    assert "owl" in page
