"""Whether a run fits a chip, by how much, and which lines of its configuration to change."""

import dataclasses
from collections.abc import Sequence

from jaxt2i.planning.compiled import Plan, Program, recomputable, remat_line
from jaxt2i.run.chips import GIB, Chip

# What sharding over fsdp splits; frozen weights and the batch follow rules of their own.
STATE = ("parameters", "optimiser", "averages")
# A change is advised if it frees at least this share of what is missing.
WORTHWHILE = 0.1


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one chip.

    Attributes:
      held: {what for: bytes} that stay between steps; see `Plan.held`.
      temporary: activations, gradients and other intermediate results of the largest program;
        where the compiler gave up, what it asked for beyond `held`.
      code: of the largest program; None where it is not known, and not in `peak`.
      peak: of the program that needs most.
      limit: what the chip has.
    """

    held: dict[str, int]
    temporary: int
    code: int | None
    peak: int
    limit: float

    @property
    def fits(self) -> bool:
        """Whether the largest program can run."""
        return self.peak <= self.limit

    @property
    def spare(self) -> float:
        """Bytes left; negative where they are missing."""
        return self.limit - self.peak

    def verdict(self) -> str:
        """One sentence."""
        share = f"{self.peak / GIB:.2f} of {self.limit / GIB:.2f} GiB"
        if self.fits and self.code is None:
            return f"fits: {share}, {self.spare / GIB:.2f} GiB to spare for the program's code"
        if self.fits:
            return f"fits: {share}, {self.spare / GIB:.2f} GiB to spare"
        return f"does not fit: {share}, {-self.spare / GIB:.2f} GiB too much"


def memory(held: dict[str, int], programs: Sequence[Program], chip: Chip) -> Memory:
    """The memory of a plan's programs.

    Args:
      held: bytes that stay on a chip, by what they are for.
      programs: compiled for it.
      chip: the chip.
    """
    largest = max(programs, key=lambda p: p.peak)
    if largest.shortfall:
        # The compiler's number is that of intermediate results where it says so, else of all.
        state = sum(held.values())
        whole = largest.peak + state * ("temporaries" in largest.shortfall)
        return Memory(held, max(whole - state, 0), 0, max(whole, state), chip.hbm)
    return Memory(held, largest.temporary, largest.code, largest.peak, chip.hbm)


def advice(found: Memory, plan: Plan) -> list[str]:
    """What to change where a run does not fit: configuration lines, the cheapest first.

    Sharding splits the state, micro-batches and recomputation shrink the activations; what each
    would leave is estimated from the bytes that were found.

    Args:
      found: the memory.
      plan: the plan that it was found for.
    """
    if found.fits:
        return []
    c, count = plan.config, plan.target.count
    rows = c.batch_size // (plan.axes["data"] * plan.axes["fsdp"])
    state = sum(found.held[k] for k in STATE)
    lines = []
    fsdp = smallest_split(state, plan.axes["fsdp"], count, -found.spare)
    left = state * plan.axes["fsdp"] / fsdp
    if state - left > WORTHWHILE * -found.spare:
        rules = "" if c.sharding else ' with config.sharding = ((".", "fsdp"),)'
        lines.append(
            f"--config.mesh.fsdp={fsdp}{rules}: {state / GIB:.2f} GiB of parameters, moments and "
            f"averages become about {left / GIB:.2f}; costs gathers of the weights"
        )
    if found.temporary and recomputable(plan.method) and not c.remat:
        lines.append(
            f"{remat_line('full')}: keeps block inputs alone of "
            f"{found.temporary / GIB:.2f} GiB of activations and scratch; costs another forward "
            'pass ("products" in place of "full" keeps more and costs less)'
        )
    if parts := parts_of(found, rows):
        lines.append(
            f"--config.accumulate={c.accumulate * parts}: {rows // parts} images a chip at once "
            f"instead of {rows}; statistics over the batch then see one part at a time"
        )
        lines.append(
            f"--config.batch_size={c.batch_size // parts}: {rows // parts} images a chip; another "
            "batch is another recipe"
        )
        more = count * parts
        lines.append(f"--topology with {more} chips instead of {count}, for the same batch")
    elif not lines:
        lines.append("a chip with more memory: v5p has 95.7 GiB, h200 has 131 GiB")
    return lines


def parts_of(found: Memory, rows: int) -> int:
    """In how many parts the rows of a chip would fit, by the bytes that were found; 0: in none.

    Args:
      found: of a program that does not fit.
      rows: that it has on a chip at once.
    """
    if not found.temporary or rows < 2:
        return 0
    return smallest_divisor(rows, found.temporary / max(found.temporary + found.spare, 1.0))


def smallest_split(state: float, now: int, count: int, missing: float) -> int:
    """The least size of fsdp beyond `now` that frees enough, the largest if none does.

    Args:
      state: bytes on a chip that it splits, at its present size.
      now: the present size.
      count: chips; a size divides it.
      missing: bytes to free.
    """
    sizes = [n for n in range(now + 1, count + 1) if count % n == 0 and n % now == 0]
    enough = [n for n in sizes if state * (1 - now / n) >= missing]
    return (enough or sizes[-1:] or [now])[0]


def smallest_divisor(rows: int, at_least: float) -> int:
    """The least divisor of `rows` beyond 1 that is large enough, `rows` if none is."""
    return next(n for n in range(2, rows + 1) if rows % n == 0 and (n >= at_least or n == rows))
