"""Obj-GAN's shape generator and its two discriminators, of objects and of whole pictures."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.nn.linear import Conv, torch_uniform
from jaxt2i.nn.norms import instance_norm, orthogonal
from jaxt2i.nn.resample import conv2d
from jaxt2i.nn.stages import conv3, glu

SLOPE = 0.2
# Height and width of the shapes over those of the features between.
SHRINK = 4


def leaky(x: jax.Array) -> jax.Array:
    """Leaky ReLU."""
    return jax.nn.leaky_relu(x, SLOPE)


def by_object(function, x: jax.Array) -> jax.Array:
    """A function of pictures [B N, ...] on arrays [B, N, ...]."""
    y = function(x.reshape(-1, *x.shape[2:]))
    return y.reshape(*x.shape[:2], *y.shape[1:])


class ConvLstm(nn.Module):
    """An LSTM over the objects of a picture whose states are maps (Shi et al. 2015, 1506.04214).

    Gates are input, forget, output, candidate, of one convolution of input and state.

    Attributes:
      width: channels of the state, H.
      dtype: compute dtype.
    """

    width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, N, h, w, C] to the state behind every object, [B, N, h, w, H]."""
        batch, _, *size, inputs = x.shape
        shape = (3, 3, inputs + self.width, 4 * self.width)
        kernel = self.param("kernel", orthogonal(), shape).astype(self.dtype)
        bias = self.param("bias", torch_uniform(9 * shape[2]), (4 * self.width,))
        # What the inputs drive, all objects in one convolution.
        drive = by_object(lambda x: conv2d(x, kernel[:, :, :inputs]), x.astype(self.dtype))
        drive = drive + bias.astype(self.dtype)

        def turn(carry, drive):
            h, c = carry
            i, f, o, g = jnp.split(drive + conv2d(h, kernel[:, :, inputs:]), 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        start = jnp.zeros((batch, *size, self.width), self.dtype)
        _, states = jax.lax.scan(turn, (start, start), jnp.moveaxis(drive, 1, 0))
        return jnp.moveaxis(states, 0, 1)


class Generator(nn.Module):
    """Boxes in maps of their classes, and noise, to the shapes of all objects.

    Attributes:
      classes: channels of the maps.
      width: n, channels behind the last doubling; 0: as many as classes, as published.
      size: of maps and shapes, pixels.
      slots: objects, for `example` alone.
      dtype: compute dtype; shapes are float32.
    """

    classes: int = 80
    width: int = 0
    size: int = 64
    slots: int = 2
    dtype: jnp.dtype = jnp.float32

    @property
    def channels(self) -> int:
        """As many as `width` or `classes` says, n."""
        return self.width or self.classes

    @property
    def z_dim(self) -> int:
        """Width of an object's noise."""
        return 4 * self.channels

    def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Inputs that `init` can be traced with."""
        n, s, shape = self.slots, self.size, jax.ShapeDtypeStruct
        maps = shape((1, n, s, s, self.classes), jnp.float32)
        crops = shape((1, n, s // SHRINK, s // SHRINK), jnp.float32)
        return shape((1, n, self.z_dim), jnp.float32), maps, maps, crops, shape((1,), jnp.int32)

    def setup(self):
        n, common = self.channels, {"use_bias": False, "dtype": self.dtype}
        down = {"stride": 2, "kernel_init": orthogonal(), **common}
        self.down1, self.down2 = Conv(2 * n, **down), Conv(4 * n, **down)
        self.ahead, self.back = (ConvLstm(2 * n, dtype=self.dtype) for _ in range(2))
        self.joint = conv3(8 * n, self.dtype, None)
        self.block0, self.block1 = (conv3(8 * n, self.dtype, None) for _ in range(2))
        self.block2 = conv3(4 * n, self.dtype, None)
        self.up1, self.up2 = (conv3(k * n, self.dtype, None, up=True) for k in (4, 2))
        self.shape = Conv(1, 1, kernel_init=orthogonal(), **common)

    def shrunk(self, maps: jax.Array) -> jax.Array:
        """Maps [B, S, S, classes] to features [B, S / 4, S / 4, 4 n]."""
        x = leaky(instance_norm(self.down1(maps.astype(self.dtype))))
        return leaky(instance_norm(self.down2(x)))

    def gated(self, layer: nn.Module, x: jax.Array) -> jax.Array:
        """A convolution, a norm and a gate."""
        return glu(instance_norm(layer(x)))

    def drawn(self, x: jax.Array, crops: jax.Array) -> jax.Array:
        """Joined features [B, h, h, 8 n] and the boxes [B, h, h] to shapes [B, S, S]."""
        x = self.gated(self.joint, x)
        self.sow("intermediates", "joined", x)
        x = x * crops[..., None].astype(x.dtype)
        x = x + self.block2(self.gated(self.block1, self.gated(self.block0, x)))
        self.sow("intermediates", "residual", x)
        for layer in (self.up1, self.up2):
            x = self.gated(layer, x)
        self.sow("intermediates", "large", x)
        return jax.nn.sigmoid(self.shape(x)[..., 0].astype(jnp.float32))

    def __call__(self, z, forward, backward, crops, count) -> jax.Array:
        """Draws.

        Args:
          z: [B, N, 4 n] ~ N(0, I).
          forward: [B, N, S, S, classes], each object's box in the map of its class.
          backward: the same in the order of the second reading.
          crops: [B, N, S / 4, S / 4], each object's box.
          count: int [B]: the second reading's state behind map t is that of object count - 1 - t.

        Returns:
          [B, N, S, S], float32 in (0, 1).
        """
        seen = [by_object(self.shrunk, maps) for maps in (forward, backward)]
        self.sow("intermediates", "shrunk", seen[0])
        ahead, back = self.ahead(seen[0]), self.back(seen[1])
        self.sow("intermediates", "states", (ahead, back))
        place = count[:, None] - 1 - jnp.arange(z.shape[1])
        index = jnp.clip(place, 0)[..., None, None, None]
        back = jnp.take_along_axis(back, index, 1) * (place >= 0)[..., None, None, None]
        spread = jnp.broadcast_to(
            z[:, :, None, None].astype(ahead.dtype), (*ahead.shape[:4], z.shape[-1])
        )
        x = jnp.concatenate([ahead, back, spread], -1)
        flat = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
        shapes = self.drawn(flat(x), flat(crops))
        return shapes.reshape(*x.shape[:2], *shapes.shape[1:])


class Critic(nn.Module):
    """Says whether a shape, beside its box in the map of its class, is a real one.

    Attributes:
      classes: channels of the maps.
      width: n, twice the channels behind the first halving; 0: as many as classes, as published.
      size: of maps and shapes, pixels.
      dtype: compute dtype; logits are float32.
    """

    classes: int = 80
    width: int = 0
    size: int = 64
    dtype: jnp.dtype = jnp.float32

    def example(self) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        """Inputs that `init` can be traced with."""
        s, shape = self.size, jax.ShapeDtypeStruct
        return shape((1, s, s), jnp.float32), shape((1, s, s, self.classes), jnp.float32)

    @nn.compact
    def __call__(self, shapes: jax.Array, maps: jax.Array) -> jax.Array:
        """Shapes [B, S, S] and maps [B, S, S, classes] to logits [B]."""
        x = jnp.concatenate([shapes[..., None], maps], -1).astype(self.dtype)
        width, i = self.width or self.classes, 0
        while x.shape[1] > 4:
            width, i = max(width // 2, 1), i + 1
            down = Conv(
                width,
                4,
                stride=2,
                pad=1,
                use_bias=False,
                kernel_init=orthogonal(),
                dtype=self.dtype,
                name=f"down{i}",
            )
            x = leaky(instance_norm(down(x)))
        self.sow("intermediates", "features", x)
        last = Conv(1, 4, stride=4, pad=0, kernel_init=orthogonal(), name="logits")
        return last(x.astype(jnp.float32)).reshape(len(x))
