"""A training run around the loop: what is compiled and restored, and the parts that keep records.

Threads do what must not hold up the steps: compiling while the state is made, then writing.
"""

import concurrent.futures
import contextlib
import dataclasses
import gc
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from etils import epath
from jax.experimental import multihost_utils

from jaxt2i import places
from jaxt2i.engine import draw, loop
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.engine.mesh import Layout
from jaxt2i.engine.method import Batch, Method, Tree
from jaxt2i.engine.state import State
from jaxt2i.run import cache, checkpoint, health, hlo, log, trouble
from jaxt2i.run.parts import (
    Clock,
    Desk,
    Inputs,
    Logging,
    Painting,
    Programs,
    Recording,
    Saving,
    Schedule,
)


class TooLarge(RuntimeError):
    """A step that the devices have no memory for, at the first that is played."""


def compile_step(
    method: Method,
    rules: steps.Rules,
    layout: Layout,
    batch: Batch,
    shapes: tuple[State, dict[str, Tree]] | None = None,
) -> Programs:
    """Compiles every program of a step; arguments as for `loop.lower_step`."""
    began = time.monotonic()
    return compiled(dict(loop.lower_step(method, rules, layout, batch, shapes)), began)


def compiled(lowered: Mapping[int, jax.stages.Lowered], began: float) -> Programs:
    """Compiles programs of a step that are traced.

    Args:
      lowered: {every: program}.
      began: when tracing them did, by `time.monotonic`.
    """
    play, flops, cached = {}, 0.0, True
    for every, program in lowered.items():
        with cache.hits() as hits:
            play[every] = program.compile()
        cached = cached and bool(hits)
        flops += hlo.flops(play[every]) / every
    return Programs(play, flops, time.monotonic() - began, cached)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without Python's collector: tracing makes much that stays, and it would look through it all
    again and again.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def train(
    method: Method,
    *,
    rules: steps.Rules,
    schedule: Schedule,
    layout: Layout,
    inputs: Inputs,
    workdir: epath.Path,
    config: Mapping[str, Any],
    init_from: Callable[[State], State] | None = None,
) -> State:
    """Plays a method to the end of its schedule, from its newest checkpoint if it has one.

    Args:
      method: the method.
      rules: how steps are played.
      schedule: when things happen.
      layout: where arrays live.
      inputs: what it reads.
      workdir: where everything is written.
      config: the whole configuration as plain data, kept with every checkpoint.
      init_from: fills a fresh state from earlier runs.

    Returns:
      The last state.

    Raises:
      health.Dead: where that is asked for; says since when.
      NonFinite: names the player and the first bad network; the last good checkpoint stays.
      checkpoint.Mismatch: the work directory holds a run of other networks.
      TooLarge: where the first step finds no memory.
      trouble.Unwritable: where a checkpoint cannot be written; says what is whole.
    """
    with keeping(method, schedule, workdir) as keeper:
        with uncollected():
            ready = made_ready(method, rules, schedule, layout, inputs, keeper, init_from)
        introduce(method, ready, schedule, workdir)
        desk = desk_of(method, rules, schedule, inputs, ready, keeper, workdir)
        return play(method, ready, desk, inputs, {"config": dict(config), "seed": rules.seed})


@contextlib.contextmanager
def keeping(
    method: Method, schedule: Schedule, workdir: epath.Path
) -> Iterator[checkpoint.Checkpoints]:
    """The checkpoints of a run, which are whole when it ends, whatever ends it.

    Raises:
      trouble.Unwritable: where they cannot be; says what is whole.
    """
    score, higher = checkpoint.by_score(method.better, schedule.best_by)
    kept = checkpoint.Kept(
        schedule.keep_checkpoints,
        schedule.keep_period_steps,
        schedule.keep_steps,
        lambda steps: checkpoint.best_of(checkpoint.history(workdir), steps, score, higher),
    )
    keeper, lost = checkpoint.Checkpoints(workdir, kept), None
    try:
        yield keeper
    except Exception as error:
        if not trouble.unwritable(error, workdir):
            raise
        lost = unwritable(error, workdir, keeper)
        raise lost from None
    finally:
        if lost is None:  # else it would wait for what has failed, and tell of it again
            keeper.close()


