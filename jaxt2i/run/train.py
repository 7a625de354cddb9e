"""Training what a configuration describes."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
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
from jaxt2i.engine.method import Batch
from jaxt2i.run import (
    borrow,
    cache,
    checkpoint,
    facts,
    health,
    log,
    own,
    profile,
    settings,
    training,
)
from jaxt2i.run.open import Run, known, open_run, takes_facts, tokenizer_path

# Arrays of a layout, as a person is shown it.
LAYOUT = ("boxes", "box_label", "box_mask", "shape_masks")


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
    workdir = places.of(workdir, "--workdir")
    places.check_run(workdir, "--workdir")
    places.make_folder(workdir)
    if jax.process_count() > 1:
        cache.use(workdir / "xla")
    config = own.prepared(config, workdir)
    # What is impossible is said before data is looked through, where building needs no facts of it.
    run = None if takes_facts(config) else open_run(config)
    told, sources = known(config, workdir)
    run = dataclasses.replace(run, facts=told) if run else open_run(config, told)
    source, held_out = sources[config.data.split], sources[config.data.eval_split]
    own.inherit(run, workdir)
    method, layout = run.method, run.layout()
    batches_of = config.data.get("batches", "")  # runs from before have none
    train_data = run.pipeline(source, config.batch_size, method.needs, batches=batches_of)
    words = str(places.here(tokenizer_path(config.data.tokenizer)))
    fed = stream.Stream(train_data, config.data, words)
    epoch = train_data.order.size
    total = settings.steps(config, "total", batch_size=config.batch_size, epoch_images=epoch)
    schedule = training.Schedule(
        total,
        config.log_every_steps,
        config.checkpoint_every_steps,
        config.sample_every_steps,
        config.keep_checkpoints,
        config.keep_period_steps,
        settings.milestones(config, total, epoch),
        config.best_by,
        profile.Window(**config.profile),
    )
    rules = step.Rules(
        config.seed, config.batch_size, total, micro_batches(config), config.skip_nonfinite
    )
    begin = borrow.fresh_start(config, method, later=bool(checkpoint.steps_in(workdir)))
    devices = layout.mesh.size
    score_rows = -(-config.score_images // devices) * devices
    if score_rows != config.score_images:
        log.say(
            f"config.score_images={config.score_images}: scores are of {score_rows} pictures, a "
            f"number that {devices} devices share"
        )
    score_data = run.pipeline(held_out, score_rows, method.scored, caption="first")
    settings.note_changes(workdir, config)
    if said := getattr(source, "cut_away", str)():
        log.say(said)
    if set(LAYOUT) & set(method.needs) and (said := getattr(source, "crowded", str)()):
        log.say(said)
    said = *method.notes, *own.strangers(config), *settings.unread(config)
    log.say(f"work directory: {workdir}", *said)
    settings.write_config(workdir, config, command)
    facts.write(workdir, told, config.data.tokenizer)

    def batches(first: int) -> Iterator[Batch]:
        return pipeline.prefetch_to_device(fed.iterate(first), layout.put_batch)

    try:
        training.train(
            method,
            rules=rules,
            schedule=schedule,
            layout=layout,
            batch=run.batch_spec(),
            batches=batches,
            workdir=workdir,
            config=settings.plain(config),
            grid=grid_of(run, held_out) if method.sampler else None,
            score_batch=(lambda: layout.put_batch(score_data.batch_at(0))) if score_rows else None,
            settle_batches=settling(run, source, layout.put_batch),
            init_from=begin,
            probe=probe_of(run, held_out) if method.sampler else None,
            stop_when_dead=config.get("stop_when_dead", False),
        )
    except checkpoint.Mismatch as error:
        changed = settings.differences(error.meta["config"], settings.plain(config))
        raise ConfigError(
            f"{workdir} holds a run of another configuration. {error}\nThe fields that differ:\n  "
            + "\n  ".join(changed or ["none: the code has changed since"])
            + "\nUse another --workdir, or the old settings."
        ) from None
    if train_data.skipped:
        log.say(f"examples replaced because they could not be read: {dict(train_data.skipped)}")


def settling(
    run: Run, source: Any, put: Callable[[dict], Batch]
) -> Callable[[], Iterator[Batch]] | None:
    """Makes the batches of captions on which running statistics settle; None: none do."""
    sampler = run.method.sampler
    if not (sampler and sampler.settle):
        return None
    rows = run.pipeline(source, run.config.batch_size, sampler.needs)
    return lambda: (put(rows.batch_at(i)) for i in range(sampler.settle_batches))


def grid_of(run: Run, held_out: Any) -> training.Grid:
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
    return training.Grid(tuple(requests), Showing(run.facts.names.get("box_label", ())))


def probe_of(run: Run, held_out: Any) -> health.Probe | None:
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
