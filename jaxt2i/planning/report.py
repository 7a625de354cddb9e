"""A plan as data, as text and as a picture."""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxt2i.config import ConfigError
from jaxt2i.engine.state import count as scalars
from jaxt2i.planning import roofline
from jaxt2i.planning.compiled import Plan, Program
from jaxt2i.planning.memory import advice, memory
from jaxt2i.planning.search import Trial
from jaxt2i.run import settings
from jaxt2i.run.chips import GIB
from jaxt2i.run.hlo import Collective

COUNTS = tuple(2**n for n in range(3, 11))


def report(
    plan: Plan, train: Sequence[Program], sample: Program | None, epoch_images: int = 0
) -> dict[str, Any]:
    """Everything that is known of a plan, as JSON data.

    Args:
      plan: the plan.
      train: its training programs.
      sample: its sampling program.
      epoch_images: examples of an epoch, for runs whose length is in epochs; 0: unknown.
    """
    c, chip = plan.config, plan.target.chip
    found = memory(plan.held(), train, chip)
    out = {
        "topology": str(plan.target),
        "chips": plan.target.count,
        "hosts": plan.target.hosts,
        "method": c.method,
        "mesh": plan.axes,
        "batch_size": c.batch_size,
        "accumulate": c.accumulate,
        "remat": dict(c.remat),
        "precision": c.precision,
        "parameters": {n: scalars(t) for n, t in plan.state.params.items()},
        "frozen": {n: scalars(t) for n, t in plan.frozen.items()},
        "memory": {
            **dataclasses.asdict(found),
            "fits": found.fits,
            "verdict": found.verdict(),
            "advice": advice(found, plan),
        },
        "programs": [program_line(p) for p in [*train, *filter(None, [sample])]],
    }
    if any(p.shortfall for p in train):
        return out
    step = roofline.times(train, plan.target)
    axes = plan.axes
    points = roofline.scaling(train, plan.target, axes["fsdp"] * axes["tensor"], COUNTS)
    flops = sum(p.flops / p.every for p in train)
    traffic = sum(p.traffic / p.every for p in train)
    out["step"] = time_line(step, c.batch_size) | {
        "flops": flops,
        "bytes": traffic,
        "flops_per_byte": flops / max(traffic, 1.0),
        "flops_per_byte_of_the_chip": chip.flops / chip.hbm_rate,
    }
    here = roofline.scaling(train, plan.target, 1, (plan.target.count,))[0]
    out["efficiency"] = dataclasses.asdict(here)
    out["scaling"] = [dataclasses.asdict(p) for p in points]
    out["cost"] = cost(plan, step, epoch_images)
    if sample and not sample.shortfall:
        out["sample"] = time_line(roofline.times([sample], plan.target), c.batch_size)
    return out


def program_line(program: Program) -> dict[str, Any]:
    """A program as JSON data, with its messages grouped."""
    line = dataclasses.asdict(program)
    line["collectives"] = grouped(program.collectives)
    return line


def grouped(collectives: Sequence[Collective]) -> list[dict[str, Any]]:
    """Messages of one kind, axis, group and place together, the heaviest first."""
    sums: dict[tuple, list[int]] = collections.defaultdict(lambda: [0, 0])
    for c in collectives:
        key = (c.kind, c.axes, c.group, c.dtype, "gradient" if c.gradient else place(c.where))
        sums[key][0] += c.times
        sums[key][1] += c.times * c.bytes
    names = ("kind", "axes", "group", "dtype", "where")
    lines = [
        {**dict(zip(names, k, strict=True)), "count": n, "bytes": b} for k, (n, b) in sums.items()
    ]
    return sorted(lines, key=lambda line: -line["bytes"])


def place(where: str) -> str:
    """The network and block of an operation's path."""
    return "/".join(parts(where)[:3]) or "unnamed"


def parts(where: str) -> list[str]:
    """An operation's path without what the compiler's calls and loops add."""
    return [p for p in where.split("/") if not p.startswith(("jit(", "while", "body", "closed_"))]


def time_line(times: roofline.Times, images: int) -> dict[str, Any]:
    """Times as JSON data, with rates of the whole machine."""
    return {
        **dataclasses.asdict(times),
        "wall": times.wall,
        "overlapped": times.overlapped,
        "apart": times.apart,
        "images_per_s": images / times.overlapped,
        "images_per_s_apart": images / times.apart,
        "images_per_s_estimate": images / times.estimate if times.estimate else 0.0,
    }


