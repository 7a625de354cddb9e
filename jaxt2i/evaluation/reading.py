"""What feature networks see in a set of pictures: one pass over them, however many networks."""

import dataclasses
import time
from collections.abc import Iterable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxt2i.data.progress import Progress
from jaxt2i.encoders import features
from jaxt2i.evaluation.sets import Set
from jaxt2i.metrics.score import MetricError
from jaxt2i.metrics.statistics import gather_rows


@dataclasses.dataclass(frozen=True)
class Look:
    """One way of looking at pictures.

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
    """

    rows: np.ndarray
    features: dict[Look, dict[str, np.ndarray]]
    images_per_s: float


def together(x: np.ndarray) -> np.ndarray:
    """Rows of all processes."""
    return gather_rows(x) if jax.process_count() > 1 else x


# What each kind of network gives, by the name of its only net.
def _outputs(network: str, out) -> dict[str, jax.Array]:
    """The named vectors among what a network returns."""
    if network.startswith("inception"):
        return {name: out[name] for name in ("2048", "logits", "logits_unbiased")}
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
        devices = jax.local_devices()
        self.batch = -(-batch // len(devices)) * len(devices)
        mesh = Mesh(np.array(devices), ("data",))
        self._split, self._whole = (NamedSharding(mesh, P(*axes)) for axes in (("data",), ()))
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
        share = np.array_split(np.arange(pictures.count), jax.process_count())[jax.process_index()]
        progress = Progress(what or f"looking at {pictures.name}", len(share))
        start = time.monotonic()
        rows, parts = [], {look: [] for look in looks}
        for numbers, pixels in pictures.batches(self.batch, share.tolist()):
            padding = np.repeat(pixels[-1:], self.batch - len(pixels), 0)
            placed = jax.device_put(np.concatenate([pixels, padding]), self._split)
            seen = {look: program(v, placed) for look, (program, v) in programs.items()}
            for look, found in jax.device_get(seen).items():
                parts[look].append({name: x[: len(numbers)] for name, x in found.items()})
            rows.append(numbers)
            for _ in numbers:
                progress.step(False)
        progress.close()
        if not rows:
            raise MetricError(
                f"none of the {pictures.count} pictures of {pictures.name} can be read "
                f"({pictures.skipped})"
            )
        order = np.argsort(np.concatenate(rows), kind="stable")
        joined = {
            look: {
                name: together(np.concatenate([part[name] for part in found])[order])
                for name in found[0]
            }
            for look, found in parts.items()
        }
        spent = time.monotonic() - start
        numbers = together(np.concatenate(rows)[order])
        return Seen(numbers, joined, len(numbers) / max(spent, 1e-9))

    def texts(self, network: str, captions: Sequence[str]) -> np.ndarray:
        """Sentence vectors [N, S] of a CLIP's text tower."""
        from jaxt2i.data import tokenize

        if network not in self._texts:
            loaded = self.network(network)
            read = loaded.reader("text")
            placed = jax.device_put(loaded.variables["text"], self._whole)
            program = jax.jit(lambda v, t, m: read(v, t, m).sentence, out_shardings=self._whole)
            self._texts[network] = program, placed, tokenize.make_tokenizer("clip", 77)
        program, placed, tokenizer = self._texts[network]
        parts = []
        for first in range(0, len(captions), self.batch):
            chunk = list(captions[first : first + self.batch])
            given = tokenizer(chunk + chunk[-1:] * (self.batch - len(chunk)))
            tokens, mask = (jax.device_put(x, self._split) for x in given)
            parts.append(np.asarray(program(placed, tokens, mask))[: len(chunk)])
        return np.concatenate(parts)
