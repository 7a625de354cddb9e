"""Training's input: a tf.data pipeline over the positions of `jaxt2i.data.pipeline`.

`Dataset.range` counts positions; each batch of them is ordered and read in one call of Python,
several calls at a time, results in order; then come the prefetched ones. The position is the only
state: what is yielded is `batch_at(start)`, `batch_at(start + 1)`, ..., wherever the reading is
done, here or by the workers of a tf.data service.

Pictures are decoded in that call, or where config.data.decode is "native" by TensorFlow's ops
behind it, which leave Python alone. What each costs beside plain threads: data_tf_cpu.json in
benchmarks/results, and data_tf_same_size_cpu.json for pictures that need no resizing.
"""

import contextlib
import importlib.util
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxt2i.data import native
from jaxt2i.data.pipeline import Pipeline
from jaxt2i.data.schema import DataError
from jaxt2i.data.tf import tensorflow

# Ends the range of positions; no run gets there.
LAST = 2**62
# Finished batches that wait besides those in work.
WAITING = 2
# Batches of a service that may wait for an earlier one before that one is made here.
PATIENCE = 16
# What the workers of a service call the function that makes a batch.
TOKEN = "jaxt2i.data.serve"
Batch = dict[str, np.ndarray]


class Stream:
    """The batches of a pipeline, by tf.data; by threads where TensorFlow is absent.

    Attributes:
      made_here: how many batches a service left out, so that they were made here.
    """

    def __init__(self, pipeline: Pipeline, data: Mapping[str, Any], tokenizer: str = ""):
        """Begins to load TensorFlow, in a thread: that takes seconds, as compilation does.

        Args:
          pipeline: says what is at each position.
          data: `config.data`, by which the workers of a service open the same pipeline.
          tokenizer: file or name of the pipeline's tokenizer, for them too.

        Raises:
          DataError: without TensorFlow, for data that is not embedded.
        """
        self.pipeline, self.made_here = pipeline, 0
        self._service = data["service"]
        self._recipe = recipe(pipeline, data, tokenizer) if self._service else b""
        self.available = importlib.util.find_spec("tensorflow") is not None
        if self.available:
            threading.Thread(target=tensorflow, name="tensorflow", daemon=True).start()
        elif data["source"] != "synthetic" or self._service:
            raise DataError(
                f"config.data.source={data['source']!r} is read through tf.data, and TensorFlow is "
                "not installed here: pip install tensorflow-cpu (tensorflow where there is none "
                "for the machine), or train on the embedded data, --config.data.source=synthetic"
            )
        else:
            print(
                "data: TensorFlow is not installed, so threads make the embedded data's batches; "
                "folders, records and web collections need it: pip install tensorflow-cpu",
                file=sys.stderr,
            )

    def iterate(self, start_step: int = 0) -> Iterator[Batch]:
        """Yields the pipeline's `batch_at(start_step)`, `batch_at(start_step + 1)`, ...

        Close the generator to stop reading.

        Raises:
          DataError: as `Pipeline.batch_at` does, when the batch's turn comes.
        """
        if not self.available:
            yield from self.pipeline.iterate(start_step)
            return
        batches = self._served(start_step) if self._service else self._made(start_step)
        with contextlib.closing(batches):
            for batch in batches:
                self.pipeline.validate(batch, self.pipeline.rows)
                yield batch

    def _made(self, start: int) -> Iterator[Batch]:
        """Batches that this process makes."""
        step, make = start, self._in_graph if self.pipeline.decodes_natively else self._by_batch
        while True:
            with contextlib.closing(make(step)) as batches:
                try:
                    for batch in batches:
                        yield batch
                        step += 1
                except tensorflow().errors.InvalidArgumentError as error:
                    told = error
            # A damaged picture, which TensorFlow does not name: this batch alone is made without
            # the graph, which finds it, and takes another in its place.
            replaced = self.pipeline.skipped.total()
            batch = self.pipeline.batch_at(step)
            if self.pipeline.skipped.total() == replaced:
                raise told
            yield batch
            step += 1

    def _in_graph(self, start: int) -> Iterator[Batch]:
        """Batches whose pictures TensorFlow decodes; damaged ones are its InvalidArgumentError."""
        tf, pipeline = tensorflow(), self.pipeline
        others = [key for key in pipeline.needs if key != "image"]
        kinds = [*(pipeline.dtypes[key] for key in others), np.dtype(object), np.dtype(np.int32)]

        def read(step: int) -> list[np.ndarray]:
            batch = pipeline.encoded_batch_at(step)
            return [*(batch[key] for key in others), *native.encoded(batch["image"])]

        def decode(*values):
            *rest, contents, plans = values
            rest.append(native.squares(tf, contents, plans, pipeline.sizes.resolution))
            return tuple(rest)

        with contextlib.closing(self._mapped(start, read, kinds, decode)) as made:
            for values in made:
                batch = _arrays((*others, "image"), values)
                yield {key: batch[key] for key in pipeline.needs}

    def _by_batch(self, start: int) -> Iterator[Batch]:
        """Batches of `batch_at`."""
        pipeline = self.pipeline

        def read(step: int) -> list[np.ndarray]:
            batch = pipeline.batch_at(step)
            return [batch[key] for key in pipeline.needs]

        kinds = [pipeline.dtypes[key] for key in pipeline.needs]
        with contextlib.closing(self._mapped(start, read, kinds)) as made:
            for values in made:
                yield _arrays(pipeline.needs, values)

    def _mapped(self, start: int, read_step: Callable, kinds: list, decode: Callable | None = None):
        """Yields the tensors of each step from `start` on, several in work."""
        tf, pipeline = tensorflow(), self.pipeline
        calls, failures = _Calls(), {}
        # Of no rows.
        shape = {np.dtype(np.int32): (0, native.PLAN)}
        nothing = [np.zeros(shape.get(kind, 0), kind) for kind in kinds]

        def read(position: np.ndarray) -> list[np.ndarray]:
            step = int(position) // pipeline.sizes.batch
            with calls as wanted:
                try:
                    return read_step(step) if wanted else nothing
                except Exception as error:  # raised by the consumer; TensorFlow would print it
                    failures[step] = error
                    return nothing

        types = [tf.string if kind.hasobject else tf.as_dtype(kind) for kind in kinds]

        @tf.autograph.experimental.do_not_convert
        def made(position):
            values = tf.numpy_function(read, [position], types, stateful=False)
            return tuple(values) if decode is None else decode(*values)

        dataset = _positions(tf, pipeline, start).map(
            made, num_parallel_calls=pipeline.workers, deterministic=True
        )
        dataset = dataset.prefetch(WAITING).with_options(_options(tf, pipeline.workers))
        iterator = iter(dataset)
        try:
            for step, values in enumerate(iterator, start):
                if step in failures:
                    raise failures[step]
                yield values
        finally:
            # The reading ends first: it needs Python, which may be ending too.
            calls.stop()
            del iterator, dataset

    def _served(self, start: int) -> Iterator[Batch]:
        """Batches of a tf.data service, in order.

        Each batch is made by one worker, which one is left to the dispatcher, and they arrive as
        they are ready. One that many later ones have overtaken, because its worker has died or is
        slow, is made here: the service saves time and changes nothing else.
        """
        pipeline, waiting, step = self.pipeline, {}, start
        arriving = self._arriving(start)
        with contextlib.closing(arriving):
            while True:
                while step not in waiting and len(waiting) < PATIENCE:
                    number, batch = next(arriving)
                    if number >= step:
                        waiting[number] = batch
                if step not in waiting:
                    self._tell(step)
                    waiting[step] = pipeline.batch_at(step)
                yield waiting.pop(step)
                step += 1

    def _tell(self, step: int) -> None:
        self.made_here += 1
        if self.made_here == 1:
            print(
                f"data: the service at {self._service} has {PATIENCE} later batches and not that "
                f"of step {step}, which is made here, as others like it will be",
                file=sys.stderr,
            )

    def _arriving(self, start: int) -> Iterator[tuple[int, Batch]]:
        """(step, batch) as the service's workers make them."""
        tf, pipeline = tensorflow(), self.pipeline
        service = tf.data.experimental.service
        kinds = [tf.as_dtype(pipeline.dtypes[key]) for key in pipeline.needs]

        @tf.autograph.experimental.do_not_convert
        def read(position):
            # The workers know this function by its name; this process need not have it.
            inputs, outputs = [self._recipe, position], [*kinds, tf.string]
            return (position, *tf.raw_ops.PyFunc(input=inputs, token=TOKEN, Tout=outputs))

        made = _positions(tf, pipeline, start).map(
            read, num_parallel_calls=pipeline.workers, deterministic=True
        )
        made = made.with_options(_options(tf, pipeline.workers)).apply(
            service.distribute(
                processing_mode=service.ShardingPolicy.DYNAMIC,
                service=f"grpc://{self._service}",
                compression=None,  # pictures hardly shrink
            )
        )
        for position, *values, said in made.prefetch(WAITING):
            said = json.loads(said.numpy())
            if "error" in said:
                raise DataError(said["error"])
            for name, reason in said["replaced"]:
                pipeline.note(name, reason)
            yield int(position) // pipeline.sizes.batch, _arrays(pipeline.needs, values)


