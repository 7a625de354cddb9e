"""Training's input: a tf.data pipeline over the positions of `jaxt2i.data.pipeline`.

`Dataset.range` counts positions; each batch of them is ordered and read in one call of Python,
small batches several in one call, and several calls at a time, results in order; then come the
prefetched ones. The position is the only state: what is yielded is `batch_at(start)`,
`batch_at(start + 1)`, ..., wherever the reading is done, here or by the workers of a tf.data
service. So the first batches need not wait for TensorFlow, which takes seconds to load: threads
make them until it is there.

Pictures are decoded in that call, or where config.data.decode is "native", and they are to be
resized, by TensorFlow's ops behind it, which leave Python alone. What each costs beside plain
threads: data_tf_quiet_cpu.json, data_tf_decoded_cpu.json (pictures that are not resized) and, on a
busy machine, data_tf_busy_cpu.json in benchmarks/results.
"""

import atexit
import collections
import contextlib
import importlib.util
import itertools
import json
import math
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxt2i.data import native, schema
from jaxt2i.data.pipeline import Pipeline, aligned
from jaxt2i.data.schema import DataError
from jaxt2i.data.tf import Loading, loaded, tensorflow

# Ends the range of positions; no run gets there.
LAST = 2**62
# Finished elements of the dataset that wait besides those in work.
WAITING = 2
# Batches that make one element where all of them take no more than so many bytes: what TensorFlow
# needs for each element holds Python's lock, which the reading waits for.
TOGETHER, SMALL = 16, 16 * 2**20
# Batches that threads make before TensorFlow begins to load: as many as are read ahead of the first
# step, and its own.
EARLY = 4
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
        """Begins to load TensorFlow, in a thread, where the first batch needs it.

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
        self._loading = Loading()
        self.available = importlib.util.find_spec("tensorflow") is not None
        # What a service or TensorFlow's own decoders give, threads would not, or not to the bit.
        self._waits = bool(self._service) or pipeline.decodes_natively
        if self.available:
            if self._waits:
                self._loading.over()
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
        step = start_step
        if not self.available:
            yield from self.pipeline.iterate(step)
            return
        if not (self._waits or loaded()):
            # Not before the first steps, which wait for these batches and for Python, too.
            over = lambda: step >= start_step + EARLY and self._loading.over()  # noqa: E731
            with contextlib.closing(self.pipeline.iterate(step, over)) as batches:
                for batch in batches:
                    yield batch
                    step += 1
        batches = self._served(step) if self._service else self._made(step)
        with contextlib.closing(batches):
            for batch in batches:
                self.pipeline.validate(batch, self.pipeline.rows)
                yield batch

    def _made(self, start: int) -> Iterator[Batch]:
        """Batches that this process makes."""
        step, make = start, self._in_graph if self.pipeline.decodes_natively else self._by_batch
        damaged = tensorflow().errors.InvalidArgumentError
        while True:
            with contextlib.closing(make(step)) as batches:
                try:
                    for batch in batches:
                        yield batch
                        step += 1
                except damaged as error:
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
        tf, pipeline, room = tensorflow(), self.pipeline, Rooms()
        others = [key for key in pipeline.needs if key != "image"]
        kinds = [pipeline.dtypes[key] for key in (*others, "image")]
        kinds += [np.dtype(object), np.dtype(np.int32)]

        def read(step: int) -> list[np.ndarray]:
            batch = pipeline.encoded_batch_at(step, room)
            images = batch["image"]
            if isinstance(images, np.ndarray):
                pixels, encoded = images, native.encoded([])
            else:
                pixels, encoded = np.zeros(0, np.uint8), native.encoded(images)
            return [*(batch[key] for key in others), pixels, *encoded]

        def decode(*values):
            *rest, pixels, contents, plans = values
            side = pipeline.sizes.resolution
            pixels = tf.cond(
                tf.size(contents) > 0,
                lambda: native.squares(tf, contents, plans, side),
                lambda: pixels,
            )
            return (*rest, pixels)

        with contextlib.closing(self._mapped(start, read, kinds, decode)) as made:
            for values in made:
                batch = _arrays((*others, "image"), values)
                yield {key: batch[key] for key in pipeline.needs}

    def _by_batch(self, start: int) -> Iterator[Batch]:
        """Batches of `batch_at`."""
        pipeline, room = self.pipeline, Rooms()

        def read(step: int) -> list[np.ndarray]:
            batch = pipeline.written_batch_at(step, pipeline.note, room)
            return [batch[key] for key in pipeline.needs]

        spec = schema.spec(pipeline.sizes, pipeline.needs).values()
        whole = sum(math.prod(s.shape) * s.dtype.itemsize for s in spec)
        size = whole * pipeline.rows // pipeline.sizes.batch
        together = max(1, min(TOGETHER, SMALL // size))
        kinds = [pipeline.dtypes[key] for key in pipeline.needs]
        with contextlib.closing(self._mapped(start, read, kinds, together=together)) as made:
            for values in made:
                yield _arrays(pipeline.needs, values)

    def _mapped(
        self,
        start: int,
        read_step: Callable,
        kinds: list,
        decode: Callable | None = None,
        together: int = 1,
    ) -> Iterator[Sequence]:
        """Yields the tensors of each step from `start` on, several in work.

        Args:
          start: the first step.
          read_step: step -> arrays, called in several threads.
          kinds: their types.
          decode: tensors of those arrays -> the tensors that are wanted.
          together: how many steps make one element of the dataset.
        """
        tf, pipeline = tensorflow(), self.pipeline
        calls, failures = _Calls(), {}
        # Of no rows.
        shape = {np.dtype(np.int32): (0, native.PLAN)}
        nothing = [np.zeros(shape.get(kind, 0), kind) for kind in kinds]

        def read(position: np.ndarray) -> list[np.ndarray]:
            first, arrays = int(position) // pipeline.sizes.batch, []
            with calls:
                for step in range(first, first + together):
                    try:
                        arrays += read_step(step) if calls.wanted else nothing
                    except Exception as error:  # raised by the consumer; TensorFlow would print it
                        failures[step] = error
                        arrays += nothing
            return arrays

        types = [tf.string if kind.hasobject else tf.as_dtype(kind) for kind in kinds] * together

        @tf.autograph.experimental.do_not_convert
        def made(position):
            values = tf.numpy_function(read, [position], types, stateful=False)
            return tuple(values) if decode is None else decode(*values)

        # One more than run at a time is begun early: it starts the moment that any has ended, and
        # not when the first of them has been taken.
        begun = pipeline.workers + 1
        dataset = _positions(tf, pipeline, start, together)
        dataset = dataset.map(made, num_parallel_calls=begun, deterministic=True).prefetch(WAITING)
        elements = _elements(tf, dataset.with_options(_options(tf, pipeline.workers)))
        with _ending(calls, elements):
            for first, values in zip(itertools.count(start, together), elements, strict=False):
                count = len(values) // together
                for i in range(together):
                    if first + i in failures:
                        raise failures[first + i]
                    yield values[i * count : (i + 1) * count]

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


class Rooms:
    """Memory of batches, taken again once nobody holds any part of them.

    A batch of pictures is megabytes, which the system clears page by page whenever it gives them
    out anew: a tenth of the work where pictures are only decoded.
    """

    def __init__(self):
        self._free: collections.defaultdict[int, list[np.ndarray]] = collections.defaultdict(list)

    def __call__(self, shape: tuple[int, ...], dtype) -> np.ndarray:
        """As `pipeline.aligned`; what the array holds is anything."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        free = self._free[size]
        try:
            memory = free.pop()
        except IndexError:
            memory = aligned((size,), np.uint8)
        return np.asarray(_Lent(memory, free)).view(dtype).reshape(shape)


