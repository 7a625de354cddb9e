"""What the author of a method may have got wrong, in sentences, before anything is compiled."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxt2i.config import ConfigError, nearest
from jaxt2i.data import schema
from jaxt2i.engine.method import Method, Player


def checked(method: Any, name: str) -> Method:
    """What `build` gave, with losses and `init` that say what is wrong with what they give.

    Args:
      method: what it gave.
      name: of its module.

    Raises:
      ConfigError: when it is no Method, or names what does not exist.
    """
    if not isinstance(method, Method):
        raise ConfigError(f"build of {name} gives {type(method).__name__}; expected a Method")
    conditions = method.sampler.needs if method.sampler else ()
    for who, needs in (("Method", method.scored), ("Sampler", conditions)):
        for key in needs:
            if key not in schema.FIELDS:
                raise ConfigError(
                    f"{who}.needs of {name} names {key!r}, no row of jaxt2i/data/schema.py; "
                    f"{nearest(key, schema.FIELDS)}"
                )
    names = [player.name for player in method.players]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"two players are called {min(twice)!r}; give each its own name")
    for net in method.ema:
        if net not in method.trained:
            known = nearest(net, method.trained)
            raise ConfigError(f"ema averages {net!r}, which is no trained network; {known}")
    players = tuple(dataclasses.replace(p, loss=scalars(p)) for p in method.players)
    return dataclasses.replace(method, players=players, init=complete(method))


def scalars(player: Player) -> Callable:
    """A player's loss that refuses to give anything but (scalar, {metric name: scalar})."""

    @functools.wraps(player.loss)
    def loss(ctx, batch):
        given = player.loss(ctx, batch)
        who = f"the loss of player {player.name!r}"
        pair = isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], Mapping)
        if not pair:
            raise ConfigError(f"{who} gives no pair (loss, {{metric name: scalar}})")
        for name, x in {"loss": given[0], **given[1]}.items():
            if shape := jnp.shape(x):
                raise ConfigError(
                    f"{who}: {name!r} has shape {shape}; expected a scalar, such as its mean"
                )
        return given

    return loss


def complete(method: Method) -> Callable:
    """A method's `init` that refuses to leave a network out."""

    @functools.wraps(method.init)
    def init(key: jax.Array, batch: dict) -> dict:
        variables = method.init(key, batch)
        if absent := [net for net in method.nets if net not in variables]:
            raise ConfigError(
                f"init gives no weights of {absent[0]!r}; it gives {', '.join(variables)}"
            )
        return variables

    return init


def known_outputs(shapes: Mapping[str, Any]) -> None:
    """Refuses what a sampler gives under a name that means nothing to those who draw.

    Raises:
      ConfigError: names it.
    """
    known = [*schema.FIELDS, *schema.VIEWS]
    for name in shapes:
        if name not in known:
            raise ConfigError(
                f"the sampler gives {name!r}, neither a row nor a view of jaxt2i/data/schema.py; "
                f"{nearest(name, known)}"
            )