@dataclasses.dataclass(frozen=True)
class Ready:
    """What a run begins with.

    Attributes:
      programs: the compiled step.
      state: to go on from.
      frozen: frozen weights.
      painting: what is drawn and scored.
    """

    programs: Programs
    state: State
    frozen: dict[str, Tree]
    painting: Painting

    @property
    def first(self) -> int:
        """Steps that were played before."""
        return int(self.state.step)


def made_ready(
    method: Method,
    rules: steps.Rules,
    schedule: Schedule,
    layout: Layout,
    inputs: Inputs,
    keeper: checkpoint.Checkpoints,
    init_from: Callable[[State], State] | None,
) -> Ready:
    """Compiles a step and makes or reads its state; arguments as for `train`."""
    shapes, began = states.shapes(method, inputs.batch), time.monotonic()
    lowered = dict(loop.lower_step(method, rules, layout, inputs.batch, shapes))
    # The compiler leaves Python free, as tracing does not: meanwhile the state is made or read.
    with concurrent.futures.ThreadPoolExecutor(1, "compile") as pool:
        compiling = pool.submit(compiled, lowered, began)
        state, frozen = start(method, rules, layout, inputs.batch, shapes, keeper, init_from)
        painting = Painting(method, rules, schedule, layout, frozen, inputs)
        with too_large():
            programs = compiling.result()
    return Ready(programs, state, frozen, painting)


