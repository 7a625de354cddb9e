"""A GAN that draws a caption inside given boxes."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.data.schema import unit_range
from jaxt2i.engine.method import Control, Method, Player, Sampler
from tests import toys

LAYOUT = ("boxes", "box_label", "box_mask")
Z = 8


class Generator(nn.Module):
    size: int

    @nn.compact
    def __call__(self, z, sentence, boxes, label, mask):
        at = (jnp.arange(self.size) + 0.5) / self.size
        inside = lambda o, w: (at >= o[..., None]) & (at < (o + w)[..., None])  # noqa: E731
        x, y, w, h = jnp.moveaxis(boxes, -1, 0)  # [B, N]
        where = inside(y, h)[..., :, None] & inside(x, w)[..., None, :] & mask[..., None, None]
        code = nn.Embed(64, 16)(label)  # [B, N, 16]
        layout = jnp.einsum("bnhw,bnc->bhwc", where.astype(jnp.float32), code)
        code = nn.Dense(16)(jnp.concatenate([z, sentence], -1))[:, None, None]
        x = nn.relu(nn.Conv(32, (3, 3))(layout + code))
        small = nn.avg_pool(nn.tanh(nn.Conv(3, (3, 3))(x)), (2, 2), (2, 2))
        return nn.tanh(nn.Conv(3, (3, 3))(nn.relu(nn.Conv(32, (3, 3))(x)))), small


class Critic(nn.Module):
    @nn.compact
    def __call__(self, image, sentence):
        x = nn.leaky_relu(nn.Conv(16, (4, 4), 2)(image)).mean((1, 2))
        return nn.Dense(1)(jnp.concatenate([x, sentence], -1))[:, 0]


def build(cfg) -> Method:
    nets = {"text": toys.Words(), "g": Generator(cfg.data.resolution), "d": Critic()}

    def text(ctx, rows):
        return ctx("text", rows["tokens"], rows["token_mask"])

    def draw(ctx, rows, keys, *, z, text, psi):
        image, small = ctx("g", psi * z, text.sentence, *(rows[k] for k in LAYOUT))
        return {"image": image, "stages": (small, image)}

    sampler = Sampler(
        draw,
        needs=("tokens", "token_mask", *LAYOUT),
        text=text,
        latent=lambda key: jax.random.normal(key, (Z,)),
        controls=(Control("psi", 1.0, 0.0, 2.0, help="shrinks the latent"),),
        pixels="floor",
    )

    def fake(ctx, batch):
        keys, words = jax.random.split(ctx.rng("z"), len(batch["image"])), text(ctx, batch)
        return sampler(ctx, batch, keys, text=words)["image"], words.sentence

    def d_loss(ctx, batch):
        image, sentence = jax.lax.stop_gradient(fake(ctx, batch))
        real = nn.softplus(-ctx("d", unit_range(batch["image"]), sentence)).mean()
        return real + nn.softplus(ctx("d", image, sentence)).mean(), {}

    def g_loss(ctx, batch):
        return nn.softplus(-ctx("d", *fake(ctx, batch))).mean(), {}

    def inputs(b):
        s = jnp.zeros((1, 16))
        return {
            "text": (b["tokens"][:1], b["token_mask"][:1]),
            "g": (jnp.zeros((1, Z)), s, *(b[k][:1] for k in LAYOUT)),
            "d": (jnp.zeros((1, 16, 16, 3)), s),
        }

    return Method(
        nets=nets,
        players=(
            Player("d", ("d",), d_loss, toys.adam()),
            Player("g", ("g", "text"), g_loss, toys.adam()),
        ),
        init=toys.initialise(nets, inputs),
        needs=("image", "tokens", "token_mask", *LAYOUT),
        sampler=sampler,
    )


def get_config(_=None):
    return toys.config("box_gan")
