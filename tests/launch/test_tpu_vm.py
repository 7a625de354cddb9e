"""launch/tpu_vm.sh against a gcloud that records its calls, and the worker's half of it."""

import os
import shlex
import signal
import subprocess
import time

import pytest

from tests.launch.stubs import ROOT, Stubs

SCRIPT = "launch/tpu_vm.sh"
PLACE = ("--name", "slice", "--zone", "us-west4-a", "--project", "mine")
TYPE = ("--type", "v5litepod-16")
TRAIN = ("--", "--config", "configs/stylegan_t.py:lite64", "--workdir", "/mnt/shared/a run")
NODE, REQUEST = "tpu-vm describe", "queued-resources describe"
ABSENT = ("", "ERROR: NOT_FOUND: Resource 'slice' was not found\n", 1)
READY = "READY\t4\n"


def reports(text, workers=4):
    return "".join(f"worker {n}: ok {text}\n" for n in range(workers))


@pytest.fixture
def gcloud(tmp_path):
    stubs = Stubs(tmp_path / "stubs", "gcloud")
    stubs.env["TPU_POLL"] = "0"
    return stubs


def short(calls):
    """Calls without what is the same in all: a verb, then what matters of it."""
    out = []
    for call in calls:
        assert call[:3] == ["gcloud", "compute", "tpus"]
        kind, verb, *rest = call[3:]
        assert "--zone=us-west4-a" in rest
        assert "--project=mine" in rest
        assert "slice" in {word.partition(":")[0] for word in rest}
        if verb == "ssh":
            command = rest[-1].removeprefix("--command=")
            out.append(f"ssh {shlex.split(command.rpartition('tpu_worker.sh ')[2])[0]}")
        else:
            out.append(f"{verb} {kind}")
    return out


LOOK = ["describe tpu-vm", "describe queued-resources"]


def test_creates_a_slice_and_leaves_it_alone_the_next_time(gcloud):
    gcloud.answer({NODE: [ABSENT, READY], REQUEST: [ABSENT]})
    said = gcloud.run(SCRIPT, "create", *PLACE, *TYPE, "--spot")
    calls = gcloud.calls()
    assert short(calls) == [*LOOK, "create tpu-vm", *LOOK]
    assert calls[2] == [
        *("gcloud", "compute", "tpus", "tpu-vm", "create", "slice", "--zone=us-west4-a"),
        *("--project=mine", "--accelerator-type=v5litepod-16", "--version=v2-alpha-tpuv5-lite"),
        "--spot",
    ]
    assert f"+ {shlex.join(calls[2])}" in said
    assert "slice is ready: 4 workers" in said
    gcloud.run(SCRIPT, "create", *PLACE, *TYPE, "--spot")
    assert short(gcloud.calls()) == LOOK


def test_a_queued_slice_is_waited_for(gcloud):
    gcloud.answer(
        {
            NODE: [ABSENT, ABSENT, ABSENT, "CREATING\t0\n", READY],
            REQUEST: [ABSENT, "WAITING_FOR_RESOURCES\n", "PROVISIONING\n", "ACTIVE\n"],
        }
    )
    said = gcloud.run(SCRIPT, "create", "--queued", *PLACE, *TYPE)
    calls = gcloud.calls()
    assert short(calls) == [*LOOK, "create queued-resources", *LOOK * 4]
    assert calls[2][3:] == [
        *("queued-resources", "create", "slice", "--node-id=slice", "--zone=us-west4-a"),
        *("--project=mine", "--accelerator-type=v5litepod-16"),
        "--runtime-version=v2-alpha-tpuv5-lite",
    ]
    assert "slice: ABSENT (request: WAITING_FOR_RESOURCES)" in said


def test_a_failed_request_is_an_error_that_says_so(gcloud):
    gcloud.answer({NODE: [ABSENT], REQUEST: [ABSENT, "WAITING_FOR_RESOURCES\n", "FAILED\n"]})
    said = gcloud.run(SCRIPT, "create", "--queued", *PLACE, *TYPE, code=1)
    assert "error: slice is ABSENT (request: FAILED) and does not become ready" in said


