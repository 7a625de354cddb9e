"""Obj-GAN's box generator: its published names, its statistics, sequences and layouts."""

import json
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxt2i.config import ConfigError
from jaxt2i.convert import rules
from jaxt2i.convert.__main__ import main
from jaxt2i.data.drawn.synthetic import Synthetic
from jaxt2i.encoders import pretrained
from jaxt2i.encoders.pretrained import template
from jaxt2i.run import open as runs
from jaxt2i.run import settings
from jaxt2i.systems.obj_gan_boxes import layouts, names
from jaxt2i.systems.obj_gan_boxes import method as boxes
from jaxt2i.systems.obj_gan_boxes.layouts import END, PAD, SPECIAL, START
from jaxt2i.systems.obj_gan_boxes.networks import Decoder

FILE = Path(__file__).parents[1] / "goldens" / "obj_gan" / "full_tensors.json"
FULL = json.loads(FILE.read_text())["box_generation"]
MEAN, DEVIATION = (125.0, 135.0, 80.0, 1.2), (60.0, 55.0, 70.0, 0.8)
STATS = layouts.Statistics(MEAN, DEVIATION, (9.0, 4.0, 0.0), 5.0, (1.4, 2.0, 1.0), (0.2, 1.0, 0.0))


def shapes(tree):
    return {path: x.shape for path, x in flatten_dict(tree, sep="/").items()}


@pytest.mark.parametrize("prefix", ["", "decoder."])
def test_every_published_tensor_has_its_place(prefix):
    file = {f"{prefix}{k}": np.broadcast_to(np.int8(0), shape) for k, shape in FULL["decoder"]}
    found = names.infer("decoder", file)
    assert found == {name: getattr(Decoder(), name) for name in found}
    made, report = rules.to_flax(names.DECODER, file, None)
    assert shapes(made) == shapes(template(Decoder(**found)))
    assert not report.unused


def test_a_file_becomes_the_decoder_with_its_attention(tmp_path):
    module = Decoder(labels=7, width=6, mixtures=2, attention=True)
    rng = np.random.default_rng(0)
    want = jax.tree.map(lambda x: rng.random(x.shape, np.float32), template(module))
    np.savez(tmp_path / "decoder.npz", **rules.to_torch(names.DECODER, want))
    to = tmp_path / "out"
    assert main(["obj_gan_boxes", "--from", str(tmp_path / "decoder.npz"), "--to", str(to)]) == 0
    about = json.loads((to / "convert.json").read_text())["nets"]["decoder"]["sizes"]
    assert Decoder(**about) == module
    got = pretrained.load_variables(to / "decoder.safetensors")
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_layouts_are_measured_and_kept():
    """Means over boxes, counts over captions, and how often a class is there where it is."""
    source = Synthetic("scenes", 32, objects=4)
    found = layouts.measured(source, 17, 50)
    rows, counts = [], np.zeros((50, 17))
    for i in range(50):
        things = source.facts(i)["objects"][:4]
        for thing in things:
            x, y, w, h = np.clip(np.array(thing["box"]) * 256, 1, 256)
            rows.append([x + w / 2, y + h / 2, w, h / w])
            counts[i, thing["label"]] += 1
    np.testing.assert_allclose(found.mean, np.mean(rows, 0), rtol=1e-4)
    np.testing.assert_allclose(found.deviation, np.std(rows, 0), rtol=1e-4)
    np.testing.assert_array_equal(found.counts, 5 * counts.sum(0))
    assert found.captions == 250
    own = [c[c > 0] for c in counts.T]
    np.testing.assert_allclose(found.often, [c.mean() if len(c) else 1 for c in own])
    np.testing.assert_allclose(found.spread, [c.std() if len(c) else 0 for c in own], atol=1e-6)
    again = layouts.Statistics.read(json.loads(json.dumps(found.plain())), "facts.json")
    assert again == found


def test_a_run_is_built_of_its_datas_statistics(tmp_path):
    config = settings.preset("configs/obj_gan_boxes.py", "tiny")
    facts, _ = runs.known(config)
    assert (
        facts.statistics["layouts"]
        == layouts.measured(Synthetic("scenes", 16, objects=4), 17, 64).plain()
    )
    given = tmp_path / "facts.json"
    given.write_text(json.dumps({"statistics": facts.statistics}))
    model = boxes.Model(classes=17, statistics=str(given))
    assert (
        boxes.statistics_of(model, {})[0]
        == boxes.statistics_of(boxes.Model(classes=17), facts.statistics)[0]
    )
    _, said = boxes.statistics_of(boxes.Model(classes=17), {})
    assert "stand-ins" in said[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not readable as a JSON object"),
        ('{"layouts": 3}', "no statistics of layouts"),
        (json.dumps(STATS.plain()), "statistics of 3 classes, and config.model.classes=17"),
        (json.dumps(STATS.plain() | {"deviation": [1, 1, 0, 1]}), "not above 0"),
    ],
)
def test_statistics_that_are_none_are_refused(tmp_path, content, said):
    file = tmp_path / "s.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=said):
        boxes.statistics_of(boxes.Model(classes=17, statistics=str(file)), {})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"next_xy": "both"}, r"config\.model\.next_xy='both'"),
        ({"rho_limit": 1.5}, r"config\.model\.rho_limit=1.5"),
        ({"classes": 2}, r"config\.model\.classes=2.*set config\.model\.classes=3"),
    ],
)
def test_impossible_settings_name_their_line(change, said):
    with pytest.raises(ConfigError, match=said):
        boxes.check(boxes.Model(**change), ("a", "b", "c"))
    with pytest.raises(ConfigError, match=r"config\.model\.measured=0"):
        layouts.measured(Synthetic("scenes", 16), 17)
    with pytest.raises(ConfigError, match=r"object of class \d+; set config\.model\.classes"):
        layouts.measured(Synthetic("scenes", 16), 2, 9)


