"""DINO and DINOv2 against timm (as StyleGAN-T uses it) and transformers.

Images are NCHW in the folders, NHWC here.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.encoders import dino
from jaxt2i.encoders import dino_names as tables
from jaxt2i.nn.resample import apply_matrices, area_matrix
from jaxt2i.verify.arrays import Arrays, norm
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.golden import Case, Golden
from jaxt2i.verify.networks import convert_net

SERVES = ("dino_vits16/*",)


def network(golden: Golden, name: str) -> tuple[dino.DinoFeatures, dict]:
    """The network of that name, with the folder's weights."""
    weights, config = golden.weights(name), golden.config(name)
    sizes = tables.infer("features", weights) | tables.from_config("features", config)
    module = dino.DinoFeatures(**sizes)
    return module, convert_net(golden, name, tables.TABLES["features"], module)


def to_input(x: jax.Array, size: int) -> jax.Array:
    """[B, C, H, W] in [0, 1] to the network's input [B, size, size, C], by area."""
    rows, columns = area_matrix(size, x.shape[2]), area_matrix(size, x.shape[3])
    return dino.normalize_image(2 * apply_matrices(jnp.moveaxis(x, 1, -1), rows, columns) - 1)


def features(golden: Golden, case: Case) -> Arrays:
    """The five feature maps, some blocks, the normed class token."""
    (name,) = case.info["weights"]
    module, variables = network(golden, name)

    @compiled
    def run(variables, images):
        x = to_input(images.astype(jnp.float32) / 255, module.resolution)
        stages, sown = module.apply(variables, x, method="stages", mutable=["intermediates"])
        branch = sown["intermediates"]["transformer"]["blocks"]["attention"][0][0]
        return x, stages, branch, module.apply(variables, x)

    x, stages, branch, maps = run(variables, case.inputs["in_images"])
    out = {
        "out_vit_input_sub": np.moveaxis(np.asarray(x), -1, 1)[:, :, ::15, ::15],
        "out_block0_attn_sub": np.asarray(branch)[:, ::13, ::4],
        "out_final_norm_cls": np.asarray(stages["normed"])[:, 0],
    }
    for k, tokens in enumerate(maps):
        out[f"out_feature_{k}_sub"] = np.asarray(tokens).transpose(0, 2, 1)[:, ::4, ::5]
    for k, tokens in enumerate(stages["blocks"]):
        out[f"out_block{k}_tokens_sub"] = np.asarray(tokens)[:, ::13, ::4]
    return out


def gradient(golden: Golden, case: Case) -> Arrays:
    """The gradient of the mean squares of all features, with respect to the pixels."""
    (name,) = case.info["weights"]
    module, variables = network(golden, name)

    def loss(x, variables):
        maps = module.apply(variables, to_input(x, module.resolution))
        return sum(jnp.square(m).mean() for m in maps)

    def turn(images, variables):
        return jax.value_and_grad(loss)(images.astype(jnp.float32) / 255, variables)

    value, grad = compiled(turn)(case.inputs["in_images"], variables)
    return {
        "out_loss": np.asarray(value),
        "out_grad_sub": np.asarray(grad)[:, :, ::4, ::4],
        "out_grad_norm": norm(grad),
    }


def hidden_states(golden: Golden, case: Case) -> Arrays:
    """DINOv2: every hidden state, at the native and at an interpolated size."""
    (name,) = case.info["weights"]
    module, variables = network(golden, name)
    image = jnp.moveaxis(jnp.asarray(case.inputs["in_pixel_values"]), 1, -1)
    stages = compiled(lambda v, x: module.apply(v, x, method="stages"))(variables, image)
    hidden = [stages["embedded"], *stages["blocks"]]
    return {
        "out_cls": np.asarray(stages["normed"])[:, 0],
        "out_last_hidden": np.asarray(stages["normed"]),
        **{f"out_hidden{k}": np.asarray(x) for k, x in enumerate(hidden)},
    }


CASES: dict[str, Callable[[Golden, Case], Arrays]] = {
    "img_*": features,
    "grad_img_*": gradient,
    "native_*": hidden_states,
    "interpolated_*": hidden_states,
}
