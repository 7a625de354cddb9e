"""Every preset builds, and the published ones have the published sizes; nothing is allocated."""

import functools
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import jax
import pytest

from jaxt2i.configs import common
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
    for name in importlib.import_module(f"jaxt2i.configs.{p.stem}").PRESETS
]
# Data sets that share one recipe: one of them is built, the others are the same but for their data.
SHARED = set(common.COLLECTIONS) - {"multi30k_de"}
BUILT = [name for name in PRESETS if name.partition(":")[2] not in SHARED]
TRAIN = {"CUB-200-2011": 8_855, "COCO 2014": 82_783, "Oxford-102": 7_034}

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


def made(name):
    file, _, preset = name.partition(":")
    return settings.preset(str(ROOT / "configs" / f"{file}.py"), preset)


def maker(name):
    """The function of a preset."""
    file, _, preset = name.partition(":")
    return importlib.import_module(f"jaxt2i.configs.{file}").PRESETS[preset]


def has_card(name):
    """Whether a preset says what it needs, costs and gives."""
    return getattr(maker(name), "published", False)


@pytest.mark.parametrize("name", BUILT)
def test_presets_build_and_say_what_they_are(name):
    run = opened(name)
    size = run.config.batch_size
    assert settings.steps(run.config, "total", batch_size=size, epoch_images=10 * size) > 0
    spec = run.batch_spec()
    variables = jax.eval_shape(
        lambda key: run.method.init(key, states.zeros(spec)), jax.random.key(0)
    )
    assert set(variables) >= {*run.method.trained, *run.method.frozen}
    # What is no recipe of a paper, with a length of minutes.
    small = run.config.data.source == "synthetic" or "emoji" in run.config.data.path
    assert has_card(name) != small, (
        "presets on a paper's data say with @common.card what they need, cost and give, and those "
        "on procedural corpora or emoji do not"
    )
    if not small:  # else nothing tells a good checkpoint from a bad one
        assert run.method.score
        assert run.method.better
        assert min(run.config.score_images, run.config.sample_every_steps) > 0
    assert maker(name).__doc__, "a preset needs a docstring: jaxt2i.presets() shows it"


@pytest.mark.parametrize("name", list(filter(has_card, PRESETS)))
def test_published_presets_say_what_they_need_cost_and_give(name):
    """Data, weights, hours with what they are counted from, and the expected score."""
    text = maker(name).__doc__
    found = dict(re.findall(r"^(Data|Weights|Hours|Expected): (.+)\.$", text, re.M))
    assert set(found) == {"Data", "Weights", "Hours", "Expected"}
    assert re.search(r"\d", found["Hours"])
    assert found["Expected"] == "unknown" or re.search(r"\d|not yet seen|not published", text)
    counted = re.search(r"about ([\d,]+) .*\(([\d.e+]+) M pictures x ([\d.e-]+) TFLOP", text)
    if not counted:
        return
    config = made(name)
    images = config.total_images or config.total_steps * config.batch_size
    epoch = next((n for data, n in TRAIN.items() if found["Data"].startswith(data)), None)
    images = images or (epoch and config.total_epochs * epoch)
    if images:
        assert float(counted[2]) * 1e6 == pytest.approx(images, rel=0.03)
    # A GAN at 256 pixels in float32 multiplies at another rate than one in bfloat16.
    rate = config.matmul_precision if config.precision == "float32" else "bfloat16"
    assert f"at {common.RATES[rate]:g} TFLOP/s" in text
    hours = images and images * float(counted[3]) / common.RATES[rate] / 3600
    assert not hours or float(counted[1].replace(",", "")) == pytest.approx(hours, rel=0.05, abs=1)


