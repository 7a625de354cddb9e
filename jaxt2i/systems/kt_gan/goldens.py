"""KT-GAN's formulas against worked examples; there is no official code.

Axes are [D, N] and [D, T] there, channels last here.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jaxt2i.encoders.text import Text
from jaxt2i.nn.stages import read_words
from jaxt2i.systems.kt_gan import method as kt_gan
from jaxt2i.verify.compute import compiled

SERVES = ("kt_gan/*",)


def transfer(item: dict) -> dict:
    """Alternate attention transfer and the attention that reads by it, from the uniform start."""
    rounds = item["in_K"]

    @compiled
    def run(regions, words, mask, gammas):
        found = kt_gan.alternate(regions, words, mask, rounds)
        h = kt_gan.weighted(regions, found.regions[-1], regions.shape[1], gammas[0])
        e = kt_gan.weighted(words, found.words[-1], mask.sum(-1, keepdims=True), gammas[1])
        e = jnp.where(mask[..., None], e, 0)
        # One row of regions is a picture, too.
        context, attention = read_words(h[:, None], e, e, mask, "own")
        return {
            "out_word_weights_per_iteration": jnp.stack(found.words)[:, 0],
            "out_region_weights_per_iteration": jnp.stack(found.regions)[:, 0],
            "out_words": e[0].T,
            "out_regions": h[0].T,
            "out_attention_NxT": attention[0, :, 0].T,
            "out_context_DxN": context[0, 0].T,
        }

    regions, words = (
        jnp.asarray(item[f"in_{k}"], jnp.float32).T[None] for k in ("regions_DxN", "words_DxT")
    )
    mask = jnp.asarray(item["in_mask"])[None] > 0
    return run(regions, words, mask, jnp.asarray([item["in_gamma_h"], item["in_gamma_e"]]))


def distillation(item: dict) -> dict:
    """Semantic distillation of sentences and words."""
    regions, words = (
        jnp.moveaxis(jnp.asarray(item[f"in_{k}"], jnp.float32), 1, 2)
        for k in ("image_regions_BxDxN", "words_BxDxT")
    )
    lengths = item["in_lengths"]
    mask = jnp.arange(words.shape[1]) < jnp.asarray(lengths)[:, None]

    @compiled
    def run(sentence, words, regions, code):
        text = Text(sentence, words, mask)
        return kt_gan.distillation(text, regions, code, item["in_gamma1"])

    given = (jnp.asarray(item[f"in_{k}"], jnp.float32) for k in ("sentence", "image_global"))
    sentence, code = given
    by_sentence, by_word, target = run(sentence, words, regions, code)
    found = [np.asarray(x)[:n].T for x, n in zip(target, lengths, strict=True)]
    return {
        "out_L_sentence": by_sentence,
        "out_word_contexts": [x.tolist() for x in found],
        "out_L_word": by_word,
        "out_L_sdm": by_sentence + by_word,
    }


def cases(golden, case) -> dict:
    """Every worked example."""
    made = []
    for item in case.data["cases"]:
        out = (distillation if item["name"].startswith("sdm") else transfer)(item)
        plain = {k: x if isinstance(x, list) else np.asarray(x).tolist() for k, x in out.items()}
        made.append(item | plain)
    return {"*": {**case.data, "cases": made}}


CASES: dict[str, Callable[..., dict]] = {"cases*": cases}
