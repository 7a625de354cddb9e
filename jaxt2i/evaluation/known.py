"""A known picture, at which every network looks before it scores anything."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxt2i.metrics.score import FeatureError

PRECISION = "float32, products HIGHEST"
# How far features of a known picture may be apart, in parts of their peak.
AGREE = 1e-3


def picture(height: int, width: int) -> np.ndarray:
    """A known picture: waves of three colours, uint8 [H, W, 3]."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    across, down = x / width, y / height
    waves = (np.sin(9 * across), np.cos(7 * down), np.sin(12 * (across + down)))
    return np.uint8(np.round(127.5 * (1 + np.stack(waves, -1))))


def host() -> jax.Device | None:
    """The CPU as a device beside an accelerator; None: JAX_PLATFORMS leaves it out."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def inexact_products(text: str) -> int:
    """How many products and convolutions of a lowered program are not of float32, exactly."""
    lines = [x for x in text.splitlines() if "dot_general" in x or "stablehlo.convolution" in x]
    return sum("HIGHEST" not in x or "bf16" in x or "f16>" in x for x in lines)


def first(found: Any) -> tuple[str, np.ndarray]:
    """(name, the first array) of what a network gives."""
    if isinstance(found, dict):
        name = next(iter(found))
        return name, np.asarray(found[name])
    return "output", np.asarray(jax.tree.leaves(found)[0])


def check(network: str, program: Callable, variables: Any, given: Sequence[Any], split: Any) -> str:
    """Looks at a known picture, and says what was found.

    What the network gives must be finite, the same in the first and in the last row of a batch,
    another than that of a grey picture, and, on an accelerator, that of the CPU.

    Args:
      network: its name.
      program: compiled, (variables, *given) -> arrays [B, ...].
      variables: of the network.
      given: pictures [B, H, W, 3] in 0..255, and what else it is given: the first row of that is
        taken for all rows.
      split: where rows are placed.

    Returns:
      How far apart they were.

    Raises:
      FeatureError: where they are too far apart, or products are not exact.
    """
    like, *more = given
    pixels = np.full(like.shape, 128, like.dtype)
    pixels[[0, -1]] = picture(*like.shape[1:3])
    inputs = [pixels, *(np.repeat(np.asarray(x)[:1], len(pixels), 0) for x in more)]
    placed = [jax.device_put(x, split) for x in inputs]
    if inexact := inexact_products(program.lower(variables, *placed).as_text()):
        raise FeatureError(
            f"{network}: {inexact} of its products are not of float32 with the precision HIGHEST; "
            "scores would differ from published ones, please report this"
        )
    name, x = first(jax.device_get(program(variables, *placed)))
    peak = np.abs(x).max()
    if not np.isfinite(x).all() or not peak:
        raise FeatureError(f"{network}: a known picture gives {name} that is 0 or NaN")
    apart = np.abs(x[0] - x[-1]).max() / peak
    if len(x) > 2 and not np.abs(x[0] - x[1]).max() > 10 * apart * peak:
        raise FeatureError(f"{network}: a known picture and a grey one give the same {name}")
    said = f"rows of a batch agree to {apart:.0e}"
    if jax.default_backend() != "cpu" and (cpu := host()):
        its = jax.device_put((jax.device_get(variables), [x[:1] for x in inputs]), cpu)
        there = first(jax.jit(program.__wrapped__)(its[0], *its[1]))[1]
        away = float(np.abs(there[0] - x[0]).max() / peak)
        said += f", with the CPU to {away:.0e}"
        apart = max(apart, away)
    if apart > AGREE:
        raise FeatureError(
            f"{network}: a known picture gives other {name} here ({said}, expected {AGREE:g}); "
            "this backend computes wrongly: judge on another, such as JAX_PLATFORMS=cpu"
        )
    return said
