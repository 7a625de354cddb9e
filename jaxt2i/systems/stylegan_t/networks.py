"""StyleGAN-T's networks (Sauer et al., arXiv 2301.09515): generator and discriminator heads.

Text comes in as a vector c, `sentence`; its encoder, the frozen image encoder of the
discriminator and the guidance are networks of their own.
"""

import dataclasses
from collections.abc import Callable, Sequence
from collections.abc import Mapping as Dict

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.encoders.dino import normalize_image
from jaxt2i.nn import augment, resample
from jaxt2i.nn.dense import FullyConnected, StyleSplit, bias_act, normalize_2nd_moment
from jaxt2i.nn.modulated import modulated_conv, to_rgb
from jaxt2i.nn.norms import BatchNormLocal, SpectralConv
from jaxt2i.nn.remat import Policy, recomputed

FIRST = 8  # resolution of the first block, pixels
FIR = resample.setup_filter((1, 3, 3, 1))

_normal = nn.initializers.normal(1.0)


def resolutions(resolution: int) -> list[int]:
    """Resolutions of the synthesis blocks: 8, 16, ... up to the image's.

    Raises:
      ValueError: unless the resolution is a power of two from 8 on.
    """
    if resolution < FIRST or resolution & (resolution - 1):
        raise ValueError(
            f"resolution={resolution} is not a power of two from {FIRST} on; "
            "change config.data.resolution"
        )
    return [2**i for i in range(FIRST.bit_length() - 1, resolution.bit_length())]


def layer_sizes(resolution: int, num_res_blocks: int) -> dict[str, int]:
    """Resolution of every layer that takes noise, by name ("b16/conv0", "b16/convs1_0", ...)."""
    sizes = {}
    for r in resolutions(resolution):
        names = [] if r == FIRST else ["conv0"]
        names += [f"convs1_{j}" for j in range(2 * num_res_blocks)]
        sizes.update({f"b{r}/{name}": r for name in names})
    return sizes


def draw_noise(
    key: jax.Array, batch: int, resolution: int, num_res_blocks: int
) -> dict[str, jax.Array]:
    """One N(0, 1) map an example for every layer: {name: [batch, r, r, 1]}.

    Args:
      key: one key; or one key an image [batch], so that an image's noise does not depend on the
        batch it is drawn in.
      batch: number of images.
      resolution: the generator's, pixels.
      num_res_blocks: the generator's.
    """
    sizes = layer_sizes(resolution, num_res_blocks)

    def maps(key: jax.Array, lead: tuple[int, ...]) -> dict[str, jax.Array]:
        keys = jax.random.split(key, len(sizes))
        return {
            name: jax.random.normal(k, (*lead, r, r, 1))
            for k, (name, r) in zip(keys, sizes.items(), strict=True)
        }

    one_key = key.ndim == (0 if jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) else 1)
    return maps(key, (batch,)) if one_key else jax.vmap(lambda k: maps(k, ()))(key)


class Mapping(nn.Module):
    """z and text to w = [f(z), c]; only the part of z is truncated, towards its running mean.

    The mean of f(z) over training batches lives in the collection "stats" and advances at every
    training call.

    Attributes:
      z_dim: width of z and of f(z).
      layers: dense layers, the last one linear.
      lr_mult: learning rate factor of these layers.
      avg_beta: weight of the old running mean.
    """

    z_dim: int = 64
    layers: int = 2
    lr_mult: float = 0.01
    avg_beta: float = 0.995

    @nn.compact
    def __call__(
        self,
        z: jax.Array,
        sentence: jax.Array | None = None,
        *,
        psi: jax.Array | float = 1.0,
        train: bool = False,
    ) -> jax.Array:
        """Latents to w.

        Args:
          z: [B, z_dim], N(0, 1).
          sentence: text vectors [B, S], or None for the unconditional variant.
          psi: truncation, 1 = none, 0 = the mean; a scalar, or [B, 1].
          train: advance the running mean.

        Returns:
          w [B, z_dim + S].
        """
        x = normalize_2nd_moment(z.astype(jnp.float32))
        for i in range(self.layers):
            act = "linear" if i == self.layers - 1 else "lrelu"
            x = FullyConnected(self.z_dim, act=act, lr_mult=self.lr_mult, name=f"fc{i}")(x)
        average = self.variable("stats", "x_avg", jnp.zeros, (self.z_dim,))
        if train and not self.is_initializing() and self.is_mutable_collection("stats"):
            mean = jax.lax.stop_gradient(x).mean(0)
            average.value = mean + self.avg_beta * (average.value - mean)
        x = average.value + psi * (x - average.value)
        return x if sentence is None else jnp.concatenate([x, sentence.astype(x.dtype)], -1)


