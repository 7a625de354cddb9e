"""Edges against what OpenCV 5.0 found (`cv2.Canny` of RGB or grey pictures)."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.config import ConfigError
from jaxt2i.nn import edges

STORED = np.load(Path(__file__).parents[1] / "goldens" / "canny.npz")
IMAGES = STORED["image"]


@pytest.mark.parametrize("name", [k for k in STORED.files if k != "image"])
def test_edges_are_opencvs_to_the_bit(name):
    sees, low, high = name.split("_")
    found = edges.canny(jnp.asarray(IMAGES), int(low), int(high), sees)
    want = np.unpackbits(STORED[name])[: found.size].reshape(found.shape) > 0
    assert want.any()
    np.testing.assert_array_equal(found, want)


def test_what_a_picture_shows_does_not_depend_on_its_neighbours():
    alone = [edges.canny(jnp.asarray(x[None]))[0] for x in IMAGES[-2:]]
    np.testing.assert_array_equal(alone, edges.canny(jnp.asarray(IMAGES))[-2:])


def test_an_unknown_way_to_look_is_refused():
    with pytest.raises(ConfigError, match="did you mean grey"):
        edges.canny(jnp.asarray(IMAGES), sees="gray")
