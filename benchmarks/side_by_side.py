"""The same captions drawn by several runs with the same seed, as one picture.

    python benchmarks/side_by_side.py --runs df_gan=runs/df_gan-emoji galip=runs/galip-emoji \\
        --prompts "red apple" "tiger face" --save emoji_systems

A row for each run, a column for each caption; the held-out real pictures of the captions that the
first run's data have come first. --save keeps benchmarks/results/NAME.png, and NAME.json, which
says what was drawn.
"""

import argparse
import sys

import numpy as np
from learned import RESULTS, named_run
from machine import report

import jaxt2i
from jaxt2i.data.schema import DataError
from jaxt2i.engine.method import ConfigError
from jaxt2i.run import log


def real(model, prompts: list[str]) -> list[np.ndarray]:
    """The held-out picture of each caption; white where there is none."""
    run = model.run
    source = run.source(run.config.data.eval_split)
    found = {text: i for i in reversed(range(source.size)) for text in source.captions(i)}
    white = np.full((*source.example(0)["image"].shape,), 255, np.uint8)
    return [source.example(found[p])["image"] if p in found else white for p in prompts]


def main(argv: list[str] | None = None) -> int:
    """Draws what the command line asks for."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--runs", nargs="+", type=named_run, required=True, metavar="NAME=RUN")
    p.add_argument("--prompts", nargs="+", required=True)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--save", required=True, help="name of the files in benchmarks/results")
    args = p.parse_args(argv)
    pictures, captions, lines = [], [], []
    try:
        for name, place in args.runs:
            model = jaxt2i.load(place)
            if not pictures:
                pictures += real(model, args.prompts)
                captions += [f"real: {text}" for text in args.prompts]
            drawn = model.sample(args.prompts, seed=args.seed, num=1)
            pictures += list(drawn.arrays)
            captions += [f"{name}: {text}" for text in args.prompts]
            about = {"step": model.about["step"], "seed": args.seed, "prompts": args.prompts}
            lines.append({"what": "side by side", "name": name} | about)
    except (ConfigError, DataError) as error:
        print(f"side_by_side.py: {error}", file=sys.stderr)
        return 2
    report(lines, args.save)
    log.grid(np.stack(pictures), captions, len(args.prompts)).save(RESULTS / f"{args.save}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
