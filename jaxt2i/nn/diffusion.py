"""Diffusion around any network that predicts noise: schedule, training pairs, guidance, sampling.

Networks see x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps. The loop of sampling is one program for
every number of steps, guidance and eta, which may all be traced.

Sources: Ho et al. 2020 (arXiv 2006.11239), Song et al. 2021 (DDIM, arXiv 2010.02502), Ho and
Salimans 2022 (guidance, arXiv 2207.12598), Karras et al. 2022 (Euler in noise levels, arXiv
2206.00364), Lu et al. 2022 (DPM-Solver++, arXiv 2211.01095); settings of Stable Diffusion 1.5.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.config import ConfigError, nearest

# (x [n, ...], t [n]) -> what the network predicts, like x.
Predict = Callable[[jax.Array, jax.Array], jax.Array]
CURVES = ("scaled_linear", "linear")
PREDICTIONS = ("epsilon", "v_prediction")
SOLVERS = ("ddim", "euler", "dpmpp_2m")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How much noise step t of training holds; the defaults are Stable Diffusion 1.5's.

    Attributes:
      length: steps of training; t runs from 0 to length - 1.
      beta_start, beta_end: added variance of the first and the last step.
      curve: "scaled_linear": square roots of the variances are linear in t; "linear": they are.
      offset: added to the timesteps of sampling ("leading" spacing).
      final_one: DDIM's last step goes to abar 1; False: to that of t = 0, so that a trace of noise
        stays.
      prediction: "epsilon": the noise; "v_prediction": sqrt(abar) eps - sqrt(1 - abar) x_0.
      clip: sampling keeps the clean picture within [-clip, clip], for pixels, whose range is known
        (Ho et al. 2020; strong guidance leaves it); 0: no bounds, for latents.
    """

    length: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    curve: str = "scaled_linear"
    offset: int = 1
    final_one: bool = False
    prediction: str = "epsilon"
    clip: float = 0.0

    def __post_init__(self):
        for name, known in (("curve", CURVES), ("prediction", PREDICTIONS)):
            if (value := getattr(self, name)) not in known:
                raise ConfigError(f"schedule.{name}={value!r}: {nearest(value, known)}")
        if not (self.length >= 1 and 0 < self.beta_start <= self.beta_end < 1):
            raise ConfigError(
                f"schedule: length={self.length}, betas {self.beta_start} to {self.beta_end}; "
                "expected at least one step and 0 < beta_start <= beta_end < 1"
            )

    @functools.cached_property
    def betas(self) -> np.ndarray:
        """[length], float64."""
        power = 2 if self.curve == "scaled_linear" else 1
        ends = self.beta_start ** (1 / power), self.beta_end ** (1 / power)
        return np.linspace(*ends, self.length) ** power

    @functools.cached_property
    def abar(self) -> np.ndarray:
        """[length], float64: share of the picture's variance that is left at t."""
        return np.cumprod(1 - self.betas)

    def at(self, t: jax.Array | int) -> jax.Array:
        """The abar of steps t, float32; beyond the last step that of the last."""
        table = jnp.asarray(self.abar, jnp.result_type(float))
        return table[jnp.clip(t, 0, self.length - 1)]

    def timestep(self, number: jax.Array | int, steps: jax.Array | int) -> jax.Array | int:
        """The t of step `number` (0 is the first, of most noise) of `steps`, "leading" spacing."""
        return (steps - 1 - number) * (self.length // steps) + self.offset

    def timesteps(self, steps: int) -> np.ndarray:
        """[steps], falling."""
        if not 1 <= steps <= self.length:
            raise ConfigError(f"{steps} steps of sampling; expected 1 to {self.length}")
        return np.asarray(self.timestep(np.arange(steps), steps))


def ending(space: str) -> dict[str, float | bool]:
    """Fields of `Schedule` that say how sampling ends: as Stable Diffusion does in "latent" space;
    pixels keep their range and no trace of noise, which would be seen as grain.
    """
    return {"clip": 1.0, "final_one": True} if space == "pixels" else {}


def like(value: jax.Array, x: jax.Array) -> jax.Array:
    """[n] or () with axes behind it, to be multiplied by x [n, ...]."""
    return jnp.reshape(value, jnp.shape(value) + (1,) * (x.ndim - jnp.ndim(value)))


def add_noise(schedule: Schedule, x: jax.Array, noise: jax.Array, t: jax.Array) -> jax.Array:
    """x_t of pictures x [n, ...] at steps t [n], or at one step."""
    abar = like(schedule.at(t), x)
    return jnp.sqrt(abar) * x + jnp.sqrt(1 - abar) * noise


def velocity(schedule: Schedule, x: jax.Array, noise: jax.Array, t: jax.Array) -> jax.Array:
    """sqrt(abar) noise - sqrt(1 - abar) x (Salimans and Ho 2022, arXiv 2202.00512)."""
    abar = like(schedule.at(t), x)
    return jnp.sqrt(abar) * noise - jnp.sqrt(1 - abar) * x


def target(schedule: Schedule, x: jax.Array, noise: jax.Array, t: jax.Array) -> jax.Array:
    """What the network is to predict of x_t."""
    return noise if schedule.prediction == "epsilon" else velocity(schedule, x, noise, t)


def split(abar: jax.Array, x: jax.Array, guess: jax.Array, prediction: str) -> tuple:
    """(clean picture, noise) that a prediction says x consists of."""
    a, s = jnp.sqrt(abar), jnp.sqrt(1 - abar)
    if prediction == "v_prediction":
        return a * x - s * guess, s * x + a * guess
    return (x - s * guess) / a, guess


def clipped(abar: jax.Array, x: jax.Array, clean: jax.Array, most: float) -> tuple:
    """(clean picture within [-most, most], noise that x then consists of)."""
    clean = jnp.clip(clean, -most, most)
    return clean, left(abar, x, clean)


def left(abar: jax.Array, x: jax.Array, clean: jax.Array) -> jax.Array:
    """The noise that x consists of beside a clean picture."""
    return (x - jnp.sqrt(abar) * clean) / jnp.sqrt(1 - abar)


def guide(without: jax.Array, asked: jax.Array, weight: jax.Array | float) -> jax.Array:
    """Classifier-free guidance: weight 1 is the text alone, more is further from `without`."""
    return without + like(weight, without) * (asked - without)


def guided(
    network: Callable[..., jax.Array],
    without: jax.Array,
    asked: jax.Array,
    weight: jax.Array | float,
    *both: jax.Array,
) -> Predict:
    """A predictor that asks the network with and without the text, in one pass of twice the rows.

    Args:
      network: (x [2n, ...], t [2n], text [2n, ...], *both [2n, ...]) -> prediction [2n, ...].
      without: text codes [n, ...] of the empty or negative caption.
      asked: of the asked one.
      weight: () or [n].
      both: further conditions [n, ...], the same in both halves.
    """
    text = jnp.concatenate([without, asked])
    rest = [jnp.concatenate([c, c]) for c in both]

    def predict(x: jax.Array, t: jax.Array) -> jax.Array:
        guess = network(jnp.concatenate([x, x]), jnp.concatenate([t, t]), text, *rest)
        return guide(guess[: len(x)], guess[len(x) :], weight)

    return predict


# --- Sampling ----------------------------------------------------------------------------------


class Sampling(NamedTuple):
    """Where sampling is.

    Attributes:
      x: [n, ...].
      guess: what was predicted in the step before.
      clean: the picture that this prediction meant.
    """

    x: jax.Array
    guess: jax.Array
    clean: jax.Array


def ddim_sigma(abar, then, eta) -> jax.Array:
    """Standard deviation of the noise that a step from abar to `then` adds."""
    return eta * jnp.sqrt((1 - then) / (1 - abar) * (1 - abar / then))


def ddim(abar, then, clean, eps, eta, noise) -> jax.Array:
    """One step from abar to `then`, both []; eta 0 is deterministic, 1 as random as DDPM."""
    sigma = ddim_sigma(abar, then, eta)
    across = jnp.sqrt(jnp.maximum(1 - then - sigma**2, 0))
    return jnp.sqrt(then) * clean + across * eps + sigma * noise


def dpmpp_2m(abar, then, before, x, clean, last, eta, noise) -> jax.Array:
    """One step of DPM-Solver++(2M): the clean picture is extrapolated from the last two.

    Args:
      abar: [] of this step's start.
      then: of its end; 1 in a last step, which is of first order.
      before: of the last step's start; equal to `abar` in a first step, which is, too.
      x: the sample.
      clean: the picture that this prediction means.
      last: that of the step before.
      eta: 0: the ordinary equation; 1: the stochastic one (midpoint form).
      noise: standard normal, like x.
    """
    level = lambda a: jnp.sqrt((1 - a) / a)  # noqa: E731
    now, goal = level(abar), level(then)
    # In log noise; behind the last step, whose level is 0, it would be infinite.
    h = jnp.log(now / jnp.maximum(goal, 1e-12))
    ratio = jnp.log(jnp.maximum(level(before) / now, 1.0)) / h
    second = (before < abar) & (then < 1)
    slope = jnp.where(second, 0.5 / jnp.where(second, ratio, 1.0), 0.0)
    reached = -jnp.expm1(-(1 + eta) * h)
    mean = goal / now * jnp.exp(-eta * h) * x / jnp.sqrt(abar)
    mean += reached * (clean + slope * (clean - last))
    return jnp.sqrt(then) * (mean + goal * jnp.sqrt(-jnp.expm1(-2 * eta * h)) * noise)


def stepping(
    predict: Predict,
    steps: jax.Array | int,
    *,
    schedule: Schedule = Schedule(),
    solver: str = "ddim",
    eta: jax.Array | float = 0.0,
    noise: Callable[[jax.Array], jax.Array] | None = None,
    known: Callable[[jax.Array], jax.Array] | None = None,
) -> Callable[[jax.Array | int, Sampling], Sampling]:
    """(number of a step, where sampling is) -> where it is after the step.

    Args:
      predict: the network, with its conditions.
      steps: of the whole sampling, 1 to schedule.length; may be traced.
      schedule: of training.
      solver: "ddim"; "euler": the same steps in noise levels, which end at no noise at all
        (DDIM's end where `final_one` says); "dpmpp_2m": second order, ends at none, too.
      eta: how random, 0 to 1; may be traced.
      noise: number of the step -> standard normal like x; None: eta counts as 0.
      known: the clean picture that a prediction means -> the same with what is known of it in its
        place; None: nothing is.

    Raises:
      ConfigError: there is no such solver.
    """
    if solver not in SOLVERS:
        raise ConfigError(f"solver={solver!r}: {nearest(solver, SOLVERS)}")
    last = 1.0 if schedule.final_one or solver != "ddim" else schedule.at(0)
    eta = eta if noise else 0.0

    def turn(number: jax.Array | int, so_far: Sampling) -> Sampling:
        x = so_far.x
        t = schedule.timestep(number, steps)
        abar, ahead = schedule.at(t), t - schedule.length // steps
        final = (ahead < 0) | (number == steps - 1) if solver != "ddim" else ahead < 0
        then = jnp.where(final, last, schedule.at(ahead))
        guess = predict(x, jnp.full(len(x), t))
        clean, eps = split(abar, x, guess, schedule.prediction)
        if schedule.clip:
            clean, eps = clipped(abar, x, clean, schedule.clip)
        if known:
            clean = known(clean)
            eps = left(abar, x, clean)
        fresh = noise(number) if noise else jnp.zeros_like(x)
        if solver == "dpmpp_2m":
            before = schedule.at(jnp.where(number > 0, t + schedule.length // steps, t))
            x = dpmpp_2m(abar, then, before, x, clean, so_far.clean, eta, fresh)
        else:
            x = ddim(abar, then, clean, eps, eta, fresh)
        return Sampling(x, guess, clean)

    return turn


def sample(predict: Predict, x: jax.Array, steps: jax.Array | int, **how) -> jax.Array:
    """Samples [n, ...] from noise x [n, ...].

    Args:
      predict: the network, with its conditions.
      x: standard normal.
      steps: how often the network is asked; may be traced.
      how: keywords of `stepping`.
    """
    turn = stepping(predict, steps, **how)
    return jax.lax.fori_loop(0, steps, turn, Sampling(x, jnp.zeros_like(x), jnp.zeros_like(x))).x


def fresh_noise(keys: jax.Array, shape: tuple[int, ...]) -> Callable[[jax.Array], jax.Array]:
    """`noise` of `stepping` from the keys [n] of rows: each picture has its own, in every step."""

    def noise(number: jax.Array) -> jax.Array:
        own = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
        return jax.vmap(lambda key: jax.random.normal(key, shape))(own)

    return noise
