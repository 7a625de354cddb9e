"""How many micro-batches let a step fit where it runs: config.accumulate="auto".

The batch of the recipe stays; where its activations do not fit a device, it is played in parts
whose gradients are averaged. The number is chosen from an estimate, in seconds and before anything
is compiled, and is the run's from then on: a continued run keeps it.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import psutil
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from jaxt2i.config import AUTO, ConfigError, micro_batches
from jaxt2i.data import schema
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.engine.method import Method
from jaxt2i.planning import alive, compiled
from jaxt2i.planning.compiled import TOTAL_STEPS, Plan
from jaxt2i.run import chips, settings, trouble
from jaxt2i.run.chips import GIB

# Of a device's memory; the rest is for the program's code and for what the estimate misses.
SHARE = 0.8


def with_parts(config: ConfigDict, parts: int) -> ConfigDict:
    """A configuration that is played in so many micro-batches."""
    c = config.copy_and_resolve_references()
    with c.ignore_type():  # it may have been "auto"
        c.accumulate = parts
    return c


@dataclasses.dataclass(frozen=True)
class Need:
    """Bytes of one device.

    Attributes:
      held: what stays between steps.
      fixed: gradients and the like, whatever the batch.
      rows: activations of all its rows at once.
      gradients: of the largest player, summed over micro-batches.
    """

    held: float
    fixed: float
    rows: float
    gradients: float

    def of(self, parts: int) -> float:
        """Bytes with so many micro-batches."""
        summed = self.gradients if parts > 1 else 0.0
        return self.held + self.fixed + self.rows / parts + summed


def need(plan: Plan) -> Need:
    """What a plan's step needs on one device, from two traces: of its batch, and of half of it.

    Args:
      plan: of a step that is not played in parts.
    """
    config, params = plan.config, plan.state.params
    whole = traced(plan.method, config)
    gradients = max(sum(4 * states.count(params[n]) for n in p.nets) for p in plan.method.players)
    half = config.copy_and_resolve_references()
    half.batch_size = config.batch_size // 2
    try:
        rows = 2 * (whole - traced(compiled.load_method(half), half))
    except (ConfigError, ValueError):  # groups of examples that do not go into half of them
        rows = whole - gradients
    rows = min(max(rows, 0.0), whole)
    return Need(sum(plan.held().values()), whole - rows, rows / shards(plan), gradients)


def shards(plan: Plan) -> int:
    """Devices that share a batch."""
    return plan.axes["data"] * plan.axes["fsdp"]


def traced(method: Method, config: ConfigDict) -> float:
    """Bytes that the step's programs keep at their worst moment, on all devices together."""
    data = config.data
    sizes = schema.sizes_of(data, batch=config.batch_size, tokens=data.tokens)
    batch = schema.spec(sizes, method.needs)
    rules = steps.Rules(config.seed, config.batch_size, TOTAL_STEPS)
    shapes = states.shapes(method, batch)
    return max(
        alive.peak(jax.make_jaxpr(program)(*shapes, batch).jaxpr, donated=True)
        for program in steps.make(method, rules).values()
    )


def room(device: jax.Device) -> float:
    """Bytes of a device that a step may use; CPU devices share what is free on the host."""
    there = chips.memory(device)
    return SHARE * (there or psutil.virtual_memory().available / len(jax.local_devices()))


def possible(config: ConfigDict, parts: int) -> bool:
    """Whether the system can be played in so many micro-batches."""
    try:
        compiled.load_method(with_parts(config, parts))
    except ConfigError:
        return False
    return True


def smallest(config: ConfigDict, needs: Need, rows: int, bytes_: float) -> int:
    """The least number of micro-batches that fits.

    Args:
      config: the configuration.
      needs: of its step on a device.
      rows: of the batch on a device.
      bytes_: of a device.

    Raises:
      ConfigError: where none does; says by how much, and what else there is.
    """
    parts = [n for n in range(1, rows + 1) if rows % n == 0]
    fitting = (n for n in parts if needs.of(n) <= bytes_ and possible(config, n))
    found = next(fitting, None)
    if found is None:
        raise ConfigError(
            f"config.accumulate={AUTO!r}: no number of micro-batches fits. One picture at a time "
            f"still needs an estimated {needs.of(rows) / GIB:.2f} GiB of the {bytes_ / GIB:.2f} "
            f"GiB of a device, of which {needs.held / GIB:.2f} stay between steps: divide them "
            "with --config.mesh.fsdp=N, recompute with --config.remat, or use more devices"
        )
    return found


