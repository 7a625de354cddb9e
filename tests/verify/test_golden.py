import json

import numpy as np
import pytest

from jaxt2i.verify.golden import (
    Golden,
    GoldenError,
    compare,
    compare_json,
    derive,
    fill,
    singular_vectors,
    subsample,
)

LIMIT = {"abs": 0.0, "rel_peak": 0.1}


def folder(path, weights=None, cases=None, arrays=None, **more):
    """Writes a folder; `cases` = {name: fields}, `arrays` = {name: arrays of its file}."""
    path.mkdir(parents=True, exist_ok=True)
    full = {}
    for name, fields in (cases or {}).items():
        stored = (arrays or {}).get(name, {})
        np.savez(path / f"{name}.npz", **stored)
        limits = {k: LIMIT for k in stored if k.startswith("out_")}
        full[name] = {"file": f"{name}.npz", "tolerance": limits, "weights": []} | fields
    manifest = {"schema": "golden/1", "fill_seed": 3, "weights": weights or {}, "cases": full}
    (path / "manifest.json").write_text(json.dumps(manifest | more))
    return Golden(path)


def net(*tensors, **more):
    return {"tensors": [list(t) for t in tensors], "fill_prefix": "", **more}


# --- Weights -----------------------------------------------------------------------------------


def test_values_depend_on_name_shape_and_seed_alone():
    # Every stored output depends on these very draws.
    np.testing.assert_allclose(fill("a.weight", (3,)), [0.99424034, 0.99809283, 0.95235348])
    conv = fill("conv.weight", (1, 2, 1, 1), seed=1)
    np.testing.assert_allclose(conv.reshape(-1), [-1.92419577, 0.57868636])
    assert not np.allclose(fill("a.weight", (4,)), fill("b.weight", (4,)))
    assert not np.allclose(fill("a.weight", (4,)), fill("a.weight", (4,), seed=1))
    big = fill("conv.weight", (64, 32, 3, 3))
    assert big.std() == pytest.approx((32 * 9) ** -0.5, rel=0.02)
    assert fill("norm.weight", (10_000,)).mean() == pytest.approx(1, abs=0.01)
    assert fill("norm.bias", (10_000,)).std() == pytest.approx(0.1, rel=0.05)
    variance = fill("bn.running_var", (10_000,))
    assert 0.5 <= variance.min() < 0.51 < 1.49 < variance.max() <= 1.5
    assert fill("bn.num_batches_tracked", ()).dtype == np.int64
    assert fill("logit_scale", ()).shape == ()


def test_fill_name_abs_rescale_constants_and_prefix(tmp_path):
    golden = folder(
        tmp_path,
        {
            "n": net(
                ("a.bias", [50]),
                ("b.bias", [50]),
                ("c.bias", [50]),
                fill_prefix="pre.",
                fill_name={"b.bias": "a.bias"},
                abs=["c.bias"],
                rescale={"c.bias": 3.0},
                constants=[{"value": 0.5, "keys": ["s", "c2"]}],
            )
        },
    )
    w = golden.weights("n")
    np.testing.assert_array_equal(w["a.bias"], fill("pre.a.bias", (50,), 3))
    np.testing.assert_array_equal(w["b.bias"], fill("a.bias", (50,), 3))
    np.testing.assert_array_equal(w["c.bias"], np.abs(fill("pre.c.bias", (50,), 3)) * np.float32(3))
    assert (w["s"], w["c2"]) == (0.5, 0.5)
    assert set(golden.weights("n", "c")) == {"c.bias", "c2"}


def test_singular_vectors_by_both_methods():
    w = fill("w", (6, 3, 2))
    flat = w.reshape(6, -1)
    u, v = singular_vectors(
        w, fill("u", (6,)), {"method": "power", "iterations": 200, "eps": 1e-12}
    )
    top = np.linalg.svd(flat, compute_uv=False)[0]
    assert u @ flat @ v == pytest.approx(top, rel=1e-5)
    u2, v2 = singular_vectors(w, None, {"method": "svd", "u_scale": 0.5})
    assert np.linalg.norm(u2) == pytest.approx(0.5)
    assert abs(u @ u2) == pytest.approx(0.5, rel=1e-4)
    assert u2 @ flat @ v2 == pytest.approx(0.5 * top, rel=1e-5)
    once, _ = singular_vectors(
        w, fill("u", (6,)), {"method": "power", "iterations": 1, "eps": 1e-12}
    )
    assert not np.allclose(once, u, atol=1e-3)


