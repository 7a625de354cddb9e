"""Cases of staged GANs with word attention: their folders have one layout.

Images and features are NCHW in the folders, NHWC here.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.convert import rules
from jaxt2i.engine.method import Ema, Player
from jaxt2i.losses.staged import divergence
from jaxt2i.nn.optim import Adam
from jaxt2i.nn.stages import glu
from jaxt2i.verify.arrays import Arrays, nchw, nhwc, norms, shown
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.encoders import captions, damsm_image, damsm_text
from jaxt2i.verify.networks import convert_net, observe
from jaxt2i.verify.step import Networks

CRITICS = {"netD0": "d64", "netD1": "d128", "netD2": "d256"}
SIZES = (64, 128, 256)


@dataclasses.dataclass(frozen=True)
class Family:
    """A system of the family.

    Attributes:
      tables: its module of names.
      generator: its generator.
      critic: its discriminator.
      game: its game on 256 pixels, with the published settings.
      kind: of its discriminators' norms: "batch" or "spectral".
      inner: what the generator's later stages show, {official name: (path, method, function of
        the array that gives the official one)}; "@" stands for the stage.
    """

    tables: ModuleType
    generator: type[nn.Module]
    critic: type[nn.Module]
    game: Any
    kind: str
    inner: Mapping[str, tuple[str, str, Callable]]

    def cases(self) -> dict[str, Callable[..., Arrays]]:
        """The runners of a folder."""
        runners = {
            "netG_train_b4": generator_train,
            "netG_*": generator_eval,
            "netD*": critic,
            "losses": losses,
            "train_step": train_step,
        }
        return {name: functools.partial(run, self) for name, run in runners.items()}


def make_g(family: Family, golden, net: str) -> tuple[nn.Module, dict, rules.Table]:
    """(generator, variables, table) of a network of the folder."""
    weights = golden.weights(net)
    table = rules.pick(family.tables.TABLES["g"], weights)
    module = family.generator(**family.tables.infer("g", weights))
    return module, convert_net(golden, net, table, module), table


def make_d(family: Family, golden, net: str, name: str) -> tuple[nn.Module, dict, rules.Table]:
    """(discriminator, variables, table) of a network of the folder."""
    table = family.tables.TABLES[name][0]
    module = family.critic(**family.tables.infer(name, golden.weights(net)))
    return module, convert_net(golden, net, table, module), table


# --- Generator ---------------------------------------------------------------------------------


def inputs(case) -> tuple[jax.Array, ...]:
    """A generator's inputs."""
    get = case.inputs
    words = jnp.moveaxis(jnp.asarray(get["in_words_embs"]), 1, 2)
    mask = jnp.asarray(~get["in_mask"])
    return *(jnp.asarray(get[f"in_{k}"]) for k in ("z", "eps", "sent_emb")), words, mask


