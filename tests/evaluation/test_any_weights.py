"""Converted weights and zero-shot runs are judged; pictures are kept, continued, and not held."""

import functools
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from jaxt2i import api, evaluate
from jaxt2i.convert import __main__ as convert
from jaxt2i.convert import rules
from jaxt2i.encoders import features, pretrained
from jaxt2i.evaluation import judge, known, reading, sets, subjects
from jaxt2i.metrics.score import FeatureError
from jaxt2i.run import settings
from jaxt2i.systems.df_gan import names
from tests.evaluation import small

pytestmark = pytest.mark.xdist_group("evaluate")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def networks():
    """Inceptions that compile in a second, random, and one reader of them for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("inception_2015", "inception_torchvision"):
            inputs = dict.fromkeys(("galip", "stylegan", "clean"), small.plain)
            net = {"features": features.Net(small.Eye(), (), inputs)}
            patch.setitem(features.NETWORKS, name, functools.partial(dict, net))
        given = {"inception_2015": "random", "inception_torchvision": "random"}
        reader = reading.Reader(given, 8)
        patch.setattr(judge, "Reader", lambda *a: reader)
        yield reader


def judged(out, *args):
    """The written JSON of an evaluation."""
    evaluate.main([*map(str, args), "--no-intervals", "--out", str(out)])
    (file,) = out.glob("*.json")
    return json.loads(file.read_text())


def test_converted_weights_are_judged_under_their_papers_protocol(networks, tmp_path, capsys):
    run = small.untrained(tmp_path / "run", steps=(1,))
    system = api.load(run)
    state, _ = system.weights
    made_up = rules.to_torch(names.GENERATOR, {"params": jax.device_get(state.params["g"])})
    made_up = {f"netG.{k}": np.ascontiguousarray(x) for k, x in made_up.items()}
    save_file(made_up, tmp_path / "made_up.safetensors")
    weights = tmp_path / "weights"
    convert.main(["df_gan", "--from", str(tmp_path / "made_up.safetensors"), "--to", str(weights)])
    how = ("--protocol", "dfgan_coco", "--metrics", "fid", "--num", 12)
    place = ("--config", "configs/df_gan.py:tiny", "--weights", weights)
    found = judged(tmp_path / "a", *place, *how)
    # They are what draws.
    again = api.load_weights(settings.preset("configs/df_gan.py", "tiny"), weights)
    jax.tree.map(np.testing.assert_array_equal, again.weights[0].params["g"], state.params["g"])
    record = found["protocol"]
    assert record["samples.controls"] == "normal within 2, times 0.88"
    assert record["samples.weights"] == "averaged"  # as this configuration draws
    assert record["samples.quantise"] == "none"
    assert (record["reference.crop"], record["reference.resize"]) == ("zoomed", "bilinear")
    assert record["fid.weights"] == "random"
    assert found["published"] == []
    (line,) = [n for n in found["notes"] if "are left out, as this was measured otherwise" in n]
    for field in ("dataset (blooms against", "count (12 against 40470)", "cap (32 tokens against"):
        assert f"samples.{field}" in line
    network = found["facts"]["networks"]["inception_torchvision"]
    assert network["precision"] == "float32, products HIGHEST"
    assert network["backend"] == "cpu"
    assert network["self_check"].startswith("rows of a batch agree")
    lines = (tmp_path / "a" / "scores_captions.jsonl").read_text().splitlines()
    assert len(lines) == found["facts"]["captions"]["count"] == 12


class Once:
    """Arguments that all stand for the same."""

    def __init__(self, args, protocol):
        self.args, self.protocol = args, protocol

    def __hash__(self):
        return 0

    def __eq__(self, other):
        return True


def test_a_zero_shot_run_is_judged_by_several_protocols_and_continued(
    networks, monkeypatch, tmp_path, capsys
):
    run = small.untrained(tmp_path / "run", "configs/stylegan_t.py", steps=(1,))
    # Opened once, and compiled once.
    opened = functools.cache(lambda place, of=subjects.subject_of: of(place.args, place.protocol))
    monkeypatch.setattr(subjects, "subject_of", lambda args, how: opened(Once(args, how)))
    place = ("--workdir", run, "--data", "scenes", "--num", 8, "--metrics", "fid")
    asked = (*place, "--protocols", "stylegan_t_coco64,gigagan_coco256", "--set", "psi=0.7")
    found = judged(tmp_path / "a", *asked)
    one, two = (found["protocols"][n] for n in ("stylegan_t_coco64", "gigagan_coco256"))
    assert one["samples.trained"] == two["samples.trained"] == "no"
    assert one["samples.dataset"] == one["reference.dataset"] == "scenes"
    assert one["samples.controls"] == "psi=0.7"
    assert (one["reference.resolution"], one["reference.then"]) == (256, 64)
    # One paper compares what was drawn as it is, the other brings it to 256 pixels.
    side = one["samples.drawn"]
    assert (one["samples.resolution"], one["samples.resize"]) == (side, "none")
    assert (two["samples.resolution"], two["samples.resize"]) == (256, "lanczos")
    assert [s["facts"]["protocol"] for s in found["scores"]] == list(found["protocols"])
    assert {"drawn_per_s", "seen_per_s", "peak_memory_mb"} <= found["facts"].keys()
    assert "fid (gigagan_coco256)" in " ".join(capsys.readouterr().out.split())

    # Kept pictures give the same scores, and only those that are missing are drawn again.
    kept = ("--save", tmp_path / "kept")
    again = judged(tmp_path / "b", *asked, *kept)
    values = [s["value"] for s in found["scores"]]
    assert [s["value"] for s in again["scores"]] == values
    lines = (tmp_path / "kept" / "metadata.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "kept" / "metadata.jsonl").write_text("".join(lines[:5]))
    drawn, stream = [], api.System.stream

    def counted(self, rows, **kw):
        return stream(self, (drawn.append(row["number"]) or row for row in rows), **kw)

    monkeypatch.setattr(api.System, "stream", counted)
    third = judged(tmp_path / "c", *asked, *kept)
    assert sorted(drawn) == [5, 6, 7]
    assert [s["value"] for s in third["scores"]] == values
    with pytest.raises(SystemExit, match="drawn otherwise"):
        judged(tmp_path / "d", *asked, *kept, "--seed", 1)


# --- Networks ----------------------------------------------------------------------------------


def test_pictures_are_brought_to_a_size_by_lanczos():
    pixels = np.stack([known.picture(20, 24), known.picture(20, 24)[::-1]])
    found = reading.sized(pixels, 16)
    centre = Image.fromarray(pixels[1][:, 2:22])
    wanted = np.asarray(centre.resize((16, 16), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(found[1], wanted)
    unrounded = reading.sized(np.float32(pixels), 16)
    assert unrounded.dtype == np.float32
    assert np.abs(unrounded - found).max() < 3
    assert reading.sized(pixels, 0) is pixels


def test_one_picture_after_another_gives_the_same():
    module, pixels = small.Eye(), np.random.RandomState(0).rand(3, 16, 16, 3).astype(np.float32)
    variables = module.init(jax.random.key(0), pixels)
    found = jax.jit(reading.in_turn(module.apply))(variables, pixels)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        *(found, module.apply(variables, pixels)),
    )
    assert not reading.few_cores()  # eight devices share these pictures


class Flat(nn.Module):
    """A network that has died."""

    @nn.compact
    def __call__(self, x):
        return x.mean((1, 2)) * 0 + 1


class Wild(nn.Module):
    """One whose product is not of float32."""

    @nn.compact
    def __call__(self, x):
        return jnp.dot(x.mean((1, 2)).astype(jnp.bfloat16), jnp.ones((3, 4), jnp.bfloat16))


@pytest.mark.parametrize(("module", "said"), [(Flat, "give the same embedding"), (Wild, "HIGHEST")])
def test_a_network_that_computes_wrongly_scores_nothing(monkeypatch, module, said):
    net = {"features": features.Net(module(), (), {"plain": small.plain})}
    monkeypatch.setitem(features.NETWORKS, "bad", lambda: net)
    reader = reading.Reader({"bad": "random"}, 8)
    load = features.Network("bad", net, {"features": {}})
    monkeypatch.setattr(reader, "network", lambda name: load)
    batch = np.arange(4), np.zeros((4, 16, 16, 3), np.uint8)
    pictures = sets.Set("x", 4, lambda batch_size, rows: iter([batch]))
    with pytest.raises(FeatureError, match=said):
        reader.read(pictures, [reading.Look("bad", "plain")])


def test_whose_weights_a_network_has_is_known_by_their_hash(monkeypatch, tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"weights")
    name = "vgg16_fc2"
    own = reading.Reader({name: str(file)})
    assert own.provenance(name) == f"file {pretrained.hash_of(str(file))[:12]}"
    entry = pretrained.ADDRESSES["torchvision/vgg16"]
    known = (*entry[:2], pretrained.hash_of(str(file))[:8])
    monkeypatch.setitem(pretrained.ADDRESSES, "torchvision/vgg16", known)
    assert own.provenance(name) == "published"
    assert reading.Reader({name: "random"}).provenance(name) == "random"
    assert reading.Reader({}).provenance(name) == "published"


# --- Many pictures -----------------------------------------------------------------------------


def test_pictures_pass_by_and_are_not_held(networks):
    """2,000 pictures of 96 pixels are 55 MB; what is held grows by their features alone."""
    pixels = np.random.RandomState(0).randint(0, 255, (8, 96, 96, 3), np.uint8)

    def batches(batch, rows):
        for at in range(0, len(rows), batch):
            yield np.array(rows[at : at + batch]), pixels.copy()

    look = reading.Look("inception_2015", "clean")

    def held(count):
        tracemalloc.start()
        seen = networks.read(sets.Set("x", count, batches), {look: ("2048",)}, first=100)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(seen.first) == min(count, 100)
        assert seen.features[look].keys() == {"2048"}
        return peak

    few, many = held(200), held(2000)
    assert many - few < 2e6
    assert many < 8e6


@pytest.mark.full
def test_thirty_thousand_pictures_take_less_than_two_gigabytes(tmp_path):
    """Drawn, looked at and scored, compilation and libraries included."""
    run = small.untrained(tmp_path / "run", steps=(1,))
    code = (
        "import sys, pytest; from jaxt2i import evaluate; from tests.evaluation import small; "
        "small.use(pytest.MonkeyPatch()); evaluate.main(sys.argv[1:])"
    )
    asked = ("--workdir", run, "--protocol", "small", "--num", 30_000, "--metrics", "fid,kid")
    real = small.pictures(tmp_path / "real", 64)
    place = ("--reference", real, "--out", tmp_path / "out")
    subprocess.run(
        [sys.executable, "-c", code, *map(str, (*asked, *small.WEIGHTS, *place))],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        check=True,
    )
    found = json.loads((tmp_path / "out" / "step_00000001.json").read_text())
    assert found["protocol"]["samples.count"] == 30_000
    print({k: v for k, v in found["facts"].items() if "per_s" in k or "memory" in k})
    assert found["facts"]["peak_memory_mb"] < 2000
