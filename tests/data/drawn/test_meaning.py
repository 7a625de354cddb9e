"""Captions are understood: what is read from them is what was drawn, and nothing else passes."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxt2i.data.drawn import meaning, rarity, scenes
from jaxt2i.data.drawn.drawing import COLOURS
from jaxt2i.data.drawn.meaning import Thing, read, verdicts
from jaxt2i.data.drawn.synthetic import SPLITS, Synthetic

KEYS = ("box_label", "boxes", "box_mask", "box_attributes", "setting")
SOURCES = {
    (corpus, split): Synthetic(corpus, 32, split)
    for corpus in ("scenes", "blooms", "mixed")
    for split in SPLITS
}


@pytest.mark.parametrize("corpus", ["scenes", "blooms", "mixed"])
@pytest.mark.parametrize("split", SPLITS)
def test_every_caption_is_read_whole_and_true_of_its_picture(corpus, split):
    source, kinds = SOURCES[corpus, split], set()
    for index in range(250):
        facts = source.facts(index)
        again = meaning.decode(corpus, source.example(index, KEYS))
        for caption in source.captions(index):
            promised = read(caption, corpus)
            assert promised.unread == (), caption
            assert read(caption, "mixed") == promised
            assert promised.number <= len(facts["objects"])
            for seen in (facts, again):
                found = verdicts(promised, seen)
                assert found, caption
                assert all(v.right and v.found for v in found), (caption, found)
            kinds |= {v.kind for v in found}
    common = {"class", "colour", "size", "texture", "backdrop"}
    blooms = {"kind", "accent", "center", "wing", "belly", "leaves"}
    if split == "test":  # its flowers and its bird: one closed, one of the others textured
        blooms -= {"accent"} & (blooms - kinds)
    wanted = {"scenes": {"relation", "count", "total", "place"}, "blooms": blooms}
    want = common | (wanted["scenes"] | wanted["blooms"] if corpus == "mixed" else wanted[corpus])
    assert kinds == want


@settings(max_examples=150)
@given(st.integers(0, 2**40), st.integers(0, 4), st.data())
def test_a_scene_in_which_a_fact_is_changed_breaks_the_promise(index, number, data):
    source = SOURCES["scenes", "train"]
    promised = read(source.captions(index)[number], "scenes")
    facts = meaning.decode("scenes", source.example(index, KEYS))
    before = {v.kind for v in verdicts(promised, facts)}
    for thing in promised.things:
        # All objects of the class get a colour that no caption could have meant.
        wrong = copy.deepcopy(facts)
        for o in wrong["objects"]:
            if o["class"] == thing.name:
                o["seen"]["colour"] = "none"
        held = {(v.kind, v.right) for v in verdicts(promised, wrong) if v.subject == thing.name}
        assert ("class", True) in held
        assert ("colour", False) in held
        # Without them, nothing that is said of the thing is kept.
        gone = copy.deepcopy(facts)
        gone["objects"] = [o for o in gone["objects"] if o["class"] != thing.name]
        gone["relations"] = meaning.related(gone["objects"])
        about = [v for v in verdicts(promised, gone) if v.subject == thing.name]
        assert about
        assert not any(v.right for v in about)
        assert all(v.found == (v.kind in ("class",)) for v in about)
    if "total" in before:
        facts["objects"] = facts["objects"][1:]
        facts["relations"] = meaning.related(facts["objects"])
        assert ("total", False) in {(v.kind, v.right) for v in verdicts(promised, facts)}


def test_mirrored_pictures_swap_left_and_right_alone():
    source, swap = SOURCES["scenes", "val"], {"left of": "right of", "right of": "left of"}
    seen = set()
    for index in range(300):
        facts = meaning.decode("scenes", source.example(index, KEYS))
        for o in facts["objects"]:
            x, y, w, h = o["box"]
            o["box"] = (1 - x - w, y, w, h)
        mirrored = set(meaning.related(facts["objects"]))
        for i, words, j in facts["relations"]:
            assert (i, swap.get(words, words), j) in mirrored
            seen.add(words)
    assert seen == set(scenes.SAID)


def box(x, y, name="ball", colour="red"):
    """An object as `decode` gives it."""
    said = {"colour": colour, "size": "small", "texture": "plain"}
    return {"class": name, "kind": None, "seen": said, "box": (x, y, 0.2, 0.2), "order": 0.0}


def picture(*objects):
    return {
        "background": "sea",
        "background_colour": None,
        "objects": list(objects),
        "relations": meaning.related(objects),
    }


def right(caption, facts):
    return {v.kind: v.right for v in verdicts(read(caption, "scenes"), facts)}


def test_things_get_objects_of_their_own_in_the_best_way():
    two = picture(box(0.7, 0.4), box(0.1, 0.4, colour="blue"))
    assert right("a blue ball left of a red ball", two)["relation"]
    assert not right("a red ball left of a blue ball", two)["relation"]
    # One ball cannot be both.
    one = verdicts(read("a red ball, a red ball", "scenes"), picture(box(0.7, 0.4)))
    assert [v.right for v in one if v.kind == "class"] in ([True, False], [False, True])
    # Two alike: which of them is meant does not matter.
    assert right("a red ball is left of a red ball", picture(box(0.7, 0.4), box(0.1, 0.4)))[
        "relation"
    ]


def test_exact_numbers_are_exact():
    three = picture(box(0.1, 0.1), box(0.4, 0.7), box(0.7, 0.2), box(0.7, 0.7, "fish"))
    assert right("three red balls at sea", three) == {
        "class": True, "colour": True, "count": True, "place": True,
    }  # fmt: skip
    assert not right("two red balls", three)["count"]
    assert right("four objects on the water", three)["total"]
    assert not right("one object at sea, a red ball", three)["total"]
    assert not right("a red ball alone at night", three)["place"]


@pytest.mark.parametrize(
    ("caption", "things", "relations"),
    [
        (
            "A large  red striped ball is to the left of a gray cat.",
            (
                Thing("ball", said={"size": "large", "colour": "red", "texture": "striped"}),
                Thing("cat", said={"colour": "gray"}),
            ),
            ((0, "left of", 1),),
        ),
        (
            "the butterfly at sea is small, pink and dotted",
            (Thing("butterfly", said={"size": "small", "colour": "pink", "texture": "dotted"}),),
            (),
        ),
        ("two blue butterflies", (Thing("butterfly", count=2, said={"colour": "blue"}),), ()),
        (
            "a red kite under a night sky, a fish",
            (Thing("kite", said={"colour": "red"}), Thing("fish")),
            (),
        ),
    ],
)
def test_scenes_are_read(caption, things, relations):
    found = read(caption, "scenes")
    assert (found.things, found.relations, found.unread) == (things, relations, ())


def test_blooms_are_read():
    found = read("a small owl with red wings and a white belly in front of a blue blur", "blooms")
    said = {"size": "small", "wing": "red", "belly": "white"}
    assert found == meaning.Meaning("blooms", (Thing("owl", said=said),), backdrop="blue")
    found = read("this flower has pink petals, white spots and green leaves", "blooms")
    said = {"colour": "pink", "accent": "white", "texture": "spotted", "leaves": "yes"}
    assert found == meaning.Meaning("blooms", (Thing(None, "flower", said=said),))
    assert read("the petals of this tulip are red", "mixed").things[0].said == {"colour": "red"}


def test_other_words_are_told_and_other_corpora_refused():
    assert read("a wistful red ball near Paris", "scenes").unread == ("wistful", "near", "paris")
    assert read("", "scenes") == meaning.Meaning("scenes")
    assert verdicts(read("hello", "blooms"), picture()) == []
    with pytest.raises(ValueError, match="coco"):
        read("a red ball", "coco")


@settings(max_examples=60)
@given(st.lists(st.sampled_from([*"ab,.", *COLOURS, "ball", "owl", "is", "two", "left of a"])))
def test_any_text_is_read(words):
    text = " ".join(words)
    for corpus in meaning.CLASSES:
        verdicts(read(text, corpus), picture(box(0.1, 0.1), box(0.5, 0.5)))


def test_rare_classes_come_first():
    assert set(rarity.classes_by_rarity("blooms", 300)[:4]) == {
        "cosmos", "starflower", "lotus", "jay",
    }  # fmt: skip
    order = rarity.classes_by_rarity("scenes", 300)
    assert set(order) == set(scenes.CLASSES)
    counts = np.zeros(len(order))
    for index in range(300):
        for thing in SOURCES["scenes", "train"].facts(index)["objects"]:
            counts[order.index(thing["class"])] += 1
    assert (np.diff(counts) >= 0).all()


def test_the_judges_split_has_all_classes_and_pictures_of_its_own():
    source = SOURCES["blooms", "judge"]
    names = {source.facts(index)["objects"][0]["class"] for index in range(400)}
    assert names == set(source.class_names)
    assert source.captions(0) != SOURCES["blooms", "train"].captions(0)
