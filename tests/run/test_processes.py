"""Real processes: killed, asked to stop, and several of them training as one."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxt2i.config import ConfigError
from jaxt2i.run import checkpoint, processes, settings, train
from tests.data import flat, shards

ROOT = Path(__file__).parent.parent.parent


def start(workdir, *overrides, devices=1, more="", **env):
    flags = f"--xla_force_host_platform_device_count={devices} {more}"
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


def group(workdir, count, *overrides, devices=8):
    """Processes that train as one, the devices shared among them."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    place = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count)}
    return [
        start(
            workdir,
            *overrides,
            devices=devices // count,
            more="--xla_backend_optimization_level=0",  # compiles in two thirds of the time
            **place,
            JAX_PROCESS_ID=str(number),
            JAX_PLATFORMS="cpu",
        )
        for number in range(count)
    ]


def finish(process, code=0):
    out, _ = process.communicate(timeout=600)
    assert process.returncode == code, out
    return out


def arrays(workdir, step, newest=True):
    tree, where = checkpoint.latest(workdir, None if newest else step)
    assert where.endswith(f"/{step}")
    return {name: np.asarray(x) for name, x in checkpoint.named(tree).items()}


def assert_same(a, b, **tolerance):
    assert set(a) == set(b)
    for name in a:
        if tolerance:
            np.testing.assert_allclose(a[name], b[name], err_msg=name, **tolerance)
        else:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def wait_for(folder, process):
    deadline = time.monotonic() + 600
    while not folder.exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return flat.make_folder(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """A run of 20 steps that nothing has interrupted."""
    workdir = tmp_path_factory.mktemp("runs") / "straight"
    finish(start(workdir, *data))
    return workdir


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_a_killed_run_resumes_bit_for_bit_and_a_stopped_one_saves(straight, data, tmp_path):
    checkpoints = tmp_path / "checkpoints"
    process = start(tmp_path, *data, "--config.total_steps=100000")
    wait_for(checkpoints / "10", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # Whatever it saved after step 10 is taken away: the resumed run starts at 10.
    for folder in checkpoints.iterdir():
        if folder.name != "10":
            subprocess.run(["rm", "-r", folder], check=True)
    saves = ("--config.checkpoint_every_steps=0", "--config.keep_at_steps=(20,)")
    process = start(tmp_path, *data, "--config.total_steps=90000", *saves)
    wait_for(checkpoints / "20", process)
    process.send_signal(signal.SIGTERM)
    out = finish(process)
    assert f"resuming from {checkpoints}/10" in out
    assert "config.total_steps: 100000 -> 90000" in out
    asked = int(re.search(r"asked to stop: saved step (\d+)", out)[1])
    assert asked > 20
    arrays(tmp_path, asked)
    assert_same(arrays(straight, 20), arrays(tmp_path, 20, newest=False))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(x)["step"] for x in lines] == list(range(1, asked + 1))


@pytest.mark.xdist_group("processes")
def test_incompatible_config_names_the_field(straight, tmp_path):
    workdir = shutil.copytree(straight, tmp_path / "run")
    config = settings.read_config(workdir)
    config.model.width = 12
    with pytest.raises(ConfigError, match=r"config\.model\.width: 8 -> 12\n.*another --workdir"):
        train.train(config, workdir, "a test")


@pytest.mark.full
@pytest.mark.xdist_group("processes")
def test_four_processes_train_as_one(data, tmp_path):
    """Bit for bit; of two, tests/launch/test_local_processes.py sees it."""
    for count in (1, 4):
        for process in group(tmp_path / str(count), count, *data, "--config.total_steps=6"):
            finish(process)
    assert_alike(tmp_path / "1", tmp_path / "4")


def assert_alike(one, other):
    """Two runs of six steps have the same arrays and losses."""
    assert_same(arrays(one, 6), arrays(other, 6))
    lines = [(run / "metrics.jsonl").read_text().splitlines() for run in (one, other)]
    losses = [[json.loads(line)["d/loss"] for line in run] for run in lines]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6


RUN = """
import sys, time
import jax, jax.numpy as jnp
from jaxt2i.run import processes
processes.FAILED_SECONDS = 2.0
processes.join()
with processes.together():
    while True:
        if sys.argv[1] == "fails" and jax.process_index() == 1:
            raise ValueError("no such picture")
        print("up", flush=True)
        time.sleep(0.1)
"""


COUNT = """
import json, sys
from etils import epath
from jaxt2i.configs.common import base
from jaxt2i.data.sources import files, make_source
from jaxt2i.run import open as runs, processes
processes.join()
opened, read = [], files.read_bytes
files.read_bytes = lambda path: (opened.append(path.rpartition("/")[2]), read(path))[1]
data = base().data
data.update(source="webdataset", path=sys.argv[1])
shared = runs.together(epath.Path(sys.argv[1]) / "run")
with processes.together():
    for _ in range(2):
        found = make_source(data, 16, "train", None, shared).parts[0]
        print(json.dumps([sorted(x for x in opened if x.endswith(".parquet")), found.counts]))
        opened.clear()
"""


def pair(what, code=RUN):
    """Two processes with nothing to compute."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        place = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{s.getsockname()[1]}"}
    place |= {"JAX_NUM_PROCESSES": "2", "JAX_PLATFORMS": "cpu"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return [
        subprocess.Popen(
            [sys.executable, "-c", code, what],
            cwd=ROOT,
            env={**os.environ, **place, "JAX_PROCESS_ID": str(number)},
            **pipes,
        )
        for number in range(2)
    ]


def test_when_the_first_process_is_killed_the_other_ends_at_once():
    first, second = pair("lives")
    assert second.stdout.readline()  # from here on it knows who the first one is
    assert first.stdout.readline()
    first.kill()
    out, _ = second.communicate(timeout=60)
    assert second.returncode != 0
    # jax aborts a process that loses the first one, and may be quicker than our own sentence.
    assert f"process 0 ({socket.gethostname()}, pid {first.pid}) is gone" in out or (
        "the leader task was preempted/died/restarted" in out
    )
    first.communicate()


def test_a_process_that_fails_tells_the_others_why():
    both = pair("fails")
    said = f"error: process 1 ({socket.gethostname()}, pid {both[1].pid}) failed: no such picture"
    for process in both:
        out, _ = process.communicate(timeout=90)
        assert process.returncode == 1
        assert said in out
    assert 'raise ValueError("no such picture")' in out or "ValueError: no such picture" in out


def test_two_processes_count_a_collection_once_between_them(tmp_path):
    """Each opens its share of the files and reads the other's counts; the next start opens none."""
    shards.collection(tmp_path, files=3)
    lines = [finish(process).splitlines() for process in pair(str(tmp_path), COUNT)]
    said = [[json.loads(x) for x in told if x.startswith("[[")] for told in lines]
    (first, again), (second, too) = said
    # One file of the three is held out, so that two are left to be counted.
    files = sorted(file.name for file in tmp_path.glob("*.parquet"))
    assert first[0] + second[0] == [x for x in files if x in first[0] + second[0]]
    assert len(first[0]) == len(second[0]) == 1
    assert [again, too] == [[[], [6, 6]]] * 2
    assert first[1] == second[1] == [6, 6]
    assert not list((tmp_path / "run" / "counts").iterdir()), "what was exchanged is gone"
    assert sum("2 counts are kept in" in line for told in lines for line in told) == 1


@pytest.mark.parametrize(
    ("heard", "words"),
    [
        ((29, "", 0, ""), ""),
        ((0, "", 31, ""), "no sign of life for 31 s from b: killed, or its machine or network"),
        # The lost one made the other fail.
        ((12, "Gloo failed", 11, ""), "no sign of life for 11 s from b"),
        ((9, "no data", 1, ""), ""),
        ((11, "no data", 1, ""), "a failed: no data"),
        ((0, "no data", 0, "no disk"), "a failed: no data; b failed: no disk"),
    ],
)
def test_who_is_lost(heard, words):
    signs = [processes.Sign("a", *heard[:2]), processes.Sign("b", *heard[2:])]
    said = processes.verdict(signs)
    assert said.startswith(words)
    assert bool(said) == bool(words)
