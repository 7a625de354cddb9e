"""Scores and their preprocessing against the numbers of the published evaluation code."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jaxt2i.encoders import clip
from jaxt2i.metrics import frechet, kernel, manifold, retrieval, statistics
from jaxt2i.metrics.inception_score import inception_score
from jaxt2i.nn import pixels, resample
from jaxt2i.systems.galip.method import clip_input
from jaxt2i.verify.arrays import Arrays, nhwc, strided
from jaxt2i.verify.compute import compiled

SERVES = ("metrics/*",)


def inception(golden, case) -> Arrays:
    """Ten splits in the order of the file and shuffled, and one."""
    logits = case.inputs["in_logits"]
    found = {
        "plain": inception_score(logits),
        "shuffled": inception_score(logits, order="shuffled", seed=2020),
        "one_split": inception_score(logits, splits=1),
    }
    return {f"out_{k}_f64": np.array([s.value, s.spread]) for k, s in found.items()}


def fid(golden, case) -> Arrays:
    """Three implementations of one distance, from moments that were taken in batches."""
    sets = (case.inputs["in_features_1"], case.inputs["in_features_2"])
    fake, real = (statistics.gaussian(in_batches(x)) for x in sets)
    usual, biased = (frechet.fid(real, fake, ddof=d).value for d in (1, 0))
    return {
        "out_mu_1_f64": fake.mean,
        "out_sigma_1_f64": fake.covariance,
        "out_fid_torchfidelity_f64": usual,
        "out_fid_pytorchfid_f64": usual,
        "out_fid_stylegan_f64": biased,
    }


def in_batches(x: np.ndarray, size: int = 7) -> statistics.Moments:
    """Moments of rows, a few at a time."""
    total = statistics.nothing(x.shape[1])
    for at in range(0, len(x), size):
        total = statistics.merge(total, statistics.of_rows(x[at : at + size]))
    return total


def kid(golden, case) -> Arrays:
    """The subsets that were drawn, and two kernels on them."""
    x, y = (case.inputs[f"in_features_{i}"].astype(np.float64) for i in (1, 2))
    subsets, size = case.inputs["in_subset_1"].shape
    drawn = kernel.draw_subsets(len(x), len(y), subsets, size, seed=2020)
    for i, pair in enumerate(drawn):
        for which, rows in zip((1, 2), pair, strict=True):
            if not np.array_equal(rows, case.inputs[f"in_subset_{which}"][i]):
                raise ValueError(f"subset {i} of set {which} was drawn otherwise")
    whole = kernel.kid(x, y, subsets=subsets, size=size, seed=2020)
    parts = {
        name: np.array([kernel.mmd2_unbiased(x[a], y[b], of) for a, b in drawn])
        for name, of in (("", kernel.polynomial), ("rbf_", kernel.gaussian_rbf(10.0)))
    }
    return {
        "out_kid_f64": np.array([whole.value, whole.spread]),
        "out_kid_cleanfid_f64": whole.value,
        **{f"out_{name}per_subset_f64": x for name, x in parts.items()},
    }


def precision_recall(golden, case) -> Arrays:
    """Balls of 3 and 5 neighbours, closed, open, and rounded to half precision."""
    fake, real = case.inputs["in_features_generated"], case.inputs["in_features_real"]

    def found(names: str, k: int, **kw) -> np.ndarray:
        # Small blocks, so that several take part.
        scores = manifold.scores(manifold.manifold(fake, real, k=k, block=48, **kw), k)
        return np.array([scores[name].value for name in names.split()])

    three, four = "precision recall f_score", "precision recall density coverage"
    return {
        "out_torchfidelity_k3_f64": found(three, 3),
        "out_torchfidelity_k5_f64": found(three, 5),
        "out_prdc_k3_f64": found(four, 3, closed=False),
        "out_prdc_k5_f64": found(four, 5, closed=False),
        "out_stylegan_k3_f64": found("precision recall", 3, half=True),
    }


def cmmd(golden, case) -> Arrays:
    """The kernel distance of unit vectors; the published one is what float32 leaves of it."""
    value = kernel.cmmd(case.inputs["in_x"], case.inputs["in_y"]).value
    return {"out_cmmd_f64": value, "out_cmmd_float32": value}


def r_precision(golden, case) -> Arrays:
    """One caption among 19 others."""
    image, text = case.inputs["in_image_codes"], case.inputs["in_text_codes"]
    others = case.inputs["in_mismatch_index"]
    hit = retrieval.hits(image, text, others)
    return {
        "out_cosine": retrieval.own_among(jnp.asarray(image), jnp.asarray(text), text[others]),
        "out_hit": hit.astype(np.float32),
        "out_r_precision": hit.mean(),
    }


def clip_score(golden, case) -> Arrays:
    """Three scales of one cosine."""
    pair = case.inputs["in_image_features"], case.inputs["in_text_features"]
    names = {"mean_cosine": "cosine", "mean_100_clipped": "percent", "clipscore_w25": "clipscore"}
    found = {f"out_{k}": retrieval.clip_score(*pair, scale=s).value for k, s in names.items()}
    return found | {"out_cosine": retrieval.cosines(*pair)}


def clip_preprocess(golden, case) -> Arrays:
    """What CLIP is shown by GALIP's and by StyleGAN-T's evaluation."""

    @compiled
    def run(pixels):
        image = nhwc(pixels).astype(jnp.float32) / 127.5 - 1
        matrix = resample.bicubic_matrix(224, image.shape[1])
        cubic = clip.normalize_image(resample.apply_matrices(image, matrix, matrix))
        return {"galip": clip_input(image, 224, "galip"), "stylegan_t": cubic}

    return {f"out_{k}": strided(x, 1, 5) for k, x in run(case.inputs["in_images"]).items()}


def to_uint8(golden, case) -> Arrays:
    """Three ways to round."""
    names = {"attngan": "floor", "stylegan": "stylegan", "save_image": "save_image"}

    @compiled
    def run(x):
        return {f"out_{k}": pixels.to_pixels(x, rule) for k, rule in names.items()}

    out = run(case.inputs["in_x"])
    # The first rule is defined inside [-1, 1] only, and was asked for no more.
    inside = np.abs(case.inputs["in_x"]) <= 1
    return out | {"out_attngan": np.asarray(out["out_attngan"])[inside]}


CASES: dict[str, Callable[..., Arrays]] = {
    "inception_score": inception,
    "fid*": fid,
    "kid": kid,
    "precision_recall": precision_recall,
    "cmmd": cmmd,
    "r_precision": r_precision,
    "clip_score": clip_score,
    "clip_preprocess": clip_preprocess,
    "to_uint8": to_uint8,
}
