"""DM-GAN against its official code's numbers; AttnGAN's runners on its networks."""

import functools
from collections.abc import Callable

import jax
import numpy as np

from jaxt2i.systems.attngan import goldens as attngan
from jaxt2i.systems.dm_gan import method as dm_gan
from jaxt2i.systems.dm_gan import names as tables
from jaxt2i.systems.stylegan_t.goldens_ops import Arrays, nchw


def active(x: jax.Array) -> np.ndarray:
    """Behind its ReLU, words on the last axis."""
    return nchw(jax.nn.relu(x))


def same(x: jax.Array) -> np.ndarray:
    """As it is."""
    return np.asarray(x)


FAMILY = attngan.Family(
    tables,
    dm_gan.Generator,
    "spectral",
    {
        "A": ("stage@/gate_words", "__call__", same),
        "B": ("stage@/gate_image", "__call__", same),
        "M_w": ("stage@/write_words", "__call__", active),
        "M_r": ("stage@", "kept", nchw),
        "memory": ("stage@", "memory", nchw),
        "key": ("stage@/key", "__call__", active),
        "value": ("stage@/value", "__call__", active),
        "memory_out": ("stage@", "read", nchw),
        "response_gate": ("stage@/respond", "__call__", lambda x: nchw(jax.nn.sigmoid(x))),
    },
)
CASES: dict[str, Callable[..., Arrays]] = {
    name: functools.partial(run, family=FAMILY)
    for name, run in attngan.CASES.items()
    if name not in ("text_cases", "data_pyramid")
}
