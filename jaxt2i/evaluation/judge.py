"""One evaluation from command line to result: any weights, on any data, by any reference."""

import argparse
import collections
import dataclasses
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxt2i.data.progress import Progress
from jaxt2i.evaluation import (
    beside,
    corpora,
    extra,
    layouts,
    own,
    perceptual,
    record,
    reference,
    report,
    scores,
    sets,
    subjects,
)
from jaxt2i.evaluation.reading import Look, Reader, Seen, share_of
from jaxt2i.evaluation.reference import Compared
from jaxt2i.metrics import nearest, protocols, retrieval
from jaxt2i.metrics.protocols import ANY, Protocol
from jaxt2i.metrics.score import MetricError, Score
from jaxt2i.metrics.statistics import fingerprint
from jaxt2i.run import folder, log
from jaxt2i.run.open import Run

# Pictures on the contact sheet, in the page, and pictures whose neighbours are shown.
SHEET, GRID, NEIGHBOURS = 100, 24, 8
# What the metrics of pairs compare, in the words of protocols.
BETWEEN = {"diversity": "pairs of samples of one caption", "lpips": "the picture and its edit"}
# Not measured unless they are asked for.
SPECIAL = ("fid_inf", "memorised", "cmmd", "precision_recall", *scores.PAIRED)


@dataclasses.dataclass
class Plan:
    """What is measured under one protocol.

    Attributes:
      protocol: how.
      metrics: of `scores.METRICS`.
      looks: at the judged pictures, of those that networks see.
    """

    protocol: Protocol
    metrics: list[str]
    looks: dict[str, Look]

    @property
    def seeing(self) -> list[str]:
        """The metrics of networks that see single pictures."""
        return list(self.looks)


# --- What is measured --------------------------------------------------------------------------


def protocol_of(args: argparse.Namespace, name: str, metrics: Sequence[str]) -> Protocol:
    """The asked for protocol; where pairs are compared it says which, and by which network."""
    protocol = protocols.get(name)
    for metric in scores.PAIRED:
        if metric in metrics:
            how = protocol.perceptual or protocols.Perceptual()
            net = args.lpips_net or how.network
            how = dataclasses.replace(how, network=net, between=BETWEEN[metric])
            protocol = dataclasses.replace(protocol, perceptual=how)
    return protocol


def default_metrics(protocol: Protocol, has_text: bool, edits: bool) -> list[str]:
    """What a protocol measures, but for what takes special pictures or networks."""
    out = []
    for metric, part in scores.METRICS.items():
        readable = has_text or metric not in scores.NEEDS_TEXT
        if getattr(protocol, part) and metric not in SPECIAL and readable:
            out.append(metric)
    if edits and protocol.perceptual and protocol.perceptual.between == BETWEEN["lpips"]:
        out.append("lpips")
    return out


def plans_of(
    args: argparse.Namespace, subject: subjects.Subject, data: corpora.Data | None, more: Mapping
) -> tuple[list[Plan], list[str]]:
    """(what is measured under each protocol, extra metrics).

    Raises:
      MetricError: for metrics that these pictures, or these protocols, cannot have.
    """
    drawn = subject.system is not None
    asked = list(args.metrics)
    if not asked and drawn and data.config.source == "synthetic":
        asked = ["recognised"] if "recognised" in more else []
    extras = [m for m in asked if m in more]
    refuse(subject, data, [m for m in asked if m not in more], extras, more)
    plans = []
    has_text = drawn or subject.pictures.captions is not None
    for name in args.protocols:
        metrics = [m for m in asked if m not in more]
        if not asked:
            metrics = default_metrics(protocols.get(name), has_text, not drawn)
        elif len(args.protocols) > 1:
            how = protocols.get(name)
            metrics = [m for m in metrics if getattr(how, scores.METRICS[m])]
        protocol = protocol_of(args, name, metrics)
        seeing = [m for m in metrics if m not in scores.PAIRED]
        plans.append(Plan(protocol, metrics, scores.looks_of(protocol, seeing)))
    measured = {m for plan in plans for m in plan.metrics}
    for metric in asked:
        if metric not in more and metric not in measured:
            scores.looks_of(protocols.get(args.protocols[0]), [metric])
    return plans, extras


