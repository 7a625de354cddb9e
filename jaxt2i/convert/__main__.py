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
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import NamedTuple

from etils import epath
from flax.traverse_util import flatten_dict

from jaxt2i import encoders, places, systems
from jaxt2i.config import ConfigError
from jaxt2i.convert import choice, files, rules, torch_files
from jaxt2i.encoders import pretrained
from jaxt2i.run import export as exporting
from jaxt2i.run import trouble

ERRORS = (
    rules.ConversionError,
    torch_files.UnsafeFileError,
    torch_files.UnreadableFileError,
    pretrained.WeightsError,
    ConfigError,
    OSError,
)


# Ending of the modules that hold an encoder's published names.
NAMES = "_names"


class Converted(NamedTuple):
    """One network.

    Attributes:
      variables: its tree.
      sizes: fields of its module.
      report: what became of the keys.
      names: {name in the network: key} of what was taken.
    """

    variables: dict
    sizes: dict
    report: rules.Report
    names: dict


def methods() -> dict[str, ModuleType]:
    """{name: module} of everything that has rename tables for whole files (`TABLES`)."""
    modules = {
        m.name.removesuffix(NAMES): importlib.import_module(f"jaxt2i.encoders.{m.name}")
        for m in pkgutil.iter_modules(encoders.__path__)
        if m.name.endswith(NAMES)
    }
    for parent in (encoders, systems):
        for found in pkgutil.iter_modules(parent.__path__):
            name = f"{parent.__name__}.{found.name}.names"
            if found.ispkg and importlib.util.find_spec(name):
                modules[found.name] = importlib.import_module(name)
    return {name: module for name, module in modules.items() if hasattr(module, "TABLES")}


def one(module: ModuleType, net: str, state: Mapping, config: Mapping | None) -> Converted | None:
    """Converts one network, None where the file holds nothing of it."""
    table = rules.pick(module.TABLES[net], state)
    _, report = rules.to_flax(table, state, None)
    if not report.used:
        return None
    sizes, shapes = {}, None
    if net in getattr(module, "NETWORKS", {}):
        try:
            network, sizes = pretrained.build(module, net, state, config)
        except (LookupError, TypeError, ArithmeticError) as error:
            raise rules.ConversionError(
                f"{net}: {len(report.used)} arrays bear its names, but not all that tell its size "
                f"({type(error).__name__}: {error}); is it another network, or part of one? --net "
                "leaves it out"
            ) from error
        shapes = pretrained.template(network) if hasattr(network, "example") else None
    variables, report = rules.to_flax(table, state, shapes)
    names = choice.network_names(table, state, report.used)
    return Converted(variables, sizes, report, names)


def write(folder: epath.Path, done: Mapping[str, Converted], about: dict) -> None:
    """Writes the networks and what is known about them."""
    for net, made in done.items():
        pretrained.save_variables(folder / f"{net}.safetensors", made.variables)
    nets = {
        net: {"sizes": made.sizes, "missing": made.report.missing, "used": len(made.report.used)}
        for net, made in done.items()
    }
    (folder / "convert.json").write_text(json.dumps(about | {"nets": nets}, indent=1) + "\n")


def unused(done: Mapping[str, Converted], left: Sequence[str]) -> list[str]:
    """Keys that served no network: of what was chosen, then of the rest of the file."""
    each = [set(made.report.unused) for made in done.values()]
    return [*sorted(set.intersection(*each)), *left]


def config_beside(source: epath.Path) -> dict | None:
    """Content of Hugging Face's config.json beside a file of weights; None where there is none.

    Raises:
      ConversionError: where it is not JSON.
    """
    file = source.parent / "config.json"
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise rules.ConversionError(
            f"{file}: beside the weights, but not readable JSON ({error}); mend it or move it away"
        ) from error
    return found if isinstance(found, dict) else None


def told(
    done: Mapping[str, Converted],
    chosen: choice.Chosen,
    found: torch_files.Found,
    notes: Mapping[str, str],
) -> list[str]:
    """Prints what became of every key and which copy was taken; returns the unused keys."""
    left = unused(done, chosen.left)
    whole = [f"{chosen.prefix}{name}" for name in left[: len(left) - len(chosen.left)]]
    for net, made in done.items():
        made.report.unused = left
        print(f"{net}: {made.sizes}\n{made.report}")
        for line in choice.twins(made.names, chosen, [*whole, *chosen.left]):
            print(line)
        print()
    for net in done:
        if net in notes:
            print(notes[net])
    if found.optimiser:
        print(f"left aside: {len(found.optimiser)} arrays of optimisers' state")
    return left


def refused(args: argparse.Namespace, done: Mapping[str, Converted]) -> str:
    """Why nothing may be written, in words; "" where all is well."""
    if not args.allow_missing and any(made.report.missing for made in done.values()):
        return "arrays are missing: nothing written (--allow-missing writes what there is)"
    bad = {}
    for net, made in done.items():
        flat = flatten_dict(made.variables, sep="/")
        bad |= {f"{net}: {name}": len(flat) for name in choice.not_finite(flat)}
    if bad and not args.allow_nan:
        return (
            f"{len(bad)} arrays hold NaN or infinity, such as {next(iter(bad))}: the training had "
            "come apart, so nothing was written; take an earlier checkpoint (--allow-nan writes it "
            "all the same)"
        )
    if bad:
        print(f"{len(bad)} arrays hold NaN or infinity, such as {next(iter(bad))}")
    return ""


