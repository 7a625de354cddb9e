"""Checkpoints: asynchronous, checked on the way back in, and never trusted blindly.

Every save carries fingerprints of its arrays. A checkpoint that cannot be read, or whose arrays
do not match their fingerprints, is passed over, and told of, for the one before it.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from jaxt2i import places
from jaxt2i.config import ConfigError
from jaxt2i.engine.method import Method, Tree, cast
from jaxt2i.engine.state import State
from jaxt2i.nn.optim import path_name
from jaxt2i.run.files import json_lines

FOLDER = "checkpoints"
# File of a work directory with {score: "higher" | "lower"}.
SCORES = "scores.json"
# By what a checkpoint in a store is known to be whole: no folder appears there in one step.
COMMITTED = "commit_success.txt"
# Of fingerprints: what tells one place of an array from another, and numbers added up at a time.
PLACE, PIECE = 2654435761, 1 << 20


def as_bits(x: jax.Array) -> jax.Array:
    """An array's bits as uint32."""
    if jnp.issubdtype(x.dtype, jnp.bool_):
        return x.astype(jnp.uint32)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    return jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)


@jax.jit
def _sums(tree: Tree) -> Tree:
    def one(x):
        bits = as_bits(x).reshape(-1)
        place = jnp.arange(bits.size, dtype=jnp.uint32) * jnp.uint32(PLACE) + jnp.uint32(1)
        return jnp.sum(bits * place, dtype=jnp.uint32)

    return jax.tree.map(one, tree)


def _at_hand(x: Any) -> bool:
    if not isinstance(x, jax.Array):
        return True
    return x.is_fully_addressable and all(d.platform == "cpu" for d in x.devices())


def _sum_here(x: Any) -> np.uint32:
    """The same number as `_sums`, without a program."""
    array = np.ascontiguousarray(x).reshape(-1)
    bits = array if array.dtype == bool else array.view(f"u{array.dtype.itemsize}")
    total = 0
    for first in range(0, bits.size, PIECE):
        part = bits[first : first + PIECE].astype(np.uint32)
        place = np.arange(part.size, dtype=np.uint32) + np.uint32(first % 2**32)
        total += int(np.sum(part * (place * np.uint32(PLACE) + np.uint32(1)), dtype=np.uint32))
    return np.uint32(total % 2**32)


def fingerprints(tree: Tree) -> Tree:
    """One uint32 a leaf: integer sums do not depend on their order, hence not on the mesh.

    On CPUs they are added up by NumPy: a program for a few hundred arrays takes seconds to compile.
    """
    if all(map(_at_hand, jax.tree.leaves(tree))):
        return jax.tree.map(_sum_here, tree)
    return _sums(tree)


def named(tree: Tree) -> dict[str, Any]:
    """{path: leaf}."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def steps_in(workdir: epath.PathLike) -> list[int]:
    """The steps of a work directory's checkpoints, of whatever worth, in order."""
    found = places.matching(epath.Path(workdir) / FOLDER, "[0-9]*")
    parted = bool(places.scheme_of(workdir))
    return sorted(
        int(path.name)
        for path in found
        if path.name.isdigit() and (not parted or (path / COMMITTED).exists())
    )


def last_of(kept: Sequence[int], kind: str = "checkpoint") -> str:
    """A sentence of the newest of these steps, for what ends a run."""
    return f"The last {kind} is step {kept[-1]}" if kept else f"There is no {kind} yet"


def handlers() -> dict[str, Any]:
    """How the two parts of a checkpoint are read and written."""
    return {"state": ocp.PyTreeCheckpointHandler(), "meta": ocp.JsonCheckpointHandler()}


