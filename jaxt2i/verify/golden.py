"""Reads folders of goldens (schema "golden/1") and compares arrays with them.

A folder is a `manifest.json`, its cases (`.npz` or `.json`) and nothing that has to be
downloaded: weights are drawn from a hash of every tensor's name, so they can be rebuilt
anywhere. The manifest lists the networks' tensors and, for every case, inputs, outputs and
limits.
"""

import dataclasses
import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SCHEMA = "golden/1"


class GoldenError(ValueError):
    """A folder cannot be read; the message names the file."""


# --- Weights -----------------------------------------------------------------------------------


def fill(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """The values of one tensor, as a function of its name and shape alone.

    Args:
      name: state-dict key; its last part decides the distribution.
      shape: () for a scalar.
      seed: of the folder.

    Returns:
      float32: N(0, 1/fan_in) for two axes or more, 1 + N(0, 0.1^2) for the scale of a norm,
      U(0.5, 1.5) for a running variance, N(0, 0.1^2) for other vectors; int64 zeros for
      "num_batches_tracked".
    """
    shape, kind = tuple(map(int, shape)), name.rpartition(".")[2]
    draw = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
    if kind == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if kind == "running_var":
        return draw.uniform(0.5, 1.5, shape).astype(np.float32)
    x = np.asarray(draw.standard_normal(shape), np.float32)
    if len(shape) > 1:
        return (x / np.sqrt(max(math.prod(shape[1:]), 1))).astype(np.float32)
    return (0.1 * x + (1 if kind == "weight" else 0)).astype(np.float32)


def leading_vectors(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The leading singular vectors (left [m], right [n]) of a matrix [m, n], with one common sign.

    From the eigenvectors of the smaller of both products with itself: of a published layer all
    singular vectors take eight times as long.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    square = matrix @ matrix.T if wide else matrix.T @ matrix
    first = np.linalg.eigh(square)[1][:, -1]
    second = (matrix.T if wide else matrix) @ first
    second /= np.linalg.norm(second)
    return (first, second) if wide else (second, first)


def singular_vectors(weight: np.ndarray, u: np.ndarray, rule: Mapping) -> tuple:
    """The two vectors (u, v) that a spectrally normalised weight starts a case with.

    Args:
      weight: [out, ...].
      u: the drawn vector [out], from which the power method starts.
      rule: {"method": "svd", "u_scale"} or {"method": "power", "iterations", "eps"}.
    """
    matrix = weight.reshape(len(weight), -1).astype(np.float64)
    if rule["method"] == "svd":
        left, right = leading_vectors(matrix)
        return np.float32(rule["u_scale"] * left), np.float32(right)

    def unit(x: np.ndarray) -> np.ndarray:
        return x / max(np.linalg.norm(x), rule["eps"])

    u = u.astype(np.float64)
    u /= np.linalg.norm(u)
    for _ in range(rule["iterations"]):
        v = unit(matrix.T @ u)
        u = unit(matrix @ v)
    return np.float32(u), np.float32(v)


# --- Inputs ------------------------------------------------------------------------------------

_DRAWS = {
    "uniform": lambda random, shape: random.uniform(-1, 1, shape).astype(np.float32),
    "normal": lambda random, shape: random.standard_normal(shape).astype(np.float32),
    "uint8": lambda random, shape: random.randint(0, 256, shape).astype(np.uint8),
}


def _magnify(x: np.ndarray, k: int) -> np.ndarray:
    return x.repeat(k, -2).repeat(k, -1)


def derive(rule: Mapping, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """An input that is computed from stored ones.

    Args:
      rule: one of {from, repeat, divide, add}, {from, block_mean}, {from, bits}, {mix, size},
        {concat, axis}.
      arrays: the inputs so far.
    """
    if "concat" in rule:
        return np.concatenate([derive(part, arrays) for part in rule["concat"]], rule["axis"])
    if "mix" in rule:
        coarse, fine = (arrays[name] for name in rule["mix"])
        size = rule["size"]
        tiles = -(-size // fine.shape[-1])
        fine = np.tile(fine, (1, 1, tiles, tiles))[..., :size, :size]
        coarse = _magnify(coarse, size // coarse.shape[-1])
        return np.clip(np.float32(0.7) * coarse + np.float32(0.3) * fine, -1, 1)
    x = arrays[rule["from"]]
    if "bits" in rule:
        return np.unpackbits(x)[: math.prod(rule["bits"])].reshape(rule["bits"])
    if "block_mean" in rule:
        k, (*lead, h, w) = rule["block_mean"], x.shape
        blocks = x.reshape(*lead, h // k, k, w // k, k)
        return blocks.mean((-3, -1), dtype=np.float64).astype(np.float32)
    x = _magnify(x.astype(np.float32), rule.get("repeat", 1))
    return x / np.float32(rule.get("divide", 1)) + np.float32(rule.get("add", 0))


def _check_draw(name: str, x: np.ndarray, stored: np.ndarray, file: Path) -> None:
    flat = x.reshape(-1).astype(np.float64)
    seen = np.array([*flat[:4], flat.mean(), flat.std()])
    if not np.allclose(seen, stored, rtol=1e-5, atol=1e-6):
        raise GoldenError(
            f"{file}: input {name!r} was redrawn as {seen}, but the file says {stored}; its recipe "
            "and its check do not belong together"
        )


# --- Folders -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
      name: its key in the manifest.
      inputs: {"in_X": array}, drawn and derived ones included.
      outputs: {"out_X": array}; empty for a JSON case.
      tolerance: {array: limit}; {"*": limit} for a JSON case.
      info: the manifest's entry.
      data: the content of a JSON case, else None.
    """

    name: str
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    tolerance: dict[str, dict]
    info: dict
    data: Any = None


def read_json(file: Path) -> Any:
    """The content of a JSON file; errors name the file."""
    try:
        return json.loads(file.read_text())
    except FileNotFoundError as error:
        raise GoldenError(f"{file}: no such file; the folder is incomplete") from error
    except ValueError as error:
        raise GoldenError(f"{file}: not JSON ({error}); copy the folder again") from error


def read_npz(file: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file; errors name the file."""
    try:
        with np.load(file) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except FileNotFoundError as error:
        raise GoldenError(f"{file}: no such file; the folder is incomplete") from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise GoldenError(f"{file}: not a readable .npz ({error}); copy it again") from error


class Golden:
    """One folder.

    Attributes:
      folder: where it is.
      manifest: its content, see the module's docstring.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        file = self.folder / "manifest.json"
        self.manifest = read_json(file)
        if not isinstance(self.manifest, dict) or self.manifest.get("schema") != SCHEMA:
            seen = self.manifest.get("schema") if isinstance(self.manifest, dict) else None
            raise GoldenError(f"{file}: schema is {seen!r}, this reads {SCHEMA!r}")
        for field in ("cases", "weights", "fill_seed"):
            if field not in self.manifest:
                raise GoldenError(f"{file}: the field {field!r} is missing")
        self._weights: dict[str, dict[str, np.ndarray]] = {}

    @cached_property
    def cases(self) -> tuple[str, ...]:
        """Names of the cases."""
        return tuple(self.manifest["cases"])

    def _entry(self, kind: str, name: str) -> dict:
        if name not in self.manifest[kind]:
            known = ", ".join(self.manifest[kind])
            raise GoldenError(f"{self.folder}: no {name!r} among its {kind}: {known}")
        return self.manifest[kind][name]

    def config(self, net: str) -> dict:
        """The constructor arguments of a network."""
        entry = self._entry("weights", net)
        if "folder" in entry:
            return Golden(self.folder / entry["folder"]).config(entry["net"])
        return entry.get("config", {})

    def order(self, name: str) -> list[str]:
        """Names of the parameters that the entries of a vector belong to."""
        return self._entry("param_order", name)

    def weights(self, net: str, keep: str | tuple[str, ...] = "") -> dict[str, np.ndarray]:
        """The state dict of a network.

        Args:
          net: its name.
          keep: only keys that start with this (one of these); large networks cost time.

        Returns:
          {key: array}, a dict of the caller's own; the arrays are shared and must not be changed.
        """
        if keep:
            made = self._weights.get(net)
            made = self._build(net, keep) if made is None else made
            return {key: x for key, x in made.items() if key.startswith(keep)}
        if net not in self._weights:
            self._weights[net] = self._build(net, "")
        return dict(self._weights[net])

    def _build(self, net: str, keep: str | tuple[str, ...]) -> dict[str, np.ndarray]:
        entry = self._entry("weights", net)
        if "folder" in entry:
            return Golden(self.folder / entry["folder"]).weights(entry["net"], keep)
        out = self._filled(entry, keep)
        for group in entry.get("constants", ()):
            for key in group["keys"]:
                out[key] = np.float32(group["value"])
        rule = entry.get("spectral_norm")
        for layer in rule["layers"] if rule else ():
            if f"{layer}.weight_orig" in out:
                pair = singular_vectors(out[f"{layer}.weight_orig"], out[f"{layer}.weight_u"], rule)
                out[f"{layer}.weight_u"], out[f"{layer}.weight_v"] = pair
        if "overrides" in entry:
            out |= read_npz(self.folder / entry["overrides"])
        for prefix, alias in entry.get("aliases", {}).items():
            start, skip = alias["prefix"], tuple(alias.get("except", ()))
            for key, x in self.weights(alias["net"]).items():
                if key.startswith(start) and not key.startswith(skip):
                    out[prefix + key.removeprefix(start)] = x
        return out

    def _filled(self, entry: Mapping, keep: str | tuple[str, ...]) -> dict[str, np.ndarray]:
        names, factors, positive = (
            entry.get("fill_name", {}),
            entry.get("rescale", {}),
            set(entry.get("abs", ())),
        )
        out = {}
        for key, shape in entry["tensors"]:
            if not key.startswith(keep):
                continue
            name = names.get(key, entry["fill_prefix"] + key)
            x = fill(name, shape, self.manifest["fill_seed"])
            x = np.abs(x) if key in positive else x
            out[key] = x * x.dtype.type(factors.get(key, 1))
        return out

    def case(self, name: str) -> Case:
        """A case with all its inputs."""
        info = self._entry("cases", name)
        file = self.folder / info["file"]
        if file.suffix == ".json":
            return Case(name, {}, {}, info["tolerance"], info, read_json(file))
        stored = read_npz(file)
        inputs = dict(self.case(info["inputs_from"]).inputs) if "inputs_from" in info else {}
        outputs = {}
        for key, x in stored.items():
            if key.startswith("out_"):
                outputs[key] = x
            elif key.startswith("in_") and key != "in_same_as":
                inputs[key] = x
            elif key.startswith("gen_"):
                _, kind, rest = key.split("_", 2)
                seed, *shape = x.tolist()
                inputs[f"in_{rest}"] = _DRAWS[kind](np.random.RandomState(seed), shape)
                if f"chk_{rest}" in stored:
                    _check_draw(rest, inputs[f"in_{rest}"], stored[f"chk_{rest}"], file)
        for key, rule in info.get("derived", {}).items():
            inputs[key] = derive(rule, inputs)
        absent = set(info["tolerance"]) ^ set(outputs)
        if absent:
            raise GoldenError(
                f"{file}: outputs and limits do not belong together: {', '.join(sorted(absent))}"
            )
        return Case(name, inputs, outputs, info["tolerance"], info)


# --- Comparison --------------------------------------------------------------------------------


class Comparison(NamedTuple):
    """Outcome of one array.

    Attributes:
      passed: within the limit.
      error: largest absolute error; NaN for text or for shapes that differ.
      relative: the same over the peak of the reference.
      limit: largest error that was allowed.
      note: what is wrong, in words, where no number says it.
      wrong: entries that exceed the limit.
      size: all entries.
    """

    passed: bool
    error: float
    relative: float
    limit: float
    note: str = ""
    wrong: int = 0
    size: int = 0


def compare(reference: np.ndarray, value: np.ndarray, limit: Mapping) -> Comparison:
    """One output against its reference.

    Args:
      reference: what the original computed.
      value: ours.
      limit: {"abs", "rel_peak"}, optionally "peak_axis" (the peak is taken per index of that
        axis) and "outliers" (share of entries that may exceed the limit). NaN must meet NaN.
    """
    reference, value = np.asarray(reference), np.asarray(value)
    if reference.shape != value.shape:
        note = f"shape {list(value.shape)}, expected {list(reference.shape)}"
        return Comparison(False, math.nan, math.nan, 0.0, note)
    if reference.dtype.kind in "US":
        same = bool(np.array_equal(reference, value))
        return Comparison(same, math.nan, math.nan, 0.0, "" if same else "text differs")
    a, b = reference.astype(np.float64), value.astype(np.float64)
    axes = None
    if "peak_axis" in limit:
        axes = tuple(set(range(a.ndim)) - {limit["peak_axis"] % a.ndim})
    size = np.nan_to_num(np.abs(a))
    peak = size.max(axes, keepdims=True, initial=0)
    allowed = np.maximum(limit["abs"], limit["rel_peak"] * peak)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0, np.abs(a - b))
    wrong = ~same & ~(error <= allowed)  # a NaN that meets a number is no error <= allowed
    count = int(wrong.sum())
    passed = count <= limit.get("outliers", 0) * a.size
    note = "" if passed or np.isfinite(error).all() else "NaN or infinity on one side only"
    top = float(error.max(initial=0))
    whole = float(size.max(initial=0))
    share, allowed = top / whole if whole else top, float(allowed.max(initial=0))
    return Comparison(passed, top, share, allowed, note, count, a.size)


def compare_json(reference: Any, value: Any, limit: Mapping) -> Comparison:
    """A nested structure against a JSON case: numbers within the limit, everything else equal.

    Fields named "note" are prose and are left out.
    """
    numbers: list[tuple[float, float]] = []
    note = _walk(reference, value, "", numbers)
    if note:
        return Comparison(False, math.nan, math.nan, 0.0, note)
    a, b = np.array(numbers, np.float64).reshape(-1, 2).T
    return compare(a, b, limit)


def _walk(reference: Any, value: Any, at: str, numbers: list) -> str:
    """Collects pairs of numbers; returns the first difference of structure or text."""
    if isinstance(reference, dict):
        names = set(reference) - {"note"}
        if not isinstance(value, dict) or names != set(value) - {"note"}:
            return f"{at or 'the top'}: fields {sorted(names)} expected, got {value!r:.80}"
        pairs = [(reference[k], value[k], f"{at}.{k}") for k in sorted(names)]
    elif isinstance(reference, list):
        if not isinstance(value, list | tuple | np.ndarray) or len(value) != len(reference):
            return f"{at}: a list of {len(reference)} expected, got {value!r:.80}"
        pairs = [
            (r, v, f"{at}[{i}]") for i, (r, v) in enumerate(zip(reference, value, strict=True))
        ]
    elif reference is None or isinstance(reference, str | bool):
        return "" if reference == value else f"{at}: {reference!r} expected, got {value!r:.80}"
    elif isinstance(value, int | float | np.number):
        numbers.append((reference, float(value)))
        return ""
    else:
        return f"{at}: a number expected, got {value!r:.80}"
    return next((said for r, v, name in pairs if (said := _walk(r, v, name, numbers))), "")


def subsample(full: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Strides `full` down to a stored output's shape: every ceil(n / m)-th entry of an axis.

    Args:
      full: the whole array.
      shape: of the stored one.

    Returns:
      The strided array; `full` itself where no stride leads from one shape to the other.
    """
    full = np.asarray(full)
    if full.ndim != len(shape) or 0 in shape:
        return full
    steps = [-(-n // m) for n, m in zip(full.shape, shape, strict=True)]
    strided = full[tuple(slice(None, None, step or None) for step in steps)]
    return strided if strided.shape == tuple(shape) else full
