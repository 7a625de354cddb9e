"""Sampling: the latent tools, latents from a file, converted weights, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxt2i import sample
from jaxt2i.config import ConfigError
from jaxt2i.convert.__main__ import main as convert
from jaxt2i.run import open as runs
from jaxt2i.run import settings as run_settings
from jaxt2i.run import train


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of one step."""
    folder = tmp_path_factory.mktemp("run")
    config = run_settings.preset("configs/df_gan.py", "tiny")
    config.total_steps = 1
    config.score_images = 0
    train.train(config, folder, "a test")
    return folder


def draw(workdir, out, *args):
    """({file: pixels}, drawn.json)."""
    sample.main(["--workdir", str(workdir), "--out", str(out), *args])
    facts = json.loads((out / "drawn.json").read_text())
    lines = [json.loads(x) for x in (out / "metadata.jsonl").read_text().splitlines()]
    facts["images"] = [x | x.get("note", {}) for x in lines]
    facts["columns"] = 3
    files = [x["file_name"] for x in lines]
    return [np.asarray(Image.open(out / f)) for f in files], facts


def test_walks_start_and_end_at_the_plain_pictures(workdir, tmp_path):
    plain, _ = draw(workdir, tmp_path / "a", "--prompts", "a rose", "an owl", "--num", "2")
    (rose0, rose1), (owl0, _) = plain[:2], plain[2:]
    texts, _ = draw(workdir, tmp_path / "b", "--interpolate", "a rose", "an owl", "--num", "3")
    np.testing.assert_array_equal(texts[0], rose0)
    np.testing.assert_array_equal(texts[-1], owl0)
    walk = ("--interpolate-z", "0", "1", "--prompts", "a rose", "--num", "3")
    latents, facts = draw(workdir, tmp_path / "c", *walk)
    np.testing.assert_array_equal(latents[0], rose0)
    np.testing.assert_array_equal(latents[-1], rose1)
    assert np.any(latents[1] != rose0)
    assert [x["mix_z"] for x in facts["images"]] == [0, 0.5, 1]


def test_both_walks_make_a_grid_of_captions_by_latents(workdir, tmp_path):
    both = ("--interpolate", "a rose", "an owl", "--interpolate-z", "0", "1", "--num", "3")
    pictures, facts = draw(workdir, tmp_path / "a", *both)
    assert facts["columns"] == 3
    assert [(x["mix"], x["mix_z"]) for x in facts["images"]] == [
        (a, b) for a in (0, 0.5, 1) for b in (0, 0.5, 1)
    ]
    corners, _ = draw(workdir, tmp_path / "b", "--prompts", "a rose", "an owl", "--num", "2")
    for at, corner in zip((0, 2, 6, 8), corners, strict=True):
        np.testing.assert_array_equal(pictures[at], corner)


def test_rows_share_a_prompt_and_columns_a_latent(workdir, tmp_path):
    run = runs.open_run(run_settings.read_config(workdir))
    items, columns = sample.drawings(
        sample.arguments(["--workdir", "x", "--prompts", "a", "b", "--num", "3", "--seed", "5"])[0]
    )
    assert columns == 3
    assert [(d.prompt, d.seed) for d in items] == [(p, s) for p in "ab" for s in (5, 6, 7)]
    key = jax.random.key(5)
    np.testing.assert_array_equal(run.method.sampler.latent(key), run.method.sampler.latent(key))


def test_given_latents_take_the_place_of_seeds(workdir, tmp_path):
    run = runs.open_run(run_settings.read_config(workdir))
    z = np.stack([run.method.sampler.latent(jax.random.key(s)) for s in (3, 4)])
    np.save(tmp_path / "z.npy", z)
    args = ("--prompts", "a rose", "an owl")
    pictures, _ = draw(workdir, tmp_path / "a", *args, "--z", str(tmp_path / "z.npy"))
    for prompt, seed, picture in (("a rose", 3, pictures[0]), ("an owl", 4, pictures[1])):
        alone = ("--prompts", prompt, "--seed", str(seed))
        want, _ = draw(workdir, tmp_path / prompt, *alone)
        np.testing.assert_array_equal(picture, want[0])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.floats(0, 1))
