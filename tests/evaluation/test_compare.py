"""Several runs or folders side by side: the same captions and seeds, differences in pairs."""

import dataclasses
import json
import re

import numpy as np
import pytest
from PIL import Image

from jaxt2i import api, evaluate, recognise
from jaxt2i.evaluation import commands, compare, judges, sides
from jaxt2i.evaluation.reading import Reader
from jaxt2i.metrics import confidence, frechet, kernel, statistics
from jaxt2i.run import open as runs
from jaxt2i.run import settings
from tests.evaluation import small

pytestmark = pytest.mark.xdist_group("evaluate")


def run(monkeypatch, out, *args):
    small.use(monkeypatch)
    given = ("--protocol", "small", *small.WEIGHTS, "--out", out)
    evaluate.main([str(a) for a in ("--compare", *args, *given)])
    return json.loads((out / "compare.json").read_text())


# --- Intervals of differences --------------------------------------------------------------------


def gaussian(x):
    return statistics.gaussian(statistics.of_rows(x))


@pytest.mark.parametrize("metric", ["fid", "kid"])
def test_what_pairs_share_cancels(metric):
    rng = np.random.default_rng(0)
    real = rng.normal(size=(400, 6))
    captions = rng.normal(size=(240, 6)) * 1.5
    first, second = (captions + 0.2 * rng.normal(size=captions.shape) + c for c in (0.0, 0.4))
    other = rng.permutation(second)

    def interval(a, b):
        if metric == "fid":
            return confidence.of_fid_difference(gaussian(real), a, b, repeats=60)
        gap = kernel.mmd2_unbiased(a, real) - kernel.mmd2_unbiased(b, real)
        return confidence.of_kid_difference(a, b, real, gap)

    pairs, apart = interval(first, second), interval(first, other)
    assert pairs.high - pairs.low < 0.85 * (apart.high - apart.low)
    assert pairs.high < 0, "the first lies nearer to the real ones"
    same = interval(first, first)
    assert same.low == same.high == 0


def test_the_middle_of_a_difference_is_the_difference():
    rng = np.random.default_rng(1)
    real, a, b = (rng.normal(loc, 1, (120, 4)) for loc in (0, 0.1, 0.6))
    found = confidence.of_fid_difference(gaussian(real), a, b, repeats=100)
    value = frechet.fid(gaussian(real), gaussian(a)).value
    value -= frechet.fid(gaussian(real), gaussian(b)).value
    assert found.low < value < found.high < 0


# --- Folders and runs ----------------------------------------------------------------------------


