"""What a command says of the machine it computes on."""

import jax
import pytest

from jaxt2i.run import machine


def test_the_first_line_says_what_is_computed_on():
    said = machine.describe()
    assert f"jax {jax.__version__} on cpu: 8 x cpu" in said
    assert "1 process(es) of 8 device(s)" in said
    assert "GiB free; products: default" in said


@pytest.mark.parametrize(
    ("file", "environ", "words"),
    [
        ("dev/nvidia0", {}, r"an NVIDIA GPU is here (/dev/nvidia0), and JAX computes on the CPU"),
        ("dev/nvidia0", {}, "pip install -U 'jax[cuda13]'"),
        ("dev/accel0", {"JAX_PLATFORMS": "tpu"}, "pip install -U 'jax[tpu]'"),
        ("dev/vfio/0", {"JAX_PLATFORMS": "cpu"}, "JAX_PLATFORMS=cpu asks for that; unset it"),
    ],
)
def test_an_accelerator_that_is_not_used_is_said(tmp_path, file, environ, words):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.touch()
    assert words in machine.unused(tmp_path, {"PATH": str(tmp_path)} | environ)


def test_nothing_is_said_where_there_is_none(tmp_path):
    assert machine.unused(tmp_path, {"PATH": str(tmp_path)}) == ""
    (tmp_path / "nvidia-smi").touch(mode=0o755)
    assert "nvidia-smi" in machine.unused(tmp_path, {"PATH": str(tmp_path)})
