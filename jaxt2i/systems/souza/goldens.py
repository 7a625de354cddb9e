"""Souza et al.'s networks and losses against the numbers that their code computed.

Images and features are NCHW there, NHWC here.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.engine.method import Batch, Ctx, Ema
from jaxt2i.losses.adversarial import FAMILIES
from jaxt2i.systems.souza import method as souza
from jaxt2i.systems.souza import names as tables
from jaxt2i.verify.arrays import Arrays, nhwc, norm, strided
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.networks import Observed, captured, convert_net, observe
from jaxt2i.verify.step import Networks, Turn

SERVES = ("souza_single_stage/*",)
TABLES = {net: made[0] for net, made in tables.TABLES.items()}
MODULES = {"g": souza.Generator, "d": souza.Discriminator}
# Names of the loss families in the official code.
OFFICIAL = {
    "hinge": "hingegan",
    "least_squares": "lsgan",
    "logistic": "sgan",
    "relativistic_logistic": "rasgan",
    "relativistic_least_squares": "ralsgan",
    "relativistic_hinge": "rahingegan",
}


def network(golden, net: str) -> tuple:
    """(module, variables) of "g" or "d"."""
    name = net.upper()
    module = MODULES[net](**tables.infer(net, golden.weights(name)))
    return module, convert_net(golden, name, TABLES[net], module)


def inputs(case) -> tuple[jax.Array, jax.Array]:
    """(z, sentence)."""
    return jnp.asarray(case.inputs["in_z"]), jnp.asarray(case.inputs["in_sent_emb"])


def official(path: str) -> str:
    """A layer's path here, of an official layer name with underscores for dots."""
    for theirs, ours in (("_gammas_projection", "/gamma"), ("_betas_projection", "/beta")):
        path = path.replace(theirs, ours)
    path = "start" if path == "block1" else path
    return path.replace("_bn", "/bn").replace("_conv", "/conv").replace("non_local_", "non_local/")


def g_eval(golden, case) -> Arrays:
    """The generator with stored statistics and vectors."""
    image, at = captured(*network(golden, "g"), *inputs(case))
    full = np.asarray(image, np.float64).reshape(len(image), -1)
    out = {
        "out_image": strided(image, 1, 8),
        "out_block2": strided(at("block2"), 8, 1),
        "out_block5": strided(at("block5"), 8, 2),
        "out_block9": strided(at("block9"), 8, 4),
        "out_non_local": strided(at("non_local"), 8, 4),
        "out_block13": strided(at("block13"), 4, 16),
        "out_image_mean_std": np.stack([full.mean(1), full.std(1)], 1),
    }
    for name in case.outputs:
        if name.startswith("out_sigma_"):
            out[name] = at(official(name.removeprefix("out_sigma_")), "sigma")
    return out


def g_train(golden, case) -> Arrays:
    """The generator with batch statistics and one power iteration a layer."""
    module, variables = network(golden, "g")

    def run(variables, given) -> Observed:
        kept = [k for k in variables if k != "params"]
        return observe(module, variables, *given, train=True, mutable=kept)

    found = compiled(run)(variables, inputs(case))
    image, at, changed = found.output, found.at, found.changed
    first = changed["batch_stats"]["block2"]["bn1"]["norm"]
    last = changed["batch_stats"]["bn"]
    final = max(changed["spectral"], key=lambda n: int(n[5:]) if n.startswith("block") else 0)
    return {
        "out_image": strided(image, 1, 8),
        "out_block2": strided(at("block2"), 8, 1),
        "out_block13": strided(at("block13"), 4, 16),
        "out_running_mean_block2_bn1": first["mean"],
        "out_running_var_block2_bn1": first["var"],
        "out_running_mean_final_bn": last["mean"],
        "out_running_var_final_bn": last["var"],
        f"out_weight_u_{final}": changed["spectral"][final]["u"],
    }


def d_eval(golden, case) -> Arrays:
    """The discriminator with stored vectors."""
    module, variables = network(golden, "d")
    sentence = jnp.asarray(case.inputs["in_sent_emb"])

    @compiled
    def run(variables, fake, real):
        fake = module.apply(variables, fake, sentence)
        return fake, observe(module, variables, real, sentence)

    fake, seen = run(variables, *(nhwc(case.inputs[f"in_{k}"]) for k in ("fake", "real")))
    real, at = seen.output, seen.at
    return {
        "out_logits_real": real,
        "out_logits_fake": fake,
        "out_block2": strided(at("block2"), 8, 16),
        "out_non_local": strided(at("non_local"), 8, 8),
        "out_block10": strided(at("block10"), 16, 2),
        "out_block13": strided(at("block13"), 16, 1),
    }


