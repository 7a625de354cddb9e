"""StyleGAN-T's networks and losses against the numbers that its official code computed.

Sizes, modes and draws all come from the folder's manifest, so other folders of this layout run
unchanged. Images and features are NCHW there, NHWC here.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.convert import rules as convert
from jaxt2i.encoders import clip_names as clip_tables
from jaxt2i.encoders import dino, perception
from jaxt2i.encoders import dino_names as dino_tables
from jaxt2i.encoders.clip import ClipImage, ClipText, normalize_image
from jaxt2i.encoders.dino import DinoFeatures
from jaxt2i.engine.method import Ctx, Method
from jaxt2i.losses import adversarial
from jaxt2i.losses.text import l2_normalize, spherical_distance
from jaxt2i.nn import augment, resample
from jaxt2i.systems.stylegan_t import goldens_ops as ops
from jaxt2i.systems.stylegan_t import method as stylegan_t
from jaxt2i.systems.stylegan_t import names as tables
from jaxt2i.systems.stylegan_t import networks as nets
from jaxt2i.systems.stylegan_t.goldens_ops import (
    Arrays,
    captured,
    convert_net,
    grad_norms,
    nchw,
    nhwc,
)

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
    return module, convert_net(golden, net, tables.GENERATOR, module, *module.example())


def _w(module, variables, z, sentence=None, psi: float = 1.0) -> np.ndarray:
    apply = lambda m: m.mapping(z, sentence, psi=psi)  # noqa: E731
    return np.asarray(module.apply(variables, method=apply))


def g64_eval(golden, case) -> Arrays:
    """The conditional generator: every stage, truncation, noise modes."""
    module, variables = generator(golden, case.info["weights"][0])
    z, c = jnp.asarray(case.inputs["in_z"]), jnp.asarray(case.inputs["in_c"])
    noise, psi = case.info["config"]["noise_mode"], case.info["config"]["truncation_psi"]
    image, at = captured(module, variables, z, c, psi=psi, noise=noise)
    apply = jax.jit(
        lambda v, psi, noise: module.apply(v, z, c, psi=psi, noise=noise), static_argnums=2
    )
    out = {
        "out_img": image,
        "out_img_none": apply(variables, psi, "none"),
        "out_img_psi05": apply(variables, 0.5, noise),
    }
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
    return arrays | {
        "out_mlp": np.asarray(at(f"mapping/fc{nets.Mapping.layers - 1}")),
        "out_w": _w(module, variables, z, c, psi),
        "out_w_psi05": _w(module, variables, z, c, 0.5),
        "out_w_psi00": _w(module, variables, z, c, 0.0),
    }


def g64_wmix(golden, case) -> Arrays:
    """A different w for every layer."""
    module, variables = generator(golden, case.info["weights"][0])
    noise = case.info["config"]["noise_mode"]

    @jax.jit
    def run(variables, ws):
        return module.apply(variables, method=lambda m: m.synthesis(ws, noise=noise))

    return {"out_img": nchw(run(variables, jnp.asarray(case.inputs["in_ws"])))}


def g64_train(golden, case) -> Arrays:
    """A training forward with given noise: image, running mean, gradients of every parameter."""
    net = case.info["weights"][0]
    module, variables = generator(golden, net)
    z, c = jnp.asarray(case.inputs["in_z"]), jnp.asarray(case.inputs["in_c"])
    maps = {
        k.removeprefix("in_noise.").replace("convs1.", "convs1_").replace(".", "/"): nhwc(v)
        for k, v in case.inputs.items()
        if k.startswith("in_noise.")
    }
    maps = {k: v.astype(jnp.float32) for k, v in maps.items()}

    def loss(params, rest):
        image, changed = module.apply(
            {"params": params, **rest}, z, c, noise=maps, train=True, mutable=["stats"]
        )
        return jnp.square(image).mean() / 2, (image, changed)

    params = variables["params"]
    rest = {k: v for k, v in variables.items() if k != "params"}
    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, (image, changed)), grads = step(params, rest)
    order = list(golden.weights(net))
    names, values = grad_norms(tables.GENERATOR, {"params": grads}, order, f"{net}.")
    return {
        "out_img": nchw(image),
        "out_loss": np.asarray(value),
        "out_x_avg": np.asarray(changed["stats"]["mapping"]["x_avg"]),
        "out_grad_names": names,
        "out_grad_norms": values,
    }


def g128_eval(golden, case) -> Arrays:
    """Deeper blocks, one channel a group in the last: features of every block."""
    module, variables = generator(golden, case.info["weights"][0])
    z, c = jnp.asarray(case.inputs["in_z"]), jnp.asarray(case.inputs["in_c"])
    image, at = captured(module, variables, z, c, noise=case.info["config"]["noise_mode"])
    blocks = {r: at(f"synthesis/b{r}")[0] for r in nets.resolutions(module.resolution)}
    return {"out_img": nchw(image)} | {f"out_x{r}": nchw(x) for r, x in blocks.items()}


def g32u_eval(golden, case) -> Arrays:
    """The unconditional generator, also with a transformed input."""
    module, variables = generator(golden, case.info["weights"][0])
    z, noise = jnp.asarray(case.inputs["in_z"]), case.info["config"]["noise_mode"]
    out = {"out_w": _w(module, variables, z)}
    for tag in ("", "_t"):
        image, at = captured(module, variables, z, noise=noise)
        out[f"out_img{tag}"] = nchw(image)
        out[f"out_b8_input{tag}"] = nchw(at("synthesis/b8/input"))
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
    logits, at = captured(module, variables, x, c)

    def loss(params, x):
        y, _ = module.apply(
            {"params": params, "spectral": variables["spectral"]},
            x,
            c,
            train=True,
            mutable=["spectral"],
        )
        return adversarial.hinge_fake(y), y

    step = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    (value, y), (grads, dx) = step(variables["params"], x)
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
    return module, convert_net(golden, net, tables.DISCRIMINATOR, module, *module.example())


def encoder(golden, net: str) -> tuple[DinoFeatures, dict]:
    """The frozen image encoder of a discriminator, and its variables."""
    module = DinoFeatures()
    args = module.example()
    return module, convert_net(golden, net, dino_tables.TIMM, module, *args, keep="dino.")


def _scores(golden, net: str, c: np.ndarray, train: bool = False) -> Callable:
    """A function from the encoder's input to (logits, taps, the heads' outputs, spectral state)."""
    (see, seen), (judge, judged) = encoder(golden, net), heads(golden, net)

    @jax.jit
    def run(image, seen, judged):
        taps = see.apply(seen, image)
        logits, changed = judge.apply(
            judged,
            taps,
            c,
            train=train,
            capture_intermediates=True,
            mutable=["intermediates", "spectral"],
        )
        return logits, taps, changed["intermediates"], changed["spectral"]

    return lambda image: run(image, seen, judged)


def d_eval_64(golden, case) -> Arrays:
    """The whole discriminator, with the inside of its first head."""
    net = case.info["weights"][0]
    image = nets.encoder_input(nhwc(case.inputs["in_img"]))
    logits, taps, inside, _ = _scores(golden, net, case.inputs["in_c"])(image)
    names = [str(n) for n in case.outputs["out_sigma_names"]]
    first = inside["head_0"]
    sigmas = {}
    for rule in tables.DISCRIMINATOR.rules:
        if rule.source.endswith(".weight_u"):
            for i in range(len(taps)):
                at = inside
                for part in rule.target.split("/")[1:-1]:
                    at = at[part.replace("{i}", str(i))]
                name = rule.source.removesuffix(".weight_u").replace("{i}", str(i))
                sigmas[name] = at["sigma"][0]
    out = {
        "out_logits": np.asarray(logits),
        "out_pre": nchw(image),
        "out_h0_conv0": nchw(first["block0"]["conv"]["__call__"][0]),
        "out_h0_block0": nchw(first["block0"]["__call__"][0]),
        "out_h0_block1": nchw(first["block1"]["__call__"][0]),
        "out_h0_cls": nchw(first["cls"]["__call__"][0]),
        "out_h0_cmap": np.asarray(first["cmapper"]["__call__"][0]),
        "out_sigma_names": np.array([n for n in names if n in sigmas]),
        "out_sigma": np.float32([sigmas[n] for n in names]),
    }
    return out | {f"out_feat{i}": nchw(x) for i, x in enumerate(taps)}


def d_eval_256(golden, case) -> Arrays:
    """Images larger than the encoder's input: resized, and cropped."""
    image = nhwc(case.inputs["in_img"])
    score = _scores(golden, case.info["weights"][0], case.inputs["in_c"])
    row, col = jnp.asarray(case.inputs["in_crop"])[:, None]
    view = {"crop": jnp.ones(1, bool), "row": row, "col": col}
    return {
        "out_logits": np.asarray(score(nets.encoder_input(image))[0]),
        "out_logits_crop": np.asarray(score(nets.encoder_input(image, view=view))[0]),
    }


