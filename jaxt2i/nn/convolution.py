"""Convolutions, with the gradients that each platform computes best.

XLA's CPU convolution is slow at two gradients. That of a kernel of 2 x 2 places, by steps of one
pixel, has one matrix product a place instead (benchmarks/results/conv_cpu.json). That of the input,
where a convolution halves a large map, multiplies with zeros between the pixels; four small
convolutions, one a phase, do not (input_gradient_cpu.json). It is slow at few outputs, too, the
colours of a picture: where one is drawn, one product makes those of all places, whose sum it is
(colours_cpu.json). Accelerators keep the convolution. The three operations are each other's
derivatives, of any order. What is said here of XLA's is so with the settings of `jaxt2i.run.flags`.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.nn.fastest import by_platform

Pads = tuple[tuple[int, int], tuple[int, int]]
# The halving that discriminators have: window, steps and zeros at the borders; and from which
# height on phases win.
HALVING = ((4, 4), (2, 2), ((1, 1), (1, 1)))
TALL = 32
# Which places of its window the two pixels of one phase were multiplied with.
PLACES = np.array([[3, 1], [2, 0]])
# A convolution to colours: window, steps and zeros at the borders, and how many outputs are few.
COLOURING = ((3, 3), (1, 1), ((1, 1), (1, 1)))
FEW = 4


class Place(NamedTuple):
    """How a kernel goes over a picture, and how exactly it multiplies.

    Gradients of one's own are traced when the context of the forward pass, and with it its
    precision, is left: it is carried to them.

    Attributes:
      strides: two numbers.
      pads: zeros before and behind each axis.
      precision: of the products, as JAX names it; None: the platform's.
    """

    strides: tuple[int, ...]
    pads: Pads
    precision: str | None = None


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
    how = Place(strides, pads, jax.config.jax_default_matmul_precision)
    own = by_products(kernel, strides) or by_phases(x, kernel, strides, pads)
    if not (own or to_colours(x, kernel, strides, pads)) or min(min(p) for p in pads) < 0:
        return plain(x, kernel, how)
    return forward(x, kernel, how)


def by_products(kernel: jax.Array, strides: tuple[int, ...]) -> bool:
    """Whether products find the gradient of a kernel faster, on CPUs."""
    return strides == (1, 1) and kernel.shape[:2] == (2, 2)


def by_phases(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], pads: Pads) -> bool:
    """Whether phases find the gradient of x faster, on CPUs."""
    height, width = x.shape[1:3]
    even = height % 2 == 0 and width % 2 == 0
    return (kernel.shape[:2], strides, pads) == HALVING and even and height >= TALL


def to_colours(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], pads: Pads) -> bool:
    """Whether this is one picture's colours, which CPUs sum up place by place.

    In a training step, whatever follows would compute that sum anew, for many pictures.
    """
    few = kernel.shape[3] <= FEW < kernel.shape[2]
    return len(x) == 1 and few and (kernel.shape[:2], strides, pads) == COLOURING


def in_phases(x: jax.Array, phases: jax.Array) -> jax.Array:
    """Doubles a picture: each phase of the result is a correlation with a window of 2 x 2.

    Args:
      x: [B, H, W, I].
      phases: [2, 2, I, 2, 2, O]: places of the window, channels, phases along both axes. Phase 0
        of pixel i sees i - 1 and i, phase 1 sees i and i + 1.

    Returns:
      [B, 2H, 2W, O].
    """
    batch, height, width, inputs = x.shape
    outputs = phases.shape[-1]
    kernel = phases.reshape(2, 2, inputs, -1)
    y = convolve(x, kernel, (1, 1), ((1, 1), (1, 1)))  # [B, H + 1, W + 1, 4 O]
    y = y.reshape(batch, height + 1, width + 1, 2, 2, outputs)
    y = jnp.stack([y[:, p : p + height, :, p] for p in range(2)], 2)
    y = jnp.stack([y[:, :, :, q : q + width, q] for q in range(2)], 4)
    return y.reshape(batch, 2 * height, 2 * width, outputs)


def plain(x: jax.Array, kernel: jax.Array, how: Place) -> jax.Array:
    """The operation of XLA, with its own gradients."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        how.strides,
        how.pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=how.precision,
    )


