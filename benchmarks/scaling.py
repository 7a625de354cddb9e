"""How a step scales: python benchmarks/scaling.py --counts 1 2 4 8 --topology v5e:4x4 --save NAME.

Weak scaling keeps the images of a device, strong scaling those of the step. On one machine without
accelerators the devices are simulated and share its cores: images/s then say next to nothing, but
what a device computes, holds and sends is the real program's. --processes N ... trains with so many
real processes instead (launch/local_processes.sh), --runs N=WORKDIR ... reads what runs on N
devices have recorded, for pods. --topology plans the same program for a machine that is not here
and --plan takes plans that are kept as JSON; their predictions are drawn beside.

The table goes to results/scaling_NAME.json, the picture to results/scaling_NAME.png.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
from machine import facts, report, show
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from ml_collections import ConfigDict
from step import windows

from jaxt2i.engine import loop, mesh
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.planning import compiled
from jaxt2i.planning import report as reports
from jaxt2i.run import chips, hlo, placement, settings
from jaxt2i.run import open as runs

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
SHARED = (
    "simulated devices share this machine's cores: their images/s and efficiency say nothing of "
    "real ones; FLOPs, bytes and messages of a device are the real program's"
)


def configuration(args, batch_size: int) -> ConfigDict:
    """The configuration at a global batch, on procedural pictures and random weights."""
    config = settings.preset(args.config, args.preset)
    config.batch_size = batch_size
    if "weights" in config.model:
        config.model.weights = "random"
    return config


def created(args) -> tuple:
    """(state, frozen) on the host, made once: neither depends on the batch."""
    run = runs.open_run(configuration(args, args.rows))
    here = placement.layout(mesh.make(devices=jax.devices()[:1]))
    spec = run.batch_spec()
    placed = tuple(map(here.shardings, states.shapes(run.method, spec)))
    return jax.device_get(states.create(run.method, spec, 0, placed))


def measured(args, mode: str, count: int, host: tuple) -> dict:
    """One line: the program of every step on the first `count` devices, from `created` weights."""
    config = configuration(args, args.rows * (count if mode == "weak" else max(args.counts)))
    run = runs.open_run(config)
    on = mesh.make(-1, config.mesh.fsdp, config.mesh.tensor, jax.devices()[:count])
    layout = placement.layout(on, tuple(map(tuple, config.sharding)), config.mesh.fsdp_min_mb)
    spec, rules = run.batch_spec(), steps.Rules(0, config.batch_size, 1000)
    program = dict(loop.lower_step(run.method, rules, layout, spec))[1].compile()
    state, frozen = (jax.device_put(tree, layout.shardings(tree)) for tree in host)
    rows = run.pipeline(run.source("train"), config.batch_size, run.method.needs).batch_at(0)
    batch = layout.put_batch(rows)
    held = {"state": state}

    def play():
        held["state"], metrics = program(held["state"], frozen, batch)
        return metrics

    jax.block_until_ready(play())
    seconds = statistics.median(windows(play, args.windows, args.length))
    text, memory = hlo.Program(program.as_text()), program.memory_analysis()
    sent = text.collectives(dict(on.shape))
    trained = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(host[0].params))
    return show(
        {
            "what": "measured",
            "mode": mode,
            "devices": count,
            "processes": 1,
            "simulated": jax.default_backend() == "cpu",
            "batch": config.batch_size,
            "ms": round(seconds * 1e3, 1),
            "images_per_s": round(config.batch_size / seconds, 2),
            "flops_per_device": hlo.flops(program, text),
            "temporary_bytes_per_device": memory.temp_size_in_bytes,
            "argument_bytes_per_device": memory.argument_size_in_bytes,
            "messages": sum(c.times for c in sent),
            "sent_bytes_per_device": sum(c.times * c.bytes for c in sent),
            "parameter_bytes": trained,
        }
    )


def trained(args, mode: str, count: int) -> dict:
    """One line: a short run of `count` real processes with one simulated device each."""
    batch = args.rows * (count if mode == "weak" else max(args.processes))
    settings = {
        "batch_size": batch,
        "total_steps": 10 * args.length,
        "log_every_steps": args.length,
    }
    settings |= dict.fromkeys(("checkpoint_every_steps", "sample_every_steps", "score_images"), 0)
    with tempfile.TemporaryDirectory(prefix="jaxt2i-scaling-") as folder:
        command = [ROOT / "launch" / "local_processes.sh", count, "--logs", f"{folder}/logs", "--"]
        command += [f"--config={args.config}:{args.preset}", f"--workdir={folder}/run"]
        command += [f"--config.{k}={v}" for k, v in settings.items()]
        env = {**os.environ, "PYTHON": sys.executable}
        subprocess.run(
            [*map(str, command)], check=True, env=env, cwd=ROOT, stdout=subprocess.DEVNULL
        )
        return recorded(Path(folder) / "run", mode, count, count, True)


def recorded(workdir: Path, mode: str, count: int, processes: int, simulated: bool) -> dict:
    """One line: the median rate of a run's records; the first one paid for compiling."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    rates = [line["images_per_second"] for line in lines if "images_per_second" in line]
    if len(rates) < 2:
        sys.exit(f"error: {workdir}/metrics.jsonl holds {len(rates)} lines of speed, 2 are needed")
    return show(
        {
            "what": "measured",
            "mode": mode,
            "devices": count,
            "processes": processes,
            "simulated": simulated,
            "batch": settings.read_config(workdir).batch_size,
            "images_per_s": round(statistics.median(rates[1:]), 2),
        }
    )


