"""tobran/GALIP: `lib.modules.train` as it is, around a CLIP ViT-B/32 of random weights."""

import contextlib
import importlib
import sys
import types
from pathlib import Path

import numpy as np
import torch

from peers import checkout, tensors
from peers.talk import PeerError

# OpenAI's ViT-B/32; the official networks write its sizes out.
VIT_B32 = {
    "embed_dim": 512,
    "image_resolution": 224,
    "vision_layers": 12,
    "vision_width": 768,
    "vision_patch_size": 32,
    "transformer_width": 512,
    "transformer_heads": 8,
    "transformer_layers": 12,
}


class Galip:
    """The official networks, optimisers, scalers and loop.

    Attributes:
      nets: {the library's name: module}.
      skipped: beginnings of keys that belong to the frozen CLIP inside a network.
      precision: what is computed in.
    """

    skipped = ("mapping.CLIP_ViT.",)

    def __init__(self, root: Path, size: dict, device: torch.device, *, amp: bool, given: bool):
        if given:
            raise PeerError("galip: its official CLIP is too large for a parity run of minutes")
        checkout.needed("galip", "clip", "torchvision")
        clip = importlib.import_module("clip.model")
        sys.path.insert(0, str(root / "code"))
        self.loop = importlib.import_module("lib.modules")
        galip = importlib.import_module("models.GALIP")
        self.size, self.device, self.amp = size, device, amp
        self._made = tensors.Kept(self._pairs)
        self.own_amp = amp and device.type == "cuda"  # the official one is of CUDA alone
        self.precision = "float32"
        if amp:
            self.precision = "float16 by its own" if self.own_amp else "bfloat16 by autocast"
        sees = clip.CLIP(**VIT_B32, context_length=size["tokens"], vocab_size=size["vocab"])
        if self.own_amp:  # as clip.load gives it on a GPU
            clip.convert_weights(sees)
        sees = tensors.frozen(sees.to(device))
        self.image = tensors.frozen(galip.CLIP_IMG_ENCODER(sees))
        self.text = tensors.frozen(galip.CLIP_TXT_ENCODER(sees))
        base, width, mixed = size["base"], size["sentence"], self.own_amp
        self.nets = {
            "g": galip.NetG(base, size["z_dim"], width, size["real"], 3, mixed, sees).to(device),
            "d": galip.NetD(base, size["real"], 3, mixed).to(device),
            "c": galip.NetC(base, width, mixed).to(device),
        }

    def feed(self, rows: tensors.Rows):
        """A batch as the loop reads it."""
        image, tokens = self._made(rows)
        names = [""] * len(tokens)
        # The loop turns gradients of its pictures on.
        return image.clone(), names, tokens, names

    def _pairs(self, rows: tensors.Rows) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = torch.from_numpy(rows["tokens"].astype(np.int64))
        return tensors.pictures(rows, torch.device("cpu")), tokens

    def train(self, loader) -> None:
        """The official loop, until the loader ends it; optimisers as in its train.py and yml."""
        adam = {"betas": (0.0, 0.9)}
        parts = [*self.nets["d"].parameters(), *self.nets["c"].parameters()]
        d = torch.optim.Adam(parts, lr=4e-4, **adam)
        g = torch.optim.Adam(self.nets["g"].parameters(), lr=1e-4, **adam)
        scale = (lambda: torch.cuda.amp.GradScaler(growth_interval=2000)) if self.own_amp else None
        args = types.SimpleNamespace(
            batch_size=self.size["batch"],
            device=self.device,
            current_epoch=1,
            max_epoch=1,
            z_dim=self.size["z_dim"],
            multi_gpus=False,
            mixed_precision=self.own_amp,
            scaler_min=64,
            sim_w=4.0,
        )
        scalers = (scale(), scale()) if scale else (None, None)
        nets = (self.nets[net] for net in ("g", "d", "c"))
        with self._cast():
            self.loop.train(loader, *nets, self.text, self.image, g, d, *scalers, args)

    def _cast(self):
        if self.amp and not self.own_amp:
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    @torch.no_grad()
    def draw(self, rows: tensors.Rows) -> np.ndarray:
        """Pictures uint8 [n, H, W, 3], as its `sample` draws them."""
        g = self.nets["g"].eval()
        _, _, _, sentence, _, _ = self.loop.prepare_data(self.feed(rows), self.text, self.device)
        z = torch.randn(len(sentence), self.size["z_dim"]).to(self.device)
        with self._cast():
            image = g(z, sentence, eval=True)
        g.train()
        return tensors.bytes_of(image)
