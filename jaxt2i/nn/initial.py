"""Initial variables of a system's networks."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.interpreters import partial_eval as pe


def initialise(
    nets: Mapping[str, nn.Module],
    key: jax.Array,
    *,
    inputs: Mapping[str, Any] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Random variables of every network, each from a key of its own.

    Args:
      nets: {name: network}.
      key: split over the sorted names.
      inputs: {name: shapes of what the network is called with, a tuple of trees}; of the others
        `network.example()` says it.
      options: {name: keywords that it is called with}.

    Returns:
      {name: variables}.
    """
    inputs, options = inputs or {}, options or {}
    keys = dict(zip(sorted(nets), jax.random.split(key, len(nets)), strict=True))

    def one(name: str, net: nn.Module) -> Any:
        shapes = inputs[name] if name in inputs else net.example()
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tuple(shapes))
        return net.init(keys[name], *zeros, **options.get(name, {}))

    return {name: one(name, net) for name, net in nets.items()}


# What jax.random calls its programs. Each number they draw depends on its place in the flat array
# alone, so a longer array starts with the same ones.
DRAWS = ("_uniform", "_normal", "_truncated_normal")
# It draws, too, and then decomposes a matrix.
DECOMPOSED = "_orthogonal"
# What may follow a draw within one program, number by number, beside constants.
SCALED = ("mul", "div", "add", "sub", "neg", "convert_element_type")
# What changes the place of numbers alone.
MOVED = ("reshape", "transpose", "squeeze", "broadcast_in_dim", "stop_gradient")
# Lengths that are drawn: powers of two from this on.
SHORTEST = 1 << 12


def initial_weights(function: Callable, *args: Any, out_shardings: Any) -> Any:
    """function(*args) of initial weights: on CPUs as `apart` computes it, elsewhere as `jax.jit`.

    The same numbers either way; on accelerators they are drawn straight into their shards.
    Arguments are those of `apart`.
    """
    if jax.default_backend() == "cpu":
        return apart(function, *args, out_shardings=out_shardings)
    return jax.jit(function, out_shardings=out_shardings)(*args)


def apart(function: Callable, *args: Any, out_shardings: Any) -> Any:
    """function(*args) as `jax.jit` computes it, with its random numbers drawn by programs apart.

    Draws are the same to the bit; what is decomposed or multiplied with them (orthogonal kernels,
    spectral vectors) may be rounded otherwise.

    On CPUs, compiling the initialisation of a network may take longer than compiling its training
    step, most of it for random numbers. Here they are the beginnings of arrays whose lengths are
    powers of two, so that a few small programs serve all networks of a process; layers of one shape
    share what makes an orthogonal kernel or a unit vector; one program makes everything else.

    Args:
      function: of trees of arrays; returns a tree of arrays.
      *args: arrays.
      out_shardings: of the results.

    Returns:
      The tree of results.
    """
    leaves, tree = jax.tree.flatten(args)
    closed, made = jax.make_jaxpr(
        lambda *leaves: function(*jax.tree.unflatten(tree, leaves)), return_shape=True
    )(*leaves)
    jaxpr, _ = pe.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True)
    eqns = jaxpr.eqns
    readers: dict[Any, list[int]] = {}
    for i, eqn in enumerate(eqns):
        for v in {v for v in eqn.invars if not _literal(v)}:
            readers.setdefault(v, []).append(i)
    results = {v for v in jaxpr.outvars if not _literal(v)}
    chains = {i: chain for i in range(len(eqns)) if (chain := _chain(eqns, i, readers, results))}
    first = _first(eqns, chains)
    drawn = {j for chain in chains.values() for j in chain}
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *leaves), strict=True))
    for i in sorted(first | set(chains)):
        given = [v.val if _literal(v) else known[v] for v in eqns[i].invars]
        chain = [eqns[j] for j in chains.get(i, ())]
        values = [_drawn(given, chain)] if chain else _one(eqns[i], given)
        known.update(zip((chain or [eqns[i]])[-1].outvars, values, strict=True))
    left = [i for i in range(len(eqns)) if i not in first and i not in drawn]
    parts = _before_products(eqns, left, known)
    for part in parts:
        known.update(_computed([eqns[i] for i in part], known, readers, results, set(part)))
    done = {i for part in parts for i in part}
    rest = [eqns[i] for i in left if i not in done]
    read = {v for eqn in rest for v in eqn.invars if not _literal(v)} | results
    inputs = [v for v in known if v in read]

    def finish(values):
        env = dict(zip(inputs, values, strict=True))
        value = lambda v: v.val if _literal(v) else env[v]  # noqa: E731
        for eqn in rest:
            env.update(zip(eqn.outvars, _one(eqn, [value(v) for v in eqn.invars]), strict=True))
        flat = [jnp.asarray(value(v), v.aval.dtype) for v in jaxpr.outvars]
        return jax.tree.unflatten(jax.tree.structure(made), flat)

    values = [known[v] for v in inputs]
    if jax.process_count() > 1:  # the same on every process, and on none of their devices yet
        values = [x if _is_key(x) else np.asarray(x) for x in values]
    return jax.jit(finish, out_shardings=out_shardings)(values)


