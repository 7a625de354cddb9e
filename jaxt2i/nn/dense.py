"""Equalised dense layers of the StyleGAN family: weights of unit variance, scaled at run time."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

_SQRT2 = float(np.sqrt(2))

# name: (function of (x, alpha), default alpha, default gain). The gain keeps the second moment
# of unit-variance input near one, which is what equalised weights rely on.
ACTIVATIONS: dict[str, tuple[Callable[[jax.Array, float], jax.Array], float, float]] = {
    "linear": (lambda x, _: x, 0.0, 1.0),
    "relu": (lambda x, _: jax.nn.relu(x), 0.0, _SQRT2),
    "lrelu": (lambda x, alpha: jnp.where(x >= 0, x, x * alpha), 0.2, _SQRT2),
    "tanh": (lambda x, _: jnp.tanh(x), 0.0, 1.0),
    "sigmoid": (lambda x, _: jax.nn.sigmoid(x), 0.0, 1.0),
    "elu": (lambda x, _: jax.nn.elu(x), 0.0, 1.0),
    "selu": (lambda x, _: jax.nn.selu(x), 0.0, 1.0),
    "softplus": (lambda x, _: jax.nn.softplus(x), 0.0, 1.0),
    "swish": (lambda x, _: jax.nn.silu(x), 0.0, _SQRT2),
}


def bias_act(
    x: jax.Array,
    bias: jax.Array | None = None,
    act: str = "linear",
    *,
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> jax.Array:
    """clip(act(x + bias) * gain, -clamp, clamp), channels last.

    Args:
      x: [..., C].
      bias: [C] or None.
      act: a key of `ACTIVATIONS`.
      alpha: negative slope of "lrelu"; None: 0.2.
      gain: None: the activation's own gain.
      clamp: largest magnitude of the result; None: no limit.

    Raises:
      ValueError: for an activation that does not exist.
    """
    if act not in ACTIVATIONS:
        raise ValueError(f"act={act!r} is not an activation; choose from {', '.join(ACTIVATIONS)}")
    function, default_alpha, default_gain = ACTIVATIONS[act]
    if bias is not None:
        x = x + bias.astype(x.dtype)
    x = function(x, default_alpha if alpha is None else alpha)
    gain = default_gain if gain is None else gain
    if gain != 1:
        x = x * gain
    return x if clamp is None else jnp.clip(x, -clamp, clamp)


def normalize_2nd_moment(x: jax.Array, axis: int = -1, eps: float = 1e-8) -> jax.Array:
    """X / sqrt(mean(x^2) + eps) along `axis`."""
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis, keepdims=True) + eps)


class FullyConnected(nn.Module):
    """y = act(x (W lr_mult / sqrt(in)) + b lr_mult): the equalised learning rate of ProGAN.

    Attributes:
      features: width of the output.
      act: activation, with its default gain.
      lr_mult: factor on the effective learning rate of weight and bias.
      weight_init: standard deviation of the effective weight times sqrt(in).
      bias_init: initial effective bias: one number, or one a feature.
      use_bias: False leaves the bias out.
      dtype: compute dtype.
    """

    features: int
    act: str = "linear"
    lr_mult: float = 1.0
    weight_init: float = 1.0
    bias_init: float | Sequence[float] = 0.0
    use_bias: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., in] to [..., features]."""
        init = nn.initializers.normal(self.weight_init / self.lr_mult)
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        # The few numbers of x are scaled instead of the many of W.
        x = x * (self.lr_mult / np.sqrt(x.shape[-1]))
        bias = None
        if self.use_bias:
            start = np.broadcast_to(np.float32(self.bias_init), (self.features,)) / self.lr_mult
            bias = self.param("bias", lambda _: jnp.asarray(start, jnp.float32)) * self.lr_mult
        return bias_act(x.astype(self.dtype) @ kernel.astype(self.dtype), bias, self.act)


class StyleSplit(nn.Module):
    """Second-order styles of StyleGAN-T: s = m1 m2 + m3, the three parts of one projection of w.

    Attributes:
      features: channels that the style scales.
      dtype: compute dtype.
    """

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, w: jax.Array) -> jax.Array:
        """W [B, D] to s [B, features]."""
        proj = FullyConnected(3 * self.features, bias_init=1.0, dtype=self.dtype, name="proj")(w)
        m1, m2, m3 = jnp.split(proj, 3, axis=-1)
        return m1 * m2 + m3
