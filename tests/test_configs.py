"""Every preset builds, and the published ones have the published sizes; nothing is allocated."""

import functools
import importlib
import tempfile
from pathlib import Path

import jax
import pytest

from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.run import open as runs
from jaxt2i.run import settings
from jaxt2i.run.checkpoint import named
from tests.data import pieces

ROOT = Path(__file__).parent.parent
FILES = [p for p in sorted((ROOT / "configs").glob("*.py")) if p.stem not in ("__init__", "common")]
PRESETS = [
    f"{p.stem}:{name}"
    for p in FILES
    for name in importlib.import_module(f"configs.{p.stem}").PRESETS
]


WORDS = ROOT / "tests" / "goldens" / "words.json"


@functools.cache
def pieces_folder():
    return pieces.make_folder(Path(tempfile.mkdtemp()))


def opened(name, **changes):
    file, _, preset = name.partition(":")
    config = settings.preset(str(ROOT / "configs" / f"{file}.py"), preset)
    config.update(changes)
    if config.data.tokenizer.endswith(".pickle"):  # comes with the data; any vocabulary will do
        config.data.tokenizer = str(WORDS)
    if config.data.tokenizer == "mclip":  # a folder with M-CLIP's tokenizer.json
        config.data.tokenizer = str(pieces_folder())
    return runs.open_run(config)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_build_and_say_what_they_are(name):
    run = opened(name)
    size = run.config.batch_size
    assert settings.steps(run.config, "total", batch_size=size, epoch_images=10 * size) > 0
    state, frozen = states.shapes(run.method, run.batch_spec())
    assert set(state.params) == set(run.method.trained)
    assert set(frozen) == set(run.method.frozen)
    module = importlib.import_module(f"configs.{name.partition(':')[0]}")
    assert module.PRESETS[name.partition(":")[2]].__doc__


def test_full_has_the_published_number_of_parameters():
    run = opened("stylegan_t:full512")
    state, frozen = states.shapes(run.method, run.batch_spec())
    assert states.count(state.params["g"]["synthesis"]) == 1_020_489_289
    assert states.count(frozen["text"]) == 123_650_304
    assert states.count(state.params["d"]) == 7_753_600


@pytest.mark.parametrize("name", ["full64_text", "lite128_freeze64", "full16"])
def test_the_other_phases_trace(name):
    """The text-encoder phase, frozen low resolutions, and growing's smallest picture."""
    run = opened(f"stylegan_t:{name}", batch_size=8)
    state, frozen = states.shapes(run.method, run.batch_spec())
    program = steps.make(run.method, steps.Rules(0, 8, 100))[1]
    after, metrics = jax.eval_shape(program, state, frozen, run.batch_spec())
    assert {"d/loss", "g/loss"} <= set(metrics)
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_freezing_moves_high_blocks_and_rgb_layers_alone():
    run = opened("stylegan_t:lite128_freeze64", batch_size=8)
    state, _ = states.shapes(run.method, run.batch_spec())
    grads = jax.tree.map(lambda x: jax.numpy.ones(x.shape[-1:]), {"g": state.params["g"]})
    tx = run.method.players[1].tx
    updates, _ = tx.update(grads, tx.init(grads), grads)
    moved = {path for path, x in named(updates["g"]).items() if bool(jax.numpy.any(x != 0))}
    assert moved
    assert all("torgb" in p or p.startswith("synthesis/b128/") for p in moved)
    assert any(p.startswith("synthesis/b8/torgb") for p in moved)
    assert any(p.startswith("synthesis/b128/conv0") for p in moved)


def test_unknown_presets_name_the_known_ones():
    with pytest.raises(ValueError, match=r"no preset 'lite65'.*lite64"):
        opened("stylegan_t:lite65")
