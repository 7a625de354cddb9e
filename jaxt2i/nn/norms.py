"""Normalisation: batch statistics over small virtual batches, spectral weight normalisation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


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


def _torch_uniform(fan_in: int):
    """PyTorch's default initialiser of convolutions: U(+-1/sqrt(fan_in))."""
    bound = 1 / np.sqrt(fan_in)
    return lambda key, shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


def power_iteration(matrix: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One step towards the leading singular vectors of `matrix` [out, in], from u [out].

    Returns:
      (u [out], v [in]).
    """
    v = _unit(jnp.matmul(u, matrix, precision="highest"))
    return _unit(jnp.matmul(matrix, v, precision="highest")), v


class SpectralConv(nn.Module):
    """A convolution whose kernel is divided by (an estimate of) its largest singular value.

    Follows the first PyTorch implementation (Miyato et al., arXiv 1802.05957): sigma = u^T W v,
    u and v constants for the gradient, one power iteration at every training forward before
    sigma is taken, none in evaluation. The vectors live in the collection "spectral".

    Attributes:
      features: output channels.
      kernel_size: (k,) for [B, T, C], (kh, kw) for [B, H, W, C].
      strides: one number an axis; () = 1 everywhere.
      padding: "same" (zeros), "circular" (odd kernels) or "valid".
      use_bias: False leaves the bias out.
      dtype: compute dtype; sigma is float32.
    """

    features: int
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...] = ()
    padding: str = "same"
    use_bias: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, *positions, C] to [B, *positions', features]; `train` runs the power iteration."""
        dims, inputs = len(self.kernel_size), x.shape[-1]
        fan_in = inputs * int(np.prod(self.kernel_size))
        init = _torch_uniform(fan_in)
        kernel = self.param("kernel", init, (*self.kernel_size, inputs, self.features))
        sigma = self._sigma(kernel, fan_in, train)
        self.sow("intermediates", "sigma", sigma)
        kernel = (kernel / sigma).astype(self.dtype)
        if self.padding == "circular":
            wrap = [(k // 2, k // 2) for k in self.kernel_size]
            x = jnp.pad(x, [(0, 0), *wrap, (0, 0)], mode="wrap")
        spatial = "HW"[-dims:] if dims <= 2 else "DHW"
        y = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel,
            self.strides or (1,) * dims,
            "SAME" if self.padding == "same" else "VALID",
            dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        )
        if self.use_bias:
            y = y + self.param("bias", init, (self.features,)).astype(self.dtype)
        return y

    def _sigma(self, kernel: jax.Array, fan_in: int, train: bool) -> jax.Array:
        """u^T W v of the kernel as a matrix [out, in * positions], PyTorch's order of columns."""

        def random_unit(size: int) -> jax.Array:
            return _unit(jax.random.normal(self.make_rng("params"), (size,)))

        u = self.variable("spectral", "u", random_unit, self.features)
        v = self.variable("spectral", "v", random_unit, fan_in)
        matrix = jnp.moveaxis(kernel, (-1, -2), (0, 1)).reshape(self.features, fan_in)
        left, right = u.value, v.value
        if train and not self.is_initializing():
            left, right = power_iteration(jax.lax.stop_gradient(matrix), left)
            if self.is_mutable_collection("spectral"):
                u.value, v.value = left, right
        left, right = jax.lax.stop_gradient((left, right))
        return jnp.matmul(left, jnp.matmul(matrix, right, precision="highest"), precision="highest")
