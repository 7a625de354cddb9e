"""Obj-GAN's box generator: which objects a caption means, where they are and how large.

Li et al. 2019, "Object-driven Text-to-Image Synthesis via Adversarial Training" (arXiv 1902.10740),
section 3.1, and jamesli1618/Obj-GAN, box_generation. A frozen DAMSM encoder reads the caption; an
LSTM says one object after the other, from the largest to the smallest: its class, a mixture of
Gaussians of its centre, and one of its width and shape. It is the first of three systems; shapes
(`obj_gan_shapes`) and pictures (`obj_gan`) follow.

The official code takes one caption at a time. Here a batch is as many, and its loss is their mean.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from etils import epath

from jaxt2i.config import ConfigError, fields
from jaxt2i.convert import unpickle
from jaxt2i.data.rows import JSON
from jaxt2i.encoders.damsm import DamsmText
from jaxt2i.engine.method import Batch, Control, Ctx, Method, Player, Sampler
from jaxt2i.nn.initial import initialise
from jaxt2i.nn.mixture import Mixture
from jaxt2i.nn.precision import perception_dtype
from jaxt2i.systems.obj_gan_boxes import layouts
from jaxt2i.systems.obj_gan_boxes.layouts import SPECIAL, Statistics
from jaxt2i.systems.obj_gan_boxes.mixtures import log_density, point, tempered
from jaxt2i.systems.obj_gan_boxes.networks import Decoder, State, Told

LAYOUT = ("boxes", "box_label", "box_mask")
# Values of the settings that are words.
CHOICES = {
    "weights": ("pretrained", "random"),
    "next_xy": ("current_y", "next"),
    "drawn_label": ("probabilities", "one_hot"),
    "first_input": ("pixels", "standardised"),
    "label_loss": ("probability", "log"),
    "drop_last": ("row", "end"),
}


@dataclasses.dataclass(frozen=True)
class Model:
    """Settings of the system; the defaults made the published checkpoint (COCO).

    Attributes:
      weights: "pretrained": the text encoder of the DAMSM of config.init_from; "random" to measure
        speed.
      text_vocab, embed, width: of that encoder, as it was trained.
      classes: of objects.
      mixtures: Gaussians of a mixture.
      attention: look at the words at every step: the paper's; the published training does not.
      next_xy: what the size is told of the place, see `Decoder`: "current_y" is a slip of the code.
      drawn_label: what the place is told of the class while drawing: the "probabilities", as the
        code has it, or the "one_hot" chosen one, as in training.
      first_input: the place before the first object: the means in "pixels", as the code has it, or
        "standardised" as all later ones are, which is 0.
      rho_limit: largest correlation of a Gaussian. At the published 1 the loss may become infinite,
        and official trainings do end so.
      label_loss: "probability": the class's probability itself, negative, as the code has it, which
        feeds probabilities to a loss of logarithms; "log": cross-entropy.
      label_scale, label_power: a class that is shown n times weighs scale / n^power.
      label_weight, box_weight: of both losses.
      end_boxes: whether the end has a place, 0, that is learned too, as published.
      init_bound: the decoder's parameters start uniform between plus and minus this.
      drop_last, whole_pixels: see `layouts.layout`.
      measured: examples from which the layouts' statistics are taken when a run starts; 0: all.
      statistics: a file of them, or facts.json of a run, for converted weights; "": they are
        measured.
      labels: the published checkpoint's label_word2index, a pickled or JSON file; "": labels are
        the classes in order.
    """

    weights: str = "pretrained"
    text_vocab: int = 27297
    embed: int = 300
    width: int = 256
    classes: int = 80
    mixtures: int = 5
    attention: bool = False
    next_xy: str = "current_y"
    drawn_label: str = "probabilities"
    first_input: str = "pixels"
    rho_limit: float = 1.0
    label_loss: str = "probability"
    label_scale: float = 1e5
    label_power: float = 0.8
    label_weight: float = 1.0
    box_weight: float = 1.0
    end_boxes: bool = True
    init_bound: float = 0.08
    drop_last: str = "row"
    whole_pixels: bool = True
    measured: int = 0
    statistics: str = ""
    labels: str = ""


@dataclasses.dataclass(frozen=True)
class Optim:
    """Adam with a clip.

    Attributes:
      lr: learning rate.
      b1, b2, eps: Adam's.
      clip: largest norm of the gradient.
    """

    lr: float = 1e-3
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    clip: float = 5.0

    def tx(self) -> optax.GradientTransformation:
        """The optax transformation."""
        adam = optax.adam(self.lr, self.b1, self.b2, self.eps)
        return optax.chain(optax.clip_by_global_norm(self.clip), adam)


def label_weights(counts: jax.Array, scale: float, power: float) -> jax.Array:
    """Weight of every label that is shown so often: 0 of padding, 1 of what is never shown."""
    weight = jnp.where(counts > 0, scale / jnp.maximum(counts, 1) ** power, 1.0)
    return weight.at[layouts.PAD].set(0.0)


def label_loss(told: jax.Array, labels: jax.Array, weight: jax.Array, kind: str) -> jax.Array:
    """Each caption's loss of its labels.

    Args:
      told: probabilities [B, T, labels].
      labels: int [B, T]; padding does not count.
      weight: [labels].
      kind: "probability" or "log", see `Model`.

    Returns:
      [B].
    """
    said = jnp.take_along_axis(told, labels[..., None], -1)[..., 0]
    said = jnp.log(said) if kind == "log" else said
    count = jnp.maximum((labels != layouts.PAD).sum(-1), 1)
    return -(weight[labels] * said).sum(-1) / count


def box_loss(
    xy: Mixture, wh: Mixture, places: jax.Array, labels: jax.Array, ends: bool = True
) -> jax.Array:
    """Each caption's negative log-density of its places and sizes.

    Args:
      xy: mixtures [B, T, K] of places.
      wh: mixtures [B, T, K] of sizes.
      places: [B, T, 4].
      labels: int [B, T]; padding does not count.
      ends: whether the end counts.

    Returns:
      [B].
    """
    told = log_density(xy, places[..., :2]) + log_density(wh, places[..., 2:])
    there = (labels != layouts.PAD) if ends else (labels >= SPECIAL)
    return -jnp.where(there, told, 0).sum(-1) / jnp.maximum(there.sum(-1), 1)


@dataclasses.dataclass(frozen=True)
class Losses:
    """The loss, the sampler and the scores, over networks named text and decoder.

    Attributes:
      model: the settings.
      statistics: of the data's layouts.
      steps: most objects of a layout, the end among them.
      order: class of every label from `SPECIAL` on; None: in order.
    """

    model: Model
    statistics: Statistics
    steps: int
    order: Any = None

    @property
    def counts(self) -> jax.Array:
        """How often each label is shown."""
        s = self.statistics
        order = range(s.classes) if self.order is None else self.order
        return jnp.asarray([0, s.captions, s.captions, 0, *(s.counts[i] for i in order)])

    def text(self, ctx: Ctx, batch: Batch) -> dict[str, jax.Array]:
        """The captions, by the frozen encoder: sentence and cell [B, H], words [B, T, H]."""
        seen = ctx("text", batch["tokens"], batch["token_mask"], method="stages")
        cell = jnp.concatenate(list(seen["cell"]), -1)
        return {"sentence": seen["sentence"], "cell": cell, "words": seen["words"]}

    def sequence(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Labels and places as the decoder follows them."""
        label = batch["box_label"]
        if self.order is not None:
            back = sorted(range(len(self.order)), key=lambda i: self.order[i])
            label = jnp.asarray(back)[label]
        labels, places = layouts.sequence(batch["boxes"], label, batch["box_mask"], self.statistics)
        return labels, places.at[:, 0].set(self.first)

    @property
    def first(self) -> jax.Array:
        """The place before the first object."""
        mean = jnp.asarray(self.statistics.mean, jnp.float32)
        return mean if self.model.first_input == "pixels" else jnp.zeros_like(mean)

    def follow(self, ctx: Ctx, batch: Batch) -> tuple[Told, jax.Array, jax.Array]:
        """(what the decoder says of known layouts, their labels [B, T], their places)."""
        text = jax.lax.stop_gradient(self.text(ctx, batch))
        labels, places = self.sequence(batch)
        state = State(text["sentence"], text["cell"])
        told = ctx("decoder", state, text["words"], batch["token_mask"], labels, places)
        return told, labels[:, 1:], places[:, 1:]

    def loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Both losses, a mean over captions."""
        m = self.model
        told, labels, places = self.follow(ctx, batch)
        weight = label_weights(self.counts, m.label_scale, m.label_power)
        logs = {
            "label": label_loss(told.labels, labels, weight, m.label_loss).mean(),
            "box": box_loss(told.xy, told.wh, places, labels, m.end_boxes).mean(),
            "label_accuracy": accuracy(told.labels, labels),
        }
        return m.label_weight * logs["label"] + m.box_weight * logs["box"], logs

    def score(self, ctx: Ctx, batch: Batch) -> dict[str, jax.Array]:
        """How well known layouts of held-out captions are foretold, object by object."""
        told, labels, places = self.follow(ctx, batch)
        return {
            "box_nll": box_loss(told.xy, told.wh, places, labels, ends=False).mean(),
            "label_accuracy": accuracy(told.labels, labels),
        }

    # --- Drawing ----------------------------------------------------------------------------------

    def decode(
        self, ctx: Ctx, text: dict, mask: jax.Array, choose: Callable, pick: Callable
    ) -> tuple:
        """Decodes freely, as many steps as there may be objects.

        Args:
          ctx: the networks.
          text: of `self.text`.
          mask: bool [B, W], of the words.
          choose: (step, probabilities [B, labels]) -> labels int [B].
          pick: (step, "xy" or "wh", mixture) -> points [B, 2].

        Returns:
          (probabilities [T, B, labels], labels [T, B], places [T, B, 4], mixtures of both).
        """
        words, one_hot = text["words"], self.model.drawn_label == "one_hot"

        def turn(carry, number):
            state, label, place = carry
            state, told = ctx("decoder", state, words, mask, label, place, method="step")
            label = choose(number, told)
            kind = jax.nn.one_hot(label, told.shape[-1]) if one_hot else told
            both = [ctx("decoder", state.h, kind, method="xy")]
            xy = pick(number, "xy", both[0])
            both.append(ctx("decoder", state.h, kind, xy, place[:, :2], method="wh"))
            place = jnp.concatenate([xy, pick(number, "wh", both[1])], -1)
            return (state, label, place), (told, label, place, both)

        count = len(mask)
        start = (
            State(text["sentence"], text["cell"]),
            jnp.full(count, layouts.START),
            jnp.broadcast_to(self.first, (count, 4)),
        )
        return jax.lax.scan(turn, start, jnp.arange(self.steps))[1]

    def draw(self, ctx, rows, keys, *, z, text, temperature, greedy) -> dict:
        """A layout for every row and key."""

        def chance(number, name, function):
            parts = {"label": 0, "xy": 1, "wh": 2, "most": 3}
            at = lambda key: jax.random.fold_in(jax.random.fold_in(key, number), parts[name])  # noqa: E731
            return jax.vmap(lambda key, *x: function(at(key), *x))

        def choose(number, told):
            # Labels that are no classes are never learned, but for the end.
            at = jnp.arange(told.shape[-1])
            logits = jnp.where((at >= SPECIAL) | (at == layouts.END), jnp.log(told), -jnp.inf)
            if greedy:
                return logits.argmax(-1)
            return chance(number, "label", jax.random.categorical)(keys, logits)

        def pick(number, name, of):
            of = tempered(of, temperature)

            def one(key, of):
                of_component, of_point = jax.random.split(key)
                component = jax.random.categorical(of_component, of.log_pi)
                return point(of, component, jax.random.normal(of_point, (2,)))

            return chance(number, name, one)(keys, of)

        _, labels, places, _ = self.decode(ctx, text, rows["token_mask"], choose, pick)
        often, spread = (jnp.asarray(x) for x in (self.statistics.often, self.statistics.spread))
        most = chance(self.steps, "most", lambda key: jax.random.normal(key, often.shape))(keys)
        most = often + spread * most
        number = jnp.clip(labels.T - SPECIAL, 0)
        if self.order is not None:
            number = jnp.asarray(self.order)[number]
            labels = jnp.where(labels >= SPECIAL, number.T + SPECIAL, labels)
        boxes, there = jax.vmap(self.layout)(jnp.moveaxis(places, 1, 0), labels.T, most)
        return {"boxes": boxes, "box_label": jnp.where(there, number, 0), "box_mask": there}

    def layout(self, places: jax.Array, labels: jax.Array, most: jax.Array) -> tuple:
        """See `layouts.layout`."""
        m = self.model
        how = {"drop_last": m.drop_last, "whole_pixels": m.whole_pixels}
        return layouts.layout(places, labels, most, self.statistics, **how)

    @property
    def sampler(self) -> Sampler:
        """How layouts are drawn."""
        return Sampler(
            draw=self.draw,
            needs=("tokens", "token_mask"),
            text=self.text,
            controls=(
                Control("temperature", 0.4, 0.0, 2.0, help="of places and sizes of objects"),
                Control("greedy", True, help="the likeliest class; false: draw it"),
            ),
        )


def accuracy(told: jax.Array, labels: jax.Array) -> jax.Array:
    """Share of the labels, the end among them, that are the likeliest."""
    there = labels != layouts.PAD
    return ((told.argmax(-1) == labels) & there).sum() / jnp.maximum(there.sum(), 1)


def check(model: Model, names: tuple[str, ...] = ()) -> None:
    """Refuses impossible settings.

    Args:
      model: the settings.
      names: of the classes of objects, where they are known.

    Raises:
      ConfigError: names the config line and the fix.
    """
    for name, known in CHOICES.items():
        if (value := getattr(model, name)) not in known:
            raise ConfigError(f"config.model.{name}={value!r}; expected one of {known}")
    if not 0 < model.rho_limit <= 1:
        raise ConfigError(f"config.model.rho_limit={model.rho_limit}; expected above 0, up to 1")
    if len(names) > model.classes:
        raise ConfigError(
            f"config.model.classes={model.classes}, and the data has {len(names)} classes of "
            f"objects; set config.model.classes={len(names)}"
        )


def measure(cfg, source: Any) -> dict[str, Any]:
    """What a run has to know of its training data before it is built, kept in its facts.json."""
    model = fields(Model, cfg.model, "config.model")
    if model.statistics:
        return {}
    return {"layouts": layouts.measured(source, model.classes, model.measured).plain()}


def statistics_of(model: Model, known: Any) -> tuple[Statistics, tuple[str, ...]]:
    """(the data's statistics, what to say of them).

    Args:
      model: the settings.
      known: `Facts.statistics` of the training data.

    Raises:
      ConfigError: where a file is none, or of another number of classes.
    """
    where = model.statistics or "facts.json"
    found = read_json(model.statistics, "statistics") if model.statistics else dict(known)
    found = found.get("statistics", found)
    found = found.get("layouts", found if model.statistics else None)
    if found is None:
        said = "the layouts' statistics are stand-ins: config.model.statistics names a file of them"
        return Statistics.unknown(model.classes), (said,)
    made = Statistics.read(found, where)
    if made.classes != model.classes:
        raise ConfigError(
            f"{where} has statistics of {made.classes} classes, and config.model.classes="
            f"{model.classes}"
        )
    return made, ()


def read_json(file: str, setting: str) -> dict:
    """An object of a JSON file that a setting of the model names.

    Raises:
      ConfigError: where it is none.
    """
    try:
        content = JSON.decode(epath.Path(file).read_text())
        if not isinstance(content, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"config.model.{setting}={file!r}: not readable as a JSON object ({error})"
        ) from None
    return content


def vocabulary(file: str) -> dict | None:
    """The published checkpoint's label_word2index, of a pickled or JSON file; None: there is none.

    Raises:
      ConfigError: where it is neither.
    """
    if not file:
        return None
    if file.endswith(".json"):
        return read_json(file, "labels")
    try:
        return unpickle.load(epath.Path(file).read_bytes(), {})
    except (OSError, unpickle.UnsafeFileError, unpickle.UnreadableFileError) as error:
        raise ConfigError(f"config.model.labels={file!r}: {error}") from None


def build(cfg, facts) -> Method:
    """The method of a config: `cfg.model` holds `Model`, `cfg.optim` holds `Optim`."""
    model = fields(Model, cfg.model, "config.model")
    check(model, facts.names.get("box_label", ()))
    statistics, notes = statistics_of(model, facts.statistics)
    order = layouts.class_numbers(vocabulary(model.labels), model.classes)
    losses = Losses(model, statistics, cfg.data.objects, order)
    nets = {
        "text": DamsmText(
            vocab=model.text_vocab,
            length=cfg.data.tokens,
            embed=model.embed,
            width=model.width,
            dtype=perception_dtype(cfg),
        ),
        "decoder": Decoder(
            labels=SPECIAL + model.classes,
            width=model.width,
            mixtures=model.mixtures,
            attention=model.attention,
            next_xy=model.next_xy,
            limit=model.rho_limit,
        ),
    }

    def init(key: jax.Array, batch: Batch) -> dict:
        made = initialise(nets, key)
        leaves, tree = jax.tree.flatten(made["decoder"])
        keys, bound = jax.random.split(jax.random.fold_in(key, 1), len(leaves)), model.init_bound
        drawn = [
            jax.random.uniform(k, x.shape, minval=-bound, maxval=bound)
            for k, x in zip(keys, leaves, strict=True)
        ]
        return {**made, "decoder": jax.tree.unflatten(tree, drawn)}

    optim = fields(Optim, cfg.optim, "config.optim")
    pretrained = model.weights == "pretrained"
    read = f"the text encoder of {cfg.init_from}" if pretrained else "random weights: speed alone"
    return Method(
        nets=nets,
        players=(Player("boxes", ("decoder",), losses.loss, optim.tx()),),
        init=init,
        needs=("tokens", "token_mask", *LAYOUT),
        sampler=losses.sampler,
        frozen=("text",),
        borrowed=("text",) if pretrained else (),
        vocab=model.text_vocab,
        score=losses.score,
        better={"box_nll": "lower", "label_accuracy": "higher"},
        notes=(f"reads with {read}", *notes),
    )
