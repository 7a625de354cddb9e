"""OP-GAN against its official code's numbers."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import softplus

from jaxt2i.convert import rules
from jaxt2i.data import pictures as pictures_of
from jaxt2i.data.words import WordTokenizer
from jaxt2i.encoders.text import Text
from jaxt2i.engine.method import Ema, Player
from jaxt2i.losses import damsm as matching
from jaxt2i.losses.staged import divergence
from jaxt2i.nn import objects as nn_objects
from jaxt2i.nn.objects import Objects
from jaxt2i.nn.optim import Adam
from jaxt2i.nn.resample import corner_matrix
from jaxt2i.systems.op_gan import method as op_gan
from jaxt2i.systems.op_gan import names as tables
from jaxt2i.systems.op_gan.networks import Generator, ObjectCritic
from jaxt2i.verify.arrays import Arrays, nchw, nhwc, norm
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.encoders import damsm_image, damsm_text
from jaxt2i.verify.networks import convert_net, observe
from jaxt2i.verify.step import Networks

SERVES = ("op_gan/*",)
SIZES = (64, 128, 256)
# Published: the size of each tower's first step, and what the code since 2021 does with corners.
MODEL = op_gan.Model(grid_corners=False)


class GivenGame(op_gan.Losses):
    """The method's own game on given pictures, sentences and words."""

    def reals(self, batch) -> tuple[jax.Array, ...]:
        """The given pictures."""
        return tuple(batch[f"real{size}"] for size in SIZES)

    def text(self, ctx, batch) -> Text:
        """The given captions."""
        return Text(batch["sentence"], batch["words"], batch["word_mask"])

    def fake(self, ctx, batch, text) -> op_gan.Drawn:
        """The given pictures, where there are any."""
        if "drawn" not in batch:
            return super().fake(ctx, batch, text)
        return op_gan.Drawn(images=batch["drawn"], attention=(), mean=None, log_variance=None)


def layout(case) -> dict[str, jax.Array]:
    """The objects of a case as a batch has them."""
    label = jnp.asarray(case.inputs["in_label"][..., 0], jnp.int32)
    count = case.info["config"]["max_objects"]
    mask = (label >= 0) & (jnp.arange(label.shape[1]) < count)
    return {"boxes": jnp.asarray(case.inputs["in_bbox"]), "box_label": label, "box_mask": mask}


def objects(case) -> Objects:
    """The objects of a case."""
    return op_gan.Losses(MODEL, 256).objects(layout(case))


def corners(case) -> bool:
    """What a case does with corners."""
    return case.info["config"]["align_corners"]


def make_g(golden, case, net: str = "g") -> tuple[Generator, dict, rules.Table]:
    """(generator, variables, table) of a case."""
    op = tuple(case.info["config"].get("op", (True,) * 3))
    sizes = tables.infer("g", golden.weights(net))
    module = Generator(**sizes, op=op, corners=corners(case))
    return module, convert_net(golden, net, tables.G, module), tables.G


def make_d(golden, case, net: str) -> tuple[ObjectCritic, dict, rules.Table]:
    """(discriminator, variables, table) of a case."""
    table = tables.TABLES[net][0]
    module = ObjectCritic(**tables.infer(net, golden.weights(net)), corners=corners(case))
    return module, convert_net(golden, net, table, module), table


# --- Generator -----------------------------------------------------------------------------------


def g_inputs(case) -> tuple:
    """(z, eps, sentence, words, mask, chance, objects)."""
    get = {k: jnp.asarray(case.inputs[f"in_{k}"]) for k in ("z", "eps", "sent", "local_z")}
    words = jnp.moveaxis(jnp.asarray(case.inputs["in_words"]), 1, 2)
    mask = jnp.asarray(~case.inputs["in_mask"])
    return get["z"], get["eps"], get["sent"], words, mask, get["local_z"], objects(case)


