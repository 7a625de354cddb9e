"""LPIPS v0.1, a perceptual distance (Zhang et al. 2018, arXiv 1801.03924).

Follows richzhang/PerceptualSimilarity: "alex" for evaluation, "vgg" for losses.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.encoders.trunks import Trunk, tap_channels
from jaxt2i.nn.precision import exact
from jaxt2i.nn.resample import resize

SHIFT = np.float32((-0.030, -0.088, -0.188))
SCALE = np.float32((0.458, 0.448, 0.450))


class Lin(nn.Module):
    """One weight a channel for every layer of a trunk; the published ones are not negative.

    Attributes:
      net: key of `trunks.NETS`.
    """

    net: str = "vgg"

    def example(self) -> tuple[list[jax.ShapeDtypeStruct]]:
        """Inputs that `init` can be traced with."""
        return ([jax.ShapeDtypeStruct((1, c), jnp.float32) for c in tap_channels(self.net)],)

    @exact
    @nn.compact
    def __call__(self, layers: list[jax.Array]) -> list[jax.Array]:
        """[..., C] a layer to [...] a layer."""
        init = nn.initializers.constant
        weights = [
            self.param(f"lin{k}", init(1 / c), (c,)) for k, c in enumerate(tap_channels(self.net))
        ]
        return [x @ w for x, w in zip(layers, weights, strict=True)]


class Lpips(nn.Module):
    """The distance of two pictures; float32, exact products.

    Attributes:
      net: "vgg", "alex" or "squeeze".
    """

    net: str = "vgg"

    def setup(self):
        self.trunk, self.lin = Trunk(self.net), Lin(self.net)

    def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Inputs that `init` can be traced with."""
        return (jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32),) * 2

    @exact
    def maps(
        self, a: jax.Array, b: jax.Array, *, unit_range: bool = False, lin: bool = True
    ) -> list[jax.Array]:
        """The distance at every place of every layer.

        Args:
          a: pictures [B, H, W, 3] in [-1, 1].
          b: pictures of the same shape; gradients reach both.
          unit_range: they are in [0, 1] (the official `normalize`).
          lin: weigh the channels; False sums them (the official baseline).

        Returns:
          [B, h, w] a layer.
        """

        def features(x: jax.Array) -> tuple[jax.Array, ...]:
            x = 2 * x - 1 if unit_range else x
            taps, _ = self.trunk((x.astype(jnp.float32) - SHIFT) / SCALE)
            return tuple(x / (_length(x) + 1e-10) for x in taps)

        squares = [jnp.square(x - y) for x, y in zip(features(a), features(b), strict=True)]
        return self.lin(squares) if lin else [x.sum(-1) for x in squares]

    def layers(self, a: jax.Array, b: jax.Array, **kw) -> jax.Array:
        """The share of every layer, [B, layers]; arguments of `maps`."""
        return jnp.stack([x.mean((1, 2)) for x in self.maps(a, b, **kw)], -1)

    def spatial(self, a: jax.Array, b: jax.Array, **kw) -> jax.Array:
        """The distance at every pixel, [B, H, W]: maps enlarged (bilinear) and added up."""
        return sum(
            resize(x[..., None], a.shape[1:3], "bilinear")[..., 0] for x in self.maps(a, b, **kw)
        )

    def __call__(self, a: jax.Array, b: jax.Array, **kw) -> jax.Array:
        """The distance [B], 0 to rounding for equal pictures; arguments of `maps`."""
        return self.layers(a, b, **kw).sum(-1)


def _length(x: jax.Array) -> jax.Array:
    """Euclidean length over the channels, [..., 1]; where it is 0, so is its gradient, not NaN."""
    squares = jnp.square(x).sum(-1, keepdims=True)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
