"""Souza et al.'s networks and losses against the numbers that their code computed.

Images and features are NCHW there, NHWC here.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.convert import rules
from jaxt2i.engine.method import Batch, Ctx, Ema, Method
from jaxt2i.losses.adversarial import FAMILIES
from jaxt2i.systems.souza import method as souza
from jaxt2i.systems.souza import names as tables
from jaxt2i.systems.stylegan_t.goldens_ops import Arrays, convert_net, nchw, nhwc

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
    return module, convert_net(golden, name, TABLES[net], module, *module.example())


def inside(module, variables: dict, *args, train: bool = False) -> tuple:
    """(output, intermediates, changed collections) of one call."""

    def run(variables, args):
        kept = ["intermediates", *(k for k in variables if k != "params")]
        return module.apply(variables, *args, train=train, capture_intermediates=True, mutable=kept)

    output, changed = jax.jit(run)(variables, args)
    return output, changed.pop("intermediates"), changed


def strided(x: jax.Array, channels: int, pixels: int) -> np.ndarray:
    """[B, H, W, C] as [B, C, H, W] with strides."""
    return nchw(x)[:, ::channels, ::pixels, ::pixels]


def at(tree: dict, path: str, method: str = "__call__"):
    """An intermediate by the path of its module."""
    for part in path.split("/"):
        tree = tree[part]
    return tree[method][0]


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
    module, variables = network(golden, "g")
    image, tree, _ = inside(module, variables, *inputs(case))
    full = np.asarray(image, np.float64).reshape(len(image), -1)
    out = {
        "out_image": strided(image, 1, 8),
        "out_block2": strided(at(tree, "block2"), 8, 1),
        "out_block5": strided(at(tree, "block5"), 8, 2),
        "out_block9": strided(at(tree, "block9"), 8, 4),
        "out_non_local": strided(at(tree, "non_local"), 8, 4),
        "out_block13": strided(at(tree, "block13"), 4, 16),
        "out_image_mean_std": np.stack([full.mean(1), full.std(1)], 1),
    }
    for name in case.outputs:
        if name.startswith("out_sigma_"):
            node = tree
            for part in official(name.removeprefix("out_sigma_")).split("/"):
                node = node[part]
            out[name] = node["sigma"][0]
    return out


def g_train(golden, case) -> Arrays:
    """The generator with batch statistics and one power iteration a layer."""
    module, variables = network(golden, "g")
    image, tree, changed = inside(module, variables, *inputs(case), train=True)
    first = changed["batch_stats"]["block2"]["bn1"]["norm"]
    last = changed["batch_stats"]["bn"]
    final = max(changed["spectral"], key=lambda n: int(n[5:]) if n.startswith("block") else 0)
    return {
        "out_image": strided(image, 1, 8),
        "out_block2": strided(at(tree, "block2"), 8, 1),
        "out_block13": strided(at(tree, "block13"), 4, 16),
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
    fake, _, _ = inside(module, variables, nhwc(case.inputs["in_fake"]), sentence)
    real, tree, _ = inside(module, variables, nhwc(case.inputs["in_real"]), sentence)
    return {
        "out_logits_real": real,
        "out_logits_fake": fake,
        "out_block2": strided(at(tree, "block2"), 8, 16),
        "out_non_local": strided(at(tree, "non_local"), 8, 8),
        "out_block10": strided(at(tree, "block10"), 16, 2),
        "out_block13": strided(at(tree, "block13"), 16, 1),
    }


@dataclasses.dataclass(frozen=True)
class GivenGame(souza.Losses):
    """The method's own game on given latents, sentences and pictures, with a note of the logits.

    Attributes:
      logits: filled while a loss is traced, in the order of the discriminator's calls.
    """

    logits: list = dataclasses.field(default_factory=list)

    def sentences(self, ctx: Ctx, batch: Batch) -> jax.Array:
        """The given sentences."""
        return batch["sentence"]

    def pictures(self, batch: Batch) -> jax.Array:
        """The given pictures."""
        return batch["real"]

    def latents(self, ctx: Ctx, sentence: jax.Array, name: str) -> jax.Array:
        """The given latents."""
        return ctx.given.get("z")


class GivenCtx(Ctx):
    """The engine's context, in which the generator may be a given picture.

    Attributes:
      given: the inputs of the case.
      logits: what the discriminator said, call by call.
    """

    given: dict
    logits: list

    def __call__(self, net: str, *args, **kw):
        if net == "g" and "fake" in self.given:
            return self.given["fake"]
        out = super().__call__(net, *args, **kw)
        if net == "d":
            self.logits.append(out)
        return out


def play(golden, case, player: str, nets: tuple[str, ...]) -> tuple:
    """(loss, logs, logits, extra, {official name: gradient}) of one player's turn."""
    made = {net: network(golden, net) for net in nets}
    method = Method({n: m for n, (m, _) in made.items()}, (), init=None, needs=())
    game = GivenGame(souza.Model(), None, 0)
    batch = {"sentence": jnp.asarray(case.inputs["in_sent_emb"])}
    for name in ("real", "fake"):
        if f"in_{name}" in case.inputs:
            batch[name] = nhwc(case.inputs[f"in_{name}"])
    if "in_z" in case.inputs:
        batch["z"] = jnp.asarray(case.inputs["in_z"])
    params = {n: v["params"] for n, (_, v) in made.items()}
    extra = {n: {k: x for k, x in v.items() if k != "params"} for n, (_, v) in made.items()}

    def value(trained, params, extra, batch):
        ctx = GivenCtx(method, {**params, player: trained}, extra, {}, key=jax.random.key(0))
        ctx.given, ctx.logits = batch, []
        loss, logs = getattr(game, f"{player}_loss")(ctx, batch)
        return loss, (logs, ctx.logits, ctx.extra)

    step = jax.jit(jax.value_and_grad(value, has_aux=True))
    (loss, (logs, logits, extra)), gradient = step(params[player], params, extra, batch)
    named = rules.to_torch(TABLES[player], {"params": gradient})
    named = {k.replace(".", "_"): np.asarray(x, np.float64) for k, x in named.items()}
    return loss, logs, logits, extra, named


