"""A method is a set of networks, a short list of players, and a way to draw; nothing else.

A *player* is a loss over some of the networks with its own optimiser. GANs, pretraining,
sequence models and diffusion differ only in their players, so one engine plays them all.
"""

import contextlib
import copy
import dataclasses
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxt2i.config import WANTED, ConfigError, nearest

Batch = dict[str, jax.Array]
Tree = Any
# Names of the precision of products, as JAX calls them; None: as the platform multiplies.
PRODUCTS = {"default": None, "tensorfloat32": "tensorfloat32", "float32": "float32"}
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Player:
    """One loss with one optimiser.

    Attributes:
      name: short name; prefixes the player's metrics.
      nets: the networks this player updates.
      loss: (Ctx, Batch) -> (scalar, {metric name: scalar}).
      tx: optimiser over `{net: params}`.
      every: play only on steps divisible by this; > 1 is a lazy regulariser, a program of its own.
    """

    name: str
    nets: tuple[str, ...]
    loss: Callable[["Ctx", Batch], tuple[jax.Array, dict[str, jax.Array]]]
    tx: optax.GradientTransformation
    every: int = 1


@dataclasses.dataclass(frozen=True)
class Ema:
    """Exponential moving average of a network's parameters, its half-life counted in images.

    Attributes:
      half_life_images: images after which an old value counts half.
      rampup: at image n the half-life is at most rampup * n (None: no ramp-up), as in the
        StyleGAN family: early averages forget the initialisation quickly.
    """

    half_life_images: float
    rampup: float | None = 0.05

    def beta(self, images: jax.Array, batch_size: int) -> jax.Array:
        """Weight of the old average; `images` is the count before this step."""
        half_life = jnp.float32(self.half_life_images)
        if self.rampup is not None:
            half_life = jnp.minimum(half_life, self.rampup * images.astype(jnp.float32))
        return jnp.exp2(-batch_size / jnp.maximum(half_life, 1e-8))


@dataclasses.dataclass(frozen=True)
class Control:
    """A number or a choice that drawing takes beside its conditions.

    Its type is its cost: a float is data, one a picture; an int (how often a loop turns) is data,
    one a chunk of pictures; a bool or str is compiled in, a program for each value.

    Attributes:
      name: keyword of `Sampler.draw`.
      default: also says the type: float, int, bool or str.
      low, high: the range; None: open.
      choices: of a str.
      help: one line for the command line and the studio.
    """

    name: str
    default: float | int | bool | str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    help: str = ""

    def read(self, value: Any) -> float | int | bool | str:
        """A value of the command line, a file or a keyword, as this control's type.

        Raises:
          ConfigError: names the range or the choices.
        """
        kind, said = type(self.default), f"control {self.name}={value!r}"
        truth = {"true": True, "1": True, "false": False, "0": False}
        try:
            if kind is not bool and isinstance(value, bool):
                raise ValueError
            out = truth[str(value).lower()] if kind is bool else kind(value)
            if kind is int and out != float(value):
                raise ValueError
        except (KeyError, ValueError, TypeError, OverflowError):
            raise ConfigError(f"{said}: expected {WANTED.get(kind, 'a text')}") from None
        if self.choices and out not in self.choices:
            raise ConfigError(f"{said}: {nearest(str(out), self.choices)}")
        if kind is float and not math.isfinite(out):
            raise ConfigError(f"{said}: expected a finite number")
        low, high = self.low, self.high
        if (low is not None and out < low) or (high is not None and out > high):
            raise ConfigError(f"{said}: expected {low} to {high}".replace(" to None", " or more"))
        return out


