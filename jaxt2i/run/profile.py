"""Recording a few steps for XProf, and saying in words where their time went.

The summary is read from the recorded trace. Accelerators have a plane each, "/device:TPU:0" or
"/device:GPU:0", with their operations in it; a CPU's operations run in the host's threads and
carry the number of their (simulated) device.
"""

import bisect
import collections
import contextlib
import dataclasses
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping

import jax
from etils import epath
from jax.profiler import ProfileData

from jaxt2i import places
from jaxt2i.config import ConfigError
from jaxt2i.engine.loop import DEVICE, INPUT, STEP
from jaxt2i.run import hlo

TOP = 15
# They stand around the operations that they run, which are recorded themselves.
CONTAINERS = {"while", "conditional", "call"}
# What a fusion is called after, the weightiest first.
WEIGHTY = ("convolution", "dot", "scatter", "gather", "reduce-window", "sort", "reduce")
# Copies to and from the host run beside the computation.
BESIDE = ("MemcpyH2D", "MemcpyD2H")
DEVICE_PLANE = re.compile(r"/device:(?:TPU|GPU):(\d+)")

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Window:
    """Which steps are recorded.

    Attributes:
      start_step: the first one, counted from 1 as in the metrics; 0: none.
      steps: how many.
      python_tracer: record every Python call as well; the host is then slower.
    """

    start_step: int = 0
    steps: int = 10
    python_tracer: bool = False

    @property
    def last(self) -> int:
        """The last step."""
        return self.start_step + self.steps - 1

    def check(self, total_steps: int) -> None:
        """Refuses a window that the run does not reach.

        Raises:
          ConfigError: names the config line.
        """
        if self.start_step == 0:
            return
        if self.steps < 1:
            raise ConfigError(
                f"config.profile.steps={self.steps}: at least one step is recorded; set "
                "config.profile.start_step=0 to record none"
            )
        if self.start_step < 0 or self.last > total_steps:
            raise ConfigError(
                f"config.profile.start_step={self.start_step}, steps={self.steps}: steps "
                f"{self.start_step} to {self.last} are not all in a run of steps 1 to "
                f"{total_steps}; choose an earlier start, fewer steps, or a longer run"
            )


NOTHING = Window()