def efficiency(lines: list[dict]) -> None:
    """Adds images/s a device over those of the fewest devices, line by line of one kind."""
    first: dict[tuple, float] = {}
    for line in sorted(lines, key=lambda x: x["devices"]):
        rate = line["images_per_s"] / line["devices"]
        line["efficiency"] = round(rate / first.setdefault(kind(line), rate), 3)


def kind(line: dict) -> tuple[str, str]:
    """Lines that are compared: a curve of the picture."""
    return line["mode"], "processes" if line["processes"] > 1 or "ms" not in line else "devices"


def planned(args) -> dict:
    """The plan of the same program on --topology, with --rows images a chip."""
    target = chips.target(args.topology)
    config = compiled.prepared(configuration(args, args.rows * target.count), 0, {})
    plan = compiled.open_plan(config, target)
    return reports.report(plan, compiled.training(plan, "buffers"), None)


def predicted(plan: dict, name: str) -> list[dict]:
    """Lines: a plan's weak scaling, from one host to many slices."""
    step, here = plan["step"], plan["efficiency"]
    rate = step["images_per_s_apart"] / plan["chips"] / here["apart"]
    return [
        {
            "what": "predicted",
            "mode": "weak",
            "plan": name,
            "topology": plan["topology"],
            "chips": p["count"],
            "batch": plan["batch_size"] // plan["chips"] * p["count"],
            "images_per_s": round(rate * p["apart"] * p["count"], 1),
            "efficiency_overlapped": p["overlapped"],
            "efficiency_apart": p["apart"],
        }
        for p in plan["scaling"]
    ]


def constant(lines: list[dict]) -> dict:
    """What weak scaling must leave as it is, on simulated devices too: ratios to one device."""
    weak = [x for x in lines if x["what"] == "measured" and kind(x) == ("weak", "devices")]
    base = min(weak, key=lambda x: x["devices"])
    return {
        "devices": [x["devices"] for x in weak],
        "flops": [x["flops_per_device"] / base["flops_per_device"] for x in weak],
        "temporary": [
            x["temporary_bytes_per_device"] / base["temporary_bytes_per_device"] for x in weak
        ],
        "arguments": [
            x["argument_bytes_per_device"] / base["argument_bytes_per_device"] for x in weak
        ],
        "sent over parameters": [x["sent_bytes_per_device"] / x["parameter_bytes"] for x in weak],
    }


