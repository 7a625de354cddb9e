"""taoxugit/AttnGAN and MinfengZhu/DM-GAN: `condGANTrainer.train` as it is, without its files.

They were written for Python 2 and PyTorch 0.3 and 0.4; `RULES` is what today's cannot read.
"""

import contextlib
import functools
import importlib
import sys
from pathlib import Path

import numpy as np
import torch

from peers import checkout, tensors

RULES = (
    (r"\.data\[0\]", ".item()"),
    (r"data_iter\.next\(\)", "next(data_iter)"),
    (r"(\w+\.state_dict\(\)\.keys\(\))\[", r"list(\1)["),
    # Weights of ImageNet, by download.
    (r"model\.load_state_dict\(model_zoo\.load_url\(url\)\)", "pass"),
)


class Staged:
    """The official networks, losses, optimisers and loop, with random encoders.

    Attributes:
      nets: {the library's name: module}.
      skipped: beginnings of keys that are no network's of ours.
      precision: what is computed in.
    """

    skipped = ()
    memory = False

    def __init__(self, root: Path, size: dict, device: torch.device, *, amp: bool, given: bool):
        """`given`: latents come with the rows, which are sorted by length, and losses are noted."""
        checkout.needed("attngan and dm_gan", "torchvision")
        import torchvision

        inception = functools.partial(torchvision.models.inception_v3, init_weights=False)
        torchvision.models.inception_v3 = inception
        # Masks of bytes are refused today.
        torch.ByteTensor = lambda x: torch.from_numpy(np.asarray(x)).bool()
        self._code = checkout.rewritten(root / "code", RULES)
        sys.path.insert(0, str(self._code))
        self.size, self.device, self.given, self.amp = size, device, given, amp
        self.precision = "bfloat16 by autocast" if amp else "float32"
        self._configure(importlib.import_module("miscc.config").cfg)
        self.model = importlib.import_module("model")
        self.trainer = importlib.import_module("trainer")
        checkout.forget(self._code)
        self._queue, self._noted, self._made = [], {}, tensors.Kept(self._tensors)
        init = importlib.import_module("miscc.utils").weights_init
        text = self.model.RNN_ENCODER(size["vocab"], nhidden=size["sentence"])
        image = self.model.CNN_ENCODER(size["sentence"])
        self.nets = {"g": self.model.G_NET()}
        for stage in range(size["stages"]):
            self.nets[f"d{64 << stage}"] = getattr(self.model, f"D_NET{64 << stage}")()
        for net in self.nets.values():
            net.apply(init)
        if given:
            calibrate(image)
        self.nets |= {"text": tensors.frozen(text), "image": tensors.frozen(image)}
        self.nets = {name: net.to(device) for name, net in self.nets.items()}
        self.critics = [net for name, net in self.nets.items() if name.startswith("d")]
        if given:
            self._give()

    def _configure(self, cfg) -> None:
        """The published yml of CUB, at the job's size."""
        size = self.size
        cfg.CUDA = self.device.type == "cuda"
        cfg.TREE.BRANCH_NUM = size["stages"]
        cfg.TRAIN.BATCH_SIZE = size["batch"]
        cfg.TRAIN.GENERATOR_LR, cfg.TRAIN.DISCRIMINATOR_LR = size.get("lr", (2e-4, 2e-4))
        smooth = cfg.TRAIN.SMOOTH
        smooth.GAMMA1, smooth.GAMMA2, smooth.GAMMA3, smooth.LAMBDA = 4.0, 5.0, 10.0, 5.0
        cfg.GAN.GF_DIM, cfg.GAN.DF_DIM = size["g_base"], size["d_base"]
        cfg.GAN.Z_DIM, cfg.GAN.CONDITION_DIM = size["z_dim"], size["c_dim"]
        cfg.GAN.R_NUM = size["residuals"]
        cfg.TEXT.EMBEDDING_DIM, cfg.TEXT.WORDS_NUM = size["sentence"], size["tokens"]

    def _give(self) -> None:
        """Puts given latents into the loop, and ears on its losses."""
        trainer, noted = self.trainer, self._noted
        trainer.prepare_data = lambda data: data
        d_loss, g_loss, kl_loss = (
            getattr(trainer, name) for name in ("discriminator_loss", "generator_loss", "KL_loss")
        )

        def discriminator_loss(*args):
            out = d_loss(*args)
            loss = out[0] if isinstance(out, tuple) else out
            noted[f"d{64 << len(noted)}"] = float(loss)
            return out

        def generator_loss(*args):
            loss, logs = g_loss(*args)
            noted["g"] = float(loss)
            return loss, logs

        def divergence(*args):
            loss = kl_loss(*args)
            noted["kl"] = float(loss)
            noted["g"] += noted["kl"]
            return loss

        trainer.discriminator_loss, trainer.generator_loss = discriminator_loss, generator_loss
        trainer.KL_loss = divergence

    def feed(self, rows: tensors.Rows):
        """A batch as the loop reads it."""
        self._noted.clear()
        images, *rest = self._made(rows)
        if self.given:
            self._queue = list(self._latents(rows))
        return [list(images), *rest]  # the official `prepare_data` sorts the list in place

    def _tensors(self, rows: tensors.Rows) -> list:
        tokens, lengths = tensors.words(rows)
        kinds, keys = torch.from_numpy(rows["label"]), [str(i) for i in range(len(tokens))]
        if not self.given:
            image = tensors.pictures(rows, torch.device("cpu"))
            sides = [64 << stage for stage in range(self.size["stages"])]
            shrink = functools.partial(torch.nn.functional.interpolate, mode="area")
            return [[shrink(image, side) for side in sides], tokens, lengths, kinds, keys]
        names = sorted((k for k in rows if k.startswith("image_")), key=lambda k: int(k[6:]))
        images = [tensors.pictures({"image": rows[k]}, self.device) for k in names]
        tokens, lengths = tokens[..., 0].to(self.device), lengths.to(self.device)
        return [images, tokens, lengths, rows["label"], keys]

    def _latents(self, rows: tensors.Rows) -> tuple[torch.Tensor, torch.Tensor]:
        z = torch.from_numpy(rows["z"])
        return z[:, : self.size["z_dim"]], z[:, self.size["z_dim"] :]

    def losses(self) -> dict[str, float]:
        """Of the last step."""
        return dict(self._noted)

    def train(self, loader) -> None:
        """The official loop, until the loader ends it."""
        run = object.__new__(self.trainer.condGANTrainer)
        run.batch_size, run.max_epoch, run.snapshot_interval = self.size["batch"], 1, 10**9
        run.data_loader, run.num_batches = loader, len(loader)
        first = [self.nets[name] for name in ("text", "image", "g")]
        run.build_models = lambda: [*first, self.critics, 0]
        cast = torch.autocast(self.device.type, torch.bfloat16)
        # Its losses are of probabilities, which autocast refuses to take in bfloat16.
        if self.amp:
            plain = torch.nn.functional.binary_cross_entropy
            torch.nn.functional.binary_cross_entropy = outside(plain, self.device.type)
        with cast if self.amp else contextlib.nullcontext(), self._given_noise():
            run.train()

    def _given_noise(self):
        """While it lasts, noise that is drawn in place is what the queue holds, then noise."""
        drawn = torch.Tensor.normal_

        def normal_(tensor, *args, **kw):
            if self._queue and not args[2:]:
                return tensor.copy_(self._queue.pop(0))
            return drawn(tensor, *args, **kw)

        if not self.given:
            return contextlib.nullcontext()
        return tensors.replaced(torch.Tensor, normal_=normal_)

    @torch.no_grad()
    def draw(self, rows: tensors.Rows) -> np.ndarray:
        """The last pictures uint8 [n, H, W, 3], as its `sampling` draws them."""
        g, text = self.nets["g"].eval(), self.nets["text"]
        tokens, lengths = tensors.words(rows)
        if self.given:
            order = torch.arange(len(tokens))
            z, eps = self._latents(rows)
        else:
            order = torch.argsort(lengths, descending=True)
            z, eps = torch.randn(len(tokens), self.size["z_dim"]), None
        tokens = tokens[order, :, 0].to(self.device)
        lengths = lengths[order].to(self.device)
        words, sentence = text(tokens, lengths, text.init_hidden(len(tokens)))
        mask = (tokens == 0)[:, : words.shape[2]]
        self._queue = [] if eps is None else [eps]
        more = (lengths,) if self.memory else ()
        images = g(z.to(self.device), sentence, words, mask, *more)[0]
        g.train()
        return tensors.bytes_of(images[-1])


class AttnGan(Staged):
    """taoxugit/AttnGAN."""


class DmGan(Staged):
    """MinfengZhu/DM-GAN, whose generator also takes lengths."""

    memory = True


def outside(function, device: str):
    """A function that computes in float32 under autocast."""

    def run(*args, **kw):
        with torch.autocast(device, enabled=False):
            return function(*(x.float() if torch.is_tensor(x) else x for x in args), **kw)

    return run


@torch.no_grad()
def calibrate(image: torch.nn.Module) -> None:
    """Gives a random Inception statistics of its own features, so that they stay of size one."""
    norms = [m for m in image.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    before = [m.momentum for m in norms]
    for norm in norms:
        norm.momentum = 1.0
    image.train()(torch.rand(4, 3, 299, 299) * 2 - 1)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
