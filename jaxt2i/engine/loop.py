"""The loop: compile, restore, then play steps while a thread keeps the records.

A run is a pure function of its config: the step number is the data position and, with the seed,
the source of every random draw. Restarting is therefore exact by construction.
"""

import collections
import concurrent.futures
import contextlib
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

from jaxt2i.engine import mesh as meshes
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.engine.method import Batch, ConfigError, Method, Tree
from jaxt2i.engine.state import State
from jaxt2i.run import cache, checkpoint, chips, log, profile


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
      recorded: steps whose time is looked into.
    """

    total_steps: int
    log_every_steps: int = 50
    checkpoint_every_steps: int = 1000
    sample_every_steps: int = 1000
    keep_checkpoints: int = 3
    keep_period_steps: int = 0
    recorded: profile.Window = profile.NOTHING

    def __post_init__(self):
        if self.total_steps <= 0:
            raise ConfigError(
                "the run has no length: set config.total_steps or config.total_images"
            )
        self.recorded.check(self.total_steps)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where arrays live."""

    mesh: Mesh
    rules: tuple[tuple[str, str], ...] = ()
    min_mb: float = 4.0

    def shardings(self, tree: Tree) -> Tree:
        """Shardings of a tree of arrays or shapes."""
        return meshes.tree_shardings(self.mesh, tree, self.rules, self.min_mb)

    def gather(self, tree: Tree) -> Tree:
        """In a program: weights as networks use them, see `mesh.in_use`."""
        if self.mesh.shape["fsdp"] == 1:
            return tree
        places = jax.tree.map(meshes.in_use, self.shardings(tree))
        return jax.lax.with_sharding_constraint(tree, places)

    def scatter(self, tree: Tree) -> Tree:
        """In a program: gradients to where the parameters of the same paths are."""
        if self.mesh.shape["fsdp"] == 1:
            return tree
        return jax.lax.with_sharding_constraint(tree, self.shardings(tree))


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
    cached: bool = False


def abstract(tree: Tree, shardings: Tree) -> Tree:
    """ShapeDtypeStructs with shardings."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings
    )


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
    placed = [abstract(t, layout.shardings(t)) for t in (state, frozen)]
    rows = meshes.batch_sharding(layout.mesh)
    placed.append(abstract(batch, dict.fromkeys(batch, rows)))
    out = (layout.shardings(state), meshes.replicated(layout.mesh))
    for every, program in steps.make(method, rules, layout.gather, layout.scatter).items():
        program.__name__ = "train" if every == 1 else f"train_{every}"  # as profiles show it
        yield every, jax.jit(program, donate_argnums=0, out_shardings=out).lower(*placed)


def compile_step(
    method: Method,
    rules: steps.Rules,
    layout: Layout,
    batch: Batch,
    shapes: tuple[State, dict[str, Tree]] | None = None,
) -> Programs:
    """Compiles every program of a step; arguments as for `lower_step`."""
    started, play, flops, cached = time.monotonic(), {}, 0.0, True
    for every, lowered in lower_step(method, rules, layout, batch, shapes):
        with cache.hits() as hits:
            play[every] = lowered.compile()
        cached = cached and bool(hits)
        flops += (play[every].cost_analysis() or {}).get("flops", 0.0) / every
    return Programs(play, flops, time.monotonic() - started, cached)


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
    score_batch: Callable[[], dict[str, np.ndarray]] | None = None,
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
      score_batch: makes this process's rows of the held-out batch for the scores.
      init_from: loads an earlier run's arrays for a fresh start.

    Returns:
      The last state.

    Raises:
      NonFinite: names the player and the first bad network; the last good checkpoint stays.
      checkpoint.Mismatch: the work directory holds a run of other networks.
    """
    keeper = checkpoint.Checkpoints(workdir, schedule.keep_checkpoints, schedule.keep_period_steps)
    shapes = states.shapes(method, batch)
    # The compiler leaves Python free: meanwhile the state is made or read, and what is pictured.
    with concurrent.futures.ThreadPoolExecutor(1, "compile") as pool:
        compiling = pool.submit(compile_step, method, rules, layout, batch, shapes)
        state, frozen = start(method, rules, layout, batch, shapes, keeper, init_from)
        studio = Studio(method, rules, layout, frozen, picture, score_batch)
        programs = compiling.result()
    first = int(state.step)
    log.say(log.parameter_table(method, state, frozen))
    log.say(
        f"step program: {programs.flops / 1e9:,.1f} GFLOP a step and device, compiled in "
        f"{programs.compile_seconds:.1f} s{' (from the cache)' * programs.cached}; "
        f"starting at step {first} of {schedule.total_steps}"
    )
    if jax.process_index() == 0:
        (workdir / "parameters.txt").write_text(log.parameter_list(state))
    records = log.Records(workdir, first, method.better)
    progress = log.Progress(first, schedule.total_steps, rules.batch_size)
    preemption = Preemption()
    meta = {"config": dict(config), "seed": rules.seed}
    recorder = profile.Recorder(schedule.recorded, workdir)
    if 0 < schedule.recorded.start_step <= first:
        log.say(
            f"config.profile.start_step={schedule.recorded.start_step} has been played already, so "
            f"nothing is recorded; steps from {first + 1} on can be"
        )
    parts = (records, progress, keeper, studio, recorder)
    loop = Loop(method, rules, schedule, programs, frozen, *parts, meta)
    source = batches(first)
    try:
        return loop.play(state, first, source, preemption)
    finally:
        for part in (source, progress, recorder, records, preemption):
            getattr(part, "close", lambda: None)()
        keeper.close()


