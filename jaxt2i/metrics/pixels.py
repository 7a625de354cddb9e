"""Numbers of pictures that no network takes part in, so that none which trains can flatter them.

All compare drawn pictures with real ones of the same kind. They say nothing of captions, and
little of shapes: a bad number is a bad sign, a good one no proof.
"""

import numpy as np

# Bins of a colour channel; the histogram has the cube of it.
BINS = 8
# Values of 255 this close to an end count as saturated.
EDGE = 1
# Weakest power that counts, of pictures in [0, 1].
FLOOR = 1e-7


def saturated(images: np.ndarray) -> float:
    """Share of values at the ends of their range: 0 to 1, or 254 to 255.

    Args:
      images: uint8 [N, H, W, 3].
    """
    return float(np.mean((images <= EDGE) | (images >= 255 - EDGE)))


def colours(images: np.ndarray) -> np.ndarray:
    """Shares [BINS ** 3] of all pixels by colour.

    Args:
      images: uint8 [N, H, W, 3].
    """
    cell = (images.astype(np.int64) * BINS) // 256
    flat = (cell[..., 0] * BINS + cell[..., 1]) * BINS + cell[..., 2]
    return np.bincount(flat.ravel(), minlength=BINS**3) / max(flat.size, 1)


def colour_distance(drawn: np.ndarray, real: np.ndarray) -> float:
    """Total variation between two histograms of `colours`: 0 equal, 1 nothing in common."""
    return float(np.abs(drawn - real).sum() / 2)


def spectrum(images: np.ndarray) -> np.ndarray:
    """log10 of the mean power by frequency, from one wave a picture to the finest.

    Args:
      images: uint8 [N, H, W, 3].

    Returns:
      [min(H, W) / 2].
    """
    grey = images.astype(np.float64).mean(-1) / 255
    grey -= grey.mean((1, 2), keepdims=True)
    power = np.abs(np.fft.fft2(grey)) ** 2 / grey[0].size
    height, width = grey.shape[1:]
    ring = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    last = min(height, width) // 2
    ring = np.rint(ring * min(height, width)).astype(int)
    mean = power.mean(0)
    return np.log10([max(mean[ring == r].mean(), FLOOR) for r in range(1, last + 1)])


def spectrum_distance(drawn: np.ndarray, real: np.ndarray) -> float:
    """Mean difference of two `spectrum`s, in powers of ten."""
    return float(np.abs(drawn - real).mean())


def spread(images: np.ndarray) -> float:
    """How much pictures differ from one another: standard deviation over them, of 255, by pixel."""
    return float(images.astype(np.float64).std(0).mean())


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference of pictures in pairs, of 255."""
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).mean())
