"""What a caption of the procedural corpora promises, and whether a picture keeps it.

`read` turns a caption into a `Meaning`: the things it speaks of, what it says of each, how they
stand to each other, how many there are, and where. What is not said is absent. `verdicts` holds a
meaning against facts: those of the generator, of which every caption is true, or those that a
recogniser saw. `encode` and `decode` are the same facts as arrays of a batch.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxt2i.data.drawn import blooms, scenes
from jaxt2i.data.drawn.drawing import COLOURS
from jaxt2i.data.schema import BOX_ATTRIBUTES

CLASSES = {
    "scenes": scenes.CLASSES,
    "blooms": blooms.CLASSES,
    "mixed": scenes.CLASSES + blooms.CLASSES,
}
_COLOURS = tuple(COLOURS)
# Values of the attributes of things; a number in `box_attributes` counts these.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": _COLOURS,
    "size": ("small", "medium", "large"),
    "texture": ("plain", *scenes.TEXTURES, *blooms.PATTERNS),
    "accent": _COLOURS,
    "center": _COLOURS,
    "wing": _COLOURS,
    "belly": _COLOURS,
    "leaves": ("no", "yes"),
}
PLACES = (*scenes.GROUNDS, "garden")
# Assignments of a caption's things to a picture's objects that are tried, the likeliest first.
# Captions of the corpora have a few dozen; others may speak of any number of things.
MOST_ASSIGNMENTS = 20_000


@dataclasses.dataclass(frozen=True)
class Thing:
    """Something that a caption speaks of.

    Attributes:
      name: its class; None where it is not said ("this bird").
      kind: "bird" or "flower", where only that is said.
      count: exactly so many of this class and colour, where more than one; 1: at least one.
      said: {key of `ATTRIBUTES`: value}.
    """

    name: str | None = None
    kind: str | None = None
    count: int = 1
    said: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What a caption says.

    Attributes:
      corpus: "scenes" or "blooms": whose grammar it was read by.
      things: what it speaks of.
      relations: (i, words of `scenes.SAID`, j) between things.
      total: how many objects there are in all.
      place: one of `PLACES`.
      backdrop: colour of the background.
      unread: words that no rule of the grammar knows; captions of the corpora have none.
    """

    corpus: str
    things: tuple[Thing, ...] = ()
    relations: tuple[tuple[int, str, int], ...] = ()
    total: int | None = None
    place: str | None = None
    backdrop: str | None = None
    unread: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        """How many objects a picture needs for it."""
        return max(self.total or 0, sum(thing.count for thing in self.things))


class Verdict(NamedTuple):
    """Whether a picture keeps one promise of a caption.

    Attributes:
      kind: "class", "kind", "relation", "count", "total", "place", "backdrop", or an attribute.
      of: the class, the words, the number or the value that was promised.
      subject: class of the thing that it is promised of, "" where that is not said.
      found: whether the objects of which it is promised are there at all.
      right: whether it is kept.
    """

    kind: str
    of: str
    subject: str
    found: bool
    right: bool


# --- Reading -----------------------------------------------------------------------------------


def _either(words) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


