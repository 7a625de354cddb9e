"""AttnGAN against its official code's numbers; the runners also serve DM-GAN."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from types import ModuleType

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxt2i.convert import rules
from jaxt2i.data import pictures as pictures_of
from jaxt2i.data.words import WordTokenizer, words_of
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.engine.method import Ctx, Ema, Player
from jaxt2i.losses.staged import divergence
from jaxt2i.nn.optim import Adam
from jaxt2i.nn.stages import glu
from jaxt2i.systems.attngan import method as attngan
from jaxt2i.systems.attngan import names as tables
from jaxt2i.systems.damsm import goldens as damsm
from jaxt2i.systems.damsm.goldens import summary
from jaxt2i.systems.stylegan_t.goldens_ops import Arrays, captured, convert_net, nchw, nhwc
from jaxt2i.verify.board import Board

CRITICS = {"netD0": "d64", "netD1": "d128", "netD2": "d256"}


@dataclasses.dataclass(frozen=True)
class Family:
    """A system of the family.

    Attributes:
      tables: its module of names.
      generator: its generator.
      kind: of its discriminators, see `Critic`.
      inner: what the generator's later stages show, {official name: (path, method, function of
        the array that gives the official one)}; "@" stands for the stage.
    """

    tables: ModuleType
    generator: type[nn.Module]
    kind: str
    inner: Mapping[str, tuple[str, str, Callable]]


FAMILY = Family(tables, attngan.Generator, "batch", {"context": ("stage@", "read", nchw)})


def make_g(family: Family, golden, net: str, **fields) -> tuple[nn.Module, dict, rules.Table]:
    """(generator, variables, table) of a network of the folder."""
    weights = golden.weights(net)
    table = rules.pick(family.tables.TABLES["g"], weights)
    module = family.generator(**family.tables.infer("g", weights), **fields)
    return module, convert_net(golden, net, table, module, *module.example()), table


def make_d(family: Family, golden, net: str, name: str) -> tuple[nn.Module, dict, rules.Table]:
    """(discriminator, variables, table) of a network of the folder."""
    table = family.tables.TABLES[name][0]
    module = attngan.Critic(**family.tables.infer(name, golden.weights(net)))
    return module, convert_net(golden, net, table, module, *module.example()), table


def inputs(case) -> tuple[jax.Array, ...]:
    """A generator's inputs."""
    get = case.inputs
    words = jnp.moveaxis(jnp.asarray(get["in_words_embs"]), 1, 2)
    mask = jnp.asarray(~get["in_mask"])
    return *(jnp.asarray(get[f"in_{k}"]) for k in ("z", "eps", "sent_emb")), words, mask


def shown(name: str, x: jax.Array) -> Arrays:
    """An array with the mean and deviation of its examples."""
    return {f"out_{name}": np.asarray(x), **summary(f"out_{name}", np.asarray(x))}


def pictures(drawn: attngan.Drawn) -> Arrays:
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


def middle(family: Family, module, at: Callable) -> Arrays:
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


def generator_eval(golden, case, family: Family = FAMILY) -> Arrays:
    """Running statistics; with the mask as published, and corrected where the case has it."""
    net = case.info["weights"][0]
    module, variables, _ = make_g(family, golden, net)
    given = inputs(case)
    drawn, at = captured(module, variables, *given)
    out = pictures(drawn) | middle(family, module, at)
    if any("alignedmask" in name for name in case.outputs):
        own = module.clone(attention_mask="own")
        drawn = jax.jit(own.apply)(variables, *given)
        out |= shown("alignedmask_img256", nchw(drawn.images[-1]))
        out |= shown("alignedmask_img", nchw(drawn.images[-1]))
        for i, share in enumerate(drawn.attention, 1):
            out |= shown(f"alignedmask_att{i}", share)
    return out


