"""Every tensor of the published CLIPs and of DINOv2 has its place in the networks of evaluation."""

import json
from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxt2i.convert import rules
from jaxt2i.encoders import clip_names as clip
from jaxt2i.encoders import dino_names as dino
from jaxt2i.encoders import features
from jaxt2i.encoders import vgg16_names as vgg16
from jaxt2i.encoders.pretrained import template

FILE = Path(__file__).parents[1] / "goldens" / "clip_hf" / "full_tensors.json"
FULL = json.loads(FILE.read_text())
OPEN = "(open_clip/OpenAI names)"
CLIPS = [
    ("openai/clip-vit-base-patch32 (HF names)", "openai_vit_b32"),
    ("openai/clip-vit-large-patch14 (HF names)", "openai_vit_l14"),
    (f"open_clip ViT-B-32 {OPEN}", "open_clip_vit_b32_laion2b_s34b_b79k"),
    (f"open_clip ViT-L-14 {OPEN}", "open_clip_vit_l14_laion2b_s32b_b82k"),
    (f"open_clip ViT-L-14-336 {OPEN}", "openai_vit_l14_336"),
    (f"open_clip ViT-H-14 {OPEN}", "open_clip_vit_h14_laion2b_s32b_b79k"),
    (f"open_clip ViT-g-14 {OPEN}", "open_clip_vit_g14_laion2b_s12b_b42k"),
]


def state(name):
    """A file of that many tensors, without their memory."""
    return {key: np.broadcast_to(np.int8(0), shape) for key, shape in FULL[name]}


def shapes(tree):
    return {path: x.shape for path, x in flatten_dict(tree, sep="/").items()}


def placed(tables, file, module):
    """Converts, compares all shapes, and returns the keys that found no place."""
    made, report = rules.to_flax(rules.pick(tables, file), file, None)
    assert shapes(made) == shapes(template(module))
    return set(report.unused)


@pytest.mark.parametrize(("name", "network"), CLIPS, ids=[n for _, n in CLIPS])
@pytest.mark.parametrize("tower", ["text", "image"])
def test_clip(name, network, tower):
    file, module = state(name), features.make(network)[tower].module
    left = placed(clip.TABLES[tower], file, module)
    # What is left is the other tower's, and the temperature.
    assert left == {key for key in file if is_image(key) == (tower == "text")} | {"logit_scale"}


def is_image(key):
    return key.startswith("vis")


@pytest.mark.parametrize(("name", "network"), CLIPS, ids=[n for _, n in CLIPS])
@pytest.mark.parametrize("tower", ["text", "image"])
def test_clip_is_recognised(name, network, tower):
    """A file without config.json gives the same module, open_clip's smaller ones aside."""
    module = features.make(network)[tower].module
    sizes = clip.infer(tower, state(name))
    if OPEN in name:
        config = FULL[name.replace(OPEN, "config")]
        assert clip.from_config(tower, config)["heads"] == module.heads
        assert clip.from_config(tower, {"model_cfg": config})["act"] == "gelu"
    small = network.startswith("open_clip_vit_b") or network.startswith("open_clip_vit_l")
    given = {"act": "gelu"} if small else {}
    want = {field: getattr(module, field) for field in sizes}
    hidden = [int(s["width"] * s.pop("mlp_ratio")) for s in (sizes, want)]
    assert sizes | given == want
    assert hidden[0] == hidden[1]


def test_dinov2():
    file, module = state("facebook/dinov2-large (HF names)"), features.make("dinov2_l14")
    assert placed(dino.TABLES["features"], file, module["features"].module) == set()
    found = dino.infer("features", file)
    assert found == {field: getattr(module["features"].module, field) for field in found}


def test_vgg16_of_nvidia():
    wide = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    shapes = {f"layers.conv{k}": (wide[k], wide[k - 1], 3, 3) for k in range(1, 14)}
    fc = enumerate(((4096, 25088), (4096, 4096), (1000, 4096)), 1)
    shapes |= {f"layers.fc{k}": shape for k, shape in fc}
    file = {f"{layer}.weight": np.broadcast_to(np.int8(0), of) for layer, of in shapes.items()}
    file |= {f"{layer}.bias": np.zeros(of[0], np.int8) for layer, of in shapes.items()}
    module = features.make("vgg16_nvidia")["features"].module
    assert placed(vgg16.TABLES["features"], file, module) == set()
