import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.convert.rules import (
    OPS,
    ConversionError,
    Rule,
    Table,
    as_table,
    pick,
    to_flax,
    to_torch,
)
from jaxt2i.encoders import clip_names as clip
from jaxt2i.encoders import dino_names as dino
from jaxt2i.encoders.clip import ClipImage, ClipText
from jaxt2i.encoders.dino import DinoFeatures
from jaxt2i.encoders.pretrained import template

TINY = {"width": 8, "layers": 2, "heads": 2}
CASES = {
    "hf text": (clip.HF_TEXT, ClipText(vocab=11, length=5, joint=6, **TINY)),
    "hf image": (clip.HF_IMAGE, ClipImage(resolution=8, patch=4, joint=6, **TINY)),
    "openai text": (clip.OPENAI_TEXT, ClipText(vocab=11, length=5, joint=6, **TINY)),
    "openai image": (clip.OPENAI_IMAGE, ClipImage(resolution=8, patch=4, joint=6, **TINY)),
    "timm": (dino.TIMM, DinoFeatures(resolution=8, patch=4, taps=(1,), **TINY)),
    "dinov2": (dino.HF, DinoFeatures(resolution=8, patch=4, taps=(1,), layer_scale=True, **TINY)),
}


def random(tree, seed=0):
    rng = np.random.RandomState(seed)
    return jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(x.dtype), tree)


@pytest.mark.parametrize("name", CASES)
def test_every_array_makes_the_round_trip(name):
    table, module = CASES[name]
    variables = random(template(module))
    state = to_torch(table, variables)
    again, report = to_flax(table, state, template(module))
    jax.tree.map(np.testing.assert_array_equal, variables, again)
    assert not report.missing
    assert not report.unused
    assert report.used == list(state)
    back = to_torch(table, again)
    assert list(back) == list(state)
    for key in state:
        np.testing.assert_array_equal(back[key], state[key])


def test_both_namings_of_clip_give_the_same_tree():
    module = ClipText(vocab=11, length=5, joint=6, **TINY)
    variables = random(template(module))
    hf, openai = (to_torch(t, variables) for t in clip.TABLES["text"])
    assert pick(clip.TABLES["text"], hf) is clip.HF_TEXT
    assert pick(clip.TABLES["text"], openai) is clip.OPENAI_TEXT
    # OpenAI stacks q, k, v rows; the projection is stored the other way round.
    fused = openai["transformer.resblocks.1.attn.in_proj_weight"]
    parts = [hf[f"text_model.encoder.layers.1.self_attn.{x}_proj.weight"] for x in "qkv"]
    np.testing.assert_array_equal(fused, np.concatenate(parts))
    np.testing.assert_array_equal(openai["text_projection"], hf["text_projection.weight"].T)


@pytest.mark.parametrize("op", OPS)
def test_ops_are_inverse(op):
    shape = {
        "conv2d": (2, 3, 4, 5),
        "conv1d": (2, 3, 4),
        "squeeze": (1, 4, 1, 1),
        "token": (1, 1, 4),
        "dense1x1": (2, 3, 1, 1),
        "dense1": (2, 3, 1),
    }.get(op, (1, 3))
    x = np.arange(np.prod(shape)).reshape(shape)
    forward, back = OPS[op]
    np.testing.assert_array_equal(back(forward(x)), x)


def test_a_wrong_shape_names_key_path_and_both_shapes():
    rules = [Rule("fc{i}.weight", "params/fc{i}/kernel", "dense")]
    want = {"params": {"fc3": {"kernel": jax.ShapeDtypeStruct((4, 2), jnp.float32)}}}
    with pytest.raises(ConversionError, match=r"'fc3.weight'.*\[5, 2\].*params/fc3/kernel.*\[4, 2"):
        to_flax(rules, {"fc3.weight": np.zeros((2, 5))}, want)


