"""Initial variables of a system's networks."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def initialise(
    nets: Mapping[str, nn.Module],
    key: jax.Array,
    *,
    inputs: Mapping[str, Any] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Random variables of every network, each from a key of its own.

    Args:
      nets: {name: network}.
      key: split over the sorted names.
      inputs: {name: shapes of what the network is called with, a tuple of trees}; of the others
        `network.example()` says it.
      options: {name: keywords that it is called with}.

    Returns:
      {name: variables}.
    """
    inputs, options = inputs or {}, options or {}
    keys = dict(zip(sorted(nets), jax.random.split(key, len(nets)), strict=True))

    def one(name: str, net: nn.Module) -> Any:
        shapes = inputs[name] if name in inputs else net.example()
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tuple(shapes))
        return net.init(keys[name], *zeros, **options.get(name, {}))

    return {name: one(name, net) for name, net in nets.items()}
