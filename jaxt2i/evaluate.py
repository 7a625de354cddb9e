"""python -m jaxt2i.evaluate --workdir RUN [--metrics fid,clip_score] [--protocol galip_coco]

Judges what a run draws for held-out captions, or, with --images DIR --reference DIR, any folders of
images, whoever made them. Everything that a number depends on is written beside it, and a paper's
number stands there only where it was measured in the same way.

  --workdir RUN                       the newest checkpoint; --watch judges each new one;
                                      --data DIR where its data lies now, if it moved
  --images DIR --reference DIR        two folders; or --reference FILE.npz with published statistics
  --protocol NAME                     how a paper measured: dmgan_cub, galip_coco, ...
  --metrics A,B                       fid, fid_inf, inception_score, kid, precision_recall, cmmd,
                                      clip_score, r_precision, diversity, lpips, memorised,
                                      recognised, independent
  --weights NETWORK=FILE              networks from files; else from the cache, or downloaded;
                                      damsm=RUN for R-precision by a DAMSM, clip=RUN for
                                      `independent`: a run of configs/clip.py, of another seed and
                                      shape than the one that guides the judged run
  --compare A B, --study A B          several side by side, by networks or people: --compare --help

Runs on the procedural corpora are judged by a recogniser that is trained on the spot
(`recognised`), which needs no download. Edited pictures are held against their originals of the
same name by --images EDITED --reference ORIGINALS --metrics lpips. Several processes, started as
those of a training, judge a run or a folder together.
"""

import argparse
import dataclasses
import functools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxt2i import api, sample
from jaxt2i.convert.rules import ConversionError
from jaxt2i.convert.torch_files import UnreadableFileError, UnsafeFileError
from jaxt2i.data import schema
from jaxt2i.data.readable import readable
from jaxt2i.data.schema import DataError
from jaxt2i.encoders import features
from jaxt2i.encoders.damsm import DamsmImage
from jaxt2i.engine import state as states
from jaxt2i.evaluation import commands, independent, perceptual, reference, report, scores, sets
from jaxt2i.evaluation.reading import Reader, share_of, together
from jaxt2i.metrics import confidence, nearest, protocols
from jaxt2i.metrics.score import MetricError, Score
from jaxt2i.run import checkpoint, facts, files, log, moved, processes, restore, settings, trouble
from jaxt2i.run import open as runs

