"""Official checkouts that were never published, and as much of PyTorch as their adapters touch.

The names of official modules, with networks that hold the right tensors and compute nothing: what
is tested is everything around them.
"""

import os
import sys
from pathlib import Path

import jax
import numpy as np
from peers import ours, sizes

from jaxt2i.convert import rules
from jaxt2i.encoders import clip_names
from jaxt2i.run import open as runs

TORCH = """
import contextlib
import types
from pathlib import Path

import numpy as np

__version__ = "0.0"
float32, bfloat16, float, uint8 = np.float32, np.float16, np.float32, np.uint8


class Tensor(np.ndarray):
    def to(self, *where):
        kinds = [w for w in where if isinstance(w, type)]
        return self.astype(kinds[0]) if kinds else self

    def __getattr__(self, name):
        if name in ("detach", "cpu", "float", "requires_grad_", "clone"):
            return lambda *_: self
        raise AttributeError(name)

    def numpy(self):
        return np.asarray(self)

    def clamp(self, low, high):
        return self.clip(low, high)

    def add(self, x):
        return self + x

    def mul(self, x):
        return self * x

    def split(self, sizes, axis):
        return np.split(self, np.cumsum(sizes)[:-1], axis)

    def lerp(self, end, weight):
        return self + weight * (end - self)

    def copy_(self, x):
        self[...] = x


class device(str):
    type = "cpu"


class no_grad(contextlib.ContextDecorator):
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


class Module:
    def __init__(self):
        self.hooks, self.tensors = [], {}

    def __call__(self, *args, **kw):
        out = self.forward(*args, **kw)
        for hook in self.hooks:
            hook(self, args, out)
        return out

    def register_forward_hook(self, hook):
        self.hooks.append(hook)

    def state_dict(self):
        return self.tensors

    def named_parameters(self):
        sized = lambda x: types.SimpleNamespace(numel=lambda: x.size)
        return [(key, sized(x)) for key, x in self.tensors.items()]

    def parameters(self):
        return [*self.tensors.values()]

    train = eval = requires_grad_ = to = apply = lambda self, *_: self


class ModuleDict(Module):
    def __init__(self, modules):
        super().__init__()
        for name, module in modules.items():
            self.tensors |= {f"{name}.{key}": x for key, x in module.tensors.items()}


class Net(Module):
    # Holds what tensors.npz has for its class.

    def __init__(self, *sizes, **more):
        super().__init__()
        start = f"{type(self).__name__}|"
        with np.load(Path(__file__).parents[1] / "tensors.npz") as held:
            mine = [k for k in held if k.startswith(start)]
            self.tensors = {k[len(start) :]: held[k].view(Tensor) for k in mine}


class Adam:
    def __init__(self, parameters, lr, **more):
        self.lr, self.more = lr, more

    step = zero_grad = lambda self, **_: None


def normalize(x, dim):
    return x / np.linalg.norm(x, axis=dim, keepdims=True)


nn = types.SimpleNamespace(
    Module=Module, ModuleDict=ModuleDict, functional=types.SimpleNamespace(normalize=normalize)
)
cuda = types.SimpleNamespace(is_available=lambda: False)
distributed = types.SimpleNamespace(init_process_group=lambda *_, **__: None, HashStore=int)
optim = types.SimpleNamespace(Adam=Adam)
autocast = contextlib.nullcontext
cosine_similarity = lambda a, b: (normalize(a, -1) * normalize(b, -1)).sum(-1)
from_numpy = lambda x: x.view(Tensor)
tensor = lambda x, dtype: np.asarray(x, np.float32).view(Tensor)
zeros = lambda *shape, device=None: np.zeros(shape).view(Tensor)
randn = lambda *shape: np.ones(shape, np.float32).view(Tensor)
manual_seed = set_num_threads = lambda number: None
get_num_threads = lambda: 1
"""
GAN = """
import numpy as np
import torch
from torch import Net


class NetG(Net):
    def __init__(self, base, z, sentence, resolution, channels):
        super().__init__()
        self.side = resolution

    def forward(self, z, sentence):
        return np.tile(z[:, :1, None, None], (1, 3, self.side, self.side)).view(torch.Tensor)


class NetD(Net):
    def forward(self, image):
        return image


class NetC(Net):
    def forward(self, image, sentence):
        return image.mean((1, 2, 3))
"""
DAMSM = """
import torch


class RNN_ENCODER(torch.nn.Module):
    def __init__(self, words, nhidden):
        super().__init__()
"""
MODULES = """
import nltk  # an old package that nobody has, and that a step does not call
import numpy as np
import torch

truncated_noise = lambda count, width, at: np.zeros((count, width), np.float32)


def prepare_data(data, text_encoder):
    image, tokens, lengths, keys = data
    return image, tokens[..., 0], tokens, keys


def predict_loss(predictor, feature, text, negtive):
    out = predictor(feature, text)
    return out, 1 + (out.mean() if negtive else -out.mean())


def MA_GP(image, text, out):
    return 0 * out.mean()


def train(dataloader, netG, netD, netC, text_encoder, optimizerG, optimizerD, args):
    assert optimizerD.more["betas"] == (0.0, 0.9)
    for data in dataloader:
        image, sentence, words, keys = prepare_data(data, text_encoder)
        out, real = predict_loss(netC, netD(image), sentence, negtive=False)
        predict_loss(netC, netD(image), sentence, negtive=True)
        fake = netG(torch.randn(args.batch_size, args.z_dim), sentence)
        predict_loss(netC, netD(fake), sentence, negtive=True)
        MA_GP(image, sentence, out)
        netC(netD(fake), sentence)
"""


