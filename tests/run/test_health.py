"""Signs of a dying run: on numbers made up for each, and on runs of the toy game made to die."""

import numpy as np
import pytest

from jaxt2i.run import health

LATE = 10 * health.YOUNG


def reals(seed=0, count=16):
    return np.random.default_rng(seed).integers(20, 230, (count, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def said():
    return []


def line(gradient=1.0, **more):
    return {"g/grad_norm/g": gradient, **more}


def test_a_gradient_that_vanishes_is_said_once_with_who_won(said):
    watch = health.Watch(said.append)
    assert watch.line(1, LATE, line())["health/gradient/g/g"] == 1
    for step in range(2, 9):
        watch.line(step, LATE, line(1e-6, **{"d/fake": 0.0, "d/real": 0.0}))
    (vanished,) = [text for text in said if "gradient" in text]
    assert "step 4: the gradient of 'g' in player 'g' is 1e-06 of what it was" in vanished
    assert "'d' has won" in vanished
    with pytest.raises(health.Dead, match=r"since about step 4 .*last checkpoint is step 2"):
        watch.check([1, 2])
    with pytest.raises(health.Dead, match="There is no checkpoint yet"):
        watch.check([])
    watch.line(9, LATE, line())
    assert "well again" in said[-1]
    watch.check([])


def test_a_small_gradient_once_or_early_is_no_sign(said):
    watch = health.Watch(said.append)
    watch.line(1, LATE, line())
    for _ in range(health.LINES - 1):
        watch.line(2, LATE, line(0.0))
    watch.line(3, LATE, line())
    for step in range(4, 20):
        watch.line(step, health.YOUNG - 1, line(0.0))
    assert not said
    assert not watch.doubtful


def test_pictures_that_saturate_or_agree_are_said_with_the_real_ones_beside(said):
    real = reals()
    watch = health.Watch(said.append)
    watch.knows(real, ["a", "b"])
    white = np.full((12, 8, 8, 3), 255, np.uint8)
    for step in (1, 2):
        out = watch.pictures(step, LATE, white, 8)
    assert out["health/saturated"] == 1
    assert out["pixels/spread"] == 0
    assert "100.0% of all values of drawn pictures are black or full (0.0% of real ones)" in said[0]
    assert "8 captions give one picture" in said[1]
    assert set(watch.dead) == {"saturated", "one picture"}
    # A white ground is no sign where real pictures have it.
    on_white = np.where(real > 200, real, 255).astype(np.uint8)
    fresh = health.Watch(said.append)
    fresh.knows(on_white, ["a", "b"])
    for step in (1, 2):
        fresh.pictures(step, LATE, on_white[:12], 8)
    assert not fresh.dead


def test_a_latent_without_effect_is_said_and_is_not_death(said):
    watch = health.Watch(said.append)
    watch.knows(reals(), ["a", "b"])
    drawn = reals(1, 8)
    for step in (1, 2):
        out = watch.pictures(step, LATE, np.concatenate([drawn, drawn[:4]]), 8)
    assert out["health/between_seeds"] == 0
    assert said == [text for text in said if "the latent changes nothing" in text] != []
    assert not watch.dead


def test_scores_equal_to_the_last_digit_mean_that_nothing_changes(said):
    watch = health.Watch(said.append)
    for step in range(4):
        watch.scores(step, LATE, {"score/frechet": 0.25})
    assert "equal to the last digit" in said[0]
    assert watch.dead == {"scores": 2}
    watch.scores(5, LATE, {"score/frechet": 0.2500001})
    assert not watch.dead


def test_updates_that_tear_a_network_or_leave_it(said):
    watch = health.Watch(said.append)
    assert watch.updates(1, LATE, {"g": 0.8}) == {"health/update/g": 0.8}
    assert "one step moved 'g' by 80% of its size: the learning rate" in said[0]
    for step in (2, 3):
        watch.updates(step, LATE, {"g": 0.0})
    assert "steps no longer move 'g'" in said[-1]
    assert "still g" in watch.dead


def test_data_that_teaches_nothing_is_said_at_once(said):
    health.Watch(said.append).knows(np.repeat(reals(0, 1), 9, 0), ["a cat"] * 9)
    assert "all of 9 held-out captions are 'a cat'" in said[0]
    assert "9 held-out pictures are one and the same" in said[1]
