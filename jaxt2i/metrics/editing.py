"""How well edited pictures keep to their sources and to what was asked."""

import numpy as np

from jaxt2i.metrics.retrieval import cosines
from jaxt2i.metrics.score import check_pairs, unit_rows

# Of pictures that are equal, decibels.
EQUAL = 100.0


def outside(source: np.ndarray, edit: np.ndarray, region: np.ndarray) -> np.ndarray:
    """The edit with its source's own pixels inside the region: what differs is outside.

    Args:
      source: uint8 [H, W, 3].
      edit: uint8 [H, W, 3].
      region: bool [H, W], where the edit was to act.
    """
    return np.where(region[..., None], source, edit)


def psnr(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    """Peak signal-to-noise ratio in decibels over some pixels, `EQUAL` at most; nan over none.

    Args:
      a: uint8 [H, W, 3].
      b: the other picture.
      where: bool [H, W].
    """
    if not where.any():
        return float("nan")
    error = np.square(a[where].astype(np.float64) - b[where].astype(np.float64)).mean()
    return EQUAL if error == 0 else min(EQUAL, float(10 * np.log10(255**2 / error)))


def directions(
    source: np.ndarray, edit: np.ndarray, before: np.ndarray, after: np.ndarray
) -> np.ndarray:
    """Cosines [N] between what changed in the pictures and what changed in their captions.

    All vectors are CLIP's, scaled to length 1 first.

    Args:
      source: [N, D], of the source pictures.
      edit: [N, D], of the edited ones.
      before: [N, D], of the sources' captions.
      after: [N, D], of the captions that were asked for.

    Returns:
      [N] float64; nan where pictures or captions are the same.

    Source: Gal et al. 2022 (StyleGAN-NADA, arXiv 2108.00946), section 3.3.
    """
    check_pairs(source, before, "pictures and captions")
    pairs = (unit_rows(x, "CLIP's features") for x in (source, edit, before, after))
    source, edit, before, after = pairs
    shown, said = edit - source, after - before
    moved = (np.linalg.norm(shown, axis=1) > 0) & (np.linalg.norm(said, axis=1) > 0)
    out = np.full(len(shown), np.nan)
    if moved.any():
        out[moved] = cosines(shown[moved], said[moved])
    return out
