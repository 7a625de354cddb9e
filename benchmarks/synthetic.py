"""Pictures a second of the synthetic corpora on one core.

    python benchmarks/synthetic.py [--seconds 5] [--save NAME]

One JSON line per corpus and resolution: image, boxes and one caption of each example, after the
drawings were made once (`first_pass_s` says how long that took); then the same with masks.
"""

import argparse
import os
import time

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy: one core is one thread

from machine import report, show

from jaxt2i.data.drawn.synthetic import CORPORA, Synthetic

KEYS = ("image", "boxes", "box_label", "box_mask", "label")
MASKS = (*KEYS, "shape_masks", "segmentation")


def rate(source: Synthetic, keys: tuple[str, ...], seconds: float, start: int) -> float:
    """Examples a second, each with one caption."""
    n, begin = 0, time.perf_counter()
    while (spent := time.perf_counter() - begin) < seconds:
        for index in range(start + n, start + n + 50):
            source.captions(index)[index % 5]
            source.example(index, keys)
        n += 50
    return n / spent


def main() -> None:
    """Prints the lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="of measuring per number")
    parser.add_argument("--save", help="name of the file in benchmarks/results")
    args = parser.parse_args()
    seconds, lines = args.seconds, []
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for corpus in CORPORA:
        for resolution in (32, 64, 128, 256):
            source = Synthetic(corpus, resolution)
            begin = time.perf_counter()
            for index in range(2000 if resolution <= 64 else 500):
                source.example(index, MASKS)
            first = time.perf_counter() - begin
            line = {
                "benchmark": "synthetic",
                "corpus": corpus,
                "resolution": resolution,
                "images_per_s": round(rate(source, KEYS, seconds, 2000)),
                "with_masks_per_s": round(rate(source, MASKS, seconds, 20000)),
                "first_pass_s": round(first, 1),
            }
            lines.append(show(line))
    report(lines, args.save)


if __name__ == "__main__":
    main()
