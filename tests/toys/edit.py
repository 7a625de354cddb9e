"""A diffusion editor in pixels: source picture with its region's information removed, and text."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.data.schema import unit_range
from jaxt2i.engine.method import Control, Method, Player, Sampler
from tests import toys

T = 1000
ABAR = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, T) ** 2).astype(np.float32)
TEXTS = ("tokens", "token_mask", "negative_tokens", "negative_token_mask")


class Unet(nn.Module):
    @nn.compact
    def __call__(self, x, t, sentence, control, scale=1.0):
        f = jnp.exp(-jnp.log(1e4) * jnp.arange(8) / 8) * t[:, None]
        time = nn.Dense(32)(jnp.concatenate([jnp.cos(f), jnp.sin(f), sentence], -1))
        h = nn.Conv(32, (3, 3))(x) + scale * nn.Conv(32, (3, 3), name="control")(control)
        h = nn.silu(nn.GroupNorm(4)(h + time[:, None, None]))
        return nn.Conv(3, (3, 3))(nn.silu(nn.Conv(32, (3, 3))(h)))


def build(cfg) -> Method:
    nets, size = {"text": toys.Words(), "unet": Unet()}, cfg.data.resolution

    def removed(image, region, noise, tau):
        """Grey inside the region, then noise of level tau: the control [B, H, W, 4]."""
        m = region[..., None].astype(jnp.float32) / 255
        grey = (image * jnp.array([0.299, 0.587, 0.114])).sum(-1, keepdims=True)
        level = jnp.asarray(ABAR)[jnp.asarray(tau, jnp.int32)][..., None, None, None]
        x = (m * grey + (1 - m) * image) * jnp.sqrt(level) + jnp.sqrt(1 - level) * noise
        return jnp.concatenate([x, m], -1)

    def text(ctx, rows):
        return {
            "asked": ctx("text", rows["tokens"], rows["token_mask"]).sentence,
            "not": ctx("text", rows["negative_tokens"], rows["negative_token_mask"]).sentence,
        }

    def draw(ctx, rows, keys, *, z, text, steps, guidance, strength, control, scheduler):
        n, shape = len(keys), rows["image"].shape[1:]
        noise = lambda k: jax.vmap(lambda q: jax.random.normal(q, shape))(k)  # noqa: E731
        own = jax.vmap(jax.random.fold_in, (0, None))
        given = removed(
            unit_range(rows["image"]), rows["edit_region"], noise(own(keys, 0)), strength
        )
        both = jnp.concatenate([text["not"], text["asked"]])

        def turn(number, x):
            t = (steps - 1 - number) * (T // steps) + 1
            last = t - T // steps
            twice = lambda a: jnp.concatenate([a, a])  # noqa: E731
            eps = ctx("unet", twice(x), jnp.full(2 * n, t), both, twice(given), control)
            eps = eps[:n] + guidance * (eps[n:] - eps[:n])
            now, then = jnp.asarray(ABAR)[t], jnp.asarray(ABAR)[jnp.maximum(last, 0)]
            clean = (x - jnp.sqrt(1 - now) * eps) / jnp.sqrt(now)
            eta = float(scheduler == "ddpm")
            sigma = eta * jnp.sqrt((1 - then) / (1 - now) * (1 - now / then))
            fresh = noise(own(keys, 1 + number)) if eta else 0.0
            x = jnp.sqrt(then) * clean + jnp.sqrt(1 - then - sigma**2) * eps + sigma * fresh
            return x

        x = jax.lax.fori_loop(0, steps, turn, noise(keys))
        return {"image": x, "source": unit_range(rows["image"]), "seen": given[..., :3]}

    def loss(ctx, batch):
        image = unit_range(batch["image"])
        n = len(image)
        t = jax.random.randint(ctx.rng("t"), (n,), 0, T)
        tau = jax.random.randint(ctx.rng("tau"), (n,), 0, T)
        noise, eps = jax.random.normal(ctx.rng("eps"), (2, *image.shape))
        level = jnp.asarray(ABAR)[t][:, None, None, None]
        # The region: some of the things in the picture.
        some = jax.random.bernoulli(ctx.rng("region"), 0.5, batch["box_mask"].shape)
        shapes = (some & batch["box_mask"])[..., None, None] * batch["shape_masks"]
        region = jax.image.resize(shapes.max(1), (n, size, size), "nearest")
        drop = jax.random.bernoulli(ctx.rng("drop"), 0.1, (n, 1))
        codes = text(ctx, batch)
        sentence = jnp.where(drop, codes["not"], codes["asked"])
        x = jnp.sqrt(level) * image + jnp.sqrt(1 - level) * eps
        guess = ctx("unet", x, t, sentence, removed(image, region, noise, tau))
        return ((guess - eps) ** 2).mean(), {}

    def inputs(b):
        picture = jnp.zeros((1, size, size, 3))
        return {
            "text": (b["tokens"][:1], b["token_mask"][:1]),
            "unet": (picture, jnp.zeros(1), jnp.zeros((1, 16)), jnp.zeros((1, size, size, 4))),
        }

    return Method(
        nets=nets,
        players=(Player("eps", ("unet", "text"), loss, toys.adam()),),
        init=toys.initialise(nets, inputs),
        needs=("image", "shape_masks", "box_mask", *TEXTS),
        sampler=Sampler(
            draw,
            needs=("image", "edit_region", *TEXTS),
            text=text,
            multiple=8,
            controls=(
                Control("steps", 10, 1, T, help="of the sampler"),
                Control("guidance", 7.5, 0.0, 30.0, help="1 = none"),
                Control("strength", 600.0, 0.0, 999.0, help="noise on the source"),
                Control("control", 1.0, 0.0, 2.0, help="weight of the source"),
                Control("scheduler", "ddim", choices=("ddim", "ddpm"), help="how steps go"),
            ),
        ),
    )


def get_config(_=None):
    return toys.config("edit")
