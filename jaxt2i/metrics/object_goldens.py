"""Semantic Object Accuracy against the published lists of captions and the published code."""

from collections.abc import Callable

from jaxt2i.data import object_captions
from jaxt2i.metrics import object_accuracy
from jaxt2i.verify.golden import Case, Golden

SERVES = ("soa/*",)


def captions(golden: Golden, case: Case) -> dict:
    """The classes that captions name."""
    return {"*": [x | {"labels": list(object_captions.labels(x["caption"]))} for x in case.data]}


def overlaps(golden: Golden, case: Case) -> dict:
    """Pairs of boxes."""
    return {"*": [x | {"iou": object_accuracy.box_overlap(x["a"], x["b"])} for x in case.data]}


def scores(golden: Golden, case: Case) -> dict:
    """All numbers of detections, with and without layouts."""
    return {"*": [x | {"expected": scored(x)} for x in case.data]}


def scored(dump: dict) -> dict:
    """What the published code says of one dump."""
    per_label, layouts = {}, dump.get("ground_truth")
    for stem, pictures in dump["detections"].items():
        label = object_captions.number_of(stem)
        hits = sum(label in ids for _, ids, _ in pictures.values())
        found = {
            "accuracy": hits / len(pictures) if pictures else 0.0,
            "images_recognized": hits,
            "images_total": len(pictures),
        }
        if layouts is not None:
            given = layouts[stem]
            found["iou"] = object_accuracy.mean_overlap(
                [
                    object_accuracy.best_overlap(*(boxes(x, label) for x in (seen, given[name])))
                    for name, seen in pictures.items()
                ]
            )
        per_label[label] = found
    images = {label: x["images_total"] for label, x in sorted(per_label.items())}
    out: dict = {"per_label": {str(label): x for label, x in per_label.items()}}
    for key, ending in (("accuracy", ""), ("iou", "-IoU")) if layouts else (("accuracy", ""),):
        values = {label: per_label[label][key] for label in images}
        found = object_accuracy.overall(values, images, first=object_accuracy.HALF)
        out |= {
            f"SOA-C{ending}": found.classes,
            f"SOA-I{ending}": found.images,
            f"SOA-C{ending}-Top40": found.top,
            f"SOA-C{ending}-Bot40": found.bottom,
        }
    return out


def boxes(entry: list, label: int) -> list:
    """The boxes of a class among a picture's [names, classes, boxes]."""
    return [box for number, box in zip(entry[1], entry[2], strict=True) if number == label]


CASES: dict[str, Callable[[Golden, Case], dict]] = {
    "caption_*": captions,
    "score_*": scores,
    "iou_*": overlaps,
}
