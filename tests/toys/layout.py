"""Text to layout: classes and boxes, one after the other, until the end is drawn."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.engine.method import Control, Method, Player, Sampler
from tests import toys

LAYOUT = ("boxes", "box_label", "box_mask")


class Decoder(nn.Module):
    classes: int  # one of them is the end

    def setup(self):
        self.cell, self.embed = nn.GRUCell(32), nn.Embed(self.classes + 1, 16)
        self.start, self.kind, self.place = nn.Dense(32), nn.Dense(self.classes), nn.Dense(4)

    def step(self, h, sentence, label, box):
        h, _ = self.cell(h, jnp.concatenate([self.embed(label), box, sentence], -1))
        return h, self.kind(h)

    def box(self, h, label):
        return self.place(jnp.concatenate([h, self.embed(label)], -1))

    def begin(self, sentence):
        return self.start(sentence)

    def __call__(self, sentence, label, box):
        h, kind = self.step(self.begin(sentence), sentence, label, box)
        return kind, self.box(h, label)


def build(cfg, facts) -> Method:
    classes = len(facts.names.get("box_label", ())) + 1
    nets, slots = {"text": toys.Words(), "decoder": Decoder(classes)}, cfg.data.objects

    def text(ctx, rows):
        return ctx("text", rows["tokens"], rows["token_mask"])

    def draw(ctx, rows, keys, *, z, text, temperature, greedy):
        sentence = text.sentence

        def turn(carry, number):
            h, label, box, going = carry
            here = jax.vmap(lambda k: jax.random.split(jax.random.fold_in(k, number)))(keys)
            h, logits = ctx("decoder", h, sentence, label, box, method="step")
            heat = jnp.maximum(temperature, 1e-3)
            pick = jax.vmap(jax.random.categorical)(here[:, 0], logits / heat)
            label = logits.argmax(-1) if greedy else pick
            going = going & (label < classes - 1)
            noise = jax.vmap(lambda k: jax.random.normal(k, (4,)))(here[:, 1])
            raw = ctx("decoder", h, label, method="box") + temperature * noise
            box = jax.nn.sigmoid(raw)
            box = box.at[:, 2:].set(box[:, 2:] * (1 - box[:, :2]))  # inside the picture
            return (h, label, box, going), (box, label, going)

        n = len(sentence)
        begin = (jnp.full(n, classes), jnp.full((n, 4), 0.5), jnp.ones(n, bool))
        first = (ctx("decoder", sentence, method="begin"), *begin)
        _, out = jax.lax.scan(turn, first, jnp.arange(slots))
        boxes, label, there = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), out)
        zero = lambda x: jnp.where(there.reshape(*there.shape, *(1,) * (x.ndim - 2)), x, 0)  # noqa: E731
        return {"boxes": zero(boxes), "box_label": zero(label), "box_mask": there}

    def loss(ctx, batch):
        sentence = text(ctx, batch).sentence
        n = len(sentence)
        truth = jnp.where(batch["box_mask"], batch["box_label"] % (classes - 1), classes - 1)
        h, label, box = (
            ctx("decoder", sentence, method="begin"),
            jnp.full(n, classes),
            jnp.full((n, 4), 0.5),
        )
        total = 0.0
        for k in range(slots):
            h, logits = ctx("decoder", h, sentence, label, box, method="step")
            label = truth[:, k]
            total -= jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], 1).mean()
            guess = jax.nn.sigmoid(ctx("decoder", h, label, method="box"))
            box = batch["boxes"][:, k]
            total += (batch["box_mask"][:, k, None] * (guess - box) ** 2).mean()
        return total, {}

    def inputs(b):
        s = jnp.zeros((1, 16))
        return {
            "text": (b["tokens"][:1], b["token_mask"][:1]),
            "decoder": (s, jnp.zeros(1, jnp.int32), jnp.zeros((1, 4))),
        }

    return Method(
        nets=nets,
        players=(Player("t", ("decoder", "text"), loss, toys.adam()),),
        init=toys.initialise(nets, inputs),
        needs=("tokens", "token_mask", *LAYOUT),
        sampler=Sampler(
            draw,
            text=text,
            controls=(
                Control("temperature", 1.0, 0.0, 3.0, help="of classes and boxes"),
                Control("greedy", False, help="the likeliest class"),
            ),
        ),
    )


def get_config(_=None):
    return toys.config("layout")
