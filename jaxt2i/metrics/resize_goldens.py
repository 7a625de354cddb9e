"""Kernels of resizing against TensorFlow 1, PyTorch, NVIDIA's network, clean-fid and Pillow."""

from collections.abc import Callable

import jax.numpy as jnp

from jaxt2i.nn.resample import resize, resize_bytes
from jaxt2i.verify.arrays import Arrays, nhwc
from jaxt2i.verify.compute import traced

SERVES = ("metrics/resize",)
# The folder's names of kernels, ours.
FLOATS = {
    "tf1_bilinear": "tf1_bilinear",
    "tf1_bilinear_align_corners": "tf1_bilinear_corners",
    "nvidia_grid_bilinear": "nvidia_bilinear",
    "torch_bilinear": "bilinear",
    "torch_bilinear_align_corners": "bilinear_corners",
    "torch_bilinear_antialias": "bilinear_antialias",
    "torch_bicubic": "bicubic",
    "torch_bicubic_antialias": "bicubic_antialias",
    "torch_area": "area",
    "torch_nearest": "nearest",
    "torch_nearest_exact": "nearest_exact",
}
BYTES = ("bilinear", "bicubic", "lanczos", "box", "nearest")


@traced
def kernels(case, inputs) -> Arrays:
    """Every kernel on pictures that grow, shrink, and do both."""
    out = {}
    for name, image in inputs.items():
        geometry, x = name.removeprefix("in_"), nhwc(image)
        size = case.outputs[f"out_{geometry}_torch_area"].shape[2:]
        made = {official: resize(x, size, ours) for official, ours in FLOATS.items()}
        made["cleanfid_bicubic_float"] = jnp.clip(resize(x, size, "bicubic_pillow"), 0, 255)
        made |= {f"pil_{kind}_uint8": resize_bytes(x, size, kind) for kind in BYTES}
        out |= {f"out_{geometry}_{kernel}": y for kernel, y in made.items()}
    return out


CASES: dict[str, Callable[..., Arrays]] = {"resize": kernels}
