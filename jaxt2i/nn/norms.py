"""Normalisation: batch statistics, global or over small virtual batches, and spectral weights."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.nn.convolution import convolve
from jaxt2i.nn.linear import torch_uniform
from jaxt2i.nn.resample import up_nearest_conv


class BatchNormLocal(nn.Module):
    """Batch norm over groups of consecutive examples, without running statistics.

    The statistics of an example depend on its group alone, so neither the mesh nor the rest of
    the batch changes a result, and nothing crosses devices as long as a group stays on one.

    Attributes:
      virtual_size: examples a group; a batch of B makes ceil(B / virtual_size) groups.
      eps: added to the variance.
      affine: learn a scale and a bias a channel.
    """

    virtual_size: int = 8
    eps: float = 1e-5
    affine: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, ..., C] to the same shape and dtype; statistics over a group's positions, float32.

        Raises:
          ValueError: when the groups would differ in size.
        """
        batch, channels = x.shape[0], x.shape[-1]
        groups = -(-batch // self.virtual_size)
        if batch % groups:
            raise ValueError(
                f"BatchNormLocal splits {batch} examples into {groups} groups (virtual_size="
                f"{self.virtual_size}), which differ in size; make the batch a multiple of {groups}"
            )
        h = x.astype(jnp.float32).reshape(groups, -1, channels)  # [G, examples * positions, C]
        mean = h.mean(1, keepdims=True)
        var = jnp.square(h - mean).mean(1, keepdims=True)
        h = ((h - mean) * jax.lax.rsqrt(var + self.eps)).reshape(x.shape)
        if self.affine:
            h = h * self.param("scale", nn.initializers.ones, (channels,))
            h = h + self.param("bias", nn.initializers.zeros, (channels,))
        return h.astype(x.dtype)


class BatchNorm(nn.Module):
    """Batch norm with running statistics, as PyTorch keeps them.

    Under a sharded `jit` the batch is the global one: what the originals call synchronised. With
    `group` the statistics are those of consecutive examples, as on the originals' several GPUs,
    and the running ones move towards the groups' mean; the mesh changes neither. The statistics
    live in the collection "batch_stats".

    Attributes:
      momentum: share of the new statistics in the running ones; None: those are the mean of all
        batches so far, whose number is kept beside.
      eps: added to the variance.
      affine: learn a scale and a bias a channel.
      scale_init: initial scales, (key, shape) -> array.
      group: examples that are normalised together in training; 0 = the whole batch.
    """

    momentum: float | None = 0.1
    eps: float = 1e-5
    affine: bool = True
    scale_init: Callable = nn.initializers.ones
    group: int = 0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, ..., C] to the same shape and dtype; statistics are float32.

        Raises:
          ValueError: in training, where `group` does not divide B.
        """
        channels = x.shape[-1]
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        share, batches = self.momentum, None
        if share is None:
            batches = self.variable("batch_stats", "batches", jnp.zeros, ())
        h = x.astype(jnp.float32)
        m, v = mean.value, var.value
        if train:
            h = h.reshape(groups_of(len(x), self.group, self.is_initializing()), -1, *x.shape[1:])
            axes = tuple(range(1, h.ndim - 1))
            m = h.mean(axes, keepdims=True)
            v = jnp.square(h - m).mean(axes, keepdims=True)
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                count = h[0].size // channels
                unbiased = v * (count / max(count - 1, 1))
                if batches is not None:
                    batches.value += 1
                    share = 1 / batches.value
                mean.value += share * (m.reshape(-1, channels).mean(0) - mean.value)
                var.value += share * (unbiased.reshape(-1, channels).mean(0) - var.value)
        h = ((h - m) * jax.lax.rsqrt(v + self.eps)).reshape(x.shape)
        if self.affine:
            h = h * self.param("scale", self.scale_init, (channels,))
            h = h + self.param("bias", nn.initializers.zeros, (channels,))
        return h.astype(x.dtype)


class CountedNorm(nn.Module):
    """`BatchNorm` whose statistics are those of the examples that count; its arrays and names.

    Running statistics move towards the mean of the groups that have such examples, and stay where
    no group has any.

    Attributes:
      momentum, eps, scale_init, group: see `BatchNorm`.
    """

    momentum: float = 0.1
    eps: float = 1e-5
    scale_init: Callable = nn.initializers.ones
    group: int = 0

    @nn.compact
    def __call__(self, x: jax.Array, there: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, ..., C] and bool [B], True where an example counts, to x's shape and dtype.

        Raises:
          ValueError: in training, where `group` does not divide B.
        """
        channels = x.shape[-1]
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        h, m, v = x.astype(jnp.float32), mean.value, var.value
        if train:
            groups = groups_of(len(x), self.group, self.is_initializing())
            h = h.reshape(groups, -1, x[0].size // channels, channels)
            share = there.astype(jnp.float32).reshape(groups, -1, 1, 1)
            rows = share.sum(1, keepdims=True) * h.shape[2]  # [G, 1, 1, 1]
            share = share / jnp.maximum(rows, 1)
            m = (h * share).sum((1, 2), keepdims=True)
            v = (jnp.square(h - m) * share).sum((1, 2), keepdims=True)
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                used = (rows > 0).astype(jnp.float32)
                used = self.momentum * used / jnp.maximum(used.sum(), 1)
                unbiased = v * (rows / jnp.maximum(rows - 1, 1))
                mean.value += (used * (m - mean.value)).sum((0, 1, 2))
                var.value += (used * (unbiased - var.value)).sum((0, 1, 2))
        h = ((h - m) * jax.lax.rsqrt(v + self.eps)).reshape(x.shape)
        h = h * self.param("scale", self.scale_init, (channels,))
        h = h + self.param("bias", nn.initializers.zeros, (channels,))
        return h.astype(x.dtype)


def instance_norm(x: jax.Array, eps: float = 1e-5) -> jax.Array:
    """Every channel of every picture [B, H, W, C] with mean 0 and deviation 1; in float32."""
    h = x.astype(jnp.float32)
    h = h - h.mean((1, 2), keepdims=True)
    h = h * jax.lax.rsqrt(jnp.square(h).mean((1, 2), keepdims=True) + eps)
    return h.astype(x.dtype)


def groups_of(batch: int, group: int, initializing: bool = False) -> int:
    """How many groups a batch is normalised in; 1 where `group` is 0.

    Raises:
      ValueError: where the group does not divide the batch, unless it is a network's first call.
    """
    if group and batch % group and not initializing:
        raise ValueError(
            f"batch norm over groups of {group} (config.model.norm_group) does not divide "
            f"{batch} examples; make the batch a multiple of the group, or set it to 0"
        )
    return batch // group if group and batch % group == 0 else 1


def orthogonal(gain: float = 1.0) -> Callable:
    """Orthogonal rows or columns of a kernel [..., in, out] as the matrix [out, in * positions]."""
    draw = nn.initializers.orthogonal(gain, column_axis=0)

    def init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        *positions, inputs, out = shape
        matrix = draw(key, (out, inputs * math.prod(positions)))
        return jnp.moveaxis(matrix.reshape(out, inputs, *positions), (0, 1), (-1, -2))

    return init


def _unit(x: jax.Array, eps: float = 1e-12) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x), eps)


