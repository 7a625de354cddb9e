"""What happens beside the steps of a training: lines of metrics, pictures, scores, checkpoints.

A thread does what must not hold up the steps.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
from etils import epath

from jaxt2i import places
from jaxt2i.config import ConfigError
from jaxt2i.engine import draw, loop
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.engine.loop import Moment, NonFinite, Part
from jaxt2i.engine.method import Batch
from jaxt2i.engine.state import State
from jaxt2i.run import checkpoint, chips, health, log, profile


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
      keep_steps: checkpoints are made at these steps, too, and kept for good.
      best_by: the score whose best checkpoint is kept for good; "": the method's first.
      recorded: steps whose time is looked into.
      stop_when_dead: end a run that learns nothing any more.
    """

    total_steps: int
    log_every_steps: int = 50
    checkpoint_every_steps: int = 1000
    sample_every_steps: int = 1000
    keep_checkpoints: int = 3
    keep_period_steps: int = 0
    keep_steps: tuple[int, ...] = ()
    best_by: str = ""
    recorded: profile.Window = profile.NOTHING
    stop_when_dead: bool = False

    def __post_init__(self):
        if self.total_steps <= 0:
            raise ConfigError(
                "the run has no length: set config.total_steps or config.total_images"
            )
        self.recorded.check(self.total_steps)


@dataclasses.dataclass(frozen=True)
class Grid:
    """What a grid of samples shows.

    Attributes:
      requests: what is drawn.
      show: (step, (request, its outputs) one by one, records) -> None, in the records' thread.
    """

    requests: tuple[draw.Request, ...]
    show: Callable[[int, Iterable, log.Records], None]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a run reads.

    Attributes:
      batch: ShapeDtypeStructs of the global batch.
      batches: first step -> iterator of batches from that step on, on the devices.
      grid: what grids of samples show.
      probe: makes what is drawn beside the grids, to see whether the run is well.
      score_batch: makes the held-out batch for the scores.
      settle_batches: makes batches that `Sampler.settle` is played on.
      seen: those that are held out are trained on, too; curves say so.
    """

    batch: Batch
    batches: Callable[[int], Iterator[Batch]]
    grid: Grid | None = None
    probe: Callable[[], health.Probe] | None = None
    score_batch: Callable[[], Batch] | None = None
    settle_batches: Callable[[], Iterator[Batch]] | None = None
    seen: bool = False


@dataclasses.dataclass
class Programs:
    """Compiled programs and what is known of them before the first step."""

    play: dict[int, Callable]
    flops: float
    compile_seconds: float
    cached: bool = False


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

    def timed(self, source: Iterable) -> Iterator:
        """The source, its waiting counted."""
        source = iter(source)
        while True:
            started = time.monotonic()
            try:
                batch = next(source)
            except StopIteration:
                return
            self._waited += time.monotonic() - started
            yield batch

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
class Desk:
    """What the parts of a run share; `played`: the numbers of a step have come."""

    workdir: epath.Path
    rules: steps.Rules
    schedule: Schedule
    programs: Programs
    records: log.Records
    progress: log.Progress
    keeper: checkpoint.Checkpoints
    flags: loop.Flags
    clock: Clock
    watch: health.Watch
    played: bool = False

    def fits(self) -> bool:
        """Whether a step has been played to its end."""
        self.records.drain()
        return self.played

    def images(self, number: int) -> int:
        """Real pictures seen after so many steps."""
        return number * self.rules.batch_size

    def doubtful(self) -> bool:
        """Whether a run may be dying: then no checkpoint pushes out one from before."""
        self.records.drain()
        return self.watch.doubtful

    def updates(self, number: int, ratios: Mapping[str, jax.Array]) -> None:
        """Writes how far a step moved each network, {network: share of its size}."""

        def write():
            values = {net: float(v) for net, v in jax.device_get(ratios).items()}
            values = self.watch.updates(number, self.images(number), values)
            self.records.write(number, {"images": self.images(number), **values})

        self.records.submit(write)

    def finish(self, state: State) -> None:
        """Waits until all is written that was asked for."""
        self.keeper.wait()
        self.records.drain()
        self.check(state)
        number = int(state.step)
        if number < self.schedule.total_steps:
            self.progress.say(f"asked to stop: saved step {number}; the same command resumes")

    def check(self, state: State) -> None:
        """Ends the run with what the records' thread found."""
        if self.records.failure:
            self.fail(self.records.failure, state)

    def fail(self, failure: BaseException, state: State) -> None:
        """Raises; a loss that is not finite is explained."""
        if not isinstance(failure, NonFinite):
            raise failure
        net, kept = steps.first_bad_net(state), self.keeper.steps()
        raise NonFinite(
            f"{failure}: the loss or a gradient is not finite; first network with such values: "
            f"{net or 'none'}. {checkpoint.last_of(kept, 'good checkpoint')}. "
            "Lower the learning rate (config.optim), or set config.skip_nonfinite=True to leave "
            "such steps out and count them"
        )


