"""Processes that train as one: how they find each other, and how they end when one is lost.

A process that has lost another cannot go on: it waits for a message that never comes. jax's own
service notices and aborts it, with words that name neither the machine nor the remedy. So every
process here gives signs of life; the first one watches them, tells the others who is lost, and all
end with the same sentence. jax's service stays behind as the safety net.
"""

import contextlib
import dataclasses
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator

import jax

# These have no public names yet; orbax and flax reach for the same client.
from jax._src import clusters, distributed
from jax._src.clusters import cloud_tpu_cluster

SIGN_SECONDS = 1.0
# Without a sign for so long, a process is lost; sooner where another has already failed, as
# processes do whose messages go unanswered. Tracing and compiling leave threads their turns.
SILENT_SECONDS = 30.0
FAILED_SECONDS = 10.0
# jax's own service looks this often, and acts after half of it to the whole.
HEARTBEAT_SECONDS = 80
METADATA_SERVER = "169.254.169.254"
ROOM = "jaxt2i/signs/"
VERDICT = "jaxt2i/verdict"
REMEDY = "Start all processes again: the same command resumes from the newest checkpoint"


def expected() -> bool:
    """Whether this process is one of several, as far as its environment says.

    The places where jax looks by itself are asked: Open MPI, SLURM, TPU slices of GKE and of plain
    TPU VMs. Only a machine with TPU chips is asked over the network, where the metadata server is
    part of the machine; Kubernetes without TPUs must set the JAX_* variables.
    """
    if os.environ.get("JAX_COORDINATOR_ADDRESS"):
        return True
    for cluster in (clusters.OmpiCluster, clusters.SlurmCluster):
        if cluster.is_env_present():
            return cluster.get_process_count() > 1
    if "tpu" not in (os.environ.get("JAX_PLATFORMS") or "tpu"):
        return False
    if clusters.GkeTpuCluster.is_env_present():
        slices = int(os.environ.get("MEGASCALE_NUM_SLICES", 1))
        return slices > 1 or len(clusters.GkeTpuCluster._get_worker_list_in_slice()) > 1
    return tpu_vm() and clusters.GceTpuCluster.get_process_count() > 1


def tpu_vm() -> bool:
    """Whether this machine has TPU chips and a metadata server that knows them."""
    if not cloud_tpu_cluster.running_in_cloud_tpu_vm or "TPU_SKIP_MDS_QUERY" in os.environ:
        return False
    server = os.environ.get("GCE_METADATA_IP", METADATA_SERVER)
    try:
        socket.create_connection((server, 80), timeout=1).close()
    except OSError:
        return False
    return clusters.GceTpuCluster.is_env_present()


