"""Batches addressed by position: `batch_at(step)` depends on the seed and the step alone.

So the state of the data is the step number, a resumed run sees the batches that it would have
seen, and any number of processes share one stream of global batches.
"""

import collections
import contextlib
import dataclasses
import functools
import itertools
import math
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxt2i.data import mirror as mirrors
from jaxt2i.data import native, schema
from jaxt2i.data import order as orders
from jaxt2i.data.images import Unreadable
from jaxt2i.data.order import mix
from jaxt2i.data.schema import DataError

# Names of the independent random streams behind one seed; those below 2 and above 10 are orders'.
CAPTION, VIEW, LEAP, MIRROR = 2, 3, 4, 5
# So many neighbours that cannot be read may be a file that was cut off: others take their place. So
# many all in all mean a lost disk.
MAX_NEIGHBOURS, MAX_REPLACED = 50, 100
# Bytes; that of the widest vector registers.
ALIGNMENT = 64


def _check(batch: int, processes: int, workers: int, caption: str, mirror: str) -> None:
    """Refuses settings of a pipeline that cannot be."""
    if batch % processes:
        raise DataError(
            f"a batch of {batch} cannot be shared by {processes} processes; set "
            f"--config.batch_size to a multiple of {processes}"
        )
    if workers < 1:
        raise DataError(f"{workers} reading threads; set --config.data.workers to 1 or more")
    if caption not in ("random", "first"):
        raise ValueError(f"caption={caption!r}; known: 'random', 'first'")
    if mirror not in mirrors.KINDS:
        raise DataError(
            f"config.data.mirror is {mirror!r}; known: {', '.join(map(repr, mirrors.KINDS))}"
        )


