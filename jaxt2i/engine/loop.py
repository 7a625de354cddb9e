"""The loop: compile, restore, then play steps while a thread keeps the records.

A run is a pure function of its config: the step number is the data position and, with the seed,
the source of every random draw. Restarting is therefore exact by construction.
"""

import collections
import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jaxt2i.engine import checkpoint, log
from jaxt2i.engine import mesh as meshes
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.engine.method import Batch, ConfigError, Method, Tree
from jaxt2i.engine.state import State


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When things happen, in steps; 0 = never.

    Attributes:
      total_steps: length of the run.
      log_every_steps: a line of metrics.
      checkpoint_every_steps: a checkpoint.
      sample_every_steps: a grid of samples, and the scores.
      keep_checkpoints: newest checkpoints kept.
      keep_period_steps: checkpoints at multiples of this are kept for good.
    """

    total_steps: int
    log_every_steps: int = 50
    checkpoint_every_steps: int = 1000
    sample_every_steps: int = 1000
    keep_checkpoints: int = 3
    keep_period_steps: int = 0

    def __post_init__(self):
        if self.total_steps <= 0:
            raise ConfigError(
                "the run has no length: set config.total_steps or config.total_images"
            )


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where arrays live."""

    mesh: Mesh
    rules: tuple[tuple[str, str], ...] = ()
    min_mb: float = 4.0

    def shardings(self, tree: Tree) -> Tree:
        """Shardings of a tree of arrays or shapes."""
        return meshes.tree_shardings(self.mesh, tree, self.rules, self.min_mb)


@dataclasses.dataclass(frozen=True)
class Picture:
    """What a grid shows: `count` prompts as a host batch, their captions, how to draw them."""

    batch: dict[str, np.ndarray]
    captions: tuple[str, ...]
    controls: Mapping[str, Any]
    to_uint8: Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass
class Programs:
    """Compiled programs and what is known of them before the first step."""

    play: dict[int, Callable]
    flops: float
    compile_seconds: float


def abstract(tree: Tree, shardings: Tree) -> Tree:
    """ShapeDtypeStructs with shardings."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings
    )


def lower_step(
    method: Method, rules: steps.Rules, layout: Layout, batch: Batch
) -> Iterator[tuple[int, jax.stages.Lowered]]:
    """Traces every program of a step from shapes alone: (every, program), see `step.make`.

    Args:
      method: the method.
      rules: how steps are played.
      layout: where arrays live; its devices may be those of a machine that is not here.
      batch: ShapeDtypeStructs of the global batch.
    """
    state, frozen = states.shapes(method, batch)
    placed = [abstract(t, layout.shardings(t)) for t in (state, frozen)]
    rows = meshes.batch_sharding(layout.mesh)
    placed.append(abstract(batch, dict.fromkeys(batch, rows)))
    out = (layout.shardings(state), meshes.replicated(layout.mesh))
    for every, program in steps.make(method, rules).items():
        yield every, jax.jit(program, donate_argnums=0, out_shardings=out).lower(*placed)


def compile_step(method: Method, rules: steps.Rules, layout: Layout, batch: Batch) -> Programs:
    """Compiles every program of a step; arguments as for `lower_step`."""
    started, play, flops = time.monotonic(), {}, 0.0
    for every, lowered in lower_step(method, rules, layout, batch):
        play[every] = lowered.compile()
        flops += (play[every].cost_analysis() or {}).get("flops", 0.0) / every
    return Programs(play, flops, time.monotonic() - started)


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


class NonFinite(FloatingPointError):
    """A loss or gradient that is not finite, in a run that does not skip such steps."""


class Watch:
    """Keeps each step's finite flags until they are looked at, so that the first bad is named."""

    def __init__(self, method: Method):
        self._names = {
            every: [p.name for p in method.players if p.every == every]
            for every in {p.every for p in method.players}
        }
        self._flags: list[tuple[int, int, jax.Array]] = []

    def add(self, step: int, every: int, flags: jax.Array) -> None:
        """Flags of one program of one step."""
        self._flags.append((step, every, flags))

    def take(self) -> Callable[[], str | None]:
        """Hands over what was collected, as a function that names the first bad player."""
        flags, self._flags = self._flags, []

        def first_bad() -> str | None:
            for step, every, values in flags:
                bad = np.flatnonzero(~np.asarray(jax.device_get(values)))
                if bad.size:
                    return f"step {step}, player {self._names[every][bad[0]]!r}"
            return None

        return first_bad


