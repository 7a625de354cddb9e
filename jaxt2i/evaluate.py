"""python -m jaxt2i.evaluate --workdir RUN [--metrics fid,clip_score] [--protocol galip_coco]

Judges what a run draws for held-out captions, or, with --images DIR --reference DIR, any folders of
images, whoever made them. Everything that a number depends on is written beside it, and a paper's
number stands there only where it was measured in the same way.

  --workdir RUN                       the newest checkpoint; --watch judges each new one
  --images DIR --reference DIR        two folders; or --reference FILE.npz with published statistics
  --protocol NAME                     how a paper measured: dmgan_cub, galip_coco, ...
  --metrics A,B                       fid, fid_inf, inception_score, kid, precision_recall, cmmd,
                                      clip_score, r_precision, diversity, memorised, recognised
  --weights NETWORK=FILE              networks from files; else from the cache, or downloaded

Runs on the procedural corpora are judged by a recogniser that is trained on the spot
(`recognised`), which needs no download.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxt2i import runs, sample
from jaxt2i.data.schema import DataError
from jaxt2i.engine import checkpoint, log, optim
from jaxt2i.engine import state as states
from jaxt2i.evaluation import report, scores, sets
from jaxt2i.evaluation.reading import Reader
from jaxt2i.metrics import confidence, nearest, protocols
from jaxt2i.metrics import statistics as stats
from jaxt2i.metrics.score import MetricError, Score

# Pictures shown in the report, and pictures whose neighbours are.
GRID, NEIGHBOURS = 24, 8
# Training pictures among which neighbours are looked for.
TRAIN = 10_000
# Captions and samples of each behind "diversity".
DIVERSE, SAMPLES = 100, 10
SYNTHETIC_COUNT = 2048
WATCH_SECONDS = 20


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m jaxt2i.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("--workdir", type=Path, help="a training run")
    p.add_argument("--images", type=Path, metavar="DIR", help="pictures to judge")
    p.add_argument("--reference", type=Path, metavar="DIR|NPZ", help="what to compare them with")
    p.add_argument("--protocol", default="tf2015", help="how to measure; default tf2015")
    p.add_argument("--metrics", default="", help="which, by commas; default those of the protocol")
    p.add_argument("--num", type=int, default=0, help="pictures to draw; default the protocol's")
    p.add_argument("--seed", type=int, default=0, help="of captions and latents")
    p.add_argument("--psi", type=float, default=1.0, help="truncation")
    p.add_argument("--raw", action="store_true", help="weights as trained, not averaged")
    p.add_argument("--resolution", type=int, default=0, help="cut and resize folders' pictures")
    p.add_argument("--batch", type=int, default=32, help="pictures at once")
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
    bad = [w for w in args.weights if "=" not in w]
    if bad:
        p.error(f"--weights {bad[0]}: expected NETWORK=FILE")
    args.weights = dict(w.split("=", 1) for w in args.weights)
    args.metrics = [name for name in args.metrics.split(",") if name]
    known = (*scores.METRICS, "recognised")
    strange = [name for name in args.metrics if name not in known]
    if strange:
        p.error(f"no metric {strange[0]!r}; known: {', '.join(known)}")
    return args


# --- Folders -----------------------------------------------------------------------------------


def default_metrics(protocol: protocols.Protocol, has_text: bool) -> list[str]:
    """What a protocol measures, but for what takes special pictures or networks."""
    out = []
    for metric, part in scores.METRICS.items():
        special = metric in ("fid_inf", "diversity", "memorised", "cmmd", "precision_recall")
        if (
            getattr(protocol, part)
            and not special
            and (has_text or metric not in scores.NEEDS_TEXT)
        ):
            out.append(metric)
    return out


def judge_folders(args: argparse.Namespace) -> report.Result:
    """Judges --images against --reference."""
    protocol = protocols.get(args.protocol)
    fake = sets.of_folder(args.images, args.resolution)
    metrics = args.metrics or default_metrics(protocol, fake.captions is not None)
    if "recognised" in metrics or "diversity" in metrics or "memorised" in metrics:
        raise MetricError("recognised, diversity and memorised need a run: give --workdir")
    looks = scores.looks_of(protocol, metrics)
    real, reference = None, None
    if any(m in scores.NEEDS_REAL for m in metrics):
        if args.reference is None:
            asked = ", ".join(m for m in metrics if m in scores.NEEDS_REAL)
            raise MetricError(
                f"{asked} compare with real pictures: give --reference DIR or FILE.npz"
            )
        if args.reference.suffix == ".npz":
            reference = stats.load(args.reference).gaussian
        else:
            real = sets.of_folder(args.reference, args.resolution)
    reader = Reader(args.weights, args.batch)
    seen = reader.read(fake, looks.values())
    compared = [looks[m] for m in metrics if m in scores.NEEDS_REAL and m in looks]
    seen_real = reader.read(real, compared) if real else None
    evidence = scores.Evidence(
        protocol, fake, seen, looks, reader, real, seen_real, reference, intervals=args.intervals
    )
    found = scores.compute(metrics, evidence)
    samples = dataclasses.replace(
        protocol.samples,
        dataset=f"folder {args.reference or args.images}",
        count=len(seen.rows),
        resolution=args.resolution,
    )
    shown = fake.pictures(seen.rows[:GRID].tolist())
    return report.Result(
        str(args.images),
        None,
        found,
        dataclasses.replace(protocol, samples=samples),
        facts={
            "images_per_s": round(seen.images_per_s, 1),
            "skipped": dict(fake.skipped.counts),
            "skipped_reference": dict(real.skipped.counts) if real else {},
        },
        grid=stacked(list(shown.values())),
        captions=[fake.captions[r] for r in shown] if fake.captions else (),
    )


def stacked(pictures: list[np.ndarray]) -> np.ndarray | None:
    """Pictures of one size as one array; those of another size are left out."""
    same = [x for x in pictures if x.shape == pictures[0].shape]
    return np.stack(same) if same else None


# --- Runs --------------------------------------------------------------------------------------


def judge_run(args: argparse.Namespace) -> report.Result:
    """Judges the newest checkpoint of --workdir."""
    config = runs.read_config(args.workdir)
    run = runs.open_run(config)
    if run.method.sample is None:
        raise MetricError(f"{args.workdir}: {config.method} draws nothing that could be judged")
    state, frozen, step = sample.restore(run, args.workdir)
    state = sample.settled(run, state, frozen)
    log.say(f"judging {args.workdir} at step {step:,}")
    protocol = protocols.get(args.protocol)
    synthetic = config.data.source == "synthetic"
    metrics = args.metrics
    metrics = metrics or (["recognised"] if synthetic else default_metrics(protocol, True))
    source = run.source(config.data.eval_split)
    size = source.size or args.num or SYNTHETIC_COUNT
    pairs = captions_of(args, protocol, source, size, synthetic)
    said = [source.captions(i)[j] for i, j in pairs]
    labels = None
    if "label" in source.gives and not synthetic:
        labels = np.array([int(source.example(i, ("label",))["label"]) for i, _ in pairs])
    name = f"{args.workdir} step {step}"
    draw = {"seed": args.seed, "use_ema": not args.raw, "psi": args.psi}
    fake = sets.of_run(
        run,
        state,
        frozen,
        said,
        name=name,
        rule=protocol.samples.quantise,
        labels=labels,
        class_names=tuple(source.class_names),
        **draw,
    )
    measured = dataclasses.replace(
        protocol,
        samples=dataclasses.replace(
            protocol.samples,
            dataset=sets.dataset_of(config),
            split=config.data.eval_split,
            resolution=run.sizes.resolution,
            count=fake.count,
            truncation="none" if args.psi == 1 else f"psi {args.psi}",
        ),
    )
    result = report.Result(name, step, [], measured)
    networks = [m for m in metrics if m not in ("recognised", "diversity")]
    if networks:
        by_networks(args, run, state, frozen, protocol, networks, source, size, fake, result)
    if "diversity" in metrics:
        several = sets.of_run(
            run,
            state,
            frozen,
            said[:DIVERSE],
            name=name,
            rule=protocol.samples.quantise,
            samples=SAMPLES,
            **draw,
        )
        net = (protocol.perceptual or protocols.Perceptual()).network
        reader = Reader(args.weights, args.batch)
        result.scores.append(scores.lpips_diversity(reader, several, SAMPLES, net))
    if "recognised" in metrics:
        by_recogniser(args, run, fake, result)
    shown = fake.pictures(range(min(GRID, fake.count)))
    result.grid, result.captions = stacked(list(shown.values())), [said[r] for r in shown]
    return result


def captions_of(args, protocol, source, size: int, synthetic: bool) -> list[tuple[int, int]]:
    """(picture, number of its caption) of everything that is drawn."""
    if synthetic:
        return [(i, i % len(source.captions(i))) for i in range(args.num or SYNTHETIC_COUNT)]
    counts = [len(source.captions(i)) for i in range(size)]
    how = protocol.samples
    return sets.choose_captions(counts, how.captions, args.num or how.count, args.seed)


def by_networks(args, run, state, frozen, protocol, metrics, source, size, fake, result) -> None:
    """Adds scores that feature networks make."""
    looks = scores.looks_of(protocol, metrics)
    reader = Reader(args.weights, args.batch)
    compared = {m: looks[m] for m in metrics if m in scores.NEEDS_REAL and m in looks}
    real = seen_real = reference = file = None
    if compared:
        name = f"{sets.dataset_of(run.config)}-{run.config.data.eval_split}-{run.sizes.resolution}"
        real = sets.of_source(source, name, range(size))
        if set(compared) <= {"fid", "fid_inf"}:
            look = next(iter(compared.values()))
            cache = args.cache or args.workdir / "references"
            file, reference = scores.cached_reference(real, look, cache)
        if args.reference is not None and args.reference.suffix == ".npz":
            reference = stats.load(args.reference).gaussian
        if reference is None:
            seen_real = reader.read(real, compared.values())
    train = None
    if "memorised" in metrics:
        drawn_from = run.source(run.config.data.split)
        count = min(drawn_from.size or TRAIN, TRAIN)
        training = sets.of_source(drawn_from, "training pictures", range(count))
        look = looks["memorised"]
        key = "2048" if look.network.startswith("inception") else "embedding"
        train = reader.read(training, [look]).features[look][key]
    seen = reader.read(fake, looks.values())
    evidence = scores.Evidence(
        protocol,
        fake,
        seen,
        looks,
        reader,
        real,
        seen_real,
        reference,
        damsm_judge(args, run, state, frozen),
        train,
        args.intervals,
    )
    result.scores += scores.compute(metrics, evidence)
    result.facts |= {"images_per_s": round(seen.images_per_s, 1)}
    if file is not None and reference is None:
        scores.keep_reference(
            file, scores.gaussian_of(evidence, next(iter(compared))), protocol, real
        )
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
            fake, seen.rows[:NEIGHBOURS], training, near.index[:, 0], near.distance[:, 0]
        )


def cosines(evidence: scores.Evidence) -> np.ndarray:
    """The CLIP score of every picture."""
    from jaxt2i.metrics import retrieval

    text = evidence.reader.texts(evidence.protocol.clip.network, evidence.captions())
    return retrieval.cosines(evidence.of_fake("clip_score", "embedding"), text)


def paired(fake: sets.Set, rows, train: sets.Set, index, distance):
    """Pictures beside their nearest training pictures."""
    drawn, near = fake.pictures([int(r) for r in rows]), train.pictures([int(i) for i in index])
    left = stacked([drawn[int(r)] for r in rows])
    right = stacked([near[int(i)] for i in index])
    return left, right, np.asarray(distance)


def damsm_judge(args, run: runs.Run, state, frozen):
    """What R-precision by a DAMSM asks: of the run itself, or of --weights damsm=RUN."""
    place = args.weights.get("damsm")
    if place is None and not {"text", "image"} <= set(run.method.borrowed):
        return None
    if place is not None:
        run = runs.open_run(runs.read_config(Path(place)))
        state, frozen, _ = sample.restore(run, Path(place))
    method, tokenizer = run.method, run.tokenizer

    @jax.jit
    def look(state, frozen, pixels, tokens, mask):
        ctx = states.context(method, state, frozen, key=jax.random.key(0))
        text = ctx("text", tokens, mask, train=False)
        return ctx("image", pixels, train=False)[1], text.sentence

    def pair(pictures: sets.Set) -> tuple[np.ndarray, np.ndarray]:
        out: tuple[list, list] = ([], [])
        for rows, pixels in pictures.batches(args.batch, range(pictures.count)):
            tokens, mask = tokenizer([pictures.captions[r] for r in rows])
            for part, found in zip(
                out, look(state, frozen, sets.unit(pixels), tokens, mask), strict=True
            ):
                part.append(np.asarray(found))
        return np.concatenate(out[0]), np.concatenate(out[1])

    return pair


def by_recogniser(args, run: runs.Run, fake: sets.Set, result: report.Result) -> None:
    """Adds scores that a recogniser of the procedural corpora makes."""
    from jaxt2i import recognise

    data = run.config.data
    if data.source != "synthetic":
        raise MetricError(
            "recognised judges drawings of the procedural corpora; this run was trained on "
            f"config.data.source={data.source}: choose other --metrics"
        )
    pixels = np.stack(list(fake.pictures(range(fake.count)).values()))
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


def recognised_scores(found: dict, best: dict, facts: dict[str, Any]) -> list[Score]:
    """The headline numbers of a recogniser, real pictures' beside them."""
    shares = {"all": (found["all"], facts["generated"], best["all"])}
    shares["promises"] = found["promises"], promises(found), best["promises"]
    for kind, tally in {**found["kinds"], "rare": found["rare"]}.items():
        real = best["rare"] if kind == "rare" else best["kinds"].get(kind, {})
        shares[kind] = tally["right"], tally["said"], real.get("right")
    known = {**facts, "real_pictures": round(float(best["frechet"]), 4)}
    out = [Score("recognised_frechet", float(found["frechet"]), facts=known)]
    for name, (value, said, real) in shares.items():
        if value is None:
            continue
        known = {} if real is None else {"real_pictures": round(float(real), 4)}
        score = Score(f"recognised_{name}", float(value), facts={**facts, "said": said, **known})
        kept = np.arange(said) < round(value * said)
        out.append(score.with_interval(confidence.of_mean(kept)))
    return out


def promises(found: dict) -> int:
    """How many promises all captions make."""
    return sum(tally["said"] for tally in found["kinds"].values())


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
    return max(steps, default=None)


def watch(args: argparse.Namespace) -> None:
    """Judges every new checkpoint until the run has reached its last step."""
    config = runs.read_config(args.workdir)
    # The run's length may be given in steps, pictures or epochs.
    epoch = runs.open_run(config).source(config.data.split).size
    total = optim.steps(config, "total", batch_size=config.batch_size, epoch_images=epoch)
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
    args = arguments(argv)
    runs.prepare_jax()
    try:
        if args.watch:
            watch(args)
        else:
            finish(args, judge_run(args) if args.workdir else judge_folders(args))
    except (MetricError, DataError, *runs.USER_ERRORS) as error:
        runs.fail(error)
    except KeyboardInterrupt:
        sys.exit("stopped")


if __name__ == "__main__":
    main(sys.argv[1:])
