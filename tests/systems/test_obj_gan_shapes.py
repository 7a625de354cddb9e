"""Obj-GAN's shape generator: its published names, its maps, and the chain from text to masks."""

import dataclasses
import json
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxt2i import api
from jaxt2i.config import ConfigError
from jaxt2i.convert import rules
from jaxt2i.convert.__main__ import main
from jaxt2i.data.schema import DataError
from jaxt2i.encoders import pretrained, vgg19_bn_names
from jaxt2i.encoders.pretrained import template
from jaxt2i.encoders.vgg19_bn import Vgg19Bn
from jaxt2i.engine import state as states
from jaxt2i.engine.method import Control, Sampler
from jaxt2i.run import open as runs
from jaxt2i.run import settings
from jaxt2i.systems.obj_gan_shapes import method as shapes
from jaxt2i.systems.obj_gan_shapes import names
from jaxt2i.systems.obj_gan_shapes.networks import Critic, Generator

GOLDENS = Path(__file__).parents[1] / "goldens" / "obj_gan"
FULL = json.loads((GOLDENS / "full_tensors.json").read_text())["shape_generation"]
PARTS = {"g": "netG", "ins": "netINSD", "glb": "netGLBD"}
MODULES = {"g": Generator, "ins": Critic, "glb": Critic}


def shapes_of(tree):
    return {path: x.shape for path, x in flatten_dict(tree, sep="/").items()}


@pytest.mark.parametrize("net", [*PARTS, "vgg"])
def test_every_published_tensor_has_its_place(net):
    """Files of all published names and shapes, without their memory; G's as DataParallel saves."""
    part = PARTS.get(net, "vgg19_bn")
    before = "module." if net == "g" else ""
    file = {f"{before}{key}": np.broadcast_to(np.int8(0), shape) for key, shape in FULL[part]}
    if net == "vgg":
        table, found, module = (
            vgg19_bn_names.FEATURES,
            vgg19_bn_names.infer("features", file),
            Vgg19Bn,
        )
    else:
        table, found, module = names.TABLES[net][0], names.infer(net, file), MODULES[net]
    default = module(width=80) if net != "vgg" else module()
    assert module(**found) == default
    made, report = rules.to_flax(table, file, None)
    assert shapes_of(made) == shapes_of(template(module(**found)))
    assert not report.unused


def test_discriminators_are_told_by_their_files_names(tmp_path, capsys):
    module = Critic(classes=6, size=32)
    rng = np.random.default_rng(0)
    want = jax.tree.map(lambda x: rng.random(x.shape, np.float32), template(module))
    keys = rules.to_torch(rules.Table(names.CRITIC), want)
    file, to = tmp_path / "netGLBD.npz", tmp_path / "out"
    np.savez(file, **keys)
    assert main(["obj_gan_shapes", "--from", str(file), "--to", str(to)]) == 0
    assert [x.name for x in to.glob("*.safetensors")] == ["glb.safetensors"]
    got = pretrained.load_variables(to / "glb.safetensors")
    jax.tree.map(np.testing.assert_array_equal, got, want)
    np.savez(tmp_path / "d.npz", **keys)
    assert main(["obj_gan_shapes", "--from", str(tmp_path / "d.npz"), "--to", str(to)]) == 1
    assert "name the file netINSD.pth or netGLBD.pth" in capsys.readouterr().err


@pytest.mark.parametrize("case", ["shape_g_full", "shape_g_small"])
def test_maps_are_the_official_ones(case):
    """Boxes of the cases give their maps, also in both orders of the second reading."""
    with np.load(GOLDENS / f"{case}.npz") as stored:
        get = {key: stored[key] for key in stored.files if key.startswith("in_")}
    rois, count = get["in_rois64"], get["in_num_rois"]
    forward = np.moveaxis(get["in_bbox_maps_fwd"], 2, -1)
    *_, size, _, classes = forward.shape
    order = "reversed_places" if case == "shape_g_full" else "reversed"
    game = shapes.Losses(shapes.Model(classes=classes, second_order=order), size, 10, 4)
    batch = {
        "boxes": jnp.asarray(rois[..., :4] / size),
        "box_label": jnp.asarray(rois[..., 4], jnp.int32),
        "box_mask": jnp.arange(10) < count[:, None],
    }
    fullest = np.full(len(count), count.max())
    found = jax.jit(game.maps)(batch, jnp.asarray(fullest))
    kept = forward.shape[1]
    np.testing.assert_array_equal(found["forward"][:, :kept], forward)
    np.testing.assert_array_equal(found["crops"][:, :kept], get["in_bbox_fmaps"])
    backward = np.moveaxis(get["in_bbox_maps_bwd"], 2, -1)
    np.testing.assert_array_equal(found["backward"][:, :kept], backward)


