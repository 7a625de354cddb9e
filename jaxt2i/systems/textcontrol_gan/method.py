"""TextControlGAN: a critic that never sees the text, and a regressor that reads it off pictures.

Ku and Lee 2023 (Applied Sciences 13(8):5098, doi 10.3390/app13085098); ku-haeeun/TextControlGAN.
The critic judges realism alone (WGAN-GP, spectrally normalised); an independent regressor predicts
a caption's embedding from its picture, and the generator is held to embeddings, interpolated ones
among them, that the regressor finds in its pictures again.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.config import ConfigError, fields, micro_batches
from jaxt2i.data.schema import unit_range
from jaxt2i.encoders import perception
from jaxt2i.encoders.text import Text
from jaxt2i.engine.method import Batch, Control, Ctx, Method, Player, Sampler
from jaxt2i.losses.adversarial import linear_g
from jaxt2i.losses.penalties import squared_biases, unit_slope
from jaxt2i.losses.text import l2_normalize
from jaxt2i.metrics.drawn import better, scores
from jaxt2i.nn.augment import mirror, rotate
from jaxt2i.nn.initial import initialise
from jaxt2i.nn.nearest import resize_nearest
from jaxt2i.nn.norms import BatchNorm, SpectralConv, SpectralDense, orthogonal
from jaxt2i.nn.optim import Adam
from jaxt2i.nn.precision import compute_dtype, perception_dtype
from jaxt2i.nn.remat import Policy, recomputed

# Sentences that come with the data, and no encoder that makes them.
VECTORS = "vectors"
NORM_EVAL = ("batch", "running")
BATCHES = ("own", "shared")
# Added to the variance of conditional norms.
EPS = 1e-4

# --- Networks ------------------------------------------------------------------------------------


def doublings(resolution: int) -> int:
    """How many doublings lead from 4 pixels to `resolution`."""
    return resolution.bit_length() - 3


def widths(base: int, count: int, most: int) -> list[int]:
    """`count` + 1 numbers of channels, each twice the one before and `most` at most."""
    return [min(most, base * 2**k) for k in range(count + 1)]


def conv(features: int, size: int, dtype, name: str, use_bias: bool = True) -> SpectralConv:
    """A convolution as this system has them."""
    return SpectralConv(
        features,
        use_bias=use_bias,
        kernel_size=(size, size),
        kernel_init=orthogonal(),
        dtype=dtype,
        name=name,
    )


def dense(features: int, name: str, use_bias: bool = True, **given) -> SpectralDense:
    """A dense layer as this system has them; orthogonal where `given` says nothing else."""
    given = {"kernel_init": orthogonal()} | given
    return SpectralDense(features, use_bias=use_bias, name=name, **given)


def halve(x: jax.Array) -> jax.Array:
    """Means of 2x2 pixels."""
    return nn.avg_pool(x, (2, 2), (2, 2))


class ConditionalNorm(nn.Module):
    """(1 + A k) (x - mean) / sqrt(variance + 1e-4) + B k, with a condition k.

    The variance is the unbiased one. Source: CondBatchNorm2d of the official utils.py, which
    normalises by the batch at hand in evaluation, too.

    Attributes:
      running: keep running statistics, and normalise by them in evaluation.
      momentum: share of the new statistics in the running ones.
      dtype: compute dtype of the projections.
    """

    running: bool = False
    momentum: float = 0.1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, cond: jax.Array, *, train: bool = False) -> jax.Array:
        """X [B, H, W, C] and cond [B, K] to [B, H, W, C]; statistics are float32."""
        channels = x.shape[-1]
        small = {"kernel_init": nn.initializers.normal(0.005), "dtype": self.dtype}
        scale = dense(channels, "scale", use_bias=False, **small)(cond, train=train)
        shift = dense(channels, "shift", use_bias=False, **small)(cond, train=train)
        mean, variance = self.statistics(x.astype(jnp.float32), train)
        h = (x.astype(jnp.float32) - mean) * jax.lax.rsqrt(variance + EPS)
        return ((1 + scale[:, None, None]) * h + shift[:, None, None]).astype(x.dtype)

    def statistics(self, h: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """Mean and variance [C] to normalise by."""
        count = h.size // h.shape[-1]
        mean = h.mean((0, 1, 2))
        variance = jnp.square(h - mean).sum((0, 1, 2)) / max(count - 1, 1)
        if not self.running:
            return mean, variance
        kept_mean = self.variable("batch_stats", "mean", jnp.zeros, mean.shape)
        kept_variance = self.variable("batch_stats", "var", jnp.ones, mean.shape)
        if not train:
            return kept_mean.value, kept_variance.value
        if self.is_mutable_collection("batch_stats") and not self.is_initializing():
            for kept, new in ((kept_mean, mean), (kept_variance, variance)):
                kept.value += self.momentum * (new - kept.value)
        return mean, variance


class UpBlock(nn.Module):
    """Twice the size: a residual of two normalised convolutions, the first of one pixel.

    A convolution of one pixel and the doubling commute; this order needs a quarter of the products.

    Attributes:
      features: output channels.
      running: see `ConditionalNorm`.
      dtype: compute dtype.
    """

    features: int
    running: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, cond: jax.Array, *, train: bool = False) -> jax.Array:
        """X [B, H, H, C] and cond [B, K] to [B, 2H, 2H, features]."""
        size = 2 * x.shape[1]

        def norm(name: str) -> ConditionalNorm:
            return ConditionalNorm(running=self.running, dtype=self.dtype, name=name)

        def layer(name: str, window: int) -> SpectralConv:
            return conv(self.features, window, self.dtype, name, use_bias=False)

        h = nn.relu(norm("norm1")(x, cond, train=train))
        h = resize_nearest(layer("conv1", 1)(h, train=train), size)
        h = nn.relu(norm("norm2")(h, cond, train=train))
        h = layer("conv2", 3)(h, train=train)
        return h + resize_nearest(layer("shortcut", 1)(x, train=train), size)


class Generator(nn.Module):
    """Latent and sentence to a picture; the condition of a block is its own part of the latent.

    Attributes:
      base: channels at the full resolution.
      most: channels at most.
      resolution: of the pictures, pixels, a power of two from 8 on.
      part: width of each part of the latent, which has one a doubling, and of the conditions.
      sentence_dim: width of the sentence, for `example` alone.
      running: norms keep running averages that forget, and evaluation normalises by them; False:
        conditional norms always take the batch, and the last norm the average of all training.
      dtype: compute dtype.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    base: int = 96
    most: int = 1024
    resolution: int = 64
    part: int = 25
    sentence_dim: int = 1024
    running: bool = False
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    @property
    def z_dim(self) -> int:
        """Width of the latent."""
        return self.part * doublings(self.resolution)

    def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Inputs that `init` can be traced with."""
        sizes = (self.z_dim, self.sentence_dim)
        return tuple(jax.ShapeDtypeStruct((1, n), jnp.float32) for n in sizes)

    @nn.compact
    def __call__(self, z: jax.Array, sentence: jax.Array, *, train: bool = False) -> jax.Array:
        """Z [B, Z] and sentence [B, S] to pictures [B, R, R, 3] in (-1, 1), float32."""
        count = doublings(self.resolution)
        *channels, start = widths(self.base, count, self.most)
        first, *parts = jnp.split(z, count, -1)
        said = nn.relu(dense(128, "projection", dtype=self.dtype)(sentence, train=train))
        said = dense(self.part, "projection2", use_bias=False, dtype=self.dtype)(said, train=train)
        said = jnp.tanh(said)
        x = dense(16 * start, "start", use_bias=False, dtype=self.dtype)(first, train=train)
        x = jnp.moveaxis(x.reshape(len(z), start, 4, 4), 1, -1)
        # The last block's condition is the sentence alone.
        conditions = [*(said * part for part in parts), said]
        for i, (width, cond) in enumerate(zip(channels[::-1], conditions, strict=True), 1):
            block = UpBlock(width, running=self.running, dtype=self.dtype, name=f"block{i}")
            x = recomputed(self.remat, block, x, cond, train=train)
        momentum = 0.1 if self.running else None
        x = nn.relu(BatchNorm(momentum=momentum, affine=False, name="norm")(x, train=train))
        return jnp.tanh(conv(3, 3, self.dtype, "to_rgb")(x, train=train).astype(jnp.float32))

    def biases(self) -> jax.Array:
        """The sum of squares of all biases."""
        return squared_biases(self.variables["params"])


class Residual(nn.Module):
    """Two convolutions beside a shortcut of one pixel, perhaps half the size.

    The official ReLU works in place, so the shortcut, too, sees what it left. Pooling and a
    convolution of one pixel commute; this order needs a quarter of the products.

    Attributes:
      features: output channels.
      rectify: ReLU before the first convolution.
      down: halve the resolution.
      dtype: compute dtype.
    """

    features: int
    rectify: bool = True
    down: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, C] to [B, H', W', features]."""
        pool = halve if self.down else lambda x: x
        x = nn.relu(x) if self.rectify else x
        h = conv(self.features, 3, self.dtype, "conv1")(x, train=train)
        h = conv(self.features, 3, self.dtype, "conv2")(nn.relu(h), train=train)
        short = conv(self.features, 1, self.dtype, "shortcut")
        return pool(h) + short(pool(x), train=train)


