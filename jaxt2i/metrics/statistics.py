"""Means and covariances of features, batch by batch, on any number of devices and processes.

Sums of squares in float32 lose everything where means are large: each form here takes its sums
about a point near the mean. `Moments` lives on the host in float64; `DeviceMoments` is a pytree
of float32 pairs that goes through `jit`, and becomes `Moments` at the end.
"""

import dataclasses
import functools
import hashlib
import io
import json
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from jaxt2i import places
from jaxt2i.metrics.score import CountError, FeatureError, StatisticsError, check_features

# Rows that are in memory as float64 at once.
BLOCK = 8192

# --- On the host, float64 ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Moments:
    """Count, mean and scatter of a set of rows; merging is exact but for rounding.

    Attributes:
      count: rows.
      mean: [D].
      scatter: [D, D], the sum of (x - mean)(x - mean)^T.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """What a Frechet distance compares.

    Attributes:
      mean: [D], float64.
      covariance: [D, D], float64, divided by N - 1.
      count: rows behind it; None where a file does not say.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int | None = None


def nothing(width: int) -> Moments:
    """The moments of no rows, where accumulation starts."""
    return Moments(0, np.zeros(width), np.zeros((width, width)))


def of_rows(x: np.ndarray, mask: np.ndarray | None = None) -> Moments:
    """Moments of one batch.

    Args:
      x: [N, D], any float dtype.
      mask: [N], False where a row is padding; such rows may hold anything.

    Raises:
      FeatureError: for other shapes, or rows that are not finite.
    """
    x = np.asarray(x)
    if mask is not None:
        mask = np.asarray(mask, bool)
        if mask.shape != x.shape[:1]:
            raise FeatureError(
                f"mask has the shape {list(mask.shape)}, the batch {list(x.shape)}; give one "
                "entry a row (batch['mask'])"
            )
        x = x[mask]
    if len(x) > BLOCK:
        blocks = (of_rows(x[at : at + BLOCK]) for at in range(0, len(x), BLOCK))
        return functools.reduce(merge, blocks)
    check_features(x, "features", least=0)
    if not len(x):
        return nothing(x.shape[1])
    x = x.astype(np.float64)
    mean = x.mean(0)
    centred = x - mean
    return Moments(len(x), mean, centred.T @ centred)


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of both sets of rows together.

    It costs D^2, however few rows there are: give `of_rows` some thousand at a time.

    Source: Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing
      sample variances".
    """
    count = a.count + b.count
    if not count:
        return a
    gap = b.mean - a.mean
    between = np.outer(gap, gap) * (a.count * b.count / count)
    return Moments(count, a.mean + gap * (b.count / count), a.scatter + b.scatter + between)


def gaussian(moments: Moments, what: str = "examples") -> Gaussian:
    """Mean and covariance.

    Args:
      moments: of the rows.
      what: their name in messages.

    Raises:
      CountError: for fewer than two rows.
    """
    if moments.count < 2:
        raise CountError(f"a covariance needs two {what}, there are {moments.count}; draw more")
    return Gaussian(moments.mean, moments.scatter / (moments.count - 1), moments.count)


def covariance(of: Gaussian, ddof: int = 1) -> np.ndarray:
    """The covariance divided by N - ddof.

    Args:
      of: what is known.
      ddof: 1 (most code) or 0 (the StyleGAN family).

    Raises:
      CountError: for ddof 0 where the number of rows is unknown.
    """
    if ddof == 1:
        return of.covariance
    if of.count is None:
        raise CountError(
            f"the covariance divided by N - {ddof} was asked for, but these statistics do not say "
            "from how many images they are; use ddof=1, or compute them again"
        )
    return of.covariance * ((of.count - 1) / (of.count - ddof))


# --- On the device, pairs of float32 -----------------------------------------------------------


class DeviceMoments(NamedTuple):
    """Sums about a fixed point, each as a float32 and the rounding errors it has left behind.

    Attributes:
      count: int32, rows so far.
      shift: [D], the point; the mean of the first batch.
      total: [D], sum of x - shift.
      total_low: [D], to be added to `total`.
      square: [D, D], sum of (x - shift)(x - shift)^T.
      square_low: [D, D], to be added to `square`.
    """

    count: jax.Array
    shift: jax.Array
    total: jax.Array
    total_low: jax.Array
    square: jax.Array
    square_low: jax.Array


def on_device(width: int) -> DeviceMoments:
    """The moments of no rows, where accumulation starts."""
    # Each its own buffer: one that is shared could not be donated.
    rows, tables = (width,), (width, width)
    return DeviceMoments(jnp.int32(0), *map(jnp.zeros, (rows, rows, rows, tables, tables)))


def _two_sum(high: jax.Array, low: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Adds x to high + low, and to `low` exactly what rounding takes from `high` (Knuth)."""
    total = high + x
    rounded = total - high
    return total, low + ((high - (total - rounded)) + (x - rounded))