def d_train_64_b16(golden, case) -> Arrays:
    """A training forward of two virtual batches: logits and the advanced spectral vectors."""
    net = case.info["weights"][0]
    image = nets.encoder_input(nhwc(case.inputs["in_img"]))
    logits, _, _, spectral = _scores(golden, net, case.inputs["in_c"], train=True)(image)
    vectors = convert.to_torch(tables.DISCRIMINATOR, {"spectral": spectral})
    out = {"out_logits": np.asarray(logits)}
    for name in case.outputs:
        if name.startswith(("out_u_", "out_v_")):
            _, vector, layer = name.split("_", 2)
            out[name] = vectors[f"heads.0.{layer}.weight_{vector}"]
    return out


def d_diffaug_64(golden, case) -> Arrays:
    """The discriminator on augmented images, the draws given."""
    draws = {k: jnp.asarray(case.inputs[f"in_{k}"]) for k in augment.draw(jax.random.key(0), 1, 8)}
    image = nets.encoder_input(nhwc(case.inputs["in_img"]), draws=draws)
    score = _scores(golden, case.info["weights"][0], case.inputs["in_c"])
    return {"out_logits": np.asarray(score(image)[0])}


# --- CLIP ---------------------------------------------------------------------------------------


def text_tower(golden, net: str) -> tuple[ClipText, dict]:
    """CLIP's text tower as a network of the folder describes it, and its variables."""
    config = golden.manifest["weights"][net]["config"]
    sizes = config["text_cfg"]
    module = ClipText(
        vocab=sizes["vocab_size"],
        length=sizes["context_length"],
        width=sizes["width"],
        layers=sizes["layers"],
        heads=sizes["heads"],
        joint=config["embed_dim"],
    )
    return module, convert_net(golden, net, clip_tables.OPENAI_TEXT, module, *module.example())