def refuse(subject, data, metrics: Sequence[str], extras: Sequence[str], more: Mapping) -> None:
    """Refuses metrics that these pictures cannot have; says what they need."""
    if subject.system is None:
        needing = [m for m in extras if "system" in more[m].needs]
        needing += [m for m in metrics if m in ("diversity", "memorised")]
        if needing:
            raise MetricError(
                f"{', '.join(needing)} judge what is drawn here and need a run: give --workdir, or "
                "--config with --weights"
            )
        if subject.pictures.captions is None:
            needing = [m for m in extras if "captions" in more[m].needs]
            if needing:
                why = subject.pictures.lacking or f"{subject.name} has no captions"
                raise MetricError(
                    f"{why}; {' and '.join(needing)} need them: put a.txt beside a.png"
                )
        return
    if "lpips" in metrics:
        raise MetricError(
            "lpips compares edited pictures with their originals: give --images DIR --reference "
            "DIR; of the samples of a run diversity is measured"
        )
    if "memorised" in metrics and subject.of.step is None and data.trained != "yes":
        raise MetricError(
            "memorised compares with training pictures, and converted weights bring none: give the "
            "data that they were trained on, as --config.data.path=DIR of their --config"
        )


# --- What is compared with ---------------------------------------------------------------------


class References:
    """Real pictures and statistics, each opened and read once, however many protocols ask."""

    def __init__(self, args: argparse.Namespace, subject, data, reader: Reader):
        self._args, self._subject, self._data, self._reader = args, subject, data, reader
        self._sets: dict[protocols.Reference, sets.Set] = {}
        self._seen: dict[tuple, Seen] = {}

    def pictures(self, how: protocols.Reference) -> sets.Set:
        """The real pictures, as a protocol compares with them.

        Raises:
          MetricError: where there are none.
        """
        place = self._args.reference
        if how not in self._sets:
            if place in ("", "data"):
                if self._data is None:
                    raise MetricError(
                        "these metrics compare with real pictures: give --reference DIR or "
                        "FILE.npz, or --data with the data set"
                    )
                run = self._subject.of.run if self._subject.of else None
                found = corpora.pictures_of(self._data, how, run, self._args.num)
            else:
                side = self._args.resolution or how.resolution
                framed = {"resize": how.resize, "crop": how.crop}
                framed = {k: v for k, v in framed.items() if v != ANY}
                found = sets.of_folder(place, side, strict=False, **framed)
            self._sets[how] = found
        return self._sets[how]

    def compared(self, plan: Plan) -> Compared | None:
        """What a protocol's metrics compare with; None: they compare with nothing."""
        looks = scores.of_reference(plan.protocol, plan.looks)
        if not looks:
            return None
        if self._args.reference.lower().endswith(".npz"):
            return Compared(
                given=reference.of_file(self._args.reference_path, plan.protocol, list(looks))
            )
        real = self.pictures(plan.protocol.reference)
        file = moments = None
        digest = ""
        if set(looks) <= {"fid", "fid_inf"} and self._cache is not None:
            look = next(iter(looks.values()))
            file, digest, moments = reference.cached(real, look, self._reader, self._cache)
        seen = None if moments is not None else self._read(real, plan, looks)
        return Compared(real, None, seen, moments, file, digest)

    @property
    def _cache(self):
        args = self._args
        if args.cache or not args.workdir or args.reference not in ("", "data"):
            return args.cache
        return args.workdir / "references"

    def _read(self, real: sets.Set, plan: Plan, looks: dict[str, Look]) -> Seen:
        kept = scores.outputs(plan.protocol, looks)
        key = (real.digest, tuple(sorted(kept.items())))
        if key not in self._seen:
            self._seen[key] = self._reader.read(real, kept)
        return self._seen[key]


# --- Drawing -----------------------------------------------------------------------------------


