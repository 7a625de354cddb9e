"""What a run knows of its data, kept in the work directory: drawing then needs no data."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from jaxt2i import places
from jaxt2i.config import ConfigError
from jaxt2i.data import schema
from jaxt2i.data.sources import alike
from jaxt2i.run import exports

FILE, TOKENIZER = "facts.json", "tokenizer"


@dataclasses.dataclass(frozen=True)
class Facts:
    """Of the training data.

    Attributes:
      names: {key of the schema: names of the classes that it counts}.
      counts: {split: its examples; None: no end}.
      statistics: what else a source says of its data, and what the method's own
        `measure(config, source)` finds in it.
      tokenizer: folder or file with the tokenizer, where the configuration names one of its own.
      words: by token id, where the tokenizer that is open counts words; it keeps them itself.
      seen: those that are held out are trained on, too.
    """

    names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    counts: Mapping[str, int | None] = dataclasses.field(default_factory=dict)
    statistics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tokenizer: epath.Path | None = None
    words: tuple[str, ...] = ()
    seen: bool = False


def of(sources: Mapping[str, Any]) -> Facts:
    """The facts of {split: source}, training's being the first and the held-out one the last."""
    first, *_, last = *sources.values(), *sources.values()
    counts = {split: source.size for split, source in sources.items()}
    named = schema.names_of(first)
    names = {key: named[key] for key in named if named[key] and key in first.gives}
    statistics = dict(getattr(first, "statistics", {}))
    return Facts(names, counts, statistics, seen=alike(first, last))


def read(workdir: epath.Path) -> Facts:
    """The facts of a work directory; empty where an older version left none.

    Raises:
      ConfigError: for a file that holds something else.
    """
    path, export = workdir / FILE, (workdir / exports.FILE).is_file()
    if export and not path.is_file():
        raise ConfigError(f"{workdir} is an export without {FILE}; fetch or export it again")
    if not path.is_file():
        return Facts()
    try:
        content = json.loads(path.read_text())
        names = {key: tuple(names) for key, names in content["names"].items()}
        kept = workdir / TOKENIZER / content["tokenizer"] if content["tokenizer"] else None
        seen = bool(content.get("seen", False))  # earlier versions did not tell
        return Facts(names, content["counts"], content["statistics"], kept, seen=seen)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        anew = "delete it, and the next start of the training writes it anew"
        raise ConfigError(
            f"{path} is damaged ({type(error).__name__}: {error}); "
            f"{'fetch or export it again' if export else anew}"
        ) from None


def write(workdir: epath.Path, facts: Facts, tokenizer: str) -> None:
    """Keeps facts, and the files of a tokenizer that lies outside the package.

    Args:
      workdir: the run's directory.
      facts: see `Facts`.
      tokenizer: what config.data.tokenizer says.
    """
    if jax.process_index():
        return
    own, name = epath.Path(tokenizer), ""
    if own.exists():
        name, target = own.name, workdir / TOKENIZER / own.name
        if not target.exists():
            places.copy(own, target)
    content = dataclasses.asdict(facts) | {"tokenizer": name}
    del content["words"]
    places.write_whole(workdir / FILE, json.dumps(content, indent=1) + "\n")
