"""python -m jaxt2i.sample --workdir RUN --prompts "a red daisy" "a blue owl"

Draws pictures from the newest checkpoint of a run, or, with --config FILE[:preset] --weights DIR,
from converted weights: PNG files, a captioned grid, metadata.jsonl with a line for each picture,
and drawn.json with what they have in common. A picture depends on its conditions, its controls and
its seed alone, not on what else is drawn with it. The same command continues a folder that was left
half done. Several processes, started as those of a training, share the pictures; each writes into a
folder of its own in that folder.

What is drawn; several of these are laid over each other, the later wins:
  --from-split val:0:100                    examples of the run's data
  --conditions FILE.jsonl                   rows: {"prompt", "objects", "image", "seed", ...}; also
                                            a metadata.jsonl, whose pictures are drawn again
  --prompts A B, --prompts-file FILE        captions
  --suite geneval                           a prompt suite: geneval, parti, t2i_compbench, dpg, or a
                                            file of prompts, with as many pictures of each as its
                                            authors draw; `evaluate --suite` scores them by skill
  --edit PHOTO --region MASK.png|x,y,w,h|all|none
                                            pictures that --prompts edits, and where
How:
  --set psi=0.7                             the method's controls; --describe lists them
  --sweep tau=0,200,600                     values of a control side by side
  --size 512, --size 768x512                another size than training's, where the method can
  --best-of 8 --judge pick_score            of eight pictures keep the one that a network likes best
  --after RUN [RUN ...]                     earlier systems fill what a row lacks: its layout,
                                            the masks of its objects

Latent tools, for every method that has a latent:
  --prompts A B --num 4                     rows share a prompt, columns share a latent
  --interpolate A B                         from one caption to another at a fixed latent
  --interpolate-z 1 2 --prompts A           from the latent of seed 1 to that of seed 2
  --interpolate A B --interpolate-z 1 2     both: captions down, latents across

Methods that draw in stages and look at words also show how:
  --stages                                  the pictures of the earlier stages
  --attention                               each word's attention over its picture
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from jaxt2i import api, places
from jaxt2i.config import ConfigError
from jaxt2i.data import conditions
from jaxt2i.data.conditions import Row
from jaxt2i.data.decoding import encoding_of
from jaxt2i.data.rows import MAX_SEED
from jaxt2i.data.schema import DataError
from jaxt2i.evaluation import suites
from jaxt2i.run import edits, folder, log, moved, settings, trouble
from jaxt2i.run import open as runs

# Pictures of a walk when --num does not say.
WALK = 8
VIEWS = ("stages", "attention", "masks")


def seed_of(text: str) -> int:
    """A seed of the command line."""
    if not text.isascii() or not text.isdigit() or int(text) > MAX_SEED:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no seed; expected a whole number from 0 to {MAX_SEED}"
        )
    return int(text)


def control_of(text: str) -> tuple[str, str]:
    """A NAME=VALUE of --set."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r}: expected CONTROL=VALUE, such as psi=0.7")
    return name, value


def sweep_of(text: str) -> tuple[str, list[str]]:
    """A CONTROL=VALUE,VALUE of --sweep."""
    name, values = control_of(text)
    found = [value.strip() for value in values.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r}: expected values, such as tau=0,200,600")
    return name, found


