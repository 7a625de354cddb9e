"""An official checkout that was never published, and as much of PyTorch as its adapter touches.

DF-GAN's module names, with networks that hold the right tensors and compute nothing: what is tested
is everything around them.
"""

import os
import sys
from pathlib import Path

import jax
import numpy as np

from jaxt2i.convert import rules
from jaxt2i.systems.df_gan import method, names

TORCH = """
import contextlib
import types

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

    def __call__(self, *args):
        out = self.forward(*args)
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

    def to(self, device):
        return self

    train = eval = requires_grad_ = lambda self, *_: self


nn = types.SimpleNamespace(Module=Module)
cuda = types.SimpleNamespace(is_available=lambda: False)
optim = types.SimpleNamespace(Adam=lambda parameters, lr, betas: (lr, betas))
from_numpy = lambda x: x.view(Tensor)
tensor = lambda x, dtype: np.asarray(x, np.float32).view(Tensor)
zeros = lambda *shape, device=None: np.zeros(shape).view(Tensor)
randn = lambda *shape: np.ones(shape, np.float32).view(Tensor)
manual_seed = set_num_threads = lambda number: None
get_num_threads = lambda: 1
"""
GAN = """
from pathlib import Path

import numpy as np
import torch

HELD = np.load(Path(__file__).parent / "tensors.npz")


class Net(torch.nn.Module):
    def __init__(self, *sizes):
        super().__init__()
        start = f"{type(self).__name__}|"
        mine = [k for k in HELD if k.startswith(start)]
        self.tensors = {k[len(start) :]: HELD[k].view(torch.Tensor) for k in mine}


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
    assert optimizerD[1] == (0.0, 0.9)
    for data in dataloader:
        image, sentence, words, keys = prepare_data(data, text_encoder)
        out, real = predict_loss(netC, netD(image), sentence, negtive=False)
        predict_loss(netC, netD(image), sentence, negtive=True)
        fake = netG(torch.randn(args.batch_size, args.z_dim), sentence)
        predict_loss(netC, netD(fake), sentence, negtive=True)
        MA_GP(image, sentence, out)
        netC(netD(fake), sentence)
"""


def tensors(size: dict) -> dict[str, np.ndarray]:
    """{"NetG|key": zeros} of the state dicts that DF-GAN's networks have at a size."""
    side = {"base": size["base"], "resolution": size["resolution"]}
    width = method.widths(size["base"], method.blocks_of(size["resolution"]))[0]
    modules = {
        "g": method.Generator(**side, z_dim=size["z_dim"], sentence_dim=size["sentence"]),
        "d": method.Features(**side),
        "c": method.OneWayOutput(base=size["base"], channels=width, sentence_dim=size["sentence"]),
    }
    out = {}
    for net, module in modules.items():
        shapes = jax.eval_shape(module.init, jax.random.key(0), *module.example())
        variables = jax.tree.map(lambda x: np.full(x.shape, 0.01, np.float32), shapes)
        for key, x in rules.to_torch(names.TABLES[net][0], variables).items():
            out[f"Net{net.upper()}|{key}"] = x
    return out


def written(folder: Path, size: dict) -> tuple[Path, Path]:
    """(the checkout, an interpreter that has its PyTorch)."""
    files = {
        "torch/__init__.py": TORCH,
        "checkout/code/models/__init__.py": "",
        "checkout/code/models/GAN.py": GAN,
        "checkout/code/models/DAMSM.py": DAMSM,
        "checkout/code/lib/__init__.py": "",
        "checkout/code/lib/modules.py": MODULES,
        "python": f'#!/bin/sh\nPYTHONPATH="{folder}:$PYTHONPATH" exec "{sys.executable}" "$@"\n',
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    os.chmod(folder / "python", 0o755)
    np.savez(folder / "checkout/code/models/tensors.npz", **tensors(size))
    return folder / "checkout", folder / "python"
