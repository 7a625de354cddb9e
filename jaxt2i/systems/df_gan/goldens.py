"""DF-GAN's networks, losses and one training step against its official code's numbers.

Sizes come from the folder's weights. Images and features are NCHW there, NHWC here.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.encoders.text import Text
from jaxt2i.engine.method import Batch, Ctx, Player
from jaxt2i.nn.optim import Adam
from jaxt2i.nn.resample import resize_nearest
from jaxt2i.systems.df_gan import method as df_gan
from jaxt2i.systems.df_gan import names as tables
from jaxt2i.systems.stylegan_t.goldens_ops import Arrays, captured, convert_net, nchw, nhwc
from jaxt2i.verify.board import Board

TABLES = {net: made[0] for net, made in tables.TABLES.items()}
MODULES = {"g": df_gan.Generator, "d": df_gan.Features, "c": df_gan.OneWayOutput}
ROLES = {"g": "netG", "d": "netD", "c": "netC"}


def network(golden, net: str, name: str) -> tuple:
    """(module, variables) of one of "g", "d", "c", stored as `name`."""
    module = MODULES[net](**tables.infer(net, golden.weights(name)))
    return module, convert_net(golden, name, TABLES[net], module, *module.example())


def centred(x: np.ndarray) -> np.ndarray:
    """Eight rows and columns of [B, C, H, W], from the middle of each eighth."""
    step = max(1, x.shape[-1] // 8)
    return x[:, :, step // 2 :: step, step // 2 :: step]


def picture(image: np.ndarray, start: tuple[int, int], step: int) -> np.ndarray:
    """Every step-th pixel of [B, 3, H, W]."""
    return image[:, :, start[0] :: step, start[1] :: step]


def generator(golden, case) -> Arrays:
    """Every block, and the picture."""
    module, variables = network(golden, "g", "netG")
    z, sentence = (jnp.asarray(case.inputs[f"in_{k}"]) for k in ("noise", "sent"))
    image, at = captured(module, variables, z, sentence)
    image = nchw(image)
    blocks = df_gan.blocks_of(module.resolution)
    out = {f"out_GBlocks{i}": centred(nchw(at(f"block{i}"))[:, ::8]) for i in range(blocks)}
    first = resize_nearest(at("block0/fuse1"), 8)  # ours comes before the resize
    return out | {
        "out_fuse1_b0": nchw(first)[:, ::8],
        "out_pre_tanh": picture(nchw(at("to_rgb")), (1, 2), 9),
        "out_image": picture(image, (1, 2), 6),
        "out_image_chan_mean": image.mean((2, 3), dtype=np.float64),
        "out_image_chan_std": image.std((2, 3), dtype=np.float64),
        "out_image_row100": image[:, :, 100],
    }


def discriminator(golden, case) -> Arrays:
    """Every block of the image part, then the joint part."""
    (see, seen), (judge, judged) = (network(golden, net, ROLES[net]) for net in "dc")
    features, at = captured(see, seen, nhwc(case.inputs["in_image"]))
    logits, inside = captured(judge, judged, features, jnp.asarray(case.inputs["in_sent"]))
    blocks = df_gan.blocks_of(see.resolution)
    out = {f"out_DBlocks{i}": centred(nchw(at(f"block{i}"))[:, ::8]) for i in range(blocks)}
    return out | {
        "out_conv_img": nchw(at("conv_img"))[:, ::4, 3::16, 5::16],
        "out_feat": nchw(features)[:, ::2],
        "out_joint_conv0": nchw(inside("conv0")),
        "out_logit": np.asarray(logits)[:, None, None, None],
    }


class GivenGame(df_gan.Losses):
    """The method's own game on given latents, sentences and pictures."""

    def text(self, ctx: Ctx, batch: Batch) -> Text:
        """The given sentences."""
        return Text(batch["sentence"], batch["sentence"], batch["sentence"])

    def pictures(self, batch: Batch) -> jax.Array:
        """The given pictures."""
        return batch["real"]

    def latents(self, ctx: Ctx, batch: Batch) -> jax.Array:
        """The given latents."""
        return batch["z"]


def board(golden, case, prefix: str = "") -> tuple[Board, GivenGame]:
    """The networks and inputs of a case, and the game on them."""
    made = {net: network(golden, net, prefix + name) for net, name in ROLES.items()}
    batch = {
        "z": jnp.asarray(case.inputs["in_noise"]),
        "sentence": jnp.asarray(case.inputs["in_sent"]),
    }
    if "in_real" in case.inputs:
        batch["real"] = nhwc(case.inputs["in_real"])
    nets, variables = ({n: pair[k] for n, pair in made.items()} for k in (0, 1))
    game = GivenGame(df_gan.Model(), None, nets["g"].resolution)
    return Board(nets, variables, TABLES, batch), game


def joint_norms(gradients) -> np.ndarray:
    """Each example's norm over one array."""
    return np.linalg.norm(np.asarray(gradients, np.float64).reshape(len(gradients), -1), axis=1)


