"""Inception-v3 as evaluation codes use it, against torch-fidelity, pytorch-fid, clean-fid, DM-GAN.

Images are NCHW in the folders, NHWC here.
"""

from collections.abc import Callable

import jax
import numpy as np

from jaxt2i.encoders import inception_names as tables
from jaxt2i.encoders.inception import INPUTS, InceptionFeatures
from jaxt2i.systems.stylegan_t.goldens_ops import Arrays, captured, convert_net, nchw, nhwc
from jaxt2i.verify.golden import Case, Golden

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
    return module, convert_net(golden, "inception", tables.FEATURES, module, *module.example())


def pixels(case: Case) -> jax.Array:
    """The case's pictures."""
    return nhwc(case.inputs["in_images"])


def torch_fidelity(golden: Golden, case: Case) -> Arrays:
    """Bytes of any size: all features, and where the case has them the layers."""
    module, variables = network(golden)
    x = jax.jit(INPUTS["tf1"])(pixels(case))
    found, at = captured(module, variables, x)
    out = {f"out_{name}": value for name, value in found.items()}
    out["out_net_input"] = nchw(x)[:, :, ::23, ::23]
    for name, (channels, step) in LAYERS.items():
        out[f"out_tap_{name}"] = nchw(at(f"trunk/{name}"))[:, ::channels, ::step, ::step]
    return out


def clean(golden: Golden, case: Case) -> Arrays:
    """Clean-FID's resize, and pool3."""
    module, variables = network(golden)
    resized = jax.jit(INPUTS["clean"].resize)(pixels(case))
    found = jax.jit(module.apply)(variables, INPUTS["clean"].scale(resized))
    return {"out_resized": nchw(resized)[:, :, ::7, ::7], "out_2048": found["2048"]}


def means(name: str, low: float = 0, high: float = 255) -> Callable[[Golden, Case], Arrays]:
    """A runner: the four means, two maps and the resized picture.

    Args:
      name: key of `INPUTS`.
      low: of the range that the case's pictures have.
      high: the same.
    """

    def run(golden: Golden, case: Case) -> Arrays:
        module, variables = network(golden)
        levels = (pixels(case) - np.float32(low)) * np.float32(255 / (high - low))
        resized = jax.jit(INPUTS[name].resize)(levels)

        @jax.jit
        def both(variables, x):
            return module.apply(variables, x), module.apply(variables, x, method="stages")

        found, maps = both(variables, INPUTS[name].scale(resized))
        return {
            **{f"out_{k}": found[k] for k in FEATURES},
            "out_resized": nchw(resized)[:, :, ::23, ::23],
            "out_block1_sub": nchw(maps["192"])[:, ::16, ::4, ::4],
            "out_block2_sub": nchw(maps["768"])[:, ::16, ::3, ::3],
        }

    return run


CASES: dict[str, Callable[[Golden, Case], Arrays]] = {
    "torchfidelity_*": torch_fidelity,
    "cleanfid_*": clean,
    "pytorchfid_*": means("pytorch_fid", 0, 1),
    "dmgan_files_*": means("dmgan"),
    "galip_generator_*": means("galip", -1, 1),
}
