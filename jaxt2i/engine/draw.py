"""Drawing: one compiled way for the loop's grids, samples, scores, plans and the Python API.

A picture depends on its conditions, its controls and its seed alone. Two things make it so: every
row is drawn under `vmap`, which lets nothing pass between rows, and a device always draws the same
number of rows at once, its chunk, so that the arithmetic is the same for one picture, for many, and
on many devices.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.config import ConfigError, nearest
from jaxt2i.engine import state as states
from jaxt2i.engine.mesh import BATCH_AXES, Layout
from jaxt2i.engine.method import Batch, Method, Tree, reading
from jaxt2i.nn import fastest, pixels

# Rows that one device draws at once: part of what a picture is, to the last bit.
CHUNKS = {"cpu": 1}
CHUNK = 8  # of every other platform
# Outputs in [-1, 1] that become bytes; all others stay as they are.
PICTURES = ("image", "stages", "source", "seen", "edges")
# Chunks that the devices work on while the host takes the one before.
AHEAD = 2


@dataclasses.dataclass(frozen=True)
class Request:
    """One row to draw.

    Attributes:
      row: the conditions, arrays of the schema without a batch axis.
      seed: of everything random, 0 to 2^32 - 1.
      controls: {name: value}; those left out have their defaults.
      given: "z" and "text" that take the place of the seed's and the conditions' own.
      about: whatever belongs to it on the host.
    """

    row: Mapping[str, np.ndarray]
    seed: int = 0
    controls: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    given: Mapping[str, Tree] = dataclasses.field(default_factory=dict)
    about: Any = None


def read_controls(method: Method, given: Mapping[str, Any]) -> dict[str, Any]:
    """{control: value} of every control of a method, as its types say.

    Raises:
      ConfigError: for a control that the method does not have, or a value out of its range.
    """
    known = {c.name: c for c in method.sampler.controls}
    if strange := [n for n in given if n not in known]:
        raise ConfigError(f"there is no control {strange[0]!r}; {nearest(strange[0], known)}")
    return {name: c.read(given.get(name, c.default)) for name, c in known.items()}


def code(method: Method, wanted: tuple[str, ...], use_ema: bool, layout: Layout) -> Callable:
    """(state, frozen, rows, seeds [n]) -> {"z", "text"}: what `wanted` names of it, traceable."""

    def one(ctx, row, seed):
        keys = jax.random.key(seed)[None]
        with reading("the sampler", row):
            out = method.sampler.code(ctx, jax.tree.map(lambda x: x[None], row), keys)
        return jax.tree.map(lambda x: x[0], {name: out[name] for name in wanted})

    def run(state, frozen, rows, seeds):
        weights = layout.gather(state), layout.gather(frozen)
        ctx = states.context(method, *weights, key=None, use_ema=use_ema)
        return jax.vmap(functools.partial(one, ctx))(rows, seeds)

    return run


def drawing(
    method: Method,
    fixed: Mapping[str, Any],
    wanted: tuple[str, ...],
    rule: str,
    use_ema: bool,
    layout: Layout,
) -> Callable:
    """(state, frozen, ints, rows, seeds, floats, codes) -> {name: [n, ...]}, traceable.

    Args:
      method: the method.
      fixed: the controls that are compiled in.
      wanted: outputs; (): all that the method draws.
      rule: how pictures are rounded, see `nn.pixels`.
      use_ema: averaged weights where there are any.
      layout: where the weights live.
    """

    def one(ctx, ints, row, seed, floats, codes):
        row, codes = jax.tree.map(lambda x: x[None], (row, codes))
        keys = jax.random.key(seed)[None]
        with reading("the sampler", row), method.products():
            out = method.sampler(ctx, row, keys, **codes, **floats, **ints, **fixed)
        if lacking := [n for n in wanted if n not in out]:
            raise ConfigError(f"the method draws no {lacking[0]!r}; {nearest(lacking[0], out)}")
        out = {n: out[n] for n in wanted or out}
        to_bytes = functools.partial(pixels.to_pixels, rule=rule)
        out = {n: jax.tree.map(to_bytes, x) if n in PICTURES else x for n, x in out.items()}
        return jax.tree.map(lambda x: x[0], out)

    @fastest.split_like(layout.everywhere)
    def run(state, frozen, ints, rows, seeds, floats, codes):
        weights = layout.gather(state), layout.gather(frozen)
        ctx = states.context(method, *weights, key=None, use_ema=use_ema)
        each = functools.partial(one, ctx, ints)
        return jax.vmap(each, spmd_axis_name=BATCH_AXES)(rows, seeds, floats, codes)

    return run


class Drawer:
    """Draws requests with a method, in chunks.

    Text and latent are one program, the picture another: a picture between two captions then goes
    the same way as that of one caption.

    Args:
      method: with a sampler.
      layout: where weights lie; rows are split over it like a batch.
      wanted: outputs; none: all that the method draws.
      use_ema: averaged weights where there are any.
      rule: how pictures are rounded; "": the sampler's own way.
      chunk: rows a device; 0: what suits the platform.
    """

    def __init__(
        self,
        *,
        method: Method,
        layout: Layout,
        wanted: Sequence[str] = (),
        use_ema: bool = True,
        rule: str = "",
        chunk: int = 0,
    ):
        platform = layout.mesh.devices.flat[0].platform
        self.method, self.layout = method, layout
        self.chunk = chunk or CHUNKS.get(platform, CHUNK)
        self.size = self.chunk * layout.parts
        # A program of one device takes host arrays as they are, in less time.
        self._placed = lambda x: x if layout.mesh.size == 1 else layout.put_all(x, layout.rows)
        out = layout.everywhere if layout.mesh.is_multi_process else layout.rows
        self._jit = functools.partial(jax.jit, out_shardings=out)
        how = (use_ema, layout)
        drawn = (tuple(wanted), rule or method.sampler.pixels, *how)
        # A program for each choice: what is read of text and latent, what is compiled in.
        self._read = functools.cache(lambda names: self._jit(code(method, names, *how)))
        self._draw = functools.cache(lambda fixed: self._jit(drawing(method, dict(fixed), *drawn)))
        self._both = lambda fixed: both(method, fixed, *drawn)

    def _sorted(self, given: Mapping[str, Any]) -> tuple[dict, dict, tuple]:
        """Controls by what they cost: ({floats}, {ints}, what is compiled in)."""
        values = read_controls(self.method, given)
        floats = {n: np.float32(v) for n, v in values.items() if type(v) is float}
        ints = {n: np.int32(v) for n, v in values.items() if type(v) is int}
        return floats, ints, tuple((n, v) for n, v in values.items() if type(v) in (bool, str))

    def _codes(self, state: Tree, frozen: Tree, rows: Tree, seeds: Tree, given: Mapping) -> dict:
        sampler = self.method.sampler
        there = {"z": sampler.latent, "text": sampler.text}
        wanted = tuple(n for n, made in there.items() if made and n not in given)
        made = self._read(wanted)(state, frozen, rows, seeds) if wanted else {}
        return {"z": None, "text": None, **made, **given}

    def start(self, state: Tree, frozen: Tree, requests: Sequence[Request]) -> dict[str, Tree]:
        """Outputs [size, ...] of at most `size` requests of one kind, still on the devices."""
        chosen = [self._sorted(r.controls) for r in requests]
        trees = [
            (dict(r.row), np.uint32(r.seed), floats, dict(r.given))
            for r, (floats, *_) in zip(requests, chosen, strict=True)
        ]
        trees += trees[-1:] * (self.size - len(trees))
        stacked = jax.tree.map(lambda *x: np.stack(x), *trees)
        rows, seeds, floats, given = self._placed(stacked)
        codes = self._codes(state, frozen, rows, seeds, given)
        _, ints, fixed = chosen[0]
        return self._draw(fixed)(state, frozen, ints, rows, seeds, floats, codes)

    def codes(self, state: Tree, frozen: Tree, requests: Sequence[Request]) -> list[dict]:
        """{"z", "text"} of each request, on the host: to be mixed and given back."""
        out = []
        for first in range(0, len(requests), self.size):
            part = list(requests[first : first + self.size])
            full = part + part[-1:] * (self.size - len(part))
            trees = [(dict(r.row), np.uint32(r.seed)) for r in full]
            placed = self._placed(jax.tree.map(lambda *x: np.stack(x), *trees))
            made = jax.device_get(self._codes(state, frozen, *placed, {}))
            out += [jax.tree.map(lambda x, i=i: x[i], made) for i in range(len(part))]
        return out

    def stream(
        self, state: Tree, frozen: Tree, requests: Iterable[Request]
    ) -> Iterator[tuple[Request, dict[str, Tree]]]:
        """(request, its outputs on the host), in constant memory; in order within one kind.

        Of one kind are requests that one program draws: of equal shapes, and equal in the controls
        that are no data.
        """
        waiting, flying = collections.defaultdict(list), collections.deque()

        def land():
            batch, out = flying.popleft()
            out = jax.device_get(out)
            for i, request in enumerate(batch):
                yield request, jax.tree.map(lambda x, i=i: x[i], out)

        def launch(batch):
            flying.append((batch, self.start(state, frozen, batch)))
            if len(flying) > AHEAD:
                yield from land()

        for request in requests:
            shapes = jax.tree.map(np.shape, (dict(request.row), dict(request.given)))
            group = waiting[str((self._sorted(request.controls)[1:], shapes))]
            group.append(request)
            if len(group) == self.size:
                yield from launch(group.copy())
                group.clear()
        for group in waiting.values():
            if group:
                yield from launch(group)
        while flying:
            yield from land()

    def lower(self, state: Tree, frozen: Tree, rows: Batch, **controls: Any) -> jax.stages.Lowered:
        """Both programs as one, of placed shapes, for a plan, which asks how often loops turn."""
        floats, ints, fixed = self._sorted(controls)
        fixed = dict(fixed) | {name: int(value) for name, value in ints.items()}
        count = next(iter(rows.values())).shape[0]
        shape = functools.partial(jax.ShapeDtypeStruct, (count,), sharding=self.layout.rows)
        numbers = {name: shape(jnp.float32) for name in floats}
        program = self._jit(self._both(fixed))
        return program.lower(state, frozen, rows, shape(jnp.uint32), numbers)

    def outputs(self, state: Tree, frozen: Tree, rows: Batch, **controls: Any) -> dict[str, Tree]:
        """{output: shapes of one}, from shapes of the weights and of rows, without drawing."""
        values = read_controls(self.method, controls)
        count = next(iter(rows.values())).shape[0]
        floats = {n: jax.ShapeDtypeStruct((count,), jnp.float32) for n in self._sorted({})[0]}
        fixed = {n: v for n, v in values.items() if n not in floats}
        seeds = jax.ShapeDtypeStruct((count,), jnp.uint32)
        out = jax.eval_shape(self._both(fixed), state, frozen, rows, seeds, floats)
        return jax.tree.map(lambda x: x.shape[1:], out)


def both(method: Method, fixed: Mapping[str, Any], wanted, rule, use_ema, layout) -> Callable:
    """`code` and `drawing` in one: (state, frozen, rows, seeds, floats) -> outputs."""
    read = code(method, ("z", "text"), use_ema, layout)
    draw = drawing(method, fixed, wanted, rule, use_ema, layout)

    def run(state, frozen, rows, seeds, floats):
        return draw(state, frozen, {}, rows, seeds, floats, read(state, frozen, rows, seeds))

    return run


def settler(method: Method, seed: int) -> Callable[[Tree, Tree, Iterable[Batch]], Tree]:
    """(state, frozen, batches on the devices) -> state with `settled` of its averaged weights."""

    @jax.jit
    def turn(state, frozen, batch, key):
        ctx = states.context(method, state, frozen, key=key)
        method.sampler.settle(ctx, batch)
        return {net: ctx.extra[net] for net in state.settled}

    def run(state, frozen, batches):
        # The first turn starts from what training left.
        settled = {net: state.extra[net] for net in state.settled}
        for number, batch in enumerate(batches):
            key = states.step_key(seed, number)
            settled = turn(state.replace(settled=settled, opt={}), frozen, batch, key)
        return state.replace(settled=settled)

    return run