def noisy(folder, to, amount):
    """The same pictures and captions with noise."""
    to.mkdir()
    rng = np.random.default_rng(0)
    for file in folder.glob("*.png"):
        pixels = np.asarray(Image.open(file), float)
        pixels = np.clip(pixels + amount * rng.normal(size=pixels.shape), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(to / file.name)
        (to / file.name).with_suffix(".txt").write_text(file.with_suffix(".txt").read_text())
    return to


@pytest.fixture
def three(tmp_path):
    a = small.pictures(tmp_path / "a")
    small.pictures(tmp_path / "real", start=200)
    return a, noisy(a, tmp_path / "b", 15), noisy(a, tmp_path / "c", 60)


def test_three_folders_are_compared_in_pairs(monkeypatch, three, tmp_path, capsys):
    metrics = ("--metrics", "fid,kid,precision_recall,inception_score")
    given = (*three, "--reference", tmp_path / "real", *metrics)
    found = run(monkeypatch, tmp_path / "out", *given)
    assert [r["name"] for r in found["runs"]] == [str(p) for p in three]
    value = [{s["metric"]: s["value"] for s in r["scores"]} for r in found["runs"]]
    pairs = {(d["metric"], d["of"], d["and"]): d for d in found["differences"]}
    assert len(pairs) == 3 * 7
    last = pairs["fid", str(three[0]), str(three[2])]
    assert last["difference"] == pytest.approx(value[0]["fid"] - value[2]["fid"])
    assert last["interval"]["low"] <= last["difference"] <= last["interval"]["high"] < 0
    assert last["better"] == str(three[0])
    for d in pairs.values():
        assert d["interval"]["low"] - 1e-9 <= d["difference"] <= d["interval"]["high"] + 1e-9
    assert "of 21 intervals" in " ".join(found["notes"])
    assert found["facts"]["captions"]["count"] == 48
    assert found["facts"]["networks"]["inception_small"]["backend"] == "cpu"
    page = (tmp_path / "out" / "compare.html").read_text()
    shown = page.count("data:image/png;base64,")
    assert 3 * compare.SHOWN <= shown <= 3 * (compare.SHOWN + compare.APART)
    assert not shown % 3
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "better" in capsys.readouterr().out


@pytest.fixture
def run_of_a_toy(monkeypatch, tmp_path):
    """A run that is opened without weights: what it would be asked to draw is enough here."""
    config = settings.preset("configs/df_gan.py", "tiny")
    (tmp_path / "run").mkdir()
    settings.write_config(tmp_path / "run", config, "a test")
    opened = []

    def load(path, *, step, use_ema):
        opened.append((str(path), step))
        run = runs.open_run(settings.read_config(path))
        return api.System(run=run, state=None, frozen=None, use_ema=use_ema)

    monkeypatch.setattr(api, "load", load)
    return str(tmp_path / "run"), opened


def test_runs_draw_for_the_captions_of_a_folder_with_the_same_seeds(run_of_a_toy, tmp_path):
    place, opened = run_of_a_toy
    folder = small.pictures(tmp_path / "a", 6)
    found = sides.of(sides.Wanted((f"{place}@2", f"{place}@best", str(folder)), num=5, seed=7))
    assert opened == [(place, "2"), (place, "best")]
    assert [s.count for s in found.sets] == [5, 5, 5]
    assert found.sets[2].captions == found.captions
    # A picture depends on its row alone, and the rows are the same.
    rows = [s.rows(range(5)) for s in found.sets[:2]]
    assert rows[0] == rows[1]
    assert [r["prompt"] for r in rows[0]] == list(found.captions)
    assert len({r["seed"] for r in rows[0]}) == 5


def test_a_run_beside_real_pictures(run_of_a_toy):
    place, _ = run_of_a_toy
    found = sides.of(sides.Wanted((place, "real"), num=3))
    assert found.sets[1].captions == found.captions == found.sets[0].captions
    assert found.corpus == "blooms"
    shown = found.sets[1].pictures(range(3))
    assert len(shown) == 3
    assert found.real.count == sides.ENDLESS


def test_judges_of_preference_are_compared_in_pairs(monkeypatch, three, tmp_path):
    asked = []

    def verdicts(metrics, pictures, reader):
        asked.append(metrics)
        values = np.arange(pictures.count) + (len(asked) == 1)
        return {m: judges.Verdicts(m, np.arange(pictures.count), values) for m in metrics}

    monkeypatch.setattr(judges, "verdicts", verdicts)
    found = run(monkeypatch, tmp_path / "out", *three[:2], "--metrics", "pick_score,image_reward")
    assert asked == [["pick_score", "image_reward"]] * 2
    for d in found["differences"]:
        # One more for every caption: the interval of the pairs has no width.
        assert d["difference"] == d["interval"]["low"] == d["interval"]["high"] == 1
        assert d["better"] == str(three[0])
    assert len(found["by_caption"]["image_reward"][0]) == 48


def test_the_recogniser_compares_runs_on_procedural_corpora(run_of_a_toy, monkeypatch, tmp_path):
    place, _ = run_of_a_toy
    given = sides.of(sides.Wanted((place, "real"), num=48))
    # The run has no weights here: real pictures stand for what it would draw.
    given = dataclasses.replace(given, sets=(given.sets[1], given.sets[1]))
    rng, turn = np.random.default_rng(0), []

    def held_against(eye, seen, captions):
        turn.append(len(captions))
        right = np.arange(48) % 4 < len(turn)
        return {"by_picture": {"class": np.stack([right, np.ones(48)], 1)}}

    monkeypatch.setattr(recognise, "eye", lambda corpus, cache: corpus)
    monkeypatch.setattr(recognise, "real", lambda *_: ({"features": rng.normal(size=(99, 3))}, ()))
    monkeypatch.setattr(recognise, "held_against", held_against)
    monkeypatch.setattr(
        recognise, "readings", lambda eye, x: {"features": rng.normal(size=(len(x), 3))}
    )
    protocol = small.use(monkeypatch)
    found = compare.compare(given, protocol, ["recognised"], Reader())
    gaps = {d.metric: d for d in found.differences}
    assert gaps["recognised_class"].value == pytest.approx(0.25 - 0.5)
    assert gaps["recognised_class"].better == 1
    assert gaps["recognised_frechet"].better is None
    assert turn == [48, 48]


def test_rows_without_a_readable_picture_are_left_out_on_every_side(monkeypatch, three, tmp_path):
    (three[1] / "004.png").write_bytes(b"no picture")
    given = (*three[:2], "--reference", tmp_path / "real", "--metrics", "precision_recall")
    found = run(monkeypatch, tmp_path / "out", *given)
    assert len(found["captions"]) == 47
    assert "1 captions were left out" in " ".join(found["notes"])
    assert (three[0] / "004.txt").read_text().strip() not in found["captions"]


def test_what_cannot_be_compared_is_refused(monkeypatch, three, tmp_path, capsys):
    small.pictures(tmp_path / "alone", 1)
    (tmp_path / "alone" / "000.txt").write_text("nothing like it")
    for args, words in {
        (three[0], three[0]): "each once",
        (three[0], three[1], "--metrics", "fid"): "give --reference DIR",
        (three[0], three[1], "--metrics", "lpips"): "not compared in pairs",
        (three[0], three[1], "--metrics", "recognised"): "procedural corpora",
        (three[0], tmp_path / "alone"): "no caption in common",
    }.items():
        with pytest.raises(SystemExit) as exit_:
            run(monkeypatch, tmp_path / "out", *args)
        assert words in f"{exit_.value} {capsys.readouterr().err}", args


@pytest.mark.parametrize("option", commands.ALONE)
def test_what_processes_cannot_share_is_refused(monkeypatch, option):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    with pytest.raises(SystemExit, match=f"{option} .* several processes cannot share"):
        evaluate.main([option, "x"])
