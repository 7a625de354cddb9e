"""benchmarks/peer.py and parity.py, on a made-up checkout; the official ones are not here."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path += [str(BENCHMARKS), str(Path(__file__).parent)]

import made_up  # noqa: E402
import parity  # noqa: E402
import peer  # noqa: E402
from peers import sizes, talk  # noqa: E402


@pytest.fixture
def kept(monkeypatch):
    """What a script would have kept in benchmarks/results."""
    lines = []
    for script in (peer, parity):
        monkeypatch.setattr(script, "report", lambda found, name: lines.extend(found))
    return lines


def test_both_sides_are_measured_in_turns(tmp_path, kept):
    checkout, python = made_up.written(tmp_path, sizes.SIZES["df_gan"]["tiny"])
    where = ["--system=df_gan", "--width=tiny", f"--checkout={checkout}", f"--python={python}"]
    assert peer.main([*where, "--windows=2", "--length=2", "--sampling=1"]) == 0
    sides, step, sample = kept
    assert sides["official"]["parameters"] == sides["ours"]["parameters"]
    assert sides["official"]["stand_ins"] == ["nltk"]
    assert step["pictures"] == 4
    assert sample["pictures"] == 1
    for line in (step, sample):
        assert 0 < line["official"]["s"] < line["ours"]["s"]
        assert line["times_as_fast"] < 1
    assert step["memory"]["ours"]["rss_mib"] > step["memory"]["official"]["rss_mib"] > 0


def test_both_sides_learn_from_the_same_start(tmp_path, kept):
    checkout, python = made_up.written(tmp_path, sizes.PARITY["df_gan"]["tiny"])
    where = ["--system=df_gan", "--width=tiny", f"--checkout={checkout}", f"--python={python}"]
    assert parity.main([*where, "--steps=2", "--seeds=0", "--held=8", "--look-every=1"]) == 0
    setup, official, ours, verdict = kept
    assert setup["steps"] == 2
    assert list(official["frechet"]) == list(ours["frechet"]) == ["0", "1", "2"]
    found = verdict["root mean square of differences"]
    assert set(found) == {"d", "g", "real", "fake", "mismatched", "penalty", "frechet"}
    # The made-up discriminator says the mean of a picture, ours something else.
    assert found["real"]["first_step_apart"][0] > 1e-4
    json.dumps(kept)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "no checkout of the official code was named; git clone"),
        (["--checkout=nowhere"], "--checkout=nowhere is not a folder"),
        (["--checkout=."], "--checkout=. has no file code/lib/modules.py"),
        (["--width=published"], "no checkout"),
    ],
)
def test_without_a_checkout_one_sentence_says_so(given, said, capsys, monkeypatch):
    from peers import checkout

    def child(side, job, **_):
        checkout.folder(job["system"], job["checkout"], checkout.NEEDS[job["system"]])

    monkeypatch.setattr(peer, "Child", child)
    assert peer.main(["--system=df_gan", *given]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1


def test_a_dead_side_leaves_its_last_words(tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho out of memory >&2\nexit 3\n")
    script.chmod(0o755)
    with pytest.raises(talk.PeerError, match=r"code 3; its last words were: out of memory"):
        talk.Child("official", {"system": "df_gan"}, python=str(script), threads=1)
