"""StyleGAN-T's networks and losses against the numbers that its official code computed.

Sizes, modes and draws all come from the folder's manifest, so other folders of this layout run
unchanged. Images and features are NCHW there, NHWC here.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.convert import rules as convert
from jaxt2i.encoders import clip_names as clip_tables
from jaxt2i.encoders import dino, perception
from jaxt2i.encoders import dino_names as dino_tables
from jaxt2i.encoders.clip import normalize_image
from jaxt2i.encoders.dino import DinoFeatures
from jaxt2i.losses import adversarial
from jaxt2i.losses.text import l2_normalize, spherical_distance
from jaxt2i.nn import augment, resample
from jaxt2i.systems.stylegan_t import goldens_ops as ops
from jaxt2i.systems.stylegan_t import method as stylegan_t
from jaxt2i.systems.stylegan_t import names as tables
from jaxt2i.systems.stylegan_t import networks as nets
from jaxt2i.verify.arrays import Arrays, nchw, nhwc, norm
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.encoders import clip_tower
from jaxt2i.verify.networks import captured, convert_net, grad_norms, observe
from jaxt2i.verify.step import Networks

SERVES = ("stylegan_t/*",)

# --- Generator ---------------------------------------------------------------------------------


def generator(golden, net: str) -> tuple[nets.Generator, dict]:
    """The generator that a network of the folder describes, and its variables."""
    config = golden.manifest["weights"][net]["config"]
    sizes = {k: v for k, v in config["synthesis_kwargs"].items() if k != "architecture"}
    module = nets.Generator(
        resolution=config["img_resolution"],
        z_dim=config["z_dim"],
        sentence_dim=config["c_dim"] if config["conditional"] else 0,
        **sizes,
    )
    return module, convert_net(golden, net, tables.GENERATOR, module)


def _w(module, variables, z, sentence=None, psi: float = 1.0) -> jax.Array:
    return module.apply(variables, method=lambda m: m.mapping(z, sentence, psi=psi))


def g64_eval(golden, case) -> Arrays:
    """The conditional generator: every stage, truncation, noise modes."""
    module, variables = generator(golden, case.info["weights"][0])
    noise, psi = case.info["config"]["noise_mode"], case.info["config"]["truncation_psi"]

    @compiled
    def run(variables, z, c):
        shown = {
            "out_img_none": module.apply(variables, z, c, psi=psi, noise="none"),
            "out_img_psi05": module.apply(variables, z, c, psi=0.5, noise=noise),
        }
        w = {
            "out_w": _w(module, variables, z, c, psi),
            "out_w_psi05": _w(module, variables, z, c, 0.5),
            "out_w_psi00": _w(module, variables, z, c, 0.0),
        }
        return observe(module, variables, z, c, psi=psi, noise=noise), shown, w

    seen, out, w = run(variables, case.inputs["in_z"], case.inputs["in_c"])
    at, out = seen.at, {**out, "out_img": seen.output}
    for name in case.outputs:
        kind = name.removeprefix("out_")
        if kind.startswith("b"):
            block, layer = kind.split("_", 1)
            style = layer.endswith("_style")
            path = f"synthesis/{block}/{layer.removesuffix('_style')}{'/affine' * style}"
            out[name] = at(path)
        elif kind.startswith("img") and kind.removeprefix("img").isdigit():
            out[name] = at(f"synthesis/b{kind.removeprefix('img')}")[1]
    arrays = {k: nchw(v) if v.ndim == 4 else np.asarray(v) for k, v in out.items()}
    return arrays | w | {"out_mlp": np.asarray(at(f"mapping/fc{nets.Mapping.layers - 1}"))}


def g64_wmix(golden, case) -> Arrays:
    """A different w for every layer."""
    module, variables = generator(golden, case.info["weights"][0])
    noise = case.info["config"]["noise_mode"]

    @compiled
    def run(variables, ws):
        return module.apply(variables, method=lambda m: m.synthesis(ws, noise=noise))

    return {"out_img": nchw(run(variables, case.inputs["in_ws"]))}


def g64_train(golden, case) -> Arrays:
    """A training forward with given noise: image, running mean, gradients of every parameter."""
    net = case.info["weights"][0]
    module, variables = generator(golden, net)
    maps = {
        k.removeprefix("in_noise.").replace("convs1.", "convs1_").replace(".", "/"): nhwc(v)
        for k, v in case.inputs.items()
        if k.startswith("in_noise.")
    }
    batch = {"z": jnp.asarray(case.inputs["in_z"]), "c": jnp.asarray(case.inputs["in_c"])}
    batch["maps"] = {k: v.astype(jnp.float32) for k, v in maps.items()}

    def turn(ctx, batch):
        image = ctx("g", batch["z"], batch["c"], noise=batch["maps"], train=True)
        return jnp.square(image).mean() / 2, image

    at = Networks({"g": (module, variables)}, {"g": tables.GENERATOR}, batch)
    value, image, grads, extra, _ = at.play(g=(turn, ("g",)))["g"]
    order = list(golden.weights(net))
    names, values = grad_norms(tables.GENERATOR, {"params": grads["g"]}, order, f"{net}.")
    return {
        "out_img": nchw(image),
        "out_loss": np.asarray(value),
        "out_x_avg": np.asarray(extra["g"]["stats"]["mapping"]["x_avg"]),
        "out_grad_names": names,
        "out_grad_norms": values,
    }


def g128_eval(golden, case) -> Arrays:
    """Deeper blocks, one channel a group in the last: features of every block."""
    module, variables = generator(golden, case.info["weights"][0])
    noise = case.info["config"]["noise_mode"]
    image, at = captured(module, variables, case.inputs["in_z"], case.inputs["in_c"], noise=noise)
    blocks = {r: at(f"synthesis/b{r}")[0] for r in nets.resolutions(module.resolution)}
    return {"out_img": nchw(image)} | {f"out_x{r}": nchw(x) for r, x in blocks.items()}


def g32u_eval(golden, case) -> Arrays:
    """The unconditional generator, also with a transformed input."""
    module, variables = generator(golden, case.info["weights"][0])
    noise = case.info["config"]["noise_mode"]

    @compiled
    def run(variables, z):
        return observe(module, variables, z, noise=noise), _w(module, variables, z)

    out = {}
    for tag in ("", "_t"):
        seen, out["out_w"] = run(variables, case.inputs["in_z"])
        out[f"out_img{tag}"] = nchw(seen.output)
        out[f"out_b8_input{tag}"] = nchw(seen.at("synthesis/b8/input"))
        buffer = variables["buffers"]["synthesis"]["b8"]["input"]
        buffer["transform"] = jnp.asarray(case.inputs["in_transform"])
    return out


def trainable(golden, case) -> Arrays:
    """Which parameters each training mode trains."""
    net = case.info["weights"][0]
    _, variables = generator(golden, net)

    def official_names(mode: str) -> list[str]:
        def flag(path, x):
            train = nets.trainable([k.key for k in path], mode)
            return np.full(x.shape, train)

        marked = jax.tree_util.tree_map_with_path(flag, variables["params"])
        named = convert.to_torch(tables.GENERATOR, {"params": marked})
        return [k for k in golden.weights(net) if k in named and named[k].all()]

    text = [k for k in golden.weights(net) if k.startswith("mapping.clip.")]
    return {
        "out_all": np.array(official_names("all")),
        "out_text_encoder": np.array(official_names("text_encoder") + text),
        "out_freeze64": np.array(official_names("freeze64")),
    }


# --- Discriminator -----------------------------------------------------------------------------


def head_small(golden, case) -> Arrays:
    """One head: evaluation, then a training forward with gradients."""
    net = case.info["weights"][0]
    module, rules = nets.DiscriminatorHead(), tables.head()
    x, c = nhwc(case.inputs["in_x"]), jnp.asarray(case.inputs["in_c"])
    c = c if c.shape[1] else None
    variables = convert_net(golden, net, rules, module, x, c)

    @compiled
    def step(params, rest, x, c):
        def loss(params, x):
            y, _ = module.apply({"params": params, **rest}, x, c, train=True, mutable=["spectral"])
            return adversarial.hinge_fake(y), y

        turn = jax.value_and_grad(loss, (0, 1), has_aux=True)
        return observe(module, {"params": params, **rest}, x, c), turn(params, x)

    rest = {"spectral": variables["spectral"]}
    seen, ((value, y), (grads, dx)) = step(variables["params"], rest, x, c)
    logits, at = seen.output, seen.at
    order = list(golden.weights(net))
    names, values = grad_norms(rules, {"params": grads}, order, f"{net}.")
    return {
        "out_block0": nchw(at("block0")),
        "out_block1": nchw(at("block1")),
        "out_cls": nchw(at("cls")),
        "out_eval": np.asarray(logits)[:, None],
        "out_train": np.asarray(y)[:, None],
        "out_loss": np.asarray(value),
        "out_grad_names": names,
        "out_grad_norms": values,
        "out_dx": nchw(dx),
    }


# --- Discriminator with its image encoder -------------------------------------------------------


def heads(golden, net: str) -> tuple[nets.DiscriminatorHeads, dict]:
    """The heads of a discriminator, and their variables."""
    module = nets.DiscriminatorHeads(**tables.infer("d", golden.weights(net)))
    return module, convert_net(golden, net, tables.DISCRIMINATOR, module)


def encoder(golden, net: str) -> tuple[DinoFeatures, dict]:
    """The frozen image encoder of a discriminator, and its variables."""
    module = DinoFeatures()
    return module, convert_net(golden, net, dino_tables.TIMM, module, keep="dino.")


def scored(golden, case, prepare: Callable, train: bool = False) -> list[tuple]:
    """(the heads, observed; taps; the encoder's input) of pictures, however they are prepared.

    Args:
      golden: the folder.
      case: its case.
      prepare: pictures [B, R, R, 3] to a list of what the encoder is given.
      train: advance the spectral vectors.
    """
    net = case.info["weights"][0]
    (see, seen), (judge, judged) = encoder(golden, net), heads(golden, net)

    @compiled
    def run(image, c, seen, judged):
        out = []
        for x in prepare(image):
            taps = see.apply(seen, x)
            found = observe(judge, judged, taps, c, train=train, mutable=["spectral"])
            out.append((found, taps, x))
        return out

    return run(nhwc(case.inputs["in_img"]), case.inputs["in_c"], seen, judged)


def d_eval_64(golden, case) -> Arrays:
    """The whole discriminator, with the inside of its first head."""
    ((seen, taps, image),) = scored(golden, case, lambda x: [nets.encoder_input(x)])
    names = [str(n) for n in case.outputs["out_sigma_names"]]
    sigmas = {}
    for rule in tables.DISCRIMINATOR.rules:
        if rule.source.endswith(".weight_u"):
            path = "/".join(rule.target.split("/")[1:-1])
            for i in range(len(taps)):
                name = rule.source.removesuffix(".weight_u").replace("{i}", str(i))
                sigmas[name] = seen.at(path.replace("{i}", str(i)), "sigma")
    out = {
        "out_logits": np.asarray(seen.output),
        "out_pre": nchw(image),
        "out_h0_conv0": nchw(seen.at("head_0/block0/conv")),
        "out_h0_block0": nchw(seen.at("head_0/block0")),
        "out_h0_block1": nchw(seen.at("head_0/block1")),
        "out_h0_cls": nchw(seen.at("head_0/cls")),
        "out_h0_cmap": np.asarray(seen.at("head_0/cmapper")),
        "out_sigma_names": np.array([n for n in names if n in sigmas]),
        "out_sigma": np.array([sigmas[n] for n in names]),
    }
    return out | {f"out_feat{i}": nchw(x) for i, x in enumerate(taps)}


def d_eval_256(golden, case) -> Arrays:
    """Images larger than the encoder's input: resized, and cropped."""
    row, col = jnp.asarray(case.inputs["in_crop"])[:, None]
    view = {"crop": jnp.ones(1, bool), "row": row, "col": col}
    whole, crop = scored(
        golden, case, lambda x: [nets.encoder_input(x), nets.encoder_input(x, view=view)]
    )
    return {"out_logits": whole[0].output, "out_logits_crop": crop[0].output}


def d_train_64_b16(golden, case) -> Arrays:
    """A training forward of two virtual batches: logits and the advanced spectral vectors."""
    ((seen, *_),) = scored(golden, case, lambda x: [nets.encoder_input(x)], train=True)
    vectors = convert.to_torch(tables.DISCRIMINATOR, seen.changed)
    out = {"out_logits": np.asarray(seen.output)}
    for name in case.outputs:
        if name.startswith(("out_u_", "out_v_")):
            _, vector, layer = name.split("_", 2)
            out[name] = vectors[f"heads.0.{layer}.weight_{vector}"]
    return out


def d_diffaug_64(golden, case) -> Arrays:
    """The discriminator on augmented images, the draws given."""
    draws = {k: jnp.asarray(case.inputs[f"in_{k}"]) for k in augment.draw(jax.random.key(0), 1, 8)}
    ((seen, *_),) = scored(golden, case, lambda x: [nets.encoder_input(x, draws=draws)])
    return {"out_logits": np.asarray(seen.output)}


# --- CLIP ---------------------------------------------------------------------------------------


def tower(golden, name: str, net: str) -> tuple:
    """(module, variables) of CLIP's "text" or "image" tower; the folder has OpenAI's activation."""
    return clip_tower(golden, name, net, act="quick_gelu")


def clip_text(golden, case) -> Arrays:
    """Captions' vectors, and the first block's output."""
    module, variables = tower(golden, case.info["weights"][0], "text")

    @compiled
    def run(variables, tokens):
        raw = module.apply(variables, tokens).sentence
        blocks = module.apply(variables, tokens, method="stages")["blocks"]
        return {"out_text_raw": raw, "out_text": l2_normalize(raw), "out_resblock0": blocks[0]}

    return run(variables, jnp.asarray(case.inputs["in_tokens"]))


def clip_image(golden, case) -> Arrays:
    """Images' vectors; images of other sizes are resized bicubically first."""
    module, variables = tower(golden, case.info["weights"][0], "image")

    def prepare(x: jax.Array) -> jax.Array:
        matrix = resample.bicubic_matrix(module.resolution, x.shape[1])
        return normalize_image(resample.apply_matrices(x * 2 - 1, matrix, matrix))

    @compiled
    def run(variables, image, large):
        small = prepare(image)
        raw, other = (module.apply(variables, x)[0] for x in (small, prepare(large)))
        return small, raw, l2_normalize(raw), l2_normalize(other)

    given = (nhwc(case.inputs[f"in_{k}"]) for k in ("img", "img256"))
    names = ("out_pre", "out_image_raw", "out_image", "out_image256")
    out = dict(zip(names, run(variables, *given), strict=True))
    return out | {"out_pre": nchw(out["out_pre"])}


def g64_text(golden, case) -> Arrays:
    """Captions and z to w, through the generator's own text tower."""
    net = case.info["weights"][0]
    module, variables = generator(golden, net)
    aliases = golden.manifest["weights"][net]["aliases"].values()
    text, weights = tower(golden, next(iter(aliases))["net"], "text")

    @compiled
    def run(variables, weights, z, tokens):
        sentence = l2_normalize(text.apply(weights, tokens).sentence)
        return {"out_w": _w(module, variables, z, sentence)}

    return run(variables, weights, case.inputs["in_z"], jnp.asarray(case.inputs["in_tokens"]))


def clip_guidance_128(golden, case) -> Arrays:
    """The guidance of large images: one crop, enlarged; distances and the image's gradient."""
    module, variables = tower(golden, case.info["weights"][0], "image")
    size = case.info["config"]["crop_size"]
    row, col = (int(x) for x in case.inputs["in_crop"])

    def loss(image, variables, text):
        at = jnp.array([row]), jnp.array([col])
        seen = nets.guidance_input(image, *at, crop=size, out=module.resolution)
        features = l2_normalize(module.apply(variables, normalize_image(seen))[0])
        distance = spherical_distance(features, text)
        return distance.mean(), (features, distance)

    step = compiled(jax.value_and_grad(loss, has_aux=True))
    (value, (features, distance)), gradient = step(
        nhwc(case.inputs["in_img"]), variables, case.inputs["in_text"]
    )
    return {
        "out_features": np.asarray(features),
        "out_dist": np.asarray(distance),
        "out_loss": np.asarray(value),
        "out_dx": nchw(gradient)[:, :, row : row + size, col : col + size],
        "out_dx_norm": norm(gradient),
    }


# --- One step of training -----------------------------------------------------------------------


def step(golden, case) -> tuple[Networks, stylegan_t.Losses]:
    """The networks and inputs of a case, and the method's game on them."""
    roles, config = case.info["weights"], case.info["config"]
    made = {
        "g": generator(golden, roles["G"]),
        "d": heads(golden, roles["D"]),
        "features": encoder(golden, roles["D"]),
        "text": tower(golden, roles["clip"], "text"),
        "guide": tower(golden, roles["clip"], "image"),
    }
    text, guide, features = (made[n][0] for n in ("text", "guide", "features"))
    side = case.inputs["in_img_u8"].shape[-1]
    model = stylegan_t.Model(
        train_mode=config["train_mode"],
        clip_weight=config["clip_weight"],
        micro_batch=len(case.inputs["in_img_u8"]),
        guidance_crop=side,
        blur_init_sigma=0.0,
        augment="",
        crop_probability=0.0,
    )
    sees = perception.Perception(
        text=text,
        guide=guide,
        features=features,
        guide_norm=normalize_image,
        feature_norm=dino.normalize_image,
        guide_resolution=guide.resolution,
        feature_resolution=features.resolution,
        sentence=text.joint,
        load={},
        about="",
    )
    game = stylegan_t.Losses(model, sees, side)
    named = {"g": tables.GENERATOR, "d": tables.DISCRIMINATOR}
    if game.trains_text:
        made["text_reference"] = made["text"]
        named["text"] = clip_tables.OPENAI_TEXT
    tokens = jnp.asarray(case.inputs["in_tokens"])
    image = jnp.asarray(np.moveaxis(case.inputs["in_img_u8"], 1, -1))
    batch = {"image": image, "tokens": tokens, "token_mask": jnp.ones(tokens.shape, bool)}
    draws = {f"z_{name}": case.inputs[f"in_z_{name.upper()}"] for name in "dg"}
    draws |= {f"noise_{name}": {"noise": "const"} for name in "dg"}
    return Networks(made, named, batch, draws=draws, watch=("d",)), game


def losses(golden, case) -> Arrays:
    """Player D, then player G, without an optimiser's step between them."""
    at, game = step(golden, case)
    roles, net = case.info["weights"], "text" if game.trains_text else "g"
    turns = at.play(after="d", d=(game.d_loss, ("d",)), g=(game.g_loss, (net,)))
    d_turn, g_turn, rules = turns["d"], turns["g"], at.tables[net]
    (d_fake, d_real), (g_fake,) = d_turn.outputs["d"], g_turn.outputs["d"]
    source = roles["clip" if game.trains_text else "G"]
    prefix = f"{roles['G']}." + "mapping.clip.model." * game.trains_text
    d_order, g_order = list(golden.weights(roles["D"])), list(golden.weights(source))
    d_names, d_norms = grad_norms(
        tables.DISCRIMINATOR, {"params": d_turn.gradients["d"]}, d_order, f"{roles['D']}."
    )
    g_names, g_norms = grad_norms(rules, {"params": g_turn.gradients[net]}, g_order, prefix)
    return {
        "out_D_grad_names": d_names,
        "out_D_grad_norms": d_norms,
        "out_D_scores_fake": d_fake,
        "out_D_scores_real": d_real,
        "out_D_loss": d_turn.value,
        "out_G_grad_names": g_names,
        "out_G_grad_norms": g_norms,
        "out_G_scores_fake": g_fake,
        "out_G_loss": g_turn.logs["adversarial"] * game.hinge_scale,
        "out_G_clip_loss": g_turn.logs["guidance"],
    }


CASES: dict[str, Callable[..., Arrays]] = ops.CASES | {
    "g64_eval": g64_eval,
    "g64_text": g64_text,
    "g64_wmix": g64_wmix,
    "g64_train": g64_train,
    "g128_eval": g128_eval,
    "g32u_eval": g32u_eval,
    "trainable": trainable,
    "head_small*": head_small,
    "d_eval_64": d_eval_64,
    "d_eval_256": d_eval_256,
    "d_train_64_b16": d_train_64_b16,
    "d_diffaug_64": d_diffaug_64,
    "clip_text": clip_text,
    "clip_image": clip_image,
    "clip_guidance_128": clip_guidance_128,
    "loss_all": losses,
    "loss_text_encoder": losses,
}
