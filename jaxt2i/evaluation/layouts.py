"""`--metrics lqs,relations` of `python -m jaxt2i.evaluate`: layouts against those of the data.

A system that draws layouts is judged by what it draws; one that draws pictures, and a folder of
them, by the objects that a detector or a recogniser finds in its pictures. Beside every number
stand the most that can be hoped for, the layouts of the data themselves (found in the real pictures
where pictures are judged), and chance: the data's layouts with captions of others.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxt2i.data import schema, show
from jaxt2i.data.conditions import Row
from jaxt2i.data.drawn import arrangement
from jaxt2i.data.images import Unreadable
from jaxt2i.evaluation import objects, soa
from jaxt2i.evaluation.reading import share_of, together
from jaxt2i.metrics import confidence, layout_quality
from jaxt2i.metrics.layout_quality import Layout
from jaxt2i.metrics.score import MetricError, Score
from jaxt2i.run.open import LAYOUT

# What a system must draw to be judged as one of layouts.
DRAWN = ("boxes", "box_label")
# Layouts on the page, each with the data's own beside it.
SHOWN = 8
# Promises of captions that boxes can keep, by kind: names of scores.
KINDS = {
    "relation": "relations",
    "class": "layout_classes",
    "count": "layout_counts",
    "size": "layout_sizes",
}
# (name of the class, x, y, w, h in fractions) of each object of a picture.
Things = list[tuple[str, tuple[float, ...]]]


class Read(NamedTuple):
    """Layouts of pictures, by their number in the judged set.

    Attributes:
      judged: what was drawn, or found in what was drawn.
      true: those of the data.
      best: {number: what the best possible judged layout is}: those of the data, or what is found
        in the real pictures; empty where there are none.
      found_by: who found objects in pictures; "": they were drawn as layouts.
      unknown: objects of the data of a class that who found objects does not know.
    """

    judged: dict[int, Things]
    true: dict[int, Things]
    best: dict[int, Things]
    found_by: str
    unknown: int


def add_options(how: argparse._ArgumentGroup) -> None:
    """Options of the Layout Quality Score."""
    told = ", ".join(f"{name}={value:g}" for name, value in layout_quality.CONSTANTS.items())
    how.add_argument(
        "--lqs",
        action="extend",
        nargs="+",
        default=[],
        type=constant,
        metavar="CONSTANT=VALUE",
        help=f"constants of lqs; default {told}",
    )


def constant(text: str) -> tuple[str, float]:
    """One of --lqs.

    Raises:
      argparse.ArgumentTypeError: for what is none.
    """
    name, _, value = text.partition("=")
    if name not in layout_quality.CONSTANTS:
        known = ", ".join(layout_quality.CONSTANTS)
        raise argparse.ArgumentTypeError(f"{text!r}: expected CONSTANT=VALUE with one of {known}")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    share = name.startswith("gamma")
    if not (0 <= number <= 1 if share else 0 < number < math.inf):
        kind = "a share from 0 to 1" if share else "a number above 0"
        raise argparse.ArgumentTypeError(f"{text!r}: {name} is {kind}")
    return name, number


def draws_layouts(system: Any) -> bool:
    """Whether a system draws layouts alone."""
    return "image" not in system.gives and set(DRAWN) <= set(system.gives)


def named(arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> Things:
    """The objects of one layout; a class without a name is its number."""
    there = arrays.get("box_mask", np.ones(len(arrays["boxes"]), bool))
    out = []
    for i in np.flatnonzero(there).tolist():
        label = int(arrays["box_label"][i])
        name = names[label] if label < len(names) else str(label)
        out.append((name, tuple(map(float, arrays["boxes"][i]))))
    return out


def gathered(layouts: Iterable[tuple[int, Things]]) -> dict[int, Things]:
    """{number: layout} of all processes, from each one's own."""
    lines = b"".join(json.dumps(pair).encode() + b"\n" for pair in layouts)
    everything = together(np.frombuffer(lines, np.uint8)).tobytes()
    found = map(json.loads, everything.splitlines())
    return {n: [(name, tuple(box)) for name, box in things] for n, things in found}


# --- Where layouts come from -------------------------------------------------------------------


def read(case: Any) -> Read:
    """The layouts of a `Case`, read once for all its metrics.

    Raises:
      MetricError: where the data has no boxes, or nobody can find objects.
    """
    if "layouts" not in case.shared:
        case.shared["layouts"] = _drawn(case) if layouts_alone(case) else _found(case)
    return case.shared["layouts"]


def layouts_alone(case: Any) -> bool:
    """Whether what is judged draws layouts and no pictures."""
    return case.system is not None and draws_layouts(case.system)


def _drawn(case: Any) -> Read:
    names = case.system.run.facts.names.get("box_label", ())

    def drawn() -> Iterator[tuple[int, Things]]:
        rows = (case.fake.row(int(n)) for n in share_of(case.fake.count))
        for row, out in case.system.stream(rows):
            yield row["number"], named(out, names)

    true = _true(case)
    return Read(gathered(drawn()), true, true, "", 0)


