"""IIR-Net: what the ControlNet sees, where training's regions come from, what it starts as."""

import dataclasses

import jax
import numpy as np
import pytest
import scipy.ndimage

from jaxt2i.config import ConfigError
from jaxt2i.encoders.pretrained import Weights
from jaxt2i.engine.method import Ctx
from jaxt2i.run import open as runs
from jaxt2i.run import settings
from jaxt2i.systems.iir_net import method as iir

TINY = settings.preset("configs/iir_net.py", "tiny")
IMAGE = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)


def losses(**changes):
    model = dataclasses.replace(iir.Model(), **changes)
    return iir.Losses(model, None, iir.diffusion.Schedule())


def draws(**given):
    """A context whose draws are given."""
    return Ctx(None, {}, {}, {}, key=jax.random.key(0), draws=given)


def test_what_is_seen_is_grey_inside_the_region_alone_and_noisy_by_tau():
    method = losses()
    region = np.zeros((2, 16, 16), np.float32)
    region[:, :8] = 1
    noise = np.ones(IMAGE.shape, np.float32)

    def seen(tau, **changes):
        how = losses(**changes)
        return np.asarray(how.condition(IMAGE, region, how.level(np.array([tau] * 2)), noise))

    clean = seen(0)
    np.testing.assert_allclose(clean[:, 8:, :, :3], IMAGE[:, 8:] / 255, atol=1e-6)
    assert np.ptp(clean[:, :8, :, :3], axis=-1).max() < 1e-6
    assert set(np.unique(clean[..., 3])) == {0, 1}
    # The schedule's share of the picture is left, and the rest is noise.
    abar = method.plan.abar[600]
    want = np.sqrt(abar) * (2 * clean[..., :3] - 1) + np.sqrt(1 - abar)
    np.testing.assert_allclose(seen(600)[..., :3], (want + 1) / 2, atol=1e-5)
    roi = seen(600, noise_region="roi")
    np.testing.assert_allclose(roi[:, 8:, :, :3], clean[:, 8:, :, :3], atol=1e-6)
    assert np.abs(seen(0, tau_zero_clean=False) - clean).max() > 0.01


def test_noise_is_a_step_or_a_share_of_all_steps():
    method = losses()
    level = jax.jit(lambda tau: method.level(method.step(tau)))
    for share, step in ((0.4, 400), (0.001, 1), (0.9999, 999), (0, 0)):
        assert float(level(np.float32(share))) == float(level(np.float32(step)))
    assert float(level(np.float32(1))) == np.float32(method.plan.abar[1])
    assert float(level(np.float32(0))) == 1
    assert level._cache_size() == 1
    tau = next(c for c in iir.CONTROLS if c.name == "tau")
    assert (tau.read("0.4"), type(tau.default)) == (0.4, float)


def test_the_edit_fades_inside_the_region_and_never_outside():
    inside = np.zeros((1, 12, 20), bool)
    inside[:, 3:, 4:15] = True
    share = jax.jit(iir.removal.feathered)
    np.testing.assert_array_equal(share(inside, 0.0), inside)
    found = np.asarray(share(inside, 3.0))[0]
    assert share._cache_size() == 1
    apart = scipy.ndimage.distance_transform_edt(np.pad(inside[0], ((0, 9), (0, 0)), "edge"))
    np.testing.assert_allclose(found, np.minimum(apart[:12] / 4, 1), atol=1e-6)
    # The picture's lower border is no edge of the region.
    assert found[11, 9] == 1
    assert not share(np.zeros_like(inside), 5.0).any()
    assert (np.asarray(share(np.ones_like(inside), 5.0)) == 1).all()


@pytest.mark.parametrize("solver", iir.diffusion.SOLVERS)
@pytest.mark.parametrize("space", ["pixels", "latent"])
def test_every_step_holds_what_lies_outside_the_region(space, solver):
    region = np.zeros((2, 16, 16), np.float32)
    region[0, 3:9, 5] = 1
    region[1] = 1

    def ctx(net, image, noise, method):  # an autoencoder that averages
        assert (net, method, bool(noise.any())) == ("vae", "sample", False)
        small = image.reshape(2, 2, 8, 2, 8, 3).mean((2, 4))
        return np.concatenate([small, small[..., :1]], -1)

    edits = losses(space=space)
    known = edits.outside(ctx, IMAGE, region)
    width = 4 if space == "latent" else 3
    source = ctx("vae", iir.unit_range(IMAGE), np.zeros(1), "sample")
    source = source if space == "latent" else np.asarray(iir.unit_range(IMAGE))
    inside = region.reshape(2, 2, 8, 2, 8).max((2, 4)) if space == "latent" else region

    def wild(x, t):  # a network that is told nothing
        return 0.3 * x

    noise = jax.random.normal(jax.random.key(0), (*source.shape[:3], width))
    how = {"schedule": iir.diffusion.Schedule(), "solver": solver}
    found = iir.diffusion.sample(wild, noise, 10, known=known, **how)
    free = iir.diffusion.sample(wild, noise, 10, **how)
    off = np.abs(np.asarray(found) - source)[inside == 0]
    assert off.max() < (0.1 if solver == "ddim" else 1e-3), (
        "DDIM ends in the schedule's first trace"
    )
    np.testing.assert_allclose(found[1], free[1], atol=1e-5)


