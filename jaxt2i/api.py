"""Trained weights that draw: rows of words in, pictures and rows of words out.

import jaxt2i
flowers = jaxt2i.load("runs/stylegan_t-default")  # also an export, or hf://USER/NAME
flowers.controls, flowers.conditions  # what can be set, and what a row may say
flowers.sample(["a red rose", "a blue owl"], num=4).save("drawn")
jaxt2i.load("runs/images", after=["runs/layouts"]).sample(["a cat on a mat"]).images[0]
"""

import collections
import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxt2i import places
from jaxt2i.config import ConfigError, nearest
from jaxt2i.data import conditions
from jaxt2i.data.conditions import Conditions, Row
from jaxt2i.data.rows import CARRIED, whole, without
from jaxt2i.data.schema import FIELDS, DataError
from jaxt2i.drawn import Drawn
from jaxt2i.engine import draw, mesh
from jaxt2i.engine.method import Sampler, Tree
from jaxt2i.engine.state import State
from jaxt2i.evaluation import best
from jaxt2i.run import edits, exports, facts, given, log, placement, restore, settings, shown, walk
from jaxt2i.run.open import LAYOUT, Run, open_run

SEEDS = 2**32
# The output that adds something to each object of a row.
MASKS = "shape_masks"
# What a row told of places, which belongs to what was drawn.
TOLD = (*LAYOUT, "edit_region")
# Words of a row that say how to draw it rather than what is in it.
HOW = ("z", "towards")
# Ends of walks whose text and latent are remembered.
ENDS = 64