@pytest.mark.parametrize(
    "system", ["attngan", "clip", "damsm", "df_gan", "dm_gan", "galip", "souza"]
)
def test_the_surveys_other_data_sets_have_presets(system):
    presets = importlib.import_module(f"jaxt2i.configs.{system}").PRESETS
    missing = set(common.COLLECTIONS) - set(presets)
    assert missing == ({"ade20k"} if system == "clip" else set())
    german, long = presets["multi30k_de"](), presets["fashiongen"]()
    assert german.data.languages == ("de",)
    assert presets["multi30k"]().data.languages == ("en",)
    assert german.total_images * 5 == pytest.approx(long.total_images, rel=0.03)
    assert german.data.source == long.data.source == "records"
    assert long.data.crop == "centre"
    if system in ("attngan", "df_gan", "dm_gan", "souza"):
        # Their DAMSM is a preset too, whose tokens and words become theirs.
        assert german.perception_from == "runs/damsm-multi30k_de"
        assert german.data.tokens == made("damsm:multi30k_de").data.tokens


def test_one_name_stands_for_one_data_set():
    names = {name.partition(":")[2] for name in PRESETS}
    assert "oxford102" in names
    assert not {name for name in names if "flower" in name or name.startswith("oxford")} - {
        "oxford102"
    }


def test_oxford_has_a_vocabulary_that_exists():
    """Shipped, fetched, or learned: nobody published a captions.pickle of it."""
    for name in PRESETS:
        if name.endswith(":oxford102"):
            config = made(name)
            own = config.data.tokenizer in ("own_words", "mini", "clip")
            assert own or config.perception_from == "runs/damsm-oxford102", name


def test_clip_is_trained_as_published():
    """On random squares of the whole shorter side; biases, norms and the temperature stay large."""
    clip = made("clip:vit_b32")
    assert (clip.data.crop, clip.data.margin) == ("random", 1.0)
    assert clip.optim.weight_decay > 0
    assert not clip.optim.decay_all


def installed(folder):
    """The package as a wheel lays it out."""
    without = shutil.ignore_patterns("__pycache__", "configs")
    shutil.copytree(ROOT / "jaxt2i", folder / "jaxt2i", ignore=without)
    shutil.copytree(ROOT / "configs", folder / "jaxt2i" / "configs", ignore=without)


def test_presets_are_found_by_name_without_a_checkout(tmp_path):
    packaging = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert packaging["packages"]["find"]["include"] == ["jaxt2i*"]
    assert packaging["package-dir"] == {"jaxt2i.configs": "configs"}
    installed(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    code = (
        "import sys; from jaxt2i import train; from jaxt2i.run import settings\n"
        "for name in ('df_gan:tiny', 'configs/df_gan.py:tiny', 'df_gan.py:tiny'):\n"
        "    argv = train.with_files(['train', f'--config={name}'])\n"
        "    file, _, preset = argv[1].partition('=')[2].partition(':')\n"
        "    print(file, settings.preset(file, preset).model.g_base)\n"
        "print([m for m in sys.modules if m.startswith('configs')])\n"
        "train.parse(['train', '--config=nowhere:tiny'])\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    out = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "empty",
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    file = tmp_path / "site" / "jaxt2i" / "configs" / "df_gan.py"
    assert out.stdout.splitlines() == [f"{file} 4"] * 3 + ["[]"]
    assert "error: --config nowhere: no such file, and no presets of that name" in out.stderr
    assert "df_gan, dm_gan" in out.stderr


def test_full_has_the_published_number_of_parameters():
    run = opened("stylegan_t:full512")
    state, frozen = states.shapes(run.method, run.batch_spec())
    assert states.count(state.params["g"]["synthesis"]) == 1_020_489_289
    assert states.count(frozen["text"]) == 123_650_304
    assert states.count(state.params["d"]) == 7_753_600


@pytest.mark.parametrize(
    "name",
    [
        "full64_text",
        "full16",
        # Its losses are those of every phase; what it freezes has a test of its own.
        pytest.param("lite128_freeze64", marks=pytest.mark.full),
    ],
)
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


def test_a_length_that_another_goes_before_is_told_of():
    config = {"total_steps": 10, "total_images": 640, "total_epochs": 0}
    (said,) = settings.unread(config)
    assert "config.total_images is not read: config.total_steps goes before it" in said
    assert not settings.unread({"total_steps": 0, "total_images": 640})
