"""Inception-v3 as evaluation codes use it, against torch-fidelity, pytorch-fid, clean-fid, DM-GAN.

Images are NCHW in the folders, NHWC here.
"""

from collections.abc import Callable

import jax
import numpy as np

from jaxt2i.encoders import inception_names as tables
from jaxt2i.encoders.inception import INPUTS, InceptionFeatures
from jaxt2i.verify.arrays import Arrays, nhwc, strided
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.golden import Case, Golden
from jaxt2i.verify.networks import convert_net, observe

SERVES = ("inception_fid/*",)
FEATURES = ("64", "192", "768", "2048")
# Layers that a case shows, with the strides of (channels, pixels).
LAYERS = {
    "Conv2d_1a_3x3": (4, 16),
    "Conv2d_4a_3x3": (16, 8),
    "Mixed_5b": (8, 4),
    "Mixed_6a": (16, 4),
    "Mixed_6e": (16, 4),
    "Mixed_7a": (16, 3),
    "Mixed_7b": (16, 3),
    "Mixed_7c": (16, 3),
}


def network(golden: Golden) -> tuple[InceptionFeatures, dict]:
    """The folder's network and its variables."""
    module = InceptionFeatures(**tables.infer("features", golden.weights("inception")))
    return module, convert_net(golden, "inception", tables.FEATURES, module)


def pixels(case: Case) -> jax.Array:
    """The case's pictures."""
    return nhwc(case.inputs["in_images"])


def torch_fidelity(golden: Golden, case: Case) -> Arrays:
    """Bytes of any size: all features, and where the case has them the layers."""
    module, variables = network(golden)

    @compiled
    def run(variables, levels):
        x = INPUTS["tf1"](levels)
        return observe(module, variables, x), x

    seen, x = run(variables, pixels(case))
    out = {f"out_{name}": value for name, value in seen.output.items()}
    out["out_net_input"] = strided(x, 1, 23)
    for name, (channels, step) in LAYERS.items():
        out[f"out_tap_{name}"] = strided(seen.at(f"trunk/{name}"), channels, step)
    return out


def clean(golden: Golden, case: Case) -> Arrays:
    """Clean-FID's resize, and pool3."""
    module, variables = network(golden)

    @compiled
    def run(variables, levels):
        resized = INPUTS["clean"].resize(levels)
        return resized, module.apply(variables, INPUTS["clean"].scale(resized))["2048"]

    resized, found = run(variables, pixels(case))
    return {"out_resized": strided(resized, 1, 7), "out_2048": found}


def means(name: str, low: float = 0, high: float = 255) -> Callable[[Golden, Case], Arrays]:
    """A runner: the four means, two maps and the resized picture.

    Args:
      name: key of `INPUTS`.
      low: of the range that the case's pictures have.
      high: the same.
    """

    def run(golden: Golden, case: Case) -> Arrays:
        module, variables = network(golden)

        @compiled
        def both(variables, levels):
            levels = (levels - np.float32(low)) * np.float32(255 / (high - low))
            resized = INPUTS[name].resize(levels)
            x = INPUTS[name].scale(resized)
            stages = module.apply(variables, x, method="stages")
            return resized, module.apply(variables, x), stages

        resized, found, maps = both(variables, pixels(case))
        return {
            **{f"out_{k}": found[k] for k in FEATURES},
            "out_resized": strided(resized, 1, 23),
            "out_block1_sub": strided(maps["192"], 16, 4),
            "out_block2_sub": strided(maps["768"], 16, 3),
        }

    return run


CASES: dict[str, Callable[[Golden, Case], Arrays]] = {
    "torchfidelity_*": torch_fidelity,
    "cleanfid_*": clean,
    "pytorchfid_*": means("pytorch_fid", 0, 1),
    "dmgan_files_*": means("dmgan"),
    "galip_generator_*": means("galip", -1, 1),
}
