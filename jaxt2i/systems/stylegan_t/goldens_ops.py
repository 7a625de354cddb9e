"""StyleGAN-T's single operations and layers against its official code's numbers."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxt2i.data.pictures import Framing
from jaxt2i.engine.method import Ema
from jaxt2i.losses.text import spherical_distance
from jaxt2i.nn import augment, dense, modulated, norms, resample
from jaxt2i.systems.stylegan_t import names as tables
from jaxt2i.systems.stylegan_t import networks as nets
from jaxt2i.verify.arrays import Arrays, hwio, nchw, nhwc
from jaxt2i.verify.compute import compiled, traced
from jaxt2i.verify.networks import convert_net, grad_norms


@traced
def ops_upfirdn2d(case, get) -> dict[str, jax.Array]:
    """FIR filters and resampling with them."""
    steps = np.linspace(-2, 2, 9)
    filters = {
        "f4": resample.setup_filter([1, 3, 3, 1]),
        "fa": resample.setup_filter([1, 2, 5]),
        "f2d": resample.setup_filter([[1, 2, 3], [4, 5, 6]]),
        "f9": resample.setup_filter(np.exp(-(steps**2))),
        None: resample.setup_filter(None),
    }
    x, f4, fa = nhwc(get["in_x"]), filters["f4"], filters["fa"]
    out = {
        "out_f_1331": f4,
        "out_f_125": fa,
        "out_f_2x3": filters["f2d"],
        "out_f_sep9": filters["f9"],
        "out_f_gain4": resample.setup_filter([1, 3, 3, 1], gain=4),
        "out_f_flip": resample.setup_filter([1, 2, 5], flip=True),
        "out_f_nonorm": resample.setup_filter([1, 3, 3, 1], normalize=False),
        "out_upsample2d": resample.upsample2d(x, f4),
        "out_downsample2d": resample.downsample2d(x, f4),
        "out_filter2d": resample.filter2d(x, f4),
        "out_filter2d_asym": resample.filter2d(x, fa),
        "out_upsample2d_asym": resample.upsample2d(x, fa),
    }
    for name, (taps, kw) in case.info["config"]["spec"].items():
        kw = {("flip" if k == "flip_filter" else k): v for k, v in kw.items()}
        out[f"out_{name}"] = resample.upfirdn2d(x, filters[taps], **kw)
    weight = nhwc(get["in_r"])
    gradient = jax.grad(lambda x: (resample.upsample2d(x, f4) * weight).sum())(x)
    return out | {"out_upsample2d_dx": gradient}


@traced
def ops_bias_act(case, get) -> dict[str, jax.Array]:
    """Bias, activation, gain and clamp."""
    x, b, act = nhwc(get["in_x"]), jnp.asarray(get["in_b"]), dense.bias_act
    out = {f"out_{name}": act(x, b, name) for name in dense.ACTIVATIONS}
    return out | {
        "out_lrelu_gain_clamp": act(x, b, "lrelu", gain=1.0, clamp=1.5),
        "out_lrelu_alpha": act(x, b, "lrelu", alpha=0.05),
        "out_nobias": act(x, None, "lrelu"),
        "out_linear_clamp": act(x, b, clamp=0.7),
        "out_2d": act(jnp.asarray(get["in_x2"]), b, "lrelu"),
    }


@traced
def ops_modulated_conv2d(case, get) -> dict[str, jax.Array]:
    """Modulated convolutions; both of the official forms are the one form here."""
    x, w, w1, s = nhwc(get["in_x"]), hwio(get["in_w"]), hwio(get["in_w1"]), jnp.asarray(get["in_s"])
    half, conv = nhwc(get["in_x_half"]), modulated.modulated_conv
    f4, fa = resample.setup_filter([1, 3, 3, 1]), resample.setup_filter([1, 2, 5])
    up = {"up": 2, "f": f4, "flip": True}
    out = {
        "same": conv(x, w, s) + nhwc(get["in_noise"]),
        "up": conv(x, w, s, **up) + nhwc(get["in_noise_up"]),
        "nodemod1x1": modulated.to_rgb(x, w1, s),
    }
    out = {f"{k}_{form}": v for k, v in out.items() for form in ("fused", "unfused")}
    out |= {
        "up_noflip_asym": conv(x, w, s, up=2, f=fa),
        "down": conv(x, w, s, down=2, f=f4),
        "same_half": conv(half, 50 * w, s).astype(jnp.float32),
        "up_half": conv(half, 50 * w, s, **up).astype(jnp.float32),
    }
    return {f"out_{k}": v for k, v in out.items()}


@traced
def ops_dense(case, get) -> dict[str, jax.Array]:
    """Equalised dense layers, styles and the normalisation of z."""
    x = jnp.asarray(get["in_x"])

    def layer(index: str = "", bias: bool = True) -> dict:
        names = {"kernel": get[f"in_w{index}"].T}
        return names | ({"bias": get[f"in_b{index}"]} if bias else {})

    def fc(params: dict, x: jax.Array, act: str = "linear", lr_mult: float = 1.0) -> jax.Array:
        module = dense.FullyConnected(
            params["kernel"].shape[1], act, lr_mult, use_bias="bias" in params
        )
        return module.apply({"params": params}, x)

    def mlp(x: jax.Array) -> jax.Array:
        return fc(layer("1"), fc(layer("0"), x, "lrelu", 0.01), lr_mult=0.01)

    style = {"params": {"proj": layer("s")}}
    out = {
        "fc_lin": fc(layer(), x),
        "fc_lrelu": fc(layer(), x, "lrelu"),
        "fc_lr01": fc(layer(), x, "lrelu", 0.01),
        "fc_nobias": fc(layer(bias=False), x),
        "mlp": mlp(x),
        "mlp_tokens": mlp(jnp.asarray(get["in_x3"])),
        "stylesplit": dense.StyleSplit(get["in_ws"].shape[0] // 3).apply(style, x),
        "norm2nd": dense.normalize_2nd_moment(x),
    }
    return {f"out_{k}": v for k, v in out.items()}


def layers(golden, case) -> Arrays:
    """Single layers of the synthesis with their gradients."""
    x, w = nhwc(case.inputs["in_x"]), jnp.asarray(case.inputs["in_wlat"])
    parts, kept = {}, {}
    for tag, gain in (("plain", np.sqrt(0.5)), ("up", 1.0), ("res", np.sqrt(0.5))):
        net = f"layer_{tag}"
        config, weights = golden.manifest["weights"][net]["config"], golden.weights(net)
        residual = bool(config.get("residual", False))
        module = nets.SynthesisLayer(
            config["out_channels"],
            up=config.get("up", 1),
            residual=residual,
            gain=float(gain),
            clamp=config["conv_clamp"],
        )
        rules = tables.synthesis_layer("", "") + (tables.residual_layer("", "") * residual)
        noise = jnp.asarray(weights["noise_const"])[None, :, :, None]
        parts[tag] = module, rules, list(weights)
        kept[tag] = convert_net(golden, net, rules, module, x, w), noise
    rgb, group = nets.ToRGB(), nets.group_norm()
    kept["rgb"] = convert_net(golden, "layer_rgb", tables.to_rgb("", ""), rgb, x, w)

    @compiled
    def run(kept, x, w, get):
        def loss(module, noise, variables, x):
            y = module.apply(variables, x, w, noise)
            return jnp.square(y).mean(), y

        found = {}
        for tag, (module, *_) in parts.items():
            variables, noise = kept[tag]
            turn = jax.grad(functools.partial(loss, module, noise), (0, 1), has_aux=True)
            found[tag] = turn(variables, x)
        affine = {"scale": get["in_gn_w"], "bias": get["in_gn_b"]}
        normed = group.apply({"params": affine}, nhwc(get["in_gn_x"]))
        return found, rgb.apply(kept["rgb"], x, w), normed

    found, colours, normed = run(kept, x, w, case.inputs)
    out = {"out_rgb": nchw(colours), "out_gn": nchw(normed)}
    for tag, ((grads, dx), y) in found.items():
        out[f"out_{tag}"], out[f"out_{tag}_dx"] = nchw(y), nchw(dx)
        _, rules, order = parts[tag]
        names, values = grad_norms(rules, grads, order, f"layer_{tag}.")
        out[f"out_{tag}_grad_names"], out[f"out_{tag}_grad_norms"] = names, values
    return out


@traced
def resize(case, get) -> dict[str, jax.Array]:
    """Resampling by matrices: area, bicubic, and the position table of a vision transformer."""
    out = {}
    for name in case.outputs:
        _, kind, *numbers = name.split("_")
        if kind == "pos":
            table, side = jnp.asarray(get["in_pos"]), int(numbers[0].split("x")[0])
            old = int(np.sqrt(table.shape[1] - 1))
            grid = table[:, 1:].reshape(1, old, old, -1)
            matrix = resample.bilinear_matrix(side, old)
            grid = resample.apply_matrices(grid, matrix, matrix).reshape(1, side * side, -1)
            out[name] = jnp.concatenate([table[:, :1], grid], 1)
            continue
        size, target = map(int, numbers)
        make = {"area": resample.area_matrix, "bicubic": resample.bicubic_matrix}[kind]
        matrix = make(target, size)
        x = nhwc(get[f"in_x{size}"])
        out[name] = resample.apply_matrices(x, matrix, matrix)
    return out


@traced
def diffaug(case, get) -> dict[str, jax.Array]:
    """DiffAugment with given draws, after each step."""
    out = {}
    for x_name, tag in (("in_x", ""), ("in_x_odd", "odd_")):
        x = nhwc(get[x_name])
        draws = {
            k: jnp.asarray(get[f"in_{tag}{k}"])
            for k in augment.draw(jax.random.key(0), 1, x.shape[1])
        }
        order = ("brightness", "saturation", "contrast", "translation", "cutout")
        steps = (augment.brightness, augment.saturation, augment.contrast)
        for name, step in zip(order, steps, strict=False):
            x = step(x, draws[name])
            out[f"out_{tag}{name}"] = x
        x = augment.translate(x, draws["shift_row"], draws["shift_col"])
        out[f"out_{tag}translation"] = x
        out[f"out_{tag}cutout"] = augment.cutout(x, draws["cut_row"], draws["cut_col"])
    return out


@traced
def batch_norm_local(case, get) -> dict[str, jax.Array]:
    """Virtual batch norm at several batch sizes, with input gradients."""
    config, out = case.info["config"], {}
    first = functools.partial(jnp.moveaxis, source=-1, destination=1)  # sequences [B, L, C]
    fields = {"virtual_size": config["virtual_bs"], "eps": config["eps"]}
    for name in (k for k in case.outputs if k.startswith("out_y")):
        tag = name.removeprefix("out_y")
        x = nhwc(get[f"in_x{tag}"])
        affine = f"in_w{tag}" in get
        module = norms.BatchNormLocal(affine=affine, **fields)
        if not affine:
            out[name] = first(module.apply({}, x))
            continue
        params = {"scale": get[f"in_w{tag}"], "bias": get[f"in_b{tag}"]}
        y, back = jax.vjp(lambda x, m=module, p=params: m.apply({"params": p}, x), x)
        out[name] = first(y)
        out[f"out_dx{tag}"] = first(back(nhwc(get[f"in_r{tag}"]))[0])
    return out


@traced
def loss_pieces(case, get) -> dict[str, jax.Array]:
    """Spherical distance, the blur and its schedule."""
    config, x = case.info["config"], nhwc(get["in_blur_x"])
    fade = config["fade_kimg"] * 1000
    sigma = nets.blur_sigma(get["in_cur_nimg"], config["blur_init"], fade)
    out = {
        "out_spherical": spherical_distance(get["in_a"], get["in_b"]),
        "out_blur_sigma": sigma,
    }
    for name in case.outputs:
        if name.startswith("out_blur_") and name != "out_blur_sigma":
            width = jnp.float32(float(name.removeprefix("out_blur_")))
            blur = resample.blur_matrix(width, x.shape[1], config["blur_init"])
            out[name] = resample.apply_matrices(x, blur, blur)
    return out


def ema(golden, case) -> Arrays:
    """The moving average's weight at several stages of training, and its update."""
    table = np.array(case.outputs["out_table"])
    for row in table:
        batch, kimg, rampup, images, _ = (float(v) for v in row)
        rule = Ema(kimg * 1000, None if rampup < 0 else 0.05)
        row[4] = rule.beta(jnp.float32(images), int(batch))
    old, new = case.inputs["in_ema"], case.inputs["in_p"]
    return {"out_table": table, "out_ema": new + table[4, 4] * (old - new)}


def data_crop(golden, case) -> Arrays:
    """Centre crop and Lanczos reduction of the data pipeline."""
    frame = Framing(case.info["config"]["resolution"])
    return {
        name.replace("in_", "out_"): nchw(
            frame.view(x.shape[1::-1]).show(Image.fromarray(x), "lanczos")[None]
        )[0]
        for name, x in case.inputs.items()
    }


CASES: dict[str, Callable[..., Arrays]] = {
    f.__name__: f
    for f in (
        ops_upfirdn2d,
        ops_bias_act,
        ops_modulated_conv2d,
        ops_dense,
        layers,
        resize,
        diffaug,
        batch_norm_local,
        loss_pieces,
        ema,
        data_crop,
    )
}
