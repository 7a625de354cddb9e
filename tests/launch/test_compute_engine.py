"""launch/compute_engine.sh against a gcloud that records its calls."""

import re
import shlex

import pytest

from tests.launch.stubs import Stubs

SCRIPT = "launch/compute_engine.sh"
PLACE = ("--name", "slice", "--zone", "us-east5-a", "--project", "mine")
SHAPE = ("--machine", "ct6e-standard-4t", "--topology", "4x4")
TRAIN = ("--", "--config", "configs/stylegan_t.py:lite64", "--workdir", "/mnt/shared/a run")
GROUP, MACHINES = "managed describe", "list-instances"
TEMPLATE, POLICY = "instance-templates describe", "resource-policies describe"
ABSENT = ("", "ERROR: The resource 'projects/mine/slice' was not found\n", 1)
STABLE, MOVING = "4\tTrue\n", "4\tFalse\n"
NAMES = ("slice-b2c3", "slice-k4l5", "slice-q6r7", "slice-x8y9")
ALL_RUN = "".join(f"{name}\tNONE\tRUNNING\n" for name in NAMES)
NONE_YET = "".join(f"{name}\tCREATING\t\n" for name in NAMES)
ONE_STOPPED = ALL_RUN.replace("x8y9\tNONE\tRUNNING", "x8y9\tNONE\tTERMINATED")


def worker_of(name):
    """The machines' names are in another order than their workers."""
    return 3 - NAMES.index(name)


def machines_say(text, command="ssh", names=NAMES):
    """Answers for each machine's ssh."""
    return {f"{command} {n}": [f"worker {worker_of(n)}: ok {text}\n"] for n in names}


def there(**more):
    """A slice that is fine."""
    return {GROUP: [STABLE], MACHINES: [ALL_RUN], TEMPLATE: ["slice"], POLICY: ["slice"], **more}


def gone(**more):
    return {GROUP: [ABSENT], TEMPLATE: [ABSENT], POLICY: [ABSENT], **more}


@pytest.fixture
def gcloud(tmp_path):
    stubs = Stubs(tmp_path / "stubs", "gcloud")
    stubs.env["TPU_POLL"] = "0"
    return stubs


def short(calls):
    """What matters of each call; those that go to all machines count once, with their number."""
    out = []
    for call in calls:
        assert call[:2] == ["gcloud", "compute"]
        assert "--project=mine" in call
        words = call[2:]
        where = ("--zone=us-east5-a", "--region=us-east5")
        if words[0] in ("ssh", "scp"):
            assert where[0] in words
            assert "--quiet" in words
            (machine,) = re.findall(r"slice-\w{4}", " ".join(words[:3]))
            what = words[0]
            if what == "ssh":
                command = words[-1].removeprefix("--command=")
                script = command.rpartition("tpu_worker.sh ")[2]
                what = "knock" if command == "true" else f"ssh {shlex.split(script)[0]}"
            out.append((what, machine))
        else:
            kind = words[1] if words[0] == "instance-groups" else words[0]
            verb = words[2] if words[0] == "instance-groups" else words[1]
            if kind != "instance-templates":
                assert where[kind == "resource-policies"] in words
            assert "slice" in words
            out.append(f"{verb} {kind}")
    told, result = [], []
    for item in [*out, ""]:
        if told and (isinstance(item, str) or item[0] != told[-1][0]):
            machines = [machine for _, machine in told]
            assert len(set(machines)) == len(machines)
            result.append(f"{told[-1][0]} *{len(machines)}")
            told = []
        if isinstance(item, tuple):
            told.append(item)
        else:
            result.append(item)
    return result[:-1]


LOOK = ["describe managed", "list-instances managed"]
LEFT = ["describe instance-templates", "describe resource-policies"]
REMOVE = [
    "delete managed",
    *("describe instance-templates", "delete instance-templates"),
    *("describe resource-policies", "delete resource-policies"),
]
MAKE = ["create resource-policies", "create instance-templates", "create managed"]
START = ["knock *4", "scp *4", "ssh install *4", "ssh start *4"]


