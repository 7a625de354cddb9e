"""The procedural corpora: the same picture everywhere, and nothing said of it that is not so."""

import hashlib
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxt2i.data.drawn import blooms, scenes
from jaxt2i.data.drawn.drawing import COLOURS
from jaxt2i.data.drawn.synthetic import Synthetic
from jaxt2i.data.schema import Sizes, validate

KEYS = Synthetic.gives
BLOOMS = {split: Synthetic("blooms", 32, split) for split in ("train", "val", "test")}
SCENES = Synthetic("scenes", 32)

DIGEST = """
import hashlib
from jaxt2i.data.drawn.synthetic import Synthetic
h = hashlib.sha256()
for corpus in ("blooms", "scenes"):
    s = Synthetic(corpus, 32, "val", seed=7)
    for i in (40, 3, 12345678901):
        for key, value in sorted(s.example(i, s.gives).items()):
            h.update(key.encode() + value.tobytes())
        h.update("|".join(s.captions(i)).encode())
print(h.hexdigest())
"""


def test_another_process_and_order_gives_the_same_bytes():
    out = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True)
    h = hashlib.sha256()
    for corpus in ("blooms", "scenes"):
        s = Synthetic(corpus, 32, "val", seed=7)
        made = {i: s.example(i, KEYS) for i in (12345678901, 3, 40)}
        for i in (40, 3, 12345678901):
            for key, value in sorted(made[i].items()):
                h.update(key.encode() + value.tobytes())
            h.update("|".join(s.captions(i)).encode())
    assert out.stdout.strip() == h.hexdigest()


def test_index_seed_split_and_corpus_all_change_the_picture():
    seen = [
        Synthetic(corpus, 32, split, seed).example(index)["image"].tobytes()
        for corpus in ("scenes", "blooms")
        for split in ("train", "val", "test")
        for seed in (0, 1)
        for index in (0, 1)
    ]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("corpus", ["scenes", "blooms", "mixed"])
def test_examples_follow_the_schema(corpus):
    source = Synthetic(corpus, 48, objects=3, mask_resolution=12)
    made = [source.example(i, KEYS) for i in range(6)]
    batch = {key: np.stack([m[key] for m in made]) for key in KEYS}
    wants = tuple(key for key in KEYS if key != "id")
    validate(batch, Sizes(batch=6, height=48, width=48, objects=3, mask_resolution=12), wants)
    assert batch["id"].dtype == np.int64
    assert batch["id"].tolist() == list(range(6))
    assert set(source.example(0, ("boxes",))) == {"boxes"}
    classes = len(source.class_names)
    assert batch["label"].max() < classes
    assert batch["box_label"].max() < classes
    assert batch["segmentation"].max() <= classes


def test_mixed_is_scenes_and_blooms_by_turns():
    mixed = Synthetic("mixed", 32)
    offset = len(scenes.CLASSES)
    assert mixed.class_names == scenes.CLASSES + blooms.CLASSES
    assert [len(mixed.captions(i)) for i in range(4)] == [5, 10, 5, 10]
    alone, joint = BLOOMS["train"].example(5, KEYS), mixed.example(5, KEYS)
    np.testing.assert_array_equal(alone["image"], joint["image"])
    assert joint["label"] == alone["label"] + offset
    assert joint["box_label"][0] == joint["label"]


@settings(max_examples=25, deadline=None)
@given(
    index=st.integers(0, 2**40),
    resolution=st.integers(16, 80),
    corpus=st.sampled_from(["scenes", "blooms"]),
)
def test_any_index_at_any_resolution(index, resolution, corpus):
    source = Synthetic(corpus, resolution)
    made = source.example(index, ("image", "boxes", "box_mask", "segmentation"))
    assert made["image"].shape == (resolution, resolution, 3)
    assert made["image"].std() > 2  # never an empty picture
    boxes = made["boxes"][made["box_mask"]]
    assert (boxes >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 1 + 1e-6).all()
    assert not made["boxes"][~made["box_mask"]].any()
    assert made["segmentation"].any()
    np.testing.assert_array_equal(
        boxes[0], np.float32(Synthetic(corpus, 16).facts(index)["objects"][0]["box"])
    )


