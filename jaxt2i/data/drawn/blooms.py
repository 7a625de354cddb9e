"""The `blooms` corpus: one flower or bird a picture, of a class that only its shape tells.

Colours, size, pattern and background vary inside a class, so that a caption's adjectives and its
noun are learned apart; the classes of the test split never occur in training.
"""

from jaxt2i.data.drawn.blooms_art import BIRDS, FACING, STEMMED
from jaxt2i.data.drawn.drawing import COLOURS, Chance
from jaxt2i.data.drawn.scenes import article, listed

TEST_CLASSES = ("cosmos", "starflower", "lotus", "jay")
CLASSES = (
    *(n for n in (*FACING, *STEMMED, *BIRDS) if n not in TEST_CLASSES),
    *TEST_CLASSES,
)
VARIANTS = 8
PATTERNS = ("tipped", "spotted")
PETALS = ("red", "orange", "yellow", "blue", "purple", "pink", "white")
CENTERS = ("yellow", "orange", "brown", "white", "black", "green")
GARDENS = ("green", "teal", "blue", "purple", "pink", "yellow", "gray", "black", "white", "brown")
# Flowers whose centre cannot be seen.
CLOSED = frozenset(("rose", "tulip", "thistle", "lotus", "lavender"))


def kind(name: str) -> str:
    """What a class is called in a sentence: bird or flower."""
    return "bird" if name in BIRDS else "flower"


def has_leaves(name: str, variant: int) -> bool:
    """Whether a variant is drawn with leaves; flowers on a stem always are."""
    return name in STEMMED or (name in FACING and variant % 2 == 1)


def _other(chance: Chance, colours, *taken: str) -> str:
    return chance.pick([c for c in colours if c not in taken])


def _dress(chance: Chance, name: str) -> dict:
    """Draws the colours of one flower or bird."""
    if name in BIRDS:
        colour = chance.pick(tuple(COLOURS))
        wing = _other(chance, tuple(COLOURS), colour)
        belly = _other(chance, ("white", "yellow", "orange", "pink", "gray"), colour, wing)
        return {"colour": colour, "wing": wing, "belly": belly, "accent": belly, "texture": "plain"}
    colour = chance.pick(PETALS)
    out = {"colour": colour, "accent": _other(chance, ("white", "yellow", "pink", "purple", "red"),
                                              colour), "texture": "plain"}  # fmt: skip
    if name not in CLOSED:
        out["center"] = _other(chance, CENTERS, colour, out["accent"])
    if name in FACING and chance.yes(0.4):
        out["texture"] = chance.pick(PATTERNS)
    return out


def layout(chance: Chance, extents, classes: tuple[str, ...]) -> dict:
    """Draws what a picture holds, resolution-free.

    Args:
      chance: the example's own stream.
      extents: (class, variant) -> x0, y0, x1, y1 of its drawing, in its own units.
      classes: those of the split.

    Returns:
      As `scenes.layout`, with one object that adds "kind" and "leaves", and "center" (flowers that
      show one) or "wing" and "belly" (birds); "colour" is that of the petals or the body.
    """
    name, variant = chance.pick(classes), chance.below(VARIANTS)
    dress = _dress(chance, name)
    x0, y0, x1, y1 = extents(name, variant)
    longest = chance.between(0.5, 0.92)
    unit_x = unit_y = longest / max(x1 - x0, y1 - y0)
    unit_x *= chance.between(0.93, 1.0)
    unit_y *= chance.between(0.93, 1.0)
    w, h = (x1 - x0) * unit_x, (y1 - y0) * unit_y
    x = (1 - w) * (0.5 + chance.between(-0.4, 0.4))
    y = (1 - h) * (0.5 + chance.between(-0.4, 0.4))
    thing = {
        "class": name, "label": CLASSES.index(name), "kind": kind(name), **dress,
        "leaves": has_leaves(name, variant), "box": (x, y, w, h), "order": 0,
        "size": "small" if longest < 0.62 else "large" if longest > 0.8 else "medium",
        "flip": chance.yes(), "variant": variant, "unit": (unit_x, unit_y),
        "shift": [chance.between(-10, 10) for _ in range(3)],
    }  # fmt: skip
    return {
        "corpus": "blooms", "background": "garden", "ground": chance.below(VARIANTS),
        "background_colour": _other(chance, GARDENS, thing["colour"]), "flip": chance.yes(),
        "shade": [chance.between(-1, 1) for _ in range(3)], "objects": [thing], "relations": [],
    }  # fmt: skip


# --- Sentences ---


def _marks(thing: dict) -> list[str]:
    """Noun phrases for what else can be seen of the flower or bird."""
    if thing["kind"] == "bird":
        return [f"{thing['wing']} wings", f"{article(thing['belly'])} belly"]
    out = []
    if "center" in thing:
        out.append(f"{article(thing['center'])} center")
    if thing["texture"] != "plain":
        out.append(f"{thing['accent']} {'tips' if thing['texture'] == 'tipped' else 'spots'}")
    if thing["leaves"]:
        out.append("green leaves")
    return out


def _sized(chance: Chance, thing: dict, words: str, p: float = 0.4) -> str:
    show = thing["size"] != "medium" and chance.yes(p)
    return f"{thing['size']} {words}" if show else words


def _behind(chance: Chance, facts: dict) -> str:
    said = chance.pick(("on a {} background", "against a {} background", "in front of a {} blur"))
    return said.format(facts["background_colour"])


def captions(chance: Chance, facts: dict) -> list[str]:
    """Ten sentences, all true of the picture; eight name the class, two only describe.

    Args:
      chance: a stream of their own, so that wording never changes the picture.
      facts: from `layout`.
    """
    (thing,) = facts["objects"]
    name, colour = thing["class"], thing["colour"]
    coat = "feathers" if thing["kind"] == "bird" else "petals"
    marks = chance.order(_marks(thing))
    one = f" with {marks[0]}" if marks else ""
    some = f" with {listed(marks[:2])}" if marks else ""
    parts = listed([f"{colour} {coat}", *marks[:2]])
    start = chance.pick(("a picture of ", "a photo of ", "this is "))
    return [
        article(_sized(chance, thing, f"{colour} {name}")),
        article(f"{colour} {name}{some}"),
        start + article(_sized(chance, thing, f"{colour} {name}{one}")),
        f"{article(f'{colour} {name}')} {_behind(chance, facts)}",
        f"this {thing['kind']} has {parts}",
        f"{article(_sized(chance, thing, name, 1.0))} with {colour} {coat}",
        f"the {name} has {parts}",
        f"{article(_sized(chance, thing, name))}{some} {_behind(chance, facts)}",
        f"{article(_sized(chance, thing, thing['kind'], 1.0))} with {parts}",
        f"the {coat} of this {name} are {colour}",
    ]
