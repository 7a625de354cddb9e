"""What a command computes on, said before it computes."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import jax
import psutil

from jaxt2i.run import chips

# What the kernel shows of accelerators, and how JAX is installed for them.
SIGNS = {
    "an NVIDIA GPU": (("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg"), "cuda13"),
    "a TPU": (("/dev/accel0", "/dev/vfio/0"), "tpu"),
}


def describe() -> str:
    """Backend, devices, processes, memory and precision of products, in one line."""
    devices, local = jax.devices(), jax.local_devices()
    memory = chips.memory(local[0])
    on = f"{memory / 2**30:,.0f} GiB each" if memory else "memory of the host"
    host = psutil.virtual_memory()
    products = jax.config.jax_default_matmul_precision or "default"
    return (
        f"jax {jax.__version__} on {jax.default_backend()}: {len(devices)} x "
        f"{devices[0].device_kind} ({on}), {jax.process_count()} process(es) of {len(local)} "
        f"device(s); host: {os.cpu_count()} cores, {host.available / 2**30:,.1f} of "
        f"{host.total / 2**30:,.1f} GiB free; products: {products}"
    )


def unused(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> str:
    """What to say where an accelerator is present and JAX does not use it; "": nothing.

    Args:
      root: where the devices' files are looked for.
      environ: environment variables.
    """
    if jax.default_backend() != "cpu":
        return ""
    for name, (files, extra) in SIGNS.items():
        found = next((f for f in files if (root / f.lstrip("/")).exists()), "")
        if extra == "cuda13" and not found:
            found = shutil.which("nvidia-smi", path=environ.get("PATH")) or ""
        if not found:
            continue
        asked = environ.get("JAX_PLATFORMS", "")
        if asked and extra[:3] not in asked.replace("gpu", "cuda"):
            fix = f"JAX_PLATFORMS={asked} asks for that; unset it to use the accelerator"
        else:
            fix = f"install JAX for it: pip install -U 'jax[{extra}]'"
        return f"WARNING: {name} is here ({found}), and JAX computes on the CPU. {fix}"
    return ""


def say() -> None:
    """Prints both to stderr, from the first process."""
    if jax.process_index() == 0:
        print(*filter(None, (describe(), unused())), sep="\n", file=sys.stderr, flush=True)
