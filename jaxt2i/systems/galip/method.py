"""GALIP: a frozen CLIP inside the generator and inside the discriminator.

Tao, Bao, Tang, Xu, CVPR 2023 (arXiv 2301.12959). The generator predicts a grid of patch tokens
and prompts, sends them through CLIP's own blocks and draws from what comes back; the discriminator
reads CLIP's hidden states of a picture. One image tower serves both, and the similarity loss.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.config import ConfigError, at_least, fields, micro_batches
from jaxt2i.data.schema import unit_range
from jaxt2i.encoders import clip, perception
from jaxt2i.encoders.text import Text
from jaxt2i.engine.method import Batch, Ctx, Ema, Method, Player, Sampler
from jaxt2i.losses import adversarial
from jaxt2i.losses.penalties import Penalised, penalised
from jaxt2i.metrics.drawn import BETTER, scores
from jaxt2i.metrics.retrieval import mean_cosine
from jaxt2i.nn.affine import Fusion, UpBlock, leaky, widths
from jaxt2i.nn.initial import initialise
from jaxt2i.nn.linear import Conv, Linear
from jaxt2i.nn.nearest import resize_nearest
from jaxt2i.nn.optim import Adam
from jaxt2i.nn.precision import compute_dtype, perception_dtype
from jaxt2i.nn.remat import Policy, recomputed

CLIP_INPUTS = ("galip", "clip")

# --- Networks ----------------------------------------------------------------------------------


def sizes(grid: int, resolution: int) -> list[int]:
    """Resolution behind each generator block: powers of two above `grid`, then `resolution`."""
    powers = (2**k for k in range(1, resolution.bit_length()))
    return [*(n for n in powers if grid < n < resolution), resolution]


def clip_input(image: jax.Array, size: int, kind: str) -> jax.Array:
    """Pictures as the image tower is shown them.

    Args:
      image: [B, R, R, 3] in [-1, 1].
      size: the tower's resolution, pixels.
      kind: "clip": normalised as CLIP was trained; "galip": the official code brings the range
        to [0, 1] twice, so that CLIP sees the picture washed out, in [0.5, 1].

    Returns:
      [B, size, size, 3].
    """
    image = resize_nearest(image, size)
    return clip.normalize_image(0.5 * image + 0.5 if kind == "galip" else image)


class BridgeBlock(nn.Module):
    """A residual of two convolutions, each followed by a fusion with the condition (M_Block).

    Attributes:
      features: output channels.
      hidden: channels between the convolutions.
      dtype: compute dtype.
    """

    features: int
    hidden: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, cond: jax.Array) -> jax.Array:
        """X [B, h, w, C] and cond [B, K] to [B, h, w, features]."""
        h = Conv(self.hidden, dtype=self.dtype, name="conv1")(x)
        h = Fusion(dtype=self.dtype, name="fuse1")(h, cond)
        h = Conv(self.features, dtype=self.dtype, name="conv2")(h)
        h = Fusion(dtype=self.dtype, name="fuse2")(h, cond)
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, dtype=self.dtype, name="c_sc")(x)
        return x + h


class Generator(nn.Module):
    """What is trained of the generator: before CLIP's blocks (`bridge`) and behind (`draw`).

    Attributes:
      base: channels at the full resolution, n_f; 8 n_f at most.
      resolution: of the pictures, pixels.
      grid: patches along a side of CLIP's input.
      width: channels of CLIP's tokens.
      prompts: how many of CLIP's blocks read a prompt, P.
      bridge_blocks: blocks of the bridge feature predictor.
      bridge_base: their channels; 0 = `base`.
      clip_share: factor on what CLIP's blocks return before it joins the bridge feature.
      z_dim, sentence_dim: widths of the inputs, for `example` alone.
      dtype: compute dtype.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    base: int = 64
    resolution: int = 224
    grid: int = 7
    width: int = 768
    prompts: int = 8
    bridge_blocks: int = 4
    bridge_base: int = 0
    clip_share: float = 0.1
    z_dim: int = 100
    sentence_dim: int = 512
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Inputs that `init` can be traced with."""
        widths = (self.z_dim, self.sentence_dim)
        return tuple(jax.ShapeDtypeStruct((1, n), jnp.float32) for n in widths)

    def setup(self):
        steps = sizes(self.grid, self.resolution)
        channels, inner = widths(self.base, len(steps)), self.bridge_base or self.base
        dtype = self.dtype
        self.fc_code = Linear(inner * self.grid**2, dtype=dtype)
        self.bridge_block = [
            BridgeBlock(features=inner, hidden=inner // 2, dtype=dtype)
            for _ in range(self.bridge_blocks)
        ]
        self.conv_fuse = Conv(self.width, 5, dtype=dtype)
        self.fc_prompt = Linear(self.prompts * self.width, dtype=dtype)
        self.conv = Conv(channels[0], 5, dtype=dtype)
        self.block = [
            UpBlock(c, size=n, dtype=dtype) for c, n in zip(channels[1:], steps, strict=True)
        ]
        self.to_rgb = Conv(3, dtype=dtype)

    def bridge(self, z: jax.Array, sentence: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Z [B, Z] and sentence [B, S] to (bridge feature [B, g, g, W], prompts [B, P, W])."""
        cond = jnp.concatenate([z, sentence], -1)
        x = self.fc_code(z).reshape(len(z), -1, self.grid, self.grid)
        x = jnp.moveaxis(x, 1, -1)  # [B, g, g, bridge_base]
        for block in self.bridge_block:
            x = recomputed(self.remat, block, x, cond)
        prompts = self.fc_prompt(cond).reshape(len(z), self.prompts, self.width)
        return self.conv_fuse(x), prompts

    def draw(self, z, sentence, bridge: jax.Array, mapped: jax.Array) -> jax.Array:
        """The bridge feature and CLIP's answer, both [B, g, g, W], to pictures [B, R, R, 3].

        Not bounded; clip to [-1, 1] to look at them.
        """
        cond = jnp.concatenate([z, sentence], -1)
        x = self.conv(bridge + self.clip_share * mapped)  # [B, g, g, 8 n_f]
        for block in self.block:
            x = recomputed(self.remat, block, x, cond)
        return self.to_rgb(leaky(x)).astype(jnp.float32)

    def __call__(self, z: jax.Array, sentence: jax.Array) -> jax.Array:
        """Both halves without CLIP between them: what initialises the parameters."""
        bridge, _ = self.bridge(z, sentence)
        return self.draw(z, sentence, bridge, bridge)


