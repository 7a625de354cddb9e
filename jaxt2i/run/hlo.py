"""Reading a compiled program: its operations, its collectives, and what its loops repeat.

The compiler's own counts take the body of a loop once; here every computation knows how often it
runs, so that collectives, products and memory traffic in loops can be counted in full.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
WIDTH = {"pred": 1, "token": 0, "c64": 8, "c128": 16}
# They move nothing: names for arrays that are there already, or results of what was counted.
FREE = {
    *("parameter", "get-tuple-element", "tuple", "bitcast", "constant", "while", "conditional"),
    *("call", "iota", "after-all", "partition-id", "replica-id", "opt-barrier", "copy-done"),
    *("async-update", "async-done", "all-reduce-done", "all-gather-done", "slice-done"),
    *("collective-permute-done", "send-done", "recv-done", "optimization-barrier"),
}
# What a fusion is named by, the weightiest first.
HEARTS = ("convolution", "dot", "scatter", "gather", "sort", "reduce-window", "reduce")
# A fusion of nothing else computes nothing.
MOVES = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "bitcast-convert"),
    *("copy", "transpose", "reshape", "reverse", "convert", "slice", "dynamic-slice", "pad"),
    *("concatenate", "broadcast", "dynamic-update-slice"),
}
INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$", re.M)
# A program that is not compiled yet leaves the types out, and % before names.
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*)?\{$", re.M)
ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\](\{[^}]*\})?")
# Whose work is counted.
COUNTED = re.compile(r" (?:dot|convolution|custom-call)\(")
CALLED = re.compile(r"(?:calls|to_apply|body|condition|branch_computations)=(\{[^}]*\}|%?[\w.\-]+)")
MESH_GROUPS = re.compile(
    r"replica_groups=mesh\[([^\]]+)\]"
    r"(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}"
)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line.

    Attributes:
      name: without the percent sign.
      result: the type's text.
      op: the opcode.
      rest: operands and attributes.
      root: whether it is what the computation returns.
    """

    name: str
    result: str
    op: str
    rest: str
    root: bool

    def attribute(self, name: str) -> str:
        """The text of an attribute up to the next one; "" where there is none."""
        match = re.search(rf"[ ,]{name}=(.*?)(?:, [a-z_]+=|$)", self.rest)
        return match[1] if match else ""

    @property
    def where(self) -> str:
        """The operation of the model that it belongs to; "" where the compiler made it up."""
        match = re.search(r'op_name="([^"]*)"', self.rest)
        return match[1] if match else ""

    @functools.cached_property
    def operands(self) -> list[str]:
        """Names of the operands."""
        depth, end = 1, len(self.rest)
        for i, c in enumerate(self.rest):
            depth += (c == "(") - (c == ")")
            if not depth:
                end = i
                break
        text = self.rest[:end]
        plain = (n for n in text.split(", ") if re.fullmatch(r"[A-Za-z_][\w.\-]*", n))
        return re.findall(r"%([\w.\-]+)", text) or list(plain)

    @property
    def called(self) -> list[str]:
        """Names of the computations it runs."""
        return called(self.rest)


@dataclasses.dataclass(frozen=True)
class Collective:
    """A message between chips.

    Attributes:
      kind: one of `KINDS`.
      dtype: of its elements; several are joined by "+".
      bytes: payload on one chip: what is reduced, what has been gathered, what is exchanged.
      group: chips that take part with each other.
      axes: mesh axes along which they lie, such as "data" or "data+fsdp".
      whole: whether a group fills its axes; grouped statistics need a part alone.
      where: the operation of the model that it belongs to.
      times: how often a step sends it.
    """

    kind: str
    dtype: str
    bytes: int
    group: int
    axes: str
    whole: bool
    where: str
    times: int

    @property
    def gradient(self) -> bool:
        """Whether it belongs to a backward pass."""
        return "transpose(" in self.where


@dataclasses.dataclass(frozen=True)
class Operation:
    """What a program does at one place, where the compiler estimates what it takes.

    Attributes:
      where: the operation of the model that it belongs to; "" where the compiler made it up.
      kind: such as "convolution fusion", "loop fusion", "copy to another layout".
      result: types and sizes of what it makes, such as "f32[16], bf16[2,32,288]".
      times: how often a step does it.
      cycles: of all of these together.
      share: of the program's cycles.
    """

    where: str
    kind: str
    result: str
    times: int
    cycles: float
    share: float


