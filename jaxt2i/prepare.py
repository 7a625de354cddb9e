"""python -m jaxt2i.prepare NAME --from DIR --to DIR

Builds the records of a data set from its official files, packed or not, as a tfds data set that
`--config.data.source=records --config.data.path=DIR` trains on and `tfds.data_source` reads. NAME
is a data set, or NAME/CONFIG: ade20k, coco, coco_stuff, cub, emoji, fashiongen, multi30k,
oxford102, visual_genome. `emoji` finds its files itself. A vocabulary of own captions is made by
python -m jaxt2i.prepare vocabulary --from DIR --to FILE. For training that reads latents instead of
asking a frozen autoencoder in every step, python -m jaxt2i.prepare latents --config FILE[:preset]
--to DIR writes those of a configuration's pictures.

  --check                     reads everything and writes nothing
  --beam ["--runner=..."]     by Apache Beam: here, or on Dataflow, Flink or Spark
  --show 16                   one PNG of examples with captions, boxes and masks
  --pipeline --config FILE[:preset] [--config.KEY=VALUE ...] --show 16
                              the same of what a configuration's network really sees
  --format tfrecord           TFRecord files, which `tfds.load` reads, instead of ArrayRecord
  --list 30000                a fixed list of pictures and captions for evaluation

A data set that is there already is left as it is; one that was interrupted is built again from
archives that stay unpacked. What cannot be used is skipped, counted, and listed in prepare.json
beside the records.
"""

import argparse
import contextlib
import io
import json
import os
import posixpath
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from etils import epath

from jaxt2i import places
from jaxt2i.config import ConfigError
from jaxt2i.data import order as orders
from jaxt2i.data import schema, vocabulary
from jaxt2i.data.pictures import Framing
from jaxt2i.data.rows import MAX_SEED
from jaxt2i.data.sources import files, records
from jaxt2i.run import trouble

# Side at which pictures are shown, pixels.
SHOWN = 256
# The lists of published evaluations.
COCO_LIST = 30_000


def arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command line: what is ours, and the settings of a configuration."""
    p = argparse.ArgumentParser(
        prog="python -m jaxt2i.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("name", nargs="?", metavar="NAME[/CONFIG]", help="the data set")
    p.add_argument(
        "--from", dest="source", metavar="DIR", help="its official files (emoji: or a font)"
    )
    p.add_argument("--to", default="data", metavar="DIR", help="where data sets lie; default data")
    p.add_argument("--check", action="store_true", help="read everything, write nothing")
    p.add_argument(
        "--beam", nargs="?", const="--runner=DirectRunner", metavar="OPTIONS", help="Beam's options"
    )
    p.add_argument("--shards", type=int, help="files of each split; default by size")
    p.add_argument("--format", choices=tuple(records.FORMATS), default="array_record")
    p.add_argument("--overwrite", action="store_true", help="build what is there already")
    p.add_argument("--show", type=int, metavar="N", help="draw N examples")
    p.add_argument("--split", help="the split to show or to list; default each one")
    p.add_argument("--seed", type=int, default=0, help="of what is shown or listed")
    p.add_argument("--list", type=int, metavar="N", help="draw a fixed list of N captions")
    p.add_argument("--pipeline", action="store_true", help="show what a configuration sees")
    p.add_argument("--config", metavar="FILE[:preset]", help="the configuration of --pipeline")
    p.add_argument("--png", metavar="FILE", help="where --show draws; default beside the records")
    args, settings = p.parse_known_args(argv)
    if not args.pipeline and settings:
        p.error(f"unknown argument {settings[0]}")
    if args.pipeline and not (args.show and args.config):
        p.error("--pipeline needs --config FILE[:preset] and --show N")
    if not 0 <= args.seed <= MAX_SEED:
        p.error(f"--seed {args.seed}: expected a whole number from 0 to {MAX_SEED}")
    for name in ("show", "list", "shards"):
        number = getattr(args, name)
        if number is not None and number < 1:
            p.error(f"--{name} {number}: expected 1 or more")
    if args.png and not args.pipeline and not args.split:
        p.error("--png names one file: say of which --split")
    if not args.pipeline and not args.name:
        p.error("which data set? " + ", ".join(known()))
    return args, settings


def refuse_stores(args: argparse.Namespace) -> None:
    """Refuses official files in a store, and records that are to be built there.

    Raises:
      ConfigError: says how they come there.
    """
    for option, place in (("--from", args.source), ("--to", args.to)):
        if not (place and places.scheme_of(place)):
            continue
        if option == "--from":
            how = "official files are unpacked on this machine: copy them here, and name that DIR"
        else:
            how = (
                "records are built on a disk of this machine, as neither ArrayRecord nor the "
                "unpacking of archives works in a store: --to DIR here, then copy DIR there "
                f"(gcloud storage cp -r DIR {place}) and train with --config.data.path={place}"
            )
        raise ConfigError(f"{option} {place}: {how}")


def known() -> list[str]:
    """The data sets, without loading what builds them."""
    folder = Path(__file__).parent / "data" / "builders"
    shared = ("__init__", "annotations", "base", "record", "regions")
    return sorted(file.stem for file in folder.glob("*.py") if file.stem not in shared)


def builder_of(name: str, to: str, kind: str | None = None):
    """The builder behind NAME[/CONFIG].

    Args:
      name: NAME[/CONFIG].
      to: where data sets lie.
      kind: format of its files; None: that of those that are there.

    Raises:
      DataError: for an unknown name; says which there are.
    """
    # TensorFlow tells of its build, tfds of its deprecations.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    logging.set_verbosity(logging.ERROR)
    import tensorflow_datasets as tfds

    from jaxt2i.data.builders import BUILDERS

    tfds.disable_progress_bar()
    name, _, config = name.partition("/")
    if name not in BUILDERS:
        raise schema.DataError(f"no data set {name!r}; known: {', '.join(BUILDERS)}")
    made = BUILDERS[name]
    if config and config not in made.builder_configs:
        configs = ", ".join(f"{name}/{c}" for c in made.builder_configs) or f"{name} alone"
        raise schema.DataError(f"no data set {name}/{config}; known: {configs}")
    return made(data_dir=to, config=config or None, file_format=kind)


def check(builder, source: str) -> dict[str, Any]:
    """Reads and decodes everything, and writes nothing but what archives hold, for a while."""
    out = {}
    with tempfile.TemporaryDirectory(prefix="jaxt2i-") as unpacked:
        builder.unpacked = Path(unpacked)
        official = builder.files(source)
        for split, items in builder.whole(official).items():
            start = time.monotonic()
            seen = Seen()
            for _, example in builder.generated(official, split, items):
                seen.add(example)
            out[split] = {**seen.facts(), "seconds": round(time.monotonic() - start, 1)}
    return out


class Seen:
    """What there is in the examples of a split."""

    def __init__(self):
        self.captions, self.objects = [], 0

    def add(self, example: dict[str, Any]) -> None:
        """Counts an example."""
        self.captions.append(len(example["captions"]))
        self.objects += len(example["objects"])

    def facts(self) -> dict[str, Any]:
        """The counts."""
        return {
            "images": len(self.captions),
            "captions_per_image": histogram(np.array(self.captions, np.int64)),
            "objects": self.objects,
        }


def histogram(counts: np.ndarray) -> dict[str, int]:
    """{value: how often} of whole numbers."""
    values, often = np.unique(counts, return_counts=True)
    return {str(value): int(n) for value, n in zip(values, often, strict=True)}


def build(builder, args: argparse.Namespace) -> dict[str, Any]:
    """Writes the records and their indices; returns what is in them."""
    import tensorflow_datasets as tfds

    start = time.monotonic()
    target = Path(builder.data_dir)
    if target.exists() and args.overwrite:
        shutil.rmtree(target)
    for unfinished in target.parent.glob(f"incomplete.*_{target.name}"):
        print(f"prepare: {unfinished} was interrupted and is built again", file=sys.stderr)
        shutil.rmtree(unfinished)
    builder = builder_of(args.name, args.to, args.format)
    official = Path(args.source)
    if not official.is_file() and not (official.is_dir() and any(official.iterdir())):
        raise schema.DataError(
            f"--from {official} is no folder, or an empty one; {args.name} is missing. "
            f"{builder.MANUAL_DOWNLOAD_INSTRUCTIONS}"
        )
    builder.source = official
    settings: dict[str, Any] = {"num_shards": args.shards} if args.shards else {}
    if args.beam is not None:
        from apache_beam.options.pipeline_options import PipelineOptions

        builder.beam = True
        # Else Beam reads our own command line.
        settings["beam_options"] = PipelineOptions(shlex.split(args.beam))
    folder = official.parent if official.is_file() else official
    config = tfds.download.DownloadConfig(
        manual_dir=folder, register_checksums=False, verify_ssl=True, **settings
    )
    with contextlib.redirect_stdout(io.StringIO()):  # tfds tells of sizes that it does not know
        builder.download_and_prepare(download_config=config)
    out = {}
    about = records.describe(str(target))
    for split, counts in about["splits"].items():
        _, index = records.index_of(str(target), split, counts)
        out[split] = {
            "images": len(index.shard),
            "captions_per_image": histogram(index.captions),
            "languages": dict(
                zip(index.language_names.tolist(), index.languages.sum(0).tolist(), strict=True)
            ),
            "objects": len(index.object_label),
        }
    report = {
        "name": args.name,
        "splits": out,
        "skipped": dict(builder.skips.counts.most_common()),
        "skipped_files": builder.skips.listed,
        "seconds": round(time.monotonic() - start, 1),
    }
    (target / "prepare.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def summary(report: dict[str, Any], expected: dict[str, int]) -> list[str]:
    """Lines for a person: what there is, and what differs from the published counts."""
    lines = []
    for split, facts in report["splits"].items():
        captions = ", ".join(f"{n} with {k}" for k, n in facts["captions_per_image"].items())
        line = f"  {split:10} {facts['images']:>8,} images; captions: {captions or 'none'}"
        if facts["objects"]:
            line += f"; {facts['objects']:,} objects"
        if spoken := facts.get("languages"):
            line += f"; {', '.join(f'{n:,} {name}' for name, n in spoken.items())}"
        if expected.get(split, facts["images"]) != facts["images"]:
            line += f"; published: {expected[split]:,}"
        lines.append(line)
    skipped = ", ".join(f"{n} {reason}" for reason, n in report["skipped"].items())
    return [*lines, f"  skipped: {skipped or 'none'}", f"  {report['seconds']} s"]


def write_list(folder: str, split: str, count: int, seed: int) -> Path:
    """Draws `count` pictures of a split and one caption of each, once and for all.

    Args:
      folder: of the records.
      split: of the data set.
      count: pictures, all different.
      seed: of the draw.

    Returns:
      The file, for `--config.data.list`: [[id, number of the caption], ...].

    Raises:
      DataError: when the split has fewer pictures.
    """
    source = records.Records(folder, split, Framing(16))
    if source.size < count:
        raise schema.DataError(f"{folder} has {source.size} pictures in {split!r}, not {count}")
    # By id, so that the list does not depend on how the records were sorted into files.
    by_id = sorted((source.name(i), len(source.captions(i))) for i in range(source.size))
    key = orders.mix(seed, count)
    pairs = []
    for i in range(count):
        name, captions = by_id[orders.permuted(i, len(by_id), key)]
        pairs.append([name, orders.mix(seed, i) % captions])
    file = Path(folder) / f"list-{split}-{count}.json"
    file.write_text(json.dumps(pairs) + "\n")
    return file


def show(folder: str, split: str, args: argparse.Namespace) -> epath.Path:
    """Draws examples of a split as they are stored."""
    from jaxt2i.data import show as drawings

    wanted = records.Wanted(objects=30, around_box=False, mask_resolution=SHOWN)
    source = records.Records(folder, split, Framing(SHOWN, "none"), wanted)
    order = orders.Shuffled(source.size, args.seed)
    tiles = []
    for position in range(min(args.show, source.size)):
        i = order(position)
        example = source.example(i, source.gives)
        label = example["label"]
        name = source.class_names[label] if label < len(source.class_names) else ""
        count = len(source.captions(i))
        text = source.captions(i)[0] + (f"  (+{count - 1})" if count > 1 else "")
        title = " · ".join(filter(None, (posixpath.basename(source.name(i)), name)))
        names = tuple(source.object_names)
        tiles.append(drawings.Tile(example, text, title, source.shape(i), names, source.subject(i)))
    file = places.of(args.png or Path(folder) / f"show-{split}.png", "--png")
    drawings.draw(tiles, file)
    return file


def show_pipeline(args: argparse.Namespace, changes: list[str]) -> epath.Path:
    """Draws what the network of a configuration sees, batch after batch."""
    from jaxt2i.data import show as drawings
    from jaxt2i.run import open as runs
    from jaxt2i.run import settings

    run = runs.open_run(settings.configuration(args.config, changes))
    split = args.split or run.config.data.split
    source = run.source(split)
    if said := getattr(source, "cut_away", str)():
        print(said, file=sys.stderr)
    extra = [k for k in ("boxes", "box_label", "box_mask", "shape_masks") if k in source.gives]
    extra += ["segmentation"] if "segmentation" in source.gives else []
    needs = tuple(dict.fromkeys((*run.method.needs, "image", "tokens", "token_mask", *extra)))
    pipeline = run.pipeline(source, run.config.batch_size, needs)
    names = tuple(getattr(source, "object_names", source.class_names))
    tiles = []
    for position in range(args.show):
        example, text = pipeline.shown_at(position)
        title = f"position {position}, {int(example['token_mask'].sum())} tokens"
        tiles.append(drawings.Tile(example, text, title, (1, 1), names))
    file = places.of(args.png or "pipeline.png", "--png")
    drawings.draw(tiles, file)
    return file


def make_latents(argv: Sequence[str]) -> list[str]:
    """Writes latents as a command line asks; returns lines for a person."""
    from jaxt2i.data.sources.latents import DTYPES
    from jaxt2i.run import latents, log, processes, settings
    from jaxt2i.run import open as runs

    p = argparse.ArgumentParser(
        prog="python -m jaxt2i.prepare latents",
        description="Keeps what a configuration's autoencoder makes of its pictures: means and "
        "deviations, for --config.data.latents=DIR. Pictures are seen in one crop and unmirrored. "
        "Parts that are there already stay, so an interrupted command goes on.",
    )
    p.add_argument("--config", required=True, metavar="FILE[:preset]")
    p.add_argument("--to", required=True, metavar="DIR", help="where they go; may be gs://")
    p.add_argument("--split", action="append", help="default those of training and of scores")
    p.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="float16: half the size")
    p.add_argument("--batch", type=int, default=8, help="pictures a device encodes at once")
    args, changes = p.parse_known_args(argv)
    if args.batch < 1:
        p.error(f"--batch {args.batch}: expected 1 or more")
    runs.prepare_jax()
    config = settings.configuration(args.config, changes)
    with processes.together():
        try:
            lines = latents.write(config, args.to, tuple(args.split or ()), args.dtype, args.batch)
        except runs.USER_ERRORS as error:
            log.fail(error)
    return [*lines, f"train on them: --config.data.latents={args.to}"]


def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    try:
        if argv[:1] == ["latents"]:
            print(*make_latents(argv[1:]), sep="\n")
            return
        if argv[:1] == ["vocabulary"]:
            print(vocabulary.make(vocabulary.arguments(argv[1:])))
            return
        args, settings = arguments(argv)
        if args.pipeline:
            print(f"{show_pipeline(args, settings)}")
            return
        refuse_stores(args)
        builder = builder_of(args.name, args.to)
        target = str(builder.data_dir)
        there = files.exists(os.path.join(target, records.INFO))
        if not args.source and (args.check or args.overwrite or not there):
            args.source = builder.find()
            if not args.source:
                if args.check:
                    raise schema.DataError("--check needs --from DIR")
                holds = "" if there else f"{target} holds no records of {args.name}; "
                raise schema.DataError(f"{holds}give --from DIR")
            print(f"{args.name} from {args.source}")
        if args.check:
            report = {"splits": check(builder, args.source), "skipped": builder.skips.counts}
            report["seconds"] = sum(facts["seconds"] for facts in report["splits"].values())
            print(f"{args.name} at {args.source}:", *summary(report, builder.EXPECTED), sep="\n")
            return
        if args.source and (args.overwrite or not there):
            report = build(builder, args)
            print(f"{args.name} in {target}:", *summary(report, builder.EXPECTED), sep="\n")
            if (
                args.name in ("coco", "coco/2014")
                and report["splits"]["val"]["images"] >= COCO_LIST
            ):
                args.list, args.split = args.list or COCO_LIST, args.split or "val"
        elif args.source:
            print(f"{args.name} is in {target} already; --overwrite builds it again")
        splits = [args.split] if args.split else list(records.describe(target)["splits"])
        for split in splits if args.list else ():
            print(write_list(target, split, args.list, args.seed))
        for split in splits if args.show else ():
            print(show(target, split, args))
        if not args.show and not args.list:
            print(f"train on it: --config.data.source=records --config.data.path={target}")
    except (ConfigError, schema.DataError, ImportError, *trouble.ERRORS) as error:
        sys.exit(f"error: {trouble.line(error)}")


if __name__ == "__main__":
    main(sys.argv[1:])
