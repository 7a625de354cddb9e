"""Rules for where parameters are kept: which arrays are split, and over which axis of the mesh.

A rule is a pair (regular expression on the parameter's path, tactic); the first that matches
decides.
"""

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

from jaxt2i.config import ConfigError
from jaxt2i.engine import mesh as meshes
from jaxt2i.engine.mesh import Layout
from jaxt2i.engine.method import Tree
from jaxt2i.nn.optim import path_name
from jaxt2i.run import flags


def layout(mesh: Mesh, rules: Sequence[tuple[str, str]] = (), min_mb: float = 4.0) -> Layout:
    """A mesh with rules; arguments as for `tree_specs`."""
    return Layout(mesh, functools.partial(tree_specs, mesh, rules=rules, min_mb=min_mb))


def of_devices(device: Any = None) -> Layout:
    """Weights whole on each of some devices, rows split over them.

    Where a CPU alone computes, `jaxt2i.run.flags` is applied first; it counts if JAX has not
    computed yet.

    Args:
      device: None: all devices of this process; "cpu", "gpu" or "tpu", also as "gpu:1"; a device of
        JAX or several; a mesh with the axes `mesh.AXES`; a `Layout`, which stays itself.

    Raises:
      ConfigError: where there is no such device, or a mesh has other axes.
    """
    flags.apply(only="cpu")
    if isinstance(device, Layout):
        return device
    if isinstance(device, Mesh):
        if device.axis_names != meshes.AXES:
            raise ConfigError(
                f"device: a mesh with the axes {device.axis_names}; expected {meshes.AXES}, as "
                "jaxt2i.engine.mesh.make gives"
            )
        return Layout(device)
    if isinstance(device, str):
        kind, colon, number = device.partition(":")
        try:
            found = jax.local_devices(backend=kind)
            device = found[int(number)] if colon else found
        except (RuntimeError, ValueError, IndexError):
            there = ", ".join(f"{d.platform}:{i}" for i, d in enumerate(jax.local_devices()))
            raise ConfigError(
                f"device={device!r}: no such device here; there are {there}"
            ) from None
    devices = jax.local_devices() if device is None else device
    devices = list(devices) if isinstance(devices, Sequence) else [devices]
    return Layout(meshes.make(-1, 1, 1, devices))


def replicate(shape: tuple[int, ...], mesh: Mesh, min_bytes: int) -> PartitionSpec:
    """Tactic: a copy everywhere."""
    return PartitionSpec()


def largest_axis(axis: str) -> Callable[[tuple[int, ...], Mesh, int], PartitionSpec]:
    """Tactic: split the largest divisible axis over `axis`; small arrays stay whole.

    Gathering a small array costs more in latency than its memory is worth, hence the threshold.
    """

    def tactic(shape, mesh, min_bytes):
        size = mesh.shape[axis]
        able = [i for i, n in enumerate(shape) if n % size == 0]
        if size == 1 or not able or math.prod(shape) * 4 < min_bytes:
            return PartitionSpec()
        best = max(able, key=lambda i: (shape[i], i))
        return PartitionSpec(*(axis if i == best else None for i in range(len(shape))))

    return tactic


def last_axis(shape: tuple[int, ...], mesh: Mesh, min_bytes: int) -> PartitionSpec:
    """Tactic: split the output channels over `tensor`."""
    if not shape or shape[-1] % mesh.shape["tensor"] or mesh.shape["tensor"] == 1:
        return PartitionSpec()
    return PartitionSpec(*(None,) * (len(shape) - 1), "tensor")


TACTICS = {"replicate": replicate, "fsdp": largest_axis("fsdp"), "tensor": last_axis}


def tree_specs(
    mesh: Mesh, tree: Tree, rules: Sequence[tuple[str, str]], min_mb: float = 4.0
) -> Tree:
    """A PartitionSpec for every leaf.

    Args:
      mesh: the mesh.
      tree: arrays or ShapeDtypeStructs.
      rules: (regular expression, tactic name), first match wins; no match is "replicate".
      min_mb: arrays below this many MiB (as float32) are never split by "fsdp".

    Raises:
      ConfigError: for a tactic that does not exist.
    """
    for pattern, tactic in rules:
        if tactic not in TACTICS:
            raise ConfigError(
                f"config.sharding: {pattern!r} asks for the tactic {tactic!r}; "
                f"known: {', '.join(TACTICS)}"
            )
    compiled = [(re.compile(pattern), TACTICS[tactic]) for pattern, tactic in rules]

    def place(path, leaf):
        name = path_name(path)
        tactic = next((t for regex, t in compiled if regex.search(name)), replicate)
        return tactic(tuple(leaf.shape), mesh, int(min_mb * 2**20))

    return jax.tree_util.tree_map_with_path(place, tree)


def check_batch(batch_size: int, accumulate: int, mesh: Mesh) -> None:
    """Refuses a batch that cannot be split evenly.

    Raises:
      ConfigError: names the numbers.
    """
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % (shards * accumulate):
        raise ConfigError(
            f"config.batch_size={batch_size} cannot be split over {shards} devices "
            f"(config.mesh.data x config.mesh.fsdp) in {accumulate} parts (config.accumulate); "
            f"make it a multiple of {shards * accumulate}"
        )
