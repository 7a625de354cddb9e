import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.encoders.clip import (
    MEAN,
    PRESETS,
    STD,
    ClipFeatures,
    ClipImage,
    ClipText,
    normalize_image,
)
from jaxt2i.encoders.pretrained import template
from jaxt2i.encoders.text import Text
from jaxt2i.encoders.vit import Transformer, resize_positions

TEXT = ClipText(vocab=50, length=7, width=16, layers=2, heads=2, joint=6)
IMAGE = ClipImage(resolution=8, patch=4, width=16, layers=3, heads=2, joint=6)


@pytest.fixture(scope="module")
def text():
    return jax.jit(TEXT.init)(jax.random.key(0), jnp.zeros((1, 7), jnp.int32))


@pytest.fixture(scope="module")
def image():
    return jax.jit(IMAGE.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


def test_text_is_read_at_its_end_and_padding_changes_nothing(text):
    tokens = jnp.array([[48, 5, 6, 49, 0, 0, 0], [48, 5, 6, 49, 7, 49, 3]])
    out = TEXT.apply(text, tokens)
    assert isinstance(out, Text)
    assert out.sentence.shape == (2, 6)
    assert out.words.shape == (2, 7, 16)
    np.testing.assert_array_equal(out.mask, [[1, 1, 1, 1, 0, 0, 0]] * 2)
    # What stands behind the first end token is hidden by the causal mask.
    np.testing.assert_allclose(out.sentence[0], out.sentence[1], atol=1e-6)
    np.testing.assert_allclose(out.words[0, :4], out.words[1, :4], atol=1e-6)
    assert not np.allclose(out.words[0, 4:], out.words[1, 4:], atol=1e-3)


def test_the_end_token_may_be_a_fixed_id(text):
    tokens = jnp.array([[1, 49, 4, 9, 4, 0, 0]])
    fixed = TEXT.clone(eot=4)
    assert TEXT.apply(text, tokens, method="end") == 1
    assert fixed.apply(text, tokens, method="end") == 2
    assert not np.allclose(TEXT.apply(text, tokens).sentence, fixed.apply(text, tokens).sentence)


def test_a_given_mask_is_kept(text):
    mask = jnp.array([[True] * 5 + [False] * 2])
    out = TEXT.apply(text, jnp.array([[48, 5, 6, 49, 0, 0, 0]]), mask)
    np.testing.assert_array_equal(out.mask, mask)


def test_short_batches_are_fine_and_long_ones_an_error(text):
    assert TEXT.apply(text, jnp.array([[48, 5, 49]])).words.shape == (1, 3, 16)
    with pytest.raises(ValueError, match=r"8 tokens.*7 positions.*config\.data\.tokens"):
        TEXT.apply(text, jnp.zeros((1, 8), jnp.int32))


def test_image_gives_embedding_and_every_block(image):
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    embedding, taps = IMAGE.apply(image, x)
    assert embedding.shape == (2, 6)
    assert taps.shape == (3, 2, 5, 16)
    wide, _ = IMAGE.apply(image, jnp.zeros((1, 12, 8, 3)))
    assert wide.shape == (1, 6)
    with pytest.raises(ValueError, match=r"9 x 8 pixels.*patches of 4"):
        IMAGE.apply(image, jnp.zeros((1, 9, 8, 3)))


def test_features_read_states_by_number(image):
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    module = ClipFeatures(IMAGE, (3, 1, 0))
    last, first, start = module.apply({"params": {"image": image["params"]}}, x)
    stages = IMAGE.apply(image, x, method="stages")
    for seen, tokens in ((last, stages["blocks"][2]), (first, stages["blocks"][0]),
                         (start, stages["embedded"])):  # fmt: skip
        np.testing.assert_allclose(seen, tokens[:, 1:] + tokens[:, :1], atol=1e-5)


def test_unrolling_changes_no_number(image):
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    one, _ = IMAGE.apply(image, x)
    three, _ = IMAGE.clone(unroll=3).apply(image, x)
    np.testing.assert_allclose(one, three, atol=1e-5)


def test_half_precision_keeps_float32_weights(image):
    module = IMAGE.clone(dtype=jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(template(module))} == {np.dtype("float32")}
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    half, taps = module.apply(image, x.astype(jnp.bfloat16))
    assert half.dtype == taps.dtype == jnp.bfloat16
    full, _ = IMAGE.apply(image, x)
    np.testing.assert_allclose(half.astype(jnp.float32), full, atol=0.1 * np.abs(full).max())


def test_causal_means_no_look_ahead():
    x = jax.random.normal(jax.random.key(0), (1, 6, 8))
    module = Transformer(layers=2, heads=2, mlp=16, causal=True)
    variables = jax.jit(module.init)(jax.random.key(1), x)
    jacobian = jax.jit(jax.jacrev(lambda x: module.apply(variables, x)[0][0].sum(-1)))(x)[:, 0]
    seen = np.abs(jacobian).sum(-1)  # [output token, input token]
    assert (seen[np.triu_indices(6, 1)] == 0).all()
    assert (seen[np.tril_indices(6)] > 0).all()


def test_unknown_activations_and_heads_are_named():
    x = jnp.zeros((1, 2, 8))
    with pytest.raises(ValueError, match="act='relu' is unknown; choose from quick_gelu, gelu"):
        Transformer(layers=1, heads=2, mlp=4, act="relu").init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="width=8 cannot be split into heads=3"):
        Transformer(layers=1, heads=3, mlp=4).init(jax.random.key(0), x)


def test_positions_of_another_grid_are_interpolated():
    ramp = jnp.concatenate([jnp.full((1, 1), 9.0), jnp.repeat(jnp.arange(4.0), 4)[:, None]])
    np.testing.assert_array_equal(resize_positions(ramp, (4, 4), "bicubic"), ramp)
    # Bicubic with a = -0.75 overshoots a ramp a little.
    for method, between in (("bilinear", [1.25, 1.75]), ("bicubic", [1.296875, 1.703125])):
        out = resize_positions(ramp, (8, 2), method)
        assert out.shape == (17, 1)
        assert out[0] == 9
        rows = np.array(out[1:].reshape(8, 2))
        np.testing.assert_allclose(rows[:, 0], rows[:, 1])
        np.testing.assert_allclose(rows[3:5, 0], between, atol=1e-5)


def test_pixels_are_normalised():
    x = jnp.array([[-1.0, 0.0, 1.0]])
    want = ((np.array([[0, 0.5, 1]]) - MEAN) / STD).astype(np.float32)
    np.testing.assert_allclose(normalize_image(x), want, rtol=1e-5)
    assert normalize_image(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("name", "visual", "text"),
    [
        ("vit_b32", 87_849_216, 63_428_096),
        ("vit_b16", 86_192_640, 63_428_096),
        ("vit_l14", 303_966_208, 123_650_304),
    ],
)
def test_presets_have_the_published_number_of_weights(name, visual, text):
    size = PRESETS[name]._asdict()
    tower = {k.removeprefix("text_"): v for k, v in size.items() if k.startswith("text_")}
    image = {k: v for k, v in size.items() if not k.startswith("text_")}
    counts = [
        sum(x.size for x in jax.tree.leaves(template(module)))
        for module in (ClipImage(**image), ClipText(joint=size["joint"], **tower))
    ]
    assert counts == [visual, text]
