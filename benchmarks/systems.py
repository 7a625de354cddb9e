"""How far every system is, what runs took and scored, what plans say of published ones, and how far
official code and ours are apart after the same training.

    python benchmarks/systems.py            # prints the tables
    python benchmarks/systems.py --write    # into benchmarks/README.md

Nothing in them is typed: the paper's numbers are those of the presets' docstrings, ours are the
promises that the contract tests hold each `tiny` preset to and what benchmarks/learned.py kept of
whole runs, and what was compared is what the golden files name as their source. Four steps:
*traced*, every preset builds and its step can be traced (tests/test_configs.py); *equal*, its
numbers are the official code's, or worked examples' where there is no public code (python -m
jaxt2i.verify); *learns*, a short run improves its score by a stated margin (pytest
tests/test_contract.py -k learns -m "full or not full"); *weights*, it has drawn with published
weights. No system is at the fourth.
"""

import argparse
import fnmatch
import importlib
import json
import pkgutil
import re
import sys
from pathlib import Path

import jaxt2i.systems
from jaxt2i.planning import report as reports
from jaxt2i.run import settings
from jaxt2i.verify import find

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "benchmarks" / "README.md"
HEAD = ("system", "step", "equal to", "a short run here", "preset", "the paper's number")
RUNS = ("run", "pictures", "minutes", "first look to last", "by judges that did not train it")
PLANS = ("run", "chips", "steps", "hours", "chip-hours", "memory of a chip", "file")
DEAREST = ("step", "of all cycles", "times", "operation", "result", "where")
PARITY = ("system", "steps", "first step", "sides apart", "by a rounding", "by another seed")
RESULTS = ROOT / "benchmarks" / "results"
# Of an evaluation's scores; the files have all.
JUDGED = (
    *("soa_i", "recognised_class", "recognised_colour", "recognised_place"),
    *("independent_group", "independent_colour_as_real", "independent_r_precision"),
    "cross_lingual",
)


def sources(name: str) -> list[tuple[str, int]]:
    """[(what a system is compared with, number of cases)]."""
    module = f"jaxt2i.systems.{name}.goldens"
    if not find.importlib.util.find_spec(module):
        return []
    out = []
    for folder in sorted((ROOT / "tests" / "goldens").iterdir()):
        if not (folder / "manifest.json").exists():
            continue
        about = json.loads((folder / "manifest.json").read_text())
        serves = getattr(importlib.import_module(module), "SERVES", ())
        cases = [c for c in about["cases"] if mine(f"{folder.name}/{c}", module, serves)]
        examples = folder.name in getattr(importlib.import_module(module), "EXAMPLES", {})
        if cases or examples:
            out.append((told(about["source"]), len(cases)))
    return out


def mine(case: str, module: str, serves: tuple[str, ...]) -> bool:
    """Whether a system's golden file computes a case."""
    if not any(fnmatch.fnmatchcase(case, pattern) for pattern in serves):
        return False
    found = find.serving(*case.rsplit("/", 1))
    return found is not None and found.__name__ == module


def told(source: str) -> str:
    """A golden's source in few words: OWNER/NAME, or what stands for it."""
    if source.startswith("no official code"):
        return "worked examples"
    repository = re.match(r"(?:https://)?(?:github\.com/)?([\w.-]+/[\w.-]+?)\s*@", source)
    return repository[1] if repository else source.split(" (")[0].split(" modules")[0]


def published(name: str) -> tuple[str, str]:
    """(first preset that says what it should give, what that is)."""
    module = importlib.import_module(f"jaxt2i.configs.{name}")
    for preset, make in module.PRESETS.items():
        said = re.search(r"^Expected: (.*)\.$", make.__doc__ or "", re.MULTILINE)
        if getattr(make, "published", False) and said:
            return preset, said[1]
    return "", ""


def ran(found: dict, file: Path) -> tuple[str, ...]:
    """A line about a whole run that was kept."""
    first, last = found["scores"][0], found["scores"][-1]
    gains = [
        f"{key.removeprefix('score/')} {first[key]:.2g} to {last[key]:.2g}"
        for key in last
        if key.startswith("score/") and key in first
    ]
    judges = [
        f"{key.removeprefix('independent_')} {line['value']:.3g}"
        + (f" (real pictures {line['real_pictures']:.3g}" if line["real_pictures"] else "")
        + (f", chance {line['chance']:.3g}" if line.get("chance") is not None else "")
        + (")" if line["real_pictures"] else "")
        for key, line in found.get("judged", {}).items()
        if key in JUDGED
    ]
    command = found["command"].partition("--config ")[2].split()
    named = f"`{command[0].removeprefix('configs/').replace('.py', '')}`"
    minutes = last["images"] / found["images_per_second"]["median"] / 60
    return (
        f"[{named}](results/{file.name})",
        f"{last['images']:,}",
        f"{minutes:.0f}",
        ", ".join(gains),
        ", ".join(judges) or "-",
    )


def runs() -> list[tuple[str, ...]]:
    """What whole runs took, and scored at their first look and at their last one."""
    files = {file: json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))}
    kept = {f: x for f, x in files.items() if {"scores", "command"} <= x.keys()}
    return [ran(found, file) for file, found in kept.items()]