def draw(
    args: argparse.Namespace, subject, chosen: corpora.Chosen, rule: str, **kw: Any
) -> sets.Set:
    """The set that a system draws for captions; nothing is drawn yet."""
    step = "" if subject.step is None else f" step {subject.step}"
    return sets.of_system(
        subject.system,
        kw.pop("captions", chosen.said),
        name=f"{subject.name}{step}",
        seed=args.seed,
        rule=rule,
        conditions=chosen.conditions,
        controls=dict(args.set),
        **kw,
    )


def saved(args: argparse.Namespace, subject, fake: sets.Set, rule: str) -> tuple[sets.Set, float]:
    """(the set, written to --save and read from there; pictures drawn a second).

    A folder that was left unfinished is continued; each of several processes has one of its own.
    """
    place = folder.own(args.save)
    about = {"controls": dict(args.set), "asked": {"pictures": fake.digest, "rounded": rule}}
    kept = folder.Folder(place, subject.system.about | about)
    kept.open(overwrite=False)
    missing = [int(n) for n in share_of(fake.count) if n not in kept.done]
    progress, start = Progress(f"drawing into {place}", len(missing)), time.monotonic()

    def drawn():
        rows = (fake.row(n) for n in missing)
        for pair in subject.system.stream(rows, rule=rule):
            progress.step(False)
            yield pair

    kept.write(drawn())
    progress.close()
    rate = len(missing) / max(time.monotonic() - start, 1e-9)
    names = {int(n): f"{n:06d}.png" for n in share_of(fake.count)}
    return sets.of_files(fake, place, names, quantise=rule), rate


def judged_pictures(
    args: argparse.Namespace, subject, data, plans: Sequence[Plan], labels: bool
) -> tuple[sets.Set, corpora.Chosen | None, dict[str, Any]]:
    """(the pictures, what they are drawn for, facts): a folder's own, or drawn by the first
    protocol's rules.
    """
    if subject.system is None:
        said = subject.pictures.captions
        told = {
            "rule": "of the folder",
            "count": len(said or ()),
            "digest": fingerprint(said or ()),
        }
        return subject.pictures, None, {"captions": told} if said else {}
    how = plans[0].protocol.samples
    chosen = corpora.choose(args, subject.system, data, how, labels)
    rule = "" if how.quantise == ANY else how.quantise
    fake = draw(args, subject, chosen, rule, labels=chosen.labels)
    facts = {"captions": {"rule": chosen.rule, "count": len(chosen.said), "digest": chosen.digest}}
    if not args.save:
        return fake, chosen, facts
    rounded = "floor" if fake.made["quantise"] == "none" else fake.made["quantise"]
    fake, rate = saved(args, subject, fake, rounded)
    return fake, chosen, facts | {"saved": str(args.save), "drawn_per_s": round(rate, 1)}


# --- Scores ------------------------------------------------------------------------------------


def trained_on(run: Run | None, data: str) -> list[str]:
    """What to know where a run is held against pictures that it was trained on."""
    if run is None or data or not run.facts.seen:
        return []
    return [
        "the real pictures and captions are those that the run was trained on: its data had none "
        "apart, so this says nothing of new captions"
    ]