@dataclasses.dataclass(frozen=True)
class Sampler:
    """How a method draws: pictures, or anything else that the batch schema has a row for.

    Attributes:
      draw: (Ctx, rows, keys, *, z, text, **controls) -> {name: [n, ...]}. `keys` [n] are made of
        the rows' seeds, `z` of the same keys by `latent`, `text` by `text`; every control comes by
        its name. Names are rows of the schema ("image" in [-1, 1], "boxes", ...) or of its `VIEWS`
        ("stages", "attention").
        Whoever draws calls it for one row (n = 1) under vmap: nothing can pass from one picture to
        another. It may use neither `ctx.rng` nor `train=True`.
      needs: the conditions, rows of the schema that `draw` or `text` reads.
      text: (Ctx, rows) -> floats of any tree, the part of the conditions that can be mixed.
      latent: key -> floats of any tree, without a row axis; what can be walked through.
      controls: the further keywords of `draw`.
      pixels: how [-1, 1] becomes bytes, a rule of `nn.pixels`.
      latents: what latents are drawn from, in words, where they are not plain normal.
      settle: (Ctx, rows) -> None on batches of training captions before pictures are drawn:
        running statistics in `ctx.extra` then belong to the averaged weights.
      settle_batches: how many of them.
      multiple: pixels; pictures may have any sides that are multiples of it. 0: training's alone.
    """

    draw: Callable[..., dict[str, Any]]
    needs: tuple[str, ...] = ("tokens", "token_mask")
    text: Callable[["Ctx", Batch], Any] | None = None
    latent: Callable[[jax.Array], Any] | None = None
    controls: tuple[Control, ...] = ()
    pixels: str = "stylegan"
    latents: str = ""
    settle: Callable[["Ctx", Batch], None] | None = None
    settle_batches: int = 100
    multiple: int = 0

    def code(self, ctx: "Ctx", rows: Batch, keys: jax.Array) -> dict[str, Any]:
        """{"z", "text"} of rows [n] and their keys [n]; None where the method has no such thing."""
        return {
            "z": jax.vmap(self.latent)(keys) if self.latent else None,
            "text": self.text(ctx, rows) if self.text else None,
        }

    def __call__(self, ctx: "Ctx", rows: Batch, keys: jax.Array, **given: Any) -> dict[str, Any]:
        """What `draw` gives of all rows at once, as losses and scores need it.

        Args:
          ctx: the networks.
          rows: holds `needs`.
          keys: [n].
          given: "z", "text" and controls that take the place of the rows' own and the defaults.
        """
        given = {c.name: c.default for c in self.controls} | given
        if "z" not in given:
            given["z"] = jax.vmap(self.latent)(keys) if self.latent else None
        if "text" not in given:
            given["text"] = self.text(ctx, rows) if self.text else None
        return self.draw(ctx, rows, keys, **given)


