"""The feature networks of evaluation by name: what they are, their weights, what they are fed.

    network = features.load("inception_2015")            # from the cache, or downloaded and checked
    look = jax.jit(network.reader("features", "tf1"))
    pool3 = look(network.variables["features"], images)["2048"]

Everything is float32 with exact products, as published scores are.
"""

import dataclasses
import difflib
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.convert import rules
from jaxt2i.encoders import clip, clip_t5, dino, inception, pretrained, yolo
from jaxt2i.encoders.blip import ImageReward
from jaxt2i.encoders.lpips import Lpips
from jaxt2i.encoders.trunks import VGG_INPUTS, Vgg16, vgg_input
from jaxt2i.nn.precision import exact

Images = jax.Array
Inputs = Mapping[str, Callable[[Images], jax.Array]]


class Part(NamedTuple):
    """Weights that come from one file.

    Attributes:
      source: where they are published: a name that `pretrained.find` knows.
      kind: key of `pretrained.NAMES`.
      net: the network in that file.
      under: path of the submodule that they belong to; "" is the whole module.
    """

    source: str
    kind: str
    net: str
    under: str = ""


class Net(NamedTuple):
    """One module.

    Attributes:
      module: without weights.
      parts: where its weights are.
      inputs: {name: from images [B, H, W, 3] to what the module takes}; empty for text towers and
        for LPIPS, which takes pictures in [-1, 1] as they are.
    """

    module: nn.Module
    parts: tuple[Part, ...]
    inputs: Inputs


def _inception(preset: str, source: str) -> dict[str, Net]:
    module = inception.InceptionFeatures(**inception.PRESETS[preset])
    parts = (Part(source, "inception", "features"),)
    return {"features": Net(module, parts, inception.INPUTS)}


def _vgg16(source: str) -> dict[str, Net]:
    inputs = {name: functools.partial(vgg_input, name=name) for name in VGG_INPUTS}
    return {"features": Net(Vgg16(), (Part(source, "vgg16", "features"),), inputs)}


def _lpips(net: str, trunk: str) -> dict[str, Net]:
    parts = (
        Part(f"torchvision/{trunk}", "lpips", "trunk", "trunk"),
        Part(f"lpips/{net}", "lpips", "lin", "lin"),
    )
    return {"distance": Net(Lpips(net), parts, {})}


def _dino(preset: str, source: str, **fields: Any) -> dict[str, Net]:
    module = dino.DinoFeatures(**dino.PRESETS[preset] | fields)
    inputs = {"pillow_bicubic_imagenet": dino.fdd_input}
    return {"features": Net(module, (Part(source, "dino", "features"),), inputs)}


HALF = ((0.5,) * 3, (0.5,) * 3)
PICKSCORE = "yuvalkirstain/PickScore_v1"
# Whose own temperature is a part of the score.
SCALED = (PICKSCORE,)


def clip_nets(
    text: nn.Module, image: nn.Module, source: str, colours: tuple = (clip.MEAN, clip.STD)
) -> dict[str, Net]:
    """Both towers of a CLIP, and what cosines are multiplied by where that is part of a score.

    Args:
      text: tower.
      image: tower.
      source: where their weights are published.
      colours: mean and deviation that pictures are normalised by.
    """
    mean, std = (np.float32(x) for x in colours)

    def prepared(name: str) -> Callable[[Images], jax.Array]:
        return lambda levels: (clip.INPUTS[name](levels, image.resolution) - mean) / std

    inputs = {name: prepared(name) for name in clip.INPUTS}
    nets = {"text": (text, {}), "image": (image, inputs)}
    if source in SCALED:
        nets["temperature"] = clip.Temperature(), {}
    return {k: Net(module, (Part(source, "clip", k),), fed) for k, (module, fed) in nets.items()}


def _clip(
    preset: str, source: str, act: str = "", colours: tuple = (clip.MEAN, clip.STD)
) -> dict[str, Net]:
    size = clip.PRESETS[preset]
    towers = clip.towers(size._replace(act=act or size.act))
    return clip_nets(*towers, source, colours)


