"""Detections and layouts in the pickles that Semantic Object Accuracy was published with.

Of every class detected_label_XX_NAME.pkl, {name of a picture: [names, classes, boxes]} of all that
was seen in its pictures, and ground_truth_label_XX_NAME.pkl, the same of the layouts that they were
drawn from; boxes are x, y, width, height in fractions. result_file.pkl has the counts of all
classes. They are read without running code that a pickle may hold.
"""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxt2i.convert import plain
from jaxt2i.metrics.score import MetricError

DETECTED, GIVEN, RESULT = "detected_", "ground_truth_", "result_file.pkl"
# {name of a picture: (class, box) of each of its objects}.
Objects = dict[str, list[tuple[int, tuple[float, ...]]]]


def read(file: Path) -> Objects:
    """The objects of a file of detections or of layouts.

    Raises:
      MetricError: for one that holds something else.
      UnsafeFileError: for one that holds code; nothing of it was run.
      UnreadableFileError: for a damaged one.
    """
    found = plain.read(file)
    if not isinstance(found, dict):
        raise MetricError(f"{file} holds {type(found).__name__}; {EXPECTED}")
    return {str(name): _entry(file, name, value) for name, value in found.items()}


EXPECTED = (
    "expected {name of a picture: [names, classes, boxes]}, a box being x, y, width, height in "
    "fractions of the picture"
)


def _entry(file: Path, name: Any, value: Any) -> list[tuple[int, tuple[float, ...]]]:
    try:
        _, labels, boxes = value
        return [
            (int(label), tuple(map(float, (x, y, width, height))))
            for label, (x, y, width, height) in zip(labels or (), boxes or (), strict=True)
        ]
    except (TypeError, ValueError) as error:
        raise MetricError(f"{file}: {name!r} has {value!r:.120}; {EXPECTED}") from error


def write(file: Path, objects: Objects, classes: Sequence[str]) -> None:
    """Writes detections; of layouts the published files have no names."""
    named = file.name.startswith(DETECTED)
    _dump(
        file,
        {
            name: [
                [classes[label] for label, _ in found] if named else [],
                [label for label, _ in found],
                [list(box) for _, box in found],
            ]
            for name, found in objects.items()
        },
    )


def write_result(file: Path, results: Mapping[int, Mapping[str, float]]) -> None:
    """Writes {class: {"accuracy", "images_recognized", "images_total", "iou" where known}}."""
    _dump(file, {label: dict(found) for label, found in results.items()})


def _dump(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(value, protocol=2))
