"""Training what a configuration describes."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from jaxt2i import places
from jaxt2i.config import ConfigError, micro_batches
from jaxt2i.data import conditions, pipeline, schema, show, stream
from jaxt2i.data.readable import readable
from jaxt2i.engine import draw, step
from jaxt2i.engine.mesh import Layout
from jaxt2i.engine.method import Batch
from jaxt2i.run import (
    borrow,
    cache,
    checkpoint,
    facts,
    health,
    log,
    own,
    parts,
    profile,
    settings,
    training,
)
from jaxt2i.run.open import Run, known, open_run, takes_facts, tokenizer_path

# Arrays of a layout, as a person is shown it.
LAYOUT = ("boxes", "box_label", "box_mask", "shape_masks")
# How pictures are held out, where a source knows of another way than naming another split.
HELD_OUT = {
    "folder": "move some, with their captions, into a folder val/ beside a folder train/",
    "webdataset": "set config.data.web.held_out to a share of its files",
}


def train(config: ConfigDict, workdir: epath.PathLike, command: str) -> None:
    """Trains what a configuration describes.

    Args:
      config: the configuration.
      workdir: where everything is written; an earlier attempt there is continued.
      command: the command line, kept for the record.

    Raises:
      ConfigError: for impossible settings, before anything is compiled.
      ValueError, OSError: for unusable data, before anything is compiled.
    """
    workdir = place(workdir)
    config = own.prepared(config, workdir)
    run, sources = opened(config, workdir)
    own.inherit(run, workdir)
    reader = read_by(run, sources[config.data.split])
    schedule, rules = scheduled(config, reader.epoch), rules_of(config, reader.epoch)
    begin = borrow.fresh_start(config, run.method, later=bool(checkpoint.steps_in(workdir)))
    rows = score_rows(config, reader.layout)
    settings.note_changes(workdir, config)
    log.say(*remarks(run, sources), f"work directory: {workdir}", *notes(run))
    settings.write_config(workdir, config, command)
    facts.write(workdir, run.facts, config.data.tokenizer)
    try:
        training.train(
            run.method,
            rules=rules,
            schedule=schedule,
            layout=reader.layout,
            inputs=inputs_of(run, sources, reader, rows),
            workdir=workdir,
            config=settings.plain(config),
            init_from=begin,
        )
    except checkpoint.Mismatch as error:
        changed = settings.differences(error.meta["config"], settings.plain(config))
        raise ConfigError(
            f"{workdir} holds a run of another configuration. {error}\nThe fields that differ:\n  "
            + "\n  ".join(changed or ["none: the code has changed since"])
            + "\nUse another --workdir, or the old settings."
        ) from None
    if reader.skipped:
        log.say(f"examples replaced because they could not be read: {dict(reader.skipped)}")


def place(workdir: epath.PathLike) -> epath.Path:
    """The work directory, there and to be written to."""
    workdir = places.of(workdir, "--workdir")
    places.check_run(workdir, "--workdir")
    places.make_folder(workdir)
    if jax.process_count() > 1:
        cache.use(workdir / "xla")
    return workdir


def opened(config: ConfigDict, workdir: epath.Path) -> tuple[Run, dict[str, Any]]:
    """(the run, {split: its source} of training and held-out data).

    What is impossible is said before data is looked through, where building needs no facts of it.
    """
    run = None if takes_facts(config) else open_run(config)
    told, sources = known(config, workdir)
    run = dataclasses.replace(run, facts=told) if run else open_run(config, told)
    return run, sources


@dataclasses.dataclass(frozen=True)
class Reader:
    """Training's batches.

    Attributes:
      layout: where they go.
      epoch: examples of an epoch; None: no end.
      batches: first step -> iterator of batches from that step on, on the devices.
      skipped: {reason: examples that were replaced}, so far.
    """

    layout: Layout
    epoch: int | None
    batches: Callable[[int], Iterator[Batch]]
    skipped: Mapping[str, int]


def read_by(run: Run, source: Any) -> Reader:
    """How a run reads its training data."""
    config, layout = run.config, run.layout()
    batches_of = config.data.get("batches", "")  # runs from before have none
    data = run.pipeline(source, config.batch_size, run.method.needs, batches=batches_of)
    words = str(places.here(tokenizer_path(config.data.tokenizer)))
    fed = stream.Stream(data, config.data, words)

    def batches(first: int) -> Iterator[Batch]:
        return pipeline.prefetch_to_device(fed.iterate(first), layout.put_batch)

    return Reader(layout, data.order.size, batches, data.skipped)


def length(config: ConfigDict, epoch: int | None) -> int:
    """Steps of a run."""
    return settings.steps(config, "total", batch_size=config.batch_size, epoch_images=epoch)


def scheduled(config: ConfigDict, epoch: int | None) -> parts.Schedule:
    """When what happens."""
    total = length(config, epoch)
    return parts.Schedule(
        total,
        config.log_every_steps,
        config.checkpoint_every_steps,
        config.sample_every_steps,
        config.keep_checkpoints,
        config.keep_period_steps,
        settings.milestones(config, total, epoch),
        config.best_by,
        profile.Window(**config.profile),
        config.get("stop_when_dead", False),
    )


def rules_of(config: ConfigDict, epoch: int | None) -> step.Rules:
    """How steps are played."""
    total = length(config, epoch)
    return step.Rules(
        config.seed, config.batch_size, total, micro_batches(config), config.skip_nonfinite
    )


def score_rows(config: ConfigDict, layout: Layout) -> int:
    """Of how many pictures scores are: as many as are asked for, or a few more."""
    devices = layout.mesh.size
    rows = -(-config.score_images // devices) * devices
    if rows != config.score_images:
        log.say(
            f"config.score_images={config.score_images}: scores are of {rows} pictures, a "
            f"number that {devices} devices share"
        )
    return rows


def remarks(run: Run, sources: Mapping[str, Any]) -> list[str]:
    """What to say of the data."""
    source = sources[run.config.data.split]
    said = [getattr(source, "cut_away", str)()]
    if set(LAYOUT) & set(run.method.needs):
        said.append(getattr(source, "crowded", str)())
    if run.facts.seen:
        said.append(
            f"scores, grids and signs of health are of pictures that are trained on, and say "
            f"nothing of new captions: this data has none apart for config.data.eval_split="
            f"{run.config.data.eval_split!r}; "
            f"{HELD_OUT.get(run.config.data.source, 'set it to another split')}"
        )
    return [sentence for sentence in said if sentence]


def notes(run: Run) -> list[str]:
    """What to say of the method and its settings."""
    config = run.config
    return [*run.method.notes, *own.strangers(config), *settings.unread(config)]


def inputs_of(run: Run, sources: Mapping[str, Any], reader: Reader, rows: int) -> parts.Inputs:
    """What a run reads: batches, and what it draws and scores.

    Args:
      run: the run.
      sources: {split: its source}.
      reader: of the training data.
      rows: that are scored; 0: none.
    """
    method, data, put = run.method, run.config.data, reader.layout.put_batch
    source, held_out = sources[data.split], sources[data.eval_split]
    scored = run.pipeline(held_out, rows, method.scored, caption="first")
    return parts.Inputs(
        batch=run.batch_spec(),
        batches=reader.batches,
        grid=grid_of(run, held_out) if method.sampler else None,
        probe=(lambda: probe_of(run, held_out)) if method.sampler else None,
        score_batch=(lambda: put(scored.batch_at(0))) if rows else None,
        settle_batches=settling(run, source, put),
        seen=run.facts.seen,
    )


def settling(
    run: Run, source: Any, put: Callable[[dict], Batch]
) -> Callable[[], Iterator[Batch]] | None:
    """Makes the batches of captions on which running statistics settle; None: none do."""
    sampler = run.method.sampler
    if not (sampler and sampler.settle):
        return None
    rows = run.pipeline(source, run.config.batch_size, sampler.needs)
    return lambda: (put(rows.batch_at(i)) for i in range(sampler.settle_batches))


def grid_of(run: Run, held_out: Any) -> parts.Grid:
    """What the sample grids show: held-out rows, with the configured prompts if there are any.

    Picture number i has seed i, so that `sample --prompts CAPTION --seed i` draws it again.
    """
    grid = run.config.grid
    asked = [{"prompt": p} for p in grid.prompts]
    count = len(asked) or min(grid.count, held_out.size or grid.count)
    numbers = itertools.count() if held_out.size is None else range(held_out.size)
    rows = list(itertools.islice(run.rows_of(held_out, numbers, what="the sample grid"), count))
    if asked:  # they may be more than there are rows to fill them up
        rows = conditions.laid_over([rows[i % len(rows)] for i in range(count)], asked)
    words = run.words(schema.names_of(held_out))
    needs = run.method.sampler.needs
    requests = [
        draw.Request(words.arrays(row, needs), seed, about=row["prompt"])
        for seed, row in enumerate(rows)
    ]
    return parts.Grid(tuple(requests), Showing(run.facts.names.get("box_label", ())))


def probe_of(run: Run, held_out: Any) -> health.Probe:
    """Held-out rows and pictures, from all over the split, that tell whether a run is well."""

    def spaced(count: int) -> Iterator[int]:
        """So many numbers, then the others, for what cannot be read."""
        size = held_out.size or 10 * count
        count = min(count, size)
        first = [i * size // count for i in range(count)]
        return itertools.chain(first, (i for i in range(size) if i not in first))

    wanted = run.rows_of(held_out, spaced(health.ROWS), what="the rows that tell its health")
    rows = list(itertools.islice(wanted, health.ROWS))
    words, needs = run.words(schema.names_of(held_out)), run.method.sampler.needs
    real = health.NOTHING
    if "image" in held_out.gives:
        found = readable(
            spaced(health.REAL),
            lambda i: held_out.example(i, ("image",))["image"],
            "the pictures that tell its health",
        )
        real = np.stack([image for _, image in itertools.islice(found, health.REAL)])
    arrays = [words.arrays(row, needs) for row in rows]
    return health.probe(arrays, [row.get("prompt", "") for row in rows], real)


@dataclasses.dataclass(frozen=True)
class Showing:
    """Writes a grid: pictures with their captions; over them, or alone, the boxes of layouts.

    Where a picture is drawn from another one, that stands before it.

    Attributes:
      names: of the classes of boxes.
    """

    names: tuple[str, ...]

    def __call__(self, step: int, drawn: Iterable, records: log.Records) -> None:
        """Writes samples/STEP.png, and samples/STEP_layout.png where there are boxes."""
        images, captions, tiles = [], [], []
        for request, out in drawn:
            if "image" in out:
                # A picture that was drawn from one stands behind it.
                shown = [x["image"] for x in (request.row, out) if "image" in x]
                images += shown
                captions += [request.about] * len(shown)
            layout = {k: v for k, v in {**request.row, **out}.items() if k in LAYOUT}
            if "boxes" in layout:
                tiles.append(tile(out.get("image"), layout, request.about, self.names))
        if images:
            records.grid(step, np.stack(images), captions)
        if tiles:
            records.layouts(step, lambda path: show.draw(tiles, path, beside=bool(images)))


def tile(
    image: np.ndarray | None, layout: dict[str, np.ndarray], caption: str, names: tuple[str, ...]
) -> show.Tile:
    """Boxes over a picture, or on a blank canvas."""
    picture = {} if image is None else {"image": image}
    return show.Tile({**picture, **layout}, caption, names=names)
