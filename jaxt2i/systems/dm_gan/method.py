"""DM-GAN: AttnGAN's game with a dynamic memory of the words in every later stage.

Zhu et al. 2019 (arXiv 1904.01310), and MinfengZhu/DM-GAN. Losses, latents, frozen encoders and
sampler are AttnGAN's `Game`; the later stages and the discriminators' normalisation differ.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.config import ConfigError, fields
from jaxt2i.engine.method import Method
from jaxt2i.nn.linear import Linear
from jaxt2i.nn.norms import orthogonal
from jaxt2i.nn.precision import compute_dtype
from jaxt2i.nn.remat import Policy
from jaxt2i.nn.stages import (
    ConditioningAugmentation,
    FirstStage,
    Refinement,
    ToImage,
    read_words,
)
from jaxt2i.systems.attngan import method as attngan


class MemoryStage(nn.Module):
    """Writes words into a memory, reads it at every pixel, and refines (paper, section 3.1).

    Attributes:
      residuals: residual blocks.
      attention_mask: see `read_words`.
      summary_gradient: let gradients pass the picture's summary in the writing gate; the code
        stops them.
      twice: feed the updated features to the residual blocks twice, as the code does; False:
        beside the features before the update.
      group: of the batch norms.
      dtype: compute dtype.
      remat: of `Refinement`.
    """

    residuals: int = 2
    attention_mask: str = "tiled"
    summary_gradient: bool = False
    twice: bool = True
    group: int = 0
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    @nn.compact
    def __call__(self, h, words, mask, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """Features [B, R, R, g], words [B, T, S] to ([B, 2R, 2R, g], attention [B, T, R, R])."""
        channels = h.shape[-1]

        def dense(features: int, name: str, bias: bool = True) -> Linear:
            return Linear(features, self.dtype, orthogonal(), use_bias=bias, name=name)

        summary = h.astype(jnp.float32).mean((1, 2))[:, None]  # [B, 1, g]
        if not self.summary_gradient:
            summary = jax.lax.stop_gradient(summary)
        gate = dense(1, "gate_words", False)(words) + dense(1, "gate_image", False)(summary)
        gate = jax.nn.sigmoid(gate)  # equation 5, [B, T, 1]
        written = nn.relu(dense(2 * channels, "write_words")(words))
        kept = nn.relu(dense(2 * channels, "write_image")(summary))
        memory = gate * written + (1 - gate) * kept  # equation 6, [B, T, 2g]
        keys = nn.relu(dense(channels, "key")(memory))
        values = nn.relu(dense(channels, "value")(memory))
        read, attention = read_words(h, keys, values, mask, self.attention_mask)
        respond = dense(1, "respond")(jnp.concatenate([h, read], -1))
        share = jax.nn.sigmoid(respond)  # equation 10, [B, R, R, 1]
        new = (1 - share) * h + share * read
        kept = jnp.broadcast_to(kept, written.shape)
        for name, value in (("kept", kept), ("memory", memory), ("read", read)):
            self.sow("intermediates", name, value)
        own = (self.residuals, self.group, self.dtype, self.remat)
        refine = Refinement(channels, *own, name="refine")
        both = jnp.concatenate([new if self.twice else h, new], -1)
        return refine(both, train=train), attention


class Generator(nn.Module):
    """Latent and caption to a picture a stage.

    Attributes:
      base: channels of every stage's features, g.
      resolution: of the last stage, pixels.
      stages: how many; every stage doubles the size.
      residuals: residual blocks a stage.
      attention_mask: see `read_words`.
      summary_gradient, twice: see `MemoryStage`.
      z_dim: width of the latent.
      c_dim: width of the augmented condition.
      words_dim: S, for `example` alone.
      group: of the batch norms.
      dtype: compute dtype; pictures are float32.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    base: int = 64
    resolution: int = 256
    stages: int = 3
    residuals: int = 2
    attention_mask: str = "tiled"
    summary_gradient: bool = False
    twice: bool = True
    z_dim: int = 100
    c_dim: int = 100
    words_dim: int = 256
    group: int = 0
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Inputs that `init` can be traced with."""
        return attngan.example(self.z_dim, self.c_dim, self.words_dim)

    @nn.compact
    def __call__(self, z, eps, sentence, words, mask, *, train: bool = False) -> attngan.Drawn:
        """Draws; arguments as those of AttnGAN's generator."""
        augment = ConditioningAugmentation(self.c_dim, name="augment")
        cond, mean, log_variance = augment(sentence, eps)
        size = self.resolution // 2 ** (self.stages - 1)
        first = FirstStage(self.base, size, self.group, self.dtype, self.remat, name="stage1")
        h = first(cond, z, train=train)
        images, attention = [ToImage(self.dtype, name="image1")(h)], []
        for i in range(2, self.stages + 1):
            own = (self.residuals, self.attention_mask, self.summary_gradient, self.twice)
            stage = MemoryStage(*own, self.group, self.dtype, self.remat, name=f"stage{i}")
            h, share = stage(h, words, mask, train=train)
            attention.append(share)
            images.append(ToImage(self.dtype, name=f"image{i}")(h))
        return attngan.Drawn(tuple(images), tuple(attention), mean, log_variance)


@dataclasses.dataclass(frozen=True)
class Model(attngan.Model):
    """AttnGAN's settings with DM-GAN's widths, and what the paper leaves open.

    Attributes:
      summary_gradient, twice: see `MemoryStage`; the defaults are the code's.
    """

    g_base: int = 64
    d_base: int = 32
    summary_gradient: bool = False
    twice: bool = True


def build(cfg) -> Method:
    """The method of a config: `cfg.model` holds `Model`, `cfg.optim.d` and `.g` one `Adam` each."""
    model = fields(Model, cfg.model, "config.model")
    attngan.check(model, cfg.data.resolution)
    if model.last_only:
        raise ConfigError(
            "config.model.last_only=True: DM-GAN draws and judges every stage; the variant with "
            "one picture is AttnGAN's, configs/attngan.py:cub_dcgan"
        )
    dtype = compute_dtype(cfg.precision, jax.default_backend())
    game = attngan.Game(model, cfg.data.resolution)
    generator = Generator(
        model.g_base,
        cfg.data.resolution,
        model.stages,
        model.residuals,
        model.attention_mask,
        model.summary_gradient,
        model.twice,
        model.z_dim,
        model.c_dim,
        model.width,
        model.norm_group,
        dtype,
    )
    judges = game.judges("spectral", dtype)
    return game.method(cfg, {"g": generator, **judges, **game.encoders(cfg.data.tokens, dtype)})