class SynthesisInput(nn.Module):
    """Fourier features of a plane that w moves and turns (StyleGAN3), instead of a constant.

    Attributes:
      channels: C.
      size: height and width, pixels.
      sampling_rate: pixels a unit of length.
      bandwidth: highest frequency drawn, cycles a unit of length.
    """

    channels: int
    size: int = FIRST
    sampling_rate: float = 8.0
    bandwidth: float = 2.0

    def _frequencies(self) -> jax.Array:
        g = jax.random.normal(self.make_rng("params"), (self.channels, 2))
        radius = jnp.linalg.norm(g, axis=1, keepdims=True)
        return g / (radius * jnp.exp(jnp.square(radius)) ** 0.25) * self.bandwidth

    def _phases(self) -> jax.Array:
        return jax.random.uniform(self.make_rng("params"), (self.channels,)) - 0.5

    @nn.compact
    def __call__(self, w: jax.Array) -> jax.Array:
        """W [B, D] to features [B, size, size, C], float32 throughout."""
        freqs = self.variable("buffers", "freqs", self._frequencies).value
        phases = self.variable("buffers", "phases", self._phases).value
        user = self.variable("buffers", "transform", lambda: jnp.eye(3)).value
        affine = FullyConnected(4, weight_init=0.0, bias_init=(1, 0, 0, 0), name="affine")
        t = affine(w.astype(jnp.float32))
        t = t / jnp.linalg.norm(t[:, :2], axis=1, keepdims=True)
        rc, rs, tx, ty = jnp.moveaxis(t, -1, 0)
        one, zero = jnp.ones_like(rc), jnp.zeros_like(rc)

        def matrices(*rows: tuple[jax.Array, ...]) -> jax.Array:  # [B, 3, 3]
            return jnp.stack([jnp.stack(row, -1) for row in rows], -2)

        turn = matrices((rc, -rs, zero), (rs, rc, zero), (zero, zero, one))
        move = matrices((one, zero, -tx), (zero, one, -ty), (zero, zero, one))
        # Phases reach hundreds of radians: every product here needs all of float32.
        exact = {"precision": "highest"}
        full = jnp.matmul(jnp.matmul(turn, move, **exact), user, **exact)
        phases = phases + jnp.einsum("ci,bi->bc", freqs, full[:, :2, 2], **exact)
        freqs = jnp.einsum("ci,bij->bcj", freqs, full[:, :2, :2], **exact)
        # Frequencies beyond what the grid can carry fade out.
        radius = jnp.linalg.norm(freqs, axis=-1)
        nyquist = self.sampling_rate / 2
        fade = 1 - (radius - self.bandwidth) / (nyquist - self.bandwidth)
        at = 0.5 * (2 * np.arange(self.size) + 1 - self.size) / self.sampling_rate
        grid = np.stack(np.meshgrid(at, at), -1).astype(np.float32)  # [y, x, (x, y)]
        wave = jnp.einsum("yxi,bci->byxc", grid, freqs, **exact) + phases[:, None, None]
        features = jnp.sin(2 * np.pi * wave) * jnp.clip(fade, 0, 1)[:, None, None]
        kernel = self.param("kernel", _normal, (self.channels, self.channels))
        return features @ (kernel / np.sqrt(self.channels))


