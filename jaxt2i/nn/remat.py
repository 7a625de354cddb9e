"""Blocks whose insides are computed again in the backward pass instead of being kept."""

from collections.abc import Callable

import flax.linen as nn
import jax

# One of jax.checkpoint_policies, or None: keep everything.
Policy = Callable[..., bool] | None
# What a block of a network keeps for the backward pass; the rest is computed again.
POLICIES = {
    # nothing: its inputs are enough
    "full": jax.checkpoint_policies.nothing_saveable,
    # results of convolutions and matrix products: what is cheap is computed again
    "products": jax.checkpoint_policies.dots_saveable,
    # of matrix products without a batch axis alone: of dense layers, not of attention
    "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def recomputed(policy: Policy, block: nn.Module, *args, **settings) -> jax.Array:
    """What block(*args, **settings) gives; gradients then recompute what `policy` does not keep.

    A network is wrapped block by block: as a whole it would need all its activations at once when
    they are computed again. Parameters, collections and random draws are the block's own, so that
    nothing but memory and time changes.

    XLA's CPU compiler alone merges what is computed twice and keeps it after all, unless it is run
    without its pass "cse_barrier_expander".

    Args:
      policy: which results inside the block are kept for the backward pass; None: all.
      block: a submodule of the calling module.
      args: arrays.
      settings: what is no array, such as train=True.
    """
    if policy is None:
        return block(*args, **settings)
    call = nn.remat(lambda inner, *args: inner(*args, **settings), policy=policy)
    return call(block, *args)
