"""Obj-GAN's image generator against its official code's numbers."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.convert import rules
from jaxt2i.encoders.text import Text
from jaxt2i.losses import damsm as matching
from jaxt2i.losses.staged import divergence
from jaxt2i.metrics import frechet, inception_score, statistics
from jaxt2i.nn.roi_align import roi_align
from jaxt2i.nn.stages import read_words
from jaxt2i.systems.obj_gan import layout
from jaxt2i.systems.obj_gan import method as obj_gan
from jaxt2i.systems.obj_gan import names as tables
from jaxt2i.systems.obj_gan import networks as nets
from jaxt2i.verify.arrays import Arrays, hwio, nchw, nhwc, norm, strided
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.encoders import damsm_image, damsm_text
from jaxt2i.verify.networks import convert_net, observe
from jaxt2i.verify.step import Networks

SERVES = ("obj_gan/*",)
SIZES = (32, 64, 128, 256)
# Boxes count pixels of pictures this large.
UNITS = 64
# Of a network's name in the folder: ours.
KINDS = {"netPatD": "pat", "netShpD": "shp", "netObjSSD": "obj_small", "netObjLSD": "obj_large"}


# --- What a case gives ---------------------------------------------------------------------------


class Given(obj_gan.Losses):
    """The method's own game on given pictures, sentences, shapes and codes."""

    def read(self, ctx, batch) -> obj_gan.Read:
        """The given captions."""
        return batch["read"]

    def names_of(self, ctx, batch) -> jax.Array:
        """Of the given table of classes."""
        found = batch["table"][batch["box_label"]]
        return found * self.there(batch)[..., None]

    def shapes(self, batch) -> tuple[jax.Array, ...]:
        """The given ones; places of sizes that a case does not hold stay empty."""
        return batch["shapes"]

    def reals(self, batch) -> tuple[jax.Array, ...]:
        """The given pictures."""
        return batch["reals"]

    def fake(self, ctx, batch) -> nets.Drawn:
        """The given pictures and codes, where there are any."""
        if "drawn" not in batch:
            return super().fake(ctx, batch)
        return nets.Drawn(
            images=batch["drawn"], attention=(), mean=None, log_variance=None, codes=batch["codes"]
        )


def model(golden, case, **changes) -> obj_gan.Model:
    """The settings of a case: the published ones, at its sizes."""
    of = golden.config(case.info["weights"][0])
    fixed = {
        "g_base": of["GF_DIM"],
        "d_base": of["DF_DIM"],
        "z_dim": of["Z_DIM"],
        "c_dim": of["CONDITION_DIM"],
        "classes": of["num_classes"],
        "names_dim": of["GLOVE_EMBEDDING_DIM"],
        "width": of["EMBEDDING_DIM"],
        "least_side": 0.0,
    }
    return obj_gan.Model(**fixed | changes)


def scene(case) -> dict:
    """The objects of a case as a batch has them; shapes of sizes that it lacks are None."""
    rois, count = case.inputs["in_rois64"], case.inputs["in_num_rois"]
    shapes = (case.inputs.get(f"in_bt_mask{n}") for n in SIZES)
    there = jnp.arange(rois.shape[1]) < jnp.asarray(count)[:, None]
    found = {
        "boxes": jnp.asarray(rois[..., :4] / UNITS),
        "box_label": jnp.asarray(rois[..., 4], jnp.int32),
        "box_mask": there,
        "shapes": tuple(None if x is None else jnp.asarray(x, jnp.float32) for x in shapes),
    }
    if "in_clabels_emb" in case.inputs:
        found["table"] = jnp.asarray(case.inputs["in_clabels_emb"])
    return found


def captions(case) -> obj_gan.Read:
    """The captions of a case."""
    words, keys = (
        jnp.moveaxis(jnp.asarray(case.inputs[f"in_{k}"]), 1, 2)
        for k in ("word_embs", "glove_word_embs")
    )
    text = Text(jnp.asarray(case.inputs["in_sent_emb"]), words, ~mask_of(case, "in_pad_mask"))
    return obj_gan.Read(text, keys)


