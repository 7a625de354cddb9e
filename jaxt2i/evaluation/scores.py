"""From what networks saw to scores, under a protocol."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxt2i.evaluation.reading import Look, Reader, Seen
from jaxt2i.evaluation.sets import Set, unit
from jaxt2i.metrics import confidence, diversity, frechet, kernel, manifold, nearest, retrieval
from jaxt2i.metrics import inception_score as inception
from jaxt2i.metrics import statistics as stats
from jaxt2i.metrics.protocols import Protocol, settings
from jaxt2i.metrics.score import MetricError, Score

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
    "memorised": "fid",
}
NEEDS_REAL = ("fid", "fid_inf", "kid", "precision_recall", "cmmd", "memorised")
NEEDS_TEXT = ("clip_score", "r_precision")


def looks_of(protocol: Protocol, metrics: Sequence[str]) -> dict[str, Look]:
    """{metric: how its pictures are looked at}.

    Raises:
      MetricError: where the protocol does not say how a metric is measured.
    """
    out = {}
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
        if metric == "diversity" or getattr(part, "network", "") == "damsm":
            continue
        if metric == "fid_inf":
            out["fid"] = Look(part.network, part.input)
        if metric == "r_precision":
            out[metric] = Look(
                f"openai_{part.network.removeprefix('clip_')}", "pillow_bicubic_crop"
            )
        else:
            out[metric] = Look(part.network, part.input)
    return out


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
      pair: judge of R-precision by a DAMSM: (pixels, captions) -> (image, text vectors).
      train: features of training pictures by the look of FID, for "memorised".
      intervals: whether to resample.
    """

    protocol: Protocol
    fake: Set
    seen: Seen
    looks: dict[str, Look]
    reader: Reader
    real: Set | None = None
    seen_real: Seen | None = None
    reference: stats.Gaussian | None = None
    pair: Callable[[Set], tuple[np.ndarray, np.ndarray]] | None = None
    train: np.ndarray | None = None
    intervals: bool = True

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
        return self.seen_real.features[self.looks[metric]][name]

    def captions(self) -> list[str]:
        """Captions of the judged pictures that could be read.

        Raises:
          MetricError: where there are none.
        """
        if self.fake.captions is None:
            raise MetricError(
                f"{self.fake.name} has no captions, which clip_score and r_precision need: put "
                "a.txt beside each a.png, or a metadata.jsonl into the folder"
            )
        return [self.fake.captions[r] for r in self.seen.rows]

    def labels(self) -> np.ndarray:
        """Classes of the judged pictures; each its own where there are none."""
        if self.fake.labels is None:
            return self.seen.rows
        return self.fake.labels[self.seen.rows]