def judge(args: argparse.Namespace) -> report.Result:
    """Judges what the command line names.

    Args:
      args: of `jaxt2i.evaluate`.
    """
    more = extra.METRICS
    first = protocols.get(args.protocols[0])
    subject = subjects.subject_of(args, first)
    run = subject.of.run if subject.of else None
    step = "" if subject.step is None else f" at step {subject.step:,}"
    log.say(f"judging {subject.name}{step}")
    data = None
    if run or args.data:
        data = corpora.open_data(args.data, args.changes, args.split, first, run, args.resolution)
    if subject.system is not None and layouts.draws_layouts(subject.system):
        return judge_layouts(args, subject, data, first)
    plans, extras = plans_of(args, subject, data, more)
    asked = {m for plan in plans for m in plan.metrics} | set(extras)
    labels = bool(asked & {"clip_score", "r_precision", "independent"})
    fake, chosen, facts = judged_pictures(args, subject, data, plans, labels)
    beside.check(args, subject.system, data, chosen, [more[name] for name in extras])
    reader = Reader(args.weights, args.batch)
    result = report.Result(subject.name, subject.step, [], plans[0].protocol, facts=facts)
    result.notes += getattr(data.source, "notes", []) if data else []
    result.notes += trained_on(run, args.data)
    references = References(args, subject, data, reader)
    check_reference(args, plans)
    seen = see(args, subject, fake, plans, reader, result)
    pictures = fake.pictures(range(min(fake.count, SHEET))) if seen is None else seen.first
    for plan in plans:
        under(args, subject, data, chosen, plan, fake, seen, reader, references, result)
    case = extra.Case(args, subject, data, chosen, fake, None, reader, result)
    result.scores += by_extras(case, {name: more[name] for name in extras}, references)
    shown = sorted(pictures)[:SHEET]
    result.sheet = [pictures[row] for row in shown]
    result.grid = result.sheet[:GRID]
    result.captions = [fake.captions[r] for r in shown] if fake.captions else ()
    if subject.system is not None:
        result.drawn, result.rows = subject.system.about, fake.rows(shown[:GRID])
        result.listed = chosen.lines(data.source)
    if fake.lacking and not args.metrics:
        result.notes.append(f"left out {' and '.join(scores.NEEDS_TEXT)}: {fake.lacking}")
    result.facts |= {"peak_memory_mb": peak_mb()} | ({"stated": args.stated} if args.stated else {})
    return result


def by_extras(case: extra.Case, metrics: Mapping[str, Any], references: References) -> list[Score]:
    """The scores of metrics beside those of protocols."""
    rule = case.fake.made.get("quantise", "")

    def redrawn(conditions: Any) -> sets.Set:
        other = dataclasses.replace(case.chosen, conditions=conditions)
        return draw(case.args, case.subject, other, rule, labels=other.labels)

    others, out = beside.cases(case, redrawn), []
    for metric in metrics.values():
        if "real" in metric.needs:
            case.real = references.pictures(protocols.get(case.args.protocols[0]).reference)
        out += beside.scores(others, metric, metric.compute(case))
    return out


def judge_layouts(args: argparse.Namespace, subject, data, first: Protocol) -> report.Result:
    """Judges a system that draws layouts alone.

    Raises:
      MetricError: for metrics of pictures.
    """
    able = [name for name, metric in extra.METRICS.items() if metric.layouts]
    scenes = (data.config.source, data.config.get("corpus")) == ("synthetic", "scenes")
    asked = args.metrics or [m for m in able if m != "relations" or scenes]
    if strange := [m for m in asked if m not in able]:
        raise MetricError(
            f"{', '.join(strange)} judge pictures, and {subject.of.run.config.method} draws "
            f"layouts: ask for {' or '.join(able)}, or judge the system that draws from them, with "
            f"--after {subject.name}"
        )
    if args.save or args.reference or args.layouts:
        option = "--save" if args.save else "--reference" if args.reference else "--layouts"
        raise MetricError(
            f"{option} is of pictures, and {subject.name} draws layouts: leave it out"
        )
    chosen = corpora.choose(args, subject.system, data, first.samples, False)
    fake = draw(args, subject, chosen, "")
    told = {"rule": chosen.rule, "count": len(chosen.said), "digest": chosen.digest}
    result = report.Result(subject.name, subject.step, [], first, facts={"captions": told})
    case = extra.Case(args, subject, data, chosen, fake, None, Reader(args.weights), result)
    for name in asked:
        result.scores += extra.METRICS[name].compute(case)
    result.drawn, result.listed = subject.system.about, chosen.lines(data.source)
    result.facts["peak_memory_mb"] = peak_mb()
    return result


