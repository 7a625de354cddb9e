"""A run as a folder that travels: to draw with, needing nothing else, or to be continued exactly.

To draw with: NET.safetensors of the networks that drawing reads, averaged where they were averaged,
with config.json, facts.json, the tokenizer, `exports.FILE` and a card. `jaxt2i.load` draws from
it what it draws from the run, to the byte. To continue: a work directory with one checkpoint, its
optimisers included; the command of the training goes on from there as if it had never stopped.
`config.init_from` takes both.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from jaxt2i import places
from jaxt2i.config import ConfigError, nearest
from jaxt2i.encoders import pretrained
from jaxt2i.engine import draw, mesh
from jaxt2i.engine.method import Tree
from jaxt2i.engine.state import State
from jaxt2i.run import (
    card,
    checkpoint,
    export,
    exports,
    facts,
    own,
    placement,
    restore,
    rounded,
    settings,
)
from jaxt2i.run.open import Run, open_run
from jaxt2i.version import VERSION

# How weights are stored: a name and what `pretrained.save_variables` takes for it.
DTYPES: dict[str, Any] = {
    "float32": None,
    "bfloat16": jax.numpy.bfloat16,
    "float16": jax.numpy.float16,
    "int8": "int8",
}
# What a run to be continued consists of, beside its checkpoint.
KEPT = (
    *("config.json", "command.txt", facts.FILE, facts.TOKENIZER, settings.PERCEPTION),
    *(settings.INHERITED, "metrics.jsonl", checkpoint.SCORES),
)
# Settings that name files of weights which drawing reads from the export itself.
FILES = ("clip_weights", "text_weights", "feature_weights", "trunk_weights")


def here() -> mesh.Layout:
    """One device of this process."""
    return placement.of_devices(jax.local_devices()[0])


def best_of(state: State) -> State:
    """The weights that drawing uses, as the only ones."""
    params, extra = {**state.params, **state.ema}, {**state.extra, **state.settled}
    return State(step=state.step, params=params, extra=extra, opt={}, ema={})


def choices_of(run: Run) -> Iterator[dict[str, Any]]:
    """Settings of the controls that make other programs: the defaults, then each one's others."""
    yield {}
    for control in run.method.sampler.controls:
        others = control.choices or ((True, False) if isinstance(control.default, bool) else ())
        yield from ({control.name: value} for value in others if value != control.default)


def read_by_drawing(run: Run, state: State, frozen: Mapping[str, Tree]) -> list[str]:
    """The networks without which something that the run can draw cannot be drawn."""
    drawer, spec = draw.Drawer(method=run.method, layout=here()), run.row_spec()
    kept = [*state.params, *frozen]

    def draws(nets: list[str]) -> bool:
        some = state.replace(params={n: state.params[n] for n in nets if n in state.params})
        still = {n: frozen[n] for n in nets if n in frozen}
        try:
            for choice in choices_of(run):
                drawer.outputs(some, still, spec, **choice)
        except ConfigError as error:
            if "is needed and not there" not in str(error):
                raise
            return False
        return True

    for net in list(kept):
        without = [n for n in kept if n != net]
        kept = without if draws(without) else kept
    return kept


def opened(workdir: epath.Path, which: str) -> tuple[Run, State, dict[str, Tree], int]:
    """(run, its weights as drawing uses them, frozen weights, step), on one device."""
    config = settings.read_config(workdir)
    run = open_run(config, facts.read(workdir), workdir)
    state, frozen, step = restore.from_run(run, workdir, here(), which)
    return run, best_of(state), frozen, step


def fresh(target: epath.PathLike, overwrite: bool) -> epath.Path:
    """An empty place to export to.

    Raises:
      ConfigError: for a file, and for a folder that holds anything, unless it is to be replaced and
        is an export.
    """
    place = places.of(target, "--to")
    if place.exists() and not place.is_dir():
        raise ConfigError(f"--to {place}: a file of that name is there; give a folder")
    if place.is_dir() and any(place.iterdir()):
        ours = any((place / name).is_file() for name in (exports.FILE, card.FILE))
        if not (overwrite and ours):
            hint = "--overwrite replaces it" if ours else "give another folder"
            raise ConfigError(f"--to {place}: holds something already; {hint}")
        place.rmtree()
    places.make_folder(place)
    places.check_writable(place, "--to")
    return place


