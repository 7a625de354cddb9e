"""The `scenes` corpus: what is in a picture, where, and five true sentences about it."""

from jaxt2i.data.drawn.drawing import COLOURS, Chance
from jaxt2i.data.drawn.scenes_art import GROUNDS, THINGS

CLASSES = tuple(THINGS)
# Those that config.data.scarce makes rare: ball, butterfly, cloud, house, mushroom, tree.
SCARCE = CLASSES[::3]
VARIANTS = 6
# A thing whose box has a longer side below or above is called small or large.
SMALL, LARGE = 0.24, 0.4
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
TEXTURES = ("striped", "dotted", "checked")
TEXTURED = (
    "ball", "balloon", "boat", "butterfly", "car", "cat", "fish", "house", "kite", "mushroom",
    "star", "umbrella",
)  # fmt: skip
# Things whose colours the world fixes; all others take any colour.
ONLY = {
    "cat": ("orange", "gray", "black", "white", "brown"),
    "cloud": ("white", "gray", "pink"),
    "moon": ("yellow", "white", "orange"),
    "sun": ("yellow", "orange", "red"),
    "tree": ("green", "orange", "red", "pink", "yellow"),
    "mushroom": ("red", "orange", "brown", "purple", "yellow", "blue"),
    "flower": ("red", "orange", "yellow", "blue", "purple", "pink", "white"),
}
# Relative size of each thing (the longer side of its box).
SCALE = {
    "ball": 0.68, "balloon": 1.0, "boat": 1.2, "butterfly": 0.75, "car": 1.2, "cat": 1.0,
    "cloud": 1.05, "fish": 0.85, "flower": 0.95, "house": 1.35, "kite": 1.0, "moon": 0.8,
    "mushroom": 0.8, "star": 0.7, "sun": 0.9, "tree": 1.35, "umbrella": 1.1,
}  # fmt: skip
# Per background: what stands on the ground, what hangs in the air.
PLACES = {
    "meadow": ("house tree car cat ball mushroom flower umbrella", "sun cloud kite balloon "
               "butterfly"),
    "beach": ("umbrella ball boat cat fish car house", "sun cloud kite balloon"),
    "night": ("house tree car cat mushroom flower boat", "moon star cloud balloon"),
    "snow": ("house tree car cat ball umbrella", "sun moon cloud kite balloon star"),
    "desert": ("house car cat ball tree umbrella", "sun moon star kite balloon butterfly"),
    "sea": ("boat fish ball", "sun moon cloud kite balloon star"),
    "room": ("cat ball flower umbrella car boat house mushroom", "balloon butterfly star kite"),
    "plain": (" ".join(CLASSES), " ".join(CLASSES)),
}  # fmt: skip
WHERE = {
    "meadow": ("on a meadow", "on the grass"),
    "beach": ("at the beach", "on the sand"),
    "night": ("at night", "under a night sky"),
    "snow": ("in the snow", "on a snowy day"),
    "desert": ("in the desert", "among the dunes"),
    "sea": ("at sea", "on the water"),
    "room": ("in a room", "inside a room"),
    "plain": ("on a {} background", "against a {} background"),
}
SAID = {
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "in front of": ("in front of",),
    "behind": ("behind",),
    "next to": ("next to", "beside"),
}


def plural(name: str) -> str:
    """More than one of a class."""
    return {"butterfly": "butterflies", "fish": "fish"}.get(name, f"{name}s")


def level(variant: int) -> float:
    """Where the ground begins in a background's variant, as a fraction of the height."""
    return 0.44 + 0.035 * variant


def _area(box) -> float:
    return box[2] * box[3]


def size_of(box) -> str:
    """What a thing in a box x, y, w, h is called."""
    longest = max(box[2:])
    return "small" if longest < SMALL else "large" if longest > LARGE else "medium"


def shared(a, b) -> float:
    """Area that two boxes x, y, w, h have in common."""
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(w, 0.0) * max(h, 0.0)


def relation(a: dict, b: dict) -> str | None:
    """How object a stands to object b; None where no word fits clearly.

    Boxes that cover a fifth of the smaller one or more are in front of or behind each other, by
    painter's order; otherwise the larger offset decides, if the boxes are (nearly) apart along it.
    """
    (ax, ay, aw, ah), (bx, by, bw, bh) = a["box"], b["box"]
    common = shared(a["box"], b["box"])
    if common >= 0.2 * min(_area(a["box"]), _area(b["box"])):
        return "in front of" if a["order"] > b["order"] else "behind"
    dx, dy = bx + bw / 2 - ax - aw / 2, by + bh / 2 - ay - ah / 2
    if abs(dx) > 1.2 * abs(dy):
        gap = max(bx - ax - aw, ax - bx - bw)
        if gap < -0.2 * min(aw, bw):
            return None
        if gap < 0.06 and abs(dy) < 0.3 * max(ah, bh):
            return "next to"
        return "left of" if dx > 0 else "right of"
    if abs(dy) > 1.2 * abs(dx) and max(by - ay - ah, ay - by - bh) >= -0.2 * min(ah, bh):
        return "above" if dy > 0 else "below"
    return None


