"""Layouts and summaries of arrays that the golden files store: NCHW there, NHWC here."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

Arrays = dict[str, np.ndarray]


def nhwc(x: np.ndarray) -> jax.Array:
    """Channels from the second axis to the last."""
    return jnp.moveaxis(jnp.asarray(x), 1, -1)


def nchw(x: jax.Array) -> np.ndarray:
    """Channels from the last axis to the second."""
    return np.moveaxis(np.asarray(x), -1, 1)


def hwio(x: np.ndarray) -> jax.Array:
    """PyTorch's kernel layout [O, I, kh, kw] to [kh, kw, I, O]."""
    return jnp.transpose(jnp.asarray(x), (2, 3, 1, 0))


def strided(x: jax.Array, channels: int, pixels: int) -> np.ndarray:
    """[B, H, W, C] as [B, C, H, W], every channels-th channel of every pixels-th pixel."""
    return nchw(x)[:, ::channels, ::pixels, ::pixels]


def centred(x: np.ndarray) -> np.ndarray:
    """Eight rows and columns of [B, C, H, W], from the middle of each eighth."""
    step = max(1, x.shape[-1] // 8)
    return x[:, :, step // 2 :: step, step // 2 :: step]


def picture(image: np.ndarray, start: tuple[int, int], step: int) -> np.ndarray:
    """Every step-th pixel of [B, 3, H, W]."""
    return image[:, :, start[0] :: step, start[1] :: step]


def summary(name: str, x: np.ndarray) -> Arrays:
    """Mean and standard deviation of every example."""
    flat = np.asarray(x, np.float64).reshape(len(x), -1)
    return {f"{name}__mean": flat.mean(1), f"{name}__std": flat.std(1)}


def shown(name: str, x: jax.Array) -> Arrays:
    """An array with the mean and deviation of its examples."""
    return {f"out_{name}": np.asarray(x), **summary(f"out_{name}", np.asarray(x))}


def norm(x: jax.Array) -> float:
    """Norm of a whole array, summed in float64."""
    return float(np.linalg.norm(np.asarray(x, np.float64)))


def norms(arrays: Iterable[jax.Array]) -> np.ndarray:
    """One norm an array."""
    return np.array([norm(x) for x in arrays])


def joint_norms(x: jax.Array) -> np.ndarray:
    """Each example's norm over one array."""
    return np.linalg.norm(np.asarray(x, np.float64).reshape(len(x), -1), axis=1)
