"""Eight simulated devices for every test, and one compilation cache for the whole run."""

import os
import tempfile
from pathlib import Path

import hypothesis
import pytest

from jaxt2i.run import flags

# The first example of a property often pays for a compilation. The examples are the same in every
# run: a failure belongs to the change, not to the day.
hypothesis.settings.register_profile("jaxt2i", deadline=None, derandomize=True)
hypothesis.settings.load_profile("jaxt2i")

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8"
    # Tests compile far more than they compute: with little optimisation they take half the time.
    " --xla_backend_optimization_level=1 " + os.environ.get("XLA_FLAGS", "")
)
# Less still, for the processes that tests start too; see `pytest_runtest_setup`.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
flags.apply()
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "jaxt2i-test-cache")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

import jax  # noqa: E402 (it reads the environment)


def pytest_addoption(parser):
    parser.addoption(
        "--method",
        action="append",
        help="run the contract tests for this dotted module (its config is "
        "configs/NAME.py:tiny, or give MODULE=FILE[:preset]); default: all of jaxt2i.systems",
    )
    parser.addoption(
        "--fuzz", type=int, default=1, help="how many times 1,000 damaged files tests/fuzz tries"
    )
    parser.addoption("--fuzz-only", metavar="CASE:SEED", help="try one damaged file of tests/fuzz")


# Without optimisation XLA rounds otherwise, which the gradients of goldens magnify.
OPTIMISED = ("tests/verify/", "tests/encoders/", "tests/metrics/")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    plain = not item.nodeid.startswith(OPTIMISED)
    jax.config.update("jax_disable_most_optimizations", plain)