class _Lent:
    """What numpy finds behind each view of a room; with the last of them the memory is free."""

    def __init__(self, memory: np.ndarray, free: list[np.ndarray]):
        self._memory, self._free = memory, free
        self.__array_interface__ = memory.__array_interface__

    def __del__(self):
        self._free.append(self._memory)


class _Calls:
    """The calls of Python that TensorFlow has begun.

    Attributes:
      wanted: whether their results still are.
    """

    def __init__(self):
        self.wanted, self._running, self._changed = True, 0, threading.Condition()

    def __enter__(self):
        with self._changed:
            self._running += 1

    def __exit__(self, *_):
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Returns when the last call has ended."""
        with self._changed:
            self.wanted = False
            self._changed.wait_for(lambda: not self._running)


@contextlib.contextmanager
def _ending(calls: _Calls, elements) -> Iterator[None]:
    """Ends the reading at the end, and before Python ends: calls that it keeps from returning hang.

    Args:
      calls: those of a dataset.
      elements: see `_elements`.
    """

    def end() -> None:
        calls.stop()
        with contextlib.suppress(ValueError):  # another thread takes a batch from it
            elements.close()

    atexit.register(end)
    try:
        yield
    finally:
        atexit.unregister(end)
        end()


def _positions(tf, pipeline: Pipeline, start: int, together: int = 1):
    """The first position of so many global batches, again and again, from a step on."""
    batch = pipeline.sizes.batch
    return tf.data.Dataset.range(start * batch, LAST, batch * together)


def _elements(tf, dataset) -> Iterator[list]:
    """The lists of tensors of an endless dataset.

    By the ops that `iter(dataset)` calls, whose own Python around them took as long again.
    """
    specs = dataset.element_spec
    kinds = {
        "output_types": [spec.dtype for spec in specs],
        "output_shapes": [spec.shape for spec in specs],
    }
    with tf.device("/cpu:0"):
        iterator = tf.raw_ops.AnonymousIteratorV3(**kinds)
        variant = tf.data.experimental.to_variant(dataset)
        tf.raw_ops.MakeIterator(dataset=variant, iterator=iterator)
    while True:
        yield tf.raw_ops.IteratorGetNext(iterator=iterator, **kinds)


def _options(tf, workers: int):
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    # So many calls run at a time.
    options.threading.private_threadpool_size = workers
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