def group_norm(dtype: jnp.dtype = jnp.float32, name: str | None = None) -> nn.GroupNorm:
    """Group norm over 32 groups, statistics in float32, result in `dtype`."""
    return nn.GroupNorm(32, epsilon=1e-5, use_fast_variance=False, dtype=dtype, name=name)


class SynthesisLayer(nn.Module):
    """3x3 modulated convolution, noise, bias, leaky ReLU; optionally as a residual.

    Attributes:
      features: output channels.
      up: 1 or 2.
      residual: normalise the input, scale the branch by a learned gamma and add it.
      gain: factor after the activation.
      clamp: largest magnitude before `gain`.
      variant: of the up-convolution, see `resample.up_conv`.
      dtype: compute dtype.
    """

    features: int
    up: int = 1
    residual: bool = False
    gain: float = 1.0
    clamp: float = 256.0
    variant: str = "auto"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, w: jax.Array, noise: jax.Array | None = None) -> jax.Array:
        """[B, H, W, I], w [B, D] and noise [B or 1, H up, W up, 1] to [B, H up, W up, features]."""
        inputs = x.shape[-1]
        x = x.astype(self.dtype)
        if self.residual:
            x = group_norm(self.dtype, name="norm")(x)
        s = StyleSplit(inputs, name="affine")(w)
        kernel = self.param("kernel", _normal, (3, 3, inputs, self.features))
        # The up-convolution's kernel is flipped with respect to the others', as published.
        y = modulated_conv(x, kernel, s, up=self.up, f=FIR, flip=self.up == 2, variant=self.variant)
        strength = self.param("noise_strength", nn.initializers.zeros, ())
        if noise is not None:
            y = y + (noise * strength).astype(y.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        gain, clamp = self.gain * float(np.sqrt(2)), self.clamp * self.gain
        y = bias_act(y, bias, "lrelu", gain=gain, clamp=clamp)
        if not self.residual:
            return y
        gamma = self.param("gamma", nn.initializers.constant(1e-5), (self.features,))
        # The skip carries the normalised input, as the official code does.
        return (x + gamma.astype(y.dtype) * y) * float(np.sqrt(2))


class ToRGB(nn.Module):
    """Features to an image's contribution, float32: a 1x1 modulated convolution.

    Attributes:
      features: output channels.
      clamp: largest magnitude of the result.
    """

    features: int = 3
    clamp: float = 256.0

    @nn.compact
    def __call__(self, x: jax.Array, w: jax.Array) -> jax.Array:
        """[B, H, W, C] and w [B, D] to float32 [B, H, W, features]."""
        channels = x.shape[-1]
        s = StyleSplit(channels, name="affine")(w) / np.sqrt(channels)
        init = nn.initializers.normal(0.1)
        kernel = self.param("kernel", init, (1, 1, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return bias_act(to_rgb(x, kernel, s), bias, clamp=self.clamp)


class SynthesisBlock(nn.Module):
    """All layers of one resolution.

    Attributes:
      features: channels, C(r).
      num_res_blocks: n; the block has 2n convolutions besides its first layer.
      first: start from `SynthesisInput` instead of the last block's features.
      variant: of the up-convolution.
      dtype: compute dtype.
    """

    features: int
    num_res_blocks: int
    first: bool
    variant: str = "auto"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array | None,
        image: jax.Array | None,
        ws: jax.Array,
        noise: Dict[str, jax.Array],
    ) -> tuple[jax.Array, jax.Array]:
        """One resolution of the synthesis.

        Args:
          x: the last block's features [B, r/2, r/2, C'], None for the first block.
          image: the last block's image [B, r/2, r/2, 3], None for the first block.
          ws: one w a layer, [B, 2n + 2, D]; the last one is ToRGB's.
          noise: {layer: map}.

        Returns:
          (features [B, r, r, C], image [B, r, r, 3] float32).
        """
        common = {"features": self.features, "dtype": self.dtype, "variant": self.variant}
        if self.first:
            x = SynthesisInput(self.features, name="input")(ws[:, 0]).astype(self.dtype)
        else:
            layer = SynthesisLayer(up=2, name="conv0", **common)
            x = layer(x, ws[:, 0], noise.get("conv0"))
        for j in range(2 * self.num_res_blocks):
            name = f"convs1_{j}"
            layer = SynthesisLayer(
                residual=j % 2 == 1, gain=float(np.sqrt(0.5)), name=name, **common
            )
            x = layer(x, ws[:, 1 + j], noise.get(name))
        rgb = ToRGB(name="torgb")(x, ws[:, 1 + 2 * self.num_res_blocks])
        return x, rgb if image is None else resample.upsample2d(image, FIR) + rgb


class Synthesis(nn.Module):
    """w to an image, one block a resolution (Table 5 of the paper: "lite" and "full").

    Attributes:
      resolution: height and width of the image, pixels.
      channel_base: C(r) = min(channel_base / r, channel_max).
      channel_max: see there.
      num_res_blocks: n of every block.
      low_precision_blocks: how many of the highest resolutions compute in `dtype`; the others in
        float32, as published.
      variant: of the up-convolutions, see `resample.up_conv`.
      dtype: compute dtype of the low-precision blocks.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    resolution: int
    channel_base: int = 32768
    channel_max: int = 512
    num_res_blocks: int = 2
    low_precision_blocks: int = 4
    variant: str = "auto"
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    @property
    def num_ws(self) -> int:
        """How many layers take a w."""
        return len(resolutions(self.resolution)) * (2 * self.num_res_blocks + 1) + 1

    def channels(self, r: int) -> int:
        """Channels of the block of resolution r."""
        count = min(self.channel_base // r, self.channel_max)
        if count % 32:
            raise ValueError(
                f"the {r} px block would have {count} channels, and group norm needs a multiple "
                f"of 32; change config.model.channel_base={self.channel_base} or "
                f"channel_max={self.channel_max}"
            )
        return count

    def _noise(self, noise: str | Dict[str, jax.Array], batch: int) -> Dict[str, jax.Array]:
        """Noise maps by layer. The constant ones are buffers, whichever mode is asked for."""
        sizes = layer_sizes(self.resolution, self.num_res_blocks)

        def fixed(r: int) -> jax.Array:
            return jax.random.normal(self.make_rng("params"), (r, r))

        constant = {
            name: self.variable("buffers", "noise_" + name.replace("/", "_"), fixed, r).value
            for name, r in sizes.items()
        }
        if not isinstance(noise, str):
            return noise
        if noise == "const":
            return {name: x[None, :, :, None] for name, x in constant.items()}
        if noise == "random":
            key = self.make_rng("noise")
            return draw_noise(key, batch, self.resolution, self.num_res_blocks)
        if noise != "none":
            raise ValueError(
                f"noise={noise!r} is not a mode; give 'const', 'none', 'random' or a dict of maps"
            )
        return {}

    @nn.compact
    def __call__(self, ws: jax.Array, *, noise: str | Dict[str, jax.Array] = "random") -> jax.Array:
        """Synthesises images.

        Args:
          ws: [B, D], or one w a layer [B, num_ws, D] (style mixing).
          noise: "random" (rng stream "noise"), "const" (the fixed maps), "none", or maps by layer
            as `draw_noise` makes them.

        Returns:
          [B, resolution, resolution, 3], float32, about [-1, 1] but not limited to it.

        Raises:
          ValueError: for a wrong number of ws, an unknown noise mode or impossible channels.
        """
        if ws.ndim == 2:
            ws = jnp.broadcast_to(ws[:, None], (len(ws), self.num_ws, ws.shape[-1]))
        if ws.shape[1] != self.num_ws:
            form = f"one w [B, D] or [B, {self.num_ws}, D]"
            raise ValueError(f"synthesis got {ws.shape[1]} ws, not {self.num_ws}; give {form}")
        maps = self._noise(noise, len(ws))
        x = image = None
        sides, per_block = resolutions(self.resolution), 2 * self.num_res_blocks + 1
        for i, r in enumerate(sides):
            low = i >= len(sides) - self.low_precision_blocks
            block = SynthesisBlock(
                features=self.channels(r),
                num_res_blocks=self.num_res_blocks,
                first=i == 0,
                dtype=self.dtype if low else jnp.float32,
                variant=self.variant,
                name=f"b{r}",
            )
            mine = {k.split("/")[1]: v for k, v in maps.items() if k.startswith(f"b{r}/")}
            # ToRGB shares its w with the next block's first layer.
            part = ws[:, i * per_block : (i + 1) * per_block + 1]
            x, image = recomputed(self.remat, block, x, image, part, mine)  # [B, r, r, C(r) and 3]
        return image


class Generator(nn.Module):
    """Mapping and synthesis as one network; the other fields are `Mapping`'s and `Synthesis`'s.

    Attributes:
      sentence_dim: width of the text vectors that `example` gives, 0 = unconditional.
    """

    resolution: int
    z_dim: int = 64
    channel_base: int = 32768
    channel_max: int = 512
    num_res_blocks: int = 2
    low_precision_blocks: int = 4
    variant: str = "auto"
    sentence_dim: int = 768
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    def setup(self):
        own = ("z_dim", "sentence_dim", "parent", "name")
        names = [f.name for f in dataclasses.fields(self) if f.name not in own]
        self.mapping = Mapping(z_dim=self.z_dim)
        self.synthesis = Synthesis(**{name: getattr(self, name) for name in names})

    def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Inputs that `init` can be traced with."""
        widths = (self.z_dim, self.sentence_dim)
        return tuple(jax.ShapeDtypeStruct((1, n), jnp.float32) for n in widths if n)

    def __call__(
        self,
        z: jax.Array,
        sentence: jax.Array | None = None,
        *,
        psi: jax.Array | float = 1.0,
        noise: str | Dict[str, jax.Array] = "random",
        train: bool = False,
    ) -> jax.Array:
        """Z [B, z_dim] and text vectors [B, S] to images [B, R, R, 3]."""
        return self.synthesis(self.mapping(z, sentence, psi=psi, train=train), noise=noise)


class HeadBlock(nn.Module):
    """Spectral convolution over tokens, virtual batch norm, leaky ReLU.

    Attributes:
      kernel: taps; the sequence of tokens is closed to a ring.
      residual: return (x + f(x)) / sqrt(2).
      virtual_size: see `BatchNormLocal`.
      dtype: compute dtype.
    """

    kernel: int
    residual: bool = False
    virtual_size: int = 8
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, N, C] to [B, N, C]."""
        conv = SpectralConv(
            x.shape[-1],
            kernel_size=(self.kernel,),
            padding="circular",
            dtype=self.dtype,
            name="conv",
        )
        y = BatchNormLocal(virtual_size=self.virtual_size, name="norm")(conv(x, train=train))
        y = bias_act(y, act="lrelu", gain=1.0)
        return (x + y) * float(np.sqrt(0.5)) if self.residual else y


class DiscriminatorHead(nn.Module):
    """Tokens and text to one logit a token: a projection discriminator.

    Attributes:
      cmap_dim: width of the projection.
      virtual_size, dtype: of `HeadBlock`; logits are float32.
    """

    cmap_dim: int = 64
    virtual_size: int = 8
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, sentence: jax.Array | None = None, *, train: bool = False
    ) -> jax.Array:
        """[B, N, C] and text vectors [B, S] (None: unconditional) to logits [B, N]."""
        block = {"virtual_size": self.virtual_size, "dtype": self.dtype}
        h = HeadBlock(1, name="block0", **block)(x.astype(self.dtype), train=train)
        h = HeadBlock(9, residual=True, name="block1", **block)(h, train=train)
        width = 1 if sentence is None else self.cmap_dim
        h = SpectralConv(width, kernel_size=(1,), dtype=self.dtype, name="cls")(h, train=train)
        h = h.astype(jnp.float32)
        if sentence is None:
            return h[..., 0]
        cmap = FullyConnected(self.cmap_dim, name="cmapper")(sentence)
        return (h * cmap[:, None]).sum(-1) / np.sqrt(self.cmap_dim)


class DiscriminatorHeads(nn.Module):
    """One independent head for each feature map of the frozen image encoder.

    Attributes:
      cmap_dim, virtual_size: of each `DiscriminatorHead`.
      maps, inputs, sentence_dim: number and channels of the feature maps and width of the text
        vectors that `example` gives; sentence_dim 0 = unconditional.
      dtype: compute dtype; logits are float32.
      remat: what each head keeps for the backward pass; see `recomputed`.
    """

    cmap_dim: int = 64
    virtual_size: int = 8
    maps: int = 5
    inputs: int = 384
    sentence_dim: int = 768
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    def example(self) -> tuple:
        """Inputs that `init` can be traced with."""
        taps = [jax.ShapeDtypeStruct((1, 1, self.inputs), jnp.float32)] * self.maps
        sentence = jax.ShapeDtypeStruct((1, self.sentence_dim), jnp.float32)
        return taps, sentence if self.sentence_dim else None

    @nn.compact
    def __call__(
        self,
        features: Sequence[jax.Array],
        sentence: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> jax.Array:
        """Feature maps, each [B, N, C], to logits [B, maps * N], map by map.

        Args:
          features: the encoder's taps, positions in row-major order.
          sentence: text vectors [B, S], or None.
          train: advance the spectral vectors.
        """
        logits, own = [], {"cmap_dim": self.cmap_dim, "virtual_size": self.virtual_size}
        for i, x in enumerate(features):
            head = DiscriminatorHead(dtype=self.dtype, name=f"head_{i}", **own)
            logits.append(recomputed(self.remat, head, x, sentence, train=train))
        return jnp.concatenate(logits, axis=1)


def draw_view(
    key: jax.Array, groups: int, size: int, out: int = 224, probability: float = 0.5
) -> dict[str, jax.Array]:
    """Whether, and where, each group of images is cropped before the encoder.

    Args:
      key: a random key.
      groups: number of groups, G.
      size: height and width of the images, pixels.
      out: the encoder's input size, pixels.
      probability: of a crop instead of a resize.

    Returns:
      crop: bool [G]; row, col: int32 [G], pixels.
    """
    first, second = jax.random.split(key)
    row, col = jax.random.randint(second, (2, groups), 0, max(size - out, 0) + 1)
    return {"crop": jax.random.bernoulli(first, probability, (groups,)), "row": row, "col": col}


def encoder_input(
    image: jax.Array,
    *,
    draws: augment.Draws | None = None,
    view: dict[str, jax.Array] | None = None,
    out: int = 224,
    normalize: Callable[[jax.Array], jax.Array] = normalize_image,
) -> jax.Array:
    """Images to the frozen encoder's input: augment, crop or resize, normalise.

    Args:
      image: [B, S, S, 3] in [-1, 1].
      draws: of `augment.draw`; None: no augmentation.
      view: of `draw_view`, one entry for each group of consecutive images; it counts only where
        S > out. None: always resize.
      out: the encoder's input size, pixels.
      normalize: from [-1, 1] to what the encoder expects.

    Returns:
      normalize's result, [B, out, out, 3].
    """
    size = image.shape[1]
    if draws is not None:
        image = augment.apply(image, draws)
    rows = cols = jnp.asarray(resample.area_matrix(out, size))
    if view is not None and size > out:
        crop = view["crop"][:, None, None]
        rows = jnp.where(crop, resample.crop_matrix(view["row"], out, size), rows)
        cols = jnp.where(crop, resample.crop_matrix(view["col"], out, size), cols)
    return normalize(resample.apply_matrices(image, rows, cols))


def discriminator_input(
    key: jax.Array,
    image: jax.Array,
    *,
    micro_batch: int,
    policy: str = "color,translation,cutout",
    crop_probability: float = 0.5,
    out: int = 224,
    normalize: Callable[[jax.Array], jax.Array] = normalize_image,
) -> jax.Array:
    """`encoder_input` with fresh draws: augmentation an image, the view a group of images.

    Args:
      key: a random key.
      image: [B, S, S, 3] in [-1, 1].
      micro_batch: consecutive images that share a view; the official code's images a GPU and
        accumulation round.
      policy: of `augment.draw`; "" does not augment.
      crop_probability: of a crop instead of a resize where S > out.
      out: the encoder's input size, pixels.
      normalize: from [-1, 1] to what the encoder expects.

    Raises:
      ValueError: when the batch is not a multiple of `micro_batch`.
    """
    batch, size = image.shape[:2]
    if batch % micro_batch:
        raise ValueError(
            f"a batch of {batch} does not split into micro-batches of {micro_batch}; change "
            "config.model.micro_batch or config.batch_size"
        )
    first, second = jax.random.split(key)
    draws = augment.draw(first, batch, size, policy)
    view = draw_view(second, batch // micro_batch, size, out, crop_probability)
    return encoder_input(image, draws=draws, view=view, out=out, normalize=normalize)


def guidance_input(
    image: jax.Array, row: jax.Array, col: jax.Array, *, crop: int = 64, out: int = 224
) -> jax.Array:
    """Images to what the text-image guidance sees: a crop of large images, enlarged to `out`.

    Args:
      image: [B, S, S, 3] in [-1, 1].
      row: first row of the crop, int [G], one for each group of consecutive images; it counts
        only where S > crop.
      col: first column, int [G].
      crop: side of the crop, pixels.
      out: side of the result, pixels.

    Returns:
      [B, out, out, 3] in [-1, 1].
    """
    size = image.shape[1]
    rows = cols = jnp.asarray(resample.area_matrix(out, min(crop, size)))
    if size > crop:
        cut = {"out": crop, "size": size}
        rows, cols = (rows @ resample.crop_matrix(at, **cut) for at in (row, col))
    return resample.apply_matrices(image, rows, cols)


def blur_sigma(images: jax.Array | float, init: float, fade_images: float) -> jax.Array:
    """Deviation of the blur of the discriminator's input, pixels: falls linearly from init to 0.

    Args:
      images: real images seen before this step.
      init: at the start; 32 as published.
      fade_images: when it reaches 0; 1 000 or less switches the blur off, as published.
    """
    if fade_images <= 1000:
        return jnp.float32(0)
    return init * jnp.maximum(1 - jnp.asarray(images, jnp.float32) / fade_images, 0)


def trainable(path: Sequence[str], mode: str, limit: int = 64) -> bool:
    """Whether a parameter of `Generator` is trained in one of the published modes.

    Args:
      path: keys of the parameter, such as ("synthesis", "b16", "conv0", "kernel").
      mode: "all"; "text_encoder" (the text tower alone, hence nothing here); "freeze64" (blocks
        above `limit` pixels, and every ToRGB, also below).
      limit: resolution, pixels.
    """
    if mode != "freeze64":
        return mode == "all"
    if path[0] != "synthesis":
        return False
    return int(path[1].removeprefix("b")) > limit or path[2] == "torgb"