class System:
    """Draws with one run, or with a chain of them.

    Args:
      run: the run.
      state: its weights.
      frozen: its frozen weights.
      after: systems whose outputs fill a row, one after the other, before this one draws.
      layout: where the weights lie; rows are split over it.
      use_ema: averaged weights where there are any.
      chunk: rows a device draws at once; 0: what suits the platform.
      about: what is known of the weights, for the record.
    """

    def __init__(
        self,
        *,
        run: Run,
        state: State,
        frozen: Tree,
        after: Sequence["System"] = (),
        layout: mesh.Layout | None = None,
        use_ema: bool = True,
        chunk: int = 0,
        about: Mapping[str, Any] | None = None,
    ):
        if run.method.sampler is None:
            raise ConfigError(f"{run.config.method} draws nothing: it has no sampler")
        if chunk < 0:
            raise ConfigError(f"chunk={chunk}: expected 1 or more rows at once, or 0: as suits it")
        self.run, self.sampler, self.after = run, run.method.sampler, tuple(after)
        self.layout = layout or here()
        self.weights = state, frozen
        make = functools.partial(draw.Drawer, method=run.method, layout=self.layout)
        self._drawer = functools.cache(
            lambda wanted, rule: make(wanted=wanted, rule=rule, use_ema=use_ema, chunk=chunk)
        )
        self.words = run.words()
        self._sized = functools.cache(lambda height, width: self.words.sized(height, width))
        self.chunk = self.drawer().chunk
        self.about = {
            "method": run.config.method,
            **(about or {}),
            "weights": "averaged" if use_ema and run.method.ema else "as trained",
            "chunk": self.chunk,
            "platform": self.layout.mesh.devices.flat[0].platform,
            "precision": run.config.get("precision", "float32"),
            **({"after": [s.about for s in after]} if after else {}),
        }
        self._scorer = functools.cache(best.scorer)
        self._ends: collections.OrderedDict = collections.OrderedDict()
        self._told = False

    def __repr__(self) -> str:
        """What it is, for a prompt or a notebook."""
        step = self.about.get("step")
        at = "" if step is None else f" at step {step}"
        return f"<{self.about['method']}{at}: draws from {', '.join(self.conditions)}>"

    # --- what there is to ask for -----------------------------------------------------------------

    def drawer(self, wanted: Sequence[str] = (), rule: str = "") -> draw.Drawer:
        """The compiled programs for some outputs, made once; see `draw.Drawer`."""
        return self._drawer(tuple(wanted), rule)

    @functools.cached_property
    def gives(self) -> dict[str, Any]:
        """{output: shape of one}, without drawing."""
        spec = self.run.row_spec()
        return self.drawer().outputs(*self.weights, spec)

    @functools.cached_property
    def controls(self) -> shown.Shown:
        """{name: `Control`} of the whole chain; shows itself as a table."""
        return shown.controls(c for s in (*self.after, self) for c in s.sampler.controls)

    @functools.cached_property
    def conditions(self) -> shown.Shown:
        """{word: `Condition`} that a row must have, or may have; shows itself as a table."""
        chain, found = (*self.after, self), {}
        filled = {word for s in self.after for word in s.fills}
        for system in chain:
            for key in system.sampler.needs:
                word, names = conditions.READ[key][0], system.run.facts.names.get(key, ())
                if word in filled:
                    continue
                before = found.get(word)
                needed = key not in conditions.OPTIONAL or bool(before and before.needed)
                kind, meaning = conditions.MEANINGS[word]
                names = names or (before.names if before else ())
                found[word] = shown.Condition(word, kind, needed, meaning, tuple(names))
        return shown.conditions(found.values())

    @functools.cached_property
    def asked(self) -> tuple[str, ...]:
        """Rows of the schema that a row has to bring: what no earlier system of the chain draws."""
        drawn: set[str] = set()
        asked: dict[str, None] = {}
        for system in (*self.after, self):
            asked |= dict.fromkeys(key for key in system.sampler.needs if key not in drawn)
            drawn |= set(system.gives)
        return tuple(asked)

    @property
    def fills(self) -> set[str]:
        """The words of a row that its outputs are; not those that it has to be given."""
        told = {conditions.READ[k][0] for k in self.sampler.needs}
        return {conditions.READ[k][0] for k in self.gives if k in conditions.READ} - told

    def completes(self, row: Row) -> bool:
        """Whether a row lacks something that it draws: a word, or the mask of an object."""
        if not self.fills <= set(row):
            return True
        things = row.get("objects", ()) if MASKS in self.gives else ()
        return isinstance(things, Sequence) and any(
            isinstance(thing, Mapping) and "mask" not in thing for thing in things
        )

    def describe(self) -> dict[str, Any]:
        """What a person may set, as plain data: a studio draws its form from it."""
        return {
            **self.about,
            "conditions": list(self.conditions),
            "classes": {key: list(names) for key, names in self.run.facts.names.items()},
            "controls": [dataclasses.asdict(c) for c in self.controls.values()],
            "gives": self.gives,
            "filled": sorted({word for s in self.after for word in s.fills}),
            "size": [self.run.sizes.width, self.run.sizes.height],
            "walks": {"text": bool(self.sampler.text), "latent": bool(self.sampler.latent)},
        }

    def changed(self, controls: Mapping[str, Any]) -> str:
        """What latents and controls are, where not plain: "psi=0.7 steps=20", or "none"."""
        known = self.controls
        read = {name: known[name].read(value) for name, value in controls.items()}
        other = [f"{n}={v}" for n, v in sorted(read.items()) if v != known[n].default]
        return " ".join([*filter(None, [self.sampler.latents]), *other]) or "none"

    # --- drawing ----------------------------------------------------------------------------------

    def stream(
        self,
        rows: Iterable[Row],
        *,
        also: Sequence[str] = (),
        rule: str = "",
        size: tuple[int, int] | int | None = None,
        **controls: Any,
    ) -> Iterator[tuple[Row, dict[str, Tree]]]:
        """(row, what was drawn for it), endless if the rows are, in constant memory.

        Args:
          rows: conditions in words; `expand` makes several of one.
          also: outputs beyond the rows of the schema: "stages", "attention", "masks".
          rule: how pictures are rounded; "": the method's own way.
          size: (height, width), or the shorter side of pictures in the shape of a row's image;
            None: as in training. Methods that draw other sizes say so, see `Sampler.multiple`.
          controls: for every row that does not say otherwise, of the whole chain.

        Raises:
          ConfigError: for a control or an output that there is not.
          DataError: for a row that cannot be read.
        """
        self.check(controls)
        for name in also:
            if name not in self.gives:
                have = ", ".join(self.gives)
                raise ConfigError(f"{self.run.config.method} draws no {name!r}; it draws {have}")
        for earlier, then in itertools.pairwise((*self.after, self)):
            rows = self._filled(earlier, rows, controls, then)
        wanted = [n for n in self.gives if n in FIELDS or n in also]
        drawer = self.drawer(wanted, rule)
        for request, out in drawer.stream(*self.weights, self._requests(rows, controls, size)):
            if MASKS in out:
                out = {**out, MASKS: self.words.with_own_masks(out[MASKS], request.about)}
            words = self.words.row({k: v for k, v in out.items() if k != "image"})
            # What was told of objects, in fractions of what is drawn, whatever the row counted in.
            told = {k: request.row[k] for k in TOLD if k in request.row}
            yield request.about | words, told | out

    def sample(
        self,
        rows: Sequence[Row | str] | Row | str,
        *,
        num: int = 1,
        seed: int = 0,
        also: Sequence[str] = (),
        best_of: int = 0,
        judge: str = "",
        **controls: Any,
    ) -> Drawn:
        """Draws `num` pictures a row.

        Args:
          rows: captions, or rows of conditions; or one of them.
          num: pictures a row, at seeds that follow each other.
          seed: the first, of rows that have none of their own.
          also: see `stream`.
          best_of: draw so many for each picture and keep the one that the judge likes best, see
            `best`; 0: draw what is asked for.
          judge: see `best`.
          controls: see `stream`.
        """
        also = (also,) if isinstance(also, str) else also
        asked = numbered(expand(self.told(given.in_words(rows)), num, seed))
        if best_of or judge:
            found = list(self.best(asked, best_of, judge, also=also, **controls))
        else:
            found = list(self.stream(asked, also=also, **controls))
        return self.drawn(found, num if num > 1 else 0, controls)

    def best(
        self,
        rows: Iterable[Row],
        count: int,
        judge: str = "",
        *,
        also: Sequence[str] = (),
        **controls: Any,
    ) -> Iterator[tuple[Row, dict[str, Tree]]]:
        """(row, what was drawn for it): of `count` pictures the one that a judge likes best.

        Args:
          rows: see `stream`; a row of seed s draws the seeds from s * count on.
          count: pictures that one is chosen of.
          judge: "clip_similarity", "pick_score", "hps_v21", or "mini_clip", the shipped one; "":
            mini_clip for runs that look through it, else clip_similarity. Its scores of all of
            them are in the row.
          also: see `stream`.
          controls: see `stream`.

        Raises:
          ConfigError: for an unknown judge; as `stream` does.
          WeightsError: where the judge's weights cannot be had.
        """
        sees = self.run.config.model.get("perception", "")
        judge = judge or ("mini_clip" if sees == "mini" else "clip_similarity")
        if count < 2:
            raise ConfigError(f"the best of {count}: expected 2 or more, as in best_of=8")
        score = self._scorer(judge)
        drawn = self.stream(best.candidates(rows, count), also=also, **controls)
        return best.chosen(drawn, count, judge, score)

    def edit(
        self,
        pictures: Sequence[Any] | Any,
        prompts: Sequence[str] | str,
        *,
        regions: Sequence[Any] | Any = "all",
        num: int = 1,
        seed: int = 0,
        size: tuple[int, int] | int | None = None,
        sweep: tuple[str, Sequence[Any]] | None = None,
        **controls: Any,
    ) -> Drawn:
        """Edits pictures, each to a caption.

        Args:
          pictures: files, or arrays uint8 [H, W, 3], or one of them.
          prompts: a caption each, or one for all; of one picture also several.
          regions: where each edit may act, see `run.edits.region_words`; or one for all.
          num: edits of each, at seeds that follow each other.
          seed: the first.
          size: see `stream`.
          sweep: a control and its values, each of which makes an edit: ("tau", (0, 200, 600)).
          controls: see `stream`.

        Raises:
          ConfigError: where the method edits no pictures.
        """
        self.check_edits()
        several = isinstance(regions, Sequence) and not isinstance(regions, str)
        if several and all(isinstance(x, (int, float)) for x in regions):
            regions = [regions]  # one box
        pictures, prompts, regions = (
            [x] if not isinstance(x, Sequence) or isinstance(x, str) else list(x)
            for x in (pictures, prompts, regions)
        )
        asked = [{"prompt": prompt} for prompt in prompts]
        asked = self.told(conditions.laid_over(edits.rows_of(pictures, regions), asked))
        rows = expand(asked, num, seed)
        name, values = sweep or ("", ())
        rows = edits.swept(rows, name, values) if sweep else rows
        also = [view for view in edits.VIEWS if view in self.gives]
        found = list(self.stream(numbered(rows), also=also, size=size, **controls))
        out = self.drawn(found, len(values) or (num if num > 1 else 0), controls)
        out.sweep = name
        return out

    def interpolate(
        self,
        first: Row | str,
        last: Row | str,
        *,
        num: int = 8,
        seed: int = 0,
        also: Sequence[str] = (),
        **controls: Any,
    ) -> Drawn:
        """A walk of `num` pictures from one row to another; of text, and of the latent too where
        their seeds differ. Its ends are the plain pictures of both rows.

        Raises:
          DataError: for a walk of less than two pictures; as `stream` does.
        """
        also = (also,) if isinstance(also, str) else also
        ends = [{"seed": seed} | row for row in self.told(given.in_words([first, last]))]
        rows = numbered(walked(*ends, num))
        return self.drawn(list(self.stream(rows, also=also, **controls)), 0, controls)

    def fill(
        self, rows: Sequence[Row | str] | Row | str, *, seed: int = 0, **controls: Any
    ) -> list[Row]:
        """Rows with what the earlier systems draw for them, in words: to be looked at, edited, and
        given to `sample`. Without a change they give the picture that the whole chain gives.

        Args:
          rows: see `sample`.
          seed: of rows that have none of their own.
          controls: see `stream`.

        Raises:
          ConfigError: where no system comes before this one.
        """
        if not self.after:
            raise ConfigError(f"{self.run.config.method} has no earlier system that fills a row")
        self.check(controls)
        found: Iterable[Row] = numbered(expand(given.in_words(rows), 1, seed))
        for earlier, then in itertools.pairwise((*self.after, self)):
            found = self._filled(earlier, found, controls, then)
        return [without(r, ("number",)) for r in sorted(found, key=lambda r: r["number"])]

    def drawn(self, found: Iterable, columns: int = 0, controls: Mapping[str, Any] | None = None):
        """What `stream` gave of `numbered` rows, in their order: `Drawn`.

        Args:
          found: (row, what was drawn for it).
          columns: of the grid; 0 chooses.
          controls: that all rows had.
        """
        found = sorted(found, key=lambda pair: pair[0]["number"])
        found = [({k: v for k, v in row.items() if k != "number"}, out) for row, out in found]
        about = self.about | {"controls": dict(controls or {})}
        return Drawn(found, columns, about, self.run.facts.names.get("box_label", ()))

    def check(self, controls: Mapping[str, Any]) -> None:
        """Refuses controls that no system of the chain has.

        Raises:
          ConfigError: names the nearest.
        """
        known = self.controls
        for name in controls:
            if name not in known:
                method = self.run.config.method
                raise ConfigError(f"{method} has no control {name!r}; {nearest(name, known)}")

    def check_edits(self) -> None:
        """Refuses to edit pictures where the method does not.

        Raises:
          ConfigError: says what it reads instead.
        """
        if not {"image", "edit_region"} <= set(self.sampler.needs):
            reads = ", ".join(self.conditions)
            raise ConfigError(f"{self.run.config.method} edits no pictures; it draws from {reads}")

    def told(self, rows: Iterable[Row], note: Callable | None = None) -> Iterator[Row]:
        """Rows of a person as they are; what of them nothing here reads is noted, see `given.told`;
        None: it is said, and counted.
        """
        read = {*self.conditions, *(word for s in self.after for word in s.fills)}
        tokenizers = [s.words.tokenizer for s in (*self.after, self) if s.words.tokenizer]
        return given.told(rows, self.run.config.method, read, tokenizers, note or self.words.note)

    def _filled(
        self, earlier: "System", rows: Iterable[Row], controls: Mapping, then: "System"
    ) -> Iterator[Row]:
        """Rows with what an earlier system draws for them, in words: sizes and class numbers may
        differ, and objects of classes that the system behind it lacks are left out. A row that has
        it already goes by.
        """
        mine = {c.name for c in earlier.controls.values()}
        chosen = {k: v for k, v in controls.items() if k in mine}
        theirs = set(self.controls) - mine
        complete, others = collections.deque(), {}

        def lacking():
            for row in rows:
                if earlier.completes(row):
                    # Controls of the rest of the chain go by.
                    own = row.get("controls", {}) if "number" in row else {}
                    if beside := {k: own[k] for k in own if k in theirs}:
                        others[row["number"]] = beside
                        row = row | {"controls": {k: v for k, v in own.items() if k not in theirs}}
                    yield row
                else:
                    complete.append(row)

        for row, out in earlier.stream(lacking(), **chosen):
            row = row | ({"image": out["image"]} if "image" in out else {})
            beside = others.pop(row.get("number"), {})
            row = row | {"controls": {**beside, **row["controls"]}}
            if "box_label" in then.sampler.needs:
                row = then.words.understood(row, earlier.run.config.method)
            yield row
            while complete:
                yield complete.popleft()
        yield from complete

    def _requests(
        self, rows: Iterable[Row], controls: Mapping, size: tuple[int, int] | int | None
    ) -> Iterator[draw.Request]:
        """Rows as requests; a row's own controls win."""
        mine = {c.name for c in self.sampler.controls}
        for row in rows:
            own = self._own_controls(row)
            chosen = {k: v for k, v in {**controls, **own}.items() if k in mine}
            used = draw.read_controls(self.run.method, chosen)
            about = row | {"controls": {**own, **used}, "drawn_by": self.run.config.method}
            words = without(row, HOW)
            arrays = self._words(words, size).arrays(words, self.sampler.needs)
            yield draw.Request(arrays, row.get("seed", 0), used, self._given(row), about)

    def _words(self, row: Row, size: tuple[int, int] | int | None) -> Conditions:
        """What reads a row for pictures of a size, see `stream`."""
        if size is None:
            return self.words
        picture = self.words.picture_size(row) if "image" in row else None
        plain = self.run.sizes
        return self._sized(*edits.drawn_size(size, picture, self.sampler.multiple, plain))

    def _own_controls(self, row: Row) -> dict[str, Any]:
        """The controls that a row brings; those of another system that drew it, or a part of it in
        front of the one that is named, are no longer meant.

        Raises:
          ConfigError: for a control that there is not, in a row that nobody drew.
        """
        own, known = row.get("controls", {}), self.controls
        if "drawn_by" in row:
            strange = [name for name in own if name not in known]
            if strange and not self._told:
                self._told = True
                method = self.run.config.method
                whose = f"{row['drawn_by']}, or of what drew before it,"
                log.say(
                    f"controls of {whose} that {method} does not have are left out: "
                    f"{', '.join(strange)}"
                )
            own = {name: value for name, value in own.items() if name in known}
        self.check(own)
        return own

    def _given(self, row: Row) -> dict[str, Tree]:
        """Text and latent that a row says to take: of a file, or from between two rows."""
        found = {}
        if "towards" in row:
            to = row["towards"]
            a, b = self._code(row), self._code({**row, **to})
            if a["text"] is not None:
                found["text"] = walk.between(a["text"], b["text"], to["mix"])
            if a["z"] is not None:
                found["z"] = jax.tree.map(
                    lambda x, y: walk.slerp(x, y, to["mix_z"]), a["z"], b["z"]
                )
        if "z" in row:
            found["z"] = walk.latent(row["z"], self.words.root, self.sampler.latent)
        return found

    def _code(self, row: Row) -> dict[str, Tree]:
        """The text and latent of a row, remembered: a walk asks for its ends again and again."""
        apart = (*HOW, *CARRIED, "mix", "mix_z", "controls")
        words = without(row, apart)
        key = json.dumps(words, sort_keys=True, default=id)
        if key not in self._ends:
            arrays = self.words.arrays(words, self.sampler.needs)
            request = draw.Request(arrays, row.get("seed", 0))
            self._ends[key] = self.drawer().codes(*self.weights, [request])[0]
            if len(self._ends) > ENDS:
                self._ends.popitem(last=False)
        return self._ends[key]


