"""Seconds a picture of several systems' samplers on one TPU chip, estimated, in one table.

    python benchmarks/latency.py [SYSTEM ...] [--chip v5e] [--rows 1]

Nothing runs: each sampler is compiled at its published size for a slice of four chips, with --rows
pictures on each, as `python -m jaxt2i.plan` does, and its operations and memory traffic, loops in
full, are held against the chip's datasheet. That is a bound from below: no chip draws faster, real
ones draw slower. --until code adds the compiler's own estimate, after ten times the compiling.

The table is results/latency_CHIP.json; a system that is compiled again replaces its line there.
TPU programs need libtpu (pip install libtpu).
"""

import argparse
import dataclasses
import json
import os
from pathlib import Path

from machine import facts, show

os.environ["JAX_PLATFORMS"] = "cpu"

from jaxt2i.planning import compiled, roofline
from jaxt2i.run import chips, settings

RESULTS = Path(__file__).parent / "results"
# What an editor or a diffusion model asks of its U-Net, with and without the text in one pass.
ASKED = "50 steps of DDIM, guided"


@dataclasses.dataclass(frozen=True)
class Case:
    """One system.

    Attributes:
      file, preset: its configuration.
      how: how it draws, for the table.
    """

    file: str
    preset: str
    how: str = "one pass"


CASES = {
    "galip": Case("configs/galip.py", "coco"),
    "stylegan_t": Case("configs/stylegan_t.py", "full256"),
    "stylegan_t_lite": Case("configs/stylegan_t.py", "lite64"),
    "dm_gan": Case("configs/dm_gan.py", "coco", "three stages"),
    "latent_diffusion": Case("configs/latent_diffusion.py", "sd15", ASKED),
    "iir_net": Case("configs/iir_net.py", "coco", f"an edit, {ASKED}"),
}
WHAT = (
    "Estimates, nothing was run: a sampler's operations and memory traffic as compiled for a TPU, "
    "over the datasheet's peaks; real chips are slower"
)


def measure(name: str, chip: str, rows: int, until: str) -> dict:
    """A line of the table."""
    case = CASES[name]
    target = chips.target(f"{chip}:2x2")
    config = settings.preset(case.file, case.preset)
    config = compiled.prepared(config, rows * target.count, {"data": -1, "fsdp": 1})
    if "micro_batch" in config.model:  # of training, which must divide the batch
        config.model.micro_batch = config.batch_size
    plan = compiled.open_plan(config, target)
    program = compiled.sampling(plan, until)
    line = {
        "system": name,
        "preset": f"{case.file}:{case.preset}",
        "resolution": config.data.resolution,
        "how": case.how,
        "rows": rows,
        "precision": config.precision,
        "compile_s": round(program.seconds, 1),
        "peak_gib": program.peak / chips.GIB,
        "shortfall": program.shortfall,
    }
    if program.shortfall:
        return line
    times = roofline.times([program], target)
    return line | {
        "gflop": program.flops / rows / 1e9,
        "traffic_gb": program.traffic / rows / 1e9,
        "wall": times.wall,
        "seconds_a_picture": times.apart / rows,
        "compilers_seconds_a_picture": times.estimate / rows or None,
    }


def keep(path: Path, chip: str, line: dict) -> list[dict]:
    """Writes the table with a line in it, the fastest system first; returns its lines."""
    lines = json.loads(path.read_text())["lines"] if path.exists() else []
    same = ("system", "rows")
    lines = [x for x in lines if any(x[k] != line[k] for k in same)] + [line]
    lines.sort(key=lambda x: x.get("seconds_a_picture", float("inf")))
    content = {"what": WHAT, "chip": chip, "machine": facts(), "lines": lines}
    path.write_text(json.dumps(content, indent=1) + "\n")
    return lines


def table(lines: list[dict]) -> str:
    """For a person."""
    out = ["system            px   rows     GFLOP   traffic GB   ms a picture  bound by  how"]
    for x in lines:
        if x["shortfall"]:
            out.append(f"{x['system']:<16}{x['resolution']:>5}{x['rows']:>6}  {x['shortfall']}")
            continue
        out.append(
            f"{x['system']:<16}{x['resolution']:>5}{x['rows']:>6}{x['gflop']:>11,.0f}"
            f"{x['traffic_gb']:>13,.2f}{1e3 * x['seconds_a_picture']:>15,.2f}  {x['wall']:<9} "
            f"{x['how']}"
        )
    return "\n".join(out)


def main() -> None:
    """Compiles what the command line asks for."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("system", nargs="*", choices=[*CASES, []], help="default: all")
    p.add_argument(
        "--chip", default="v5e", choices=[n for n, c in chips.CHIPS.items() if c.dims == 2]
    )
    p.add_argument("--rows", type=int, default=1, help="pictures that a chip draws at once")
    p.add_argument("--until", choices=compiled.UNTIL, default="buffers")
    args = p.parse_args()
    for name in args.system or CASES:
        line = show(measure(name, args.chip, args.rows, args.until))
        lines = keep(RESULTS / f"latency_{args.chip}.json", args.chip, line)
        print(table(lines), flush=True)


if __name__ == "__main__":
    main()
