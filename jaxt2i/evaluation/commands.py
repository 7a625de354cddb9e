"""What `python -m jaxt2i.evaluate` does besides judging one run or folder.

  --study A B [C ...]                 a blind study of pairs for people: one page, without a server
  --study-results FILES --key FILE    strengths of the systems by people, and metrics beside them
  --compare A B [C ...]               scores of several, and their differences with intervals
  --detections DIR                    Semantic Object Accuracy of published detections
  --suite NAME --images DIR           pictures of a prompt suite (`sample --suite NAME` draws them),
                                      scored by skill; folders as other scorers read them, and
                                      those scorers' results beside ours

NAME is parti, geneval, t2i_compbench or dpg, which are here, or a file of prompts: DrawBench's,
GenEval 2's, a folder of HPSv2's styles. A, B, C are training runs (RUN, RUN@best, RUN@2000),
folders of pictures with captions, or, beside a run, the word `real` for its held-out pictures. All
are brought to the same captions, and runs draw them with the same seeds.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax

from jaxt2i.config import nearest
from jaxt2i.encoders import features
from jaxt2i.evaluation import (
    compare,
    judges,
    pages,
    promises,
    ratings,
    scores,
    sets,
    sides,
    soa,
    study,
    suites,
)
from jaxt2i.evaluation.reading import Reader
from jaxt2i.metrics import protocols, statistics
from jaxt2i.metrics.score import MetricError
from jaxt2i.run import log, processes

# Pairs that one person judges in some ten minutes; checks among them.
PAIRS, CHECKS = 60, 6
# Captions of a comparison.
COMPARED = 1000


def parser(option: str) -> argparse.ArgumentParser:
    """A command line of one of `COMMANDS`."""
    return argparse.ArgumentParser(
        prog=f"python -m jaxt2i.evaluate {option}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def whole(least: int) -> Callable[[str], int]:
    """A reader of whole numbers from `least` on."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, {least} or more")
        return int(text)

    return read


