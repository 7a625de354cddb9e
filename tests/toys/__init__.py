"""Three toy systems written only against the interface."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxt2i.configs import common
from jaxt2i.encoders.text import Text


class Words(nn.Module):
    """Token embeddings and their mean."""

    vocab: int = 512
    width: int = 16

    @nn.compact
    def __call__(self, tokens, mask):
        words = nn.Embed(self.vocab, self.width)(tokens % self.vocab)
        share = mask[..., None] / jnp.maximum(mask.sum(-1)[:, None, None], 1)
        return Text(nn.Dense(self.width)((words * share).sum(1)), words, mask)


def initialise(nets, inputs):
    def init(key, batch):
        keys = dict(zip(sorted(nets), jax.random.split(key, len(nets)), strict=True))
        return {n: nets[n].init(keys[n], *inputs(batch)[n]) for n in nets}

    return init


def config(method: str, **data):
    c = common.base()
    c.method, c.batch_size, c.total_steps = f"tests.toys.{method}", 8, 2
    c.log_every_steps = c.sample_every_steps = c.checkpoint_every_steps = 1
    c.score_images, c.grid.count = 0, 3
    c.data.update(corpus="scenes", tokenizer="mini", tokens=32, resolution=16, objects=5, **data)
    c.model = common.ConfigDict({})
    c.optim = common.ConfigDict({})
    return c


def adam():
    return optax.adam(1e-3)
