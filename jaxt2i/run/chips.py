"""The peak rates of accelerators, and what jax calls each of them.

Every number is a datasheet's; nothing here was measured.
"""

import jax

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


def peak_flops(device: jax.Device) -> float | None:
    """Dense bfloat16 FLOP/s of a device; None where its datasheet is not known here."""
    return PEAK_FLOPS.get(KINDS.get(device.device_kind, ""))
