"""A judge of one's own: on towers made up so that every answer is known."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.evaluation import independent
from jaxt2i.metrics.score import MetricError

SAID = [f"thing {i}" for i in range(30)]


def picture(number):
    """A picture that says which thing it is."""
    return np.full((4, 4, 3), number, np.uint8)


def one_hot(numbers):
    return np.eye(64)[np.asarray(numbers, int)] + 1e-3


@pytest.fixture
def clip():
    """Sees the thing in a picture and reads its number in a caption."""
    return independent.Clip(
        "made up",
        lambda pixels: one_hot(pixels[:, 0, 0, 0]),
        lambda captions: one_hot([int(text.split()[1]) for text in captions]),
    )


def test_right_pictures_are_found_and_shuffled_ones_are_not(clip):
    real = np.stack([picture(i) for i in range(30)])
    drawn = real.copy()
    drawn[:15] = 40
    groups = np.arange(30) % 3
    centres = independent.centres_of(clip, real, groups, 4)
    assert not centres[3].any(), "a class without pictures"
    scores = independent.judge(clip, drawn, real, SAID, groups, centres)
    found = {score.metric: score for score in scores}
    precision = found["independent_r_precision"]
    assert (precision.value, precision.facts["real_pictures"]) == (0.5, 1.0)
    assert precision.facts["shuffled_captions"] == 0
    assert found["independent_group"].value >= 0.5
    assert found["independent_group"].facts["real_pictures"] == 1
    assert "independent_colour" not in found, "no caption names one"
    assert "independent_colour_as_real" not in found, "no picture has one"
    assert found["independent_frechet"].value > 0.1


def test_equal_captions_are_no_distractors(clip):
    real = independent.look(clip, np.stack([picture(1)] * 6))
    said, none = ["thing 1"] * 6, np.array([""] * 6)
    right = independent.found_of(real, clip.read(said), said, None, None, none)
    assert right["r_precision"].all()
    assert "colour_as_real" not in right, "grey pictures have no colour"


def test_colours_are_those_of_the_captions_real_pictures(clip):
    rgb = {"green": (60, 160, 60), "blue": (40, 80, 220), "": (60, 60, 62)}
    real = np.stack([np.full((4, 4, 3), rgb[n], np.uint8) for n in ["green", "blue", "", "green"]])
    drawn = real.copy()
    drawn[3] = rgb["blue"]
    captions = ["thing 1", "thing 2", "red 3", "thing 4"]
    scores = {s.metric: s for s in independent.judge(clip, drawn, real, captions)}
    found = scores["independent_colour_as_real"]
    assert (found.value, found.facts["judged"]) == (pytest.approx(2 / 3), 3)
    assert found.facts["real_pictures"] == 1
    assert found.facts["shuffled_captions"] == pytest.approx(1 / 3, abs=1e-3)
    assert scores["independent_colour"].value == 0, "it says red and is grey"


def test_every_picture_is_looked_at_once(clip, monkeypatch):
    named, seen, read = [], [], []

    def noted(calls, function):
        return lambda x: (calls.append(x), function(x))[1]

    by = dataclasses.replace(clip, see=noted(seen, clip.see), read=noted(read, clip.read))
    monkeypatch.setattr(independent, "colour_of", noted(named, independent.colour_of))
    real = np.stack([picture(i) for i in range(6)])
    independent.judge(by, real[::-1], real, SAID[:6])
    assert len(named) == 12
    assert [len(x) for x in seen] == [6, 6]
    assert len(read) == 2, "the captions, and the shuffled ones"


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((220, 30, 30), "red"),
        ((250, 150, 20), "orange"),
        ((120, 70, 20), "brown"),
        ((250, 220, 40), "yellow"),
        ((60, 160, 60), "green"),
        ((40, 80, 220), "blue"),
        ((140, 60, 200), "purple"),
        ((240, 80, 170), "pink"),
        ((250, 250, 250), ""),
        ((90, 90, 95), ""),
    ],
)
def test_colours_are_named_on_a_white_ground(rgb, name):
    image = np.full((16, 16, 3), 255, np.uint8)
    image[4:12, 4:12] = rgb
    assert independent.colour_of(image) == name


@pytest.mark.parametrize(
    ("caption", "colour"),
    [("A Red apple", "red"), ("red and blue heart", ""), ("tired face", ""), ("blue-ish", "blue")],
)
def test_a_caption_asks_for_one_colour_or_none(caption, colour):
    assert independent.asked_colour(caption) == colour


def test_the_network_that_trained_a_run_may_not_judge_it():
    tower = {"kernel": jnp.arange(6.0).reshape(2, 3)}
    other = {"kernel": jnp.arange(6.0).reshape(2, 3) + 1}
    independent.check_apart(tower, {"guide": {"params": other}, "g": other}, "A", "B")
    with pytest.raises(MetricError, match="A is the very network 'guide' of B"):
        independent.check_apart(tower, {"guide": {"params": tower}}, "A", "B")