def to_draw(
    workdir: epath.PathLike,
    target: epath.PathLike,
    *,
    step: str | int = "newest",
    dtype: str = "float32",
    overwrite: bool = False,
) -> epath.Path:
    """Writes what is needed to draw, and a card; networks of a system that draws nothing, all.

    Args:
      workdir: a run, or an export to be stored in another dtype.
      target: where to write.
      step: "newest", "best" or a number.
      dtype: of `DTYPES`. Other weights draw other pictures: `jaxt2i.export` says by how much.
      overwrite: an export that is there is replaced.

    Returns:
      The folder.

    Raises:
      ConfigError: for a run without a usable checkpoint, an unknown dtype or an impossible target.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"--dtype {dtype}; {nearest(dtype, DTYPES)}")
    workdir = places.of(workdir, "the run")
    run, state, frozen, number = opened(workdir, str(step))
    nets = read_by_drawing(run, state, frozen) if run.method.sampler else [*state.params, *frozen]
    place = fresh(target, overwrite)
    about = {
        "format": exports.FORMAT,
        "version": VERSION,
        "method": run.config.method,
        "step": number,
        "weights": "averaged" if run.method.ema else "as trained",
        "dtype": dtype,
        "nets": {net: kept(place, net, state, frozen, dtype) for net in nets},
    }
    keep_words(run, workdir, place)
    if DTYPES[dtype] is not None:
        its, still, _ = restore.from_export(run, place, here(), "newest", about)
        filled = state.replace(
            params={**state.params, **its.params}, extra={**state.extra, **its.extra}
        )
        rest = filled, {**frozen, **still}
        about["changed"] = rounded.change(run, (state, frozen), rest, here())
    (place / exports.FILE).write_text(json.dumps(about, indent=1) + "\n")
    measured = card.evaluation(workdir, number)
    if measured.is_file():
        places.copy(measured, place / card.EVALUATION)
    told = export.card_of(run.config, workdir, number)
    (place / "card.json").write_text(json.dumps(told, indent=2) + "\n")
    (place / card.FILE).write_text(card.of(run, workdir, told, about), encoding="utf-8")
    return place


def kept(
    place: epath.Path, net: str, state: State, frozen: Mapping[str, Tree], dtype: str
) -> dict[str, Any]:
    """Writes the weights of a network; returns what is known of them."""
    its = frozen.get(net) or {"params": state.params[net], **state.extra.get(net, {})}
    file = place / f"{net}.safetensors"
    pretrained.save_variables(file, jax.device_get(its), DTYPES[dtype] or "float32")
    return {
        "sha256": pretrained.sha256(file),
        "parameters": sum(x.size for x in jax.tree.leaves(its)),
        "trained": net in state.params,
    }


def keep_words(run: Run, workdir: epath.Path, place: epath.Path) -> None:
    """Writes the configuration, the facts, the tokenizer and the sizes of a perception."""
    config = run.config.copy_and_resolve_references()
    config.unlock()
    tokenizer = own.kept_tokenizer(workdir, config) or run.facts.tokenizer
    facts.write(place, run.facts, str(tokenizer or config.data.tokenizer))
    if tokenizer:
        config.data.tokenizer = f"{facts.TOKENIZER}/{tokenizer.name}"
    for name in FILES:
        weights = config.model.get(name, "")
        sizes = epath.Path(weights) / "card.json" if weights else None
        if sizes is not None and sizes.is_file():
            places.copy(sizes, place / settings.PERCEPTION / sizes.name)
            config.model[name] = config.perception_from = settings.PERCEPTION
        elif weights:
            config.model[name] = ""
    config.inherited = ""
    (place / "config.json").write_text(json.dumps(without_places(config), indent=2) + "\n")


def without_places(config: ConfigDict) -> dict[str, Any]:
    """Settings whose whole names of places are their last parts: who drew needs no others'."""

    def last(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: last(v) for k, v in value.items()}
        if isinstance(value, list):
            return [last(v) for v in value]
        whole = isinstance(value, str) and (value.startswith(("/", "~")) or places.scheme_of(value))
        return value.rstrip("/").rpartition("/")[2] if whole else value

    return last(settings.plain(config))


def to_continue(
    workdir: epath.PathLike,
    target: epath.PathLike,
    *,
    step: str | int = "newest",
    overwrite: bool = False,
) -> epath.Path:
    """Writes a work directory with one checkpoint, optimisers included, and a card.

    Args:
      workdir: a run.
      target: where to write.
      step: "newest", "best" or a number.
      overwrite: an export that is there is replaced.

    Returns:
      The folder.

    Raises:
      ConfigError: for what is no run, or has no such checkpoint, and for an impossible target.
    """
    workdir = places.of(workdir, "the run")
    config = settings.read_config(workdir)
    if exports.read(workdir):
        raise ConfigError(
            f"{workdir} is an export to draw with: it has no optimisers to go on with"
        )
    number = checkpoint.chosen(workdir, str(step), config.get("best_by", ""))
    steps = checkpoint.steps_in(workdir)
    if not steps:
        raise ConfigError(f"{workdir}: no checkpoint yet, so there is nothing to go on from")
    number = max(steps) if number is None else number
    run = open_run(config, facts.read(workdir), workdir)
    place = fresh(target, overwrite)
    for name in KEPT:
        if (workdir / name).exists():
            places.copy(workdir / name, place / name)
    at = f"{checkpoint.FOLDER}/{number}"
    places.copy(workdir / at, place / at)
    told = export.card_of(config, workdir, number)
    about = {"step": number, "nets": {}, "dtype": "", "weights": "", "kind": "continue"}
    (place / card.FILE).write_text(card.of(run, workdir, told, about), encoding="utf-8")
    return place


def push(place: epath.Path, name: str, private: bool = False) -> str:
    """Uploads an export to the Hugging Face hub; returns its address.

    Args:
      place: the folder.
      name: USER/NAME.
      private: nobody else may see it.

    Raises:
      ConfigError: where it cannot be uploaded.
    """
    import huggingface_hub as hub

    try:
        hub.create_repo(name, exist_ok=True, private=private)
        hub.upload_folder(
            repo_id=name, folder_path=str(places.here(place)), commit_message="jaxt2i export"
        )
    except Exception as error:  # of many kinds: no network, no token, no such user
        said = (str(error).strip().splitlines() or [""])[0][:200]
        raise ConfigError(
            f"--push {name}: could not be uploaded ({type(error).__name__}: {said}); log in with "
            f"hf auth login. The folder {place} is whole: hf upload {name} {place}"
        ) from None
    return f"{pretrained.HUB}/{name}"
