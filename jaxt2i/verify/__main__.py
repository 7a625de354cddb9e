"""`python -m jaxt2i.verify [NAME...]`: checks networks against the goldens.

An array that float32 gets wrong is computed again in float64. It counts as a kink, not as a
failure, where float64 agrees with the reference and float32 misses in few entries. References are
float32, too: float64 agrees with one where it is no further off than the official code's own
float64, as far as the folder records that.

Exit code: 0 if everything that ran passed or was a kink, 1 if anything failed, 2 if nothing ran.
"""

import argparse
import dataclasses
import fnmatch
import json
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
import rich.box
from rich.console import Console
from rich.table import Table

from jaxt2i.run import machine
from jaxt2i.verify.check import PRECISIONS, STATUSES, TRAINING, Line, check
from jaxt2i.verify.find import runner, training_products
from jaxt2i.verify.golden import Golden, GoldenError

GOLDENS = Path(__file__).parents[2] / "tests" / "goldens"


def folders(root: Path) -> dict[str, Path]:
    """{name: folder} of every folder under `root` that has a manifest, nested ones included."""
    if not root.is_dir():
        raise GoldenError(
            f"{root}: no such folder; they are tests/goldens of the repository, which are not "
            "installed: give --goldens DIR"
        )
    manifests = sorted(root.rglob("manifest.json"))
    # A folder may itself be given: it is then known by its own name.
    return {
        (str(m.parent.relative_to(root)) if m.parent != root else root.resolve().name): m.parent
        for m in manifests
    }


def wanted(name: str, patterns: Iterable[str]) -> bool:
    """Whether "folder/case" is asked for: by a leading part of its path, or by a pattern."""
    return any(
        name == p or name.startswith(f"{p.rstrip('/')}/") or fnmatch.fnmatchcase(name, p)
        for p in patterns
    )


def lines(
    root: Path, patterns: list[str], precision: str = TRAINING, wide: bool = False
) -> Iterator[Line]:
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
                how = training_products(folder, name) if precision == TRAINING else precision
                for line in check(golden, label, name, run, how, wide):
                    yield dataclasses.replace(line, products=how)


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
        style = {"FAIL": "red", "kink": "yellow", "pass": "green"}.get(line.status)
        numbers = [number(x) for x in (r.error, r.relative, r.limit)] if r else [""] * 3
        said = f"{line.status}: {line.note}" if line.note else line.status
        table.add_row(line.case, line.output, *numbers, f"[{style}]{said}[/]" if style else said)
    console.print(table)


def worst(found: list[Line]) -> list[Line]:
    """Of each case: what failed, or the array that came nearest to its limit."""
    out = []
    for case in dict.fromkeys(line.case for line in found):
        mine = [line for line in found if line.case == case]
        failed = [line for line in mine if line.status in ("FAIL", "kink")]
        out += failed or [max(mine, key=_strain)]
    return out


def _strain(line: Line) -> float:
    r = line.result
    return r.error / r.limit if r and r.limit and not math.isnan(r.error) else 0.0


def environment(precision: str, wide: bool) -> dict[str, str]:
    """Where and how the numbers were computed."""
    device = jax.devices()[0]
    return {
        "backend": device.platform,
        "device": device.device_kind,
        "jax": jax.__version__,
        "dtype": "float64" if wide else "float32",
        "matmul_precision": precision,
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
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=TRAINING,
        help="of float32 products: as a system's published presets train (the default), as the "
        "platform multiplies, or exact",
    )
    parser.add_argument(
        "--float64",
        action="store_true",
        help="replay every program in float64; arrays then have to be within 1e-5 of their peak; "
        "what the reference's own float32 is off beyond that counts as a kink",
    )
    parser.add_argument("--all", action="store_true", help="print every array, not one per case")
    args = parser.parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        known = list(folders(args.goldens))
        machine.say()
        found = list(lines(args.goldens, args.names, args.precision, args.float64))
    except GoldenError as error:
        console.print(f"cannot read the goldens: {error}", markup=False, soft_wrap=True)
        return 1
    show(found, console, args.all)
    products = ", ".join(sorted({line.products for line in found} - {""}))
    about = environment(products, args.float64)
    count = {s: sum(x.status == s for x in found) for s in STATUSES}
    cases = len({line.case for line in found if line.status != "no runner"})
    said = [
        f"{cases} cases, {count['pass']} arrays passed, {count['kink']} kinks, "
        f"{count['FAIL']} failed, "
        f"{count['no runner']} cases without a runner; {about['backend']} ({about['device']}), "
        f"jax {about['jax']}, computed in "
        + ("float64" if args.float64 else f"float32, products at {products!r} precision")
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
        row["products"] = x.products
        row["seconds"] = round(x.seconds, 3)
        if x.result:
            row |= {"error": x.result.error, "relative": x.result.relative}
            row |= {"limit": x.result.limit, "wrong": x.result.wrong, "size": x.result.size}
        if x.wide:
            row |= {"float64_error": x.wide.error, "float64_limit": x.wide.limit}
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
