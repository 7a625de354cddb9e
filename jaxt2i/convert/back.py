"""Weights under the names of the official PyTorch code: the way back of `jaxt2i.convert`.

    from safetensors.torch import load_file
    netG.load_state_dict(load_file("torch/g.safetensors"), strict=False)

`strict=False`, since buffers that carry no weights (counters of batches, filters, a CLIP inside of
a generator) are not among them.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from jaxt2i.convert import rules


def tables_of(
    net: str, module: Any, own: ModuleType | None, encoders: Iterable[ModuleType]
) -> Sequence[rules.Table]:
    """The rename tables of a network: those of its system, else of the encoder that it is.

    Args:
      net: its name in the method.
      module: the network itself.
      own: names of the system; None where it has no official code.
      encoders: names of encoders, with `NETWORKS`.

    Returns:
      A table for each naming; none where nobody has named it.
    """
    if own is not None and net in getattr(own, "TABLES", {}):
        return own.TABLES[net]
    kind = f"{type(module).__module__}:{type(module).__qualname__}"
    for names in encoders:
        for key, place in getattr(names, "NETWORKS", {}).items():
            if place == kind:
                return names.TABLES[key]
    return ()


def to_torch(tables: Sequence[rules.Table], variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """{name in the official code: array}, in the naming that fits a network best: it knows all of
    its arrays, and hardly any other.

    Args:
      tables: of `tables_of`.
      variables: of the network.

    Raises:
      ConversionError: where no naming knows all of its arrays; names those that are unknown.
    """
    wanted = set(flatten_dict(dict(variables), sep="/"))
    left, fitting = wanted, []
    for table in tables:
        made = rules.to_torch(table, variables)
        lacking = wanted - set(flatten_dict(rules.to_flax(table, made, None)[0], sep="/"))
        left = min(left, lacking, key=len)
        if not lacking:
            fitting.append((len(table.rules), made))
    if fitting:
        return min(fitting, key=lambda found: found[0])[1]
    raise rules.ConversionError(
        f"{len(left)} of its arrays have no name in the official code, such as "
        f"{', '.join(sorted(left)[:3])}"
    )
