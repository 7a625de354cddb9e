"""tobran/DF-GAN: `lib.modules.train` as it is, around the networks of `models`."""

import contextlib
import importlib
import sys
import types
from pathlib import Path

import numpy as np
import torch

from peers import checkout, ears, tensors


class DfGan:
    """The official networks, optimisers and loop.

    Attributes:
      nets: {the library's name: module}.
      skipped: beginnings of keys that are no network's of ours.
      precision: what is computed in.
    """

    skipped = ()

    def __init__(self, root: Path, size: dict, device: torch.device, *, amp: bool, given: bool):
        """`given`: sentences and latents come with the rows, and losses are noted."""
        if not given:
            checkout.needed("df_gan", "scipy")  # draws the truncated latents of a sample
        sys.path.insert(0, str(root / "code"))
        gan = importlib.import_module("models.GAN")
        self.loop = importlib.import_module("lib.modules")
        self.size, self.device, self.given, self.amp = size, device, given, amp
        self.precision = "bfloat16 by autocast" if amp else "float32"
        sides = size["base"], size["resolution"]
        self.nets = {
            "g": gan.NetG(sides[0], size["z_dim"], size["sentence"], sides[1], 3),
            "d": gan.NetD(*sides, 3),
            "c": gan.NetC(sides[0], size["sentence"]),
        }
        self.nets = {net: module.to(device) for net, module in self.nets.items()}
        self.text = None if given else self._text()
        self._rows, self._noted = {}, {}
        host = torch.device("cpu")
        self._made = tensors.Kept(lambda x: (tensors.pictures(x, host), *tensors.words(x)))
        if given:
            self._give()

    def _text(self) -> torch.nn.Module:
        damsm = importlib.import_module("models.DAMSM")
        encoder = damsm.RNN_ENCODER(self.size["vocab"], nhidden=self.size["sentence"])
        return tensors.frozen(encoder.to(self.device))

    def _give(self) -> None:
        """Puts given sentences and latents into the loop, and ears on its losses."""
        loop = self.loop
        words = torch.zeros(self.size["batch"], 1, device=self.device)  # DF-GAN reads none
        loop.prepare_data = lambda data, _: (data, self._tensor("sentence"), words.clone(), [])
        self._noted = ears.one_way(loop, self.nets["c"], "MA_GP")

    def _tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self._rows[name]).to(self.device)

    def feed(self, rows: tensors.Rows):
        """A batch as the loop reads it."""
        self._rows = rows
        self._noted.clear()
        if self.given:
            return tensors.pictures(rows, self.device)
        image, tokens, lengths = self._made(rows)
        # The loop turns gradients of its pictures on.
        return image.clone(), tokens, lengths, [""] * len(image)

    def losses(self) -> dict[str, float]:
        """Of the last step."""
        out = ears.summed(self._noted)
        return out | {"g": out.pop("adversarial")}

    def train(self, loader) -> None:
        """The official loop, until the loader ends it; optimisers as in its train.py."""
        lr, size = self.size.get("lr", (1e-4, 4e-4)), self.size
        parts = [*self.nets["d"].parameters(), *self.nets["c"].parameters()]
        adam = {"betas": (0.0, 0.9)}
        g = torch.optim.Adam(self.nets["g"].parameters(), lr=lr[0], **adam)
        d = torch.optim.Adam(parts, lr=lr[1], **adam)
        args = types.SimpleNamespace(
            batch_size=size["batch"],
            device=self.device,
            current_epoch=1,
            max_epoch=1,
            z_dim=size["z_dim"],
            multi_gpus=False,
        )
        nets = (self.nets[net] for net in ("g", "d", "c"))
        nothing = contextlib.nullcontext()
        cast = torch.autocast(self.device.type, torch.bfloat16) if self.amp else nothing
        z = {"randn": lambda *_, **__: self._tensor("z")} if self.given else {}
        with cast, tensors.replaced(torch, **z):
            self.loop.train(loader, *nets, self.text, g, d, args)

    @torch.no_grad()
    def draw(self, rows: tensors.Rows) -> np.ndarray:
        """Pictures uint8 [n, H, W, 3], as its `sample` draws them."""
        g = self.nets["g"].eval()
        if self.given:
            z, sentence = (torch.from_numpy(rows[k]).to(self.device) for k in ("z", "sentence"))
        else:
            _, sentence, _, _ = self.loop.prepare_data(self.feed(rows), self.text)
            z = self.loop.truncated_noise(len(rows["tokens"]), self.size["z_dim"], 0.88)
            z = torch.tensor(z, dtype=torch.float).to(self.device)
        image = g(z, sentence)
        g.train()
        return tensors.bytes_of(image)