def test_creates_a_slice_and_leaves_it_alone_the_next_time(gcloud):
    gcloud.answer(gone() | {GROUP: [ABSENT, STABLE], MACHINES: [ALL_RUN]})
    said = gcloud.run(SCRIPT, "create", *PLACE, *SHAPE)
    calls = gcloud.calls()
    assert short(calls) == [LOOK[0], *LEFT, *MAKE, *LOOK, "knock *4"]
    policy, template, group = calls[3:6]
    assert policy == [
        *("gcloud", "compute", "resource-policies", "create", "workload-policy", "slice"),
        *("--region=us-east5", "--project=mine", "--type=high-throughput"),
        "--accelerator-topology=4x4",
    ]
    assert template == [
        *("gcloud", "compute", "instance-templates", "create", "slice", "--project=mine"),
        *(
            "--machine-type=ct6e-standard-4t",
            "--image-family=ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e",
        ),
        *("--image-project=ubuntu-os-accelerator-images", "--boot-disk-size=200GB"),
        *("--maintenance-policy=TERMINATE", "--scopes=cloud-platform"),
    ]
    assert group == [
        *("gcloud", "compute", "instance-groups", "managed", "create", "slice"),
        *("--zone=us-east5-a", "--project=mine", "--template=slice", "--size=4"),
        *("--target-size-policy-mode=bulk", "--default-action-on-vm-failure=do-nothing"),
        "--workload-policy=projects/mine/regions/us-east5/resourcePolicies/slice",
    ]
    assert f"+ {shlex.join(group)}" in said
    assert "slice is ready: 4 workers" in said
    gcloud.run(SCRIPT, "create", *PLACE, *SHAPE)
    assert short(gcloud.calls()) == [*LOOK, "knock *4"]


@pytest.mark.parametrize(
    ("flags", "template"),
    [
        (
            ("--flex", "1d12h"),
            [
                *("--provisioning-model=FLEX_START", "--max-run-duration=1d12h"),
                *("--instance-termination-action=DELETE", "--reservation-affinity=none"),
            ],
        ),
        (("--spot",), ["--provisioning-model=SPOT", "--instance-termination-action=STOP"]),
        (("--subnet", "inner"), ["--region=us-east5", "--subnet=inner"]),
    ],
)
def test_how_machines_are_had_stands_in_the_template(gcloud, flags, template):
    gcloud.answer(gone() | {GROUP: [ABSENT, STABLE], MACHINES: [ALL_RUN]})
    gcloud.run(SCRIPT, "create", *PLACE, *SHAPE, *flags)
    assert gcloud.calls()[4][-len(template) :] == template


def test_one_machine_needs_no_policy_and_a_newer_one_has_its_image(gcloud):
    one = "slice-b2c3\tNONE\tRUNNING\n"
    gcloud.answer(gone() | {GROUP: [ABSENT, "1\tTrue\n"], MACHINES: [one]})
    machine = ("--machine", "tpu7x-standard-4t", "--topology", "2x2x1")
    gcloud.run(SCRIPT, "create", *PLACE, *machine)
    calls = gcloud.calls()
    assert short(calls) == [LOOK[0], *LEFT, *MAKE[1:], *LOOK, "knock *1"]
    assert "--image-family=ubuntu-accel-2404-amd64-tpu-tpu7x" in calls[3]
    assert "--size=1" in calls[4]
    assert not any(word.startswith("--workload-policy") for word in calls[4])
    # One that is newer still has its image named.
    gcloud.answer(gone() | {GROUP: [ABSENT, "1\tTrue\n"], MACHINES: [one]})
    machine = ("--machine", "tpu9-standard-4t", "--topology", "2x2", "--image", "ubuntu-tpu9")
    gcloud.run(SCRIPT, "create", *PLACE, *machine)
    assert "--image-family=ubuntu-tpu9" in gcloud.calls()[3]


def test_machines_are_waited_for_until_they_let_one_in(gcloud):
    gcloud.answer(
        gone()
        | {
            GROUP: [ABSENT, MOVING, MOVING, STABLE],
            MACHINES: ["", NONE_YET, ALL_RUN],
            f"ssh {NAMES[0]}": [("", "connection refused\n", 255), ""],
        }
    )
    said = gcloud.run(SCRIPT, "create", "--flex", "2d", *PLACE, *SHAPE)
    # Behind them, all four are knocked at, the first twice.
    assert short(gcloud.calls()[:-5])[6:] == LOOK * 3
    assert said.count("slice: 0 of 4 machines run; looking again in 0 s") == 2
    assert "managed list-errors slice --zone=us-east5-a --project=mine" in said
    assert said.count(f"+ gcloud compute ssh {NAMES[0]}") == 2


def test_a_machine_that_lets_nobody_in_is_named(gcloud):
    gcloud.answer(there(**{f"ssh {NAMES[2]}": [("", "permission denied\n", 255)]}))
    said = gcloud.run(SCRIPT, "create", *PLACE, *SHAPE, code=1)
    assert "permission denied" in said
    assert f"error: no ssh to {NAMES[2]}; gcloud's message is above" in said