def d_arrays(at: Board, game: GivenGame, names: list[str]) -> Arrays:
    """The discriminator's logits, terms and gradient norms."""

    def look(ctx, batch):
        sentence = game.text(ctx, batch).sentence
        image = ctx("g", game.latents(ctx, batch), sentence)
        own, other = game.real_terms(ctx, game.pictures(batch), sentence)
        return own, other, ctx("c", ctx("d", image), sentence)

    def penalty(ctx, batch):
        sentence = game.text(ctx, batch).sentence
        return game.real_terms(ctx, game.pictures(batch), sentence)[0].penalty, ()

    own, other, fake = at.run(look)
    loss, logs, gradients = at.gradient(game.d_loss, ("d", "c"))
    _, _, alone = at.gradient(penalty, ("d", "c"))
    by_image, by_sentence = own.gradients
    return {
        "out_pred_real": own.logits,
        # The original moves features where we move sentences: the same pairs in another order.
        "out_pred_mis": np.roll(other, -1),
        "out_pred_fake": fake,
        "out_errD_real": logs["real"],
        "out_errD_mis": logs["mismatched"],
        "out_errD_fake": logs["fake"],
        "out_errD_MAGP": logs["penalty"],
        "out_errD": loss,
        "out_magp_gradnorm_image": joint_norms(by_image),
        "out_magp_gradnorm_sent": joint_norms(by_sentence),
        "out_magp_grad_image": nchw(by_image)[:, :, 3::16, 5::16],
        "out_magp_grad_sent": by_sentence,
        "out_gradnorm_errD": at.norms(gradients, names),
        "out_gradnorm_MAGP": at.norms(alone, names),
    }


def loss_d(golden, case) -> Arrays:
    """The discriminator's turn."""
    names = case.outputs["out_gradnorm_names"]
    return d_arrays(*board(golden, case), names) | {"out_gradnorm_names": names}


def loss_g(golden, case) -> Arrays:
    """The generator's turn, beside a discriminator that has not moved."""
    at, game = board(golden, case)
    names = case.outputs["out_gradnorm_names"]

    def by_image(ctx, batch):
        sentence = game.text(ctx, batch).sentence
        image = ctx("g", game.latents(ctx, batch), sentence)

        def loss(image):
            logits = ctx("c", ctx("d", image), sentence)
            return -logits.mean(), logits

        return jax.grad(loss, has_aux=True)(image)

    gradient, logits = at.run(by_image)
    loss, _, gradients = at.gradient(game.g_loss, ("g",))
    return {
        "out_output": logits,
        "out_errG": loss,
        "out_gradnorm_errG": at.norms(gradients, names),
        "out_gradnorm_names": names,
        "out_gradnorm_fake_image": joint_norms(gradient),
        "out_grad_fake_image": nchw(gradient)[:, :, 3::16, 5::16],
    }


def players(game) -> tuple[Player, Player]:
    """Both players with the published optimisers."""
    return (
        Player("d", ("d", "c"), game.d_loss, Adam(lr=4e-4, b1=0.0, b2=0.9).tx()),
        Player("g", ("g",), game.g_loss, Adam(lr=1e-4, b1=0.0, b2=0.9).tx()),
    )


def train_step(golden, case) -> Arrays:
    """One step of the engine: the discriminator's Adam, then the generator's."""
    at, game = board(golden, case)
    params, metrics = at.play(players(game))
    named = at.named(params)
    image = at.nets["g"].apply({"params": params["g"]}, at.batch["z"], at.batch["sentence"])
    out = {
        "out_errD": metrics["d/loss"],
        "out_errG_after_D_step": metrics["g/loss"],
        "out_image_after": picture(nchw(image), (1, 2), 9),
    }
    for name in case.outputs:
        if name.startswith("out_after_"):
            x = named[name.removeprefix("out_after_")].reshape(-1)
            out[name] = x[::16] if x.size > 32 else x
    return out


def small(golden, case) -> Arrays:
    """Everything at once, on small networks."""
    at, game = board(golden, case, "small_")
    d_names, g_names = (case.outputs[f"out_gradnorm_{k}_names"] for k in "DG")
    loss, _, gradients = at.gradient(game.g_loss, ("g",))
    image = at.run(lambda ctx, batch: ctx("g", batch["z"], batch["sentence"]))
    features = at.run(lambda ctx, batch: ctx("d", batch["real"]))
    return d_arrays(at, game, d_names) | {
        "out_image": nchw(image)[:, :, ::2, ::2],
        "out_feat": nchw(features),
        "out_errG": loss,
        "out_gradnorm_errG": at.norms(gradients, g_names),
        "out_gradnorm_D_names": d_names,
        "out_gradnorm_G_names": g_names,
    }


CASES: dict[str, Callable[..., Arrays]] = {
    "netG": generator,
    "netD": discriminator,
    "loss_D": loss_d,
    "loss_G": loss_g,
    "train_step": train_step,
    "small": small,
}
