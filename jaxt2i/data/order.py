"""In which order the examples of a source are seen: position of the endless stream -> example.

Every order is a pure function of (seed, position), held nowhere and computed for one position in
at most logarithmic time. So a resumed run needs the step number alone, and any number of processes
share one global order.
"""

import bisect
import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

# Fewer rounds leave the orders of small folders measurably uneven.
ROUNDS = 12
WORD = 2**64 - 1
# Slots in which each part of a mixture has its exact share.
BLOCK = 1024
# Names of the independent random streams behind one seed; the pipeline's own are further up.
SHUFFLE, DEAL, SHARDS, INSIDE, MIXTURE, PHASE, KIND, ALIKE = 1, 11, 12, 13, 14, 15, 16, 17
KEEP = 18
# Examples of an endless source among which orders that choose look, and how often at most.
ENDLESS, TRIES = 2**31, 2000


def mix(*words: int) -> int:
    """A 64-bit hash of integers: SplitMix64's finaliser after each word.

    Our own, because the streams of numpy's generators may change from version to version and a
    resumed run must not.
    """
    h = 0
    for word in words:
        h = _stir(h, word)
    return h


def _stir(h: int, word: int) -> int:
    h = (h + word + 0x9E3779B97F4A7C15) & WORD
    h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & WORD
    return h ^ (h >> 31)


@functools.lru_cache(maxsize=1024)
def _rounds(key: int) -> tuple[int, ...]:
    """What the rounds of a permutation begin their hashes with."""
    return tuple(mix(key + turn) for turn in range(ROUNDS))