class Pipeline:
    """Batches of a source for one process.

    Attributes:
      skipped: how many examples were replaced because they could not be read, by reason.
      order: position of the endless stream of examples -> the source's number.
    """

    def __init__(
        self,
        source,
        tokenizer,
        sizes: schema.Sizes,
        needs: tuple[str, ...],
        *,
        seed: int,
        shuffle: bool = True,
        process_index: int = 0,
        process_count: int = 1,
        workers: int = 2,
        caption: str = "random",
        batches: str = "",
        mirror: str = "crop",
    ):
        """Reads one example, so that a misfit shows before anything is compiled.

        Args:
          source: see `jaxt2i.data.sources`.
          tokenizer: captions to token ids; None where `needs` has no tokens.
          sizes: of the global batch.
          needs: the batch keys to make.
          seed: orders the examples and chooses among their captions.
          shuffle: a new order in every epoch of a finite source, see `jaxt2i.data.order`.
          process_index: which contiguous share of each global batch is made here.
          process_count: how many shares there are.
          workers: threads that read ahead.
          caption: "random" chooses anew at every position, and so it does with the view of a
            picture where config.data.crop is "random"; "first" always takes the first caption.
          batches: "objects": of pictures with equally many objects; "": of any.
          mirror: of `jaxt2i.data.mirror.KINDS`; where captions are chosen at random.

        Raises:
          DataError: names the config line and the fix.
        """
        _check(sizes.batch, process_count, workers, caption, mirror)
        self.source, self.tokenizer, self.mirror = source, tokenizer, mirror
        self.sizes, self.needs = sizes, tuple(needs)
        self.seed, self.caption, self.shuffle, self.batches = seed, caption, shuffle, batches
        self.process_index, self.process_count, self.workers = process_index, process_count, workers
        self.rows = sizes.batch // process_count
        self.first_row = process_index * self.rows
        self.dtypes = {key: s.dtype for key, s in schema.spec(sizes, self.needs).items()}
        self._from_source = tuple(k for k in self.needs if k in source.gives)
        self._tokenise = not {"tokens", "token_mask"}.isdisjoint(self.needs)
        self._tokenise_negative = not {"negative_tokens", "negative_token_mask"}.isdisjoint(needs)
        self._tokenise_all = "all_tokens" in self.needs
        framing = getattr(source, "framing", None)
        # A caption that comes again, in the next epoch of a small set, is not tokenised again.
        self._encoded = functools.lru_cache(maxsize=2**17)(lambda text: self.tokenizer([text]))
        self._augments = caption == "random" and framing is not None and framing.by_chance
        self._mirrors = caption == "random" and mirror == "unless_sided"
        self.order = (
            _order(source, seed, sizes.batch, batches) if shuffle else orders.InOrder(source.size)
        )
        self.skipped: collections.Counter[str] = collections.Counter()
        self._told: set[str] = set()
        self._lock = threading.Lock()
        self._try_first()

    def _try_first(self) -> None:
        """Refuses a source that makes no such batches."""
        first = self._example_at(0, self.note, encoded=True)
        if isinstance(first.get("image"), native.Encoded):  # decoding it would load TensorFlow
            first["image"] = np.zeros(first["image"].shape, np.uint8)
        self.validate(self._stack([first]), 1)

    def example_at(self, position: int) -> dict[str, np.ndarray]:
        """The example at a position, tokens included, without a batch axis.

        A file that has become unreadable is replaced by the next one, counted and reported; after
        many neighbours by one from anywhere.

        Raises:
          DataError: when many in a row cannot be read.
        """
        return self._example_at(position, self.note)

    def _example_at(
        self, position: int, note: Callable[[str, str], None], encoded: bool = False
    ) -> dict[str, Any]:
        """`example_at`, telling `note` the name of what was replaced, and why."""
        return self._found_at(position, note, encoded)[1]

    def _found_at(
        self, position: int, note: Callable[[str, str], None], encoded: bool = False
    ) -> tuple[int, dict[str, Any]]:
        """(number of the example that is at a position, or in its place; what it holds).

        With `encoded`, pictures that TensorFlow is to decode are left as they are.
        """
        index, size = self.order(position), self.source.size
        for turn in range(min(MAX_REPLACED, size or MAX_REPLACED)):
            try:
                example = self._read(index, position)
                if not encoded and isinstance(example.get("image"), native.Encoded):
                    example["image"] = example["image"].pixels(self.source.name(index))
                return index, example
            except Unreadable as error:
                note(error.name, error.reason)
                index = index + 1 if size is None else (index + 1) % size
                if size is not None and size > MAX_REPLACED and turn >= MAX_NEIGHBOURS:
                    index = mix(self.seed, LEAP, position, turn) % size
                last = error
        raise DataError(
            f"{MAX_REPLACED if size is None else min(MAX_REPLACED, size)} examples in a row could "
            f"not be read, the last one {last}; is config.data.path still mounted, and unchanged?"
        )

    def _read(self, index: int, position: int) -> dict[str, np.ndarray]:
        chance = {"chance": self._chance(position)} if self._augments else {}
        example = dict(self.source.example(index, self._from_source, **chance))
        if self._tokenise:
            text = self._caption(index, position)
            tokens, mask = self._encoded(text)
            example |= {"tokens": tokens[0], "token_mask": mask[0]}
        if self._tokenise_negative:
            tokens, mask = self._encoded("")
            example |= {"negative_tokens": tokens[0], "negative_token_mask": mask[0]}
        if self._tokenise_all:
            example |= self._all_captions(self.source.captions(index))
        if "mask" in self.needs:
            example["mask"] = np.True_
        if self._mirrors and mix(self.seed, MIRROR, position) % 2:
            told = mirrors.told(example, self.source)
            told += [self._caption(index, position)] if self._tokenise else []
            told += self.source.captions(index) if self._tokenise_all else []
            return example if mirrors.says_a_side(told) else mirrors.mirrored(example)
        return example

    def _caption(self, index: int, position: int) -> str:
        """The caption that an example has at a position."""
        captions = self.source.captions(index)
        chosen = mix(self.seed, CAPTION, position) % len(captions)
        return captions[chosen if self.caption == "random" else 0]

    def shown_at(self, position: int) -> tuple[dict[str, np.ndarray], str]:
        """What is at a position as the network sees it, and its caption in words."""
        index, example = self._found_at(position, self.note)
        return example, self._caption(index, position)

    def _chance(self, position: int) -> tuple[float, float, float]:
        """Three numbers in [0, 1) that belong to a position; the third one, of a mirror, is 1
        where mirrors depend on captions.
        """
        chance = tuple(mix(self.seed, VIEW, position, k) / 2**64 for k in range(3))
        return (*chance[:2], 1.0) if self._mirrors else chance

    def _all_captions(self, captions: Sequence[str]) -> dict[str, np.ndarray]:
        """The first K captions of an image; absent ones are empty texts that the mask hides."""
        count = self.sizes.captions
        texts = [*captions[:count], *[""] * (count - len(captions))]
        tokens, mask = self.tokenizer(texts)
        present = np.arange(count) < len(captions)
        return {"all_tokens": tokens, "all_token_mask": mask, "captions_mask": present}

    def note(self, name: str, reason: str) -> None:
        """Counts an example that was replaced; tells of it the first time."""
        with self._lock:
            self.skipped[reason] += 1
            if name not in self._told:
                self._told.add(name)
                # Inside the lock: nobody goes on with a replaced example that was not reported.
                said = f"data: {Unreadable(name, reason)}; the next example takes its place"
                print(said, file=sys.stderr, flush=True)

    def _stack(self, examples: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        batch = {}
        for key in (key for key in self.needs if key in examples[0]):
            rows = [example[key] for example in examples]
            out = aligned((len(rows), *np.shape(rows[0])), self._dtype(key, rows[0]))
            batch[key] = np.stack(rows, out=out, casting="same_kind")
        return batch

    def _written(
        self, examples: Iterable[dict], room: Callable, **batch: np.ndarray
    ) -> dict[str, np.ndarray]:
        """`_stack` of a batch, each example written while the processor's caches still hold it.

        Arrays of the batch that exist already are given by their keys.
        """
        for row, example in enumerate(examples):
            if not row:
                for key in (key for key in self.needs if key in example and key not in batch):
                    value = example[key]
                    batch[key] = room((self.rows, *np.shape(value)), self._dtype(key, value))
            for key, out in batch.items():
                _write(out, row, example[key], key)
        return batch

    def _dtype(self, key: str, value: Any) -> np.dtype:
        """What a batch holds of such values: numbers of examples are narrower on the device."""
        return self.dtypes[key] if key == "id" else value.dtype

    def validate(self, batch: dict[str, np.ndarray], rows: int) -> None:
        """Checks a batch of so many rows against the schema."""
        schema.validate(batch, dataclasses.replace(self.sizes, batch=rows), self.needs)

    def batch_at(self, step: int) -> dict[str, np.ndarray]:
        """This process's rows of the global batch of a step: a pure function of (seed, step).

        Args:
          step: 0, 1, ...

        Returns:
          {key: array [B / process_count, ...]} for the needed keys.
        """
        return self._stack([self._example_at(p, self.note) for p in self._positions(step)])

    def written_batch_at(
        self, step: int, note: Callable[[str, str], None], room: Callable
    ) -> dict[str, np.ndarray]:
        """`batch_at` in less time, for those who make many.

        Args:
          step: 0, 1, ...
          note: told the name of each example that was replaced, and why.
          room: (shape, dtype) -> an array to write to, as `aligned`.
        """
        framing = getattr(self.source, "framing", None)
        if "image" not in self.needs or framing is None:
            return self._written((self._example_at(p, note) for p in self._positions(step)), room)
        pixels = room((self.rows, self.sizes.height, self.sizes.width, 3), np.uint8)

        def examples() -> Iterator[dict[str, np.ndarray]]:
            try:
                for target, position in zip(pixels, self._positions(step), strict=True):
                    framing.aim(target)
                    yield self._example_at(position, note)
            finally:
                framing.aim(None)

        return self._written(examples(), room, image=pixels)

    def encoded_batch_at(self, step: int, room: Callable) -> dict[str, Any]:
        """`written_batch_at`, where pictures that TensorFlow is to decode are left as they are.

        Its "image" is an array where there are none of them; else a list of `native.Encoded` and
        of pixels.
        """
        images, pixels = [], None

        def others() -> Iterator[dict[str, Any]]:
            nonlocal pixels
            for row, position in enumerate(self._positions(step)):
                example = self._example_at(position, self.note, encoded=True)
                image = example.pop("image")
                if not isinstance(image, native.Encoded):
                    if pixels is None:
                        pixels = room((self.rows, *image.shape), image.dtype)
                    _write(pixels, row, image, "image")
                    image = pixels[row]
                images.append(image)
                yield example

        batch = self._written(others(), room)
        encoded = any(isinstance(image, native.Encoded) for image in images)
        return batch | {"image": images if encoded else pixels}

    def _positions(self, step: int) -> range:
        """The positions of this process's rows of a batch."""
        first = step * self.sizes.batch + self.first_row
        return range(first, first + self.rows)

    @property
    def decodes_natively(self) -> bool:
        """Whether there are pictures that TensorFlow decodes."""
        framing = getattr(self.source, "framing", None)
        return "image" in self.needs and framing is not None and framing.decode == "native"

    def iterate(
        self, start_step: int = 0, enough: Callable[[], bool] = lambda: False
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields `batch_at(start_step)`, `batch_at(start_step + 1)`, ... reading ahead by threads.

        Training reads by `jaxt2i.data.stream`; this serves where TensorFlow is absent, or not there
        yet. Close the generator to stop the threads.

        Args:
          start_step: the first.
          enough: asked after each batch; True: only those that are in work follow.
        """
        with contextlib.closing(self._batches(start_step, enough)) as batches:
            for batch in batches:
                self.validate(batch, self.rows)
                yield batch

    def _batches(self, start: int, enough: Callable[[], bool]) -> Iterator[dict[str, np.ndarray]]:
        ahead = self.workers + 1
        with ThreadPoolExecutor(self.workers, "data") as pool:
            steps = itertools.count(start)
            pending = collections.deque()
            try:
                pending.extend(pool.submit(self.batch_at, next(steps)) for _ in range(ahead))
                while pending:
                    batch = pending.popleft().result()
                    if not enough():
                        pending.append(pool.submit(self.batch_at, next(steps)))
                    yield batch
            finally:
                for future in pending:
                    future.cancel()


def aligned(shape: tuple[int, ...], dtype) -> np.ndarray:
    """An empty array that begins where TensorFlow and XLA want it, so that they need no copy."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size].view(dtype).reshape(shape)


def _write(out: np.ndarray, row: int, value: Any, key: str) -> None:
    """Puts a value into a row of a batch, which never stretches it."""
    if np.shape(value) != out.shape[1:]:
        raise ValueError(f"{key!r} of shape {np.shape(value)} in a batch of {out.shape[1:]}")
    target = out[row, ...]
    # A picture may have been decoded to where it belongs, or lie there mirrored.
    if getattr(value, "base", None) is target.base and (
        value.__array_interface__ == target.__array_interface__
    ):
        return
    np.copyto(target, value, casting="same_kind")


def _order(source, seed: int, batch: int, batches: str):
    """Batches of one kind, where they are asked for; the source's own order; else a permutation in
    every epoch.
    """
    if batches:
        return _alike(source, seed, batch, batches)
    if hasattr(source, "order"):
        return source.order(seed, batch)
    return orders.InOrder(None) if source.size is None else orders.Shuffled(source.size, seed)


def _alike(source, seed: int, batch: int, batches: str):
    """Batches of pictures with equally many objects."""
    if batches != "objects":
        raise DataError(f"config.data.batches is {batches!r}; known: 'objects', or '' for any")
    if "boxes" not in source.gives or not hasattr(source, "object_count"):
        raise DataError(
            "config.data.batches='objects' counts the objects of each picture, and this data "
            "(config.data.source) has none; set --config.data.batches=''"
        )
    if source.size is None:
        return orders.AlikeEndless(source.object_count, seed, batch)
    kinds = np.array([source.object_count(i) for i in range(source.size)])
    try:
        return orders.Alike(kinds, seed, batch)
    except ValueError:
        raise DataError(
            f"config.data.batches='objects': of {source.size} pictures no {batch} have equally "
            "many objects; set a smaller --config.batch_size, or --config.data.batches=''"
        ) from None


def prompts_batch(tokenizer, prompts: Sequence[str]) -> dict[str, np.ndarray]:
    """A batch to sample from: {"tokens": int32 [n, T], "token_mask": bool [n, T]}."""
    tokens, mask = tokenizer(prompts)
    return {"tokens": tokens, "token_mask": mask}


def prefetch_to_device(
    iterator: Iterator[Any], put: Callable[[Any], Any], depth: int = 2
) -> Iterator[Any]:
    """Yields `put(item)` of each item, `depth` items ahead, made in a background thread.

    Args:
      iterator: host batches; closed with the generator when it is one.
      put: host batch to device arrays.
      depth: finished items that may wait.

    Yields:
      what `put` returned, in order; an exception of the thread is raised here, in its place.
    """
    ready: queue.Queue = queue.Queue(depth)
    stop = threading.Event()

    def hand_over(kind: str, value: Any) -> None:
        while not stop.is_set():
            try:
                return ready.put((kind, value), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in iterator:
                hand_over("item", put(item))
                if stop.is_set():
                    break
            hand_over("end", None)
        except BaseException as error:  # the consumer raises it
            hand_over("error", error)
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        stop.set()
        thread.join()
