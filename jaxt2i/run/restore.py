"""Weights to draw with: of a run's checkpoint, an export, or converted, put into their places."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from jaxt2i import places
from jaxt2i.config import ConfigError
from jaxt2i.encoders import pretrained
from jaxt2i.engine import state as states
from jaxt2i.engine.mesh import Layout
from jaxt2i.run import borrow, checkpoint, exports, log
from jaxt2i.run.open import Run

FIELDS = ("step", "params", "extra", "ema", "settled")


def from_run(
    run: Run, workdir: epath.Path, layout: Layout, which: str = "newest"
) -> tuple[states.State, dict, int]:
    """(state without optimisers, frozen weights, step) of a checkpoint, or of an export.

    Args:
      run: the run.
      workdir: its directory, or the folder of an export.
      layout: where the weights go.
      which: "newest", "best" or a step.

    Raises:
      ConfigError: when the run has no usable checkpoint.
    """
    if about := exports.read(workdir):
        return from_export(run, workdir, layout, which, about)
    spec = run.batch_spec()
    state, frozen = states.shapes(run.method, spec)
    placed = layout.abstract(state)
    folder = workdir / checkpoint.FOLDER
    keeper = checkpoint.Checkpoints(workdir) if folder.is_dir() else None
    step = checkpoint.chosen(workdir, which, run.config.get("best_by", ""))
    like = {f: getattr(placed, f) for f in FIELDS}
    found = keeper and keeper.restore(like, partial=True, step=step)
    if keeper:
        keeper.close()
    if keeper and keeper.unusable and not found:
        damaged = "; ".join(f"step {step} ({why})" for step, why in keeper.unusable.items())
        raise ConfigError(
            f"{folder}: no checkpoint can be used: {damaged}; copy the run again, or train it again"
        )
    if not found:
        raise ConfigError(
            f"{folder}: no usable checkpoint yet; the run saves one every "
            f"{run.config.checkpoint_every_steps} steps"
        )
    frozen = states.create_frozen(run.method, spec, run.config.seed, layout.shardings(frozen))
    state = states.State(opt={}, **found[0])
    return state, frozen, int(state.step)


def from_export(
    run: Run, folder: epath.Path, layout: Layout, which: str, about: dict[str, Any]
) -> tuple[states.State, dict, int]:
    """(state, frozen weights, step) of an export, which holds what drawing reads and no more.

    Args:
      run: its configuration.
      folder: where it lies.
      layout: where the weights go.
      which: "newest" or its step.
      about: of `exports.read`.

    Raises:
      ConfigError: for another step, and for files that are missing, damaged or of other sizes.
    """
    step = about["step"]
    if which not in ("newest", "", str(step)):
        raise ConfigError(f"{folder}: an export of step {step} alone, which has no {which!r}")
    shapes, frozen_shapes = states.shapes(run.method, run.batch_spec())
    params, extra, frozen = {}, {}, {}
    for net, known in about["nets"].items():
        file = folder / f"{net}.safetensors"
        if not file.is_file() or pretrained.sha256(file) != known.get("sha256"):
            raise ConfigError(
                f"{file} is {'damaged' if file.is_file() else 'missing'}; fetch or export it again"
            )
        variables = pretrained.load_variables(file)
        if net in run.method.frozen:
            wanted, frozen[net] = frozen_shapes[net], variables
        else:
            wanted = {"params": shapes.params[net], **shapes.extra.get(net, {})}
            params[net] = variables["params"]
            extra[net] = {kind: x for kind, x in variables.items() if kind != "params"}
        fitting(file, variables, wanted)
    state = states.State(jnp.asarray(step, jnp.int32), params, extra, {}, {})
    state = jax.device_put(state, layout.shardings(state))
    return state, jax.device_put(frozen, layout.shardings(frozen)), step


def fitting(file: epath.Path, variables: Any, wanted: Any) -> None:
    """Refuses arrays of other shapes than a configuration asks for.

    Raises:
      ConfigError: names the file, and the array that does not fit.
    """
    given = checkpoint.named(variables)
    for name, want in checkpoint.named(wanted).items():
        seen = tuple(given[name].shape) if name in given else "nothing"
        if seen != tuple(want.shape):
            raise ConfigError(
                f"{file} has {seen} for {name}, where the configuration asks for "
                f"{tuple(want.shape)}; is it the --config that these weights belong to?"
            )


def from_weights(run: Run, folder: epath.Path, layout: Layout) -> tuple[states.State, dict]:
    """(state without optimisers, frozen weights) of converted weights.

    Trained networks that the folder lacks are left out; only pictures need to be possible. Frozen
    ones that it holds, a tuned text tower for instance, are used instead of the published ones.

    Args:
      run: the configuration that the weights belong to.
      folder: with NET.safetensors files.
      layout: where the weights go.

    Raises:
      ConfigError: names the file, and the array that does not fit.
    """
    if not places.matching(folder, "*.safetensors"):
        raise ConfigError(
            f"--weights {folder}: no .safetensors in it; it is what python -m jaxt2i.convert "
            "METHOD --from FILE --to DIR writes"
        )
    tree, _ = borrow.earlier(str(folder))
    spec = run.batch_spec()
    shapes, frozen = states.shapes(run.method, spec)
    params, extra, own = {}, {}, {}
    for net in run.method.nets:
        if net not in tree["params"]:
            continue
        its, more = tree["params"][net], tree["extra"][net]
        if net in run.method.frozen:
            own[net], wanted = {"params": its, **more}, frozen[net]
        else:
            params[net], extra[net] = its, more
            wanted = {"params": shapes.params[net], **shapes.extra.get(net, {})}
        fitting(folder / f"{net}.safetensors", {"params": its, **more}, wanted)
    strange = sorted(set(tree["params"]) - set(run.method.nets))
    log.say(
        f"weights of {', '.join([*params, *own]) or 'nothing'} from {folder}"
        + (f"; not used: {', '.join(strange)}" if strange else "")
    )
    state = states.State(jnp.zeros((), jnp.int32), params, extra, {}, {})
    state = jax.device_put(state, layout.shardings(state))
    seed, where = run.config.seed, layout.shardings(frozen)
    loaders = {net: lambda net=net: own[net] for net in own}
    method = dataclasses.replace(run.method, pretrained={**run.method.pretrained, **loaders})
    return state, states.create_frozen(method, spec, seed, where)
