"""What every text encoder returns, so that a method can exchange one for another by config."""

import flax.struct
import jax
import jax.numpy as jnp

PADDINGS = ("end", "tokenizer")


@flax.struct.dataclass
class Text:
    """A batch of encoded captions.

    Attributes:
      sentence: [B, S], one vector per caption, not normalised.
      words: [B, T, E], one vector per token.
      mask: bool [B, T], True where a token belongs to the caption.
    """

    sentence: jax.Array
    words: jax.Array
    mask: jax.Array


def padded(tokens: jax.Array, mask: jax.Array, end: int, rule: str) -> jax.Array:
    """Captions int [B, T] as a network reads them that sees what is behind their ends.

    Args:
      tokens: as the tokenizer gives them.
      mask: bool [B, T], True at the caption.
      end: the token that ends a caption.
      rule: "end": that token all the way, as Stable Diffusion's networks were trained; "tokenizer":
        as they are.
    """
    return jnp.where(mask, tokens, end) if rule == "end" else tokens
