"""What a caption of the scenes promises of a layout, and whether classes and boxes keep it.

Of a `meaning.Meaning` that is what boxes can show: which things there are and how many, how they
stand to each other, and how large they are. Colours, textures, places and who hides whom are not.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from jaxt2i.data.drawn import meaning, scenes
from jaxt2i.data.drawn.meaning import Meaning, Verdict

DIRECTIONS = ("left of", "right of", "above", "below", "next to")
LARGER = "larger than"
# (name of its class, x, y, w, h in fractions).
Thing = tuple[str, Sequence[float]]


def promised(caption: str) -> Meaning:
    """What boxes can show of a caption.

    Where one thing is called large and another small, the first is larger than the second.
    """
    read = meaning.read(caption, "scenes")
    sizes = [thing.said.get("size") for thing in read.things]
    larger = [
        (i, LARGER, j)
        for i, j in itertools.permutations(range(len(sizes)), 2)
        if (sizes[i], sizes[j]) == ("large", "small")
    ]
    kept = [r for r in read.relations if r[1] in DIRECTIONS]
    things = [
        dataclasses.replace(thing, said={k: v for k, v in thing.said.items() if k == "size"})
        for thing in read.things
    ]
    return dataclasses.replace(
        read,
        things=tuple(things),
        relations=(*kept, *larger),
        place=None,
        backdrop=None,
    )


def seen(things: Sequence[Thing]) -> dict[str, Any]:
    """A layout as facts, as `meaning.verdicts` reads them."""
    objects = []
    for name, box in things:
        longest = max(box[2:])
        size = (
            "small" if longest < scenes.SMALL else "large" if longest > scenes.LARGE else "medium"
        )
        objects.append({"class": name, "seen": {"size": size}, "box": tuple(box), "order": 0})
    larger = [
        (i, LARGER, j)
        for i, j in itertools.permutations(range(len(objects)), 2)
        if max(objects[i]["box"][2:]) > max(objects[j]["box"][2:])
    ]
    return {"objects": objects, "relations": [*meaning.related(objects), *larger]}


def verdicts(caption: str, things: Sequence[Thing]) -> list[Verdict]:
    """Whether a layout keeps each promise of a caption.

    Kinds are "class", "relation", "size", "count" and "total". Of things that are counted by their
    colour, which no box shows, there must be that many or more.
    """
    told, facts = promised(caption), seen(things)
    colours = [thing.said.get("colour") for thing in meaning.read(caption, "scenes").things]
    single = [dataclasses.replace(thing, count=1) for thing in told.things]
    out = meaning.verdicts(dataclasses.replace(told, things=tuple(single)), facts)
    for thing, colour in zip(told.things, colours, strict=True):
        if thing.count > 1:
            there = sum(name == thing.name for name, _ in things)
            right = there >= thing.count if colour else there == thing.count
            number, name = scenes.NUMBERS[thing.count], thing.name or ""
            out.append(Verdict("count", number, name, there > 0, right))
    return out