def patches(x: jax.Array, kernel: jax.Array, precision: str | None = None) -> jax.Array:
    """The convolution whose windows lie side by side, as one matrix product.

    The gradient of XLA's convolution in x multiplies with the zeros between the windows: one of 32
    pictures in 49 patches is 23 times as dear on a TPU v5e, one of 8 in 196 patches 139 times, by
    its compiler (benchmarks/results/patches_v5e.json); on CPUs all is faster, too
    (patches_cpu.json).

    Args:
      x: [B, H, W, I]; p divides H and W.
      kernel: [p, p, I, O], of the same dtype.
      precision: of the products, as JAX names it; None: the platform's.

    Returns:
      [B, H / p, W / p, O].
    """
    batch, height, width, channels = x.shape
    p = kernel.shape[0]
    rows = x.reshape(batch, height // p, p, width // p, p * channels)
    kernel = kernel.reshape(p, p * channels, -1)
    return jnp.einsum("bhpwi,pio->bhwo", rows, kernel, precision=precision)


def transposed(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Correlation of a picture that has a zero behind each pixel, and k - 1 zeros around it.

    Args:
      x: [B, H, W, I].
      kernel: [k, k, I, O], of the same dtype.

    Returns:
      [B, 2H + k - 2, 2W + k - 2, O].
    """
    k = kernel.shape[0]
    shape = (x.shape[0], *(2 * n + k - 2 for n in x.shape[1:3]), kernel.shape[-1])
    how = Place((2, 2), ((0, 0), (0, 0)), jax.config.jax_default_matmul_precision)
    return of_input(x, jnp.flip(kernel, (0, 1)).swapaxes(2, 3), shape, how)


def seen(x: jax.Array, out: tuple[int, int], place: tuple[int, int], how: Place) -> jax.Array:
    """What one place of a kernel sees of x, which has its zeros: [B H' W', I]."""
    area = (
        slice(at, at + (n - 1) * step + 1, step)
        for at, n, step in zip(place, out, how.strides, strict=True)
    )
    return x[:, *area].reshape(-1, x.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def forward(x: jax.Array, kernel: jax.Array, how: Place) -> jax.Array:
    """`plain`, whose gradients are the two functions below."""

    def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return plain(x, kernel, how)

    def summed(x: jax.Array, kernel: jax.Array) -> jax.Array:
        (height, width), outputs = x.shape[1:3], kernel.shape[3]
        kernel = kernel.transpose(2, 0, 1, 3).reshape(x.shape[-1], -1)
        y = jnp.matmul(x, kernel, precision=how.precision)
        y = jnp.pad(y, ((0, 0), *how.pads, (0, 0)))
        of = enumerate(np.ndindex(3, 3))
        return sum(
            y[:, i : i + height, j : j + width, n * outputs : (n + 1) * outputs] for n, (i, j) in of
        )

    if not to_colours(x, kernel, how.strides, how.pads):
        return conv(x, kernel)
    return by_platform("colours", "auto", {"conv": conv, "summed": summed}, x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def of_input(g: jax.Array, kernel: jax.Array, shape: tuple[int, ...], how: Place) -> jax.Array:
    """The gradient of `plain` in its input, which has this shape, along g [B, H', W', O]."""
    x = jax.ShapeDtypeStruct(shape, g.dtype)

    def conv(g: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda x: plain(x, kernel, how), x)(g)[0]

    def phases(g: jax.Array, kernel: jax.Array) -> jax.Array:
        taps = kernel[PLACES][:, :, PLACES]  # [2 phases, 2 places, 2, 2, I, O]
        with jax.default_matmul_precision(how.precision):
            return in_phases(g, taps.transpose(1, 3, 5, 0, 2, 4))

    if not by_phases(x, kernel, how.strides, how.pads):
        return conv(g, kernel)
    return by_platform("input_gradient", "auto", {"conv": conv, "phases": phases}, g, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def of_kernel(x: jax.Array, g: jax.Array, size: tuple[int, int], how: Place) -> jax.Array:
    """The gradient of `plain` in its kernel, kh x kw places, along g [B, H', W', O]."""
    kernel = jax.ShapeDtypeStruct((*size, x.shape[-1], g.shape[-1]), x.dtype)

    def conv(x: jax.Array, g: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda k: plain(x, k, how), kernel)(g)[0]

    def products(x: jax.Array, g: jax.Array) -> jax.Array:
        wide = jnp.pad(x, ((0, 0), *how.pads, (0, 0)))
        rows, found = g.reshape(-1, g.shape[-1]), []
        for place in np.ndindex(size):
            part = seen(wide, g.shape[1:3], place, how)
            found.append(jnp.matmul(part.T, rows, precision=how.precision))
        return jnp.stack(found).reshape(kernel.shape)

    if not by_products(kernel, how.strides):
        return conv(x, g)
    variants = {"conv": conv, "products": products}
    return by_platform("weight_gradient", "auto", variants, x, g)


def _forward_kept(x, kernel, how):
    return forward(x, kernel, how), (x, kernel)


def _forward_back(how, kept, g):
    x, kernel = kept
    return of_input(g, kernel, x.shape, how), of_kernel(x, g, kernel.shape[:2], how)


def _input_kept(g, kernel, shape, how):
    return of_input(g, kernel, shape, how), (g, kernel)


def _input_back(shape, how, kept, c):
    g, kernel = kept
    return forward(c, kernel, how), of_kernel(c, g, kernel.shape[:2], how)


def _kernel_kept(x, g, size, how):
    return of_kernel(x, g, size, how), (x, g)


def _kernel_back(size, how, kept, c):
    x, g = kept
    return of_input(g, c, x.shape, how), forward(x, c, how)


forward.defvjp(_forward_kept, _forward_back)
of_input.defvjp(_input_kept, _input_back)
of_kernel.defvjp(_kernel_kept, _kernel_back)