_COLOUR, _SIZE = _either(_COLOURS), "small|large"
_NAMES = {name: name for name in scenes.CLASSES} | {scenes.plural(n): n for n in scenes.CLASSES}
_WORDS = {
    said.format(""): place
    for place, ways in scenes.WHERE.items()
    for said in ways
    if place != "plain"
}
_RELATIONS = {said: words for words, ways in scenes.SAID.items() for said in ways}
_NUMBERS = {word: n for n, word in enumerate(scenes.NUMBERS) if n}
_BACKDROP = rf"(?:(?:on|against) an? (?P<backdrop>{_COLOUR}) background)"
_TEXTURE = _either(scenes.TEXTURES)
_QUALITY = rf"(?:{_SIZE}|{_COLOUR}|{_TEXTURE})"
# Alternatives are tried in this order: what is longer or more special comes first.
_SCENES = re.compile(
    rf"{_BACKDROP}"
    rf"|(?P<place>{_either(_WORDS)})\b"
    rf"|(?P<total>{_either(_NUMBERS)}) objects?\b"
    rf"|(?P<alone>alone)\b"
    rf"|is (?P<qualities>{_QUALITY}(?:(?:, | and ){_QUALITY})*)(?=$|[.,])"
    rf"|(?:is )?(?P<relation>{_either(_RELATIONS)}) (?=(?:an?|the) )"
    rf"|(?:(?P<number>an?|the|{_either(_NUMBERS)}) )?(?:(?P<size>{_SIZE}) )?"
    rf"(?:(?P<colour>{_COLOUR}) )?(?:(?P<texture>{_TEXTURE}) )?(?P<name>{_either(_NAMES)})\b"
    r"|(?P<filler>one of them|a picture of|there (?:is|are)|we see|(?:and|an?|the|is|are)\b|,|\.)"
    r"|(?P<unread>[^\s,.]+)"
)
_COAT = "petals|feathers"
_BLOOMS = re.compile(
    rf"{_BACKDROP}|(?:in front of an? (?P<blur>{_COLOUR}) blur)"
    rf"|(?:the )?(?:{_COAT}) of this (?P<owner>{_either(blooms.CLASSES)}) are (?P<dyed>{_COLOUR})\b"
    rf"|(?P<coat>{_COLOUR}) (?:{_COAT})\b"
    rf"|(?:an? )?(?P<center>{_COLOUR}) center\b"
    rf"|(?P<wing>{_COLOUR}) wings\b"
    rf"|(?:an? )?(?P<belly>{_COLOUR}) belly\b"
    rf"|(?P<accent>{_COLOUR}) (?P<marks>tips|spots)\b"
    rf"|(?P<leaves>green leaves)\b"
    rf"|(?:(?:an?|the|this) )?(?:(?P<size>{_SIZE}) )?(?:(?P<colour>{_COLOUR}) )?"
    rf"(?P<name>{_either((*blooms.CLASSES, 'bird', 'flower'))})\b"
    r"|(?P<filler>a (?:picture|photo) of|this is|(?:with|has|and|an?|the|this|is|are)\b|,|\.)"
    r"|(?P<unread>[^\s,.]+)"
)
# Words that only sentences of the blooms have; "flower" alone is also a thing of the scenes.
_BLOOMING = re.compile(rf"\b(?:{_either(blooms.CLASSES)}|bird|{_COAT}|center)\b")


def read(caption: str, corpus: str = "mixed") -> Meaning:
    """What a caption promises.

    Args:
      caption: a sentence of the corpus, or one made of the same parts.
      corpus: "scenes", "blooms", or "mixed": whichever the words belong to.

    Raises:
      ValueError: for another corpus.
    """
    if corpus not in CLASSES:
        raise ValueError(f"corpus={corpus!r}; captions can be read of {', '.join(CLASSES)}")
    text = " ".join(caption.lower().split())
    if corpus == "mixed":
        corpus = "blooms" if _BLOOMING.search(text) else "scenes"
    return _read_scene(text) if corpus == "scenes" else _read_bloom(text)


def _given(match: re.Match, *names: str) -> dict[str, str]:
    return {name: match[name] for name in names if match[name]}


def _read_scene(text: str) -> Meaning:
    things, relations, unread, out = [], [], [], {}
    for m in _SCENES.finditer(text):
        kind = m.lastgroup
        if kind == "name":
            count = _NUMBERS.get(m["number"], 1)
            said = _given(m, "size", "colour", "texture")
            things.append(Thing(_NAMES[m["name"]], None, count, said))
        elif kind == "relation":
            relations.append((len(things) - 1, _RELATIONS[m["relation"]], len(things)))
        elif kind == "qualities" and things:
            words = re.findall(_QUALITY, m["qualities"])
            keys = ("size", "colour", "texture")
            said = {key: w for w in words for key in keys if w in ATTRIBUTES[key]}
            things[-1] = dataclasses.replace(things[-1], said={**things[-1].said, **said})
        elif kind in ("total", "alone"):
            out["total"] = _NUMBERS.get(m["total"], 1)
        elif kind == "place":
            out["place"] = _WORDS[m["place"]]
        elif kind == "backdrop":
            out |= {"place": "plain", "backdrop": m["backdrop"]}
        elif kind == "unread":
            unread.append(m["unread"])
    good = tuple(r for r in relations if r[0] >= 0 and r[2] < len(things))
    return Meaning("scenes", tuple(things), good, unread=tuple(unread), **out)