def permuted(i: int, size: int, key: int) -> int:
    """Element i of a permutation of range(size), without ever holding the permutation.

    A Feistel network permutes the next power of four; walking on while outside range(size)
    restricts it (Black and Rogaway, 2002, "Ciphers with arbitrary finite domains").

    Args:
      i: in range(size).
      size: at least 1.
      key: chooses the permutation.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    rounds = _rounds(key)
    while True:
        left, right = i >> half, i & low
        for begun in rounds:
            left, right = right, left ^ (_stir(begun, right) & low)
        i = left << half | right
        if i < size:
            return i


class InOrder:
    """As the source counts them; an unlimited source has no other order."""

    def __init__(self, size: int | None):
        self.size = size

    def __call__(self, position: int) -> int:
        return position if self.size is None else position % self.size


class Shuffled:
    """A new permutation of all examples in every epoch."""

    def __init__(self, size: int, seed: int):
        self.size, self.seed = size, seed

    def __call__(self, position: int) -> int:
        epoch, i = divmod(position, self.size)
        return permuted(i, self.size, mix(self.seed, SHUFFLE, epoch))


class Weighted:
    """Examples as often as their weights say, in a new permutation in every epoch.

    Systematic sampling: an epoch takes equally spaced points on the line of all weights, from a
    start of its own, so an example of weight w is seen floor(w) or ceil(w) times, and w times on
    average.
    """

    def __init__(self, weights: np.ndarray, seed: int):
        """Args:
        weights: [N], mean sightings an epoch, at least one of them positive.
        seed: of the order.
        """
        self.ends = np.cumsum(np.asarray(weights, np.float64))
        self.size = max(1, round(float(self.ends[-1])))
        self.seed = seed

    def __call__(self, position: int) -> int:
        epoch, i = divmod(position, self.size)
        phase = mix(self.seed, PHASE, epoch) / 2**64
        point = (permuted(i, self.size, mix(self.seed, SHUFFLE, epoch)) + phase) / self.size
        at = int(np.searchsorted(self.ends, point * self.ends[-1], side="right"))
        return min(at, len(self.ends) - 1)


class Alike:
    """Batches of examples of one kind, such as pictures with equally many objects.

    In every epoch each kind is shuffled and divided into batches, what is left over being left out,
    and the batches of all kinds are shuffled: whatever has the most batches left is the likeliest
    next.

    Source: OP-GAN's training (Hinz et al. 2022), which has such a loader for every number of
    objects.
    """

    def __init__(self, kinds: np.ndarray, seed: int, batch: int):
        """Args:
        kinds: [N], the kind of each example, whole numbers.
        seed: of the order.
        batch: rows of the global batch.

        Raises:
          ValueError: where no kind fills a batch.
        """
        self.seed, self.batch = seed, batch
        groups = (np.flatnonzero(kinds == kind) for kind in np.unique(kinds))
        self.groups = [group for group in groups if len(group) >= batch]
        if not self.groups:
            raise ValueError(f"no {batch} examples of one kind")
        self.ends = np.cumsum([len(group) // batch for group in self.groups])
        self.size = int(self.ends[-1]) * batch

    def __call__(self, position: int) -> int:
        step, row = divmod(position, self.batch)
        epoch, i = divmod(step, int(self.ends[-1]))
        i = permuted(i, int(self.ends[-1]), mix(self.seed, KIND, epoch))
        at = int(np.searchsorted(self.ends, i, side="right"))
        first = int(self.ends[at - 1]) if at else 0
        group, place = self.groups[at], (i - first) * self.batch + row
        return int(group[permuted(place, len(group), mix(self.seed, SHUFFLE, epoch, at))])


class AlikeEndless:
    """`Alike` of a source without an end: each batch is of the kind of an example drawn by chance.

    Others of its kind are found by trying: as many tries for a batch, on average, as it has rows
    times the number of kinds.
    """

    size = None

    def __init__(self, kind: Callable[[int], int], seed: int, batch: int):
        """Args:
        kind: of an example.
        seed: of the order.
        batch: rows of the global batch.
        """
        self.kind, self.seed, self.batch = kind, seed, batch
        self._wanted = functools.lru_cache(maxsize=64)(
            lambda step: kind(mix(seed, KIND, step) % ENDLESS)
        )

    def __call__(self, position: int) -> int:
        step, row = divmod(position, self.batch)
        wanted = self._wanted(step)
        for turn in range(TRIES):
            index = mix(self.seed, ALIKE, step, row, turn) % ENDLESS
            if self.kind(index) == wanted:
                break
        return index


class WeightedEndless:
    """`Weighted` of a source without an end: examples drawn by chance, each kept with the chance
    of its weight over the largest one.
    """

    size = None

    def __init__(self, weight: Callable[[int], float], most: float, seed: int):
        """Args:
        weight: of an example, 0 to `most`.
        most: no weight is larger.
        seed: of the order.
        """
        self.weight, self.most, self.seed = weight, most, seed

    def __call__(self, position: int) -> int:
        for turn in range(TRIES):
            index = mix(self.seed, KEEP, position, turn) % ENDLESS
            if mix(self.seed, KEEP, position, turn, 1) / 2**64 * self.most < self.weight(index):
                break
        return index


class Shards:
    """Examples of files that are best read whole: files in random order, a few mixed at a time.

    The rows of a global batch are divided among lanes, each with files of its own: a process reads
    only the files of the lanes whose rows it makes, and the order does not depend on how many
    processes there are. In every epoch a lane permutes its files, and then all examples of each
    `window` consecutive ones.
    """

    def __init__(self, counts: Sequence[int], seed: int, lanes: int, window: int):
        """Deals the files to the lanes.

        Args:
          counts: examples of each file, at least `lanes` of them positive.
          seed: of the order.
          lanes: see above.
          window: files whose examples are mixed.
        """
        self.counts = np.asarray(counts, np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])
        self.seed, self.window = seed, window
        # The largest file left goes to the lane with the fewest examples; equals as chance has it.
        usable = np.flatnonzero(self.counts)
        ties = [mix(seed, DEAL, int(i)) for i in usable]
        self.lanes: list[list[int]] = [[] for _ in range(lanes)]
        totals = [0] * lanes
        for _, _, shard in sorted(zip(-self.counts[usable], ties, usable.tolist(), strict=True)):
            lane = min(range(lanes), key=totals.__getitem__)
            self.lanes[lane].append(shard)
            totals[lane] += int(self.counts[shard])
        self.totals = totals
        self.size = int(self.starts[-1])
        self._laid = functools.lru_cache(maxsize=2 * lanes)(self._lay)

    def _lay(self, lane: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """A lane's files as they come in an epoch, and how many examples end with each."""
        files = self.lanes[lane]
        key = mix(self.seed, SHARDS, lane, epoch)
        order = np.array([files[permuted(i, len(files), key)] for i in range(len(files))])
        return order, np.cumsum(self.counts[order])

    def at(self, lane: int, position: int) -> int:
        """The example at a position of a lane's stream."""
        epoch, i = divmod(position, self.totals[lane])
        order, ends = self._laid(lane, epoch)
        first = int(np.searchsorted(ends, i, side="right")) // self.window * self.window
        last = min(first + self.window, len(order)) - 1
        begin = int(ends[first - 1]) if first else 0
        key = mix(self.seed, INSIDE, lane, epoch, first)
        i = begin + permuted(i - begin, int(ends[last]) - begin, key)
        file = int(np.searchsorted(ends, i, side="right"))
        inside = i - int(ends[file - 1]) if file else i
        return int(self.starts[order[file]]) + inside