@pytest.mark.parametrize(
    ("flags", "node", "request_state", "remove", "create"),
    [
        ((), "PREEMPTED\t4\n", ABSENT, "delete tpu-vm", "create tpu-vm"),
        (
            ("--queued",),
            ABSENT,
            "SUSPENDED\n",
            "delete queued-resources",
            "create queued-resources",
        ),
        (
            ("--queued",),
            "PREEMPTED\t4\n",
            "ACTIVE\n",
            "delete queued-resources",
            "create queued-resources",
        ),
    ],
)
def test_resume_makes_a_preempted_slice_anew(gcloud, flags, node, request_state, remove, create):
    gcloud.answer(
        {NODE: [node, READY], REQUEST: [request_state, ABSENT], "tpu-vm ssh": [reports("")]}
    )
    said = gcloud.run(SCRIPT, "resume", *flags, *PLACE, *TYPE, *TRAIN, code=75)
    calls = gcloud.calls()
    assert short(calls) == [
        *(*LOOK, remove, create, *LOOK),
        *("scp tpu-vm", "ssh install", "ssh start"),
    ]
    assert calls[2][-1] == "--quiet"
    assert ("--force" in calls[2]) == (remove == "delete queued-resources")
    start = calls[-1][-1].removeprefix("--command=")
    assert shlex.split(start) == [
        *("TPU_WORKERS=4", "bash", "jaxt2i/launch/tpu_worker.sh", "start"),
        *TRAIN[1:],
    ]
    assert "the run on slice is running" in said


@pytest.mark.parametrize(
    ("state", "then", "code"),
    [
        (reports("running"), [], 75),
        (reports("ended with 0"), [], 0),
        (reports("never started"), ["ssh stop", "ssh start"], 76),
        (reports("running", 3) + "worker 3: ok ended with 1\n", ["ssh stop", "ssh start"], 76),
        (
            "bash: jaxt2i/launch/tpu_worker.sh: No such file or directory\n" * 4,
            ["scp tpu-vm", "ssh install", "ssh start"],
            76,
        ),
        (
            reports("running", 3) + "worker 3: ok ended with the machine\n",
            ["ssh stop", "scp tpu-vm", "ssh install", "ssh start"],
            76,
        ),
    ],
)
def test_resume_on_a_live_slice_does_what_is_missing(gcloud, state, then, code):
    fine = reports("")
    gcloud.answer({NODE: [READY], REQUEST: [ABSENT], "tpu-vm ssh": [state, fine]})
    gcloud.run(SCRIPT, "resume", *PLACE, *TYPE, *TRAIN, code=code)
    assert short(gcloud.calls()) == [*LOOK, "ssh state", *then]


def test_resume_every_goes_on_until_the_run_has_finished(gcloud):
    gcloud.answer(
        {
            NODE: [READY, ABSENT, ABSENT, READY, READY],
            REQUEST: [ABSENT],
            "state": [reports("running"), reports("ended with 0")],
            "tpu-vm create": [("", "no capacity\n", 1), ""],
            "tpu-vm ssh": [reports("")],
        }
    )
    gcloud.run(SCRIPT, "resume", "--every", "0", *PLACE, *TYPE, *TRAIN)
    assert short(gcloud.calls()) == [
        *(*LOOK, "ssh state"),
        *(*LOOK, "create tpu-vm"),
        *(*LOOK, "create tpu-vm", *LOOK, "scp tpu-vm", "ssh install", "ssh start"),
        *(*LOOK, "ssh state"),
    ]


def test_resume_every_gives_up_on_a_run_that_ends_at_once(gcloud):
    gcloud.answer(
        {
            NODE: [READY],
            REQUEST: [ABSENT],
            "tpu_worker.sh state": [reports("ended with 1")],
            "tpu-vm ssh": [reports("")],
        }
    )
    said = gcloud.run(SCRIPT, "resume", "--every", "0", *PLACE, *TYPE, *TRAIN, code=1)
    assert "the run ended 3 times within 0 s of its start" in said
    assert short(gcloud.calls()).count("ssh start") == 3


