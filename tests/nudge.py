"""A step without losses, for tests of what surrounds steps: nothing large is compiled."""

import jax
import jax.numpy as jnp

from jaxt2i.engine import step as steps


def nudge(method, rules, layout=None):
    """Like `steps.make`; in its programs each player adds a hundredth to what it trains.

    Averages follow, and the step counts, as ever.
    """

    def program(state, frozen, batch):
        nets = {net for player in method.players for net in player.nets}
        params = {
            net: jax.tree.map(lambda x: x + jnp.asarray(0.01, x.dtype), tree)
            if net in nets
            else tree
            for net, tree in state.params.items()
        }
        state = steps.averaged(method, rules, state.replace(params=params))
        logs = {f"{player.name}/loss": jnp.zeros(()) for player in method.players}
        finite = jnp.ones(len(method.players), bool)
        return state.replace(step=state.step + 1), {**logs, "finite": finite}

    return {1: program}
