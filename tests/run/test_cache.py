"""Which compiled programs are kept, and where."""

import subprocess
import sys

import pytest

SCRIPT = """
import jax, jax.numpy as jnp
from jaxt2i.run import cache
cache.use(r"{folder}")
print(jax.config.values["jax_persistent_cache_min_compile_time_secs"])

def small(x):
    for i in range(8):
        x = jnp.sort(jnp.sin(x) @ x, axis=i % 2)
    return x

x = jnp.ones((64, 64))
with cache.hits() as hits:
    jax.jit(small)(x).block_until_ready()
print(len(hits))
"""
NAMED = "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def printed(folder, monkeypatch, **environment) -> list[str]:
    """What a process of its own prints."""
    for name in NAMED:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    script = SCRIPT.format(folder=folder)
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_a_disk_keeps_small_programs_for_the_next_process(tmp_path, monkeypatch):
    first, second = (printed(tmp_path / "xla", monkeypatch) for _ in range(2))
    assert float(first[0]) < 0.1
    assert (first[1], second[1]) == ("0", "1")


@pytest.mark.parametrize(
    ("environment", "least"),
    [
        ({NAMED[0]: "memory://jaxt2i/xla"}, 1.0),  # a bucket takes longer than they take
        ({NAMED[1]: "0.25"}, 0.25),  # whoever chooses has chosen
    ],
)
def test_the_environment_decides(tmp_path, monkeypatch, environment, least):
    script = SCRIPT.split("def", maxsplit=1)[0]
    monkeypatch.setattr(sys.modules[__name__], "SCRIPT", script)
    assert float(printed(tmp_path, monkeypatch, **environment)[0]) == least
