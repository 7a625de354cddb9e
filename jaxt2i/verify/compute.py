"""Programs of the cases: compiled as they are, or replayed in float64.

A float64 program is the float32 one, the very list of operations that training would compile,
with every float32 number in it exchanged for a float64 one. Modules need to know nothing of it,
casts to float32 included, and nothing but rounding can differ between the two.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxt2i.verify.arrays import nchw

_WIDE = contextvars.ContextVar("wide", default=False)
# Primitives that are nothing but the jaxpr they carry, once gradients are taken.
INLINED = frozenset(
    [
        "jit",
        "pjit",
        "closed_call",
        "core_call",
        "checkpoint",
        "remat2",
        "custom_jvp_call",
        "custom_vjp_call",
    ]
)


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Programs that are called inside compute in float64."""
    token = _WIDE.set(True)
    try:
        yield
    finally:
        _WIDE.reset(token)


def compiled(function: Callable) -> Callable:
    """`jax.jit`; inside `float64()` the same operations in float64, whose results are of numpy."""
    # One function a program: JAX then finds what it has compiled.
    narrow = jax.jit(function)
    return lambda *args: replay(function, *args) if _WIDE.get() else narrow(*args)


def traced(function: Callable) -> Callable:
    """A runner that compiles a whole case: function(case, inputs) -> {name: array}.

    Pictures and features come back channels first.
    """

    @functools.wraps(function)
    def run(golden, case):
        found = compiled(lambda inputs: function(case, inputs))(case.inputs)
        return {k: nchw(x) if x.ndim == 4 else np.asarray(x) for k, x in found.items()}

    return run


def replay(function: Callable, *args) -> Any:
    """function(*args), traced in float32 and computed in float64.

    Args:
      function: of trees of arrays.
      *args: arrays of any precision.

    Returns:
      Its results as numpy arrays, float64 where the function makes float32.
    """
    leaves, tree = jax.tree.flatten(args)
    with jax.enable_x64(False):
        shapes = [_shape(x) for x in leaves]
        closed, made = jax.make_jaxpr(
            lambda *leaves: function(*jax.tree.unflatten(tree, leaves)), return_shape=True
        )(*shapes)
    with jax.enable_x64(True):
        # Constants travel as arguments: inside the program they would be folded one by one.
        program = jax.jit(lambda consts, leaves: evaluate(closed.jaxpr, consts, leaves))
        wide = [[_wide(x) for x in xs] for xs in (closed.consts, leaves)]
        found = jax.device_get(program(*wide))
    return jax.tree.unflatten(jax.tree.structure(made), found)


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(getattr(x, "dtype", np.float32), jax.dtypes.extended)


def _shape(x: Any) -> Any:
    if _is_key(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype)
    x = np.asarray(x)
    return jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype))


def _wide(x: Any) -> Any:
    """float32 as float64; other arrays as the float32 program sees them."""
    if _is_key(x):
        return x
    x = np.asarray(x)
    if x.dtype in (np.float32, np.float64):
        return x.astype(np.float64)
    with jax.enable_x64(False):
        return x.astype(jax.dtypes.canonicalize_dtype(x.dtype))


def evaluate(jaxpr: Any, consts: Sequence, args: Sequence) -> list:
    """The results of a float32 jaxpr in float64; may be traced."""
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

    def read(x):
        if isinstance(x, core.Literal):
            return _wide(np.asarray(x.val, x.aval.dtype))
        return known[x]

    for eqn in jaxpr.eqns:
        out = _operation(eqn, [read(x) for x in eqn.invars])
        known.update(zip(eqn.outvars, out, strict=True))
    return [read(x) for x in jaxpr.outvars]


def _operation(eqn: Any, args: list) -> list:
    name = eqn.primitive.name
    if name in INLINED:
        inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        if isinstance(inner, core.ClosedJaxpr):
            return evaluate(inner.jaxpr, [_wide(x) for x in inner.consts], args)
        return evaluate(inner, (), args)
    if name == "bitcast_convert_type":  # random bits become a float32, and floats their bits
        args = [x.astype(np.float32) if x.dtype == np.float64 else x for x in args]
        (out,) = [eqn.primitive.bind(*args, **eqn.params)]
        return [out.astype(np.float64) if out.dtype == np.float32 else out]
    if name == "reduce_precision" and eqn.params["mantissa_bits"] >= 23:
        return args
    out = eqn.primitive.bind(*args, **{k: _param(x) for k, x in eqn.params.items()})
    return out if eqn.primitive.multiple_results else [out]


def _param(x: Any) -> Any:
    """A parameter of an operation: dtypes and inner jaxprs follow."""
    if isinstance(x, core.ClosedJaxpr):
        return _widened(x.jaxpr, x.consts)
    if isinstance(x, core.Jaxpr):
        return _widened(x, ()).jaxpr
    if type(x) in (tuple, list):
        return type(x)(map(_param, x))
    if isinstance(x, np.dtype) or (isinstance(x, type) and issubclass(x, np.generic)):
        return np.dtype(np.float64) if np.dtype(x) == np.float32 else x
    return x


def _widened(jaxpr: Any, consts: Sequence) -> Any:
    """A jaxpr of float64 that does what the float32 one does."""
    shapes = [jax.ShapeDtypeStruct(x.aval.shape, _param(x.aval.dtype)) for x in jaxpr.invars]
    wide = [_wide(x) for x in consts]
    return jax.make_jaxpr(lambda *args: evaluate(jaxpr, wide, args))(*shapes)