def test_a_group_that_comes_to_rest_without_its_machines_is_an_error(gcloud):
    gcloud.answer(gone() | {GROUP: [ABSENT, MOVING, STABLE], MACHINES: [NONE_YET, ""]})
    said = gcloud.run(SCRIPT, "create", *PLACE, *SHAPE, code=1)
    assert "error: slice is LOST and does not become ready; say it again, or delete it" in said


def test_what_a_failed_creation_left_is_removed_first(gcloud):
    gcloud.answer(there() | {GROUP: [ABSENT, STABLE]})
    gcloud.run(SCRIPT, "create", *PLACE, *SHAPE)
    assert short(gcloud.calls()) == [LOOK[0], *REMOVE[1:], *MAKE, *LOOK, "knock *4"]


def test_a_creation_that_fails_stops_there(gcloud):
    gcloud.answer(gone(**{"instance-templates create": [("", "no such machine type\n", 1)]}))
    said = gcloud.run(SCRIPT, "create", *PLACE, *SHAPE, code=1)
    assert "no such machine type" in said
    assert short(gcloud.calls()) == [LOOK[0], *LEFT, *MAKE[:2]]


@pytest.mark.parametrize(
    ("group", "machines"),
    [
        (STABLE, ONE_STOPPED),  # preempted
        (STABLE, ALL_RUN.partition("\n")[2]),  # deleted
        ("0\tTrue\n", ""),  # its time was up
        ("3\tTrue\n", ALL_RUN.partition("\n")[2]),  # deleted, and no longer counted
    ],
)
def test_resume_makes_a_slice_anew_that_lost_a_machine(gcloud, group, machines):
    gcloud.answer(
        there(**machines_say("")) | {GROUP: [group, STABLE], MACHINES: [machines, ALL_RUN]}
    )
    said = gcloud.run(SCRIPT, "resume", "--spot", *PLACE, *SHAPE, *TRAIN, code=75)
    calls = gcloud.calls()
    assert short(calls) == [*LOOK, *REMOVE, *MAKE, *LOOK, *START]
    assert all("--quiet" in call for call in calls if "delete" in call)
    starts = [call[-1].removeprefix("--command=") for call in calls[-4:]]
    assert [shlex.split(start) for start in starts] == [
        ["TPU_WORKERS=4", "bash", "jaxt2i/launch/tpu_worker.sh", "start", *TRAIN[1:]]
    ] * 4
    assert "of 4 machines running: making it anew" in said
    assert "the run on slice is running" in said


@pytest.mark.parametrize(
    ("states", "then", "code"),
    [
        (["running"] * 4, [], 75),
        (["ended with 0"] * 4, [], 0),
        (["never started"] * 4, ["ssh stop *4", "ssh start *4"], 76),
        (["running"] * 3 + ["ended with 1"], ["ssh stop *4", "ssh start *4"], 76),
        (["running"] * 3 + ["ended with the machine"], ["ssh stop *4", *START[1:]], 76),
        ([None] * 4, START[1:], 76),
    ],
)
def test_resume_on_a_live_slice_does_what_is_missing(gcloud, states, then, code):
    answers = there(**machines_say(""))
    for name, state in zip(NAMES, states, strict=True):
        first = f"worker {worker_of(name)}: ok {state}\n"
        if state is None:
            first = "bash: jaxt2i/launch/tpu_worker.sh: No such file or directory\n"
        answers[f"ssh {name}"].insert(0, first)
    gcloud.answer(answers)
    gcloud.run(SCRIPT, "resume", *PLACE, *SHAPE, *TRAIN, code=code)
    assert short(gcloud.calls()) == [*LOOK, "ssh state *4", *then]


def test_resume_every_goes_on_until_the_run_has_finished(gcloud):
    # To the knock, install and start; then comes the question for the state.
    said = ("", "", "", " ended with 0")
    finished = {
        f"ssh {name}": [f"worker {worker_of(name)}: ok{words}\n" for words in said]
        for name in NAMES
    }
    gcloud.answer(
        gone(**finished)
        | {
            GROUP: [ABSENT, ABSENT, STABLE],
            MACHINES: [ALL_RUN],
            "managed create": [("", "no capacity\n", 1), ""],
        }
    )
    gcloud.run(SCRIPT, "resume", "--every", "0", *PLACE, *SHAPE, *TRAIN)
    assert short(gcloud.calls()) == [
        *(LOOK[0], *LEFT, *MAKE),
        *(LOOK[0], *LEFT, *MAKE, *LOOK, *START),
        *(*LOOK, "ssh state *4"),
    ]


