"""Compiling a run's programs for a machine that is not here, from shapes alone."""

import dataclasses
import importlib.util
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from jaxt2i.config import ConfigError, micro_batches
from jaxt2i.data import schema
from jaxt2i.engine import draw, loop, mesh
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.engine.method import Batch, Method, Tree
from jaxt2i.planning import early
from jaxt2i.run import hlo, placement
from jaxt2i.run.chips import GIB, Target
from jaxt2i.run.open import load_method

# Without them libtpu asks the network which machine it is on, and refuses a second process.
QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# What the plan calls the parts of a state.
HELD = {"parameters": "params", "optimiser": "opt", "averages": "ema", "statistics": "extra"}
# A run's length only scales schedules; any number gives the same program.
TOTAL_STEPS = 1000
SAMPLE = "sample"
# How far a program is compiled.
UNTIL = ("buffers", "code")


@dataclasses.dataclass(frozen=True)
class Program:
    """One compiled program, counted; everything is per chip.

    Attributes:
      name: "train" for the players of every step, "train/16" for lazy ones, `SAMPLE`.
      every: steps between two runs.
      seconds: that compiling took.
      arguments: bytes of everything that comes in.
      temporary: bytes of activations, gradients and other intermediate results.
      code: bytes of the program; None where compiling stopped before it was generated.
      peak: bytes in all; outputs that take their inputs' place count once.
      flops: floating-point operations, loops in full; those of products alone without code.
      traffic: bytes between the chip and its memory, loops in full.
      accessed: bytes as the compiler counts them: on-chip ones too, loops once; 0 without code.
      cycles: the compiler's estimate; 0 without code and where it makes none.
      collectives: messages between chips.
      dearest: the operations that most of `cycles` go into; none where the compiler estimates none.
      shortfall: why there is no program, mostly in the compiler's words that it does not fit,
        else "". All else but `peak`, as the compiler puts it, is then 0.
    """

    name: str
    every: int
    seconds: float
    arguments: int = 0
    temporary: int = 0
    code: int | None = 0
    peak: int = 0
    flops: float = 0.0
    traffic: float = 0.0
    accessed: float = 0.0
    cycles: float = 0.0
    collectives: tuple[hlo.Collective, ...] = ()
    dearest: tuple[hlo.Operation, ...] = ()
    shortfall: str = ""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A configuration on a machine.

    Attributes:
      config: the configuration that was compiled.
      target: the machine; None: the one that is here.
      layout: the mesh and the rules on it.
      method: the method.
      state: shapes of the state.
      frozen: shapes of the frozen weights.
      batch: shapes of the global batch.
    """

    config: ConfigDict
    target: Target | None
    layout: mesh.Layout
    method: Method
    state: states.State
    frozen: dict[str, Tree]
    batch: Batch

    @property
    def axes(self) -> dict[str, int]:
        """{mesh axis: size}."""
        return dict(self.layout.mesh.shape)

    def held(self) -> dict[str, int]:
        """Bytes on one chip between steps, by what they are for."""
        # An array's path in the state is what the sharding rules read.
        places = self.layout.shardings(self.state)
        out = {
            name: on_chip(getattr(self.state, field), getattr(places, field))
            for name, field in HELD.items()
        }
        out["frozen"] = on_chip(self.frozen, self.layout.shardings(self.frozen))
        rows = self.layout.rows
        return out | {"batch": on_chip(self.batch, dict.fromkeys(self.batch, rows))}


def on_chip(tree: Tree, shardings: Tree) -> int:
    """Bytes of a tree on one chip."""
    sizes = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(s.shard_shape(x.shape), x.dtype), tree, shardings
    )
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(sizes))


def devices(target: Target) -> list[jax.Device]:
    """Stand-ins for the machine's chips.

    Raises:
      ConfigError: without libtpu; for a topology that it does not know; for more GPUs than
        simulated devices.
    """
    if target.chip.platform == "gpu":
        found = jax.devices("cpu")
        if len(found) < target.count:
            raise ConfigError(
                f"--topology {target}: {target.count} GPUs are planned for on as many simulated "
                f"devices, but this process has {len(found)}; set jax_num_cpu_devices before jax "
                "is first used"
            )
        return found[: target.count]
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            f"--topology {target}: compiling for TPUs needs libtpu, on any Linux machine: "
            "pip install libtpu"
        )
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(str(target), "tpu").devices)
    except jax.errors.JaxRuntimeError as error:
        raise ConfigError(f"--topology {target}: the TPU compiler says: {error}") from None


def prepared(config: ConfigDict, batch_size: int, shape: dict[str, int]) -> ConfigDict:
    """A configuration as the plan compiles it: weights are shapes, so none are looked for.

    Args:
      config: the configuration; it is not changed.
      batch_size: global batch; 0 keeps the configuration's.
      shape: sizes of mesh axes that replace the configuration's.
    """
    c = config.copy_and_resolve_references()
    with c.ignore_type():
        c.accumulate = micro_batches(c)
    c.batch_size = batch_size or c.batch_size
    if c.precision == "auto":  # settled by the machine that plans otherwise
        c.precision = "bfloat16"
    if "weights" in c.model:
        c.model.weights = "random"
    c.mesh.update(shape)
    if c.mesh.fsdp > 1 and not c.sharding:
        c.sharding = ((".", "fsdp"),)
    return c


def recomputable(method: Method) -> bool:
    """Whether `config.remat` can make some network's blocks keep less for the backward pass."""
    return any(hasattr(net, "remat") for net in method.nets.values())