def export(workdir: epath.Path, folder: epath.Path, half: bool) -> int:
    """Writes the newest weights of a run; returns the exit code."""
    from jaxt2i.run import open as runs

    try:
        card = exporting.export(workdir, folder, half)
    except (*runs.USER_ERRORS, OSError) as error:
        print(f"cannot convert: {trouble.line(error)}", file=sys.stderr)
        return 1
    print(f"wrote step {card['step']} of {workdir} to {folder}")
    return 0


def source_of(source: epath.Path, parts: Mapping[str, epath.Path]) -> dict:
    """Name and hash of what is converted; of a folder a hash of each file."""
    if parts:
        hashes = {f"{x.parent.name}/{x.name}": pretrained.sha256(x) for x in parts.values()}
        return {"source": source.name, "sha256": hashes}
    # Of a checkpoint this is the index, which has a hash of every array.
    file = files.find(source)
    return {"source": file.name, "sha256": pretrained.sha256(file)}


def arguments(argv: Sequence[str] | None, known: Mapping[str, ModuleType]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m jaxt2i.convert", description=__doc__)
    parser.add_argument("method", choices=sorted(known))
    parser.add_argument(
        "--from",
        dest="source",
        type=epath.Path,
        required=True,
        metavar="FILE",
        help="a PyTorch state dict: .safetensors, .npz, .pth, .pt, .bin; a TensorFlow checkpoint: "
        "model.ckpt; Keras' .h5; darknet's .weights; a folder of diffusers; or a work directory",
    )
    parser.add_argument("--to", type=epath.Path, required=True, metavar="DIR")
    parser.add_argument("--net", action="append", help="only this network; may be repeated")
    parser.add_argument("--prefix", default="", help="take only keys with this prefix, remove it")
    parser.add_argument(
        "--allow-missing", action="store_true", help="write networks of which the file lacks arrays"
    )
    parser.add_argument(
        "--allow-nan", action="store_true", help="write arrays that hold NaN or infinity"
    )
    parser.add_argument("--half", action="store_true", help="of a work directory: store float16")
    args = parser.parse_args(argv)
    try:
        places.of(args.source, "--from")
        places.check_writable(places.of(args.to, "--to"), "--to")
    except ConfigError as error:
        parser.error(str(error))
    if args.half and not args.source.is_dir():
        parser.error("--half is for a work directory behind --from; files keep their precision")
    if args.to.exists() and not args.to.is_dir():
        parser.error(f"--to {args.to}: a file of that name is there; give a folder")
    unknown = set(args.net or ()) - set(known[args.method].TABLES)
    if unknown:
        tables = ", ".join(known[args.method].TABLES)
        parser.error(f"--net {', '.join(sorted(unknown))}: {args.method} has {tables}")
    return args


def converted(
    args: argparse.Namespace, module: ModuleType, state: Mapping, parts: Mapping
) -> dict[str, Converted]:
    """{net: what was made of it} of the networks that the file, or the folder's parts, hold.

    Raises:
      ConversionError: where there is none of them.
    """
    nets = args.net or list(module.TABLES)
    configs = {net: config_beside(parts.get(net, args.source)) for net in nets}
    tried = {net: one(module, net, state, configs[net]) for net in nets}
    done = {net: made for net, made in tried.items() if made}
    if not done:
        raise rules.ConversionError(
            f"{args.source}: none of its {len(state)} keys belongs to {', '.join(nets)}; the "
            f"first are {', '.join(list(state)[:5])}, and keys start with "
            f"{', '.join(choice.heads(state))}. Is there a prefix for --prefix?"
        )
    return done


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    known = methods()
    args = arguments(argv, known)
    module = known[args.method]
    parts = files.parts(args.source, getattr(module, "FOLDERS", {}))
    if args.source.is_dir() and not parts:
        return export(args.source, args.to, args.half)
    try:
        read = getattr(module, "read_all", files.read_all)
        found = files.read_parts(parts) if parts else read(args.source)
        chosen = choice.select(found, args.prefix)
        done = converted(args, module, chosen.state, parts)
        left = told(done, chosen, found, getattr(module, "NOTES", {}))
        if why := refused(args, done):
            print(why)
            return 1
        about = {
            "method": args.method,
            **source_of(args.source, parts),
            "prefix": args.prefix,
            "unused": left,
            "optimiser": len(found.optimiser),
        }
        write(args.to, done, about)
    except ERRORS as error:
        print(f"cannot convert: {trouble.line(error)}", file=sys.stderr)
        return 1
    print(f"wrote {', '.join(f'{net}.safetensors' for net in done)} to {args.to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
