"""The state of a run: one tree that a step replaces and a checkpoint keeps.

Frozen weights are not in it: they travel beside the state, are never donated and never saved.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxt2i.engine.method import Batch, Ctx, Method, Tree, cast, reading
from jaxt2i.nn.initial import initial_weights


@flax.struct.dataclass
class State:
    """Everything that changes.

    Attributes:
      step: steps played, int32 scalar. With the seed it determines every random draw and the
        data position, so a restart needs nothing else.
      params: {net: parameters}, in `Method.stored_dtype`.
      extra: {net: {collection: tree}}: running statistics, spectral vectors, buffers.
      opt: {player: optimiser state}, float32.
      ema: {net: averaged parameters}, float32.
      settled: {net: {collection: tree}} that belong to the averaged parameters, where the sampler
        settles them (`draw.settled`); as old as the last checkpoint or grid.
    """

    step: jax.Array
    params: dict[str, Tree]
    extra: dict[str, dict[str, Tree]]
    opt: dict[str, Any]
    ema: dict[str, Tree]
    settled: dict[str, dict[str, Tree]] = flax.struct.field(default_factory=dict)


def new(method: Method, variables: dict[str, Tree]) -> State:
    """The state at step 0.

    Args:
      method: the method.
      variables: {net: variables}; those of frozen networks are passed over.
    """
    split = {net: dict(variables[net]) for net in method.trained}
    params = {net: v.pop("params") for net, v in split.items()}
    extra = {net: v for net, v in split.items() if v}
    settles = method.sampler is not None and method.sampler.settle is not None
    return State(
        step=jnp.zeros((), jnp.int32),
        params=cast(params, method.stored_dtype),
        extra=extra,
        opt={p.name: p.tx.init({n: params[n] for n in p.nets}) for p in method.players},
        ema={net: params[net] for net in method.ema},
        settled={net: extra[net] for net in method.ema if settles and net in extra},
    )


def shapes(method: Method, batch: Batch) -> tuple[State, dict[str, Tree]]:
    """(State, frozen weights) as ShapeDtypeStructs, allocating nothing.

    Args:
      method: the method.
      batch: ShapeDtypeStructs of a batch that holds `method.needs`.
    """

    def build(key):
        with reading("init", batch):
            variables = method.init(key, zeros(batch))
        return new(method, variables), {n: variables[n] for n in method.frozen}

    return jax.eval_shape(build, jax.random.key(0))


def create(
    method: Method, batch: Batch, seed: int, shardings: tuple[Any, Any]
) -> tuple[State, dict[str, Tree]]:
    """Initialises (State, frozen weights) straight into their shards.

    Networks with a `pretrained` loader come from it; the others from `method.init`, or from
    another network, see `Method.starts`.

    Args:
      method: the method.
      batch: ShapeDtypeStructs of a batch that holds `method.needs`.
      seed: seed of the initialisation.
      shardings: (of the state, of the frozen weights), as trees of NamedSharding.
    """
    # Loaded weights enter as arguments; constants would be baked into the program.
    given = {n: method.pretrained[n]() for n in method.trained if n in method.pretrained}

    starts = {net: start for net, start in method.starts.items() if net not in given}
    lent = {o: method.pretrained[o]() for o, _ in starts.values() if o in method.pretrained}

    def build(key, given, lent):
        there = {**method.init(key, zeros(batch)), **given, **lent}
        made = {net: make(there[net], there[other]) for net, (other, make) in starts.items()}
        return new(method, {**there, **made})

    state = initial_weights(build, init_key(seed), given, lent, out_shardings=shardings[0])
    return state, create_frozen(method, batch, seed, shardings[1])


def create_frozen(method: Method, batch: Batch, seed: int, sharding: Tree) -> dict[str, Tree]:
    """The frozen networks' weights: from their `pretrained` loaders, else from `method.init`.

    Args:
      method: the method.
      batch: ShapeDtypeStructs of a batch that holds `method.needs`.
      seed: seed of the initialisation.
      sharding: {net: tree of NamedSharding}.
    """
    own = [n for n in method.frozen if n not in method.pretrained]

    def build(key):
        variables = method.init(key, zeros(batch))
        return {n: variables[n] for n in own}

    where = {n: sharding[n] for n in own}
    out = initial_weights(build, init_key(seed), out_shardings=where) if own else {}
    for net in method.frozen:
        if net in method.pretrained:
            out[net] = jax.device_put(method.pretrained[net](), sharding[net])
    return {n: out[n] for n in method.frozen}


def init_key(seed: int) -> jax.Array:
    """The key of the initial weights; steps use `step_key`."""
    return jax.random.fold_in(jax.random.key(seed), 0x1417)


def step_key(seed: int, step: jax.Array | int) -> jax.Array:
    """The key of one step."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 0x57E9), step)


def zeros(batch: Batch) -> Batch:
    """A batch of zeros of the given shapes, for initialisation."""
    return {k: jnp.zeros(v.shape, v.dtype) for k, v in batch.items()}


def context(
    method: Method,
    state: State,
    frozen: dict[str, Tree],
    *,
    key: jax.Array | None,
    batch_size: int = 1,
    total_steps: int = 1,
    use_ema: bool = True,
) -> Ctx:
    """A Ctx for drawing (key None) and scoring: averaged weights, with what settled on them."""
    params, extra = state.params, state.extra
    if use_ema:
        params, extra = {**params, **state.ema}, {**extra, **state.settled}
    length = {"batch_size": batch_size, "total_steps": total_steps}
    return Ctx(method, params, extra, frozen, key=key, step=state.step, **length)


def count(tree: Tree) -> int:
    """Number of scalars in a tree of arrays or shapes."""
    return sum(int(x.size) for x in jax.tree.leaves(tree))