def pictures(drawn) -> Arrays:
    """All pictures and attention maps, and the augmentation's numbers."""
    out = {"out_mu": drawn.mean, "out_logvar": drawn.log_variance}
    for image in drawn.images:
        x, size = nchw(image), image.shape[1]
        middle = slice(size // 2 - 4, size // 2 + 4)
        out |= shown(f"img{size}", x)
        out[f"out_img{size}__crop"] = x[..., middle, middle]
    for i, share in enumerate(drawn.attention, 1):
        out |= shown(f"att{i}", share)
    return out


def middle(family: Family, module: nn.Module, at: Callable) -> Arrays:
    """What happens inside a generator."""
    out = shown("c_code", at("augment")[0])
    out |= shown("h1_fc", glu(at("stage1/fc_norm")))
    out |= shown("h1_up1", nchw(at("stage1/up1"))) | shown("h_code1", nchw(at("stage1")))
    for stage in (2, 3):
        for name, (path, method, official) in family.inner.items():
            out |= shown(f"h{stage}_{name}", official(at(path.replace("@", str(stage)), method)))
        if module.residuals:
            last = at(f"stage{stage}/refine/residual{module.residuals - 1}")
            out |= shown(f"h{stage}_residual", nchw(last))
        out |= shown(f"h_code{stage}", nchw(at(f"stage{stage}")[0]))
    return out


def generator_eval(family: Family, golden, case) -> Arrays:
    """Running statistics; with the mask as published, and corrected where the case has it."""
    module, variables, _ = make_g(family, golden, case.info["weights"][0])
    own = module.clone(attention_mask="own")
    both = any("alignedmask" in name for name in case.outputs)

    def run(variables, given):
        aligned = own.apply(variables, *given) if both else None
        return observe(module, variables, *given), aligned

    seen, aligned = compiled(run)(variables, inputs(case))
    out = pictures(seen.output) | middle(family, module, seen.at)
    if both:
        out |= shown("alignedmask_img256", nchw(aligned.images[-1]))
        out |= shown("alignedmask_img", nchw(aligned.images[-1]))
        for i, share in enumerate(aligned.attention, 1):
            out |= shown(f"alignedmask_att{i}", share)
    return out


def generator_train(family: Family, golden, case) -> Arrays:
    """Batch statistics: pictures, gradients, and the running statistics behind them."""
    module, variables, table = make_g(family, golden, case.info["weights"][0])
    targets = [nhwc(np.float32(case.inputs[f"in_target{i}"])) for i in range(len(SIZES))]
    batch = {"given": inputs(case), "targets": targets}

    def turn(ctx, batch):
        seen = ctx.observe("g", *batch["given"], train=True, mutable=["batch_stats"])
        drawn = seen.output
        total = kl = divergence(drawn.mean, drawn.log_variance)
        for image, target in zip(drawn.images, batch["targets"], strict=True):
            k = image.shape[1] // 8
            total += (image * target.repeat(k, 1).repeat(k, 2)).mean()
        return total, (kl, seen)

    turn = Networks({"g": (module, variables)}, {"g": table}, batch).play(g=(turn, ("g",)))["g"]
    kl, seen = turn.logs
    named = rules.to_torch(table, {"params": turn.gradients["g"], **seen.changed})
    stats = {k: named[k.removeprefix("out_bn__")][:64] for k in case.outputs if "_bn__" in k}
    grads = norms(named[k] for k in golden.order("netG"))
    found = {"out_loss": turn.value, "out_kl": kl, "out_grad_norms": grads, **stats}
    return pictures(seen.output) | middle(family, module, seen.at) | found


# --- Discriminators ----------------------------------------------------------------------------

# Official names of the parts whose outputs are shown: paths here, by the picture's size.
INNER = {
    "d64": {"s16": "down_3"},
    "d128": {"s16": "down_3", "s32": "down_4", "s32_1": "thin_0"},
    "d256": {"s16": "down_3", "s32": "down_4", "s64": "down_5", "s64_1": "thin_0"},
}


def critic(family: Family, golden, case) -> Arrays:
    """All heads in both modes; gradients and what the layers remember in training mode."""
    net = case.info["weights"][0]
    name = CRITICS[net]
    module, variables, table = make_d(family, golden, net, name)
    batch = {
        "real": nhwc(case.inputs[f"in_real{module.resolution}"]),
        "sentence": jnp.asarray(case.inputs["in_sent_emb"]),
    }

    def look(ctx, batch, train):
        inner = ctx.observe(name, batch["real"], train=train, method="features")
        h = ctx(name, batch["real"], train=train, method="features")
        judge = functools.partial(ctx, name, train=train, method="together")
        pair, wrong = judge(h, batch["sentence"]), judge(h[:-1], batch["sentence"][1:])
        parts = {part: inner.at(path) for part, path in INNER[name].items()}
        return (pair, wrong, ctx(name, h, method="alone")), parts | {"h": h}

    def loss(ctx, batch):
        (pair, wrong, alone), parts = look(ctx, batch, True)
        value = jax.nn.softplus(-pair).mean() + jax.nn.softplus(wrong).mean()
        return value + jax.nn.softplus(-alone).mean(), ((pair, wrong, alone), parts)

    # Spectral layers iterate in both modes.
    quiet = functools.partial(look, train=family.kind == "spectral")
    turns = Networks({name: (module, variables)}, {name: table}, batch).play(
        eval=(lambda *a: ((), quiet(*a)), ()), train=(loss, (name,))
    )
    out = {}
    for mode in ("eval", "train"):
        logits, parts = turns[mode].logs
        for head, x in zip(("cond", "wrong", "uncond"), logits, strict=True):
            out[f"out_{mode}_{head}"] = sigmoid(x)
        for part, x in parts.items():
            out |= shown(f"{mode}_{part}", nchw(x))
    played = turns["train"]
    named = rules.to_torch(table, {"params": played.gradients[name], **played.extra[name]})
    kept = {k: named[k.partition("__")[2]] for k in case.outputs if "_bn__" in k or "_sn__" in k}
    grads = norms(named[k] for k in golden.order(net))
    return out | {"out_loss": played.value, "out_grad_norms": grads, **kept}


def sigmoid(x: jax.Array) -> np.ndarray:
    """1 / (1 + exp(-x)) in float64."""
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


# --- Losses ------------------------------------------------------------------------------------


def networks(family: Family, golden, case) -> tuple[Networks, Any]:
    """The networks and inputs of a case, and the game on the given pictures."""
    names = case.info["weights"]
    made = {"g": make_g(family, golden, names["netG"])}
    for official, own in CRITICS.items():
        made[own] = make_d(family, golden, names[official], own)
    tables = {net: table for net, (_, _, table) in made.items()}
    made["text"] = damsm_text(golden, names["text_encoder"])
    made["image"] = damsm_image(golden, names["image_encoder"])
    tokens, mask = captions(case)
    batch = {
        "tokens": tokens,
        "token_mask": mask,
        "label": jnp.asarray(case.inputs["in_class_ids"], jnp.int32),
        **{f"real{size}": nhwc(case.inputs[f"in_real{size}"]) for size in SIZES},
    }
    return Networks(made, tables, batch, draws={"z": latents(case)}), family.game


def latents(case, step: str = "") -> np.ndarray:
    """Z and the augmentation's noise as the game draws them: one array."""
    return np.concatenate([case.inputs[f"in_{k}{step}"] for k in ("z", "eps")], 1)


def losses(family: Family, golden, case) -> Arrays:
    """All terms of every player, and their gradients."""
    at, game = networks(family, golden, case)
    plain = dataclasses.replace(game, model=dataclasses.replace(game.model, damsm_weight=0.0))

    def by_image(game, ctx, batch):
        text = game.text(ctx, batch)
        drawn = game.fake(ctx, batch, text)

        def value(images):
            total = sum(game.adversarial(ctx, drawn.replace(images=images), text.sentence).values())
            if game.model.damsm_weight:
                total += game.model.damsm_weight * game.match(ctx, batch, images[-1], text)[0]
            return total

        return (), (drawn.images, jax.grad(value)(drawn.images), text)

    turns = at.play(
        **{n: (functools.partial(game.d_loss, i), (n,)) for i, n in enumerate(game.critics)},
        plain=(plain.g_loss, ("g",)),
        full=(game.g_loss, ("g",)),
        plain_images=(functools.partial(by_image, plain), ()),
        full_images=(functools.partial(by_image, game), ()),
    )
    out, d_turns = {}, [turns[net] for net in game.critics]
    for i, turn in enumerate(d_turns):
        out[f"out_errD{i}_grad_norms"] = at.norms(turn.gradients, golden.order(f"netD{i}"))
    for name, played in (("adv_kl_", "plain"), ("", "full")):
        order = golden.order("netG")
        out[f"out_{name}netG_grad_norms"] = at.norms(turns[played].gradients, order)
        out[f"out_{name}grad_fake_norms"] = norms(turns[f"{played}_images"].logs[1])
    images, _, text = turns["full_images"].logs
    for image in images:
        out |= shown(f"fake{image.shape[1]}", nchw(image))
    value, logs = turns["full"].value, turns["full"].logs
    heads = [logs[f"{net}_{kind}"] for net in game.critics for kind in ("pair", "alone")]
    keys = ("real", "real_pair", "fake", "fake_pair", "wrong_pair")
    return out | {
        "out_adv_kl_loss": turns["plain"].value,
        "out_adv_kl_grad_fake256": nchw(turns["plain_images"].logs[1][-1]),
        "out_errD": np.array([turn.value for turn in d_turns]),
        "out_d_parts": np.array([[turn.logs[k] for k in keys] for turn in d_turns]),
        "out_g_parts": np.array([*heads, *(logs[k] for k in ("w0", "w1", "s0", "s1"))]),
        "out_kl": logs["kl"],
        "out_errG": value,
        "out_errG_without_kl": value - logs["kl"],
        "out_words_embs_head": np.moveaxis(np.asarray(text.words), 1, 2),
        "out_sent_emb_head": text.sentence,
    }


def train_step(family: Family, golden, case) -> Arrays:
    """Two steps of the engine: three discriminators, the generator, its average."""
    at, game = networks(family, golden, case)
    adam = Adam(lr=2e-4, b1=0.5, b2=0.999).tx()
    players = [
        Player(net, (net,), functools.partial(game.d_loss, i), adam)
        for i, net in enumerate(game.critics)
    ]
    size = len(at.batch["tokens"])
    average = Ema(-size / math.log2(game.model.ema_beta), rampup=None)
    run = at.start((*players, Player("g", ("g",), game.g_loss, adam)), ema={"g": average})
    start, out = run.state.params["g"], {}

    def moved(tree) -> np.ndarray:
        change = jax.tree.map(lambda new, old: np.asarray(new) - np.asarray(old), tree, start)
        return at.norms({"g": change}, golden.order("netG"))

    for number, draws in ((1, {}), (2, {"z": latents(case, "2")})):
        metrics = run.step(**draws)
        out |= {
            f"out_step{number}_errD": np.array([metrics[f"{n}/loss"] for n in game.critics]),
            f"out_step{number}_errG": metrics["g/loss"],
            f"out_step{number}_kl": metrics["g/kl"],
            f"out_step{number}_netG_delta_norms": moved(run.state.params["g"]),
            f"out_step{number}_ema_delta_norms": moved(run.state.ema["g"]),
        }

    def draw(ctx, batch):
        text = game.text(ctx, batch)
        given = (*game.latents(ctx, batch), text.sentence, text.words, text.mask)
        return ctx("g", *given).images[-1]

    return out | shown("ema_eval_img256", nchw(run.see(draw)))