@dataclasses.dataclass(frozen=True)
class Kept:
    """Which checkpoints stay.

    Attributes:
      newest: how many of the newest.
      period_steps: those whose step this divides; 0 = none.
      steps: those of these steps.
      best: steps of checkpoints -> the best one by a score; None where none has it.
    """

    newest: int = 3
    period_steps: int = 0
    steps: tuple[int, ...] = ()
    best: Callable[[Sequence[int]], int | None] = lambda steps: None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Whether each of them stays; asked by orbax after every save."""
        steps = [found.step for found in checkpoints]
        stay = {*steps[-self.newest :], *self.steps, self.best(steps)}
        every = self.period_steps
        return [step in stay or bool(every and step % every == 0) for step in steps]


class Checkpoints:
    """The checkpoints of one work directory.

    Args:
      workdir: the run's directory; they lie in its folder "checkpoints".
      kept: which of them stay.

    Attributes:
      folder: where they lie.
      unusable: {step: why} of those that could not be restored.
    """

    def __init__(self, workdir: epath.PathLike, kept: Kept | None = None):
        self.folder = places.absolute(workdir) / FOLDER
        self.unusable: dict[int, str] = {}
        self._manager = ocp.CheckpointManager(
            self.folder,
            item_handlers=handlers(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=kept or Kept(),
                enable_async_checkpointing=True,
                create=True,
            ),
        )

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, state: State, meta: Mapping[str, Any], step: int) -> None:
        """Starts saving; returns once the arrays are copied off the device.

        Raises:
          Exception: whatever made the previous asynchronous save fail.
        """
        sums = {name: int(x) for name, x in named(jax.device_get(fingerprints(state))).items()}
        meta = {**meta, "step": step, "fingerprints": sums}
        self._manager.save(
            step,
            args=ocp.args.Composite(state=ocp.args.PyTreeSave(state), meta=ocp.args.JsonSave(meta)),
        )

    def restore(
        self, like: Tree, partial: bool = False, step: int | None = None
    ) -> tuple[Tree, dict[str, Any]] | None:
        """The newest checkpoint that is whole, laid out like `like`; None when there is none.

        Args:
          like: ShapeDtypeStructs with shardings: a State, or a dictionary of some of its fields.
            The checkpoint may come from another mesh.
          partial: restore only what is in `like`.
          step: this one alone; None: the newest.

        Returns:
          (the arrays in the structure of `like`, what was stored beside them).

        Raises:
          Mismatch: when the newest checkpoint is whole but belongs to other networks.
        """
        arrays = ocp.args.PyTreeRestore(
            item=like,
            restore_args=ocp.checkpoint_utils.construct_restore_args(like),
            partial_restore=partial,
        )
        wanted = [step] if step is not None else self.steps()[::-1]
        for step in wanted:
            try:
                meta = self.meta(step)
                differing = mismatch(meta["fingerprints"], self._kinds(step), named(like), partial)
            except Exception as error:
                self._passed_over(step, error)
                continue
            if differing:
                raise Mismatch(step, differing, meta)
            try:
                restored = self._manager.restore(step, args=ocp.args.Composite(state=arrays))
                check(restored["state"], meta["fingerprints"])
            except Exception as error:
                self._passed_over(step, error)
                continue
            return restored["state"], meta
        return None

    def meta(self, step: int) -> dict[str, Any]:
        """What was stored beside the arrays."""
        restored = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))
        return restored["meta"]

    def _kinds(self, step: int) -> dict[str, tuple[list[int], str]]:
        tree = self._manager.item_metadata(step)["state"]
        return {name: (list(leaf.shape), str(leaf.dtype)) for name, leaf in named(tree).items()}

    def _passed_over(self, step: int, error: Exception) -> None:
        self.unusable[step] = _first_line(error)
        said = f"checkpoint {self.folder / str(step)} cannot be used ({self.unusable[step]})"
        print(f"{said}; trying the one before it, if any may be", file=sys.stderr, flush=True)

    def wait(self) -> None:
        """Blocks until the last save is on disk, and raises what made it fail."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Finishes and releases."""
        self._manager.close()


class Corrupted(ValueError):
    """Arrays that do not match their fingerprints."""


class Mismatch(ConfigError):
    """A whole checkpoint of other networks.

    Attributes:
      meta: what was stored beside it, its config among it.
      differing: sentences about the arrays that differ.
    """

    def __init__(self, step: int, differing: list[str], meta: dict[str, Any]):
        self.differing, self.meta = differing, meta
        shown = "; ".join(differing[:4]) + (" ..." if len(differing) > 4 else "")
        super().__init__(f"checkpoint {step} does not fit this config: {shown}")


