"""Judging pictures: a recogniser that is trained once, and scores that mean what they say."""

import json

import numpy as np
import pytest

from jaxt2i import recognise
from jaxt2i.configs import recogniser as presets
from jaxt2i.data.drawn import meaning
from jaxt2i.data.drawn.synthetic import Synthetic
from jaxt2i.metrics.score import MetricError

pytestmark = pytest.mark.xdist_group("recognise")


class Truth:
    """A recogniser that has learned everything: it knows a picture by its bytes."""

    def __init__(self, source, count):
        keys = ("box_label", "box_mask", "boxes", "box_attributes", "setting")
        self.known = {}
        for n in range(count):
            image = source.example(n)["image"]
            self.known[image.tobytes()] = source.example(n, keys) | {"features": image.mean((0, 1))}

    def __call__(self, images):
        rows = [self.known.get(x.tobytes(), next(iter(self.known.values()))) for x in images]
        return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


@pytest.fixture
def judged(monkeypatch):
    """Pictures and captions of scenes, and a judge that makes no mistakes."""
    source = Synthetic("scenes", 32, "val")
    eye = recognise.Eye("scenes", 32, Truth(source, 64), {})
    monkeypatch.setattr(recognise, "eye", lambda *_: eye)
    monkeypatch.setattr(recognise, "REAL", 64)
    images = np.stack([source.example(n)["image"] for n in range(60)])
    return images, [source.captions(n)[n % 5] for n in range(60)]


def test_true_captions_score_one_and_others_do_not(judged):
    images, captions = judged
    out = recognise.judge(images, captions, "scenes")
    assert out["all"] == out["promises"] == 1
    assert all(kind["right"] == 1 for kind in out["kinds"].values())
    assert {"class", "colour", "relation", "total", "place"} <= set(out["kinds"])
    assert sum(x["pictures"] for x in out["numbers"].values()) == 60
    assert out["unread"] == 0
    shuffled = recognise.judge(images, captions[7:] + captions[:7], "scenes")
    assert shuffled["all"] < 0.1
    assert shuffled["kinds"]["class"]["right"] < 0.5
    assert shuffled["kinds"]["relation"]["right"] < 0.2
    assert recognise.judge(images, ["a red zeppelin"] * 60, "scenes")["unread"] == 60


def test_the_ceiling_is_that_of_real_pictures(judged):
    out = recognise.ceiling("scenes")
    assert out["all"] == 1
    assert out["frechet"] < recognise.judge(255 - judged[0], judged[1])["frechet"]


def test_what_cannot_be_judged_is_refused(judged):
    images, captions = judged
    with pytest.raises(ValueError, match="60 images and 59 captions"):
        recognise.judge(images, captions[1:])
    with pytest.raises(ValueError, match=r"float64\[60, 32, 32, 3\]"):
        recognise.judge(images / 255, captions)
    with pytest.raises(ValueError, match=r"uint8\[60, 32, 16, 3\]"):
        recognise.judge(images[:, :, :16], captions)


def test_mixed_pictures_have_no_recogniser():
    with pytest.raises(ValueError, match="mixed"):
        recognise.eye("mixed")


def test_larger_pictures_are_averaged():
    fine = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    want = fine.reshape(3, 32, 2, 32, 2, 3).mean((2, 4))
    # Rounded along both axes.
    assert np.abs(recognise.seen_at(fine, 32) - want).max() <= 1
    assert recognise.seen_at(fine[:, :16, :16], 32).shape == (3, 32, 32, 3)
    assert recognise.seen_at(fine, 64) is fine


def test_names_depend_on_everything_that_matters(monkeypatch):
    config = presets.get_config("tiny")
    name = recognise.name_of(config)
    assert name == recognise.name_of(presets.get_config("tiny"))
    assert name.startswith("scenes-16-")
    changed = presets.get_config("tiny")
    changed.optim.lr = 0.1
    assert recognise.name_of(changed) != name
    monkeypatch.setattr(recognise.importlib.metadata, "version", lambda _: "9.9.9")
    later = recognise.name_of(config)
    assert later != name
    # Words are part of a corpus.
    monkeypatch.setattr(Synthetic, "captions", lambda self, index: ["a ball"])
    assert recognise.name_of(config) != later


@pytest.mark.slow
def test_a_recogniser_is_trained_once(tmp_path, monkeypatch, capsys):
    recognise.eye.cache_clear()
    first = recognise.eye("scenes", 16, tmp_path, "tiny")
    assert "training a recogniser of scenes" in capsys.readouterr().out
    (folder,) = tmp_path.iterdir()
    assert {p.name for p in folder.iterdir()} == {"eye.safetensors", "card.json"}
    assert json.loads((folder / "card.json").read_text())["step"] == 8
    assert "score/class" in first.card["scores"]

    recognise.eye.cache_clear()
    monkeypatch.setattr(recognise.training, "train", lambda *_: pytest.fail("trained again"))
    again = recognise.eye("scenes", 16, tmp_path, "tiny")
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    one, two = (recognise.readings(e, images) for e in (first, again))
    for key in one:
        np.testing.assert_array_equal(one[key], two[key])
    facts = meaning.decode("scenes", {key: x[0] for key, x in one.items()})
    assert facts["background"] in meaning.PLACES
    out = recognise.judge(images, ["a red ball"] * 5, resolution=16, cache=tmp_path, preset="tiny")
    assert out["kinds"]["class"]["said"] == 5
    assert np.isfinite(out["frechet"])
    recognise.eye.cache_clear()


def test_a_recogniser_that_was_stopped_early_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(recognise.training, "train", lambda *_: None)
    monkeypatch.setattr(recognise.checkpoint, "steps_in", lambda _: [3, 7])
    with pytest.raises(MetricError, match=r"stopped at step 7 of \d+: it is not kept"):
        recognise.train(presets.get_config("tiny"), tmp_path / "eye")
    assert list(tmp_path.iterdir()) == []