def _image_reward() -> dict[str, Net]:
    module = ImageReward()
    mean, std = np.float32(clip.MEAN), np.float32(clip.STD)

    def prepared(levels: Images) -> jax.Array:
        return (clip.INPUTS["pillow_bicubic_crop"](levels, module.resolution) - mean) / std

    parts = (Part("THUDM/ImageReward", "blip", "reward"),)
    return {"reward": Net(module, parts, {"pillow_bicubic_crop": prepared})}


def _clip_t5(size: str, eye: str = "vit_l14_336") -> dict[str, Net]:
    tower = clip.towers(clip.PRESETS[eye])[1]
    seen = {"eye": tower.width, "patches": (tower.resolution // tower.patch) ** 2}
    module = clip_t5.ClipT5(tower, clip_t5.FlanT5(**clip_t5.SIZES[size] | seen))
    mean, std = np.float32(clip.MEAN), np.float32(clip.STD)

    def prepared(levels: Images) -> jax.Array:
        return (clip.INPUTS["pillow_bicubic_pad"](levels, module.resolution) - mean) / std

    parts = (
        Part(f"{OPENAI}-large-patch14-336", "clip", "image", "eye"),
        Part(f"zhiqiulin/clip-flant5-{size}", "clip_t5", "t5", "t5"),
    )
    return {"answer": Net(module, parts, {"pillow_bicubic_pad": prepared})}


OPENAI, LAION = "openai/clip-vit", "laion/CLIP-ViT"
NETWORKS: dict[str, Callable[[], dict[str, Net]]] = {
    "inception_2015": lambda: _inception("2015", "inception-2015-12-05"),
    "inception_torchvision": lambda: _inception("torchvision", "torchvision/inception_v3"),
    "inception_slim_cub": lambda: _inception("slim_cub", "stackgan/birds"),
    "inception_slim_oxford102": lambda: _inception("slim_oxford102", "stackgan/flowers"),
    "inception_keras": lambda: _inception("keras", "keras/inception_v3"),
    "vgg16_fc2": lambda: _vgg16("torchvision/vgg16"),
    "vgg16_nvidia": lambda: _vgg16("nvidia/vgg16"),
    "lpips_vgg": lambda: _lpips("vgg", "vgg16"),
    "lpips_alex": lambda: _lpips("alex", "alexnet"),
    "lpips_squeeze": lambda: _lpips("squeeze", "squeezenet1_1"),
    "dino_s16": lambda: _dino("vit_s16", "timm/vit_small_patch16_224.dino"),
    **{
        f"dinov2_{size[0]}14{suffix}": functools.partial(
            _dino, f"dinov2_{size[0]}14", f"facebook/dinov2-{size}", resize=resize
        )
        for size in ("small", "base", "large")
        for suffix, resize in (("", "bicubic"), ("_hub", "bicubic_hub"))
    },
    "openai_vit_b32": lambda: _clip("vit_b32", f"{OPENAI}-base-patch32"),
    "openai_vit_b16": lambda: _clip("vit_b16", f"{OPENAI}-base-patch16"),
    "openai_vit_l14": lambda: _clip("vit_l14", f"{OPENAI}-large-patch14"),
    "openai_vit_l14_336": lambda: _clip("vit_l14_336", f"{OPENAI}-large-patch14-336"),
    "open_clip_vit_b32_laion2b_s34b_b79k": lambda: _clip(
        "vit_b32", f"{LAION}-B-32-laion2B-s34B-b79K", "gelu"
    ),
    # Trained on pictures in [-1, 1].
    "open_clip_vit_l14_laion2b_s32b_b82k": lambda: _clip(
        "vit_l14", f"{LAION}-L-14-laion2B-s32B-b82K", "gelu", HALF
    ),
    "open_clip_vit_h14_laion2b_s32b_b79k": lambda: _clip(
        "vit_h14", f"{LAION}-H-14-laion2B-s32B-b79K"
    ),
    "open_clip_vit_g14_laion2b_s12b_b42k": lambda: _clip(
        "vit_g14", f"{LAION}-g-14-laion2B-s12B-b42K"
    ),
    "pickscore_v1": lambda: _clip("vit_h14", PICKSCORE),
    "image_reward": _image_reward,
    **{f"clip_flant5_{size}": functools.partial(_clip_t5, size) for size in clip_t5.SIZES},
    "hps_v21": lambda: _clip("vit_h14", "xswu/HPSv2"),
    "yolov3": lambda: {
        "detector": Net(yolo.YoloV3(), (Part("darknet/yolov3", "yolo", "detector"),), yolo.INPUTS)
    },
}


@dataclasses.dataclass(frozen=True)
class Network:
    """A network with weights.

    Attributes:
      name: key of `NETWORKS`.
      nets: {"features"}, {"distance"} for LPIPS, {"detector"}, {"text", "image"} for CLIP, and its
        "temperature" where that belongs to a score.
      variables: {net: tree}, on the host.
    """

    name: str
    nets: dict[str, Net]
    variables: dict[str, dict]

    def reader(self, net: str, input: str = "", method: str | None = None) -> Callable[..., Any]:
        """A pure function (variables of the net, images or what it takes) -> its output.

        Args:
          net: key of `nets`.
          input: how images are fed, a key of the net's `inputs`; "" feeds arrays as they are.
          method: of the module; None calls it.

        Raises:
          ValueError: for an unknown input; names the known ones.
        """
        module, _, inputs = self.nets[net]
        if input and input not in inputs:
            raise ValueError(
                f"{self.name} knows no input {input!r}; choose from {', '.join(inputs) or 'none'}"
            )
        prepare = inputs[input] if input else lambda x: x

        @exact
        def read(variables: Mapping, first: jax.Array, *more: jax.Array, **kw) -> Any:
            return module.apply(variables, prepare(first), *more, method=method, **kw)

        return read


def make(name: str) -> dict[str, Net]:
    """The modules of a network, without weights.

    Raises:
      ValueError: for an unknown name; names the nearest.
    """
    if name not in NETWORKS:
        near = difflib.get_close_matches(name, NETWORKS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no feature network {name!r}; {hint}known: {', '.join(NETWORKS)}")
    return NETWORKS[name]()


def load(
    name: str,
    path: str = "",
    weights: str = "pretrained",
    nets: tuple[str, ...] = (),
) -> Network:
    """A network by name.

    Args:
      name: key of `NETWORKS`.
      path: file or folder with its weights, as published or as `python -m jaxt2i.convert` wrote
        them; "" is the cache, else a checked download. LPIPS, whose weights are two files, may
        name them both: "TRUNK,LIN".
      weights: "pretrained", or "random" for tests and for measuring speed.
      nets: load only these; () is all.

    Raises:
      ValueError: for unknown names.
      WeightsError: where the weights cannot be had; says where they come from.
      ConversionError: where the file is another network's.
    """
    made = {net: x for net, x in make(name).items() if not nets or net in nets}
    if weights not in ("pretrained", "random"):
        raise ValueError(f"weights={weights!r}; known: pretrained, random")
    read = _random if weights == "random" else functools.partial(_published, name, path)
    return Network(name, made, {net: read(x) for net, x in made.items()})


def _random(net: Net) -> dict:
    def draw(key: jax.Array) -> dict:
        inputs = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), net.module.example())
        return net.module.init(key, *inputs)

    return jax.device_get(jax.jit(draw)(jax.random.key(0)))


def _published(name: str, path: str, net: Net) -> dict:
    shapes, out = pretrained.template(net.module), {}
    places = path.split(",") if path else [part.source for part in net.parts]
    places = places * len(net.parts) if len(places) == 1 else places
    if len(places) != len(net.parts):
        raise ValueError(f"{name}: {path!r} names {len(places)} files, give 1 or {len(net.parts)}")
    for place, part in zip(places, net.parts, strict=True):
        wanted = {kind: tree[part.under] if part.under else tree for kind, tree in shapes.items()}
        try:
            found = pretrained.load(place, part.kind, part.net, wanted)
        except (pretrained.WeightsError, rules.ConversionError) as error:
            raise type(error)(f"{error}\nIn an evaluation: --weights {name}=FILE") from error
        for kind, tree in found.items():
            if part.under:
                out.setdefault(kind, {})[part.under] = tree
            else:
                out[kind] = tree
    return out