def _found(case: Any) -> Read:
    detector = soa.detector_of(case.args, case.data, case.reader)

    def seen(pictures: Iterable[tuple[int, np.ndarray]]) -> dict[int, Things]:
        found = objects.look(((n, pixels, None) for n, pixels in pictures), detector)
        return {n: [(detector.classes[d.label], d.box) for d in x.seen] for n, x in found.items()}

    def judged() -> Iterator[tuple[int, np.ndarray]]:
        for numbers, pixels in case.fake.batches(detector.batch, share_of(case.fake.count)):
            rounded = objects.rounded(pixels)
            yield from zip(numbers.tolist(), rounded, strict=True)

    drawn, unknown, true = seen(judged()), 0, {}
    for number, things in _true(case).items():
        known = [(detector.number(name), box) for name, box in things]
        unknown += sum(label is None for label, _ in known)
        true[number] = [(detector.classes[n], box) for n, box in known if n is not None]
    # What is drawn from other layouts stands beside a score whose ceiling is known.
    best = seen(_real(case)) if case.chosen is not None and not case.layouts else {}
    return Read(drawn, true, best, detector.name, unknown)


def _true(case: Any) -> dict[int, Things]:
    """The layouts of the data, or for a folder those in its metadata.jsonl.

    Raises:
      MetricError: where there are none.
    """
    if case.chosen is None:
        rows = objects.rows_beside(Path(case.fake.name))
        known = {n: rows[name] for n, name in enumerate(case.fake.names) if name in rows}
        found = {n: _of_row(row) for n, row in known.items() if "objects" in row}
        if not found:
            raise MetricError(
                f"{case.fake.name}: no metadata.jsonl says which objects its pictures were drawn "
                "with; lqs compares with them"
            )
        return found
    source = case.data.source
    if "boxes" not in source.gives:
        raise MetricError(
            f"{case.data.name} has no boxes, with which lqs compares; choose --data with objects, "
            "such as scenes or COCO's records"
        )
    if not case.chosen.pairs:
        raise MetricError(
            "lqs compares with the layouts of the captions' own pictures: leave "
            f"--captions {case.args.captions} out"
        )
    names = schema.names_of(source)["box_label"]
    return {
        n: named(source.example(image, LAYOUT), names)
        for n, (image, _) in enumerate(case.chosen.pairs)
    }


def _of_row(row: Row) -> Things:
    width, height = row["size"] if row.get("units") == "pixels" else (1, 1)
    size = np.array([width, height, width, height])
    return [
        (str(x.get("label", "")), tuple((np.array(x["box"]) / size).tolist()))
        for x in row["objects"]
        if "box" in x
    ]


def _real(case: Any) -> Iterator[tuple[int, np.ndarray]]:
    """(number of a judged picture, the real one of its caption) of this process's share."""
    for n in share_of(len(case.chosen.pairs)).tolist():
        try:
            yield n, case.data.source.example(case.chosen.pairs[n][0], ("image",))["image"]
        except Unreadable:
            continue


# --- The Layout Quality Score ------------------------------------------------------------------


def arrays(layouts: Sequence[Things], names: Sequence[str], size: int) -> Layout:
    """Layouts as padded arrays [B, size, ...]."""
    boxes = np.zeros((len(layouts), size, 4), np.float32)
    label = np.zeros((len(layouts), size), np.int32)
    there = np.zeros((len(layouts), size), bool)
    for n, things in enumerate(layouts):
        for i, (name, box) in enumerate(things):
            boxes[n, i], label[n, i], there[n, i] = box, names.index(name), True
    return Layout(boxes, label, there)


def by_quality(case: Any) -> list[Score]:
    """LQS in both readings, the best and chance beside."""
    layouts = read(case)
    numbers = sorted(set(layouts.judged) & set(layouts.true))
    real = [n for n in numbers if n in layouts.best]
    sides = (layouts.judged, layouts.true, layouts.best)
    everything = [things for side in sides for things in side.values()]
    names = sorted({name for things in everything for name, _ in things})
    size = max([1, *map(len, everything)])
    put = lambda side, which: arrays([side[n] for n in which], names, size)  # noqa: E731
    true, judged, seed = put(layouts.true, numbers), put(layouts.judged, numbers), case.args.seed
    # Each caption with the layout of the next one that has any.
    shown = [n for n in numbers if layouts.true[n]]
    other = put(layouts.true, shown[1:] + shown[:1])
    out = []
    for reading in layout_quality.READINGS:
        how = {"reading": reading, **layout_quality.CONSTANTS, **dict(case.args.lqs)}
        score, each = layout_quality.dataset(
            true, judged, intervals=case.args.intervals, seed=seed, **how
        )
        facts = {}
        if len(shown) > 1:
            chance, _ = layout_quality.dataset(
                put(layouts.true, shown), other, intervals=False, **how
            )
            facts["shuffled_captions"] = chance.value
        if any(layouts.true[n] for n in real):
            best = put(layouts.true, real), put(layouts.best, real)
            facts["real_layouts"] = layout_quality.dataset(*best, intervals=False, **how)[0].value
        name = "lqs" if reading == layout_quality.READINGS[0] else f"lqs_{reading}"
        score = Score(name, score.value, interval=score.interval, facts=score.facts | facts)
        out.append(score.with_facts(generated=len(numbers), **_about(layouts)))
        parts = {k: float(np.mean(v)) for k, v in each._asdict().items()}
        table = case.result.breakdowns.setdefault("Layout quality and its parts", {})
        table[reading] = parts
    if layouts.unknown:
        case.result.notes.append(
            f"lqs: {layouts.unknown:,} objects of the data have a class that the "
            f"{layouts.found_by} does not know, and do not count"
        )
    picture(case, layouts)
    return out