class GivenGame(souza.Losses):
    """The method's own game on given sentences and pictures."""

    def sentences(self, ctx: Ctx, batch: Batch) -> jax.Array:
        """The given sentences."""
        return batch["sentence"]

    def pictures(self, batch: Batch) -> jax.Array:
        """The given pictures."""
        return batch["real"]


def play(golden, case, player: str) -> tuple[Turn, dict]:
    """One player's turn, and {official name: gradient}; a given picture stands for the generator's.

    Only the networks that the folder's case names are there.
    """
    get = case.inputs
    fake = {"g": nhwc(get["in_fake"])} if "in_fake" in get else {}
    made = {net: network(golden, net) for net in ("g", "d") if net not in fake}
    batch = {"sentence": jnp.asarray(get["in_sent_emb"])}
    if "in_real" in get:
        batch["real"] = nhwc(get["in_real"])
    draws = {f"z_{player}": get["in_z"]} if "in_z" in get else {}
    at = Networks(made, TABLES, batch, draws=draws, watch=("d",), stand_in=fake)
    loss = getattr(GivenGame(souza.Model(), None, 0), f"{player}_loss")
    turn = at.play(turn=(loss, (player,)))["turn"]
    named = at.named(turn.gradients)
    return turn, {k.replace(".", "_"): np.asarray(x) for k, x in named.items()}


def gradients(case, named: dict) -> Arrays:
    """Norms of the gradients that a case stores."""
    start = "out_gradnorm_"
    return {k: norm(named[k.removeprefix(start)]) for k in case.outputs if start in k}


def d_step(golden, case) -> Arrays:
    """The discriminator's turn on given pictures, the generated ones first."""
    turn, named = play(golden, case, "d")
    fake, real = turn.outputs["d"]
    return gradients(case, named) | {
        "out_logits_fake": fake,
        "out_logits_real": real,
        "out_loss_fake": turn.logs["fake"],
        "out_loss_real": turn.logs["real"],
        "out_weight_u_linear_in": turn.extra["d"]["spectral"]["emb_proj"]["u"][::8],
        "out_grad_linear_out_weight_orig": named["linear_out_weight_orig"][:, ::8],
    }


def g_step(golden, case) -> Arrays:
    """The generator's turn."""
    turn, named = play(golden, case, "g")
    (logits,) = turn.outputs["d"]
    return gradients(case, named) | {
        "out_logits": logits,
        "out_loss": turn.value,
        "out_grad_block14_bias": named["block14_bias"],
    }


def losses(golden, case) -> Arrays:
    """Every family of adversarial losses."""

    @compiled
    def run(real, fake):
        out = {}
        for ours, theirs in OFFICIAL.items():
            family = FAMILIES[ours]
            out[f"out_{theirs}_d_real"] = family.real(real, fake)
            out[f"out_{theirs}_d_fake"] = family.fake(real, fake)
            out[f"out_{theirs}_g"] = family.g(real, fake)
        return out

    return run(*(case.inputs[f"in_logits_{k}"] for k in ("real", "fake")))


def sentence_interpolation(golden, case) -> Arrays:
    """Mixtures of captions with the draws given."""

    @compiled
    def run(u, captions):
        mixed = souza.mixture(u, jnp.ones(u.shape, bool), captions)
        return {"out_weights": jax.nn.softmax(u, -1)[..., None], "out_sent_emb": mixed}

    u = case.inputs["in_uniform"][..., 0].astype(np.float32)
    return run(u, case.inputs["in_caption_embeddings"])


def cases(golden, case) -> Arrays:
    """Examples by hand of single formulas."""
    made = []
    for item in case.data["cases"]:
        given = {k.removeprefix("in_"): jnp.asarray(x) for k, x in item.items() if k[:3] == "in_"}
        if item["name"] == "sentence_interpolation":
            u = given["uniform_0_10"][None]
            mixed = souza.mixture(u, jnp.ones(u.shape, bool), given["caption_embeddings"][None])
            out = {"out_weights": jax.nn.softmax(u[0]), "out_sentence": mixed[0]}
        elif item["name"] == "hinge":
            family = FAMILIES["hinge"]
            both = given["real"], given["fake"]
            out = {"out_D": family.real(*both) + family.fake(*both), "out_G": family.g(*both)}
        else:
            half_life = -1 / np.log2(item["in_mu"])
            beta = Ema(half_life, rampup=None).beta(jnp.zeros(()), 1)
            out = {"out": given["new"] + beta * (given["avg"] - given["new"])}
        made.append(item | {k: np.asarray(x).tolist() for k, x in out.items()})
    return {"*": {**case.data, "cases": made}}


CASES: dict[str, Callable[..., Arrays]] = {
    "g_eval": g_eval,
    "g_train": g_train,
    "d_eval": d_eval,
    "d_step": d_step,
    "g_step": g_step,
    "losses": losses,
    "sentence_interpolation": sentence_interpolation,
    "cases": cases,
}