def cost(plan: Plan, times: roofline.Times, epoch_images: int) -> dict[str, Any]:
    """Steps and chip-hours of the configured run; without its length, of a million images."""
    c, count = plan.config, plan.target.count
    try:
        steps = settings.steps(
            c, "total", batch_size=c.batch_size, epoch_images=epoch_images or None
        )
        what = "the configured run"
    except ConfigError:
        steps, what = max(1, round(1e6 / c.batch_size)), "1,000,000 images"
    # The run is as long as the slower of the two predictions says.
    seconds = max(times.apart, times.estimate)
    return {
        "what": what,
        "steps": steps,
        "hours": steps * seconds / 3600,
        "chip_hours": roofline.chip_hours(steps, seconds, count),
        "chip_hours_at_roofline": roofline.chip_hours(steps, times.overlapped, count),
    }


# --- As text -----------------------------------------------------------------------------------


def opening(plan: Plan) -> str:
    """What is known before anything is compiled."""
    held = plan.held()
    state = sum(held.values())
    parts = ", ".join(f"{k} {n / GIB:.2f}" for k, n in held.items())
    wait = "; compiling may take minutes" if state <= plan.target.chip.hbm else ""
    return (
        f"{plan.target}: {state / GIB:.2f} GiB of {plan.target.chip.hbm / GIB:.2f} stay on a chip "
        f"between steps ({parts}){wait}\n"
    )


def text(found: dict[str, Any]) -> str:
    """A report for the screen."""
    mesh = " x ".join(f"{k} {n}" for k, n in found["mesh"].items())
    lines = [
        f"{found['method']} on {found['topology']}: {found['chips']} chips, {found['hosts']} "
        f"hosts; mesh {mesh}; batch {found['batch_size']:,}; accumulate {found['accumulate']}; "
        f"remat {found['remat'] or 'none'}; {found['precision']}",
        "",
        *memory_text(found),
        "",
        "program       compile s      GFLOP   traffic GB  temp GiB  peak GiB  collectives",
    ]
    for p in found["programs"]:
        sent = sum(c["count"] for c in p["collectives"])
        lines.append(
            f"  {p['name']:<12}{p['seconds']:>8.0f}{p['flops'] / 1e9:>12,.1f}"
            f"{p['traffic'] / 1e9:>12,.2f}{p['temporary'] / GIB:>10.2f}{p['peak'] / GIB:>10.2f}"
            f"{sent:>9}  {p['shortfall']}"
        )
    if "step" in found:
        lines += ["", *collective_text(found["programs"]), "", *dearest_text(found["programs"])]
        lines += speed_text(found)
    return "\n".join(lines)


def memory_text(found: dict[str, Any]) -> list[str]:
    """Lines on memory, and what to change."""
    m = found["memory"]
    nets = {**found["parameters"], **{f"{k} (frozen)": n for k, n in found["frozen"].items()}}
    found_out = {"activations and scratch": m["temporary"], "program": m["code"]}
    # Nothing is said of what was not compiled, or not to its end.
    sizes = m["held"] | {k: n for k, n in found_out.items() if n}
    lines = ["parameters: " + ", ".join(f"{k} {n / 1e6:,.1f} M" for k, n in nets.items())]
    lines.append("memory of a chip, GiB:")
    lines += [f"  {k:<24}{n / GIB:>8.3f}" for k, n in sizes.items()]
    lines.append(f"  {m['verdict']}")
    if m["advice"]:
        lines += ["to make it fit:", *(f"  {line}" for line in m["advice"])]
    return lines


def collective_text(programs: Sequence[dict[str, Any]], most: int = 12) -> list[str]:
    """A table of messages."""
    if not any(p["collectives"] for p in programs):
        return ["no messages between chips"]
    lines = ["messages a step  kind                axis          chips    count          MB  of"]
    for p in programs:
        for c in p["collectives"][:most]:
            lines.append(
                f"  {p['name']:<15}{c['kind']:<20}{c['axes']:<14}{c['group']:>5}{c['count']:>9}"
                f"{c['bytes'] / 1e6:>12,.3f}  {c['where']}"
            )
        if len(p["collectives"]) > most:
            rest = p["collectives"][most:]
            size = sum(c["bytes"] for c in rest) / 1e6
            lines.append(f"  {p['name']:<15}and {len(rest)} smaller kinds, {size:,.3f} MB")
    return lines


