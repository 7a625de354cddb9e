"""dougsouza/efficient-t2i: `Trainer.run` as it is, without its files."""

import importlib
import sys
import types
from pathlib import Path

import numpy as np
import torch

from peers import checkout, tensors
from peers.talk import PeerError

NEVER = 10**9


class Souza:
    """The official networks, losses, optimisers and loop.

    Attributes:
      nets: {the library's name: module}.
      skipped: beginnings of keys that are no network's of ours.
      precision: what is computed in.
    """

    skipped = ()

    def __init__(self, root: Path, size: dict, device: torch.device, *, amp: bool, given: bool):
        """`given`: sentences and latents come with the rows, and losses are noted."""
        if amp or not given:
            raise PeerError("souza: is compared by parity.py, in float32")
        checkout.needed("souza", "torchvision")
        sys.path.insert(0, str(root))
        self.size, self.device, self.precision = size, device, "float32"
        self._rows, self._queue, self._noted = {}, [], {}
        models = importlib.import_module("models")
        self.trainer = importlib.import_module("trainer")
        start = importlib.import_module("ganlib.weight_init").get_initializer("orthogonal")
        common = {"embedding_size": size["sentence"]}
        self.nets = {
            "g": models.biggan_deepG(ngf=size["g_base"], z_dim=size["z_dim"], **common),
            "d": models.biggan_deepD(ndf=size["d_base"], **common),
        }
        self.nets = {name: net.apply(start).to(device) for name, net in self.nets.items()}
        self.loss = self._heard(
            importlib.import_module("ganlib.losses").get_loss("hingegan", device)
        )

    def _heard(self, loss):
        """Losses that are noted."""

        def ears(name: str):
            plain = getattr(loss, f"loss_{name}")

            def run(*args):
                out = plain(*args)
                self._noted[name] = float(out[0])
                return out

            setattr(loss, f"loss_{name}", run)

        for name in ("d_fake", "d_real", "g"):
            ears(name)
        return loss

    def _tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self._rows[name]).to(self.device)

    def feed(self, rows: tensors.Rows):
        """A batch as the loop reads it."""
        self._rows = rows
        self._noted.clear()
        self._queue = [self._tensor("z"), self._tensor("z_g")]
        return tensors.pictures(rows, self.device), self._tensor("sentence")

    def losses(self) -> dict[str, float]:
        """Of the last step."""
        real, fake = (self._noted[f"d_{name}"] for name in ("real", "fake"))
        return {"d": real + fake, "real": real, "fake": fake, "g": self._noted["g"]}

    def _latents(self, count: int, width: int) -> torch.Tensor:
        """What the loop draws: first of all latents to look at, then those that it is given."""
        return self._queue.pop(0) if self._queue else torch.zeros(count, width)

    def train(self, loader) -> None:
        """The official loop, until the loader ends it; optimisers as in its train.py."""
        lr, run = self.size["lr"], object.__new__(self.trainer.Trainer)
        run.netG, run.netD, run.netG_avg = self.nets["g"], self.nets["d"], None
        run.optimizerG, run.optimizerD = (
            torch.optim.Adam(self.nets[net].parameters(), lr=rate, betas=(0.0, 0.999))
            for net, rate in zip("gd", lr, strict=True)
        )
        # The first process of several keeps files and pictures; this one is not the first.
        run.local_rank, run.device, run.config = 1, self.device, types.SimpleNamespace(fp16=False)
        run.loss, run.sampler_fn, run.z_dim = self.loss, self._latents, self.size["z_dim"]
        sentence = np.zeros((1, self.size["sentence"]), np.float32)
        run.dataset = types.SimpleNamespace(embeddings=[sentence])
        run.data_loader, run.d_steps, run.n_samples = loader, 1, 1
        run.init_iter, run.n_epochs = 0, 1
        run.log_step = run.save_sample_step = run.save_checkpoint_ep = NEVER
        run.run()

    @torch.no_grad()
    def draw(self, rows: tensors.Rows) -> np.ndarray:
        """Pictures uint8 [n, H, W, 3]."""
        g = self.nets["g"].eval()
        z, sentence = (torch.from_numpy(rows[k]).to(self.device) for k in ("z", "sentence"))
        image = g(z, sentence)
        g.train()
        return tensors.bytes_of(image)
