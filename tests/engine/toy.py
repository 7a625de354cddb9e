"""A GAN of two small networks that uses everything the engine offers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxt2i.data.schema import unit_range
from jaxt2i.engine.method import Ema, Method, Player, Sampler


class G(nn.Module):
    resolution: int = 16

    @nn.compact
    def __call__(self, z, c, train=False):
        x = jnp.concatenate([z, c], -1)
        mean = self.variable("stats", "mean", jnp.zeros, (z.shape[-1],))
        if train:
            mean.value = 0.9 * mean.value + 0.1 * z.mean(0)
        x = nn.tanh(nn.Dense(32)(x + jnp.pad(mean.value, (0, c.shape[-1]))))
        x = nn.Dense(self.resolution**2 * 3)(x)
        return jnp.tanh(x).reshape(-1, self.resolution, self.resolution, 3)


class D(nn.Module):
    width: int = 8

    @nn.compact
    def __call__(self, x, c, train=False):
        x = nn.leaky_relu(nn.Conv(self.width, (4, 4), (4, 4))(x)).reshape(x.shape[0], -1)
        return nn.Dense(1)(jnp.concatenate([x, c], -1))[:, 0]


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, tokens, mask):
        words = nn.Embed(640, 8)(tokens) * mask[..., None]
        return words.sum(1) / mask.sum(1, keepdims=True)


def build(cfg):
    tx = (optax.adam if cfg.optim.get("adam") else optax.sgd)(cfg.optim.lr)
    fails_at = cfg.model.get("fails_at", -1)

    def fake(ctx, batch, name):
        c = ctx("text", batch["tokens"], batch["token_mask"])
        z = jax.random.normal(ctx.rng(name), (c.shape[0], 4))
        return ctx("g", z, c, train=True), c

    def d_loss(ctx, batch):
        image, c = fake(ctx, batch, "z")
        real = ctx("d", unit_range(batch["image"]), c, train=True)
        generated = ctx("d", jax.lax.stop_gradient(image), c, train=True)
        loss = nn.relu(1 - real).mean() + nn.relu(1 + generated).mean()
        loss = jnp.where(ctx.step == fails_at, jnp.nan, loss)
        return loss, {"real": real.mean()}

    def r1(ctx, batch):
        c = ctx("text", batch["tokens"], batch["token_mask"])
        grad = jax.grad(lambda x: ctx("d", x, c).sum())(unit_range(batch["image"]))
        return jnp.square(grad).sum((1, 2, 3)).mean(), {}

    def g_loss(ctx, batch):
        image, c = fake(ctx, batch, "z")
        return -ctx("d", image, c, train=True).mean(), {}

    nets = {"g": G(cfg.data.resolution), "d": D(cfg.model.get("width", 8)), "text": Encoder()}

    def init(key, batch):
        text = nets["text"].init(key, batch["tokens"], batch["token_mask"])
        c = jnp.zeros((2, 8))
        return {
            "text": text,
            "g": nets["g"].init(key, jnp.zeros((2, 4)), c),
            "d": nets["d"].init(key, unit_range(batch["image"][:2]), c),
        }

    def latent(key):
        return jax.random.normal(key, (4,))

    def text(ctx, batch):
        return ctx("text", batch["tokens"], batch["token_mask"])

    def settle(ctx, batch):
        z = jax.random.normal(ctx.rng("settle"), (batch["tokens"].shape[0], 4))
        ctx("g", z, text(ctx, batch), train=True)

    sampler = Sampler(
        draw=lambda ctx, rows, keys, *, z, text: {"image": ctx("g", z, text)},
        text=text,
        latent=latent,
        settle=settle,
        settle_batches=3,
    )

    def score(ctx, batch):
        keys = jax.random.split(ctx.rng("score"), batch["image"].shape[0])
        image = sampler(ctx, batch, keys)["image"]
        colours = [x.mean((0, 1, 2)) for x in (image, unit_range(batch["image"]))]
        return {"gap": jnp.abs(colours[0] - colours[1]).max()}

    return Method(
        nets=nets,
        players=(
            Player("d", ("d",), d_loss, tx),
            Player("g", ("g",), g_loss, tx),
            Player("r1", ("d",), r1, tx, every=4),
        ),
        init=init,
        needs=("image", "tokens", "token_mask"),
        sampler=sampler,
        frozen=("text",),
        ema={"g": Ema(half_life_images=64.0, rampup=0.05)},
        vocab=640,
        score=score,
        better={"gap": "lower"},
    )
