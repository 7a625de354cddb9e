"""CLIP-FlanT5 against transformers' CLIP and T5, joined as VQAScore's code joins them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxt2i.encoders import clip, clip_names, clip_t5, clip_t5_names
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.encoders import CLIP_KEYS, clip_fields
from jaxt2i.verify.golden import Case, Golden
from jaxt2i.verify.networks import convert_net

SERVES = ("clip_t5/*",)


def likelihood(golden: Golden, case: Case) -> dict[str, jax.Array]:
    """Pictures with questions of several lengths: every stage, and the score."""
    eye, t5 = case.info["weights"]
    keep, image = CLIP_KEYS["image"], golden.weights(eye)
    fields = clip_names.infer("image", image) | clip_fields(golden.config(eye), "image")
    tower = clip.ClipImage(**fields)
    pixels = jnp.asarray(case.inputs["in_pixel_values"]).transpose(0, 2, 3, 1)
    patches = (pixels.shape[1] // tower.patch) ** 2
    sizes = clip_t5_names.infer("t5", golden.weights(t5)) | {"patches": patches}
    reader = clip_t5.FlanT5(**sizes)
    module = clip_t5.ClipT5(tower, reader)
    parts = {
        "eye": convert_net(golden, eye, clip_names.TABLES["image"], tower, keep=keep)["params"],
        "t5": convert_net(golden, t5, clip_t5_names.T5, reader)["params"],
    }
    words = [jnp.asarray(case.inputs[f"in_{k}"]) for k in ("before", "after", "mask", "answer")]

    def run(params):
        seen = tower.apply({"params": params["eye"]}, pixels, method="stages")["blocks"][-2][:, 1:]
        stages = reader.apply({"params": params["t5"]}, seen, *words, method="stages")
        return seen, stages, module.apply({"params": params}, pixels, *words)

    seen, stages, score = compiled(run)(parts)
    mask = jnp.pad(words[2], ((0, 0), (stages["encoded"].shape[1] - words[2].shape[1], 0)), "edge")
    mask = mask.at[:, : -words[2].shape[1]].set(True)
    return {
        "out_patches": seen,
        "out_encoded": stages["encoded"] * mask[..., None],
        "out_logits": stages["logits"],
        "out_score": score,
    }


CASES: dict[str, Callable] = {"likelihood": likelihood}
