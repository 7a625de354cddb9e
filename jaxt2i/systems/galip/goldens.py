"""GALIP's blocks, networks, losses and one training step against its official code's numbers.

CLIP's own cases are in `encoders/clip_goldens.py`. Images and features are NCHW there, NHWC here.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.data.schema import to_uint8_floor
from jaxt2i.encoders import clip, perception
from jaxt2i.encoders import clip_names as clip_tables
from jaxt2i.engine.method import Batch, Ctx
from jaxt2i.losses.text import l2_normalize
from jaxt2i.nn.affine import Affine, Fusion, UpBlock
from jaxt2i.nn.nearest import nearest_index
from jaxt2i.systems.df_gan.names import affine, fusion, up_block
from jaxt2i.systems.galip import method as galip
from jaxt2i.systems.galip import names as tables
from jaxt2i.verify import adversarial
from jaxt2i.verify.arrays import Arrays, centred, joint_norms, nchw, nhwc, picture
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.networks import captured, convert_net, observe
from jaxt2i.verify.step import Networks

SERVES = ("galip/*",)
TABLES = {net: made[0] for net, made in tables.TABLES.items()}
MODULES = {"g": galip.Generator, "d": galip.Features, "c": galip.Quality}
ROLES = {"g": "netG", "d": "netD", "c": "netC"}


# --- Blocks ------------------------------------------------------------------------------------


def block(golden, net: str) -> tuple:
    """(module, its rename rules, which inputs it takes) of a small network of case `blocks`."""
    of = dict(golden.manifest["weights"][net]["tensors"])
    if net == "affine":
        return Affine(), affine("", ""), ("x7", "cond")
    if net == "dfblk":
        return Fusion(), fusion("", ""), ("x7", "cond")
    if net.startswith("m_block"):
        hidden, features = of["conv1.weight"][0], of["conv2.weight"][0]
        return galip.BridgeBlock(features, hidden), tables.bridge_block("", ""), ("x7", "cond")
    if net.startswith("g_block"):
        size = int(net.rpartition("to")[2])
        return UpBlock(of["c1.weight"][0], size), up_block("", ""), ("x7", "cond")
    inputs = ("x7", "y7") if "beta" in of else ("x7",)
    return galip.FeatureBlock(of["conv_r.0.weight"][0]), tables.feature_block("", ""), inputs


def blocks(golden, case) -> Arrays:
    """Every block, small."""
    given = {k.removeprefix("in_"): jnp.asarray(x) for k, x in case.inputs.items()}
    given = {k: nhwc(x) if x.ndim == 4 else x for k, x in given.items()}
    out = {}
    for net in case.info["weights"]:
        module, rules, inputs = block(golden, net)
        args = [given[k] for k in inputs]
        variables = convert_net(golden, net, rules, module, *args)
        out[f"out_{net}"] = nchw(compiled(module.apply)(variables, *args))
    return out


def resize_index(golden, case) -> Arrays:
    """Source indices of the nearest resize."""
    return {
        name: np.int32(nearest_index(*(int(n) for n in name.split("_")[:0:-1])))
        for name in case.outputs
    }


# --- Networks ----------------------------------------------------------------------------------


def network(golden, net: str) -> tuple:
    """(module, variables) of one of "g", "d", "c"."""
    name = ROLES[net]
    module = MODULES[net](**tables.infer(net, golden.weights(name)))
    return module, convert_net(golden, name, TABLES[net], module)


def tower(golden, net: str) -> tuple:
    """(module, variables) of CLIP's "text" or "image" tower."""
    table = {"text": clip_tables.OPENAI_TEXT, "image": clip_tables.OPENAI_IMAGE}[net]
    weights = golden.weights("clip")
    module = {"text": clip.ClipText, "image": clip.ClipImage}[net](
        **clip_tables.infer(net, weights)
    )
    return module, convert_net(golden, "clip", table, module)


class GivenGame(galip.Losses):
    """The method's own game on given pictures."""

    def pictures(self, batch: Batch) -> jax.Array:
        """The given pictures."""
        return batch["real"]


