"""Compiling the step of every preset, from shapes alone: python benchmarks/compile.py.

Every program is a process of its own, without a compilation cache: tracing and compiling of each
program of a step for this machine's devices, `--batch` images on each, or as many as a preset
normalises together; no weights, no data. Presets that differ in their data, length or learning
rates alone share a program, and a line. `--case NAME:PRESET ...` chooses; `--missing` leaves out
what --save keeps already, and is for runs in parts: the file is written after every program.
benchmarks/plan.py does the same for TPUs that are not here.
"""

import argparse
import json
import resource
import time

from machine import report, results, show
from startup import fresh

# What a step's program follows from, as settings are named; the data's shapes among them.
PROGRAM = (
    *("method", "model.", "optim.", "precision", "perception_precision", "matmul_precision"),
    *("param_dtype", "masters", "remat", "skip_nonfinite", "data.resolution", "data.tokens"),
    *("data.text_width", "data.objects", "data.relations", "data.attributes", "data.captions"),
    *("data.object_attributes", "data.mask_resolution", "data.latent"),
)
# What stands behind an error's own words.
JAX_SAYS = ("-----", "For simplicity, JAX")
# Numbers that a program has as constants or as inputs.
NUMBERS = ("lr", "decay_steps", "decay_every_epochs", "warmup_steps")


def programs() -> dict[str, list[str]]:
    """{a preset: all presets whose step is the same program}, of every method."""
    from jaxt2i.run import settings

    groups = {}
    for name in settings.presets():
        file, _, preset = name.partition(":")
        flat = settings.flat(settings.plain(settings.preset(f"configs/{file}.py", preset)))
        key = {k: x for k, x in flat.items() if k.startswith(PROGRAM)}
        key = {k: x for k, x in key.items() if k.rpartition(".")[2] not in NUMBERS}
        groups.setdefault(json.dumps(key, sort_keys=True), []).append(name)
    return {names[0]: names for names in groups.values()}


def child(case: str, batch: int) -> None:
    """Compiles one case and prints its line."""
    # Here, so that a process that only starts others stays small.
    import jax

    from jaxt2i.data import schema
    from jaxt2i.engine import loop, mesh
    from jaxt2i.engine import state as states
    from jaxt2i.engine import step as steps
    from jaxt2i.planning import compiled
    from jaxt2i.run import hlo, placement, settings
    from jaxt2i.run.open import load_method

    jax.config.update("jax_enable_compilation_cache", False)
    name, _, preset = case.partition(":")
    config = settings.preset(f"configs/{name}.py", preset)
    # Images that are normalised together are on one device.
    rows = max(batch, config.model.get("norm_group") or 0) * jax.device_count()
    config = compiled.prepared(config, rows, {})
    data = config.data
    method = load_method(config)
    sizes = schema.sizes_of(data, batch=rows, tokens=data.tokens)
    spec = schema.spec(sizes, method.needs)
    layout = placement.layout(mesh.make(config.mesh.data, config.mesh.fsdp, config.mesh.tensor))
    shapes = states.shapes(method, spec)
    cpu, started = time.process_time(), time.perf_counter()
    lowered = dict(loop.lower_step(method, steps.Rules(0, rows, 1000), layout, spec, shapes))
    line = {
        "what": "compile",
        "method": name,
        "preset": preset,
        "batch": rows,
        "precision": config.precision,
        "parameters": states.count(shapes[0].params) + states.count(shapes[1]),
        "trace_s": round(time.perf_counter() - started, 2),
        "programs": {},
    }
    for every, program in lowered.items():
        began = time.perf_counter()
        done = program.compile()
        took = time.perf_counter() - began
        read = hlo.Program(done.as_text())
        line["programs"][f"every {every}"] = {
            "compile_s": round(took, 2),
            "gflop": round(hlo.flops(done, read) / 1e9, 1),
            "instructions": sum(map(len, read.computations.values())),
            "temporary_mib": round(done.memory_analysis().temp_size_in_bytes / 2**20),
        }
    line["cpu_s"] = round(time.process_time() - cpu, 2)
    line["peak_host_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(line))


def measured(case: str, presets: list[str], batch: int) -> dict:
    """The line of a program: what it took, or why it could not be compiled here."""
    try:
        line = fresh(__file__, case, str(batch))
    except RuntimeError as error:
        said = [x for x in str(error).splitlines() if x.strip() and not x.startswith(JAX_SAYS)]
        line = {"what": "compile", "case": case, "failed": said[-1]}
    return show({**line, "presets": presets})


def kept(name: str) -> list[dict]:
    """The lines that a file of results holds; [] where there is none."""
    path = results(name)
    return json.loads(path.read_text())["lines"] if path.is_file() else []


def main() -> None:
    """Measures what the command line asks for."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--case", nargs="+", default=[], help="NAME:PRESET; default: every program")
    p.add_argument("--batch", type=int, default=8, help="images on each device")
    p.add_argument("--missing", action="store_true", help="only what --save does not keep yet")
    p.add_argument("--save", help="name of the file in benchmarks/results")
    p.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.child:
        child(args.child[0], int(args.child[1]))
        return
    if args.missing and not args.save:
        p.error("--missing leaves out what a file keeps: name it with --save")
    known = programs()
    if strange := [x for x in args.case if not any(x in names for names in known.values())]:
        p.error(f"no preset {strange[0]!r}; python -m jaxt2i.train --help lists them")
    asked = args.case or known
    chosen = {
        next(x for x in asked if x in names): names
        for names in known.values()
        if set(asked) & set(names)
    }
    lines = kept(args.save) if args.missing else []
    there = {name for line in lines if "failed" not in line for name in line["presets"]}
    lines = [line for line in lines if "failed" not in line]
    for case, names in chosen.items():
        if not there & set(names):
            lines.append(measured(case, names, args.batch))
            report(lines, args.save)


if __name__ == "__main__":
    main()
