"""Text to layout: the first half of layout bridging (Liang et al. 2022, arXiv 2208.06162).

A Transformer reads a caption and writes the objects of its picture, largest first: the class of
each, then its centre, then its size. There is no official code, and the paper was seen in its
abstract alone: a sequence model whose objects depend on each other. Sizes are those of Vaswani et
al. 2017; classes and mixtures of Gaussians those of Obj-GAN's box generator (Li et al. 2019), which
the paper compares with; both are inferred, and so is every setting below that says so.

What it draws are rows of objects: `sample --after` hands them to any system that draws from
layouts, and `--conditions` reads them again once a person has changed them.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxt2i.config import ConfigError, fields
from jaxt2i.data import statistics
from jaxt2i.encoders.text import Text
from jaxt2i.encoders.vit import ACTIVATIONS
from jaxt2i.engine.method import Batch, Control, Ctx, Method, Player, Sampler
from jaxt2i.metrics import layout_quality
from jaxt2i.nn import layouts, mixture
from jaxt2i.nn.precision import compute_dtype
from jaxt2i.systems.text_to_layout.networks import (
    END,
    PAD,
    POSITIONS,
    SPECIAL,
    START,
    TOKENS,
    Decoder,
    Encoder,
)

# No picture is drawn.
ANY_SHAPE = True
LAYOUT = ("boxes", "box_label", "box_mask")
ORDERS = ("area", "data")
AVERAGES = ("positions", "weights")
BETTER = {"lqs": "higher", "recall": "higher", "precision": "higher", "nll": "lower"}


@dataclasses.dataclass(frozen=True)
class Model:
    """Settings of the system; all of them are inferred, as nothing was published.

    Attributes:
      text_vocab: token ids; 27,297 are the words of COCO's captions in AttnGAN's metadata.
      classes: of objects; four more stand for padding, start, end and unknown, as in Obj-GAN.
      width: channels.
      layers: blocks of the encoder.
      decoder_layers: blocks of the decoder.
      heads: of attention.
      hidden: width of the blocks' dense layers.
      act: "gelu" or "quick_gelu".
      dropout: in training, of embeddings and of what each branch adds.
      scale_embedding: multiply words by the root of the width, as Vaswani et al. do.
      positions: of objects, "learned" or "sinusoidal"; those of words are sinusoidal.
      components: of a mixture.
      head_width: of the hidden layer behind mixtures.
      centre_width: in how many numbers the mixture of sizes is told of the centre.
      log_sigma: bounds of the logarithms of deviations.
      rho: the largest absolute correlation.
      box_tokens: so many bins of each number of a box in place of mixtures, learned by plain
        cross-entropy as a sequence of five tokens an object (Gupta et al. 2021 use 128); 0:
        mixtures, as the compared systems have.
      order: of objects: "area", the largest first, or as the data gives them.
      class_power: classes are weighted by (how often they occur) ** -class_power, mean 1, where
        boxes are mixtures; Obj-GAN has 0.8.
      class_average: what the weighted cross-entropy is divided by: the number of "positions", ends
        included, or the sum of their "weights".
      end_weight: weight of the end among the classes.
      label_smoothing: of the classes.
      class_loss, xy_loss, wh_loss: weights of the three losses.
      mean_box: cx, cy, w, h that the first object is told of; none: the training data's mean.
      least_side: of drawn boxes, fractions of the picture.
      least_objects: the end is not drawn before so many.
    """

    text_vocab: int = 27297
    classes: int = 80
    width: int = 512
    layers: int = 6
    decoder_layers: int = 6
    heads: int = 8
    hidden: int = 2048
    act: str = "gelu"
    dropout: float = 0.1
    scale_embedding: bool = True
    positions: str = "learned"
    components: int = 5
    head_width: int = 512
    centre_width: int = 64
    log_sigma: tuple[float, float] = (-7.0, 3.0)
    rho: float = 0.99
    box_tokens: int = 0
    order: str = "area"
    class_power: float = 0.8
    class_average: str = "positions"
    end_weight: float = 1.0
    label_smoothing: float = 0.0
    class_loss: float = 1.0
    xy_loss: float = 1.0
    wh_loss: float = 1.0
    mean_box: tuple[float, ...] = ()
    least_side: float = 1 / 64
    least_objects: int = 1


@dataclasses.dataclass(frozen=True)
class Optim:
    """AdamW with a warm-up and the inverse square root; inferred.

    Attributes:
      lr: the highest learning rate, at the end of the warm-up.
      b1, b2, eps: Adam's.
      weight_decay: decoupled, of arrays with two and more axes.
      warmup_steps: linear warm-up from zero.
      decay_steps: a cosine to zero at this step in place of the inverse square root; 0: none.
      clip: largest norm of all gradients together; 0: any.
    """

    lr: float = 1e-4
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.01
    warmup_steps: int = 4000
    decay_steps: int = 0
    clip: float = 1.0

    def rate(self, step: jax.Array) -> jax.Array:
        """The learning rate of a step."""
        warm = max(self.warmup_steps, 1)
        if self.decay_steps:
            return optax.warmup_cosine_decay_schedule(
                0.0, self.lr, self.warmup_steps, self.decay_steps
            )(step)
        step = jnp.asarray(step, jnp.float32) + 1
        return self.lr * jnp.minimum(step / warm, jnp.sqrt(warm / step))

    def tx(self) -> optax.GradientTransformation:
        """The optax transformation."""
        matrices = lambda params: jax.tree.map(lambda x: x.ndim > 1, params)  # noqa: E731
        return optax.chain(
            optax.clip_by_global_norm(self.clip) if self.clip else optax.identity(),
            optax.scale_by_adam(self.b1, self.b2, self.eps),
            optax.add_decayed_weights(self.weight_decay, matrices),
            optax.scale_by_learning_rate(self.rate),
        )


def nucleus(logits: jax.Array, share: jax.Array | float) -> jax.Array:
    """Logits [..., V] without all but the likeliest values that make up this share together."""
    order = jnp.argsort(-logits, axis=-1)
    p = jnp.take_along_axis(jax.nn.softmax(logits), order, -1)
    kept = jnp.cumsum(p, -1) - p < share
    kept = jnp.take_along_axis(kept, jnp.argsort(order, axis=-1), -1)
    # The likeliest is always kept.
    kept |= logits == logits.max(-1, keepdims=True)
    return jnp.where(kept, logits, -jnp.inf)


def weights_of(counts: tuple[int, ...], model: Model) -> jax.Array:
    """Weights [classes + SPECIAL] of the cross-entropy.

    Args:
      counts: how often each class occurs in training; none: all weigh 1.
      model: the settings.
    """
    weight = jnp.ones(model.classes)
    if any(counts):
        count = jnp.zeros(model.classes).at[: len(counts)].set(jnp.array(counts, jnp.float32))
        own = jnp.where(count > 0, jnp.maximum(count, 1) ** -model.class_power, 0)
        weight = jnp.where(count > 0, own / (own.sum() / (count > 0).sum()), 1.0)
    return jnp.concatenate([jnp.ones(SPECIAL).at[END].set(model.end_weight), weight])


@dataclasses.dataclass(frozen=True)
class Layouts:
    """Losses, score and sampler, over the networks "text" and "decoder".

    Attributes:
      model: the settings.
      slots: objects of a layout at most.
      counts: of the classes in the training data.
      mean_box: cx, cy, w, h before the first object.
    """

    model: Model
    slots: int
    counts: tuple[int, ...] = ()
    mean_box: tuple[float, ...] = (0.5, 0.5, 0.5, 0.5)

    def nets(self, dtype: jnp.dtype) -> dict[str, Any]:
        """Both networks."""
        m = self.model
        common = {
            "width": m.width,
            "heads": m.heads,
            "hidden": m.hidden,
            "act": m.act,
            "dropout": m.dropout,
            "dtype": dtype,
        }
        return {
            "text": Encoder(vocab=m.text_vocab, layers=m.layers, scale=m.scale_embedding, **common),
            "decoder": Decoder(
                classes=m.classes,
                bins=m.box_tokens,
                slots=self.slots * (TOKENS if m.box_tokens else 1),
                layers=m.decoder_layers,
                components=m.components,
                head_width=m.head_width,
                centre_width=m.centre_width,
                positions=m.positions,
                **common,
            ),
        }

    def text(self, ctx: Ctx, rows: Batch) -> Text:
        """Captions, as the sampler reads them."""
        return ctx("text", rows["tokens"], rows["token_mask"])

    # --- losses ---------------------------------------------------------------------------------

    def sequence(self, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Kinds [B, N], boxes cx, cy, w, h [B, N, 4] and bool [B, N], objects in their order."""
        boxes, label, there = (batch[key] for key in LAYOUT)
        if self.model.order == "area":
            order = layouts.by_area(boxes, there)
            boxes = jnp.take_along_axis(boxes, order[..., None], 1)
            label, there = (jnp.take_along_axis(x, order, 1) for x in (label, there))
        boxes = jnp.where(there[..., None], layouts.centred(boxes), 0)
        return jnp.where(there, label + SPECIAL, PAD), boxes, there

    def first(self, batch_size: int) -> tuple[jax.Array, jax.Array]:
        """What stands before the first object: kinds [B] and boxes [B, 4]."""
        box = jnp.asarray(self.mean_box, jnp.float32)
        return jnp.full(batch_size, START), jnp.broadcast_to(box, (batch_size, 4))

    def loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss of a step, with dropout."""
        key = {"dropout": ctx.rng("dropout")}
        text = ctx("text", batch["tokens"], batch["token_mask"], train=True, rngs=key)
        calls = functools.partial(ctx, "decoder")
        how = {"train": True, "rngs": {"dropout": ctx.rng("dropout_decoder")}}
        return self._loss(calls, text, batch, how)

    def _loss(self, decoder, text: Text, batch: Batch, how: Mapping[str, Any]):
        by = self._loss_of_tokens if self.model.box_tokens else self._loss_of_mixtures
        return by(decoder, text, *self.sequence(batch), how)

    def _loss_of_mixtures(self, decoder, text, kind, boxes, there, how):
        m, (start, mean) = self.model, self.first(len(kind))
        before = jnp.concatenate([start[:, None], kind[:, :-1]], 1)
        box_before = jnp.concatenate([mean[:, None], boxes[:, :-1]], 1)
        h = decoder(before, box_before, text, **how)
        logits = decoder(h, method="kinds")
        ends = jnp.arange(kind.shape[1]) == there.sum(1, keepdims=True)
        target, said = jnp.where(ends, END, kind), there | ends
        weight = jnp.where(said, weights_of(self.counts, m)[target], 0)
        each = self._entropy(logits, target)
        by = weight.sum() if m.class_average == "weights" else said.sum()
        objects = jnp.maximum(there.sum(), 1)
        read = functools.partial(mixture.read, log_sigma=tuple(m.log_sigma), rho=m.rho)
        xy = mixture.nll(read(decoder(h, kind, method="xy")), boxes[..., :2])
        wh = decoder(h, kind, boxes[..., :2], method="wh")
        wh = mixture.nll(read(wh), boxes[..., 2:])
        parts = {
            "class": (each * weight).sum() / jnp.maximum(by, 1e-6),
            "xy": jnp.where(there, xy, 0).sum() / objects,
            "wh": jnp.where(there, wh, 0).sum() / objects,
        }
        total = m.class_loss * parts["class"] + m.xy_loss * parts["xy"] + m.wh_loss * parts["wh"]
        return total, parts

    def _loss_of_tokens(self, decoder, text, kind, boxes, there, how):
        m, count = self.model, there.sum(1, keepdims=True)
        bins = layouts.to_bins(boxes, m.box_tokens) + m.classes + SPECIAL
        tokens = jnp.concatenate([kind[..., None], bins], -1).reshape(len(kind), -1)
        place = jnp.arange(tokens.shape[1])
        target = jnp.where(place == TOKENS * count, END, tokens)
        said = place <= TOKENS * count
        before = jnp.concatenate([self.first(len(kind))[0][:, None], tokens[:, :-1]], 1)
        logits = decoder(decoder(before, None, text, **how), method="kinds")
        each = jnp.where(said, self._entropy(logits, target), 0)
        parts = {}
        for name, own in (("class", place % TOKENS == 0), ("box", place % TOKENS > 0)):
            mask = said & own
            parts[name] = jnp.where(mask, each, 0).sum() / jnp.maximum(mask.sum(), 1)
        return each.sum() / jnp.maximum(said.sum(), 1), parts

    def _entropy(self, logits: jax.Array, target: jax.Array) -> jax.Array:
        smooth = self.model.label_smoothing
        each = optax.softmax_cross_entropy_with_integer_labels(logits, target)
        if not smooth:
            return each
        return (1 - smooth) * each - smooth * jax.nn.log_softmax(logits).mean(-1)

    def score(self, ctx: Ctx, batch: Batch) -> dict[str, jax.Array]:
        """The Layout Quality Score of layouts drawn for held-out captions, and the held-out loss.

        Pictures without objects do not count, as in `metrics.layout_quality.dataset`.
        """
        keys = jax.random.split(ctx.rng("score"), len(batch["tokens"]))
        drawn = self.sampler(ctx, batch, keys)
        true, predicted = (
            layout_quality.Layout(boxes=x["boxes"], label=x["box_label"], there=x["box_mask"])
            for x in (batch, drawn)
        )
        found = layout_quality.qualities(true, predicted)
        shown = true.there.any(-1)
        mean = lambda x: jnp.where(shown, x, 0).sum() / jnp.maximum(shown.sum(), 1)  # noqa: E731
        total, _ = self._loss(functools.partial(ctx, "decoder"), self.text(ctx, batch), batch, {})
        return {
            "lqs": mean(found.lqs),
            "recall": mean(found.lr),
            "precision": mean(found.lp),
            "nll": total,
        }

    # --- drawing --------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        """Draws layouts; several of a caption differ by their seeds."""
        drawn = self._draw_tokens if self.model.box_tokens else self._draw_mixtures
        return Sampler(
            draw=drawn,
            text=self.text,
            controls=(
                Control(
                    "argmax", True, help="the likeliest class of each object; false draws classes"
                ),
                Control("temperature", 1.0, 0.01, 10.0, help="of classes that are drawn"),
                Control("top_p", 1.0, 0.0, 1.0, help="share of the likeliest classes to draw from"),
                Control(
                    "box_temperature",
                    0.5,
                    0.0,
                    10.0,
                    help="factor of the boxes' deviations; 0: the likeliest place",
                ),
            ),
        )

    def _chosen(self, keys, logits, number, argmax, temperature, top_p) -> jax.Array:
        """Kinds [B] of objects, or ends, from logits [B, V]."""
        kind = jnp.arange(logits.shape[-1])
        able = (kind >= SPECIAL) & (kind < SPECIAL + self.model.classes)
        able |= (kind == END) & (number >= self.model.least_objects)
        logits = jnp.where(able, logits, -jnp.inf)
        if argmax:
            return logits.argmax(-1)
        logits = nucleus(logits / temperature, top_p)
        return jax.vmap(jax.random.categorical)(keys, logits)

    def _draw_mixtures(
        self, ctx, rows, keys, *, z, text, argmax, temperature, top_p, box_temperature
    ):
        m, decoder = self.model, functools.partial(ctx, "decoder")
        memory, past = (decoder(text, method=name) for name in ("memory", "begin"))
        read = functools.partial(mixture.read, log_sigma=tuple(m.log_sigma), rho=m.rho)
        spread = jnp.broadcast_to(jnp.asarray(box_temperature, jnp.float32), len(keys))
        place = jax.vmap(mixture.sample)

        def turn(carry, number):
            past, kind, box, going = carry
            here = jax.vmap(lambda k: jax.random.split(jax.random.fold_in(k, number), 3))(keys)
            h, past = decoder(kind, box, number, past, memory, text.mask, method="step")
            logits = decoder(h, method="kinds")
            kind = self._chosen(here[:, 0], logits, number, argmax, temperature, top_p)
            going = going & (kind != END)
            xy = place(here[:, 1], read(decoder(h, kind, method="xy")), spread)
            wh = place(here[:, 2], read(decoder(h, kind, xy, method="wh")), spread)
            shown = layouts.inside(jnp.concatenate([xy, wh], -1), m.least_side)
            return (past, kind, layouts.centred(shown), going), (shown, kind, going)

        first = (past, *self.first(len(keys)), jnp.ones(len(keys), bool))
        _, out = jax.lax.scan(turn, first, jnp.arange(self.slots))
        return self._rows(*(jnp.swapaxes(x, 0, 1) for x in out))

    def _draw_tokens(
        self, ctx, rows, keys, *, z, text, argmax, temperature, top_p, box_temperature
    ):
        m, decoder = self.model, functools.partial(ctx, "decoder")
        memory, past = (decoder(text, method=name) for name in ("memory", "begin"))
        low = m.classes + SPECIAL

        def turn(carry, number):
            past, token = carry
            here = jax.vmap(lambda k: jax.random.fold_in(k, number))(keys)
            h, past = decoder(token, None, number, past, memory, text.mask, method="step")
            logits = decoder(h, method="kinds")
            choice = (argmax, temperature, top_p)
            kind = self._chosen(here, logits, number // TOKENS, *choice)
            heat = jnp.maximum(box_temperature, 1e-6)
            drawn = jax.vmap(jax.random.categorical)(here, logits[:, low:] / heat)
            likeliest = logits[:, low:].argmax(-1)
            bins = low + jnp.where(jnp.asarray(box_temperature) > 0, drawn, likeliest)
            token = jnp.where(number % TOKENS == 0, kind, bins)
            return (past, token), token

        first = past, self.first(len(keys))[0]
        _, tokens = jax.lax.scan(turn, first, jnp.arange(self.slots * TOKENS))
        tokens = tokens.T.reshape(len(keys), self.slots, TOKENS)
        boxes = layouts.from_bins(jnp.maximum(tokens[..., 1:] - low, 0), m.box_tokens)
        going = jnp.cumprod(tokens[..., 0] != END, 1) > 0
        return self._rows(layouts.inside(boxes, m.least_side), tokens[..., 0], going)

    def _rows(self, boxes: jax.Array, kind: jax.Array, there: jax.Array) -> dict[str, jax.Array]:
        return {
            "boxes": jnp.where(there[..., None], boxes, 0),
            "box_label": jnp.where(there, kind - SPECIAL, 0).astype(jnp.int32),
            "box_mask": there,
        }


def check(model: Model, names: tuple[str, ...]) -> None:
    """Refuses settings that do not fit together, or the data.

    Args:
      model: the settings.
      names: of the classes of objects, where they are known.

    Raises:
      ConfigError: names the config line and the fix.
    """
    for name, known in (
        ("act", tuple(ACTIVATIONS)),
        ("positions", POSITIONS),
        ("order", ORDERS),
        ("class_average", AVERAGES),
    ):
        if (value := getattr(model, name)) not in known:
            raise ConfigError(f"config.model.{name}={value!r}; expected one of {known}")
    if model.width % model.heads:
        raise ConfigError(
            f"config.model.width={model.width} cannot be divided among config.model.heads="
            f"{model.heads}; expected a multiple of it"
        )
    if model.box_tokens < 0 or model.box_tokens == 1:
        raise ConfigError(
            f"config.model.box_tokens={model.box_tokens}; expected 2 bins or more, such as 128, or "
            "0 for mixtures"
        )
    if len(model.mean_box) not in (0, 4):
        raise ConfigError(
            f"config.model.mean_box={tuple(model.mean_box)}; expected cx, cy, w, h in fractions of "
            "the picture, or () for the training data's mean"
        )
    if not 0 < model.least_side <= 1:
        raise ConfigError(
            f"config.model.least_side={model.least_side}; expected a fraction above 0, up to 1"
        )
    if len(names) > model.classes:
        raise ConfigError(
            f"config.model.classes={model.classes}, and the data has {len(names)} classes of "
            f"objects; set config.model.classes={len(names)}"
        )


def measure(cfg, source: Any) -> dict[str, Any]:
    """What a run has to know of its training data before it is built, kept in its facts.json."""
    return {"layouts": statistics.layouts(source)}


def build(cfg, facts) -> Method:
    """The method of a config: `cfg.model` holds `Model`, `cfg.optim` holds `Optim`."""
    model = fields(Model, cfg.model, "config.model")
    check(model, facts.names.get("box_label", ()))
    known = facts.statistics.get("layouts", {})
    own = Layouts(
        model,
        cfg.data.objects,
        counts=tuple(known.get("classes", ())) if model.class_power else (),
        mean_box=tuple(model.mean_box) or tuple(known.get("mean_box", Layouts.mean_box)),
    )
    tx = fields(Optim, cfg.optim, "config.optim").tx()
    nets = own.nets(compute_dtype(cfg.precision, jax.default_backend()))

    def init(key: jax.Array, batch: Batch) -> dict:
        keys, few = jax.random.split(key), {k: x[:1] for k, x in batch.items()}
        words = few["tokens"], few["token_mask"]
        text = Text(
            jnp.zeros((1, model.width)), jnp.zeros((*words[0].shape, model.width)), words[1]
        )
        if model.box_tokens:
            given = jnp.zeros((1, TOKENS * own.slots), jnp.int32), None
        else:
            given = own.sequence(few)[:2]
        decoder = nets["decoder"].init(keys[1], *given, text, method="everything")
        return {"text": nets["text"].init(keys[0], *words), "decoder": decoder}

    return Method(
        nets=nets,
        players=(Player("layout", ("text", "decoder"), own.loss, tx),),
        init=init,
        needs=("tokens", "token_mask", *LAYOUT),
        sampler=own.sampler,
        vocab=model.text_vocab,
        score=own.score,
        better=BETTER,
        notes=()
        if known or not model.class_power
        else ("nothing is known of the training data: all classes weigh the same",),
    )
