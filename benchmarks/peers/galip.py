"""tobran/GALIP: `lib.modules.train` as it is, around a CLIP image tower of random weights.

The checkout writes out the tower's 12 blocks of 768 channels and its 7 x 7 patches; it takes a
tower with any hidden width in its blocks, and any text tower.
"""

import contextlib
import importlib
import sys
import types
from pathlib import Path

import numpy as np
import torch

from peers import checkout, ears, tensors

# Weight of the similarity, as in its yml files.
SIMILARITY = 4.0


class Galip:
    """The official networks, optimisers, scalers and loop.

    Attributes:
      nets: {the library's name: module}.
      skipped: beginnings of keys that belong to the frozen CLIP inside a network.
      precision: what is computed in.
    """

    skipped = ("mapping.CLIP_ViT.",)

    def __init__(self, root: Path, size: dict, device: torch.device, *, amp: bool, given: bool):
        """`given`: sentences and latents come with the rows, and losses are noted."""
        checkout.needed("galip", "clip", "torchvision")
        clip = importlib.import_module("clip.model")
        sys.path.insert(0, str(root / "code"))
        self.loop = importlib.import_module("lib.modules")
        galip = importlib.import_module("models.GALIP")
        self.size, self.device, self.given, self.amp = size, device, given, amp
        self._made, self._rows, self._noted = tensors.Kept(self._pairs), {}, {}
        self.own_amp = amp and device.type == "cuda"  # the official one is of CUDA alone
        self.precision = "float32"
        if amp:
            self.precision = "float16 by its own" if self.own_amp else "bfloat16 by autocast"
        sees = self._trunk(clip)
        self.image = tensors.frozen(galip.CLIP_IMG_ENCODER(sees))
        self.text = tensors.frozen(galip.CLIP_TXT_ENCODER(sees))
        base, width, mixed = size["g_base"], size["sentence"], self.own_amp
        self.nets = {
            "g": galip.NetG(base, size["z_dim"], width, size["real"], 3, mixed, sees).to(device),
            "d": galip.NetD(base, size["real"], 3, mixed).to(device),
            "c": galip.NetC(base, width, mixed).to(device),
        }
        if given:
            self.nets["image"] = torch.nn.ModuleDict({"visual": sees.visual})
            self._give()

    def _trunk(self, clip) -> torch.nn.Module:
        """A frozen CLIP of the package's classes, at the job's size."""
        size, trunk = self.size, self.size["clip"]
        text = {"transformer_width": 512, "transformer_heads": 8, "transformer_layers": 12}
        if self.given:  # nobody asks it
            text = {"transformer_width": 64, "transformer_heads": 1, "transformer_layers": 1}
        sees = clip.CLIP(
            embed_dim=size["sentence"],
            image_resolution=trunk["resolution"],
            vision_layers=trunk["layers"],
            vision_width=trunk["width"],
            vision_patch_size=trunk["patch"],
            context_length=size["tokens"],
            vocab_size=size["vocab"],
            **text,
        )
        hidden = int(trunk["width"] * trunk["mlp_ratio"])
        if trunk["mlp_ratio"] != 4:
            for block in sees.visual.transformer.resblocks:
                block.mlp.c_fc = torch.nn.Linear(trunk["width"], hidden)
                block.mlp.c_proj = torch.nn.Linear(hidden, trunk["width"])
        if self.own_amp:  # as clip.load gives it on a GPU
            clip.convert_weights(sees)
        return tensors.frozen(sees.to(self.device))

    def _give(self) -> None:
        """Puts given sentences into the loop, and ears on its losses."""
        words = torch.zeros(self.size["batch"], 1, device=self.device)  # GALIP reads none

        def prepare_data(data, *_):
            return data, [], None, self._tensor("sentence"), words.clone(), []

        self.loop.prepare_data = prepare_data
        self._noted = ears.one_way(self.loop, self.nets["c"], "MA_GP_FP32")

    def _tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self._rows[name]).to(self.device)

    def losses(self) -> dict[str, float]:
        """Of the last step."""
        out = ears.summed(self._noted)
        return out | {"g": out["adversarial"] - SIMILARITY * out["similarity"]}

    def feed(self, rows: tensors.Rows):
        """A batch as the loop reads it."""
        self._rows = rows
        self._noted.clear()
        if self.given:
            return tensors.pictures(rows, self.device)
        image, tokens = self._made(rows)
        names = [""] * len(tokens)
        # The loop turns gradients of its pictures on.
        return image.clone(), names, tokens, names

    def _pairs(self, rows: tensors.Rows) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = torch.from_numpy(rows["tokens"].astype(np.int64))
        return tensors.pictures(rows, torch.device("cpu")), tokens

    def train(self, loader) -> None:
        """The official loop, until the loader ends it; optimisers as in its train.py and yml."""
        adam, lr = {"betas": (0.0, 0.9)}, self.size.get("lr", (1e-4, 4e-4))
        parts = [*self.nets["d"].parameters(), *self.nets["c"].parameters()]
        d = torch.optim.Adam(parts, lr=lr[1], **adam)
        g = torch.optim.Adam(self.nets["g"].parameters(), lr=lr[0], **adam)
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
            sim_w=SIMILARITY,
        )
        scalers = (scale(), scale()) if scale else (None, None)
        nets = (self.nets[net] for net in ("g", "d", "c"))
        with self._cast(), self._heard():
            self.loop.train(loader, *nets, self.text, self.image, g, d, *scalers, args)

    def _cast(self):
        if self.amp and not self.own_amp:
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def _heard(self):
        """While it lasts, the loop's latents are the rows', and its cosines are noted."""
        if not self.given:
            return contextlib.nullcontext()
        cosine = torch.cosine_similarity

        def cosine_similarity(*args, **kw):
            out = cosine(*args, **kw)
            self._noted["similarity"] = out.detach().mean()
            return out

        new = {"randn": lambda *_, **__: self._tensor("z"), "cosine_similarity": cosine_similarity}
        return tensors.replaced(torch, **new)

    @torch.no_grad()
    def draw(self, rows: tensors.Rows) -> np.ndarray:
        """Pictures uint8 [n, H, W, 3], as its `sample` draws them."""
        g = self.nets["g"].eval()
        if self.given:
            z, sentence = (torch.from_numpy(rows[k]).to(self.device) for k in ("z", "sentence"))
        else:
            data = self.feed(rows)
            sentence = self.loop.prepare_data(data, self.text, self.device)[3]
            z = torch.randn(len(sentence), self.size["z_dim"]).to(self.device)
        with self._cast():
            image = g(z, sentence, eval=True)
        g.train()
        return tensors.bytes_of(image)