def join() -> None:
    """Joins the other processes; returns when all are there."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", True)
    # jax finds its place in a pod or a SLURM job by itself, but reads the address alone.
    named = {"num_processes": "JAX_NUM_PROCESSES", "process_id": "JAX_PROCESS_ID"}
    given = {k: int(os.environ[v]) for k, v in named.items() if v in os.environ}
    jax.distributed.initialize(
        os.environ.get("JAX_COORDINATOR_ADDRESS"),
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        **given,
    )


@dataclasses.dataclass(frozen=True)
class Sign:
    """A process as the others last heard of it.

    Attributes:
      who: its number, machine and process id.
      seconds: since it last said something new.
      error: what it failed with, empty while it lives.
    """

    who: str
    seconds: float
    error: str = ""


def verdict(signs: Iterable[Sign]) -> str:
    """What to say of processes of which one is lost; empty while all is well.

    A process that went silent comes before those that failed: it made them fail.
    """
    signs = list(signs)
    failed = [s for s in signs if s.error]
    patience = FAILED_SECONDS if failed else SILENT_SECONDS
    silent = [s for s in signs if not s.error and s.seconds > patience]
    if silent:
        names = ", ".join(s.who for s in silent)
        return (
            f"no sign of life for {silent[0].seconds:.0f} s from {names}: killed, or its machine "
            f"or network is lost. {REMEDY}"
        )
    if failed and (len(failed) == len(signs) or max(s.seconds for s in failed) > FAILED_SECONDS):
        return "; ".join(f"{s.who} failed: {s.error}" for s in failed)
    return ""


class Watch:
    """A thread that gives signs of life, hears of the lost, and then ends this process.

    Args:
      client: jax's client of the service that process 0 runs.
      number: this process's number.
    """

    def __init__(self, client, number: int):
        self._client, self._number = client, number
        self._who = f"process {number} ({socket.gethostname()}, pid {os.getpid()})"
        self._heard: dict[str, tuple[str, float]] = {}
        self._signs, self._error, self._first = 0, "", "process 0"
        self._done = threading.Event()
        self._sign()
        if number:
            self._meet()
        # A daemon: a main thread that hangs must not keep it from ending the process.
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _meet(self) -> None:
        """Learns who process 0 is before any work: once that is gone, nobody can be asked."""
        wait = int(SILENT_SECONDS * 1000)
        # The thread's first turn tells of a process 0 that is gone already.
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._first = json.loads(self._client.blocking_key_value_get(f"{ROOM}0", wait))["who"]

    def leave(self) -> None:
        """The run has ended well: this process is no longer waited for, and waits for no one."""
        self._done.set()
        # A thread inside the client would bring the interpreter's end down.
        self._thread.join()
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # the others may be gone by now
            self._sign(left=True)

    def fail(self, error: str) -> None:
        """Tells the others, and waits for what all will say; does not return."""
        try:
            self._sign(error=error)
        except jax.errors.JaxRuntimeError:
            self._end(self._gone())
        time.sleep(SILENT_SECONDS + FAILED_SECONDS)
        os._exit(1)

    def _sign(self, error: str = "", left: bool = False) -> None:
        """Says something new, except after an error: that is the last word."""
        self._signs += 1
        self._error = error = error or self._error
        sign = {"who": self._who, "sign": 0 if error else self._signs, "error": error, "left": left}
        self._client.key_value_set(f"{ROOM}{self._number}", json.dumps(sign), allow_overwrite=True)

    def _work(self) -> None:
        turn = self._look if self._number == 0 else self._listen
        while not self._done.is_set():
            try:
                self._sign()
                said = turn()
            except jax.errors.JaxRuntimeError:
                said = self._gone()
            if said and not self._done.is_set():
                self._end(said)

    def _look(self) -> str:
        """Process 0's turn: whether one of them is lost."""
        self._done.wait(SIGN_SECONDS)
        said = verdict(self._signs_of_life())
        if said:
            self._client.key_value_set(VERDICT, said)
            time.sleep(2 * SIGN_SECONDS)  # until the others have heard
        return said

    def _signs_of_life(self) -> Iterator[Sign]:
        now = time.monotonic()
        for key, said in self._client.key_value_dir_get(ROOM):
            if self._heard.get(key, ("", 0.0))[0] != said:
                self._heard[key] = (said, now)
            sign = json.loads(said)
            if not sign["left"]:
                yield Sign(sign["who"], now - self._heard[key][1], sign["error"])

    def _listen(self) -> str:
        """The others' turn: what process 0 says. They hear of its own end in the same moment."""
        try:
            return self._client.blocking_key_value_get(VERDICT, int(SIGN_SECONDS * 1000))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
            return ""

    def _gone(self) -> str:
        return f"{self._first} is gone: killed, or its machine or network is lost. {REMEDY}"

    def _end(self, said: str) -> None:
        print(f"\nerror: {said}", file=sys.stderr, flush=True)
        os._exit(1)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Around the work of a process that may be one of several: no one waits for the lost."""
    if not jax.distributed.is_initialized():
        yield
        return
    watch = Watch(distributed.global_state.client, distributed.global_state.process_id)
    try:
        yield
    except BaseException as error:
        if not isinstance(error, SystemExit) or error.code:
            known = isinstance(error, SystemExit)
            print(error.code if known else traceback.format_exc(), file=sys.stderr, flush=True)
            watch.fail(str(error).strip().partition("\n")[0] or type(error).__name__)
        watch.leave()
        raise
    watch.leave()
