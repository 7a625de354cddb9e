"""Semantic Object Accuracy of a run, a folder, or the files of somebody else's detections.

A detector looks at every picture whose caption names a class. How real pictures with the same
captions fare stands beside: the most that can be hoped for. Scores are in percent.
"""

import collections
import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxt2i import api
from jaxt2i.data import object_captions
from jaxt2i.data.conditions import Row
from jaxt2i.data.images import Unreadable
from jaxt2i.evaluation import beside, object_files, object_plan, report, sets
from jaxt2i.evaluation.detection import Detection, Detector, of_coco
from jaxt2i.evaluation.reading import share_of, together
from jaxt2i.metrics import confidence, object_accuracy
from jaxt2i.metrics.object_accuracy import Overall
from jaxt2i.metrics.score import Interval, MetricError, Score
from jaxt2i.run.folder import METADATA
from jaxt2i.run.open import LAYOUT

REPEATS = 200
Given = list[tuple[int, tuple[float, ...]]]
# The fields of `Overall`, the names of scores.
NAMES = {"classes": "soa_c", "images": "soa_i", "top": "soa_c_top{}", "bottom": "soa_c_bot{}"}
RARER, COMMONER = (
    f"Objects that captions name, found in % (SOA): the {half} half of the classes"
    for half in ("rarer", "commoner")
)