def peak_mb() -> int:
    """The most memory that this process has held so far."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)


def check_reference(args: argparse.Namespace, plans: Sequence[Plan]) -> None:
    """Refuses a --reference that is not there, that nothing compares with, or that holds no
    pictures for lpips, before any picture is looked at.
    """
    metrics = [m for plan in plans for m in plan.metrics]
    if args.reference and not set(metrics) & {*scores.NEEDS_REAL, "lpips"}:
        raise MetricError(
            f"--reference {args.reference}: none of the metrics ({', '.join(metrics) or 'none'}) "
            "compares with real pictures; leave it out, or ask for fid"
        )
    given = args.reference not in ("", "data") and not args.reference.lower().endswith(".npz")
    if given and not args.reference_path.is_dir():
        what = "a file" if args.reference_path.is_file() else "no such folder"
        raise MetricError(
            f"--reference {args.reference}: {what}; give a folder of pictures, statistics as "
            ".npz with the arrays mu and sigma, or `data` for those of --data"
        )
    if "lpips" in metrics and args.reference in ("", "data"):
        raise MetricError("lpips compares with real pictures: give --reference DIR or FILE.npz")
    if "lpips" in metrics and args.reference.lower().endswith(".npz"):
        raise MetricError(
            f"lpips compares pictures with pictures, and {args.reference} holds none: give "
            "--reference DIR with the originals, under the same names"
        )


def see(args, subject, fake, plans: Sequence[Plan], reader: Reader, result) -> Seen | None:
    """What the networks of all protocols see in the judged pictures, in one pass."""
    kept: dict[Look, tuple[str, ...]] = collections.defaultdict(tuple)
    for plan in plans:
        scores.check_captions(fake, plan.seeing)
        if "damsm" in [look.network for look in plan.looks.values()]:
            subjects.lend_damsm(args, reader, subject.of)
        for look, names in scores.outputs(plan.protocol, plan.looks).items():
            kept[look] = tuple(dict.fromkeys((*kept[look], *names)))
    if not kept:
        return None
    seen = reader.read(fake, kept, first=SHEET)
    for look in kept:
        result.facts.setdefault("networks", {}).update(reader.told(look.network))
    made = "read_per_s" if subject.system is None or args.save else "drawn_per_s"
    result.facts |= {
        "images_per_s": round(seen.images_per_s, 1),
        made: round(seen.made_per_s, 1),
        "seen_per_s": round(seen.seen_per_s, 1),
        "skipped": seen.skipped,
    }
    return seen


def under(
    args, subject, data, chosen, plan: Plan, fake, seen, reader: Reader, references, result
) -> None:
    """Adds the scores of one protocol, and the record of how they were measured."""
    protocol, before = plan.protocol, len(result.scores)
    compared = references.compared(plan)
    done: dict[str, Any] = {}
    if plan.seeing:
        evidence = scores.Evidence(
            *(protocol, fake, seen, plan.looks, reader),
            real=compared.real if compared else None,
            seen_real=compared.seen if compared else None,
            reference=compared.gaussian if compared else None,
            intervals=args.intervals,
            reference_says=compared.given.says if compared and compared.given else "",
        )
        train = training(subject, data, plan, reader) if "memorised" in plan.metrics else None
        evidence.train = train and train[1]
        result.scores += scores.compute(plan.seeing, evidence)
        done = evidence.done
        tables(plan, evidence, result)
        if train:
            neighbours(plan, evidence, train, result)
        if compared and compared.file and compared.moments is None and jax.process_index() == 0:
            keep(compared, evidence, plan, done)
        note(args, plan, fake, seen, compared, result)
    pairs(args, subject, chosen, plan, fake, reader, references, result, done)
    size = record.size_for(protocol)
    samples = record.samples_of(subject, data, chosen, fake, seen, size)
    ours = record.reference_of(compared, protocol.reference.then)
    measured = record.stated(record.measured(protocol, samples, ours, done), args.stated)
    result.records[protocol.name] = measured
    if len(result.records) == 1:
        result.measured = measured
    found = result.scores[before:]
    result.scores[before:] = [s.with_facts(protocol=protocol.name) for s in found]
    result.notes += fewer(protocol, samples.count)
    result.notes += record.withheld(measured, found)
    if protocol.note and any(report.beside(result, s) for s in result.scores[before:]):
        result.notes.append(f"{protocol.name}: {protocol.note}")


def keep(compared: Compared, evidence: scores.Evidence, plan: Plan, done: dict[str, Any]) -> None:
    """Keeps moments of the reference for the next time."""
    ours = record.reference_of(compared, plan.protocol.reference.then)
    made = record.measured(plan.protocol, protocols.Samples(), ours, done)
    first = next(m for m in plan.looks if m in scores.NEEDS_REAL)
    found = scores.gaussian_of(evidence, first)
    reference.keep(compared.file, found, made, compared.digest)


def fewer(protocol: Protocol, count: int) -> list[str]:
    """What to know where fewer pictures are judged than the protocol asks for."""
    wanted = protocol.samples.count
    if count >= wanted:
        return []
    return [
        f"{count:,} pictures were judged, and numbers under {protocol.name} are of {wanted:,}: not "
        "to be compared"
    ]


def note(args, plan: Plan, fake, seen: Seen, compared: Compared | None, result) -> None:
    """What to know about pictures that cannot be read, their sizes, and statistics of a file."""
    real = compared.real if compared else None
    names = fake.name, real.name if real else args.reference
    if not record.size_for(plan.protocol):
        result.notes += reference.odd(seen, compared.seen if compared else None, names)
    if compared and compared.seen:
        result.facts["skipped_reference"] = compared.seen.skipped
    if compared and compared.given:
        result.notes += reference.note_of(args.reference_path, compared.given.says)


def tables(plan: Plan, evidence: scores.Evidence, result: report.Result) -> None:
    """Adds the CLIP score of each class, where there are classes."""
    if "clip_score" not in plan.metrics or evidence.fake.labels is None:
        return
    how = plan.protocol.clip
    text = evidence.reader.texts(how.network, [how.prompt + c for c in evidence.captions()])
    values = retrieval.cosines(evidence.of_fake("clip_score", "embedding"), text)
    if table := scores.by_class(evidence, values):
        result.breakdowns["CLIP score by class, the rarest first"] = {
            name: {"clip_score": value, "pictures": count} for name, (value, count) in table.items()
        }


def training(subject, data, plan: Plan, reader: Reader) -> tuple[sets.Set, np.ndarray, Seen]:
    """(training pictures, their features, what was seen), by the look of "memorised"."""
    drawn_from = own.training_of(subject, data)
    count = min(drawn_from.size or own.TRAIN, own.TRAIN)
    pictures = sets.of_source(drawn_from, "training pictures", range(count))
    look = plan.looks["memorised"]
    seen = reader.read(pictures, [look])
    return pictures, seen.features[look][scores.feature_name(look)], seen


def neighbours(plan: Plan, evidence: scores.Evidence, train: tuple, result) -> None:
    """Shows the first pictures beside their nearest training pictures."""
    pictures, features, seen = train
    query = evidence.of_fake("memorised", scores.feature_name(plan.looks["memorised"]))
    near = nearest.neighbours(query[:NEIGHBOURS], features)
    drawn = evidence.seen.first or evidence.fake.pictures(range(NEIGHBOURS))
    rows = evidence.seen.rows[:NEIGHBOURS].tolist()
    index = seen.rows[near.index[:, 0]].tolist()
    real = pictures.pictures(index)
    pairs = zip(rows, index, near.distance[:, 0].tolist(), strict=True)
    result.neighbours = [(drawn[r], real[i], far) for r, i, far in pairs if r in drawn]


def pairs(
    args, subject, chosen, plan: Plan, fake, reader: Reader, references, result, done
) -> None:
    """Adds the scores of pairs of pictures."""
    for metric in [m for m in plan.metrics if m in scores.PAIRED]:
        net = plan.protocol.perceptual.network
        if metric == "diversity":
            rule = fake.made["quantise"]
            few, samples = chosen.said[: perceptual.DIVERSE], perceptual.SAMPLES
            several = draw(args, subject, chosen, rule, captions=few, samples=samples)
            score = perceptual.of_samples(reader, several, samples, net)
        else:
            originals = references.pictures(plan.protocol.reference)
            score = perceptual.of_edits(reader, fake, originals, net)
        result.scores.append(score)
        weights = reader.provenance(f"lpips_{net}")
        done["perceptual"] = dataclasses.replace(plan.protocol.perceptual, weights=weights)
        result.facts.setdefault("networks", {}).update(reader.told(f"lpips_{net}"))
