"""python -m jaxt2i.evaluate --workdir RUN [--metrics fid,clip_score] [--protocol galip_coco]

Judges pictures. Everything that a number depends on is written beside it, and a paper's number
stands there only where it was measured in the same way; else a line says what differs.

What is judged
  --workdir RUN                       the newest checkpoint (--step); --watch judges each new one
  --config FILE[:preset] --weights DIR    converted weights
  --images DIR                        pictures, whoever made them

On what, where it is not the run's own held-out data
  --data WORD [--split SPLIT]         a folder (records, a web collection, pictures with captions),
                                      a preset's data (configs/galip.py:coco), a list of pictures
                                      and captions (.jsonl, .csv), or a corpus (scenes); also where
                                      the run's own data lies now, if it moved
  --captions RULE|FILE                which captions are drawn: a rule as `first`, or a file

Against what
  --reference DIR|FILE.npz|data       a folder, published statistics, or the data's own pictures

How
  --protocol NAME                     as a paper measured: dmgan_cub, galip_coco, ...
  --protocols A,B                     several on one set of pictures
  --metrics A,B                       fid, fid_inf, inception_score, kid, precision_recall, cmmd,
                                      clip_score, r_precision, diversity (by LPIPS), lpips,
                                      feature_diversity (by clip=RUN or the recogniser, without
                                      LPIPS' weights), memorised, recognised, independent, soa,
                                      lqs, relations, clip_similarity, pick_score, hps_v21,
                                      image_reward, vqa_score, vqa_score_xl (a smaller judge),
                                      edits (of runs that edit), mini_clip, mini_clip_frechet
                                      (the shipped CLIP's, which flatters runs that it guided),
                                      cross_lingual (pictures of captions in two languages,
                                      --languages en,de, with one seed)
  --weights NETWORK=FILE              networks from files; else from the cache, or downloaded;
                                      damsm=RUN for R-precision by a DAMSM, clip=RUN for
                                      `independent`, `cross_lingual`: a run of configs/clip.py, of
                                      another seed and shape than the one that guides the judged
                                      run

  --sweep psi=0.5,0.7,1               scores over the values of a control, the same captions and
                                      seeds: one JSON and one figure

  --compare A B, --study A B          several side by side, by networks or people, and
  --suite NAME --images DIR           the pictures of a prompt suite by skill: --compare --help

Runs on the procedural corpora are judged by a recogniser that is trained on the spot
(`recognised`), which needs no download. Edited pictures are held against their originals of the
same name by --images EDITED --reference ORIGINALS --metrics lpips. Several processes, started as
those of a training, judge, sweep, compare and score suites together; a study is made by one.
"""

import argparse
import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jax
from etils import epath

from jaxt2i import api, calling, places, sample
from jaxt2i.config import ConfigError, nearest
from jaxt2i.convert.rules import ConversionError
from jaxt2i.convert.torch_files import UnreadableFileError, UnsafeFileError
from jaxt2i.data.schema import DataError
from jaxt2i.encoders import features
from jaxt2i.evaluation import (
    beside,
    commands,
    extra,
    languages,
    layouts,
    perceptual,
    report,
    scores,
    soa,
    subjects,
    sweep,
)
from jaxt2i.evaluation.judge import judge
from jaxt2i.metrics import statistics
from jaxt2i.metrics.score import MetricError
from jaxt2i.run import facts, log, processes, settings, trouble
from jaxt2i.run import open as runs

WATCH_SECONDS = 20
# What a person can mend.
USER_ERRORS = (
    *(MetricError, DataError, ConversionError, UnreadableFileError, UnsafeFileError),
    *runs.USER_ERRORS,
    *trouble.ERRORS,
)
# Options that say how pictures are drawn here.
DRAWING = {
    **{"captions": "", "num": 0, "seed": 0, "set": [], "after": [], "chunk": 0, "raw": False},
    **{"words": 0, "save": None, "soa_captions": None, "languages": "", "layouts": []},
}


