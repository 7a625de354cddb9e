"""What feature networks see in a set of pictures: one pass over them, however many networks."""

import collections
import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxt2i.data import schema, tokenize
from jaxt2i.data.progress import Progress
from jaxt2i.encoders import features
from jaxt2i.evaluation.sets import Set, on_local_devices
from jaxt2i.metrics.score import FeatureError, MetricError
from jaxt2i.metrics.statistics import fingerprint, gather_rows


@dataclasses.dataclass(frozen=True, order=True)
class Look:
    """One way of looking at pictures; sorted, as keys of a tree must be.

    Attributes:
      network: key of `jaxt2i.encoders.features.NETWORKS`.
      input: how pictures are fed to it.
    """

    network: str
    input: str


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was seen in a set.

    Attributes:
      rows: [N], the rows of the set that could be read, in order.
      features: {look: {name: float32 [N, D]}}.
      images_per_s: pictures a second, everything included.
      skipped: {reason: how many could not be read}.
      sizes: {"width x height": pictures}.
    """

    rows: np.ndarray
    features: dict[Look, dict[str, np.ndarray]]
    images_per_s: float
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)


def share_of(count: int) -> np.ndarray:
    """The rows of this process among so many."""
    return np.array_split(np.arange(count), jax.process_count())[jax.process_index()]


def together(x: np.ndarray) -> np.ndarray:
    """Rows of all processes, in the order of their shares; every process must call it."""
    return gather_rows(x) if jax.process_count() > 1 else x


def counts_together(counts: Mapping[str, int]) -> dict[str, int]:
    """The sum of the counts of all processes; every process must call it."""
    line = json.dumps(dict(counts)).encode() + b"\n"
    lines = together(np.frombuffer(line, np.uint8)).tobytes().splitlines()
    return dict(sum((collections.Counter(json.loads(x)) for x in lines), collections.Counter()))


# What each kind of network gives, by the name of its only net.
def _outputs(network: str, out) -> dict[str, jax.Array]:
    """The named vectors among what a network returns."""
    if network.startswith("inception"):
        return {name: out[name] for name in ("2048", "logits", "logits_unbiased") if name in out}
    if isinstance(out, tuple):  # CLIP: (embedding, blocks)
        return {"embedding": out[0]}
    return {"embedding": out}


class Reader:
    """Networks with their weights on this process's devices, and compiled ways to look.

    Attributes:
      batch: pictures at once, a multiple of the number of devices.
    """

    def __init__(self, weights: dict[str, str] | None = None, batch: int = 32):
        """Loads nothing yet.

        Args:
          weights: {network: file, folder, or "random"}; others come from the cache or a checked
            download.
          batch: pictures at once.
        """
        self._weights = dict(weights or {})
        self.batch = batch + -batch % jax.local_device_count()
        self._split, self._whole = on_local_devices()
        self._networks: dict[str, features.Network] = {}
        self._looks: dict[Look, tuple] = {}
        self._texts: dict[str, tuple] = {}

    def network(self, name: str) -> features.Network:
        """A network, loaded once.

        Raises:
          WeightsError: where its weights cannot be had; says where they come from.
        """
        if name not in self._networks:
            given = self._weights.get(name, "")
            kind = "random" if given == "random" else "pretrained"
            path = "" if given == "random" else given
            self._networks[name] = features.load(name, path, kind)
        return self._networks[name]

    def weights_digest(self, name: str) -> str:
        """A fingerprint of a network's weights."""
        leaves = jax.tree_util.tree_leaves_with_path(self.network(name).variables)
        parts = (
            (jax.tree_util.keystr(path), str(x.dtype), np.ascontiguousarray(x).tobytes())
            for path, x in leaves
        )
        return fingerprint(part for leaf in parts for part in leaf)

    def lend(
        self,
        name: str,
        image: Callable[[Any, jax.Array], jax.Array],
        text: Callable[[Any, jax.Array, jax.Array], jax.Array],
        variables: Any,
        tokenizer: Callable,
    ) -> None:
        """Makes encoders that a run trained a way to look, under Look(name, "unit_range").

        Args:
          name: of the network.
          image: (variables, pictures [B, H, W, 3] in [-1, 1]) -> [B, S].
          text: (variables, tokens, mask) -> [B, S].
          variables: of both.
          tokenizer: of the run.
        """
        placed = jax.device_put(variables, self._whole)

        def see(variables, pixels):
            return {"embedding": image(variables, schema.unit_range(pixels))}

        see, read = (jax.jit(f, out_shardings=self._whole) for f in (see, text))
        self._looks[Look(name, "unit_range")] = see, placed
        self._texts[name] = read, placed, tokenizer

    def distance(self, net: str, batch: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """LPIPS [n] of pairs of pictures [n, H, W, 3] in 0..255, n at most `batch`.

        Raises:
          FeatureError: where it is not finite, as of pictures that are too small for the network.
        """
        network = self.network(f"lpips_{net}")
        read = network.reader("distance")
        placed = jax.device_put(network.variables["distance"], self._whole)
        program = jax.jit(lambda v, *x: read(v, *map(schema.unit_range, x)))
        size = batch + -batch % jax.local_device_count()

        def distance(*pictures: np.ndarray) -> np.ndarray:
            filled = (np.concatenate([x, np.repeat(x[-1:], size - len(x), 0)]) for x in pictures)
            given = (jax.device_put(x, self._split) for x in filled)
            found = np.asarray(program(placed, *given), np.float64)[: len(pictures[0])]
            if not np.isfinite(found).all():
                height, width = pictures[0].shape[1:3]
                raise FeatureError(
                    f"lpips_{net} of pictures of {width} x {height} px is not finite: they are too "
                    "small for it (alex takes 31 px a side or more, vgg 16); choose another "
                    "--lpips-net, or enlarge folders' pictures by --resolution 64"
                )
            return found

        return distance

    def _look(self, look: Look) -> tuple:
        if look not in self._looks:
            network = self.network(look.network)
            net = "image" if "image" in network.nets else "features"
            method = "class_token" if look.network.startswith("dinov2") else None
            read = network.reader(net, look.input, method)
            placed = jax.device_put(network.variables[net], self._whole)

            def named(variables, pixels):
                return _outputs(look.network, read(variables, pixels))

            self._looks[look] = jax.jit(named, out_shardings=self._whole), placed
        return self._looks[look]

    def read(self, pictures: Set, looks: Iterable[Look], what: str = "") -> Seen:
        """Looks at every picture of a set; each process at its share, and all know all of it.

        Args:
          pictures: the set.
          looks: how.
          what: for the progress line.

        Raises:
          MetricError: where nothing of the set can be read.
        """
        looks = tuple(dict.fromkeys(looks))
        programs = {look: self._look(look) for look in looks}
        share = share_of(pictures.count)
        progress = Progress(what or f"looking at {pictures.name}", len(share))
        start, before = time.monotonic(), collections.Counter(pictures.skipped.counts)
        rows, parts, sizes = [], {look: [] for look in looks}, collections.Counter()
        for numbers, pixels in pictures.batches(self.batch, share.tolist()):
            padding = np.repeat(pixels[-1:], self.batch - len(pixels), 0)
            placed = jax.device_put(np.concatenate([pixels, padding]), self._split)
            seen = {look: program(v, placed) for look, (program, v) in programs.items()}
            for look, found in jax.device_get(seen).items():
                parts[look].append({name: x[: len(numbers)] for name, x in found.items()})
            rows.append(numbers)
            sizes[f"{pixels.shape[2]} x {pixels.shape[1]}"] += len(numbers)
            for _ in numbers:
                progress.step(False)
        progress.close()
        mine = np.concatenate([np.zeros(0, np.int64), *rows])
        order = np.argsort(mine, kind="stable")
        numbers = together(mine[order])
        skipped = counts_together(pictures.skipped.counts - before)
        if not len(numbers):
            reasons = ", ".join(f"{n} {reason}" for reason, n in skipped.items())
            raise MetricError(
                f"none of the {pictures.count} pictures of {pictures.name} can be read ({reasons})"
            )
        joined = {}
        for look, found in parts.items():
            found = found or [self._nothing(*programs[look])]
            joined[look] = {
                name: together(np.concatenate([part[name] for part in found])[order])
                for name in found[0]
            }
        rate = len(numbers) / max(time.monotonic() - start, 1e-9)
        return Seen(numbers, joined, rate, skipped, counts_together(sizes))

    def _nothing(self, program: Callable, variables: Any) -> dict[str, np.ndarray]:
        """What a process without a picture of its own has seen."""
        pixels = jax.ShapeDtypeStruct((self.batch, 64, 64, 3), np.uint8)
        seen = jax.eval_shape(program, variables, pixels)
        return {name: np.zeros((0, *x.shape[1:]), x.dtype) for name, x in seen.items()}

    def texts(self, network: str, captions: Sequence[str]) -> np.ndarray:
        """Sentence vectors [N, S], of a CLIP's text tower or of encoders that were lent."""
        if network not in self._texts:
            loaded = self.network(network)
            read = loaded.reader("text")
            placed = jax.device_put(loaded.variables["text"], self._whole)
            program = jax.jit(lambda v, t, m: read(v, t, m).sentence, out_shardings=self._whole)
            self._texts[network] = program, placed, tokenize.make_tokenizer("clip", 77)
        program, placed, tokenizer = self._texts[network]

        def vectors(chunk: list[str]) -> np.ndarray:
            given = tokenizer(chunk + chunk[-1:] * (self.batch - len(chunk)))
            tokens, mask = (jax.device_put(x, self._split) for x in given)
            return np.asarray(program(placed, tokens, mask))[: len(chunk)]

        mine = [captions[i] for i in share_of(len(captions))]
        chunks = [mine[at : at + self.batch] for at in range(0, len(mine), self.batch)]
        # A process without a caption of its own still says how wide the vectors are.
        parts = [vectors(chunk) for chunk in chunks] or [vectors(list(captions[:1]))[:0]]
        return together(np.concatenate(parts))