def check(state: Tree, sums: Mapping[str, int]) -> None:
    """Compares arrays with the fingerprints they were saved with.

    Raises:
      Corrupted: names the first array that differs.
    """
    for name, found in named(jax.device_get(fingerprints(state))).items():
        if int(found) != sums[name]:
            raise Corrupted(f"{name} is not what was saved")


def mismatch(
    sums: Mapping[str, int], kinds: Mapping[str, tuple], like: Mapping[str, Any], partial: bool
) -> list[str]:
    """Sentences on arrays that a checkpoint and a state do not share."""
    out = [f"{name} is not in the checkpoint" for name in like if name not in sums]
    if not partial:
        out += [f"{name} is only in the checkpoint" for name in sums if name not in like]
    for name, leaf in like.items():
        own = list(leaf.shape), str(leaf.dtype)
        for there, here in zip(kinds.get(name, own), own, strict=True):
            if there != here:
                out.append(f"{name} is {there} there, {here} here")
    return out


@dataclasses.dataclass
class Transfer:
    """What a partial restore copied.

    Attributes:
      source: where from.
      copied: array names taken over.
      kept: array names left at their initialisation, for lack of a partner.
      reshaped: array names whose partner had another shape, hence left at their initialisation.
      untaken: array names of the source, in networks that were filled, that have no partner.
    """

    source: str
    copied: list[str]
    kept: list[str]
    reshaped: list[str]
    untaken: list[str]

    def __str__(self) -> str:
        lines = [
            f"init_from {self.source}: {len(self.copied)} arrays copied, {len(self.kept)} new, "
            f"{len(self.reshaped)} of another shape left at their initialisation; "
            f"{len(self.untaken)} of the source taken by nobody"
        ]
        lines += [f"  new: {name}" for name in self.kept[:8]]
        lines += [f"  other shape: {name}" for name in self.reshaped[:8]]
        lines += [f"  not taken: {name}" for name in self.untaken[:8]]
        hidden = sum(max(len(x) - 8, 0) for x in (self.kept, self.reshaped, self.untaken))
        return "\n".join([*lines, f"  ... and {hidden} more"] if hidden else lines)


def chosen(workdir: epath.PathLike, which: str, score: str = "") -> int | None:
    """The step that a person means.

    Args:
      workdir: the run's directory.
      which: "newest", "best" or a number.
      score: the one that "best" goes by; "": the method's first.

    Returns:
      The step; None: the newest readable one.

    Raises:
      ConfigError: where there is none such, with those that there are.
    """
    if which in ("", "newest"):
        return None
    folder, steps = epath.Path(workdir) / FOLDER, steps_in(workdir)
    listed = ", ".join(map(str, steps)) or "none"
    if which == "best":
        path = epath.Path(workdir) / SCORES
        better = json.loads(path.read_text()) if path.is_file() else {}
        found = best_of(history(workdir), steps, *by_score(better, score))
        if found is None:
            raise ConfigError(
                f"{folder}: no checkpoint of a step with a score, so none is the best; there are "
                f"{listed}. Scores are made every config.sample_every_steps"
            )
        return found
    if not which.isdigit() or int(which) not in steps:
        raise ConfigError(
            f"{folder} holds no checkpoint {which!r}; there are {listed}, and newest and best"
        )
    return int(which)


def by_score(better: Mapping[str, str], score: str = "") -> tuple[str, bool]:
    """(the score that checkpoints are chosen by, whether more of it is better).

    Raises:
      ConfigError: for a score that the method does not have.
    """
    if score and score not in better:
        raise ConfigError(
            f"config.best_by={score!r}: no such score; this system has "
            f"{', '.join(better) or 'none'}"
        )
    name = score or next(iter(better), "")
    return name, better.get(name) == "higher"