def test_a_box_may_cover_the_last_pixel_and_covers_one():
    given = jnp.asarray([[0.0, 0.0, 1.0, 1.0], [0.99, 0.5, 0.01, 0.01], [0.5, 0.25, 0.25, 0.5]])
    whole = np.asarray(shapes.rectangles(given, 8, last=True)).sum((1, 2))
    assert whole.tolist() == [64, 1, 8]
    assert np.asarray(shapes.rectangles(given, 8)).sum((1, 2)).tolist() == [49, 0, 8]


@pytest.mark.parametrize(
    ("change", "size", "said"),
    [
        ({"second_order": "forwards"}, 64, r"config\.model\.second_order='forwards'"),
        ({}, 48, r"config\.data\.mask_resolution=48; .* 16, 32, 64, 128"),
        ({"classes": 2}, 64, r"config\.model\.classes=2.*set config\.model\.classes=3"),
    ],
)
def test_impossible_settings_name_their_line(change, size, said):
    with pytest.raises(ConfigError, match=said):
        shapes.check(shapes.Model(**change), size, ("a", "b", "c"))


def test_epochs_are_those_of_the_data():
    config = settings.preset("configs/obj_gan_shapes.py", "tiny")
    published = shapes.Optim()
    assert shapes.in_steps(published, config, {"train": 80}).epoch_steps == 10
    assert shapes.in_steps(published, config, {}).epoch_steps == 0
    with pytest.raises(ConfigError, match=r"no end; set config\.optim\.epoch_steps"):
        shapes.in_steps(published, config, {"train": None})
    tx = dataclasses.replace(published, epoch_steps=2, decay_after=1, decay=0.5).tx()
    one, steps = {"x": jnp.ones(())}, []
    state = tx.init(one)
    for _ in range(8):
        update, state = tx.update(one, state, one)
        steps.append(float(update["x"]))
    # Adam's first and second steps of equal gradients, anew every epoch, halved behind the second.
    np.testing.assert_allclose(steps, -2e-4 * np.repeat([1, 1, 0.5, 0.25], 2), rtol=1e-4)


# --- The chain -----------------------------------------------------------------------------------

THINGS = [
    {"label": "cat", "box": [0.1, 0.2, 0.4, 0.5]},
    {"label": "car", "box": [0.5, 0.0, 0.5, 1.0]},
]


def system(run, after=()):
    """A system of weights that nobody trained."""
    state, frozen = states.create(run.method, run.batch_spec(), 0, placed(run))
    return api.System(run=run, state=state, frozen=frozen, after=after)


def placed(run):
    layout = api.here()
    return tuple(map(layout.shardings, states.shapes(run.method, run.batch_spec())))


@pytest.fixture(scope="module")
def chain():
    """(shapes, pictures of masks in classes of which one is unknown, such pictures behind both)."""
    config = settings.preset("configs/obj_gan_shapes.py", "tiny")
    run = runs.open_run(config, runs.known(config)[0])
    earlier = system(run)

    def draw(ctx, rows, keys, *, z, text, strength=0.0):
        """The masks of the first two objects, and the label of the first, as a picture."""
        masks = rows["shape_masks"][:, :2].astype(jnp.float32) / 127.5 - 1
        label = jnp.full_like(masks[:, 0], 1) * (rows["box_label"][:, :1, None] / 8 - 1)
        return {"image": jnp.stack([masks[:, 0], masks[:, 1], label], -1)}

    needs = (*shapes.LAYOUT, "shape_masks")
    method = dataclasses.replace(
        run.method,
        nets={"none": nn.Dense(1)},
        players=(),
        ema={},
        init=lambda key, batch: {"none": {"params": {"kernel": jnp.zeros((1, 1))}}},
        sampler=Sampler(draw, needs=needs),
        score=None,
    )
    named = {"box_label": ("car", "cat", "tree")}  # the numbers of other names, and fewer
    last = dataclasses.replace(
        run, method=method, facts=dataclasses.replace(run.facts, names=named)
    )
    return earlier, system(last), system(last, after=[earlier])


