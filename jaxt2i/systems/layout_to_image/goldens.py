"""Layout to image's formulas against worked examples; there is no official code."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jaxt2i.losses.text import alignment
from jaxt2i.nn.objects import read_text
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.find import examples

SERVES = ("layout_bridging/objects*",)
CASES: dict[str, Callable] = {"objects*": examples("layout_bridging")}


def given(example: dict, *names: str) -> list[np.ndarray]:
    """Inputs of an example."""
    return [np.array(example[f"in_{name}"], np.float32) for name in names]


def reading(example: dict) -> dict:
    """What objects find in words."""
    mask = jnp.asarray(example["in_mask"], bool)[None]
    queries, words = (x[None] for x in given(example, "queries", "words"))
    share, text = compiled(read_text)(queries, words, mask)
    return {"out_attention": share[0], "out_object_text": text[0]}


def aligned(example: dict) -> dict:
    """The loss of regions and what their objects have read."""

    @compiled
    def run(regions, text, sharpness):
        return alignment(regions, text, sharpness=sharpness)

    pair = given(example, "region_features", "object_text")
    return {"out_loss": run(*pair, jnp.float32(example["in_gamma"]))}


# Each kind of example by an input that it alone has.
EXAMPLES: dict[str, dict[str, Callable[[dict], dict]]] = {
    "layout_bridging": {"in_queries": reading, "in_region_features": aligned}
}