class Picture(NamedTuple):
    """One picture that was looked at.

    Attributes:
      seen: what the detector saw, [label, box, score] each.
      given: what it was drawn from, (label, box) each; None: no layout.
    """

    seen: list[Detection]
    given: Given | None


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found of a class in its pictures.

    Attributes:
      captions: [N], a number of each picture's caption; pictures of one go together.
      hits: bool [N].
      overlaps: [N], of the best box with a given one; None where one is lacking.
    """

    captions: np.ndarray
    hits: np.ndarray
    overlaps: tuple[float | None, ...]

    @property
    def accuracy(self) -> float:
        """Share of the pictures."""
        return float(self.hits.mean()) if len(self.hits) else 0.0

    @property
    def overlap(self) -> float:
        """Mean over the pictures that have one."""
        return object_accuracy.mean_overlap(self.overlaps)


@dataclasses.dataclass
class Judged:
    """The counts of all classes.

    Attributes:
      detector: who looked.
      found: {class: what was found}.
      real: the same in real pictures; None where there are none.
      layouts: whether pictures were drawn from layouts.
      pictures: how many were looked at.
      notes: what else to know.
    """

    detector: Detector
    found: dict[int, Found]
    real: dict[int, Found] | None
    layouts: bool
    pictures: int
    notes: list[str] = dataclasses.field(default_factory=list)

    @functools.cached_property
    def order(self) -> list[int]:
        """The classes, rarest first."""
        known = self.detector.rarest or sorted(self.found, key=lambda n: len(self.found[n].hits))
        return [label for label in known if label in self.found]


# --- Looking -----------------------------------------------------------------------------------


def look(
    pictures: Iterable[tuple[int, np.ndarray, Given | None]], detector: Detector
) -> dict[int, Picture]:
    """{number: what was seen} of pictures of any size, of all processes together.

    Args:
      pictures: (number, uint8 [H, W, 3], layout) of this process's share.
      detector: who looks.
    """
    given: dict[int, Given | None] = {}

    def noted() -> Iterator[tuple[int, np.ndarray]]:
        for number, pixels, layout in pictures:
            given[number] = layout
            yield number, pixels

    lines = []
    for numbers, pixels in sets.by_size(noted(), detector.batch):
        for number, seen in zip(numbers.tolist(), detector.detect(pixels), strict=True):
            lines.append(json.dumps([number, seen, given.pop(number)]).encode() + b"\n")
    everything = together(np.frombuffer(b"".join(lines), np.uint8)).tobytes()
    out = {}
    for number, seen, layout in map(json.loads, everything.splitlines()):
        known = None if layout is None else [(label, tuple(box)) for label, box in layout]
        out[number] = Picture([Detection(n, tuple(box), s) for n, box, s in seen], known)
    return out


def rounded(pixels: np.ndarray) -> np.ndarray:
    """Levels as a file would hold them."""
    return np.asarray(np.clip(np.round(pixels), 0, 255), np.uint8)


def layout_of(row: Row, detector: Detector) -> Given | None:
    """The objects of a row that the detector knows, boxes in fractions; None: it has no layout."""
    if "objects" not in row:
        return None
    width, height = row["size"] if row.get("units") == "pixels" else (1, 1)
    out = []
    for thing in row["objects"]:
        label = detector.number(thing.get("label", ""))
        if label is not None and "box" in thing:
            x, y, w, h = thing["box"]
            box = x / width, y / height, w / width, h / height
            out.append((label, tuple(min(max(float(v), 0.0), 1.0) for v in box)))
    return out


def count(
    counted: Mapping[int, np.ndarray], caption: np.ndarray, pictures: Mapping[int, Picture]
) -> dict[int, Found]:
    """{class: what was found in its pictures} of those that could be looked at.

    Args:
      counted: of `Plan`.
      caption: of `Plan`.
      pictures: of `look`.
    """
    out = {}
    for label, numbers in counted.items():
        kept = [n for n in numbers.tolist() if n in pictures]
        seen = [[d.box for d in pictures[n].seen if d.label == label] for n in kept]
        given = [[box for k, box in pictures[n].given or () if k == label] for n in kept]
        overlaps = map(object_accuracy.best_overlap, seen, given)
        if kept:
            out[label] = Found(caption[kept], np.array(list(map(bool, seen))), tuple(overlaps))
    if not out:
        raise MetricError("no picture whose caption names an object could be read")
    return out


# --- What is judged ----------------------------------------------------------------------------


def of_run(
    system: api.System,
    source: Any,
    plan: object_plan.Plan,
    detector: Detector,
    *,
    name: str,
    seed: int,
    rule: str,
    controls: Mapping[str, Any],
    layouts: str = "",
) -> tuple[Judged, dict[int, Picture]]:
    """Draws what a plan asks for and counts it; real pictures beside.

    Args:
      system: the run, or a chain of them.
      source: whose captions these are.
      plan: what to draw.
      detector: who looks.
      name: for reports.
      seed: of all pictures.
      rule: of `nn.pixels`.
      controls: of the system.
      layouts: that pictures are drawn from, see `beside.rows`; where they are not the system's own,
        real pictures are not looked at again.

    Returns:
      The counts, and what was seen in each drawn picture.
    """
    run, images = system.run, [plan.captions[c].image for c in plan.caption]
    fake = sets.of_system(
        system,
        [plan.captions[c].text for c in plan.caption],
        name=name,
        seed=seed,
        rule=rule,
        conditions=beside.rows(system, source, images, layouts),
        controls=controls,
    )

    def drawn() -> Iterator[tuple[int, np.ndarray, Given | None]]:
        rows = (fake.row(int(n)) for n in share_of(fake.count))
        # Earlier systems of a chain fill rows: the layout is what the last one was given.
        for row, out in system.stream(rows, rule=rule):
            yield row["number"], rounded(out["image"]), layout_of(row, detector)

    pictures = look(drawn(), detector)
    drawn_from = any(x.given is not None for x in pictures.values())
    real = {} if layouts else real_pictures(run, source, images, detector, drawn_from)
    judged = Judged(
        detector=detector,
        found=count(plan.counted, plan.caption, pictures),
        real=count(plan.counted, plan.caption, real) if real else None,
        layouts=drawn_from,
        pictures=len(pictures),
        notes=[plan.note] if plan.note else [],
    )
    return judged, pictures


def real_pictures(
    run: Any,
    source: Any,
    images: Sequence[int | None],
    detector: Detector,
    layouts: bool,
) -> dict[int, Picture]:
    """{number of a drawn picture: what was seen in the real one of the same caption}."""
    wanted = sorted({image for image in images if image is not None})
    if not wanted:
        return {}

    def shown() -> Iterator[tuple[int, np.ndarray, Given | None]]:
        for place in share_of(len(wanted)).tolist():
            image = wanted[place]
            try:
                pixels = source.example(image, ("image",))["image"]
            except Unreadable:
                continue
            row = next(run.rows_of(source, [image], LAYOUT)) if layouts else {}
            yield image, np.asarray(pixels), layout_of(row, detector)

    seen = look(shown(), detector)
    return {number: seen[image] for number, image in enumerate(images) if image in seen}


@dataclasses.dataclass
class Asked:
    """What the pictures of a folder should show.

    Attributes:
      labels: of every picture, the classes that it counts for.
      layouts: {name of a picture: what it was drawn from}; none where that is not known.
      notes: what else to know.
    """

    labels: list[tuple[int, ...]]
    layouts: dict[str, Given]
    notes: list[str] = dataclasses.field(default_factory=list)


def asked_of(fake: sets.Set, detector: Detector) -> Asked:
    """What the pictures of a folder should show: by the names of folders, else by captions.

    Raises:
      MetricError: where there are neither such folders nor captions.
    """
    root = Path(fake.name)
    places = [name.rpartition("/")[0] for name in fake.names]
    classes = {place: object_captions.number_of(place) for place in places}
    own = range(len(detector.classes))
    classes = {place: label if label in own else None for place, label in classes.items()}
    present = {label for label in classes.values() if label is not None}
    if present:
        layouts: dict[str, Given] = {}
        for place in sorted(classes):
            if file := next(iter(sorted((root / place).glob("*.pkl"))), None):
                given, own = object_files.read(file), [x for x in fake.names if inside(x, place)]
                if lost := [x for x in own if x.rpartition("/")[2] not in given]:
                    raise MetricError(f"{file}: no layout of {lost[0].rpartition('/')[2]!r}")
                layouts |= {name: given[name.rpartition("/")[2]] for name in own}
        labels = [() if classes[x] is None else (classes[x],) for x in places]
        some = f"there are pictures of {len(present)} of {len(detector.classes)} classes"
        few = len(present) < len(detector.classes)
        notes = [f"{some}: not to be compared with published scores"] if few else []
        return Asked(labels, layouts, notes)
    if fake.captions is None:
        raise MetricError(
            f"{fake.lacking or f'{fake.name} has no captions'}; soa counts what captions name: put "
            "a.txt beside each a.png, or the pictures of each class into a folder label_XX_NAME, "
            "XX its number in coco.names"
        )
    rows = rows_beside(root)
    known = {name: layout_of(rows[name], detector) for name in fake.names if name in rows}
    layouts = {name: given for name, given in known.items() if given is not None}
    return Asked([tuple(detector.named(text)) for text in fake.captions], layouts)


def inside(name: str, place: str) -> bool:
    """Whether a picture lies in a folder itself."""
    return name.rpartition("/")[0] == place


def rows_beside(root: Path) -> dict[str, Row]:
    """{picture: its row} of the metadata.jsonl that `sample` writes; none where there is none."""
    file = root / METADATA
    if not file.is_file():
        return {}
    rows = (json.loads(line) for line in file.read_text(encoding="utf-8-sig").splitlines() if line)
    return {row["file_name"]: row for row in rows if isinstance(row, dict) and "file_name" in row}


def of_folder(
    fake: sets.Set, detector: Detector
) -> tuple[Judged, dict[int, Picture], dict[int, np.ndarray]]:
    """Counts in pictures of a folder: of one folder a class, or with captions.

    Args:
      fake: the pictures. Below folders called label_XX_NAME they are of class XX, and a pickle
        there is their layout; elsewhere captions name the classes, and the objects of a
        metadata.jsonl are their layout.
      detector: who looks.

    Returns:
      The counts, what was seen in each picture, and {class: its pictures}.

    Raises:
      MetricError: where there is nothing to look for.
    """
    asked = asked_of(fake, detector)
    counted = object_plan.by_label(asked.labels)
    if not counted:
        raise MetricError(f"{fake.name}: no caption names a class that {detector.name} knows")
    wanted = np.unique(np.concatenate(list(counted.values())))

    def read() -> Iterator[tuple[int, np.ndarray, Given | None]]:
        mine = wanted[share_of(len(wanted))]
        for numbers, pixels in fake.batches(detector.batch, mine):
            for number, picture in zip(numbers.tolist(), pixels, strict=True):
                yield number, rounded(picture), asked.layouts.get(fake.names[number])

    pictures = look(read(), detector)
    # Pictures of one caption go together.
    caption = np.unique(fake.captions or fake.names, return_inverse=True)[1]
    judged = Judged(
        detector=detector,
        found=count(counted, caption, pictures),
        real=None,
        layouts=bool(asked.layouts),
        pictures=len(pictures),
        notes=asked.notes,
    )
    return judged, pictures, counted


def of_files(folder: Path) -> Judged:
    """Counts in published detections: detected_*.pkl, and ground_truth_*.pkl where there are some.

    Raises:
      MetricError: where there are none, for files of no class, and layouts that lack a picture.
    """
    found, layouts, total = {}, False, 0
    detector = of_coco("detections of others", lambda images: [])
    for file in sorted(folder.glob(f"{object_files.DETECTED}*.pkl")):
        stem = file.name.removeprefix(object_files.DETECTED)
        label = object_captions.number_of(stem)
        if label is None:
            raise MetricError(f"{file} names no class; expected detected_label_XX_NAME.pkl")
        seen, beside = object_files.read(file), folder / f"{object_files.GIVEN}{stem}"
        given = object_files.read(beside) if beside.is_file() else None
        layouts = layouts or given is not None
        pictures = {}
        for number, (name, objects) in enumerate(seen.items()):
            if given is not None and name not in given:
                raise MetricError(f"{beside}: no picture {name!r}, which {file.name} has")
            known = None if given is None else given[name]
            pictures[number] = Picture([Detection(n, box, 1.0) for n, box in objects], known)
        # A class without a picture counts as one of which nothing was found.
        found[label] = Found(np.zeros(0, int), np.zeros(0, bool), ())
        if pictures:
            numbers = np.arange(len(pictures))
            found |= count({label: numbers}, total + numbers, pictures)
        total += len(pictures)
    if not total:
        raise MetricError(
            f"{folder}: no {object_files.DETECTED}label_*.pkl there with a picture in it"
        )
    return Judged(detector, found, None, layouts, total)


# --- Telling -----------------------------------------------------------------------------------


def overalls(found: Mapping[int, Found], order: Sequence[int], kind: str) -> Overall:
    """The means of "accuracy" or "overlap", in percent."""
    values = {label: 100 * getattr(x, kind) for label, x in found.items()}
    images = {label: len(x.hits) for label, x in found.items()}
    return object_accuracy.overall(values, images, rarest=order)


def scores(judged: Judged, intervals: bool = True) -> list[Score]:
    """SOA-C, SOA-I and both halves, of layouts also how well boxes are met; percent."""
    facts = {
        "generated": judged.pictures,
        "network": judged.detector.name,
        "classes": len(judged.found),
        "counted": sum(len(x.hits) for x in judged.found.values()),
    }
    sizes = {"bottom": len(judged.order) // 2}
    sizes["top"] = len(judged.order) - sizes["bottom"]
    out = []
    for kind, ending in (("accuracy", ""), ("overlap", "_iou"))[: 2 if judged.layouts else 1]:
        values = overalls(judged.found, judged.order, kind)
        best = overalls(judged.real, judged.order, kind) if judged.real else None
        moved = resampled(judged, kind) if intervals else None
        for field, name in NAMES.items():
            value = getattr(values, field)
            if value is None:
                continue
            known = dict(facts)
            if best is not None and getattr(best, field) is not None:
                known["real_pictures"] = round(getattr(best, field), 2)
            score = Score(name.format(sizes.get(field)) + ending, value, facts=known)
            if moved:
                interval = interval_of(judged, field, kind, value, moved[field])
                score = score.with_interval(interval)
            out.append(score)
    return out


def interval_of(judged: Judged, field: str, kind: str, value: float, moved: np.ndarray) -> Interval:
    """The interval of one number: of resamples, or, where nothing or all is found, Wilson's.

    Args:
      judged: the counts.
      field: of `Overall`.
      kind: "accuracy" or "overlap".
      value: the number, percent.
      moved: its values where other captions had been drawn.
    """
    if kind == "accuracy" and value in (0, 100):
        cut = len(judged.order) // 2
        those = {"top": judged.order[cut:], "bottom": judged.order[:cut]}.get(field, judged.order)
        captions = np.unique(np.concatenate([judged.found[n].captions for n in those]))
        if len(captions):
            return confidence.of_share(np.full(len(captions), value / 100), scale=100)
    how = f"{REPEATS} resamples of the captions, seed 0"
    found = confidence.around(value, moved, confidence.LEVEL, how, least=0)
    return found._replace(high=min(found.high, 100.0))


def resampled(judged: Judged, kind: str, seed: int = 0) -> dict[str, np.ndarray]:
    """{field of `Overall`: its values where other captions had been drawn [REPEATS]}."""
    labels = judged.order
    place = np.concatenate([np.full(len(judged.found[n].hits), i) for i, n in enumerate(labels)])
    caption = np.concatenate([judged.found[n].captions for n in labels])
    caption = np.unique(caption, return_inverse=True)[1]
    if kind == "accuracy":
        value = np.concatenate([judged.found[n].hits for n in labels]).astype(float)
    else:
        each = [x for n in labels for x in judged.found[n].overlaps]
        value = np.array([np.nan if x is None else x for x in each])
    known, total = ~np.isnan(value), caption.max() + 1
    rng, out = np.random.default_rng(seed), collections.defaultdict(list)
    for _ in range(REPEATS):
        weight = np.bincount(rng.integers(0, total, total), minlength=total)[caption]
        images = np.bincount(place, weight, len(labels))
        right = np.bincount(place[known], (weight * value)[known], len(labels))
        over = np.bincount(place[known], weight[known], len(labels))
        # A class of which no picture was drawn again is left out, one without any is not.
        there = {n: i for i, n in enumerate(labels) if images[i] or not len(judged.found[n].hits)}
        values = {n: 100 * right[i] / over[i] if over[i] else 0.0 for n, i in there.items()}
        found = object_accuracy.overall(
            values, {n: images[i] for n, i in there.items()}, rarest=labels
        )
        for field in NAMES:
            one = getattr(found, field)
            out[field].append(np.nan if one is None else one)
    return {field: np.array(x)[~np.isnan(x)] for field, x in out.items()}


def tables(judged: Judged) -> dict[str, dict[str, dict[str, Any]]]:
    """{title: {class: {column: value}}}: the rarer half of the classes, then the commoner one."""
    out: dict[str, dict] = {}
    for place, label in enumerate(judged.order):
        x = judged.found[label]
        row: dict[str, Any] = {"found": 100 * x.accuracy}
        if judged.real and label in judged.real:
            row["real pictures"] = 100 * judged.real[label].accuracy
        if judged.layouts:
            row["IoU with given boxes"] = 100 * x.overlap
        row["pictures"] = len(x.hits)
        half = RARER if place < len(judged.order) // 2 else COMMONER
        out.setdefault(half, {})[judged.detector.classes[label]] = row
    return out


def tell(result: report.Result, judged: Judged) -> None:
    """Adds tables, bars and notes to a report."""
    found = tables(judged)
    result.breakdowns |= found
    result.bars |= {
        title: {name: (row["found"], row.get("real pictures")) for name, row in rows.items()}
        for title, rows in found.items()
    }
    result.notes += judged.notes


def write(
    folder: Path,
    judged: Judged,
    pictures: Mapping[int, Picture],
    counted: Mapping[int, np.ndarray],
    name_of: Callable[[int], str] = "{:06d}.png".format,
) -> None:
    """Writes detections, layouts and counts as the published code does.

    Args:
      folder: where to.
      judged: the counts.
      pictures: what was seen.
      counted: {class: its pictures}.
      name_of: the name of a picture.
    """
    detector = judged.detector
    for label, numbers in counted.items():
        kept = {name_of(n): pictures[n] for n in numbers.tolist() if n in pictures}
        stem = (
            detector.files[label]
            if detector.files
            else f"label_{label:02d}_{detector.classes[label].replace(' ', '')}"
        )
        seen = {name: [(d.label, d.box) for d in x.seen] for name, x in kept.items()}
        file = folder / f"{object_files.DETECTED}{stem}.pkl"
        object_files.write(file, seen, detector.classes)
        if judged.layouts:
            given = {name: x.given or [] for name, x in kept.items()}
            file = folder / f"{object_files.GIVEN}{stem}.pkl"
            object_files.write(file, given, detector.classes)
    results = {
        label: {
            "accuracy": x.accuracy,
            "images_recognized": int(x.hits.sum()),
            "images_total": len(x.hits),
            **({"iou": x.overlap} if judged.layouts else {}),
        }
        for label, x in judged.found.items()
    }
    object_files.write_result(folder / object_files.RESULT, results)
