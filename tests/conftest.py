"""Eight simulated devices for every test, and one compilation cache for the whole run."""

import gc
import os
import shutil
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
from jax._src import compiler  # noqa: E402


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
    parser.addoption(
        "--guard-write", action="store_true", help="keep what a step costs; see benchmarks/guard.py"
    )
    parser.addoption("--fuzz-only", metavar="CASE:SEED", help="try one damaged file of tests/fuzz")


# Without optimisation XLA rounds otherwise, which the gradients of goldens magnify; and without a
# compiler of its own for each fusion, large programs are slow.
OPTIMISED = ("tests/verify/", "tests/metrics/")
QUICKLY = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}


def compile_quickly(chosen):
    """Has XLA compile with the options that are chosen when a program is compiled."""
    plain = compiler.get_compile_options

    def options(*args, env_options_overrides=None, **kw):
        given = {**(env_options_overrides or {}), **chosen}
        return plain(*args, env_options_overrides=given, **kw)

    compiler.get_compile_options = options


# Traces are millions of small objects, which Python would look through again and again.
gc.set_threshold(100_000, 20, 20)


def pytest_collection_finish():
    """Modules and tests stay to the end: no later search for garbage looks at them (0.5 s each)."""
    gc.collect()
    gc.freeze()


CHOSEN = {}
compile_quickly(CHOSEN)
jax.devices()  # this process has read its flags; those that tests start compile quickly as well
OWN = os.environ["XLA_FLAGS"]
CHILDREN = OWN + "".join(f" --{k}={str(v).lower()}" for k, v in QUICKLY.items())
os.environ["XLA_FLAGS"] = CHILDREN


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    # The TPU's compiler reads the variable when it is loaded, and ends on flags of CPUs.
    on_tpu = any("libtpu" in m.kwargs.get("reason", "") for m in item.iter_markers("skipif"))
    os.environ["XLA_FLAGS"] = OWN if on_tpu else CHILDREN
    plain = not item.nodeid.startswith(OPTIMISED)
    jax.config.update("jax_disable_most_optimizations", plain)
    CHOSEN.clear()
    CHOSEN.update(QUICKLY if plain and not on_tpu else {})


@pytest.fixture(scope="session")
def toy_runs(tmp_path_factory):
    """{toy: work directory} of two steps each; tests that ask for it are of the group "toys"."""
    from jaxt2i.run.train import train
    from tests.quick import one_device
    from tests.toys import box_gan, edit, layout

    out = {}
    for toy in (box_gan, layout, edit):
        name = toy.__name__.rpartition(".")[2]
        out[name] = tmp_path_factory.mktemp(name)
        with one_device():
            train(toy.get_config(), out[name], "a test")
    return out


@pytest.fixture
def browser(tmp_path):
    """A headless Chromium that saves files into tmp_path / "downloads"."""
    selenium = pytest.importorskip("selenium.webdriver")
    places = [shutil.which(n) for n in ("chromium", "chromium-browser", "google-chrome")]
    driver = shutil.which("chromedriver")
    if not any(places) or not driver:
        pytest.skip("no Chromium with its chromedriver here (Debian: chromium-driver)")
    options = selenium.ChromeOptions()
    options.binary_location = next(p for p in places if p)
    for word in ("--headless=new", "--no-sandbox", "--window-size=1200,900"):
        options.add_argument(word)
    options.add_argument("--disable-dev-shm-usage")
    (tmp_path / "downloads").mkdir()
    options.add_experimental_option(
        "prefs", {"download.default_directory": str(tmp_path / "downloads")}
    )
    opened = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    yield opened
    opened.quit()