def test_spectral_norm_replaces_only_the_listed_layers(tmp_path):
    tensors = [(f"{x}.weight_{y}", s) for x in "ab" for y, s in
               (("orig", [4, 5]), ("u", [4]), ("v", [5]))]  # fmt: skip
    rule = {"method": "svd", "u_scale": 1.0, "layers": ["a"]}
    w = folder(tmp_path, {"n": net(*tensors, spectral_norm=rule)}).weights("n")
    assert np.linalg.norm(w["a.weight_u"]) == pytest.approx(1)
    np.testing.assert_array_equal(w["b.weight_u"], fill("b.weight_u", (4,), 3))


def test_overrides_aliases_and_other_folders(tmp_path):
    np.savez(tmp_path / "over.npz", x=np.full(2, 9.0))
    folder(tmp_path / "other", {"m": net(("q", [2]), config={"k": 1})})
    golden = folder(
        tmp_path / "here",
        {
            "n": net(("x", [2]), ("y", [2]), overrides="../over.npz"),
            "a": net(
                ("z", [1]),
                aliases={"clip.": {"net": "v", "prefix": "vis.", "except": ["vis.head"]}},
            ),
            "v": net(("vis.w", [2]), ("vis.head.w", [2]), ("text.w", [2])),
            "far": {"folder": "../other", "net": "m"},
        },
    )
    assert golden.weights("n")["x"].tolist() == [9, 9]
    assert set(golden.weights("a")) == {"z", "clip.w"}
    np.testing.assert_array_equal(golden.weights("a")["clip.w"], fill("vis.w", (2,), 3))
    np.testing.assert_array_equal(golden.weights("far")["q"], fill("q", (2,), 3))
    assert golden.config("far") == {"k": 1}


# --- Cases -------------------------------------------------------------------------------------


def test_inputs_are_stored_drawn_reused_and_derived(tmp_path):
    recipe = np.array([5, 1, 2, 4, 4])
    draw = np.random.RandomState(5).uniform(-1, 1, (1, 2, 4, 4)).astype(np.float32)
    stats = np.array([*draw.reshape(-1)[:4], draw.mean(), draw.std()])
    arrays = {
        "one": {"gen_uniform_x": recipe, "chk_x": stats, "in_a": np.ones(2), "out_y": np.ones(1)},
        "two": {"in_a": np.zeros(2), "in_same_as": np.array("one"), "out_y": np.ones(1)},
    }
    cases = {"one": {}, "two": {"inputs_from": "one", "derived": {"in_d": {"from": "in_x",
             "divide": 2, "add": -1}}}}  # fmt: skip
    golden = folder(tmp_path, cases=cases, arrays=arrays)
    assert golden.cases == ("one", "two")
    two = golden.case("two")
    np.testing.assert_array_equal(two.inputs["in_x"], draw)
    np.testing.assert_array_equal(two.inputs["in_a"], [0, 0])
    np.testing.assert_array_equal(two.inputs["in_d"], draw / 2 - 1)
    assert set(two.inputs) == {"in_x", "in_a", "in_d"}
    assert two.tolerance == {"out_y": LIMIT}


@pytest.mark.parametrize(("kind", "dtype"), [("normal", "float32"), ("uint8", "uint8")])
def test_other_draws(tmp_path, kind, dtype):
    stored = {f"gen_{kind}_my_x": np.array([1, 500])}
    x = folder(tmp_path, cases={"c": {}}, arrays={"c": stored}).case("c").inputs["in_my_x"]
    assert x.dtype == dtype
    assert x.std() == pytest.approx({"normal": 1, "uint8": 74}[kind], rel=0.1)


def test_a_draw_that_contradicts_its_check_is_refused(tmp_path):
    stored = {"gen_normal_x": np.array([1, 10]), "chk_x": np.zeros(6)}
    with pytest.raises(GoldenError, match=r"c\.npz: input 'x' was redrawn"):
        folder(tmp_path, cases={"c": {}}, arrays={"c": stored}).case("c")


