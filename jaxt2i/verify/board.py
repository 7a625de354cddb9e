"""A stored training step, played with a method's own losses on a folder's networks."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.convert import rules
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.engine.method import Ctx, Method, Player

KEY = jax.random.key(0)


class Board:
    """Networks with a folder's weights, and the inputs of a case.

    Attributes:
      nets: {name: module}.
      variables: {name: variables}.
      tables: {name of a trained network: its rename table}.
      frozen: names of the frozen networks.
      batch: what the losses read.
    """

    def __init__(
        self,
        nets: Mapping,
        variables: Mapping,
        tables: Mapping[str, rules.Table],
        batch: dict,
    ):
        self.nets, self.variables, self.tables, self.batch = nets, variables, tables, batch
        self.frozen = tuple(n for n in nets if n not in tables)

    def method(self, players: Sequence[Player] = ()) -> Method:
        """The networks as a method."""
        return Method(self.nets, tuple(players), init=None, needs=(), frozen=self.frozen)

    def run(self, function: Callable, *args) -> tuple:
        """function(ctx, batch, *args), compiled."""
        return self.gradient(lambda *a: (jnp.zeros(()), function(*a)), (), *args)[1]

    def gradient(self, function: Callable, nets: tuple[str, ...], *args) -> tuple:
        """(value, logs, {net: gradient}) of function(ctx, batch, *args) -> (value, logs)."""
        method = self.method()
        params = {n: self.variables[n]["params"] for n in self.tables}
        extra = {
            n: {k: x for k, x in self.variables[n].items() if k != "params"} for n in self.tables
        }
        frozen = {n: self.variables[n] for n in self.frozen}

        def value(trained, params, extra, frozen, batch, args):
            ctx = Ctx(method, {**params, **trained}, extra, frozen, key=KEY)
            return function(ctx, batch, *args)

        step = jax.jit(jax.value_and_grad(value, has_aux=True))
        trained = {n: params[n] for n in nets}
        (out, logs), grads = step(trained, params, extra, frozen, self.batch, args)
        return out, logs, grads

    def norms(self, gradients: Mapping, names: Sequence[str]) -> np.ndarray:
        """Norm of the gradient of every named parameter; NaN for those that serve nothing here.

        Args:
          gradients: {net: tree}.
          names: official keys, perhaps with the network's own prefix ("netG.") before them.
        """
        named = {}
        for net, tree in gradients.items():
            for key, x in rules.to_torch(self.tables[net], {"params": tree}).items():
                norm = np.linalg.norm(np.asarray(x, np.float64))
                named[key] = named[self.tables[net].part + key] = norm
        return np.float32([named.get(str(name), np.nan) for name in names])

    def play(self, players: Sequence[Player]) -> tuple[dict, dict]:
        """One step of the engine: ({net: parameters}, metrics)."""
        method = self.method(players)
        state = states.new(method, {n: self.variables[n] for n in self.tables})
        size = len(next(iter(self.batch.values())))
        program = jax.jit(steps.make(method, steps.Rules(0, size, 1))[1])
        state, metrics = program(state, {n: self.variables[n] for n in self.frozen}, self.batch)
        return state.params, metrics

    def named(self, params: Mapping) -> dict[str, np.ndarray]:
        """{official key: tensor} of {net: parameters, or their gradients}."""
        out = {}
        for net, tree in params.items():
            out |= rules.to_torch(self.tables[net], {"params": tree})
        return out