def kept(workdir: Path | None) -> int:
    """The number that the run in a work directory is played with; 0 where there is none."""
    if workdir is None or not (workdir / "config.json").is_file():
        return 0
    return micro_batches(settings.read_config(workdir))


def settled(
    config: ConfigDict, workdir: Path | None = None, bytes_: float | None = None
) -> tuple[ConfigDict, list[str]]:
    """A configuration with its number of micro-batches.

    Args:
      config: the configuration; anything but "auto" stays what it is.
      workdir: of a run that may have been begun.
      bytes_: that a step may use on a device; None: `room` of the first.

    Returns:
      (the configuration, lines for a person on what was chosen and what that changes).

    Raises:
      ConfigError: where nothing fits, or batch, mesh and devices do not go together.
    """
    if config.get("accumulate", 1) != AUTO:
        return config, []
    plan = compiled.laid_out(with_parts(config, 1), None, jax.devices())
    rows, before = config.batch_size // shards(plan), kept(workdir)
    if before and rows % before == 0:
        chosen = f"config.accumulate={AUTO!r}: {before} micro-batches, with which this run began"
        return with_parts(config, before), [chosen, *changes(plan.method, before)]
    bytes_ = room(jax.local_devices()[0]) if bytes_ is None else bytes_
    needs = need(plan)
    parts = smallest(config, needs, rows, bytes_)
    if jax.process_count() > 1:  # hosts may have different memories
        parts = int(multihost_utils.process_allgather(np.int32(parts)).max())
    return with_parts(config, parts), [
        told(config, needs, parts, bytes_),
        *changes(plan.method, parts),
    ]


def told(config: ConfigDict, needs: Need, parts: int, bytes_: float) -> str:
    """What was chosen, and why."""
    whole, has = needs.of(1) / GIB, bytes_ / GIB
    if parts == 1:
        return (
            f"config.accumulate={AUTO!r}: the batch of {config.batch_size:,} fits in one piece, an "
            f"estimated {whole:.2f} of {has:.2f} GiB a device"
        )
    return (
        f"config.accumulate={AUTO!r}: {parts} micro-batches of {config.batch_size // parts:,}; the "
        f"batch of {config.batch_size:,} in one piece needs an estimated {whole:.2f} of {has:.2f} "
        f"GiB a device, so {needs.of(parts) / GIB:.2f}"
    )


def exhausted(error: Exception, config: ConfigDict) -> str:
    """What to tell where a device's memory ran out; "": it is another error."""
    if not trouble.out_of_memory(error):
        return ""
    return (
        f"the step does not fit the device's memory ({str(error).splitlines()[0]}); "
        f"--config.accumulate={2 * micro_batches(config)} plays it in more parts. "
        "python -m jaxt2i.plan says what else there is"
    )


def more(config: ConfigDict, said: str, workdir: Path) -> tuple[ConfigDict, list[str]]:
    """A configuration with the next larger number of micro-batches, where an estimate was wrong.

    Args:
      config: of the step that the devices had no memory for.
      said: what they said.
      workdir: of the run.

    Returns:
      As `settled` does.

    Raises:
      ConfigError: where there is no larger number; of several processes, which cannot begin again
        together: the number is kept, and the same command takes it.
    """
    parts = micro_batches(config)
    plan = compiled.laid_out(config, None, jax.devices())
    rows = config.batch_size // shards(plan)
    failed = f"config.accumulate={AUTO!r}: a step in {parts} parts ran out of memory ({said})"
    larger = (n for n in range(parts + 1, rows + 1) if rows % n == 0 and possible(config, n))
    found = next(larger, None)
    if found is None:
        raise ConfigError(
            f"{failed}, and no larger number divides the {rows} pictures of a device: recompute "
            "with --config.remat, divide parameters with --config.mesh.fsdp=N, or use more devices"
        )
    now = f"{found} micro-batches of {config.batch_size // found:,}"
    if jax.process_count() > 1:
        settings.keep(workdir, "accumulate", found)
        raise ConfigError(f"{failed}; start all processes again: the same command takes {now}")
    return with_parts(config, found), [f"{failed}; now {now}", *changes(plan.method, found)]


def changes(method: Method, parts: int) -> Sequence[str]:
    """What micro-batches change in a method, beside the random draws."""
    if parts == 1:
        return []
    seen = "; ".join(method.mixes) or "nothing: no loss of this system looks across examples"
    return [f"what micro-batches change: {seen}"]