class Recording(Part):
    """Records the time of a few steps."""

    def __init__(self, desk: Desk, first: int):
        self._desk = desk
        self._recorder = profile.Recorder(desk.schedule.recorded, desk.workdir)
        start = desk.schedule.recorded.start_step
        if 0 < start <= first:
            log.say(
                f"config.profile.start_step={start} has been played already, so nothing is "
                f"recorded; steps from {first + 1} on can be"
            )

    def before(self, number: int, land: Callable[[int], None]) -> None:
        """Starts with nothing in flight."""
        if self._recorder.starts(number):
            land(0)
            self._recorder.start()

    def after(self, now: Moment) -> None:
        """Ends with the device's work; a thread reads it and says where the time went."""
        if not self._recorder.ends(now.number):
            return
        now.land(0)
        with self._desk.clock.paused():
            trace = self._recorder.stop()
        device, window = jax.devices()[0], self._recorder.window
        programs, size = self._desk.programs, self._desk.rules.batch_size

        def write():
            recorded = profile.ProfileData.from_file(str(places.here(trace)))
            summary = profile.summarise(recorded, profile.texts(programs.play.values()))
            title = f"steps {window.start_step} to {window.last} on {device.device_kind}: {trace}"
            text = summary.text(title, size, programs.flops, chips.peak_flops(device))
            (self._recorder.folder / "summary.txt").write_text(text + "\n")
            self._desk.progress.say(text)

        self._desk.records.submit(write)

    def close(self) -> None:
        """Ends a recording that is still going on."""
        self._recorder.close()


class Logging(Part):
    """Writes lines of metrics."""

    def __init__(self, desk: Desk):
        self._desk, self._logged = desk, False

    def after(self, now: Moment) -> None:
        """Writes when it is time, and after the first and the last step."""
        self._desk.progress.step()
        every = self._desk.schedule.log_every_steps
        if due(now.number, every) or not self._logged or now.last or now.stop:
            self._logged = True
            self._log(now.number, now.metrics)

    def _log(self, number: int, metrics: steps.Metrics) -> None:
        desk, programs = self._desk, self._desk.programs
        rate, waited = desk.clock.read(number)
        desk.clock.restart(number)
        facts = {"images": desk.images(number), "time": int(time.time())}
        peak = chips.peak_flops(jax.devices()[0])
        speed = {
            "images_per_second": rate * desk.rules.batch_size,
            "steps_per_second": rate,
            "input_wait": waited,
            "tflops_per_second": rate * programs.flops / 1e12,
            **({"share_of_peak": rate * programs.flops / peak} if peak else {}),
        }
        if programs.compile_seconds:
            speed["compile_seconds"] = programs.compile_seconds
            speed["micro_batches"] = desk.rules.accumulate
            programs.compile_seconds = 0.0
        first_bad = desk.flags.take()

        def write():
            values = {k: float(v) for k, v in jax.device_get(metrics).items()}
            desk.played = True
            bad = first_bad()
            values |= desk.watch.line(number, desk.images(number), values)
            values = {**facts, **speed, **log.peak_memory(), **values}
            desk.records.write(number, values)
            desk.progress.show(number, values)
            if bad and not desk.rules.skip_nonfinite:
                raise NonFinite(bad)

        desk.records.submit(write)