def test_a_worker_that_fails_is_named(gcloud):
    some = "worker 0: ok\nworker 2: install failed with exit code 1 on t1v-2\nworker 1: ok\n"
    gcloud.answer({NODE: [READY], REQUEST: [ABSENT], "tpu-vm ssh": [(some, "", 0)]})
    said = gcloud.run(SCRIPT, "install", *PLACE, code=1)
    assert "error: install failed on worker 2 3 of 4" in said
    assert short(gcloud.calls()) == [*LOOK, "scp tpu-vm", "ssh install"]
    gcloud.answer({NODE: [READY], REQUEST: [ABSENT], "tpu-vm ssh": [(some, "", 1)]})
    assert "run failed on worker 2 3" in gcloud.run(SCRIPT, "run", *PLACE, *TRAIN, code=1)


def test_install_copies_the_tree_and_mounts(gcloud, tmp_path):
    gcloud.answer({NODE: [READY], REQUEST: [ABSENT], "tpu-vm ssh": [reports("")]})
    gcloud.env["TPU_MOUNT"] = "10.0.0.2:/share"
    gcloud.run(SCRIPT, "install", *PLACE)
    scp, ssh = gcloud.calls()[2:]
    assert scp[5].endswith("/jaxt2i.tgz")
    assert scp[6:] == ["slice:jaxt2i.tgz", "--zone=us-west4-a", "--project=mine", "--worker=all"]
    command = ssh[-1].removeprefix("--command=")
    assert command.endswith("tpu_worker.sh install 10.0.0.2:/share")
    assert "--worker=all" in ssh


@pytest.mark.parametrize(
    ("node", "request_state", "calls"),
    [
        (READY, ABSENT, ["delete tpu-vm"]),
        (READY, "ACTIVE\n", ["delete queued-resources"]),
        (ABSENT, "WAITING_FOR_RESOURCES\n", ["delete queued-resources"]),
        (ABSENT, ABSENT, []),
    ],
)
def test_delete_takes_the_request_along(gcloud, node, request_state, calls):
    gcloud.answer({NODE: [node], REQUEST: [request_state]})
    said = gcloud.run(SCRIPT, "delete", *PLACE)
    assert short(gcloud.calls()) == [*LOOK, *calls]
    assert ("there is no slice" in said) == (not calls)


def test_status_and_logs(gcloud):
    gcloud.answer({NODE: [READY], REQUEST: [ABSENT], "tpu-vm ssh": [reports("running")]})
    said = gcloud.run(SCRIPT, "status", *PLACE)
    assert "slice in us-west4-a: READY, request: ABSENT" in said
    assert "worker 3: ok running" in said
    assert short(gcloud.calls()) == [*LOOK, "ssh state"]
    gcloud.run(SCRIPT, "logs", "--worker", "2", *PLACE)
    (call,) = gcloud.calls()
    assert "--worker=2" in call
    assert short([call]) == ["ssh log"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("create", "--name", "slice", *TYPE), "no zone: give --zone or TPU_ZONE"),
        (("create", "--zone", "z", *TYPE), "no name of a slice: give --name or TPU_NAME"),
        (("create", *PLACE), "no type of slice: give --type or TPU_TYPE"),
        (("run", *PLACE), "run needs what jaxt2i.train is given, behind --"),
        (("create", "--zone", "--name", "slice"), "--zone needs a value"),
        (("create", *PLACE, "--tpye", "v4-8"), "unknown option '--tpye'"),
        (("fly", *PLACE), "'fly' is no command"),
        (
            ("create", *PLACE, "--type", "tpu7x-16"),
            "--type is 'tpu7x-16', but TPU VMs end with v6e: newer TPUs are reached by"
            " launch/gke.sh or launch/compute_engine.sh",
        ),
    ],
)
def test_what_is_missing_is_said_before_any_call(gcloud, args, words):
    said = gcloud.run(SCRIPT, *args, code=2)
    assert f"error: {words}" in said
    assert "launch/tpu_vm.sh create" in said
    assert gcloud.calls() == []


@pytest.mark.parametrize("words", [("--help",), ("create", "--name", "slice", "--help")])
def test_help_is_the_head_of_the_script(gcloud, words):
    said = gcloud.run(SCRIPT, *words)
    assert said.startswith("Trains on a TPU VM slice of Google Cloud")
    assert "error" not in said
    assert gcloud.calls() == []


