"""From a folder of pictures to runs and a page: what is seen, what is chosen, what is run."""

import collections
import dataclasses
import json
import re
import sys

import numpy as np
import pytest
from PIL import Image

from jaxt2i import from_folder
from jaxt2i.config import ConfigError
from jaxt2i.data.sources.folders import quantile
from jaxt2i.run import settings, suited

SEEN = suited.Seen(4000, 400, 128, 0.1, 2.0, 12, 900)


@pytest.fixture
def pictures(tmp_path):
    """Twelve pictures to train on, four held out, and one that is broken."""
    for split, count in (("train", 12), ("val", 4)):
        (tmp_path / "data" / split).mkdir(parents=True)
        for i in range(count):
            file = tmp_path / "data" / split / f"{i:02d}.png"
            Image.new("RGB", (80 if i < 6 else 40, 40), (10 * i, 0, 0)).save(file)
            file.with_suffix(".txt").write_text(f"a red thing\nnumber {i}, quite red and wide\n")
    (tmp_path / "data" / "train" / "12.png").write_bytes(b"no picture")
    (tmp_path / "data" / "train" / "12.txt").write_text("broken")
    return tmp_path / "data"


def test_what_a_folder_holds_is_seen(pictures, tmp_path):
    seen = suited.look(str(pictures), tmp_path / "run")
    assert dataclasses.asdict(seen) == {
        "pictures": 12,
        "held_out": 4,
        "short": 40,
        "cut": 0.5,
        "captions": 2.0,
        "longest": 6,
        "words": 19,
        "left_out": {"not an image": 1},
    }
    report = json.loads((tmp_path / "run" / "data_report_train.json").read_text())
    assert report["short_sides"] == {f"{q} %": 40 for q in (0, 10, 50, 90, 100)}


def test_quantiles_are_sides_of_pictures():
    sides = collections.Counter({16: 9, 32: 1, 64: 90})
    assert [quantile(sides, share) for share in (0, 9, 10, 11, 100)] == [16, 16, 32, 64, 64]
    assert quantile(collections.Counter(), 50) == 0


def values(choices):
    return {choice.key: choice.value for choice in choices}