def _read_bloom(text: str) -> Meaning:
    name, kind, said, unread, backdrop = None, None, {}, [], None
    for m in _BLOOMS.finditer(text):
        if m["name"] in ("bird", "flower"):
            kind = m["name"]
        name = m["owner"] or (m["name"] if m["name"] in blooms.CLASSES else name)
        backdrop = m["backdrop"] or m["blur"] or backdrop
        said |= _given(m, "size", "colour", "center", "wing", "belly", "accent")
        if colour := m["coat"] or m["dyed"]:
            said["colour"] = colour
        if m["marks"]:
            said["texture"] = {"tips": "tipped", "spots": "spotted"}[m["marks"]]
        if m["leaves"]:
            said["leaves"] = "yes"
        if m["unread"]:
            unread.append(m["unread"])
    things = (Thing(name, kind, 1, said),) if name or kind or said else ()
    return Meaning("blooms", things, backdrop=backdrop, unread=tuple(unread))


# --- Facts -------------------------------------------------------------------------------------


def described(thing: Mapping[str, Any]) -> dict[str, str]:
    """What can be seen of an object of a layout: {key of `ATTRIBUTES`: value}."""
    out = {key: thing[key] for key in ("colour", "size", "texture")}
    out |= {key: thing[key] for key in ("center", "wing", "belly") if key in thing}
    if thing.get("kind") == "flower":
        out["leaves"] = "yes" if thing["leaves"] else "no"
        # Scenes have accents too, but captions do not speak of them.
        if thing["texture"] != "plain":
            out["accent"] = thing["accent"]
    return out


def encode(facts: Mapping[str, Any], objects: int) -> tuple[np.ndarray, np.ndarray]:
    """A layout as the batch keys `box_attributes` and `setting`.

    Args:
      facts: of `scenes.layout` or `blooms.layout`.
      objects: padded number of objects.

    Returns:
      (int32 [objects, K], int32 [2]), as `jaxt2i.data.schema` describes them.
    """
    out = np.full((objects, len(BOX_ATTRIBUTES)), -1, np.int32)
    for row, thing in zip(out, facts["objects"], strict=False):
        seen = described(thing)
        row[:-1] = [v.index(seen[key]) if key in seen else -1 for key, v in ATTRIBUTES.items()]
        row[-1] = thing["order"]
    backdrop = facts.get("background_colour")
    colour = _COLOURS.index(backdrop) if backdrop else -1
    return out, np.array([PLACES.index(facts["background"]), colour], np.int32)


