"""StyleGAN-T's official names: sizes from a state dict, and the way there and back."""

from pathlib import Path

import jax
import numpy as np
import pytest

from jaxt2i import api
from jaxt2i.convert import __main__ as converter
from jaxt2i.convert import rules
from jaxt2i.encoders.pretrained import template
from jaxt2i.engine import state as states
from jaxt2i.run import open as runs
from jaxt2i.run import restore, settings
from jaxt2i.systems.stylegan_t import names as tables
from jaxt2i.systems.stylegan_t import networks as nets
from jaxt2i.verify.golden import Golden

FOLDER = Golden(Path(__file__).parents[1] / "goldens" / "stylegan_t")
CLASSES = {"g": nets.Generator, "d": nets.DiscriminatorHeads}


@pytest.mark.parametrize(("net", "name"), [("g", "g32u"), ("g", "g64"), ("d", "dl")])
def test_a_state_dict_gives_its_network_and_comes_back_unchanged(net, name):
    foreign = ("mapping.clip.", "dino.")  # networks of their own
    state = {k: v for k, v in FOLDER.weights(name).items() if not k.startswith(foreign)}
    (table,) = tables.TABLES[net]
    module = CLASSES[net](**tables.infer(net, state))
    variables, report = rules.to_flax(table, state, template(module))
    assert not report.missing
    assert not report.unused
    back = rules.to_torch(table, variables)
    kept = {k for k in state if not k.endswith("resample_filter")}
    assert set(back) == kept
    for key in kept:
        np.testing.assert_array_equal(back[key], state[key], err_msg=key)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("g64", (64, 4096, 96, 2, 64)),
        ("g128", (128, 4096, 96, 3, 64)),
        ("g32u", (32, 1024, 64, 1, 0)),
    ],
)
def test_sizes_of_a_generator(name, sizes):
    found = tables.infer("g", FOLDER.weights(name))
    names = ("resolution", "channel_base", "channel_max", "num_res_blocks", "sentence_dim")
    assert tuple(found[n] for n in names) == sizes


def test_every_array_of_the_networks_has_a_name():
    for net, module in (("g", nets.Generator(16)), ("d", nets.DiscriminatorHeads())):
        shapes = template(module)
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        assert len(rules.to_torch(tables.TABLES[net][0], zeros)) == len(jax.tree.leaves(shapes))


def test_the_tower_inside_a_checkpoint_is_what_reads(tmp_path, capsys):
    """Converted and opened with config.model.tuned_text, as it was trained; D keeps OpenAI's."""
    config = settings.preset("configs/stylegan_t.py", "tiny")
    config.model.tuned_text = True
    run = runs.open_run(config)
    state, frozen = states.shapes(run.method, run.batch_spec())
    draw = np.random.RandomState(0)

    def random(tree):
        return jax.tree.map(lambda x: np.asarray(draw.standard_normal(x.shape), x.dtype), tree)

    trees = {n: {"params": random(state.params[n]), **random(state.extra[n])} for n in ("g", "d")}
    trees["text"] = random(frozen["text"])
    named = {n: rules.to_torch(tables.TABLES[n][0], tree) for n, tree in trees.items()}
    assert sum(k.startswith("mapping.clip.model.transformer.") for k in named["text"]) > 10
    for name, nets_ in (("G.npz", ("g", "text")), ("D.npz", ("d",))):
        np.savez(tmp_path / name, **{k: x for n in nets_ for k, x in named[n].items()})
    assert (
        converter.main(["stylegan_t", "--from", f"{tmp_path}/G.npz", "--to", f"{tmp_path}/w"]) == 0
    )
    assert "text is the tower inside the generator" in capsys.readouterr().out
    assert {p.stem for p in (tmp_path / "w").glob("*.safetensors")} == {"g", "text"}

    _, weights = restore.from_weights(run, tmp_path / "w", api.here())
    for mine, its in ((weights["text"], trees["text"]), (weights["text_reference"], None)):
        for ours, given in zip(*map(jax.tree.leaves, (mine, its or trees["text"])), strict=True):
            assert np.array_equal(ours, given) == (its is not None)
    # A file of the other network holds no tower.
    assert (
        converter.main(["stylegan_t", "--from", f"{tmp_path}/D.npz", "--to", f"{tmp_path}/d"]) == 0
    )
    assert {p.stem for p in (tmp_path / "d").glob("*.safetensors")} == {"d"}