def test_not_knowing_is_not_absence(gcloud):
    gcloud.answer({NODE: [("", "ERROR: you do not have permission\n", 1)]})
    said = gcloud.run(SCRIPT, "create", *PLACE, *TYPE, code=1)
    assert "you do not have permission" in said
    assert "gcloud cannot tell how slice in us-west4-a is" in said
    assert short(gcloud.calls()) == LOOK[:1]


def test_a_slice_that_is_not_ready_runs_nothing(gcloud):
    gcloud.answer({NODE: [ABSENT], REQUEST: [ABSENT]})
    assert "ABSENT (request: ABSENT), not READY" in gcloud.run(SCRIPT, "install", *PLACE, code=1)
    assert short(gcloud.calls()) == LOOK


def test_a_dry_run_calls_nothing(gcloud):
    said = gcloud.run(
        SCRIPT, "resume", "--dry-run", "--queued", "--every", "9", *PLACE, *TYPE, *TRAIN
    )
    assert gcloud.calls() == []
    verbs = [" ".join(line.split()[4:6]) for line in said.splitlines()]
    assert verbs == [
        *("tpu-vm describe", "queued-resources describe", "queued-resources create"),
        *("tpu-vm scp", "tpu-vm ssh", "tpu-vm ssh"),
    ]


WORKER = "launch/tpu_worker.sh"


@pytest.fixture
def worker(tmp_path):
    """Worker 1 of 2, whose python is a stand-in in a copy of the tree."""
    stubs = Stubs(tmp_path / "stubs", "curl", "findmnt")
    stubs.answer(
        {
            "agent-worker-number": ["1"],
            "worker-network-endpoints": ["t1v-0:7:10.0.0.5,t1v-1:8:10.0.0.6"],
            "findmnt": ["nfs4"],
        }
    )
    tree = tmp_path / "jaxt2i"
    (tree / ".venv" / "bin").mkdir(parents=True)
    (tree / "launch").mkdir()
    for name in ("tpu_worker.sh", "preemptible.sh"):
        (tree / "launch" / name).write_bytes((ROOT / "launch" / name).read_bytes())
        (tree / "launch" / name).chmod(0o755)
    stubs.env |= {"HOME": str(tmp_path), "TPU_START": "1"}
    stubs.tree = tree
    return stubs


def be_python(worker, body):
    file = worker.tree / ".venv" / "bin" / "python"
    file.write_text(f"#!/usr/bin/env bash\n{body}\n")
    file.chmod(0o755)


def do(worker, *args, code=0):
    return worker.run(worker.tree / WORKER, *args, code=code)


def test_a_worker_starts_once_stops_and_knows_its_place(worker, tmp_path):
    be_python(
        worker,
        'echo "at $JAX_COORDINATOR_ADDRESS $JAX_PROCESS_ID of $JAX_NUM_PROCESSES: $*"\n'
        "trap 'exit 0' TERM; sleep 60 & wait",
    )
    assert "worker 1: ok never started" in do(worker, "state")
    run = ("--config", "a b", "--workdir", tmp_path / "work")
    assert "worker 1: ok started" in do(worker, "start", *run)
    assert "worker 1: ok running already" in do(worker, "start", *run)
    assert "worker 1: ok running" in do(worker, "state")
    log = (tmp_path / "jaxt2i-run" / "log").read_text()
    assert log.count("at 10.0.0.5:8476 1 of 2: -m jaxt2i.train --config a b --workdir") == 1
    assert "worker 1: ok stopped" in do(worker, "stop")
    # Asked to stop is not finished.
    assert "worker 1: ok ended with 75" in do(worker, "state")


def test_a_worker_reports_a_run_that_finished_or_failed(worker, tmp_path):
    run = ("--workdir", tmp_path / "work")
    be_python(worker, "exit 0")
    assert "worker 1: ok started" in do(worker, "start", *run)
    assert "worker 1: ok ended with 0" in do(worker, "state")
    be_python(worker, "echo error: no such preset; exit 1")
    said = do(worker, "start", *run, code=1)
    assert "error: no such preset" in said
    assert "worker 1: start failed with exit code 1 on" in said
    assert "worker 1: ok ended with 1" in do(worker, "state")


