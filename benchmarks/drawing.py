"""Seconds to draw 1, 4 and 16 pictures, by the rows that a device draws at once.

    python benchmarks/drawing.py --config configs/galip.py --preset coco --json FILE

The text tower is part of it, as a user waits for it. Beside every chunk stands one program that
draws all pictures as one batch, without the promise that a picture depends on its row alone. Rounds
alternate between them, so that a busy machine is busy for all; take the ratios.
"""

import argparse
import functools
import json
import os
import statistics
import time

import jax
import numpy as np

from jaxt2i.data import schema
from jaxt2i.engine import draw, mesh
from jaxt2i.engine import state as states
from jaxt2i.run import settings
from jaxt2i.run.open import open_run


def batched(run, weights, count: int):
    """All rows as one batch, in one program."""

    @jax.jit
    def program(state, frozen, rows, seeds):
        ctx = states.context(run.method, state, frozen, key=None)
        keys = jax.vmap(jax.random.key)(seeds)
        return run.method.sampler(ctx, rows, keys)["image"]

    rows = one_row(run)
    rows = {key: np.repeat(value[None], count, 0) for key, value in rows.items()}
    seeds = np.arange(count, dtype=np.uint32)
    return lambda: jax.block_until_ready(program(*weights, rows, seeds))


def chunked(run, drawer, weights, count: int):
    """What the command line and the Python API do."""
    requests = [draw.Request(one_row(run), seed) for seed in range(count)]
    return lambda: [out for _, out in drawer.stream(*weights, requests)]


def one_row(run) -> dict[str, np.ndarray]:
    """A caption as the sampler reads it."""
    return run.words().arrays({"prompt": "a plate of food on a table"}, run.method.sampler.needs)


def main() -> None:
    """Measures and prints; --json keeps it."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--config", default="configs/galip.py")
    p.add_argument("--preset", default="coco")
    p.add_argument("--chunks", default="1,2,4,8")
    p.add_argument("--counts", default="1,4,16")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--json", default="")
    args = p.parse_args()
    config = settings.preset(args.config, args.preset)
    config.model.weights = "random"
    run = open_run(config)
    layout = mesh.Layout(mesh.make(1, 1, 1, jax.devices()[:1]))
    spec = schema.spec(run.sizes, run.method.needs)
    shapes = states.shapes(run.method, spec)
    state, frozen = states.create(run.method, spec, 0, tuple(map(layout.shardings, shapes)))
    weights = state.replace(opt={}), frozen
    ways, made = {}, functools.partial(draw.Drawer, method=run.method, layout=layout)
    chunks = [int(chunk) for chunk in args.chunks.split(",")]
    drawers = {chunk: made(wanted=("image",), chunk=chunk) for chunk in chunks}
    for count in map(int, args.counts.split(",")):
        ways[count, "batch"] = batched(run, weights, count)
        for chunk, drawer in drawers.items():
            ways[count, f"chunk {chunk}"] = chunked(run, drawer, weights, count)
    for way in ways.values():
        way()
    seconds = {key: [] for key in ways}
    for _ in range(args.rounds):
        for key, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[key].append(time.perf_counter() - started)
    rows = [
        {"pictures": n, "way": way, "seconds": round(statistics.median(s), 3), "rounds": len(s)}
        for (n, way), s in seconds.items()
    ]
    out = {
        "config": f"{args.config}:{args.preset}",
        "platform": jax.devices()[0].platform,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "jax": jax.__version__,
        "results": rows,
    }
    print(json.dumps(out, indent=1))
    if args.json:
        with open(args.json, "w") as file:
            file.write(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