class Trunk(nn.Module):
    """What critic and regressor have in common: a picture to its features, summed over positions.

    Attributes:
      base: channels at half the resolution.
      most: channels at most.
      resolution: of the pictures, pixels, a power of two from 8 on.
      dtype: compute dtype.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    base: int
    most: int
    resolution: int
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, R, R, 3] to [B, C], float32."""
        count = doublings(self.resolution)
        for i, width in enumerate(widths(self.base, count, self.most)):
            block = Residual(
                width, rectify=i > 0, down=i < count, dtype=self.dtype, name=f"block{i}"
            )
            x = recomputed(self.remat, block, x, train=train)
        return nn.relu(x).astype(jnp.float32).sum((1, 2))


class Discriminator(nn.Module):
    """A picture to a score of its realism; the sentence changes nothing.

    The official network projects the sentence and never uses it. The layers stay, so that its files
    fit, and because the penalty on biases counts theirs.

    Attributes:
      base, most, resolution, dtype, remat: see `Trunk`.
      sentence_dim: width of the sentence, for `example` alone.
    """

    base: int = 96
    most: int = 1024
    resolution: int = 64
    sentence_dim: int = 1024
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Inputs that `init` can be traced with."""
        shapes = (1, self.resolution, self.resolution, 3), (1, self.sentence_dim)
        return tuple(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)

    @nn.compact
    def __call__(
        self, x: jax.Array, sentence: jax.Array, *, train: bool = False, precise: bool = False
    ) -> jax.Array:
        """X [B, R, R, 3] to scores [B], float32; `precise` computes in float32."""
        dtype = jnp.float32 if precise else self.dtype
        trunk = Trunk(
            base=self.base,
            most=self.most,
            resolution=self.resolution,
            dtype=dtype,
            remat=self.remat,
            name="trunk",
        )
        said = nn.relu(dense(128, "projection", kernel_init=None)(sentence, train=train))
        dense(32, "projection2", use_bias=False, kernel_init=None)(said, train=train)
        return dense(1, "fc", use_bias=False)(trunk(x, train=train), train=train)[:, 0]

    def biases(self) -> jax.Array:
        """The sum of squares of all biases."""
        return squared_biases(self.variables["params"])


class Regressor(nn.Module):
    """A picture to the sentence that it is thought to have.

    Attributes:
      base, most, resolution, dtype, remat: see `Trunk`.
      sentence_dim: width of the sentence.
    """

    base: int = 64
    most: int = 256
    resolution: int = 64
    sentence_dim: int = 1024
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    def example(self) -> tuple[jax.ShapeDtypeStruct]:
        """Inputs that `init` can be traced with."""
        return (jax.ShapeDtypeStruct((1, self.resolution, self.resolution, 3), jnp.float32),)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, R, R, 3] to [B, S], float32."""
        trunk = Trunk(
            base=self.base,
            most=self.most,
            resolution=self.resolution,
            dtype=self.dtype,
            remat=self.remat,
            name="trunk",
        )
        return dense(self.sentence_dim, "fc")(trunk(x, train=train), train=train)