def decode(corpus: str, seen: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Facts from arrays of one picture: what `verdicts` needs of a layout.

    Args:
      corpus: "scenes", "blooms" or "mixed", which decides what the labels count.
      seen: `box_label` [N], `boxes` [N, 4], `box_mask` [N], `box_attributes` [N, K] and
        `setting` [2], as in a batch; `order` may be any numbers that increase to the front.

    Returns:
      {"background", "background_colour", "objects", "relations"}.
    """
    objects = []
    for n in np.flatnonzero(seen["box_mask"]).tolist():
        name = CLASSES[corpus][int(seen["box_label"][n])]
        numbers = [int(k) for k in seen["box_attributes"][n]]
        said = {
            key: values[k]
            for (key, values), k in zip(ATTRIBUTES.items(), numbers, strict=False)
            if k >= 0
        }
        kind = blooms.kind(name) if name in blooms.CLASSES else None
        box = tuple(float(v) for v in seen["boxes"][n])
        order = float(seen["box_attributes"][n][-1])
        objects.append({"class": name, "kind": kind, "seen": said, "box": box, "order": order})
    place, colour = (int(k) for k in seen["setting"])
    return {
        "background": PLACES[place],
        "background_colour": _COLOURS[colour] if colour >= 0 else None,
        "objects": objects,
        "relations": related(objects),
    }


def related(objects: Sequence[Mapping[str, Any]]) -> list[tuple[int, str, int]]:
    """(i, words, j) for all pairs of objects that stand clearly to each other."""
    return [
        (i, words, j)
        for i, j in itertools.permutations(range(len(objects)), 2)
        if (words := scenes.relation(objects[i], objects[j]))
    ]


# --- Judging -----------------------------------------------------------------------------------


def _seen(thing: Mapping[str, Any]) -> Mapping[str, str]:
    return thing["seen"] if "seen" in thing else described(thing)


def _candidates(thing: Thing, objects: Sequence[Mapping[str, Any]]) -> list[int]:
    """Objects that a caption's thing may be, those that fit best first."""

    def misfit(n: int) -> int:
        seen = _seen(objects[n])
        return sum(seen.get(key) != value for key, value in thing.said.items())

    fitting = [
        n
        for n, o in enumerate(objects)
        if thing.name == o["class"] or (thing.name is None and thing.kind in (None, o.get("kind")))
    ]
    return sorted(fitting, key=misfit)


def _assignments(choices: list[list[int]]) -> Iterator[tuple[int | None, ...]]:
    """Every way to give each thing an object of its own, or None."""
    for chosen in itertools.product(*([*c, None] for c in choices)):
        taken = [n for n in chosen if n is not None]
        if len(set(taken)) == len(taken):
            yield chosen


def _of_things(
    meaning: Meaning, facts: Mapping[str, Any], chosen: tuple[int | None, ...]
) -> list[Verdict]:
    """Verdicts on things and relations under one assignment."""
    out, objects = [], facts["objects"]
    for thing, n in zip(meaning.things, chosen, strict=True):
        found = n is not None
        seen = _seen(objects[n]) if found else {}
        if thing.name:
            out.append(Verdict("class", thing.name, thing.name, True, found))
        if thing.kind:
            right = found and objects[n].get("kind") == thing.kind
            out.append(Verdict("kind", thing.kind, thing.name or "", True, right))
        name = thing.name or ""
        out += [Verdict(k, v, name, found, seen.get(k) == v) for k, v in thing.said.items()]
    there = set(facts["relations"])
    for i, words, j in meaning.relations:
        a, b = chosen[i], chosen[j]
        found = a is not None and b is not None
        name = meaning.things[i].name or ""
        out.append(Verdict("relation", words, name, found, (a, words, b) in there))
    return out


def verdicts(meaning: Meaning, facts: Mapping[str, Any]) -> list[Verdict]:
    """Holds every promise of a caption against a picture.

    The things of the caption are given objects of their class, each its own, such that as many as
    possible are there and then as much as possible holds. So "a red ball left of a blue ball" is
    right if it is right of any two balls, and "a ball and a ball" needs two.

    Args:
      meaning: of `read`.
      facts: of the generator, or of `decode`.

    Returns:
      One verdict a promise.
    """
    objects = facts["objects"]
    choices = [_candidates(thing, objects) for thing in meaning.things]
    options = itertools.islice(_assignments(choices), MOST_ASSIGNMENTS)
    ways = (_of_things(meaning, facts, chosen) for chosen in options)
    out = max(ways, key=lambda way: (sum(v.found for v in way), sum(v.right for v in way)))
    for thing in meaning.things:
        if thing.count > 1:
            alike = [o for o in objects if o["class"] == thing.name]
            colour = thing.said.get("colour")
            n = sum(colour in (None, _seen(o).get("colour")) for o in alike)
            number, name = scenes.NUMBERS[thing.count], thing.name or ""
            out.append(Verdict("count", number, name, bool(alike), n == thing.count))
    if meaning.total:
        number = scenes.NUMBERS[meaning.total]
        out.append(Verdict("total", number, "", True, len(objects) == meaning.total))
    if meaning.place:
        right = facts["background"] == meaning.place
        out.append(Verdict("place", meaning.place, "", True, right))
    if meaning.backdrop:
        plain = facts["background"] in ("plain", "garden")
        right = plain and facts["background_colour"] == meaning.backdrop
        out.append(Verdict("backdrop", meaning.backdrop, "", plain, right))
    return out
