"""The compilation cache: where compiled programs are kept, and whether one came from there.

One machine keeps them in ~/.cache/jaxt2i/xla. Several processes keep them in the work directory,
which they share: the first of them alone writes, so a folder of its own would leave every other
machine compiling at each start. $JAX_COMPILATION_CACHE_DIR (a folder, or gs://BUCKET/FOLDER) comes
before both; to be of use to several machines it must be one that all of them see.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import jax

HIT = "/jax/compilation_cache/cache_hits"
# What compiles faster is not kept: a bucket takes this long to answer, a disk hardly any time. On
# a disk, the many small programs that draw initial weights are then kept, too.
BUCKET_SECONDS, DISK_SECONDS = 1.0, 0.02


def home() -> Path:
    """The folder of this machine."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxt2i" / "xla"


def use(folder: os.PathLike) -> None:
    """Keeps compiled programs in a folder, where the environment does not name another."""
    named = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if not named:
        jax.config.update("jax_compilation_cache_dir", str(folder))
    if not os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        least = BUCKET_SECONDS if "://" in (named or str(folder)) else DISK_SECONDS
        jax.config.update("jax_persistent_cache_min_compile_time_secs", least)


@contextlib.contextmanager
def hits() -> Iterator[list[str]]:
    """Around compiling: a list with one entry for each program that came from the cache.

    What other threads compile meanwhile does not count.
    """
    found, here = [], threading.get_ident()

    def listen(event: str, **_) -> None:
        if event == HIT and threading.get_ident() == here:
            found.append(event)

    jax.monitoring.register_event_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_listener(listen)