def expand(rows: Iterable[Row], num: int = 1, seed: int = 0) -> Iterator[Row]:
    """Every row `num` times, with seeds from its own (else `seed`) on.

    Raises:
      DataError: for seeds that do not exist, and numbers that are none.
    """
    if not whole(num) or num < 1:
        raise DataError(f"num={num!r}: expected a whole number of pictures, 1 or more")
    for row in rows:
        first = row.get("seed", seed)
        if not whole(first) or not 0 <= first <= SEEDS - num:
            raise DataError(f"seed {first!r}: expected a whole number from 0 to {SEEDS - num}")
        yield from (row | {"seed": int(first) + k} for k in range(num))


def _towards(first: Row, last: Row, mix: float, mix_z: float) -> Row:
    """The row at a place of a walk: `first`, and how far towards `last`."""
    other = {k: v for k, v in last.items() if k in ("prompt", "seed")}
    return first | {"towards": {**other, "mix": mix, "mix_z": mix_z}}


def walked(first: Row, last: Row, num: int) -> list[Row]:
    """The `num` rows of a walk from one to another, both with their seeds; its ends are plain.

    Raises:
      DataError: for a walk without two ends.
    """
    if not whole(num) or num < 2:
        raise DataError(f"num={num!r}: expected a whole number of pictures of a walk, 2 or more")
    return [_towards(first, last, share, share) for share in map(float, np.linspace(0, 1, num))]


