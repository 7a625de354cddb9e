"""A feature network that compiles in a second, and a protocol that measures with it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxt2i.data.synthetic import Synthetic
from jaxt2i.encoders import features
from jaxt2i.metrics import protocols


class Eye(nn.Module):
    """Pictures to three vectors, as Inception gives them."""

    def example(self):
        return (jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32),)

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(16, (3, 3), (2, 2))(x))
        x = nn.relu(nn.Conv(12, (3, 3), (2, 2))(x)).mean((1, 2))
        logits = nn.Dense(5, use_bias=False)(x)
        return {"2048": x, "logits": logits + 1, "logits_unbiased": logits}


def tiny_network():
    """The network, with one way to be fed."""
    return {"features": features.Net(Eye(), (), {"plain": lambda x: x / jnp.float32(127.5) - 1})}


def use(monkeypatch):
    """Makes the network and the protocol known for a test."""
    name = "inception_small"
    monkeypatch.setitem(features.NETWORKS, name, tiny_network)
    samples = protocols.Samples("blooms", "val", 16, 64, "distinct")
    small = protocols.Protocol(
        "small",
        samples,
        protocols.Fid(name, "plain"),
        protocols.Inception(name, "plain", splits=4),
        protocols.Kid(name, "plain", subsets=10, size=20),
        balls=protocols.Balls(name, "plain"),
    )
    monkeypatch.setitem(protocols.PROTOCOLS, "small", small)
    return small


WEIGHTS = ("--weights", "inception_small=random")


def pictures(folder, count=48, start=0, size=16, captions=True):
    """A folder of procedural pictures."""
    folder.mkdir(parents=True)
    source = Synthetic("blooms", size)
    for i in range(count):
        file = folder / f"{i:03d}.png"
        Image.fromarray(np.asarray(source.example(start + i)["image"])).save(file)
        if captions:
            file.with_suffix(".txt").write_text(source.captions(start + i)[0] + "\n")
    return folder
