"""Stable Diffusion's files at a tiny width: drawn and judged from, and asked for latents once."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from jaxt2i import api, evaluate, prepare
from jaxt2i.config import ConfigError
from jaxt2i.convert import __main__ as convert
from jaxt2i.convert import rules
from jaxt2i.data.images import Unreadable
from jaxt2i.data.schema import DataError, unit_range
from jaxt2i.data.sources import latents as kept
from jaxt2i.encoders import pretrained
from jaxt2i.encoders.clip import ClipText
from jaxt2i.encoders.diffusion import names
from jaxt2i.engine import state as states
from jaxt2i.engine.method import Ctx
from jaxt2i.nn import diffusion
from jaxt2i.run import latents as making
from jaxt2i.run import open as runs
from jaxt2i.run import settings
from jaxt2i.systems.iir_net import method as iir_net
from tests.evaluation import small

NETS = ("unet", "vae", "text")
CONFIG = """
from configs import latent_diffusion


def get_config(preset=None):
    c = latent_diffusion.sd15()
    c.batch_size, c.score_images, c.accumulate, c.total_steps = 4, 2, 1, 2
    c.data.update(source="folder", path="{pictures}", resolution=16, tokenizer="mini", tokens=32)
    c.data.latent_factor = 2
    c.model.update(sd_weights="{weights}", padding="tokenizer", text_width=64, text_layers=1)
    c.model.update(text_heads=1, channels=(8, 8), layers=1, heads=2, groups=2, steps=2)
    c.model.update(attention=(True, False), vae_channels=(4, 8), vae_groups=2)
    return c
"""


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A folder of pictures, one of diffusers' files, and a configuration of both."""
    root, rng = tmp_path_factory.mktemp("sd"), np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        (root / "pictures" / split).mkdir(parents=True)
        for i in range(count):
            file = root / "pictures" / split / f"{i}.png"
            Image.fromarray(rng.integers(0, 256, (20, 16, 3), np.uint8)).save(file)
            file.with_suffix(".txt").write_text(f"a picture of {i}")
    file = root / "conf.py"
    file.write_text(CONFIG.format(pictures=root / "pictures", weights=root / "weights"))
    run = runs.open_run(settings.configuration(str(file), []))
    for net in NETS:
        shapes = pretrained.template(run.method.nets[net])
        drawn = jax.tree.map(lambda x: 0.1 * rng.normal(size=x.shape).astype(np.float32), shapes)
        tensors = rules.to_torch(names.TABLES[net][0], drawn)
        folder = root / "weights" / names.FOLDERS[net]
        folder.mkdir(parents=True)
        save_file(
            {k: np.ascontiguousarray(x) for k, x in tensors.items()}, folder / "model.safetensors"
        )
    return root


def configured(there, **data):
    config = settings.configuration(str(there / "conf.py"), [])
    config.data.update(data)
    return config


def test_text_to_image_is_drawn_and_judged_like_any_other_system(there, monkeypatch, tmp_path):
    small.use(monkeypatch)
    convert.main(["diffusion", "--from", str(there / "weights"), "--to", str(tmp_path / "w")])
    weights = ("--weights", str(tmp_path / "w"), *small.WEIGHTS[1:])
    how = ("--protocol", "small", "--metrics", "fid", "--num", "4", "--no-intervals")
    place = ("--config", str(there / "conf.py"), "--out", str(tmp_path / "out"))
    evaluate.main([*place, *weights, *how, "--set", "steps=1"])
    (file,) = (tmp_path / "out").glob("*.json")
    (score,) = json.loads(file.read_text())["scores"]
    assert (score["metric"], score["facts"]["generated"]) == ("fid", 2)
    assert score["value"] >= 0
    # They are what draws.
    system = api.load_weights(configured(there), tmp_path / "w")
    text = pretrained.load(str(there / "weights"), "diffusion", "text")
    jax.tree.map(np.testing.assert_array_equal, system.weights[1]["text"], text)
    assert system.run.method.nets["text"] == ClipText(width=64, layers=1, heads=1, joint=0)