def _about(layouts: Read) -> dict[str, Any]:
    return {"network": layouts.found_by} if layouts.found_by else {}


# --- Promises of captions ----------------------------------------------------------------------


def by_relations(case: Any) -> list[Score]:
    """How many relations, classes, counts and sizes that captions promise layouts keep.

    Raises:
      MetricError: for captions of other data than the procedural scenes.
    """
    config = getattr(case.data, "config", None)
    if config is None or config.source != "synthetic" or config.corpus != "scenes":
        raise MetricError(
            "relations reads captions of the procedural scenes, where the truth is known; choose "
            "other --metrics, or --data scenes"
        )
    layouts = read(case)
    numbers = sorted(set(layouts.judged) & set(layouts.true))
    said = case.fake.captions
    following = dict(zip(numbers, numbers[1:] + numbers[:1], strict=True))
    sides: dict[str, Callable[[int], Things]] = {
        "right": lambda n: layouts.judged[n],
        "real layouts": lambda n: layouts.best.get(n, []),
        "shuffled captions": lambda n: layouts.true[following[n]],
    }
    told = {
        side: [arrangement.verdicts(said[n], of(n)) for n in numbers] for side, of in sides.items()
    }
    relations: dict[str, dict[str, Any]] = {}
    for side, verdicts in told.items():
        for v in (v for those in verdicts for v in those if v.kind == "relation"):
            row = relations.setdefault(v.of, {"said": 0, **dict.fromkeys(sides, 0.0)})
            row["said"] += side == "right"
            row[side] += v.right
    for row in relations.values():
        row |= {side: row[side] / row["said"] for side in sides}
    case.result.breakdowns["Relations between boxes that captions promise"] = relations
    kinds = {**{k: (k,) for k in KINDS}, "all": ("relation", "class", "count", "total", "size")}
    names = {**KINDS, "all": "layout_promises"}
    kinds["count"] = ("count", "total")
    out = [_share(case, names[kind], of, told) for kind, of in kinds.items()]
    return [score.with_facts(**_about(layouts)) for score in out if score is not None]


def _share(case: Any, name: str, kinds: Sequence[str], told: Mapping[str, list]) -> Score | None:
    """The share of promises of some kinds that are kept; None: there is none."""

    def counted(verdicts: list) -> np.ndarray:
        own = [[v.right for v in those if v.kind in kinds] for those in verdicts]
        return np.array([(sum(right), len(right)) for right in own])

    tables = {side: counted(verdicts) for side, verdicts in told.items()}
    right, said = tables["right"].T
    if not said.sum():
        return None
    share = {side: float(table[:, 0].sum() / said.sum()) for side, table in tables.items()}
    facts = {"generated": len(said), "promises": int(said.sum())}
    facts |= {key.replace(" ", "_"): share[key] for key in ("real layouts", "shuffled captions")}
    score = Score(name, share["right"], facts=facts)
    return score.with_interval(confidence.of_share(right, said)) if case.args.intervals else score


# --- For a person ------------------------------------------------------------------------------


def picture(case: Any, layouts: Read) -> None:
    """Puts judged layouts, each with the data's own beside it, and their rows into the result."""
    result, said = case.result, case.fake.captions or ()
    for n in sorted(set(layouts.judged) & set(layouts.true))[:SHOWN]:
        caption = said[n] if said else ""
        title = "found in the picture" if layouts.found_by else "drawn"
        result.layouts.append(tile(layouts.judged[n], caption, title))
        result.layouts.append(tile(layouts.true[n], caption, "the data's own"))
        things = [{"label": name, "box": list(box)} for name, box in layouts.judged[n]]
        row = case.fake.rows([n])[0]
        kept = {k: row[k] for k in ("prompt", "seed") if k in row}
        result.layout_rows.append(kept | {"objects": things})


def tile(things: Things, caption: str, title: str) -> show.Tile:
    """One layout on a blank canvas."""
    names = list(dict.fromkeys(name for name, _ in things))
    layout = arrays([things], names, max(len(things), 1))
    example = dict(zip(LAYOUT, (x[0] for x in layout), strict=True))
    return show.Tile(example, caption, title, names=tuple(names))