@pytest.mark.parametrize("corpus", ["scenes", "blooms"])
def test_the_same_picture_at_twice_the_size(corpus):
    small, large = Synthetic(corpus, 64), Synthetic(corpus, 128)
    apart = []
    for index in range(8):
        a = small.example(index)["image"].astype(np.float32)
        b = large.example(index)["image"].astype(np.float32)
        b = b.reshape(64, 2, 64, 2, 3).mean((1, 3))
        assert np.abs(a - b).mean() < 2.5
        other = small.example(index + 1)["image"]
        apart.append(np.abs(a - other).mean())
    assert min(apart) > 5  # what two different pictures differ by


def edges(mask):
    """x0, y0, x1, y1 of a boolean mask, as fractions."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    n = mask.shape[0]
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / n


@pytest.mark.parametrize("corpus", ["scenes", "blooms"])
def test_boxes_masks_and_segmentation_agree(corpus):
    n = 96
    source = Synthetic(corpus, n, mask_resolution=n)
    alone = hidden = 0
    for index in range(40):
        made = source.example(index, KEYS)
        things = source.facts(index)["objects"]
        masks = made["shape_masks"].astype(int)
        assert masks.sum(0).max() <= 256  # one pixel is shared out once
        for k, thing in enumerate(things):
            x, y, w, h = made["boxes"][k]
            got, box = edges(masks[k] > 127), np.array([x, y, x + w, y + h])
            inside = np.array([1, 1, -1, -1]) * (got - box)
            assert (inside > -1.6 / n).all(), (index, thing["class"])
            area = (masks[k] > 127).sum() / n**2
            assert area > 0.1 * w * h
            if all(scenes.shared(thing["box"], o["box"]) == 0 for o in things if o is not thing):
                # Thin parts, such as a balloon's string, cover less than half of a pixel.
                faint = np.array([1, 1, -1, -1]) * (edges(masks[k] > 25) - box)
                assert (faint < 2.5 / n).all(), (index, thing["class"])
                alone += 1
            else:
                hidden += 1
            labels = made["segmentation"][masks[k] > 127]
            assert (labels == thing["label"] + 1).all()
        assert ((made["segmentation"] > 0) == (masks.max(0) > 127)).all()
        assert made["label"] == made["box_label"][0]
    assert alone > 30
    assert hidden > 10 or corpus == "blooms"


def test_objects_number_one_to_six_and_are_few_enough_for_the_padding():
    counts = [len(SCENES.facts(i)["objects"]) for i in range(400)]
    assert set(counts) == set(range(1, 7))
    few, all_ = Synthetic("scenes", 32, objects=2), SCENES
    index = counts.index(6)
    made = few.example(index, ("boxes", "box_mask"))
    assert made["box_mask"].tolist() == [True, True]
    np.testing.assert_array_equal(made["boxes"], all_.example(index, ("boxes",))["boxes"][:2])
    areas = made["boxes"][:, 2] * made["boxes"][:, 3]
    assert areas[0] >= areas[1]


def test_every_class_colour_texture_place_and_relation_occurs():
    seen = {key: set() for key in ("class", "colour", "texture", "size")}
    places, relations = set(), set()
    for index in range(1500):
        facts = SCENES.facts(index)
        places.add(facts["background"])
        relations |= {words for _, words, _ in facts["relations"]}
        for thing in facts["objects"]:
            for key, values in seen.items():
                values.add(thing[key])
    assert seen["class"] == set(scenes.CLASSES)
    assert seen["colour"] == set(COLOURS)
    assert seen["texture"] == {"plain", *scenes.TEXTURES}
    assert seen["size"] == {"small", "medium", "large"}
    assert places == set(scenes.WHERE)
    assert relations == set(scenes.SAID)


def test_test_classes_of_blooms_are_never_trained_on():
    found = {
        split: {source.facts(i)["objects"][0]["class"] for i in range(400)}
        for split, source in BLOOMS.items()
    }
    assert found["train"] == found["val"] == set(blooms.CLASSES) - set(blooms.TEST_CLASSES)
    assert found["test"] == set(blooms.TEST_CLASSES)
    assert len(found["train"]) == 20
    labels = {int(BLOOMS["test"].example(i, ("label",))["label"]) for i in range(40)}
    assert labels == {20, 21, 22, 23}


# --- Captions against facts. The grammar is read back here by patterns of its own. ---

COLOUR = "|".join(COLOURS)
NOUN = re.compile(
    rf"(?:(small|large) )?({COLOUR}) (?:(striped|dotted|checked) )?({'|'.join(scenes.CLASSES)})\b"
)
NUMBER = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
PLURALS = {scenes.plural(name): name for name in scenes.CLASSES}
RELATED = {said: words for words, ways in scenes.SAID.items() for said in ways}


def those(facts, match):
    """Indices of the objects that a noun phrase fits."""
    size, colour, texture, name = match
    return [
        i
        for i, o in enumerate(facts["objects"])
        if (o["class"], o["colour"]) == (name, colour)
        and size in ("", o["size"])
        and texture in ("", o["texture"])
    ]


def holds(a, words, b):
    """Whether a relation is so, from the boxes alone."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = a["box"], b["box"]
    dx, dy = bx + bw / 2 - ax - aw / 2, by + bh / 2 - ay - ah / 2
    return {
        "left of": dx > abs(dy),
        "right of": -dx > abs(dy),
        "above": dy > abs(dx),
        "below": -dy > abs(dx),
        "next to": abs(dx) > abs(dy) and abs(dx) - (aw + bw) / 2 < 0.06 + 1e-9,
        "in front of": a["order"] > b["order"] and scenes.shared(a["box"], b["box"]) > 0,
        "behind": a["order"] < b["order"] and scenes.shared(a["box"], b["box"]) > 0,
    }[words]


