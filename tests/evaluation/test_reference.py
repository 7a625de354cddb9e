"""References: statistics of files, moments that are kept, captions, runs whose data has moved."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from jaxt2i import evaluate
from jaxt2i.data.schema import DataError
from jaxt2i.evaluation import record, reference, report, scores, sets
from jaxt2i.evaluation.reading import Look, Reader
from jaxt2i.metrics import protocols, published
from jaxt2i.metrics import statistics as stats
from jaxt2i.metrics.score import MetricError, Score, StatisticsError
from tests.evaluation import small

pytestmark = pytest.mark.xdist_group("evaluate")
PROTOCOL = protocols.get("tf2015")


def statistics(file, said=None, width=12):
    rows = np.random.RandomState(0).rand(50, width)
    stats.save(file, stats.gaussian(stats.of_rows(rows)), protocol=said)
    return file


# --- Statistics of files -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"fid.network": "inception_torchvision"}, "network inception_torchvision.*inception_2015"),
        ({"fid.network": "inception_2015", "fid.input": "dmgan"}, "input dmgan.*input tf1"),
        ({"network": "inception_2015", "preprocessing": "clean"}, "input clean"),
        (protocols.settings(protocols.get("stylegan")), "input stylegan, ddof 0"),
        ({"fid.ddof": 0}, "ddof 0, and --protocol tf2015 measures with ddof 1"),
    ],
)
def test_statistics_that_were_made_otherwise_are_refused(tmp_path, said, match):
    file = statistics(tmp_path / "s.npz", said)
    with pytest.raises(StatisticsError, match=rf"s\.npz: made with .*{match}"):
        reference.of_file(file, PROTOCOL, ["fid"])


def test_statistics_that_say_nothing_are_called_unknown(tmp_path):
    theirs = protocols.get("galip_coco")
    found = reference.of_file(statistics(tmp_path / "s.npz"), theirs, ["fid"])
    assert found.says == "network and preprocessing unknown"
    score = Score("fid", 6.0, facts={"reference_says": found.says})
    known = report.Result("x", None, [score], theirs)
    assert report.beside(known, score), "under this protocol numbers were published"
    compared = record.reference_of(reference.Compared(given=found), 0)
    assert compared.file == "s.npz"
    judged = report.Result("x", None, [score], dataclasses.replace(theirs, reference=compared))
    assert report.beside(judged, score) == ()
    assert "network and preprocessing unknown" in " ".join(report.columns(judged, score))
    half = statistics(tmp_path / "h.npz", {"network": "inception_torchvision"})
    assert reference.of_file(half, theirs, ["fid"]).says == "input unknown"
    # The published file is known by its name, and nothing else is known of it.
    named = statistics(tmp_path / theirs.reference.file)
    found = reference.of_file(named, theirs, ["fid"])
    assert found.says == "by its name the published one"
    compared = record.reference_of(reference.Compared(given=found), 0)
    same = dataclasses.replace(theirs, reference=compared)
    assert {x.model for x in published.beside(same, "fid")} == {"GALIP, paper", "GALIP, released"}


def test_statistics_that_say_all_are_taken(tmp_path):
    file = statistics(tmp_path / "s.npz", protocols.settings(PROTOCOL))
    found = reference.of_file(file, PROTOCOL, ["fid", "fid_inf"])
    assert found.says == ""
    assert record.reference_of(reference.Compared(given=found), 0) == PROTOCOL.reference
    with pytest.raises(MetricError, match=r"kid compare with the reference's pictures themselves"):
        reference.of_file(file, PROTOCOL, ["fid", "kid"])


def test_an_unknown_reference_is_said_beside_the_number(monkeypatch, tmp_path, capsys):
    small.use(monkeypatch)
    folder = small.pictures(tmp_path / "a")
    file = statistics(tmp_path / "s.npz")
    asked = ["--images", folder, "--reference", file, "--protocol", "small", *small.WEIGHTS]
    evaluate.main([str(a) for a in (*asked, "--metrics", "fid", "--no-intervals")])
    assert "network and preprocessing unknown" in " ".join(capsys.readouterr().out.split())
    found = json.loads((tmp_path / "a-evaluation" / "scores.json").read_text())
    assert found["scores"][0]["facts"]["reference_says"] == "network and preprocessing unknown"
    assert any("does not say how it was made" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"mu": np.array(["a"]), "sigma": np.eye(1)}, "expected real numbers"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 0.5], [0, 1]])}, "is no covariance"),
        ({"mu": np.zeros(2), "sigma": -np.eye(2)}, "is no covariance"),
    ],
)
def test_arrays_that_are_no_moments_are_refused(tmp_path, content, said):
    np.savez(tmp_path / "s.npz", **content)
    with pytest.raises(StatisticsError, match=rf"s\.npz: .*{said}"):
        stats.load(tmp_path / "s.npz")


def test_a_bad_file_is_told_of_before_any_network_is_looked_for(tmp_path, capsys):
    (tmp_path / "s.npz").write_text("<html>")
    with pytest.raises(SystemExit):
        evaluate.arguments(["--images", str(tmp_path), "--reference", str(tmp_path / "s.npz")])
    assert "--reference: " in capsys.readouterr().err


@pytest.mark.parametrize("text", ["not JSON", "[1]", "3"])
def test_what_another_program_calls_protocol_is_none_of_ours(tmp_path, text):
    given = {"mu": np.zeros(2), "sigma": np.eye(2), "protocol": np.array(text)}
    np.savez(tmp_path / "s.npz", **given, N=np.array(np.nan))
    found = stats.load(tmp_path / "s.npz")
    assert (found.protocol, found.gaussian.count) == ({}, None)


# --- Moments that are kept ---------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    """A run on a folder of pictures that are wider than high."""
    folder = small.untrained(tmp_path / "run", small.TOY, steps=(1,))
    (tmp_path / "data").mkdir()
    for i in range(6):
        paint(tmp_path / "data", i, seed=i)
        (tmp_path / "data" / f"{i}.txt").write_text(f"picture {i}\n")
    change(folder, source="folder", path=str(tmp_path / "data"))
    return folder


def paint(folder, number, seed):
    noise = np.random.RandomState(seed).randint(0, 255, (24, 40, 3), np.uint8)
    Image.fromarray(noise).save(folder / f"{number}.png")


def change(run, **data):
    file = run / "config.json"
    config = json.loads(file.read_text())
    config["data"].update(data)
    file.write_text(json.dumps(config))


def judged(monkeypatch, run, *args):
    small.use(monkeypatch)
    asked = ("--workdir", run, "--protocol", "small", *small.WEIGHTS, "--metrics", "fid")
    evaluate.main([str(a) for a in (*asked, "--num", 4, "--no-intervals", *args)])
    found = json.loads((run / "evaluation" / "step_00000001.json").read_text())
    return found["scores"][0]["value"]


def test_moments_are_kept_while_nothing_changes_and_no_longer(monkeypatch, run, tmp_path):
    before = judged(monkeypatch, run)
    with monkeypatch.context() as patch:
        patch.setattr(reference, "keep", lambda *a: pytest.fail("made again without a reason"))
        assert judged(monkeypatch, run) == before
    # Other pictures under the same names.
    for i in range(6):
        paint(tmp_path / "data", i, seed=100 + i)
    after = judged(monkeypatch, run)
    assert after != pytest.approx(before, rel=1e-6)
    # A file that was damaged is made again.
    for file in (run / "references").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    assert judged(monkeypatch, run) == pytest.approx(after, rel=1e-6)


def test_another_framing_or_network_has_moments_of_its_own(monkeypatch, run, tmp_path):
    shared = ("--cache", tmp_path / "kept")
    centre = judged(monkeypatch, run, *shared)
    change(run, crop="none")
    whole = judged(monkeypatch, run, *shared)
    assert whole != pytest.approx(centre, rel=1e-6)
    change(run, resize="area")
    assert judged(monkeypatch, run, *shared) != pytest.approx(whole, rel=1e-6)
    assert len(list((tmp_path / "kept").iterdir())) == 3
    change(run, workers=3)
    judged(monkeypatch, run, *shared)
    assert len(list((tmp_path / "kept").iterdir())) == 3


def test_weights_are_part_of_what_moments_depend_on(monkeypatch, tmp_path):
    small.use(monkeypatch)
    readers = [Reader({"inception_small": "random"}) for _ in range(2)]
    weights = readers[1].network("inception_small").variables["features"]["params"]
    weights["Dense_0"]["kernel"] = weights["Dense_0"]["kernel"] + 1
    real, look = sets.Set("x", 2, None, digest="d"), Look("inception_small", "plain")
    files = {reference.cached(real, look, reader, tmp_path)[0] for reader in readers}
    assert len(files) == 2


# --- Captions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["absent", "empty", "no columns"])
def test_captions_are_asked_for_by_those_who_read_them(monkeypatch, tmp_path, capsys, fault):
    small.use(monkeypatch)
    a, b = small.pictures(tmp_path / "a", 6), small.pictures(tmp_path / "b", 6)
    if fault == "absent":
        (a / "001.txt").unlink()
    elif fault == "empty":
        (b / "001.txt").write_text("")
        (a / "001.txt").write_text(" \n")
    else:
        (a / "metadata.csv").write_text("name,words\n001.png,x\n")
    asked = ["--images", a, "--reference", b, "--protocol", "small", *small.WEIGHTS]
    evaluate.main([str(x) for x in (*asked, "--metrics", "fid,kid,precision_recall")])
    with pytest.raises(DataError):
        sets.of_folder(a)
    lax = sets.of_folder(a, strict=False)
    assert lax.captions is None
    with pytest.raises(MetricError, match=r"clip_score need them: put a\.txt beside"):
        scores.check_captions(lax, ["fid", "clip_score"])
    capsys.readouterr()


# --- Data that has moved -----------------------------------------------------------------------


def test_data_that_moved_is_pointed_to(monkeypatch, run, tmp_path):
    before = judged(monkeypatch, run)
    there = (tmp_path / "data").rename(tmp_path / "elsewhere")
    with pytest.raises(SystemExit, match=r"its data lay in .*data, which does not .*--data DIR"):
        judged(monkeypatch, run)
    assert judged(monkeypatch, run, "--data", there) == pytest.approx(before, rel=1e-6)
    assert judged(monkeypatch, run, f"--config.data.path={there}") == pytest.approx(before)
    with pytest.raises(SystemExit, match=r"--data .*nowhere: no such folder"):
        judged(monkeypatch, run, "--data", tmp_path / "nowhere")
    with pytest.raises(SystemExit, match=r"--data .*0\.png: a file"):
        judged(monkeypatch, run, "--data", there / "0.png")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--images", "a", "--data", "d", "--reference", "r"), "compared with one of them"),
        (("--images", "a", "--num", "3"), "--num says how pictures are drawn here"),
        (("--images", "a", "--split", "val"), "--split is of --data"),
        (("--images", "a", "--config.data.path=d"), "--images DIR has none"),
        (("--workdir", "a", "--config.model.width=3"), "only --config.data.path=DIR"),
        (("--workdir", "a", "--resolution", "8"), "--resolution cuts and resizes"),
        (("--workdir", "a", "--protocol", "x", "--protocols", "a,b"), "give one of them"),
        (("--workdir", "a", "--config", "c", "--weights", "w"), "give --workdir RUN, or"),
        (("--config", "c"), "give --workdir RUN, or --images DIR"),
        (("--config", "c", "--weights", "w", "--raw"), "converted weights are used as they are"),
        (("--config", "c", "--weights", "w", "--step", "3"), "--step chooses a checkpoint"),
        (("--config", "c", "--weights", "w", "--watch"), "--watch needs --workdir"),
    ],
)
def test_arguments_without_an_effect_are_refused(args, said, capsys):
    with pytest.raises(SystemExit):
        evaluate.arguments(args)
    assert said in capsys.readouterr().err
