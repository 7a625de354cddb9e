"""A perception and a tokenizer of one's own: trained, taken over, moved with the run."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import jaxt2i
from jaxt2i import evaluate
from jaxt2i.config import ConfigError
from jaxt2i.configs import attngan, clip, damsm, df_gan, galip
from jaxt2i.run import borrow, own, settings, train
from tests.evaluation.small import kept
from tests.quick import one_device

pytestmark = pytest.mark.xdist_group("own")

WORDS = ["red apple", "green apple", "blue fish", "old house", "new house", "red fish"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of flat pictures with captions of words that no shipped tokenizer was made for."""
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(24):
        name, colour = f"{i:02d}", np.random.default_rng(i).integers(0, 255, 3)
        Image.new("RGB", (16, 16), tuple(map(int, colour))).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"{WORDS[i % len(WORDS)]} zyzzyva\n")
    return folder


def small(config, pictures, **data):
    """A tiny preset on the folder."""
    config.total_steps, config.batch_size, config.score_images = 2, 8, 8
    config.data.update(source="folder", path=str(pictures), **data)
    return config


def untrained(config, workdir):
    """What training would leave, but that no step was compiled."""
    return kept(workdir, own.prepared(config, workdir))


@pytest.fixture(scope="module")
def seen(pictures, tmp_path_factory):
    """A CLIP of these pictures."""
    workdir = tmp_path_factory.mktemp("runs") / "clip"
    config = small(clip.get_config("tiny"), pictures, tokenizer="own_pieces", tokens=10)
    config.model.update(vocab=400, layers=2)
    with one_device():
        train.train(config, workdir, "clip")
    return workdir


def test_a_tokenizer_is_learned_from_the_captions_and_kept(seen):
    kept = seen / "tokenizer" / "own_pieces.json"
    pieces = json.loads(kept.read_text())["model"]["vocab"]
    assert "Ġzyzzyva" in pieces
    assert settings.read_config(seen).data.tokenizer == str(kept)


def test_its_run_reads_and_sees_for_another_system_wherever_that_goes(
    seen, pictures, tmp_path, capsys
):
    config = small(galip.get_config("tiny"), pictures)
    config.total_steps, config.score_images = 1, 0
    config.perception_from = str(seen)
    config.model.update(taps=(0, 1, 1), prompts=1)
    with one_device():
        train.train(config, tmp_path / "gan", "galip")
    resolved = settings.read_config(tmp_path / "gan")
    assert resolved.model.perception == "mini"
    assert resolved.data.tokens == 10
    moved = tmp_path / "moved"
    shutil.move(tmp_path / "gan", moved)
    system = jaxt2i.load(moved)
    drawn = system.sample(["red apple zyzzyva"], num=2)
    assert drawn.arrays.shape == (2, 16, 16, 3)
    # An export needs neither the run nor the perception that it came from.
    there = shutil.move(jaxt2i.export(moved, tmp_path / "export"), tmp_path / "away")
    again = jaxt2i.load(there)
    np.testing.assert_array_equal(again.sample(["red apple zyzzyva"], num=2).arrays, drawn.arrays)
    assert again.run.config.model.clip_weights == str(tmp_path / "away" / "perception")
    tower, _ = borrow.earlier(str(moved / "perception"))
    own_tower, its = system.weights[1]["text"]["params"], tower["params"]["text"]
    assert jax.tree.structure(own_tower) == jax.tree.structure(its)
    jax.tree.map(np.testing.assert_array_equal, own_tower, its)

    # It may not judge what it has trained; another one may.
    asked = ["--workdir", str(moved), "--metrics", "independent", "--num", "12", "--weights"]
    with pytest.raises(SystemExit, match=r"is the very network 'image' of .*moved, which trained"):
        evaluate.main([*asked, f"clip={seen}"])
    with pytest.raises(SystemExit, match="trains no CLIP; give one of"):
        evaluate.main([*asked, f"clip={moved}"])
    config = small(clip.get_config("tiny"), pictures, tokenizer="own_pieces", tokens=10)
    config.seed = 1
    config.model.update(vocab=400, width=16)
    untrained(config, tmp_path / "other")
    evaluate.main([*asked, f"clip={tmp_path / 'other'}"])
    (page,) = (moved / "evaluation").glob("*.html")
    for beside in ("real pictures: ", "chance: "):
        assert page.read_text().count(beside) >= 2
    (file,) = (moved / "evaluation").glob("*.json")
    found = {s["metric"]: s for s in json.loads(file.read_text())["scores"]}
    names = ("r_precision", "colour", "colour_as_real", "frechet")
    assert set(found) == {f"independent_{n}" for n in names}
    for metric in ("independent_r_precision", "independent_colour"):
        assert {"real_pictures", "shuffled_captions"} <= found[metric]["facts"].keys()