def remat(policy: str) -> tuple[tuple[str, str], ...]:
    """`config.remat` for all networks that can; "": none."""
    return ((".*", policy),) if policy else ()


def remat_line(policy: str) -> str:
    """The same as a setting of the command line."""
    value = str(remat(policy)).replace("'", '"')
    return f"--config.remat='{value}'"


def open_plan(config: ConfigDict, target: Target) -> Plan:
    """Lays a prepared configuration out on a machine.

    Raises:
      ConfigError: where batch, mesh and machine do not go together.
    """
    return laid_out(config, target, devices(target))


def laid_out(config: ConfigDict, target: Target | None, chips: Sequence[jax.Device]) -> Plan:
    """Lays a configuration out on devices; arguments as for `Plan`.

    Raises:
      ConfigError: where batch, mesh and devices do not go together.
    """
    on = mesh.make(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, chips)
    placement.check_batch(config.batch_size, micro_batches(config), on)
    method = load_method(config)
    data = config.data
    sizes = schema.sizes_of(data, batch=config.batch_size, tokens=data.tokens)
    batch = schema.spec(sizes, method.needs)
    layout = placement.layout(on, tuple(map(tuple, config.sharding)), config.mesh.fsdp_min_mb)
    return Plan(config, target, layout, method, *states.shapes(method, batch), batch)


def training(plan: Plan, until: str = "code") -> list[Program]:
    """The programs of a training step, compiled and counted.

    Nothing is compiled where what stays on a chip between steps is more than it has.

    Args:
      plan: the plan.
      until: "code", or "buffers" to stop before code is generated, which takes the TPU compiler a
        tenth of the time; see `Program`.
    """
    state = sum(plan.held().values())
    if state > plan.target.chip.hbm:
        words = f"not compiled: {state / GIB:.2f} GiB stay on a chip between steps"
        return [Program("train", 1, 0.0, peak=state, shortfall=words)]
    if early_only(plan, until):
        periods = sorted({1, *(p.every for p in plan.method.players)})
        return [sketch(label(every), every, plan) for every in periods]
    return [count(label(every), every, program, plan) for every, program in lower_step(plan)]


def sampling(plan: Plan, until: str = "code") -> Program | None:
    """Drawing a batch of pictures; arguments as for `training`."""
    if plan.method.sampler is None:
        return None
    if early_only(plan, until):
        return sketch(SAMPLE, 1, plan)
    return count(SAMPLE, 1, lower_sample(plan), plan)


def early_only(plan: Plan, until: str) -> bool:
    """Whether to stop before code is generated; GPUs' programs are the CPU's, quickly made."""
    if until not in UNTIL:
        raise ValueError(f"until={until!r}; expected one of {', '.join(UNTIL)}")
    return until == "buffers" and plan.target.chip.platform == "tpu"


def label(every: int) -> str:
    """A training program's name."""
    return "train" if every == 1 else f"train/{every}"


def lower_step(plan: Plan) -> Iterator[tuple[int, jax.stages.Lowered]]:
    """Every program of a training step, traced: (steps between two runs, program)."""
    c = plan.config
    rules = steps.Rules(c.seed, c.batch_size, TOTAL_STEPS, micro_batches(c), c.skip_nonfinite)
    return loop.lower_step(plan.method, rules, plan.layout, plan.batch)


