"""Attention by the TPU's kernel, interpreted: what it computes, and when it is chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from jaxt2i.engine import mesh
from jaxt2i.nn import flash
from jaxt2i.nn.fastest import split_like

ROWS = mesh.Layout(mesh.make(devices=jax.devices()[:1])).rows


def shapes(places=1024, heads=2, width=8, rows=2, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct((rows, places, heads, width), dtype)


def uses_kernel(q, k, rows):
    # A function of its own: what was traced before is found again by it.
    with split_like(rows):
        program = jax.make_jaxpr(lambda *x: flash.attention(*x))(q, k, k)
    return "pallas_call" in str(program)


def test_the_kernel_is_attention_and_so_are_its_gradients():
    draw = np.random.default_rng(0).standard_normal
    q, k, v, g = (jnp.asarray(draw((1, 256, 1, 8)), jnp.bfloat16) for _ in range(4))

    def both(attend):
        out, back = jax.vjp(attend, q, k, v)
        return out, *back(g.astype(out.dtype))

    expected = both(lambda *x: jax.nn.dot_product_attention(*(t.astype(jnp.float32) for t in x)))
    with pltpu.force_tpu_interpret_mode():
        found = both(lambda *x: flash.flash(*x, rows=ROWS, block=128))
    for a, b in zip(expected, found, strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        assert np.abs(a - b).max() < 0.02 * np.abs(a).max()


@pytest.mark.parametrize(
    ("q", "k", "used"),
    [
        (shapes(), shapes(), True),
        (shapes(2304), shapes(2304), True),
        (shapes(width=256), shapes(width=256), True),
        (shapes(width=160), shapes(width=160), False),
        (shapes(dtype=jnp.float32), shapes(dtype=jnp.float32), False),
        (shapes(512), shapes(512), False),
        (shapes(1100), shapes(1100), False),
        (shapes(4096), shapes(77), False),
    ],
)
def test_what_the_kernel_takes(q, k, used):
    assert uses_kernel(q, k, ROWS) == used
    assert not uses_kernel(q, k, None), "rows may be split in any way"


def test_a_gpu_without_the_kernel_computes_all_the_same(monkeypatch, capsys):
    x = shapes()
    assert not flash.has_cudnn(x, x)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    flash.tell.cache_clear()
    assert not flash.has_cudnn(x, x), "JAX finds no cuDNN here"
    assert not flash.has_cudnn(x, x)
    assert capsys.readouterr().err.count("attention: without cuDNN's kernel") == 1
    monkeypatch.setattr(flash, "cudnn", lambda q, k, v: 2 * q)
    assert flash.has_cudnn(x, x)
    # The one that a platform takes is settled when its program is lowered: here, none of them.
    ones = jnp.ones(x.shape, x.dtype)
    assert (jax.jit(lambda *x: flash.attention(*x))(ones, ones, ones) == 1).all()


def test_a_gpus_program_has_the_kernel_both_ways(monkeypatch):
    # What JAX asks the GPU is answered for it; the program is then lowered as there.
    asked = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(asked, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(asked, "check_compute_capability", lambda capability: True)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    x = shapes(4096, heads=8, width=40)

    def gradients(*x):
        return jax.grad(lambda *x: flash.attention(*x).astype(jnp.float32).sum(), (0, 1, 2))(*x)

    program = jax.jit(gradients).trace(x, x, x).lower(lowering_platforms=("cuda",)).as_text()
    assert "@__cudnn$fmhaSoftmax(" in program
    assert "@__cudnn$fmhaSoftmaxBackward(" in program
    # What other platforms would keep for the gradients is left as zeros that nothing reads.
    tables = [line for line in program.splitlines() if "4096x4096" in line]
    assert not [line for line in tables if "dot_general" in line or "exponential" in line]


def test_every_device_takes_its_rows(monkeypatch):
    monkeypatch.setattr(flash, "LEAST", 256)
    layout = mesh.Layout(mesh.make(data=-1))
    count = layout.mesh.size
    draw = np.random.default_rng(0).standard_normal
    x = jnp.asarray(draw((count, 256, 1, 8)), jnp.bfloat16)
    plain = np.asarray(jax.nn.dot_product_attention(x, x, x), np.float32)
    if count > 1:
        assert not uses_kernel(shapes(rows=count + 1), shapes(rows=count + 1), layout.rows)

    def one(row):  # as pictures are drawn
        return flash.flash(*[row[None]] * 3, rows=layout.everywhere, block=256)[0]

    for attend in (
        lambda x: flash.flash(x, x, x, rows=layout.rows, block=256),
        jax.vmap(one, spmd_axis_name=mesh.BATCH_AXES),
    ):
        program = jax.jit(attend, in_shardings=layout.rows, out_shardings=layout.rows)
        with pltpu.force_tpu_interpret_mode():
            found = program(x)
            lowered = program.lower(x).as_text()
        assert np.abs(np.asarray(found, np.float32) - plain).max() < 0.02
        assert "manual_computation" in lowered or count == 1
