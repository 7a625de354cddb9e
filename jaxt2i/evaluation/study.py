"""A blind study of pairs: one page that needs no server, and the key that tells who is who.

`study.html` shows two pictures of one caption at a time and asks which is preferred. It holds the
pictures, under numbers that say nothing, and no names; which system made which picture stands in
`key.json` alone. Raters send the file of answers that the page saves; `ratings` reads them.

Every rater sees all pairs, in one of `FORMS` forms: each order of the pairs also runs backwards,
each pair also stands with its sides exchanged, and within a form every system stands on the left as
often as on the right. Among the pairs are checks with one right answer.
"""

import base64
import dataclasses
import io
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxt2i.evaluation.sides import Sides
from jaxt2i.metrics.score import MetricError
from jaxt2i.metrics.statistics import fingerprint

PAGE, KEY = "study.html", "key.json"
TEMPLATE = Path(__file__).with_name("study.html")
QUESTION = "Which picture fits the text better?"
CONSENT = (
    "I take part of my own free will and may stop at any time. My choices, how long they took and "
    "the name I give are saved in a file on this computer, which I send myself; this page sends "
    "nothing."
)
# Orders of the pairs; each also backwards and with its sides exchanged.
ORDERS = 4
FORMS = 4 * ORDERS
TOLD = "This is a check. Please choose the picture on the {side}."
# Pairs that a rater answers before the first check.
BEFORE = 2


@dataclasses.dataclass(frozen=True)
class Trial:
    """Two pictures of one caption.

    Attributes:
      text: what the page shows above them.
      pictures: two numbers of pictures.
      right: the picture that a check asks for; None where there is no right answer.
      stays: the first picture always stands on the left, as the text says so.
    """

    text: str
    pictures: tuple[int, int]
    right: int | None = None
    stays: bool = False


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is shown to whom.

    Attributes:
      shown: (system, caption) of every picture; system -1 is a picture made unrecognisable.
      trials: the pairs, then the checks.
      forms: [[(trial, picture on the left, on the right), ...], ...].
    """

    shown: tuple[tuple[int, int], ...]
    trials: tuple[Trial, ...]
    forms: tuple[tuple[tuple[int, int, int], ...], ...]


def plan(captions: Sequence[str], systems: int, checks: int, seed: int) -> Plan:
    """What is shown to whom.

    Each caption is shown once, with two of the systems; all pairs of systems get the same number of
    captions, but for one.

    Args:
      captions: of the pictures.
      systems: how many.
      checks: pairs with a right answer: every second one says which side to choose, the others
        show a picture beside its own pixels in disorder.
      seed: of all choices.

    Raises:
      MetricError: for too few captions.
    """
    rng = np.random.default_rng(seed)
    pairs = list(itertools.combinations(range(systems), 2))
    if len(captions) < 2 * len(pairs):
        raise MetricError(
            f"{len(captions)} captions are too few for a study of {systems} systems, which make "
            f"{len(pairs)} pairs; give {2 * len(pairs)} or more"
        )
    dealt = rng.permutation(np.arange(len(captions)) % len(pairs)).tolist()
    wanted = [(s, c) for c, pair in enumerate(dealt) for s in pairs[pair]]
    wanted += [(-1, int(c)) for c in rng.choice(len(captions), checks // 2, checks > len(captions))]
    # Numbers of pictures say nothing about who made them.
    number = rng.permutation(len(wanted)).tolist()
    shown = [wanted[i] for i in np.argsort(number)]
    trials = [Trial(captions[c], (number[2 * c], number[2 * c + 1])) for c in range(len(captions))]
    for k in range(checks):
        if k % 2:
            broken = number[2 * len(captions) + k // 2]
            caption = shown[broken][1]
            whole = number[2 * caption + int(rng.integers(2))]
            trials.append(Trial(captions[caption], (whole, broken), right=whole))
        else:
            a, b = trials[int(rng.integers(len(captions)))].pictures
            side = int(rng.integers(2))
            text = TOLD.format(side=("left", "right")[side])
            trials.append(Trial(text, (a, b), right=(a, b)[side], stays=True))
    forms = [
        form
        for _ in range(ORDERS)
        for form in four_forms(trials, len(captions), np.array(dealt), rng)
    ]
    return Plan(tuple(shown), tuple(trials), tuple(forms))


def four_forms(trials: Sequence[Trial], pairs: int, dealt: np.ndarray, rng) -> list[tuple]:
    """One order and its reverse, each with both arrangements of the sides."""
    order = with_checks(rng.permutation(pairs).tolist(), range(pairs, len(trials)), rng)
    exchanged = rng.integers(2, size=len(trials))
    for pair in np.unique(dealt):  # half of each pair of systems
        mine = np.flatnonzero(dealt == pair)
        exchanged[mine] = rng.permutation(np.arange(len(mine)) % 2)
    forms = []
    for way, flip in itertools.product((order, order[::-1]), (0, 1)):
        form = []
        for t in way:
            a, b = trials[t].pictures
            turned = (exchanged[t] + flip) % 2 and not trials[t].stays
            form.append((t, b, a) if turned else (t, a, b))
        forms.append(tuple(form))
    return forms


def with_checks(order: list[int], checks: Sequence[int], rng) -> list[int]:
    """The order with checks spread over it, none at its very ends."""
    checks = rng.permutation(list(checks)).tolist()
    room = len(order) - 2 * min(BEFORE, len(order) // 2)
    edges = np.linspace(0, room, len(checks) + 1) + (len(order) - room) / 2
    places = [int(rng.uniform(*edges[i : i + 2])) for i in range(len(checks))]
    out = list(order)
    for place, check in sorted(zip(places, checks, strict=True), reverse=True):
        out.insert(place, check)
    return out


def in_disorder(picture: np.ndarray, seed: int) -> np.ndarray:
    """The same pixels, each somewhere else: uint8 [H, W, 3]."""
    flat = picture.reshape(-1, 3)
    return np.random.default_rng(seed).permutation(flat).reshape(picture.shape)


def png(picture: np.ndarray) -> str:
    """A picture as a data URI, without any words about it."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def pictures_of(sides: Sides, of: Plan) -> list[np.ndarray]:
    """The pictures of a plan, in the order of their numbers.

    Raises:
      MetricError: where one cannot be read, or sizes tell systems apart.
    """
    needed: list[set[int]] = [set() for _ in sides.sets]
    for system, caption in of.shown:
        if system >= 0:
            needed[system].add(caption)
    found = [s.pictures(sorted(rows)) for s, rows in zip(sides.sets, needed, strict=True)]
    for name, rows, have in zip(sides.names, needed, found, strict=True):
        if lost := sorted(rows - have.keys()):
            raise MetricError(
                f"{name}: {len(lost)} of its {len(rows)} pictures cannot be read, such as that of "
                f"{sides.captions[lost[0]]!r}; mend or remove them, and their captions"
            )
    sizes = {
        name: {x.shape[:2] for x in have.values()}
        for name, have in zip(sides.names, found, strict=True)
    }
    if len(set(map(frozenset, sizes.values()))) > 1:
        said = ", ".join(
            f"{name}: {' and '.join(f'{w} x {h}' for h, w in sorted(x)[:3])}"
            for name, x in sizes.items()
        )
        raise MetricError(
            f"the sizes of pictures tell the systems apart ({said}), so the study would not be "
            "blind: give --resolution 256, which cuts and resizes folders' pictures, or draw alike"
        )
    # A picture in disorder is of a system that its caption was shown with.
    made = {caption: system for system, caption in of.shown if system >= 0}
    return [found[s][c] if s >= 0 else in_disorder(found[made[c]][c], c) for s, c in of.shown]


