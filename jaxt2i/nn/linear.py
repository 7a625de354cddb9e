"""Dense layers and convolutions with PyTorch's default initial values.

Systems whose papers do not speak of initialisation were trained with these; normalisation-free
networks feel the difference, their biases included.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.nn.convolution import convolve
from jaxt2i.nn.resample import up_nearest_conv


def torch_uniform(fan_in: int) -> Callable:
    """U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)), for kernels and biases alike."""
    bound = fan_in**-0.5
    return lambda key, shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)


class Linear(nn.Module):
    """Y = x W + b.

    Attributes:
      features: width of the output.
      use_bias: False leaves the bias out.
      kernel_init, bias_init: other initial values than PyTorch's, (key, shape) -> array.
      dtype: compute dtype.
    """

    features: int
    use_bias: bool = True
    kernel_init: Callable | None = None
    bias_init: Callable | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., in] to [..., features]."""
        init = torch_uniform(x.shape[-1])
        kernel = self.param("kernel", self.kernel_init or init, (x.shape[-1], self.features))
        y = x.astype(self.dtype) @ kernel.astype(self.dtype)
        if not self.use_bias:
            return y
        bias = self.param("bias", self.bias_init or init, (self.features,))
        return y + bias.astype(self.dtype)


class Conv(nn.Module):
    """A convolution over square windows.

    Attributes:
      features: output channels.
      size: of the window, pixels.
      stride: step between windows, pixels.
      pad: zeros at each border; None: size // 2.
      up: double the input first, by nearest neighbour; for windows of 3 alone.
      use_bias: False leaves the bias out.
      kernel_init: other initial values than PyTorch's, (key, shape) -> array.
      dtype: compute dtype.
    """

    features: int
    size: int = 3
    stride: int = 1
    pad: int | None = None
    up: bool = False
    use_bias: bool = True
    kernel_init: Callable | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, in] to [B, H', W', features]."""
        init = torch_uniform(x.shape[-1] * self.size**2)
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init or init, shape)
        if self.up:
            y = up_nearest_conv(x.astype(self.dtype), kernel)
        else:
            pad = self.size // 2 if self.pad is None else self.pad
            pads, strides = ((pad, pad), (pad, pad)), (self.stride, self.stride)
            y = convolve(x.astype(self.dtype), kernel.astype(self.dtype), strides, pads)
        if self.use_bias:
            y = y + self.param("bias", init, (self.features,)).astype(self.dtype)
        return y