class _Calls:
    """The calls of Python that TensorFlow has begun, each told whether it is still wanted."""

    def __init__(self):
        self._running, self._stopped, self._changed = 0, False, threading.Condition()

    def __enter__(self) -> bool:
        with self._changed:
            self._running += 1
            return not self._stopped

    def __exit__(self, *_):
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Returns when the last call has ended."""
        with self._changed:
            self._stopped = True
            self._changed.wait_for(lambda: not self._running)


def _positions(tf, pipeline: Pipeline, start: int):
    """The first position of every global batch from a step on."""
    return tf.data.Dataset.range(start * pipeline.sizes.batch, LAST, pipeline.sizes.batch)


def _options(tf, workers: int):
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    # Calls wait for files too, so there may be more of them than cores.
    options.threading.private_threadpool_size = workers + 1
    # Batches are a function of the position, whatever TensorFlow may think of Python.
    options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
    return options


def _arrays(keys: tuple[str, ...], values) -> Batch:
    """Tensors as arrays on the same memory, which the arrays keep alive."""
    return {key: np.asarray(memoryview(x)) for key, x in zip(keys, values, strict=True)}


def recipe(pipeline: Pipeline, data: Mapping[str, Any], tokenizer: str) -> bytes:
    """Everything by which a worker of a service opens the same pipeline, as JSON."""
    data = json.loads(data.to_json_best_effort())
    return json.dumps(
        {
            "data": {**data, "tokenizer": tokenizer},
            "sizes": vars(pipeline.sizes),
            "needs": pipeline.needs,
            "examples": pipeline.source.size,
            "options": {
                name: getattr(pipeline, name)
                for name in (
                    *("seed", "shuffle", "caption", "batches", "mirror"),
                    *("process_index", "process_count"),
                )
            },
        },
        sort_keys=True,
    ).encode()