def draw(path: Path, title: str, lines: list[dict]) -> None:
    """Efficiency here, what a device does, and predicted efficiency, side by side."""
    here = [x for x in lines if x["what"] == "measured"]
    plans = [x for x in lines if x["what"] == "predicted"]
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for k in dict.fromkeys(map(kind, here)):
        curve = [x for x in here if kind(x) == k]
        x, y = [c["devices"] for c in curve], [100 * c["efficiency"] for c in curve]
        left.plot(x, y, marker="o", lw=1.5, label=f"{k[0]}, {k[1]}")
    simulated = any(x["simulated"] for x in here)
    title_here = "simulated on shared cores: no forecast" if simulated else "measured"
    left.set(title=title_here, xlabel="devices")
    left.set_ylabel("% of the first's images/s a device")
    if any(kind(x) == ("weak", "devices") for x in here):
        ratios = constant(lines)
        x = ratios.pop("devices")
        for (name, y), marker in zip(ratios.items(), "os^d", strict=True):
            middle.plot(x, y, marker=marker, lw=1.5, alpha=0.8, label=name)
    middle.set(title="weak scaling: work of a device", xlabel="devices", ylabel="over one device's")
    for name in dict.fromkeys(p["plan"] for p in plans):
        curve = [p for p in plans if p["plan"] == name]
        x = [p["chips"] for p in curve]
        drawn = right.plot(
            x, [100 * p["efficiency_overlapped"] for p in curve], marker="o", lw=1.5, label=name
        )
        y = [100 * p["efficiency_apart"] for p in curve]
        right.plot(x, y, marker="o", lw=1.5, ls="--", color=drawn[0].get_color())
    right.set(title="predicted (dashed: no overlap)", xlabel="chips", ylabel="% of one host's")
    for axis, xs in ((left, here), (middle, here), (right, plans)):
        axis.set_xscale("log", base=2)
        axis.set_xticks(sorted({x.get("devices", x.get("chips")) for x in xs}))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.set_ylim(bottom=0, top=1.08 * axis.get_ylim()[1])
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=7, loc="best")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=90)


def pairs(texts: list[str]) -> list[tuple[int, Path]]:
    """(devices, work directory) of --runs."""
    split = [text.partition("=") for text in texts]
    if not all(n.isdigit() and path for n, _, path in split):
        sys.exit(
            f"error: --runs {' '.join(texts)}: expected DEVICES=WORKDIR, such as 16=runs/pod16"
        )
    return [(int(n), Path(path)) for n, _, path in split]


def main() -> None:
    """Measures, predicts and draws what the command line asks for."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--config", default="configs/df_gan.py")
    p.add_argument("--preset", default="tiny")
    p.add_argument("--rows", type=int, default=8, help="images a device (weak scaling)")
    p.add_argument("--counts", nargs="*", type=int, default=[1, 2, 4, 8], help="devices")
    p.add_argument("--processes", nargs="*", type=int, default=[], help="real processes")
    p.add_argument("--runs", nargs="*", default=[], help="DEVICES=WORKDIR of weak scaling")
    p.add_argument("--topology", help="machine to plan the same program for, such as v5e:4x4")
    p.add_argument("--plan", nargs="*", type=Path, default=[], help="JSON of plans, of any program")
    p.add_argument("--windows", type=int, default=3)
    p.add_argument("--length", type=int, default=3, help="steps a window")
    p.add_argument("--save", help="NAME of results/scaling_NAME.json and .png")
    args = p.parse_args()
    if not args.counts + args.processes + args.runs:
        sys.exit("error: nothing to measure: give --counts, --processes or --runs")
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        jax.config.update("jax_num_cpu_devices", max(args.counts, default=1))
    host = created(args) if args.counts else ()
    lines = [measured(args, mode, n, host) for mode in ("weak", "strong") for n in args.counts]
    lines += [trained(args, mode, n) for mode in ("weak", "strong") for n in args.processes]
    lines += [recorded(path, "weak", n, n, False) for n, path in pairs(args.runs)]
    efficiency(lines)
    if any(x["simulated"] for x in lines):
        lines.insert(0, show({"what": "note", "text": SHARED}))
    plans = {f"{args.preset}, {args.topology}": planned(args)} if args.topology else {}
    for path in args.plan:
        found = json.loads(path.read_text())
        plans[path.stem.removeprefix("plan_")] = found["lines"][0] if "lines" in found else found
    lines += [line for name, plan in plans.items() for line in map(show, predicted(plan, name))]
    if args.save:
        name = f"scaling_{args.save}"
        report(lines, name)
        title = f"{args.config}:{args.preset}, {args.rows} images a device, {facts()['device']}"
        draw(RESULTS / f"{name}.png", title, lines)


if __name__ == "__main__":
    main()
