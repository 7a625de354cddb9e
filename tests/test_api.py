"""The Python API: functions that are command lines too, the best of several, curves."""

import inspect
import types

import numpy as np
import pytest

import jaxt2i
from jaxt2i import api
from jaxt2i import train as training
from jaxt2i.config import ConfigError
from jaxt2i.data.schema import DataError
from jaxt2i.engine.method import Control
from jaxt2i.evaluation import best, report, sweep
from jaxt2i.metrics import protocols
from jaxt2i.metrics.score import Score
from jaxt2i.run import shown
from tests.evaluation import small

pytestmark = pytest.mark.xdist_group("api")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return jaxt2i.load(small.untrained(tmp_path_factory.mktemp("run") / "df_gan"))


def test_presets_are_found_by_name_and_show_themselves():
    found = jaxt2i.presets("df_gan")
    assert {"df_gan:embedded", "df_gan:tiny", "df_gan:coco"} <= set(found)
    assert repr(found).splitlines()[0].split() == ["preset", "what", "it", "is"]
    assert found._repr_html_().count("<tr>") == len(found) + 1
    with pytest.raises(ConfigError, match="no presets of the name 'df-gan'; did you mean df_gan"):
        jaxt2i.presets("df-gan")


def test_training_is_a_function(monkeypatch, tmp_path):
    begun = []
    monkeypatch.setattr(training, "begin", lambda *given: begun.append(given))
    monkeypatch.chdir(tmp_path)
    where = jaxt2i.train("df_gan:tiny", batch_size=16, **{"data.corpus": "scenes"})
    config, workdir, command = begun.pop()
    assert (config.batch_size, config.data.corpus, config.total_steps) == (16, "scenes", 8)
    assert where == workdir
    assert str(where).startswith("runs/df_gan-tiny-")  # a mark for what was changed
    assert command == "jaxt2i.train('df_gan:tiny', batch_size=16, data.corpus='scenes')"
    assert str(jaxt2i.train("df_gan:tiny", total_steps=8)) == "runs/df_gan-tiny"
    assert str(jaxt2i.train(config, "mine")) == "mine"
    for given, said in (
        ({"config": "df_gan:tiny", "batchsize": 8}, "no setting config.batchsize; did you mean"),
        ({"config": "df_gan:tiny", "batch_size": "8"}, "config.batch_size='8': expected a whole"),
        ({"config": "df_gan:tini"}, "tini"),
        ({"config": config}, "needs a workdir"),
        ({"config": "df_gan:tiny", "seed": -1}, "expected a whole number from 0"),
    ):
        with pytest.raises(ConfigError, match=said):
            jaxt2i.train(**given)


def test_modules_of_commands_are_functions():
    for name in ("train", "evaluate", "export"):
        module = getattr(jaxt2i, name)
        assert isinstance(module, types.ModuleType)
        assert inspect.signature(module) == inspect.signature(getattr(module, name))


def test_controls_and_conditions_show_themselves(model):
    assert list(model.conditions) == ["prompt"]
    assert model.conditions["prompt"].needed
    assert "the caption" in repr(model.conditions)
    assert repr(model.controls) == "no controls"
    psi = Control("psi", 1.0, 0.0, 2.0, help="truncation")
    way = Control("way", "ddim", choices=("ddim", "ddpm"), help="<how>")
    steps = Control("steps", 50, 1, help="turns")
    lines = [line.split() for line in repr(shown.controls([psi, way, steps])).splitlines()]
    assert lines[1] == ["psi", "float", "1.0", "0.0", "to", "2.0", "truncation"]
    assert lines[2] == ["way", "str", "ddim", "ddim,", "ddpm", "<how>"]
    assert lines[3] == ["steps", "int", "50", "1", "or", "more", "turns"]
    assert "&lt;how&gt;" in shown.controls([way])._repr_html_()


def test_the_best_of_several_is_kept_and_can_be_drawn_again(model):
    every = model.sample(["a red rose"], num=6)
    kept = model.sample(["a red rose"], num=2, best_of=3)
    for i, row in enumerate(kept.rows):
        scores = row["scores"]
        assert scores["judge"] == "mini_clip"
        assert len(scores["all"]) == 3
        assert scores["best"] == max(scores["all"]) == kept.scores[i]
        assert row["seed"] == 3 * i + int(np.argmax(scores["all"]))
        np.testing.assert_array_equal(kept.arrays[i], every.arrays[row["seed"]])
    assert len({x for row in kept.rows for x in row["scores"]["all"]}) == 6
    np.testing.assert_array_equal(model.sample(kept.rows).arrays, kept.arrays)
    with pytest.raises(ConfigError, match="judge 'pickscore'; did you mean pick_score"):
        model.sample(["a"], best_of=2, judge="pickscore")
    with pytest.raises(ConfigError, match="2 or more"):
        model.sample(["a"], judge="mini_clip")
    with pytest.raises(DataError, match="leave z and walks out"):
        list(best.candidates([{"prompt": "a", "z": [0.0]}], 2))
    with pytest.raises(DataError, match="seeds end at"):
        list(best.candidates([{"prompt": "a", "seed": 2**31}], 2))


