"""Keeps what a run learned: its scores at every look, as benchmarks/results/NAME.json.

    python benchmarks/learned.py RUN --save NAME [--note "..."] [--picture]

The lines are those of the run's metrics.jsonl that hold scores, and what the newest report of
`python -m jaxt2i.evaluate --workdir RUN` found. --picture keeps the run's newest sample grid beside
them, as NAME.png.
"""

import argparse
import json
import re
import shutil
import statistics
import sys
from pathlib import Path

from ablations import lines_of
from machine import facts

RESULTS = Path(__file__).parent / "results"
KEPT = ("score/", "pixels/")


def looks(lines: list[dict]) -> list[dict]:
    """Step, pictures seen and scores of the lines that have scores."""
    found = []
    for line in lines:
        scores = {k: v for k, v in line.items() if k.startswith(KEPT)}
        if scores:
            found.append({"step": line["step"], "images": line["images"]} | scores)
    return found


def named_run(text: str) -> tuple[str, str]:
    """(name, work directory) of a NAME=RUN of a command line, as argparse's type.

    Raises:
      argparse.ArgumentTypeError: for another form.
    """
    name, _, place = text.partition("=")
    if not name or not place:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=WORKDIR, such as galip=runs/x")
    return name, place


def reports(run: Path) -> dict[int, dict[str, dict]]:
    """{step: what its report of `python -m jaxt2i.evaluate` found}, in order."""
    files = sorted((run / "evaluation").glob("step_*[0-9].json"))
    return {int(file.stem.partition("_")[2]): judged(file) for file in files}


def judged(report: Path) -> dict[str, dict]:
    """{metric: value, interval, real pictures', chance's, if any} of a report.

    Raises:
      SystemExit: where it is none.
    """
    found = {}
    try:
        scores = json.loads(report.read_text())["scores"]
    except (ValueError, KeyError, TypeError) as error:
        said = f"{type(error).__name__}: {error}"
        sys.exit(f"error: {report} is no report of evaluate ({said}); delete it, or evaluate again")
    for score in scores:
        real = score["facts"].get("real_pictures")
        line = {"value": score["value"], "real_pictures": real}
        for chance in ("shuffled_captions", "another_caption"):
            if chance in score["facts"]:
                line["chance"] = score["facts"][chance]
        if score["interval"]:
            line["interval"] = [score["interval"][end] for end in ("low", "high")]
        count = score["facts"].get("generated", score["facts"].get("pictures"))
        found[score["metric"]] = line | {"pictures": count}
    return found


def main() -> None:
    """Reads a run and keeps its scores."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("run", type=Path, help="its work directory")
    parser.add_argument(
        "--save", metavar="NAME", required=True, help="benchmarks/results/NAME.json"
    )
    parser.add_argument("--note", default="", help="what a reader must know")
    parser.add_argument("--picture", action="store_true", help="keep the newest grid, too")
    args = parser.parse_args()
    lines = lines_of(args.run)
    rates = [line["images_per_second"] for line in lines if "images_per_second" in line]
    config = json.loads((args.run / "config.json").read_text())
    out = {
        "machine": facts(),
        "command": re.sub(r" --workdir \S+", "", (args.run / "command.txt").read_text().strip()),
        "method": config["method"],
        "note": args.note,
        "images_per_second": {
            "median": round(statistics.median(rates), 1),
            "highest": round(max(rates), 1),
        },
        "scores": looks(lines),
        "judged": next(reversed(reports(args.run).values()), {}),
    }
    (RESULTS / f"{args.save}.json").write_text(json.dumps(out, indent=1) + "\n")
    if args.picture:
        grids = sorted((args.run / "samples").glob("*.png"))
        shutil.copyfile(grids[-1], RESULTS / f"{args.save}.png")


if __name__ == "__main__":
    main()
