import dataclasses
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.config import ConfigError
from jaxt2i.engine import state as states
from jaxt2i.engine.method import Ctx
from jaxt2i.nn.diffusion import Schedule
from jaxt2i.run import open as runs
from jaxt2i.run import settings
from jaxt2i.systems.latent_diffusion.method import Losses, Model

FILE = str(Path(__file__).parents[2] / "configs" / "latent_diffusion.py")


def opened(preset="tiny", **model):
    config = settings.preset(FILE, preset)
    config.model.update(model)
    return runs.open_run(config)


class Noted(Ctx):
    """A context that answers for the networks, and remembers what it was asked."""

    def __init__(self, draws=None):
        self.asked, self.draws = {}, draws or {}

    def __call__(self, net, *args, **kw):
        self.asked[net] = args
        if net == "text":
            return dataclasses.make_dataclass("Read", ["words"])(args[0][..., None])
        return jnp.zeros_like(args[0])


def losses(**model):
    sees = types.SimpleNamespace(text=types.SimpleNamespace(vocab=10))
    return Losses(Model(**model), sees, None, (4, 4))


def batch(count=4):
    rows = np.arange(count, dtype=np.int32)[:, None].repeat(3, 1)
    mask = np.ones((count, 3), bool)
    return {
        "image": np.full((count, 4, 4, 3), 255, np.uint8),
        **{"tokens": rows + 1, "token_mask": mask},
        **{"negative_tokens": 0 * rows, "negative_token_mask": mask},
    }


def draws(t, dropped):
    noise = np.random.RandomState(0).standard_normal((len(t), 4, 4, 3)).astype(np.float32)
    return {"t": jnp.array(t), "noise": jnp.array(noise), "drop": jnp.array(dropped)[:, None]}


def test_training_sees_noisy_pictures_and_now_and_then_no_caption():
    given = draws([0, 999, 500, 10], [False, True, False, True])
    ctx = Noted(given)
    loss, logs = losses().loss(ctx, batch())
    np.testing.assert_array_equal(ctx.asked["text"][0][:, 0], [1, 0, 3, 0])
    x, t, words = ctx.asked["unet"]
    abar = Schedule().abar[np.array(t)][:, None, None, None]
    want = np.sqrt(abar) + np.sqrt(1 - abar) * given["noise"]
    np.testing.assert_allclose(x, want, atol=1e-5)
    assert words.shape == (4, 3, 1)
    # The network answers nothing: all of the noise is missing.
    errors = np.square(given["noise"]).mean((1, 2, 3))
    np.testing.assert_allclose(loss, errors.mean(), rtol=1e-5)
    np.testing.assert_allclose(logs["error_late"], errors[1:3].mean(), rtol=1e-5)


def test_behind_a_caption_stands_its_end_or_what_the_tokenizer_gives():
    tokens, mask = jnp.array([[3, 9, 0, 0]]), jnp.array([[True, True, False, False]])
    for rule, read in (("end", [3, 9, 9, 9]), ("tokenizer", [3, 9, 0, 0])):
        found = losses(padding=rule).words(Noted(), tokens, mask)
        np.testing.assert_array_equal(found[0, :, 0], read)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_counts_errors_of_the_clean_picture_at_most_gamma(prediction):
    t = jnp.array([0, 100, 400, 999])
    of = losses(weighting="min_snr", snr_gamma=5.0, prediction=prediction)
    abar = Schedule().abar[np.array(t)]
    ratio = abar / (1 - abar)
    # An error of the noise, or of the velocity, in terms of the clean picture's.
    clean = ratio if prediction == "epsilon" else ratio + 1
    np.testing.assert_allclose(of.weights(t) * clean, np.minimum(ratio, 5), rtol=1e-4)
    np.testing.assert_array_equal(losses().weights(t), 1)


def test_stable_diffusion_draws_pictures_from_latents_without_allocating_any():
    run = opened("sd15", weights="random", tile=32, frozen_dtype="bfloat16")
    state, frozen = states.shapes(run.method, run.batch_spec())
    assert set(frozen) == {"text", "guide", "vae"}
    assert {x.dtype for x in jax.tree.leaves(frozen)} == {jnp.dtype("bfloat16")}
    assert sum(x.size for x in jax.tree.leaves(state.params)) == 859_520_964
    assert jax.eval_shape(run.method.sampler.latent, jax.random.key(0)).shape == (64, 64, 4)


def test_what_cannot_be_is_said():
    with pytest.raises(ConfigError, match="16 x 16: the autoencoder needs multiples of 32"):
        opened(space="latent", vae_channels=(8,) * 6)
    with pytest.raises(ConfigError, match=r"config.model.space='pixel'.*pixels"):
        opened(space="pixel")
    with pytest.raises(ConfigError, match="give one answer a level"):
        opened(attention=(True, False))
    with pytest.raises(ConfigError, match="9 is not a multiple"):
        opened(channels=(9,))
