"""What travels: exports draw what their run draws, go on where it stopped, come from the hub."""

import json
import os
import pkgutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxt2i
from jaxt2i import api, places
from jaxt2i import export as exporting
from jaxt2i import systems as all_systems
from jaxt2i.config import ConfigError
from jaxt2i.convert.__main__ import main as convert
from jaxt2i.encoders import pretrained
from jaxt2i.engine.state import State
from jaxt2i.run import borrow, card, checkpoint, exports, portable, settings, train
from tests.engine import toy_config
from tests.evaluation import small

pytestmark = pytest.mark.xdist_group("export")
PROMPTS = ("a red rose", "a blue owl")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """With checkpoints of the steps 2 and 4."""
    return small.untrained(tmp_path_factory.mktemp("run") / "df_gan")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return exporting.export(run, tmp_path_factory.mktemp("export") / "weights")


@pytest.fixture(scope="module")
def drawn(run):
    return api.load(run).sample(PROMPTS, num=2).arrays


def test_an_export_alone_draws_the_same_bytes(exported, drawn, tmp_path, monkeypatch):
    moved = tmp_path / "elsewhere"
    places.copy(exported, moved)
    monkeypatch.setattr(checkpoint, "latest", None)
    model = jaxt2i.load(moved, device="cpu:1")
    np.testing.assert_array_equal(model.sample(PROMPTS, num=2).arrays, drawn)
    assert model.about["step"] == 4
    assert set(exports.read(moved)["nets"]) == {"g", "text"}  # no critic


def test_the_card_says_how_it_was_made(exported):
    said = (exported / "README.md").read_text()
    assert said.startswith("---\nlibrary_name: jaxt2i\n")
    for part in (
        "df_gan, step 4",
        "procedural corpus `blooms`",
        "a test",
        "small CLIP",
        "Apache-2.0",
    ):
        assert part in said
    assert "/" not in json.loads((exported / "config.json").read_text())["data"]["path"]


def test_the_terms_of_records_are_found_beside_them(tmp_path):
    (tmp_path / "jaxt2i_cub" / "1.0.0").mkdir(parents=True)
    file = tmp_path / "jaxt2i_cub" / "1.0.0" / "dataset_info.json"
    file.write_text('{"description": "CUB. Non-commercial research only."}')
    for place in (tmp_path, tmp_path / "jaxt2i_cub"):
        assert card.description(str(place)) == "CUB. Non-commercial research only."
    file.write_text("no")
    assert card.description(str(tmp_path)) == card.description("") == ""


def test_places_of_this_machine_stay_here():
    config = settings.preset("configs/df_gan.py", "tiny")
    config.data.path, config.data.list = "/home/me/data/jaxt2i_cub/", "~/list.json"
    config.data.web.mix = (("gs://bucket/cc3m", 2.7),)
    kept = portable.without_places(config)["data"]
    assert (kept["path"], kept["list"], kept["web"]["mix"]) == (
        *("jaxt2i_cub", "list.json"),
        [["cc3m", 2.7]],
    )


def same(here, other):
    here, other = checkpoint.named(here), checkpoint.named(other)
    assert set(here) == set(other)
    for name, x in here.items():
        np.testing.assert_array_equal(x, other[name], err_msg=name)


def test_what_can_be_continued_has_everything(run, exported, tmp_path):
    there = exporting.export(run, tmp_path / "go-on", step=2, continued=True)
    assert "goes on from step 2" in (there / "README.md").read_text()
    assert checkpoint.steps_in(there) == [2]
    kept = checkpoint.latest(there)[0]
    assert kept["opt"]
    same(kept, checkpoint.latest(run, 2)[0])
    assert (there / "config.json").read_bytes() == (run / "config.json").read_bytes()
    # Either kind begins another run: what it lacks is new there, and said.
    assert {"g", "d", "c"} <= set(borrow.earlier(str(there))[0]["params"])
    assert set(borrow.earlier(str(exported))[0]["params"]) == {"g", "text"}
    with pytest.raises(ConfigError, match="no optimisers to go on with"):
        exporting.export(exported, tmp_path / "b", continued=True)


@pytest.mark.parametrize("kind", ["to draw with", "to be continued"])
def test_either_kind_starts_another_run(kind, run, exported, tmp_path, capsys):
    there, continued = exported, kind == "to be continued"
    if continued:
        there = exporting.export(run, tmp_path / "go-on", continued=True)
    config = settings.read_config(run)
    config.init_from = str(there)
    method = api.open_run(config).method
    kept = checkpoint.latest(run)[0]
    empty = {part: jax.tree.map(jnp.zeros_like, kept[part]) for part in ("params", "extra", "ema")}
    state = State(jnp.int32(0), opt={}, settled=kept.get("settled", {}), **empty)
    filled = borrow.fresh_start(config, method)(state)
    same(filled.params["g"], kept["ema"]["g"])
    # The critic is not needed to draw with, and begins anew: it is said.
    if continued:
        same(filled.params["d"], kept["params"]["d"])
    else:
        assert not any(x.any() for x in jax.tree.leaves(filled.params["d"]))
        assert "  new: params/d/" in "".join(capsys.readouterr())