# Pictures shown in the report, and pictures whose neighbours are.
GRID, NEIGHBOURS = 24, 8
# Training pictures among which neighbours are looked for.
TRAIN = 10_000
# Captions and samples of each behind "diversity".
DIVERSE, SAMPLES = 100, 10
SYNTHETIC_COUNT = 2048
WATCH_SECONDS = 20
# What a person can mend.
USER_ERRORS = (
    *(MetricError, DataError, ConversionError, UnreadableFileError, UnsafeFileError),
    *runs.USER_ERRORS,
    *trouble.ERRORS,
)
# What is measured by networks of one's own, of pictures that a run draws.
OF_RUNS = ("recognised", "independent")
# What the metrics of pairs compare, in the words of protocols.
BETWEEN = {"diversity": "pairs of samples of one caption", "lpips": "the picture and its edit"}


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m jaxt2i.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("--workdir", type=Path, help="a training run")
    p.add_argument(
        "--step", default="newest", help="of it: newest (the default), best, or a number"
    )
    p.add_argument(
        *("--data", "--config.data.path"), default="", metavar="DIR", help="where its data lies now"
    )
    p.add_argument("--images", type=Path, metavar="DIR", help="pictures to judge")
    p.add_argument("--reference", type=Path, metavar="DIR|NPZ", help="what to compare them with")
    p.add_argument("--protocol", default="tf2015", help="how to measure; default tf2015")
    p.add_argument("--metrics", default="", help="which, by commas; default those of the protocol")
    p.add_argument("--num", type=int, default=0, help="pictures to draw; default the protocol's")
    p.add_argument("--seed", type=sample.seed_of, default=0, help="of captions and latents")
    p.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        type=sample.control_of,
        metavar="CONTROL=VALUE",
        help="controls of the method, such as psi=0.7",
    )
    p.add_argument(
        "--after", type=Path, nargs="+", default=[], metavar="RUN", help="earlier runs fill rows"
    )
    p.add_argument("--chunk", type=int, default=0, help="rows a device draws at once")
    p.add_argument("--raw", action="store_true", help="weights as trained, not averaged")
    p.add_argument("--resolution", type=int, default=0, help="cut and resize folders' pictures")
    p.add_argument("--batch", type=int, default=32, help="pictures at once")
    p.add_argument("--lpips-net", choices=perceptual.NETS, help="default the protocol's, or alex")
    p.add_argument(
        "--weights", nargs="*", default=[], metavar="NETWORK=FILE", help="or NETWORK=random"
    )
    p.add_argument("--no-intervals", dest="intervals", action="store_false")
    p.add_argument("--watch", action="store_true", help="judge each new checkpoint")
    p.add_argument("--out", type=Path, help="default WORKDIR/evaluation, or DIR-evaluation")
    p.add_argument("--cache", type=Path, help="of reference statistics and recognisers")
    args = p.parse_args(argv)
    if bool(args.workdir) == bool(args.images):
        p.error("give --workdir RUN, or --images DIR with --reference DIR")
    if args.watch and not args.workdir:
        p.error("--watch needs --workdir RUN")
    if args.step != "newest" and (args.watch or not args.workdir):
        p.error("--step chooses a checkpoint of --workdir RUN; --watch judges each new one")
    if args.batch < 1 or args.num < 0 or args.resolution < 0:
        p.error("--batch is 1 or more, --num and --resolution are 0 (the default) or more")
    if args.data and not args.workdir:
        p.error("--data says where the data of --workdir RUN lies now; folders bring their own")
    if args.workdir and args.reference and args.reference.suffix.lower() != ".npz":
        p.error("--workdir RUN is compared with its own data, or with --reference FILE.npz alone")
    if args.out and args.out.exists() and not args.out.is_dir():
        p.error(f"--out {args.out}: a file of that name is there; give a folder")
    args.weights = weights_of(p, args.weights)
    args.metrics = [name for name in args.metrics.split(",") if name]
    known = (*scores.METRICS, *OF_RUNS)
    strange = [name for name in args.metrics if name not in known]
    if strange:
        p.error(f"no metric {strange[0]!r}; known: {', '.join(known)}")
    return args


def weights_of(p: argparse.ArgumentParser, given: Sequence[str]) -> dict[str, str]:
    """{network: file} of --weights."""
    bad = [w for w in given if "=" not in w]
    if bad:
        p.error(f"--weights {bad[0]}: expected NETWORK=FILE")
    found = dict(w.split("=", 1) for w in given)
    known = ("damsm", "clip", *features.NETWORKS)
    strange = [name for name in found if name not in known]
    if strange:
        p.error(f"--weights {strange[0]}=...: no such network; known: {', '.join(known)}")
    return found


def protocol_of(args: argparse.Namespace, metrics: Sequence[str]) -> protocols.Protocol:
    """The asked for protocol; where pairs are compared it says which, and by which network."""
    protocol = protocols.get(args.protocol)
    for metric in scores.PAIRED:
        if metric in metrics:
            how = protocol.perceptual or protocols.Perceptual()
            net = args.lpips_net or how.network
            how = dataclasses.replace(how, network=net, between=BETWEEN[metric])
            protocol = dataclasses.replace(protocol, perceptual=how)
    return protocol


def default_metrics(protocol: protocols.Protocol, has_text: bool, edits: bool) -> list[str]:
    """What a protocol measures, but for what takes special pictures or networks."""
    out = []
    for metric, part in scores.METRICS.items():
        special = metric in ("fid_inf", "memorised", "cmmd", "precision_recall", *scores.PAIRED)
        if (
            getattr(protocol, part)
            and not special
            and (has_text or metric not in scores.NEEDS_TEXT)
        ):
            out.append(metric)
    if edits and protocol.perceptual and protocol.perceptual.between == BETWEEN["lpips"]:
        out.append("lpips")
    return out


