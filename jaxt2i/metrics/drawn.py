"""What a training run is judged by: drawn pictures against held-out ones and their captions."""

from collections.abc import Callable
from typing import Any

import jax

from jaxt2i.losses.text import l2_normalize
from jaxt2i.metrics.frechet import frechet_distance
from jaxt2i.metrics.retrieval import mean_cosine, r_precision

BETTER = {"frechet": "lower", "clip": "higher", "r_precision": "higher"}


def better(joint: bool) -> dict[str, str]:
    """The direction of each score; without a joint space captions have none."""
    return BETTER if joint else {"frechet": BETTER["frechet"]}


def scores(real: jax.Array, fake: jax.Array, sentence: jax.Array | None) -> dict[str, jax.Array]:
    """The scores of pictures drawn for captions, in the space of one image and text encoder.

    Args:
      real: [N, S], embedded pictures that the captions belong to, any length.
      fake: [N, S], embedded pictures that were drawn for the captions.
      sentence: [N, S], embedded captions; None: not in the same space.

    Returns:
      {name: scalar} of `better`.
    """
    real, fake = l2_normalize(real), l2_normalize(fake)
    if sentence is None:
        return {"frechet": frechet_distance(real, fake)}
    return {
        "frechet": frechet_distance(real, fake),
        "clip": mean_cosine(fake, sentence),
        "r_precision": r_precision(fake, sentence),
    }


def held_out(
    ctx: Any,
    real: jax.Array,
    draw: Callable[[jax.Array], dict[str, Any]],
    sentence: jax.Array | None,
) -> dict[str, jax.Array]:
    """The scores of held-out pictures and of what is drawn for their rows, as the guide sees both.

    Args:
      ctx: the networks; "image" is pictures in [-1, 1] -> (regions, codes [N, S]).
      real: [N, H, W, 3] in [-1, 1].
      draw: keys [N] -> {"image": [N, H, W, 3] in [-1, 1]}, drawn for the rows of `real`.
      sentence: [N, S], codes of their captions; None: not in the same space.

    Returns:
      {name: scalar} of `better`.
    """
    keys = jax.random.split(ctx.rng("score"), len(real))
    seen = [ctx("image", x)[1] for x in (real, draw(keys)["image"])]
    return scores(*seen, sentence)