def parser(kind: type[argparse.ArgumentParser] = argparse.ArgumentParser):
    """The options."""
    p = kind(
        prog="python -m jaxt2i.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = p.add_argument_group("what is judged")
    what.add_argument("--workdir", type=epath.Path, help="a training run")
    what.add_argument("--step", default="newest", help="of it: newest (default), best, a number")
    what.add_argument("--config", default="", metavar="FILE[:preset]", help="of converted weights")
    what.add_argument("--images", type=epath.Path, metavar="DIR", help="pictures to judge")
    p.set_defaults(system=None)
    on = p.add_argument_group("on what, against what")
    on.add_argument("--data", default="", metavar="WORD", help="a data set; default the run's own")
    on.add_argument("--split", default="", help="of it; default the protocol's or held-out one")
    on.add_argument("--captions", default="", metavar="RULE|FILE", help="default the protocol's")
    on.add_argument("--reference", default="", metavar="DIR|NPZ|data", help="default the data")
    how = p.add_argument_group("how")
    add_how(how)
    for part in (languages, soa, layouts, beside):
        part.add_options(how)
    return p


def add_how(how: argparse._ArgumentGroup) -> None:
    """Options of how pictures are drawn and measured."""
    how.add_argument("--protocol", default="", help="how to measure; default tf2015")
    how.add_argument("--protocols", default="", metavar="A,B", help="several, on one set")
    how.add_argument("--metrics", default="", help="by commas; default those of the protocol")
    how.add_argument(
        *("--weights",),
        action="extend",
        nargs="*",
        default=[],
        metavar="DIR|NETWORK=FILE",
        help="converted weights; files of networks, or NETWORK=random",
    )
    how.add_argument("--num", type=int, default=0, help="pictures to draw; default the protocol's")
    how.add_argument("--seed", type=sample.seed_of, default=0, help="of captions and latents")
    how.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        type=sample.control_of,
        metavar="CONTROL=VALUE",
        help="controls of the method, such as psi=0.7",
    )
    how.add_argument(
        "--after",
        type=epath.Path,
        nargs="+",
        default=[],
        metavar="RUN",
        help="earlier runs fill rows",
    )
    how.add_argument("--chunk", type=int, default=0, help="rows a device draws at once")
    how.add_argument("--raw", action="store_true", help="weights as trained, not averaged")
    how.add_argument("--words", type=int, default=0, help="of a caption; default the protocol's")
    how.add_argument("--resolution", type=int, default=0, help="cut and resize folders' pictures")
    how.add_argument("--batch", type=int, default=32, help="pictures at once")
    how.add_argument("--lpips-net", choices=perceptual.NETS, help="default the protocol's, or alex")
    how.add_argument(
        "--stated",
        action="extend",
        nargs="+",
        default=[],
        type=sample.control_of,
        metavar="FIELD=VALUE",
        help="what only you know of --images, for the record: samples.captions=one_pass",
    )
    how.add_argument("--no-intervals", dest="intervals", action="store_false")
    how.add_argument(
        "--sweep", default="", metavar="CONTROL=A,B,C", help="scores over values of a control"
    )
    how.add_argument("--watch", action="store_true", help="judge each new checkpoint")
    how.add_argument("--out", type=epath.Path, help="default WORKDIR/evaluation, or DIR-evaluation")
    how.add_argument(
        "--save", type=epath.Path, metavar="DIR", help="keep what is drawn; continued there"
    )
    how.add_argument("--cache", type=epath.Path, help="of reference statistics and recognisers")


class Spoken(argparse.ArgumentParser):
    """Options of a call in Python: what does not go together is an error, not the end."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def evaluate(
    subject: "epath.PathLike | api.System",
    *,
    images: bool = False,
    metrics: str | Sequence[str] = (),
    controls: Mapping[str, Any] | None = None,
    weights: Mapping[str, str] | None = None,
    **options: Any,
) -> report.Result | sweep.Sweep:
    """Judges pictures, as the command line does.

    Args:
      subject: a run or an export, also of the hub; what `jaxt2i.load` gave; or, with `images`, a
        folder of pictures. Converted weights: what `jaxt2i.load` gave of them.
      images: the subject is a folder of pictures.
      metrics: "fid,clip_score", or a list; none: the protocol's.
      controls: of the method, such as {"psi": 0.7}.
      weights: {network: file}; others come from the cache, or are downloaded.
      options: of the command line, with underscores: protocol="galip_coco", num=1000,
        data="DIR", out="DIR"; see python -m jaxt2i.evaluate --help.

    Returns:
      The scores, which show themselves in a notebook; `values` has the numbers. Written to `out`
      too, where that is given. With sweep="psi=0.5,0.7,1" a `Sweep`, always written.

    Raises:
      ConfigError: for options that there are not, or that do not go together.
      MetricError: for what cannot be measured.
    """
    p = parser(Spoken)
    args = p.parse_args([])
    own = {"images", "metrics", "controls", "weights"}
    known = set(vars(args)) - {"set", "workdir", "config", "system", "watch", *own}
    for name, value in options.items():
        if name not in known:
            said = nearest(name, sorted(known | own))
            raise ConfigError(f"evaluate has no option {name!r}; {said}")
        setattr(args, name, value)
    args.metrics = metrics if isinstance(metrics, str) else ",".join(metrics)
    args.set, args.images = list((controls or {}).items()), epath.Path(subject) if images else None
    if isinstance(subject, api.System):
        args.system, args.workdir = subject, epath.Path(subject.about["source"])
    elif not images:
        args.workdir = epath.Path(subject)
    args = settled(p, args, dict(weights or {}), [], {})
    runs.prepare_jax()
    check_places(args)
    if args.sweep:
        return curve(args)
    result = judge(args)
    if args.out:
        finish(args, result)
    return result


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line, checked."""
    p = parser()
    args, rest = p.parse_known_args(argv)
    weights, folders = weights_of(p, args.weights)
    return settled(p, args, weights, folders, changes_of(p, rest))


