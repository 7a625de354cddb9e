"""What the folders of DF-GAN and GALIP share: two players, and a step of both."""

from collections.abc import Callable
from typing import Any

import jax

from jaxt2i.engine.method import Player
from jaxt2i.nn.optim import Adam
from jaxt2i.verify.arrays import Arrays, nchw, picture
from jaxt2i.verify.step import Networks


def train_step(case, at: Networks, game: Any, fake: Callable) -> Arrays:
    """One step of the engine: the discriminator's Adam, then the generator's.

    Args:
      case: stores parameters behind the step as "out_after_KEY", perhaps with a stride.
      at: networks "g", "d" and "c".
      game: has `d_loss` and `g_loss`.
      fake: (game, ctx, batch) -> the generator's pictures.
    """
    players = (
        Player("d", ("d", "c"), game.d_loss, Adam(lr=4e-4, b1=0.0, b2=0.9).tx()),
        Player("g", ("g",), game.g_loss, Adam(lr=1e-4, b1=0.0, b2=0.9).tx()),
    )
    run = at.start(players)
    metrics = run.step()
    named = at.named(run.state.params)
    image: jax.Array = run.see(lambda *a: fake(game, *a))
    start = "out_after_"
    after = {k: named[k.removeprefix(start)].reshape(-1) for k in case.outputs if start in k}
    return after | {
        "out_errD": metrics["d/loss"],
        "out_errG_after_D_step": metrics["g/loss"],
        "out_image_after": picture(nchw(image), (1, 2), 9),
    }
