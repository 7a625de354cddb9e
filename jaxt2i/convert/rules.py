"""Rename tables: how the tensors of a PyTorch state dict map to a Flax variables tree, and back.

A table is a list of `Rule`s. The same table loads a checkpoint (`to_flax`), writes one
(`to_torch`) and gives a gradient tree the names that the original code uses.
"""

import dataclasses
import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict


class ConversionError(ValueError):
    """A state dict does not fit; the message names both sides and their shapes."""


class Rule(NamedTuple):
    """One tensor, or a family of tensors.

    Attributes:
      source: state-dict key; "{i}" stands for an integer, as in "blocks.{i}.norm1.weight".
      target: path in the variables tree, collection first: "params/blocks/norm1/scale". May use
        the placeholders of `source`.
      op: name in `OPS`: how the layout changes.
      stack: placeholder whose integers 0..n-1 become a new leading axis of the target, for
        layers that are scanned over.
      part: (k, n): this tensor is slice k of n equal ones along the target's last axis.
    """

    source: str
    target: str
    op: str = "copy"
    stack: str | None = None
    part: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """The rules of one network under one naming.

    Attributes:
      rules: checked in order, the first match wins.
      ignored: fnmatch patterns of keys that carry no weights (buffers).
      prefixes: what wrappers put in front of every key; the first one found is removed.
      part: what files with several networks put in front of this one's keys, such as "netG."; in
        such a file every other key is another network's.
      marker: a key of this network alone, or keys that it alone has together, where files do not
        say whose they are; without them a file holds nothing of this network.
      foreign: a key of a larger network, which has all of this one's; a file with it holds nothing
        of this network.
      counted: layers that a framework numbers as it makes them: Conv, Conv_1, ... in every scope.
        Where a count begins depends on what was made before, so the rules count from Conv_0, and a
        file's numbers are read as an order.
    """

    rules: Sequence[Rule]
    ignored: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ("module.", "model.")
    part: str = ""
    marker: str | tuple[str, ...] = ""
    foreign: str = ""
    counted: tuple[str, ...] = ()

    def names(self, keys: Iterable[str]) -> dict[str, str]:
        """{name in this network: key} of a file's keys; a prefix counts only if all have it."""
        keys = list(keys)
        own = [key for key in keys if self.part and key.startswith(self.part)]
        out = {key.removeprefix(self.part): key for key in own} or {key: key for key in keys}
        for prefix in self.prefixes:
            if out and all(name.startswith(prefix) for name in out):
                out = {name.removeprefix(prefix): key for name, key in out.items()}
        for layer in self.counted:
            out = recount(out, layer)
        markers = (self.marker,) if isinstance(self.marker, str) else self.marker
        ours = all(not key or key in out for key in markers) and self.foreign not in out
        return out if ours else {}


def recount(names: Mapping[str, str], layer: str) -> dict[str, str]:
    """The names with every `layer`, `layer`_1, ... of a scope numbered anew, from 0 in order.

    Args:
      names: {name: anything}, scopes divided by "/".
      layer: the framework's name of a kind of layer.
    """
    part = re.compile(rf"(.*/|){re.escape(layer)}(?:_(\d+))?(/.*)")
    found = {name: m for name in names if (m := part.fullmatch(name))}
    numbers: dict[str, set[int]] = {}
    for m in found.values():
        numbers.setdefault(m[1], set()).add(int(m[2] or 0))
    rank = {scope: {n: i for i, n in enumerate(sorted(of))} for scope, of in numbers.items()}
    return {
        f"{m[1]}{layer}_{rank[m[1]][int(m[2] or 0)]}{m[3]}" if (m := found.get(name)) else name: key
        for name, key in names.items()
    }


@dataclasses.dataclass
class Report:
    """What became of the two sides of a conversion.

    Attributes:
      used: keys whose tensors were taken over.
      ignored: keys that the table declares to be of no use.
      unused: keys that no rule knows, or whose target this network does not have.
      missing: paths of the network that no key filled.
    """

    used: list[str] = dataclasses.field(default_factory=list)
    ignored: list[str] = dataclasses.field(default_factory=list)
    unused: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        parts = []
        for field in dataclasses.fields(self):
            names = getattr(self, field.name)
            line = f"{field.name}: {len(names)}"
            if names and field.name in ("unused", "missing"):
                shown = ", ".join(names[:8])
                line += f" ({shown}{', ...' if len(names) > 8 else ''})"
            parts.append(line)
        return "\n".join(parts)

    def require_all(self, what: str) -> None:
        """Raises `ConversionError` if anything is missing; `what` names the file in the message."""
        if self.missing:
            raise ConversionError(
                f"{what} lacks {len(self.missing)} of this network's arrays, the first of them "
                f"{', '.join(self.missing[:5])}; is it another network, size or key prefix? "
                f"Keys nothing was done with: {', '.join(self.unused[:5]) or 'none'}"
            )