def settled(
    p: argparse.ArgumentParser,
    args: argparse.Namespace,
    weights: dict[str, str],
    folders: Sequence[str],
    changes: dict[str, str],
) -> argparse.Namespace:
    """Options, checked and in the form that judging takes.

    Args:
      p: says what is wrong with them.
      args: as they were given.
      weights: {network: file}.
      folders: of converted weights.
      changes: where data lies, of `changes_of`.
    """
    args.weights, args.changes = weights, changes
    if args.workdir and places.scheme_of(args.workdir) == "hf":
        # The hub's own folder is for reading: what is written goes to where one stands.
        args.out = args.out or epath.Path(f"{args.workdir.name}-evaluation")
        args.cache = args.cache or args.out / "references"
        args.workdir = places.of(args.workdir, "--workdir")
    args.converted = epath.Path(folders[0]) if folders else None
    check(p, args, folders)
    known = (*scores.METRICS, *extra.METRICS)
    args.metrics = [name for name in args.metrics.split(",") if name]
    strange = [name for name in args.metrics if name not in known]
    if strange:
        p.error(f"no metric {strange[0]!r}; known: {', '.join(known)}")
    if args.soa_captions and "soa" not in args.metrics:
        p.error("--soa-captions are of --metrics soa, which is not asked for")
    if args.languages and "cross_lingual" not in args.metrics:
        p.error("--languages are of --metrics cross_lingual, which is not asked for")
    args.protocols = [x for x in (args.protocols or args.protocol or "tf2015").split(",") if x]
    args.reference_path, args.stated = epath.Path(args.reference), dict(args.stated)
    if args.reference.lower().endswith(".npz"):
        # Before networks are looked for, or pictures drawn.
        try:
            statistics.load(args.reference_path)
        except statistics.StatisticsError as error:
            p.error(f"--reference: {error}")
    for name in ("out", "save", "cache"):
        place = getattr(args, name)
        setattr(args, name, epath.Path(place) if place else None)
    return args


def check(p: argparse.ArgumentParser, args: argparse.Namespace, folders: Sequence[str]) -> None:
    """Ends the program where arguments do not go together: none is ignored in silence."""
    judged = [bool(args.workdir), bool(args.config or folders), bool(args.images)]
    if sum(judged) != 1 or bool(args.config) != bool(folders) or len(folders) > 1:
        said = f"; --weights {folders[0]}: NETWORK=FILE, or DIR with --config" if folders else ""
        p.error(
            "give --workdir RUN, or --images DIR with --reference DIR, or --config FILE[:preset] "
            f"with --weights DIR{said}"
        )
    if args.watch and not args.workdir:
        p.error("--watch needs --workdir RUN")
    if args.step != "newest" and (args.watch or not args.workdir):
        p.error("--step chooses a checkpoint of --workdir RUN; --watch judges each new one")
    if args.images:
        given = [name for name, default in DRAWING.items() if getattr(args, name) != default]
        if given:
            option = given[0].replace("_", "-")
            p.error(
                f"--{option} says how pictures are drawn here; those of --images DIR are as they "
                "are: leave it out"
            )
        if args.split and not args.data:
            p.error("--split is of --data WORD; --images DIR has none")
        if args.changes and not args.data:
            p.error("--config.data... is of --data WORD; --images DIR has none")
        if args.data and args.reference not in ("", "data"):
            p.error(
                f"--data {args.data} and --reference {args.reference}: pictures of a folder are "
                "compared with one of them; leave the other out"
            )
    elif args.resolution and args.reference in ("", "data"):
        p.error("--resolution cuts and resizes the pictures of folders, and none is given")
    if args.config and args.raw:
        p.error("--raw: converted weights are used as they are; leave it out")
    if args.batch < 1 or min(args.num, args.resolution, args.words, args.chunk) < 0:
        p.error("--batch is 1 or more; --num, --resolution, --words, --chunk 0 (default) or more")
    if args.protocol and args.protocols:
        p.error("--protocol names one, --protocols several: give one of them")
    if args.sweep and (args.watch or args.save or not args.workdir):
        p.error("--sweep is of --workdir RUN, without --watch and --save")
    if args.watch and args.save:
        p.error("--save keeps the pictures of one evaluation; leave --watch out")
    there = args.out and not places.scheme_of(args.out) and args.out.exists()
    if there and not args.out.is_dir():
        p.error(f"--out {args.out}: a file of that name is there; give a folder")


