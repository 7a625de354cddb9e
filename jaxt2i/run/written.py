"""What the author of a method may have got wrong, in sentences, before anything is compiled."""

import contextlib
import dataclasses
import functools
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxt2i.config import ConfigError, nearest
from jaxt2i.data import schema
from jaxt2i.engine.method import Method, Player, Sampler, reading

# What `Method.better` says of a score.
WAYS = ("higher", "lower")


@contextlib.contextmanager
def reading_settings(name: str) -> Iterator[None]:
    """Around `build`: a setting that it reads and the configuration has not becomes a sentence.

    Args:
      name: of its module.

    Raises:
      ConfigError: names the setting and the line that reads it.
    """
    try:
        yield
    except (AttributeError, KeyError) as error:
        frames = list(traceback.walk_tb(error.__traceback__))
        asked = [
            frame.f_globals.get("__name__", "").startswith("ml_collections") for frame, _ in frames
        ]
        if not asked[-1]:
            raise
        frame, line = frames[asked.index(True) - 1]
        inner = error.args[0] if isinstance(error.args[0], KeyError) else error
        missing = str(inner.args[0]).replace("\n", "; ")
        raise ConfigError(
            f"build of {name} reads a setting that the configuration has not: {missing} "
            f"({frame.f_code.co_filename}, line {line}); its file must set it, as in "
            "c.model.width = 32"
        ) from error


def checked(method: Any, name: str) -> Method:
    """What `build` gave, with functions that say what is wrong with what they give.

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
    check_networks(method)
    for score, way in method.better.items():
        if way not in WAYS:
            raise ConfigError(f"better says {way!r} of {score!r}; expected one of {WAYS}")
    return dataclasses.replace(
        method,
        players=tuple(dataclasses.replace(p, loss=scalars(p)) for p in method.players),
        init=complete(method),
        sampler=method.sampler and named(method.sampler, name),
        score=method.score and judged(method),
    )


def check_networks(method: Method) -> None:
    """Refuses names of networks that there are not.

    Raises:
      ConfigError: names the network.
    """
    for who in ("frozen", "borrowed", "guided_by"):  # a perception may load more than is used
        for net in getattr(method, who):
            if net not in method.nets:
                raise ConfigError(
                    f"{who} names {net!r}, no network of the method; {nearest(net, method.nets)}"
                )
    for net in method.ema:
        if net not in method.trained:
            known = nearest(net, method.trained)
            raise ConfigError(f"ema averages {net!r}, which is no trained network; {known}")


def named(sampler: Sampler, name: str) -> Sampler:
    """A sampler whose `draw` refuses to give anything but a dictionary.

    Args:
      sampler: the sampler.
      name: of the method's module.

    Raises:
      ConfigError: when `draw` does not take what it will be given.
    """
    keywords = ("z", "text", *(control.name for control in sampler.controls))
    try:
        inspect.signature(sampler.draw).bind(*("ctx", "rows", "keys"), **dict.fromkeys(keywords))
    except TypeError as error:
        raise ConfigError(
            f"Sampler.draw of {name} is called with (ctx, rows, keys, *, {', '.join(keywords)}), "
            f"every control by its name, and its own arguments are others: {error}"
        ) from None

    @functools.wraps(sampler.draw)
    def draw(ctx, rows, keys, **given):
        out = sampler.draw(ctx, rows, keys, **given)
        if not isinstance(out, Mapping):
            raise ConfigError(
                f"Sampler.draw of {name} gives {type(out).__name__}; expected a dictionary, such "
                'as {"image": [n, H, W, 3] in [-1, 1]}'
            )
        return out

    return dataclasses.replace(sampler, draw=draw)


def judged(method: Method) -> Callable:
    """A method's `score` that refuses to give anything but {name: scalar} of all of `better`."""

    @functools.wraps(method.score)
    def score(ctx, batch):
        with reading("score", batch):
            given = method.score(ctx, batch)
        if not isinstance(given, Mapping):
            raise ConfigError(
                f"score gives {type(given).__name__}; expected a dictionary {{name: scalar}}"
            )
        if apart := set(given) ^ set(method.better):
            raise ConfigError(
                f"score gives {', '.join(given) or 'nothing'}, and better says of "
                f"{', '.join(method.better) or 'nothing'} which way is good: {min(apart)!r} is in "
                "one of them alone"
            )
        refuse_shapes("score", given)
        return given

    return score


def refuse_shapes(who: str, given: Mapping[str, Any]) -> None:
    """Refuses what is no scalar.

    Raises:
      ConfigError: names it.
    """
    for name, x in given.items():
        if shape := jnp.shape(x):
            raise ConfigError(
                f"{who}: {name!r} has shape {shape}; expected a scalar, such as its mean"
            )


def scalars(player: Player) -> Callable:
    """A player's loss that refuses to give anything but (scalar, {metric name: scalar})."""

    @functools.wraps(player.loss)
    def loss(ctx, batch):
        given = player.loss(ctx, batch)
        who = f"the loss of player {player.name!r}"
        pair = isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], Mapping)
        if not pair:
            raise ConfigError(f"{who} gives no pair (loss, {{metric name: scalar}})")
        refuse_shapes(who, {"loss": given[0], **given[1]})
        return given

    return loss


def complete(method: Method) -> Callable:
    """A method's `init` that refuses to leave a network, or its parameters, out.

    It is traced once, although the shapes of a state, its weights and the frozen ones each ask.
    """

    @functools.partial(jax.jit, inline=True)
    @functools.wraps(method.init)
    def init(key: jax.Array, batch: dict) -> dict:
        variables = method.init(key, batch)
        if absent := [net for net in method.nets if net not in variables]:
            raise ConfigError(
                f"init gives no weights of {absent[0]!r}; it gives {', '.join(variables)}"
            )
        for net in method.trained:
            if "params" not in (given := variables[net]):
                raise ConfigError(
                    f"init gives of {net!r} {', '.join(given) or 'nothing'}; expected what its "
                    'module\'s init gives, {"params": ..., other collections}'
                )
        return variables

    return init


def known_outputs(shapes: Mapping[str, Any]) -> None:
    """Refuses what a sampler gives under a name that means nothing to those who draw.

    Args:
      shapes: {name: shape of one}.

    Raises:
      ConfigError: names it; also for an image that is none.
    """
    known = [*schema.FIELDS, *schema.VIEWS]
    image = shapes.get("image", (0, 0, 3))
    if len(image) != 3 or image[-1] != 3:
        raise ConfigError(
            f"the sampler gives an 'image' of shape {list(image)} a row; expected RGB, [H, W, 3]"
        )
    for name in shapes:
        if name not in known:
            raise ConfigError(
                f"the sampler gives {name!r}, neither a row nor a view of jaxt2i/data/schema.py; "
                f"{nearest(name, known)}"
            )