class Recorder:
    """Records a window of steps below WORKDIR/profile; the first process's devices stand for all.

    The profiler writes to file systems alone: for a store it writes here, and the end copies.

    Args:
      window: which steps.
      workdir: the run's directory.
    """

    def __init__(self, window: Window, workdir: epath.PathLike):
        self.window, self.folder = window, epath.Path(workdir) / "profile"
        self._enabled = window.start_step > 0 and jax.process_index() == 0
        self._running, self._scratch = False, None
        if self._enabled and places.scheme_of(workdir):
            self._scratch = tempfile.TemporaryDirectory(prefix="jaxt2i-profile-")

    def starts(self, number: int) -> bool:
        """Whether recording begins before this step."""
        return self._enabled and number == self.window.start_step

    def ends(self, number: int) -> bool:
        """Whether recording ends after this step."""
        return self._running and number == self.window.last

    def start(self) -> None:
        """Begins to record."""
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = int(self.window.python_tracer)
        options.session_id = f"steps_{self.window.start_step}_to_{self.window.last}"
        folder = self._scratch.name if self._scratch else self.folder
        jax.profiler.start_trace(folder, profiler_options=options)
        self._running = True

    def stop(self) -> epath.Path:
        """Ends recording and returns the trace's file."""
        self.close()
        if self._scratch:
            places.copy(epath.Path(self._scratch.name), self.folder)
        session = f"steps_{self.window.start_step}_to_{self.window.last}"
        files = places.matching(self.folder / "plugins" / "profile" / session, "*.xplane.pb")
        return max(files, key=lambda path: path.stat().mtime)

    def close(self) -> None:
        """Ends a recording that is still going on."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a compiled program says of one of its operations.

    Attributes:
      category: the opcode; of a fusion, the weightiest operation in it.
      source: the operation of the model that it comes from.
    """

    category: str
    source: str


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation of a program, in all its runs on all devices.

    Attributes:
      program: name of the compiled program; "" for what belongs to none.
      name: its name there.
      kind: what it is.
      count: runs.
      seconds: in all.
    """

    program: str
    name: str
    kind: Kind
    count: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Summary:
    """Where a window's time went; shares are of the window.

    Attributes:
      steps: steps in it.
      seconds: its length, from the first step's begin to the last step's results.
      devices: devices that were recorded.
      busy: share in which a device computed, their mean.
      input_wait: share in which the loop waited for the next batch.
      device_wait: share in which the loop waited for the device, steps ahead of it.
      host: share of the rest of the steps: dispatching them.
      between: share outside of steps and waits: records, samples, checkpoints.
      operations: the slowest first.
    """

    steps: int
    seconds: float
    devices: int
    busy: float
    input_wait: float
    device_wait: float
    host: float
    between: float
    operations: tuple[Operation, ...]

    @property
    def idle(self) -> float:
        """Share in which a device did nothing, their mean."""
        return 1 - self.busy

    def text(self, title: str, batch_size: int, flops: float, peak: float | None) -> str:
        """The summary as lines.

        Args:
          title: the first line.
          batch_size: examples of a step.
          flops: floating-point operations of a step on one device; 0 where not known.
          peak: FLOP/s that a device can do; None where not known.
        """
        step = self.seconds / self.steps
        rate = f"{batch_size / step:,.1f} images/s"
        if flops:
            rate += f"   {flops / step / 1e12:.4g} TFLOP/s a device"
            rate += f", {flops / step / peak:.1%} of its peak" if flops and peak else ""
        lines = [
            title,
            f"  {self.steps} steps in {self.seconds:.3f} s   {rate}",
            f"  step    {step * 1e3:,.2f} ms, the device computed {self.busy * step * 1e3:,.2f} ms",
            f"  device  busy {self.busy:.1%}   idle {self.idle:.1%}   ({self.devices} recorded)",
            f"  loop    input wait {self.input_wait:.1%}   device wait {self.device_wait:.1%}   "
            f"host {self.host:.1%}   between steps {self.between:.1%}",
        ]
        return "\n".join([*lines, *self._tables()])

    def _tables(self) -> Iterator[str]:
        total = sum(op.seconds for op in self.operations) or 1.0
        shares = collections.Counter()
        for op in self.operations:
            shares[op.kind.category] += op.seconds / total
        yield "  kinds   " + "   ".join(f"{k} {v:.1%}" for k, v in shares.most_common(8))
        runs = self.steps * self.devices
        yield f"{'ms/step':>10}{'share':>8}{'runs/step':>11}  {'kind':<22}operation, and its source"
        for op in self.operations[:TOP]:
            row = f"{op.seconds / runs * 1e3:>10.3f}{op.seconds / total:>8.1%}"
            row += f"{op.count / runs:>11.4g}  {op.kind.category:<22}{op.program}/{op.name}"
            yield f"{row}  {op.kind.source[:100]}".rstrip()


def texts(programs: Iterable[jax.stages.Compiled]) -> Iterator[str]:
    """The text of each compiled program.

    One that jaxlib cannot read back, as it may be with a newer libtpu, is left out: its operations
    are then known by their names alone.
    """
    for program in programs:
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            yield program.as_text()


def kinds(text: str) -> tuple[str, dict[str, Kind]]:
    """What a compiled program's text says of its operations.

    Args:
      text: HLO after optimisation.

    Returns:
      (name of the program, {operation: kind}).
    """
    program = hlo.Program(text)
    return program.name, {
        # Without the program's own name, which is the same for all.
        i.name: Kind(category(i, program), re.sub(r"^jit\([^)]*\)/", "", i.where))
        for instructions in program.computations.values()
        for i in instructions
    }


def category(i: hlo.Instruction, program: hlo.Program) -> str:
    """What an operation of a program is called in a table."""
    if i.op == "custom-call":
        target = re.search(r'custom_call_target="([^"]+)"', i.rest)
        return target[1] if target else i.op
    if i.op != "fusion":
        return i.op
    inside = {j.op for name in i.called for j in program.computations.get(name, ())}
    return next((f"{heavy} fusion" for heavy in WEIGHTY if heavy in inside), "elementwise fusion")


def summarise(profile: ProfileData, programs: Iterable[str]) -> Summary:
    """Reads a trace.

    Args:
      profile: the trace.
      programs: texts of the programs that ran, for the kinds of their operations.
    """
    known = dict(map(kinds, programs))
    planes = list(profile.planes)
    marks = spans(planes)
    start = min(a for a, _ in marks[STEP])
    waits = [within(marks[name], start) for name in (INPUT, DEVICE)]
    # The window ends when the last step's results are there: they are waited for after it.
    loop = [*marks[STEP], *waits[0], *waits[1]]
    window = max(b for _, b in loop) - start
    devices = [ops for p in planes if DEVICE_PLANE.fullmatch(p.name) for ops in [on_chip(p)] if ops]
    devices = devices or on_host(planes)
    seconds, counts = collections.Counter(), collections.Counter()
    for ops in devices:
        for key, (a, b) in ops:
            seconds[key] += b - a
            counts[key] += 1
    operations = [
        Operation(*key, kind, counts[key], total / 1e9)
        for key, total in seconds.most_common()
        if (kind := kind_of(known, *key)).category not in CONTAINERS
    ]
    busy = [covered(interval for _, interval in ops) / window for ops in devices]
    inside = covered(loop)
    waited = [covered(wait) for wait in waits]
    return Summary(
        steps=len(marks[STEP]),
        seconds=window / 1e9,
        devices=len(devices),
        busy=min(sum(busy) / max(len(busy), 1), 1.0),
        input_wait=waited[0] / window,
        device_wait=waited[1] / window,
        host=(inside - sum(waited)) / window,
        between=(window - inside) / window,
        operations=tuple(operations),
    )


def spans(planes) -> dict[str, list[Interval]]:
    """When the loop's marks were on, in nanoseconds, by their names."""
    out: dict[str, list[Interval]] = {STEP: [], INPUT: [], DEVICE: []}
    for plane in planes:
        if plane.name == "/host:CPU":
            for line in plane.lines:
                for event in line.events:
                    if event.name in out:
                        out[event.name].append((event.start_ns, event.end_ns))
    return out