class FeatureBlock(nn.Module):
    """Shortcut + gamma * residual + beta * another of CLIP's features; both 0 at the start.

    Attributes:
      features: output channels.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, clip_feature: jax.Array | None = None) -> jax.Array:
        """X [B, h, w, C] and the feature, of the output's shape, to [B, h, w, features]."""
        zeros = nn.initializers.zeros
        h = leaky(Conv(self.features, use_bias=False, dtype=x.dtype, name="conv0")(x))
        h = leaky(Conv(self.features, use_bias=False, dtype=x.dtype, name="conv1")(h))
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, dtype=x.dtype, name="conv_s")(x)
        x = x + self.param("gamma", zeros, (1,)).astype(x.dtype) * h
        if clip_feature is not None:
            x = x + self.param("beta", zeros, (1,)).astype(x.dtype) * clip_feature
        return x


class Features(nn.Module):
    """The discriminator's image part (NetD): CLIP's hidden states to one map.

    Attributes:
      base: n_f; the output has 8 n_f channels.
      taps, grid, width: how many hidden states, of how many patches and channels; for `example`.
      dtype: compute dtype.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    base: int = 64
    taps: int = 3
    grid: int = 7
    width: int = 768
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    def example(self) -> tuple[jax.ShapeDtypeStruct]:
        """Inputs that `init` can be traced with."""
        shape = (1, self.taps, self.grid, self.grid, self.width)
        return (jax.ShapeDtypeStruct(shape, jnp.float32),)

    @nn.compact
    def __call__(self, states: jax.Array, precise: bool = False) -> jax.Array:
        """[B, taps, g, g, W] to [B, g, g, 8 n_f]; `precise` computes in float32."""
        states = states.astype(jnp.float32 if precise else self.dtype)
        x = states[:, 0]
        for i in range(1, states.shape[1]):
            block = FeatureBlock(x.shape[-1], name=f"block{i - 1}")
            x = recomputed(self.remat, block, x, states[:, i])
        return recomputed(self.remat, FeatureBlock(8 * self.base, name="main"), x)


class Quality(nn.Module):
    """The discriminator's joint part (NetC): a map and a sentence to one logit.

    Attributes:
      base: n_f; the hidden layer has 2 n_f channels.
      grid, sentence_dim: of the inputs, for `example` alone.
      dtype: compute dtype.
    """

    base: int = 64
    grid: int = 7
    sentence_dim: int = 512
    dtype: jnp.dtype = jnp.float32

    def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Inputs that `init` can be traced with."""
        shapes = (1, self.grid, self.grid, 8 * self.base), (1, self.sentence_dim)
        return tuple(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)

    @nn.compact
    def __call__(self, x: jax.Array, sentence: jax.Array, precise: bool = False) -> jax.Array:
        """X [B, g, g, C] and sentence [B, S] to logits [B], float32."""
        dtype = jnp.float32 if precise else self.dtype
        tiled = jnp.broadcast_to(sentence[:, None, None], (*x.shape[:3], sentence.shape[-1]))
        x = jnp.concatenate([x.astype(dtype), tiled.astype(dtype)], -1)
        plain = {"pad": 0, "use_bias": False, "dtype": dtype}
        x = leaky(Conv(2 * self.base, 4, name="conv0", **plain)(x))
        # 4 patches remain of the published 7; the window covers whatever remains.
        x = Conv(1, x.shape[1], name="conv1", **plain)(x)
        return x[:, 0, 0, 0].astype(jnp.float32)


