"""The networks of latent diffusion against diffusers' modules.

Pictures and features are NCHW in the folder, NHWC here.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.convert import rules
from jaxt2i.encoders import clip_names
from jaxt2i.encoders.clip import ClipText
from jaxt2i.encoders.diffusion import names
from jaxt2i.encoders.diffusion.control import ControlNet
from jaxt2i.encoders.diffusion.unet import UNet
from jaxt2i.encoders.diffusion.vae import VAE
from jaxt2i.nn import diffusion
from jaxt2i.systems.iir_net.goldens import schedule_of
from jaxt2i.verify.arrays import Arrays, nchw, nhwc, norm
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.golden import Case, Golden
from jaxt2i.verify.networks import convert_net, observe

SERVES = ("iir_net/*",)


def sizes(config: dict) -> dict:
    """The fields that a U-Net and a ControlNet share, of diffusers' configuration."""
    return {
        "channels": tuple(config["block_out_channels"]),
        "layers": config["layers_per_block"],
        "heads": config["attention_head_dim"],
        "context": config["cross_attention_dim"],
        "groups": config["norm_num_groups"],
        "attention": tuple(kind.startswith("CrossAttn") for kind in config["down_block_types"]),
    }


def unet_of(golden: Golden, name: str = "unet") -> tuple[UNet, dict]:
    """(the folder's U-Net, its variables)."""
    config = golden.config(name)
    module = UNet(**sizes(config), out_channels=config["out_channels"])
    return module, convert_net(golden, name, names.UNET, module)


def control_of(golden: Golden, name: str) -> tuple[ControlNet, dict]:
    """(a ControlNet of the folder, its variables)."""
    config = golden.config(name)
    module = ControlNet(
        **sizes(config),
        condition_channels=config["conditioning_channels"],
        embedding=tuple(config["conditioning_embedding_out_channels"]),
    )
    channels = config["in_channels"]
    return module, convert_net(golden, name, names.CONTROL, module, *module.example(channels))


def given(case: Case) -> tuple:
    """(latent, times, text) of a case."""
    x = nhwc(case.inputs["in_sample"])
    # One time may stand for all of them.
    t = np.broadcast_to(np.reshape(case.inputs["in_timestep"], -1), len(x))
    return x, t, case.inputs["in_context"]


def scale_of(case: Case) -> np.ndarray:
    """The weight of the condition; 1 where the case names none."""
    return np.float32(case.inputs.get("in_conditioning_scale", 1))


def unet(golden: Golden, case: Case) -> Arrays:
    """The noise, and what happens on the way."""
    module, variables = unet_of(golden)
    last = len(module.channels) - 1
    paths = {
        "time_embedding": "down/time",
        "conv_in": "down/conv_in",
        "down0_resnet0": "down/level0_res0",
        "down0_attn0_block0": "down/level0_attention0/block",
        "down0": "down/level0_half",
        f"down{last}": f"down/level{last}_res{module.layers - 1}",
        "mid": "down/mid_res1",
        "up0": "up0_double",
        f"up{last}": f"up{last}_attention{module.layers}",
    }

    @compiled
    def run(variables, x, t, context):
        seen = observe(module, variables, x, t, context)
        return {"sample": seen.output} | {name: seen.at(path) for name, path in paths.items()}

    return named(run(variables, *given(case)))


def controlnet(golden: Golden, case: Case) -> Arrays:
    """All residuals, and how the picture is read."""
    (name,) = case.info["weights"]
    module, variables = control_of(golden, name)

    @compiled
    def run(variables, x, t, context, picture, scale):
        seen = observe(module, variables, x, t, context, picture, scale=scale)
        skips, mid = seen.output
        out = {"mid": mid, "cond_embedding": seen.at("condition")}
        return out | {f"down_{k}": x for k, x in enumerate(skips)}

    return named(run(variables, *given(case), nhwc(case.inputs["in_cond"]), scale_of(case)))


def unet_control(golden: Golden, case: Case) -> Arrays:
    """The noise with a ControlNet's residuals and without."""
    (unet, unet_variables), (control, control_variables) = pair(golden, case)

    @compiled
    def run(variables, scale, *inputs):
        # Both in one batch, the second with a scale of 0.
        x, t, context, picture = (jnp.concatenate([x, x]) for x in inputs)
        scale = jnp.repeat(jnp.stack([scale, jnp.zeros_like(scale)]), len(inputs[0]))
        skips, mid = control.apply(variables[1], x, t, context, picture, scale=scale)
        return jnp.split(unet.apply(variables[0], x, t, context, skips=skips, mid=mid), 2)

    variables, picture = (unet_variables, control_variables), nhwc(case.inputs["in_cond"])
    held, plain = run(variables, scale_of(case), *given(case), picture)
    return named({"sample": held, "sample_without_control": plain})


