"""XLM-RoBERTa and M-CLIP's head: parity, padding, files, and perceptions that read German."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxt2i.convert.__main__ import main as convert
from jaxt2i.convert.rules import ConversionError, to_torch
from jaxt2i.encoders import perception, pretrained
from jaxt2i.encoders import xlm_r_goldens as verify
from jaxt2i.encoders import xlm_r_names as names
from jaxt2i.encoders.text import Text
from jaxt2i.encoders.xlm_r import PRESETS, Block, XlmRText
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.run import open as runs
from jaxt2i.run import settings
from jaxt2i.verify.golden import Golden
from tests.data.pieces import make_folder

GOLDEN = Path(__file__).parents[1] / "goldens" / "xlm_r"
TEXT = XlmRText(vocab=40, length=10, width=64, layers=2, heads=1, mlp=48, joint=6)
# Captions of 5, 3 and 8 tokens.
ROWS = [[0, 7, 8, 9, 2], [0, 5, 2], [0, 4, 5, 6, 7, 8, 9, 2]]


def batch(length, rows=ROWS):
    tokens = np.full((len(rows), length), 1, np.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
    return jnp.asarray(tokens)


def fill(shapes):
    rng = np.random.RandomState(0)
    return jax.tree.map(lambda x: 0.3 * rng.standard_normal(x.shape).astype(np.float32), shapes)


@functools.cache
def drawn(module=TEXT):
    return fill(pretrained.template(module))


def write(path, table=names.M_CLIP, variables=None, drop="", **extra):
    state = to_torch(table, variables or drawn()) | extra
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: np.array(v, order="C") for k, v in state.items() if k != drop}, path)
    return path


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# --- The network -------------------------------------------------------------------------------


def test_words_and_sentences_are_those_of_transformers():
    """Its XLMRobertaModel and M-CLIP's head with the same random weights, padding included.

    What is between is a case of tests/verify.
    """
    golden = Golden(GOLDEN)
    case = golden.case("padded")
    with jax.default_matmul_precision("highest"):
        module, variables = verify.encoder(golden, "m_clip")
        tokens, mask = (case.inputs[f"in_{k}"] for k in ("input_ids", "attention_mask"))
        text = jax.jit(module.apply)(variables, tokens, mask)
    np.testing.assert_allclose(text.words, case.outputs["out_hidden2"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(text.sentence, case.outputs["out_sentence"], atol=1e-5, rtol=0)
    np.testing.assert_array_equal(text.mask, mask)


def test_padding_changes_no_caption():
    encode = jax.jit(TEXT.apply)
    short, long = encode(drawn(), batch(8)), encode(drawn(), batch(10))
    assert isinstance(short, Text)
    assert short.sentence.shape == (3, 6)
    assert short.words.shape == (3, 8, 64)
    np.testing.assert_array_equal(short.mask.sum(1), [5, 3, 8])
    np.testing.assert_allclose(short.sentence, long.sentence, atol=1e-5)
    for i, row in enumerate(ROWS):
        alone = encode(drawn(), batch(len(row), [row]))
        np.testing.assert_allclose(alone.sentence[0], short.sentence[i], atol=1e-5)
        np.testing.assert_allclose(alone.words[0], short.words[i, : len(row)], atol=1e-5)
    # What stands behind a mask does not matter either.
    other = jnp.where(short.mask, batch(8), 17)
    np.testing.assert_allclose(
        encode(drawn(), other, short.mask).sentence, short.sentence, atol=1e-5
    )


def test_every_token_sees_all_others():
    """Unlike CLIP's text tower, whose tokens see only earlier ones."""
    a, b = (TEXT.apply(drawn(), batch(5, [[0, 7, 8, last, 2]])).words for last in (9, 10))
    assert (np.abs(a - b).max(-1) > 1e-3).all()


def test_gradients_reach_every_array_and_no_padding():
    tokens = batch(10)

    def loss(variables):
        return (TEXT.apply(variables, tokens).sentence ** 2).sum()

    gradient = jax.jit(jax.grad(loss))(drawn())["params"]
    for path, x in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(x).all(), path
        assert np.abs(x).max() > 0, path
    assert (gradient["tokens"]["embedding"][1] == 0).all()
    assert (gradient["positions"][:2] == 0).all(), "positions count from 2"