def control(text: str) -> tuple[str, str]:
    """A NAME=VALUE of --set."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r}: expected CONTROL=VALUE, such as psi=0.7")
    return name, value


def add_sides(p: argparse.ArgumentParser, option: str, num: int) -> None:
    """Options of what is held side by side."""
    p.add_argument(option, dest="places", nargs="+", required=True, metavar="RUN|DIR|real")
    p.add_argument("--num", type=whole(1), default=num, help=f"captions at most; default {num}")
    p.add_argument("--seed", type=whole(0), default=0, help="of captions, latents and order")
    p.add_argument(
        "--resolution", type=whole(0), default=0, help="cut and resize folders' pictures"
    )
    p.add_argument(
        *("--set", "-s"),
        action="extend",
        nargs="+",
        default=[],
        type=control,
        metavar="CONTROL=VALUE",
        help="controls of all runs, such as psi=0.7",
    )
    p.add_argument("--raw", action="store_true", help="weights as trained, not averaged")
    p.add_argument("--data", default="", metavar="DIR", help="where the runs' data lies now")
    p.add_argument("--out", type=Path, default=Path(option.lstrip("-")), metavar="DIR")


def wanted(args: argparse.Namespace, protocol: protocols.Protocol | None = None) -> sides.Wanted:
    """How the sides of a command line are made."""
    if protocol is None:
        how = {}
    else:
        rule = protocol.samples.quantise
        how = {"rule": "" if rule == protocols.ANY else rule}
        how["choice"] = protocol.samples.captions
    return sides.Wanted(
        places=tuple(args.places),
        num=args.num,
        seed=args.seed,
        resolution=args.resolution,
        controls=dict(args.set),
        raw=args.raw,
        data=args.data,
        **how,
    )


def make_study(argv: Sequence[str]) -> None:
    """Writes the page of a study and its key."""
    p = parser("--study")
    add_sides(p, "--study", PAIRS)
    p.add_argument("--question", default=study.QUESTION, help="above every pair")
    p.add_argument("--consent", default=study.CONSENT, help="what raters agree to")
    p.add_argument("--checks", type=whole(0), default=CHECKS, help="pairs with one right answer")
    p.add_argument("--ties", action="store_true", help="raters may say that neither is better")
    args = p.parse_args(argv)
    found = sides.of(wanted(args))
    plan = study.plan(found.captions, len(found.sets), args.checks, args.seed)
    asked = study.Asked(args.question, args.consent, args.ties)
    page, key = study.write(args.out, found, plan, asked, args.seed)
    for note in found.notes:
        log.say(f"note: {note}")
    log.say(
        f"{page}: {len(found.captions)} pairs and {args.checks} checks in {study.FORMS} forms, "
        f"{page.stat().st_size / 2**20:.1f} MiB; send it to raters, or {page.name}?form=0, 1, 2, "
        "... to have each form used as often",
        f"{key}: who is who; keep it, and do not send it",
    )


def read_study(argv: Sequence[str]) -> None:
    """Evaluates the answers of a study."""
    p = parser("--study-results")
    p.add_argument(
        *("--study-results", "--answers"), dest="files", type=Path, nargs="+", required=True
    )
    p.add_argument("--key", type=Path, required=True, help="key.json of the study, or its folder")
    p.add_argument(
        "--scores",
        type=Path,
        nargs="+",
        default=[],
        metavar="JSON",
        help="of evaluate for each system, in the study's order, or of --compare",
    )
    p.add_argument("--most-failed", type=float, default=ratings.MOST_FAILED, metavar="SHARE")
    p.add_argument("--seed", type=whole(0), default=0, help="of resamples")
    p.add_argument("--out", type=Path, metavar="DIR", help="default: beside the key")
    args = p.parse_args(argv)
    if not 0 <= args.most_failed <= 1:
        p.error(f"--most-failed {args.most_failed}: expected a share from 0 to 1")
    key = ratings.read_key(args.key)
    raters, notes = ratings.read_all(args.files, key)
    metrics = ratings.metrics_of(args.scores, key["systems"]) if args.scores else {}
    found = ratings.evaluate(key, raters, metrics, most_failed=args.most_failed, seed=args.seed)
    out = args.out or (args.key if args.key.is_dir() else args.key.parent)
    title = f"Study {found.study}"
    said = [*pages.ratings_facts(found), *found.notes, *notes]
    pages.show(title, pages.ratings_tables(found), said)
    pages.write_json(out / "results.json", found.as_dict())
    pages.write_ratings(out / "results.html", found)
    log.say(f"written: {out / 'results.json'}, {out / 'results.html'}")


def make_comparison(argv: Sequence[str]) -> None:
    """Compares runs and folders."""
    p = parser("--compare")
    add_sides(p, "--compare", COMPARED)
    p.add_argument("--reference", type=Path, metavar="DIR", help="real pictures; default a run's")
    p.add_argument("--protocol", default="tf2015", help="how to measure; default tf2015")
    p.add_argument("--metrics", default="", help="by commas; default: those of the protocol")
    p.add_argument("--batch", type=whole(1), default=32, help="pictures at once")
    p.add_argument("--weights", nargs="*", default=[], metavar="NETWORK=FILE")
    p.add_argument("--cache", type=Path, help="of recognisers")
    args = p.parse_args(argv)
    weights = weights_of(p, args.weights)
    protocol = protocols.get(args.protocol)
    found = sides.of(wanted(args, protocol))
    reference = sets.of_folder(args.reference, args.resolution) if args.reference else None
    metrics = [m for m in args.metrics.split(",") if m]
    metrics = metrics or default_metrics(protocol, found, reference is not None)
    reader = Reader(weights, args.batch)
    facts = {"seed": args.seed, "controls": dict(args.set)}
    result = compare.compare(
        *(found, protocol, metrics, reader),
        reference=reference,
        facts=facts,
        cache=args.cache,
    )
    if jax.process_index():  # the first process speaks for all
        return
    result.facts |= {"captions": counted(result.captions), "networks": reader.all_told()}
    title = f"{len(result.captions)} captions, protocol {protocol.name}"
    pages.show(title, pages.comparison_tables(result), result.notes)
    pages.write_json(args.out / "compare.json", result.as_dict())
    pages.write_comparison(args.out / "compare.html", result)
    log.say(f"written: {args.out / 'compare.json'}, {args.out / 'compare.html'}")


def counted(captions: Sequence[str]) -> dict[str, int | str]:
    """How many captions there are, and their digest, for a record."""
    return {"count": len(captions), "digest": statistics.fingerprint(captions)}


def default_metrics(protocol: protocols.Protocol, found: sides.Sides, reference: bool) -> list[str]:
    """What is compared when nobody says: what the protocol measures, of what there is.

    Raises:
      MetricError: where that is nothing.
    """
    if found.corpus:
        return [compare.RECOGNISED]
    real = reference or found.real is not None
    out = [
        m
        for m in compare.PAIRS
        if getattr(protocol, scores.METRICS[m]) and (real or m not in scores.NEEDS_REAL)
    ]
    if not out:
        raise MetricError(
            f"the protocol {protocol.name} measures nothing without real pictures: give "
            "--reference DIR, or --metrics"
        )
    return out


def suite_parser() -> argparse.ArgumentParser:
    """The command line of --suite."""
    p = parser("--suite")
    p.add_argument("--suite", required=True, metavar="NAME|FILE|DIR")
    p.add_argument("--images", type=Path, required=True, metavar="DIR", help="with captions")
    p.add_argument(
        "--metrics",
        default="clip_similarity",
        help=f"by commas, of {', '.join((*judges.JUDGES, promises.NAME))}; "
        "default clip_similarity; none: none",
    )
    p.add_argument(
        "--weights",
        nargs="*",
        default=[],
        metavar="NETWORK=FILE",
        help="else from the cache, or downloaded",
    )
    p.add_argument("--batch", type=whole(1), default=32, help="pictures at once")
    p.add_argument(
        "--layout",
        nargs="+",
        default=[],
        choices=list(suites.LAYOUTS),
        help="also write the pictures as these scorers read them, into OUT/LAYOUT",
    )
    p.add_argument(
        "--results",
        nargs="+",
        default=[],
        metavar="[NAME=]FILE",
        help="what other scorers found; NAME is the category, where a file is of one alone",
    )
    p.add_argument("--out", type=Path, metavar="DIR", help="default DIR-suite")
    return p


def make_suite(argv: Sequence[str]) -> None:
    """Scores the pictures of a prompt suite by skill."""
    p = suite_parser()
    args = p.parse_args(argv)
    suite = suites.load(args.suite)
    pictures = sets.of_folder(args.images)
    if pictures.captions is None:
        raise MetricError(f"{args.images}: its pictures have no captions, which name the prompts")
    of = suites.places(suite, pictures.captions)
    notes = suites.missing(suite, of)
    if lost := int((of < 0).sum()):
        pictures = sides.only(pictures, [i for i, n in enumerate(of) if n >= 0])
        of = of[of >= 0]
        log.say(f"{lost} pictures are of no prompt of {suite.name}")
    out = args.out or args.images.with_name(f"{args.images.name}-suite")
    files = [args.images / name for name in pictures.names]
    drawn = suites.pictures_of(files, of)
    for layout in args.layout if not jax.process_index() else ():
        where = suites.write_layout(layout, suite, drawn, out / layout)
        log.say(f"written for {layout}: {where}")
    asked = [m for m in args.metrics.split(",") if m and m != "none"]
    weights = weights_of(p, args.weights)
    reader = Reader(weights, args.batch)
    preferred = [m for m in asked if m != promises.NAME]
    found = judges.verdicts(preferred, pictures, reader) if preferred else {}
    if promises.NAME in asked:
        found[promises.NAME] = promises.verdicts(suite, of, pictures, reader)
    means = {m: suites.by_skill(suite, of[v.rows], v.values) for m, v in found.items()}
    if "hps_v21" in found:
        styles = means["hps_v21"].get("style", {})
        known = {style: mean.prompts for style, mean in styles.items()}
        notes += judges.hps_beside(known, len(of), weights.get("hps_v21", ""))
    theirs = {place: suites.read_results(place) for place in args.results}
    if not jax.process_index():  # the first process speaks for all
        write_suite(out, suite, means, theirs, notes, reader.all_told())


def write_suite(
    out: Path,
    suite: suites.Suite,
    means: Mapping[str, Mapping[str, Mapping[str, suites.Mean]]],
    theirs: Mapping[str, Mapping[str, float]],
    notes: Sequence[str],
    networks: Mapping[str, Mapping[str, str]],
) -> None:
    """Prints and writes what was found of a suite.

    Args:
      out: a folder.
      suite: the prompts.
      means: {metric: of `suites.by_skill`}.
      theirs: {file: of `suites.read_results`}.
      notes: what else to know.
      networks: of `Reader.all_told`.
    """
    tables = pages.suite_tables(means, theirs)
    title = f"{suite.name}: {len(suite.rows):,} prompts"
    pages.show(title, tables, notes)
    told = {
        "suite": suite.name,
        "prompts": len(suite.rows),
        "captions": counted(suite.prompts),
        "networks": networks,
        "judges": {
            m: promises.about(suite) if m == promises.NAME else judges.about(m) for m in means
        },
        "scores": {
            m: {
                column or "all prompts": {
                    skill: {
                        "value": mean.value,
                        "interval": mean.interval and mean.interval._asdict(),
                        "prompts": mean.prompts,
                    }
                    for skill, mean in table.items()
                }
                for column, table in found.items()
            }
            for m, found in means.items()
        },
        "results_of_other_scorers": theirs,
        "notes": list(notes),
    }
    pages.write_json(out / "suite.json", told)
    pages.page(out / "suite.html", title, pages.tables_tag(tables, notes))
    log.say(f"written: {out / 'suite.json'}, {out / 'suite.html'}")


def weights_of(p: argparse.ArgumentParser, given: Sequence[str]) -> dict[str, str]:
    """{network: file} of --weights."""
    if bad := [w for w in given if "=" not in w]:
        p.error(f"--weights {bad[0]}: expected NETWORK=FILE")
    found = dict(w.split("=", 1) for w in given)
    if strange := [name for name in found if name not in features.NETWORKS]:
        p.error(
            f"--weights {strange[0]}=...: no such network; {nearest(strange[0], features.NETWORKS)}"
        )
    return found


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "--study": make_study,
    "--study-results": read_study,
    "--compare": make_comparison,
    "--detections": soa.read_detections,
    "--suite": make_suite,
}


# What several processes could not share: each of them would do all of it. --compare and --suite are
# shared, as judging is.
ALONE = {
    "--study": "draws a hundred pictures and writes one page",
    "--study-results": "reads a few small files",
    "--detections": "reads files and computes no network",
}


def asked(argv: Sequence[str]) -> Callable[[Sequence[str]], None] | None:
    """The command that a command line asks for; None: to judge.

    Raises:
      MetricError: for one of `ALONE`, where this process is one of several.
    """
    option = next((a for a in argv if a in COMMANDS), None)
    if option in ALONE and processes.expected():
        raise MetricError(
            f"{option} {ALONE[option]}, which several processes cannot share, and this is one of "
            "several: start it once, without the launcher (no JAX_COORDINATOR_ADDRESS, one SLURM "
            "or MPI task)"
        )
    return COMMANDS.get(option)
