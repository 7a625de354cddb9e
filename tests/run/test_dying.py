"""Runs made to die, and data that teaches nothing: each is told of in a sentence."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from jaxt2i.configs import df_gan
from jaxt2i.data.sources import make_source
from jaxt2i.engine.loop import NonFinite
from jaxt2i.evaluation import judge
from jaxt2i.run import facts, health, log, train
from tests.engine import toy_config
from tests.quick import one_device

COLOURS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 200)}
pytestmark = pytest.mark.xdist_group("dying")


@pytest.fixture(autouse=True)
def _on_one_device():
    with one_device():
        yield


def on_white(folder, count=48, *, caption="", still=False):
    """Small dots on white, which saturate what draws them."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        name = list(COLOURS)[0 if still else i % 3]
        x, y = (8, 8) if still else rng.integers(4, 14, 2)
        image = Image.new("RGB", (20, 20), (255, 255, 255))
        ImageDraw.Draw(image).ellipse((x, y, x + 4, y + 4), fill=COLOURS[name])
        image.save(folder / f"{i:03d}.png")
        (folder / f"{i:03d}.txt").write_text((caption or f"a {name} dot {i}") + "\n")
    return folder


def df_gan_config():
    c = df_gan.get_config("tiny")
    c.score_images, c.grid.count = 8, 2
    c.log_every_steps = c.checkpoint_every_steps = 20
    c.sample_every_steps = 60
    return c


def toy():
    """By Adam, which saturates what draws within a few dozen steps."""
    c = toy_config.get_config()
    c.optim.adam, c.grid.count = True, 2
    c.log_every_steps, c.checkpoint_every_steps, c.sample_every_steps = 2, 6, 6
    return c


SYSTEMS = {"toy": toy, "df_gan": df_gan_config}
# What each dies of on white, and by which lines of its metrics that is seen.
SAID = {
    "toy": "of all values of drawn pictures are black or full",
    "df_gan": "the gradient of 'g' in player 'g' is",
}
SEEN = {
    "toy": lambda line: (
        line.get("health/saturated", 0) > health.SATURATED
        and line["pixels/saturated"] > health.BEYOND
    ),
    "df_gan": lambda line: line.get("health/gradient/g/g", 1) < health.VANISHED,
}
both = pytest.mark.parametrize("system", ["toy", pytest.param("df_gan", marks=pytest.mark.full)])


def config(folder, steps, system="toy"):
    c = SYSTEMS[system]()
    c.data.update(source="folder", path=str(folder))
    c.total_steps = steps
    return c


@both
def test_a_gan_dies_on_white_says_so_and_keeps_what_was_good(tmp_path, capsys, monkeypatch, system):
    if system == "toy":
        monkeypatch.setattr(health, "YOUNG", 80)
    workdir, c = tmp_path / "run", config(on_white(tmp_path / "in"), 900, system)
    with pytest.raises(health.Dead, match=r"nothing is learned any more since about step \d+"):
        train.train(c, workdir, "white")
    assert SAID[system] in capsys.readouterr().out
    lines = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    dead = [line["step"] for line in lines if SEEN[system](line)]
    kept = [int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()]
    late = dead[0] + c.checkpoint_every_steps
    assert max(kept) < late, "none from after its death pushed out one from before"
    assert (workdir / "health.png").stat().st_size > 1000


@both
def test_a_learning_rate_a_hundred_times_too_high_ends_the_run(
    tmp_path, capsys, monkeypatch, system
):
    monkeypatch.setattr(health, "YOUNG", 80 if system == "toy" else 400)
    c = config(on_white(tmp_path / "in"), 900, system)
    if system == "toy":
        # A save waits for the one before it: by its end some are whole.
        c.optim.lr, c.checkpoint_every_steps = 100 * c.optim.lr, 2
    else:
        c.optim.g.lr, c.optim.d.lr = 100 * c.optim.g.lr, 100 * c.optim.d.lr
    with pytest.raises((health.Dead, NonFinite), match=r"The last (good )?checkpoint is step \d+"):
        train.train(c, tmp_path / "run", "fast")
    said = capsys.readouterr().out
    assert "step 1: one step moved 'd' by" in said
    assert "the learning rate (config.optim) is far too high" in said


def test_one_caption_and_one_picture_are_told_of_before_the_first_step(tmp_path, capsys):
    folder = on_white(tmp_path / "in", caption="a dot", still=True)
    train.train(config(folder, 1), tmp_path / "run", "one")
    said = capsys.readouterr().out
    assert "held-out captions are 'a dot': nothing can be learned of what captions mean" in said
    assert "held-out pictures are one and the same" in said
    # A folder that nobody divided is scored on what it was trained on: said once, and kept.
    assert said.count("are of pictures that are trained on, and say nothing of new captions") == 1
    assert "into a folder val/ beside a folder train/" in said
    known = facts.read(tmp_path / "run")
    assert known.seen
    run = SimpleNamespace(facts=known)
    (note,) = judge.trained_on(run, "")
    assert note.endswith("so this says nothing of new captions")
    assert not judge.trained_on(run, "another data set")
    records = log.Records(tmp_path / "run", 1, {"r": "higher"}, notes=["of training pictures"])
    assert records._scores == {"score/r": "r (higher is better, of training pictures)"}
    records.close()


def test_a_divided_folder_holds_pictures_out(tmp_path):
    for part, count in (("train", 3), ("val", 2)):
        (tmp_path / part).mkdir()
        on_white(tmp_path / part / "in", count)
    data = config(tmp_path, 1).data
    made = {split: make_source(data, 16, split) for split in ("train", "val", "test")}
    told = facts.of({"train": made["train"], "val": made["val"]})
    assert (told.seen, told.counts) == (False, {"train": 3, "val": 2})
    assert facts.of({"val": made["val"], "test": made["test"]}).seen, "val stands in for test"
    assert facts.of({"train": made["train"]}).seen
