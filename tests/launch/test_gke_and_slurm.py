"""launch/gke.sh, launch/slurm.sbatch and launch/preemptible.sh against stand-ins."""

import signal
import subprocess
import time

import pytest
import yaml

from tests.launch.stubs import ROOT, Stubs

GKE = (
    *("--name", "lite64", "--image", "host/project/jaxt2i-tpu:1", "--claim", "shared"),
    *("--accelerator", "tpu-v5-lite-podslice", "--topology", "4x8"),
)
AWKWARD = '--config.grid.prompts=("a \\ rose # ${NAME}", "$(id)")'


@pytest.fixture
def kubectl(tmp_path):
    stubs = Stubs(tmp_path / "stubs", "kubectl")
    stubs.answer({"apply": ["<stdin>"]})
    return stubs


def test_the_job_set_is_filled_in_and_applied(kubectl):
    train = ("--config", "configs/stylegan_t.py:lite64", "--workdir", "/mnt/shared/a b", AWKWARD)
    # The stand-in gives back what it was given.
    said = kubectl.run("launch/gke.sh", *GKE, "--", *train)
    assert kubectl.calls() == [["kubectl", "apply", "-f", "-"]]
    first, _, text = said.partition("\n")
    assert first == "+ kubectl apply -f -"
    job_set = yaml.safe_load(text)
    assert job_set["metadata"]["name"] == "lite64"
    assert job_set["spec"]["failurePolicy"] == {"maxRestarts": 100}
    (job,) = job_set["spec"]["replicatedJobs"]
    job = job["template"]["spec"]
    # 32 chips, 4 a host; one lost pod ends them all.
    assert (job["parallelism"], job["completions"], job["backoffLimit"]) == (8, 8, 0)
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x8",
    }
    (container,) = pod["containers"]
    assert container["image"] == "host/project/jaxt2i-tpu:1"
    assert container["args"] == list(train)
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert (ROOT / container["command"][0]).is_file()
    (volume,) = pod["volumes"]
    assert volume["persistentVolumeClaim"] == {"claimName": "shared"}
    assert container["volumeMounts"][0]["name"] == volume["name"]


def test_a_dry_run_prints_it_alone(kubectl):
    said = kubectl.run("launch/gke.sh", *GKE, "--dry-run", "--", "--config", "x")
    assert kubectl.calls() == []
    assert yaml.safe_load(said)["kind"] == "JobSet"
    assert not [line for line in said.splitlines() if "${" in line and "#" not in line]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (GKE[2:], "--name is missing"),
        ((*GKE, "--chips", "3"), "--topology 4x8 has 32 chips, which --chips 3 does not divide"),
        ((*GKE, "--topology", "16"), "--topology is '16', not of the form 4x4 or 2x2x4"),
        ((*GKE, "--image", 'a" evil: "b'), "--image is 'a\" evil: \"b', which is no such name"),
        ((*GKE, "--zone", "z"), "unknown option '--zone'"),
    ],
)
def test_gke_refuses_what_it_cannot_use(kubectl, args, words):
    said = kubectl.run("launch/gke.sh", *args, "--", "--config", "x", code=2)
    assert f"error: {words}" in said
    assert kubectl.calls() == []


def test_gke_helps(kubectl):
    said = kubectl.run("launch/gke.sh", "--help")
    assert said.startswith("Starts a training run on a TPU slice of a GKE cluster")
    assert "error" not in said


@pytest.fixture
def slurm(tmp_path):
    """A cluster whose srun runs nothing; the job was submitted from the temporary folder."""
    stubs = Stubs(tmp_path / "stubs", "srun", "scontrol", "squeue")
    stubs.env |= {
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "77",
        "SLURM_NTASKS_PER_NODE": "8",
        "SLURM_GPUS_ON_NODE": "8",
    }
    return stubs


TRAIN = ("--config", "configs/stylegan_t.py:lite64", "--workdir", "/shared/a run")
SRUN = [
    *("srun", "--kill-on-bad-exit=0", "--wait=60", "launch/preemptible.sh"),
    *("python", "-m", "jaxt2i.train", *TRAIN),
]


def test_a_slurm_job_runs_to_its_end(slurm):
    slurm.run("launch/slurm.sbatch", *TRAIN)
    assert slurm.calls() == [SRUN]


@pytest.mark.parametrize(
    ("state", "then", "code"),
    [("RUNNING\n", [["scontrol", "requeue", "77"]], 0), ("COMPLETING\n", [], 75)],
)
def test_a_preempted_slurm_job_goes_back_unless_it_was_cancelled(slurm, state, then, code):
    slurm.answer({"srun": [("", "", 75)], "squeue": [state]})
    slurm.run("launch/slurm.sbatch", *TRAIN, code=code)
    assert slurm.calls() == [SRUN, ["squeue", "-h", "-j", "77", "-o", "%T"], *then]


def test_a_failed_slurm_job_fails(slurm):
    slurm.answer({"srun": [("", "", 1)]})
    slurm.run("launch/slurm.sbatch", *TRAIN, code=1)
    assert slurm.calls() == [SRUN]
    assert "nothing to train" in slurm.run("launch/slurm.sbatch", code=2)


def test_one_process_a_node_drives_all_its_gpus(slurm):
    (slurm.folder / "srun").write_text(
        '#!/usr/bin/env bash\necho "ids ${JAX_LOCAL_DEVICE_IDS-none}; $*"\n'
    )
    slurm.env |= {"SLURM_NTASKS_PER_NODE": "1", "SLURM_GPUS_ON_NODE": "4"}
    slurm.env["JAXT2I_LAUNCH"] = "apptainer exec --nv gpu.sif"
    said = slurm.run("launch/slurm.sbatch", *TRAIN)
    assert "ids 0,1,2,3;" in said
    assert "preemptible.sh apptainer exec --nv gpu.sif python -m jaxt2i.train" in said
    slurm.env["SLURM_NTASKS_PER_NODE"] = "4"
    assert "ids none;" in slurm.run("launch/slurm.sbatch", *TRAIN)


def test_the_batch_options_are_read_before_any_command():
    lines = (ROOT / "launch" / "slurm.sbatch").read_text().splitlines()
    options = [line for line in lines if line.startswith("#SBATCH ")]
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert max(map(lines.index, options)) < first_command
    assert "#SBATCH --requeue" in options
    # To the tasks alone: the batch script lives on and puts the job back.
    assert "#SBATCH --signal=TERM@300" in options


@pytest.mark.parametrize(
    ("body", "asked", "code"),
    [
        ("exit 0", False, 0),
        ("exit 4", False, 4),
        ("trap 'exit 0' TERM; echo up; sleep 20 & wait", True, 75),
        ("trap 'sleep .3; exit 4' TERM; echo up; sleep 20 & wait", True, 4),
        ("echo up; exec sleep 20", True, 75),
    ],
)
def test_asked_to_stop_is_told_from_finished(body, asked, code):
    process = subprocess.Popen(
        [ROOT / "launch" / "preemptible.sh", "bash", "-c", body], stdout=subprocess.PIPE, text=True
    )
    if asked:
        assert process.stdout.readline() == "up\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == code
