"""Real processes: killed, asked to stop, and two of them training as one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxt2i.engine import checkpoint

ROOT = Path(__file__).parent.parent.parent


def start(workdir, *overrides, devices=1, **env):
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "jaxt2i.train", "--config", "tests/engine/toy_config.py"),
            *("--workdir", str(workdir), *overrides),
        ],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, code=0):
    out, _ = process.communicate(timeout=180)
    assert process.returncode == code, out
    return out


def arrays(workdir, step):
    tree, where = checkpoint.latest(workdir)
    assert where.endswith(f"/{step}")
    return {name: np.asarray(x) for name, x in checkpoint.named(tree).items()}


def assert_same(a, b, **tolerance):
    assert set(a) == set(b)
    for name in a:
        if tolerance:
            np.testing.assert_allclose(a[name], b[name], err_msg=name, **tolerance)
        else:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_killed_run_resumes_bit_for_bit(tmp_path):
    finish(start(tmp_path / "straight"))
    process = start(tmp_path / "killed", "--config.total_steps=100000")
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "checkpoints" / "10").exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # Whatever it saved after step 10 is taken away: the resumed run starts at 10.
    for folder in (tmp_path / "killed" / "checkpoints").iterdir():
        if folder.name != "10":
            subprocess.run(["rm", "-r", folder], check=True)
    out = finish(start(tmp_path / "killed"))
    assert "resuming from" in out
    assert "config.total_steps: 100000 -> 20" in out
    assert_same(arrays(tmp_path / "straight", 20), arrays(tmp_path / "killed", 20))
    lines = (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(x)["step"] for x in lines] == list(range(1, 21))


def test_sigterm_saves_and_exits_cleanly(tmp_path):
    process = start(tmp_path, "--config.total_steps=100000", "--config.checkpoint_every_steps=0")
    while not (tmp_path / "metrics.jsonl").exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out = finish(process)
    assert "asked to stop: saved step" in out
    _, where = checkpoint.latest(tmp_path)
    assert int(where.rpartition("/")[2]) > 0


def test_incompatible_config_names_the_field(tmp_path):
    finish(start(tmp_path, "--config.total_steps=5"))
    out = finish(start(tmp_path, "--config.model.width=12"), code=1)
    assert "config.model.width: 8 -> 12" in out
    assert "Traceback" not in out


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    finish(start(tmp_path / "one", devices=4))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    pair = [
        start(
            tmp_path / "two",
            devices=2,
            JAX_COORDINATOR_ADDRESS=f"127.0.0.1:{port}",
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(i),
            JAX_PLATFORMS="cpu",
        )
        for i in range(2)
    ]
    for process in pair:
        finish(process)
    assert_same(arrays(tmp_path / "one", 20), arrays(tmp_path / "two", 20), rtol=1e-5, atol=1e-6)