# --- Folders -----------------------------------------------------------------------------------


def judge_folders(args: argparse.Namespace) -> report.Result:
    """Judges --images against --reference."""
    protocol = protocols.get(args.protocol)
    fake = sets.of_folder(args.images, args.resolution, strict=False)
    has_text = fake.captions is not None
    metrics = args.metrics or default_metrics(protocol, has_text, edits=True)
    protocol = protocol_of(args, metrics)
    if any(m in metrics for m in (*OF_RUNS, "diversity", "memorised")):
        raise MetricError(
            f"{', '.join(OF_RUNS)}, diversity and memorised need a run: give --workdir"
        )
    looks = scores.looks_of(protocol, [m for m in metrics if m not in scores.PAIRED])
    scores.check_captions(fake, metrics)
    real, given = reference.of_path(args.reference, args.resolution, protocol, metrics)
    protocol = given.protocol if given else protocol
    reader = Reader(args.weights, args.batch)
    networks = [m for m in metrics if m not in scores.PAIRED]
    name = str(args.images)
    result, count, shown = report.Result(name, None, [], protocol), fake.count, range(fake.count)
    if networks:
        lend_damsm(args, reader, looks)
        seen = reader.read(fake, looks.values())
        compared = [looks[m] for m in networks if m in scores.NEEDS_REAL]
        seen_real = reader.read(real, compared) if real and compared else None
        evidence = scores.Evidence(
            protocol,
            fake,
            seen,
            looks,
            reader,
            real,
            seen_real,
            given.gaussian if given else None,
            intervals=args.intervals,
            reference_says=given.says if given else "",
        )
        result.scores += scores.compute(networks, evidence)
        result.facts |= {
            "images_per_s": round(seen.images_per_s, 1),
            "skipped": seen.skipped,
            "skipped_reference": seen_real.skipped if seen_real else {},
        }
        result.notes += reference.odd(seen, seen_real, (name, str(args.reference)))
        count, shown = len(seen.rows), seen.rows.tolist()
    if "lpips" in metrics:
        net = protocol.perceptual.network
        result.scores.append(perceptual.of_edits(reader, fake, real, net))
        count = min(count, result.scores[-1].facts["generated"])
    result.notes += fewer(protocol, count)
    result.notes += reference.note_of(args.reference, given.says) if given else []
    if fake.lacking and not args.metrics:
        result.notes.append(f"left out {' and '.join(scores.NEEDS_TEXT)}: {fake.lacking}")
    samples = dataclasses.replace(
        protocol.samples,
        dataset=f"folder {args.reference or args.images}",
        count=count,
        resolution=args.resolution,
    )
    result.measured = dataclasses.replace(protocol, samples=samples)
    pictures = fake.pictures(shown[:GRID])
    result.grid = list(pictures.values())
    result.captions = [fake.captions[r] for r in pictures] if fake.captions else ()
    return result


def fewer(protocol: protocols.Protocol, count: int) -> list[str]:
    """What to know where fewer pictures are judged than the protocol asks for."""
    wanted = protocol.samples.count
    if count >= wanted:
        return []
    return [
        f"{count:,} pictures were judged, and numbers under {protocol.name} are of {wanted:,}: not "
        "to be compared"
    ]


# --- Runs --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Opened:
    """A run at its newest checkpoint.

    Attributes:
      run: the run.
      state: its weights.
      frozen: its frozen weights.
      step: of the checkpoint.
    """

    run: runs.Run
    state: states.State
    frozen: dict
    step: int


def opened(workdir: Path, which: str = "newest", data: str = "") -> Opened:
    """Opens a run; processes that see different checkpoints look again until they agree.

    Args:
      workdir: of the run.
      which: "newest", "best" or a step.
      data: where its data lies now; "": where it lay.
    """
    workdir = files.local(workdir, "the run")
    config = settings.read_config(workdir)
    moved.point(config, data, workdir)
    run = runs.open_run(config, facts.read(workdir))
    while True:
        state, frozen, step = restore.from_run(run, workdir, api.here(), which)
        if len(np.unique(together(np.array([step])))) == 1:
            return Opened(run, state, frozen, step)


