"""TensorFlow, which comes in late and stays off the accelerators."""

import contextlib
import os


def tensorflow():
    """TensorFlow, quiet and away from accelerators; loaded at the first call, which takes seconds.

    Raises:
      ImportError: where it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow as tf

    # Those are JAX's; too late is no harm, as then another part of the program has decided.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
    return tf