@pytest.mark.parametrize(
    ("command", "topology"), [("create", "4x8"), ("create", "2x4"), ("resume", "2x4")]
)
def test_a_whole_slice_of_another_size_is_not_deleted(gcloud, command, topology):
    gcloud.answer(there())
    shape = ("--machine", "ct6e-standard-4t", "--topology", topology)
    train = TRAIN if command == "resume" else ()
    said = gcloud.run(SCRIPT, command, *PLACE, *shape, *train, code=1)
    means = {"4x8": 8, "2x4": 2}[topology]
    assert (
        f"error: slice has 4 machines, but --topology {topology} of ct6e-standard-4t means {means}:"
        " delete it first"
    ) in said
    assert short(gcloud.calls()) == LOOK


def test_install_copies_the_tree_to_every_machine_and_mounts(gcloud):
    gcloud.answer(there(**machines_say("")))
    gcloud.env["TPU_MOUNT"] = "10.0.0.2:/share"
    gcloud.run(SCRIPT, "install", *PLACE)
    calls = gcloud.calls()
    assert short(calls) == [*LOOK, "scp *4", "ssh install *4"]
    assert {call[4] for call in calls[2:6]} == {f"{name}:jaxt2i.tgz" for name in NAMES}
    for call in calls[6:]:
        assert call[-1].endswith("tpu_worker.sh install 10.0.0.2:/share")


def test_a_machine_that_fails_is_named(gcloud):
    gcloud.answer(there(**{f"{NAMES[1]}:jaxt2i.tgz": [("", "broken pipe\n", 1)]}))
    said = gcloud.run(SCRIPT, "install", *PLACE, code=1)
    assert "broken pipe" in said
    assert "error: copying to the workers of slice failed; gcloud's message is above" in said
    assert short(gcloud.calls()) == [*LOOK, "scp *4"]
    answers = there(**machines_say(""))
    answers[f"ssh {NAMES[1]}"] = [("worker 2: start failed with exit code 1 on k4l5\n", "", 1)]
    gcloud.answer(answers)
    said = gcloud.run(SCRIPT, "run", *PLACE, *TRAIN, code=1)
    assert "error: run failed on worker 2 of 4; what they said is above" in said


def test_status_and_logs(gcloud):
    gcloud.answer(there(**machines_say("running")))
    said = gcloud.run(SCRIPT, "status", *PLACE)
    assert "slice in us-east5-a: READY, 4 machines run" in said
    assert "worker 3: ok running" in said
    assert short(gcloud.calls()) == [*LOOK, "ssh state *4"]
    gcloud.run(SCRIPT, "logs", "--worker", "2", *PLACE)
    calls = gcloud.calls()
    assert short(calls) == [*LOOK, "ssh state *4", "ssh log *1"]
    assert worker_of(calls[-1][3]) == 2
    said = gcloud.run(SCRIPT, "logs", "--worker", "4", *PLACE, code=1)
    assert "error: no machine of slice says that it is worker 4; what they said is above" in said
    gcloud.answer(there() | {MACHINES: [ONE_STOPPED]})
    assert "slice in us-east5-a: LOST, 3 machines run" in gcloud.run(SCRIPT, "status", *PLACE)


