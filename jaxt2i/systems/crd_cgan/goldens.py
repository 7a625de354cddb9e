"""CRD-CGAN's formulas against worked examples; there is no official code.

Samples come first there, behind their captions here.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.systems.crd_cgan import method as crd_cgan
from jaxt2i.verify.compute import compiled

SERVES = ("crd_cgan/*",)


def given(item: dict, name: str) -> jax.Array:
    """An input [K, B, ...] as [B, K, ...]."""
    return jnp.swapaxes(jnp.asarray(item[f"in_{name}"], jnp.float32), 0, 1)


def ratio(images: jax.Array, codes: jax.Array) -> dict:
    """A ratio loss, unbounded."""
    found = compiled(crd_cgan.sensitivity)(images, codes)
    return {"out_per_pair_per_sample": found.T, "out_loss": found.mean()}


def conditional(item: dict) -> dict:
    """The relativistic conditional loss, with the basic one beside it."""
    real, wrong = (
        jnp.asarray(item[f"in_logits_real_{k}"], jnp.float32) for k in ("match", "mismatch")
    )

    @compiled
    def run(real, fake, wrong):
        out = {}
        for name, relative in (("", True), ("basic_conditional_", False)):
            out[f"out_{name}D_per_k"] = crd_cgan.conditional_d(real, fake, wrong, relative)
            out[f"out_{name}G_per_k"] = crd_cgan.conditional_g(real, fake, relative)
        for side in "DG":
            out[f"out_{side}"] = out[f"out_{side}_per_k"].mean()
        return out

    return run(real, given(item, "logits_fake_KxB"), wrong)


def category(logits: jax.Array, target: list, kind: str) -> dict:
    """The category-consistent loss of one label ("ce") or of several ("bce")."""
    target = jnp.asarray(target, jnp.int32 if kind == "ce" else jnp.float32)
    entropy, alike = compiled(crd_cgan.consistency)(logits, target)
    return {f"out_{kind}": entropy, "out_pair": alike, "out_loss": entropy + alike}


def cases(golden, case) -> dict:
    """Every worked example; some read the inputs of the one before."""
    made, images, logits = [], None, None
    for item in case.data["cases"]:
        name = item["name"]
        if name == "diversity_loss":
            images = given(item, "images_KxBxCxHxW")
            out = ratio(images, given(item, "noise_KxBxZ"))
        elif name == "attention_loss":
            out = ratio(images, given(item, "word_context_KxBxDxHxW"))
        elif name == "relativistic_conditional_loss":
            out = conditional(item)
        elif name == "category_consistent_loss_single_label":
            logits = given(item, "class_logits_KxBxC")
            out = category(logits, item["in_labels"], "ce")
        else:
            out = category(logits, item["in_multi_hot"], "bce")
        made.append(item | {k: np.asarray(x).tolist() for k, x in out.items()})
    return {"*": {**case.data, "cases": made}}


CASES: dict[str, Callable[..., dict]] = {"cases*": cases}