@dataclasses.dataclass(frozen=True)
class Started:
    """Where a mixture begins that follows another.

    Attributes:
      begin: position of the stream, a multiple of the batch.
      bases: [parts], number of the first example of each.
      seen: [lanes, parts], examples of each lane's stream of a part that came before.
    """

    begin: int
    bases: np.ndarray
    seen: np.ndarray


class Lanes:
    """One or several collections of files, mixed by weight, for batches of one size.

    In every `BLOCK` positions of a lane each collection has its exact share, in random order.
    """

    def __init__(
        self,
        parts: Sequence[Shards],
        weights: Sequence[float],
        batch: int,
        seed: int,
        started: Started | None = None,
    ):
        """Args:
        parts: with the same number of lanes, which divides the batch.
        weights: one a part, all positive.
        batch: rows of the global batch.
        seed: of the mixture.
        started: None: at position 0, examples numbered one part after the other.
        """
        self.parts, self.batch, self.seed = parts, batch, seed
        self.lanes = len(parts[0].lanes)
        ends = np.cumsum([part.size for part in parts])
        self.size = int(ends[-1])
        self.started = started or Started(
            0, np.concatenate([[0], ends[:-1]]), np.zeros((self.lanes, len(parts)), np.int64)
        )
        self.slots = np.concatenate([[0], np.cumsum(apportioned(weights, BLOCK))])

    def __call__(self, position: int) -> int:
        step, row = divmod(position - self.started.begin, self.batch)
        rows = self.batch // self.lanes
        lane, place = row // rows, step * rows + row % rows
        part, place = self._part(lane, place)
        place += int(self.started.seen[lane, part])
        return int(self.started.bases[part]) + self.parts[part].at(lane, place)

    def seen(self, position: int) -> np.ndarray:
        """[lanes, parts], as `Started.seen`, before a position that is a multiple of the batch.

        A block that has begun counts as a whole, since its order is not that of its parts: what
        is left of it is not seen before the next epoch, and nothing is seen twice.
        """
        places = (position - self.started.begin) // self.batch * (self.batch // self.lanes)
        if len(self.parts) == 1:
            return self.started.seen + places
        return self.started.seen + -(-places // BLOCK) * np.diff(self.slots)

    def _part(self, lane: int, place: int) -> tuple[int, int]:
        if len(self.parts) == 1:
            return 0, place
        block, slot = divmod(place, BLOCK)
        slot = permuted(slot, BLOCK, mix(self.seed, MIXTURE, lane, block))
        part = int(np.searchsorted(self.slots, slot, side="right")) - 1
        share = int(self.slots[part + 1] - self.slots[part])
        return part, block * share + slot - int(self.slots[part])


class Staged:
    """Mixtures that followed each other, each from its own position on."""

    def __init__(self, stages: Sequence[Lanes]):
        """Args:
        stages: the earliest first, the first from position 0 on.
        """
        self.stages, self.size = stages, stages[-1].size
        self._begins = [stage.started.begin for stage in stages]

    def __call__(self, position: int) -> int:
        return self.stages[bisect.bisect_right(self._begins, position) - 1](position)


def apportioned(weights: Sequence[float], total: int) -> np.ndarray:
    """Whole numbers that sum to total, in proportion to weights, none of them 0."""
    shares = np.asarray(weights, np.float64) / np.sum(weights) * total
    out = np.maximum(np.floor(shares), 1).astype(np.int64)
    while out.sum() != total:
        step = 1 if out.sum() < total else -1
        gap = (shares - out) * step
        out[np.argmax(np.where((out > 1) | (step > 0), gap, -np.inf))] += step
    return out


def lanes_for(files: int, batch: int, most: int) -> int:
    """How many lanes a batch is divided into: the largest divisor of it within both limits."""
    return max(n for n in range(1, batch + 1) if batch % n == 0 and n <= min(files, most))