@dataclasses.dataclass(frozen=True)
class Method:
    """One system, ready to be played.

    Attributes:
      nets: every network, trained or frozen.
      players: played in this order; each sees what the earlier ones just updated.
      init: (key, Batch) -> {net: variables}, called under jit or eval_shape with a whole batch of
        zeros, of `needs` alone; networks rarely need more than a row of it.
      needs: batch keys that the losses read.
      score_needs: those that `score` reads beside them.
      sampler: how it draws; None: it draws nothing.
      frozen: networks that no player updates; gradients may still pass to their input.
      pretrained: {net: () -> variables} for networks that start from a file instead of `init`.
      starts: {trained network: (another one, (its fresh variables, the other's) -> variables)}:
        what it begins as, where it has no `pretrained` of its own.
      borrowed: frozen networks that an earlier run trained: they come from config.init_from.
      called: {network: another name that it may have in the run that config.init_from names}.
      lineage: {frozen network: the setting, below config, that borrows it} for those that an
        earlier run may have trained and this one does not borrow.
      ema: {net: Ema}.
      latents: network whose `encode` makes of pictures in [-1, 1] what latents the losses read
        instead of asking it, where the data has them: (mean, log variance); "": none does.
      vocab: token ids that the text encoder knows; 0 where it has none.
      score: (Ctx, Batch) -> {name: scalar} on one batch of config.score_images held-out examples,
        which holds `needs` and `score_needs`; what a short run improves.
      better: {score name: "higher" | "lower"}, the direction of improvement, of each score; the
        first of them chooses the best checkpoint.
      guided_by: frozen networks that both the losses and `score` show drawn pictures to: scores of
        a network that trains the run flatter it.
      mixes: what of its losses or networks looks across the examples of a batch, in words: only
        that is another thing in micro-batches.
      notes: lines printed when a run starts (which perception, what a real run needs).
      param_dtype: "float32", or "bfloat16": losses then get trained parameters that are rounded to
        it, and their gradients have it; networks compute with them as ever.
      matmul_precision: of products of float32 arrays, in losses, scores and drawing: "default"
        (bfloat16 or TF32 on accelerators), "tensorfloat32" or "float32".
      masters: the state holds these parameters in float32 all the same. False: in `param_dtype`,
        and an update of bfloat16 is rounded stochastically; see `nn.optim.apply_updates`.
    """

    nets: Mapping[str, nn.Module]
    players: tuple[Player, ...]
    init: Callable[[jax.Array, Batch], dict[str, Tree]]
    needs: tuple[str, ...]
    score_needs: tuple[str, ...] = ()
    sampler: Sampler | None = None
    frozen: tuple[str, ...] = ()
    pretrained: Mapping[str, Callable[[], Tree]] = dataclasses.field(default_factory=dict)
    starts: Mapping[str, tuple[str, Callable]] = dataclasses.field(default_factory=dict)
    borrowed: tuple[str, ...] = ()
    called: Mapping[str, str] = dataclasses.field(default_factory=dict)
    lineage: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ema: Mapping[str, Ema] = dataclasses.field(default_factory=dict)
    latents: str = ""
    vocab: int = 0
    score: Callable[["Ctx", Batch], dict[str, jax.Array]] | None = None
    better: Mapping[str, str] = dataclasses.field(default_factory=dict)
    guided_by: tuple[str, ...] = ()
    mixes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    param_dtype: str = "float32"
    masters: bool = True
    matmul_precision: str = "default"

    def __post_init__(self):
        for name, known in (("matmul_precision", PRODUCTS), ("param_dtype", DTYPES)):
            if (value := getattr(self, name)) not in known:
                raise ConfigError(f"config.{name}={value!r}; expected one of {', '.join(known)}")
        for player in self.players:
            for net in player.nets:
                if net not in self.nets or net in self.frozen:
                    raise ConfigError(
                        f"player {player.name!r} updates {net!r}, which is "
                        f"{'frozen' if net in self.frozen else 'not a network of the method'}; "
                        f"trainable: {sorted(set(self.nets) - set(self.frozen))}"
                    )

    @property
    def scored(self) -> tuple[str, ...]:
        """Batch keys that `score` reads."""
        return *self.needs, *self.score_needs

    def products(self) -> Any:
        """A context in which what is traced multiplies as `matmul_precision` says."""
        return jax.default_matmul_precision(PRODUCTS[self.matmul_precision])

    @property
    def trained(self) -> tuple[str, ...]:
        """The networks whose weights are part of the state."""
        return tuple(n for n in self.nets if n not in self.frozen)

    @property
    def stored_dtype(self) -> str:
        """The dtype of trained parameters in the state."""
        return "float32" if self.masters else self.param_dtype