def test_regions_of_training_have_the_shares_that_are_asked_for():
    n = 400
    masks = np.zeros((n, 3, 16, 16), np.uint8)
    masks[:, 0, :4], masks[:, 1, 8:12], masks[:, 2, 14:] = 255, 255, 255
    there = np.tile([True, True, False], (n, 1))
    there[:4] = False
    batch = {
        "image": np.zeros((n, 16, 16, 3), np.uint8),
        "shape_masks": masks,
        "box_mask": there,
        "segmentation": np.tile(np.arange(16) // 8, (n, 16, 1)),
    }
    found = np.asarray(losses(whole=0.2, empty=0.3).region(draws(), batch))
    area = found.mean((1, 2))
    assert 0.14 < (area == 1).mean() < 0.26
    assert 0.24 < (area == 0).mean() < 0.36
    own = (area > 0) & (area < 1)
    # Each of two things is the one at random, or there by chance: never none, never the third.
    first, second = found[own, 0, 0] > 0, found[own, 9, 0] > 0
    assert (first | second).all()
    assert 0.6 < first.mean() < 0.9
    assert 0.3 < (first & second).mean() < 0.7
    assert not found[own, 15].any()
    quiet = {"whole": 0.0, "empty": 0.0}
    assert not np.asarray(losses(**quiet).region(draws(), batch))[:4].any()
    bird = losses(regions="segmentation", **quiet).region(draws(), batch)
    np.testing.assert_array_equal(bird[0, 0], np.arange(16) // 8)
    assert losses(regions="image", **quiet).region(draws(), batch).min() == 1


def test_what_a_tokenizer_pads_with_does_not_matter():
    run = runs.open_run(TINY)
    asked, empty = run.tokenizer(["a red bird"]), run.tokenizer([""])
    rows = dict(zip(iir.TEXT, (*asked, *empty), strict=True))
    text = run.method.nets["text"]
    weights = {"text": jax.jit(text.init)(jax.random.key(0), *asked)}
    ctx = Ctx(run.method, {}, {}, weights, key=None)
    read = jax.jit(lambda rows: run.method.sampler.text(ctx, rows))
    texts = read(rows)
    assert np.abs(texts["asked"] - texts["not"]).max() > 0.01
    changed = dict(rows, tokens=np.where(asked[1], asked[0], 5))
    np.testing.assert_array_equal(read(changed)["asked"], texts["asked"])


def test_it_starts_as_the_first_half_of_the_unet():
    method = runs.open_run(TINY).method
    other, make = method.starts["control"]
    made = make({"params": {"down": 0, "zero_mid": 1}}, {"params": {"down": 2, "conv_out": 3}})
    assert (other, made) == ("unet", {"params": {"down": 2, "zero_mid": 1}})


def test_a_controlnet_for_edges_reads_them_once_when_training_starts(monkeypatch):
    kernel, other = np.random.default_rng(0).normal(size=(3, 3, 3, 4)), np.ones(2)
    stored = {"condition": {"conv_in": {"kernel": kernel}}, "zero_mid": {"bias": other}}
    asked = []

    def published(place, kind, net, module):
        asked.append((place, kind, net, getattr(module, "condition_channels", None)))
        return Weights(lambda: {"params": stored}, lambda: place)

    monkeypatch.setattr(iir, "published", published)
    model = dataclasses.replace(iir.Model(), perception="mini")
    nets = {"control": iir.ControlNet(condition_channels=4), "unet": None, "vae": None}
    made = iir.loaders(model, nets, iir.perception.make("mini"))
    found = made["control"]()["params"]
    assert found["zero_mid"]["bias"] is other
    grown = np.asarray(found["condition"]["conv_in"]["kernel"])
    assert not grown[:, :, :3].any()
    np.testing.assert_allclose(grown[:, :, 3], kernel.sum(2), rtol=1e-6)
    assert asked == [
        (iir.STABLE, "diffusion", "unet", None),
        (iir.STABLE, "diffusion", "vae", None),
        (iir.CANNY, "diffusion", "control", 3),
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"whole": 0.7, "empty": 0.5}, "expected 1 at most together"),
        ({"regions": "object"}, "did you mean objects"),
        ({"edge_low": 300}, "0 <= low <= high"),
        ({"embedding": (16, 32)}, "as many levels as"),
        ({"clean": 1.5}, "config.model.clean=1.5: expected 0 to 1"),
        ({}, "a side of 500 pixels; expected multiples of 64"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        iir.check(
            dataclasses.replace(iir.Model(), **changes), (512, 512) if changes else (512, 500)
        )