def lower_sample(plan: Plan) -> jax.stages.Lowered:
    """Drawing, one row a prompt, split over the chips like a training batch, traced."""
    c, method = plan.config, plan.method
    sizes = schema.sizes_of(c.data, batch=c.batch_size, tokens=c.data.tokens)
    rows = schema.spec(sizes, method.sampler.needs)
    one = schema.spec(dataclasses.replace(sizes, batch=1), method.sampler.needs)
    drawn = draw.Drawer(method=method, layout=plan.layout).outputs(plan.state, plan.frozen, one)
    wanted = tuple(name for name in drawn if name in schema.FIELDS)
    drawer = draw.Drawer(method=method, layout=plan.layout, wanted=wanted)
    placed = map(plan.layout.abstract, (plan.state, plan.frozen))
    return drawer.lower(*placed, plan.layout.abstract(rows, plan.layout.rows))


def count(name: str, every: int, lowered: jax.stages.Lowered, plan: Plan) -> Program:
    """Compiles a program to its end and reads off what it needs."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="jaxt2i-plan-") as folder:
        try:
            compiled = lowered.compile(compiler_options=options(folder))
        except jax.errors.JaxRuntimeError as error:
            return unmade(name, every, time.monotonic() - started, error)
        seconds = time.monotonic() - started
        program = hlo.Program(text(compiled, Path(folder)))
    cost, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
    held = early.Buffers(
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.alias_size_in_bytes,
        memory.temp_size_in_bytes,
    )
    code = memory.generated_code_size_in_bytes
    flops = hlo.flops(compiled, program)
    made = counted(name, every, seconds, program, held, plan)
    return dataclasses.replace(
        made,
        code=code,
        peak=held.peak + code,
        flops=flops,
        accessed=cost.get("bytes accessed", 0.0),
        cycles=program.cycles(),
        dearest=tuple(program.dearest()),
    )


def sketch(name: str, every: int, plan: Plan) -> Program:
    """Compiles a program up to its buffers, in a process of its own, and reads off what it needs.

    Args:
      name: `SAMPLE` or `label(every)`.
      every: steps between two runs.
      plan: the plan; for TPUs.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="jaxt2i-plan-") as folder:
        try:
            early.run(Path(folder), compile_into, folder, plan.config, plan.target, name)
        except early.CompilerError as error:
            return unmade(name, every, time.monotonic() - started, error)
        seconds = time.monotonic() - started
        program = hlo.Program(newest(Path(folder), early.PROGRAM))
        held = early.buffers(newest(Path(folder), early.BUFFERS))
    return counted(name, every, seconds, program, held, plan)


def compile_into(folder: str, config: ConfigDict, target: Target, name: str) -> None:
    """Compiles one program of a configuration, with the compiler's files in a folder."""
    plan = open_plan(config, target)
    if name == SAMPLE:
        lowered = lower_sample(plan)
    else:
        lowered = next(p for every, p in lower_step(plan) if label(every) == name)
    lowered.compile(compiler_options=options(folder))


def options(folder: str) -> dict[str, str | bool]:
    """Compiler options to have the compiler's files in a folder."""
    return {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}


def counted(
    name: str, every: int, seconds: float, program: hlo.Program, held: early.Buffers, plan: Plan
) -> Program:
    """What a program's text and buffers tell."""
    return Program(
        name,
        every,
        seconds,
        held.arguments,
        held.temporary,
        None,
        held.peak,
        program.flops()[0],
        program.traffic(),
        collectives=tuple(program.collectives(plan.axes)),
    )


def unmade(name: str, every: int, seconds: float, error: Exception) -> Program:
    """A program that the compiler found no memory for; any other error is raised again."""
    if "RESOURCE_EXHAUSTED" not in str(error):
        raise error
    words = str(error).splitlines()[0]
    return Program(name, every, seconds, peak=needed(words), shortfall=words)


def text(compiled: jax.stages.Compiled, folder: Path) -> str:
    """The compiled program as text.

    jaxlib cannot read back every program that a newer libtpu writes (asynchronous gathers on v5p
    and v6e); the compiler's own file is then the one to read.
    """
    try:
        return compiled.as_text()
    except jax.errors.JaxRuntimeError:
        if not any(folder.glob(early.PROGRAM)):
            raise
        return newest(folder, early.PROGRAM)


def newest(folder: Path, pattern: str) -> str:
    """The last of the compiler's files of one kind.

    Raises:
      ConfigError: where it wrote none.
    """
    files = sorted(folder.glob(pattern))
    if not files:
        raise ConfigError(
            f"the TPU compiler wrote no {pattern}, as libtpu 0.0.52 does before it generates code; "
            "--until code does without it"
        )
    return files[-1].read_text()


def needed(words: str) -> int:
    """Bytes that the compiler asks for where it says that memory ran out."""
    unit = {"K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
    found = re.findall(r"([\d.]+)([KMGT])\b", words)
    return int(max((float(n) * unit[u] for n, u in found), default=0))