def image_tower(golden, net: str) -> tuple[ClipImage, dict]:
    """CLIP's image tower as a network of the folder describes it, and its variables."""
    config = golden.manifest["weights"][net]["config"]
    sizes = config["vision_cfg"]
    module = ClipImage(
        resolution=sizes["image_size"],
        patch=sizes["patch_size"],
        width=sizes["width"],
        layers=sizes["layers"],
        heads=sizes["width"] // sizes.get("head_width", 64),
        joint=config["embed_dim"],
    )
    return module, convert_net(golden, net, clip_tables.OPENAI_IMAGE, module, *module.example())


def clip_text(golden, case) -> Arrays:
    """Captions' vectors, and the first block's output."""
    module, variables = text_tower(golden, case.info["weights"][0])
    tokens = jnp.asarray(case.inputs["in_tokens"])
    raw = module.apply(variables, tokens).sentence
    blocks = module.apply(variables, tokens, method="stages")["blocks"]
    return {
        "out_text_raw": np.asarray(raw),
        "out_text": np.asarray(l2_normalize(raw)),
        "out_resblock0": np.asarray(blocks[0]),
    }


def clip_image(golden, case) -> Arrays:
    """Images' vectors; images of other sizes are resized bicubically first."""
    module, variables = image_tower(golden, case.info["weights"][0])

    def prepare(x: np.ndarray) -> jax.Array:
        matrix = resample.bicubic_matrix(module.resolution, x.shape[-1])
        return normalize_image(resample.apply_matrices(nhwc(x) * 2 - 1, matrix, matrix))

    embed = jax.jit(lambda v, x: module.apply(v, x)[0])
    small, large = prepare(case.inputs["in_img"]), prepare(case.inputs["in_img256"])
    raw = embed(variables, small)
    return {
        "out_pre": nchw(small),
        "out_image_raw": np.asarray(raw),
        "out_image": np.asarray(l2_normalize(raw)),
        "out_image256": np.asarray(l2_normalize(embed(variables, large))),
    }