def test_a_row_without_any_token_stays_finite():
    """Methods fill up missing captions with zeros and an empty mask."""
    tokens, mask = jnp.zeros((1, 10), jnp.int32), jnp.zeros((1, 10), bool)
    text = TEXT.apply(drawn(), tokens, mask)
    assert np.isfinite(text.sentence).all()
    assert np.isfinite(text.words).all()


def test_half_precision_keeps_float32_weights():
    module = TEXT.clone(dtype=jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(pretrained.template(module))} == {np.dtype("float32")}
    half, full = module.apply(drawn(), batch(8)), TEXT.apply(drawn(), batch(8))
    assert half.sentence.dtype == half.words.dtype == jnp.bfloat16
    limit = 0.1 * np.abs(full.sentence).max()
    np.testing.assert_allclose(half.sentence.astype(jnp.float32), full.sentence, atol=limit)


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match=r"11 tokens.*10 positions.*config\.data\.tokens"):
        TEXT.apply(drawn(), batch(11))
    with pytest.raises(ValueError, match="width=8 cannot be split into heads=3"):
        Block(heads=3, mlp=4).init(jax.random.key(0), jnp.zeros((1, 2, 8)), jnp.ones((1, 2), bool))


@pytest.mark.parametrize(("name", "weights"), [("base", 278_043_648), ("large", 559_890_432)])
def test_presets_have_the_published_number_of_weights(name, weights):
    """Of the published files; their pooler, a square map with a bias, is not read."""
    size = PRESETS[name]
    shapes = pretrained.template(XlmRText(**size._asdict(), joint=0))
    count = sum(x.size for x in jax.tree.leaves(shapes))
    assert count + size.width * (size.width + 1) == weights


# --- Files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", names.TABLES["text"], ids=["m_clip", "alone", "language_model"])
def test_a_file_or_folder_of_every_naming_loads(tmp_path, table):
    has_head = table is names.M_CLIP
    module = TEXT if has_head else TEXT.clone(joint=0)
    prefix = next(r.source for r in table.rules).partition("embeddings.")[0]
    unread = {
        f"{prefix}embeddings.position_ids": np.arange(12)[None],
        f"{prefix}pooler.dense.weight": np.zeros((64, 64), np.float32),
        "lm_head.bias": np.zeros(40, np.float32),
    }
    file = write(tmp_path / "model.safetensors", table, drawn(module), **unread)
    for name in (file, tmp_path):
        same(pretrained.load(str(name), "xlm_r", "text"), drawn(module))
    state = pretrained.torch_files.read(file)
    built, sizes = pretrained.build(names, "text", state, {"layer_norm_eps": 1e-6})
    assert built == module.clone(eps=1e-6)
    assert sizes["joint"] == (6 if has_head else 0)


def test_converted_files_load_again(tmp_path, capsys):
    file = write(tmp_path / "pytorch_model.safetensors")
    assert convert(["xlm_r", "--from", str(file), "--to", str(tmp_path / "out")]) == 0
    assert "'joint': 6" in capsys.readouterr().out
    same(pretrained.load(str(tmp_path / "out"), "xlm_r", "text"), drawn())


def test_missing_extra_and_misshapen_keys(tmp_path, capsys):
    key = "transformer.encoder.layer.0.output.LayerNorm.bias"
    file = write(tmp_path / "a" / "m.safetensors", drop=key)
    with pytest.raises(ConversionError, match=r"blocks/norm2/bias: no key for \(layer, part\)"):
        pretrained.load(str(file), "xlm_r", "text")
    file = write(tmp_path / "b" / "m.safetensors", drop="LinearTransformation.bias")
    with pytest.raises(ConversionError, match=r"m\.safetensors lacks 1 .*params/proj/bias"):
        pretrained.load(str(file), "xlm_r", "text")
    file = write(tmp_path / "c" / "m.safetensors", other=np.ones(2, np.float32))
    assert convert(["xlm_r", "--from", str(file), "--to", str(tmp_path / "out")]) == 0
    assert "unused: 1 (other)" in capsys.readouterr().out
    wider = pretrained.template(TEXT.clone(joint=8))
    with pytest.raises(ConversionError, match=r"'LinearTransformation.*\[6\] for .*\[8\]"):
        pretrained.load(str(file), "xlm_r", "text", wider)
    np.savez(tmp_path / "x.npz", **{"conv.weight": np.ones(2)})
    with pytest.raises(ConversionError, match=r"not those of xlm_r's text network"):
        pretrained.load(str(tmp_path / "x.npz"), "xlm_r", "text")


# --- Perceptions -------------------------------------------------------------------------------


