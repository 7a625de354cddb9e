"""The decoder of Obj-GAN's box generator: object after object, its class, its place, its size."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.nn.linear import Linear, torch_uniform
from jaxt2i.nn.mixture import PARTS, Mixture, read

# Width of the embeddings of places and sizes.
EMBED = 50
# The least probability of a label.
LEAST = 1e-5


class State(NamedTuple):
    """Of the recurrence.

    Attributes:
      h: its last output, [B, H].
      c: its cell, [B, H].
    """

    h: jax.Array
    c: jax.Array


class Told(NamedTuple):
    """What the decoder says of every step of a known sequence.

    Attributes:
      labels: probabilities [B, T, labels].
      xy, wh: mixtures [B, T, K].
      attention: [B, T, words]; None without attention.
      state: behind the last step.
    """

    labels: jax.Array
    xy: Mixture
    wh: Mixture
    attention: jax.Array | None
    state: State


class Lstm(nn.Module):
    """One direction of an LSTM, gates in PyTorch's order, as plain arrays to be used in a loop.

    Attributes:
      width: H.
    """

    width: int

    @nn.compact
    def __call__(self, inputs: int) -> dict[str, jax.Array]:
        """The parameters for inputs of a width."""
        init, wide = torch_uniform(self.width), 4 * self.width
        shapes = {
            "input": (inputs, wide),
            "recurrent": (self.width, wide),
            "input_bias": (wide,),
            "recurrent_bias": (wide,),
        }
        return {name: self.param(name, init, shape) for name, shape in shapes.items()}


class Attention(nn.Module):
    """Scores of words by the state before a step: v . (W [h; word] + b).

    Attributes:
      width: of state and words, H.
    """

    width: int

    @nn.compact
    def __call__(self) -> dict[str, jax.Array]:
        """The parameters."""
        init = torch_uniform(2 * self.width)
        return {
            "kernel": self.param("kernel", init, (2 * self.width, self.width)),
            "bias": self.param("bias", init, (self.width,)),
            "v": self.param("v", torch_uniform(self.width), (self.width,)),
        }


def attend(of: dict[str, jax.Array], h: jax.Array, words: jax.Array, mask: jax.Array) -> jax.Array:
    """Shares [B, W] of words [B, W, H], seen from a state [B, H]; 0 at padding."""
    beside = jnp.broadcast_to(h[:, None], (*words.shape[:2], h.shape[-1]))
    scores = (jnp.concatenate([beside, words], -1) @ of["kernel"] + of["bias"]) @ of["v"]
    return jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), -1)


def advance(of: dict[str, jax.Array], drive: jax.Array, state: State) -> State:
    """One step of an LSTM, its input times the kernel and the biases in `drive` [B, 4 H]."""
    i, f, g, o = jnp.split(drive + state.h @ of["recurrent"], 4, -1)
    c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return State(jax.nn.sigmoid(o) * jnp.tanh(c), c)


class Decoder(nn.Module):
    """Reads the object before, says the next one's class, then its place, then its size.

    Attributes:
      labels: classes and the four that are none.
      width: of the recurrence, H; that of the text encoder's sentence.
      mixtures: Gaussians of a mixture, K.
      attention: read the words at every step, as the paper does; the published code does not.
      next_xy: what the size is told of the place: "current_y": x of the next object and y of the
        one before, as the published code has it; "next": both of the next.
      limit: largest correlation of a Gaussian.
    """

    labels: int = 84
    width: int = 256
    mixtures: int = 5
    attention: bool = False
    next_xy: str = "current_y"
    limit: float = 1.0

    def setup(self):
        self.l_embedding = nn.Embed(self.labels, self.width)
        self.xy_embedding, self.wh_embedding = Linear(EMBED), Linear(EMBED)
        self.next_xy_embedding = Linear(EMBED)
        self.rnn = Lstm(self.width)
        self.l_out = Linear(self.labels)
        self.xy_out, self.wh_out = (Linear(PARTS * self.mixtures) for _ in range(2))
        if self.attention:
            self.attend = Attention(self.width)

    def example(self) -> tuple:
        """Inputs that `init` can be traced with."""
        shape = jax.ShapeDtypeStruct
        state = State(*(shape((1, self.width), jnp.float32) for _ in range(2)))
        words = shape((1, 2, self.width), jnp.float32), shape((1, 2), bool)
        return state, *words, shape((1, 3), jnp.int32), shape((1, 3, 4), jnp.float32)

    def _cell(self) -> tuple[dict, dict | None]:
        width = self.width + 2 * EMBED + (self.width if self.attention else 0)
        return self.rnn(width), self.attend() if self.attention else None

    def _inputs(self, labels: jax.Array, places: jax.Array) -> jax.Array:
        parts = (
            self.xy_embedding(places[..., :2]),
            self.wh_embedding(places[..., 2:]),
            self.l_embedding(labels),
        )
        return jnp.concatenate(parts, -1)

    def step(self, state: State, words, mask, label, place) -> tuple[State, jax.Array]:
        """The recurrence by one object.

        Args:
          state: before.
          words: [B, W, H].
          mask: bool [B, W].
          label: int [B], of the object before.
          place: [B, 4], of the object before.

        Returns:
          (state, probabilities of the next label [B, labels]).
        """
        cell, attention = self._cell()
        x = self._inputs(label, place)
        state, _ = _turn(cell, attention, words, mask, state, x)
        return state, self.label(state.h)

    def label(self, h: jax.Array) -> jax.Array:
        """Probabilities of labels, at least `LEAST` each: they need not sum to one."""
        return jnp.clip(jax.nn.softmax(self.l_out(h).astype(jnp.float32)), LEAST, 1)

    def xy(self, h: jax.Array, kind: jax.Array) -> Mixture:
        """Where the next object is, given the state and its label [..., labels]."""
        return self._read(self.xy_out(jnp.concatenate([h, kind], -1)))

    def wh(self, h: jax.Array, kind: jax.Array, xy: jax.Array, before: jax.Array) -> Mixture:
        """How large it is, given its place [..., 2] and that of the one before."""
        seen = xy if self.next_xy == "next" else jnp.stack([xy[..., 0], before[..., 1]], -1)
        x = jnp.concatenate([h, kind, self.next_xy_embedding(seen)], -1)
        return self._read(self.wh_out(x))

    def _read(self, raw: jax.Array) -> Mixture:
        return read(raw, log_sigma=(-jnp.inf, jnp.inf), rho=self.limit)

    def __call__(self, state: State, words, mask, labels, places) -> Told:
        """Follows known sequences.

        Args:
          state: at the start.
          words: [B, W, H].
          mask: bool [B, W].
          labels: int [B, T + 1].
          places: [B, T + 1, 4].
        """
        cell, attention = self._cell()
        x = self._inputs(labels[:, :-1], places[:, :-1])

        def turn(state, x):
            state, share = _turn(cell, attention, words, mask, state, x)
            return state, (state.h, share)

        last, (h, share) = jax.lax.scan(turn, state, jnp.moveaxis(x, 1, 0))
        h = jnp.moveaxis(h, 0, 1)
        kind = jax.nn.one_hot(labels[:, 1:], self.labels)
        xy = self.xy(h, kind)
        wh = self.wh(h, kind, places[:, 1:, :2], places[:, :-1, :2])
        share = None if share is None else jnp.moveaxis(share, 0, 1)
        return Told(self.label(h), xy, wh, share, last)


def _turn(cell: dict, attention: dict | None, words, mask, state: State, x) -> tuple:
    """(state behind a step, shares of the words); x is what is read without the words."""
    share = None
    if attention is not None:
        share = attend(attention, state.h, words, mask)
        x = jnp.concatenate([x, jnp.einsum("bw,bwh->bh", share, words)], -1)
    drive = x @ cell["input"] + cell["input_bias"] + cell["recurrent_bias"]
    return advance(cell, drive, state), share
