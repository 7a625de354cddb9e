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

CAPTION = "a red rose with green leaves"
ADAM = {"betas": (0.0, 0.99), "eps": 1e-8}


class StyleganT:
    """The official networks, losses and optimisers, around a random CLIP and a random DINO.

    These are ViT-L/14 and ViT-S/16, or, where the size names others, narrower ones of the same
    packages.

    Attributes:
      nets: {the library's name: module}.
      skipped: beginnings of keys that belong to frozen networks inside others.
      precision: what is computed in.
    """

    skipped = ("mapping.clip.", "dino.")

    def __init__(self, root: Path, size: dict, device: torch.device, *, amp: bool, given: bool):
        """`given`: sentences, latents and noise come with the rows, and losses are noted."""
        checkout.needed("stylegan_t", "timm", "open_clip", "torchvision")
        sys.path.insert(0, str(root))
        self.size, self.device, self.given = size, device, given
        self._rows, self._left, self._noted = {}, None, {}
        self._without_downloads()
        generator = importlib.import_module("networks.generator")
        critic = importlib.import_module("networks.discriminator")
        self.loop = importlib.import_module("training.training_loop")
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
            synthesis["num_fp16_res"] = 0
            if not given:  # as --fp32 of its train.py; ours clamps always
                synthesis["conv_clamp"] = None
        g = generator.Generator(
            z_dim=size["z_dim"],
            conditional=True,
            img_resolution=size["resolution"],
            synthesis_kwargs=synthesis,
        )
        d = critic.ProjectedDiscriminator(c_dim=g.c_dim, diffaug=bool(size.get("augment", "all")))
        self.nets = {
            "g": g.train().requires_grad_(False).to(device),
            "d": d.train().requires_grad_(False).to(device),
        }
        self.losses_of = self._losses(g, d)
        if given:
            visual = self.losses_of.clip.model.visual
            self.nets["guide"] = torch.nn.ModuleDict({"visual": visual})
            self.nets["features"] = d.dino.model.model

    def _losses(self, g, d):
        """The official losses of the phases."""
        module, size = importlib.import_module("training.loss"), self.size
        made = module.ProjectedGANLoss(
            device=self.device,
            G=g,
            D=d,
            blur_init_sigma=size.get("blur_init_sigma", 32),
            blur_fade_kimg=size.get("blur_fade_images", 1e6) / 1e3,
            clip_weight=size["clip_weight"],
        )
        if self.given:
            module.training_stats = types.SimpleNamespace(report=self._hear)
            made.clip.model.encode_text = lambda _: self._tensor("sentence")
        return made

    def _hear(self, name: str, value) -> None:
        """Notes what the losses report."""
        self._noted[name] = float(value.detach().mean())

    def losses(self) -> dict[str, float]:
        """Of the last step."""
        noted, weight = self._noted, self.size["clip_weight"]
        out = {"d": noted["Loss/D/loss"], "g": noted["Loss/G/loss"]}
        out["adversarial"] = out["g"] * self.size["batch"]
        if weight:
            out["guidance"] = noted["Loss/G/clip_loss"]
            out["g"] += weight * out["guidance"]
        return out

    def _without_downloads(self) -> None:
        """Random weights where the official code fetches them."""
        import open_clip
        import timm

        clip, vit, size = open_clip.create_model, timm.create_model, self.size
        open_clip.create_model = lambda name, pretrained: clip(name, force_quick_gelu=True)
        if "clip" in size:
            open_clip.create_model = lambda name, pretrained: narrow_clip(open_clip, size)
        sizes = {}
        if "dino" in size:
            of = size["dino"]
            sizes = {"img_size": of["resolution"], "embed_dim": of["width"]}
            sizes |= {"num_heads": of["heads"], "mlp_ratio": of["mlp_ratio"]}
        timm.create_model = lambda name, pretrained: vit(name, pretrained=False, **sizes)

    def _tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self._rows[name]).to(self.device)

    def feed(self, rows: tensors.Rows):
        """A batch as the steps read it."""
        self._rows = rows
        self._noted.clear()
        return self._made(rows), [CAPTION] * len(rows["image"])

    def _latents(self) -> dict[str, torch.Tensor]:
        """{phase: z}."""
        if self.given:
            return {"D": self._tensor("z"), "G": self._tensor("z_g")}
        shape = 2, self.size["batch"], self.size["z_dim"]
        return dict(zip("DG", torch.randn(*shape, device=self.device), strict=True))

    def _given_noise(self):
        """While it lasts, normal numbers are the phase's noise, map by map."""

        def randn(shape, **_):
            count = shape[-2] * shape[-1]
            now, self._left = self._left.split([count, self._left.shape[1] - count], 1)
            return now.reshape(shape)

        return tensors.replaced(torch, randn=randn) if self.given else contextlib.nullcontext()

    def train(self, loader) -> None:
        """Steps in the order of the official loop, until the loader ends it."""
        torch.distributed.init_process_group(
            "nccl" if self.device.type == "cuda" else "gloo",
            store=torch.distributed.HashStore(),
            rank=0,
            world_size=1,
        )
        g, d, size = self.nets["g"], self.nets["d"], self.size
        losses, lr = self.losses_of, size.get("lr", (2e-3, 2e-3))
        average = [p.detach().clone() for p in g.parameters()]
        phases = [
            (name, module, torch.optim.Adam(module.parameters(), lr=rate, **ADAM))
            for name, module, rate in (("D", d, lr[1]), ("G", g, lr[0]))
        ]
        seen, cast = 0, functools.partial(torch.autocast, self.device.type, torch.bfloat16)
        for image, captions in loader:
            z = self._latents()
            for name, module, adam in phases:
                if self.given:
                    self._left = self._tensor(f"noise_{name.lower()}")
                module.requires_grad_(True)
                self.loop.partial_freeze(types.SimpleNamespace(name=name, module=module))
                with cast() if self.cast else contextlib.nullcontext(), self._given_noise():
                    losses.accumulate_gradients(name, image, captions, z[name], seen)
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
        g, count = self.nets["g"].eval(), len(rows["tokens"])
        if self.given:
            z, words = (torch.from_numpy(rows[k]).to(self.device) for k in ("z", "sentence"))
            words = torch.nn.functional.normalize(words, dim=-1)
        else:
            z = torch.randn(count, self.size["z_dim"], device=self.device)
            words = [CAPTION] * count
        image = g(z, words, noise_mode="const")
        g.train()
        return tensors.bytes_of(image)


def narrow_clip(open_clip, size: dict) -> torch.nn.Module:
    """A random CLIP of the package's classes, whose text tower nobody asks."""
    of = size["clip"]
    sees = {
        "image_size": of["resolution"],
        "patch_size": of["patch"],
        "width": of["width"],
        "layers": of["layers"],
        "head_width": of["width"] // of["heads"],
        "mlp_ratio": of["mlp_ratio"],
    }
    # The official code takes the width of the text tower for that of its sentences.
    reads = {"width": size["sentence"], "heads": 1, "layers": 1}
    return open_clip.CLIP(size["sentence"], sees, reads, quick_gelu=True)