def mask_of(case, name: str) -> jax.Array:
    """A stored mask."""
    return jnp.asarray(case.inputs[name].astype(bool))


def exchange(case, name: str, count: int) -> jax.Array:
    """Which of `count` classes takes the place of which, of the stored shuffles."""
    pairs = case.inputs[name]
    out = np.tile(np.arange(count), (len(pairs), 1))
    for row, (present, shuffled) in zip(out, pairs, strict=True):
        used = present >= 0
        row[shuffled[used]] = present[used]
    return jnp.asarray(out)


def latents(case) -> np.ndarray:
    """Z and the augmentation's noise as the game draws them."""
    return np.concatenate([case.inputs["in_z"], case.inputs["in_eps"]], 1)


def make(golden, net: str, name: str, **fields) -> tuple:
    """(module, variables, table) of a network of the folder; `name` is ours."""
    table = tables.TABLES[name][0]
    kind = nets.Generator if name == "g" else nets.Critic
    module = kind(**tables.infer(name, golden.weights(net)), **fields)
    return module, convert_net(golden, net, table, module), table


def own_name(net: str) -> str:
    """Our name of a network of the folder: "netPatD64_small" is pat64."""
    official = net.partition("_")[0]
    kind = next(k for k in KINDS if official.startswith(k))
    return KINDS[kind] + official.removeprefix(kind)


def norms_of(golden, case, output: str, named: Mapping) -> np.ndarray:
    """Norms of the gradients that an output lists, of {official key: gradient}."""
    order = golden.order(case.info["entries"][output])
    return np.array([norm(named[key]) if key in named else np.nan for key in order])


# --- Parts ---------------------------------------------------------------------------------------


def attention(golden, case) -> Arrays:
    """Pixels and objects that read words, with masks and without, and shapes that are painted."""
    get = {k: jnp.asarray(v) for k, v in case.inputs.items()}
    kernels = {n: hwio(golden.weights(n)["conv_context.weight"])[0, 0] for n in ("att", "bt_att")}
    words, keys = (jnp.moveaxis(get[f"in_{k}"], 1, 2) for k in ("context", "glove"))
    labels = jnp.moveaxis(get["in_label"][..., 0], 1, 2)
    mask, every = ~mask_of(case, "in_mask"), jnp.ones(words.shape[:2], bool)
    used = jnp.ones(labels.shape[:2], bool)

    @compiled
    def program(x, words, keys, labels, shapes, kernels, query, context):
        values, out = words @ kernels["att"], {}
        for suffix, seen in (("", mask), ("_nomask", every)):
            found = read_words(x, values, values, seen, "tiled")
            out |= {f"grid_context{suffix}": found[0], f"grid_attn{suffix}": found[1]}
        values = words @ kernels["bt_att"]
        # Without a mask the official code compares by its default.
        for suffix, scores, seen in (
            ("_cos", "cosine", mask),
            ("_dot", "dot", mask),
            ("_nomask", "cosine", every),
        ):
            codes, share = nets.read_by_label(
                labels, keys, values, seen, used, scores=scores, rule="tiled"
            )
            out |= {f"bu_context{suffix}": codes, f"bu_attn{suffix}": share}
            out[f"bu_map{suffix}"] = nets.painted(shapes, codes, used)
        flat = context.reshape(len(context), -1, context.shape[-1])
        own = jnp.ones(query.shape[:2], bool)
        share = matching.attention(flat, query, own, 4.0)
        share = jnp.moveaxis(jnp.diagonal(share, axis1=0, axis2=1), -1, 0)  # [B, T, R]
        return out, share, jnp.einsum("btr,brc->bct", share, flat)

    query = jnp.moveaxis(get["in_fa_query"], 1, 2)
    given = nhwc(get["in_x"]), words, keys, labels, get["in_bt_mask"], kernels, query
    found, share, read = program(*given, nhwc(get["in_fa_context"]))
    out = {"out_fa_context": read}
    out["out_fa_attn"] = np.asarray(share).reshape(case.outputs["out_fa_attn"].shape)
    for name, x in found.items():
        if x.ndim == 4:
            out[f"out_{name}"] = x if name.startswith("grid_attn") else nchw(x)
        else:
            out[f"out_{name}"] = np.moveaxis(np.asarray(x), 1, 2)[..., None]
    return out


