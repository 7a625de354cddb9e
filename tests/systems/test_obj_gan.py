"""Obj-GAN's image generator: published names, settings, GloVe, and which objects are judged how."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxt2i.config import ConfigError
from jaxt2i.convert import rules
from jaxt2i.convert.__main__ import main
from jaxt2i.encoders import pretrained
from jaxt2i.encoders.pretrained import template
from jaxt2i.systems.obj_gan import glove, layout, losses, names, networks
from jaxt2i.systems.obj_gan import method as obj_gan
from jaxt2i.systems.obj_gan.losses import Judged
from jaxt2i.systems.obj_gan.networks import Critic, Generator

FILE = Path(__file__).parents[1] / "goldens" / "obj_gan" / "full_tensors.json"
FULL = json.loads(FILE.read_text())["image_generation"]
PARTS = {"g": "netG", "obj_small": "netObjSSD", "obj_large": "netObjLSD"}
PARTS |= {f"pat{n}": f"netPatD{n}" for n in names.SIZES}
PARTS |= {f"shp{n}": f"netShpD{n}" for n in names.SIZES}
# What the trainer calls their files.
FILES = {"pat128": "netPatD1", "shp64": "netShpD0", "obj_small": "netObjSSD"}


def shapes(tree):
    return {path: x.shape for path, x in flatten_dict(tree, sep="/").items()}


@pytest.mark.parametrize("net", PARTS)
def test_every_published_tensor_has_its_place(net):
    """A file of all published names and shapes, as several GPUs saved it, without its memory."""
    file = {f"module.{k}": np.broadcast_to(np.int8(0), shape) for k, shape in FULL[PARTS[net]]}
    found = names.infer(net, file)
    kind = Generator if net == "g" else Critic
    if net == "g":
        assert found == {name: getattr(Generator(), name) for name in found}
    made, report = rules.to_flax(names.TABLES[net][0], file, None)
    assert shapes(made) == shapes(template(kind(**found)))
    assert not report.unused
    assert all(key.endswith("num_batches_tracked") for key in report.ignored)


@pytest.mark.parametrize("net", FILES)
def test_a_discriminators_file_becomes_it_and_no_other(net, tmp_path):
    """Three have the same names and shapes: their files' names tell them apart."""
    sizes = {"base": 4, "resolution": 256 if net.startswith("obj") else int(net[3:])}
    if net != "shp64":
        sizes["cond_dim"] = 6
    if not net.startswith("pat"):
        sizes |= {"classes": 5, "map_features": 3}
    if net.startswith("obj"):
        sizes |= {"objects": True, "halvings": 3}
    module = Critic(**sizes)
    rng = np.random.default_rng(0)
    want = jax.tree.map(lambda x: rng.random(x.shape, np.float32), template(module))
    file = rules.to_torch(names.TABLES[net][0], want)
    source, to = tmp_path / f"{FILES[net]}.npz", tmp_path / "out"
    np.savez(source, **{f"module.{key}": x for key, x in file.items()})
    assert main(["obj_gan", "--from", str(source), "--to", str(to)]) == 0
    about = json.loads((to / "convert.json").read_text())["nets"]
    assert list(about) == [net]
    assert all(getattr(module, field) == value for field, value in about[net]["sizes"].items())
    got = pretrained.load_variables(to / f"{net}.safetensors")
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scores": "cos"}, r"config\.model\.scores='cos'; expected one of"),
        ({"stages": 1}, r"config\.model\.stages=1; expected 2 or more"),
        ({"start": 64}, r"config\.model\.start=64; expected a power of two up to 32"),
        ({"classes": 2}, r"config\.model\.classes=2.*set config\.model\.classes=3"),
    ],
)
def test_impossible_settings_name_their_line(change, said):
    with pytest.raises(ConfigError, match=said):
        obj_gan.check(obj_gan.Model(**change), 256, ("a", "b", "c"))


# --- Words and names -----------------------------------------------------------------------------


def test_words_without_a_vector_shift_the_others_as_published():
    keys = jnp.asarray([[[1.0], [0.0], [3.0], [4.0], [0.0]], [[0.0]] * 5])
    mask = jnp.asarray([[True] * 4 + [False], [True] * 5])
    moved, kept = glove.without_unknown(keys, mask, "dropped")
    assert moved[..., 0].tolist() == [[1, 3, 4, 0, 0], [0] * 5]
    # Of a caption without any known word one stays.
    assert kept.tolist() == [[True] * 3 + [False] * 2, [True] + [False] * 4]
    same, whole = glove.without_unknown(keys, mask, "zero")
    assert same is keys
    assert whole is mask


def test_glove_is_read_and_classes_are_the_mean_of_their_words(tmp_path):
    file = tmp_path / "glove.txt"
    file.write_text("the 1 2\nstop 1 0\nsign 0 1\nodd - 1 2 3\n")
    table = glove.Glove(words=4, classes=2, width=2)
    load = glove.loader(str(file), ("<end>", "the", "gnu"), ("stop sign", "sign"), table)
    made = load()["params"]
    assert made["words"].tolist() == [[0, 0], [1, 2], [0, 0], [0, 0]]
    assert made["classes"].tolist() == [[0.5, 0.5], [0, 1]]
    with pytest.raises(ConfigError, match="no word of the class 'gnu'"):
        glove.loader(str(file), (), ("gnu",), table)()
    file.write_text("the 1\n")
    with pytest.raises(ConfigError, match=r"line 1 holds 'the 1'; expected a word and 2 numbers"):
        load()
    with pytest.raises(ConfigError, match=r"no such file; give glove\.6B\.2d\.txt"):
        glove.loader(str(tmp_path / "none"), (), (), table)()