def _first(eqns: list, chains: dict[int, list[int]]) -> set[int]:
    """Numbers of the operations that draws need, such as keys; a draw that needs another one is no
    draw apart, and is taken out of `chains`.
    """
    makers = {v: i for i, eqn in enumerate(eqns) for v in eqn.outvars}
    first: set[int] = set()
    for i in list(chains):
        found = _ancestors(eqns, i, makers)
        if any(j in chain for j in found for chain in chains.values()):
            del chains[i]
        else:
            first |= found
    drawn = {j for chain in chains.values() for j in chain}
    # Keys of the other draws are made operation by operation, too.
    for i in (i for i, eqn in enumerate(eqns) if _draws(eqn) and i not in chains):
        found = _ancestors(eqns, i, makers)
        if not found & drawn:
            first |= {j for j in found if all(_is_key(v.aval) for v in eqns[j].outvars)}
    return first


def _before_products(eqns: list, left: list[int], known: dict) -> list[list[int]]:
    """Numbers of operations that belong together: a draw, and what is made of it until matrices are
    multiplied with that.

    A product takes its operands as they are stored, so what makes one is a program of its own,
    and the same one for all layers of a shape.
    """
    behind, groups, owner = set(), {}, {}
    for i in left:
        eqn = eqns[i]
        inside = [v for v in eqn.invars if not _literal(v) and v not in known]
        if eqn.primitive.name == "dot_general" or any(v in behind for v in inside):
            behind.update(eqn.outvars)
            continue
        merged = {owner[v] for v in inside}
        groups[i] = sorted({i, *(j for g in merged for j in groups.pop(g))})
        owner.update((v, i) for j in groups[i] for v in eqns[j].outvars)
    return [part for part in groups.values() if any(_draws(eqns[i]) for i in part)]


def _computed(part: list, known: dict, readers: dict, results: set, numbers: set[int]) -> dict:
    """{variable: its value} of operations that belong together, as far as others read them."""
    own = {v for eqn in part for v in eqn.outvars}
    needed = [v for eqn in part for v in eqn.invars if not _literal(v) and v not in own]
    inputs = list(dict.fromkeys(needed))
    outs = [v for v in own if v in results or set(readers.get(v, ())) - numbers]
    outs.sort(key=lambda v: next(i for i, eqn in enumerate(part) if v in eqn.outvars))

    def make(*values):
        env = dict(zip(inputs, values, strict=True))
        for eqn in part:
            given = [v.val if _literal(v) else env[v] for v in eqn.invars]
            env.update(zip(eqn.outvars, _one(eqn, given), strict=True))
        return [env[v] for v in outs]

    values = [known[v] for v in inputs]
    closed = jax.make_jaxpr(make)(*values)
    # The same operations on the same shapes are one program for all layers.
    program = _PROGRAMS.setdefault(str(closed), jax.jit(core.jaxpr_as_fun(closed)))
    return dict(zip(outs, program(*values), strict=True))


_PROGRAMS: dict[str, Callable] = {}


def _draws(eqn: Any) -> bool:
    """Whether an operation makes random numbers."""
    return eqn.primitive.name in ("jit", "pjit") and eqn.params.get("name") in (*DRAWS, DECOMPOSED)


