"""The Inception Score, from a classifier's logits."""

import numpy as np

from jaxt2i.metrics.score import CountError, FeatureError, Score, check_features

ORDERS = ("file", "shuffled")


def unbiased_logits(features: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """What the score of COCO models is computed from: the head without its bias.

    Args:
      features: [N, D], the pooled features.
      kernel: [D, C], of the last layer.
    """
    return np.asarray(features, np.float64) @ np.asarray(kernel, np.float64)


def log_softmax(logits: np.ndarray, first: int = 0) -> np.ndarray:
    """Logarithms of class probabilities, float64.

    Args:
      logits: [N, C].
      first: classes before this one are left out; 1 drops the background of classifiers that were
        fine-tuned with TF-slim (CUB, Oxford-102).
    """
    x = np.asarray(logits, np.float64)[:, first:]
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def split_score(log_p: np.ndarray) -> float:
    """The exponential of the mean divergence KL(p(y|x) || p(y)) of one split.

    Args:
      log_p: [N, C].
    """
    top = log_p.max(0)
    # Logarithms throughout: probabilities that underflow to 0 then contribute 0, not NaN.
    marginal = top + np.log(np.exp(log_p - top).mean(0))
    return float(np.exp((np.exp(log_p) * (log_p - marginal)).sum(1).mean()))


def bounds(count: int, splits: int = 10, split_size: int = 0) -> list[tuple[int, int]]:
    """(first, behind the last) row of every split.

    Args:
      count: rows.
      splits: of about equal size, split i from floor(i N / splits).
      split_size: if given, splits of this size instead, the last one shorter.
    """
    if split_size:
        return [(at, min(at + split_size, count)) for at in range(0, count, split_size)]
    return [(i * count // splits, (i + 1) * count // splits) for i in range(splits)]


def inception_score(
    logits: np.ndarray,
    *,
    splits: int = 10,
    split_size: int = 0,
    order: str = "file",
    seed: int = 2020,
    first: int = 0,
    whole_batches: int = 1,
) -> Score:
    """The mean over splits of exp(E_x KL(p(y|x) || p(y))).

    The order matters, because images that are written class by class share a split.

    Args:
      logits: [N, C], with the head's bias or without it, as the protocol says.
      splits: 10 in every published score.
      split_size: splits of this many images instead of `splits` of them; 5000 in ADM's code.
      order: "file", or "shuffled" by numpy's RandomState(seed) as torch-fidelity does.
      seed: of that shuffling.
      first: see `log_softmax`.
      whole_batches: in that order, images behind the last whole batch of this size are left out;
        64 in the scores of CUB and Oxford-102. A single batch that is not full is kept.

    Returns:
      Score "inception_score"; `spread` is the population standard deviation over splits.

    Raises:
      CountError: for fewer images than splits.
      FeatureError: for an unknown order, or logits that are not finite.

    Source: Salimans et al. 2016 (arXiv 1606.03498), section 4.
    """
    if order not in ORDERS:
        raise FeatureError(f"order={order!r}; known: {', '.join(ORDERS)}")
    logits = np.asarray(logits)
    check_features(logits, "logits of the generated images", 1 if split_size else splits)
    if logits.shape[1] - first < 2:
        raise CountError(
            f"{logits.shape[1]} classes, of which the first {first} are left out: at least two "
            "must remain"
        )
    count = len(logits)
    rows = np.random.RandomState(seed).permutation(count) if order == "shuffled" else slice(None)
    used = count // whole_batches * whole_batches or count
    log_p = log_softmax(logits[rows][:used], first)
    cut = bounds(used, splits, split_size)
    parts = np.array([split_score(log_p[start:stop]) for start, stop in cut])
    return Score(
        "inception_score",
        float(parts.mean()),
        float(parts.std()),
        facts={
            "generated": used,
            "classes": logits.shape[1] - first,
            "splits": len(cut),
            "order": order if order == "file" else f"shuffled by seed {seed}",
        },
    )
