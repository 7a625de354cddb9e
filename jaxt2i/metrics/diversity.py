"""How different the images of one caption are."""

from collections.abc import Callable

import jax
import numpy as np

from jaxt2i.metrics.score import CountError, FeatureError, Score

Distance = Callable[[np.ndarray, np.ndarray], jax.Array | np.ndarray]


def pairs(samples: int, most: int = 0, seed: int = 0) -> np.ndarray:
    """Pairs (i, j), i < j, of the samples of one caption.

    Args:
      samples: of one caption.
      most: pairs that are used, drawn without replacement; 0 for all samples (samples - 1) / 2.
      seed: of the draw.

    Returns:
      int64 [P, 2].

    Raises:
      CountError: for fewer than two samples.
    """
    if samples < 2:
        raise CountError(f"{samples} samples of a caption make no pair; draw two or more")
    every = np.stack(np.triu_indices(samples, 1), 1)
    if not most or most >= len(every):
        return every
    chosen = np.random.default_rng(seed).choice(len(every), most, replace=False)
    return every[np.sort(chosen)]


def by_caption(
    images: np.ndarray, distance: Distance, *, most: int = 0, seed: int = 0, batch: int = 32
) -> np.ndarray:
    """The mean distance [C] between samples of every caption.

    Args:
      images: [C, S, ...], S samples of C captions, as `distance` takes them; may be memory mapped.
      distance: ([B, ...], [B, ...]) -> [B]; always called with B = batch, so that a jitted one
        compiles once.
      most: pairs of each caption; 0 for all.
      seed: of the pairs.
      batch: pairs at once.

    Raises:
      CountError: for fewer than two samples.
      FeatureError: where a distance is not finite.
    """
    captions, samples = images.shape[:2]
    found = [
        (caption, i, j)
        for caption in range(captions)
        for i, j in pairs(samples, most, seed + caption)
    ]
    values = []
    for at in range(0, len(found), batch):
        part = found[at : at + batch]
        filled = part + part[-1:] * (batch - len(part))
        a = np.stack([images[c, i] for c, i, _ in filled])
        b = np.stack([images[c, j] for c, _, j in filled])
        values.append(np.asarray(distance(a, b), np.float64)[: len(part)])
    table = np.concatenate(values).reshape(captions, -1)
    if not np.isfinite(table).all():
        which = int((~np.isfinite(table)).any(1).argmax())
        raise FeatureError(
            f"distances between samples of caption {which} are not finite; look at its images"
        )
    return table.mean(1)


def diversity(found: np.ndarray, samples: int, name: str = "diversity") -> Score:
    """The mean over captions.

    Args:
      found: [C], of `by_caption`; LPIPS (AlexNet) in published tables.
      samples: of each caption.
      name: of the score; "diversity" is that of LPIPS.

    Returns:
      The score; `spread` is the population standard deviation over captions.
    """
    return Score(
        name,
        float(np.mean(found)),
        float(np.std(found)),
        facts={"captions": len(found), "samples": samples},
    )


def turned(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 - cosine [B] of rows [B, D] of length 1: how far features point apart, 0 to 2."""
    return 1 - (a * b).sum(-1)
