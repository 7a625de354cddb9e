"""Precision of products: settings reach all of a step and of a drawing."""

import jax
import jax.numpy as jnp
import pytest
from jax.extend import core

from jaxt2i.config import ConfigError
from jaxt2i.configs import attngan, df_gan, stylegan_t
from jaxt2i.engine import draw, mesh
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.nn import convolution
from jaxt2i.nn.precision import perception_dtype
from jaxt2i.run import open as runs


def products(jaxpr):
    """The precision of every product of floats in a program, also of what it calls."""
    for eqn in jaxpr.eqns:
        multiplies = eqn.primitive.name in ("dot_general", "conv_general_dilated")
        if multiplies and eqn.invars[0].aval.dtype == jnp.float32:
            yield eqn.params["precision"]
        for inner in core.jaxprs_in_params(eqn.params):
            yield from products(inner)


@pytest.mark.parametrize(
    ("setting", "found"), [("default", {None}), ("float32", {jax.lax.Precision.HIGHEST})]
)
def test_steps_and_drawings_multiply_as_the_setting_says(setting, found):
    config = df_gan.get_config("tiny")
    config.matmul_precision = setting
    run = runs.open_run(config)
    state, frozen = states.shapes(run.method, run.batch_spec())
    program = steps.make(run.method, steps.Rules(0, config.batch_size, 10))[1]
    traced = jax.make_jaxpr(program)(state, frozen, run.batch_spec())
    seen = {x[0] if isinstance(x, tuple) else x for x in products(traced.jaxpr)}
    # Penalties and statistics may ask for more than the setting, never for less.
    assert found <= seen <= found | {jax.lax.Precision.HIGHEST}
    layout = mesh.Layout(mesh.make(1, 1, 1, jax.devices()[:1]))
    text = draw.Drawer(method=run.method, layout=layout).lower(
        layout.abstract(state),
        layout.abstract(frozen),
        layout.abstract(runs.schema.spec(run.sizes, run.method.sampler.needs), layout.rows),
    )
    assert ("HIGHEST" in text.as_text()) == (setting == "float32")


def test_gradients_multiply_as_the_forward_pass_does():
    x, kernel = jnp.zeros((1, 32, 32, 128)), jnp.zeros((4, 4, 128, 128))

    def loss(x, kernel):
        with jax.default_matmul_precision("float32"):
            y = convolution.convolve(x, kernel, (2, 2), ((1, 1), (1, 1)))
            return convolution.convolve(y, kernel[1:], (1, 1), "SAME").sum()

    # Of the second order too, and outside the context.
    for gradient in (jax.grad(loss, (0, 1)), jax.grad(lambda *a: sum_of(jax.grad(loss)(*a)))):
        found = set(products(jax.make_jaxpr(gradient)(x, kernel).jaxpr))
        assert {p[0] if isinstance(p, tuple) else p for p in found} == {jax.lax.Precision.HIGHEST}


def sum_of(x):
    return jnp.square(x).sum()


def test_unknown_names_are_refused():
    config = df_gan.get_config("tiny")
    config.matmul_precision = "float16"
    with pytest.raises(ConfigError, match=r"config\.matmul_precision='float16'; expected one of"):
        runs.open_run(config)


def test_presets_say_what_was_published():
    full = stylegan_t.get_config("full64")
    assert (full.matmul_precision, perception_dtype(full)) == ("float32", jnp.float32)
    assert df_gan.get_config("cub").matmul_precision == "tensorfloat32"
    assert attngan.get_config("cub").matmul_precision == "float32"
    config = stylegan_t.get_config("embedded")
    assert config.matmul_precision == "default"
    config.precision = "bfloat16"
    assert perception_dtype(config) == jnp.bfloat16
    config.perception_precision = "float32"
    assert perception_dtype(config) == jnp.float32