class Computations(Mapping):
    """{computation: its instructions}, each read when it is asked for: few of them often are.

    Attributes:
      texts: {computation: its lines}.
    """

    def __init__(self, texts: Mapping[str, str]):
        self.texts, self._read = texts, {}

    def __getitem__(self, name: str) -> list[Instruction]:
        if name not in self._read:
            found = INSTRUCTION.finditer(self.texts[name])
            parts = (x.groups() for x in found)
            self._read[name] = [Instruction(*rest, bool(root)) for root, *rest in parts]
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        return name in self.texts

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def __len__(self) -> int:
        return len(self.texts)


class Program:
    """A compiled program's text, taken apart.

    Args:
      text: HLO after optimisation.

    Attributes:
      name: of the program.
      computations: {computation: its instructions}, callees before their callers.
      entry: the computation that runs first.
    """

    def __init__(self, text: str):
        head = re.match(r"HloModule ([^\s,]+)", text)
        self.name = head[1] if head else ""
        heads = list(COMPUTATION.finditer(text))
        ends = [*(x.start() for x in heads[1:]), len(text)]
        self.computations = Computations(
            {x[2]: text[x.end() : end] for x, end in zip(heads, ends, strict=False)}
        )
        self.entry = next((x[2] for x in heads if x[1]), "")

    @functools.cached_property
    def times(self) -> dict[str, tuple[int, int]]:
        """{computation: (runs a step, runs a step if every loop went round once)}."""
        out = dict.fromkeys(self.computations, (0, 0))
        out[self.entry] = (1, 1)
        # Callees are written before their callers.
        for name, text in reversed(self.computations.texts.items()):
            full, once = out[name]
            turns = [(callee, 1) for callee in called(text)]
            if " while(" in text:
                each = (
                    (i, self.trips(i) if i.op == "while" else 1) for i in self.computations[name]
                )
                turns = [(callee, trips) for i, trips in each for callee in i.called]
            for callee, trips in turns:
                a, b = out.get(callee, (0, 0))
                out[callee] = (a + full * trips, b + once)
        return out

    def trips(self, loop: Instruction) -> int:
        """Turns of a loop: what the compiler noted, else the bound that its counter meets."""
        if known := re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', loop.rest):
            return int(known[1])
        inside = self.computations[loop.attribute("condition").strip("%")]
        root = next(i for i in inside if i.root)
        # The comparison may be wrapped in a fusion that takes the bound as an operand.
        compared = [i for i in inside if i.name in root.operands]
        bounds = [number(i) for i in compared if integer(i)]
        counters = [i.attribute("index") for i in compared if i.op == "get-tuple-element"]
        if len(bounds) != 1 or len(counters) != 1:
            return bounds[0] if len(bounds) == 1 else 1
        return -(-bounds[0] // self._stride(loop, int(counters[0])))

    def _stride(self, loop: Instruction, counter: int) -> int:
        """What a turn adds to a loop's counter: more than 1 where a turn does several's work."""
        inside = {i.name: i for i in self.computations[loop.attribute("body").strip("%")]}
        root = next(i for i in inside.values() if i.root)
        step = inside.get(root.operands[counter]) if root.op == "tuple" else None
        if step is None or step.op != "add":
            return 1
        added = [number(inside[o]) for o in step.operands if o in inside and integer(inside[o])]
        return added[0] if len(added) == 1 else 1

    @functools.cached_property
    def loops(self) -> dict[str, int]:
        """{body of a loop: its turns}."""
        return {
            i.attribute("body").strip("%"): self.trips(i)
            for instructions in self.computations.values()
            for i in instructions
            if i.op == "while"
        }

    @functools.cached_property
    def sequential(self) -> set[str]:
        """Computations whose instructions run one by one, instead of inside a fusion."""
        out, todo = set(), [self.entry]
        while todo:
            name = todo.pop()
            out.add(name)
            for i in self.computations[name]:
                if i.op in ("while", "conditional", "call"):
                    todo += [c for c in i.called if c in self.computations and c not in out]
        return out

    def collectives(self, mesh: dict[str, int]) -> list[Collective]:
        """Every message of a step.

        Args:
          mesh: {axis: size} in the order in which chips are numbered.
        """
        out, seen = [], set()
        for name, instructions in self.computations.items():
            for i in instructions:
                kind = i.op.removesuffix("-start")
                # Several computations may hold steps of one message; the channel says so.
                channel = i.attribute("channel_id") or i.name
                if kind not in KINDS or not self.times[name][0] or (kind, channel) in seen:
                    continue
                seen.add((kind, channel))
                out.append(self._collective(i, kind, mesh, self.times[name][0]))
        return out

    def _collective(self, i, kind, mesh, times) -> Collective:
        ids = pairs(i) if kind == "collective-permute" else groups(i, math.prod(mesh.values()))[0]
        group = len(ids)
        size = sum(n for _, n in arrays(i.result))
        started = i.op.endswith("-start")
        if started and kind in ("all-gather", "reduce-scatter"):
            size = size * group // (group + 1)  # the result names the operands too
        elif started and kind == "collective-permute":
            size //= 2
        elif kind == "reduce-scatter":
            size *= group
        dtypes = dict.fromkeys(t for t, n in arrays(i.result) if n)
        axes = along(ids, mesh)
        return Collective(
            kind,
            "+".join(dtypes),
            size,
            group,
            "+".join(axes) or "none",
            group == math.prod(mesh[a] for a in axes),
            i.where,
            times,
        )

    def flops(self) -> tuple[float, float]:
        """FLOPs of all products: (a step, a step if every loop went round once)."""
        total = np.zeros(2)
        for name, text in self.computations.texts.items():
            if not COUNTED.search(text):
                continue
            instructions = self.computations[name]
            found = {i.name: i.result for i in instructions}
            count = sum(product(i, found) for i in instructions if i.op in ("dot", "convolution"))
            total += count * np.array(self.times[name])
            # True ones first: they are what a step has, beside what XLA has counted.
            kernels = [kernel(i, found) for i in instructions if i.op == "custom-call"]
            total += np.sum(kernels, 0) * self.times[name] if kernels else 0
        return float(total[0]), float(total[1])

    def traffic(self) -> float:
        """Bytes a step between a chip and its memory.

        Every instruction outside of fusions reads its operands and writes its result; arrays in
        on-chip memory (space 1) cost nothing.
        """
        total = 0.0
        for name in self.sequential:
            instructions, turns = self.computations[name], self.loops.get(name, 0)
            found = {i.name: i.result for i in instructions}
            for i in instructions:
                if i.op not in FREE:
                    texts = [i.result, *(found.get(o, "") for o in i.operands)]
                    total += self.times[name][0] * sum(moved(t, turns) for t in texts)
        return total

    def estimates(self) -> Iterator[tuple[Instruction, int, int]]:
        """(what runs one by one, how often a step, the compiler's cycles of once) where known."""
        for name in (n for n in self.computations if n in self.sequential):
            for i in self.computations[name]:
                if found := re.search(r'"estimated_cycles":"(\d+)"', i.rest):
                    yield i, self.times[name][0], int(found[1])

    def cycles(self) -> float:
        """The compiler's estimate of the step, in cycles; 0 where it makes none."""
        return float(sum(times * cycles for _, times, cycles in self.estimates()))

    def dearest(self, count: int = 10) -> list[Operation]:
        """The operations that take the most cycles, equal ones at one place together.

        Messages between chips are not among them where the compiler estimates none.
        """
        sums: dict[tuple, list[int]] = collections.defaultdict(lambda: [0, 0])
        for i, times, cycles in self.estimates():
            made = ", ".join(f"{dtype}[{dims}]" for dtype, dims, _ in ARRAY.findall(i.result))
            line = sums[self.origin(i), self.kind(i), made]
            line[0] += times
            line[1] += times * cycles
        first = sorted(sums.items(), key=lambda item: -item[1][1])[:count]
        whole = self.cycles()
        return [Operation(*key, n, float(cycles), cycles / whole) for key, (n, cycles) in first]

    def inside(self, i: Instruction) -> list[Instruction]:
        """Everything that a fusion runs, fusions in it too; nothing for other instructions."""
        out = []
        for x in self.computations.get(i.attribute("calls").strip("%"), ()):
            out += [*self.inside(x), x] if x.op == "fusion" else [x]
        return out if i.op == "fusion" else []

    def kind(self, i: Instruction) -> str:
        """What an instruction is, see `Operation`."""
        if i.op == "copy" and order(self.results.get(i.operands[0], "")) != order(i.result):
            return "copy to another layout"
        ops = {x.op for x in self.inside(i)}
        if not ops:
            return i.op
        loop = "copy" if ops <= MOVES else i.attribute("kind").removeprefix("k").lower()
        return f"{next((h for h in HEARTS if h in ops), loop)} fusion"

    def origin(self, i: Instruction) -> str:
        """The operation of the model that an instruction, or what it is named by, belongs to."""
        heart = self.kind(i).removesuffix(" fusion")
        parts = [i, *sorted(self.inside(i), key=lambda x: (x.op != heart, not x.root))]
        return next((x.where for x in parts if x.where), "")

    @functools.cached_property
    def results(self) -> dict[str, str]:
        """{instruction: its result}."""
        return {i.name: i.result for part in self.computations.values() for i in part}


def flops(program: jax.stages.Compiled | jax.stages.Lowered, read: Program | None = None) -> float:
    """FLOPs of a program on one device: XLA's count, but with all turns of its loops.

    Args:
      program: compiled; or lowered, then on all devices together.
      read: its text, where it has been read; None: it is read here. One that jaxlib cannot print,
        as it may be with a newer libtpu, keeps XLA's count.
    """
    counted = (program.cost_analysis() or {}).get("flops", 0.0)
    if read is None:
        lowered = isinstance(program, jax.stages.Lowered)
        try:
            read = Program(program.as_text("hlo") if lowered else program.as_text())
        except jax.errors.JaxRuntimeError:
            return counted
    full, once = read.flops()
    return counted + full - once


def called(text: str) -> list[str]:
    """Names of the computations that instructions run."""
    return [n for found in CALLED.findall(text) for n in re.findall(r"[\w.\-]+", found)]


def integer(i: Instruction) -> bool:
    """Whether an instruction is a whole number that is known."""
    return i.op == "constant" and i.result[:5] in ("s32[]", "u32[]")


def number(i: Instruction) -> int:
    """The value of a scalar constant."""
    return int(i.rest.partition(")")[0])


def arrays(text: str) -> Iterator[tuple[str, int]]:
    """(dtype, bytes) of every array in a type."""
    for dtype, dims, _ in ARRAY.findall(text):
        yield dtype, int(math.prod(shape(dims)) * width(dtype))


def shape(dims: str) -> tuple[int, ...]:
    """Sizes from "2,3"; a bounded dimension counts in full."""
    return tuple(int(d.removeprefix("<=")) for d in dims.split(",") if d)


def width(dtype: str) -> float:
    """Bytes of an element."""
    if dtype in WIDTH:
        return WIDTH[dtype]
    return int(re.search(r"\d+", dtype)[0]) / 8


def order(text: str) -> list[str]:
    """The order of dimensions in memory of every array in a type."""
    return [layout.strip("{}").partition(":")[0] for _, _, layout in ARRAY.findall(text)]


def moved(text: str, turns: int) -> float:
    """Bytes of the arrays of a type that are not on the chip.

    Args:
      text: the type.
      turns: of the loop around it; arrays stacked over its turns are read one slice a turn.
    """
    total = 0.0
    for dtype, dims, layout in ARRAY.findall(text):
        if "S(1)" not in layout:
            sizes = shape(dims)
            sliced = turns > 1 and len(sizes) > 1 and sizes[0] == turns
            total += math.prod(sizes) * width(dtype) / (turns if sliced else 1)
    return total


def product(i: Instruction, found: dict[str, str]) -> float:
    """FLOPs of a dot or a convolution."""
    outs = shape(ARRAY.search(i.result)[2])
    sides = [shape(ARRAY.search(found[o])[2]) for o in i.operands[:2]]
    if i.op == "dot":
        axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", i.rest)
        return 2.0 * math.prod(outs) * math.prod(sides[0][int(a)] for a in axes[1].split(",") if a)
    names = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", i.rest).groups()
    sizes = [dict(zip(n, s, strict=True)) for n, s in zip(names, (*sides, outs), strict=True)]
    # A spatial dimension of size 1 may be left out.
    spatial = sorted(c for c in set("".join(names)) if c.isdigit())
    met = math.prod(
        meetings(*(s.get(d, 1) for s in sizes), *window(i, k)) for k, d in enumerate(spatial)
    )
    return 2.0 * sizes[2]["b"] * sizes[2]["f"] * sizes[1]["i"] * met


def kernel(i: Instruction, found: dict[str, str]) -> tuple[float, float]:
    """FLOPs of a TPU kernel: (as they are, as XLA counts them: what it is told, or nothing).

    Those of jax.experimental.pallas.ops.tpu.flash_attention are counted here: two products of all
    pairs of places, three for the gradient of queries, four for that of keys and values.
    """
    if 'custom_call_target="tpu_custom_call"' not in i.rest:
        return 0.0, 0.0
    estimate = re.search(r'"cost_estimate":\{"flops":"(\d+)"', i.rest)
    known = float(estimate[1]) if estimate else 0.0
    if "flash_attention" not in i.where:
        return known, known
    gradient = re.search(r"flash_mha_bwd_(dq|dkv)", i.where)
    q, k = (shape(ARRAY.search(found[o])[2]) for o in i.operands[:2])
    products = {"dq": 3, "dkv": 4}[gradient[1]] if gradient else 2
    return 2.0 * products * math.prod(q) * k[-2], known


def window(i: Instruction, k: int) -> tuple[int, int, int, int]:
    """(stride, padding before, dilation of the input, of the kernel) of a spatial dimension."""

    def part(name: str, default: str) -> str:
        found = re.search(rf"window=\{{[^}}]*\b{name}=([\dx_\-]+)", i.rest)
        return found[1].split("x")[k] if found else default

    return (
        int(part("stride", "1")),
        int(part("pad", "0_0").partition("_")[0]),
        int(part("lhs_dilate", "1")),
        int(part("rhs_dilate", "1")),
    )


def meetings(
    inputs: int, kernel: int, outputs: int, stride: int, pad: int, holes: int, spread: int
) -> int:
    """How often a kernel's elements meet a value along one dimension, not padding or a hole."""
    at = np.arange(outputs)[:, None] * stride - pad + np.arange(kernel) * spread
    return int(((at >= 0) & (at <= (inputs - 1) * holes) & (at % holes == 0)).sum())


# --- Who talks to whom -------------------------------------------------------------------------


def groups(i: Instruction, count: int) -> np.ndarray:
    """Replica groups [groups, members] of a collective, from any of the three notations.

    Args:
      i: the instruction.
      count: chips in all.

    Raises:
      ValueError: for a notation that is not known.
    """
    if found := MESH_GROUPS.search(i.rest):
        return mesh_groups(*found.groups())
    text = i.attribute("replica_groups")
    if text in ("", "{}"):
        return np.arange(count)[None]
    if text.startswith("{{"):
        return np.array([[int(n) for n in g.split(",")] for g in re.findall(r"\{([\d,]+)\}", text)])
    if found := re.fullmatch(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        return iota(found[2], found[3]).reshape(shape(found[1]))
    raise ValueError(f"replica groups in an unknown notation: {text}")


def iota(sizes: str, order: str | None) -> np.ndarray:
    """Chip numbers from "2,4" and "1,0": counted in one order of axes, read in another."""
    ids = np.arange(math.prod(shape(sizes))).reshape(shape(sizes))
    return ids.transpose(shape(order)) if order else ids


def mesh_groups(sizes: str, start: str | None, order: str | None, chosen: str) -> np.ndarray:
    """Groups along axes of a mesh that the compiler made for itself.

    Args:
      sizes: of its axes, "'a'=2,'b'=8".
      start: with `order`, how chips are placed on it, see `iota`; None: one after the other.
      order: as above.
      chosen: axes that form a group, "'a','b':(2)4": 4 of b's places, 2 before them.
    """
    axes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", sizes)}
    parts = {
        name: (int(before), int(size)) if size else (1, axes[name])
        for name, before, size in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", chosen)
    }
    fine, along_, across = [], [], []
    for name, n in axes.items():
        before, size = parts.get(name, (n, 1))
        across += [len(fine), len(fine) + 2]
        along_.append(len(fine) + 1)
        fine += [before, size, n // before // size]
    ids = iota(start or str(math.prod(axes.values())), order).reshape(fine)
    return ids.transpose(across + along_).reshape(-1, math.prod(s for _, s in parts.values()))


def pairs(i: Instruction) -> list[int]:
    """The two chips of the first pair of a permutation that are not the same."""
    found = re.findall(r"\{(\d+),(\d+)\}", i.attribute("source_target_pairs"))
    return next(([int(a), int(b)] for a, b in found if a != b), [0])


def along(ids: Sequence[int], mesh: dict[str, int]) -> list[str]:
    """The mesh axes along which some chips differ."""
    places = np.unravel_index(np.asarray(ids), tuple(mesh.values()))
    return [a for a, at in zip(mesh, places, strict=True) if len(set(at.tolist())) > 1]