def g_shown(drawn, at: Callable) -> Arrays:
    """Pictures and what happens on the way to them."""
    out = {"out_mu": drawn.mean, "out_logvar": drawn.log_variance}
    for image, step in zip(drawn.images, (2, 4, 8), strict=True):
        x, name = nchw(image), f"out_img{image.shape[1]}"
        out[name] = x[:, :, ::step, ::step]
        flat = np.asarray(x, np.float64).reshape(*x.shape[:2], -1)
        out[f"{name}_stats"] = np.stack([flat.mean(-1), flat.std(-1, ddof=1)], -1)
    for i, (share, step) in enumerate(zip(drawn.attention, (9, 17), strict=True), 1):
        out[f"out_att{i}"] = np.asarray(share)[:, :, ::step, ::step]
    for i, step in enumerate((8, 16, 32), 1):
        h = at(f"stage{i}")
        out[f"out_h_code{i}"] = nchw(h if i == 1 else h[0])[:, :, ::step, ::step]
    for i, seen in enumerate(drawn.objects, 1):
        if seen is not None:
            x = nchw(seen)
            out[f"out_local{i}"] = x[:, ::4] if i == 1 else x[:, :, :: 2**i, :: 2**i]
    if drawn.objects[0] is not None:
        out["out_bbox_code"] = at("objects1/layout")
        out["out_label0"] = np.asarray(at("objects1/label"))[0]
    return out


def g_eval(golden, case) -> Arrays:
    """Running statistics."""
    module, variables, _ = make_g(golden, case, case.info["weights"][0])
    seen = compiled(functools.partial(observe, module))(variables, *g_inputs(case))
    return g_shown(seen.output, seen.at)


def g_train(golden, case) -> Arrays:
    """Batch statistics, the running ones behind them, gradients of parameters and inputs."""
    module, variables, table = make_g(golden, case)

    @compiled
    def turn(variables, given):
        def loss(params, z, sentence):
            inputs = (z, given[1], sentence, *given[3:])
            seen = observe(
                module,
                {**variables, "params": params},
                *inputs,
                train=True,
                mutable=["batch_stats"],
            )
            drawn = seen.output
            value = divergence(drawn.mean, drawn.log_variance)
            return value + sum(jnp.square(x).mean() for x in drawn.images), seen

        every = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)
        return every(variables["params"], given[0], given[2])

    given = g_inputs(case)
    (value, seen), (params, z, sentence) = turn(variables, given)
    out = g_shown(seen.output, seen.at) | {
        "out_loss": value,
        "out_gradnorm_in/z": norm(z),
        "out_gradnorm_in/sent_emb": norm(sentence),
        "out_grad_in_sent_emb": sentence,
    }
    named = rules.to_torch(table, {"params": params, **seen.changed})
    return out | asked(golden, case, "g", named, int(given[-1].mask.any(0).sum()))


def asked(golden, case, net: str, named: Mapping, passes: int = 0, extra: str = "") -> Arrays:
    """Norms of gradients and running statistics that a case stores.

    Args:
      golden: the folder.
      case: has "out_gradnorm/KEY" and "out_buf/KEY".
      net: of these keys.
      named: {key: gradient or statistic}; what took no part has none.
      passes: how often the norms of objects were called, which PyTorch counts.
      extra: further prefixes of keys whose arrays are stored whole.
    """
    out = {}
    for name in case.outputs:
        kind, slash, key = name.partition("/")
        if not slash:
            continue
        if key.endswith("num_batches_tracked"):
            out[name] = golden.weights(net)[key] + passes
        elif kind == "out_buf":
            out[name] = named[key][:256]
        elif kind == "out_gradnorm":
            # What serves nothing has no gradient; the stored norm is then 0 or NaN.
            out[name] = norm(named[key]) if key in named else np.nan
        elif kind == extra:
            out[name] = named[key]
    return out


# --- Discriminators ------------------------------------------------------------------------------


