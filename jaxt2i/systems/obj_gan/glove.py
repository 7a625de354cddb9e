"""Words and names of classes in one space: GloVe's, or a stand-in for it (Pennington et al. 2014).

A table that nothing trains. The published one is GloVe 6B in 50 numbers a word.
"""

import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.config import ConfigError
from jaxt2i.data.words import words_of

MISSING = ("dropped", "zero")


class Glove(nn.Module):
    """The table: vectors of the ids of words, and of classes.

    Attributes:
      words: ids of words.
      classes: of objects.
      width: G.
    """

    words: int
    classes: int
    width: int = 50

    def setup(self):
        init = nn.initializers.normal(1.0)
        self.of_word = self.param("words", init, (self.words, self.width))
        self.of_class = self.param("classes", init, (self.classes, self.width))

    def example(self) -> tuple:
        """Inputs that `init` can be traced with."""
        return jax.ShapeDtypeStruct((1, 2), jnp.int32), jax.ShapeDtypeStruct((1, 2), jnp.int32)

    def __call__(self, tokens: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(vectors [B, T, G] of tokens [B, T], vectors [B, N, G] of classes [B, N])."""
        return self.keys(tokens), self.names(labels)

    def keys(self, tokens: jax.Array) -> jax.Array:
        """Vectors [B, T, G] of tokens [B, T]; zeros of words that have none."""
        return self.of_word[tokens]

    def names(self, labels: jax.Array) -> jax.Array:
        """Vectors [..., G] of classes [...]."""
        return self.of_class[labels]


def without_unknown(keys: jax.Array, mask: jax.Array, rule: str) -> tuple[jax.Array, jax.Array]:
    """(keys, mask) of captions some of whose words have no vector.

    Args:
      keys: [B, T, G], zeros where a word has none.
      mask: bool [B, T], True at words.
      rule: "dropped": vectors move up into the places of words without one, and the caption is cut
        to as many words as have one. As published: behind such a word each word has the vector of
        a later one. "zero": every word keeps its own.

    Source: jamesli1618/Obj-GAN image_generation/miscc/load.py (translate_glove).
    """
    if rule == "zero":
        return keys, mask
    known = mask & (keys != 0).any(-1)
    order = jnp.argsort(~known, axis=-1, stable=True)
    moved = jnp.take_along_axis(keys, order[..., None], 1)
    count = jnp.maximum(known.sum(-1, keepdims=True), 1)  # a caption has a word at least
    kept = jnp.arange(mask.shape[1]) < count
    return jnp.where(kept[..., None], moved, 0), mask & kept


def spelt(word: str, width: int) -> np.ndarray:
    """The stand-in's vector of a word: drawn from its letters, of length 1."""
    draw = np.random.RandomState(zlib.crc32(word.encode()))
    x = draw.standard_normal(width).astype(np.float32)
    return x / np.linalg.norm(x)


def read(file: str, wanted: set[str], width: int) -> dict[str, np.ndarray]:
    """{word: vector} of those words of a GloVe text file that are wanted.

    Raises:
      ConfigError: names the file, and what is wrong with it.
    """
    path, out = Path(file), {}
    if not path.is_file():
        raise ConfigError(
            f"config.model.glove={file!r}: no such file; give glove.6B.{width}d.txt, of "
            "https://nlp.stanford.edu/data/glove.6B.zip, or '' for a stand-in"
        )
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            word, *numbers = line.rstrip("\n").split(" ")
            if word not in wanted and number > 1:
                continue
            try:
                vector = np.array(numbers, np.float32)
            except ValueError:
                vector = np.zeros(0, np.float32)
            if vector.shape != (width,) or not np.isfinite(vector).all():
                seen = line.rstrip()[:40]
                raise ConfigError(
                    f"config.model.glove={file!r}: line {number} holds {seen!r}; expected a word "
                    f"and {width} numbers (config.model.names_dim)"
                )
            if word in wanted:
                out[word] = vector
    return out


def loader(
    file: str, words: Sequence[str], names: Sequence[str], table: Glove
) -> Callable[[], dict]:
    """What makes the variables of a table.

    Args:
      file: GloVe's, or "": a stand-in, in which equal words are alike and others are not.
      words: by token id; fewer than the table has leave zeros.
      names: of the classes, each of one word or more, whose mean it is; where none are known they
        are called by their numbers.
      table: the table.
    """

    def load() -> dict:
        called = [*names, *(f"class{i}" for i in range(len(names), table.classes))]
        parts = [words_of(re.sub("_", " ", name)) for name in called]
        wanted = {*words, *(word for name in parts for word in name)}
        if file:
            known = read(file, wanted, table.width)
            lost = [name for name, own in zip(names, parts, strict=False) if not known.keys() & own]
            if lost:
                raise ConfigError(
                    f"config.model.glove={file!r} has no word of the class {lost[0]!r}"
                )
        else:
            known = {word: spelt(word, table.width) for word in wanted}
        none = np.zeros(table.width, np.float32)
        of_word = np.stack([known.get(word, none) for word in words] or [none])
        of_word = np.pad(of_word, ((0, table.words - len(of_word)), (0, 0)))
        of_word[0] = 0  # the end of a caption is no word
        found = [[known[w] for w in own if w in known] or [none] for own in parts]
        of_class = np.stack([np.mean(vectors, 0) for vectors in found])
        return {"params": {"words": of_word, "classes": of_class}}

    return load
