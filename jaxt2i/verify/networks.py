"""Networks with a folder's weights, and what happens inside them."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np

from jaxt2i.convert import rules
from jaxt2i.verify.arrays import norms
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.golden import Golden


def convert_net(
    golden: Golden,
    net: str,
    table: rules.Table | Sequence,
    module: nn.Module,
    *args,
    keep: str | tuple[str, ...] = "",
) -> dict:
    """Variables of `module` from the folder's weights.

    Args:
      golden: the folder.
      net: name of the network there.
      table: its rename table, the rules alone, or the tables to pick from.
      module: the Flax module.
      *args: inputs that `module.init` takes, or their shapes; without any, `module.example()`.
      keep: use only keys that start so: one part of a larger network.
    """
    keys = {name: jax.random.key(i) for i, name in enumerate(("params", "noise"))}
    template = jax.eval_shape(module.init, keys, *(args or module.example()))
    weights = golden.weights(net, keep)
    if isinstance(table, Sequence) and isinstance(table[0], rules.Table):
        table = rules.pick(table, weights)
    variables, report = rules.to_flax(table, weights, template)
    report.require_all(f"network {net!r} of {golden.folder}")
    return variables


class Observed(NamedTuple):
    """One call of a module.

    Attributes:
      output: what it returns.
      inside: the outputs of all its parts, as Flax notes them.
      changed: the other collections that it could change.
    """

    output: jax.Array
    inside: dict
    changed: dict

    def at(self, path: str, method: str = "__call__") -> jax.Array:
        """The output of a part, by its path ("synthesis/b8/input") and the method that made it."""
        node = self.inside
        for part in path.split("/"):
            node = node[part]
        return node[method][0]


def observe(module: nn.Module, variables: dict, *args, mutable: Sequence[str] = (), **kw):
    """An `Observed`; may be traced.

    Args:
      module: the module.
      variables: its variables.
      *args: its arguments.
      mutable: collections that may change.
      **kw: its keywords.
    """
    output, changed = module.apply(
        variables, *args, **kw, capture_intermediates=True, mutable=["intermediates", *mutable]
    )
    return Observed(output, changed.pop("intermediates"), changed)


def captured(module: nn.Module, variables: dict, *args, **kw) -> tuple[jax.Array, Callable]:
    """The output, and a function from a path to that part's output; compiled."""
    found = compiled(lambda variables, args: observe(module, variables, *args, **kw))(
        variables, args
    )
    return found.output, found.at


def grad_norms(table: Sequence, grads: Mapping, order: list[str], prefix: str) -> tuple:
    """(names, norms) of a gradient in the official parameter order.

    Args:
      table: the rename table.
      grads: {"params": tree}.
      order: keys of the official state dict.
      prefix: put before every name.
    """
    named = rules.to_torch(table, grads)
    names = [k for k in order if k in named]
    return np.array([prefix + k for k in names]), norms(named[k] for k in names)
