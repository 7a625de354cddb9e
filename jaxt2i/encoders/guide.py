"""A frozen DAMSM beside a generator: it reads the captions, and says whether pictures match them.

Xu et al. 2018 (AttnGAN, arXiv 1711.10485), section 3.2, and the systems that guide theirs alike.
The settings are those of a system: any object with the attributes that are named here.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.encoders.damsm import DamsmImage, DamsmText
from jaxt2i.encoders.text import Text
from jaxt2i.losses.damsm import Gammas, damsm


def networks(model: Any, *, tokens: int, resolution: int, dtype: jnp.dtype) -> dict[str, nn.Module]:
    """The two encoders, as they were trained.

    Args:
      model: settings with text_vocab, embed, width, trunk, align_corners and base.
      tokens: positions of a caption.
      resolution: of the pictures, pixels.
      dtype: compute dtype of the image encoder.
    """
    return {
        "text": DamsmText(
            vocab=model.text_vocab, length=tokens, embed=model.embed, width=model.width
        ),
        "image": DamsmImage(
            trunk=model.trunk,
            width=model.width,
            align_corners=model.align_corners,
            base=model.base,
            resolution=resolution,
            dtype=dtype,
        ),
    }


def matched(
    see: Callable[..., Any],
    model: Any,
    batch: Mapping[str, jax.Array],
    image: jax.Array,
    text: Text,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The DAMSM loss of pictures and their captions.

    Args:
      see: a network by its name: see("image", pictures) -> (regions, code).
      model: settings with class_mask, gamma1, gamma2, gamma3 and divide_by_gamma2.
      batch: holds `label` where pictures of a class are no negatives.
      image: [B, R, R, 3] in [-1, 1].
      text: their captions, as the text encoder reads them.

    Returns:
      (scalar, its four terms).
    """
    return damsm(
        *see("image", image),
        text.words,
        text.sentence,
        text.mask,
        label=batch["label"] if model.class_mask else None,
        gammas=gammas(model),
    )


def gammas(model: Any) -> Gammas:
    """The sharpness of a system's DAMSM loss."""
    return Gammas(
        attend=model.gamma1,
        words=model.gamma2,
        match=model.gamma3,
        divide=model.divide_by_gamma2,
    )