def _cast(chance: Chance, place: str, n: int) -> list[tuple]:
    """Who is in the picture: (class, colour, texture, accent, in the air), n of them."""
    ground, air = (words.split() for words in PLACES[place])
    cast, used = [], set()
    while len(cast) < n:
        flies = chance.yes(0.4)
        name = chance.pick(air if flies else ground)
        colour = chance.pick(ONLY.get(name, tuple(COLOURS)))
        texture = chance.pick(TEXTURES) if name in TEXTURED and chance.yes(0.4) else "plain"
        accent = chance.pick([c for c in ("white", "yellow", "black", "pink", "teal")
                              if c != colour])  # fmt: skip
        copies = 1
        if name not in ("sun", "moon") and chance.yes(0.15):
            copies = min(2 + chance.below(2), n - len(cast))
        # A class comes twice only as copies, or rarely, so that "the cat" is seldom ambiguous.
        if name in used and (name in ("sun", "moon") or chance.yes(0.9)):
            continue
        used.add(name)
        cast += [(name, colour, texture, accent, flies)] * copies
    return cast


def _put(chance: Chance, item: tuple, place: str, horizon: float, crowd: float, extents) -> dict:
    """One try at placing an object: its box, and how near to the front it stands."""
    name, colour, texture, accent, flies = item
    variant = chance.below(VARIANTS)
    x0, y0, x1, y1 = extents(name, variant)
    depth = chance.unit()
    longest = SCALE[name] * (0.27 if flies else 0.22 + 0.2 * depth) * crowd
    longest = min(max(longest * chance.between(0.9, 1.15), 0.17), 0.8)
    unit = longest / max(x1 - x0, y1 - y0)
    unit_x, unit_y = unit * chance.between(0.94, 1.06), unit
    w, h = (x1 - x0) * unit_x, (y1 - y0) * unit_y
    x = chance.between(0.02, 0.98 - w)
    if place == "plain":
        y = chance.between(0.02, 0.98 - h)
    elif flies:
        y = chance.between(0.02, max(horizon + 0.08 - h, 0.04))
    else:
        # The lower the feet, the nearer; feet never above the horizon.
        feet = horizon + 0.07 + (0.9 - horizon) * (0.15 + 0.85 * depth)
        y = max(min(feet, 0.98) - h, 0.02)
    return {
        "class": name, "label": CLASSES.index(name), "colour": colour, "texture": texture,
        "accent": accent, "box": (x, y, w, h), "flip": chance.yes(), "variant": variant,
        "unit": (unit_x, unit_y), "front": depth + (0 if flies and place != "plain" else 1),
    }  # fmt: skip


def _fits(new: dict, old: list[dict]) -> bool:
    """True if both the newcomer and those already there stay mostly visible."""
    for other in old:
        common = shared(new["box"], other["box"])
        if common > 0.38 * min(_area(new["box"]), _area(other["box"])):
            return False
        # Near misses in depth would make "in front of" a matter of taste.
        if common > 0 and abs(new["front"] - other["front"]) < 0.04:
            return False
    return True


def layout(chance: Chance, extents) -> dict:
    """Draws what a picture holds, resolution-free.

    Args:
      chance: the example's own stream.
      extents: (class, variant) -> x0, y0, x1, y1 of its drawing, in its own units.

    Returns:
      {"corpus", "background", "background_colour" ("plain" only), "ground" (its variant), "flip",
      "objects": largest first, each with "class", "label", "colour", "size", "texture", "accent",
      "box" (x, y, w, h), "order" (painter's: higher is nearer) and how it is drawn,
      "relations": [(i, words, j)]}.
    """
    place = chance.pick(tuple(GROUNDS))
    ground = chance.below(VARIANTS)
    n = 1 + chance.pick((0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5))
    crowd = (1.75, 1.45, 1.2, 1.05, 0.95, 0.88)[n - 1]
    out = {"corpus": "scenes", "background": place, "ground": ground, "flip": chance.yes()}
    out["shade"] = [chance.between(-1, 1) for _ in range(4)]
    cast = _cast(chance, place, n)
    if place == "plain":
        taken = {item[1] for item in cast}
        out["background_colour"] = chance.pick([c for c in COLOURS if c not in taken])
    objects = []
    for item in cast:
        for _ in range(8):
            new = _put(chance, item, place, level(ground), crowd, extents)
            if _fits(new, objects):
                objects.append(new)
                break
    for order, thing in enumerate(sorted(objects, key=lambda o: o["front"])):
        thing["order"] = order
        thing["size"] = size_of(thing["box"])
        thing["shift"] = [chance.between(-9, 9) for _ in range(3)]
    objects.sort(key=lambda o: -_area(o["box"]))
    out["objects"] = objects
    out["relations"] = [
        (i, words, j)
        for i, a in enumerate(objects)
        for j, b in enumerate(objects)
        if i != j and (words := relation(a, b))
    ]
    return out


