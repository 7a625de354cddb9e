"""python -m jaxt2i.evaluate: folders, runs, references, reports, and what goes wrong."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from jaxt2i import evaluate
from jaxt2i.data import schema
from jaxt2i.engine import state as states
from jaxt2i.evaluation import judge, own, scores, sets, subjects
from jaxt2i.evaluation.reading import Reader
from jaxt2i.metrics import published, retrieval, statistics
from jaxt2i.metrics.score import Interval, MetricError
from tests.data.builders.pictures import cut
from tests.evaluation import small

pytestmark = pytest.mark.xdist_group("evaluate")
ROOT = Path(__file__).parents[2]


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


def test_pictures_of_other_sizes_are_judged_and_said(monkeypatch, two):
    Image.new("RGB", (30, 20), "red").save(two / "a" / "wide.png")
    (two / "a" / "wide.txt").write_text("a red wall\n")
    found = folders(monkeypatch, two, "--metrics", "fid", "--no-intervals")
    said = " ".join(found["notes"])
    assert "16 x 16 and 30 x 20" in said
    assert "49 pictures were judged, and numbers under small are of 64" in said


def test_the_page_stands_alone(monkeypatch, two):
    folders(monkeypatch, two, *ALL)
    page = (two / "a-evaluation" / "scores.html").read_text()
    assert page.count("data:image/png;base64,") == judge.GRID
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
        (("--images", "A", "--weights", "x"), "NETWORK=FILE, or DIR with --config"),
        (("--images", "A", "--weights", "inception=random"), "inception=...: no such network"),
        (("--images", "A", "--out", "NPY"), "a file of that name is there"),
        (("--images", "A", "--batch", "0"), "--batch is 1 or more"),
        (
            ("--images", "A", "--protocol", "attngan_coco", "--metrics", "r_precision"),
            "give --weights damsm=RUN",
        ),
        (
            ("--images", "A", "--reference", "FEW", "--metrics", "precision_recall"),
            "3 examples, at least 4 are needed",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(monkeypatch, two, capsys, args, match):
    few = small.pictures(two / "few", 3)
    np.save(two / "x.npy", np.zeros(3))
    places = {"A": two / "a", "B": two / "b", "NONE": two / "none", "FEW": few}
    given = [places.get(a, a.replace("NPY", str(two / "x.npy"))) for a in args]
    protocol = () if "--protocol" in args else ("--protocol", "small")
    weights = () if "--weights" in args else small.WEIGHTS
    assert match in failure(monkeypatch, capsys, *given, *protocol, *weights)


def test_missing_weights_say_where_they_come_from(monkeypatch, two, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(two / "cache"))
    place = ("--images", two / "a", "--reference", two / "b", "--metrics", "fid")
    said = failure(monkeypatch, capsys, *place, "--weights", f"inception_2015={two / 'no.pth'}")
    assert "--weights inception_2015=FILE" in said
    assert said.count("on cpu: 8 x cpu") == 1  # what it was to be computed on
    gone = ("--images", two / "a", "--reference", two / "gone", "--metrics", "fid")
    said = failure(monkeypatch, capsys, *gone, "--weights", f"inception_2015={two / 'no.pth'}")
    assert "gone: no such folder" in said  # before any network is looked for
    (two / "page.pth").write_text("<html>")
    said = failure(monkeypatch, capsys, *place, "--weights", f"inception_2015={two / 'page.pth'}")
    assert "neither .safetensors" in said


def test_every_network_metric_is_reached_by_its_name(monkeypatch, two, capsys):
    small.use(monkeypatch)
    small.stand_ins(monkeypatch)
    place = ("--images", two / "a", "--reference", two / "b", "--weights", *small.RANDOM)
    names = [m for m in scores.METRICS if m not in (*scores.PAIRED, "memorised")]
    run(monkeypatch, *place, "--metrics", ",".join(names))
    found = json.loads((two / "a-evaluation" / "scores.json").read_text())["scores"]
    balls = {"precision", "recall", "density", "coverage", "f_score"}
    assert {s["metric"] for s in found} == {*names, *balls} - {"precision_recall"}
    for score in found:
        low, high = score["interval"]["low"], score["interval"]["high"]
        assert low <= score["value"] + 1e-9, score["metric"]
        assert score["value"] <= high + 1e-9, score["metric"]
    fed = {s["metric"]: (s["facts"]["network"], s["facts"]["preprocessing"]) for s in found}
    assert fed["cmmd"] == ("openai_vit_l14_336", "pillow_crop_bicubic")
    assert fed["r_precision"] == fed["clip_score"] == ("openai_vit_b32", "pillow_bicubic_crop")
    assert fed["precision"] == ("vgg16_fc2", "tf1_224_imagenet")
    # The Frechet distance in DINOv2's features says all that it depends on.
    capsys.readouterr()
    run(monkeypatch, *place, "--protocol", "fdd", "--no-intervals")
    said = " ".join(capsys.readouterr().out.split())
    assert "dinov2_l14 / pillow_bicubic_imagenet" in said
    assert "48 / 48" in said
    assert "48 pictures were judged, and numbers under fdd are of 30,000" in said


def test_edits_are_held_against_their_originals(monkeypatch, tmp_path, capsys):
    for name, start in (("original", 0), ("edited", 70)):
        small.pictures(tmp_path / name, 6, start, size=40, captions=False)
    # Two equal pairs: their distance is 0.
    for name in ("000.png", "001.png"):
        (tmp_path / "edited" / name).write_bytes((tmp_path / "original" / name).read_bytes())
    place = ("--images", tmp_path / "edited", "--reference", tmp_path / "original")
    asked = (*place, "--metrics", "lpips", "--weights", "lpips_alex=random")

    def judged(*args):
        run(monkeypatch, *asked, *args)
        found = json.loads((tmp_path / "edited-evaluation" / "scores.json").read_text())
        return found["scores"][0], found

    score, found = judged("--protocol", "iir_net_coco")
    assert found["protocol"]["perceptual.between"] == "the picture and its edit"
    assert score["facts"]["network"] == "lpips_alex"
    assert score["facts"]["generated"] == 6
    assert 0 <= score["interval"]["low"] < score["value"] < score["interval"]["high"]
    reader = Reader({"lpips_alex": "random"})
    pixels = [[np.asarray(Image.open(p)) for p in sorted(x.iterdir())] for x in place[1::2]]
    each = reader.distance("alex", 8)(*map(np.stack, pixels))
    assert each[:2] == pytest.approx(0, abs=1e-6)
    assert score["value"] == pytest.approx(each.mean(), rel=1e-5)
    other = evaluate.arguments(["--images", "x", "--lpips-net", "vgg"])
    assert judge.protocol_of(other, "tf2015", ["lpips"]).perceptual.network == "vgg"
    # A pair of which one cannot be read is left out, and said to be.
    cut(tmp_path / "original" / "005.png")
    score, found = judged()
    assert score["value"] == pytest.approx(each[:5].mean(), rel=1e-5)
    assert "1 of 6 pairs were left out" in score["warnings"][0]
    small.pictures(tmp_path / "edited" / "more", 7, size=40, captions=False)
    said = failure(monkeypatch, capsys, *asked)
    assert "7 of 13 pictures" in said
    assert "(more/000, more/001, more/002, more/003, more/004 and 2 more)" in said
    small.pictures(tmp_path / "tiny", 6, captions=False)
    edits = ("--images", tmp_path / "tiny", *asked[2:])
    assert "16 x 16 in" in failure(monkeypatch, capsys, *edits)
    same = (*edits[:3], tmp_path / "tiny", *edits[4:])
    assert "too small for it" in failure(monkeypatch, capsys, *same)


# --- Runs --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run with checkpoints after two and four steps."""
    return small.untrained(tmp_path_factory.mktemp("run") / "toy", small.TOY)


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