def test_the_report_tells_used_ignored_unused_and_missing():
    table = Table((Rule("a", "params/a"), Rule("b", "params/b")), ("*.position_ids",))
    want = {"params": {x: jax.ShapeDtypeStruct((2,), jnp.float32) for x in "ac"}}
    state = {"a": np.ones(2, np.float16), "b": np.ones(2), "x.position_ids": np.ones(2)}
    out, report = to_flax(table, state, want)
    assert (report.used, report.ignored) == (["a"], ["x.position_ids"])
    assert (report.unused, report.missing) == (["b"], ["params/c"])
    assert out["params"]["a"].dtype == np.float32
    assert "c" not in out["params"]
    assert "missing: 1 (params/c)" in str(report)
    with pytest.raises(ConversionError, match=r"file\.pth lacks 1 .*params/c.*: b"):
        report.require_all("file.pth")


def test_missing_arrays_keep_the_templates_values():
    out, report = to_flax([], {}, {"params": {"a": np.full(3, 7.0)}})
    assert report.missing == ["params/a"]
    np.testing.assert_array_equal(out["params"]["a"], [7, 7, 7])


def test_a_gap_in_a_stack_is_named():
    rules = [Rule("h.{i}.w", "params/h/w", stack="i")]
    want = {"params": {"h": {"w": jax.ShapeDtypeStruct((3, 2), jnp.float32)}}}
    with pytest.raises(ConversionError, match=r"no key for \(layer, part\) \(1, 0\)"):
        to_flax(rules, {"h.0.w": np.ones(2), "h.2.w": np.ones(2)}, want)
    short = {"h.0.w": np.ones(2), "h.1.w": np.ones(2)}
    with pytest.raises(ConversionError, match=r"\[2, 2\].*\[3, 2\]"):
        to_flax(rules, short, want)


def test_two_keys_for_one_place_are_refused():
    rules = [Rule("a", "params/x"), Rule("b", "params/x")]
    with pytest.raises(ConversionError, match="'b' and 'a' both claim params/x"):
        to_flax(rules, {"a": np.ones(2), "b": np.ones(2)}, None)


def test_layers_are_stacked_in_numeric_order_and_prefixes_removed():
    rules = Table((Rule("h.{i}.w", "params/w", stack="i"),))
    state = {f"module.h.{i}.w": np.full(1, i) for i in range(11)}
    out, report = to_flax(rules, state, None)
    assert out["params"]["w"][:, 0].tolist() == list(range(11))
    assert report.used[-1] == "module.h.10.w"


def test_a_repeated_placeholder_must_agree():
    rules = [Rule("a{i}.b{i}", "params/x{i}")]
    _, report = to_flax(rules, {"a1.b1": np.ones(1), "a1.b2": np.ones(1)}, None)
    assert (report.used, report.unused) == (["a1.b1"], ["a1.b2"])


def test_a_gradient_of_a_part_gets_only_that_parts_names():
    table, module = CASES["openai text"]
    variables = random(template(module))
    part = {"params": {"transformer": variables["params"]["transformer"]}}
    names = to_torch(table, part)
    assert len(names) == 24
    assert all(name.startswith("transformer.resblocks.") for name in names)


def test_bare_rules_make_a_table():
    assert as_table([Rule("a", "b")]).rules == (Rule("a", "b"),)


def test_sizes_are_inferred_from_shapes_and_config():
    module = ClipText(vocab=11, length=5, width=128, layers=3, heads=4, joint=6, mlp_ratio=2)
    shapes = template(module)
    state = to_torch(clip.HF_TEXT, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes))
    config = {"text_config": {"num_attention_heads": 4, "hidden_act": "gelu", "eos_token_id": 10}}
    sizes = clip.infer("text", state)
    assert sizes["heads"] == 2
    sizes |= clip.from_config("text", config)
    assert sizes == {
        "width": 128,
        "layers": 3,
        "heads": 4,
        "joint": 6,
        "mlp_ratio": 2,
        "act": "gelu",
        "vocab": 11,
        "length": 5,
        "eot": 10,
    }
    module = DinoFeatures(resolution=24, patch=8, width=128, layers=8, heads=2, taps=(1, 3, 5, 7))
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), template(module))
    made = DinoFeatures(**dino.infer("features", to_torch(dino.TIMM, zeros)))
    assert made == module