def vae(golden: Golden, case: Case) -> Arrays:
    """Both directions, and what happens on the way."""
    (name,) = case.info["weights"]
    config = golden.config(name)
    module = VAE(
        channels=tuple(config["block_out_channels"]),
        layers=config["layers_per_block"],
        latent=config["latent_channels"],
        out_channels=config["out_channels"],
        groups=config["norm_num_groups"],
        scale=config["scaling_factor"],
    )
    variables = convert_net(golden, name, (names.VAE,), module)

    @compiled
    def run(variables, image, noise, latent):
        seen = observe(module, variables, image, method="encode")
        decoded = observe(module, variables, latent, method="decode")
        mean, log_variance = seen.output
        return {
            "mean": mean,
            "logvar": log_variance,
            "scaled_sample": module.apply(variables, image, noise, method="sample"),
            "decoded": decoded.output,
            "enc_down0": seen.at("encoder/level0_half"),
            "enc_mid_attn": seen.at("encoder/mid/attention"),
            "dec_up0": decoded.at("decoder/up0_double"),
        }

    return named(
        run(variables, *(nhwc(case.inputs[f"in_{k}"]) for k in ("image", "noise", "latent")))
    )


def text_encoder(golden: Golden, case: Case) -> Arrays:
    """The text tower as Stable Diffusion reads it."""
    (name,) = case.info["weights"]
    config = golden.config(name)
    module = ClipText(
        **clip_names.infer("text", golden.weights(name))
        | {
            "heads": config["num_attention_heads"],
            "act": config["hidden_act"],
            "eps": config["layer_norm_eps"],
            "eot": config["eos_token_id"],
        }
    )
    variables = convert_net(golden, name, (names.TEXT,), module)
    run = compiled(lambda variables, tokens: module.apply(variables, tokens))
    found = run(variables, case.inputs["in_input_ids"])
    shown = case.outputs["out_last_hidden_state"].shape[1]  # of 77 positions
    return named({"last_hidden_state": found.words[:, :shown], "pooled": found.sentence})


def held(unet: nn.Module, control: nn.Module) -> Callable:
    """(variables of both, x, t, context, picture) -> the noise that the ControlNet steers."""

    def run(variables, x, t, context, picture):
        skips, mid = control.apply(variables[1], x, t, context, picture)
        return unet.apply(variables[0], x, t, context, skips=skips, mid=mid)

    return run


def plan_of(golden: Golden) -> diffusion.Schedule:
    """The folder's schedule."""
    return schedule_of(golden.manifest["config"]["scheduler"])


def cfg_loop(golden: Golden, case: Case) -> Arrays:
    """Guided steps of DDIM."""
    (unet, unet_variables), (control, control_variables) = pair(golden, case)
    network, plan, inputs = held(unet, control), plan_of(golden), case.inputs
    steps = int(inputs["in_num_steps"])

    @compiled
    def run(variables, x, without, asked, picture, weight):
        predict = diffusion.guided(partial(network, variables), without, asked, weight, picture)
        turn = diffusion.stepping(predict, steps, schedule=plan, eta=case.info["config"]["eta"])

        def one(so_far, number):
            so_far = turn(number, so_far)
            return so_far, (so_far.guess, so_far.x)

        return jax.lax.scan(one, diffusion.Sampling(x, x, x), jnp.arange(steps))[1]

    eps, latents = run(
        (unet_variables, control_variables),
        nhwc(inputs["in_latent"]),
        inputs["in_context_uncond"],
        inputs["in_context_cond"],
        nhwc(inputs["in_cond"]),
        inputs["in_guidance_scale"],
    )
    return {
        "out_timesteps": plan.timesteps(steps),
        "out_guided_eps": channels_first(eps),
        "out_latents": channels_first(latents),
    }


def train_loss(golden: Golden, case: Case) -> Arrays:
    """The loss of the noise, and norms of its gradients by the ControlNet's parameters."""
    (unet, unet_variables), (control, control_variables) = pair(golden, case)
    network, plan, inputs = held(unet, control), plan_of(golden), case.inputs

    @compiled
    def run(params, variables, latent, noise, t, context, picture):
        noisy = diffusion.add_noise(plan, latent, noise, t)

        def loss(params):
            guess = network((variables, {"params": params}), noisy, t, context, picture)
            return jnp.square(guess - noise).mean()

        return noisy, *jax.value_and_grad(loss)(params)

    noisy, loss, gradients = run(
        control_variables["params"],
        unet_variables,
        *(nhwc(inputs[f"in_{k}"]) for k in ("latent", "noise")),
        inputs["in_timestep"],
        inputs["in_context"],
        nhwc(inputs["in_cond"]),
    )
    tensors = rules.to_torch(names.CONTROL, {"params": gradients})
    norms = {f"out_gradnorm_{k.replace('.', '_')}": norm(x) for k, x in tensors.items()}
    return named({"noisy": noisy, "loss": loss}) | norms


def pair(golden: Golden, case: Case) -> tuple[tuple, tuple]:
    """((U-Net, variables), (ControlNet, variables)) of a case."""
    control, unet = sorted(case.info["weights"])
    return unet_of(golden, unet), control_of(golden, control)


def channels_first(x: np.ndarray) -> np.ndarray:
    """[..., H, W, C] as [..., C, H, W]."""
    return np.moveaxis(np.asarray(x), -1, -3)


def named(found: dict) -> Arrays:
    """Outputs under the folder's names, maps with their channels first."""
    return {f"out_{k}": nchw(x) if x.ndim == 4 else np.asarray(x) for k, x in found.items()}


CASES: dict[str, Callable[[Golden, Case], Arrays]] = {
    "unet_control*": unet_control,
    "unet*": unet,
    "controlnet*": controlnet,
    "vae*": vae,
    "text_encoder*": text_encoder,
    "cfg_loop*": cfg_loop,
    "train_loss*": train_loss,
}
