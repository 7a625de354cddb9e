"""benchmarks/peer.py and parity.py, on a made-up checkout; the official ones are not here."""

import json
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxt2i.engine.method import Ctx
from jaxt2i.run import open as runs
from jaxt2i.run import training

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path += [str(BENCHMARKS), str(Path(__file__).parent)]

import made_up  # noqa: E402
import parity  # noqa: E402
import peer  # noqa: E402
from peers import given, ours, sizes, talk  # noqa: E402


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


def test_both_sides_learn_from_the_same_start(tmp_path, kept, monkeypatch, capsys):
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

    # A third run, off by one rounding, joins what is kept.
    monkeypatch.setattr(
        parity, "results", lambda name, ending="json": tmp_path / f"{name}.{ending}"
    )
    again = [*where, "--steps=2", "--held=8", "--look-every=1", "--add-rounding", "--save=kept"]
    assert parity.main(again) == 2
    assert "kept.json is not there" in capsys.readouterr().err
    machine = {"cpu": "some", "jax": "0", "commit": "abc", "date": "today"}
    (tmp_path / "kept.json").write_text(json.dumps({"machine": machine, "lines": kept}))
    assert parity.main([*again, "--steps=3"]) == 2
    assert "keeps another run: steps is 2, not 3" in capsys.readouterr().err
    kept.clear()
    assert parity.main(again) == 0
    setup, official, ours, rounded, verdict = kept
    assert setup["before_rounding"] == machine
    assert [x["side"] for x in (official, ours, rounded)] == ["official", "ours", "rounded"]
    assert rounded["frechet"]["0"] == pytest.approx(ours["frechet"]["0"], abs=1e-3)
    moved = verdict["root mean square of differences"]
    assert 0 <= moved["g"]["roundings_apart"][0] < 0.1
    assert moved["real"]["first_step_apart"] == found["real"]["first_step_apart"]
    assert (tmp_path / "kept.png").stat().st_size > 1000
    json.dumps(kept)


@pytest.mark.parametrize("system", ["galip", "souza", "stylegan_t"])
def test_both_sides_are_given_the_same(system, tmp_path, monkeypatch, capsys):
    size = sizes.PARITY[system]["tiny"]
    job = {"system": system, "size": size, "batch": ""}
    job |= {"precision": "float32", "seed": 0, "given": True}
    # What the made-up checkout holds and what our side is made of is traced once.
    run = runs.open_run(ours.config_of(job))
    templates = ours.templates_of(run)
    monkeypatch.setattr(runs, "open_run", lambda _: run)
    monkeypatch.setattr(ours, "templates_of", lambda _: templates)
    checkout, python = made_up.written(tmp_path, size, system)
    job["checkout"] = str(checkout)
    job |= {name: str(tmp_path / f"{name}.npz") for name in ("data", "weights")}
    rows, held = made_up.rows(size, 2), made_up.rows(size, 1)
    np.savez(job["data"], **rows, **{f"held_{k}": x for k, x in held.items() if k != "image"})
    with talk.Child("official", job, python=str(python), threads=1) as side:
        command = {"data": job["data"], "steps": 2, "batch": size["batch"], "at_once": 3}
        side.ask(do="learn", look_at=[0], out=str(tmp_path), **command)
    assert "official: step 0 of 2" in capsys.readouterr().err
    heard = json.loads((tmp_path / "losses.json").read_text())
    expected = made_up.LOSSES[system](rows, size["batch"])
    assert heard[1] == pytest.approx(expected, rel=1e-4)
    # The made-up generator draws its first latent.
    bytes_of = ((held["z"][:, 0].clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    np.testing.assert_array_equal(np.load(tmp_path / "0.npy")[:, 0, 0, 0], bytes_of)

    def traced(method, rules, layout, spec, there):
        def logs(state, frozen, batch):
            ctx = Ctx(method, state.params, state.extra, frozen, key=jax.random.key(0))
            return {p.name: {"loss": 0} | p.loss(ctx, batch)[1] for p in method.players}

        found = jax.eval_shape(logs, *there, spec)
        names = {f"{player}/{name}": [0.0] for player, made in found.items() for name in made}
        assert set(expected) <= set(parity.named({"side": "ours", "losses": names}))
        assert sizes.draws(size).keys() <= spec.keys()
        return types.SimpleNamespace(play={1: None}, compile_seconds=0, flops=0)

    monkeypatch.setattr(training, "compile_step", traced)
    side = ours.Side(job)
    kernels = jax.tree.leaves([side.state.params, side.frozen])
    assert float(kernels[0].ravel()[0]) == pytest.approx(0.01)


def test_a_run_that_is_off_by_one_rounding_measures_the_sides(tmp_path):
    np.savez(tmp_path / "weights.npz", x=np.ones(1000, np.float32))
    with np.load(parity.rounded(tmp_path / "weights.npz")) as file:
        assert 0 < np.abs(file["x"] - 1).max() < 1e-6

    def line(side, values):
        name = "g" if side == "official" else "g/loss"
        score = {"0": 2.0, "9": values[-1]}
        return {"seed": 0, "side": side, "losses": {name: values}, "frechet": score}

    runs = {"official": [1.0, 2.0, 4.0], "ours": [1.0, 2.1, 4.4], "rounded": [1.0, 2.0, 4.7]}
    found = parity.verdict([line(*run) for run in runs.items()])
    curve = found["root mean square of differences"]["g"]
    assert curve["first_step_apart"] == [0.0]
    assert curve["next_steps_apart"] == [[0.1, 0.4]]
    assert curve["rounding_steps_apart"] == [[0.0, 0.1, 0.3]]
    assert curve["sides_apart"] == [pytest.approx(0.5 / 3, abs=1e-4)]
    assert curve["roundings_apart"] == [pytest.approx(0.2 / 3, abs=1e-4)]


def test_noise_comes_in_the_order_of_the_layers():
    size = {"resolution": 16, "res_blocks": 1, "z_dim": 2, "draws_each": True}
    widths = sizes.draws(size)
    batch = {name: np.arange(3.0 * n).reshape(3, n) for name, n in widths.items()}
    maps = given.named(size, batch)["noise_g"]["noise"]
    assert list(maps) == ["b8/convs1_0", "b8/convs1_1", "b16/conv0", "b16/convs1_0", "b16/convs1_1"]
    for row in range(3):
        joined = np.concatenate([x[row].ravel() for x in maps.values()])
        np.testing.assert_array_equal(joined, batch["noise_g"][row])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "no checkout of the official code was named; git clone"),
        (["--checkout=nowhere"], "--checkout=nowhere is not a folder"),
        (["--checkout=."], "--checkout=. has no file code/lib/modules.py"),
        (["--width=published"], "no checkout"),
    ],
)
def test_without_a_checkout_one_sentence_says_so(more, said, capsys, monkeypatch):
    from peers import checkout

    def child(side, job, **_):
        checkout.folder(job["system"], job["checkout"], checkout.NEEDS[job["system"]])

    monkeypatch.setattr(peer, "Child", child)
    assert peer.main(["--system=df_gan", *more]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1


def test_a_dead_side_leaves_its_last_words(tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho out of memory >&2\nexit 3\n")
    script.chmod(0o755)
    with pytest.raises(talk.PeerError, match=r"code 3; its last words were: out of memory"):
        talk.Child("official", {"system": "df_gan"}, python=str(script), threads=1)
