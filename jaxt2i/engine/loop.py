"""The loop: plays steps to the end, and tells its parts of each.

A run is a pure function of its config: the step number is the data position and, with the seed,
the source of every random draw. Restarting is therefore exact by construction.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.engine.mesh import Layout
from jaxt2i.engine.method import Batch, Method, Tree
from jaxt2i.engine.state import State

# Names of what a profile shows of the loop.
STEP, INPUT, DEVICE = "train", "input wait", "device wait"
# Steps in flight keep the device busy; more would only pile up batches.
AHEAD = 2


class NonFinite(FloatingPointError):
    """A loss or gradient that is not finite, in a run that does not skip such steps."""


def lower_step(
    method: Method,
    rules: steps.Rules,
    layout: Layout,
    batch: Batch,
    shapes: tuple[State, dict[str, Tree]] | None = None,
) -> Iterator[tuple[int, jax.stages.Lowered]]:
    """Traces every program of a step from shapes alone: (every, program), see `step.make`.

    Args:
      method: the method.
      rules: how steps are played.
      layout: where arrays live; its devices may be those of a machine that is not here.
      batch: ShapeDtypeStructs of the global batch.
      shapes: `states.shapes` of them, where it is at hand.
    """
    state, frozen = shapes or states.shapes(method, batch)
    placed = [*map(layout.abstract, (state, frozen)), layout.abstract(batch, layout.rows)]
    out = (layout.shardings(state), layout.everywhere)
    for every, program in steps.make(method, rules, layout).items():
        program.__name__ = "train" if every == 1 else f"train_{every}"  # as profiles show it
        yield every, jax.jit(program, donate_argnums=0, out_shardings=out).lower(*placed)


@dataclasses.dataclass
class Moment:
    """What the parts of a loop see after a step.

    Attributes:
      number: steps played so far.
      last: whether this was the last step.
      stop: whether the loop ends here all the same.
      state: the state; a part that changes it (`settle`) changes it for those after it.
      metrics: scalars, still on the device.
      land: waits until no more than so many steps are in flight.
      settler: see `draw.settler`; None: nothing to settle.
    """

    number: int
    last: bool
    stop: bool
    state: State
    metrics: steps.Metrics
    land: Callable[[int], None]
    settler: Callable[[State], State] | None = None

    def settle(self) -> State:
        """The state, with running statistics of its averaged weights."""
        if self.settler:
            self.state, self.settler = self.settler(self.state), None
        return self.state


class Part:
    """Something that happens beside the steps; each method may be left as it is."""

    def before(self, number: int, land: Callable[[int], None]) -> None:
        """Before step `number` is played, the first being 1."""

    def after(self, now: Moment) -> None:
        """After a step."""

    def close(self) -> None:
        """At the end, whatever ended it."""


class Flags:
    """Keeps each step's finite flags until they are looked at, so that the first bad is named."""

    def __init__(self, method: Method):
        self._names = {
            every: [p.name for p in method.players if p.every == every]
            for every in {p.every for p in method.players}
        }
        self._kept: list[tuple[int, int, jax.Array]] = []

    def add(self, step: int, every: int, flags: jax.Array) -> None:
        """Flags of one program of one step."""
        self._kept.append((step, every, flags))

    def take(self) -> Callable[[], str | None]:
        """Hands over what was collected, as a function that names the first bad player."""
        kept, self._kept = self._kept, []

        def first_bad() -> str | None:
            for step, every, values in kept:
                bad = np.flatnonzero(~np.asarray(jax.device_get(values)))
                if bad.size:
                    return f"step {step}, player {self._names[every][bad[0]]!r}"
            return None

        return first_bad


def one_step(
    programs: Mapping[int, Callable], state: State, frozen: Tree, batch: Batch, flags: Flags, n: int
) -> tuple[State, steps.Metrics]:
    """Step n + 1: every program that is due, without a word between host and device."""
    with jax.transfer_guard("disallow"):
        state, metrics = programs[1](state, frozen, batch)
        flags.add(n + 1, 1, metrics.pop("finite"))
        for every, program in programs.items():
            if every > 1 and n % every == 0:
                state, lazy = program(state, frozen, batch)
                flags.add(n + 1, every, lazy.pop("finite"))
                metrics |= lazy
    return state, metrics


def play(
    programs: Mapping[int, Callable],
    state: State,
    frozen: Tree,
    batches: Iterator[Batch],
    *,
    total: int,
    flags: Flags,
    parts: Sequence[Part],
    stop: Callable[[int], bool] = lambda number: False,
    settler: Callable[[State], State] | None = None,
) -> State:
    """Steps from where the state is to `total`, or to where `stop` says.

    Args:
      programs: compiled, see `step.make`.
      state: is donated.
      frozen: frozen weights.
      batches: from the state's step on, on the devices.
      total: steps of the run.
      flags: what becomes of finite flags; parts read it.
      parts: told in this order; what one raises ends the run.
      stop: steps played -> whether to end there.
      settler: of `Moment`.
    """
    flight: collections.deque = collections.deque()

    def land(allowed: int) -> None:
        with jax.profiler.TraceAnnotation(DEVICE):
            while len(flight) > allowed:
                jax.block_until_ready(flight.popleft())

    for number in range(int(state.step), total):
        for part in parts:
            part.before(number + 1, land)
        with jax.profiler.StepTraceAnnotation(STEP, step_num=number + 1):
            with jax.profiler.TraceAnnotation(INPUT):
                batch = next(batches)
            state, metrics = one_step(programs, state, frozen, batch, flags, number)
            flight.append(metrics)
            land(AHEAD)
        last, ends = number + 1 == total, stop(number + 1)
        now = Moment(number + 1, last, ends, state, metrics, land, settler)
        for part in parts:
            part.after(now)
        state = now.state
        if ends:
            break
    return state