# name: (PyTorch layout -> Flax layout, and back)
OPS: dict[str, tuple[Callable, Callable]] = {
    "copy": (lambda x: x, lambda x: x),
    "dense": (lambda x: x.T, lambda x: x.T),  # [out, in] <-> [in, out]
    "conv2d": (lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1)),
    # [out, in, 1, 1] or [out, in, 1] <-> [in, out]; written back with two window axes
    "dense1x1": (lambda x: x.reshape(x.shape[:2]).T, lambda x: x.T[..., None, None]),
    # The same, written back with one window axis.
    "dense1": (lambda x: x.reshape(x.shape[:2]).T, lambda x: x.T[..., None]),
    "conv1d": (lambda x: x.transpose(2, 1, 0), lambda x: x.transpose(2, 1, 0)),
    "squeeze": (lambda x: x.reshape(-1), lambda x: x.reshape(1, -1, 1, 1)),  # [1, C, 1, 1] <-> [C]
    "token": (lambda x: x.reshape(-1), lambda x: x.reshape(1, 1, -1)),  # [1, 1, C] <-> [C]
    "unbatch": (lambda x: x[0], lambda x: x[None]),  # [1, ...] <-> [...]
}


def _pattern(template: str) -> re.Pattern:
    """A regular expression with one named integer group per placeholder."""
    seen: set[str] = set()
    out = ""
    for text, name in re.findall(r"([^{]*)(?:\{(\w+)\})?", template):
        out += re.escape(text)
        if name:
            out += f"(?P={name})" if name in seen else rf"(?P<{name}>\d+)"
            seen.add(name)
    return re.compile(out)


def _fill(template: str, values: Mapping[str, Any]) -> str:
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", str(value))
    return template


def _finder(rules: Sequence[Rule]) -> Callable[[str], tuple[dict[str, str], Rule] | None]:
    """A function from a key to (its placeholders' numbers, the first rule that knows it)."""
    # Most rules of a large table are plain names: one look instead of a search each.
    plain: dict[str, int] = {}
    patterns = []
    for place, rule in enumerate(rules):
        if "{" in rule.source:
            patterns.append((place, _pattern(rule.source)))
        else:
            plain.setdefault(rule.source, place)

    def find(key: str) -> tuple[dict[str, str], Rule] | None:
        most = plain.get(key, len(rules))
        for place, pattern in patterns:
            if place > most:
                break
            if match := pattern.fullmatch(key):
                return match.groupdict(), rules[place]
        return ({}, rules[most]) if key in plain else None

    return find


def as_table(rules: Table | Iterable[Rule]) -> Table:
    """A `Table`, made of bare rules where need be."""
    return rules if isinstance(rules, Table) else Table(tuple(rules))


def pick(tables: Sequence[Table], names: Iterable[str]) -> Table:
    """The table (one per naming) whose rules know the most of `names`."""
    names = list(names)

    def known(table: Table) -> int:
        find = _finder(table.rules)
        return sum(find(n) is not None for n in table.names(names))

    return max(tables, key=known)


class _Leaf:
    """The tensors that make up one array of the target tree."""

    def __init__(self):
        self.cells: dict[tuple[int, int], np.ndarray] = {}
        self.keys: dict[tuple[int, int], str] = {}
        self.rule: Rule | None = None

    def add(self, key: str, rule: Rule, index: int, x: np.ndarray) -> None:
        cell = (index, rule.part[0] if rule.part else 0)
        if cell in self.cells:
            raise ConversionError(
                f"{key!r} and {self.keys[cell]!r} both claim {rule.target}; keep one naming"
            )
        self.cells[cell], self.keys[cell], self.rule = x, key, rule

    def array(self, path: str) -> np.ndarray:
        parts = self.rule.part[1] if self.rule.part else 1
        depth = 1 + max(i for i, _ in self.cells)
        absent = [c for c in np.ndindex(depth, parts) if c not in self.cells]
        if absent:
            present = next(iter(self.keys.values()))
            raise ConversionError(
                f"{path}: no key for (layer, part) {absent[0]}, while {present!r} is there; "
                f"expected {depth} layers x {parts} parts"
            )
        shapes = {x.shape: self.keys[c] for c, x in self.cells.items()}
        if len(shapes) > 1:
            said = ", ".join(f"{key!r} gives {list(shape)}" for shape, key in shapes.items())
            raise ConversionError(f"{path}: parts of different shapes: {said}")
        layers = [
            np.concatenate([self.cells[i, k] for k in range(parts)], -1)
            if self.rule.part
            else self.cells[i, 0]
            for i in range(depth)
        ]
        return np.stack(layers) if self.rule.stack else layers[0]