def accumulate(state: DeviceMoments, x: jax.Array, mask: jax.Array | None = None) -> DeviceMoments:
    """Adds one batch, inside or outside `jit`.

    The batch may be sharded over devices and processes: the state is then one replicated array
    that every process holds, and must not be reduced over processes again.

    Args:
      state: what was added before; may be donated.
      x: [B, D].
      mask: [B], False where a row is padding; such rows may hold anything, NaN included.

    Returns:
      The new state. Rounding is that of one batch's sums, so it does not grow with their number.
    """
    keep = jnp.ones(x.shape[0], bool) if mask is None else mask
    x = jnp.where(keep[:, None], x.astype(jnp.float32), 0)
    number = keep.sum(dtype=jnp.int32)
    first = x.sum(0) / jnp.maximum(number, 1)
    shift = jnp.where(state.count > 0, state.shift, first)
    # Exact where x is within a factor of two of the shift: this is what saves the digits.
    x = jnp.where(keep[:, None], x - shift, 0)
    square = jnp.matmul(x.T, x, precision=jax.lax.Precision.HIGHEST)
    return DeviceMoments(
        state.count + number,
        shift,
        *_two_sum(state.total, state.total_low, x.sum(0)),
        *_two_sum(state.square, state.square_low, square),
    )


def from_device(state: DeviceMoments) -> Moments:
    """The accumulated moments, in float64 on the host.

    Raises:
      FeatureError: where a row was not finite.
    """
    shift, total, low, square, square_low = (np.asarray(x, np.float64) for x in state[1:])
    count, total, square = int(state.count), total + low, square + square_low
    if not (np.isfinite(total).all() and np.isfinite(square).all()):
        raise FeatureError(
            f"features that were accumulated on the device ({count} rows) are not all finite; look "
            "for NaN pixels, or evaluate in float32"
        )
    if not count:
        return nothing(len(total))
    mean = total / count
    scatter = square - np.outer(total, mean)
    return Moments(count, shift + mean, (scatter + scatter.T) / 2)


# --- Over processes ----------------------------------------------------------------------------


def _gather(x: np.ndarray) -> np.ndarray:
    """[P, ...]: x of every process, to the bit (as float64, JAX would round it to float32)."""
    words = multihost_utils.process_allgather(np.frombuffer(x.tobytes(), np.uint8))
    return np.frombuffer(np.asarray(words).tobytes(), x.dtype).reshape(-1, *x.shape)


def merge_processes(moments: Moments, rows: int = 256) -> Moments:
    """Moments of the rows of all processes; every process must call it, and gets the same bits.

    Args:
      moments: of this process's rows.
      rows: of the scatter that travel at once; bounds the memory to processes * rows * D numbers.
    """
    counts = _gather(np.array(moments.count, np.int64))
    total = int(counts.sum())
    if not total:
        return moments
    mean = (counts[:, None] / total * _gather(moments.mean)).sum(0)
    gap = moments.mean - mean
    mine = moments.scatter + moments.count * np.outer(gap, gap)
    parts = [_gather(mine[at : at + rows]).sum(0) for at in range(0, len(mine), rows)]
    return Moments(total, mean, np.concatenate(parts))


def gather_rows(x: np.ndarray) -> np.ndarray:
    """Rows of all processes, those of process 0 first; every process must call it.

    Args:
      x: [N, ...], N may differ between processes.
    """
    x = np.asarray(x)
    counts = _gather(np.array(len(x), np.int64))
    padded = np.zeros((counts.max(), *x.shape[1:]), x.dtype)
    padded[: len(x)] = x
    return np.concatenate(
        [part[:n] for part, n in zip(_gather(padded), counts, strict=True)], dtype=x.dtype
    )


# --- Files -------------------------------------------------------------------------------------


class Reference(NamedTuple):
    """Statistics with their origin.

    Attributes:
      gaussian: mean and covariance.
      protocol: what `save` was given; {} in files of other programs.
      digest: of the images, see `fingerprint`; "" in files of other programs.
    """

    gaussian: Gaussian
    protocol: dict[str, Any]
    digest: str


def fingerprint(parts: Iterable[str | bytes]) -> str:
    """A hash of what a set of images is made of, such as its ids and the files' checksums."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def weights_digest(variables: Any) -> str:
    """A fingerprint of a network's weights."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    parts = (
        (jax.tree_util.keystr(path), str(x.dtype), np.ascontiguousarray(x).tobytes())
        for path, x in leaves
    )
    return fingerprint(part for leaf in parts for part in leaf)


