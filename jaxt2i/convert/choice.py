"""Which arrays of a file a conversion takes, and what is said of those that it leaves."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxt2i.convert.rules import ConversionError, Table
from jaxt2i.convert.torch_files import Found

# Names that training scripts give to weights averaged over steps.
AVERAGED = re.compile(r"(^|[._/])(ema|\w*_ema|ema_\w*|averaged?|shadow\w*|swa_\w*)([._/]|$)", re.I)


class Chosen(NamedTuple):
    """What is converted, and the rest.

    Attributes:
      state: {key without the prefix: array}.
      left: names, as in the file, of the arrays that are not in `state`.
      prefix: what was taken off the keys of the file.
    """

    state: dict[str, np.ndarray]
    left: tuple[str, ...]
    prefix: str


def select(found: Found, prefix: str) -> Chosen:
    """The keys that start with `prefix`, without it; all weights where it is "".

    Args:
      found: every array of the file.
      prefix: of names as they stand in the file, or as they are without what wraps the weights.

    Raises:
      ConversionError: where no key starts so.
    """
    whole = {f"{found.wrapper}{k}": x for k, x in found.tensors.items()} | found.aside
    if not prefix:
        return Chosen(dict(found.tensors), tuple(found.aside), found.wrapper)
    for names, wrapper in ((whole, ""), (found.tensors, found.wrapper)):
        state = {k.removeprefix(prefix): x for k, x in names.items() if k.startswith(prefix)}
        if state:
            taken = f"{wrapper}{prefix}"
            left = tuple(name for name in whole if not name.startswith(taken))
            return Chosen(state, left, taken)
    raise ConversionError(
        f"no key starts with --prefix {prefix!r}; keys start with {', '.join(heads(whole))}"
    )


def heads(names: Iterable[str], most: int = 8) -> list[str]:
    """How names begin, each beginning once, such as "netG." and "ema.netG."."""
    parts = [re.split(r"(?<=[./])", name) for name in names]
    found = dict.fromkeys(p[0] for p in parts)
    if len(found) == 1:  # one word before everything divides nothing
        found = dict.fromkeys("".join(p[:2]) for p in parts)
    return [*list(found)[:most], *(["..."] if len(found) > most else [])]


def twins(used: Mapping[str, str], chosen: Chosen, unused: Sequence[str]) -> list[str]:
    """Sentences on other copies of the same network that the file holds.

    Args:
      used: {name in the network: key of `chosen.state`} of what was converted.
      chosen: what was converted.
      unused: full names of what was not.
    """
    groups: dict[str, int] = {}
    for name in unused:
        cuts = (m.end() for m in re.finditer(r"[./]", name))
        at = next((cut for cut in cuts if name[cut:] in used), None)
        if at is not None:
            groups[name[:at]] = groups.get(name[:at], 0) + 1
    name, key = next(iter(used.items()))
    own = f"{chosen.prefix}{key.removesuffix(name)}"
    # A word such as "weight" may end many names: copies have most of the names.
    groups = {p: n for p, n in groups.items() if 2 * n > len(used)}
    beside = tuple(chosen.left)
    copies = {
        p: n
        for p, n in groups.items()
        if AVERAGED.search(p) or AVERAGED.search(own) or any(x.startswith(p) for x in beside)
    }
    averaged = [x for x in unused if AVERAGED.search(x)]
    if not copies and not averaged:
        return []
    taken = f"taken: the {'averaged' if AVERAGED.search(own) else 'raw'} weights, " + (
        f"under {own!r}" if own else "whose names have no prefix"
    )
    if not copies:
        return [f"{taken}; {len(averaged)} unused arrays are averaged ones, such as {averaged[0]}"]
    others = [
        f"{n} of the same {len(used)} names under {p!r}"
        f"{', averaged,' if AVERAGED.search(p) else ''} which --prefix {p} takes"
        for p, n in copies.items()
    ]
    return [f"{taken}; the file also holds {' and '.join(others)}"]


def network_names(
    table: Table, state: Mapping[str, np.ndarray], used: Iterable[str]
) -> dict[str, str]:
    """{name in the network: key} of the keys that were used."""
    keys = set(used)
    return {name: key for name, key in table.names(state).items() if key in keys}


def not_finite(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the arrays that hold NaN or infinity."""
    return [
        name
        for name, x in arrays.items()
        if np.asarray(x).dtype.kind in "fc" and not np.isfinite(x).all()
    ]
