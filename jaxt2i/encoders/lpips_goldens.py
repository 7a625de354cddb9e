"""LPIPS with its three trunks against the official package.

Images are NCHW in the folders, NHWC here.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxt2i.convert import rules
from jaxt2i.encoders import lpips_names as tables
from jaxt2i.encoders.lpips import SCALE, SHIFT, Lpips
from jaxt2i.encoders.pretrained import template
from jaxt2i.verify.arrays import Arrays, joint_norms, nchw, nhwc
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.golden import Case, Golden

SERVES = ("lpips/*",)


def network(golden: Golden) -> tuple[Lpips, dict]:
    """The folder's network and its variables, whose two parts are files of their own."""
    weights = golden.weights("lpips")
    module = Lpips(**tables.infer("trunk", weights))
    wanted, parts = template(module)["params"], {}
    for part in ("trunk", "lin"):
        table = rules.pick(tables.TABLES[part], weights)
        made, report = rules.to_flax(table, weights, {"params": wanted[part]})
        report.require_all(f"{golden.folder}: {part}")
        parts[part] = made["params"]
    return module, {"params": parts}


def pictures(case: Case) -> tuple[jax.Array, jax.Array]:
    """The case's two batches."""
    return nhwc(case.inputs["in_0"]), nhwc(case.inputs["in_1"])


def pair(golden: Golden, case: Case) -> Arrays:
    """The distance, its layers, its gradient, and what the trunk sees of the first picture."""
    module, variables = network(golden)
    a, b = pictures(case)

    @compiled
    def run(variables, a, b):
        def total(a):
            shares = module.apply(variables, a, b, method="layers")
            return shares.sum(), shares

        (_, shares), gradient = jax.value_and_grad(total, has_aux=True)(a)
        taps, _ = module.apply(variables, (a - SHIFT) / SCALE, method=lambda m, x: m.trunk(x))
        return module.apply(variables, a, b), shares, gradient, taps

    distance, shares, gradient, taps = run(variables, a, b)
    out = {
        "out_distance": distance,
        "out_per_layer": shares,
        "out_grad_in0_norm": joint_norms(gradient),
        "out_grad_in0_sub": nchw(gradient)[:, :, ::4, ::4],
    }
    for k, x in enumerate(taps):
        steps = [max(1, n // m) for n, m in zip(x.shape[1:], (5, 5, 8), strict=True)]
        out[f"out_feat{k}_sub"] = nchw(x[:, :: steps[0], :: steps[1], :: steps[2]])
    return out


def variants(golden: Golden, case: Case) -> Arrays:
    """Pictures in [0, 1], equal pictures, the map of pixels, and channels that are not weighed."""
    module, variables = network(golden)
    a, b = pictures(case)

    @compiled
    def run(variables, a, b):
        pixels = module.apply(variables, a[:1], b[:1], method="spatial")
        return {
            "out_normalize_flag": module.apply(
                variables, (a + 1) / 2, (b + 1) / 2, unit_range=True
            ),
            "out_self": module.apply(variables, a, a),
            "out_spatial_sub": jnp.expand_dims(pixels, 1)[:, :, ::4, ::4],
            "out_no_lin": module.apply(variables, a, b, lin=False),
        }

    return run(variables, a, b)


CASES: dict[str, Callable[[Golden, Case], Arrays]] = {"pair": pair, "variants": variants}