def layout_utils(golden, case) -> Arrays:
    """Shapes and maps of a model's shapes, embedded classes, and the scores of the repository."""
    given, shapes = scene(case), jnp.asarray(case.inputs["in_raw_masks64"])
    count = shapes.shape[1]
    there = given["box_mask"][:, :count]
    table = given["table"]
    one_hot = jax.nn.one_hot(given["box_label"][:, :count], len(table)) * there[..., None]

    @compiled
    def program(shapes, one_hot, there, table):
        return *layout.predicted(shapes, one_hot, there, SIZES), one_hot @ table

    made, maps, names = program(shapes, one_hot, there, table)
    logits = np.log(np.asarray(case.inputs["in_preds"], np.float64))
    score = inception_score.inception_score(logits)
    real, fake = (
        statistics.gaussian(statistics.of_rows(case.inputs[f"in_acts_{k}"]))
        for k in ("real", "fake")
    )
    return {
        "out_hmap64": nchw(maps[0])[:, [2, 3, 5, 7], ::2, ::2],
        "out_hmap256": nchw(maps[2])[:, [2, 3, 5, 7], ::8, ::8],
        "out_bt64": made[1],
        "out_bt128": made[2],
        "out_fm_bt": made[0],
        "out_clabels_feat": np.moveaxis(np.asarray(names), 1, 2)[..., None],
        "out_is_mean": score.value,
        "out_is_std": score.spread,
        "out_fid": frechet.fid(real, fake).value,
    }


# --- Generator -----------------------------------------------------------------------------------


def make_g(golden, case) -> tuple:
    """(generator, variables, table) of a case."""
    net = next(n for n in case.info["weights"] if n.startswith("netG"))
    scores = "cosine" if case.info["config"]["BUATTN_NORM"] else "dot"
    return make(golden, net, "g", scores=scores)


def g_inputs(golden, case) -> tuple:
    """(z, eps, sentence, words, mask, keys, layout)."""
    batch, game = scene(case), Given(model(golden, case), SIZES[-1])
    read = captions(case)
    z, eps = (jnp.asarray(case.inputs[f"in_{k}"]) for k in ("z", "eps"))
    text = read.text
    given = compiled(lambda batch: game.layout(None, batch))(batch)
    return z, eps, text.sentence, text.words, text.mask, read.keys, given


def g_shown(case, drawn: nets.Drawn, at: Callable) -> Arrays:
    """Pictures and what happens on the way to them."""
    rows = int(case.inputs["in_num_rois"].max())
    out = {"out_mu": drawn.mean, "out_logvar": drawn.log_variance}
    for image in drawn.images:
        out[f"out_img{image.shape[1]}"] = nchw(image)
    out["out_img256_crop"] = nchw(drawn.images[-1])[:, :, 100:116, 100:116]
    for i, (codes, share) in enumerate(zip(drawn.codes, drawn.attention, strict=True), 2):
        out |= {f"out_bt_c_code{i}": codes[:, :rows], f"out_att{i}": share}
        out[f"out_bt_att{i}"] = drawn.object_attention[i - 1]
    out["out_bt1"] = np.moveaxis(np.asarray(at("stage1/objects")[3])[:, :rows], 1, 2)[..., None]
    for name, x in (
        ("hmap1", at("map1")),
        ("hmap2", at("map2")),
        ("sent1", at("sentence")),
        ("h1", at("stage1")[0]),
        ("h2", at("stage2")[0]),
    ):
        out[f"out_{name}"] = nchw(x)
    return out


