"""Train step and sampling: python benchmarks/step.py --preset embedded --batch 8 16 [--save NAME].

--batch, --precision, --remat and --set take several values each, and every combination makes a
line; `--set plain model.object_loop=scan,seed=1` is one without and one with two changed settings.
Weights are random (speed does not depend on them). A window is a few steps with one wait at its
end; the median of the windows counts.
"""

import argparse
import itertools
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from machine import report, show
from ml_collections import ConfigDict

from jaxt2i.config import ConfigError, micro_batches
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.run import open as runs
from jaxt2i.run import settings, training


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


def rules_of(text: str) -> tuple[tuple[str, str], ...]:
    """config.remat of the command line: "none", "full" or "g=full,d=products"."""
    if text == "none":
        return ()
    pairs = (part.rpartition("=") for part in text.split(","))
    return tuple((net or ".*", policy) for net, _, policy in pairs)


def changes_of(text: str) -> list[str]:
    """Arguments for "plain", which is none, or "model.object_loop=scan,seed=1"."""
    return [] if text == "plain" else [f"--config.{part}" for part in text.split(",")]


def opened(config: ConfigDict) -> runs.Run:
    """A configuration's run on synthetic pictures and random weights."""
    config.data.source = "synthetic"
    if "weights" in config.model:
        config.model.weights = "random"
    if "micro_batch" in config.model:
        config.model.micro_batch = min(config.model.micro_batch, config.batch_size)
    return runs.open_run(config)


def measure(
    args, preset: str, batch_size: int, precision: str, remat: str, change: str
) -> list[dict]:
    """Lines for one preset at one batch size, precision, recomputation and change."""
    config = settings.configuration(f"{args.config}:{preset}", changes_of(change))
    config.batch_size, config.remat = batch_size, rules_of(remat)
    config.precision = precision or config.precision
    run = opened(config)
    common = {
        "config": args.config,
        "preset": preset,
        "set": change,
        "batch": batch_size,
        "precision": config.precision,
        "remat": remat,
    }
    line, *drawing = train(run, args)
    lines = [show({"what": "train step", **common, **line})]
    if run.method.sampler:
        lines.append(sampling(run, *drawing, common, args))
    return lines


def train(run: runs.Run, args) -> tuple[dict, states.State, dict, dict]:
    """What a step takes, then (the last state, frozen weights, the batch on the host)."""
    batch_size, layout, spec = run.config.batch_size, run.layout(), run.batch_spec()
    rules = steps.Rules(0, batch_size, 1000, micro_batches(run.config))
    programs = training.compile_step(run.method, rules, layout, spec)
    shapes = states.shapes(run.method, spec)
    state, frozen = states.create(run.method, spec, 0, tuple(map(layout.shardings, shapes)))
    rows = run.pipeline(run.source("train"), batch_size, run.method.needs).batch_at(0)
    batch = layout.put_batch(rows)
    held = {"state": state}

    def play():
        held["state"], metrics = programs.play[1](held["state"], frozen, batch)
        return metrics

    jax.block_until_ready(play())
    times = windows(play, args.windows, args.length)
    median = statistics.median(times)
    line = {
        "compile_s": round(programs.compile_seconds, 2),
        "ms": round(median * 1e3, 1),
        "ms_min_max": [round(min(times) * 1e3, 1), round(max(times) * 1e3, 1)],
        "images_per_s": round(batch_size / median, 2),
        "gflop": round(programs.flops / 1e9, 1),
        "gflop_per_s": round(programs.flops / 1e9 / median, 1),
    }
    return line, held["state"], frozen, rows


def sampling(run, state, frozen, rows, common, args) -> dict:
    """The line for drawing one batch."""
    method = run.method
    prompts = {k: jnp.asarray(rows[k]) for k in method.sampler.needs}
    keys = jax.vmap(jax.random.key)(jnp.arange(common["batch"], dtype=np.uint32))

    def draw(state, frozen, prompts, keys):
        ctx = states.context(method, state, frozen, key=jax.random.key(0))
        return method.sampler(ctx, prompts, keys)["image"]

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
    p.add_argument("--precision", nargs="+", default=[""], help="default: the preset's")
    p.add_argument(
        "--remat", nargs="+", default=["none"], help="none, full, products, g=full,d=products"
    )
    p.add_argument("--set", nargs="+", default=["plain"], help="model.object_loop=scan,seed=1")
    p.add_argument("--save", help="name of the file in benchmarks/results")
    args = p.parse_args()
    lines = []
    for case in itertools.product(args.preset, args.batch, args.precision, args.remat, args.set):
        try:
            lines += measure(args, *case)
        except ConfigError as error:
            sys.exit(f"step.py: {error}")
        report(lines, args.save)


if __name__ == "__main__":
    main()