def weights_of(
    p: argparse.ArgumentParser, given: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """({network: file}, folders of converted weights) of --weights."""
    folders = [w for w in given if "=" not in w]
    found = dict(w.split("=", 1) for w in given if "=" in w)
    known = ("damsm", "clip", *features.NETWORKS)
    strange = [name for name in found if name not in known]
    if strange:
        p.error(f"--weights {strange[0]}=...: no such network; known: {', '.join(known)}")
    return found, folders


def changes_of(p: argparse.ArgumentParser, rest: Sequence[str]) -> dict[str, str]:
    """{field: value} of --config.data.FIELD=VALUE, which say where data lies."""
    found = {}
    for text in rest:
        match = re.fullmatch(r"--config\.data\.(path|list)=(.*)", text)
        if not match:
            p.error(
                f"unrecognized arguments: {text}; of a configuration only --config.data.path=DIR "
                "and --config.data.list=FILE can be said here"
            )
        found[match[1]] = match[2]
    return found


# --- The command -------------------------------------------------------------------------------


def finish(args: argparse.Namespace, result: report.Result) -> None:
    """Prints and writes a result, from the first process."""
    if jax.process_index():
        return
    report.show(result)
    out = args.out or subjects.out_of(result.name, result.step)
    stem = "scores" if result.step is None else f"step_{result.step:08d}"
    written = report.write(out, stem, result)
    log.say(f"written: {', '.join(map(str, written))}")


def check_places(args: argparse.Namespace) -> None:
    """Refuses places that cannot be reached, or not be written to, before anything is computed.

    Raises:
      ConfigError: says which, and what to do.
    """
    read = {"--workdir": args.workdir, "--images": args.images, "--weights": args.converted}
    out = args.out or subjects.out_of(
        str(args.workdir or args.images or args.converted), 0 if args.workdir else None
    )
    for what, place in {**read, "--out": out}.items():
        if place is not None:
            places.of(place, what)
    for what, place in {"--save": args.save, "--cache": args.cache}.items():
        if place is not None and places.scheme_of(place):
            raise ConfigError(f"{what} {place}: these files are read here; give a local folder")
    places.check_writable(out, "--out")


def watch(args: argparse.Namespace) -> None:
    """Judges every new checkpoint until the run has reached its last step."""
    config = settings.read_config(args.workdir)
    # The run's length may be given in steps, pictures or epochs.
    known, split = facts.read(args.workdir).counts, config.data.split
    if split in known:
        epoch = known[split]
    else:
        epoch = runs.open_run(config, workdir=args.workdir).source(split).size
    total = settings.steps(config, "total", batch_size=config.batch_size, epoch_images=epoch)
    done = None
    while done is None or done < total:
        step = subjects.newest(args.workdir)
        if step is None or step == done:
            time.sleep(WATCH_SECONDS)
            continue
        result = judge(args)
        finish(args, result)
        done = result.step


def curve(args: argparse.Namespace) -> sweep.Sweep:
    """Judges every value of --sweep, and writes the curve."""
    found = sweep.sweep(args)
    if not jax.process_index():
        out = args.out or subjects.out_of(str(args.workdir), 0)
        log.say(f"written: {', '.join(map(str, sweep.write(out, found)))}")
    return found


def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    try:
        other = commands.asked(argv)
    except MetricError as error:
        log.fail(error)
    args = None if other else arguments(argv)
    runs.prepare_jax()
    with processes.together():
        try:
            if other:
                return other(argv)
            check_places(args)
            if args.sweep:
                curve(args)
            elif args.watch:
                watch(args)
            else:
                finish(args, judge(args))
        except USER_ERRORS as error:
            log.fail(trouble.line(error))
        except KeyboardInterrupt:
            sys.exit("stopped")


calling.as_function(__name__, evaluate)

if __name__ == "__main__":
    main(sys.argv[1:])
