"""Train step and sampling: python benchmarks/step.py --preset embedded --batch 8 16 [--save NAME].

Weights are random (speed does not depend on them). A window is a few steps with one wait at its
end; the median of the windows counts.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from machine import report, show

from jaxt2i import runs
from jaxt2i.engine import loop, mesh
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps


def windows(function, count: int, length: int) -> list[float]:
    """Seconds per call, one number a window."""
    out = []
    for _ in range(count):
        started = time.perf_counter()
        for _ in range(length):
            last = function()
        jax.block_until_ready(last)
        out.append((time.perf_counter() - started) / length)
    return out


def measure(args, preset: str, batch_size: int) -> list[dict]:
    """Lines for one preset at one batch size."""
    config = runs.preset(args.config, preset)
    config.batch_size = batch_size
    config.data.source = "synthetic"
    if "weights" in config.model:
        config.model.weights = "random"
    if "micro_batch" in config.model:
        config.model.micro_batch = min(config.model.micro_batch, batch_size)
    if args.remat:
        config.model.remat = True
    run = runs.open_run(config)
    layout = run.layout()
    spec = run.batch_spec()
    rules = steps.Rules(0, batch_size, 1000)
    programs = loop.compile_step(run.method, rules, layout, spec)
    shapes = states.shapes(run.method, spec)
    state, frozen = states.create(run.method, spec, 0, tuple(map(layout.shardings, shapes)))
    rows = run.pipeline(run.source("train"), batch_size, run.method.needs).batch_at(0)
    batch = mesh.put_batch(rows, layout.mesh)
    held = {"state": state}

    def play():
        held["state"], metrics = programs.play[1](held["state"], frozen, batch)
        return metrics

    jax.block_until_ready(play())
    common = {
        "preset": preset,
        "batch": batch_size,
        "precision": config.precision,
        "remat": args.remat,
    }
    train = windows(play, args.windows, args.length)
    median = statistics.median(train)
    lines = [
        show(
            {
                "what": "train step",
                **common,
                "compile_s": round(programs.compile_seconds, 2),
                "ms": round(median * 1e3, 1),
                "ms_min_max": [round(min(train) * 1e3, 1), round(max(train) * 1e3, 1)],
                "images_per_s": round(batch_size / median, 2),
                "gflop": round(programs.flops / 1e9, 1),
                "gflop_per_s": round(programs.flops / 1e9 / median, 1),
            }
        )
    ]
    if run.method.sample:
        lines.append(sampling(run, held["state"], frozen, rows, common, args))
    return lines


def sampling(run, state, frozen, rows, common, args) -> dict:
    """The line for drawing one batch."""
    method = run.method
    prompts = {k: jnp.asarray(rows[k]) for k in method.sample_needs}
    keys = jax.vmap(jax.random.key)(jnp.arange(common["batch"], dtype=np.uint32))

    def draw(state, frozen, prompts, keys):
        ctx = states.context(method, state, frozen, key=jax.random.key(0))
        return method.sample(ctx, prompts, keys)["image"]

    started = time.perf_counter()
    compiled = jax.jit(draw).lower(state, frozen, prompts, keys).compile()
    compile_s = time.perf_counter() - started
    jax.block_until_ready(compiled(state, frozen, prompts, keys))
    times = windows(lambda: compiled(state, frozen, prompts, keys), args.windows, args.length)
    median = statistics.median(times)
    return show(
        {
            "what": "sample",
            **common,
            "compile_s": round(compile_s, 2),
            "ms": round(median * 1e3, 1),
            "images_per_s": round(common["batch"] / median, 2),
        }
    )


def main() -> None:
    """Measures what the command line asks for."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--config", default="configs/stylegan_t.py")
    p.add_argument("--preset", nargs="+", default=["embedded"])
    p.add_argument("--batch", nargs="+", type=int, default=[8, 16])
    p.add_argument("--windows", type=int, default=3)
    p.add_argument("--length", type=int, default=3, help="steps a window")
    p.add_argument("--remat", action="store_true", help="recompute activations, for memory")
    p.add_argument("--save", help="name of the file in benchmarks/results")
    args = p.parse_args()
    lines = []
    for preset in args.preset:
        for batch in args.batch:
            lines += measure(args, preset, batch)
            report(lines, args.save)


if __name__ == "__main__":
    main()
