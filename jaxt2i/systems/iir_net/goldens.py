"""IIR-Net's own formulas against worked examples, and the noise schedule against diffusers'.

There is no official code. Networks, guided loops and the loss are with the encoders.
"""

import re
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.nn import diffusion
from jaxt2i.systems.iir_net import removal
from jaxt2i.verify.compute import compiled

SERVES = ("iir_net/schedule*", "iir_net/cases*")
# The files hold every 37th entry of the tables.
STRIDE = 37


def schedule_of(config: Mapping) -> diffusion.Schedule:
    """A schedule from diffusers' names.

    Raises:
      ValueError: for a setting that we do not have.
    """
    fixed = {"clip_sample": False, "timestep_spacing": "leading"}
    if strange := [k for k, x in fixed.items() if config.get(k, x) != x]:
        raise ValueError(f"{strange[0]}={config[strange[0]]!r}: only {fixed[strange[0]]!r} is here")
    names = {
        "num_train_timesteps": "length",
        "beta_start": "beta_start",
        "beta_end": "beta_end",
        "beta_schedule": "curve",
        "steps_offset": "offset",
        "set_alpha_to_one": "final_one",
        "prediction_type": "prediction",
    }
    return diffusion.Schedule(**{ours: config[k] for k, ours in names.items() if k in config})


def walk(plan: diffusion.Schedule, inputs: Mapping, eta: float) -> dict:
    """Every step of DDIM from given predictions and noises."""
    guesses, noises = (jnp.asarray(inputs[f"in_{k}"]) for k in ("model_output", "variance_noise"))

    @compiled
    def run(x, guesses, noises):
        def turn(so_far, number):
            step = diffusion.stepping(
                lambda x, t: guesses[number],
                len(guesses),
                schedule=plan,
                eta=eta,
                noise=lambda number: noises[number],
            )
            so_far = step(number, so_far)
            return so_far, so_far

        start = diffusion.Sampling(x, x, x)
        return jax.lax.scan(turn, start, jnp.arange(len(guesses)))[1]

    out = run(jnp.asarray(inputs["in_latent"]), guesses, noises)
    return {"latents": np.asarray(out.x), "pred_x0": np.asarray(out.clean)}


def schedule(golden, case) -> dict:
    """Tables, timesteps, training pairs and DDIM of the given predictions."""
    config = {**golden.manifest.get("config", {}), **case.info["config"]}["scheduler"]
    plan, inputs = schedule_of(config), case.inputs
    final = 1.0 if plan.final_one else plan.abar[0]
    out = {
        "out_betas": plan.betas[::STRIDE],
        "out_alphas_cumprod": plan.abar[::STRIDE],
        "out_final_alpha_cumprod": np.asarray(final),
        "out_alphas_cumprod_0_1_999": plan.abar[[0, 1, 999]] if plan.length > 999 else None,
    }
    if "in_x0" in inputs:
        given = [jnp.asarray(inputs[f"in_{k}"]) for k in ("x0", "noise", "t")]
        out["out_add_noise"] = compiled(lambda *a: diffusion.add_noise(plan, *a))(*given)
        out["out_velocity"] = compiled(lambda *a: diffusion.velocity(plan, *a))(*given)
    for name in case.outputs:
        if found := re.fullmatch(r"out_timesteps_(\d+)", name):
            out[name] = plan.timesteps(int(found[1]))
        elif found := re.fullmatch(r"out_latents_eta(\d+)p(\d+)", name):
            kind = "eta{}p{}".format(*found.groups())
            made = walk(plan, inputs, float("{}.{}".format(*found.groups())))
            out |= {f"out_{k}_{kind}": x for k, x in made.items()}
    return out


# --- Worked examples ---------------------------------------------------------------------------


def information_removal(item: dict) -> dict:
    """Grey-out and noise, at every level of the example."""
    plan = diffusion.Schedule()
    image, mask, noise = (
        jnp.asarray(item[f"in_{k}"], jnp.float32)[None] for k in ("image_0_1", "mask", "noise")
    )

    @compiled
    def run(image, mask, noise, abar):
        left = {
            where: removal.removed(2 * image - 1, mask, abar, noise, where)
            for where in removal.NOISED
        }
        return left, {k: removal.condition(x, mask)[..., :3] for k, x in left.items()}

    levels = []
    for level in item["levels"]:
        abar = plan.abar[level["tau"]]
        left, shown = run(image, mask, noise, jnp.asarray([abar], jnp.float32))
        kind = level["noise_region"]
        made = {"out_removed_minus1_1": left[kind][0], "out_condition_rgb": shown[kind][0]}
        levels.append(level | {"alpha_bar": float(abar)} | plain(made))
    made = compiled(lambda x, m: (removal.grey(x)[0, ..., 0], removal.without_colour(x, m)[0]))
    gray, colour = made(image, mask)
    return plain({"out_gray": gray, "out_colour_removed": colour}) | {"levels": levels}


def alpha_bar_table(item: dict) -> dict:
    """The schedule's own abar."""
    return plain({"out_alpha_bar": diffusion.Schedule().abar[item["t"]]})


def first_conv(item: dict) -> dict:
    """[O, 3, kh, kw] to [O, 4, kh, kw]."""
    kernel = jnp.transpose(jnp.asarray(item["in_weight_3ch"]), (2, 3, 1, 0))
    made = jnp.transpose(compiled(removal.first_kernel)(kernel), (3, 2, 0, 1))
    return plain({"out_weight_4ch": made})


def guided_step(item: dict) -> dict:
    """One guided prediction and the steps that it makes."""
    plan = diffusion.Schedule()
    x, without, asked, noise = (
        jnp.asarray([item[f"in_{k}"]], jnp.float32)
        for k in ("latent", "eps_uncond", "eps_cond", "variance_noise")
    )
    t, before, eta = item["in_t"], item["in_t_prev"], item["in_eta"]

    @compiled
    def run(x, without, asked, noise):
        eps = diffusion.guide(without, asked, item["in_guidance"])
        abar, then, first = (plan.at(s) for s in (t, before, 0))
        clean, _ = diffusion.split(abar, x, eps, plan.prediction)
        near, _ = diffusion.split(plan.at(1), x, eps, plan.prediction)
        sigma = diffusion.ddim_sigma(abar, then, eta)
        return {
            "out_eps": eps[0],
            "out_pred_x0": clean[0],
            "out_prev_eta0": diffusion.ddim(abar, then, clean, eps, 0.0, noise)[0],
            "out_sigma": sigma,
            f"out_prev_eta{eta}".replace(".", "p"): diffusion.ddim(
                abar, then, clean, eps, eta, noise
            )[0],
            "out_last_step_t1_eta0": diffusion.ddim(plan.at(1), first, near, eps, 0.0, noise)[0],
        }

    return plain(run(x, without, asked, noise))


def plain(arrays: Mapping) -> dict:
    """Arrays as the lists of a JSON file."""
    return {k: np.asarray(x).tolist() for k, x in arrays.items()}


EXAMPLES: dict[str, Callable[[dict], dict]] = {
    "information_removal": information_removal,
    "alpha_bar_table": alpha_bar_table,
    "first_conv_from_canny_controlnet": first_conv,
    "cfg_and_ddim_step": guided_step,
}


def cases(golden, case) -> dict:
    """Every worked example."""
    made = [item | EXAMPLES[item["name"]](item) for item in case.data["cases"]]
    return {"*": {**case.data, "cases": made}}


CASES: dict[str, Callable[..., dict]] = {"schedule*": schedule, "cases*": cases}