def g_eval(golden, case) -> Arrays:
    """Running statistics."""
    module, variables, _ = make_g(golden, case)
    seen = compiled(functools.partial(observe, module))(variables, *g_inputs(golden, case))
    squares = sum(np.square(np.asarray(x, np.float64)).mean() for x in seen.output.images)
    return g_shown(case, seen.output, seen.at) | {"out_sum_mean_sq": squares}


def g_train(golden, case) -> Arrays:
    """Batch statistics, gradients, the running statistics behind them."""
    module, variables, table = make_g(golden, case)

    @compiled
    def turn(variables, given):
        def loss(params):
            everything = {**variables, "params": params}
            seen = observe(module, everything, *given, train=True, mutable=["batch_stats"])
            return sum(jnp.square(x).mean() for x in seen.output.images), seen

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    (value, seen), gradients = turn(variables, g_inputs(golden, case))
    named = rules.to_torch(table, {"params": gradients})
    moved = rules.to_torch(table, seen.changed)
    at = "h_net1_sent.upsample1.2.running"
    return g_shown(case, seen.output, seen.at) | {
        "out_sum_mean_sq": value,
        "out_grad_norms": norms_of(golden, case, "out_grad_norms", named),
        "out_running_mean_after": moved[f"{at}_mean"],
        "out_running_var_after": moved[f"{at}_var"],
    }


# The official weights of G's loss: which of our terms each multiplies.
PARTS: dict[str, Callable[[str], bool]] = {
    "DAMSM": lambda name: name in ("w0", "w1", "s0", "s1"),
    "TXT": lambda name: name.startswith("pat") and name.endswith("_pair"),
    "UNCOND": lambda name: name.startswith("pat") and name.endswith("_alone"),
    "SHP": lambda name: name.startswith("shp"),
    "OBJ": lambda name: name.startswith("obj"),
}


def g_loss(golden, case) -> Arrays:
    """The generator's turn: every weight's share, the whole, and their gradients."""
    of = case.info["config"]
    settings = model(
        golden,
        case,
        scores="cosine" if of["BUATTN_NORM"] else "dot",
        roi_scale=of["roi_align_scale"],
        damsm_weight=of["DAMSM"],
        text_weight=of["TXT"],
        shape_weight=of["SHP"],
        object_weight=of["OBJ"],
        alone_weight=of["UNCOND"],
    )
    game, made, known = Given(settings, SIZES[-1]), {"g": make_g(golden, case)}, {}
    for net in case.info["weights"]:
        if net.startswith("image_encoder"):
            made["image"] = damsm_image(golden, net, width=settings.width)
        elif not net.startswith("netG"):
            name = own_name(net)
            fields = {"roi_scale": settings.roi_scale} if name.startswith("obj") else {}
            made[name] = make(golden, net, name, **fields)
    known = {net: table for net, (_, _, table) in made.items() if net != "image"}
    count = len(case.inputs["in_z"])
    batch = scene(case) | {"read": captions(case), "tokens": jnp.zeros((count, 1), jnp.int32)}
    at = Networks(made, known, batch, draws={"z": latents(case)})

    def turn(ctx, batch):
        total, logs = game.g_loss(ctx, batch)
        shares = {
            part: sum(value for name, value in logs.items() if belongs(name))
            for part, belongs in PARTS.items()
        }
        return {"total": total, **shares}, logs["kl"]

    played = at.play(g=(turn, ("g",)))["g"]
    out = {"out_kl": played.logs}
    for part, value in played.value.items():
        named = at.named(played.gradients[part])
        shown, of = ("total", "grad_total")
        if part != "total":
            shown, of = f"part_{part}_LAMBDA", f"grad_{part}_LAMBDA"
        out |= {f"out_{shown}": value, f"out_{of}": norms_of(golden, case, f"out_{of}", named)}
    return out


# --- Discriminators ------------------------------------------------------------------------------


