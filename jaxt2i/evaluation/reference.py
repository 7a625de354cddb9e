"""What pictures are compared with: a folder, the data of a run, or statistics of a file."""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxt2i.data import images
from jaxt2i.data.sources import files
from jaxt2i.evaluation import sets
from jaxt2i.evaluation.reading import Look, Reader, Seen
from jaxt2i.metrics import statistics as stats
from jaxt2i.metrics.protocols import Protocol, Reference, settings
from jaxt2i.metrics.score import MetricError, StatisticsError
from jaxt2i.run import log

# Pictures of a source whose pixels are looked at to tell it from another.
PROBED = 32
# Settings of config.data that change no picture.
IRRELEVANT = ("path", "workers", "cache_mb", "tokenizer", "tokens")
# What the moments of a file depend on: our names, and what else a file may call them.
FIELDS = {
    "network": ("fid.network", "network"),
    "input": ("fid.input", "input", "preprocessing"),
    "ddof": ("fid.ddof", "ddof"),
}
UNKNOWN = "network and preprocessing unknown"
BY_NAME = "by its name the published one"


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Moments of a file, and what it says of them.

    Attributes:
      gaussian: mean and covariance.
      name: of the file, without its folder.
      says: what has to be known of them, in words; "" where the file says all of it.
      said: fields of `protocols.Reference`, of files that say of which pictures they are.
    """

    gaussian: stats.Gaussian
    name: str
    says: str
    said: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Compared:
    """What generated pictures are compared with.

    Attributes:
      real: pictures; None: statistics of a file.
      given: statistics of a file; None: pictures.
      seen: what was seen in the pictures; None where moments of them were kept.
      moments: kept ones; None where there are none.
      file: where moments are to be kept; None: nowhere.
      digest: of what the moments depend on.
    """

    real: sets.Set | None = None
    given: Statistics | None = None
    seen: Seen | None = None
    moments: stats.Gaussian | None = None
    file: epath.Path | None = None
    digest: str = ""

    @property
    def gaussian(self) -> stats.Gaussian | None:
        """Moments that need not be computed."""
        return self.given.gaussian if self.given else self.moments


def of_file(file: epath.Path, protocol: Protocol, metrics: Sequence[str]) -> Statistics:
    """Statistics of a file, for the metrics that a protocol measures by moments.

    Args:
      file: an .npz.
      protocol: how is measured.
      metrics: that compare with real pictures.

    Raises:
      StatisticsError: where the file cannot be read, or says that it was made otherwise.
      MetricError: for metrics that need the pictures themselves.
    """
    needing = [m for m in metrics if m not in ("fid", "fid_inf")]
    if needing:
        raise MetricError(
            f"{', '.join(needing)} compare with the reference's pictures themselves, and {file} "
            "holds moments: give --reference DIR with the pictures"
        )
    found = stats.load(file)
    how = protocol.fid
    told = {
        field: next((found.protocol[key] for key in keys if key in found.protocol), None)
        for field, keys in FIELDS.items()
    }
    other = {
        field: value
        for field, value in told.items()
        if value is not None and str(value) != str(getattr(how, field))
    }
    if other:
        mine = ", ".join(f"{field} {getattr(how, field)}" for field in other)
        raise StatisticsError(
            f"{file}: made with {', '.join(f'{f} {v}' for f, v in other.items())}, and "
            f"--protocol {protocol.name} measures with {mine}; choose the protocol that it was "
            "made for, or give --reference DIR with the pictures"
        )
    lacking = [field for field in ("network", "input") if told[field] is None]
    says = ""
    if lacking:
        says = UNKNOWN if len(lacking) == 2 else f"{lacking[0]} unknown"
        says = BY_NAME if file.name == protocol.reference.file else says
    fields = [f.name for f in dataclasses.fields(Reference)]
    keys = {name: f"reference.{name}" for name in fields}
    said = {name: found.protocol[key] for name, key in keys.items() if key in found.protocol}
    return Statistics(found.gaussian, file.name, says, said if len(said) == len(fields) else {})


def note_of(file: epath.Path, says: str) -> list[str]:
    """What to know about a score that was made with statistics that do not say all."""
    if not says:
        return []
    if says == BY_NAME:
        return [f"{file}: {says}; it does not say how it was made, and was not checked any further"]
    return [
        f"{file}: {says}; the file does not say how it was made, so its numbers can be compared "
        "only with others by the same file, if it was made with the network and preprocessing of "
        "the judged pictures"
    ]


# --- Moments that are kept ---------------------------------------------------------------------


def content_of(source: Any, data: Mapping[str, Any], numbers: Sequence[int]) -> Iterator[str]:
    """What the pictures of a run's data are made of, for a digest.

    The framing, names, sizes and times of all files, and the pixels of a few pictures: whatever
    else changes them changes those.

    Args:
      source: of `jaxt2i.data`.
      data: `config.data` as plain values.
      numbers: the source's own of the pictures.
    """
    yield json.dumps({k: v for k, v in data.items() if k not in IRRELEVANT}, sort_keys=True)
    yield str(len(numbers))
    path = data.get("path", "") if data["source"] != "synthetic" else ""
    known = getattr(source, "report", {}).get("digest")
    if known:
        yield known
    elif path and not files.remote(path):
        for name in files.walk(path):
            about = os.stat(os.path.join(path, name))
            yield f"{name} {about.st_size} {about.st_mtime_ns}"
    spread = np.linspace(0, len(numbers) - 1, min(PROBED, len(numbers))).astype(int)
    for place in dict.fromkeys(spread.tolist()):
        try:
            pixels = np.asarray(source.example(int(numbers[place]), ("image",))["image"])
            yield f"{pixels.shape} {stats.fingerprint([pixels.tobytes()])}"
        except images.Unreadable as error:
            yield error.reason


def cached(
    real: sets.Set, look: Look, reader: Reader, cache: epath.Path | None
) -> tuple[epath.Path | None, str, stats.Gaussian | None]:
    """Where moments of a reference are kept, their digest, and those that are there already.

    The digest is of the pictures, of how they are fed, and of the network's weights. A file that
    cannot be used is made again.
    """
    if cache is None:
        return None, "", None
    digest = stats.fingerprint([real.digest, str(look), reader.weights_digest(look.network)])
    name = stats.file_name(epath.Path(real.name).name, "real", look.input, look.network, digest)
    file = cache / name
    if not file.is_file():
        return file, digest, None
    try:
        return file, digest, stats.load(file, digest=digest).gaussian
    except StatisticsError as error:
        if jax.process_index() == 0:
            log.say(f"computed again: {error}")
        return file, digest, None


def keep(file: epath.Path, of: stats.Gaussian, measured: Protocol, digest: str) -> None:
    """Keeps moments of a reference for the next time."""
    stats.save(file, of, protocol=settings(measured), digest=digest)


def odd(judged: Seen, real: Seen | None, names: tuple[str, str]) -> list[str]:
    """What to know about pictures that cannot be read, and about sizes."""
    out = []
    for seen, name in zip((judged, real), names, strict=True):
        if seen and seen.skipped:
            reasons = ", ".join(f"{n} {reason}" for reason, n in seen.skipped.items())
            out.append(f"left out of {name}: {reasons}")
    if real and judged.sizes.keys() != real.sizes.keys():
        sizes = (
            f"{name} are {' and '.join(list(seen.sizes)[:3])}"
            for seen, name in zip((judged, real), names, strict=True)
        )
        out.append(
            f"pictures of {', those of '.join(sizes)}: scores tell sizes apart, give --resolution "
            "256 to cut and resize folders alike"
        )
    return out
