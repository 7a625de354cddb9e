"""Losses of generators that draw in stages, with a discriminator for each picture size.

The StackGAN-v2 family: AttnGAN, DM-GAN and those that build on them. Every discriminator sees a
picture alone and together with its sentence. Here it is a function: `functools.partial(ctx, net)`
of a `jaxt2i.nn.critics.Critic`, called with the critic's method as a keyword. One that also sees
where objects are gets them with its pictures: a tuple of both stands for the pictures alone.
Sources: Xu et al. 2018 (AttnGAN, arXiv 1711.10485) equations 4 and 5; taoxugit/AttnGAN
code/miscc/losses.py; Hinz et al. 2022 (OP-GAN, arXiv 1910.13321) for wrong layouts.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import softplus

Discriminator = Callable[..., jax.Array]
Terms = dict[str, jax.Array]
Seen = jax.Array | tuple[Any, ...]

PAIRS = ("shift", "roll")


def wrong_pairs(h: jax.Array, sentence: jax.Array, rule: str) -> tuple[jax.Array, jax.Array]:
    """Features of real pictures beside sentences of other pictures.

    Args:
      h: [B, ...].
      sentence: [B, S].
      rule: "shift": B - 1 pairs of a picture and the next sentence, as published; "roll": B pairs,
        the last picture with the first sentence, which splits evenly over devices.
    """
    if rule == "shift":
        return h[:-1], sentence[1:]
    return h, jnp.roll(sentence, -1, 0)


def d_loss(
    discriminator: Discriminator,
    real: Seen,
    fake: Seen,
    sentence: jax.Array,
    *,
    pairs: str = "shift",
    unconditional: bool = True,
    refused: Mapping[str, Seen] | None = None,
    pair_weight: float = 1.0,
    alone_weight: float = 1.0,
) -> tuple[jax.Array, Terms]:
    """One discriminator's loss (equation 5, with the code's weights): a mean of what it should
    accept and a mean of what it should refuse.

    Args:
      discriminator: of this picture size.
      real: pictures [B, R, R, 3] in [-1, 1].
      fake: drawn pictures of the same shape, without gradient.
      sentence: [B, S], float32.
      pairs: see `wrong_pairs`.
      unconditional: whether it has a head for pictures alone.
      refused: {name: more pictures} that it should refuse, with their sentences and alone.
      pair_weight: of the terms of pairs.
      alone_weight: of the terms of pictures alone.

    Returns:
      (scalar, {"real_pair", "fake_pair", "wrong_pair", and "real", "fake" if unconditional; of what
      is refused "NAME_pair" and "NAME"}).
    """

    def together(h: jax.Array, sentence: jax.Array) -> jax.Array:
        return discriminator(h, sentence, train=True, method="together")

    accept = {"real": features(discriminator, real)}
    refuse = {"fake": fake, **(refused or {})}
    refuse = {name: features(discriminator, seen) for name, seen in refuse.items()}
    terms = {
        "real_pair": softplus(-together(accept["real"], sentence)).mean(),
        "fake_pair": softplus(together(refuse["fake"], sentence)).mean(),
        "wrong_pair": softplus(together(*wrong_pairs(accept["real"], sentence, pairs))).mean(),
    }
    for name in refused or ():
        terms[f"{name}_pair"] = softplus(together(refuse[name], sentence)).mean()
    if unconditional:
        terms["real"] = softplus(-discriminator(accept["real"], method="alone")).mean()
        for name, h in refuse.items():
            terms[name] = softplus(discriminator(h, method="alone")).mean()
    weighted = {
        name: scaled(value, pair_weight if name.endswith("_pair") else alone_weight)
        for name, value in terms.items()
    }
    good = [value for name, value in weighted.items() if name in ("real", "real_pair")]
    bad = [value for name, value in weighted.items() if name not in ("real", "real_pair")]
    return sum(good) / len(good) + sum(bad) / len(bad), terms


def scaled(value: jax.Array, weight: float) -> jax.Array:
    """A term times its weight; a weight of 1 is no operation."""
    return value if weight == 1 else weight * value


def features(discriminator: Discriminator, seen: Seen) -> jax.Array:
    """A discriminator's features of pictures, or of (pictures, what it is told of them)."""
    return discriminator(
        *(seen if isinstance(seen, tuple) else (seen,)), train=True, method="features"
    )


def g_terms(
    discriminators: Mapping[str, Discriminator],
    images: Sequence[Seen],
    sentence: jax.Array,
    *,
    unconditional: bool = True,
) -> Terms:
    """What every discriminator says of its drawn picture; their sum is the adversarial loss.

    Args:
      discriminators: by name, smallest pictures first.
      images: one for each of them, [B, R, R, 3] in [-1, 1], or a tuple, see above.
      sentence: [B, S], float32.
      unconditional: whether they have a head for pictures alone.

    Returns:
      {"NAME_pair": scalar, and "NAME_alone" if unconditional}.
    """
    terms = {}
    for (net, discriminator), image in zip(discriminators.items(), images, strict=True):
        h = features(discriminator, image)
        pair = discriminator(h, sentence, train=True, method="together")
        terms[f"{net}_pair"] = softplus(-pair).mean()
        if unconditional:
            terms[f"{net}_alone"] = softplus(-discriminator(h, method="alone")).mean()
    return terms


def divergence(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL of N(mean, exp(log_variance)) from N(0, I), averaged over examples and dimensions."""
    return -0.5 * (1 + log_variance - jnp.square(mean) - jnp.exp(log_variance)).mean()
