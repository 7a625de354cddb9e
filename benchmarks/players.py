"""Where a GAN's step goes: python benchmarks/players.py --config configs/galip.py --preset coco.

Every player alone against all in one program, the step without its gradient penalty, and
sampling. In one program DF-GAN, GALIP, AttnGAN and DM-GAN draw their pictures once for all
players; Souza et al. give the generator latents of its own, so there is nothing to share. Weights
are random. The compiler counts the body of a loop over layers once. `--no-time` compiles and counts
only.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
from machine import report, show

from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.run import hlo, settings
from jaxt2i.run import open as runs


def opened(args, batch_size: int, **model) -> runs.Run:
    """The run of the command line's preset, with random weights."""
    config = settings.preset(args.config, args.preset)
    config.batch_size = batch_size
    config.precision = args.precision
    config.data.source = "synthetic"
    if "weights" in config.model:
        config.model.weights = "random"
    config.model.update(model)
    if args.perception:
        config.model.perception = args.perception
        config.data.update(tokenizer="mini", tokens=32)
    if args.tokenizer:
        config.data.tokenizer = args.tokenizer
    return runs.open_run(config)


def programs(args, batch_size: int) -> dict:
    """{name: (run, step)} of everything that is compared."""
    run = opened(args, batch_size)
    rules = steps.Rules(0, batch_size, 1000)
    out = {"all players": (run, steps.make(run.method, rules)[1])}
    for player in run.method.players:
        alone = lambda s, f, b, p=player: steps.play(run.method, p, rules, s, f, b)[:2]  # noqa: E731
        out[f"{player.name} alone"] = (run, alone)
    if "penalty_weight" in run.config.model:
        free = opened(args, batch_size, penalty_weight=0.0)
        out["without penalty"] = (free, steps.make(free.method, rules)[1])
    if run.method.sampler is None:
        return out
    prompts = jax.tree.map(jnp.asarray, run.prompts(["a red rose"] * batch_size))
    keys = jax.vmap(jax.random.key)(jnp.arange(batch_size))

    def draw(state, frozen, batch):
        ctx = states.context(run.method, state, frozen, key=jax.random.key(0))
        return run.method.sampler(ctx, prompts, keys)["image"]

    out["sample"] = (run, draw)
    return out


def measure(args, batch_size: int) -> list[dict]:
    """One line a program."""
    lines, state, frozen = [], None, None
    for name, (run, step) in programs(args, batch_size).items():
        spec = run.batch_spec()
        if state is None:
            layout = run.layout()
            placed = tuple(map(layout.shardings, states.shapes(run.method, spec)))
            state, frozen = states.create(run.method, spec, 0, placed)
            rows = run.pipeline(run.source("train"), batch_size, run.method.needs).batch_at(0)
            batch = layout.put_batch(rows)
        started = time.perf_counter()
        compiled = jax.jit(step).lower(state, frozen, batch).compile()
        seconds = time.perf_counter() - started
        line = {
            "program": name,
            "config": args.config,
            "preset": args.preset,
            "batch": batch_size,
            "precision": args.precision,
            "compile_s": round(seconds, 1),
            "gflop": round(hlo.flops(compiled) / 1e9, 1),
            "temporary_mib": round(compiled.memory_analysis().temp_size_in_bytes / 2**20),
        }
        if args.time:
            times = []
            for _ in range(args.windows + 1):  # the first one warms up
                started = time.perf_counter()
                jax.block_until_ready(compiled(state, frozen, batch))
                times.append(time.perf_counter() - started)
            median = statistics.median(times[1:])
            line |= {"ms": round(median * 1e3, 1), "images_per_s": round(batch_size / median, 2)}
        lines.append(show(line))
    whole = lines[0]
    for line in lines:
        for key in ("gflop", "ms"):
            if key in line:
                line[f"{key}_share"] = round(line[key] / whole[key], 3)
    return lines


def main() -> None:
    """Measures what the command line asks for."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--config", default="configs/galip.py")
    p.add_argument("--preset", default="embedded")
    p.add_argument("--perception", default="", help="another one than the preset's, such as mini")
    p.add_argument("--tokenizer", default="", help="another one than the preset's, such as words")
    p.add_argument("--batch", nargs="+", type=int, default=[4, 8])
    p.add_argument("--precision", default="auto")
    p.add_argument("--windows", type=int, default=3)
    p.add_argument("--no-time", dest="time", action="store_false")
    p.add_argument("--save", help="name of the file in benchmarks/results")
    args = p.parse_args()
    lines = []
    for batch in args.batch:
        lines += measure(args, batch)
        report(lines, args.save)


if __name__ == "__main__":
    main()
