"""`--metrics soa` and `--detections DIR` of `python -m jaxt2i.evaluate`.

Semantic Object Accuracy by YOLOv3, on any captions that name some of COCO's 80 classes; on the
procedural corpora their recogniser plays its part, with the corpus' own classes. Pictures are drawn
for the held-out captions that name a class: as published three of each caption, or, with --num, so
many, classes taking turns.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from jaxt2i import recognise
from jaxt2i.data import object_captions
from jaxt2i.encoders.yolo import CLASSES, RESOLUTION
from jaxt2i.evaluation import detection, object_plan, objects, report
from jaxt2i.metrics import protocols
from jaxt2i.metrics.score import MetricError, Score
from jaxt2i.run import log

# Pictures of a corpus without an end.
COUNT = 2048
# Examples of it that captions are chosen from, for each picture.
CHOICE = 2
# The detections and layouts in the published format, beside the report.
FOLDER = "soa"
# Printed where captions, detector and size are the published ones.
PUBLISHED = (
    "published SOA-C on the same captions by the same detector (Hinz et al. 2020, arXiv "
    "1910.13321): AttnGAN 25.88, Obj-GAN 27.14, OP-GAN 35.85"
)


def add_options(p: Any) -> None:
    """Options of this metric."""
    p.add_argument(
        "--soa-captions",
        type=Path,
        metavar="DIR",
        help="the published caption lists of soa, label_*.pkl; default: by their rules",
    )


def by_objects(case: Any) -> list[Score]:
    """The scores of a `Case`; tables, bars and notes go into its result.

    Raises:
      MetricError: where no caption names a class.
      WeightsError: where YOLOv3's weights cannot be had.
    """
    args, data = case.args, case.data
    detector = detector_of(args, data, case.reader)
    if case.system is None:
        judged, pictures, counted = objects.of_folder(case.fake, detector)
        name_of = case.fake.names.__getitem__
    else:
        plan = plan_of(args, data, detector)
        judged, pictures = objects.of_run(
            case.system,
            data.source,
            plan,
            detector,
            name=case.subject.name,
            seed=args.seed,
            rule="",
            controls=dict(args.set),
            layouts=case.layouts,
        )
        if case.layouts:
            return objects.scores(judged, False)
        counted, name_of = plan.counted, "{:06d}.png".format
        whole = detector.classes == CLASSES and data.name == "coco2014" and not plan.note
        if whole and case.system.run.sizes.resolution == RESOLUTION:
            case.result.notes.append(PUBLISHED)
    objects.tell(case.result, judged)
    if detector.name == detection.LOOK.network:
        case.result.facts.setdefault("networks", {}).update(case.reader.told(detector.name))
    if jax.process_index() == 0:
        step = case.subject.step
        folder = FOLDER if step is None else f"{FOLDER}_step_{step:08d}"
        out = args.out or case.subject.out
        objects.write(out / folder, judged, pictures, counted, name_of)
    return objects.scores(judged, args.intervals)


def detector_of(args: Any, data: Any, reader: Any) -> detection.Detector:
    """Who looks: the recogniser of a procedural corpus, or YOLOv3.

    Raises:
      MetricError: for a corpus without a recogniser.
    """
    if data is not None and data.config.source == "synthetic":
        try:
            scarce = data.config.get("scarce", 1.0)
            return recognise.detector(data.config.corpus, cache=args.cache, scarce=scarce)
        except ValueError as error:
            raise MetricError(f"soa: {error}") from error
    return detection.yolo(reader.network("yolov3"), args.batch, reader.verified)


def plan_of(args: Any, data: Any, detector: detection.Detector) -> object_plan.Plan:
    """What is drawn: of published lists, or of the captions of the held-out data.

    Raises:
      MetricError: where no caption names a class.
    """
    endless = data.source.size is None
    count = args.num or (COUNT if endless else 0)
    size = CHOICE * count if endless else data.source.size
    if args.soa_captions:
        if detector.classes != CLASSES:
            raise MetricError(
                f"--soa-captions: the published lists are of COCO's classes, not those of the "
                f"{detector.name}; leave them out"
            )
        lists = object_captions.read(args.soa_captions)
        captions = object_plan.of_lists(lists, data.source, size)
        lengths = {label: len(entries) for label, entries in lists.items()}
    else:
        captions = object_plan.of_source(data.source, size, detector.named, every=not endless)
        lengths = {
            n: len(rows) for n, rows in object_plan.by_label(c.labels for c in captions).items()
        }
    if count:
        return object_plan.in_turn(captions, count, detector.rarest, args.seed)
    published = data.name.startswith("coco") or args.soa_captions
    note = object_captions.difference(lengths) if published else ""
    return object_plan.whole(captions, detector.crowds, args.seed, note)


def read_detections(argv: Sequence[str]) -> None:
    """Scores published detections: `--detections DIR`."""
    p = argparse.ArgumentParser(
        prog="python -m jaxt2i.evaluate --detections", description=__doc__, allow_abbrev=False
    )
    p.add_argument("--detections", type=Path, required=True, metavar="DIR", help="detected_*.pkl")
    p.add_argument("--out", type=Path, metavar="DIR", help="default: DIR itself")
    args = p.parse_args(argv)
    judged = objects.of_files(args.detections)
    result = report.Result(str(args.detections), None, [], protocols.Protocol("soa"))
    objects.tell(result, judged)
    result.scores += objects.scores(judged)
    out = args.out or args.detections
    report.show(result)
    report.write_json(out / "scores.json", result)
    report.write_html(out / "scores.html", result)
    log.say(f"written: {out / 'scores.json'}, {out / 'scores.html'}")
