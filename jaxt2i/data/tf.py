"""TensorFlow, which comes in late and stays off the accelerators."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

_loaded = threading.Event()


def tensorflow():
    """TensorFlow, quiet and away from accelerators; loaded at the first call, which takes seconds.

    Raises:
      ImportError: where it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    with _without_keras():
        import tensorflow as tf

    # Those are JAX's; too late is no harm, as then another part of the program has decided.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
    _loaded.set()
    return tf


@contextlib.contextmanager
def _without_keras() -> Iterator[None]:
    """Around importing TensorFlow: leaves out its optimisers.

    TensorFlow imports them, where it can, only for scripts that name them by an old path, and with
    them Keras, scipy, scikit-learn and matplotlib; how long that takes: startup_cpu.json in
    benchmarks/results. `tf.keras` itself comes with its first use as ever.
    """
    name = "keras.src.optimizers"
    absent = name not in sys.modules
    if absent:
        sys.modules[name] = None  # Python's way to say that there is no such module
    try:
        yield
    finally:
        if absent and sys.modules.get(name, name) is None:
            del sys.modules[name]


def loaded() -> bool:
    """Whether TensorFlow is there, so that `tensorflow()` takes no time."""
    return _loaded.is_set()


class Loading:
    """Loads TensorFlow in a thread, from the first time that one asks.

    The thread is no daemon: Python may not end in the middle of that import.
    """

    def __init__(self):
        self._thread = threading.Thread(target=self._load, name="tensorflow")

    def over(self) -> bool:
        """Whether `tensorflow()` would no longer take its time, be it to raise."""
        if loaded():
            return True
        if self._thread.ident is None:
            self._thread.start()
        return not self._thread.is_alive()

    def _load(self) -> None:
        with contextlib.suppress(Exception):  # who then asks for TensorFlow is told
            tensorflow()
