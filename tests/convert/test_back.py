"""The way back: official names and shapes come out of every table as they went in."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from jaxt2i.convert import back, rules
from jaxt2i.convert.__main__ import methods

GOLDENS = Path(__file__).parents[1] / "goldens"
# {golden: the names that its files have}.
NAMES = {
    "attngan": ("systems.attngan.names",),
    "clip_hf": ("encoders.clip_names", "encoders.dino_names"),
    "damsm": ("encoders.damsm_names",),
    "dm_gan": ("systems.dm_gan.names",),
    "galip": ("systems.galip.names", "encoders.clip_names"),
    "obj_gan": (
        "systems.obj_gan.names",
        "systems.obj_gan_boxes.names",
        "systems.obj_gan_shapes.names",
        "encoders.damsm_names",
    ),
    "op_gan": ("systems.op_gan.names", "encoders.damsm_names"),
    "souza_single_stage": ("systems.souza.names",),
    "stylegan_t": ("systems.stylegan_t.names",),
    "textcontrol_gan": ("systems.textcontrol_gan.names",),
}
# The largest files, whose tables are seen on a smaller one.
LARGE = ("ViT-H", "ViT-g", "ViT-L", "vit_l14", "large", "full_", "lite_256", "lite_512", "/coco/")


def files(tree, at=""):
    """(where, [[key, shape], ...]) of every list of tensors in full_tensors.json."""
    if isinstance(tree, list) and tree and isinstance(tree[0], list) and len(tree[0]) == 2:
        yield at, tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from files(value, f"{at}/{key}")


@pytest.mark.parametrize("golden", NAMES)
def test_published_names_and_shapes_come_back(golden):
    full = json.loads((GOLDENS / golden / "full_tensors.json").read_text())
    modules = [importlib.import_module(f"jaxt2i.{name}") for name in NAMES[golden]]
    seen = set()
    for at, tensors in files(full):
        if any(part in at for part in LARGE):
            continue
        state = {key: np.broadcast_to(np.int8(0), shape) for key, shape in tensors}
        for module in modules:
            for net, tables in module.TABLES.items():
                table = rules.pick(tables, state)
                variables, report = rules.to_flax(table, state, None)
                if not report.used:
                    continue
                used, names = set(report.used), table.names(state)
                want = {n: state[k].shape for n, k in names.items() if k in used}
                # CLIP's two namings are of the same networks.
                known = [table] if module.__name__.endswith("clip_names") else tables
                made = {n: x.shape for n, x in back.to_torch(known, variables).items()}
                assert made == want, (at, net)
                seen.add((module.__name__, net))
    own = modules[0]
    assert {net for name, net in seen if name == own.__name__} >= set(own.TABLES) - {"text"}


def test_every_system_with_official_code_is_here():
    """Those whose names are DF-GAN's or CLIP's are tried in tests of their own."""
    tried = {
        name.rpartition(".names")[0].rpartition(".")[2]
        for names in NAMES.values()
        for name in names
    }
    systems = {n for n, m in methods().items() if m.__name__.startswith("jaxt2i.systems")}
    untried = systems - tried - {"df_gan"}
    assert not untried, f"NAMES has no line with the names of {', '.join(sorted(untried))}"


def test_arrays_without_a_name_are_refused():
    table = rules.Table((rules.Rule("fc.weight", "params/fc/kernel", "dense"),))
    x = np.arange(6.0).reshape(2, 3)
    assert back.to_torch([table], {"params": {"fc": {"kernel": x}}})["fc.weight"].shape == (3, 2)
    more = {"params": {"fc": {"kernel": x, "bias": x[0]}}}
    with pytest.raises(rules.ConversionError, match=r"1 of its arrays .*params/fc/bias"):
        back.to_torch([table], more)
