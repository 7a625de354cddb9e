"""Rows of the library's batch schema as official code takes them, and its weights as arrays."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

Rows = Mapping[str, np.ndarray]


def pictures(rows: Rows, device: torch.device) -> torch.Tensor:
    """Pictures uint8 [B, H, W, 3] as float [B, 3, H, W] in [-1, 1]."""
    image = torch.from_numpy(np.ascontiguousarray(rows["image"].transpose(0, 3, 1, 2)))
    return image.to(device, torch.float32) / 127.5 - 1


class Kept:
    """What was made of the last batch: a measurement feeds the same one again and again.

    Official loaders make tensors in processes of their own, beside the step.
    """

    def __init__(self, make: Callable[[Rows], Any]):
        self._make, self._rows, self._made = make, None, None

    def __call__(self, rows: Rows) -> Any:
        if rows is not self._rows:
            self._rows, self._made = rows, self._make(rows)
        return self._made


def words(rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """(word ids [B, T, 1], lengths [B]), as the loaders of AttnGAN's family give them."""
    tokens = torch.from_numpy(rows["tokens"].astype(np.int64))
    return tokens[..., None], torch.from_numpy(rows["token_mask"].sum(1).astype(np.int64))


def bytes_of(image: torch.Tensor) -> np.ndarray:
    """Pictures [B, 3, H, W] in [-1, 1] as uint8 [B, H, W, 3]."""
    image = image.detach().float().clamp(-1, 1).add(1).mul(127.5)
    return image.to("cpu", torch.uint8).numpy().transpose(0, 2, 3, 1)


def state(
    nets: Mapping[str, torch.nn.Module], skipped: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """{"net|key of its state dict": array}, less the keys that begin with one of `skipped`."""
    return {
        f"{net}|{key}": value.detach().cpu().float().numpy()
        for net, module in nets.items()
        for key, value in module.state_dict().items()
        if not key.startswith(skipped)
    }


def count(nets: Mapping[str, torch.nn.Module], skipped: tuple[str, ...] = ()) -> dict[str, int]:
    """{net: how many numbers it has}, without those of `skipped` and running statistics."""
    return {
        net: sum(p.numel() for k, p in module.named_parameters() if not k.startswith(skipped))
        for net, module in nets.items()
    }


def frozen(module: torch.nn.Module) -> torch.nn.Module:
    """A module that nobody trains."""
    return module.eval().requires_grad_(False)


@contextlib.contextmanager
def replaced(owner: Any, **new: Any) -> Iterator[None]:
    """Some attributes of a module or class are others for a while."""
    old = {name: getattr(owner, name) for name in new}
    for name, value in new.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in old.items():
            setattr(owner, name, value)
