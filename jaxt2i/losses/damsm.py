"""The deep attentional multimodal similarity (Xu et al. 2018, AttnGAN, section 3.2), float32.

Every picture of the batch is compared with every caption. Under a sharded `jit` the batch is the
global one: negatives come from all devices.
"""

import dataclasses

import jax
import jax.numpy as jnp

EPS = 1e-8


@dataclasses.dataclass(frozen=True)
class Gammas:
    """The sharpness of each softmax.

    Attributes:
      attend: gamma1, of a word's attention over regions. The paper says 5, the code 4.
      words: gamma2, of the sum over a caption's words.
      match: gamma3, of the match between pictures and captions.
      divide: divide a caption's score by gamma2, as equation 10 does and the code does not.
    """

    attend: float = 4.0
    words: float = 5.0
    match: float = 10.0
    divide: bool = False


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Product a . b / max(|a| |b|, 1e-8) along the last axis."""
    norms = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
    return (a * b).sum(-1) / jnp.maximum(norms, EPS)


def attention(regions: jax.Array, words: jax.Array, mask: jax.Array, sharpness: float) -> jax.Array:
    """Every word's attention over every picture's regions (equations 7 and 8).

    Args:
      regions: [B, R, S].
      words: [C, T, S].
      mask: bool [C, T], True at words.
      sharpness: gamma1.

    Returns:
      [B, C, T, R], a distribution over R; what it says at padding means nothing.
    """
    scores = jnp.einsum("brs,cts->bctr", regions, words, precision="highest")
    scores = jnp.where(mask[None, :, :, None], scores, -jnp.inf)
    return jax.nn.softmax(sharpness * jax.nn.softmax(scores, 2), 3)


def word_scores(
    regions: jax.Array, words: jax.Array, mask: jax.Array, gammas: Gammas = Gammas()
) -> jax.Array:
    """How well every caption's words are found in every picture (equations 9 and 10).

    Args:
      regions: [B, R, S].
      words: [C, T, S].
      mask: bool [C, T].
      gammas: the sharpnesses.

    Returns:
      [B, C], gamma3 applied.
    """
    # Padding is zero, where a norm has no gradient; it is masked below.
    words = jnp.where(mask[..., None], words, 1.0)
    share = attention(regions, words, mask, gammas.attend)
    found = jnp.einsum("bctr,brs->bcts", share, regions, precision="highest")
    match = gammas.words * cosine(found, words[None])
    match = jax.nn.logsumexp(jnp.where(mask[None], match, -jnp.inf), -1)
    return gammas.match * (match / gammas.words if gammas.divide else match)


def sentence_scores(code: jax.Array, sentence: jax.Array, sharpness: float = 10.0) -> jax.Array:
    """[B, S] pictures and [C, S] captions to gamma3 * cosine, [B, C]."""
    product = jnp.einsum("bs,cs->bc", code, sentence, precision="highest")
    norms = jnp.linalg.norm(code, axis=-1)[:, None] * jnp.linalg.norm(sentence, axis=-1)
    return sharpness * product / jnp.maximum(norms, EPS)


def matching(scores: jax.Array, label: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of each picture's own caption, and of each caption's own picture.

    Args:
      scores: [B, B], row = picture, column = caption.
      label: int [B]; others of the same class are neither right nor wrong and are left out.

    Returns:
      Two scalars, nats.
    """
    if label is not None:
        same = (label[:, None] == label) & ~jnp.eye(len(label), dtype=bool)
        scores = jnp.where(same, -jnp.inf, scores)
    own = jnp.diagonal(scores)
    return tuple((jax.nn.logsumexp(scores, axis) - own).mean() for axis in (1, 0))


def damsm(
    regions: jax.Array,
    code: jax.Array,
    words: jax.Array,
    sentence: jax.Array,
    mask: jax.Array,
    label: jax.Array | None = None,
    gammas: Gammas = Gammas(),
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The four losses of pictures and their captions.

    Args:
      regions: [B, h, w, S].
      code: [B, S].
      words: [B, T, S].
      sentence: [B, S].
      mask: bool [B, T].
      label: int [B] or None, see `matching`.
      gammas: the sharpnesses.

    Returns:
      (their sum, {"w0", "w1", "s0", "s1"}); 0 = picture to caption, 1 = caption to picture.
    """
    regions = regions.reshape(len(regions), -1, regions.shape[-1])
    regions, code, words, sentence = (
        x.astype(jnp.float32) for x in (regions, code, words, sentence)
    )
    by_word = matching(word_scores(regions, words, mask, gammas), label)
    by_sentence = matching(sentence_scores(code, sentence, gammas.match), label)
    logs = dict(zip(("w0", "w1", "s0", "s1"), (*by_word, *by_sentence), strict=True))
    return sum(logs.values()), logs