def test_the_published_vocabulary_says_which_label_is_which_class(tmp_path):
    words = {"<pad>": 0, "<sos>": 1, "<eos>": 2, "<unk>": 3, "90": 4, "1": 5, "44": 6}
    file = tmp_path / "label_word2index.pt"
    file.write_bytes(pickle.dumps(words))
    assert layouts.class_numbers(boxes.vocabulary(str(file)), 3) == [2, 0, 1]
    with pytest.raises(ConfigError, match="expected a vocabulary of 4 class ids"):
        layouts.class_numbers(words, 4)
    file.write_bytes(b"no pickle")
    with pytest.raises(ConfigError, match=r"config\.model\.labels"):
        boxes.vocabulary(str(file))
    losses = boxes.Losses(boxes.Model(classes=3), STATS, 3, [2, 0, 1])
    np.testing.assert_array_equal(losses.counts, [0, 5, 5, 0, 0, 9, 4])
    batch = {
        "boxes": jnp.full((1, 3, 4), 0.3),
        "box_label": jnp.asarray([[0, 1, 2]]),
        "box_mask": jnp.asarray([[True, True, True]]),
    }
    assert losses.sequence(batch)[0].tolist() == [[START, 5, 6, 4, END]]


layout = jax.jit(layouts.layout, static_argnames=("statistics", "drop_last", "whole_pixels"))


def row(labels, drawn):
    places = (np.asarray(drawn, np.float32) - MEAN) / DEVIATION
    return jnp.asarray(places), jnp.asarray(labels)


def test_a_layout_is_a_sequence_and_back():
    given = jnp.asarray([[[0.25, 0.125, 0.5, 0.5], [0.5, 0.5, 0.25, 0.125], [0, 0, 0, 0]]])
    mask = jnp.asarray([[True, True, False]])
    labels, places = layouts.sequence(given, jnp.asarray([[2, 0, 0]]), mask, STATS)
    assert labels.tolist() == [[START, SPECIAL + 2, SPECIAL, END, PAD]]
    assert not places[0, [0, 3, 4]].any()
    how = {"drop_last": "end", "whole_pixels": False}
    back, there = layout(places[0, 1:], labels[0, 1:], jnp.full(3, 9.0), STATS, **how)
    assert there.tolist() == [True, True, False, False]
    np.testing.assert_allclose(back[:2], given[0, :2], atol=1e-5)


def test_what_is_no_object_is_left_out():
    """The last row, whatever it is, or the end; classes that are there too often; bad sides."""
    drawn = [
        [100, 100, 40, 1],
        [90, 90, 30, 1],
        [80, 80, 20.7, 1],
        [70, 70, -5, 1],
        [60, 60, 10, 1],
    ]
    places, labels = row([SPECIAL + 1, SPECIAL, SPECIAL, SPECIAL + 1, SPECIAL], drawn)
    most = jnp.asarray([2.9, 9.0, 9.0])
    keep = lambda **kw: layout(places, labels, most, STATS, **kw)[1].tolist()  # noqa: E731
    assert keep(drop_last="row") == [True, True, True, False, False]
    assert keep(drop_last="end") == [True, True, True, False, False]
    assert layout(places, labels, most + 1, STATS, drop_last="end")[1].tolist()[-1]
    whole, _ = layout(places, labels, most, STATS)
    np.testing.assert_array_equal(whole[2] * 256, [69, 69, 20, 20])
    ended = labels.at[1].set(END)
    assert layout(places, ended, most, STATS, drop_last="end")[1].tolist() == [True] + [False] * 4
    # The official code also drops the only box of a sequence that does not end.
    assert not layout(places[:1], labels[:1], most, STATS)[1].any()


def test_both_losses_of_labels():
    told = jnp.asarray([[[0.1, 0.2, 0.3, 0.1, 0.3], [0.2, 0.2, 0.2, 0.2, 0.2]]])
    labels, weight = (
        jnp.asarray([[4, PAD]]),
        boxes.label_weights(jnp.asarray([7, 1, 1, 0, 32.0]), 8.0, 0.2),
    )
    np.testing.assert_allclose(weight, [0, 8, 8, 1, 4], rtol=1e-6)
    assert boxes.label_loss(told, labels, weight, "probability")[0] == pytest.approx(-1.2)
    assert boxes.label_loss(told, labels, weight, "log")[0] == pytest.approx(-4 * np.log(0.3))
