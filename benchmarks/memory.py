"""What each lever does to memory: python benchmarks/memory.py --preset lite64 [--save NAME].

Every lever is compiled for the same rows a chip on a TPU topology, up to the compiler's buffers: it
says what a step needs, nothing runs, and how busy the machine is does not matter. TPU programs need
libtpu (pip install libtpu). --time also plays every lever's steps on the devices that are here,
with the same rows on each of them.
"""

import argparse
import dataclasses

import jax
import step
from machine import report, show
from ml_collections import ConfigDict

from jaxt2i.planning import compiled
from jaxt2i.planning.memory import Memory, memory
from jaxt2i.run import chips, settings

ROUNDING = {"param_dtype": "bfloat16", "masters": False}
EVERYTHING = {"remat": ((".*", "full"),), "accumulate": 4, **ROUNDING}


@dataclasses.dataclass(frozen=True)
class Lever:
    """One way to need less memory.

    Attributes:
      changes: of top-level settings.
      split: spread the state over all chips by fsdp.
    """

    changes: dict = dataclasses.field(default_factory=dict)
    split: bool = False


LEVERS = {
    "none": Lever(),
    "remat g full": Lever({"remat": (("g", "full"),)}),
    "remat all products": Lever({"remat": ((".*", "products"),)}),
    "remat all full": Lever({"remat": ((".*", "full"),)}),
    "accumulate 2": Lever({"accumulate": 2}),
    "accumulate 4": Lever({"accumulate": 4}),
    "bfloat16, masters": Lever({"param_dtype": "bfloat16"}),
    "bfloat16, rounding": Lever(ROUNDING),
    "fsdp": Lever(split=True),
    "fsdp, bfloat16, rounding": Lever(ROUNDING, split=True),
    "remat all, accumulate 4, rounding": Lever(EVERYTHING),
    "all of these, fsdp": Lever(EVERYTHING, split=True),
}


def configured(args, lever: Lever, devices: int) -> ConfigDict:
    """The command line's preset with a lever, on random weights."""
    shape = {"data": -1, "fsdp": devices if lever.split else 1}
    preset = settings.preset(args.config, args.preset)
    config = compiled.prepared(preset, args.batch * devices, shape)
    config.precision = args.precision
    if "micro_batch" in config.model:  # the same groups with every lever
        config.model.micro_batch = min(config.model.micro_batch, max(args.batch // 4, 1))
    config.update(lever.changes)
    return config


def measure(args, name: str, lever: Lever, target: chips.Target) -> list[dict]:
    """The line of one lever; that without any has a second one, for state that is not donated."""
    plan = compiled.open_plan(configured(args, lever, target.count), target)
    programs = compiled.training(plan, "buffers")
    found = memory(plan.held(), programs, target.chip)
    line = {
        "lever": name,
        "config": args.config,
        "preset": args.preset,
        "rows_per_chip": args.batch,
        "precision": args.precision,
        "topology": args.topology,
        # Loops are counted in full.
        "gflop": round(sum(p.flops / p.every for p in programs) / 1e9, 1),
        **bytes_of(found),
    }
    if args.time:
        line |= step.train(step.opened(configured(args, lever, jax.device_count())), args)[0]
    lines = [line]
    if not lever.changes and not lever.split:
        # Every array of the new state then has a place beside the old one's.
        state = sum(found.held[k] for k in compiled.HELD)
        undonated = dataclasses.replace(found, peak=found.peak + state)
        lines.append(line | {"lever": "no donation", **bytes_of(undonated)})
    return [show(x) for x in lines]


def bytes_of(found: Memory) -> dict:
    """MiB of a chip."""
    mib = lambda n: round(n / 2**20, 1)  # noqa: E731
    return {
        "held_mib": {k: mib(n) for k, n in found.held.items()},
        "temporary_mib": mib(found.temporary),
        "peak_mib": mib(found.peak),
        "fits": found.fits,
    }


def table(lines: list[dict]) -> str:
    """Lines for the screen, peaks also as shares of the first one's."""
    rows = [f"{'lever':34}{'held':>9}{'temporary':>11}{'peak':>9} MiB{'share':>7}{'GFLOP':>9}"]
    for x in lines:
        held, share = sum(x["held_mib"].values()), x["peak_mib"] / lines[0]["peak_mib"]
        rows.append(
            f"{x['lever']:34}{held:9.0f}{x['temporary_mib']:11.0f}{x['peak_mib']:9.0f}"
            f"    {share:7.2f}{x['gflop']:9.0f}"
        )
    return "\n".join(rows)


def main() -> None:
    """Measures what the command line asks for."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--config", default="configs/stylegan_t.py")
    p.add_argument("--preset", default="lite64")
    p.add_argument("--batch", type=int, default=8, help="rows a chip, a multiple of four")
    p.add_argument("--precision", default="bfloat16")
    p.add_argument("--topology", default="v5e:2x2")
    p.add_argument("--lever", nargs="+", choices=LEVERS, default=list(LEVERS))
    p.add_argument("--time", action="store_true", help="play steps, too")
    p.add_argument("--windows", type=int, default=3)
    p.add_argument("--length", type=int, default=3, help="steps a window")
    p.add_argument("--save", help="name of the file in benchmarks/results")
    args = p.parse_args()
    lines, target = [], chips.target(args.topology)
    for name in args.lever:
        lines += measure(args, name, LEVERS[name], target)
        report(lines, args.save)
    print(table(lines))


if __name__ == "__main__":
    main()
