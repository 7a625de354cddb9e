"""ImageReward against transformers' BLIP and a head of PyTorch's linear layers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxt2i.encoders import blip_names as tables
from jaxt2i.encoders.blip import ImageReward
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.golden import Case, Golden
from jaxt2i.verify.networks import convert_net

SERVES = ("image_reward/*",)


def network(golden: Golden, name: str) -> tuple[ImageReward, dict]:
    """A folder's network, with the folder's weights."""
    sizes = tables.infer("reward", golden.weights(name)) | golden.config(name)
    module = ImageReward(**sizes)
    return module, convert_net(golden, name, tables.IMAGE_REWARD, module)


def padded(golden: Golden, case: Case) -> dict[str, jax.Array]:
    """Pictures with captions of several lengths: every hidden state and the reward."""
    module, variables = network(golden, *case.info["weights"])
    pixels = jnp.asarray(case.inputs["in_pixels"]).transpose(0, 2, 3, 1)
    tokens, mask = (jnp.asarray(case.inputs[f"in_{k}"]) for k in ("input_ids", "attention_mask"))

    def run(variables):
        stages = module.apply(variables, pixels, tokens, mask, method="stages")
        return stages, module.apply(variables, pixels, tokens, mask)

    stages, reward = compiled(run)(variables)
    return {
        "out_image": stages["image"],
        "out_hidden0": stages["embedded"],
        **{f"out_hidden{k + 1}": x for k, x in enumerate(stages["blocks"])},
        "out_raw": stages["reward"],
        "out_reward": reward,
    }


CASES: dict[str, Callable] = {"padded": padded}
