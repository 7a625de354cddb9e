"""What feature networks see in a set of pictures: one pass over them, however many networks."""

import collections
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxt2i.data import pictures, schema, tokenize
from jaxt2i.data.progress import Progress
from jaxt2i.encoders import features, pretrained
from jaxt2i.evaluation import known
from jaxt2i.evaluation.sets import Set, on_local_devices
from jaxt2i.metrics.protocols import PUBLISHED
from jaxt2i.metrics.score import FeatureError, MetricError
from jaxt2i.metrics.statistics import gather_rows, weights_digest
from jaxt2i.nn.precision import exact


@dataclasses.dataclass(frozen=True, order=True)
class Look:
    """One way of looking at pictures; sorted, as keys of a tree must be.

    Attributes:
      network: key of `jaxt2i.encoders.features.NETWORKS`.
      input: how pictures are fed to it.
      size: before that, the centre square is brought to so many pixels by Lanczos; 0: not.
    """

    network: str
    input: str
    size: int = 0


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was seen in a set.

    Attributes:
      rows: [N], the rows of the set that could be read, in order.
      features: {look: {name: float32 [N, D]}}.
      images_per_s: pictures a second, everything included.
      made_per_s: pictures a second of drawing them, or of reading files, alone.
      seen_per_s: pictures a second of the networks alone, resizing included.
      first: {row: uint8 [H, W, 3]} of the first few.
      skipped: {reason: how many could not be read}.
      sizes: {"width x height": pictures}.
    """

    rows: np.ndarray
    features: dict[Look, dict[str, np.ndarray]]
    images_per_s: float
    made_per_s: float = 0.0
    seen_per_s: float = 0.0
    first: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
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


def sized(pixels: np.ndarray, size: int) -> np.ndarray:
    """Pictures [N, H, W, 3] as their centre squares of `size` pixels, by Pillow's Lanczos.

    uint8 stays uint8; what is not rounded is resized channel by channel and not rounded either.
    """
    from PIL import Image

    if not size or pixels.shape[1:3] == (size, size):
        return pixels
    view = pictures.centre((0, 0, *pixels.shape[2:0:-1]), (size, size))
    if pixels.dtype == np.uint8:
        return np.stack([view.show(Image.fromarray(x), "lanczos") for x in pixels])
    planes = ((Image.fromarray(x[..., c], "F") for c in range(3)) for x in pixels)
    shown = [[view.show(plane, "lanczos") for plane in three] for three in planes]
    return np.clip(np.stack([np.stack(three, -1) for three in shown]), 0, 255)


# Networks whose maps are large.
CONVOLUTIONS = ("inception", "vgg16")
# Cores that one picture keeps busy.
FEW_CORES = 4


def few_cores() -> bool:
    """Whether this process computes with a few cores of a CPU, as one device."""
    alone = jax.default_backend() == "cpu" and jax.local_device_count() == 1
    return alone and (os.cpu_count() or 1) <= FEW_CORES


# What each kind of network gives, by the name of its only net.
def _outputs(network: str, out) -> dict[str, jax.Array]:
    """The named vectors among what a network returns."""
    if network.startswith("inception"):
        return {name: out[name] for name in ("2048", "logits", "logits_unbiased") if name in out}
    if isinstance(out, tuple):  # CLIP: (embedding, blocks)
        return {"embedding": out[0]}
    return {"embedding": out}


def in_turn(read: Callable[[Any, jax.Array], Any]) -> Callable[[Any, jax.Array], Any]:
    """The same function (variables, pictures [B, ...]), which looks at one picture after another.

    On a CPU the maps of one picture stay in its caches: Inception takes 0.15 s of a core a picture
    instead of 0.20 s in batches of 32.
    """

    def look(variables: Any, pixels: jax.Array) -> Any:
        found = jax.lax.map(lambda x: read(variables, x[None]), pixels)
        return jax.tree.map(lambda x: x[:, 0], found)

    return look


class _Store:
    """What was seen in a share of a set, in arrays that are made once and filled."""

    def __init__(self, count: int, kept: Mapping[Look, Sequence[str]]):
        self._kept, self._at = kept, 0
        self._numbers = np.zeros(count, np.int64)
        self.found: dict[Look, dict[str, np.ndarray]] = {look: {} for look in kept}

    def add(self, numbers: np.ndarray, seen: Mapping[Look, Mapping[str, np.ndarray]]) -> None:
        """Keeps what was seen in these rows."""
        here = slice(self._at, self._at + len(numbers))
        self._numbers[here] = numbers
        for look, found in seen.items():
            for name, x in found.items():
                if not self._kept[look] or name in self._kept[look]:
                    if name not in self.found[look]:
                        shape = (len(self._numbers), *x.shape[1:])
                        self.found[look][name] = np.empty(shape, x.dtype)
                    self.found[look][name][here] = x
        self._at = here.stop

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """(the rows that were read, in order; where each of them stands)."""
        mine = self._numbers[: self._at]
        order = np.argsort(mine, kind="stable")
        return mine[order], order


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
        self._lent: dict[str, str] = {}
        self._checks: dict[Look, str] = {}

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

    def hold(self, network: features.Network) -> None:
        """Makes a network that is there already known by its name."""
        self._networks[network.name] = network

    def place(self, name: str) -> str:
        """The file or folder that was named for a network, or "random"; "" for none."""
        return self._weights.get(name, "")

    def provenance(self, name: str) -> str:
        """Whose weights a network has: `PUBLISHED`, where they were fetched or their file has the
        published hash; else "random", what `lend` was told, or the file's own hash.

        Where no hash was published, a file is taken for what it is called; its tensors have been
        checked by name and shape.
        """
        if name in self._lent:
            return self._lent[name]
        given = self._weights.get(name, "")
        if given in ("", "random"):
            return given or PUBLISHED
        parts = [part for net in features.make(name).values() for part in net.parts]
        wanted = {pretrained.digest_of(part.source) for part in parts}
        if wanted == {None}:
            return PUBLISHED
        places = given.split(",")
        same = all(
            y and any(pretrained.hash_of(x, y).startswith(y) for x in places) for y in wanted
        )
        return PUBLISHED if same else f"file {'+'.join(pretrained.hash_of(x)[:12] for x in places)}"

    def told(self, name: str) -> dict[str, dict[str, str]]:
        """{network: whose weights it has, where and how exactly it computes}, for a result."""
        checks = {said for look, said in self._checks.items() if look.network == name}
        out = {
            "weights": self.provenance(name),
            "digest": "" if name in self._lent else self.weights_digest(name)[:16],
            "backend": jax.default_backend(),
            "precision": known.PRECISION,
        }
        return {name: out | ({"self_check": "; ".join(sorted(checks))} if checks else {})}

    def all_told(self) -> dict[str, dict[str, str]]:
        """`told` of every network that has looked at pictures."""
        names = dict.fromkeys(look.network for look in self._checks)
        return {name: said for one in names for name, said in self.told(one).items()}

    def verified(self, look: Look, program: Callable, variables: Any, *given: Any) -> None:
        """Has a program look at a known picture before it scores anything, once a look.

        Args:
          look: what it is known by.
          program: compiled, (variables, *given) -> scores or features.
          variables: of the network.
          *given: what it is about to be given, see `known.check`.

        Raises:
          FeatureError: where it computes wrongly here.
        """
        if look not in self._checks:
            self._checks[look] = known.check(look.network, program, variables, given, self._split)

    def weights_digest(self, name: str) -> str:
        """A fingerprint of a network's weights."""
        return weights_digest(self.network(name).variables)

    def lend(
        self,
        name: str,
        image: Callable[[Any, jax.Array], jax.Array],
        text: Callable[[Any, jax.Array, jax.Array], jax.Array],
        variables: Any,
        tokenizer: Callable,
        provenance: str = "trained here",
    ) -> None:
        """Makes encoders that a run trained a way to look, under Look(name, "unit_range").

        Args:
          name: of the network.
          image: (variables, pictures [B, H, W, 3] in [-1, 1]) -> [B, S].
          text: (variables, tokens, mask) -> [B, S].
          variables: of both.
          tokenizer: of the run.
          provenance: whose weights they are, for the record.
        """
        placed = jax.device_put(variables, self._whole)
        self._lent[name] = provenance

        def see(variables, pixels):
            return {"embedding": image(variables, schema.unit_range(pixels))}

        see, read = (jax.jit(exact(f), out_shardings=self._whole) for f in (see, text))
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
            given = [jax.device_put(x, self._split) for x in filled]
            found = np.asarray(program(placed, *given), np.float64)[: len(pictures[0])]
            if not np.isfinite(found).all():
                height, width = pictures[0].shape[1:3]
                raise FeatureError(
                    f"lpips_{net} of pictures of {width} x {height} px is not finite: they are too "
                    "small for it (alex takes 31 px a side or more, vgg 16); choose another "
                    "--lpips-net, or enlarge folders' pictures by --resolution 64"
                )
            self.verified(Look(f"lpips_{net}", "pairs"), program, placed, *given)
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

            if look.network.startswith(CONVOLUTIONS) and few_cores():
                named = in_turn(named)
            self._looks[look] = jax.jit(named, out_shardings=self._whole), placed
        return self._looks[look]

    def read(
        self,
        of: Set,
        looks: Mapping[Look, Sequence[str]] | Iterable[Look],
        what: str = "",
        first: int = 0,
    ) -> Seen:
        """Looks at every picture of a set; each process at its share, and all know all of it.

        Pictures pass by and are gone; what networks give is kept.

        Args:
          of: the set.
          looks: how, each with the names of what is kept of it; without names, all of it.
          what: for the progress line.
          first: keep the pictures of so many first rows.

        Raises:
          MetricError: where nothing of the set can be read.
        """
        kept = dict(looks) if isinstance(looks, Mapping) else dict.fromkeys(looks, ())
        programs = {look: self._look(look) for look in kept}
        share = share_of(of.count)
        progress = Progress(what or f"looking at {of.name}", len(share))
        start, before = time.monotonic(), collections.Counter(of.skipped.counts)
        store = _Store(len(share), kept)
        sizes, shown, waited = collections.Counter(), {}, 0.0
        batches = iter(of.batches(self.batch, share.tolist()))
        while True:
            asked = time.monotonic()
            numbers, pixels = next(batches, (None, None))
            waited += time.monotonic() - asked
            if numbers is None:
                break
            store.add(numbers, self._seen(programs, pixels))
            for row, x in zip(numbers.tolist(), pixels, strict=True):
                if row < first:
                    shown[row] = np.asarray(np.clip(np.round(x), 0, 255), np.uint8)
            sizes[f"{pixels.shape[2]} x {pixels.shape[1]}"] += len(numbers)
            for _ in numbers:
                progress.step(False)
        progress.close()
        spent = time.monotonic() - start
        mine, order = store.rows()
        numbers = together(mine)
        skipped = counts_together(of.skipped.counts - before)
        if not len(numbers):
            reasons = ", ".join(f"{n} {reason}" for reason, n in skipped.items())
            raise MetricError(
                f"none of the {of.count} pictures of {of.name} can be read ({reasons})"
            )
        joined = {}
        for look in kept:
            found = store.found.pop(look) or self._nothing(*programs[look], kept[look])
            kept_rows = slice(len(order)) if (np.diff(order) == 1).all() else order
            joined[look] = {n: together(x[kept_rows]) for n, x in found.items()}
        rates = (len(numbers) / max(t, 1e-9) for t in (spent, waited, spent - waited))
        return Seen(numbers, joined, *rates, shown, skipped, counts_together(sizes))

    def see(self, look: Look, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """What a network gives of at most `batch` pictures [n, H, W, 3], on the host."""
        return self._seen({look: self._look(look)}, pixels)[look]

    def lent(self, name: str) -> bool:
        """Whether `lend` gave a network of this name."""
        return name in self._lent

    def _seen(self, programs: Mapping[Look, tuple], pixels: np.ndarray) -> dict:
        """What the networks give of a batch, of its real rows alone, on the host."""
        placed, seen = {}, {}
        for look, (program, variables) in programs.items():
            if look.size not in placed:
                x = sized(pixels, look.size)
                padding = np.repeat(x[-1:], self.batch - len(x), 0)
                placed[look.size] = jax.device_put(np.concatenate([x, padding]), self._split)
            self.verified(look, program, variables, placed[look.size])
            seen[look] = program(variables, placed[look.size])
        found = jax.device_get(seen)
        return jax.tree.map(lambda x: x[: len(pixels)], found)

    def _nothing(
        self, program: Callable, variables: Any, names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """What a process without a picture of its own has seen."""
        pixels = jax.ShapeDtypeStruct((self.batch, 64, 64, 3), np.uint8)
        seen = jax.eval_shape(program, variables, pixels)
        wanted = names or seen
        return {n: np.zeros((0, *x.shape[1:]), x.dtype) for n, x in seen.items() if n in wanted}

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