def judge_run(args: argparse.Namespace) -> report.Result:
    """Judges the newest checkpoint of --workdir."""
    of = opened(args.workdir, args.step, args.data)
    run, config = of.run, of.run.config
    moved.check(config, args.workdir)
    check_run(args, run)
    log.say(f"judging {args.workdir} at step {of.step:,}")
    protocol = protocols.get(args.protocol)
    synthetic = config.data.source == "synthetic"
    metrics = args.metrics
    metrics = metrics or (["recognised"] if synthetic else default_metrics(protocol, True, False))
    protocol = protocol_of(args, metrics)
    source = run.source(config.data.eval_split)
    size = source.size or args.num or SYNTHETIC_COUNT
    pairs = captions_of(args, run, protocol, source, size)
    said = [source.captions(i)[j] for i, j in pairs]
    labels = None
    if "label" in source.gives and not synthetic:
        labels = np.array([int(source.example(i, ("label",))["label"]) for i, _ in pairs])
    name = f"{args.workdir} step {of.step}"

    drawn_by = api.System(
        run=run,
        state=of.state,
        frozen=of.frozen,
        after=[api.load(folder) for folder in args.after],
        use_ema=not args.raw,
        chunk=args.chunk,
        about={"source": str(args.workdir), "step": of.step},
    )
    drawn_by.check(dict(args.set))

    def drawn(captions: Sequence[str], **kw: Any) -> sets.Set:
        return sets.of_system(
            drawn_by,
            captions,
            name=name,
            seed=args.seed,
            rule=protocol.samples.quantise,
            conditions=lambda n: next(run.rows_of(source, [pairs[n][0]])),
            controls=dict(args.set),
            **kw,
        )

    fake = drawn(said, labels=labels)
    measured = dataclasses.replace(
        protocol,
        samples=dataclasses.replace(
            protocol.samples,
            dataset=sets.dataset_of(config),
            split=config.data.eval_split,
            resolution=run.sizes.height,
            count=fake.count,
            controls=drawn_by.changed(dict(args.set)),
        ),
    )
    result = report.Result(str(args.workdir), of.step, [], measured)
    reader = Reader(args.weights, args.batch)
    networks = [m for m in metrics if m not in (*OF_RUNS, "diversity")]
    if networks:
        by_networks(args, of, protocol, networks, source, size, fake, reader, result)
        result.notes += fewer(protocol, fake.count)
    if "diversity" in metrics:
        several = drawn(said[:DIVERSE], samples=SAMPLES)
        net = protocol.perceptual.network
        result.scores.append(perceptual.of_samples(reader, several, SAMPLES, net))
    if "recognised" in metrics:
        by_recogniser(args, run, fake, result)
    if "independent" in metrics:
        by_independent(args, of, source, [i for i, _ in pairs], fake, result)
    shown = fake.pictures(range(min(GRID, fake.count)))
    result.grid, result.captions = list(shown.values()), [said[r] for r in shown]
    result.drawn, result.rows = drawn_by.about, fake.rows(list(shown))
    return result


def check_run(args: argparse.Namespace, run: runs.Run) -> None:
    """Refuses what a run cannot do.

    Raises:
      MetricError: says what.
    """
    method = run.config.method
    if run.method.sampler is None:
        raise MetricError(f"{args.workdir}: {method} draws nothing that could be judged")
    if "lpips" in args.metrics:
        raise MetricError(
            "lpips compares edited pictures with their originals: give --images DIR --reference "
            "DIR; of the samples of a run diversity is measured"
        )


def captions_of(args, run: runs.Run, protocol, source, size: int) -> list[tuple[int, int]]:
    """(picture, number of its caption) of everything that is drawn; what is unreadable is told."""
    if run.config.data.source == "synthetic":
        return [(i, i % len(source.captions(i))) for i in range(args.num or SYNTHETIC_COUNT)]
    found = list(readable(range(size), source.captions, "the captions"))
    numbers, counts = [i for i, _ in found], [len(texts) for _, texts in found]
    how = protocol.samples
    pairs = sets.choose_captions(counts, how.captions, args.num or how.count, args.seed)
    pairs = [(numbers[i], j) for i, j in pairs]
    keys = tuple({*run.method.sampler.needs, "label"} & set(source.gives))
    if not keys:
        return pairs
    # Only what is drawn for is looked at further: there may be many more examples.
    known = readable(pairs, lambda pair: source.example(pair[0], keys), "what is drawn")
    return [pair for pair, _ in known]