def pictures(case, which: str) -> tuple[jax.Array | None, ...]:
    """The given pictures of all sizes, None where a case lacks them."""
    found = (case.inputs.get(f"in_{which}{n}") for n in SIZES[1:])
    return tuple(None if x is None else nhwc(x) for x in found)


def patches(golden, case) -> Arrays:
    """Heads on real pictures; the loss and its gradients, where there are drawn ones."""
    settings, out = model(golden, case), {}
    game = Given(settings, SIZES[-1])
    sentence = jnp.asarray(case.inputs["in_sent_emb"])
    batch = {
        "reals": pictures(case, "real"),
        "drawn": pictures(case, "fake"),
        "codes": (),
        "read": obj_gan.Read(Text(sentence, sentence[:, None], None), None),
    }
    made = {own_name(net): make(golden, net, own_name(net)) for net in case.info["weights"]}
    at = Networks(made, {net: table for net, (_, _, table) in made.items()}, batch)
    turns = {}
    for net, (module, *_) in made.items():
        index = game.sizes.index(module.resolution)

        def look(ctx, batch, net=net, index=index):
            h = ctx(net, batch["reals"][index], method="features")
            told = batch["read"].text.sentence
            return (), (h, ctx(net, h, told, method="together"), ctx(net, h, method="alone"))

        turns[f"look_{net}"] = look, ()
        if batch["drawn"][index] is not None:
            turns[net] = functools.partial(game.patch_loss, index), (net,)
    played = at.play(**turns)
    for net, (module, *_) in made.items():
        suffix = module.resolution if len(made) > 1 else ""
        h, pair, alone = played[f"look_{net}"].logs
        out |= {f"out_feat{suffix}": nchw(h)}
        out |= {f"out_cond{suffix}": sigmoid(pair), f"out_uncond{suffix}": sigmoid(alone)}
        if net in played:
            named = at.named(played[net].gradients)
            out[f"out_loss{suffix}"] = played[net].value
            name = f"out_grad_norms{suffix}"
            out[name] = norms_of(golden, case, name, named)
    return out


def sigmoid(x: jax.Array) -> np.ndarray:
    """1 / (1 + exp(-x)) of patches [B, h, w] in float64, with PyTorch's channel."""
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))[:, None]


def shapes(golden, case) -> Arrays:
    """Discriminators of shapes: the head on real pictures; the loss and its gradients."""
    settings = model(golden, case)
    game = Given(settings, SIZES[-1])
    batch = scene(case) | {
        "reals": pictures(case, "real"),
        "drawn": pictures(case, "fake"),
        "codes": (),
    }
    made = {own_name(net): make(golden, net, own_name(net)) for net in case.info["weights"]}
    draws, turns, out = {}, {}, {}
    for net, (module, *_) in made.items():
        size = module.resolution
        index = game.sizes.index(size)
        draws[f"exchange_{net}"] = exchange(case, f"in_perm{size}", settings.classes)

        def look(ctx, batch, net=net, index=index):
            maps = layout.class_maps(game.shapes(batch)[index + 1], game.labels(batch))
            h = ctx(net, batch["reals"][index], maps, method="features")
            return (), (h, ctx(net, h, method="alone"))

        turns[f"look_{net}"] = look, ()
        turns[net] = functools.partial(game.shape_loss, index), (net,)
    known = {net: table for net, (_, _, table) in made.items()}
    at = Networks(made, known, batch, draws=draws)
    played = at.play(**turns)
    for net, (module, *_) in made.items():
        size = module.resolution
        h, alone = played[f"look_{net}"].logs
        named = at.named(played[net].gradients)
        out |= {f"out_feat{size}": nchw(h), f"out_logits{size}": sigmoid(alone)}
        out[f"out_loss{size}"] = played[net].value
        name = f"out_grad_norms{size}"
        out[name] = norms_of(golden, case, name, named)
    return out


