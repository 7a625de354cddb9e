"""Several runs or folders held side by side: scores, and differences in pairs.

All were made for the same captions, and runs drew them with the same seeds, so that what a caption
or a latent does to a score cancels in a difference: its interval comes from resampled captions, the
same ones for both.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxt2i import recognise
from jaxt2i.evaluation import judges, scores, sets
from jaxt2i.evaluation.reading import Reader, Seen
from jaxt2i.evaluation.report import LOWER_IS_BETTER
from jaxt2i.evaluation.scores import Evidence
from jaxt2i.evaluation.sides import Sides, only
from jaxt2i.metrics import confidence, frechet, kernel, manifold, retrieval
from jaxt2i.metrics import inception_score as inception
from jaxt2i.metrics.protocols import Protocol, settings
from jaxt2i.metrics.score import Interval, MetricError, Score

# Captions shown side by side, and captions shown where two sides differ most.
SHOWN, APART = 24, 6
RECOGNISED = "recognised"


@dataclasses.dataclass(frozen=True)
class Difference:
    """The score of one side less that of another.

    Attributes:
      metric: name of the score.
      first: number of a side.
      second: of the other.
      value: the difference.
      interval: of it; None where there are too few captions for one.
    """

    metric: str
    first: int
    second: int
    value: float
    interval: Interval | None

    @property
    def better(self) -> int | None:
        """The side that is better beyond its interval; None: the interval holds zero."""
        if self.interval is None or self.interval.low <= 0 <= self.interval.high:
            return None
        lower = self.metric in LOWER_IS_BETTER
        return self.first if (self.value < 0) == lower else self.second


@dataclasses.dataclass
class Comparison:
    """What was found.

    Attributes:
      names: of the sides.
      captions: of the compared rows.
      scores: of every side.
      differences: of every metric, every pair of sides.
      values: {metric: [S, N], what every caption adds to it}, of metrics that are means.
      pictures: {caption's row: a picture of every side}, to be shown.
      apart: {caption's row: (metric, difference)} of those shown because sides differ most there.
      measured: how.
      facts: how captions and seeds were chosen.
      notes: what else to know.
    """

    names: tuple[str, ...]
    captions: tuple[str, ...]
    scores: list[list[Score]]
    differences: list[Difference]
    values: dict[str, np.ndarray]
    pictures: dict[int, list[np.ndarray]]
    apart: dict[int, tuple[str, float]]
    measured: Protocol
    facts: dict[str, Any]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "runs": [
                {"name": name, "scores": [s.as_dict() for s in found]}
                for name, found in zip(self.names, self.scores, strict=True)
            ],
            "differences": [
                {
                    "metric": d.metric,
                    "of": self.names[d.first],
                    "and": self.names[d.second],
                    "difference": d.value,
                    "interval": d.interval and d.interval._asdict(),
                    "better": None if d.better is None else self.names[d.better],
                }
                for d in self.differences
            ],
            "captions": list(self.captions),
            "by_caption": {name: x.tolist() for name, x in self.values.items()},
            "protocol": settings(self.measured),
            "facts": self.facts,
            "notes": self.notes,
        }


def compare(
    sides: Sides,
    protocol: Protocol,
    metrics: Sequence[str],
    reader: Reader,
    *,
    reference: sets.Set | None = None,
    facts: Mapping[str, Any] | None = None,
    cache: Path | None = None,
) -> Comparison:
    """Measures sides and their differences.

    Args:
      sides: what is compared.
      protocol: how is measured.
      metrics: which, keys of `PAIRS` or of `judges.JUDGES`, or "recognised".
      reader: of pictures and captions.
      reference: real pictures; None: the held-out ones of the first run.
      facts: for the record.
      cache: of recognisers.

    Raises:
      MetricError: for a metric that needs what there is not.
    """
    check(sides, metrics, reference)
    by_networks = [m for m in metrics if m in PAIRS]
    looks = scores.looks_of(protocol, by_networks)
    real = reference or sides.real
    compared = list(scores.of_reference(protocol, looks).values())
    seen_real = reader.read(real, compared) if compared else None
    seen = [reader.read(s, looks.values()) for s in sides.sets] if looks else []
    sides, seen, rows, notes = of_common_rows(sides, seen)
    # Without networks of features there is nothing that was seen.
    evidence = [
        Evidence(protocol, one, found, looks, reader, real, seen_real)
        for one, found in zip(sides.sets, seen, strict=bool(seen))
    ]
    table = [scores.compute(by_networks, e) for e in evidence] or [[] for _ in sides.sets]
    paired = [p for m in by_networks for p in PAIRS[m](evidence)]
    parts = [judged(sides, [m for m in metrics if m in judges.JUDGES], reader)]
    if RECOGNISED in metrics:
        parts.append(recognised(sides, cache))
    for found, more in parts:
        table = [mine + theirs for mine, theirs in zip(table, found, strict=True)]
        paired += more
    differences = [d for p in paired for d in p.differences(table)]
    values = {p.metric: p.values for p in paired if p.values is not None and p.by_caption}
    apart = most_apart(values)
    shown = [*apart, *(r for r in range(min(SHOWN, len(rows))) if r not in apart)]
    pictures = [s.pictures(shown) for s in sides.sets]
    out = Comparison(
        *(sides.names, sides.captions, table, differences, values),
        {r: [p[r] for p in pictures] for r in shown if all(r in p for p in pictures)},
        *(apart, protocol, dict(facts or {}), [*sides.notes, *notes]),
    )
    out.notes += many(out)
    return out


def check(sides: Sides, metrics: Sequence[str], reference: sets.Set | None) -> None:
    """Refuses metrics that need what there is not.

    Raises:
      MetricError: says which, and what they need.
    """
    known = (*PAIRS, *judges.JUDGES, RECOGNISED)
    if strange := [m for m in metrics if m not in known]:
        raise MetricError(f"{strange[0]} is not compared in pairs; known: {', '.join(known)}")
    if reference is None and sides.real is None:
        lacking = [m for m in metrics if m in scores.NEEDS_REAL]
        if lacking:
            raise MetricError(
                f"{', '.join(lacking)} compare with real pictures, and no run is among the sides: "
                "give --reference DIR"
            )
    if RECOGNISED in metrics and not sides.corpus:
        raise MetricError(
            "recognised judges drawings of the procedural corpora; the first run among the sides "
            "was trained on other data, or there is none: choose other --metrics"
        )


def of_common_rows(
    sides: Sides, seen: list[Seen]
) -> tuple[Sides, list[Seen], np.ndarray, list[str]]:
    """Everything without the captions of which some side's picture cannot be read.

    Raises:
      MetricError: where nothing is left.
    """
    rows = np.arange(len(sides.captions))
    for found in seen:
        rows = np.intersect1d(rows, found.rows)
    if not len(rows):
        raise MetricError("no caption has a readable picture on every side")
    if len(rows) == len(sides.captions):
        return sides, seen, rows, []
    kept = []
    for found in seen:
        at = np.searchsorted(found.rows, rows)
        features = {k: {n: x[at] for n, x in v.items()} for k, v in found.features.items()}
        kept.append(dataclasses.replace(found, rows=np.arange(len(rows)), features=features))
    fewer = dataclasses.replace(
        sides,
        sets=tuple(only(s, rows) for s in sides.sets),
        captions=tuple(sides.captions[r] for r in rows),
    )
    lost = len(sides.captions) - len(rows)
    note = f"{lost} captions were left out, as a picture of some side cannot be read"
    return fewer, kept, rows, [note]


def most_apart(values: Mapping[str, np.ndarray]) -> dict[int, tuple[str, float]]:
    """{row: (metric, difference)} where the first two sides differ most, half in either way."""
    for metric in ("clip_score", *values):
        if metric in values:
            gap = values[metric][0] - values[metric][1]
            order = np.argsort(gap, kind="stable")
            chosen = [*order[::-1][: APART // 2], *order[: APART // 2]]
            return {int(r): (metric, float(gap[r])) for r in chosen if gap[r]}
    return {}


def many(of: Comparison) -> list[str]:
    """What to know where many differences were looked at."""
    with_interval = [d for d in of.differences if d.interval is not None]
    apart = sum(d.better is not None for d in with_interval)
    if len(with_interval) < 2:
        return []
    return [
        f"{apart} of {len(with_interval)} intervals of differences do not hold zero; of sides that "
        f"are alike, one in twenty would not ({len(with_interval) / 20:.1f} here)"
    ]


# --- Differences of each kind of metric ---------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Paired:
    """How differences of one score are measured.

    Attributes:
      metric: name of the score.
      interval: (side, side, difference) -> its interval.
      values: [S, N], what every row adds to a score that is a mean; None where it is none.
      by_caption: rows are captions.
    """

    metric: str
    interval: Callable[[int, int, float], Interval | None]
    values: np.ndarray | None = None
    by_caption: bool = True

    def differences(self, table: Sequence[Sequence[Score]]) -> list[Difference]:
        """Of every pair of sides."""
        value = [next(s.value for s in found if s.metric == self.metric) for found in table]
        out = []
        for a, b in itertools.combinations(range(len(table)), 2):
            gap = value[a] - value[b]
            out.append(Difference(self.metric, a, b, gap, self.interval(a, b, gap)))
        return out


def of_means(metric: str, values: Sequence[np.ndarray], by_caption: bool = True) -> Paired:
    """A score that is a mean over rows."""
    table = np.stack([np.asarray(v, np.float64) for v in values])

    def interval(a: int, b: int, gap: float) -> Interval | None:
        if table.shape[1] < 2:
            return None
        found = confidence.of_mean(table[a] - table[b])
        # A score may be a mean over folds, which leave a few rows out: the spread stays.
        shift = gap - float((table[a] - table[b]).mean())
        method = f"{found.method}, in pairs"
        return Interval(found.low + shift, found.high + shift, found.level, method)

    return Paired(metric, interval, table, by_caption)


def _fid(e: Sequence[Evidence]) -> list[Paired]:
    name, how = scores.feature_of(e[0], "fid"), e[0].protocol.fid
    fake = [scores.whole(x.of_fake("fid", name), how.whole_batches) for x in e]
    real = scores.gaussian_of(e[0], "fid")

    def interval(a: int, b: int, gap: float) -> Interval | None:
        if len(fake[a]) < scores.GROUPED:
            return None
        return confidence.of_fid_difference(real, fake[a], fake[b], ddof=how.ddof, repeats=20)

    return [Paired("fid", interval)]


def _kernel(e: Sequence[Evidence], metric: str, unit: bool, **how: Any) -> list[Paired]:
    name = scores.feature_of(e[0], metric)
    fake, real = [x.of_fake(metric, name) for x in e], e[0].of_real(metric, name)
    if unit:
        *fake, real = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (*fake, real))

    def interval(a: int, b: int, gap: float) -> Interval | None:
        if min(len(fake[a]), len(real)) < scores.GROUPED:
            return None
        return confidence.of_kid_difference(fake[a], fake[b], real, gap, **how)

    return [Paired(metric, interval)]


def _cmmd(e: Sequence[Evidence]) -> list[Paired]:
    rbf = kernel.gaussian_rbf(e[0].protocol.cmmd.sigma)
    return _kernel(e, "cmmd", True, kernel=rbf, scale=1000)


def _inception(e: Sequence[Evidence]) -> list[Paired]:
    how = e[0].protocol.inception
    logits = [x.of_fake("inception_score", how.output) for x in e]
    options: dict[str, Any] = {
        name: getattr(how, name) for name in ("order", "first", "splits", "whole_batches")
    }

    def interval(a: int, b: int, gap: float) -> Interval | None:
        if len(logits[a]) < 2 * how.splits:
            return None

        def statistic(rows: np.ndarray) -> float:
            one, other = (inception.inception_score(logits[s][rows], **options) for s in (a, b))
            return one.value - other.value

        found = confidence.of_statistic(statistic, len(logits[a]), repeats=100)
        return found._replace(method=f"{found.method}, in pairs")

    return [Paired("inception_score", interval)]


def _balls(e: Sequence[Evidence]) -> list[Paired]:
    how, name = e[0].protocol.balls, scores.feature_of(e[0], "precision_recall")
    real = e[0].of_real("precision_recall", name)[: how.real]
    found = [
        manifold.manifold(
            x.of_fake("precision_recall", name)[: how.count],
            real,
            k=how.k,
            closed=how.closed,
            half=how.half,
        )
        for x in e
    ]
    return [
        of_means(key, [getattr(x, key) for x in found], key in ("precision", "density"))
        for key in ("precision", "recall", "density", "coverage")
    ]


def _clip(e: Sequence[Evidence]) -> list[Paired]:
    how, captions = e[0].protocol.clip, e[0].captions()
    text = e[0].reader.texts(how.network, [how.prompt + caption for caption in captions])
    values = [
        retrieval.scaled(retrieval.cosines(x.of_fake("clip_score", "embedding"), text), how.scale)
        for x in e
    ]
    return [of_means("clip_score", values)]


def _retrieval(e: Sequence[Evidence]) -> list[Paired]:
    how, captions = e[0].protocol.retrieval, e[0].captions()
    text = e[0].reader.texts(e[0].looks["r_precision"].network, captions)
    image = [x.of_fake("r_precision", "embedding") for x in e]
    if how.rule == "pool":
        found = [retrieval.pool_hits(x, text, how.candidates) for x in image]
        return [of_means("pool_precision", [100 * x for x in found])]
    classes = e[0].labels() if how.negatives == "other_class" else None
    label = np.unique(captions, return_inverse=True)[1] if classes is None else classes
    others = retrieval.negatives(label, how.candidates - 1)
    return [of_means("r_precision", [100.0 * retrieval.hits(x, text, others) for x in image])]


PAIRS: dict[str, Callable[[Sequence[Evidence]], list[Paired]]] = {
    "fid": _fid,
    "inception_score": _inception,
    "kid": lambda e: _kernel(e, "kid", False),
    "precision_recall": _balls,
    "clip_score": _clip,
    "r_precision": _retrieval,
    "cmmd": _cmmd,
}


# --- Judges that see pictures and captions themselves -------------------------------------------


def judged(
    sides: Sides, metrics: Sequence[str], reader: Reader
) -> tuple[list[list[Score]], list[Paired]]:
    """(scores of every side, their differences) by networks that learned from people's choices.

    Raises:
      MetricError: where a picture cannot be read.
    """
    if not metrics:
        return [[] for _ in sides.sets], []
    found = [judges.verdicts(metrics, one, reader) for one in sides.sets]
    for one, verdicts in zip(sides.sets, found, strict=True):
        check_whole(one, len(verdicts[metrics[0]].rows))
    table = [[verdicts[m].score() for m in metrics] for verdicts in found]
    return table, [of_means(m, [verdicts[m].values for verdicts in found]) for m in metrics]


def check_whole(of: sets.Set, read: int) -> None:
    """Refuses a side of which pictures cannot be read.

    Raises:
      MetricError: says how many.
    """
    if read < of.count:
        raise MetricError(
            f"{of.name}: {of.count - read} pictures cannot be read; mend or remove them, and their "
            "captions"
        )


# --- The recogniser of the procedural corpora ----------------------------------------------------


def recognised(sides: Sides, cache: Path | None) -> tuple[list[list[Score]], list[Paired]]:
    """(scores of every side, their differences) by the recogniser of the first run's corpus."""
    eye = recognise.eye(sides.corpus, cache=cache)
    truth, _ = recognise.real(eye, "val", recognise.REAL)
    wanted, table, features = recognise.gaussian(truth["features"]), [], []
    found = []
    for one in sides.sets:
        shown = one.pictures(range(one.count))
        check_whole(one, len(shown))
        pixels = np.stack(list(shown.values()))
        seen = recognise.readings(eye, pixels)
        features.append(seen["features"])
        found.append(recognise.held_against(eye, seen, sides.captions)["by_picture"])
        value = frechet.fid(wanted, recognise.gaussian(seen["features"])).value
        facts = {"network": "recogniser", "corpus": sides.corpus, "generated": one.count}
        mine = [Score("recognised_frechet", value, facts=facts)]
        for name, counts in found[-1].items():
            right, said = counts.T
            if said.any():
                score = Score(f"recognised_{name}", float(right.sum() / said.sum()), facts=facts)
                mine.append(score.with_interval(confidence.of_share(right, said)))
        table.append(mine)

    def of_distance(a: int, b: int, gap: float) -> Interval | None:
        if len(features[a]) < scores.GROUPED:
            return None
        return confidence.of_fid_difference(wanted, features[a], features[b])

    paired = [Paired("recognised_frechet", of_distance)]
    for name, counts in found[0].items():
        if counts[:, 1].any():
            paired.append(of_ratios(f"recognised_{name}", [f[name] for f in found]))
    return table, paired


def of_ratios(metric: str, counts: Sequence[np.ndarray]) -> Paired:
    """A score that is a ratio of sums, of [N, 2]: how much is right, out of how much is said."""

    def interval(a: int, b: int, gap: float) -> Interval | None:
        def statistic(rows: np.ndarray) -> float:
            said = max(counts[a][rows, 1].sum(), 1)
            return float((counts[a][rows, 0].sum() - counts[b][rows, 0].sum()) / said)

        if len(counts[a]) < 2:
            return None
        found = confidence.of_statistic(statistic, len(counts[a]), repeats=1000)
        return found._replace(method=f"{found.method}, in pairs")

    return Paired(metric, interval)