def test_a_damsm_judges_the_run_that_borrowed_it_and_others(monkeypatch, tmp_path):
    teacher = small.untrained(tmp_path / "damsm", "configs/damsm.py")
    borrowed = {"init_from": str(teacher), "weights": "pretrained"}
    gan = small.untrained(tmp_path / "attngan", "configs/attngan.py", **borrowed)
    asked = ("--metrics", "r_precision", "--out", tmp_path / "out")
    run(monkeypatch, "--workdir", gan, "--num", 104, "--protocol", "objgan_coco", *asked)
    found = json.loads((tmp_path / "out" / "step_00000004.json").read_text())
    # The run was trained with 16 words a caption; the paper cuts to 12.
    assert found["protocol"]["samples.cap"] == "12 words"
    assert found["protocol"]["retrieval.weights"] == "trained here"
    score = found["scores"][0]
    assert (score["metric"], score["facts"]["network"]) == ("pool_precision", "damsm")
    assert score["interval"]["low"] <= score["value"] <= score["interval"]["high"]

    folder = small.pictures(tmp_path / "a", 40)
    place = ("--images", folder, "--protocol", "attngan_coco", "--weights", f"damsm={teacher}")
    run(monkeypatch, *place, *asked, "--batch", 16)
    score = json.loads((tmp_path / "out" / "scores.json").read_text())["scores"][0]
    # The same by hand, from the encoders as the other run borrowed them.
    of, pictures = subjects.opened(gan), sets.of_folder(folder)
    ctx = states.context(of.run.method, of.state, of.frozen, key=jax.random.key(0))
    pixels = schema.unit_range(np.stack(list(pictures.pictures(range(40)).values())))
    _, code = ctx("image", pixels, train=False)
    text = ctx("text", *of.run.tokenizer(list(pictures.captions)), train=False).sentence
    others = retrieval.negatives(np.unique(pictures.captions, return_inverse=True)[1], 99)
    found = retrieval.hits(np.asarray(code), np.asarray(text), others)
    assert score["value"] == pytest.approx(100 * found.mean())
    assert 0 < found.sum() < 40


