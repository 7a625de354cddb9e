"""`--layouts real shuffled` of `python -m jaxt2i.evaluate`: what a picture owes to its layout.

The same captions and seeds are drawn once more, from the data's own layouts of their pictures (the
most that a chain with a layout model in front can hope for), or from those of other captions (the
least). Both scores stand beside the score.
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxt2i.data.conditions import Row
from jaxt2i.evaluation import report
from jaxt2i.metrics.score import MetricError, Score

REAL, SHUFFLED = "real", "shuffled"
# What a row tells of a layout.
LAYOUT = ("objects", "units", "size")


def add_options(how: argparse._ArgumentGroup) -> None:
    """Options of what stands beside scores of pictures that are drawn from layouts."""
    how.add_argument(
        "--layouts",
        nargs="+",
        default=[],
        choices=(REAL, SHUFFLED),
        help="also draw the same captions from the data's layouts (real), or from those of other "
        "captions (shuffled), and put the scores of soa, recognised, lqs and relations beside",
    )


def rows(system: Any, source: Any, images: Sequence[int | None], kind: str) -> Callable[[int], Row]:
    """Number of a picture -> what it is drawn from, beside its caption.

    Args:
      system: what draws, `api.System`.
      source: whose examples the captions are of.
      images: number of the example of every picture; None: there is none.
      kind: "": what the chain asks for; `REAL`: the data's layout, whatever earlier systems would
        draw; `SHUFFLED`: that of the next example among these.

    Raises:
      MetricError: where there is one example alone.
    """
    run = system.run
    keys = system.asked if not kind else (*system.asked, *system.sampler.needs)

    @functools.lru_cache(64)
    def read(image: int) -> Row:
        return next(run.rows_of(source, [image], tuple(dict.fromkeys(keys))))

    if kind != SHUFFLED:
        return lambda number: Row() if images[number] is None else read(images[number])
    known = sorted({image for image in images if image is not None})
    if len(known) < 2:
        raise MetricError("--layouts shuffled exchanges the layouts of pictures: judge two or more")
    other = dict(zip(known, known[1:] + known[:1], strict=True))

    def exchanged(number: int) -> Row:
        image = images[number]
        if image is None:
            return Row()
        own = {word: value for word, value in read(image).items() if word not in LAYOUT}
        theirs = read(other[image])
        return own | {word: theirs[word] for word in LAYOUT if word in theirs}

    return exchanged


def check(args: Any, system: Any, data: Any, chosen: Any, metrics: Sequence[Any]) -> None:
    """Refuses --layouts where no layout is read, or nothing would be measured with them.

    Args:
      args: the command line.
      system: what draws, `api.System`.
      data: see `extra.Case`.
      chosen: see `extra.Case`.
      metrics: those that are measured, of `extra.METRICS`.

    Raises:
      MetricError: says what does not fit.
    """
    if not args.layouts:
        return
    said = f"--layouts {' '.join(args.layouts)}"
    if not any(metric.by_layouts for metric in metrics):
        raise MetricError(f"{said}: it is of soa, recognised, lqs and relations; ask for one")
    if "boxes" not in system.sampler.needs:
        raise MetricError(f"{said}: {system.run.config.method} reads no layouts; leave it out")
    if "boxes" not in data.source.gives:
        raise MetricError(f"{said}: {data.name} has no layouts; choose --data with objects")
    if not chosen.pairs:
        raise MetricError(f"{said}: they are those of the data's captions: leave --captions out")
    if REAL in args.layouts and "boxes" in system.asked:
        raise MetricError(
            f"{said}: without a layout model in front (--after) pictures are drawn from the data's "
            "layouts anyway; leave real out"
        )
    if args.save:
        raise MetricError(f"{said} draws several times, and --save keeps one set: leave one out")


def cases(case: Any, redrawn: Callable[[Callable[[int], Row]], Any]) -> dict[str, Any]:
    """{kind of layouts: the case with pictures that are drawn from them}; nothing is drawn yet.

    Args:
      case: see `extra.Case`.
      redrawn: what pictures are drawn from -> the set of them.
    """
    out = {}
    for kind in case.args.layouts:
        images = [image for image, _ in case.chosen.pairs]
        out[kind] = dataclasses.replace(
            case,
            layouts=kind,
            fake=redrawn(rows(case.system, case.data.source, images, kind)),
            result=report.Result("", None, [], case.result.measured),
            shared={},
        )
    return out


def scores(others: Mapping[str, Any], metric: Any, found: Sequence[Score]) -> list[Score]:
    """Scores with those of pictures from other layouts among their facts, from_KIND_layouts.

    Args:
      others: of `cases`.
      metric: of `extra.METRICS`.
      found: what it says of the pictures that are judged.
    """
    out = list(found)
    for kind, other in others.items() if metric.by_layouts else ():
        values = {score.metric: score.value for score in metric.compute(other)}
        out = [
            s.with_facts(**{f"from_{kind}_layouts": values[s.metric]}) if s.metric in values else s
            for s in out
        ]
    return out
