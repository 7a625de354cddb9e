"""What more training brings: the reports of runs that were judged several times, as one figure.

    python benchmarks/longer.py --runs galip=runs/galip-emoji attngan=runs/attngan-emoji \\
        --scores independent_group,independent_colour_as_real --save emoji_longer

A run that is continued to more steps (`--config.total_steps=N` with the same work directory) and
evaluated each time leaves a report for each length. Lines go by pictures that were trained on;
dashed is what real pictures get, dotted what shuffled captions do. Both vary from report to report
as far as they are of other pictures.
"""

import argparse
import json
import sys
from pathlib import Path

from ablations import lines_of
from learned import RESULTS, named_run, reports
from machine import report, show


def line(name: str, run: Path, scores: list[str]) -> dict:
    """A run's scores by pictures and minutes of training.

    Raises:
      ValueError: where there are none.
    """
    metrics = lines_of(run)
    images = {x["step"]: x["images"] for x in metrics if "images" in x}
    found = {step: judged for step, judged in reports(run).items() if set(scores) <= set(judged)}
    if not found:
        raise ValueError(f"{run}: no report has {', '.join(scores)}; evaluate the run first")
    each = json.loads((run / "config.json").read_text())["batch_size"]
    return {
        "what": "longer",
        "name": name,
        "images": [images.get(step, step * each) for step in found],
        "scores": {s: [judged[s] for judged in found.values()] for s in scores},
    }


def plot(lines: list[dict], scores: list[str], file: Path) -> None:
    """A panel for each score, a colour for each run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(scores), 3.2), layout="constrained")
    axes = figure.subplots(1, len(scores), squeeze=False)[0]
    for axis, score in zip(axes, scores, strict=True):
        for i, x in enumerate(lines):
            for key, style in (("value", "o-"), ("real_pictures", "--"), ("chance", ":")):
                values = [at.get(key) for at in x["scores"][score]]
                label = x["name"] if key == "value" else None
                axis.plot(x["images"], values, style, color=f"C{i}", label=label, linewidth=1)
        axis.set(title=score.replace("_", " "), xlabel="pictures trained on", ylim=(0, None))
    axes[-1].legend(fontsize=7)
    figure.savefig(file, dpi=80)


def main(argv: list[str] | None = None) -> int:
    """Reads runs and keeps their scores."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--runs", nargs="+", type=named_run, required=True, metavar="NAME=RUN")
    p.add_argument("--scores", required=True, metavar="SCORE,SCORE")
    p.add_argument("--save", required=True, help="name of the files in benchmarks/results")
    args = p.parse_args(argv)
    scores = args.scores.split(",")
    try:
        lines = [show(line(name, Path(run), scores)) for name, run in args.runs]
    except (ValueError, OSError) as error:
        print(f"longer.py: {error}", file=sys.stderr)
        return 2
    report(lines, args.save)
    plot(lines, scores, RESULTS / f"{args.save}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