PROCESS = """
import sys
import pytest
from jaxt2i import evaluate
from jaxt2i.evaluation import commands
from tests.evaluation import small
small.use(pytest.MonkeyPatch())
small.recogniser(pytest.MonkeyPatch())
at = sys.argv.index("--compare")
evaluate.main(sys.argv[1:at])
commands.make_comparison(sys.argv[at:])
"""


@pytest.mark.slow
def test_two_processes_judge_as_one(monkeypatch, workdir, tmp_path):
    asked = ("--workdir", workdir, "--protocol", "small", "--num", 43, "--batch", 8, "--metrics")
    own = "soa,feature_diversity"
    asked += (f"fid,fid_inf,inception_score,kid,precision_recall,{own}", *small.WEIGHTS)
    small.recogniser(monkeypatch)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    sides = [small.pictures(tmp_path / side, 21, 30 * i) for i, side in enumerate("ab")]
    for n in range(21):  # the same captions, other pictures
        (sides[1] / f"{n:03d}.txt").write_text((sides[0] / f"{n:03d}.txt").read_text())
    compared = ("--compare", *sides, "--reference", sides[0], "--protocol", "small", "--metrics")
    compared += ("kid,precision_recall", *small.WEIGHTS, "--batch", 8)
    both = [*asked, "--out", tmp_path / "two", *compared, "--out", tmp_path / "two_compared"]
    flags = "--xla_force_host_platform_device_count=2"
    named = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "XLA_FLAGS": flags}
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, *map(str, both)],
            cwd=ROOT,
            env={**os.environ, **named, "JAX_PROCESS_ID": str(i), "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    run(monkeypatch, *asked, "--out", tmp_path / "one")
    run(monkeypatch, *compared, "--out", tmp_path / "one_compared")
    said = [process.communicate(timeout=300)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], said
    assert "precision" in said[0]
    assert "precision" not in said[1], "the first process speaks for all"
    one, two = (
        json.loads((tmp_path / x / "step_00000004.json").read_text()) for x in ("one", "two")
    )
    for a, b in zip(one["scores"], two["scores"], strict=True):
        assert b["value"] == pytest.approx(a["value"], rel=1e-4, abs=1e-6), a["metric"]
        assert b["interval"]["high"] == pytest.approx(a["interval"]["high"], rel=1e-3, abs=1e-6)
    assert one["breakdowns"] == two["breakdowns"], "objects by class"
    assert (
        sum(row["pictures"] for rows in two["breakdowns"].values() for row in rows.values()) == 43
    )
    files = sorted(x.name for x in (tmp_path / "one" / "soa_step_00000004").iterdir())
    for name in files:
        both = [(tmp_path / x / "soa_step_00000004" / name).read_bytes() for x in ("one", "two")]
        assert both[0] == both[1], name
    one, two = (
        json.loads((tmp_path / f"{x}_compared" / "compare.json").read_text())["differences"]
        for x in ("one", "two")
    )
    for a, b in zip(one, two, strict=True):
        assert b["difference"] == pytest.approx(a["difference"], rel=1e-4, abs=1e-6), a["metric"]


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


def test_published_numbers_stand_beside_equal_protocols_alone(tmp_path):
    import dataclasses

    from jaxt2i.evaluation import report
    from jaxt2i.metrics import protocols
    from jaxt2i.metrics.score import Score

    doubtful = report.Result("x", None, [Score("fid", 18.0)], protocols.get("dmgan_cub"))
    row = report.columns(doubtful, doubtful.scores[0])[-1]
    assert "KT-GAN: 17.32 (in doubt: from memory, not read again; protocol assumed)" in row
    report.write_html(tmp_path / "x.html", doubtful)
    assert "in doubt: from memory" in (tmp_path / "x.html").read_text()
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
        "frechet_interval": Interval(1.9, 2.1, 0.95, "made up"),
        "by_picture": {
            "all": np.stack([np.arange(40) < 4, np.ones(40, int)], 1),
            "promises": np.tile([3, 8], (40, 1)),
            "rare": np.zeros((40, 2), int),
        },
    }
    best = summary | {"by_picture": {"promises": np.array([[9, 10]])}}
    seen = []

    def judge(pixels, captions, corpus, **kw):
        seen.append((pixels.shape, len(captions), corpus))
        return summary

    monkeypatch.setattr(recognise, "judge", judge)
    monkeypatch.setattr(recognise, "ceiling", lambda corpus, **kw: best)
    run(monkeypatch, "--workdir", workdir, "--num", 40, "--out", tmp_path)
    assert seen == [((40, 16, 16, 3), 40, "blooms")]
    found = json.loads((tmp_path / "step_00000004.json").read_text())
    scores = values(found)
    assert scores["recognised_promises"] == 0.375
    assert scores["recognised_all"] == 0.1
    assert "recognised_rare" not in scores, "nothing was promised"
    share = next(s for s in found["scores"] if s["metric"] == "recognised_promises")
    assert share["facts"]["real_pictures"] == 0.9
    # As often as the pictures, not as their eight promises each.
    assert share["interval"]["high"] - share["interval"]["low"] == pytest.approx(0.29, abs=0.02)
    page = (tmp_path / "step_00000004.html").read_text()
    assert "By class, the rarest first" in page
    assert "owl" in page


