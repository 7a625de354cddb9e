"""How long a step takes at least, on one host and on a pod, and what a run then costs.

A chip cannot be faster than its matrix units, its memory and its links are (Williams et al. 2009,
"Roofline"). The step's bound is the slowest of the three if they overlap perfectly, and
max(compute, memory) + network if messages overlap with nothing.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from jaxt2i.planning.compiled import Program
from jaxt2i.run import chips
from jaxt2i.run.chips import Chip, Target
from jaxt2i.run.hlo import Collective

# Seconds from chip to chip within a slice or host, and from host to host: orders of magnitude.
HOP = 1e-6
OUTER_HOP = 10e-6


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of a step.

    Attributes:
      compute: FLOPs over the peak.
      memory: traffic over the memory's bandwidth.
      network: all messages, one after the other.
      estimate: the TPU compiler's cycles over the clock; 0 where it counts none.
    """

    compute: float
    memory: float
    network: float
    estimate: float

    @property
    def overlapped(self) -> float:
        """The roofline: all three at once."""
        return max(self.compute, self.memory, self.network)

    @property
    def apart(self) -> float:
        """Messages wait for the work, and the work for them."""
        return max(self.compute, self.memory) + self.network

    @property
    def wall(self) -> str:
        """Which of the three is the bound."""
        names = {"compute": self.compute, "memory": self.memory, "network": self.network}
        return max(names, key=names.get)


def inner_rate(chip: Chip, shape: tuple[int, ...], whole: bool) -> float:
    """Bytes/s with which a chip takes part in a collective inside a slice or a host.

    A ring along a side uses both directions of its links; a line that is not closed half of that.
    All sides work at once where all chips take part; a part of the chips is taken to lie along one
    side, not closed.

    Args:
      chip: the chip.
      shape: of the slice.
      whole: whether all chips of the slice take part.
    """
    if not chip.dims:
        return chip.link_rate * chip.links
    if not whole:
        return chip.link_rate
    closed = chips.wraps(chip, shape)
    return chip.link_rate * sum(2 if c else 1 for n, c in zip(shape, closed, strict=True) if n > 1)


def message(kind: str, size: float, group: int, target: Target) -> float:
    """Seconds of one collective: in the slice or host first, then between them.

    With n members, an all-reduce moves 2 (n - 1) / n of the payload through each chip, the others
    half of that, a permutation the payload itself (Thakur et al. 2005).

    Args:
      kind: as in `hlo.KINDS`.
      size: payload in bytes, see `hlo.Collective`.
      group: members.
      target: the machine.
    """
    if group < 2:
        return 0.0
    chip, count = target.chip, target.count
    passes = 2 if kind == "all-reduce" else 1
    near = min(group, chip.inner)
    far = -(-group // near)
    if kind == "collective-permute":
        return size / inner_rate(chip, target.shape, False) + HOP
    rate = inner_rate(chip, target.shape, near == min(count, chip.inner))
    seconds = passes * (near - 1) / near * size / rate + passes * HOP * hops(near, target)
    if far > 1:
        seconds += passes * (far - 1) / far * size / near / chip.outer_rate
        seconds += passes * OUTER_HOP * (far - 1).bit_length()
    return seconds


def hops(members: int, target: Target) -> int:
    """Steps of the longest way between members: along the torus' sides, or through a switch."""
    if not target.chip.dims:
        return 1
    whole = members >= min(target.count, target.chip.inner)
    return sum(n // 2 for n in target.shape) if whole else members // 2


def network(collectives: Iterable[Collective], target: Target, planned: Target) -> float:
    """Seconds of all messages of a program.

    Args:
      collectives: of the program as it was compiled.
      target: the machine.
      planned: the machine that the program was compiled for: on another one the data axis grows
        or shrinks, the work of a chip stays.
    """
    total = 0.0
    for c in collectives:
        group, size = c.group, float(c.bytes)
        # A group of a part of the axis, such as that of grouped statistics, keeps its size.
        if "data" in c.axes and c.whole:
            scaled = max(1, round(group * target.count / planned.count))
            # What is gathered or scattered over the data axis grows with it; sums do not.
            size *= scaled / group if c.kind != "all-reduce" else 1.0
            group = scaled
        total += c.times * message(c.kind, size, group, target)
    return total


def times(programs: Sequence[Program], target: Target, planned: Target | None = None) -> Times:
    """Seconds of an average step: lazy programs count once in so many steps.

    Args:
      programs: of the step.
      target: the machine; a chip does the same work on all of them.
      planned: the machine that they were compiled for; None: the same.
    """
    chip = target.chip
    share = [(p, 1 / p.every) for p in programs]
    return Times(
        sum(p.flops * w for p, w in share) / chip.flops,
        sum(p.traffic * w for p, w in share) / chip.hbm_rate,
        sum(network(p.collectives, target, planned or target) * w for p, w in share),
        sum(p.cycles * w for p, w in share) / chip.clock if chip.clock else 0.0,
    )


@dataclasses.dataclass(frozen=True)
class Point:
    """Weak scaling to one number of chips, the batch of a chip unchanged.

    Attributes:
      count: chips.
      overlapped: images/s a chip over those on one host, all three bounds at once.
      apart: the same with messages that overlap with nothing.
    """

    count: int
    overlapped: float
    apart: float


def scaling(
    programs: Sequence[Program], planned: Target, least: int, counts: Sequence[int]
) -> list[Point]:
    """Predicted efficiency against one host, or against `planned` where that is less.

    Args:
      programs: of the step, compiled for `planned`.
      planned: a machine of the same chips.
      least: chips that the axes other than data need.
      counts: chips; those below `least` are left out.
    """
    chip = planned.chip

    def on(count: int) -> Times:
        machine = planned if count == planned.count else chips.of_size(chip, count)
        return times(programs, machine, planned)

    one = on(max(min(chip.host, planned.count), least))
    now = {n: on(n) for n in counts if n >= least}
    return [Point(n, one.overlapped / t.overlapped, one.apart / t.apart) for n, t in now.items()]


def chip_hours(steps: int, seconds: float, count: int) -> float:
    """Price of a run in chip-hours.

    Args:
      steps: of the run.
      seconds: of a step.
      count: chips.
    """
    return steps * seconds * count / 3600
