"""Detectors: pictures in, objects out, each with its class, its box and how sure it is.

    found = detection.yolo(features.load("yolov3"))
    for label, box, score in found.detect(images)[0]:
        print(found.classes[label], box, score)

What counts objects, or holds them against a caption, needs no more of a detector than this.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxt2i.data import object_captions
from jaxt2i.encoders import features
from jaxt2i.encoders import yolo as network
from jaxt2i.evaluation.reading import Look
from jaxt2i.evaluation.sets import on_local_devices

LOOK = Look("yolov3", "pillow_bilinear_256")
# Names that COCO's own files have for darknet's.
COCO_NAMES = {
    "motorcycle": "motorbike",
    "airplane": "aeroplane",
    "couch": "sofa",
    "potted plant": "pottedplant",
    "dining table": "diningtable",
    "tv": "tvmonitor",
}


class Detection(NamedTuple):
    """An object that was seen.

    Attributes:
      label: number of its class.
      box: x, y, width, height in fractions of the picture; may reach out of it.
      score: how sure, 0 to 1.
    """

    label: int
    box: tuple[float, float, float, float]
    score: float


@dataclasses.dataclass(frozen=True, eq=False)
class Detector:
    """Who looks for objects.

    Attributes:
      name: for reports.
      classes: names of the classes.
      detect: uint8 [N, H, W, 3] -> the objects of each picture, in the detector's own order.
      named: a caption -> numbers of the classes that it names.
      batch: pictures that it takes at once; more are looked at in turn.
      rarest: the classes, rarest first; none where that is not known.
      crowds: {class in very many captions: captions that are drawn at random for it, one picture
        each}.
      files: names of the classes' files of detections, see `jaxt2i.evaluation.object_files`.
      other_names: {another name of a class: its name in `classes`}.
    """

    name: str
    classes: tuple[str, ...]
    detect: Callable[[np.ndarray], list[list[Detection]]]
    named: Callable[[str], Sequence[int]]
    batch: int = 32
    rarest: tuple[int, ...] = ()
    crowds: dict[int, int] = dataclasses.field(default_factory=dict)
    files: tuple[str, ...] = ()
    other_names: dict[str, str] = dataclasses.field(default_factory=dict)

    def number(self, name: str | int) -> int | None:
        """The number of a class by its name; None: the detector does not know it."""
        name = self.other_names.get(name, name)
        return self.classes.index(name) if name in self.classes else None


def yolo(
    made: features.Network, batch: int = 32, verified: Callable[..., None] | None = None
) -> Detector:
    """YOLOv3 as Semantic Object Accuracy uses it.

    Args:
      made: the network "yolov3" with its weights.
      batch: pictures at once, filled up to a multiple of the devices.
      verified: `Reader.verified`, told of the program before it is used; None: nobody asks.
    """
    split, whole = on_local_devices()
    predict = made.reader("detector", LOOK.input)
    variables = jax.device_put(made.variables["detector"], whole)
    program = jax.jit(lambda v, levels: network.candidates(predict(v, levels)), out_shardings=whole)
    size = batch + -batch % jax.local_device_count()

    def detect(images: np.ndarray) -> list[list[Detection]]:
        out = []
        for start in range(0, len(images), size):
            part = images[start : start + size]
            # One shape for every call, hence one program.
            filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), 0)])
            placed = jax.device_put(filled, split)
            if verified:
                verified(LOOK, program, variables, placed)
            rows = np.asarray(program(variables, placed))
            out += [detections(network.suppress(x)) for x in rows[: len(part)]]
        return out

    return of_coco("yolov3", detect, size)


def of_coco(
    name: str, detect: Callable[[np.ndarray], list[list[Detection]]], batch: int = 32
) -> Detector:
    """A detector of COCO's 80 classes in darknet's order."""
    counts = [rule.captions for rule in object_captions.RULES]
    return Detector(
        name=name,
        classes=network.CLASSES,
        detect=detect,
        named=object_captions.labels,
        batch=batch,
        rarest=tuple(sorted(range(len(counts)), key=counts.__getitem__)),
        crowds={object_captions.PERSON: object_captions.PERSON_CAPTIONS},
        files=tuple(rule.name for rule in object_captions.RULES),
        other_names=COCO_NAMES,
    )


def detections(rows: np.ndarray) -> list[Detection]:
    """What `suppress` kept [M, 7], in fractions."""
    boxes = np.concatenate([rows[:, :2], rows[:, 2:4] - rows[:, :2]], 1) / network.RESOLUTION
    return [
        Detection(int(row[6]), tuple(box.tolist()), float(row[4] * row[5]))
        for box, row in zip(boxes, rows, strict=True)
    ]
