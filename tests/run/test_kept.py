"""Which checkpoints of a run stay, and which of them a person means."""

import itertools
import json

import pytest

from jaxt2i.config import ConfigError
from jaxt2i.data import schema
from jaxt2i.engine import mesh
from jaxt2i.engine import step as steps
from jaxt2i.run import borrow, checkpoint, parts, placement, settings, training
from jaxt2i.run.open import load_method as load
from tests.engine.test_engine import SIZES, config, host_batch

GAPS = {2: 0.5, 3: 0.1, 4: 0.3, 6: 0.4}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Eight steps with a checkpoint each, of which two stay, and scores at some of them."""
    workdir = tmp_path_factory.mktemp("kept")
    method, layout = load(config()), placement.layout(mesh.make(8, 1, 1), ((".", "fsdp"),), 0.0)
    schedule = parts.Schedule(8, 0, 1, 0, keep_checkpoints=2, keep_steps=(5,))
    # The scores of a run that has begun already.
    lines = [{"step": step, "images": 16 * step, "score/gap": gap} for step, gap in GAPS.items()]

    def batches(first):
        for number in itertools.count(first):
            with (workdir / "metrics.jsonl").open("a") as file:
                for line in lines:
                    if line["step"] == number:
                        file.write(json.dumps(line) + "\n")
            yield layout.put_batch(host_batch(number))

    training.train(
        method,
        rules=steps.Rules(3, 16, 8),
        schedule=schedule,
        layout=layout,
        inputs=parts.Inputs(
            batch=schema.spec(SIZES, method.needs),
            batches=batches,
        ),
        workdir=workdir,
        config={},
    )
    settings.write_config(workdir, config(), "train")
    return workdir


def test_the_newest_the_best_and_those_asked_for_stay(run):
    steps_left = sorted(int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdigit())
    assert steps_left == [3, 5, 7, 8]


@pytest.mark.parametrize(
    ("which", "step"), [("newest", None), ("", None), ("best", 3), ("5", 5), ("8", 8)]
)
def test_a_person_names_one(run, which, step):
    assert checkpoint.chosen(run, which) == step
    # Each is the state after its step.
    place = f"{run}@{which}" if step else str(run)
    tree, where = borrow.earlier(place)
    assert where.endswith(f"/{step or 8}")
    assert int(tree["step"]) == (step or 8)


@pytest.mark.parametrize("which", ["4", "-1", "last", "3.0"])
def test_one_that_is_not_there_is_refused_with_those_that_are(run, which):
    with pytest.raises(ConfigError, match=rf"no checkpoint '{which}'; there are 3, 5, 7, 8, and"):
        checkpoint.chosen(run, which)
    with pytest.raises(ConfigError, match="there are 3, 5, 7, 8"):
        borrow.earlier(f"{run}@{which}")


def test_the_best_needs_a_score(run, tmp_path):
    with pytest.raises(ConfigError, match=r"best_by='fid': no such score; this system has gap"):
        checkpoint.chosen(run, "best", "fid")
    with pytest.raises(ConfigError, match=r"no checkpoint of a step with a score.*there are none"):
        checkpoint.chosen(tmp_path, "best")
    with pytest.raises(ConfigError, match="no such score"):
        checkpoint.by_score({"gap": "lower"}, "frechet")


@pytest.mark.parametrize(("higher", "best"), [(False, 3), (True, 2)])
def test_more_may_be_better_or_worse(higher, best):
    lines = [{"step": s, "score/gap": gap} for s, gap in GAPS.items()]
    lines += [{"step": 7, "score/gap": None}, {"step": 8}]
    assert checkpoint.best_of(lines, [2, 3, 4, 7, 8], "gap", higher) == best
    assert checkpoint.best_of(lines, [7, 8], "gap", higher) is None


def test_milestones_are_steps_of_the_run():
    given = {"keep_at_epochs": (2, 4), "keep_at_steps": (7,), "batch_size": 10}
    assert settings.milestones(given, 40, 100) == (7, 20, 40)
    with pytest.raises(ConfigError, match=r"ask for the steps \[7, 20, 40\]; this run has 1 to 39"):
        settings.milestones(given, 39, 100)
    with pytest.raises(ConfigError, match="has no end, so it has no epochs"):
        settings.milestones(given, 40, None)