def test_derived_rules():
    x = np.arange(4, dtype=np.uint8).reshape(1, 1, 2, 2)
    arrays = {
        "x": x,
        "f": np.ones((1, 1, 3, 3), np.float32),
        "bits": np.array([0b10100000], np.uint8),
    }
    big = derive({"from": "x", "repeat": 2}, arrays)
    assert big.dtype == np.float32
    assert big[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    np.testing.assert_array_equal(derive({"from": "b", "block_mean": 2}, {"b": big}), x)
    assert derive({"from": "bits", "bits": [3, 2]}, arrays).tolist() == [[1, 0], [1, 0], [0, 0]]
    mixed = derive({"mix": ["x", "f"], "size": 4}, arrays)
    assert mixed[0, 0, 0].tolist() == pytest.approx([0.3, 0.3, 1, 1])
    both = derive({"concat": [{"from": "x", "repeat": 2}, {"from": "x", "repeat": 2, "add": 1}],
                   "axis": 1}, arrays)  # fmt: skip
    np.testing.assert_array_equal(both[:, 1], big[:, 0] + 1)


@pytest.mark.parametrize(
    ("breakage", "said"),
    [
        (lambda p: (p / "manifest.json").write_text("{"), "manifest.json: not JSON"),
        (lambda p: (p / "manifest.json").unlink(), "manifest.json: no such file"),
        (lambda p: (p / "manifest.json").write_text('{"schema": "x"}'), "schema is 'x'"),
        (lambda p: (p / "c.npz").unlink(), "c.npz: no such file"),
        (lambda p: (p / "c.npz").write_bytes(b"PK junk"), "c.npz: not a readable"),
        (lambda p: (p / "c.npz").write_bytes((p / "c.npz").read_bytes()[:60]), "c.npz: not a read"),
    ],
)
def test_a_damaged_folder_names_the_file(tmp_path, breakage, said):
    folder(tmp_path, cases={"c": {}}, arrays={"c": {"out_y": np.ones(99)}})
    breakage(tmp_path)
    with pytest.raises(GoldenError, match=said):
        Golden(tmp_path).case("c")


def test_unknown_names_are_answered_with_the_known_ones(tmp_path):
    golden = folder(tmp_path, {"n": net()}, {"c": {}}, param_order={"p": ["a", "b"]})
    assert golden.order("p") == ["a", "b"]
    with pytest.raises(GoldenError, match="no 'd' among its cases: c"):
        golden.case("d")
    with pytest.raises(GoldenError, match="no 'm' among its weights: n"):
        golden.weights("m")


# --- Comparison --------------------------------------------------------------------------------


def test_limits_are_absolute_or_relative_to_the_peak():
    a = np.array([1.0, -10.0])
    assert compare(a, a + 0.9, LIMIT).passed
    assert not compare(a, a + 1.1, LIMIT).passed
    assert compare(a, a + 1.1, {"abs": 2.0, "rel_peak": 0.0}).passed
    assert compare(a, a + 1, LIMIT).relative == pytest.approx(0.1)
    by_column = {"abs": 0.0, "rel_peak": 0.1, "peak_axis": -1}
    table = np.array([[1.0, 100.0], [1.0, 100.0]])
    assert compare(table, table + np.array([0.05, 5]), by_column).passed
    assert not compare(table, table + np.array([0.5, 0]), by_column).passed


def test_outliers_nan_shapes_integers_and_text():
    a = np.ones(10)
    b = a.copy()
    b[0] = 9
    assert not compare(a, b, LIMIT).passed
    assert compare(a, b, LIMIT | {"outliers": 0.1}).passed
    nan = np.array([np.nan, 1.0])
    assert compare(nan, nan, LIMIT).passed
    assert not compare(nan, np.array([0.0, 1.0]), LIMIT).passed
    assert not compare(np.array([0.0, 1.0]), nan, LIMIT).passed
    assert not compare(a, np.ones((10, 1)), LIMIT).passed
    assert not compare(a, np.full(10, np.inf), LIMIT).passed
    exact = {"abs": 0.0, "rel_peak": 0.0}
    assert compare(np.array([1, 2]), np.array([1, 2]), exact).passed
    assert not compare(np.array([1, 2]), np.array([1, 3]), exact).passed
    assert compare(np.array(["a"]), np.array(["a"]), exact).passed
    assert not compare(np.array(["a"]), np.array(["b"]), exact).passed


def test_json_numbers_have_limits_and_the_rest_is_equal():
    reference = {"note": "prose", "cases": [{"text": "a", "x": [1.0, 2], "ok": True, "n": None}]}
    mine = {"cases": [{"text": "a", "x": [1.01, 2], "ok": True, "n": None}]}
    assert compare_json(reference, mine, LIMIT).passed
    assert not compare_json(reference, mine, {"abs": 1e-3, "rel_peak": 0}).passed
    for wrong in (
        {"cases": []},
        {"cases": [{**mine["cases"][0], "text": "b"}]},
        {"cases": [{**mine["cases"][0], "ok": False}]},
        {"cases": [{**mine["cases"][0], "x": [1, "2"]}]},
        {"cases": [{k: v for k, v in mine["cases"][0].items() if k != "n"}]},
    ):
        result = compare_json(reference, wrong, LIMIT)
        assert not result.passed
        assert "expected" in result.note


def test_subsample_takes_every_nth():
    x = np.arange(70).reshape(10, 7)
    np.testing.assert_array_equal(subsample(x, (4, 7)), x[::3])
    np.testing.assert_array_equal(subsample(x, (10, 2)), x[:, ::4])
    assert subsample(x, (4,)) is x
    assert subsample(x, (9, 7)) is x
    scalar = np.float32(3)
    assert subsample(scalar, ()) == scalar