def networks(golden, case, text: bool = True) -> tuple[Networks, GivenGame]:
    """The networks and inputs of a case, and the game on them."""
    made = {net: network(golden, net) for net in ROLES if ROLES[net] in case.info["weights"]}
    made["image"] = tower(golden, "image")
    batch = {}
    if text:
        made["text"] = tower(golden, "text")
        batch["tokens"] = jnp.asarray(case.inputs["in_tokens"])
        batch["token_mask"] = batch["tokens"] != 0
    if "in_real" in case.inputs:
        batch["real"] = nhwc(case.inputs["in_real"])
    image = made["image"][0]
    sees = perception.Perception(
        text=made["text"][0] if text else None,
        guide=image,
        features=None,
        guide_norm=clip.normalize_image,
        feature_norm=clip.normalize_image,
        guide_resolution=image.resolution,
        feature_resolution=image.resolution,
        sentence=image.joint,
        load={},
        about="",
    )
    model = galip.Model()
    weight = golden.manifest.get("config", {}).get("sim_w", model.similarity_weight)
    model = dataclasses.replace(model, similarity_weight=weight)
    game = GivenGame(model, sees, made["g"][0].resolution)
    return Networks(made, TABLES, batch, draws={"z": case.inputs["in_noise"]}), game


def fake(game: GivenGame, ctx: Ctx, batch: Batch) -> jax.Array:
    """The generator's pictures."""
    return game.generate(ctx, game.latents(ctx, batch), game.text(ctx, batch).sentence)


def generator(golden, case) -> Arrays:
    """Every stage on the way to the picture, and its bytes."""
    at, game = networks(golden, case, text=False)
    module, see = at.nets["g"], at.nets["image"]

    def draw(variables, z, sentence):
        of = variables["g"], z, sentence
        first = observe(module, *of, method="bridge")
        bridge, prompts = first.output
        mapped = see.apply(
            variables["image"], bridge, prompts, game.model.first_prompt, method="prompted"
        )
        return first, mapped, observe(module, *of, bridge, mapped, method="draw")

    given = case.inputs["in_noise"], case.inputs["in_sent"]
    first, mapped, last = compiled(draw)(at.variables, *given)
    (bridge, prompts), inside = first.output, first.at
    image, late = last.output, last.at
    image, steps = nchw(image), len(galip.sizes(module.grid, module.resolution))
    out = {f"out_GBlocks{i}": centred(nchw(late(f"block_{i}"))[:, ::16]) for i in range(steps)}
    end = module.bridge_blocks - 1
    return out | {
        "out_fc_code": np.asarray(inside("fc_code"))[:, ::4],
        "out_prompts": np.asarray(prompts)[:, :, ::32],
        "out_FBlocks0": nchw(inside("bridge_block_0"))[:, ::4],
        f"out_FBlocks{end}": nchw(inside(f"bridge_block_{end}"))[:, ::4],
        "out_fuse_feat": nchw(bridge)[:, ::32],
        "out_map_feat": nchw(mapped)[:, ::32],
        "out_mapping": nchw(late("conv"))[:, ::32],
        "out_image": picture(image, (1, 2), 5),
        "out_image_chan_mean": image.mean((2, 3), dtype=np.float64),
        "out_image_chan_std": image.std((2, 3), dtype=np.float64),
        "out_image_row100": image[:, :, 100],
        "out_uint8_row100": to_uint8_floor(image)[:, :, 100],
    }


def discriminator(golden, case) -> Arrays:
    """Every block on made-up hidden states."""
    (see, seen), (judge, judged) = (network(golden, net) for net in "dc")
    states = jnp.moveaxis(jnp.asarray(case.inputs["in_feats"]), 2, -1)
    features, at = captured(see, seen, states)
    logits, inside = captured(judge, judged, features, jnp.asarray(case.inputs["in_sent"]))
    out = {f"out_DBlocks{i}": nchw(at(f"block{i}"))[:, ::16] for i in range(see.taps - 1)}
    return out | {
        "out_main": nchw(features)[:, ::8],
        "out_joint_conv0": nchw(inside("conv0")),
        "out_logit": np.asarray(logits)[:, None, None, None],
    }