def test_samples_of_a_caption_are_told_apart_without_lpips(monkeypatch, workdir, tmp_path):
    """By a recogniser whose features are kept, and the score computed again from them."""
    from jaxt2i import recognise

    small.recogniser(monkeypatch)
    looked, plain = [], recognise.readings

    def read(eye, pixels):
        looked.append(plain(eye, pixels)["features"])
        return {"features": looked[-1]}

    monkeypatch.setattr(recognise, "readings", read)
    place = ("--workdir", workdir, "--metrics", "feature_diversity", "--out", tmp_path)
    run(monkeypatch, *place, "--num", 3)
    (score,) = json.loads((tmp_path / "step_00000004.json").read_text())["scores"]
    rows = looked[0].reshape(3, 10, -1)
    rows = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    apart = [1 - one @ one.T for one in rows]
    expected = np.mean([x[np.triu_indices(10, 1)].mean() for x in apart])
    assert score["metric"] == "feature_diversity"
    assert score["value"] == pytest.approx(expected, rel=1e-6)
    assert score["interval"]["low"] <= score["value"] <= score["interval"]["high"]
    assert score["facts"]["network"] == "recogniser of blooms"
    assert "lpips" not in json.dumps(score).lower()
    assert score["facts"]["between_captions"] > 0


def test_diversity_of_features_needs_a_network():
    folder = SimpleNamespace(config=SimpleNamespace(source="folder"))
    case = SimpleNamespace(args=SimpleNamespace(weights={}), data=folder)
    with pytest.raises(MetricError, match=r"--weights clip=RUN.*--metrics diversity"):
        own.seer(case)


def test_objects_that_captions_name_are_counted_in_what_a_run_draws(monkeypatch, workdir):
    """By a detector that knows real pictures by heart, and that sees nothing in others."""
    from jaxt2i import recognise
    from jaxt2i.data.drawn import meaning
    from jaxt2i.data.drawn.synthetic import Synthetic
    from jaxt2i.evaluation.detection import Detection, Detector

    source = Synthetic("blooms", 16, "val")
    classes = source.class_names

    def thing(n):
        (found,) = source.facts(n)["objects"]
        return Detection(found["label"], tuple(found["box"]), 1.0)

    known = {source.example(n)["image"].tobytes(): thing(n) for n in range(48)}

    def detect(images):
        return [[known[key]] if (key := x.tobytes()) in known else [] for x in images]

    def named(text):
        return [classes.index(t.name) for t in meaning.read(text, "blooms").things if t.name]

    by = Detector("by heart", classes, detect, named, rarest=tuple(range(len(classes))))
    monkeypatch.setattr(recognise, "detector", lambda corpus, **kw: by)
    run(monkeypatch, "--workdir", workdir, "--metrics", "soa", "--num", 24)
    out = workdir / "evaluation"
    found = json.loads((out / "step_00000004.json").read_text())
    for score in found["scores"]:
        assert score["value"] == 0
        assert score["facts"]["real_pictures"] == 100
        assert score["facts"]["network"] == "by heart"
        # None of a few is no certainty.
        assert score["interval"]["low"] == 0
        assert 10 < score["interval"]["high"] < 40
    names = [score["metric"] for score in found["scores"]]
    assert names[:2] == ["soa_c", "soa_i"]
    rarer, commoner = found["breakdowns"].values()
    assert names[2:] == [f"soa_c_top{len(commoner)}", f"soa_c_bot{len(rarer)}"]
    assert sum(row["pictures"] for row in (rarer | commoner).values()) == 24
    assert "24 captions, classes in turn" in " ".join(found["notes"])
    page = (out / "step_00000004.html").read_text()
    assert page.count("<svg") == 2
    assert (out / "soa_step_00000004" / "result_file.pkl").is_file()
