"""Obj-GAN's shape generator against its official code's numbers."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.encoders import vgg19_bn_names
from jaxt2i.encoders.vgg19_bn import Vgg19Bn, seen_by_vgg19
from jaxt2i.systems.obj_gan_shapes import method as shapes
from jaxt2i.systems.obj_gan_shapes import names
from jaxt2i.systems.obj_gan_shapes.networks import Critic, Generator
from jaxt2i.verify.arrays import Arrays, nchw
from jaxt2i.verify.networks import convert_net
from jaxt2i.verify.step import Networks

SERVES = ("obj_gan/shape_*",)
MODEL = shapes.Model()
# Rows and columns that are stored of the layers of the perceptual network.
STRIDES = {0: 56, 3: 28, 8: 7, 15: 7}
TERMS = {"INS_LAMBDA": "ins", "GLB_LAMBDA": "glb", "PCP_LAMBDA": "perceptual"}


class Given(shapes.Losses):
    """The method's own losses of given maps."""

    def layout(self, batch) -> dict[str, jax.Array]:
        """As the case has them."""
        return batch


def network(golden, net: str, own: str) -> tuple:
    """(module, variables, table) of a network of the folder, called `own` here."""
    weights = golden.weights(net)
    if own == "vgg":
        table, kind = vgg19_bn_names.FEATURES, Vgg19Bn
        fields = vgg19_bn_names.infer("features", weights)
    else:
        table, kind = names.TABLES[own][0], Generator if own == "g" else Critic
        fields = names.infer(own, weights)
    module = kind(**fields)
    return module, convert_net(golden, net, table, module), table


def scene(case) -> dict[str, jax.Array]:
    """The maps of a case, of which every place takes part."""
    get = case.inputs
    both = {k: f"in_bbox_maps_{v}" for k, v in (("forward", "fwd"), ("backward", "bwd"))}
    maps = {k: jnp.moveaxis(jnp.asarray(get[v], jnp.float32), 2, -1) for k, v in both.items()}
    batch, slots = maps["forward"].shape[:2]
    return maps | {
        "crops": jnp.asarray(get["in_bbox_fmaps"], jnp.float32),
        "count": jnp.full(batch, slots, jnp.int32),
        "weight": jnp.ones((batch, slots)),
    }


def generator(golden, case) -> Arrays:
    """Masks, what happens on the way, and gradients of their mean square."""
    (net,) = case.info["weights"]
    module, variables, table = network(golden, net, "g")
    at = Networks({"g": (module, variables)}, {"g": table}, scene(case))
    z = jnp.asarray(case.inputs["in_z"])

    def turn(ctx, batch):
        given = (batch[k] for k in ("forward", "backward", "crops", "count"))
        seen = ctx.observe("g", z, *given)
        return jnp.square(seen.output).mean(), (seen.output, seen.inside)

    played = at.play(turn=(turn, ("g",)))["turn"]
    masks, inside = played.logs
    ahead, back = inside["states"][0]
    order = golden.order(case.info["entries"]["out_grad_norms"])

    flat = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
    maps = {
        "out_down_fwd": flat(inside["shrunk"][0]),
        "out_fwd_h_last": ahead[:, -1],
        "out_bwd_h_last": back[:, -1],
        "out_joint": inside["joined"][0],
        "out_residual": inside["residual"][0],
        "out_up2": inside["large"][0],
    }
    # Whole: what compares takes the stored rows, columns and channels of them.
    return {name: nchw(x) for name, x in maps.items()} | {
        "out_masks": np.asarray(masks)[:, :, None, ::2, ::2],
        "out_mean_sq": played.value,
        "out_grad_norms": at.norms(played.gradients, order),
    }


def losses(golden, case) -> Arrays:
    """Both discriminators' losses, the perceptual network, every term of G's, all gradients."""
    made = {
        own: network(golden, net, own)
        for own, net in zip(("g", "ins", "glb", "vgg"), case.info["weights"], strict=True)
    }
    batch = scene(case) | {"shapes": jnp.asarray(case.inputs["in_masks"], jnp.float32)}
    slots, size = batch["weight"].shape[1], batch["shapes"].shape[-1]
    draws = {"z": np.asarray(case.inputs["in_z"])}
    known = {own: table for own, (*_, table) in made.items() if own != "vgg"}
    at = Networks(made, known, batch, draws=draws)
    game = Given(MODEL, size, slots, draws["z"].shape[-1])

    def seen(ctx, batch):
        flat = (x.reshape(-1, *x.shape[2:]) for x in (batch["shapes"], batch["forward"]))
        said = ctx.observe("ins", *flat)
        pooled = game.together(batch["shapes"], batch["weight"])
        spread = jnp.broadcast_to(pooled[..., None], (*pooled.shape, 3))
        return (), (said.output, said.inside["features"][0], ctx("vgg", seen_by_vgg19(spread)))

    def every(ctx, batch):
        total, logs = game.g_loss(ctx, batch)
        return {name: logs[own] for name, own in TERMS.items()} | {"total": total}, ()

    turns = {net: (functools.partial(game.d_loss, net), (net,)) for net in ("ins", "glb")}
    played = at.play(**turns, g=(every, ("g",)), seen=(seen, ()))
    said, features, layers = played["seen"].logs
    out = {
        "out_ins_feat": nchw(features),
        "out_ins_logits": np.asarray(jax.nn.sigmoid(said))[:, None, None, None],
        f"out_vgg{len(layers) - 1}": layers[-1],
    }
    for i, step in STRIDES.items():
        out[f"out_vgg{i}"] = nchw(layers[i])[:, ::2, ::step, ::step]
    entries = case.info["entries"]
    for net in ("ins", "glb"):
        order = golden.order(entries[f"out_{net}_d_grad_norms"])
        out[f"out_{net}_d_loss"] = played[net].value
        out[f"out_{net}_d_grad_norms"] = at.norms(played[net].gradients, order)
    for name, value in played["g"].value.items():
        order = golden.order(entries[f"out_g_grad_{name}"])
        out[f"out_g_{name}"] = value
        out[f"out_g_grad_{name}"] = at.norms(played["g"].gradients[name], order)
    return out


CASES: dict[str, Callable[..., Arrays]] = {"shape_g_*": generator, "shape_losses*": losses}