def test_a_run_that_was_killed_with_its_machine_is_told_from_a_living_one(worker, tmp_path):
    be_python(worker, "sleep 60")
    do(worker, "start", "--workdir", tmp_path / "work")
    _, session = (tmp_path / "jaxt2i-run" / "pid").read_text().split()
    os.killpg(int(session), signal.SIGKILL)
    deadline = time.monotonic() + 10
    while "ended with the machine" not in (said := do(worker, "state")):
        assert time.monotonic() < deadline, said
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("run", "kind", "words"),
    [
        (("--config", "x"), "nfs4", "no --workdir: several workers need one"),
        (("--workdir=FOLDER",), "ext4", "is on this worker's own disk (ext4)"),
    ],
)
def test_several_workers_need_a_shared_work_directory(worker, tmp_path, run, kind, words):
    answers = {
        "agent-worker-number": ["1"],
        "worker-network-endpoints": ["10.0.0.5,10.0.0.6"],
        "findmnt": [kind],
    }
    worker.answer(answers)
    be_python(worker, "exit 0")
    run = [word.replace("FOLDER", str(tmp_path / "work")) for word in run]
    said = do(worker, "start", *run, code=1)
    assert words in said
    assert "worker 1: start failed" in said
    # One worker alone may write where it likes, and needs no coordinator.
    worker.answer({**answers, "worker-network-endpoints": ["10.0.0.5"]})
    be_python(worker, 'echo "alone${JAX_COORDINATOR_ADDRESS-}"')
    do(worker, "start", *run)
    assert "\nalone\n" in (tmp_path / "jaxt2i-run" / "log").read_text()


def test_a_worker_that_knows_of_fewer_workers_does_not_train_alone(worker, tmp_path):
    be_python(worker, "exit 0")
    worker.env["TPU_WORKERS"] = "4"
    said = do(worker, "start", "--workdir", tmp_path / "work", code=1)
    assert "name 2 workers where the slice has 4: it would not train with the others" in said
    worker.env["TPU_WORKERS"] = "2"
    do(worker, "start", "--workdir", tmp_path / "work")


def test_install_brings_uv_where_there_is_none(worker, tmp_path):
    """The installer comes from its address and is run; a second time it is not fetched."""
    uv = tmp_path / ".local" / "bin" / "uv"
    kept = tmp_path / "uv"
    worker.env["UV_CALLS"] = str(tmp_path / "uv_calls")
    kept.write_text('#!/usr/bin/env bash\necho "$*" >>"$UV_CALLS"\n')
    worker.answer(
        {
            "agent-worker-number": ["1"],
            "astral.sh/uv/install.sh": [f"mkdir -p {uv.parent} && install {kept} {uv}\n"],
        }
    )
    (worker.tree / ".venv" / "bin").rmdir()
    (worker.tree / ".venv").rmdir()
    assert "worker 1: ok" in do(worker, "install")
    assert "worker 1: ok" in do(worker, "install")
    called = [line.split()[0] for line in (tmp_path / "uv_calls").read_text().splitlines()]
    assert called == ["venv", "pip", "venv", "pip"]
    assert sum("install.sh" in call[-1] for call in worker.calls()) == 1
    worker.answer({"agent-worker-number": ["1"], "astral.sh": [("", "curl: (6) no host\n", 6)]})
    uv.unlink()
    assert "worker 1: install failed" in do(worker, "install", code=6)


def test_the_copied_tree_is_complete(tmp_path, gcloud):
    """What is copied is what pip needs, and the scripts can be run."""
    gcloud.env["TAR"] = str(tmp_path / "kept.tgz")
    (gcloud.folder / "gcloud").write_text(
        "#!/usr/bin/env bash\n"
        '[[ $* != *scp* ]] || cp "$5" "$TAR"\n'
        "[[ $* != *state,* ]] || echo READY\n"
    )
    gcloud.run(SCRIPT, "install", *PLACE, code=1)
    listed = subprocess.run(
        ["tar", "-tvzf", tmp_path / "kept.tgz"], capture_output=True, text=True, check=True
    ).stdout
    names = {line.split()[-1]: line.split()[0] for line in listed.splitlines()}
    assert {"pyproject.toml", "README.md", "configs/common.py", "jaxt2i/train.py"} <= set(names)
    assert names["launch/preemptible.sh"].startswith("-rwx")
    assert not any("__pycache__" in name for name in names)
