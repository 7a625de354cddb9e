"""Accelerators as their makers describe them: what jax calls them, their rates, their networks.

Every number is a datasheet's; nothing here was measured.
"""

import dataclasses
import math
import re

import jax

from jaxt2i.engine.method import ConfigError

GIB = 2**30
V5E = "https://docs.cloud.google.com/tpu/docs/v5e"
V5P = "https://docs.cloud.google.com/tpu/docs/v5p-training"
V6E = "https://docs.cloud.google.com/tpu/docs/v6e"
NVIDIA = "https://www.nvidia.com/en-us/data-center/"
# Dense bfloat16 FLOP/s of one chip.
PEAK_FLOPS = {
    "v4": 275e12,
    "v5e": 197e12,
    "v5p": 459e12,
    "v6e": 918e12,
    "a100": 312e12,
    "h100": 989e12,
    "h200": 989e12,
}
KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "NVIDIA A100-SXM4-40GB": "a100",
    "NVIDIA A100-SXM4-80GB": "a100",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h200",
}


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator and the networks around it.

    Attributes:
      name: as in a topology's name.
      platform: "tpu" or "gpu".
      hbm: bytes that a program may use; for TPUs what their compiler grants.
      hbm_rate: bytes/s of its memory.
      link_rate: bytes/s of one link of the fast network, one way.
      links: links of a chip.
      dims: dimensions of the fast network's torus; 0: a switch that joins all chips of a host.
      inner: most chips that the fast network joins (a slice, or a host of GPUs).
      host: chips of a host.
      outer_rate: bytes/s of a chip's share of the network beyond, one way.
      clock: Hz of the core that the TPU compiler counts cycles for; 0: it counts none.
      source: where the numbers come from.
    """

    name: str
    platform: str
    hbm: float
    hbm_rate: float
    link_rate: float
    links: int
    dims: int
    inner: int
    host: int
    outer_rate: float
    clock: float
    source: str

    @property
    def flops(self) -> float:
        """Dense bfloat16 FLOP/s."""
        return PEAK_FLOPS[self.name]


# TPU links: the sheet's bidirectional bandwidth of a chip, halved, over its ports. Data-centre
# network: a pod's over its chips. GPUs: NVLink one way, and one 400 Gb/s (A100: 200) adapter each.
# Clocks are not on the sheets: the peak over the multiply-adds of the matrix units (128 x 128, or
# 256 x 256 for v6e; four, eight and two of them).
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v5e", "tpu", 15.75 * GIB, 819e9, 50e9, 4, 2, 256, 8, 3.125e9, 1.5e9, V5E),
        Chip("v5p", "tpu", 95.73 * GIB, 2765e9, 100e9, 6, 3, 6144, 4, 6.25e9, 1.75e9, V5P),
        Chip("v6e", "tpu", 31.24 * GIB, 1638e9, 100e9, 4, 2, 256, 8, 12.5e9, 1.75e9, V6E),
        Chip("a100", "gpu", 80e9, 2039e9, 25e9, 12, 0, 8, 8, 25e9, 0.0, NVIDIA + "a100"),
        Chip("h100", "gpu", 80e9, 3350e9, 25e9, 18, 0, 8, 8, 50e9, 0.0, NVIDIA + "h100"),
        Chip("h200", "gpu", 141e9, 4800e9, 25e9, 18, 0, 8, 8, 50e9, 0.0, NVIDIA + "h200"),
    )
}


@dataclasses.dataclass(frozen=True)
class Target:
    """A machine to plan for.

    Attributes:
      chip: what it is made of.
      shape: the torus of a slice, or (chips,) for GPUs.
      slices: so many of them, joined by the data-centre network.
    """

    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def count(self) -> int:
        """Chips in all."""
        return math.prod(self.shape) * self.slices

    @property
    def hosts(self) -> int:
        """Hosts in all."""
        return -(-self.count // self.chip.host)

    def __str__(self):
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"


def target(name: str) -> Target:
    """The machine that a topology's name stands for.

    Args:
      name: CHIP:SHAPE, such as "v5e:16x16", "v5p:2x2x4" or "h100:32".

    Raises:
      ConfigError: says what is wrong and what a name looks like.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
    if not match or match[1] not in CHIPS:
        raise ConfigError(
            f"--topology {name}: expected CHIP:SHAPE with a chip of {', '.join(CHIPS)}, such as "
            "v5e:16x16, v5p:2x2x4 or h100:32"
        )
    chip, shape = CHIPS[match[1]], tuple(map(int, match[2].split("x")))
    if len(shape) != max(chip.dims, 1) or min(shape) < 1:
        raise ConfigError(
            f"--topology {name}: {chip.name} chips form "
            + (f"a {chip.dims}-D torus, such as {example(chip)}" if chip.dims else "one row")
        )
    if chip.dims and math.prod(shape) > chip.inner:
        raise ConfigError(
            f"--topology {name}: {math.prod(shape)} chips; a slice has at most {chip.inner}"
        )
    return Target(chip, shape)


def example(chip: Chip) -> str:
    """A topology's name for a chip."""
    return str(of_size(chip, 16))


def of_size(chip: Chip, count: int) -> Target:
    """The most cubic machine of so many chips, a power of two; slices of the largest size."""
    if not chip.dims:
        return Target(chip, (count,))
    inside = min(count, 2 ** (chip.inner.bit_length() - 1))
    bits = inside.bit_length() - 1
    shape = tuple(2 ** ((bits + i) // chip.dims) for i in range(chip.dims))
    return Target(chip, shape, count // inside)


def wraps(chip: Chip, shape: tuple[int, ...]) -> tuple[bool, ...]:
    """Which dimensions of a slice are closed to rings.

    v5e and v6e close a side of 16, a pod's; v5p closes all sides of slices made of whole cubes of
    4 x 4 x 4.
    """
    if chip.dims == 2:
        return tuple(n == 16 for n in shape)
    return (all(n % 4 == 0 for n in shape),) * chip.dims


def peak_flops(device: jax.Device) -> float | None:
    """Dense bfloat16 FLOP/s of a device; None where its datasheet is not known here."""
    return PEAK_FLOPS.get(KINDS.get(device.device_kind, ""))


def memory(device: jax.Device) -> float | None:
    """Bytes that a program may use on a device; None where neither it nor its datasheet tells."""
    told = (device.memory_stats() or {}).get("bytes_limit")
    chip = CHIPS.get(KINDS.get(device.device_kind, ""))
    return told or (chip.hbm if chip else None)
