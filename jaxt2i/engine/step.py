"""The step: all players that play every step in one program, each lazy player in its own.

A generator's forward pass with the same noise in two players is the same computation inside one
program, so the compiler does it once.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from jaxt2i.config import ConfigError
from jaxt2i.engine.mesh import Layout
from jaxt2i.engine.method import Batch, Ctx, Method, Player, Tree, cast, reading
from jaxt2i.engine.state import State, step_key
from jaxt2i.nn import fastest, optim

Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Rules:
    """How steps are played.

    Attributes:
      seed: with the step number it makes every key.
      batch_size: global batch.
      total_steps: length of the run, for `ctx.progress`.
      accumulate: micro-batches whose gradients are averaged before a player's update. Statistics
        over a batch (batch norm, negatives, groups) then see one micro-batch at a time.
      skip_nonfinite: leave everything but the step number unchanged when a player's loss or
        gradient is not finite, and count it.
    """

    seed: int
    batch_size: int
    total_steps: int
    accumulate: int = 1
    skip_nonfinite: bool = False

    def __post_init__(self):
        if self.batch_size % self.accumulate:
            raise ConfigError(
                f"config.batch_size={self.batch_size} is not divisible by "
                f"config.accumulate={self.accumulate}"
            )


def as_it_is(tree: Tree) -> Tree:
    """On one device nothing is gathered or scattered."""
    return tree


def split(batch: Batch, parts: int) -> Batch:
    """[B, ...] -> [parts, B / parts, ...], every parts-th example to one part.

    Striding keeps each device's examples on it; contiguous parts would move them all.
    """

    def strided(x):
        return jnp.swapaxes(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 0, 1)

    return jax.tree.map(strided, batch)


def gradients(method, player, rules, state, frozen, batch, key, memory, layout):
    """((loss, (extra, metrics)), gradients) of a player, by the key of the step; else as `play`."""
    gather, scatter = (layout.gather, layout.scatter) if layout else (as_it_is, as_it_is)
    # All networks alike: what one player draws then is what the next one draws.
    params = gather({"params": cast(state.params, method.param_dtype)})["params"]

    def loss(trained, extra, micro_batch, key):
        ctx = Ctx(
            method,
            {**params, **trained},
            extra,
            frozen,
            key=key,
            step=state.step,
            batch_size=rules.batch_size,
            total_steps=rules.total_steps,
            trained=player.nets,
            memory=memory,
        )
        with reading(f"the loss of player {player.name!r}", micro_batch), method.products():
            value, metrics = player.loss(ctx, micro_batch)
        return value.astype(jnp.float32), (ctx.extra, metrics)

    def gradient(*args):
        out, grads = jax.value_and_grad(loss, has_aux=True)(*args)
        return out, scatter({"params": cast(grads, "float32")})["params"]

    trained = {net: params[net] for net in player.nets}
    if rules.accumulate == 1:
        return gradient(trained, state.extra, batch, key)

    def turn(carry, part):
        (extra, total), (index, micro_batch) = carry, part
        (value, (extra, metrics)), grads = gradient(
            trained, extra, micro_batch, jax.random.fold_in(key, index)
        )
        return (extra, jax.tree.map(jnp.add, total, grads)), (value, metrics)

    parts = (jnp.arange(rules.accumulate), split(batch, rules.accumulate))
    zeros = jax.tree.map(jnp.zeros_like, cast(trained, "float32"))
    start = (state.extra, scatter({"params": zeros})["params"])
    (extra, total), logs = jax.lax.scan(turn, start, parts)
    value, metrics = jax.tree.map(lambda x: x.mean(0), logs)
    return (value, (extra, metrics)), jax.tree.map(lambda g: g / rules.accumulate, total)


def play(
    method: Method,
    player: Player,
    rules: Rules,
    state: State,
    frozen: Mapping[str, Tree],
    batch: Batch,
    memory: dict | None = None,
    layout: Layout | None = None,
) -> tuple[State, Metrics, jax.Array]:
    """One player's turn.

    Args:
      method: the method.
      player: whose turn it is.
      rules: how steps are played.
      state: the state; `state.step` counts the steps before this one.
      frozen: frozen weights.
      batch: device arrays.
      memory: what the players of one step share, see `Ctx.shared`; None: nothing.
      layout: see `make`; frozen weights come gathered.

    Returns:
      (state, metrics, whether the loss and all gradients are finite).
    """
    key = step_key(rules.seed, state.step)
    (value, (extra, metrics)), grads = gradients(
        method, player, rules, state, frozen, batch, key, memory, layout
    )
    held = {net: state.params[net] for net in player.nets}
    updates, opt = player.tx.update(grads, state.opt[player.name], cast(held, "float32"))
    norms = {net: optax.tree.norm(grads[net]) for net in player.nets}
    finite = jnp.stack([jnp.isfinite(x) for x in (value, *norms.values())]).all()
    logs = {"loss": value, **metrics, **{f"grad_norm/{net}": x for net, x in norms.items()}}
    logs = {f"{player.name}/{name}": x for name, x in logs.items()}
    state = state.replace(
        params={**state.params, **optim.apply_updates(held, updates, key, player.name)},
        extra=extra,
        opt={**state.opt, player.name: opt},
    )
    return state, logs, finite


def averaged(method: Method, rules: Rules, state: State) -> State:
    """Moves every running average towards the parameters the step has just made."""
    images = state.step.astype(jnp.float32) * rules.batch_size
    ema = {}
    for net, rule in method.ema.items():
        beta = rule.beta(images, rules.batch_size)
        ema[net] = jax.tree.map(
            lambda old, new, beta=beta: new + beta * (old - new),
            state.ema[net],
            cast(state.params[net], "float32"),
        )
    return state.replace(ema=ema)


def make(method: Method, rules: Rules, layout: Layout | None = None) -> dict[int, Callable]:
    """The programs of a step, not yet compiled.

    Args:
      method: the method.
      rules: how steps are played.
      layout: where weights live; None: on one device.

    Returns:
      {every: (state, frozen, batch) -> (state, metrics)}. Program 1 plays all players that play
      every step, averages, and counts the step. Program k > 1 plays the lazy players of period k
      after it, on steps that k divides (the first step included). Metrics hold scalars, and
      "finite": one flag a player.
    """
    programs = {}
    for every in sorted({1, *(p.every for p in method.players)}):
        players = [p for p in method.players if p.every == every]

        def program(state, frozen, batch, players=players, every=every):
            before = state
            if every > 1:  # program 1 has already counted this step
                state = state.replace(step=state.step - 1)
            logs, flags, frozen = {}, [], layout.gather(frozen) if layout else frozen
            # Micro-batches are played one player after the other: they have nothing to share.
            memory = {} if rules.accumulate == 1 else None
            for player in players:
                state, own, fine = play(method, player, rules, state, frozen, batch, memory, layout)
                logs |= own
                flags.append(fine)
            if every == 1:
                state = averaged(method, rules, state)
            state = state.replace(step=state.step + 1)
            if rules.skip_nonfinite and flags:
                good = jnp.stack(flags).all()
                kept = before.replace(step=state.step)
                state = jax.tree.map(lambda new, old: jnp.where(good, new, old), state, kept)
                logs["skipped"] = 1 - good.astype(jnp.float32)
            return state, {**logs, "finite": jnp.stack(flags) if flags else jnp.ones((0,), bool)}

        programs[every] = fastest.split_like(layout.rows)(program) if layout else program
    return programs


def first_bad_net(state: State) -> str | None:
    """The first network that holds a value that is not finite, by name."""
    for net, params in state.params.items():
        tree = (params, state.extra.get(net, {}))
        floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
        if not all(bool(jnp.isfinite(x).all()) for x in floats):
            return net
    return None