def g64_text(golden, case) -> Arrays:
    """Captions and z to w, through the generator's own text tower."""
    net = case.info["weights"][0]
    module, variables = generator(golden, net)
    aliases = golden.manifest["weights"][net]["aliases"].values()
    text, weights = text_tower(golden, next(iter(aliases))["net"])
    tokens = jnp.asarray(case.inputs["in_tokens"])
    sentence = l2_normalize(text.apply(weights, tokens).sentence)
    return {"out_w": _w(module, variables, jnp.asarray(case.inputs["in_z"]), sentence)}


def clip_guidance_128(golden, case) -> Arrays:
    """The guidance of large images: one crop, enlarged; distances and the image's gradient."""
    module, variables = image_tower(golden, case.info["weights"][0])
    text, size = jnp.asarray(case.inputs["in_text"]), case.info["config"]["crop_size"]
    row, col = (int(x) for x in case.inputs["in_crop"])

    def loss(image, variables):
        at = jnp.array([row]), jnp.array([col])
        seen = nets.guidance_input(image, *at, crop=size, out=module.resolution)
        features = l2_normalize(module.apply(variables, normalize_image(seen))[0])
        distance = spherical_distance(features, text)
        return distance.mean(), (features, distance)

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, (features, distance)), gradient = step(nhwc(case.inputs["in_img"]), variables)
    return {
        "out_features": np.asarray(features),
        "out_dist": np.asarray(distance),
        "out_loss": np.asarray(value),
        "out_dx": nchw(gradient)[:, :, row : row + size, col : col + size],
        "out_dx_norm": np.linalg.norm(np.asarray(gradient, np.float64)),
    }


# --- One step of training -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class GivenGame(stylegan_t.Losses):
    """The method's own game, but with given latents, constant noise, and a note of every logit.

    Attributes:
      z: {"d" | "g": latents}.
      logits: {"fake" | "real" | "fake_g": logits}, filled while a loss is traced.
    """

    z: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    logits: dict[str, jax.Array] = dataclasses.field(default_factory=dict)

    def generate(self, ctx: Ctx, sentence: jax.Array, name: str) -> jax.Array:
        """Pictures of the given latents."""
        return ctx("g", self.z[name], sentence, noise="const", train=True)

    def discriminate(self, ctx: Ctx, image: jax.Array, sentence: jax.Array, name: str) -> jax.Array:
        """The method's logits, noted."""
        self.logits[name] = super().discriminate(ctx, image, sentence, name)
        return self.logits[name]