def critic(golden, case) -> Arrays:
    """All heads and the objects' maps; in training mode gradients, too."""
    net = case.info["weights"][0]
    module, variables, table = make_d(golden, case, net)
    train, seen = case.info["mode"] == "train", objects(case)
    batch = {
        "image": nhwc(case.inputs["in_image"]),
        "sentence": jnp.asarray(case.inputs["in_sent"]),
        "objects": seen,
    }

    def look(ctx, batch):
        given = batch["image"], batch["objects"]
        inner = ctx.observe(net, *given, train=train, method="features")
        h = ctx(net, *given, train=train, method="features")
        judge = functools.partial(ctx, net, train=train, method="together")
        pair, wrong = judge(h, batch["sentence"]), judge(h[:-1], batch["sentence"][1:])
        alone = ctx(net, h, method="alone")
        value = softplus(-pair).mean() + softplus(wrong).mean() + softplus(-alone).mean()
        return value, (h, pair, wrong, alone, inner.inside["each"])

    def picture(ctx, batch):
        return (), jax.grad(lambda x: look(ctx, {**batch, "image": x})[0])(batch["image"])

    at = Networks({net: (module, variables)}, {net: table}, batch)
    turns = {"look": (look, (net,)), "picture": (picture, ())} if train else {"look": (look, ())}
    played = at.play(**turns)
    h, pair, wrong, alone, inside = played["look"].logs
    size = module.resolution
    out = {
        "out_features": nchw(h),
        "out_cond": sigmoid(pair),
        "out_cond_wrong": sigmoid(wrong),
        "out_uncond": sigmoid(alone),
        "out_merged": nchw(inside["__call__"][0])[:, :, :: size // 64, :: size // 64],
    }
    first = np.asarray(inside["network"]["seen"][0])
    # One entry a turn of the loop, with a place for the one object in it.
    out["out_local0"] = nchw(first[0, 0])[:, :, :: size // 32, :: size // 32]
    if train:
        image = played["picture"].logs
        out |= {
            "out_loss": played["look"].value,
            "out_grad_in_image": nchw(image)[:, :, :: size // 16, :: size // 16],
            "out_gradnorm_in/image": norm(image),
        }
        named = at.named(played["look"].gradients)
        named |= rules.to_torch(table, played["look"].extra[net])
        out |= asked(golden, case, net, named)
    return out


def sigmoid(x: jax.Array) -> np.ndarray:
    """1 / (1 + exp(-x)) in float64."""
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


# Official names of a discriminator's terms, as a step stores them.
TERMS = {
    "cond_real": "real_pair",
    "cond_fake": "fake_pair",
    "cond_wrong": "wrong_pair",
    "cond_wrong_bbox": "wrong_layout_pair",
    "uncond_real": "real",
    "uncond_fake": "fake",
    "uncond_wrong_bbox": "wrong_layout",
}


def d_loss(golden, case) -> Arrays:
    """A discriminator's loss: every term, gradients, running statistics behind three passes."""
    net = case.info["weights"][0]
    index = SIZES.index(int(net[1:]))
    refused = "reversed" if case.info["config"]["BBOX_LOSS"] else "none"
    game = GivenGame(dataclasses.replace(MODEL, wrong_layout=refused), 256)
    fake = nhwc(case.inputs["in_fake"])
    batch = layout(case) | {
        "sentence": jnp.asarray(case.inputs["in_sent"]),
        "words": jnp.zeros((len(fake), 1, 256)),
        "word_mask": jnp.ones((len(fake), 1), bool),
        "drawn": (fake,) * len(SIZES),
        **{f"real{size}": nhwc(case.inputs["in_real"]) for size in SIZES},
    }
    module, variables, table = make_d(golden, case, net)
    at = Networks({net: (module, variables)}, {net: table}, batch)
    played = at.play(loss=(functools.partial(game.d_loss, index), (net,)))["loss"]
    named = at.named(played.gradients) | rules.to_torch(table, played.extra[net])
    terms = {f"out_{name}": played.logs.get(own) for name, own in TERMS.items()}
    return terms | {"out_errD": played.value} | asked(golden, case, net, named)


# --- A whole step --------------------------------------------------------------------------------


def train_step(golden, case) -> Arrays:
    """Three discriminators, the generator against what they have become, its average."""
    at, game = step_networks(golden, case)
    adam = Adam(lr=2e-4, b1=0.5, b2=0.999).tx()
    critics = [
        Player(net, (net,), functools.partial(game.d_loss, i), adam)
        for i, net in enumerate(game.critics)
    ]
    size = len(at.batch["tokens"])
    average = Ema(-size / math.log2(game.model.ema_beta), rampup=None)
    run = at.start((*critics, Player("g", ("g",), game.g_loss, adam)), ema={"g": average})
    metrics = run.step()
    out = {}
    for i, net in enumerate(game.critics):
        out[f"out_errD{i}"] = metrics[f"{net}/loss"]
        terms = [metrics[f"{net}/{own}"] for own in TERMS.values()]
        out[f"out_errD{i}_terms"] = np.array(terms)
        for key in (k for k in case.outputs if k.startswith(f"out_D{i}_param_after/")):
            named = at.named({net: run.state.params[net]})
            out[key] = named[key.partition("/")[2]]
    heads = [metrics[f"g/{net}_{kind}"] for net in game.critics for kind in ("pair", "alone")]
    out |= {f"out_{k}": metrics[f"g/{k}"] for k in ("w0", "w1", "s0", "s1", "kl")}
    out |= {"out_adv_terms": np.array(heads), "out_errG_total": metrics["g/loss"]}
    for place, tree in (("param", run.state.params["g"]), ("avg", run.state.ema["g"])):
        named = at.named({"g": tree})
        for key in (k for k in case.outputs if k.startswith(f"out_{place}_after/")):
            out[key] = named[key.partition("/")[2]]
    return out | against(golden, case, at, game, run.state.params)


def step_networks(golden, case) -> tuple[Networks, GivenGame]:
    """The networks and inputs of a step, and the game on them."""
    game = GivenGame(MODEL, 256)
    made = {"g": make_g(golden, case)}
    made |= {net: make_d(golden, case, net) for net in game.critics}
    known = {net: table for net, (_, _, table) in made.items()}
    made["image"] = damsm_image(golden, "cnn", align_corners=False)
    z, eps, sentence, words, mask, chance, _ = g_inputs(case)
    batch = layout(case) | {
        "tokens": jnp.zeros(mask.shape, jnp.int32),
        "sentence": sentence,
        "words": words,
        "word_mask": mask,
        **{f"real{size}": nhwc(case.inputs[f"in_real{size}"]) for size in SIZES},
    }
    draws = {"z": np.concatenate([z, eps, chance], 1)}
    return Networks(made, known, batch, draws=draws), game


def against(golden, case, at: Networks, game: GivenGame, params: Mapping) -> Arrays:
    """G's gradients before its step, against discriminators that have made theirs."""
    moved = {net: {**at.variables[net], "params": params[net]} for net in game.critics}
    at.variables = {**at.variables, **moved}

    def by_image(ctx, batch):
        text = game.text(ctx, batch)
        images = game.fake(ctx, batch, text).images
        cost = jax.grad(lambda images: game.judged(ctx, batch, images, text)[0])
        return (), (images, cost(images))

    played = at.play(g=(game.g_loss, ("g",)), images=(by_image, ()))
    images, gradients = played["images"].logs
    named = at.named(played["g"].gradients)
    out = {f"out_gradnorm_fake{i}": norm(x) for i, x in enumerate(gradients)}
    out["out_img256"] = nchw(images[-1])[:, :, ::16, ::16]
    return out | asked(golden, case, "g", named, extra="out_grad")


# --- Encoders and their losses -------------------------------------------------------------------


def rnn_encoder(golden, case) -> Arrays:
    """Sentences and words."""
    module, variables, _ = damsm_text(golden, "rnn")
    tokens = jnp.asarray(case.inputs["in_captions"], jnp.int32)
    mask = jnp.arange(tokens.shape[1]) < case.inputs["in_lens"][:, None]
    text = compiled(module.apply)(variables, tokens, mask)
    return {"out_sent": text.sentence, "out_words": np.moveaxis(np.asarray(text.words), 1, 2)}


def cnn_encoder(golden, case) -> Arrays:
    """Regions and codes of pictures of 256 pixels."""
    module, variables, _ = damsm_image(golden, "cnn", align_corners=False)
    regions, code = compiled(module.apply)(variables, nhwc(case.inputs["in_image"]))
    return {"out_features": nchw(regions)[:, ::8, ::2, ::2], "out_code": code}


# The stored modes of the classes: (suffix, input that holds them).
CLASSES = (("", "own"), ("_dup", "in_class_ids_dup"), ("_none", None))


def damsm_losses(golden, case) -> Arrays:
    """Both losses with three kinds of classes, their gradients, attention, the divergence."""
    get = {k: jnp.asarray(v) for k, v in case.inputs.items()}
    count = len(get["in_code"])
    mask = jnp.arange(get["in_words"].shape[2]) < get["in_lens"][:, None]
    regions = jnp.moveaxis(get["in_features"], 1, -1)
    words = jnp.moveaxis(get["in_words"], 1, 2)

    @compiled
    def program(regions, words, code, sentence, mean, log_variance):
        found = {}
        for suffix, name in CLASSES:
            label = jnp.arange(count) if name == "own" else name and get[name]

            def cost(regions, words, code, sentence, label=label):
                total, terms = matching.damsm(regions, code, words, sentence, mask, label)
                return 50 * total, terms

            every = jax.grad(cost, (0, 1, 2, 3), has_aux=True)
            found[suffix] = every(regions, words, code, sentence)
        kl = jax.value_and_grad(divergence, (0, 1))(mean, log_variance)
        flat = regions.reshape(count, -1, regions.shape[-1])
        return found, kl, matching.attention(flat, words, mask, 4.0)

    given = (get[f"in_{k}"] for k in ("code", "sent", "mu", "logvar"))
    found, (kl, (by_mean, by_variance)), share = program(regions, words, *given)
    out = {"out_kl": kl, "out_grad_kl_mu": by_mean, "out_grad_kl_logvar": by_variance}
    for suffix, (gradients, terms) in found.items():
        out |= {f"out_{name}{suffix}": value for name, value in terms.items()}
        for name, x in zip(("features", "words", "code", "sent"), gradients, strict=True):
            out[f"out_gradnorm_in{suffix}/{name}"] = norm(x)
    (by_regions, _, by_code, _), _ = found["_dup"]
    out |= {"out_grad_in_features": nchw(by_regions)[:, ::8, ::4, ::4], "out_grad_in_code": by_code}
    lengths, side = case.inputs["in_lens"], regions.shape[1]
    for name in (k for k in case.outputs if k.startswith("out_att")):
        i = int(name.removeprefix("out_att"))
        own = np.asarray(share)[i, i, : lengths[i]]
        out[name] = own.reshape(1, -1, side, side)
    return out


# --- Data ----------------------------------------------------------------------------------------


def stn_merge(golden, case) -> Arrays:
    """Cutting, pasting and merging alone, with both meanings of corners."""
    x, boxes = nhwc(case.inputs["in_x"]), jnp.asarray(case.inputs["in_bbox"])
    out = {}
    for corners in (False, True):

        @compiled
        def program(x, boxes, corners=corners):
            both = functools.partial(nn_objects.resample, x[:, None], boxes, corners=corners)
            pasted = both(16, paste=True)
            merged = jnp.zeros_like(pasted[:, 0])
            for i in range(pasted.shape[1]):
                merged = nn_objects.merged(merged, pasted[:, i], "over")
            return both(5, paste=False), pasted, merged

        cut, pasted, merged = program(x, boxes)
        out[f"out_fwd_{corners}"] = np.moveaxis(np.asarray(cut), -1, 2)
        out[f"out_inv_{corners}"] = np.moveaxis(np.asarray(pasted), -1, 2)
        out[f"out_merged_{corners}"] = nchw(merged)
    return out


def data_crop(golden, case) -> Arrays:
    """The random crop, the boxes with it, their matrices and labels."""
    get = case.inputs
    image = np.moveaxis(upsampled(get["in_image17"], 268), 0, -1)
    out = {name: [] for name in ("bbox_scaled", "T", "Ti", "crop")}
    for boxes, chance in zip(get["in_bbox"], get["in_u"], strict=True):
        flip, *place = chance.tolist()
        view = pictures_of.random(
            (0, 0, 268, 268), (256, 256), (*place, flip), 268 / 256, "random_op_gan"
        )
        there = boxes[:, 0] >= 0
        scaled = np.full_like(boxes, -1)
        scaled[there] = view.objects(boxes[there] * 268.0)[0]
        out["bbox_scaled"].append(scaled)
        for name, paste in (("T", False), ("Ti", True)):
            scale, shift = nn_objects.affine(jnp.asarray(scaled), paste=paste)
            zero = jnp.zeros_like(scale[:, 0])
            rows = [(scale[:, 0], zero, shift[:, 0]), (zero, scale[:, 1], shift[:, 1])]
            out[name].append(np.stack([np.stack(row, -1) for row in rows], 1))
        out["crop"].append(np.moveaxis(view.crop(image), -1, 0)[:, 5::50, 3::50])
    labels = jnp.asarray(get["in_label"][..., 0], jnp.int32)
    batch = {"boxes": jnp.asarray(get["in_bbox"]), "box_label": labels, "box_mask": labels >= 0}
    label = np.asarray(op_gan.Losses(MODEL, 256).objects(batch).label)
    return {f"out_{name}": np.stack(x) for name, x in out.items()} | {
        "out_onehot_argmax": label.argmax(-1),
        "out_onehot_sum": label.sum(-1),
    }


def upsampled(image: np.ndarray, size: int) -> np.ndarray:
    """The picture [3, size, size] of which a small one [3, n, n] is stored.

    The picture is a smaller one, enlarged corner on corner, and what is stored is the picture,
    reduced corner on corner: where its pixels lie between those of the picture, not quite that
    smaller one again. Both are linear, so that it can be had back.
    """
    side = image.shape[-1]
    up, down = (np.asarray(corner_matrix(*n), np.float64) for n in ((size, side), (side, size)))
    back = up @ np.linalg.inv(down @ up)
    return np.float32(np.einsum("ih,chw,jw->cij", back, image, back))


def data_caption(golden, case) -> Arrays:
    """Captions that are too long keep some of their words; the case says which."""
    out = {}
    for name in (k for k in case.inputs if k.startswith("in_caption")):
        i, ids = name.removeprefix("in_caption"), case.inputs[name]
        length = len(case.outputs[f"out_caption{i}"])
        kept = np.sort(case.inputs[f"in_perm{i}"][:length]) if len(ids) > length else slice(None)
        by_id = ["<end>", *(f"w{n}" for n in range(1, int(ids.max()) + 1))]
        padded, mask = WordTokenizer(by_id, length)([" ".join(by_id[n] for n in ids[kept])])
        out |= {f"out_caption{i}": padded[0], f"out_len{i}": mask.sum()}
    return out


def data_pyramid(golden, case) -> Arrays:
    """The smaller pictures."""
    image = np.moveaxis(case.inputs["in_image256_u8"], 0, -1)[None]
    out = {}
    for x in op_gan.Losses(MODEL, 256).reals({"image": jnp.asarray(image)}):
        size = x.shape[1]
        out[f"out_{size}"] = nchw(x)[0][:, :: size // 32, :: size // 32]
    return out


CASES: dict[str, Callable[..., Arrays]] = {
    "g_train*": g_train,
    "g_*": g_eval,
    "loss_d*": d_loss,
    **{f"d{size}_*": critic for size in SIZES},
    "train_step": train_step,
    "rnn_encoder": rnn_encoder,
    "cnn_encoder": cnn_encoder,
    "damsm_losses": damsm_losses,
    "stn_merge": stn_merge,
    "data_crop": data_crop,
    "data_caption": data_caption,
    "data_pyramid": data_pyramid,
}