class Ctx:
    """What a loss sees of the world: networks by name, named randomness, the step.

    Calling `ctx(net, *args, **kw)` applies a network with its current weights. With `train=True`
    among the keywords its mutable collections (running means, spectral vectors) advance, and the
    next call of the same network sees them advanced.

    Args:
      method: the method.
      params: {net: parameters} of trained networks.
      extra: {net: {collection: tree}}.
      frozen: {net: variables} of frozen networks.
      key: of everything random; None while drawing, which takes its keys from the rows.
      step: steps played before.
      batch_size, total_steps: of the run.
      trained: networks that the player updates.
      memory: what the players of one step share.
    """

    def __init__(
        self,
        method: Method,
        params: Mapping[str, Tree],
        extra: Mapping[str, Tree],
        frozen: Mapping[str, Tree],
        *,
        key: jax.Array | None,
        step: jax.Array | int = 0,
        batch_size: int = 1,
        total_steps: int = 1,
        trained: tuple[str, ...] = (),
        memory: dict[str, Any] | None = None,
        draws: Mapping[str, Any] | None = None,
    ):
        self._method, self._params, self._frozen, self._key = method, params, frozen, key
        self._trained, self._memory = trained, memory
        self.extra, self.draws = dict(extra), draws or {}
        self.step = step
        self._batch_size, self._total_steps = batch_size, total_steps

    def __call__(self, net: str, *args, rngs: Mapping[str, jax.Array] | None = None, **kw):
        if self._key is None and kw.get("train"):
            raise ConfigError(
                f"drawing calls {net!r} with train=True, which would let one picture change the "
                "next; call it with train=False"
            )
        module = self._method.nets[net]
        if net in self._frozen:
            return module.apply(self._frozen[net], *args, rngs=rngs, **kw)
        if net not in self._params:
            raise ConfigError(
                f"the network {net!r} is needed and not there; there are {', '.join(self._params)}"
            )
        extra = self.extra.get(net, {})
        # A rounded parameter is a float32 one with few digits: nothing else is less precise.
        variables = {"params": cast(self._params[net], "float32"), **extra}
        if not (kw.get("train") and extra):
            return module.apply(variables, *args, rngs=rngs, **kw)
        out, changed = module.apply(variables, *args, rngs=rngs, mutable=list(extra), **kw)
        # Statistics are state, not a path for gradients.
        self.extra[net] = jax.lax.stop_gradient({**extra, **changed})
        return out

    def shared(self, name: str, net: str, function: Callable[["Ctx"], Tree]) -> Tree:
        """What function(ctx) gives, computed once a step for several players.

        All but the last of them hold `net` still, the last one may train it. The compiler merges
        equal passes of two players by itself, but not where they are loops over layers or
        normalise. Here the first player keeps how to differentiate its pass, and the last one
        uses that. `net` must not move between them. Collections that the pass advances advance
        once a step; where nothing is shared (micro-batches), once a player.

        Args:
          name: of the pass; equal names are the same pass.
          net: the network whose parameters the last player differentiates by.
          function: reads networks through the context that it is given.
        """

        def run(params: Tree) -> tuple[Tree, Mapping[str, Tree]]:
            inner = copy.copy(self)
            inner._params, inner.extra = {**self._params, net: params}, dict(self.extra)
            return function(inner), inner.extra

        params = self._params[net]
        if self._memory is None or (name not in self._memory and net in self._trained):
            outputs, self.extra = run(params)
            return outputs
        if name not in self._memory:
            outputs, pull_back, self.extra = jax.vjp(run, params, has_aux=True)
            self._memory[name] = outputs, pull_back
        outputs, pull_back = self._memory[name]
        if net not in self._trained:
            return outputs
        again = jax.custom_vjp(lambda params: outputs)
        again.defvjp(lambda params: (outputs, None), lambda _, cotangents: pull_back(cotangents))
        return again(params)

    def rng(self, name: str) -> jax.Array:
        """A key for this name in this step: the same name is the same draw for every player."""
        if self._key is None:
            raise ConfigError(
                f"drawing asks for ctx.rng({name!r}), which all pictures would share; derive it "
                "from the row's own key"
            )
        return jax.random.fold_in(self._key, zlib.crc32(name.encode()))

    def draw(self, name: str, function: Callable[[jax.Array], Any]) -> Any:
        """function(self.rng(name)), or what the caller gave for this name: a published draw."""
        return self.draws[name] if name in self.draws else function(self.rng(name))

    @property
    def images(self) -> jax.Array:
        """Real images seen before this step."""
        return jnp.asarray(self.step, jnp.float32) * self._batch_size

    @property
    def progress(self) -> jax.Array:
        """Share of the run that is over, 0 to 1."""
        return jnp.asarray(self.step, jnp.float32) / max(self._total_steps, 1)


@contextlib.contextmanager
def reading(who: str, batch: Batch) -> Iterator[None]:
    """Around what reads a batch: a key that is not in it becomes a sentence.

    Raises:
      ConfigError: names the key.
    """
    try:
        yield
    except KeyError as error:
        key = error.args[0] if error.args else None
        if not isinstance(key, str) or key in batch:
            raise
        raise ConfigError(
            f"{who} looks up {key!r}; if that is a row of the batch, `needs` must name it "
            f"(it names {', '.join(batch)}); if it is a network, `nets` must"
        ) from error


def cast(tree: Tree, dtype: str) -> Tree:
    """A tree of floating-point arrays in another dtype."""
    return jax.tree.map(lambda x: x.astype(dtype), tree)