@contextlib.contextmanager
def too_large(fits: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Around what may find no memory for a step.

    Args:
      fits: whether a step has been played by now, so that another thing is too large.

    Raises:
      TooLarge: where none has.
    """
    try:
        yield
    except RuntimeError as error:
        if not trouble.out_of_memory(error) or fits():
            raise
        raise TooLarge(str(error).splitlines()[0]) from None


def introduce(method: Method, ready: Ready, schedule: Schedule, workdir: epath.Path) -> None:
    """Says what is about to be played, and keeps it in the work directory."""
    programs = ready.programs
    log.say(log.parameter_table(method, ready.state, ready.frozen), *flattered(method))
    log.say(
        f"step program: {programs.flops / 1e9:,.1f} GFLOP a step and device, compiled in "
        f"{programs.compile_seconds:.1f} s{' (from the cache)' * programs.cached}; "
        f"starting at step {ready.first} of {schedule.total_steps}"
    )
    if jax.process_index() == 0:
        (workdir / checkpoint.SCORES).write_text(json.dumps(dict(method.better)) + "\n")
        (workdir / "parameters.txt").write_text(log.parameter_list(ready.state))


def desk_of(
    method: Method,
    rules: steps.Rules,
    schedule: Schedule,
    inputs: Inputs,
    ready: Ready,
    keeper: checkpoint.Checkpoints,
    workdir: epath.Path,
) -> Desk:
    """What the parts of a run share."""
    first = ready.first
    notes = ["trains the run"] * bool(method.guided_by) + ["of training pictures"] * inputs.seen
    records = log.Records(workdir, first, method.better, notes=notes)
    progress = log.Progress(first, schedule.total_steps, rules.batch_size)
    return Desk(
        workdir=workdir,
        rules=rules,
        schedule=schedule,
        programs=ready.programs,
        records=records,
        progress=progress,
        keeper=keeper,
        flags=loop.Flags(method),
        clock=Clock(first),
        watch=health.Watch(progress.say),
    )


def play(
    method: Method, ready: Ready, desk: Desk, inputs: Inputs, meta: Mapping[str, Any]
) -> State:
    """Plays the steps that are left, and ends what goes on beside them.

    Args:
      method: the method.
      ready: what the run begins with.
      desk: what its parts share.
      inputs: what it reads.
      meta: kept with every checkpoint.
    """
    preemption, recording = Preemption(), Recording(desk, ready.first)
    ready.painting.desk = desk
    moved = health.Updates(ready.painting.due, desk.updates, ready.state)
    source, settler = inputs.batches(ready.first), None
    if inputs.settle_batches and method.sampler and method.sampler.settle:
        settle = draw.settler(method, desk.rules.seed)
        settler = lambda state: settle(state, ready.frozen, inputs.settle_batches())  # noqa: E731
    try:
        with too_large(desk.fits):
            state = loop.play(
                desk.programs.play,
                ready.state,
                ready.frozen,
                desk.clock.timed(source),
                total=desk.schedule.total_steps,
                flags=desk.flags,
                parts=(recording, Logging(desk), moved, ready.painting, Saving(desk, meta)),
                stop=preemption.reached,
                settler=settler,
            )
            desk.finish(state)
        return state
    finally:
        for part in (source, desk.progress, recording, desk.records, preemption):
            getattr(part, "close", lambda: None)()


def unwritable(
    error: Exception, workdir: epath.Path, keeper: checkpoint.Checkpoints
) -> trouble.Unwritable:
    """What to tell where a run cannot be written, once what is half written is gone."""
    with contextlib.suppress(Exception):  # a save that still finds room may end well
        keeper.wait()
    reason, stays = trouble.said(error, workdir), "what was saved before it stays"
    with contextlib.suppress(Exception):  # a store may answer nothing any more
        if jax.process_index() == 0:
            for unfinished in places.matching(keeper.folder, "*.orbax-checkpoint-tmp"):
                with contextlib.suppress(OSError):
                    unfinished.rmtree()
        kept = checkpoint.steps_in(workdir)
        whole = f"the checkpoint of step {kept[-1]} is whole" if kept else ""
        stays = whole or "there is no checkpoint yet"
    return trouble.Unwritable(f"{reason}; {stays}, and the same command resumes")


def start(
    method: Method,
    rules: steps.Rules,
    layout: Layout,
    batch: Batch,
    shapes: tuple[State, dict[str, Tree]],
    keeper: checkpoint.Checkpoints,
    init_from: Callable[[State], State] | None,
) -> tuple[State, dict[str, Tree]]:
    """The state to begin with: the newest checkpoint, an earlier run's weights, or fresh ones."""
    shardings = tuple(layout.shardings(t) for t in shapes)
    restored = keeper.restore(layout.abstract(shapes[0])) if keeper.steps() else None
    if restored:
        log.say(f"resuming from {keeper.folder / str(int(restored[0].step))}")
        return restored[0], states.create_frozen(method, batch, rules.seed, shardings[1])
    state, frozen = states.create(method, batch, rules.seed, shardings)
    return init_from(state) if init_from else state, frozen


def flattered(method: Method) -> list[str]:
    """What to say where the network that scores a run also trains it."""
    if not method.guided_by:
        return []
    return [
        f"scores {', '.join(method.better)} come from {', '.join(map(repr, method.guided_by))}, "
        f"which the losses use too: they may praise noise. No network makes pixels/* (distances "
        "to real pictures); python -m jaxt2i.evaluate judges with others"
    ]


class Preemption:
    """Notices SIGTERM; with several processes, agrees with them on the step to stop at."""

    def __init__(self):
        self._asked = False
        if threading.current_thread() is threading.main_thread() and jax.process_count() == 1:
            self._before = signal.signal(signal.SIGTERM, self._on_signal)
        else:
            self._before = None

    def _on_signal(self, *_):
        self._asked = True

    def reached(self, step: int) -> bool:
        """Whether to save and stop after this step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked

    def close(self) -> None:
        """Gives the signal back."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
