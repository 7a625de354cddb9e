"""Weights of encoders: where they are found, how they are checked, how variables are stored."""

import contextlib
import dataclasses
import hashlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load as from_bytes
from safetensors.numpy import load_file, save_file
from safetensors.numpy import save as to_bytes

from jaxt2i import places
from jaxt2i.config import alike
from jaxt2i.convert import files, heads, rules, torch_files
from jaxt2i.encoders import (
    blip_names,
    clip_names,
    clip_t5_names,
    damsm_names,
    dino_names,
    inception_names,
    lpips_names,
    vgg16_names,
    vgg19_bn_names,
    xlm_r_names,
    yolo_names,
)
from jaxt2i.encoders.diffusion import names as diffusion_names

HUB = "https://huggingface.co"
# Of a download that breaks off, and the bytes of a file that are in memory at once.
RETRIES, CHUNK = 2, 2**20
FILES = ("model.safetensors", "pytorch_model.bin")
OPEN_CLIP_FILES = (*FILES, "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
# repository: (kind, files that may hold the weights, best first)
KNOWN: dict[str, tuple[str, tuple[str, ...]]] = {
    **{
        f"openai/clip-vit-{size}": ("clip", FILES)
        for size in ("base-patch32", "base-patch16", "large-patch14", "large-patch14-336")
    },
    **{
        f"laion/CLIP-ViT-{name}": ("clip", OPEN_CLIP_FILES)
        for name in (
            *("B-32-laion2B-s34B-b79K", "L-14-laion2B-s32B-b82K"),
            *("H-14-laion2B-s32B-b79K", "g-14-laion2B-s12B-b42K"),
        )
    },
    "yuvalkirstain/PickScore_v1": ("clip", FILES),
    # HPSv2.1; the file of version 2.0 lies beside it.
    "xswu/HPSv2": ("clip", ("HPS_v2.1_compressed.pt",)),
    "THUDM/ImageReward": ("blip", ("ImageReward.pt",)),
    "timm/vit_small_patch16_224.dino": ("dino", FILES),
    **{f"facebook/dinov2-{size}": ("dino", FILES) for size in ("small", "base", "large")},
    **{f"M-CLIP/XLM-Roberta-Large-Vit-{size}": ("xlm_r", FILES) for size in ("B-32", "L-14")},
}
TORCHVISION = "https://download.pytorch.org/models"
LPIPS = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1"
KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
# name: (kinds, address, sha256 or its first digits, as PyTorch puts them into file names; Keras
# gives md5, of 32 digits)
ADDRESSES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "inception-2015-12-05": (
        ("inception",),
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth",
        "6726825d",
    ),
    **{
        f"torchvision/{name}": (kinds, f"{TORCHVISION}/{file}-{digest}.pth", digest)
        for name, kinds, file, digest in (
            ("inception_v3", ("inception",), "inception_v3_google", "0cc3c7bd"),
            ("vgg16", ("vgg16", "lpips"), "vgg16", "397923af"),
            ("vgg19_bn", ("vgg19_bn",), "vgg19_bn", "c79401a0"),
            ("alexnet", ("lpips",), "alexnet-owt", "7be5be79"),
            ("squeezenet1_1", ("lpips",), "squeezenet1_1", "b8a52dc0"),
        )
    },
    "keras/inception_v3": (
        ("inception",),
        f"{KERAS}/inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels.h5",
        "9a0d58056eeedaa3f26cb7ebd46da564",
    ),
    "darknet/yolov3": (
        ("yolo",),
        "https://pjreddie.com/media/files/yolov3.weights",
        "523e4e69e1d015393a1b0a441cef1d9c7659e3eb2d7e15f793f060a21b32f297",
    ),
    **{
        f"lpips/{net}": (("lpips",), f"{LPIPS}/{net}.pth", digest)
        for net, digest in (
            ("vgg", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"),
            ("alex", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"),
            ("squeeze", "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76"),
        )
    },
}
STACKGAN = (
    "is in inception_finetuned_models.zip, which the README of "
    "https://github.com/hanzhanggit/StackGAN-inception-model links to, on Google Drive: "
    "https://drive.google.com/file/d/0B3y_msrWZaXLMzNMNWhWdW0zVWs/view"
    "?resourcekey=0-gBxxw4fU6ikmNtkfFSQALw. Fetch it with a browser and name {file}"
)
NVIDIA = (
    "is https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/vgg16.pt (sha256 "
    "b437eb095feaeb0b83eb3fa11200ebca4548ee39a07fb944a417ddc516cc07c3), a program. Export its "
    "weights where PyTorch is:\n    import torch\n    from safetensors.torch import save_file\n"
    "    net = torch.jit.load('vgg16.pt')\n    save_file({k: v.contiguous() for k, v in "
    "net.state_dict().items()}, 'vgg16.safetensors')\nand name that file"
)
DIFFUSERS = (
    "is several files of https://huggingface.co/{repo}. Fetch them with `hf download {repo} "
    "--include '*.json' --include '*.safetensors' --local-dir DIR` and name DIR, or what "
    "`python -m jaxt2i.convert diffusion --from DIR --to OUT` makes of it"
)
CLIP_T5 = (
    "is several large files. Fetch them with `hf download {repo} --include '*.bin' --local-dir "
    "DIR`, and the tokenizer with `hf download google/flan-t5-xl tokenizer.json --local-dir DIR`, "
    "and name both parts: --weights NETWORK=openai/clip-vit-large-patch14-336,DIR"
)
# name: (kinds, where it is and what to do), for weights that no program can fetch.
BY_HAND: dict[str, tuple[tuple[str, ...], str]] = {
    "stackgan/birds": (("inception",), STACKGAN.format(file="birds_valid299/model.ckpt")),
    "stackgan/flowers": (("inception",), STACKGAN.format(file="flowers_valid299/model.ckpt")),
    "nvidia/vgg16": (("vgg16",), NVIDIA),
    **{
        repo: (("clip_t5",), CLIP_T5.format(repo=repo))
        for repo in ("zhiqiulin/clip-flant5-xl", "zhiqiulin/clip-flant5-xxl")
    },
    **{
        repo: (("diffusion",), DIFFUSERS.format(repo=repo))
        for repo in (
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "lllyasviel/sd-controlnet-canny",
        )
    },
}
NAMES: dict[str, ModuleType] = {
    "blip": blip_names,
    "clip": clip_names,
    "clip_t5": clip_t5_names,
    "damsm": damsm_names,
    "diffusion": diffusion_names,
    "dino": dino_names,
    "inception": inception_names,
    "lpips": lpips_names,
    "vgg16": vgg16_names,
    "vgg19_bn": vgg19_bn_names,
    "xlm_r": xlm_r_names,
    "yolo": yolo_names,
}
WEIGHT_FILES = (
    *("*.safetensors", "*.bin", "*.pth", "*.pt", "*.npz", "*.h5", "*.ckpt", "*.index"),
    "*.weights",
)


class WeightsError(RuntimeError):
    """Weights cannot be had; the message says where they come from and where to put them."""


class Found(NamedTuple):
    """A file of weights, and the sizes that came with it.

    Attributes:
      path: file, or folder that `python -m jaxt2i.convert` wrote.
      config: content of Hugging Face's config.json, where there is one.
    """

    path: epath.Path
    config: dict | None


@dataclasses.dataclass(frozen=True)
class Weights:
    """One network's weights, which are somewhere; a method's loader.

    Attributes:
      read: loads them, downloaded if need be.
      where: says where they come from and whether they are there, loading nothing.
      look: raises what `read` would, as far as the head of a file that is there says it.
    """

    read: Callable[[], dict]
    where: Callable[[], str]
    look: Callable[[], None] = lambda: None

    def __call__(self) -> dict:
        """The variables."""
        return _told(self.read)

    def check(self) -> None:
        """Raises `WeightsError` for weights of other shapes, as far as `look` sees them."""
        _told(self.look)


def _told(function: Callable) -> Any:
    """What it gives; weights of another network are as bad as none."""
    try:
        return function()
    except (rules.ConversionError, *torch_files.UNREADABLE) as error:
        raise WeightsError(str(error)) from error


def published(name: str, kind: str, net: str, module: nn.Module) -> Weights:
    """Published weights; arguments as for `load`, of the module's shapes."""
    return Weights(
        lambda: load(name, kind, net, template(module)),
        lambda: whereabouts(name, kind),
        lambda: look(name, kind, net, module),
    )


def kept_in(weights: Weights, dtype: str) -> Weights:
    """Weights whose arrays are kept in another dtype; their own for "float32"."""
    if dtype == "float32":
        return weights
    return dataclasses.replace(
        weights, read=lambda: jax.tree.map(lambda x: x.astype(dtype), weights())
    )


# --- Storage of variables ----------------------------------------------------------------------


# Behind the name of an array of int8: its float32 factors, one for each of its last axis.
SCALE = ":scale"


def save_variables(
    path: epath.PathLike, variables: Mapping[str, Any], dtype: Any = None, about: Any = None
) -> None:
    """Writes a variables tree as one safetensors file, its paths joined by "/" as names.

    Args:
      path: file; replaced as a whole or not at all.
      variables: {"params": tree, ...} of arrays.
      dtype: floating-point arrays are stored in this one; None keeps theirs. "int8" is for
        parameters of two axes and more, rounded by a factor for each of the last one (the output
        channels of kernels); others keep theirs.
      about: {str: str} for the file's header.
    """
    path = epath.Path(path)
    flat = {}
    for name, value in flatten_dict(dict(variables), sep="/").items():
        x = np.asarray(value)
        real = jax.numpy.issubdtype(x.dtype, np.floating)
        if dtype == "int8" and real and x.ndim > 1 and name.startswith("params/"):
            x, flat[name + SCALE] = in_bytes(x.astype(np.float32))
        elif dtype not in (None, "int8") and real:
            x = x.astype(dtype)
        flat[name] = np.ascontiguousarray(x).reshape(x.shape)
    if places.scheme_of(path):
        path.write_bytes(to_bytes(flat, metadata=about))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.touch()
    mode = os.stat(unfinished).st_mode
    save_file(flat, unfinished, metadata=about)
    os.chmod(unfinished, mode)  # it makes files that nobody else may read
    unfinished.replace(path)


def in_bytes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(int8 of x's shape, float32 factors of its last axis), whose product is near x."""
    scale = np.abs(x).max(axis=tuple(range(x.ndim - 1))) / 127
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    return np.round(x / scale).astype(np.int8), scale


def load_variables(path: epath.PathLike) -> dict:
    """Reads what `save_variables` wrote; half precision and int8 come back as float32.

    Raises:
      WeightsError: where the file is absent or damaged.
    """
    try:
        stored = places.scheme_of(path)
        flat = from_bytes(epath.Path(path).read_bytes()) if stored else load_file(path)
    except Exception as error:  # safetensors has an exception type of its own, outside any family
        raise WeightsError(f"{path}: cannot be read as safetensors ({error})") from error
    factors = {k.removesuffix(SCALE): flat.pop(k) for k in list(flat) if k.endswith(SCALE)}
    for name, factor in factors.items():
        flat[name] = flat[name].astype(np.float32) * factor
    return unflatten_dict({k: torch_files.widen(x) for k, x in flat.items()}, sep="/")


# --- Finding -----------------------------------------------------------------------------------


def find(name: str, kind: str) -> Found:
    """The weights of that name, downloaded if need be.

    Args:
      name: a file, a TensorFlow checkpoint, a folder, a repository of `KNOWN`, or a key of
        `ADDRESSES` or `BY_HAND`.
      kind: key of `NAMES`.

    Raises:
      WeightsError: for an unknown name, and where nothing is there and nothing can be downloaded.
    """
    path = epath.Path(name).expanduser()
    file = files.find(path)
    if file:
        return Found(file, _config(file.parent))
    if path.is_dir():
        return Found(_in_folder(path), _config(path))
    table = _published(name, kind)
    if table is ADDRESSES:
        return Found(fetch(*ADDRESSES[name][1:]), None)
    if table is BY_HAND:
        raise WeightsError(f"{name} cannot be downloaded by a program: it {BY_HAND[name][1]}")
    return _from_hub(name)


def whereabouts(name: str, kind: str) -> str:
    """Where `find` would take weights from, in words; nothing is read or downloaded.

    Raises:
      WeightsError: for an unknown name.
    """
    path = epath.Path(name).expanduser()
    if files.find(path) or path.is_dir():
        return f"{name}, which is there"
    if there := _here(name, kind):
        return f"{name}, kept as {there}"
    table = _published(name, kind)
    if table is BY_HAND:
        return f"{name}: NOT there, and no program can fetch it: it {BY_HAND[name][1]}"
    url = ADDRESSES[name][1] if table is ADDRESSES else f"{HUB}/{name}"
    return f"{name}: NOT there yet, the run begins with downloading {url}"


def _here(name: str, kind: str) -> epath.Path | None:
    """Where `find` would take weights from without a download; None: nowhere."""
    path = epath.Path(name).expanduser()
    if files.find(path) or path.is_dir():
        return files.find(path) or _in_folder(path)
    table = _published(name, kind)
    if table is ADDRESSES:
        path = _kept(*ADDRESSES[name][1:])
        return path if path.is_file() else None
    return None if table is BY_HAND else _cached(name)


def _published(name: str, kind: str) -> dict:
    """The table that knows a name: `KNOWN`, `ADDRESSES` or `BY_HAND`."""
    tables = (
        (KNOWN, [repo for repo, (what, _) in KNOWN.items() if what == kind]),
        *(
            (table, [name for name, (kinds, *_) in table.items() if kind in kinds])
            for table in (ADDRESSES, BY_HAND)
        ),
    )
    for table, names in tables:
        if name in names:
            return table
    raise WeightsError(
        f"{name!r} is no file or folder here, and no known {kind} model; known: "
        f"{', '.join(name for _, names in tables for name in names)}"
    )


def _config(folder: epath.Path) -> dict | None:
    for name in ("config.json", "open_clip_config.json"):
        if (folder / name).is_file():
            return _json(folder / name)
    return None


def _json(file: epath.PathLike) -> dict:
    try:
        found = json.loads(epath.Path(file).read_text())
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{file}: damaged, not readable as JSON ({error})") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{file}: holds {str(found)[:40]}, expected an object of settings")
    return found


def read_card(file: epath.PathLike, needed: Sequence[str], sizes: Mapping[str, Any]) -> dict:
    """The card beside the weights of a run, see `jaxt2i.run.export`.

    Args:
      file: the card.
      needed: whole numbers that it must have.
      sizes: settings that its "model" must have, with values of the right kind.

    Raises:
      WeightsError: where it is damaged; names what is missing.
    """
    card = _json(file)
    model = card.get("model") if isinstance(card.get("model"), dict) else {}
    bad = [name for name in needed if type(card.get(name)) is not int]
    bad += [
        f"model.{n}" for n, kind in sizes.items() if n not in model or not alike(model[n], kind)
    ]
    if bad:
        raise WeightsError(
            f"{file}: damaged, {', '.join(bad)} missing or no size; convert the run again, or copy "
            "its folder again"
        )
    return card


def _in_folder(folder: epath.Path) -> epath.Path:
    if (folder / "convert.json").is_file():
        return folder
    files = [file for pattern in WEIGHT_FILES for file in places.matching(folder, pattern)]
    if not files:
        raise WeightsError(f"{folder}: holds none of {', '.join(WEIGHT_FILES)}")
    return files[0]


def _from_hub(repo: str) -> Found:
    from huggingface_hub.errors import RemoteEntryNotFoundError

    cached = _cached(repo)
    if cached:
        return Found(cached, _config(cached.parent))
    _, names = KNOWN[repo]
    for name in names:
        try:
            path = _download(repo, name)
        except RemoteEntryNotFoundError:
            continue
        except Exception as error:
            raise WeightsError(offline(repo, name, error)) from error
        return Found(path, _config(path.parent))
    raise WeightsError(f"{HUB}/{repo} holds none of {', '.join(names)} any more")


def _cached(repo: str) -> epath.Path | None:
    """A repository's file of weights in the hub's cache."""
    import huggingface_hub as hub

    for name in KNOWN[repo][1]:
        found = hub.try_to_load_from_cache(repo, name)
        if isinstance(found, str):
            return epath.Path(found)
    return None


def _download(repo: str, name: str) -> epath.Path:
    """Fetches one file of weights and its config.json; the former is checked against its hash."""
    import huggingface_hub as hub
    from huggingface_hub.errors import RemoteEntryNotFoundError

    etag = hub.get_hf_file_metadata(hub.hf_hub_url(repo, name)).etag
    path = epath.Path(hub.hf_hub_download(repo, name))
    # Large files are named by their sha256 there, small ones by a git hash of 40 digits.
    if etag and len(etag) == 64:
        check(path, etag)
    with contextlib.suppress(RemoteEntryNotFoundError):
        hub.hf_hub_download(repo, "config.json")
    return path


def sha256(path: epath.Path) -> str:
    """Hash of a file, as 64 hexadecimal digits."""
    return _hash(path, "sha256")


def digest_of(name: str) -> str | None:
    """The published hash of weights, or its first digits; None where nobody has published one."""
    return ADDRESSES[name][2] if name in ADDRESSES else None


def hash_of(place: str, like: str = "") -> str:
    """The hash of a file of weights; of a folder that of the file in it that is read.

    Args:
      place: the file or folder.
      like: a hash of the same kind; md5 where it has 32 digits, else sha256.
    """
    path = epath.Path(place).expanduser()
    path = _in_folder(path) if path.is_dir() else path
    path = path if path.is_file() else path / "convert.json"
    return _hash(path, "md5" if len(like) == 32 else "sha256")


def _hash(path: epath.Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def check(path: epath.Path, expected: str) -> None:
    """Raises `WeightsError` where a file's hash is not the expected one.

    Args:
      path: the file.
      expected: its sha256, or the first digits of that; 32 digits are its md5.
    """
    kind = "md5" if len(expected) == 32 else "sha256"
    seen = _hash(path, kind)
    if not seen.startswith(expected):
        raise WeightsError(
            f"{path}: {kind} is {seen}, expected {expected}; the download is damaged, delete the "
            "file and try again"
        )


def offline(repo: str, name: str, error: Exception) -> str:
    """What to do where the hub cannot be reached."""
    kind = KNOWN[repo][0]
    field = "feature_weights" if kind == "dino" else "clip_weights"
    place = f"name the file in the config, as in --config.model.{field}=PATH/{name}"
    if kind == "xlm_r":
        place = (
            "keep it in DIR/text, CLIP's image tower in DIR/image, and name the folder in the "
            "config: --config.model.clip_weights=DIR"
        )
    return (
        f"the weights {name} of {repo} are not on this machine and could not be downloaded "
        f"({type(error).__name__}: {error}).\n"
        f"On a machine with a network: hf download {repo} (or {HUB}/{repo}/resolve/main/{name}),\n"
        f"then either keep it in that cache folder (HF_HOME) or {place}.\n"
        "To measure speed without weights: --config.model.weights=random"
    )


def fetch(url: str, digest: str, folder: epath.PathLike | None = None) -> epath.Path:
    """A file from a plain address, kept in a cache and checked against a known hash.

    What arrives only in part is thrown away, and asked for again a few times.

    Args:
      url: of the file.
      digest: of it, see `check`.
      folder: of the cache; None is $JAXT2I_CACHE, else ~/.cache/jaxt2i.

    Raises:
      WeightsError: where it cannot be downloaded or is not the expected file.
    """
    path = _kept(url, digest, folder)
    if path.is_file():
        check(path, digest)
        return path
    import pooch

    pooch.get_logger().setLevel("ERROR")  # the bar says enough
    whole = {32: f"md5:{digest}", 64: f"sha256:{digest}"}.get(len(digest))
    wanted = pooch.create(
        str(path.parent), "", registry={path.name: whole}, retry_if_failed=RETRIES
    )
    wanted.urls[path.name] = url
    bar = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=CHUNK)
    try:
        wanted.fetch(path.name, downloader=bar)
    except (OSError, ValueError) as error:  # pooch's own for hashes, and for addresses
        raise WeightsError(
            f"{url} could not be downloaded ({error}). Fetch it by other means and save it as "
            f"{path}; its hash is {digest}{'...' if len(digest) < 32 else ''}"
        ) from error
    if not whole:
        try:
            check(path, digest)
        except WeightsError:
            path.unlink()
            raise
    return path


def _kept(url: str, digest: str, folder: epath.PathLike | None = None) -> epath.Path:
    """Where `fetch` keeps a file."""
    folder = folder or os.environ.get("JAXT2I_CACHE") or "~/.cache/jaxt2i"
    return epath.Path(folder).expanduser() / f"{digest[:12]}-{url.rpartition('/')[2]}"


# --- Loading -----------------------------------------------------------------------------------


def template(module: nn.Module) -> dict:
    """Shapes of a network's variables: a tree of ShapeDtypeStructs, nothing is computed."""
    return jax.eval_shape(module.init, jax.random.key(0), *module.example())


def build(names: ModuleType, net: str, state: Mapping, config: Mapping | None) -> tuple:
    """The network that a state dict belongs to.

    Args:
      names: module of `jaxt2i.convert` with NETWORKS, infer and perhaps from_config.
      net: key of NETWORKS.
      state: the state dict.
      config: content of Hugging Face's config.json, where there is one.

    Returns:
      (module, its fields).
    """
    sizes = names.infer(net, state)
    if config and hasattr(names, "from_config"):
        sizes |= names.from_config(net, config)
    where, name = names.NETWORKS[net].split(":")
    return getattr(importlib.import_module(where), name)(**sizes), sizes


def load(name: str, kind: str, net: str, shapes: Mapping[str, Any] | None = None) -> dict:
    """Variables of one network.

    Args:
      name: see `find`.
      kind: key of `NAMES`.
      net: "text" or "image" of a clip, "t5" of a clip_t5, "text" of a damsm or an xlm_r, "unet",
        "vae", "text" or "control" of a diffusion, "trunk" or "lin" of an lpips, "features" of a
        dino, an inception or a vgg16, "detector" of a yolo.
      shapes: tree of shapes that must be met; None takes those of the file's own sizes.

    Returns:
      {"params": tree of float32 arrays}, and "batch_stats" where the network has some.

    Raises:
      WeightsError: where the weights cannot be had.
      ConversionError: where they are not those of such a network.
    """
    names = NAMES[kind]
    found = find(_part(name, kind, net), kind)
    if found.path.is_dir():
        return fitting(load_variables(found.path / f"{net}.safetensors"), shapes, found.path)
    # A format of its own has a reader of its own.
    state = getattr(names, "read_all", files.read_all)(found.path).tensors
    return _converted(kind, net, found, state, shapes)


def look(name: str, kind: str, net: str, module: nn.Module) -> None:
    """Raises as `load` does for weights that are here, if a file's head says what is wrong."""
    path = _here(_part(name, kind, net), kind)
    folder = path is not None and path.is_dir()
    state = path and heads.of(path / f"{net}.safetensors" if folder else path)
    if state is None or hasattr(NAMES[kind], "read_all"):
        return
    shapes = jax.tree.map(lambda x: np.empty(x.shape, heads.NOTHING), template(module))
    if folder:
        flat = {k: x for k, x in state.items() if not k.endswith(SCALE)}
        fitting(unflatten_dict(flat, sep="/"), shapes, path)
    else:
        _converted(kind, net, Found(path, None), state, shapes)


def _part(name: str, kind: str, net: str) -> str:
    """The file of one network in a folder that has one for each; else what it was."""
    folders = getattr(NAMES[kind], "FOLDERS", {})
    return str(files.parts(epath.Path(name).expanduser(), folders).get(net) or name)


def _converted(
    kind: str, net: str, found: Found, state: Mapping, shapes: Mapping[str, Any] | None
) -> dict:
    names = NAMES[kind]
    table = rules.pick(names.TABLES[net], state)
    if not rules.to_flax(table, state, None)[1].used:
        keys = ", ".join(list(state)[:5])
        raise rules.ConversionError(
            f"{found.path}: its keys ({keys}, ...) are not those of {kind}'s {net} network; a "
            "prefix can be removed by python -m jaxt2i.convert --prefix"
        )
    if shapes is None:
        shapes = template(build(names, net, state, found.config)[0])
    try:
        variables, report = rules.to_flax(table, state, shapes)
    except rules.ConversionError as error:
        raise rules.ConversionError(f"{found.path}: {error}") from error
    report.require_all(str(found.path))
    return variables


def fitting(variables: dict, shapes: Mapping[str, Any] | None, path: epath.Path) -> dict:
    """The variables, if they have these shapes.

    Raises:
      ConversionError: where they do not; names the first array that differs.
    """
    if shapes is None:
        return variables
    seen, wanted = (
        {k: x.shape for k, x in flatten_dict(dict(t), sep="/").items()} for t in (variables, shapes)
    )
    for name in sorted(seen.keys() | wanted.keys()):
        if seen.get(name) != wanted.get(name):
            raise rules.ConversionError(
                f"{path}: {name} has shape {seen.get(name, 'none: it is absent')}, where the "
                f"network has {wanted.get(name, 'no such array')}; it was converted for another "
                "network or size"
            )
    return variables