class Painting(Part):
    """Draws grids and computes scores; compiled at first use.

    Attributes:
      desk: what the parts share; made later than this, once the step is compiled.
    """

    desk: Desk

    def __init__(self, method, rules, schedule, layout, frozen, inputs):
        self._schedule, self._frozen = schedule, frozen
        self._grid, self._inputs = inputs.grid, inputs
        self._probe = self._held_out = None
        self._drawer = draw.Drawer(method=method, layout=layout) if inputs.grid else None
        self._score = None
        if inputs.score_batch and method.score:
            name = "score"

            def score(state, frozen, batch):
                weights = layout.gather(state), layout.gather(frozen)
                key = jax.random.fold_in(states.init_key(rules.seed), len(name))
                ctx = states.context(method, *weights, key=key, batch_size=rules.batch_size)
                with method.products():
                    return method.score(ctx, batch)

            self._score = jax.jit(score, out_shardings=layout.everywhere)

    def due(self, number: int) -> bool:
        """Whether it is time; after the first step it is too: a curve needs its beginning."""
        every, total = self._schedule.sample_every_steps, self._schedule.total_steps
        return every > 0 and (due(number, every) or number in (1, total))

    def after(self, now: Moment) -> None:
        """Draws when it is time."""
        self._look(now.number)
        if not self.due(now.number):
            return
        now.settle()
        chunks = list(self._chunks(now.state, self._grid.requests if self._grid else ()))
        looked = list(self._chunks(now.state, self._probe.requests if self._probe else ()))
        scores = self._score and self._score(now.state, self._frozen, self._held_out)
        # Drawing is not stepping: the rate must not pay for it.
        jax.block_until_ready((chunks, looked, scores))
        self.desk.clock.restart(now.number)
        self.desk.records.submit(lambda: self._write(now.number, chunks, looked, scores))

    def _look(self, number: int) -> None:
        """Reads the held-out data, once: after a step, so that the first one comes early."""
        if self._inputs is None:
            return
        inputs, self._inputs = self._inputs, None
        self.desk.records.drain()  # its numbers need Python as well
        if inputs.probe:
            self._probe = inputs.probe()
            self.desk.watch.knows(self._probe.real, self._probe.captions)
        if self._score:
            self._held_out = inputs.score_batch()
        self.desk.clock.restart(number)

    def _chunks(
        self, state: State, requests: tuple[draw.Request, ...]
    ) -> Iterator[tuple[tuple[draw.Request, ...], dict]]:
        """(requests, their outputs on the devices)."""
        size = self._drawer.size if requests else 1
        for first in range(0, len(requests), size):
            part = requests[first : first + size]
            yield part, self._drawer.start(state, self._frozen, part)

    def _write(self, number: int, chunks: list, looked: list, scores: dict | None) -> None:
        desk, images = self.desk, self.desk.images(number)
        if chunks:
            self._grid.show(number, drawn(chunks), desk.records)
        scores = {f"score/{k}": float(v) for k, v in jax.device_get(scores or {}).items()}
        desk.watch.scores(number, images, scores)
        seen = health.pictures_of(drawn(looked))
        looks = {}
        if seen is not None:
            looks = desk.watch.pictures(number, images, seen, len(self._probe.captions))
        if scores or looks:
            desk.records.write(number, {"images": images, **scores, **looks})
            desk.records.curves()
            shown = scores | {k: v for k, v in looks.items() if k in log.DISTANCES}
            text = "  ".join(f"{k} {v:.4g}" for k, v in shown.items())
            desk.progress.say(f"step {number}: {text}")
        if desk.schedule.stop_when_dead:
            desk.watch.check(desk.keeper.steps())


def drawn(chunks: list) -> Iterator[tuple[draw.Request, dict]]:
    """(request, its outputs on the host), one by one."""
    for requests, out in chunks:
        out = jax.device_get(out)
        for i, request in enumerate(requests):
            yield request, jax.tree.map(lambda x, i=i: x[i], out)


class Saving(Part):
    """Writes checkpoints, and ends the run with what the records' thread found."""

    def __init__(self, desk: Desk, meta: dict[str, Any]):
        self._desk, self._meta = desk, meta

    def after(self, now: Moment) -> None:
        """Saves a state when it is time, unless it is a bad one."""
        desk = self._desk
        ends = now.last or now.stop
        asked = now.number in desk.schedule.keep_steps
        if due(now.number, desk.schedule.checkpoint_every_steps) or asked or ends:
            if desk.schedule.stop_when_dead and not ends and desk.doubtful():
                return
            now.settle()
            desk.records.drain()
            desk.check(now.state)
            bad = desk.flags.take()()
            if bad and not desk.rules.skip_nonfinite:
                desk.fail(NonFinite(bad), now.state)
            position = now.number * desk.rules.batch_size
            desk.keeper.save(now.state, self._meta | {"position": position}, now.number)
        desk.check(now.state)


def due(number: int, every: int) -> bool:
    """Whether something that happens every so many steps happens after this one."""
    return every > 0 and number % every == 0