def objects(golden, case) -> Arrays:
    """A discriminator of objects, with both scales of its boxes."""
    of = case.info["config"]
    scales = {"": of["roi_align_scale"], "_scale1": of["roi_align_scale of *_scale1"]}
    out = {}
    for suffix, scale in scales.items():
        found = objects_at(golden, case, scale, f"out_grad_norms{suffix}")
        out |= {f"{name.removesuffix(suffix)}{suffix}": x for name, x in found.items()}
    return out


def objects_at(golden, case, scale: float, norms: str) -> Arrays:
    """With boxes of one scale."""
    settings = model(golden, case, roi_scale=scale)
    game, (official,) = Given(settings, SIZES[-1]), case.info["weights"]
    net = own_name(official)
    codes = jnp.asarray(case.inputs["in_bt_c_codes"])
    batch = scene(case)
    places = batch["boxes"].shape[1]
    codes = jnp.pad(codes, ((0, 0), (0, places - codes.shape[1]), (0, 0)))
    drawn = pictures(case, "fake")
    batch |= {"reals": pictures(case, "real"), "drawn": drawn, "codes": (codes,)}
    made = make(golden, official, net, roi_scale=scale)
    draws = {f"exchange_{net}": exchange(case, "in_perm", settings.classes)}
    at = Networks({net: made}, {net: made[2]}, batch, draws=draws)

    def look(ctx, batch):
        judged = game.judged(net, ctx, batch, batch["codes"][-1])
        maps = layout.class_maps(game.shapes(batch)[-1], game.labels(batch))
        h = ctx(net, batch["reals"][-1], maps, judged.boxes, method="features")
        pair = ctx(net, h, judged.cond, method="together")
        return (), (h, pair, ctx(net, h, method="alone"), judged.chosen)

    turns = {"look": (look, ()), "loss": (functools.partial(game.object_loss, net), (net,))}
    played = at.play(**turns)
    h, pair, alone, chosen = played["look"].logs
    chosen = np.asarray(chosen, bool)
    features = np.moveaxis(np.asarray(h), -1, 1)
    labels = np.asarray(batch["box_label"]).reshape(-1)
    return {
        "out_pooled": features.reshape(-1, places, *features.shape[1:])[:, :, ::8],
        "out_sel_feat": features[chosen][:, ::8],
        "out_cond_logits": sigmoid(pair)[chosen],
        "out_uncond_logits": sigmoid(alone)[chosen],
        "out_sel_classes": labels[chosen],
        "out_sel_btc": np.asarray(codes).reshape(-1, codes.shape[-1])[chosen],
        "out_loss": played["loss"].value,
        "out_grad_norms": norms_of(golden, case, norms, at.named(played["loss"].gradients)),
    }


# --- Encoders and their losses -------------------------------------------------------------------


def rnn_encoder(golden, case) -> Arrays:
    """Sentences and words."""
    module, variables, _ = damsm_text(golden, case.info["weights"][0])
    tokens = jnp.asarray(case.inputs["in_captions"], jnp.int32)
    mask = jnp.arange(tokens.shape[1]) < case.inputs["in_cap_lens"][:, None]
    text = compiled(module.apply)(variables, tokens, mask)
    words = np.moveaxis(np.asarray(text.words), 1, 2)
    return {"out_sent_emb": text.sentence, "out_words_emb": words}


def cnn_encoder(golden, case) -> Arrays:
    """Regions and codes of pictures of 256 pixels, and two depths of the trunk."""
    net = case.info["weights"][0]
    module, variables, _ = damsm_image(golden, net)
    seen = compiled(functools.partial(observe, module))(variables, nhwc(case.inputs["in_img256"]))
    regions, code = seen.output
    return {
        "out_conv2d_2b": strided(seen.at("trunk/Conv2d_2b_3x3"), 16, 16),
        "out_mixed_5d": strided(seen.at("trunk/Mixed_5d"), 32, 8),
        "out_region": strided(regions, 4, 2),
        "out_cnn_code": code,
    }