def test_a_spherical_walk_keeps_to_the_sphere(seed, share):
    a, b = jax.random.normal(jax.random.key(seed), (2, 64))
    b = b * jnp.linalg.norm(a) / jnp.linalg.norm(b)
    on = sample.slerp(a, b, jnp.float32(share))
    assert jnp.linalg.norm(on) == pytest.approx(float(jnp.linalg.norm(a)), rel=1e-3)
    np.testing.assert_array_equal(sample.slerp(a, b, jnp.float32(0)), a)
    np.testing.assert_array_equal(sample.slerp(a, b, jnp.float32(1)), b)
    np.testing.assert_allclose(sample.slerp(a, a, jnp.float32(share)), a, atol=1e-6)


def test_converted_weights_draw_what_the_run_draws(workdir, tmp_path, capsys):
    assert convert(["df_gan", "--from", str(workdir), "--to", str(tmp_path / "w")]) == 0
    (tmp_path / "w" / "d.safetensors").unlink()
    source = ("--config", "configs/df_gan.py:tiny", "--weights", str(tmp_path / "w"))
    sample.main([*source, "--prompts", "a rose", "--out", str(tmp_path / "a")])
    assert "weights of g, c from" in capsys.readouterr().out
    want, _ = draw(workdir, tmp_path / "b", "--prompts", "a rose")
    got = Image.open(tmp_path / "a" / "000000.png")
    np.testing.assert_array_equal(np.asarray(got), want[0])


def test_weights_that_do_not_fit_are_named(workdir, tmp_path):
    convert(["df_gan", "--from", str(workdir), "--to", str(tmp_path)])
    other = run_settings.preset("configs/df_gan.py", "tiny")
    other.model.g_base = 8
    with pytest.raises(ConfigError, match=r"g\.safetensors.*where the configuration asks for"):
        sample.from_weights(runs.open_run(other), tmp_path)
    (tmp_path / "g.safetensors").unlink()
    run = runs.open_run(run_settings.preset("configs/df_gan.py", "tiny"))
    state, frozen = sample.from_weights(run, tmp_path)
    from jaxt2i import system

    paint = lambda items: system.System(run, state, frozen).sample(items)  # noqa: E731
    with pytest.raises(ConfigError, match=r"needs the network 'g'; there are d, c"):
        paint(["a rose"])
    with pytest.raises(ConfigError, match=r"no \.safetensors"):
        sample.from_weights(run, tmp_path / "nowhere")


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
    ],
)
def test_arguments_that_do_not_go_together_are_refused(args, capsys):
    with pytest.raises(SystemExit):
        sample.arguments(args)
    assert "error:" in capsys.readouterr().err


def test_latents_of_another_shape_are_refused(workdir, tmp_path):
    method = runs.open_run(run_settings.read_config(workdir)).method
    np.save(tmp_path / "z.npy", np.zeros((2, 3)))
    with pytest.raises(ConfigError, match=r"z\.npy: latents of shape \[2, 3\], expected \[2, 16\]"):
        sample.given_latents(tmp_path / "z.npy", 2, method)
    (tmp_path / "bad.npy").write_bytes(b"no")
    with pytest.raises(ConfigError, match=r"bad\.npy"):
        sample.given_latents(tmp_path / "bad.npy", 2, method)


def test_stages_and_attention_are_drawn_for_methods_that_have_them(workdir, tmp_path):
    config = run_settings.preset("configs/attngan.py", "tiny")
    config.total_steps = 1
    config.score_images = 0
    train.train(config, tmp_path / "run", "a test")
    asked = ("--prompts", "a red rose", "a small blue owl", "--stages", "--attention")
    pictures, _ = draw(tmp_path / "run", tmp_path / "a", *asked)
    assert len(pictures) == 2
    names = {p.name for p in (tmp_path / "a").iterdir()}
    assert {"stage8.png", "stage16.png", "0000_seed0_attention.png"} <= names
    # The picture and its words, one row: only the first stage is behind the second.
    widths = [Image.open(tmp_path / "a" / f"{i:04d}_seed0_attention.png").width for i in (0, 1)]
    assert widths[1] > widths[0]
    with pytest.raises(ConfigError, match=r"--attention: jaxt2i\.methods\.df_gan has none"):
        draw(workdir, tmp_path / "b", "--prompts", "a rose", "--attention")


def test_highlights_are_bright_where_the_word_is_looked_for():
    maps = np.zeros((1, 2, 2))
    maps[0, 0, 0] = 1
    lit = sample.highlights(np.full((8, 8, 3), 200, np.uint8), maps)
    assert lit.shape == (1, 8, 8, 3)
    assert lit[0, 0, 0, 0] == 200
    assert lit[0, -1, -1, 0] == 30
