"""What is set for XLA and the runtimes below jax: one table, by platform, a reason with each row.

They read the environment when a backend starts; `apply` writes it before. A setting of the user's
stays as it is, and JAXT2I_FLAGS=off leaves the whole environment alone.

The table is short on purpose. A flag that a compiler does not know ends the program, so each has to
earn its place by a measurement, or by a failure without it. For TPUs there is none: with libtpu
0.0.52 a step for v5e:4x4 compiles to the same program with and without latency-hiding scheduling
and the asynchronous fusion of all-gathers (both are the default), and asynchronous all-reduces,
which are not, wait for a measurement on chips. GPUs run their collectives asynchronously by
default. What is tried by hand goes into XLA_FLAGS or LIBTPU_INIT_ARGS.
"""

import dataclasses
import glob
import importlib.util
import os
import re
from collections.abc import Iterator, MutableMapping

OFF = "JAXT2I_FLAGS"


@dataclasses.dataclass(frozen=True)
class Flag:
    """One row.

    Attributes:
      where: what must be here: "cpu" (nothing else computes), "gpu", "several gpus", or "simulated"
        (CPU devices that stand for several accelerators, in one process or in several).
      variable: the environment variable.
      name: the flag in it; empty where the variable is the setting.
      value: what it is set to.
      reason: why.
      instead: variables that mean the same; where one is set, this row is not.
    """

    where: str
    variable: str
    name: str
    value: str
    reason: str
    instead: tuple[str, ...] = ()

    def given(self, environment: MutableMapping[str, str]) -> bool:
        """Whether the user has set it."""
        if any(environment.get(other) for other in self.instead):
            return True
        said = environment.get(self.variable, "")
        return bool(re.search(rf"--{self.name}(=|\s|$)", said) if self.name else said)

    def write(self, environment: MutableMapping[str, str]) -> None:
        """Sets it, behind what is there."""
        said = f"--{self.name}={self.value}" if self.name else self.value
        environment[self.variable] = f"{environment.get(self.variable, '')} {said}".strip()


TABLE = (
    Flag(
        "cpu",
        "XLA_FLAGS",
        "xla_cpu_experimental_ynn_fusion_type",
        "-individual_convolution",
        "the library that XLA gives convolutions to uses one core, and a fifth of it without zeros "
        "at the borders; XLA's own use all (benchmarks/results/conv_library_cpu.json)",
    ),
    Flag(
        "several gpus",
        "XLA_FLAGS",
        "xla_gpu_enable_latency_hiding_scheduler",
        "true",
        "overlaps the gradients' all-reduce with the backward pass; NVIDIA's images set it alone",
    ),
    Flag(
        "gpu",
        "XLA_CLIENT_MEM_FRACTION",
        "",
        "0.9",
        "jax takes three quarters of the memory; nothing else runs on the GPU that trains",
        ("XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_PREALLOCATE"),
    ),
    Flag(
        "simulated",
        "PJRT_NPROC",
        "",
        "64",
        "a collective holds a thread until all its devices have joined, and those that do not "
        "depend on one another run at once: a pool of one thread a device can stand still",
    ),
    Flag(
        "simulated",
        "XLA_FLAGS",
        "xla_cpu_collective_call_warn_stuck_timeout_seconds",
        "120",
        "simulated devices share few cores: on a busy machine they keep each other waiting",
    ),
    Flag(
        "simulated",
        "XLA_FLAGS",
        "xla_cpu_collective_call_terminate_timeout_seconds",
        "600",
        "the same; XLA ends the program after 40 seconds, which a busy machine can exceed",
    ),
)


def apply(
    environment: MutableMapping[str, str] = os.environ, several: bool = False, only: str = ""
) -> list[Flag]:
    """Sets the rows that are for this machine; before jax starts its backends.

    Args:
      environment: where they are set.
      several: whether other processes train with this one.
      only: rows of this `Flag.where` alone: somebody else's process, in which we only draw, keeps
        its memory as it wants it.

    Returns:
      The rows that were set.
    """
    if environment.get(OFF, "").lower() in ("off", "0", "false", "no"):
        return []
    here = {place for place in places(environment, several) if only in ("", place)}
    new = [flag for flag in TABLE if flag.where in here and not flag.given(environment)]
    for flag in new:
        flag.write(environment)
    return new


def places(environment: MutableMapping[str, str], several: bool) -> Iterator[str]:
    """What of `Flag.where` is here, from files and variables alone: jax must not be asked yet."""
    platforms = [p for p in environment.get("JAX_PLATFORMS", "").split(",") if p]
    gpus = len(glob.glob("/dev/nvidia[0-9]*"))
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        gpus = min(gpus, len([number for number in visible.split(",") if number]))
    if gpus and (not platforms or {"gpu", "cuda"} & set(platforms)):
        yield "gpu"
        if gpus > 1 or several:
            yield "several gpus"
    # A TPU's compiler reads the same variable, and may not know what a CPU's does; whoever asks for
    # the CPU by name loads none.
    tpus = importlib.util.find_spec("libtpu") or environment.get("TPU_LIBRARY_PATH")
    if platforms == ["cpu"] or not (platforms or gpus or tpus):
        yield "cpu"
    count = r"--xla_force_host_platform_device_count=(\d+)"
    counts = [*re.findall(count, environment.get("XLA_FLAGS", "")), 1]
    devices = max(int(counts[0]), int(environment.get("JAX_NUM_CPU_DEVICES", 1)))
    if devices > 1 or (several and platforms == ["cpu"]):
        yield "simulated"