def test_offline_says_where_both_towers_go(monkeypatch):
    import huggingface_hub

    def refuses(url):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuses)
    with pytest.raises(pretrained.WeightsError, match=r"M-CLIP/XLM(.|\n)*DIR/text.*DIR/image"):
        perception.make("mclip_l14").load["text"]()


@pytest.mark.parametrize(
    ("name", "joint", "resolution", "features"),
    [
        ("mclip_b32", 512, 224, False),
        ("mclip_l14", 768, 224, False),
        ("mclip_l14_dino_s16", 768, 224, True),
    ],
)
def test_multilingual_perceptions(name, joint, resolution, features):
    sees = perception.make(name)
    english = perception.make(name.removeprefix("m"))
    assert sees.guide == english.guide
    assert sees.sentence == sees.text.joint == joint
    assert (sees.guide_resolution, sees.features is not None) == (resolution, features)
    assert set(sees.load) == set(english.load)
    assert "config.data.tokenizer" in sees.about
    assert perception.make(name, weights="random").load == {}


def test_both_towers_come_from_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(perception.xlm_r, "PRESETS", {"large": PRESETS["tiny"]})
    text = XlmRText(**PRESETS["tiny"]._asdict(), joint=512)
    write(tmp_path / "text" / "model.safetensors", variables=drawn(text))
    (tmp_path / "image").mkdir()
    sees = perception.make("mclip_b32", clip_weights=str(tmp_path))
    assert sees.text == text
    same(sees.load["text"](), drawn(text))
    monkeypatch.setattr(pretrained, "load", lambda file, kind, net, _: (file, kind, net))
    assert sees.load["guide"]() == (str(tmp_path / "image"), "clip", "image")
    with pytest.raises(pretrained.WeightsError, match=r"clip_weights.*subfolders text and image"):
        perception.make("mclip_b32", clip_weights=str(tmp_path / "text" / "model.safetensors"))


def test_the_tiny_one_is_for_random_weights():
    with pytest.raises(pretrained.WeightsError, match=r"mclip_tiny.*config\.model\.weights=random"):
        perception.make("mclip_tiny")


def opened(config, folder):
    config.data.update(tokenizer=str(folder), tokens=12)
    config.batch_size = 4
    config.model.update(perception="mclip_tiny", weights="random")
    return runs.open_run(config)


def test_df_gan_trains_on_german_captions(tmp_path):
    config = settings.preset("configs/df_gan.py", "tiny")
    config.data.resolution = 8
    run = opened(config, make_folder(tmp_path))
    spec = run.batch_spec()
    # Drawn without a program: compiling the initialisation takes longer than the step.
    state, frozen = states.shapes(run.method, spec)
    params, frozen = fill((state.params, frozen))
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state)
    state = dataclasses.replace(zeros, params=params)
    captions = ["ein roter Vogel", "ein Vogel", "grüne Blüten, weiß", "zwei Boote"]
    pixels = np.random.RandomState(0).randint(0, 256, spec["image"].shape, np.uint8)
    tokens, mask = run.tokenizer(captions)
    rows = {"tokens": tokens, "token_mask": mask, "image": pixels}
    play = jax.jit(steps.make(run.method, steps.Rules(0, 4, 10))[1])
    after, metrics = play(state, frozen, rows)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((after.params, metrics)))
    assert not np.array_equal(after.params["g"]["to_rgb"]["kernel"],
                              state.params["g"]["to_rgb"]["kernel"])  # fmt: skip
    ctx = states.context(run.method, after, frozen, key=jax.random.key(0))
    sentence = np.array(run.method.sampler.text(ctx, rows).sentence)
    assert np.ptp(sentence, 0).max() > 1e-3, "captions differ"


@pytest.mark.parametrize(
    "method",
    # A perception is the same to all: the others with pytest -m full.
    ["galip", *(pytest.param(n, marks=pytest.mark.full) for n in ("souza", "stylegan_t"))],
)
def test_a_step_of_other_methods_traces(method, tmp_path):
    config = settings.preset(f"configs/{method}.py", "tiny")
    if method == "stylegan_t":
        config.model.micro_batch = 4
    run = opened(config, make_folder(tmp_path))
    state, frozen = states.shapes(run.method, run.batch_spec())
    program = steps.make(run.method, steps.Rules(0, 4, 10))[1]
    after, _ = jax.eval_shape(program, state, frozen, run.batch_spec())
    assert jax.tree.structure(after) == jax.tree.structure(state)
