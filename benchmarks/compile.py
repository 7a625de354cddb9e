"""Compiling the step at published sizes, from shapes alone: python benchmarks/compile.py.

Every case is a process of its own, without a compilation cache: tracing and compiling of each
program of a step for this machine's devices, `--batch` images on each; no weights, no data.
`--case NAME:PRESET ...` chooses. benchmarks/plan.py does the same for TPUs that are not here.
"""

import argparse
import json
import resource
import time

from machine import report, show
from startup import fresh

CASES = (
    *("stylegan_t:lite64", "stylegan_t:lite256", "stylegan_t:full64", "galip:coco", "df_gan:coco"),
    *("souza:coco", "attngan:coco", "dm_gan:coco", "damsm:coco", "clip:vit_b32"),
)


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
    rows = batch * jax.device_count()
    config = compiled.prepared(settings.preset(f"configs/{name}.py", preset), rows, {})
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
        line["programs"][f"every {every}"] = {
            "compile_s": round(time.perf_counter() - began, 2),
            "gflop": round(hlo.flops(done) / 1e9, 1),
            "temporary_mib": round(done.memory_analysis().temp_size_in_bytes / 2**20),
        }
    line["cpu_s"] = round(time.process_time() - cpu, 2)
    line["peak_host_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(line))


def main() -> None:
    """Measures what the command line asks for."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--case", nargs="+", default=CASES)
    p.add_argument("--batch", type=int, default=8, help="images on each device")
    p.add_argument("--save", help="name of the file in benchmarks/results")
    p.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.child:
        child(args.child[0], int(args.child[1]))
        return
    lines = [show(fresh(__file__, case, str(args.batch))) for case in args.case]
    report(lines, args.save)


if __name__ == "__main__":
    main()
