"""YOLOv3 against the detector code that Semantic Object Accuracy was published with.

Pictures and layers are NCHW in the folder, NHWC here.
"""

from collections.abc import Callable

import numpy as np

from jaxt2i.encoders import yolo, yolo_names
from jaxt2i.verify.arrays import Arrays, nchw, nhwc
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.golden import Case, Golden
from jaxt2i.verify.networks import convert_net, observe

SERVES = ("yolov3/*",)
# Blocks that a case shows; of the heads every fifth channel of the raw map.
LAYERS = (0, 5, 12, 37, 62, 73, 81, 84, 93, 96, 105)
HEADS = (81, 93, 105)


def seen(golden: Golden, case: Case) -> tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]]:
    """(predictions, what `suppress` takes, {block: its output}) of the case's pictures."""
    (net,) = case.info["weights"]
    module = yolo.YoloV3(**yolo_names.infer("detector", golden.weights(net)))
    variables = convert_net(golden, net, yolo_names.DETECTOR, module)

    # One program for all cases of a size.
    @compiled
    def run(variables, image):
        found = observe(module, variables, image)
        layers = {n: found.at(f"block{n}") for n in LAYERS}
        return found.output, yolo.candidates(found.output), layers

    return run(variables, nhwc(case.inputs["in_image"]))


def forward(golden: Golden, case: Case) -> Arrays:
    """Predictions, and layers at most 8 x 8 pixels wide."""
    predictions, _, layers = seen(golden, case)
    out: Arrays = {"out_pred": predictions}
    for number, value in layers.items():
        step = max(1, value.shape[1] // 8)
        shown = nchw(value)[:, :: 5 if number in HEADS else 1, ::step, ::step]
        out[f"out_layer{number}"] = shown[..., :8, :8]
    return out


def detect(golden: Golden, case: Case) -> Arrays:
    """Detections of one picture."""
    _, rows, _ = seen(golden, case)
    least, same = (float(case.inputs[f"in_{name}"]) for name in ("conf", "nms"))
    return {"out_det": yolo.suppress(np.asarray(rows)[0], least, same)}


def merge(golden: Golden, case: Case) -> Arrays:
    """Detections of made-up predictions."""
    rows = np.asarray(compiled(yolo.candidates)(case.inputs["in_pred"]))
    config = case.info["config"]
    return {
        f"out_det{n}": yolo.suppress(x, config["conf"], config["nms"]) for n, x in enumerate(rows)
    }


CASES: dict[str, Callable[[Golden, Case], Arrays]] = {
    "*forward*": forward,
    "detect*": detect,
    "nms*": merge,
}