@pytest.mark.parametrize(
    ("rows", "how", "words"),
    [
        ("a", {"num": 0}, "num=0: expected a whole number of pictures, 1 or more"),
        ("a", {"num": 1.5}, "num=1.5: expected a whole number"),
        ("a", {"num": "2"}, "num='2': expected a whole number"),
        ([], {}, "no rows: expected captions"),
        (None, {}, "null; expected an object such as"),
        (["a", 5], {}, "5; expected an object such as"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(model, rows, how, words):
    with pytest.raises(DataError, match=words):
        model.sample(rows, **how)


def test_walks_without_two_ends_are_refused(model):
    for num in (-1, 0, 1, 2.5):
        with pytest.raises(DataError, match=f"num={num}: expected .* 2 or more"):
            model.interpolate("a", "b", num=num)
    with pytest.raises(DataError, match="null; expected an object"):
        model.interpolate("a", None)


def test_one_name_is_one_name_not_its_letters(model):
    with pytest.raises(ConfigError, match="draws no 'stages'"):
        model.sample("a", also="stages")
    with pytest.raises(ConfigError, match="/nowhere/run holds no run"):
        jaxt2i.load(model.about["source"], after="/nowhere/run")
    with pytest.raises(ConfigError, match="chunk=-1: expected 1 or more"):
        api.System(run=model.run, state=model.weights[0], frozen=model.weights[1], chunk=-1)
    with pytest.raises(ConfigError, match="--format onnx"):
        jaxt2i.export(model.about["source"], "/nowhere/export", formats="onnx")


def test_words_that_change_nothing_are_said_once(model, capsys):
    box = {"label": "cat", "box": [0, 0, 1, 1]}
    rows = [{"prompt": "a rose", "objects": [box], "negative": "blurred"}] * 2
    drawn = model.sample(rows)
    said = capsys.readouterr().err
    assert said.count("'negative' changes nothing: jaxt2i.systems.df_gan does not read it") == 1
    assert said.count("'objects' changes nothing") == 1
    np.testing.assert_array_equal(drawn.arrays[0], model.sample("a rose").arrays[0])
    model.sample(drawn.rows)  # what it drew itself says what it was asked
    assert not capsys.readouterr().err
    model.sample("rose " * 500)
    assert "the end is not read: captions are cut at" in capsys.readouterr().err


def test_saving_twice_keeps_one_line_a_picture(model, tmp_path):
    drawn = model.sample(["a", "b"])
    for _ in range(2):
        drawn.save(tmp_path / "out")
        assert len((tmp_path / "out" / "metadata.jsonl").read_text().splitlines()) == 2
    assert [one["row"]["prompt"] for one in drawn[1:]] == ["b"]


def test_evaluation_is_a_function(model):
    found = jaxt2i.evaluate(model, metrics=["mini_clip_frechet"], num=8)
    assert set(found.values) == {"mini_clip", "mini_clip_frechet"}
    assert found.values["mini_clip_frechet"] > 0.1
    assert "mini_clip_frechet" in found._repr_html_()
    assert any("flatters" in note for note in found.said())
    with pytest.raises(ConfigError, match="no option 'metric'; did you mean"):
        jaxt2i.evaluate(model, metric="fid")
    with pytest.raises(ConfigError, match="step says how a system is loaded"):
        jaxt2i.evaluate(model, step="best")


def test_a_sweep_judges_every_value_and_draws_one_figure(monkeypatch, tmp_path):
    def judged(args):
        value = dict(args.set)["psi"]
        scores = [Score("mini_clip", 0.2 + value), Score("mini_clip_frechet", 1 - value)]
        return report.Result("run", 4, scores, protocols.get("tf2015"))

    psi = Control("psi", 1.0, 0.0, 2.0)
    config = types.SimpleNamespace(model={"perception": "mini"})
    system = types.SimpleNamespace(
        controls={"psi": psi},
        check=lambda given: None,
        run=types.SimpleNamespace(config=config),
    )
    monkeypatch.setattr(sweep, "judge", judged)
    args = types.SimpleNamespace(system=system, sweep="psi=1,0.5,0.7", set=[], metrics=[])
    found = sweep.sweep(args)
    told = found.as_dict()
    assert [line["psi"] for line in told["values"]] == [0.5, 0.7, 1.0]
    assert [curve.title.split()[0] for curve in found.panels()] == [
        "mini_clip",
        "mini_clip_frechet",
    ]
    assert found.panels()[1].points[0] == (0.5, 0.5)
    assert {file.name for file in sweep.write(tmp_path, found)} == {
        "sweep_psi.json",
        "sweep_psi.png",
    }
    assert (tmp_path / "sweep_psi.png").read_bytes()[:4] == b"\x89PNG"
    for text, said in (("psi", "expected CONTROL=A,B,C"), ("psi=1", "two numbers or more")):
        with pytest.raises(ConfigError, match=said):
            sweep.values_of(text, system)
    with pytest.raises(ConfigError, match=r"0\.0 to 2\.0"):
        sweep.values_of("psi=1,3", system)
