"""StyleGAN-T's official names: sizes from a state dict, and the way there and back."""

from pathlib import Path

import jax
import numpy as np
import pytest

from jaxt2i.convert import rules
from jaxt2i.encoders.pretrained import template
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
