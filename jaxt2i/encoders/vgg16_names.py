"""VGG16 up to its second linear layer, as torchvision and as NVIDIA publish it."""

from collections.abc import Mapping

import numpy as np

from jaxt2i.convert.rules import Table
from jaxt2i.encoders.clip_names import linear
from jaxt2i.encoders.lpips_names import SLICES, conv, trunk

FEATURES = Table(
    (
        *trunk("vgg", target="trunk/"),
        *linear("classifier.0.", "fc1"),
        *linear("classifier.3.", "fc2"),
    ),
    ("classifier.6.*",),
    marker="classifier.3.weight",
)
# The detector of StyleGAN's metrics: the same layers, numbered from 1, and LPIPS's besides.
DETECTOR = Table(
    (
        *(
            rule
            for k, i in enumerate((i for part in SLICES["vgg"] for i in part), 1)
            for rule in conv(f"layers.conv{k}", f"trunk/conv{i}")
        ),
        *linear("layers.fc1.", "fc1"),
        *linear("layers.fc2.", "fc2"),
    ),
    ("layers.fc3.*", "lpips*"),
    marker="layers.fc2.weight",
)
TABLES: dict[str, tuple[Table, ...]] = {"features": (FEATURES, DETECTOR)}
NETWORKS = {"features": "jaxt2i.encoders.trunks:Vgg16"}


def infer(net: str, state_dict: Mapping[str, np.ndarray]) -> dict:
    """`Vgg16` has no fields."""
    return {}
