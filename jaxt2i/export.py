"""python -m jaxt2i.export RUN --to DIR [--step best] [--dtype bfloat16] [--push USER/NAME]

Writes a run as a folder that travels: the weights that drawing reads (safetensors), configuration,
tokenizer and a model card. `jaxt2i.load(DIR)`, or `python -m jaxt2i.sample --workdir DIR`, needs
nothing else and draws the same bytes as the run.

What is written
  (nothing said)             what is needed to draw
  --continue                 a work directory with one checkpoint and its optimisers: the command of
                             the training goes on from it exactly
  --format torch             besides, torch/NET.safetensors with the names of the official PyTorch
                             code, of systems that have one
  --format stablehlo         besides, stablehlo/: the sampler as a program that jax.export reads
                             without this package, its weights, and an example of ten lines

config.init_from takes what is needed to draw as well as what can be continued. --dtype bfloat16,
float16 or int8 stores smaller weights, and says what that changes. --push uploads the folder to the
Hugging Face hub, from where jaxt2i.load("hf://USER/NAME") draws.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

import numpy as np
from etils import epath
from safetensors.numpy import save

from jaxt2i import calling, places
from jaxt2i.config import ConfigError, nearest
from jaxt2i.convert import back
from jaxt2i.convert.rules import ConversionError
from jaxt2i.encoders import pretrained
from jaxt2i.run import exports, facts, log, portable, program, settings, trouble
from jaxt2i.run import open as runs

FORMATS = ("torch", "stablehlo")


def export(
    run: epath.PathLike,
    to: epath.PathLike,
    *,
    step: str | int = "newest",
    dtype: str = "float32",
    formats: Sequence[str] = (),
    continued: bool = False,
    overwrite: bool = False,
) -> epath.Path:
    """Writes a run as a folder that travels.

    Args:
      run: its work directory, or an export of it.
      to: an empty place.
      step: "newest", "best" or a number.
      dtype: "float32", "bfloat16", "float16" or "int8".
      formats: "torch", "stablehlo": what is written besides.
      continued: a training that can be continued, instead of what is needed to draw.
      overwrite: an export that is there is replaced.

    Returns:
      The folder.

    Raises:
      ConfigError: for a run without a usable checkpoint, settings that do not go together, and a
        place that cannot be written to.
    """
    if continued and (formats or dtype != "float32"):
        raise ConfigError(
            "--continue keeps a checkpoint as it is: leave --format and --dtype out, or export to "
            "draw with besides"
        )
    if continued:
        return portable.to_continue(run, to, step=step, overwrite=overwrite)
    formats = (formats,) if isinstance(formats, str) else formats
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(f"--format {name}; {nearest(name, FORMATS)}")
    place = portable.to_draw(run, to, step=step, dtype=dtype, overwrite=overwrite)
    if "torch" in formats and (left := write_torch(place)):
        log.say(f"without torch/, having no names of official code: {', '.join(left)}")
    if "stablehlo" in formats:
        write_program(place)
    return place


def write_torch(place: epath.Path) -> list[str]:
    """Writes torch/NET.safetensors for the networks of an export that official code has names for.

    Returns:
      The other networks.

    Raises:
      ConfigError: where it has none for any of them.
      ConversionError: where it lacks names for a part of a network.
    """
    config = settings.read_config(place)
    method = runs.open_run(config, facts.read(place), place).method
    names, left = names_beside(config.method), []
    for net in exports.read(place)["nets"]:
        tables = back.tables_of(net, method.nets[net], names, pretrained.NAMES.values())
        if not tables:
            left.append(net)
            continue
        variables = pretrained.load_variables(place / f"{net}.safetensors")
        arrays = back.to_torch(tables, variables)
        whole = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
        file = place / "torch" / f"{net}.safetensors"
        places.make_folder(file.parent)
        file.write_bytes(save(whole, metadata={"format": "pt"}))
    if not (place / "torch").is_dir():
        raise ConfigError(
            f"--format torch: {config.method} has no official PyTorch code whose names its "
            "networks could have; leave it out"
        )
    return left


def names_beside(method: str) -> ModuleType | None:
    """The rename tables of a system, None where it has none.

    Args:
      method: its module; only a folder can have some beside it.
    """
    module = f"{method}.names"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None


def write_program(place: epath.Path) -> None:
    """Writes stablehlo/: the sampler of an export as a program, see `jaxt2i.run.program`.

    Raises:
      ConfigError: where it draws nothing.
    """
    run, state, frozen, _ = portable.opened(place, "newest")
    if run.method.sampler is None:
        raise ConfigError(f"--format stablehlo: {run.config.method} draws nothing")
    places.make_folder(place / "stablehlo")
    program.write(run, state, frozen, place / "stablehlo")


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m jaxt2i.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("run", metavar="RUN", help="a work directory, or an export")
    p.add_argument("--to", required=True, metavar="DIR", help="an empty place")
    p.add_argument("--step", default="newest", help="newest (the default), best, or a number")
    p.add_argument("--dtype", default="float32", choices=list(portable.DTYPES), help="of weights")
    p.add_argument("--format", nargs="+", default=[], choices=FORMATS, help="write besides")
    p.add_argument("--continue", dest="continued", action="store_true", help="with optimisers")
    p.add_argument("--overwrite", action="store_true", help="replace an export that is there")
    p.add_argument("--push", metavar="USER/NAME", help="upload to the Hugging Face hub")
    p.add_argument("--private", action="store_true", help="of --push: nobody else may see it")
    args = p.parse_args(argv)
    if args.private and not args.push:
        p.error("--private is of --push USER/NAME, which is not given")
    return args


def main(argv: Sequence[str]) -> None:
    """Exports what the command line asks for."""
    args = arguments(argv)
    runs.prepare_jax()
    place = export(
        args.run,
        args.to,
        step=args.step,
        dtype=args.dtype,
        formats=args.format,
        continued=args.continued,
        overwrite=args.overwrite,
    )
    about = exports.read(place)
    nets = f" ({', '.join(about['nets'])})" if about else ", to be continued"
    log.say(
        f"written: {place}{nets}", *([about["changed"]] if about and "changed" in about else [])
    )
    if args.push:
        log.say(f"uploaded: {portable.push(place, args.push, args.private)}")


calling.as_function(__name__, export)

if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (*runs.USER_ERRORS, ConversionError, *trouble.ERRORS) as error:
        log.fail(trouble.line(error))
