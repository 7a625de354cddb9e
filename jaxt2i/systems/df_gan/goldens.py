"""DF-GAN's networks, losses and one training step against its official code's numbers.

Sizes come from the folder's weights. Images and features are NCHW there, NHWC here.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.encoders.text import Text
from jaxt2i.engine.method import Batch, Ctx
from jaxt2i.nn.nearest import resize_nearest
from jaxt2i.systems.df_gan import method as df_gan
from jaxt2i.systems.df_gan import names as tables
from jaxt2i.verify import adversarial
from jaxt2i.verify.arrays import Arrays, centred, joint_norms, nchw, nhwc, picture
from jaxt2i.verify.networks import captured, convert_net
from jaxt2i.verify.step import Networks

SERVES = ("df_gan/*",)
TABLES = {net: made[0] for net, made in tables.TABLES.items()}
MODULES = {"g": df_gan.Generator, "d": df_gan.Features, "c": df_gan.OneWayOutput}
ROLES = {"g": "netG", "d": "netD", "c": "netC"}


def network(golden, net: str, name: str) -> tuple:
    """(module, variables) of one of "g", "d", "c", stored as `name`."""
    module = MODULES[net](**tables.infer(net, golden.weights(name)))
    return module, convert_net(golden, name, TABLES[net], module)


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
    """The method's own game on given sentences and pictures."""

    def text(self, ctx: Ctx, batch: Batch) -> Text:
        """The given sentences."""
        return Text(batch["sentence"], batch["sentence"], batch["sentence"])

    def pictures(self, batch: Batch) -> jax.Array:
        """The given pictures."""
        return batch["real"]


def networks(golden, case, prefix: str = "") -> tuple[Networks, GivenGame]:
    """The networks and inputs of a case, and the game on them."""
    made = {net: network(golden, net, prefix + name) for net, name in ROLES.items()}
    batch = {"sentence": jnp.asarray(case.inputs["in_sent"])}
    if "in_real" in case.inputs:
        batch["real"] = nhwc(case.inputs["in_real"])
    game = GivenGame(df_gan.Model(), None, made["g"][0].resolution)
    return Networks(made, TABLES, batch, draws={"z": case.inputs["in_noise"]}), game


def fake(game: GivenGame, ctx: Ctx, batch: Batch) -> jax.Array:
    """The generator's pictures."""
    return ctx("g", game.latents(ctx, batch), game.text(ctx, batch).sentence)


def d_turn(game: GivenGame, ctx: Ctx, batch: Batch) -> tuple:
    """The discriminator's loss and its penalty alone; the terms, and what they are made of."""
    sentence = game.text(ctx, batch).sentence
    loss, logs = game.d_loss(ctx, batch)
    own, other = game.real_terms(ctx, game.pictures(batch), sentence)
    parts = own.logits, other, ctx("c", ctx("d", fake(game, ctx, batch)), sentence), own.gradients
    return {"loss": loss, "penalty": logs["penalty"]}, (logs, parts)


def d_arrays(at: Networks, turn, names: list[str]) -> Arrays:
    """The discriminator's logits, terms and gradient norms."""
    logs, (own, other, drawn, (by_image, by_sentence)) = turn.logs
    return {
        "out_pred_real": own,
        # The original moves features where we move sentences: the same pairs in another order.
        "out_pred_mis": np.roll(other, -1),
        "out_pred_fake": drawn,
        "out_errD_real": logs["real"],
        "out_errD_mis": logs["mismatched"],
        "out_errD_fake": logs["fake"],
        "out_errD_MAGP": logs["penalty"],
        "out_errD": turn.value["loss"],
        "out_magp_gradnorm_image": joint_norms(by_image),
        "out_magp_gradnorm_sent": joint_norms(by_sentence),
        "out_magp_grad_image": nchw(by_image)[:, :, 3::16, 5::16],
        "out_magp_grad_sent": by_sentence,
        "out_gradnorm_errD": at.norms(turn.gradients["loss"], names),
        "out_gradnorm_MAGP": at.norms(turn.gradients["penalty"], names),
    }


def loss_d(golden, case) -> Arrays:
    """The discriminator's turn."""
    at, game = networks(golden, case)
    names = case.outputs["out_gradnorm_names"]
    turns = at.play(d=(lambda *a: d_turn(game, *a), ("d", "c")))
    return d_arrays(at, turns["d"], names) | {"out_gradnorm_names": names}


def loss_g(golden, case) -> Arrays:
    """The generator's turn, beside a discriminator that has not moved."""
    at, game = networks(golden, case)
    names = case.outputs["out_gradnorm_names"]

    def by_image(ctx, batch):
        sentence = game.text(ctx, batch).sentence

        def loss(image):
            logits = ctx("c", ctx("d", image), sentence)
            return -logits.mean(), logits

        return (), jax.grad(loss, has_aux=True)(fake(game, ctx, batch))

    turns = at.play(g=(game.g_loss, ("g",)), image=(by_image, ()))
    gradient, logits = turns["image"].logs
    return {
        "out_output": logits,
        "out_errG": turns["g"].value,
        "out_gradnorm_errG": at.norms(turns["g"].gradients, names),
        "out_gradnorm_names": names,
        "out_gradnorm_fake_image": joint_norms(gradient),
        "out_grad_fake_image": nchw(gradient)[:, :, 3::16, 5::16],
    }


def train_step(golden, case) -> Arrays:
    """One step of the engine."""
    return adversarial.train_step(case, *networks(golden, case), fake)


def small(golden, case) -> Arrays:
    """Everything at once, on small networks."""
    at, game = networks(golden, case, "small_")
    d_names, g_names = (case.outputs[f"out_gradnorm_{k}_names"] for k in "DG")

    def g_turn(ctx, batch):
        return game.g_loss(ctx, batch)[0], (fake(game, ctx, batch), ctx("d", batch["real"]))

    turns = at.play(d=(lambda *a: d_turn(game, *a), ("d", "c")), g=(g_turn, ("g",)))
    image, features = turns["g"].logs
    return d_arrays(at, turns["d"], d_names) | {
        "out_image": nchw(image)[:, :, ::2, ::2],
        "out_feat": nchw(features),
        "out_errG": turns["g"].value,
        "out_gradnorm_errG": at.norms(turns["g"].gradients, g_names),
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
