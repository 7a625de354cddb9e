"""`python -m jaxt2i.verify [NAME...]`: checks networks against the goldens.

Exit code: 0 if everything that ran passed, 1 if anything failed, 2 if nothing ran.
"""

import argparse
import dataclasses
import fnmatch
import importlib
import json
import math
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import jax
import rich.box
from rich.console import Console
from rich.table import Table

from jaxt2i.verify.golden import (
    Case,
    Comparison,
    Golden,
    GoldenError,
    compare,
    compare_json,
    subsample,
)

GOLDENS = Path(__file__).parents[2] / "tests" / "goldens"
# (pattern of "folder/case", its module), the first match counts. What is not here goes to the
# goldens.py of the system that is named like the first part of the folder, if there is one.
RUNNERS = (
    ("clip_hf/*", "encoders.clip_goldens"),
    ("galip/clip_*", "encoders.clip_goldens"),
    ("galip/text_encoder", "encoders.clip_goldens"),
    ("galip/image_encoder", "encoders.clip_goldens"),
    ("dino_vits16/*", "encoders.dino_goldens"),
    ("inception_fid/*", "encoders.inception_goldens"),
    ("lpips/*", "encoders.lpips_goldens"),
    ("xlm_r/*", "encoders.xlm_r_goldens"),
    ("df_gan/text_encoder", "systems.damsm.goldens"),
    ("souza_single_stage/*", "systems.souza.goldens"),
    ("metrics/resize", "metrics.resize_goldens"),
    ("metrics/*", "metrics.goldens"),
)
STATUSES = ("pass", "FAIL", "no runner")
Runner = Callable[[Golden, Case], dict]


@dataclasses.dataclass
class Line:
    """One compared array, or one case that could not be compared.

    Attributes:
      case: "folder/case".
      output: name of the array, "" where the whole case is meant.
      status: "pass", "FAIL" or "no runner".
      result: the comparison, where there was one.
      note: what is wrong, in words.
      seconds: time of the whole case, on its first line.
    """

    case: str
    output: str
    status: str
    result: Comparison | None = None
    note: str = ""
    seconds: float = 0.0


def folders(root: Path) -> dict[str, Path]:
    """{name: folder} of every folder under `root` that has a manifest, nested ones included."""
    if not root.is_dir():
        raise GoldenError(f"{root}: no such folder; give --goldens DIR")
    manifests = sorted(root.rglob("manifest.json"))
    # A folder may itself be given: it is then known by its own name.
    return {
        (str(m.parent.relative_to(root)) if m.parent != root else root.resolve().name): m.parent
        for m in manifests
    }


def runner(folder: str, case: str) -> Runner | None:
    """The function that computes a case, None where nobody wrote one."""
    name = f"{folder}/{case}"
    module = next((m for pattern, m in RUNNERS if fnmatch.fnmatchcase(name, pattern)), None)
    module = module or f"systems.{folder.partition('/')[0]}.goldens"
    module = f"jaxt2i.{module}"
    try:
        cases = importlib.import_module(module).CASES
    except ModuleNotFoundError as error:
        if not module.startswith(error.name or "?"):
            raise
        return None
    return next((run for pattern, run in cases.items() if fnmatch.fnmatchcase(case, pattern)), None)


def wanted(name: str, patterns: Iterable[str]) -> bool:
    """Whether "folder/case" is asked for: by a leading part of its path, or by a pattern."""
    return any(
        name == p or name.startswith(f"{p.rstrip('/')}/") or fnmatch.fnmatchcase(name, p)
        for p in patterns
    )


def check(golden: Golden, label: str, name: str, run: Runner) -> Iterator[Line]:
    """Runs one case and compares everything the folder has of it.

    Large outputs are stored with strides; a runner may give them whole.
    """
    start = time.perf_counter()
    try:
        case = golden.case(name)
        with jax.default_matmul_precision("highest"):
            made = run(golden, case)
    except GoldenError as error:
        yield Line(label, "", "FAIL", note=str(error))
        return
    except Exception as error:
        traceback.print_exc()
        said = f"the runner stopped: {type(error).__name__}: {error}"
        yield Line(label, "", "FAIL", note=said.splitlines()[0])
        return
    seconds = time.perf_counter() - start
    for output, limit in case.tolerance.items():
        if output not in made:
            yield Line(label, output, "FAIL", note="the runner did not make it", seconds=seconds)
            continue
        if case.data is not None:
            result = compare_json(case.data, made[output], limit)
        else:
            stored = case.outputs[output]
            result = compare(stored, subsample(made[output], stored.shape), limit)
        status = "pass" if result.passed else "FAIL"
        yield Line(label, output, status, result, result.note, seconds)
        seconds = 0.0