class Step:
    """One step of a case: the method's game on a folder's networks."""

    def __init__(self, golden, case):
        self.roles, config = case.info["weights"], case.info["config"]
        g, own = generator(golden, self.roles["G"])
        d, heads_of_d = heads(golden, self.roles["D"])
        features, seen = encoder(golden, self.roles["D"])
        text, words = text_tower(golden, self.roles["clip"])
        guide, eye = image_tower(golden, self.roles["clip"])
        model = stylegan_t.Model(
            train_mode=config["train_mode"],
            clip_weight=config["clip_weight"],
            micro_batch=len(case.inputs["in_img_u8"]),
            guidance_crop=case.inputs["in_img_u8"].shape[-1],
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
        z = {name: jnp.asarray(case.inputs[f"in_z_{name.upper()}"]) for name in "dg"}
        self.game = GivenGame(model, sees, case.inputs["in_img_u8"].shape[-1], z)
        tokens = jnp.asarray(case.inputs["in_tokens"])
        image = jnp.asarray(np.moveaxis(case.inputs["in_img_u8"], 1, -1))
        mask = jnp.ones(tokens.shape, bool)
        self.batch = {"image": image, "tokens": tokens, "token_mask": mask}
        nets = {"g": g, "d": d, "text": text, "features": features, "guide": guide}
        variables = {"g": own, "d": heads_of_d, "text": words, "features": seen, "guide": eye}
        frozen = (self.game.reference, "features", "guide")
        if self.game.trains_text:
            nets["text_reference"], variables["text_reference"] = text, words
        self.method = Method(nets, (), init=None, needs=tuple(self.batch), frozen=frozen)
        self.params = {n: dict(variables[n])["params"] for n in self.method.trained}
        self.extra = {
            n: {k: v for k, v in variables[n].items() if k != "params"} for n in self.method.trained
        }
        self.frozen = {n: variables[n] for n in frozen}

    def play(self, loss, net: str, extra: dict) -> tuple:
        """(value, logs, logits, extra, gradient) of one player's loss over one network."""

        def value(trained, params, extra, frozen):
            ctx = Ctx(self.method, {**params, net: trained}, extra, frozen, key=jax.random.key(0))
            out, logs = loss(ctx, self.batch)
            return out, (logs, dict(self.game.logits), ctx.extra)

        step = jax.jit(jax.value_and_grad(value, has_aux=True))
        (out, (logs, logits, extra)), grads = step(
            self.params[net], self.params, extra, self.frozen
        )
        self.game.logits.clear()
        return out, logs, logits, extra, grads


def losses(golden, case) -> Arrays:
    """Player D, then player G, without an optimiser's step between them."""
    step = Step(golden, case)
    game, roles = step.game, step.roles
    d_value, _, d_logits, extra, d_grads = step.play(game.d_loss, "d", step.extra)
    net, rules = ("text", clip_tables.OPENAI_TEXT) if game.trains_text else ("g", tables.GENERATOR)
    _, g_logs, g_logits, _, g_grads = step.play(game.g_loss, net, extra)
    source = roles["clip" if game.trains_text else "G"]
    prefix = f"{roles['G']}." + "mapping.clip.model." * game.trains_text
    d_order, g_order = list(golden.weights(roles["D"])), list(golden.weights(source))
    d_names, d_norms = grad_norms(
        tables.DISCRIMINATOR, {"params": d_grads}, d_order, f"{roles['D']}."
    )
    g_names, g_norms = grad_norms(rules, {"params": g_grads}, g_order, prefix)
    return {
        "out_D_grad_names": d_names,
        "out_D_grad_norms": d_norms,
        "out_D_scores_fake": np.asarray(d_logits["fake"]),
        "out_D_scores_real": np.asarray(d_logits["real"]),
        "out_D_loss": np.asarray(d_value),
        "out_G_grad_names": g_names,
        "out_G_grad_norms": g_norms,
        "out_G_scores_fake": np.asarray(g_logits["fake_g"]),
        "out_G_loss": np.asarray(g_logs["adversarial"] * game.hinge_scale),
        "out_G_clip_loss": np.asarray(g_logs["guidance"]),
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
