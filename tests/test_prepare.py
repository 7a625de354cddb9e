"""python -m jaxt2i.prepare as a person uses it: build, check, show, list, and what goes wrong."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxt2i import prepare
from jaxt2i.data.builders import BUILDERS
from jaxt2i.data.sources import records
from tests.data.builders import test_coco, test_cub, test_multi30k
from tests.data.builders.pictures import cut

pytestmark = pytest.mark.xdist_group("prepare")
ROOT = Path(__file__).parent.parent


def run(capsys, *args):
    """(what it said, what it told on the way)."""
    prepare.main([str(a) for a in args])
    return capsys.readouterr()


def failure(capsys, *args):
    with pytest.raises(SystemExit) as exit_:
        prepare.main([str(a) for a in args])
    return f"{exit_.value} {capsys.readouterr().err}"


@pytest.fixture
def birds(tmp_path):
    return test_cub.tree(tmp_path / "in")


def files_below(folder):
    return {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def test_builds_tells_and_trains(birds, tmp_path, capsys):
    kind, stem = test_cub.BIRDS[0]
    cut(birds / "CUB_200_2011" / "images" / kind / f"{stem}.jpg")
    out, told = run(capsys, "cub", "--from", birds, "--to", tmp_path / "data")
    assert "train             2 images; captions: 2 with 10; 20 en; published: 8,855" in out
    assert "skipped: 1 truncated or corrupt" in out
    assert "--config.data.source=records --config.data.path=" in out
    assert "jaxt2i_cub: train: 3/3, 1 skipped" in told
    folder = tmp_path / "data" / "jaxt2i_cub" / "1.0.0"
    report = json.loads((folder / "prepare.json").read_text())
    assert report["skipped_files"] == [
        {"file": f"{kind}/{stem}.jpg", "reason": "truncated or corrupt"}
    ]
    before = files_below(folder)
    out, _ = run(capsys, "cub", "--from", birds, "--to", tmp_path / "data")
    assert "already; --overwrite builds it again" in out
    assert files_below(folder) == before


def test_an_interrupted_build_is_done_again(birds, tmp_path, capsys):
    """Killed while it writes: nothing half-written is taken for a data set, and leftovers go."""
    command = [
        sys.executable,
        "-c",
        "import os, sys\n"
        "from jaxt2i import prepare\n"
        "from jaxt2i.data.builders import record\n"
        "whole = record.encode\n"
        "def encode(r, *a):\n"
        "    if 'Raven' in r.key: os._exit(9)\n"
        "    return whole(r, *a)\n"
        "record.encode = encode\n"
        "prepare.main(sys.argv[1:])",
        "cub",
        "--from",
        str(birds),
        "--to",
        str(tmp_path / "data"),
    ]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == 9, killed.stderr
    assert not list((tmp_path / "data").rglob(records.INFO))
    assert list((tmp_path / "data").rglob("incomplete.*"))
    out, told = run(capsys, "cub", "--from", birds, "--to", tmp_path / "data")
    assert "was interrupted and is built again" in told
    assert "3 images" in out
    assert not list((tmp_path / "data").rglob("incomplete.*"))


def test_check_writes_nothing(birds, tmp_path, capsys):
    before = files_below(tmp_path)
    out, _ = run(capsys, "cub", "--from", birds, "--to", tmp_path / "data", "--check")
    assert "train             3 images; captions: 3 with 10; published: 8,855" in out
    assert files_below(tmp_path) == before


def test_shows_every_split(birds, tmp_path, capsys):
    out, _ = run(capsys, "cub", "--from", birds, "--to", tmp_path / "data", "--show", 2)
    shown = [Path(line) for line in out.splitlines() if line.endswith(".png")]
    assert [p.name for p in shown] == ["show-train.png", "show-test.png"]
    with Image.open(shown[0]) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 2000, "pictures were drawn"


def test_shows_what_a_network_sees(birds, tmp_path, capsys):
    run(capsys, "cub", "--from", birds, "--to", tmp_path / "data")
    png = tmp_path / "seen.png"
    command = ["--pipeline", "--show", 4, "--png", png, "--config", "configs/df_gan.py:tiny"]
    settings = ["--config.data.source=records", f"--config.data.path={tmp_path / 'data'}"]
    # As a function: nothing is read of what this program was started with.
    out, _ = run(capsys, *command, *settings)
    assert out.strip() == str(png)
    with Image.open(png) as image:
        assert min(image.size) > 300


def test_lists_are_drawn_once_and_for_all(tmp_path, capsys):
    root = test_coco.tree(tmp_path / "in")
    data = tmp_path / "data"
    run(capsys, "coco", "--from", root, "--to", data)
    out, _ = run(capsys, "coco", "--to", data, "--list", 2, "--split", "val")
    pairs = json.loads(Path(out.strip()).read_text())
    assert len({name for name, _ in pairs}) == 2
    assert all(0 <= caption < 5 for _, caption in pairs)
    again, _ = run(capsys, "coco", "--to", data, "--list", 2, "--split", "val")
    assert json.loads(Path(again.strip()).read_text()) == pairs
    other, _ = run(capsys, "coco", "--to", data, "--list", 2, "--split", "val", "--seed", 5)
    assert json.loads(Path(other.strip()).read_text()) != pairs
    assert "has 2 pictures in 'val', not 3" in failure(
        capsys, "coco", "--to", data, "--list", 3, "--split", "val"
    )


def test_beam_builds_the_same_records(tmp_path, capsys):
    root = test_multi30k.tree(tmp_path / "in")
    name = "multi30k/task2"
    plain, _ = run(capsys, name, "--from", root, "--to", tmp_path / "a")
    beam, _ = run(capsys, name, "--from", root, "--to", tmp_path / "b", "--beam")
    counts = [[line for line in text.splitlines() if "images" in line] for text in (plain, beam)]
    assert counts[0] == counts[1]
    one, other = (
        {p.name: p.read_bytes() for p in (tmp_path / k).rglob("*.array_record*")} for k in "ab"
    )
    assert one == other != {}


def test_archives_are_checked_too(birds, tmp_path, capsys):
    packed = tmp_path / "packed"
    packed.mkdir()
    for name, archive in (("CUB_200_2011", "CUB_200_2011"), ("cvpr2016_cub", "cvpr2016_cub")):
        shutil.make_archive(str(packed / archive), "gztar", birds, name)
    (packed / "CUB_200_2011.tar.gz").rename(packed / "CUB_200_2011.tgz")
    before = files_below(tmp_path)
    out, told = run(capsys, "cub", "--from", packed, "--to", tmp_path / "data", "--check")
    assert "3 images" in out
    assert "unpacking" in told
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    ("args", "match"),
    [
        (["cubs"], "no data set 'cubs'; known: ade20k, coco"),
        (["coco/2015", "--from", "."], "no data set coco/2015; known: coco/2014, coco/2017"),
        (["cub", "--from", "/no/such"], "--from /no/such is no folder"),
        (["cub"], "holds no records of cub; give --from DIR"),
        (["cub", "--check"], "--check needs --from DIR"),
        (["cub", "--frm", "x"], "unknown argument --frm"),
        ([], "which data set? ade20k, coco, coco_stuff, cub"),
        (["--pipeline"], "--pipeline needs --config"),
        (["cub", "--from", "gs://b/cub"], "--from gs://b/cub: official files are unpacked on this"),
        (["cub", "--to", "gs://b/x"], "copy DIR there (gcloud storage cp -r DIR gs://b/x)"),
        (
            ["--pipeline", "--show", "1", "--config", "df_gan:tiny", "--config.optim.rate=1"],
            "has no setting config.optim.rate; did you mean",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(tmp_path, capsys, args, match):
    to = () if "--to" in args else ("--to", tmp_path / "data")
    assert match in failure(capsys, *args, *to)


def test_missing_files_are_all_named(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    said = failure(capsys, "cub", "--from", tmp_path / "in", "--to", tmp_path / "data")
    for part in (
        "cub is missing",
        "expected below --from",
        "CUB_200_2011",
        "CUB_200_2011.tgz",
        "text_c10",
        "Non-commercial",
    ):
        assert part in said


def test_names_are_the_builders():
    assert prepare.known() == sorted(BUILDERS)


@pytest.mark.parametrize("args", [("--seed", "-1"), ("--seed", "4294967296"), ("--show", "0")])
def test_numbers_that_do_not_exist_are_refused(args, capsys):
    with pytest.raises(SystemExit):
        prepare.arguments(["cub", *args])
    assert "expected" in capsys.readouterr().err