def file_name(dataset: str, split: str, preprocessing: str, network: str, digest: str) -> str:
    """The name of a cached file of statistics: everything that its content depends on."""
    parts = (dataset, split, preprocessing, network, digest[:12])
    return "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part) for part in parts) + ".npz"


def save(
    path: epath.PathLike,
    of: Gaussian,
    *,
    protocol: Mapping[str, Any] | None = None,
    digest: str = "",
) -> None:
    """Writes statistics, in one step, so that pytorch-fid and clean-fid can read them too.

    Args:
      path: an .npz file; its folder is made.
      of: mean and covariance.
      protocol: plain values: network, preprocessing, data set, split.
      digest: of the images.
    """
    path = epath.Path(path)
    places.make_folder(path.parent)
    content = {
        "mu": of.mean,
        "sigma": of.covariance,
        "N": np.array(-1 if of.count is None else of.count),
        "protocol": np.array(json.dumps(dict(protocol or {}), sort_keys=True)),
        "hash": np.array(digest),
    }
    if places.scheme_of(path):
        out = io.BytesIO()
        np.savez(out, **content)
        path.write_bytes(out.getvalue())
        return
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        np.savez(file, **content)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def load(path: epath.PathLike, *, spatial: bool = False, digest: str = "") -> Reference:
    """Reads statistics of `save`, or of pytorch-fid, TTUR, DM-GAN, DF-GAN, clean-fid and ADM.

    Args:
      path: an .npz file.
      spatial: ADM's `mu_s` and `sigma_s`, for sFID, instead of `mu` and `sigma`.
      digest: what the file's own must be; "" accepts any.

    Raises:
      StatisticsError: where the file is missing, damaged, of another kind, or of other images.
    """
    mu, sigma = ("mu_s", "sigma_s") if spatial else ("mu", "sigma")
    found, keys = _arrays(path, (mu, sigma, "N", "protocol", "hash"))
    if mu not in found or sigma not in found:
        raise StatisticsError(
            f"{path}: has the arrays {', '.join(keys) or 'none'}, expected {mu!r} and {sigma!r}"
        )
    mean, table = found[mu], found[sigma]
    if mean.dtype.kind not in "fiu" or table.dtype.kind not in "fiu":
        raise StatisticsError(
            f"{path}: {mu} is of {mean.dtype} and {sigma} of {table.dtype}, expected real numbers"
        )
    mean, table = np.asarray(mean, np.float64), np.asarray(table, np.float64)
    if mean.ndim != 1 or table.shape != (len(mean), len(mean)):
        raise StatisticsError(
            f"{path}: {mu} is {list(mean.shape)} and {sigma} {list(table.shape)}, expected [D] and "
            "[D, D]"
        )
    if not (np.isfinite(mean).all() and np.isfinite(table).all()):
        raise StatisticsError(f"{path}: {mu} or {sigma} is not finite; compute the file again")
    scale = np.abs(np.diagonal(table)).max(initial=0)
    if (np.diagonal(table) < -1e-3 * scale).any() or np.abs(table - table.T).max(
        initial=0
    ) > 1e-3 * scale:
        raise StatisticsError(
            f"{path}: {sigma} is no covariance, which is symmetric with no negative diagonal; "
            "compute the file again"
        )
    own = str(found.get("hash", ""))
    if digest and own != digest:
        raise StatisticsError(
            f"{path}: made from images with the hash {own[:12] or '(none)'}, these have "
            f"{digest[:12]}; delete the file, or name the data set that it belongs to"
        )
    count = found.get("N", np.array(-1))
    known = count.size == 1 and count.dtype.kind in "iuf" and np.isfinite(count).all()
    count = int(count) if known else -1
    protocol = _protocol(str(found.get("protocol", "{}")))
    return Reference(Gaussian(mean, table, count if count > 0 else None), protocol, own)


def _arrays(
    path: epath.PathLike, names: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """(arrays of a file under some of the names, all its names).

    Raises:
      StatisticsError: where it is missing, or no .npz.
    """
    try:
        content = epath.Path(path).open("rb")
        with content as stream, np.load(stream, allow_pickle=False) as file:
            return {key: file[key] for key in names if key in file}, sorted(file)
    except FileNotFoundError as error:
        raise StatisticsError(f"{path}: no such file; compute the reference first") from error
    except (
        *(OSError, EOFError, ValueError, AttributeError, TypeError, RuntimeError),
        *(zipfile.BadZipFile, zlib.error),
    ) as error:
        # numpy's own text would advise to execute what the file holds.
        raise StatisticsError(
            f"{path}: not a readable .npz of arrays; copy it again, or give --reference a folder"
        ) from error


def _protocol(text: str) -> dict[str, Any]:
    """What `save` was given; {} where another program stored something else under that name."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
