"""Scores of pairs of pictures by LPIPS: samples of one caption, edits beside their originals."""

import collections
import os
from collections.abc import Sequence

import numpy as np

from jaxt2i.evaluation.reading import Reader, share_of, together
from jaxt2i.evaluation.sets import Set
from jaxt2i.metrics import confidence, diversity
from jaxt2i.metrics.score import MetricError, Score

NETS = ("alex", "vgg", "squeeze")
# Captions and samples of each behind "diversity".
DIVERSE, SAMPLES = 100, 10
# Pairs at once.
BATCH = 16
# Names that a message lists.
NAMED = 5


def of_samples(reader: Reader, pictures: Set, samples: int, net: str) -> Score:
    """How far samples of one caption are apart.

    Args:
      reader: for the network.
      pictures: `samples` rows for each caption, one after the other.
      samples: of each caption.
      net: of `NETS`.
    """
    own = share_of(pictures.count // samples)
    rows = [int(c) * samples + s for c in own for s in range(samples)]
    found = np.zeros(0)
    if rows:
        table = np.stack(list(pictures.pictures(rows).values()))
        table = table.reshape(-1, samples, *table.shape[1:])
        found = diversity.by_caption(table, reader.distance(net, BATCH), batch=BATCH)
    found = together(found)
    score = diversity.diversity(found, samples).with_interval(confidence.of_mean(found))
    return score.with_facts(network=f"lpips_{net}", images=pictures.name)


def of_edits(reader: Reader, edited: Set, originals: Set, net: str) -> Score:
    """How far edited pictures are from the ones they were made of.

    Args:
      reader: for the network.
      edited: a folder.
      originals: another one, with a picture of the same name for each.
      net: of `NETS`.

    Returns:
      Score "lpips"; `spread` is the population standard deviation over pairs.

    Raises:
      MetricError: for pictures without a partner, or of another size than theirs.
    """
    found = pairs(edited, originals)
    own = [found[i] for i in share_of(len(found))]
    distance = reader.distance(net, BATCH)
    values = [np.zeros(0)]
    for at in range(0, len(own), BATCH):
        values += _distances(edited, originals, own[at : at + BATCH], distance)
    apart = together(np.concatenate(values))
    if not len(apart):
        raise MetricError(f"none of the {len(found)} pairs of {edited.name} can be read")
    score = Score(
        "lpips",
        float(apart.mean()),
        float(apart.std()),
        facts={
            "generated": len(apart),
            "network": f"lpips_{net}",
            "preprocessing": "as they are, in [-1, 1]",
            "images": edited.name,
            "reference": originals.name,
        },
        warnings=unread(len(found), len(apart)),
    )
    return score.with_interval(confidence.of_mean(apart)) if len(apart) > 1 else score


def _distances(edited: Set, originals: Set, part: Sequence[tuple[int, int]], distance) -> list:
    """Distances of some pairs, those of one size at once."""
    a, b = edited.pictures([i for i, _ in part]), originals.pictures([j for _, j in part])
    sizes: dict[tuple, list] = collections.defaultdict(list)
    for i, j in part:
        if i not in a or j not in b:
            continue
        if a[i].shape != b[j].shape:
            (h, w, _), (high, wide, _) = a[i].shape, b[j].shape
            raise MetricError(
                f"{edited.names[i]} is {w} x {h} in {edited.name} and {wide} x {high} in "
                f"{originals.name}; a pair must have one size: give --resolution 256 to cut and "
                "resize them alike"
            )
        sizes[a[i].shape].append((a[i], b[j]))
    return [distance(*map(np.stack, zip(*group, strict=True))) for group in sizes.values()]


def pairs(edited: Set, originals: Set) -> list[tuple[int, int]]:
    """(row of one, row of the other) of pictures with one name, whatever its ending.

    Raises:
      MetricError: where a name is there twice, or in one folder alone.
    """
    by_name = []
    for folder in (edited, originals):
        known: dict[str, int] = {}
        for row, name in enumerate(folder.names):
            stem = os.path.splitext(name)[0]
            if stem in known:
                raise MetricError(
                    f"{folder.name}: {folder.names[known[stem]]} and {name} have one name, and "
                    "pictures are paired by name: take one of them away"
                )
            known[stem] = row
        by_name.append(known)
    alone = [
        f"{len(lone)} of {len(one)} pictures of {folder.name} ({listed(lone)})"
        for folder, one, other in zip((edited, originals), by_name, reversed(by_name), strict=True)
        if (lone := [name for name in one if name not in other])
    ]
    if alone:
        raise MetricError(
            f"pictures are paired by name, and have no partner: {'; '.join(alone)}. Rename them, "
            "or take them away"
        )
    first, second = by_name
    return [(row, second[name]) for name, row in first.items()]


def listed(names: Sequence[str]) -> str:
    """The first few names."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def unread(wanted: int, seen: int) -> tuple[str, ...]:
    """What to know where pictures could not be read."""
    if seen == wanted:
        return ()
    return (f"{wanted - seen} of {wanted} pairs were left out: a picture cannot be read",)
