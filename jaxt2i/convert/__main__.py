"""`python -m jaxt2i.convert METHOD --from FILE --to DIR`: published weights to jaxt2i's own files.

With a training run's work directory behind --from, writes its newest weights instead, and a
card.json that says how they were made.

Writes DIR/<net>.safetensors for every network that the file holds, and DIR/convert.json about it.
Exit code: 0, or 1 if a network is incomplete or the file cannot be used.
"""

import argparse
import importlib
import importlib.util
import json
import pkgutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from jaxt2i import encoders, systems
from jaxt2i.convert import files, rules, torch_files
from jaxt2i.encoders import pretrained
from jaxt2i.run import export as exporting

ERRORS = (
    rules.ConversionError,
    torch_files.UnsafeFileError,
    torch_files.UnreadableFileError,
    pretrained.WeightsError,
)


# Ending of the modules that hold an encoder's published names.
NAMES = "_names"


class Converted(NamedTuple):
    """One network.

    Attributes:
      variables: its tree.
      sizes: fields of its module.
      report: what became of the keys.
    """

    variables: dict
    sizes: dict
    report: rules.Report


def methods() -> dict[str, ModuleType]:
    """{name: module} of everything that has rename tables for whole files (`TABLES`)."""
    modules = {
        m.name.removesuffix(NAMES): importlib.import_module(f"jaxt2i.encoders.{m.name}")
        for m in pkgutil.iter_modules(encoders.__path__)
        if m.name.endswith(NAMES)
    }
    for found in pkgutil.iter_modules(systems.__path__):
        if importlib.util.find_spec(f"jaxt2i.systems.{found.name}.names"):
            modules[found.name] = importlib.import_module(f"jaxt2i.systems.{found.name}.names")
    return {name: module for name, module in modules.items() if hasattr(module, "TABLES")}


def select(state: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The keys that start with `prefix`, without it."""
    out = {k.removeprefix(prefix): x for k, x in state.items() if k.startswith(prefix)}
    if not out:
        shown = ", ".join(list(state)[:5])
        raise rules.ConversionError(f"no key starts with --prefix {prefix!r}; keys: {shown}, ...")
    return out


def one(module: ModuleType, net: str, state: Mapping, config: Mapping | None) -> Converted | None:
    """Converts one network, None where the file holds nothing of it."""
    table = rules.pick(module.TABLES[net], state)
    _, report = rules.to_flax(table, state, None)
    if not report.used:
        return None
    sizes, shapes = {}, None
    if net in getattr(module, "NETWORKS", {}):
        network, sizes = pretrained.build(module, net, state, config)
        shapes = pretrained.template(network) if hasattr(network, "example") else None
    variables, report = rules.to_flax(table, state, shapes)
    return Converted(variables, sizes, report)


def write(folder: Path, done: Mapping[str, Converted], about: dict) -> None:
    """Writes the networks and what is known about them."""
    for net, made in done.items():
        pretrained.save_variables(folder / f"{net}.safetensors", made.variables)
    nets = {
        net: {"sizes": made.sizes, "missing": made.report.missing, "used": len(made.report.used)}
        for net, made in done.items()
    }
    (folder / "convert.json").write_text(json.dumps(about | {"nets": nets}, indent=1) + "\n")


def unused(done: Mapping[str, Converted]) -> list[str]:
    """Keys that served no network."""
    left = [set(made.report.unused) for made in done.values()]
    return sorted(set.intersection(*left)) if left else []


def export(workdir: Path, folder: Path, half: bool) -> int:
    """Writes the newest weights of a run; returns the exit code."""
    from jaxt2i.run import open as runs

    try:
        card = exporting.export(workdir, folder, half)
    except runs.USER_ERRORS as error:
        print(f"cannot convert: {error}", file=sys.stderr)
        return 1
    print(f"wrote step {card['step']} of {workdir} to {folder}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    known = methods()
    parser = argparse.ArgumentParser(prog="python -m jaxt2i.convert", description=__doc__)
    parser.add_argument("method", choices=sorted(known))
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        required=True,
        metavar="FILE",
        help="a PyTorch state dict: .safetensors, .npz, .pth, .pt, .bin; a TensorFlow checkpoint: "
        "model.ckpt; Keras' .h5; or a work directory",
    )
    parser.add_argument("--to", type=Path, required=True, metavar="DIR")
    parser.add_argument("--net", action="append", help="only this network; may be repeated")
    parser.add_argument("--prefix", default="", help="take only keys with this prefix, remove it")
    parser.add_argument(
        "--allow-missing", action="store_true", help="write networks of which the file lacks arrays"
    )
    parser.add_argument("--half", action="store_true", help="of a work directory: store float16")
    args = parser.parse_args(argv)
    if args.source.is_dir():
        return export(args.source, args.to, args.half)
    module = known[args.method]
    unknown = set(args.net or ()) - set(module.TABLES)
    if unknown:
        parser.error(f"--net {', '.join(unknown)}: {args.method} has {', '.join(module.TABLES)}")
    try:
        state = select(files.read(args.source), args.prefix)
        file = args.source.parent / "config.json"
        config = json.loads(file.read_text()) if file.is_file() else None
        nets = args.net or list(module.TABLES)
        tried = {net: one(module, net, state, config) for net in nets}
        done = {net: made for net, made in tried.items() if made}
        if not done:
            raise rules.ConversionError(
                f"{args.source}: none of its {len(state)} keys belongs to {', '.join(nets)}; the "
                f"first are {', '.join(list(state)[:5])}. Is there a prefix for --prefix?"
            )
    except ERRORS as error:
        print(f"cannot convert: {error}", file=sys.stderr)
        return 1
    left = unused(done)
    for net, made in done.items():
        made.report.unused = left
        print(f"{net}: {made.sizes}\n{made.report}\n")
    missing = any(made.report.missing for made in done.values())
    if missing and not args.allow_missing:
        print("arrays are missing: nothing written (--allow-missing writes what there is)")
        return 1
    # Of a checkpoint this is the index, which has a hash of every array.
    source = files.find(args.source)
    about = {
        "method": args.method,
        "source": source.name,
        "sha256": pretrained.sha256(source),
        "prefix": args.prefix,
        "unused": left,
    }
    write(args.to, done, about)
    print(f"wrote {', '.join(f'{net}.safetensors' for net in done)} to {args.to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
