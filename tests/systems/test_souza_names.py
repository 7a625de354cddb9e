"""Souza et al.'s official names: sizes, the way there and back, doubles, whose file it is."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxt2i.convert import rules
from jaxt2i.convert.__main__ import main
from jaxt2i.encoders.pretrained import template
from jaxt2i.systems.souza import method as souza
from jaxt2i.systems.souza import names as tables
from jaxt2i.verify.golden import Golden

FOLDER = Golden(Path(__file__).parents[1] / "goldens" / "souza_single_stage")
MODULES = {"g": souza.Generator, "d": souza.Discriminator}
FULL = json.loads((FOLDER.folder / "full_tensors.json").read_text())


@pytest.mark.parametrize("net", MODULES)
def test_a_state_dict_gives_its_network_and_comes_back_unchanged(net):
    state = FOLDER.weights(net.upper())
    (table,) = tables.TABLES[net]
    variables, report = rules.to_flax(
        table, state, template(MODULES[net](**tables.infer(net, state)))
    )
    assert not report.missing
    assert not report.unused
    back = rules.to_torch(table, variables)
    kept = {k for k in state if not k.endswith("num_batches_tracked")}
    assert set(back) == kept
    for key in kept:
        np.testing.assert_array_equal(back[key], state[key], err_msg=key)


@pytest.mark.parametrize("net", MODULES)
def test_published_names_and_shapes(net):
    """At the published size, by names and shapes alone."""
    state = {k: np.broadcast_to(np.float32(0), s) for k, s in FULL[f"net{net.upper()}"]}
    sizes = tables.infer(net, state)
    assert (sizes["base"], sizes["resolution"], sizes["attention"]) == (96, 256, 64)
    (table,) = tables.TABLES[net]
    shapes = jax.tree.map(
        lambda x: np.broadcast_to(np.float32(0), x.shape), template(MODULES[net]())
    )
    back = {k: x.shape for k, x in rules.to_torch(table, shapes).items()}
    assert back == {k: x.shape for k, x in state.items() if not k.endswith("tracked")}


@pytest.mark.parametrize(("net", "other"), [("g", "d"), ("d", "g")])
def test_a_file_is_one_network_with_doubles(net, other, tmp_path):
    """Both networks share most names; the file says by one key whose it is."""
    state = dict(FOLDER.weights(net.upper()))
    state |= {f"main.0.{k[7:]}": x for k, x in state.items() if k.startswith("block2.")}
    np.savez(tmp_path / "net.npz", **state)
    to = tmp_path / "out"
    assert main(["souza", "--from", str(tmp_path / "net.npz"), "--to", str(to)]) == 0
    assert (to / f"{net}.safetensors").is_file()
    assert not (to / f"{other}.safetensors").exists()
    assert json.loads((to / "convert.json").read_text())["unused"] == []