def check_scene(caption, facts):
    for match in NOUN.findall(caption):
        assert those(facts, match), caption
    groups = re.findall(rf"({'|'.join(NUMBER)}) ({COLOUR}) (\w+)", caption)
    for number, colour, many in groups:
        same = [o for o in facts["objects"] if (PLURALS[many], colour) == (o["class"], o["colour"])]
        assert len(same) == NUMBER[number], caption
    for number in re.findall(rf"({'|'.join(NUMBER)}) objects?", caption):
        assert len(facts["objects"]) == NUMBER[number], caption
    if " alone " in caption:
        assert len(facts["objects"]) == 1
    if the := re.match(r"the (\w+) .* is (.*)", caption):
        (thing,) = (o for o in facts["objects"] if o["class"] == the[1])
        said = set(re.findall(r"\w+", the[2])) - {"and"}
        assert said <= {thing["size"], thing["colour"], thing["texture"]}, caption
    between = NOUN.sub("@", caption)
    found = re.search(r"@(?: is)? ([a-z ]+?) an? @$", between)
    related = bool(found and found[1] in RELATED)
    if related:
        first, second = (those(facts, m) for m in NOUN.findall(caption))
        ways = {(i, j) for i, w, j in facts["relations"] if w == RELATED[found[1]]}
        ways &= {(i, j) for i in first for j in second}
        assert ways, caption
        things = facts["objects"]
        assert all(holds(things[i], RELATED[found[1]], things[j]) for i, j in ways), caption
    for place, ways in scenes.WHERE.items():
        for way in ways:
            if place != "plain" and re.search(rf"\b{way}\b", caption):
                assert facts["background"] == place, caption
    for colour in re.findall(rf"({COLOUR}) background", caption):
        assert facts["background_colour"] == colour, caption
    return bool(groups), related


