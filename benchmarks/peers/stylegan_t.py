"""autonomousvision/stylegan-t: its networks, losses, augmentation and gradient clean-up.

Its `training_loop` cannot run without CUDA events, a data set and snapshots, so the order of its
calls is kept here instead, on one device.
"""

import contextlib
import functools
import importlib
import sys
import types
from pathlib import Path

import numpy as np
import torch

from peers import checkout, tensors
from peers.talk import PeerError

CAPTION = "a red rose with green leaves"
ADAM = {"betas": (0.0, 0.99), "eps": 1e-8, "lr": 0.002}


class StyleganT:
    """The official networks, losses and optimisers, around random CLIP ViT-L/14 and DINO ViT-S/16.

    Attributes:
      nets: {the library's name: module}.
      skipped: beginnings of keys that belong to frozen networks inside others.
      precision: what is computed in.
    """

    skipped = ("mapping.clip.", "dino.")

    def __init__(self, root: Path, size: dict, device: torch.device, *, amp: bool, given: bool):
        if given:
            raise PeerError(
                "stylegan_t: its official CLIP is too large for a parity run of minutes"
            )
        checkout.needed("stylegan_t", "timm", "open_clip", "torchvision")
        sys.path.insert(0, str(root))
        self._without_downloads()
        generator = importlib.import_module("networks.generator")
        critic = importlib.import_module("networks.discriminator")
        self.loop = importlib.import_module("training.training_loop")
        self.size, self.device = size, device
        self._made = tensors.Kept(lambda rows: tensors.pictures(rows, device))
        # Its blocks fall back to float32 where there is no CUDA; D and the guidance always are.
        self.own_amp = amp and device.type == "cuda"
        self.cast = amp and not self.own_amp
        self.precision = "float32"
        if amp:
            self.precision = "float16 in G by its own" if self.own_amp else "bfloat16 by autocast"
        synthesis = {
            "channel_base": size["channel_base"],
            "channel_max": size["channel_max"],
            "num_res_blocks": size["res_blocks"],
            "architecture": "skip",
        }
        if not self.own_amp:
            synthesis |= {"num_fp16_res": 0, "conv_clamp": None}
        g = generator.Generator(
            z_dim=size["z_dim"],
            conditional=True,
            img_resolution=size["resolution"],
            synthesis_kwargs=synthesis,
        )
        d = critic.ProjectedDiscriminator(c_dim=g.c_dim)
        self.nets = {
            "g": g.train().requires_grad_(False).to(device),
            "d": d.train().requires_grad_(False).to(device),
        }

    def _without_downloads(self) -> None:
        """Random weights where the official code fetches them."""
        import open_clip
        import timm

        clip, vit = open_clip.create_model, timm.create_model
        open_clip.create_model = lambda name, pretrained: clip(name, force_quick_gelu=True)
        timm.create_model = lambda name, pretrained: vit(name, pretrained=False)

    def feed(self, rows: tensors.Rows):
        """A batch as the steps read it."""
        return self._made(rows), [CAPTION] * len(rows["image"])

    def train(self, loader) -> None:
        """Steps in the order of the official loop, until the loader ends it."""
        torch.distributed.init_process_group(
            "nccl" if self.device.type == "cuda" else "gloo",
            store=torch.distributed.HashStore(),
            rank=0,
            world_size=1,
        )
        g, d, size = self.nets["g"], self.nets["d"], self.size
        losses = importlib.import_module("training.loss").ProjectedGANLoss(
            device=self.device,
            G=g,
            D=d,
            blur_init_sigma=32,
            blur_fade_kimg=1000,
            clip_weight=size["clip_weight"],
        )
        average = [p.detach().clone() for p in g.parameters()]
        phases = [(n, m, torch.optim.Adam(m.parameters(), **ADAM)) for n, m in (("D", d), ("G", g))]
        seen, cast = 0, functools.partial(torch.autocast, self.device.type, torch.bfloat16)
        for image, captions in loader:
            z = torch.randn(2, len(image), size["z_dim"], device=self.device)
            for (name, module, adam), latent in zip(phases, z, strict=True):
                module.requires_grad_(True)
                self.loop.partial_freeze(types.SimpleNamespace(name=name, module=module))
                with cast() if self.cast else contextlib.nullcontext():
                    losses.accumulate_gradients(name, image, captions, latent, seen)
                module.requires_grad_(False)
                self.loop.sync_grads(network=module, gain=1)
                adam.step()
                adam.zero_grad(set_to_none=True)
            # Half-life batch * 10 / 32 thousand pictures, at most 0.05 of those seen.
            images = min(len(image) * 10e3 / 32, seen * 0.05)
            beta = 0.5 ** (len(image) / max(images, 1e-8))
            with torch.no_grad():
                for old, new in zip(average, g.parameters(), strict=True):
                    old.copy_(new.lerp(old, beta))
            seen += len(image)

    @torch.no_grad()
    def draw(self, rows: tensors.Rows) -> np.ndarray:
        """Pictures uint8 [n, H, W, 3], with constant noise."""
        g, count = self.nets["g"].eval(), len(rows["image"])
        z = torch.randn(count, self.size["z_dim"], device=self.device)
        image = g(z, [CAPTION] * count, noise_mode="const")
        g.train()
        return tensors.bytes_of(image)
