"""Which classes of a procedural corpus training shows seldom."""

import functools

from jaxt2i.data.drawn.meaning import CLASSES
from jaxt2i.data.drawn.synthetic import Synthetic


@functools.cache
def classes_by_rarity(corpus: str, examples: int = 2000, scarce: float = 1.0) -> tuple[str, ...]:
    """Classes of a corpus, those that training shows least often first.

    Args:
      corpus: "scenes", "blooms" or "mixed".
      examples: of the training split, whose objects are counted.
      scarce: as training has it (config.data.scarce).
    """
    source = Synthetic(corpus, 32, scarce=scarce)
    counts = dict.fromkeys(CLASSES[corpus], 0)
    for index in range(examples):
        for thing in source.facts(index)["objects"]:
            counts[thing["class"]] += 1
    return tuple(sorted(counts, key=counts.get))
