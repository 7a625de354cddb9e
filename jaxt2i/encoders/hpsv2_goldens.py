"""How HPSv2's code resizes pictures, against torchvision."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxt2i.encoders.clip import INPUTS
from jaxt2i.verify.golden import Case, Golden

SERVES = ("hpsv2/*",)


def resized(golden: Golden, case: Case) -> dict[str, jax.Array]:
    """Wide, tall and square pictures, in both ways of resizing."""
    out = {}
    for name in case.outputs:
        what, _, way = name.removeprefix("out_").partition("_")
        pictures = jnp.asarray(case.inputs[f"in_{what}"]).transpose(0, 2, 3, 1)
        found = INPUTS[f"hpsv2{'_' * bool(way)}{way}"](pictures, case.outputs[name].shape[-1])
        out[name] = found.transpose(0, 3, 1, 2)
    return out


CASES: dict[str, Callable] = {"resized": resized}
