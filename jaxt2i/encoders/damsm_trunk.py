"""A DAMSM image encoder's trunk from weights of ImageNet."""

import flax.linen as nn
import jax
import numpy as np
from etils import epath

from jaxt2i.convert import rules, torch_files
from jaxt2i.encoders import damsm_names, pretrained


def with_trunk(name: str, module: nn.Module, seed: int) -> pretrained.Weights:
    """`load_trunk` as a method's loader."""
    return pretrained.Weights(
        lambda: load_trunk(name, module, seed), lambda: f"its trunk is read from {name}"
    )


def load_trunk(name: str, module: nn.Module, seed: int) -> dict:
    """Variables of a `DamsmImage` whose Inception trunk comes from torchvision's file.

    Args:
      name: the file.
      module: the image encoder; its two heads are drawn.
      seed: of the draw.

    Raises:
      WeightsError: where the file is absent.
      ConversionError: where it is not Inception-v3.
    """
    path = epath.Path(name).expanduser()
    if not path.is_file():
        raise pretrained.WeightsError(
            f"config.model.trunk_weights={name}: no such file. It is torchvision's Inception-v3, "
            "https://download.pytorch.org/models/inception_v3_google-1a9a5a14.pth"
        )

    def heads(key):  # no more: compiling the initialisation of the trunk takes seconds
        drawn = module.init(key, *(np.zeros(x.shape) for x in module.example()))
        return {
            kind: {k: x for k, x in tree.items() if k != "trunk"} for kind, tree in drawn.items()
        }

    only = {kind: {"trunk": tree["trunk"]} for kind, tree in pretrained.template(module).items()}
    trunk, report = rules.to_flax(damsm_names.TRUNK, torch_files.read(path), only)
    report.require_all(str(path))
    own = jax.jit(heads)(jax.random.key(seed))
    return {kind: {**tree, **trunk[kind]} for kind, tree in own.items()}
