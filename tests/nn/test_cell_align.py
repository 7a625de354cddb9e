"""RoIAlign with points inside of its cells, against a plain loop over the points."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.nn.roi_align import cell_align


def read(x, at_y, at_x):
    """One bilinear reading of [H, W, C] at pixel centres, held inside."""
    h, w, _ = x.shape
    at_y, at_x = np.clip(at_y, 0, h - 1), np.clip(at_x, 0, w - 1)
    y, x0 = min(int(at_y), h - 2), min(int(at_x), w - 2)
    dy, dx = at_y - y, at_x - x0
    top = (1 - dx) * x[y, x0] + dx * x[y, x0 + 1]
    return (1 - dy) * top + dy * ((1 - dx) * x[y + 1, x0] + dx * x[y + 1, x0 + 1])


def test_cells_are_means_of_readings():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 7, 3)).astype(np.float32)
    boxes = np.array([[[0, 0, 1, 1], [0.3, 0.5, 0.2, 0.45]], [[0.9, 0.0, 0.1, 0.2], [0] * 4]])
    got = np.asarray(jax.jit(lambda *a: cell_align(*a, size=3))(x, jnp.asarray(boxes)))
    for b, n in np.ndindex(2, 2):
        left, top, width, height = boxes[b, n]
        for i, j in np.ndindex(3, 3):
            points = [
                read(
                    x[b],
                    (top + (i + dy) / 3 * height) * 5 - 0.5,
                    (left + (j + dx) / 3 * width) * 7 - 0.5,
                )
                for dy in (0.25, 0.75)
                for dx in (0.25, 0.75)
            ]
            np.testing.assert_allclose(got[b, n, i, j], np.mean(points, 0), atol=1e-5)
