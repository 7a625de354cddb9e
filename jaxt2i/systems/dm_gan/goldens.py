"""DM-GAN against its official code's numbers."""

from collections.abc import Callable

import jax
import numpy as np

from jaxt2i.systems.attngan import method as attngan
from jaxt2i.systems.dm_gan import method as dm_gan
from jaxt2i.systems.dm_gan import names as tables
from jaxt2i.verify.arrays import Arrays, nchw
from jaxt2i.verify.staged import SIZES, Family

SERVES = ("dm_gan/*",)


def active(x: jax.Array) -> np.ndarray:
    """Behind its ReLU, words on the last axis."""
    return np.maximum(nchw(x), 0)


def gate(x: jax.Array) -> np.ndarray:
    """Behind its sigmoid."""
    return 1 / (1 + np.exp(-nchw(x)))


class GivenGame(attngan.Losses):
    """The method's own game on given pictures."""

    def reals(self, batch) -> tuple[jax.Array, ...]:
        """The given pictures."""
        return tuple(batch[f"real{size}"] for size in SIZES)


FAMILY = Family(
    tables=tables,
    generator=dm_gan.Generator,
    critic=attngan.Critic,
    game=GivenGame(attngan.Model(), 256),
    kind="spectral",
    inner={
        "A": ("stage@/gate_words", "__call__", np.asarray),
        "B": ("stage@/gate_image", "__call__", np.asarray),
        "M_w": ("stage@/write_words", "__call__", active),
        "M_r": ("stage@", "kept", nchw),
        "memory": ("stage@", "memory", nchw),
        "key": ("stage@/key", "__call__", active),
        "value": ("stage@/value", "__call__", active),
        "memory_out": ("stage@", "read", nchw),
        "response_gate": ("stage@/respond", "__call__", gate),
    },
)
CASES: dict[str, Callable[..., Arrays]] = FAMILY.cases()