def _ancestors(eqns: list, i: int, makers: dict) -> set[int]:
    """Numbers of the operations that operation `i` needs."""
    found: set[int] = set()
    waiting = [i]
    while waiting:
        for v in eqns[waiting.pop()].invars:
            j = None if _literal(v) else makers.get(v)
            if j is not None and j not in found:
                found.add(j)
                waiting.append(j)
    return found


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(getattr(x, "dtype", np.float32), jax.dtypes.prng_key)


def _literal(v: Any) -> bool:
    return isinstance(v, core.Literal)


def _one(eqn: Any, given: list) -> list:
    """The results of one operation."""
    found = eqn.primitive.bind(*given, **eqn.params)
    return list(found) if eqn.primitive.multiple_results else [found]


def _chain(eqns: list, first: int, readers: dict, results: set) -> list[int]:
    """Numbers of the operations that make an initial value from a draw; empty: it is none.

    They are compiled as one program: XLA joins the constants of products that follow one another.
    """
    eqn = eqns[first]
    named = eqn.primitive.name in ("jit", "pjit") and eqn.params.get("name") in DRAWS
    if not named or len(eqn.outvars) != 1 or not jax.config.jax_threefry_partitionable:
        return []
    key, *bounds = [v.aval for v in eqn.invars]
    if not _is_key(key) or key.shape:
        return []
    if any(b.shape for b in bounds) or "threefry" not in str(key.dtype._impl.name):
        return []
    chain = [first]
    while True:
        (made,) = eqns[chain[-1]].outvars
        if made in results:  # what else reads it may sum it up, in an order of its own
            return chain if _multiplied(eqns, made, readers, results) else []
        (following, *more) = readers.get(made, [len(eqns)])
        if more or following == len(eqns):
            return []
        then = eqns[following]
        others = [v for v in then.invars if v is not made]
        if then.primitive.name not in SCALED or then.outvars[0].aval.shape != made.aval.shape:
            return []
        if not all(_literal(v) and not np.shape(v.val) for v in others):
            return []
        chain.append(following)


def _multiplied(eqns: list, value: Any, readers: dict, results: set) -> bool:
    """Whether all that reads a value multiplies matrices with it, as it is stored."""
    for eqn in (eqns[i] for i in readers.get(value, ())):
        if eqn.primitive.name == "dot_general":
            continue
        if eqn.primitive.name not in MOVED or results & set(eqn.outvars):
            return False
        if not _multiplied(eqns, eqn.outvars[0], readers, results):
            return False
    return True


def _drawn(given: list, eqns: list) -> jax.Array:
    """What a chain makes, as the beginning of a longer array."""
    made = eqns[-1].outvars[0].aval
    length = max(SHORTEST, 1 << (max(made.size, 1) - 1).bit_length())
    steps = tuple(
        (
            eqn.primitive,
            tuple(np.asarray(v.val, v.aval.dtype)[()] if _literal(v) else None for v in eqn.invars),
            tuple(sorted(eqn.params.items(), key=lambda kv: kv[0])),
        )
        for eqn in eqns[1:]
    )
    dtype, name = eqns[0].outvars[0].aval.dtype, eqns[0].params["name"]
    numbers = _program(name, np.dtype(dtype), length, steps)(*given)
    # By numpy, which shares the memory: jax would load a program or two for each shape.
    return jax.device_put(np.asarray(numbers)[: made.size].reshape(made.shape))


@functools.lru_cache(maxsize=1024)
def _program(name: str, dtype: np.dtype, length: int, steps: tuple) -> Callable:
    """A compiled draw and the operations behind it."""

    def draw(key, *bounds):
        if name == "_uniform":
            x = jax.random.uniform(key, (length,), dtype, *bounds)
        elif name == "_truncated_normal":
            x = jax.random.truncated_normal(key, *bounds, (length,), dtype)
        else:
            x = jax.random.normal(key, (length,), dtype)
        for primitive, constants, params in steps:
            x = primitive.bind(*[x if c is None else c for c in constants], **dict(params))
        return x

    return jax.jit(draw)