GALIP_CLIP = """
import types

from torch import Net


class Visual(Net):
    transformer = types.SimpleNamespace(resblocks=[])


class CLIP(Net):
    def __init__(self, **sizes):
        super().__init__()
        assert sizes["vision_layers"] == 12
        self.visual = Visual()
"""
GALIP_NETS = """
import numpy as np
import torch
from torch import Net


class CLIP_IMG_ENCODER(Net):
    def forward(self, image):
        return image, np.tile(image.mean((1, 2, 3))[:, None], 2)


class CLIP_TXT_ENCODER(Net):
    pass


class NetG(Net):
    def forward(self, z, sentence, eval=False):
        return np.tile(z[:, :1, None, None], (1, 3, 16, 16)).view(torch.Tensor)


class NetD(Net):
    def forward(self, image):
        return image


class NetC(Net):
    def forward(self, image, sentence):
        return image.mean((1, 2, 3)) + sentence.mean(1)
"""
GALIP_LOOP = """
import torch

predict_loss = lambda critic, x, text, negtive: (critic(x, text), critic(x, text).mean())
MA_GP_FP32 = lambda states, text, out: out.mean() + 1


def train(loader, netG, netD, netC, text, image, optG, optD, scaleG, scaleD, args):
    assert (optG.lr, optD.lr, args.sim_w) == (1e-4, 4e-4, 4.0)
    for data in loader:
        real, _, _, sentence, words, _ = prepare_data(data, text, "cpu")
        real, _ = image(real)
        out, _ = predict_loss(netC, real, sentence, negtive=False)
        predict_loss(netC, real, sentence[::-1], negtive=True)
        fake, seen = image(netG(torch.randn(args.batch_size, args.z_dim), sentence))
        predict_loss(netC, fake, sentence, negtive=True)
        MA_GP_FP32(real, sentence, out)
        netC(netD(fake), sentence)
        torch.cosine_similarity(seen, sentence[:, :2]).mean()
"""
OPEN_CLIP = """
from torch import Net


class Visual(Net):
    pass


class CLIP(Net):
    def __init__(self, joint, sees, reads, quick_gelu):
        super().__init__()
        assert sees["head_width"] * 2 == sees["width"] and quick_gelu
        self.visual = Visual()


create_model = None
"""
TIMM = """
from torch import Net


class Features(Net):
    pass


def create_model(name, pretrained, img_size, embed_dim, num_heads, mlp_ratio):
    assert not pretrained
    return Features()
"""
STYLEGAN_T = """
import types

import numpy as np
import timm
import torch
from torch import Net


class Generator(Net):
    c_dim = 64

    def __call__(self, z, sentence, noise_mode):
        assert noise_mode == "const" and abs(np.linalg.norm(sentence[0]) - 1) < 1e-5
        return np.tile(z[:, :1, None, None], (1, 3, 8, 8)).view(torch.Tensor)


class ProjectedDiscriminator(Net):
    def __init__(self, c_dim, diffaug):
        super().__init__()
        assert not diffaug
        model = timm.create_model("vit_small_patch16_224_dino", pretrained=True)
        self.dino = types.SimpleNamespace(model=types.SimpleNamespace(model=model))
"""
STYLEGAN_T_LOSS = """
import types

import numpy as np
import open_clip
import torch

training_stats = None


class ProjectedGANLoss:
    def __init__(self, device, G, D, blur_init_sigma, blur_fade_kimg, clip_weight):
        assert (blur_init_sigma, blur_fade_kimg, clip_weight) == (2.0, 2.0, 0.2)
        self.clip = types.SimpleNamespace(model=open_clip.create_model("", pretrained="openai"))

    def accumulate_gradients(self, phase, real, captions, z, seen):
        noise = [torch.randn([len(z), 1, 8, 8]).mean() for _ in range(2)]
        loss = np.asarray(z.mean() + noise[0] + 2 * noise[1]).view(torch.Tensor)
        training_stats.report(f"Loss/{phase}/loss", loss)
        training_stats.report("Loss/G/clip_loss", self.clip.model.encode_text(captions))
"""
SOUZA = """
import torch
from torch import Net


class biggan_deepG(Net):
    def forward(self, z, sentence):
        return z[:, :1, None, None] + torch.zeros(len(z), 3, 8, 8)


class biggan_deepD(Net):
    def forward(self, image, sentence):
        return image.mean((1, 2, 3)) + sentence.mean(1)
"""
SOUZA_LOOP = """
class Trainer:
    def run(self):
        look = self.sampler_fn(self.n_samples, self.z_dim)
        assert len(look) == len(self.dataset.embeddings) and self.optimizerG.lr == 1e-4
        for image, sentence in self.data_loader:
            fake = self.netG(self.sampler_fn(len(image), self.z_dim), sentence)
            self.loss.loss_d_fake(self.netD(fake, sentence), None)
            self.loss.loss_d_real(self.netD(image, sentence), None)
            fake = self.netG(self.sampler_fn(len(image), self.z_dim), sentence)
            self.loss.loss_g(self.netD(fake, sentence), None)
"""
SOUZA_LOSSES = """
import types

get_loss = lambda name, device: types.SimpleNamespace(
    loss_d_fake=lambda fake, _: (fake.mean(), False),
    loss_d_real=lambda real, _: (-real.mean(), False),
    loss_g=lambda fake, _: (-fake.mean(), False),
)
"""
# {system: {file: its text}}; packages beside the checkout stand for installed ones.
FILES = {
    "df_gan": {
        "checkout/code/models/__init__.py": "",
        "checkout/code/models/GAN.py": GAN,
        "checkout/code/models/DAMSM.py": DAMSM,
        "checkout/code/lib/__init__.py": "",
        "checkout/code/lib/modules.py": MODULES,
    },
    "galip": {
        "clip/__init__.py": "",
        "clip/model.py": GALIP_CLIP,
        "torchvision/__init__.py": "",
        "checkout/code/models/__init__.py": "",
        "checkout/code/models/GALIP.py": GALIP_NETS,
        "checkout/code/lib/__init__.py": "",
        "checkout/code/lib/modules.py": GALIP_LOOP,
    },
    "stylegan_t": {
        "open_clip/__init__.py": OPEN_CLIP,
        "timm/__init__.py": TIMM,
        "torchvision/__init__.py": "",
        "checkout/networks/__init__.py": "",
        "checkout/networks/generator.py": STYLEGAN_T,
        "checkout/networks/discriminator.py": STYLEGAN_T,
        "checkout/training/__init__.py": "",
        "checkout/training/loss.py": STYLEGAN_T_LOSS,
        "checkout/training/training_loop.py": "partial_freeze = sync_grads = lambda *_, **__: None",
    },
    "souza": {
        "torchvision/__init__.py": "",
        "checkout/models/__init__.py": "from models.bigGAN_deep import *",
        "checkout/models/bigGAN_deep.py": SOUZA,
        "checkout/trainer.py": SOUZA_LOOP,
        "checkout/ganlib/__init__.py": "",
        "checkout/ganlib/losses.py": SOUZA_LOSSES,
        "checkout/ganlib/weight_init.py": "get_initializer = lambda name: name",
    },
}
# {system: {our network: its class in the made-up checkout}}.
CALLED = {
    "df_gan": {"g": "NetG", "d": "NetD", "c": "NetC"},
    "galip": {"g": "NetG", "d": "NetD", "c": "NetC", "image": "Visual"},
    "stylegan_t": {
        "g": "Generator",
        "d": "ProjectedDiscriminator",
        "guide": "Visual",
        "features": "Features",
    },
    "souza": {"g": "biggan_deepG", "d": "biggan_deepD"},
}


