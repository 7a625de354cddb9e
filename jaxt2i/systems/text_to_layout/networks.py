"""Layout bridging's Transformer: words are encoded, and objects decoded one after the other.

Pre-norm blocks (Vaswani et al. 2017 with the norms inside the branches). What a decoder has seen so
far is kept as keys and values, so that one more object costs one more position.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.encoders.text import Text
from jaxt2i.encoders.vit import activation, layer_norm

# Numbers before the classes: padding, the start, the end, an unknown class.
PAD, START, END, UNKNOWN = range(4)
SPECIAL = 4
# Tokens of an object where boxes are whole bins: its class, cx, cy, w, h.
TOKENS = 5
POSITIONS = ("learned", "sinusoidal")
# Keys and values [B, N, heads, width / heads].
Memory = tuple[jax.Array, jax.Array]


def sinusoids(length: int, width: int) -> jax.Array:
    """Sine and cosine of positions at wavelengths from 2 pi to 20,000 pi: [length, width]."""
    rate = jnp.exp(-math.log(10_000.0) * jnp.arange(0, width, 2) / width)
    angle = jnp.arange(length)[:, None] * rate
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], -1).reshape(length, -1)[:, :width]


class Attention(nn.Module):
    """Dot-product attention whose keys and values can be kept.

    Attributes:
      width: channels, C.
      heads: that they are divided among.
      dtype: compute dtype.
    """

    width: int
    heads: int
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        kind = {"dtype": self.dtype, "kernel_init": nn.initializers.xavier_uniform()}
        self.query, self.out = nn.Dense(self.width, **kind), nn.Dense(self.width, **kind)
        self.key, self.value = nn.Dense(self.width, **kind), nn.Dense(self.width, **kind)

    def _split(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], self.heads, -1)

    def memory(self, x: jax.Array) -> Memory:
        """Keys and values of [B, N, C]."""
        return self._split(self.key(x)), self._split(self.value(x))

    def __call__(self, x: jax.Array, memory: Memory, mask: jax.Array) -> jax.Array:
        """[B, Q, C] and what it may look at, bool [B or 1, 1, Q or 1, N], to [B, Q, C]."""
        h = jax.nn.dot_product_attention(self._split(self.query(x)), *memory, mask=mask)
        return self.out(h.reshape(x.shape))


class Layer(nn.Module):
    """Attention to one another, to the words where it is a decoder's, and two dense layers.

    Attributes:
      width, heads: see `Attention`.
      hidden: width between the dense layers.
      act: key of `encoders.vit.ACTIVATIONS`.
      dropout: of what each branch adds, in training.
      reads: whether it looks at words.
      dtype: compute dtype.
    """

    width: int
    heads: int
    hidden: int
    act: str = "gelu"
    dropout: float = 0.1
    reads: bool = False
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        kind = {"dtype": self.dtype, "kernel_init": nn.initializers.xavier_uniform()}
        attention = {"width": self.width, "heads": self.heads, "dtype": self.dtype}
        self.norm1, self.own = layer_norm(1e-5, self.dtype), Attention(**attention)
        if self.reads:
            self.norm2, self.words = layer_norm(1e-5, self.dtype), Attention(**attention)
        self.norm3 = layer_norm(1e-5, self.dtype)
        self.fc1, self.fc2 = nn.Dense(self.hidden, **kind), nn.Dense(self.width, **kind)
        self.drop = nn.Dropout(self.dropout)

    def memory(self, words: jax.Array) -> Memory:
        """Keys and values of the words."""
        return self.words.memory(words)

    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        read: tuple[Memory, jax.Array] | None = None,
        train: bool = False,
    ) -> jax.Array:
        """[B, N, C] to the same.

        Args:
          x: [B, N, C].
          mask: bool [B or 1, 1, N or 1, N], which position may look at which.
          read: keys and values of the words, and which of them are there, [B, 1, 1, T].
          train: drop out.
        """
        h = self.norm1(x)
        return self._rest(x + self._kept(self.own(h, self.own.memory(h), mask), train), read, train)

    def step(
        self, x: jax.Array, number: jax.Array, past: Memory, read: tuple[Memory, jax.Array]
    ) -> tuple[jax.Array, Memory]:
        """One position [B, 1, C], and the keys and values up to it."""
        h = self.norm1(x)
        new = self.own.memory(h)
        past = tuple(p.at[:, number].set(n[:, 0]) for p, n in zip(past, new, strict=True))
        mask = (jnp.arange(past[0].shape[1]) <= number)[None, None, None]
        return self._rest(x + self.own(h, past, mask), read, False), past

    def _rest(self, x: jax.Array, read: tuple | None, train: bool) -> jax.Array:
        if read is not None:
            x = x + self._kept(self.words(self.norm2(x), *read), train)
        h = activation(self.act)(self.fc1(self.norm3(x)))
        return x + self._kept(self.fc2(h), train)

    def _kept(self, h: jax.Array, train: bool) -> jax.Array:
        return self.drop(h, deterministic=not train)


class Encoder(nn.Module):
    """Words as vectors that know each other.

    Attributes:
      vocab: token ids.
      layers: blocks.
      scale: multiply the embedding by the root of its width, as Vaswani et al. do.
      width, heads, hidden, act, dropout, dtype: see `Layer`.
    """

    vocab: int
    layers: int
    width: int
    heads: int
    hidden: int
    act: str = "gelu"
    dropout: float = 0.1
    scale: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array, mask: jax.Array, train: bool = False) -> Text:
        """Int [B, T] and bool [B, T] to a text whose sentence is the mean of its words."""
        embed = nn.Embed(
            self.vocab, self.width, embedding_init=nn.initializers.normal(self.width**-0.5)
        )
        x = embed(tokens) * (self.width**0.5 if self.scale else 1.0)
        x = (x + sinusoids(tokens.shape[1], self.width)).astype(self.dtype)
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        for n in range(self.layers):
            layer = Layer(
                width=self.width,
                heads=self.heads,
                hidden=self.hidden,
                act=self.act,
                dropout=self.dropout,
                dtype=self.dtype,
                name=f"layer{n}",
            )
            x = layer(x, mask[:, None, None], train=train)
        words = layer_norm(1e-5, self.dtype, "norm")(x).astype(jnp.float32)
        weight = mask[..., None] / jnp.maximum(mask.sum(-1), 1)[:, None, None]
        return Text((words * weight).sum(1), words, mask)


class Head(nn.Module):
    """Two dense layers: [..., C] to float32 [..., out]."""

    width: int
    out: int
    act: str = "gelu"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """See the class."""
        h = activation(self.act)(nn.Dense(self.width, dtype=self.dtype, name="hidden")(x))
        return nn.Dense(self.out, dtype=self.dtype, name="out")(h).astype(jnp.float32)


class Decoder(nn.Module):
    """Objects, each from those before it and the words.

    Attributes:
      classes: of objects.
      bins: of each number of a box; 0: boxes are mixtures of Gaussians.
      slots: positions at most: objects, or with bins five times as many.
      layers: blocks.
      components: of the mixtures, K.
      head_width: between the layers of the heads of boxes.
      centre_width: of what the head of sizes is told of the centre.
      positions: "learned" or "sinusoidal".
      width, heads, hidden, act, dropout, dtype: see `Layer`.
    """

    classes: int
    bins: int
    slots: int
    layers: int
    width: int
    heads: int
    hidden: int
    act: str = "gelu"
    dropout: float = 0.1
    components: int = 5
    head_width: int = 512
    centre_width: int = 64
    positions: str = "learned"
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        init = nn.initializers.normal(self.width**-0.5)
        kinds = self.classes + SPECIAL + self.bins
        self.kind = nn.Embed(kinds, self.width, embedding_init=init)
        if self.positions == "learned":
            self.place = nn.Embed(self.slots, self.width, embedding_init=init)
        common = {"act": self.act, "dropout": self.dropout, "dtype": self.dtype}
        self.blocks = [
            Layer(width=self.width, heads=self.heads, hidden=self.hidden, reads=True, **common)
            for _ in range(self.layers)
        ]
        self.norm, self.drop = layer_norm(1e-5, self.dtype), nn.Dropout(self.dropout)
        self.to_kind = nn.Dense(kinds, dtype=self.dtype)
        if not self.bins:
            self.box, self.centre = nn.Dense(self.width), nn.Dense(self.centre_width)
            head = {
                "width": self.head_width,
                "out": 6 * self.components,
                "act": self.act,
                "dtype": self.dtype,
            }
            self.to_xy, self.to_wh = Head(**head), Head(**head)

    def _entered(self, kind: jax.Array, box: jax.Array | None, number: jax.Array) -> jax.Array:
        """What the first block reads of the object before: [B, N, C]."""
        x = self.kind(kind)
        if not self.bins:
            x = x + self.box(box)
        learned = self.positions == "learned"
        place = self.place(number) if learned else sinusoids(self.slots, self.width)[number]
        return (x + place).astype(self.dtype)

    def __call__(
        self, kind: jax.Array, box: jax.Array | None, text: Text, train: bool = False
    ) -> jax.Array:
        """All positions at once, each seeing those before it.

        Args:
          kind: int [B, N], what stands before each position.
          box: [B, N, 4], cx, cy, w, h of it; None where boxes are bins.
          text: of the captions.
          train: drop out.

        Returns:
          [B, N, C], for `kinds` and `mixtures`.
        """
        x = self._entered(kind, box, jnp.arange(kind.shape[1]))
        x = self.drop(x, deterministic=not train)
        mask = jnp.tril(jnp.ones((1, 1, kind.shape[1], kind.shape[1]), bool))
        for layer, memory in zip(self.blocks, self.memory(text), strict=True):
            x = layer(x, mask, (memory, text.mask[:, None, None]), train=train)
        return self.norm(x)

    def memory(self, text: Text) -> list[Memory]:
        """Keys and values of the words, for every block."""
        return [layer.memory(text.words.astype(self.dtype)) for layer in self.blocks]

    def begin(self, text: Text) -> list[Memory]:
        """Empty keys and values of objects, for every block."""
        shape = (len(text.words), self.slots, self.heads, self.width // self.heads)
        return [(jnp.zeros(shape, self.dtype),) * 2 for _ in self.blocks]

    def step(
        self,
        kind: jax.Array,
        box: jax.Array | None,
        number: jax.Array,
        past: list[Memory],
        memory: list[Memory],
        mask: jax.Array,
    ) -> tuple[jax.Array, list[Memory]]:
        """One more position.

        Args:
          kind: int [B], what stands before it.
          box: [B, 4].
          number: of the position.
          past: of `begin`, or of the step before.
          memory: of the words.
          mask: bool [B, T], which words are there.

        Returns:
          ([B, C], keys and values up to here).
        """
        x = self._entered(kind[:, None], None if box is None else box[:, None], number)
        kept = []
        for layer, old, words in zip(self.blocks, past, memory, strict=True):
            x, new = layer.step(x, number, old, (words, mask[:, None, None]))
            kept.append(new)
        return self.norm(x)[:, 0], kept

    def kinds(self, h: jax.Array) -> jax.Array:
        """[..., C] to logits float32 [..., classes + SPECIAL + bins]."""
        return self.to_kind(h).astype(jnp.float32)

    def xy(self, h: jax.Array, kind: jax.Array) -> jax.Array:
        """The mixture of centres: [..., C] and the classes [...] to float32 [..., 6 K]."""
        return self.to_xy(self._told(h, kind))

    def wh(self, h: jax.Array, kind: jax.Array, centre: jax.Array) -> jax.Array:
        """The mixture of sizes, which knows the centre [..., 2] too."""
        told = [self._told(h, kind), self.centre(centre).astype(self.dtype)]
        return self.to_wh(jnp.concatenate(told, -1))

    def _told(self, h: jax.Array, kind: jax.Array) -> jax.Array:
        return jnp.concatenate(
            [h, jax.nn.one_hot(kind, self.classes + SPECIAL, dtype=self.dtype)], -1
        )

    def everything(self, kind: jax.Array, box: jax.Array | None, text: Text) -> Any:
        """Calls every layer once, for `init`."""
        h = self(kind, box, text)
        return self.kinds(h), () if self.bins else (
            self.xy(h, kind),
            self.wh(h, kind, box[..., :2]),
        )