def test_the_stand_in_finds_a_class_in_its_caption():
    table = glove.Glove(words=3, classes=2, width=16)
    made = glove.loader("", ("<end>", "cat", "kite"), ("kite",), table)()["params"]
    alike = made["words"] @ made["classes"].T
    assert alike[2, 0] == pytest.approx(1)
    assert abs(alike[1, 0]) < 0.9


# --- Objects -------------------------------------------------------------------------------------


def test_a_picture_is_drawn_without_the_others_objects_when_places_are_its_own():
    """As published, a place that another picture fills counts as an object that is nowhere."""
    there = jnp.asarray([[True, False], [True, True]])
    codes, whole = -jnp.ones((2, 2, 1)), jnp.ones((2, 2, 1, 1))
    whole = whole * there[..., None, None]
    drawn = {
        rule: networks.painted(whole, codes, networks.places(there, rule))[:, 0, 0, 0].tolist()
        for rule in networks.PLACES
    }
    assert drawn == {"batch": [0, -1], "own": [-1, -1]}
    none = networks.painted(whole, codes, jnp.zeros((2, 2), bool))
    assert not none.any()


def test_objects_are_judged_by_their_size():
    sides = jnp.asarray([0.01, 0.2, 0.3, 0.6, 0.2])
    boxes = jnp.stack([jnp.zeros(5), jnp.zeros(5), sides, sides / 2], -1)[None]
    there = jnp.asarray([[True] * 4 + [False]])
    small, large = (
        layout.selected(boxes, there, size=n, least=1.25, low=low, high=high)[0].tolist()
        for n, low, high in ((64, 0, 0.25), (32, 0.5, jnp.inf))
    )
    assert small == [False, True, False, False, False]
    assert large == [False, False, False, True, False]


def test_classes_of_a_picture_change_places_among_themselves():
    one_hot = jax.nn.one_hot(jnp.asarray([[3, 1, 3], [2, 2, 0]]), 5)
    one_hot = one_hot.at[1, 2].set(0)  # no object
    keys = jax.random.split(jax.random.key(0), 16)
    to = np.asarray(jax.vmap(lambda key: layout.exchange(key, one_hot))(keys))
    assert set(map(tuple, to[:, 0])) == {(0, 1, 2, 3, 4), (0, 3, 2, 1, 4)}
    assert (to[:, 1] == np.arange(5)).all()
    wrong, moved = layout.exchanged(one_hot, jnp.asarray([[0, 3, 2, 1, 4], [0, 1, 2, 3, 4]]))
    assert moved.tolist() == [True, False]
    assert wrong[0].argmax(-1).tolist() == [1, 3, 1]
    np.testing.assert_array_equal(wrong[1], one_hot[1])


def test_pairs_and_conditions_of_objects():
    chosen = jnp.asarray([False, True, True, False, True, False])
    behind, has = losses.following(chosen, "shift")
    assert has.tolist() == [False, True, True, False, False, False]
    assert (behind[1], behind[2]) == (2, 4)
    behind, has = losses.following(chosen, "roll")
    assert has.tolist() == chosen.tolist()
    assert behind[4] == 1
    one = jnp.asarray([False, True, False])
    assert not losses.following(one, "roll")[1].any()
    # Two objects a picture; the classes of the first picture stay.
    judged = Judged(
        boxes=jnp.zeros((3, 2, 4)),
        chosen=chosen,
        names=jnp.arange(6.0)[:, None],
        codes=10 * jnp.arange(1.0, 7).reshape(3, 2, 1),
    )
    moved = jnp.asarray([False, True, True])
    first = losses.moved_condition(judged, moved, "first")
    # The first of those objects has the name of the batch's first one, the second that of the
    # second one; their pictures have the codes of the first and of the second picture.
    assert first[2].tolist() == [1, 10]
    assert first[4].tolist() == [2, 30]
    own = losses.moved_condition(judged, moved, "own")
    assert own[2].tolist() == [2, 30]


def test_pairs_and_conditions_are_the_batchs_on_eight_devices():
    """What the published rules take from other pictures does not depend on where those lie."""
    rng = np.random.default_rng(0)
    judged = Judged(
        boxes=jnp.zeros((16, 3, 4)),
        chosen=jnp.asarray(rng.random(48) < 0.5),
        names=jnp.asarray(rng.normal(size=(48, 2))),
        codes=jnp.asarray(rng.normal(size=(16, 3, 2))),
    )
    moved = jnp.asarray(rng.random(16) < 0.5)

    @jax.jit
    def rules(judged, moved):
        pairs = {rule: losses.following(judged.chosen, rule) for rule in ("shift", "roll")}
        return pairs, {r: losses.moved_condition(judged, moved, r) for r in losses.CONDITIONS}

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    spread = jax.device_put((judged, moved), rows)
    assert len(spread[0].codes.sharding.device_set) == 8
    one, eight = rules(judged, moved), rules(*spread)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_object_costs_nothing():
    def critic(*args, method, train=False):
        return jnp.ones((2, 1, 1) if method != "features" else (2, 4, 4, 3))

    judged = Judged(
        boxes=jnp.zeros((1, 2, 4)),
        chosen=jnp.zeros(2, bool),
        names=jnp.ones((2, 1)),
        codes=jnp.ones((1, 2, 1)),
    )
    given = jnp.ones((1, 4, 4, 3))
    value, terms = losses.object_d_loss(
        critic, given, given, given, given, jnp.asarray([True]), judged
    )
    assert value == 0
    assert all(jnp.isfinite(x) for x in terms.values())
    assert losses.object_g_terms(critic, given, given, judged) == (0, 0)