def test_masks_go_from_one_model_to_the_next(chain):
    earlier, last, both = chain
    assert earlier.fills == set()
    assert list(both.conditions) == ["objects"]
    row = {"prompt": "x", "objects": THINGS, "seed": 3}
    drawn = earlier.sample([row])
    assert [thing["label"] for thing in drawn.layouts[0]] == ["car", "cat"]  # the largest first
    masks = [thing["mask"] for thing in drawn.layouts[0]]
    np.testing.assert_array_equal(masks, drawn.outputs[0]["shape_masks"][:2])
    assert (np.stack(masks).std((1, 2)) > 0).all()
    found = both.sample([row])
    np.testing.assert_array_equal(found.arrays[0][..., :2], np.moveaxis(np.stack(masks), 0, -1))
    # Names meet names: a car has another number behind than before.
    assert earlier.run.facts.names["box_label"].index("car") != 0
    assert (found.arrays[0][..., 2] == last.sample(drawn.rows).arrays[0][..., 2]).all()
    assert (found.arrays[0][..., 2] == 0).all()


def test_a_mask_that_is_given_is_not_drawn(chain):
    earlier, _, both = chain
    mine = np.zeros((16, 16), np.uint8)
    mine[4:9, 2:11] = 255
    things = [THINGS[0] | {"mask": mine}, THINGS[1]]
    drawn = earlier.sample([{"prompt": "x", "objects": things, "seed": 3}])
    plain = earlier.sample([{"prompt": "x", "objects": THINGS, "seed": 3}])
    np.testing.assert_array_equal(drawn.layouts[0][1]["mask"], mine)
    np.testing.assert_array_equal(drawn.layouts[0][0]["mask"], plain.layouts[0][0]["mask"])
    whole = [thing | {"mask": mine} for thing in THINGS]
    rows = [{"prompt": "x", "objects": o, "seed": 3} for o in (whole, THINGS, things)]
    found = both.sample(rows).arrays
    assert (found[0][..., :2] == mine[..., None]).all()
    assert (found[2][..., 1] == mine).all()
    assert (found[2][..., 0] == found[1][..., 0]).all()


def test_controls_of_a_whole_chain_reach_their_systems(chain, capsys):
    earlier, last, _ = chain
    controls = (Control("strength", 0.5),)
    sampler = dataclasses.replace(last.sampler, controls=controls)
    method = dataclasses.replace(last.run.method, sampler=sampler)
    both = system(dataclasses.replace(last.run, method=method), after=[earlier])
    row = {"objects": THINGS, "controls": {"strength": 0.25}}
    assert both.sample([row]).rows[0]["controls"] == {"strength": 0.25}
    with pytest.raises(ConfigError, match="no control 'strenth'"):
        both.sample([row | {"controls": {"strenth": 1.0}}])
    assert not capsys.readouterr().err
    filled = both.fill([row])[0]
    assert all("mask" in thing for thing in filled["objects"])
    assert filled["controls"] == {"strength": 0.25}


def test_classes_that_the_next_model_lacks_are_left_out_and_said(chain, capsys):
    earlier, _, both = chain
    strange = next(
        n for n in earlier.run.facts.names["box_label"] if n not in ("car", "cat", "tree")
    )
    rows = [
        {"prompt": "x", "objects": [t, {"label": strange, "box": [0, 0, 0.9, 1]}], "seed": 1}
        for t in THINGS
    ]
    found = both.sample(rows)
    assert [[t["label"] for t in objects] for objects in found.layouts] == [["cat"], ["car"]]
    said = capsys.readouterr().err
    assert said.count(f"drew {strange!r}, which is no class of the model behind it") == 1
    assert both.words.noted["objects of unknown classes"] == 2
    with pytest.raises(DataError, match="objects"):
        both.sample([{"prompt": "x"}])


def test_objects_of_a_file_are_read(chain, tmp_path):
    from jaxt2i.data.conditions import read_file

    file = tmp_path / "rows.json"
    file.write_text(json.dumps([{"prompt": "a car", "objects": THINGS}]))
    pixels = [t | {"box": [round(64 * v) for v in t["box"]]} for t in THINGS]
    (tmp_path / "pixels.json").write_text(
        json.dumps({"prompt": "a car", "units": "pixels", "size": [64, 64], "objects": pixels})
    )
    _, _, both = chain
    rows = [*read_file(file), *read_file(tmp_path / "pixels.json")]
    # 6.4 pixels are 6: the boxes are about the same.
    boxes = [[t["box"] for t in objects] for objects in both.sample(rows).layouts]
    np.testing.assert_allclose(*boxes, atol=0.01)