def gradients(case, named: dict) -> Arrays:
    """Norms of the gradients that a case stores."""
    start = "out_gradnorm_"
    return {k: np.linalg.norm(named[k.removeprefix(start)]) for k in case.outputs if start in k}


def d_step(golden, case) -> Arrays:
    """The discriminator's turn on given pictures, the generated ones first."""
    _, logs, (fake, real), extra, named = play(golden, case, "d", ("d",))
    return gradients(case, named) | {
        "out_logits_fake": fake,
        "out_logits_real": real,
        "out_loss_fake": logs["fake"],
        "out_loss_real": logs["real"],
        "out_weight_u_linear_in": extra["d"]["spectral"]["emb_proj"]["u"][::8],
        "out_grad_linear_out_weight_orig": named["linear_out_weight_orig"][:, ::8],
    }


def g_step(golden, case) -> Arrays:
    """The generator's turn."""
    loss, _, (logits,), _, named = play(golden, case, "g", ("g", "d"))
    return gradients(case, named) | {
        "out_logits": logits,
        "out_loss": loss,
        "out_grad_block14_bias": named["block14_bias"],
    }


def losses(golden, case) -> Arrays:
    """Every family of adversarial losses."""
    real, fake = (jnp.asarray(case.inputs[f"in_logits_{k}"]) for k in ("real", "fake"))
    out = {}
    for ours, theirs in OFFICIAL.items():
        family = FAMILIES[ours]
        out[f"out_{theirs}_d_real"] = family.real(real, fake)
        out[f"out_{theirs}_d_fake"] = family.fake(real, fake)
        out[f"out_{theirs}_g"] = family.g(real, fake)
    return out


def sentence_interpolation(golden, case) -> Arrays:
    """Mixtures of captions with the draws given."""
    u = jnp.asarray(case.inputs["in_uniform"][..., 0], jnp.float32)
    captions = jnp.asarray(case.inputs["in_caption_embeddings"])
    return {
        "out_weights": jax.nn.softmax(u, -1)[..., None],
        "out_sent_emb": souza.mixture(u, jnp.ones(u.shape, bool), captions),
    }


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