def file_of(text: str) -> epath.Path:
    """A file of the command line, here or in a store."""
    try:
        return places.of(text, "the file")
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def text_of(text: str) -> str:
    """A caption of the command line."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not UTF-8, as the terminal gave it; write it in UTF-8, or give a file"
        ) from None
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a text that is not empty")
    return text


def add_what(p: argparse.ArgumentParser) -> None:
    """Options of what is drawn."""
    what = p.add_argument_group("what is drawn")
    what.add_argument("--from-split", metavar="SPLIT[:A[:B]]", help="rows of the run's own data")
    what.add_argument("--edit", nargs="+", type=file_of, metavar="PHOTO", help="pictures to edit")
    what.add_argument(
        "--region",
        nargs="+",
        default=[],
        type=text_of,
        metavar="REGION",
        help="where edits may act: a mask's file, x,y,w,h, all (the default) or none",
    )
    what.add_argument("--conditions", type=file_of, metavar="FILE", help=".jsonl or .json of rows")
    text = what.add_mutually_exclusive_group()
    text.add_argument("--prompts", nargs="+", type=text_of, metavar="TEXT", help="captions")
    text.add_argument("--prompts-file", type=file_of, help="a text file, one caption a line")
    text.add_argument("--suite", metavar="NAME|FILE|DIR", help="the prompts of a suite")
    text.add_argument(
        "--interpolate",
        nargs=2,
        type=text_of,
        metavar="TEXT",
        help="walk from one caption to another",
    )
    what.add_argument(
        "--interpolate-z", nargs=2, type=seed_of, metavar="SEED", help="walk from latent to latent"
    )
    what.add_argument("--z", type=file_of, metavar="FILE.npy", help="latents in place of seeds")


def add_how(p: argparse.ArgumentParser) -> None:
    """Options of how it is drawn, and where it is written."""
    p.add_argument("--seed", type=seed_of, default=0, help="seed of the first picture of a row")
    p.add_argument(
        "--num", type=int, default=0, help="pictures a row (0: one), or of a walk (0: eight)"
    )
    p.add_argument(
        *("--set", "-s"),
        action="extend",
        nargs="+",
        default=[],
        type=control_of,
        metavar="CONTROL=VALUE",
        help="controls of the method, such as psi=0.7",
    )
    p.add_argument(
        "--sweep", type=sweep_of, metavar="CONTROL=VALUE,VALUE", help="values side by side"
    )
    p.add_argument("--size", metavar="N|WIDTHxHEIGHT", help="of the pictures; N: the shorter side")
    p.add_argument(
        "--after",
        type=epath.Path,
        nargs="+",
        default=[],
        metavar="RUN",
        help="earlier runs fill rows",
    )
    p.add_argument(
        *("--best-of",),
        type=int,
        default=0,
        metavar="N",
        help="draw N for each picture and keep the one that --judge likes best",
    )
    p.add_argument("--judge", default="", help="clip_similarity, pick_score, hps_v21 or mini_clip")
    p.add_argument("--chunk", type=int, default=0, help="rows a device at once; 0: as suits it")
    p.add_argument("--grid", action="store_true", help="only the grid, no single files")
    p.add_argument("--stages", action="store_true", help="also every stage's pictures")
    p.add_argument("--attention", action="store_true", help="also where each word is looked for")
    p.add_argument("--masks", action="store_true", help="also where each object is drawn")
    weights = p.add_mutually_exclusive_group()
    weights.add_argument("--ema", action="store_true", help="averaged weights (the default)")
    weights.add_argument("--raw", action="store_true", help="the weights as trained")
    p.add_argument(
        "--out", type=epath.Path, help="where to write; default WORKDIR/drawn or DIR/drawn"
    )
    p.add_argument("--overwrite", action="store_true", help="replace other pictures in --out")


def arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command line, and its --config.KEY=VALUE settings."""
    p = argparse.ArgumentParser(
        prog="python -m jaxt2i.sample",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument(
        "--workdir", type=epath.Path, help="the training run, an export, or hf://USER/NAME"
    )
    p.add_argument("--step", default="newest", help="newest (the default), best, or a number")
    p.add_argument("--data", default="", metavar="DIR", help="where the run's data lies now")
    p.add_argument("--config", metavar="FILE[:preset]", help="with --weights: the configuration")
    p.add_argument("--weights", type=epath.Path, metavar="DIR", help="what jaxt2i.convert wrote")
    p.add_argument("--describe", action="store_true", help="print what can be set, and stop")
    add_what(p)
    add_how(p)
    args, rest = p.parse_known_args(argv)
    check(p, args, rest)
    return args, rest


def check(p: argparse.ArgumentParser, args: argparse.Namespace, rest: list[str]) -> None:
    """Ends the program with a message where arguments do not go together."""
    strange = [a for a in rest if not re.match(r"--config\.[\w.]+=", a)]
    if strange:
        hint = " (truncation is --set psi=0.7)" if strange[0].startswith("--psi") else ""
        p.error(f"unrecognized arguments: {' '.join(strange)}{hint}")
    if bool(args.workdir) == bool(args.config and args.weights):
        p.error("give --workdir RUN, or --config FILE[:preset] with --weights DIR")
    if args.workdir and (kept := [a for a in rest if not a.startswith("--config.data.path=")]):
        p.error(
            f"{kept[0]}: a run keeps the settings it was trained with; only --data DIR "
            "may say where its data lies now"
        )
    if args.data and not args.workdir:
        p.error("--data is for --workdir RUN; with --config it is --config.data.path=DIR")
    if args.step != "newest" and not args.workdir:
        p.error("--step chooses a checkpoint of --workdir RUN; converted weights have none")
    texts = args.prompts or args.prompts_file or args.suite or args.interpolate
    if args.region and not args.edit:
        p.error("--region says where --edit PHOTO may act: give both")
    if args.edit and (args.interpolate or not (texts or args.conditions or args.from_split)):
        p.error("--edit PHOTO needs the captions of --prompts, one for all or one each")
    if args.sweep and (args.num > 1 or args.interpolate or args.interpolate_z):
        p.error("--sweep makes the columns of the grid: leave --num and walks out")
    if (args.interpolate or args.interpolate_z) and args.num == 1:
        p.error("--num 1: a walk has 2 pictures or more; 0 is its default")
    names = [name for name, _ in args.set] + ([args.sweep[0]] if args.sweep else [])
    if twice := sorted(name for name in set(names) if names.count(name) > 1):
        p.error(
            f"the control {twice[0]} is set twice; give one value, or --sweep {twice[0]}=A,B for "
            "several side by side"
        )
    if not (texts or args.conditions or args.from_split or args.describe):
        p.error(
            "give --prompts, --prompts-file, --suite, --interpolate, --conditions or --from-split"
        )
    if args.interpolate and (args.conditions or args.from_split):
        p.error("--interpolate walks between captions: leave --conditions and --from-split out")
    if args.judge and not args.best_of:
        p.error("--judge chooses the best of several: give --best-of N")
    if args.best_of and (args.best_of < 2 or args.interpolate or args.interpolate_z or args.z):
        p.error("--best-of N: 2 or more, among seeds: leave --z and walks out")
    if args.num < 0 or args.chunk < 0:
        p.error("--num and --chunk are 1 or more, or 0 for the default")
    if args.seed + max(args.num, 1) - 1 > MAX_SEED:
        p.error(f"--seed {args.seed} --num {args.num}: the last seed would be above {MAX_SEED}")
    if args.z and (args.interpolate_z or args.num > 1):
        p.error("--z gives one latent a row: leave --interpolate-z and --num out")


def read_text(file: epath.Path, option: str) -> str:
    """A text file in UTF-8, or in what its byte order mark says.

    Args:
      file: that a person named.
      option: the one that named it, for messages.

    Raises:
      ConfigError: for a file that is missing, a folder, or in another encoding.
    """
    if file.is_dir():
        raise ConfigError(f"{option} {file}: a folder; give a text file")
    if not file.is_file():
        raise ConfigError(f"{option} {file}: no such file")
    encoding, content = encoding_of(file.read_bytes())
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{option} {file}: byte {error.start} is not {encoding.upper()}; save it as UTF-8"
        ) from None
    if "\0" in text:
        raise ConfigError(
            f"{option} {file}: it holds zero bytes, as UTF-16 without a mark or a binary "
            "file does; save it as UTF-8 text"
        )
    return text


