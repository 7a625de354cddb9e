"""--dry-run: what a run would be, with nothing compiled, downloaded or written."""

import os
import re
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxt2i.convert import rules
from jaxt2i.data.schema import DataError
from jaxt2i.encoders import damsm_names, pretrained
from jaxt2i.encoders.damsm import DamsmText
from jaxt2i.encoders.pretrained import WeightsError
from jaxt2i.engine.method import ConfigError
from jaxt2i.planning.dry_run import class_lines, dry_run
from jaxt2i.run import settings
from jaxt2i.run.open import load_method

ROOT = Path(__file__).parents[2]
TOY = str(ROOT / "tests" / "engine" / "toy_config.py")


@pytest.fixture(autouse=True)
def _nothing_is_compiled(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a dry run compiles nothing")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)


def toy(**changes):
    config = settings.preset(TOY, "")
    config.update(changes)
    return config


def said(config, workdir, preset=None):
    """{title: lines} of a dry run."""
    text = dry_run(config, preset or toy(), workdir)
    parts = re.split(r"^(\S.*):$", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_everything_that_is_known_is_said(tmp_path):
    found = said(toy(batch_size=32, seed=7, score_images=8), tmp_path / "run")
    lines = found["settings"].splitlines()
    changed = [line.split()[0] for line in lines if "<- changed" in line]
    assert changed == ["config.seed", "config.batch_size", "config.score_images"]
    assert any(re.search(r"batch_size +32 +<- changed, the preset has 16", x) for x in lines)
    assert any(re.search(r"config\.model\.width +8$", x) for x in lines)
    assert found["work directory"].strip() == str(tmp_path / "run")
    assert "drawn as the run goes (corpus 'blooms')" in found["data"]
    assert "tokenizer.json, which is there" in found["data"]
    assert re.search(r"\| g +\| [\d,]+ +\| .*trained by g, averaged", found["networks"])
    assert "4 rows a device; mesh data 8 x fsdp 1 x tensor 1" in found["batch"]
    assert "uint8 [32, 16, 16, 3]: RGB" in found["batch"]
    assert found["length"].strip() == "20 steps of 32: 640 images"
    assert float(re.search(r"([\d.]+) GFLOP", found["a step"])[1]) > 0
    assert "image: [16, 16, 3]" in found["drawing"]
    assert re.search(r"gap \(lower is better\); of 8 held-out examples", found["scores"])
    assert "stay on a device between steps" in found["memory"]
    assert not (tmp_path / "run").exists()


def test_classes_are_counted():
    names = ("cat", "dog", "kite", "tree")
    source = types.SimpleNamespace(class_names=names, gives={"label", "box_label"})
    method = types.SimpleNamespace(scored=("image", "box_label"))
    assert list(class_lines(source, method)) == ["box_label: 4 classes (cat, dog, kite, ...)"]


def test_the_work_doubles_with_the_batch_and_the_state_does_not(tmp_path):
    def flops(batch):
        text = said(toy(batch_size=batch), tmp_path)["a step"]
        return float(re.search(r"([\d.,]+) GFLOP", text)[1].replace(",", ""))

    assert flops(512) / flops(256) == pytest.approx(2, rel=0.1)


def test_a_run_that_is_there_would_be_continued(tmp_path):
    for step in (5, 10):
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
    assert "holds step 10: the run would continue it" in said(toy(), tmp_path)["work directory"]


def test_what_is_missing_is_said_and_is_no_error(tmp_path):
    config = toy(init_from=str(tmp_path / "earlier"), total_steps=0, total_epochs=3)
    config.data.update(source="webdataset", path=str(tmp_path), tokenizer="captions.pickle")
    config.data.web.mix = (("here", 1.0), ("gone", 1.0), ("gs://bucket/x", 1.0))
    (tmp_path / "here").mkdir()
    found = said(config, tmp_path / "run")
    assert "tokenizer: captions.pickle, NOT there" in found["data"]
    assert f"pictures: {tmp_path / 'here'}, which is there" in found["data"]
    assert f"pictures: {tmp_path / 'gone'}, NOT there" in found["data"]
    assert "pictures: gs://bucket/x, elsewhere, not looked at" in found["data"]
    assert f"trained networks: config.init_from='{tmp_path}/earlier', NOT there" in found["weights"]
    assert "3 epochs of data that is not there" in found["length"]


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"batch_size": 20}, ConfigError, r"config\.batch_size=20 cannot be split over 8"),
        ({"total_steps": 0}, ConfigError, r"no length: set config\.total_steps"),
        ({"profile.start_step": 18}, ConfigError, r"steps 18 to 27 are not all in a run"),
        ({"data.source": "foldr"}, DataError, r"config\.data\.source is 'foldr'; known"),
        ({"data.tokenizer": "nothing"}, DataError, r"config\.data\.tokenizer is 'nothing'"),
    ],
)
def test_impossible_settings_end_in_a_sentence(tmp_path, change, error, sentence):
    config = toy()
    config.update_from_flattened_dict(change)
    with pytest.raises(error, match=sentence):
        dry_run(config, toy(), tmp_path)


def test_weights_say_where_they_are(tmp_path):
    config = settings.preset(str(ROOT / "configs" / "df_gan.py"), "tiny")
    config.perception_from = str(tmp_path / "clip")
    found = said(config, tmp_path, config)
    assert f"config.perception_from='{tmp_path}/clip', NOT there" in found["weights"]
    for net in ("text", "guide"):
        assert re.search(rf"{net}: .*mini_clip, which is there", found["weights"])
    assert f"drawn with config.seed={config.seed}: g, d, c" in found["weights"]


def test_weights_of_other_shapes_are_refused_as_the_run_refuses_them(tmp_path):
    text = DamsmText(vocab=200)
    filled = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), pretrained.template(text))
    state = rules.to_torch(damsm_names.TEXT, filled)
    file = tmp_path / "text_encoder.safetensors"
    save_file({k: np.ascontiguousarray(x) for k, x in state.items()}, file)
    config = settings.preset(str(ROOT / "configs" / "df_gan.py"), "tiny")
    config.data.tokenizer = "words"
    config.model.update(perception="damsm", text_weights=str(file), text_vocab=200)
    found = said(config, tmp_path, config)
    assert f"text: {file}, which is there" in found["weights"]
    config.model.text_vocab = 300
    with pytest.raises(WeightsError) as by_the_run:
        load_method(config).pretrained["text"]()
    with pytest.raises(
        WeightsError, match=r"r\.safetensors: .*\[200, 300\] for .* \[300, 30"
    ) as found:
        dry_run(config, config, tmp_path)
    assert str(found.value) == str(by_the_run.value)
    # What replaces it is not there yet, and the file is not read.
    config.perception_from = str(tmp_path / "damsm")
    dry_run(config, config, tmp_path)


def test_the_command_stops_with_success_though_the_data_is_not_there(tmp_path):
    run = subprocess.run(
        [
            *(sys.executable, "-m", "jaxt2i.train", "--config=configs/galip.py:coco"),
            *("--dry-run", f"--config.data.path={tmp_path}/coco", f"--workdir={tmp_path}/run"),
            "--config.accumulate=1",  # "auto" traces its step twice
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "HF_HOME": str(tmp_path / "hub")},
    )
    assert f"pictures: {tmp_path}/coco, NOT there" in run.stdout
    repository = "openai/clip-vit-base-patch32"
    assert f"text: {repository}: NOT there yet, the run begins with downloading" in run.stdout
    assert "config.data.path" in run.stdout
    assert repository in pretrained.KNOWN
    assert not (tmp_path / "run").exists()