def dearest_text(programs: Sequence[dict[str, Any]]) -> list[str]:
    """A table of the operations that take most of the compiler's cycles, and an empty line."""
    if not any(p["dearest"] for p in programs):
        return []
    lines = ["dearest operations    cycles     of all    times  kind, result, of"]
    for p in programs:
        for x in p["dearest"]:
            result, *more = x["result"].split(", ")
            of = "/".join(parts(x["where"])) or "unnamed"
            lines.append(
                f"  {p['name']:<12}{x['cycles']:>14,.0f}{x['share']:>11.1%}{x['times']:>9,}  "
                f"{x['kind']}, {result}{f' and {len(more)} more' if more else ''}, {of}"
            )
    return [*lines, ""]


def speed_text(found: dict[str, Any]) -> list[str]:
    """Lines on time, efficiency and cost."""
    s, e, c = found["step"], found["efficiency"], found["cost"]
    lines = [
        f"step at datasheet peaks, ms: compute {s['compute'] * 1e3:.2f}, memory "
        f"{s['memory'] * 1e3:.2f}, network {s['network'] * 1e3:.2f}; the wall is {s['wall']} "
        f"({s['flops_per_byte']:.0f} FLOP/byte, the chip balances at "
        f"{s['flops_per_byte_of_the_chip']:.0f})",
        f"  all at once: {s['overlapped'] * 1e3:.2f} ms, {s['images_per_s']:,.0f} images/s",
        f"  messages apart: {s['apart'] * 1e3:.2f} ms, {s['images_per_s_apart']:,.0f} images/s",
    ]
    if s["estimate"]:
        lines.append(
            f"  the compiler's own estimate: {s['estimate'] * 1e3:.2f} ms, "
            f"{s['images_per_s_estimate']:,.0f} images/s"
        )
    if "sample" in found:
        d = found["sample"]
        slower = max(d["apart"], d["estimate"])
        lines.append(
            f"sampling {found['batch_size']:,} images: {d['overlapped'] * 1e3:.2f} to "
            f"{slower * 1e3:.2f} ms, {found['batch_size'] / slower:,.0f} images/s or more"
        )
    least, most = sorted((e["apart"], e["overlapped"]))
    lines.append(f"efficiency against one host, same batch a chip: {least:.1%} to {most:.1%}")
    lines.append(
        f"{c['what']}: {c['steps']:,} steps, {c['hours']:,.1f} hours, {c['chip_hours']:,.0f} "
        f"chip-hours ({c['chip_hours_at_roofline']:,.0f} at the roofline)"
    )
    return lines


def search_text(trials: Sequence[Trial]) -> str:
    """The table of a search."""
    lines = ["images/s  step ms  peak GiB  spare GiB  setting"]
    for t in trials:
        ms = f"{t.times.apart * 1e3:>9.2f}" if t.times else f"{'-':>9}"
        rate = f"{t.rate:>8,.0f}" if t.rate else f"{'no room':>8}"
        m = t.memory
        lines.append(f"{rate}{ms}{m.peak / GIB:>10.2f}{m.spare / GIB:>11.2f}  {t.setting.lines()}")
    return "\n".join(lines)


def search_data(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """The table of a search as JSON data."""
    return [
        {
            **dataclasses.asdict(t.setting),
            "fits": t.memory.fits and t.times is not None,
            "peak": t.memory.peak,
            "step": t.times.apart if t.times else None,
            "images_per_s": t.rate,
        }
        for t in trials
    ]


def plot(path: Path, found: dict[str, Any]) -> None:
    """Draws predicted efficiency against the number of chips.

    Args:
      path: the picture, by its ending PNG, PDF or SVG.
      found: a report that has "scaling".
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    points = found["scaling"]
    x = [p["count"] for p in points]
    for key, label in (("overlapped", "messages overlap"), ("apart", "messages apart")):
        axis.plot(x, [100 * p[key] for p in points], marker="o", lw=1.5, label=label)
    axis.set_xscale("log", base=2)
    axis.set_xticks(x, [f"{n:,}" for n in x])
    axis.set(ylim=(0, 105), xlabel=f"{found['topology'].partition(':')[0]} chips")
    axis.set(ylabel="% of one host's images/s a chip", title=f"{found['method']}, predicted")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower left")
    figure.savefig(path, dpi=120)
