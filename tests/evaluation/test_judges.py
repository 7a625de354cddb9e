"""Judges that learned from people: their networks, tokens, inputs, and what they say."""

import json

import jax
import numpy as np
import pytest
import transformers
from safetensors.numpy import save_file

from jaxt2i import evaluate
from jaxt2i.convert.rules import to_torch
from jaxt2i.data import tokenize, wordpiece
from jaxt2i.data.schema import DataError
from jaxt2i.encoders import blip, blip_names, clip, features, pretrained
from jaxt2i.evaluation import judges, sets
from jaxt2i.evaluation.reading import Reader
from jaxt2i.metrics.score import MetricError
from tests.evaluation import small

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *"abcdefghijklmnopqrstuvwxyz",
    "cat",
    "red",
    "##s",
    "!",
]
REWARD = blip.ImageReward(
    resolution=32,
    patch=16,
    width=64,
    layers=1,
    heads=1,
    vocab=len(WORDS),
    text_width=64,
    text_layers=1,
    text_heads=1,
    text_mlp=32,
    head=(8, 6, 4, 3),
)


@pytest.fixture
def vocabulary(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return tmp_path / "vocab.txt"


@pytest.fixture
def tiny(monkeypatch):
    """The judges' networks, a few units wide, fed as the published ones are."""
    size = clip.PRESETS["vit_h14"]._replace(joint=8, text_width=16, text_layers=1, text_heads=1)
    size = size._replace(width=16, layers=1, heads=1, patch=112)
    monkeypatch.setitem(clip.PRESETS, "vit_h14", size)
    inputs = features.make("image_reward")["reward"].inputs
    parts = (features.Part("THUDM/ImageReward", "blip", "reward"),)
    net = {"reward": features.Net(REWARD, parts, inputs)}
    monkeypatch.setitem(features.NETWORKS, "image_reward", lambda: net)
    # The picture's tokens are interpolated from 32 to 224 pixels.
    return net


def test_captions_are_berts_pieces(vocabulary):
    captions = ["Red cats!", "a  CAT", "", "cat " * 60, "ü é 猫 x"]
    ids, mask = wordpiece.BertTokenizer(vocabulary, blip.LENGTH)(captions)
    theirs = transformers.BertTokenizer(str(vocabulary), do_lower_case=True)(
        captions, padding="max_length", truncation=True, max_length=blip.LENGTH
    )
    np.testing.assert_array_equal(ids, theirs["input_ids"])
    np.testing.assert_array_equal(mask, np.array(theirs["attention_mask"], bool))
    assert ids.shape == (5, blip.LENGTH)
    (vocabulary.parent / "bad.txt").write_text("[UNK]\n[CLS]\n[SEP]\n[PAD]\n")
    with pytest.raises(DataError, match="special ids"):
        wordpiece.BertTokenizer(vocabulary.parent / "bad.txt", 8)
    with pytest.raises(DataError, match="no BERT vocabulary"):
        wordpiece.BertTokenizer(vocabulary.parent / "absent", 8)


def fill(shapes):
    rng = np.random.RandomState(0)
    return jax.tree.map(lambda x: 0.2 * rng.standard_normal(x.shape).astype(np.float32), shapes)


@pytest.fixture
def published(tmp_path):
    """A file under the published names, and what is in it."""
    variables = fill(pretrained.template(REWARD))
    state = to_torch(blip_names.IMAGE_REWARD, variables)
    state |= {"blip.vision_proj.weight": np.zeros((2, 2), np.float32)}
    file = tmp_path / "ImageReward.safetensors"
    save_file({k: np.array(v, order="C") for k, v in state.items()}, file)
    return file, variables, state


def test_a_published_file_is_read(tiny, published):
    file, variables, state = published
    found = features.load("image_reward", str(file))
    jax.tree.map(np.testing.assert_array_equal, found.variables["reward"], variables)
    sizes = blip_names.infer("reward", state)
    assert {k: getattr(REWARD, k) for k in sizes} == sizes


def test_published_rows_stand_beside_their_protocol_alone():
    whole = dict.fromkeys(judges.HPS_STYLES, 800)
    assert "LAFITE 18.46" in judges.hps_beside(whole, 3200, "")[0]
    for styles, pictures, weights, word in (
        ({**whole, "anime": 799}, 3200, "", "prompts (3,199"),
        ({"anime": 800}, 3200, "", "styles (anime)"),
        ({}, 3200, "", "styles (none)"),
        (whole, 6400, "", "pictures (6,400 of 3,200"),
        (whole, 3200, "random", "weights (random)"),
    ):
        said = judges.hps_beside(styles, pictures, weights)[0]
        assert word in said
        assert "18.46" not in said


def test_judges_judge_each_picture_with_its_caption(tiny, vocabulary, published, tmp_path):
    folder = small.pictures(tmp_path / "a", 4)
    pictures = sets.of_folder(folder)
    # Each picture is a skill of its own.
    rows = [{"prompt": text, "tag": i} for i, text in enumerate(pictures.captions)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    given = ("--suite", tmp_path / "t.jsonl", "--images", folder, "--out", tmp_path / "out")
    asked = ("--metrics", "hps_v21,image_reward", "--batch", 8)
    reward = f"image_reward={published[0]}"
    weights = ("--weights", "hps_v21=random", reward)  # the vocabulary lies beside it
    evaluate.main([str(a) for a in (*given, *asked, *weights)])
    told = json.loads((tmp_path / "out" / "suite.json").read_text())
    assert "published HPSv2.1 scores are not beside these" in " ".join(told["notes"])
    assert told["judges"]["hps_v21"]["preprocessing"] == "hpsv2"
    found = {
        m: [told["scores"][m]["tag"][str(i)]["value"] for i in range(4)]
        for m in ("hps_v21", "image_reward")
    }
    # The same from the networks themselves.
    pixels = np.stack(list(pictures.pictures(range(4)).values()))
    network = features.load("image_reward", str(published[0]))
    ids, mask = wordpiece.BertTokenizer(vocabulary, blip.LENGTH)(pictures.captions)
    read = jax.jit(network.reader("reward", "pillow_bicubic_crop"))
    expected = read(network.variables["reward"], pixels, ids, mask)
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(found["image_reward"], expected, rtol=0, atol=1e-5)
    network = features.load("hps_v21", weights="random")
    image = jax.jit(network.reader("image", "hpsv2"))(network.variables["image"], pixels)[0]
    tokens = tokenize.make_tokenizer("clip", 77)(pictures.captions)
    text = jax.jit(network.reader("text"))(network.variables["text"], *tokens).sentence
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in map(np.asarray, (image, text))]
    expected = 100 * (unit[0] * unit[1]).sum(1)
    np.testing.assert_allclose(found["hps_v21"], expected, rtol=1e-3, atol=1e-3)
    for name in ("hps_v21", "image_reward"):
        said = told["networks"][name]
        assert said["backend"] == "cpu"
        assert said["precision"] == "float32, products HIGHEST"
        assert said["self_check"].startswith("rows of a batch agree")
    assert told["captions"]["count"] == 4


def test_unknown_judges_and_pictures_without_captions_are_refused(tmp_path):
    folder = sets.of_folder(small.pictures(tmp_path / "a", 2, captions=False))
    with pytest.raises(MetricError, match="no judge"):
        judges.verdicts(["taste"], folder, Reader())
    with pytest.raises(MetricError, match="has no captions"):
        judges.verdicts(["pick_score"], folder, Reader())
