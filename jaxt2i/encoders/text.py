"""What every text encoder returns, so that a method can exchange one for another by config."""

import flax.struct
import jax


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
