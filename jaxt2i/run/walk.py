"""Between two pictures: mixing their text, turning from one latent to another; latents of files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxt2i.config import ConfigError
from jaxt2i.engine.method import Tree


def slerp(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """Spherical interpolation of latents: Gaussian ones lie near a sphere, which a line leaves.

    Args:
      a: float array of any shape, seen as one vector.
      b: another of this shape.
      share: 0 gives a and 1 gives b, to the bit.
    """
    share = np.float32(share)
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    angle = np.arccos(np.clip((a * b).sum() / np.maximum(norms, 1e-12), -1, 1))
    sine = np.sin(angle)
    if sine < 1e-4:  # on a straight line the sphere gives no direction
        return ((1 - share) * a + share * b).astype(a.dtype)
    if share in (0, 1):
        return b if share else a
    return (np.sin((1 - share) * angle) / sine * a + np.sin(share * angle) / sine * b).astype(
        a.dtype
    )


def between(a: Tree, b: Tree, share: float) -> Tree:
    """Two trees mixed on a straight line; what is no float, such as a mask, is the nearer one's."""
    share = np.float32(share)

    def mixed(x, y):
        if share in (0, 1) or x.dtype.kind != "f":
            return y if share >= 0.5 else x
        return ((1 - share) * x + share * y).astype(x.dtype)

    return jax.tree.map(mixed, a, b)


def latent(given: Any, root: Path, make: Callable[[jax.Array], Tree] | None) -> np.ndarray:
    """A latent that a row brings: an array, numbers, or the name of an .npy file.

    Args:
      given: what the row says.
      root: where its files lie.
      make: key -> latent, of the sampler.

    Raises:
      ConfigError: where the method has no latent, or this is none of its.
    """
    said = f"z {given}" if isinstance(given, str) else "z"
    if make is None:
        raise ConfigError(f"{said}: the method has no latent")
    want = jax.eval_shape(make, jax.random.key(0))
    try:
        z = np.load(root / given, allow_pickle=False) if isinstance(given, str) else given
        z = np.asarray(z, np.float32)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{said}: not a readable latent ({error})") from None
    if z.shape != getattr(want, "shape", None):
        raise ConfigError(f"{said}: shape {list(z.shape)}, expected {list(want.shape)}")
    if not np.isfinite(z).all():
        raise ConfigError(f"{said}: holds values that are not finite")
    return z