@dataclasses.dataclass(frozen=True)
class Asked:
    """What raters are told.

    Attributes:
      question: above every pair.
      consent: what they agree to before.
      ties: they may also say that neither is better.
    """

    question: str = QUESTION
    consent: str = CONSENT
    ties: bool = False


def write(out: Path, sides: Sides, of: Plan, asked: Asked, seed: int) -> tuple[Path, Path]:
    """Writes the page and its key, and returns where.

    Raises:
      MetricError: where the folder holds another study, whose answers would have no key any more.
    """
    encoded = [png(x) for x in pictures_of(sides, of)]
    shown: dict[str, Any] = {
        **dataclasses.asdict(asked),
        "trials": [{"text": t.text} for t in of.trials],
        "forms": of.forms,
        "pictures": encoded,
    }
    name = fingerprint([json.dumps(shown)])[:12]
    page, key = out / PAGE, out / KEY
    if key.is_file() and json.loads(key.read_text()).get("study") != name:
        raise MetricError(
            f"{out} holds another study, whose answers would have no key any more; give another "
            "--out, or move it away"
        )
    out.mkdir(parents=True, exist_ok=True)
    told = {
        "study": name,
        "systems": sides.names,
        "seed": seed,
        **dataclasses.asdict(asked),
        "captions": sides.captions,
        "pictures": [{"system": s, "caption": c} for s, c in of.shown],
        "trials": [dataclasses.asdict(t) for t in of.trials],
        "forms": of.forms,
        "notes": sides.notes,
    }
    key.write_text(json.dumps(told, indent=1) + "\n")
    # "<" could end the script that holds it.
    inside = json.dumps({"study": name, **shown}).replace("<", "\\u003c")
    page.write_text(TEMPLATE.read_text().replace("/*STUDY*/ null", inside))
    return page, key
