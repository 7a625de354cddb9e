"""TextControlGAN's networks and losses against the numbers that their code computed.

Images and features are NCHW there, NHWC here.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.encoders.text import Text
from jaxt2i.engine.method import Batch, Ctx
from jaxt2i.nn.norms import SpectralConv
from jaxt2i.systems.textcontrol_gan import method as textcontrol
from jaxt2i.systems.textcontrol_gan import names as tables
from jaxt2i.verify.arrays import Arrays, hwio, nchw, nhwc, strided
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.networks import convert_net, observe
from jaxt2i.verify.step import Networks

SERVES = ("textcontrol_gan/*",)
ROLES = {"g": "netG", "d": "netD", "c": "netC"}
MODULES = {
    "g": textcontrol.Generator,
    "d": textcontrol.Discriminator,
    "c": textcontrol.Regressor,
}
# The tables at 64 pixels.
TABLES = {net: made[0] for net, made in tables.TABLES.items()}


def network(golden, net: str) -> tuple:
    """(module, variables) of "g", "d" or "c"."""
    module = MODULES[net](**tables.infer(net, golden.weights(ROLES[net])))
    return module, convert_net(golden, ROLES[net], TABLES[net], module)


def given(case, *names: str) -> tuple[jax.Array, ...]:
    """Inputs by name."""
    return tuple(jnp.asarray(case.inputs[f"in_{name}"]) for name in names)


def small(golden, case) -> Arrays:
    """The conditional norm, a spectral layer in both modes, and a block whose ReLU is in place."""
    x, labels = nhwc(case.inputs["in_x"]), jnp.asarray(case.inputs["in_labels"])
    norm, block = textcontrol.ConditionalNorm(), textcontrol.Residual(7)
    rules = {
        "cbn": tuple(tables.conditional("", "")),
        "resblock_down": tuple(tables.residual("", "", down=True)),
    }
    made = {
        "cbn": convert_net(golden, "cbn", rules["cbn"], norm, x, labels),
        "resblock_down": convert_net(golden, "resblock_down", rules["resblock_down"], block, x),
    }
    layer = SpectralConv(6, use_bias=False)
    vectors = {"u": case.inputs["in_u"], "v": case.inputs["in_v"]}
    weight = {"params": {"kernel": hwio(case.inputs["in_W"])}, "spectral": vectors}

    @compiled
    def run(made, weight, x, labels, pictures):
        trained, after = layer.apply(
            weight, pictures, train=True, mutable=["spectral", "intermediates"]
        )
        (sigma,) = after["intermediates"]["sigma"]
        return {
            "out_cbn": norm.apply(made["cbn"], x, labels),
            "out_resblock_down": block.apply(made["resblock_down"], x),
            "out_conv_eval": layer.apply(weight, pictures),
            "out_conv_train": trained,
            "out_u_after": after["spectral"]["u"],
            "out_v_after": after["spectral"]["v"],
            "out_W_sn": weight["params"]["kernel"] / sigma,
        }

    out = run(made, weight, x, labels, nhwc(case.inputs["in_conv_x"]))
    out["out_W_sn"] = np.transpose(np.asarray(out["out_W_sn"]), (3, 2, 0, 1))
    pictures = ("out_cbn", "out_resblock_down", "out_conv_eval", "out_conv_train")
    return out | {name: nchw(out[name]) for name in pictures}


def generator(golden, case) -> Arrays:
    """Stored statistics; then a batch's, its gradients, and the statistics behind it."""
    module, variables = network(golden, "g")
    batch = dict(zip(("z", "sentence"), given(case, "z", "emb"), strict=True))

    def turn(ctx: Ctx, batch: Batch) -> tuple:
        quiet = ctx.observe("g", batch["z"], batch["sentence"])
        image = ctx("g", batch["z"], batch["sentence"], train=True)
        return jnp.square(image).mean(), (quiet, image)

    at = Networks({"g": (module, variables)}, {"g": TABLES["g"]}, batch)
    played = at.play(g=(turn, ("g",)))["g"]
    quiet, image = played.logs
    statistics = played.extra["g"]["batch_stats"]["norm"]
    start = np.asarray(quiet.at("start"))
    return {
        "out_eval_img": nchw(quiet.output),
        "out_proj_pre_tanh": quiet.at("projection2"),
        "out_conv_first": start[:, ::64],
        "out_cbn1": strided(quiet.at("block1/norm1"), 32, 1),
        "out_res1": strided(quiet.at("block1"), 32, 2),
        "out_res2": strided(quiet.at("block2"), 32, 4),
        "out_res4": strided(quiet.at("block4"), 16, 8),
        "out_train_img": strided(image, 1, 2),
        "out_train_mean_sq": played.value,
        "out_train_grad_norms": at.norms(played.gradients, order(golden, case, "train_grad_norms")),
        "out_running_mean_after": statistics["mean"],
        "out_running_var_after": statistics["var"],
    }