def damsm_losses(golden, case) -> Arrays:
    """Both losses with classes and without, accuracies, gradients, attention, the divergence."""
    get = {k: jnp.asarray(v) for k, v in case.inputs.items()}
    count = len(get["in_cnn_code"])
    regions, words = jnp.moveaxis(get["in_region"], 1, -1), jnp.moveaxis(get["in_words"], 1, 2)
    mask = jnp.arange(words.shape[1]) < get["in_cap_lens"][:, None]
    kinds = {"": get["in_class_ids"], "_noids": None}

    def cost(regions, code, label):
        flat = regions.reshape(count, -1, regions.shape[-1])
        both = {
            "w": matching.word_scores(flat, words, mask),
            "s": matching.sentence_scores(code, get["in_sent"]),
        }
        terms = {kind: matching.matching(x, label) for kind, x in both.items()}
        return sum(map(sum, terms.values())), (terms, both)

    @compiled
    def program(regions, code):
        found = {
            suffix: jax.grad(functools.partial(cost, label=label), (0, 1), has_aux=True)(
                regions, code
            )
            for suffix, label in kinds.items()
        }
        flat = regions.reshape(count, -1, regions.shape[-1])
        return found, matching.attention(flat, words, mask, 4.0)

    found, share = program(regions, get["in_cnn_code"])
    out = {"out_kl": compiled(divergence)(get["in_mu"], get["in_logvar"])}
    for suffix, ((by_regions, by_code), (terms, both)) in found.items():
        for kind, (first, second) in terms.items():
            out |= {f"out_{kind}_loss0{suffix}": first, f"out_{kind}_loss1{suffix}": second}
            out[f"out_{kind}_acc{suffix}"] = accuracy(both[kind], kinds[suffix])
        out[f"out_w_grad_region{suffix}"] = nchw(by_regions)
        out[f"out_s_grad_code{suffix}"] = by_code
    length, side = int(case.inputs["in_cap_lens"][0]), regions.shape[1]
    out["out_att_map0"] = np.asarray(share)[0, 0, :length].reshape(1, -1, side, side)
    return out


def accuracy(scores: jax.Array, label: jax.Array | None) -> float:
    """Percentage of pictures and captions that find each other first."""
    scores = np.array(scores, np.float64)
    if label is not None:
        same = (np.asarray(label)[:, None] == np.asarray(label)) & ~np.eye(len(scores), dtype=bool)
        scores[same] = -np.inf
    own = np.arange(len(scores))
    return 50 * sum((scores.argmax(axis) == own).mean() for axis in (0, 1))


def roi(golden, case) -> Arrays:
    """Points, their means and the gradient of features, with both scales of the boxes."""
    features, rois = nhwc(case.inputs["in_features"]), jnp.asarray(case.inputs["in_rois"])
    cotangent = nhwc(case.inputs["in_cotangent"])
    picture = rois[:, 0].astype(jnp.int32)

    @compiled
    def program(features, boxes, cotangent):
        found = {}
        for suffix, scale in (("s1", 1.0), ("s1_16", 1 / 16)):

            def read(features, mean, size, scale=scale):
                one = features[picture]
                return roi_align(one, boxes[:, None], size=size, scale=scale, mean=mean)[:, 0]

            size = cotangent.shape[1]
            averaged, pull_back = jax.vjp(lambda x: read(x, True, size), features)  # noqa: B023
            found[f"out_points_{suffix}"] = read(features, False, size + 1)
            found[f"out_avg_{suffix}"] = averaged
            found[f"out_grad_{suffix}"] = pull_back(cotangent)[0]
        return found

    return {k: nchw(x) for k, x in program(features, rois[:, 1:], cotangent).items()}


CASES: dict[str, Callable[..., Arrays]] = {
    "attention": attention,
    "layout_utils": layout_utils,
    "roi_align": roi,
    "g_loss": g_loss,
    "g_*train*": g_train,
    "g_*": g_eval,
    "patd*": patches,
    "shpd": shapes,
    "objd*": objects,
    "rnn_encoder": rnn_encoder,
    "cnn_encoder": cnn_encoder,
    "damsm_losses": damsm_losses,
}