# --- Sentences ---


def article(words: str) -> str:
    """`words` with the article that fits."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def _noun(chance: Chance, thing: dict, rich: float) -> str:
    words = [thing["colour"]]
    if thing["size"] != "medium" and chance.yes(rich):
        words.insert(0, thing["size"])
    if thing["texture"] != "plain" and chance.yes(rich):
        words.append(thing["texture"])
    return " ".join([*words, thing["class"]])


def listed(parts: list[str]) -> str:
    """Parts joined by commas and a last "and"."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _where(chance: Chance, facts: dict) -> str:
    return chance.pick(WHERE[facts["background"]]).format(facts.get("background_colour", ""))


def _list(chance: Chance, facts: dict) -> str:
    things = chance.order(facts["objects"])[:3]
    start = chance.pick(("", "", "a picture of ", "there is ", "we see "))
    return start + listed([article(_noun(chance, t, 0.15)) for t in things])


def _scenery(chance: Chance, facts: dict) -> str:
    things = chance.order(facts["objects"])[: 1 + chance.below(2)]
    said = listed([article(_noun(chance, t, 0.4)) for t in things])
    where = _where(chance, facts)
    return chance.pick((f"{said} {where}", f"{where} there is {said}", f"{said}, {where}"))


def _count(chance: Chance, facts: dict) -> str:
    groups = {}
    for thing in facts["objects"]:
        groups.setdefault((thing["colour"], thing["class"]), []).append(thing)
    many = [(k, len(v)) for k, v in groups.items() if len(v) > 1]
    if many:
        (colour, name), n = chance.pick(many)
        said = f"{NUMBERS[n]} {colour} {plural(name)}"
        return chance.pick((f"{said} {_where(chance, facts)}", f"there are {said}", said))
    n = len(facts["objects"])
    noun = "object" if n == 1 else "objects"
    first = article(_noun(chance, chance.pick(facts["objects"]), 0.3))
    where = _where(chance, facts)
    if n == 1:
        return chance.pick((f"one object {where}, {first}", f"{first} alone {where}"))
    return chance.pick(
        (f"{NUMBERS[n]} {noun} {where}", f"{NUMBERS[n]} {noun}, one of them {first}")
    )


def _relation(chance: Chance, facts: dict, rich: float) -> str:
    if not facts["relations"]:
        return _scenery(chance, facts)
    i, words, j = chance.pick(facts["relations"])
    a, b = facts["objects"][i], facts["objects"][j]
    said = chance.pick(SAID[words])
    first, second = article(_noun(chance, a, rich)), article(_noun(chance, b, rich))
    return chance.pick((f"{first} {said} {second}", f"{first} is {said} {second}"))


def _detail(chance: Chance, facts: dict) -> str:
    names = [thing["class"] for thing in facts["objects"]]
    single = [thing for thing in facts["objects"] if names.count(thing["class"]) == 1]
    if not single:
        return _list(chance, facts)
    thing = chance.pick(single)
    words = [thing["colour"]]
    if thing["size"] != "medium":
        words.insert(0, thing["size"])
    if thing["texture"] != "plain":
        words.append(thing["texture"])
    return f"the {thing['class']} {_where(chance, facts)} is {listed(words)}"


def captions(chance: Chance, facts: dict) -> list[str]:
    """Five sentences, all true of the picture.

    Args:
      chance: a stream of their own, so that wording never changes the picture.
      facts: from `layout`.
    """
    return [
        _list(chance, facts),
        _scenery(chance, facts),
        _relation(chance, facts, 0.3),
        _count(chance, facts),
        _detail(chance, facts) if chance.yes() else _relation(chance, facts, 0.8),
    ]
