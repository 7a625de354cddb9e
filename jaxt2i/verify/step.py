"""A stored loss or training step, played with a system's own players on a folder's networks."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.convert import rules
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.engine.method import Ctx, Method, Player
from jaxt2i.verify.arrays import norm
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.networks import Observed, observe

KEY = jax.random.key(0)


class Turn(NamedTuple):
    """What one function made of the networks.

    Attributes:
      value: the loss, or {name: loss}.
      logs: what it returned beside.
      gradients: {net: tree}; {name: {net: tree}} where there are several losses.
      extra: {net: collections that training advances}, behind the turn.
      outputs: {watched net: its outputs, call by call}.
    """

    value: Any
    logs: Any
    gradients: dict
    extra: dict
    outputs: dict


class Watched(Ctx):
    """The engine's context, some of whose networks are noted or stand-ins.

    Attributes:
      stand_in: {net: what it returns, whatever it is given}.
      outputs: {net: outputs, call by call}; filled while a loss is traced.
    """

    stand_in: Mapping[str, jax.Array]
    outputs: dict[str, list]

    def __call__(self, net: str, *args, **kw):
        if net in self.stand_in:
            return self.stand_in[net]
        out = super().__call__(net, *args, **kw)
        if net in self.outputs:
            self.outputs[net].append(out)
        return out

    def observe(self, net: str, *args, **kw) -> Observed:
        """A call of a trained network with all that happens inside; nothing advances."""
        variables = {"params": self._params[net], **self.extra.get(net, {})}
        return observe(self._method.nets[net], variables, *args, **kw)


class Networks:
    """Networks with a folder's weights, and the inputs of a case.

    Attributes:
      nets: {name: module}.
      variables: {name: variables}.
      tables: {name of a trained network: its rename table}.
      frozen: names of the frozen networks.
      batch: what the losses read.
      draws: {name: what `ctx.draw` gives}.
      watch: names of networks whose outputs are noted.
      stand_in: {name: output} of a network that the case replaces by its output.
    """

    def __init__(
        self,
        made: Mapping[str, tuple],
        tables: Mapping[str, rules.Table],
        batch: dict,
        *,
        draws: Mapping | None = None,
        watch: Sequence[str] = (),
        stand_in: Mapping | None = None,
    ):
        """`made` is {name: (module, variables, ...)}."""
        self.nets, self.variables = ({n: x[i] for n, x in made.items()} for i in (0, 1))
        self.tables = {n: tables[n] for n in made if n in tables}
        self.batch, self.draws, self.watch = batch, dict(draws or {}), tuple(watch)
        self.stand_in = dict(stand_in or {})
        self.frozen = tuple(n for n in self.nets if n not in self.tables)

    def method(self, players: Sequence[Player] = (), **fields) -> Method:
        """The networks as a method."""
        return Method(self.nets, tuple(players), init=None, needs=(), frozen=self.frozen, **fields)

    def _parts(self) -> dict:
        """Everything that a context needs, as arguments of a program."""
        params, extra = {}, {}
        for net in self.tables:
            extra[net] = {k: x for k, x in self.variables[net].items() if k != "params"}
            params[net] = self.variables[net]["params"]
        frozen = {n: self.variables[n] for n in self.frozen}
        parts = {"params": params, "extra": extra, "frozen": frozen, "batch": self.batch}
        # Draws may be words, such as the noise "const": those are no arguments of a program.
        return parts | {"stand_in": self.stand_in, "draws": _arrays(self.draws)}

    def play(self, after: str | None = None, **turns: tuple[Callable, Sequence[str]]) -> dict:
        """{name: Turn} of {name: (function, nets)}, all in one program.

        Each function gets a context of its own, from the same start. Equal passes of theirs are
        computed once, as the compiler finds them; several losses of one function share one pass
        and pull back through it one after the other.

        Args:
          after: the turn whose advanced collections every later one starts from.
          **turns: function: (ctx, batch) -> (value, logs), the value a loss or {name: loss}; nets:
            whose parameters its gradients are of, perhaps none.
        """
        method = self.method()

        def program(parts):
            out, extra = {}, parts["extra"]
            for name, (function, nets) in turns.items():
                out[name] = self._turn(method, {**parts, "extra": extra}, function, nets)
                extra = out[name].extra if name == after else extra
            return out

        return compiled(program)(self._parts())

    def _turn(self, method: Method, parts: dict, function: Callable, nets: Sequence[str]) -> Turn:
        def value(trained):
            ctx = Watched(
                method,
                {**parts["params"], **trained},
                parts["extra"],
                parts["frozen"],
                key=KEY,
                draws={**self.draws, **parts["draws"]},
            )
            ctx.stand_in, ctx.outputs = parts["stand_in"], {net: [] for net in self.watch}
            out, logs = function(ctx, parts["batch"])
            return out, (logs, ctx.extra, ctx.outputs)

        trained = {n: parts["params"][n] for n in nets}
        if not nets:
            out, (logs, extra, outputs) = value(trained)
            return Turn(out, logs, {}, extra, outputs)
        out, pull_back, (logs, extra, outputs) = jax.vjp(value, trained, has_aux=True)
        if not isinstance(out, Mapping):
            return Turn(out, logs, pull_back(jnp.ones_like(out))[0], extra, outputs)
        gradients = {}
        for name in out:
            one = {k: jnp.full_like(x, k == name) for k, x in out.items()}
            gradients[name] = pull_back(one)[0]
        return Turn(out, logs, gradients, extra, outputs)

    def run(self, function: Callable) -> Any:
        """What function(ctx, batch) gives, compiled."""
        return self.play(run=(lambda ctx, batch: ((), function(ctx, batch)), ()))["run"].logs

    def norms(self, gradients: Mapping, names: Sequence[str]) -> np.ndarray:
        """Norm of the gradient of every named parameter; NaN for those that serve nothing here.

        Args:
          gradients: {net: tree}.
          names: official keys, perhaps with the network's own prefix ("netG.") before them.
        """
        named = {}
        for net, tree in gradients.items():
            for key, x in rules.to_torch(self.tables[net], {"params": tree}).items():
                named[key] = named[self.tables[net].part + key] = norm(x)
        return np.array([named.get(str(name), np.nan) for name in names])

    def named(self, params: Mapping) -> dict[str, np.ndarray]:
        """{official key: tensor} of {net: parameters, or their gradients}."""
        out = {}
        for net, tree in params.items():
            out |= rules.to_torch(self.tables[net], {"params": tree})
        return out

    def start(self, players: Sequence[Player], **fields) -> "Run":
        """The engine before its first step.

        Args:
          players: as the system makes them.
          **fields: of the `Method`, such as `ema`.
        """
        method = self.method([self._given(p) for p in players], **fields)
        state = states.new(method, {n: self.variables[n] for n in self.tables})
        return Run(self, method, state)

    def _given(self, player: Player) -> Player:
        """A player whose draws come with the batch."""

        def loss(ctx: Ctx, batch: dict) -> tuple:
            ctx.draws = {**self.draws, **batch["draws"]}
            return player.loss(ctx, batch["rows"])

        return dataclasses.replace(player, loss=loss)


class Run:
    """Steps of the engine on a case's networks.

    Attributes:
      state: behind the last step.
    """

    def __init__(self, networks: Networks, method: Method, state: states.State):
        self.networks, self.method, self.state = networks, method, state
        self.size = len(next(iter(networks.batch.values())))
        self._program = compiled(steps.make(method, steps.Rules(0, self.size, 2))[1])

    def step(self, **draws) -> dict:
        """Plays one step and returns its metrics.

        Args:
          **draws: other draws than the case's own.
        """
        self.state, metrics = self._program(self.state, *self._inputs(draws))
        return metrics

    def _inputs(self, draws: Mapping) -> tuple[dict, dict]:
        """(frozen weights, batch with draws)."""
        at = self.networks
        frozen = {n: at.variables[n] for n in at.frozen}
        return frozen, {"rows": at.batch, "draws": _arrays({**at.draws, **draws})}

    def see(self, function: Callable) -> Any:
        """What function(ctx, batch) gives with the networks, averages first, as they are now."""
        at = self.networks

        def look(state, frozen, batch):
            ctx = states.context(self.method, state, frozen, key=KEY)
            ctx.draws = {**at.draws, **batch["draws"]}
            return function(ctx, batch["rows"])

        return compiled(look)(self.state, *self._inputs({}))


def _arrays(draws: Mapping) -> dict:
    """Those draws that are arrays."""
    return {k: x for k, x in draws.items() if hasattr(x, "dtype")}