def on_chip(plane) -> list[tuple[tuple[str, str], Interval]]:
    """((program, operation), when) of everything that an accelerator computed."""
    lines = {line.name: line for line in plane.lines}
    modules = [
        (e.start_ns, e.name.partition("(")[0])
        for e in getattr(lines.get("XLA Modules"), "events", ())
    ]
    modules.sort()
    # A TPU has one line of operations; a GPU one for each of its streams.
    rows = [lines["XLA Ops"]] if "XLA Ops" in lines else lines.values()
    out = []
    for line in rows:
        if line.name != "XLA Ops" and not line.name.startswith("Stream"):
            continue
        for event in line.events:
            stats = dict(event.stats)
            if event.name.startswith(BESIDE):
                continue
            # A TPU's event is named by the instruction's whole text.
            name = stats.get("hlo_op") or event.name.partition(" = ")[0].lstrip("%")
            program = stats.get("hlo_module") or running(modules, event.start_ns)
            out.append(((program, name), (event.start_ns, event.end_ns)))
    return out


def running(modules: list[tuple[float, str]], when: float) -> str:
    """The program that ran at a time, of (start, name) in order."""
    index = bisect.bisect_right(modules, (when, "\U0010ffff")) - 1
    return modules[index][1] if index >= 0 else ""


def on_host(planes) -> list[list[tuple[tuple[str, str], Interval]]]:
    """((program, operation), when) of every device that computed in the host's threads."""
    out, begun, ends = collections.defaultdict(list), [], {}
    for plane in planes:
        if plane.name != "/host:CPU":
            continue
        for line in plane.lines:
            for event in line.events:
                if event.name.startswith("end: "):
                    ends[dict(event.stats).get("_c")] = event.start_ns
                elif not event.name.startswith("ThreadpoolListener"):
                    stats = dict(event.stats)
                    if "hlo_op" in stats:
                        begun.append((stats, event.start_ns, event.end_ns))
    for stats, start, end in begun:
        # What runs on in other threads says its end in an event of its own.
        end = max(end, ends.get(stats.get("_p"), end))
        key = stats.get("hlo_module", ""), stats["hlo_op"]
        out[stats.get("device_ordinal", 0)].append((key, (start, end)))
    return list(out.values())


def kind_of(known: Mapping[str, Mapping[str, Kind]], program: str, name: str) -> Kind:
    """What an operation is; where its program's text is not at hand, what its name says."""
    kind = known.get(program, {}).get(name)
    return kind or Kind(re.sub(r"[.\d]+$", "", name), "")


def within(intervals: Iterable[Interval], start: float) -> list[Interval]:
    """The parts of intervals that lie after a time."""
    return [(max(a, start), b) for a, b in intervals if b > start]


def covered(intervals: Iterable[Interval]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return total