@pytest.mark.full
def test_a_training_goes_on_from_an_export_exactly(tmp_path):
    config = toy_config.get_config()
    config.total_steps = 10
    train.train(config, tmp_path / "run", "a test")
    there = exporting.export(tmp_path / "run", tmp_path / "go-on", step=5, continued=True)
    train.train(config, there, "a test")
    same(*(checkpoint.latest(at, 10)[0] for at in (tmp_path / "run", there)))


def test_smaller_weights_say_what_they_change(exported, tmp_path):
    there = exporting.export(exported, tmp_path / "a", dtype="bfloat16")
    told = exports.read(there)["changed"]
    assert "of 255 levels on average" in told
    assert "its scores were not measured" in told  # an export has no network that makes them
    assert told in (there / "README.md").read_text()
    sizes = [len((place / "text.safetensors").read_bytes()) for place in (there, exported)]
    assert 0.4 < sizes[0] / sizes[1] < 0.6
    with pytest.raises(ConfigError, match="--overwrite replaces it"):
        exporting.export(exported, there, dtype="bfloat16")


@pytest.mark.full
def test_weights_of_a_run_say_what_rounding_does_to_scores(run, tmp_path):
    told = exports.read(exporting.export(run, tmp_path / "a", dtype="int8"))["changed"]
    assert "scores of 64 held-out examples: clip -0." in told


def test_int8_is_near_and_comes_back_as_floats(tmp_path):
    x = np.random.default_rng(0).normal(size=(3, 3, 8, 5)).astype(np.float32) * np.arange(5)
    tree = {"params": {"conv": {"kernel": x, "bias": x[0, 0, 0]}}, "batch_stats": {"mean": x}}
    pretrained.save_variables(tmp_path / "g.safetensors", tree, "int8")
    found = pretrained.load_variables(tmp_path / "g.safetensors")
    apart = np.abs(found["params"]["conv"]["kernel"] - x).max((0, 1, 2))
    assert (apart <= np.abs(x).max((0, 1, 2)) / 254 * 1.001).all()
    assert apart[1] > 0
    np.testing.assert_array_equal(found["params"]["conv"]["bias"], x[0, 0, 0])
    np.testing.assert_array_equal(found["batch_stats"]["mean"], x)


def test_the_hub_gives_back_what_was_pushed(exported, drawn, tmp_path, monkeypatch):
    import huggingface_hub as hub

    stored = {}

    def upload(repo_id, folder_path, **_):
        stored[repo_id] = tmp_path / "hub" / repo_id
        places.copy(folder_path, stored[repo_id])

    def fetch(repo_id, revision=None):
        if repo_id not in stored:
            raise OSError("no such model")
        return str(stored[repo_id])

    monkeypatch.setattr(hub, "create_repo", lambda name, **_: None)
    monkeypatch.setattr(hub, "upload_folder", upload)
    monkeypatch.setattr(hub, "snapshot_download", fetch)
    assert portable.push(exported, "me/flowers") == "https://huggingface.co/me/flowers"
    model = jaxt2i.load("hf://me/flowers")
    np.testing.assert_array_equal(model.sample(PROMPTS, num=2).arrays, drawn)
    assert model.about["source"] == "hf://me/flowers"
    assert "g" in borrow.earlier("hf://me/flowers@main")[0]["params"]
    with pytest.raises(ConfigError, match=r"hf://me/birds: could not be fetched .*no such model"):
        jaxt2i.load("hf://me/birds")
    with pytest.raises(ConfigError, match="expected hf://USER/NAME"):
        jaxt2i.load("hf://flowers")
    monkeypatch.setattr(hub, "create_repo", fetch)
    with pytest.raises(ConfigError, match=r"--push me/birds: could not be uploaded"):
        portable.push(exported, "me/birds")


