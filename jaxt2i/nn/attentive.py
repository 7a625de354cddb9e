"""AttnGAN's generator: three stages, each later one reading the caption's words pixel by pixel.

Xu et al. 2018 (arXiv 1711.10485); taoxugit/AttnGAN. AttnGAN's own, and CRD-CGAN's.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.nn import stages
from jaxt2i.nn.linear import Conv
from jaxt2i.nn.norms import orthogonal
from jaxt2i.nn.remat import Policy
from jaxt2i.nn.stages import Drawn, read_words


class NextStage(nn.Module):
    """Word attention, residual blocks, twice the size.

    Attributes:
      residuals: residual blocks.
      attention_mask: see `read_words`.
      group: of the batch norms.
      dtype: compute dtype.
      remat: of `Refinement`.
    """

    residuals: int = 2
    attention_mask: str = "tiled"
    group: int = 0
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    @nn.compact
    def __call__(self, h, words, mask, *, train: bool = False) -> tuple[jax.Array, ...]:
        """Features [B, R, R, g] and words [B, T, S] to the next ones.

        Returns:
          ([B, 2R, 2R, g], attention [B, T, R, R], what was read [B, R, R, g]).
        """
        channels = h.shape[-1]
        project = Conv(
            channels, 1, use_bias=False, kernel_init=orthogonal(), dtype=self.dtype, name="context"
        )
        words = project(words[:, None])[:, 0]  # [B, T, g]
        context, attention = read_words(h, words, words, mask, self.attention_mask)
        self.sow("intermediates", "read", context)
        refine = stages.Refinement(
            channels,
            blocks=self.residuals,
            group=self.group,
            dtype=self.dtype,
            remat=self.remat,
            name="refine",
        )
        return refine(jnp.concatenate([h, context], -1), train=train), attention, context


class Generator(nn.Module):
    """Latent and caption to a picture a stage (paper, figure 2).

    Attributes:
      base: channels of every stage's features, g.
      resolution: of the last stage, pixels.
      stages: how many; every stage doubles the size.
      residuals: residual blocks a stage; 0 is AttnDCGAN's.
      last_only: one picture, of the last stage (AttnDCGAN).
      attention_mask: see `read_words`.
      z_dim: width of the latent.
      c_dim: width of the augmented condition.
      words_dim: S, for `example` alone.
      group: of the batch norms.
      dtype: compute dtype; pictures are float32.
      remat: what each block keeps for the backward pass; see `recomputed`.
    """

    base: int = 32
    resolution: int = 256
    stages: int = 3
    residuals: int = 2
    last_only: bool = False
    attention_mask: str = "tiled"
    z_dim: int = 100
    c_dim: int = 100
    words_dim: int = 256
    group: int = 0
    dtype: jnp.dtype = jnp.float32
    remat: Policy = None

    def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Inputs that `init` can be traced with."""
        return stages.generator_inputs(self.z_dim, self.c_dim, self.words_dim)

    @nn.compact
    def __call__(self, z, eps, sentence, words, mask, *, train: bool = False) -> Drawn:
        """Draws.

        Args:
          z: [B, Z] ~ N(0, I).
          eps: [B, C] ~ N(0, I), the augmentation's noise, in evaluation too.
          sentence: [B, S].
          words: [B, T, S].
          mask: bool [B, T], True at words.
          train: normalise by the batch's statistics and move the running ones.
        """
        augment = stages.ConditioningAugmentation(self.c_dim, name="augment")
        cond, mean, log_variance = augment(sentence, eps)
        common = {"group": self.group, "dtype": self.dtype, "remat": self.remat}
        size = self.resolution // 2 ** (self.stages - 1)
        first = stages.FirstStage(base=self.base, resolution=size, name="stage1", **common)
        h = first(cond, z, train=train)
        images, attention, read = [], [], []
        for i in range(self.stages):
            if i:
                stage = NextStage(
                    residuals=self.residuals,
                    attention_mask=self.attention_mask,
                    name=f"stage{i + 1}",
                    **common,
                )
                h, share, context = stage(h, words, mask, train=train)
                attention.append(share)
                read.append(context)
            if not self.last_only or i == self.stages - 1:
                images.append(stages.ToImage(dtype=self.dtype, name=f"image{i + 1}")(h))
        return Drawn(tuple(images), tuple(attention), mean, log_variance, tuple(read))
