"""Promises of captions that boxes keep: the truth keeps all, and each can be broken."""

from jaxt2i.data.drawn import arrangement
from jaxt2i.data.drawn.synthetic import Synthetic


def right(caption, *things):
    found = arrangement.verdicts(caption, things)
    return {(v.kind, v.of): v.right for v in found}


def test_every_caption_of_the_corpus_is_true_of_its_own_layout():
    source = Synthetic("scenes", 16, "val")
    kinds = {}
    for n in range(150):
        things = [(t["class"], t["box"]) for t in source.facts(n)["objects"]]
        for caption in source.captions(n):
            for v in arrangement.verdicts(caption, things):
                assert v.right, (caption, v, things)
                kinds[v.kind, v.of] = kinds.get((v.kind, v.of), 0) + 1
    for of in arrangement.DIRECTIONS:
        assert kinds["relation", of] > 3
    assert {kind for kind, _ in kinds} == {"class", "relation", "size", "count", "total"}


def test_promises_that_are_broken():
    cat, car = ("cat", (0.1, 0.5, 0.2, 0.2)), ("car", (0.6, 0.5, 0.2, 0.2))
    caption = "an orange cat to the left of a red car"
    assert right(caption, cat, car)["relation", "left of"]
    assert not right(caption, ("cat", car[1]), ("car", cat[1]))["relation", "left of"]
    assert not right(caption, cat)["relation", "left of"]
    assert not right(caption, cat)["class", "car"]
    big = ("car", (0.4, 0.4, 0.5, 0.5))
    sizes = right("a small gray cat and a large blue car", cat, big)
    assert sizes["relation", "larger than"]
    assert sizes["size", "small"]
    swapped = right("a small gray cat and a large blue car", ("cat", big[1]), ("car", cat[1]))
    assert not swapped["relation", "larger than"]
    assert not swapped["size", "large"]
    # Two of a colour may be among three, of which no box shows the colour.
    assert right("two red cars", car, car, big)["count", "two"]
    assert not right("two red cars", car)["count", "two"]
    assert not right("two objects at night", cat)["total", "two"]
    # Colours, places and who hides whom are no promises of boxes.
    assert set(right("an orange cat in front of a red car at night", cat, car)) == {
        ("class", "cat"),
        ("class", "car"),
    }