# --- Losses ------------------------------------------------------------------------------------


def loss_d(golden, case) -> Arrays:
    """The discriminator's turn."""
    at, game = networks(golden, case)
    names = case.outputs["out_gradnorm_names"]

    def turn(ctx, batch):
        sentence = game.text(ctx, batch).sentence
        loss, logs = game.d_loss(ctx, batch)
        own, other = game.real_terms(ctx, game.look(ctx, game.pictures(batch))[0], sentence)
        states, _ = game.fake(ctx, batch, sentence)
        parts = own.logits, other, ctx("c", ctx("d", states), sentence), own.gradients
        return {"loss": loss, "penalty": logs["penalty"]}, (logs, parts)

    turn = at.play(d=(turn, ("d", "c")))["d"]
    logs, (own, other, drawn, (by_states, by_sentence)) = turn.logs
    alone = turn.gradients["penalty"]
    head = at.named({"c": alone["c"]})["joint_conv.2.weight"]
    return {
        "out_pred_real": own,
        "out_pred_mis": other,
        "out_pred_fake": drawn,
        "out_errD_real": logs["real"],
        "out_errD_mis": logs["mismatched"],
        "out_errD_fake": logs["fake"],
        "out_errD_MAGP": logs["penalty"],
        "out_errD": turn.value["loss"],
        "out_magp_gradnorm_feats": joint_norms(by_states),
        "out_magp_gradnorm_sent": joint_norms(by_sentence),
        "out_magp_grad_feats": np.moveaxis(np.asarray(by_states), -1, 2)[:, :, ::32],
        "out_magp_grad_sent": by_sentence,
        "out_gradnorm_errD": at.norms(turn.gradients["loss"], names),
        "out_gradnorm_MAGP": at.norms(alone, names),
        "out_gradnorm_names": names,
        "out_MAGP_grad_joint_conv.2.weight": head[0, ::8],
    }


def loss_g(golden, case) -> Arrays:
    """The generator's turn, beside a discriminator that has not moved."""
    at, game = networks(golden, case)
    names = case.outputs["out_gradnorm_names"]

    def terms(ctx, batch):
        total, logs = game.g_loss(ctx, batch)
        return {"total": total, **logs}, ()

    def by_image(ctx, batch):
        sentence = game.text(ctx, batch).sentence

        def loss(image):
            states, embedding = game.look(ctx, image)
            logits = ctx("c", ctx("d", states), sentence)
            cosine = (l2_normalize(embedding) * l2_normalize(sentence)).sum(-1)
            value = -logits.mean() - game.model.similarity_weight * cosine.mean()
            return value, (logits, cosine, embedding, states)

        return (), jax.grad(loss, has_aux=True)(fake(game, ctx, batch))

    turns = at.play(g=(terms, ("g",)), image=(by_image, ()))
    gradient, (logits, cosine, embedding, states) = turns["image"].logs
    values, gradients = turns["g"].value, turns["g"].gradients
    return {
        "out_output": logits,
        "out_cosine": cosine,
        "out_fake_emb": embedding,
        "out_fake_feats": np.moveaxis(np.asarray(states), -1, 2)[:, :, ::64],
        "out_adv": values["adversarial"],
        "out_errG": values["total"],
        "out_gradnorm_errG": at.norms(gradients["total"], names),
        "out_gradnorm_adv": at.norms(gradients["adversarial"], names),
        "out_gradnorm_sim": at.norms(gradients["similarity"], names),
        "out_gradnorm_names": names,
        "out_grad_fake_image": picture(nchw(gradient), (1, 2), 7),
        "out_gradnorm_fake_image": joint_norms(gradient),
    }


def train_step(golden, case) -> Arrays:
    """One step of the engine."""
    return adversarial.train_step(case, *networks(golden, case), fake)


CASES: dict[str, Callable[..., Arrays]] = {
    "blocks": blocks,
    "resize_index": resize_index,
    "netG": generator,
    "netD": discriminator,
    "loss_D": loss_d,
    "loss_G": loss_g,
    "train_step": train_step,
}
