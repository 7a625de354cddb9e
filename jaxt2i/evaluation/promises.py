"""Whether pictures hold what rows of a suite ask for: objects, counts, positions and colours.

The rows are GenEval's ({"include": [{"class", "count", "color", "position"}], "exclude": [...]}),
and so are the rules. The detector is not: YOLOv3 in place of Mask2Former, with its own threshold,
and colours are told from boxes instead of masks. The score is therefore called `yolo_objects` and
is not GenEval's; its own scorer reads what `--layout geneval` writes.

Ghosh et al. 2023, "GenEval" (arXiv 2310.11513; code djghosh13/geneval, MIT).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxt2i.evaluation import detection
from jaxt2i.evaluation.detection import Detection, Detector
from jaxt2i.evaluation.judges import Verdicts
from jaxt2i.evaluation.reading import Look, Reader
from jaxt2i.evaluation.sets import Set
from jaxt2i.evaluation.suites import Suite
from jaxt2i.metrics.score import MetricError, unit_rows

NAME = "yolo_objects"
COLOURS = (
    *("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"),
)
SAID = ("a photo of a {colour} {thing}", "a photo of a {colour}-colored {thing}")
SAID_OF_ANY = "a photo of a {colour} object"
EYE = Look("openai_vit_l14", "pillow_bicubic_crop")
# Pixels of a crop's side, as that network sees it.
SIDE = 224
# Names that GenEval has for COCO's.
OTHER = {"computer mouse": "mouse", "computer keyboard": "keyboard", "tv remote": "remote"}
# Share of both objects' sizes by which centres must be apart, and of their distance.
APART, ALONG = 0.1, 0.5
# Boxes of a picture, of a class -> their colours.
Painter = Callable[[np.ndarray, Sequence[Detection], str], list[str]]


def relations(a: Detection, b: Detection, size: tuple[int, int]) -> set[str]:
    """Where the first lies from the second: "left of", "right of", "above", "below"; or nowhere.

    Args:
      a: one object.
      b: another.
      size: (width, height) of the picture, pixels.
    """
    first, second = (np.array(x.box, np.float64).reshape(2, 2) * size for x in (a, b))
    offset = first.sum(0) - first[1] / 2 - (second.sum(0) - second[1] / 2)
    gap = np.maximum(np.abs(offset) - APART * (first[1] + second[1]), 0) * np.sign(offset)
    if (np.abs(gap) < 1e-3).all():
        return set()
    x, y = gap / np.linalg.norm(offset)
    named = {"left of": x < -ALONG, "right of": x > ALONG, "above": y < -ALONG, "below": y > ALONG}
    return {name for name, holds in named.items() if holds}


def kept(
    row: Mapping[str, Any],
    seen: Mapping[str, Sequence[Detection]],
    size: tuple[int, int],
    painted: Callable[[Sequence[Detection], str], Sequence[str]],
) -> bool:
    """Whether a picture holds what a row asks for.

    Args:
      row: of a suite.
      seen: {class: its objects, the surest first}.
      size: (width, height) of the picture, pixels.
      painted: (objects, class) -> their colours.
    """
    groups: list[Sequence[Detection] | None] = []
    for wanted in row.get("include", ()):
        name, count = wanted["class"], wanted["count"]
        found = seen.get(name, ())[:count]
        right = len(found) >= count
        if right and "color" in wanted:
            right = list(painted(found, name)).count(wanted["color"]) >= count
        if right and "position" in wanted:
            where, at = wanted["position"]
            others = groups[at]
            right = others is not None and all(
                where in relations(one, other, size) for one in found for other in others
            )
        groups.append(found if right else None)
    many = any(len(seen.get(x["class"], ())) >= x["count"] for x in row.get("exclude", ()))
    return not many and all(group is not None for group in groups)


def painter(reader: Reader) -> Painter:
    """Tells colours by CLIP, among `COLOURS`."""
    network = reader.network(EYE.network)
    read = jax.jit(network.reader("image", EYE.input))
    known: dict[str, np.ndarray] = {}

    def colours_of(thing: str) -> np.ndarray:
        if thing not in known:
            said = [
                text.format(colour=c, thing=thing) for c in COLOURS for text in (*SAID, SAID_OF_ANY)
            ]
            vectors = unit_rows(reader.texts(EYE.network, said), "captions")
            known[thing] = unit_rows(
                vectors.reshape(len(COLOURS), -1, vectors.shape[1]).mean(1), ""
            )
        return known[thing]

    def tell(pixels: np.ndarray, objects: Sequence[Detection], thing: str) -> list[str]:
        crops = np.stack([crop(pixels, x) for x in objects])
        image = np.asarray(read(network.variables["image"], crops)[0])
        return [COLOURS[i] for i in (image @ colours_of(thing).T).argmax(1)]

    return tell


def crop(pixels: np.ndarray, of: Detection) -> np.ndarray:
    """An object's box as CLIP's code cuts pictures: uint8 [224, 224, 3]."""
    from PIL import Image

    height, width = pixels.shape[:2]
    x, y, w, h = np.array(of.box) * (width, height, width, height)
    box = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    left, top, right, bottom = (round(float(v)) for v in box)
    cut = Image.fromarray(pixels).crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    share = SIDE / min(cut.size)
    cut = cut.resize([max(SIDE, int(n * share)) for n in cut.size], Image.Resampling.BICUBIC)
    at = [round((n - SIDE) / 2) for n in cut.size]
    return np.asarray(cut.crop((*at, at[0] + SIDE, at[1] + SIDE)))


def verdicts(
    suite: Suite,
    of: np.ndarray,
    pictures: Set,
    reader: Reader,
    detector: Detector | None = None,
    paint: Painter | None = None,
) -> Verdicts:
    """Which pictures hold all that their row asks for, 1 or 0 each.

    Args:
      suite: with rows that say what they ask for.
      of: [N], number of each picture's row.
      pictures: N of them.
      reader: of networks.
      detector: None: YOLOv3.
      paint: tells colours; None: CLIP's ViT-L/14.

    Raises:
      MetricError: for a suite that does not say what its prompts ask for, or asks for classes that
        the detector does not know.
    """
    if not all("include" in row for row in suite.rows):
        raise MetricError(
            f"{NAME} looks for the objects that rows list under 'include', as GenEval's do, and "
            f"{suite.name} lists none"
        )
    detector = detector or detection.yolo(reader.network("yolov3"), reader.batch, reader.verified)
    number = {}
    for row in suite.rows:
        for thing in (*row["include"], *row.get("exclude", ())):
            name = thing["class"]
            number[name] = detector.number(OTHER.get(name, name))
    if unknown := [name for name, n in number.items() if n is None]:
        raise MetricError(f"{detector.name} knows no {', '.join(unknown)}: {NAME} needs it to")
    rows, values = [], []
    for numbers, pixels in pictures.batches(detector.batch, range(pictures.count)):
        for n, one, found in zip(numbers, pixels, detector.detect(pixels), strict=True):
            found = sorted(found, key=lambda x: -x.score)
            seen = {name: [x for x in found if x.label == k] for name, k in number.items()}

            def painted(objects, thing, one=one):
                nonlocal paint
                paint = paint or painter(reader)  # not every suite asks for colours
                return paint(one, objects, thing)

            rows.append(int(n))
            values.append(kept(suite.rows[of[n]], seen, one.shape[1::-1], painted))
    order = np.argsort(rows)
    return Verdicts(NAME, np.array(rows)[order], np.array(values, np.float64)[order])


def about(suite: Suite) -> dict[str, str]:
    """What made the score, for a record."""
    networks = (
        ("yolov3", EYE.network) if any("color" in str(r) for r in suite.rows) else ("yolov3",)
    )
    return {
        "network": " and ".join(networks),
        "rules": "GenEval's, with another detector and without masks: not a GenEval score",
    }
