"""The official training step and ours, side by side on this machine.

    python benchmarks/peer.py --system galip --checkout DIR [--width small] [--save NAME]

Each side runs in a process of its own, on the same cores, with the same number of threads, the same
precision, the same made-up batch and, for what is trained, the same made-up weights (the official
side's, by the library's names: a network that differs is refused). Windows of a few steps alternate
between them, so that a busy machine is busy for both: take the ratios. The official side is its own
loop with its own modules, losses and optimisers, from a checkout that you name; see
`benchmarks/peers`. PyTorch may live in another environment: --python.

Sampling is a caption to pictures in memory, text encoder included, ours by the drawer of the
command line. Memory is the most that the process held while it was stepping: resident on a CPU, of
the allocator on a GPU. --precision amp is the official code's own mixed precision where it has one,
else autocast to bfloat16, and bfloat16 on our side.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from machine import report, show
from peers.sizes import SIZES
from peers.talk import Child, PeerError

SIDES = ("official", "ours")


def made_up(size: dict, seed: int) -> dict[str, np.ndarray]:
    """A batch of noise: uint8 pictures, and captions of random words between 5 tokens and all."""
    rng = np.random.default_rng(seed)
    batch, length, vocab = size["batch"], size["tokens"], size["vocab"]
    side = size.get("real", size["resolution"])
    mask = np.arange(length) < rng.integers(min(5, length), length + 1, (batch, 1))
    tokens = rng.integers(1, vocab - 2, (batch, length)) * mask
    # The end of a caption is CLIP's highest word; other encoders take it for a word.
    tokens[np.arange(batch), mask.sum(1) - 1] = vocab - 1
    return {
        "image": rng.integers(0, 256, (batch, side, side, 3), dtype=np.uint8),
        "tokens": tokens.astype(np.int32),
        "token_mask": mask,
        "label": np.arange(batch, dtype=np.int32),
    }


def started(args, folder: Path) -> dict[str, Child]:
    """Both sides, ready; the official one first, since ours begins with its weights."""
    size = SIZES[args.system][args.width] | ({"batch": args.batch} if args.batch else {})
    np.savez(folder / "batch.npz", **made_up(size, args.seed))
    job = {
        "system": args.system,
        "size": size,
        "checkout": args.checkout,
        "precision": args.precision,
        "seed": args.seed,
        "given": False,
        "batch": str(folder / "batch.npz"),
        "weights": str(folder / "weights.npz"),
    }
    out = {}
    for side in SIDES:
        python = args.python if side == "official" else sys.executable
        try:
            out[side] = Child(side, job, python=python, threads=args.threads)
        except PeerError:
            for other in out.values():
                other.close()
            raise
    return out


def alternate(sides: dict[str, Child], rounds: int, **command) -> dict[str, list[float]]:
    """Seconds of a command by side; a first, uncounted round warms up."""
    times = {side: [] for side in sides}
    for turn in range(rounds + 1):
        # Who comes first changes, too.
        for side in sorted(sides, reverse=bool(turn % 2)):
            seconds = sides[side].ask(**command)["seconds"]
            if turn:
                times[side].append(seconds)
    return times


def compared(what: str, pictures: int, times: dict[str, list[float]]) -> dict:
    """One line: medians, spread, and how many times as fast ours is."""
    median = {side: statistics.median(x) for side, x in times.items()}
    ratios = [a / b for a, b in zip(times["official"], times["ours"], strict=True)]
    line = {"what": what, "pictures": pictures}
    for side, seconds in times.items():
        line[side] = {
            "s": round(median[side], 6),
            "s_min_max": [round(min(seconds), 6), round(max(seconds), 6)],
            "pictures_per_s": round(pictures / median[side], 3),
        }
    return line | {
        "times_as_fast": round(median["official"] / median["ours"], 3),
        "times_as_fast_min_max": [round(min(ratios), 3), round(max(ratios), 3)],
    }


def measure(args) -> list[dict]:
    """Lines of a system: what was compared, the step, its memory, sampling."""
    with tempfile.TemporaryDirectory() as folder:
        sides = started(args, Path(folder))
        try:
            about = {side: child.about for side, child in sides.items()}
            size = SIZES[args.system][args.width] | ({"batch": args.batch} if args.batch else {})
            common = {"system": args.system, "width": args.width, "asked": args.precision}
            lines = [show({"what": "sides", **common, "size": size, **about})]
            alternate(sides, 0, do="train", steps=1)
            for child in sides.values():
                child.ask(do="memory")  # what building took is no part of a step
            times = alternate(sides, args.windows, do="train", steps=args.length)
            line = compared("train step", size["batch"], times)
            line["memory"] = {side: child.ask(do="memory") for side, child in sides.items()}
            line["load"] = os.getloadavg()[0]
            lines.append(show({**common, **line}))
            for count in map(int, filter(None, args.sampling.split(","))):
                times = alternate(sides, args.windows, do="draw", count=count)
                lines.append(show({**common, **compared("sample", count, times)}))
            return lines
        finally:
            for child in sides.values():
                child.close()


def main(argv: list[str] | None = None) -> int:
    """Measures what the command line asks for."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--system", required=True, choices=SIZES)
    p.add_argument("--checkout", default="", help="folder of the official code")
    p.add_argument("--width", default="small", choices=("published", "small", "tiny"))
    p.add_argument("--batch", type=int, default=0, help="default: that of peers/sizes.py")
    p.add_argument("--precision", default="float32", choices=("float32", "amp"))
    p.add_argument("--sampling", default="1,16", help="pictures at once; empty: none")
    p.add_argument("--windows", type=int, default=5)
    p.add_argument("--length", type=int, default=3, help="steps a window")
    p.add_argument("--threads", type=int, default=0, help="cores a side; 0: all")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--python", default=sys.executable, help="interpreter that has PyTorch")
    p.add_argument("--save", help="name of the file in benchmarks/results")
    args = p.parse_args(argv)
    try:
        if args.width not in SIZES[args.system]:
            known = ", ".join(SIZES[args.system])
            raise PeerError(f"{args.system} has no size {args.width!r}; there are {known}")
        report(measure(args), args.save)
    except PeerError as error:
        print(f"peer.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