def numbered(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows with their places, by which what comes in another order is sorted again."""
    return (row | {"number": i} for i, row in enumerate(rows))


def from_split(run: Run, spec: str, keys: Sequence[str] | None = None) -> Iterator[Row]:
    """Rows of "SPLIT[:FIRST[:LAST]]", with everything that the source knows of what is needed.

    Args:
      run: whose data it is.
      spec: which of it.
      keys: of the schema; None: what the run needs. A chain's `asked` leaves out what its earlier
        systems draw.

    Raises:
      DataError: for a span that is none.
    """
    split, *span = spec.split(":")
    try:
        numbers = [int(part) if part else None for part in span]
    except ValueError:
        numbers = [0, 0, 0]
    source = run.source(split)
    first, last = ([*numbers, None, None])[:2]
    first, last = first or 0, source.size if last is None else last
    if len(numbers) > 2 or first < 0 or (last is not None and last <= first):
        raise DataError(f"--from-split {spec}: expected SPLIT, SPLIT:FIRST or SPLIT:FIRST:LAST")
    if source.size is not None and (last is None or last > source.size):
        raise DataError(f"--from-split {spec}: {split} has {source.size} examples")
    yield from run.rows_of(source, range(first, last) if last else itertools.count(first), keys)


def latent_shape(sampler: Sampler) -> tuple[int, ...]:
    """The shape of one latent."""
    return jax.eval_shape(sampler.latent, jax.random.key(0)).shape


def here() -> mesh.Layout:
    """Weights whole on each device of this process, rows split over them."""
    return placement.of_devices()


def _earlier(after: Any, use_ema: bool = True) -> list[System]:
    """The systems of `after`: one, or several."""
    several = isinstance(after, Sequence) and not isinstance(after, str)
    after = after if several else [after]
    return [s if isinstance(s, System) else load(s, use_ema=use_ema) for s in after]


def load(
    place: epath.PathLike,
    *,
    config: Any = None,
    step: str | int = "newest",
    after: Sequence["epath.PathLike | System"] | epath.PathLike = (),
    use_ema: bool = True,
    chunk: int = 0,
    device: Any = None,
    data_path: str = "",
) -> System:
    """A run, an export or converted weights, ready to draw.

    Args:
      place: a run's work directory; a folder of `python -m jaxt2i.export`, or hf://USER/NAME where
        one was uploaded; a folder of `python -m jaxt2i.convert`, with `config`.
      config: the configuration that converted weights belong to: "galip:coco", FILE:preset, or one
        that was read. Runs and exports have their own.
      step: "newest", "best" by the run's score, or a number.
      after: earlier runs, or one, that fill what a row lacks: a layout for a caption, for instance.
      use_ema: averaged weights where there are any.
      chunk: rows a device draws at once; 0: what suits the platform.
      device: what draws, see `placement.of_devices`: "cpu", "gpu:1", devices of JAX, a mesh; None:
        every device of this process.
      data_path: where the run's data lies now, if it moved; drawing itself needs none.

    Raises:
      ConfigError: where nothing is there that could be drawn with.
    """
    found, layout = places.of(place, "the run"), placement.of_devices(device)
    if config is not None:
        return load_weights(config, found, after=after, chunk=chunk, device=layout)
    if (found / "convert.json").is_file() and not (found / "config.json").is_file():
        raise ConfigError(
            f"{found} holds converted weights, which bring no settings: name those that they "
            'belong to, as in jaxt2i.load(DIR, config="galip:coco")'
        )
    config = settings.read_config(found)
    if not use_ema and exports.read(found):
        raise ConfigError(f"{found}: an export holds the averaged weights alone; use_ema is True")
    if data_path:
        config.data.path = data_path
    earlier = _earlier(after, use_ema)
    run = open_run(config, facts.read(found), found)
    state, frozen, number = restore.from_run(run, found, layout, str(step))
    return System(
        run=run,
        state=state,
        frozen=frozen,
        after=earlier,
        layout=layout,
        use_ema=use_ema,
        chunk=chunk,
        about={"source": str(place), "step": number},
    )


def load_weights(
    config: Any,
    weights: epath.PathLike,
    *,
    after: Sequence["epath.PathLike | System"] | epath.PathLike = (),
    chunk: int = 0,
    device: Any = None,
) -> System:
    """Converted weights, ready to draw; `load` with `config`.

    Args:
      config: the configuration that they belong to: "NAME:preset", FILE:preset, or one that was
        read.
      weights: folder of NET.safetensors files.
      after: see `load`.
      chunk: see `load`.
      device: see `load`.
    """
    config = settings.configuration(config, []) if isinstance(config, str) else config
    layout, run = placement.of_devices(device), open_run(config)
    state, frozen = restore.from_weights(run, places.of(weights, "--weights"), layout)
    return System(
        run=run,
        state=state,
        frozen=frozen,
        after=_earlier(after),
        layout=layout,
        chunk=chunk,
        about={"source": str(weights), "step": None},
    )