def order(golden, case, name: str) -> list[str]:
    """The parameters behind the entries of an array of norms."""
    return golden.order(case.info["entries"][f"out_{name}"])


def discriminator(golden, case) -> Arrays:
    """The critic, with one text and with another."""
    module, variables = network(golden, "d")
    image, (text,) = nhwc(case.inputs["in_real"]), given(case, "emb")

    @compiled
    def run(variables, image, text):
        return observe(module, variables, image, text), module.apply(variables, image, -text)

    seen, other = run(variables, image, text)
    at = seen.at
    return {
        "out_score": seen.output,
        "out_score_other_text": other,
        "out_conv_first": strided(at("trunk/block0"), 8, 4),
        "out_res1": strided(at("trunk/block1"), 16, 2),
        "out_res3": strided(at("trunk/block3"), 64, 1),
        "out_res4": strided(at("trunk/block4"), 64, 1),
    }


class GivenGame(textcontrol.Losses):
    """The method's own game on given pictures and sentences, with spectral vectors at rest."""

    def text(self, ctx: Ctx, batch: Batch) -> Text:
        """The given sentences."""
        return Text(batch["sentence"], batch["sentence"], batch["sentence"])

    def pictures(self, batch: Batch) -> jax.Array:
        """The given pictures."""
        return batch["real"]

    def look(self, ctx: Ctx, net: str, *args, **kw) -> jax.Array:
        """As it is."""
        return ctx(net, *args, **kw)


GAME = GivenGame(textcontrol.Model(regressor_batch="shared"), None, 64)


def networks(golden, case, nets: str, **kw) -> Networks:
    """Networks and inputs of a case."""
    batch = {"sentence": given(case, "emb")[0], "real": nhwc(case.inputs["in_real"])}
    return Networks({n: network(golden, n) for n in nets}, TABLES, batch, **kw)


def regressor(golden, case) -> Arrays:
    """The regressor's prediction, its turn, and the gradients."""
    at = networks(golden, case, "c")

    def turn(ctx: Ctx, batch: Batch) -> tuple:
        return GAME.c_loss(ctx, batch)[0], ctx.observe("c", batch["real"])

    played = at.play(c=(turn, ("c",)))["c"]
    seen = played.logs
    return {
        "out_pred": seen.output,
        "out_loss": played.value,
        "out_grad_norms": at.norms(played.gradients, order(golden, case, "grad_norms")),
        "out_conv_first": strided(seen.at("trunk/block0"), 8, 4),
        "out_res2": strided(seen.at("trunk/block2"), 16, 1),
        "out_res4": strided(seen.at("trunk/block4"), 16, 1),
    }


def step_losses(golden, case) -> Arrays:
    """All terms of the critic and the generator with given draws, and their gradients."""
    z, beta, alpha, permutation = given(case, "z", "beta", "alpha", "perm")
    draws = {"z_d": z, "z_g": z, "beta": beta, "order": permutation, "alpha": nhwc(alpha)}
    at = networks(golden, case, "gdc", draws=draws)

    def d_turn(ctx: Ctx, batch: Batch) -> tuple:
        loss, logs = GAME.d_loss(ctx, batch)
        return {"loss": loss, "penalty": logs["penalty"]}, logs

    def g_turn(ctx: Ctx, batch: Batch) -> tuple:
        loss, logs = GAME.g_loss(ctx, batch)
        return {"loss": loss, "adversarial": logs["adversarial"], "text": logs["text"]}, logs

    def judged(ctx: Ctx, batch: Batch) -> tuple:
        between = GAME.sentences(ctx, batch["sentence"])
        fake = ctx("g", GAME.latents(ctx, between, "d"), between, train=True)
        return (), (fake, *(GAME.look(ctx, "d", x, between) for x in (batch["real"], fake)))

    turns = at.play(d=(d_turn, ("d",)), g=(g_turn, ("g",)), scores=(judged, ()))
    d, g = turns["d"], turns["g"]
    fake, real_score, fake_score = turns["scores"].logs
    out = {
        "out_fake": strided(fake, 1, 4),
        "out_d_real": real_score,
        "out_d_fake": fake_score,
        "out_gp": d.logs["penalty"],
        "out_l2_d": d.logs["biases"],
        "out_err_d": d.value["loss"],
        "out_g_adv": g.logs["adversarial"],
        "out_g_reg": g.logs["text"],
        "out_l2_g": g.logs["biases"],
        "out_err_g": g.value["loss"],
    }
    for name, turn, key in (
        ("gp", d, "penalty"),
        ("err_d", d, "loss"),
        ("g_adv", g, "adversarial"),
        ("g_reg", g, "text"),
        ("err_g", g, "loss"),
    ):
        named = order(golden, case, f"{name}_grad_norms")
        out[f"out_{name}_grad_norms"] = at.norms(turn.gradients[key], named)
    return out


CASES: dict[str, Callable[..., Arrays]] = {
    "cbn_spectral_norm": small,
    "generator": generator,
    "discriminator": discriminator,
    "regressor": regressor,
    "step_losses": step_losses,
}
