"""From what networks saw to scores, under a protocol."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxt2i.evaluation.reading import Look, Reader, Seen
from jaxt2i.evaluation.sets import Set
from jaxt2i.metrics import confidence, frechet, kernel, manifold, nearest, retrieval
from jaxt2i.metrics import inception_score as inception
from jaxt2i.metrics import statistics as stats
from jaxt2i.metrics.protocols import Protocol
from jaxt2i.metrics.score import Interval, MetricError, Score

# What may be asked for, and the part of a protocol that says how.
METRICS = {
    "fid": "fid",
    "fid_inf": "fid",
    "inception_score": "inception",
    "kid": "kid",
    "precision_recall": "balls",
    "clip_score": "clip",
    "r_precision": "retrieval",
    "cmmd": "cmmd",
    "diversity": "perceptual",
    "lpips": "perceptual",
    "memorised": "fid",
}
# Judged by pairs of pictures, not by what networks see in each.
PAIRED = ("diversity", "lpips")
NEEDS_REAL = ("fid", "fid_inf", "kid", "precision_recall", "cmmd", "memorised")
NEEDS_TEXT = ("clip_score", "r_precision")
# Intervals of FID, KID and CMMD deal the images to 20 groups of two or more.
GROUPED = 40


def looks_of(protocol: Protocol, metrics: Sequence[str]) -> dict[str, Look]:
    """{metric: how its pictures are looked at}.

    Where the protocol brings what was drawn to another size, so does each look.

    Raises:
      MetricError: where the protocol does not say how a metric is measured.
    """
    out, how = {}, protocol.samples
    size = how.resolution if how.resize == "lanczos" else 0
    for metric in metrics:
        if metric not in METRICS:
            raise MetricError(f"no metric {metric!r}; known: {', '.join(METRICS)}")
        part = getattr(protocol, METRICS[metric])
        if part is None:
            raise MetricError(
                f"the protocol {protocol.name} does not say how {metric} is measured; it measures "
                f"{', '.join(m for m, p in METRICS.items() if getattr(protocol, p))}. Choose "
                "another --protocol, or other --metrics"
            )
        if metric in PAIRED:
            continue
        if metric == "fid_inf":
            out["fid"] = Look(part.network, part.input, size)
        if metric == "r_precision" and part.network == "damsm":
            out[metric] = Look("damsm", "unit_range", size)
        elif metric == "r_precision":
            network = f"openai_{part.network.removeprefix('clip_')}"
            out[metric] = Look(network, "pillow_bicubic_crop", size)
        else:
            out[metric] = Look(part.network, part.input, size)
    return out


def of_reference(protocol: Protocol, looks: Mapping[str, Look]) -> dict[str, Look]:
    """{metric: how the real pictures are looked at}, of the metrics that compare with them."""
    size = protocol.reference.then
    return {m: dataclasses.replace(x, size=size) for m, x in looks.items() if m in NEEDS_REAL}


def outputs(protocol: Protocol, looks: Mapping[str, Look]) -> dict[Look, tuple[str, ...]]:
    """{look: what is kept of what its network gives}."""
    out: dict[Look, tuple[str, ...]] = {}
    for metric, look in looks.items():
        score = metric == "inception_score"
        name = protocol.inception.output if score else feature_name(look)
        out[look] = tuple(dict.fromkeys((*out.get(look, ()), name)))
    return out


def feature_name(look: Look) -> str:
    """The name of the features that metrics compare."""
    return "2048" if look.network.startswith("inception") else "embedding"


@dataclasses.dataclass
class Evidence:
    """Everything that scores are made of.

    Attributes:
      protocol: how to measure.
      fake: the judged set.
      seen: what was seen in it.
      looks: of `looks_of`.
      real: the reference set; None where there is none.
      seen_real: what was seen in it.
      reference: moments of the reference that were computed elsewhere.
      reader: for captions.
      train: features of training pictures by the look of FID, for "memorised".
      intervals: whether to resample.
      reference_says: what a file of moments does not tell, in words.
      done: {part of a protocol: its fields as they were measured}, filled by what measures.
    """

    protocol: Protocol
    fake: Set
    seen: Seen
    looks: dict[str, Look]
    reader: Reader
    real: Set | None = None
    seen_real: Seen | None = None
    reference: stats.Gaussian | None = None
    train: np.ndarray | None = None
    intervals: bool = True
    reference_says: str = ""
    done: dict[str, Any] = dataclasses.field(default_factory=dict)

    def note(self, metric: str, **used: Any) -> None:
        """Records how a metric was measured: what it looked at, and the numbers that it used."""
        part = METRICS[metric]
        look = self.looks[metric]
        known = {"weights": self.reader.provenance(look.network), **used}
        if part != "retrieval":
            known |= {"network": look.network, "input": look.input}
        before = self.done.get(part, getattr(self.protocol, part))
        self.done[part] = dataclasses.replace(before, **known)

    def of_fake(self, metric: str, name: str) -> np.ndarray:
        """Features of the judged set."""
        return self.seen.features[self.looks[metric]][name]

    def of_real(self, metric: str, name: str) -> np.ndarray:
        """Features of the reference set.

        Raises:
          MetricError: where there are only moments of it, or nothing.
        """
        if self.seen_real is None:
            raise MetricError(
                f"{metric} compares with the reference's pictures themselves: give --reference DIR"
            )
        look = of_reference(self.protocol, {metric: self.looks[metric]})[metric]
        return self.seen_real.features[look][name]

    def captions(self) -> list[str]:
        """Captions of the judged pictures that could be read.

        Raises:
          MetricError: where there are none.
        """
        check_captions(self.fake, ("clip_score", "r_precision"))
        return [self.fake.captions[r] for r in self.seen.rows]

    def labels(self) -> np.ndarray:
        """Classes of the judged pictures; each its own where there are none."""
        if self.fake.labels is None:
            return self.seen.rows
        return self.fake.labels[self.seen.rows]


def check_captions(fake: Set, metrics: Sequence[str]) -> None:
    """Refuses a set without captions where a metric reads them.

    Raises:
      MetricError: says which pictures have none.
    """
    reading = [m for m in metrics if m in NEEDS_TEXT]
    if reading and fake.captions is None:
        why = fake.lacking or f"{fake.name} has no captions"
        raise MetricError(
            f"{why}; {' and '.join(reading)} need them: put a.txt beside each a.png, or a "
            "metadata.jsonl into the folder"
        )


def whole(x: np.ndarray, batch: int) -> np.ndarray:
    """The rows of whole batches, for protocols that leave a smaller last one out."""
    return x[: len(x) // batch * batch] if batch > 1 and len(x) >= batch else x


def gaussian_of(e: Evidence, metric: str) -> stats.Gaussian:
    """Moments of the reference."""
    if e.reference is not None:
        return e.reference
    rows = stats.of_rows(e.of_real(metric, feature_of(e, metric)))
    return stats.gaussian(rows, "pictures of the reference")


def feature_of(e: Evidence, metric: str) -> str:
    """The name of the features that a metric compares."""
    return feature_name(e.looks[metric])


def _fid(e: Evidence) -> list[Score]:
    how = e.protocol.fid
    fake = whole(e.of_fake("fid", feature_of(e, "fid")), how.whole_batches)
    real = gaussian_of(e, "fid")
    moments = stats.gaussian(stats.of_rows(fake), "pictures to judge")
    score = frechet.fid(real, moments, ddof=how.ddof)
    e.note("fid", ddof=how.ddof, whole_batches=how.whole_batches)
    if not e.intervals:
        return [score]
    if len(fake) < GROUPED:
        return [warned(score, without_interval(len(fake)))]
    score = score.with_interval(interval_of_fid(e, real, fake))
    # Too few images for this many features: what infinitely many would give stands beside it.
    return [score, *(_fid_inf(e, score.interval) if score.warnings else ())]


def interval_of_fid(e: Evidence, real: stats.Gaussian, fake: np.ndarray) -> Interval:
    """As many resamples as take a minute of 2048 features."""
    return confidence.of_fid(real, fake, ddof=e.protocol.fid.ddof, repeats=20)


def without_interval(count: int) -> str:
    """Why there is none."""
    return f"{count} images are too few for an interval of FID, KID or CMMD; draw {GROUPED} or more"


def warned(score: Score, *notes: str) -> Score:
    """The same score with more to know about it."""
    return dataclasses.replace(score, warnings=(*score.warnings, *notes))


def _fid_inf(e: Evidence, of_fid: Interval | None = None) -> list[Score]:
    fake = e.of_fake("fid", feature_of(e, "fid"))
    smallest = min(5000, len(fake) // 2)
    real = gaussian_of(e, "fid")
    score = frechet.fid_infinity(real, fake, smallest=smallest, ddof=e.protocol.fid.ddof)
    if e.intervals and len(fake) >= GROUPED:
        of_fid = of_fid or interval_of_fid(e, real, fake)
        subsets = frechet.subsets(len(fake), smallest)
        fid = score.facts["fid"]
        score = score.with_interval(confidence.of_fid_infinity(score.value, fid, of_fid, subsets))
    return [score]


def _inception(e: Evidence) -> list[Score]:
    how = e.protocol.inception
    logits = e.of_fake("inception_score", how.output)
    names = ("order", "first", "splits", "whole_batches")
    options: dict[str, Any] = {name: getattr(how, name) for name in names}
    score = inception.inception_score(logits, **options)
    e.note("inception_score", output=how.output, **options)
    if e.intervals and len(logits) >= 2 * how.splits:
        score = score.with_interval(confidence.of_inception_score(logits, **options))
    return [score]


def _kid(e: Evidence) -> list[Score]:
    how, name = e.protocol.kid, feature_of(e, "kid")
    fake, real = e.of_fake("kid", name), e.of_real("kid", name)
    size = min(how.size, len(fake), len(real))
    score = kernel.kid(fake, real, subsets=how.subsets, size=size)
    e.note("kid", subsets=how.subsets, size=size)
    if size < how.size:
        note = f"KID in subsets of {size}, as there are no more images; published: {how.size}"
        score = warned(score, note)
    return [grouped(e, score, fake, real)]


def grouped(e: Evidence, score: Score, fake: np.ndarray, real: np.ndarray, **kw: Any) -> Score:
    """The score of a kernel with its interval, where there are images enough for one."""
    if not e.intervals:
        return score
    if min(len(fake), len(real)) < GROUPED:
        return warned(score, without_interval(min(len(fake), len(real))))
    return score.with_interval(confidence.of_kid(fake, real, score.value, **kw))


SHARES = ("precision", "recall", "coverage")


def _balls(e: Evidence) -> list[Score]:
    how, name = e.protocol.balls, feature_of(e, "precision_recall")
    fake = e.of_fake("precision_recall", name)[: how.count]
    real = e.of_real("precision_recall", name)[: how.real]
    found = manifold.manifold(fake, real, k=how.k, closed=how.closed, half=how.half)
    # `real` is the most that may be compared with: it holds where there were fewer.
    used = {"k": how.k, "closed": how.closed, "half": how.half, "real": how.real}
    e.note("precision_recall", count=len(fake), **used)
    out = manifold.scores(found, how.k)
    if e.intervals:
        intervals = {k: confidence.of_share(getattr(found, k)) for k in SHARES}
        intervals["density"] = confidence.of_mean(found.density)
        intervals["f_score"] = confidence.of_f_score(found.precision, found.recall)
        out = {key: score.with_interval(intervals[key]) for key, score in out.items()}
    return list(out.values())


def _clip(e: Evidence) -> list[Score]:
    how, captions = e.protocol.clip, e.captions()
    image = e.of_fake("clip_score", "embedding")
    text = e.reader.texts(how.network, [how.prompt + caption for caption in captions])
    score = retrieval.clip_score(image, text, scale=how.scale)
    e.note("clip_score", scale=how.scale, prompt=how.prompt)
    if e.intervals and len(image) > 1:
        values = retrieval.scaled(retrieval.cosines(image, text), how.scale)
        score = score.with_interval(confidence.of_mean(values))
    return [score]


def _retrieval(e: Evidence) -> list[Score]:
    how, captions = e.protocol.retrieval, e.captions()
    image = e.of_fake("r_precision", "embedding")
    text = e.reader.texts(e.looks["r_precision"].network, captions)
    if how.rule == "pool":
        score = retrieval.pool_precision(image, text, pool=how.candidates)
        e.note("r_precision", rule=how.rule, candidates=how.candidates)
        if e.intervals:
            values = 100 * retrieval.pool_hits(image, text, how.candidates)
            score = score.with_interval(confidence.of_mean(values))
        return [score]
    label = (
        e.labels()
        if how.negatives == "other_class"
        else np.unique(captions, return_inverse=True)[1]
    )
    others = retrieval.negatives(label, how.candidates - 1)
    found = retrieval.hits(image, text, others)
    score = retrieval.retrieval_precision(found, count=how.folds, dropped=how.dropped)
    used = {"candidates": how.candidates, "negatives": how.negatives, "folds": how.folds}
    e.note("r_precision", rule=how.rule, dropped=how.dropped, **used)
    if e.intervals:
        score = score.with_interval(confidence.of_share(found, scale=100))
    return [score]


def _cmmd(e: Evidence) -> list[Score]:
    fake, real = (
        x / np.linalg.norm(x, axis=1, keepdims=True)
        for x in (e.of_fake("cmmd", "embedding"), e.of_real("cmmd", "embedding"))
    )
    sigma = e.protocol.cmmd.sigma
    score = kernel.cmmd(fake, real, sigma=sigma)
    e.note("cmmd", sigma=sigma)
    return [grouped(e, score, fake, real, kernel=kernel.gaussian_rbf(sigma), scale=1000)]


def _memorised(e: Evidence) -> list[Score]:
    if e.train is None:
        raise MetricError("memorised compares with training pictures, which only a --workdir has")
    name = feature_of(e, "memorised")
    fake, real = e.of_fake("memorised", name), e.of_real("memorised", name)
    share = max(0.01, 1 / len(real))
    found = nearest.memorised(fake, real, e.train, share=share)
    if not e.intervals:
        return [found.score]
    interval = confidence.of_memorised(found.near.distance[:, 0], found.held_out, share)
    return [found.score.with_interval(interval)]


COMPUTE: dict[str, Callable[[Evidence], list[Score]]] = {
    "fid": _fid,
    "fid_inf": _fid_inf,
    "inception_score": _inception,
    "kid": _kid,
    "precision_recall": _balls,
    "clip_score": _clip,
    "r_precision": _retrieval,
    "cmmd": _cmmd,
    "memorised": _memorised,
}


def compute(metrics: Sequence[str], e: Evidence) -> list[Score]:
    """The scores, each with the facts that it must be read with."""
    out = []
    for metric in metrics:
        # FID may have brought the extrapolated one along.
        if metric not in [score.metric for score in out]:
            out += [score.with_facts(**facts(metric, e)) for score in COMPUTE[metric](e)]
    return out


def facts(metric: str, e: Evidence) -> dict[str, Any]:
    """Protocol, network and preprocessing behind a score."""
    look = e.looks.get(metric)
    out: dict[str, Any] = {"protocol": e.protocol.name, "images": e.fake.name}
    if look is not None:
        out |= {"network": look.network, "preprocessing": look.input}
    if metric in NEEDS_REAL:
        out["reference"] = e.real.name if e.real is not None else "statistics of a file"
        if e.reference_says:
            out["reference_says"] = e.reference_says
    return out


def by_class(e: Evidence, values: np.ndarray) -> dict[str, tuple[float, int]]:
    """{class: (mean of per-picture values, pictures)}, the smallest classes first."""
    labels, names = e.labels(), e.fake.class_names
    if e.fake.labels is None or len(np.unique(labels)) == len(labels):
        return {}
    found = {}
    for label in np.unique(labels).tolist():
        rows = labels == label
        name = names[label] if label < len(names) else str(label)
        found[name] = (float(values[rows].mean()), int(rows.sum()))
    return dict(sorted(found.items(), key=lambda item: item[1][1]))