def generator_train(golden, case, family: Family = FAMILY) -> Arrays:
    """Batch statistics: pictures, gradients, and the running statistics behind them."""
    module, variables, table = make_g(family, golden, case.info["weights"][0])
    given, get = inputs(case), case.inputs

    def loss(params):
        drawn, changed = module.apply(
            {**variables, "params": params}, *given, train=True, mutable=["batch_stats"]
        )
        kl = divergence(drawn.mean, drawn.log_variance)
        total = kl
        for i, image in enumerate(drawn.images):
            target = nhwc(np.float32(get[f"in_target{i}"]))
            k = image.shape[1] // 8
            total += (image * target.repeat(k, 1).repeat(k, 2)).mean()
        return total, (kl, changed)

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, (kl, changed)), gradients = step(variables["params"])
    drawn, at = captured(module, variables, *given, train=True)
    named = rules.to_torch(table, {"params": gradients, **changed})
    norms = [np.linalg.norm(named[k]) for k in golden.order("netG")]
    stats = {k: named[k.removeprefix("out_bn__")][:64] for k in case.outputs if "_bn__" in k}
    found = {"out_loss": value, "out_kl": kl, "out_grad_norms": np.float32(norms), **stats}
    return pictures(drawn) | middle(family, module, at) | found


# --- Discriminators ----------------------------------------------------------------------------

# Official names of the parts whose outputs are shown: paths here, by the picture's size.
INNER = {
    "d64": {"s16": "down_3"},
    "d128": {"s16": "down_3", "s32": "down_4", "s32_1": "thin_0"},
    "d256": {"s16": "down_3", "s32": "down_4", "s64": "down_5", "s64_1": "thin_0"},
}


def critic(golden, case, family: Family = FAMILY) -> Arrays:
    """All heads in both modes; gradients and what the layers remember in training mode."""
    net = case.info["weights"][0]
    name = CRITICS[net]
    module, variables, table = make_d(family, golden, net, name)
    size = module.resolution
    batch = {
        "real": nhwc(case.inputs[f"in_real{size}"]),
        "sentence": jnp.asarray(case.inputs["in_sent_emb"]),
    }
    at = Board({name: module}, {name: variables}, {name: table}, batch)

    def look(ctx, batch, train):
        h = ctx(name, batch["real"], train=train, method="features")
        judge = functools.partial(ctx, name, train=train, method="together")
        pair, wrong = judge(h, batch["sentence"]), judge(h[:-1], batch["sentence"][1:])
        return h, pair, wrong, ctx(name, h, method="alone")

    def loss(ctx, batch):
        _, pair, wrong, alone = look(ctx, batch, True)
        value = jax.nn.softplus(-pair).mean() + jax.nn.softplus(wrong).mean()
        return value + jax.nn.softplus(-alone).mean(), ctx.extra[name]

    out = {}
    for mode in ("eval", "train"):
        # Spectral layers iterate in both modes.
        train = mode == "train" or family.kind == "spectral"
        h, *logits = at.run(functools.partial(look, train=train))
        for head, x in zip(("cond", "wrong", "uncond"), logits, strict=True):
            out[f"out_{mode}_{head}"] = jax.nn.sigmoid(x)
        out |= shown(f"{mode}_h", nchw(h))
        _, inner = captured(module, variables, batch["real"], train=train, method="features")
        for part, path in INNER[name].items():
            out |= shown(f"{mode}_{part}", nchw(inner(path)))
    value, extra, gradients = at.gradient(loss, (name,))
    named = rules.to_torch(table, {"params": gradients[name], **extra})
    kept = {k: named[k.partition("__")[2]] for k in case.outputs if "_bn__" in k or "_sn__" in k}
    norms = [np.linalg.norm(named[k]) for k in golden.order(net)]
    return out | {"out_loss": value, "out_grad_norms": np.float32(norms), **kept}


# --- Losses ------------------------------------------------------------------------------------


class GivenGame(attngan.Losses):
    """The method's own game on given latents and pictures."""

    def reals(self, batch) -> tuple[jax.Array, ...]:
        """The given pictures."""
        return tuple(batch[f"real{size}"] for size in (64, 128, 256))

    def latents(self, ctx: Ctx, batch) -> tuple[jax.Array, jax.Array]:
        """The given latents."""
        return batch["z"], batch["eps"]


