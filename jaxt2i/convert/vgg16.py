"""VGG16 as torchvision publishes it, up to its second linear layer."""

from collections.abc import Mapping

import numpy as np

from jaxt2i.convert.clip import linear
from jaxt2i.convert.lpips import trunk
from jaxt2i.convert.rules import Table

FEATURES = Table(
    (
        *trunk("vgg", target="trunk/"),
        *linear("classifier.0.", "fc1"),
        *linear("classifier.3.", "fc2"),
    ),
    ("classifier.6.*",),
    marker="classifier.3.weight",
)
TABLES: dict[str, tuple[Table, ...]] = {"features": (FEATURES,)}
NETWORKS = {"features": "jaxt2i.encoders.trunks:Vgg16"}


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict:
    """`Vgg16` has no fields."""
    return {}