@pytest.fixture(scope="module")
def cached(there):
    """Latents of both splits, written by the command line in parts of four pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "PART", 4)
        folder = there / "latents"
        command = ["latents", "--config", str(there / "conf.py"), "--to", str(folder)]
        prepare.main([*command, "--batch", "2"])
        # A part that was not finished is made again, and only that one.
        (folder / "latents-train-00001.json").unlink()
        before = (folder / "latents-train-00000.array_record").stat().st_mtime_ns
        prepare.main([*command, "--batch", "2"])
        assert (folder / "latents-train-00000.array_record").stat().st_mtime_ns == before
    return folder


def test_losses_read_the_latents_that_the_autoencoder_would_give(there, cached, capsys):
    told = configured(there, latents=str(cached))
    run, plain = runs.open_run(told), runs.open_run(configured(there))
    assert "image" not in run.method.needs
    assert set(run.method.score_needs) == {"image"}
    batches = [
        r.pipeline(r.source("train"), 4, (*r.method.needs, "image"), caption="first").batch_at(0)
        for r in (run, plain)
    ]
    np.testing.assert_array_equal(batches[0]["image"], batches[1]["image"])
    vae = plain.method.pretrained["vae"]()
    mean, log_variance = jax.jit(lambda x: plain.method.nets["vae"].apply(vae, x, method="encode"))(
        unit_range(batches[1]["image"])
    )
    np.testing.assert_allclose(batches[0]["latent_mean"], mean, atol=1e-5)
    np.testing.assert_allclose(batches[0]["latent_std"], np.exp(log_variance / 2), atol=1e-5)
    assert batches[0]["latent_std"].min() > 0

    class Noted(Ctx):
        """A context with an autoencoder alone."""

        def __init__(self):
            self.draws = {}

        def rng(self, name):
            return jax.random.key(3)

        def __call__(self, net, *args, method):
            return run.method.nets[net].apply(vae, *args, method=method)

    def drawn(losses, batch):
        return jax.jit(lambda batch: losses.latents(Noted(), batch))(batch)

    losses = [r.method.players[0].loss.__wrapped__.__self__ for r in (run, plain)]
    same = [drawn(x, b) for x, b in zip(losses, batches, strict=True)]
    assert same[0].shape == (4, 8, 8, 4)
    np.testing.assert_allclose(*same, atol=1e-5)
    held = run.pipeline(run.source("val"), 2, run.method.scored, caption="first").batch_at(0)
    assert {"image", "latent_mean"} <= set(held)


def test_an_editor_reads_them_too(there):
    kept_of = {"latent_mean": 2.0, "latent_std": 3.0, "image": np.zeros((1, 16, 16, 3), np.uint8)}
    asked = {}

    class Noted(Ctx):
        """A context that remembers what the autoencoder was asked."""

        def __init__(self):
            self.draws = {"latent": jnp.ones((1, 2, 2, 4))}

        def __call__(self, net, *args, method):
            asked[method] = args

    losses = iir_net.Losses(iir_net.Model(), None, diffusion.Schedule(), cached=True)
    losses.encode(Noted(), kept_of)
    assert asked["drawn"][:2] == (2.0, 3.0)
    config = settings.preset("configs/iir_net.py", "coco")
    config.data.latents, config.model.base = "somewhere", "random"
    config.model.frozen_dtype = "bfloat16"
    run = runs.open_run(config)
    assert {"image", *kept.KEYS} <= set(run.method.needs)
    state, frozen = states.shapes(run.method, run.batch_spec())
    dtypes = [{str(x.dtype) for x in jax.tree.leaves(tree)} for tree in (frozen, state.params)]
    assert dtypes == [{"bfloat16"}, {"float32"}]


def test_latents_of_other_pictures_or_weights_are_refused(there, cached, tmp_path):
    def read(**data):
        run = runs.open_run(configured(there, **{"latents": str(cached), **data}))
        data = run.pipeline(run.source("train"), 4, run.method.needs)
        for step in range(2):  # all of them
            data.batch_at(step)

    def refused(said, **data):
        with pytest.raises(DataError, match=said):
            read(**data)

    refused(r"config\.data\.crop='random'.*set --config\.data\.crop=centre", crop="random")
    refused(r"config\.data\.mirror='unless_sided'", mirror="unless_sided")
    refused(r"config\.data\.resize='lanczos', and it is 'bicubic' here", resize="bicubic")
    refused(r"set --config\.data\.latent_factor=2", latent_factor=8)
    refused("holds no about.json; python -m jaxt2i.prepare latents", latents=str(tmp_path))
    shutil.copytree(there / "pictures", tmp_path / "more")
    shutil.copy(tmp_path / "more/train/0.png", tmp_path / "more/train/7.png")
    (tmp_path / "more/train/7.txt").write_text("one more")
    refused("knows of 6 pictures, and the data has 7", path=str(tmp_path / "more"))
    (tmp_path / "more/train/3.png").unlink()
    refused("has no latents of .*7.png: they are of another", path=str(tmp_path / "more"))
    shutil.copytree(there / "weights", tmp_path / "weights")
    vae = tmp_path / "weights/vae/model.safetensors"
    vae.write_bytes(vae.read_bytes()[:-4] + b"\0\0\0\0")
    config = configured(there, latents=str(cached))
    config.model.sd_weights = str(tmp_path / "weights")
    with pytest.raises(ConfigError, match="those of another autoencoder than 'vae'"):
        runs.open_run(config).method.pretrained["vae"]()
    with pytest.raises(ConfigError, match="holds latents whose 'weights' is another"):
        making.write(config, str(cached))
    config = configured(there)
    config.model.space = "pixels"
    with pytest.raises(ConfigError, match="trains on pictures themselves"):
        making.write(config, str(tmp_path / "none"))
    config = configured(there)
    config.data.update(source="synthetic", corpus="blooms")
    with pytest.raises(ConfigError, match=r"'train' .*has no end"):
        making.write(config, str(tmp_path / "endless"))


def test_pictures_that_could_not_be_read_stay_left_out(tmp_path, there):
    data = configured(there).data
    pair = np.ones((2, 2, 2, 4), np.float32)
    about = {"shape": [2, 2, 4], "dtype": "float16", "pixels": kept.pixels(data), "weights": "x"}
    kept.write_json(str(tmp_path / kept.ABOUT), about)
    kept.write_part(str(tmp_path), "latents-train-00000", "float16", {"a": 0.5 * pair}, {"b": "?"})
    found = kept.Latents(str(tmp_path), "train", data)
    assert len(found) == 2
    read = found.read("a")
    assert read["latent_mean"].dtype == np.float32
    np.testing.assert_array_equal(read["latent_std"], 0.5 * pair[1])
    with pytest.raises(Unreadable, match="picture without latents"):
        found.read("b")
    kept.write_part(str(tmp_path), "latents-train-00000", "float32", {"a": pair}, {})
    with pytest.raises(Unreadable, match="truncated or corrupt"):
        kept.Latents(str(tmp_path), "train", data).read("a")
    (tmp_path / "latents-train-00000.json").write_text('{"names": ["a"]')
    with pytest.raises(DataError, match=r"latents-train-00000\.json is damaged"):
        kept.Latents(str(tmp_path), "train", data)
