"""OP-GAN: its published names, its settings, and what its players are told of objects."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxt2i.config import ConfigError
from jaxt2i.convert import rules
from jaxt2i.convert.__main__ import main
from jaxt2i.data.schema import DataError
from jaxt2i.encoders import pretrained
from jaxt2i.encoders.pretrained import template
from jaxt2i.nn.objects import Objects
from jaxt2i.run import open as runs
from jaxt2i.run import settings
from jaxt2i.systems.op_gan import method as op_gan
from jaxt2i.systems.op_gan import names
from jaxt2i.systems.op_gan.networks import Generator, ObjectCritic

FILE = Path(__file__).parents[1] / "goldens" / "op_gan" / "full_tensors.json"
FULL = json.loads(FILE.read_text())
PARTS = {"g": "netG", "d64": "netD.0", "d128": "netD.1", "d256": "netD.2"}
MODULES = {"g": Generator} | dict.fromkeys(("d64", "d128", "d256"), ObjectCritic)


def shapes(tree):
    return {path: x.shape for path, x in flatten_dict(tree, sep="/").items()}


@pytest.mark.parametrize("net", PARTS)
def test_every_published_tensor_has_its_place(net):
    """A file of all published names and shapes, without their memory."""
    file = {
        f"{part}.{key}": np.broadcast_to(np.int8(0), shape)
        for part in PARTS.values()
        for key, shape in FULL[part]
    }
    table = names.TABLES[net][0]
    found = names.infer(net, file)
    module = MODULES[net]()
    if net == "g":
        assert found == {name: getattr(module, name) for name in found}
    module = MODULES[net](**found)
    made, report = rules.to_flax(table, file, None)
    assert shapes(made) == shapes(template(module))
    own = {f"{PARTS[net]}.{key}" for key, _ in FULL[PARTS[net]]}
    assert not own & set(report.unused)
    counters = {key for key in report.ignored if key.endswith("num_batches_tracked")}
    uncalled = {key for key in report.ignored if ".img_code_s16." in key} - counters
    assert len(uncalled) == (16 if net == "d256" else 0)


def test_a_training_file_becomes_its_networks(tmp_path):
    """As several GPUs saved it; the discriminators' list comes apart."""
    sizes = {"classes": 4}
    nets = {
        "g": Generator(base=4, z_dim=5, c_dim=3, local_dim=2, words_dim=6, **sizes),
        "d64": ObjectCritic(base=4, resolution=64, depth=1, sentence_dim=6, **sizes),
        "d128": ObjectCritic(base=4, resolution=128, sentence_dim=6, **sizes),
    }
    rng = np.random.default_rng(0)
    want, file = {}, {}
    for net, module in nets.items():
        filled = jax.tree.map(lambda x: rng.random(x.shape, np.float32), template(module))
        want[net] = filled
        for key, x in rules.to_torch(names.TABLES[net][0], filled).items():
            file[f"{PARTS[net]}.module.{key}"] = x
    np.savez(tmp_path / "checkpoint.npz", **file)
    to = tmp_path / "out"
    assert main(["op_gan", "--from", str(tmp_path / "checkpoint.npz"), "--to", str(to)]) == 0
    about = json.loads((to / "convert.json").read_text())["nets"]
    assert set(about) == set(nets)
    for net, module in nets.items():
        got = pretrained.load_variables(to / f"{net}.safetensors")
        assert jax.tree.structure(got) == jax.tree.structure(want[net])
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want[net]), strict=True):
            np.testing.assert_array_equal(a, b)
        for field, value in about[net]["sizes"].items():
            assert getattr(module, field) == value


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"op": (True, False)}, r"config\.model\.op=.*3 stages"),
        ({"layout_size": 64}, r"config\.model\.layout_size=64"),
        ({"stages": 5, "op": (True,) * 5, "d_op": (True,) * 5}, "objects need 16"),
        ({"merge": "above"}, r"config\.model\.merge='above'"),
        ({"classes": 3}, r"config\.model\.classes=3.*set config\.model\.classes=4"),
    ],
)
def test_impossible_settings_name_their_line(change, said):
    model = op_gan.Model(**change)
    with pytest.raises(ConfigError, match=said):
        op_gan.check(model, 128 if change.get("stages") == 5 else 256, ("a", "b", "c"))


def test_wrong_layouts_have_the_boxes_of_others_and_the_labels_of_their_own():
    mask = jnp.asarray([[True, True], [True, False]])
    given = Objects(jnp.arange(16.0).reshape(2, 2, 4), jnp.eye(4).reshape(2, 2, 4), mask)
    wrong = op_gan.Losses(op_gan.Model(), 256).misplaced(given)
    np.testing.assert_array_equal(wrong.boxes, given.boxes[::-1])
    np.testing.assert_array_equal(wrong.mask, mask[::-1])
    np.testing.assert_array_equal(wrong.label, given.label)


def test_jittered_boxes_stay_boxes_of_the_picture():
    boxes = jnp.asarray([[0.0, 0.1, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5], [0.2, 0.0, 0.1, 1.0]])
    every = jax.jit(jax.vmap(op_gan.jittered, (None, 0)))
    moved = np.asarray(every(boxes, jax.random.split(jax.random.key(0), 64)))
    assert (moved[..., :2] >= -1e-6).all()
    assert (moved[..., :2] + moved[..., 2:] < 1 + 1e-6).all()
    assert np.unique(np.round(moved[:, 1, 0], 5)).size > 10


def test_grouped_batches_need_objects():
    config = settings.preset("configs/op_gan.py", "tiny")
    run = runs.open_run(config, runs.known(config)[0])
    source = run.source("train")
    data = run.pipeline(source, 4, run.method.needs, batches="objects")
    for step in range(4):
        count = data.batch_at(step)["box_mask"].sum(1)
        assert (count == count[0]).all()
    source.gives = ("image",)
    with pytest.raises(DataError, match=r"config\.data\.batches='objects'.*has none"):
        run.pipeline(source, 4, ("image",), batches="objects")
