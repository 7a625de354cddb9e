"""Obj-GAN's image generator against its official code's numbers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxt2i.nn.roi_align import roi_align
from jaxt2i.verify.arrays import Arrays, nchw, nhwc
from jaxt2i.verify.compute import compiled

SERVES = ("obj_gan/*",)


def roi(golden, case) -> Arrays:
    """Points, their means and the gradient of features, with both scales of the boxes."""
    features, rois = nhwc(case.inputs["in_features"]), jnp.asarray(case.inputs["in_rois"])
    cotangent = nhwc(case.inputs["in_cotangent"])
    picture = rois[:, 0].astype(jnp.int32)

    @compiled
    def program(features, boxes, cotangent):
        found = {}
        for suffix, scale in (("s1", 1.0), ("s1_16", 1 / 16)):

            def read(features, mean, size, scale=scale):
                one = features[picture]
                return roi_align(one, boxes[:, None], size=size, scale=scale, mean=mean)[:, 0]

            size = cotangent.shape[1]
            averaged, pull_back = jax.vjp(lambda x: read(x, True, size), features)  # noqa: B023
            found[f"out_points_{suffix}"] = read(features, False, size + 1)
            found[f"out_avg_{suffix}"] = averaged
            found[f"out_grad_{suffix}"] = pull_back(cotangent)[0]
        return found

    return {k: nchw(x) for k, x in program(features, rois[:, 1:], cotangent).items()}


CASES: dict[str, Callable[..., Arrays]] = {"roi_align": roi}
