"""A process for each side: commands and answers, one JSON line each.

Only one side computes at a time: the other waits for its next line. Nothing here needs PyTorch or
JAX, whose packages may not fit into one environment.
"""

import contextlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
SIDES = {"official": "peers.official", "ours": "peers.ours"}


class PeerError(Exception):
    """What a person can mend, in one sentence."""


class Line:
    """A child's end: what it prints goes to its log, answers to whoever started it."""

    def __init__(self):
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def next(self) -> dict[str, Any]:
        """The next command; {"do": "stop"} where nobody is left to send one."""
        text = sys.stdin.readline()
        return json.loads(text) if text else {"do": "stop"}

    def reply(self, **answer: Any) -> None:
        """Answers the last command."""
        print(json.dumps(answer), file=self._out, flush=True)

    def progress(self, step: int, steps: int, seconds: float) -> None:
        """Says before the answer how far a long command is, after `seconds` of work."""
        each = seconds / step if step else 0.0
        left = (
            f"{each:.2f} s a step, {each * (steps - step) / 60:.0f} min left" if step else "starts"
        )
        self.reply(progress=f"step {step} of {steps}, {left}")


class Child:
    """The parent's end of a side.

    Attributes:
      about: what the side says of itself when it is ready.
    """

    def __init__(self, side: str, job: dict[str, Any], *, python: str, threads: int):
        """Starts a side on as many cores as it has threads, and waits until it is ready.

        Args:
          side: "official" or "ours".
          job: what it is to build, plain data.
          python: the interpreter.
          threads: of its computing; 0: all cores.

        Raises:
          PeerError: says why it could not start.
        """
        env = {**os.environ, "PYTHONUNBUFFERED": "1"}
        paths = [str(HERE), str(HERE.parent), env.get("PYTHONPATH", "")]
        env["PYTHONPATH"] = os.pathsep.join(p for p in paths if p)
        cores = sorted(os.sched_getaffinity(0))[: threads or None]
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            env[name] = str(len(cores))
        # Two processes share an accelerator: none may take most of its memory at the start.
        env.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        self.side = side
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed in `close`
        self._process = subprocess.Popen(
            [python, "-m", SIDES[side]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=HERE.parent,
            env=env,
        )
        self.about = self.ask(**job, cores=cores)

    def ask(self, **command: Any) -> dict[str, Any]:
        """The answer to a command.

        Raises:
          PeerError: where the side says so, or has died.
        """
        try:
            print(json.dumps(command), file=self._process.stdin, flush=True)
            answer = self._next()
            while "progress" in answer:
                print(f"{self.side}: {answer['progress']}", file=sys.stderr)
                answer = self._next()
        except BrokenPipeError:
            answer = {"error": self._last_words()}
        if "error" in answer:
            self.close()
            raise PeerError(answer["error"])
        return answer

    def _next(self) -> dict[str, Any]:
        text = self._process.stdout.readline()
        return json.loads(text) if text else {"error": self._last_words()}

    def _last_words(self) -> str:
        self._process.wait()
        self._log.seek(0)
        lines = [x.strip() for x in self._log if x.strip()] or ["none"]
        # What some frameworks write behind an error is no help.
        errors = [x for x in lines if re.match(r"[\w.]+(Error|Exception)\b", x)]
        how = f"the {self.side} side ended with code {self._process.returncode}"
        return f"{how}; its last words were: {(errors or lines)[-1]}"

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def parts(rows: dict[str, Any], at_once: int) -> list[dict[str, Any]]:
    """Rows in parts of so many; 0: all of them."""
    count = len(rows["z"])
    starts = range(0, count, at_once or count)
    return [{k: x[i : i + (at_once or count)] for k, x in rows.items()} for i in starts]


def pin(cores: list[int]) -> None:
    """Computes on these cores alone; to be called before PyTorch or JAX counts them."""
    os.sched_setaffinity(0, cores)


def forget_peak() -> None:
    """From here on `peak_mib` counts: what compiling took is no part of a step."""
    # On other systems, or where it is not allowed, the peak of the whole process counts.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> int:
    """The most memory that this process held at once, MiB."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) // 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


class Stopwatch:
    """Adds up what is done within it: wall-clock time, and that of this process's threads.

    Attributes:
      seconds, cpu_seconds: so far. On a machine that others use as well, the second says more.
    """

    def __init__(self):
        self.seconds = self.cpu_seconds = 0.0

    def __enter__(self) -> "Stopwatch":
        self._started = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._started[0]
        self.cpu_seconds += time.process_time() - self._started[1]

    def said(self) -> dict[str, float]:
        """As an answer."""
        return {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds}


def seconds_of(function, wait) -> float:
    """Seconds that a call takes until `wait()` says that the device is done."""
    wait()
    started = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - started
