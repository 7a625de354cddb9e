"""Weights to draw with: of a run's checkpoint, or converted ones, straight into their places."""

import dataclasses

import jax
import jax.numpy as jnp
from etils import epath

from jaxt2i import places
from jaxt2i.config import ConfigError
from jaxt2i.engine import state as states
from jaxt2i.engine.mesh import Layout
from jaxt2i.run import borrow, checkpoint, log
from jaxt2i.run.open import Run

FIELDS = ("step", "params", "extra", "ema", "settled")


def from_run(
    run: Run, workdir: epath.Path, layout: Layout, which: str = "newest"
) -> tuple[states.State, dict, int]:
    """(state without optimisers, frozen weights, step) of a checkpoint.

    Args:
      run: the run.
      workdir: its directory.
      layout: where the weights go.
      which: "newest", "best" or a step.

    Raises:
      ConfigError: when the run has no usable checkpoint.
    """
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
            own[net] = {"params": its, **more}
            wanted = checkpoint.named(frozen[net])
        else:
            params[net], extra[net] = its, more
            wanted = checkpoint.named({"params": shapes.params[net], **shapes.extra.get(net, {})})
        given = checkpoint.named({"params": its, **more})
        for name, want in wanted.items():
            seen = tuple(given[name].shape) if name in given else "nothing"
            if seen != tuple(want.shape):
                raise ConfigError(
                    f"{folder / net}.safetensors has {seen} for {name}, where the configuration "
                    f"asks for {tuple(want.shape)}; is it the --config that these weights belong "
                    "to?"
                )
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
