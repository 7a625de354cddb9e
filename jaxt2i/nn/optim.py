"""Optimisers as the papers state them, and updates of parameters."""

import dataclasses
import math
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

Tree = Any


def path_name(path: tuple) -> str:
    """A tree path as text: "params/g/synthesis/b8/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def half_life(beta: float, batch_size: int) -> float:
    """In images, of a running average whose old value weighs `beta` at every step."""
    return -batch_size / math.log2(beta)


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam's settings.

    Attributes:
      lr: learning rate.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      warmup_steps: linear warm-up from zero.
      decay_steps: cosine decay to zero over this many steps; 0 = constant.
      weight_decay: decoupled weight decay (AdamW).
      decay_all: False: only arrays of two and more axes decay, so no bias, norm or scalar.
      zero_nonfinite: gradients' nan becomes 0 and infinities +-1e5 before Adam sees them.
    """

    lr: float = 2e-3
    b1: float = 0.0
    b2: float = 0.99
    eps: float = 1e-8
    warmup_steps: int = 0
    decay_steps: int = 0
    weight_decay: float = 0.0
    decay_all: bool = True
    zero_nonfinite: bool = False

    def tx(self) -> optax.GradientTransformation:
        """The optax transformation."""
        lr = self.lr
        if self.decay_steps:
            lr = optax.warmup_cosine_decay_schedule(0.0, lr, self.warmup_steps, self.decay_steps)
        elif self.warmup_steps:
            lr = optax.linear_schedule(0.0, lr, self.warmup_steps)
        parts = [replace_nonfinite()] if self.zero_nonfinite else []
        parts.append(optax.scale_by_adam(self.b1, self.b2, self.eps))
        if self.weight_decay:
            matrices = None if self.decay_all else has_axes
            parts.append(optax.add_decayed_weights(self.weight_decay, matrices))
        parts.append(optax.scale_by_learning_rate(lr))
        return optax.chain(*parts)


def has_axes(params: optax.Params) -> optax.Params:
    """True for arrays of two and more axes: kernels and tables."""
    return jax.tree.map(lambda x: x.ndim > 1, params)


def replace_nonfinite(limit: float = 1e5) -> optax.GradientTransformation:
    """Nan -> 0, +-inf -> +-limit, as the StyleGAN trainers treat gradients."""
    return optax.stateless(
        lambda updates, params: jax.tree.map(
            lambda g: jnp.nan_to_num(g, nan=0.0, posinf=limit, neginf=-limit), updates
        )
    )


def stochastic_round(key: jax.Array, x: jax.Array) -> jax.Array:
    """Rounds float32 to a bfloat16 next to it, up or down so often that the mean is x.

    A bfloat16 is the upper half of a float32: random bits below carry into it with just that
    probability. What is representable stays; so do infinities and nan.

    Args:
      key: a random key; the draw of an element does not depend on the sharding.
      x: float32.

    Source: Gupta et al. 2015, "Deep Learning with Limited Numerical Precision" (arXiv 1502.02551),
    section 2.
    """
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + noise
    upper = jax.lax.bitcast_convert_type(bits & jnp.uint32(0xFFFF0000), jnp.float32)
    return jnp.where(jnp.isfinite(x), upper, x).astype(jnp.bfloat16)


def apply_updates(params: Tree, updates: Tree, key: jax.Array, name: str) -> Tree:
    """Parameters plus updates; sums that are kept in bfloat16 are rounded stochastically.

    To the nearest, an update below 1/512 of its parameter would be lost every time.

    Args:
      params: float32 or bfloat16.
      updates: float32.
      key: a random key, which others may draw from under other names.
      name: with an array's path it names the draw.
    """

    def one(path, p: jax.Array, u: jax.Array) -> jax.Array:
        total = p.astype(jnp.float32) + u
        if p.dtype != jnp.bfloat16:
            return total.astype(p.dtype)
        own = zlib.crc32(f"rounding/{name}/{path_name(path)}".encode())
        return stochastic_round(jax.random.fold_in(key, own), total)

    return jax.tree_util.tree_map_with_path(one, params, updates)


def only(
    tx: optax.GradientTransformation, trainable: Callable[[str], bool]
) -> optax.GradientTransformation:
    """Trains the parameters whose path ("g/synthesis/...") is `trainable`, keeps the rest."""

    def labels(tree):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "train" if trainable(path_name(path)) else "keep", tree
        )

    return optax.partition({"train": tx, "keep": optax.set_to_zero()}, labels)


def restarted(tx: optax.GradientTransformation, every: int) -> optax.GradientTransformation:
    """Forgets what `tx` remembers once in `every` updates, as a new optimiser an epoch does."""

    def init(params):
        return jnp.zeros((), jnp.int32), tx.init(params)

    def update(updates, state, params=None):
        count, inner = state
        fresh = tx.init(params)
        inner = jax.tree.map(lambda new, old: jnp.where(count % every == 0, new, old), fresh, inner)
        updates, inner = tx.update(updates, inner, params)
        return updates, (count + 1, inner)

    return optax.GradientTransformation(init, update)