def read_prompts(args: argparse.Namespace) -> list[str]:
    """The captions of --prompts, --prompts-file or --suite.

    Raises:
      ConfigError: for a file that cannot be read or is empty.
    """
    if args.suite:
        return suites.load(args.suite).prompts
    if not args.prompts_file:
        return args.prompts
    text = read_text(args.prompts_file, "--prompts-file")
    # Not splitlines: captions may hold the separators that only Unicode knows.
    lines = re.split(r"\r\n|\n|\r", text)
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ConfigError(f"--prompts-file {args.prompts_file}: no captions in it, one a line")
    return prompts


def check_files(args: argparse.Namespace) -> None:
    """Reads the files that the command line names before anything is opened or compiled.

    Raises:
      ConfigError: on all of those that cannot be used.
    """
    tried = {
        args.prompts_file: lambda: read_prompts(args),
        args.conditions: lambda: conditions.read_file(args.conditions),
        args.workdir: lambda: settings.read_config(places.of(args.workdir, "--workdir")),
        args.size: lambda: edits.size_of(args.size),
        tuple(args.edit or ()): lambda: edits.rows_of(args.edit, args.region),
    }
    faults = []
    for given, read in tried.items():
        if given:
            try:
                read()
            except (ConfigError, DataError, *trouble.ERRORS) as error:
                faults.append(str(trouble.line(error)))
    if faults:
        raise ConfigError("; and ".join(faults))


