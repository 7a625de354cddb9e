"""Layout bridging's formulas of layouts against worked examples; there is no official code.

Boxes have corners x0, y0, x1, y1 there. What draws pictures from layouts has its examples in its
own golden file: `examples` finds them there.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.metrics import layout_quality
from jaxt2i.nn import layouts, mixture
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.find import examples

SERVES = ("layout_bridging/*",)
CASES: dict[str, Callable] = {"cases*": examples("layout_bridging")}
# Layouts are padded to multiples of this, so that examples share a program.
PADDED = 8


def corners(objects: Sequence[dict]) -> jax.Array:
    """Boxes x, y, w, h of objects: [N, 4]."""
    boxes = np.array([thing["bbox"] for thing in objects], np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).astype(np.float32)


def padded(objects: Sequence[dict], names: Sequence[str]) -> layout_quality.Layout:
    """Objects as a padded layout."""
    count, size = len(objects), -(-max(len(objects), 1) // PADDED) * PADDED
    boxes, label = np.zeros((size, 4), np.float32), np.zeros(size, np.int32)
    boxes[:count] = corners(objects)
    label[:count] = [names.index(thing["label"]) for thing in objects]
    return layout_quality.Layout(boxes, label, np.arange(size) < count)


def lqs(example: dict) -> dict:
    """The score in both readings."""
    given = example["in_groundtruth"], example["in_predicted"]
    names = sorted({thing["label"] for objects in given for thing in objects})
    layout = [padded(objects, names) for objects in given]

    @compiled
    def run(true, predicted, params):
        return {
            f"out_{reading}": layout_quality.quality(
                true, predicted, reading=reading, **params
            )._asdict()
            for reading in layout_quality.READINGS
        }

    return run(*layout, example["in_params"])


def gmm_nll(example: dict) -> dict:
    """A mixture from raw numbers, and the likelihood of a point."""

    @compiled
    def run(raw, target):
        made = mixture.read(raw)
        return {
            "out_pi": jnp.exp(made.log_pi),
            "out_rho": made.rho,
            "out_nll": mixture.nll(made, target),
        }

    return run(*(np.array(example[name], np.float32) for name in ("in_raw", "in_target")))


def quantise(example: dict) -> dict:
    """Boxes as whole bins and back."""
    bins = example["in_bins"]
    numbers = layouts.to_bins(jnp.asarray(example["in_boxes"], jnp.float32), bins)
    return {"out_bins": numbers, "out_dequantised": layouts.from_bins(numbers, bins)}


def order(example: dict) -> dict:
    """Objects by area, and their boxes by centre and size."""
    objects = example["in_objects"]
    boxes = jnp.asarray(corners(objects))
    chosen = layouts.by_area(boxes, jnp.ones(len(objects), bool)).tolist()
    centred = np.asarray(layouts.centred(boxes)).tolist()
    sequence = [{"label": objects[i]["label"], "cxcywh": centred[i]} for i in chosen]
    return {"out_order": chosen, "out_sequence": sequence}


# Each kind of example by an input that it alone has.
EXAMPLES: dict[str, dict[str, Callable[[dict], dict]]] = {
    "layout_bridging": {
        "in_groundtruth": lqs,
        "in_raw": gmm_nll,
        "in_bins": quantise,
        "in_objects": order,
    }
}
