"""Eight simulated devices for every test, and one compilation cache for the whole run."""

import os
import tempfile
from pathlib import Path

import hypothesis

# The first example of a property often pays for a compilation.
hypothesis.settings.register_profile("jaxt2i", deadline=None)
hypothesis.settings.load_profile("jaxt2i")

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# On a busy machine the last of eight devices may join a collective more than XLA's 40 seconds late.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    " --xla_cpu_collective_call_warn_stuck_timeout_seconds=120"
    " --xla_cpu_collective_call_terminate_timeout_seconds=600"
)
# A collective holds a thread until all its devices have joined, and collectives that do not depend
# on one another run at once: the default pool of one thread a device can then stand still.
os.environ.setdefault("PJRT_NPROC", "64")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "jaxt2i-test-cache")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


def pytest_addoption(parser):
    parser.addoption(
        "--method",
        action="append",
        help="run the contract tests for this dotted module (its config is "
        "configs/NAME.py:tiny, or give MODULE=FILE[:preset]); default: all of jaxt2i.methods",
    )
