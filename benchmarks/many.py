"""Pictures drawn and judged in constant memory: PYTHONPATH=. python benchmarks/many.py.

A tiny system that was not trained draws `--num` pictures for as many captions, one small network
looks at them, FID and KID compare them with a folder: what `evaluate` does, in one process, first
for a few and then for all. Says the most memory that the process held after either, libraries and
compiled programs included, and pictures a second. `--save NAME` keeps it.
"""

import argparse
import tempfile
import time
from pathlib import Path

import pytest
from machine import report, show

from jaxt2i import evaluate
from jaxt2i.evaluation.judge import judge
from tests.evaluation import small

# Enough for FID and KID, and for all programs to be compiled.
FEW = 500
TOLD = ("drawn_per_s", "seen_per_s", "images_per_s", "peak_memory_mb")


def judged(root: Path, run: Path, num: int) -> dict:
    """What it took to draw and judge so many."""
    start = time.perf_counter()
    asked = ("--workdir", run, "--protocol", "small", "--num", num, "--metrics", "fid,kid")
    place = ("--reference", root / "real", *small.WEIGHTS, "--batch", 64)
    result = judge(evaluate.arguments([str(x) for x in (*asked, *place)]))
    seconds, facts = time.perf_counter() - start, result.facts
    samples = result.measured.samples
    said = {"captions": facts["captions"]["count"], "resolution": samples.drawn}
    scores = {s.metric: round(s.value, 6) for s in result.scores}
    told = {name: facts[name] for name in TOLD}
    return {"pictures": samples.count, **said, **scores, **told, "seconds": round(seconds, 1)}


def main() -> None:
    """Measures, prints and keeps."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--num", type=int, default=30_000)
    p.add_argument("--save", help="name of the file in benchmarks/results")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        root = Path(scratch)
        small.use(patch)
        small.pictures(root / "real", 64)
        run = small.untrained(root / "run", steps=(1,))
        lines = [show(judged(root, run, num)) for num in (FEW, args.num)]
    report(lines, args.save)


if __name__ == "__main__":
    main()
