"""What is found out before jax starts: the flags of a platform, and whether there is company."""

import os
import socket
import subprocess
import sys

import pytest
from jax._src.clusters import cloud_tpu_cluster

from jaxt2i.run import flags, processes

XLA = [flag for flag in flags.TABLE if flag.variable == "XLA_FLAGS"]
SIMULATED = "--xla_force_host_platform_device_count=8"


def names(rows):
    return {row.name or row.variable for row in rows}


@pytest.fixture
def gpus(monkeypatch):
    """Sets how many GPUs this machine seems to have; TPUs it has none."""
    monkeypatch.setattr(flags.importlib.util, "find_spec", lambda name: None)

    def have(count):
        found = [f"/dev/nvidia{n}" for n in range(count)]
        monkeypatch.setattr(flags.glob, "glob", lambda pattern: found)

    have(0)
    return have


LATENCY, MEMORY = "xla_gpu_enable_latency_hiding_scheduler", "XLA_CLIENT_MEM_FRACTION"
LIBRARY = "xla_cpu_experimental_ynn_fusion_type"


@pytest.mark.parametrize(
    ("count", "environment", "several", "expected"),
    [
        (0, {}, False, {LIBRARY}),
        (0, {"TPU_LIBRARY_PATH": "/opt/libtpu.so"}, False, set()),
        (0, {"JAX_PLATFORMS": "tpu,cpu"}, False, set()),
        (0, {"XLA_FLAGS": f"--{LIBRARY}=-reduce"}, False, set()),
        (1, {}, False, {MEMORY}),
        (1, {}, True, {MEMORY, LATENCY}),
        (8, {}, False, {MEMORY, LATENCY}),
        (8, {"CUDA_VISIBLE_DEVICES": "3"}, False, {MEMORY}),
        (8, {"CUDA_VISIBLE_DEVICES": ""}, False, {LIBRARY}),
        (8, {"JAX_PLATFORMS": "cuda,cpu"}, False, {MEMORY, LATENCY}),
        (8, {"JAX_PLATFORMS": "cpu"}, False, {LIBRARY}),
        (1, {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".5"}, False, set()),
        (8, {"XLA_FLAGS": f"--{LATENCY}=false"}, False, {MEMORY}),
        (8, {"JAXT2I_FLAGS": "off"}, False, set()),
    ],
)
def test_platforms_get_their_rows_and_the_user_is_never_overruled(
    gpus, count, environment, several, expected
):
    gpus(count)
    said = environment.get("XLA_FLAGS", "")
    assert names(flags.apply(environment, several)) == expected
    assert environment.get("XLA_FLAGS", "").startswith(said)
    assert (f"--{LATENCY}=true" in environment.get("XLA_FLAGS", "")) == (LATENCY in expected)
    # Once is enough.
    assert not flags.apply(environment, several)


@pytest.mark.parametrize(
    ("environment", "several", "simulated"),
    [
        ({"XLA_FLAGS": SIMULATED}, False, True),
        ({"JAX_NUM_CPU_DEVICES": "4"}, False, True),
        ({"JAX_PLATFORMS": "cpu"}, True, True),
        ({"JAX_PLATFORMS": "cpu"}, False, False),
        ({"XLA_FLAGS": SIMULATED[:-1] + "1"}, False, False),
        ({}, True, False),
    ],
)
def test_simulated_devices_get_threads_and_patience(gpus, environment, several, simulated):
    found = {row.where for row in flags.apply(environment, several)}
    assert ("simulated" in found) == simulated
    assert environment.get("PJRT_NPROC") == ("64" if simulated else None)
    mine = {"XLA_FLAGS": SIMULATED, "PJRT_NPROC": "9"}
    flags.apply(mine)
    assert mine["PJRT_NPROC"] == "9"


def test_whoever_only_draws_keeps_the_memory_of_the_process_as_it_is(gpus):
    gpus(1)
    environment = {}
    assert not flags.apply(environment, only="cpu")
    assert not environment
    gpus(0)
    assert names(flags.apply(environment, only="cpu")) == {LIBRARY}