# --- Losses and sampling -------------------------------------------------------------------------


def distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """Mean over the batch of the squared distance of sentences [B, S]."""
    return jnp.square(a.astype(jnp.float32) - b.astype(jnp.float32)).sum(-1).mean()


def mixed(sentence: jax.Array, beta: jax.Array, order: jax.Array) -> jax.Array:
    """Interpolated sentences, beta t + (1 - beta) t[order].

    Args:
      sentence: t [B, S].
      beta: [B, 1], from U(0, 1) in training.
      order: int [B], a permutation.

    Source: Reed et al. 2016 (arXiv 1605.05396), GAN-INT.
    """
    return beta * sentence + (1 - beta) * sentence[order]


def half_of(batch: Batch, which: int) -> Batch:
    """Every second example, from the first (0) or the second (1) on; each stays on its device."""
    return jax.tree.map(lambda x: x.reshape(len(x) // 2, 2, *x.shape[1:])[:, which], batch)


@dataclasses.dataclass(frozen=True)
class Model:
    """Settings of the system; the defaults are those of the code, and so of the published files.

    Attributes:
      perception: where sentences come from: "vectors", the char-CNN-RNN embeddings that the data
        bring (config.data.source=hdf5, as published), or an encoder: "damsm", "mini" (ships with
        jaxt2i), one of OpenAI's CLIPs such as "clip_b32"; see jaxt2i.encoders.perception.
      weights: "pretrained", or "random" to measure speed without downloads.
      text_weights: file or folder to read an encoder from; "" = its usual place.
      text_vocab: word ids of a DAMSM text encoder.
      normalize_sentence: scale sentences to length sqrt(S), for encoders whose sentences are much
        longer or shorter.
      part: width of each part of the latent; 100 numbers in four parts at 64 pixels, 125 in five at
        128 (inferred: the code knows 64 alone).
      g_base, d_base, c_base: channels of G, of the critic and of the regressor at their largest
        pictures.
      g_most, c_most: channels of G and the critic, and of the regressor, at most.
      cbn_eval: "batch": conditional norms take the statistics of a batch of one caption, as the
        code does; a picture is then drawn beside `companions` - 1 others. "running": running
        averages, and one picture at a time.
      companions: pictures of a caption that are normalised together where one is drawn.
      psi: standard deviation of the latents that pictures are drawn with.
      regressor_weight: of the regressor's term in G's loss; 0 leaves the regressor out.
      regressor_batch: "own": of every two neighbours in a batch one goes to D and G, the other to
        the regressor, which so has examples of its own, as the code's second loader gives it;
        "shared": all see the whole batch.
      regressor_augment: mirror and turn the regressor's pictures (up to 20 degrees), as the paper
        says. The code declares it and never applies it.
      penalty_weight: of WGAN-GP.
      penalty_float32: compute the critic in float32 where the penalty differentiates it.
      bias_weight: of the squared biases of G and of the critic.
    """

    perception: str = VECTORS
    weights: str = "pretrained"
    text_weights: str = ""
    text_vocab: int = 5450
    normalize_sentence: bool = False
    part: int = 25
    g_base: int = 96
    d_base: int = 96
    c_base: int = 64
    g_most: int = 1024
    c_most: int = 256
    cbn_eval: str = "batch"
    companions: int = 64
    psi: float = 0.5
    regressor_weight: float = 1.0
    regressor_batch: str = "own"
    regressor_augment: bool = False
    penalty_weight: float = 10.0
    penalty_float32: bool = True
    bias_weight: float = 0.01


@dataclasses.dataclass(frozen=True)
class Losses:
    """The losses, the sampler and the scores, over networks named g, d, c, text, guide.

    Attributes:
      model: the settings.
      sees: the frozen networks; with "vectors" its guide alone is used.
      resolution: of the pictures, pixels.
    """

    model: Model
    sees: perception.Perception
    resolution: int

    @property
    def apart(self) -> bool:
        """Whether the regressor has examples of its own."""
        return bool(self.model.regressor_weight) and self.model.regressor_batch == "own"

    def text(self, ctx: Ctx, batch: Batch) -> Text:
        """One sentence an example, as all networks take it."""
        if self.model.perception == VECTORS:
            vector = batch["text_vector"]
            found = Text(vector, vector[:, None], jnp.ones((len(vector), 1), bool))
        else:
            found = ctx("text", batch["tokens"], batch["token_mask"])
        sentence = found.sentence.astype(jnp.float32)
        if self.model.normalize_sentence:
            sentence = l2_normalize(sentence) * sentence.shape[-1] ** 0.5
        return found.replace(sentence=sentence)

    def pictures(self, batch: Batch) -> jax.Array:
        """Real pictures [B, R, R, 3] in [-1, 1]."""
        return unit_range(batch["image"])

    def part_of(self, batch: Batch, player: str) -> Batch:
        """The examples of a player: "game" (D and G) or "regressor"."""
        return half_of(batch, int(player == "regressor")) if self.apart else batch

    def sentences(self, ctx: Ctx, sentence: jax.Array) -> jax.Array:
        """This step's interpolated sentences [B, S], the same for D and G."""
        count = len(sentence)
        beta = ctx.draw("beta", lambda key: jax.random.uniform(key, (count, 1)))
        order = ctx.draw("order", lambda key: jax.random.permutation(key, count))
        return mixed(sentence, beta, order)

    def latents(self, ctx: Ctx, sentence: jax.Array, player: str) -> jax.Array:
        """Z [B, Z] of a player."""
        shape = len(sentence), self.model.part * doublings(self.resolution)
        return ctx.draw(f"z_{player}", lambda key: jax.random.normal(key, shape))

    def look(self, ctx: Ctx, net: str, *args, **kw) -> jax.Array:
        """What a spectrally normalised network says; its vectors advance."""
        return ctx(net, *args, train=True, **kw)

    def penalty(self, ctx: Ctx, image: jax.Array, sentence: jax.Array) -> jax.Array:
        """WGAN-GP at given pictures; the critic's vectors advance as in any other look."""

        def total(image):
            scores = self.look(ctx, "d", image, sentence, precise=self.model.penalty_float32)
            return scores.sum(), ctx.extra["d"]

        # The vectors leave the inner differentiation by its front door.
        gradients, ctx.extra["d"] = jax.grad(total, has_aux=True)(image)
        return unit_slope(gradients)

    def d_loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The critic's turn."""
        m, batch = self.model, self.part_of(batch, "game")
        sentence, image = self.text(ctx, batch).sentence, self.pictures(batch)
        between = self.sentences(ctx, sentence)
        fake = ctx("g", self.latents(ctx, sentence, "d"), between, train=True)
        fake = jax.lax.stop_gradient(fake)
        logs = {
            "real": self.look(ctx, "d", image, sentence).mean(),
            "fake": self.look(ctx, "d", fake, between).mean(),
        }
        alpha = ctx.draw("alpha", lambda key: jax.random.uniform(key, (len(image), 1, 1, 1)))
        logs["penalty"] = self.penalty(ctx, alpha * image + (1 - alpha) * fake, sentence)
        logs["biases"] = ctx("d", method="biases")
        extra = m.penalty_weight * logs["penalty"] + m.bias_weight * logs["biases"]
        return logs["fake"] - logs["real"] + extra, logs

    def c_loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The regressor's turn: real pictures and their own sentences alone."""
        batch = self.part_of(batch, "regressor")
        image, sentence = self.pictures(batch), self.text(ctx, batch).sentence
        if self.model.regressor_augment:
            image = self.turned(ctx, image)
        return distance(self.look(ctx, "c", image), sentence), {}

    def turned(self, ctx: Ctx, image: jax.Array) -> jax.Array:
        """Pictures, half of them mirrored, each turned by up to 20 degrees on black."""
        u = ctx.draw("augment", lambda key: jax.random.uniform(key, (2, len(image))))
        return rotate(mirror(image, u[0] < 0.5), 40 * u[1] - 20)

    def g_loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The generator's turn, on latents of its own and the critic's sentences."""
        m, batch = self.model, self.part_of(batch, "game")
        sentence = self.text(ctx, batch).sentence
        between = self.sentences(ctx, sentence)
        image = ctx("g", self.latents(ctx, sentence, "g"), between, train=True)
        logs = {"adversarial": linear_g(self.look(ctx, "d", image, sentence))}
        total = logs["adversarial"]
        if m.regressor_weight:
            logs["text"] = distance(self.look(ctx, "c", image), between)
            total += m.regressor_weight * logs["text"]
        logs["biases"] = ctx("g", method="biases")
        return total + m.bias_weight * logs["biases"], logs

    def latent(self, key: jax.Array) -> jax.Array:
        """One z [Z], of unit variance."""
        return jax.random.normal(key, (self.model.part * doublings(self.resolution),))

    @property
    def sampler(self) -> Sampler:
        """How pictures are drawn."""
        vectors = self.model.perception == VECTORS
        return Sampler(
            draw=self.draw,
            needs=("text_vector",) if vectors else ("tokens", "token_mask"),
            text=self.text,
            latent=self.latent,
            controls=(
                Control("psi", self.model.psi, 0.0, 2.0, help="standard deviation of the latent"),
            ),
            pixels="floor",
        )

    def draw(self, ctx, rows, keys, *, z, text, psi) -> dict[str, jax.Array]:
        """One picture a key and sentence; with "batch" beside others of the same sentence."""
        m = self.model
        z = jnp.reshape(psi, (-1, 1)) * z
        if m.cbn_eval == "running":
            return {"image": ctx("g", z, text.sentence)}

        def one(given):
            z, sentence, key, scale = given
            others = scale * jax.random.normal(
                jax.random.fold_in(key, 1), (m.companions - 1, len(z))
            )
            beside = jnp.broadcast_to(sentence, (m.companions, len(sentence)))
            return ctx("g", jnp.concatenate([z[None], others]), beside)[0]

        scale = jnp.broadcast_to(psi, (len(z),))
        return {"image": jax.lax.map(one, (z, text.sentence, keys, scale))}

    def score(self, ctx: Ctx, batch: Batch) -> dict[str, jax.Array]:
        """Held-out pictures against pictures drawn for their sentences, as the guide sees them."""
        keys = jax.random.split(ctx.rng("score"), len(batch["image"]))
        text = self.text(ctx, batch)
        fake = self.sampler(ctx, batch, keys, text=text)["image"]
        seen = [ctx("guide", self.sees.look(x))[0] for x in (self.pictures(batch), fake)]
        return scores(*seen, text.sentence if self.joint else None)

    @property
    def joint(self) -> bool:
        """Whether the guide and the sentences share a space."""
        return self.model.perception != VECTORS and self.sees.joint

    def nets(self, dtype: jnp.dtype, sentence: int) -> dict[str, nn.Module]:
        """The networks; sentences are `sentence` wide."""
        m = self.model
        common = {"resolution": self.resolution, "sentence_dim": sentence, "dtype": dtype}
        running = m.cbn_eval == "running"
        out = {
            "g": Generator(base=m.g_base, most=m.g_most, part=m.part, running=running, **common),
            "d": Discriminator(base=m.d_base, most=m.g_most, **common),
        }
        if m.regressor_weight:
            out["c"] = Regressor(base=m.c_base, most=m.c_most, **common)
        if m.perception != VECTORS:
            out["text"] = self.sees.text
        return out | {"guide": self.sees.guide}


def check(model: Model, cfg) -> None:
    """Refuses settings that do not fit together.

    Raises:
      ConfigError: names the config line and the fix.
    """
    size = cfg.data.resolution
    if size < 16 or size & (size - 1):
        raise ConfigError(f"config.data.resolution={size}: a power of two from 16 on")
    for name, value, known in (
        ("cbn_eval", model.cbn_eval, NORM_EVAL),
        ("regressor_batch", model.regressor_batch, BATCHES),
    ):
        if value not in known:
            raise ConfigError(f"config.model.{name}={value!r}; expected one of {known}")
    if model.companions < 1:
        raise ConfigError(f"config.model.companions={model.companions}: 1 or more")
    if model.perception == VECTORS and not cfg.data.get("text_width", 0):
        raise ConfigError(
            "config.model.perception='vectors' reads embeddings that the data bring, and "
            "config.data.text_width does not say how wide they are: 1024 for char-CNN-RNN's"
        )
    own = model.regressor_weight and model.regressor_batch == "own"
    parts = micro_batches(cfg)
    if own and cfg.batch_size // parts % 2:
        raise ConfigError(
            f"config.batch_size={cfg.batch_size} (over config.accumulate={parts}): half of a batch "
            "is the regressor's, so it must be even; or "
            "--config.model.regressor_batch=shared"
        )


def build(cfg) -> Method:
    """The method of a config: `cfg.model` holds `Model`, `cfg.optim.g`, `.d`, `.c` an `Adam`."""
    model = fields(Model, cfg.model, "config.model")
    check(model, cfg)
    vectors = model.perception == VECTORS
    sees = perception.make(
        "mini" if vectors else model.perception,
        dtype=perception_dtype(cfg),
        weights=model.weights,
        clip_weights=model.text_weights,
        vocab=model.text_vocab,
        real=(
            "at the published size, on CUB's birds:\n"
            "  python -m jaxt2i.train --config configs/textcontrol_gan.py:cub "
            "--config.data.path=birds.hdf5"
        ),
    )
    losses = Losses(model, sees, cfg.data.resolution)
    dtype = compute_dtype(cfg.precision, jax.default_backend())
    nets = losses.nets(dtype, cfg.data.text_width if vectors else sees.sentence)
    turns = {"d": losses.d_loss, "c": losses.c_loss, "g": losses.g_loss}
    tx = {n: fields(Adam, cfg.optim[n], f"config.optim.{n}").tx() for n in turns}
    return Method(
        nets=nets,
        players=tuple(Player(n, (n,), turns[n], tx[n]) for n in turns if n in nets),
        init=lambda key, batch: initialise(nets, key),
        needs=("image", *losses.sampler.needs),
        sampler=losses.sampler,
        frozen=tuple(n for n in nets if n not in turns),
        pretrained={n: load for n, load in sees.load.items() if n in nets},
        vocab=0 if vectors else sees.text.vocab,
        score=losses.score,
        better=better(losses.joint),
        mixes=(
            "batch norm takes its statistics from a micro-batch",
            "interpolated sentences are of the captions of a micro-batch",
        ),
        notes=(
            "sentences: embeddings that come with the data; the Frechet distance while training is "
            "the shipped mini CLIP's, to choose checkpoints by, not to report"
            if vectors
            else sees.about,
        ),
    )
