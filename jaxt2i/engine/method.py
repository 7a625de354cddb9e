"""A method is a set of networks and a short list of players; nothing else.

A *player* is a loss over some of the networks with its own optimiser. GANs, pretraining,
sequence models and diffusion differ only in their players, so one engine plays them all.
"""

import copy
import dataclasses
import difflib
import importlib
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

Batch = dict[str, jax.Array]
Tree = Any

# What a block of a network keeps for the backward pass; the rest is computed again.
POLICIES = {
    # nothing: its inputs are enough
    "full": jax.checkpoint_policies.nothing_saveable,
    # results of convolutions and matrix products: what is cheap is computed again
    "products": jax.checkpoint_policies.dots_saveable,
    # of matrix products without a batch axis alone: of dense layers, not of attention
    "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
DTYPES = ("float32", "bfloat16")


class ConfigError(ValueError):
    """The configuration asks for something impossible; the message names the line and the fix."""


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
class Method:
    """One system, ready to be played.

    Attributes:
      nets: every network, trained or frozen.
      players: played in this order; each sees what the earlier ones just updated.
      init: (key, Batch) -> {net: variables}, called under jit or eval_shape.
      sample: (Ctx, Batch, keys, *, z=None, text=None, **controls) -> {"image": [B,H,W,3] in
        [-1, 1], ...}; `keys` holds one key an image, so that an image does not depend on the
        batch it is drawn in. None: the method draws no pictures.
      needs: batch keys that the losses read.
      sample_needs: batch keys that `sample` reads.
      frozen: networks that no player updates; gradients may still pass to their input.
      pretrained: {net: () -> variables} for networks that start from a file instead of `init`.
      borrowed: frozen networks that an earlier run trained: they come from config.init_from.
      ema: {net: Ema}.
      text: (Ctx, Batch) -> Text, the conditioning that `sample` takes as `text`.
      latent: key -> the latent that `sample` draws with this key, which it also takes as `z`.
      quantize: floats in [-1, 1] to uint8 on the host, as the original wrote its pictures; None:
        as the StyleGAN family does.
      settle: (Ctx, Batch) -> None, played on batches of captions with the averaged weights before
        pictures are drawn: running statistics in `ctx.extra` then belong to those weights.
      settle_batches: how many of them.
      vocab: token ids that the text encoder knows; 0 where it has none.
      controls: further keywords of `sample`, such as "psi".
      score: (Ctx, Batch) -> {name: scalar} on a held-out batch; what a short run improves.
      better: {score name: "higher" | "lower"}, the direction of improvement.
      notes: lines printed when a run starts (which perception, what a real run needs).
      param_dtype: "float32", or "bfloat16": losses then get trained parameters that are rounded to
        it, and their gradients have it; networks compute with them as ever.
      masters: the state holds these parameters in float32 all the same. False: in `param_dtype`,
        and an update of bfloat16 is rounded stochastically; see `optim.apply_updates`.
    """

    nets: Mapping[str, nn.Module]
    players: tuple[Player, ...]
    init: Callable[[jax.Array, Batch], dict[str, Tree]]
    needs: tuple[str, ...]
    sample: Callable[..., dict[str, jax.Array]] | None = None
    sample_needs: tuple[str, ...] = ("tokens", "token_mask")
    frozen: tuple[str, ...] = ()
    pretrained: Mapping[str, Callable[[], Tree]] = dataclasses.field(default_factory=dict)
    borrowed: tuple[str, ...] = ()
    ema: Mapping[str, Ema] = dataclasses.field(default_factory=dict)
    text: Callable[["Ctx", Batch], Any] | None = None
    latent: Callable[[jax.Array], jax.Array] | None = None
    quantize: Callable[[np.ndarray], np.ndarray] | None = None
    settle: Callable[["Ctx", Batch], None] | None = None
    settle_batches: int = 100
    controls: tuple[str, ...] = ()
    vocab: int = 0
    score: Callable[["Ctx", Batch], dict[str, jax.Array]] | None = None
    better: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    param_dtype: str = "float32"
    masters: bool = True

    def __post_init__(self):
        if self.param_dtype not in DTYPES:
            raise ConfigError(
                f"config.param_dtype={self.param_dtype!r}; expected one of {', '.join(DTYPES)}"
            )
        for player in self.players:
            for net in player.nets:
                if net not in self.nets or net in self.frozen:
                    raise ConfigError(
                        f"player {player.name!r} updates {net!r}, which is "
                        f"{'frozen' if net in self.frozen else 'not a network of the method'}; "
                        f"trainable: {sorted(set(self.nets) - set(self.frozen))}"
                    )

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
    """

    def __init__(
        self,
        method: Method,
        params: Mapping[str, Tree],
        extra: Mapping[str, Tree],
        frozen: Mapping[str, Tree],
        *,
        key: jax.Array,
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
        module = self._method.nets[net]
        if net in self._frozen:
            return module.apply(self._frozen[net], *args, rngs=rngs, **kw)
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


def cast(tree: Tree, dtype: str) -> Tree:
    """A tree of floating-point arrays in another dtype."""
    return jax.tree.map(lambda x: x.astype(dtype), tree)


def fields(cls: type, mapping: Mapping[str, Any], where: str) -> Any:
    """Builds a dataclass from a config section, refusing keys that it does not have.

    Args:
      cls: a dataclass.
      mapping: the section.
      where: the section's name in messages, such as "config.model".

    Raises:
      ConfigError: names the unknown key and the nearest valid one, or the missing ones.
    """
    known = {f.name: f for f in dataclasses.fields(cls)}
    for key in mapping:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {where}.{near[0]}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"{where}.{key} is not a setting of {cls.__name__}; {hint}")
    missing = [
        n
        for n, f in known.items()
        if n not in mapping
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)}, which {cls.__name__} needs")
    return cls(**mapping)


def load(config: Any) -> Method:
    """Builds the method that a config names.

    Args:
      config: a ConfigDict whose `method` is the dotted path of a module with `build(config)`, or of
        a folder with such a `method.py`.

    Raises:
      ConfigError: when there is no such module, or it has no `build`; for impossible values of
        the settings that every method has.
    """
    try:
        module = importlib.import_module(config.method)
        if not hasattr(module, "build"):  # a folder: its file is called method.py
            module = importlib.import_module(f"{config.method}.method")
    except ModuleNotFoundError as error:
        if error.name and config.method.startswith(error.name):
            raise ConfigError(
                f"config.method={config.method!r}: no module {error.name!r}; give the dotted path "
                "of a module with a function build(config), such as jaxt2i.systems.stylegan_t"
            ) from None
        raise
    if not hasattr(module, "build"):
        raise ConfigError(f"config.method={config.method!r}: the module has no build(config)")
    method = module.build(config)
    # Runs from before these settings have none of them.
    storage = {name: config[name] for name in ("param_dtype", "masters") if name in config}
    nets = recomputing(method.nets, config.get("remat", ()))
    return dataclasses.replace(method, nets=nets, **storage)


def recomputing(
    nets: Mapping[str, nn.Module], rules: Sequence[tuple[str, str]]
) -> dict[str, nn.Module]:
    """Networks that keep less for the backward pass.

    Args:
      nets: the networks; those with a field `remat` hand it to their blocks.
      rules: (regular expression on a network's whole name, key of `POLICIES`); the first that
        matches decides.

    Raises:
      ConfigError: for an unknown policy, and where nothing that matches has such blocks.
    """
    able = [name for name, net in nets.items() if hasattr(net, "remat")]
    for pattern, policy in rules:
        if policy not in POLICIES:
            raise ConfigError(
                f"config.remat: {pattern!r} asks for the policy {policy!r}; "
                f"known: {', '.join(POLICIES)}"
            )
        if not any(re.fullmatch(pattern, name) for name in able):
            raise ConfigError(
                f"config.remat: {pattern!r} is no network whose blocks can be recomputed; "
                f"those of this method: {', '.join(able) or 'none'}"
            )
    out = dict(nets)
    for name in able:
        policy = next((p for pattern, p in rules if re.fullmatch(pattern, name)), None)
        if policy:
            out[name] = nets[name].clone(remat=POLICIES[policy])
    return out