def lines(root: Path, patterns: list[str]) -> Iterator[Line]:
    """Everything that is asked for, case by case; a folder that cannot be read is a failure."""
    for folder, path in folders(root).items():
        try:
            golden = Golden(path)
        except GoldenError as error:
            yield Line(folder, "", "FAIL", note=str(error))
            continue
        for name in golden.cases:
            label = f"{folder}/{name}"
            if patterns and not wanted(label, patterns):
                continue
            run = runner(folder, name)
            if run is None:
                yield Line(label, "", "no runner")
            else:
                yield from check(golden, label, name, run)


def number(x: float) -> str:
    """Three digits of a float; nothing for NaN."""
    return "" if math.isnan(x) else f"{x:.2e}"


def show(found: list[Line], console: Console, everything: bool) -> None:
    """Prints the table: failures, and all the rest or each case's worst array."""
    table = Table(box=rich.box.SIMPLE if console.is_terminal else None, pad_edge=False)
    for title in ("case", "output", "max error", "of peak", "allowed", "result"):
        right = title in ("max error", "of peak", "allowed")
        table.add_column(title, justify="right" if right else "left", overflow="fold")
    for line in found if everything else worst(found):
        r = line.result
        style = {"FAIL": "red", "pass": "green"}.get(line.status)
        numbers = [number(x) for x in (r.error, r.relative, r.limit)] if r else [""] * 3
        said = f"{line.status}: {line.note}" if line.note else line.status
        table.add_row(line.case, line.output, *numbers, f"[{style}]{said}[/]" if style else said)
    console.print(table)


def worst(found: list[Line]) -> list[Line]:
    """Of each case: what failed, or the array that came nearest to its limit."""
    out = []
    for case in dict.fromkeys(line.case for line in found):
        mine = [line for line in found if line.case == case]
        failed = [line for line in mine if line.status == "FAIL"]
        out += failed or [max(mine, key=_strain)]
    return out


def _strain(line: Line) -> float:
    r = line.result
    return r.error / r.limit if r and r.limit and not math.isnan(r.error) else 0.0


def environment() -> dict[str, str]:
    """Where the numbers were computed."""
    device = jax.devices()[0]
    return {
        "backend": device.platform,
        "device": device.device_kind,
        "jax": jax.__version__,
        "matmul_precision": "highest",
    }


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m jaxt2i.verify", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="stylegan_t, clip_hf/laion_gelu, "
        "galip/clip_tiny, a pattern such as '*/ops_*'; default: all",
    )
    parser.add_argument("--goldens", type=Path, default=GOLDENS, metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results there")
    parser.add_argument("--all", action="store_true", help="print every array, not one per case")
    args = parser.parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        known = list(folders(args.goldens))
        found = list(lines(args.goldens, args.names))
    except GoldenError as error:
        console.print(f"cannot read the goldens: {error}", markup=False, soft_wrap=True)
        return 1
    show(found, console, args.all)
    about, count = environment(), {s: sum(x.status == s for x in found) for s in STATUSES}
    cases = len({line.case for line in found if line.status != "no runner"})
    said = [
        f"{cases} cases, {count['pass']} arrays passed, {count['FAIL']} failed, "
        f"{count['no runner']} cases without a runner; {about['backend']} ({about['device']}), "
        f"jax {about['jax']}, float32 products at 'highest'"
    ]
    strange = [n for n in args.names if not any(wanted(line.case, [n]) for line in found)]
    idle = bool(strange) or not cases
    if idle:
        said.append(
            f"Nothing with a runner is called {', '.join(strange or args.names) or 'anything'}. "
            f"Folders of {args.goldens}: {', '.join(known) or 'none'}"
        )
    for line in said:
        console.print(line, markup=False, soft_wrap=True)
    if args.json:
        write_json(args.json, about, count, found)
    return 1 if count["FAIL"] else 2 if idle else 0


def write_json(path: Path, about: dict, count: dict, found: list[Line]) -> None:
    """Writes all results."""
    results = []
    for x in found:
        row = {"case": x.case, "output": x.output, "status": x.status, "note": x.note}
        row["seconds"] = round(x.seconds, 3)
        if x.result:
            row |= {"error": x.result.error, "relative": x.result.relative}
            row["limit"] = x.result.limit
        results.append(row)
    content = {"environment": about, "counts": count, "results": results}
    path.write_text(json.dumps(_finite(content), indent=1) + "\n")


def _finite(tree):
    """JSON knows no NaN: None stands for it."""
    if isinstance(tree, dict):
        return {k: _finite(v) for k, v in tree.items()}
    if isinstance(tree, list):
        return [_finite(v) for v in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


if __name__ == "__main__":
    sys.exit(main())
