"""What a step of every system's `tiny` preset costs, held against what is kept in results/guard.

    python benchmarks/guard.py            # compares, as the tests do
    python benchmarks/guard.py --write    # keeps what is found, where a change means it

Operations, memory traffic, program size and what devices exchange are the compiler's counts for one
CPU device, or for eight, with the flags of the tests. Time takes no part: it depends on the day.
"""

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path

import jax
import pytest

from jaxt2i.run import hlo

KEPT = Path(__file__).parent / "results" / "guard"
# How far a figure may be from the one that is kept, as a share of it. Operations follow from the
# model; the others are the compiler's choices as well, and are compared under its version alone.
TOLERANCE = {"flops": 0.05, "bytes": 0.25, "instructions": 0.25, "exchanged_bytes": 0.05}


def costs(play: dict[int, jax.stages.Compiled], devices: int = 1) -> dict[str, float]:
    """What the programs of a step cost on one device, all of them played once.

    Args:
      play: {every: program} as `jaxt2i.run.training.compile_step` compiles them.
      devices: how many they were compiled for; several: what those exchange.

    Returns:
      {name of TOLERANCE: figure}.
    """
    read = {every: hlo.Program(program.as_text()) for every, program in play.items()}
    if devices > 1:
        sizes = [c.bytes * c.times for p in read.values() for c in p.collectives({"data": devices})]
        return {"exchanged_bytes": sum(sizes)}
    counted = [program.cost_analysis() or {} for program in play.values()]
    return {
        "flops": sum(hlo.flops(play[every], read[every]) for every in play),
        "bytes": sum(found.get("bytes accessed", 0.0) for found in counted),
        "instructions": sum(sum(map(len, p.computations.values())) for p in read.values()),
    }


def file_of(name: str) -> Path:
    """Where the figures of a system are kept."""
    return KEPT / f"{name.rpartition('.')[2]}.json"


def kept_of(name: str) -> dict[str, float | str]:
    """The figures that are kept of a system; {} where there are none."""
    path = file_of(name)
    return json.loads(path.read_text()) if path.exists() else {}


def write(name: str, found: dict[str, float]) -> None:
    """Keeps figures, beside others of the same system."""
    KEPT.mkdir(parents=True, exist_ok=True)
    path = file_of(name)
    kept = {**kept_of(name), **{k: round(v) for k, v in found.items()}, "jaxlib": version("jaxlib")}
    path.write_text(json.dumps(kept, indent=1) + "\n")


def differences(name: str, found: dict[str, float]) -> list[str]:
    """What is further from the kept figures than `TOLERANCE`, in words; [] where nothing is.

    Args:
      name: the module of a system.
      found: of `costs`.
    """
    path, kept = file_of(name), kept_of(name)
    how = f"python benchmarks/guard.py --write --system {path.stem}"
    if not kept:
        return [f"{path} does not exist: keep one with {how}"]
    compiler = kept["jaxlib"] == version("jaxlib")
    out = []
    for figure, value in found.items():
        if figure not in kept:
            out.append(f"{path} keeps no {figure}: {how}")
        elif (compiler or figure == "flops") and kept[figure] != value:
            share = value / kept[figure] - 1 if kept[figure] else float("inf")
            if abs(share) > TOLERANCE[figure]:
                out.append(
                    f"{figure}: {value:,.0f}, {share:+.1%} against {kept[figure]:,} in {path.name}"
                )
    return out


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="keep what is found")
    parser.add_argument("--system", help="one system alone, such as galip")
    args = parser.parse_args(argv)
    chosen = f"costs and systems.{args.system}]" if args.system else "costs"
    options = ["--guard-write"] if args.write else []
    return pytest.main(["-q", "tests/test_contract.py", "-k", chosen, *options])


if __name__ == "__main__":
    sys.exit(main())