@pytest.mark.parametrize(
    ("answers", "then"),
    [
        (there(), [*LOOK, *REMOVE]),
        (there() | {POLICY: [ABSENT]}, [*LOOK, *REMOVE[:4]]),
        (there() | {GROUP: [ABSENT]}, [LOOK[0], *REMOVE[1:]]),
        (gone(), [LOOK[0], *LEFT]),
    ],
)
def test_delete_takes_template_and_policy_along(gcloud, answers, then):
    gcloud.answer(answers)
    said = gcloud.run(SCRIPT, "delete", *PLACE)
    assert short(gcloud.calls()) == then
    assert ("there is no slice in us-east5-a" in said) == (answers == gone())


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("create", *PLACE[2:], *SHAPE), "no name of a slice: give --name or TPU_NAME"),
        (("create", *PLACE[:2], *PLACE[4:], *SHAPE), "no zone: give --zone or TPU_ZONE"),
        (("create", *PLACE[:4], *SHAPE), "no project: give --project or TPU_PROJECT"),
        (("create", *PLACE, *SHAPE[2:]), "no machine: give --machine or TPU_MACHINE"),
        (("create", *PLACE, *SHAPE[:2]), "no topology: give --topology or TPU_TOPOLOGY"),
        (("create", *PLACE, *SHAPE, "--topology", "16"), "--topology is '16', not of the form"),
        (
            ("create", *PLACE, *SHAPE, "--topology", "3x3"),
            "--topology 3x3 has 9 chips, which the 4 of ct6e-standard-4t do not divide",
        ),
        (("create", *PLACE, *SHAPE, "--machine", "n2-standard-8"), "--machine is 'n2-standard-8'"),
        (
            ("create", *PLACE, *SHAPE, "--machine", "tpu9-standard-4t"),
            "no image is known for tpu9-standard-4t: give --image or TPU_IMAGE",
        ),
        (("create", *PLACE, *SHAPE, "--flex", "soon"), "--flex is 'soon', not a duration"),
        (("create", *PLACE, *SHAPE, "--flex", "2d", "--spot"), "--flex and --spot exclude"),
        (("resume", *PLACE, *SHAPE, "--every", "x", *TRAIN), "--every is 'x', not a number"),
        (("logs", *PLACE, "--worker", "all"), "--worker is 'all', not the number of a worker"),
        (("run", *PLACE), "run needs what jaxt2i.train is given, behind --"),
        (("create", "--zone", "--name", "slice"), "--zone needs a value"),
        (("create", *PLACE, "--type", "v6e-16"), "unknown option '--type'"),
        (("fly", *PLACE), "'fly' is no command"),
    ],
)
def test_what_is_missing_is_said_before_any_call(gcloud, args, words):
    said = gcloud.run(SCRIPT, *args, code=2)
    assert f"error: {words}" in said
    assert "launch/compute_engine.sh create" in said
    assert gcloud.calls() == []


def test_help_is_the_head_of_the_script(gcloud):
    said = gcloud.run(SCRIPT, "--help")
    assert said.startswith("Trains on a TPU slice of Compute Engine")
    assert "Not yet seen" in said
    assert said == gcloud.run(SCRIPT, "create", *PLACE, "--help")
    assert gcloud.calls() == []


def test_not_knowing_is_not_absence(gcloud):
    gcloud.answer({GROUP: [("", "ERROR: you do not have permission\n", 1)]})
    said = gcloud.run(SCRIPT, "delete", *PLACE, code=1)
    assert "you do not have permission" in said
    assert "gcloud cannot tell how slice in us-east5-a is" in said
    assert short(gcloud.calls()) == LOOK[:1]
    gcloud.answer(there() | {MACHINES: [("", "ERROR: try again\n", 1)]})
    said = gcloud.run(SCRIPT, "resume", *PLACE, *SHAPE, *TRAIN, code=1)
    assert "gcloud cannot tell which machines slice in us-east5-a has" in said
    assert short(gcloud.calls()) == LOOK


def test_a_slice_that_is_not_ready_runs_nothing(gcloud):
    gcloud.answer(gone())
    assert "is ABSENT, not READY" in gcloud.run(SCRIPT, "install", *PLACE, code=1)
    assert short(gcloud.calls()) == LOOK[:1]
    gcloud.answer(there() | {MACHINES: [ONE_STOPPED]})
    assert "is LOST, not READY" in gcloud.run(SCRIPT, "run", *PLACE, *TRAIN, code=1)


def test_a_dry_run_calls_nothing(gcloud):
    resume = ("resume", "--dry-run", "--flex", "2d", "--every", "9", *PLACE, *SHAPE, *TRAIN)
    said = gcloud.run(SCRIPT, *resume)
    lines = [line for line in said.splitlines() if line.startswith("+ gcloud compute ")]
    assert len(lines) == len(said.splitlines()) == 7
    assert [line.split()[3] for line in lines] == [
        *("instance-groups", "resource-policies", "instance-templates", "instance-groups"),
        *("scp", "ssh", "ssh"),
    ]
    assert "MACHINE" in lines[-1]
    said = gcloud.run(SCRIPT, "delete", "--dry-run", *PLACE)
    assert [line.split()[4 + ("groups" in line)] for line in said.splitlines()] == [
        *("describe", "list-instances", "delete", "describe", "delete", "describe", "delete")
    ]
    gcloud.run(SCRIPT, "logs", "--dry-run", *PLACE)
    assert gcloud.calls() == []


def test_the_shared_part_does_nothing_by_itself(gcloud):
    said = gcloud.run("launch/tpu_slice.sh", code=2)
    assert said == (
        "error: launch/tpu_slice.sh is part of tpu_vm.sh and compute_engine.sh,"
        " and does nothing by itself\n"
    )
