"""TensorBoard's files, written by clu in a thread of their own.

clu's writer needs TensorFlow, whose import takes seconds: it happens in that thread, once there is
something to write, so neither the first step nor metrics.jsonl waits for it. These files grow,
which no store allows: for a store they are written here, and copied there once a minute at most and
at the end.
"""

import concurrent.futures
import os
import tempfile
import time
from collections.abc import Callable, Mapping

import numpy as np
from etils import epath

from jaxt2i import places
from jaxt2i.data.tf import tensorflow

# Between two copies to a store.
COPY_SECONDS = 60.0


class TensorBoard:
    """One run's files; what is written before TensorFlow is there waits for it, in order.

    Args:
      folder: where they are made; tensorboard reads all files there as one run.
      say: told in a sentence where nothing can be written.
    """

    def __init__(self, folder: epath.PathLike, say: Callable[[str], None]):
        self._folder, self._say = epath.Path(folder), say
        self._begun, self._writer = False, None
        self._scratch = None
        if places.scheme_of(folder):
            self._scratch = tempfile.TemporaryDirectory(prefix="jaxt2i-tensorboard-")
        self._copied = time.monotonic()
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "tensorboard")
        self._pending: list[concurrent.futures.Future] = []

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step, by their tags.

        Raises:
          Exception: what went wrong with something written earlier.
        """
        self._submit(lambda writer: writer.write_scalars(step, values))

    def images(self, step: int, name: str, images: np.ndarray) -> None:
        """Pictures of a step, uint8 [N, H, W, 3], under one tag; raises as `scalars` does."""
        self._submit(lambda writer: writer.write_images(step, {name: images}))

    def close(self) -> None:
        """Writes what is still waiting; raises as `scalars` does."""
        self._pending.append(self._pool.submit(self._close))
        self._pool.shutdown(wait=True)
        self._check()

    def _submit(self, write: Callable) -> None:
        def task() -> None:
            if self._writer:
                write(self._writer)
                self._writer.flush()  # whoever looks sees the newest numbers
                if time.monotonic() - self._copied > COPY_SECONDS:
                    self._copy()

        self._check()
        if not self._begun:
            self._begun = True
            self._pending.append(self._pool.submit(self._open))
        self._pending.append(self._pool.submit(task))

    def _check(self) -> None:
        done = [future for future in self._pending if future.done()]
        self._pending = [future for future in self._pending if future not in done]
        for future in done:
            future.result()

    def _open(self) -> None:
        try:
            folder = epath.Path(self._scratch.name) if self._scratch else self._folder
            self._writer = make_writer(folder)
        except Exception as error:  # a TensorFlow that does not fit its surroundings fails anyhow
            self._say(
                f"TensorBoard files are not written ({type(error).__name__}: {error}); pip install "
                "clu tensorflow tensorboard brings what they need, metrics.jsonl has the numbers"
            )

    def _copy(self) -> None:
        if self._scratch:
            places.copy(epath.Path(self._scratch.name), self._folder)
            self._copied = time.monotonic()

    def _close(self) -> None:
        if self._writer:
            self._writer.close()
            self._copy()
        if self._scratch:
            self._scratch.cleanup()


def make_writer(folder: epath.Path):
    """The writer that clu has for TensorBoard files; imports TensorFlow."""
    tensorflow()  # before clu imports it, so that it stays quiet and off the accelerators
    from clu import metric_writers

    return metric_writers.SummaryWriter(os.fspath(folder))
