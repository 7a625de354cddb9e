"""Where arrays live: the mesh, the batch, and where parameters are while they are kept and used.

Everything is a global array under one `jit`; there is no per-device code.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxt2i.config import ConfigError
from jaxt2i.engine.method import Batch, Tree

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = AXES[:2]  # over both of them batches are split


def make(data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence | None = None) -> Mesh:
    """A mesh (data, fsdp, tensor) over the devices; one axis may be -1 for the rest.

    Raises:
      ConfigError: when the sizes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = [data, fsdp, tensor]
    known = math.prod(n for n in sizes if n != -1)
    if sizes.count(-1) == 1 and known > 0 and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if math.prod(sizes) != len(devices) or min(sizes) < 1:
        raise ConfigError(
            f"config.mesh is data={data}, fsdp={fsdp}, tensor={tensor}, but there are "
            f"{len(devices)} devices; the three must multiply to that (one may be -1)"
        )
    return Mesh(np.asarray(devices).reshape(sizes), AXES)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where arrays live.

    Attributes:
      mesh: the mesh; batches are split over its "data" and "fsdp" axes together.
      place: tree of arrays or shapes -> tree of PartitionSpec; None: a copy on every device.
    """

    mesh: Mesh
    place: Callable[[Tree], Tree] | None = None

    @property
    def rows(self) -> NamedSharding:
        """Of a batch."""
        return NamedSharding(self.mesh, PartitionSpec(BATCH_AXES))

    @property
    def everywhere(self) -> NamedSharding:
        """One copy on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def parts(self) -> int:
        """Into how many parts a batch is split."""
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    def shardings(self, tree: Tree) -> Tree:
        """A NamedSharding for every array of a state, or of a part of one."""
        if self.place is None:
            return jax.tree.map(lambda _: self.everywhere, tree)
        return jax.tree.map(lambda spec: NamedSharding(self.mesh, spec), self.place(tree))

    def abstract(self, tree: Tree, sharding: NamedSharding | None = None) -> Tree:
        """ShapeDtypeStructs of arrays where they live: as `sharding` says, else as weights do."""
        where = self.shardings(tree) if sharding is None else jax.tree.map(lambda _: sharding, tree)
        shape = jax.ShapeDtypeStruct
        return jax.tree.map(lambda x, s: shape(x.shape, x.dtype, sharding=s), tree, where)

    def gather(self, tree: Tree) -> Tree:
        """In a program: weights as networks use them, whole over `fsdp`.

        Without being told so, the compiler lets the split of the weights spread to the activations,
        which are then traded between chips and held many times over.
        """
        if self.mesh.shape["fsdp"] == 1:
            return tree

        def in_use(sharding):
            spec = (None if axis == "fsdp" else axis for axis in sharding.spec)
            return NamedSharding(self.mesh, PartitionSpec(*spec))

        where = jax.tree.map(in_use, self.shardings(tree))
        return jax.lax.with_sharding_constraint(tree, where)

    def scatter(self, tree: Tree) -> Tree:
        """In a program: gradients to where the parameters of the same paths are."""
        if self.mesh.shape["fsdp"] == 1:
            return tree
        return jax.lax.with_sharding_constraint(tree, self.shardings(tree))

    def put_batch(self, batch: dict[str, np.ndarray]) -> Batch:
        """This process's rows to a global batch on the devices."""
        place = jax.make_array_from_process_local_data
        return {key: place(self.rows, np.asarray(rows)) for key, rows in batch.items()}

    def put_all(self, tree: Tree, sharding: NamedSharding) -> Tree:
        """Host arrays that every process has whole, to the devices."""
        if not self.mesh.is_multi_process:
            return jax.device_put(tree, sharding)
        place = jax.make_array_from_callback
        return jax.tree.map(lambda x: place(x.shape, sharding, lambda index: x[index]), tree)