# --- Losses and sampling -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Model:
    """Settings of the system; the defaults are the published ones, for CLIP ViT-B/32.

    Attributes:
      perception: which CLIP: "clip_b32" (published), "clip_b16", "clip_l14", "clip_l14_336",
        "mclip_b32" and "mclip_l14" (captions in many languages), or "mini" (ships with jaxt2i); see
        jaxt2i.encoders.perception. Patches, channels and layers follow it.
      weights: "pretrained", or "random" to measure speed without downloads.
      clip_weights: file or folder to read CLIP from; "" = its usual place.
      z_dim: width of the latent.
      g_base, d_base: n_f of the generator and the discriminator.
      image_size: of the drawn pictures, pixels; 0 = config.data.resolution. Published: 224, from
        real pictures of 256.
      bridge_blocks: blocks of the bridge feature predictor.
      bridge_base: their channels; 0 = g_base. The official code writes 64, whatever n_f is; both
        are 64 as published.
      first_prompt, prompts: the first of CLIP's blocks (0-based) that reads a prompt, and how many
        do from there on.
      clip_share: factor on what CLIP's blocks return inside the generator.
      taps: CLIP's blocks (0-based) whose outputs the discriminator sees.
      clip_input: "galip" (published) or "clip" (corrected range); see `clip_input`.
      similarity_weight: weight of the cosine between a drawn picture and its caption.
      mismatch: pictures beside their neighbours' captions count as fake, at half weight.
      mismatch_group: consecutive examples, at most, whose captions go round among themselves; 0 =
        the whole batch. The official code's are those of a process, 64 in its published runs.
      penalty_weight, penalty_power: k and p of MA-GP; weight 0 leaves it out.
      penalty_float32: compute the discriminator in float32 where the penalty differentiates it.
      ema_images: half-life of an average of G in images; 0 = none, as published.
    """

    perception: str = "clip_b32"
    weights: str = "pretrained"
    clip_weights: str = ""
    z_dim: int = 100
    g_base: int = 64
    d_base: int = 64
    image_size: int = at_least(0, 224)
    bridge_blocks: int = 4
    bridge_base: int = 0
    first_prompt: int = at_least(0, 1)
    prompts: int = 8
    clip_share: float = 0.1
    taps: tuple[int, ...] = at_least(0, (1, 4, 8))
    clip_input: str = "galip"
    similarity_weight: float = 4.0
    mismatch: bool = True
    mismatch_group: int = 0
    penalty_weight: float = 2.0
    penalty_power: float = 6.0
    penalty_float32: bool = True
    ema_images: float = 0.0


