"""Scores by networks of one's own: a CLIP of another run, a recogniser of procedural corpora."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxt2i import recognise
from jaxt2i.data import schema
from jaxt2i.data.readable import readable
from jaxt2i.evaluation import corpora, independent, judges, perceptual, sets
from jaxt2i.evaluation.reading import share_of, together
from jaxt2i.evaluation.subjects import Subject, opened
from jaxt2i.metrics import confidence, diversity, frechet, retrieval
from jaxt2i.metrics.score import MetricError, Score, unit_rows

# Training pictures behind centres of classes and beside which neighbours are looked for.
TRAIN = 10_000


def pixels_of(fake: sets.Set, size: tuple[int, int]) -> np.ndarray:
    """All pictures of a set [N, H, W, 3], of every process: for small pictures."""
    own = fake.pictures(share_of(fake.count).tolist())
    return together(np.stack([np.zeros((*size, 3), np.uint8), *own.values()])[1:])


def training_of(subject: Subject, data: corpora.Data) -> Any:
    """The source that the judged run was trained on, where it lies now."""
    run = subject.of.run
    split = run.config.data.split
    return data.other(split) if data.trained == "yes" else run.source(split)


def seer(case: Any) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """(name, uint8 [N, H, W, 3] -> unit rows [N, D]) of a network of one's own.

    Raises:
      MetricError: where there is none.
    """
    place = case.args.weights.get("clip")
    if place is not None:
        own = opened(place, precise=True)
        by = independent.of_run(own.run, own.state, own.frozen, place)
        return f"CLIP {by.name}", by.see
    config = case.data.config
    if config.source == "synthetic":
        eye = recognise.eye(config.corpus, cache=case.args.cache)
        read = functools.partial(recognise.readings, eye)
        return f"recogniser of {config.corpus}", lambda x: unit_rows(
            read(x)["features"], "pictures"
        )
    raise MetricError(
        "feature_diversity needs a network that sees these pictures: --weights clip=RUN, with RUN "
        "of configs/clip.py; by LPIPS it is --metrics diversity"
    )


def by_features(case: Any) -> list[Score]:
    """How far samples of one caption are apart in the features of a network of one's own.

    It needs no download. The numbers of two networks say nothing of each other, and none is LPIPS.
    """
    name, see = seer(case)
    args, samples = case.args, perceptual.SAMPLES
    said = case.chosen.said[: perceptual.DIVERSE]
    several = sets.of_system(
        case.system,
        said,
        name=case.fake.name,
        seed=args.seed,
        rule=case.fake.made["quantise"],
        conditions=case.chosen.conditions,
        samples=samples,
        controls=dict(args.set),
    )
    own = [int(c) * samples + s for c in share_of(len(said)) for s in range(samples)]
    drawn = several.pictures(own) if own else {}
    shown = np.stack([np.zeros((*case.data.size, 3), np.uint8), *drawn.values()])
    seen = see(together(shown[1:])).reshape(len(said), samples, -1)
    found = diversity.by_caption(seen, diversity.turned, batch=len(said))
    score = diversity.diversity(found, samples, "feature_diversity")
    facts = {"generated": several.count, "network": name, "distance": "1 - cosine"}
    if len(said) > 1:
        others = diversity.turned(seen, np.roll(seen, 1, 0))
        facts["between_captions"] = round(float(others.mean()), 4)
        score = score.with_interval(confidence.of_mean(found))
    return [score.with_facts(**facts)]


def by_independent(case: Any) -> Sequence[Score]:
    """Scores of a `Case` that a CLIP makes which had no part in the training."""
    args, of, data, fake = case.args, case.subject.of, case.data, case.fake
    place = args.weights.get("clip")
    if place is None:
        raise MetricError(
            "independent needs a CLIP that did not train this run: --weights clip=RUN, with RUN of "
            "configs/clip.py on the same data, such as --config.seed=1 --config.model.width=96"
        )
    if not case.chosen.pairs:
        raise MetricError(
            "independent holds pictures against the real ones of their captions: leave "
            f"--captions {args.captions} out"
        )
    own = opened(place, precise=True)
    by = independent.of_run(own.run, own.state, own.frozen, place)
    weights = {**of.frozen, **of.state.params}
    independent.check_apart(own.state.params["image"], weights, place, case.subject.name)
    pixels = pixels_of(fake, data.size)
    numbers = [i for i, _ in case.chosen.pairs]
    read = functools.partial(data.source.example, keys=("image",))
    shown = readable(numbers, read, "real pictures")
    real = np.stack([example["image"] for _, example in shown])
    centres = None
    if fake.labels is not None:
        drawn_from = training_of(case.subject, data)
        count = min(drawn_from.size or TRAIN, TRAIN)
        read = functools.partial(drawn_from.example, keys=("image", "label"))
        rows = [row for _, row in readable(range(count), read, "the training pictures")]
        pictures, groups = (np.stack([row[key] for row in rows]) for key in ("image", "label"))
        classes = len(schema.names_of(data.source)["label"])
        centres = independent.centres_of(by, pictures, groups, classes)
    return independent.judge(by, pixels, real, fake.captions, fake.labels, centres)


def by_mini_clip(case: Any) -> list[Score]:
    """Similarity to captions and Frechet distance to real pictures, as the shipped CLIP sees them.

    It guides the embedded runs, so it flatters them; but for one run under several settings it says
    which way each goes.
    """
    reader, look = case.reader, judges.look_of(judges.MINI, case.reader)
    ours, theirs = (reader.read(x, [look]) for x in (case.fake, case.real))
    drawn, real = (seen.features[look]["embedding"] for seen in (ours, theirs))
    said = [case.fake.captions[row] for row in ours.rows]
    found = retrieval.cosines(drawn, reader.texts(look.network, said))
    known = {"generated": len(drawn), "real": len(real), "network": "mini CLIP, shipped"}
    of = case.subject.of
    if of and of.run.config.model.get("perception", "") == "mini":
        case.result.notes.append("mini CLIP looks at the training of this run: it flatters it")
    moments = (independent.gaussian(unit_rows(x, "pictures")) for x in (real, drawn))
    score = Score(judges.MINI, float(found.mean()), facts=known)
    distance = Score("mini_clip_frechet", frechet.fid(*moments).value, facts=known)
    return [score.with_interval(confidence.of_mean(found)), distance]


def by_recogniser(case: Any) -> list[Score]:
    """Scores that a recogniser of the procedural corpora makes, and its tables."""
    config, fake, cache = case.data.config, case.fake, case.args.cache
    if config.source != "synthetic":
        raise MetricError(
            "recognised judges drawings of the procedural corpora; this is data of the kind "
            f"{config.source}: choose other --metrics, or --data scenes"
        )
    pixels = pixels_of(fake, case.data.size)
    place = {"split": case.data.split, "cache": cache}
    found = recognise.judge(pixels, fake.captions, config.corpus, **place)
    best = recognise.ceiling(config.corpus, **place)
    known = {"generated": fake.count, "network": "recogniser", "corpus": config.corpus}
    tables = case.result.breakdowns
    tables["Promises of captions, by kind"] = {
        k: {**v, "real pictures": best["kinds"].get(k, {}).get("right")}
        for k, v in found["kinds"].items()
    }
    tables["By relation"] = found["relations"]
    tables["By number of objects"] = {str(k): v for k, v in found["numbers"].items()}
    tables["By class, the rarest first (share right)"] = {
        name: {kind: tally["right"] for kind, tally in table.items()}
        for name, table in found["classes"].items()
    }
    return recognised_scores(found, best, known)


def recognised_scores(found: dict, best: dict, about: dict[str, Any]) -> list[Score]:
    """The headline numbers of a recogniser, real pictures' beside them."""
    known = {**about, "real_pictures": round(float(best["frechet"]), 4)}
    interval = found["frechet_interval"]
    out = [Score("recognised_frechet", float(found["frechet"]), interval=interval, facts=known)]
    for name, counts in found["by_picture"].items():
        right, said = counts.T
        if not said.sum():
            continue
        known = {**about, "said": int(said.sum())}
        real = best["by_picture"].get(name)
        if real is not None and real[:, 1].any():
            known["real_pictures"] = round(float(real[:, 0].sum() / real[:, 1].sum()), 4)
        score = Score(f"recognised_{name}", float(right.sum() / said.sum()), facts=known)
        out.append(score.with_interval(confidence.of_share(right, said)))
    return out
