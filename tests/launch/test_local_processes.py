"""launch/local_processes.sh with real processes: they train as one, and none is left behind."""

import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.data import flat
from tests.launch.stubs import ROOT
from tests.quick import QUICK
from tests.run.test_processes import assert_alike

TOY = ("--config", "tests/engine/toy_config.py")
MEMBER = "tests.launch.member"


@pytest.fixture
def start(tmp_path):
    """Starts the launcher; what a failed test leaves behind is ended."""
    started = []

    def call(count, *args, logs=tmp_path / "logs", python=sys.executable, **kw):
        process = subprocess.Popen(
            ["launch/local_processes.sh", str(count), "--logs", str(logs), *map(str, args)],
            cwd=ROOT,
            env={
                # The threads of simulated devices are the program's own affair.
                **{k: v for k, v in os.environ.items() if k != "PJRT_NPROC"},
                **{"PYTHON": str(python), "XLA_FLAGS": QUICK},
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **kw,
        )
        started.append(process)
        return process

    yield call
    for process in started:
        if process.poll() is None:
            family = psutil.Process(process.pid).children(recursive=True)
            for member in (process, *family):
                member.kill()
            process.wait()


def finish(process, code, timeout=600):
    out, _ = process.communicate(timeout=timeout)
    assert process.returncode == code, out
    return out


def wait_for(path, process, seconds=600):
    deadline = time.monotonic() + seconds
    while not (path.exists() and "up" in path.read_text()):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_two_processes_share_a_work_directory_and_train_as_one(start, tmp_path):
    """Bit for bit, of four devices each.

    The one process joins itself, so that its devices sum as those of several do: sums inside a
    process take another order, which moves parameters by the last bits of a float32.
    """
    data = flat.make_folder(tmp_path / "pictures")
    for count, name in ((1, "one"), (2, "two")):
        place, logs = ("--workdir", tmp_path / name), tmp_path / "logs" / name
        run = ("--devices", 4 // count, "--", *TOY, *data, "--config.total_steps=6", *place)
        out = finish(start(count, *run, logs=logs), 0)
        assert f"{count} processes of {4 // count} devices" in out
        assert "step 6/6" in out
        assert sorted(p.name for p in logs.iterdir()) == [f"process{i}.log" for i in range(count)]
    assert_alike(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_when_one_dies_the_others_are_ended_and_it_is_named(start, tmp_path):
    process = start(2, "--module", MEMBER, "--", "x")
    wait_for(tmp_path / "logs" / "process0.log", process)
    family = psutil.Process(process.pid).children(recursive=True)
    pair = {p.environ().get("JAX_PROCESS_ID"): p for p in family if MEMBER in p.cmdline()}
    pair["1"].kill()
    killed = time.monotonic()
    out = finish(process, 128 + signal.SIGKILL, timeout=60)
    assert time.monotonic() - killed < 60
    assert "error: process 1 ended with exit code 137; its log:" in out
    assert f"{tmp_path}/logs/process1.log" in out
    assert not [p for p in family if p.is_running()]


STAND_IN = """#!/usr/bin/env bash
if [[ $1 == -c ]]; then echo 1234; exit; fi
echo "process $JAX_PROCESS_ID of $JAX_NUM_PROCESSES at $JAX_COORDINATOR_ADDRESS: $*"
echo "$JAX_PLATFORMS $XLA_FLAGS"
"""


@pytest.fixture
def python(tmp_path):
    def be(body):
        file = tmp_path / "python"
        file.write_text(STAND_IN + body)
        file.chmod(0o755)
        return file

    return be


def test_every_process_knows_its_place(start, tmp_path, python):
    run = ("--devices", "4", "--module", "jaxt2i.evaluate", "--", "--workdir", "a b")
    out = finish(start(3, *run, python=python("exit 0")), 0)
    texts = [(tmp_path / "logs" / f"process{i}.log").read_text() for i in range(3)]
    for i, text in enumerate(texts):
        place, flags = text.splitlines()
        assert place == f"process {i} of 3 at 127.0.0.1:1234: -m jaxt2i.evaluate --workdir a b"
        assert flags.split() == ["cpu", *QUICK.split(), "--xla_force_host_platform_device_count=4"]
    assert texts[0] in out


def test_a_process_that_fails_is_named_with_its_last_words(start, tmp_path, python):
    body = 'if ((JAX_PROCESS_ID == 2)); then echo "error: no data"; exit 3; fi; exec sleep 60'
    out = finish(start(4, "--", "--config", "x", python=python(body)), 3)
    assert f"error: process 2 ended with exit code 3; its log: {tmp_path}/logs/process2.log" in out
    assert "  | error: no data" in out


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_stop_all_may_save_and_end(start, tmp_path, python, sent, code):
    body = 'trap "sleep .5; echo saved; exit 0" TERM; echo up; while true; do sleep .1; done'
    process = start(2, "--", "--config", "x", python=python(body), start_new_session=True)
    for i in range(2):
        file = tmp_path / "logs" / f"process{i}.log"
        while not (file.exists() and "up" in file.read_text()):
            time.sleep(0.05)
    # As a terminal does: to the whole group.
    os.killpg(process.pid, sent) if sent == signal.SIGINT else process.send_signal(sent)
    out = finish(process, code, timeout=20)
    assert "asked to stop: ending 2 processes" in out
    for i in range(2):
        assert "saved" in (tmp_path / "logs" / f"process{i}.log").read_text()


def test_a_second_interrupt_does_not_wait(start, tmp_path, python):
    body = 'trap "echo no" TERM; echo up; while true; do sleep .1; done'
    process = start(2, "--", "--config", "x", python=python(body))
    for i in range(2):
        file = tmp_path / "logs" / f"process{i}.log"
        while not (file.exists() and "up" in file.read_text()):
            time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    finish(process, 130, timeout=10)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("none",), "N is 'none', not a number of processes"),
        (("2", "--config", "x"), "unknown option '--config'; what jaxt2i.train is given"),
        (("2", "--devices", "0", "--", "x"), "--devices is '0', not a number of devices"),
        (("2", "--devices"), "--devices is '', not a number of devices"),
        (("2",), "nothing behind --"),
    ],
)
def test_a_wrong_command_line_is_explained(args, words):
    done = subprocess.run(
        ["launch/local_processes.sh", *args], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"error: {words}" in done.stderr
    assert re.match(r"Trains as N real processes", done.stderr)