def by_networks(args, of: Opened, protocol, metrics, source, size, fake, reader, result) -> None:
    """Adds scores that feature networks make."""
    run, looks = of.run, scores.looks_of(protocol, metrics)
    lend_damsm(args, reader, looks, of)
    compared = {m: looks[m] for m in metrics if m in scores.NEEDS_REAL}
    real = seen_real = moments = given = file = None
    if compared and args.reference is not None:
        given = reference.of_file(args.reference, protocol, list(compared))
        moments = given.gaussian
    elif compared:
        real = real_of(run, source, size)
        if set(compared) <= {"fid", "fid_inf"}:
            look = next(iter(compared.values()))
            cache = args.cache or args.workdir / "references"
            file, digest, moments = reference.cached(real, look, reader, cache)
        if moments is None:
            seen_real = reader.read(real, compared.values())
    if given:
        result.measured = dataclasses.replace(result.measured, fid=given.protocol.fid)
        result.notes += reference.note_of(args.reference, given.says)
    train = None
    if "memorised" in metrics:
        drawn_from = run.source(run.config.data.split)
        count = min(drawn_from.size or TRAIN, TRAIN)
        training = sets.of_source(drawn_from, "training pictures", range(count))
        look = looks["memorised"]
        key = "2048" if look.network.startswith("inception") else "embedding"
        seen_train = reader.read(training, [look])
        train = seen_train.features[look][key]
    seen = reader.read(fake, looks.values())
    evidence = scores.Evidence(
        *(protocol, fake, seen, looks, reader, real, seen_real, moments, train, args.intervals),
        reference_says=given.says if given else "",
    )
    result.scores += scores.compute(metrics, evidence)
    result.facts |= {"images_per_s": round(seen.images_per_s, 1)}
    names = fake.name, f"{run.config.data.eval_split}'s pictures"
    result.notes += reference.odd(seen, seen_real, names)
    if file is not None and moments is None and jax.process_index() == 0:
        found = scores.gaussian_of(evidence, next(iter(compared)))
        reference.keep(file, found, result.measured, digest)
    if "clip_score" in metrics:
        values = cosines(evidence)
        if table := scores.by_class(evidence, values):
            result.breakdowns["CLIP score by class, the rarest first"] = {
                name: {"clip_score": value, "pictures": count}
                for name, (value, count) in table.items()
            }
    if train is not None:
        key = scores.feature_of(evidence, "memorised")
        query = evidence.of_fake("memorised", key)[:NEIGHBOURS]
        near = nearest.neighbours(query, train)
        result.neighbours = paired(
            fake,
            seen.rows[:NEIGHBOURS],
            training,
            seen_train.rows[near.index[:, 0]],
            near.distance[:, 0],
        )


def real_of(run: runs.Run, source, size: int) -> sets.Set:
    """The pictures of a run's held-out split."""
    size_of = f"{run.sizes.height}x{run.sizes.width}"
    name = f"{sets.dataset_of(run.config)}-{run.config.data.eval_split}-{size_of}"
    told = ("label", *runs.LAYOUT)
    return sets.of_source(
        source,
        name,
        range(size),
        row=lambda n: next(run.rows_of(source, [n], told)),
        content=reference.content_of(source, settings.plain(run.config)["data"], range(size)),
    )


def cosines(evidence: scores.Evidence) -> np.ndarray:
    """The CLIP score of every picture."""
    from jaxt2i.metrics import retrieval

    text = evidence.reader.texts(evidence.protocol.clip.network, evidence.captions())
    return retrieval.cosines(evidence.of_fake("clip_score", "embedding"), text)


