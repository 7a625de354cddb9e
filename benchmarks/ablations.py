"""Presets of one system side by side: what each one's run scored, and what it cost.

    python -m jaxt2i.evaluate --workdir runs/crd_cgan-default --metrics recognised,feature_diversity
    python benchmarks/ablations.py --system crd_cgan --runs embedded=runs/crd_cgan-default \\
        no_diversity=runs/crd_cgan-no_diversity

A run's scores are those of its newest evaluation, with their intervals, and those that training
took itself (own/...), which have none. Further evaluations, written by --out, follow their run:
NAME=RUN,DIR. NAME=RUN@STEP takes a longer run as it was at that step. All runs are held against
the first one: better or worse where intervals do not meet, "not apart" where they do; without
intervals nothing is claimed. --scores keeps those that are named. Runs that saw other numbers of
pictures are noted. Writes results/ablations_SYSTEM.json and .png, and where objects were counted by
class (--metrics soa) ablations_SYSTEM_classes.png.
"""

import argparse
import json
import sys
from pathlib import Path

from machine import report, show
from matplotlib.figure import Figure

from jaxt2i.evaluation.report import LOWER_IS_BETTER, number

RESULTS = Path(__file__).parent / "results"
OWN = "own/"


def lines_of(folder: Path) -> list[dict]:
    """The lines of a run's metrics.

    Raises:
      SystemExit: where the folder is no run.
    """
    file = folder / "metrics.jsonl"
    if not file.is_file():
        sys.exit(f"error: {folder} is no work directory of a run: it has no metrics.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines() if line]


def cost(lines: list[dict]) -> dict:
    """Steps, pictures and seconds of a training; what stood still between its steps left out."""
    seconds, compiled, seen = 0.0, 0.0, 0
    for line in lines:
        if "images_per_second" in line:
            seconds += (line["images"] - seen) / line["images_per_second"]
            compiled += line.get("compile_seconds", 0.0)
            seen = line["images"]
    last = max(lines, key=lambda line: line["step"])
    return {
        "step": last["step"],
        "images": last["images"],
        "seconds": round(seconds, 1),
        "compile_seconds": round(compiled, 1),
    }


def own_scores(folder: Path, lines: list[dict]) -> dict[str, dict]:
    """{score: what is known of it} that training took last; without intervals."""
    scored = [line for line in lines if any(key.startswith("score/") for key in line)]
    if not scored:
        return {}
    file = folder / "scores.json"
    better = json.loads(file.read_text()) if file.is_file() else {}
    return {
        OWN + key.removeprefix("score/"): {
            "value": value,
            "better": better.get(key.removeprefix("score/"), "higher"),
            "interval": None,
            "step": scored[-1]["step"],
        }
        for key, value in scored[-1].items()
        if key.startswith("score/")
    }


def evaluated(folder: Path, step: int | None) -> tuple[dict[str, dict], dict[str, dict]]:
    """({score: what is known of it}, {class: its row}) of a folder's newest evaluation.

    Args:
      folder: where evaluations wrote.
      step: of the run, whose evaluation is asked for; None: of any.
    """
    found = [json.loads(file.read_text()) for file in folder.glob("step_*.json")]
    found = [one for one in found if step in (None, one["step"])]
    if not found:
        return {}, {}
    newest = max(found, key=lambda one: one["step"])
    scores = {}
    for score in newest["scores"]:
        interval, facts = score.get("interval"), score.get("facts", {})
        scores.setdefault(score["metric"], {
            "value": score["value"],
            "better": "lower" if score["metric"] in LOWER_IS_BETTER else "higher",
            "interval": interval and [interval["low"], interval["high"]],
            "step": newest["step"],
            "by": facts.get("network", ""),
            "of": facts.get("generated", facts.get("captions")),
            "real_pictures": facts.get("real_pictures"),
        })  # fmt: skip
    classes = {
        name: row
        for rows in newest.get("breakdowns", {}).values()
        for name, row in rows.items()
        if "found" in row
    }
    return scores, classes


def read(system: str, text: str) -> dict:
    """The line of one NAME=RUN[,DIR ...].

    Raises:
      SystemExit: for another form, and for folders that are no runs.
    """
    name, _, places = text.partition("=")
    first, *further = places.split(",")
    first, _, step = first.partition("@")
    if not name or not first or (step and not step.isdecimal()):
        sys.exit(f"error: --runs {text}: expected PRESET=WORKDIR, such as embedded=runs/{system}")
    folder, further = Path(first), [Path(x) for x in further]
    lines = lines_of(folder)
    if step and not (lines := [x for x in lines if x["step"] <= int(step)]):
        sys.exit(f"error: --runs {text}: {folder} has no metrics of step {step} or before")
    scores, classes = own_scores(folder, lines), {}
    for place in (folder / "evaluation", *further):
        more, by_class = evaluated(place, int(step) if step else None)
        if place in further and not more:
            sys.exit(f"error: --runs {text}: there is no step_*.json of an evaluation in {place}")
        scores, classes = scores | more, classes | by_class
    if not scores:
        sys.exit(f"error: {folder} has no scores yet; python -m jaxt2i.evaluate --workdir {folder}")
    line = {"what": "run", "system": system, "preset": name, **cost(lines), "scores": scores}
    return line | ({"classes": classes} if classes else {})


def verdict(one: dict, first: dict) -> str:
    """What two scores' intervals say: "better", "worse", "not apart" or "no interval"."""
    if not one["interval"] or not first["interval"]:
        return "no interval"
    (low, high), (least, most) = one["interval"], first["interval"]
    if low <= most and least <= high:
        return "not apart"
    return "better" if (low > most) == (one["better"] == "higher") else "worse"


def compare(lines: list[dict]) -> list[str]:
    """Adds each run's verdicts against the first one; returns what else to know of the table."""
    first, *others = lines
    for line in others:
        line["against_first"] = {
            name: verdict(score, first["scores"][name])
            for name, score in line["scores"].items()
            if name in first["scores"]
        }
    notes = ["one run of each, of one seed: what another seed would change is not in the intervals"]
    for line in others:
        if line["images"] != first["images"]:
            notes.append(
                f"{line['preset']} saw {line['images']:,} pictures, {first['preset']} "
                f"{first['images']:,}: not the same budget"
            )
    for line in lines:
        behind = {x["step"] for x in line["scores"].values()} - {line["step"]}
        if behind:
            notes.append(
                f"{line['preset']}: scores of step {', '.join(map(str, sorted(behind)))}, trained "
                f"to {line['step']}"
            )
    return notes


def keep(lines: list[dict], names: list[str]) -> None:
    """Leaves other scores than `names` out.

    Raises:
      SystemExit: for a name that no run has.
    """
    known = list(dict.fromkeys(name for line in lines for name in line["scores"]))
    if strange := [name for name in names if name not in known]:
        sys.exit(f"error: --scores: no run has {', '.join(strange)}; known: {', '.join(known)}")
    for line in lines:
        line["scores"] = {name: line["scores"][name] for name in names if name in line["scores"]}


def table(lines: list[dict]) -> str:
    """Lines for the screen: a row a run and score."""
    rows = [f"{'preset':20}{'score':24}{'value':>9}  {'interval':22}{'to first':13}cost"]
    for line in lines:
        paid = f"{line['step']} steps, {line['images']} pictures, {line['seconds']:.0f} s"
        for name, score in line["scores"].items():
            between = " .. ".join(map(number, score["interval"])) if score["interval"] else "-"
            held = line.get("against_first", {}).get(name, "")
            rows.append(
                f"{line['preset']:20}{name:24}{number(score['value']):>9}  {between:22}{held:13}"
                f"{paid}"
            )
    return "\n".join(rows)


def draw(path: Path, title: str, lines: list[dict]) -> None:
    """A panel a score, a bar a run, with its interval."""
    names = list(dict.fromkeys(name for line in lines for name in line["scores"]))
    across = min(3, len(names))
    down = -(-len(names) // across)
    size = (4.4 * across, (0.8 + 0.32 * len(lines)) * down + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for axis, name in zip(axes, names, strict=False):
        for place, line in enumerate(lines):
            score = line["scores"].get(name)
            if score is None:
                axis.text(0, place, " not measured", va="center", fontsize=8)
                continue
            axis.barh(place, score["value"], color="#888" if place else "#5b8def")
            if score["interval"]:
                axis.plot(score["interval"], (place, place), color="#222", lw=1.5, marker="|")
        better = next(x["scores"][name]["better"] for x in lines if name in x["scores"])
        axis.set_title(f"{name} ({better} is better)", fontsize=9)
        axis.set_yticks(range(len(lines)), [x["preset"] for x in lines], fontsize=8)
        axis.invert_yaxis()
        axis.grid(alpha=0.3, axis="x")
    for axis in axes[len(names) :]:
        axis.axis("off")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=90)


def draw_classes(path: Path, title: str, lines: list[dict]) -> None:
    """A group of bars a class, the rarest first, and a mark where real pictures are."""
    known = [line for line in lines if "classes" in line]
    names = list(known[0]["classes"])
    figure = Figure(figsize=(7, 0.8 + 0.2 * len(names) * (len(known) + 1)), layout="constrained")
    axis, high = figure.subplots(), 1 / (len(known) + 1)
    for turn, line in enumerate(known):
        rows = [line["classes"].get(name, {}) for name in names]
        at = [place + turn * high for place in range(len(names))]
        axis.barh(at, [row.get("found", 0) for row in rows], high, label=line["preset"])
    best = [known[0]["classes"][name].get("real pictures") for name in names]
    marks = [(value, place) for place, value in enumerate(best) if value is not None]
    middle = (len(known) - 1) / 2 * high
    axis.plot(
        [value for value, _ in marks],
        [place + middle for _, place in marks],
        ls="", marker="|", ms=12, color="#222", label="real pictures",
    )  # fmt: skip
    axis.set_yticks([place + middle for place in range(len(names))], names, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("pictures in which the named object is found, % (rarest classes first)")
    axis.grid(alpha=0.3, axis="x")
    axis.legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=90)


def main() -> None:
    """Reads, holds side by side, keeps and draws."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--system", required=True, help="name of the table: a system, and of what")
    p.add_argument("--runs", nargs="+", required=True, metavar="PRESET=RUN[,DIR]")
    p.add_argument("--scores", default="", help="those that are kept, a,b,c; default: all")
    p.add_argument("--note", action="append", default=[], help="what else to know")
    args = p.parse_args()
    lines = [read(args.system, text) for text in args.runs]
    if args.scores:
        keep(lines, args.scores.split(","))
    notes = compare(lines) + args.note
    print(table(lines))
    kept = [show({"what": "note", "text": text}) for text in notes] + lines
    name = f"ablations_{args.system}"
    report(kept, name)
    title = f"{args.system}: {lines[0]['preset']} and what was taken from it or changed"
    draw(RESULTS / f"{name}.png", title, lines)
    if any("classes" in line for line in lines):
        draw_classes(RESULTS / f"{name}_classes.png", title, lines)


if __name__ == "__main__":
    main()
