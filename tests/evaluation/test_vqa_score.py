"""VQAScore: T5's words, files in several parts, and the likelihood of an answer."""

import json

import jax
import numpy as np
import pytest
import tokenizers
from safetensors.numpy import save_file

from jaxt2i import evaluate
from jaxt2i.convert.rules import to_torch
from jaxt2i.data import t5_words
from jaxt2i.data.schema import DataError
from jaxt2i.encoders import clip, clip_names, clip_t5, clip_t5_names, features, pretrained
from jaxt2i.evaluation import joint, sets
from tests.evaluation import small

PIECES = [
    *t5_words.SPECIAL,
    "\u2581",
    *"abcdefghijklmnopqrstuvwxyzYASEURN:,.'\"?",
    "Yes",
    "\u2581red",
]
VOCAB = len(PIECES)


@pytest.fixture
def words(tmp_path):
    """A folder with a vocabulary of letters."""
    model = tokenizers.models.Unigram([(x, -len(PIECES) / len(x)) for x in PIECES], unk_id=2)
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.add_special_tokens(list(t5_words.SPECIAL))
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_texts_are_t5s_pieces(words):
    read = t5_words.T5Tokenizer(words)

    def pieces(text):
        return [PIECES[i] for i in read(text)]

    assert pieces("Yes") == ["\u2581", "Yes", "</s>"]
    # SentencePiece knows single spaces alone, and none at the ends.
    assert read("\n a  red\tcat ") == read("a red cat")
    assert pieces("a red")[1:] == ["a", "\u2581red", "</s>"]
    assert pieces("") == ["</s>"]
    assert read("</s>").count(1) == 1  # in a caption it is text
    with pytest.raises(DataError, match=r"no tokenizer\.json of T5"):
        t5_words.T5Tokenizer(words / "absent")
    (words / "bad").mkdir()
    other = tokenizers.Tokenizer(tokenizers.models.Unigram([("a", 0.0)], unk_id=0))
    other.save(str(words / "bad" / "tokenizer.json"))
    with pytest.raises(DataError, match="T5's are"):
        t5_words.T5Tokenizer(words / "bad")


def test_questions_are_asked_as_published(words):
    captions = ["a red cat", "a dog, and a much longer caption"]
    tokenizer = t5_words.T5Tokenizer(words)
    before, after, mask, answer = joint.asked(tokenizer, captions)
    assert before[-1] == clip_t5.END  # each part ends for itself
    assert before.tolist() == tokenizer(joint.SYSTEM + " USER:")
    question = 'Does this figure show "a red cat"? Please answer yes or no. ASSISTANT:'
    assert after[0][mask[0]].tolist() == tokenizer(question)
    assert after.shape[1] % joint.STEP == 0
    assert not after[~mask].any()
    assert answer.tolist() == tokenizer("Yes")


@pytest.fixture
def published(monkeypatch, words):
    """Made-up weights in files as they are published: CLIP's in one, T5's in two."""
    size = clip.PRESETS["vit_l14_336"]._replace(joint=8, width=16, layers=2, heads=1, patch=168)
    monkeypatch.setitem(clip.PRESETS, "vit_l14_336", size)
    little = {"width": 16, "heads": 2, "head": 4, "mlp": 24, "layers": 2, "vocab": VOCAB}
    monkeypatch.setitem(clip_t5.SIZES, "xl", little)
    monkeypatch.setattr(clip_t5_names, "VOCAB", VOCAB)
    module = features.make("clip_flant5_xl")["answer"].module
    rng = np.random.RandomState(0)
    made = jax.tree.map(
        lambda x: (0.3 * rng.standard_normal(x.shape)).astype(np.float32),
        pretrained.template(module),
    )["params"]
    eye = to_torch(clip_names.HF_IMAGE, {"params": made["eye"]})
    state = to_torch(clip_t5_names.T5, {"params": made["t5"]})
    for name in ("shared.weight", "lm_head.weight"):  # rows that nobody reads
        state[name] = np.concatenate([state[name], np.full((3, 16), 9, np.float32)])
    state["vision_tower.vision_tower.x"] = np.zeros(1, np.float32)
    names = sorted(state)
    parts = {"eye.safetensors": eye}
    for i in range(2):
        keys = names[i::2]
        parts[f"model-0000{i + 1}-of-00002.safetensors"] = {k: state[k] for k in keys}
    (words / "t5").mkdir()
    (words / "tokenizer.json").rename(words / "t5" / "tokenizer.json")
    for name, tensors in parts.items():
        place = words / name if name.startswith("eye") else words / "t5" / name
        save_file({k: np.array(x, order="C") for k, x in tensors.items()}, place)
    return f"{words / 'eye.safetensors'},{words / 't5'}", made


def test_pictures_are_judged_by_the_likelihood_of_yes(published, tmp_path):
    weights, made = published
    network = features.load("clip_flant5_xl", weights)
    jax.tree.map(np.testing.assert_array_equal, network.variables["answer"], {"params": made})
    folder = small.pictures(tmp_path / "a", 3)
    pictures = sets.of_folder(folder)
    rows = [{"prompt": text, "tag": i} for i, text in enumerate(pictures.captions)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    given = ("--suite", tmp_path / "t.jsonl", "--images", folder, "--out", tmp_path / "out")
    asked = ("--metrics", "vqa_score_xl", "--batch", 8, "--weights", f"clip_flant5_xl={weights}")
    evaluate.main([str(a) for a in (*given, *asked)])
    told = json.loads((tmp_path / "out" / "suite.json").read_text())
    found = [told["scores"]["vqa_score_xl"]["tag"][str(i)]["value"] for i in range(3)]
    # The same from the network itself, without its padding.
    read = jax.jit(network.reader("answer", "pillow_bicubic_pad"))
    tokenizer = t5_words.T5Tokenizer(tmp_path / "t5")
    before, after, mask, answer = joint.asked(tokenizer, pictures.captions)
    pixels = np.stack(list(pictures.pictures(range(3)).values()))
    many = [np.tile(x, (3, 1)) for x in (before, answer)]
    expected = read(network.variables["answer"], pixels, many[0], after, mask, many[1])
    assert np.ptp(expected) > 1e-4
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    said = told["networks"]["clip_flant5_xl"]
    assert said["self_check"].startswith("rows of a batch agree")
    assert told["judges"]["vqa_score_xl"]["network"] == "clip_flant5_xl"


def test_where_its_weights_come_from_is_said():
    with pytest.raises(pretrained.WeightsError, match="hf download zhiqiulin/clip-flant5-xxl"):
        pretrained.find("zhiqiulin/clip-flant5-xxl", "clip_t5")
