"""What pictures are compared with: a folder, the data of a run, or statistics of a file."""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxt2i.data import images
from jaxt2i.data.sources import files
from jaxt2i.evaluation import scores, sets
from jaxt2i.evaluation.reading import Look, Reader, Seen
from jaxt2i.metrics import statistics as stats
from jaxt2i.metrics.protocols import Protocol, settings
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


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Moments of a file, and whether they belong beside a protocol's.

    Attributes:
      gaussian: mean and covariance.
      says: what has to be known of them, in words; "" where the file says all of it.
      protocol: the one under which a score by them is measured: no published number's, unless the
        file says that it is of the same pictures.
    """

    gaussian: stats.Gaussian
    says: str
    protocol: Protocol


def of_file(file: Path, protocol: Protocol, metrics: Sequence[str]) -> Statistics:
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
    ours = settings(protocol)
    same = all(
        found.protocol.get(key) == ours[key]
        for key in ("fid.reference", "samples.dataset", "samples.split", "samples.resolution")
    )
    if not same or lacking:
        fid = dataclasses.replace(how, reference=f"statistics of {file.name}")
        protocol = dataclasses.replace(protocol, fid=fid)
    return Statistics(found.gaussian, says, protocol)


def note_of(file: Path, says: str) -> list[str]:
    """What to know about a score that was made with statistics that do not say all."""
    if not says:
        return []
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
    real: sets.Set, look: Look, reader: Reader, cache: Path | None
) -> tuple[Path | None, str, stats.Gaussian | None]:
    """Where moments of a reference are kept, their digest, and those that are there already.

    The digest is of the pictures, of how they are fed, and of the network's weights. A file that
    cannot be used is made again.
    """
    if cache is None:
        return None, "", None
    digest = stats.fingerprint(
        [real.digest, look.network, look.input, reader.weights_digest(look.network)]
    )
    name = stats.file_name(Path(real.name).name, "real", look.input, look.network, digest)
    file = cache / name
    if not file.is_file():
        return file, digest, None
    try:
        return file, digest, stats.load(file, digest=digest).gaussian
    except StatisticsError as error:
        if jax.process_index() == 0:
            log.say(f"computed again: {error}")
        return file, digest, None


def keep(file: Path, of: stats.Gaussian, measured: Protocol, digest: str) -> None:
    """Keeps moments of a reference for the next time."""
    stats.save(file, of, protocol=settings(measured), digest=digest)


# --- Folders -----------------------------------------------------------------------------------


def of_path(
    place: Path | None, resolution: int, protocol: Protocol, metrics: Sequence[str]
) -> tuple[sets.Set | None, Statistics | None]:
    """(pictures of --reference, or statistics of it), where a metric compares with it.

    Args:
      place: folder or .npz.
      resolution: of the folder's pictures, see `sets.of_folder`.
      protocol: how is measured.
      metrics: what is measured.

    Raises:
      MetricError: where there is none, or one of the other kind.
    """
    asked = [m for m in metrics if m in (*scores.NEEDS_REAL, "lpips")]
    if not asked:
        return None, None
    if place is None:
        raise MetricError(
            f"{', '.join(asked)} compare with real pictures: give --reference DIR or FILE.npz"
        )
    if place.suffix.lower() != ".npz":
        if place.is_file():
            raise MetricError(
                f"--reference {place}: a file; give a folder of pictures, or statistics as .npz "
                "with the arrays mu and sigma"
            )
        return sets.of_folder(place, resolution, strict=False), None
    if "lpips" in metrics:
        raise MetricError(
            f"lpips compares pictures with pictures, and {place} holds none: give "
            "--reference DIR with the originals, under the same names"
        )
    return None, of_file(place, protocol, asked)


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