def start(method, rules, layout, batch, shapes, keeper, init_from) -> tuple[State, dict[str, Tree]]:
    """The state to begin with: the newest checkpoint, an earlier run's weights, or fresh ones."""
    shardings = tuple(layout.shardings(t) for t in shapes)
    restored = keeper.restore(abstract(shapes[0], shardings[0])) if keeper.steps() else None
    if restored:
        log.say(f"resuming from {keeper.folder / str(int(restored[0].step))}")
        return restored[0], states.create_frozen(method, batch, rules.seed, shardings[1])
    state, frozen = states.create(method, batch, rules.seed, shardings)
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
            state, frozen = layout.gather(state), layout.gather(frozen)
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
            self._held_out = meshes.put_batch(score_batch(), layout.mesh)
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


class Clock:
    """Times the loop: steps, and the seconds that they waited for their input.

    Args:
      step: steps played so far.
    """

    def __init__(self, step: int):
        self.restart(step)

    def restart(self, step: int) -> None:
        """Forgets everything before now."""
        self._started, self._step, self._waited = time.monotonic(), step, 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around waiting for a batch."""
        started = time.monotonic()
        with jax.profiler.TraceAnnotation(profile.INPUT):
            yield
        self._waited += time.monotonic() - started

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Around what is not stepping."""
        started = time.monotonic()
        yield
        self._started += time.monotonic() - started

    def read(self, step: int) -> tuple[float, float]:
        """(steps a second, share of the time that waited for input) since the last restart."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        return (step - self._step) / seconds, self._waited / seconds


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
    recorder: profile.Recorder
    meta: dict[str, Any]

    def play(self, state, first, source, preemption) -> State:
        """Steps from `first` to the end, or to a preemption."""
        watch, flight = Watch(self.method), collections.deque()
        self._clock = Clock(first)
        plan, number = self.schedule, first
        while number < plan.total_steps:
            if self.recorder.starts(number + 1):
                self._land(flight, 0)
                self.recorder.start()
            with jax.profiler.StepTraceAnnotation(profile.STEP, step_num=number + 1):
                with self._clock.waiting():
                    batch = next(source)
                state, metrics = self._step(state, batch, number, watch)
                number += 1
                self.progress.step()
                flight.append(metrics)
                # Two steps in flight keep the device busy; more would only pile up batches. A
                # recording ends with the device's work.
                self._land(flight, 0 if self.recorder.ends(number) else 2)
            if self.recorder.ends(number):
                self._profile()
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

    def _land(self, flight: collections.deque, allowed: int) -> None:
        """Waits until no more than so many steps are in flight."""
        with jax.profiler.TraceAnnotation(profile.DEVICE):
            while len(flight) > allowed:
                jax.block_until_ready(flight.popleft())

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
        rate, waited = self._clock.read(number)
        self._clock.restart(number)
        facts = {"images": number * self.rules.batch_size, "time": int(time.time())}
        speed = {
            "images_per_second": rate * self.rules.batch_size,
            "steps_per_second": rate,
            "input_wait": waited,
            "tflops_per_second": rate * self.programs.flops / 1e12,
            **self._peak_share(rate),
        }
        if self.programs.compile_seconds:
            speed["compile_seconds"] = self.programs.compile_seconds
            self.programs.compile_seconds = 0.0

        def write():
            values = {k: float(v) for k, v in jax.device_get(metrics).items()}
            bad = first_bad()
            values = {**facts, **speed, **log.peak_memory(), **values}
            self.records.write(number, values)
            self.progress.show(number, values)
            if bad and not self.rules.skip_nonfinite:
                raise NonFinite(bad)

        self.records.submit(write)

    def _peak_share(self, rate: float) -> dict[str, float]:
        peak = chips.peak_flops(jax.devices()[0])
        return {"share_of_peak": rate * self.programs.flops / peak} if peak else {}

    def _profile(self) -> None:
        """Ends a recording; a thread reads it and says where the time went."""
        with self._clock.paused():
            trace = self.recorder.stop()
        device, window = jax.devices()[0], self.recorder.window

        def write():
            summary = profile.summarise(
                profile.ProfileData.from_file(str(trace)),
                profile.texts(self.programs.play.values()),
            )
            text = summary.text(
                f"steps {window.start_step} to {window.last} on {device.device_kind}: {trace}",
                self.rules.batch_size,
                self.programs.flops,
                chips.peak_flops(device),
            )
            (self.recorder.folder / "summary.txt").write_text(text + "\n")
            self.progress.say(text)

        self.records.submit(write)

    def _pictures(self, state: State, number: int) -> None:
        pictures, scores = self.studio.draw(state), self.studio.score(state)
        picture = self.studio.picture
        # Drawing is not stepping: the rate must not pay for it.
        jax.block_until_ready((pictures, scores))
        self._clock.restart(number)

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