def paired(fake: sets.Set, rows, train: sets.Set, index, distance):
    """Pictures beside their nearest training pictures."""
    drawn, near = fake.pictures([int(r) for r in rows]), train.pictures([int(i) for i in index])
    return [
        (drawn[int(r)], near[int(i)], float(far))
        for r, i, far in zip(rows, index, distance, strict=True)
    ]


def lend_damsm(args, reader: Reader, looks: dict, own: Opened | None = None) -> None:
    """Gives the reader the DAMSM of --weights damsm=RUN, else of the judged run, if one is asked.

    Raises:
      MetricError: where there is none.
    """
    if "damsm" not in [look.network for look in looks.values()]:
        return
    place = args.weights.get("damsm")
    if place is not None:
        own = opened(Path(place))
        if not isinstance(own.run.method.nets.get("image"), DamsmImage):
            raise MetricError(
                f"--weights damsm={place}: a run of {own.run.config.method} has no DAMSM; give one "
                "of configs/damsm.py, or one that borrowed its encoders from there"
            )
    elif own is None or not {"text", "image"} <= set(own.run.method.borrowed):
        raise MetricError(
            f"the R-precision of {args.protocol} is a DAMSM's, which only runs that borrowed one "
            "carry: give --weights damsm=RUN, or measure r_precision under another --protocol"
        )
    method = own.run.method

    def seen(weights, net: str, *given: jax.Array) -> Any:
        ctx = states.context(method, *weights, key=jax.random.key(0))
        return ctx(net, *given, train=False)

    reader.lend(
        "damsm",
        lambda weights, pixels: seen(weights, "image", pixels)[1],
        lambda weights, tokens, mask: seen(weights, "text", tokens, mask).sentence,
        (own.state, own.frozen),
        own.run.tokenizer,
    )


def by_recogniser(args, run: runs.Run, fake: sets.Set, result: report.Result) -> None:
    """Adds scores that a recogniser of the procedural corpora makes."""
    from jaxt2i import recognise

    data = run.config.data
    if data.source != "synthetic":
        raise MetricError(
            "recognised judges drawings of the procedural corpora; this run was trained on "
            f"config.data.source={data.source}: choose other --metrics"
        )
    size = run.sizes.height, run.sizes.width
    own = fake.pictures(share_of(fake.count).tolist())
    pixels = together(np.stack([np.zeros((*size, 3), np.uint8), *own.values()])[1:])
    found = recognise.judge(
        pixels, fake.captions, data.corpus, split=data.eval_split, cache=args.cache
    )
    best = recognise.ceiling(data.corpus, split=data.eval_split, cache=args.cache)
    facts: dict[str, Any] = {
        "generated": fake.count,
        "network": "recogniser",
        "corpus": data.corpus,
    }
    result.scores += recognised_scores(found, best, facts)
    kinds = {
        k: {**v, "real pictures": best["kinds"].get(k, {}).get("right")}
        for k, v in found["kinds"].items()
    }
    result.breakdowns["Promises of captions, by kind"] = kinds
    result.breakdowns["By relation"] = found["relations"]
    result.breakdowns["By number of objects"] = {str(k): v for k, v in found["numbers"].items()}
    result.breakdowns["By class, the rarest first (share right)"] = {
        name: {kind: tally["right"] for kind, tally in table.items()}
        for name, table in found["classes"].items()
    }


def by_independent(args, of: Opened, source, numbers: Sequence[int], fake: sets.Set, result):
    """Adds scores that a CLIP makes which had no part in the training."""
    place = args.weights.get("clip")
    if place is None:
        raise MetricError(
            "independent needs a CLIP that did not train this run: --weights clip=RUN, with RUN of "
            "configs/clip.py on the same data, such as --config.seed=1 --config.model.width=96"
        )
    own = opened(Path(place))
    by = independent.of_run(own.run, own.state, own.frozen, place)
    weights = {**of.frozen, **of.state.params}
    independent.check_apart(own.state.params["image"], weights, place, str(args.workdir))
    size = of.run.sizes.height, of.run.sizes.width
    mine = fake.pictures(share_of(fake.count).tolist())
    pixels = together(np.stack([np.zeros((*size, 3), np.uint8), *mine.values()])[1:])
    shown = readable(numbers, functools.partial(source.example, keys=("image",)), "real pictures")
    real = np.stack([example["image"] for _, example in shown])
    centres = None
    if fake.labels is not None:
        drawn_from = of.run.source(of.run.config.data.split)
        count = min(drawn_from.size or TRAIN, TRAIN)
        read = functools.partial(drawn_from.example, keys=("image", "label"))
        rows = [row for _, row in readable(range(count), read, "the training pictures")]
        pictures, groups = (np.stack([row[key] for row in rows]) for key in ("image", "label"))
        centres = independent.centres_of(
            by, pictures, groups, len(schema.names_of(source)["label"])
        )
    result.scores += independent.judge(by, pixels, real, fake.captions, fake.labels, centres)


