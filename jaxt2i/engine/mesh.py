"""Where arrays live: the mesh, the batch, and ordered rules for parameters.

Everything is a global array under one `jit`; there is no per-device code. A rule is a pair
(regular expression on the parameter's path, tactic); the first that matches decides.
"""

import math
import re
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxt2i.engine.method import Batch, ConfigError, Tree
from jaxt2i.nn.optim import path_name

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))


def make(data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence | None = None) -> Mesh:
    """A mesh (data, fsdp, tensor) over the devices; one axis may be -1 for the rest.

    Raises:
      ConfigError: when the sizes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = [data, fsdp, tensor]
    known = math.prod(n for n in sizes if n != -1)
    if sizes.count(-1) == 1 and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if math.prod(sizes) != len(devices) or min(sizes) < 1:
        raise ConfigError(
            f"config.mesh is data={data}, fsdp={fsdp}, tensor={tensor}, but there are "
            f"{len(devices)} devices; the three must multiply to that (one may be -1)"
        )
    return Mesh(np.asarray(devices).reshape(sizes), AXES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches are split over data and fsdp together."""
    return NamedSharding(mesh, BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
    """One copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


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


def tree_shardings(
    mesh: Mesh, tree: Tree, rules: Sequence[tuple[str, str]], min_mb: float = 4.0
) -> Tree:
    """A NamedSharding for every leaf.

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
        return NamedSharding(mesh, tactic(tuple(leaf.shape), mesh, int(min_mb * 2**20)))

    return jax.tree_util.tree_map_with_path(place, tree)


def in_use(sharding: NamedSharding) -> NamedSharding:
    """Where an array is while networks compute with it: whole over `fsdp`.

    Without being told so, the compiler lets the split of the weights spread to the activations,
    which are then traded between chips and held many times over.
    """
    spec = (None if axis == "fsdp" else axis for axis in sharding.spec)
    return NamedSharding(sharding.mesh, PartitionSpec(*spec))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> Batch:
    """This process's rows to a global batch on the devices."""
    sharding = batch_sharding(mesh)
    return {
        key: jax.make_array_from_process_local_data(sharding, np.asarray(rows))
        for key, rows in batch.items()
    }


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