@pytest.mark.parametrize(
    ("change", "accelerator", "key", "value"),
    [
        ({}, False, "data.resolution", 32),
        ({}, True, "data.resolution", 64),
        ({"short": 40}, True, "data.resolution", 32),
        ({"cut": 0.5}, False, "data.crop", "pad"),
        ({}, False, "data.crop", None),
        ({}, False, "total_steps", 80_000 // 128),
        ({"pictures": 100_000}, False, "total_steps", 256_000 // 128),
        ({"pictures": 40}, False, "total_steps", 50 * 40 // 8),
        ({"pictures": 600}, False, "batch_size", 128),
        ({"pictures": 40}, False, "batch_size", 8),
        ({}, False, "data.tokens", 24),
        ({"longest": 90}, False, "data.tokens", 77),
        ({"words": 20}, False, "model.vocab", 1024),
        ({}, False, "model.vocab", 2048),
        ({"held_out": 50}, False, "score_images", 50),
        ({"held_out": 50}, False, "stop_when_dead", False),
        ({}, False, "stop_when_dead", None),
    ],
)
def test_settings_follow_from_the_pictures(change, accelerator, key, value):
    seen = dataclasses.replace(SEEN, **change)
    chosen = [*suited.data_choices(seen, "data", accelerator), *suited.clip_choices(seen)]
    assert values(chosen).get(key) == value
    assert all(choice.why for choice in chosen)


@pytest.mark.parametrize("system", suited.SYSTEMS)
@pytest.mark.parametrize("perception", ["runs/clip", "clip_b32"])
def test_every_choice_is_a_setting_that_its_system_has(system, perception, monkeypatch, tmp_path):
    seen = dataclasses.replace(SEEN, held_out=20, cut=0.5)
    if perception == "clip_b32" and system == "stylegan_t":
        with pytest.raises(ConfigError, match="needs a guide beside CLIP"):
            suited.system_choices(seen, system, perception)
        return
    for size, name, own in (
        (32, system, suited.system_choices(seen, system, perception)),
        (64, "clip", suited.clip_choices(seen)),
    ):
        choices = [*suited.data_choices(seen, "a folder", size == 64), *own]
        told = suited.command(name, size, choices, tmp_path)
        # The flags of a configuration are found in the process' own command line.
        monkeypatch.setattr(sys, "argv", ["train", *told])
        found = settings.flat(settings.plain(settings.configuration(told[1], told[2:-2])))
        for choice in choices:
            assert str(found[choice.key]).replace(" ", "") in (
                str(choice.value).replace(" ", ""),
                str(choice.value).replace("(", "[").replace(")", "]"),
            )


def fake(calls, code=0):
    """A training that leaves its records behind."""

    def run(command):
        calls.append(command)
        workdir = from_folder.epath.Path(command[-1])
        assert (workdir / "data_report_train.json").is_file()
        (workdir / "samples").mkdir(exist_ok=True)
        lines = [{"step": n, "score/frechet": 2.5 - n} for n in (1, 2)]
        (workdir / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        for name in ("samples/00000009.png", "samples/00000010.png", "curves.png"):
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(workdir / name)
        return code

    return run


def test_the_trainings_follow_each_other_and_a_page_tells_of_them(
    pictures, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(from_folder, "has_accelerator", lambda: False)
    args = [str(pictures), "--to", str(tmp_path / "mine"), "--config.batch_size=4"]
    calls = []
    from_folder.main([*args, "--dry-run"], fake(calls))
    assert not calls
    assert "--config.data.crop=pad  (50% of the pictures would lose" in capsys.readouterr().out
    from_folder.main(args, fake(calls))
    assert [call[4].partition(":")[0] for call in calls] == ["clip", "galip"]
    assert f"--config.perception_from={tmp_path}/mine/clip" in calls[1]
    assert "--config.batch_size=4" in calls[1]
    assert "--config.batch_size=4" not in calls[0]
    page = (tmp_path / "mine" / "results.html").read_text()
    for words in ("12 pictures are few", "left out: 1 not an image"):
        assert words in page
    assert (
        re.findall(r"<td>frechet</td><td>(\S+)</td><td>(\S+)</td>", page)
        == [("1.500", "0.5000")] * 2
    )
    shown = ["samples/00000010.png", "clip/curves.png", "samples/00000010.png", "galip/curves.png"]
    assert re.findall(r"<p>([\w./]+)<img", page) == shown
    chosen = json.loads((tmp_path / "mine" / "chosen.json").read_text())
    assert chosen["seen"]["pictures"] == 12
    assert set(chosen["chosen"]) == {"clip", "galip"}
    # A CLIP that is there already is taken.
    (tmp_path / "mine" / "clip" / "config.json").write_text("{}")
    given = ["--perception", str(tmp_path / "mine" / "clip"), "--system", "df_gan"]
    from_folder.main([*args, *given], fake(calls))
    assert [call[4] for call in calls[2:]] == ["df_gan:emoji"]


def test_what_cannot_be_done_is_said(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(from_folder, "has_accelerator", lambda: False)
    to = ["--to", str(tmp_path / "mine")]
    for args, words in (
        ([str(tmp_path / "none"), *to], "no such folder"),
        ([str(pictures), *to, "--perception", "clip_b33"], "neither a run of CLIP nor clip_b32"),
        ([str(pictures / "val"), *to], "4 pictures with captions fill no batch"),
    ):
        with pytest.raises(ConfigError, match=words):
            from_folder.main(args)
    with pytest.raises(ConfigError, match="clip ended with exit status 3"):
        from_folder.main([str(pictures), *to], fake([], 3))
    with pytest.raises(SystemExit):
        from_folder.main([str(pictures), *to, "--lr=3"])