def power_iteration(
    matrix: jax.Array, u: jax.Array, eps: float = 1e-12
) -> tuple[jax.Array, jax.Array]:
    """One step towards the leading singular vectors of `matrix` [out, in], from u [out].

    Args:
      matrix: [out, in].
      u: [out].
      eps: least norm that a vector is divided by.

    Returns:
      (u [out], v [in]).
    """
    v = _unit(jnp.matmul(u, matrix, precision="highest"), eps)
    return _unit(jnp.matmul(matrix, v, precision="highest"), eps), v


def spectral_norm(kernel: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
    """u^T W v of a kernel [*positions, in, out] as a matrix W [out, in * positions]."""
    matrix = jnp.moveaxis(kernel, (-1, -2), (0, 1)).reshape(len(left), len(right))
    return jnp.matmul(left, jnp.matmul(matrix, right, precision="highest"), precision="highest")


@jax.custom_vjp
def over_sigma(y: jax.Array, kernel: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
    """What a kernel made, over the kernel's `spectral_norm`: as if the kernel had been divided.

    Passes of one layer, whose sigmas differ, then use one kernel, and its gradients are one sum. On
    several devices that is one message, not one a pass, but only if every term is a product summed
    over the examples, as that of a convolution is. Hence a gradient of its own: sigma's, u v^T
    times a number, is made as such a product, at the price of one more pixel a picture.

    Args:
      y: [B, ..., out].
      kernel: [*positions, in, out].
      left: u [out], a constant.
      right: v [in * positions], a constant.
    """
    return (y / spectral_norm(kernel, left, right)).astype(y.dtype)


def _over_sigma(y, kernel, left, right):
    sigma = spectral_norm(kernel, left, right)
    out = (y / sigma).astype(y.dtype)
    return out, (out, sigma, kernel, left, right)


def _over_sigma_gradient(kept, g):
    out, sigma, kernel, left, right = kept
    *positions, inputs, features = kernel.shape
    axes = tuple(range(1, out.ndim))
    shares = -(g.astype(jnp.float32) * out.astype(jnp.float32)).sum(axes) / sigma  # [B]
    right = jnp.moveaxis(right.reshape(inputs, *positions), 0, -1)
    rights = shares.reshape(-1, *(1,) * right.ndim) * right
    lefts = jnp.broadcast_to(left, (len(shares), features))
    of_kernel = jax.lax.dot_general(rights, lefts, (((0,), (0,)), ((), ())), precision="highest")
    return (g / sigma).astype(g.dtype), of_kernel, None, None


over_sigma.defvjp(_over_sigma, _over_sigma_gradient)


class Spectral(nn.Module):
    """A layer whose kernel is divided by (an estimate of) its largest singular value.

    In float32 not the kernel is divided but what it makes; see `over_sigma`. In bfloat16, where the
    terms of the gradient are rounded before they can be added, that would send more, not less.

    Follows the first PyTorch implementation (Miyato et al., arXiv 1802.05957): sigma = u^T W v,
    u and v constants for the gradient, one power iteration at every training forward before
    sigma is taken, none in evaluation. The vectors live in the collection "spectral".

    Attributes:
      features: width of the output.
      use_bias: False leaves the bias out.
      eps: least norm that a vector is divided by in the power iteration.
      kernel_init: of the kernel before the division; None: PyTorch's default.
      dtype: compute dtype; sigma is float32.
    """

    features: int
    use_bias: bool = True
    eps: float = 1e-12
    kernel_init: Callable | None = None
    dtype: jnp.dtype = jnp.float32

    def applied(
        self, shape: tuple[int, ...], train: bool, product: Callable[[jax.Array], jax.Array]
    ) -> jax.Array:
        """What a kernel of a shape [..., in, features] makes, over sigma, and the bias if any.

        Args:
          shape: of the kernel.
          train: run the power iteration.
          product: kernel in the compute dtype -> y.
        """
        fan_in = math.prod(shape[:-1])
        kernel = self.param("kernel", self.kernel_init or torch_uniform(fan_in), shape)
        left, right = self._vectors(kernel, fan_in, train)
        sigma = spectral_norm(kernel, left, right)
        self.sow("intermediates", "sigma", sigma)
        if self.dtype == jnp.float32:
            y = over_sigma(product(kernel), kernel, left, right)
        else:
            y = product((kernel / sigma).astype(self.dtype))
        if not self.use_bias:
            return y
        bias = self.param("bias", torch_uniform(fan_in), (self.features,))
        return y + bias.astype(self.dtype)

    def _vectors(self, kernel: jax.Array, fan_in: int, train: bool) -> tuple[jax.Array, jax.Array]:
        """(u, v) of the kernel as a matrix [out, in * positions], PyTorch's order of columns."""

        def random_unit() -> jax.Array:
            return _unit(jax.random.normal(self.make_rng("params"), (self.features,)))

        matrix = jnp.moveaxis(kernel, (-1, -2), (0, 1)).reshape(self.features, fan_in)
        u = self.variable("spectral", "u", random_unit)
        # Not a random vector: with one, sigma of a fresh network would be next to nothing.
        v = self.variable("spectral", "v", lambda: _unit(u.value @ matrix))
        left, right = u.value, v.value
        if train and not self.is_initializing():
            left, right = power_iteration(jax.lax.stop_gradient(matrix), left, self.eps)
            if self.is_mutable_collection("spectral"):
                u.value, v.value = left, right
        return jax.lax.stop_gradient((left, right))


class SpectralDense(Spectral):
    """A spectrally normalised dense layer; see `Spectral`."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[..., in] to [..., features]; `train` runs the power iteration."""
        shape = x.shape[-1], self.features
        return self.applied(shape, train, lambda kernel: x.astype(self.dtype) @ kernel)


class SpectralConv(Spectral):
    """A spectrally normalised convolution; see `Spectral`.

    Attributes:
      kernel_size: (k,) for [B, T, C], (kh, kw) for [B, H, W, C].
      strides: one number an axis; () = 1 everywhere.
      padding: "same" (zeros), "circular" (odd kernels) or "valid".
      up: double the input first, by nearest neighbour; for windows of 3x3 alone.
    """

    kernel_size: tuple[int, ...] = (3, 3)
    strides: tuple[int, ...] = ()
    padding: str = "same"
    up: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, *positions, C] to [B, *positions', features]; `train` runs the power iteration."""
        dims, inputs = len(self.kernel_size), x.shape[-1]
        if self.padding == "circular":
            wrap = [(k // 2, k // 2) for k in self.kernel_size]
            x = jnp.pad(x, [(0, 0), *wrap, (0, 0)], mode="wrap")
        spatial = "HW"[-dims:] if dims <= 2 else "DHW"

        def convolved(kernel: jax.Array) -> jax.Array:
            if self.up:
                return up_nearest_conv(x.astype(self.dtype), kernel)
            if dims == 2:
                return convolve(
                    x.astype(self.dtype),
                    kernel,
                    self.strides or (1, 1),
                    "SAME" if self.padding == "same" else "VALID",
                )
            return jax.lax.conv_general_dilated(
                x.astype(self.dtype),
                kernel,
                self.strides or (1,) * dims,
                "SAME" if self.padding == "same" else "VALID",
                dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
            )

        return self.applied((*self.kernel_size, inputs, self.features), train, convolved)
