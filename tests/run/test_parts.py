"""What happens beside the steps of a training: lines of metrics, and of how much scores are."""

import types

import jax.numpy as jnp
import pytest

from jaxt2i.run import chips, parts, train
from tests.engine import toy_config


class Written:
    """Records that are written at once; `lines`: {step: numbers}."""

    def __init__(self):
        self.lines = {}
        self.submit = lambda function: function()
        self.write = self.lines.__setitem__


def test_a_line_of_metrics_counts_the_work_of_the_whole_program(monkeypatch):
    """What the loop-aware count says, and the share of that in what the chip can do."""
    monkeypatch.setattr(chips, "peak_flops", lambda device: 16e12)
    records, quiet = Written(), types.SimpleNamespace(step=lambda: None, show=lambda *_: None)
    desk = parts.Desk(
        workdir=None,
        rules=types.SimpleNamespace(batch_size=16, accumulate=4, skip_nonfinite=False),
        schedule=parts.Schedule(10, log_every_steps=1),
        programs=parts.Programs({}, flops=3e12, compile_seconds=2.0),
        records=records,
        progress=quiet,
        keeper=None,
        flags=types.SimpleNamespace(take=lambda: lambda: None),
        clock=types.SimpleNamespace(read=lambda step: (4.0, 0.1), restart=lambda step: None),
        watch=types.SimpleNamespace(line=lambda *_: {}),
    )
    logging = parts.Logging(desk)
    for number in (1, 2):
        metrics = {"d/loss": jnp.float32(0.5)}
        logging.after(parts.Moment(number, False, False, None, metrics, lambda left: None))
    first, second = records.lines[1], records.lines[2]
    assert (first["tflops_per_second"], first["share_of_peak"]) == (12.0, 0.75)
    assert (first["images_per_second"], first["images"], second["images"]) == (64.0, 16, 32)
    # Once an attempt: what it was compiled as.
    assert (first["compile_seconds"], first["micro_batches"]) == (2.0, 4)
    assert "micro_batches" not in second
    assert desk.played


@pytest.mark.parametrize(("asked", "scored"), [(0, 0), (1, 8), (16, 16), (17, 24)])
def test_scores_are_of_at_least_as_many_pictures_as_are_asked_for(asked, scored, capsys):
    """However many devices share them; never of none."""
    config = toy_config.get_config()
    config.score_images = asked
    layout = types.SimpleNamespace(mesh=types.SimpleNamespace(size=8))
    assert train.score_rows(config, layout) == scored
    said = f"config.score_images={asked}: scores are of {scored} pictures, a number that 8 devices"
    assert (said in capsys.readouterr().out) == (asked != scored)