def to_flax(
    rules: Table | Iterable[Rule],
    state_dict: Mapping[str, np.ndarray],
    template: Mapping[str, Any] | None,
) -> tuple[dict, Report]:
    """Arrays of a state dict as the variables of a Flax network.

    Args:
      rules: the table.
      state_dict: {key: array}.
      template: {"params": ..., other collections: ...} of arrays or ShapeDtypeStructs, as
        `jax.eval_shape` of the network's `init` gives it. None checks nothing and takes whatever
        the rules know.

    Returns:
      The variables, in the template's dtypes, and the `Report`. What nothing filled is the
      template's own array, or left out where the template has only shapes.

    Raises:
      ConversionError: for a shape that differs (names key, path and both shapes), for two keys
        that claim the same place, and for a gap in a stack.
    """
    table, report, leaves = as_table(rules), Report(), {}
    wanted = None if template is None else flatten_dict(dict(template), sep="/")
    find = _finder(table.rules)
    names = table.names(state_dict)
    others = set(state_dict) - set(names.values())
    report.unused += [key for key in state_dict if key in others]
    for key, full in names.items():
        found = find(key)
        path = _fill(found[1].target, found[0]) if found else None
        if path and (wanted is None or path in wanted):
            numbers, rule = found
            index = int(numbers[rule.stack]) if rule.stack else 0
            x = _relayout(rule.op, np.asarray(state_dict[full]), full, path)
            leaves.setdefault(path, _Leaf()).add(full, rule, index, x)
            report.used.append(full)
        elif any(fnmatch.fnmatchcase(key, pattern) for pattern in table.ignored):
            report.ignored.append(full)
        else:
            report.unused.append(full)
    if wanted is None:
        out = {path: leaf.array(path) for path, leaf in leaves.items()}
        return unflatten_dict(out, sep="/"), report
    out = {}
    for path, want in wanted.items():
        if path in leaves:
            out[path] = _checked(path, leaves[path], want)
            continue
        report.missing.append(path)
        if not isinstance(want, jax.ShapeDtypeStruct):
            out[path] = want
    return unflatten_dict(out, sep="/"), report


def _relayout(op: str, x: np.ndarray, key: str, path: str) -> np.ndarray:
    try:
        return OPS[op][0](x)
    except ValueError as error:
        raise ConversionError(
            f"{key!r} has shape {list(x.shape)}, which {op!r} cannot turn into {path}"
        ) from error


def _checked(path: str, leaf: _Leaf, want: Any) -> np.ndarray:
    x = leaf.array(path)
    if x.shape != tuple(want.shape):
        key = next(iter(leaf.keys.values()))
        cell = next(iter(leaf.cells.values()))
        raise ConversionError(
            f"{key!r} gives shape {list(x.shape)} for {path}, where the network has "
            f"{list(want.shape)} (one tensor, in Flax layout, is {list(cell.shape)}): the "
            "checkpoint is of another size, or the network was built with other fields"
        )
    return x.astype(want.dtype)


def to_torch(rules: Table | Iterable[Rule], variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inverse of `to_flax`: {state-dict key: array}, in the order of the rules.

    Serves to write checkpoints that the original code reads, and to name gradients: a tree that
    holds only a part of the network gives only that part's keys.
    """
    flat = flatten_dict(dict(variables), sep="/")
    out: dict[str, np.ndarray] = {}
    for rule in as_table(rules).rules:
        pattern = _pattern(rule.target)
        for path, value in flat.items():
            match = pattern.fullmatch(path)
            if not match:
                continue
            x = np.asarray(value)
            layers = enumerate(x) if rule.stack else [(None, x)]
            for index, layer in layers:
                names = match.groupdict() | ({rule.stack: index} if rule.stack else {})
                if rule.part:
                    layer = np.split(layer, rule.part[1], -1)[rule.part[0]]
                out[_fill(rule.source, names)] = OPS[rule.op][1](layer)
    return out
