"""Runs and folders brought to the same captions, so that they can be held side by side."""

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from jaxt2i import api
from jaxt2i.data.order import mix, permuted
from jaxt2i.data.readable import readable
from jaxt2i.evaluation import corpora, reference, sets, subjects
from jaxt2i.metrics.score import MetricError
from jaxt2i.places import of as place_of
from jaxt2i.run import log, moved, settings

# The word for a run's held-out pictures, and what may stand behind a run: RUN@STEP.
REAL, AT = "real", "@"
# Captions of a procedural corpus, which has no end, among which some are chosen.
ENDLESS = 2048


@dataclasses.dataclass(frozen=True)
class Sides:
    """What is held side by side.

    Attributes:
      names: of the sides, as they were given.
      sets: of each: row i of all was made for caption i.
      captions: of the rows.
      real: the held-out pictures of the same rows and of all others, where a run is among the
        sides: what pictures are compared with.
      corpus: of the first run, where it is a procedural one; else "".
      notes: what was left out.
    """

    names: tuple[str, ...]
    sets: tuple[sets.Set, ...]
    captions: tuple[str, ...]
    real: sets.Set | None = None
    corpus: str = ""
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Wanted:
    """How sides are made.

    Attributes:
      places: a run, RUN@STEP, a folder of pictures with captions, or "real", of each.
      num: captions at most.
      seed: of their choice, and of the latents, the same for all runs.
      resolution: folders' pictures are cut and resized to it; 0: as they are.
      controls: of all runs.
      raw: weights as trained.
      data: where the runs' data lies now; "": where it lay.
      rule: of `nn.pixels`, from floats to pixels.
      choice: how captions of a split are chosen, a key of `protocols.CAPTIONS`.
    """

    places: tuple[str, ...]
    num: int
    seed: int = 0
    resolution: int = 0
    controls: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    raw: bool = False
    data: str = ""
    rule: str = ""
    choice: str = "distinct"


def split_place(place: str) -> tuple[epath.Path, str]:
    """(folder, step) of RUN@STEP; a folder whose name has an @ is itself."""
    if AT in place and not place_of(place).exists():
        folder, _, step = place.rpartition(AT)
        return place_of(folder), step
    return place_of(place), "newest"


def is_run(place: str) -> bool:
    """Whether a side is a training run."""
    return place != REAL and (split_place(place)[0] / "config.json").is_file()


def only(whole: sets.Set, rows: Sequence[int], name: str = "") -> sets.Set:
    """Some rows of a set, in this order, each once."""
    rows = [int(r) for r in rows]
    back = {row: at for at, row in enumerate(rows)}

    def batches(batch: int, numbers: Sequence[int]) -> Iterator[sets.Batch]:
        for found, pixels in whole.batches(batch, [rows[int(n)] for n in numbers]):
            yield np.array([back[int(row)] for row in found]), pixels

    return dataclasses.replace(
        whole,
        name=name or whole.name,
        count=len(rows),
        batches=batches,
        captions=tuple(whole.captions[r] for r in rows) if whole.captions else None,
        labels=None if whole.labels is None else whole.labels[rows],
        names=tuple(whole.names[r] for r in rows) if whole.names else (),
        row=None if whole.row is None else lambda n: whole.row(rows[n]),
    )


def keys(captions: Sequence[str]) -> list[tuple[str, int]]:
    """(caption, how often it stood there before) of each: what makes rows of two sets the same."""
    seen: collections.Counter = collections.Counter()
    out = []
    for text in captions:
        out.append((text, seen[text]))
        seen[text] += 1
    return out


def folder(place: str, resolution: int) -> sets.Set:
    """The pictures of a folder, which must have captions.

    Raises:
      MetricError: where there is no such folder, or none of its pictures has a caption.
    """
    if not place_of(place).is_dir():
        raise MetricError(
            f"{place}: no such run or folder; give a training run (or RUN{AT}STEP), a folder of "
            f"pictures with captions, or {REAL!r} for the held-out pictures of a run among them"
        )
    found = sets.of_folder(place, resolution)
    if found.captions is None:
        raise MetricError(
            f"{place}: its pictures have no captions, which say which ones belong together: put "
            "a.txt beside each a.png, or a metadata.jsonl into the folder"
        )
    return found


def of(wanted: Wanted) -> Sides:
    """Brings runs and folders to the same captions.

    Captions that all folders have are chosen from; where there is no folder, those of the first
    run's held-out split.

    Raises:
      MetricError: for fewer than two sides, the same one twice, or no caption in common.
    """
    places = wanted.places
    if len(places) < 2 or len(set(places)) < len(places):
        raise MetricError(
            f"{' '.join(places)}: give two or more runs or folders, each once (RUN{AT}STEP for "
            "several steps of one run)"
        )
    systems = {p: opened(p, wanted) for p in places if is_run(p)}
    if REAL in places and not systems:
        raise MetricError(
            f"{REAL!r} is the held-out pictures of a run, and no run is among {' '.join(places)}; "
            "give a folder of real pictures with their captions instead"
        )
    folders = {p: folder(p, wanted.resolution) for p in places if p not in systems and p != REAL}
    source = Split(next(iter(systems.values())), wanted) if systems else None
    captions, rows, notes = choose(folders, source, REAL in places, wanted)
    sides = []
    for place in places:
        if place in folders:
            sides.append(only(folders[place], rows[place], place))
        elif place == REAL:
            sides.append(source.shown([source.pairs[r] for r in rows[REAL]], REAL))
        else:
            sides.append(drawn(systems[place], captions, source, rows.get(REAL), place, wanted))
    return Sides(
        *(places, tuple(sides), tuple(captions)),
        real=source and source.all_of_it(),
        corpus=source.corpus if source else "",
        notes=tuple(notes),
    )