def plain_rows(args: argparse.Namespace, system: api.System) -> Iterator[Row] | list[Row]:
    """The rows that the command line names, without walks; the later layer wins."""
    layers: list[Any] = []
    if args.from_split:
        rows = api.from_split(system.run, args.from_split, system.asked)
        if not (args.prompts or args.prompts_file or args.suite or args.conditions or args.edit):
            return rows  # as many as there are, one by one
        layers.append(list(rows))
    if args.conditions:
        layers.append(list(system.told(conditions.read_file(args.conditions))))
    if args.edit:
        layers.append(edits.rows_of(args.edit, args.region))
    if args.prompts or args.prompts_file or args.suite:
        layers.append(list(system.told({"prompt": text} for text in read_prompts(args))))
    return conditions.laid_over(*layers)


def all_rows(args: argparse.Namespace, system: api.System) -> tuple[Iterator[Row], int]:
    """(what the command line asks for, row by row; pictures a row of the grid, 0: any)."""
    if args.interpolate or args.interpolate_z:
        return walked_rows(args, system)
    rows = plain_rows(args, system)
    if args.z:
        rows = list(rows)
        latents = given_latents(args.z, len(rows), system.run.method)
        rows = [{**row, "z": z} for row, z in zip(rows, latents, strict=True)]
    if args.sweep:
        return edits.swept(api.expand(rows, 1, args.seed), *args.sweep), len(args.sweep[1])
    num = max(args.num, 1)
    return api.expand(rows, num, args.seed), num if num > 1 else 0


def walked_rows(args: argparse.Namespace, system: api.System) -> tuple[Iterator[Row], int]:
    """The rows of a walk between captions, latents, or both."""
    if args.interpolate_z and system.sampler.latent is None:
        raise ConfigError(f"--interpolate-z: {system.run.config.method} has no latent")
    walk = [float(m) for m in np.linspace(0, 1, args.num if args.num > 1 else WALK)]
    if args.interpolate:
        a, b = system.told({"prompt": text} for text in args.interpolate)
        texts = [(a, b, m) for m in walk]
    else:
        texts = [(row, {}, 0.0) for row in plain_rows(args, system)]
    if args.interpolate_z:
        a, b = args.interpolate_z
        latents = [(a, b, m) for m in walk]
    else:
        latents = [(args.seed, args.seed, 0.0)]

    def rows():
        for row, to, mix in texts:
            for seed, seed_to, mix_z in latents:
                yield {**row, "seed": seed} | {
                    "towards": {**to, "seed": seed_to, "mix": mix, "mix_z": mix_z}
                }

    return rows(), len(latents) if len(latents) > 1 else 0


