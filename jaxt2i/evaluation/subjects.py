"""What is judged: a run at one of its checkpoints, converted weights, or a folder of pictures."""

import argparse
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from jaxt2i import api, places
from jaxt2i.config import ConfigError
from jaxt2i.encoders.damsm import DamsmImage
from jaxt2i.engine import state as states
from jaxt2i.evaluation import layouts, sets
from jaxt2i.evaluation.reading import Reader, together
from jaxt2i.metrics import protocols
from jaxt2i.metrics.score import MetricError
from jaxt2i.run import checkpoint, facts, folder, restore, settings
from jaxt2i.run import open as runs


@dataclasses.dataclass(frozen=True)
class Opened:
    """A run at one of its checkpoints, or converted weights.

    Attributes:
      run: the run.
      state: its weights.
      frozen: its frozen weights.
      step: of the checkpoint; None: converted weights.
    """

    run: runs.Run
    state: states.State
    frozen: dict
    step: int | None


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is judged.

    Attributes:
      name: for reports.
      step: of the run; None for everything else.
      of: the run, or the converted weights; None: a folder.
      system: what draws; None: a folder.
      pictures: of the folder; None: they are drawn.
    """

    name: str
    step: int | None
    of: Opened | None
    system: api.System | None
    pictures: sets.Set | None

    @property
    def out(self) -> epath.Path:
        """Where a report goes, unless it is said."""
        return out_of(self.name, self.step)


def out_of(name: str, step: int | None) -> epath.Path:
    """A folder in a run, or beside what else is judged."""
    place = epath.Path(name)
    if step is not None:
        return place / "evaluation"
    return place.with_name(f"{place.name}-evaluation")


# --- Runs and converted weights ----------------------------------------------------------------


def open_with(
    config: ConfigDict,
    known: facts.Facts,
    words: int = 0,
    workdir: epath.Path | None = None,
) -> runs.Run:
    """Opens a configuration; where captions are words, they are cut to so many (0: as trained)."""
    run = runs.open_run(config, known, workdir)
    if words and run.tokenizer.kind == "words" and run.tokenizer.length != words:
        config.data.tokens = words
        run = runs.open_run(config, known, workdir)
    return run


def words_of(cap: str) -> int:
    """The number in "18 words"; 0 for every other cap."""
    number, _, unit = cap.partition(" ")
    return int(number) if unit == "words" else 0


def cap_of(tokenizer: Any) -> str:
    """How long captions may be, as `protocols.Samples.cap` has it."""
    return f"{tokenizer.length} {'words' if tokenizer.kind == 'words' else 'tokens'}"


def opened(
    workdir: epath.PathLike, which: str = "newest", *, words: int = 0, precise: bool = False
) -> Opened:
    """Opens a run; processes that see different checkpoints look again until they agree.

    Args:
      workdir: of the run.
      which: "newest", "best" or a step.
      words: see `open_with`.
      precise: its networks judge others: activations in float32, whatever it was trained in.
    """
    workdir = places.of(workdir, "the run")
    config = settings.read_config(workdir)
    if precise:
        config.precision = config.perception_precision = "float32"
    run = open_with(config, facts.read(workdir), words, workdir)
    while True:
        state, frozen, step = restore.from_run(run, workdir, api.here(), which)
        if len(np.unique(together(np.array([step])))) == 1:
            return Opened(run, state, frozen, step)


def newest(workdir: epath.Path) -> int | None:
    """The step of the newest checkpoint; None: there is none yet."""
    found = max(checkpoint.steps_in(workdir), default=-1)
    if jax.process_count() > 1:
        # The first process says what there is: others may look a moment later.
        found = int(multihost_utils.broadcast_one_to_all(np.int32(found)))
    return None if found < 0 else found


def agreed(workdir: epath.Path, which: str) -> str:
    """The step that all processes open for "newest", which may be another one a moment later."""
    found = newest(workdir) if which == "newest" and jax.process_count() > 1 else None
    return which if found is None else str(found)


def subject_of(args: argparse.Namespace, protocol: protocols.Protocol) -> Subject:
    """What the command line asks to judge.

    Raises:
      ConfigError: where there is no such run, or no such weights.
      MetricError: for a method that draws nothing.
    """
    if args.images:
        pictures = sets.of_folder(args.images, args.resolution, strict=False)
        made = {**pictures.made, **drawn_by(args.images)}
        pictures = dataclasses.replace(pictures, made=made)
        return Subject(str(args.images), None, None, None, pictures)
    words = args.words or words_of(protocol.samples.cap)
    if given := getattr(args, "system", None):
        return of_given(given, args)
    if args.workdir:
        of = opened(args.workdir, args.step, words=words)
        place = args.workdir
    else:
        config = settings.configuration(args.config, [])
        run = open_with(config, facts.Facts(), words)
        state, frozen = restore.from_weights(run, args.converted, api.here())
        of, place = Opened(run, state, frozen, None), args.converted
    method = of.run.method
    if method.sampler is None:
        raise MetricError(f"{place}: {of.run.config.method} draws nothing that could be judged")
    kind = of.run.tokenizer.kind
    if args.words and kind != "words":
        raise MetricError(
            f"--words {args.words}: {of.run.config.method} reads {kind}, of which it was trained "
            f"with {of.run.tokenizer.length}; leave --words out"
        )
    system = api.System(
        run=of.run,
        state=of.state,
        frozen=of.frozen,
        after=[api.load(earlier, use_ema=not args.raw) for earlier in args.after],
        use_ema=not args.raw,
        chunk=args.chunk,
        about={"source": str(place), "step": of.step},
    )
    return drawing(system, of, args)


def drawing(system: api.System, of: Opened, args: argparse.Namespace) -> Subject:
    """What a system draws, to be judged.

    Raises:
      ConfigError: for controls that it does not have.
      MetricError: for a system that draws neither pictures nor layouts.
    """
    place = system.about["source"]
    if "image" not in system.gives and not layouts.draws_layouts(system):
        raise MetricError(
            f"{place}: {of.run.config.method} draws {', '.join(system.gives)}, neither pictures "
            "nor layouts, which alone are judged"
        )
    system.check(dict(args.set))
    return Subject(place, of.step, of, system, None)


def of_given(system: api.System, args: argparse.Namespace) -> Subject:
    """A system that was loaded already.

    Raises:
      ConfigError: for options that say how to load it.
      MetricError: see `drawing`.
    """
    for name, default in (("words", 0), ("after", []), ("chunk", 0), ("raw", False)):
        if getattr(args, name) != default:
            raise ConfigError(
                f"{name} says how a system is loaded, and this one was: give it there"
            )
    if args.step != "newest":
        raise ConfigError("step says how a system is loaded, and this one was: give it there")
    return drawing(system, Opened(system.run, *system.weights, system.about["step"]), args)


def drawn_by(place: epath.Path) -> dict[str, Any]:
    """What `sample` left in a folder about how its pictures were drawn, as far as a record has it.

    A folder of anybody's says nothing.
    """
    file = folder.about_of(place)
    if file is None:
        return {}
    try:
        about = json.loads(file.read_text())
        controls = about["controls"] if isinstance(about["controls"], Mapping) else {}
        said = " ".join(f"{k}={v}" for k, v in sorted(controls.items()))
        return {"weights": str(about["weights"]), "controls": said or "none"}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


# --- DAMSMs ------------------------------------------------------------------------------------


def lend_damsm(args: argparse.Namespace, reader: Reader, own: Opened | None = None) -> None:
    """Gives the reader the DAMSM of --weights damsm=RUN, else of the judged run.

    Raises:
      MetricError: where there is none.
    """
    place = args.weights.get("damsm")
    if place is not None:
        own = opened(place, precise=True)
        if not isinstance(own.run.method.nets.get("image"), DamsmImage):
            raise MetricError(
                f"--weights damsm={place}: a run of {own.run.config.method} has no DAMSM; give one "
                "of configs/damsm.py, or one that borrowed its encoders from there"
            )
    elif own is None or not {"text", "image"} <= set(own.run.method.borrowed):
        raise MetricError(
            f"the R-precision of {args.protocols} is a DAMSM's, which only runs that borrowed one "
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
        provenance(own.run.config),
    )


def provenance(config: ConfigDict) -> str:
    """`CONVERTED` where a run's encoders are published ones that were converted, else "trained"."""
    places = str(config.get("init_from", "") or "").split(",")
    found = any((epath.Path(p.rpartition("=")[2]) / "convert.json").is_file() for p in places if p)
    return protocols.CONVERTED if found else "trained here"
