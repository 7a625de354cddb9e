"""Published files of DF-GAN and GALIP: one archive of three networks, in every wrapping."""

import json

import jax
import numpy as np
import pytest

from jaxt2i.convert import rules, torch_files
from jaxt2i.convert.__main__ import main
from jaxt2i.encoders import pretrained
from jaxt2i.encoders.pretrained import template
from jaxt2i.systems.df_gan import method as df_gan_method
from jaxt2i.systems.df_gan import names as df_gan
from jaxt2i.systems.galip import method as galip_method
from jaxt2i.systems.galip import names as galip
from tests.convert.test_torch_files import Tensor, torch_pickle, torch_zip

SIZES = {"z_dim": 5, "sentence_dim": 6}
NETS = {
    "df_gan": {
        "g": df_gan_method.Generator(base=2, resolution=64, **SIZES),
        "d": df_gan_method.Features(base=2, resolution=64),
        "c": df_gan_method.OneWayOutput(base=2, channels=16, sentence_dim=6),
    },
    "galip": {
        "g": galip_method.Generator(
            base=2,
            resolution=64,
            grid=7,
            width=8,
            prompts=3,
            bridge_blocks=2,
            bridge_base=6,
            **SIZES,
        ),
        "d": galip_method.Features(base=2, taps=3, grid=7, width=8),
        "c": galip_method.Quality(base=2, grid=7, sentence_dim=6),
    },
}
MODULES = {"df_gan": df_gan, "galip": galip}
PARTS = {"g": "netG", "d": "netD", "c": "netC"}


def made_up(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def save(content, path, monkeypatch):
    """What torch.save writes of nested dictionaries of arrays, without torch."""
    storages = []

    def tensors(x):
        if isinstance(x, dict):
            return {k: tensors(v) for k, v in x.items()}
        if not isinstance(x, np.ndarray):
            return x
        key = str(len(storages))
        storages.append((key, x))
        kind = {"float32": "FloatStorage", "float16": "HalfStorage"}[x.dtype.name]
        return Tensor(key, kind, x)

    program = torch_pickle(tensors(content), monkeypatch)
    return torch_zip(path, program, storages, ["archive/version"])


@pytest.fixture(params=["", "module."], ids=["one process", "several processes"])
def published(request, tmp_path, monkeypatch):
    """{name: (path, {net: {key: array}})} as the official training writes files."""
    out, wrap = {}, request.param
    for name, nets in NETS.items():
        parts = {}
        for net, module in nets.items():
            zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), template(module))
            keys = rules.to_torch(MODULES[name].TABLES[net][0], zeros)
            parts[net] = {k: made_up(x.shape, i) for i, (k, x) in enumerate(keys.items())}
        model = {
            PARTS[net]: {wrap + k: x for k, x in state.items()} for net, state in parts.items()
        }
        if name == "galip":  # frozen, in half precision, and not this network's
            tower = np.zeros((2, 3), np.float16)
            model["netG"][f"{wrap}mapping.CLIP_ViT.conv1.weight"] = tower
        # The files hold shortcuts that equal widths do not need.
        block, width = {"df_gan": (3, 16), "galip": (1, 8)}[name]
        unused = np.zeros((width, width, 1, 1), np.float32)
        model["netD"][f"{wrap}DBlocks.{block}.conv_s.weight"] = unused
        moments = {"optimizer_G": {"state": {0: {"exp_avg": np.zeros(2, np.float32)}}}}
        content = {"model": model, "optimizers": moments, "epoch": 7}
        out[name] = save(content, tmp_path / f"{name}.pth", monkeypatch), parts
    return out


@pytest.mark.parametrize("name", NETS)
def test_a_published_file_becomes_three_networks(published, name, tmp_path, capsys):
    path, parts = published[name]
    to = tmp_path / "out"
    assert main([name, "--from", str(path), "--to", str(to)]) == 0
    about = json.loads((to / "convert.json").read_text())
    assert not any(net["missing"] for net in about["nets"].values())
    assert about["unused"] == []
    for net, state in parts.items():
        variables = pretrained.load_variables(to / f"{net}.safetensors")
        back = rules.to_torch(MODULES[name].TABLES[net][0], variables)
        assert set(back) == set(state)
        for key, x in state.items():
            np.testing.assert_array_equal(back[key], x, err_msg=key)
    assert "missing: 0" in capsys.readouterr().out


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("net", PARTS)
def test_sizes_come_from_shapes(published, name, net):
    path, _ = published[name]
    found = MODULES[name].infer(net, torch_files.read(path))
    own = {k: getattr(NETS[name][net], k) for k in found}
    assert found == own


def test_a_network_alone_needs_no_part_in_front(published, tmp_path):
    """Older scripts save netG's state dict by itself."""
    _, parts = published["df_gan"]
    variables, report = rules.to_flax(df_gan.GENERATOR, parts["g"], template(NETS["df_gan"]["g"]))
    assert not report.missing
    assert not report.unused
    assert "fc" in variables["params"]


def test_keys_of_no_network_are_reported(published, tmp_path, capsys):
    path, _ = published["df_gan"]
    state = torch_files.read(path)
    np.savez(tmp_path / "more.npz", **state, **{"netE.strange": np.zeros(1)})
    to = tmp_path / "out"
    assert main(["df_gan", "--from", str(tmp_path / "more.npz"), "--to", str(to)]) == 0
    assert "netE.strange" in json.loads((to / "convert.json").read_text())["unused"]


def test_another_size_is_named(published):
    _, parts = published["df_gan"]
    wrong = template(df_gan_method.Generator(base=4, resolution=64, **SIZES))
    with pytest.raises(rules.ConversionError, match=r"GBlocks|fc"):
        rules.to_flax(df_gan.GENERATOR, parts["g"], wrong)