def tensors(system: str, size: dict) -> dict[str, np.ndarray]:
    """{"NetG|key": numbers} of the state dicts that a system's networks have at a size."""
    job = {"system": system, "size": size, "precision": "float32", "seed": 0, "given": True}
    nets, out = ours.templates_of(runs.open_run(ours.config_of(job))), {}
    tables = ours.tables(system)
    for net, name in CALLED[system].items():
        table = clip_names.OPENAI_IMAGE if name == "Visual" else tables[net][0]
        variables = jax.tree.map(lambda x: np.full(x.shape, 0.01, np.float32), nets[net])
        for key, x in rules.to_torch(table, variables).items():
            out[f"{name}|{key.removeprefix('visual.')}"] = x
    return out


def written(folder: Path, size: dict, system: str = "df_gan") -> tuple[Path, Path]:
    """(the checkout, an interpreter that has its PyTorch)."""
    files = FILES[system] | {
        "torch/__init__.py": TORCH,
        "python": f'#!/bin/sh\nPYTHONPATH="{folder}:$PYTHONPATH" exec "{sys.executable}" "$@"\n',
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    os.chmod(folder / "python", 0o755)
    np.savez(folder / "tensors.npz", **tensors(system, size))
    return folder / "checkout", folder / "python"


def rows(size: dict, steps: int) -> dict[str, np.ndarray]:
    """What both sides of a parity run are given, made up: every picture and draw another one."""
    rng, count = np.random.default_rng(steps), steps * size["batch"]
    side, tokens = size.get("real", size["resolution"]), size["tokens"]
    return {
        "image": rng.integers(0, 256, (count, side, side, 3), np.uint8),
        "tokens": np.tile(np.arange(count, dtype=np.int32)[:, None], (1, tokens)),
        "token_mask": np.ones((count, tokens), bool),
        "sentence": rng.standard_normal((count, size["sentence"]), np.float32),
        **{k: rng.standard_normal((count, n), np.float32) for k, n in sizes.draws(size).items()},
    }


def last(rows: dict, batch: int) -> dict[str, np.ndarray]:
    """The last batch, its pictures in [-1, 1] as their means."""
    out = {name: x[-batch:] for name, x in rows.items()}
    return out | {"image": out["image"].mean((1, 2, 3)) / 127.5 - 1}


def galip_losses(rows: dict, batch: int) -> dict[str, float]:
    """What the made-up loop says of the last batch."""
    x = last(rows, batch)
    text, drawn = x["sentence"].mean(), x["z"][:, 0].mean()
    real, fake = x["image"].mean() + text, drawn + text
    pair = x["sentence"][:, :2]
    cosines = np.sign(x["z"][:, 0]) * pair.sum(1) / np.linalg.norm(pair, axis=1) / 2**0.5
    out = {"real": real, "mismatched": real, "fake": fake, "penalty": real + 1}
    out |= {"adversarial": -fake, "similarity": cosines.mean()}
    out["d"] = real + (fake + real) / 2 + real + 1
    return out | {"g": -fake - 4 * out["similarity"]}


def souza_losses(rows: dict, batch: int) -> dict[str, float]:
    """What the made-up loop says of the last batch."""
    x = last(rows, batch)
    text = x["sentence"].mean()
    fake, real = x["z"][:, 0].mean() + text, -x["image"].mean() - text
    return {"d": fake + real, "real": real, "fake": fake, "g": -x["z_g"][:, 0].mean() - text}


def stylegan_t_losses(rows: dict, batch: int) -> dict[str, float]:
    """What the made-up losses say of the last batch."""
    x = last(rows, batch)

    def phase(z: str, noise: str) -> float:
        first, second = (part.mean() for part in np.split(x[noise], 2, 1))
        return x[z].mean() + first + 2 * second

    g = phase("z_g", "noise_g")
    out = {"d": phase("z", "noise_d"), "guidance": x["sentence"].mean(), "adversarial": batch * g}
    return out | {"g": g + 0.2 * out["guidance"]}


LOSSES = {"galip": galip_losses, "souza": souza_losses, "stylegan_t": stylegan_t_losses}