def choose(
    folders: Mapping[str, sets.Set], source: "Split | None", real: bool, wanted: Wanted
) -> tuple[list[str], dict[str, list[int]], list[str]]:
    """(captions, {side: its rows of them}, notes); the split's rows stand under "real".

    Raises:
      MetricError: where nothing is common to all.
    """
    known = {place: keys(found.captions) for place, found in folders.items()}
    if source is not None and (real or not folders):
        # All captions of the split, where folders say which are meant; else as many as are wanted.
        source.choose(0 if folders else wanted.num)
        known[REAL] = keys(source.captions)
    first, *others = known.values()
    common = set(first).intersection(*others)
    shared = [key for key in first if key in common]
    if not shared:
        raise MetricError(
            f"{' and '.join(known)} have no caption in common, so no two pictures can be held "
            "side by side: draw both for the same captions, as `sample --prompts-file FILE` does"
        )
    order = [permuted(i, len(shared), mix(wanted.seed, 31)) for i in range(len(shared))]
    chosen = [shared[i] for i in sorted(order[: wanted.num])]
    rows = {}
    for place, found in known.items():
        at = {key: i for i, key in enumerate(found)}
        rows[place] = [at[key] for key in chosen]
    notes = [
        f"{len(found) - len(shared):,} of {len(found):,} captions of {place} are not among those "
        "of the others and were left out"
        for place, found in known.items()
        if len(found) > len(shared) and place != REAL
    ]
    return [text for text, _ in chosen], rows, notes


def opened(place: str, wanted: Wanted) -> api.System:
    """A run that draws."""
    path, step = split_place(place)
    found = api.load(path, step=subjects.agreed(path, step), use_ema=not wanted.raw)
    moved.point(found.run.config, wanted.data, path)
    found.check(dict(wanted.controls))
    return found


def drawn(
    system: api.System,
    captions: Sequence[str],
    source: "Split",
    rows: Sequence[int] | None,
    name: str,
    wanted: Wanted,
) -> sets.Set:
    """What a run draws for the captions; its other conditions are those of the split's rows.

    Raises:
      MetricError: where it needs conditions that captions of a folder do not bring.
    """
    needs = [word for word in system.conditions if word != "prompt"]
    if rows is None and needs:
        raise MetricError(
            f"{name} needs {', '.join(needs)} beside captions, and a folder's captions alone are "
            "common to all sides; hold it beside other runs on its data"
        )

    def conditions(number: int) -> dict[str, Any]:
        if not needs or rows is None:
            return {}
        example = source.pairs[rows[number]][0]
        return next(source.system.run.rows_of(source.source, [example], system.asked))

    log.say(f"drawing {len(captions)} pictures of {name}")
    return sets.of_system(
        system,
        captions,
        name=name,
        seed=wanted.seed,
        rule=wanted.rule,
        conditions=conditions,
        controls=dict(wanted.controls),
    )


class Split:
    """The held-out split of the first run among the sides.

    Attributes:
      pairs: (example, number of its caption) of what was chosen.
      captions: of these.
      corpus: of a procedural one; else "".
    """

    def __init__(self, system: api.System, wanted: Wanted):
        self.system, self._wanted = system, wanted
        config = system.run.config
        self.corpus = config.data.corpus if config.data.source == "synthetic" else ""
        self.source = system.run.source(config.data.eval_split)
        self.size = self.source.size or max(wanted.num, ENDLESS)
        self.pairs: list[tuple[int, int]] = []
        self.captions: list[str] = []

    def choose(self, num: int) -> None:
        """Chooses so many captions; 0: all of all examples."""
        count = min(num, self.size) if num and self.source.size is None else self.size
        found = list(readable(range(count), self.source.captions, "the captions"))
        if num:
            counts = [len(texts) for _, texts in found]
            how = self._wanted
            pairs = sets.choose_captions(counts, how.choice, num, how.seed)
        else:
            pairs = [(i, j) for i, (_, texts) in enumerate(found) for j in range(len(texts))]
        self.pairs = [(found[i][0], j) for i, j in pairs]
        self.captions = [found[i][1][j] for i, j in pairs]

    def shown(self, pairs: Sequence[tuple[int, int]], name: str) -> sets.Set:
        """The real pictures of some captions."""
        texts = [self.source.captions(i)[j] for i, j in pairs]
        return sets.of_source(self.source, name, [i for i, _ in pairs], texts)

    def all_of_it(self) -> sets.Set:
        """All held-out pictures, as a reference."""
        run = self.system.run
        name = f"{corpora.dataset_of(run.config.data)}-{run.config.data.eval_split}"
        data = settings.plain(run.config)["data"]
        content = reference.content_of(self.source, data, range(self.size))
        return sets.of_source(self.source, name, range(self.size), content=content)