def recognised_scores(found: dict, best: dict, facts: dict[str, Any]) -> list[Score]:
    """The headline numbers of a recogniser, real pictures' beside them."""
    known = {**facts, "real_pictures": round(float(best["frechet"]), 4)}
    interval = found["frechet_interval"]
    out = [Score("recognised_frechet", float(found["frechet"]), interval=interval, facts=known)]
    for name, counts in found["by_picture"].items():
        right, said = counts.T
        if not said.sum():
            continue
        known = {**facts, "said": int(said.sum())}
        real = best["by_picture"].get(name)
        if real is not None and real[:, 1].any():
            known["real_pictures"] = round(float(real[:, 0].sum() / real[:, 1].sum()), 4)
        score = Score(f"recognised_{name}", float(right.sum() / said.sum()), facts=known)
        out.append(score.with_interval(confidence.of_share(right, said)))
    return out


# --- The command -------------------------------------------------------------------------------


def finish(args: argparse.Namespace, result: report.Result) -> None:
    """Prints and writes a result, from the first process."""
    if jax.process_index():
        return
    report.show(result)
    out = args.out or (args.workdir / "evaluation" if args.workdir else default_out(args.images))
    stem = "scores" if result.step is None else f"step_{result.step:08d}"
    report.write_json(out / f"{stem}.json", result)
    curves = None
    if result.step is not None:
        lines = report.history(out)
        if len(lines) > 1:
            curves = out / "curves.png"
            report.write_curves(curves, lines)
    report.write_html(out / f"{stem}.html", result, curves)
    log.say(f"written: {out / stem}.json, {out / stem}.html")


def default_out(images: Path) -> Path:
    """A folder beside the judged one."""
    return images.with_name(images.name + "-evaluation")


def newest(workdir: Path) -> int | None:
    """The step of the newest checkpoint; None: there is none yet."""
    folder = workdir / checkpoint.FOLDER
    steps = [int(p.name) for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []
    found = max(steps, default=-1)
    if jax.process_count() > 1:
        # The first process says what there is: others may look a moment later.
        found = int(multihost_utils.broadcast_one_to_all(np.int32(found)))
    return None if found < 0 else found


def watch(args: argparse.Namespace) -> None:
    """Judges every new checkpoint until the run has reached its last step."""
    config = settings.read_config(args.workdir)
    moved.point(config, args.data, args.workdir)
    moved.check(config, args.workdir)
    # The run's length may be given in steps, pictures or epochs.
    epoch = runs.open_run(config).source(config.data.split).size
    total = settings.steps(config, "total", batch_size=config.batch_size, epoch_images=epoch)
    done = None
    while done is None or done < total:
        step = newest(args.workdir)
        if step is None or step == done:
            time.sleep(WATCH_SECONDS)
            continue
        result = judge_run(args)
        finish(args, result)
        done = result.step


def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    other = commands.asked(argv)
    args = None if other else arguments(argv)
    runs.prepare_jax()
    with processes.together():
        try:
            if other:
                return other(argv)
            if args.watch:
                watch(args)
            else:
                finish(args, judge_run(args) if args.workdir else judge_folders(args))
        except USER_ERRORS as error:
            log.fail(trouble.line(error))
        except KeyboardInterrupt:
            sys.exit("stopped")


if __name__ == "__main__":
    main(sys.argv[1:])
