"""Softmax attention between many places, whose table of shares never lies in memory on a TPU.

Between 4,096 places, as Stable Diffusion's U-Net has at 512 pixels, the shares are most of what a
chip's memory moves. JAX's Pallas kernel goes through them block by block, in on-chip memory, as
cuDNN's does on GPUs. Where neither can be used (CPUs, float32, few places, rows that are split in
an unknown way), attention is XLA's. The Pallas kernel has been compiled for TPUs and computed in
interpretation, programs with cuDNN's have been lowered (tests/nn/test_flash.py); on an accelerator
neither is yet seen.
"""

import functools
import math
import sys

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from jaxt2i.nn.fastest import by_platform, rows_are_split

# Places from which on the kernel is used, and what its blocks may hold of them.
LEAST = 1024
BLOCKS = (512, 256)
# Lanes of a TPU: a head is no wider, or a multiple.
LANES = 128


def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """softmax(q k' / sqrt(D)) v, head by head.

    Args:
      q: [B, N, H, D].
      k: [B, T, H, D].
      v: [B, T, H, D].

    Returns:
      [B, N, H, D].
    """
    variants = {"plain": jax.nn.dot_product_attention}
    rows, block = rows_are_split(), block_of(q, k)
    if rows is not None and block and fits(q, rows):
        variants["flash"] = functools.partial(flash, rows=rows, block=block)
    if block and has_cudnn(q, k):
        variants["cudnn"] = cudnn
    return by_platform("attention", "auto", variants, q, k, v)


def cudnn(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """`attention` by cuDNN's kernel, which JAX splits over devices itself."""
    return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")


def has_cudnn(q: jax.Array, k: jax.Array) -> bool:
    """Whether this machine's GPUs have a kernel for such arrays, as JAX finds when it traces it."""
    if jax.default_backend() != "gpu":
        return False
    try:
        jax.eval_shape(cudnn, q, k, k)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        tell(str(error).partition("\n")[0])
        return False
    return True


@functools.cache
def tell(reason: str) -> None:
    """Says once why a GPU does without the kernel."""
    print(
        f"attention: without cuDNN's kernel ({reason}), by XLA's, which takes more memory",
        file=sys.stderr,
    )


def block_of(q: jax.Array, k: jax.Array) -> int:
    """Places of a block; 0: the kernel does not divide these, or is not worth it."""
    many = min(q.shape[1], k.shape[1]) >= LEAST
    return next((b for b in BLOCKS if many and not (q.shape[1] % b or k.shape[1] % b)), 0)


def fits(q: jax.Array, rows: NamedSharding) -> bool:
    """Whether the kernel takes such arrays, and every device whole rows of them."""
    names = rows.spec[0] if len(rows.spec) else ()
    parts = math.prod(rows.mesh.shape[n] for n in ([names] if isinstance(names, str) else names))
    head = q.shape[-1]
    wide = head <= LANES or head % LANES == 0
    return q.dtype == jnp.bfloat16 and wide and q.shape[0] % parts == 0


def flash(
    q: jax.Array, k: jax.Array, v: jax.Array, *, rows: NamedSharding, block: int
) -> jax.Array:
    """`attention` by the kernel, on each device for its rows."""
    found = functools.partial(kernel, block=block)
    if rows.mesh.size > 1:
        found = jax.shard_map(
            found, mesh=rows.mesh, in_specs=rows.spec, out_specs=rows.spec, check_vma=False
        )
    return found(q, k, v)


def kernel(q: jax.Array, k: jax.Array, v: jax.Array, *, block: int) -> jax.Array:
    """`attention` of the rows of one device."""
    # It loads TPU code, which most programs do without.
    from jax.experimental.pallas.ops.tpu import flash_attention as pallas

    back = ("block_q_major_dkv", "block_k_major_dkv", "block_k_dkv", "block_q_dkv")
    back += ("block_k_major_dq", "block_k_dq", "block_q_dq")
    sizes = pallas.BlockSizes(
        block_b=1,
        block_q=block,
        block_k_major=block,
        block_k=block,
        **dict.fromkeys(back, block),
    )
    heads_first = [x.swapaxes(1, 2) for x in (q, k, v)]
    # bfloat16 products, summed in float32, are all that the kernel has.
    with jax.default_matmul_precision("default"):
        out = pallas.flash_attention(*heads_first, sm_scale=q.shape[-1] ** -0.5, block_sizes=sizes)
    return out.swapaxes(1, 2)