def whole(x: np.ndarray, batch: int) -> np.ndarray:
    """The rows of whole batches, for protocols that leave a smaller last one out."""
    return x[: len(x) // batch * batch] if batch > 1 and len(x) >= batch else x


def gaussian_of(e: Evidence, metric: str) -> stats.Gaussian:
    """Moments of the reference."""
    if e.reference is not None:
        return e.reference
    return stats.gaussian(stats.of_rows(e.of_real(metric, feature_of(e, metric))))


def feature_of(e: Evidence, metric: str) -> str:
    """The name of the features that a metric compares."""
    return "2048" if e.looks[metric].network.startswith("inception") else "embedding"


def _fid(e: Evidence) -> list[Score]:
    how = e.protocol.fid
    fake = whole(e.of_fake("fid", feature_of(e, "fid")), how.whole_batches)
    real = gaussian_of(e, "fid")
    score = frechet.fid(real, stats.gaussian(stats.of_rows(fake)), ddof=how.ddof)
    if e.intervals and len(fake) >= 40:
        score = score.with_interval(confidence.of_fid(real, fake, ddof=how.ddof, repeats=20))
    # Too few images for this many features: what infinitely many would give stands beside it.
    extrapolated = e.intervals and score.warnings and len(fake) >= 40
    return [score, *(_fid_inf(e) if extrapolated else ())]


def _fid_inf(e: Evidence) -> list[Score]:
    fake = e.of_fake("fid", feature_of(e, "fid"))
    smallest = min(5000, len(fake) // 2)
    real = gaussian_of(e, "fid")
    return [frechet.fid_infinity(real, fake, smallest=smallest, ddof=e.protocol.fid.ddof)]


def _inception(e: Evidence) -> list[Score]:
    how = e.protocol.inception
    logits = whole(e.of_fake("inception_score", how.output), how.whole_batches)
    options: dict[str, Any] = {"order": how.order, "first": how.first, "splits": how.splits}
    return [inception.inception_score(logits, **options)]


def _kid(e: Evidence) -> list[Score]:
    how, name = e.protocol.kid, feature_of(e, "kid")
    fake, real = e.of_fake("kid", name), e.of_real("kid", name)
    size = min(how.size, len(fake), len(real))
    score = kernel.kid(fake, real, subsets=how.subsets, size=size)
    if size < how.size:
        note = f"KID in subsets of {size}, as there are no more images; published: {how.size}"
        score = dataclasses.replace(score, warnings=(*score.warnings, note))
    if e.intervals and min(len(fake), len(real)) >= 40:
        score = score.with_interval(confidence.of_kid(fake, real, score.value))
    return [score]


def _balls(e: Evidence) -> list[Score]:
    how, name = e.protocol.balls, feature_of(e, "precision_recall")
    fake = e.of_fake("precision_recall", name)[: how.count]
    real = e.of_real("precision_recall", name)[: how.real]
    found = manifold.manifold(fake, real, k=how.k, closed=how.closed, half=how.half)
    out = manifold.scores(found, how.k)
    if e.intervals:
        for key, values in found._asdict().items():
            out[key] = out[key].with_interval(confidence.of_mean(values))
    return list(out.values())


def _clip(e: Evidence) -> list[Score]:
    how, captions = e.protocol.clip, e.captions()
    image = e.of_fake("clip_score", "embedding")
    text = e.reader.texts(how.network, captions)
    score = retrieval.clip_score(image, text, scale=how.scale)
    if e.intervals:
        scale = {"cosine": 1.0, "percent": 100.0, "clipscore": 2.5}[how.scale]
        score = score.with_interval(confidence.of_mean(scale * retrieval.cosines(image, text)))
    return [score]


def _retrieval(e: Evidence) -> list[Score]:
    how, captions = e.protocol.retrieval, e.captions()
    if how.network == "damsm":
        if e.pair is None:
            raise MetricError(
                "this protocol's R-precision is a DAMSM's, which only a run of AttnGAN's family "
                "carries: give --weights damsm=RUN, or measure r_precision under another protocol"
            )
        image, text = e.pair(e.fake)
    else:
        image = e.of_fake("r_precision", "embedding")
        text = e.reader.texts(e.looks["r_precision"].network, captions)
    if how.rule == "pool":
        return [retrieval.pool_precision(image, text, pool=how.candidates)]
    label = (
        e.labels()
        if how.negatives == "other_class"
        else np.unique(captions, return_inverse=True)[1]
    )
    others = retrieval.negatives(label, how.candidates - 1)
    found = retrieval.hits(image, text, others)
    score = retrieval.retrieval_precision(found, count=how.folds, dropped=how.dropped)
    if e.intervals:
        score = score.with_interval(confidence.of_mean(100.0 * found))
    return [score]


def _cmmd(e: Evidence) -> list[Score]:
    fake, real = (
        x / np.linalg.norm(x, axis=1, keepdims=True)
        for x in (e.of_fake("cmmd", "embedding"), e.of_real("cmmd", "embedding"))
    )
    return [kernel.cmmd(fake, real, sigma=e.protocol.cmmd.sigma)]


def _memorised(e: Evidence) -> list[Score]:
    if e.train is None:
        raise MetricError("memorised compares with training pictures, which only a --workdir has")
    name = feature_of(e, "memorised")
    fake, real = e.of_fake("memorised", name), e.of_real("memorised", name)
    share = max(0.01, 1 / len(real))
    return [nearest.memorised(fake, real, e.train, share=share)[0]]


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
        for score in COMPUTE[metric](e):
            if score.metric not in [s.metric for s in out]:
                out.append(score.with_facts(**facts(metric, e)))
    return out


def facts(metric: str, e: Evidence) -> dict[str, Any]:
    """Protocol, network and preprocessing behind a score."""
    look = e.looks.get(metric)
    out: dict[str, Any] = {"protocol": e.protocol.name, "images": e.fake.name}
    if look is not None:
        out |= {"network": look.network, "preprocessing": look.input}
    if metric in NEEDS_REAL:
        out["reference"] = e.real.name if e.real is not None else "statistics of a file"
    return out


def lpips_diversity(reader: Reader, pictures: Set, samples: int, net: str) -> Score:
    """How far samples of one caption are apart.

    Args:
      reader: for the network.
      pictures: `samples` rows for each caption, one after the other.
      samples: of each caption.
      net: "alex", "vgg" or "squeeze".
    """
    network = reader.network(f"lpips_{net}")
    read = jax.jit(network.reader("distance"))
    rows = range(pictures.count)
    table = np.stack([unit(pixels) for pixels in pictures.pictures(rows).values()])
    table = table.reshape(-1, samples, *table.shape[1:])

    def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray(read(network.variables["distance"], a, b))

    found = diversity.by_caption(table, distance, batch=min(reader.batch, 16))
    score = diversity.diversity(found, samples)
    interval = confidence.of_mean(found)
    return score.with_interval(interval).with_facts(network=f"lpips_{net}", images=pictures.name)


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


def cached_reference(
    real: Set, look: Look, cache: Path | None
) -> tuple[Path | None, stats.Gaussian | None]:
    """Where moments of a reference are kept, and those that are there already."""
    if cache is None:
        return None, None
    name = stats.file_name(Path(real.name).name, "real", look.input, look.network, real.digest)
    file = cache / name
    if not file.is_file():
        return file, None
    return file, stats.load(file, digest=real.digest).gaussian


def keep_reference(file: Path, of: stats.Gaussian, protocol: Protocol, real: Set) -> None:
    """Keeps moments of a reference for the next time."""
    stats.save(file, of, protocol=settings(protocol), digest=real.digest)