def train(
    method: Method,
    *,
    rules: steps.Rules,
    schedule: Schedule,
    layout: Layout,
    batch: Batch,
    batches: Callable[[int], Iterator[dict[str, np.ndarray]]],
    workdir: Path,
    config: Mapping[str, Any],
    picture: Picture | None = None,
    score_batch: dict[str, np.ndarray] | None = None,
    init_from: Callable[[], tuple[dict, str]] | None = None,
) -> State:
    """Plays a method to the end of its schedule, from its newest checkpoint if it has one.

    Args:
      method: the method.
      rules: how steps are played.
      schedule: when things happen.
      layout: where arrays live.
      batch: ShapeDtypeStructs of the global batch.
      batches: first step -> iterator of this process's host batches from that step on.
      workdir: where everything is written.
      config: the whole configuration as plain data, kept with every checkpoint.
      picture: what sample grids show.
      score_batch: this process's rows of the held-out batch for the scores.
      init_from: loads an earlier run's arrays for a fresh start.

    Returns:
      The last state.

    Raises:
      NonFinite: names the player and the first bad network; the last good checkpoint stays.
      checkpoint.Mismatch: the work directory holds a run of other networks.
    """
    programs = compile_step(method, rules, layout, batch)
    keeper = checkpoint.Checkpoints(workdir, schedule.keep_checkpoints, schedule.keep_period_steps)
    state, frozen = start(method, rules, layout, batch, keeper, init_from)
    first = int(state.step)
    log.say(log.parameter_table(method, state, frozen))
    log.say(
        f"step program: {programs.flops / 1e9:,.1f} GFLOP a step and device, compiled in "
        f"{programs.compile_seconds:.1f} s; starting at step {first} of {schedule.total_steps}"
    )
    if jax.process_index() == 0:
        (workdir / "parameters.txt").write_text(log.parameter_list(state))
    records = log.Records(workdir, first, method.better)
    progress = log.Progress(first, schedule.total_steps, rules.batch_size)
    preemption = Preemption()
    studio = Studio(method, rules, layout, frozen, picture, score_batch)
    meta = {"config": dict(config), "seed": rules.seed}
    loop = Loop(method, rules, schedule, programs, frozen, records, progress, keeper, studio, meta)
    source = batches(first)
    try:
        return loop.play(state, first, source, layout.mesh, preemption)
    finally:
        for part in (source, progress, records, preemption):
            getattr(part, "close", lambda: None)()
        keeper.close()


def start(method, rules, layout, batch, keeper, init_from) -> tuple[State, dict[str, Tree]]:
    """The state to begin with: the newest checkpoint, an earlier run's weights, or fresh ones."""
    shapes = states.shapes(method, batch)
    shardings = tuple(layout.shardings(t) for t in shapes)
    state, frozen = states.create(method, batch, rules.seed, shardings)
    restored = keeper.restore(abstract(shapes[0], shardings[0])) if keeper.steps() else None
    if restored:
        log.say(f"resuming from {keeper.folder / str(int(restored[0].step))}")
        return restored[0], frozen
    if init_from:
        state, report = checkpoint.transfer(method, state, *init_from())
        log.say(str(report))
    return state, frozen


class Studio:
    """Draws the grid and computes the scores of a state; compiled at first use."""

    def __init__(self, method, rules, layout, frozen, picture, score_batch):
        self._method, self._frozen, self.picture = method, frozen, picture
        everywhere = meshes.replicated(layout.mesh)
        self._draw = self._score = None

        def ctx(state, frozen, name):
            key = jax.random.fold_in(states.init_key(rules.seed), len(name))
            return states.context(method, state, frozen, key=key, batch_size=rules.batch_size)

        if picture and method.sample:
            self._prompts = jax.device_put(picture.batch, everywhere)
            # Made inside a program: several processes cannot hand each other a key.
            self._keys = jax.jit(
                lambda: jax.random.split(states.init_key(rules.seed), len(picture.captions)),
                out_shardings=everywhere,
            )()
            self._draw = jax.jit(
                lambda state, frozen, batch, keys: method.sample(
                    ctx(state, frozen, "draw"), batch, keys, **picture.controls
                )["image"],
                out_shardings=everywhere,
            )
        if score_batch and method.score:
            self._held_out = meshes.put_batch(score_batch, layout.mesh)
            self._score = jax.jit(
                lambda state, frozen, batch: method.score(ctx(state, frozen, "score"), batch),
                out_shardings=everywhere,
            )

    def draw(self, state: State) -> jax.Array | None:
        """Pictures of the grid, still on the device."""
        return self._draw and self._draw(state, self._frozen, self._prompts, self._keys)

    def score(self, state: State) -> dict[str, jax.Array] | None:
        """The scores, still on the device."""
        return self._score and self._score(state, self._frozen, self._held_out)


