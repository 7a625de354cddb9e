"""Convolutions, with the gradient of their weights as each platform computes it best.

XLA's CPU convolution finds the gradient of a large kernel at a fifth of the speed of the forward
pass. With one matrix product a place of the kernel instead, forward pass and both gradients
together are up to 1.8 times as fast (benchmarks/results/conv_cpu.json). Accelerators keep the
convolution. The three operations are each other's derivatives, of any order.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxt2i.nn.fastest import by_platform

Pads = tuple[tuple[int, int], tuple[int, int]]
# Weights at one place of a kernel from which on products win, on two CPU cores (128 x 128).
LEAST = 16384


def convolve(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: str | Sequence
) -> jax.Array:
    """Correlation of [B, H, W, I] with [kh, kw, I, O]: [B, H', W', O].

    Args:
      x: features.
      kernel: of the same dtype.
      strides: two numbers.
      padding: "SAME", "VALID", or zeros before and behind each axis.
    """
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    strides, pads = tuple(strides), tuple((int(a), int(b)) for a, b in padding)
    small = kernel.shape[2] * kernel.shape[3] < LEAST
    if small or min(min(pair) for pair in pads) < 0:
        return plain(x, kernel, strides, pads)
    return forward(x, kernel, strides, pads)


def plain(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], pads: Pads) -> jax.Array:
    """The operation of XLA, with its own gradients."""
    return jax.lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def forward(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], pads: Pads) -> jax.Array:
    """`plain`, whose gradients are the two functions below."""
    return plain(x, kernel, strides, pads)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def of_input(
    g: jax.Array, kernel: jax.Array, shape: tuple[int, ...], strides: tuple[int, ...], pads: Pads
) -> jax.Array:
    """The gradient of `plain` in its input, which has this shape, along g [B, H', W', O]."""
    x = jax.ShapeDtypeStruct(shape, g.dtype)
    return jax.linear_transpose(lambda x: plain(x, kernel, strides, pads), x)(g)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def of_kernel(
    x: jax.Array, g: jax.Array, size: tuple[int, int], strides: tuple[int, ...], pads: Pads
) -> jax.Array:
    """The gradient of `plain` in its kernel, kh x kw places, along g [B, H', W', O]."""
    kernel = jax.ShapeDtypeStruct((*size, x.shape[-1], g.shape[-1]), x.dtype)

    def conv(x: jax.Array, g: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda k: plain(x, k, strides, pads), kernel)(g)[0]

    def products(x: jax.Array, g: jax.Array) -> jax.Array:
        wide = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        rows = g.reshape(-1, g.shape[-1])
        found = []
        for place in ((i, j) for i in range(size[0]) for j in range(size[1])):
            stop = [
                a + (n - 1) * s + 1 for a, n, s in zip(place, g.shape[1:3], strides, strict=True)
            ]
            seen = wide[:, place[0] : stop[0] : strides[0], place[1] : stop[1] : strides[1]]
            found.append(seen.reshape(-1, x.shape[-1]).T @ rows)
        return jnp.stack(found).reshape(kernel.shape)

    variants = {"conv": conv, "products": products}
    return by_platform("weight_gradient", "auto", variants, x, g)


def _forward_kept(x, kernel, strides, pads):
    return plain(x, kernel, strides, pads), (x, kernel)


def _forward_back(strides, pads, kept, g):
    x, kernel = kept
    return (
        of_input(g, kernel, x.shape, strides, pads),
        of_kernel(x, g, kernel.shape[:2], strides, pads),
    )


def _input_kept(g, kernel, shape, strides, pads):
    return of_input(g, kernel, shape, strides, pads), (g, kernel)


def _input_back(shape, strides, pads, kept, c):
    g, kernel = kept
    return forward(c, kernel, strides, pads), of_kernel(c, g, kernel.shape[:2], strides, pads)


def _kernel_kept(x, g, size, strides, pads):
    return of_kernel(x, g, size, strides, pads), (x, g)


def _kernel_back(size, strides, pads, kept, c):
    x, g = kept
    return of_input(g, c, x.shape, strides, pads), forward(x, c, strides, pads)


forward.defvjp(_forward_kept, _forward_back)
of_input.defvjp(_input_kept, _input_back)
of_kernel.defvjp(_kernel_kept, _kernel_back)