def planned(found: dict, file: Path) -> tuple[str, ...]:
    """A line about one plan."""
    topology, method = found["topology"], found["method"].rpartition(".")[2]
    stem = file.stem.removeprefix(f"plan_{method}_")
    preset = stem.partition(f"_{topology.replace(':', '_')}")[0]
    cost, verdict = found.get("cost"), found["memory"]["verdict"]
    split = [f"{k}={n}" for k, n in found["mesh"].items() if k != "data" and n > 1]
    took = ("-",) * 3
    if cost:
        what = "" if cost["what"] == "the configured run" else f" ({cost['what']})"
        took = f"{cost['steps']:,}{what}", f"{cost['hours']:.1f}", f"{cost['chip_hours']:.0f}"
    return (
        f"`{method}:{preset}`",
        " ".join([topology, *split]),
        *took,
        re.sub(r" GiB,.*", " GiB", verdict),
        f"[{file.stem}](results/{file.name})",
    )


def plans() -> list[tuple[str, ...]]:
    """What published runs would take, by python -m jaxt2i.plan."""
    out = []
    for file in sorted(RESULTS.glob("plan_*.json")):
        found = json.loads(file.read_text())
        out += [planned(x, file) for x in found.get("lines", [found]) if "memory" in x]
    return out


def dearest(file: Path, most: int = 5) -> list[tuple[str, ...]]:
    """Lines about the first operations of a training step that was compiled to its end."""
    out = []
    for found in json.loads(file.read_text())["lines"]:
        system, preset = found["preset"].removeprefix("configs/").split(".py:")
        for p in found["programs"]:
            every = "" if p["every"] == 1 else f", every {p['every']} steps"
            name = f"[`{system}:{preset}`](results/{file.name}){every}: {p['cycles'] / 1e6:,.1f} M"
            for x in p["dearest"][:most]:
                where = "/".join(reports.parts(x["where"]))
                result, *more = x["result"].split(", ")
                result += f" and {len(more)} more" if more else ""
                cells = f"{x['share']:.1%}", f"{x['times']:,}", x["kind"], f"`{result}`"
                out.append((name, *cells, f"`{where}`" if where else "-"))
                name = ""
    return out


def taught(file: Path) -> tuple[str, ...]:
    """A line about official code and ours that were trained from the same weights."""
    lines = json.loads(file.read_text())["lines"]
    (found,) = (x for x in lines if x.get("what") == "verdict")
    curves = found["root mean square of differences"]
    players = [x for x in curves if x == "g" or re.fullmatch(r"d\d*", x)]

    def apart(kind: str, names: list[str]) -> str:
        worst = {name: max(curves[name].get(kind) or [0]) for name in names}
        return ", ".join(f"{name} {x:.2g}" for name, x in worst.items() if x) or "-"

    shown = [*players, "frechet"]
    return (
        f"[`{file.stem.removeprefix('parity_').removesuffix('_cpu')}`](results/{file.stem}.png)",
        f"{lines[0]['steps']:,} x {lines[0]['size']['batch']}",
        f"{max(x for name in players for x in curves[name]['first_step_apart']):.1g}",
        apart("sides_apart", shown),
        apart("roundings_apart", shown),
        apart("official_seeds_apart", shown),
    )


def row(name: str) -> tuple[str, ...]:
    """A line of the table."""
    promise = settings.preset(str(ROOT / "configs" / f"{name}.py"), "tiny").promise
    gained = ", ".join(f"{k} by {v:g}" for k, v in promise.margin.items())
    short = f"`tiny`, {promise.steps} steps: {gained}" if promise.steps else "not yet run"
    compared = sources(name)
    equal = "; ".join(f"{source} ({n})" if n else source for source, n in compared)
    step = "learns" if promise.steps else "equal" if compared else "traced"
    preset, expected = published(name)
    paper = f"`{preset}`" if preset else "-", expected or "-"
    return f"`{name}`", step, equal or "-", short, *paper


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table, in Markdown, or that there is none."""
    if not rows:
        return "None is kept yet."
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in r)} |" for r in lines)


def tables() -> dict[str, str]:
    """{the name that marks its place: a table}."""
    names = sorted(m.name for m in pkgutil.iter_modules(jaxt2i.systems.__path__) if m.ispkg)
    return {
        "systems": table(HEAD, [row(name) for name in names]),
        "runs": table(RUNS, runs()),
        "plans": table(PLANS, plans()),
        "dearest": table(
            DEAREST, [x for f in sorted(RESULTS.glob("dearest_*.json")) for x in dearest(f)]
        ),
        "parity": table(PARITY, [taught(file) for file in sorted(RESULTS.glob("parity_*.json"))]),
    }


def page(text: str) -> str:
    """The page with the tables of today between their marks."""
    for name, made in tables().items():
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = f"{before}{start}\n\n{made}\n\n{end}{after}"
    return text


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(ROOT)}")
    if parser.parse_args(argv).write:
        PAGE.write_text(page(PAGE.read_text()))
    else:
        print(*tables().values(), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
