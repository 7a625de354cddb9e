"""Sampling: the latent tools, latents from a file, converted weights, and what is refused."""

import json
from concurrent import futures

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import jaxt2i
from jaxt2i import api, sample
from jaxt2i.config import ConfigError
from jaxt2i.convert.__main__ import main as convert
from jaxt2i.run import attention, folder, walk
from jaxt2i.run import open as runs
from jaxt2i.run import settings as run_settings
from tests.evaluation import small

pytestmark = pytest.mark.xdist_group("sample")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Of the system that compiles soonest."""
    return small.untrained(tmp_path_factory.mktemp("run") / "toy", small.TOY, steps=(1,))


@pytest.fixture(scope="module")
def df_gan(tmp_path_factory):
    return small.untrained(tmp_path_factory.mktemp("run") / "df_gan", steps=(1,))


def draw(workdir, out, *args):
    """(pictures in order, the lines of metadata.jsonl)."""
    sample.main(["--workdir", str(workdir), "--out", str(out), *args])
    lines = [json.loads(x) for x in (out / "metadata.jsonl").read_text().splitlines()]
    lines.sort(key=lambda line: line["number"])
    return [np.asarray(Image.open(out / x["file_name"])) for x in lines], lines


def test_walks_start_and_end_at_the_plain_pictures(workdir, tmp_path):
    plain, _ = draw(workdir, tmp_path / "a", "--prompts", "a rose", "an owl", "--num", "2")
    (rose0, rose1), (owl0, _) = plain[:2], plain[2:]
    texts, _ = draw(workdir, tmp_path / "b", "--interpolate", "a rose", "an owl", "--num", "3")
    np.testing.assert_array_equal(texts[0], rose0)
    np.testing.assert_array_equal(texts[-1], owl0)
    walk = ("--interpolate-z", "0", "1", "--prompts", "a rose", "--num", "3")
    latents, lines = draw(workdir, tmp_path / "c", *walk)
    np.testing.assert_array_equal(latents[0], rose0)
    np.testing.assert_array_equal(latents[-1], rose1)
    assert np.any(latents[1] != rose0)
    assert [x["towards"]["mix_z"] for x in lines] == [0, 0.5, 1]
    again, _ = draw(workdir, tmp_path / "d", "--conditions", str(tmp_path / "c" / "metadata.jsonl"))
    for a, b in zip(latents, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_both_walks_make_a_grid_of_captions_by_latents(workdir, tmp_path):
    both = ("--interpolate", "a rose", "an owl", "--interpolate-z", "0", "1", "--num", "3")
    pictures, lines = draw(workdir, tmp_path / "a", *both)
    assert [(x["towards"]["mix"], x["towards"]["mix_z"]) for x in lines] == [
        (a, b) for a in (0, 0.5, 1) for b in (0, 0.5, 1)
    ]
    corners, _ = draw(workdir, tmp_path / "b", "--prompts", "a rose", "an owl", "--num", "2")
    for at, corner in zip((0, 2, 6, 8), corners, strict=True):
        np.testing.assert_array_equal(pictures[at], corner)


def test_rows_share_a_prompt_and_columns_a_latent(workdir, tmp_path):
    args = ["--workdir", "x", "--prompts", "a", "b", "--num", "3", "--seed", "5"]
    rows, columns = sample.all_rows(sample.arguments(args)[0], jaxt2i.load(workdir))
    assert columns == 3
    assert [(r["prompt"], r["seed"]) for r in rows] == [(p, s) for p in "ab" for s in (5, 6, 7)]


def test_given_latents_take_the_place_of_seeds(workdir, tmp_path):
    run = runs.open_run(run_settings.read_config(workdir))
    z = np.stack([run.method.sampler.latent(jax.random.key(s)) for s in (3, 4)])
    np.save(tmp_path / "z.npy", z)
    args = ("--prompts", "a rose", "an owl")
    pictures, lines = draw(workdir, tmp_path / "a", *args, "--z", str(tmp_path / "z.npy"))
    np.testing.assert_array_equal(np.load(tmp_path / "a" / lines[1]["z"]), z[1])
    for prompt, seed, picture in (("a rose", 3, pictures[0]), ("an owl", 4, pictures[1])):
        alone = ("--prompts", prompt, "--seed", str(seed))
        want, _ = draw(workdir, tmp_path / prompt, *alone)
        np.testing.assert_array_equal(picture, want[0])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.floats(0, 1))
def test_a_spherical_walk_keeps_to_the_sphere(seed, share):
    a, b = np.random.default_rng(seed).standard_normal((2, 64)).astype(np.float32)
    b = b * (np.linalg.norm(a) / np.linalg.norm(b))
    assert np.linalg.norm(walk.slerp(a, b, share)) == pytest.approx(np.linalg.norm(a), rel=1e-3)
    np.testing.assert_array_equal(walk.slerp(a, b, 0), a)
    np.testing.assert_array_equal(walk.slerp(a, b, 1), b)
    np.testing.assert_allclose(walk.slerp(a, a, share), a, atol=1e-6)


def test_the_same_command_continues_a_folder(workdir, tmp_path):
    args = ("--prompts", "a rose", "an owl", "--num", "2")
    whole, lines = draw(workdir, tmp_path / "a", *args)
    # As if it had been stopped: two pictures and half a line.
    text = (tmp_path / "a" / "metadata.jsonl").read_text().splitlines()
    (tmp_path / "a" / "metadata.jsonl").write_text("\n".join(text[:2]) + "\n" + text[2][:9])
    for name in ("000002.png", "000003.png"):
        (tmp_path / "a" / name).unlink()
    before = (tmp_path / "a" / "000000.png").stat().st_mtime_ns
    again, found = draw(workdir, tmp_path / "a", *args)
    assert (tmp_path / "a" / "000000.png").stat().st_mtime_ns == before
    assert found == lines
    for a, b in zip(whole, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_was_drawn_before_an_end_is_kept(tmp_path, monkeypatch):
    class AtOnce(futures.ThreadPoolExecutor):
        def submit(self, do, *args):
            done = futures.Future()
            done.set_result(do(*args))
            return done

    def drawn(place, known):
        for i in range(3):
            # A program that is killed runs nothing more: the lines are there as pictures come.
            known.append(len(list(place._lines())))
            yield {"number": i, "seed": i}, {"image": np.zeros((4, 4, 3), np.uint8)}
        raise KeyboardInterrupt

    for pool in (AtOnce, futures.ThreadPoolExecutor):
        monkeypatch.setattr(folder, "ThreadPoolExecutor", pool)
        place, known = folder.Folder(tmp_path / pool.__name__, {}), []
        place.open()
        with pytest.raises(KeyboardInterrupt):
            place.write(drawn(place, known))
        assert known == [0, 1, 2] or pool is not AtOnce
        again = folder.Folder(tmp_path / pool.__name__, {})
        again.open()
        assert [row["number"] for row in again.missing([{"seed": 0}] * 4)] == [3]


def test_pictures_to_edit_are_refused_by_what_edits_none(workdir, tmp_path):
    with pytest.raises(ConfigError, match=r"toy edits no pictures; it draws from prompt"):
        draw(workdir, tmp_path / "a", "--edit", "photo.png", "--prompts", "a rose")
    with pytest.raises(ConfigError, match="the region al: no such file; expected a mask's file"):
        draw(workdir, tmp_path / "a", "--edit", "x.png", "--region", "al", "--prompts", "a rose")


def test_a_folder_of_other_pictures_is_not_mixed_with_these(workdir, tmp_path, capsys):
    draw(workdir, tmp_path / "a", "--prompts", "a rose", "--num", "3")
    (tmp_path / "a" / "mine.txt").write_text("kept")
    with pytest.raises(ConfigError, match="drawn otherwise"):
        draw(workdir, tmp_path / "a", "--prompts", "an owl")
    pictures, _ = draw(workdir, tmp_path / "a", "--prompts", "an owl", "--overwrite")
    assert len(pictures) == 1
    assert "3 pictures that were drawn otherwise were removed" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "a").glob("0*")) == ["000000.png"]
    assert (tmp_path / "a" / "mine.txt").read_text() == "kept"


def test_the_python_api_draws_what_the_command_draws(workdir, tmp_path):
    pictures, lines = draw(workdir, tmp_path / "a", "--prompts", "a rose", "an owl", "--num", "2")
    system = jaxt2i.load(workdir)
    drawn = system.sample(["a rose", "an owl"], num=2)
    np.testing.assert_array_equal(drawn.arrays, pictures)
    assert drawn.seeds == [x["seed"] for x in lines]
    assert drawn.prompts == ["a rose"] * 2 + ["an owl"] * 2
    assert [np.array_equal(np.asarray(a), b) for a, b in zip(drawn.images, pictures, strict=True)]
    saved = drawn.save(tmp_path / "b")
    assert (saved / "000003.png").read_bytes() == (tmp_path / "a" / "000003.png").read_bytes()
    again = system.sample(drawn.rows)
    np.testing.assert_array_equal(again.arrays, drawn.arrays)
    assert drawn.grid().width > drawn.grid(columns=1).width
    assert drawn._repr_png_()[:4] == b"\x89PNG"
    ends = system.interpolate("a rose", "an owl", num=3)
    np.testing.assert_array_equal(ends.arrays[[0, 2]], drawn.arrays[[0, 2]])
    with pytest.raises(ConfigError, match="draws no 'stages'"):
        system.sample(["a rose"], also=("stages",))
    with pytest.raises(ConfigError, match=r"no control 'psi'; known: none"):
        system.sample(["a rose"], psi=0.7)


def test_converted_weights_draw_what_the_run_draws(df_gan, tmp_path, capsys):
    assert convert(["df_gan", "--from", str(df_gan), "--to", str(tmp_path / "w")]) == 0
    (tmp_path / "w" / "d.safetensors").unlink()
    source = ("--config", "configs/df_gan.py:tiny", "--weights", str(tmp_path / "w"))
    sample.main([*source, "--prompts", "a rose", "--out", str(tmp_path / "a")])
    assert "weights of g, c from" in capsys.readouterr().out
    want, _ = draw(df_gan, tmp_path / "b", "--prompts", "a rose")
    got = Image.open(tmp_path / "a" / "000000.png")
    np.testing.assert_array_equal(np.asarray(got), want[0])


def test_weights_that_do_not_fit_are_named(df_gan, tmp_path):
    convert(["df_gan", "--from", str(df_gan), "--to", str(tmp_path)])
    other = run_settings.preset("configs/df_gan.py", "tiny")
    other.model.g_base = 8
    with pytest.raises(ConfigError, match=r"g\.safetensors.*where the configuration asks for"):
        api.load_weights(other, tmp_path)
    (tmp_path / "g.safetensors").unlink()
    config = run_settings.preset("configs/df_gan.py", "tiny")
    with pytest.raises(ConfigError, match=r"network 'g' is needed and not there; there are c, d"):
        api.load_weights(config, tmp_path).sample(["a rose"])
    with pytest.raises(ConfigError, match=r"no \.safetensors"):
        api.load_weights(config, tmp_path / "nowhere")


@pytest.mark.parametrize(
    "args",
    [
        ("--prompts", "a"),
        ("--workdir", "x"),
        ("--workdir", "x", "--prompts", "a", "--interpolate", "a", "b"),
        ("--workdir", "x", "--prompts", "a", "--config.seed=1"),
        ("--workdir", "x", "--prompts", "a", "--z", "f", "--num", "2"),
        ("--config", "c", "--prompts", "a"),
        ("--workdir", "x", "--prompts", "a", "--numm", "3"),
        ("--workdir", "x", "--prompts", "a", "--seed", "-1"),
        ("--workdir", "x", "--prompts", "a", "--seed", "4294967296"),
        ("--workdir", "x", "--prompts", "a", "--seed", "4294967295", "--num", "2"),
        ("--workdir", "x", "--prompts", "a", "--interpolate-z", "-3", "5"),
        ("--workdir", "x", "--prompts", "a", "--set", "psi"),
        ("--workdir", "x", "--prompts", "a", "--psi", "0.7"),
        ("--workdir", "x", "--prompts", "a\udcff"),
        ("--workdir", "x", "--interpolate", "a", "b\udcff"),
        ("--config", "c", "--weights", "w", "--prompts", "a", "--data", "d"),
        ("--config", "c", "--weights", "w", "--prompts", "a", "--step", "3"),
        ("--workdir", "x", "--prompts", "a", " "),
        ("--workdir", "x", "--interpolate", "a", ""),
        ("--workdir", "x", "--interpolate", "a", "b", "--num", "1"),
        ("--workdir", "x", "--interpolate-z", "1", "2", "--prompts", "a", "--num", "1"),
        ("--workdir", "x", "--prompts", "a", "--set", "psi=0.5", "psi=0.7"),
        ("--workdir", "x", "--prompts", "a", "--set", "psi=0.5", "--sweep", "psi=0,1"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(args, capsys):
    with pytest.raises(SystemExit):
        sample.arguments(args)
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [
        "one\ntwo\n".encode("utf-8-sig"),
        b"one\r\n\r\n  two  \r\n",
        "one\ntwo".encode("utf-16"),
        b"one\rtwo",
    ],
)
def test_prompts_of_any_editor_are_read(tmp_path, content):
    (tmp_path / "p.txt").write_bytes(content)
    args, _ = sample.arguments(["--workdir", "x", "--prompts-file", str(tmp_path / "p.txt")])
    assert sample.read_prompts(args) == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("ein schöner Vogel".encode("latin-1"), "byte 7 is not UTF-8"),
        ("a bird".encode("utf-16-le"), "zero bytes"),
        (b" \n\n", "no captions in it"),
        (None, "a folder; give a text file"),
    ],
)
def test_prompts_that_cannot_be_read_are_named(tmp_path, content, said):
    file = tmp_path / "p.txt"
    file.mkdir() if content is None else file.write_bytes(content)
    args, _ = sample.arguments(["--workdir", "x", "--prompts-file", str(file)])
    with pytest.raises(ConfigError, match=rf"--prompts-file .*p\.txt: .*{said}"):
        sample.read_prompts(args)


def test_the_chosen_checkpoint_is_drawn_from(workdir, tmp_path):
    with pytest.raises(ConfigError, match="holds no checkpoint '7'; there are 1"):
        draw(workdir, tmp_path, "--prompts", "a", "--step", "7")
    with pytest.raises(ConfigError, match="drawn on the spot"):
        draw(workdir, tmp_path, "--prompts", "a", "--data", str(tmp_path))


@pytest.mark.parametrize("kind", ["empty", "npz", "nan", "text", "scalar"])
def test_latents_that_are_none_are_named(workdir, tmp_path, kind):
    file, method = tmp_path / "z.npy", api.load(workdir).run.method
    width = api.latent_shape(method.sampler)
    if kind == "empty":
        file.write_bytes(b"")
    elif kind == "npz":
        np.savez(tmp_path / "z.npz", z=np.zeros(2))
        (tmp_path / "z.npz").rename(file)
    else:
        arrays = {
            "nan": np.full((1, *width), np.nan),
            "text": np.array(["a"]),
            "scalar": np.ones(()),
        }
        np.save(file, arrays[kind])
    with pytest.raises(ConfigError, match=r"--z .*z\.npy: "):
        sample.given_latents(file, 1, method)


def test_latents_of_another_shape_are_refused(workdir, tmp_path):
    method = runs.open_run(run_settings.read_config(workdir)).method
    np.save(tmp_path / "z.npy", np.zeros((2, 3)))
    with pytest.raises(ConfigError, match=r"z\.npy: latents of shape \[2, 3\], expected \[2, 4\]"):
        sample.given_latents(tmp_path / "z.npy", 2, method)
    (tmp_path / "bad.npy").write_bytes(b"no")
    with pytest.raises(ConfigError, match=r"bad\.npy"):
        sample.given_latents(tmp_path / "bad.npy", 2, method)


def test_stages_and_attention_are_drawn_for_methods_that_have_them(workdir, tmp_path):
    small.untrained(tmp_path / "run", "configs/attngan.py", steps=(1,))
    asked = ("--prompts", "a red rose", "a small blue owl", "--stages", "--attention")
    pictures, _ = draw(tmp_path / "run", tmp_path / "a", *asked)
    assert len(pictures) == 2
    names = {p.name for p in (tmp_path / "a").iterdir()}
    assert {"stage8.png", "stage16.png", "000000_attention.png", "000000_stage8.png"} <= names
    # The picture and its words, one row: only the first stage is behind the second.
    widths = [Image.open(tmp_path / "a" / f"{i:06d}_attention.png").width for i in (0, 1)]
    assert widths[1] > widths[0]
    with pytest.raises(ConfigError, match=r"toy draws no 'attention'; it draws image"):
        draw(workdir, tmp_path / "b", "--prompts", "a rose", "--attention")


def test_highlights_are_bright_where_the_word_is_looked_for():
    maps = np.zeros((1, 2, 2))
    maps[0, 0, 0] = 1
    lit = attention.highlights(np.full((8, 8, 3), 200, np.uint8), maps)
    assert lit.shape == (1, 8, 8, 3)
    assert lit[0, 0, 0, 0] == 200
    assert lit[0, -1, -1, 0] == 30