def test_what_cannot_be_exported_or_read_is_said(run, exported, tmp_path):
    for arguments, said in (
        ({"run": tmp_path / "x", "to": tmp_path / "y"}, "holds no run"),
        ({"run": run, "to": run}, "holds something already; give another folder"),
        ({"run": run, "to": tmp_path / "y", "step": 7}, "no checkpoint '7'"),
        ({"run": run, "to": tmp_path / "y", "dtype": "int4"}, "did you mean int8"),
        ({"run": run, "to": tmp_path / "y", "continued": True, "dtype": "int8"}, "leave --format"),
    ):
        with pytest.raises(ConfigError, match=said):
            exporting.export(**arguments)
    broken = tmp_path / "broken"
    places.copy(exported, broken)
    with pytest.raises(ConfigError, match="of step 4 alone"):
        jaxt2i.load(broken, step=2)
    with pytest.raises(ConfigError, match="averaged weights alone"):
        jaxt2i.load(broken, use_ema=False)
    settings = json.loads((broken / "config.json").read_text())
    for damage, said in (
        (settings | {"data": 3}, r"config\.json is damaged .*; fetch or export it again"),
        ({"perception_from": "x", "method": settings["method"]}, "lacks config"),
        (None, r"an export without config\.json; fetch or export it again"),
    ):
        (broken / "config.json").unlink()
        if damage:
            (broken / "config.json").write_text(json.dumps(damage))
        (broken / "perception").mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match=said):
            jaxt2i.load(broken)
    (broken / "config.json").write_text(json.dumps(settings))
    facts = (broken / "facts.json").read_text()
    for damage, said in (
        (facts[:9], r"facts\.json is damaged .*; fetch or"),
        ("", "without facts"),
    ):
        (broken / "facts.json").unlink()
        if damage:
            (broken / "facts.json").write_text(damage)
        with pytest.raises(ConfigError, match=said):
            jaxt2i.load(broken)
    (broken / "facts.json").write_text(facts)
    (broken / "g.safetensors").write_bytes(b"no")
    with pytest.raises(ConfigError, match=r"g\.safetensors is damaged"):
        jaxt2i.load(broken)
    (broken / "export.json").write_text('{"format": 1}')
    with pytest.raises(ConfigError, match=r"export\.json is damaged"):
        jaxt2i.load(broken)
    (broken / "export.json").write_text('{"format": 9, "nets": {}, "step": 1, "version": "7"}')
    with pytest.raises(ConfigError, match=r"later version of jaxt2i \(7\)"):
        jaxt2i.load(broken)
    (broken / "export.json").unlink()
    with pytest.raises(ConfigError, match=r"no export\.json, .* fetch or export it again"):
        jaxt2i.load(broken)


def test_other_formats_are_read_without_this_package(exported, drawn, tmp_path):
    there = exporting.export(exported, tmp_path / "a", formats=["torch", "stablehlo"])
    # PyTorch's names, through the converter that reads the official files.
    torch, read = there / "torch", tmp_path / "read"
    source = ("df_gan", "--from", str(torch / "g.safetensors"), "--net", "g")
    assert convert([*source, "--to", str(read)]) == 0
    same(*(pretrained.load_variables(x / "g.safetensors") for x in (there, read)))
    assert sorted(p.name for p in torch.iterdir()) == ["g.safetensors", "text.safetensors"]
    # The program draws two captions with the seeds 0 and 1, and any other number.
    folder = there / "stablehlo"
    code = (folder / "example.py").read_text() + (
        "import sys\nassert not any(m.startswith('jaxt2i') for m in sys.modules)\n"
        "rows = {k: np.repeat(x[:1], 3, 0) for k, x in rows.items()}\n"
        "three = program.call(weights, rows, np.zeros(3, np.uint32), {})\n"
        "apart = np.abs(np.asarray(three['image'], int) - np.asarray(out['image'][0], int)).max()\n"
        "assert apart <= 1, apart\n"
    )
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, env=clean)
    found = np.stack([np.asarray(Image.open(folder / f"{i}.png")) for i in (0, 1)])
    apart = np.abs(found.astype(int) - drawn[[0, 3]])
    assert apart.max() <= 1
    assert len((folder / "example.py").read_text().splitlines()) <= 12
    assert json.loads((folder / "sampler.json").read_text())["rows"]["tokens"]["type"] == (
        "int32 [n, 32]"
    )


def test_systems_without_official_names_have_no_tables():
    """A folder may lack them, and beside a single module there can be none."""
    assert exporting.names_beside("jaxt2i.systems.df_gan").TABLES
    assert exporting.names_beside("jaxt2i.systems.clip") is None
    assert exporting.names_beside("tests.toys.box_gan") is None


@pytest.mark.full
@pytest.mark.parametrize("name", [m.name for m in pkgutil.iter_modules(all_systems.__path__)])
def test_every_system_draws_the_same_from_its_export(name, tmp_path):
    run = small.untrained(tmp_path / "run", f"configs/{name}.py")
    there = exporting.export(run, tmp_path / "export")
    model = api.load(run) if api.open_run(settings.read_config(run)).method.sampler else None
    if model is None:
        return
    rows = list(api.from_split(model.run, "val:0:2"))
    for a, b in zip(model.sample(rows).outputs, api.load(there).sample(rows).outputs, strict=True):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)