def given_latents(file: epath.Path, count: int, method) -> np.ndarray:
    """Latents [count, *Z] of --z, one for all rows or one each.

    Raises:
      ConfigError: when the file does not hold that.
    """
    if method.sampler.latent is None:
        raise ConfigError(f"--z {file}: the method has no latent")
    want = api.latent_shape(method.sampler)
    try:
        z = np.load(places.here(file), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        # NumPy's own text would advise to execute what the file holds.
        said = "it is none, or holds objects" if "allow_pickle" in str(error) else str(error)
        raise ConfigError(f"--z {file}: not a readable .npy file ({said})") from None
    if not isinstance(z, np.ndarray) or z.dtype.kind not in "fiu" or not z.ndim:
        what = "an .npz" if not isinstance(z, np.ndarray) else f"{z.dtype} {list(z.shape)}"
        raise ConfigError(
            f"--z {file}: {what}, expected one .npy array of numbers, one latent each"
        )
    if not np.isfinite(z).all():
        raise ConfigError(f"--z {file}: latents are finite numbers, and some here are NaN or inf")
    if z.shape[1:] != want or len(z) not in (1, count):
        raise ConfigError(
            f"--z {file}: latents of shape {list(z.shape)}, expected {[count, *want]}, one a "
            "picture"
        )
    return np.broadcast_to(z.astype(np.float32), (count, *want))


def opened(args: argparse.Namespace, changes: list[str]) -> api.System:
    """The system that the command line names.

    Raises:
      ConfigError: where it cannot be opened.
    """
    if args.workdir:
        how = {"after": args.after, "use_ema": not args.raw, "chunk": args.chunk}
        place = args.data or (changes[-1].partition("=")[2] if changes else "")
        found = api.load(args.workdir, step=args.step, **how)
        moved.point(found.run.config, place, args.workdir)
        if args.from_split:
            moved.check(found.run.config, args.workdir)
        return found
    if args.raw:
        raise ConfigError("--raw: converted weights are used as they are; leave it out")
    config = settings.configuration(args.config, changes)
    return api.load_weights(config, args.weights, after=args.after, chunk=args.chunk)


def asked_for(args: argparse.Namespace) -> dict[str, Any]:
    """What a folder of pictures belongs to, beside the weights: the same command continues it."""
    names = ("from_split", "prompts", "suite", "interpolate", "interpolate_z", "seed", "num")
    names = (*names, "edit", "region", "sweep", "size", "grid", *VIEWS, "best_of", "judge")
    said = {name: value for name in names if (value := getattr(args, name))}
    for name in ("conditions", "prompts_file", "z"):
        if file := getattr(args, name):
            said[name] = str(file)
            said[f"{name}_digest"] = folder.digest_of(file)
    given = [*(args.edit or ()), *map(epath.Path, args.region)]
    said |= {"edit_digest": [folder.digest_of(file) for file in given]} if given else {}
    return said


def main(argv: Sequence[str]) -> None:
    """Draws what the command line asks for."""
    args, changes = arguments(argv)
    if args.suite and not args.num:
        args.num = suites.load(args.suite).pictures
    check_files(args)
    runs.prepare_jax()
    # What comes from the hub is drawn beside where one stands.
    source = args.workdir or args.weights
    out = args.out or (epath.Path() if places.scheme_of(source) == "hf" else source) / "drawn"
    if not args.describe:
        places.check_writable(places.of(out, "--out"), "--out")
    drawn_by = opened(args, changes)
    if args.describe:
        print(json.dumps(drawn_by.describe(), indent=1, default=str))
        return
    controls = dict(args.set)
    drawn_by.check(controls)
    if args.edit:
        drawn_by.check_edits()
    rows, columns = all_rows(args, drawn_by)
    also = [name for name in VIEWS if getattr(args, name)]
    also += [name for name in edits.VIEWS if name in drawn_by.gives]
    size = edits.size_of(args.size) if args.size else None
    sweep = args.sweep[0] if args.sweep else ""
    about = drawn_by.about | {"controls": controls, "asked": asked_for(args)}
    place = folder.Folder(folder.own(places.of(out, "--out")), about)
    # A folder of the run's own is there to be written over, any other is somebody's.
    place.open(overwrite=args.overwrite or not args.out)
    rows, how = place.missing(rows), {"also": also, "size": size, **controls}
    if args.best_of:
        drawn = drawn_by.best(rows, args.best_of, args.judge, **how)
    else:
        drawn = drawn_by.stream(rows, **how)
    names = drawn_by.run.facts.names.get("box_label", ())
    place.write(
        drawn,
        columns=columns,
        single=not args.grid,
        names=names,
        sweep=sweep,
        at_once=drawn_by.drawer().size,
    )
    if args.attention:
        place.attention(drawn_by.run.tokenizer)
    step = drawn_by.about["step"]
    where = f"step {step}" if step is not None else str(args.weights)
    log.say(f"{place.count} of {where} in {place.path}: {place.contents}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (*runs.USER_ERRORS, *trouble.ERRORS) as error:
        log.fail(trouble.line(error))