def history(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    return json_lines(epath.Path(workdir) / "metrics.jsonl")


def best_of(
    lines: Sequence[Mapping[str, Any]], steps: Sequence[int], name: str, higher: bool
) -> int | None:
    """The step with the best score among some; None where none of them has one.

    Args:
      lines: of metrics.jsonl.
      steps: those that count.
      name: of the score.
      higher: whether more is better.
    """
    found = {
        line["step"]: line[f"score/{name}"]
        for line in lines
        if line["step"] in steps and line.get(f"score/{name}") is not None
    }
    return (max if higher else min)(found, key=found.get) if found else None


def _host_arrays(manager: ocp.CheckpointManager, step: int) -> dict[str, Tree]:
    """A checkpoint's state, every array on the host and float32 where it was bfloat16."""
    tree = manager.item_metadata(step)["state"].tree
    how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    args = ocp.args.Composite(state=ocp.args.PyTreeRestore(restore_args=how))
    # Parameters may be bfloat16, which few readers know.
    return jax.tree.map(widened, manager.restore(step, args=args)["state"])


def _first_line(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {first}"


def latest(folder: epath.PathLike, step: int | None = None) -> tuple[dict[str, Tree], str]:
    """The newest readable checkpoint of a work directory as host arrays.

    Args:
      folder: a work directory, its checkpoints folder, or a folder of converted weights
        (NET.safetensors files).
      step: this one; None: the newest.

    Returns:
      ({"params": {net: tree}, "extra": ..., "ema": ...}, description).

    Raises:
      ConfigError: when there is nothing to start from.
    """
    folder = epath.Path(folder)
    root = folder if folder.name == FOLDER else folder / FOLDER
    damaged = []
    if root.is_dir():
        with ocp.CheckpointManager(places.absolute(root), item_handlers=handlers()) as manager:
            for found in sorted(manager.all_steps(), reverse=True):
                if step not in (None, found):
                    continue
                try:
                    return _host_arrays(manager, found), f"{root / str(found)}"
                except Exception as error:  # orbax raises nearly anything over damaged files
                    damaged.append(f"{root / str(found)} cannot be used ({_first_line(error)})")
                    print(damaged[-1], file=sys.stderr, flush=True)
    if damaged:
        raise ConfigError(f"{'; '.join(damaged)}; copy the run again, or train it again")
    raise ConfigError(
        f"config.init_from={str(folder)!r}: no checkpoint there; expected the work directory of a "
        "run (it has a folder checkpoints/ with numbered steps) or a folder of converted weights "
        "(NET.safetensors files written by python -m jaxt2i.convert)"
    )


def widened(x: np.ndarray) -> np.ndarray:
    """Bfloat16 as float32, anything else as it is."""
    return x.astype(np.float32) if x.dtype == jnp.bfloat16 else x


def transfer(
    method: Method,
    state: State,
    source: Mapping[str, Any],
    where: str,
    nets: Sequence[str] | None = None,
) -> tuple[State, Transfer]:
    """Fills a fresh state from an earlier run, matching arrays by name and shape.

    A network that kept an average starts, average and live weights alike, from that average.
    Optimisers and the step number start anew.

    Args:
      method: the method of `state`.
      state: freshly initialised.
      source: {"params", "extra", "ema"} as host arrays.
      where: description of the source.
      nets: fill these networks alone; None: all.
    """
    best = {**source.get("params", {}), **source.get("ema", {})}
    have = named({"params": best, "extra": source.get("extra", {})})
    report = Transfer(where, [], [], [], [])

    def fill(path, leaf):
        name = path_name(path)
        if nets is not None and name.split("/")[1] not in nets:
            return leaf
        if name not in have:
            report.kept.append(name)
        elif tuple(have[name].shape) != tuple(leaf.shape):
            report.reshaped.append(f"{name} {list(have[name].shape)} -> {list(leaf.shape)}")
        else:
            report.copied.append(name)
            return jax.device_put(np.asarray(have[name], leaf.dtype), leaf.sharding)
        return leaf

    filled = jax.tree_util.tree_map_with_path(fill, {"params": state.params, "extra": state.extra})
    wanted = set(state.params) if nets is None else set(nets)
    taken = {*report.copied, *(name.split(" ")[0] for name in report.reshaped)}
    report.untaken = [n for n in have if n.split("/")[1] in wanted and n not in taken]
    # A copy each: donated buffers must not be shared between parameters and their averages.
    params, extra = filled["params"], filled["extra"]
    ema = {net: jax.tree.map(jnp.copy, cast(params[net], "float32")) for net in method.ema}
    settled = {net: jax.tree.map(jnp.copy, extra[net]) for net in state.settled}
    return state.replace(params=params, extra=extra, ema=ema, settled=settled), report