@dataclasses.dataclass
class Loop:
    """The parts of a running run, and its loop."""

    method: Method
    rules: steps.Rules
    schedule: Schedule
    programs: Programs
    frozen: dict[str, Tree]
    records: log.Records
    progress: log.Progress
    keeper: checkpoint.Checkpoints
    studio: Studio
    meta: dict[str, Any]

    def play(self, state, first, source, mesh, preemption) -> State:
        """Steps from `first` to the end, or to a preemption."""
        watch, flight = Watch(self.method), collections.deque()
        self._clock, self._clock_step = time.monotonic(), first
        plan, number = self.schedule, first
        while number < plan.total_steps:
            batch = next(source)
            state, metrics = self._step(state, batch, number, watch)
            number += 1
            self.progress.step()
            # Two steps in flight keep the device busy; more would only pile up batches.
            flight.append(metrics)
            if len(flight) > 2:
                jax.block_until_ready(flight.popleft())
            last = number == plan.total_steps
            stop = preemption.reached(number)
            if number == first + 1 or due(number, plan.log_every_steps) or last or stop:
                self._log(number, metrics, watch.take())
            # The first step is pictured too: a curve needs its beginning.
            pictured = due(number, plan.sample_every_steps) or last or number == 1
            if pictured and plan.sample_every_steps:
                self._pictures(state, number)
            if due(number, plan.checkpoint_every_steps) or last or stop:
                self._save(state, number, watch)
            self._raise(self.records.failure, state)
            if stop:
                self.keeper.wait()
                self.progress.say(f"asked to stop: saved step {number}; the same command resumes")
                break
        self.keeper.wait()
        self.records.drain()
        self._raise(self.records.failure, state)
        return state

    def _step(self, state, batch, number, watch):
        with jax.transfer_guard("disallow"):
            state, metrics = self.programs.play[1](state, self.frozen, batch)
            watch.add(number + 1, 1, metrics.pop("finite"))
            for every, program in self.programs.play.items():
                if every > 1 and number % every == 0:
                    state, lazy = program(state, self.frozen, batch)
                    watch.add(number + 1, every, lazy.pop("finite"))
                    metrics |= lazy
        return state, metrics

    def _save(self, state, number, watch) -> None:
        """Saves a state, unless it is a bad one."""
        self.records.drain()
        self._raise(self.records.failure, state)
        bad = watch.take()()
        if bad and not self.rules.skip_nonfinite:
            self._raise(NonFinite(bad), state)
        position = number * self.rules.batch_size
        self.keeper.save(state, self.meta | {"position": position}, number)

    def _raise(self, failure: BaseException | None, state: State) -> None:
        """Ends the run with what a thread found; a loss that is not finite is explained."""
        if not isinstance(failure, NonFinite):
            if failure:
                raise failure
            return
        net, kept = steps.first_bad_net(state), self.keeper.steps()
        raise NonFinite(
            f"{failure}: the loss or a gradient is not finite; first network with such values: "
            f"{net or 'none'}. The last good checkpoint is step {kept[-1] if kept else 'none'}. "
            "Lower the learning rate (config.optim), or set config.skip_nonfinite=True to leave "
            "such steps out and count them"
        )

    def _log(self, number, metrics, first_bad) -> None:
        now = time.monotonic()
        seconds, played = now - self._clock, number - self._clock_step
        self._clock, self._clock_step = now, number
        rate = played / max(seconds, 1e-9)
        facts = {"images": number * self.rules.batch_size}
        speed = {
            "images_per_second": rate * self.rules.batch_size,
            "steps_per_second": rate,
            "tflops_per_second": rate * self.programs.flops / 1e12,
            **self._peak_share(rate),
        }
        if self.programs.compile_seconds:
            speed["compile_seconds"] = self.programs.compile_seconds
            self.programs.compile_seconds = 0.0

        def write():
            values = {k: float(v) for k, v in jax.device_get(metrics).items()}
            bad = first_bad()
            values = {**facts, **speed, **log.peak_memory(), "time": time.time(), **values}
            self.records.write(number, values)
            self.progress.show(number, values)
            if bad and not self.rules.skip_nonfinite:
                raise NonFinite(bad)

        self.records.submit(write)

    def _peak_share(self, rate: float) -> dict[str, float]:
        peak = log.PEAK_FLOPS.get(jax.devices()[0].device_kind)
        return {"share_of_peak": rate * self.programs.flops / peak} if peak else {}

    def _pictures(self, state: State, number: int) -> None:
        pictures, scores = self.studio.draw(state), self.studio.score(state)
        picture = self.studio.picture
        # Drawing is not stepping: the rate must not pay for it.
        jax.block_until_ready((pictures, scores))
        self._clock, self._clock_step = time.monotonic(), number

        def write():
            if pictures is not None:
                shown = picture.to_uint8(jax.device_get(pictures))
                self.records.grid(number, shown, picture.captions)
            if scores is not None:
                values = {f"score/{k}": float(v) for k, v in jax.device_get(scores).items()}
                self.records.write(number, {"images": number * self.rules.batch_size, **values})
                self.records.curves()
                text = "  ".join(f"{k} {v:.4g}" for k, v in values.items())
                self.progress.say(f"step {number}: {text}")

        self.records.submit(write)


def due(number: int, every: int) -> bool:
    """Whether something that happens every so many steps happens after this one."""
    return every > 0 and number % every == 0