def board(golden, case, family: Family) -> tuple[Board, GivenGame]:
    """The networks and inputs of a case, and the game on them."""
    names = case.info["weights"]
    made = {"g": make_g(family, golden, names["netG"])}
    for official, own in CRITICS.items():
        made[own] = make_d(family, golden, names[official], own)
    nets, variables, named = ({n: x[i] for n, x in made.items()} for i in range(3))
    nets["text"], variables["text"] = damsm.network(golden, names["text_encoder"])
    nets["image"], variables["image"] = damsm.seer(golden, names["image_encoder"])
    tokens, mask = damsm.captions(case)
    batch = {
        "tokens": tokens,
        "token_mask": mask,
        "label": jnp.asarray(case.inputs["in_class_ids"], jnp.int32),
        **{k: jnp.asarray(case.inputs[f"in_{k}"]) for k in ("z", "eps")},
        **{f"real{s}": nhwc(case.inputs[f"in_real{s}"]) for s in (64, 128, 256)},
    }
    return Board(nets, variables, named, batch), GivenGame(attngan.Model(), 256)


def total_norms(gradients) -> np.ndarray:
    """One norm an array, over the whole batch."""
    return np.float32([np.linalg.norm(np.asarray(x, np.float64)) for x in gradients])


def losses(golden, case, family: Family = FAMILY) -> Arrays:
    """All terms of every player, and their gradients."""
    at, game = board(golden, case, family)
    plain = dataclasses.replace(game, model=dataclasses.replace(game.model, damsm_weight=0.0))
    out, errors, parts = {}, [], []
    for i, net in enumerate(game.critics):
        value, logs, gradients = at.gradient(functools.partial(game.d_loss, i), (net,))
        errors.append(value)
        keys = ("real", "real_pair", "fake", "fake_pair", "wrong_pair")
        parts.append([logs[k] for k in keys])
        out[f"out_errD{i}_grad_norms"] = at.norms(gradients, golden.order(f"netD{i}"))

    def by_image(ctx, batch, game):
        text = game.text(ctx, batch)
        drawn = game.fake(ctx, batch, text)

        def value(images):
            total = sum(game.adversarial(ctx, drawn.replace(images=images), text.sentence).values())
            if game.model.damsm_weight:
                total += game.model.damsm_weight * game.match(ctx, batch, images[-1], text)[0]
            return total

        return drawn.images, jax.grad(value)(drawn.images), text

    for name, played in (("adv_kl_", plain), ("", game)):
        value, logs, gradients = at.gradient(played.g_loss, ("g",))
        out[f"out_{name}netG_grad_norms"] = at.norms(gradients, golden.order("netG"))
        images, found, text = at.run(functools.partial(by_image, game=played))
        out[f"out_{name}grad_fake_norms"] = total_norms(found)
        if name:
            out["out_adv_kl_loss"] = value
            out["out_adv_kl_grad_fake256"] = nchw(found[-1])
    for image in images:
        out |= shown(f"fake{image.shape[1]}", nchw(image))
    heads = [logs[f"{net}_{kind}"] for net in game.critics for kind in ("pair", "alone")]
    return out | {
        "out_errD": np.float32(errors),
        "out_d_parts": np.float32(parts),
        "out_g_parts": np.float32([*heads, *(logs[k] for k in ("w0", "w1", "s0", "s1"))]),
        "out_kl": logs["kl"],
        "out_errG": value,
        "out_errG_without_kl": value - logs["kl"],
        "out_words_embs_head": np.moveaxis(np.asarray(text.words), 1, 2),
        "out_sent_emb_head": text.sentence,
    }