def test_sentences_about_scenes_are_true():
    words, groups, related = set(), 0, 0
    for index in range(600):
        said, facts = SCENES.captions(index), SCENES.facts(index)
        assert len(said) == 5
        for caption in said:
            group, relation = check_scene(caption, facts)
            groups, related = groups + group, related + relation
            assert re.fullmatch(r"[a-z ,]+", caption)
            assert len(caption.split()) <= 20
            words |= set(re.findall(r"[a-z]+", caption))
    assert len(words) < 150
    assert groups > 40
    assert related > 300


def check_bloom(caption, facts):
    (thing,) = facts["objects"]
    classes = set(re.findall(r"[a-z]+", caption)) & set(blooms.CLASSES)
    assert classes <= {thing["class"]}, caption
    part = rf"({COLOUR}) ({thing['class']}|petals|feathers|center|wings|belly|tips|spots|leaves|"
    names = {
        thing["class"]: "colour", "petals": "colour", "feathers": "colour", "center": "center",
        "wings": "wing", "belly": "belly", "tips": "accent", "spots": "accent",
    }  # fmt: skip
    found = re.findall(part + "background|blur)", caption)
    for colour, noun in found:
        if noun in ("background", "blur"):
            assert facts["background_colour"] == colour, caption
        elif noun == "leaves":
            assert thing["leaves"], caption
        else:
            assert thing[names[noun]] == colour, caption
        assert noun not in ("tips", "spots") or thing["texture"].startswith(noun[:3]), caption
    assert len(found) == len(re.findall(rf"\b({COLOUR})\b", caption)), caption
    for size in re.findall("small|large", caption):
        assert thing["size"] == size
    for kind in re.findall(r"\b(bird|flower)\b", caption):
        assert thing["kind"] == kind


def test_sentences_about_blooms_are_true():
    words = set()
    for source in BLOOMS.values():
        for index in range(200):
            said, facts = source.captions(index), source.facts(index)
            assert len(said) == 10
            name = facts["objects"][0]["class"]
            assert sum(name in caption.split() for caption in said) == 8
            for caption in said:
                assert re.fullmatch(r"[a-z ,]+", caption)
                assert len(caption.split()) <= 20
                words |= set(re.findall(r"[a-z]+", caption))
                if " are " not in caption:
                    check_bloom(caption, facts)
                else:
                    assert caption.endswith(facts["objects"][0]["colour"])
    assert len(words) < 100


def test_a_caption_names_the_colour_that_is_seen():
    # Pixels of a thing are nearer to the colour said of it than to most others.
    source = Synthetic("scenes", 64, mask_resolution=64)
    table = np.array(list(COLOURS.values()), np.float32)
    ranks = []
    for index in range(60):
        made = source.example(index, ("image", "shape_masks"))
        for thing, mask in zip(source.facts(index)["objects"], made["shape_masks"], strict=False):
            if thing["class"] not in ("ball", "car", "balloon", "star", "cloud", "umbrella"):
                continue
            if thing["texture"] != "plain":
                continue
            mean = np.median(made["image"][mask > 200].astype(np.float32), 0)
            near = np.argsort(((table - mean) ** 2).sum(1))
            ranks.append(int(np.flatnonzero(near == list(COLOURS).index(thing["colour"]))[0]))
    assert len(ranks) > 15
    assert np.mean(np.array(ranks) <= 1) > 0.85


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match=r"config\.data\.corpus.*'coco'.*scenes, blooms, mixed"):
        Synthetic("coco", 64)
    with pytest.raises(ValueError, match=r"config\.data\.split.*'dev'.*train, val, test"):
        Synthetic("scenes", 64, "dev")
    for resolution in (8, 1024):
        with pytest.raises(ValueError, match=r"config\.data\.resolution.*16 to 512"):
            Synthetic("scenes", resolution)
    with pytest.raises(ValueError, match="tokens"):
        SCENES.example(0, ("image", "tokens"))
    assert Synthetic("scenes", 512).example(0)["image"].shape == (512, 512, 3)


def test_it_needs_no_flax_and_no_tensorflow():
    code = (
        "import sys, jaxt2i.data.drawn.synthetic; print({'flax', 'tensorflow'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
