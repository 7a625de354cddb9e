"""Losses of generators that draw in stages, with a discriminator for each picture size.

The StackGAN-v2 family: AttnGAN, DM-GAN and those that build on them. Every discriminator sees a
picture alone and together with its sentence. Here it is a function: `functools.partial(ctx, net)`
of a `jaxt2i.nn.critics.Critic`, called with the critic's method as a keyword. Sources: Xu et al.
2018 (AttnGAN, arXiv 1711.10485) equations 4 and 5; taoxugit/AttnGAN code/miscc/losses.py.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.nn import softplus

Discriminator = Callable[..., jax.Array]
Terms = dict[str, jax.Array]

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
    real: jax.Array,
    fake: jax.Array,
    sentence: jax.Array,
    *,
    pairs: str = "shift",
    unconditional: bool = True,
) -> tuple[jax.Array, Terms]:
    """One discriminator's loss (equation 5, with the code's weights).

    Args:
      discriminator: of this picture size.
      real: pictures [B, R, R, 3] in [-1, 1].
      fake: drawn pictures of the same shape, without gradient.
      sentence: [B, S], float32.
      pairs: see `wrong_pairs`.
      unconditional: whether it has a head for pictures alone.

    Returns:
      (scalar, {"real_pair", "fake_pair", "wrong_pair", and "real", "fake" if unconditional}).
    """

    def features(image: jax.Array) -> jax.Array:
        return discriminator(image, train=True, method="features")

    def together(h: jax.Array, sentence: jax.Array) -> jax.Array:
        return discriminator(h, sentence, train=True, method="together")

    h_real, h_fake = features(real), features(fake)
    terms = {
        "real_pair": softplus(-together(h_real, sentence)).mean(),
        "fake_pair": softplus(together(h_fake, sentence)).mean(),
        "wrong_pair": softplus(together(*wrong_pairs(h_real, sentence, pairs))).mean(),
    }
    wrong = terms["fake_pair"] + terms["wrong_pair"]
    if not unconditional:
        return terms["real_pair"] + wrong / 2, terms
    terms["real"] = softplus(-discriminator(h_real, method="alone")).mean()
    terms["fake"] = softplus(discriminator(h_fake, method="alone")).mean()
    return (terms["real"] + terms["real_pair"]) / 2 + (terms["fake"] + wrong) / 3, terms


def g_terms(
    discriminators: Mapping[str, Discriminator],
    images: Sequence[jax.Array],
    sentence: jax.Array,
    *,
    unconditional: bool = True,
) -> Terms:
    """What every discriminator says of its drawn picture; their sum is the adversarial loss.

    Args:
      discriminators: by name, smallest pictures first.
      images: one for each of them, [B, R, R, 3] in [-1, 1].
      sentence: [B, S], float32.
      unconditional: whether they have a head for pictures alone.

    Returns:
      {"NAME_pair": scalar, and "NAME_alone" if unconditional}.
    """
    terms = {}
    for (net, discriminator), image in zip(discriminators.items(), images, strict=True):
        h = discriminator(image, train=True, method="features")
        pair = discriminator(h, sentence, train=True, method="together")
        terms[f"{net}_pair"] = softplus(-pair).mean()
        if unconditional:
            terms[f"{net}_alone"] = softplus(-discriminator(h, method="alone")).mean()
    return terms


def divergence(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL of N(mean, exp(log_variance)) from N(0, I), averaged over examples and dimensions."""
    return -0.5 * (1 + log_variance - jnp.square(mean) - jnp.exp(log_variance)).mean()