def train_step(golden, case, family: Family = FAMILY) -> Arrays:
    """Two steps of the engine: three discriminators, the generator, its average."""
    at, game = board(golden, case, family)
    adam = Adam(lr=2e-4, b1=0.5, b2=0.999).tx()
    players = [
        Player(net, (net,), functools.partial(game.d_loss, i), adam)
        for i, net in enumerate(game.critics)
    ]
    method = at.method((*players, Player("g", ("g",), game.g_loss, adam)))
    size = len(at.batch["z"])
    average = Ema(-size / math.log2(game.model.ema_beta), rampup=None)
    method = dataclasses.replace(method, ema={"g": average})
    state = states.new(method, {n: at.variables[n] for n in at.tables})
    frozen = {n: at.variables[n] for n in at.frozen}
    program = jax.jit(steps.make(method, steps.Rules(0, size, 2))[1])
    second = {k: jnp.asarray(case.inputs[f"in_{k}2"]) for k in ("z", "eps")}
    start, out = state.params["g"], {}

    def moved(tree) -> np.ndarray:
        return at.norms({"g": jax.tree.map(jnp.subtract, tree, start)}, golden.order("netG"))

    for number, batch in ((1, at.batch), (2, {**at.batch, **second})):
        state, metrics = program(state, frozen, batch)
        out |= {
            f"out_step{number}_errD": np.float32([metrics[f"{n}/loss"] for n in game.critics]),
            f"out_step{number}_errG": metrics["g/loss"],
            f"out_step{number}_kl": metrics["g/kl"],
            f"out_step{number}_netG_delta_norms": moved(state.params["g"]),
            f"out_step{number}_ema_delta_norms": moved(state.ema["g"]),
        }
    ctx = states.context(method, state, frozen, key=jax.random.key(0))
    text = game.text(ctx, at.batch)
    given = (at.batch["z"], at.batch["eps"], text.sentence, text.words, text.mask)
    return out | shown("ema_eval_img256", nchw(ctx("g", *given).images[-1]))


def data_pyramid(golden, case) -> Arrays:
    """A box crop, the resize, given crops and mirrors, and the smaller pictures."""
    out, game = {}, attngan.Losses(attngan.Model(), 256)
    for tag in ("cub", "cub_edge", "coco"):
        image = Image.fromarray(case.inputs[f"in_{tag}_image"])
        box = case.inputs[f"in_{tag}_bbox"]
        cut = pictures_of.around(image.size, tuple(box)) if len(box) else (0, 0, *image.size)
        kept = cut[2] - cut[0], cut[3] - cut[1]
        size = [n * 304 // min(kept) for n in kept]
        top, left, flip = case.inputs[f"in_{tag}_top_left_flip"].tolist()
        # The middle of the numbers that lead to this corner.
        at = [(k + 0.5) / (n - 255) for k, n in zip((left, top), size, strict=True)]
        view = pictures_of.random(cut, 256, (*at, 0.25 if flip else 0.75)).show(image, "bilinear")
        out[f"out_{tag}_size_after_bbox_crop"] = np.int64(kept)
        out[f"out_{tag}_size_after_resize"] = np.int64(size)
        for x in game.reals({"image": jnp.asarray(view)[None]}):
            out[f"out_{tag}_img{x.shape[1]}"] = nchw(x)[0]
            out[f"out_{tag}_img{x.shape[1]}_mean"] = np.asarray(x).mean((0, 1, 2))
    return out


def text_cases(golden, case) -> dict:
    """The tokeniser, the vocabulary, and padded captions."""
    data = case.data
    tokens = [words_of(line) for line in data["raw"]]
    by_id = ["<end>"]
    for words in tokens:
        by_id += [w for w in dict.fromkeys(words) if w not in by_id]
    ids = [[by_id.index(w) for w in words] for words in tokens]
    split = data["n_train"]
    captions = []
    for known, given in zip(ids, data["get_caption"], strict=True):
        # The subset is drawn; the case says which one it was.
        kept = given["kept_positions"]
        length = len(given["padded"])
        tokenizer = WordTokenizer(by_id, length)
        words = [by_id[i] for i in (known if kept is None else [known[k] for k in kept])]
        padded, mask = tokenizer([" ".join(words)])
        captions.append(
            {
                "ids": known,
                "kept_positions": kept,
                "padded": padded[0].tolist(),
                "length": int(mask.sum()),
            }
        )
    made = {
        "note": "",
        "raw": data["raw"],
        "tokens": tokens,
        "n_train": split,
        "train_ids": ids[:split],
        "test_ids": ids[split:],
        "ixtoword": {str(i): word for i, word in enumerate(by_id)},
        "n_words": len(by_id),
        "get_caption": captions,
    }
    return {"*": made}


CASES: dict[str, Callable[..., Arrays]] = {
    "netG_train_b4": generator_train,
    "netG_*": generator_eval,
    "netD*": critic,
    "losses": losses,
    "train_step": train_step,
    "text_cases": text_cases,
    "data_pyramid": data_pyramid,
}