def test_convolutions_of_a_cpu_are_xlas_own():
    """In a process of its own: flags are read once."""
    code = (
        "import jax, jax.numpy as jnp\n"
        "from jaxt2i import api\n"
        "api.here()\n"
        "f = lambda x, k: jax.lax.conv_general_dilated("
        "x, k, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))\n"
        "x, k = jnp.ones((4, 64, 64, 32)), jnp.ones((3, 3, 32, 32))\n"
        "print('ynn' in jax.jit(f).lower(x, k).compile().as_text())"
    )
    said = []
    for off in ("", "off"):
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "JAXT2I_FLAGS": off}
        environment.pop("JAX_DISABLE_MOST_OPTIMIZATIONS", None)
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        said.append(done.stdout.strip())
    assert said == ["False", "True"]


def test_the_installed_xla_knows_every_flag_and_they_arrive():
    """An unknown flag would end the program; those of GPUs are in the same list as the CPU's."""
    code = (
        "import os, jax\n"
        "from jaxt2i.run import flags\n"
        "[row.write(os.environ) for row in flags.TABLE]\n"
        "jax.jit(lambda x: x + 1)(1.0).block_until_ready()\n"
        "print(len(os.listdir('/proc/self/task')), os.environ['XLA_FLAGS'])"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": SIMULATED}
    environment.pop("PJRT_NPROC", None)
    known = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    threads, *said = known.stdout.split()
    assert int(threads) > 64
    assert said == [SIMULATED, *(f"--{row.name}={row.value}" for row in XLA)]


@pytest.fixture
def machine(monkeypatch):
    """An environment of its own, where any use of the network fails."""
    for name in list(os.environ):
        if name.startswith(("JAX_", "SLURM_", "OMPI_", "TPU_", "MEGASCALE_", "GCE_")):
            monkeypatch.delenv(name)

    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(cloud_tpu_cluster, "get_metadata", refuse)
    return monkeypatch


SLURM = {
    **{"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "4"},
    **{"SLURM_PROCID": "1", "SLURM_LOCALID": "1"},
}
OMPI = {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:9", "OMPI_COMM_WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("environment", "chips", "expected"),
    [
        ({}, False, False),
        ({"JAX_COORDINATOR_ADDRESS": "h:1"}, False, True),
        (SLURM, False, True),
        ({**SLURM, "SLURM_NTASKS": "1"}, False, False),
        # A shell inside an allocation is no task of it.
        ({"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}, False, False),
        (OMPI, False, True),
        ({**OMPI, "OMPI_COMM_WORLD_SIZE": "1"}, False, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True, True),
        ({"TPU_PROCESS_ADDRESSES": "a:1,b:1"}, True, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, True, False),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "MEGASCALE_NUM_SLICES": "2"}, True, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "JAX_PLATFORMS": "cpu"}, True, False),
        ({"TPU_SKIP_MDS_QUERY": "1"}, True, False),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False, False),
    ],
)
def test_company_is_found_without_asking_the_network(machine, environment, chips, expected):
    machine.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", chips)
    for name, value in environment.items():
        machine.setenv(name, value)
    assert processes.expected() == expected


@pytest.mark.parametrize(
    ("endpoints", "slices", "expected"),
    [("t-0:7:10.0.0.5,t-1:8:10.0.0.6", 1, True), ("t-0", 1, False), ("t-0", 2, True)],
)
def test_a_plain_tpu_vm_asks_its_metadata_server(machine, endpoints, slices, expected):
    answers = {
        "agent-worker-number": "1",
        "worker-network-endpoints": endpoints,
        "tpu-env": f"ZONE: 'z'\nMEGASCALE_NUM_SLICES: '{slices}'",
    }
    machine.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    machine.setattr(cloud_tpu_cluster, "get_metadata", lambda key: (answers[key], 200))
    asked = []
    machine.setattr(
        socket,
        "create_connection",
        lambda place, timeout: asked.append((place, timeout)) or socket.socket(),
    )
    assert processes.expected() == expected
    assert asked == [(("169.254.169.254", 80), 1)]


def test_a_tpu_vm_without_metadata_server_does_not_wait(machine):
    def unreachable(place, timeout):
        raise TimeoutError(f"{place} in {timeout} s")

    machine.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    machine.setattr(socket, "create_connection", unreachable)
    assert not processes.expected()