def test_a_run_of_damsm_serves_the_systems_that_read_words(pictures, tmp_path):
    encoders = small(damsm.get_config("tiny"), pictures, tokenizer="own_words", tokens=5)
    encoders.model.update(text_vocab=20)
    untrained(encoders, tmp_path / "damsm")
    config = small(attngan.get_config("tiny"), pictures)
    config.perception_from, config.init_from = str(tmp_path / "damsm"), "runs/damsm-default"
    config.model.update(weights="pretrained", text_vocab=136)
    found = own.prepared(config, tmp_path / "gan")
    kept = tmp_path / "gan" / "perception"
    assert found.init_from == f"text={kept},image={kept}"
    config.init_from = "g=runs/attngan"
    assert own.prepared(config, tmp_path / "gan").init_from.endswith(",g=runs/attngan")
    assert found.model.text_vocab == 20
    assert found.data.tokenizer == str(tmp_path / "gan" / "perception" / "own_words.json")
    other = small(df_gan.get_config("tiny"), pictures)
    other.perception_from = str(tmp_path / "damsm")
    found = own.prepared(other, tmp_path / "other")
    assert (found.model.perception, found.model.text_vocab) == ("damsm", 20)
    wrong = galip.get_config("tiny")
    wrong.perception_from = str(tmp_path / "damsm")
    with pytest.raises(ConfigError, match="needs an image tower to guide it"):
        own.prepared(wrong, tmp_path / "third")


def test_what_is_no_perception_is_refused(seen, tmp_path):
    config = attngan.get_config("tiny")
    config.perception_from = str(seen)
    with pytest.raises(ConfigError, match=r"is a run of clip; .*attngan reads DAMSM"):
        own.prepared(config, tmp_path / "a")
    config.perception_from = str(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"config\.perception_from=.*holds no run"):
        own.prepared(config, tmp_path / "b")
    for name, command in (("clip-emoji", r"clip\.py:emoji$"), ("clip-x", r"starts$")):
        config.perception_from = str(tmp_path / name)
        with pytest.raises(ConfigError, match=command):
            own.prepared(config, tmp_path / "b")
    # The same preset with changed settings is in a folder with a mark.
    marked = tmp_path / "clip-emoji-5741a5"
    shutil.copytree(seen, marked)
    config.perception_from = str(tmp_path / "clip-emoji")
    with pytest.raises(ConfigError, match=rf"clip\.py:emoji; with other settings .*{marked.name}$"):
        own.prepared(config, tmp_path / "b")
    config = clip.get_config("tiny")
    config.perception_from = str(seen)
    with pytest.raises(ConfigError, match="clip reads no perception"):
        own.prepared(config, tmp_path / "c")


def test_the_shipped_perception_says_what_it_has_not_read(pictures):
    config = small(df_gan.get_config("tiny"), pictures)
    (said,) = own.strangers(config)
    assert "set config.perception_from to its run" in said
    config.model.text_weights = "somewhere"
    assert not own.strangers(config)
    assert not own.strangers(df_gan.get_config("tiny"))