@dataclasses.dataclass(frozen=True)
class Losses:
    """The losses, the sampler and the scores, over networks named g, d, c, text, image.

    Attributes:
      model: the settings.
      sees: the frozen perception; its guide is the network "image".
      resolution: of the drawn pictures, pixels.
    """

    model: Model
    sees: perception.Perception
    resolution: int

    def text(self, ctx: Ctx, batch: Batch) -> Text:
        """The captions as G and D take them: sentences are not normalised."""
        return ctx("text", batch["tokens"], batch["token_mask"])

    def pictures(self, batch: Batch) -> jax.Array:
        """Real pictures in [-1, 1]."""
        return unit_range(batch["image"])

    def latents(self, ctx: Ctx, batch: Batch) -> jax.Array:
        """This step's z [B, Z], the same for both players, which saves a generator pass."""
        return ctx.draw(
            "z", lambda key: jax.random.normal(key, (len(batch["image"]), self.model.z_dim))
        )

    def generate(self, ctx: Ctx, z: jax.Array, sentence: jax.Array) -> jax.Array:
        """Pictures [B, R, R, 3], not bounded."""
        bridge, prompts = ctx("g", z, sentence, method="bridge")
        first = self.model.first_prompt
        mapped = ctx("image", bridge, prompts, first, method="prompted")
        return ctx("g", z, sentence, bridge, mapped, method="draw")

    def look(self, ctx: Ctx, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        """CLIP's view of pictures: (hidden states [B, taps, g, g, W], embedding [B, S])."""
        seen = clip_input(image, self.sees.guide_resolution, self.model.clip_input)
        embedding, blocks = ctx("image", seen)
        states = jnp.stack([blocks[k, :, 1:] for k in self.model.taps], 1)
        grid = self.sees.guide.resolution // self.sees.guide.patch
        return states.reshape(*states.shape[:2], grid, grid, -1), embedding

    def real_terms(
        self, ctx: Ctx, states: jax.Array, sentence: jax.Array
    ) -> tuple[Penalised, jax.Array | None]:
        """Real hidden states with their own captions (with MA-GP) and with wrong ones.

        Returns:
          (logits and penalty of the right pairs, logits [B] of the wrong ones or None).
        """
        m = self.model

        def score(states, sentence):
            features = ctx("d", states, precise=m.penalty_float32)
            return ctx("c", features, sentence, precise=m.penalty_float32), features

        own = penalised(
            score, (states.astype(jnp.float32), sentence), m.penalty_weight, m.penalty_power
        )
        if not m.mismatch:
            return own, None
        size = min(m.mismatch_group or len(sentence), len(sentence))
        groups = sentence.reshape(-1, size, sentence.shape[-1])
        return own, ctx("c", own.rest, jnp.roll(groups, -1, 1).reshape(sentence.shape))

    def fake(self, ctx: Ctx, batch: Batch, sentence: jax.Array) -> tuple[jax.Array, jax.Array]:
        """CLIP's view of this step's drawn pictures, drawn and seen once for both players."""
        z = self.latents(ctx, batch)
        return ctx.shared("fake", "g", lambda c: self.look(c, self.generate(c, z, sentence)))

    def d_loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Hinge terms and MA-GP on CLIP's hidden states (paper section 3.5)."""
        sentence = self.text(ctx, batch).sentence.astype(jnp.float32)
        states, _ = self.fake(ctx, batch, sentence)
        own, other = self.real_terms(ctx, self.look(ctx, self.pictures(batch))[0], sentence)
        fake = ctx("c", ctx("d", jax.lax.stop_gradient(states)), sentence)
        logs = {"real": adversarial.hinge_real(own.logits), "fake": adversarial.hinge_fake(fake)}
        wrong = logs["fake"]
        if other is not None:
            logs["mismatched"] = adversarial.hinge_fake(other)
            wrong = (wrong + logs["mismatched"]) / 2
        logs["penalty"] = own.penalty
        return logs["real"] + wrong + logs["penalty"], logs

    def g_loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """-mean D(c(f), s) - weight * mean cos(i(f), s)."""
        sentence = self.text(ctx, batch).sentence.astype(jnp.float32)
        states, embedding = self.fake(ctx, batch, sentence)
        logs = {
            "adversarial": adversarial.linear_g(ctx("c", ctx("d", states), sentence)),
            "similarity": mean_cosine(embedding, sentence),
        }
        loss = logs["adversarial"] - self.model.similarity_weight * logs["similarity"]
        return loss, logs

    def latent(self, key: jax.Array) -> jax.Array:
        """One z [Z]."""
        return jax.random.normal(key, (self.model.z_dim,))

    @property
    def sampler(self) -> Sampler:
        """How pictures are drawn."""
        return Sampler(draw=self.draw, text=self.text, latent=self.latent, pixels="floor")

    def draw(self, ctx, rows, keys, *, z, text) -> dict[str, jax.Array]:
        """One picture a key and caption, without truncation."""
        return {"image": self.generate(ctx, z, text.sentence.astype(jnp.float32))}

    def score(self, ctx: Ctx, batch: Batch) -> dict[str, jax.Array]:
        """Held-out pictures against pictures drawn for their captions, as CLIP sees them."""
        keys = jax.random.split(ctx.rng("score"), len(batch["image"]))
        text = self.text(ctx, batch)
        fake = jnp.clip(self.sampler(ctx, batch, keys, text=text)["image"], -1, 1)
        seen = [ctx("image", self.sees.look(x))[0] for x in (self.pictures(batch), fake)]
        return scores(*seen, text.sentence)

    def nets(self, dtype: jnp.dtype) -> dict[str, nn.Module]:
        """The networks."""
        m, tower = self.model, self.sees.guide
        grid = tower.resolution // tower.patch
        return {
            "g": Generator(
                base=m.g_base,
                resolution=self.resolution,
                grid=grid,
                width=tower.width,
                prompts=m.prompts,
                bridge_blocks=m.bridge_blocks,
                bridge_base=m.bridge_base,
                clip_share=m.clip_share,
                z_dim=m.z_dim,
                sentence_dim=self.sees.sentence,
                dtype=dtype,
            ),
            "d": Features(
                base=m.d_base, taps=len(m.taps), grid=grid, width=tower.width, dtype=dtype
            ),
            "c": Quality(base=m.d_base, grid=grid, sentence_dim=self.sees.sentence, dtype=dtype),
            "text": self.sees.text,
            "image": tower,
        }


def build(cfg) -> Method:
    """The method of a config: `cfg.model` holds `Model`, `cfg.optim.g` and `.d` one `Adam` each."""
    model = fields(Model, cfg.model, "config.model")
    dtype = compute_dtype(cfg.precision, jax.default_backend())
    sees = perception.make(
        model.perception,
        dtype=perception_dtype(cfg),
        weights=model.weights,
        clip_weights=model.clip_weights,
        real=(
            "with CLIP ViT-B/32, at the published size, on COCO:\n"
            "  python -m jaxt2i.train --config configs/galip.py:coco --config.data.path=DIR"
        ),
    )
    size = model.image_size or cfg.data.resolution
    check(model, sees, size)
    part = cfg.batch_size // micro_batches(cfg)
    if 0 < model.mismatch_group < part and part % model.mismatch_group:
        raise ConfigError(
            f"config.model.mismatch_group={model.mismatch_group} does not divide the {part} "
            "examples of config.batch_size / config.accumulate; 0 is the whole batch"
        )
    losses = Losses(model, sees, size)
    nets = losses.nets(dtype)
    tx = {n: fields(Adam, cfg.optim[n], f"config.optim.{n}").tx() for n in ("d", "g")}
    load = dict(sees.load)
    if "guide" in load:
        load["image"] = load.pop("guide")
    return Method(
        nets=nets,
        players=(
            Player("d", ("d", "c"), losses.d_loss, tx["d"]),
            Player("g", ("g",), losses.g_loss, tx["g"]),
        ),
        init=lambda key, batch: initialise(nets, key),
        needs=("image", "tokens", "token_mask"),
        sampler=losses.sampler,
        frozen=("text", "image"),
        pretrained={n: loader for n, loader in load.items() if n in nets},
        ema={"g": Ema(model.ema_images)} if model.ema_images else {},
        vocab=sees.text.vocab,
        score=losses.score,
        better=BETTER,
        guided_by=("image",),
        mixes=(
            ("wrong captions go round among the pictures of a micro-batch",)
            if model.mismatch
            else ()
        ),
        notes=(sees.about,),
    )


def check(model: Model, sees: perception.Perception, size: int) -> None:
    """Refuses settings that do not fit together.

    Raises:
      ConfigError: names the config line and the fix.
    """
    tower = sees.guide
    if not sees.joint:
        raise ConfigError(
            f"config.model.perception={model.perception!r} has no image tower, which GALIP is made "
            "of; choose 'mini', one of OpenAI's CLIPs such as 'clip_b32', or 'mclip_b32'"
        )
    if model.clip_input not in CLIP_INPUTS:
        raise ConfigError(
            f"config.model.clip_input={model.clip_input!r}; known: {', '.join(CLIP_INPUTS)}"
        )
    if not model.taps or not all(0 <= k < tower.layers for k in model.taps):
        raise ConfigError(
            f"config.model.taps={tuple(model.taps)}: {model.perception} has blocks 0 to "
            f"{tower.layers - 1}"
        )
    last = model.first_prompt + model.prompts
    if model.first_prompt < 0 or model.prompts < 1 or last > tower.layers:
        raise ConfigError(
            f"config.model.first_prompt={model.first_prompt} and config.model.prompts="
            f"{model.prompts}: {model.perception} has {tower.layers} blocks, so their sum may be "
            f"{tower.layers} at most"
        )
    grid = tower.resolution // tower.patch
    if size <= grid:
        raise ConfigError(
            f"pictures of {size} pixels (config.model.image_size, or config.data.resolution where "
            f"that is 0) are not larger than the {grid} x {grid} patches they are drawn from"
        )
