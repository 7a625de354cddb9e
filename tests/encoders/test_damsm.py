"""DAMSM's encoders: lengths, directions, dropout, trunks, and the published files."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxt2i.convert import rules
from jaxt2i.encoders import damsm_names as damsm
from jaxt2i.encoders import inception_names as inception
from jaxt2i.encoders import perception, pretrained
from jaxt2i.encoders.damsm import DamsmImage, DamsmText
from jaxt2i.encoders.damsm_trunk import load_trunk
from jaxt2i.encoders.inception import unit_names

MODULE = DamsmText(vocab=20, length=7, embed=6, width=8)
TOKENS = jnp.array([[3, 4, 5, 6, 7, 8, 9], [3, 4, 5, 0, 0, 0, 0], [5, 0, 0, 0, 0, 0, 0]])
MASK = jnp.arange(7) < jnp.array([7, 3, 1])[:, None]


@pytest.fixture(scope="module")
def variables():
    return MODULE.init(jax.random.key(0), TOKENS, MASK)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def one_caption(params, ids):
    """The published recurrence, word by word: gates input, forget, cell, output."""
    x = np.asarray(params["words"]["embedding"])[ids]
    outputs = []
    for name, order in (("forward", 1), ("backward", -1)):
        p = {k: np.asarray(v) for k, v in params[name].items()}
        h = c = np.zeros(4)
        rows = []
        for word in x[::order]:
            gates = word @ p["input"] + h @ p["recurrent"] + p["input_bias"] + p["recurrent_bias"]
            i, f, g, o = np.split(gates, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            rows.append(h)
        outputs.append((np.array(rows[::order]), h))
    (ahead, last), (back, first) = outputs
    return np.concatenate([ahead, back], 1), np.concatenate([last, first])


def test_every_caption_is_read_as_if_it_were_alone(variables):
    text = MODULE.apply(variables, TOKENS, MASK)
    for row, length in enumerate((7, 3, 1)):
        words, sentence = one_caption(variables["params"], np.asarray(TOKENS[row, :length]))
        np.testing.assert_allclose(text.sentence[row], sentence, atol=1e-6)
        np.testing.assert_allclose(text.words[row, :length], words, atol=1e-6)
        np.testing.assert_array_equal(text.words[row, length:], 0)


def test_what_stands_in_the_padding_does_not_matter(variables):
    other = jnp.where(MASK, TOKENS, 19)
    a, b = (MODULE.apply(variables, tokens, MASK) for tokens in (TOKENS, other))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_dropout_is_for_training(variables):
    rngs = {"dropout": jax.random.key(1)}
    trained = MODULE.apply(variables, TOKENS, MASK, train=True, rngs=rngs)
    assert jnp.abs(trained.sentence - MODULE.apply(variables, TOKENS, MASK).sentence).max() > 1e-3


@pytest.fixture
def file(tmp_path):
    """A text_encoderN as the official training writes it, weights made up."""
    module = DamsmText(vocab=20)
    shapes = pretrained.template(module)
    rng = np.random.default_rng(0)
    filled = jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), shapes)
    state = rules.to_torch(damsm.TEXT, filled)
    path = tmp_path / "text_encoder200.safetensors"
    save_file({k: np.ascontiguousarray(v) for k, v in state.items()}, path)
    return path, state, filled


def test_a_published_file_becomes_the_perception(file):
    path, state, filled = file
    assert set(state) >= {"encoder.weight", "rnn.bias_hh_l0_reverse"}
    assert damsm.infer("text", state) == {"vocab": 20, "embed": 300, "width": 256}
    sees = perception.make("damsm", clip_weights=str(path), vocab=20)
    jax.tree.map(np.testing.assert_array_equal, sees.load["text"](), filled)
    assert sees.sentence == 256


def test_another_vocabulary_is_named(file):
    sees = perception.make("damsm", clip_weights=str(file[0]), vocab=21)
    with pytest.raises(pretrained.WeightsError, match=r"encoder\.weight.*\[20, 300\].*\[21, 300\]"):
        sees.load["text"]()


def test_without_a_file_the_message_says_where_to_get_one():
    with pytest.raises(pretrained.WeightsError, match=r"(?s)text_weights.*AttnGAN.*clip_b32"):
        perception.make("damsm").load["text"]()


# --- Images ------------------------------------------------------------------------------------


def test_the_table_names_every_unit_of_the_trunk():
    assert [name.replace("/", ".") for name in unit_names()] == list(inception.UNITS)


def test_published_size_of_the_image_encoder():
    shapes = pretrained.template(DamsmImage())["params"]
    count = {part: sum(x.size for x in jax.tree.leaves(tree)) for part, tree in shapes.items()}
    assert sum(count.values()) == 22_506_720
    assert count["regions"] + count["code"] == 721_152


@pytest.mark.parametrize(("train_trunk", "moves"), [(False, False), (True, True)])
def test_the_trunk_learns_only_where_asked_and_its_statistics_always_move(train_trunk, moves):
    module = DamsmImage("small", 8, train_trunk=train_trunk, base=4, resolution=16)
    image = jax.random.normal(jax.random.key(0), (4, 16, 16, 3))
    variables = jax.jit(module.init)(jax.random.key(1), image)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def slopes(params):
        (regions, code), changed = module.apply(
            {**variables, "params": params}, image, train=True, mutable=["batch_stats"]
        )
        return jnp.square(regions).sum() + jnp.square(code).sum(), changed

    gradients, changed = slopes(variables["params"])
    trunk = [bool(jnp.any(x != 0)) for x in jax.tree.leaves(gradients["trunk"])]
    assert any(trunk) == moves
    assert jnp.any(gradients["code"]["kernel"] != 0)
    same = jax.tree.map(jnp.array_equal, variables["batch_stats"], changed["batch_stats"])
    assert not any(jax.tree.leaves(same))


def test_a_gradient_reaches_the_picture_through_the_frozen_encoder():
    module = DamsmImage("small", 8, base=4, resolution=16)
    image = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))

    @jax.jit
    def seen(image):
        variables = module.init(jax.random.key(1), image)
        apply = lambda x: module.apply(variables, x)  # noqa: E731
        return apply(image), jax.grad(lambda x: jnp.square(apply(x)[1]).sum())(image)

    (regions, code), gradient = seen(image)
    assert jnp.abs(gradient).min(0).max() > 0
    assert regions.shape == (2, 8, 8, 8)
    assert code.shape == (2, 8)


def test_imagenet_weights_fill_the_trunk_and_leave_the_heads(tmp_path):
    module = DamsmImage()
    template = pretrained.template(module)
    rng = np.random.default_rng(0)
    filled = jax.tree.map(lambda x: rng.random(x.shape, np.float32), template)
    state = rules.to_torch(damsm.IMAGE, filled)
    state = {k: np.ascontiguousarray(x) for k, x in state.items() if not k.startswith("emb_")}
    state["fc.weight"] = np.zeros((10, 2048), np.float32)
    save_file(state, tmp_path / "inception.safetensors")
    variables = load_trunk(str(tmp_path / "inception.safetensors"), module, 0)
    for kind in ("params", "batch_stats"):
        for a, b in zip(
            *(jax.tree.leaves(t[kind]["trunk"]) for t in (variables, filled)), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    assert np.abs(variables["params"]["code"]["kernel"]).max() <= 0.1
    with pytest.raises(pretrained.WeightsError, match="trunk_weights=nowhere"):
        load_trunk("nowhere", module, 0)
